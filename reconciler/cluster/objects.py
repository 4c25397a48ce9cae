"""Kubernetes objects, read and written: `Reader` has no method that writes, `Writer` adds those.

A preview is given a `Reader`, so that a dry run cannot change anything by construction.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, Literal, NamedTuple
from urllib.parse import quote, urlencode

import orjson

from reconciler.cluster.errors import (
    AlreadyExists,
    Expired,
    Invalid,
    KindMissing,
    NotFound,
    Unavailable,
    from_status,
)
from reconciler.cluster.transport import Connection, Stream, decoded
from renderers.manifest import Body, ObjectId, object_id

#: The name under which the fields that we set are ours (server-side apply).
FIELD_MANAGER = "trueup"

_PAGE = 500  # objects; what kubectl and client-go ask for
_SHORT_WATCH = 1.0  # seconds; a watch that ends sooner, without an event, has failed
_DISCOVERY_AGE = 2.0  # seconds; a kind that is missing is not looked for again before that


def is_ours(entry: Mapping[str, Any]) -> bool:
    """Whether an entry of managedFields is what we have applied, and not what we have updated or handed over."""
    return entry.get("manager") == FIELD_MANAGER and entry.get("operation") == "Apply"


class Resource(NamedTuple):
    """How a kind is served: what discovery says of it."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool
    verbs: frozenset[str]

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The path of one object, or of the collection where `name` is empty."""
        scope = ("namespaces", namespace) if self.namespaced and namespace else ()
        parts = (*scope, self.plural, name, subresource)
        return _group_path(self.api_version) + "".join(f"/{quote(part, safe='')}" for part in parts if part)


class Listing(NamedTuple):
    """All objects that matched at one moment, and the resourceVersion of that moment, to watch from."""

    items: list[Body]
    resource_version: str


class Page(NamedTuple):
    """A part of a list, which is of one moment as a whole."""

    items: list[Body]
    resource_version: str
    token: str  #: for the next page; "" where this is the last one


class WatchEvent(NamedTuple):
    """A change. The object of a BOOKMARK has a resourceVersion and nothing else of interest."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    object: Body

    @property
    def resource_version(self) -> str:
        """Where a watch that is to continue after this event starts."""
        return str(self.object["metadata"]["resourceVersion"])


class Reader:
    """What a cluster holds. Safe to share between threads. Each method raises `ApiError`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._discovery = _Discovery(connection)

    def version(self) -> str:
        """The version of the API server, "v1.36.2"."""
        return str(self._connection.request("GET", "/version")["gitVersion"])

    def user(self) -> str:
        """The name by which the cluster knows this account, "system:serviceaccount:trueup-system:trueup".

        Asked by a POST that stores nothing. `KindMissing` before Kubernetes 1.28.
        """
        target = ObjectId("authentication.k8s.io/v1", "SelfSubjectReview", "", "")
        body = orjson.dumps({"apiVersion": target.api_version, "kind": target.kind})
        review = self._connection.request("POST", self._path(target), target=target, body=body, headers=_JSON)
        return str(review["status"]["userInfo"]["username"])

    def resource(self, api_version: str, kind: str) -> Resource | None:
        """How the cluster serves a kind, or None where it does not (yet)."""
        return self._discovery.find(api_version, kind)

    def get(self, target: ObjectId) -> Body | None:
        """The object, or None where it does not exist. `KindMissing` where it cannot exist."""
        try:
            return self._connection.request("GET", self._path(target), target=target)
        except NotFound:
            return None

    def live(self, target: ObjectId) -> Body | None:
        """As `get`, and never from a cache: with the managedFields of everybody."""
        return Reader.get(self, target)

    def list(
        self,
        api_version: str,
        kind: str,
        *,
        namespace: str | None = None,
        labels: str = "",
        metadata_only: bool = False,
    ) -> Listing:
        """All objects of a kind at one moment, of all namespaces where `namespace` is None.

        `labels` is a label selector ("app=x,env in (a,b)"). With `metadata_only` each item has its
        metadata alone, which is several times cheaper. Never a part of the list: if the server forgets
        the moment between two pages, everything is read again in one piece.
        """
        target = ObjectId(api_version, kind, namespace or "", "")
        try:
            return self._list(target, labels, metadata_only, limit=_PAGE)
        except Expired:
            return self._list(target, labels, metadata_only, limit=0)

    def page(
        self, api_version: str, kind: str, *, namespace: str | None = None, labels: str = "", token: str = ""
    ) -> Page:
        """`list` for those who take it page by page: the first one, or the one that `token` stands for.

        Raises `Expired` when the server has forgotten the moment of that list. What came before is then a part of a
        list, which proves nothing: it begins again.
        """
        target = ObjectId(api_version, kind, namespace or "", "")
        return self._page(target, labels, limit=_PAGE, token=token)

    def watch(
        self,
        api_version: str,
        kind: str,
        *,
        namespace: str | None = None,
        labels: str = "",
        resource_version: str,
        timeout_s: float,
    ) -> Iterator[WatchEvent]:
        """Changes after `resource_version` as they happen, for `timeout_s` seconds; ends on `close` too.

        A watch that breaks, falls silent or is ended by the server goes on where it was. Raises `Expired`
        when the server no longer knows that place: then list again, and watch from there; and
        `Unavailable` when the server cannot be reached for as many tries as other requests get.
        """
        target = ObjectId(api_version, kind, namespace or "", "")
        retry = self._connection.retry
        deadline = retry.clock() + timeout_s
        failures = 0
        while not self._connection.closed and (left := deadline - retry.clock()) > 0:
            seen, began = resource_version, retry.clock()
            try:
                for event in self.watch_once(
                    api_version,
                    kind,
                    namespace=namespace,
                    labels=labels,
                    resource_version=resource_version,
                    timeout_s=left,
                ):
                    failures = 0
                    resource_version = event.resource_version
                    yield event
                if resource_version == seen and retry.clock() - began < min(left, _SHORT_WATCH):
                    raise Unavailable(0, "", "watches end as soon as they begin", target)
            except Unavailable as error:
                if self._connection.closed:
                    return
                failures += 1
                self._connection.back_off(error, failures, deadline=float("inf"))

    def watch_once(
        self,
        api_version: str,
        kind: str,
        *,
        namespace: str | None = None,
        labels: str = "",
        resource_version: str,
        timeout_s: float,
        opened: Callable[[Stream], None] | None = None,
    ) -> Iterator[WatchEvent]:
        """`watch` without its patience: until the stream ends, for whatever reason.

        `opened`: see `Connection.lines`.
        """
        target = ObjectId(api_version, kind, namespace or "", "")
        query = _query(
            watch="true",
            allowWatchBookmarks="true",
            resourceVersion=resource_version,
            timeoutSeconds=str(max(1, round(timeout_s))),
            labelSelector=labels,
        )
        for line in self._connection.lines(self._path(target) + query, target=target, opened=opened):
            yield _event(line, target)

    def predict(self, body: Body, *, force: bool = False) -> Body:
        """What the server would store if this were applied: a dry run, which stores nothing.

        Authorised like the real thing. Of a Secret, the answer holds what is stored now, in clear.
        """
        return _apply(self._connection, self._path(object_id(body)), body, force=force, dry_run=True)

    def _path(self, target: ObjectId, subresource: str = "") -> str:
        resource = self._discovery.find(target.api_version, target.kind)
        if resource is None:
            raise kind_missing(target)
        if target.name and resource.namespaced and not target.namespace:
            raise Invalid(0, "", "has no namespace, which its kind needs", target)
        if {target.namespace, target.name} & {".", ".."}:  # in a path these mean something else
            raise Invalid(0, "", "neither a name nor a namespace can be '.' or '..'", target)
        return resource.path(target.namespace, target.name, subresource)

    def _list(self, target: ObjectId, labels: str, metadata_only: bool, *, limit: int) -> Listing:
        items: list[Body] = []
        token = ""
        while True:
            page = self._page(target, labels, metadata_only=metadata_only, limit=limit, token=token)
            items += page.items
            token = page.token
            if not token:
                return Listing(items, page.resource_version)

    def _page(self, target: ObjectId, labels: str, *, metadata_only: bool = False, limit: int, token: str) -> Page:
        query = _query(limit=str(limit or ""), labelSelector=labels, **{"continue": token})
        headers = _METADATA_ONLY if metadata_only else {}
        answer = self._connection.request("GET", self._path(target) + query, target=target, headers=headers)
        try:
            items, metadata = answer["items"] or [], answer["metadata"]
            for item in items:
                # Only the list says what its items are.
                item["apiVersion"], item["kind"] = target.api_version, target.kind
            return Page(items, metadata["resourceVersion"], metadata.get("continue") or "")
        except (KeyError, TypeError) as error:
            raise Unavailable(0, "", "the answer is not a list; is this an API server?", target) from error


class Writer(Reader):
    """A `Reader` that can also change what the cluster holds.

    `fence` is called each time just before a write is sent, retries included, and raises where it must not be (as
    `lease.Elector.fence` does). A dry run is no write.
    """

    def __init__(self, connection: Connection, fence: Callable[[], None] | None = None) -> None:
        super().__init__(connection)
        self._fence = fence

    def apply(self, body: Body, *, force: bool = False, manager: str = FIELD_MANAGER) -> Body:
        """Server-side apply: create the object, or set the fields that it states. What is now stored.

        A field that another manager set to another value is a `FieldConflict`, unless `force` takes it
        over. With a resourceVersion in its metadata it is done only if the object still has that one; with
        the uid too, it is not made anew where somebody has deleted it. `manager` owns the fields.
        """
        path = self._path(object_id(body))
        return _apply(self._connection, path, body, force=force, dry_run=False, manager=manager, fence=self._fence)

    def own(self, live: Body, managed_fields: list[dict[str, Any]]) -> Body:
        """Say who owns which field from now on; nothing else changes. `Stale` if it is not as `live` is any more."""
        target = object_id(live)
        version = {"resourceVersion": live["metadata"]["resourceVersion"], "uid": live["metadata"]["uid"]}
        return self._connection.request(
            "PATCH",
            self._path(target) + _query(fieldManager=FIELD_MANAGER),
            target=target,
            body=orjson.dumps({"metadata": {**version, "managedFields": managed_fields}}),
            headers=_MERGE,
            fence=self._fence,
        )

    def create(self, body: Body) -> Body:
        """Create the object, or raise `AlreadyExists`. What is now stored.

        For records, which are created and then updated. To the server, what is created and what is
        applied have different owners, so that an `apply` of other values later is a `FieldConflict`.

        When the answer is lost, the request is sent again, and an object that has all that we sent is
        taken for the one that we made.
        """
        metadata = body.get("metadata") or {}
        name = metadata.get("name", "")
        target = ObjectId(body["apiVersion"], body["kind"], metadata.get("namespace", ""), name)
        path = self._path(target._replace(name="")) + _query(fieldManager=FIELD_MANAGER, fieldValidation="Strict")

        def send(*, repeatable: bool) -> Body:
            return self._connection.request(
                "POST",
                path,
                target=target,
                body=orjson.dumps(body),
                headers=_JSON,
                repeatable=repeatable,
                fence=self._fence,
            )

        try:
            return send(repeatable=False)
        except Unavailable as error:
            if not (error.maybe_done and name):
                raise
        try:
            return send(repeatable=True)
        except AlreadyExists:
            live = self.get(target)
            if live is not None and _contains(live, body):
                return live
            raise

    def update(self, body: Body, *, subresource: Literal["", "status"] = "") -> Body:
        """Replace the object, if it still has the resourceVersion that `body` has: compare and set.

        `Stale` if it has not. Never sent twice: `Unavailable.maybe_done` tells that the answer was lost.
        """
        target = object_id(body)
        if not body["metadata"].get("resourceVersion"):
            raise ValueError(f"{target}: an update needs the resourceVersion that it is based on")
        path = self._path(target, subresource)
        query = _query(fieldManager=FIELD_MANAGER, fieldValidation="Strict")
        return self._connection.request(
            "PUT",
            path + query,
            target=target,
            body=orjson.dumps(body),
            headers=_JSON,
            repeatable=False,
            fence=self._fence,
        )

    def delete(
        self,
        target: ObjectId,
        *,
        uid: str,
        resource_version: str | None = None,
        propagation: Literal["Foreground", "Background", "Orphan"] = "Foreground",
    ) -> Body | None:
        """Delete that very object: `Stale` if it is another one by now, or has changed.

        None where it is gone; the object where finalizers or dependents still hold it.
        """
        preconditions = {"uid": uid} | ({"resourceVersion": resource_version} if resource_version else {})
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": propagation,
            "preconditions": preconditions,
        }
        try:
            answer = self._connection.request(
                "DELETE",
                self._path(target),
                target=target,
                body=orjson.dumps(options),
                headers=_JSON,
                fence=self._fence,
            )
        except NotFound:
            return None
        return None if answer["kind"] == "Status" else answer


class _Discovery:
    """Which kinds a cluster serves; read per group version when first asked for, then remembered.

    A kind that is missing is looked for again, as its CustomResourceDefinition may have been installed
    since, though not more often than every two seconds. Threads that begin together may ask the same
    thing once each: with a lock, they would wait in a row for a server that is down.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._known: dict[tuple[str, str], Resource] = {}
        self._read_at: dict[str, float] = {}

    def find(self, api_version: str, kind: str) -> Resource | None:
        known = self._known.get((api_version, kind))
        if known is None:
            self._refresh(api_version)
            known = self._known.get((api_version, kind))
        return known

    def knows(self, api_version: str, kind: str) -> bool:
        """Whether the kind was found already. Asks nobody."""
        return (api_version, kind) in self._known

    def _refresh(self, api_version: str) -> None:
        now = self._connection.retry.clock()
        read_at = self._read_at.get(api_version)
        if read_at is not None and now - read_at < _DISCOVERY_AGE:
            return
        try:
            served = _resources(api_version, self._connection.request("GET", _group_path(api_version)))
        except (KindMissing, NotFound):
            served = []  # the whole group version is missing
        for resource in served:
            self._known.setdefault((api_version, resource.kind), resource)
        self._read_at[api_version] = now


def _resources(api_version: str, answer: Mapping[str, Any]) -> list[Resource]:
    """What discovery says of a group version; `Unavailable` where something on the way answered in its stead."""
    try:
        return [
            Resource(api_version, entry["kind"], entry["name"], entry["namespaced"], frozenset(entry["verbs"] or ()))
            for entry in answer["resources"] or ()  # Go says null where there are none
            if "/" not in entry["name"]  # "deployments/scale" is a part of another one
        ]
    except (KeyError, TypeError) as error:
        words = f"the answer does not say what there is of {api_version}; is this an API server?"
        raise Unavailable(0, "", words) from error


def _apply(
    connection: Connection,
    path: str,
    body: Body,
    *,
    force: bool,
    dry_run: bool,
    manager: str = FIELD_MANAGER,
    fence: Callable[[], None] | None = None,
) -> Body:
    metadata = body["metadata"]
    return connection.request(
        "PATCH",
        path + _apply_query(force, dry_run, manager),
        target=object_id(body),
        body=apply_patch(body),
        headers=_APPLY,
        guarded="resourceVersion" in metadata or "uid" in metadata,
        fence=fence,
    )


@cache
def _apply_query(force: bool, dry_run: bool, manager: str) -> str:
    return _query(
        fieldManager=manager,
        force="true" if force else "false",
        fieldValidation="Strict",
        dryRun="All" if dry_run else "",
    )


_JSON = {"Content-Type": "application/json"}
_APPLY = {"Content-Type": "application/apply-patch+yaml"}
_MERGE = {"Content-Type": "application/merge-patch+json"}
_METADATA_ONLY = {"Accept": "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"}

# The characters that JSON allows and YAML does not, or reads as the end of a line.
_NOT_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


def apply_patch(body: Body) -> bytes:
    """The body of a server-side apply: JSON that a YAML parser reads alike.

    The server parses it as YAML 1.1, which refuses DEL, takes U+0085 and U+2028 for line ends and folds
    them into spaces, and refuses the surrogate pairs that an all-ASCII JSON would have.
    """
    text = orjson.dumps(body)
    if text.isascii() and b"\x7f" not in text:
        return text
    return _NOT_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", text.decode()).encode()


def kind_missing(target: ObjectId) -> KindMissing:
    """The error of whoever asks for an object of a kind that the cluster does not have."""
    words = f"the cluster does not serve {target.kind} in {target.api_version}"
    return KindMissing(404, "NotFound", words, target)


def _group_path(api_version: str) -> str:
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"


def _query(**parameters: str) -> str:
    given = {name: value for name, value in parameters.items() if value}
    return f"?{urlencode(given)}" if given else ""


def _event(line: bytes, target: ObjectId) -> WatchEvent:
    match decoded(line, target):
        case {"type": "ERROR", "object": dict(status)}:
            raise from_status(status, target)
        case {"type": "ADDED" | "MODIFIED" | "DELETED" | "BOOKMARK" as kind, "object": body}:
            return WatchEvent(kind, body)
    raise Unavailable(0, "", "a line of the watch is not an event; is this an API server?", target)


def _contains(live: Any, sent: Any) -> bool:
    """Whether all that was sent is there. The server adds to it: defaults, uid, times."""
    if isinstance(live, dict) and isinstance(sent, dict):
        return all(key in live and _contains(live[key], value) for key, value in sent.items())
    if isinstance(live, list) and isinstance(sent, list):
        return len(live) == len(sent) and all(map(_contains, live, sent))
    return bool(live == sent)
