"""Who has put what into the lists of an object, by the server's own account (managedFields). Pure.

The server knows the items of a list by a key: ports by their number, containers by their name. Whoever edits a key past
Git has, to the server, taken our item away and added one of their own. Server-side apply then brings ours back beside
theirs, which nobody wants: a Service with both is not even valid (two ports of one name), so the apply is refused as a
whole, again and again.

An item goes when a manager that owns it applies without it, and nobody else owns it. So what a person's tool has added
to a list that we state is first written down as ours, and nothing else changes by that. The next apply, which is the
usual one, takes it away. That is how Flux undoes edits, too. It needs no right but the one to patch, leaves the rest of
what that person owns alone, and can stop halfway: the next look sees an item of ours that nobody wants.

To replace the list as a whole would be one write less. But the items would be owned by two managers of our name, one
for updates and one for applies, and no later apply could ever take one of them away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any, NamedTuple, TypeAlias

import orjson

from reconciler.cluster import FIELD_MANAGER, is_ours
from renderers.manifest import Body

#: Steps of the server's FieldsV1: `f:` and a field, `k:` and the key of an item as JSON. "." is the item itself.
_Path: TypeAlias = tuple[str, ...]
_Fields: TypeAlias = dict[str, Any]

#: Of the parts of keys, those that the server adds where they are not stated.
_DEFAULTS = {"protocol": "TCP"}


class Stranger(NamedTuple):
    """An item of a list that is not among those that we want there, and who has put it there."""

    manager: str
    path: _Path

    @property
    def field(self) -> str:
        """As the server writes it: `.spec.ports[port=81,protocol="TCP"]`."""
        return "".join(f".{step[2:]}" if step[0] == "f" else f"[{_words(step)}]" for step in self.path)


def strangers(stored: Body, wanted: Body) -> tuple[Stranger, ...]:
    """The items of others in the lists that `wanted` states. None where `stored` is without managedFields."""
    return tuple(
        Stranger(str(entry.get("manager", "")), path)
        for entry in stored["metadata"].get("managedFields") or ()
        if not (is_ours(entry) or entry.get("subresource"))
        for path in _strange(entry.get("fieldsV1") or {}, wanted, ())
    )


def leaving(stored: Body, wanted: Body, gives_way: Callable[[str], bool]) -> tuple[Stranger, ...]:
    """Those items of others that go when they are taken over from who gives way.

    An item stays as long as anybody else owns something of it, be it a single field.
    """
    held = [
        entry.get("fieldsV1") or {}
        for entry in stored["metadata"].get("managedFields") or ()
        if not (is_ours(entry) or gives_way(str(entry.get("manager", ""))))
    ]
    return tuple(
        one
        for one in strangers(stored, wanted)
        if gives_way(one.manager) and not any(_has(fields, one.path) for fields in held)
    )


def without(body: Body, gone: tuple[Stranger, ...]) -> Body:
    """The object without these items."""
    if not gone:
        return body
    left = deepcopy(body)
    for _, (*path, item) in gone:
        at: Any = left
        for step in path:
            at = at[step[2:]] if step[0] == "f" else next(one for one in at if _is(one, step))
        at[:] = [one for one in at if not _is(one, item)]
    return left


def taken_over(stored: Body, wanted: Body, gives_way: Callable[[str], bool]) -> list[dict[str, Any]] | None:
    """The managedFields by which the items that are `leaving` are ours. None where there is no such item."""
    paths = {(one.manager, one.path) for one in leaving(stored, wanted, gives_way)}
    if not paths:
        return None
    entries = deepcopy(stored["metadata"]["managedFields"])
    ours = next((entry for entry in entries if is_ours(entry)), None)
    if ours is None:
        ours = {"manager": FIELD_MANAGER, "operation": "Apply", "apiVersion": stored["apiVersion"]}
        entries.append(ours)
    ours |= {"fieldsType": "FieldsV1", "fieldsV1": ours.get("fieldsV1") or {}}
    for entry in entries:
        if entry is ours or entry.get("subresource"):
            continue
        for manager, path in paths:
            if manager == entry.get("manager") and (fields := _cut(entry.get("fieldsV1") or {}, path)) is not None:
                _graft(ours["fieldsV1"], path, fields)
    return [entry for entry in entries if entry.get("fieldsV1")]


def _strange(fields: _Fields, wanted: Any, path: _Path) -> Iterator[_Path]:
    for step, below in fields.items():
        if step.startswith("f:") and isinstance(wanted, dict) and step[2:] in wanted:
            yield from _strange(below, wanted[step[2:]], (*path, step))
        elif step.startswith("k:") and isinstance(wanted, list):
            item = next((one for one in wanted if _is(one, step)), None)
            if item is not None:
                yield from _strange(below, item, (*path, step))
            elif "." in below:  # otherwise it is somebody else's, of which this manager has set a field
                yield (*path, step)


def _is(item: Any, step: str) -> bool:
    """Whether an item has a key. A port that does not state its protocol is not the one of UDP."""
    if not isinstance(item, dict):
        return False
    return all(item.get(name, _DEFAULTS.get(name)) == value for name, value in _key(step).items())


def _has(fields: _Fields, path: _Path) -> bool:
    for step in path:
        if step not in fields:
            return False
        fields = fields[step]
    return True


def _key(step: str) -> dict[str, Any]:
    key: dict[str, Any] = orjson.loads(step[2:])
    return key


def _words(step: str) -> str:
    return ",".join(f"{name}={orjson.dumps(value).decode()}" for name, value in _key(step).items())


def _cut(fields: _Fields, path: _Path) -> _Fields | None:
    """Takes out what is at the path. What is left empty goes with it: an empty field is one that is owned itself."""
    step, *rest = path
    if step not in fields:
        return None
    if not rest:
        cut: _Fields = fields.pop(step)
        return cut
    found = _cut(fields[step], tuple(rest))
    if not fields[step]:
        del fields[step]
    return found


def _graft(fields: _Fields, path: _Path, cut: _Fields) -> None:
    *way, last = path
    for step in way:
        fields = fields.setdefault(step, {})
    fields[last] = cut
