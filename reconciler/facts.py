"""What rendering must know of the world: the commit that each branch stands at, asked of Git.

A private repository is asked with the credential that its build names: a Secret in the namespace where it runs.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping

from reconciler.cluster import ApiError, KubeconfigError, Reader, Unauthorized, Unavailable
from reconciler.desired import Unresolved
from reconciler.source import git
from reconciler.source.git import Branch, Credential
from renderers.catalog import Catalog, Facts, units
from renderers.manifest import ObjectId
from schemas.build import BuildSpecification
from schemas.environment import DataPlane, Environment


def gather(
    catalog: Catalog, reader_of: Callable[[DataPlane], Reader], mirrors: Mapping[str, str]
) -> tuple[Facts, Unresolved]:
    """The commits of all branches that are built; and why, for those that could not be had.

    Only what is on this machine may come from a `file://` address: builds of the embedded data plane, and mirrors
    that somebody named on the command line.
    """
    wanted: dict[Branch, None] = {}
    unresolved: dict[tuple[str, str], str] = {}
    is_local = any(target.startswith("file:") for target in mirrors.values())
    # A build may run in an environment that is suspended, and be served in one that is not.
    needed = {b.spec.name for u in units(catalog) if not u.environment.spec.suspended for b in u.builds.values()}
    away: dict[DataPlane, str] = {}  # so that a cluster that is away is waited for once, not for each build
    for unit in units(catalog):
        plane = unit.environment.spec.data_plane
        is_local |= bool(unit.runs_here) and plane.type == "embedded"
        for name in sorted(unit.runs_here & needed):
            build = unit.builds[name].spec
            if build.branch is None:
                continue
            try:
                if plane in away and _secret_name(build):
                    raise NoCredentialError(away[plane])
                wanted[
                    Branch(build.repository, build.branch, credential_of(build, unit.environment.spec, reader_of))
                ] = None
            except (ApiError, NoCredentialError) as error:
                unresolved[build.repository, build.branch] = str(error)
                if isinstance(error, Unavailable | Unauthorized | KubeconfigError):
                    away[plane] = str(error)
    if not wanted:
        return Facts(), unresolved
    answers = git.resolve(wanted, mirrors=mirrors, allow_file=is_local)
    commits = {}
    for branch, answer in answers.items():
        if isinstance(answer, str):
            commits[branch.repository, branch.branch] = answer
        else:
            unresolved[branch.repository, branch.branch] = answer.reason
    return Facts(commits), {key: why for key, why in unresolved.items() if key not in commits}


class NoCredentialError(Exception):
    """The Secret is not what the build needs. The sentence names it, and never what is in it."""


def _secret_name(build: BuildSpecification) -> str | None:
    return build.git_access_token_secret or build.git_ssh_token_secret


def credential_of(
    build: BuildSpecification, environment: Environment, reader_of: Callable[[DataPlane], Reader]
) -> Credential | None:
    """What the environment's Secret holds; None where the repository needs none.

    Raises NoCredentialError and `ApiError`.
    """
    name = _secret_name(build)
    if name is None:
        return None
    target = ObjectId("v1", "Secret", environment.namespace_name, name)
    secret = reader_of(environment.data_plane).get(target)
    if secret is None:
        raise NoCredentialError(f"{target}, which the build of {build.repository} names, does not exist")
    if build.git_access_token_secret:
        user, _, token = _value(secret, target, "token").partition(":")
        return Credential.token(user, token) if token else Credential.token("", user)
    known_hosts = _value(secret, target, "known_hosts") if "known_hosts" in (secret.get("data") or {}) else None
    return Credential.ssh_key(_value(secret, target, "ssh-privatekey"), known_hosts)


def _value(secret: Mapping[str, Mapping[str, str]], target: ObjectId, key: str) -> str:
    try:
        return base64.b64decode(secret["data"][key], validate=True).decode()
    except (KeyError, TypeError, binascii.Error, UnicodeDecodeError):
        raise NoCredentialError(f"{target} has no readable key {key!r}") from None
