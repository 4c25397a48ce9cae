"""What a watch makes of lists, events and own writes: the parts of the cache that need no server."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.cluster import Entry, Heard, Pace, Watched, WatchEvent
from reconciler.cluster.shelf import Shelf, implies, meets, requirements, unpack
from renderers.manifest import Body, ObjectId
from tests.conftest import examples

MAPS = Watched("v1", "ConfigMap", "prod")
OURS = Watched("v1", "ConfigMap", "prod", "app=x")
NOBODY = ObjectId("v1", "ConfigMap", "prod", "")


def judged(body: Body) -> str:
    return str(body["status"]["phase"]) if "status" in body else "ready"


def shelf_of(watched: Watched = MAPS, clock: Callable[[], float] = lambda: 0.0) -> Shelf:
    return Shelf(watched, judged, clock)


def config_map(name: str = "a", *, version: int | str = 1, uid: str = "", labels: Any = None, **more: Any) -> Body:
    metadata = {"name": name, "namespace": "prod", "uid": uid or f"uid-{name}", "resourceVersion": str(version)}
    if labels is not None:
        metadata["labels"] = labels
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, **more}


def listed(shelf: Shelf, *bodies: Body, at: int) -> list[Heard]:
    shelf.begin()
    shelf.arrive(bodies)
    return shelf.complete(str(at))


def told(heard: Heard | None) -> tuple[str, str] | None:
    return heard and (heard.how, heard.target.name)


def names(shelf: Shelf) -> list[str]:
    return [target.name for target, _ in shelf.select("", ())[0]]


def entry(shelf: Shelf, name: str = "a") -> Entry:
    found = shelf.get("prod", name)
    assert found is not None
    return found


# --- selectors ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("selector", "asked"),
    [
        ("", ()),
        (" ", ()),
        ("app=x", (("app", "x"),)),
        ("app==x , trueup.dev/environment", (("app", "x"), ("trueup.dev/environment", None))),
        ("app=", (("app", ""),)),
        ("app in (x,y)", None),
        ("app!=x", None),
        ("!app", None),
        ("app=x,", None),
        ("app>1", None),
    ],
)
def test_a_selector_is_understood_as_equalities_and_existences_or_not_at_all(selector: str, asked: object) -> None:
    assert requirements(selector) == asked


words = st.sampled_from(["a", "b"])
selectors = st.lists(st.tuples(words, st.none() | words), max_size=3).map(tuple)


@given(asked=selectors, watched=selectors, labels=st.dictionaries(words, words))
def test_what_a_watch_is_said_to_cover_it_has(asked: Any, watched: Any, labels: dict[str, str]) -> None:
    if implies(asked, watched) and meets(labels, asked):
        assert meets(labels, watched)


def test_a_watch_covers_what_asks_for_more_than_it_does() -> None:
    assert implies((("a", "1"), ("b", "2")), (("a", "1"),))
    assert implies((("a", "1"),), (("a", None),))
    assert not implies((("a", None),), (("a", "1"),))
    assert not implies((), (("a", "1"),))


def test_labels_that_cannot_be_watched_are_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="only equalities and existences"):
        shelf_of(OURS._replace(labels="app in (x)"))


# --- entries -----------------------------------------------------------------------------------------------


def test_an_object_comes_back_as_it_was_without_its_managed_fields() -> None:
    shelf = shelf_of()
    body = config_map(data={"k": "é\u2028"}, labels={"app": "x"})
    managed = {**body, "metadata": {**body["metadata"], "managedFields": [{"manager": "trueup", "operation": "Apply"}]}}
    listed(shelf, managed, at=1)
    assert json.loads(unpack(entry(shelf))) == body
    assert entry(shelf).labels == {"app": "x"}


def test_of_a_deployment_the_fields_of_our_own_applies_are_kept() -> None:
    ours = {"manager": "trueup", "operation": "Apply", "fieldsV1": {"f:spec": {"f:replicas": {}}}}
    others = [
        {"manager": "trueup", "operation": "Update"},
        {"manager": "kube-controller-manager", "operation": "Apply"},
    ]
    body = config_map()
    body["kind"] = "Deployment"
    body["metadata"]["managedFields"] = [*others, ours]
    shelf = shelf_of(Watched("apps/v1", "Deployment", "prod"))
    listed(shelf, body, at=1)
    assert json.loads(unpack(entry(shelf)))["metadata"]["managedFields"] == [ours]


def test_status_and_bookkeeping_are_no_change_and_everything_else_is_one() -> None:
    shelf = shelf_of()
    body = config_map(version=1, data={"k": "1"}, status={"phase": "waiting"})
    listed(shelf, body, at=1)
    body["status"] = {"phase": "ready"}
    body["metadata"] |= {"resourceVersion": "2", "generation": 7, "managedFields": [{"manager": "x"}]}
    heard = shelf.hear(WatchEvent("MODIFIED", body))
    assert heard == Heard(MAPS, NOBODY._replace(name="a"), "STATUS", {}, was="waiting", state="ready")
    body["metadata"] |= {"resourceVersion": "3", "annotations": {"by": "hand"}}
    assert told(shelf.hear(WatchEvent("MODIFIED", body))) == ("CHANGED", "a")
    body["metadata"] |= {"resourceVersion": "4", "deletionTimestamp": "2026-01-01T00:00:00Z"}
    assert told(shelf.hear(WatchEvent("MODIFIED", body))) == ("CHANGED", "a")


def test_the_order_of_keys_is_no_change() -> None:
    shelf = shelf_of()
    listed(shelf, config_map(version=1, data={"a": "1", "b": "2"}), at=1)
    heard = shelf.hear(WatchEvent("MODIFIED", config_map(version=2, data={"b": "2", "a": "1"})))
    assert told(heard) == ("STATUS", "a")


def test_an_event_carries_the_labels_that_tell_whose_the_object_was() -> None:
    shelf = shelf_of()
    listed(shelf, config_map(version=1, labels={"app": "x"}), at=1)
    relabelled = shelf.hear(WatchEvent("MODIFIED", config_map(version=2, labels={"app": "stolen"})))
    assert relabelled is not None
    assert relabelled.labels == {"app": "x"}


@pytest.mark.parametrize(
    "odd",
    [
        {"kind": "ConfigMap"},
        {"metadata": None},
        {"metadata": {}},
        {"metadata": {"name": 7, "uid": "u", "resourceVersion": "5"}},
        {"metadata": {"name": "odd", "uid": "u"}},
        {"metadata": {"name": "odd", "uid": None, "resourceVersion": "5"}},
        {"metadata": {"name": "odd", "uid": "u", "resourceVersion": "5", "labels": ["app"]}},
        {"metadata": {"name": "odd", "uid": "u", "resourceVersion": "5", "labels": {"app": 1}}},
        {"metadata": {"name": "odd", "uid": "u", "resourceVersion": "5", "namespace": ["prod"]}},
    ],
    ids=str,
)
def test_an_odd_object_is_left_out_and_told_of_and_stops_nobody(odd: Body) -> None:
    shelf = shelf_of()
    listed(shelf, odd, config_map("a"), at=1)
    assert names(shelf) == ["a"]
    assert len(shelf.odd()) == 1
    for kind in ("ADDED", "MODIFIED", "DELETED", "BOOKMARK"):
        assert shelf.hear(WatchEvent(kind, odd)) is None
    shelf.put(odd)
    assert told(shelf.hear(WatchEvent("ADDED", config_map("b", version=9)))) == ("ADDED", "b")
    listed(shelf, config_map("a"), at=10)
    assert shelf.odd() == []


def test_an_object_without_labels_has_none_however_that_is_written() -> None:
    shelf = shelf_of()
    body = config_map("null")
    body["metadata"]["labels"] = None
    listed(shelf, body, config_map("absent"), at=1)
    assert [one.labels for _, one in shelf.select("", ())[0]] == [{}, {}]


def test_an_object_that_cannot_be_judged_is_there_all_the_same() -> None:
    shelf = shelf_of()
    listed(shelf, config_map(status="secret words"), at=1)
    assert entry(shelf).state == ""
    assert shelf.odd() == ["a: its state cannot be told (TypeError)"]
    shelf.hear(WatchEvent("MODIFIED", config_map(version=2, status={"phase": "fine"})))
    assert (entry(shelf).state, shelf.odd()) == ("fine", [])


def test_nesting_beyond_measure_is_odd() -> None:
    shelf = shelf_of()
    deep: dict[str, Any] = {}
    for _ in range(500):
        deep = {"d": deep}
    listed(shelf, config_map("deep", spec=deep), config_map("a"), at=1)
    assert names(shelf) == ["a"]
    assert shelf.odd() == ["deep: it cannot be kept (TypeError)"]


# --- lists and events --------------------------------------------------------------------------------------


def test_the_first_list_is_told_as_a_whole() -> None:
    shelf = shelf_of()
    assert not shelf.is_complete
    heard = listed(shelf, config_map("a"), config_map("b"), at=5)
    assert heard == [Heard(MAPS, NOBODY, "COMPLETE")]
    assert shelf.is_complete
    assert names(shelf) == ["a", "b"]


def test_a_part_of_a_list_changes_nothing() -> None:
    shelf = shelf_of()
    listed(shelf, config_map("a"), config_map("b"), at=5)
    shelf.forget()
    shelf.begin()
    shelf.arrive([config_map("a", version=6)])
    assert not shelf.is_complete
    assert names(shelf) == ["a", "b"]
    assert entry(shelf).version == "1"


def test_a_second_list_tells_what_is_different() -> None:
    shelf = shelf_of()
    listed(shelf, *(config_map(name, data={"k": "1"}) for name in "abcde"), at=5)
    again = [
        config_map("a", data={"k": "1"}),
        config_map("b", version=6, data={"k": "2"}),
        config_map("c", version=7, data={"k": "1"}),
        config_map("d", version=8, uid="another", data={"k": "1"}),
        config_map("f", version=9),
    ]
    assert [told(one) for one in listed(shelf, *again, at=9)] == [
        ("CHANGED", "b"),
        ("STATUS", "c"),
        ("CHANGED", "d"),
        ("DELETED", "e"),
        ("ADDED", "f"),
        ("COMPLETE", ""),
    ]


def test_a_kind_that_goes_away_takes_its_objects_along() -> None:
    shelf = shelf_of()
    listed(shelf, config_map("a"), at=5)
    assert [told(one) for one in shelf.none()] == [("DELETED", "a"), ("COMPLETE", "")]
    assert shelf.is_complete
    assert shelf.position == ""


def test_a_bookmark_moves_the_position_and_nothing_else() -> None:
    shelf = shelf_of()
    listed(shelf, config_map("a"), at=5)
    assert shelf.hear(WatchEvent("BOOKMARK", {"metadata": {"resourceVersion": "40"}})) is None
    assert shelf.position == "40"
    assert names(shelf) == ["a"]


def test_an_object_that_is_made_anew_is_another_one() -> None:
    shelf = shelf_of()
    listed(shelf, config_map(), at=1)
    assert told(shelf.hear(WatchEvent("DELETED", config_map(version=2)))) == ("DELETED", "a")
    assert told(shelf.hear(WatchEvent("ADDED", config_map(version=3, uid="another")))) == ("ADDED", "a")
    assert entry(shelf).uid == "another"


# --- own writes --------------------------------------------------------------------------------------------


def test_own_writes_are_known_at_once_and_never_heard() -> None:
    shelf = shelf_of()
    listed(shelf, config_map(version=5), at=7)
    shelf.put(config_map(version=10, data={"k": "ours"}))
    assert entry(shelf).version == "10"
    for version in (8, 9, 10):
        assert shelf.hear(WatchEvent("MODIFIED", config_map(version=version, data={"k": "old"}))) is None
    assert json.loads(unpack(entry(shelf)))["data"] == {"k": "ours"}
    assert told(shelf.hear(WatchEvent("MODIFIED", config_map(version=11, data={"k": "theirs"})))) == ("CHANGED", "a")


def test_answers_that_overtake_each_other_leave_the_newest() -> None:
    shelf = shelf_of()
    listed(shelf, config_map(version=5), at=7)
    for version in (10, 12, 11):
        shelf.put(config_map(version=version))
    assert entry(shelf).version == "12"


def test_a_deletion_of_ours_is_not_undone_by_what_came_before_it() -> None:
    shelf = shelf_of()
    listed(shelf, config_map(version=5), at=7)
    shelf.gone(NOBODY._replace(name="a"), "uid-a")
    assert shelf.get("prod", "a") is None
    assert shelf.hear(WatchEvent("MODIFIED", config_map(version=8))) is None
    assert shelf.hear(WatchEvent("DELETED", config_map(version=9))) is None
    assert shelf.get("prod", "a") is None
    assert told(shelf.hear(WatchEvent("ADDED", config_map(version=10, uid="another")))) == ("ADDED", "a")


def test_an_answer_that_comes_late_does_not_bring_back_what_was_deleted_since() -> None:
    shelf = shelf_of()
    listed(shelf, config_map(version=5), at=7)
    shelf.hear(WatchEvent("DELETED", config_map(version=11)))
    shelf.put(config_map(version=10))
    assert names(shelf) == []


def test_a_deletion_that_is_answered_with_the_object_as_it_was_last_leaves_nothing() -> None:
    shelf = shelf_of()
    listed(shelf, config_map(version=5), at=7)
    shelf.put(config_map(version=10))
    assert told(shelf.hear(WatchEvent("DELETED", config_map(version=10)))) == ("DELETED", "a")


def test_an_own_write_that_takes_the_label_away_takes_the_object_out() -> None:
    shelf = shelf_of(OURS)
    listed(shelf, config_map(version=5, labels={"app": "x"}), at=7)
    shelf.put(config_map(version=10, labels={"app": "y"}))
    assert names(shelf) == []
    assert shelf.hear(WatchEvent("MODIFIED", config_map(version=8, labels={"app": "x"}))) is None
    assert shelf.hear(WatchEvent("DELETED", config_map(version=10, labels={"app": "x"}))) is None
    assert told(shelf.hear(WatchEvent("ADDED", config_map(version=12, labels={"app": "x"})))) == ("ADDED", "a")


def test_an_own_write_to_another_namespace_is_not_this_watchs() -> None:
    shelf = shelf_of()
    listed(shelf, at=7)
    elsewhere = config_map(version=10)
    elsewhere["metadata"]["namespace"] = "test"
    shelf.put(elsewhere)
    assert names(shelf) == []


def test_an_own_write_during_a_list_survives_it_and_its_deletion_too() -> None:
    shelf = shelf_of()
    listed(shelf, config_map("a"), config_map("b"), at=5)
    shelf.forget()
    shelf.begin()
    shelf.arrive([config_map("a"), config_map("b")])
    shelf.put(config_map("a", version=10, data={"k": "ours"}))
    shelf.put(config_map("new", version=11))
    shelf.gone(NOBODY._replace(name="b"), "uid-b")
    assert [told(one) for one in shelf.complete("9")] == [("COMPLETE", "")]
    assert names(shelf) == ["a", "new"]
    assert entry(shelf).version == "10"


def test_a_write_whose_version_cannot_be_compared_is_left_to_the_watch() -> None:
    shelf = shelf_of()
    listed(shelf, config_map(version="x1"), at=7)
    shelf.put(config_map(version="x3", data={"k": "ours"}))
    assert entry(shelf).version == "x1"
    assert told(shelf.hear(WatchEvent("MODIFIED", config_map(version="x2", data={"k": "2"})))) == ("CHANGED", "a")


def test_what_was_deleted_is_forgotten_after_a_while() -> None:
    moments = itertools.count(0, 400)
    shelf = shelf_of(clock=lambda: next(moments))
    listed(shelf, at=7)
    for uid in ("first", "second", "third"):
        shelf.gone(NOBODY._replace(name="a"), uid)
    assert told(shelf.hear(WatchEvent("ADDED", config_map(version=8, uid="first")))) == ("ADDED", "a")
    assert shelf.hear(WatchEvent("MODIFIED", config_map(version=9, uid="second"))) is None


# --- any interleaving --------------------------------------------------------------------------------------


Answer: TypeAlias = Callable[[Shelf], None]


class Server:
    """What an API server does, in the order in which it does it; its watch, its lists, its answers."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.revision = 100
        self.objects: dict[str, Body] = {}
        self.events: list[tuple[int, WatchEvent]] = []
        self._uids = itertools.count()

    def write(self, name: str, what: str) -> Answer | None:
        """Does it; what a shelf is to be told if it was an own write. None where there was nothing to do."""
        before = self.objects.get(name)
        if what == "delete" and before is None:
            return None
        self.revision += 1
        if what == "delete" and before is not None:
            del self.objects[name]
            self._tell(before, None)
            uid = before["metadata"]["uid"]
            return lambda shelf: shelf.gone(ObjectId("v1", "ConfigMap", "prod", name), uid)
        labels = dict((before or config_map(labels={"app": "x"}))["metadata"]["labels"])
        if what == "relabel":
            labels = {"app": "y" if labels["app"] == "x" else "x"}
        uid = before["metadata"]["uid"] if before else f"uid-{next(self._uids)}"
        version = self.version.format(self.revision)
        after = config_map(name, version=version, uid=uid, labels=labels, data={"revision": str(self.revision)})
        self.objects[name] = after
        self._tell(before, after)
        return lambda shelf: shelf.put(after)

    def _tell(self, before: Body | None, after: Body | None) -> None:
        was, now = (body is not None and body["metadata"]["labels"]["app"] == "x" for body in (before, after))
        if now and after:
            self.events.append((self.revision, WatchEvent("MODIFIED" if was else "ADDED", after)))
        elif was and before:
            last = {**before, "metadata": {**before["metadata"], "resourceVersion": self.version.format(self.revision)}}
            self.events.append((self.revision, WatchEvent("DELETED", last)))

    def selected(self) -> list[Body]:
        return [body for _, body in sorted(self.objects.items()) if body["metadata"]["labels"]["app"] == "x"]


class World:
    """A server, a shelf, and what is on its way between them."""

    def __init__(self, version: str) -> None:
        self.server = Server(version)
        self.shelf = shelf_of(OURS)
        self.answers: list[Answer] = []
        self.pages: Iterator[Body] | None = None
        self.reached = 0

    def step(self, action: str, name: str, pick: int) -> None:
        match action.split():
            case ["their", what]:
                self.server.write(name, what)
            case ["our", what]:
                answer = self.server.write(name, what)
                if answer is not None:
                    self.answers.append(answer)
            case ["answer"] if self.answers:
                self.answers.pop(pick % len(self.answers))(self.shelf)
            case ["expire"]:
                self.shelf.forget()
                self.pages = None
            case ["watch"]:
                self.watch()
            case ["watch", "all"]:
                while self.watch():
                    pass

    def watch(self) -> bool:
        """The next thing that the watch's thread does: a page, the end of a list, an event. Whether there was any."""
        if not self.shelf.position and self.pages is None:
            self.shelf.begin()
            self.reached, self.pages = self.server.revision, iter(self.server.selected())
        elif self.pages is not None:
            page = list(itertools.islice(self.pages, 1))
            self.shelf.arrive(page)
            if not page:
                self.pages = None
                self.shelf.complete(self.server.version.format(self.reached))
        else:
            waiting = [(at, event) for at, event in self.server.events if at > self.reached]
            if not waiting:
                return False
            self.reached, event = waiting[0]
            self.shelf.hear(event)
        return True


actions = st.sampled_from(
    [f"{who} {what}" for who in ("our", "their") for what in ("write", "relabel", "delete")]
    + ["watch", "watch", "watch all", "answer", "answer", "expire"]
)
steps = st.lists(st.tuples(actions, st.sampled_from("aab"), st.integers(0, 3)), max_size=25)


@pytest.mark.parametrize("version", ["{}", "v{}-opaque"])
@settings(max_examples=examples(250))
@given(steps=steps, first=st.sampled_from(["answer", "watch all"]))
def test_any_interleaving_of_own_writes_and_events_ends_in_the_servers_state(
    version: str, steps: list[tuple[str, str, int]], first: str
) -> None:
    world = World(version)
    world.step("watch all", "", 0)
    for step in steps:
        world.step(*step)
    world.step(first, "", 0)
    while world.answers:
        world.step("answer", "", 0)
    world.step("watch all", "", 0)
    found, _ = world.shelf.select("", ())
    assert [json.loads(unpack(one)) for _, one in found] == world.server.selected()
    assert world.shelf.is_complete


@settings(max_examples=examples(250))
@given(steps=steps)
def test_no_interleaving_tells_of_what_is_older_than_an_own_write(steps: list[tuple[str, str, int]]) -> None:
    world = World("{}")
    world.step("watch all", "", 0)
    ours: dict[str, int] = {}
    for action, name, _ in steps:
        if action.startswith(("our", "their")):
            world.step(action, name, 0)
        if world.answers:
            # The answer to a deletion has a uid and no version: it tells nothing of what had that name before.
            is_dated = action != "our delete" or world.shelf.get("prod", name) is not None
            world.step("answer", "", 0)
            if is_dated:
                ours[name] = world.server.revision
    for at, event in world.server.events:
        heard = world.shelf.hear(event)
        # What somebody else has deleted is gone, although ours was another one of that name, and is gone as well.
        is_gone = heard is not None and heard.how == "DELETED"
        assert heard is None or is_gone or at > ours.get(heard.target.name, 0)


@settings(max_examples=examples(250))
@given(steps=steps)
def test_no_interleaving_tells_of_an_own_write_though_its_event_may_come_before_its_answer(
    steps: list[tuple[str, str, int]],
) -> None:
    world = World("{}")
    shelf = world.shelf = Shelf(OURS, lambda body: body["data"]["revision"], lambda: 0.0)
    world.step("watch all", "", 0)
    told_of: list[Heard] = []
    ours: set[str] = set()
    under_way: list[tuple[str, Answer]] = []

    def answered() -> None:
        name, answer = under_way.pop()
        answer(shelf)
        told_of.extend(shelf.end_write(NOBODY._replace(name=name)))

    for action, name, _ in steps:
        if action.startswith("our"):
            shelf.begin_write(NOBODY._replace(name=name))
            answer = world.server.write(name, action.split()[1])
            if answer is None:
                told_of.extend(shelf.end_write(NOBODY._replace(name=name)))
            else:
                ours.add(str(world.server.revision))
                under_way.append((name, answer))
        elif action == "answer" and under_way:
            answered()
        elif action.startswith("watch"):
            while fresh := next(((at, event) for at, event in world.server.events if at > world.reached), None):
                world.reached = fresh[0]
                told_of += [heard for heard in [shelf.hear(fresh[1])] if heard]
        else:
            world.step(action.replace("expire", "watch"), name, 0)
    while under_way:
        answered()
    assert not {heard.state for heard in told_of} & ours
    world.step("watch all", "", 0)
    assert [json.loads(unpack(one)) for _, one in shelf.select("", ())[0]] == world.server.selected()


def test_what_others_do_during_an_own_write_is_heard_after_it() -> None:
    shelf = shelf_of()
    listed(shelf, config_map(version=5), at=7)
    target = NOBODY._replace(name="a")
    shelf.begin_write(target)
    for version in (8, 9, 10):
        assert shelf.hear(WatchEvent("MODIFIED", config_map(version=version, data={"k": str(version)}))) is None
    assert entry(shelf).version == "10"
    shelf.put(config_map(version=9, data={"k": "9"}))
    assert [told(heard) for heard in shelf.end_write(target)] == [("CHANGED", "a")]
    shelf.begin_write(target)
    shelf.hear(WatchEvent("MODIFIED", config_map(version=11)))
    assert [told(heard) for heard in shelf.end_write(target)] == [
        ("CHANGED", "a")
    ]  # ours failed, or its answer was lost


def test_a_deletion_of_ours_whose_event_comes_before_its_answer_is_not_heard() -> None:
    shelf = shelf_of()
    listed(shelf, config_map(version=5), at=7)
    target = NOBODY._replace(name="a")
    shelf.begin_write(target)
    shelf.begin_write(target)
    assert shelf.hear(WatchEvent("DELETED", config_map(version=8))) is None
    shelf.gone(target, "uid-a")
    assert shelf.end_write(target) == []
    assert shelf.hear(WatchEvent("ADDED", config_map(version=9, uid="another"))) is None  # another write is under way
    assert [told(heard) for heard in shelf.end_write(target)] == [("ADDED", "a")]


# --- pauses ------------------------------------------------------------------------------------------------


@given(failures=st.integers(1, 1000), retry_after=st.floats(0, 1e9), jitter=st.floats(0, 1, exclude_max=True))
def test_no_pause_of_a_watch_is_longer_than_twice_the_longest(failures: int, retry_after: float, jitter: float) -> None:
    pace = Pace(jitter=lambda: jitter)
    asked = min(retry_after, pace.longest)
    assert asked <= pace.delay(failures, retry_after) <= asked + pace.longest
