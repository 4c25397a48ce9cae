"""Specs and units for the tests of the renderers, with as little said as each test needs."""

from __future__ import annotations

from typing import Any

from renderers.catalog import Catalog, Facts, Placed, Unit, units
from renderers.manifest import Body, Manifest, Origin
from schemas.build import Build
from schemas.environment import Environment

COMMIT = "9fceb02d0ae598e95dc970b74767f19372d61af8"
ROLE = "arn:aws:iam::123456789012:role/churn"


def environment(**fields: Any) -> Placed[Environment]:
    spec = Environment.model_validate({"name": "production"} | fields)
    return Placed(spec, Origin("environments.yaml", 3, "environment", spec.name))


def build(**fields: Any) -> Placed[Build]:
    """At a pinned commit, unless `git_branch` is given."""
    known = {"name": "churn-1", "model": "churn", "git_uri": "https://github.com/acme/models.git#churn"}
    if "git_branch" not in fields:
        known["git_commit"] = COMMIT
    spec = Build.model_validate(known | fields)
    return Placed(spec, Origin("builds.yaml", 3, "build", spec.name))


def building(*builds: Placed[Build], where: Placed[Environment] | None = None) -> Unit:
    """The unit in which the builds, all of one model, run."""
    place = where or environment()
    catalog = Catalog(environments={place.spec.name: place}, builds={placed.spec.name: placed for placed in builds})
    (_, unit) = units(catalog)
    return unit


def one(manifests: list[Manifest], kind: str) -> Body:
    """The body of the only object of a kind."""
    (body,) = [manifest.body for manifest in manifests if manifest.id.kind == kind]
    return body


NO_FACTS = Facts()
