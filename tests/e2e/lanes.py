"""Environments that a daemon changes at the same time, each for itself, so that each may meet a fault of its own.

Only the API server runs; a `Plant` plays what a cluster does. In each round everything changes at once: somebody edits
an object past Git, the specs change in every way, and a new version of a model is built, judged and promoted.
"""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any, Self

from reconciler import inventory
from tests.contract.client import MERGE, Api
from tests.contract.plant import Body, Plant
from tests.e2e.daemon import Daemon, Specs, running, until
from tests.e2e.data_plane import REPOSITORY, Repository
from tests.e2e.harness import COLLECTIONS, ELSEWHERE, Plane, after, before, build, canonical, document, variation
from tests.e2e.test_promotion_faults import CONFIG_HASH, RECORDS, differences

#: The way there and the way back, in turns.
WAYS = (before, after)
#: How long a round may take: what waits for the cluster is looked at again after 15 s, about.
PATIENCE = 120.0
#: Seconds between two looks at all that there is, at first and in the end, and at what has changed.
_PERIOD, _LONGEST, _PAUSE = 0.2, 2.0, 0.05


def names(count: int) -> list[str]:
    return [f"lane-{letter}" for letter in "abcdefghijklmnop"[:count]]


def specs_of(lane: str, specs: Callable[[str], str], turn: int) -> str:
    """The specs of one lane: those of the harness, and a model whose automation of this turn builds it at once.

    The model that only comes with `after` stays, as nobody takes the last variation of a model away without approval.
    A model with many variations is the same in every turn, so that no limit on deletions is in the way.
    """
    text = specs(lane)
    for word in ("churn", "fraud", "testers"):
        text = text.replace(word, f"{lane}-{word}")
    spec = json.loads(text)["spec"]
    spec["environments"].remove(ELSEWHERE)
    automation = {
        "name": automation_of(lane, turn),
        "model": f"{lane}-tide",
        "environment": lane,
        "trigger": "manual",
        "execute_immediately": True,
        "build_spec": {"git_uri": f"{REPOSITORY}#tide", "git_branch": "main"},
        "deployment_condition": {"metric_name": "auc", "threshold": "0.65"},
        "deployment_spec": {"environments": [lane]},
    }
    tide = variation(f"{lane}-tide", "default", lane, build="")["variations"][0]
    del tide["build"]
    spec["automations"] = [automation]
    spec["variations"].append({**tide, "automation": automation["name"]})
    calm = f"{lane}-calm"
    spec["builds"] += build(f"{calm}-1", calm)["builds"]
    if specs is before:
        fraud = f"{lane}-fraud"
        spec["builds"] += build(f"{fraud}-1", fraud)["builds"]
        spec["variations"] += variation(fraud, "default", lane, build=f"{fraud}-1")["variations"]
    for number in range(4):
        traffic = [{"weight": 25}]
        spec["variations"] += variation(calm, f"v{number}", lane, build=f"{calm}-1", traffic=traffic)["variations"]
    return json.dumps({"api_version": "v1", "spec": spec}, indent=1)


def automation_of(lane: str, turn: int) -> str:
    return f"{lane}-turn-{turn}"


Ending = dict[str, Any]


class Follower(Plant):
    """Controllers as they are: they watch what happens, so that a turn costs nobody anything where nothing has."""

    def __init__(self, api: Api) -> None:
        super().__init__(api)
        self._moved = threading.Event()
        self._known: defaultdict[tuple[str, str], dict[str, Body]] = defaultdict(dict)
        self._gone: set[str] = set()
        self._watches: dict[tuple[str, str], threading.Thread] = {}
        self._knowing = threading.Lock()

    def all_of(self, version: str, plural: str) -> list[Body]:
        """As far as the watch has come."""
        kind = version, plural
        if kind not in self._watches or not self._watches[kind].is_alive():
            answer = self._api("GET", f"/apis/{version}/{plural}")
            if answer.status == 404:  # nobody has installed the kind
                return []
            assert answer.status == 200, answer.body
            with self._knowing:
                self._known[kind] = {one["metadata"]["uid"]: one for one in answer.body["items"]}
            at = answer.body["metadata"]["resourceVersion"]
            self._watches[kind] = threading.Thread(target=self._follow, args=(kind, at), daemon=True)
            self._watches[kind].start()
        with self._knowing:
            return list(self._known[kind].values())

    def turn(self) -> None:
        """Everything that can go on goes on, once."""
        if self._moved.is_set() or not self._watches or not all(one.is_alive() for one in self._watches.values()):
            self._moved.clear()
            super().turn()

    def _list(self, version: str, plural: str) -> list[Body]:
        return [{**one, "apiVersion": version} for one in self.all_of(version, plural)]

    def _follow(self, kind: tuple[str, str], since: str) -> None:
        query = f"timeoutSeconds=86400&resourceVersion={since}"
        api = self._api.another()
        # It is silent for long, or over: then everything is listed anew.
        with suppress(OSError, HTTPException, ValueError), api.watch("/apis/{}/{}".format(*kind), query) as events:
            for event in events:
                if event["type"] == "ERROR":
                    return
                self._learn(kind, event["object"], is_gone=event["type"] == "DELETED")
                self._moved.set()

    def _learn(self, kind: tuple[str, str], body: Body, *, is_gone: bool) -> None:
        """What has become of an object; news may come twice, and late."""
        uid = body["metadata"]["uid"]
        with self._knowing:
            known = self._known[kind].get(uid)
            if is_gone:
                self._gone.add(uid)
                self._known[kind].pop(uid, None)
            elif uid not in self._gone and (known is None or _version(body) > _version(known)):
                self._known[kind][uid] = body

    def _write(self, path: str, status: Body) -> None:
        answer = self._api("PATCH", f"{path}/status", {"status": status}, content_type=MERGE)
        assert answer.status in (200, 404), answer.body
        _, _, *version, _, _, plural, _ = path.split("/")
        kind = "/".join(version), plural
        if answer.status == 200 and kind in self._watches:
            self._learn(kind, answer.body, is_gone=False)

    def _route(self, route: Body, ready: set[str]) -> None:
        """What sends requests to nobody may have changed before whoever answered them went: one watch is ahead."""
        namespace, name = route["metadata"]["namespace"], route["metadata"]["name"]
        refs = [ref for rule in route["spec"]["rules"] for ref in rule.get("backendRefs", ())]
        if any(ref.get("weight", 1) and f"{namespace}/{ref['name']}" not in ready for ref in refs):
            answer = self._api("GET", f"/apis/{route['apiVersion']}/namespaces/{namespace}/httproutes/{name}")
            if answer.status == 404:
                return
            route = answer.body
        super()._route(route, ready)


def _version(body: Body) -> int:
    return int(body["metadata"]["resourceVersion"])


@dataclass
class Lanes:
    """`names` are those of the environments. `turn` makes the round's commits."""

    plane: Plane
    api: Api
    plant: Follower
    specs: Specs
    models: Repository
    names: list[str]
    rounds: int = 0
    revision: str = ""  #: of the specs
    way: Callable[[str], str] = before
    #: What each lane ends with, by the way.
    right: dict[Callable[[str], str], dict[str, Ending]] = field(default_factory=dict)
    _uids: dict[str, dict[str, str]] = field(default_factory=dict)
    _seen: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)  #: what there was at the last look

    @classmethod
    @contextmanager
    def undisturbed(cls, plane: Plane, folder: Path, count: int) -> Iterator[Self]:
        """Lanes that a daemon has made and changed that nobody disturbed; `folder` is for repositories."""
        api = plane.api()
        plant = Follower(api)
        made = cls(plane, api, plant, Specs(folder / "specs"), Repository(folder / "models"), names(count))
        made.models.model("tide", "42")
        try:
            made.change()
            with running(plane, made.specs, *made.arguments, name="undisturbed") as daemon:
                made.settle_first(daemon)
                made.change()
                made.settle_first(daemon)
            yield made
        finally:
            plant.close()
            api.close()

    @property
    def arguments(self) -> list[str]:
        return ["--mirror", self.models.mirror]

    def change(self) -> None:
        """Everything changes, past Git and in it."""
        self.way = WAYS[self.rounds % 2]
        self._uids = {lane: self._uids_of(found) for lane, found in (self._seen or self.members()).items()}
        self.plant.jobs.clear()
        self.plant.gaps.clear()  # a route that is new may be there before anybody was seen to be ready
        if self.rounds:
            for lane in self.names:
                self._drift(lane)
        self.rounds += 1
        files = {lane.replace("-", "_"): specs_of(lane, self.way, self.rounds) for lane in self.names}
        self.revision = self.specs.write(elsewhere=document({"environments": [ELSEWHERE]}), **files)

    def _drift(self, lane: str) -> None:
        """Somebody scales a model, or deletes what it is reached by."""
        selector = f"?labelSelector=app.kubernetes.io/name={lane}-churn"
        if self.rounds % 2:
            path = f"/apis/apps/v1/namespaces/{lane}/deployments"
            one = self.api("GET", path + selector).body["items"][0]["metadata"]["name"]
            scaled = {"spec": {"replicas": 3}}
            self.api("PATCH", f"{path}/{one}?fieldManager=kubectl-edit", scaled, content_type=MERGE)
        else:
            path = f"/api/v1/namespaces/{lane}/services"
            one = self.api("GET", path + selector).body["items"][0]["metadata"]
            self._uids[lane].pop(f"Service/{one['name']}")
            self.api("DELETE", f"{path}/{one['name']}")

    # -- what the server has ----------------------------------------------------------------------------------------

    def members(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Every object that carries the label of a lane, by lane and "Kind/name"."""
        lanes = {inventory.set_id(lane): lane for lane in self.names}
        found: dict[str, dict[str, Any]] = {lane: {} for lane in self.names}
        paths = {"Namespace": "/api/v1/namespaces"}
        for kind, (version, plural) in COLLECTIONS.items():
            paths[kind] = f"/{'apis' if '/' in version else 'api'}/{version}/{plural}"
        for kind, path in paths.items():
            for one in self._items(f"{path}?labelSelector={inventory.PART_OF}"):
                lane = lanes.get(one["metadata"]["labels"][inventory.PART_OF])
                if lane is not None:
                    found[lane][f"{kind}/{one['metadata']['name']}"] = {**one, "kind": kind}
        return found

    def endings(self) -> dict[str, Ending]:
        """All that each lane has, in words that are the same for every commit of the model."""
        builds, promotions = self._items(f"{RECORDS}/builds"), self._items(f"{RECORDS}/promotions")
        self._seen = self.members()
        path = f"/api/v1/namespaces/{inventory.NAMESPACE}/configmaps?labelSelector={inventory.ENVIRONMENT}"
        places: dict[str, list[str]] = {}
        finished: dict[str, set[str]] = {}
        for one in self._items(path):
            stored = inventory.from_config_map(one)
            places[stored.environment] = sorted({place.kind for place in stored.places})
            finished[stored.environment] = {target.name for target in stored.finished}
        return {
            lane: self._ending(
                lane,
                objects,
                [one for one in builds if one["spec"]["model"] == f"{lane}-tide"],
                [one for one in promotions if one["spec"]["model"] == f"{lane}-tide"],
                {"places": places.get(lane), "finished": finished.get(lane, set())},
            )
            for lane, objects in self._seen.items()
        }

    def _ending(
        self,
        lane: str,
        objects: dict[str, dict[str, Any]],
        builds: list[dict[str, Any]],
        promotions: list[dict[str, Any]],
        known: dict[str, Any],
    ) -> Ending:
        words: dict[str, str] = {}
        for name, turn in (("old", self.rounds - 1), ("new", self.rounds)):
            words[automation_of(lane, turn)] = f"{name} automation"
            for one in builds:
                if one["spec"].get("automation") == automation_of(lane, turn):
                    words |= {one["spec"]["id"]: name, one["spec"]["id"][:8]: name}
        newest = [one for one in builds if one["spec"].get("automation") == automation_of(lane, self.rounds)]
        ids = {one["spec"]["id"] for one in newest}
        found: dict[str, Any] = {}
        for key, one in objects.items():
            if f"{lane}-calm" in key:
                continue
            # The cluster cleans up the Jobs of older builds some day.
            if key.startswith("Job/") and "-tide-" in key and not any(key.endswith(i[:8]) for i in ids):
                continue
            found[key] = kept = canonical(one)
            kept["metadata"]["annotations"].pop(inventory.CONTENT_HASH, None)
            pods = kept.get("spec", {}).get("template", {}).get("metadata", {})
            pods.get("annotations", {}).pop(CONFIG_HASH, None)
        found["builds"] = [[one.get("status", {}).get(k) for k in ("phase", "metrics")] for one in newest]
        found["promotions"] = sorted(
            [one["metadata"]["name"], *(one.get("status", {}).get(key) for key in ("phase", "message"))]
            for one in promotions
            if one["spec"]["build"] in ids
        )
        found["places"] = known["places"]
        found["finished"] = sorted(known["finished"] & {key.partition("/")[2] for key in found})
        text = json.dumps(found, sort_keys=True)
        for word in sorted(words, key=len, reverse=True):
            text = text.replace(word, words[word])
        ending: Ending = json.loads(text)
        return ending

    def _items(self, path: str) -> list[dict[str, Any]]:
        answer = self.api("GET", path)
        if answer.status == 404:  # the kind is not installed yet
            return []
        assert answer.status == 200, answer.body
        items: list[dict[str, Any]] = answer.body["items"]
        return items

    @staticmethod
    def _uids_of(objects: dict[str, dict[str, Any]]) -> dict[str, str]:
        return {key: one["metadata"]["uid"] for key, one in objects.items()}

    # -- how a round ends -------------------------------------------------------------------------------------------

    def settle(self, daemon: Daemon, unless: Callable[[], bool] = lambda: False, *, patience: float = PATIENCE) -> None:
        """Waits until every lane is as it should be, while the cluster does its part; fails where one is not."""
        wanted, end = self.right[self.way], time.monotonic() + patience
        self._seen, due, pause = {}, 0.0, _PERIOD
        while not unless():
            now = time.monotonic()
            is_over = now > end
            if (self._is_promoted() and now >= due) or is_over:
                endings = self.endings()
                left = [lane for lane in self.names if endings[lane] != wanted[lane]]
                if not left:
                    break
                if is_over:
                    told = "\n".join(d[:200] for d in differences(endings[left[0]], wanted[left[0]]))
                    said = [e for e in daemon.events if left[0] in str(e) and e["level"] != "info"]
                    raise AssertionError(f"{left}: {told}\n" + "\n".join(map(str, said[-20:])))
                due, pause = time.monotonic() + pause, min(_LONGEST, 2 * pause)
            time.sleep(_PAUSE)
        self.came_once()

    def _is_promoted(self) -> bool:
        """Whether the turn's build is promoted in every lane, which comes last as a rule. The cluster does its part."""
        self.plant.turn()
        found = self.plant.all_of("trueup.dev/v1", "promotions")
        turn = {automation_of(lane, self.rounds) for lane in self.names}
        phases = [one.get("status", {}).get("phase") for one in found if one["spec"].get("automation") in turn]
        return phases == ["Succeeded"] * len(self.names)

    def forget_older(self) -> None:
        """Takes away what rounds before the last one have left, as a cluster does after a while: it would slow us down.

        For a moment when nobody reconciles.
        """
        kept = {automation_of(lane, self.rounds - n) for lane in self.names for n in (0, 1)}
        records = {path: self._items(f"{RECORDS}/{path}") for path in ("builds", "promotions")}
        builds = {one["spec"]["id"][:8] for one in records["builds"] if one["spec"].get("automation") in kept}
        old = [
            f"{RECORDS}/{path}/{one['metadata']['name']}"
            for path, found in records.items()
            for one in found
            if one["spec"].get("automation") not in kept
        ]
        for path, version in (("jobs", "batch/v1"), ("pods", "v1"), ("events", "v1")):
            prefix = f"/{'apis' if '/' in version else 'api'}/{version}"
            for one in self._items(f"{prefix}/{path}"):
                namespace, name = one["metadata"]["namespace"], one["metadata"]["name"]
                is_kept = path == "jobs" and not ("-tide-build-" in name and name[-8:] not in builds)
                old += [] if is_kept else [f"{prefix}/namespaces/{namespace}/{path}/{name}"]
        for path in old:
            assert self.api("DELETE", path).status in (200, 202, 404), path

    def rest(self, daemon: Daemon) -> None:
        """Waits until a daemon that has just begun has seen everything."""
        until(lambda: daemon.said("begins") and daemon.get("/readyz")[0] == 200)

    def settle_first(self, daemon: Daemon) -> None:
        """Waits until nobody disturbed is at rest, by the daemon's own account, and keeps what that came to."""
        end = time.monotonic() + PATIENCE
        before: Any = None
        while True:
            assert time.monotonic() < end, daemon.events[-20:]
            if self._is_promoted() and self._is_applied(daemon) and daemon.metric("trueup_unsettled_units") == 0:
                endings = self.endings()
                if endings == before:
                    self.right[self.way] = endings
                    return
                before = endings
            time.sleep(2 * _PERIOD)

    def _is_applied(self, daemon: Daemon) -> bool:
        applied = "trueup_applied_revision_info"
        return all(daemon.metric(applied, environment=lane, revision=self.revision) for lane in self.names)

    def came_once(self) -> None:
        """No second build, nothing made anew that was there, and no request that nobody answered."""
        twice = [key for key, uids in self.plant.jobs.items() if len(uids) > 1]
        assert not twice, twice
        assert not self.plant.gaps, self.plant.gaps
        self._seen = self._seen or self.members()
        for lane, found in self._seen.items():
            uids = self._uids_of(found)
            known = self._uids.get(lane, {})
            anew = {key: uid for key, uid in uids.items() if known.get(key, uid) != uid}
            assert not anew, f"made anew: {anew}"
