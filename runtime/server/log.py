"""The server's own log: a line of JSON for each event, on the standard error output. A request that is well is none."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from typing import Any


def now() -> datetime:
    """The moment, in UTC."""
    return datetime.now(UTC)  # noqa: TID251 - the edge: everything that decides is given the moment


def timestamp(moment: datetime) -> str:
    """RFC 3339 with milliseconds."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def write(level: str, message: str, **fields: Any) -> None:
    """One line; `level` is info, warning or error. Fields that are None are left out."""
    line = {"time": timestamp(now()), "level": level, "message": message}
    line |= {name: value for name, value in fields.items() if value is not None}
    # In one piece, past any buffer: several processes write here.
    data = (json.dumps(line, ensure_ascii=False, default=str) + "\n").encode("utf-8", "replace")
    while data:
        data = data[os.write(2, data) :]
