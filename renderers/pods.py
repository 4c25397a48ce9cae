"""What the pods of builds and of serving have in common: images, environment variables, secrets as files."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from schemas.base import SECRET_REFERENCE, EnvVars
from schemas.environment import Defaults

#: Trueup's version, which its images are tagged with.
VERSION = "0.1.0"
BUILDER_IMAGE = f"ghcr.io/trueup/builder:{VERSION}"
BUILDER_GPU_IMAGE = f"ghcr.io/trueup/builder-gpu:{VERSION}"
SERVER_IMAGE = f"ghcr.io/trueup/server:{VERSION}"
SERVER_GPU_IMAGE = f"ghcr.io/trueup/server-gpu:{VERSION}"

#: How every container of ours is started; its arguments say what it does. No image's own entry point matters.
RUNTIME = ["python", "-m", "runtime"]

#: The only writable folder of the root file system: an empty volume of the pod's own.
TMP = "/tmp"  # noqa: S108 (nobody shares it)

#: Secrets are mounted as files below this folder.
SECRETS = "/var/run/secrets/trueup.dev"

_REFERENCE = re.compile(r"\$(?=[$(])")


def variables(*layers: EnvVars, **own: str | None) -> list[dict[str, Any]]:
    """The `env` of a container, in order of name: later layers win, and Trueup's `own` win over all.

    A value `secret.NAME` or `secret.NAME.KEY` reads the key (default: `value`) of the Secret NAME; a pod whose
    Secret is missing does not start, and says so. A value of `own` that is None is left out.
    """
    made = {name: _variable(name, value) for name, value in {k: v for layer in layers for k, v in layer}.items()}
    made |= {name: {"name": name, "value": literal(value)} for name, value in own.items() if value is not None}
    return [made[name] for name in sorted(made)]


def _variable(name: str, value: str) -> dict[str, Any]:
    secret = SECRET_REFERENCE.fullmatch(value)
    if secret is None:
        return {"name": name, "value": literal(value)}
    reference = {"name": secret["name"], "key": secret["key"] or "value"}
    return {"name": name, "valueFrom": {"secretKeyRef": reference}}


def literal(text: str) -> str:
    """The text so that the kubelet reads it as it is: it would replace `$(NAME)` in env and args."""
    return _REFERENCE.sub("$$", text)


class SecretFiles(NamedTuple):
    """A Secret as files of a pod."""

    volume: dict[str, Any]
    mount: dict[str, Any]


def secret_files(name: str, secret: str) -> SecretFiles:
    """The Secret's keys as files in SECRETS/name, readable for the container's group only."""
    return SecretFiles(
        {"name": name, "secret": {"secretName": secret, "defaultMode": 0o440}},
        {"name": name, "mountPath": f"{SECRETS}/{name}", "readOnly": True},
    )


#: A Google Cloud service account key is the key `key.json` of its Secret.
GOOGLE_KEY = f"{SECRETS}/google/key.json"


def google_key(secret: str | None) -> SecretFiles | None:
    """The files for GOOGLE_APPLICATION_CREDENTIALS=GOOGLE_KEY, if there is a Secret."""
    return secret_files("google", secret) if secret else None


def role_annotations(role_arn: str | None) -> dict[str, str]:
    """Of a ServiceAccount whose pods assume an AWS role, which the webhook of EKS mounts a token for."""
    if role_arn is None:
        return {}
    return {"eks.amazonaws.com/role-arn": role_arn, "eks.amazonaws.com/sts-regional-endpoints": "true"}


def image_pull_secrets(defaults: Defaults) -> list[dict[str, str]] | None:
    """The field of a pod."""
    return [{"name": name} for name in defaults.image_pull_secrets] or None
