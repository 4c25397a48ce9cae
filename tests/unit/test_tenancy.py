"""Nobody's spec reaches into what is somebody else's: another environment's namespace (T61), another folder (T02)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from reconciler import desired
from reconciler.specs import Loaded, parse
from renderers.catalog import Facts
from renderers.manifest import Manifest

VICTIM = "{name: production, namespace: payments}"
Spec = dict[str, Any]


def loaded(*specs: tuple[str, Spec], environments: str = f"[{VICTIM}]") -> Loaded:
    text = f"api_version: v1\nspec: {{environments: {environments}}}\n"
    files = {"a-victim.yaml": text.encode()}
    for number, (kind, spec) in enumerate(specs):
        document = {"api_version": "v1", "spec": {kind: [spec]}}
        files[f"intruder-{number}.yaml"] = json.dumps(document).encode()
    return parse(files)


def rules(of: Loaded) -> set[str]:
    return {problem.rule for problem in of.problems if problem.file.startswith("intruder")}


def manifests(of: Loaded) -> list[Manifest]:
    return [manifest for unit in desired.build(of.catalog, Facts()) for manifest in unit.manifests]


# -- another environment's namespace (T61) -----------------------------------------------------------------------------


def test_two_environments_of_a_cluster_never_share_a_namespace_and_neither_is_preferred() -> None:
    both = loaded(("environments", {"name": "intruder", "namespace": "payments"}))
    assert rules(both) == {"reference/shared-namespace"}
    assert not both.catalog.environments


def test_the_name_of_an_environment_is_a_namespace_too() -> None:
    assert rules(loaded(("environments", {"name": "payments"}))) == {"reference/shared-namespace"}


@pytest.mark.parametrize(
    "namespace",
    [
        *("Payments", "PAYMENTS", "payments ", " payments", "payments\n", "payments.", "payments/", "./payments"),
        *(
            "x/../payments",
            "p\u0430yments",
            "\uff50\uff41yments",
            "payments\u200b",
            "payments\u0000",
            "pay\u00adments",
            "payments,x",
        ),
        *("*", "", "-", "payments-", "$(NAMESPACE)", "{{namespace}}", "{model}", "p" * 64, None, 5, ["payments"]),
    ],
)
@pytest.mark.parametrize("key", ["namespace", "name"])
def test_a_namespace_has_one_spelling(namespace: Any, key: str) -> None:
    found = loaded(("environments", {"name": "intruder"} | {key: namespace}))
    assert rules(found) & {"schema/form", "schema/type", "schema/size", "yaml/control-character"}
    assert "production" in found.catalog.environments
    assert len(found.catalog.environments) == 1


@pytest.mark.parametrize(
    "namespace", ["default", "kube-system", "kube-public", "kube-node-lease", "kube-x", "trueup-system"]
)
@pytest.mark.parametrize("key", ["namespace", "name"])
def test_namespaces_of_the_cluster_and_of_the_reconciler_are_nobodys(namespace: str, key: str) -> None:
    found = loaded(("environments", {"name": "intruder"} | {key: namespace}))
    assert rules(found) == {"environment/reserved-namespace"}
    assert list(found.catalog.environments) == ["production"]


BUILD: Spec = {"name": "b", "model": "m", "git_uri": "https://git.example.com/models.git#m"}
VARIATION: Spec = {"model": "m", "environments": ["mine"], "build": "b"}


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("builds", BUILD | {"namespace": "payments"}),
        ("variations", VARIATION | {"namespace": "payments"}),
        ("variations", VARIATION | {"deployment": {"namespace": "payments"}}),
        ("variations", VARIATION | {"environment_overrides": {"mine": {"namespace": "payments"}}}),
        ("variations", VARIATION | {"environment_overrides": {"mine": {"deployment": {"namespace": "payments"}}}}),
        ("environments", {"name": "intruder", "defaults": {"namespace": "payments"}}),
        ("environments", {"name": "intruder", "metadata": {"namespace": "payments"}}),
    ],
    ids=lambda value: str(value)[-60:],
)
def test_no_other_spec_and_no_override_names_a_namespace(kind: str, spec: Spec) -> None:
    assert rules(loaded((kind, spec), environments=f"[{VICTIM}, {{name: mine}}]")) >= {"schema/unknown-field"}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"gateway": {"namespace": "payments", "name": "theirs"}},
        {"gateway": {"namespace": "payments", "controller": "embedded"}},
        {"gateway": {"namespace": "kube-system", "controller": "envoy-gateway", "sticky_header": "user"}},
    ],
    ids=["alone", "their gateway", "ours in their namespace", "the cluster's namespace"],
)
def test_whatever_an_environment_refers_to_its_objects_are_in_its_own_namespace(more: Spec) -> None:
    both = loaded(
        ("environments", {"name": "mine", **more}),
        ("builds", BUILD),
        ("variations", VARIATION),
    )
    assert rules(both) == set()
    mine = [manifest for manifest in manifests(both) if manifest.environment == "mine"]
    assert len(mine) > 8
    for manifest in mine:
        if manifest.id.kind == "Namespace":
            assert manifest.id.name == "mine"
        else:
            assert manifest.id.namespace == manifest.body["metadata"]["namespace"] == "mine"


# -- paths (T02) ----------------------------------------------------------------------------------------------------

AUTOMATION: Spec = {"name": "a", "model": "m", "environment": "production", "trigger": "manual"}


def batch(**data: str) -> tuple[str, Spec]:
    whole = {"source_bucket": "abc", "destination_bucket": "abc"} | data
    return "automations", AUTOMATION | {"batch_execution": {"data_specifications": whole}}


#: Each field that is, or ends in, a path: what a spec with this path in it looks like.
FIELDS = {
    "main_dir": lambda path: ("builds", BUILD | {"main_dir": path}),
    "dependency_file_path": lambda path: ("builds", BUILD | {"dependency_file_path": path}),
    "dependency_required_folders": lambda path: ("builds", BUILD | {"dependency_required_folders": [path]}),
    "git_uri, the folder": lambda path: ("builds", BUILD | {"git_uri": f"https://git.example.com/m.git#{path}"}),
    "git_uri, the address": lambda path: ("builds", BUILD | {"git_uri": f"https://git.example.com/{path}"}),
    "git_uri, a file": lambda path: ("builds", BUILD | {"git_uri": f"file:///{path}"}),
    "git_branch": lambda path: ("builds", BUILD | {"git_branch": path}),
    "trigger.git.paths": lambda path: (
        "automations",
        AUTOMATION | {"trigger": {"git": {"paths": [path]}}, "build_spec": {"git_uri": BUILD["git_uri"]}},
    ),
    "object_storage, s3": lambda path: ("environments", {"name": "e", "object_storage": f"s3://abc/{path}"}),
    "object_storage, file": lambda path: ("environments", {"name": "e", "object_storage": f"file:///{path}"}),
    "source_bucket": lambda path: batch(source_bucket=path),
    "destination_bucket": lambda path: batch(destination_bucket=path),
}
HOSTILE = ("../x", "..", "a/..", "a/../../x", "./../x", "a\0b", "a\nb", "a\rb", "a/\x1b[2J", "\u202ea", "a" * 4097)


@pytest.mark.parametrize("path", HOSTILE, ids=ascii)
@pytest.mark.parametrize("field", FIELDS)
def test_no_path_of_a_spec_leads_elsewhere(field: str, path: str) -> None:
    found = loaded(FIELDS[field](path))
    errors = [problem for problem in found.problems if problem.severity == "error"]
    assert [problem for problem in errors if not problem.rule.startswith("reference/")]
    assert all(str(problem).isprintable() for problem in errors)


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "..\\x", "a\\b", "~/x", "-x", "--upload-pack=x", "%2e%2e/x", "\u2024\u2024/x"]
)
@pytest.mark.parametrize("field", ["main_dir", "dependency_file_path", "dependency_required_folders", "git_branch"])
def test_a_path_in_the_repository_is_relative_and_plain(field: str, path: str) -> None:
    assert "schema/form" in rules(loaded(FIELDS[field](path)))


@pytest.mark.parametrize("path", [".git/config", "a/.git/hooks", "/etc", "a//b"])
def test_the_folder_of_a_model_is_not_gits_own(path: str) -> None:
    assert "build/git-uri" in rules(loaded(FIELDS["git_uri, the folder"](path)))
