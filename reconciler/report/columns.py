"""Lines that fit a terminal, where some characters take two columns and some none. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

#: Where a word that is wider than a line is cut, rather than anywhere: between the parts of paths, JSON and queries, or
#: else between those of a name.
_JOINTS = (re.compile(r"(?<=[,/({=])|(?=[.\[])"), re.compile(r"(?<=[:_-])"))
#: A word, with the spaces before it. A number stays with its per cent.
_WORDS = re.compile(r"( *)([^ ]+(?: %[,.;:)]?(?= |$))?)")


def width_of(text: str) -> int:
    """How many columns a terminal takes for it: two for wide East Asian characters (UAX #11), none for marks."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def wrap(text: str, width: int, indent: str = "", deeper: str = "") -> Iterator[str]:
    """Lines of at most `width` columns: the first begins with `indent`, each other one with `deeper`.

    They break at spaces; only a word that is wider than a line is cut. Without any word there is no line.
    """
    line, used = indent, width_of(indent)
    whole_line = width - width_of(deeper)
    is_empty = True
    for gap, whole in _WORDS.findall(text):
        word = whole
        is_over = used + len(gap) + width_of(word) > width
        if not is_empty and is_over and (width_of(word) <= whole_line or used + len(gap) >= width):
            yield line
            line, used, is_empty = deeper, width_of(deeper), True
        if not is_empty:
            line, used = line + gap, used + len(gap)
        while used + width_of(word) > width:
            head, word = _cut(word, width - used)
            yield line + head
            line, used = deeper, width_of(deeper)
        line, used, is_empty = line + word, used + width_of(word), False
    if not is_empty:
        yield line


def _columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _cut(word: str, room: int) -> tuple[str, str]:
    """As much of a word as fits, at least one character, and what is left of it."""
    end = used = 0
    while end < len(word) and (end == 0 or used + _columns(word[end]) <= room):
        used += _columns(word[end])
        end += 1
    for joints in _JOINTS:
        found = (match.start() for match in joints.finditer(word, max(end // 2, 1), end + 1))
        if places := [place for place in found if place <= end]:
            return word[: places[-1]], word[places[-1] :]
    return word[:end], word[end:]
