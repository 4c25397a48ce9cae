"""Request bodies: JSON or YAML to objects, with what strict decoding has to say about them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import orjson
import yaml

from embedded import protobuf
from embedded.errors import StatusError, bad_request

#: Deeper than any Kubernetes object; far below what would exhaust the stack of libyaml's constructor.
_MAX_DEPTH = 200

JSON = "application/json"
YAML = "application/yaml"


def decode(body: bytes, content_type: str, *, strict: bool = False) -> tuple[Any, list[str]]:
    """The value of a JSON, YAML or protobuf body and, if `strict`, an error for each duplicate field.

    Raises StatusError (400 for text that cannot be parsed, 415 for another content type).
    """
    if content_type in ("", JSON):
        return _decode_json(body, strict=strict)
    if content_type in (YAML, "application/x-yaml"):
        return _decode_yaml(body, strict=strict)
    if content_type == protobuf.MEDIA_TYPE:
        return protobuf.decode(body), []
    accepted = ", ".join((JSON, YAML, protobuf.MEDIA_TYPE))
    message = f"the body of the request was in an unknown format - accepted media types include: {accepted}"
    raise StatusError(415, "UnsupportedMediaType", message)


def decode_apply(body: bytes, *, strict: bool = False) -> tuple[Any, list[str]]:
    """The body of a server-side apply, which is YAML by its content type and JSON most of the time."""
    if body.lstrip()[:1] == b"{":
        try:
            return _decode_json(body, strict=strict)
        except StatusError:
            pass  # flow-style YAML may begin with a brace, too
    return _decode_yaml(body, strict=strict)


def _decode_json(body: bytes, *, strict: bool) -> tuple[Any, list[str]]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        shown = body[:50].decode("utf-8", "replace") or "<empty>"
        raise bad_request(f"couldn't get version/kind; json parse error: {error} ({shown})") from None
    # A body as our own clients write it, compact and without escapes, has the length of its value unless a field
    # is there twice: no need to look closer. Anything else is parsed again, with a look at each object's keys.
    if strict and len(orjson.dumps(value)) != len(body):
        return value, _duplicates(body)
    return value, []


def _duplicates(body: bytes) -> list[str]:
    """`duplicate field "spec.replicas"` for each; the path is found afterwards, because JSON gives leaves first."""
    marked: dict[int, list[str]] = {}

    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) != len(pairs):
            seen: set[str] = set()
            twice = [key for key, _ in pairs if key in seen or seen.add(key)]  # type: ignore[func-returns-value]
            marked[id(value)] = twice
        return value

    return _paths(json.loads(body, object_pairs_hook=build), marked, "")


def _paths(value: Any, marked: dict[int, list[str]], path: str) -> list[str]:
    found: list[str] = []
    if isinstance(value, dict):
        found += [f'duplicate field "{path}{key}"' for key in dict.fromkeys(marked.get(id(value), ()))]
        for key, item in value.items():
            found += _paths(item, marked, f"{path}{key}.")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            found += _paths(item, marked, f"{path.removesuffix('.')}[{index}].")
    return found


class _Loader(yaml.CSafeLoader):
    """YAML as the API server reads it: 1.1 booleans, but no dates, which stay strings."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


def _decode_yaml(body: bytes, *, strict: bool) -> tuple[Any, list[str]]:
    try:
        duplicates = _look_through(body)
        value = yaml.load(body, Loader=_Loader)  # noqa: S506  # a subclass of the safe loader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise _yaml_error(f"error converting YAML to JSON: yaml: {where}{problem}") from None
    # Through JSON, so that keys become strings and what has no JSON form is refused here.
    try:
        return orjson.loads(orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)), duplicates if strict else []
    except orjson.JSONEncodeError as error:
        raise _yaml_error(f"error converting YAML to JSON: {error}") from None


def _look_through(body: bytes) -> list[str]:
    """An error for each duplicate key. Refuses aliases, and depth: libyaml gives events without recursion, but makes
    values with it, and 100 KB of `[` would end the process."""
    duplicates: list[str] = []
    open_nodes: list[_OpenNode] = []
    for event in yaml.parse(body, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise _yaml_error("aliases are not supported")
        if isinstance(event, yaml.CollectionEndEvent):
            open_nodes.pop()
        if not isinstance(event, yaml.NodeEvent):
            continue
        parent = open_nodes[-1] if open_nodes else None
        if parent is not None and parent.is_mapping:
            if parent.children % 2 == 0 and isinstance(event, yaml.ScalarEvent):
                if event.value in parent.keys:
                    duplicates.append(f'key "{event.value}" already set in map')
                parent.keys.add(event.value)
            parent.children += 1
        if isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append(_OpenNode(isinstance(event, yaml.MappingStartEvent)))
            if len(open_nodes) > _MAX_DEPTH:
                raise _yaml_error(f"nested deeper than {_MAX_DEPTH} levels")
    return duplicates


@dataclass(slots=True)
class _OpenNode:
    is_mapping: bool
    keys: set[str] = field(default_factory=set)
    children: int = 0


def _yaml_error(why: str) -> StatusError:
    return bad_request(f"error decoding YAML: {why}")
