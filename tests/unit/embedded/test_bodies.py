"""Request bodies: strict JSON, YAML, protobuf; and selectors. Wild input ends in an answer, never in a crash."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedded import codec, protobuf
from embedded.errors import StatusError
from embedded.kinds import BUILTIN, defaults
from embedded.selectors import labels_match, parse_fields, parse_labels

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), json_values), st.sampled_from([None, 2]))
def test_json_without_duplicates_has_none(value: dict[str, Any], indent: int | None) -> None:
    assert codec.decode(json.dumps(value, indent=indent).encode(), codec.JSON, strict=True) == (value, [])


@pytest.mark.parametrize(
    ("body", "duplicates"),
    [
        ('{"a":1,"a":2}', ['duplicate field "a"']),
        ('{"a":{"b":1,"b":2,"b":3}}', ['duplicate field "a.b"']),
        ('{"a":[{"b":1},{"c":{"d":1,"d":2}}]}', ['duplicate field "a[1].c.d"']),
    ],
)
def test_duplicate_fields_are_named_by_their_path(body: str, duplicates: list[str]) -> None:
    assert codec.decode(body.encode(), codec.JSON, strict=True)[1] == duplicates


def test_duplicate_keys_of_yaml_are_named() -> None:
    assert codec.decode(b"a: 1\nb: {c: 1, c: 2}\n", codec.YAML, strict=True) == (
        {"a": 1, "b": {"c": 2}},
        ['key "c" already set in map'],
    )


@pytest.mark.parametrize("body", [b"&a [*a]", b"a: &x 1\nb: *x", b"[" * 1000, b"- " * 1000, b"a: !!python/object:x {}"])
def test_yaml_that_could_do_harm_is_refused(body: bytes) -> None:
    with pytest.raises(StatusError) as refused:
        codec.decode(body, codec.YAML)
    assert refused.value.code == 400


@given(st.binary(max_size=300), st.sampled_from([codec.JSON, codec.YAML, protobuf.MEDIA_TYPE]))
def test_any_bytes_are_a_value_or_a_refusal(body: bytes, content_type: str) -> None:
    refusal = refusal_of(lambda: codec.decode(body, content_type, strict=True))
    assert refusal is None or refusal.code == 400


@given(st.binary(max_size=200))
def test_any_protobuf_is_an_object_or_a_refusal(raw: bytes) -> None:
    refusal = refusal_of(lambda: protobuf.decode(message("apps/v1", "Deployment", raw)))
    assert refusal is None or refusal.code == 400


def test_protobuf_is_read_into_what_json_would_say() -> None:
    metadata = field(1, b"web") + field(11, field(1, b"app") + field(2, b"web")) + field(8, number(1, 1_700_000_000))
    port = field(1, b"http") + field(2, b"TCP") + number(3, 80) + field(4, number(1, 1) + field(3, b"web"))
    raw = field(1, metadata) + field(2, field(1, port) + field(3, b"10.96.0.9"))
    assert protobuf.decode(message("v1", "Service", raw)) == {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "labels": {"app": "web"}, "creationTimestamp": "2023-11-14T22:13:20Z"},
        "spec": {
            "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": "web"}],
            "clusterIP": "10.96.0.9",
        },
    }


def test_structs_that_go_has_inside_others_are_one_level_higher() -> None:
    secret = field(1, field(1, b"credentials")) + field(2, b"token")
    env = field(1, b"TOKEN") + field(3, field(4, secret))
    probe = field(1, field(2, field(1, b"/ready") + field(2, number(2, 8080)))) + number(2, 5)
    container = field(1, b"main") + field(7, env) + field(11, probe)
    spec = protobuf.decode(message("v1", "Pod", field(2, field(2, container))))["spec"]
    assert spec["containers"] == [
        {
            "name": "main",
            "env": [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "credentials", "key": "token"}}}],
            "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}, "initialDelaySeconds": 5},
        }
    ]


@pytest.mark.parametrize("name", [kind.kind for kind in BUILTIN if kind.kind != "CustomResourceDefinition"])
def test_every_built_in_kind_can_be_read_from_protobuf(name: str) -> None:
    kind = next(kind for kind in BUILTIN if kind.kind == name)
    decoded = protobuf.decode(message(kind.api_version, kind.kind, field(1, field(1, b"a"))))
    assert decoded == {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": "a"}}
    defaults(kind, decoded)


def refusal_of(action: Callable[[], object]) -> StatusError | None:
    try:
        action()
    except StatusError as refusal:
        return refusal
    return None


def field(tag: int, content: bytes) -> bytes:
    return varint(tag << 3 | 2) + varint(len(content)) + content


def number(tag: int, value: int) -> bytes:
    return varint(tag << 3) + varint(value)


def varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def message(api_version: str, kind: str, raw: bytes) -> bytes:
    type_meta = field(1, api_version.encode()) + field(2, kind.encode())
    return b"k8s\0" + field(1, type_meta) + field(2, raw)


# Selectors

words = st.text("ab", min_size=1, max_size=2)
labels = st.dictionaries(words, words, max_size=3)


@given(labels, words, st.lists(words, min_size=1, max_size=3))
def test_a_selector_and_its_negation_split_everything(
    given_labels: dict[str, str], key: str, wanted: list[str]
) -> None:
    body = {"metadata": {"labels": given_labels}}
    for positive, negative in (
        (f"{key}={wanted[0]}", f"{key}!={wanted[0]}"),
        (f"{key} in ({','.join(wanted)})", f"{key} notin ({','.join(wanted)})"),
        (key, f"!{key}"),
    ):
        assert labels_match(parse_labels(positive))(body) is not labels_match(parse_labels(negative))(body)


@given(st.text(max_size=30) | st.text("ab=!,()<> in", max_size=20))
def test_any_text_is_a_selector_or_a_refusal(text: str) -> None:
    for parse in (parse_labels, lambda selector: parse_fields(selector, {})):
        with suppress(ValueError):
            parse(text)


def test_a_field_selector_may_escape() -> None:
    read = {"reason": lambda body: str(body["reason"])}
    assert parse_fields(r"reason=a\,b\=c", read)({"reason": "a,b=c"})
