"""The model analytics: SQL over what the object storage knows of builds, promotions and inferences.

An engine answers one question at a time, with at most two rows: a gate needs one, and must know of a second. It reads
only, in UTC, with bound parameters, and gives up at its deadline.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple, Protocol

#: Rows that are fetched, whatever a query would give: one is an answer, two are a mistake.
ROWS = 2


class Query(NamedTuple):
    """A question. `parameters` are those that the SQL may name: model, environment, build_id, as_of."""

    sql: str
    parameters: Mapping[str, str | datetime]


class Answer(NamedTuple):
    """What an engine said. Cells are of Python's types, as the engine's driver gives them: None, bool, int, float,
    Decimal, str, bytes, date, datetime, timedelta, list.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    engine: str  #: "duckdb 2.0.0", for the evidence
    sql: str  #: as it was run
    duration_ms: int


class QueryError(Exception):
    """A question that got no answer.

    `reason` is one word in CamelCase: Syntax, NotAllowed, Permission, Timeout, TooLarge, Unavailable, Failed.
    `message` is a sentence without secrets. `retryable`: another try may fare better.
    """

    def __init__(self, reason: str, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.retryable = retryable


class Engine(Protocol):
    """What answers SQL for an environment."""

    def ask(self, query: Query, timeout_s: float) -> Answer:
        """Raises QueryError."""
        ...
