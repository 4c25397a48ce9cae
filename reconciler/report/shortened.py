"""Long texts in little room, so that what tells two of them apart is still seen. Pure."""

from __future__ import annotations

from posixpath import commonprefix


def shortened(old: str | None, new: str | None, limit: int) -> tuple[str | None, str | None]:
    """Both as they are where neither takes more than `limit` characters; of longer ones, a part with what differs.

    None stays None: it is absent.
    """
    if old is None or new is None or max(len(old), len(new)) <= limit:
        return _cut(old, 0, limit), _cut(new, 0, limit)
    start = max(0, len(commonprefix((old, new))) - limit // 4)
    return _cut(old, start, limit), _cut(new, start, limit)


def _cut(text: str | None, start: int, limit: int) -> str | None:
    if text is None or (start == 0 and len(text) <= limit):
        return text
    end = start + limit
    return f"{'…' if start else ''}{text[start:end]}{'…' if end < len(text) else ''} ({len(text)} characters)"
