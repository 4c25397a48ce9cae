"""What is wrong with a spec, and where."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

#: Where a node is in its document: the keys and the list indices that lead to it; () is the whole document.
Path: TypeAlias = tuple[str | int, ...]

Severity: TypeAlias = Literal["error", "warning"]


def quoted(text: str) -> str:
    """Text from a spec as a message shows it: in quotes, on one line, cut, and without a control character.

    Nor with what an address or a pasted token gives away: it was a mistake to write it, and a log is no better place.
    """
    text = _TOKEN.sub("***", _USER_INFO.sub("//***@", text))
    return json.dumps(text if len(text) <= 60 else f"{text[:60]}...", ensure_ascii=not text.isprintable())


_USER_INFO = re.compile(r"//[^/\s@]*@")
#: How the well-known services begin their tokens: GitHub, GitLab, Slack, AWS, and a JSON Web Token.
_TOKEN = re.compile(r"\b(gh[a-z]_|github_pat_|glpat-|xox[a-z]-|AKIA|eyJ[A-Za-z0-9_-]*\.)[A-Za-z0-9_.-]{8,}")


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem of one file, in the words of the person who wrote the file.

    `rule` is a stable id in kebab case behind its family ("yaml/duplicate-key", "schema/unknown-field",
    "reference/unknown-audience"): people suppress, count and look up problems by it, so it never changes
    its meaning. `message` is one sentence; `hint` says what to write instead, "" where nobody can know.
    """

    file: str
    line: int  #: 1-based
    column: int  #: 1-based, in characters
    path: Path
    rule: str
    message: str
    hint: str = ""
    severity: Severity = "error"

    @property
    def pointer(self) -> str:
        """The path as a JSON pointer (RFC 6901)."""
        return "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in self.path)

    def __lt__(self, other: Problem) -> bool:
        return self._order < other._order

    def __str__(self) -> str:
        """`file:line:column: message hint`, the form that editors and terminals turn into a link."""
        hint = f" {self.hint[0].upper()}{self.hint[1:]}." if self.hint else ""
        return f"{self.file}:{self.line}:{self.column}: {self.message}{hint}"

    @property
    def _order(self) -> tuple[str, int, int, str, str]:
        return (self.file, self.line, self.column, self.rule, self.message)
