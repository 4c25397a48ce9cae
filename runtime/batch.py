"""`runtime batch`: predicts on every file of a folder, and writes the answers to another, under the same names.

The build, and the environment that it was tested in, are had as a server has them (`runtime serve`), and by the same
variables. The model's code runs in a process of its own (`runtime.steps.predict`), which is told one file at a time.

    <destination>/_STARTED                  which run the folder belongs to, and of which build its answers are
    <destination>/<name>.<output type>      for each <source>/<name>.<input type>: whole, or not there
    <destination>/_parts/<n>-of-<executors>.json    what one of several executors has done
    <destination>/_SUCCESS                  last: the files with their rows, the build, the run

Nothing is written twice. An attempt goes on where the last one ended; a file that cannot be answered is told at the
end, and does not keep the others from it. TRUEUP_DATA_ACCESS_KEY_ID, TRUEUP_DATA_SECRET_ACCESS_KEY and
TRUEUP_DATA_SESSION_TOKEN are the credentials of the two folders, where they are not those of the artifacts; the
model's code sees none of them. TRUEUP_BATCH_ROWS (1000): rows for one call of predict().
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import socket
import sys
import threading
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from pathlib import Path
from signal import SIGALRM
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from runtime.environments import Environment, RestoreError, restore
from runtime.exits import Exit, Failure, report
from runtime.logs import Log, Secrets
from runtime.processes import Ended, interruptible, run
from runtime.records import RecordError, parse_record, record_key
from runtime.serve import fetch_artifact
from runtime.storage import Corrupt, NotFound, ObjectStorage, StorageError, open_storage

_STARTED, _SUCCESS, _PARTS = "_STARTED", "_SUCCESS", "_parts"

#: A failed run names no more of its files.
_NAMED = 10

#: Seconds that the model's process has to end by itself.
_GRACE = 3.0

_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "TRUEUP_DATA_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY": "TRUEUP_DATA_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN": "TRUEUP_DATA_SESSION_TOKEN",
}


def main(options: argparse.Namespace) -> int:
    """Predicts, and leaves a result for the kubelet. Returns the exit code.

    1: another attempt may fare better. 3: the model cannot be loaded, or a file could not be answered; 4: the build is
    damaged; 5: there is no input, or a folder cannot be used; 6: the model's environment cannot read such files.
    """
    log = Log(sys.stdout, Secrets(os.environ))
    more = {"run": options.run, "build_id": os.environ.get("TRUEUP_BUILD_ID", "")}
    try:
        with interruptible(), _told():
            build = _restored(os.environ)
            _take_credentials(os.environ)
            with _opened(options.source) as source, _opened(options.destination) as destination:
                result = _Batch(options, build, source, destination, log).run()
    except Failure as failure:
        log.say(f"{failure.step}: {failure.message}")
        message = log.secrets.mask(failure.message)
        report(Failure(failure.step, message, failure.code, failure.reason).result(**more), options.result)
        return failure.code
    report({**more, **result}, options.result)
    return Exit.DONE


@contextmanager
def _told() -> Iterator[None]:
    """What the edges raise, as failures."""
    try:
        yield
    except (Corrupt, RecordError, RestoreError) as error:
        raise Failure("build", str(error), Exit.ARTIFACT) from error
    except StorageError as error:
        code, reason = (Exit.DISTURBED, None) if error.worth_retry else (Exit.CODE, "StorageRefused")
        raise Failure("storage", str(error), code, reason) from error
    except OSError as error:
        raise Failure("workspace", f"{error.filename}: {error.strerror or error}", Exit.DISTURBED) from error


class _Build(NamedTuple):
    id: str
    artifact: Path
    environment: Environment
    variables: Mapping[str, str]  #: of the model's process


def _restored(environ: Mapping[str, str]) -> _Build:
    try:
        model, build_id = environ["TRUEUP_MODEL"], environ["TRUEUP_BUILD_ID"]
        url = environ.get("TRUEUP_ARTIFACT_STORAGE") or environ["TRUEUP_OBJECT_STORAGE"]
    except KeyError as missing:
        raise Failure("build", f"the environment variable {missing} is not set", Exit.DISTURBED) from None
    key = record_key(model, build_id)
    with _opened(url) as storage:
        try:
            record = parse_record(storage.read(key), key)
        except NotFound:
            sentence = f"there is no build {build_id[:8]} of {model}: {storage.url} has no {key}"
            raise Failure("build", sentence, Exit.ARTIFACT) from None
        artifact = fetch_artifact(storage, record.artifact)
        environment = restore(storage, record.packages)
    hidden = {"PYTHONPATH", "PYTHONHOME", *_CREDENTIALS.values()}
    theirs = {name: value for name, value in environ.items() if name not in hidden}
    theirs |= {"PATH": f"{environment.folder / 'bin'}{os.pathsep}{environ.get('PATH', os.defpath)}"}
    return _Build(build_id, artifact, environment, theirs | {"PYTHONUNBUFFERED": "1"})


def _take_credentials(environ: MutableMapping[str, str]) -> None:
    """From here on, buckets are opened with the credentials of the data, if there are any."""
    if _CREDENTIALS["AWS_ACCESS_KEY_ID"] in environ:
        for name, given in _CREDENTIALS.items():
            environ.pop(name, None)  # a token of other credentials would spoil these
            if given in environ:
                environ[name] = environ[given]


def _opened(url: str) -> ObjectStorage:
    try:
        return open_storage(url)
    except ValueError as error:
        raise Failure("storage", str(error), Exit.CODE, "StorageRefused") from None


# -- the files --


class _Batch:
    """One executor's share of a run."""

    def __init__(
        self, options: argparse.Namespace, build: _Build, source: ObjectStorage, destination: ObjectStorage, log: Log
    ) -> None:
        self._options = options
        self._build = build
        self._source = source
        self._destination = destination
        self._log = log
        self._index = int(os.environ.get("JOB_COMPLETION_INDEX", "0"))
        self._facts = {"run": options.run, "build": build.id, "source": source.url}

    def run(self) -> dict[str, Any]:
        """The result. Raises Failure, StorageError, OSError."""
        if (done := self._claim()) is not None:
            self._log.say(f"{self._destination.url} has the answers of this run already")
            return self._result(done["files"])
        names = self._names()
        mine = [name for name in names if _share(name, self._options.executors) == self._index]
        self._log.say(f"{len(mine)} of {len(names)} files of {self._source.url} are to be answered here")
        rows, failures = self._answered(mine)
        if failures:
            raise Failure("files", _sentence(failures, len(mine)), Exit.MODEL, "FilesFailed")
        self._finish(rows)
        return self._result(rows)

    def _claim(self) -> Mapping[str, Any] | None:
        """Makes the folder this run's. What it has done, where all of it is done. Raises Failure for another's folder.

        What another run of the same build has begun to answer from the same folder is gone on with.
        """
        options, url = self._options, self._destination.url
        if self._source.url == url and options.input_type == options.output_type:
            sentence = f"{url} is both source and destination: the answers would be the input of the next run"
            raise Failure("destination", sentence, Exit.CODE, "DestinationTaken")
        done = self._read(_SUCCESS)
        if done is None and self._destination.create(_STARTED, _dump(self._facts)):
            return None
        theirs = done or self._read(_STARTED) or self._facts
        if theirs.get("run") == options.run:
            return done
        if done is None and all(theirs.get(name) == self._facts[name] for name in ("build", "source")):
            return None
        sentence = (
            f"{url} has the answers of run {str(theirs.get('run'))[:8]} (build {str(theirs.get('build'))[:8]}): "
            "name a folder with the date in it, such as scores/{%Y-%m-%d}, or empty this one"
        )
        raise Failure("destination", sentence, Exit.CODE, "DestinationTaken")

    def _names(self) -> list[str]:
        """The input, in order, without the type at its end. Raises Failure where there is none."""
        ending = f".{self._options.input_type}"
        below = f"{self._source.url.rstrip('/')}/"
        answers = f"{self._destination.url}/".removeprefix(below) if self._destination.url.startswith(below) else None
        names = [
            key.removesuffix(ending)
            for key in self._source.list()
            # As everybody has it who reads such folders: these are no data.
            if key.endswith(ending) and not any(part.startswith(("_", ".")) for part in key.split("/"))
            if answers is None or not key.startswith(answers)
        ]
        if not names:
            raise Failure("source", f"there is no {ending} file in {self._source.url}", Exit.CODE, "NoInput")
        return names

    def _answered(self, names: list[str]) -> tuple[dict[str, int], dict[str, str]]:
        """The rows of each file that has its answers now; why, of each that has not."""
        options, rows, failures = self._options, dict[str, int](), dict[str, str]()
        there = set(self._destination.list())
        with (
            TemporaryDirectory(prefix=".batch-", dir=options.workspace) as folder,
            _Model(self._build, options, self._log, Path(folder)) as model,
        ):
            for name in names:
                source, target = Path(folder) / "source", Path(folder) / "target"
                answer = f"{name}.{options.output_type}"
                try:
                    if answer in there:
                        self._destination.download(answer, target)
                        rows[name] = model.ask(count=str(target))
                        self._log.say(f"{answer} is there already: {rows[name]} rows")
                    else:
                        self._source.download(f"{name}.{options.input_type}", source)
                        rows[name] = model.ask(source=str(source), target=str(target))
                        self._destination.create(answer, target)
                        self._log.say(f"{answer}: {rows[name]} rows")
                except (_FileError, NotFound, ValueError) as error:  # ValueError: a name that is none in our storage
                    failures[name] = str(error)
                    self._log.say(f"{name}.{options.input_type} failed: {error}")
                for path in (source, target):
                    path.unlink(missing_ok=True)
        return rows, failures

    def _finish(self, rows: Mapping[str, int]) -> None:
        """Says that all is done: whoever of several executors is the last one does."""
        executors = self._options.executors
        if executors > 1:
            self._destination.create(f"{_PARTS}/{self._index}-of-{executors}.json", _dump({"files": rows}))
            parts = [self._read(f"{_PARTS}/{index}-of-{executors}.json") for index in range(executors)]
            files = {name: count for part in parts if part is not None for name, count in part["files"].items()}
            if None in parts:
                return
        else:
            files = dict(rows)
        total = {"files": dict(sorted(files.items())), "rows": sum(files.values())}
        self._destination.create(_SUCCESS, _dump(self._facts | total))
        self._log.say(f"{len(files)} files, {total['rows']} rows: {self._destination.url}/{_SUCCESS}")

    def _result(self, rows: Mapping[str, int]) -> dict[str, Any]:
        return {
            "destination": self._destination.url,
            "metrics": {"files": len(rows), "rows": sum(rows.values())},
        }

    def _read(self, key: str) -> dict[str, Any] | None:
        try:
            document: dict[str, Any] = json.loads(self._destination.read(key, 1 << 28))
        except NotFound:
            return None
        except ValueError:
            sentence = f"{self._destination.url}/{key} is not what a batch execution writes: empty the folder"
            raise Failure("destination", sentence, Exit.CODE, "DestinationTaken") from None
        return document


def _share(name: str, executors: int) -> int:
    """Which executor answers a file: by its name alone, for each sees the folder at another moment."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) % executors


def _sentence(failures: Mapping[str, str], total: int) -> str:
    told = [f"{name}: {why}" for name, why in list(failures.items())[:_NAMED]]
    left = [f"and {len(failures) - _NAMED} more"] if len(failures) > _NAMED else []
    return "\n".join([f"{len(failures)} of {total} files could not be answered:", *told, *left])


def _dump(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, indent=1).encode("utf-8", "replace")


# -- the model's process --


class _FileError(Exception):
    """A file that has no answers: why."""


class _Model:
    """The process that has the model: begun for the first file, and anew after one that it did not survive."""

    def __init__(self, build: _Build, options: argparse.Namespace, log: Log, folder: Path) -> None:
        self._build = build
        self._options = options
        self._log = log
        self._folder = folder
        self._process: _Process | None = None

    def __enter__(self) -> _Model:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.close()

    def ask(self, **task: str) -> int:
        """The rows of a file. Raises _FileError; Failure where the model cannot be loaded."""
        if self._process is None:
            self._process = self._begun()
        answer = self._process.ask(task)
        if answer is None:
            ended, self._process = self._process.close(), None
            raise _FileError(self._fault(ended))
        if "error" in answer:
            raise _FileError(answer["error"])
        return int(answer["rows"])

    def _begun(self) -> _Process:
        options = self._options
        # As a file: the environment of an older build does not have it.
        script = Path(__file__).parent / "steps" / "predict.py"
        program: list[Path | str] = [self._build.environment.python, "-P", script, self._build.artifact]
        settings = [options.input_type, options.output_type, _rows(os.environ), str(options.task_timeout)]
        process = _Process(self._build, program, settings, self._log, self._folder)
        hello = process.ask(None)
        if hello is None:
            raise Failure("model", f"the model's process {self._fault(process.close())}", Exit.MODEL)
        if "error" in hello:
            process.close()
            raise Failure("model", hello["error"], Exit(hello["code"]))
        return process

    def _fault(self, ended: Ended) -> str:
        if ended.status == -SIGALRM and self._options.task_timeout:
            return f"it took more than {self._options.task_timeout} s (task_timeout)"
        return ended.fault or f"ended with exit code {ended.status}"


def _rows(environ: Mapping[str, str]) -> str:
    rows = environ.get("TRUEUP_BATCH_ROWS", "1000")
    if not rows.isascii() or not rows.isdigit() or int(rows) == 0:
        raise Failure(
            "start", f"TRUEUP_BATCH_ROWS is {rows!r}: write a number of rows, such as 1000", Exit.CODE, "Wrong"
        )
    return rows


class _Process:
    """`runtime.steps.predict`, and the socket that it is told its tasks by."""

    def __init__(self, build: _Build, program: list[Path | str], settings: list[str], log: Log, folder: Path) -> None:
        ours, self._theirs = socket.socketpair()
        self._ended: list[Ended | OSError] = []
        number = self._theirs.fileno()

        def live() -> None:
            try:
                arguments = [*program, str(number), *settings]
                self._ended.append(run(arguments, log=log, cwd=folder, env=build.variables, pass_fds=[number]))
            except OSError as error:
                self._ended.append(error)
            finally:
                self._theirs.close()  # so that the other side reads its end

        self._thread = threading.Thread(target=live, daemon=True)
        self._thread.start()
        self._ours = ours
        self._stream = ours.makefile("rwb")

    def ask(self, task: Mapping[str, str] | None) -> dict[str, Any] | None:
        """The next answer, to a task if there is one. None: the process has ended instead."""
        try:
            if task is not None:
                self._stream.write(json.dumps(task).encode() + b"\n")
                self._stream.flush()
            line = self._stream.readline()
        except (BrokenPipeError, ConnectionResetError):
            line = b""
        return json.loads(line) if line.endswith(b"\n") else None

    def close(self) -> Ended:
        """Ends it, if it runs, and says how it ended. Raises OSError where it could not even begin."""
        with suppress(OSError):  # what could not be written is tried again
            self._stream.close()
        self._ours.close()
        self._thread.join(_GRACE)  # what is in the middle of a file ends with this process, a little later
        ended = self._ended[0] if self._ended else Ended(None, "")
        if isinstance(ended, OSError):
            raise ended
        return ended
