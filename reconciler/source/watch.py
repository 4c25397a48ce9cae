"""When spec files are written: for whoever edits them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

#: Milliseconds: editors write a file in several steps, and a checkout many files; this long after the last of them
#: nothing more comes, and after so long in all it is told anyhow.
_QUIET, _AT_LAST = 20, 200
#: Milliseconds between two looks at a single file.
_LOOK = 500


def changes(paths: Sequence[Path], files: Sequence[Path] = ()) -> Iterator[None]:
    """Each time something below these paths was written. Raises KeyboardInterrupt when the process is interrupted.

    Of a file its folder is watched: most editors put a new file in its place. `files` are looked at now and then, and
    may come and go: their folder may be a whole repository. Raises OSError where a path cannot be.
    """
    from watchfiles import DefaultFilter, watch  # noqa: PLC0415 - 0.1 s that nobody else pays

    folders = {path if path.is_dir() else path.parent for path in paths}
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(2, f"there is no folder {folder}")
    seen = _stamps(files)
    for found in watch(
        *folders,
        watch_filter=DefaultFilter(),
        debounce=_AT_LAST,
        step=_QUIET,
        rust_timeout=_LOOK,
        yield_on_timeout=True,
        raise_interrupt=True,
    ):
        before, seen = seen, _stamps(files)
        if found or seen != before:
            yield None


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
