"""DuckDB as the engine: real storages, real processes, and SQL that means harm."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from importlib.metadata import version
from math import isnan
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import boto3
import pytest
from moto.server import ThreadedMotoServer

from reconciler.warehouse import Answer, Query, QueryError, child, copies
from reconciler.warehouse.copies import Copies
from reconciler.warehouse.duckdb import DuckDb
from runtime.storage import ObjectStorage, open_storage

T = TypeVar("T")

END = datetime(2026, 3, 1, 12, tzinfo=UTC)
NEW, BEST, OLD = "3f9a1c2e" * 8, "1a2b3c4d" * 8, "77777777" * 8
PLAIN = {"model": "churn", "environment": "production"}
GATE = PLAIN | {"build_id": NEW, "as_of": END}


def instant(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Place:
    """A storage, and what is in it."""

    def __init__(self, url: str, cache: Path) -> None:
        self.url, self.cache = url, cache
        self.storage: ObjectStorage = open_storage(url)
        self.engine = DuckDb(url, cache)

    def put(self, key: str, content: bytes) -> None:
        assert self.storage.create(key, content)

    def build(self, build_id: str, value: float, at: datetime = END, model: str = "churn", **more: Any) -> None:
        row = {
            "build_id": build_id,
            "model": model,
            "environment": "production",
            "commit_id": "c0ffee",
            "parameters": {"depth": "3"},
            "metrics": {"f1": value, "rows": 100},
            "tests_passed": 2,
            "started_at": instant(at - timedelta(minutes=1)),
            "finished_at": instant(at),
            "duration_s": 60,
        } | more
        self.put(f"analytics/builds/model={model}/{build_id}.json", json.dumps(row).encode() + b"\n")

    def promotion(self, name: str, build: str, at: datetime, phase: str = "Succeeded") -> None:
        row = {
            "name": name,
            "environment": "production",
            "model": "churn",
            "variation": "default",
            "build_id": build,
            "phase": phase,
            "finished_at": instant(at),
        }
        self.put(f"analytics/promotions/environment=production/model=churn/{name}.json", json.dumps(row).encode())

    def inferences(self, model: str = "churn", hour: int = 11, count: int = 10, more: bytes = b"") -> str:
        lines = [
            {
                "time": f"2026-03-01T{hour:02}:{number:02}:00.500Z",
                "request_id": f"r-{number}",
                "build_id": OLD,
                "model": model,
                "variation": "default",
                "environment": "production",
                "status": 500 if number == 0 else 200,
                "duration_ms": 1.5,
                "shadow": False,
                "input": {"age": number},
                "output": [0.5],
            }
            for number in range(count)
        ]
        content = b"".join(json.dumps(line).encode() + b"\n" for line in lines) + more
        folder = f"inferences/environment=production/model={model}/variation=default/date=2026-03-01/hour={hour:02}"
        key = f"{folder}/pod-{len(list(self.storage.list('inferences/')))}.jsonl.gz"
        self.put(key, gzip.compress(content))
        return key

    def ask(self, sql: str, parameters: Mapping[str, Any] = PLAIN, timeout_s: float = 60) -> Answer:
        return self.engine.ask(Query(sql, parameters), timeout_s)

    def cell(self, sql: str, parameters: Mapping[str, Any] = PLAIN) -> Any:
        ((value,),) = self.ask(sql, parameters).rows
        return value

    def refused(self, sql: str, parameters: Mapping[str, Any] = PLAIN, timeout_s: float = 60) -> QueryError:
        with pytest.raises(QueryError) as refused:
            self.ask(sql, parameters, timeout_s)
        return refused.value


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A folder whose name would be a pattern."""
    place = Place((tmp_path / "a [store] *").as_uri(), tmp_path / "cache [x]")
    with place.storage:
        yield place


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(moto: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Place]:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-very-secret-key")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    with closing(http.client.HTTPConnection(urlsplit(moto).netloc)) as connection:
        connection.request("POST", "/moto-api/reset")
        connection.getresponse().read()
    with closing(boto3.client("s3")) as client:
        client.create_bucket(Bucket="models")
    place = Place("s3://models/some/prefix", tmp_path / "cache")
    with place.storage:
        yield place


@pytest.fixture(params=["file", "s3"])
def anywhere(request: pytest.FixtureRequest) -> Place:
    found: Place = request.getfixturevalue({"file": "place", "s3": "bucket"}[request.param])
    return found


# --------------------------------------------------------------------------------------------------------- the tables


def test_the_first_build_of_a_model_is_answered_with_null(anywhere: Place) -> None:
    assert anywhere.cell("select max(value) from build_metrics where model = :model and name = 'f1'", GATE) is None
    for table in ("builds", "build_metrics", "promotions", "deployments", "inferences"):
        assert anywhere.cell(f"select count(*) from {table}", GATE) == 0


def test_a_metric_is_asked_for_and_the_answer_says_how(anywhere: Place) -> None:
    anywhere.build(OLD, 0.7)
    anywhere.build(BEST, 0.8)
    anywhere.build(NEW, 0.9, model="other")
    answer = anywhere.ask("select max(value) as best -- so far\nfrom build_metrics where model=:model and name='f1'")
    assert (answer.columns, answer.rows) == (("best",), ((0.8,),))
    assert answer.engine == f"duckdb {version('duckdb')}"
    assert answer.sql == "SELECT MAX(value) AS best FROM build_metrics WHERE model = $model AND name = 'f1'"
    assert 0 < answer.duration_ms < 20_000


def test_what_is_new_is_found_by_the_next_question(anywhere: Place) -> None:
    for number, value in enumerate([0.7, 0.8, 0.75]):
        anywhere.build(f"{number:064}", value)
        assert anywhere.cell("select count(*) from builds") == number + 1
    assert anywhere.cell("select max(metrics['f1']) from builds") == 0.8


def test_a_row_has_its_types(place: Place) -> None:
    place.build(OLD, 0.7)
    assert place.ask(
        "select parameters['depth'], metrics['rows'], tests_passed, tests_failed, finished_at from builds"
    ).rows == (
        ("3", 100.0, 2, None, datetime(2026, 3, 1, 12)),  # noqa: DTZ001 - in UTC, as the tables have it
    )


def test_a_gate_sees_neither_its_candidate_nor_what_came_later(anywhere: Place) -> None:
    anywhere.build(OLD, 0.7, END - timedelta(days=2))
    anywhere.build(NEW, 0.9, END)
    anywhere.build(BEST, 0.95, END + timedelta(seconds=1))
    best = "select max(value) from build_metrics where model = :model and name = 'f1'"
    assert anywhere.cell(best) == 0.95  # a trigger's, which has no candidate
    assert anywhere.cell(best, GATE) == 0.7
    assert anywhere.cell("with b as (select * from builds) select count(*) from b", GATE) == 1


def test_a_build_that_ended_at_the_same_instant_is_seen(place: Place) -> None:
    place.build(OLD, 0.7, END)
    assert place.cell("select count(*) from builds", GATE) == 1


def test_a_deployment_is_what_was_served_when_it_was_asked(anywhere: Place) -> None:
    anywhere.promotion("one", OLD, END - timedelta(days=3))
    anywhere.promotion("bad", NEW, END - timedelta(days=2), phase="RolledBack")
    anywhere.promotion("two", BEST, END - timedelta(days=1))
    anywhere.promotion("three", NEW, END + timedelta(days=1))
    served = "select string_agg(promotion) from deployments where replaced_at is null and environment = :environment"
    assert anywhere.cell(served) == "three"
    assert anywhere.cell(served, GATE) == "two"  # and the same again, whenever it is asked
    assert anywhere.cell("select count(*) from promotions where phase = 'RolledBack'", GATE) == 1


def test_at_any_instant_deployments_are_the_view_without_what_came_later(place: Place) -> None:
    """The view, wrapped: a replacement that came later is none yet."""
    days = {"one": -3, "two": -1, "three": 0, "four": 2}
    for name, day in days.items():
        place.promotion(name, OLD, END + timedelta(days=day))
    place.promotion("bad", NEW, END - timedelta(days=2), phase="RolledBack")
    place.promotion("nowhere", NEW, END - timedelta(days=2), phase="Rejected")
    columns = "environment, model, variation, build_id, deployed_at, {}, promotion"
    row = "select string_agg(concat_ws('|', {}), ';' order by promotion) from deployments"
    replaced = "coalesce(cast(case when replaced_at <= :as_of then replaced_at end as text), '-')"
    wrapped = row.format(columns.format(replaced)) + " where deployed_at <= :as_of"
    rebuilt = row.format(columns.format("coalesce(cast(replaced_at as text), '-')"))
    seen = []
    for moment in (*(END + timedelta(days=day, milliseconds=ms) for day in days.values() for ms in (-1, 0, 1)),):
        as_was = place.cell(wrapped, PLAIN | {"as_of": moment})
        assert place.cell(rebuilt, GATE | {"as_of": moment}) == as_was
        seen.append(as_was)
    assert seen[0] is None
    assert len(set(seen)) == 1 + len(days)


def test_inferences_are_counted(anywhere: Place) -> None:
    anywhere.inferences(hour=10)
    anywhere.inferences(hour=13)
    anywhere.inferences(model="other")
    where = "from inferences where model = :model and environment = :environment"
    assert anywhere.cell(f"select count(*) {where}") == 20
    assert anywhere.cell(f"select count(*) {where}", GATE) == 10  # what came by the build's end
    assert anywhere.cell("select count(*) from inferences") == 30
    assert anywhere.cell("select count(*) from inferences where model = 'nobody'") == 0
    assert anywhere.cell(f"select count(*) filter (where status >= 500) / count(*) {where}") == 0.1
    assert (
        anywhere.cell(
            f"select max(cast(input->>'age' as int)) {where} and requested_at >= :as_of - interval 2 hour", GATE
        )
        == 9
    )
    row = anywhere.ask("select date, hour, variation, requested_at from inferences order by requested_at").rows[0]
    assert row == ("2026-03-01", "10", "default", datetime(2026, 3, 1, 10, 0, 0, 500_000))  # noqa: DTZ001


def test_several_questions_at_once_are_answered(anywhere: Place) -> None:
    for number in range(20):
        anywhere.build(f"{number:064}", number)
    answers: list[Any] = []
    asking = [
        threading.Thread(target=lambda: answers.append(anywhere.cell("select max(metrics['f1']) from builds")))
        for _ in range(4)
    ]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert answers == [19.0] * 4


def test_a_thousand_builds_are_asked_in_half_a_second_beside_the_process(place: Place) -> None:
    place.build("0" * 64, 0)
    folder = open_path(place) / "analytics/builds/model=churn"
    row = (folder / f"{'0' * 64}.json").read_text()
    for number in range(1, 1000):  # the storage's own way of writing waits for the disk
        (folder / f"{number:064}.json").write_text(
            row.replace("0" * 64, f"{number:064}").replace(": 0,", f": {number / 1000},")
        )
    best = "select max(value) from build_metrics where model = :model and name = 'f1'"
    floor = min(place.ask("select 1").duration_ms for _ in range(3))
    first = place.ask(best).duration_ms
    again = min(place.ask(best).duration_ms for _ in range(3))
    assert place.cell(best) == 0.999
    assert first - floor < 1500  # the rows are read one by one; a busy machine has its time
    assert again - floor < 500


# ---------------------------------------------------------------------------------------------- rows that are broken

BROKEN = [
    b"",
    b"no JSON",
    b"[]",
    b"null",
    b'{"build_id": null}',
    b'{"build_id": "x", "metrics": {"f1": "high"}}',
    b'{"build_id": "x", "tests_passed": 9223372036854775808}',
    b'{"build_id": "x", "finished_at": "yesterday"}',
    b'{"build_id": "x", "finished_at": "2026-03-01T12:00:00"}',
    b"\xff",
]


@pytest.mark.parametrize("content", BROKEN)
def test_a_row_that_cannot_be_read_stops_its_own_models_gates_and_no_others(place: Place, content: bytes) -> None:
    place.build(OLD, 0.7, model="sound")
    place.put("analytics/builds/model=churn/broken.json", content)
    error = place.refused("select count(*) from builds")
    assert (error.reason, error.retryable) == ("Failed", False)
    assert "analytics/builds/model=churn/broken.json" in error.message
    assert place.cell("select count(*) from builds", PLAIN | {"model": "sound"}) == 1


def test_columns_of_a_later_version_are_passed_over_and_those_of_an_earlier_one_are_null(place: Place) -> None:
    place.put("analytics/builds/model=churn/x.json", b'{"build_id": "x", "model": "churn", "colour": "blue"}')
    assert place.ask("select build_id, python from builds").rows == (("x", None),)


@pytest.mark.parametrize(
    "more",
    [
        {"commit_id": "a\0b"},
        {"metrics": {"": 1, 'a"b': 1e308, "f1": -0.0, "\0": None}},
        {"parameters": {"text": "\u2028'\\\n\ud83d\ude00"}},
        {"finished_at": "0001-01-01T00:00:00Z", "started_at": "9999-12-31T23:59:59.999Z"},
        {"tests_passed": -(2**63), "tests_failed": 2**63 - 1},
        {"metrics": {}, "parameters": {}},
        {"object": "another key"},
    ],
)
def test_a_strange_row_that_is_one_is_loaded(place: Place, more: Mapping[str, Any]) -> None:
    place.build(OLD, 0.7, model="strange", **more)
    place.build(BEST, 0.8)
    for _ in range(2):  # from the storage, and from the pack
        assert place.ask("select count(*), max(metrics['f1']) from builds where model = :model").rows == ((1, 0.8),)
        assert place.cell("select count(*) from builds") == 2


def test_a_line_of_the_log_that_is_damaged_is_left_out(anywhere: Place) -> None:
    anywhere.inferences(more=b'{"time": "2026-03-01T1\nno JSON\n')
    assert anywhere.cell("select count(*) from inferences where request_id is not null") == 10


def test_a_damaged_log_of_another_model_is_not_read(place: Place) -> None:
    place.inferences()
    key = place.inferences(model="other")
    (open_path(place) / key).write_bytes(b"no gzip")
    assert place.cell("select count(*) from inferences where model = :model and environment = :environment") == 10


def open_path(place: Place) -> Path:
    return Path(place.storage.root)  # type: ignore[attr-defined] - a folder, in these tests


def test_a_pack_that_is_damaged_is_packed_anew(place: Place) -> None:
    place.build(OLD, 0.7)
    place.cell("select count(*) from builds")
    (pack,) = place.cache.rglob("builds.jsonl")
    for damage in (b"", b"\x00" * 100, b'{"object": 1', b"[]\n"):
        pack.write_bytes(damage)
        assert place.cell("select max(metrics['f1']) from builds") == 0.7


def test_a_row_that_was_removed_is_gone(place: Place) -> None:
    place.build(OLD, 0.7)
    place.build(BEST, 0.8)
    assert place.cell("select count(*) from builds") == 2
    (open_path(place) / f"analytics/builds/model=churn/{BEST}.json").unlink()
    assert place.cell("select count(*) from builds") == 1
    (open_path(place) / f"analytics/builds/model=churn/{OLD}.json").unlink()
    assert place.cell("select count(*) from builds") == 0


# ------------------------------------------------------------------------------------------- what answers look like


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("null", None),
        ("true", True),
        ("7", 7),
        ("170141183460469231731687303715884105727::hugeint", 2**127 - 1),
        ("0.1", Decimal("0.1")),
        ("0.650000000000000000000000000001", Decimal("0.650000000000000000000000000001")),
        ("0.1::double", 0.1),
        ("1::double / 0", float("inf")),
        ("-1::double / 0", float("-inf")),
        ("'0.65'", "0.65"),
        ("''", ""),
        ("date '2026-03-01'", date(2026, 3, 1)),
        ("timestamp '2026-03-01 12:00:00.5'", datetime(2026, 3, 1, 12, 0, 0, 500_000)),  # noqa: DTZ001
        ("interval 36 hour", timedelta(hours=36)),
        ("'\\x00a'::blob", b"\x00a"),
        ("[1, 2.5, null]", [Decimal("1.0"), Decimal("2.5"), None]),
        ("time '12:00:00'", "12:00:00"),
    ],
)
def test_a_cell_keeps_its_type(place: Place, expression: str, value: Any) -> None:
    found = place.cell(f"select {expression}")
    assert (found, type(found)) == (value, type(value))


def test_nan_is_nan(place: Place) -> None:
    found = place.cell("select 'nan'::double")
    assert isinstance(found, float)
    assert isnan(found)


def test_the_time_zone_is_utc_and_an_instant_is_bound_as_one(place: Place) -> None:
    elsewhere = datetime.fromisoformat("2026-03-02T01:30:00+02:00")
    sql = "select typeof(:as_of), date_trunc('day', :as_of), typeof(:model), :as_of = now() at time zone 'UTC'"
    assert place.ask(sql, GATE | {"as_of": elsewhere}).rows == (
        ("TIMESTAMP", datetime(2026, 3, 1), "VARCHAR", False),  # noqa: DTZ001
    )


@pytest.mark.parametrize(
    ("sql", "columns", "rows"),
    [
        ("select 1 where false", 1, 0),
        ("select * from range(5)", 1, 2),
        ("select * from range(1000000000000)", 1, 2),
        ("select 1, 2", 2, 1),
    ],
)
def test_the_shape_is_told_and_no_more_than_two_rows(place: Place, sql: str, columns: int, rows: int) -> None:
    answer = place.ask(sql)
    assert (len(answer.columns), len(answer.rows)) == (columns, rows)


@pytest.mark.parametrize(
    ("sql", "reason", "message"),
    [
        ("select max(valu) from build_metrics", "Syntax", "there is no column 'valu'; write value"),
        ("select list_sum(value) from build_metrics", "Syntax", "No function matches"),
        ("select no_such_function(1)", "Syntax", "no_such_function"),
        ("select :as_off", "Syntax", "there is no parameter :as_off; write :as_of"),
        ("select 'high'::double", "Failed", "Could not convert string"),
        ("select error('it is so')", "Failed", "it is so"),
        ("select max(value) from bild_metrics", "Syntax", "write build_metrics"),
        ("drop table builds", "Syntax", "DROP is no query"),
    ],
)
def test_a_mistake_is_told_in_a_sentence_and_not_tried_again(place: Place, sql: str, reason: str, message: str) -> None:
    error = place.refused(sql, GATE)
    assert (error.reason, error.retryable) == (reason, False)
    assert message in error.message
    assert "\n" not in error.message
    assert "LINE 1" not in error.message


# ------------------------------------------------------------------------------------------------- SQL that means harm

#: In a file beside the storage, in the environment of the reconciler, and nowhere else.
SECRET = "s3cr3t-8d1f"

HOSTILE = [
    # other files
    "select content from read_text('{outside}')",
    "select content from read_blob('{outside}')",
    "select * from read_csv('{outside}', header = false)",
    "select * from read_csv_auto('{outside}')",
    "select * from read_json('{outside}')",
    "select * from read_json_objects('{outside}', format = 'unstructured')",
    "select * from read_ndjson_objects('{outside}')",
    "select * from read_parquet('{outside}')",
    "select * from read_duckdb('{outside}')",
    "select * from parquet_metadata('{outside}')",
    "select * from sniff_csv('{outside}')",
    "select * from '{outside}'",
    "select * from glob('{folder}/*')",
    "select content from read_text('/etc/passwd')",
    "select content from read_text('/proc/self/environ')",
    "select content from read_text('/proc/self/root{outside}')",
    "select content from read_text('inferences/../../outside.txt')",
    "select content from read_text('inferences/link/outside.txt')",
    "select content from read_text('inferences/link.txt')",
    "select content from read_text('file://{outside}')",
    "select * from query('from read_text(''{outside}'')')",
    "select count(*) from range(2) t(i), lateral (select * from read_text('{outside}'))",
    "select * from read_csv('http://127.0.0.1:1/x')",
    "select * from read_text('s3://models/x')",
    # what the process knows
    "select getenv('TRUEUP_SECRET')",
    "select getvariable('question')",
    "select * from question",
    "select * from duckdb_secrets()",
    "from which_secret('s3://x', 's3')",
    # writing
    "copy (select 1) to '{folder}/written.csv'",
    "copy (select 1) to 'inferences/written.csv'",
    "copy (select 1) to 'inferences/written.parquet' (format parquet)",
    "copy (select 1 where false) to 'inferences/empty.csv' (header false)",
    "export database 'inferences/database'",
    "attach 'inferences/attached.db'",
    "attach 'inferences/attached.db' as x (type duckdb)",
    "attach ':memory:' as more",
    "create table t as select 1",
    "create secret s (type s3)",
    "create persistent secret s (type s3)",
    "drop view inferences",
    "insert into inferences select * from inferences",
    "select * from enable_logging(storage = 'file', storage_path = 'inferences/logs')",
    "call enable_logging(storage = 'file', storage_path = 'inferences/logs')",
    "pragma enable_profiling = 'json'",
    "set profiling_output = 'inferences/profile.json'",
    # settings, extensions, and other statements
    "set enable_external_access = true",
    "set lock_configuration = false",
    "reset lock_configuration",
    "set memory_limit = '100GB'",
    "set allowed_directories = ['/']",
    "set python_enable_replacements = true",
    "set temp_directory = '{folder}'",
    "pragma memory_limit = '100GB'",
    "install httpfs",
    "install '{outside}'",
    "load httpfs",
    "load '{outside}'",
    "force install httpfs from community",
    "pragma database_list",
    "pragma show_tables",
    "call pragma_version()",
    "checkpoint",
    "explain analyze select 1",
    "prepare p as select 1",
    "begin",
    "use memory",
    "vacuum",
    "import database '{folder}'",
    "select 1; select 2",
    "select 1; copy (select 1) to 'inferences/written.csv'",
]


class Fortress:
    """A storage with a log, a secret beside it, and the process that reads it, without the checks before it."""

    def __init__(self, place: Place) -> None:
        place.inferences()
        self.place = place
        self.store = open_path(place)
        self.folder = self.store.parent
        self.outside = self.folder / "outside.txt"
        self.outside.write_text(f"{SECRET}\n")
        (self.store / "inferences" / "link.txt").symlink_to(self.outside)
        (self.store / "inferences" / "link").symlink_to(self.folder)

    def files(self) -> set[tuple[str, int]]:
        return {(str(path), path.stat().st_size) for path in self.folder.rglob("*") if path.is_file()}

    def told(self, sql: str, timeout_s: float = 60) -> dict[str, Any] | None:
        view = "create view inferences as from read_json('inferences/*/*/*/*/*/*.gz', hive_partitioning = true)"
        question = {
            "setup": [{"folder": str(self.store), "sql": [view]}],
            "allowed": "inferences/",
            "sql": sql.format(outside=self.outside, folder=self.folder),
            "parameters": {},
            "timeout_s": timeout_s,
        }
        deadline = time.monotonic() + timeout_s
        lines = child.lines_of("reconciler.warehouse.duckdb_child", question, deadline, {"TRUEUP_SECRET": SECRET})
        return next(lines, None)


@pytest.fixture(scope="module")
def fortress(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fortress]:
    folder = tmp_path_factory.mktemp("fortress")
    place = Place((folder / "store").as_uri(), folder / "cache")
    with place.storage:
        yield Fortress(place)


def test_the_fortress_answers_what_it_should(fortress: Fortress) -> None:
    told = fortress.told("select count(*) from inferences")
    assert told is not None
    assert told["rows"] == [[["int", "10"]]]


@pytest.mark.parametrize("sql", HOSTILE)
def test_the_process_alone_neither_tells_nor_writes_anything(fortress: Fortress, sql: str) -> None:
    before = fortress.files()
    told = fortress.told(sql)
    assert told is not None
    assert "reason" in told or told["rows"] in ([], [[None]]), told
    assert SECRET not in json.dumps(told)
    assert fortress.files() == before


@pytest.mark.parametrize("sql", HOSTILE)
def test_it_is_refused_before_a_process_is_started(fortress: Fortress, sql: str) -> None:
    began = time.perf_counter()
    error = fortress.place.refused(sql.format(outside=fortress.outside, folder=fortress.folder))
    assert error.reason in ("NotAllowed", "Syntax")
    assert time.perf_counter() - began < 10


RUNAWAYS = [
    "with recursive r(n) as (select 1 union all select n + 1 from r) select max(n) from r",
    "with recursive r(n) as (select 1 union all select n + 1 from r) select count(*) from r, r as s",
    "select count(*) from range(1000000) a, range(1000000) b, range(1000000) c where a.range + b.range = c.range",
    "select repeat('x', 1000000000)",
    "select length(repeat('x', 1900000000))",
    "select list_sum(range(300000000))",
    "select sum(x) from (select unnest(range(200000000)) as x)",
    "select string_agg(range::varchar) from range(100000000)",
    "select list(range) from range(1000000000)",
    "select regexp_matches(repeat('a', 20000000), '(a|a?)+$')",
    "select repeat('x', 300000)",
    "select [repeat('x', 100000), repeat('y', 100000), repeat('z', 100000)]",
    "select sleep_ms(60000)",
]


@pytest.mark.parametrize("sql", RUNAWAYS)
def test_a_runaway_ends_at_its_deadline_or_at_its_memory(fortress: Fortress, sql: str) -> None:
    began = time.monotonic()
    told = fortress.told(sql, timeout_s=1)
    assert time.monotonic() - began < 30
    assert told is None or told.get("reason") == "TooLarge" or len(json.dumps(told)) < 1000, str(told)[:200]


def test_a_runaway_is_told_as_what_it_was(place: Place) -> None:
    endless = "with recursive r(n) as (select 1 union all select n + 1 from r) select max(n) from r"
    began = time.monotonic()
    error = place.refused(endless, timeout_s=1)
    assert (error.reason, error.retryable) == ("Timeout", True)
    assert time.monotonic() - began < 30
    error = place.refused("select list_sum(range(300000000))")
    assert (error.reason, error.retryable) == ("TooLarge", False)
    error = place.refused("select repeat('x', 300000)")
    assert (error.reason, error.retryable) == ("TooLarge", False)


@pytest.mark.parametrize(
    "parameters", [PLAIN | {"model": "'; drop table builds; --"}, PLAIN | {"model": "x" * 100_000}]
)
def test_a_parameter_is_never_part_of_the_text(place: Place, parameters: Mapping[str, str]) -> None:
    assert place.cell("select :model", parameters) == parameters["model"]


def test_what_runs_in_the_process_has_nothing_of_our_environment(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUEUP_SECRET", SECRET)
    found: list[bytes] = []

    def look() -> None:
        while not found:
            found.extend(content for pid in children() if b"TZ=UTC" in (content := environ_of(pid)))

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    place.refused("with recursive r(n) as (select 1 union all select n + 1 from r) select max(n) from r", timeout_s=3)
    looking.join(1)
    assert found
    assert SECRET.encode() not in found[0]


def test_a_reconciler_that_is_killed_leaves_no_process_behind(tmp_path: Path) -> None:
    asking = f"""
from pathlib import Path
from reconciler.warehouse import Query
from reconciler.warehouse.duckdb import DuckDb
endless = "with recursive r(n) as (select 1 union all select n + 1 from r) select max(n) from r"
DuckDb({(tmp_path / "store").as_uri()!r}, Path({str(tmp_path)!r})).ask(Query(endless, {{}}), 2)
"""
    reconciler = subprocess.Popen([sys.executable, "-c", asking], cwd=Path(__file__).parents[2])
    child_pid = eventually(lambda: next(iter(children(reconciler.pid)), None))
    reconciler.send_signal(signal.SIGKILL)
    reconciler.wait()
    eventually(lambda: not is_running(child_pid))


# ------------------------------------------------------------------------------------------------------- what is away


def test_a_storage_that_is_away_is_worth_another_try(bucket: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    error = bucket.refused("select count(*) from builds")
    assert (error.reason, error.retryable) == ("Unavailable", True)
    assert "cannot be reached" in error.message


def test_a_bucket_that_does_not_exist_is_not_tried_again(bucket: Place, tmp_path: Path) -> None:
    error = Place("s3://nowhere/x", tmp_path / "other").refused("select count(*) from builds")
    assert (error.reason, error.retryable) == ("Unavailable", False)
    assert "there is no bucket 'nowhere'" in error.message


def test_a_storage_that_does_not_answer_ends_at_the_deadline(
    bucket: Place, monkeypatch: pytest.MonkeyPatch, silent: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", silent)
    began = time.monotonic()
    error = bucket.refused("select count(*) from builds", timeout_s=1)
    assert (error.reason, error.retryable) == ("Timeout", True)
    assert time.monotonic() - began < 30


def test_objects_are_fetched_once(bucket: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(30):
        bucket.build(f"{number:064}", number)
    key = bucket.inferences()
    sql = "select max(metrics['f1']), (select count(*) from inferences) from builds"
    assert bucket.ask(sql).rows == ((29.0, 10),)
    # The same names with other contents, which no writer of ours can make: what is here already is not fetched again.
    with closing(boto3.client("s3")) as client:
        for each in (key, f"analytics/builds/model=churn/{29:064}.json"):
            client.put_object(Bucket="models", Key=f"some/prefix/{each}", Body=b"changed")
    assert bucket.ask(sql).rows == ((29.0, 10),)


def test_a_log_that_was_removed_from_the_bucket_is_gone(bucket: Place) -> None:
    key = bucket.inferences(hour=10)
    bucket.inferences(hour=11)
    assert bucket.cell("select count(*) from inferences") == 20
    with closing(boto3.client("s3")) as client:
        client.delete_object(Bucket="models", Key=f"some/prefix/{key}")
    assert bucket.cell("select count(*) from inferences") == 10


def test_the_cache_of_logs_does_not_grow_without_end(bucket: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [bucket.inferences(model=model) for model in ("churn", "other", "third")]
    size = len(bucket.storage.read(keys[0]))
    monkeypatch.setattr(copies, "_CACHE_BYTES", size * 2 + size // 2)
    for model in ("churn", "other", "third"):
        where = f"environment = :environment and model = '{model}'"
        assert bucket.cell(f"select count(*) from inferences where {where}") == 10
    kept = {path.parts[-5] for path in bucket.cache.rglob("*.gz")}
    assert kept == {"model=other", "model=third"}


@pytest.mark.parametrize(("limit", "value"), [("_LOG_OBJECTS", 2), ("_LOG_BYTES", 100)])
def test_logs_that_are_too_large_for_this_engine_say_what_to_do(
    bucket: Place, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    for hour in (9, 10, 11):
        bucket.inferences(hour=hour)
    monkeypatch.setattr(copies, limit, value)
    error = bucket.refused("select count(*) from inferences where model = :model")
    assert (error.reason, error.retryable) == ("TooLarge", False)
    assert "use Athena" in error.message


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    place = Place((tmp_path / "store").as_uri(), tmp_path / "cache")
    error = place.refused("select count(*) from builds")
    assert (error.reason, error.retryable) == ("Failed", True)
    assert str(tmp_path / "cache") in error.message


def test_who_waits_for_another_that_fetches_gives_up_at_the_deadline(place: Place) -> None:
    copies_of = Copies(place.storage, place.cache)
    with copies_of._locked(time.monotonic() + 5):
        error = place.refused("select count(*) from builds", timeout_s=0.5)
    assert (error.reason, error.retryable) == ("Timeout", True)


def test_what_is_no_url_of_a_storage_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no URL of an object storage"):
        DuckDb("/a/folder", tmp_path)


# --------------------------------------------------------------------------------------------------------------- help


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def children(of: int | None = None) -> list[int]:
    listing = Path(f"/proc/{of or os.getpid()}/task")
    with suppress(FileNotFoundError, ProcessLookupError):
        return [int(pid) for task in listing.iterdir() for pid in (task / "children").read_text().split()]
    return []


def environ_of(pid: int) -> bytes:
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/environ").read_bytes()
    return b""


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def eventually(found: Callable[[], T | None], seconds: float = 10) -> T:
    until = time.monotonic() + seconds
    while not (result := found()):
        assert time.monotonic() < until
        time.sleep(0.05)
    return result
