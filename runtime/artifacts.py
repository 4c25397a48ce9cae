"""An artifact: a folder with the pickled model, its code, and what it logged; in the object storage, one archive.

model.pickle, artifact.json, code/ (the folders that were fetched for it), files/
"""

from __future__ import annotations

import shutil
import tarfile
import zlib
from collections.abc import Iterable
from pathlib import Path

FORMAT = 1
DESCRIPTION = "artifact.json"
CODE = "code"


class ArtifactError(Exception):
    """An archive that is no artifact: what is wrong with it."""


def copy_code(code: Path, folders: Iterable[str], into: Path) -> None:
    """Copies folders of a repository, "" for all of it, to the same places below `into`.

    A link becomes what it leads to, for that may lie in a folder that is not copied; one that leads nowhere is left
    out. Raises OSError.
    """
    for folder in folders:
        shutil.copytree(code / folder, into / folder, ignore=_left_out, dirs_exist_ok=True)


def _left_out(folder: str, names: list[str]) -> set[str]:
    here = Path(folder)
    above = {place.resolve() for place in (here, *here.parents)}
    found = {name for name in names if name in ("__pycache__", ".git")}
    for name in names:
        link = here / name
        # A link to a folder that it lies in has no end.
        if link.is_symlink() and (not link.exists() or link.resolve() in above):
            found.add(name)
    return found


def pack(artifact: Path, archive: Path) -> None:
    """Writes the folder as an archive, without compiled modules. Raises OSError."""

    def kept(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        if "__pycache__" in member.name.split("/"):
            return None
        # Who built it is of no interest, and would be a user of the machine that unpacks it.
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        return member

    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        for path in sorted(artifact.iterdir()):
            tar.add(path, path.name, filter=kept)


def unpack(archive: Path, into: Path) -> None:
    """Writes the files of an archive to a new folder. Nothing leads out of it. Raises ArtifactError, OSError."""
    into.mkdir(parents=True)
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(into, filter="data")
    except tarfile.FilterError as error:
        raise ArtifactError(f"it has a file that cannot be unpacked: {error}") from error
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise ArtifactError(f"it is no archive: {error}") from error
