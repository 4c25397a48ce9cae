"""`predict.py ARTIFACT SOCKET INPUT_TYPE OUTPUT_TYPE ROWS SECONDS`: predicts on files, in the model's environment.

SOCKET is the number of a descriptor; both sides write JSON documents to it, one a line. The first is this side's:
`ready`, or `error` with a code and a reason. Then each `{"source": PATH, "target": PATH}` is answered by `rows`, how
many there were, or by `error`, a sentence; and each `{"count": PATH}`, of a file that was made before, by its `rows`.

`runtime batch` starts it as a file, and not as a module: the environment of an older build has no such module yet.
"""

from __future__ import annotations

import ctypes
import faulthandler
import importlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from runtime.exits import Exit
from runtime.model import adapters, frames
from runtime.model.api import Api, api_of
from runtime.model.exceptions import ModelError
from runtime.model.loader import load
from runtime.model.tracebacks import location_of, own_traceback

_PR_SET_PDEATHSIG = 1

#: What pandas and pyarrow raise for content that they cannot read or write.
_UNFIT = (ValueError, TypeError, KeyError, NotImplementedError, OSError)


class _FileError(Exception):
    """This file cannot be answered: why. The next one may be."""


def main() -> None:
    """Answers until the other side is gone."""
    artifact, number, source_type, target_type, rows, seconds = sys.argv[1:]
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    faulthandler.enable()
    os.set_inheritable(int(number), False)  # a process that the model starts would keep it open
    with socket.socket(fileno=int(number)) as control, control.makefile("rwb") as stream:

        def say(**answer: Any) -> None:
            stream.write(json.dumps(answer).encode() + b"\n")
            stream.flush()

        try:
            ask = _asker(api_of(load(Path(artifact))))
            files = _Files(source_type, target_type, int(rows))
        except ModelError as error:
            code = Exit.DEPENDENCIES if isinstance(error, _PackageError) else Exit.MODEL
            say(error=str(error), code=code)
            return
        say(ready=True)
        for line in stream:
            # What hangs in compiled code does not hear of anything but this: it ends the process.
            signal.alarm(int(seconds))
            try:
                say(rows=files.answer(json.loads(line), ask))
            except _FileError as failed:
                say(error=str(failed))
            signal.alarm(0)


class _PackageError(ModelError):
    """A package of the model's environment that files of this type need."""


def _asker(api: Api) -> Callable[[Any], Any]:
    """Calls predict() with a DataFrame, or with what the model's adapter makes of a table. Raises ModelError."""
    own = api._input
    several = own.adapters if isinstance(own, adapters.MultiInputAdapter) else [own]
    if any(isinstance(each, adapters.DataFrameInputAdapter) for each in several):
        return api.call
    for each in several:
        if isinstance(each, adapters.NumpyInputAdapter):
            fitted = each._fitted
            return lambda frame: api.call(fitted(frame.to_numpy()))
    raise ModelError(
        f"predict() reads its input by {type(own).__name__}, and files have rows of values: "
        "use DataFrameInputAdapter, or NumpyInputAdapter, for a model of batch executions."
    )


class _Files:
    """Reads and writes tables of two types. A csv is read as a whole, for its last row may say of what type a column
    is; of the other types, `rows` at a time."""

    def __init__(self, source_type: str, target_type: str, rows: int) -> None:
        self._source_type, self._target_type, self._rows = source_type, target_type, rows
        needed = ["pandas", *(["pyarrow"] if {source_type, target_type} != {"csv"} else [])]
        for package in needed:
            try:
                importlib.import_module(package)
            except ImportError as error:
                raise _PackageError(
                    f"{source_type} files in and {target_type} files out need {' and '.join(needed)}, and the model's "
                    f"environment has no {package} ({error}): add {package} to the requirements of the model, and "
                    "build it anew"
                ) from error
        self._pandas = importlib.import_module("pandas")

    def answer(self, task: dict[str, str], ask: Callable[[Any], Any]) -> int:
        """Does one task. Raises _FileError."""
        if "count" in task:
            return sum(len(frame) for frame in self._read(task["count"], self._target_type))
        answers: list[Any] = []
        rows = 0
        for frame in self._read(task["source"], self._source_type):
            answers.append(self._asked(ask, frame, rows))
            rows += len(frame)
        self._write(answers, task["target"])
        return rows

    def _asked(self, ask: Callable[[Any], Any], frame: Any, start: int) -> Any:
        where = f"rows {start} to {start + len(frame) - 1}"
        try:
            answer = ask(frame)
        except (Exception, SystemExit) as error:
            sys.stderr.write(own_traceback(error) + "\n")
            raise _FileError(f"predict() failed in {where}{location_of(error)}: {_words(error)}") from error
        try:
            made = self._frame_of(answer)
        except _UNFIT as error:
            raise _FileError(f"what predict() answered in {where} is no table: {_words(error)}") from error
        if len(made) != len(frame):
            raise _FileError(f"predict() answered {len(made)} rows to {len(frame)} ({where}): it must be one for each")
        return made

    def _frame_of(self, answer: Any) -> Any:
        if frames.is_frame(answer):
            return answer
        if frames.is_series(answer):
            return answer.to_frame("prediction" if answer.name is None else answer.name)
        if hasattr(answer, "tolist"):
            answer = answer.tolist()
        made = self._pandas.DataFrame(answer)
        return made.rename(columns={0: "prediction"}) if list(made.columns) == [0] else made

    def _read(self, path: str, kind: str) -> Iterator[Any]:
        try:
            for frame in self._batches(path, kind):
                # As in a request, where the rows have no labels of their own.
                yield frame.reset_index(drop=True) if frame.index.name is None else frame
        except _UNFIT as error:
            raise _FileError(f"it cannot be read as {kind}: {_words(error)}") from error

    def _batches(self, path: str, kind: str) -> Iterator[Any]:
        if kind == "csv":
            whole = self._pandas.read_csv(path)
            yield from (whole.iloc[start : start + self._rows] for start in range(0, len(whole), self._rows))
        elif kind == "parquet":
            with importlib.import_module("pyarrow.parquet").ParquetFile(path) as file:
                yield from (batch.to_pandas() for batch in file.iter_batches(self._rows))
        else:
            table = importlib.import_module("pyarrow.feather").read_table(path, memory_map=True)
            yield from (batch.to_pandas() for batch in table.to_batches(self._rows))

    def _write(self, answers: list[Any], path: str) -> None:
        kind = self._target_type
        try:
            whole = self._pandas.concat(answers, ignore_index=True) if answers else self._pandas.DataFrame()
            whole.columns = [str(name) for name in whole.columns]
            if kind == "csv":
                whole.to_csv(path, index=False)
            elif kind == "parquet":
                whole.to_parquet(path, index=False)
            else:
                whole.to_feather(path)
        except _UNFIT as error:
            raise _FileError(f"the answers cannot be written as {kind}: {_words(error)}") from error


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


if __name__ == "__main__":
    main()
