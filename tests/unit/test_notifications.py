from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.notifications import GAVE_UP, PAGERDUTY, Message, owed, request
from reconciler.records import (
    Build,
    BuildPhase,
    BuildRequest,
    BuildStatus,
    Cause,
    Failure,
    Gate,
    Identity,
    Outcome,
    Phase,
    Promotion,
    PromotionRequest,
    PromotionStatus,
    Verdict,
)
from schemas.automation import Automation

NIGHT = datetime(2026, 11, 21, 3, 0, tzinfo=UTC)
NOW = NIGHT + timedelta(hours=2)
ENDED = NIGHT + timedelta(hours=1)
BUILD_ID = "1a2b3c4d" * 8

SLACK = {"slack": {"webhook_secret": "slack-ml"}}
PAGER = {"pagerduty": {"routing_key_secret": "pager-ml", "severity": "warning"}}
HOOK = {"url": "https://hooks.example/ml", "http_method": "POST", "data": {"channel": "ml"}}

SECRETS = {
    ("slack-ml", "url"): "https://hooks.slack.example/services/T0/B0/s3cret",
    ("pager-ml", "routing_key"): "r0uting",
    ("hook-token", "value"): "Bearer t0ken",
}


def read(name: str, key: str, default: str | None) -> str:
    value = SECRETS.get((name, key), default)
    assert value is not None
    return value


def automation(*, deploys: bool = True, **fields: Any) -> Automation:
    told = {"on_success": SLACK, "on_error": SLACK} | fields
    spec: dict[str, Any] = {
        "name": "nightly",
        "model": "churn",
        "trigger": "manual",
        "build_spec": {"git_uri": "https://git.example/models.git"},
        **told,
    }
    if deploys:
        spec["deployment_spec"] = {"environments": ["staging", "production"]}
    return Automation.model_validate(spec)


def build(
    phase: BuildPhase,
    *,
    number: int = 1,
    at: datetime = ENDED,
    notified: tuple[str, ...] = (),
    why: str = "",
    **spec: Any,
) -> Build:
    asked = {
        "id": BUILD_ID if number == 1 else f"{number:08x}" * 8,
        "model": "churn",
        "environment": "staging",
        "automation": "nightly",
        "cause": Cause(kind="Schedule", at=NIGHT),
    }
    failure = Failure(reason="ModelFailed", message=why) if why else None
    return Build(
        identity=Identity(name=f"churn-build-{number:08x}"),
        spec=BuildRequest(**(asked | spec)),
        status=BuildStatus(phase=phase, finished_at=at, notified=notified, failure=failure),
    )


def promotion(
    phase: Phase,
    *,
    environment: str = "staging",
    at: datetime = ENDED,
    message: str = "",
    verdict: str = "",
    notified: tuple[str, ...] = (),
    build_id: str = BUILD_ID,
    since: datetime | None = None,
) -> Promotion:
    asked = PromotionRequest(
        model="churn",
        variation="default",
        environment=environment,
        build=build_id,
        automation="nightly",
        cause=Cause(kind="Schedule", at=ENDED),
    )
    judged = Verdict(outcome=Outcome.REJECTED, reason="ThresholdNotMet", message=verdict, at=at)
    return Promotion(
        identity=Identity(name=f"churn.default.{environment}.{build_id[:8]}-1"),
        spec=asked,
        status=PromotionStatus(
            phase=phase,
            message=message,
            since=since or at,
            finished_at=None if phase is Phase.HELD else at,
            gate=Gate(verdicts=(judged,) if verdict else ()),
            notified=notified,
        ),
    )


def told(messages: list[Message]) -> list[tuple[str, str]]:
    return [(message.key, message.status) for message in messages]


# -- who is told, and when --


def test_a_failed_build_is_an_error_and_says_why() -> None:
    failed = build(BuildPhase.FAILED, why="build failed at main/model.py:12: KeyError: 'age'")

    (message,) = owed(automation(on_success=None), [failed], [], NOW)

    assert told([message]) == [("slack/Failed", "Failed: build failed at main/model.py:12: KeyError: 'age'")]
    assert message.execution_date == NIGHT
    assert owed(automation(on_error=None), [failed], [], NOW) == []


def test_a_build_that_nothing_is_deployed_of_succeeded() -> None:
    finished = build(BuildPhase.SUCCEEDED)

    assert told(owed(automation(deploys=False), [finished], [], NOW)) == [
        ("slack/Succeeded", "Succeeded: built and recorded; nothing is deployed")
    ]


def test_a_build_that_is_deployed_is_told_by_its_promotions() -> None:
    finished = build(BuildPhase.SUCCEEDED)
    moved = [promotion(Phase.SUCCEEDED), promotion(Phase.ROLLING_OUT, environment="production")]

    assert told(owed(automation(), [finished], moved, NOW)) == [
        ("slack/Succeeded", "Succeeded: deployed to staging, variation default")
    ]


def test_a_condition_that_is_not_met_is_a_success_that_was_not_deployed() -> None:
    rejected = promotion(Phase.REJECTED, verdict="auc 0.61 is not ABOVE 0.65")

    assert told(owed(automation(on_error=None), [build(BuildPhase.SUCCEEDED)], [rejected], NOW)) == [
        ("slack/NotDeployed", "Succeeded, not deployed: auc 0.61 is not ABOVE 0.65")
    ]


def test_a_gate_on_trial_is_not_why_a_person_rejected_it() -> None:
    rejected = promotion(Phase.REJECTED, verdict="auc 0.61 is not ABOVE 0.65", message="rejected by anna: bad week")
    (verdict,) = rejected.status.gate.verdicts
    on_trial = Gate(verdicts=(verdict.model_copy(update={"dry_run": True}),))
    status = rejected.status.model_copy(update={"gate": on_trial})

    assert [
        text for _, text in told(owed(automation(), [], [rejected.model_copy(update={"status": status})], NOW))
    ] == ["Succeeded, not deployed: rejected by anna: bad week"]


def test_environments_that_judge_alike_are_told_once() -> None:
    alike = [
        promotion(Phase.REJECTED, verdict="auc 0.61 is not ABOVE 0.65", environment=environment)
        for environment in ("staging", "production")
    ]
    other = promotion(Phase.REJECTED, message="rejected by anna: bad week", environment="canada")

    assert [status for _, status in told(owed(automation(), [], [*alike, other], NOW))] == [
        "Succeeded, not deployed: rejected by anna: bad week",
        "Succeeded, not deployed: auc 0.61 is not ABOVE 0.65",
    ]


@pytest.mark.parametrize(
    ("phase", "key", "status"),
    [
        (
            Phase.ROLLED_BACK,
            "slack/RolledBack",
            "Rolled back in staging, variation default: errors 7 % is not BELOW 5 %",
        ),
        (
            Phase.HELD,
            "slack/Held@2026-11-21T04:00:00Z",
            "Held in staging, variation default: errors 7 % is not BELOW 5 %",
        ),
    ],
)
def test_what_went_wrong_under_traffic_is_an_error(phase: Phase, key: str, status: str) -> None:
    moved = promotion(phase, message="errors 7 % is not BELOW 5 %")

    assert told(owed(automation(on_success=None), [], [moved], NOW)) == [(key, status)]


def test_a_promotion_that_is_held_a_second_time_is_told_a_second_time() -> None:
    again = promotion(Phase.HELD, notified=("slack/Held@2026-11-21T04:00:00Z",), since=ENDED + timedelta(minutes=5))

    assert [message.key for message in owed(automation(), [], [again], NOW)] == ["slack/Held@2026-11-21T04:05:00Z"]


@pytest.mark.parametrize("phase", [BuildPhase.PENDING, BuildPhase.RUNNING, BuildPhase.CANCELLED, BuildPhase.REGISTERED])
def test_what_goes_on_or_was_replaced_is_told_to_nobody(phase: BuildPhase) -> None:
    assert owed(automation(deploys=False), [build(phase)], [promotion(Phase.SUPERSEDED)], NOW) == []


def test_a_batch_that_succeeded_is_told() -> None:
    run = build(BuildPhase.SUCCEEDED, action="Batch")

    assert told(owed(automation(), [run], [], NOW)) == [("slack/Succeeded", "Succeeded")]


def test_other_automations_are_none_of_its_business() -> None:
    assert owed(automation(), [build(BuildPhase.FAILED, automation="weekly")], [], NOW) == []


@pytest.mark.parametrize("key", ["slack/Failed", "slack/Failed" + GAVE_UP])
def test_what_was_sent_or_given_up_is_not_owed_any_more(key: str) -> None:
    assert owed(automation(), [build(BuildPhase.FAILED, notified=(key,))], [], NOW) == []


def test_each_receiver_is_owed_by_itself() -> None:
    everybody = automation(on_error=SLACK | PAGER | {"custom_webhook": HOOK})
    failed = build(BuildPhase.FAILED, notified=("slack/Failed",))

    assert [message.key for message in owed(everybody, [failed], [], NOW)] == [
        "pagerduty/Failed",
        "custom_webhook/Failed",
    ]


def test_a_restored_backup_pages_nobody() -> None:
    old = build(BuildPhase.FAILED, at=NOW - timedelta(hours=25))

    assert owed(automation(), [old], [], NOW) == []


def test_secrets_are_those_of_the_environment_that_the_run_was_built_in() -> None:
    moved = promotion(Phase.SUCCEEDED, environment="production")

    assert [m.environment for m in owed(automation(), [build(BuildPhase.SUCCEEDED)], [moved], NOW)] == ["staging"]
    assert [m.environment for m in owed(automation(), [], [moved], NOW)] == ["production"]


# -- the end of incidents --


def test_a_later_run_that_goes_well_ends_the_incident() -> None:
    failed = build(BuildPhase.FAILED, notified=("pagerduty/Failed",))
    better = build(BuildPhase.SUCCEEDED, number=2, at=ENDED + timedelta(minutes=30))
    spec = automation(deploys=False, on_success=None, on_error=PAGER)

    assert owed(spec, [failed], [], NOW) == []
    (message,) = owed(spec, [failed, better], [], NOW)
    assert (message.key, message.record.name, message.resolves) == (
        "pagerduty/Failed/Resolved",
        failed.identity.name,
        True,
    )
    done = build(BuildPhase.FAILED, notified=("pagerduty/Failed", "pagerduty/Failed/Resolved"))
    assert owed(spec, [done, better], [], NOW) == []


def test_an_earlier_success_ends_nothing() -> None:
    failed = build(BuildPhase.FAILED, notified=("pagerduty/Failed",))
    before = build(BuildPhase.SUCCEEDED, number=2, at=ENDED - timedelta(minutes=30))

    assert owed(automation(on_success=None, on_error=PAGER), [failed, before], [], NOW) == []


def test_an_incident_that_pagerduty_never_heard_of_has_no_end() -> None:
    failed = build(BuildPhase.FAILED, notified=("pagerduty/Failed" + GAVE_UP,))
    better = build(BuildPhase.SUCCEEDED, number=2, at=ENDED + timedelta(minutes=30))

    assert owed(automation(on_success=None, on_error=PAGER), [failed, better], [], NOW) == []


def test_a_rollback_is_over_when_another_build_is_deployed_there() -> None:
    back = promotion(Phase.ROLLED_BACK, notified=("pagerduty/RolledBack",))
    later = ENDED + timedelta(minutes=30)
    elsewhere = promotion(Phase.SUCCEEDED, environment="production", build_id="2" * 64, at=later)
    there = promotion(Phase.SUCCEEDED, build_id="2" * 64, at=later)
    spec = automation(on_success=None, on_error=PAGER)

    assert owed(spec, [], [back, elsewhere], NOW) == []
    assert [message.key for message in owed(spec, [], [back, there], NOW)] == ["pagerduty/RolledBack/Resolved"]


def test_a_hold_is_over_when_the_promotion_goes_on() -> None:
    key = "pagerduty/Held@2026-11-21T04:00:00Z"
    spec = automation(on_success=None, on_error=PAGER)

    assert owed(spec, [], [promotion(Phase.HELD, notified=(key,))], NOW) == []
    assert [m.key for m in owed(spec, [], [promotion(Phase.ROLLING_OUT, notified=(key,))], NOW)] == [f"{key}/Resolved"]
    # It is one incident: what it was held for has come true.
    back = promotion(Phase.ROLLED_BACK, notified=(key,))
    assert [m.key for m in owed(spec, [], [back], NOW)] == ["pagerduty/RolledBack"]


# -- what is sent --


def failure(why: str = "out of memory", **receivers: Any) -> Message:
    (message,) = owed(automation(on_error=receivers), [build(BuildPhase.FAILED, why=why)], [], NOW)
    return message


def test_slack_gets_automation_model_status_and_time() -> None:
    made = request(failure(**SLACK), read)

    assert (made.method, made.url, made.secret) == ("POST", SECRETS["slack-ml", "url"], True)
    assert made.body is not None
    assert json.loads(made.body)["text"].splitlines() == [
        "Trueup: automation nightly",
        "Status: Failed: out of memory",
        "Model: churn",
        "Build: 1a2b3c4d",
        "Execution time: 2026-11-21 03:00:00 UTC",
    ]


def test_slack_obeys_nothing_that_somebody_wrote() -> None:
    made = request(failure("<!channel> *see* <https://evil.example|here> & there\nStatus: Succeeded", **SLACK), read)
    assert made.body is not None
    body = json.loads(made.body)

    assert body["mrkdwn"] is False
    status = "Failed: &lt;!channel&gt; *see* &lt;https://evil.example|here&gt; &amp; there Status: Succeeded"
    assert body["text"].splitlines()[1] == f"Status: {status}"


@given(st.text(max_size=2000))
def test_a_message_has_its_lines_and_a_bounded_length_whatever_was_written(why: str) -> None:
    made = request(failure(why or "-", **SLACK), read)
    assert made.body is not None
    text = json.loads(made.body)["text"]

    assert len(text.split("\n")) == len(text.splitlines()) == 5
    assert len(text) < 4000
    assert "<" not in text
    assert ">" not in text


def test_pagerduty_gets_an_incident_that_the_record_names() -> None:
    made = request(failure(**PAGER), read)
    assert made.body is not None

    assert made.url == PAGERDUTY
    assert json.loads(made.body) == {
        "routing_key": "r0uting",
        "event_action": "trigger",
        "dedup_key": "churn-build-00000001",
        "client": "Trueup",
        "payload": {
            "summary": "nightly (churn): Failed: out of memory",
            "source": "staging",
            "severity": "warning",
            "component": "churn",
            "group": "nightly",
            "custom_details": {
                "execution_date": "2026-11-21T03:00:00Z",
                "model_id": "churn",
                "automation": "nightly",
                "status": "Failed: out of memory",
                "build_id": BUILD_ID,
            },
        },
    }


def test_pagerduty_gets_the_end_of_the_same_incident() -> None:
    made = request(failure(**PAGER)._replace(resolves=True), read)
    assert made.body is not None

    assert json.loads(made.body) == {
        "routing_key": "r0uting",
        "event_action": "resolve",
        "dedup_key": "churn-build-00000001",
    }


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "HEAD"])
def test_a_webhook_gets_its_data_and_the_five_as_its_body(method: str) -> None:
    made = request(failure(custom_webhook=HOOK | {"http_method": method}), read)
    assert made.body is not None

    assert (made.method, made.url, made.secret) == (method, "https://hooks.example/ml", False)
    assert made.headers["Content-Type"] == "application/json"
    assert json.loads(made.body) == {
        "channel": "ml",
        "execution_date": "2026-11-21T03:00:00Z",
        "model_id": "churn",
        "automation": "nightly",
        "status": "Failed: out of memory",
        "build_id": BUILD_ID,
    }


def test_a_webhook_by_get_has_them_in_its_query() -> None:
    hook = HOOK | {"url": "https://hooks.example/ml?team=a#part", "http_method": "GET", "data": {"a&b": "c d/é"}}
    made = request(failure("x & y=1", custom_webhook=hook), read)

    assert made.body is None
    assert dict(parse_qsl(urlsplit(made.url).query)) == {
        "team": "a",
        "a&b": "c d/é",
        "execution_date": "2026-11-21T03:00:00Z",
        "model_id": "churn",
        "automation": "nightly",
        "status": "Failed: x & y=1",
        "build_id": BUILD_ID,
    }
    assert urlsplit(made.url).fragment == ""


def test_data_of_ones_own_cannot_stand_in_for_the_five() -> None:
    made = request(failure(custom_webhook=HOOK | {"data": {"status": "Succeeded"}}), read)
    assert made.body is not None

    assert json.loads(made.body)["status"] == "Failed: out of memory"


def test_headers_of_a_webhook_are_text_and_secrets_and_not_those_of_the_connection() -> None:
    hook = HOOK | {"headers": {"X-Team": "growth"}, "header_secrets": {"Authorization": "hook-token"}}
    message = failure(custom_webhook=hook)
    # No spec has these, and the request does not count on it.
    own = (("X-Team", "growth"), ("host", "evil"), ("Content-Length", "3"), ("Idempotency-Key", "mine"))
    made = request(message._replace(target=message.target.model_copy(update={"headers": own})), read)

    assert made.headers == {
        "X-Team": "growth",
        "Authorization": "Bearer t0ken",
        "Content-Type": "application/json",
        "Idempotency-Key": "Build/churn-build-00000001/custom_webhook/Failed",
    }
    assert made.secret


def test_a_message_itself_holds_no_secret() -> None:
    everything = repr([failure(**SLACK), failure(**PAGER), failure(custom_webhook=HOOK)])

    assert not any(value in everything for value in SECRETS.values())
