"""What a build is: the id that its Job, its record and its artifact are known by."""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256

import orjson

from renderers.catalog import BuildId, Facts
from renderers.resources import DEFAULT_BUILD, cpu_quantity, memory_quantity
from schemas.build import Build, BuildSpecification
from schemas.resources import Resources


@lru_cache(maxsize=8192)  # each of a model's renderers asks for it
def build_id(
    spec: BuildSpecification, model: str, commit: str | None, *, branch: str | None = None, run: str = ""
) -> BuildId:
    """The id of a build of `model` at `commit`; with no commit, a provisional one made of the branch.

    `run` names a run of an automation, "nightly@2026-11-21T03:00:00.000Z": it builds the same code anew because the
    data has changed, which no spec says. "" for the build of a spec, and for the run that a commit has started.

    In it is what decides the artifact, or whether there is one: the model, repository, folder and commit, main_dir,
    dependency file and folders, base image, resources, gpu_compatible, env_vars, parameters, tests
    and validate_build_artifact. Resources are part of it because a build that ran out of memory must run
    again when it is given more, and because a GPU computes other numbers than a CPU.

    Not in it is what only says how to get there: names, descriptions, tags, credentials, roles, time limits, the
    purchase option and push_image; nor the environment (one build is promoted through all of them), nor Trueup's own
    version (an upgrade must not build every model anew).
    """
    content = {
        "version": 1,
        "model": model,
        "repository": spec.repository,
        "folder": spec.folder,
        # A run is named: two reconcilers that see two commits at its instant make one build of it.
        "commit": None if run else commit,
        "branch": branch if commit is None else None,
        "main_dir": spec.main_dir,
        "dependency_file": spec.dependency_file_path,
        "folders": sorted(spec.dependency_required_folders),
        "base_image": spec.base_image,
        "resources": _resources(spec.resources),
        "gpu_compatible": spec.gpu_compatible,
        "env_vars": spec.env_vars,
        "parameters": spec.parameters,
        "tests": spec.tests,
        "validate": spec.validate_build_artifact,
    } | ({"run": run} if run else {})
    digest = sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()
    return BuildId(digest, commit, commit is None)


def _resources(resources: Resources) -> dict[str, str | int]:
    """The one family that is asked for, in one spelling: to write a default down is no other build."""
    if resources.instance is not None:
        return {"instance": resources.instance}
    if resources.gpu_type is not None:
        return {"gpu_type": resources.gpu_type, "gpu_amount": resources.gpu_amount or 1}
    cpu, memory = resources.cpu or DEFAULT_BUILD.cpu, resources.memory or DEFAULT_BUILD.memory
    return {"cpu": cpu_quantity(cpu), "memory": memory_quantity(memory)}


def identify(build: Build, facts: Facts) -> BuildId:
    """The id of a build spec, at its pinned commit or at its branch's newest one, as far as the facts know it."""
    branch = build.branch
    commit = build.git_commit if branch is None else facts.commits.get((build.repository, branch))
    return build_id(build, build.model, commit, branch=branch)
