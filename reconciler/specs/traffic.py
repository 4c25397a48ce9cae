"""Whether the variations of a model share its requests without a rest: weights, shadows, the order of audiences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations, groupby
from typing import Any, NamedTuple

from reconciler.specs.places import Places
from reconciler.specs.references import Specs
from reconciler.specs.typed import Found, plain_name
from reconciler.specs.wording import listed
from renderers.audiences import disjoint
from renderers.catalog import Placed, Unit, units
from schemas.problem import Path, Severity
from schemas.variation import Traffic, Variation

#: So many audiences of one priority are compared with each other; more would take minutes.
COMPARED = 50


class Finding(NamedTuple):
    """What is wrong with the traffic of a model in one environment. `{where}` of the message is that environment."""

    found: Found[Any]
    path: Path
    rule: str
    message: str
    hint: str
    severity: Severity = "error"


def check(specs: Specs, places: Places) -> None:
    """Leaves out every model whose requests are not shared as they must be."""
    environments: dict[Finding, list[str]] = {}
    for unit in units(specs.catalog()):
        for finding in _findings(unit, specs):
            environments.setdefault(finding, []).append(unit.environment.spec.name)
            if finding.severity == "error":
                specs.doubtful_models.add(plain_name(unit.model))
    for finding, names in environments.items():
        found, path, rule, message, hint, severity = finding
        message = message.replace("{where}", listed(names))
        specs.problems.append(places.problem(found.site, path, rule, message, hint, severity=severity))
    specs.drop_doubtful_models()


class Share(NamedTuple):
    """A part of an audience's requests, and where it is written."""

    found: Found[Any]
    path: Path
    traffic: Traffic

    @property
    def called(self) -> str:
        """As messages list it."""
        return f"{self.found.name} {self.traffic.weight}"


def _findings(unit: Unit, specs: Specs) -> Iterator[Finding]:
    shares = sorted(_shares(unit, specs), key=lambda share: share.traffic.audience or "")
    if not shares and len(unit.variations) > 1 and any(v.spec.traffic is None for v in unit.variations):
        found = _written(unit.variations[-1], unit.model, specs)
        message = (
            f"{unit.model} has {len(unit.variations)} variations in {{where}}, and none says whose requests it takes."
        )
        yield Finding(found, ("traffic",), "traffic/nobody", message, "write traffic: [{weight: 100}] in one of them")
    for audience, of_audience in groupby(shares, key=lambda share: share.traffic.audience):
        yield from _whole(unit.model, audience, list(of_audience))
    everybody = {name for name, audience in unit.audiences.items() if not _conditions(audience)}
    if shares and not any(share.traffic.audience is None or share.traffic.audience in everybody for share in shares):
        message = f"Requests to {unit.model} in {{where}} that no audience matches are refused."
        hint = "write a share without an audience, for everybody else"
        yield Finding(shares[0].found, ("traffic",), "traffic/no-rest", message, hint, "warning")
    yield from _same_priority(unit, specs)


def _shares(unit: Unit, specs: Specs) -> Iterator[Share]:
    for variation in unit.variations:
        found = _written(variation, unit.model, specs)
        path: Path = ("traffic",)
        if isinstance(found.spec, Variation):
            overrides = dict(found.spec.environment_overrides)
            override = overrides.get(unit.environment.spec.name)
            if override is not None and override.traffic is not None:
                path = ("environment_overrides", unit.environment.spec.name, "traffic")
        for index, traffic in enumerate(variation.spec.traffic or ()):
            yield Share(found, (*path, index), traffic)


def _written(variation: Placed[Variation], model: str, specs: Specs) -> Found[Any]:
    """The spec of a variation, or the automation that implies it."""
    given = specs.found.get(("variations", model, variation.spec.name))
    return given or specs.found["automations", "", variation.origin.name]


def _whole(model: str, audience: str | None, shares: list[Share]) -> Iterator[Finding]:
    """The shares of one audience: 100 in all, and one shadow at most."""
    whose = f'the audience "{audience}"' if audience else "everybody else"
    served = [share for share in shares if not share.traffic.shadow]
    shadows = [share for share in shares if share.traffic.shadow]
    total = sum(share.traffic.weight for share in served)
    if not served:
        message = f"Only a shadow takes the requests of {whose} to {model} in {{where}}."
        hint = "give a variation a share without shadow"
        yield Finding(shadows[0].found, shadows[0].path, "traffic/shadow-alone", message, hint)
    elif total != 100:
        last = served[-1]
        parts = ", ".join(share.called for share in served)
        message = f"The weights of {whose} for {model} in {{where}} sum to {total}, not to 100 ({parts})."
        hint = "write 100" if len(served) == 1 else "make them sum to 100"
        yield Finding(last.found, (*last.path, "weight"), "traffic/weights", message, hint)
    if len(shadows) > 1:
        names = ", ".join(share.found.name for share in shadows)
        message = f"{len(shadows)} variations are shadows for {whose} to {model} in {{where}} ({names})."
        yield Finding(
            shadows[1].found, (*shadows[1].path, "shadow"), "traffic/two-shadows", message, "keep one of them"
        )


def _same_priority(unit: Unit, specs: Specs) -> Iterator[Finding]:
    """Audiences of which it is not known which one a request belongs to.

    One without conditions is always tried after those of its priority that have some (`audiences.in_order`).
    """
    placed = sorted(unit.audiences.values(), key=lambda audience: (audience.spec.priority, audience.spec.name))
    for priority, group in groupby(placed, key=lambda audience: audience.spec.priority):
        same = list(group)
        if len(same) > COMPARED:
            found = specs.around["audiences", "", same[COMPARED].spec.name]
            message = f"{len(same)} audiences of {unit.model} in {{where}} have the same priority {priority}."
            hint = f"give them priorities; {COMPARED} of them at most may have the same"
            yield Finding(found, ("priority",), "traffic/audience-order", message, hint)
            continue
        for first, second in combinations(same, 2):
            if bool(_conditions(first)) != bool(_conditions(second)) or disjoint(first.spec, second.spec):
                continue
            found = specs.around["audiences", "", second.spec.name]
            message = (
                f'A request to {unit.model} in {{where}} can match both "{first.spec.name}" ({first.origin}) and '
                f'"{second.spec.name}", which have the same priority {priority}.'
            )
            hint = "give each a priority of its own; the lowest is tried first"
            yield Finding(found, ("priority",), "traffic/audience-order", message, hint)


def _conditions(audience: Placed[Any]) -> Iterable[Any]:
    conditions = audience.spec.conditions
    return (*conditions.unary, *conditions.binary)
