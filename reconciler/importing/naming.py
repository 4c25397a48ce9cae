"""What imported things are called: as on the platform, unless the language refuses it; and no two the same.

Names that need no change are given first, so that a name that does never takes one from a thing that had it all along.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple


class Name(NamedTuple):
    """A thing by what the platform calls it. `model` tells apart what only a model's things share: variations."""

    kind: str  #: "environment", "build", "variation", "audience", "automation", "model" or "secret"
    text: str
    model: str = ""
    #: Tells apart things with one name, which the platform knows by their ids.
    number: int = 1


class _Rule(NamedTuple):
    pattern: re.Pattern[str]
    length: int
    lower: bool = True


_RESOURCE = _Rule(re.compile(r"[a-z0-9]([-_.a-z0-9]*[a-z0-9])?"), 63)
_DISPLAY = _Rule(re.compile(r"[A-Za-z0-9]([-_.A-Za-z0-9]*[A-Za-z0-9])?"), 63, lower=False)
#: As `schemas.base` has them.
_RULES: Mapping[str, _Rule] = {
    "model": _RESOURCE,
    "build": _RESOURCE,
    "variation": _Rule(re.compile(r"[a-z0-9]([-.a-z0-9]*[a-z0-9])?"), 36),
    "audience": _DISPLAY,
    "automation": _DISPLAY,
    "environment": _Rule(re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"), 63),
    "secret": _Rule(re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"), 63),
}


def given(names: Iterable[Name]) -> dict[Name, str]:
    """What each thing is called from now on."""
    result: dict[Name, str] = {}
    used: set[tuple[str, str, str]] = set()
    wanted = list(dict.fromkeys(names))
    for name in sorted(wanted, key=lambda name: name.number > 1 or not _is_fine(name)):
        candidate = base = name.text if _is_fine(name) else _mended(name)
        count = 1
        # Two names that differ only in case are one file, and one object, to too many systems.
        while (name.kind, name.model, candidate.lower()) in used:
            count += 1
            ending = f"-{count}"
            candidate = base[: _RULES[name.kind].length - len(ending)].rstrip("-_.") + ending
        used.add((name.kind, name.model, candidate.lower()))
        result[name] = candidate
    return result


def _is_fine(name: Name) -> bool:
    rule = _RULES[name.kind]
    return len(name.text) <= rule.length and rule.pattern.fullmatch(name.text) is not None


def _mended(name: Name) -> str:
    rule = _RULES[name.kind]
    text = name.text.lower() if rule.lower else name.text
    allowed = "-." if name.kind == "variation" else "-" if name.kind in ("environment", "secret") else "-_."
    text = re.sub(rf"[^A-Za-z0-9{re.escape(allowed)}]+", "-", text).strip("-_.")
    return text[: rule.length].strip("-_.") or name.kind
