"""What people read before they agree: each folder in plans/ has specs, and the plan that is printed for them.

`after.yaml` is what the specs say now; `before.yaml`, where there is one, is what the cluster was last given, and the
cluster stores what it is given. Without it the plan is that of a dry run offline. `records-before.yaml` and
`records-after.yaml` hold what was built and promoted by then (`harness.facts_of`).
After a change that is meant: `pytest tests/golden --update`, and read the diff.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import pytest

from reconciler import desired, offline, plan
from reconciler.desired import Rendered
from reconciler.plan import Observed, Predicted, Wanted
from reconciler.report import Report, text
from renderers.manifest import Body, Manifest
from tests.golden.harness import facts_of

FOLDER = Path(__file__).parent / "plans"
CASES = sorted(path.name for path in FOLDER.iterdir())
AFTER, BEFORE, PRINTED = Path("after.yaml"), Path("before.yaml"), Path("plan.txt")


@pytest.mark.parametrize("case", CASES)
def test_specs_are_planned_as_printed(case: str, update: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER / case)  # so that the file names in the plan are those of the folder
    report = planned() if BEFORE.exists() else offline.preview(offline.load([AFTER]))
    page = "".join(f"{line}\n" for line in text.report(report, width=80, color=False))
    if update:
        PRINTED.write_text(page, encoding="utf-8")
    assert page == PRINTED.read_text(encoding="utf-8")


def planned() -> Report:
    """The plan from what `before.yaml` came to, to what `after.yaml` asks for."""
    loaded = offline.load([AFTER])
    errors = [problem for problem in loaded.problems if problem.severity == "error"]
    units = list(desired.build(loaded.catalog, facts_of(Path(), loaded.catalog, records="records-after.yaml")))
    earlier = offline.load([BEFORE]).catalog
    known = facts_of(Path(), earlier, records="records-before.yaml")
    wanted, live = by_environment(units), by_environment(desired.build(earlier, known))
    changes: list[plan.Change] = []
    guards: list[plan.Guard] = []
    for name in loaded.catalog.environments:
        members = {manifest.id: stored(manifest) for manifest in live[name]}
        asked = [m for m in wanted[name] if m.id in members and not plan.is_settled(m, members[m.id])]
        observed = Observed(name, members, predictions={m.id: Predicted(stored(m)) for m in asked})
        theirs, limits = plan.environment(Wanted(name, wanted[name], complete=not errors), observed)
        changes += theirs
        guards += limits
    return Report(loaded.problems, plan.assemble(changes, offline.notes_of(units), guards))


def by_environment(units: Iterable[Rendered]) -> dict[str, list[Manifest]]:
    found: dict[str, list[Manifest]] = defaultdict(list)
    for unit in units:
        found[unit.environment] += unit.manifests
    return found


def stored(manifest: Manifest) -> Body:
    """The object as a cluster has it; a Job has finished."""
    body = manifest.body | {"metadata": manifest.body["metadata"] | {"uid": f"uid of {manifest.id}"}}
    if manifest.id.kind == "Job":
        body["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}
    return body
