"""Sets of fields, and the walks over values that server-side apply is made of.

A set is kept as the FieldsV1 JSON that managedFields stores: `{"f:spec": {"f:ports": {'k:{"port":80}': {".": {},
"f:name": {}}}}}`. A node is a member when it is empty or holds "."; so no decoding stands between storage and set
arithmetic. Rules: https://kubernetes.io/docs/reference/using-api/server-side-apply/ ; how lists and maps merge is
said by the schema (`x-kubernetes-list-type`, `x-kubernetes-map-type`): granular maps and keyed lists by element,
everything else as one value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from embedded.schema import ABSENT, ANY, Schema, go_value, list_key

Fields = dict[str, Any]
_LEAF: Fields = {}
_CONTAINERS = frozenset({dict, list})


def copy_json(value: Any) -> Any:
    """A deep copy of JSON data, several times faster than copy.deepcopy."""
    kind = type(value)
    if kind is dict:
        return {key: copy_json(child) if type(child) in _CONTAINERS else child for key, child in value.items()}
    if kind is list:
        return [copy_json(child) if type(child) in _CONTAINERS else child for child in value]
    return value


def _child(schema: Schema, key: str) -> Schema:
    return schema.properties.get(key) or schema.additional or ANY


def _is_map(schema: Schema, value: Any) -> bool:
    return type(value) is dict and not schema.atomic_map


def _is_keyed(schema: Schema, value: Any) -> bool:
    return type(value) is list and schema.list_type != "atomic"


# --- sets of a value ------------------------------------------------------------------------------------------


def field_set(schema: Schema, obj: Mapping[str, Any]) -> Fields:
    """What an applied configuration claims: its leaves, the keys of its maps, the elements of its keyed lists."""
    return _claimed(schema, obj) or {}


def _claimed(schema: Schema, value: Any) -> Fields | None:
    """The node for the value; None where it claims nothing (an empty keyed list)."""
    if _is_map(schema, value):
        if not value:
            return _LEAF
        node: Fields = {}
        for key, child in value.items():
            sub = schema.properties.get(key)
            if type(child) not in _CONTAINERS:
                node["f:" + key] = _LEAF
                continue
            claimed = _claimed(sub or schema.additional or ANY, child)
            if sub is None:  # a key of a map is a member of its own, a field of a struct is there anyway
                claimed = {".": _LEAF, **claimed} if claimed else _LEAF
            if claimed is not None:
                node["f:" + key] = claimed
        return node or None
    if _is_keyed(schema, value):
        items = schema.items or ANY
        node = {}
        for child in value:
            claimed = _claimed(items, child) if type(child) in _CONTAINERS else None
            node[list_key(schema, child)] = {".": _LEAF, **claimed} if claimed else _LEAF
        return node or None
    return _LEAF


def _whole(schema: Schema, value: Any) -> Fields:
    """The node of a value that came or went as a whole: every level is a member."""
    if not value:
        return _LEAF
    node: Fields = {".": _LEAF}
    if _is_map(schema, value):
        for key, child in value.items():
            node["f:" + key] = _whole(_child(schema, key), child) if type(child) in _CONTAINERS else _LEAF
        return node
    if _is_keyed(schema, value):
        for child in value:
            node[list_key(schema, child)] = _whole(schema.items or ANY, child)
        return node
    return _LEAF


def compare(schema: Schema, old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[Fields, Fields]:
    """(removed, changed): the fields that are gone, and those that are new or have another value."""
    removed, changed = _compare(schema, old, new)
    return removed or {}, changed or {}


def _compare(schema: Schema, old: Any, new: Any) -> tuple[Fields | None, Fields | None]:
    if old is new or old == new:
        return None, None
    if _is_map(schema, old) and _is_map(schema, new):
        return _compare_maps(schema, old, new)
    if _is_keyed(schema, old) and _is_keyed(schema, new):
        return _compare_lists(schema, old, new)
    if old is None and new and (_is_map(schema, new) or _is_keyed(schema, new)):
        return None, _below(_whole(schema, new))  # the field was there before, as null
    if new is None and old and (_is_map(schema, old) or _is_keyed(schema, old)):
        return _below(_whole(schema, old)), None
    return None, _LEAF


def _compare_maps(schema: Schema, old: Fields, new: Fields) -> tuple[Fields | None, Fields | None]:
    removed: Fields = {}
    changed: Fields = {}
    for key, held in old.items():
        if key not in new:
            removed["f:" + key] = _whole(_child(schema, key), held)
    for key, wanted in new.items():
        held = old.get(key, ABSENT)
        if held is ABSENT:
            changed["f:" + key] = _whole(_child(schema, key), wanted)
        elif held is not wanted:
            _note("f:" + key, _compare(_child(schema, key), held, wanted), removed, changed)
    return removed or None, changed or None


def _compare_lists(schema: Schema, old: list[Any], new: list[Any]) -> tuple[Fields | None, Fields | None]:
    items = schema.items or ANY
    removed: Fields = {}
    changed: Fields = {}
    before, after = _elements(schema, old), _elements(schema, new)
    for key, held in before.items():
        if key not in after:
            removed[key] = _whole(items, held[0]) if len(held) == 1 else _LEAF
    for key, wanted in after.items():
        held = before.get(key, [])
        if len(held) == 1 and len(wanted) == 1:
            _note(key, _compare(items, held[0], wanted[0]), removed, changed)
        elif held != wanted:  # duplicates have no inner structure that anybody could own
            changed[key] = _whole(items, wanted[0]) if len(wanted) == 1 else _LEAF
    return removed or None, changed or None


def _note(key: str, found: tuple[Fields | None, Fields | None], removed: Fields, changed: Fields) -> None:
    gone, come = found
    if gone is not None:
        removed[key] = gone
    if come is not None:
        changed[key] = come


def _elements(schema: Schema, items: list[Any]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for item in items:
        found.setdefault(list_key(schema, item), []).append(item)
    return found


# --- set arithmetic -------------------------------------------------------------------------------------------


def _member(node: Fields) -> bool:
    return not node or "." in node


def union(left: Fields, right: Fields) -> Fields:
    out = dict(left)
    for key, node in right.items():
        mine = out.get(key)
        if mine is None or mine == node:
            out[key] = node
        elif not mine or not node:
            out[key] = {".": _LEAF, **mine, **node}
        else:
            out[key] = union(mine, node)
    return out


def difference(left: Fields, right: Fields) -> Fields:
    """Members of `left` that are not members of `right`; what lies below a member stays."""
    out: Fields = {}
    for key, node in left.items():
        other = right.get(key)
        if other is None:
            out[key] = node
            continue
        member = _member(node) and not _member(other)
        rest = difference(_below(node), _below(other))
        if rest:
            out[key] = {".": _LEAF, **rest} if member else rest
        elif member:
            out[key] = _LEAF
    return out


def intersection(left: Fields, right: Fields) -> Fields:
    out: Fields = {}
    for key, node in left.items():
        other = right.get(key)
        if other is None:
            continue
        both = intersection(_below(node), _below(other))
        if _member(node) and _member(other):
            out[key] = {".": _LEAF, **both} if both else _LEAF
        elif both:
            out[key] = both
    return out


def _below(node: Fields) -> Fields:
    return {key: child for key, child in node.items() if key != "."} if "." in node else node


def ordered(fields: Fields) -> Fields:
    """The same set with sorted keys, as the server writes it."""
    return {key: ordered(fields[key]) if fields[key] else _LEAF for key in sorted(fields)}


def paths(fields: Fields, prefix: str = "") -> Iterator[str]:
    """The members as conflict messages print them: `.spec.containers[name="model"].image`."""
    nodes = [(prefix + element_text(key), fields[key]) for key in sorted(fields) if key != "."]
    yield from (path for path, node in nodes if _member(node))  # first what is here, then what lies below
    for path, node in nodes:
        yield from paths(node, path)


def element_text(key: str) -> str:
    """A path element as text: `.image`, `[name="model"]`, `[="a"]`."""
    kind, _, rest = key.partition(":")
    if kind == "f":
        return f".{rest}"
    if kind == "k":
        return "[" + ",".join(f"{name}={go_value(value)}" for name, value in sorted(orjson.loads(rest).items())) + "]"
    return f"[={go_value(orjson.loads(rest))}]" if kind == "v" else f"[{rest}]"


# --- values ---------------------------------------------------------------------------------------------------


def merge(schema: Schema, live: Any, applied: Any) -> Any:
    """`live` with everything that `applied` says laid over it. A fresh value.

    Keyed lists: the order of `applied` wins among its own elements; the others of `live` keep their places between
    them.
    """
    if _is_map(schema, live) and _is_map(schema, applied):
        out = {}
        for key, held in live.items():
            wanted = applied.get(key, ABSENT)
            if wanted is ABSENT:
                out[key] = copy_json(held) if type(held) in _CONTAINERS else held
            else:
                out[key] = (
                    merge(_child(schema, key), held, wanted)
                    if type(wanted) in _CONTAINERS or wanted is None
                    else wanted
                )
        for key, wanted in applied.items():
            if key not in live:
                out[key] = copy_json(wanted)
        return out
    if _is_keyed(schema, live) and _is_keyed(schema, applied):
        return _merge_lists(schema, live, applied)
    if applied is None and live and (_is_map(schema, live) or _is_keyed(schema, live)):
        return copy_json(live)  # a null has no elements: it takes none away
    return copy_json(applied)


def _merge_lists(schema: Schema, live: list[Any], applied: list[Any]) -> list[Any]:
    items = schema.items or ANY
    held = {key: values[0] for key, values in _elements(schema, live).items()}
    wanted = [(list_key(schema, item), item) for item in applied]
    names = {key for key, _ in wanted}
    shared = iter([key for key, _ in wanted if key in held])
    out: list[Any] = []
    done = 0
    next_shared = next(shared, None)

    def emit(until: str | None) -> None:
        nonlocal done
        while done < len(wanted):
            key, item = wanted[done]
            done += 1
            out.append(merge(items, held[key], item) if key in held else copy_json(item))
            if key == until:
                return

    for item in live:
        key = list_key(schema, item)
        if key not in names:
            out.append(copy_json(item))
        elif key == next_shared:
            emit(key)
            next_shared = next(shared, None)
    emit(None)
    return out


def remove_stale(schema: Schema, value: Any, last: Fields, owned: list[Fields]) -> None:
    """Drop from `value`, in place, what `last` claimed and no set in `owned` claims now.

    A field of a struct counts as claimed as soon as anything below it is, a list element or a map key only by itself:
    so an element that nobody claims any more goes with everything the server has filled into it.
    """
    if _is_map(schema, value):
        for key, node in last.items():
            name = key[2:]
            if key == "." or name not in value:
                continue
            declared = name in schema.properties
            kept = [fields[key] for fields in owned if key in fields]
            if (_member(node) or declared) and not any(declared or _member(other) for other in kept):
                del value[name]
            elif node:
                remove_stale(_child(schema, name), value[name], node, kept)
    elif _is_keyed(schema, value):
        rest = []
        for item in value:
            key = list_key(schema, item)
            node = last.get(key)
            if node is not None:
                kept = [fields[key] for fields in owned if key in fields]
                if _member(node) and not any(_member(other) for other in kept):
                    continue
                if type(item) in _CONTAINERS:
                    remove_stale(schema.items or ANY, item, node, kept)
            rest.append(item)
        value[:] = rest
