"""From paths to actions: the HTTP face of the API server."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import orjson

from embedded import codec, discovery, kinds, merge, reviews, scaling, views
from embedded.controllers import Controllers
from embedded.deletion import DeleteOptions
from embedded.errors import StatusError, bad_request, method_not_allowed, no_such_path, unauthorized
from embedded.objects import Answer, Objects, Options, Target
from embedded.protocol import BODY_LIMIT, Request, Response, Stream, segments
from embedded.reading import Watch, check_revision, list_page, parse_query
from embedded.registry import Registry
from embedded.security import Credentials
from embedded.store import Store
from embedded.views import View

log = logging.getLogger(__name__)

_TRUE = {"1", "t", "T", "true", "TRUE", "True"}
_HEALTH = {"/healthz", "/livez", "/readyz"}
_PATCHES = {
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
}
_TEXT = "text/plain; charset=utf-8"

#: Answers a GET of a pod's `log`: the pod and the query. Raises StatusError.
PodLogs = Callable[[dict[str, Any], Mapping[str, str]], "Response | Stream"]


class ApiServer:
    """Answers requests on the objects of one store.

    `clock` gives the moment in UTC, `address` is what discovery tells clients ("127.0.0.1:6443").
    """

    def __init__(
        self, store: Store, credentials: Credentials, clock: Callable[[], datetime], address: str = ""
    ) -> None:
        self.address = address
        self._store = store
        self._credentials = credentials
        self._clock = clock
        self._registry = Registry(kinds.BUILTIN)
        self.objects = Objects(store, self._registry, clock)
        self.controllers = Controllers(self.objects)
        self._openapi = discovery.OpenApi(self._registry)
        #: Set by whoever runs pods; where nobody does, no pod has printed anything.
        self.pod_logs: PodLogs = lambda _pod, _query: Response(200, b"", "text/plain")
        self.controllers.start()

    def handle(self, request: Request) -> Response | Stream:
        """protocol.Handler"""
        try:
            return self._handle(request)
        except StatusError as refused:
            return status_response(refused)
        except sqlite3.OperationalError as error:  # nothing was written
            log.error("the store cannot be written: %s", error)
            return status_response(StatusError(500, "InternalError", f"the store cannot be written: {error}", {}))

    def _handle(self, request: Request) -> Response | Stream:
        path = request.path.rstrip("/")
        if path in _HEALTH:
            return Response(200, b"ok", _TEXT)
        if path == "/version":
            return _json(discovery.VERSION)
        if not self._credentials.accepts(request.headers.get(b"authorization", b"")):
            raise unauthorized()
        parts = segments(path)
        if parts[0] == "api" and len(parts) > 2:
            return self._resource(request, "", parts[1], parts[2:])
        if parts[0] == "apis" and len(parts) > 3:
            return self._resource(request, parts[1], parts[2], parts[3:])
        if request.method != "GET":
            raise method_not_allowed()
        return self._discover(request, parts)

    # Discovery

    def _discover(self, request: Request, parts: list[str]) -> Response:
        registry = self._registry
        document: Any = None
        match parts:
            case [""]:
                document = discovery.root_paths(registry)
            case ["api"] | ["apis"] if discovery.wants_aggregated(request.header(b"accept")):
                document = discovery.aggregated(registry, core=parts[0] == "api")
                return _json(document)._replace(content_type=discovery.AGGREGATED)
            case ["api"]:
                document = discovery.core_versions(self.address)
            case ["apis"]:
                document = discovery.group_list(registry)
            case ["api", version]:
                document = discovery.resources(registry, "", version)
            case ["apis", group]:
                document = discovery.group(registry, group)
            case ["apis", group, version]:
                document = discovery.resources(registry, group, version)
            case ["openapi", "v3"]:
                document = self._openapi.index()
            case ["openapi", "v3", *rest]:
                body = self._openapi.document("/".join(rest))
                if body is not None:
                    return Response(200, body)
        if document is None:
            return Response(404, b"404 page not found\n", _TEXT)
        return _json(document)

    # Resources

    def _resource(self, request: Request, group: str, version: str, parts: list[str]) -> Response | Stream:
        namespace = ""
        if parts[0] == "namespaces" and len(parts) > 2 and parts[2] not in ("status", "finalize"):
            namespace, parts = parts[1], parts[2:]
        kind = self._registry.find(group, version, parts[0])
        if kind is None:
            if discovery.resources(self._registry, group, version) is None:
                return Response(404, b"404 page not found\n", _TEXT)
            raise no_such_path()
        name, subresource = (*parts[1:], "", "")[:2]
        if len(parts) > 3 or (subresource and subresource not in kind.subresources):
            raise no_such_path()
        if name and kind.namespaced != bool(namespace):
            raise no_such_path()
        target = Target(kind, namespace, name, subresource)
        if subresource == "log":
            return self._log(request, target._replace(subresource=""))
        if request.method == "GET":
            return self._read(request, target) if name else self._list(request, target)
        view = _view(request)  # before anything is written: nobody could be told of it
        answer = self._write(request, target)
        self.controllers.run()
        return self._answer(request, view, target, answer)

    def _answer(self, request: Request, view: View, target: Target, answer: Answer) -> Response:
        body = answer.body
        if view.form or view.yaml:
            body = views.one(view, target.kind, body, self._clock())
        warnings = answer.warnings + _deprecations(request, target)
        headers = tuple(("Warning", f"299 - {_quoted(warning)}") for warning in warnings)
        return Response(answer.status, body, view.content_type, headers)

    def _read(self, request: Request, target: Target) -> Response:
        if "get" not in target.kind.verbs:
            raise method_not_allowed()
        version = request.query.get("resourceVersion", "")
        if version.isdigit():
            check_revision(self._store, int(version))
        view = _view(request)
        if target.subresource == "scale":
            scale = scaling.scale_of(target.kind, orjson.loads(self.objects.get(target)))
            return Response(200, view.encode(orjson.dumps(scale)), view.content_type)
        return self._answer(request, view, target, Answer(200, self.objects.get(target)))

    def _log(self, request: Request, target: Target) -> Response | Stream:
        if request.method != "GET":
            raise method_not_allowed()
        return self.pod_logs(orjson.loads(self.objects.get(target)), request.query)

    def _list(self, request: Request, target: Target) -> Response | Stream:
        kind, query = target.kind, request.query
        if "list" not in kind.verbs:
            raise method_not_allowed()
        wanted = parse_query(kind, target.namespace, query)
        view = _view(request)
        if query.get("watch", "") in _TRUE:
            return Watch(self._store, wanted, query, view, self._clock)
        page = list_page(self._store, wanted, query)
        body = views.many(view, kind, page.bodies, page.metadata, self._clock())
        return Response(200, body, view.content_type)

    def _write(self, request: Request, target: Target) -> Answer:
        kind = target.kind
        match request.method, bool(target.name):
            case "POST", False if target.namespace or not kind.namespaced:
                return self._create(request, target)
            case "PUT", True if "update" in kind.verbs:
                return self._replace(request, target)
            case "PATCH", True if "patch" in kind.verbs:
                return self._patch(request, target)
            case "DELETE", True if "delete" in kind.verbs and not target.subresource:
                return self.objects.delete(target, _delete_options(request))
            case "DELETE", False if "deletecollection" in kind.verbs and (target.namespace or not kind.namespaced):
                return self._delete_collection(request, target)
        raise method_not_allowed()

    def _create(self, request: Request, target: Target) -> Answer:
        options = _options(request, "CreateOptions")
        body, duplicates = _decode(request, options)
        if "get" not in target.kind.verbs:
            return reviews.create(target.kind, body)
        return self.objects.create(target, body, options, duplicates)

    def _replace(self, request: Request, target: Target) -> Answer:
        options = _options(request, "UpdateOptions")
        body, duplicates = _decode(request, options)
        if target.subresource != "scale":
            return self.objects.replace(target, body, options, duplicates)
        return self._scale(target, options, lambda _: body)

    def _patch(self, request: Request, target: Target) -> Answer:
        kind, content_type = target.kind, _content_type(request)
        if content_type not in _PATCHES:
            raise StatusError(415, "UnsupportedMediaType", "415: Unsupported Media Type", {})
        if content_type == "application/apply-patch+yaml":
            return self._apply(request, target)
        options = _options(request, "PatchOptions")
        if "force" in request.query:
            raise _invalid_option("PatchOptions", "force", "Forbidden", "may not be specified for non-apply patch")
        patch = _decode_patch(request.body)
        if content_type == "application/json-patch+json":
            change: Callable[[Any], Any] = lambda obj: merge.json_patch(obj, patch)  # noqa: E731
        elif not isinstance(patch, dict):
            raise bad_request(
                "error decoding patch: json: cannot unmarshal into Go value of type map[string]interface {}"
            )
        elif content_type == "application/merge-patch+json":
            change = lambda obj: merge.merge_patch(obj, patch)  # noqa: E731
        elif kind.custom or target.subresource == "scale":
            accepted = ", ".join(sorted(_PATCHES - {"application/strategic-merge-patch+json"}))
            message = f"the body of the request was in an unknown format - accepted media types include: {accepted}"
            raise StatusError(415, "UnsupportedMediaType", message)
        else:
            change = lambda obj: merge.strategic_merge_patch(kind, obj, patch)  # noqa: E731
        if target.subresource == "scale":
            return self._scale(target, options, change)
        return self.objects.patch(target, change, options)

    def _apply(self, request: Request, target: Target) -> Answer:
        options = _options(request, "PatchOptions")
        if not request.query.get("fieldManager"):
            raise _invalid_option("PatchOptions", "fieldManager", "Required", "is required for apply patch")
        body, duplicates = codec.decode_apply(request.body, strict=options.validation == "Strict")
        if target.subresource != "scale":
            return self.objects.apply(target, body, options, duplicates)
        if not isinstance(body, dict) or body.get("kind") != "Scale":
            raise bad_request("invalid object type: the scale subresource takes an autoscaling/v1 Scale")
        applied = scaling.applied_scale(target.kind, body)
        return _as_scale(target, self.objects.apply(target, applied, options, duplicates))

    def _scale(self, target: Target, options: Options, change: Callable[[Any], Any]) -> Answer:
        """A change of the Scale, made as a change of the object that it stands for."""
        kind = target.kind

        def scaled(obj: Any) -> Any:
            return scaling.with_scale(kind, obj, change(scaling.scale_of(kind, obj)))

        return _as_scale(target, self.objects.patch(target, scaled, options))

    def _delete_collection(self, request: Request, target: Target) -> Answer:
        options = _delete_options(request)
        kind = target.kind
        page = list_page(self._store, parse_query(kind, target.namespace, request.query), request.query)
        with self._store.transaction():
            for stored in page.bodies:
                metadata = orjson.loads(stored)["metadata"]
                one = Target(kind, metadata.get("namespace", ""), metadata["name"])
                self.objects.delete(one, options)
        body = views.many(View(), kind, page.bodies, page.metadata, self._clock())
        return Answer(200, body)


def _deprecations(request: Request, target: Target) -> tuple[str, ...]:
    if target.kind.group_resource == "endpoints":
        return ("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",)
    asks = b"propagationPolicy" in request.body or "propagationPolicy" in request.query
    if request.method == "DELETE" and target.kind.group_resource == "jobs.batch" and not asks:
        warning = (
            "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove"
            " them or set propagationPolicy=Orphan to suppress this warning"
        )
        return (warning,)
    return ()


def _view(request: Request) -> View:
    return views.negotiate(request.header(b"accept"), request.query.get("includeObject", "Metadata"))


def status_response(refused: StatusError) -> Response:
    """A refusal, as it is answered."""
    return Response(refused.code, orjson.dumps(refused.status()), headers=refused.headers)


def too_large() -> Response:
    """The answer to a body above the limit."""
    message = f"Request entity too large: limit is {BODY_LIMIT}"
    return status_response(StatusError(413, "RequestEntityTooLarge", message))


def _json(document: Any) -> Response:
    return Response(200, orjson.dumps(document))


def _as_scale(target: Target, answer: Answer) -> Answer:
    scale = scaling.scale_of(target.kind, orjson.loads(answer.body))
    return answer._replace(body=orjson.dumps(scale))


def _content_type(request: Request) -> str:
    return request.header(b"content-type").partition(";")[0].strip().lower()


def _decode(request: Request, options: Options) -> tuple[Any, list[str]]:
    return codec.decode(request.body, _content_type(request), strict=options.validation != "Ignore")


def _decode_patch(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise bad_request(f"error decoding patch: {error}") from None


def _options(request: Request, kind: str) -> Options:
    query = request.query
    validation = query.get("fieldValidation", "")
    if validation not in ("", "Ignore", "Strict", "Warn"):
        why = f'"{validation}": supported values: "", "Ignore", "Strict", "Warn"'
        raise _invalid_option(kind, "fieldValidation", "NotSupported", why)
    manager = query.get("fieldManager", "")
    if len(manager.encode()) > 128:
        raise _invalid_option(kind, "fieldManager", "TooLong", "may not be more than 128 bytes")
    if not manager.isprintable():
        why = f"{orjson.dumps(manager).decode()}: should only contain printable characters"
        raise _invalid_option(kind, "fieldManager", "Invalid", why)
    return Options(
        manager=manager or request.header(b"user-agent").partition("/")[0][:128] or "unknown",
        force=query.get("force", "") in _TRUE,
        dry_run=_dry_run(query.get("dryRun", ""), kind),
        validation=validation or "Warn",
    )


def _dry_run(value: str, kind: str) -> bool:
    if value not in ("", "All"):
        why = f'["{value}"]: supported values: "All"'
        raise _invalid_option(kind, "dryRun", "NotSupported", why)
    return bool(value)


def _delete_options(request: Request) -> DeleteOptions:
    """From the body, where there is one, else from the query."""
    given: Mapping[str, Any] = request.query
    if request.body:
        decoded, _ = codec.decode(request.body, _content_type(request))
        if not isinstance(decoded, dict):
            raise bad_request("the object provided is unrecognized (must be of type DeleteOptions)")
        given = decoded
    dry_run = given.get("dryRun") or ""
    if isinstance(dry_run, list):
        dry_run = "".join(str(stage) for stage in dry_run[:1])
    propagation = given.get("propagationPolicy") or ""
    if propagation not in ("", "Foreground", "Background", "Orphan"):
        why = f'"{propagation}": supported values: "Foreground", "Background", "Orphan", "nil"'
        raise _invalid_option("DeleteOptions", "propagationPolicy", "NotSupported", why)
    if not propagation and given.get("orphanDependents") in (True, "true"):
        propagation = "Orphan"
    grace = given.get("gracePeriodSeconds")
    preconditions = given.get("preconditions") or {}
    return DeleteOptions(
        dry_run=_dry_run(dry_run, "DeleteOptions"),
        uid=preconditions.get("uid") or "",
        resource_version=preconditions.get("resourceVersion") or "",
        propagation=propagation,
        grace_seconds=None if grace is None else max(int(grace), 0),
    )


_REASON_TEXTS = {
    "NotSupported": "Unsupported value: ",
    "Required": "Required value: ",
    "Forbidden": "Forbidden: ",
    "TooLong": "Too long: ",
    "Invalid": "Invalid value: ",
}


def _invalid_option(kind: str, field: str, reason: str, why: str) -> StatusError:
    message = _REASON_TEXTS[reason] + why
    cause = {"reason": f"FieldValue{reason}", "message": message, "field": field}
    details = {"group": "meta.k8s.io", "kind": kind, "causes": [cause]}
    return StatusError(422, "Invalid", f'{kind}.meta.k8s.io "" is invalid: {field}: {message}', details)


def _quoted(text: str) -> str:
    """A quoted string of a header: one line of printable ASCII."""
    plain = "".join(char if " " <= char <= "~" else "?" for char in text)
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'
