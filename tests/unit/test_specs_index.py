"""An index follows its files: after any change it is what reading all files from scratch would make of them."""

from __future__ import annotations

import json
from typing import Any, TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler import desired, queries, specs
from reconciler.desired import Rendered
from reconciler.inventory import CONTENT_HASH
from reconciler.specs import Loaded
from reconciler.specs.index import Changed, Index, of_models
from renderers.catalog import BuildId, Catalog, Facts, Recorded, promotion_order, units
from tests.conftest import examples
from tests.edited_specs import MODELS, Editor

Files: TypeAlias = dict[str, bytes]


class Repository:
    """Files, and an index that is told of each change, as the daemon tells it."""

    def __init__(self, files: Files) -> None:
        self.files = dict(files)
        self.asked: list[str] = []
        self.index = Index(self._content, queries.check)
        self.index.replace(files)
        self.asked.clear()

    def _content(self, file: str) -> bytes:
        self.asked.append(file)
        return self.files[file]

    def becomes(self, files: Files) -> Changed:
        """The next revision has these files."""
        names = self.files.keys() | files.keys()
        changed = {name: files.get(name) for name in names if self.files.get(name) != files.get(name)}
        kept = {name: text for name, text in files.items() if name not in changed}
        # What changes is not to be asked for: whose revision would it be of?
        self.files = kept
        told = self.index.update(changed)
        self.files = dict(files)
        return told

    def edit(self, **texts: str | None) -> Changed:
        """Some files have other texts: `churn="..."` is churn.yaml. None removes one."""
        files = self.files | {f"{name}.yaml": text.encode() for name, text in texts.items() if text is not None}
        return self.becomes(
            {name: files[name] for name in files if texts.get(name.removesuffix(".yaml"), "") is not None}
        )


Units: TypeAlias = dict[tuple[str, str], Rendered]


def rendered(catalog: Catalog) -> Units:
    return {(unit.environment, unit.model): unit for unit in desired.build(catalog, Facts())}


def objects(unit: Rendered | None) -> Any:
    """What a unit comes to in a cluster."""
    if unit is None:
        return None
    if unit.problem:
        return unit.problem.rule
    return {manifest.id: manifest.body["metadata"]["annotations"][CONTENT_HASH] for manifest in unit.manifests}


@settings(max_examples=examples(50), suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data())
def test_after_any_edits_an_index_is_what_all_files_read_from_scratch_are(data: st.DataObject) -> None:
    editor = Editor(data)
    repository = Repository(editor.texts())
    index, before = repository.index, rendered(repository.index.catalog)
    for _ in range(6):
        editor.commit()
        files = editor.texts()
        told = repository.becomes(files)

        whole = specs.parse(files, queries.check)
        assert Loaded(index.catalog, index.problems) == whole
        assert [list(kind) for kind in kinds(index.catalog)] == [list(kind) for kind in kinds(whole.catalog)]

        after = rendered(index.catalog)
        models = frozenset(("", *MODELS)) if told.models is None else told.models
        for key in before.keys() | after.keys():
            if key[1] not in models:
                assert objects(before.get(key)) == objects(after.get(key)), f"{key} is not among {told}"
            if key[1] not in models | told.moved:
                assert before.get(key) == after.get(key), f"{key} is not among {told}"

        for name in MODELS:
            assert rendered(index.part({name})) == {key: unit for key, unit in after.items() if key[1] in ("", name)}
        before = after

    repository.becomes({})
    assert (index.catalog, index.problems) == (Catalog(), ())
    names = index._names
    kept = (index._files, index._verdicts, index._askers, names.claims, names._members, names._doubts, names._like)
    assert not any(kept), "what is gone is not forgotten"


def kinds(catalog: Catalog) -> list[Any]:
    return [catalog.environments, catalog.builds, catalog.variations, catalog.audiences, catalog.automations]


# -- what a change costs ---------------------------------------------------------------------------------------------

HEAD = "api_version: v1\nspec:\n"
ENVIRONMENTS = HEAD + "  environments: [{name: dev}, {name: live, promote_after: dev}]\n"
AUDIENCES = HEAD + "  audiences:\n    - {name: adults}\n    - {name: minors, priority: 7}\n"


def model(name: str, traffic: str = "{weight: 100}", more: str = "") -> str:
    served = f"model: {name}, environments: [dev, live], build: {name}-1, traffic: [{traffic}]{more}"
    return (
        f"{HEAD}  builds:\n    - {{name: {name}-1, model: {name}, git_uri: 'https://example.com/m.git'}}\n"
        f"  variations:\n    - {{{served}}}\n"
    )


AUTOMATION = """\
  automations:
    - name: {name}
      model: {model}
      trigger: manual
      build_spec: {{git_uri: "https://example.com/m.git"}}
      deployment_spec: {{variation_name: {variation}, environments: [dev]}}
"""


@pytest.fixture
def repository() -> Repository:
    files = {
        "audiences": AUDIENCES,
        "churn": model("churn", "{weight: 100}, {weight: 100, audience: adults}"),
        "environments": ENVIRONMENTS,
        "fraud": model("fraud"),
        "ranking": model("ranking", "{weight: 100}, {weight: 100, audience: minors}"),
    }
    made = Repository({f"{name}.yaml": text.encode() for name, text in files.items()})
    assert made.index.problems == ()
    return made


def rules(repository: Repository) -> list[str]:
    return [problem.rule for problem in repository.index.problems]


def test_a_changed_spec_is_about_its_model(repository: Repository) -> None:
    told = repository.edit(fraud=model("fraud", more=", deployment: {memory: 3Gi}"))
    assert told == Changed(frozenset({"fraud"}))


def test_a_changed_audience_is_about_the_models_that_name_it(repository: Repository) -> None:
    told = repository.edit(audiences=AUDIENCES.replace("priority: 7", "priority: 8"))
    assert told == Changed(frozenset({"ranking"}))


def test_a_changed_environment_is_about_everything(repository: Repository) -> None:
    assert repository.edit(environments=ENVIRONMENTS.replace("dev}", "dev, suspended: true}")) == Changed(None)


def test_a_spec_that_moves_to_another_model_is_about_both(repository: Repository) -> None:
    spare = "    - {name: spare, model: fraud, git_uri: 'https://example.com/m.git'}\n"
    assert repository.edit(spare=HEAD + "  builds:\n" + spare) == Changed(frozenset({"fraud"}))
    told = repository.edit(spare=HEAD + "  builds:\n" + spare.replace("fraud", "churn"))
    assert told == Changed(frozenset({"fraud", "churn"}))


def test_another_text_for_the_same_specs_only_moves_a_model(repository: Repository) -> None:
    assert repository.edit(fraud="# who, and why\n" + model("fraud")) == Changed(frozenset(), frozenset({"fraud"}))
    assert repository.index.catalog.builds["fraud-1"].origin.line == 5

    assert repository.edit(fraud=None, zebra=model("fraud")) == Changed(frozenset(), frozenset({"fraud"}))
    assert repository.index.catalog.builds["fraud-1"].origin.file == "zebra.yaml"

    assert repository.edit(audiences="# all of them\n" + AUDIENCES) == Changed(frozenset())
    assert repository.edit(environments="# all of them\n" + ENVIRONMENTS) == Changed(frozenset(), frozenset({""}))


def test_to_override_with_a_default_is_not_the_same_as_not_to_override(repository: Repository) -> None:
    override = ", deployment: {memory: 4Gi, number_of_pods: 4}, environment_overrides: {live: {deployment: {%s}}}"
    repository.edit(fraud=model("fraud", more=override % "memory: 2Gi"))
    before = rendered(repository.index.catalog)
    assert repository.edit(fraud=model("fraud", more=override % "number_of_pods: 2")) == Changed(frozenset({"fraud"}))
    assert objects(before["live", "fraud"]) != objects(rendered(repository.index.catalog)["live", "fraud"])


def judged(repository: Repository) -> list[set[str]]:
    """An index that says, from now on, which groups it looks at: the names of what is valid of each."""
    seen: list[set[str]] = []
    repository.index = Index(repository._content, lambda group, _: seen.append({key[2] for key in group.found}))
    repository.index.replace(repository.files)
    seen.clear()
    return seen


@pytest.mark.parametrize(
    "trouble",
    [
        "",
        HEAD + "  variations: [{model: churn, name: c\n",
        HEAD + "  audiences: [{name: adults}]\n",
        HEAD + "  builds: [{name: odd, model: churn, git_uri: 'https://example.com/m.git', environment: elsewhere}]\n",
        HEAD + "  environments: [{name: lab, approval: perhaps}]\n",
    ],
    ids=["none", "unreadable", "duplicate", "dangling", "broken environment"],
)
def test_a_change_costs_one_model_whatever_else_is_wrong(repository: Repository, trouble: str) -> None:
    repository.edit(trouble=trouble)
    seen = judged(repository)
    repository.asked.clear()

    assert repository.edit(fraud=model("fraud", more=", deployment: {memory: 3Gi}")) == Changed(frozenset({"fraud"}))

    assert seen == [{"fraud-1", "default"}]
    assert repository.asked == []


def test_a_file_that_breaks_costs_what_it_is_about(repository: Repository) -> None:
    seen = judged(repository)
    assert repository.edit(fraud=model("fraud").replace("[{weight", "[weight")) == Changed(frozenset({"fraud"}))
    assert seen == [set()]
    assert {name for name, _ in repository.index.catalog.variations} == {"churn", "ranking"}


def test_a_line_that_a_problem_names_elsewhere_follows(repository: Repository) -> None:
    more = HEAD + "  audiences:\n    - {name: adults}\n"
    repository.edit(more=more)
    repository.edit(audiences="# all of them\n" + AUDIENCES)
    message = repository.index.problems[0].message
    assert message == 'The audience "adults" is defined twice; the first one is at audiences.yaml:5.'


def test_a_line_of_an_audience_is_that_of_a_problem_with_it(repository: Repository) -> None:
    both = "{weight: 100}, {weight: 100, audience: adults}, {weight: 100, audience: minors}"
    text = AUDIENCES.replace(", priority: 7", "")
    repository.edit(audiences=text, fraud=model("fraud", both))
    assert [(problem.rule, problem.line) for problem in repository.index.problems] == [("traffic/audience-order", 5)]

    repository.edit(audiences=f"# all of them\n{text}")
    problem = repository.index.problems[0]
    assert problem.line == 6
    assert 'both "adults" (audiences.yaml:5) and "minors"' in problem.message


def test_a_name_that_comes_is_a_hint_for_whoever_misspelt_it(repository: Repository) -> None:
    many = "".join(f"    - {{name: crowd-{number}}}\n" for number in range(100))
    repository.edit(
        crowd=HEAD + "  audiences:\n" + many,
        fraud=model("fraud", "{weight: 100}, {weight: 100, audience: retired-poeple}"),
    )
    hint = "write an audience that exists, or define this one"
    assert [problem.hint for problem in repository.index.problems] == [hint]

    repository.edit(retired=HEAD + "  audiences: [{name: retired-people}]\n")
    assert [problem.hint for problem in repository.index.problems] == ["write retired-people"]

    repository.edit(retired=None, retirement=HEAD + "  audiences: [{name: retired_poeple}]\n")
    assert [problem.hint for problem in repository.index.problems] == ["write retired_poeple"]

    repository.edit(retirement=None)
    assert [problem.hint for problem in repository.index.problems] == [hint]


def test_only_files_that_did_not_change_are_asked_for_again(repository: Repository) -> None:
    repository.edit(
        environments=ENVIRONMENTS.replace("live", "prod"), fraud=model("fraud").replace("[dev, live]", "[dev]")
    )
    assert rules(repository) == ["reference/unknown-environment"] * 2
    assert sorted(set(repository.asked)) == ["churn.yaml", "ranking.yaml"]


def test_when_a_file_cannot_be_had_again_nothing_has_happened(repository: Repository) -> None:
    index, files = repository.index, dict(repository.files)
    before = (index.catalog, index.problems)
    repository.files = {}
    changes: dict[str, bytes | None] = {"environments.yaml": ENVIRONMENTS.replace("live", "prod").encode()}
    changes["fraud.yaml"] = None
    with pytest.raises(KeyError, match=r"churn\.yaml|ranking\.yaml"):
        index.update(changes)
    assert (index.catalog, index.problems) == before

    repository.files = files
    assert repository.edit(fraud=model("fraud", more=", deployment: {memory: 3Gi}")) == Changed(frozenset({"fraud"}))
    whole = specs.parse(repository.files, queries.check)
    assert (index.catalog, index.problems) == (whole.catalog, whole.problems)


def test_who_holds_a_catalog_holds_one_revision(repository: Repository) -> None:
    held = repository.index.catalog
    repository.edit(fraud=None, churn=model("churn").replace("churn-1", "churn-2"))
    assert "fraud-1" in held.builds
    assert held.variations["churn", "default"].spec.build == "churn-1"


def test_a_replaced_index_knows_nothing_of_what_was_before(repository: Repository) -> None:
    repository.edit(broken=HEAD + "  variations: [{model: ranking, name: c\n")
    files = {"environments.yaml": ENVIRONMENTS.encode(), "ranking.yaml": model("ranking").encode()}
    assert repository.index.replace(files) == Changed(None)
    assert repository.index.problems == ()
    assert set(repository.index.catalog.variations) == {("ranking", "default")}
    assert repository.index.catalog.audiences == {}


def test_the_part_of_a_model_has_what_it_names_and_all_environments(repository: Repository) -> None:
    text = model("fraud") + AUTOMATION.format(name="nightly", model="fraud", variation="fresh")
    repository.edit(fraud=text.replace("{weight: 100}", "{weight: 100}, {weight: 100, audience: minors}"))
    part = repository.index.part({"fraud", "nobody"})
    assert [list(kind) for kind in kinds(part)] == [
        ["dev", "live"],
        ["fraud-1"],
        [("fraud", "default")],
        ["minors"],
        ["nightly"],
    ]


def test_facts_about_some_models_make_units_of_no_others(repository: Repository) -> None:
    catalog = repository.index.catalog
    home = catalog.environments["dev"].spec
    runs = {
        ("dev", name): (Recorded(catalog.builds[f"{name}-1"], BuildId("0" * 64, None, provisional=False), home),)
        for name in ("churn", "fraud")
    }
    facts = of_models(Facts(runs=runs), {"fraud"})
    names = {(unit.environment.spec.name, unit.model) for unit in units(repository.index.part({"fraud"}), facts)}
    assert names == {("dev", ""), ("live", ""), ("dev", "fraud"), ("live", "fraud")}


# -- what a group is judged with ---------------------------------------------------------------------------------------


@settings(max_examples=examples(50))
@given(st.data())
def test_environments_follow_each_other_among_some_as_they_do_among_all(data: st.DataObject) -> None:
    names = [f"e{number}" for number in data.draw(st.permutations(range(7)))]
    environments: list[str] = []
    after: st.SearchStrategy[list[str]] = st.just([])
    for name in names:
        environments.append(f"{{name: {name}, promote_after: {json.dumps(data.draw(after))}}}")
        after = st.lists(st.sampled_from(names[: len(environments)]), unique=True, max_size=2)
    named = data.draw(st.lists(st.sampled_from(names), unique=True, min_size=1))
    text = f"{HEAD}  environments: [{', '.join(environments)}]\n"
    text += model("churn").removeprefix(HEAD).replace("dev, live", ", ".join(named))
    orders: list[list[str]] = []
    loaded = specs.parse({"a.yaml": text.encode()}, lambda group, _: orders.append(promotion_order(group.catalog())))

    whole, some = promotion_order(loaded.catalog), orders[-1]
    assert some == [name for name in whole if name in some]
    assert {whole[0], *named} <= set(some)


def test_a_build_that_nobody_serves_runs_in_the_first_environment_of_all() -> None:
    cloud = "data_plane: kubernetes, object_storage: s3://acme/models"
    text = f"{HEAD}  environments: [{{name: cloud, {cloud}}}, {{name: local}}]\n"
    build = f"{HEAD}  builds: [{{name: churn-1, model: churn, git_uri: 'file:///models'}}]\n"
    loaded = specs.parse({"a.yaml": text.encode(), "b.yaml": build.encode()})
    assert [problem.rule for problem in loaded.problems] == ["build/local-repository"]
