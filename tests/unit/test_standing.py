"""What the reconciler says of itself: through its ConfigMap and back, within its bounds, and as people read it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler import inventory
from reconciler.inventory import Approved, Inventory
from reconciler.report import ExitCode
from reconciler.report import standing as report
from reconciler.telling import standing
from reconciler.telling.standing import (
    Drift,
    EnvironmentStanding,
    Limit,
    Source,
    Standing,
    StandingError,
    State,
    Unsettled,
    lasted,
    listed,
    state_of,
)
from tests.sample_standing import NOW, a_standing, ago

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
MOMENTS = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis adds it
DRIFT = st.builds(
    Drift, object=TEXT, fields=st.lists(TEXT, max_size=3).map(tuple), manager=TEXT, since=st.none() | MOMENTS
)
ENVIRONMENTS = st.builds(
    EnvironmentStanding,
    cluster=TEXT,
    revision=TEXT,
    state=st.sampled_from(State),
    objects=st.dictionaries(TEXT, st.integers(0, 10_000), max_size=3),
    unsettled=st.lists(st.builds(Unsettled, model=TEXT, why=TEXT, since=st.none() | MOMENTS), max_size=3).map(listed),
    limits=st.lists(st.builds(Limit, rule=TEXT, message=TEXT, approval=TEXT), max_size=3).map(listed),
    drift=st.lists(DRIFT, max_size=3).map(listed),
    last_pass=st.none(),
    trouble=TEXT,
)
STANDINGS = st.builds(
    Standing,
    at=MOMENTS,
    revision=TEXT,
    branch=TEXT,
    committed_at=st.none() | MOMENTS,
    applied_at=st.none() | MOMENTS,
    leader=TEXT,
    source=st.builds(Source, repository=TEXT, fetched_at=st.none() | MOMENTS, trouble=TEXT),
    environments=st.dictionaries(TEXT, ENVIRONMENTS, max_size=3),
    specs=st.just(a_standing().specs),
    left_out=st.just(0),
)


def shown(one: Standing, now: datetime = NOW, width: int = 80) -> str:
    return "\n".join(report.text(one, now, width=width, color=False))


def stored(one: Standing) -> Standing:
    return standing.from_config_map(standing.to_config_map(one))


class TestConfigMap:
    @given(STANDINGS)
    def test_a_standing_survives_it(self, one: Standing) -> None:
        assert stored(one) == one

    def test_it_is_no_environments_inventory_whatever_they_are_called(self) -> None:
        name = standing.to_config_map(a_standing())["metadata"]["name"]
        assert name == standing.NAME
        assert not name.startswith(inventory.name_of(""))

    def test_lists_say_how_long_they_were(self) -> None:
        drift = listed((Drift(f"Service/prod/{number}", since=NOW) for number in range(200)), 50)
        found = stored(replace(a_standing(), environments={"prod": EnvironmentStanding(drift=drift)}))
        assert len(found.environments["prod"].drift.shown) == 50
        assert found.environments["prod"].drift.more == 150

    def test_what_is_less_important_is_cut_first(self) -> None:
        many = listed(Drift("Deployment/prod/churn", ("x" * 400,) * 3, since=NOW) for _ in range(50))
        limits = listed(Limit("prune/budget", "y" * 400, "3f9a1c2e77aa") for _ in range(5))
        one = EnvironmentStanding(drift=many, limits=limits)
        found = stored(replace(a_standing(), environments={f"e{number}": one for number in range(20)}))
        for environment in found.environments.values():
            assert len(environment.drift.shown) < 50
            assert environment.drift.total == 50
            assert environment.limits == limits
        assert found.left_out == 0

    def test_of_very_many_environments_those_in_trouble_stay(self) -> None:
        fine = {f"fine-{number}": EnvironmentStanding(state=State.SYNCED, trouble="z" * 400) for number in range(5000)}
        bad = {"bad": EnvironmentStanding(state=State.DEGRADED)}
        found = stored(replace(a_standing(), environments=fine | bad))
        assert "bad" in found.environments
        assert len(found.environments) + found.left_out == 5001

    @settings(max_examples=30)
    @given(st.integers(0, 400), st.integers(0, 200), st.integers(0, 3000))
    def test_it_always_fits(self, environments: int, drifts: int, length: int) -> None:
        drift = listed(Drift("é" * length, ("f" * length,), since=NOW) for _ in range(drifts))
        one = EnvironmentStanding(drift=drift, trouble="t" * length)
        body = standing.to_config_map(Standing(NOW, environments={f"e{n}": one for n in range(environments)}))
        assert len(body["data"]["standing.json"].encode()) <= 256 * 1024

    def test_a_file_name_that_is_no_utf_8_is_no_reason_not_to_report(self) -> None:
        assert stored(Standing(NOW, branch="caf\udce9")).branch == "caf\\udce9"

    @pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"at": "yesterday"}', '{"at": "2026-11-21T03:00:00"}'])
    def test_one_that_somebody_edited_is_refused_with_a_sentence(self, text: str) -> None:
        with pytest.raises(StandingError, match=r"ConfigMap trueup-system/trueup\.status: "):
            standing.from_config_map({"data": {"standing.json": text}})

    def test_what_a_newer_reconciler_adds_is_no_mistake(self) -> None:
        body = standing.to_config_map(a_standing())
        data = json.loads(body["data"]["standing.json"]) | {"mood": "good"}
        assert standing.from_config_map({"data": {"standing.json": json.dumps(data)}}) == a_standing()


class TestState:
    def test_the_gravest_of_what_is_true_is_told(self) -> None:
        assert state_of() is State.SYNCED
        assert state_of(busy=True) is State.PROGRESSING
        assert state_of(busy=True, blocked=True) is State.BLOCKED
        assert state_of(blocked=True, failed=True) is State.DEGRADED
        assert state_of(failed=True, reachable=False) is State.UNREACHABLE
        assert state_of(reachable=False, suspended=True) is State.SUSPENDED

    @pytest.mark.parametrize(
        ("seconds", "words"),
        [(-5, "0 s"), (12, "12 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h"), (200_000, "2 d")],
    )
    def test_a_span_is_told_in_a_unit_that_fits(self, seconds: int, words: str) -> None:
        assert lasted(timedelta(seconds=seconds)) == words


class TestPrinted:
    def test_all_of_it_is_there_in_80_columns(self) -> None:
        text = shown(a_standing())
        assert max(map(len, text.splitlines())) <= 80
        words = " ".join(text.split())
        for part in (
            "main at 3f9a1c2e77aa (committed 9 min ago), 31 specs, applied 7 min ago; as of 12 s ago by trueup-0",
            "specs/a.yaml:3:5: error: The threshold is no string.",
            "staging Synced 3f9a1c2e 42 ready looked at 40 s ago in 0.4 s",
            "production Blocked 3f9a1c2e 40 ready, 2 in progress looked at 4 s ago in 12.4 s",
            "If that is meant: reconcile approve 3f9a1c2e77aa -e production",
            "! not all specs could be read and rendered.",
            "churn: 1 of 2 pods are available (for 3 min)",
            "kubectl-edit changed spec.replicas, spec.template.spec.containers[0].image; it is mended (3 h ago)",
            "Service/production/churn: somebody deleted it; it is left so (30 min ago)",
        ):
            assert part in words

    def test_what_is_cut_is_counted(self) -> None:
        drift = listed((Drift(f"Service/prod/{number}", since=NOW) for number in range(3)), 1)
        one = replace(a_standing(), environments={"prod": EnvironmentStanding(drift=drift)}, left_out=1)
        assert "and 2 more drifted objects" in shown(one)
        assert shown(one).endswith("and 1 more environment")

    def test_old_news_say_that_they_are_old(self) -> None:
        text = shown(a_standing(), NOW + timedelta(minutes=7))
        assert text.startswith("! the reconciler has not reported for 7 min: it may not run any more")
        assert "not reported" not in shown(a_standing())

    def test_no_text_of_anybody_commands_the_terminal(self) -> None:
        text = shown(a_standing("\x1b[2J\u202e\r\n"))
        assert all(line.isprintable() for line in text.splitlines())
        assert "\\x1b[2J" in text

    def test_colours_are_for_terminals(self) -> None:
        plain, painted = (report.text(a_standing(), NOW, width=80, color=color) for color in (False, True))
        assert "\x1b[" not in "".join(plain)
        assert "\x1b[33mBlocked" in "".join(painted)

    @given(STANDINGS, st.integers(20, 200))
    def test_any_standing_can_be_printed(self, one: Standing, width: int) -> None:
        assert shown(one, width=width).replace("\n", "").isprintable()

    def test_programs_get_all_of_it_with_its_age(self) -> None:
        data = report.as_data(a_standing(), NOW)
        assert (data["age_seconds"], data["stale"]) == (12, False)
        assert data["environments"]["production"]["limits"]["shown"][0]["approval"] == "3f9a1c2e77aa"
        json.dumps(data)


class TestExitCode:
    @pytest.mark.parametrize(
        ("state", "code"),
        [
            (State.SYNCED, ExitCode.FINE),
            (State.PROGRESSING, ExitCode.FINE),
            (State.SUSPENDED, ExitCode.FINE),
            (State.BLOCKED, ExitCode.BLOCKED),
            (State.UNREACHABLE, ExitCode.WORLD),
            (State.DEGRADED, ExitCode.SPECS),
        ],
    )
    def test_it_follows_the_states(self, state: State, code: ExitCode) -> None:
        one = Standing(NOW, environments={"prod": EnvironmentStanding(state=state)})
        assert report.exit_code(one, NOW) is code

    def test_wrong_specs_an_old_report_and_a_repository_out_of_reach_tell(self) -> None:
        assert report.exit_code(replace(a_standing(), environments={}), NOW) is ExitCode.SPECS
        assert report.exit_code(Standing(ago(minutes=5)), NOW) is ExitCode.WORLD
        assert report.exit_code(Standing(NOW, source=Source(trouble="no answer")), NOW) is ExitCode.WORLD


class TestApproval:
    LIVE = inventory.to_config_map(Inventory("production")) | {"data": {"places": "v1 Service prod"}}

    def test_who_approved_of_which_plan_can_be_read_again(self) -> None:
        said = Approved("3f9a1c2e77aa", "system:serviceaccount:a b:c")
        written = inventory.with_approval(self.LIVE, said, "we have left that market")
        assert inventory.approved_in(written) == said
        assert written["metadata"]["annotations"]["trueup.dev/approved-reason"] == "we have left that market"
        assert written["data"] == self.LIVE["data"]
        assert inventory.from_config_map(written) == inventory.from_config_map(self.LIVE)

    def test_what_was_approved_before_does_not_stay(self) -> None:
        first = inventory.with_approval(self.LIVE, Approved("3f9a1c2e77aa", "alice"), "because")
        second = inventory.with_approval(first, Approved("000000000000", "bob"))
        assert inventory.approved_in(second) == Approved("000000000000", "bob")
        assert "trueup.dev/approved-reason" not in second["metadata"]["annotations"]

    def test_it_is_taken_away_without_a_trace(self) -> None:
        assert inventory.approved_in(self.LIVE) is None
        written = inventory.with_approval(self.LIVE, Approved("3f9a1c2e77aa", "alice"), "because")
        assert inventory.without_approval(written) == self.LIVE

    @pytest.mark.parametrize(
        "text", ["", "3f9a1c2e77aa", "3f9a1c2e77aa by ", "3F9A1C2E77AA by alice", "3f9a1c2e77 by alice", "all by alice"]
    )
    def test_what_has_another_form_approves_nothing(self, text: str) -> None:
        live: Any = {"metadata": {"annotations": {inventory.APPROVED: text}}}
        assert inventory.approved_in(live) is None
