"""When spec files are written: for whoever edits them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

#: Milliseconds: editors write a file in several steps, and a checkout many files; this long after the last of them
#: nothing more comes, and after so long in all it is told anyhow.
_QUIET, _AT_LAST = 20, 200


def changes(paths: Sequence[Path]) -> Iterator[None]:
    """Each time something below these paths was written. Raises KeyboardInterrupt when the process is interrupted.

    Of a file its folder is watched: most editors put a new file in its place. Raises OSError where a path cannot be.
    """
    from watchfiles import DefaultFilter, watch  # noqa: PLC0415 - 0.1 s that nobody else pays

    folders = {path if path.is_dir() else path.parent for path in paths}
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(2, f"there is no folder {folder}")
    for _ in watch(*folders, watch_filter=DefaultFilter(), debounce=_AT_LAST, step=_QUIET, raise_interrupt=True):
        yield None
