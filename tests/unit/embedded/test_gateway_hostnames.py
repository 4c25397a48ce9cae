"""Which hostnames of listeners and routes have something in common."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedded.gateway.hostnames import covers, intersection, precision

LABELS = st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=3).map(".".join)
HOSTNAMES = st.one_of(st.just(""), LABELS, LABELS.map(lambda name: f"*.{name}"))


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        ("", "", ""),
        ("", "a.test", "a.test"),
        ("*.test", "a.test", "a.test"),
        ("*.test", "b.a.test", "b.a.test"),
        ("*.test", "*.a.test", "*.a.test"),
        ("*.test", "test", None),
        ("*.test", "atest", None),
        ("a.test", "b.test", None),
        ("*.a.test", "*.b.test", None),
    ],
)
def test_the_narrower_hostname_is_what_two_share(one: str, other: str, shared: str | None) -> None:
    assert intersection(one, other) == intersection(other, one) == shared


@settings(deadline=None)
@given(HOSTNAMES, HOSTNAMES, LABELS)
def test_what_two_share_covers_exactly_what_both_cover(one: str, other: str, name: str) -> None:
    shared = intersection(one, other)
    both = covers(one, name) and covers(other, name)
    assert (shared is not None and covers(shared, name)) == both


def test_an_exact_hostname_describes_more_closely_than_any_wildcard() -> None:
    names = ["a.b.test", "b.test", "*.long.name.test", "*.test", ""]
    assert sorted(names, key=precision) == names[::-1]
