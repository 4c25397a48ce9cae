"""Regular expressions as Go knows them (RE2 syntax), for Python's engine."""

from __future__ import annotations

import re
from functools import lru_cache


@lru_cache(maxsize=1024)
def go_pattern(pattern: str) -> re.Pattern[str]:
    """RE2 syntax for Python's engine: `\\z` is `\\Z`, `$` does not match before a last newline, classes like
    [[:alpha:]] are spelt out."""
    for name, chars in (
        ("alpha", "A-Za-z"),
        ("digit", "0-9"),
        ("alnum", "A-Za-z0-9"),
        ("upper", "A-Z"),
        ("lower", "a-z"),
        ("space", r"\s"),
    ):
        pattern = pattern.replace(f"[:{name}:]", chars)
    pattern = re.sub(r"^\^\(\?([ims]+)\)", r"(?\1)^", pattern)  # Python wants flags first
    out, escaped, in_class = [], False, False
    for char in pattern.replace(r"\z", r"\Z"):
        out.append(r"\Z" if char == "$" and not escaped and not in_class else char)
        in_class = (not escaped and (char == "[" or (in_class and char != "]"))) or (escaped and in_class)
        escaped = char == "\\" and not escaped
    return re.compile("".join(out), re.ASCII)
