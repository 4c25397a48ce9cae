"""The Kubernetes edge against real API servers, with every fault that one of them, or the way to it, can have."""

from __future__ import annotations

import base64
import datetime
import json
import socket
import socketserver
import stat
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from reconciler.cluster import (
    AlreadyExists,
    ApiError,
    Connection,
    Expired,
    FieldConflict,
    Forbidden,
    Invalid,
    KindMissing,
    KubeconfigError,
    NamespaceMissing,
    NotFound,
    QuotaExceeded,
    Reader,
    Retry,
    Stale,
    Terminating,
    Timeouts,
    TooLarge,
    Unauthorized,
    Unavailable,
    WebhookFailed,
    Writer,
    connect,
)
from renderers.manifest import Body, ObjectId, object_id
from tests.contract.client import Api, eventually
from tests.contract.faults import Fault, FaultProxy, answer, cut, drop, lose, stall, stream


@pytest.fixture
def kubeconfig(server: tuple[Path, str]) -> Path:
    return server[0]


@pytest.fixture
def only_real(server: tuple[Path, str]) -> None:
    if server[1] != "real":
        pytest.skip("the embedded server has no webhooks, no quotas and no roles")


class Clock:
    """Time that passes by itself, or at once: pauses take none of it, and are written down."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return time.monotonic() + self.ahead

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.ahead += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def proxy(kubeconfig: Path) -> Iterator[FaultProxy]:
    with FaultProxy(kubeconfig) as proxy:
        yield proxy


@pytest.fixture
def connection(proxy: FaultProxy, tmp_path: Path, clock: Clock) -> Iterator[Connection]:
    connection = through(proxy, tmp_path, clock)
    yield connection
    connection.close()


def through(proxy: FaultProxy, tmp_path: Path, clock: Clock, **options: Any) -> Connection:
    return connect(
        str(proxy.kubeconfig(tmp_path / f"kubeconfig-{uuid4()}")),
        trusted=True,
        timeouts=Timeouts(connect=2.0, answer=1.0, silence=0.5),
        retry=Retry(clock=clock, pause=clock.pause, jitter=lambda: 1.0),
        **options,
    )


@pytest.fixture
def writer(connection: Connection) -> Writer:
    return Writer(connection)


def config_map(namespace: str, name: str = "a", **data: str) -> Body:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def deployment(namespace: str, **spec: Any) -> Body:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d", "namespace": namespace},
        "spec": {
            "selector": {"matchLabels": {"app": "d"}},
            "template": {
                "metadata": {"labels": {"app": "d"}},
                "spec": {"containers": [{"name": "c", "image": "i"}]},
            },
        }
        | spec,
    }


# --- reading and writing ---------------------------------------------------------------------------------


def test_what_is_applied_can_be_read(writer: Writer, namespace: str) -> None:
    stored = writer.apply(config_map(namespace, key="value"))
    assert stored["data"] == {"key": "value"}
    assert writer.get(ObjectId("v1", "ConfigMap", namespace, "a")) == stored


def test_applying_the_same_again_changes_nothing(writer: Writer, namespace: str) -> None:
    first = writer.apply(deployment(namespace))
    assert writer.apply(deployment(namespace)) == first


def test_a_field_that_is_no_longer_applied_is_removed(writer: Writer, namespace: str) -> None:
    writer.apply(config_map(namespace, a="1", b="2"))
    assert writer.apply(config_map(namespace, a="1"))["data"] == {"a": "1"}


def test_an_object_that_does_not_exist_is_none(writer: Writer, namespace: str) -> None:
    assert writer.get(ObjectId("v1", "ConfigMap", namespace, "missing")) is None
    assert writer.get(ObjectId("v1", "ConfigMap", "no-such-namespace", "missing")) is None


def test_every_character_arrives_as_it_was_sent(writer: Writer, namespace: str) -> None:
    text = "".join(map(chr, (*range(0x20, 0x180), 0x2028, 0x2029, 0xFEFF, 0xFFFD, 0xFFFF, 0x1F600))) + '\t\n\r\\"'
    assert writer.apply(config_map(namespace, text=text))["data"]["text"] == text


def test_a_prediction_is_what_an_apply_would_store_and_stores_nothing(writer: Writer, namespace: str) -> None:
    reader: Reader = writer
    predicted = reader.predict(deployment(namespace, replicas=3))
    assert predicted["spec"]["replicas"] == 3
    assert predicted["spec"]["strategy"]["type"] == "RollingUpdate"  # the server's default
    assert reader.get(object_id(deployment(namespace))) is None
    assert writer.apply(deployment(namespace, replicas=3))["spec"] == predicted["spec"]


def test_a_reader_has_no_method_that_writes() -> None:
    public = {name for name in dir(Reader) if not name.startswith("_")}
    assert public == {"get", "list", "live", "page", "predict", "resource", "user", "version", "watch", "watch_once"}


def test_the_version_of_the_server(writer: Writer) -> None:
    assert writer.version().startswith("v1.")


def test_create_is_for_objects_that_do_not_exist(writer: Writer, namespace: str) -> None:
    assert writer.create(config_map(namespace, a="1"))["metadata"]["uid"]
    with pytest.raises(AlreadyExists, match=r'ConfigMap/.*/a: configmaps "a" already exists'):
        writer.create(config_map(namespace, a="1"))


def test_an_update_is_done_only_to_the_version_that_it_is_based_on(writer: Writer, namespace: str) -> None:
    first = writer.create(config_map(namespace, a="1"))
    second = writer.update(first | {"data": {"a": "2"}})
    assert second["data"] == {"a": "2"}
    with pytest.raises(Stale) as caught:
        writer.update(first | {"data": {"a": "3"}})
    assert caught.value.field == "resourceVersion"


def test_an_update_without_a_version_is_a_mistake_of_the_caller(writer: Writer, namespace: str) -> None:
    with pytest.raises(ValueError, match="resourceVersion"):
        writer.update(config_map(namespace))


def test_the_status_is_updated_apart_from_the_rest(writer: Writer, namespace: str) -> None:
    made = writer.apply(deployment(namespace, replicas=2))

    def updated() -> Body | None:
        live = writer.get(object_id(made))
        assert live is not None
        wish = live | {"status": {"replicas": 2, "observedGeneration": 1}, "spec": live["spec"] | {"replicas": 9}}
        try:
            return writer.update(wish, subresource="status")
        except Stale:
            return None  # where there are controllers, one of them was faster

    stored = eventually(updated)
    assert stored is not None
    assert stored["status"]["replicas"] == 2
    assert stored["spec"]["replicas"] == 2


def test_a_deleted_object_is_gone_and_deleting_it_again_is_fine(writer: Writer, namespace: str) -> None:
    made = writer.apply(config_map(namespace))
    uid = made["metadata"]["uid"]
    assert writer.delete(object_id(made), uid=uid, propagation="Background") is None
    assert writer.get(object_id(made)) is None
    assert writer.delete(object_id(made), uid=uid) is None


def test_an_object_that_a_finalizer_holds_is_returned_by_its_deletion(writer: Writer, namespace: str) -> None:
    held = config_map(namespace)
    held["metadata"]["finalizers"] = ["example.com/hold"]
    made = writer.apply(held)
    left = writer.delete(object_id(made), uid=made["metadata"]["uid"], propagation="Background")
    assert left is not None
    assert left["metadata"]["deletionTimestamp"]
    writer.apply(config_map(namespace))  # lets it go


def test_an_object_made_anew_under_the_same_name_is_not_deleted(writer: Writer, namespace: str) -> None:
    made = writer.apply(config_map(namespace))
    with pytest.raises(Stale) as caught:
        writer.delete(object_id(made), uid=str(uuid4()))
    assert caught.value.field == "uid"
    assert writer.get(object_id(made)) is not None


def test_an_object_that_has_changed_is_not_deleted(writer: Writer, namespace: str) -> None:
    made = writer.apply(config_map(namespace, a="1"))
    writer.apply(config_map(namespace, a="2"))
    with pytest.raises(Stale) as caught:
        writer.delete(
            object_id(made),
            uid=made["metadata"]["uid"],
            resource_version=made["metadata"]["resourceVersion"],
        )
    assert caught.value.field == "resourceVersion"


# --- lists and discovery ---------------------------------------------------------------------------------


def test_a_list_has_the_matching_objects_each_with_its_kind(writer: Writer, namespace: str) -> None:
    for name, tier in (("a", "web"), ("b", "web"), ("c", "db")):
        body = config_map(namespace, name)
        body["metadata"]["labels"] = {"tier": tier}
        writer.apply(body)
    listing = writer.list("v1", "ConfigMap", namespace=namespace, labels="tier in (web)")
    assert [object_id(item).name for item in listing.items] == ["a", "b"]
    assert {(item["apiVersion"], item["kind"]) for item in listing.items} == {("v1", "ConfigMap")}
    everywhere = writer.list("v1", "ConfigMap", labels="tier").items
    assert {object_id(item) for item in everywhere} >= {object_id(item) for item in listing.items}


def test_a_list_of_metadata_has_nothing_else(writer: Writer, namespace: str) -> None:
    writer.apply(config_map(namespace, key="value"))
    listing = writer.list("v1", "ConfigMap", namespace=namespace, metadata_only=True)
    (item,) = [item for item in listing.items if item["metadata"]["name"] == "a"]
    assert set(item) == {"apiVersion", "kind", "metadata"}
    assert object_id(item) == ObjectId("v1", "ConfigMap", namespace, "a")


def test_a_list_of_more_than_a_page_is_complete(writer: Writer, namespace: str, proxy: FaultProxy) -> None:
    names = [f"c-{number:04}" for number in range(501)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda name: writer.apply(config_map(namespace, name)), names))
    listing = writer.list("v1", "ConfigMap", namespace=namespace, metadata_only=True)
    assert [name for item in listing.items if (name := item["metadata"]["name"]) in set(names)] == names
    assert proxy.count("GET", r"configmaps\?limit=500") == 2


#: As kube-apiserver answers when the continue token is older than the last compaction.
TOKEN_EXPIRED = {
    "kind": "Status",
    "apiVersion": "v1",
    "metadata": {"continue": "abc"},
    "status": "Failure",
    "message": "The provided continue parameter is too old to display a consistent list result. ...",
    "reason": "Expired",
    "code": 410,
}


def test_a_list_that_expires_between_pages_is_read_again_as_a_whole(
    writer: Writer, namespace: str, proxy: FaultProxy
) -> None:
    writer.apply(config_map(namespace, "a"))
    whole = writer.list("v1", "ConfigMap", namespace=namespace).items
    page = {"kind": "ConfigMapList", "apiVersion": "v1", "items": [config_map(namespace, "gone")]}
    proxy.inject(answer(200, page | {"metadata": {"continue": "old", "resourceVersion": "1"}}), path="limit=500")
    proxy.inject(answer(410, TOKEN_EXPIRED), path="continue=old")
    assert writer.list("v1", "ConfigMap", namespace=namespace).items == whole


def test_discovery_tells_how_a_kind_is_served(writer: Writer) -> None:
    served = writer.resource("apps/v1", "Deployment")
    assert served is not None
    assert (served.plural, served.namespaced) == ("deployments", True)
    assert {"get", "list", "watch", "patch", "delete"} <= served.verbs
    namespaces = writer.resource("v1", "Namespace")
    assert namespaces is not None
    assert not namespaces.namespaced
    assert writer.resource("apps/v1", "Deploiment") is None
    assert writer.resource("no.such.group/v1", "Deployment") is None


def test_discovery_asks_once_per_group_version(writer: Writer, namespace: str, proxy: FaultProxy) -> None:
    for kind in ("Deployment", "ReplicaSet", "Deployment", "StatefulSet"):
        writer.get(ObjectId("apps/v1", kind, namespace, "a"))
    assert proxy.count("GET", "^/apis/apps/v1$") == 1


def test_a_kind_that_is_installed_later_is_found(writer: Writer, clock: Clock, proxy: FaultProxy) -> None:
    plural = f"widgets{uuid4().hex[:6]}"
    group = f"{plural}.example.com"
    widget = {"apiVersion": f"{group}/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"size": 3}}
    with pytest.raises(KindMissing, match=f"Widget/w: the cluster does not serve Widget in {group}/v1"):
        writer.apply(widget)
    with pytest.raises(KindMissing):
        writer.get(object_id(widget))
    assert proxy.count("GET", f"/apis/{group}/v1$") == 1  # it is not asked for every object of the kind
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    crd = writer.apply(
        {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": f"{plural}.{group}"},
            "spec": {
                "group": group,
                "scope": "Cluster",
                "names": {"plural": plural, "kind": "Widget"},
                "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
            },
        }
    )

    def served() -> bool:
        clock.ahead += 3
        return writer.resource(f"{group}/v1", "Widget") is not None

    eventually(served)
    assert writer.apply(widget)["spec"] == {"size": 3}
    writer.delete(object_id(crd), uid=crd["metadata"]["uid"])


def test_a_path_cannot_be_escaped_by_a_name(writer: Writer, namespace: str) -> None:
    for name in ("..", "."):
        with pytest.raises(Invalid):
            writer.get(ObjectId("v1", "ConfigMap", namespace, name))
    with pytest.raises(Invalid, match="has no namespace"):
        writer.get(ObjectId("v1", "ConfigMap", "", "a"))


# --- refusals ----------------------------------------------------------------------------------------------


def test_a_conflict_names_the_manager_and_the_field(writer: Writer, api: Api, namespace: str, config_maps: str) -> None:
    writer.apply(config_map(namespace, a="1", b="1"))
    api.apply(f"{config_maps}/a", config_map(namespace, a="theirs"), manager="kubectl", query="&force=true")
    with pytest.raises(FieldConflict) as caught:
        writer.apply(config_map(namespace, a="2", b="2"))
    assert caught.value.conflicts == (("kubectl", ".data.a"),)
    assert writer.apply(config_map(namespace, a="2", b="2"), force=True)["data"] == {"a": "2", "b": "2"}


def test_an_unknown_field_is_invalid_and_named(writer: Writer, namespace: str) -> None:
    with pytest.raises(Invalid, match=r"replicass"):
        writer.apply(deployment(namespace, replicass=3))


def test_a_bad_value_is_invalid_with_its_field(writer: Writer, namespace: str) -> None:
    with pytest.raises(Invalid) as caught:
        writer.apply(deployment(namespace, replicas=-1))
    assert [cause.field for cause in caught.value.causes] == ["spec.replicas"]
    assert not caught.value.immutable_only


def test_a_value_of_the_wrong_type_is_invalid_and_not_tried_again(writer: Writer, namespace: str, clock: Clock) -> None:
    with pytest.raises(Invalid):
        writer.apply(deployment(namespace, replicas="three"))
    assert clock.pauses == []


def test_a_changed_immutable_field_asks_for_a_replacement(writer: Writer, namespace: str) -> None:
    writer.apply(deployment(namespace))
    changed = deployment(namespace, selector={"matchLabels": {"app": "e"}})
    changed["spec"]["template"]["metadata"]["labels"] = {"app": "e"}
    with pytest.raises(Invalid) as caught:
        writer.apply(changed)
    assert caught.value.immutable_only
    changed["spec"]["replicas"] = -1
    with pytest.raises(Invalid) as caught:
        writer.apply(changed)
    assert not caught.value.immutable_only


def test_an_apply_that_is_bound_to_a_version_is_refused_after_a_change(writer: Writer, namespace: str) -> None:
    approved = writer.apply(config_map(namespace, a="1"))["metadata"]
    writer.apply(config_map(namespace, a="2"))
    bound = config_map(namespace, a="3")
    bound["metadata"]["resourceVersion"] = approved["resourceVersion"]
    with pytest.raises(Stale):
        writer.apply(bound)


def test_an_apply_that_is_bound_to_a_uid_neither_changes_nor_makes_another_object(
    writer: Writer, namespace: str
) -> None:
    bound = config_map(namespace, a="3")
    bound["metadata"]["uid"] = str(uuid4())
    with pytest.raises(Stale) as caught:
        writer.apply(bound)
    assert caught.value.field == "uid"
    writer.apply(config_map(namespace, a="1"))
    with pytest.raises(Stale) as caught:
        writer.apply(bound)
    assert caught.value.field == "uid"


def test_a_missing_namespace_is_told_from_a_missing_object(writer: Writer) -> None:
    with pytest.raises(NamespaceMissing, match=r"ConfigMap/no-such/a: .*Create the namespace first"):
        writer.apply(config_map("no-such"))
    with pytest.raises(NamespaceMissing):
        writer.predict(config_map("no-such"))
    with pytest.raises(NamespaceMissing):
        writer.create(config_map("no-such"))


def test_an_update_of_a_deleted_object_is_not_found(writer: Writer, namespace: str) -> None:
    made = writer.apply(config_map(namespace))
    writer.delete(object_id(made), uid=made["metadata"]["uid"], propagation="Background")
    with pytest.raises((NotFound, Stale)):  # the one by name, the other by uid
        writer.update(made)


def test_a_request_of_more_than_three_megabytes_is_too_large(writer: Writer, namespace: str) -> None:
    with pytest.raises(TooLarge):
        writer.apply(config_map(namespace, a="x" * (4 << 20)))


def test_a_namespace_that_is_being_deleted_takes_no_new_objects(writer: Writer, namespace: str) -> None:
    held = config_map(namespace, "held")
    held["metadata"]["finalizers"] = ["example.com/hold"]
    writer.apply(held)
    home = writer.get(ObjectId("v1", "Namespace", "", namespace))
    assert home is not None
    writer.delete(object_id(home), uid=home["metadata"]["uid"], propagation="Background")
    with pytest.raises(Terminating, match="being terminated"):
        writer.apply(config_map(namespace, "new"))
    writer.apply(config_map(namespace, "held"))


def test_the_value_of_a_secret_is_in_no_message(writer: Writer, namespace: str) -> None:
    for data in ({"p": ["hunter2"]}, {"p": "hunter2!!"}, {"p": {"hunter2": "a"}}, {"hunter2!": "YQ=="}):
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": namespace}}
        for write in (writer.apply, writer.create, writer.predict):
            with pytest.raises(Invalid) as caught:
                write(secret | {"data": data})
            told = f"{caught.value} {caught.value!r} {caught.value.causes}"
            assert "hunter2" not in told.replace("data[hunter2!]", "")  # the name of a key is no secret


def test_warnings_of_the_server_are_kept_once_each(
    writer: Writer, connection: Connection, namespace: str, proxy: FaultProxy
) -> None:
    connection.take_warnings()
    stored = writer.apply(config_map(namespace))
    header = '299 - "apps/v0 is deprecated", 299 - "use \\"apps/v1\\""'
    proxy.inject(answer(200, stored, Warning=header), method="PATCH", times=2)
    writer.apply(config_map(namespace))
    writer.apply(config_map(namespace))
    target = ObjectId("v1", "ConfigMap", namespace, "a")
    assert connection.take_warnings() == ((target, "apps/v0 is deprecated"), (target, 'use "apps/v1"'))
    assert connection.take_warnings() == ()


@pytest.mark.usefixtures("only_real")
def test_a_role_that_does_not_allow_it_is_forbidden(writer: Writer, api: Api, namespace: str, tmp_path: Path) -> None:
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "weak", "namespace": namespace},
    }
    writer.apply(account)
    wish = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    issued = api("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts/weak/token", wish).body
    config = yaml.safe_load(api.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": issued["status"]["token"]}
    (tmp_path / "weak").write_text(json.dumps(config))
    weak = Writer(connect(str(tmp_path / "weak")))
    with pytest.raises(Forbidden, match=r"cannot patch resource .*Grant it in the role"):
        weak.apply(config_map(namespace))
    with pytest.raises(Forbidden, match="cannot get resource"):
        weak.get(ObjectId("v1", "Secret", namespace, "s"))


@pytest.mark.usefixtures("only_real")
def test_an_exceeded_quota_is_no_matter_of_rights(writer: Writer, connection: Connection, namespace: str) -> None:
    hard = {"services": "0"}
    quota = writer.apply(
        {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "q", "namespace": namespace},
            "spec": {"hard": hard},
        }
    )
    with suppress(Stale):  # a controller does it where there are some
        writer.update(quota | {"status": {"hard": hard, "used": {"services": "0"}}}, subresource="status")
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "s", "namespace": namespace},
        "spec": {"ports": [{"port": 80}]},
    }
    eventually(lambda: refused_with(QuotaExceeded, lambda: writer.predict(service)))


@pytest.mark.usefixtures("only_real")
def test_a_webhook_that_is_down_says_nothing_about_the_object(writer: Writer, namespace: str, clock: Clock) -> None:
    labelled = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": {"ns": namespace}}}
    writer.apply(labelled)
    hook = writer.apply(
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": namespace},
            "webhooks": [
                {
                    "name": "check.example.com",
                    "admissionReviewVersions": ["v1"],
                    "sideEffects": "None",
                    "timeoutSeconds": 1,
                    "clientConfig": {"url": "https://127.0.0.1:9/"},
                    "namespaceSelector": {"matchLabels": {"ns": namespace}},
                    "rules": [
                        {
                            "apiGroups": [""],
                            "apiVersions": ["v1"],
                            "operations": ["*"],
                            "resources": ["configmaps"],
                        }
                    ],
                }
            ],
        }
    )
    try:
        eventually(lambda: refused_with(WebhookFailed, lambda: writer.apply(config_map(namespace))))
        assert len(clock.pauses) == 5
    finally:
        writer.delete(object_id(hook), uid=hook["metadata"]["uid"])


def refused_with(error: type[ApiError], act: Callable[[], object]) -> bool:
    try:
        act()
    except error:
        return True
    return False


# --- faults on the way -------------------------------------------------------------------------------------

TOO_MANY = answer(429, "Too many requests, please try again later.\n", Retry_After="1")
WEBHOOK_DOWN = answer(
    500,
    {
        "kind": "Status",
        "message": 'Internal error occurred: failed calling webhook "x": failed to call webhook: EOF',
        "reason": "InternalError",
        "code": 500,
    },
)
NO_LEADER = answer(500, {"kind": "Status", "message": "etcdserver: no leader", "code": 500})
MEETING = answer(
    409,
    {
        "kind": "Status",
        "message": 'Operation cannot be fulfilled on configmaps "a": the object has been modified; please apply ...',
        "reason": "Conflict",
        "details": {"name": "a", "kind": "configmaps"},
        "code": 409,
    },
)
QUOTA_RACE = answer(
    409,
    {
        "kind": "Status",
        "message": 'Operation cannot be fulfilled on resourcequotas "q": the object has been modified; ...',
        "reason": "Conflict",
        "details": {"name": "q", "kind": "resourcequotas"},
        "code": 409,
    },
)

PASSING = {
    "429": TOO_MANY,
    "500 of a webhook": WEBHOOK_DOWN,
    "500 of etcd": NO_LEADER,
    "502": answer(502, "<html>Bad Gateway</html>"),
    "503": answer(503),
    "504": answer(504, {"kind": "Status", "message": "request did not complete ...", "reason": "Timeout", "code": 504}),
    "reset before": drop(),
    "reset after": lose(),
    "reset in mid-body": cut(),
    "page of a portal": answer(200, "<html>Please log in"),
}
passing = pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)


@passing
def test_a_fault_that_passes_is_survived_by_every_repeatable_request(
    writer: Writer, namespace: str, proxy: FaultProxy, clock: Clock, fault: Fault
) -> None:
    proxy.inject(fault, method="PATCH")
    made = writer.apply(config_map(namespace, a="1"))
    proxy.inject(fault, method="GET")
    assert writer.get(object_id(made)) == made
    proxy.inject(fault, method="GET")
    assert made in writer.list("v1", "ConfigMap", namespace=namespace).items
    proxy.inject(fault, method="PATCH")
    assert writer.predict(config_map(namespace, a="2"))["data"] == {"a": "2"}
    proxy.inject(fault, method="POST")
    assert writer.create(config_map(namespace, "b", b="1"))["data"] == {"b": "1"}
    proxy.inject(fault, method="DELETE")
    assert writer.delete(object_id(made), uid=made["metadata"]["uid"], propagation="Background") is None
    assert writer.get(object_id(made)) is None
    assert clock.pauses


@pytest.mark.parametrize("at", range(1, 7))
@passing
def test_a_fault_at_any_request_of_a_pass_changes_nothing_in_its_outcome(
    writer: Writer, proxy: FaultProxy, namespace: str, fault: Fault, at: int
) -> None:
    proxy.inject(fault, nth=at)
    writer.apply(config_map(namespace, a="1"))  # after discovery, which is a request too
    writer.apply(deployment(namespace, replicas=2))
    made = writer.apply(config_map(namespace, "b"))
    writer.delete(object_id(made), uid=made["metadata"]["uid"], propagation="Background")
    assert writer.get(object_id(made)) is None
    stored = writer.get(ObjectId("v1", "ConfigMap", namespace, "a"))
    assert stored is not None
    assert stored["data"] == {"a": "1"}


def test_a_silent_server_is_given_up_and_what_it_did_is_found(
    writer: Writer, namespace: str, proxy: FaultProxy
) -> None:
    over = threading.Event()
    proxy.inject(stall(over), method="PATCH")
    assert writer.apply(config_map(namespace, a="1"))["data"] == {"a": "1"}
    over.set()


def test_a_look_is_given_up_sooner_than_a_write_which_a_webhook_may_have_to_admit(
    namespace: str, proxy: FaultProxy, tmp_path: Path
) -> None:
    kubeconfig = str(proxy.kubeconfig(tmp_path / "impatient"))
    timeouts = Timeouts(answer=10.0, look=0.2)
    with closing(connect(kubeconfig, trusted=True, timeouts=timeouts, retry=Retry(attempts=1))) as impatient:
        writer = Writer(impatient)
        writer.apply(config_map(namespace))

        def late(handler: Any, request: bytes) -> None:
            time.sleep(0.6)
            handler._pass_on(request)

        proxy.inject(late, path="configmaps", times=2)
        with pytest.raises(Unavailable, match="no answer in time"):
            writer.get(object_id(config_map(namespace)))
        assert writer.apply(config_map(namespace, a="2"))["data"] == {"a": "2"}


def test_two_writers_that_meet_inside_the_server_are_no_conflict(
    writer: Writer, namespace: str, proxy: FaultProxy
) -> None:
    writer.get(object_id(config_map(namespace)))
    proxy.inject(MEETING, method="PATCH")
    assert writer.apply(config_map(namespace, a="1"))["data"] == {"a": "1"}
    bound = config_map(namespace, a="2")
    bound["metadata"]["resourceVersion"] = "1"
    proxy.inject(MEETING, method="PATCH")
    with pytest.raises(Stale):
        writer.apply(bound)


def test_a_lost_race_for_the_quota_is_not_a_lost_race_for_the_object(
    writer: Writer, namespace: str, proxy: FaultProxy
) -> None:
    proxy.inject(QUOTA_RACE, method="POST")
    made = writer.create(config_map(namespace, a="1"))
    proxy.inject(QUOTA_RACE, method="PUT")
    assert writer.update(made | {"data": {"a": "2"}})["data"] == {"a": "2"}


def test_the_server_is_asked_again_no_sooner_than_it_wants(
    writer: Writer, namespace: str, proxy: FaultProxy, clock: Clock
) -> None:
    of_a_balancer = {"Date": "Sat, 01 Jan 2000 23:59:58 GMT", "Retry_After": "Sun, 02 Jan 2000 00:00:05 GMT"}
    proxy.inject(answer(429, Retry_After="7"), method="PATCH", times=2)
    proxy.inject(answer(503, **of_a_balancer), method="PATCH")
    writer.apply(config_map(namespace))
    assert [pause >= 7.0 for pause in clock.pauses] == [True, True, True]
    for nonsense in ("soon", "Sun, 99 Jan 2000", "-7", "Sun, 02 Jan 2000 00:00:05 -0000"):
        proxy.inject(answer(503, Date="Sat, 01 Jan 2000 23:59:58 GMT", Retry_After=nonsense), method="PATCH")
    writer.apply(config_map(namespace))
    assert [pause >= 7.0 for pause in clock.pauses[3:]] == [False] * 4


def test_a_fault_that_stays_is_told_after_a_bounded_number_of_tries(
    writer: Writer, namespace: str, proxy: FaultProxy, clock: Clock
) -> None:
    writer.get(object_id(config_map(namespace)))
    proxy.inject(answer(503, "no healthy upstream"), method="PATCH", times=100)
    with pytest.raises(Unavailable, match=r"ConfigMap/.*/a: HTTP 503: no healthy upstream\. The next pass"):
        writer.apply(config_map(namespace))
    assert proxy.count("PATCH", "configmaps") == 6
    assert len(clock.pauses) == 5


def test_no_more_time_is_spent_than_a_request_is_given(
    proxy: FaultProxy, namespace: str, tmp_path: Path, clock: Clock
) -> None:
    writer = Writer(through(proxy, tmp_path, clock))
    writer.get(object_id(config_map(namespace)))
    began = clock()
    proxy.inject(answer(429, Retry_After="14"), method="PATCH", times=100)
    with pytest.raises(Unavailable):
        writer.apply(config_map(namespace))
    assert clock() - began <= 60.5


def test_an_update_whose_answer_is_lost_is_not_sent_again(writer: Writer, namespace: str, proxy: FaultProxy) -> None:
    made = writer.create(config_map(namespace, a="1"))
    proxy.inject(lose(), method="PUT")
    with pytest.raises(Unavailable) as caught:
        writer.update(made | {"data": {"a": "2"}})
    assert caught.value.maybe_done
    assert proxy.count("PUT") == 1
    stored = writer.get(object_id(made))
    assert stored is not None
    assert stored["data"] == {"a": "2"}


def test_an_update_that_was_not_begun_is_sent_again(writer: Writer, namespace: str, proxy: FaultProxy) -> None:
    made = writer.create(config_map(namespace, a="1"))
    proxy.inject(TOO_MANY, method="PUT")
    assert writer.update(made | {"data": {"a": "2"}})["data"] == {"a": "2"}


def test_a_create_whose_answer_is_lost_finds_what_it_made(writer: Writer, namespace: str, proxy: FaultProxy) -> None:
    proxy.inject(lose(), method="POST")
    made = writer.create(config_map(namespace, a="1"))
    assert writer.get(object_id(made)) == made


def test_a_create_whose_answer_is_lost_does_not_take_the_object_of_another_for_its_own(
    writer: Writer, namespace: str, proxy: FaultProxy
) -> None:
    writer.create(config_map(namespace, holder="another"))
    proxy.inject(lose(), method="POST")
    with pytest.raises(AlreadyExists):
        writer.create(config_map(namespace, holder="me"))


def test_a_deletion_whose_answer_is_lost_is_done(writer: Writer, namespace: str, proxy: FaultProxy) -> None:
    made = writer.apply(config_map(namespace))
    proxy.inject(lose(), method="DELETE")
    assert writer.delete(object_id(made), uid=made["metadata"]["uid"], propagation="Background") is None


def test_credentials_do_not_follow_a_redirect(
    writer: Writer, namespace: str, proxy: FaultProxy, tmp_path: Path
) -> None:
    with FaultProxy() as elsewhere:
        proxy.inject(answer(307, Location=f"{elsewhere.url}/steal"), method="PATCH")
        with pytest.raises(ApiError):
            writer.apply(config_map(namespace))
        assert elsewhere.seen == []


def test_a_server_that_is_not_there_is_unavailable(tmp_path: Path, clock: Clock) -> None:
    with FaultProxy() as gone:
        connection = through(gone, tmp_path, clock)
    with pytest.raises(Unavailable, match=r"127.0.0.1:\d+: cannot connect \(Connection refused\)") as caught:
        Reader(connection).version()
    assert not caught.value.maybe_done
    assert len(clock.pauses) == 5


def test_a_server_with_a_certificate_of_somebody_else_is_not_trusted(
    kubeconfig: Path, tmp_path: Path, clock: Clock
) -> None:
    config = yaml.safe_load(kubeconfig.read_text())
    config["clusters"][0]["cluster"]["certificate-authority-data"] = base64.b64encode(_other_authority()).decode()
    (tmp_path / "mistrusting").write_text(json.dumps(config))
    connection = connect(str(tmp_path / "mistrusting"), retry=Retry(clock=clock, pause=clock.pause))
    with pytest.raises(KubeconfigError, match="certificate of the server is not trusted"):
        Reader(connection).version()
    assert clock.pauses == []


def test_an_authority_that_is_no_certificate_is_told(kubeconfig: Path, tmp_path: Path, clock: Clock) -> None:
    config = yaml.safe_load(kubeconfig.read_text())
    config["clusters"][0]["cluster"]["certificate-authority-data"] = base64.b64encode(b"nonsense").decode()
    (tmp_path / "nonsense").write_text(json.dumps(config))
    connection = connect(str(tmp_path / "nonsense"), retry=Retry(clock=clock, pause=clock.pause))
    with pytest.raises(ApiError, match=r"no secure connection \("):
        Reader(connection).version()


def _other_authority() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "other")])
    start = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=36500))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(
    kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    connection = connect(str(kubeconfig))
    assert Reader(connection).version()
    connection.close()


def test_threads_share_a_bounded_number_of_connections(
    proxy: FaultProxy, namespace: str, tmp_path: Path, clock: Clock
) -> None:
    connection = through(proxy, tmp_path, clock, connections=3)
    shared, before = Writer(connection), proxy.connections
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda n: shared.apply(config_map(namespace, f"c-{n}")), range(64)))
    assert proxy.connections - before == 3
    connection.close()


# --- credentials -------------------------------------------------------------------------------------------


def exec_plugin(tmp_path: Path) -> tuple[dict[str, Any], Path]:
    """A plugin that gives another token each time it runs (token-1, token-2 ...), and its log of runs."""
    log = tmp_path / "runs"
    script = tmp_path / "plugin"
    script.write_text(
        f"""#!/bin/sh
echo run >> {log}
printf '{{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", '
printf '"status": {{"token": "token-%s"}}}}' "$(grep -c run {log})"
"""
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(script)}}, log


def test_a_token_that_is_no_longer_accepted_is_renewed_once_by_the_exec_plugin(
    proxy: FaultProxy, tmp_path: Path, clock: Clock
) -> None:
    plugin, log = exec_plugin(tmp_path)
    reader = Reader(connect(str(proxy.kubeconfig(tmp_path / "k", **plugin)), trusted=True))
    reader.version()
    assert proxy.seen[-1].authorization == "Bearer token-1"
    proxy.accepts = lambda authorization: authorization == "Bearer token-2"
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: reader.version(), range(24)))
    assert log.read_text().count("run") == 2


def test_an_account_that_stays_refused_is_unauthorized_without_starting_the_plugin_each_time(
    proxy: FaultProxy, tmp_path: Path, clock: Clock
) -> None:
    plugin, log = exec_plugin(tmp_path)
    connection = connect(
        str(proxy.kubeconfig(tmp_path / "k", **plugin)), trusted=True, retry=Retry(clock=clock, pause=clock.pause)
    )
    proxy.accepts = lambda _: False
    for _ in range(5):
        with pytest.raises(Unauthorized, match="Log in to the cluster again"):
            Reader(connection).version()
    assert log.read_text().count("run") == 2
    clock.ahead += 11
    with pytest.raises(Unauthorized):
        Reader(connection).version()
    assert log.read_text().count("run") == 3


def test_the_token_of_a_service_account_is_read_again_when_it_was_rotated(
    kubeconfig: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = yaml.safe_load(kubeconfig.read_text())
    cluster = config["clusters"][0]["cluster"]
    url = urlsplit(cluster["server"])
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", str(url.hostname))
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(url.port))
    (tmp_path / "ca.crt").write_bytes(base64.b64decode(cluster["certificate-authority-data"]))
    (tmp_path / "token").write_text("an-old-token\n")
    reader = Reader(connect(service_account=tmp_path))
    with pytest.raises(Unauthorized):
        reader.resource("v1", "Secret")
    rotated = Reader(connect(service_account=tmp_path))
    (tmp_path / "token").write_text(config["users"][0]["user"]["token"] + "\n")
    assert rotated.resource("v1", "Secret") is not None


# --- watches -----------------------------------------------------------------------------------------------


def start_of(writer: Writer, namespace: str) -> str:
    return writer.list("v1", "ConfigMap", namespace=namespace).resource_version


def test_a_watch_shows_what_happens_after_the_list(writer: Writer, namespace: str) -> None:
    writer.apply(config_map(namespace, "before"))
    start = start_of(writer, namespace)
    made = writer.apply(config_map(namespace, a="1"))
    changed = writer.apply(config_map(namespace, a="2"))
    writer.delete(object_id(made), uid=made["metadata"]["uid"], propagation="Background")
    events = [
        event
        for event in writer.watch("v1", "ConfigMap", namespace=namespace, resource_version=start, timeout_s=1)
        if event.type != "BOOKMARK"
    ]
    assert [event.type for event in events] == ["ADDED", "MODIFIED", "DELETED"]
    assert [event.object for event in events[:2]] == [made, changed]


def test_a_watch_of_labels_shows_what_carries_them(writer: Writer, namespace: str) -> None:
    start = start_of(writer, namespace)
    writer.apply(config_map(namespace, "plain"))
    labelled = config_map(namespace, "labelled")
    labelled["metadata"]["labels"] = {"tier": "web"}
    writer.apply(labelled)
    events = writer.watch(
        "v1", "ConfigMap", namespace=namespace, labels="tier=web", resource_version=start, timeout_s=5
    )
    assert next(event for event in events if event.type == "ADDED").object["metadata"]["name"] == "labelled"


def test_a_watch_ends_in_time(writer: Writer, namespace: str) -> None:
    start, began = start_of(writer, namespace), time.monotonic()
    events = writer.watch("v1", "ConfigMap", namespace=namespace, resource_version=start, timeout_s=1)
    assert [event for event in events if event.type != "BOOKMARK"] == []
    assert 0.5 < time.monotonic() - began < 20


def test_a_watch_from_a_forgotten_version_is_expired(writer: Writer, namespace: str, proxy: FaultProxy) -> None:
    gone = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "too old resource version: 1 (500)",
        "reason": "Expired",
        "code": 410,
    }
    for fault in (stream({"type": "ERROR", "object": gone}), answer(410, gone)):
        proxy.inject(fault, path="watch=true")
        with pytest.raises(Expired):
            list(writer.watch("v1", "ConfigMap", namespace=namespace, resource_version="1", timeout_s=5))


def test_a_watch_that_breaks_goes_on_after_the_last_event(writer: Writer, namespace: str, proxy: FaultProxy) -> None:
    start = start_of(writer, namespace)
    first = writer.apply(config_map(namespace, "first"))
    half = b'{"type":"ADDED","object":{"kind":"ConfigMap","metad'
    proxy.inject(stream({"type": "ADDED", "object": first}, half, end=False), path="watch=true")
    writer.apply(config_map(namespace, "second"))
    events = writer.watch("v1", "ConfigMap", namespace=namespace, resource_version=start, timeout_s=5)
    names = [event.object["metadata"]["name"] for event in islice(events, 2)]
    assert names == ["first", "second"]
    assert proxy.count("GET", f"watch=true.*resourceVersion={first['metadata']['resourceVersion']}&") == 1


def test_a_bookmark_moves_the_place_to_go_on_from(writer: Writer, namespace: str, proxy: FaultProxy) -> None:
    start = start_of(writer, namespace)
    latest = writer.apply(config_map(namespace, "unseen"))["metadata"]["resourceVersion"]
    bookmark = {"type": "BOOKMARK", "object": {"kind": "ConfigMap", "metadata": {"resourceVersion": latest}}}
    proxy.inject(stream(bookmark), path="watch=true")
    writer.apply(config_map(namespace, "seen"))
    events = writer.watch("v1", "ConfigMap", namespace=namespace, resource_version=start, timeout_s=5)
    shown = (event for event in events if event.type != "BOOKMARK")
    assert next(shown).object["metadata"]["name"] == "seen"


@pytest.mark.parametrize(
    "line",
    [
        {},
        {"type": "ADDED"},
        {"object": {"metadata": {"resourceVersion": "1"}}},
        {"type": "RENAMED", "object": {"metadata": {"resourceVersion": "1"}}},
        {"type": "ERROR"},
        {"type": ["ERROR"], "object": {"code": 410}},
    ],
)
def test_a_line_that_is_no_event_ends_a_watch_like_one_that_broke(
    writer: Writer, namespace: str, proxy: FaultProxy, line: dict[str, Any]
) -> None:
    start = start_of(writer, namespace)
    writer.apply(config_map(namespace, "a"))
    proxy.inject(stream(line), path="watch=true")
    with pytest.raises(Unavailable, match="a line of the watch is not an event"):
        list(writer.watch_once("v1", "ConfigMap", namespace=namespace, resource_version=start, timeout_s=5))
    proxy.inject(stream(line), path="watch=true")
    events = writer.watch("v1", "ConfigMap", namespace=namespace, resource_version=start, timeout_s=5)
    assert next(events).object["metadata"]["name"] == "a"


def test_a_watch_whose_other_end_vanished_goes_on_after_a_silence(
    writer: Writer, namespace: str, proxy: FaultProxy
) -> None:
    start, over = start_of(writer, namespace), threading.Event()
    proxy.inject(stream(then=over.wait), path="watch=true")
    writer.apply(config_map(namespace, "a"))
    began = time.monotonic()
    events = writer.watch("v1", "ConfigMap", namespace=namespace, resource_version=start, timeout_s=60)
    assert next(events).object["metadata"]["name"] == "a"
    assert time.monotonic() - began < 30
    over.set()


def test_a_watch_that_is_refused_tries_again_and_then_says_so(
    writer: Writer, namespace: str, proxy: FaultProxy, clock: Clock
) -> None:
    start = start_of(writer, namespace)
    writer.apply(config_map(namespace, "a"))
    proxy.inject(TOO_MANY, path="watch=true", times=2)
    events = writer.watch("v1", "ConfigMap", namespace=namespace, resource_version=start, timeout_s=60)
    assert next(events).object["metadata"]["name"] == "a"
    events.close()
    proxy.inject(stream(), path="watch=true", times=100)
    with pytest.raises(Unavailable, match="watches end as soon as they begin"):
        list(writer.watch("v1", "ConfigMap", namespace=namespace, resource_version=start, timeout_s=600))
    assert len(clock.pauses) == 2 + 5


def test_closing_the_connection_ends_a_watch_at_once(writer: Writer, connection: Connection, namespace: str) -> None:
    start, began = start_of(writer, namespace), time.monotonic()
    threading.Timer(0.2, connection.close).start()
    events = writer.watch("v1", "ConfigMap", namespace=namespace, resource_version=start, timeout_s=60)
    assert [event for event in events if event.type != "BOOKMARK"] == []
    assert time.monotonic() - began < 30
    with pytest.raises(Unavailable, match="was closed"):
        writer.apply(config_map(namespace))


def test_watches_do_not_use_up_the_connections_for_requests(
    proxy: FaultProxy, namespace: str, tmp_path: Path, clock: Clock
) -> None:
    connection = through(proxy, tmp_path, clock, connections=1)
    writer = Writer(connection)
    start = start_of(writer, namespace)
    with ThreadPoolExecutor(4) as threads:
        for _ in range(4):
            threads.submit(
                list,
                writer.watch("v1", "ConfigMap", namespace=namespace, resource_version=start, timeout_s=60),
            )
        try:
            eventually(lambda: proxy.count("GET", "watch=true") == 4)
            assert writer.apply(config_map(namespace, a="1"))["data"] == {"a": "1"}
        finally:
            connection.close()


def test_a_long_event_in_many_pieces_is_one_event(writer: Writer, namespace: str) -> None:
    start = start_of(writer, namespace)
    writer.apply(config_map(namespace, a="x" * 500_000, b="y" * 400_000))
    events = writer.watch("v1", "ConfigMap", namespace=namespace, resource_version=start, timeout_s=5)
    assert len(next(events).object["data"]["a"]) == 500_000


# -- a proxy --------------------------------------------------------------------------------------------------------


class Tunnels(socketserver.ThreadingTCPServer):
    """A proxy that connects whoever asks to one API server, whatever name it asks for, and notes how it was asked."""

    allow_reuse_address, daemon_threads = True, True

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Tunnel)
        self.upstream = upstream
        self.asked: list[bytes] = []


class _Tunnel(socketserver.BaseRequestHandler):
    server: Tunnels

    def handle(self) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.request.recv(1)
        self.server.asked.append(head)
        host, _, port = self.server.upstream.rpartition(":")
        with socket.create_connection((host, int(port))) as upstream:
            self.request.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=self._pump, args=(upstream, self.request), daemon=True)
            back.start()
            self._pump(self.request, upstream)
            back.join()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while part := source.recv(65536):
                sink.sendall(part)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)


def test_through_a_proxy_requests_and_watches_go_in_tunnels_that_know_no_credentials(
    kubeconfig: Path, namespace: str, tmp_path: Path
) -> None:
    config = yaml.safe_load(kubeconfig.read_text())
    cluster = config["clusters"][0]["cluster"]
    with Tunnels(urlsplit(cluster["server"]).netloc) as tunnels:
        threading.Thread(target=tunnels.serve_forever, daemon=True).start()
        cluster |= {
            "server": "https://api.of-a-customer.example:6443",  # nobody but the proxy knows the way to it
            "tls-server-name": "localhost",
            "proxy-url": f"http://127.0.0.1:{tunnels.server_address[1]}",
        }
        path = tmp_path / "behind-a-proxy"
        path.write_text(yaml.safe_dump(config))
        connection = connect(str(path), trusted=True)
        writer = Writer(connection)
        begun = writer.apply(config_map(namespace, a="1"))["metadata"]["resourceVersion"]
        writer.apply(config_map(namespace, a="2"))
        seen = next(writer.watch("v1", "ConfigMap", namespace=namespace, resource_version=begun, timeout_s=30))
        connection.close()
        tunnels.shutdown()
    assert seen.object["data"] == {"a": "2"}
    assert len(tunnels.asked) == 2, "one for the requests, one for the watch"
    assert all(head.startswith(b"CONNECT api.of-a-customer.example:6443 ") for head in tunnels.asked)
    assert not any(b"authorization" in head.lower() for head in tunnels.asked)
