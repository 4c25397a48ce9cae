"""What is sent, and when it is sent again: the parts that need no server."""

from __future__ import annotations

import json
from itertools import accumulate, repeat
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from reconciler.cluster import Resource, Retry
from reconciler.cluster.objects import apply_patch


@given(
    failures=st.integers(1, 1000),
    retry_after=st.floats(0, 1e9),
    jitter=st.floats(0, 1, exclude_max=True),
)
def test_a_pause_is_as_long_as_the_server_asks_and_never_longer_than_the_longest(
    failures: int, retry_after: float, jitter: float
) -> None:
    retry = Retry(jitter=lambda: jitter)
    delay = retry.delay(failures, retry_after)
    assert min(retry_after, retry.longest) <= delay <= retry.longest


def test_pauses_double_and_are_drawn_from_the_whole_range() -> None:
    longest_pauses = Retry(base=0.5, longest=3.0, jitter=lambda: 1.0)
    assert [longest_pauses.delay(failures) for failures in range(1, 6)] == [1.0, 2.0, 3.0, 3.0, 3.0]
    assert Retry(jitter=lambda: 0.0).delay(3) == 0.0


def test_the_pauses_of_one_request_add_up_to_seconds_not_minutes() -> None:
    retry = Retry(jitter=lambda: 1.0)
    *_, total = accumulate(map(retry.delay, range(1, retry.attempts)))
    assert 5 < total < 20


texts = st.text(st.characters(codec="utf-8"))


@given(data=st.dictionaries(texts.filter(lambda key: len(key) < 100), texts, max_size=3))
def test_an_apply_reads_alike_as_json_and_as_yaml(data: dict[str, str]) -> None:
    sent = apply_patch({"data": data})
    assert json.loads(sent) == {"data": data}
    assert yaml.safe_load(sent) == {"data": data}


@pytest.mark.parametrize("character", ["\x7f", "\x80", "\x85", "\u2028", "\u2029", "\ufeff", "\uffff", "😀", "é"])
def test_characters_that_yaml_reads_otherwise_survive_an_apply(character: str) -> None:
    body: dict[str, Any] = {"data": {"k": f"a{character} {character}b"}}
    assert yaml.safe_load(apply_patch(body)) == body


@pytest.mark.parametrize(
    ("api_version", "namespaced", "namespace", "name", "path"),
    [
        ("v1", True, "prod", "a", "/api/v1/namespaces/prod/things/a"),
        ("apps/v1", True, "prod", "", "/apis/apps/v1/namespaces/prod/things"),
        ("apps/v1", True, "", "", "/apis/apps/v1/things"),
        ("v1", False, "", "a", "/api/v1/things/a"),
        ("v1", False, "prod", "a", "/api/v1/things/a"),
        ("v1", True, "../x", "a/b?c", "/api/v1/namespaces/..%2Fx/things/a%2Fb%3Fc"),
    ],
)
def test_the_path_of_an_object(api_version: str, namespaced: bool, namespace: str, name: str, path: str) -> None:
    resource = Resource(api_version, "Thing", "things", namespaced, frozenset())
    assert resource.path(namespace, name) == path


def test_the_path_of_a_subresource() -> None:
    resource = Resource("v1", "Thing", "things", True, frozenset())
    assert resource.path("prod", "a", "status") == "/api/v1/namespaces/prod/things/a/status"


def test_repeated_pauses_differ() -> None:
    retry = Retry()
    assert len(set(map(retry.delay, repeat(6, 20)))) > 10
