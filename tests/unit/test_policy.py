"""Rules of an organisation, held against specs and plans."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from reconciler import cel, offline, plan, policy, queries, review
from reconciler.authors import fields
from reconciler.plan import Change, Guard, Op
from reconciler.report import ExitCode, Topic, exit_code
from reconciler.review import Review
from reconciler.source import watch
from reconciler.source.files import Files
from reconciler.specs import Loaded, parse
from reconciler.specs.index import Index
from reconciler.specs.places import Places
from reconciler.specs.references import Specs
from renderers.catalog import Catalog
from renderers.manifest import ObjectId
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


def test_a_message_may_be_a_block_of_several_lines() -> None:
    text = "- name: a\n  kind: build\n  require: 'spec.name != \"churn-1\"'\n  message: |\n    Not so.\n    Ever.\n"
    assert told(loaded(rules(f"{text}  hint: |\n    write\n    another.\n")).problems) == [
        "specs/churn.yaml:4:5: Not so. Ever. Write another. [policy/a]"
    ]


def test_what_breaks_a_rule_is_not_applied_and_the_model_stays_as_it_is() -> None:
    found = loaded(rules(TWO_PODS))
    assert {name for name, _ in found.catalog.variations} == {"churn"}
    assert set(found.catalog.builds) == {"churn-1"}


def test_what_needs_a_build_that_breaks_a_rule_is_left_out_with_it() -> None:
    found = loaded(rules("- {name: a, kind: build, require: 'spec.name != \"churn-1\"', message: Not so}\n"))
    assert told(found.problems) == ["specs/churn.yaml:4:5: Not so. [policy/a]"]
    assert set(found.catalog.builds) == {"fraud-1"}
    assert set(found.catalog.variations) == {("fraud", "default")}


def test_what_comes_after_an_environment_that_breaks_a_rule_is_left_out_with_it() -> None:
    after = SPECS["specs/environments.yaml"].replace("production", "production\n    promote_after: [staging]")
    asked = rules("- {name: a, kind: environment, require: 'spec.name != \"staging\"', message: Not so}\n")
    files = {**SPECS, "specs/environments.yaml": after}
    found = parse({name: text.encode() for name, text in files.items()}, queries.check, asked.check)
    assert told(found.problems) == ["specs/environments.yaml:4:5: Not so. [policy/a]"]
    assert not found.catalog.environments
    assert not found.catalog.variations


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


def changes(*ops: Op, **more: Any) -> list[Change]:
    """One change of each kind, in production."""
    names = (ObjectId("v1", "Service", "production", f"churn-{number}") for number, _ in enumerate(ops))
    return [Change(op, name, "production", **more) for op, name in zip(ops, names, strict=True)]


def test_what_a_rule_holds_has_one_limit_in_words_that_are_the_same_for_all_of_it() -> None:
    asked = rules(NO_DELETION)
    found = asked.judge(changes(Op.DELETE, Op.CREATE, Op.DELETE, Op.UNCHANGED), Catalog())
    words = "Nothing is deleted without approval"
    assert [change.held for change in found.changes] == [words, "", words, ""]
    (limit,) = found.guards
    assert limit == Guard("production", "policy/no-deletion", words, limit.approval)
    assert len(found.problems) == 2
    assert replace(asked, approvals=frozenset({"deletion"})).judge(found.changes[1:2], Catalog()).guards == ()


def test_a_person_lifts_what_is_held_by_rules_that_name_approvals_and_nothing_else() -> None:
    never = "- {name: never, kind: change, require: 'change.name != \"churn-1\"', message: Never}\n"
    found = rules(NO_DELETION, never).judge(changes(Op.DELETE, Op.DELETE), Catalog())
    one, both = found.guards
    assert both == Guard("production", "policy/no-deletion", "Nothing is deleted without approval; Never")
    planned = plan.approved(plan.assemble(found.changes, (), found.guards), {one.approval})
    assert [change.held for change in planned.changes] == ["", both.message]
    other = rules(NO_DELETION).judge(changes(Op.DELETE, uid="another"), Catalog()).guards
    assert other[0].approval not in ("", one.approval), "it is for exactly these changes"


def test_a_rule_about_changes_that_only_warns_holds_nothing() -> None:
    found = rules(NO_DELETION, "  severity: warning\n").judge(changes(Op.DELETE), Catalog())
    assert [problem.severity for problem in found.problems] == ["warning"]
    assert found.guards == ()
    assert not found.changes[0].held


def test_what_is_held_already_stays_so_for_its_own_reason() -> None:
    found = rules(NO_DELETION).judge(changes(Op.DELETE, held="it still runs"), Catalog())
    assert found.changes[0].held == "it still runs"
    assert found.guards == ()


def without_fraud(asked: policy.Policy) -> tuple[list[str], set[str]]:
    base = Files({name: text.encode() for name, text in SPECS.items()}, ())
    head = Files({name: text for name, text in base.content.items() if "fraud" not in name}, ())
    report = Review(base, head, "main", "c" * 40, asked).report()
    assert report.plan is not None
    return told(report.problems), {change.held for change in report.plan.changes if change.op is Op.DELETE}


def test_a_deletion_needs_an_approval_of_the_organisations_own() -> None:
    problems, _ = without_fraud(rules(NO_DELETION))
    assert len(problems) > 5
    assert problems[0].startswith("policy.yaml:3:1: Nothing is deleted without approval (delete ")
    assert without_fraud(rules(NO_DELETION, approvals=["deletion"]))[0] == []


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
        (
            "- {name: a, kind: build, require: 'true'}\n",
            "policy.yaml:3:3: message is missing in this policy. Write message: Production needs at least two pods. [",
        ),
        (
            "- {name: a, kind: variations, require: 'true', message: Not so}\n",
            'policy.yaml:3:19: "variations" is no value of kind. Write variation. [',
        ),
        (
            "- {name: a, kind: build, require: true, message: Not so}\n",
            'policy.yaml:3:35: require must be text, and this is true. Write "true", with quotes. [',
        ),
        # Without a condition it would be about all of them, which nobody has said.
        (
            "- {name: a, kind: build, require: 'true', message: Not so, when: }\n",
            "policy.yaml:3:66: when must be text, and this is empty. Write a value, or remove the key. [",
        ),
        (
            "- {name: a, kind: build, require: yes, message: Not so}\n",
            "policy.yaml:3:35: ",
        ),
        ("", "policy.yaml:2:10: policies must be a list, and this is empty. "),
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
    asked = rules(f"- {{name: a, kind: build, require: {require!r}, message: Not so}}\n")
    (found,) = policy.summed(loaded(asked).problems)
    assert found.rule == "policy/failed"
    assert why in found.message
    assert found.message.startswith("policy/a cannot be asked of build churn-1: ")
    assert found.message.endswith("; nor of 1 more.")  # once, however many specs it was asked of


# -- what an expression may cost ------------------------------------------------------------------------------------


def within(depth: int, macro: str = "all") -> str:
    """Loops over ten numbers, one in another."""
    inner = "true" if depth == 0 else within(depth - 1, macro)
    return f"[0, 1, 2, 3, 4, 5, 6, 7, 8, 9].{macro}(x{depth}, {inner})" if depth else inner


@pytest.mark.parametrize(
    ("require", "why"),
    [
        (within(8), "more than 2 loops"),  # 10 ** 8 steps, in which nothing could interrupt it
        (within(3, "exists_one") + " || true", "more than 2 loops"),
        ("[[1]]" + ".map(l, l + l)" * 250 + ".size() == 1", "more than 2 loops"),  # a list of 2 ** 250
        ('("[(" == "a.all(" ? [[1]] : [[2]].map(a, a + a))[0].map(b, [b].map(c, [c].map(d, d))) == []', "2 loops"),
        ("[1] // (\n . map // )\n (a, [a].map(b, [b].map(c, c))) == []", "more than 2 loops"),
        (r"""r'\' != '"' && [1].all(a, [1].all(b, [1].all(c, '''it's(''' != ')')))""", "more than 2 loops"),
        (" && ".join([within(1)] * 17), "more than 16 loops"),
        ("[[1]].map(l, l" + " + l" * 33 + ").size() == 1", "more than 32 sums"),
        ("[1].all(x, [1].all(y, " + " + ".join(["x"] * 6) + " == y))", "more than 4 sums"),
        ("(" * 2046 + "true" + ")" * 2046, "too many brackets"),
        ("[" * 2000 + "]" * 2000 + " == []", "too many brackets"),
    ],
)
def test_an_expression_that_could_take_for_ever_is_refused_before_it_is_asked(require: str, why: str) -> None:
    began = time.process_time()
    asked = rules(f"- name: a\n  kind: build\n  message: Not so\n  require: {json.dumps(require)}\n")
    assert time.process_time() - began < 5
    assert asked.rules == ()
    (problem,) = asked.problems
    assert problem.rule == "policy/expression"
    assert why in problem.message


@pytest.mark.parametrize(
    "require",
    [
        within(2),
        'spec.tags.filter(tag, tag != "").all(tag, size(tag) < 64)',
        'has(spec.tags) && spec.tags.all(a, true) && !spec.tags.exists(b, b == "x.all(y.all(z.all(")',
        '"all(" in spec.tags.map(tag, tag + "(") || true',
        " + ".join(["1"] * 100) + " == 100",
    ],
)
def test_rules_as_people_write_them_are_not(require: str) -> None:
    asked = rules(f"- name: a\n  kind: build\n  message: Not so\n  require: {json.dumps(require)}\n")
    assert told(asked.problems) == []
    assert all(problem.rule == "policy/a" for problem in loaded(asked).problems)


def test_a_rule_that_takes_long_each_time_is_not_asked_for_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cel, "_PATIENCE", 0.1)
    loops = "spec.env_vars.all(a, spec.env_vars.all(b, a != b || a == b))"
    asked = rules(
        f"- {{name: slow, kind: build, require: '{loops}', message: Not so}}\n",
        "- {name: quick, kind: build, require: 'spec.name != \"b-59\"', message: Not so}\n",
    )
    many = {f"V{number}": "x" for number in range(400)}
    builds = [
        {"name": f"b-{n}", "model": "m", "git_uri": "https://x.example.com/m#m", "env_vars": many} for n in range(60)
    ]
    content = json.dumps({"api_version": "v1", "spec": {"builds": builds}}).encode()
    began = time.process_time()
    found = parse({"specs/a.yaml": content}, queries.check, asked.check)
    assert time.process_time() - began < 3
    failed, broken = policy.summed(found.problems)
    assert failed.rule == "policy/failed"
    assert "policy/slow cannot be asked of build" in failed.message
    assert "s each time" in failed.message
    assert broken.rule == "policy/quick"  # the others still are
    assert "b-0" in found.catalog.builds
    assert "b-58" not in found.catalog.builds  # as long as nobody can say, nothing is let pass


# -- the rules of a base ---------------------------------------------------------------------------------------------

WEAKER = TWO_PODS.replace(">= 2", ">= 1")


def compared(before: policy.Policy, after: policy.Policy) -> tuple[list[str], list[str]]:
    """What is told of the rules, and what is wrong, where fraud is new."""
    base = Files({name: text.encode() for name, text in SPECS.items() if "fraud" not in name}, ())
    head = Files({name: text.encode() for name, text in SPECS.items()}, ())
    report = Review(base, head, "main", "c" * 40, after, before=before).report()
    return [one.text for one in report.effects if one.topic is Topic.GATE], told(report.problems)


@pytest.mark.parametrize(
    ("after", "effect"),
    [
        (rules(), "rule two-pods is removed (Production needs at least two pods)"),
        (
            rules(WEAKER),
            (
                "rule two-pods is changed: "
                "require spec.deployment.number_of_pods >= 2 -> spec.deployment.number_of_pods >= 1"
            ),
        ),
        (
            rules(TWO_PODS, "  severity: warning\n"),
            "rule two-pods is changed: severity error -> warning",
        ),
    ],
)
def test_who_weakens_a_rule_is_still_judged_by_it(after: policy.Policy, effect: str) -> None:
    effects, problems = compared(rules(TWO_PODS), after)
    assert effects == [effect]
    as_before = "Production needs at least two pods (production), as the base has the rule."
    assert any(as_before in problem for problem in problems)


def test_a_new_rule_is_told_of_and_counts() -> None:
    effects, problems = compared(rules(), rules(TWO_PODS))
    assert effects == ["rule two-pods is new (Production needs at least two pods)"]
    assert len(problems) == 1


def test_a_rule_that_both_have_is_told_of_once_wherever_it_stands_in_the_file() -> None:
    effects, problems = compared(rules(TWO_PODS), rules(NO_DELETION, TWO_PODS))
    assert effects == ["rule no-deletion is new (Nothing is deleted without approval)"]
    assert len(problems) == 1


# -- rules that follow their file ------------------------------------------------------------------------------------

BROKEN = TWO_PODS.replace(">= 2", ">=")


def test_rules_are_looked_for_beside_the_specs_and_upwards_to_the_root() -> None:
    assert policy.places("") == (policy.FILE,)
    assert policy.places("shop/specs") == (f"shop/specs/{policy.FILE}", f"shop/{policy.FILE}", policy.FILE)


def test_rules_are_what_their_file_says_by_now() -> None:
    assert policy.following(policy.NONE, rules(TWO_PODS)).rules
    assert policy.following(rules(TWO_PODS), rules(WEAKER)).rules[0].spec.require.endswith(">= 1")
    assert policy.following(rules(TWO_PODS), policy.NONE) == policy.NONE  # nobody keeps a file from being removed


@pytest.mark.parametrize(
    "now",
    [
        rules(NO_DELETION, BROKEN),
        rules("- ["),
        policy.Policy(problems=(Problem("policy.yaml", 1, 1, (), "source/too-large", "It has too many bytes."),)),
    ],
)
def test_while_their_file_is_broken_the_rules_before_hold_and_no_part_of_it(now: policy.Policy) -> None:
    held = policy.following(rules(TWO_PODS), now)
    assert [rule.spec.name for rule in held.rules] == ["two-pods"]
    assert not held.unknown
    assert [problem.rule for problem in held.problems] == [now.problems[0].rule, "policy/not-taken"]
    again = policy.following(held, now)
    assert again.rules == held.rules
    assert policy.following(again, rules(WEAKER)).problems == ()


def test_a_broken_file_never_means_that_there_are_no_rules() -> None:
    held = policy.following(policy.NONE, rules(BROKEN))
    assert held.unknown == "nobody knows the rules of the organisation, so nothing is changed (policy.yaml:6)"
    found = held.judge([*changes(Op.CREATE, Op.UNCHANGED), *changes(Op.CHANGE, traffic=("moves",))], Catalog())
    assert [bool(change.held) for change in found.changes] == [True, False, False]
    assert found.guards == (Guard("production", "policy/unknown", held.unknown),)
    assert policy.following(held, rules(BROKEN)).unknown
    assert not policy.following(held, rules(TWO_PODS)).unknown


def test_a_changed_spec_is_all_that_is_judged_again() -> None:
    asked, judged = rules(TWO_PODS), list[str]()

    def check(specs: Specs, places: Places) -> None:
        judged.extend(name for kind, _, name in specs.found if kind == "builds")
        asked.check(specs, places)

    files = {name: text.encode() for name, text in SPECS.items()}
    index = Index(files.__getitem__, queries.check, check)
    index.replace(files)
    judged.clear()
    files["specs/fraud.yaml"] = files["specs/fraud.yaml"].replace(b"number_of_pods: 1", b"number_of_pods: 2")
    assert index.update({"specs/fraud.yaml": files["specs/fraud.yaml"]}).models == {"fraud"}
    assert judged == ["fraud-1"]
    assert ("fraud", "default") in index.catalog.variations
    assert index.problems == ()


# -- the file of rules -----------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A repository with the specs, in the current folder."""
    (tmp_path / ".git").mkdir()
    (tmp_path / "specs").mkdir()
    for name, text in SPECS.items():
        (tmp_path / name).write_text(text)
    before = Path.cwd()
    os.chdir(tmp_path)
    yield tmp_path
    os.chdir(before)


def test_the_rules_at_the_root_of_the_repository_hold_in_every_folder_of_it(folder: Path) -> None:
    Path(policy.FILE).write_text(f"api_version: v1\npolicies:\n{TWO_PODS}")
    os.chdir("specs")
    assert [rule.spec.name for rule in offline.rules_of(None).read().rules] == ["two-pods"]
    (folder / ".git").rmdir()
    assert offline.rules_of(None).read() == policy.NONE  # what is above may be anybody's


@pytest.mark.parametrize("text", ["policies: [", f"api_version: v1\npolicies:\n{TWO_PODS}{TWO_PODS}"])
def test_what_is_wrong_with_the_file_of_rules_is_no_reason_to_leave_specs_out(folder: Path, text: str) -> None:
    Path(policy.FILE).write_text(text.replace("production", "nowhere"))
    asked = offline.rules_of(None).read()
    found = offline.load([Path("specs")], asked)
    assert found.problems == ()
    report = offline.preview(found, (), asked)
    assert [problem.file for problem in report.problems] == [policy.FILE]
    assert exit_code(report) is ExitCode.SPECS
    assert report.plan is not None
    assert report.plan.changes


@pytest.mark.parametrize("kind", ["link", "link to nowhere", "folder", "pipe"])
def test_what_stands_in_the_place_of_the_rules_never_means_that_there_are_none(folder: Path, kind: str) -> None:
    place = Path(policy.FILE)
    match kind:
        case "folder":
            place.mkdir()
            (place / "specs.yaml").write_text("api_version: v1\npolicies: []\n")
        case "pipe":
            os.mkfifo(place)
        case _:
            Path("rules.txt").write_text("api_version: v1\npolicies: []\n")
            place.symlink_to("rules.txt" if kind == "link" else "nowhere")
    (problem,) = offline.rules_of(None).read().problems
    assert problem.severity == "error"
    assert problem.file == policy.FILE
    assert exit_code(offline.preview(Loaded(Catalog(), ()), (), offline.rules_of(None).read())) is ExitCode.SPECS


def test_a_broken_file_of_rules_hides_no_deletion_from_a_review() -> None:
    problems, _ = without_fraud(rules("- ["))
    assert len(problems) == 1
    base = Files({name: text.encode() for name, text in SPECS.items()}, ())
    head = Files({name: text for name, text in base.content.items() if "fraud" not in name}, ())
    report = Review(base, head, "main", "c" * 40, rules("- [")).report()
    assert report.plan is not None
    assert any(change.op is Op.DELETE for change in report.plan.changes)


def test_who_watches_sees_a_rule_as_soon_as_it_is_written(folder: Path) -> None:
    def saved() -> Iterator[None]:
        Path(policy.FILE).write_text(f"api_version: v1\npolicies:\n{TWO_PODS}")
        yield
        Path("specs/fraud.yaml").write_text(SPECS["specs/fraud.yaml"].replace("number_of_pods: 1", "number_of_pods: 2"))
        yield

    reports = [report for report, _ in review.follow([Path("specs")], None, (), saved(), offline.rules_of(None))]
    assert [len(report.problems) for report in reports] == [0, 1, 0]
    assert reports[1].effects[0].text == "rule two-pods is new (Production needs at least two pods)"


def test_a_file_of_rules_that_appears_above_the_specs_is_noticed(folder: Path) -> None:
    done = Event()

    def write() -> None:
        number = 0
        while not done.wait(0.05):
            number += 1
            (folder / policy.FILE).write_text(f"# {number}\n")

    writer = Thread(target=write, daemon=True)
    writer.start()
    seen = watch.changes([Path("specs")], [Path(policy.FILE)])
    assert next(seen) is None
    done.set()
    writer.join()


def test_a_field_of_a_rule_is_explained_as_one_of_a_spec_is() -> None:
    field = fields.find("policy.require")
    assert field.required
    assert field.examples
    assert "What must be true." in field.description
