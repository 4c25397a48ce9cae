"""What becomes of audiences: who is in them. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest

from reconciler import diff
from reconciler.effects.fields import LONGEST, as_code, words_of
from reconciler.report import Effect, Topic
from reconciler.report.shortened import shortened
from renderers.catalog import Catalog
from schemas.audience import Audience, BinaryCondition, UnaryCondition


def of_audiences(before: Catalog, after: Catalog) -> Iterator[Effect]:
    """Those that no variation names: of all others, the models that they are about tell."""
    named = _named(before) | _named(after)
    for name in sorted((before.audiences.keys() | after.audiences.keys()) - named):
        old, new = before.audiences.get(name), after.audiences.get(name)
        if new is None:
            yield Effect("", "", Topic.AUDIENCE, f"audience {name} goes")
        elif old is None:
            yield Effect("", "", Topic.AUDIENCE, f"audience {name} is new", new.origin)
        else:
            for words in membership(old.spec, new.spec):
                yield Effect("", "", Topic.AUDIENCE, f"audience {name}: {words}", new.origin)


def membership(old: Audience, new: Audience) -> Iterator[str]:
    """Who is in an audience from now on that was not, or the other way round."""
    if old.priority != new.priority:
        yield f"priority {old.priority} -> {new.priority}"
    was, will = _conditions(old), _conditions(new)
    gone, come = [one for one in was if one not in will], [one for one in will if one not in was]
    if gone or come:
        pairs = [_told(one, other) for one, other in zip_longest(gone, come)]
        words = [
            *(f"no more {one}" for one, _ in pairs if one),
            *(f"now {one}" for _, one in pairs if one),
            *(["now everybody, as no condition is left"] if not will else []),
        ]
        yield f"who is in it changes: {'; '.join(words)}"
    elif was != will:
        yield "its conditions are written another way, and the same requests are in it"


def _named(catalog: Catalog) -> set[str | None]:
    found: set[str | None] = set()
    for placed in catalog.variations.values():
        written = (placed.spec.traffic, *(override.traffic for _, override in placed.spec.environment_overrides))
        found |= {share.audience for traffic in written for share in traffic or ()}
    return found


_Condition = UnaryCondition | BinaryCondition


def _conditions(audience: Audience) -> list[_Condition]:
    return [*audience.conditions.unary, *audience.conditions.binary]


def _told(old: _Condition | None, new: _Condition | None) -> tuple[str | None, str | None]:
    was, will = (None if one is None else _condition(one, exact=False) for one in (old, new))
    if was == will:
        was, will = (None if one is None else _condition(one, exact=True) for one in (old, new))
    return shortened(was, will, LONGEST)


def _condition(one: _Condition, *, exact: bool) -> str:
    if isinstance(one, BinaryCondition):
        name, operands = "range", f"{one.first_operand} to {one.second_operand}"
    else:
        name = one.operator.removeprefix("UNARY_OPERATOR_TYPE_").removesuffix("_MATCH").replace("_", " ").lower()
        given = one.operand not in (None, "")
        operands = as_code(words_of(one.operand, hide=diff.is_credential(one.key), exact=exact)) if given else ""
    return f"{one.key} {'not ' if one.negate else ''}{name} {operands}".rstrip()
