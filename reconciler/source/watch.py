"""When spec files are written: for whoever edits them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import sleep
from typing import TypeAlias

#: Milliseconds: editors write a file in several steps, and a checkout many files; this long after the last of them
#: nothing more comes, and after so long in all it is told anyhow.
_QUIET, _AT_LAST = 20, 200
#: Milliseconds between two looks at a single file.
_LOOK = 500


def changes(paths: Sequence[Path], files: Sequence[Path] = ()) -> Iterator[None]:
    """Each time something below these paths may have been written. Raises KeyboardInterrupt when it is interrupted.

    Once it has begun to watch, too: between what its caller read before and that, somebody may have saved a file.

    Of a file its folder is watched: most editors put a new file in its place. `files` are looked at now and then, and
    may come and go: their folder may be a whole repository. Raises OSError where a path cannot be.
    """
    folders = sorted({path if path.is_dir() else path.parent for path in paths})
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(2, f"there is no folder {folder}")
    seen, missed = _stamps(files), True
    while True:
        with _held(folders) as held:
            for found in _looks([folder for folder in folders if held[folder]]):
                before, seen = seen, _stamps(files)
                replaced = any(_place(folder) != held[folder] for folder in folders)
                if found or missed or replaced or seen != before:
                    yield None
                missed = replaced  # what was written before the next look begins, nobody has seen
                if replaced:
                    break


def _looks(folders: Sequence[Path]) -> Iterator[bool]:
    """Whether something was written in these folders: as soon as it is, and every now and then if not."""
    from watchfiles import DefaultFilter, watch  # noqa: PLC0415 - 0.1 s that nobody else pays

    while not folders:
        sleep(_LOOK / 1000)
        yield False
    for found in watch(
        *folders,
        watch_filter=DefaultFilter(),
        debounce=_AT_LAST,
        step=_QUIET,
        rust_timeout=_LOOK,
        yield_on_timeout=True,
        raise_interrupt=True,
    ):
        yield bool(found)


_Place: TypeAlias = tuple[int, int]


@contextmanager
def _held(folders: Sequence[Path]) -> Iterator[dict[Path, _Place | None]]:
    """What each folder is, if it is there; kept open, so that one which takes its place cannot get its number.

    A watch is of a folder and not of its name: where a checkout removes one and makes it again, it hears nothing more.
    """
    held: dict[Path, _Place | None] = {}
    with ExitStack() as stack:
        for folder in folders:
            try:
                handle = os.open(folder, os.O_RDONLY)
            except FileNotFoundError:
                held[folder] = None
                continue
            stack.callback(os.close, handle)
            stat = os.fstat(handle)
            held[folder] = (stat.st_dev, stat.st_ino)
        yield held


def _place(folder: Path) -> _Place | None:
    try:
        stat = folder.stat()
    except FileNotFoundError:
        return None
    return stat.st_dev, stat.st_ino


def _stamps(files: Sequence[Path]) -> list[tuple[int, int, int] | None]:
    """What changes of a file when it is written, or another one takes its place; None: it is not there."""
    found: list[tuple[int, int, int] | None] = []
    for file in files:
        try:
            stat = file.stat()
            found.append((stat.st_ino, stat.st_size, stat.st_mtime_ns))
        except OSError:
            found.append(None)
    return found
