"""SQL of specs: judged whatever it is; what passes is one SELECT of one column that opens nothing, to DuckDB too."""

# ruff: noqa: PT017 - what a fuzzer tries is told apart without pytest

from __future__ import annotations

import tempfile
import zlib
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from reconciler.warehouse import Query, QueryError
from reconciler.warehouse.duckdb import DuckDb
from reconciler.warehouse.statement import Problem, misplaced, prepared, problems
from reconciler.warehouse.tables import COLUMNS, PARAMETERS, TABLES, Type
from tests.fuzz.targets.target import Target

_DIALECTS = ("athena", "postgres", "mysql", "bigquery", "snowflake", "tsql", "oracle", "")
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
_BOUND: dict[str, str | datetime] = {
    "model": "m",
    "environment": "e",
    "build_id": "b",
    "as_of": datetime(2026, 11, 21, tzinfo=UTC),
}


def _database() -> duckdb.DuckDBPyConnection:
    """All tables, empty, and nothing of the machine within reach, as the process that answers has it."""
    options = {
        "threads": "1",
        "memory_limit": "256MB",
        "temp_directory": "",
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "python_enable_replacements": "false",
    }
    connection = duckdb.connect(":memory:", config=dict(options))
    for table in TABLES.values():
        columns = ", ".join(f"{column.name} {_TYPES[column.type]}" for column in table.columns)
        connection.execute(f"CREATE TABLE {table.name} ({columns})")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


_DATABASE = _database()


def check(data: bytes) -> None:
    sql = data.decode(errors="replace")
    number = zlib.crc32(data)
    for dialect in ("duckdb", _DIALECTS[number % len(_DIALECTS)]):
        found = problems(sql, dialect, tables=COLUMNS if dialect else None, parameters=PARAMETERS)
        _are_told(found)
        _are_told(misplaced(sql, dialect))
        if not found:
            for style in ("dollar", "question", "colon"):
                assert prepared(sql, dialect, exclude_candidate=True, style=style).sql
        if not found and dialect == "duckdb":
            _is_one_select_of_one_column(prepared(sql, dialect, exclude_candidate=True, style="dollar").sql)
            if number % 64 == 0:
                _runs(sql)


def _are_told(found: list[Problem]) -> None:
    for problem in found:
        assert problem.rule.startswith("sql/"), problem
        for text in (problem.message, problem.hint):
            assert text.isprintable(), problem
            assert len(text) < 5000, problem


def _is_one_select_of_one_column(sql: str) -> None:
    """By DuckDB's own parser and binder. It may refuse what we take (types, and functions that it has not)."""
    try:
        statements = _DATABASE.extract_statements(sql)
    except duckdb.ParserException:
        return
    assert len(statements) == 1, sql
    assert statements[0].type == duckdb.StatementType.SELECT, (statements[0].type, sql)
    used = {name: value for name, value in _BOUND.items() if f"${name}" in sql}
    try:
        columns = _DATABASE.execute(f"DESCRIBE {sql}", used).fetchall()
    except (duckdb.PermissionException, duckdb.IOException, duckdb.HTTPException) as error:
        raise AssertionError(f"what passed as harmless opens something: {error}: {sql}") from error
    except duckdb.Error:
        return
    if not any(word in sql.lower() for word in ("*", "columns", "unnest")):  # where only the engine knows
        assert len(columns) == 1, (columns, sql)


def _runs(sql: str) -> None:
    """In the process that answers in production, with all its limits."""
    try:
        with tempfile.TemporaryDirectory() as empty:
            answer = DuckDb(Path(empty).as_uri(), Path(empty, "cache")).ask(Query(sql, _BOUND), timeout_s=5)
    except QueryError as error:
        assert error.reason not in ("NotAllowed", "Unavailable"), (error, sql)
        assert str(error).isprintable(), error
    else:
        assert answer.sql


_SEEDS = """
select 1
select 'a;b' -- c
select max(value) from build_metrics where model = :model and name = 'f1'
select max(metrics['f1']) from builds where metrics['f1'] < 1 and parameters['a:b'] = 'x:model'
with best as (select max(value) as v from build_metrics) select v from best
with recursive r(n) as (select 1 union all select n + 1 from r where n < 9) select max(n) from r
select count(*) filter (where status >= 500) / count(*) from inferences where model = :model and date = '2026-11-21'
select avg(v) over (order by at) as w from (select value v, finished_at at from build_metrics) qualify w > 1
select sum(x) from (select unnest(range(10)) as x)
select list_sum(list_transform([1, 2], x -> x + 1))
select (select max(value) from build_metrics b where b.build_id = builds.build_id) from builds limit 1
(select 1) union all (select 2) order by 1 limit 1
from builds select count(*)
select max(value) from build_metrics m join deployments d using (build_id) where d.replaced_at is null
select columns('build.*') from builds
pivot builds on model using count(*)
select * from read_text('/etc/passwd')
select * from '/etc/passwd'
select 1 from builds as of timestamp '2020-01-01'
select :as_of - interval 7 day
select {'a': 1}.a, [10, 20][1:1][1]
select 1; drop table builds
with x as (insert into builds values (1) returning *) select * from x
select e'\\x41' || $$x$$ || x'00'
select cast('1' as decimal(10, 2))::int
"""

TARGET = Target(
    check,
    words=[
        *(
            "select ",
            " from ",
            " where ",
            " group by ",
            " order by ",
            " limit ",
            " with ",
            " as ",
            " recursive ",
            "union ",
        ),
        *("all ", "distinct ", "join ", "lateral ", "using (", "on ", "case ", "when ", "then ", "end ", "cast(", "::"),
        *(
            "builds",
            "build_metrics",
            "promotions",
            "deployments",
            "inferences",
            "model",
            "value",
            "metrics",
            "finished_at",
        ),
        *(
            ":model",
            ":build_id",
            ":as_of",
            ":environment",
            "$model",
            "?",
            "count(*)",
            "max(",
            "unnest(",
            "range(",
            "struct",
        ),
        *(
            "read_text(",
            "read_csv(",
            "glob(",
            "getenv(",
            "query(",
            "'/etc/passwd'",
            "copy ",
            "attach ",
            "install ",
            "set ",
        ),
        *(
            "insert into ",
            "delete from ",
            "update ",
            "returning ",
            "into ",
            "for update",
            "pragma ",
            "call ",
            "describe ",
        ),
        *(
            "pivot ",
            "unpivot ",
            "columns(",
            "exclude ",
            "replace ",
            "qualify ",
            "over (",
            "window ",
            "filter (",
            "sample ",
        ),
        *(
            "values ",
            "summarize ",
            "show ",
            "explain ",
            "--",
            "/*",
            "*/",
            "/*!",
            ";",
            "$$",
            "e'",
            "u&'",
            "x'",
            "{",
            "}",
            "->",
        ),
        *(
            "interval ",
            "date ",
            "timestamp ",
            "at time zone ",
            "ilike ",
            "similar to ",
            "positional join ",
            "asof join ",
        ),
    ],
    seeds=[line.encode() for line in _SEEDS.strip().splitlines()],
    max_bytes=1024,
)
