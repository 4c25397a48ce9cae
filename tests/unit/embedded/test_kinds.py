"""The kinds: names, columns, shipped definitions, what an update may change."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from embedded import kinds
from embedded.kinds import BUILTIN, Kind, kinds_of_crd, shipped_crds
from embedded.kinds.cells import age, human_duration, pod_status, selector_text
from embedded.kinds.crd import json_path
from embedded.kinds.defaults import pull_policy
from embedded.kinds.lifecycle import qos_class
from embedded.kinds.workloads import schedule_problems


@pytest.mark.parametrize("crd", shipped_crds(), ids=lambda crd: crd["metadata"]["name"])
def test_the_shipped_definitions_are_valid_by_our_own_rules(
    crd: dict[str, Any], kinds_by_name: dict[str, Kind]
) -> None:
    kind, obj = kinds_by_name["CustomResourceDefinition"], copy.deepcopy(crd)
    assert kinds.unknown_fields(kind, obj) == []
    kinds.defaults(kind, obj)
    assert kinds.validate(kind, obj, None) == []
    assert kinds_of_crd(crd)


def test_every_kind_of_the_data_plane_is_there(kinds_by_name: dict[str, Kind]) -> None:
    needed = {"Namespace", "Deployment", "Job", "Service", "HTTPRoute", "ScaledObject", "PodMonitor", "PrometheusRule"}
    assert needed <= set(kinds_by_name)
    names = [(kind.group, kind.version, kind.plural) for kind in BUILTIN]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("kind", BUILTIN, ids=lambda kind: kind.kind)
def test_defaulting_an_empty_object_is_harmless_and_idempotent(kind: Kind) -> None:
    obj: dict[str, Any] = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": "x"}}
    kinds.defaults(kind, obj)
    before = copy.deepcopy(obj)
    kinds.defaults(kind, obj)
    assert obj == before
    kinds.validate(kind, obj, None)


@pytest.mark.parametrize("kind", BUILTIN, ids=lambda kind: kind.kind)
def test_every_column_has_a_cell_for_an_object_with_nothing_in_it(kind: Kind, now: datetime) -> None:
    obj: dict[str, Any] = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": "x"}}
    kinds.defaults(kind, obj)
    cells = [column.cell(obj, now) for column in kind.columns]
    assert all(cell is None or isinstance(cell, str | int | bool) for cell in cells)


def valid(kind: Kind, body: dict[str, Any]) -> dict[str, Any]:
    obj = copy.deepcopy(body)
    obj["metadata"]["uid"] = "u"
    kinds.defaults(kind, obj)
    return obj


POD_SPEC = {"restartPolicy": "Never", "containers": [{"name": "x", "image": "i"}]}
JOB_LABELS = {"batch.kubernetes.io/controller-uid": "u"}
JOB = {"selector": {"matchLabels": JOB_LABELS}, "template": {"metadata": {"labels": JOB_LABELS}, "spec": POD_SPEC}}


@pytest.mark.parametrize(
    ("name", "body", "change", "message"),
    [
        (
            "Deployment",
            {"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}}}},
            {"spec": {"selector": {"matchLabels": {"a": "c"}}}},
            'spec.selector: Invalid value: {"matchLabels":{"a":"c"}}: field is immutable',
        ),
        ("Job", {"spec": JOB}, {"spec": {"completions": 5}}, "spec.completions: Invalid value: 5: field is immutable"),
        ("Job", {"spec": JOB}, {"spec": {"parallelism": 5, "activeDeadlineSeconds": 9, "suspend": True}}, ""),
        (
            "ConfigMap",
            {"immutable": True, "data": {"a": "b"}},
            {"data": {"a": "c"}},
            "data: Forbidden: field is immutable when `immutable` is set",
        ),
        ("Secret", {"type": "Opaque"}, {"type": "x/y"}, 'type: Invalid value: "x/y": field is immutable'),
        (
            "RoleBinding",
            {"roleRef": {"kind": "Role", "name": "a"}},
            {"roleRef": {"name": "b"}},
            (
                'roleRef: Invalid value: {"apiGroup":"rbac.authorization.k8s.io","kind":"Role","name":"b"}: '
                "cannot change roleRef"
            ),
        ),
        (
            "EndpointSlice",
            {"addressType": "IPv4", "endpoints": []},
            {"addressType": "IPv6"},
            'addressType: Invalid value: "IPv6": field is immutable',
        ),
    ],
)
def test_immutable_fields(name: str, body: Any, change: Any, message: str, kinds_by_name: dict[str, Kind]) -> None:
    kind = kinds_by_name[name]
    full = {"apiVersion": kind.api_version, "kind": name, "metadata": {"name": "x", "namespace": "n"}, **body}
    old = valid(kind, full)
    new = copy.deepcopy(old)
    for field, value in change.items():
        new[field] = {**new[field], **value} if isinstance(value, dict) else value
    kinds.defaults(kind, new)
    texts = [str(cause) for cause in kinds.validate(kind, new, old)]
    assert (message in texts) if message else texts == []


def test_a_job_that_has_not_started_may_still_be_told_where_to_run(kinds_by_name: dict[str, Kind]) -> None:
    kind = kinds_by_name["Job"]
    old = valid(kind, {"metadata": {"name": "j", "namespace": "n"}, "spec": {**JOB, "suspend": True}})
    new = copy.deepcopy(old)
    new["spec"]["template"]["spec"]["nodeSelector"] = {"pool": "gpu"}
    assert kinds.validate(kind, new, old) == []
    old["spec"]["suspend"] = new["spec"]["suspend"] = False
    assert [cause.field for cause in kinds.validate(kind, new, old)] == ["spec.template"]


def test_the_main_resource_keeps_the_old_status_and_status_everything_else(kinds_by_name: dict[str, Kind]) -> None:
    kind = kinds_by_name["Deployment"]
    old = {"metadata": {"name": "d", "labels": {"a": "1"}}, "spec": {"replicas": 1}, "status": {"replicas": 1}}
    asked = {"metadata": {"name": "d", "labels": {"a": "2"}}, "spec": {"replicas": 9}, "status": {"replicas": 9}}
    main, status = copy.deepcopy(asked), copy.deepcopy(asked)
    kinds.isolate(kind, main, old, "")
    assert (main["spec"], main["status"]) == ({"replicas": 9}, {"replicas": 1})
    kinds.isolate(kind, status, old, "status")
    assert (status["spec"], status["status"]) == ({"replicas": 1}, {"replicas": 9})
    assert status["metadata"]["labels"] == {"a": "1"}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"), (119, "119s"), (120, "2m"), (150, "2m30s"), (600, "10m"), (3600 * 3, "3h"),
        (3600 * 3 + 1200, "3h20m"), (3600 * 47, "47h"), (86400 * 2, "2d"), (86400 * 2 + 3600 * 4, "2d4h"),
        (86400 * 8, "8d"), (86400 * 730, "2y"), (86400 * 760, "2y30d"), (-5, "<invalid>"),
    ],
)  # fmt: skip
def test_ages_are_printed_as_kubectl_prints_them(seconds: int, text: str) -> None:
    assert human_duration(timedelta(seconds=seconds)) == text


def test_an_age_needs_a_time() -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    assert age(None, moment) == "<unknown>"
    assert age("2025-12-31T23:59:00Z", moment) == "60s"


@pytest.mark.parametrize(
    ("status", "word"),
    [
        ({"phase": "Pending"}, "Pending"),
        (
            {"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ErrImagePull"}}}]},
            "ErrImagePull",
        ),
        ({"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 3}}}]}, "ExitCode:3"),
        (
            {"phase": "Succeeded", "containerStatuses": [{"state": {"terminated": {"reason": "Completed"}}}]},
            "Completed",
        ),
        (
            {"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 4}}}]},
            "Init:ExitCode:4",
        ),
        ({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"running": {}}}]}, "Init:0/1"),
    ],
)
def test_a_pod_is_described_by_one_word(status: Any, word: str) -> None:
    assert pod_status({"metadata": {}, "spec": {"initContainers": [{"name": "i"}]}, "status": status}) == word


def test_a_selector_is_printed_in_the_syntax_of_kubectl() -> None:
    rules = [
        {"key": "c", "operator": "In", "values": ["y", "x"]},
        {"key": "d", "operator": "Exists"},
        {"key": "e", "operator": "DoesNotExist"},
    ]
    assert selector_text({"matchLabels": {"a": "b"}, "matchExpressions": rules}) == "a=b,c in (x,y),d,!e"


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".spec.name", ["n"]),
        (".spec.items[*].v", [1, 2]),
        (".spec.items[1].v", [2]),
        ('.status.conditions[?(@.type=="Ready")].status', ["True"]),
        (r".metadata.labels.a\.b/c", ["x"]),
        (".metadata.labels['a.b/c']", ["x"]),
        (".nothing.here", []),
        (".spec.items[?(@.v>1)]", []),
    ],
)
def test_the_json_paths_of_printer_columns(path: str, found: list[Any]) -> None:
    obj = {
        "spec": {"name": "n", "items": [{"v": 1}, {"v": 2}]},
        "metadata": {"labels": {"a.b/c": "x"}},
        "status": {"conditions": [{"type": "Other", "status": "False"}, {"type": "Ready", "status": "True"}]},
    }
    assert json_path(path)(obj) == found


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("x", "Always"),
        ("x:latest", "Always"),
        ("r:5000/x", "Always"),
        ("x:1", "IfNotPresent"),
        ("r:5000/x:1", "IfNotPresent"),
        ("x@sha256:abc", "IfNotPresent"),
    ],
)
def test_images_are_pulled_always_only_where_the_tag_may_move(image: str, policy: str) -> None:
    assert pull_policy(image) == policy


def test_quality_of_service_follows_from_requests_and_limits() -> None:
    both = {"cpu": "1", "memory": "1Gi"}
    assert qos_class({"containers": [{}]}) == "BestEffort"
    assert qos_class({"containers": [{"resources": {"limits": both, "requests": both}}]}) == "Guaranteed"
    assert qos_class({"containers": [{"resources": {"requests": both}}]}) == "Burstable"


@pytest.mark.parametrize("text", ["* * * * *", "*/5 0-23 1,15 jan-mar mon", "@daily", "@every 1h30m", "0 0 ? * 0"])
def test_readable_schedules(text: str) -> None:
    assert schedule_problems(text) == []


@pytest.mark.parametrize(
    "text", ["* * * *", "60 * * * *", "* * * * 7", "5-1 * * * *", "*/0 * * * *", "x * * * *", "@noon"]
)
def test_unreadable_schedules(text: str) -> None:
    assert len(schedule_problems(text)) == 1
