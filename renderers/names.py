"""Names, labels and annotations of everything that is rendered.

Names are deterministic, within every limit, readable, and no two things have the same one. Where a name had to be
cut or mapped, 8 hex digits of the SHA-256 of the full name follow it: a plain cut would let two models meet.
"""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import sha256

from renderers.manifest import Origin

#: Of our own labels and annotations.
PREFIX = "trueup.dev/"

#: Annotation: the spec that the object comes from, "variation/default" (its model is a label). Without file and line:
#: moving a spec must not change a manifest.
SPEC = PREFIX + "spec"
#: Annotation: what stays the same when the build id in the name changes, "variation/churn/default" or "build/churn-1",
#: so that a plan can show an object beside the one that it follows.
LINEAGE = PREFIX + "lineage"

#: Annotation: "true" where a plan that removes the object, or moves the traffic that it sends, waits for a person.
PROTECTED = PREFIX + "protected"
#: Annotation: "true" at the route that shares a model's requests among variations. Without it, nobody answers them.
ANSWERS = PREFIX + "answers"
#: Annotation of a route: a hash of what the specs say about who gets which variation. Where it stays the same, a route
#: changes because something was promoted or rolled back, and not because somebody wants something else.
SHARES = PREFIX + "shares"
#: Of a pod: what its server is started with, so that pods with other arguments or variables are other pods.
CONFIG_HASH = PREFIX + "config-hash"

NAME = "app.kubernetes.io/name"
INSTANCE = "app.kubernetes.io/instance"
VERSION = "app.kubernetes.io/version"
COMPONENT = "app.kubernetes.io/component"
PART_OF = "app.kubernetes.io/part-of"
MANAGED_BY = "app.kubernetes.io/managed-by"
ENVIRONMENT = PREFIX + "environment"
VARIATION = PREFIX + "variation"
BUILD_ID = PREFIX + "build-id"

#: A DNS label: Service, Job, HTTPRoute, and every label value.
LABEL_LIMIT = 63
#: A pod's name is the Deployment's, the template's hash (10) and 5 more, and must fit into a label. A longer name
#: is cut there, and the regular expressions in PromQL that look for the pods find none.
DEPLOYMENT_LIMIT = 46
#: "-" and 8 hex digits.
SUFFIX = 9

#: RFC 1035, as Services want it, and without an ending that looks like our own suffix.
_PLAIN = re.compile(r"(?!.*-[0-9a-f]{8}\Z)[a-z]([-a-z0-9]*[a-z0-9])?")
_FOREIGN = re.compile(r"[^a-z0-9]+")


@lru_cache(maxsize=65_536)
def object_name(*parts: str, limit: int = LABEL_LIMIT) -> str:
    """The parts with "-" between them, as an RFC 1035 label of at most `limit` characters.

    At most one of the parts may be free (chosen by people): with two, ("a-b", "c") and ("a", "b-c") would meet.
    """
    plain = "-".join(parts)
    if len(plain) <= limit and _PLAIN.fullmatch(plain):
        return plain
    base = _FOREIGN.sub("-", plain.lower()).strip("-")
    if not base[:1].isalpha():
        base = f"n-{base}".rstrip("-")  # RFC 1035: a letter first
    digest = sha256("/".join(parts).encode()).hexdigest()[:8]
    return f"{base[: limit - SUFFIX].rstrip('-')}-{digest}"


def served_name(model: str, variation: str, build: str) -> str:
    """The name of everything that serves one build of a variation: Deployment, Service, PodDisruptionBudget, HPA.

    `build` is the build id's 8 hex digits. The next build's objects stand beside these until it has the traffic.
    A build belongs to one model, which keeps ("a-b", "c") and ("a", "b-c") apart.
    """
    return f"{object_name(model, variation, limit=DEPLOYMENT_LIMIT - SUFFIX)}-{build}"


def job_name(model: str, build: str) -> str:
    """The name of a build's Job; `build` is the build id's 8 hex digits. The API server admits a name once."""
    return f"{object_name(model, 'build', limit=LABEL_LIMIT - SUFFIX)}-{build}"


def labels(
    model: str, component: str, environment: str, *, instance: str = "", variation: str = "", build: str = ""
) -> dict[str, str]:
    """The labels of an object. Every name in the language is a legal label value as it is.

    `component`: serving, build, routing, autoscaling, monitoring, environment. `build`: 8 hex digits.
    `model` is "" for an environment's own objects.
    """
    made = {
        NAME: model or environment,
        COMPONENT: component,
        PART_OF: model or "trueup",
        MANAGED_BY: "trueup",
        ENVIRONMENT: environment,
    }
    if instance:
        made[INSTANCE] = instance
    if variation:
        made[VARIATION] = variation
    if build:
        made[VERSION] = made[BUILD_ID] = build
    return made


def selector(model: str, instance: str) -> dict[str, str]:
    """What selects the pods of one Deployment: immutable there, so nothing that changes."""
    return {NAME: model, INSTANCE: instance}


def provenance(origin: Origin, lineage: str = "") -> dict[str, str]:
    """The annotations of an object; `lineage` where its name holds a build id."""
    made = {SPEC: f"{origin.kind}/{origin.name}"}
    if lineage:
        made[LINEAGE] = lineage
    return made
