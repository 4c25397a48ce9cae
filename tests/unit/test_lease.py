"""Leader election, without a server: what one look decides, and what no schedule of faults may lead to."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from random import Random
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.cluster import AlreadyExists, NotFound, NotLeader, Stale, Unavailable, Writer
from reconciler.lease import Acquire, Decision, Durations, Elector, Lost, Record, Renew, Wait, decide, identity, read
from tests.conftest import examples

HELD = Record("other", 15.0)
RELEASED = Record("", 1.0, released=True)


@pytest.mark.parametrize(
    ("record", "age", "leads", "decision"),
    [
        (None, 0, False, Acquire()),
        (RELEASED, 0, False, Acquire()),
        (HELD, 0, False, Wait(15)),
        (HELD, 14, False, Wait(1)),
        (HELD, 15, False, Acquire()),
        (HELD, 0, True, Lost()),
        (HELD, 99, True, Lost()),
        (Record("other", 60.0), 15, False, Wait(45)),
        (Record("other", 1.0), 2, False, Wait(13)),  # an edit that would have two of them lead
        (Record("me", 15.0), 0, True, Renew()),
        (Record("me", 15.0), 99, True, Renew()),
        (Record("me", 15.0), 0, False, Renew()),  # an answer that was lost, or a gap after which nobody had come
        (Record("", 15.0), 0, False, Wait(15)),  # somebody took out the name of the holder, who does not know yet
        (Record("", 15.0), 15, False, Acquire()),
        (Record("", 15.0), 0, True, Renew()),
    ],
)
def test_what_a_look_at_the_lease_asks_for(record: Record | None, age: float, leads: bool, decision: Decision) -> None:
    assert decide(record, 100.0, 100.0 + age, "me", leads=leads) == decision


@pytest.mark.parametrize(
    ("spec", "record", "wrong"),
    [
        ({"holderIdentity": "a", "leaseDurationSeconds": 15}, Record("a", 15.0), ""),
        ({"holderIdentity": "", "leaseDurationSeconds": 1}, RELEASED, ""),
        ({"leaseDurationSeconds": 1}, RELEASED, ""),  # as client-go writes it
        ({"leaseDurationSeconds": 15}, Record("", 15.0), "it names no holder"),
        ({}, Record(), "leaseDurationSeconds"),
        (None, Record(), "leaseDurationSeconds"),
        ("text", Record(), "leaseDurationSeconds"),
        ({"holderIdentity": "a", "leaseDurationSeconds": True}, Record("a"), "leaseDurationSeconds"),
        ({"holderIdentity": "a", "leaseDurationSeconds": 10**9}, Record("a"), "leaseDurationSeconds"),
        ({"holderIdentity": ["a"], "leaseDurationSeconds": 15}, Record("", 15.0), "holderIdentity is no text"),
    ],
)
def test_what_a_lease_says_and_what_is_wrong_with_it(spec: object, record: Record, wrong: str) -> None:
    said, problem = read({"spec": spec})
    assert said == record
    assert wrong in problem
    assert bool(wrong) == bool(problem)


wild = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)


@given(spec=st.fixed_dictionaries({}, optional={"holderIdentity": wild, "leaseDurationSeconds": wild}) | wild)
def test_no_lease_is_too_odd_to_be_read(spec: object) -> None:
    record, wrong = read({"spec": spec})
    assert wrong or record.holder or record.released


@pytest.mark.parametrize("seconds", [(15, 15, 2), (15, 10, 10), (15, 10, 0), (3601, 10, 2)])
def test_durations_that_could_not_keep_two_replicas_apart_are_refused(seconds: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="retry < renew_deadline < lease"):
        Durations(*seconds)


def test_no_two_processes_have_the_same_name() -> None:
    assert len({identity() for _ in range(100)}) == 100


# --- several replicas, one clock ---------------------------------------------------------------------------

PATH = "/apis/coordination.k8s.io/v1/namespaces/trueup-system/leases"
SERVED = {"resources": [{"name": "leases", "kind": "Lease", "namespaced": True, "verbs": ["get"]}]}


class World:
    """An API server that keeps one Lease, and the time in which replicas and their requests take place.

    While a request is on its way, time passes, and the other replicas do what they do. What becomes of a request is
    drawn: how long it takes to arrive, and its answer to come back, and whether either is lost.
    """

    def __init__(self, draw: Callable[[], tuple[float, float, bool, bool]]) -> None:
        self.time = 1000.0
        self.lease: dict[str, Any] | None = None
        self.version = 0
        self.replicas: list[Replica] = []
        self.draw = draw
        self.led_at: list[float] = []  # moments at which somebody led

    def pass_time(self, seconds: float) -> None:
        end = self.time + seconds
        while True:
            due = [one for one in self.replicas if not one.busy and one.next_at <= end]
            if not due:
                break
            first = min(due, key=lambda one: one.next_at)
            self.advance(max(self.time, first.next_at))
            first.round()
        self.advance(max(self.time, end))

    def advance(self, to: float) -> None:
        while self.time < to:
            self.time = min(to, self.time + 0.25)
            leading = [one.elector.me for one in self.replicas if one.elector.leads]
            assert len(leading) <= 1, f"{leading} lead at once at {self.time}"
            if leading:
                self.led_at.append(self.time)

    def carry_out(self, method: str, body: bytes | None) -> dict[str, Any]:
        if method == "GET":
            if self.lease is None:
                raise NotFound(404, "NotFound", "leases not found")
            return self.store(None)
        sent = orjson.loads(body or b"")
        if method == "POST":
            if self.lease is not None:
                raise AlreadyExists(409, "AlreadyExists", "leases already exists")
            return self.store(sent)
        if self.lease is None or sent["metadata"]["resourceVersion"] != str(self.version):
            raise Stale(409, "Conflict", "the object has been modified")
        return self.store(sent)

    def store(self, lease: dict[str, Any] | None) -> dict[str, Any]:
        if lease is not None:
            self.version += 1
            lease["metadata"]["resourceVersion"] = str(self.version)
            self.lease = lease
        shown: dict[str, Any] = orjson.loads(orjson.dumps(self.lease))
        return shown


class Wire:
    """What a `Writer` needs of a connection, on the clock of a world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.retry = SimpleNamespace(clock=lambda: world.time)

    def request(self, method: str, path: str, *, body: bytes | None = None, **_: Any) -> dict[str, Any]:
        if not path.startswith(PATH):
            return SERVED
        there, back, lost, answer_lost = self.world.draw()
        self.world.pass_time(there)
        if lost:
            raise Unavailable(0, "", "no answer in time", maybe_done=True)
        try:
            answer = self.world.carry_out(method, body)
        finally:
            self.world.pass_time(back)
        if answer_lost:
            raise Unavailable(0, "", "no answer in time", maybe_done=True)
        return answer


class Replica:
    def __init__(self, world: World, name: str, wall: datetime) -> None:
        self.world = world
        self.wall = wall
        self.busy = False
        self.next_at = world.time
        self.is_pushed = False  # all the time
        self.told: list[bool] = []
        self.pushes: list[float] = []
        writer = Writer(Wire(world))  # type: ignore[arg-type] # the two members of it that are used
        self.elector = Elector(
            writer,
            name,
            clock=lambda: world.time,
            now=lambda: self.wall + timedelta(seconds=world.time),
            on_change=self.told.append,
            on_push=lambda: self.pushes.append(world.time),
            jitter=Random(name).random,
        )
        world.replicas.append(self)

    def round(self) -> None:
        self.busy = True
        if self.is_pushed:
            self.elector.poke()
        pause = self.elector.round()
        self.busy = False
        self.next_at = self.world.time + max(pause, 0.01)


WALL = datetime(2026, 1, 1, tzinfo=UTC)
SWIFT = (0.01, 0.01, False, False)
delays = st.sampled_from([0.0, 0.01, 0.3, 2.0, 5.0, 12.0, 20.0, 40.0])
fates = st.tuples(delays, delays, st.booleans(), st.booleans())
#: What people do to a Lease. Twice deleted is too much: who was blind meanwhile sees that it is gone, as before.
EDITS: dict[str, Callable[[dict[str, Any]], dict[str, Any] | None]] = {
    "deleted": lambda lease: None,
    "without its holder": lambda lease: lease | {"spec": {**lease["spec"], "holderIdentity": ""}},
    "with the name of nobody": lambda lease: lease | {"spec": {**lease["spec"], "holderIdentity": "nobody"}},
    "with a short duration": lambda lease: lease | {"spec": {**lease["spec"], "leaseDurationSeconds": 1}},
    "emptied": lambda lease: lease | {"spec": {}},
}


@settings(max_examples=examples(150))
@given(
    drawn=st.lists(fates, max_size=60),
    edits=st.lists(st.tuples(st.sampled_from(sorted(EDITS)), st.floats(1, 30)), max_size=4).filter(
        lambda edits: [edit for edit, _ in edits].count("deleted") <= 1
    ),
    jumps=st.lists(st.tuples(st.integers(0, 2), st.integers(-(10**6), 10**6)), max_size=4),
    pushed=st.booleans(),
)
def test_never_do_two_lead_at_once_whatever_happens_to_requests_lease_and_wall_clocks(
    drawn: list[tuple[float, float, bool, bool]],
    edits: list[tuple[str, float]],
    jumps: list[tuple[int, int]],
    pushed: bool,
) -> None:
    world = World(lambda: SWIFT)
    replicas = [Replica(world, name, WALL) for name in "abc"]
    for replica in replicas:
        replica.is_pushed = pushed
    world.pass_time(5)  # all of them have seen it: who comes after a deletion cannot know of a holder
    left = iter(drawn)
    world.draw = lambda: next(left, SWIFT)
    for number, (edit, after) in enumerate(edits):
        world.pass_time(after)
        if number < len(jumps):
            which, seconds = jumps[number]
            replicas[which].wall += timedelta(seconds=seconds)
        if world.lease is not None and world.lease["spec"].get("holderIdentity") in {"a", "b", "c"}:
            edited = EDITS[edit](world.lease)
            if edited is None:
                world.lease = None
            elif not read(edited)[0].released:  # that is to say that nobody holds it, in so many words
                world.store(edited)
    world.pass_time(100)
    world.draw = lambda: SWIFT
    world.pass_time(100)
    assert sum(one.elector.leads for one in replicas) == 1, "once nothing is wrong any more, one leads"
    (leader,) = (one for one in replicas if one.elector.leads)
    assert {one.elector.holder for one in replicas} == {leader.elector.me}
    assert [one.elector.trouble for one in replicas] == [""] * 3
    for one in replicas:
        assert all(a is not b for a, b in zip(one.told, one.told[1:], strict=False)), "told of changes, and only those"


def test_a_leader_keeps_leading_while_all_wall_clocks_jump_about() -> None:
    world = World(lambda: SWIFT)
    first = Replica(world, "a", WALL)
    world.pass_time(1)
    second = Replica(world, "b", WALL)
    since = first.elector.since
    for hours in (1000, -2000, 0):
        first.wall += timedelta(hours=hours)
        second.wall -= timedelta(hours=hours)
        world.pass_time(60)
    assert (first.told, second.told) == ([True], [])
    assert first.elector.since == since
    assert world.lease is not None
    assert world.lease["spec"]["leaseTransitions"] == 0


def test_a_leader_that_hears_nothing_stops_at_the_renew_deadline_and_not_before() -> None:
    world = World(lambda: SWIFT)
    replica = Replica(world, "a", WALL)
    world.pass_time(0.05)
    began = world.time
    replica.elector.fence()
    world.draw = lambda: (3.0, 0.0, True, False)
    world.pass_time(12)
    assert 9.5 <= world.led_at[-1] - began <= 10
    with pytest.raises(NotLeader, match=r"a does not lead \(nobody is known to\), so it writes nothing"):
        replica.elector.fence()
    assert replica.elector.since is None
    assert replica.told == [True, False]
    world.draw = lambda: SWIFT
    world.pass_time(5)
    assert replica.told == [True, False, True], "nobody had come meanwhile"
    assert (replica.elector.since or 0) > began + 10, "it is a new term: what it knew may be old"


def test_an_answer_that_comes_after_the_deadline_does_not_prolong_it_unseen() -> None:
    world = World(lambda: SWIFT)
    replica = Replica(world, "a", WALL)
    world.pass_time(1)
    first = replica.elector.since
    late = iter([(0.0, 11.0, False, False)])
    world.draw = lambda: next(late, SWIFT)
    world.pass_time(30)
    assert replica.elector.leads
    assert replica.elector.since != first


def test_the_one_that_stops_is_followed_within_a_look() -> None:
    world = World(lambda: SWIFT)
    first = Replica(world, "a", WALL)
    world.pass_time(1)
    second = Replica(world, "b", WALL)
    world.pass_time(20)
    world.replicas.remove(first)
    first.elector.release()
    assert not first.elector.leads
    world.pass_time(1)
    assert second.elector.leads
    assert world.lease is not None
    assert world.lease["spec"]["leaseTransitions"] == 1


# --- a push that came to one who waits ---------------------------------------------------------------------


def led(number: int) -> tuple[World, Replica, list[Replica]]:
    """A leader, and so many who wait."""
    world = World(lambda: SWIFT)
    leader = Replica(world, "a", WALL)
    world.pass_time(1)
    waiting = [Replica(world, name, WALL) for name in "bcd"[:number]]
    world.pass_time(10)
    return world, leader, waiting


def test_a_push_that_one_who_waits_heard_of_is_known_to_the_leader_within_a_renewal() -> None:
    world, leader, [waiting] = led(1)
    for number in (1, 2, 3):
        began = world.time
        waiting.elector.poke()
        world.pass_time(10)
        assert len(leader.pushes) == number
        assert leader.pushes[-1] - began <= 3
    assert waiting.pushes == [], "it has looked already"
    assert (leader.told, waiting.told) == ([True], [])


def test_pushes_without_end_take_nothing_from_the_leader_and_are_told_every_five_seconds() -> None:
    world, leader, waiting = led(2)
    for one in waiting:
        one.is_pushed = True
    world.pass_time(300)
    assert leader.told == [True]
    assert 60 <= len(leader.pushes) <= 122
    assert world.lease is not None
    assert world.lease["spec"]["leaseTransitions"] == 0


def test_pushes_without_end_do_not_keep_a_dead_leader_alive() -> None:
    world, leader, waiting = led(2)
    for one in waiting:
        one.is_pushed = True
    world.replicas.remove(leader)
    world.pass_time(17)
    assert sum(one.elector.leads for one in waiting) == 1
