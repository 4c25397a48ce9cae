"""Specs to text and back: what the golden tests are made of."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

import renderers
from renderers.catalog import (
    Catalog,
    Facts,
    Placed,
    Recorded,
    Stood,
    Unit,
    automation_environment,
    promotion_order,
)
from renderers.identity import build_id
from renderers.manifest import Body, Origin
from schemas.build import Build, BuildSpecification
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


def facts_of(folder: Path, catalog: Catalog, *, records: str = "records.yaml") -> Facts:
    """What is known beside the specs of a folder; nothing, where it has no such files.

    `facts.yaml` holds the newest commits: `{repository: {branch: commit}}`. `records.yaml` holds what was built and
    promoted: `builds: {any-name: {automation, at, commit}}`, and with these names
    `runs: {environment: {model: [name]}}` and `stands: {environment: {model: {variation: [[name, percent], ...]}}}`.
    """
    commits = _yaml(folder / "facts.yaml")
    held = _yaml(folder / records)
    runs = {name: _recorded(catalog, **fields) for name, fields in held.get("builds", {}).items()}
    return Facts(
        {(repository, branch): c for repository, found in commits.items() for branch, c in found.items()},
        {
            (place, model): tuple(runs[name] for name in names)
            for place, models in held.get("runs", {}).items()
            for model, names in models.items()
        },
        {
            (place, model, variation): tuple(Stood(runs[name], percent) for name, percent in stood)
            for place, models in held.get("stands", {}).items()
            for model, variations in models.items()
            for variation, stood in variations.items()
        },
    )


def _yaml(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}


def _recorded(catalog: Catalog, automation: str, at: str, commit: str) -> Recorded:
    """A run of an automation, as its record has it."""
    placed = catalog.automations[automation]
    spec = placed.spec.build_spec
    assert spec is not None
    fields = {name: getattr(spec, name) for name in BuildSpecification.model_fields}
    build = Build.model_construct(name=automation, model=placed.spec.model, git_commit=commit, **fields)
    identity = build_id(build, build.model, commit, run=f"{automation}@{at}")
    home = automation_environment(catalog, placed.spec, promotion_order(catalog))
    return Recorded(Placed(build, placed.origin), identity, catalog.environments[home].spec)


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
