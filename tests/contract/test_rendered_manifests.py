"""What is rendered is accepted by an API server, and read back as it was written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import renderers
from renderers.catalog import units
from renderers.manifest import Body, Manifest
from tests.contract.client import Api
from tests.golden.harness import facts_of, load

TESTS = Path(__file__).parents[1]
SOURCES = {
    "production": [TESTS / "golden" / "cases" / "production" / "specs.yaml"],
    "canary": [TESTS / "golden" / "cases" / "canary" / "specs.yaml"],
    "examples": sorted((TESTS.parent / "examples" / "specs").rglob("*.yaml")),
}


def manifests(source: str) -> Iterator[Manifest]:
    catalog = load(SOURCES[source])
    facts = facts_of(SOURCES[source][0].parent, catalog)
    for unit in units(catalog, facts):
        yield from renderers.render(unit, facts)


def path_of(api: Api, manifest: Manifest) -> str | None:
    """Where the object is on this server; None where it does not have the kind."""
    version = manifest.id.api_version
    prefix = f"/apis/{version}" if "/" in version else f"/api/{version}"
    found = api("GET", prefix)
    plurals = (
        [r["name"] for r in found.body["resources"] if r["kind"] == manifest.id.kind] if found.status == 200 else []
    )
    if not plurals:
        return None
    within = f"/namespaces/{manifest.id.namespace}" if manifest.id.namespace else ""
    return f"{prefix}{within}/{plurals[0]}/{manifest.id.name}"


def differences(asked: Any, answered: Any, path: str = "") -> Iterator[str]:
    """Where the server's object does not say what was asked for. What it adds by itself is no difference."""
    if isinstance(asked, dict) and isinstance(answered, dict):
        for key, value in asked.items():
            yield from differences(value, answered.get(key), f"{path}.{key}")
    elif isinstance(asked, list) and isinstance(answered, list) and len(asked) == len(answered):
        for index, (one, other) in enumerate(zip(asked, answered, strict=True)):
            yield from differences(one, other, f"{path}[{index}]")
    elif asked != answered:
        yield f"{path}: {asked!r} became {answered!r}"


@pytest.fixture
def moved(namespace: str) -> Any:
    """Puts an object into the namespace of this test, so that a dry run finds one."""

    def move(body: Body) -> Body:
        return body | {"metadata": body["metadata"] | {"namespace": namespace}}

    return move


@pytest.mark.parametrize("source", SOURCES)
def test_an_api_server_accepts_every_manifest_and_writes_it_back_unchanged(
    source: str, api: Api, namespace: str, moved: Any
) -> None:
    unknown, problems = set(), []
    for manifest in manifests(source):
        path = path_of(api, manifest)
        if path is None:
            unknown.add(manifest.id.kind)
            continue
        body = moved(manifest.body) if manifest.id.namespace else manifest.body
        path = path.replace(f"/namespaces/{manifest.id.namespace}/", f"/namespaces/{namespace}/")
        answer = api.apply(path, body, query="&dryRun=All&fieldValidation=Strict")
        if answer.status not in {200, 201}:
            problems.append(f"{manifest.id}: {answer.body}")
            continue
        problems += [f"{manifest.id}{difference}" for difference in differences(body, answer.body)]

    assert problems == []
    # The embedded data plane has what it acts on. Nobody scales or scrapes on a laptop.
    assert unknown == (set() if api.plane == "real" else unknown & {"ScaledObject", "PodMonitor", "PrometheusRule"})
