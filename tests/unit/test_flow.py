"""How many requests are in flight, and whether the server is asked at all: what decides, and the queue before it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.cluster import Unavailable
from reconciler.cluster.flow import Breaker, Flow, Limit


def succeed(limit: Limit, times: int, *, seconds: float = 0.01, at: float = 0.0, used_up: bool = True) -> None:
    for _ in range(times):
        limit.succeeded("PATCH", at, at + seconds, used_up=used_up)


# --- the limit -----------------------------------------------------------------------------------------------


def test_the_limit_begins_with_eight_or_with_what_there_is() -> None:
    assert Limit(32).value == 8
    assert Limit(3).value == 3


def test_the_limit_grows_by_one_after_as_many_successes_as_it_allows() -> None:
    limit = Limit(32)
    succeed(limit, 7)
    assert limit.value == 8
    succeed(limit, 1)
    assert limit.value == 9
    succeed(limit, 9)
    assert limit.value == 10


def test_the_limit_never_grows_beyond_the_most() -> None:
    limit = Limit(10)
    succeed(limit, 1000)
    assert limit.value == 10


def test_a_limit_that_is_not_used_up_does_not_grow() -> None:
    limit = Limit(32)
    succeed(limit, 1000, used_up=False)
    assert limit.value == 8


def test_a_refusal_halves_the_limit_once_per_round_trip() -> None:
    limit = Limit(32)
    for _ in range(8):  # all of them were sent before the first of them was answered
        limit.refused(sent_at=1.0, now=1.1)
    assert limit.value == 4
    limit.refused(sent_at=1.2, now=1.3)
    assert limit.value == 2
    limit.refused(sent_at=1.4, now=1.5)
    limit.refused(sent_at=1.6, now=1.7)
    assert limit.value == 1


def test_the_limit_comes_back_to_eight_whatever_the_latency() -> None:
    limit = Limit(32)
    succeed(limit, 1, seconds=0.01)
    for moment in (1.0, 2.0, 3.0):
        limit.refused(moment, moment)
    succeed(limit, 1 + 2 + 3 + 4 + 5 + 6 + 7, seconds=5.0, at=4.0)
    assert limit.value == 8


def test_above_eight_it_grows_only_while_answers_come_as_fast_as_they_ever_did() -> None:
    limit = Limit(32)
    succeed(limit, 8, seconds=0.01)
    assert limit.value == 9
    succeed(limit, 900, seconds=0.016, at=1.0)  # they wait for each other
    assert limit.value == 9
    succeed(limit, 9, seconds=0.014, at=2.0)
    assert limit.value == 10


def test_one_slow_answer_among_fast_ones_is_no_queue() -> None:
    limit = Limit(32)
    succeed(limit, 7, seconds=0.01)
    succeed(limit, 1, seconds=3.0)
    assert limit.value == 9


def test_each_verb_is_compared_with_itself() -> None:
    limit = Limit(32)
    limit.succeeded("GET", 0.0, 0.001, used_up=False)
    succeed(limit, 8, seconds=0.05)
    assert limit.value == 9


def test_a_server_that_became_slower_for_good_is_taken_as_it_is_after_ten_minutes() -> None:
    limit = Limit(32)
    succeed(limit, 8, seconds=0.01)
    succeed(limit, 9, seconds=0.05, at=200.0)
    assert limit.value == 9
    for moment in range(300, 1000, 10):
        succeed(limit, 1, seconds=0.05, at=float(moment))
    assert limit.value > 9


@given(
    st.lists(st.tuples(st.booleans(), st.floats(0, 100), st.floats(0, 100), st.booleans()), max_size=200),
    st.integers(1, 64),
)
def test_the_limit_stays_between_one_and_the_most(happenings: list[tuple[bool, float, float, bool]], most: int) -> None:
    limit, now = Limit(most), 0.0
    for success, seconds, passed, used_up in happenings:
        now += passed
        if success:
            limit.succeeded("GET", now - seconds, now, used_up=used_up)
        else:
            limit.refused(now - seconds, now)
        assert 1 <= limit.value <= most


# --- the breaker ---------------------------------------------------------------------------------------------


def opened(at: float = 100.0) -> Breaker:
    """A breaker that has just opened: the server has been away for five seconds."""
    breaker = Breaker(longest=15.0)
    breaker.lost(at - 5, at - 5, "cannot connect")
    breaker.lost(at - 1, at, "cannot connect")
    assert breaker.is_open
    return breaker


def test_a_blip_opens_nothing_however_many_requests_it_costs() -> None:
    breaker = Breaker(longest=15.0)
    for number in range(50):
        breaker.lost(100.0, 100.0 + number / 11, "reset")
    assert not breaker.is_open
    assert breaker.unreachable_since == 100.0
    breaker.answered()
    assert breaker.unreachable_since is None


def test_one_request_that_got_no_answer_opens_nothing_however_long_it_took() -> None:
    breaker = Breaker(longest=15.0)
    breaker.lost(100.0, 140.0, "no answer in time")
    assert not breaker.is_open
    breaker.lost(140.4, 180.4, "no answer in time")
    assert breaker.is_open, "a second one, and nothing else was answered"


def test_an_answer_between_losses_keeps_it_closed() -> None:
    breaker = Breaker(longest=15.0)
    for moment in range(100, 200):
        breaker.lost(float(moment), moment + 0.5, "reset")
        breaker.answered()
    assert not breaker.is_open


def test_who_comes_later_is_refused_at_once_and_told_how_long_to_wait() -> None:
    breaker = opened(at=100.0)
    words, wait = breaker.refusal(began=100.1, now=100.25) or ("", 0.0)
    assert words == "is not reachable (cannot connect); a request at a time looks whether it is back"
    assert wait == 1.0


def test_the_words_stay_the_same_for_as_long_as_an_outage_lasts_so_that_nobody_takes_them_for_news() -> None:
    breaker, now, told = opened(at=100.0), 100.0, set()
    for _ in range(40):
        words, wait = breaker.refusal(began=now, now=now) or ("", 0.0)
        told.add(words)
        now += wait
        assert breaker.admit()
        told.add((breaker.refusal(began=now, now=now) or ("", 0.0))[0])  # while somebody looks
        breaker.lost(now, now + 1, "cannot connect")
        now += 1
        breaker.probed(now, sent=True)
    assert len(told) == 1


def test_who_was_trying_already_goes_on_one_at_a_time() -> None:
    breaker = opened(at=100.0)
    assert breaker.refusal(began=99.0, now=100.1) is None
    assert breaker.admit()
    assert breaker.refusal(began=99.5, now=100.1) is not None
    breaker.lost(100.1, 100.2, "cannot connect")
    breaker.probed(100.2, sent=True)
    assert breaker.refusal(began=99.5, now=100.3) is None


def test_when_a_look_is_due_one_request_goes_and_the_others_do_not() -> None:
    breaker = opened(at=100.0)
    assert breaker.refusal(began=102.0, now=102.0) is None
    assert breaker.admit()
    assert breaker.refusal(began=102.0, now=102.1) is not None


def test_looks_become_rarer_as_the_outage_grows_up_to_the_longest_pause() -> None:
    breaker, now, pauses = opened(at=100.0), 100.0, []
    for _ in range(40):
        _, wait = breaker.refusal(began=now, now=now) or ("", 0.0)
        pauses.append(wait)
        now += wait
        assert breaker.refusal(began=now, now=now) is None
        breaker.admit()
        breaker.lost(now, now, "cannot connect")
        breaker.probed(now, sent=True)
    assert pauses == sorted(pauses)
    assert pauses[0] == 1.25
    assert pauses[-1] == 15.0


def test_the_answer_of_a_probe_closes_it() -> None:
    breaker = opened(at=100.0)
    breaker.admit()
    breaker.answered()
    breaker.probed(101.0, sent=True)
    assert breaker.refusal(began=101.0, now=101.0) is None
    assert not breaker.is_open


def test_a_probe_that_was_never_sent_leaves_the_look_to_the_next_one() -> None:
    breaker = opened(at=100.0)
    assert breaker.refusal(began=102.0, now=102.0) is None
    breaker.admit()
    breaker.probed(102.0, sent=False)
    assert breaker.refusal(began=102.0, now=102.0) is None


# --- the queue -----------------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def flow(most: int = 32, clock: Callable[[], float] = time.monotonic) -> Flow:
    return Flow("https://cluster", most, clock, 15.0)


def test_turns_are_taken_in_the_order_of_coming() -> None:
    way, order = flow(most=1), []
    first = way.enter("GET", 0.0)
    threads = []
    for number in range(20):

        def come(number: int = number) -> None:
            turn = way.enter("GET", 0.0)
            order.append(number)
            way.leave(turn, time.monotonic(), 200)

        threads.append(threading.Thread(target=come))
        threads[-1].start()
        while len(way._queue) <= number:
            time.sleep(0.0005)
    assert order == []
    way.leave(first, time.monotonic(), 200)
    for thread in threads:
        thread.join(5)
    assert order == list(range(20))
    assert way.in_flight == 0


def test_never_are_more_in_flight_than_the_limit_and_nobody_is_forgotten() -> None:
    way, most, done = flow(most=5), [], []

    def work() -> None:
        for number in range(50):
            turn = way.enter("GET", 0.0)
            most.append(way.in_flight)
            way.leave(turn, time.monotonic(), 429 if number % 17 == 0 else 200)
            done.append(1)

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(done) == 16 * 50
    assert max(most) <= 5
    assert way.in_flight == 0


def test_a_watch_takes_no_place() -> None:
    way = flow(most=1)
    way.enter("GET", 0.0)
    way.enter("WATCH", 0.0, counted=False)
    assert way.in_flight == 1


def test_a_pause_is_kept_by_everybody() -> None:
    way = flow()
    turn = way.enter("PATCH", 0.0)
    began = time.monotonic()
    way.leave(turn, began, 429, pause=0.3)
    entered: list[float] = []

    def come(counted: bool) -> None:
        way.enter("GET", 0.0, counted=counted)
        entered.append(time.monotonic() - began)

    threads = [threading.Thread(target=come, args=(counted,)) for counted in (True, True, True, False)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert len(entered) == 4
    assert 0.3 <= min(entered) <= max(entered) < 0.6


def test_of_those_who_wait_when_the_server_is_given_up_one_tries_and_the_others_are_told() -> None:
    clock = Clock()
    way = flow(most=2, clock=clock)
    turns = [way.enter("GET", 0.0), way.enter("GET", 0.0)]
    probes: list[bool] = []
    told: list[Unavailable] = []

    def come() -> None:
        try:
            probes.append(way.enter("GET", 1.0).probe)
        except Unavailable as error:
            told.append(error)

    waiting = [threading.Thread(target=come) for _ in range(5)]
    for thread in waiting:
        thread.start()
    while len(way._queue) < 5:
        time.sleep(0.001)
    clock.now = 40.0
    for turn in turns:
        way.leave(turn, 0.0, 0, why="no answer in time")
    for thread in waiting:
        thread.join(5)
    assert True in probes
    words = "https://cluster is not reachable (no answer in time); a request at a time looks whether it is back"
    assert {str(error) for error in told} == {f"{words}. The next pass tries again."}
    assert not any(error.maybe_done for error in told)
    assert len(told) + len(probes) == 5
    assert probes.count(True) == 1
    assert way.unreachable_since == 0.0


@pytest.mark.parametrize("status", [502, 503, 504])
def test_the_word_of_a_gateway_neither_gives_up_the_server_nor_takes_it_for_alive(status: int) -> None:
    clock = Clock()
    way = flow(clock=clock)
    for _ in range(10):
        clock.now += 10
        way.leave(way.enter("GET", clock.now), clock.now, status)
    assert way.unreachable_since is None
    way.leave(way.enter("GET", clock.now), clock.now, 0, why="reset")
    lost_at = clock.now
    clock.now += 1
    way.leave(way.enter("GET", clock.now), clock.now, status)
    assert way.unreachable_since == lost_at


def test_a_closed_way_refuses_those_who_wait_and_those_who_come() -> None:
    way = flow(most=1)
    way.enter("GET", 0.0)
    told: list[str] = []

    def come() -> None:
        try:
            way.enter("GET", 0.0)
        except Unavailable as error:
            told.append(error.message)

    waiting = threading.Thread(target=come)
    waiting.start()
    while not way._queue:
        time.sleep(0.001)
    way.close()
    waiting.join(5)
    come()
    assert told == ["https://cluster: the connection was closed"] * 2


def test_a_turn_costs_a_few_microseconds() -> None:
    way = flow()
    began = time.process_time()
    for _ in range(10_000):
        way.leave(way.enter("GET", 0.0), 0.0, 200)
    assert (time.process_time() - began) / 10_000 < 50e-6
