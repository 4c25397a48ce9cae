"""Whether the daemon is alive, told by a clock of the test."""

from __future__ import annotations

from dataclasses import dataclass

from reconciler.daemon.health import STUCK_SECONDS, Health


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_loop_that_goes_round_is_alive() -> None:
    clock = Clock()
    health = Health(clock)
    for _ in range(3):
        health.beat("source")
        clock.now += STUCK_SECONDS
        assert health.judge() == (True, "alive")


def test_a_loop_that_says_nothing_is_stuck_and_named() -> None:
    clock = Clock()
    health = Health(clock)
    health.beat("source")
    clock.now += STUCK_SECONDS + 1
    health.beat("branches")
    assert health.judge() == (False, "source has been stuck for 301 s")


def test_a_loop_may_rest_for_longer_than_it_may_be_stuck() -> None:
    clock = Clock()
    health = Health(clock)
    health.beat("source", 3600)
    clock.now += 3600 + STUCK_SECONDS
    assert health.judge() == (True, "alive")
    clock.now += 1
    assert health.judge() == (False, "source has been stuck for 301 s"), "it did not wake"


def test_a_loop_that_wakes_early_has_no_rest_left() -> None:
    clock = Clock()
    health = Health(clock)
    health.beat("source", 3600)
    clock.now += 10
    health.beat("source")
    clock.now += STUCK_SECONDS + 1
    assert not health.judge()[0]


def test_a_loop_that_has_ended_is_not_missed() -> None:
    clock = Clock()
    health = Health(clock)
    health.beat("keeper prod")
    health.forget("keeper prod")
    clock.now += 2 * STUCK_SECONDS
    assert health.judge()[0]
