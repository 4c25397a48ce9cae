"""List and watch: many objects, and what becomes of them."""

from __future__ import annotations

import asyncio
import base64
import binascii
import random
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

import orjson

from embedded.errors import StatusError, bad_request, expired
from embedded.kinds.kind import Kind
from embedded.protocol import Channel
from embedded.selectors import Match, labels_match, parse_fields, parse_labels, single_name
from embedded.store import CompactedError, Event, Store, key_of, prefix_of
from embedded.views import View, event, full

#: How often a watch that allows bookmarks gets one, in seconds.
BOOKMARK_EVERY = 60.0

_TRUE = {"1", "t", "T", "true", "TRUE", "True"}


class Query(NamedTuple):
    """Which objects, as the query string asks. `namespace` "" means all of them, `match` None means each one."""

    kind: Kind
    namespace: str
    name: str  #: "" unless a field selector names exactly one
    match: Match | None

    @property
    def prefix(self) -> str:
        return prefix_of(self.kind.group_resource, self.namespace)


class Page(NamedTuple):
    """A list, or the first part of it: the objects as they are stored, and the list's metadata."""

    bodies: list[bytes]
    metadata: dict[str, Any]


def parse_query(kind: Kind, namespace: str, query: Mapping[str, str]) -> Query:
    """labelSelector and fieldSelector; raises StatusError (400)."""
    matches: list[Match] = []
    name = ""
    try:
        if labels := query.get("labelSelector"):
            matches.append(labels_match(parse_labels(labels)))
        if fields := query.get("fieldSelector"):
            matches.append(parse_fields(fields, selectable_fields(kind)))
            name = single_name(fields) if namespace or not kind.namespaced else ""
    except ValueError as error:
        raise bad_request(str(error)) from None
    return Query(kind, namespace, name, _all(matches))


def selectable_fields(kind: Kind) -> dict[str, Callable[[Mapping[str, Any]], str]]:
    """The fields that a field selector may name, with how to read them (kube-apiserver 1.36)."""
    fields = {"metadata.name": _reader("metadata.name"), "metadata.namespace": _reader("metadata.namespace")}
    for path in _SELECTABLE.get(kind.group_resource, ()):
        fields[path] = _reader(path)
    return fields


_SELECTABLE: dict[str, tuple[str, ...]] = {
    "namespaces": ("status.phase",),
    "nodes": ("spec.unschedulable",),
    "pods": (
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    ),
    "secrets": ("type",),
    "services": ("spec.clusterIP", "spec.type"),
    "jobs.batch": ("status.successful",),
    "events": (
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ),
}


def list_page(store: Store, query: Query, parameters: Mapping[str, str]) -> Page:
    """One page of a list. Raises StatusError: 400, 410 (the page's revision is gone), 422, 504 (a revision to come)."""
    _check_list_options(parameters, watch=False)
    limit = _integer(parameters.get("limit", ""))
    after, at = "", None
    if token := parameters.get("continue"):
        if parameters.get("resourceVersion") not in (None, "", "0"):
            raise bad_request("specifying resource version is not allowed when using continue")
        at, after = _parse_token(token, query.prefix)
    elif version := parameters.get("resourceVersion"):
        requested = _revision(version)
        check_revision(store, requested)
        if parameters.get("resourceVersionMatch") == "Exact" or (limit > 0 and requested and not _at_least(parameters)):
            at = requested
    revision = store.revision if at is None else at
    if query.name and at is None and not after:
        stored = store.get(key_of(query.kind.group_resource, query.namespace, query.name))
        found = stored is not None and (query.match is None or query.match(orjson.loads(stored)))
        return Page([stored] if stored is not None and found else [], {"resourceVersion": str(revision)})
    bodies: list[bytes] = []
    metadata: dict[str, Any] = {"resourceVersion": str(revision)}
    last = ""
    try:
        for key, body in store.scan(query.prefix, after=after, at=at):
            if limit > 0 and len(bodies) == limit:
                # There is more to look at; with a selector, nobody has looked whether any of it is wanted.
                metadata["continue"] = _token(revision, last, query.prefix)
                if query.match is None:
                    metadata["remainingItemCount"] = store.count(query.prefix, after=last, at=at)
                break
            last = key
            if query.match is None or query.match(orjson.loads(body)):
                bodies.append(body)
    except CompactedError:
        if after:
            raise expired(
                "The provided continue parameter is too old to display a consistent list result."
                " You must start a new list without the continue parameter."
            ) from None
        raise expired("The resourceVersion for the provided list is too old.") from None
    return Page(bodies, metadata)


def check_revision(store: Store, revision: int) -> None:
    """Nobody can be shown a revision that is still to come; raises StatusError (504)."""
    if revision > store.revision:
        message = f"Timeout: Too large resource version: {revision}, current: {store.revision}"
        cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
        raise StatusError(504, "Timeout", message, {"causes": [cause], "retryAfterSeconds": 1})


class Watch:
    """The events of a query, as one answer that goes on (protocol.Stream)."""

    def __init__(
        self,
        store: Store,
        query: Query,
        parameters: Mapping[str, str],
        view: View,
        clock: Callable[[], datetime],
    ) -> None:
        _check_list_options(parameters, watch=True)
        self.content_type = "application/json"
        self._store = store
        self._query = query
        self._view = view
        self._clock = clock
        version = parameters.get("resourceVersion", "")
        try:
            self._since = _revision(version)
        except StatusError:
            message = (
                f'resourceVersion: Invalid value: "{version}": strconv.ParseUint: parsing "{version}": invalid syntax'
            )
            raise StatusError(500, "", message) from None
        initial = parameters.get("sendInitialEvents")
        self._initial = self._since == 0 if initial is None else initial in _TRUE
        self._bookmarks = parameters.get("allowWatchBookmarks", "") in _TRUE
        # A client that names no end is sent away after 30 to 60 minutes, at no moment that all of them share.
        self._seconds = _integer(parameters.get("timeoutSeconds", "")) or random.uniform(1800, 3600)  # noqa: S311
        self._channel: Channel
        self._timers: list[asyncio.TimerHandle] = []
        self._first = True

    def start(self, channel: Channel) -> None:
        """Send what has happened, then what happens."""
        self._channel = channel
        loop = asyncio.get_running_loop()
        self._timers = [loop.call_later(self._seconds, channel.end)]
        if self._initial:
            match = self._query.match
            bodies = (body for _, body in self._store.scan(self._query.prefix))
            channel.send(
                b"".join(self._line("ADDED", body) for body in bodies if not match or match(orjson.loads(body)))
            )
            if self._bookmarks:
                self._bookmark(initial=True)
        else:
            try:
                for past in self._store.events(self._query.prefix, self._since or self._store.revision):
                    self._on_event(past)
            except CompactedError as error:
                gone = expired(f"too old resource version: {self._since} ({error.oldest})")
                channel.send(b'{"type":"ERROR","object":%b}\n' % orjson.dumps(gone.status()))
                channel.end()
                return
        self._store.listen(self._query.prefix, self._on_event)
        if self._bookmarks:
            self._schedule_bookmark(loop)

    def stop(self) -> None:
        """The answer ended."""
        self._store.forget(self._on_event)
        for timer in self._timers:
            timer.cancel()

    def _on_event(self, happened: Event) -> None:
        if happened.revision <= self._since:
            return
        match = self._query.match
        if match is None:
            self._send(happened.type, happened.body)
            return
        # Seen through a selector, a change can be an arrival or a departure.
        before = happened.previous is not None and match(orjson.loads(happened.previous))
        after = happened.type != "DELETED" and match(orjson.loads(happened.body))
        if after:
            self._send("MODIFIED" if before else "ADDED", happened.body)
        elif before:
            self._send("DELETED", happened.body if happened.type == "DELETED" else _last_seen(happened))

    def _send(self, event_type: str, body: bytes) -> None:
        self._channel.send(self._line(event_type, body))

    def _line(self, event_type: str, body: bytes) -> bytes:
        first, self._first = self._first, False
        return event(self._view, self._query.kind, event_type, body, self._clock(), first=first)

    def _bookmark(self, *, initial: bool = False) -> None:
        metadata: dict[str, Any] = {"resourceVersion": str(self._store.revision)}
        if initial:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        body = full(self._query.kind, orjson.dumps({"metadata": metadata}))
        self._channel.send(b'{"type":"BOOKMARK","object":%b}\n' % body)

    def _schedule_bookmark(self, loop: asyncio.AbstractEventLoop) -> None:
        def tick() -> None:
            self._bookmark()
            self._schedule_bookmark(loop)

        del self._timers[1:]
        self._timers.append(loop.call_later(BOOKMARK_EVERY, tick))


def _last_seen(happened: Event) -> bytes:
    """The object as the watcher knew it, with the resourceVersion at which it left the selection."""
    obj = orjson.loads(happened.previous or b"{}")
    obj["metadata"]["resourceVersion"] = str(happened.revision)
    return orjson.dumps(obj)


def _all(matches: list[Match]) -> Match | None:
    if len(matches) < 2:
        return matches[0] if matches else None
    return lambda body: all(match(body) for match in matches)


def _reader(path: str) -> Callable[[Mapping[str, Any]], str]:
    parts = path.split(".")

    def read(body: Mapping[str, Any]) -> str:
        value: Any = body
        for part in parts:
            value = value.get(part) if isinstance(value, Mapping) else None
        if path == "status.successful":
            value = body.get("status", {}).get("succeeded", 0)
        if path == "source":
            value = (body.get("source") or {}).get("component")
        if isinstance(value, bool):
            return str(value).lower()
        return "" if value is None else str(value)

    return read


def _at_least(parameters: Mapping[str, str]) -> bool:
    return parameters.get("resourceVersionMatch") == "NotOlderThan"


def _check_list_options(parameters: Mapping[str, str], *, watch: bool) -> None:
    match, version = parameters.get("resourceVersionMatch", ""), parameters.get("resourceVersion", "")
    initial = parameters.get("sendInitialEvents")
    if initial is not None and not watch:
        raise _invalid_option("sendInitialEvents", "Forbidden", "sendInitialEvents is forbidden for list")
    if watch:
        if initial is not None and match != "NotOlderThan":
            why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
            raise _invalid_option("resourceVersionMatch", "Forbidden", why)
        if match and initial is None:
            why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
            raise _invalid_option("resourceVersionMatch", "Forbidden", why)
        return
    if not match:
        return
    if not version:
        why = "resourceVersionMatch is forbidden unless resourceVersion is provided"
        raise _invalid_option("resourceVersionMatch", "Forbidden", why)
    if match not in ("Exact", "NotOlderThan"):
        why = f'"{match}": supported values: "Exact", "NotOlderThan", ""'
        raise _invalid_option("resourceVersionMatch", "NotSupported", why)
    if match == "Exact" and version == "0":
        why = 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
        raise _invalid_option("resourceVersionMatch", "Forbidden", why)


def _invalid_option(field: str, reason: str, why: str) -> StatusError:
    text = f"Unsupported value: {why}" if reason == "NotSupported" else f"Forbidden: {why}"
    cause = {"reason": f"FieldValue{reason}", "message": text, "field": field}
    details = {"group": "meta.k8s.io", "kind": "ListOptions", "causes": [cause]}
    return StatusError(422, "Invalid", f'ListOptions.meta.k8s.io "" is invalid: {field}: {text}', details)


def _integer(text: str) -> int:
    if not text:
        return 0
    if not text.lstrip("-").isdigit():
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    return int(text)


def _revision(text: str) -> int:
    if text and not text.isdigit():
        why = f'"{text}": strconv.ParseUint: parsing "{text}": invalid syntax'
        raise bad_request(f"invalid resource version: resourceVersion: Invalid value: {why}")
    return int(text or 0)


def _token(revision: int, last: str, prefix: str) -> str:
    content = {"v": "meta.k8s.io/v1", "rv": revision, "start": last.removeprefix(prefix)}
    return base64.urlsafe_b64encode(orjson.dumps(content)).decode().rstrip("=")


def _parse_token(token: str, prefix: str) -> tuple[int, str]:
    """The revision of the first page, and the key behind which this one begins."""
    try:
        content = orjson.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        return int(content["rv"]), prefix + str(content["start"])
    except (binascii.Error, ValueError, KeyError, TypeError) as error:
        raise bad_request(f"invalid continue token: continue key is not valid: {error}") from None
