"""When automations run: from their Builds, what was seen of the world, and the time. Each test is one moment."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.records import Build, BuildPhase, BuildRequest, BuildStatus, Cause, Identity, Outcome, Verdict
from reconciler.triggers import AskMetric, AskPaths, Decision, Register, Seen, Start, Wait, due, run_name
from renderers.identity import build_id
from schemas.automation import Automation
from tests.conftest import examples

Kind = Literal["Spec", "Schedule", "Interval", "Metric", "Git", "Manual", "Immediate", "Registration"]

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
NOTHING = Seen()
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
A, B, C = "a" * 40, "b" * 40, "c" * 40

NIGHTLY = {"scheduled": {"cron": "0 3 * * *", "time_zone": "Europe/Berlin"}}  # 02:00 UTC in winter
METRIC = {"metric": {"sql_query": "select 1", "direction": "BELOW", "threshold": "0.8"}}


def automation(trigger: Any, **settings: Any) -> Automation:
    build = {"git_uri": "https://example.com/models#churn", **settings.pop("build_spec", {})}
    given = {"name": "nightly", "model": "churn", "trigger": trigger, "build_spec": build, **settings}
    return Automation.model_validate(given)


def build(
    at: datetime, kind: Kind = "Schedule", phase: BuildPhase = BuildPhase.SUCCEEDED, commit: str = A, name: str = ""
) -> Build:
    request = BuildRequest(
        id=commit + "0" * 24,
        model="churn",
        environment="staging",
        automation="nightly",
        cause=Cause(kind=kind, at=at),
        commit="" if kind == "Registration" else commit,
    )
    return Build(identity=Identity(name=name or f"churn-{at:%d-%H-%M}"), spec=request, status=BuildStatus(phase=phase))


def registered(at: datetime) -> Build:
    return build(at, "Registration", BuildPhase.REGISTERED)


def ask(trigger: Any, runs: Sequence[Build], seen: Seen = NOTHING, now: datetime = NOW, **settings: Any) -> Decision:
    return due(automation(trigger, **settings), runs, seen, now)


def started(decision: Decision) -> tuple[str, datetime, str]:
    """What started, for which instant, and the name of the run."""
    assert isinstance(decision, Start), decision
    return decision.cause.kind, decision.cause.at, decision.run


def why(decision: Decision) -> str:
    assert isinstance(decision, Wait), decision
    return decision.why


def verdict(at: datetime, outcome: Outcome, message: str) -> Verdict:
    return Verdict(outcome=outcome, reason="ThresholdMet", message=message, at=at)


# ---------------------------------------------------------------------------------------------------- first sight


@pytest.mark.parametrize("trigger", [NIGHTLY, {"scheduled": {"interval": "Daily"}}, METRIC, "manual"])
def test_a_new_automation_is_registered_and_its_schedule_counts_from_there(trigger: Any) -> None:
    decision = ask(trigger, [])
    assert isinstance(decision, Register)
    assert decision.cause == Cause(kind="Registration", at=NOW, reason="it is new")
    assert isinstance(ask(trigger, [registered(NOW)]), Wait)


@pytest.mark.parametrize("trigger", [NIGHTLY, {"scheduled": {"interval": "6h"}}, METRIC, "manual"])
def test_a_new_automation_that_executes_immediately_starts_once(trigger: Any) -> None:
    decision = ask(trigger, [], execute_immediately=True)
    assert started(decision) == ("Immediate", NOW, "nightly@first")
    assert isinstance(ask(trigger, [build(NOW, "Immediate")], execute_immediately=True), Wait)
    assert isinstance(ask(trigger, [registered(NOW)], execute_immediately=True), Wait)  # it is not new any more


def test_two_reconcilers_that_see_it_first_make_one_run() -> None:
    one, other = (ask(NIGHTLY, [], now=now, execute_immediately=True) for now in (NOW, NOW + timedelta(seconds=3)))
    assert started(one)[2] == started(other)[2]


def test_what_is_written_of_an_instant_is_what_is_read_back() -> None:
    now = NOW + timedelta(microseconds=123_456)
    decision = ask(NIGHTLY, [], now=now)
    assert isinstance(decision, Register)
    assert Cause.model_validate(decision.cause.model_dump(mode="json")) == decision.cause
    assert decision.cause.at <= now


# ------------------------------------------------------------------------------------------------------ schedules


def test_a_cron_schedule_is_waited_for_in_its_time_zone() -> None:
    decision = ask(NIGHTLY, [registered(NOW)])
    assert decision == Wait(
        datetime(2026, 11, 22, 2, tzinfo=UTC), "next run 2026-11-22T02:00:00Z (cron 0 3 * * * Europe/Berlin)"
    )


def test_a_run_is_due_at_its_instant_and_not_before() -> None:
    at = datetime(2026, 11, 22, 2, tzinfo=UTC)
    runs = [registered(NOW)]
    assert isinstance(ask(NIGHTLY, runs, now=at - timedelta(milliseconds=1)), Wait)
    assert started(ask(NIGHTLY, runs, now=at)) == ("Schedule", at, "nightly@2026-11-22T02:00:00.000Z")


def test_missed_runs_are_made_up_for_once_by_the_newest() -> None:
    missed = [build(NOW - 40 * DAY)]
    decision = ask(NIGHTLY, missed)
    assert started(decision)[1] == datetime(2026, 11, 21, 2, tzinfo=UTC)
    assert why(ask(NIGHTLY, [*missed, build(started(decision)[1])])).startswith("next run 2026-11-22T02:00:00Z")


def test_the_newest_build_decides_in_whatever_order_they_come() -> None:
    runs = [build(NOW - days * DAY) for days in (3, 0, 9)]
    assert isinstance(ask(NIGHTLY, runs), Wait)


@pytest.mark.parametrize("kind", ["Manual", "Immediate"])
def test_a_run_that_a_person_asked_for_is_a_run(kind: Kind) -> None:
    yesterday = build(NOW - DAY)
    assert isinstance(ask(NIGHTLY, [yesterday]), Start)
    assert isinstance(ask(NIGHTLY, [yesterday, build(NOW - HOUR, kind)]), Wait)


@pytest.mark.parametrize("phase", [BuildPhase.FAILED, BuildPhase.CANCELLED])
def test_a_run_that_failed_is_not_run_again_for_the_same_instant(phase: BuildPhase) -> None:
    assert isinstance(ask(NIGHTLY, [build(datetime(2026, 11, 21, 2, tzinfo=UTC), phase=phase)]), Wait)


def test_the_hour_that_autumn_shows_twice_has_two_runs() -> None:
    trigger = {"scheduled": {"cron": "30 2 * * *", "time_zone": "Europe/Berlin"}}
    first, second = datetime(2026, 10, 25, 0, 30, tzinfo=UTC), datetime(2026, 10, 25, 1, 30, tzinfo=UTC)
    runs = [build(first - DAY)]
    assert started(ask(trigger, runs, now=first)) == ("Schedule", first, run_name("nightly", first))
    assert started(ask(trigger, [*runs, build(first)], now=second)) == ("Schedule", second, run_name("nightly", second))


def test_a_schedule_that_never_comes_says_so() -> None:
    decision = ask({"scheduled": {"cron": "0 0 30 2 *"}}, [registered(NOW)])
    assert decision == Wait(None, "no run: its schedule has no instant that ever comes (cron 0 0 30 2 * UTC)")


@pytest.mark.parametrize(
    ("interval", "length"),
    [("Hourly", HOUR), ("Daily", DAY), ("Weekly", 7 * DAY), ("90s", timedelta(seconds=90)), ("6h", 6 * HOUR)],
)
def test_an_interval_counts_from_the_last_run(interval: str, length: timedelta) -> None:
    trigger, last = {"scheduled": {"interval": interval}}, NOW - 100 * DAY
    waiting = ask(trigger, [build(last)], now=last + length - timedelta(milliseconds=1))
    assert isinstance(waiting, Wait)
    assert waiting.until == last + length
    assert waiting.why.endswith(f"({interval} after the last run)")
    assert started(ask(trigger, [build(last)], now=last + length)) == (
        "Interval",
        last + length,
        run_name("nightly", last + length),
    )


def test_intervals_that_were_missed_are_made_up_for_once_and_do_not_drift() -> None:
    trigger, last = {"scheduled": {"interval": "6h"}}, NOW - timedelta(hours=20)
    assert started(ask(trigger, [build(last)]))[1] == last + 18 * HOUR
    assert started(ask(trigger, [build(last)], now=NOW + HOUR))[1] == last + 18 * HOUR  # a slow reconciler: the same
    waiting = ask(trigger, [build(last), build(last + 18 * HOUR)])
    assert isinstance(waiting, Wait)
    assert waiting.until == last + 24 * HOUR


def test_an_interval_beyond_the_calendar_never_comes() -> None:
    assert why(ask({"scheduled": {"interval": "999999999d"}}, [registered(NOW)])).startswith("no run: ")


def test_a_clock_that_went_back_is_waited_for() -> None:
    ahead = NOW + timedelta(days=2)
    decision = ask(NIGHTLY, [build(NOW - 9 * DAY), build(ahead)])
    assert isinstance(decision, Wait)
    assert decision.until == ahead
    assert "2026-11-23T12:00:00Z, and the clock says 2026-11-21T12:00:00Z" in decision.why


# ------------------------------------------------------------------------------------- disabled, suspended, manual


@pytest.mark.parametrize("trigger", [NIGHTLY, METRIC, "git", "manual"])
def test_what_is_disabled_or_suspended_never_runs(trigger: Any) -> None:
    for runs in ([], [build(NOW - 30 * DAY)]):
        disabled = automation(trigger, enabled=False, execute_immediately=True)
        assert why(due(disabled, runs, Seen(head=B), NOW)) == "it is disabled (enabled: false)"
        enabled = automation(trigger, execute_immediately=True)
        assert why(due(enabled, runs, Seen(head=B), NOW, suspended=True)) == "its environment is suspended"


def test_after_a_month_of_pause_it_runs_once() -> None:
    last = build(NOW - 30 * DAY)
    assert isinstance(ask(NIGHTLY, [last], enabled=False), Wait)
    decision = ask(NIGHTLY, [last])
    assert isinstance(ask(NIGHTLY, [last, build(started(decision)[1])]), Wait)


def test_a_manual_automation_says_how_to_run_it() -> None:
    assert why(ask("manual", [registered(NOW - DAY)])) == "it runs when a person asks: reconcile trigger nightly"


# ---------------------------------------------------------------------------------------------------- concurrency


def test_while_a_run_goes_on_the_next_one_waits_and_comes_once() -> None:
    going_on = build(NOW - 40 * DAY, phase=BuildPhase.RUNNING, name="churn-build-1")
    decision = ask(NIGHTLY, [going_on])
    assert decision == Wait(
        None, "the run of 2026-11-21T02:00:00Z waits for the end of churn-build-1 (concurrency_policy: Forbid)"
    )
    assert isinstance(ask(NIGHTLY, [build(NOW - 40 * DAY)]), Start)


def test_with_allow_runs_go_on_side_by_side() -> None:
    decision = ask(NIGHTLY, [build(NOW - DAY, phase=BuildPhase.RUNNING)], concurrency_policy="Allow")
    assert isinstance(decision, Start)
    assert decision.replaces == ()


def test_with_replace_a_run_ends_those_that_go_on() -> None:
    runs = [
        build(NOW - 3 * DAY, phase=BuildPhase.PENDING, name="b"),
        build(NOW - 2 * DAY, phase=BuildPhase.RUNNING, name="a"),
        build(NOW - DAY, name="over"),
    ]
    decision = ask(NIGHTLY, runs, concurrency_policy="Replace")
    assert isinstance(decision, Start)
    assert decision.replaces == ("a", "b")


@pytest.mark.parametrize("policy", ["Forbid", "Allow", "Replace"])
def test_a_run_that_is_not_due_disturbs_nobody(policy: str) -> None:
    runs = [build(NOW - HOUR, phase=BuildPhase.RUNNING)]
    assert why(ask(NIGHTLY, runs, concurrency_policy=policy)).startswith("next run ")


@pytest.mark.parametrize("trigger", [METRIC, "git"])
def test_nothing_is_asked_while_a_run_forbids_the_next(trigger: Any) -> None:
    runs = [build(NOW - DAY, phase=BuildPhase.RUNNING)]
    assert "concurrency_policy: Forbid" in why(ask(trigger, runs, Seen(head=B)))


# --------------------------------------------------------------------------------------------------------- metric


def test_a_metric_is_asked_when_a_check_is_due() -> None:
    now = NOW + timedelta(minutes=20)
    assert ask(METRIC, [registered(NOW - 5 * HOUR)], now=now) == AskMetric(NOW)
    assert ask(METRIC, [registered(NOW)], now=now) == Wait(
        NOW + HOUR, "next check 2026-11-21T13:00:00Z (cron 0 * * * * UTC)"
    )


def test_a_metric_that_lies_as_the_trigger_says_starts_a_run() -> None:
    met = verdict(NOW, Outcome.PASSED, "the metric 0.7 is below 0.8")
    decision = ask(METRIC, [registered(NOW - DAY)], Seen(metric=met))
    assert started(decision) == ("Metric", NOW, "nightly@2026-11-21T12:00:00.000Z")
    assert isinstance(decision, Start)
    assert decision.cause.reason == "the metric 0.7 is below 0.8"
    assert isinstance(ask(METRIC, [build(NOW, "Metric")], Seen(metric=met)), Wait)


@pytest.mark.parametrize("outcome", [Outcome.REJECTED, Outcome.INCONCLUSIVE, Outcome.ERROR])
def test_any_other_answer_starts_none_and_is_told(outcome: Outcome) -> None:
    seen = Seen(metric=verdict(NOW, outcome, "the metric: the query answered no row"))
    assert ask(METRIC, [registered(NOW - DAY)], seen) == Wait(
        NOW + HOUR,
        "the metric: the query answered no row; next check 2026-11-21T13:00:00Z (cron 0 * * * * UTC)",
    )


def test_the_answer_to_an_earlier_check_says_nothing_of_this_one() -> None:
    old = Seen(metric=verdict(NOW - HOUR, Outcome.PASSED, "the metric 0.7 is below 0.8"))
    assert ask(METRIC, [registered(NOW - DAY)], old) == AskMetric(NOW)


def test_a_metric_has_its_own_times_for_checks_in_utc() -> None:
    trigger = {"metric": METRIC["metric"] | {"override_cron": "30 6 * * 1"}}
    assert ask(trigger, [registered(NOW - 30 * DAY)]) == AskMetric(datetime(2026, 11, 16, 6, 30, tzinfo=UTC))


# ------------------------------------------------------------------------------------------------------------ git


def test_a_new_automation_on_a_branch_builds_its_head_at_once() -> None:
    decision = ask("git", [], Seen(head=A))
    assert started(decision) == ("Git", NOW, "")
    assert isinstance(decision, Start)
    assert decision.cause.reason == f"commit {A}"


def test_while_the_branch_is_unknown_nothing_happens() -> None:
    assert why(ask("git", [])) == "it is not known yet where its branch stands"


def test_a_commit_that_was_built_is_not_built_again() -> None:
    runs = [build(NOW - DAY, "Git", phase=BuildPhase.FAILED, name="churn-build-1")]
    assert why(ask("git", runs, Seen(head=A))) == "the newest commit, aaaaaaaaaaaa, had its run: churn-build-1"


def test_a_new_commit_is_built_where_it_changes_the_models_folders() -> None:
    runs = [build(NOW - 2 * DAY, "Git", commit=C), build(NOW - DAY, "Git", commit=A)]
    settings: dict[str, Any] = {"build_spec": {"dependency_required_folders": ["shared"]}}
    assert ask("git", runs, Seen(head=B), **settings) == AskPaths(A, B, ("churn", "shared"))
    assert started(ask("git", runs, Seen(head=B, changed=True), **settings)) == ("Git", NOW, "")
    assert (
        why(ask("git", runs, Seen(head=B, changed=False), **settings))
        == "commit bbbbbbbbbbbb changes nothing in churn, shared"
    )


def test_a_trigger_may_name_its_own_paths() -> None:
    decision = ask({"git": {"paths": ["features", "churn/main"]}}, [build(NOW - DAY, "Git")], Seen(head=B))
    assert decision == AskPaths(A, B, ("features", "churn/main"))


def test_where_the_model_is_the_whole_repository_every_commit_counts() -> None:
    whole: dict[str, Any] = {"build_spec": {"git_uri": "https://example.com/models"}}
    assert started(ask("git", [build(NOW - DAY, "Git")], Seen(head=B), **whole)) == ("Git", NOW, "")


def test_a_branch_that_is_set_back_to_a_commit_that_was_built_starts_nothing() -> None:
    runs = [build(NOW - 2 * DAY, "Git", commit=A), build(NOW - DAY, "Git", commit=B)]
    assert isinstance(ask("git", runs, Seen(head=A, changed=True)), Wait)


def test_a_commit_needs_no_clock() -> None:
    runs = [build(NOW + DAY, "Git")]
    assert started(ask("git", runs, Seen(head=B, changed=True))) == ("Git", NOW, "")
    assert isinstance(ask("git", [*runs, build(NOW, "Git", commit=B)], Seen(head=B, changed=True)), Wait)


def test_an_automation_that_only_was_registered_has_built_no_commit() -> None:
    assert isinstance(ask("git", [registered(NOW - DAY)], Seen(head=A)), Start)


def test_with_replace_a_newer_commit_ends_the_build_of_an_older_one() -> None:
    runs = [build(NOW - HOUR, "Git", phase=BuildPhase.RUNNING, name="churn-build-1")]
    decision = ask("git", runs, Seen(head=B, changed=True), concurrency_policy="Replace")
    assert isinstance(decision, Start)
    assert decision.replaces == ("churn-build-1",)
    assert (
        why(ask("git", runs, Seen(head=B, changed=True)))
        == f"commit {B} waits for the end of churn-build-1 (concurrency_policy: Forbid)"
    )


# ------------------------------------------------------------------------------------------------ batch executions


def test_a_batch_execution_has_the_same_triggers() -> None:
    batch = {
        "name": "nightly",
        "model": "churn",
        "trigger": NIGHTLY,
        "batch_execution": {"data_specifications": {"source_bucket": "one", "destination_bucket": "two"}},
    }
    decision = due(Automation.model_validate(batch), [build(NOW - DAY)], Seen(), NOW)
    assert started(decision) == (
        "Schedule",
        datetime(2026, 11, 21, 2, tzinfo=UTC),
        "nightly@2026-11-21T02:00:00.000Z",
    )


# ---------------------------------------------------------------------------------------- interruption, and rivals

TRIGGERS = [NIGHTLY, {"scheduled": {"cron": "*/5 * * * *"}}, {"scheduled": {"interval": "7m"}}, METRIC, "git"]
BUILD_SPEC = automation(NIGHTLY).build_spec


class World:
    """Records that admit a Build once, by the id that its run has."""

    def __init__(self) -> None:
        self.builds: dict[str, Build] = {}
        self.head = A

    def apply(self, decision: Decision) -> None:
        assert BUILD_SPEC is not None
        if isinstance(decision, Start):
            run, phase = decision.run, BuildPhase.SUCCEEDED
        elif isinstance(decision, Register):
            run, phase = "registered", BuildPhase.REGISTERED
        else:
            return
        name = build_id(BUILD_SPEC, "churn", self.head, run=run).id[:20]
        self.builds.setdefault(name, build(decision.cause.at, decision.cause.kind, phase, self.head, name))

    def decide(self, subject: Automation, now: datetime) -> Decision:
        seen = Seen(head=self.head)
        while True:
            decision = due(subject, list(self.builds.values()), seen, now)
            if isinstance(decision, AskMetric):
                seen = seen._replace(metric=verdict(decision.at, Outcome.PASSED, "the metric 0.7 is below 0.8"))
            elif isinstance(decision, AskPaths):
                seen = seen._replace(changed=True)
            else:
                return decision


class Pass(NamedTuple):
    milliseconds: int  #: after the one before
    is_killed: bool  #: between deciding and writing, once
    has_rival: bool  #: who decides on the same records a little later, and writes last
    head: str


passes = st.builds(Pass, st.integers(0, 3 * 86_400_000), st.booleans(), st.booleans(), st.sampled_from([A, B, C]))


@settings(max_examples=examples(60))
@given(st.sampled_from(TRIGGERS), st.booleans(), st.lists(passes, min_size=1, max_size=12))
def test_crashes_and_rivals_make_no_run_more_and_none_less(trigger: Any, immediately: bool, passes: list[Pass]) -> None:
    subject = automation(trigger, execute_immediately=immediately)
    calm, rough, now = World(), World(), NOW
    for each in passes:
        now += timedelta(milliseconds=each.milliseconds)
        calm.head = rough.head = each.head
        calm.apply(calm.decide(subject, now))
        if each.is_killed:
            rough.decide(subject, now)
        decision, rival = (rough.decide(subject, now + timedelta(milliseconds=late)) for late in (0, 17))
        rough.apply(decision)
        if each.has_rival and run_of(rival) == run_of(decision):  # else an instant came in those 17 ms
            rough.apply(rival)
        assert rough.builds.keys() == calm.builds.keys()
        assert isinstance(rough.decide(subject, now), Wait)  # one pass is enough, and the next finds nothing to do


def run_of(decision: Decision) -> str | None:
    return decision.run if isinstance(decision, Start) else None


@given(
    st.sampled_from(TRIGGERS[:4]),
    st.timedeltas(timedelta(0), timedelta(days=800)),
    st.timedeltas(timedelta(0), timedelta(days=3)),
)
def test_waiting_until_it_says_finds_it_due_and_any_sooner_does_not(
    trigger: Any, passed: timedelta, part: timedelta
) -> None:
    world, now = World(), NOW + timedelta(milliseconds=passed // timedelta(milliseconds=1))
    world.apply(Register(Cause(kind="Registration", at=now)))
    waiting = world.decide(automation(trigger), now)
    assert isinstance(waiting, Wait)
    assert waiting.until is not None
    assert waiting.until > now
    sooner = min(now + part, waiting.until - timedelta(milliseconds=1))
    assert isinstance(world.decide(automation(trigger), sooner), Wait)
    assert started(world.decide(automation(trigger), waiting.until))[1] == waiting.until
