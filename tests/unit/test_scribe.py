"""What is told of what keepers do: once, however often it happens."""

from __future__ import annotations

import pytest

from reconciler.daemon import scribe
from reconciler.daemon.scribe import Scribe
from reconciler.plan import Change, Op
from reconciler.report import Done, Outcome
from reconciler.telling.metrics import Metrics
from renderers.manifest import ObjectId
from schemas.problem import Problem


@pytest.fixture
def telling() -> Scribe:
    return Scribe(Metrics("1"), lambda _: None, lambda: None)


def fail(telling: Scribe, caplog: pytest.LogCaptureFixture, environment: str, name: str = "churn") -> bool:
    """Whether that is said."""
    caplog.clear()
    change = Change(Op.CREATE, ObjectId("v1", "Service", environment, name), environment)
    telling.did(environment, Done(change, Outcome.FAILED, "its quota is used up"))
    return bool(caplog.records)


def test_what_fails_again_is_said_once_until_its_environment_is_forgotten(
    telling: Scribe, caplog: pytest.LogCaptureFixture
) -> None:
    assert [fail(telling, caplog, name) for name in ("dev", "prod", "dev", "prod")] == [True, True, False, False]
    telling.forgot("dev")
    assert [fail(telling, caplog, name) for name in ("dev", "prod")] == [True, False]


def test_of_what_nobody_wants_any_more_only_so_much_is_remembered(
    telling: Scribe, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scribe, "_LEFT", 2)
    assert all(fail(telling, caplog, "prod", name) for name in ("churn", "fraud", "upsell"))
    assert [fail(telling, caplog, "prod", name) for name in ("upsell", "fraud", "churn")] == [False, False, True]


def test_what_a_rule_warns_of_is_said_once_for_each_change(telling: Scribe, caplog: pytest.LogCaptureFixture) -> None:
    def said(*names: str) -> list[str]:
        caplog.clear()
        telling.warned(
            "prod", [Problem("p", 1, 1, (), "policy/a", f"Not so ({name}).", "", "warning") for name in names]
        )
        return [record.__dict__["fields"]["why"] for record in caplog.records]

    assert said("churn") == ["Not so (churn)."]
    assert said("churn", "fraud") == ["Not so (fraud)."]
    telling.forgot("prod")
    assert said("churn") == ["Not so (churn)."]
