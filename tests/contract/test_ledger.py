"""Records on real API servers: created once, changed only as they were read, and read whatever people did to them."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest

from reconciler import ledger
from reconciler.cluster import ApiError, Connection, NotFound, Stale, Writer, connect
from reconciler.records import (
    NAMESPACE,
    Action,
    Build,
    BuildPhase,
    BuildStatus,
    Phase,
    Promotion,
    PromotionStatus,
    from_body,
    object_id_of,
    to_body,
)
from renderers.manifest import Body, ObjectId, object_id
from tests.contract.client import KUBECTL, EmbeddedServer
from tests.contract.faults import Fault, FaultProxy, answer, lose
from tests.sample_records import a_build, a_decision, a_full_build, a_full_promotion, a_promotion, at

T = TypeVar("T")
#: Creates a record, and gives it as it is stored.
Create = Callable[[Any], Any]
DEFINITIONS = "customresourcedefinitions"


@pytest.fixture
def proxy(server: tuple[Path, str]) -> Iterator[FaultProxy]:
    with FaultProxy(server[0]) as proxy:
        yield proxy


@pytest.fixture
def writer(proxy: FaultProxy, tmp_path: Path) -> Iterator[Writer]:
    """A cluster that has the kinds, with faults where a test injects some."""
    with connected(proxy.kubeconfig(tmp_path / "kubeconfig")) as writer:
        assert ledger.ensure(writer) == []
        yield writer


@pytest.fixture
def other(server: tuple[Path, str], writer: Writer) -> Iterator[Writer]:
    """Another account of the same cluster's, without faults."""
    with connected(server[0]) as other:
        yield other


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[FaultProxy]:
    """A cluster of its own, where Trueup never was. On one that tests share, removing a kind removes its records."""
    server = EmbeddedServer(tmp_path / "bare")
    try:
        with FaultProxy(server.kubeconfig) as proxy:
            yield proxy
    finally:
        assert server.end() == 0


class connected:  # noqa: N801 - a context manager, which reads as what it gives
    def __init__(self, kubeconfig: Path) -> None:
        self.connection: Connection = connect(str(kubeconfig), trusted=True)

    def __enter__(self) -> Writer:
        return Writer(self.connection)

    def __exit__(self, *_: object) -> None:
        self.connection.close()


@pytest.fixture
def record(writer: Writer) -> Iterator[Create]:
    """Creates a record, and gives it as it is stored; it is gone after the test."""
    made: list[Build | Promotion] = []

    def create(wanted: Any) -> Any:
        assert ledger.create(writer, wanted)
        made.append(wanted)
        return stored(writer, wanted)

    yield create
    for one in made:
        live = writer.get(object_id_of(one))
        if live is not None:
            remove(writer, live)


def remove(writer: Writer, live: Body) -> None:
    writer.delete(object_id(live), uid=live["metadata"]["uid"], propagation="Background")


def stored(writer: Writer, record: Any) -> Any:
    live = writer.get(object_id_of(record))
    assert live is not None
    return from_body(type(record), live)


def with_status(record: Any, **changes: Any) -> Any:
    return record.model_copy(update={"status": record.status.model_copy(update=changes)})


def at_once(count: int, work: Callable[[int], T]) -> list[T]:
    """What each of so many threads returns that begin together."""
    barrier = threading.Barrier(count)

    def run(number: int) -> T:
        barrier.wait()
        return work(number)

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(run, range(count)))


def meanwhile(action: Callable[[], object]) -> Fault:
    """Let something else happen before the request is passed on."""

    def act(handler: Any, request: bytes) -> None:
        action()
        response = handler.ask_upstream(request)
        handler.reply(response.status, {"Content-Type": "application/json"}, response.read())

    return act


# -- the kinds ------------------------------------------------------------------------------------------------------


def test_a_cluster_without_the_kinds_has_no_records_and_that_is_no_error(bare: FaultProxy, tmp_path: Path) -> None:
    with connected(bare.kubeconfig(tmp_path / "kubeconfig")) as writer:
        found, troubles = ledger.read(writer)
    assert (dict(found.builds), found.promotions, troubles) == ({}, (), [])


def test_the_kinds_are_installed_and_can_be_used_at_once(bare: FaultProxy, tmp_path: Path) -> None:
    with connected(bare.kubeconfig(tmp_path / "kubeconfig")) as writer:
        ledger.read(writer)
        assert ledger.ensure(writer) == []
        build = a_build()
        assert ledger.create(writer, build)
        assert list(ledger.read(writer)[0].builds) == [build.identity.name]


def test_a_cluster_that_has_everything_is_asked_three_times_and_then_never(
    writer: Writer, proxy: FaultProxy, tmp_path: Path
) -> None:
    with connected(proxy.kubeconfig(tmp_path / "another")) as fresh:
        proxy.seen.clear()
        assert ledger.ensure(fresh) == []
        methods = [seen.method for seen in proxy.seen if "?" not in seen.path]
        assert set(methods) == {"GET"}
        assert proxy.count("GET", f"{DEFINITIONS}/|namespaces/{NAMESPACE}$") == 3
        proxy.seen.clear()
        assert ledger.ensure(fresh) == []
        assert proxy.seen == []


def test_kinds_that_somebody_removed_are_installed_again(bare: FaultProxy, tmp_path: Path) -> None:
    with connected(bare.kubeconfig(tmp_path / "kubeconfig")) as writer:
        assert ledger.ensure(writer) == []
        for definition in ledger.definitions():
            target = ObjectId("apiextensions.k8s.io/v1", "CustomResourceDefinition", "", definition["metadata"]["name"])
            live = writer.get(target)
            assert live is not None
            remove(writer, live)
        assert ledger.read(writer)[1] == []
        assert ledger.ensure(writer) == []
        assert ledger.create(writer, a_build())


@pytest.mark.parametrize(("revision", "afterwards"), [("0", "1"), ("", "1"), ("abc", "1"), ("1", "1"), ("999", "999")])
def test_an_older_definition_is_replaced_and_a_newer_one_is_left_alone(
    writer: Writer, other: Writer, revision: str, afterwards: str
) -> None:
    definition = ledger.definitions()[0]
    definition["metadata"]["annotations"] = {ledger.REVISION: revision}
    columns = definition["spec"]["versions"][0].pop("additionalPrinterColumns")
    target = ObjectId("apiextensions.k8s.io/v1", "CustomResourceDefinition", "", definition["metadata"]["name"])
    try:
        writer.apply(definition, force=True, manager="helm")
        assert ledger.ensure(other) == []
        live = writer.get(target)
        assert live is not None
        assert live["metadata"]["annotations"][ledger.REVISION] == afterwards
        is_ours = live["spec"]["versions"][0].get("additionalPrinterColumns") == columns
        assert is_ours == (afterwards == "1")
    finally:
        writer.apply(ledger.definitions()[0], force=True)


def forbidden(verb: str, resource: str) -> dict[str, Any]:
    words = (
        f'{resource} is forbidden: User "eve" cannot {verb} resource "{resource}" in API group "" at the cluster scope'
    )
    return {"kind": "Status", "status": "Failure", "message": words, "reason": "Forbidden", "code": 403}


def test_who_may_not_install_the_kinds_is_told_what_an_administrator_has_to_do(
    bare: FaultProxy, tmp_path: Path
) -> None:
    bare.inject(answer(403, forbidden("patch", DEFINITIONS)), method="PATCH", path=DEFINITIONS, times=2)
    with connected(bare.kubeconfig(tmp_path / "kubeconfig")) as writer:
        troubles = ledger.ensure(writer)
        assert len(troubles) == 2
        assert 'User "eve" cannot patch' in troubles[0]
        assert "`reconcile schema --crds | kubectl apply --server-side -f -`" in troubles[0]
        assert ledger.ensure(writer) == []  # somebody has granted it


def test_who_may_not_look_at_definitions_needs_none_where_the_kinds_are_served(
    writer: Writer, proxy: FaultProxy, tmp_path: Path
) -> None:
    proxy.inject(answer(403, forbidden("get", DEFINITIONS)), path=DEFINITIONS, times=10)
    proxy.inject(answer(403, forbidden("get", "namespaces")), path=f"namespaces/{NAMESPACE}$", times=10)
    with connected(proxy.kubeconfig(tmp_path / "another")) as fresh:
        assert ledger.ensure(fresh) == []


# -- reading and creating -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [a_full_build(), a_full_promotion(), a_build(), a_promotion()])
def test_a_record_is_stored_with_every_field_that_it_has(record: Create, wanted: Any) -> None:
    found = record(wanted)
    assert found.identity.uid
    assert found.identity.created_at
    assert (found.spec, found.status) == (wanted.spec, wanted.status)


def test_everything_is_read_by_two_requests(writer: Writer, proxy: FaultProxy, record: Create) -> None:
    build, promotion = record(a_build()), record(a_promotion())
    proxy.seen.clear()
    found, troubles = ledger.read(writer)
    assert found.builds[build.identity.name] == build
    assert promotion in found.promotions
    assert troubles == []
    assert len(proxy.seen) == 2


def test_a_record_that_cannot_be_read_is_told_and_left_out(writer: Writer, record: Create) -> None:
    """The server takes offsets from UTC that there are not."""
    nonsense, fine = a_build(), record(a_build())
    body = to_body(nonsense)
    body["spec"]["cause"]["at"] = "2026-11-21T03:00:00+99:99"
    made = writer.create(body)
    found, troubles = ledger.read(writer)
    remove(writer, made)
    assert fine.identity.name in found.builds
    assert nonsense.identity.name not in found.builds
    assert len(troubles) == 1
    assert troubles[0].startswith(f"Build {NAMESPACE}/{nonsense.identity.name}: spec.cause.at: ")
    assert troubles[0].endswith("It is left out until somebody deletes it")


def test_a_record_is_created_once(writer: Writer, record: Create) -> None:
    build = a_build()
    record(build)
    assert not ledger.create(writer, build)


def test_of_many_who_create_a_record_one_does(writer: Writer, record: Create) -> None:
    wanted = a_promotion()
    outcomes = at_once(6, lambda _: ledger.create(writer, wanted))
    assert sorted(outcomes) == [False] * 5 + [True]
    assert ledger.delete(writer, stored(writer, wanted))


def test_a_record_whose_creation_was_not_answered_is_known_to_be_ours(
    writer: Writer, proxy: FaultProxy, record: Create
) -> None:
    proxy.inject(lose(), method="POST")
    record(a_full_build())
    assert proxy.count("POST") == 2


# -- status ---------------------------------------------------------------------------------------------------------


def test_a_status_is_written_to_the_version_that_it_was_decided_on(writer: Writer, record: Create) -> None:
    seen = record(a_build())
    first = ledger.write_status(writer, with_status(seen, phase=BuildPhase.RUNNING, started_at=at(1)))
    assert first is not None
    assert first == stored(writer, seen)
    assert first.status == BuildStatus(phase=BuildPhase.RUNNING, started_at=at(1))
    assert ledger.write_status(writer, with_status(seen, phase=BuildPhase.FAILED)) is None
    assert ledger.write_status(writer, with_status(first, phase=BuildPhase.SUCCEEDED)) is not None


def test_a_status_is_not_written_where_somebody_has_decided_since(writer: Writer, record: Create) -> None:
    seen = record(a_promotion())
    ledger.decide(writer, seen.identity.name, a_decision(seen.spec.build, action=Action.REJECT))
    assert ledger.write_status(writer, with_status(seen, phase=Phase.SUCCEEDED)) is None


def test_of_two_reconcilers_that_write_at_once_exactly_one_does(writer: Writer, other: Writer, record: Create) -> None:
    seen = record(a_promotion())
    for number in range(10):
        messages = [f"{number} by the first", f"{number} by the second"]
        wishes = [with_status(seen, phase=Phase.ROLLING_OUT, message=message) for message in messages]
        writers = (writer, other)
        written = at_once(2, lambda n: ledger.write_status(writers[n], wishes[n]))  # noqa: B023 - used in this round
        winners = [one for one in written if one is not None]
        assert len(winners) == 1
        seen = stored(writer, seen)
        assert seen == winners[0]


def test_a_status_is_not_written_to_a_record_that_is_gone_or_was_made_anew(writer: Writer, record: Create) -> None:
    seen = record(a_build())
    assert ledger.delete(writer, seen)
    assert ledger.write_status(writer, with_status(seen, phase=BuildPhase.RUNNING)) is None
    record(seen.model_copy(update={"identity": seen.identity.model_copy(update={"uid": "", "resource_version": ""})}))
    assert ledger.write_status(writer, with_status(seen, phase=BuildPhase.RUNNING)) is None


# -- decisions ------------------------------------------------------------------------------------------------------


def test_a_decision_is_added_and_changes_nothing_else(writer: Writer, record: Create) -> None:
    seen = record(a_full_promotion())
    said = a_decision(seen.spec.build, action=Action.RESUME, by="carol", minutes=5)
    after = ledger.decide(writer, seen.identity.name, said)
    assert after == stored(writer, seen)
    assert after.spec.decisions == (*seen.spec.decisions, said)
    assert after.status == seen.status


def test_what_somebody_said_last_is_not_said_twice(writer: Writer, record: Create) -> None:
    name, build = (seen := record(a_promotion())).identity.name, seen.spec.build
    ledger.decide(writer, name, a_decision(build, action=Action.PAUSE))
    again = ledger.decide(writer, name, a_decision(build, action=Action.PAUSE, minutes=9))
    assert len(again.spec.decisions) == 1
    ledger.decide(writer, name, a_decision(build, action=Action.RESUME))
    after = ledger.decide(writer, name, a_decision(build, action=Action.PAUSE))
    assert [one.action for one in after.spec.decisions] == [Action.PAUSE, Action.RESUME, Action.PAUSE]


def test_a_decision_meets_a_status_that_moves_and_is_kept(
    writer: Writer, other: Writer, proxy: FaultProxy, record: Create
) -> None:
    seen = record(a_promotion())

    def move(message: str) -> Callable[[], object]:
        return lambda: ledger.write_status(other, with_status(stored(other, seen), message=message))

    proxy.inject(meanwhile(move("first")), method="PUT")
    proxy.inject(meanwhile(move("second")), method="PUT")
    said = a_decision(seen.spec.build)
    after = ledger.decide(writer, seen.identity.name, said)
    assert after.spec.decisions == (said,)
    assert after.status.message == "second"
    assert proxy.count("PUT") == 3


def test_of_two_people_who_decide_at_once_the_second_is_told(
    writer: Writer, other: Writer, proxy: FaultProxy, record: Create
) -> None:
    seen = record(a_promotion())
    name, rejected = seen.identity.name, a_decision(seen.spec.build, action=Action.REJECT, by="bob")
    proxy.inject(meanwhile(lambda: ledger.decide(other, name, rejected)), method="PUT")
    with pytest.raises(Stale, match="bob has decided at the same time: Reject"):
        ledger.decide(writer, name, a_decision(seen.spec.build, by="alice"))
    assert stored(writer, seen).spec.decisions == (rejected,)


def test_a_decision_whose_answer_was_lost_is_made_once(writer: Writer, proxy: FaultProxy, record: Create) -> None:
    seen = record(a_promotion())
    said = a_decision(seen.spec.build)
    proxy.inject(lose(), method="PUT")
    assert ledger.decide(writer, seen.identity.name, said).spec.decisions == (said,)


def test_nobody_decides_about_a_promotion_that_is_gone(writer: Writer) -> None:
    with pytest.raises(NotFound, match="there is no such promotion any more"):
        ledger.decide(writer, "churn.default.production.00000000-1", a_decision("0" * 64))


# -- deleting -------------------------------------------------------------------------------------------------------


def test_a_record_is_deleted_as_it_was_read(writer: Writer, record: Create) -> None:
    seen = record(a_promotion())
    assert ledger.delete(writer, seen)
    assert writer.get(object_id_of(seen)) is None
    assert ledger.delete(writer, seen)  # it is gone, as was wished


def test_a_record_to_which_something_has_happened_is_not_deleted(writer: Writer, record: Create) -> None:
    seen = record(a_promotion())
    assert ledger.write_status(writer, with_status(seen, phase=Phase.HELD))
    assert not ledger.delete(writer, seen)
    assert stored(writer, seen).status == PromotionStatus(phase=Phase.HELD)


# -- who ------------------------------------------------------------------------------------------------------------


def test_who_asks_is_who_the_cluster_says_it_is(server: tuple[Path, str], writer: Writer, proxy: FaultProxy) -> None:
    proxy.seen.clear()
    name = ledger.who(writer)
    command = [KUBECTL, "--kubeconfig", str(server[0]), "auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    assert name == shown.stdout
    assert name in {"embedded-admin", "admin", "kubernetes-admin"} or name.startswith("system:")


def test_a_cluster_that_cannot_tell_who_asks_is_named_as_too_old(
    writer: Writer, proxy: FaultProxy, tmp_path: Path
) -> None:
    proxy.inject(answer(404, "404 page not found"), path="authentication.k8s.io", times=9)
    with connected(proxy.kubeconfig(tmp_path / "another")) as fresh, pytest.raises(ApiError, match=r"Kubernetes 1\.28"):
        ledger.who(fresh)
