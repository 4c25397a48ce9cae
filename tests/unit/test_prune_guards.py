"""What goes wrong with a repository never empties an environment (T40, T41, T44): from files to the plan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler import desired, inventory, offline, plan
from reconciler.inventory import Inventory
from reconciler.plan import Change, Guard, Observed, Op, Wanted
from renderers.catalog import Facts

ENVIRONMENTS = """
api_version: v1
spec:
  environments:
    - {name: staging}
    - {name: production, promote_after: staging}
"""


def model(name: str) -> str:
    return f"""
api_version: v1
spec:
  builds: [{{name: {name}-1, model: {name}, git_uri: "https://git.example.com/models.git#{name}"}}]
  variations: [{{model: {name}, name: default, environments: [staging, production], build: {name}-1}}]
"""


@pytest.fixture
def specs(tmp_path: Path) -> Path:
    """A repository with two environments and four models in each."""
    folder = tmp_path / "specs"
    folder.mkdir()
    (folder / "environments.yaml").write_text(ENVIRONMENTS)
    for name in ("churn", "fraud", "scoring", "ranking"):
        (folder / f"{name}.yaml").write_text(model(name))
    return folder


def wanted(folder: Path) -> dict[str, Wanted]:
    """What the specs in a folder ask for in staging and production, as every run reads them."""
    loaded = offline.load([folder])
    rendered = list(desired.build(loaded.catalog, Facts()))
    is_complete = not any(problem.severity == "error" for problem in loaded.problems)
    return {
        name: Wanted(
            name,
            [manifest for unit in rendered if unit.environment == name for manifest in unit.manifests],
            complete=is_complete and not any(unit.problem for unit in rendered),
            in_specs=name in loaded.catalog.environments,
        )
        for name in ("staging", "production")
    }


def applied(before: Wanted) -> Observed:
    """The cluster after these have been applied."""
    members = {
        manifest.id: {**manifest.body, "metadata": {**manifest.body["metadata"], "uid": str(number)}}
        for number, manifest in enumerate(before.manifests)
    }
    known = Inventory(before.environment, frozenset(map(inventory.place_of, members)))
    return Observed(before.environment, members, inventory=known)


def after(specs: Path, accident: Callable[[Path], Path]) -> dict[str, tuple[list[Change], list[Guard]]]:
    """The plan of each environment, when all had been applied before the accident."""
    before = {name: applied(one) for name, one in wanted(specs).items()}
    assert all(len(one.members) > 20 for one in before.values())
    return {name: plan.environment(one, before[name]) for name, one in wanted(accident(specs)).items()}


def renamed(folder: Path) -> Path:
    folder.rename(folder.with_name("models"))
    return folder


def below_itself(folder: Path) -> Path:
    """The wrong folder, one that exists: of another team, which has the same environments."""
    other = folder / "other"
    other.mkdir()
    (other / "environments.yaml").write_text(ENVIRONMENTS)
    (other / "else.yaml").write_text(model("else"))
    return other


def emptied(folder: Path) -> Path:
    for path in folder.glob("*.yaml"):
        path.write_text("")
    return folder


def without_environments(folder: Path) -> Path:
    (folder / "environments.yaml").unlink()
    return folder


def with_an_old_branch(folder: Path) -> Path:
    """As it was when there was one model."""
    for name in ("fraud", "scoring", "ranking"):
        (folder / f"{name}.yaml").unlink()
    return folder


def cut_short(folder: Path) -> Path:
    (folder / "fraud.yaml").write_text(model("fraud")[:-20])
    return folder


def in_conflict(folder: Path) -> Path:
    text = model("fraud")
    (folder / "fraud.yaml").write_text(f"<<<<<<< HEAD\n{text}=======\n{text}>>>>>>> feature\n")
    return folder


@pytest.mark.parametrize(
    "accident",
    [renamed, below_itself, emptied, without_environments, with_an_old_branch, cut_short, in_conflict],
)
def test_no_accident_deletes_anything_by_itself(specs: Path, accident: Callable[[Path], Path]) -> None:
    for changes, guards in after(specs, accident).values():
        deletions = [change for change in changes if change.op in (Op.DELETE, Op.REPLACE)]
        assert deletions, "it would, if nothing held it"
        assert not any(change.is_action for change in deletions)
        assert guards


@pytest.mark.parametrize("accident", [renamed, emptied, without_environments])
def test_what_cannot_be_read_can_be_approved_by_nobody_or_only_as_what_it_is(
    specs: Path, accident: Callable[[Path], Path]
) -> None:
    for changes, guards in after(specs, accident).values():
        for guard in guards:
            assert guard.rule in ("prune/incomplete", "prune/all")
            assert bool(guard.approval) == (guard.rule == "prune/all")
        assert sum(change.op is Op.DELETE for change in changes) > 20


def test_an_environment_that_moves_to_another_namespace_leaves_the_old_one_until_somebody_agrees(specs: Path) -> None:
    def moved(folder: Path) -> Path:
        text = ENVIRONMENTS.replace("{name: production,", "{name: production, namespace: elsewhere,")
        (folder / "environments.yaml").write_text(text)
        return folder

    changes, guards = after(specs, moved)["production"]
    assert {change.id.namespace for change in changes if change.op is Op.CREATE} == {"", "elsewhere"}
    left = [change for change in changes if change.id.namespace == "production" or change.id.name == "production"]
    assert {change.op for change in left} == {Op.DELETE}
    assert [guard.rule for guard in guards] == ["prune/budget"]
    assert not any(change.is_action for change in left)
    (namespace,) = [change for change in left if change.id.kind == "Namespace"]
    assert "never deleted by a plan" in namespace.held, "with or without approval"
    approved = plan.approved(plan.assemble(changes, (), guards), {guards[0].approval})
    assert ("Namespace", "production") not in {(change.id.kind, change.id.name) for change in approved.actions}


@pytest.mark.parametrize("is_member", [True, False], ids=["seen before", "never seen"])
def test_a_model_keeps_what_serves_it_while_nobody_may_look_for_its_route(specs: Path, *, is_member: bool) -> None:
    """A route that is not seen looks like one that is not there, and its requests would go to nothing."""
    before = applied(wanted(specs)["production"])
    route = next(target for target in before.members if (target.kind, target.name) == ("HTTPRoute", "fraud"))
    members = {target: body for target, body in before.members.items() if is_member or target.kind != "HTTPRoute"}
    seen = replace(before, members=members, blind={inventory.place_of(route): "httproutes is forbidden"})
    (specs / "fraud.yaml").unlink()
    changes, guards = plan.environment(wanted(specs)["production"], seen)
    deletions = [change for change in changes if change.op is Op.DELETE]
    assert {"Deployment", "Service"} <= {change.id.kind for change in deletions}
    assert not any(change.is_action for change in deletions)
    assert [(guard.rule, guard.approval) for guard in guards] == [("prune/blind", "")]


def test_a_model_keeps_what_serves_it_as_long_as_somebody_keeps_its_route(specs: Path) -> None:
    before = applied(wanted(specs)["production"])
    for target, body in before.members.items():
        if (target.kind, target.name) == ("HTTPRoute", "fraud"):
            body["metadata"]["annotations"]["trueup.dev/prevent-deletion"] = "true"
    (specs / "fraud.yaml").unlink()
    changes, _ = plan.environment(wanted(specs)["production"], before)
    kept = {change.id.kind for change in changes if change.op is Op.DELETE and "may still lead to it" in change.held}
    assert {"Deployment", "Service"} <= kept
    assert not any(change.is_action for change in changes if change.id.kind in ("Deployment", "Service"))
