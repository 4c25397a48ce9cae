"""What is true of every manifest, whatever the specs: shown on the examples and on every golden case."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import orjson
import pytest

import renderers
from renderers.catalog import Catalog, Facts, Unit, units
from renderers.manifest import Manifest, object_id
from tests.golden.harness import facts_of, load

TESTS = Path(__file__).parents[2]
SOURCES = {path.parent.name: [path] for path in (TESTS / "golden" / "cases").glob("*/specs.yaml")} | {
    "examples": sorted((TESTS.parent / "examples" / "specs").rglob("*.yaml"))
}
#: API groups that kubernetes-validate knows; the others are checked by a real API server in tests/contract.
BUILT_IN = {"", "apps", "batch", "policy", "networking.k8s.io"}
CUSTOM = {"gateway.envoyproxy.io", "gateway.networking.k8s.io", "keda.sh", "monitoring.coreos.com"}

LABEL_KEY = re.compile(r"([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?)?")


@cache
def catalog(source: str) -> Catalog:
    return load(SOURCES[source])


@cache
def facts(source: str) -> Facts:
    return facts_of(SOURCES[source][0].parent, catalog(source))


@cache
def rendered(source: str) -> list[tuple[Unit, list[Manifest]]]:
    made = []
    for unit in units(catalog(source), facts(source)):
        try:
            made.append((unit, renderers.render(unit, facts(source))))
        except renderers.Refused:
            assert source == "refused"
    return made


def manifests(source: str) -> list[Manifest]:
    return [manifest for _, made in rendered(source) for manifest in made]


def pods(source: str) -> Iterator[Any]:
    for manifest in manifests(source):
        if "template" in manifest.body.get("spec", {}):
            yield manifest.body["spec"]["template"]


@pytest.fixture(params=sorted(SOURCES))
def source(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_every_kind_that_is_rendered_is_checked_somewhere() -> None:
    groups = {manifest.id.group for source in SOURCES for manifest in manifests(source)}

    assert groups == BUILT_IN | CUSTOM


def test_built_in_kinds_have_the_fields_of_their_openapi_schema(source: str) -> None:
    version = kubernetes_validate.latest_version()
    for manifest in manifests(source):
        if manifest.id.group in BUILT_IN:
            kubernetes_validate.validate(manifest.body, version, strict=True)


def test_a_manifest_is_known_by_what_is_in_it(source: str) -> None:
    for manifest in manifests(source):
        assert manifest.id == object_id(manifest.body)
        assert orjson.loads(orjson.dumps(manifest.body)) == manifest.body


def containers_in(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        yield value
        for child in value.values() if isinstance(value, dict) else value:
            yield from containers_in(child)


def test_labels_and_annotations_are_a_manifests_own_so_that_it_can_be_marked(source: str) -> None:
    """Everything else may be shared between bodies, and is never changed."""
    uses = Counter(id(found) for manifest in manifests(source) for found in containers_in(manifest.body))

    for manifest in manifests(source):
        metadata = manifest.body["metadata"]
        for own in (metadata, metadata["labels"], metadata["annotations"]):
            assert uses[id(own)] == 1, manifest.id


def test_no_two_manifests_of_an_environment_are_one_object(source: str) -> None:
    ids = [(manifest.environment, manifest.id) for manifest in manifests(source)]

    assert len(set(ids)) == len(ids)


def test_every_object_is_in_the_namespace_of_its_environment(source: str) -> None:
    for unit, made in rendered(source):
        namespace = unit.environment.spec.namespace_name
        for manifest in made:
            assert manifest.environment == unit.environment.spec.name
            assert manifest.id.namespace == ("" if manifest.id.kind == "Namespace" else namespace)
            assert manifest.id.kind != "Namespace" or manifest.id.name == namespace


def test_what_an_object_needs_exists_and_comes_before_it(source: str) -> None:
    seen: dict[str, set[Any]] = {}
    for manifest in manifests(source):
        before = seen.setdefault(manifest.environment, set())
        assert set(manifest.needs) <= before, f"{manifest.id} needs {set(manifest.needs) - before}"
        before.add(manifest.id)


def test_everything_but_the_namespace_needs_the_namespace(source: str) -> None:
    for manifest in manifests(source):
        kinds = [need.kind for need in manifest.needs]
        assert kinds.count("Namespace") == (manifest.id.kind != "Namespace")


def test_every_object_says_whose_it_is_and_where_it_comes_from(source: str) -> None:
    for manifest in manifests(source):
        metadata = manifest.body["metadata"]
        assert metadata["labels"]["app.kubernetes.io/managed-by"] == "trueup"
        assert metadata["labels"]["trueup.dev/environment"] == manifest.environment
        kind, _, name = metadata["annotations"]["trueup.dev/spec"].partition("/")
        assert (kind, name) == (manifest.origin.kind, manifest.origin.name)


def test_labels_are_legal(source: str) -> None:
    for metadata in [m.body["metadata"] for m in manifests(source)] + [pod["metadata"] for pod in pods(source)]:
        for key, value in metadata["labels"].items():
            assert LABEL_KEY.fullmatch(key)
            assert LABEL_VALUE.fullmatch(value)


def test_pods_satisfy_the_restricted_profile(source: str) -> None:
    for pod in pods(source):
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        kinds = {next(iter(volume.keys() - {"name"})) for volume in spec["volumes"]}
        assert kinds <= {"configMap", "emptyDir", "secret"}
        for container in [*spec.get("initContainers", ()), *spec["containers"]]:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["readOnlyRootFilesystem"] is True
            assert security["capabilities"] == {"drop": ["ALL"]}


def test_pods_get_no_token_and_no_addresses_of_neighbours(source: str) -> None:
    for pod in pods(source):
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert pod["spec"]["enableServiceLinks"] is False


def test_every_container_asks_for_what_the_quota_counts(source: str) -> None:
    for pod in pods(source):
        for container in [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]:
            resources = container["resources"]
            assert {"cpu", "memory"} <= resources["requests"].keys()
            assert resources["limits"]["memory"] == resources["requests"]["memory"]


def test_every_volume_that_is_mounted_exists_and_every_one_that_exists_is_mounted(source: str) -> None:
    for pod in pods(source):
        spec = pod["spec"]
        containers = [*spec.get("initContainers", ()), *spec["containers"]]
        mounted = {mount["name"] for container in containers for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in spec["volumes"]}


def test_rendering_does_not_depend_on_the_other_units(source: str) -> None:
    for unit, made in reversed(rendered(source)):
        assert renderers.render(unit, facts(source)) == made
