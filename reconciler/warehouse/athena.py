"""Amazon Athena as the engine: SQL over the object storage, through tables that `reconcile analytics init` makes.

The statement is one SELECT, its workgroup bounds what it may scan, and its role should allow no more than to run
queries there and to read. Instants are in UTC, as all of Athena is. `?` stands for a parameter, and Athena takes those
in WHERE (and in what WHERE compares), not among the selected columns.

The same question asked again within a quarter of an hour gets the same execution, by its ClientRequestToken: a
reconciler that crashed while it ran does not pay for it twice. An execution that failed, or that is older, is not taken
again. AWS_ENDPOINT_URL and all else that boto3 reads (credentials, profile, proxy) count as they do for boto3.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from email.utils import parsedate_to_datetime
from itertools import count
from typing import Any

from reconciler.warehouse import ROWS, Answer, Query, QueryError
from reconciler.warehouse.tables import COLUMNS

#: How old an execution may be to be taken for the same question again.
_FRESH = timedelta(minutes=15)
#: How often a question that failed may be asked anew: Athena has a token for each.
_GENERATIONS = 50
#: Pauses between looks at a running query, in seconds; the last one is repeated.
_PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0)
#: Characters of a cell. Two rows go into a record as evidence.
_CELL = 64 * 1024
_FINAL = frozenset({"SUCCEEDED", "FAILED", "CANCELLED"})


class AthenaEngine:
    """Asks one database, in one workgroup. Without `region`, boto3's; without `output_location`, the workgroup's."""

    def __init__(
        self,
        database: str,
        *,
        workgroup: str = "primary",
        output_location: str | None = None,
        region: str | None = None,
    ) -> None:
        self._database = database
        self._workgroup = workgroup
        self._output_location = output_location
        self._region = region

    def ask(self, query: Query, timeout_s: float) -> Answer:
        """Raises QueryError. An execution that is not done by then is stopped."""
        began = time.monotonic()
        until = began + timeout_s
        sql, parameters = _prepared(query, self._database)
        request = {
            "QueryString": sql,
            "QueryExecutionContext": {"Database": self._database},
            "WorkGroup": self._workgroup,
            "ResultReuseConfiguration": {"ResultReuseByAgeConfiguration": {"Enabled": False}},
        }
        if parameters:  # Athena refuses an empty list
            request["ExecutionParameters"] = parameters
        if self._output_location:
            request["ResultConfiguration"] = {"OutputLocation": self._output_location}
        with explained("Athena"), client("athena", self._region, timeout_s) as athena:
            execution = _started(athena, request)
            execution = _finished(athena, execution, until, timeout_s)
            results = athena.get_query_results(QueryExecutionId=execution["QueryExecutionId"], MaxResults=1 + ROWS)
        columns, rows = _table(results["ResultSet"])
        version = execution.get("EngineVersion", {}).get("EffectiveEngineVersion", "")
        engine = f"athena {number[0]}" if (number := re.search(r"[0-9.]+", version)) else "athena"
        return Answer(columns, rows, engine, sql, round((time.monotonic() - began) * 1000))


@contextmanager
def client(service: str, region: str | None, timeout_s: float) -> Iterator[Any]:
    """A client of boto3, no call of which takes much longer than `timeout_s` seconds. Its errors are of botocore."""
    import boto3  # noqa: PLC0415 - a quarter of a second, for those who ask
    from botocore.config import Config  # noqa: PLC0415

    config = Config(
        connect_timeout=max(0.1, min(5.0, timeout_s)),
        read_timeout=max(0.1, min(10.0, timeout_s)),
        # A token makes it safe to start a query again, and whoever asks tries again anyway.
        retries={"mode": "standard", "total_max_attempts": 2 if timeout_s > 20 else 1},
        user_agent_extra="trueup",
    )
    # Of a session of its own: boto3's common one is not for threads, and keeps the credentials that it once found.
    opened = boto3.Session().client(service, region_name=region, config=config)
    try:
        yield opened
    finally:
        opened.close()


# -- a query --------------------------------------------------------------------------------------------------------


def _prepared(query: Query, database: str) -> tuple[str, list[str]]:
    from reconciler.warehouse import statement  # noqa: PLC0415 - a tenth of a second, for those who ask

    # How many columns there are is the gate's business, which has its own words for it.
    for problem in statement.problems(query.sql, "athena", tables=COLUMNS, parameters=query.parameters, elsewhere=True):
        if problem.rule != "sql/one-column":
            reason = "NotAllowed" if problem.rule == "sql/not-allowed" else "Syntax"
            raise QueryError(reason, f"{problem.message}{problem.hint and f': {problem.hint}'}")
    is_gate = "build_id" in query.parameters
    prepared = statement.prepared(query.sql, "athena", exclude_candidate=is_gate, qualify=database, style="question")
    return prepared.sql, [literal(query.parameters[name]) for name in prepared.parameters]


def literal(value: str | datetime) -> str:
    """An execution parameter: an expression of SQL, so text is in quotes, and an instant a timestamp without a zone in
    UTC, as the tables have it.
    """
    if isinstance(value, datetime):
        return f"CAST('{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}.{value.microsecond // 1000:03d}' AS TIMESTAMP)"
    return "'" + value.replace("'", "''") + "'"


def _started(athena: Any, request: Mapping[str, Any]) -> dict[str, Any]:
    """The execution of the question: one that is under way, or that has just ended well, or a new one."""
    for generation in range(_GENERATIONS):
        token = hashlib.sha256(json.dumps([request, generation], sort_keys=True).encode()).hexdigest()
        started = athena.start_query_execution(**request, ClientRequestToken=token)
        shown = athena.get_query_execution(QueryExecutionId=started["QueryExecutionId"])
        execution: dict[str, Any] = shown["QueryExecution"]
        if _is_ours(execution, shown["ResponseMetadata"].get("HTTPHeaders", {}).get("date", "")):
            return execution
    raise QueryError("Failed", f"this question has failed {_GENERATIONS} times")


def _is_ours(execution: Mapping[str, Any], moment: str) -> bool:
    """Whether the execution is new, or still as good as new. `moment`: Athena's own clock; it knows when it began."""
    submitted = execution["Status"].get("SubmissionDateTime")
    if submitted is None or not moment:
        return True
    age: timedelta = parsedate_to_datetime(moment) - submitted
    failed = execution["Status"]["State"] in ("FAILED", "CANCELLED")
    # A new execution that failed at once is an answer. The clock shows whole seconds.
    return age <= (timedelta(seconds=3) if failed else _FRESH)


def _finished(athena: Any, execution: dict[str, Any], until: float, timeout_s: float) -> dict[str, Any]:
    query = execution["QueryExecutionId"]
    try:
        for look in count():
            if execution["Status"]["State"] in _FINAL:
                break
            left = until - time.monotonic()
            if left <= 0:
                raise QueryError("Timeout", f"no answer within {timeout_s:g} s; the query was stopped", retryable=True)
            time.sleep(min(_PAUSES[min(look, len(_PAUSES) - 1)], left))
            with suppress(*_passing()):
                execution = athena.get_query_execution(QueryExecutionId=query)["QueryExecution"]
    finally:
        if execution["Status"]["State"] not in _FINAL:
            # It would run on, and cost, with nobody to read what it finds.
            with suppress(*_passing()):
                athena.stop_query_execution(QueryExecutionId=query)
    if execution["Status"]["State"] != "SUCCEEDED":
        raise failure(execution["Status"])
    return execution


# -- answers --------------------------------------------------------------------------------------------------------


def _table(results: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[tuple[Any, ...], ...]]:
    """Columns and rows. The first row of a SELECT repeats the names."""
    info = results["ResultSetMetadata"]["ColumnInfo"]
    columns = tuple(column["Name"] for column in info)
    rows = [[cell.get("VarCharValue") for cell in row["Data"]] for row in results["Rows"]]
    if rows and tuple(rows[0]) == columns:
        del rows[0]
    if any(cell is not None and len(cell) > _CELL for row in rows for cell in row):
        raise QueryError("TooLarge", f"a cell of the answer has more than {_CELL // 1024} KiB")
    types = [column["Type"] for column in info]
    return columns, tuple(
        tuple(_cell(cell, kind) for cell, kind in zip(row, types, strict=True)) for row in rows[:ROWS]
    )


_INTEGERS = frozenset({"tinyint", "smallint", "integer", "int", "bigint"})


def _cell(text: str | None, kind: str) -> Any:
    """A cell in Python's type of it; text, where Python has none."""
    if text is None:
        return None
    try:
        match kind:
            case "boolean":
                return {"true": True, "false": False}[text]
            case "decimal":
                return Decimal(text)
            case "double" | "float" | "real":
                return float(text)
            case "date":
                return date.fromisoformat(text)
            case "timestamp":
                return datetime.fromisoformat(text).replace(tzinfo=UTC)
            case "varbinary":
                return bytes.fromhex(text.replace(" ", ""))
            case _ if kind in _INTEGERS:
                return int(text)
            case _ if kind.startswith("interval"):
                return _interval(text)
    except (ValueError, KeyError, InvalidOperation):
        pass
    return text


def _interval(text: str) -> Any:
    """Of days, hours, minutes, seconds, as Athena writes it: `1 02:03:04.567`. One of years and months stays text."""
    parts = re.fullmatch(r"(-?)([0-9]+) ([0-9]{2}):([0-9]{2}):([0-9]{2}(?:\.[0-9]+)?)", text)
    if parts is None:
        return text
    sign, days, hours, minutes, seconds = parts.groups()
    length = timedelta(days=int(days), hours=int(hours), minutes=int(minutes), seconds=float(seconds))
    return -length if sign else length


# -- errors ---------------------------------------------------------------------------------------------------------

#: What the reason of an execution that failed says, in this order. Source: Athena's troubleshooting guide.
_REASONS: tuple[tuple[str, str, bool], ...] = (
    (r"bytes scanned limit|data scanned.*limit|exceed\w* the (?:\w+ )*limit", "TooLarge", False),
    (r"exhausted resources|resources exhausted|out of memory", "TooLarge", False),
    (r"timed? ?out|exceeded maximum time", "Timeout", True),
    (
        r"access denied|not authorized|insufficient (?:lake formation )?permission|permission denied",
        "Permission",
        False,
    ),
    (r"slow ?down|throttl|too many requests|rate exceeded|internal error|unavailable|try again", "Unavailable", True),
    (
        (
            r"syntax|mismatched input|cannot be resolved|does not exist|not found|type_mismatch|constraint_violation"
            r"|function_not_found|invalid_function_argument|parser error|binder error|catalog error"
        ),
        "Syntax",
        False,
    ),
)
#: Error codes of the service. Others are told from the HTTP status.
_CODES: Mapping[str, tuple[str, bool]] = {
    "AccessDeniedException": ("Permission", False),
    "UnrecognizedClientException": ("Permission", False),
    "InvalidSignatureException": ("Permission", False),
    "ExpiredTokenException": ("Permission", True),  # credentials of a role are renewed
    "InvalidRequestException": ("Syntax", False),
    "TooManyRequestsException": ("Unavailable", True),
    "ThrottlingException": ("Unavailable", True),
    "InternalServerException": ("Unavailable", True),
}


def failure(status: Mapping[str, Any]) -> QueryError:
    """Why an execution ended without an answer, from its `Status`."""
    error = status.get("AthenaError", {})
    said = str(status.get("StateChangeReason") or error.get("ErrorMessage") or "")
    sentence = " ".join(said.split())[:500] or f"the query ended as {status['State']}, and Athena does not say why"
    for pattern, reason, retryable in _REASONS:
        if re.search(pattern, said, re.IGNORECASE):
            if "injected" in said.lower():
                sentence += "; write `where environment = :environment and model = :model and variation = '...'`"
            return QueryError(reason, sentence, retryable=retryable or error.get("Retryable", False))
    if status["State"] == "CANCELLED":
        return QueryError("Failed", f"the query was cancelled: {said or 'by a person, or by a limit'}", retryable=True)
    # Category 1 is Athena's own fault, 2 the query's.
    is_passing = error.get("Retryable", False) or error.get("ErrorCategory") == 1
    return QueryError("Unavailable" if is_passing else "Failed", sentence, retryable=is_passing)


def _passing() -> tuple[type[Exception], ...]:
    """What a call may raise that says nothing of the query: the next look may fare better."""
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    return BotoCoreError, ClientError


@contextmanager
def explained(service: str) -> Iterator[None]:
    """Raises what boto3 means as a QueryError."""
    from botocore.exceptions import (  # noqa: PLC0415
        BotoCoreError,
        ClientError,
        ConnectionError,  # noqa: A004 - botocore's own
        CredentialRetrievalError,
        HTTPClientError,
        NoCredentialsError,
        NoRegionError,
        PartialCredentialsError,
    )

    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        reason, retryable = _CODES.get(code, ("Unavailable", True) if status >= 500 else ("Failed", False))
        message = " ".join(str(error.response.get("Error", {}).get("Message", "")).split())
        raise QueryError(reason, f"{code}: {message}"[:500], retryable=retryable) from None
    except NoRegionError:
        hint = "write analytics: {region: us-east-1}, or set AWS_REGION"
        raise QueryError("Unavailable", f"no AWS region is known: {hint}") from None
    except (NoCredentialsError, PartialCredentialsError):
        raise QueryError("Permission", "no AWS credentials are known to the reconciler") from None
    except CredentialRetrievalError as error:
        raise QueryError("Permission", str(error)[:500], retryable=True) from None
    except (ConnectionError, HTTPClientError) as error:
        raise QueryError("Unavailable", f"{service} cannot be reached: {error}"[:500], retryable=True) from None
    except BotoCoreError as error:
        raise QueryError("Failed", str(error)[:500]) from None
