"""Who somebody is, and what they may do: reviews, which are answered and not kept. This server has one user, who may
do everything."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from embedded.errors import StatusError, bad_request
from embedded.kinds.kind import Kind
from embedded.objects import Answer
from embedded.security import USER

_Object = dict[str, Any]


def create(kind: Kind, body: Any) -> Answer:
    """POST of a SelfSubjectReview, a SelfSubjectAccessReview or a SelfSubjectRulesReview."""
    if not isinstance(body, dict) or not isinstance(body.get("spec") or {}, dict):
        raise bad_request(f"the object provided is unrecognized (must be of type {kind.kind})")
    answer = _ANSWERS[kind.kind](kind, body.get("spec") or {})
    return Answer(201, orjson.dumps({"kind": kind.kind, "apiVersion": kind.api_version, "metadata": {}} | answer))


def _who(_kind: Kind, _spec: _Object) -> _Object:
    return {"status": {"userInfo": {"username": USER, "groups": ["system:masters", "system:authenticated"]}}}


def _access(kind: Kind, spec: _Object) -> _Object:
    if ("resourceAttributes" in spec) == ("nonResourceAttributes" in spec):
        why = "Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified"
        cause = {"reason": "FieldValueInvalid", "message": why, "field": "spec.resourceAttributes"}
        details = {"group": kind.group, "causes": [cause]}
        raise StatusError(422, "Invalid", f'.{kind.group} "" is invalid: spec.resourceAttributes: {why}', details)
    return {"spec": spec, "status": {"allowed": True}}


def _rules(_kind: Kind, spec: _Object) -> _Object:
    everything = {
        "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
        "incomplete": False,
    }
    return {"spec": spec, "status": everything}


_ANSWERS: Mapping[str, Callable[[Kind, _Object], _Object]] = {
    "SelfSubjectReview": _who,
    "SelfSubjectAccessReview": _access,
    "SelfSubjectRulesReview": _rules,
}
