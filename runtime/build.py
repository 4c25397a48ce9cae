"""`runtime build`: from fetched code to an artifact that is tested, and its record in the object storage.

The model's code runs in child processes, in an environment of its own; this process never imports it. What is written
last is the record: a build without one did not happen, and one with a record is never made again.

Read from the environment: TRUEUP_BUILD_ID, TRUEUP_MODEL, TRUEUP_ENVIRONMENT, TRUEUP_COMMIT, TRUEUP_OBJECT_STORAGE,
TRUEUP_PARAMETERS (a JSON object), TRUEUP_CACHE_DIR.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from runtime import artifacts, dependencies, environments, records
from runtime.environments import Environment
from runtime.exits import Exit, Failure, report
from runtime.files import digest_of_file
from runtime.logs import Log, Secrets
from runtime.processes import interruptible, run
from runtime.records import BuildRecord, StoredFile, Tests
from runtime.storage import NotFound, ObjectStorage, StorageError, open_storage

Clock = Callable[[], datetime]


def main(options: argparse.Namespace) -> int:
    """Builds, and leaves a result for the kubelet. Returns the exit code."""
    log = Log(sys.stdout, Secrets(os.environ))
    more: dict[str, Any] = {}
    try:
        with interruptible():
            task = _task(os.environ)
            more["build_id"] = task.build_id
            with task.storage:
                result = _logged(task, options, log, more)
    except Failure as failure:
        log.say(f"{failure.step}: {failure.message}")
        report(failure.result(**more), options.result)
        return failure.code
    report(result, options.result)
    return Exit.DONE


class Task(NamedTuple):
    """Which build it is, and where it goes."""

    build_id: str
    model: str
    environment: str
    commit: str
    parameters: Mapping[str, Any]
    storage: ObjectStorage


def _task(environ: Mapping[str, str]) -> Task:
    try:
        parameters = json.loads(environ.get("TRUEUP_PARAMETERS") or "{}")
        if not isinstance(parameters, dict):
            raise ValueError("TRUEUP_PARAMETERS is no JSON object")
        build_id, model = environ["TRUEUP_BUILD_ID"], environ["TRUEUP_MODEL"]
        storage = open_storage(environ["TRUEUP_OBJECT_STORAGE"])
        return Task(build_id, model, environ["TRUEUP_ENVIRONMENT"], environ["TRUEUP_COMMIT"], parameters, storage)
    except KeyError as missing:
        raise Failure("start", f"the environment variable {missing} is not set", Exit.DISTURBED) from None
    except ValueError as error:
        raise Failure("start", f"{error}", Exit.DISTURBED) from None


def _logged(task: Task, options: argparse.Namespace, log: Log, more: dict[str, Any]) -> dict[str, Any]:
    """Builds, unless it was built before. The log of a failure is kept, too: `more` gets its name."""
    try:
        return _result(task, _found_or_built(task, options, log))
    except Failure as failure:
        log.say(f"{failure.step} failed: {failure.message}")
        try:
            more["log"] = _store_log(task, log)
        except StorageError as error:
            log.say(f"the log cannot be stored: {error}")
        raise Failure(failure.step, log.secrets.mask(failure.message), failure.code, failure.reason) from failure


def _found_or_built(task: Task, options: argparse.Namespace, log: Log) -> BuildRecord:
    """What the edges raise becomes a Failure that is worth another try."""
    try:
        record = _stored(task) or _build(task, options, log, _now)
        # After the record, and from it: an attempt that died before would leave the analytics metrics that no build
        # has. One that dies here is tried again, finds the record, and writes the same row.
        task.storage.create(records.row_key(task.model, task.build_id), record.to_row())
        return record
    except (StorageError, records.RecordError) as error:
        raise Failure("storage", str(error), Exit.DISTURBED) from error
    except OSError as error:
        raise Failure("workspace", f"{error.strerror or error}: {error.filename}", Exit.DISTURBED) from error


def _now() -> datetime:
    return datetime.now(UTC)  # noqa: TID251 - the edge: from here on the moment is an argument


def _stored(task: Task) -> BuildRecord | None:
    key = records.record_key(task.model, task.build_id)
    try:
        return records.parse_record(task.storage.read(key), key)
    except NotFound:
        return None


def _result(task: Task, record: BuildRecord) -> dict[str, Any]:
    tests = record.tests
    return {
        "build_id": record.build_id,
        "commit": record.commit,
        "artifact": record.artifact.key,
        "record": records.record_key(task.model, task.build_id),
        "log": record.log,
        "tests": tests and {"passed": tests.passed, "failed": tests.failed, "skipped": tests.skipped},
        "metrics": dict(record.metrics),
    }


def _build(task: Task, options: argparse.Namespace, log: Log, clock: Clock) -> BuildRecord:
    """All steps, in order. Raises Failure, StorageError, OSError."""
    started = clock()
    log.say(f"building {task.model} {task.build_id} at {task.commit} with Python {platform.python_version()}")
    _check_folders(options)
    with log.step("environment: resolving the dependencies"):
        environment = environments.prepare(_dependencies(options, log), log)
    with log.step("packages: writing them to the storage"):
        # Before any code of the model runs: it can write to them, and others get the same ones.
        packages = environments.store(environment, task.storage)
    with TemporaryDirectory(prefix=".build-", dir=options.code.parent) as scratch:
        made = _make(options, log, environment, Path(scratch))
        if file := environments.changed(environment):
            message = f"the packages are not as they were installed any more: {file}; a model must not write to them"
            raise Failure("packages", message, Exit.MODEL)
        with log.step("storage: writing the artifact"):
            key = records.artifact_key(task.model, task.build_id, made.sha256)
            task.storage.create(key, made.archive)
            artifact = StoredFile(key, made.sha256, made.archive.stat().st_size)
    record = BuildRecord(
        build_id=task.build_id,
        model=task.model,
        environment=task.environment,
        commit=task.commit,
        parameters=_masked(log, {**task.parameters, **made.parameters}),
        metrics=made.metrics,
        artifact=artifact,
        packages=packages,
        python=platform.python_version(),
        schema=made.schema,
        tests=made.tests,
        started_at=started,
        finished_at=clock(),
        log=_store_log(task, log),
    )
    if not task.storage.create(records.record_key(task.model, task.build_id), record.to_json()):
        # Another attempt was faster, which the Job thought dead. What it wrote is the build.
        return _stored(task) or record
    return record


class _Made(NamedTuple):
    """An artifact that is good, and what is known of it."""

    archive: Path
    sha256: str
    metrics: Mapping[str, float]
    parameters: Mapping[str, Any]
    schema: Mapping[str, Any] | None
    tests: Tests | None


def _make(options: argparse.Namespace, log: Log, environment: Environment, scratch: Path) -> _Made:
    """The steps that run the model's code."""
    artifact, archive = scratch / "artifact", scratch / "artifact.tar.gz"
    artifacts.copy_code(options.code, dict.fromkeys((options.folder, *options.include)), artifact / artifacts.CODE)
    steps = _Steps(environment, log, scratch, artifact / artifacts.CODE / options.folder)

    with log.step("build: running build() of the model"):
        arguments = [str(artifact), options.folder, options.main_dir]
        trained = steps.run("train", arguments, step="build", code=Exit.MODEL, hint=lambda said: _hint(said, options))
        _check_size(trained)
        for name, value in trained["metrics"].items():
            log.say(f"    {name} = {value!r}")
    description = {
        "format": artifacts.FORMAT,
        "main_dir": options.main_dir,
        "folder": options.folder,
        "python": platform.python_version(),
        "environment": environment.digest,
        "schema": trained["schema"],
        "example": trained["example"],
    }
    (artifact / artifacts.DESCRIPTION).write_text(json.dumps(description, indent=1), "utf-8")
    # Before the tests, so that what they write is not in it.
    artifacts.pack(artifact, archive)

    tests = _test(options, log, steps, artifact)
    if options.validate:
        with log.step("validate: loading the artifact and predicting on its example"):
            _validate(options, log, steps, archive, scratch / "unpacked")
    else:
        log.say("the artifact is not validated, as the spec says")
    return _Made(archive, digest_of_file(archive), trained["metrics"], trained["parameters"], trained["schema"], tests)


def _check_size(trained: Mapping[str, Any]) -> None:
    sizes = {what: len(json.dumps(trained[what], ensure_ascii=False).encode("utf-8", "replace")) for what in trained}
    if sum(sizes.values()) > records.LIMIT:
        told = ", ".join(f"{what} {size} bytes" for what, size in sizes.items())
        raise Failure(
            "build",
            f"the build's record would be too large ({told}; {records.LIMIT} together are the most): "
            "log_file() and log_data() keep what is large",
            Exit.MODEL,
        )


def _test(options: argparse.Namespace, log: Log, steps: _Steps, artifact: Path) -> Tests | None:
    if not options.tests:
        log.say("the model's tests are not run, as the spec says")
        return None
    if not (artifact / artifacts.CODE / options.folder / "tests").is_dir():
        log.say("the model has no folder `tests`, so nothing was tested")
        return None
    with log.step("tests: running the model's own"):
        arguments = [str(artifact / artifacts.CODE), options.folder]
        extra = {"TRUEUP_ARTIFACT": str(artifact)}
        answer = steps.run("check", arguments, step="tests", code=Exit.ARTIFACT, extra=extra)
        tests = Tests(answer["passed"], answer["failed"], answer["skipped"])
        if answer["status"] == _NO_TESTS and not answer["failed"]:
            log.say("    there is no test in the folder `tests`, so nothing was tested")
            return None
        if answer["status"] != 0 or tests.failed:
            raise Failure("tests", _failed_tests(tests, answer), Exit.ARTIFACT, "TestsFailed")
        log.say(f"    {tests.passed} passed, {tests.skipped} skipped")
    return tests


#: pytest's exit status.
_NO_TESTS = 5


def _failed_tests(tests: Tests, answer: Mapping[str, Any]) -> str:
    if not tests.failed:
        return f"pytest ended with {answer['status']}, and no test failed: see the log"
    total = tests.passed + tests.failed + tests.skipped
    left = tests.failed - len(answer["failures"])
    return "\n".join(
        [f"{tests.failed} of {total} tests failed:", *answer["failures"], *([f"and {left} more"] if left > 0 else [])]
    )


def _validate(options: argparse.Namespace, log: Log, steps: _Steps, archive: Path, unpacked: Path) -> None:
    try:
        artifacts.unpack(archive, unpacked)
    except artifacts.ArtifactError as error:
        raise Failure("validate", f"what build() left cannot be unpacked: {error}", Exit.ARTIFACT) from error
    answer = steps.run(
        "validate", [str(unpacked)], step="validate", code=Exit.ARTIFACT, timeout_s=options.validate_timeout
    )
    if not answer["predicted"]:
        log.say("    it was loaded and not asked: schema() has no example for every input, or takes no rows")


class _Steps:
    """Runs the modules of `runtime.steps` in the model's environment."""

    def __init__(self, environment: Environment, log: Log, scratch: Path, cwd: Path) -> None:
        self._environment = environment
        self._log = log
        self._scratch = scratch
        self._cwd = cwd

    def run(
        self,
        module: str,
        arguments: list[str],
        *,
        step: str,
        code: Exit,
        timeout_s: float | None = None,
        extra: Mapping[str, str] | None = None,
        hint: Callable[[str], str] = lambda _: "",
    ) -> dict[str, Any]:
        """Its answer. Raises Failure with `code` where it leaves none: it was killed, or took too long."""
        answer = self._scratch / f"{module}.json"
        ended = run(
            # -P: neither this folder nor the model's has a module that hides one of the environment's.
            [self._environment.python, "-P", "-m", f"runtime.steps.{module}", *arguments, answer],
            log=self._log,
            cwd=self._cwd,
            env=_environment_variables(self._environment) | dict(extra or {}),
            timeout_s=timeout_s,
        )
        if ended.status is None:
            raise Failure(step, f"it took more than {timeout_s:g} s", code, "TimedOut")
        if ended.fault:
            reason = "OutOfMemory" if ended.out_of_memory else "Killed"
            raise Failure(step, f"the model's process {ended.fault}", code, reason)
        try:
            document: dict[str, Any] = json.loads(answer.read_bytes())
        except (OSError, ValueError):
            raise Failure(step, f"the model's code ended its process with exit code {ended.status}", code) from None
        if "error" in document:
            error = document["error"]
            raise Failure(step, error["message"] + hint(error["message"]), Exit(error["code"]), error["reason"])
        return document


def _environment_variables(environment: Environment) -> dict[str, str]:
    """Those of this process: a spec's `env_vars` are among them."""
    not_theirs = ("PYTHONPATH", "PYTHONHOME")  # where our own modules are
    theirs = {name: value for name, value in os.environ.items() if name not in not_theirs}
    return theirs | {
        "PATH": f"{environment.folder / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PYTHONUNBUFFERED": "1",
        "VIRTUAL_ENV": str(environment.folder),
    }


def _check_folders(options: argparse.Namespace) -> None:
    folder = options.folder or "."
    wanted = {"git_uri": options.folder, "main_dir": f"{folder}/{options.main_dir}"}
    wanted |= {f"dependency_required_folders {number}": name for number, name in enumerate(options.include)}
    for field, path in wanted.items():
        if not (options.code / path).is_dir():
            raise Failure("code", f"{field.split()[0]} names {path!r}, which is no folder of the repository", Exit.CODE)


def _dependencies(options: argparse.Namespace, log: Log) -> dependencies.Dependencies:
    file, others = dependencies.find(options.code, options.folder, options.main_dir, options.dependencies)
    log.say(f"    dependencies: {file.relative_to(options.code)}")
    for other in others:
        log.say(f"    {other.relative_to(options.code)} is passed over")
    found = dependencies.read(file)
    if found.kind == "conda":
        log.say("    packages of conda's are installed from the package index, under their names there")
    dependencies.check_python(found, sys.version_info[:3])
    return found


def _hint(said: str, options: argparse.Namespace) -> str:
    """For an import of a folder that lies beside the model's."""
    missing = re.search(r"No module named '([A-Za-z0-9_]+)", said)
    if missing is None or missing[1] in options.include or not (options.code / missing[1]).is_dir():
        return ""
    return f"\n{missing[1]} is a folder of the repository: name it in dependency_required_folders"


def _masked(log: Log, parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {name: log.secrets.mask(value) if isinstance(value, str) else value for name, value in parameters.items()}


def _store_log(task: Task, log: Log) -> str:
    """The log so far, under the first free name."""
    content = log.content()
    attempt = 1
    while not task.storage.create(key := records.log_key(task.model, task.build_id, attempt), content):
        attempt += 1
    return key
