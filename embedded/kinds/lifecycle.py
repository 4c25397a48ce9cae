"""What happens to an object between request and storage, besides defaults: decoding, status isolation, what creation
adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from embedded import decoding
from embedded.kinds.defaults import containers, defaults
from embedded.kinds.kind import Kind
from embedded.schema import Cause

# Kinds of which the server counts generations; of custom kinds it does so for all.
_COUNTED = frozenset(
    {
        "Deployment",
        "ReplicaSet",
        "StatefulSet",
        "Job",
        "CronJob",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "EndpointSlice",
        "CustomResourceDefinition",
        "Pod",
    }
)
_TYPE_AND_META = ("apiVersion", "kind", "metadata")


def decode_errors(kind: Kind, obj: Any) -> list[str]:
    """What no decoding can read (a 400): wrong JSON types, quantities, times. Custom kinds: of metadata only,
    `validate` says the rest.

    For bodies of create, PUT and patch; `merge.apply` looks after its own, in other words.
    """
    found = decoding.decode(kind.schema, obj)
    if kind.custom:  # their metadata is decoded by itself
        own = [wrong._replace(path=wrong.path[1:]) for wrong in found.wrong if wrong.expected.built_in]
        found = found._replace(wrong=own)
    return [*(decoding.json_error(wrong) for wrong in found.wrong), *found.unreadable]


def unknown_fields(kind: Kind, obj: Any) -> list[str]:
    """Strict decoding errors: `unknown field "spec.foo"`."""
    return decoding.decode(kind.schema, obj).unknown


def prune(kind: Kind, obj: Any) -> None:
    """Drop, in place, the fields that the kind does not know."""
    decoding.prune(kind.schema, obj)


def has_generation(kind: Kind) -> bool:
    """The server counts metadata.generation for it: 1 on create, one more with every change of what is wanted."""
    return kind.custom or kind.kind in _COUNTED


def isolate(kind: Kind, new: dict[str, Any], old: Mapping[str, Any] | None, subresource: str) -> None:
    """Keep, in place, what this endpoint may not change. `old` None on create, where status becomes what it is in the
    beginning.

    The main resource of a kind with a status subresource keeps the old status; `status` keeps everything but status
    (on built-in kinds also metadata other than labels is taken from the request, as the server does).
    """
    if "status" not in kind.subresources:
        return
    if subresource != "status":
        held = None if old is None else old.get("status")
        if held is not None:
            new["status"] = held
        else:
            new.pop("status", None)
            if old is None and kind.kind == "Pod" and not kind.custom:
                new["status"] = {"phase": "Pending", "qosClass": qos_class(new.get("spec", {}))}
            if old is None:
                defaults(kind, new)  # a struct of a built-in kind is there all the same
        return
    assert old is not None
    for key in [key for key in new if key not in (*_TYPE_AND_META, "status")]:
        del new[key]
    new.update((key, value) for key, value in old.items() if key not in (*_TYPE_AND_META, "status"))
    meta = dict(old["metadata"])
    if not kind.custom:
        meta = {**new["metadata"], "labels": old["metadata"].get("labels")}
        if meta["labels"] is None:
            del meta["labels"]
    elif "managedFields" in new["metadata"]:
        meta["managedFields"] = new["metadata"]["managedFields"]
    new["metadata"] = meta


def qos_class(pod_spec: Mapping[str, Any]) -> str:
    """Guaranteed: every container has cpu and memory limits equal to its requests. BestEffort: none has any.
    Burstable otherwise."""
    resources = [container.get("resources", {}) for container in containers(dict(pod_spec))]
    requests = [
        {key: value for key, value in item.get("requests", {}).items() if key in ("cpu", "memory")}
        for item in resources
    ]
    limits = [
        {key: value for key, value in item.get("limits", {}).items() if key in ("cpu", "memory")} for item in resources
    ]
    if not any(requests) and not any(limits):
        return "BestEffort"
    return (
        "Guaranteed"
        if all(len(limit) == 2 and limit == request for limit, request in zip(limits, requests, strict=True))
        else "Burstable"
    )


def invalid_text(kind: Kind, name: str, causes: Sequence[Cause]) -> str:
    """The message of a 422: `Deployment.apps "x" is invalid: spec.replicas: Invalid value: -1: ...`; several in
    brackets."""
    who = f'{kind.kind}.{kind.group} "{name}"' if kind.group else f'{kind.kind} "{name}"'
    texts = list(dict.fromkeys(str(cause) for cause in causes))
    return f"{who} is invalid: {texts[0] if len(texts) == 1 else '[' + ', '.join(texts) + ']'}"
