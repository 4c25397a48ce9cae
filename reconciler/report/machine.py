"""A report for programs: JSON and YAML of one shape, described by `report.schema.json`, which is versioned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Any, Literal

import orjson

from reconciler.plan import Change, Op, Plan
from reconciler.report import Base, Done, Effect, Report, exit_code, quoted_yaml
from renderers.manifest import Body, ObjectId, Origin
from schemas.problem import Problem

#: Grows by a minor version when keys are added, and by a major one when a reader could break.
FORMAT_VERSION = "1.2"
SCHEMA_FILE = files("reconciler.report") / "report.schema.json"


def report(report: Report, form: Literal["json", "yaml"] | str, *, detailed: bool = False) -> str:
    """The report as one document. `detailed`: as in `exit_code`."""
    return data(as_data(report, detailed=detailed), form)


def data(document: Mapping[str, Any], form: Literal["json", "yaml"] | str) -> str:
    """Plain data as one document."""
    if form == "yaml":
        return quoted_yaml.dump(document)
    return orjson.dumps(document, option=orjson.OPT_INDENT_2).decode() + "\n"


def manifests(bodies: Iterable[Body], form: Literal["json", "yaml"] | str) -> str:
    """Objects as a stream of YAML documents, or as one Kubernetes List in JSON: both go into `kubectl apply -f -`."""
    if form == "yaml":
        return "".join(f"---\n{quoted_yaml.dump(body)}" for body in bodies)
    listed = {"apiVersion": "v1", "kind": "List", "items": list(bodies)}
    return orjson.dumps(listed, option=orjson.OPT_INDENT_2).decode() + "\n"


def as_data(report: Report, *, detailed: bool = False) -> dict[str, Any]:
    """The report as plain data."""
    return {
        "format_version": FORMAT_VERSION,
        "exit_code": int(exit_code(report, detailed=detailed)),
        "base": None if report.base is None else _base(report.base),
        "effects": [_effect(effect) for effect in report.effects],
        "problems": [_problem(problem) for problem in report.problems],
        "plan": None if report.plan is None else _plan(report.plan),
        "results": [_result(done) for done in report.done],
        "told": [{"where": told.where, "message": told.message} for told in report.told],
        "trouble": [{"where": trouble.where, "message": trouble.message} for trouble in report.trouble],
    }


def _base(base: Base) -> dict[str, Any]:
    return {
        "ref": base.ref,
        "commit": base.commit,
        "files": list(base.files),
        "problems": [_problem(problem) for problem in base.problems],
    }


def _effect(effect: Effect) -> dict[str, Any]:
    return {
        "environment": effect.environment,
        "model": effect.model,
        "topic": effect.topic.value,
        "text": effect.text,
        "origin": _origin(effect.origin),
    }


def _plan(plan: Plan) -> dict[str, Any]:
    return {
        "id": plan.id,
        "offline": plan.offline,
        "summary": {op.value: plan.count(op) for op in Op},
        "changes": [_change(change) for change in plan.changes],
        "notes": [{"environment": n.environment, "origin": _origin(n.origin), "text": n.text} for n in plan.notes],
        "guards": [
            {"environment": g.environment, "rule": g.rule, "message": g.message, "approval": g.approval}
            for g in plan.guards
        ],
    }


def _change(change: Change) -> dict[str, Any]:
    return {
        "op": change.op.value,
        "environment": change.environment,
        "object": _object(change.id),
        "origin": _origin(change.origin),
        "fields": [{"path": field.path, "old": field.old, "new": field.new} for field in change.fields],
        "reason": change.reason,
        "held": change.held,
        "supersedes": _object(change.supersedes),
        "superseded_by": _object(change.superseded_by),
        "traffic": None if change.traffic is None else list(change.traffic),
        "drift": change.drift,
        "by": change.by,
    }


def _object(target: ObjectId | None) -> dict[str, str] | None:
    if target is None:
        return None
    return {
        "api_version": target.api_version,
        "kind": target.kind,
        "namespace": target.namespace,
        "name": target.name,
    }


def _origin(origin: Origin | None) -> dict[str, Any] | None:
    if origin is None:
        return None
    return {"file": origin.file, "line": origin.line, "kind": origin.kind, "name": origin.name}


def _problem(problem: Problem) -> dict[str, Any]:
    return {
        "file": problem.file,
        "line": problem.line,
        "column": problem.column,
        "pointer": problem.pointer,
        "rule": problem.rule,
        "severity": problem.severity,
        "message": problem.message,
        "hint": problem.hint,
    }


def _result(done: Done) -> dict[str, Any]:
    return {
        "environment": done.change.environment,
        "object": _object(done.change.id),
        "outcome": done.outcome.value,
        "message": done.message,
    }
