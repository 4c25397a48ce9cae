"""Files and tables that a model keeps with its build, and reads again where it is served.

They lie in the `files` folder of the artifact. Where there is no artifact (a laptop, a test), they are kept in a
temporary folder for as long as the process lives.
"""

from __future__ import annotations

import atexit
import importlib
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from runtime.model.exceptions import ModelError

_TAG = re.compile(r"[A-Za-z0-9_-]+")
_folder: Path | None = None


def keep_in(folder: Path) -> None:
    """Where files of this process's model are from now on."""
    global _folder  # noqa: PLW0603 - a process has one model, and its code calls plain functions
    _folder = folder


def log_file(
    from_path: str | Path, tag: str = "artifact", model_id: str | None = None, build_id: str | None = None
) -> None:
    """Keep a copy of a file with this build, under a tag (letters, digits, _ and -). The last file of a tag stays."""
    place = _place(tag, model_id, build_id)
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(from_path, place)


def load_file(
    to_path: str | Path, tag: str = "artifact", model_id: str | None = None, build_id: str | None = None
) -> str:
    """Write the file of a tag to a path, and answer the path. Raises ModelError where this build has none."""
    shutil.copyfile(_kept(tag, model_id, build_id), to_path)
    return str(to_path)


def log_data(
    dataframe: Any, tag: str, model_id: str | None = None, build_id: str | None = None, encoding: str = "utf-8"
) -> None:
    """Keep a DataFrame with this build, as compressed CSV without its index."""
    place = _place(tag, model_id, build_id).with_suffix(".csv.gz")
    place.parent.mkdir(parents=True, exist_ok=True)
    dataframe.to_csv(place, index=False, encoding=encoding, compression="gzip")


def load_data(
    tag: str, model_id: str | None = None, build_id: str | None = None, encoding: str = "utf-8", compressed: bool = True
) -> Any:
    """The DataFrame of a tag. Raises ModelError where this build has none. Needs pandas."""
    place = _kept(tag, model_id, build_id, ".csv.gz")
    return importlib.import_module("pandas").read_csv(
        place, encoding=encoding, compression="gzip" if compressed else None
    )


def _kept(tag: str, model_id: str | None, build_id: str | None, suffix: str = "") -> Path:
    place = _place(tag, model_id, build_id).with_suffix(suffix)
    if not place.is_file():
        raise ModelError(f"This build kept nothing under the tag {tag!r}: build() must log it first.")
    return place


def _place(tag: str, model_id: str | None, build_id: str | None) -> Path:
    if not _TAG.fullmatch(tag):
        raise ModelError(f"The tag {tag!r} may have letters, digits, _ and - only.")
    if model_id is not None or build_id is not None:
        raise ModelError(
            "A build has its own files only: leave out model_id and build_id, and fetch those of others in build()."
        )
    if _folder is None:
        temporary = tempfile.mkdtemp(prefix="model-files-")
        atexit.register(shutil.rmtree, temporary, ignore_errors=True)
        keep_in(Path(temporary))
    assert _folder is not None
    return _folder / tag
