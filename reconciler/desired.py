"""specs -> desired objects: rendered, marked as ours, and each wanted by one spec only. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from types import MappingProxyType

import orjson

import renderers
from reconciler import inventory
from renderers.catalog import Catalog, Facts, Unit, units
from renderers.manifest import Body, Manifest, ObjectId, Origin
from renderers.notes import Note, Refused
from schemas.environment import DataPlane
from schemas.problem import Problem


@dataclass(frozen=True, slots=True)
class Rendered:
    """What one unit came to: rendered whole or not at all. Without manifests, `problem` or `waits` says why."""

    environment: str
    model: str
    manifests: tuple[Manifest, ...] = ()
    notes: tuple[Note, ...] = ()
    problem: Problem | None = None
    waits: str = ""


#: The rule of a problem: two specs want one object.
SHARED = "desired/two-specs-one-object"

#: (repository, branch) -> why its newest commit is not known.
Unresolved = Mapping[tuple[str, str], str]


#: (environment, model) -> why nobody can say what is to be served there.
Unclear = Mapping[tuple[str, str], str]


def build(
    catalog: Catalog,
    facts: Facts,
    unresolved: Unresolved = MappingProxyType({}),
    unclear: Unclear = MappingProxyType({}),
    *,
    asked: Callable[[Unit], bool] = lambda _: True,
) -> Iterator[Rendered]:
    """Every unit of the catalog that is `asked` for, rendered, in a stable order.

    A unit with a build of an unresolved branch waits: its objects would carry an id that is not the build's. A
    preview names no branch as unresolved, and shows provisional ids instead. Of one of which it is unclear what it
    serves, what there is stays, and only its builds are made: what is to take over could never become ready otherwise.
    """
    wanted_by: dict[tuple[DataPlane, ObjectId], Origin] = {}
    for unit in filter(asked, units(catalog, facts)):
        unknown = (branch for branch in _branches(unit) if branch in unresolved and branch not in facts.commits)
        waits = next((unresolved[branch] for branch in unknown), "")
        if waits:
            yield Rendered(unit.environment.spec.name, unit.model, waits=waits)
            continue
        rendered = _rendered(unit, facts, wanted_by)
        waits = unclear.get((unit.environment.spec.name, unit.model), "")
        if waits and not rendered.problem:
            jobs = tuple(manifest for manifest in rendered.manifests if manifest.id.kind == "Job")
            rendered = replace(rendered, manifests=jobs, notes=(), waits=waits)
        yield rendered


def _branches(unit: Unit) -> Iterator[tuple[str, str]]:
    for build in unit.builds.values():
        if build.spec.branch is not None:
            yield build.spec.repository, build.spec.branch


def _rendered(unit: Unit, facts: Facts, wanted_by: dict[tuple[DataPlane, ObjectId], Origin]) -> Rendered:
    environment = unit.environment.spec.name
    try:
        manifests = tuple(renderers.render(unit, facts))
        notes = tuple(renderers.notes(unit, facts))
    except Refused as refused:
        problem = _problem(refused.origin, refused.rule, refused.message, refused.hint)
        return Rendered(environment, unit.model, problem=problem)
    for manifest in manifests:
        # One name in two clusters is two objects.
        first = wanted_by.setdefault((unit.environment.spec.data_plane, manifest.id), manifest.origin)
        if first is not manifest.origin and first != manifest.origin:
            message = f"{manifest.id} is wanted by {first.kind} {first.name} ({first}) as well"
            hint = "give one of them another name"
            problem = _problem(manifest.origin, SHARED, message, hint)
            return Rendered(environment, unit.model, problem=problem)
    label = inventory.set_id(environment)
    for manifest in manifests:
        _mark(manifest.body, label)
    return Rendered(environment, unit.model, manifests, notes)


def _mark(body: Body, label: str) -> None:
    """Marks an object as a member of its environment, and with the hash of what it says."""
    metadata = body["metadata"]
    metadata.setdefault("labels", {})[inventory.PART_OF] = label
    annotations = metadata.setdefault("annotations", {})
    annotations[inventory.CONTENT_HASH] = blake2b(canonical(body), digest_size=16).hexdigest()


def canonical(body: Body) -> bytes:
    """One text for one object: JSON with sorted keys."""
    return orjson.dumps(body, option=orjson.OPT_SORT_KEYS)


def _problem(origin: Origin, rule: str, message: str, hint: str) -> Problem:
    return Problem(origin.file, origin.line, origin.column, origin.path, rule, f"{message}.", hint)
