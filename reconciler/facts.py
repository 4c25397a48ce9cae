"""What rendering must know of the world: the commit that each branch stands at, asked of Git.

A private repository is asked with the credential that its build names: a Secret in the namespace where it runs.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping

from reconciler import source
from reconciler.cluster import ApiError, Reader
from reconciler.desired import Unresolved
from reconciler.source import Branch, Credential
from renderers.catalog import Catalog, Facts, Unit, units
from renderers.manifest import ObjectId
from schemas.build import Build
from schemas.environment import DataPlane


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
    for unit in units(catalog):
        is_local |= bool(unit.runs_here) and unit.environment.spec.data_plane.type == "embedded"
        for name in sorted(unit.runs_here):
            build = unit.builds[name].spec
            if build.branch is None or unit.environment.spec.suspended:
                continue
            try:
                wanted[Branch(build.repository, build.branch, _credential(build, unit, reader_of))] = None
            except (ApiError, _NoCredentialError) as error:
                unresolved[build.repository, build.branch] = str(error)
    if not wanted:
        return Facts(), unresolved
    answers = source.resolve(wanted, mirrors=mirrors, allow_file=is_local)
    commits = {}
    for branch, answer in answers.items():
        if isinstance(answer, str):
            commits[branch.repository, branch.branch] = answer
        else:
            unresolved[branch.repository, branch.branch] = answer.reason
    return Facts(commits), {key: why for key, why in unresolved.items() if key not in commits}


class _NoCredentialError(Exception):
    """The Secret is not what the build needs. The sentence names it, and never what is in it."""


def _credential(build: Build, unit: Unit, reader_of: Callable[[DataPlane], Reader]) -> Credential | None:
    name = build.git_access_token_secret or build.git_ssh_token_secret
    if name is None:
        return None
    environment = unit.environment.spec
    target = ObjectId("v1", "Secret", environment.namespace_name, name)
    secret = reader_of(environment.data_plane).get(target)
    if secret is None:
        raise _NoCredentialError(f"{target}, which build {build.name} names, does not exist")
    if build.git_access_token_secret:
        user, _, token = _value(secret, target, "token").partition(":")
        return Credential.token(user, token) if token else Credential.token("", user)
    known_hosts = _value(secret, target, "known_hosts") if "known_hosts" in (secret.get("data") or {}) else None
    return Credential.ssh_key(_value(secret, target, "ssh-privatekey"), known_hosts)


def _value(secret: Mapping[str, Mapping[str, str]], target: ObjectId, key: str) -> str:
    try:
        return base64.b64decode(secret["data"][key], validate=True).decode()
    except (KeyError, TypeError, binascii.Error, UnicodeDecodeError):
        raise _NoCredentialError(f"{target} has no readable key {key!r}") from None
