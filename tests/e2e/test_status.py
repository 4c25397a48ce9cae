"""`reconcile status` and `reconcile approve` as people use them, on a cluster where a reconciler has reported."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconciler import inventory, ledger
from reconciler.cluster import Writer, connect
from reconciler.inventory import Inventory, Place
from reconciler.telling import standing
from reconciler.telling.standing import EnvironmentStanding, Limit, State, listed
from tests.contract.conftest import PLANES
from tests.contract.faults import FaultProxy, answer, lose
from tests.e2e.conftest import started
from tests.e2e.harness import Plane
from tests.sample_standing import a_standing

STALE = {"kind": "Status", "code": 409, "reason": "Conflict", "message": "the object has been modified"}
PLACES = frozenset({Place("v1", "Service", "prod")})


@pytest.fixture(scope="module", params=PLANES)
def plane(request: pytest.FixtureRequest, installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """One for all tests of the module; the real cluster, too, where there is one."""
    with started(request.param, tmp_path_factory.mktemp("plane"), installed) as made:
        yield made


@pytest.fixture
def writer(plane: Plane) -> Iterator[Writer]:
    """The cluster, as a reconciler has left it."""
    connection = connect(str(plane.kubeconfig), trusted=True)
    writer = Writer(connection)
    ledger.ensure(writer)
    writer.apply(inventory.to_config_map(Inventory("prod", PLACES)), force=True)
    yield writer
    for target in (standing.OBJECT, inventory.object_id_of("prod")):
        live = writer.get(target)
        if live is not None:
            writer.delete(target, uid=live["metadata"]["uid"])
    connection.close()


def report(writer: Writer, one: standing.Standing, *, seconds: float = 12) -> None:
    """A reconciler reported so long ago."""
    at = datetime.now(UTC) - timedelta(seconds=seconds)  # noqa: TID251 - what the command compares with its own clock
    writer.apply(standing.to_config_map(replace(one, at=at)), force=True)


def live(writer: Writer) -> Any:
    body = writer.get(inventory.object_id_of("prod"))
    assert body is not None
    return body


class TestStatus:
    def test_what_the_reconciler_reported_is_at_its_head(self, plane: Plane, writer: Writer) -> None:
        report(writer, a_standing())
        shown = plane.reconcile("status")
        assert re.match(r"main at 3f9a1c2e77aa .*as of", shown.out)
        assert "reconcile approve 3f9a1c2e77aa -e production" in shown.out
        assert shown.out.endswith("Nothing is under way.\n")
        assert "\x1b" not in shown.out
        assert shown.code == 1, "a spec is wrong"

    @pytest.mark.parametrize(
        ("state", "seconds", "code"),
        [
            (State.SYNCED, 1, 0),
            (State.PROGRESSING, 1, 0),
            (State.BLOCKED, 1, 4),
            (State.UNREACHABLE, 1, 3),
            (State.SYNCED, 500, 3),
        ],
    )
    def test_the_exit_code_says_how_things_stand(
        self, plane: Plane, writer: Writer, state: State, seconds: float, code: int
    ) -> None:
        environments = {"prod": EnvironmentStanding(state=state)}
        report(writer, standing.Standing(datetime.now(UTC), environments=environments), seconds=seconds)  # noqa: TID251 - as above
        shown = plane.reconcile("status")
        assert shown.code == code, shown.text
        assert ("has not reported for 8 min" in shown.out) == (seconds > 100)

    def test_programs_get_the_same(self, plane: Plane, writer: Writer) -> None:
        report(writer, a_standing())
        data = plane.reconcile("status", "-o", "json").data
        assert data["standing"]["environments"]["production"]["state"] == "Blocked"
        assert 10 < data["standing"]["age_seconds"] < 60
        assert data["builds"] == data["promotions"] == []
        assert yaml.safe_load(plane.reconcile("status", "-o", "yaml").out)["standing"]["branch"] == "main"

    def test_without_a_reconciler_in_the_cluster_it_shows_the_records_alone(self, plane: Plane, writer: Writer) -> None:
        shown = plane.reconcile("status")
        assert (shown.code, shown.out, shown.err) == (0, "Nothing is under way.\n", "")
        assert json.loads(plane.reconcile("status", "-o", "json").out)["standing"] is None

    def test_a_report_that_somebody_edited_is_a_warning(self, plane: Plane, writer: Writer) -> None:
        writer.apply(standing.to_config_map(a_standing()) | {"data": {"standing.json": "{\x1b"}}, force=True)
        shown = plane.reconcile("status")
        assert shown.code == 0
        assert shown.err.startswith("warning: ConfigMap trueup-system/trueup.status: standing.json: Invalid JSON")
        assert "\x1b" not in shown.text


class TestApprove:
    def test_it_is_kept_with_the_inventory_under_the_name_that_the_cluster_knows(
        self, plane: Plane, writer: Writer
    ) -> None:
        said = plane.reconcile("approve", "3f9a1c2e77aa", "-e", "prod", "-m", "we have left that market")
        who = ledger.who(writer)
        assert (said.code, said.out) == (0, f"prod: plan 3f9a1c2e77aa is approved by {who}\n"), said.text
        assert inventory.approved_in(live(writer)) == ("3f9a1c2e77aa", who)
        assert live(writer)["metadata"]["annotations"]["trueup.dev/approved-reason"] == "we have left that market"

    def test_it_outlives_what_the_reconciler_writes_there_until_that_takes_it_away(
        self, plane: Plane, writer: Writer
    ) -> None:
        assert plane.reconcile("approve", "3f9a1c2e77aa", "-e", "prod").code == 0
        writer.apply(inventory.to_config_map(Inventory("prod")), force=True)
        assert inventory.approved_in(live(writer)) is not None
        assert inventory.from_config_map(live(writer)) == Inventory("prod")
        writer.update(inventory.without_approval(live(writer)))
        assert inventory.approved_in(live(writer)) is None

    def test_said_twice_it_is_said_once(self, plane: Plane, writer: Writer) -> None:
        assert plane.reconcile("approve", "3f9a1c2e77aa", "-e", "prod").code == 0
        version = live(writer)["metadata"]["resourceVersion"]
        assert plane.reconcile("approve", "3f9a1c2e77aa", "-e", "prod").code == 0
        assert live(writer)["metadata"]["resourceVersion"] == version

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["3f9a1c2e77aa", "-e", "nowhere"], "no environment 'nowhere' is in this cluster"),
            (["churn.default.prod.1a2b3c4d-1", "-e", "prod"], "not the id of one plan, which has 12 hex digits"),
            (["3f9a1c2e77aa", "000000000000", "-e", "prod"], "not the id of one plan"),
            (["3f9a1c2e77aa"], "is the id of a plan: say of which environment, by -e NAME"),
        ],
    )
    def test_what_cannot_be_meant_ends_with_a_sentence(
        self, plane: Plane, writer: Writer, arguments: list[str], words: str
    ) -> None:
        said = plane.reconcile("approve", *arguments)
        assert said.code == 1
        assert words in said.err
        assert len(said.err.splitlines()) == 1
        assert inventory.approved_in(live(writer)) is None

    def test_an_id_that_no_limit_has_is_refused_with_those_that_wait(self, plane: Plane, writer: Writer) -> None:
        held = Limit("prune/all", "all 3 objects of prod would be deleted", "3f9a1c2e77aa")
        told = standing.Standing(datetime.now(UTC), environments={"prod": EnvironmentStanding(limits=listed([held]))})  # noqa: TID251 - as above
        report(writer, told)
        said = plane.reconcile("approve", "deadbeef0000", "-e", "prod")
        assert said.code == 1
        assert re.search(r"deadbeef0000: no plan of prod .*as of \d+ s ago, what waits is 3f9a1c2e77aa\n$", said.err)
        assert inventory.approved_in(live(writer)) is None
        assert plane.reconcile("approve", "3f9a1c2e77aa", "-e", "prod").code == 0
        assert inventory.approved_in(live(writer)) is not None

    def test_where_nothing_waits_it_says_so(self, plane: Plane, writer: Writer) -> None:
        report(writer, standing.Standing(datetime.now(UTC), environments={"prod": EnvironmentStanding()}))  # noqa: TID251 - as above
        said = plane.reconcile("approve", "deadbeef0000", "-e", "prod")
        assert said.code == 1
        assert "nothing waits for an approval" in said.err
        assert inventory.approved_in(live(writer)) is None

    @pytest.mark.parametrize(("name", "seconds"), [("prod", 500), ("other", 1)])
    def test_what_a_reconciler_said_long_ago_or_of_others_refuses_nothing(
        self, plane: Plane, writer: Writer, name: str, seconds: float
    ) -> None:
        told = standing.Standing(datetime.now(UTC), environments={name: EnvironmentStanding()})  # noqa: TID251 - as above
        report(writer, told, seconds=seconds)
        assert plane.reconcile("approve", "3f9a1c2e77aa", "-e", "prod").code == 0
        assert inventory.approved_in(live(writer)) is not None

    def test_who_may_not_is_told_which_object_a_role_has_to_allow(self, plane: Plane, writer: Writer) -> None:
        refusal = {
            "kind": "Status",
            "code": 403,
            "reason": "Forbidden",
            "message": 'it is forbidden: User "eve" cannot',
        }
        with FaultProxy(plane.kubeconfig) as proxy:
            proxy.inject(answer(403, refusal), method="PUT")
            kubeconfig = proxy.kubeconfig(plane.folder / "eve")
            said = plane.reconcile("approve", "3f9a1c2e77aa", "-e", "prod", "--kubeconfig", kubeconfig)
        assert said.code == 3
        assert "ConfigMap/trueup-system/trueup-prod" in said.err
        assert "Grant it in the role of this account." in said.err
        assert inventory.approved_in(live(writer)) is None

    def test_an_answer_that_was_lost_is_looked_up_and_a_write_that_came_in_between_is_kept(
        self, plane: Plane, writer: Writer
    ) -> None:
        with FaultProxy(plane.kubeconfig) as proxy:
            proxy.inject(answer(409, STALE), method="PUT")
            proxy.inject(lose(), method="PUT")
            kubeconfig = proxy.kubeconfig(plane.folder / "alice")
            said = plane.reconcile("approve", "3f9a1c2e77aa", "-e", "prod", "--kubeconfig", kubeconfig)
            assert proxy.count("PUT") == 2
        assert said.code == 0, said.text
        assert inventory.approved_in(live(writer)) is not None
        assert inventory.from_config_map(live(writer)) == Inventory("prod", PLACES)
