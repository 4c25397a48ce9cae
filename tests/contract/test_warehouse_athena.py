"""Athena as the engine, and `reconcile analytics init`.

Against three doubles: moto for the states of an execution and for Glue, ministack where the SQL must really run, and a
server that says what it is told, for what neither of them ever says.
"""

from __future__ import annotations

import http.client
import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest

from reconciler import analytics
from reconciler.analytics import AnalyticsError, Step, init
from reconciler.warehouse import Answer, Query, QueryError
from reconciler.warehouse.athena import AthenaEngine
from reconciler.warehouse.tables import TABLES, to_line
from schemas.environment import Environment
from tests.contract.ministack import Ministack, ministack, with_parameters  # noqa: F401 - a fixture
from tests.contract.test_object_storage import aws, moto  # noqa: F401 - fixtures

AS_OF = datetime(2026, 3, 29, 12, 0, tzinfo=UTC)
CANDIDATE = "c" * 64
PARAMETERS: dict[str, str | datetime] = {
    "model": "churn",
    "environment": "production",
    "build_id": CANDIDATE,
    "as_of": AS_OF,
}
SQL = "select max(value) from build_metrics where model = :model and name = 'auc'"


def engine(**settings: Any) -> AthenaEngine:
    return AthenaEngine("trueup", **{"output_location": "s3://models/results/", "region": "us-east-1"} | settings)


def ask(sql: str = SQL, timeout_s: float = 20, **parameters: Any) -> Answer:
    return engine().ask(Query(sql, PARAMETERS | parameters), timeout_s)


def refused(sql: str = SQL, timeout_s: float = 20, **parameters: Any) -> QueryError:
    with pytest.raises(QueryError) as caught:
        ask(sql, timeout_s, **parameters)
    assert "a-very-secret-key" not in caught.value.message
    return caught.value


# -- states and values: moto ----------------------------------------------------------------------------------------


class Moto:
    def __init__(self, url: str) -> None:
        self.url = url
        self.athena = boto3.client("athena", region_name="us-east-1")

    def tell(self, path: str, document: Any) -> None:
        with closing(http.client.HTTPConnection(urlsplit(self.url).netloc)) as connection:
            connection.request("POST", path, json.dumps(document), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            assert answer.status in (200, 201)

    def will_answer(self, columns: dict[str, str], *rows: list[str | None]) -> None:
        header = [list(columns), *rows]
        data = [{"Data": [{} if cell is None else {"VarCharValue": cell} for cell in row]} for row in header]
        info = [{"Name": name, "Type": kind} for name, kind in columns.items()]
        self.tell(
            "/moto-api/static/athena/query-results",
            {"region": "us-east-1", "results": [{"rows": data, "column_info": info}]},
        )

    def will_take(self, **transition: Any) -> None:
        self.tell(
            "/moto-api/state-manager/set-transition", {"model_name": "athena::execution", "transition": transition}
        )

    def states(self) -> list[str]:
        ids = self.athena.list_query_executions()["QueryExecutionIds"]
        return [
            self.athena.get_query_execution(QueryExecutionId=each)["QueryExecution"]["Status"]["State"] for each in ids
        ]


@pytest.fixture
def double(moto: str, aws: Any) -> Iterator[Moto]:  # noqa: F811
    double = Moto(moto)
    yield double
    double.will_take(progression="immediate")
    double.athena.close()


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("double", "0.65", 0.65),
        ("double", None, None),
        ("double", "Infinity", float("inf")),
        ("double", "6.5E-1", 0.65),
        ("real", "0.5", 0.5),
        ("decimal", "0.10", Decimal("0.10")),
        ("decimal", "12345678901234567890123456789.012345678", Decimal("12345678901234567890123456789.012345678")),
        ("bigint", "9223372036854775807", 2**63 - 1),
        ("integer", "-7", -7),
        ("boolean", "true", True),
        ("varchar", "0.65", "0.65"),
        ("varchar", "", ""),
        ("date", "2026-03-29", date(2026, 3, 29)),
        ("timestamp", "2026-03-29 12:00:00.123", datetime(2026, 3, 29, 12, 0, 0, 123_000, tzinfo=UTC)),
        ("timestamp with time zone", "2026-03-29 12:00:00.000 UTC", "2026-03-29 12:00:00.000 UTC"),
        ("interval day to second", "1 02:03:04.500", timedelta(days=1, hours=2, minutes=3, seconds=4.5)),
        ("interval day to second", "-1 00:00:00.000", timedelta(days=-1)),
        ("interval year to month", "1-2", "1-2"),
        ("varbinary", "00 ff", b"\x00\xff"),
        ("array", "[1, 2]", "[1, 2]"),
    ],
)
def test_a_cell_has_pythons_type_of_its_column(double: Moto, kind: str, text: str | None, expected: Any):
    double.will_answer({"x": kind}, [text])
    answer = ask()
    assert answer.rows == ((expected,),)
    assert type(answer.rows[0][0]) is type(expected)
    assert answer.columns == ("x",)


def test_nan_is_a_number_that_is_none(double: Moto):
    double.will_answer({"x": "double"}, ["NaN"])
    ((cell,),) = ask().rows
    assert isinstance(cell, float)
    assert math.isnan(cell)


@pytest.mark.parametrize("rows", [0, 1, 2, 3])
def test_two_rows_are_all_that_is_told(double: Moto, rows: int):
    double.will_answer({"a": "bigint", "b": "varchar"}, *([str(row), "x"] for row in range(rows)))
    answer = ask()
    assert answer.columns == ("a", "b")
    assert answer.rows == tuple((row, "x") for row in range(min(rows, 2)))


def test_a_query_is_waited_for_through_its_states(double: Moto):
    double.will_take(progression="manual", times=3)
    double.will_answer({"x": "double"}, ["0.7"])
    answer = ask()
    assert answer.rows == ((0.7,),)
    assert answer.duration_ms >= 300, "each look has its pause"
    assert answer.engine.startswith("athena")
    assert double.states() == ["SUCCEEDED"]


def test_a_query_that_does_not_end_is_stopped_at_the_deadline(double: Moto):
    double.will_take(progression="time", seconds=60)
    began = time.monotonic()
    error = refused(timeout_s=1.5)
    assert time.monotonic() - began < 30
    assert (error.reason, error.retryable) == ("Timeout", True)
    assert double.states() == ["CANCELLED"], "nobody would read what it finds, and it costs"


def test_a_query_that_somebody_cancels_may_be_tried_again(double: Moto):
    double.will_take(progression="time", seconds=60)

    def cancel() -> None:
        while not (found := double.athena.list_query_executions()["QueryExecutionIds"]):
            time.sleep(0.05)
        double.athena.stop_query_execution(QueryExecutionId=found[0])

    thread = threading.Thread(target=cancel)
    thread.start()
    error = refused()
    thread.join()
    assert (error.reason, error.retryable) == ("Failed", True)
    assert "cancelled" in error.message


def test_a_cell_that_is_too_large_is_refused(double: Moto):
    double.will_answer({"x": "varchar"}, ["x" * 100_000])
    error = refused()
    assert (error.reason, error.retryable) == ("TooLarge", False)


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("delete from builds", "Syntax"),
        ("select 1; drop table builds", "Syntax"),
        ("unload (select 1) to 's3://elsewhere/'", "Syntax"),
        ("select max(value) from build_metric", "Syntax"),
        ("select max(value) from build_metrics where model = :modle", "Syntax"),
        ("selectt 1", "Syntax"),
    ],
)
def test_what_is_not_one_select_of_known_tables_never_reaches_athena(double: Moto, sql: str, reason: str):
    error = refused(sql)
    assert (error.reason, error.retryable) == (reason, False)
    assert double.states() == []


# -- what neither double says ---------------------------------------------------------------------------------------


class Scripted:
    """Says what `answers` has for an operation: (status, document), or a function of the request that gives it."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.executions: dict[str, dict[str, Any]] = {}
        self.answers: dict[str, Callable[[dict[str, Any]], tuple[int, Any]]] = {
            "StartQueryExecution": self._start,
            "GetQueryExecution": lambda request: (
                200,
                {"QueryExecution": self.executions[request["QueryExecutionId"]]},
            ),
            "GetQueryResults": lambda _: (
                200,
                {
                    "ResultSet": {
                        "Rows": [{"Data": [{"VarCharValue": "x"}]}, {"Data": [{"VarCharValue": "0.7"}]}],
                        "ResultSetMetadata": {"ColumnInfo": [{"Name": "x", "Type": "double"}]},
                    }
                },
            ),
            "StopQueryExecution": lambda _: (200, {}),
        }
        script = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                operation = self.headers["X-Amz-Target"].rpartition(".")[2]
                script.requests.append((operation, request))
                status, document = script.answers[operation](request)
                content = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/x-amz-json-1.1")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def _start(self, request: dict[str, Any]) -> tuple[int, Any]:
        """As Athena: the same token is the same execution."""
        token = request["ClientRequestToken"]
        self.executions.setdefault(token, self.execution(token))
        return 200, {"QueryExecutionId": token}

    @staticmethod
    def execution(name: str, state: str = "SUCCEEDED", age: timedelta = timedelta(0), why: str = "") -> dict[str, Any]:
        submitted = datetime.fromtimestamp(time.time(), UTC) - age  # noqa: TID251 - a double of what has a clock
        status = {"State": state, "SubmissionDateTime": submitted.timestamp(), "StateChangeReason": why}
        version = {"EffectiveEngineVersion": "Athena engine version 3"}
        return {"QueryExecutionId": name, "Status": status, "EngineVersion": version}

    def of(self, operation: str) -> list[dict[str, Any]]:
        return [request for name, request in self.requests if name == operation]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def script(aws: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripted]:  # noqa: F811
    script = Scripted()
    monkeypatch.setenv("AWS_ENDPOINT_URL_ATHENA", script.url)
    yield script
    script.close()


def test_a_question_is_one_request_that_holds_all_that_bounds_it(script: Scripted):
    answer = engine(workgroup="gates").ask(Query(SQL, PARAMETERS | {"model": "o'hare"}), 20)
    (request,) = script.of("StartQueryExecution")
    assert len(request.pop("ClientRequestToken")) >= 32
    assert request == {
        "QueryString": answer.sql,
        "QueryExecutionContext": {"Database": "trueup"},
        "WorkGroup": "gates",
        "ResultConfiguration": {"OutputLocation": "s3://models/results/"},
        "ResultReuseConfiguration": {"ResultReuseByAgeConfiguration": {"Enabled": False}},
        "ExecutionParameters": [f"'{CANDIDATE}'", "CAST('2026-03-29 12:00:00.000' AS TIMESTAMP)", "'o''hare'"],
    }
    assert answer.sql.count("?") == 3
    assert script.of("GetQueryResults")[0]["MaxResults"] == 3, "its names, and two rows"
    assert answer.engine == "athena 3"


def test_a_question_without_parameters_sends_no_empty_list(script: Scripted):
    AthenaEngine("trueup", region="us-east-1").ask(Query("select max(duration_s) from builds", {}), 20)
    (request,) = script.of("StartQueryExecution")
    assert "ExecutionParameters" not in request
    assert "ResultConfiguration" not in request
    assert request["WorkGroup"] == "primary"


def test_the_same_question_asked_again_after_a_crash_is_not_paid_twice(script: Scripted):
    ask()
    ask()
    ask(model="other")
    tokens = [request["ClientRequestToken"] for request in script.of("StartQueryExecution")]
    assert tokens[0] == tokens[1] != tokens[2]
    assert len(script.executions) == 2


@pytest.mark.parametrize(("state", "age"), [("FAILED", 60), ("CANCELLED", 60), ("SUCCEEDED", 3600)])
def test_an_execution_that_failed_before_or_is_old_is_not_taken_for_an_answer(script: Scripted, state: str, age: int):
    ask()
    (token,) = script.executions
    script.executions[token] = script.execution(token, state, timedelta(seconds=age), "SYNTAX_ERROR")
    assert ask().rows == ((0.7,),)
    assert len(script.executions) == 2


def test_an_execution_that_fails_now_is_the_answer(script: Scripted):
    def start(request: dict[str, Any]) -> tuple[int, Any]:
        token = request["ClientRequestToken"]
        script.executions[token] = script.execution(token, "FAILED", why="COLUMN_NOT_FOUND: 'acu' cannot be resolved")
        return 200, {"QueryExecutionId": token}

    script.answers["StartQueryExecution"] = start
    error = refused()
    assert (error.reason, error.retryable) == ("Syntax", False)
    assert "'acu'" in error.message
    assert len(script.executions) == 1


@pytest.mark.parametrize(
    ("status", "code", "reason", "retryable"),
    [
        (400, "AccessDeniedException", "Permission", False),
        (400, "UnrecognizedClientException", "Permission", False),
        (400, "ExpiredTokenException", "Permission", True),
        (400, "InvalidRequestException", "Syntax", False),
        (400, "TooManyRequestsException", "Unavailable", True),
        (400, "ThrottlingException", "Unavailable", True),
        (500, "InternalServerException", "Unavailable", True),
        (503, "SomethingNew", "Unavailable", True),
        (400, "SomethingNew", "Failed", False),
    ],
)
def test_what_the_service_refuses_keeps_its_words(
    script: Scripted, status: int, code: str, reason: str, retryable: bool
):
    script.answers["StartQueryExecution"] = lambda _: (status, {"__type": code, "message": "the words of the service"})
    error = refused()
    assert (error.reason, error.retryable) == (reason, retryable)
    assert error.message == f"{code}: the words of the service"


def test_a_look_that_fails_does_not_lose_the_query(script: Scripted):
    looks = iter(["RUNNING", "throttled", "RUNNING", "SUCCEEDED"])

    def look(request: dict[str, Any]) -> tuple[int, Any]:
        state = next(looks)
        if state == "throttled":
            return 400, {"__type": "ThrottlingException", "message": "Rate exceeded"}
        return 200, {"QueryExecution": script.execution(request["QueryExecutionId"], state)}

    script.answers["GetQueryExecution"] = look
    assert ask(timeout_s=10).rows == ((0.7,),)


def test_a_service_that_says_nothing_is_not_waited_for(script: Scripted):
    done = threading.Event()
    script.answers["StartQueryExecution"] = lambda _: (200, done.wait(20) and {})
    began = time.monotonic()
    error = refused(timeout_s=1)
    done.set()
    assert time.monotonic() - began < 15
    assert (error.reason, error.retryable) == ("Unavailable", True)


def test_a_service_that_is_away_is_worth_another_try(aws: Any, monkeypatch: pytest.MonkeyPatch):  # noqa: F811
    monkeypatch.setenv("AWS_ENDPOINT_URL_ATHENA", "http://127.0.0.1:1")
    error = refused()
    assert (error.reason, error.retryable) == ("Unavailable", True)
    assert "127.0.0.1:1" in error.message


def test_without_a_region_or_credentials_it_says_what_to_write(script: Scripted, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(QueryError, match=r"analytics: \{region: us-east-1\}"):
        engine(region=None).ask(Query(SQL, PARAMETERS), 5)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    error = refused()
    assert (error.reason, error.retryable) == ("Permission", False)


# -- analytics init -------------------------------------------------------------------------------------------------


def environment(**settings: Any) -> Environment:
    given = {"engine": "athena", "database": "trueup", "workgroup": "gates", "region": "us-east-1"}
    return Environment.model_validate(
        {"name": "production", "object_storage": "s3://models/production", "analytics": given | settings}
    )


EVERYTHING = [
    "database trueup",
    "table trueup.builds",
    "table trueup.promotions",
    "table trueup.inferences",
    "view trueup.build_metrics",
    "view trueup.deployments",
    "workgroup gates",
]


def actions(steps: list[Step]) -> dict[str, str]:
    return {step.what: step.action for step in steps}


@pytest.fixture(params=["moto", "ministack"])
def glue(request: pytest.FixtureRequest, aws: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:  # noqa: F811
    """Glue of each double in turn, with nothing in it."""
    if request.param == "ministack":
        request.getfixturevalue("stack")
    with closing(boto3.client("glue", region_name="us-east-1")) as client:
        yield client


@pytest.fixture
def stack(ministack: Ministack, aws: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:  # noqa: F811
    """S3 of ministack, with the empty bucket `models`; Glue and Athena are its own, too."""
    with closing(http.client.HTTPConnection(urlsplit(ministack.url).netloc)) as connection:
        connection.request("POST", "/_ministack/reset")
        assert connection.getresponse().status == 200
    monkeypatch.setenv("AWS_ENDPOINT_URL", ministack.url)
    monkeypatch.setenv("AWS_ENDPOINT_URL_ATHENA", ministack.athena)
    with closing(boto3.client("s3", region_name="us-east-1")) as client:
        client.create_bucket(Bucket="models")
        yield client


def test_everything_is_made_once(glue: Any):
    assert actions(init(environment())) == dict.fromkeys(EVERYTHING, "made")
    assert sorted(table["Name"] for table in glue.get_tables(DatabaseName="trueup")["TableList"]) == sorted(TABLES)
    assert actions(init(environment())) == dict.fromkeys(EVERYTHING, "kept")


def test_a_dry_run_says_what_it_would_do_and_does_nothing(glue: Any):
    assert actions(init(environment(), dry_run=True)) == dict.fromkeys(EVERYTHING, "made")
    assert "trueup" not in [found["Name"] for found in glue.get_databases()["DatabaseList"]]


def test_what_differs_is_changed_and_named(glue: Any):
    init(environment())
    table = glue.get_table(DatabaseName="trueup", Name="builds")["Table"]
    storage = {**table["StorageDescriptor"], "Columns": table["StorageDescriptor"]["Columns"][:-1]}
    old = {"Name": "builds", "TableType": "EXTERNAL_TABLE", "Parameters": table["Parameters"]}
    glue.update_table(DatabaseName="trueup", TableInput={**old, "StorageDescriptor": storage})

    would = init(environment(), dry_run=True)
    steps = init(environment())
    assert steps == would
    changed = {step.what: step.detail for step in steps if step.action == "changed"}
    assert set(changed) == {"table trueup.builds"}
    assert "StorageDescriptor.Columns" in changed["table trueup.builds"]
    assert actions(init(environment())) == dict.fromkeys(EVERYTHING, "kept")


@pytest.mark.usefixtures("stack")
def test_another_limit_changes_the_workgroup_and_nothing_else():
    init(environment())
    steps = init(environment(), cutoff_bytes=20 * 1000**3)
    changed = [step for step in steps if step.action != "kept"]
    assert changed == [Step("changed", "workgroup gates", "Configuration.BytesScannedCutoffPerQuery")]
    assert actions(init(environment(), cutoff_bytes=20 * 1000**3)) == dict.fromkeys(EVERYTHING, "kept")


def test_a_table_of_somebody_else_is_left_alone_unless_it_is_to_be_adopted(glue: Any):
    glue.create_database(DatabaseInput={"Name": "trueup", "Description": "ours since 2019"})
    columns = {"Columns": [{"Name": "id", "Type": "string"}], "Location": "s3://models/theirs/"}
    glue.create_table(DatabaseName="trueup", TableInput={"Name": "promotions", "StorageDescriptor": columns})
    with pytest.raises(AnalyticsError, match=r"table trueup\.promotions is there, and not of Trueup.*--adopt"):
        init(environment())
    assert [table["Name"] for table in glue.get_tables(DatabaseName="trueup")["TableList"]] == ["promotions"]

    steps = actions(init(environment(), adopt=True))
    assert (steps["database trueup"], steps["table trueup.promotions"]) == ("kept", "changed")
    assert glue.get_database(Name="trueup")["Database"]["Description"] == "ours since 2019"


def test_tables_of_another_object_storage_are_not_turned_over_by_mistake(glue: Any):
    init(environment())
    other = environment().model_copy(update={"object_storage": "s3://models/staging"})
    with pytest.raises(AnalyticsError, match="reads s3://models/production, and not s3://models/staging"):
        init(other)


def test_a_workgroup_has_the_limits_and_that_of_somebody_else_keeps_its_own(double: Moto):
    athena = double.athena
    init(environment())
    made = athena.get_work_group(WorkGroup="gates")["WorkGroup"]["Configuration"]
    assert made["EnforceWorkGroupConfiguration"] is True
    assert made["PublishCloudWatchMetricsEnabled"] is True
    assert made["BytesScannedCutoffPerQuery"] == analytics.CUTOFF_BYTES
    assert made["ResultConfiguration"]["OutputLocation"] == "s3://models/production/athena-results/"

    athena.create_work_group(Name="theirs", Configuration={"BytesScannedCutoffPerQuery": 10_000_000}, Description="BI")
    with pytest.raises(AnalyticsError, match=r"workgroup theirs is there, and not of Trueup"):
        init(environment(workgroup="theirs"))
    theirs = athena.get_work_group(WorkGroup="theirs")["WorkGroup"]
    assert theirs["Configuration"]["BytesScannedCutoffPerQuery"] == 10_000_000


@pytest.mark.parametrize("workgroup", [None, "primary"])
def test_the_workgroup_of_everybody_is_never_changed(double: Moto, workgroup: str | None):
    before = double.athena.get_work_group(WorkGroup="primary")["WorkGroup"]["Configuration"]
    for step in (init(environment(workgroup=workgroup))[-1], init(environment(workgroup=workgroup), adopt=True)[-1]):
        assert (step.action, step.what) == ("left", "workgroup primary")
        assert "analytics: {workgroup: NAME}" in step.detail
    assert double.athena.get_work_group(WorkGroup="primary")["WorkGroup"]["Configuration"] == before


def test_what_athena_cannot_read_is_refused_before_anything_is_asked():
    with pytest.raises(AnalyticsError, match="engine duckdb, which needs nothing made"):
        init(Environment(name="staging"))
    local = environment().model_copy(update={"object_storage": "file:///srv/models"})
    with pytest.raises(AnalyticsError, match="Athena reads S3 alone"):
        init(local)
    with pytest.raises(AnalyticsError, match="forbids them all"):
        init(environment(), cutoff_bytes=1000)


def test_what_the_service_refuses_is_told(script: Scripted):
    script.answers["GetWorkGroup"] = lambda _: (400, {"__type": "AccessDeniedException", "message": "no way"})
    with pytest.raises(AnalyticsError, match="AccessDeniedException: no way"):
        init(environment())


# -- SQL that runs: ministack ---------------------------------------------------------------------------------------


def build(build_id: str, finished_at: str, auc: float, model: str = "churn") -> dict[str, Any]:
    return {
        "build_id": build_id,
        "model": model,
        "environment": "production",
        "commit_id": "4f" * 20,
        "python": "3.11.7",
        "artifact": f"builds/{model}/{build_id}/artifact.tar.gz",
        "parameters": {"depth": "7"},
        "metrics": {"auc": auc, "AUC_top": 1 - auc},
        "tests_passed": 3,
        "tests_failed": 0,
        "tests_skipped": 0,
        "started_at": finished_at,
        "finished_at": finished_at,
        "duration_s": 12.5,
    }


@pytest.fixture
def history(stack: Any) -> Any:
    """Three builds of churn before the candidate, one after it, and one of another model."""
    init(environment())
    builds = [
        build("a" * 64, "2026-03-27T12:00:00.000Z", 0.71),
        build("b" * 64, "2026-03-28T12:00:00.000Z", 0.74),
        build(CANDIDATE, "2026-03-29T12:00:00.000Z", 0.99),
        build("d" * 64, "2026-03-29T12:00:00.001Z", 0.98),
        build("e" * 64, "2026-03-27T12:00:00.000Z", 0.97, model="fraud"),
    ]
    for row in builds:
        key = f"production/analytics/builds/model={row['model']}/{row['build_id']}.json"
        stack.put_object(Bucket="models", Key=key, Body=to_line(row))
    return stack


def test_a_gate_asks_for_the_best_before_the_candidate(history: Any):
    answer = ask("select max(metrics['auc']) as best from builds where model = :model")
    assert answer.rows == ((0.74,),)
    assert answer.columns == ("best",)
    assert "trueup" not in answer.sql


def test_a_name_with_its_database_means_the_same(history: Any):
    assert ask("select count(*) from trueup.builds where model = :model").rows == ((2,),)


def test_what_is_no_gate_sees_everything_until_now(history: Any):
    query = Query("select count(*), max(metrics['auc']) from builds where model = :model", {"model": "churn"})
    assert engine().ask(query, 20).rows == ((4, 0.99),)


def test_names_of_metrics_keep_their_case(history: Any):
    assert ask("select min(metrics['AUC_top']) from builds where model = :model").rows == ((pytest.approx(0.26),),)


def test_parameters_are_bound_and_never_pasted(history: Any):
    assert ask("select count(*) from builds where model = :model", model="x' or 1=1; --").rows == ((0,),)
    assert ask("select count(*) from builds where model = :model and 'is it :model?' <> ''").rows == ((2,),)


def test_no_build_is_null_and_two_are_two_rows(history: Any):
    assert ask("select max(metrics['auc']) from builds where model = 'none'").rows == ((None,),)
    assert ask("select build_id from builds where model = 'none'").rows == ()
    assert len(ask("select build_id from builds").rows) == 2


def test_a_table_without_objects_has_no_rows(history: Any):
    assert ask("select count(*) from promotions where model = :model").rows == ((0,),)


def test_what_fails_while_it_runs_says_why(history: Any):
    error = refused("select max(cast(build_id as integer)) from builds")
    assert (error.reason, error.retryable) == ("Failed", False)
    assert "Could not convert string" in error.message


def test_the_workgroup_says_where_results_go(history: Any):
    AthenaEngine("trueup", workgroup="gates", region="us-east-1").ask(Query("select count(*) from builds", {}), 20)
    found = history.list_objects_v2(Bucket="models", Prefix="production/athena-results/")["Contents"]
    assert [found["Key"].endswith(".csv") for found in found].count(True) == 1


def test_the_front_of_the_double_binds_as_athena_does():
    assert with_parameters("select '?' from t where a = ? and b = ?", ["'x?'", "1"]) == (
        "select '?' from t where a = 'x?' and b = 1"
    )
