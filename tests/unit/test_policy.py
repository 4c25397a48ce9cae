"""Rules of an organisation, held against specs and plans."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from reconciler import offline, policy, queries
from reconciler.plan import Op
from reconciler.review import Review
from reconciler.source.files import Files
from reconciler.specs import Loaded, parse
from schemas.problem import Problem

SPECS = {
    "specs/environments.yaml": "api_version: v1\nspec:\n  environments:\n  - name: staging\n  - name: production\n",
    "specs/churn.yaml": """\
api_version: v1
spec:
  builds:
  - {name: churn-1, model: churn, git_uri: "https://git.example.com/models#churn", tags: [nightly]}
  variations:
  - model: churn
    environments: [staging, production]
    build: churn-1
    deployment:
      memory: 1Gi
      number_of_pods: 1
    environment_overrides:
      production:
        deployment: {number_of_pods: 3}
""",
    "specs/fraud.yaml": """\
api_version: v1
spec:
  builds:
  - {name: fraud-1, model: fraud, git_uri: "https://git.example.com/models#fraud"}
  variations:
  - {model: fraud, environments: [staging, production], build: fraud-1, deployment: {number_of_pods: 1}}
""",
}
TWO_PODS = """\
- name: two-pods
  kind: variation
  when: environment.name == "production"
  require: spec.deployment.number_of_pods >= 2
  message: Production needs at least two pods
  hint: number_of_pods, 2 or more
  at: deployment.number_of_pods
"""
NO_DELETION = """\
- name: no-deletion
  kind: change
  require: change.op != "delete" || "deletion" in approvals
  message: Nothing is deleted without approval
"""


def rules(*texts: str, approvals: Sequence[str] = (), head: str = "api_version: v1\npolicies:\n") -> policy.Policy:
    return policy.read("policy.yaml", (head + "".join(texts)).encode(), approvals)


def loaded(asked: policy.Policy) -> Loaded:
    return parse({name: text.encode() for name, text in SPECS.items()}, queries.check, asked.check)


def told(problems: Sequence[Problem]) -> list[str]:
    return [f"{problem} [{problem.rule}]" for problem in problems]


def test_a_variation_is_asked_about_as_it_is_in_each_environment() -> None:
    assert told(loaded(rules(TWO_PODS)).problems) == [
        (
            "specs/fraud.yaml:6:102: Production needs at least two pods (production). Number_of_pods, 2 or more. "
            "[policy/two-pods]"
        )
    ]


def test_what_breaks_a_rule_is_not_applied_and_the_model_stays_as_it_is() -> None:
    found = loaded(rules(TWO_PODS))
    assert {name for name, _ in found.catalog.variations} == {"churn"}
    assert set(found.catalog.builds) == {"churn-1"}


def test_a_warning_is_told_and_keeps_nothing_from_being_applied() -> None:
    found = loaded(rules(TWO_PODS, "  severity: warning\n"))
    assert [problem.severity for problem in found.problems] == ["warning"]
    assert ("fraud", "default") in found.catalog.variations


@pytest.mark.parametrize(
    ("kind", "require", "broken"),
    [
        ("build", 'spec.tags.exists(tag, tag == "nightly")', ["specs/fraud.yaml"]),
        ("build", 'spec.git_uri.startsWith("https://git.example.com/")', []),
        ("environment", "spec.quota.pods <= 100", ["specs/environments.yaml", "specs/environments.yaml"]),
        ("variation", 'spec.environments.all(name, name != "production")', ["specs/churn.yaml", "specs/fraud.yaml"]),
        ("variation", "environment.approval == 'manual' || !has(spec.deployment.gpu_resources)", []),
        ("audience", "false", []),
        ("automation", "false", []),
    ],
)
def test_rules_are_about_specs_of_a_kind_with_all_their_defaults(kind: str, require: str, broken: list[str]) -> None:
    found = loaded(rules(f"- {{name: a, kind: {kind}, require: {require!r}, message: Not so}}\n"))
    assert [problem.file for problem in found.problems] == broken


def test_a_planned_change_is_held_and_told_at_the_spec_that_asks_for_it() -> None:
    big = '- {name: small, kind: change, when: change.kind == "Deployment", message: Too many pods, require: '
    asked = rules(big + '"manifest.spec.replicas < 3"}\n')
    report = offline.preview(loaded(asked), (), asked)
    assert report.plan is not None
    (held,) = [str(change.id) for change in report.plan.changes if change.held]
    assert held.startswith("Deployment/production/churn-default-")
    (problem,) = report.problems
    assert (problem.file, problem.line, problem.rule) == ("specs/churn.yaml", 6, "policy/small")
    assert problem.message == f"Too many pods (create {held} in production)."


def review(asked: policy.Policy) -> tuple[list[str], set[str]]:
    base = Files({name: text.encode() for name, text in SPECS.items()}, ())
    head = Files({name: text for name, text in base.content.items() if "fraud" not in name}, ())
    report = Review(base, head, "main", "c" * 40, asked).report()
    assert report.plan is not None
    return told(report.problems), {change.held for change in report.plan.changes if change.op is Op.DELETE}


def test_a_deletion_needs_an_approval_of_the_organisations_own() -> None:
    problems, _ = review(rules(NO_DELETION))
    assert len(problems) > 5
    assert problems[0].startswith("policy.yaml:3:1: Nothing is deleted without approval (delete ")
    assert review(rules(NO_DELETION, approvals=["deletion"]))[0] == []


def test_a_review_shows_what_breaks_a_rule_and_what_it_would_do() -> None:
    base = Files({name: text.encode() for name, text in SPECS.items() if "fraud" not in name}, ())
    head = Files({name: text.encode() for name, text in SPECS.items()}, ())
    report = Review(base, head, "main", "c" * 40, rules(TWO_PODS)).report()
    assert [problem.rule for problem in report.problems] == ["policy/two-pods"]
    assert any("variation default is new" in one.text for one in report.effects)
    assert report.base is not None
    assert not report.base.problems


@pytest.mark.parametrize(
    ("text", "told_of"),
    [
        (
            "- {name: a, kind: build, require: 'spec.x +', message: Not so}\n",
            "policy.yaml:3:35: policy a: require is no CEL",
        ),
        ("- {name: a, kind: build, require: 'true'}\n", "policy.yaml:3:3: "),
        ("- {name: a, kind: model, require: 'true', message: Not so}\n", "policy.yaml:3:19: "),
        (TWO_PODS + TWO_PODS, "policy.yaml:10:3: Two policies have the name two-pods."),
        ("- [", "policy.yaml:4:1: "),
    ],
)
def test_what_is_wrong_with_the_rules_is_told_at_its_place(text: str, told_of: str) -> None:
    found = told(rules(text).problems)
    assert len(found) == 1
    assert found[0].startswith(told_of)


@pytest.mark.parametrize(
    ("require", "why"),
    [
        ("spec.nothing == 1", "there is no field 'nothing'; ask `has(...)` first"),
        ("spec.name", "its answer is str, and not true or false"),
        ("spec.name + 1 == 2", "Unsupported operation"),
        ("unknown == 1", "'unknown'"),
        ("1 / 0 == 1", "division by zero"),
    ],
)
def test_a_rule_that_has_no_answer_is_an_error_of_the_rule(require: str, why: str) -> None:
    found = loaded(rules(f"- {{name: a, kind: build, require: {require!r}, message: Not so}}\n")).problems
    assert len(found) == 2
    assert all(problem.rule == "policy/failed" and why in problem.message for problem in found), told(found)
