"""`kill -9` of the daemon at any request: the one that is started next ends where an undisturbed one would have.

The one that completes what another has begun is the next to be killed. What it can still know is what the cluster
holds, and a folder with the repository, which a new pod does not have.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.contract.faults import Fault, FaultProxy, Seen, drop
from tests.e2e.daemon import Daemon, forget_mirror
from tests.e2e.harness import FULL, Plane, kill, members, places
from tests.e2e.lanes import Lanes

#: Requests that a round takes, about; and a daemon that begins when everything has changed.
ROUND, BEGINNING = 66, 150


class Death(NamedTuple):
    """At the k-th request after everything has changed, before or after it is carried out.

    `beginning`: of a daemon that is started after the change. `empty`: the next one begins with an empty folder.
    """

    k: int
    first_do_it: bool
    empty: bool
    beginning: bool = False

    def __str__(self) -> str:
        whose = "its beginning" if self.beginning else "a round"
        return f"{'after' if self.first_do_it else 'before'} request {self.k} of {whose}"


def deaths() -> list[Death]:
    """At every request; or where time is short, at some that are far apart."""
    if FULL:
        found = [Death(k, done, (k + done) % 2 == 0) for k in range(1, ROUND + 1) for done in (True, False)]
        return found + [Death(k, k % 2 == 0, k % 4 < 2, beginning=True) for k in range(1, BEGINNING + 1, 3)]
    found = [Death(k, n % 2 == 0, n % 3 == 0) for n, k in enumerate(range(5, ROUND, 24))]
    return [*found, Death(70, False, True, beginning=True)]


DEATHS = deaths()
#: What one test plays, so that several can at a time.
SHARE = 26


class KillAt(FaultProxy):
    """Kills a process when the k-th request from now on arrives; watches are requests, too."""

    def __init__(self, upstream: Path) -> None:
        super().__init__(upstream)
        self.left = 0
        self.before, self.after = drop(), drop()
        self.first_do_it = False

    def expect(self, death: Death, victim: Callable[[], int]) -> None:
        self.before, self.after = kill(victim, first_do_it=False), kill(victim, first_do_it=True)
        self.first_do_it = death.first_do_it
        self.left = death.k

    def fault_for(self, request: Seen) -> Fault | None:
        super().fault_for(request)
        with self._lock:
            self.left -= 1
            if self.left:
                return None
        # The answer of a watch has no end that could be waited for.
        return self.after if self.first_do_it and "watch=true" not in request.path else self.before


@pytest.fixture(scope="module")
def lanes(plane: Plane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lanes]:
    with Lanes.undisturbed(plane, tmp_path_factory.mktemp("git"), 1) as made:
        yield made


@pytest.mark.timeout(1800 if FULL else 300)
@pytest.mark.parametrize("first", range(0, len(DEATHS), SHARE))
def test_whenever_a_daemon_is_killed_the_next_one_ends_where_it_would_have(
    plane: Plane, lanes: Lanes, first: int, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    (lane,) = lanes.names
    lanes.forget_older()
    daemons: list[Daemon] = []
    killed, wrong = Counter[bool](), list[str]()
    with KillAt(plane.kubeconfig) as proxy:
        given = ["--git", lanes.specs.url, "--path", "specs", "--interval", "1", *lanes.arguments]
        given += ["--kubeconfig", str(proxy.kubeconfig(plane.folder / "proxy"))]

        def start() -> Daemon:
            daemons.append(Daemon(plane, given, f"daemon-{first}-{len(daemons)}").start())
            return daemons[-1]

        def is_killed() -> bool:
            return daemons[-1].code is not None

        try:
            lanes.rest(start())
            for death in DEATHS[first : first + SHARE]:
                if death.beginning:
                    assert is_killed() or daemons[-1].stop() == 0
                    lanes.change()
                    proxy.expect(death, lambda: daemons[-1].pid)
                    start()
                else:
                    proxy.expect(death, lambda: daemons[-1].pid)
                    lanes.change()
                try:
                    lanes.settle(daemons[-1], unless=is_killed)
                    if is_killed():
                        assert daemons[-1].code == -9
                        killed[death.beginning] += 1
                        time.sleep(0.05)  # what it had sent with other connections arrives
                        left = {key.partition("/")[0] for key in members(lanes.api, lane)}
                        assert left <= places(lanes.api, lane), "the next one would not find an orphan"
                        if death.empty:
                            forget_mirror(plane)
                        lanes.settle(start())
                    lanes.rest(daemons[-1])
                except AssertionError as error:
                    wrong.append(f"{death}: {error}")
                    assert len(wrong) < 5, "\n\n".join(wrong)
                    if is_killed():
                        start()
        finally:
            for daemon in daemons:
                daemon.kill()
    for daemon in daemons:
        daemon.assert_sound()
    with capsys.disabled():
        told = f"{killed[False]} times in a round, {killed[True]} times at its beginning"
        print(f"\n  killed {told}, {len(wrong)} ended wrong; {time.monotonic() - began:.0f} s")
    assert not wrong, "\n\n".join(wrong)
    assert killed.total() >= 0.9 * len(DEATHS[first : first + SHARE])
