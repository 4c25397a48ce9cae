"""What a write means: create, replace, patch, apply and delete, as a Kubernetes API server does them.

Each public method is one request, from the decoded body to the stored object. Nothing else runs between its read and
its write (one thread), so optimistic locking is a comparison, and no write is ever tried twice. What follows from a
write later on (a namespace is emptied, a dependent is collected) is the matter of `controllers`.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

import orjson

from embedded import admission, deletion, kinds, merge
from embedded.deletion import DeleteOptions, timestamp
from embedded.errors import StatusError, already_exists, apply_conflict, bad_request, conflict, invalid, not_found
from embedded.kinds.kind import Kind
from embedded.registry import Registry
from embedded.schema import Cause
from embedded.store import Store, key_of
from embedded.views import full

Object = dict[str, Any]

# Which kinds a PUT may create, which need a resourceVersion in a PUT, and which are answered with the deleted object
# instead of a Status: accidents of history that clients know (kube-apiserver 1.36).
_PUT_CREATES = {
    "limitranges",
    "events",
    "services",
    "endpoints",
    "leases.coordination.k8s.io",
    "roles.rbac.authorization.k8s.io",
    "rolebindings.rbac.authorization.k8s.io",
    "clusterroles.rbac.authorization.k8s.io",
    "clusterrolebindings.rbac.authorization.k8s.io",
}
_PUT_NEEDS_VERSION = {"leases.coordination.k8s.io", "poddisruptionbudgets.policy"}
_DELETE_ANSWERS_OBJECT = {
    "namespaces",
    "persistentvolumeclaims",
    "pods",
    "resourcequotas",
    "serviceaccounts",
    "services",
}

# Metadata that only the server writes.
_SERVER_OWNED = (
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "namespace",
)

_MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"


class Target(NamedTuple):
    """What a path names. `name` is "" for a collection, `subresource` one of "", "status", "scale"."""

    kind: Kind
    namespace: str
    name: str
    subresource: str = ""

    @property
    def key(self) -> str:
        return key_of(self.kind.group_resource, self.namespace, self.name)


class Options(NamedTuple):
    """How a write is asked for."""

    manager: str = "unknown"
    force: bool = False
    dry_run: bool = False
    validation: str = "Warn"  #: of unknown fields: Ignore, Warn or Strict


class Answer(NamedTuple):
    """What a write is answered with: HTTP status, JSON, and warnings for the client's user."""

    status: int
    body: bytes
    warnings: tuple[str, ...] = ()


class Objects:
    """The objects of one store. `clock` gives the moment, in UTC."""

    def __init__(self, store: Store, registry: Registry, clock: Callable[[], datetime]) -> None:
        self.store = store
        self.registry = registry
        self.clock = clock
        self.addresses = admission.Addresses(store)

    # Reading one object

    def get(self, target: Target) -> bytes:
        """The object as JSON; raises StatusError (404)."""
        stored = self.store.get(target.key)
        if stored is None:
            raise not_found(target.kind, target.name)
        return full(target.kind, stored)

    def read(self, target: Target) -> Object | None:
        """The object, None where there is none."""
        stored = self.store.get(target.key)
        if stored is None:
            return None
        read: Object = orjson.loads(full(target.kind, stored))
        return read

    def _live(self, target: Target) -> Object:
        live = self.read(target)
        if live is None:
            raise not_found(target.kind, target.name)
        return live

    # Writing

    def create(self, target: Target, body: Any, options: Options, duplicates: list[str]) -> Answer:
        """POST of an object to its collection (`target.name` is "")."""
        obj, warnings = _decoded(target.kind, body, options, duplicates)
        return self._create(target, obj, options, warnings)

    def replace(self, target: Target, body: Any, options: Options, duplicates: list[str]) -> Answer:
        """PUT."""
        obj, warnings = _decoded(target.kind, body, options, duplicates)
        _check_name(target, obj["metadata"])
        live = self.read(target)
        if live is not None:
            return self._update(target, live, obj, options, warnings)
        if target.kind.group_resource not in _PUT_CREATES or target.subresource:
            raise not_found(target.kind, target.name)
        obj["metadata"].pop("resourceVersion", None)
        return self._create(target, obj, options, warnings)

    def patch(self, target: Target, change: Callable[[Object], Any], options: Options) -> Answer:
        """JSON patch, merge patch or strategic merge patch: `change` gives the patched copy of an object."""
        live = self._live(target)
        try:
            changed = change(live)
        except merge.PatchError as error:
            raise _patch_refused(error) from None
        obj, warnings = _decoded(target.kind, changed, options, [])
        _check_name(target, obj["metadata"])
        return self._update(target, live, obj, options, warnings)

    def apply(self, target: Target, body: Any, options: Options, duplicates: list[str]) -> Answer:
        """Server-side apply; creates what is not there."""
        kind = target.kind
        applied = _applied(target, body, options, duplicates)
        live = self.read(target)
        if live is None and target.subresource:
            raise not_found(kind, target.name)
        metadata = applied["metadata"]
        version, uid = metadata.pop("resourceVersion", ""), metadata.pop("uid", "")
        if live is None:
            self._admit(target)
            if uid:
                why = f"uid mismatch: the provided object specified uid {uid}, and no existing object was found"
                raise conflict(kind, target.name, why)
        elif version and version != live["metadata"]["resourceVersion"]:
            raise conflict(kind, target.name, _MODIFIED)
        elif uid and uid != live["metadata"]["uid"]:
            message = f'Invalid value: "{uid}": field is immutable'
            raise _invalid(target, [Cause("metadata.uid", "FieldValueInvalid", message)])
        now = self.clock()
        try:
            merged = merge.apply(
                kind,
                live,
                applied,
                manager=options.manager,
                force=options.force,
                now=now,
                subresource=target.subresource,
            )
        except merge.PatchError as error:
            raise _patch_refused(error) from None
        if isinstance(merged, merge.Conflicts):
            raise apply_conflict(merged.message, merged.causes)
        if live is None:
            _set_identity(target, merged.object["metadata"])
            kinds.isolate(kind, merged.object, None, "")
            return self._finish_create(target, merged.object, options, now, [])
        if not merged.changed:
            return Answer(200, self.get(target))
        kinds.isolate(kind, merged.object, live, target.subresource)
        return self._finish_update(target, live, merged.object, options, [])

    def delete(self, target: Target, options: DeleteOptions) -> Answer:
        """DELETE of one object: at once, or marked as deleting until its finalizers are gone."""
        kind = target.kind
        live = self._live(target)
        deletion.check_preconditions(kind, target.name, live, options)
        before = orjson.dumps(live)
        waits = deletion.mark(kind, live, options, self.clock())
        if not options.dry_run:
            if not waits:
                self.store.remove(target.key, _stored(live))
            elif orjson.dumps(live) != before:
                self.store.put(target.key, _stored(live))
        if waits or kind.group_resource in _DELETE_ANSWERS_OBJECT:
            return Answer(200, orjson.dumps(live))
        return Answer(200, orjson.dumps(deletion.status(kind, target.name, live["metadata"]["uid"])))

    # What the server changes by itself

    def target_of(self, key: str) -> Target:
        """What a key of the store names, in the version that it is stored in."""
        resource, namespace, name = key.split("/", 2)
        return Target(self.registry.stored(resource), namespace, name)

    def adjust(self, target: Target, change: Callable[[Object], object]) -> None:
        """Change an object in place, without owning anything of it. A deletion that nothing holds any more happens."""
        obj = self.read(target)
        if obj is not None:
            change(obj)
            self._keep(target, obj)

    def drop_finalizer(self, target: Target, finalizer: str) -> None:
        """Take a finalizer off an object that has it."""
        obj = self.read(target)
        finalizers = obj["metadata"].get("finalizers", []) if obj is not None else []
        if obj is not None and finalizer in finalizers:
            finalizers.remove(finalizer)
            if not finalizers:
                del obj["metadata"]["finalizers"]
            self._keep(target, obj)

    def _keep(self, target: Target, obj: Object) -> bytes | None:
        """Write an object, or delete it where that was all it waited for: then None."""
        if "deletionTimestamp" in obj["metadata"] and not deletion.is_held(target.kind, obj):
            self.store.remove(target.key, _stored(obj))
            return None
        return self.store.put(target.key, _stored(obj))

    # Creating

    def _create(self, target: Target, obj: Object, options: Options, warnings: list[str]) -> Answer:
        kind, metadata = target.kind, obj["metadata"]
        for owned in ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"):
            metadata.pop(owned, None)
        _check_namespace(target, metadata)
        if metadata.get("generateName") and not metadata.get("name"):
            metadata["name"] = _generated_name(metadata["generateName"])
        target = target._replace(name=metadata.get("name") or target.name)
        self._admit(target)
        if not target.name:
            message = "Required value: name or generateName is required"
            raise _invalid(target, [Cause("metadata.name", "FieldValueRequired", message)])
        if metadata.pop("resourceVersion", None):
            raise StatusError(500, "", "resourceVersion should not be set on objects to be created")
        _set_identity(target, metadata)
        now = self.clock()
        kinds.isolate(kind, obj, None, "")
        kinds.defaults(kind, obj)
        merge.update(kind, None, obj, manager=options.manager, now=now)
        return self._finish_create(target, obj, options, now, warnings)

    def _finish_create(
        self, target: Target, obj: Object, options: Options, now: datetime, warnings: list[str]
    ) -> Answer:
        kind, metadata = target.kind, obj["metadata"]
        if kinds.has_generation(kind):
            metadata["generation"] = 1
        metadata["uid"] = str(uuid.uuid4())
        metadata["creationTimestamp"] = timestamp(now)
        admission.complete(kind, obj, None, self.addresses)
        _validate(target, obj, None)
        if self.store.get(target.key) is not None:
            raise already_exists(kind, target.name)
        admission.check_addresses(kind, obj, None, self.addresses)
        if options.dry_run:
            return Answer(201, orjson.dumps(obj), tuple(warnings))
        return Answer(201, full(kind, self.store.put(target.key, _stored(obj))), tuple(warnings))

    def _admit(self, target: Target) -> None:
        """Nothing new comes into a namespace that is not there, or that is going."""
        if not target.kind.namespaced:
            return
        stored = self.store.get(key_of("namespaces", "", target.namespace))
        namespace = None if stored is None else orjson.loads(stored)
        admission.check_namespace(target.kind, target.namespace, target.name, namespace)

    # Updating

    def _update(self, target: Target, live: Object, obj: Object, options: Options, warnings: list[str]) -> Answer:
        kind, metadata = target.kind, obj["metadata"]
        _check_namespace(target, metadata)
        _set_identity(target, metadata)
        _check_version(target, metadata, live["metadata"])
        for owned in _SERVER_OWNED:
            if owned in live["metadata"]:
                metadata[owned] = live["metadata"][owned]
            else:
                metadata.pop(owned, None)
        kinds.isolate(kind, obj, live, target.subresource)
        kinds.defaults(kind, obj)
        now = self.clock()
        merge.update(kind, live, obj, manager=options.manager, now=now, subresource=target.subresource)
        return self._finish_update(target, live, obj, options, warnings)

    def _finish_update(
        self, target: Target, live: Object, obj: Object, options: Options, warnings: list[str]
    ) -> Answer:
        kind, metadata = target.kind, obj["metadata"]
        admission.complete(kind, obj, live, self.addresses)
        if kinds.has_generation(kind) and target.subresource != "status" and _wanted_changed(kind, live, obj):
            metadata["generation"] = live["metadata"].get("generation", 0) + 1
        _validate(target, obj, live)
        admission.check_addresses(kind, obj, live, self.addresses)
        if obj == live:
            return Answer(200, self.get(target), tuple(warnings))
        if options.dry_run:
            return Answer(200, orjson.dumps(obj), tuple(warnings))
        written = self._keep(target, obj)
        if written is None:  # a deletion, which is answered with the object as it was
            metadata["resourceVersion"] = live["metadata"]["resourceVersion"]
            return Answer(200, orjson.dumps(obj), tuple(warnings))
        return Answer(200, full(kind, written), tuple(warnings))


def _decoded(kind: Kind, body: Any, options: Options, duplicates: list[str]) -> tuple[Object, list[str]]:
    """The body as an object of this kind, without what the kind does not know, and the warnings about that."""
    if not isinstance(body, dict):
        raise bad_request(f"the object provided is unrecognized (must be of type {kind.kind}): it is no JSON object")
    _check_type(kind, body)
    if body.get("metadata") is None:
        body["metadata"] = {}
    refused = f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: '
    wrong = kinds.decode_errors(kind, body)
    if wrong:
        raise bad_request(refused + wrong[0])
    unknown = [] if options.validation == "Ignore" else duplicates + kinds.unknown_fields(kind, body)
    if unknown and options.validation == "Strict":
        raise bad_request(f"{refused}strict decoding error: {', '.join(unknown)}")
    kinds.prune(kind, body)
    return body, unknown


def _patch_refused(error: merge.PatchError) -> StatusError:
    reason = {400: "BadRequest", 413: "RequestEntityTooLarge", 422: "Invalid"}.get(error.code, "")
    return StatusError(error.code, reason, error.message, {} if error.code == 422 else None)


def _check_type(kind: Kind, body: Object) -> None:
    """A built-in kind may leave apiVersion and kind out; a custom one may not. Another one is an error."""
    version, name = body.get("apiVersion") or "", body.get("kind") or ""
    if kind.custom:
        if not name:
            raise bad_request(
                f"the object provided is unrecognized (must be of type {kind.kind}): Object 'Kind' is missing"
            )
        if name != kind.kind:
            cause = Cause("kind", "FieldValueInvalid", f'Invalid value: "{name}": must be {kind.kind}')
            raise _invalid(Target(kind, "", str((body.get("metadata") or {}).get("name", ""))), [cause])
    elif (name or kind.kind) != kind.kind or version not in ("", kind.api_version):
        given = version.rpartition("/")[2] or kind.version
        raise bad_request(
            f'{name or kind.kind} in version "{given}" cannot be handled as a {kind.kind}:'
            f' no kind "{name or kind.kind}" is registered for version "{version or kind.api_version}" here'
        )
    if version != kind.api_version and (version or kind.custom):
        raise bad_request(
            f"the API version in the data ({version}) does not match the expected API version ({kind.api_version})"
        )
    body["apiVersion"], body["kind"] = kind.api_version, kind.kind


def _applied(target: Target, body: Any, options: Options, duplicates: list[str]) -> Object:
    """The body of an apply, checked as far as that needs no live object."""
    kind = target.kind
    if not isinstance(body, dict):
        raise bad_request("error decoding YAML: the applied configuration must be an object")
    if duplicates and options.validation == "Strict":
        raise bad_request(f"error decoding YAML: {duplicates[0]}")
    version, name = body.get("apiVersion") or "", body.get("kind") or ""
    if (version, name) != (kind.api_version, kind.kind):
        group, _, number = version.rpartition("/")
        raise bad_request(f"invalid object type: {group}/{number}, Kind={name}")
    metadata = body.setdefault("metadata", {})
    if not isinstance(metadata, dict):
        raise bad_request("error decoding YAML: metadata must be an object")
    if metadata.get("managedFields") is not None:
        raise bad_request("metadata.managedFields must be nil")
    _check_name(target, metadata)
    _check_namespace(target, metadata)
    return body


def _check_name(target: Target, metadata: Object) -> None:
    name = metadata.get("name") or ""
    if name not in ("", target.name):
        raise bad_request(f"the name of the object ({name}) does not match the name on the URL ({target.name})")


def _check_namespace(target: Target, metadata: Object) -> None:
    if (metadata.get("namespace") or "") not in ("", target.namespace):
        raise bad_request("the namespace of the provided object does not match the namespace sent on the request")


def _set_identity(target: Target, metadata: Object) -> None:
    """An object may leave out what the path says."""
    metadata["name"] = target.name
    if target.kind.namespaced:
        metadata["namespace"] = target.namespace


def _check_version(target: Target, metadata: Object, live: Object) -> None:
    """The optimistic lock of a replace or a patch: uid and resourceVersion are preconditions where they are given."""
    kind, name = target.kind, target.name
    uid, version = metadata.get("uid"), metadata.get("resourceVersion")
    if uid and uid != live["uid"]:
        why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {live['uid']}"
        raise conflict(kind, name, why)
    if not version:
        if kind.custom or kind.group_resource in _PUT_NEEDS_VERSION:
            cause = Cause(
                "metadata.resourceVersion", "FieldValueInvalid", "Invalid value: 0: must be specified for an update"
            )
            refused = invalid(kind, name, f'{kind.group_resource} "{name}" is invalid: {cause}', [cause])
            refused.details = {**(refused.details or {}), "kind": kind.plural}
            raise refused
    elif not version.isdigit():
        raise StatusError(500, "", f'strconv.ParseUint: parsing "{version}": invalid syntax')
    elif version != live["resourceVersion"]:
        raise conflict(kind, name, _MODIFIED)


def _validate(target: Target, obj: Object, live: Object | None) -> None:
    causes = kinds.validate(target.kind, obj, live)
    if live is not None and "deletionTimestamp" in live["metadata"]:
        before = live["metadata"].get("finalizers", ())
        added = [finalizer for finalizer in obj["metadata"].get("finalizers", ()) if finalizer not in before]
        if added:
            listed = ", ".join(f'"{finalizer}"' for finalizer in added)
            message = (
                "Forbidden: no new finalizers can be added if the object is being deleted,"
                f" found new finalizers []string{{{listed}}}"
            )
            causes = [Cause("metadata.finalizers", "FieldValueForbidden", message), *causes]
    if causes:
        raise _invalid(target, causes)


def _invalid(target: Target, causes: list[Cause]) -> StatusError:
    return invalid(target.kind, target.name, kinds.invalid_text(target.kind, target.name, causes), causes)


def _wanted_changed(kind: Kind, before: Object, after: Object) -> bool:
    """Whether metadata.generation counts this write: a change of anything but metadata and status.

    A Deployment's counts its annotations, too. Where a custom kind has no status subresource, `status` is a field
    like any other.
    """
    ignored = {"metadata", "status"} if not kind.custom or "status" in kind.subresources else {"metadata"}
    if any(before.get(field) != after.get(field) for field in (before.keys() | after.keys()) - ignored):
        return True
    if kind.group_resource == "deployments.apps":
        return bool(before["metadata"].get("annotations") != after["metadata"].get("annotations"))
    return False


def _stored(obj: Object) -> Object:
    return {field: value for field, value in obj.items() if field not in ("apiVersion", "kind")}


def _generated_name(prefix: str) -> str:
    """As the server does it: at most 58 characters of the prefix, then five that spell no word."""
    return prefix[:58] + "".join(secrets.choice("bcdfghjklmnpqrstvwxz2456789") for _ in range(5))
