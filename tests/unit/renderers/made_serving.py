"""Units that serve something, for the tests of serving, routing, autoscaling and monitoring."""

from __future__ import annotations

from typing import Any

from renderers.catalog import Catalog, Placed, Unit, units
from renderers.manifest import Origin
from schemas.audience import Audience
from schemas.automation import Automation
from schemas.environment import Environment
from schemas.variation import Variation
from tests.unit.renderers.made import build, environment

PROMETHEUS = "http://prometheus.monitoring:9090"


def cluster(controller: str = "istio", **fields: Any) -> Placed[Environment]:
    """A production environment in a cluster."""
    gateway = {"name": "ml", "namespace": "gateways", "controller": controller}
    known = {
        "data_plane": "kubernetes",
        "object_storage": "s3://acme-models/production",
        "gateway": gateway,
        "prometheus_url": PROMETHEUS,
    }
    return environment(**known | fields)


def variation(name: str = "default", **fields: Any) -> Placed[Variation]:
    """Serves the build churn-1, unless `automation` is given."""
    known: dict[str, Any] = {"model": "churn", "name": name, "environments": ["production"]}
    if "automation" not in fields:
        known["build"] = "churn-1"
    spec = Variation.model_validate(known | fields)
    return Placed(spec, Origin("variations.yaml", 3, "variation", f"{spec.model}/{spec.name}"))


def audience(name: str, *unary: dict[str, Any], **fields: Any) -> Placed[Audience]:
    spec = Audience.model_validate({"name": name, "conditions": {"unary": list(unary)}} | fields)
    return Placed(spec, Origin("audiences.yaml", 3, "audience", name))


def header(key: str, operand: Any, operator: str = "UNARY_OPERATOR_TYPE_EXACT_MATCH", **fields: Any) -> dict[str, Any]:
    return {"key": key, "operator": operator, "operand": operand} | fields


def serving(
    *variations: Placed[Variation],
    audiences: tuple[Placed[Audience], ...] = (),
    where: Placed[Environment] | None = None,
    **build_fields: Any,
) -> Unit:
    """The unit of the model churn in production."""
    place, made = where or cluster(), build(**build_fields)
    catalog = Catalog(
        environments={place.spec.name: place},
        builds={made.spec.name: made},
        variations={(v.spec.model, v.spec.name): v for v in variations},
        audiences={a.spec.name: a for a in audiences},
    )
    (_, unit) = units(catalog)
    return unit


def implied_by_an_automation() -> Unit:
    """A variation that has no spec of its own, and nothing to serve yet."""
    spec = Automation.model_validate(
        {
            "name": "nightly",
            "model": "churn",
            "trigger": {"scheduled": {"cron": "0 3 * * *"}},
            "build_spec": {"git_uri": "https://github.com/acme/models.git#churn"},
            "deployment_spec": {},
        }
    )
    place = cluster()
    automation = Placed(spec, Origin("automations.yaml", 3, "automation", spec.name))
    (_, unit) = units(Catalog(environments={place.spec.name: place}, automations={spec.name: automation}))
    return unit
