"""Random repositories of specs, and somebody who edits them: most of it is right, and anything may break."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from hypothesis import strategies as st

Files: TypeAlias = dict[str, bytes]

# -- repositories that people might have ---------------------------------------------------------------------------

ENVIRONMENTS = ("dev", "staging", "production")
#: The last two differ only in what people get wrong in names.
MODELS = ("churn", "fraud", "up-sell", "up.sell")
BUILDS = ("build-1", "build-2", "build-3", "build-4")
AUDIENCES = ("adults", "minors", "vips")
AUTOMATIONS = ("nightly", "weekly", "hourly")
VARIATIONS = ("default", "blue", "green")

Spec: TypeAlias = tuple[str, dict[str, Any]]  #: its kind, and what is written


@dataclass
class File:
    """A file as people edit it."""

    specs: list[Spec] = field(default_factory=list)
    comments: int = 0  #: lines above the specs
    documents: bool = False  #: each spec in a document of its own
    tail: str = ""  #: what comes after them

    def text(self) -> bytes:
        """What is in it."""
        head = "# a line above\n" * self.comments
        body = [
            f"api_version: v1\nspec:\n  {kind}:\n" + "".join(f"    - {json.dumps(spec)}\n" for spec in group)
            for kind, group in self._grouped()
        ]
        return (head + "---\n".join(body) + self.tail).encode()

    def _grouped(self) -> list[tuple[str, list[dict[str, Any]]]]:
        if self.documents:
            return [(kind, [spec]) for kind, spec in self.specs]
        kinds = dict.fromkeys(kind for kind, _ in self.specs)
        return [(kind, [spec for of, spec in self.specs if of == kind]) for kind in kinds]


Repository: TypeAlias = dict[str, File]


def healthy() -> Repository:
    """Four models; two share an audience, one has only what its automation deploys."""
    git = {"git_uri": "https://example.com/models.git"}
    adults = {"unary": [{"key": "age", "operator": "GREATER_OR_EQUAL", "operand": "18"}]}
    minors = {"unary": [{"key": "age", "operator": "LESS_THAN", "operand": "18"}]}

    def variation(model: str, name: str, build: str, *traffic: dict[str, Any]) -> Spec:
        places = ["dev", "staging"]
        return "variations", {
            "model": model,
            "name": name,
            "environments": places,
            "build": build,
            "traffic": list(traffic),
        }

    return {
        "environments.yaml": File(
            [
                ("environments", {"name": "dev"}),
                ("environments", {"name": "staging", "promote_after": ["dev"]}),
                ("environments", {"name": "production", "promote_after": ["staging"]}),
            ]
        ),
        "audiences.yaml": File(
            [
                ("audiences", {"name": "adults", "priority": 10, "conditions": adults}),
                ("audiences", {"name": "minors", "priority": 10, "conditions": minors}),
            ]
        ),
        "churn.yaml": File(
            [
                ("builds", {"name": "build-1", "model": "churn", **git}),
                ("builds", {"name": "build-2", "model": "churn", **git}),
                variation("churn", "default", "build-1", {"weight": 70}),
                variation("churn", "blue", "build-2", {"weight": 30}, {"weight": 100, "audience": "adults"}),
            ]
        ),
        "fraud.yaml": File(
            [
                ("builds", {"name": "build-3", "model": "fraud", **git}),
                variation("fraud", "default", "build-3", {"weight": 100}, {"weight": 100, "audience": "adults"}),
            ]
        ),
        "up-sell.yaml": File(
            [
                ("builds", {"name": "build-4", "model": "up-sell", **git}),
                variation("up-sell", "default", "build-4", {"weight": 100}),
            ]
        ),
        "automations.yaml": File(
            [
                (
                    "automations",
                    {
                        "name": "nightly",
                        "model": "up.sell",
                        "trigger": "manual",
                        "build_spec": git,
                        "deployment_condition": {"metric_name": "f1", "threshold": "0.65"},
                        "deployment_spec": {"variation_name": "default"},
                    },
                )
            ]
        ),
    }


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A mapping with any of the fields."""
    return st.fixed_dictionaries({}, optional=fields)


def subset(names: tuple[str, ...], least: int = 0) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(names), unique=True, min_size=least, max_size=len(names))


def one_of_ten(rare: st.SearchStrategy[Any], common: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.integers(0, 9).flatmap(lambda number: common if number else rare)


variables = some(LEVEL=st.sampled_from(["a", "b"]), TOKEN=st.just("in the open"))
deployments = some(
    memory=st.sampled_from(["1Gi", "2Gi"]),
    number_of_http_server_workers=st.sampled_from([2, 3]),
    http_request_timeout_ms=st.just(5000),
    env_vars=variables,
)
sources = st.sampled_from(["https://example.com/models.git", "https://example.com/models.git#churn", "file:///models"])
questions = st.sampled_from(
    ["0.65", "select avg(value) from build_metrics", "select value from nowhere", "select 1, 2", "65%"]
)
shares = st.lists(
    st.fixed_dictionaries(
        {"weight": st.sampled_from([30, 70, 100, 100, 100])},
        optional={"audience": one_of_ten(st.just("adlts"), st.sampled_from(AUDIENCES)), "shadow": st.booleans()},
    ),
    max_size=3,
)
conditions = st.sampled_from(
    [
        {},
        {"unary": [{"key": "age", "operator": "GREATER_OR_EQUAL", "operand": "18"}]},
        {"unary": [{"key": "age", "operator": "LESS_THAN", "operand": "18"}]},
        {
            "unary": [
                {"key": "age", "operator": "LESS_THAN", "operand": "18"},
                {"key": "age", "operator": "GREATER_THAN", "operand": "20"},
            ]
        },
        {"unary": [{"key": "age", "operator": "LESS_THAN", "operand": 18}]},
    ]
)
fields_of: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "environments": some(
        name=st.sampled_from(ENVIRONMENTS),
        promote_after=st.one_of(subset(ENVIRONMENTS), st.just(["stagng"])),
        namespace=st.sampled_from(["shared", "own", "dev"]),
        approval=st.sampled_from(["manual", "automatic", "perhaps"]),
        defaults=st.fixed_dictionaries({"env_vars": variables}),
        analytics=st.just({"engine": "sqlalchemy", "url_secret": "warehouse"}),
        data_plane=st.just("kubernetes"),
        object_storage=st.just("s3://acme-models/here"),
    ),
    "audiences": some(
        name=st.sampled_from(AUDIENCES),
        priority=st.sampled_from([10, 20]),
        description=st.sampled_from(["who", "what"]),
        conditions=conditions,
    ),
    "builds": some(
        name=st.sampled_from((*BUILDS, "Build_1")),
        model=st.sampled_from(MODELS),
        git_uri=sources,
        environment=st.sampled_from(ENVIRONMENTS),
        env_vars=variables,
        parameters=some(depth=st.sampled_from(["1", "2"])),
    ),
    "variations": some(
        model=st.sampled_from(MODELS),
        name=st.sampled_from(VARIATIONS),
        environments=one_of_ten(st.just(["dev", "prod"]), subset(ENVIRONMENTS, 1)),
        build=one_of_ten(st.just("bild-1"), st.sampled_from(BUILDS)),
        automation=st.sampled_from(AUTOMATIONS),
        deployment=deployments,
        traffic=shares,
        environment_overrides=st.dictionaries(
            st.sampled_from(("dev", "staging")),
            some(build=st.sampled_from(BUILDS), deployment=deployments, traffic=shares),
            max_size=2,
        ),
    ),
    "automations": some(
        name=st.sampled_from(AUTOMATIONS),
        model=st.sampled_from(MODELS),
        environment=st.sampled_from(ENVIRONMENTS),
        trigger=st.one_of(
            st.just("manual"),
            st.fixed_dictionaries({"metric": st.fixed_dictionaries({"sql_query": questions, "threshold": questions})}),
        ),
        build_spec=st.fixed_dictionaries({"git_uri": sources}),
        batch_execution=st.fixed_dictionaries(
            {"data_specifications": st.just({"source_bucket": "abc", "destination_bucket": "abc"})},
            optional={"variation": st.sampled_from(VARIATIONS)},
        ),
        deployment_condition=st.one_of(
            st.fixed_dictionaries({"metric_name": st.just("f1"), "threshold": questions}),
            st.fixed_dictionaries({"metric_name": st.just("f1"), "variation": st.sampled_from(VARIATIONS)}),
        ),
        deployment_spec=some(
            variation_name=st.sampled_from(VARIATIONS),
            environments=subset((*ENVIRONMENTS, "prod")),
            memory=st.just("1Gi"),
        ),
    ),
}
#: What a new spec has if nothing else is written in it.
least: dict[str, dict[str, Any]] = {
    "environments": {"name": "dev"},
    "audiences": {"name": "vips"},
    "builds": {"name": "build-1", "model": "churn", "git_uri": "https://example.com/models.git"},
    "variations": {"model": "churn", "name": "green", "environments": ["dev"], "build": "build-1"},
    "automations": {
        "name": "weekly",
        "model": "fraud",
        "trigger": "manual",
        "build_spec": {"git_uri": "https://example.com/models.git"},
    },
}
#: What ends a file early, or makes something else of it.
tails = st.sampled_from(
    [
        "",
        "---\napi_version: v1\nspec: {variations: [{model: churn, name: c\n",
        "---\napi_version: v1\nspec: {environments: [{name: production\n",
        "---\napi_version: v2\nspec: {builds: [{name: build-2, model: fraud}]}\n",
        "---\napi_version: v1\nspec: {audience: [{name: vips}, {name: adlts}]}\n",
        "---\nup_sell: [staging\n",
    ]
)


class Editor:
    """Somebody who edits a repository, at random."""

    def __init__(self, data: st.DataObject) -> None:
        self._data = data
        self.files: Repository = healthy()

    def texts(self) -> dict[str, bytes]:
        """Name -> content."""
        return {name: file.text() for name, file in self.files.items()}

    def commit(self) -> None:
        """Makes one to three edits."""
        for _ in range(self._draw(st.integers(1, 3))):
            edits = [self.change, self.change, self.change, self.add, self.add, self.move, self.copy, self.delete]
            edits += [self.rename, self.swap, self.shift, self.cut, self.remove, self.restore]
            self._draw(st.sampled_from(edits))()

    def change(self) -> None:
        if spec := self._spec():
            file, index = spec
            kind, fields = self.files[file].specs[index]
            changed = fields | self._draw(fields_of[kind])
            if kind == "variations" and "automation" in changed:
                changed.pop(self._draw(st.sampled_from(["build", "automation"])), None)
            if changed and not self._draw(st.integers(0, 9)):
                del changed[self._draw(st.sampled_from(sorted(changed)))]
            self.files[file].specs[index] = (kind, changed)

    def add(self) -> None:
        kind = self._draw(st.sampled_from(sorted(least)))
        self._file().specs.append((kind, least[kind] | self._draw(fields_of[kind])))

    def move(self) -> None:
        if spec := self._spec():
            file, index = spec
            self._file().specs.append(self.files[file].specs.pop(index))

    def copy(self) -> None:
        if spec := self._spec():
            file, index = spec
            self._file().specs.append(self.files[file].specs[index])

    def delete(self) -> None:
        if spec := self._spec():
            file, index = spec
            del self.files[file].specs[index]

    def rename(self) -> None:
        self.files[f"{self._draw(st.sampled_from('amz'))}.yaml"] = self.files.pop(self._name())

    def swap(self) -> None:
        one, other = self._name(), self._name()
        self.files[one], self.files[other] = self.files[other], self.files[one]

    def shift(self) -> None:
        file = self._file()
        file.comments, file.documents = self._draw(st.integers(0, 2)), self._draw(st.booleans())

    def cut(self) -> None:
        self._file().tail = self._draw(tails)

    def remove(self) -> None:
        if len(self.files) > 1:
            del self.files[self._name()]

    def restore(self) -> None:
        mended = healthy()
        name = self._draw(st.sampled_from(sorted(mended)))
        self.files[name] = mended[name]

    def _name(self) -> str:
        name: str = self._draw(st.sampled_from(sorted(self.files)))
        return name

    def _file(self) -> File:
        return self.files[self._name()]

    def _spec(self) -> tuple[str, int] | None:
        name = self._name()
        count = len(self.files[name].specs)
        return (name, self._draw(st.integers(0, count - 1))) if count else None

    def _draw(self, strategy: st.SearchStrategy[Any]) -> Any:
        return self._data.draw(strategy)
