"""What a keeper needs of its neighbours, and tells them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from reconciler.daemon.drifts import Drifted
from reconciler.daemon.health import Health
from reconciler.inventory import Approved
from reconciler.plan import Guard, Plan
from reconciler.readiness import Readiness
from reconciler.report import Done
from renderers.manifest import ObjectId
from schemas.problem import Problem


class Leadership(Protocol):
    """Whether this process may write."""

    @property
    def leads(self) -> bool: ...

    def keeps_all(self) -> str:
        """Why nothing may be deleted yet; "" where it may."""


class Pass(NamedTuple):
    """That a pass has ended. Its plan is told before, and not kept: all its manifests would be kept with it."""

    environment: str
    seconds: float
    at: float
    requests: int  #: to its cluster meanwhile


class Listener(Protocol):
    """Who is told of what a keeper does. Every method returns at once, and raises nothing."""

    def limited(self, environment: str, limits: Collection[Guard], held: int, forbidden: int) -> None: ...

    def warned(self, environment: str, warnings: Collection[Problem]) -> None: ...

    def approved(self, environment: str, approved: Approved) -> None: ...

    def planned(self, environment: str, planned: Plan) -> None: ...

    def did(self, environment: str, done: Done) -> None: ...

    def drifted(self, environment: str, drift: Drifted, now: float) -> None: ...

    def passed(self, one: Pass) -> None: ...

    def forgot(self, environment: str) -> None: ...

    def lost(self, environment: str, why: str) -> None: ...


@dataclass(slots=True)
class Ties:
    """What a keeper needs of its neighbours.

    `again` reads all specs from Git once more and says what the environment should have; None where that failed.
    `built` says what has become of a build, wherever it is made. `moved` tells that something has changed which others
    may wait for: a Job, pods, a route of this model.
    """

    leadership: Leadership
    listener: Listener
    again: Callable[[str], frozenset[ObjectId] | None]
    built: Callable[[str], Readiness | None]
    moved: Callable[[str], None]
    health: Health
