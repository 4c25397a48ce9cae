"""The SQLAlchemy engine, against a real PostgreSQL, and against SQLite."""

from __future__ import annotations

import math
import os
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from reconciler.warehouse import Answer, Query, QueryError
from reconciler.warehouse.alchemy import SqlAlchemyEngine, answer_of
from reconciler.warehouse.opening import engine_for
from schemas.environment import Environment
from tests.contract.postgres import PASSWORD, Postgres, database, postgres  # noqa: F401 - fixtures

AS_OF = datetime(2026, 3, 29, 1, 30, tzinfo=UTC)
PARAMETERS = {"model": "churn", "environment": "production", "build_id": "ab" * 32, "as_of": AS_OF}

Ask = Callable[..., Answer]


def asker(url: str) -> Ask:
    """`unseen`: what only the connection can refuse, past the look at the statement."""

    def ask(sql: str, timeout_s: float = 20, *, unseen: bool = False, **parameters: Any) -> Answer:
        query = Query(sql, PARAMETERS | parameters)
        return answer_of(url, query, timeout_s) if unseen else SqlAlchemyEngine(lambda: url).ask(query, timeout_s)

    return ask


def url_of(server: Postgres, name: str, password: str = PASSWORD, user: str = "reader") -> str:
    return f"postgresql+psycopg://{user}:{quote(password, safe='')}@127.0.0.1:{server.port}/{name}"


@pytest.fixture
def ask(postgres: Postgres, database: str) -> Ask:  # noqa: F811
    """Asks PostgreSQL, as a role that may write: it is the transaction that must not."""
    postgres.admin(
        """create table builds (build_id text, model text, auc numeric, finished_at timestamptz);
           insert into builds values ('aa', 'churn', 0.71, '2026-03-28'), ('ab', 'churn', 0.74, '2026-03-29'),
                                     ('zz', 'other', 0.99, '2026-03-29');
           grant all on builds to reader; grant create on schema public to reader;
           create table salaries (amount int); create sequence numbers; grant all on sequence numbers to reader""",
        database,
    )
    return asker(url_of(postgres, database))


def refused(ask: Ask, sql: str, **arguments: Any) -> QueryError:
    with pytest.raises(QueryError) as caught:
        ask(sql, **arguments)
    assert PASSWORD not in caught.value.message
    assert quote(PASSWORD, safe="") not in caught.value.message
    return caught.value


# -- values ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("null", None),
        ("null::numeric", None),
        ("0.65", Decimal("0.65")),
        ("0.10", Decimal("0.10")),
        ("123456789012345678901234567890.123456789012345678901234567890::numeric", None),
        ("7", 7),
        ("9223372036854775807", 9223372036854775807),
        ("1e-7::float8", 1e-07),
        ("0.1::float4", 0.1),
        ("'infinity'::float8", math.inf),
        ("'-infinity'::numeric", Decimal("-Infinity")),
        ("true", True),
        ("'0.65'", "0.65"),
        ("''", ""),
        ("date '2026-03-29'", date(2026, 3, 29)),
        ("interval '1 day 2 seconds'", timedelta(days=1, seconds=2)),
        (r"'\x00ff'::bytea", b"\x00\xff"),
        ("array[1, 2]", [1, 2]),
        ("""'{"a": 1}'::jsonb""", "{'a': 1}"),
        ("'0b78a4e8-9c37-4f6c-8f0b-111111111111'::uuid", "0b78a4e8-9c37-4f6c-8f0b-111111111111"),
    ],
)
def test_a_cell_has_the_type_and_every_digit_that_the_warehouse_gave(ask: Ask, sql: str, expected: Any):
    answer = ask(f"select {sql} as x")
    if "::numeric" in sql and sql[0].isdigit():
        expected = Decimal(sql.removesuffix("::numeric"))
    assert answer.rows == ((expected,),)
    assert type(answer.rows[0][0]) is type(expected)
    assert answer.columns == ("x",)
    assert answer.engine.startswith("postgresql 1")
    assert answer.sql == f"select {sql} as x"
    assert answer.duration_ms > 0


@pytest.mark.parametrize("sql", ["'nan'::float8", "'nan'::numeric"])
def test_nan_stays_nan(ask: Ask, sql: str):
    ((cell,),) = ask(f"select {sql}").rows
    assert type(cell) is (float if "float8" in sql else Decimal)
    assert math.isnan(cell)


def test_times_are_in_utc_whatever_zone_the_server_has(ask: Ask):
    moment = "timestamptz '2026-03-29 01:30+00'"
    sql = f"select current_setting('timezone'), {moment}, ({moment})::date"
    ((shown, cell, day),) = ask(sql, unseen=True).rows
    assert (shown, cell, day) == ("UTC", AS_OF, date(2026, 3, 29))
    assert cell.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    ("condition", "rows"), [("model = 'none'", 0), ("model = 'other'", 1), ("model = 'churn'", 2), ("true", 2)]
)
def test_two_rows_are_all_that_is_fetched(ask: Ask, condition: str, rows: int):
    assert len(ask(f"select auc from builds where {condition}").rows) == rows


def test_columns_are_named_even_where_there_are_no_rows(ask: Ask):
    assert ask("select auc, model from builds where false") == ask("select 1")._replace(
        columns=("auc", "model"),
        rows=(),
        sql="select auc, model from builds where false",
        duration_ms=pytest.approx(0, abs=20_000),
    )


def test_a_value_that_python_has_no_type_for_is_an_error_and_no_guess(ask: Ask):
    error = refused(ask, "select 'infinity'::timestamptz")
    assert (error.reason, error.retryable) == ("Failed", False)


# -- parameters -----------------------------------------------------------------------------------------------------


def test_parameters_are_bound_and_never_pasted(ask: Ask):
    hostile = "x' or 1=1; drop table builds; --"
    assert ask("select count(*) from builds where model = :model", model=hostile).rows == ((0,),)
    assert ask("select count(*) from builds where model = :model").rows == ((2,),)
    assert ask("select :model || '', :model || ''").rows == (("churn", "churn"),)


def test_a_query_says_itself_what_it_compares_with(ask: Ask):
    answer = ask(
        "select max(auc) from builds where model = :model and build_id <> :build_id and finished_at <= :as_of",
        build_id="ab",
    )
    assert answer.rows == ((Decimal("0.71"),),)


def test_an_instant_is_bound_as_that_instant(ask: Ask):
    assert ask("select :as_of = timestamptz '2026-03-28 21:30-04'").rows == ((True,),)


def test_colons_and_percent_signs_that_are_no_parameters_stay_what_they_are(ask: Ask):
    sql = r"""select ':model', '12:30'::time::text, 'a%s%%', $$ :as_of $$, (array[1,2,3])[1:2],
              '\:model' /* :environment */ -- :build_id
              """
    (row,) = ask(sql).rows
    assert row == (":model", "12:30:00", "a%s%%", " :as_of ", [1, 2], r"\:model")


def test_a_parameter_that_nobody_gave_is_an_error_of_syntax(ask: Ask):
    assert refused(ask, "select :threshold").reason == "Syntax"


# -- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("insert into builds values ('x')", "Syntax"),  # no cursor can be declared for it
        ("update builds set auc = 1", "Syntax"),
        ("delete from builds returning auc", "Syntax"),
        ("with gone as (delete from builds returning auc) select max(auc) from gone", "NotAllowed"),
        ("create table x (a int)", "Syntax"),
        ("drop table builds", "Syntax"),
        ("select * into copied from builds", "Syntax"),
        ("select 1; delete from builds", "Syntax"),
        ("select 1; commit; delete from builds", "Syntax"),
        ("set transaction read write", "Syntax"),
        ("select nextval('numbers')", "NotAllowed"),
        ("select 1 from builds for update", "NotAllowed"),
        ("copy builds to program 'touch /tmp/x'", "Syntax"),
        ("select pg_read_file('/etc/passwd')", "Permission"),
        ("selectt 1", "Syntax"),
        ("", "Syntax"),
    ],
)
def test_what_is_not_reading_is_refused_and_changes_nothing(
    ask: Ask,
    postgres: Postgres,  # noqa: F811
    database: str,  # noqa: F811
    sql: str,
    reason: str,
):
    error = refused(ask, sql, unseen=True)
    assert (error.reason, error.retryable) == (reason, False), error.message
    assert error.message
    assert refused(ask, sql).message
    assert postgres.admin("select count(*), max(auc) from builds", database) == [(3, Decimal("0.99"))]
    tables = postgres.admin("select count(*) from pg_tables where schemaname = 'public'", database)
    assert tables == [(2,)]


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("select amount from salaries", "Permission"),
        ("select none from builds", "Syntax"),
        ("select 1 from nowhere", "Syntax"),
        ("select 1/0", "Failed"),
        ("select 'x'::int", "Failed"),
    ],
)
def test_what_only_the_warehouse_knows_to_be_wrong_is_not_tried_again(ask: Ask, sql: str, reason: str):
    error = refused(ask, sql)
    assert (error.reason, error.retryable) == (reason, False), error.message


def test_what_a_transaction_that_only_reads_lets_through_is_never_committed(
    ask: Ask,
    postgres: Postgres,  # noqa: F811
    database: str,  # noqa: F811
):
    assert refused(ask, "select lo_create(4711)").reason == "NotAllowed", "it is seen before"
    assert ask("select lo_create(4711)", unseen=True).rows == ((4711,),)
    assert postgres.admin("select count(*) from pg_largeobject_metadata", database) == [(0,)]


def test_a_transaction_cannot_make_itself_write(ask: Ask):
    error = refused(ask, "select set_config('transaction_read_only', 'off', false)", unseen=True)
    assert (error.reason, error.retryable) == ("NotAllowed", False)


def test_a_missing_column_is_named(ask: Ask):
    assert 'column "acu" does not exist' in refused(ask, "select acu from builds").message


# -- time and size --------------------------------------------------------------------------------------------------


def test_a_query_that_runs_too_long_is_ended_on_the_server_too(ask: Ask, postgres: Postgres):  # noqa: F811
    began = time.monotonic()
    error = refused(ask, "select pg_sleep(600)", timeout_s=4, unseen=True)
    assert time.monotonic() - began < 30
    assert (error.reason, error.retryable) == ("Timeout", True)
    deadline = time.monotonic() + 5
    while postgres.admin("select 1 from pg_stat_activity where usename = 'reader'"):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_lock_of_somebody_else_is_not_waited_for_beyond_the_time(
    ask: Ask,
    postgres: Postgres,  # noqa: F811
    database: str,  # noqa: F811
):
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        import psycopg

        with psycopg.connect(
            host=str(postgres.folder), port=postgres.port, user="admin", dbname=database
        ) as connection:
            connection.execute("lock table builds")
            held.set()
            release.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(10)
    error = refused(ask, "select auc from builds", timeout_s=4)
    release.set()
    thread.join()
    assert (error.reason, error.retryable) == ("Timeout", True)


def test_gigabytes_of_rows_cost_as_much_as_two(ask: Ask):
    began = time.monotonic()
    answer = ask("select repeat('x', 1000), n from generate_series(1, 3000000) as s(n)", timeout_s=20)
    assert [row[1] for row in answer.rows] == [1, 2]
    assert time.monotonic() - began < 15


@pytest.mark.parametrize("megabytes", [1, 300])
def test_a_cell_that_is_too_large_is_refused_and_costs_the_reconciler_nothing(ask: Ask, megabytes: int):
    error = refused(ask, f"select repeat('x', {megabytes} * 1000000)", timeout_s=30)
    assert (error.reason, error.retryable) == ("TooLarge", False)


# -- the world ------------------------------------------------------------------------------------------------------


def test_a_wrong_password_is_a_matter_of_permission_and_is_not_told(postgres: Postgres, database: str):  # noqa: F811
    wrong = "hunter2:/@ %"
    error = refused(asker(url_of(postgres, database, wrong)), "select 1")
    assert (error.reason, error.retryable) == ("Permission", False)
    assert "reader" in error.message
    assert wrong not in error.message
    assert quote(wrong, safe="") not in error.message


def test_a_database_that_is_not_there(postgres: Postgres, database: str):  # noqa: F811
    error = refused(asker(url_of(postgres, "nowhere")), "select 1")
    assert error.reason == "Unavailable"
    assert "nowhere" in error.message


def test_a_server_that_is_away_is_worth_another_try(postgres: Postgres, ask: Ask):  # noqa: F811
    postgres.stop()
    try:
        error = refused(ask, "select 1")
        assert (error.reason, error.retryable) == ("Unavailable", True)
    finally:
        postgres.start()
    assert ask("select 1").rows == ((1,),)


def test_a_server_that_dies_in_the_middle_is_worth_another_try(postgres: Postgres, ask: Ask):  # noqa: F811
    caught: list[QueryError] = []
    thread = threading.Thread(target=lambda: caught.append(refused(ask, "select pg_sleep(30)", unseen=True)))
    thread.start()
    while not postgres.admin("select 1 from pg_stat_activity where wait_event = 'PgSleep' and usename = 'reader'"):
        time.sleep(0.05)
    postgres.stop(signal.SIGQUIT)
    try:
        thread.join(20)
        assert [(error.reason, error.retryable) for error in caught] == [("Unavailable", True)]
    finally:
        postgres.start()


def test_a_session_that_an_administrator_ends_is_worth_another_try(postgres: Postgres, ask: Ask):  # noqa: F811
    caught: list[QueryError] = []
    thread = threading.Thread(target=lambda: caught.append(refused(ask, "select pg_sleep(31)", unseen=True)))
    thread.start()
    end = "select pg_terminate_backend(pid) from pg_stat_activity where wait_event = 'PgSleep' and usename = 'reader'"
    while not postgres.admin(end):
        time.sleep(0.05)
    thread.join(20)
    assert [(error.reason, error.retryable) for error in caught] == [("Unavailable", True)]


@pytest.fixture
def silence() -> Iterator[int]:
    """The port of a server that takes connections, and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_server_that_says_nothing_is_not_waited_for(silence: int):
    began = time.monotonic()
    error = refused(
        asker(f"postgresql+psycopg://reader:{quote(PASSWORD, safe='')}@127.0.0.1:{silence}/x"), "select 1", timeout_s=2
    )
    assert time.monotonic() - began < 30
    assert (error.reason, error.retryable) == ("Unavailable", True)
    assert "2 s" in error.message


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "DIALECT+DRIVER://"),
        ("no url at all", "DIALECT+DRIVER://"),
        ("postgresql+psycopg://reader:topsecret@host:port/x", "DIALECT+DRIVER://"),
        ("nonesuch://reader:topsecret@host/x", "nonesuch"),
        ("mysql+pymysql://reader:topsecret@host/x", "pymysql"),
        ("sqlite+aiosqlite:////tmp/x", "aiosqlite"),
        ("postgresql+psycopg://reader:topsecret@127.0.0.1:1/x?sslpassword=topsecret", "127.0.0.1"),
    ],
)
def test_a_url_that_cannot_be_used_says_why_without_being_shown(url: str, says: str):
    error = refused(asker(url), "select 1")
    assert error.reason == "Unavailable"
    assert says in error.message
    assert "topsecret" not in error.message


def test_the_url_is_not_in_the_process_list(postgres: Postgres, ask: Ask):  # noqa: F811
    thread = threading.Thread(target=lambda: refused(ask, "select pg_sleep(32)", unseen=True))
    thread.start()
    while not postgres.admin("select 1 from pg_stat_activity where wait_event = 'PgSleep' and usename = 'reader'"):
        time.sleep(0.05)
    shown = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if os.access(path, os.R_OK)]
    ours = [line for line in shown if b"alchemy_child" in line]
    postgres.admin("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'reader'")
    thread.join()
    assert ours
    assert not [line for line in ours if quote(PASSWORD, safe="").encode() in line]


def test_the_url_is_a_secret_of_the_environment_and_is_read_for_each_question(
    ask_file: Ask, file: Path, tmp_path: Path
):
    rotated = {"warehouse": "sqlite:////nowhere"}
    environment = Environment.model_validate(
        {"name": "production", "analytics": {"engine": "sqlalchemy", "url_secret": "warehouse"}}
    )
    engine = engine_for(environment, rotated.__getitem__, tmp_path, tmp_path / "cache")
    with pytest.raises(QueryError, match="unable to open"):
        engine.ask(Query("select 1", {}), 20)
    rotated["warehouse"] = f"{url_of_file(file)}\n"
    assert engine.ask(Query("select count(*) from builds", {}), 20).rows == ((2,),)


# -- SQLite ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a #1 warehouse.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("create table builds (build_id text, auc real, finished_at text)")
        connection.execute("insert into builds values ('aa', 0.71, '2026-03-28 00:00:00.000000')")
        connection.execute("insert into builds values ('ab', 0.74, '2026-03-30 00:00:00.000000')")
        connection.commit()
    return path


def url_of_file(file: Path) -> str:
    return f"sqlite:///{file}"


@pytest.fixture
def ask_file(file: Path) -> Ask:
    return asker(url_of_file(file))


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("null", None),
        ("1", 1),
        ("0.65", 0.65),
        ("1.0/0", None),
        ("9e999", math.inf),
        ("1 > 0", 1),
        ("'0.65'", "0.65"),
        ("x'00ff'", b"\x00\xff"),
    ],
)
def test_sqlite_has_its_own_idea_of_types(ask_file: Ask, sql: str, expected: Any):
    answer = ask_file(f"select {sql} as x")
    assert answer.rows == ((expected,),)
    assert answer.engine.startswith("sqlite 3.")


def test_sqlite_is_asked_with_parameters(ask_file: Ask):
    sql = "select max(auc), ':model' from builds where build_id <> :build_id and finished_at <= :as_of"
    assert ask_file(sql).rows == ((0.71, ":model"),)


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("insert into builds values ('x', 1, '')", "NotAllowed"),
        ("delete from builds returning auc", "NotAllowed"),
        ("create table x (a)", "NotAllowed"),
        ("create temp table x (a)", "NotAllowed"),
        ("drop table builds", "NotAllowed"),
        ("attach '/tmp/attached.db' as other", "NotAllowed"),
        ("vacuum into '/tmp/copied.db'", "NotAllowed"),
        ("pragma query_only = off", "NotAllowed"),
        ("select load_extension('x')", "NotAllowed"),
        ("select 1; delete from builds", "Syntax"),
        ("selectt 1", "Syntax"),
        ("select acu from builds", "Syntax"),
    ],
)
def test_sqlite_only_reads(ask_file: Ask, file: Path, sql: str, reason: str):
    before = file.read_bytes()
    error = refused(ask_file, sql, unseen=True)
    assert refused(ask_file, sql).message
    assert (error.reason, error.retryable) == (reason, False), error.message
    assert file.read_bytes() == before


def test_sqlite_is_killed_at_the_deadline(ask_file: Ask):
    endless = "with recursive n(x) as (select 1 union all select x + 1 from n) select count(*) from n"
    began = time.monotonic()
    error = refused(ask_file, endless, timeout_s=4)
    assert time.monotonic() - began < 30
    assert (error.reason, error.retryable) == ("Timeout", True)


def test_sqlite_gives_no_gigabytes(ask_file: Ask):
    assert refused(ask_file, "select zeroblob(900000000)").reason == "TooLarge"
    assert refused(ask_file, "select zeroblob(2000000000)").reason == "TooLarge"


def test_a_file_that_is_not_there_is_not_made(tmp_path: Path):
    error = refused(asker(f"sqlite:///{tmp_path}/none.db"), "select 1")
    assert error.reason == "Unavailable"
    assert list(tmp_path.iterdir()) == []
