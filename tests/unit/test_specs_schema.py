"""The JSON Schema as it is used: two implementations agree on it, and no document is expensive or surprising."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import jsonschema_rs
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.specs import parse
from reconciler.specs.typed import schema, validator
from schemas.reader import read
from tests.conftest import FULL, examples

ROOT = Path(__file__).parents[2]
FILES = {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in sorted(ROOT.glob("examples/specs/*/*.yaml"))}
REFERENCE = jsonschema.Draft202012Validator(schema())


def documents() -> list[Any]:
    return [document.value for name, content in FILES.items() for document in read(name, content).documents]


def nodes(value: Any) -> Iterator[Any]:
    yield value
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from nodes(child)


# -- agreement ------------------------------------------------------------------------------------------------------


def assert_agreement(document: Any) -> None:
    ours = {tuple(error.instance_path) for error in validator().iter_errors(document)}
    theirs = {tuple(error.absolute_path) for error in REFERENCE.iter_errors(document)}
    assert ours == theirs
    assert validator().is_valid(document) == (not ours)


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("number", range(len(documents())))
def test_both_implementations_accept_the_examples(number: int) -> None:
    assert_agreement(documents()[number])
    assert validator().is_valid(documents()[number])


#: Values that are wrong in most places, and right in some. Copied, because later accidents may change them.
WRONG = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 200),
    st.sampled_from(
        [0.5, -1.5, 1e9, "", "x", "A_b", "secret.a", "5m", "2Gi", "default", "a" * 70, [], {}, [1], ["a", "a"]]
    ),
    st.sampled_from(["replace", "manual", {"manual": {}}, {"canary": {"steps": []}}, [{}], {"a": "b"}, {"A b": 1}]),
).map(copy.deepcopy)


@st.composite
def damaged(draw: st.DrawFn) -> Any:
    """A document of the examples with one to four accidents."""
    document = copy.deepcopy(draw(st.sampled_from(documents())))
    for _ in range(draw(st.integers(1, 4))):
        containers = [node for node in nodes(document) if isinstance(node, dict | list) and node]
        if not containers:
            break
        container = draw(st.sampled_from(containers))
        key = draw(st.sampled_from(list(container) if isinstance(container, dict) else range(len(container))))
        match draw(st.sampled_from(["replace", "delete", "rename", "add"])):
            case "replace":
                container[key] = draw(WRONG)
            case "delete":
                del container[key]
            case "rename" if isinstance(container, dict):
                container[f"{key}s"] = container.pop(key)
            case _ if isinstance(container, dict):
                container[draw(st.sampled_from(["name", "traffic", "build", "weight", "extra"]))] = draw(WRONG)
            case _:
                container.append(draw(WRONG))
    return document


@settings(max_examples=examples(250), suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(damaged())
def test_both_implementations_find_fault_with_the_same_nodes(document: Any) -> None:
    assert_agreement(document)


def test_where_they_are_known_to_differ_ours_is_the_stricter() -> None:
    """Python's `$` matches before a final line end: a name with one would pass, and break every manifest."""
    document = {"api_version": "v1", "spec": {"audiences": [{"name": "adults\n"}]}}
    assert REFERENCE.is_valid(document)
    assert not validator().is_valid(document)


# -- whatever is in a document, there is an answer ------------------------------------------------------------------


@settings(max_examples=examples(250), suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(damaged())
def test_every_document_is_answered_with_problems_that_have_a_place(document: Any) -> None:
    text = json.dumps(document, indent=1, ensure_ascii=False).encode()
    loaded = parse({"specs.yaml": text})

    lines = text.decode().split("\n")
    for problem in loaded.problems:
        assert 1 <= problem.line <= len(lines)
        assert 1 <= problem.column <= len(lines[problem.line - 1]) + 1
        assert problem.message.endswith(".")
        assert problem.message.isprintable()
        assert problem.rule != "schema/invalid", "a keyword of the schema has no words"
    if not validator().is_valid(document):
        assert any(problem.severity == "error" for problem in loaded.problems)


@settings(max_examples=examples(150), suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(sorted(FILES)), st.binary(max_size=200) | st.none(), max_size=4), st.data())
def test_files_that_are_cut_or_overwritten_are_answered(changes: dict[str, bytes | None], data: st.DataObject) -> None:
    files = dict(FILES)
    for name, content in changes.items():
        whole = files[name]
        files[name] = whole[: data.draw(st.integers(0, len(whole)))] if content is None else content
    loaded = parse(files)
    assert len(set(loaded.problems)) == len(loaded.problems)
    assert list(loaded.problems) == sorted(loaded.problems)


def test_the_examples_have_no_problem() -> None:
    assert parse(FILES).problems == ()


def test_yaml_and_json_spellings_of_a_file_load_alike() -> None:
    as_json = {
        name: "\n---\n".join(json.dumps(d, ensure_ascii=False) for d in yaml.safe_load_all(content)).encode()
        for name, content in FILES.items()
    }
    plain, loaded = parse(FILES).catalog, parse(as_json).catalog
    for kind in ("environments", "builds", "variations", "audiences", "automations"):
        ours, theirs = getattr(plain, kind), getattr(loaded, kind)
        assert {key: placed.spec for key, placed in ours.items()} == {
            key: placed.spec for key, placed in theirs.items()
        }


# -- nothing is expensive (T11) ---------------------------------------------------------------------------------------


def test_every_reference_of_the_schema_is_inside_it_so_nothing_is_fetched() -> None:
    references = [node["$ref"] for node in nodes(schema()) if isinstance(node, dict) and "$ref" in node]
    assert references
    assert all(reference.startswith("#/$defs/") for reference in references)


def test_the_schema_has_no_circle_so_that_depth_is_bounded_by_it() -> None:
    uses = {
        name: {
            node["$ref"].removeprefix("#/$defs/") for node in nodes(part) if isinstance(node, dict) and "$ref" in node
        }
        for name, part in schema()["$defs"].items()
    }
    while leaves := {name for name, used in uses.items() if not used & uses.keys()}:
        uses = {name: used for name, used in uses.items() if name not in leaves}
    assert uses == {}


def test_no_pattern_can_be_made_slow() -> None:
    patterns = sorted(
        {n["pattern"] for n in nodes(schema()) if isinstance(n, dict) and isinstance(n.get("pattern"), str)}
    )
    assert patterns
    for unit in ("a", "a.", "a-", "1", "a:", "/a", "secret.", "*/"):
        text = unit * 10_000 + "!"
        start = time.process_time()
        for pattern in patterns:
            jsonschema_rs.validator_for({"pattern": pattern}).is_valid(text)
        assert time.process_time() - start < 2


@pytest.mark.parametrize(
    "item", ["{name: adults}", "adults", "{}", '{name: "' + "a" * 200 + '!"}'], ids=["good", "text", "empty", "long"]
)
def test_a_list_as_long_as_a_file_allows_takes_moments(item: str) -> None:
    count = min(49_000 if FULL else 12_000, 1_000_000 // (len(item) + 1))
    text = "api_version: v1\nspec:\n  audiences: [" + ",".join([item] * count) + "]\n"
    start = time.process_time()
    loaded = parse({"specs.yaml": text.encode()})
    assert loaded.problems
    assert time.process_time() - start < (20 if FULL else 8)


def test_a_repeated_item_is_found_in_moments_however_long_the_list() -> None:
    names = ", ".join(f"e{number}" for number in range(100_000))
    text = f"api_version: v1\nspec:\n  environments:\n    - {{name: a, promote_after: [{names}, e99999]}}\n"
    start = time.process_time()
    assert "schema/repeated" in {problem.rule for problem in parse({"specs.yaml": text.encode()}).problems}
    assert time.process_time() - start < 20
