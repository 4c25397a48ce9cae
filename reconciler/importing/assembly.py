"""What was read, file by file -> specs that fit together: each thing once, in an order, with all that it refers to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from reconciler.importing.context import Automated, Built, Context, Deployed, Found, Grouped, Spec, spec
from reconciler.importing.naming import Name
from reconciler.importing.values import Place
from reconciler.importing.variations import Models
from reconciler.importing.writing import Lost, Noted
from renderers.catalog import Catalog
from schemas.environment import RESERVED_NAMESPACES


def specs(found: Found, context: Context, existing: Catalog) -> list[Spec]:
    """The specs, the kinds in the order of the language."""
    audiences = _each_once(found.audiences, "audience", context)
    builds = _each_once(found.builds, "build", context)
    automations = _each_once(found.automations, "automation", context)
    deployments = _with_audiences(found.deployments, audiences, context, existing)
    models = Models(Found(audiences, builds, automations, deployments, found.scaled), context, existing)
    variations = models.variations()
    priorities = _priorities(models.orders, context)
    result = [_environment(name, place) for name, place in context.environments.items()]
    result += [spec("builds", build.name, build.place, build.fields) for build in models.builds]
    result += variations
    for audience in audiences:
        fields = dict(audience.fields, name=audience.name)
        if audience.name in priorities:
            fields["priority"] = priorities[audience.name]
        order = ("name", "description", "priority", "conditions")
        result.append(spec("audiences", audience.name, audience.place, {k: fields[k] for k in order if k in fields}))
    result += [spec("automations", a.name, a.place, {**a.fields, "name": a.name}) for a in automations]
    return result


T = TypeVar("T", Grouped, Built, Automated)


def _each_once(things: Iterable[T], word: str, context: Context) -> list[T]:
    """Things by name. What is said twice is one thing; two that differ are two, and one of them gets another name."""
    result: list[T] = []
    for thing in things:
        others = [other for other in result if other.name.text == thing.name.text]
        if any(_are_one(other, thing) for other in others):
            continue
        if others:
            context.told.undecided(
                thing.place,
                f"There is another {word} {thing.name.text} at {others[0].place}: this one gets a name of its own.",
                "remove one of them from the result",
            )
            thing.name = thing.name._replace(number=len(others) + 1)
            thing.fields["name"] = thing.name
        result.append(thing)
    return result


def _are_one(one: Grouped | Built | Automated, other: Grouped | Built | Automated) -> bool:
    match one, other:
        case Automated(), Automated():
            return one.said == other.said
        case Grouped(), Grouped() if one.id and one.id == other.id:
            return True
    is_one = {**one.fields, "name": ""} == {**other.fields, "name": ""}
    match one, other:
        case Grouped(), Grouped() if is_one:
            one.id = one.id or other.id
    return is_one


def _with_audiences(
    deployments: Sequence[Deployed], audiences: Sequence[Grouped], context: Context, existing: Catalog
) -> list[Deployed]:
    """The deployments, each route with the audience that is meant."""
    by_id = {audience.id: audience.name for audience in audiences if audience.id}
    names = {audience.name for audience in audiences}
    told: set[Name] = set()

    def meant(name: Name, place: Place) -> Name:
        if name.model in by_id:
            return by_id[name.model]
        plain = Name("audience", name.text)
        if plain not in names and name.text not in existing.audiences and plain not in told:
            told.add(plain)
            hint = "import what `qwak audiences list --json-format` prints as well"
            if name.model:
                hint += f", or say its name: --audience {name.model}=NAME"
            context.told.undecided(place, f"What the audience {name.text} is, none of the files says.", hint)
        return plain

    result = []
    for deployed in deployments:
        routes = tuple(
            replace(route, audience=meant(route.audience, deployed.place)) if route.audience is not None else route
            for route in deployed.routes
        )
        order = tuple(meant(name, deployed.place) for name in deployed.audiences)
        result.append(replace(deployed, routes=routes, audiences=order))
    return result


def _priorities(orders: Iterable[Sequence[Name]], context: Context) -> dict[Name, int]:
    """The order in which audiences are tried: one for all models, because an audience has one priority."""
    after: dict[Name, set[Name]] = {}
    place: dict[Name, None] = {}
    for order in orders:
        if len(order) < 2:
            continue
        place |= dict.fromkeys(order)
        for index, name in enumerate(order):
            after.setdefault(name, set()).update(order[:index])
            after[name].discard(name)
    done: dict[Name, int] = {}
    pending = list(place)
    step = max(1, min(10, 10_000 // (len(pending) + 1)))
    while pending:
        ready = next((name for name in pending if after[name] <= done.keys()), None)
        if ready is None:
            names = ", ".join(name.text for name in pending[:5])
            context.told.undecided(
                next(iter(context.environments.values()), Place("", 1, 1)),
                f"Models try the audiences {names} in orders that contradict each other.",
                "give them priorities, or make two of one",
            )
            break
        done[ready] = (len(done) + 1) * step
        pending.remove(ready)
    return done


def _environment(name: Name, place: Place) -> Spec:
    fields: dict[str, Any] = {"name": name}
    if name.text in RESERVED_NAMESPACES or name.text.startswith("kube-"):
        fields["namespace"] = f"models-{name.text}"
    comment = "this machine, for now; for a cluster say data_plane, object_storage and gateway"
    return spec("environments", name, place, fields, comment)


def names_in(value: Any) -> Iterable[Name]:
    """Every name in a spec."""
    match value:
        case Name():
            yield value
        case Noted(inner, _):
            yield from names_in(inner)
        case Lost():
            return
        case Mapping():
            for key, inner in value.items():
                yield from names_in(key)
                yield from names_in(inner)
        case list() | tuple():
            for inner in value:
                yield from names_in(inner)
