"""Specs to text and back: what the golden tests are made of."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

import renderers
from renderers.catalog import Catalog, Facts, Placed, Unit
from renderers.manifest import Body, Origin
from schemas.document import KINDS, Document
from schemas.reader import read


def load(files: list[Path]) -> Catalog:
    """The catalog of some spec files, which must be valid. Origins name the files relative to their folder."""
    catalog: dict[str, dict[Any, Placed[Any]]] = {field.name: {} for field in fields(Catalog)}
    for path in files:
        reading = read(path.name, path.read_bytes())
        assert not reading.problems, reading.problems
        for document in reading.documents:
            specs = Document.model_validate(document.value).spec
            for kind, (word, _) in KINDS.items():
                for index, spec in enumerate(getattr(specs, kind)):
                    line = document.mark(("spec", kind, index)).line
                    key = (spec.model, spec.name) if kind == "variations" else spec.name
                    catalog[kind][key] = Placed(spec, Origin(path.name, line, word, spec.name))
    return Catalog(**catalog)


def rendered(unit: Unit, facts: Facts) -> str:
    """A unit as text: its notes as comments, then its manifests, each with where it comes from and what it needs."""
    try:
        manifests, notes = renderers.render(unit, facts), renderers.notes(unit, facts)
    except renderers.Refused as refused:
        return f"# refused: {refused.origin}: {refused.rule}: {refused.message}\n#   {refused.hint}\n"
    parts = ["".join(f"# note: {note.origin}: {note.text}\n" for note in notes)]
    for manifest in manifests:
        needs = "".join(f"# needs {need}\n" for need in manifest.needs)
        parts.append(f"---\n# {manifest.origin}\n{needs}{dump(manifest.body)}")
    return "".join(parts)


class _Quoting(yaml.SafeDumper):
    """Quotes every text value, so that a number in quotes is seen to be one; never writes an anchor."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> yaml.MappingNode:
        node = super().represent_mapping(tag, mapping, flow_style)
        for key, _ in node.value:
            key.style = None
        return node


def _quoted(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else '"')


_Quoting.add_representer(str, _quoted)


def dump(body: Body) -> str:
    """A manifest as YAML, its keys in the order in which they were made."""
    return yaml.dump(body, Dumper=_Quoting, sort_keys=False, width=200, allow_unicode=True)
