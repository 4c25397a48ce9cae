"""What each field means: found by its path, told out of the schema, with a hint where there is no such field."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.authors import explained, fields
from reconciler.authors.fields import Field, NoFieldError, find, is_path, kinds, order
from schemas.document import KINDS

SCHEMA: dict[str, Any] = json.loads((Path(__file__).parents[2] / "schemas" / "document.schema.json").read_bytes())
ALL = [field for kind in kinds().values() for field in (kind, *kind.below())]


def shown(path: str, *, recursive: bool = False) -> str:
    return "\n".join(explained.text(find(path), recursive=recursive, width=100))


# -- finding --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "variation.traffic.weight",
        "variations.traffic.weight",
        "Variation.traffic.weight",
        "variations[0].traffic[12].weight",
        "variation.traffic.0.weight",
        "spec.variations[0].traffic[1].weight",
        "document.spec.variations.traffic.weight",
        "/spec/variations/0/traffic/1/weight",
    ],
)
def test_a_field_is_found_however_its_path_is_written(path: str) -> None:
    assert find(path).path == ("variation", "traffic", "weight")


@pytest.mark.parametrize("path", ["policy.require", "policies.require", "policies[3].require", "/policies/0/require"])
def test_a_field_of_a_rule_is_found_as_problems_show_it(path: str) -> None:
    assert is_path(path)
    assert find(path).path == ("policy", "require")


def test_a_slip_in_the_word_for_a_rule_is_guessed() -> None:
    assert fields.meant("polcy.require") == "policy.require"


def test_a_key_that_its_author_chooses_leads_to_what_is_below_it() -> None:
    field = find("variation.environment_overrides.production.deployment.memory")
    assert field.path == ("variation", "environment_overrides", "NAME", "deployment", "memory")


def test_the_kinds_and_the_document_are_fields_too() -> None:
    assert list(kinds()) == [word for word, _ in KINDS.values()]
    assert [field.name for field in find("document").fields] == ["api_version", "spec"]
    assert [field.name for field in find("spec").fields] == list(KINDS)
    assert find("api_version").limits == ("the word v1",)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("variation.trafic", "there is no field 'trafic' in variation; write variation.traffic"),
        ("variation.traffic.Weight", "write variation.traffic.weight"),
        ("build.replicas", "but there is variation.deployment.number_of_pods, automation.deployment_spec.number_of"),
        ("environment.weight", "but there is variation.traffic.weight"),
        ("build.nonsense", "see reconcile explain build"),
        ("variation.traffic.weight.x", "variation.traffic.weight is whole number, and has no fields"),
        ("variatoin.traffic", "there is no kind 'variatoin'; write variation"),
        ("auto_scale_config", "there is variation.deployment.auto_scale_config"),
        ("nonsense", "there are environment, build, variation, audience, automation"),
    ],
)
def test_a_path_with_a_slip_says_what_may_have_been_meant(path: str, said: str) -> None:
    with pytest.raises(NoFieldError) as wrong:
        find(path)
    assert said in str(wrong.value)


def test_a_promotion_is_no_path_of_a_field() -> None:
    assert not is_path("churn.default.production.1a2b3c4d-1")
    assert not is_path("variatoin.traffic")
    assert not is_path("build.default.production.1a2b3c4d-1"), "of a model that is called build"
    assert is_path("variation.nonsense")
    assert fields.meant("variatoin.traffic") == "variation.traffic"
    assert fields.meant("traffic.weight") == "variation.traffic.weight"
    assert fields.meant("auto_scale_config") == "variation.deployment.auto_scale_config"
    assert fields.meant("churn.default.production") == ""


@given(st.text(max_size=60))
def test_any_text_is_a_field_or_says_that_it_is_none(text: str) -> None:
    with suppress(NoFieldError):
        assert isinstance(find(text), Field)


def test_every_field_is_found_by_its_own_path() -> None:
    assert len(ALL) > 300
    for field in ALL:
        assert find(".".join(field.path)).path == field.path


# -- telling --------------------------------------------------------------------------------------------------------


def test_every_field_says_what_it_means_and_every_measure_its_unit() -> None:
    assert [field.path for field in ALL if not field.description] == []
    # A priority is a rank; a threshold has the unit of its metric.
    unmeasured = {field.name for field in ALL if "number" in field.type and not field.unit}
    assert unmeasured == {"priority", "threshold"}


def test_every_text_that_has_a_form_has_an_example_which_fits_it() -> None:
    formless = {"description"}
    for field in ALL:
        if field.type == "text" and field.name not in formless and not any("one of" in limit for limit in field.limits):
            assert field.examples or any(limit.startswith("the word") for limit in field.limits), field.path
        for example in field.examples:
            schema = {"$defs": SCHEMA["$defs"], **field.schema}
            assert jsonschema_rs.is_valid(schema, example), (field.path, example)


def test_a_field_is_told_with_its_type_default_unit_and_limits() -> None:
    assert shown("variation.traffic.weight") == (
        "variation.traffic.weight  <whole number>\n"
        "\n"
        "  Percent. Without the shadows, the weights of one audience sum to 100.\n"
        "\n"
        "  default  100\n"
        "  unit     percent\n"
        "  limits   from 0 to 100"
    )


def test_a_mapping_is_told_with_the_fields_below_it() -> None:
    text = shown("automation.deployment_spec.auto_scale_config")
    assert "exactly one of prometheus_trigger and triggers" in text
    assert "\n  max_replica_count  <whole number, required>, in pods\n" in text
    assert "\n  polling_interval  <whole number>, in seconds, default 30\n" in text
    assert "metric_type" not in text
    assert "\n    metric_type  <text, required>\n" in shown(
        "automation.deployment_spec.auto_scale_config", recursive=True
    )


@pytest.mark.parametrize(
    ("path", "type_"),
    [
        ("variation.environments", "list of texts"),
        ("variation.traffic", "list of mappings"),
        ("variation.rollout", "text or mapping"),
        ("environment.promote_after", "text or list of texts"),
        ("environment.data_plane", "mapping or text"),
        ("build.env_vars", "mapping or list of texts"),
        ("build.resources.cpu", "number"),
        ("build.tests", "true or false"),
    ],
)
def test_a_type_names_every_way_to_write_the_value(path: str, type_: str) -> None:
    assert find(path).type == type_


def test_programs_get_the_same() -> None:
    data = explained.as_data(find("variation.traffic"))
    assert data["path"] == "variation.traffic"
    assert [field["name"] for field in data["fields"]] == ["audience", "weight", "shadow"]
    assert data["fields"][1]["default"] == 100
    assert "fields" not in data["fields"][1]
    whole = explained.as_data(find("document"), recursive=True)
    assert whole["fields"][1]["fields"][0]["fields"][0]["name"] == "name"
    json.dumps(whole)


@pytest.mark.parametrize("width", [1, 40, 80, 200])
def test_lines_are_no_longer_than_a_terminal(width: int) -> None:
    for path in ("environment", "audience.conditions.unary.operator"):
        for line in explained.text(find(path), width=width):
            # A name, a pattern and the line that a field begins with are not broken.
            assert len(line) <= max(width, 40) or "  <" in line or "^" in line or "_TYPE_" in line


# -- the order of keys ----------------------------------------------------------------------------------------------


def test_keys_have_the_order_in_which_people_write_them() -> None:
    assert order(()) == ("api_version", "spec")
    assert order(("spec",)) == tuple(KINDS)
    assert order(("spec", "builds", 3))[:5] == ("name", "model", "description", "environment", "git_uri")
    assert order(("spec", "automations", 0, "build_spec"))[:2] == ("git_uri", "git_branch")
    assert order(("spec", "variations", 0, "environment_overrides", "prod"))[0] == "build"
    assert order(("policies", 0))[:4] == ("name", "kind", "when", "require")


def test_keys_that_people_choose_have_no_order() -> None:
    assert order(("spec", "builds", 0, "env_vars")) == ()
    assert order(("spec", "variations", 0, "environment_overrides")) == ()
    assert order(("spec", "nonsense")) == ()
