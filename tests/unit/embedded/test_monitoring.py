"""Which pods and ports become targets of Prometheus, and when the file of them is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from embedded.monitoring import POD_MONITORS, Monitor, Pod, PodMonitors, Port, running, targets
from embedded.store import Event

Object = dict[str, Any]

METRICS = {"name": "metrics", "containerPort": 9090}


def pod_object(phase: str = "Running", address: str = "127.1.0.2", **metadata: Any) -> Object:
    containers = [{"name": "model", "ports": [METRICS, {"containerPort": 8080}]}, {"name": "sidecar"}]
    status = {"phase": phase} | ({"podIP": address} if address else {})
    return {
        "metadata": {"name": "churn-1", "namespace": "production", "labels": {"app": "churn"}, **metadata},
        "spec": {"containers": containers},
        "status": status,
    }


def pod(namespace: str = "production", app: str = "churn") -> Pod:
    return Pod(namespace, f"{app}-1", {"app": app}, "127.1.0.2", (Port("model", "metrics", 9090),))


def monitor(*endpoints: Object, **spec: Any) -> Monitor:
    selector = {"matchLabels": {"app": "churn"}}
    return Monitor("production", "churn", {"selector": selector, "podMetricsEndpoints": [*endpoints], **spec})


def test_a_running_pod_is_known_by_its_address_and_named_ports() -> None:
    ports = (Port("model", "metrics", 9090),)

    assert running(pod_object()) == Pod("production", "churn-1", {"app": "churn"}, "127.1.0.2", ports)


@pytest.mark.parametrize(
    ("phase", "address"),
    [("Pending", "127.1.0.2"), ("Succeeded", "127.1.0.2"), ("Failed", "127.1.0.2"), ("Running", "")],
)
def test_a_pod_that_does_not_run_is_no_target(phase: str, address: str) -> None:
    assert running(pod_object(phase, address)) is None


def test_a_pod_is_one_target_for_each_endpoint() -> None:
    made = targets([monitor({"port": "metrics"}, {"port": "metrics", "path": "/more"}, {"port": "other"})], [pod()])

    assert [entry["targets"] for entry in made] == [["127.1.0.2:9090"]] * 2
    assert [entry["labels"].get("__metrics_path__") for entry in made] == [None, "/more"]


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        ({}, ["production"]),
        ({"matchNames": ["staging", "trials"]}, ["staging"]),
        ({"any": True}, ["production", "staging"]),
    ],
)
def test_a_monitor_looks_into_its_own_namespace_unless_it_says_otherwise(selector: Object, found: list[str]) -> None:
    pods = [pod("production"), pod("staging"), pod("production", app="other")]

    made = targets([monitor({"port": "metrics"}, namespaceSelector=selector)], pods)

    assert [entry["labels"]["namespace"] for entry in made] == found
    assert {entry["labels"]["job"] for entry in made} == {"production/churn"}


def test_the_time_out_is_the_interval_where_nothing_else_is_said() -> None:
    endpoints = {"port": "metrics", "interval": "1s"}, {"port": "metrics", "interval": "30s", "scrapeTimeout": "5s"}

    made = [entry["labels"] for entry in targets([monitor(*endpoints)], [pod()])]

    assert [(one["__scrape_interval__"], one["__scrape_timeout__"]) for one in made] == [("1s", "1s"), ("30s", "5s")]


class Written:
    """A controller on a folder, and what is told to it."""

    def __init__(self, folder: Path) -> None:
        self.controller = PodMonitors(folder)
        self.file = folder / "prometheus" / "targets.json"

    def tell(self, key: str, obj: Object, kind: str = "ADDED") -> bool:
        """Whether the file was written because of an event."""
        before = self.file.stat().st_ino, self.file.stat().st_mtime_ns
        for due in self.controller.keys(Event(1, key, kind, orjson.dumps(obj), None)):
            self.controller.reconcile(due)
        return before != (self.file.stat().st_ino, self.file.stat().st_mtime_ns)

    @property
    def content(self) -> Any:
        return orjson.loads(self.file.read_bytes())


def test_the_file_is_written_when_what_is_in_it_changes(tmp_path: Path) -> None:
    written, key = Written(tmp_path), "pods/production/churn-1"
    asked: Object = {
        "metadata": {"name": "churn", "namespace": "production"},
        "spec": monitor({"port": "metrics"}).spec,
    }
    assert written.content == []

    assert not written.tell(key, pod_object())
    assert written.tell(f"{POD_MONITORS}/production/churn", asked)
    assert [entry["labels"]["pod"] for entry in written.content] == ["churn-1"]

    assert not written.tell(key, pod_object(annotations={"seen": "yes"}))
    assert not written.tell(key, pod_object(labels={"app": "churn", "more": "yes"}))
    assert written.tell(key, pod_object(), "DELETED")
    assert written.content == []
    assert not written.tell(f"{POD_MONITORS}/production/churn", asked, "DELETED")


def test_a_new_data_plane_forgets_the_targets_of_an_earlier_one(tmp_path: Path) -> None:
    first = Written(tmp_path)
    first.file.write_text('[{"targets": ["127.1.0.2:9090"]}]')

    assert Written(tmp_path).content == []
