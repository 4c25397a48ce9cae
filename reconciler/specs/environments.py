"""Whether environments can stand beside each other: an order of promotion, and a namespace for each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from reconciler.specs.places import Places
from reconciler.specs.typed import Found, Key
from schemas.environment import DataPlane, Environment
from schemas.problem import Path, Problem


def circles(environments: Sequence[Found[Environment]], problems: list[Problem], places: Places) -> set[Key]:
    """Those whose promote_after leads back to themselves. Added to `problems` once for each circle."""
    after = {found.name: found.spec.promote_after for found in environments}
    in_circles: set[str] = set()
    for found in environments:
        circle = _way_back(found.name, after)
        if circle and found.name not in in_circles:
            in_circles.update(circle)
            message = f"promote_after goes in a circle: {' after '.join((*circle, found.name))}."
            problem = places.problem(
                found.site, ("promote_after",), "reference/circle", message, "break it at one place"
            )
            problems.append(problem)
    return {("environments", "", name) for name in in_circles}


def _way_back(start: str, after: Mapping[str, tuple[str, ...]]) -> list[str]:
    """The names from `start` to where it is named again; [] if it is not."""
    ways = {start: [start]}
    queue = [start]
    for name in queue:
        for before in after.get(name, ()):
            if before == start:
                return ways[name]
            if before not in ways:
                ways[before] = [*ways[name], before]
                queue.append(before)
    return []


def shared_namespaces(environments: Sequence[Found[Environment]], problems: list[Problem], places: Places) -> set[Key]:
    """Those that are two in one namespace, and would take each other's objects for their own. Added to `problems`."""
    shared: set[Key] = set()
    first_in: dict[tuple[DataPlane, str], Found[Environment]] = {}
    for found in environments:
        spec = found.spec
        first = first_in.setdefault((spec.data_plane, spec.namespace_name), found)
        if first is not found:
            shared |= {("environments", "", first.name), ("environments", "", spec.name)}
            message = (
                f'The environment "{first.name}" ({first.placed.origin}) has the namespace '
                f"{spec.namespace_name} of the same cluster."
            )
            below: Path = ("namespace",) if spec.namespace else ("name",)
            hint = "give each environment a namespace of its own"
            problems.append(places.problem(found.site, below, "reference/shared-namespace", message, hint))
    return shared


def with_those_before(
    named: Iterable[Key], environments: Mapping[Key, Found[Environment]]
) -> dict[Key, Found[Environment]]:
    """Those of the environments that are named, all that they are promoted after, and the first of all, which is where
    builds run that do not say where. In order of promotion they follow each other as they do among all others.
    """
    first = min((key for key, found in environments.items() if not found.spec.promote_after), default=None)
    queue = [*named, *([first] if first is not None else [])]
    found: dict[Key, Found[Environment]] = {}
    for key in queue:
        if key in environments and key not in found:
            found[key] = environments[key]
            queue += [("environments", "", name) for name in environments[key].spec.promote_after]
    return found
