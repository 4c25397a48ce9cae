"""DuckDB as the engine: it reads the object storage itself, in a locked process that lives for one question.

What the statement can do, and what holds it:

- write, load extensions, change settings, use the network: it is one SELECT, DuckDB's configuration is locked before
  it is seen, and the kernel lets the process write no byte into any file;
- read other files: builds and promotions are in memory, and only a query that names `inferences` has one folder open;
- run for ever, or answer a gigabyte: the process is killed at its deadline, and its memory, its CPU time and the size
  of its answer have limits.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from reconciler.warehouse import Answer, Query, QueryError, child
from reconciler.warehouse.copies import Copies, Files
from reconciler.warehouse.tables import (
    BUILD_METRICS_SQL,
    DEPLOYMENTS_SQL,
    INFERENCES,
    TABLES,
    Column,
    Table,
    Type,
    stored,
)
from runtime.storage import open_storage

_TYPES = {
    Type.TEXT: "VARCHAR",
    Type.WHOLE: "BIGINT",
    Type.NUMBER: "DOUBLE",
    Type.TRUTH: "BOOLEAN",
    Type.INSTANT: "TIMESTAMP",
    Type.TEXTS: "MAP(VARCHAR, VARCHAR)",
    Type.NUMBERS: "MAP(VARCHAR, DOUBLE)",
    Type.JSON: "JSON",
}

_VIEWS = {"build_metrics": BUILD_METRICS_SQL["duckdb"], "deployments": DEPLOYMENTS_SQL}


class DuckDb:
    """Answers questions about one object storage: `file:///folder`, or `s3://bucket/prefix` with the credentials that
    boto3 finds. `cache`: a folder of ours for copies (`copies`). Used by several threads at once.
    """

    def __init__(self, url: str, cache: Path) -> None:
        """Raises ValueError for what is no URL of an object storage."""
        self._copies = Copies(open_storage(url), cache)

    def ask(self, query: Query, timeout_s: float) -> Answer:
        """Raises QueryError."""
        from reconciler.warehouse import statement  # noqa: PLC0415 - a tenth of a second, for those who ask

        started = time.monotonic()
        until = started + timeout_s
        prepared = statement.ready(query, "duckdb", style="dollar")
        values = {name: _bound(query.parameters[name]) for name in prepared.parameters}
        narrowed = {}
        for column, value, is_parameter in prepared.narrowed:
            narrowed[column] = str(query.parameters[value]) if is_parameter else value
        setup, allowed = self._setup(prepared.tables, str(query.parameters.get("model", "")), narrowed, until)
        question = {
            "setup": setup,
            "allowed": allowed,
            "sql": prepared.sql,
            "parameters": values,
            "timeout_s": max(until - time.monotonic(), 0.0),
        }
        answer = _asked(question, until)
        return Answer(
            tuple(answer["columns"]),
            tuple(tuple(child.unpacked(cell) for cell in row) for row in answer["rows"]),
            f"duckdb {answer['version']}",
            prepared.sql,
            round((time.monotonic() - started) * 1000),
        )

    def _setup(
        self, names: frozenset[str], model: str, narrowed: Mapping[str, str], until: float
    ) -> tuple[Sequence[Mapping[str, Any]], str]:
        """What makes the tables, and the folder that stays open, within that of the last step; "" for none."""
        steps, allowed = [], ""
        for table in stored(names):
            if table is INFERENCES:
                files = self._copies.inferences(narrowed, until)
                sql = _logs(files) if files else _empty(table)
                allowed = INFERENCES.prefix if files else ""
            else:
                files = self._copies.rows(table, model, until)
                sql = _rows(table, files) if files else _empty(table)
            views = [f"CREATE VIEW {name} AS {_VIEWS[name]}" for name in sorted(names) if TABLES[name].of == table.name]
            steps.append({"folder": str(files.folder if files else "/"), "sql": [sql, *views]})
        return steps, allowed


def _empty(table: Table) -> str:
    return f"CREATE TABLE {table.name} ({', '.join(f'{each.name} {_TYPES[each.type]}' for each in table.columns)})"


def _rows(table: Table, files: Files) -> str:
    """Into memory: then nothing need be open while the statement runs."""
    source = f"read_json('{files.pattern}', format = 'newline_delimited', columns = {_columns(table.columns)})"
    return f"CREATE TABLE {table.name} AS FROM {source}"


def _logs(files: Files) -> str:
    """As they lie there: they may be large. A line that cannot be read is left out, as one that was not sampled."""
    columns = [column for column in INFERENCES.columns if not column.partition]
    partitions = {column.name: "VARCHAR" for column in INFERENCES.columns if column.partition}
    selected = ", ".join(f"{each.key or each.name} AS {each.name}" for each in INFERENCES.columns)
    return (
        f"CREATE VIEW inferences AS SELECT {selected} FROM read_json('{files.pattern}', "  # noqa: S608 - checked
        f"format = 'newline_delimited', compression = 'gzip', columns = {_columns(columns)}, ignore_errors = true, "
        f"hive_partitioning = true, hive_types = {_struct(partitions)})"
    )


def _columns(columns: Sequence[Column]) -> str:
    return _struct({each.key or each.name: f"'{_TYPES[each.type]}'" for each in columns})


def _struct(pairs: Mapping[str, str]) -> str:
    return f"{{{', '.join(f'{name}: {value}' for name, value in pairs.items())}}}"


# -- the process -----------------------------------------------------------------------------------------------------

#: What the process knows of our environment: where Python's modules are. The rest may hold secrets.
_KEPT = ("PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH")

#: Reasons that another try may find gone.
_PASSING = ("Timeout", "Unavailable")


def _asked(question: Mapping[str, Any], until: float) -> dict[str, Any]:
    """The answer of a process of its own."""
    env = {"LANG": "C.UTF-8", "TZ": "UTC"} | {name: os.environ[name] for name in _KEPT if name in os.environ}
    with closing(child.lines_of("reconciler.warehouse.duckdb_child", question, until, env)) as lines:
        for answer in lines:
            if "reason" in answer:
                raise QueryError(answer["reason"], answer["message"], retryable=answer["reason"] in _PASSING)
            return answer
    if time.monotonic() < until:
        raise QueryError("Failed", "DuckDB's process crashed; the query may need more memory than it may use")
    raise QueryError("Timeout", "the query took too long", retryable=True)


def _bound(value: str | datetime) -> Any:
    """A parameter as the tables have it."""
    return child.packed(value.astimezone(UTC).replace(tzinfo=None) if isinstance(value, datetime) else value)
