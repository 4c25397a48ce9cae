"""Makes the JSON Schema files from the types: `python -m schemas.generate [--check]`."""

from __future__ import annotations

import ast
import inspect
import json
import sys
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from schemas import audience, automation, autoscaling, build, document, environment, policy, resources, variation
from schemas.base import SpecModel
from schemas.document import KINDS, Document

#: Where the types are.
MODULES = (resources, autoscaling, audience, environment, build, variation, automation, document, policy)
FOLDER = Path(__file__).parent
DIALECT = "https://json-schema.org/draft/2020-12/schema"
#: Names the schema; nothing is ever fetched from there.
BASE = "https://trueup.dev/schemas/v1"


class SpecJsonSchema(GenerateJsonSchema):
    """Draft 2020-12, for people: no titles that repeat the key, and no `null`.

    An optional key is one that may be left out. `key: null` is a mistake (mostly a value that is missing), and
    the types' None is not part of the language.
    """

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        described = super().model_schema(schema)
        properties = described.get("properties")
        if properties:
            # The order in which people write keys: explained, completed and formatted in it.
            first = [key for key in getattr(schema["cls"], "KEYS_FIRST", ()) if key in properties]
            described["properties"] = {key: properties[key] for key in (*first, *properties)}
        return described

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 (pydantic names it)
        return False

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        described = super().default_schema(schema)
        if "default" in described and described["default"] in (None, {}, []):
            described.pop("default")
        return described


@cache
def _describe() -> None:
    """Gives each field the docstring below it as its description.

    pydantic can do that itself, by reading the source of every class at every import; only this program needs it.
    """
    for module in MODULES:
        tree = ast.parse(inspect.getsource(module))
        for node in (node for node in tree.body if isinstance(node, ast.ClassDef)):
            model = getattr(module, node.name)
            if not issubclass(model, SpecModel):
                continue
            for statement, following in pairwise(node.body):
                if isinstance(statement, ast.AnnAssign) and isinstance(following, ast.Expr):
                    assert isinstance(statement.target, ast.Name)
                    field = model.model_fields[statement.target.id]
                    said = inspect.cleandoc(ast.literal_eval(following.value))
                    # Of the field, and then of its type: "Where it is served. A DNS label (RFC 1123)."
                    field.description = f"{said} {field.description}" if field.description else said
    for base, derived in _descent(SpecModel):
        for name, field in base.model_fields.items():
            derived.model_fields[name].description = derived.model_fields[name].description or field.description


def _descent(model: type[BaseModel]) -> Iterator[tuple[type[BaseModel], type[BaseModel]]]:
    """Each pair of a model and one that is derived from it, from the top down."""
    for derived in model.__subclasses__():
        yield model, derived
        yield from _descent(derived)


def json_schema(model: type[BaseModel], name: str) -> dict[str, Any]:
    """The JSON Schema of one type, with `$schema` and `$id` first."""
    generated = model.model_json_schema(schema_generator=SpecJsonSchema, mode="validation")
    _tidy(generated)
    return {"$schema": DIALECT, "$id": f"{BASE}/{name}.schema.json", **generated}


def _tidy(node: Any) -> None:
    """Drops the class names that pydantic puts in as titles, and folds docstrings to one paragraph."""
    if isinstance(node, dict):
        if isinstance(node.get("title"), str):
            node.pop("title")
        if isinstance(node.get("description"), str):
            node["description"] = " ".join(node["description"].split())
        for child in node.values():
            _tidy(child)
    elif isinstance(node, list):
        for child in node:
            _tidy(child)


def files() -> dict[str, str]:
    """File name -> text of every schema: the whole document's, one per kind, and that of a file of policies."""
    _describe()
    schemas = {"document": json_schema(Document, "document")}
    schemas |= {word: json_schema(model, word) for word, model in KINDS.values()}
    schemas["policy"] = json_schema(policy.Policies, "policy")
    return {f"{name}.schema.json": json.dumps(schema, indent=2) + "\n" for name, schema in schemas.items()}


def main() -> int:
    """Writes the files; with `--check`, only says which are stale."""
    stale = [name for name, text in files().items() if not _has(name, text)]
    if "--check" in sys.argv[1:]:
        for name in stale:
            sys.stderr.write(f"schemas/{name} is stale: run `python -m schemas.generate`\n")
        return 1 if stale else 0
    for name, text in files().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    return 0


def _has(name: str, text: str) -> bool:
    path = FOLDER / name
    return path.exists() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    sys.exit(main())
