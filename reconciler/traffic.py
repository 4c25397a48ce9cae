"""Whose requests go where, before and after a route changes. Pure.

A canary's step, the end of one and the way back move requests between the builds of one variation. Who gets which
variation stays as it is, so that no guard of the plan has anything to say, and a rollback waits for nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

import orjson

from renderers.manifest import Body
from renderers.names import BUILD_ID, NAME, VARIATION


class Backend(NamedTuple):
    """What stands behind a Service."""

    model: str
    variation: str
    build: str  #: 8 hex digits


#: By the Service's name. Ours carry labels; whatever else a route names is taken for what it is called.
Backends: TypeAlias = Mapping[str, Backend]


def backends(services: Iterable[Body]) -> dict[str, Backend]:
    """What stands behind each of the Services, by their labels; the last one of a name counts."""
    found: dict[str, Backend] = {}
    for body in services:
        labels = body["metadata"].get("labels", {})
        if NAME in labels and VARIATION in labels and BUILD_ID in labels:
            found[body["metadata"]["name"]] = Backend(labels[NAME], labels[VARIATION], labels[BUILD_ID])
    return found


def between_builds(old: Body, new: Body, known: Backends) -> tuple[str, ...] | None:
    """How requests move from one version of an HTTPRoute to the next, if only between builds of the same variations.

    One text for each variation: "default: build 90c7c616 95 % -> 75 %, build 2a4b2e5e 5 % -> 25 %". None where
    anything else in the spec differs, or nothing does.
    """
    if old.get("spec") == new.get("spec") or _by_variation(old, known) != _by_variation(new, known):
        return None
    return (*_shares_moved(old, new, known), *_copies_moved(old, new, known))


def _by_variation(route: Body, known: Backends) -> dict[str, Any]:
    """The spec of a route, with variations where it names builds, each with the sum of its builds' weights."""
    return {**route.get("spec", {}), "rules": [_rule_by_variation(rule, known) for rule in _rules(route)]}


def _rule_by_variation(rule: dict[str, Any], known: Backends) -> dict[str, Any]:
    sums: dict[Any, int] = {}
    for backend in rule.get("backendRefs", ()):
        key = _anonymous(backend, known)
        sums[key] = sums.get(key, 0) + backend.get("weight", 1)
    filters = [
        (_anonymous(mirror["backendRef"], known), {k: v for k, v in mirror.items() if k != "backendRef"})
        if (mirror := one.get("requestMirror"))
        else one
        for one in rule.get("filters", ())
    ]
    return {**rule, "backendRefs": {key: weight for key, weight in sums.items() if weight}, "filters": filters}


def _anonymous(backend: dict[str, Any], known: Backends) -> tuple[str, str, bytes]:
    """A backend without its weight, and without saying which of its variation's builds it is."""
    model, variation, _ = known.get(backend["name"], Backend("", backend["name"], ""))
    rest = {key: value for key, value in backend.items() if key not in ("name", "weight")}
    return model, variation, orjson.dumps(rest, option=orjson.OPT_SORT_KEYS)


def _rules(route: Body) -> list[dict[str, Any]]:
    return route.get("spec", {}).get("rules") or []


def _shares_moved(old: Body, new: Body, known: Backends) -> Iterator[str]:
    before, after = _shares(old, known), _shares(new, known)
    for variation in sorted(before.keys() | after.keys()):
        was, will = before.get(variation, {}), after.get(variation, {})
        moved = [
            f"build {build} {was.get(build, 'none')} -> {will.get(build, 'none')}"
            for build in dict.fromkeys((*was, *will))
            if was.get(build) != will.get(build)
        ]
        if moved:
            yield f"{variation}: {', '.join(moved)}"


def _shares(route: Body, known: Backends) -> dict[str, dict[str, str]]:
    """Variation -> build -> percent of the variation's requests: by the rule that gives it most, so the exact one."""
    most: dict[str, dict[str, int]] = {}
    for rule in _rules(route):
        here: dict[str, dict[str, int]] = {}
        for backend in rule.get("backendRefs", ()):
            if (behind := known.get(backend["name"])) is not None:
                here.setdefault(behind.variation, {})[behind.build] = backend.get("weight", 1)
        for variation, weights in here.items():
            if sum(weights.values()) > sum(most.get(variation, {}).values()):
                most[variation] = weights
    return {
        variation: {build: f"{100 * weight / sum(weights.values()):.3g} %" for build, weight in weights.items()}
        for variation, weights in most.items()
    }


def _copies_moved(old: Body, new: Body, known: Backends) -> Iterator[str]:
    before, after = _copies(old, known), _copies(new, known)
    for variation in sorted(before.keys() & after.keys()):
        if before[variation] != after[variation]:
            yield f"{variation}: copies to build {before[variation]} -> build {after[variation]}"


def _copies(route: Body, known: Backends) -> dict[str, str]:
    """Variation -> the build that gets copies of requests."""
    found: dict[str, str] = {}
    for rule in _rules(route):
        for one in rule.get("filters", ()):
            name = one.get("requestMirror", {}).get("backendRef", {}).get("name", "")
            if (behind := known.get(name)) is not None:
                found[behind.variation] = behind.build
    return found
