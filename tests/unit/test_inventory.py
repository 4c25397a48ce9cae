"""The ApplySet of an environment, and its ConfigMap."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler import inventory
from reconciler.inventory import CorruptInventoryError, Inventory, Place
from renderers.manifest import ObjectId

PLACES = frozenset(
    {Place("v1", "Namespace", ""), Place("apps/v1", "Deployment", "prod"), Place("v1", "Service", "prod")}
)


def test_an_inventory_survives_its_config_map():
    whole = Inventory("production", PLACES, frozenset({ObjectId("batch/v1", "Job", "prod", "churn-build-3f9a1c2e")}))
    assert inventory.from_config_map(inventory.to_config_map(whole)) == whole


def test_the_config_map_is_an_applyset_parent_as_the_kep_describes_it():
    metadata = inventory.to_config_map(Inventory("production", PLACES))["metadata"]
    assert metadata["labels"]["applyset.kubernetes.io/id"] == inventory.set_id("production")
    annotations = metadata["annotations"]
    assert annotations["applyset.kubernetes.io/contains-group-kinds"] == "Deployment.apps,Namespace,Service"
    assert annotations["applyset.kubernetes.io/additional-namespaces"] == "prod"
    assert annotations["applyset.kubernetes.io/tooling"] == "trueup/v1"


def test_the_set_id_is_a_label_value_and_differs_by_environment():
    ids = {inventory.set_id(name) for name in ("staging", "production")}
    assert len(ids) == 2
    assert all(len(value) <= 63 and value.startswith("applyset-") and value.endswith("-v1") for value in ids)


def _edited(**changes):
    body = inventory.to_config_map(Inventory("production", PLACES))
    for path, value in changes.items():
        node = body
        *steps, last = path.split("__")
        for step in steps:
            node = node[step]
        node[last] = value
    return body


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (_edited(metadata__annotations={inventory.TOOLING: "kpt/v1"}), "belongs to kpt/v1"),
        (_edited(metadata__annotations={}), "another tool"),
        (_edited(metadata__name="trueup-staging"), "does not belong to its name"),
        (_edited(data__places="apps/v1 Deployment"), "does not have 3 words"),
        (_edited(data__places="apps/v1  prod"), "does not have 3 words"),
    ],
    ids=["another tool's", "no tool's", "copied under another name", "a cut line", "an empty word"],
)
def test_a_config_map_that_is_not_ours_or_was_edited_is_refused(body, words):
    with pytest.raises(CorruptInventoryError, match=words):
        inventory.from_config_map(body)


words = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=12).filter(lambda w: w != "-")


@given(st.frozensets(st.builds(Place, words, words, words | st.just("")), max_size=8))
def test_any_places_survive_the_config_map(places):
    assert inventory.from_config_map(inventory.to_config_map(Inventory("e", places))).places == places
