"""Batch executions: for each run a Job that predicts on the files of a folder."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC
from hashlib import sha256
from typing import Any
from urllib.parse import quote

import orjson

from renderers import names, pods
from renderers.build import QUEUE, RESULT, RUNTIME_COPY, WORKSPACE
from renderers.catalog import BatchRun, Unit
from renderers.environment import build_account_id, namespace_id
from renderers.manifest import Body, Manifest, ObjectId, object_id
from renderers.notes import Note, Refused
from renderers.resources import serving_placement
from renderers.template import Template
from schemas.automation import BatchExecution, BatchExecutionSpecification
from schemas.environment import Environment
from schemas.resources import GpuResources
from schemas.variation import DeploymentSpecification

_JOB = Template("batch-job")
_SERVICE_ACCOUNT = Template("service-account")

#: Annotations of a Job: the run that it is, and the automation whose run that is. The build's id is a label; as an
#: annotation it would say that the build is made here.
RUN = names.PREFIX + "run"
AUTOMATION = names.PREFIX + "automation"

#: "-" and the index of an executor, below 1000: the name of its pod's host.
_INDEX = 4

#: Attempts after the first, of each executor.
_RETRIES = 2


def job_name(model: str, run: str) -> str:
    """The name of a run's Job; `run` is the run id's 8 hex digits. The API server admits a name once."""
    return f"{names.object_name(model, 'batch', limit=names.LABEL_LIMIT - names.SUFFIX - _INDEX)}-{run}"


def render(unit: Unit, runs: Iterable[BatchRun]) -> list[Manifest]:
    """For each run: the account of its own role, if it has one, and its Job. Errors: `Refused`."""
    environment = unit.environment.spec
    namespace = namespace_id(environment)
    manifests: dict[ObjectId, Manifest] = {}
    for run in runs:
        deployment = _deployment(run.batch, unit)
        account = build_account_id(environment)
        role = run.batch.execution_specifications.custom_iam_role_arn or deployment.custom_iam_role_arn
        if role is not None:
            body = _account(run, unit.model, role, environment)
            account = object_id(body)
            made = Manifest(account, body, run.origin, environment.name, (namespace,))
            manifests.setdefault(account, made)
        job = _job(run, unit.model, deployment, environment, account.name)
        made = Manifest(object_id(job), job, run.origin, environment.name, (namespace, account))
        manifests[made.id] = made
    return list(manifests.values())


def notes(unit: Unit, runs: Iterable[BatchRun]) -> list[Note]:
    """Runs that have fewer executors than they ask for."""
    environment = unit.environment.spec
    return [
        Note(
            run.origin,
            f"automation {run.automation} asks for {run.batch.execution_specifications.executors} executors; on the "
            f"embedded data plane of {environment.name} one does it all",
        )
        for run in runs
        if run.batch.execution_specifications.executors > _executors(run, environment)
    ]


def _executors(run: BatchRun, environment: Environment) -> int:
    """Side by side on one machine they would only wait for each other."""
    asked = run.batch.execution_specifications.executors or 1
    return 1 if environment.data_plane.type == "embedded" else asked


def _deployment(batch: BatchExecution, unit: Unit) -> DeploymentSpecification:
    """The variation's own, and over it what the run asks for: `instance` before a GPU before cores and memory."""
    served = (v.spec.deployment for v in unit.variations if v.spec.name == batch.variation)
    deployment = next(served, None) or DeploymentSpecification()
    return deployment.model_copy(update=_changes(batch.execution_specifications, deployment))


def _changes(asked: BatchExecutionSpecification, deployment: DeploymentSpecification) -> dict[str, Any]:
    if asked.instance is not None:
        return {"instance": asked.instance}
    if asked.gpu_type is not None:
        gpu = GpuResources(gpu_type=asked.gpu_type, gpu_amount=asked.gpu_amount or 1)
        return {"instance": None, "gpu_resources": gpu}
    if asked.gpu_amount is not None and deployment.gpu_resources is not None:
        return {"gpu_resources": deployment.gpu_resources.model_copy(update={"gpu_amount": asked.gpu_amount})}
    if asked.cpu is None and asked.memory is None:
        return {}
    return {
        "instance": None,
        "gpu_resources": None,
        "cpu_fraction": asked.cpu or deployment.cpu_fraction,
        "memory": asked.memory or deployment.memory,
    }


def _account(run: BatchRun, model: str, role: str, environment: Environment) -> Body:
    """Runs of a model that assume the same role share an account; its name carries the role."""
    stem = names.object_name(model, "batch", limit=names.LABEL_LIMIT - names.SUFFIX)
    return _SERVICE_ACCOUNT(
        name=f"{stem}-{sha256(role.encode()).hexdigest()[:8]}",
        namespace=environment.namespace_name,
        labels=names.labels(model, "batch", environment.name),
        annotations=names.provenance(run.origin) | pods.role_annotations(role),
    )


def _job(
    run: BatchRun, model: str, deployment: DeploymentSpecification, environment: Environment, account: str
) -> Body:
    build, identity, _ = run.build
    defaults, executors = environment.defaults, _executors(run, environment)
    placement = serving_placement(deployment, defaults, run.origin)
    name = job_name(model, run.id[:8])
    labels = names.labels(
        model, "batch", environment.name, instance=name, variation=run.batch.variation, build=identity.short
    )
    google_secret = deployment.service_account_key_secret_name or build.spec.service_account_key_secret_name
    google = pods.google_key(google_secret)
    return _JOB(
        name=name,
        namespace=environment.namespace_name,
        labels=labels if defaults.queue_name is None else labels | {QUEUE: defaults.queue_name},
        annotations=names.provenance(run.origin) | {RUN: run.id, AUTOMATION: run.automation},
        completion_mode="Indexed" if executors > 1 else None,
        executors=executors,
        attempts=None if executors > 1 else _RETRIES,
        attempts_each=_RETRIES if executors > 1 else None,
        give_up="FailIndex" if executors > 1 else "FailJob",
        deadline_seconds=run.batch.execution_specifications.job_timeout or None,
        pod_labels=labels,
        service_account=account,
        image_pull_secrets=pods.image_pull_secrets(defaults),
        node_selector=placement.node_selector,
        tolerations=placement.tolerations,
        affinity=placement.affinity,
        runtime_copy=_runtime_copy(build.spec.base_image),
        image=build.spec.base_image or (pods.SERVER_GPU_IMAGE if placement.gpus else pods.SERVER_IMAGE),
        command=pods.RUNTIME,
        args=_arguments(run, executors),
        env=_environment_variables(run, model, deployment, environment, has_google=google is not None),
        resources=placement.resources,
        google_mount=google.mount if google else None,
        google_volume=google.volume if google else None,
    )


def _runtime_copy(base_image: str | None) -> list[dict[str, Any]] | None:
    """An image of the user's own does not have the runtime: an init container leaves it where the other one looks."""
    if base_image is None:
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


def _arguments(run: BatchRun, executors: int) -> list[str]:
    """Of `runtime batch`."""
    data, execution = run.batch.data_specifications, run.batch.execution_specifications
    arguments = [
        "batch",
        f"--source={_url(data.source_bucket, data.source_folder, run)}",
        f"--destination={_url(data.destination_bucket, data.destination_folder, run)}",
        f"--input-type={data.input_file_type}",
        f"--output-type={data.output_file_type}",
        f"--run={run.id}",
        f"--workspace={WORKSPACE}",
        f"--result={RESULT}",
    ]
    if execution.task_timeout:
        arguments.append(f"--task-timeout={execution.task_timeout}")
    if executors > 1:
        arguments.append(f"--executors={executors}")
    return arguments


_BRACES = re.compile(r"\{([^{}]*)\}")
#: Without widths: `%999999999d` would fill the memory.
_DATE = re.compile(r"(%[aAbBdGHIjmMpSuUVwWyY%]|[^%])*")


def _url(bucket: str, folder: str, run: BatchRun) -> str:
    """A folder of a bucket, with the run's date (UTC) for what stands in braces. Errors: `Refused`."""
    moment = run.at.astimezone(UTC)

    def date(match: re.Match[str]) -> str:
        if _DATE.fullmatch(match[1]) is None:
            raise _refused(run, folder, f"{match[0]} is no date")
        return moment.strftime(match[1])

    path = _BRACES.sub(date, folder).strip("/")
    if re.search(r"[{}]", path):
        raise _refused(run, folder, "a brace stands alone")
    if path and any(not part or part.startswith(".") for part in path.split("/")):
        raise _refused(run, folder, "a part of it is empty or begins with a dot")
    return f"s3://{bucket}/{quote(path, safe='/:')}".rstrip("/")


def _refused(run: BatchRun, folder: str, why: str) -> Refused:
    hint = "such as scores/{%Y-%m-%d}"
    return Refused(run.origin, "batch/folder", f"the folder {folder!r} of automation {run.automation}: {why}", hint)


def _environment_variables(
    run: BatchRun, model: str, deployment: DeploymentSpecification, environment: Environment, *, has_google: bool
) -> list[dict[str, Any]]:
    """The environment's defaults, over them the build's, the deployment's, and the run's own."""
    build, identity, home = run.build
    data = run.batch.data_specifications
    made = pods.variables(
        environment.defaults.env_vars,
        build.spec.env_vars,
        deployment.env_vars,
        run.batch.execution_specifications.params,
        HOME=pods.TMP,
        PYTHONPATH=RUNTIME_COPY if build.spec.base_image is not None else None,
        PYTHONUNBUFFERED="1",
        GOOGLE_APPLICATION_CREDENTIALS=pods.GOOGLE_KEY if has_google else None,
        TRUEUP_ARTIFACT_STORAGE=_artifact_storage(run, home, environment),
        TRUEUP_BUILD_ID=identity.id,
        TRUEUP_ENVIRONMENT=environment.name,
        TRUEUP_MODEL=model,
        TRUEUP_OBJECT_STORAGE=environment.object_storage,
        TRUEUP_PARAMETERS=orjson.dumps(dict(build.spec.parameters)).decode() if build.spec.parameters else None,
        TRUEUP_VARIATION=run.batch.variation,
    )
    # Of their own names: the artifacts may be another account's, and the model's code is given none of them.
    secrets = {
        "TRUEUP_DATA_ACCESS_KEY_ID": data.access_token_secret_name,
        "TRUEUP_DATA_SECRET_ACCESS_KEY": data.access_secret_secret_name,
        "TRUEUP_DATA_SESSION_TOKEN": data.session_token_secret_name,
    }
    others = [variable for variable in made if variable["name"] not in secrets]
    references = [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": "value"}}}
        for name, secret in secrets.items()
        if secret is not None
    ]
    return sorted([*others, *references], key=lambda variable: str(variable["name"]))


def _artifact_storage(run: BatchRun, home: Environment, here: Environment) -> str | None:
    """The object storage of the environment that the build is built in; None: the folder of this machine's data plane.

    Errors: `Refused`.
    """
    if home.object_storage is None and here.data_plane.type != "embedded":
        raise Refused(
            run.origin,
            "batch/artifact-out-of-reach",
            f"the build that automation {run.automation} predicts with is built in {home.name}, which keeps its "
            f"artifacts on one machine, and {here.name} cannot read them there",
            f"give {home.name} an object_storage that both reach",
        )
    return home.object_storage
