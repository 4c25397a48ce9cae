"""Nothing that a change of the specs does goes unsaid, and no secret is said: whatever is changed."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from reconciler import effects, queries
from reconciler.diff import FieldChange
from reconciler.plan import Op
from reconciler.report import Effect, Report
from reconciler.review import Review
from reconciler.source.files import Files
from reconciler.specs import parse
from renderers import names
from renderers.catalog import Catalog, units
from renderers.served import traffic_of
from tests.conftest import examples
from tests.edited_specs import Editor

SPECS = Path(__file__).parents[2] / "examples/specs"
QUICK = settings(max_examples=examples(20), suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])

Documents: TypeAlias = dict[str, list[Any]]
Steps: TypeAlias = tuple[str | int, ...]


def catalog(texts: dict[str, bytes]) -> Catalog:
    """What is valid of it."""
    return parse(texts, queries.check).catalog


def meaning(of: Catalog) -> dict[Any, Any]:
    """What is asked for, wherever and however it is written, without descriptions."""
    found: dict[Any, Any] = {}
    for kind in ("environments", "builds", "audiences", "automations"):
        for name, placed in getattr(of, kind).items():
            found[kind, name] = placed.spec.model_dump(exclude={"description"})
    for name, placed in of.environments.items():
        found["environments", name]["namespace"] = placed.spec.namespace_name
    for unit in units(of):
        for placed in unit.variations:
            served = placed.spec.model_dump(
                exclude={"description", "environments", "environment_overrides", "traffic"}
            ) | {"traffic": sorted(map(repr, traffic_of(placed.spec, unit)))}
            found[unit.environment.spec.name, unit.model, placed.spec.name] = served
    return found


def is_of_nothing(effect: Effect) -> bool:
    """Whether a sentence tells that something goes from what it is to what it is."""
    return any(
        re.search(rf"(^|[ :]){re.escape(part)}$", before)
        for before, part in re.findall(r"(?=(?:^|; |, )([^;,]*?) -> ([^;,]*))", effect.text)
        if part
    )


@QUICK
@given(st.data())
def test_specs_that_mean_something_else_have_an_effect_and_those_that_do_not_have_none(data: st.DataObject) -> None:
    editor = Editor(data)
    before = catalog(editor.texts())
    editor.commit()
    after = catalog(editor.texts())
    assert effects.between(after, catalog(editor.texts())) == ()
    assume(after.environments)
    found = effects.between(before, after)
    assert bool(found) or meaning(before) == meaning(after)
    assert not [one.text for one in found if is_of_nothing(one)]


# -- the examples, with one field changed ----------------------------------------------------------------------------


EXAMPLES: Documents = {
    str(path.relative_to(SPECS)): list(yaml.load_all(path.read_bytes(), yaml.CSafeLoader))
    for path in sorted(SPECS.rglob("*.yaml"))
}


def text(documents: list[Any]) -> bytes:
    """A file of them."""
    return yaml.dump_all(documents, Dumper=yaml.CSafeDumper, sort_keys=False).encode()


TEXTS = {name: text(documents) for name, documents in EXAMPLES.items()}


def places(value: Any, steps: Steps = ()) -> Iterator[Steps]:
    """The way to each value that is in it."""
    if steps:
        yield steps
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(item, (*steps, key))


PLACES = [(name, *steps) for name, docs in EXAMPLES.items() for steps in places(docs) if len(steps) > 3]


def edited(place: Steps, change: str) -> dict[str, bytes]:
    """The examples where one value is another one, is gone, or stands the other way round."""
    name, *steps, last = place
    documents = copy.deepcopy(EXAMPLES[str(name)])
    holder: Any = documents
    for step in steps:
        holder = holder[step]
    value = holder[last]
    if change == "remove" or isinstance(value, dict):
        del holder[last]
    elif isinstance(value, bool):
        holder[last] = not value
    elif isinstance(value, int | float):
        holder[last] = value + 1
    elif isinstance(value, list):
        holder[last] = value[::-1]
    else:
        another = re.sub(r"[0-9](?=[^0-9]*$)", lambda digit: str((int(digit[0]) + 1) % 10), value)
        holder[last] = another if another != value else f"{value}x"
    return {**TEXTS, str(name): text(documents)}


@cache
def reviewed() -> Review:
    """Against the examples; its head goes on from test to test, which costs what differs."""
    return Review(Files(TEXTS, ()), Files(TEXTS, ()), "main", "")


def review(head: dict[str, bytes]) -> Report:
    reviewed().update(Files(head, ()))
    return reviewed().report()


def unsaid(report: Report) -> list[str]:
    """What is planned where nothing is said of the model, nor of its environment as a whole."""
    said = {(one.environment, one.model) for one in report.effects}
    found = []
    for change in report.plan.changes if report.plan is not None else ():
        labels = change.manifest.body["metadata"]["labels"] if change.manifest is not None else {}
        models = {labels[names.PART_OF]} if labels else {model for _, model in said}  # what goes has no manifest
        if change.op is not Op.UNCHANGED and not any((change.environment, one) in said for one in ("", *models)):
            found.append(f"{change.id} of {change.environment}")
    return found


@QUICK
@given(st.sampled_from(PLACES), st.sampled_from(["change", "change", "remove"]))
def test_one_field_of_the_examples_changes_and_what_is_planned_is_said(place: Steps, change: str) -> None:
    assume(place[-1] != "description")
    report = review(edited(place, change))
    assume(not any(problem.severity == "error" for problem in report.problems))
    assert unsaid(report) == []
    assert not [one.text for one in report.effects if is_of_nothing(one)]


# -- secrets -----------------------------------------------------------------------------------------------------------

PLANTED = {
    "a variable of a deployment": ("variations", "deployment", "env_vars", {"API_TOKEN": "hunter2"}),
    "a URL of a deployment": ("variations", "deployment", "env_vars", {"DB": "postgres://u:hunter2@h/db"}),
    "a variable of a build": ("builds", "env_vars", {"DB_PASSWORD": "hunter2"}),
    "a parameter of a build": ("builds", "parameters", {"api_key": "hunter2"}),
    "a variable of an environment": ("environments", "defaults", "env_vars", {"PRIVATE": "hunter2"}),
    "a URL of an environment": ("environments", "prometheus_url", "http://prometheus:9090/?key=hunter2"),
    "a webhook": (
        "automations",
        "on_success",
        {
            "custom_webhook": {
                "url": "https://h/?token=hunter2",
                "data": {"password": "hunter2"},
                "headers": {"X-Credential": "hunter2"},
            }
        },
    ),
    "the parameters of a batch": (
        "automations",
        "batch_execution",
        "execution_specifications",
        {"params": {"SECRET_KEY": "hunter2"}},
    ),
    "the variables of an automation's build": ("automations", "build_spec", "env_vars", {"A_TOKEN": "hunter2"}),
}


def with_secret(words: tuple[Any, ...]) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """The examples, where each spec of the kind that has room for it holds the secret; and with another one."""
    kind, *steps, value = words
    found = copy.deepcopy(EXAMPLES)
    for spec in (spec for docs in found.values() for doc in docs for spec in doc["spec"].get(kind, ())):
        at = spec
        for step in steps[:-1]:
            if step in at or step not in ("build_spec", "batch_execution"):
                at = at.setdefault(step, {})
        if at is not spec or len(steps) == 1:
            at[steps[-1]] = copy.deepcopy(value)  # YAML would write one value that is in two places as an alias
    planted = {name: text(documents) for name, documents in found.items()}
    return planted, {name: content.replace(b"hunter2", b"hunter3") for name, content in planted.items()}


@pytest.mark.parametrize("place", PLANTED)
def test_a_secret_that_somebody_writes_into_a_spec_is_nowhere_in_what_is_said(place: str) -> None:
    plain, planted, other = (Files(one, ()) for one in (TEXTS, *with_secret(PLANTED[place])))
    for before, after in ((plain, planted), (planted, plain), (planted, other)):
        report = Review(before, after, "main", "").report()
        assert not [problem for problem in report.problems if problem.severity == "error"]
        assert report.plan is not None
        fields: list[FieldChange] = [field for change in report.plan.changes for field in change.fields]
        assert report.effects
        assert "hunter" not in repr((report.effects, fields))
