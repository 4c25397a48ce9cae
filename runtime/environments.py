"""The model's environment: a virtual environment of its own, made once, packed, and restored wherever it is served.

It has the model's packages, those that our server needs (resolved together, so that a conflict shows in the build),
and a copy of this package. Its digest says what is in it: two builds with the same packages share one environment, and
serving needs no package index.

Environments lie below TRUEUP_CACHE_DIR (all pods of the embedded data plane share it), or else below /workspace.
"""

from __future__ import annotations

import compileall
import fcntl
import hashlib
import json
import os
import re
import shutil
import sysconfig
import tarfile
import venv
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from runtime import records
from runtime.dependencies import Dependencies
from runtime.files import digest_of_file, digest_of_tree
from runtime.installers import installer
from runtime.logs import Log
from runtime.records import StoredFile
from runtime.storage import NotFound, ObjectStorage

#: What every model's environment has beside the model's own packages.
REQUIREMENTS = ("httptools>=0.6.4", "orjson>=3.10", "pytest>=7", "uvloop>=0.21")

#: Implementation, version, processor and C library: what compiled packages fit, such as cpython-311-x86_64-linux-gnu.
PLATFORM = str(sysconfig.get_config_var("EXT_SUFFIX")).strip(".").removesuffix(".so")

_FORMAT = 1
_COMPLETE = ".complete"
#: What belongs to this machine's Python, and is made anew where the environment is restored.
_OF_THE_MACHINE = re.compile(r"pyvenv\.cfg|lib64|\.complete|\.lock|bin/([Aa]ctivate.*|deactivate.*|python.*)")


class RestoreError(Exception):
    """A packed environment that cannot be restored here: which one, and why."""


@dataclass(frozen=True, slots=True)
class Environment:
    """An environment on this machine."""

    folder: Path
    digest: str

    @property
    def python(self) -> Path:
        """Its interpreter. Run it with `-P`, so that the folder it runs in comes after its packages."""
        return self.folder / "bin" / "python"


def cache_folder() -> Path:
    """Where environments and downloaded packages are kept."""
    return Path(os.environ.get("TRUEUP_CACHE_DIR") or "/workspace/cache")


def prepare(dependencies: Dependencies, log: Log) -> Environment:
    """The environment for these dependencies: resolved now, and installed unless it is here already.

    Raises Failure, OSError.
    """
    tool = installer(log, cache_folder())
    cwd = dependencies.file.parent
    lock = tool.lock(dependencies, REQUIREMENTS)
    environment = _environment(_digest(lock, cwd, log))
    with _being_made(environment) as is_new:
        if is_new:
            log.say(f"installing {_count(lock)} packages with {tool.name}")
            tool.install(lock, environment.python, cwd)
            _add_runtime(environment)
            (environment.folder / "lock.txt").write_text(log.secrets.mask(_without_options(lock)), "utf-8")
        else:
            log.say(f"{_count(lock)} packages are here already, as environment {environment.digest}")
    return environment


def store(environment: Environment, storage: ObjectStorage) -> StoredFile:
    """Packs the environment into the storage, unless it is there. What is there already is what counts.

    Raises StorageError, OSError.
    """
    key, description = records.packages_key(environment.digest), records.packages_description_key(environment.digest)
    with suppress(NotFound):
        return _described(key, storage.read(description))
    with _alone(environment), TemporaryDirectory(prefix=".pack-", dir=environment.folder.parent) as scratch:
        with suppress(NotFound):  # packed while we waited
            return _described(key, storage.read(description))
        archive = Path(scratch) / "environment.tar.gz"
        if not storage.exists(key):
            _pack(environment, archive)
            created = storage.create(key, archive)
        else:
            created = False
        if not created:  # by a build that is faster, or ended before it could describe it
            storage.download(key, archive)
        stored = StoredFile(key, digest_of_file(archive), archive.stat().st_size)
    content = {"sha256": stored.sha256, "bytes": stored.bytes, "platform": PLATFORM, "lock": _lock_of(environment)}
    storage.create(description, json.dumps({"format": _FORMAT, **content}, indent=1).encode())
    return stored


def restore(storage: ObjectStorage, packages: StoredFile) -> Environment:
    """The environment of a build (`BuildRecord.packages`), from this machine or else from the storage.

    Raises RestoreError where it was made for another Python or cannot be unpacked; StorageError, Corrupt where it is
    damaged; OSError.
    """
    environment = _environment(records.digest_of(packages.key))
    with _being_made(environment) as is_new:
        if is_new:
            _check_platform(storage, packages)
            with TemporaryDirectory(prefix=".pack-", dir=environment.folder.parent) as scratch:
                archive = Path(scratch) / "environment.tar.gz"
                storage.download(packages.key, archive, packages.sha256)
                try:
                    with tarfile.open(archive) as tar:
                        tar.extractall(environment.folder, filter="data")
                except (tarfile.TarError, EOFError, zlib.error) as error:
                    raise RestoreError(f"{packages.key} cannot be unpacked: {error}") from error
    return environment


def _environment(digest: str) -> Environment:
    return Environment(cache_folder() / "environments" / digest, digest)


@contextmanager
def _alone(environment: Environment) -> Iterator[None]:
    """No other process of this machine makes or packs the environment meanwhile."""
    with environment.folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _being_made(environment: Environment) -> Iterator[bool]:
    """Whether the caller has to fill it: one process at a time does, and what is half done is begun anew.

    It is filled where it stays, for scripts of packages name the folder of their interpreter.
    """
    folder = environment.folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _alone(environment):
        if changed(environment) == "":
            yield False
            return
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, symlinks=True, with_pip=False)
        yield True
        (folder / _COMPLETE).write_text("".join(sorted(_files(folder))), "utf-8", "surrogateescape")


def changed(environment: Environment) -> str | None:
    """A file that is not as it was installed, "" where all are; None where the environment is not complete.

    Model code can write to its environment, and others may get the same one.
    """
    try:
        installed = (environment.folder / _COMPLETE).read_text("utf-8", "surrogateescape").splitlines(keepends=True)
    except FileNotFoundError:
        return None
    differ = set(installed).symmetric_difference(_files(environment.folder))
    return min(line.partition("\t")[0] for line in differ) if differ else ""


def _files(folder: Path) -> Iterator[str]:
    """A line for each file: its path, and what a write to it changes. What Python compiled for itself is left out."""
    for where, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for name in names:
            if name != _COMPLETE:
                path = os.path.join(where, name)  # noqa: PTH118 - for thousands of files, pathlib takes most of the time
                stat = os.lstat(path)
                yield f"{os.path.relpath(path, folder)}\t{stat.st_size} {stat.st_mtime_ns} {stat.st_mode}\n"


def _digest(lock: str, cwd: Path, log: Log) -> str:
    """Of everything that makes an environment what it is."""
    parts = [str(_FORMAT), PLATFORM, log.secrets.mask(_without_options(lock)), digest_of_tree(_PACKAGE, _is_source)]
    parts += [digest_of_tree(path) for path in _local_packages(lock, cwd)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _without_options(lock: str) -> str:
    """Without the lines that say where packages are had: they may hold a password, and change nothing else."""
    return "".join(f"{line}\n" for line in lock.splitlines() if line and not line.startswith("-"))


def _local_packages(lock: str, cwd: Path) -> list[Path]:
    """Files and folders that are installed as packages: the lock does not say what is in them."""
    found: list[Path] = []
    for line in _without_options(lock).splitlines():
        match = re.search(r"(?:^|@ )(?:file://)?((?:\.{0,2}/)[^\s;#]*)", line)
        if match and not line.startswith(" "):
            path = cwd / match[1]
            if not path.exists():
                continue  # the installer says so, in its own words
            found.append(path)
    return found


def _count(lock: str) -> int:
    return sum(not line.startswith((" ", "-", "#")) for line in lock.splitlines() if line)


_PACKAGE = Path(__file__).parent


def _is_source(path: Path) -> bool:
    return path.suffix != ".pyc"


def _add_runtime(environment: Environment) -> None:
    (site,) = environment.folder.glob("lib/python*/site-packages")
    target = site / "runtime"
    shutil.copytree(_PACKAGE, target, ignore=shutil.ignore_patterns("__pycache__"))
    compileall.compile_dir(target, quiet=2)


def _lock_of(environment: Environment) -> str:
    return (environment.folder / "lock.txt").read_text("utf-8")


def _pack(environment: Environment, archive: Path) -> None:
    """All that is not this machine's own. Times are kept: compiled modules are checked against them."""

    def kept(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if _OF_THE_MACHINE.fullmatch(member.name) else member

    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        for path in sorted(environment.folder.iterdir()):
            tar.add(path, path.name, filter=kept)


def _described(key: str, content: bytes) -> StoredFile:
    document = json.loads(content)
    return StoredFile(key, document["sha256"], document["bytes"])


def _check_platform(storage: ObjectStorage, packages: StoredFile) -> None:
    document = json.loads(storage.read(records.packages_description_key(records.digest_of(packages.key))))
    if document["platform"] != PLATFORM:
        raise RestoreError(
            f"{packages.key} was made for {document['platform']}, and this image is {PLATFORM}: "
            "serve the build from an image with the Python that built it"
        )
