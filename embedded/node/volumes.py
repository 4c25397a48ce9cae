"""The files of a pod: a folder of its own, one folder in it for each volume, and where its containers see them.

pods/<id>/.volumes/<volume>/    what is mounted
pods/<id>/<container>/          /tmp, the working directory and the termination message of a container
pods/<id>/<container>/<n>.log   what its n-th run printed
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from embedded.node.environment import Facts, Object, Paths, contents, field, resource_field

#: What a kubelet cuts a termination message at: bytes of its file.
TERMINATION_BYTES = 4096

#: A name that no container can have: their folders lie beside it.
_VOLUMES = ".volumes"


class MountError(Exception):
    """A volume cannot be mounted (yet): the pod waits."""


def folder_of(data: Path, uid: str) -> Path:
    """The folder of a pod. Its name is short: a socket's path in it may have 107 bytes in all."""
    return data / "pods" / uid.replace("-", "")[:12]


def mount(folder: Path, facts: Facts) -> None:
    """Make the volumes of a pod, or bring them up to date with the Secrets and ConfigMaps they show.

    Raises MountError.
    """
    for volume in facts.pod["spec"].get("volumes", ()):
        place = folder / _VOLUMES / volume["name"]
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        files = dict(_files(volume, facts))
        for name, (content, mode) in files.items():
            _write(place / name, content, mode)
        if "emptyDir" not in volume and "hostPath" not in volume:
            for path in list(place.rglob("*")):
                if path.is_file() and str(path.relative_to(place)) not in files:
                    path.unlink()


def _files(volume: Object, facts: Facts) -> Iterator[tuple[str, tuple[bytes, int]]]:
    """The files of a volume: path below it -> content, mode."""
    kind = next((kind for kind in volume if kind != "name"), "emptyDir")
    source = volume.get(kind) or {}
    if kind in ("emptyDir", "hostPath"):
        return
    if kind in ("secret", "configMap", "downwardAPI"):
        yield from _source(kind, source, source.get("defaultMode", 0o644), volume["name"], facts)
    elif kind == "projected":
        for part in source.get("sources") or ():
            for inner, what in part.items():
                yield from _source(inner, what, source.get("defaultMode", 0o644), volume["name"], facts)
    else:
        raise MountError(f'volume "{volume["name"]}" is a {kind}, which the embedded data plane does not have')


def _source(kind: str, source: Object, mode: int, volume: str, facts: Facts) -> Iterator[tuple[str, tuple[bytes, int]]]:
    if kind == "downwardAPI":
        for item in source.get("items", ()):
            if "fieldRef" in item:
                text = field(item["fieldRef"]["fieldPath"], facts)
            else:
                text = resource_field(item["resourceFieldRef"], {"name": ""}, facts)
            yield item["path"], (text.encode(), item.get("mode", mode))
        return
    if kind not in ("secret", "configMap"):
        raise MountError(f'volume "{volume}" has a {kind}, which the embedded data plane does not have')
    resource, name = (
        ("secrets", source.get("secretName") or source.get("name", ""))
        if kind == "secret"
        else (
            "configmaps",
            source.get("name", ""),
        )
    )
    found = facts.lookup(resource, name)
    if found is None:
        if source.get("optional"):
            return
        raise MountError(f'MountVolume.SetUp failed for volume "{volume}" : {resource[:-1]} "{name}" not found')
    values = contents(resource, found)
    if not source.get("items"):
        yield from ((key, (content, mode)) for key, content in values.items())
        return
    for item in source["items"]:
        if item["key"] in values:
            yield item["path"], (values[item["key"]], item.get("mode", mode))
        elif not source.get("optional"):
            why = f"references non-existent {kind.lower()} key: {item['key']}"
            raise MountError(f'MountVolume.SetUp failed for volume "{volume}" : {why}')


def _write(path: Path, content: bytes, mode: int) -> None:
    """Whole or not at all, and only if it is new: a container may have the file open, or watch it."""
    with _regular(path) as file:
        if file is not None and stat.S_IMODE(os.fstat(file.fileno()).st_mode) == mode and file.read() == content:
            return
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    fresh.chmod(mode)
    fresh.replace(path)


@contextmanager
def _regular(path: Path) -> Iterator[BinaryIO | None]:
    """A regular file, to be read; None where there is none.

    A container may have put something else there: to open a pipe that nobody writes into would stop us all.
    """
    descriptor = -1
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if descriptor < 0 or not stat.S_ISREG(os.fstat(descriptor).st_mode):
            yield None
            return
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            yield file
    finally:
        if descriptor >= 0:
            os.close(descriptor)


class Place:
    """Where one container of a pod lives."""

    def __init__(self, folder: Path, pod: Object, container: Object) -> None:
        self.folder: Path = folder / container["name"]
        self.tmp = self.folder / "tmp"
        self.work = self.folder / "work"
        self.message = self.folder / "termination-log"
        folders: dict[str, Path] = {"/tmp": self.tmp}  # noqa: S108  # the container's, which becomes its own folder
        folders |= {"/var/tmp": self.tmp}  # noqa: S108 - as above
        volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes", ())}
        for mounted in container.get("volumeMounts", ()):
            folders[mounted["mountPath"]] = _place(folder, volumes[mounted["name"]], mounted)
        folders[container.get("terminationMessagePath") or "/dev/termination-log"] = self.message
        self.paths = Paths(folders)
        self._folders = folders

    def make(self) -> None:
        """The folders of the container are there, and nothing of an earlier run is but what it left in volumes.

        Takes as long as there is much to remove.
        """
        for path in (self.tmp, self.work):
            remove(path)
            path.mkdir(mode=0o700, parents=True)
        for path in self._folders.values():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if path != self.message and not path.exists():
                path.mkdir(mode=0o700)  # a subPath
        if self.message.is_dir() and not self.message.is_symlink():
            remove(self.message)
        self.message.unlink(missing_ok=True)  # a container may have made anything of it
        self.message.write_bytes(b"")

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """What tells programs that their files belong here, and not into the user's home."""
        tmp = self.paths("/tmp")  # noqa: S108 - as above
        return {**base, "HOME": tmp, "TMPDIR": tmp}

    def log(self, attempt: int) -> Path:
        """What the run with this number printed."""
        return self.folder / f"{attempt}.log"

    def termination_message(self) -> str:
        """What the container left for its status: at most the last 4096 bytes."""
        with _regular(self.message) as file:
            if file is None:
                return ""
            file.seek(max(0, os.fstat(file.fileno()).st_size - TERMINATION_BYTES))
            return file.read(TERMINATION_BYTES).decode(errors="replace")


def _place(folder: Path, volume: Object, mounted: Object) -> Path:
    if "hostPath" in volume:
        return Path(volume["hostPath"]["path"])
    place: Path = folder / _VOLUMES / volume["name"] / (mounted.get("subPath") or "")
    return place


def remove(folder: Path) -> None:
    """Remove a folder and all that is in it, however it was protected; what cannot be removed stays."""
    for root, names, _ in os.walk(folder):
        for path in (Path(root, name) for name in names):
            if not path.is_symlink():  # chmod follows it, out of here
                with suppress(OSError):
                    path.chmod(0o700)  # package managers and tests leave folders that nobody may read or write
    shutil.rmtree(folder, ignore_errors=True)
