"""Who is told what of an automation's runs: the messages that its records owe, and the requests that carry them. Pure.

A message is owed once, by the record that it is about, from the moment that it ends until its key is in the record's
`notified`. So nothing is lost when the reconciler dies, and hardly anything is sent twice; what still is has the same
Idempotency-Key (a webhook) or dedup_key (PagerDuty).

Told are: a build that failed; a build that nothing is deployed of, because the automation deploys nothing or its
condition was not met (on_success all the same, as on the reference platform); a promotion that succeeded, was rolled
back or is held. Not told are ends that only another run explains: Cancelled, Superseded.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import urlencode

import orjson

from reconciler.records import Build, BuildPhase, Outcome, Phase, Promotion, object_id_of
from renderers.manifest import ObjectId
from schemas.automation import (
    CONNECTION_HEADERS,
    Automation,
    CustomWebhook,
    Notification,
    PagerDutyNotification,
    SlackNotification,
)

#: What ended longer ago than this is told to nobody: a restored backup must not page.
STALE = timedelta(days=1)

#: After the key of a message that could not be delivered: it is not tried again.
GAVE_UP = "!gave-up"

#: Characters of the sentence in a message.
_SENTENCE = 500
#: Of PagerDuty: characters of a summary and of a dedup_key (https://developer.pagerduty.com, Events API v2).
_SUMMARY, _DEDUP_KEY = 1024, 255

#: Where PagerDuty listens, unless the Secret's key `url` names another region's address.
PAGERDUTY = "https://events.pagerduty.com/v2/enqueue"

Target = SlackNotification | PagerDutyNotification | CustomWebhook


class Message(NamedTuple):
    """What is told to one receiver."""

    record: ObjectId  #: the Build or Promotion that it is about
    key: str  #: of the record's `notified`: "slack/Succeeded", "pagerduty/Failed/Resolved"
    target: Target
    environment: str  #: the one whose Secrets `target` names: where the automation builds
    automation: str
    model: str
    build: str  #: its id, 64 hex digits
    execution_date: datetime
    status: str  #: one line: "Succeeded, not deployed: auc 0.61 is not ABOVE 0.65"
    resolves: bool = False  #: PagerDuty's: the incident is over


class Request(NamedTuple):
    """What is sent, secrets included: nothing of it may be shown."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None
    secret: bool  #: it holds a Secret's value, in its address, its headers or its body


#: (Secret, key, default) -> value. Without a default a missing key is an error, which is the function's to raise.
ReadSecret = Callable[[str, str, str | None], str]


class _Event(NamedTuple):
    """How a record ended, for whoever wants to know."""

    name: str
    record: Build | Promotion
    at: datetime
    status: str
    is_error: bool = False


def owed(
    automation: Automation, builds: Sequence[Build], promotions: Sequence[Promotion], now: datetime
) -> list[Message]:
    """The messages that nobody has been sent yet, in the order in which things happened.

    `builds` and `promotions` are all that there are records of; those of other automations are passed over.
    """
    runs = {build.spec.id: build for build in builds if build.spec.automation == automation.name}
    moved = [promotion for promotion in promotions if promotion.spec.automation == automation.name]
    events = [*_of_builds(automation, runs.values()), *_of_promotions(moved)]
    messages: list[Message] = []
    for event in sorted(events, key=lambda event: event.at):
        if now - event.at <= STALE:
            notification = automation.on_error if event.is_error else automation.on_success
            for channel, target in _targets(notification, event):
                if not _is_told(event.record, key := f"{channel}/{event.name}"):
                    message = _message(automation, runs, event.record, key=key, target=target, status=event.status)
                    messages.append(message)
    pager = _pager(automation)
    if pager is not None:
        records: list[Build | Promotion] = [*runs.values(), *moved]
        for record in records:
            over = _over(record, runs.values(), promotions)
            if over is not None and now - over <= STALE:
                keys = [f"{key}/Resolved" for key in record.status.notified if _is_incident(key)]
                messages += [
                    _message(automation, runs, record, key=key, target=pager, status="Resolved", resolves=True)
                    for key in keys
                    if not _is_told(record, key)
                ]
    return messages


def _targets(notification: Notification | None, event: _Event) -> Iterator[tuple[str, Target]]:
    if notification is None:
        return
    if notification.slack is not None:
        yield "slack", notification.slack
    # A success is no incident: what PagerDuty hears of it is the end of the one before.
    if notification.pagerduty is not None and event.is_error:
        yield "pagerduty", notification.pagerduty
    if notification.custom_webhook is not None:
        yield "custom_webhook", notification.custom_webhook


def _is_told(record: Build | Promotion, key: str) -> bool:
    return key in record.status.notified or key + GAVE_UP in record.status.notified


def _message(
    automation: Automation,
    runs: Mapping[str, Build],
    record: Build | Promotion,
    *,
    key: str,
    target: Target,
    status: str,
    resolves: bool = False,
) -> Message:
    build = record.spec.id if isinstance(record, Build) else record.spec.build
    run = runs.get(build)
    return Message(
        record=object_id_of(record),
        key=key,
        target=target,
        environment=run.spec.environment if run else automation.environment or record.spec.environment,
        automation=automation.name,
        model=record.spec.model,
        build=build,
        execution_date=(run or record).spec.cause.at,
        status=status,
        resolves=resolves,
    )


# -- what happened --


def _of_builds(automation: Automation, builds: Iterable[Build]) -> Iterator[_Event]:
    for build in builds:
        status = build.status
        at = status.finished_at or status.started_at or build.spec.cause.at
        if status.phase is BuildPhase.FAILED:
            why = status.failure.message if status.failure else ""
            yield _Event("Failed", build, at, _sentence("Failed", why), is_error=True)
        elif status.phase is BuildPhase.SUCCEEDED and build.spec.action == "Batch":
            yield _Event("Succeeded", build, at, _sentence("Succeeded"))
        elif status.phase is BuildPhase.SUCCEEDED and automation.deployment_spec is None:
            yield _Event("Succeeded", build, at, _sentence("Succeeded", "built and recorded; nothing is deployed"))


def _of_promotions(promotions: Iterable[Promotion]) -> Iterator[_Event]:
    told: set[tuple[str, str]] = set()
    for promotion in sorted(promotions, key=lambda one: (_ended(one), one.identity.name)):
        status, at = promotion.status, _ended(promotion)
        where = f"{promotion.spec.environment}, variation {promotion.spec.variation}"
        match status.phase:
            case Phase.SUCCEEDED:
                yield _Event("Succeeded", promotion, at, _sentence("Succeeded", f"deployed to {where}"))
            case Phase.REJECTED:
                sentence = _sentence("Succeeded, not deployed", _verdict(promotion))
                # Each environment judges for itself, and mostly comes to the same: that is told once.
                if (promotion.spec.build, sentence) not in told:
                    told.add((promotion.spec.build, sentence))
                    yield _Event("NotDeployed", promotion, at, sentence)
            case Phase.ROLLED_BACK:
                sentence = _sentence(f"Rolled back in {where}", status.message)
                yield _Event("RolledBack", promotion, at, sentence, is_error=True)
            case Phase.HELD:
                # It may be held again after somebody has resumed it, and that is news.
                since = (status.since or at).astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
                sentence = _sentence(f"Held in {where}", status.message)
                yield _Event(f"Held@{since}", promotion, at, sentence, is_error=True)


def _ended(promotion: Promotion) -> datetime:
    status = promotion.status
    return status.finished_at or status.since or promotion.spec.cause.at


def _verdict(promotion: Promotion) -> str:
    last = next(reversed(promotion.status.gate.verdicts), None)
    # A gate on trial decides nothing: it was a person, or another gate.
    decided = last is not None and last.outcome is Outcome.REJECTED and not last.dry_run
    return last.message if last is not None and decided else promotion.status.message


def _sentence(what: str, why: str = "") -> str:
    return _line(f"{what}: {why}" if why.strip() else what, _SENTENCE)


# -- the end of incidents --


def _pager(automation: Automation) -> PagerDutyNotification | None:
    """Who hears of the end of an incident: whoever heard of its beginning."""
    told = (automation.on_error, automation.on_success)
    return next((each.pagerduty for each in told if each is not None and each.pagerduty is not None), None)


def _is_incident(key: str) -> bool:
    return key.startswith("pagerduty/") and not key.endswith((GAVE_UP, "/Resolved"))


def _over(record: Build | Promotion, builds: Iterable[Build], promotions: Iterable[Promotion]) -> datetime | None:
    """When the trouble that a record had ended: a later run went well, or a held promotion went on."""
    if isinstance(record, Build):
        began = record.status.finished_at or record.spec.cause.at
        well = [b.status.finished_at for b in builds if b.status.phase is BuildPhase.SUCCEEDED and b.status.finished_at]
    elif record.status.phase is Phase.HELD:
        return None
    elif record.status.phase is not Phase.ROLLED_BACK:
        return _ended(record)
    else:
        began = _ended(record)
        well = [_ended(p) for p in promotions if p.status.phase is Phase.SUCCEEDED and p.place == record.place]
    return min((moment for moment in well if moment > began), default=None)


# -- what is sent --


def request(message: Message, read: ReadSecret) -> Request:
    """The message as its receiver takes it. Raises what `read` does."""
    match message.target:
        case SlackNotification(webhook_secret=secret):
            return _post(read(secret, "url", None), _slack(message))
        case PagerDutyNotification(routing_key_secret=secret) as target:
            body = {"routing_key": read(secret, "routing_key", None), **_pagerduty(message, target)}
            return _post(read(secret, "url", PAGERDUTY), body)
        case CustomWebhook() as target:
            return _custom(message, target, read)


def _post(url: str, body: Mapping[str, Any]) -> Request:
    return Request("POST", url, {"Content-Type": "application/json"}, orjson.dumps(body), secret=True)


def _slack(message: Message) -> dict[str, Any]:
    lines = [
        f"Trueup: automation {_line(message.automation)}",
        f"Status: {message.status}",
        f"Model: {_line(message.model)}",
        f"Build: {message.build[:8]}",
        f"Execution time: {message.execution_date.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC",
    ]
    # Slack reads commands in angle brackets (<!channel>) whatever else is said, formatting unless told not to, and
    # fetches links for a preview: none of which somebody who names an automation, or a failing build, may cause.
    return {"text": "\n".join(map(_escaped, lines)), "mrkdwn": False, "unfurl_links": False, "unfurl_media": False}


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _pagerduty(message: Message, target: PagerDutyNotification) -> dict[str, Any]:
    dedup = message.record.name[:_DEDUP_KEY]
    if message.resolves:
        return {"event_action": "resolve", "dedup_key": dedup}
    return {
        "event_action": "trigger",
        "dedup_key": dedup,
        "client": "Trueup",
        "payload": {
            "summary": _line(f"{message.automation} ({message.model}): {message.status}", _SUMMARY),
            "source": message.environment,
            "severity": target.severity,
            "component": message.model,
            "group": message.automation,
            "custom_details": _data(message),
        },
    }


def _custom(message: Message, target: CustomWebhook, read: ReadSecret) -> Request:
    data = dict(target.data) | _data(message)
    secrets = {name: read(secret, "value", None) for name, secret in target.header_secrets}
    named = {**dict(target.headers), **secrets}
    headers = {name: value for name, value in named.items() if name.lower() not in CONNECTION_HEADERS}
    headers["Idempotency-Key"] = f"{message.record.kind}/{message.record.name}/{message.key}"
    if target.http_method == "GET":
        address = target.url.partition("#")[0]
        url = f"{address}{'&' if '?' in address else '?'}{urlencode(data)}"
        return Request("GET", url, headers, None, secret=bool(secrets))
    if not any(name.lower() == "content-type" for name in headers):
        headers["Content-Type"] = "application/json"
    return Request(target.http_method, target.url, headers, orjson.dumps(data), secret=bool(secrets))


def _data(message: Message) -> dict[str, str]:
    """The five that the reference platform adds, by its own names."""
    return {
        "execution_date": message.execution_date.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "model_id": message.model,
        "automation": message.automation,
        "status": message.status,
        "build_id": message.build,
    }


def _line(text: str, limit: int = 200) -> str:
    """The text as one line without invisible characters: a forged second line would read like one of ours."""
    # A sentence may be a traceback of any length, and no more than the beginning is looked at.
    visible = "".join(" " if unicodedata.category(char)[0] in "CZ" else char for char in text[: 4 * limit])
    words = " ".join(visible.split())
    return words if len(words) <= limit else f"{words[: limit - 3]}..."
