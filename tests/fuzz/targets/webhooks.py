"""Webhook requests (T70): judged whatever they hold, and believed only with a proof by the secret."""

from __future__ import annotations

import copy
import hashlib
import hmac
import json
from base64 import b64encode
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from reconciler.web.webhooks import Deliveries, Ignored, Pushed, Refused, judge
from tests.fuzz.choices import Choices
from tests.fuzz.targets.target import Target

_SECRET = b"whsec-planted-0815"
_NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
_EVENTS = (
    ("x-github-event", ("push", "ping", "create", "")),
    ("x-gitea-event", ("push",)),
    ("x-gogs-event", ("push",)),
    ("x-gitlab-event", ("Push Hook", "Tag Push Hook", "System Hook")),
    ("x-event-key", ("repo:push", "repo:refs_changed", "diagnostics:ping")),
    ("", ("",)),
)
_SIGNED = ("x-hub-signature-256", "x-hub-signature", "x-signature")
_BARE = ("x-gitea-signature", "x-forgejo-signature", "x-gogs-signature")
_DELIVERIES = ("x-github-delivery", "x-gitea-delivery", "idempotency-key", "webhook-id", "x-request-uuid")
_BODIES: tuple[dict[str, Any], ...] = (
    {"ref": "refs/heads/main", "repository": {"full_name": "acme/models"}, "after": "0" * 40},
    {"ref": "refs/heads/main", "project": {"path_with_namespace": "acme/models"}},
    {
        "repository": {"full_name": "acme/models", "slug": "models", "project": {"key": "ACME"}},
        "push": {"changes": [{"new": {"type": "branch", "name": "main"}, "old": None}]},
        "changes": [{"ref": {"id": "refs/heads/main"}}],
    },
)
_WRONG: tuple[Any, ...] = (
    None,
    True,
    1,
    1e300,
    "",
    "x",
    "refs/heads/x\r\n",
    [],
    {},
    [None],
    ["a"] * 50,
    {"ref": {}},
    "é",
)


def check(data: bytes) -> None:
    choices = Choices(data)
    event, names = choices.one_of(_EVENTS)
    headers = {event: choices.one_of(names)} if event else {}
    if choices.flag():
        headers[choices.one_of(_DELIVERIES)] = choices.one_of(("1", "", "\x00", "d" * 5000, "é"))
    body = data if choices.seldom(4) else _body(choices, headers)
    proven = choices.seldom(2)
    _sign(choices, headers, body, honest=proven)
    answer = judge(
        headers,
        body,
        secrets=choices.one_of(([_SECRET], [b"another", _SECRET + b"\n"], [b"", _SECRET])),
        repository=choices.one_of(("https://git.example/acme/models.git", "git@git.example:acme/models", "x")),
        branch="main",
        now=_NOW,
        deliveries=Deliveries(limit=2),
    )
    if not proven:
        assert isinstance(answer, Refused), (answer, headers)
        assert answer.status == 403
    assert isinstance(answer, Pushed | Ignored | Refused)
    said = answer.delivery if isinstance(answer, Pushed) else answer.reason
    assert _SECRET.decode() not in said
    assert len(said) < 1000


def _body(choices: Choices, headers: dict[str, str]) -> bytes:
    body = copy.deepcopy(choices.one_of(_BODIES))
    for _ in range(choices.below(4)):
        place: Any = body
        while True:
            key = choices.one_of(list(place) if isinstance(place, dict) else range(len(place)))
            if choices.seldom(3) or not isinstance(place[key], dict | list) or not place[key]:
                break
            place = place[key]
        place[key] = copy.deepcopy(choices.one_of(_WRONG))
    text = json.dumps(body).encode()
    match choices.below(8):
        case 1:
            return text[: choices.below(len(text))]
        case 2:
            return b"[" * 20_000
        case 3:
            return b"{" + b'"a":{' * 20_000
        case 4:
            return b"\xff" + text
        case 5 | 6:
            headers["content-type"] = "application/x-www-form-urlencoded"
            form = f"payload={quote(text)}"
            return choices.one_of((form, f"a=1&{form}", "&" * 100, f"{form}&{form}", "payload=%ff", "é")).encode()
        case _:
            return text


def _sign(choices: Choices, headers: dict[str, str], body: bytes, *, honest: bool) -> None:
    """As a sender does who knows the secret; or in one of the ways in which others may hope to pass."""
    digest = hmac.digest(_SECRET, body, hashlib.sha256).hex()
    moment = str(int(_NOW.timestamp()) + (0 if honest else 100_000))
    if not honest:
        digest = choices.one_of(
            (
                hmac.digest(b"", body, hashlib.sha256).hex(),
                hmac.digest(_SECRET, body + b" ", hashlib.sha256).hex(),
                digest[:-1],
                digest.upper(),
                f"{digest},{digest}",
                f" {digest}",
                "0" * 64,
                "é" * 64,
                "",
            )
        )
    match choices.below(5):
        case 0:
            headers[choices.one_of(_SIGNED)] = f"sha256={digest}"
        case 1:
            headers[choices.one_of(_BARE)] = digest
        case 2:
            headers["x-gitlab-token"] = _SECRET.decode() if honest else digest
        case 3:
            headers |= {"webhook-id": "1", "webhook-timestamp": moment}
            right = hmac.digest(_SECRET, b".".join((b"1", moment.encode(), body)), hashlib.sha256)
            headers["webhook-signature"] = f"v1,{b64encode(right).decode()}"
        case _ if honest:
            headers["x-signature"] = f"sha256={digest}"
        case _:
            headers["x-hub-signature"] = f"sha1={hmac.digest(_SECRET, body, hashlib.sha1).hex()}"


TARGET = Target(check, seeds=[bytes(n * k % 251 for n in range(60)) for k in (1, 3, 7, 11, 29)])
