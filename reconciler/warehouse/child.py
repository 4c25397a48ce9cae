"""A process that answers one question: what it runs may hang, crash or eat memory, and the reconciler must not.

The question goes in by a pipe, so no argument or environment variable shows it. Answers come out as lines of JSON, and
never as pickles: a broken driver must not be able to say what the reconciler executes.
"""

from __future__ import annotations

import json
import math
import os
import resource
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

#: Bytes that a line may have. The two rows of an answer are kept as evidence in a record, which has 1 MiB in all.
LINE_BYTES = 256 * 1024


def lines_of(
    module: str, question: Mapping[str, Any], deadline: float, env: Mapping[str, str] | None = None
) -> Generator[dict[str, Any]]:
    """What `python -m module` says to the question, line by line, until it ends or the deadline comes (monotonic, in
    seconds). It is dead afterwards. `env`: its environment variables; None: those of this process.
    """
    child = subprocess.Popen(  # noqa: S603 - a module of this package
        [sys.executable, "-P", "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=env,
        start_new_session=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        child.stdin.write(json.dumps(question).encode())
        child.stdin.close()
        os.set_blocking(child.stdout.fileno(), False)
        with selectors.DefaultSelector() as selector:
            selector.register(child.stdout, selectors.EVENT_READ)
            rest = b""
            while (left := deadline - time.monotonic()) > 0 and selector.select(left):
                chunk = child.stdout.read(65536)
                *lines, rest = (rest + chunk).split(b"\n")
                yield from (json.loads(line) for line in lines)
                if not chunk or len(rest) > LINE_BYTES:
                    return
    except BrokenPipeError:  # it ended before it had read the question
        return
    finally:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()


def speak(address_space: int) -> tuple[dict[str, Any], Callable[[Mapping[str, Any]], bool]]:
    """In the child: its question, and what says a line, which is False where the line is longer than it may be.

    From here on it has so many bytes of address space, ends a little after its deadline even where nobody is left to
    kill it, and what it prints goes nowhere. The question has its `timeout_s`.
    """
    resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold the secrets of the connection
    out = os.dup(1)
    os.dup2(2, 1)

    def say(line: Mapping[str, Any]) -> bool:
        text = json.dumps(line).encode() + b"\n"
        if len(text) > LINE_BYTES:
            return False
        while text:
            text = text[os.write(out, text) :]
        return True

    question = json.load(sys.stdin)
    signal.alarm(math.ceil(question["timeout_s"]) + 1)
    return question, say


def packed(value: Any) -> Any:
    """A cell as JSON: [type, content] where JSON itself would lose something."""
    match value:
        case None | bool() | str():
            return value
        case int() | float() | Decimal():
            return [type(value).__name__, str(value)]
        case datetime():
            return ["datetime", value.isoformat()]
        case date():
            return ["date", value.isoformat()]
        case timedelta():
            return ["timedelta", [value.days, value.seconds, value.microseconds]]
        case bytes() | bytearray() | memoryview():
            return ["bytes", bytes(value).hex()]
        case list() | tuple():
            return ["list", [packed(item) for item in value]]
        case _:  # a UUID, a range, a document: nothing that a number could be meant by
            return str(value)


_UNPACK: Mapping[str, Callable[[Any], Any]] = {
    "int": int,
    "float": float,
    "Decimal": Decimal,
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "timedelta": lambda parts: timedelta(*parts),
    "bytes": bytes.fromhex,
    "list": lambda items: [unpacked(item) for item in items],
}


def unpacked(cell: Any) -> Any:
    """The cell that was packed."""
    return _UNPACK[cell[0]](cell[1]) if isinstance(cell, list) else cell
