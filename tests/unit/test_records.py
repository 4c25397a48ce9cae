"""The records: what they are called, how they are written, and that their definitions say the same as their types."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel

from reconciler import ledger
from reconciler.records import (
    ENDS,
    Build,
    BuildPhase,
    Phase,
    Promotion,
    RecordError,
    build_name,
    from_body,
    kind_of,
    promotion_name,
    to_body,
)
from tests.sample_records import a_build, a_full_build, a_full_promotion, a_promotion, an_id

ROOT = Path(__file__).parent.parent.parent
SCHEMAS: dict[str, Any] = {
    definition["spec"]["names"]["kind"]: definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for definition in ledger.definitions()
}


@pytest.mark.parametrize("record", [a_build(), a_full_build(), a_promotion(), a_full_promotion()])
def test_what_is_written_is_what_is_read(record: Any) -> None:
    assert from_body(type(record), to_body(record)) == record


def test_an_instant_is_written_to_the_millisecond_in_utc() -> None:
    assert to_body(a_build())["spec"]["cause"]["at"] == "2026-11-21T03:00:00.000Z"


def test_a_record_that_makes_no_sense_is_told_by_its_name_and_its_field() -> None:
    body = to_body(a_promotion(build="ab" * 32))
    body["spec"]["attempt"] = "some"
    name = "churn.default.production.abababab-1"
    with pytest.raises(RecordError, match=rf"^Promotion trueup-system/{re.escape(name)}: spec\.attempt: "):
        from_body(Promotion, body)
    del body["spec"]
    with pytest.raises(RecordError, match=r"spec: is missing$"):
        from_body(Promotion, body)


def test_a_name_is_made_of_what_may_exist_once() -> None:
    build = an_id()
    assert build_name("churn", build) == f"churn-build-{build[:8]}"
    first = a_promotion(build=build).spec
    assert promotion_name(first) == f"churn.default.production.{build[:8]}-1"
    assert promotion_name(first.model_copy(update={"attempt": 2})) == f"churn.default.production.{build[:8]}-2"


def test_no_name_is_longer_than_kubernetes_allows() -> None:
    longest = a_promotion(model="m" * 63, variation="v" * 63, environment="e" * 63, attempt=999_999_999)
    assert len(longest.identity.name) <= 253


# -- the definitions ------------------------------------------------------------------------------------------------


def fields_of_types(model: type[BaseModel], path: str) -> Iterator[str]:
    for field in model.model_fields.values():
        here = f"{path}.{field.alias}"
        yield here
        for part in parts_of(field.annotation):
            yield from fields_of_types(part, here)


def parts_of(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) not in (Literal, Mapping):
        for argument in get_args(annotation):
            if argument not in (NoneType, Ellipsis):
                yield from parts_of(argument)


def fields_of_schema(schema: Mapping[str, Any], path: str) -> Iterator[str]:
    for name, child in schema.get("properties", {}).items():
        here = f"{path}.{name}"
        yield here
        yield from fields_of_schema(child.get("items", child), here)


@pytest.mark.parametrize("kind", [Build, Promotion])
def test_a_definition_has_the_fields_of_its_type_and_no_others(kind: type[Build | Promotion]) -> None:
    schema = SCHEMAS[kind_of(kind)]["properties"]
    for part in ("spec", "status"):
        annotation = kind.model_fields[part].annotation
        assert isinstance(annotation, type)
        assert issubclass(annotation, BaseModel)
        assert sorted(fields_of_schema(schema[part], part)) == sorted(fields_of_types(annotation, part))


def leaves(schema: Mapping[str, Any], path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield path, schema
    children = {**schema.get("properties", {}), "[]": schema.get("items"), "{}": schema.get("additionalProperties")}
    for name, child in children.items():
        if isinstance(child, Mapping):
            yield from leaves(child, f"{path}.{name}")


@pytest.mark.parametrize("kind", ["Build", "Promotion"])
def test_everything_in_a_definition_has_a_bound(kind: str) -> None:
    """The server multiplies the bounds of what a rule looks at, and refuses the definition when that is too much."""
    for path, schema in leaves(SCHEMAS[kind], kind):
        match schema["type"]:
            case "string" if path.count(".") > 1:
                assert {"maxLength", "enum", "format"} & set(schema), path
            case "array":
                assert "maxItems" in schema, path
            case "object" if "additionalProperties" in schema:
                assert "maxProperties" in schema, path


@pytest.mark.parametrize("kind", ["Build", "Promotion"])
def test_every_field_is_described(kind: str) -> None:
    for path, schema in leaves(SCHEMAS[kind], kind):
        if re.fullmatch(rf"{kind}\.(spec|status)[.\w]*", path):
            assert schema.get("description", "").endswith((".", "`")) or "[]" in path, path


def test_the_phases_of_the_definitions_are_those_of_the_types() -> None:
    phases = {kind: schema["properties"]["status"]["properties"]["phase"]["enum"] for kind, schema in SCHEMAS.items()}
    assert phases == {"Build": [*map(str, BuildPhase)], "Promotion": [*map(str, Phase)]}


def test_the_ends_of_the_definitions_are_those_of_the_types() -> None:
    ended = {kind: schema["x-kubernetes-validations"][1]["rule"] for kind, schema in SCHEMAS.items()}
    in_rule = {kind: set(re.findall(r"'(\w+)'", rule)) for kind, rule in ended.items()}
    finished = {phase for phase in BuildPhase if a_build().model_copy(update={"status": _status(phase)}).is_finished}
    assert in_rule == {"Build": {*map(str, finished)}, "Promotion": {*map(str, ENDS)}}


def _status(phase: BuildPhase) -> Any:
    return a_build().status.model_copy(update={"phase": phase})


def test_as_many_decisions_are_guarded_as_there_may_be() -> None:
    decisions = SCHEMAS["Promotion"]["properties"]["spec"]["properties"]["decisions"]
    policy = (ROOT / "charts/trueup/templates/admission-policy.yaml").read_text()
    every = str(list(range(decisions["maxItems"])))
    assert every in decisions["x-kubernetes-validations"][0]["rule"]
    assert every in policy


def test_the_chart_has_the_definitions_of_the_package() -> None:
    """Copies, as some of those who install charts from Git leave out symbolic links. `cp reconciler/crds/* \
charts/trueup/crds/` after a change."""
    ours, theirs = ROOT / "reconciler/crds", ROOT / "charts/trueup/crds"
    assert {f.name: f.read_text() for f in ours.iterdir()} == {f.name: f.read_text() for f in theirs.iterdir()}
