"""The child of the SQLAlchemy engine: one connection, one transaction that is never committed, one question.

PostgreSQL, MySQL and MariaDB get a read-only transaction in UTC with a time-out of the server; SQLite opens its file
read-only, under an authorizer that knows nothing but reading. With any other dialect, not to commit is all that can be
done from here.
"""

from __future__ import annotations

import os
import re
import sqlite3
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote, quote_plus

from sqlalchemy import URL, Connection, DateTime, Engine, String, TextClause, bindparam, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    InvalidRequestError,
    NoSuchModuleError,
    NotSupportedError,
    ProgrammingError,
    SQLAlchemyError,
)
from sqlalchemy.pool import NullPool

from reconciler.warehouse import ROWS, QueryError, child

#: Bytes of address space. Drivers that bring Arrow map some hundred megabytes before they do anything.
_BYTES = 2 * 1024 * 1024 * 1024
#: Seconds that the server's own time-out comes before this process is killed, so that the server does not go on alone.
_AHEAD = 0.25

_POSTGRES = (
    "SET TRANSACTION READ ONLY",
    "SET LOCAL statement_timeout = {ms}",
    "SET LOCAL lock_timeout = {ms}",
    "SET LOCAL idle_in_transaction_session_timeout = {ms}",
    "SET LOCAL TIME ZONE 'UTC'",
)
#: The session, too: a DROP ends the transaction that it is in before it runs.
_MYSQL = ("SET time_zone = '+00:00'", "SET SESSION TRANSACTION READ ONLY", "START TRANSACTION READ ONLY")
#: What is said before the question, by dialect. `SET LOCAL` and not options of the connection: a pooler such as
#: PgBouncer refuses those, and would hand a changed session to others.
_SESSION: Mapping[str, tuple[str, ...]] = {
    "postgresql": _POSTGRES,
    "mysql": ("SET SESSION max_execution_time = {ms}", *_MYSQL),
    "mariadb": ("SET SESSION max_statement_time = {s:.3f}", *_MYSQL),
}


def main() -> None:
    """One question from stdin, and its answer to stdout."""
    began = time.monotonic()
    question, say = child.speak(_BYTES)

    def fail(reason: str, message: str, retryable: bool) -> None:
        say({"error": reason, "message": masked(message, question["url"]), "retryable": retryable})

    def unexpected(kind: type[BaseException], error: BaseException, _: TracebackType | None) -> None:
        if isinstance(error, MemoryError):
            fail("TooLarge", "the answer needs more memory than a query may have", False)
        else:
            fail("Failed", f"{kind.__name__}: {_first_line(error)}", False)

    sys.excepthook = unexpected  # drivers raise what they like
    try:
        engine = _engine(_url(question["url"]))
        with _explained(), engine.connect() as connection:
            version = ".".join(map(str, connection.dialect.server_version_info or ()))
            say({"engine": f"{connection.dialect.name} {version}".strip()})
            answer = _answer(connection, question, question["timeout_s"] - (time.monotonic() - began))
            if not say(answer):
                raise QueryError("TooLarge", f"the answer has more than {child.LINE_BYTES // 1024} KiB")
    except QueryError as error:
        fail(error.reason, error.message, error.retryable)
    os._exit(0)  # what a driver does at exit is of no use any more, and may hang


def _url(given: str) -> URL:
    try:
        url = make_url(given)
    except (ArgumentError, ValueError):
        raise QueryError(
            "Unavailable", "the URL of the warehouse is none: write DIALECT+DRIVER://USER:PASSWORD@HOST/DATABASE"
        ) from None
    if url.get_backend_name() == "sqlite" and url.database:
        # Only as a URI can SQLite be told to open a file read-only.
        return url.set(
            database=f"file:{quote(str(Path(url.database).absolute()))}", query={"mode": "ro", "uri": "true"}
        )
    return url


def _engine(url: URL) -> Engine:
    try:
        engine = create_engine(url, poolclass=NullPool, hide_parameters=True)
    except (NoSuchModuleError, ImportError) as error:
        missing = getattr(error, "name", None) or url.drivername
        raise QueryError("Unavailable", f"{missing} is not installed here, and {url.drivername} needs it") from None
    except (ArgumentError, InvalidRequestError, TypeError) as error:
        raise QueryError("Unavailable", f"the URL of the warehouse is not usable: {_first_line(error)}") from None
    if engine.dialect.is_async:
        raise QueryError("Unavailable", f"{url.drivername} is an asynchronous driver: name a synchronous one")
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _only_reading)
    return engine


def _only_reading(connection: sqlite3.Connection, _: Any) -> None:
    """Has SQLite refuse what is not reading, when a statement is compiled."""
    reading = {
        sqlite3.SQLITE_SELECT,
        sqlite3.SQLITE_READ,
        sqlite3.SQLITE_RECURSIVE,
        sqlite3.SQLITE_FUNCTION,
        sqlite3.SQLITE_TRANSACTION,
    }
    connection.execute("PRAGMA query_only = ON")
    connection.set_authorizer(lambda action, *_: sqlite3.SQLITE_OK if action in reading else sqlite3.SQLITE_DENY)


def _answer(connection: Connection, question: Mapping[str, Any], left: float) -> dict[str, Any]:
    seconds = max(left - _AHEAD, 0.001)
    # `mysql://` may lead to a MariaDB.
    is_mariadb = getattr(connection.dialect, "is_mariadb", False)
    for statement in _SESSION.get("mariadb" if is_mariadb else connection.dialect.name, ()):
        connection.exec_driver_sql(statement.format(ms=round(seconds * 1000), s=seconds))
    # A cursor of the server: rows that nobody asks for are not sent.
    result = connection.execute(
        bound(question["sql"], {name: child.unpacked(cell) for name, cell in question["parameters"].items()}),
        execution_options={"stream_results": True, "max_row_buffer": ROWS},
    )
    if not result.returns_rows:
        raise QueryError("NotAllowed", "the statement gives no rows: a question is a SELECT")
    columns = list(result.keys())
    return {"columns": columns, "rows": [[child.packed(cell) for cell in row] for row in result.fetchmany(ROWS)]}


# -- parameters -----------------------------------------------------------------------------------------------------

#: A parameter; or what is none although it has a colon: text in quotes, a comment, a cast.
_COLON = re.compile(
    r"""'(?:[^']|'')*' | "(?:[^"]|"")*" | `[^`]*` | --[^\n]* | /\*.*?\*/ | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$ | ::
        | (?<![\w:]):(?P<name>[A-Za-z_]\w*) | :""",
    re.VERBOSE | re.DOTALL,
)


def bound(sql: str, parameters: Mapping[str, str | datetime]) -> TextClause:
    """The statement with those of the parameters that it names. By itself, SQLAlchemy finds some inside of quotes and
    comments, too.
    """
    used: set[str] = set()

    def keep(match: re.Match[str]) -> str:
        if match["name"] in parameters:
            used.add(match["name"])
            return match[0]
        return match[0].replace(":", r"\:")

    clause = text(_COLON.sub(keep, sql))
    return clause.bindparams(*(bindparam(name, parameters[name], _type_of(parameters[name])) for name in used))


def _type_of(value: str | datetime) -> String | DateTime:
    return DateTime(timezone=True) if isinstance(value, datetime) else String()


# -- errors ---------------------------------------------------------------------------------------------------------

#: SQLSTATEs, or their first two characters: the reason, and whether another try may fare better. Source: PostgreSQL's
#: appendix A; the classes are the standard's.
_STATES: Mapping[str, tuple[str, bool]] = {
    "57014": ("Timeout", True),  # query_canceled: statement_timeout
    "55P03": ("Timeout", True),  # lock_not_available
    "25P03": ("Timeout", True),  # idle_in_transaction_session_timeout
    "42501": ("Permission", False),
    "25": ("NotAllowed", False),  # transaction state: one that only reads
    "0A000": ("NotAllowed", False),  # feature_not_supported
    "53200": ("TooLarge", False),  # out_of_memory
    "54000": ("TooLarge", False),  # program_limit_exceeded
    "3D000": ("Unavailable", False),  # no such database
    "28": ("Permission", False),  # authorization
    "42": ("Syntax", False),
    "22": ("Failed", False),  # data: a division by zero
    "40": ("Failed", True),  # deadlock, serialization
    "08": ("Unavailable", True),  # connection
    "53": ("Unavailable", True),  # too many connections
    "57": ("Unavailable", True),  # shutdown
    "XX": ("Failed", False),  # internal
}
_SQLITE: Mapping[str, tuple[str, bool]] = {
    "SQLITE_AUTH": ("NotAllowed", False),
    "SQLITE_READONLY": ("NotAllowed", False),
    "SQLITE_TOOBIG": ("TooLarge", False),
    "SQLITE_NOMEM": ("TooLarge", False),
    "SQLITE_BUSY": ("Unavailable", True),
    "SQLITE_LOCKED": ("Unavailable", True),
    "SQLITE_CANTOPEN": ("Unavailable", False),
    "SQLITE_NOTADB": ("Unavailable", False),
    "SQLITE_CORRUPT": ("Unavailable", False),
}
#: Source: the error references of MySQL and MariaDB.
_MYSQL_NUMBERS: Mapping[int, tuple[str, bool]] = {
    1044: ("Permission", False),
    1045: ("Permission", False),
    1142: ("Permission", False),
    1143: ("Permission", False),
    1049: ("Unavailable", False),  # no such database
    1792: ("NotAllowed", False),  # a transaction that only reads
    1969: ("Timeout", True),  # max_statement_time
    3024: ("Timeout", True),  # max_execution_time
}


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        reason, retryable = _reason(error)
        raise QueryError(reason, _first_line(error.orig or error), retryable=retryable) from None
    except SQLAlchemyError as error:
        raise QueryError("Failed", _first_line(error)) from None


def _reason(error: DBAPIError) -> tuple[str, bool]:
    driver: Any = error.orig
    state = str(getattr(driver, "sqlstate", None) or getattr(driver, "pgcode", None) or "")
    sqlite = "_".join(str(getattr(driver, "sqlite_errorname", "")).split("_")[:2])  # SQLITE_BUSY_SNAPSHOT
    number = next(iter(getattr(driver, "args", ())), None)
    known = (
        _MYSQL_NUMBERS.get(number if isinstance(number, int) else 0)
        or _SQLITE.get(sqlite)
        or _STATES.get(state)
        or _STATES.get(state[:2])
    )
    if known is not None:
        return known
    said = str(driver).lower()
    if "not authorized" in said:  # SQLite, of some statements
        return "NotAllowed", False
    if "out of memory" in said:
        return "TooLarge", False
    if "authentication failed" in said:  # of a connection that failed, libpq tells no SQLSTATE
        return "Permission", False
    if isinstance(error, ProgrammingError) or sqlite == "SQLITE_ERROR":
        return "Syntax", False
    if isinstance(error, DataError | IntegrityError | NotSupportedError):
        return "Failed", False
    return "Unavailable", True


def _first_line(error: BaseException) -> str:
    """The rest repeats the statement."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:500] if lines else type(error).__name__


_SECRET = re.compile(r"pass|pwd|secret|token|key|credential", re.IGNORECASE)


def masked(message: str, given: str) -> str:
    """The message without the URL, and without its secrets, as they are and as a URL writes them."""
    secrets = {given}
    try:
        url = make_url(given)
    except (ArgumentError, ValueError):
        pass
    else:
        values = [url.password or "", *(value for key, value in url.query.items() if _SECRET.search(key))]
        plain = [part for value in values for part in ([value] if isinstance(value, str) else value)]
        secrets |= {write(secret) for secret in plain for write in (str, quote, quote_plus)}
    for secret in sorted(secrets - {""}, key=len, reverse=True):
        message = message.replace(secret, "***")
    return message


if __name__ == "__main__":
    main()
