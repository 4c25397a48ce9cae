"""What a controller decides to write, as values, and how it is carried out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from embedded.errors import StatusError
from embedded.loop import Cluster
from embedded.workloads.events import Recorder

Object = dict[str, Any]


class Create(NamedTuple):
    """A new object; `owner` is who is said to have created it."""

    resource: str
    obj: Object
    owner: Mapping[str, Any]


class Replace(NamedTuple):
    """An object as it shall be, changed from how it was read; `subresource`: only that part of it."""

    resource: str
    obj: Object
    subresource: str = ""


class Delete(NamedTuple):
    """The end of an object; `owner` is who is said to have deleted it, None: nobody says so."""

    resource: str
    obj: Mapping[str, Any]
    owner: Mapping[str, Any] | None = None


class Note(NamedTuple):
    """Something to tell the reader of `kubectl describe`."""

    about: Mapping[str, Any]
    reason: str
    message: str
    type: str = "Normal"


Write = Create | Replace | Delete | Note


class Decision(NamedTuple):
    """What is to be written, in order, and in how many seconds to look again without an event."""

    writes: Sequence[Write] = ()
    again: float | None = None


def sooner(*times: float | None) -> float | None:
    """The first of several moments to look again; None where there is none."""
    return min((max(time, 0.0) for time in times if time is not None), default=None)


class Writer:
    """Carries out what a controller decided. `component` is its name in Events."""

    def __init__(self, cluster: Cluster, recorder: Recorder, component: str) -> None:
        self._cluster = cluster
        self._recorder = recorder
        self._component = component

    def carry_out(self, writes: Iterable[Write]) -> StatusError | None:
        """All writes in order, up to a creation that is refused: that refusal is given back.

        A namespace that is going refuses all, and that is no failure: soon there is nothing left to create for.
        """
        for write in writes:
            match write:
                case Create():
                    refusal = self._create(write)
                    if refusal is not None:
                        return None if _is_going(refusal) else refusal
                case Note(about, reason, message, kind):
                    self._note(about, kind, reason, message)
                case Delete():
                    self._delete(write)
                case Replace(resource, obj, subresource):
                    self._replace(resource, obj, subresource)
        return None

    def _create(self, write: Create) -> StatusError | None:
        resource, obj, owner = write
        try:
            created = self._cluster.create(resource, owner["metadata"].get("namespace", ""), obj)
        except StatusError as refused:
            if not _is_going(refused):
                self._note(owner, "Warning", "FailedCreate", f"Error creating: {refused.message}")
            return refused
        if created is not None and resource == "pods":
            self._note(owner, "Normal", "SuccessfulCreate", f"Created pod: {created['metadata']['name']}")
        return None

    def _delete(self, write: Delete) -> None:
        resource, obj, owner = write
        namespace, name = _place(obj)
        self._cluster.delete(resource, namespace, name, uid=obj["metadata"]["uid"])
        if owner is not None:
            self._note(owner, "Normal", "SuccessfulDelete", f"Deleted pod: {name}")

    def _replace(self, resource: str, obj: Object, subresource: str) -> None:
        def change(live: Object) -> None:
            # What this very decision wrote before (a status) gave the object another version.
            version = live["metadata"]["resourceVersion"]
            live.clear()
            live.update(obj, metadata={**obj["metadata"], "resourceVersion": version})

        self._cluster.update(resource, *_place(obj), change, subresource)

    def _note(self, about: Mapping[str, Any], kind: str, reason: str, message: str) -> None:
        self._recorder.record(about, self._component, kind, reason, message)


def _place(obj: Mapping[str, Any]) -> tuple[str, str]:
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def _is_going(refused: StatusError) -> bool:
    causes = (refused.details or {}).get("causes", ())
    gone = refused.code == 404 and (refused.details or {}).get("kind") == "namespaces"
    return gone or any(cause.get("reason") == "NamespaceTerminating" for cause in causes)
