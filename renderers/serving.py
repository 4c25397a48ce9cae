"""Serving: for each variation the pods that answer predictions, and the Service in front of them."""

from __future__ import annotations

from hashlib import sha256
from math import ceil
from typing import Any, NamedTuple

import orjson

from renderers import names, pods
from renderers.build import RUNTIME_COPY, WORKSPACE
from renderers.catalog import Facts, Unit
from renderers.environment import HTTP_PORT, METRICS_PORT, namespace_id
from renderers.manifest import Body, Manifest, ObjectId, object_id
from renderers.metrics import SCRAPE_SECONDS
from renderers.notes import Note, Refused
from renderers.resources import serving_placement
from renderers.served import Served, is_autoscaled, served
from renderers.template import Template
from schemas.build import Build
from schemas.environment import Environment

_SERVICE_ACCOUNT = Template("service-account")
_DEPLOYMENT = Template("deployment")
_SERVICE = Template("service")
_BUDGET = Template("pod-disruption-budget")

#: The container that everything looks at: probes, metrics, PromQL.
CONTAINER = "model"
#: The Service's port.
SERVICE_PORT = 80
#: Annotation of a pod: what it was told, as a hash. Pods of one build with one hash answer alike.

#: Seconds for what is not a request: closing connections, writing the rest of the inference log.
CLOSING_SECONDS = 15
#: Seconds that a deployment may take where the spec says 0: the platform's own default.
DEPLOYMENT_TIMEOUT = 1800


class Pace(NamedTuple):
    """Seconds that depend on how fast news travels in a data plane."""

    drain: int  #: between a pod's leaving the Service and its first sign of the end: gateways need them to hear of it
    min_ready: int  #: that a pod must stay ready before it counts; a deadline must be longer
    probe: int  #: between two looks at a pod
    scrape: int  #: between two scrapes of a pod's metrics


CLUSTER = Pace(drain=15, min_ready=10, probe=5, scrape=SCRAPE_SECONDS)
#: One machine, whose gateway hears of a change within milliseconds, and whose user waits.
EMBEDDED = Pace(drain=1, min_ready=0, probe=1, scrape=1)


def pace(environment: Environment) -> Pace:
    """Of the environment's data plane."""
    return EMBEDDED if environment.data_plane.type == "embedded" else CLUSTER


#: Which pod it is, for traces and for the address to listen at; a spec cannot set these.
_POD_FIELDS = [
    {"name": "POD_IP", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}}},
    {"name": "POD_NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}},
]
_POD_FIELD_NAMES = frozenset(field["name"] for field in _POD_FIELDS)


def render(unit: Unit, facts: Facts) -> list[Manifest]:
    """For each build that is served: the account of its role, Deployment, Service, PodDisruptionBudget.

    One that gets no traffic yet has them all: it is ready before it gets any.

    Errors: `Refused`.
    """
    environment = unit.environment.spec
    namespace = namespace_id(environment)
    manifests: dict[ObjectId, Manifest] = {}

    def add(one: Served, body: Body, *needs: ObjectId) -> ObjectId:
        made = Manifest(object_id(body), body, one.variation.origin, environment.name, (namespace, *needs))
        return manifests.setdefault(made.id, made).id

    for one in served(unit, facts):
        account = add(one, _account(one, environment))
        deployment = add(one, _deployment(one, unit, account.name), account)
        add(one, _service(one, environment))
        if not one.is_shadow:  # a shadow answers nobody, so it may be drained as anybody likes
            add(one, _budget(one, environment), deployment)
    return list(manifests.values())


def notes(unit: Unit, facts: Facts) -> list[Note]:
    """Variations that have nothing to serve yet, and builds whose id is not final."""
    environment, here = unit.environment.spec, served(unit, facts)
    at_work = {one.variation.spec.name for one in here}
    told: list[Note] = []
    for variation in unit.variations:
        spec = variation.spec
        if spec.name not in at_work:
            why = (
                f"build {spec.build} was not promoted there yet"
                if spec.automation is None
                else f"automation {spec.automation} has promoted no build there yet"
            )
            what = f"variation {spec.name} of {spec.model} is not served in {environment.name}"
            told.append(Note(variation.origin, f"{what}: {why}"))
    for one in here:
        spec = one.variation.spec
        if one.identity.provisional and one.build.spec.name not in unit.runs_here:
            told.append(
                Note(
                    one.variation.origin,
                    f"variation {spec.name} of {spec.model} serves build {one.build.spec.name}, whose commit is not "
                    f"known here, so the id {one.identity.short} in its names is provisional",
                )
            )
    return told


def _account(one: Served, environment: Environment) -> Body:
    """One for a model, and one more for each role that a deployment asks for itself."""
    model, own_role = one.variation.spec.model, one.variation.spec.deployment.custom_iam_role_arn
    name = names.object_name(model, "serving", limit=names.LABEL_LIMIT - names.SUFFIX)
    if own_role is not None:
        name += f"-{sha256(own_role.encode()).hexdigest()[:8]}"
    role = pods.role_annotations(own_role or environment.defaults.iam_role_arn)
    return _SERVICE_ACCOUNT(
        name=name,
        namespace=environment.namespace_name,
        labels=names.labels(model, "serving", environment.name),
        annotations=names.provenance(one.variation.origin) | role,
    )


def _deployment(one: Served, unit: Unit, account: str) -> Body:
    environment = unit.environment.spec
    spec, build, defaults = one.variation.spec, one.build.spec, environment.defaults
    deployment = spec.deployment
    placement = serving_placement(deployment, defaults, one.variation.origin)
    seconds = pace(environment)
    timeout = max(deployment.deployment_timeout or DEPLOYMENT_TIMEOUT, 2 * CLUSTER.min_ready)
    google = pods.google_key(_google_secret(one))
    scratch = [{"name": "work", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]
    mounts = [{"name": "work", "mountPath": WORKSPACE}, {"name": "tmp", "mountPath": pods.TMP}]
    env, arguments = _environment_variables(one, environment, _artifact_storage(one, environment)), _arguments(one)
    return _DEPLOYMENT(
        name=one.name,
        namespace=environment.namespace_name,
        labels=one.labels("serving", environment),
        annotations=one.annotations(),
        replicas=_replicas(one),
        progress_deadline=timeout,
        min_ready=seconds.min_ready or None,  # the server leaves out a zero
        selector=names.selector(spec.model, one.name),
        pod_labels=one.labels("serving", environment),
        pod_annotations={names.CONFIG_HASH: sha256(orjson.dumps([arguments, env])).hexdigest()[:16]},
        service_account=account,
        image_pull_secrets=pods.image_pull_secrets(defaults),
        node_selector=placement.node_selector,
        tolerations=placement.tolerations,
        affinity=placement.affinity,
        grace=seconds.drain + ceil(deployment.http_request_timeout_ms / 1000) + CLOSING_SECONDS,
        runtime_copy=_runtime_copy(build),
        container=CONTAINER,
        image=build.base_image or (pods.SERVER_GPU_IMAGE if placement.gpus else pods.SERVER_IMAGE),
        command=pods.RUNTIME,
        args=arguments,
        env=env,
        http_port=HTTP_PORT,
        metrics_port=METRICS_PORT,
        probe_period=seconds.probe,
        startup_failures=ceil(timeout / seconds.probe),
        drain=seconds.drain,
        resources=placement.resources,
        mounts=[*mounts, google.mount] if google else mounts,
        volumes=[*scratch, google.volume] if google else scratch,
    )


def _replicas(one: Served) -> int | None:
    """None where KEDA says how many: server-side apply would take the field from it without a conflict."""
    deployment = one.variation.spec.deployment
    return None if is_autoscaled(one.variation.spec) else deployment.number_of_pods


def _arguments(one: Served) -> list[str]:
    """Of `runtime serve`."""
    deployment = one.variation.spec.deployment
    arguments = [
        "serve",
        f"--port={HTTP_PORT}",
        f"--metrics-port={METRICS_PORT}",
        f"--workers={deployment.number_of_http_server_workers}",
        f"--timeout-ms={deployment.http_request_timeout_ms}",
        f"--max-batch-size={deployment.max_batch_size}",
    ]
    if deployment.daemon_mode:
        arguments.append("--preload")
    if one.is_shadow:
        # A copy looks like any other request: only so can the inference log tell whose answers reached nobody.
        arguments.append("--shadow")
    return arguments


def _artifact_storage(one: Served, here: Environment) -> str | None:
    """The object storage of the environment that the build is built in; None: the folder of this machine's data plane.

    Errors: `Refused`.
    """
    home = one.home
    if home.object_storage is None and here.data_plane.type != "embedded":
        made_by = "automation" if one.build.origin.kind == "automation" else "build"
        raise Refused(
            one.variation.origin,
            "variation/artifact-out-of-reach",
            f"build {one.build.spec.name} is built in {home.name}, which keeps its artifacts on one machine, and "
            f"{here.name} cannot read them there",
            f"give {home.name} an object_storage that both reach, or write `environment: {here.name}` in the {made_by}",
        )
    return home.object_storage


def _environment_variables(one: Served, environment: Environment, artifacts: str | None) -> list[dict[str, Any]]:
    """The environment's defaults, over them the build's, over them the deployment's own."""
    spec, build = one.variation.spec, one.build.spec
    made = pods.variables(
        environment.defaults.env_vars,
        build.env_vars,
        spec.deployment.env_vars,
        HOME=pods.TMP,
        PYTHONPATH=RUNTIME_COPY if build.base_image is not None else None,
        PYTHONUNBUFFERED="1",
        GOOGLE_APPLICATION_CREDENTIALS=pods.GOOGLE_KEY if _google_secret(one) else None,
        TRUEUP_ARTIFACT_STORAGE=artifacts,
        TRUEUP_BUILD_ID=one.identity.id,
        TRUEUP_ENVIRONMENT=environment.name,
        TRUEUP_MODEL=spec.model,
        TRUEUP_OBJECT_STORAGE=environment.object_storage,
        TRUEUP_PARAMETERS=orjson.dumps(dict(build.parameters)).decode() if build.parameters else None,
        TRUEUP_VARIATION=spec.name,
    )
    return [*_POD_FIELDS, *(variable for variable in made if variable["name"] not in _POD_FIELD_NAMES)]


def _google_secret(one: Served) -> str | None:
    own = one.variation.spec.deployment.service_account_key_secret_name
    return own or one.build.spec.service_account_key_secret_name


def _runtime_copy(build: Build) -> list[dict[str, Any]] | None:
    """An image of the user's own does not have the runtime: an init container leaves it where the server looks."""
    if build.base_image is None:
        return None
    return [
        {
            "name": "runtime",
            "image": pods.SERVER_IMAGE,
            "command": pods.RUNTIME,
            "args": ["copy", f"--into={RUNTIME_COPY}"],
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "128Mi"}},
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            },
            "volumeMounts": [{"name": "work", "mountPath": WORKSPACE}, {"name": "tmp", "mountPath": pods.TMP}],
        }
    ]


def _service(one: Served, environment: Environment) -> Body:
    return _SERVICE(
        name=one.name,
        namespace=environment.namespace_name,
        labels=one.labels("serving", environment),
        annotations=one.annotations(),
        selector=names.selector(one.variation.spec.model, one.name),
        port=SERVICE_PORT,
        metrics_port=METRICS_PORT,
    )


def _budget(one: Served, environment: Environment) -> Body:
    return _BUDGET(
        name=one.name,
        namespace=environment.namespace_name,
        labels=one.labels("serving", environment),
        annotations=one.annotations(),
        selector=names.selector(one.variation.spec.model, one.name),
    )
