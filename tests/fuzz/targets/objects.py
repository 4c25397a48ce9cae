"""What clusters answer: inventories, records and refusals, which people and other programs can edit."""

# ruff: noqa: PT017 - what a fuzzer tries is told apart without pytest

from __future__ import annotations

import copy
import json
import re
import zlib
from collections.abc import Callable
from itertools import product
from typing import Any

import orjson

from reconciler import inventory
from reconciler.cluster import errors
from reconciler.inventory import CorruptInventoryError, Inventory, Place
from reconciler.records import Build, Promotion, RecordError, from_body, to_body
from renderers.manifest import ObjectId
from tests.fuzz.choices import Choices
from tests.fuzz.targets.target import Target
from tests.sample_records import a_build, a_promotion

_TARGETS = (
    None,
    ObjectId("v1", "Secret", "prod", "token"),
    ObjectId("apps/v1", "Deployment", "prod", "a"),
    ObjectId("v1", "Namespace", "", "prod"),
    ObjectId("apps/v1", "Deployment", "prod", ""),
)
_STATUSES = (400, 401, 403, 404, 405, 408, 409, 410, 413, 422, 429, 500, 503, 504)


def check(data: bytes) -> None:
    """JSON as it is, or bytes that say what happened to an object of ours."""
    if data[:1] == b"{":
        _answered(data)
        try:
            body = orjson.loads(data)
        except orjson.JSONDecodeError:
            return
    else:
        body = _damaged(Choices(data))
        _answered(orjson.dumps(body))
    if isinstance(body, dict) and _is_an_object(body):
        _read(lambda: inventory.to_config_map(inventory.from_config_map(body)), CorruptInventoryError)
    if isinstance(body, dict) and _has_a_name(body):
        _read(lambda: to_body(from_body(Build, body)), RecordError)
        _read(lambda: to_body(from_body(Promotion, body)), RecordError)


def _answered(data: bytes) -> None:
    number = zlib.crc32(data)
    for status, target in product((409, _STATUSES[number % len(_STATUSES)]), _TARGETS):
        error = errors.from_answer(status, data, target, guarded=bool(number & 64))
        assert isinstance(error, errors.ApiError)
        assert len(str(error)) < 4000
        assert isinstance(error.reason, str)
        str(error).encode()
        if isinstance(error, errors.FieldConflict):
            assert error.conflicts
        assert isinstance(getattr(error, "field", ""), str)
        assert getattr(error, "immutable_only", False) in (True, False)


def _has_a_name(body: dict[str, Any]) -> bool:
    """An API server answers with objects that have a name of its form, whatever else is in them."""
    metadata = body.get("metadata")
    return isinstance(metadata, dict) and re.fullmatch(r"[a-z0-9.-]+", str(metadata.get("name"))) is not None


def _is_an_object(body: dict[str, Any]) -> bool:
    """A ConfigMap that an API server has accepted: labels, annotations and data are text by name, or not there."""
    if not _has_a_name(body):
        return False
    maps = [body["metadata"].get("labels", {}), body["metadata"].get("annotations", {}), body.get("data") or {}]
    return all(isinstance(each, dict) and all(isinstance(value, str) for value in each.values()) for each in maps)


def _damaged(choices: Choices) -> Any:
    """One of our objects, after some accidents."""
    body = copy.deepcopy(choices.one_of(_BODIES))
    for _ in range(choices.below(5)):
        place: Any = body
        while isinstance(place, dict | list) and place:
            key = choices.one_of(list(place) if isinstance(place, dict) else range(len(place)))
            if choices.seldom(3) or not isinstance(place[key], dict | list) or not place[key]:
                break
            place = place[key]
        match choices.below(4):
            case 0 if place:
                del place[key]
            case 1 if isinstance(place, dict):
                place[choices.one_of(("status", "finished", "places", "decisions", "verdicts", "causes", "x"))] = (
                    _wrong(choices)
                )
            case 2 if isinstance(place, list):
                place.append(_wrong(choices))
            case _ if place:
                place[key] = _wrong(choices)
    return body


def _wrong(choices: Choices) -> Any:
    return copy.deepcopy(choices.one_of(_WRONG))


def _read(what: Callable[[], Any], refusal: type[Exception]) -> None:
    """It is read and can be written again, or it is refused with a sentence."""
    try:
        orjson.dumps(what())
    except refusal as error:
        assert str(error).encode()


_STATUS = {
    "kind": "Status",
    "apiVersion": "v1",
    "status": "Failure",
    "reason": "Conflict",
    "message": 'Apply failed with 1 conflict: conflict with "kubectl" using apps/v1: .spec.replicas',
    "details": {
        "name": "a",
        "kind": "deployments",
        "causes": [
            {"reason": "FieldManagerConflict", "message": 'conflict with "kubectl"', "field": ".spec.replicas"},
            {"reason": "FieldValueInvalid", "message": "field is immutable", "field": "metadata.uid"},
        ],
        "retryAfterSeconds": 1,
    },
    "code": 409,
}
_INVENTORY = Inventory(
    "production",
    frozenset({Place("apps/v1", "Deployment", "prod"), Place("v1", "Namespace", "")}),
    frozenset({ObjectId("batch/v1", "Job", "prod", "a-build-3f9a1c2e")}),
)
_BODIES = (inventory.to_config_map(_INVENTORY), to_body(a_build()), to_body(a_promotion()), _STATUS)

_WRONG: tuple[Any, ...] = (
    *(
        None,
        True,
        -1,
        1.5,
        10**18,
        "",
        "x",
        [],
        {},
        [None],
        {"a": "b"},
        "\0",
        "2026-11-21T00:00:00Z",
        "trueup/v2",
        "a b",
    ),
    *(
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "v1 Pod -\n",
        "v1 Pod -\r\n\x85v1  x",
        [{}],
        "NaN",
        "Held",
    ),
    *(
        {"reason": 1},
        ["x"] * 20,
        [{"reason": "FieldManagerConflict", "message": 'conflict with "a\\x07"'}],
        "Invalid value: {" * 50,
        'conflict with "a\\x"',
        'conflict with "a\\"',
        "\ufffe",
    ),
)

TARGET = Target(
    check,
    words=[
        *(
            '"metadata":',
            '"labels":',
            '"annotations":',
            '"data":',
            '"spec":',
            '"status":',
            '"name":"',
            '"code":',
            '"kind":',
        ),
        *(
            '"details":',
            '"causes":',
            '"retryAfterSeconds":',
            '"message":"',
            "null",
            "{}",
            "[]",
            "true",
            "1e99",
            '""',
            "-1",
        ),
        *('"\\ud800"', '"\\u0000"', '"0001-01-01T00:00:00+14:00"', "9999999999999999999", "\\u2028", '"verdicts":[{}]'),
        *("Invalid value: {", "}: ", "conflict with ", 'forbidden: User "', "exceeded quota", "UID in precondition"),
    ],
    seeds=[
        *(json.dumps(body).encode() for body in _BODIES),
        *(bytes(n * k % 251 for n in range(80)) for k in (3, 7, 11)),
    ],
)
