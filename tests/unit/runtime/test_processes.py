"""Child processes: their output, their end, and how it is told."""

from __future__ import annotations

import io
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from runtime.exits import Exit, Failure
from runtime.logs import Log, Secrets
from runtime.processes import Ended, interruptible
from runtime.processes import run as run_process


def run(code: str, timeout_s: float | None = None) -> tuple[Ended, Log]:
    log = Log(io.StringIO(), Secrets({"TOKEN": "planted-4711"}))
    command = [sys.executable, "-c", code]
    return run_process(command, log=log, cwd=Path("/"), env=os.environ, timeout_s=timeout_s), log


def is_gone(pid: int) -> bool:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            # Nobody may have asked for the end of an orphan yet.
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.01)
    return False


def test_both_streams_are_logged_and_the_status_is_told() -> None:
    ended, log = run("import sys; print('one', flush=True); print('two planted-4711', file=sys.stderr); sys.exit(7)")
    assert (ended.status, ended.fault) == (7, None)
    assert log.content() == b"one\ntwo ***\n"
    assert "two" in ended.tail


def test_a_line_without_an_end_and_bytes_that_are_no_text_are_logged() -> None:
    _, log = run("import sys; sys.stdout.buffer.write(b'x' * 100000 + b'\\xff')")
    assert log.content().count(b"x") == 100_000


def test_a_signal_is_named() -> None:
    ended, _ = run("import os; os.kill(os.getpid(), 11)")
    assert ended.status == -signal.SIGSEGV
    assert ended.fault == "was killed by SIGSEGV"


def test_a_lack_of_memory_is_named() -> None:
    assert "was killed for lack of memory" in str(Ended(-9, "", out_of_memory=True).fault)


def test_what_takes_too_long_is_ended() -> None:
    began = time.monotonic()
    ended, _ = run("import time; time.sleep(60)", timeout_s=0.5)
    assert ended.status is None
    assert time.monotonic() - began < 40


def test_what_is_deaf_to_sigterm_is_ended_too() -> None:
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    )
    ended, log = run(code, timeout_s=1)
    assert ended.status is None
    assert log.content() == b"deaf\n"


def test_what_it_leaves_running_ends_with_it() -> None:
    code = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid)"
    began = time.monotonic()
    ended, log = run(code)
    assert ended.status == 0
    assert time.monotonic() - began < 40
    assert is_gone(int(log.content()))


def test_what_begins_a_session_of_its_own_is_not_waited_for() -> None:
    code = (
        "import subprocess, sys; "
        "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True).pid)"
    )
    began = time.monotonic()
    ended, log = run(code)
    try:
        assert ended.status == 0
        assert time.monotonic() - began < 40
    finally:
        os.kill(int(log.content()), signal.SIGKILL)


def test_a_signal_becomes_a_failure_and_its_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Failure, match="SIGTERM ended it") as caught, interruptible():
        signal.raise_signal(signal.SIGTERM)
    assert caught.value.code == Exit.INTERRUPTED
    assert signal.getsignal(signal.SIGTERM) == before
