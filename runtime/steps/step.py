"""What the steps have in common: ending with the build, and an answer whatever the model's code does."""

from __future__ import annotations

import ctypes
import faulthandler
import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from runtime.exits import Exit
from runtime.model.exceptions import ModelError
from runtime.model.tracebacks import location_of, own_traceback

Answer = TypeVar("Answer")

_PR_SET_PDEATHSIG = 1


class StepError(Exception):
    """The step failed, and the build with it: the exit code and the reason of the build, and what to tell."""

    def __init__(self, error: ModelError, code: Exit) -> None:
        super().__init__(str(error))
        self.code = code
        self.reason = "OutOfMemory" if isinstance(error.__cause__, MemoryError) else None


def run(step: Callable[[list[str]], dict[str, Any]]) -> int:
    """Runs a step with the arguments of this process, of which the last names the file for its answer."""
    # Whoever kills the build means the model's code, too.
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    faulthandler.enable()  # a crash in compiled code says where it was
    *arguments, path = sys.argv[1:]
    try:
        answer = step(arguments)
        code = Exit.DONE
    except StepError as error:
        answer = {"error": {"code": error.code, "reason": error.reason, "message": str(error)}}
        code = error.code
    Path(path).write_text(json.dumps(answer, allow_nan=False), "utf-8", "replace")
    return code


def call(function: Callable[[], Answer], what: str) -> Answer:
    """Calls the model's code. Raises ModelError for whatever it raises."""
    try:
        return function()
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise ModelError(f"{what} failed{location_of(error)}: {reason}", own_traceback(error)) from error
