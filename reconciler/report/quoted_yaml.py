"""YAML that reads the same under YAML 1.1 and 1.2: every string is quoted.

kubectl and the API server read YAML 1.1, where an unquoted `1234e5`, `y` or `012` is no string; PyYAML quotes by
slightly other rules, so it is not asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

#: Keys that every reader takes for a string. `y`, `on`, `null` and the like are not among them.
_PLAIN_KEY = re.compile(r"(?!(?:y|n|yes|no|on|off|true|false|null)\Z)[A-Za-z_][A-Za-z0-9_./-]*", re.IGNORECASE)
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def dump(value: Any) -> str:
    """One YAML document, without its `---`."""
    return "".join(f"{line}\n" for line in _lines(value))


def _lines(value: Any) -> Iterator[str]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            name = key if _PLAIN_KEY.fullmatch(key) else quoted(key)
            if isinstance(item, dict | list | tuple) and item:
                yield f"{name}:"
                indent = "  " if isinstance(item, dict) else ""
                yield from (indent + line for line in _lines(item))
            else:
                yield f"{name}: {_scalar(item)}"
    elif isinstance(value, list | tuple) and value:
        for item in value:
            lines = _lines(item)
            yield f"- {next(lines)}"
            yield from ("  " + line for line in lines)
    else:
        yield _scalar(value)


def _scalar(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, dict):
        return "{}"
    if isinstance(value, list | tuple):
        return "[]"
    return quoted(str(value))


def quoted(text: str) -> str:
    """A double-quoted scalar. What a terminal or a YAML reader would not take as it is, is escaped."""
    return '"' + "".join(_character(c) for c in text) + '"' if not _is_plain(text) else f'"{text}"'


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable() and '"' not in text and "\\" not in text


def _character(c: str) -> str:
    if c in _ESCAPES:
        return _ESCAPES[c]
    if c.isprintable():
        return c
    number = ord(c)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
