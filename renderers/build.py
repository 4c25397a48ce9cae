"""Builds: one Job each, which fetches the code at a commit and makes an artifact of it."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import orjson

from renderers import names, pods
from renderers.catalog import BuildId, Facts, Placed, Unit
from renderers.environment import build_account_id, namespace_id
from renderers.identity import identify
from renderers.manifest import Body, Manifest, ObjectId, object_id
from renderers.notes import Note
from renderers.resources import build_placement
from renderers.template import Template
from schemas.build import Build, BuildSpecification
from schemas.environment import Environment

_JOB = Template("build-job")
_SERVICE_ACCOUNT = Template("service-account")

#: Annotations of a Job, beside those of every object.
FULL_ID = names.PREFIX + "build"
COMMIT = names.PREFIX + "commit"
TAGS = names.PREFIX + "tags"
#: "true" on a Job whose commit is not known: it is shown, and never applied.
PROVISIONAL = names.PREFIX + "provisional"

#: Label: the Kueue LocalQueue that admits the Job. Kueue owns `suspend`, so nobody renders it.
QUEUE = "kueue.x-k8s.io/queue-name"

#: The folder of the volume that all containers of a pod have.
WORKSPACE = "/workspace"
CODE = f"{WORKSPACE}/code"
RUNTIME_COPY = f"{WORKSPACE}/runtime"
#: Where a container leaves its result, of at most 4096 bytes.
RESULT = "/dev/termination-log"


def render(unit: Unit, facts: Facts) -> list[Manifest]:
    """For each build that runs here: the account of its own role, if it has one, and its Job.

    Builds of specs come first, in order of name, then runs of automations. Two of the same content are one build,
    and have one Job, of the first of them. Errors: `Refused`.
    """
    environment = unit.environment.spec
    namespace = namespace_id(environment)
    manifests: dict[ObjectId, Manifest] = {}
    for build, identity, lineage in _distinct(unit, facts):
        account = build_account_id(environment)
        if build.spec.assumed_iam_role is not None:
            body = _account(build, build.spec.assumed_iam_role, environment)
            account = object_id(body)
            made = Manifest(account, body, build.origin, environment.name, (namespace,))
            manifests.setdefault(account, made)
        job = _job(build, identity, lineage, environment, account.name)
        made = Manifest(object_id(job), job, build.origin, environment.name, (namespace, account))
        manifests[made.id] = made
    return list(manifests.values())


def notes(unit: Unit, facts: Facts) -> list[Note]:
    """Provisional ids, and specs that are the same build."""
    told: list[Note] = []
    first: dict[str, str] = {}
    for name in sorted(unit.runs_here):
        build = unit.builds[name]
        identity = identify(build.spec, facts)
        if identity.provisional:
            told.append(
                Note(
                    build.origin,
                    f"build {name}: the newest commit of {build.spec.branch} is not known here, so its id "
                    f"{identity.short} is provisional",
                )
            )
        if identity.id in first:
            told.append(Note(build.origin, f"build {name} is the same build as {first[identity.id]}: it is made once"))
        first.setdefault(identity.id, name)
    return told


def _distinct(unit: Unit, facts: Facts) -> Iterator[tuple[Placed[Build], BuildId, str]]:
    """Each build with its lineage: a spec's next commit takes the place of its last one, and a run nobody's."""
    seen: set[str] = set()
    for build, identity, lineage in (*_of_specs(unit, facts), *_of_runs(unit, facts)):
        if identity.id not in seen:
            seen.add(identity.id)
            yield build, identity, lineage


def _of_specs(unit: Unit, facts: Facts) -> Iterator[tuple[Placed[Build], BuildId, str]]:
    for name in sorted(unit.runs_here):
        build = unit.builds[name]
        yield build, identify(build.spec, facts), f"build/{name}"


def _of_runs(unit: Unit, facts: Facts) -> Iterator[tuple[Placed[Build], BuildId, str]]:
    for build, identity, _ in facts.runs.get((unit.environment.spec.name, unit.model), ()):
        yield build, identity, ""


def _account(build: Placed[Build], role: str, environment: Environment) -> Body:
    """Builds of a model that assume the same role share an account; its name carries the role."""
    spec = build.spec
    stem = names.object_name(spec.model, "build", limit=names.LABEL_LIMIT - names.SUFFIX)
    return _SERVICE_ACCOUNT(
        name=f"{stem}-{sha256(role.encode()).hexdigest()[:8]}",
        namespace=environment.namespace_name,
        labels=names.labels(spec.model, "build", environment.name),
        annotations=names.provenance(build.origin) | pods.role_annotations(role),
    )


def _job(build: Placed[Build], identity: BuildId, lineage: str, environment: Environment, account: str) -> Body:
    spec, defaults = build.spec, environment.defaults
    placement = build_placement(spec.resources, spec.purchase_option, defaults, build.origin)
    name = names.job_name(spec.model, identity.short)
    labels = names.labels(spec.model, "build", environment.name, instance=name, build=identity.short)
    own_image = pods.BUILDER_GPU_IMAGE if placement.gpus or spec.gpu_compatible else pods.BUILDER_IMAGE
    git, google = _git_credentials(spec), pods.google_key(spec.service_account_key_secret_name)
    return _JOB(
        name=name,
        namespace=environment.namespace_name,
        labels=labels if defaults.queue_name is None else labels | {QUEUE: defaults.queue_name},
        annotations=_annotations(build, identity, lineage),
        deadline_seconds=spec.timeout_minutes * 60,
        pod_labels=labels,
        service_account=account,
        image_pull_secrets=pods.image_pull_secrets(defaults),
        node_selector=placement.node_selector,
        tolerations=placement.tolerations,
        affinity=placement.affinity,
        command=pods.RUNTIME,
        fetch_image=pods.BUILDER_IMAGE,
        fetch_args=_fetch_arguments(spec, identity),
        image=spec.base_image or own_image,
        args=_build_arguments(spec),
        env=_environment_variables(spec, identity, environment),
        resources=placement.resources,
        git_mount=git.mount if git else None,
        git_volume=git.volume if git else None,
        google_mount=google.mount if google else None,
        google_volume=google.volume if google else None,
    )


def _git_credentials(spec: BuildSpecification) -> pods.SecretFiles | None:
    secret = spec.git_access_token_secret or spec.git_ssh_token_secret
    return pods.secret_files("git", secret) if secret else None


def _fetch_arguments(spec: BuildSpecification, identity: BuildId) -> list[str]:
    """Of `runtime fetch`. Without `--commit`, as a provisional build has it, it refuses to run."""
    arguments = ["fetch", f"--repository={spec.repository}", f"--into={CODE}", f"--result={RESULT}"]
    if identity.commit is not None:
        arguments.append(f"--commit={identity.commit}")
    if spec.git_access_token_secret or spec.git_ssh_token_secret:
        arguments.append(f"--credentials={pods.SECRETS}/git")
    if spec.base_image is not None:
        # An image of the user's own does not have the runtime: this container leaves it where the other one looks.
        arguments.append(f"--copy-runtime={RUNTIME_COPY}")
    return arguments


def _build_arguments(spec: BuildSpecification) -> list[str]:
    arguments = ["build", f"--code={CODE}", f"--main-dir={spec.main_dir}", f"--result={RESULT}"]
    if spec.folder:
        arguments.append(f"--folder={spec.folder}")
    if spec.dependency_file_path is not None:
        arguments.append(f"--dependencies={spec.dependency_file_path}")
    arguments += [f"--include={folder}" for folder in spec.dependency_required_folders]
    if not spec.tests:
        arguments.append("--no-tests")
    if spec.validate_build_artifact:
        arguments.append(f"--validate-timeout={spec.validate_build_artifact_timeout}")
    else:
        arguments.append("--no-validate")
    return arguments


def _environment_variables(spec: Build, identity: BuildId, environment: Environment) -> list[dict[str, Any]]:
    return pods.variables(
        environment.defaults.env_vars,
        spec.env_vars,
        HOME=pods.TMP,
        PYTHONPATH=RUNTIME_COPY if spec.base_image is not None else None,
        PYTHONUNBUFFERED="1",
        GOOGLE_APPLICATION_CREDENTIALS=pods.GOOGLE_KEY if spec.service_account_key_secret_name else None,
        TRUEUP_BUILD_ID=identity.id,
        TRUEUP_COMMIT=identity.commit,
        TRUEUP_ENVIRONMENT=environment.name,
        TRUEUP_MODEL=spec.model,
        TRUEUP_OBJECT_STORAGE=environment.object_storage,
        TRUEUP_PARAMETERS=orjson.dumps(dict(spec.parameters)).decode() if spec.parameters else None,
    )


def _annotations(build: Placed[Build], identity: BuildId, lineage: str) -> dict[str, str]:
    made = names.provenance(build.origin, lineage)
    made[FULL_ID] = identity.id
    if identity.commit is not None:
        made[COMMIT] = identity.commit
    if identity.provisional:
        made[PROVISIONAL] = "true"
    if build.spec.tags:
        made[TAGS] = ",".join(build.spec.tags)
    return made
