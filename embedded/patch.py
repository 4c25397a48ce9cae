"""The three patch formats besides server-side apply: JSON Patch (RFC 6902), JSON Merge Patch (RFC 7386), strategic
merge patch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from embedded.fields import copy_json
from embedded.kinds.kind import Kind
from embedded.schema import ANY, Schema, go_syntax

_MAX_OPERATIONS = 10_000  # the server's limit on one JSON patch


class PatchError(ValueError):
    """A patch that cannot be applied. `code` is the HTTP status: 400, 422, or 500 where the server says 500."""

    def __init__(self, message: str, *, code: int) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


# --- JSON Patch -----------------------------------------------------------------------------------------------


def json_patch(obj: Any, patch: Any) -> Any:
    """The operations on a copy. Raises PatchError: 400 where the patch is malformed, 422 where an operation fails."""
    if not isinstance(patch, list):
        raise PatchError(
            "error decoding patch: json: cannot unmarshal object into Go value of type jsonpatch.Patch", code=400
        )
    if len(patch) > _MAX_OPERATIONS:
        raise PatchError(
            f"The allowed maximum operations in a JSON patch is {_MAX_OPERATIONS}, got {len(patch)}", code=413
        )
    root = [copy_json(obj)]  # a box, so that the root has a parent like every other value
    for operation in patch:
        if not isinstance(operation, dict):
            raise PatchError(
                "error decoding patch: json: cannot unmarshal into Go value of type jsonpatch.Operation", code=400
            )
        _operate(root, operation)
    return root[0]


def _operate(root: list[Any], operation: dict[str, Any]) -> None:
    name, path = operation.get("op"), operation.get("path")
    if not isinstance(path, str):
        raise PatchError("the server rejected our request due to an error in our request", code=422)
    parent, key = _locate(root, path)
    if name == "add":
        _add(parent, key, copy_json(operation.get("value")), path)
    elif name == "remove":
        _remove(parent, key, path, "remove")
    elif name == "replace":
        _get(parent, key, path, "replace")
        parent[_index(parent, key)] = copy_json(operation.get("value"))
    elif name in ("move", "copy"):
        source = operation.get("from")
        if not isinstance(source, str):
            raise PatchError("the server rejected our request due to an error in our request", code=422)
        from_parent, from_key = _locate(root, source)
        value = copy_json(_get(from_parent, from_key, source, name))
        if name == "move":
            _remove(from_parent, from_key, source, "move")
            parent, key = _locate(root, path)
        _add(parent, key, value, path)
    elif name == "test":
        held = _get(parent, key, path, "test", missing=None)
        if held != operation.get("value") or isinstance(held, bool) != isinstance(operation.get("value"), bool):
            raise PatchError(f"testing value {path} failed: test failed", code=422)
    else:
        raise PatchError(f'Unexpected kind: "{name}"', code=422)


def _locate(root: list[Any], pointer: str) -> tuple[Any, str]:
    """The container that a pointer ends in, and the last token."""
    if pointer == "":
        return root, "0"
    if not pointer.startswith("/"):
        raise PatchError(
            f'jsonpatch operation does not apply: doc is missing path: "{pointer}": missing value', code=422
        )
    tokens = [token.replace("~1", "/").replace("~0", "~") for token in pointer[1:].split("/")]
    container = root[0]
    for token in tokens[:-1]:
        container = _get(container, token, pointer, "add")
    if not isinstance(container, dict | list):
        raise _missing(pointer, "add")
    return container, tokens[-1]


def _missing(path: str, operation: str) -> PatchError:
    return PatchError(f'{operation} operation does not apply: doc is missing path: "{path}": missing value', code=422)


def _index(container: Any, key: str) -> Any:
    if isinstance(container, dict):
        return key
    if not key.lstrip("-").isdigit():
        raise PatchError(f'strconv.Atoi: parsing "{key}": invalid syntax', code=422)
    index = int(key)
    return index if index >= 0 else len(container) + index


_NO_DEFAULT: Any = object()


def _get(container: Any, key: str, path: str, operation: str, missing: Any = _NO_DEFAULT) -> Any:
    if isinstance(container, dict):
        if key in container:
            return container[key]
    elif isinstance(container, list):
        index = _index(container, key)
        if 0 <= index < len(container):
            return container[index]
    if missing is not _NO_DEFAULT:
        return missing
    raise _missing(path, operation)


def _add(container: Any, key: str, value: Any, path: str) -> None:
    if isinstance(container, dict) or path == "":
        container[_index(container, key)] = value
    elif key == "-":
        container.append(value)
    else:
        index = _index(container, key)
        if not 0 <= index <= len(container):
            raise PatchError(
                f"add operation does not apply: Unable to access invalid index: {key}: invalid index referenced",
                code=422,
            )
        container.insert(index, value)


def _remove(container: Any, key: str, path: str, operation: str) -> None:
    _get(container, key, path, operation)
    del container[_index(container, key)]


# --- JSON Merge Patch -----------------------------------------------------------------------------------------


def merge_patch(obj: Any, patch: Any) -> Any:
    """RFC 7386 on a copy: null removes, maps merge, everything else replaces."""
    if not isinstance(patch, dict):
        return copy_json(patch)
    out = copy_json(obj) if isinstance(obj, dict) else {}
    for key, value in patch.items():
        if value is None:
            out.pop(key, None)
        else:
            out[key] = merge_patch(out.get(key), value)
    return out


# --- strategic merge patch ------------------------------------------------------------------------------------

_SET_ORDER, _DELETE_FROM, _RETAIN, _DIRECTIVE = (
    "$setElementOrder/",
    "$deleteFromPrimitiveList/",
    "$retainKeys",
    "$patch",
)


def strategic_merge_patch(kind: Kind, obj: Any, patch: Any) -> Any:
    """A strategic merge patch on a copy: keyed lists merge by their patch merge key, with the directives `$patch`,
    `$retainKeys`, `$deleteFromPrimitiveList` and `$setElementOrder`
    (https://kubernetes.io/docs/tasks/manage-kubernetes-objects/update-api-object-kubectl-patch/).

    Custom kinds do not support it: the server answers 415, which is the caller's to say. Raises PatchError (400 or
    500) for a malformed patch.
    """
    if not isinstance(patch, dict):
        raise PatchError(
            "error decoding patch: json: cannot unmarshal into Go value of type map[string]interface {}", code=400
        )
    return _merge_map(kind.schema, copy_json(obj), copy_json(patch))


def _merge_map(schema: Schema, original: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    directive = patch.pop(_DIRECTIVE, None)
    if directive == "replace":
        return _plain_map(patch)
    if directive == "delete":
        return {}
    if directive not in (None, "merge"):
        raise PatchError(f"unknown patch type found: {directive}", code=400)
    original = _retained(original, patch)
    orders = {key.removeprefix(_SET_ORDER): patch.pop(key) for key in list(patch) if key.startswith(_SET_ORDER)}
    for key in [key for key in patch if key.startswith(_DELETE_FROM)]:
        name, gone = key.removeprefix(_DELETE_FROM), patch.pop(key)
        if isinstance(original.get(name), list):
            original[name] = [item for item in original[name] if item not in gone]
    for key, value in patch.items():
        if value is None:
            original.pop(key, None)
        else:
            sub = schema.properties.get(key) or schema.additional or ANY
            original[key] = _merge_value(sub, original.get(key), value, orders.pop(key, None))
    for key, order in orders.items():  # an order without a patch of the list itself
        sub = schema.properties.get(key) or ANY
        if isinstance(original.get(key), list) and "merge" in sub.patch_strategy:
            original[key] = _in_order(original[key], order, original[key], _identity(sub))
    return original


def _retained(original: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    if _RETAIN not in patch:
        return original
    keep = patch.pop(_RETAIN)
    added = [key for key, value in patch.items() if value is not None and not key.startswith("$")]
    if not isinstance(keep, list) or any(key not in keep for key in added):
        raise PatchError("invalid patch format of retainKeys", code=400)
    return {key: value for key, value in original.items() if key in keep}


def _merge_value(schema: Schema, held: Any, value: Any, order: list[Any] | None) -> Any:
    if isinstance(value, dict) and isinstance(held, dict):
        return _merge_map(schema, {} if "replace" in schema.patch_strategy else held, value)
    if isinstance(value, list) and "merge" in schema.patch_strategy and isinstance(held, list | None):
        return _merge_list(schema, held or [], value, order)
    return _plain(value)


def _plain_map(value: dict[str, Any]) -> dict[str, Any]:
    return {key: _plain(child) for key, child in value.items() if not key.startswith("$") and child is not None}


def _plain(value: Any) -> Any:
    """What a patch adds as a whole: without its directives, and without the nulls that would have removed something."""
    if isinstance(value, dict):
        return _plain_map(value)
    if isinstance(value, list):
        return [_plain(item) for item in value if not (isinstance(item, dict) and item.get(_DIRECTIVE) == "delete")]
    return value


def _identity(schema: Schema) -> Callable[[Any], Any]:
    key = schema.patch_key
    return (lambda item: item.get(key) if isinstance(item, dict) else item) if key else (lambda item: item)


def _merge_list(schema: Schema, original: list[Any], patch: list[Any], order: list[Any] | None) -> list[Any]:
    items = schema.items or ANY
    if not any(isinstance(item, dict) for item in [*original, *patch]):
        merged = list(dict.fromkeys([*original, *patch]))
        return _in_order(merged, order if order is not None else patch, original, _identity(schema))
    key, identity = schema.patch_key, _identity(schema)
    if not key:
        raise PatchError("cannot merge lists without merge key", code=400)
    merged = list(original)
    changes = []
    for item in patch:
        directive = item.get(_DIRECTIVE) if isinstance(item, dict) else None
        if not isinstance(item, dict) or (key not in item and directive != "replace"):
            raise PatchError(f"map: {go_syntax(item)} does not contain declared merge key: {key}", code=500)
        if directive == "replace":
            merged = []  # the element itself says nothing else: the list is what the other elements say
        elif directive == "delete":
            merged = [held for held in merged if identity(held) != item[key]]
        elif directive in (None, "merge"):
            changes.append(item)
        else:
            raise PatchError(f"unknown patch type found: {directive}", code=400)
    for item in changes:
        place = next((index for index, held in enumerate(merged) if identity(held) == item[key]), None)
        if place is None:
            merged.append(_plain(item))
        else:
            merged[place] = _merge_map(items, merged[place], item)
    return _in_order(merged, order if order is not None else patch, original, identity)


def _in_order(merged: list[Any], order: list[Any], original: list[Any], identity: Callable[[Any], Any]) -> list[Any]:
    """Elements that `order` names stand in that order; the others keep their places relative to them, as they were in
    `original`."""
    wanted = [identity(item) for item in order]
    before = [identity(item) for item in original]
    named = sorted((item for item in merged if identity(item) in wanted), key=lambda item: wanted.index(identity(item)))
    others = [item for item in merged if identity(item) not in wanted]
    out: list[Any] = []
    while named and others:
        left, right = identity(others[0]), identity(named[0])
        first = left in before and right in before and before.index(left) < before.index(right)
        out.append((others if first else named).pop(0))
    return [*out, *named, *others]
