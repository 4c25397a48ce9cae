"""The store: current state, history, events; and what compaction takes away."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedded.store import CompactedError, Event, Store, StoreLockedError, key_of, prefix_of
from tests.conftest import examples

Model = dict[str, int]  # key -> a value that tells versions apart


@pytest.fixture
def store(tmp_path: Path) -> Any:
    opened = Store(tmp_path)
    yield opened
    opened.close()


def obj(value: int) -> dict[str, Any]:
    return {"metadata": {"name": "x"}, "value": value}


def values(rows: Any) -> Model:
    return {key: orjson.loads(body)["value"] for key, body in rows}


writes = st.lists(
    st.tuples(st.sampled_from(["a/x/1", "a/x/2", "a/y/1", "ab/x/1", "a//1"]), st.booleans()), min_size=1, max_size=40
)


@settings(max_examples=examples(60))
@given(writes)
def test_every_revision_can_be_listed_and_its_events_lead_to_the_next(steps: list[tuple[str, bool]]) -> None:
    with TemporaryDirectory() as directory:
        store = Store(Path(directory))
        seen: list[Event] = []
        store.listen(prefix_of("a"), seen.append)
        history: dict[int, Model] = {0: {}}
        state: Model = {}
        for number, (key, delete) in enumerate(steps):
            if delete and key in state:
                store.remove(key, obj(state[key]))
                state = {other: value for other, value in state.items() if other != key}
            elif not delete:
                store.put(key, obj(number))
                state = {**state, key: number}
            history[store.revision] = state
        in_a = {revision: {k: v for k, v in model.items() if k.startswith("a/")} for revision, model in history.items()}
        for revision, expected in in_a.items():
            listed = values(store.scan(prefix_of("a"), at=revision))
            assert listed == expected
            assert list(listed) == sorted(expected)
            assert store.count(prefix_of("a"), at=revision) == len(expected)
            replayed = dict(expected)
            for event in store.events(prefix_of("a"), revision):
                value = orjson.loads(event.body)["value"]
                before = None if event.previous is None else orjson.loads(event.previous)["value"]
                assert replayed.get(event.key) == before
                if event.type == "DELETED":
                    del replayed[event.key]
                else:
                    assert (event.type == "ADDED") is (event.key not in replayed)
                    replayed[event.key] = value
            assert replayed == in_a[store.revision]
        assert seen == store.events(prefix_of("a"), 0)
        store.close()


def test_a_written_object_carries_its_revision(store: Store) -> None:
    body = store.put(key_of("things", "n", "a"), obj(1))
    assert orjson.loads(body)["metadata"]["resourceVersion"] == str(store.revision) == "1"
    assert store.get(key_of("things", "n", "a")) == body


def test_a_prefix_covers_its_resource_alone(store: Store) -> None:
    for key in ("pods/n/a", "pods.metrics/n/a", "podtemplates/n/a"):
        store.put(key, obj(1))
    assert [key for key, _ in store.scan(prefix_of("pods"))] == ["pods/n/a"]
    assert [key for key, _ in store.scan(prefix_of("pods", "n"))] == ["pods/n/a"]


def test_a_failed_transaction_leaves_nothing_behind(store: Store) -> None:
    store.put("things/n/a", obj(1))
    seen: list[Event] = []
    store.listen("", seen.append)

    def fail() -> None:
        with store.transaction():
            store.put("things/n/a", obj(2))
            store.put("things/n/b", obj(2))
            raise KeyError("b")

    with pytest.raises(KeyError):
        fail()
    assert (values(store.scan("things/")), store.revision, seen) == ({"things/n/a": 1}, 1, [])
    store.put("things/n/c", obj(3))
    assert [event.revision for event in seen] == [2]


def test_compaction_keeps_what_is_current_and_says_what_is_gone(store: Store) -> None:
    for number in range(10):
        store.put("things/n/a", obj(number))
    store.put("things/n/b", obj(0))
    store.remove("things/n/b", obj(0))
    store.compact(11)
    assert values(store.scan("things/")) == {"things/n/a": 9}
    assert values(store.scan("things/", at=11)) == {"things/n/a": 9, "things/n/b": 0}
    assert [event.type for event in store.events("things/", 11)] == ["DELETED"]
    with pytest.raises(CompactedError) as gone:
        store.events("things/", 10)
    assert gone.value.oldest == 11
    with pytest.raises(CompactedError):
        store.scan("things/", at=3)


def test_history_is_compacted_by_itself(tmp_path: Path) -> None:
    store = Store(tmp_path, history=100)
    for number in range(1200):
        store.put("things/n/a", obj(number))
    assert 1000 - 100 <= store.compacted <= 1200 - 100
    assert len(store.events("things/", store.compacted)) == 1200 - store.compacted
    store.close()


def test_revisions_never_go_back(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put("things/n/a", obj(1))
    store.remove("things/n/a", obj(1))
    store.compact(2)
    store.close()
    again = Store(tmp_path)
    assert (again.revision, again.compacted) == (2, 2)
    again.put("things/n/a", obj(2))
    assert again.revision == 3
    again.close()


def test_a_store_has_one_owner_at_a_time(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(StoreLockedError, match="is in use by another embedded API server"):
        Store(tmp_path)
    store.close()
    Store(tmp_path).close()


def test_who_stops_listening_hears_nothing(store: Store) -> None:
    seen: list[Event] = []
    store.listen("things/", seen.append)
    store.put("things/n/a", obj(1))
    store.put("others/n/a", obj(1))
    store.forget(seen.append)
    store.put("things/n/b", obj(1))
    assert [event.key for event in seen] == ["things/n/a"]
