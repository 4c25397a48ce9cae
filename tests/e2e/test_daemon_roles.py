"""Every request that the reconciler makes is allowed by the chart's roles, and they allow nothing that it never makes.

One life of a daemon with two replicas and two clusters, in which everything happens once that needs a right: what a
proxy before each API server has seen is held against the roles of the chart, rendered for just this.
"""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from moto.server import ThreadedMotoServer

from reconciler import inventory
from reconciler.inventory import NAMESPACE, Approved
from reconciler.ledger import REVISION
from reconciler.records import (
    Build,
    BuildPhase,
    BuildRequest,
    BuildStatus,
    Cause,
    Identity,
    Phase,
    Promotion,
    PromotionRequest,
    PromotionStatus,
    build_name,
    promotion_name,
    to_body,
)
from reconciler.retention import BUILDS, PROMOTIONS
from reconciler.telling import standing
from tests.contract.client import MERGE, Api
from tests.contract.faults import FaultProxy, answer, lose
from tests.contract.helm import MINIMUM, rendered
from tests.contract.plant import played
from tests.contract.rbac import Request, Roles, requests_of
from tests.contract.test_chart_installed import path_of
from tests.e2e.daemon import Daemon, Specs, running, until
from tests.e2e.data_plane import REPOSITORY, Repository
from tests.e2e.harness import Plane, collection, document, members

#: Environments, and a namespace: of this run alone, as the cluster may be there after it.
_OWN = secrets.token_hex(3)
STAGING, PRODUCTION, MODELS = f"staging-{_OWN}", f"production-{_OWN}", f"models-{_OWN}"

HERE: dict[str, Any] = MINIMUM | {
    "git": {"url": "https://git.example.com/ml/specs.git", "secret": "specs-git", "signersSecret": "signers"},
    "webhook": {"secret": "push"},
    "environments": [{"name": STAGING, "secrets": ["git-token"]}, {"name": PRODUCTION, "namespace": MODELS}],
    "kubeconfigSecrets": ["cluster-far"],
}
#: The other cluster, where no reconciler runs.
FAR: dict[str, Any] = {"reconciler": {"enabled": False}, "environments": [{"name": "far"}]}

BUCKET = "models"
#: What says who the reconciler is and what it may do.
ACCOUNT = ("ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
SYSTEM = f"/api/v1/namespaces/{NAMESPACE}"
RECORDS = f"/apis/trueup.dev/v1/namespaces/{NAMESPACE}"
PUSH = b"what pushes are signed with"
REFUSED = {"kind": "Status", "status": "Failure", "message": "it is not liked", "reason": "Invalid", "code": 422}
OLD = datetime(2020, 1, 1, tzinfo=UTC)


# -- the specs ------------------------------------------------------------------------------------------------------


def place(name: str, data_plane: Any = "kubernetes", **more: Any) -> dict[str, Any]:
    """An environment for which every kind is rendered that there is."""
    gateway = {"name": "public", "namespace": "gateways", "controller": "envoy-gateway", "sticky_header": "user"}
    return {
        "name": name,
        "data_plane": data_plane,
        "object_storage": f"s3://{BUCKET}/{name}",
        "prometheus_url": "http://prometheus.monitoring:9090",
        "gateway": gateway,
        **more,
    }


PLACES = [
    place(STAGING),
    place(PRODUCTION, namespace=MODELS),
    place("far", {"type": "kubernetes", "kubeconfig_secret": "cluster-far"}),
]

GIT = {"git_branch": "main", "git_access_token_secret": "git-token"}
#: Nobody can match a header that is not there, so the resolver is asked.
NEWCOMERS = {"name": "newcomers", "priority": 1, "conditions": {"unary": [{"key": "plan", "operator": "ABSENT"}]}}
SCALED = {
    "memory": "1Gi",
    "auto_scale_config": {
        "min_replica_count": 1,
        "max_replica_count": 3,
        "prometheus_trigger": [
            {"metric_type": "throughput", "aggregation_type": "sum", "time_period": 2, "threshold": 120}
        ],
    },
}


def served(model: str, name: str, where: list[str], traffic: list[dict[str, Any]], **deployment: Any) -> dict[str, Any]:
    known = {"model": model, "name": name, "environments": where, "build": f"{model}-1", "traffic": traffic}
    return known | {"deployment": deployment}


def promoted(*where: str) -> dict[str, Any]:
    """What is built from a branch, and promoted by itself."""
    return {
        "name": "credit-git",
        "model": "credit",
        "environment": STAGING,
        "trigger": "git",
        "build_spec": {"git_uri": f"{REPOSITORY}#credit", **GIT},
        "deployment_condition": {"metric_name": "auc", "threshold": "0.65"},
        "deployment_spec": {"environments": list(where), "number_of_pods": 1, "memory": "1Gi"},
    }


def build(model: str) -> dict[str, Any]:
    return {
        "name": f"{model}-1",
        "model": model,
        "environment": STAGING,
        "git_uri": f"{REPOSITORY}#{model}",
        **GIT,
    }


EVERYTHING = document(
    {"environments": PLACES, "audiences": [NEWCOMERS]},
    {"builds": [build("churn"), build("fraud")], "automations": [promoted(STAGING, PRODUCTION)]},
    {
        "variations": [
            served("churn", "default", [STAGING], [{"weight": 100}, {"audience": "newcomers", "weight": 40}], **SCALED),
            served(
                "churn", "extra", [STAGING], [{"audience": "newcomers", "weight": 60}], number_of_pods=2, memory="1Gi"
            ),
            served("fraud", "default", [PRODUCTION, "far"], [{"weight": 100}], number_of_pods=2, memory="1Gi"),
        ]
    },
)
#: Two environments and two models are gone.
LITTLE = document({"environments": PLACES[:1], "automations": [promoted(STAGING)]})


# -- two clusters, a repository that is signed, an object storage ---------------------------------------------------


@pytest.fixture
def storage() -> Iterator[dict[str, str]]:
    """What the daemon has to know to reach it."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    known = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "a-secret", "AWS_DEFAULT_REGION": "us-east-1"}
    with closing(
        boto3.client(
            "s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1",
            aws_access_key_id="AKIAEXAMPLE", aws_secret_access_key="a-secret",
        )
    ) as client:  # fmt: skip
        client.create_bucket(Bucket=BUCKET)
    yield known | {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_EC2_METADATA_DISABLED": "true"}
    server.stop()


def signed(folder: Path) -> tuple[Specs, str]:
    """A repository whose commits are signed, and by whom they may be."""
    specs, key = Specs(folder / "specs"), folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    settings = {"gpg.format": "ssh", "user.signingkey": str(key), "commit.gpgsign": "true"}
    for name, value in settings.items():
        subprocess.run(["git", "-C", specs.folder, "config", name, value], check=True)
    return specs, f"models@acme.example {key.with_suffix('.pub').read_text()}"


def create(api: Api, path: str, body: dict[str, Any]) -> Any:
    answer = api("POST", path, body)
    assert answer.status == 201, answer.body
    return answer.body


def secret(api: Api, namespace: str, name: str, **content: str) -> None:
    create(api, f"/api/v1/namespaces/{namespace}/secrets", {"metadata": {"name": name}, "stringData": content})


@contextmanager
def installed(api: Api, values: dict[str, Any]) -> Iterator[Roles]:
    """As Helm does it, as far as a reconciler notices. Only a real API server enforces the roles."""
    bodies = rendered(values)
    assert api("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}}).status in (201, 409)
    for body in bodies:
        if body["kind"] == "Namespace":
            create(api, "/api/v1/namespaces", {"metadata": {"name": body["metadata"]["name"]}})
    given = [body for body in bodies if body["kind"] in ACCOUNT] if api.plane == "real" else []
    paths = [path_of(api, body) for body in given]
    for path, body in zip(paths, given, strict=True):
        assert api.apply(str(path), body).status in (200, 201)
    try:
        yield Roles.of(bodies, "trueup", NAMESPACE)
    finally:
        for path in paths:
            api("DELETE", str(path))
        for body in bodies:
            if body["kind"] == "Namespace":
                api("DELETE", f"/api/v1/namespaces/{body['metadata']['name']}")


def kubeconfig_of_account(api: Api, folder: Path) -> Path:
    """What the reconciler comes with; on the embedded server, as its one user."""
    if api.plane == "embedded":
        return api.kubeconfig
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3_600}}
    token = create(api, f"{SYSTEM}/serviceaccounts/trueup/token", asked)["status"]["token"]
    config = yaml.safe_load(api.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    path = folder / "account"
    path.write_text(yaml.safe_dump(config))
    with closing(Api(path, api.plane)) as account:  # roles have effect some time after they were stored
        until(lambda: account("GET", collection("Service", MODELS)).status == 200)
    return path


def install_records(api: Api, plane: Plane) -> None:
    """Of an older version: Helm installs definitions, and upgrades none."""
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    for body in yaml.safe_load_all(plane.reconcile("schema", "--crds").out):
        name, older = body["metadata"]["name"], {"metadata": {"annotations": {REVISION: None}}}
        assert api("POST", definitions, body).status in (201, 409)
        assert api("PATCH", f"{definitions}/{name}", older, content_type=MERGE).status == 200
        until(lambda name=name: api("GET", f"/apis/trueup.dev/v1/{name.partition('.')[0]}").status == 200)


# -- what happens ---------------------------------------------------------------------------------------------------


def old_records(api: Api) -> None:
    """More than are kept."""
    cause = Cause(kind="Manual", at=OLD)
    ids = [sha256(str(number).encode()).hexdigest() for number in range(BUILDS + 1)]
    records: list[tuple[str, Build | Promotion]] = []
    for one in ids:
        request = BuildRequest(id=one, model="retired", environment=STAGING, cause=cause)
        ended = BuildStatus(phase=BuildPhase.CANCELLED, finished_at=OLD)
        records.append(
            ("builds", Build(identity=Identity(name=build_name("retired", one)), spec=request, status=ended))
        )
    for one in ids[: PROMOTIONS + 4]:  # beside the newest, up to three stay for a reason of their own
        asked = PromotionRequest(model="retired", variation="default", environment=STAGING, build=one, cause=cause)
        over = PromotionStatus(phase=Phase.REJECTED, finished_at=OLD)
        records.append(
            ("promotions", Promotion(identity=Identity(name=promotion_name(asked)), spec=asked, status=over))
        )

    def record(plural: str, one: Build | Promotion) -> None:
        body = to_body(one)
        stored = create(api, f"{RECORDS}/{plural}", {key: part for key, part in body.items() if key != "status"})
        path = f"{RECORDS}/{plural}/{one.identity.name}/status"
        assert api("PUT", path, stored | {"status": body["status"]}).status == 200

    for plural, one in records:
        record(plural, one)


def inventory_of(name: str) -> str:
    return f"{SYSTEM}/configmaps/{inventory.name_of(name)}"


def approve(api: Api, name: str, word: str) -> None:
    """A person lets a plan pass that ran into a limit."""
    path = inventory_of(name)
    live = api("GET", path).body
    assert api("PUT", path, inventory.with_approval(live, Approved(word, "kim"), "it is retired")).status == 200


def limit(here: Api, name: str) -> str:
    """What the plan of an environment asks people to approve."""

    def asked() -> str:
        told = standing.from_config_map(here("GET", f"{SYSTEM}/configmaps/{standing.NAME}").body)
        found = told.environments.get(name)
        return next((one.approval for one in found.limits.shown if one.approval), "") if found else ""

    word: str = until(asked)
    return word


def phases(api: Api) -> dict[str, str]:
    """Of the promotions of the model that is promoted, by environment."""
    found = api("GET", f"{RECORDS}/promotions")
    items = found.body["items"] if found.status == 200 else []
    credit = [one for one in items if one["spec"]["model"] == "credit"]
    return {one["spec"]["environment"]: one.get("status", {}).get("phase", "") for one in credit}


def retired(api: Api) -> tuple[int, ...]:
    """How many builds and promotions are left of the model that nobody wants."""
    found = (api("GET", f"{RECORDS}/{plural}").body["items"] for plural in ("builds", "promotions"))
    return tuple(sum(one["spec"]["model"] == "retired" for one in items) for items in found)


def drift(api: Api, daemon: Daemon, namespace: str) -> None:
    """Somebody changes an object of an environment, and deletes another."""
    path = collection("Deployment", namespace)
    deployment = next(one["metadata"]["name"] for one in api("GET", path).body["items"])
    changed = api("PATCH", f"{path}/{deployment}", {"spec": {"replicas": 5}}, content_type=MERGE)
    assert changed.status == 200, changed.body
    until(lambda: daemon.said("drift", outcome="mended", object=f"Deployment/{namespace}/{deployment}"))
    api("DELETE", f"{collection('Service', namespace)}/{deployment}")
    until(lambda: daemon.said("drift", outcome="mended", object=f"Service/{namespace}/{deployment}"))


def lose_inventory(api: Api, daemon: Daemon, name: str) -> None:
    api("DELETE", inventory_of(name))
    until(lambda: api("GET", inventory_of(name)).status == 200)


def requests(proxy: FaultProxy) -> list[Request]:
    return [one for seen, status in list(proxy.answered) for one in requests_of(seen.method, seen.path, status)]


def forbidden(proxy: FaultProxy, roles: Roles) -> list[str]:
    return sorted({str(one) for one in requests(proxy) if not roles.allows(one)})


def test_all_that_it_asks_for_is_allowed_and_nothing_else_is(
    any_plane: Plane, new_plane: Callable[[], Plane], tmp_path: Path, storage: dict[str, str], certificate: Path
) -> None:
    plane, far_plane = any_plane, new_plane().up()
    models = Repository(tmp_path / "models")
    models.model("credit", "one")
    specs, signers = signed(tmp_path)
    specs.write(all=EVERYTHING)
    with (
        closing(plane.api()) as here,
        closing(far_plane.api()) as there,
        installed(here, HERE) as roles,
        installed(there, FAR) as far_roles,
        FaultProxy(kubeconfig_of_account(here, tmp_path)) as proxy,
        FaultProxy(far_plane.kubeconfig, certificate=certificate) as far_proxy,
        played(here) as plant,
        played(there),
    ):
        install_records(here, plane)
        old_records(here)
        for name, content in {"specs-git": {"token": "t"}, "signers": {"allowed_signers": signers}}.items():
            secret(here, NAMESPACE, name, **content)
        secret(here, NAMESPACE, "push", any=PUSH.decode())
        secret(here, NAMESPACE, "cluster-far", kubeconfig=far_proxy.kubeconfig(tmp_path / "far").read_text())
        secret(here, STAGING, "git-token", token="t")
        plant.metrics["credit"] = {"auc": "0.9"}
        # An inventory that cannot be written is told where it is.
        far_proxy.inject(answer(422, REFUSED), method="PATCH", path=f"/{inventory.name_of('far')}")
        # Of a record whose answer was lost, it looks whether it is there.
        proxy.inject(lose(), method="POST", path=r"/builds\?")
        proxy.inject(lose(), method="POST", path=r"/promotions\?")
        given = [
            *("--mirror", models.mirror, "--leader-elect"),
            *("--git-secret", "specs-git", "--signers-secret", "signers"),
            *("--webhook-secret", "push", "--webhook-address", "127.0.0.1:0"),
        ]
        # As in a pod, whose cluster is the one of its account.
        known = {
            "KUBECONFIG": str(proxy.kubeconfig(tmp_path / "here")),
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            **storage,
        }
        with (
            running(plane, specs, *given, "--home", str(tmp_path / "first"), **known) as first,
            running(plane, specs, *given, "--home", str(tmp_path / "second"), name="second", **known) as second,
        ):
            until(lambda: phases(here) == {STAGING: "Succeeded", PRODUCTION: "Succeeded"}, 40)
            leader, other = (first, second) if first.said("this replica leads") else (second, first)
            until(lambda: any(key.startswith("HTTPRoute/") for key in members(there, "far")))
            drift(here, leader, MODELS)
            approve(there, "far", "0" * 12)  # of no plan: it is taken back with the next one
            drift(there, leader, "far")
            lose_inventory(here, leader, STAGING)

            specs.write(all=LITTLE)
            assert other.push(PUSH) == 202
            for api, name in ((here, STAGING), (here, PRODUCTION), (there, "far")):
                approve(api, name, limit(here, name))
            until(lambda: "Deployment/churn" not in " ".join(members(here, STAGING)))
            for api, name in ((here, PRODUCTION), (there, "far")):
                until(lambda api=api, name=name: api("GET", inventory_of(name)).status == 404)

            until(lambda: inventory.approved_in(here("GET", inventory_of(STAGING)).body) is None)

            assert leader.stop() == 0
            until(lambda: other.said("this replica leads"))
            assert retired(here) == (BUILDS, PROMOTIONS)
            assert other.stop() == 0

        assert forbidden(proxy, roles) == []
        assert forbidden(far_proxy, far_roles) == []
        made, far_made = requests(proxy), requests(far_proxy)
        print(f"{len(made)} and {len(far_made)} requests, {len({*made, *far_made})} different ones")
        assert [str(one) for one in roles.unused(made)] == []
        # What an environment needs is the same in every cluster.
        spare = [one for one in far_roles.unused(far_made) if not one.role.endswith("-environment")]
        assert [str(one) for one in spare] == []
        read = {one.name for one in made if one.resource == "secrets" and one.namespace == NAMESPACE}
        assert read == {"specs-git", "signers", "push", "cluster-far"}
