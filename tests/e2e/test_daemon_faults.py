"""The daemon and an API server that fails in every way it can, at every request: it ends where it would have anyhow.

A daemon lives through many faults. In each round everything changes in every lane, and each lane meets a fault of its
own, at its k-th request from then on: other lanes are not disturbed. What an answer says that was made up is not true;
so the end is right only if nothing was concluded from it that is not asked for again.
"""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.contract.faults import Fault, FaultProxy, Seen, answer, stream
from tests.e2e.daemon import forget_mirror, running
from tests.e2e.harness import FULL, Plane
from tests.e2e.lanes import PATIENCE, Lanes, names
from tests.e2e.test_faults import ANSWERS, status

#: Longer than the daemon waits for an answer.
TOO_LONG = 45.0


def silence() -> Fault:
    """Let the server do it, and never say so."""

    def act(handler: Any, request: bytes) -> None:
        handler.ask_upstream(request).read()
        threading.Event().wait(TOO_LONG)
        handler.reset()

    return act


COUNTED = 'Operation cannot be fulfilled on resourcequotas "trueup": the object has been modified'
OTHER_UID = "Operation cannot be fulfilled: Precondition failed: UID in precondition: 1, UID in object meta: 2"
GONE = status(410, "Expired", "too old resource version: 1 (2)")
FAULTS: dict[str, Fault] = {
    **{name: fault for name, fault in ANSWERS.items() if name != "500"},
    "400": answer(400, status(400, "BadRequest", "the body of the request could not be read")),
    "404 namespace": answer(404, status(404, "NotFound", 'namespaces "x" not found', name="x", kind="namespaces")),
    "409 exists": answer(409, status(409, "AlreadyExists", 'services "x" already exists', name="x", kind="services")),
    "409 quota": answer(409, status(409, "Conflict", COUNTED, name="trueup", kind="resourcequotas")),
    "409 uid": answer(409, status(409, "Conflict", OTHER_UID, kind="services")),
    "410": answer(410, GONE),
    "500": answer(500, status(500, "InternalError", "Internal error occurred: etcdserver: leader changed")),
    "500 webhook": ANSWERS["500"],
    "504": answer(504, status(504, "Timeout", "request did not complete within the allotted timeout")),
}
#: What is another matter for a watch: its answer has no end that could be lost.
OF_WATCHES: dict[str, Fault] = {
    "a reset after it was done": stream(end=False),
    "half an answer": stream(b'{"type": "MODIFIED", "object": {"kind"', end=False),
}
ENDLESS = "no answer, though it was done"

#: Kinds whose watches are broken off, by their paths.
WATCHED = ("deployments", "httproutes", "jobs", "services", "configmaps")
#: Those of which each lane has several, so that a list of them has a second page.
PAGED = ("deployments", "httproutes", "jobs", "services")
LANE = re.compile(r"lane-[a-z]")
#: As a lane: requests that are about no lane, but about what the daemon tells of all of them.
NOBODYS = "nobody's"
#: Requests of a lane in a round that nobody disturbs; about, as they do not always meet in the same way.
REQUESTS = 60


class Case(NamedTuple):
    """A fault, and where it strikes: the k-th request that is no watch, or "watch", "list" or "page" of a kind.

    A list comes after a watch whose place the server has forgotten; a page is the second one of such a list.
    """

    fault: str
    where: str
    k: int = 0

    def __str__(self) -> str:
        return f"{self.fault} for {f'request {self.k}' if self.k else self.where}"


class Step(NamedTuple):
    """The next such request meets a fault, after so many that do not."""

    is_meant: Callable[[Seen], bool]
    fault: Fault
    skip: int = 0


class Lanekeeper(FaultProxy):
    """Knows which lane a request is for, breaks off watches, and gives lists in pages of two."""

    def __init__(self, upstream: Path) -> None:
        super().__init__(upstream)
        self.steps: dict[str, list[Step]] = {}
        self.met: dict[str, tuple[str, str]] = {}  #: by lane: the request that met its fault
        self.streams: dict[Any, str] = {}

    def expect(self, lane: str, case: Case) -> None:
        """From now on the lane meets this."""
        fault = FAULTS.get(case.fault) or silence()
        if case.k:
            steps = [Step(lambda seen: not _is_watch(seen), fault, case.k - 1)]
        else:
            place, _, kind = case.where.partition(" of ")
            broken = OF_WATCHES.get(case.fault, fault)
            watch = Step(lambda seen: _is_watch(seen) and f"/{kind}?" in seen.path, broken)
            listed = Step(lambda seen: _is_list(seen, kind) and "continue=" not in seen.path, fault)
            page = Step(lambda seen: _is_list(seen, kind) and "continue=" in seen.path, fault)
            gone = watch._replace(fault=stream({"type": "ERROR", "object": GONE}))
            steps = {"watch": [watch], "list": [gone, listed], "page": [gone, page]}[place]
            self.break_off(lane, kind)
        with self._lock:
            self.met.pop(lane, None)
            self.steps[lane] = steps

    def break_off(self, lane: str, kind: str) -> None:
        with self._lock:
            found = [handler for handler, path in self.streams.items() if lane in path and f"/{kind}?" in path]
        assert found, "nobody watches it"
        for handler in found:
            with suppress(OSError, AttributeError):
                handler._upstream.sock.shutdown(2)
            with suppress(OSError):
                handler.connection.shutdown(2)

    def fault_for(self, request: Seen) -> Fault | None:
        super().fault_for(request)
        # Records are made by a POST, whose path names none.
        found = LANE.search(request.path) or (request.method == "POST" and LANE.search(request.body.decode()))
        lane = found[0] if found else NOBODYS
        with self._lock:
            steps = self.steps.get(lane)
            if steps and steps[0].is_meant(request):
                if not steps[0].skip:
                    step = steps.pop(0)
                    if not steps:
                        self.met[lane] = request.method, request.path
                    return step.fault
                steps[0] = steps[0]._replace(skip=steps[0].skip - 1)
        return self._follow if _is_watch(request) else _in_pages if "limit=" in request.path else None

    def _follow(self, handler: Any, request: bytes) -> None:
        with self._lock:
            self.streams[handler] = handler.path
        try:
            handler._pass_on(request)
        finally:
            with self._lock:
                del self.streams[handler]


def _in_pages(handler: Any, request: bytes) -> None:
    handler.path = handler.path.replace("limit=500", "limit=2")
    handler._pass_on(request)


def _is_watch(seen: Seen) -> bool:
    return "watch=true" in seen.path


def _is_list(seen: Seen, kind: str) -> bool:
    return seen.method == "GET" and f"/{kind}?" in seen.path and not _is_watch(seen)


class Beginning(FaultProxy):
    """Meets every n-th request with one fault after another, when it comes for the first time."""

    def __init__(self, upstream: Path, shift: int, every: int = 7) -> None:
        super().__init__(upstream)
        self.every = every
        self.count_of_new = shift
        self.known: set[tuple[str, str]] = set()
        self.left = [*list(FAULTS)[shift % len(FAULTS) :], *list(FAULTS)[: shift % len(FAULTS)]]
        self.met: list[str] = []

    def fault_for(self, request: Seen) -> Fault | None:
        super().fault_for(request)
        with self._lock:
            key = request.method, re.sub(r"timeoutSeconds=\d+|resourceVersion=\d+", "", request.path)
            if key not in self.known:
                self.known.add(key)
                self.count_of_new += 1
                if self.count_of_new % self.every == 0:
                    self.met.append(self.left[len(self.met) % len(self.left)])
                    fault = FAULTS[self.met[-1]]
                    return OF_WATCHES.get(self.met[-1], fault) if _is_watch(request) else fault
        return None


LANES = names(15 if FULL else 10)


def shares() -> dict[str, list[Case]]:
    """All faults at every request, each in a share of its own; or where time is short, each at some that are far apart.

    A share is what one daemon lives through. It takes drift that comes again and again for a fight: so a share is no
    longer than five rounds.
    """
    watched = [f"{place} of {kind}" for place in ("watch", "list") for kind in WATCHED]
    watched += [f"page of {kind}" for kind in PAGED]
    if not FULL:
        found = [Case(fault, "", 1 + n * 23 % REQUESTS) for n, fault in enumerate(FAULTS)]
        faults = list(FAULTS)
        return {"one at a time": found + [Case(faults[n * 5 % len(faults)], p) for n, p in enumerate(watched[::2])]}
    made = {
        fault: [*(Case(fault, "", k) for k in range(1, REQUESTS + 1)), *(Case(fault, place) for place in watched)]
        for fault in FAULTS
    }
    return {ENDLESS: [Case(ENDLESS, "", k) for k in range(1, REQUESTS + 1, 3)], **made}


SHARES = shares()


@pytest.fixture(scope="module")
def lanes(plane: Plane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lanes]:
    with Lanes.undisturbed(plane, tmp_path_factory.mktemp("git"), len(LANES)) as made:
        yield made


@pytest.mark.timeout(1800 if FULL else 300)
@pytest.mark.parametrize("share", SHARES)
def test_whatever_a_request_meets_every_lane_ends_as_it_would_have(
    plane: Plane, lanes: Lanes, share: str, capsys: pytest.CaptureFixture[str]
) -> None:
    met, unmet, wrong = Counter[str](), Counter[str](), list[str]()
    rounds = [SHARES[share][at : at + len(LANES)] for at in range(0, len(SHARES[share]), len(LANES))]
    began = time.monotonic()
    lanes.forget_older()
    with Lanekeeper(plane.kubeconfig) as proxy:
        given = ["--kubeconfig", str(proxy.kubeconfig(plane.folder / "proxy"))]
        with running(plane, lanes.specs, *lanes.arguments, *given, name=f"daemon-{share}") as daemon:
            lanes.rest(daemon)
            for cases in rounds:
                dealt = {**dict(zip(LANES, cases, strict=False)), NOBODYS: Case(cases[0].fault, "", 1)}
                proxy.seen.clear()
                proxy.answered.clear()
                for lane, case in dealt.items():
                    proxy.expect(lane, case)
                lanes.change()
                # Whoever waits for an answer does nothing else: at worst, one silence comes after the other.
                silent = TOO_LONG * sum(case.fault == ENDLESS for case in dealt.values())
                try:
                    lanes.settle(daemon, patience=PATIENCE + silent)
                except AssertionError as error:
                    told = [f"{lane}: {case} {proxy.met.get(lane)}" for lane, case in dealt.items()]
                    wrong.append("\n".join([*told, str(error)]))
                for lane, case in dealt.items():
                    (met if lane in proxy.met else unmet)[str(case)] += 1
    with capsys.disabled():
        told = f"{met.total()} faults met in {len(rounds)} rounds, {unmet.total()} met nobody"
        print(f"\n  {share}: {told}, {len(wrong)} rounds ended wrong; {time.monotonic() - began:.0f} s")
    assert not wrong, "\n\n".join(wrong)
    assert met.total() >= 0.9 * (met.total() + unmet.total()), unmet


@pytest.mark.timeout(300)
@pytest.mark.parametrize("shift", range(len(FAULTS) if FULL else 1))
def test_whatever_its_first_requests_meet_a_daemon_that_begins_comes_to_the_same_end(
    plane: Plane, lanes: Lanes, shift: int, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    lanes.forget_older()
    lanes.change()
    forget_mirror(plane)
    with Beginning(plane.kubeconfig, shift) as proxy:
        given = ["--kubeconfig", str(proxy.kubeconfig(plane.folder / "proxy"))]
        with running(plane, lanes.specs, *lanes.arguments, *given, name=f"beginning-{shift}") as daemon:
            lanes.settle(daemon)
    with capsys.disabled():
        print(f"\n  {len(proxy.met)} faults met at the beginning; {time.monotonic() - began:.0f} s")
    assert {*proxy.met} == FAULTS.keys()
