"""Who may do what: reviews, which are answered and not kept. The one user of this server may do everything."""

from __future__ import annotations

from typing import Any

import orjson

from embedded.errors import StatusError, bad_request
from embedded.kinds.kind import Kind
from embedded.objects import Answer

_EVERYTHING = {
    "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
    "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    "incomplete": False,
}


def create(kind: Kind, body: Any) -> Answer:
    """POST of a SelfSubjectAccessReview or a SelfSubjectRulesReview."""
    if not isinstance(body, dict) or not isinstance(body.get("spec") or {}, dict):
        raise bad_request(f"the object provided is unrecognized (must be of type {kind.kind})")
    spec = body.get("spec") or {}
    if kind.kind == "SelfSubjectAccessReview" and ("resourceAttributes" in spec) == ("nonResourceAttributes" in spec):
        why = "Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified"
        cause = {"reason": "FieldValueInvalid", "message": why, "field": "spec.resourceAttributes"}
        details = {"group": kind.group, "causes": [cause]}
        raise StatusError(422, "Invalid", f'.{kind.group} "" is invalid: spec.resourceAttributes: {why}', details)
    status = {"allowed": True} if kind.kind == "SelfSubjectAccessReview" else _EVERYTHING
    review = {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": {}, "spec": spec, "status": status}
    return Answer(201, orjson.dumps(review))
