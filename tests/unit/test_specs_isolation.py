"""One bad spec never hides another, never changes what another means, and never causes a second complaint."""

from __future__ import annotations

import pytest

from reconciler.specs import Loaded, parse
from renderers.catalog import units

ENVIRONMENTS = """\
api_version: v1
spec:
  environments:
    - name: staging
    - name: production
      promote_after: staging
    - name: lab
"""
AUDIENCES = """\
api_version: v1
spec:
  audiences:
    - name: adults
      conditions: {unary: [{key: age, operator: GREATER_OR_EQUAL, operand: "18"}]}
"""


def model(name: str) -> str:
    """A model with two variations that share the requests, of two builds."""
    return f"""\
api_version: v1
spec:
  builds:
    - {{name: {name}-1, model: {name}, git_uri: "https://example.com/models.git#{name}"}}
    - {{name: {name}-2, model: {name}, git_uri: "https://example.com/models.git#{name}"}}
  variations:
    - {{model: {name}, name: a, environments: [staging, production], build: {name}-1, traffic: [{{weight: 90}}]}}
    - {{model: {name}, name: b, environments: [staging, production], build: {name}-2, traffic: [{{weight: 10}}]}}
"""


FILES = {
    "audiences.yaml": AUDIENCES,
    "churn.yaml": model("churn"),
    "environments.yaml": ENVIRONMENTS,
    "fraud.yaml": model("fraud"),
}


def load(**changes: str) -> Loaded:
    """The files, with some replaced: `churn="..."` is churn.yaml."""
    files = FILES | {f"{name}.yaml": text for name, text in changes.items()}
    return parse({name: text.encode() for name, text in files.items()})


def rules(loaded: Loaded) -> list[str]:
    return [problem.rule for problem in loaded.problems]


def models(loaded: Loaded) -> set[str]:
    return {name for name, _ in loaded.catalog.variations}


def test_without_a_mistake_everything_is_there() -> None:
    loaded = load()
    assert loaded.problems == ()
    assert models(loaded) == {"churn", "fraud"}
    placed = loaded.catalog.variations["fraud", "b"]
    assert (placed.origin.file, placed.origin.line, placed.origin.kind, placed.origin.name) == (
        "fraud.yaml",
        8,
        "variation",
        "fraud/b",
    )


@pytest.mark.parametrize(
    ("before", "after", "rule"),
    [
        ("weight: 90", 'weight: "90"', "schema/type"),
        ("weight: 90", "weihgt: 90", "schema/unknown-field"),
        ("weight: 90", "weight: 010", "yaml/ambiguous-value"),
        ("weight: 90", "weight: 90, weight: 80", "yaml/duplicate-key"),
        ("weight: 90", "weight: 80", "traffic/weights"),
        ("churn-2, model: churn", "churn-2, model: 2024-01-01", "yaml/ambiguous-value"),
        ("build: churn-1", "build: churn-3", "reference/unknown-build"),
        ("name: churn-1, ", "name: Churn_1, ", "schema/form"),
        ("name: b, environments", "name: a, environments", "reference/duplicate-name"),
        ("[staging, production], build: churn-1", "[staging, staging], build: churn-1", "variation/environments"),
        ("  variations:", "  variation:", "schema/unknown-field"),
        ("weight: 90}]}", "weight: 90}]", "yaml/syntax"),
        ("api_version: v1", "api_version: v2", "schema/value"),
        ("spec:", "specs:", "schema/unknown-field"),
    ],
)
def test_a_mistake_is_told_once_and_costs_one_model(before: str, after: str, rule: str) -> None:
    assert before in FILES["churn.yaml"]
    loaded = load(churn=FILES["churn.yaml"].replace(before, after, 1))

    assert rules(loaded) == [rule]
    assert models(loaded) == {"fraud"}
    assert set(loaded.catalog.builds) >= {"fraud-1", "fraud-2"}
    assert set(loaded.catalog.environments) == {"staging", "production", "lab"}


def test_a_model_that_lost_a_variation_is_left_as_it_is_so_that_the_others_do_not_take_its_requests() -> None:
    broken = FILES["churn.yaml"].replace("name: b", "name: B")
    loaded = load(churn=broken.replace(", traffic: [{weight: 90}]", ""))
    assert rules(loaded) == ["schema/form"]
    assert "churn" not in models(loaded)


def test_a_variation_that_does_not_say_its_model_costs_the_models_that_it_names_otherwise() -> None:
    loaded = load(churn=FILES["churn.yaml"].replace("{model: churn, name: a", "{modle: churn, name: a"))
    assert rules(loaded) == ["schema/unknown-field"]
    assert models(loaded) == {"fraud"}


def test_an_unreadable_file_costs_what_it_mentions() -> None:
    loaded = load(more="api_version: v1\nspec: {variations: [{model: churn, name: c\n")
    assert rules(loaded) == ["yaml/syntax"]
    assert models(loaded) == {"fraud"}


def test_documents_before_a_broken_one_are_still_read() -> None:
    loaded = load(audiences=AUDIENCES + "---\napi_version: v1\nspec: [\n")
    assert rules(loaded) == ["yaml/syntax"]
    assert set(loaded.catalog.audiences) == {"adults"}
    assert models(loaded) == {"churn", "fraud"}


def test_a_broken_audience_costs_the_models_that_name_it() -> None:
    loaded = load(
        audiences=AUDIENCES.replace("operator: G", "operator: g"),
        churn=FILES["churn.yaml"].replace("{weight: 90}", "{weight: 90}, {audience: adults}"),
    )
    assert rules(loaded) == ["schema/value"]
    assert models(loaded) == {"fraud"}


def test_a_broken_environment_costs_only_what_is_promoted_after_it() -> None:
    lab = load(environments=ENVIRONMENTS.replace("- name: lab", "- name: lab\n      approval: perhaps"))
    assert rules(lab) == ["schema/value"]
    assert set(lab.catalog.environments) == {"staging", "production"}
    assert models(lab) == {"churn", "fraud"}

    production = load(environments=ENVIRONMENTS.replace("promote_after", "approval: perhaps\n      promote_after"))
    assert rules(production) == ["schema/value"]
    assert set(production.catalog.environments) == {"staging", "lab"}
    assert {v.spec.environments for v in production.catalog.variations.values()} == {("staging",)}

    staging = load(environments=ENVIRONMENTS.replace("name: staging", "name: staging\n      approval: perhaps"))
    assert rules(staging) == ["schema/value"]
    assert set(staging.catalog.environments) == {"lab"}
    assert models(staging) == set()


def test_a_build_does_not_move_to_another_environment_because_its_own_is_broken() -> None:
    def where(loaded: Loaded) -> set[str]:
        return {unit.environment.spec.name for unit in units(loaded.catalog) if "churn-1" in unit.runs_here}

    three = ENVIRONMENTS.replace("      promote_after: staging\n", "")  # production comes before staging, by name
    broken = three.replace("name: production", "name: production\n      approval: perhaps")
    assert where(load(environments=three)) == {"production"}
    assert where(load(environments=broken)) == set()
    assert models(load(environments=broken)) == {"churn", "fraud"}


def test_two_automations_of_one_name_that_deploy_to_different_variations_are_one_problem() -> None:
    text = "api_version: v1\nspec:\n  automations:\n" + "".join(
        f"    - {{name: nightly, model: churn, trigger: manual, build_spec: {{git_uri: 'https://example.com/m'}}, "
        f"deployment_spec: {{variation_name: {variation}}}}}\n"
        for variation in ("c", "d")
    )
    assert rules(load(automations=text)) == ["reference/duplicate-name"]


def test_one_name_for_automations_of_two_models_costs_both_for_each_lacks_a_variation() -> None:
    text = "api_version: v1\nspec:\n  automations:\n" + "".join(
        f"    - {{name: nightly, model: {model}, trigger: manual, build_spec: {{git_uri: 'https://example.com/m'}}, "
        f"deployment_spec: {{variation_name: c}}}}\n"
        for model in ("churn", "fraud")
    )
    loaded = load(automations=text)
    assert rules(loaded) == ["reference/duplicate-name"]
    assert models(loaded) == set()


@pytest.mark.parametrize(
    ("environments", "told"),
    [("", "reference/no-environment"), ("environments: [{name: local, approval: perhaps}]", "schema/value")],
)
def test_an_automation_without_any_environment_is_a_problem_and_no_crash(environments: str, told: str) -> None:
    text = (
        "api_version: v1\nspec:\n  automations:\n    - {name: nightly, model: churn, trigger: manual, "
        f"build_spec: {{git_uri: 'https://example.com/m'}}, deployment_spec: {{}}}}\n  {environments}\n"
    )
    assert rules(parse({"a.yaml": text.encode()})) == [told]


def test_a_broken_automation_costs_the_model_that_it_deploys() -> None:
    loaded = load(
        automations="api_version: v1\nspec:\n  automations:\n"
        "    - {name: nightly, model: churn, trigger: never, deployment_spec: {variation_name: c}}\n"
        "    - {name: weekly, model: fraud, trigger: manual, build_spec: {git_uri: 'https://example.com/m'}}\n"
    )
    assert rules(loaded) == ["schema/value"]
    assert models(loaded) == {"fraud"}
    assert set(loaded.catalog.automations) == {"weekly"}


def test_a_broken_build_that_nothing_serves_costs_itself() -> None:
    more = "    - {name: churn-3, model: churn, git_uri: nowhere}\n  variations:"
    loaded = load(churn=FILES["churn.yaml"].replace("  variations:", more))
    assert rules(loaded) == ["schema/form"]
    assert models(loaded) == {"churn", "fraud"}
    assert "churn-3" not in loaded.catalog.builds


def test_all_problems_of_all_files_are_told_at_once_in_the_order_of_the_files() -> None:
    loaded = load(
        audiences=AUDIENCES.replace('"18"', "18"),
        churn=FILES["churn.yaml"].replace("weight: 90", "weight: 190").replace("churn-1,", "churn-9,"),
        environments=ENVIRONMENTS + "    - name: lab\n",
        fraud=FILES["fraud.yaml"].replace("weight: 10", "weight: 20"),
        zebra="a: [b",
    )
    assert [(p.file, p.line, p.rule) for p in loaded.problems] == [
        ("audiences.yaml", 5, "schema/type"),
        ("churn.yaml", 7, "schema/range"),
        ("environments.yaml", 8, "reference/duplicate-name"),
        ("fraud.yaml", 8, "traffic/weights"),
        ("zebra.yaml", 1, "yaml/syntax"),
    ]


def test_no_file_is_no_spec_and_no_problem() -> None:
    assert parse({}).problems == ()
    assert parse({"a.yaml": b"# nothing yet\n"}).problems == ()
