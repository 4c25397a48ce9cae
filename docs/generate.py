"""Makes the pages of the reference from the program: `python -m docs.generate [--check]`.

The fields come from the JSON Schema, the commands from the command line, the report's shape from its schema, the rules
and the metrics from the code. What is written here is only how they are laid out.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import typer
import yaml
from prometheus_client.metrics import MetricWrapperBase

from reconciler.authors import fields
from reconciler.authors.fields import Field
from reconciler.cli import app
from reconciler.report import machine, rules
from reconciler.telling.metrics import Metrics
from reconciler.warehouse import tables

FOLDER = Path(__file__).parent / "reference"
ALERTS = Path(__file__).parents[1] / "charts" / "trueup" / "files" / "alerts.yaml"
MARK = "<!-- Made by `python -m docs.generate`. What it says comes from the program: change it there. -->"


def pages() -> dict[str, str]:
    """Path below `reference/` -> text."""
    made = {f"language/{kind}.md": language(kind, field) for kind, field in fields.kinds().items()}
    made |= {
        "commands.md": commands(),
        "problems.md": problems(),
        "report.md": report(),
        "metrics.md": chain(metrics(), alerts()),
        "analytics.md": analytics(),
    }
    return {name: "\n".join([MARK, "", *lines]).rstrip() + "\n" for name, lines in made.items()}


def stale() -> dict[str, str]:
    """The pages that are not as they should be."""
    return {name: text for name, text in pages().items() if not _has(name, text)}


def main() -> int:
    """Writes the pages; with `--check`, only says which are stale."""
    found = stale()
    if "--check" in sys.argv[1:]:
        for name in found:
            sys.stderr.write(f"docs/reference/{name} is stale: run `python -m docs.generate`\n")
        return 1 if found else 0
    for name, text in found.items():
        path = FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


def _has(name: str, text: str) -> bool:
    path = FOLDER / name
    return path.exists() and path.read_text(encoding="utf-8") == text


# -- the language ---------------------------------------------------------------------------------------------------


def language(kind: str, root: Field) -> Iterator[str]:
    """One kind of spec: a section for each mapping in it, a paragraph for each field."""
    yield f"# {kind}"
    yield ""
    yield from _paragraph(root.description)
    yield f"Written as an item of the list `spec.{kind}s`. The same in a terminal: `reconcile explain {kind}`."
    yield ""
    told: dict[tuple[str, ...], str] = {}
    yield from _section(root, told)


def _section(holder: Field, told: dict[tuple[str, ...], str]) -> Iterator[str]:
    """The fields of one mapping, and then the sections of those that are mappings themselves.

    Two places that take the same mapping are told once: the second one leads to the first.
    """
    path = ".".join(holder.path)
    told[_shape(holder)] = path
    below: list[Field] = []
    for field in holder.fields:
        more = ""
        if field.fields:
            beside = {_shape(other): ".".join(other.path) for other in below}
            same = told.get(_shape(field)) or beside.get(_shape(field))
            if same is None:
                below.append(field)
                same = ".".join(field.path)
            more = f" Its fields: [`{same}`](#{_anchor(same)})."
        yield from _entry(field, more)
    for field in below:
        if _shape(field) in told:
            continue
        yield f"## {'.'.join(field.path)}"
        yield ""
        yield from _paragraph(field.description)
        yield from _section(field, told)


def _shape(field: Field) -> tuple[str, ...]:
    return tuple(child.name for child in field.fields)


def _entry(field: Field, more: str) -> Iterator[str]:
    marks = [field.type]
    if field.unit:
        marks[0] += f", in {field.unit}"
    marks += ["**required**"] * field.required + ["another spelling"] * field.deprecated
    if field.has_default:
        marks.append(f"default {_code(field.default)}")
    yield f"`{field.name}`"
    yield f": {'; '.join(marks)}"
    yield ""
    said = [_text(field.description) + more] if field.description or more else []
    said += [f"Limits: {_limits(field.limits)}."] if field.limits else []
    said += [f"Example: {' or '.join(map(_code, field.examples))}"] if field.examples else []
    for paragraph in said:
        yield f"  {paragraph.strip()}"
        yield ""


def _limits(limits: Sequence[str]) -> str:
    """Regular expressions as code, because Markdown would read them."""
    return "; ".join(
        f"{words} form {_code(pattern)}" if pattern else _text(words)
        for words, _, pattern in (limit.partition(" form ") for limit in limits)
    )


# -- the command line -----------------------------------------------------------------------------------------------


def commands() -> Iterator[str]:
    """Every command, with its options, examples and exit codes."""
    top = typer.main.get_command(app)
    yield "# Commands"
    yield ""
    yield from _command(top, ("reconcile",), hidden=())
    shared = tuple(param.name or "" for param in top.params if param.name == "help")
    for path, command in _commands(top, ("reconcile",)):
        yield f"## {' '.join(path)}"
        yield ""
        yield from _command(command, path, hidden=shared)


def _commands(group: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if getattr(command, "commands", None):
            yield from _commands(command, (*path, name))
        else:
            yield (*path, name), command


def _command(command: Any, path: tuple[str, ...], *, hidden: Sequence[str]) -> Iterator[str]:
    context = command.make_context(" ".join(path), ["--help"], resilient_parsing=True)
    yield from _paragraphs(command.help or "")
    yield "```text"
    yield " ".join([" ".join(path), *command.collect_usage_pieces(context)])
    yield "```"
    yield ""
    for param in command.params:
        record = param.get_help_record(context)
        if record is None or param.name in ("help", *hidden):
            continue
        names, said = record
        yield f"`{names}`"
        # As `--help` has it: "Between two polls.  [default: 60.0; x>=1.0]".
        said, _, extra = said.partition("  [")
        yield f": {_text(said)}{' ' + _text(extra.rstrip(']')).capitalize() + '.' if extra else ''}"
        yield ""
    examples, _, codes = (command.epilog or "").replace("\b", "").partition("Exit codes:")
    lines = [line[2:] for line in examples.splitlines() if line.startswith("  ")]
    if lines:
        yield "```text"
        yield from lines
        yield "```"
        yield ""
    if codes:
        yield f"Exit codes: {_text(' '.join(codes.split()))}"
        yield ""


# -- problems -------------------------------------------------------------------------------------------------------


def problems() -> Iterator[str]:
    """All rules, by family, and what each means."""
    yield "# Problems"
    yield ""
    yield "Each problem has a rule: its id stays the same, whatever the sentence says. It is in brackets below a"
    yield "problem on a terminal, `rule` in JSON, `ruleId` in SARIF. Rules of your own are called `policy/NAME`."
    yield ""
    for family, about in rules.FAMILIES.items():
        yield f"## {family}"
        yield ""
        yield from _paragraph(about)
        for rule in rules.RULES:
            if rule.partition("/")[0] == family and rule not in rules.LIMITS:
                yield from _rule(rule)
    yield "## Limits"
    yield ""
    yield "What a plan may not do without a person, or not at all: `rule` of the report's guards."
    yield ""
    for rule in rules.LIMITS:
        yield from _rule(rule)


def _rule(rule: str) -> Iterator[str]:
    yield f"`{rule}`"
    yield f": {_text(rules.RULES[rule])}"
    yield ""


# -- the report -----------------------------------------------------------------------------------------------------


def report() -> Iterator[str]:
    """What `-o json` prints."""
    schema = json.loads(machine.SCHEMA_FILE.read_text(encoding="utf-8"))
    yield "# The report"
    yield ""
    yield "What `reconcile -o json` and `-o yaml` print. `reconcile schema plan` prints its JSON Schema, which has the"
    yield f"name `{schema['$id']}`. A minor version adds keys; a major one may break readers."
    yield ""
    yield from _members(schema)
    for name, definition in schema["$defs"].items():
        yield f"## {name}"
        yield ""
        yield from _paragraph(definition.get("description", ""))
        if "properties" in definition:
            yield from _members(definition)
        else:
            yield f"{_kind_of(definition)}."
            yield ""


def _members(schema: Mapping[str, Any], path: str = "") -> Iterator[str]:
    for name, member in schema.get("properties", {}).items():
        yield f"`{path}{name}`"
        always = "" if name in schema.get("required", ()) else "; not always there"
        yield f": {_kind_of(member)}{always}"
        yield ""
        if said := member.get("description"):
            yield f"  {_text(said)}"
            yield ""
        inner = member.get("items", member)
        if "properties" in inner:
            yield from _members(inner, f"{path}{name}{'[]' if inner is not member else ''}.")


def _kind_of(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{_anchor(name)})"
    if "oneOf" in schema or "anyOf" in schema:
        return " or ".join(_kind_of(one) for one in schema.get("oneOf") or schema["anyOf"])
    if "enum" in schema:
        return f"one of {', '.join(map(_code, schema['enum']))}"
    if "const" in schema:
        return _code(schema["const"])
    kind = schema.get("type", "anything")
    if kind == "array":
        return f"list of {_kind_of(schema.get('items', {}))}"
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


# -- metrics --------------------------------------------------------------------------------------------------------


def metrics() -> Iterator[str]:
    """What the reconciler in the cluster counts."""
    yield "# Metrics"
    yield ""
    yield "What `reconcile run` serves at `/metrics`, for Prometheus. Besides these, there are the usual `process_*`"
    yield "and `python_gc_*`. The chart makes [alerts](#alerts) and a Grafana dashboard (`dashboard.enabled`) of them."
    yield ""
    # prometheus_client has no public way to a metric's labels before something was counted.
    for metric in dict.fromkeys(Metrics("")._registry._names_to_collectors.values()):
        if not isinstance(metric, MetricWrapperBase):
            continue
        kind, labels, said = metric._type, metric._labelnames, metric._documentation
        yield f"`{metric._name}{'_total' if kind == 'counter' else ''}`"
        yield f": {kind}{'; labels ' + ', '.join(map(_code, labels)) if labels else ''}"
        yield ""
        yield f"  {_text(said)}"
        yield ""


def alerts() -> Iterator[str]:
    """What the chart alerts about, and what to do then."""
    yield "## Alerts"
    yield ""
    yield "With `prometheusRule.enabled`, the chart makes these. What to do is in the annotation `runbook` of each."
    yield ""
    for group in yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]:
        for rule in group["rules"]:
            after = f", after {rule['for']}" if "for" in rule else ""
            yield f"`{rule['alert']}`"
            yield f": {rule['labels']['severity']}{after}"
            yield ""
            # As it reads for one environment, without Prometheus' templates.
            summary = re.sub(r"{{ [$]value[^}]*}}", "N", rule["annotations"]["summary"])
            summary = re.sub(r"{{ [$]labels[.]([a-z]+) }}", r"`\1`", summary)
            yield f"  {_text(summary[0].upper() + summary[1:])}."
            yield ""
            yield f"  {_text(rule['annotations']['runbook'])}"
            yield ""


# -- analytics ------------------------------------------------------------------------------------------------------


def analytics() -> Iterator[str]:
    """The tables that SQL thresholds ask."""
    yield "# Model analytics"
    yield ""
    yield "The tables that SQL thresholds ask, whatever engine reads them. These are bound as parameters:"
    yield f"{', '.join(f'`:{name}`' for name in tables.PARAMETERS)}. Instants are UTC, without a zone."
    yield ""
    for table in tables.TABLES.values():
        yield f"## {table.name}"
        yield ""
        yield from _paragraph(table.description)
        for column in table.columns:
            yield f"`{column.name}`"
            yield f": {column.type}"
            yield ""
            yield f"  {_text(column.description)}"
            yield ""


# -- Markdown -------------------------------------------------------------------------------------------------------


def _paragraph(words: str) -> Iterator[str]:
    if words:
        yield _text(" ".join(words.split()))
        yield ""


def _paragraphs(words: str) -> Iterator[str]:
    for paragraph in words.split("\n\n"):
        yield from _paragraph(paragraph)


def _text(words: str) -> str:
    """A sentence of the program: what stands in backticks there is code, and nothing else is Markdown."""
    parts = words.split("`")
    return "`".join(
        part if number % 2 else re.sub(r"([*_<>\[\]$|{}\\])", r"\\\1", part) for number, part in enumerate(parts)
    )


def _code(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = text or '""'
    text = re.sub(r"\s*\n\s*", " ", text).strip()
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def _anchor(heading: str) -> str:
    """The anchor of a heading, by GitHub's rule, which the site follows."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


if __name__ == "__main__":
    sys.exit(main())
