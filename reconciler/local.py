"""`reconcile up` and `down`: the embedded data plane as a process of this machine.

It is started as `python -m embedded` and reached through its kubeconfig, as any cluster is.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

_START_SECONDS = 30.0
_STOP_SECONDS = 30.0
_POLL_SECONDS = 0.05


class LocalError(Exception):
    """The process did not start or stop. The sentence says why, and where its log is."""


def up(home: Path, *, only_api: bool = False) -> tuple[int, bool]:
    """Starts the embedded data plane, unless it runs. Its process id, and whether it was started now.

    `only_api`: objects are kept, and nothing is made of them: no process, no traffic.
    """
    home = home.absolute()  # the process tells whose it is by this path, wherever the next command is run
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (home / "lock").open("w")
    except OSError as error:
        raise LocalError(f"{home}: {error.strerror}; name another folder with --home") from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two that start at once would each take the other's kubeconfig away
        running = pid(home)
        return (running, False) if running is not None else (_start(home, only_api=only_api), True)


def keep_mirrors(home: Path, mirrors: Mapping[str, str]) -> None:
    """Where builds on this machine read repositories, too: what the reconciler reads elsewhere, they cannot find."""
    if mirrors and pid(home) is not None:
        lines = "".join(f"{beginning}={replacement}\n" for beginning, replacement in sorted(mirrors.items()))
        path = home / "data" / "git-mirrors"
        if not path.exists() or path.read_text(encoding="utf-8") != lines:
            path.write_text(lines, encoding="utf-8")


def _start(home: Path, *, only_api: bool) -> int:
    log_path = home / "log"
    kubeconfig = home / "kubeconfig"
    kubeconfig.unlink(missing_ok=True)
    with log_path.open("ab") as log:
        process = subprocess.Popen(  # noqa: S603 - a fixed argument list, no shell
            [*_command(home), "--kubeconfig", str(kubeconfig), *(["--only-api"] if only_api else [])],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,  # ^C in the terminal is for the command, not for the server that it left running
        )
    (home / "pid").write_text(f"{process.pid}\n", encoding="ascii")
    assert process.stdout is not None
    # The server says one line when it serves; the pipe ends when it does not.
    readable, _, _ = select.select([process.stdout], [], [], _START_SECONDS)
    line = process.stdout.readline().decode(errors="replace") if readable else ""
    if not line.startswith("ready "):
        process.kill()
        process.wait()
        raise LocalError(f"the embedded data plane did not start; {_last_words(log_path)}")
    return process.pid


def _command(home: Path) -> list[str]:
    # -P: a folder `embedded` where the command is run is not ours.
    return [sys.executable, "-P", "-m", "embedded", "--data", str(home / "data")]


def down(home: Path) -> bool:
    """Stops the embedded data plane and all that it runs. False where none ran. What it stored stays."""
    home = home.absolute()
    running = pid(home)
    if running is None:
        with suppress(OSError):  # one that stays names nobody
            (home / "pid").unlink()
        _end_leftovers(home)
        return False
    _signal(running, signal.SIGTERM)
    until = time.monotonic() + _STOP_SECONDS
    while pid(home) is not None:
        if time.monotonic() > until:
            _signal(running, signal.SIGKILL)
            until = time.monotonic() + _STOP_SECONDS
        time.sleep(_POLL_SECONDS)
    (home / "pid").unlink(missing_ok=True)
    _end_leftovers(home)
    return True


def _end_leftovers(home: Path) -> None:
    """What a data plane that was killed had no time to end: it runs on, and nobody looks after it."""
    if (home / "data").is_dir():
        command = [*_command(home), "--end-leftovers"]
        done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - as above
        if done.returncode != 0:
            words = (done.stderr.strip().splitlines() or ["it does not say why"])[-1]
            raise LocalError(f"what {home} started may still run, for nobody could look after it: {words}")


def _signal(number: int, sign: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # it has just ended by itself
        os.kill(number, sign)


def pid(home: Path) -> int | None:
    """The process of the embedded data plane in this folder, or None.

    A process id is used again by others after a restart, so the process must also say that it is ours.
    """
    try:
        number = int((home / "pid").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    try:
        words = subprocess.run(  # noqa: S603 - a fixed argument list, no shell
            ["ps", "-ww", "-o", "stat=,args=", "-p", str(number)],  # noqa: S607 - ps is where the system has it
            capture_output=True,
            text=True,
            check=False,
        ).stdout
    except FileNotFoundError:
        words = _proc_words(number)
    alive = not words.lstrip().startswith("Z")
    return number if alive and "embedded" in words and str(home / "data") in words else None


def _proc_words(number: int) -> str:
    """Where there is no `ps`: Linux's own account of a process."""
    try:
        return Path(f"/proc/{number}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _last_words(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return f"its last words in {log}: {lines[-1]}" if lines else f"its log {log} is empty"
