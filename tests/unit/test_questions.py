"""What is asked aside, as those who wait for it see it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Event
from typing import Any

import pytest

from reconciler.automate.questions import Asker, Questions

ROW = ("file", "churn-1")


@pytest.fixture
def questions() -> Iterator[Questions]:
    made = Questions()
    yield made
    made.close()


def fails() -> None:
    raise OSError("the storage is away")


def failed(questions: Questions) -> None:
    """A step that asks, and another one that hears that it has failed."""
    assert step(questions, fails) is None
    questions.wait(10)
    with pytest.raises(OSError, match="is away"):
        step(questions, fails)


def step(questions: Questions, *asked: Callable[[], Any]) -> Any:
    asker = Asker(questions, "churn")
    try:
        return [asker.ask(ROW, question) for question in asked][-1] if asked else None
    finally:
        asker.end()


def test_an_answer_is_given_once(questions: Questions) -> None:
    step(questions, lambda: 1)
    assert questions.open == {("churn", *ROW)}
    questions.wait(10)
    assert step(questions, lambda: 2) == 1
    assert questions.open == frozenset()


def test_what_has_failed_is_in_trouble_until_it_is_answered_and_nobody_waits_for_it(questions: Questions) -> None:
    failed(questions)
    is_back = Event()

    def comes_back() -> str:
        is_back.wait(10)
        return "filed"

    for _ in range(3):
        with pytest.raises(OSError, match="is away"):
            step(questions, comes_back)
        assert questions.open == frozenset()
    is_back.set()
    questions.wait(10)
    assert step(questions, fails) == "filed"


def test_what_is_not_wanted_any_more_is_forgotten_with_its_failure(questions: Questions) -> None:
    failed(questions)
    step(questions)
    assert step(questions, lambda: 1) is None
    assert questions.open == {("churn", *ROW)}


def test_the_end_of_one_models_step_forgets_nothing_of_others(questions: Questions) -> None:
    step(questions, lambda: 1)
    Asker(questions, "fraud").end()
    questions.wait(10)
    assert questions.answered == {("churn", *ROW)}
    assert step(questions, fails) == 1
