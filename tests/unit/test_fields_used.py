"""Every field of the language does something: one that is read, validated and forgotten is a promise that is broken.

By name alone: a field counts as used where any code that decides or renders reads an attribute of its name.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from reconciler.specs import parse
from schemas.build import NO_EFFECT, BuildSpecification
from schemas.document import KINDS

ROOT = Path(__file__).parents[2]
#: These read fields only to show them, or to write them into other files.
ONLY_SHOWN = ("reconciler/authors", "reconciler/effects", "reconciler/importing", "reconciler/specs/references.py")
#: Fields that nothing reads by their name, and why they do something all the same.
OTHERWISE = {"Trigger.manual": "it is what is left where none of the others is given"}


def model_types(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        for field in annotation.model_fields.values():
            yield from model_types(field.annotation)
    for argument in get_args(annotation):
        yield from model_types(argument)


def language() -> dict[str, str]:
    """ "TYPE.FIELD" -> its name, of every kind."""
    models = {model for _, kind in KINDS.values() for model in model_types(kind)}
    return {f"{model.__name__}.{name}": name for model in models for name in model.model_fields}


def read_in(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            yield node.attr
        elif isinstance(node, ast.MatchClass):
            yield from node.kwd_attrs


def is_validator(node: ast.FunctionDef) -> bool:
    return any("validator" in ast.unparse(decorator) for decorator in node.decorator_list)


def used() -> set[str]:
    """What is read by the code that decides, renders and runs; in the types themselves, by all but their validators."""
    files = [path for part in ("reconciler", "renderers", "runtime") for path in (ROOT / part).rglob("*.py")]
    files = [path for path in files if not path.relative_to(ROOT).as_posix().startswith(ONLY_SHOWN)]
    found = {name for path in files for name in read_in(ast.parse(path.read_text(encoding="utf-8")))}
    for path in (ROOT / "schemas").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and not is_validator(node):
                found.update(read_in(node))
    return found


def test_every_field_is_used_or_its_having_no_effect_is_told() -> None:
    names = used()
    unused = {field: name for field, name in language().items() if name not in names}

    assert {field for field, name in unused.items() if name not in NO_EFFECT} == set(OTHERWISE)
    assert NO_EFFECT.keys() <= set(unused.values()), "what does something by now is told to do nothing"


@pytest.mark.parametrize("name", sorted(NO_EFFECT))
@pytest.mark.parametrize("kind", ["builds", "automations"])
def test_who_gives_a_field_without_effect_is_warned(name: str, kind: str) -> None:
    value = {"push_image": "false", "provision_instance_timeout": "30"}[name]
    build = f"git_uri: 'https://example.com/a', {name}: {value}"
    spec = f"{{name: b, model: m, {build}}}"
    if kind == "automations":
        spec = f"{{name: b, model: m, trigger: manual, build_spec: {{{build}}}}}"
    text = f"api_version: v1\nspec:\n  environments: [{{name: dev}}]\n  {kind}:\n    - {spec}\n"
    loaded = parse({"a.yaml": text.encode()})
    (problem,) = loaded.problems
    because, hint = NO_EFFECT[name]
    assert (problem.rule, problem.severity) == ("schema/no-effect", "warning")
    assert (problem.message, problem.hint) == (f"{name} has no effect here, because {because}.", hint)
    assert (problem.line, text.splitlines()[4][problem.column - 1 :].startswith(value)) == (5, True)
    assert "b" in getattr(loaded.catalog, kind)


def test_the_documentation_of_such_a_field_says_so_first() -> None:
    lines = (ROOT / "schemas" / "build.py").read_text(encoding="utf-8").splitlines()
    for name in NO_EFFECT:
        assert name in BuildSpecification.model_fields
        declared = next(number for number, line in enumerate(lines) if line.startswith(f"    {name}:"))
        assert lines[declared + 1].startswith('    """No effect')
