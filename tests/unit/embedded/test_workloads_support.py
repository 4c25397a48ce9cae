"""What the controllers stand on: the index, Events, and ScaledObjects without KEDA."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedded.kinds.problems import matches
from embedded.store import Event
from embedded.workloads.events import MOST
from embedded.workloads.index import Index
from tests.conftest import examples
from tests.unit.embedded.controlled import Controlled, Object, condition, deployment

SCALED = "scaledobjects.keda.sh"


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Controlled]:
    controlled = Controlled(tmp_path)
    yield controlled
    controlled.close()


# The index

_labels = st.dictionaries(st.sampled_from(["app", "tier"]), st.sampled_from(["a", "b"]), max_size=2)
_expressions = st.lists(
    st.fixed_dictionaries(
        {
            "key": st.sampled_from(["app", "tier"]),
            "operator": st.sampled_from(["In", "NotIn", "Exists", "DoesNotExist"]),
            "values": st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=2),
        }
    ),
    max_size=2,
)
_selectors = st.fixed_dictionaries({"matchLabels": _labels, "matchExpressions": _expressions})
_changes = st.lists(
    st.one_of(
        st.tuples(st.just("pods"), st.integers(0, 5), _labels, st.booleans()),
        st.tuples(st.just("deployments.apps"), st.integers(0, 3), _selectors, st.booleans()),
    ),
    max_size=30,
)


@settings(max_examples=examples(100))
@given(changes=_changes, asked=_selectors, labels=_labels)
def test_the_index_finds_what_a_look_at_everything_would(
    changes: list[tuple[str, int, Any, bool]], asked: Object, labels: dict[str, str]
) -> None:
    index = Index()
    there: dict[str, dict[str, Any]] = {"pods": {}, "deployments.apps": {}}
    for resource, number, value, deleted in changes:
        name = f"x{number}"
        metadata: Object = {"name": name, "uid": name}
        obj: Object = {"metadata": metadata, "spec": {}}
        if resource == "pods":
            metadata["labels"] = value
        else:
            obj["spec"]["selector"] = value
        if deleted and name not in there[resource]:
            continue
        there[resource][name] = value
        if deleted:
            del there[resource][name]
        index.keys(Event(1, f"{resource}/shop/{name}", "DELETED" if deleted else "MODIFIED", orjson.dumps(obj), None))
    pods, selectors = there["pods"], there["deployments.apps"]
    assert index.selected("pods", "shop", asked) == sorted(name for name in pods if matches(asked, pods[name]))
    found = sorted(index.selecting("deployments.apps", "shop", labels))
    assert found == sorted(name for name in selectors if matches(selectors[name], labels))
    assert index.selected("pods", "elsewhere", asked) == []


# Events


def test_what_repeats_is_counted(plane: Controlled) -> None:
    found = plane.create("deployments.apps", "web", deployment(replicas=1))
    plane.settle()
    for size in (2, 1, 2, 1):
        plane.spec("deployments.apps", "web", replicas=size)
        plane.wait(1)
    said = [event for event in plane.list("events") if event["involvedObject"]["uid"] == found["metadata"]["uid"]]
    counts = {event["message"].partition(" from ")[2]: event["count"] for event in said}
    assert counts == {"0 to 1": 1, "1 to 2": 2, "2 to 1": 2}
    (up,) = [event for event in said if event["message"].endswith("1 to 2")]
    assert up["firstTimestamp"] < up["lastTimestamp"]


def test_an_event_is_kept_for_an_hour_from_when_it_was_seen_last(plane: Controlled) -> None:
    plane.create("deployments.apps", "web", deployment(replicas=1))
    plane.settle()
    assert len(plane.list("events")) == 2
    plane.wait(3599)
    plane.spec("deployments.apps", "web", replicas=2)
    plane.settle()
    assert len(plane.list("events")) == 4
    plane.wait(2)
    assert len(plane.list("events")) == 2
    plane.restart()
    plane.settle()
    plane.wait(3600)
    assert plane.list("events") == []


def test_there_are_never_more_than_a_thousand_events(plane: Controlled) -> None:
    for number in range(MOST + 20):
        event = {
            "metadata": {"name": f"event-{number:04}"},
            "involvedObject": {"kind": "Pod", "namespace": "default", "name": "web", "uid": str(number)},
            "reason": "Tested",
            "lastTimestamp": plane.now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        plane.user.create("events", "default", event)
    plane.settle()
    names = [event["metadata"]["name"] for event in plane.list("events")]
    assert len(names) == MOST
    assert names[0] == "event-0020"


# ScaledObjects


def _scaled(plane: Controlled, least: int | None, most: int, **metadata: Any) -> None:
    spec: Object = {
        "scaleTargetRef": {"name": "web"},
        "maxReplicaCount": most,
        "triggers": [{"type": "cpu", "metadata": {"value": "80"}}],
    }
    plane.create(SCALED, "web", spec if least is None else {**spec, "minReplicaCount": least}, **metadata)
    plane.settle()


def _replicas(plane: Controlled) -> int:
    return int(plane.get("deployments.apps", "web")["spec"]["replicas"])


@pytest.mark.parametrize(
    ("replicas", "least", "most", "expected"),
    [(1, 2, 4, 2), (3, 2, 4, 3), (9, 2, 4, 4), (0, 0, 4, 1), (0, None, 4, 1), (1, 0, 4, 1)],
)
def test_replicas_are_kept_in_their_range_and_never_at_zero(
    plane: Controlled, replicas: int, least: int | None, most: int, expected: int
) -> None:
    plane.create("deployments.apps", "web", deployment(replicas=replicas))
    _scaled(plane, least, most)
    assert _replicas(plane) == expected


def test_a_scaled_object_says_that_load_is_not_followed(plane: Controlled) -> None:
    plane.create("deployments.apps", "web", deployment(replicas=1))
    _scaled(plane, 1, 3)
    found = plane.get(SCALED, "web")
    ready = condition(found, "Ready")
    assert (ready["status"], ready["reason"]) == ("True", "LoadNotFollowed")
    assert ready["message"] == (
        "Load is not followed on the embedded data plane: Deployment web keeps its replicas between 1 and 3"
    )
    assert condition(found, "Paused")["status"] == "False"
    plane.writes.clear()
    plane.restart()
    plane.settle()
    assert plane.writes == []


def test_a_target_that_comes_later_is_found(plane: Controlled) -> None:
    _scaled(plane, 2, 3)
    ready = condition(plane.get(SCALED, "web"), "Ready")
    assert (ready["status"], ready["message"]) == ("False", "there is no Deployment web to scale")
    plane.create("deployments.apps", "web", deployment())
    plane.settle()
    assert _replicas(plane) == 2
    assert condition(plane.get(SCALED, "web"), "Ready")["status"] == "True"


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        ({"autoscaling.keda.sh/paused": "true"}, 1),
        ({"autoscaling.keda.sh/paused": "false"}, 2),
        ({"autoscaling.keda.sh/paused-replicas": "0"}, 0),
        ({"autoscaling.keda.sh/paused-replicas": "5"}, 5),
    ],
)
def test_a_pause_is_honoured(plane: Controlled, annotations: dict[str, str], expected: int) -> None:
    plane.create("deployments.apps", "web", deployment(replicas=1))
    _scaled(plane, 2, 3, annotations=annotations)
    assert _replicas(plane) == expected
    paused = condition(plane.get(SCALED, "web"), "Paused")["status"]
    assert paused == ("False" if "false" in annotations.values() else "True")


def test_the_writer_of_replicas_is_told_from_people(plane: Controlled) -> None:
    plane.create("deployments.apps", "web", deployment(replicas=1))
    _scaled(plane, 2, 3)
    managers = plane.get("deployments.apps", "web")["metadata"]["managedFields"]
    (scaler,) = [entry for entry in managers if entry["manager"] == "keda"]
    assert scaler["subresource"] == "scale"
    assert scaler["fieldsV1"] == {"f:spec": {"f:replicas": {}}}
