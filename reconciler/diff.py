"""Two versions of an object, compared field by field. Pure.

Lists of a Kubernetes object are compared by the key that the API merges them by, so that one added container is
one added container, not every later one changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from renderers.manifest import Body

#: Set by the server or by us for our own bookkeeping: never a difference that a person asked for.
_SERVER_METADATA = frozenset(
    {"managedFields", "resourceVersion", "generation", "uid", "creationTimestamp", "selfLink", "deletionTimestamp"}
)
#: How list items of the API are told apart, in order of preference.
_ITEM_KEYS = ("name", "containerPort", "port", "key", "topologyKey", "type")

#: Stands for a side that does not have the field.
ABSENT = None


class FieldChange(NamedTuple):
    """One field that differs. `old` or `new` is None where that side does not have it."""

    path: str
    old: Any
    new: Any


def compare(old: Body, new: Body) -> tuple[FieldChange, ...]:
    """The differences of two objects, without what the server writes.

    Values of Secrets are never in the result, and neither are values that somebody put beside a name that speaks of a
    credential: a live object may hold what a spec would not.
    """
    changes = tuple(
        change
        for change in _compare("", _visible(old), _visible(new))
        if not change.path.startswith("metadata.annotations[trueup.dev/content-hash]")
    )
    is_secret = new.get("kind") == "Secret" or old.get("kind") == "Secret"
    return tuple(_masked(change) if is_secret else _without_credentials(change) for change in changes)


def _visible(body: Body) -> Body:
    metadata = {key: value for key, value in body.get("metadata", {}).items() if key not in _SERVER_METADATA}
    return {key: value for key, value in body.items() if key != "status"} | {"metadata": metadata}


def _compare(path: str, old: Any, new: Any) -> Iterator[FieldChange]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            below = _below(path, key)
            if key not in new:
                yield FieldChange(below, old[key], ABSENT)
            elif key not in old:
                yield FieldChange(below, ABSENT, new[key])
            else:
                yield from _compare(below, old[key], new[key])
    elif isinstance(old, list) and isinstance(new, list):
        yield from _compare_lists(path, old, new)
    elif old != new or (isinstance(old, bool) is not isinstance(new, bool)):
        yield FieldChange(path, old, new)


def _compare_lists(path: str, old: list[Any], new: list[Any]) -> Iterator[FieldChange]:
    key = _item_key(old, new)
    if key is None:
        for index in range(max(len(old), len(new))):
            before = old[index] if index < len(old) else ABSENT
            after = new[index] if index < len(new) else ABSENT
            yield from _compare(f"{path}[{index}]", before, after)
        return
    before_by_key = {item[key]: item for item in old}
    after_by_key = {item[key]: item for item in new}
    for name in [*before_by_key, *(name for name in after_by_key if name not in before_by_key)]:
        yield from _compare(f"{path}[{name}]", before_by_key.get(name), after_by_key.get(name))
    kept_before = [name for name in before_by_key if name in after_by_key]
    kept_after = [name for name in after_by_key if name in before_by_key]
    if kept_before != kept_after:
        yield FieldChange(f"{path} (order)", kept_before, kept_after)


def _item_key(old: list[Any], new: list[Any]) -> str | None:
    """The key by which all items of both lists can be told apart, or None: then the position tells them apart."""
    items = [*old, *new]
    if not items or not all(isinstance(item, dict) for item in items):
        return None
    for key in _ITEM_KEYS:
        if all(isinstance(item.get(key), str | int) for item in items) and _unique(old, key) and _unique(new, key):
            return key
    return None


def _unique(items: list[Any], key: str) -> bool:
    return len({item[key] for item in items}) == len(items)


def _below(path: str, key: str) -> str:
    if "." in key or "/" in key:
        return f"{path}[{key}]"
    return f"{path}.{key}" if path else key


#: Names of environment variables and keys whose values are nobody's business.
_CREDENTIAL = re.compile(
    r"token|secret|passw|pwd|credential|private|(api|access|signing|encryption)_?-?key|connection_?string|last-applied",
    re.IGNORECASE,
)
HIDDEN = "(hidden)"

_URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<rest>[^\s\"<>]+)", re.IGNORECASE)
#: Before the host (RFC 3986, 3.2.1); also with a password that nobody has escaped.
_USER = re.compile(r"(?:[^/?#]*|[^/?#:]*:(?![0-9]*(?:[/?#]|$)).*)@")
#: Values of a query or a fragment, and a query that is nothing but a value.
_VALUE = re.compile(r"(?<==)[^&;#]+|(?<=\?)[^=&;#]+(?=[&;#]|$)")


def is_credential(name: str) -> bool:
    """Whether a name speaks of a credential: what stands beside it is nobody's business."""
    return _CREDENTIAL.search(name) is not None


def without_credentials(text: str) -> str:
    """A text that anybody may read: of each URL in it, who asks (user and password) and the query's values are hidden.

    The user of ssh is shown, which is `git` and no secret.
    """
    return _URL.sub(_without_credentials_of_url, text) if "://" in text else text


def _without_credentials_of_url(url: re.Match[str]) -> str:
    scheme, rest = url["scheme"], url["rest"]
    user = _USER.match(rest)
    if user is not None and not (scheme.lower().endswith("ssh") and ":" not in user[0]):
        rest = f"{HIDDEN}@{rest[user.end() :]}"
    end = re.search(r"[?#]", rest)
    if end is not None:
        rest = rest[: end.start()] + _VALUE.sub(HIDDEN, rest[end.start() :])
    return f"{scheme}://{rest}"


def _without_credentials(change: FieldChange) -> FieldChange:
    names = re.split(r"[.\[\]]", change.path)
    if is_credential(change.path) and _NAMES.isdisjoint(names):
        return _told_apart(change, _hide(change.old), _hide(change.new))
    return _told_apart(change, _hide_inside(change.old), _hide_inside(change.new))


def _told_apart(change: FieldChange, old: Any, new: Any) -> FieldChange:
    """The change with these values, which say that there is one even where all that differs is hidden."""
    if old == new and (old, new) != (change.old, change.new):
        return FieldChange(change.path, "(hidden, old)", "(hidden, new)")
    return FieldChange(change.path, old, new)


def _hide(value: Any) -> Any:
    """Everything that a container's variable or a map's value holds, except where it names a Secret to read from."""
    if isinstance(value, str):
        return HIDDEN
    if isinstance(value, dict):
        return {key: _hide(item) if key in ("value", "data") else _hide_inside(item) for key, item in value.items()}
    return _hide_inside(value)


def _hide_inside(value: Any) -> Any:
    if isinstance(value, str):
        return without_credentials(value)
    if isinstance(value, list):
        return [_hide_inside(item) for item in value]
    if not isinstance(value, dict):
        return value
    if isinstance(value.get("name"), str) and is_credential(value["name"]) and "value" in value:
        return value | {"value": HIDDEN}
    return {
        key: HIDDEN if isinstance(item, str) and is_credential(key) and key not in _NAMES else _hide_inside(item)
        for key, item in value.items()
    }


#: Keys of the API that speak of secrets and hold names.
_NAMES = frozenset({"secretName", "automountServiceAccountToken", "secretKeyRef", "secretRef"})


def _masked(change: FieldChange) -> FieldChange:
    """Of a Secret's data, only whether it changed: not the length, not a part of it."""
    if not change.path.startswith(("data", "stringData")):
        return _without_credentials(change)
    old, new = (ABSENT if value is ABSENT else HIDDEN for value in change[1:])
    return _told_apart(change, old, new)
