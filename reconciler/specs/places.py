"""Where in its file a spec, or a part of it, stands."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from schemas.problem import Path, Problem, Severity
from schemas.reader import Document, Mark, read


class Site(NamedTuple):
    """Which part of which file a spec is."""

    file: str
    document: int  #: the index of the YAML document among those of the file that are not empty
    path: Path  #: ("spec", "variations", 0)


class Places:
    """Makes problems out of what is wrong with a part of a spec.

    Positions of all nodes would cost more memory than the specs themselves, so the few files that need them are
    read a second time. `content` gives the bytes of a file.
    """

    def __init__(self, content: Callable[[str], bytes]) -> None:
        @lru_cache(maxsize=16)
        def documents(file: str) -> list[Document]:
            return read(file, content(file), marks=True).documents

        self._documents = documents

    def document(self, file: str, number: int) -> Document:
        """A document with the position of every node."""
        return self._documents(file)[number]

    def problem(
        self,
        site: Site,
        below: Path,
        rule: str,
        message: str,
        hint: str = "",
        *,
        severity: Severity = "error",
        at_key: bool = False,
    ) -> Problem:
        """A problem of the node `below` the spec; of the nearest one around it, where it is not written down."""
        path = (*site.path, *below)
        line, column = position(self.document(site.file, site.document).mark(path), at_key=at_key)
        return Problem(site.file, line, column, path, rule, message, hint, severity)


def position(mark: Mark, *, at_key: bool = False) -> tuple[int, int]:
    """Where to point: at the value if it stands beside its key, else at the key, which people look for."""
    if at_key or mark.line != mark.key_line:
        return mark.key_line, mark.key_column
    return mark.line, mark.column
