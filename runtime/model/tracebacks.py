"""Tracebacks for the author of a model: their frames, not ours."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path

_OURS = (str(Path(__file__).resolve().parents[1]) + "/", "<frozen importlib", str(importlib.__file__))
#: Of a deep recursion, the beginning and the end are enough.
_FRAMES = 20


def own_traceback(error: BaseException) -> str:
    """The traceback of an error that a model's code raised, without the frames of this package and of the importer.

    Causes are told as Python tells them. An error without any frame of the model's is told by its last line alone.
    """
    told = traceback.TracebackException.from_exception(error, limit=None)
    link: traceback.TracebackException | None = told
    while link is not None:
        link.stack = traceback.StackSummary.from_list(_shortened([frame for frame in link.stack if _theirs(frame)]))
        link = link.__cause__ or link.__context__
    return "".join(told.format()).rstrip()


def _theirs(frame: traceback.FrameSummary) -> bool:
    return not frame.filename.startswith(_OURS)


def _shortened(frames: list[traceback.FrameSummary]) -> list[traceback.FrameSummary]:
    return frames if len(frames) <= _FRAMES else frames[: _FRAMES // 2] + frames[-_FRAMES // 2 :]


def location_of(error: BaseException) -> str:
    """Where the model's code raised, as ` at main/model.py:12`; empty where it is not known."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _theirs(frame)]
    if isinstance(error, SyntaxError) and error.filename:
        return f" at {_short(error.filename)}:{error.lineno}"
    return f" at {_short(frames[-1].filename)}:{frames[-1].lineno}" if frames else ""


def _short(filename: str) -> str:
    """Relative to the first folder of `sys.path` that holds it: the absolute one is that of a container."""
    for folder in sys.path:
        if folder and filename.startswith(folder + "/"):
            return filename[len(folder) + 1 :]
    return filename
