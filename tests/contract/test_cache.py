"""The cache against real API servers: what it hears, what it answers, and what it does when a watch cannot go on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from reconciler import readiness
from reconciler.cluster import (
    Cache,
    CachedReader,
    CachedWriter,
    Connection,
    Heard,
    KindMissing,
    Pace,
    Reader,
    Retry,
    Timeouts,
    Unavailable,
    Watched,
    Writer,
    connect,
)
from renderers.manifest import Body, ObjectId, object_id
from tests.contract.client import MERGE, Api, eventually
from tests.contract.faults import FaultProxy, answer, drop, stall, stream

#: Patience for tests, with pauses of milliseconds.
QUICK = Pace(spread=0.0, base=0.01, longest=0.05, missing=0.1, doubt=0.4)

GONE = {
    "kind": "Status",
    "apiVersion": "v1",
    "metadata": {},
    "status": "Failure",
    "message": "too old resource version: 1 (500)",
    "reason": "Expired",
    "code": 410,
}
BOOKMARK = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "1"}}}


def until(event: threading.Event) -> Callable[[], None]:
    def wait() -> None:
        event.wait(10)

    return wait


@pytest.fixture
def proxy(server: tuple[Path, str]) -> Iterator[FaultProxy]:
    with FaultProxy(server[0]) as proxy:
        yield proxy


@pytest.fixture
def connection(proxy: FaultProxy, tmp_path: Path) -> Iterator[Connection]:
    connection = connect(
        str(proxy.kubeconfig(tmp_path / "kubeconfig")),
        trusted=True,
        timeouts=Timeouts(connect=2.0, answer=5.0, silence=60.0),
        retry=Retry(attempts=2, base=0.01, longest=0.05),
    )
    yield connection
    connection.close()


class Ear:
    """What a cache tells, but for what it says of lists."""

    def __init__(self) -> None:
        self.all: list[Heard] = []

    def __call__(self, heard: Heard) -> None:
        self.all.append(heard)

    def told(self) -> list[tuple[str, str]]:
        return [(heard.how, heard.target.name) for heard in self.all if heard.how != "COMPLETE"]

    def completed(self) -> int:
        return sum(heard.how == "COMPLETE" for heard in self.all)


@pytest.fixture
def ear() -> Ear:
    return Ear()


@pytest.fixture
def cache(connection: Connection, ear: Ear) -> Iterator[Cache]:
    cache = Cache(Reader(connection), ear, judge=lambda body: readiness.of(body).state, pace=QUICK)
    yield cache
    cache.close()


@pytest.fixture
def they(server: tuple[Path, str]) -> Iterator[Writer]:
    """Somebody else, who writes without our cache and without our proxy."""
    connection = connect(str(server[0]), trusted=True)
    yield Writer(connection)
    connection.close()


@pytest.fixture
def we(connection: Connection, cache: Cache) -> CachedWriter:
    return CachedWriter(connection, cache)


@pytest.fixture
def reader(connection: Connection, cache: Cache) -> CachedReader:
    return CachedReader(connection, cache)


def config_map(namespace: str, name: str = "a", labels: dict[str, str] | None = None, **data: str) -> Body:
    metadata: dict[str, Any] = {"name": name, "namespace": namespace, "labels": labels or {"tier": "web"}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def deployment(namespace: str, replicas: int = 1) -> Body:
    template = {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d", "namespace": namespace, "labels": {"tier": "web"}},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "d"}}, "template": template},
    }


def maps(namespace: str, labels: str = "tier=web") -> Watched:
    return Watched("v1", "ConfigMap", namespace, labels)


def followed(cache: Cache, *watched: Watched) -> None:
    cache.follow(set(watched))
    for one in watched:
        eventually(lambda one=one: cache.is_complete(one))


def is_followed(proxy: FaultProxy, times: int = 1) -> bool:
    return proxy.count("GET", "watch=true") >= times


def without_managers(body: Body) -> Body:
    return {**body, "metadata": {key: value for key, value in body["metadata"].items() if key != "managedFields"}}


# --- what it hears -----------------------------------------------------------------------------------------


def test_what_others_do_is_heard_and_what_we_do_is_not(
    cache: Cache, ear: Ear, we: CachedWriter, they: Writer, namespace: str
) -> None:
    followed(cache, maps(namespace))
    ours = we.apply(config_map(namespace, "ours", k="1"))
    they.apply(config_map(namespace, "theirs", k="1"))
    we.update({**ours, "data": {"k": "2"}})
    they.apply(config_map(namespace, "theirs", k="2"))
    they.apply(config_map(namespace, "ours", k="3"), force=True)
    we.delete(object_id(ours), uid=ours["metadata"]["uid"], propagation="Background")
    made = we.create(config_map(namespace, "made"))
    assert cache.get(object_id(made)) == without_managers(made)
    assert cache.get(object_id(ours)) is None
    theirs = they.get(ObjectId("v1", "ConfigMap", namespace, "theirs"))
    assert theirs is not None
    they.delete(object_id(theirs), uid=theirs["metadata"]["uid"], propagation="Background")
    eventually(lambda: ("DELETED", "theirs") in ear.told())
    of_theirs = [how for how, name in ear.told() if name == "theirs"]
    assert of_theirs == ["ADDED", "CHANGED", "DELETED"]
    # What they did to ours is heard, unless our deletion was known before.
    assert {one for one in ear.told() if one[1] != "theirs"} <= {("CHANGED", "ours")}


def test_a_status_is_heard_as_a_status_with_the_state_that_it_makes(
    cache: Cache, ear: Ear, we: CachedWriter, api: Api, namespace: str
) -> None:
    followed(cache, Watched("apps/v1", "Deployment", namespace))
    paused = deployment(namespace)
    paused["spec"]["paused"] = True  # where controllers run, they do nothing but write its status, too
    we.apply(paused)
    status = {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1, "readyReplicas": 1}
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments/d/status"
    api("PATCH", path, {"status": status}, content_type=MERGE)
    eventually(lambda: any(heard.state == "ready" for heard in ear.all))
    assert set(ear.told()) == {("STATUS", "d")}
    assert next(heard.was for heard in ear.all if heard.state == "ready") == "in progress"


def test_an_object_that_leaves_the_selection_is_gone_and_one_that_enters_is_new(
    cache: Cache, ear: Ear, they: Writer, namespace: str
) -> None:
    they.apply(config_map(namespace, "a"))
    they.apply(config_map(namespace, "b", {"tier": "db"}))
    followed(cache, maps(namespace))
    they.apply(config_map(namespace, "a", {"tier": "db"}))
    they.apply(config_map(namespace, "b", {"tier": "web"}))
    eventually(lambda: ear.told() == [("DELETED", "a"), ("ADDED", "b")])
    assert ear.all[-2].labels == {"tier": "web"}
    assert [target.name for target, _ in cache.entries(maps(namespace))] == ["b"]


def test_a_deletion_that_something_holds_up_is_known_as_one(
    cache: Cache, ear: Ear, we: CachedWriter, they: Writer, namespace: str
) -> None:
    followed(cache, maps(namespace))
    held = config_map(namespace)
    held["metadata"]["finalizers"] = ["trueup.dev/test"]
    live = we.apply(held)
    left = we.delete(object_id(live), uid=live["metadata"]["uid"], propagation="Background")
    assert left is not None
    entry = cache.entry(object_id(live))
    assert entry is not None
    assert entry.state == "terminating"
    they.update({**left, "metadata": {**left["metadata"], "finalizers": []}})
    eventually(lambda: ear.told() == [("DELETED", "a")])


def test_a_deletion_that_is_answered_with_the_object_leaves_none(
    cache: Cache, we: CachedWriter, namespace: str
) -> None:
    followed(cache, Watched("v1", "ServiceAccount", namespace))
    metadata = {"name": "robot", "namespace": namespace}
    made = we.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
    we.delete(object_id(made), uid=made["metadata"]["uid"], propagation="Background")
    assert cache.entry(object_id(made)) is None


def test_many_writers_at_once_end_in_what_the_server_has(
    cache: Cache, connection: Connection, we: CachedWriter, they: Writer, namespace: str
) -> None:
    followed(cache, maps(namespace))

    def write(number: int) -> None:
        writer = we if number % 2 else they
        name = f"m{number % 5}"
        if number % 7 == 0:
            live = Reader.get(writer, ObjectId("v1", "ConfigMap", namespace, name))
            if live is not None:
                writer.delete(object_id(live), uid=live["metadata"]["uid"], propagation="Background")
        else:
            writer.apply(config_map(namespace, name, {"tier": "db" if number % 11 == 0 else "web"}, n=str(number)))

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(write, range(120)))
    server = [without_managers(body) for body in they.list("v1", "ConfigMap", namespace=namespace).items]
    wanted = [body for body in server if body["metadata"].get("labels") == {"tier": "web"}]
    eventually(lambda: [cache.get(target) for target, _ in cache.entries(maps(namespace))] == wanted)


# --- what it answers ---------------------------------------------------------------------------------------


def test_a_complete_cache_answers_as_the_server_and_asks_it_nothing(
    cache: Cache, reader: CachedReader, they: Writer, namespace: str, proxy: FaultProxy
) -> None:
    for name, tier in (("b", "web"), ("a", "web"), ("c", "db")):
        they.apply(config_map(namespace, name, {"tier": tier, "team": "one"}, k="é"))
    they.apply(deployment(namespace))
    followed(cache, maps(namespace, ""), Watched("apps/v1", "Deployment", namespace, "tier"))
    eventually(lambda: is_followed(proxy, 2))
    asked = len(proxy.seen)
    for labels in ("", "tier", "tier=web", "tier=web,team=one", "tier=none"):
        there = they.list("v1", "ConfigMap", namespace=namespace, labels=labels)
        here = reader.list("v1", "ConfigMap", namespace=namespace, labels=labels)
        assert here.items == [without_managers(body) for body in there.items]
    there = they.list("v1", "ConfigMap", namespace=namespace, metadata_only=True)
    here = reader.list("v1", "ConfigMap", namespace=namespace, metadata_only=True)
    assert [{**b, "metadata": {**b["metadata"], "managedFields": None}} for b in here.items] == [
        {**b, "metadata": {**b["metadata"], "managedFields": None}} for b in there.items
    ]
    assert reader.get(ObjectId("v1", "ConfigMap", namespace, "missing")) is None

    def same_deployment() -> bool:  # where controllers run, they write into it now and then
        live, seen = they.get(object_id(deployment(namespace))), reader.get(object_id(deployment(namespace)))
        assert live is not None
        assert seen is not None
        ours = [one for one in live["metadata"]["managedFields"] if one["manager"] == "trueup"]
        return seen == {**live, "metadata": {**live["metadata"], "managedFields": ours}}

    eventually(same_deployment)
    assert len(proxy.seen) == asked


def test_what_the_watches_do_not_cover_is_asked_for(
    cache: Cache, reader: CachedReader, they: Writer, namespace: str, proxy: FaultProxy
) -> None:
    they.apply(config_map(namespace, "db", {"tier": "db"}))
    followed(cache, maps(namespace))
    eventually(lambda: is_followed(proxy))
    questions: list[Callable[[], object]] = [
        lambda: reader.list("v1", "ConfigMap", namespace=namespace),
        lambda: reader.list("v1", "ConfigMap", namespace=namespace, labels="tier=db"),
        lambda: reader.list("v1", "ConfigMap", namespace=namespace, labels="tier in (web)"),
        lambda: reader.list("v1", "ConfigMap", labels="tier=web"),
        lambda: reader.get(ObjectId("v1", "ConfigMap", namespace, "db")),
        lambda: reader.get(ObjectId("v1", "ConfigMap", "default", "a")),
    ]
    for question in questions:
        asked = len(proxy.seen)
        assert question() is not None or "default" in proxy.seen[-1].path
        assert len(proxy.seen) > asked


def test_a_writer_looks_at_the_live_object_and_lists_from_the_cache(
    cache: Cache, we: CachedWriter, namespace: str, proxy: FaultProxy
) -> None:
    followed(cache, maps(namespace))
    eventually(lambda: is_followed(proxy))
    live = we.apply(config_map(namespace))
    asked = len(proxy.seen)
    assert we.list("v1", "ConfigMap", namespace=namespace, labels="tier=web").items == [without_managers(live)]
    assert len(proxy.seen) == asked
    assert we.get(object_id(live)) == live
    assert len(proxy.seen) == asked + 1


def test_a_fence_holds_for_a_cached_writer(cache: Cache, connection: Connection, namespace: str) -> None:
    def closed() -> None:
        raise Unavailable(0, "", "not the leader", maybe_done=False)

    writer = CachedWriter(connection, cache, closed)
    with pytest.raises(Unavailable, match="not the leader"):
        writer.apply(config_map(namespace))
    assert writer.get(ObjectId("v1", "ConfigMap", namespace, "a")) is None


def test_all_namespaces_in_one_watch_answer_for_each(
    cache: Cache, reader: CachedReader, they: Writer, namespace: str, proxy: FaultProxy
) -> None:
    mark = uuid4().hex
    made = they.apply(config_map(namespace, labels={"run": mark}))
    followed(cache, Watched("v1", "ConfigMap", "", f"run={mark}"))
    eventually(lambda: is_followed(proxy))
    asked = len(proxy.seen)
    assert reader.list("v1", "ConfigMap", namespace=namespace, labels=f"run={mark}").items == [without_managers(made)]
    assert reader.list("v1", "ConfigMap", labels=f"run={mark}").items == [without_managers(made)]
    assert reader.list("v1", "ConfigMap", namespace="default", labels=f"run={mark}").items == []
    assert len(proxy.seen) == asked


# --- when a watch cannot go on -----------------------------------------------------------------------------


def test_after_a_forgotten_place_everything_is_listed_again_and_the_difference_is_told(
    cache: Cache, ear: Ear, they: Writer, namespace: str, proxy: FaultProxy
) -> None:
    gone = they.apply(config_map(namespace, "gone"))
    they.apply(config_map(namespace, "stays"))
    expire, go_on = threading.Event(), threading.Event()

    def meanwhile() -> None:
        expire.wait(10)
        they.delete(object_id(gone), uid=gone["metadata"]["uid"], propagation="Background")
        they.apply(config_map(namespace, "new"))

    proxy.inject(stream(BOOKMARK, then=meanwhile, end=False), path="watch=true")
    proxy.inject(answer(410, GONE), path="watch=true")
    followed(cache, maps(namespace))
    proxy.inject(stall(go_on), path="limit=500")
    expire.set()
    eventually(lambda: not cache.is_complete(maps(namespace)))
    # What was known is still there to look at, and no answer comes from it.
    assert [target.name for target, _ in cache.entries(maps(namespace))] == ["gone", "stays"]
    assert cache.listing(maps(namespace)) is None
    assert cache.lookup(object_id(gone)) is None
    assert any("too old" in trouble.sentence for trouble in cache.troubles())
    go_on.set()
    eventually(lambda: cache.is_complete(maps(namespace)))
    assert ear.told() == [("DELETED", "gone"), ("ADDED", "new")]
    assert cache.troubles() == []
    assert cache.counts().lists == 2


def test_a_list_whose_token_expires_begins_again_and_is_never_a_part(
    cache: Cache, ear: Ear, they: Writer, namespace: str, proxy: FaultProxy
) -> None:
    they.apply(config_map(namespace, "real"))
    metadata = {"resourceVersion": "1", "continue": "token"}
    part = {"kind": "ConfigMapList", "apiVersion": "v1", "metadata": metadata, "items": [config_map(namespace, "part")]}
    part["items"][0]["metadata"] |= {"uid": "u", "resourceVersion": "1"}  # type: ignore[index]
    proxy.inject(answer(200, part), path=r"limit=500(?!.*continue)", times=3)
    proxy.inject(answer(410, GONE), path="continue=token", times=3)
    followed(cache, maps(namespace))
    assert [target.name for target, _ in cache.entries(maps(namespace))] == ["real"]
    assert (ear.told(), ear.completed()) == ([], 1)
    assert proxy.count("GET", r"limit=500(?!.*continue)") == 4


def gadget_definition() -> tuple[Body, Watched]:
    """A kind that no cluster has yet."""
    plural = f"gadgets{uuid4().hex[:6]}"
    group = f"{plural}.example.com"
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Cluster",
            "names": {"plural": plural, "kind": "Gadget"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }
    return definition, Watched(f"{group}/v1", "Gadget")


def test_a_kind_that_we_install_is_there_for_us_at_once(connection: Connection, ear: Ear) -> None:
    definition, gadgets = gadget_definition()
    with closing(Cache(Reader(connection), ear, pace=replace(QUICK, missing=60.0))) as cache:
        we = CachedWriter(connection, cache)
        followed(cache, gadgets)
        with pytest.raises(KindMissing):
            we.list(*gadgets[:2])
        installed = we.apply(definition)
        eventually(lambda: we.resource(*gadgets[:2]))
        made = we.apply({"apiVersion": gadgets.api_version, "kind": "Gadget", "metadata": {"name": "g"}})
        assert [body["metadata"]["uid"] for body in we.list(*gadgets[:2]).items] == [made["metadata"]["uid"]]
        eventually(lambda: cache.is_complete(gadgets) and not cache.is_missing(gadgets))
        assert ear.told() == []
    we.delete(object_id(installed), uid=installed["metadata"]["uid"])


def test_a_kind_that_is_missing_is_complete_with_nothing_until_somebody_brings_it(
    connection: Connection, ear: Ear, they: Writer, proxy: FaultProxy
) -> None:
    # A server may leave the streams of a kind that is gone open, so these are renewed soon.
    with closing(Cache(Reader(connection), ear, pace=replace(QUICK, renewal=1.0))) as cache:
        reader = CachedReader(connection, cache)
        definition, gadgets = gadget_definition()
        group = gadgets.api_version.removesuffix("/v1")
        followed(cache, gadgets)
        assert cache.is_missing(gadgets)
        assert [trouble.sentence for trouble in cache.troubles()] == [
            f"Gadget in all namespaces: the cluster does not serve Gadget in {group}/v1. {KindMissing.remedy}"
        ]
        asked = len(proxy.seen)
        with pytest.raises(KindMissing):
            reader.list(f"{group}/v1", "Gadget")
        with pytest.raises(KindMissing):
            reader.get(ObjectId(f"{group}/v1", "Gadget", "", "g"))
        assert len(proxy.seen) <= asked + 1  # another look of the watch
        definition = they.apply(definition)
        eventually(lambda: they.resource(f"{group}/v1", "Gadget"))
        they.apply({"apiVersion": f"{group}/v1", "kind": "Gadget", "metadata": {"name": "g"}})
        eventually(lambda: ("ADDED", "g") in ear.told())
        eventually(lambda: cache.is_complete(gadgets))
        assert not cache.is_missing(gadgets)
        assert [body["metadata"]["name"] for body in reader.list(f"{group}/v1", "Gadget").items] == ["g"]
        they.delete(object_id(definition), uid=definition["metadata"]["uid"])
        eventually(lambda: ("DELETED", "g") in ear.told())
        eventually(lambda: cache.is_missing(gadgets))


def test_what_is_forbidden_is_told_and_tried_again(
    cache: Cache, namespace: str, proxy: FaultProxy, they: Writer
) -> None:
    words = f'configmaps is forbidden: User "x" cannot list resource "configmaps" in the namespace "{namespace}"'
    forbidden = {"kind": "Status", "message": words, "reason": "Forbidden", "code": 403}
    proxy.inject(answer(403, forbidden), path=f"/{namespace}/configmaps", times=20)
    cache.follow({maps(namespace)})
    eventually(lambda: any(words in trouble.sentence for trouble in cache.troubles()))
    assert not cache.is_complete(maps(namespace))
    assert not list(cache.entries(maps(namespace)))
    eventually(lambda: cache.is_complete(maps(namespace)))
    assert cache.troubles() == []


def test_a_watch_that_is_refused_is_not_trusted_from_that_moment(
    cache: Cache, namespace: str, proxy: FaultProxy
) -> None:
    over = threading.Event()
    proxy.inject(stream(BOOKMARK, then=until(over), end=False), path="watch=true")
    words = {"kind": "Status", "message": 'forbidden: User "x" cannot watch', "reason": "Forbidden", "code": 403}
    proxy.inject(answer(403, words), path="watch=true", times=20)
    followed(cache, maps(namespace))
    over.set()
    eventually(lambda: not cache.is_complete(maps(namespace)))
    eventually(lambda: cache.is_complete(maps(namespace)))


def test_without_the_server_the_cache_is_trusted_for_a_moment_and_not_for_long(
    cache: Cache, ear: Ear, they: Writer, namespace: str, proxy: FaultProxy
) -> None:
    they.apply(config_map(namespace))
    over = threading.Event()
    proxy.inject(stream(then=until(over), end=False), path="watch=true")
    followed(cache, maps(namespace))
    eventually(lambda: is_followed(proxy))
    proxy.inject(drop(), times=60)
    over.set()
    eventually(cache.troubles)
    assert cache.is_complete(maps(namespace))
    eventually(lambda: not cache.is_complete(maps(namespace)))
    assert cache.get(ObjectId("v1", "ConfigMap", namespace, "a")) is not None
    they.apply(config_map(namespace, k="meanwhile"))
    eventually(lambda: cache.is_complete(maps(namespace)))
    eventually(lambda: ear.told() == [("CHANGED", "a")])
    assert cache.counts().lists == 1  # it went on where it was


def test_odd_objects_in_lists_and_watches_stop_nobody(
    cache: Cache, ear: Ear, namespace: str, proxy: FaultProxy, they: Writer
) -> None:
    good = config_map(namespace, "good")
    good["metadata"] |= {"uid": "u", "resourceVersion": "1"}
    odd = [{"metadata": None}, {"metadata": {"name": "nameless", "labels": None}}, {"spec": []}]
    items = {"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": [*odd, good]}
    events = [{"type": "MODIFIED", "object": one} for one in (*odd, [], "text")]
    later = {**good, "metadata": {**good["metadata"], "name": "later", "resourceVersion": "2"}}
    proxy.inject(answer(200, items), path="limit=500")
    over = threading.Event()
    proxy.inject(stream(*events, {"type": "ADDED", "object": later}, then=until(over)), path="watch=true")
    followed(cache, maps(namespace))
    eventually(lambda: ear.told() == [("ADDED", "later")])
    assert [target.name for target, _ in cache.entries(maps(namespace))] == ["good", "later"]
    assert {trouble.sentence.partition(": ")[2] for trouble in cache.troubles()} == {
        "an object without metadata",
        "nameless: it has no uid or no resourceVersion",
    }
    over.set()


@pytest.mark.parametrize("page", [b"{}", b'{"items": {}}', b'{"items": [1], "metadata": {}}', b"<html>"])
def test_what_is_no_list_is_not_taken_for_one(cache: Cache, namespace: str, proxy: FaultProxy, page: bytes) -> None:
    proxy.inject(answer(200, page), path="limit=500", times=3)
    followed(cache, maps(namespace))
    assert proxy.count("GET", "limit=500") == 4


# --- beginning and ending ----------------------------------------------------------------------------------


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("watch ")}


def test_following_something_else_ends_what_is_not_wanted_any_more(
    cache: Cache, namespace: str, proxy: FaultProxy
) -> None:
    secrets, configs = Watched("v1", "Secret", namespace), maps(namespace)
    followed(cache, configs, secrets)
    eventually(lambda: is_followed(proxy, 2))
    assert len(threads()) == 2
    cache.follow({secrets})
    eventually(lambda: threads() == {f"watch Secret {namespace}"}, seconds=2)
    assert not cache.is_complete(configs)
    assert cache.is_complete(secrets)
    cache.follow({secrets})
    assert proxy.count("GET", "secrets.*limit=500") == 1
    assert cache.counts().lists == 2  # those of the ended watch are counted


def test_closing_ends_every_watch_at_once_and_nothing_is_heard_any_more(
    cache: Cache, ear: Ear, they: Writer, namespace: str, proxy: FaultProxy
) -> None:
    followed(cache, maps(namespace), Watched("v1", "Secret", namespace))
    eventually(lambda: is_followed(proxy, 2))
    began = time.monotonic()
    cache.close()
    assert time.monotonic() - began < 1
    assert threads() == set()
    they.apply(config_map(namespace))
    cache.follow({maps(namespace)})
    assert threads() == set()
    assert ear.told() == []
    assert not cache.is_complete(maps(namespace))


def test_a_watch_that_waits_for_a_server_does_not_hold_up_the_end(
    cache: Cache, namespace: str, proxy: FaultProxy
) -> None:
    never = threading.Event()
    proxy.inject(stall(never), path="limit=500")
    cache.follow({maps(namespace)})
    eventually(lambda: proxy.count("GET", "limit=500") == 1)
    began = time.monotonic()
    cache.close()
    assert time.monotonic() - began < 3
    never.set()
    eventually(lambda: threads() == set())


def test_a_cache_whose_listener_fails_is_not_complete_begins_again(
    connection: Connection, namespace: str, they: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    class ListenerError(Exception):
        pass

    heals = threading.Event()
    told: list[str] = []
    restarts: list[str] = []

    def fail(heard: Heard) -> None:
        if heard.how != "COMPLETE" and not heals.is_set():
            raise ListenerError
        told.append(f"{heard.how} {heard.target.name}")

    with closing(Cache(Reader(connection), fail, pace=QUICK, restarted=restarts.append)) as cache:
        followed(cache, maps(namespace))
        they.apply(config_map(namespace))
        eventually(lambda: restarts == ["error"])
        heals.set()
        they.apply(config_map(namespace, "second"))
        eventually(lambda: "ADDED second" in told)
        assert told.count("COMPLETE ") == 2, "that stands for what nobody was told of"
        assert cache.is_complete(maps(namespace))
        assert cache.troubles() == []
    (record,) = (record for record in caplog.records if record.exc_info)
    assert "ended with an error of the program" in record.getMessage()


@pytest.mark.parametrize("said", [{}, {"resources": None}, {"resources": [{}]}, {"resources": [{"name": 1}]}])
def test_what_is_no_discovery_ends_no_watch(
    cache: Cache, proxy: FaultProxy, namespace: str, said: dict[str, Any]
) -> None:
    """Such as a balancer that answers everything with 200, while the server behind it begins."""
    proxy.inject(answer(200, said), path="/api/v1$")
    cache.follow({maps(namespace)})
    eventually(lambda: cache.is_complete(maps(namespace)))


def test_a_thousand_objects_arrive_in_pages(cache: Cache, api: Api, they: Writer, namespace: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: they.apply(config_map(namespace, f"m{n:04}")), range(1001)))
    followed(cache, maps(namespace))
    assert len(list(cache.entries(maps(namespace)))) == 1001
    assert len(CachedReader(connect(str(api.kubeconfig), trusted=True), cache).list(
        "v1", "ConfigMap", namespace=namespace, labels="tier=web").items) == 1001  # fmt: skip
