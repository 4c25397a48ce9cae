"""What is served in a unit: each variation with the build that it serves and its share of the traffic."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from renderers import names
from renderers.build import FULL_ID, PROVISIONAL
from renderers.catalog import BuildId, Facts, Placed, Unit
from renderers.identity import identify
from renderers.manifest import ObjectId
from schemas.build import Build
from schemas.environment import Environment
from schemas.variation import Traffic, Variation


class Served(NamedTuple):
    """One build of a variation, as it is served in one environment."""

    variation: Placed[Variation]
    build: Placed[Build]
    identity: BuildId
    name: str  #: of its Deployment, Service, PodDisruptionBudget and ScaledObject
    traffic: tuple[Traffic, ...]  #: the variation's shares
    home: Environment  #: where it is built, and in whose object storage its artifact is
    percent: int  #: what it gets of the variation's own traffic

    @property
    def is_shadow(self) -> bool:
        """True where all that it gets are copies of requests, so that its answers reach nobody."""
        return is_shadow(self.traffic)

    def labels(self, component: str, environment: Environment) -> dict[str, str]:
        """Of its objects."""
        spec = self.variation.spec
        return names.labels(
            spec.model,
            component,
            environment.name,
            instance=self.name,
            variation=spec.name,
            build=self.identity.short,
        )

    def annotations(self) -> dict[str, str]:
        """Of its objects."""
        spec = self.variation.spec
        made = names.provenance(self.variation.origin, f"variation/{spec.model}/{spec.name}")
        made[FULL_ID] = self.identity.id
        if self.identity.provisional:
            made[PROVISIONAL] = "true"
        if spec.protected:
            made[names.PROTECTED] = "true"
        return made

    def deployment_id(self, environment: Environment) -> ObjectId:
        """What everything that looks at its pods needs."""
        return ObjectId("apps/v1", "Deployment", environment.namespace_name, self.name)

    def service_id(self, environment: Environment) -> ObjectId:
        """What everything that sends it requests needs."""
        return ObjectId("v1", "Service", environment.namespace_name, self.name)


def is_shadow(traffic: tuple[Traffic, ...]) -> bool:
    """Whether these shares are of copies alone."""
    return bool(traffic) and all(share.shadow for share in traffic)


def served(unit: Unit, facts: Facts) -> list[Served]:
    """In order of variation, and of each the current build before the one that takes over.

    What was promoted wins over the build that a spec names. A variation of which nothing was promoted yet is not
    among them.
    """
    found: list[Served] = []
    here = unit.environment.spec

    def add(
        variation: Placed[Variation], build: Placed[Build], identity: BuildId, home: Environment, percent: int
    ) -> None:
        spec = variation.spec
        name = names.served_name(spec.model, spec.name, identity.short)
        found.append(Served(variation, build, identity, name, traffic_of(spec, unit), home, percent))

    for variation in unit.variations:
        spec = variation.spec
        stood = facts.stands.get((here.name, spec.model, spec.name)) if facts.stands else None
        if stood is not None:
            for (build, identity, home), percent in stood:
                add(variation, build, identity, home, percent)
        elif spec.build is not None:
            build = unit.builds[spec.build]
            add(variation, build, identify(build.spec, facts), unit.built_in.get(spec.build, here), 100)
    return found


def by_variation(builds: Iterable[Served]) -> list[list[Served]]:
    """The builds of each variation together, in their order."""
    groups: dict[str, list[Served]] = {}
    for one in builds:
        groups.setdefault(one.variation.spec.name, []).append(one)
    return list(groups.values())


def traffic_of(variation: Variation, unit: Unit) -> tuple[Traffic, ...]:
    """Its shares; where it names none, everybody if it is the model's only variation here, otherwise nothing."""
    if variation.traffic is not None:
        return variation.traffic
    return (Traffic(),) if len(unit.variations) == 1 else ()


def is_autoscaled(variation: Variation) -> bool:
    """Whether something else than the Deployment says how many pods there are."""
    return variation.deployment.auto_scale_config is not None


def prometheus_of(environment: Environment) -> str | None:
    """The Prometheus of an environment; the embedded data plane has that of this machine, unless it names another."""
    if environment.prometheus_url is None and environment.data_plane.type == "embedded":
        return "http://127.0.0.1:9090"
    return environment.prometheus_url
