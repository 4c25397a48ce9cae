"""The examples are documentation and fixtures at once: they must be valid, complete, and true."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, get_args

import jsonschema_rs
import pytest
from pydantic import BaseModel

from examples.make_repository import MESSAGES, make_repository
from reconciler.authors.files import formatted
from renderers.catalog import Catalog, Placed, units
from renderers.manifest import Origin
from schemas import autoscaling, base
from schemas.audience import UnaryOperator
from schemas.build import NO_EFFECT
from schemas.document import KINDS, Document
from schemas.reader import read

pytestmark = pytest.mark.timeout(600)  # whichever needs a trained model first trains all

ROOT = Path(__file__).parents[2]
SPECS = ROOT / "examples" / "specs"
FILES = sorted(SPECS.rglob("*.yaml"))
SCHEMA = ROOT / "schemas" / "document.schema.json"

#: Fields that no example of the embedded data plane can have, or should, and why.
CANNOT_APPEAR = {
    "DataPlane.context": "the cluster of a `kubernetes` data plane: the README shows one",
    "DataPlane.kubeconfig_secret": "the same, for another cluster",
    **{f"BuildSpecification.{name}": f"no effect: {because}" for name, (because, _) in NO_EFFECT.items()},
}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def parsed(path: Path) -> tuple[Document, ...]:
    reading = read(relative(path), path.read_bytes())
    assert reading.problems == []
    return tuple(Document.model_validate(document.value) for document in reading.documents)


@cache
def catalog() -> Catalog:
    specs: dict[str, dict[Any, Placed[Any]]] = {kind: {} for kind in KINDS}
    for path in FILES:
        for document in parsed(path):
            for kind in KINDS:
                for spec in getattr(document.spec, kind):
                    key = (spec.model, spec.name) if kind == "variations" else spec.name
                    assert key not in specs[kind], f"{kind}: {key} is there twice"
                    specs[kind][key] = Placed(spec, Origin(relative(path), 1, KINDS[kind][0], spec.name))
    return Catalog(**specs)


def models_in(value: Any) -> Iterator[BaseModel]:
    if isinstance(value, BaseModel):
        yield value
        for name in type(value).model_fields:
            yield from models_in(getattr(value, name))
    elif isinstance(value, tuple):
        for item in value:
            yield from models_in(item)


def every_model() -> list[BaseModel]:
    return [model for path in FILES for document in parsed(path) for model in models_in(document)]


def model_types(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        for field in annotation.model_fields.values():
            yield from model_types(field.annotation)
    else:
        for argument in get_args(annotation):
            yield from model_types(argument)


def field_id(model: type[BaseModel], field: str) -> str:
    """The class that declares the field: what a build and an automation's build share, one of them may show."""
    declaring = next(cls for cls in reversed(model.__mro__) if field in getattr(cls, "__annotations__", {}))
    return f"{declaring.__name__}.{field}"


# -- the files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_a_file_is_valid_by_json_schema_and_by_the_types(path: Path) -> None:
    validator = jsonschema_rs.validator_for(json.loads(SCHEMA.read_bytes()))
    reading = read(relative(path), path.read_bytes())

    assert reading.problems == []
    assert [error.message for document in reading.documents for error in validator.iter_errors(document.value)] == []
    assert parsed(path)


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_a_file_tells_editors_where_its_schema_is(path: Path) -> None:
    first_line = path.read_text(encoding="utf-8").splitlines()[0]
    modeline = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first_line)

    assert modeline is not None
    assert (path.parent / modeline[1]).resolve() == SCHEMA


def test_the_files_are_as_fmt_writes_them() -> None:
    """What `reconcile init` makes is held to the same in test_authors_commands.py."""
    made = formatted([SPECS])

    assert (made.count, list(made.changes), made.problems) == (len(FILES), [], ())


def test_the_environment_of_the_readme_is_valid() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "examples/README.md").read_text(encoding="utf-8"), re.DOTALL)
    reading = read("README.md", block.encode())

    assert reading.problems == []
    (document,) = reading.documents
    (environment,) = Document.model_validate(document.value).spec.environments
    assert environment.data_plane.type == "kubernetes"


def test_some_files_hold_several_kinds_and_some_several_documents() -> None:
    kinds = [{kind for document in parsed(path) for kind in document.spec.model_fields_set} for path in FILES]

    assert max(len(found) for found in kinds) > 1
    assert max(len(parsed(path)) for path in FILES) > 1


# -- every feature is shown ---------------------------------------------------------------------------------------


def test_every_field_of_the_language_is_used() -> None:
    used = {field_id(type(model), field) for model in every_model() for field in model.model_fields_set}
    language = {field_id(model, field) for model in model_types(Document) for field in model.model_fields}

    assert sorted(language - used) == sorted(CANNOT_APPEAR)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("UnaryCondition.operator", get_args(UnaryOperator)),
        ("PrometheusTrigger.metric_type", get_args(autoscaling.MetricType)),
        ("Canary.on_failure", ("rollback", "hold")),
        ("Environment.approval", ("automatic", "manual")),
        ("Automation.concurrency_policy", ("Forbid", "Allow", "Replace")),
        ("BatchData.input_file_type", ("csv", "feather", "parquet")),
        ("BuildSpecification.purchase_option", ("spot", "ondemand")),
    ],
)
def test_every_value_of_a_choice_is_used(field: str, values: tuple[str, ...]) -> None:
    model_name, name = field.split(".")
    models = [m for m in every_model() if model_name in {cls.__name__ for cls in type(m).__mro__}]

    assert {getattr(model, name) for model in models} == set(values)


def test_every_direction_of_a_comparison_is_used() -> None:
    directions = {model.direction for model in every_model() if "direction" in type(model).model_fields}  # type: ignore[attr-defined]

    assert directions == set(get_args(base.Direction))


def test_thresholds_are_numbers_and_queries() -> None:
    conditions = [a.spec.deployment_condition for a in catalog().automations.values()]
    thresholds = [c.threshold for c in conditions if c is not None and c.threshold is not None]
    static = [t for t in thresholds if base.STATIC_THRESHOLD.fullmatch(t)]

    assert static
    assert len(static) < len(thresholds)


def test_the_audience_that_everybody_starts_with_is_there() -> None:
    (condition,) = catalog().audiences["california"].spec.conditions.unary

    assert (condition.key, condition.operator, condition.operand) == (
        "location",
        "UNARY_OPERATOR_TYPE_EXACT_MATCH",
        "california",
    )


# -- the examples hang together -----------------------------------------------------------------------------------


def test_no_build_and_no_audience_is_of_no_use() -> None:
    found = list(units(catalog()))
    served = {variation.spec.build for unit in found for variation in unit.variations}

    assert catalog().builds.keys() <= served
    assert catalog().audiences.keys() == {name for unit in found for name in unit.audiences}


def test_the_shares_of_every_audience_sum_to_a_hundred_with_one_shadow_at_most() -> None:
    for unit in units(catalog()):
        shares: dict[str | None, int] = defaultdict(int)
        shadows: dict[str | None, int] = defaultdict(int)
        for variation in unit.variations:
            for share in variation.spec.traffic or ():
                (shadows if share.shadow else shares)[share.audience] += 1 if share.shadow else share.weight
        where = f"{unit.model} in {unit.environment.spec.name}"
        assert set(shares.values()) <= {100}, where
        assert shadows.keys() <= shares.keys(), where
        assert set(shadows.values()) <= {1}, where


def test_audiences_of_one_model_are_tried_in_an_order_that_is_written_down() -> None:
    for unit in units(catalog()):
        priorities = [audience.spec.priority for audience in unit.audiences.values()]
        assert len(set(priorities)) == len(priorities)


def test_what_production_serves_is_served_in_staging_too() -> None:
    served: dict[str, set[str | None]] = defaultdict(set)
    for unit in units(catalog()):
        served[unit.environment.spec.name] |= {v.spec.build or v.spec.automation for v in unit.variations}

    assert served["production"]
    assert served["production"] <= served["staging"]


# -- the models ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    destination = tmp_path_factory.mktemp("acme") / "models.git"
    return destination, make_repository(destination)


def check_out(repository: Path, commit: str, destination: Path) -> Path:
    archive = subprocess.run(["git", "archive", commit], cwd=repository, stdout=subprocess.PIPE, check=True).stdout
    destination.mkdir()
    subprocess.run(["tar", "-x"], cwd=destination, input=archive, check=True)
    return destination


def test_pinned_builds_name_commits_of_the_repository(repository: tuple[Path, list[str]]) -> None:
    _, commits = repository
    pinned = {b.spec.name: b.spec.git_commit for b in catalog().builds.values() if b.spec.git_commit}

    assert pinned == {
        "screening-1": commits[0],
        "screening-2": commits[1],
        "screening-2-sensitive": commits[1],
        "handwriting-phones": commits[2],
    }


def test_the_repository_is_the_same_for_whoever_makes_it(
    repository: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, commits = repository
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".gitconfig").write_text("[core]\n\tautocrlf = true\n[init]\n\tdefaultObjectFormat = sha256\n")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setenv("GIT_AUTHOR_NAME", "Somebody Else")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))

    assert make_repository(tmp_path / "models.git") == commits
    assert len(commits) == len(MESSAGES)
    assert not (tmp_path / "elsewhere").exists()


def test_a_repository_is_never_made_over_something_else(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")

    with pytest.raises(FileExistsError, match="is not empty"):
        make_repository(tmp_path)


TESTS = 'import pytest, sys; sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "tests"]))'
BUILD_AND_PREDICT = """
import json, main, pandas
(name,) = main.__all__
model = getattr(main, name)()
model.build()
model.initialize_model()
fields = model.schema()
answer = model.predict(pandas.DataFrame([{f["name"]: f["example"] for f in fields["inputs"]}]))
assert list(answer.columns) == [f["name"] for f in fields["outputs"]]
print(json.dumps(model.metrics))
"""
#: Runs code in folders, each in a process of its own that has imported already what all of them need for seconds.
#: As in a build, the model's folder is the working directory, and the repository can be imported from.
RUN_EACH = """
import json, os, sys
import pandas, pytest
import sklearn.datasets, sklearn.linear_model, sklearn.model_selection, sklearn.preprocessing, sklearn.svm

jobs = json.load(sys.stdin)
for folder, code, output in jobs:
    if os.fork() == 0:
        os.chdir(folder)
        sys.path[:0] = [folder, os.path.dirname(folder)]
        file = os.open(output, os.O_WRONLY | os.O_CREAT)
        os.dup2(file, 1), os.dup2(file, 2)
        exec(code)
        sys.exit()
    os.wait()
"""


class Trained(NamedTuple):
    """What a model's code printed at a commit, counted from the oldest: its tests, and what it measures."""

    tests: dict[tuple[str, int], str]
    metrics: dict[tuple[str, int], dict[str, float]]


@pytest.fixture(scope="module")
def trained(repository: tuple[Path, list[str]], tmp_path_factory: pytest.TempPathFactory) -> Trained:
    bare, commits = repository
    folder = tmp_path_factory.mktemp("checkouts")
    checkouts = [check_out(bare, commit, folder / str(number)) for number, commit in enumerate(commits)]
    newest = [(model, 2) for model in ("screening", "progression", "handwriting")]
    measured = [*newest, ("screening", 0), ("screening", 1), ("progression", 1)]
    wanted = [(*one, TESTS) for one in newest] + [(*one, BUILD_AND_PREDICT) for one in measured]
    jobs = [
        (str(checkouts[number] / model), code, str(folder / f"output-{at}"))
        for at, (model, number, code) in enumerate(wanted)
    ]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", RUN_EACH], input=json.dumps(jobs), env=environment, text=True, check=True)
    outputs = [Path(output).read_text() for _, _, output in jobs]
    told = iter(outputs)
    tests = {one: next(told) for one in newest}
    return Trained(tests, {one: json.loads(next(told)) for one in measured})


@pytest.mark.parametrize("model", ["screening", "progression", "handwriting"])
def test_a_model_passes_the_tests_that_its_build_runs(model: str, trained: Trained) -> None:
    assert re.fullmatch(r"(?s)\.+ +\[100%\]\n\d+ passed in .*", trained.tests[model, 2]), trained.tests[model, 2]


@pytest.mark.parametrize(("model", "metric", "better"), [("screening", "roc_auc", 1), ("progression", "r2", 2)])
def test_the_newer_commit_of_a_model_is_the_better_one(model: str, metric: str, better: int, trained: Trained) -> None:
    assert trained.metrics[model, better - 1][metric] < trained.metrics[model, better][metric]


@pytest.mark.parametrize("automation", ["screening-calibration", "handwriting-on-commit"])
def test_a_static_gate_lets_the_newest_commit_pass(automation: str, trained: Trained) -> None:
    spec = catalog().automations[automation].spec
    condition = spec.deployment_condition
    assert condition is not None
    assert condition.threshold is not None

    measured, threshold = trained.metrics[spec.model, 2][condition.metric_name], float(condition.threshold)
    assert measured < threshold if condition.direction == "BELOW" else measured > threshold


def test_every_gate_asks_for_a_metric_that_the_model_measures(trained: Trained) -> None:
    for automation in catalog().automations.values():
        if (condition := automation.spec.deployment_condition) is not None:
            assert condition.metric_name in trained.metrics[automation.spec.model, 2], automation.spec.name
