"""Text that others wrote, in GitHub's Markdown: shown as it is, and never obeyed. Pure.

Escaping is not enough. After the Markdown is rendered, the host looks through the text once more, for people and teams
to notify, issues, commits, addresses, emoji and formulas, and no escape hides these from it. It leaves alone only what
is code (https://github.github.com/gfm/, GitHub's html-pipeline). So a word that may mean something to somebody becomes
code, and what stays plain is what cannot: letters and numbers.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

from reconciler.report.text import clean

#: Nothing that is shown in one place is longer, in characters.
LONGEST_PROSE = 1000
LONGEST_CODE = 250

_TOKEN = re.compile(r"(?P<before>[(\"']*)(?P<core>.*?)(?P<after>[.,;:!?%)\"'…]*)", re.DOTALL)
#: As `shortened.quoted` writes it: apart from other words, so that no two pieces of code can become one.
_QUOTED = re.compile(r"(?<!\S)(?P<open>\(?)(?P<fence>`+)(?!`) ?(?P<code>.+?) ?(?<!`)(?P=fence)(?=[.,;:)]*(?:\s|$))")
_GAPS = re.compile(r"(\s+)")
_NUMBER = re.compile(r"[0-9]+(?:[.,][0-9]+)*")
#: Words, with what joins them. Not a dot, which makes an address, nor a number behind a hyphen, which makes an issue.
_WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W\d_][^\W_]*)*")
_LIST = re.compile(r"^([0-9]+)(?=[.)])")
_COMMIT = re.compile(r"[0-9a-f]{7,}", re.IGNORECASE)
_SIGNS = {
    "": "",
    "->": "-&gt;",
    "<": "&lt;",
    ">": "&gt;",
    "<=": "&lt;=",
    ">=": "&gt;=",
    "&": "&amp;",
    "-": "\\-",
    "+": "\\+",
    "=": "\\=",
    "·": "·",
    "→": "→",
    "\u2013": "\u2013",
    "\u2014": "\u2014",
}


def prose(text: str) -> str:
    """A sentence on one line. What stands between backticks is code, and so are words that mean something to a host."""
    shown = " ".join(_cut(text, LONGEST_PROSE).split())
    parts = []
    at = 0
    for quote in _QUOTED.finditer(shown):
        parts += [_words(shown[at : quote.start()]), quote["open"], code(quote["code"])]
        at = quote.end()
    parts.append(_words(shown[at:]))
    return _LIST.sub(r"\1\\", "".join(parts))


def code(text: str) -> str:
    """A name, a place or a command, character by character."""
    shown = _cut(clean(" ".join(text.split())), LONGEST_CODE) or " "
    fence = _fence(shown, 1)
    # One space at each end is no part of the code (CommonMark 6.1), unless there is nothing else.
    pad = " " if shown.strip(" ") and {shown[0], shown[-1]} & {"`", " "} else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def html_code(text: str) -> str:
    """The same inside an HTML block, where Markdown is not read."""
    return f"<code>{html.escape(_cut(clean(' '.join(text.split())), LONGEST_CODE))}</code>"


def fenced(lines: Iterable[str], language: str) -> str:
    """A block of code. The fence is longer than any run of backticks in it. Lines must be clean."""
    content = "".join(f"{line}\n" for line in lines)
    fence = _fence(content, 3)
    return f"{fence}{language}\n{content}{fence}\n"


def _words(text: str) -> str:
    return "".join(part if part.isspace() else _word(part) for part in _GAPS.split(text) if part)


def _word(token: str) -> str:
    parts = _TOKEN.fullmatch(token)
    assert parts is not None, "every part of it may be empty"
    before, core, after = parts.groups()
    if core in _SIGNS:
        return f"{before}{_SIGNS[core]}{after}"
    if (_NUMBER.fullmatch(core) or _WORD.fullmatch(core)) and not _COMMIT.search(core):
        return token
    return f"{before}{code(core)}{after}"


def _fence(content: str, shortest: int) -> str:
    longest = max(map(len, re.findall("`+", content)), default=0)
    return "`" * max(shortest, longest + 1)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
