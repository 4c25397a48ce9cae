"""`reconcile --dry-run --base`, on real repositories: with which commit it compares, and what it makes of odd ones."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler import offline, policy, review
from reconciler.offline import Rules
from reconciler.plan import Op
from reconciler.report import ExitCode, Report, exit_code
from reconciler.report import text as printed
from reconciler.source.checkout import CheckoutError, TooShallowError
from tests.contract.git_servers import git

SPECS = {
    "environments.yaml": "api_version: v1\nspec:\n  environments:\n  - name: production\n",
    "churn.yaml": """\
api_version: v1
spec:
  builds:
  - {name: churn-1, model: churn, git_uri: "https://git.example.com/models#churn", git_commit: COMMIT}
  variations:
  - {model: churn, environments: [production], build: churn-1, deployment: {memory: 1Gi}}
""".replace("COMMIT", "a" * 40),
    "fraud.yaml": """\
api_version: v1
spec:
  builds:
  - {name: fraud-1, model: fraud, git_uri: "https://git.example.com/models#fraud", git_commit: COMMIT}
  variations:
  - {model: fraud, environments: [production], build: fraud-1}
""".replace("COMMIT", "b" * 40),
}


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    """A repository with the specs on main, on a branch of its own; it is the current folder."""
    folder = tmp_path / "repository"
    (folder / "specs").mkdir(parents=True)
    for name, text in SPECS.items():
        (folder / "specs" / name).write_text(text)
    git(folder, "init", "-q", "-b", "main")
    commit(folder, "the specs")
    git(folder, "checkout", "-q", "-b", "change")
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


def commit(folder: Path, message: str) -> None:
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "--allow-empty", "-m", message)


def edit(old: str, new: str, name: str = "churn.yaml") -> None:
    path = Path("specs", name)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def compare(ref: str = "main", path: str = "specs", head: str | None = None) -> Report:
    return review.preview([Path(path)], ref, head)


def said(report: Report) -> list[str]:
    return [f"{one.environment}/{one.model}: {one.text}" for one in report.effects]


def changed(report: Report) -> list[str]:
    assert report.plan is not None
    return [f"{change.op} {change.id}" for change in report.plan.changes if change.op is not Op.UNCHANGED]


def test_a_change_is_told_in_the_words_of_the_domain_and_field_by_field(checkout: Path) -> None:
    edit("memory: 1Gi", "memory: 2Gi")
    report = compare()
    assert said(report) == ["production/churn: default: memory 1Gi -> 2Gi"]
    assert report.base is not None
    assert report.base.files == ("specs/churn.yaml",)
    assert report.base.commit == git(checkout, "rev-parse", "main")
    assert report.plan is not None
    (change,) = [change for change in report.plan.changes if change.op is not Op.UNCHANGED]
    assert (change.op, change.id.kind) == (Op.CHANGE, "Deployment")
    fields = {field.path.rpartition(".")[2]: (field.old, field.new) for field in change.fields}
    assert fields["memory"] == ("1Gi", "2Gi")
    assert change.origin is not None
    assert str(change.origin) == "specs/churn.yaml:6"
    assert exit_code(report) is ExitCode.FINE
    assert exit_code(report, detailed=True) is ExitCode.CHANGES


def test_a_commit_and_an_uncommitted_file_are_both_the_change(checkout: Path) -> None:
    edit("memory: 1Gi", "memory: 2Gi")
    commit(checkout, "more memory")
    edit("build: fraud-1", "build: fraud-1, deployment: {number_of_pods: 5}", "fraud.yaml")
    assert said(compare()) == [
        "production/churn: default: memory 1Gi -> 2Gi",
        "production/fraud: default: number_of_pods 2 -> 5",
    ]
    assert said(compare(head="HEAD")) == ["production/churn: default: memory 1Gi -> 2Gi"]


def test_files_that_were_renamed_split_and_reformatted_change_nothing(checkout: Path) -> None:
    head, body = "api_version: v1\nspec:\n", Path("specs/churn.yaml").read_text().partition("spec:\n")[2]
    builds, _, variations = body.partition("  variations:\n")
    Path("specs/churn.yaml").unlink()
    Path("specs/models").mkdir()
    Path("specs/models/builds.yml").write_text(f"# moved\n\n{head}{builds}")
    written = f"{head}  variations:\n{variations}".replace("memory: 1Gi", "memory:   '1Gi'")
    Path("specs/models/served.yaml").write_bytes(written.replace("\n", "\r\n").encode())
    report = compare()
    assert (said(report), changed(report)) == ([], [])
    assert report.base is not None
    assert len(report.base.files) == 3
    assert exit_code(report, detailed=True) is ExitCode.FINE


def test_what_others_have_done_on_the_base_since_is_not_the_change(checkout: Path) -> None:
    git(checkout, "checkout", "-q", "main")
    edit("build: fraud-1", "build: fraud-1, deployment: {number_of_pods: 9}", "fraud.yaml")
    commit(checkout, "somebody else's")
    git(checkout, "checkout", "-q", "change")
    edit("memory: 1Gi", "memory: 2Gi")
    assert said(compare()) == ["production/churn: default: memory 1Gi -> 2Gi"]


def test_what_is_gone_is_deleted_and_the_limits_on_that_are_foreseen(checkout: Path) -> None:
    Path("specs/fraud.yaml").unlink()
    report = compare()
    assert said(report)[0] == "production/fraud: nobody answers predictions any more: variation default goes"
    assert report.plan is not None
    held = {change.held for change in report.plan.changes if change.op is Op.DELETE}
    assert held == {"6 of 18 objects of production would be deleted, more than 20%"}
    assert exit_code(report) is ExitCode.BLOCKED


def test_what_is_known_of_the_base_as_well_is_no_note(checkout: Path) -> None:
    none = "traffic: []"
    edit("build: fraud-1}", f"build: fraud-1, {none}}}", "fraud.yaml")
    noted = compare()
    assert noted.plan is not None
    assert len(noted.plan.notes) == 1
    commit(checkout, "nobody")
    edit(none, f"deployment: {{memory: 1Gi}}, {none}", "fraud.yaml")
    again = compare("change")
    assert again.plan is not None
    assert not again.plan.notes


def test_who_means_it_approves_exactly_what_a_limit_holds(checkout: Path) -> None:
    Path("specs/fraud.yaml").unlink()

    def approved(*ids: str) -> Report:
        return review.preview([Path("specs")], "main", None, (), Rules(approvals=frozenset(ids)))

    report = approved()
    assert report.plan is not None
    (guard,) = report.plan.guards
    page = "\n".join(printed.report(report, width=80, color=False))
    assert f"reconcile --dry-run --base main --approve {guard.approval}" in page

    lifted = approved(guard.approval, "a-word-that-rules-may-ask-for")
    assert exit_code(lifted) is ExitCode.FINE
    assert lifted.plan is not None
    assert not lifted.plan.guards
    assert not any(change.held for change in lifted.plan.changes)

    edit("memory: 1Gi", "memory: 2Gi")
    assert exit_code(approved(guard.approval)) is ExitCode.FINE, "what else is in the branch needs no other approval"
    Path("specs/churn.yaml").unlink()
    other = approved(guard.approval)
    assert exit_code(other) is ExitCode.BLOCKED, "more is deleted than somebody has approved"
    assert other.plan is not None
    assert "what was approved is another plan" in other.plan.guards[0].message


def test_the_traffic_of_a_protected_variation_is_moved_where_somebody_approves_it(checkout: Path) -> None:
    edit("build: fraud-1}", "build: fraud-1, protected: true}", "fraud.yaml")
    commit(checkout, "protected")
    other = "{model: fraud, name: other, environments: [production], build: fraud-1, traffic: [{weight: 60}]}"
    edit("protected: true}", f"protected: true, traffic: [{{weight: 40}}]}}\n  - {other}", "fraud.yaml")
    report = compare("change")
    assert exit_code(report) is ExitCode.BLOCKED
    assert report.plan is not None
    (guard,) = report.plan.guards
    assert guard.rule == "variation/protected"
    lifted = review.preview([Path("specs")], "change", None, (), Rules(approvals=frozenset([guard.approval])))
    assert exit_code(lifted) is ExitCode.FINE


def test_a_spec_that_broke_is_no_deletion(checkout: Path) -> None:
    edit("model: fraud, environments", "modell: fraud, environments", "fraud.yaml")
    report = compare()
    assert exit_code(report) is ExitCode.SPECS
    assert [problem.file for problem in report.problems] == ["specs/fraud.yaml"]
    assert changed(report) == []
    assert [one.split(",")[0] for one in said(report)] == ["/fraud: not compared: its specs are wrong or gone"]


def test_a_base_that_does_not_validate_is_said_and_stops_nothing(checkout: Path) -> None:
    edit("memory: 1Gi", "memory: lots")
    commit(checkout, "broken")
    git(checkout, "branch", "-f", "main")
    edit("memory: lots", "memory: 1Gi")
    report = compare()
    assert report.base is not None
    assert [problem.file for problem in report.base.problems] == ["specs/churn.yaml"]
    assert not report.problems
    assert [one.partition(";")[0] for one in said(report)] == [
        "/churn: not compared: it is new, or its specs were wrong in the base"
    ]


def test_a_base_without_the_folder_has_no_specs(checkout: Path) -> None:
    git(checkout, "mv", "specs", "production")
    report = compare(path="production")
    assert report.base is not None
    assert [problem.rule for problem in report.base.problems] == ["source/not-found"]
    assert "/: the environment is new" in said(report)[0]


def test_a_new_environment_is_told_with_all_that_comes_into_it(checkout: Path) -> None:
    edit("- name: production", "- name: production\n  - name: lab", "environments.yaml")
    edit("environments: [production]", "environments: [lab, production]")
    report = compare()
    assert "lab/: the environment is new, on the embedded data plane of this machine" in said(report)
    assert "create Namespace/lab" in changed(report)
    assert not any("fraud" in one for one in (*said(report), *changed(report)))


def test_only_the_environments_that_were_asked_for(checkout: Path) -> None:
    edit("- name: production", "- name: production\n  - name: staging", "environments.yaml")
    edit("memory: 1Gi", "memory: 2Gi")
    (one,) = said(review.preview([Path("specs")], "main", None, ["staging"]))
    assert one.startswith("staging/: the environment is new")
    with pytest.raises(review.NoEnvironmentError, match="'prod'; there are: production, staging"):
        review.preview([Path("specs")], "main", None, ["prod"])


@pytest.mark.parametrize("ref", ["nope", "main~9", "main..change", "--output=x", "a b", "", ":specs", "refs/heads/"])
def test_a_reference_that_is_no_revision_is_said(checkout: Path, ref: str) -> None:
    with pytest.raises(CheckoutError, match="is no revision"):
        compare(ref)


def test_the_name_of_a_branch_may_be_that_of_origin(checkout: Path, tmp_path: Path) -> None:
    """As in a CI job, which has the branches of a pull request under origin only."""
    edit("memory: 1Gi", "memory: 2Gi")
    commit(checkout, "more memory")
    git(tmp_path, "clone", "-q", "-b", "change", checkout.as_uri(), "job")
    os.chdir(tmp_path / "job")
    assert said(compare("main")) == ["production/churn: default: memory 1Gi -> 2Gi"]


def test_a_shallow_clone_is_deep_enough_or_asks_for_depth(checkout: Path, tmp_path: Path) -> None:
    edit("memory: 1Gi", "memory: 2Gi")
    commit(checkout, "more memory")
    git(tmp_path, "clone", "-q", "--depth=1", "-b", "change", checkout.as_uri(), "job")
    os.chdir(tmp_path / "job")
    with pytest.raises(TooShallowError, match=r"main is no revision of this shallow clone; .*fetch-depth: 0"):
        compare("main")
    git(Path(), "fetch", "-q", "--depth=1", "origin", "main:refs/remotes/origin/main")
    with pytest.raises(TooShallowError, match="does not reach back to where it parted from main"):
        compare("main")
    git(Path(), "fetch", "-q", "--deepen=1", "origin", "change")
    assert said(compare("main")) == ["production/churn: default: memory 1Gi -> 2Gi"]


def test_the_merge_commit_of_a_pull_request_is_compared_with_the_branch_that_it_goes_into(checkout: Path) -> None:
    edit("memory: 1Gi", "memory: 2Gi")
    commit(checkout, "more memory")
    git(checkout, "checkout", "-q", "main")
    edit("build: fraud-1", "build: fraud-1, deployment: {number_of_pods: 9}", "fraud.yaml")
    commit(checkout, "somebody else's")
    git(checkout, "checkout", "-q", "--detach")
    git(checkout, "merge", "-q", "--no-edit", "change")
    assert said(compare()) == ["production/churn: default: memory 1Gi -> 2Gi"]


def test_a_linked_work_tree_is_one_as_well(checkout: Path, tmp_path: Path) -> None:
    git(checkout, "worktree", "add", "-q", "-b", "other", str(tmp_path / "linked"), "main")
    os.chdir(tmp_path / "linked")
    edit("memory: 1Gi", "memory: 3Gi")
    assert said(compare()) == ["production/churn: default: memory 1Gi -> 3Gi"]


def test_a_bare_repository_has_only_commits(checkout: Path, tmp_path: Path) -> None:
    edit("memory: 1Gi", "memory: 2Gi")
    commit(checkout, "more memory")
    git(tmp_path, "clone", "-q", "--bare", checkout.as_uri(), "bare")
    os.chdir(tmp_path / "bare")
    with pytest.raises(CheckoutError, match=r"bare.*--head"):
        compare()
    assert said(compare(head="change")) == ["production/churn: default: memory 1Gi -> 2Gi"]


def test_no_repository_and_specs_outside_of_it(checkout: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.yaml").write_text(SPECS["churn.yaml"])
    with pytest.raises(CheckoutError, match="outside of the repository"):
        review.preview([Path("specs"), outside], "main")
    with pytest.raises(CheckoutError, match="in no git repository"):
        review.preview([outside], "main")


def test_a_repository_without_a_commit(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    with pytest.raises(CheckoutError, match="no commit yet"):
        review.preview([tmp_path], "HEAD")


def test_names_that_differ_in_case_only_are_two_files(checkout: Path) -> None:
    Path("specs/Churn.yaml").write_text(SPECS["churn.yaml"].replace("churn", "chirp"))
    report = compare()
    assert report.base is not None
    assert report.base.files == ("specs/Churn.yaml",)
    assert {one.partition(":")[0] for one in said(report)} == {"production/chirp"}


def test_a_link_out_of_the_folder_is_refused_on_both_sides(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.yaml").write_text("password: planted-4711")
    Path("specs/link.yaml").symlink_to(tmp_path / "secret.yaml")
    report = compare()
    assert [problem.rule for problem in report.problems] == ["source/symbolic-link"]
    commit(checkout, "a link")
    git(checkout, "branch", "-f", "main")
    Path("specs/link.yaml").unlink()
    report = compare()
    assert report.base is not None
    assert [problem.rule for problem in report.base.problems] == ["source/symbolic-link"]
    assert "planted" not in str(report)


def test_nothing_that_a_repository_configures_is_run(checkout: Path, tmp_path: Path) -> None:
    """Whoever opened the pull request may have written its configuration, if they could write to the runner's disk."""
    trace = tmp_path / "was-run"
    script = tmp_path / "script"
    script.write_text(f"#!/bin/sh\ntouch {trace}\n")
    script.chmod(0o755)
    for key in ("core.fsmonitor", "core.pager", "core.sshCommand", "filter.x.smudge", "filter.x.clean"):
        git(checkout, "config", key, str(script))
    git(checkout, "config", "core.hooksPath", str(tmp_path))
    Path(".gitattributes").write_text("*.yaml filter=x diff=x\n")
    edit("memory: 1Gi", "memory: 2Gi")
    assert said(compare()) == ["production/churn: default: memory 1Gi -> 2Gi"]
    assert not trace.exists()


def test_what_is_wrong_with_the_base_has_the_names_that_people_gave(checkout: Path) -> None:
    Path("specs/large.yaml").write_bytes(b"#" * 5_000_000)
    commit(checkout, "a large file")
    git(checkout, "branch", "-f", "main")
    Path("specs/large.yaml").write_bytes(b"#" * 5_000_001)
    os.chdir("specs")
    base = compare(path=".").base
    assert base is not None
    assert [problem.file for problem in base.problems] == ["large.yaml"]
    assert base.files == ("large.yaml",), "it differs, although nobody can say in what"


def test_the_variables_of_a_git_hook_do_not_lead_elsewhere(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit("memory: 1Gi", "memory: 2Gi")
    monkeypatch.setenv("GIT_DIR", "/nowhere/.git")
    monkeypatch.setenv("GIT_INDEX_FILE", "/nowhere/index")
    assert said(compare()) == ["production/churn: default: memory 1Gi -> 2Gi"]


# -- the rules of an organisation -----------------------------------------------------------------------------------

RULES = """\
api_version: v1
policies:
- {name: memory, kind: variation, require: spec.deployment.memory != "3Gi", message: Not so much memory}
"""


@pytest.fixture
def ruled(checkout: Path) -> Path:
    """Main has a rule; the change, which has the rule as well, breaks it."""
    git(checkout, "checkout", "-q", "main")
    Path(policy.FILE).write_text(RULES)
    commit(checkout, "a rule")
    git(checkout, "checkout", "-q", "-B", "change")
    edit("memory: 1Gi", "memory: 3Gi")
    return checkout


def ruled_by(given: Path | None = None, head: str | None = None) -> tuple[list[str], list[str]]:
    """What becomes of rules, and the problems of those that are broken."""
    report = review.preview([Path("specs")], "main", head, (), offline.rules_of(given))
    effects = [one.text for one in report.effects if one.text.startswith("rule ")]
    return effects, [problem.message for problem in report.problems]


AS_BEFORE = "Not so much memory (production), as the base has the rule."


def test_a_change_cannot_take_away_the_rule_that_it_breaks(ruled: Path) -> None:
    assert ruled_by() == ([], ["Not so much memory (production)."])
    Path(policy.FILE).unlink()
    assert ruled_by() == (["rule memory is removed (Not so much memory)"], [AS_BEFORE])


def test_the_rules_of_a_head_are_those_of_its_commit(ruled: Path) -> None:
    Path(policy.FILE).write_text(RULES.replace("3Gi", "4Gi"))
    commit(ruled, "another rule")
    git(ruled, "checkout", "-q", "main")
    effect = 'rule memory is changed: require spec.deployment.memory != "3Gi" -> spec.deployment.memory != "4Gi"'
    assert ruled_by(head="change") == ([effect], [AS_BEFORE])
    assert ruled_by() == ([], [])  # the files are main's


def test_a_rule_is_found_from_a_folder_below(ruled: Path) -> None:
    os.chdir("specs")
    Path("..", policy.FILE).unlink()
    report = review.preview([Path()], "main", None, (), offline.rules_of(None))
    assert [problem.message for problem in report.problems] == [AS_BEFORE]


def test_rules_outside_of_the_repository_are_those_of_both_sides(ruled: Path, tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(RULES.replace("memory,", "theirs,"))
    assert ruled_by(tmp_path / "rules.yaml") == ([], ["Not so much memory (production)."])
    commit(ruled, "more memory")
    assert ruled_by(tmp_path / "rules.yaml", "change") == ([], ["Not so much memory (production)."])


def test_what_is_wrong_with_the_rules_of_the_base_stops_nothing(ruled: Path) -> None:
    git(ruled, "checkout", "-q", "-f", "main")
    Path(policy.FILE).write_text("policies: [")
    commit(ruled, "a broken rule")
    git(ruled, "checkout", "-q", "-B", "change")
    Path(policy.FILE).write_text(RULES)
    report = review.preview([Path("specs")], "main", None, (), offline.rules_of(None))
    assert report.problems == ()
    assert report.base is not None
    assert [problem.file for problem in report.base.problems] == [policy.FILE]


def test_rules_that_differ_are_a_file_that_differs(ruled: Path) -> None:
    Path(policy.FILE).write_text(RULES.replace("3Gi", "4Gi"))
    edit("memory: 3Gi", "memory: 1Gi")
    report = review.preview([Path("specs")], "main", None, (), offline.rules_of(None))
    assert report.base is not None
    assert report.base.files == (policy.FILE,)
