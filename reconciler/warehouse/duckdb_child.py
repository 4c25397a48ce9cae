"""The process in which DuckDB answers one question.

DuckDB's own limits do not hold (the values of lists and texts are not counted, and an interrupt may take a minute), so
the kernel's do: of memory, of CPU time, and of the size of files that are written, which is nothing. Then the tables
are loaded, DuckDB's access to everything else is closed for good, and only then it sees the statement.
"""

from __future__ import annotations

import math
import os
import resource
import signal
from collections.abc import Mapping
from typing import Any

from reconciler.warehouse import ROWS, child

#: Bytes of address space.
_BYTES = 2 * 1024 * 1024 * 1024
#: The memory that DuckDB itself counts; the rest of the process needs some, too.
_COUNTED = "1GiB"
_THREADS = 2


def main() -> None:
    """One question from stdin, and its answer to stdout."""
    question, say = child.speak(_BYTES)
    seconds = math.ceil(question["timeout_s"]) + 1
    # Nobody else ends this process where the one that started it is killed, and the statement only sleeps.
    signal.alarm(seconds)
    for limit, amount in (
        (resource.RLIMIT_CPU, seconds * _THREADS),
        (resource.RLIMIT_FSIZE, 0),  # pipes are no files
        (resource.RLIMIT_NOFILE, 256),
    ):
        resource.setrlimit(limit, (amount, amount))
    if not say(_answered(question)):
        sentence = f"the answer has more than {child.LINE_BYTES // 1024} KiB; what is wanted is one number"
        say({"reason": "TooLarge", "message": sentence})
    os._exit(0)  # DuckDB takes its time to tidy up what ends with the process anyway


def _answered(question: Mapping[str, Any]) -> dict[str, Any]:
    try:
        import duckdb  # noqa: PLC0415 - under the limits
    except ImportError as error:
        return {"reason": "Failed", "message": f"DuckDB cannot be loaded: {error}"}
    try:
        connection = _locked(duckdb, question)
        return {"version": duckdb.__version__, **_asked(duckdb, connection, question)}
    except (MemoryError, duckdb.OutOfMemoryException):
        sentence = f"the query needs more than the {_BYTES >> 30} GiB of memory that it may use"
        return {"reason": "TooLarge", "message": sentence}
    except duckdb.Error as error:
        # Without the excerpt of the statement, which is in the evidence anyway.
        sentence = " ".join(str(error).split("\nLINE ")[0].split())[:1000]
        return {"reason": _reason(duckdb, error), "message": sentence}
    except OSError as error:
        return {"reason": "Unavailable", "message": f"{error.filename}: {error.strerror}"}


def _locked(duckdb: Any, question: Mapping[str, Any]) -> Any:
    connection = duckdb.connect(
        ":memory:",
        config={
            "threads": _THREADS,
            "memory_limit": _COUNTED,
            "temp_directory": "",
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_community_extensions": False,
            "allow_persistent_secrets": False,
            "python_enable_replacements": False,  # a name that is no table would be looked for in this very program
        },
    )
    connection.execute("SET TimeZone = 'UTC'")
    os.chdir("/")
    for step in question["setup"]:
        os.chdir(step["folder"])  # patterns are relative: in a folder's name, `[` and `*` would mean something
        for sql in step["sql"]:
            connection.execute(sql)
    if question["allowed"]:
        connection.execute(f"SET allowed_directories = ['{question['allowed']}']")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def _asked(duckdb: Any, connection: Any, question: Mapping[str, Any]) -> dict[str, Any]:
    statements = connection.extract_statements(question["sql"])
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        return {"reason": "NotAllowed", "message": "exactly one SELECT is possible here"}
    connection.execute(statements[0], {name: child.unpacked(cell) for name, cell in question["parameters"].items()})
    columns = [column[0] for column in connection.description]
    return {"columns": columns, "rows": [[child.packed(cell) for cell in row] for row in connection.fetchmany(ROWS)]}


def _reason(duckdb: Any, error: Exception) -> str:
    reasons = {
        duckdb.InterruptException: "Timeout",
        duckdb.PermissionException: "NotAllowed",
        duckdb.ParserException: "Syntax",
        duckdb.SyntaxException: "Syntax",
        duckdb.BinderException: "Syntax",
        duckdb.CatalogException: "Syntax",
        duckdb.NotImplementedException: "Syntax",
        duckdb.IOException: "Unavailable",
    }
    return next((reason for kind, reason in reasons.items() if isinstance(error, kind)), "Failed")


if __name__ == "__main__":
    main()
