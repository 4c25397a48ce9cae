"""What a keeper has heard of: counted, whatever comes and goes."""

from __future__ import annotations

import sys
import time
from collections import Counter
from threading import Event, Thread

from hypothesis import given
from hypothesis import strategies as st

from reconciler.daemon.members import Members, model_of
from reconciler.inventory import place_of
from renderers.manifest import ObjectId
from renderers.names import labels

OBJECTS = [
    ObjectId("v1", "Namespace", "", "prod"),
    ObjectId("v1", "Service", "prod", "churn"),
    ObjectId("v1", "Service", "prod", "fraud"),
    ObjectId("apps/v1", "Deployment", "prod", "churn"),
]
MODELS = ("", "churn", "fraud")


def test_an_environments_own_objects_are_of_no_model() -> None:
    assert model_of(labels("", "environment", "prod")) == ""
    assert model_of(labels("churn", "serving", "prod")) == "churn"
    assert model_of({}) == ""


@given(st.lists(st.tuples(st.sampled_from(OBJECTS), st.sampled_from((None, *MODELS)))))
def test_all_counts_are_those_of_what_is_there(steps: list[tuple[ObjectId, str | None]]) -> None:
    members, there = Members(), dict[ObjectId, str]()
    for target, model in steps:
        if model is None:
            members.leave(target)
            there.pop(target, None)
        else:
            members.join(target, labels(model, "serving" if model else "environment", "prod"))
            there[target] = model
    assert {target for target in OBJECTS if target in members} == there.keys()
    assert set(members.models) == set(there.values())
    assert all(set(members.of(model)) == {t for t, of in there.items() if of == model} for model in MODELS)
    assert members.places == Counter(map(place_of, there))
    assert members.kinds == {target.kind for target in there}
    assert members.namespaces == {target.name for target in there if target.kind == "Namespace"}


def test_another_thread_may_ask_what_kinds_there_are_while_they_come_and_go() -> None:
    """Whoever minds all environments asks each keeper whether it is over."""
    members, stop = Members(), Event()
    for number in range(30):
        members.join(ObjectId("v1", f"Kind{number}", "prod", "churn"), {})

    def keep() -> None:
        while not stop.is_set():
            for number in range(7):
                target = ObjectId("v1", f"Other{number}", "prod", "churn")
                members.join(target, {})
                members.leave(target)

    keeper, interval, until = Thread(target=keep), sys.getswitchinterval(), time.monotonic() + 0.5
    sys.setswitchinterval(1e-6)
    keeper.start()
    try:
        while time.monotonic() < until:
            assert len(members.kinds) >= 30
    finally:
        stop.set()
        keeper.join()
        sys.setswitchinterval(interval)
