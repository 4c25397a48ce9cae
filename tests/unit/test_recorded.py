"""What is written down of a build that has ended: the file that says so is one that the code of a model can write."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler import recorded
from reconciler.readiness import Readiness, State
from reconciler.records import Build, BuildPhase, BuildRequest, Cause, Identity

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DONE, FAILED = Readiness(State.CURRENT), Readiness(State.FAILED, "BackoffLimitExceeded")
REQUEST = BuildRequest(id="b" * 64, model="churn", environment="prod", cause=Cause(kind="Spec", at=NOW))


def noted(message: str, state: Readiness = DONE) -> dict[str, Any]:
    """The status as it is sent to the cluster, of a pod that has left this message."""
    ended = {"exitCode": 0 if state is DONE else 1, "message": message}
    containers = [{"name": "build", "state": {"terminated": ended}}]
    pod = {"metadata": {"name": "build-x"}, "status": {"containerStatuses": containers}}
    build = Build(identity=Identity(name="churn-b"), spec=REQUEST)
    status = recorded.fitting(recorded.status_of(build, {"status": {}}, state, [pod]), ())
    sent: dict[str, Any] = orjson.loads(orjson.dumps(status.model_dump(mode="json")))
    return sent


def test_a_result_is_noted_with_its_numbers_as_they_were_written() -> None:
    found = noted('{"metrics": {"auc": 0.10, "n": 7}, "artifact": "a", "record": "r"}')
    assert found["metrics"] == {"auc": "0.10", "n": "7"}
    assert (found["phase"], found["artifact"], found["record"]) == (BuildPhase.SUCCEEDED, "a", "r")


@pytest.mark.parametrize(
    "message",
    [
        '{"metrics": [], "artifact": "a"}',
        '{"metrics": {}, "artifact": 5}',
        '{"metrics": {}, "record": {"key": "r"}}',
        '{"metrics": {"auc": 1}, "artifact": null}',
        '{"metrics": {"auc\\ud800": 1}}',
        "[" * 4096,
        '{"a":' * 800,
        "null",
        "7",
        "",
    ],
)
def test_what_is_no_result_is_taken_for_none(message: str) -> None:
    assert noted(message)["metrics"] == {}
    assert noted(message)["phase"] == BuildPhase.SUCCEEDED
    assert noted(message, FAILED)["failure"]["reason"] == "JobFailed"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)
_KEYS = st.sampled_from(["metrics", "artifact", "record", "metrics_left_out", "error", "step", "reason", "message"])


@given(
    st.dictionaries(_KEYS, _JSON | st.dictionaries(_KEYS | st.text(max_size=9), _JSON, max_size=4)).map(json.dumps)
    | st.text()
)
def test_whatever_a_build_leaves_is_noted_and_stops_nobody(message: str) -> None:
    noted(message)
    noted(message, FAILED)
