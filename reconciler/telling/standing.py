"""What the reconciler knows of itself, as data: `reconcile status` and the overview page show the same. Pure.

The daemon writes it into a ConfigMap of its own cluster, so that whoever may read that needs no way to the daemon.
Lists hold the first things and say how many there are: a ConfigMap holds 1 MiB, and a person reads less than that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cache
from typing import Any, Generic, TypeVar

import orjson
from pydantic import AwareDatetime, TypeAdapter, ValidationError

from reconciler.inventory import NAMESPACE
from renderers.manifest import Body, ObjectId
from schemas.problem import Problem

#: With a dot: `trueup-<environment>` are inventories, and an environment may be called "status".
NAME = "trueup.status"
OBJECT = ObjectId("v1", "ConfigMap", NAMESPACE, NAME)

#: The daemon reports at least so often, whether anything has changed or not.
EVERY = timedelta(seconds=30)
#: What is older than this says nothing about now any more: four reports are missing.
STALE = timedelta(minutes=2)

#: How many things of a list are worth keeping.
SHOWN = 50
#: Bytes of JSON. The API server takes 1 MiB; what is written this often had better be small.
_ROOM = 256 * 1024
#: Characters of one text.
_WORDS = 500
_KEY = "standing.json"

T = TypeVar("T")


class StandingError(Exception):
    """The ConfigMap is not one that a reconciler wrote. The sentence says why."""


class State(StrEnum):
    """Where an environment stands, in one word. Of several that are true, the first of this order."""

    SUSPENDED = "Suspended"
    UNREACHABLE = "Unreachable"  #: its cluster does not answer
    DEGRADED = "Degraded"  #: something failed, and does not mend itself
    BLOCKED = "Blocked"  #: a person has to approve of something
    PROGRESSING = "Progressing"  #: under way
    SYNCED = "Synced"  #: as the specs ask for


def state_of(
    *, suspended: bool = False, reachable: bool = True, failed: bool = False, blocked: bool = False, busy: bool = False
) -> State:
    """The one word for what is true of an environment."""
    flags = (suspended, not reachable, failed, blocked, busy, True)
    return next(state for state, is_so in zip(State, flags, strict=True) if is_so)


@dataclass(frozen=True, slots=True)
class Listed(Generic[T]):
    """The first things of a list, and how many it has."""

    shown: tuple[T, ...] = ()
    total: int = 0

    @property
    def more(self) -> int:
        """How many are not shown."""
        return max(self.total - len(self.shown), 0)


def listed(items: Iterable[T], most: int = SHOWN) -> Listed[T]:
    """The first `most` of the items. They come in order of importance."""
    everything = tuple(items)
    return Listed(everything[:most], len(everything))


@dataclass(frozen=True, slots=True)
class Source:
    """The repository of the specs. `trouble`: why it could not be fetched, or its newest commit not be used."""

    repository: str = ""
    fetched_at: AwareDatetime | None = None
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Specs:
    """The specs of the revision: how many are valid, and what is wrong with the others."""

    count: int = 0
    problems: Listed[Problem] = Listed()

    @property
    def is_wrong(self) -> bool:
        """Whether there is an error, as far as the list goes: errors come first in it."""
        return any(problem.severity == "error" for problem in self.problems.shown)


@dataclass(frozen=True, slots=True)
class Unsettled:
    """A model that is not yet as its specs ask for."""

    model: str
    why: str
    since: AwareDatetime | None = None


@dataclass(frozen=True, slots=True)
class Limit:
    """What a plan ran into (`plan.Guard`). `approval`: the id that lifts it; "" where nobody can."""

    rule: str
    message: str
    approval: str = ""


@dataclass(frozen=True, slots=True)
class Drift:
    """An object that somebody changed, or deleted (no fields). Paths of fields, never their values: some are secret."""

    object: str
    """As `str(ObjectId)` has it: "Deployment/prod/churn"."""
    fields: tuple[str, ...] = ()
    manager: str = ""
    """Of the fields, as the server recorded it: "kubectl-edit". "" where it did not."""
    since: AwareDatetime | None = None
    mended: bool = True
    """False: it is only reported (`drift: report`), or could not be mended. True: lately."""

    def __str__(self) -> str:
        """What happened, without the object: "kubectl-edit changed spec.replicas; it is mended"."""
        who = self.manager or "somebody"
        what = ", ".join(self.fields[:5]) + (f" and {len(self.fields) - 5} more" if len(self.fields) > 5 else "")
        return f"{who} {f'changed {what}' if what else 'deleted it'}; it is {'mended' if self.mended else 'left so'}"


@dataclass(frozen=True, slots=True)
class Pass:
    """The last look at an environment: when, how long it took, and how many requests it sent."""

    at: AwareDatetime
    seconds: float = 0.0
    requests: int = 0


@dataclass(frozen=True, slots=True)
class EnvironmentStanding:
    """Where one environment stands. `objects`: how many there are in each state of readiness."""

    cluster: str = ""
    revision: str = ""
    """The commit that was last applied whole."""
    state: State = State.PROGRESSING
    objects: Mapping[str, int] = field(default_factory=dict)
    unsettled: Listed[Unsettled] = Listed()
    limits: Listed[Limit] = Listed()
    drift: Listed[Drift] = Listed()
    last_pass: Pass | None = None
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """All of it, at one moment (`at`)."""

    at: AwareDatetime
    revision: str = ""
    """The commit whose specs are asked for."""
    branch: str = ""
    committed_at: AwareDatetime | None = None
    applied_at: AwareDatetime | None = None
    """When every environment had it."""
    leader: str = ""
    source: Source = Source()
    specs: Specs = Specs()
    environments: Mapping[str, EnvironmentStanding] = field(default_factory=dict)
    left_out: int = 0
    """Environments for which there was no room."""

    def age(self, now: datetime) -> timedelta:
        """How old this is. A clock that goes ahead of ours makes it new, and no older than that."""
        return max(now - self.at, timedelta())

    def is_stale(self, now: datetime) -> bool:
        """Whether the reconciler has not reported for so long that it may not run at all."""
        return self.age(now) > STALE

    def as_data(self) -> dict[str, Any]:
        """As plain data: moments as text in UTC."""
        data: dict[str, Any] = _adapter().dump_python(self, mode="json")
        return data


def lasted(span: timedelta) -> str:
    """A span in the largest unit that says enough: "12 s", "7 min", "3 h", "5 d"."""
    seconds = max(int(span.total_seconds()), 0)
    for unit, size, least in (("d", 86_400, 2), ("h", 3600, 2), ("min", 60, 2)):
        if seconds >= least * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


# -- to and from the ConfigMap --------------------------------------------------------------------------------------


def to_config_map(standing: Standing) -> Body:
    """The ConfigMap, within its bounds: the longer a list and the less important, the sooner it is cut."""
    whole = _shortened(standing.as_data())
    text = next(text for text in map(orjson.dumps, _ever_smaller(whole)) if len(text) <= _ROOM)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": NAME,
            "namespace": NAMESPACE,
            "labels": {"app.kubernetes.io/managed-by": "trueup", "app.kubernetes.io/component": "status"},
        },
        "data": {_KEY: text.decode()},
    }


def from_config_map(body: Body) -> Standing:
    """The standing that a ConfigMap holds. Raises StandingError."""
    text = (body.get("data") or {}).get(_KEY, "")
    try:
        return _adapter().validate_json(text)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or _KEY
        raise StandingError(f"ConfigMap {NAMESPACE}/{NAME}: {where}: {first['msg']}") from None


@cache
def _adapter() -> TypeAdapter[Standing]:
    return TypeAdapter(Standing)


def _shortened(data: Any) -> Any:
    if isinstance(data, dict):
        return {_shortened(key): _shortened(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_shortened(item) for item in data]
    if isinstance(data, str):
        text = data if len(data) <= _WORDS else f"{data[: _WORDS - 1]}…"
        # JSON cannot hold a lone surrogate, which is what a file name that is no UTF-8 has.
        return text if text.isascii() else text.encode(errors="backslashreplace").decode()
    return data


def _ever_smaller(data: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The data, then with shorter and shorter lists, at last without most environments. What is fine goes first."""
    yield data
    environments: dict[str, dict[str, Any]] = data["environments"]
    for most in (10, 3, 0):
        for key in ("drift", "unsettled"):
            for one in environments.values():
                _cut(one[key], most)
            yield data
        _cut(data["specs"]["problems"], max(most, 1))
        yield data
    for one in environments.values():
        _cut(one["limits"], 1)
    yield data
    by_state = {state.value: number for number, state in enumerate(State)}
    gravest = sorted(environments.items(), key=lambda item: by_state[item[1]["state"]])
    while gravest:
        data["left_out"] += len(gravest) - len(gravest) // 2
        gravest = gravest[: len(gravest) // 2]
        data["environments"] = dict(sorted(gravest))
        yield data


def _cut(some: dict[str, Any], most: int) -> None:
    some["shown"] = some["shown"][:most]
