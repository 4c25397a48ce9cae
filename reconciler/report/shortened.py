"""Long texts in little room, so that what tells two of them apart is still seen. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from posixpath import commonprefix


def shortened(
    old: str | None, new: str | None, limit: int, show: Callable[[str], str] = str
) -> tuple[str | None, str | None]:
    """Both as they are where neither takes more than `limit` characters; of longer ones, a part with what differs.

    None stays None: it is absent. `show` is how a text is written, whole or in part.
    """
    start = 0
    if old is not None and new is not None and max(len(old), len(new)) > limit:
        start = max(0, len(commonprefix((old, new))) - limit // 4)
    was, will = (None if text is None else _cut(text, start, limit, show) for text in (old, new))
    return was, will


def _cut(text: str, start: int, limit: int, show: Callable[[str], str]) -> str:
    if start == 0 and len(text) <= limit:
        return show(text)
    end = start + limit
    part = f"{'…' if start else ''}{text[start:end]}{'…' if end < len(text) else ''}"
    return f"{show(part)} ({len(text)} characters)"


def quoted(text: str) -> str:
    """A text in the middle of a sentence, so that it is seen where it ends: between backticks, as in Markdown.

    There are more of them than the text itself has in a row.
    """
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    pad = " " if "`" in (text[:1], text[-1:]) else ""
    return f"{fence}{pad}{text}{pad}{fence}"
