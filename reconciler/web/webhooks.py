"""What a webhook request says. Pure.

All that it can do is to make the reconciler look at its repository now instead of at the next poll. Nothing else of it
is used, so whoever sends one twice, or loses one, changes nothing but the moment.

What proves a request, by any of the secrets (several, while one is replaced by another):

| sender | header | proof |
|---|---|---|
| GitHub | `X-Hub-Signature-256` | `sha256=` + hex HMAC-SHA256 of the body |
| Gitea, Forgejo, Gogs | `X-Gitea-Signature`, `X-Forgejo-Signature`, `X-Gogs-Signature` | that hex alone |
| Bitbucket Cloud and Data Center | `X-Hub-Signature` | as GitHub's; SHA-1, which others send there, proves nothing |
| GitLab, signing token | `webhook-signature` | standardwebhooks.com: `v1,` + base64 HMAC-SHA256 of id, time and body |
| GitLab, secret token | `X-Gitlab-Token` | the secret itself |
| anything else | `X-Signature` | as GitHub's; the `generic-hmac` of Flux |

The body is not looked into before it is proven. A GitLab signing token is the secret as GitLab shows it, `whsec_...`.
Sources: docs.github.com "Validating webhook deliveries"; gitea services/webhook/deliver.go; Bitbucket "Manage
webhooks" and "Event payload"; gitlab-org/gitlab!230944 and !231325; fluxcd/notification-controller receivers.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import re
from base64 import b64decode, b64encode
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple, TypeAlias
from urllib.parse import parse_qs

import orjson

#: Lower-case names. A header that came twice is both values with a comma between, and proves nothing.
Headers: TypeAlias = Mapping[str, str]

#: Servers that do as GitHub does, each with headers of its own name.
_LIKE_GITHUB = ("github", "gitea", "forgejo", "gogs")

#: How far the time of a signed request may be from ours (standardwebhooks.com).
_TOLERANCE = timedelta(minutes=5)


class Pushed(NamedTuple):
    """The branch has moved, or may have: ask for it now. `delivery` is what the sender calls the request, or ""."""

    delivery: str


class Ignored(NamedTuple):
    """A genuine request that does not concern us."""

    reason: str


class Refused(NamedTuple):
    """`status` is 403 (not proven) or 400 (proven, and no push that one can read). The reason is for our log alone."""

    status: int
    reason: str


@dataclass(slots=True)
class Deliveries:
    """The pushes of the last hour, at most `limit` of them: senders repeat what they believe lost.

    Threads may share it.
    """

    limit: int = 1000
    memory: timedelta = timedelta(hours=1)
    _seen: OrderedDict[str, datetime] = field(default_factory=OrderedDict)

    def remember(self, delivery: str, now: datetime) -> None:
        """A push was taken. "" is no name and not remembered."""
        if delivery:
            self._seen.pop(delivery, None)  # and in again, as the newest
            self._seen[delivery] = now
            while len(self._seen) > self.limit:
                self._seen.popitem(last=False)

    def repeated(self, delivery: str, now: datetime) -> bool:
        """Whether a push of that name was taken within the last hour."""
        taken = self._seen.get(delivery)
        return taken is not None and now - taken < self.memory


def judge(
    headers: Headers,
    body: bytes,
    *,
    secrets: Sequence[bytes],
    repository: str,
    branch: str,
    now: datetime,
    deliveries: Deliveries,
) -> Pushed | Ignored | Refused:
    """What to do about a POST.

    `repository` is the address of the specs' repository, `branch` a name without `refs/heads/`. White space around a
    secret is dropped (a Secret made with `echo` ends in a line break), and an empty one proves nothing.
    """
    usable = [secret.strip() for secret in secrets if secret.strip()]
    if not usable:
        return Refused(403, "no webhook secret is configured")
    unproven = _unproven(headers, body, usable, now)
    if unproven:
        return Refused(403, unproven)

    sender = next((sender for sender in _SENDERS if sender.event in headers), None)
    if sender is None:  # generic: that it was sent is all that it says
        return Pushed("")
    event = headers[sender.event]
    if event not in sender.pushes:
        return Ignored(f"the event {event[:100]!r} is no push to a branch")
    delivery = next((headers[name][:200] for name in sender.deliveries if headers.get(name)), "")
    if deliveries.repeated(delivery, now):
        return Ignored(f"the delivery {delivery!r} was taken before")
    try:
        name, refs = sender.pushes[event](orjson.loads(_json(headers, body)))
    except ValueError as error:
        return Refused(400, f"the body is no push that can be read: {error}")
    if name and not _is_of(name, repository):
        return Ignored(f"the push is to another repository, {name[:200]!r}")
    if f"refs/heads/{branch}" not in refs:
        return Ignored(f"the push is to another branch: {', '.join(refs)[:200]}")
    return Pushed(delivery)


# -- proofs --

_SIGNED = "webhook-signature"


def _signing_key(secret: bytes) -> bytes:
    if not secret.startswith(b"whsec_"):
        return secret
    try:
        return b64decode(secret.removeprefix(b"whsec_"), validate=True) or secret  # with an empty key, anybody signs
    except binascii.Error:  # it only begins like a signing token
        return secret


def _bytes(header: str) -> bytes:
    """As they came: WSGI hands headers over as Latin-1."""
    return header.encode("latin-1", "backslashreplace")


def _proofs(secret: bytes, headers: Headers, body: bytes) -> dict[str, bytes]:
    """What each header must be for this secret."""
    signature = hmac.digest(secret, body, hashlib.sha256).hex().encode()
    signed = b".".join((_bytes(headers.get("webhook-id", "")), _bytes(headers.get("webhook-timestamp", "")), body))
    return {
        "x-hub-signature-256": b"sha256=" + signature,
        "x-hub-signature": b"sha256=" + signature,
        "x-signature": b"sha256=" + signature,
        "x-gitea-signature": signature,
        "x-forgejo-signature": signature,
        "x-gogs-signature": signature,
        "x-gitlab-token": secret,
        _SIGNED: b"v1," + b64encode(hmac.digest(_signing_key(secret), signed, hashlib.sha256)),
    }


_PROOFS = tuple(_proofs(b"", {}, b""))


def _unproven(headers: Headers, body: bytes, secrets: Sequence[bytes], now: datetime) -> str:
    """Why the request is not genuine; "" where it is. One right proof is enough."""
    given = {name: [headers[name]] for name in _PROOFS if headers.get(name)}
    if not given:
        return f"it has none of the headers {', '.join(_PROOFS)}"
    if _SIGNED in given:
        given[_SIGNED] = headers[_SIGNED].split()  # one for each key, while one is replaced by another
        if not _is_recent(headers.get("webhook-timestamp", ""), now):
            del given[_SIGNED]
            if not given:
                return "webhook-timestamp is missing, or not within five minutes of this machine's clock"
    for secret in secrets:
        right = _proofs(secret, headers, body)
        if any(hmac.compare_digest(_bytes(one), right[name]) for name, several in given.items() for one in several):
            return ""
    return f"{' and '.join(given)} fits none of the secrets ({len(secrets)})"


def _is_recent(timestamp: str, now: datetime) -> bool:
    digits = re.fullmatch(r"[0-9]{1,11}", timestamp, re.ASCII)
    return digits is not None and abs(now.timestamp() - int(timestamp)) <= _TOLERANCE.total_seconds()


# -- pushes --

#: The repository's path as its server names it ("" where it does not), and the refs that moved.
_Push: TypeAlias = tuple[str, list[str]]


def _of_github(payload: object) -> _Push:
    return _text(payload, "repository", "full_name"), [_ref(payload)]


def _of_gitlab(payload: object) -> _Push:
    return _text(payload, "project", "path_with_namespace"), [_ref(payload)]


def _of_bitbucket_cloud(payload: object) -> _Push:
    """`new` is null where a branch was deleted, `old` where it was made."""
    refs = [
        f"refs/{'heads' if _text(change, side, 'type') == 'branch' else 'tags'}/{_text(change, side, 'name')}"
        for change in _list(payload, "push", "changes")
        for side in ("new", "old")
        if _text(change, side, "name")
    ]
    return _text(payload, "repository", "full_name"), refs


def _of_bitbucket_data_center(payload: object) -> _Push:
    path = f"{_text(payload, 'repository', 'project', 'key')}/{_text(payload, 'repository', 'slug')}"
    return path.strip("/"), [_text(change, "ref", "id") for change in _list(payload, "changes")]


class _Sender(NamedTuple):
    """How a server says what happened. `pushes`: how to read each event that is a push to a branch."""

    event: str  #: the header with the event's name
    pushes: Mapping[str, Callable[[object], _Push]]
    deliveries: tuple[str, ...]  #: the headers that name a request; the first one there counts


_SENDERS = (
    *(_Sender(f"x-{name}-event", {"push": _of_github}, (f"x-{name}-delivery",)) for name in _LIKE_GITHUB),
    _Sender("x-gitlab-event", {"Push Hook": _of_gitlab}, ("idempotency-key", "webhook-id")),
    _Sender(
        "x-event-key",
        {"repo:push": _of_bitbucket_cloud, "repo:refs_changed": _of_bitbucket_data_center},
        ("x-request-uuid", "x-request-id"),
    ),
)


def _json(headers: Headers, body: bytes) -> bytes:
    """GitHub can send a form with the JSON in a field; the signature is of the form."""
    if not headers.get("content-type", "").lower().startswith("application/x-www-form-urlencoded"):
        return body
    return "".join(parse_qs(body.decode("ascii"), max_num_fields=8).get("payload", [])).encode()


def _at(value: object, path: Sequence[str]) -> object:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _text(value: object, *path: str) -> str:
    found = _at(value, path)
    return found if isinstance(found, str) else ""


def _list(value: object, *path: str) -> list[object]:
    found = _at(value, path)
    if not isinstance(found, list):
        raise ValueError(f"{'.'.join(path)} is not a list")
    return found


def _ref(payload: object) -> str:
    ref = _text(payload, "ref")
    if not ref:
        raise ValueError("ref is not a text")
    return ref


def _is_of(name: str, repository: str) -> bool:
    """Whether an address ends in the path that the server gave: hosts have several names, and prefixes like /scm."""
    scheme, _, rest = repository.rpartition("://")
    path = rest.partition("/")[2] if scheme else rest.partition(":")[2] or rest
    path = path.strip("/").removesuffix(".git")
    return f"/{path}".casefold().endswith(f"/{name.strip('/')}".casefold())
