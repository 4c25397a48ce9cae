from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from renderers import names
from renderers.manifest import Origin

RFC_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")

resource_names = st.from_regex(r"[a-z0-9]([-_.a-z0-9]{0,61}[a-z0-9])?", fullmatch=True)
variation_names = st.from_regex(r"[a-z0-9]([-.a-z0-9]{0,34}[a-z0-9])?", fullmatch=True)
display_names = st.from_regex(r"[A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?", fullmatch=True)
build_ids = st.from_regex(r"[0-9a-f]{8}", fullmatch=True)


def test_a_plain_name_stays_as_it_is() -> None:
    assert names.object_name("churn") == "churn"
    assert names.object_name("churn", "dashboard") == "churn-dashboard"
    assert names.served_name("churn", "default", "3f9a1c2e") == "churn-default-3f9a1c2e"
    assert names.job_name("churn", "3f9a1c2e") == "churn-build-3f9a1c2e"


@pytest.mark.parametrize("name", ["a_b", "a.b", "A-b", "7seas", "x" * 64, "a-0123abcd", "-", "_", "a--b_", "a."])
def test_a_name_that_is_mapped_or_cut_ends_with_a_hash(name: str) -> None:
    made = names.object_name(name)

    assert re.fullmatch(r"[a-z].*-[0-9a-f]{8}", made)
    assert made != name


@pytest.mark.parametrize(
    ("one", "other"),
    [("a_b", "a.b"), ("a_b", "a-b"), ("x" * 64 + "a", "x" * 64 + "b"), ("A", "a"), ("7", "n-7")],
)
def test_names_that_look_alike_stay_apart(one: str, other: str) -> None:
    assert names.object_name(one) != names.object_name(other)


def test_nobody_can_choose_the_name_that_another_one_is_mapped_to() -> None:
    mapped = names.object_name("a_b")

    assert names.object_name(mapped) != mapped


@given(display_names, st.integers(min_value=20, max_value=63))
def test_every_name_is_a_label_of_rfc_1035_within_its_limit(name: str, limit: int) -> None:
    made = names.object_name(name, limit=limit)

    assert RFC_1035.fullmatch(made)
    assert len(made) <= limit


@given(st.sets(display_names, min_size=2, max_size=20))
def test_different_names_never_meet(chosen: set[str]) -> None:
    assert len({names.object_name(name) for name in chosen}) == len(chosen)
    assert len({names.object_name(name, limit=20) for name in chosen}) == len(chosen)


@given(resource_names, variation_names, build_ids)
def test_what_serves_a_build_leaves_room_for_the_name_of_its_pods(model: str, variation: str, build: str) -> None:
    made = names.served_name(model, variation, build)

    assert RFC_1035.fullmatch(made)
    assert len(made) <= names.DEPLOYMENT_LIMIT
    assert len(f"{made}-{'x' * 10}-{'x' * 5}") <= names.LABEL_LIMIT
    assert made.endswith(f"-{build}")


@given(resource_names, st.sets(variation_names, min_size=2, max_size=20), build_ids)
def test_variations_of_a_model_never_meet_even_with_the_same_build(
    model: str, variations: set[str], build: str
) -> None:
    assert len({names.served_name(model, variation, build) for variation in variations}) == len(variations)


@given(resource_names, build_ids)
def test_a_job_has_a_name_of_its_build(model: str, build: str) -> None:
    made = names.job_name(model, build)

    assert RFC_1035.fullmatch(made)
    assert len(made) <= names.LABEL_LIMIT
    assert made.endswith(f"-{build}")


@given(resource_names, variation_names, build_ids)
def test_the_selector_is_among_the_labels_and_does_not_know_the_build(model: str, variation: str, build: str) -> None:
    instance = names.served_name(model, variation, build)
    labels = names.labels(model, "serving", "production", instance=instance, variation=variation, build=build)

    assert names.selector(model, instance).items() <= labels.items()
    assert set(names.selector(model, instance)) == {names.NAME, names.INSTANCE}
    assert all(re.fullmatch(r"[A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?", value) for value in labels.values())


def test_annotations_name_the_spec_but_not_its_place() -> None:
    origin = Origin("specs/churn.yaml", 7, "build", "churn-1")

    assert names.provenance(origin) == {"trueup.dev/spec": "build/churn-1"}
    assert names.provenance(origin, "build/churn-1")["trueup.dev/lineage"] == "build/churn-1"
