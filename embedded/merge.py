"""Server-side apply and the bookkeeping of who owns which field (metadata.managedFields).

Written from the documented rules: https://kubernetes.io/docs/reference/using-api/server-side-apply/ . One deviation:
sets recorded under another version of a kind are read as if they were of this one (no conversion between versions).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson

from embedded import fields as sets
from embedded.decoding import WrongType, decode
from embedded.defaulting import normalise
from embedded.fields import Fields
from embedded.kinds import defaults
from embedded.kinds.kind import Kind
from embedded.patch import PatchError, json_patch, merge_patch, strategic_merge_patch
from embedded.schema import Cause, Schema, go_syntax, go_value, list_key, quote

__all__ = [
    "Conflict",
    "Conflicts",
    "Merged",
    "PatchError",
    "apply",
    "json_patch",
    "merge_patch",
    "strategic_merge_patch",
    "update",
]

# What the server itself sets: nobody owns it.
_UNOWNED = (
    "f:name",
    "f:namespace",
    "f:creationTimestamp",
    "f:selfLink",
    "f:uid",
    "f:clusterName",
    "f:generation",
    "f:managedFields",
    "f:resourceVersion",
)
_SERVER_OWNED = (
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "resourceVersion",
    "selfLink",
    "uid",
)
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_MAX_UPDATE_ENTRIES = 10


class Merged(NamedTuple):
    """The object after an apply, defaulted, with managedFields. `changed` False: nothing happened, and `object` is
    the live one itself."""

    object: dict[str, Any]
    changed: bool


class Conflict(NamedTuple):
    """A field that somebody else owns with another value. `field` such as `.spec.replicas`, `time` RFC 3339 or ""."""

    manager: str
    operation: str
    api_version: str
    subresource: str
    time: str
    field: str

    @property
    def owner(self) -> str:
        """`"kubectl" using apps/v1 at 2026-11-21T08:15:18Z`; appliers are named without version and time."""
        text = quote(self.manager)
        if self.subresource:
            text += f" with subresource {quote(self.subresource)}"
        if self.operation == "Update":
            text += f" using {self.api_version}" + (f" at {self.time}" if self.time else "")
        return text


class Conflicts(NamedTuple):
    """An apply that was refused. `message` is the Status message (409, reason Conflict), `causes` its details."""

    conflicts: tuple[Conflict, ...]

    @property
    def message(self) -> str:
        if len(self.conflicts) == 1:
            only = self.conflicts[0]
            return f"Apply failed with 1 conflict: conflict with {only.owner}: {only.field}"
        by_owner: dict[str, list[str]] = {}
        for conflict in self.conflicts:
            by_owner.setdefault(conflict.owner, []).append(conflict.field)
        lines = [
            line
            for owner, found in by_owner.items()
            for line in (f"conflicts with {owner}:", *(f"- {field}" for field in found))
        ]
        return f"Apply failed with {len(self.conflicts)} conflicts: " + "\n".join(lines)

    @property
    def causes(self) -> list[Cause]:
        return [
            Cause(conflict.field, "FieldManagerConflict", f"conflict with {conflict.owner}")
            for conflict in self.conflicts
        ]


class _Entry(NamedTuple):
    """One entry of managedFields. `identity` tells entries of the same manager apart."""

    manager: str
    operation: str
    api_version: str
    subresource: str
    time: str
    fields: Fields

    @property
    def identity(self) -> tuple[str, str, str, str]:
        # an applier is the same whatever version it applies
        return self.manager, self.operation, "" if self.operation == "Apply" else self.api_version, self.subresource


def apply(
    kind: Kind,
    live: dict[str, Any] | None,
    applied: Mapping[str, Any],
    *,
    manager: str,
    force: bool,
    now: datetime,
    subresource: str = "",
) -> Merged | Conflicts:
    """Server-side apply of `applied` on `live` (None: create). The result is defaulted but not validated.

    uid, resourceVersion, creationTimestamp, generation and deletion times are those of `live`, never of `applied`:
    the caller compares or sets them. `status` is ignored on the main resource of a kind with a status subresource,
    and everything else on that subresource. `live` and `applied` are left alone. A no-op returns `live` itself, so
    that its bytes need not be written. Raises PatchError with the server's text and HTTP code where `applied` cannot
    be applied at all.
    """
    _refuse_what_cannot_be_applied(kind, applied)
    config = _own_part(kind, applied, subresource)
    base = dict(live) if live is not None else _empty(kind, applied)
    entries = _decode_entries((live or {}).get("metadata", {}).get("managedFields"))
    base["metadata"] = {key: value for key, value in base.get("metadata", {}).items() if key != "managedFields"}
    if live is not None and not entries:
        _, existing = sets.compare(kind.schema, _empty(kind, applied), base)
        known = _owned(kind, existing)
        entries = [_Entry("before-first-apply", "Update", kind.api_version, "", _time(now), known)] if known else []

    configured = sets.field_set(kind.schema, config)
    claimed = _owned(kind, configured, subresource)
    mine = _Entry(manager, "Apply", kind.api_version, subresource, _time(now), claimed)
    previous = next((entry for entry in entries if entry.identity == mine.identity), None)
    others = untouched = [entry for entry in entries if entry is not previous]

    merged: dict[str, Any] = sets.merge(kind.schema, base, config)
    if previous is not None and previous.fields != claimed:
        sets.remove_stale(kind.schema, merged, previous.fields, [configured, *(entry.fields for entry in others)])

    if merged != base:
        removed, changed = sets.compare(kind.schema, base, merged) if others else ({}, {})
        conflicts = [] if force else _conflicts(others, changed)
        if conflicts and manager == "kubectl":
            conflicts = _not_client_side_applied(kind, base, conflicts)
        if conflicts:
            return Conflicts(tuple(conflicts))
        others = [_without(entry, changed, removed) for entry in others]
    if manager == "kubectl" and _LAST_APPLIED in merged["metadata"].get("annotations", {}):
        merged["metadata"]["annotations"][_LAST_APPLIED] = _last_applied(applied)
    if merged != base or live is None:
        defaults(kind, merged)
    kept = [entry for entry in others if entry.fields]
    before = previous.fields if previous is not None else {}
    same_version = previous is None or previous.api_version == mine.api_version
    if live is not None and before == claimed and same_version and kept == untouched and merged == base:
        return Merged(live, changed=False)
    if claimed:
        kept.append(mine)
    if kept:
        merged["metadata"]["managedFields"] = _encode_entries(kept)
    return Merged(merged, changed=True)


def update(
    kind: Kind,
    before: Mapping[str, Any] | None,
    after: dict[str, Any],
    *,
    manager: str,
    now: datetime,
    subresource: str = "",
) -> None:
    """Bookkeeping for create (`before` None), PUT and patch: sets `after.metadata.managedFields` in place.

    `after` must be defaulted, and of the part that this request may not change (status, or everything but status) it
    must hold the old value. What changed belongs to `manager` (operation Update) from now on, alone; what went away
    belongs to nobody. `managedFields: []` or `[{}]` in `after` forgets all owners; a list that cannot be read counts
    as not given.
    """
    given = after["metadata"].pop("managedFields", None)
    held = (before or {}).get("metadata", {}).get("managedFields")
    if subresource:
        entries = _decode_entries(held)  # nobody sets managedFields through a subresource
    elif given in ([], [{}]):
        entries = []
    else:
        entries = _decode_entries(given) or _decode_entries(held)
    if before is not None and not entries:
        return  # tracking starts on create or with the first apply
    if before is None:
        old = _empty(kind, after)
    else:
        old = {
            **before,
            "metadata": {key: value for key, value in before["metadata"].items() if key != "managedFields"},
        }
    removed, changed = sets.compare(kind.schema, old, after)
    entries = [entry for entry in (_without(entry, changed, removed) for entry in entries) if entry.fields]
    claimed = _owned(kind, changed, subresource)
    if claimed:
        mine = _Entry(manager, "Update", kind.api_version, subresource, _time(now), claimed)
        for entry in entries:
            if entry.identity == mine.identity:
                mine = mine._replace(fields=sets.union(entry.fields, claimed))
        entries = [*(entry for entry in entries if entry.identity != mine.identity), mine]
    if entries:
        after["metadata"]["managedFields"] = _encode_entries(_capped(entries))


def _refuse_what_cannot_be_applied(kind: Kind, applied: Mapping[str, Any]) -> None:
    if applied.get("metadata", {}).get("managedFields") is not None:
        raise PatchError("metadata.managedFields must be nil", code=400)
    decoded = decode(kind.schema, applied)
    errors = [text for wrong in decoded.wrong if (text := _typed_error(kind.schema, applied, wrong))]
    errors += [f".{text.split(chr(34))[1]}: field not declared in schema" for text in decoded.unknown]
    errors += _list_errors(kind.schema, applied, "")
    meta = applied.get("metadata", {})
    where = f"{meta.get('namespace', '')}/{meta.get('name', '')}; {kind.group}/{kind.version}, Kind={kind.kind}"
    if errors:
        text = errors[0] if len(errors) == 1 else "errors:" + "".join(f"\n  {error}" for error in errors)
        raise PatchError(f"failed to create typed patch object ({where}): {text}", code=500)
    if decoded.unreadable:
        what = f"{kind.group}/{kind.version}, Kind={kind.kind}"
        why = f"unable to convert unstructured object to {what}: {decoded.unreadable[0]}"
        raise PatchError(f"failed to convert new object ({where}) to proper version: {why}", code=500)


def _typed_error(schema: Schema, obj: Any, wrong: WrongType) -> str:
    """`.spec.template.spec.containers[name="x"].tty: expected boolean, got &{1}`: as the merge words a wrong type.

    "" for what the merge lets through: a number with a fraction, any scalar for an int-or-string, and an element of a
    keyed list that has no key at all, of which `_list_errors` speaks.
    """
    text = ""
    node: Schema | None = schema
    for part in wrong.path:
        if isinstance(part, str):
            text += f".{part}"
            node = None if node is None else node.properties.get(part) or node.additional
        else:
            keyed = node is not None and node.list_type != "atomic"
            key = list_key(node, obj[part]) if node is not None and keyed else ""
            if keyed and not key:
                return ""
            text += sets.element_text(key) if key else f"[{part}]"
            node = None if node is None else node.items
        obj = obj[part]
    value = wrong.value
    if wrong.expected.type in ("integer", "number"):
        shown = {str: "string", bool: "bool", dict: "map", list: "list"}.get(type(value), "")
        return f"{text}: expected numeric (int or float), got {shown}" if shown else ""
    expected = {"object": "map", "array": "list", "string": "string", "boolean": "boolean"}.get(wrong.expected.type, "")
    if expected == "string":
        return f"{text}: expected string, got &value.valueUnstructured{{Value:{go_syntax(value)}}}"
    return f"{text}: expected {expected}, got &{{{go_syntax(value)}}}" if expected else ""


def _list_errors(schema: Schema, value: Any, path: str) -> list[str]:
    errors: list[str] = []
    if isinstance(value, dict):
        for key, child in value.items():
            if type(child) is dict or type(child) is list:
                sub = schema.properties.get(key) or schema.additional
                if sub is not None:
                    errors += _list_errors(sub, child, f"{path}.{key}")
    elif isinstance(value, list):
        seen = set()
        for index, child in enumerate(value):
            where = f"{path}[{index}]"
            if schema.list_type != "atomic":
                key = list_key(schema, child)
                where = path + (sets.element_text(key) if key else f"[{index}]")
                if not key:
                    errors.append(_keyless(schema, child, path, index))
                elif key in seen:
                    errors.append(f"{path}: duplicate entries for key {sets.element_text(key)}")
                seen.add(key)
            if schema.items is not None and isinstance(child, dict | list):
                errors += _list_errors(schema.items, child, where)
    return errors


def _keyless(schema: Schema, child: Any, path: str, index: int) -> str:
    where = f"{path}: element {index}: associative list"
    if schema.list_type == "set":
        what = "an explicit null" if child is None else "a map type" if isinstance(child, dict) else "a list"
        return f"{where} without keys has an element that's {what}"
    if not isinstance(child, dict):
        return f"{where} with keys may not have {'a null element' if child is None else 'non-map elements'}"
    keys = " ".join(go_value(name) for name in schema.map_keys)
    omits = f"{where} with keys has an element that omits all key fields [{keys}]"
    return f"{omits} (and doesn't have default values for any key fields)"


def _own_part(kind: Kind, applied: Mapping[str, Any], subresource: str) -> dict[str, Any]:
    """What of the configuration this endpoint listens to."""
    meta = {key: value for key, value in applied.get("metadata", {}).items() if key not in _SERVER_OWNED}
    if subresource == "status":
        meta = {key: meta[key] for key in ("name", "namespace") if key in meta}
        own = {key: applied[key] for key in ("apiVersion", "kind", "status") if key in applied}
    else:
        drop_status = "status" in kind.subresources
        own = {key: value for key, value in applied.items() if not (drop_status and key == "status")}
    return {**own, "metadata": meta}


def _empty(kind: Kind, like: Mapping[str, Any]) -> dict[str, Any]:
    """The object before there was one: structs of built-in kinds are there from the beginning."""
    obj: dict[str, Any] = {"apiVersion": like.get("apiVersion"), "kind": like.get("kind")}
    if not kind.custom:
        normalise(kind.schema, obj)
    obj.setdefault("metadata", {})
    return obj


def _owned(kind: Kind, fields: Fields, subresource: str = "") -> Fields:
    """The set without what nobody owns (the type, the name, what the server sets) and what this endpoint does not
    write."""
    skipped = {"f:apiVersion", "f:kind", "f:metadata", "."}
    if subresource == "status":
        skipped |= {"f:spec"}
    elif "status" in kind.subresources:
        skipped |= {"f:status"}
    out = {key: node for key, node in fields.items() if key not in skipped}
    meta = {key: node for key, node in fields.get("f:metadata", {}).items() if key not in _UNOWNED and key != "."}
    return {**out, "f:metadata": meta} if meta and not (kind.custom and subresource == "status") else out


def _conflicts(others: list[_Entry], changed: Fields) -> list[Conflict]:
    return [
        Conflict(entry.manager, entry.operation, entry.api_version, entry.subresource, entry.time, path)
        for entry in others
        for path in sets.paths(sets.intersection(entry.fields, changed))
    ]


def _without(entry: _Entry, changed: Fields, removed: Fields) -> _Entry:
    if not changed and not removed:
        return entry
    rest = sets.difference(sets.difference(entry.fields, changed), removed)
    return entry._replace(fields=rest)


def _not_client_side_applied(kind: Kind, live: Mapping[str, Any], conflicts: list[Conflict]) -> list[Conflict]:
    """`kubectl apply --server-side` takes over what `kubectl apply` wrote and nobody has changed since."""
    text = live["metadata"].get("annotations", {}).get(_LAST_APPLIED)
    try:
        last = orjson.loads(text or "null")
    except orjson.JSONDecodeError:
        return conflicts
    if not isinstance(last, dict) or last.get("apiVersion") != kind.api_version:
        return conflicts
    removed, changed = sets.compare(kind.schema, last, live)
    unchanged = set(sets.paths(sets.difference(sets.difference(sets.field_set(kind.schema, last), changed), removed)))
    return [conflict for conflict in conflicts if conflict.field not in unchanged]


def _last_applied(applied: Mapping[str, Any]) -> str:
    config = sets.copy_json(dict(applied))
    config["metadata"].get("annotations", {}).pop(_LAST_APPLIED, None)
    return orjson.dumps(config, option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE).decode()


def _time(now: datetime) -> str:
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _decode_entries(raw: Any) -> list[_Entry]:
    """The entries; [] when there are none or when any of them cannot be read."""
    if not isinstance(raw, list):
        return []
    entries = []
    for item in raw:
        if (
            not isinstance(item, dict)
            or item.get("operation") not in ("Apply", "Update")
            or not item.get("apiVersion")
            or item.get("fieldsType") != "FieldsV1"
        ):
            return []
        entries.append(
            _Entry(
                item.get("manager", ""),
                item["operation"],
                item["apiVersion"],
                item.get("subresource", ""),
                item.get("time", ""),
                item.get("fieldsV1") or {},
            )
        )
    return entries


def _encode_entries(entries: list[_Entry]) -> list[dict[str, Any]]:
    encoded = []
    for entry in sorted(entries, key=lambda e: (e.operation, e.time, e.manager, e.api_version, e.subresource)):
        item: dict[str, Any] = {"manager": entry.manager, "operation": entry.operation, "apiVersion": entry.api_version}
        if entry.time:
            item["time"] = entry.time
        item |= {"fieldsType": "FieldsV1", "fieldsV1": sets.ordered(entry.fields)}
        if entry.subresource:
            item["subresource"] = entry.subresource
        encoded.append(item)
    return encoded


def _capped(entries: list[_Entry]) -> list[_Entry]:
    """At most ten Update entries: the oldest of a version become one, `ancient-changes`."""
    updates = sorted((entry for entry in entries if entry.operation == "Update"), key=lambda e: e.time)
    surplus = len(updates) - _MAX_UPDATE_ENTRIES
    if surplus <= 0:
        return entries
    merged = [entry for entry in entries if entry.operation == "Apply"]
    buckets: dict[str, _Entry] = {}
    for entry in updates:
        first = buckets.get(entry.api_version)
        if surplus > 0 and first is not None:
            buckets[entry.api_version] = first._replace(
                manager="ancient-changes",
                subresource="",
                time=entry.time,
                fields=sets.union(first.fields, entry.fields),
            )
            surplus -= 1
        elif surplus > 0:
            buckets[entry.api_version] = entry
        else:
            merged.append(entry)
    return [*merged, *buckets.values()]
