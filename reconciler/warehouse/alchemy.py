"""Any other warehouse, through an SQLAlchemy URL. Each question has a child process of its own (`alchemy_child`).

The tables are the warehouse's own, and nothing stands between them and the query. What the other engines do by
themselves, the query says here: `where build_id <> :build_id and finished_at <= :as_of`. Otherwise a build is compared
with itself.

The connection reads only: `alchemy_child` says how far that goes with which dialect. The fence that always holds is the
role that the URL names: give it SELECT on what gates may read, and nothing else. The URL comes from a Secret that an
operator made, so it may name a file of this machine (`sqlite:////...`): a spec cannot.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import closing

from reconciler.warehouse import Answer, Query, QueryError, child

#: What sqlglot calls the dialects of SQLAlchemy, where it is not the same.
_DIALECTS = {
    "awsathena": "athena",
    "cockroachdb": "postgres",
    "mariadb": "mysql",
    "mssql": "tsql",
    "postgresql": "postgres",
    "teradatasql": "teradata",
}


class SqlAlchemyEngine:
    """An engine over an SQLAlchemy URL, which is read anew for each question: secrets are rotated."""

    def __init__(self, read_url: Callable[[], str]) -> None:
        self._read_url = read_url

    def ask(self, query: Query, timeout_s: float) -> Answer:
        """The answer, within so many seconds. Raises QueryError, whose message never holds the URL or its password, and
        what reading the URL raises.
        """
        from reconciler.warehouse import statement  # noqa: PLC0415 - a tenth of a second, for those who ask

        url = self._read_url()
        dialect = dialect_of(url)
        # How many columns there are is the gate's business, which has its own words for it.
        for problem in statement.problems(query.sql, dialect, tables=None, parameters=query.parameters):
            if problem.rule not in ("sql/one-column", "sql/hidden-table"):
                reason = "NotAllowed" if problem.rule == "sql/not-allowed" else "Syntax"
                raise QueryError(reason, f"{problem.message}{problem.hint and f': {problem.hint}'}")
        # As it was written: a warehouse knows its own dialect better than sqlglot, which would write it anew.
        return answer_of(url, query, timeout_s)


def dialect_of(url: str) -> str:
    """sqlglot's name of the URL's dialect; "" for one that it does not know."""
    from sqlglot.dialects.dialect import Dialects  # noqa: PLC0415 - a tenth of a second, for those who ask

    named = re.match(r"\w*", url)
    name = named[0] if named else ""
    name = _DIALECTS.get(name, name)
    return name if name in set(Dialects) else ""


def answer_of(url: str, query: Query, timeout_s: float) -> Answer:
    """What the warehouse says to any statement: it is the connection that only reads. Raises QueryError."""
    began = time.monotonic()
    values = {name: child.packed(value) for name, value in query.parameters.items()}
    question = {"url": url, "sql": query.sql, "parameters": values, "timeout_s": timeout_s}
    engine = ""
    with closing(child.lines_of("reconciler.warehouse.alchemy_child", question, began + timeout_s)) as lines:
        for line in lines:
            if "error" in line:
                raise QueryError(line["error"], line["message"], retryable=line["retryable"])
            if "engine" in line:
                engine = line["engine"]
                continue
            rows = tuple(tuple(child.unpacked(cell) for cell in row) for row in line["rows"])
            return Answer(tuple(line["columns"]), rows, engine, query.sql, round((time.monotonic() - began) * 1000))
    if time.monotonic() < began + timeout_s:
        raise QueryError("Failed", "the driver of the warehouse crashed")
    if engine:
        raise QueryError("Timeout", f"no answer within {timeout_s:g} s", retryable=True)
    raise QueryError("Unavailable", f"no connection to the warehouse within {timeout_s:g} s", retryable=True)
