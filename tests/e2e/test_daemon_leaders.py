"""Two replicas of `reconcile run`: one writes, the other stands by, and takes over whatever becomes of the first.

Each has a folder of its own and a way of its own to the one API server, where its requests are counted.
"""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any, Self

import pytest

from tests.contract.client import Api
from tests.contract.faults import Fault, FaultProxy, Seen
from tests.contract.plant import played
from tests.e2e.daemon import Daemon, Specs, until
from tests.e2e.harness import Plane, after, before, is_write, members

#: Seconds. Those of Kubernetes are 15, 10 and 2, and then a test of a crash takes as long.
LEASE, DEADLINE, RETRY = 3, 2, 0.4
QUICK = f"Durations(lease={LEASE}, renew_deadline={DEADLINE}, retry={RETRY})"
KUBERNETES = "Durations()"

#: `reconcile run --leader-elect`, whose durations nobody can choose.
_RUN = """
import signal, sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from threading import Event
from reconciler import daemon
from reconciler.lease import Durations
from reconciler.telling import logs

url, home, kubeconfig, interval = sys.argv[1:]
logs.configure("json", "info")
stop = Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
settings = daemon.Settings(
    repository=url, path="specs", interval_s=float(interval), home=Path(home), kubeconfig=kubeconfig,
    webhook_secret="push", address="127.0.0.1:0", webhook_address="127.0.0.1:0", elect=True, durations=DURATIONS,
)
daemon.run(settings, version("trueup"), lambda: datetime.now(UTC), stop)
"""
SECRET = b"what-pushes-are-signed-with"
LEASES = re.compile(r"/leases(/|\?|$)")


@dataclass
class Replica(Daemon):
    """One of several. `arguments`: the repository's address, and seconds between two polls."""

    proxy: FaultProxy = field(default_factory=FaultProxy)
    durations: str = QUICK

    @property
    def home(self) -> Path:
        return self.plane.folder / f"home-of-{self.name}"

    def start(self, **environment: str) -> Self:
        url, interval = self.arguments
        kubeconfig = self.proxy.kubeconfig(self.plane.folder / f"kubeconfig-of-{self.name}")
        python = self.plane.command.parent / "python"
        script = _RUN.replace("DURATIONS", self.durations)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [python, "-c", script, url, self.home, kubeconfig, interval],
                cwd=self.plane.folder,
                env=self.plane.environment(**environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        until(lambda: self.said("begins"))
        return self

    @property
    def writes(self) -> list[Seen]:
        """What it has written, but for the Lease."""
        return [one for one in list(self.proxy.seen) if is_write(one) and not LEASES.search(one.path)]

    @property
    def deletions(self) -> list[str]:
        return [one.path.partition("?")[0] for one in self.writes if one.method == "DELETE"]

    @property
    def leads(self) -> bool:
        return self.metric("trueup_leader") == 1

    @property
    def revision(self) -> str:
        """The commit that it has applied to the environment, or would have."""
        return str(self.said("a new revision")[-1]["revision"])

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)


@pytest.fixture
def specs(any_plane: Plane, prod: str, tmp_path: Path) -> Specs:
    made = Specs(tmp_path / "repository", any_plane)
    made.write(all=before(prod))
    return made


@pytest.fixture
def api(any_plane: Plane) -> Iterator[Api]:
    made = any_plane.api()
    made("POST", "/api/v1/namespaces", {"metadata": {"name": "trueup-system"}})
    secret = {"metadata": {"name": "push"}, "stringData": {"any": SECRET.decode()}}
    assert made("POST", "/api/v1/namespaces/trueup-system/secrets", secret).status == 201
    with played(made):
        yield made
    made.close()


@pytest.fixture
def replica(any_plane: Plane, api: Api, specs: Specs) -> Iterator[Callable[..., Replica]]:
    """Starts one, which is ended after the test."""
    made: list[Replica] = []
    with ExitStack() as closing:

        def start(name: str, *, durations: str = QUICK, interval: str = "1") -> Replica:
            proxy = closing.enter_context(FaultProxy(any_plane.kubeconfig))
            made.append(Replica(any_plane, [specs.url, interval], name, proxy=proxy, durations=durations))
            return made[-1].start()

        yield start
        for one in made:
            one.kill()
            one.assert_sound()


def settled(leader: Replica) -> None:
    until(lambda: leader.metric("trueup_applied_revision_info") and leader.metric("trueup_unsettled_units") == 0)


def ready(standby: Replica) -> None:
    until(lambda: standby.get("/readyz")[0] == 200)
    assert standby.said("this replica leads") == []


def pair(replica: Callable[..., Replica], **more: str) -> tuple[Replica, Replica]:
    """One that leads and has done everything, and one that stands by and has seen everything."""
    leader = replica("first", **more)
    until(lambda: leader.leads)
    standby = replica("second", **more)
    settled(leader)
    ready(standby)
    return leader, standby


def lost_until(awake: Event) -> Fault:
    """The server does it; until then nobody hears of it, and after that all goes well."""

    def act(handler: Any, request: bytes) -> None:
        response = handler.ask_upstream(request)
        content = response.read()
        if awake.is_set():
            handler.reply(response.status, {"Content-Type": "application/json"}, content)
        else:
            awake.wait(30)
            handler.reset()

    return act


def drift(plane: Plane, prod: str) -> None:
    """Somebody deletes a Service."""
    name = next(name for name in services(plane, prod) if name.startswith("churn"))
    deleted = plane.kubectl("-n", prod, "delete", "service", name, "--wait=false")
    assert deleted.returncode == 0, deleted.stderr


def services(plane: Plane, prod: str) -> list[str]:
    listed = plane.kubectl("-n", prod, "get", "services", "-o", "name")
    return [line.partition("/")[2] for line in listed.stdout.split()]


def test_one_writes_and_hands_over_within_two_seconds_of_its_end(
    replica: Callable[..., Replica], any_plane: Plane, specs: Specs, prod: str
) -> None:
    leader, standby = pair(replica, durations=KUBERNETES, interval="600")
    assert standby.writes == []
    assert leader.writes
    assert standby.get("/healthz")[0] == 200

    # A push that comes to who stands by is passed on: neither of them polls for the next ten minutes.
    commit = specs.write(all=after(prod))
    began = time.monotonic()
    assert standby.push(SECRET) == 202
    # A look of the one (0.6 s), a renewal of the other (2 s), its second look (0.1 s); the rest is for a busy machine.
    until(lambda: leader.revision == commit, 4)
    passed_on = time.monotonic() - began
    until(lambda: standby.revision == commit, 3)
    settled(leader)
    assert standby.writes == []

    # Many pushes cost the leader a repeated renewal or two, and nothing else.
    for _ in range(40):
        standby.push(SECRET)
    noted = [one for one in standby.proxy.seen if one.method == "PUT"]
    assert len(noted) <= 2
    assert all(LEASES.search(one.path) for one in noted)
    assert leader.leads

    began = time.monotonic()
    leader.signal(signal.SIGTERM)
    drift(any_plane, prod)
    until(lambda: any(f"/namespaces/{prod}/services/" in one.path for one in standby.writes), 5)
    handed_over = time.monotonic() - began
    assert leader.process is not None
    assert leader.process.wait(10) == 0
    before_that = len(leader.writes)
    assert handed_over <= 2
    until(lambda: standby.said("drift", outcome="mended"))
    assert len(leader.writes) == before_that
    assert len(leader.said("this replica leads")) == 1
    print(f"push to fetch through the other: {passed_on:.2f} s; hand-over: {handed_over:.2f} s")


def test_after_a_crash_the_other_leads_within_the_lease_and_deletes_only_after_another(
    replica: Callable[..., Replica], any_plane: Plane, api: Api, specs: Specs, prod: str
) -> None:
    leader, standby = pair(replica)
    had = set(members(api, prod))
    leader.kill()
    began = time.monotonic()
    specs.write(all=after(prod))  # while nobody leads: a variation goes, a model comes
    until(lambda: standby.said("this replica leads"), LEASE + 2)
    led_at = time.monotonic()
    until(lambda: "Deployment/fraud-default-" in " ".join(members(api, prod)), 3)
    assert time.monotonic() - led_at < LEASE - 0.5
    assert had <= set(members(api, prod)), "nothing is deleted yet"
    assert standby.deletions == []
    until(lambda: standby.deletions, LEASE + 10)
    assert time.monotonic() - led_at >= LEASE - 0.1
    settled(standby)
    assert "Deployment/churn-extra-" not in " ".join(members(api, prod))
    assert len(standby.deletions) == len(set(standby.deletions)), "each object once"
    assert leader.deletions == []
    print(f"crash to lead: {led_at - began:.2f} s of a lease of {LEASE} s")


def test_a_leader_that_was_frozen_wakes_up_to_write_nothing(
    replica: Callable[..., Replica], any_plane: Plane, api: Api, specs: Specs, prod: str
) -> None:
    leader, standby = pair(replica)
    # It is frozen with a write under way whose answer is lost, and which it would repeat; and more to do after that.
    awake = Event()
    leader.proxy.inject(lost_until(awake), method="PATCH", path=f"namespaces/{prod}/(?!.*dryRun)", times=10**6)
    specs.write(all=after(prod))
    until(lambda: any(f"namespaces/{prod}/" in one.path for one in leader.writes[-1:]))
    leader.signal(signal.SIGSTOP)
    frozen = len(leader.writes)
    until(lambda: standby.said("this replica leads"), LEASE + 2)
    until(lambda: standby.said("applied", object=f"HTTPRoute/{prod}/fraud"))
    leader.signal(signal.SIGCONT)
    awake.set()
    until(lambda: leader.said("this replica stands by"))
    ready_again(leader)
    time.sleep(1)
    assert leader.writes[frozen:] == []
    assert standby.leads
    # And when it is its turn again, it knows all that has happened.
    standby.stop()
    until(lambda: len(leader.said("this replica leads")) == 2, 3)
    drift(any_plane, prod)
    until(lambda: leader.said("drift", outcome="mended"))


def ready_again(replica: Replica) -> None:
    until(lambda: replica.get("/readyz")[0] == 200)
    assert not replica.leads
