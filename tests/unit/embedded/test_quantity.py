"""Quantities: one value, one spelling."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedded.quantity import canonical_quantity, parse_quantity


@pytest.mark.parametrize(
    ("given", "spelling"),
    [
        ("1000m", "1"),
        ("0.5", "500m"),
        (1, "1"),
        (0.5, "500m"),
        ("1500m", "1500m"),
        ("2048Mi", "2Gi"),
        ("1.5Gi", "1536Mi"),
        ("1023", "1023"),
        ("1000", "1k"),
        ("0.5Ki", "512"),
        ("1e3", "1e3"),
        ("1e9", "1e9"),
        ("12345678", "12345678"),
        ("0", "0"),
        ("0Gi", "0"),
        ("-1", "-1"),
        ("+5", "5"),
        ("100n", "100n"),
    ],
)
def test_the_server_gives_back_one_spelling(given: object, spelling: str) -> None:
    assert canonical_quantity(given) == spelling


def test_resource_lists_are_rounded_up_to_milli_units() -> None:
    assert canonical_quantity("1n", finest=-3) == "1m"


@pytest.mark.parametrize("text", ["2GB", "2 Gi", "", "x", "1.2.3", "Gi", "1e", "--1", "1" * 41, "1e99"])
def test_what_is_no_quantity_is_refused_with_the_expression_that_it_should_match(text: str) -> None:
    with pytest.raises(ValueError, match="quantities must match the regular expression"):
        parse_quantity(text)


quantities = st.builds(
    lambda number, suffix: f"{number}{suffix}",
    st.integers(-10_000, 10_000_000),
    st.sampled_from(["", "m", "k", "M", "G", "Ki", "Mi", "Gi", "Ti", "u"]),
)


@given(quantities)
def test_the_spelling_has_the_same_value_and_is_its_own_spelling(text: str) -> None:
    spelling = canonical_quantity(text)
    assert parse_quantity(spelling) == parse_quantity(text)
    assert canonical_quantity(spelling) == spelling


def test_a_quantity_is_exact() -> None:
    assert parse_quantity("0.1") + parse_quantity("0.2") == Decimal("0.3")
