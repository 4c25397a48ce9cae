"""Spec files as they are read by every command, beside files that are fine: an answer for any bytes."""

from __future__ import annotations

import re

from reconciler import desired, queries
from reconciler.specs import Loaded, parse
from reconciler.warehouse import statement  # noqa: F401 - imported late by what asks it, and to be guided by as well
from renderers.catalog import Facts
from schemas.problem import Problem
from tests.fuzz.targets.target import ROOT, Target

#: What is there besides: names that can be meant, and a model that a broken neighbour must not disturb.
NEIGHBOUR = b"""
api_version: v1
spec:
  environments: [{name: staging}, {name: production, promote_after: staging, approval: manual}]
  audiences: [{name: adults, conditions: {unary: [{key: age, operator: GREATER_THAN, operand: "17"}]}}]
  builds: [{name: a-1, model: a, git_uri: "https://git.example.com/models.git#a"}]
  variations: [{model: a, name: default, environments: [staging, production], build: a-1}]
"""


def check(data: bytes) -> None:
    answered({"a.yaml": data, "b.yaml": NEIGHBOUR})


def answered(files: dict[str, bytes]) -> Loaded:
    """Reads, checks and renders the files, and looks at everything that is said."""
    loaded = parse(files, queries.check)
    assert list(loaded.problems) == sorted(set(loaded.problems))
    lines = {name: re.split("\r\n|\r|\n", content.decode(errors="replace")) for name, content in files.items()}
    for problem in loaded.problems:
        _is_told(problem, lines)
    for kind in ("environments", "builds", "variations", "audiences", "automations"):
        for placed in getattr(loaded.catalog, kind).values():
            assert placed.origin.file in files
            assert 1 <= placed.origin.line <= len(lines[placed.origin.file])
    namespaces = {name: placed.spec.namespace_name for name, placed in loaded.catalog.environments.items()}
    for rendered in desired.build(loaded.catalog, Facts()):
        if rendered.problem:
            _is_told(rendered.problem, lines)
        for manifest in rendered.manifests:
            own = namespaces[rendered.environment]
            assert manifest.environment == rendered.environment
            # T61: nothing that anybody writes puts an object into the namespace of somebody else.
            if manifest.id.kind == "Namespace":
                assert manifest.id.name == own, manifest.id
            else:
                assert manifest.id.namespace == manifest.body["metadata"]["namespace"] == own, manifest.id
    return loaded


def _is_told(problem: Problem, lines: dict[str, list[str]]) -> None:
    assert problem.file in lines, problem
    assert 1 <= problem.line <= len(lines[problem.file]) + 1, problem
    assert problem.column >= 1, problem
    assert re.fullmatch(r"[a-z0-9-]+/[a-z0-9-]+", problem.rule), problem
    assert problem.rule != "schema/invalid", "a keyword of the schema has no words"
    assert problem.message.endswith("."), problem
    assert str(problem).isprintable(), problem
    assert len(str(problem)) < 20_000, problem


TARGET = Target(
    check,
    words=[
        *(
            "api_version: v1",
            "spec:",
            "environments:",
            "builds:",
            "variations:",
            "audiences:",
            "automations:",
            "name: ",
        ),
        *(
            "model: ",
            "\n    - ",
            "\n      ",
            "a",
            "a-1",
            "staging",
            "production",
            "adults",
            "default",
            "manual",
            "null",
        ),
        *("traffic:", "weight: ", "audience: ", "shadow: ", "rollout:", "canary:", "steps:", "checks:", "trigger:"),
        *(
            "sql_query: ",
            "threshold: ",
            "select ",
            "conditions:",
            "unary:",
            "binary:",
            "promote_after: ",
            "namespace: ",
        ),
        *("environment_overrides:", "deployment:", "env_vars:", "secret.", "{", "}", "[", "]", ", ", ": ", '"', "'"),
    ],
    seeds=[NEIGHBOUR, *(path.read_bytes() for path in sorted(ROOT.glob("examples/specs/*/*.yaml")))],
    max_bytes=8192,
)
