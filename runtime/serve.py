"""`runtime serve`: fetches a build and the environment that it was tested in, and becomes its prediction server.

TRUEUP_MODEL and TRUEUP_BUILD_ID say which build, TRUEUP_ARTIFACT_STORAGE (a build made in another environment) or else
TRUEUP_OBJECT_STORAGE where it is. Artifacts and environments are kept below TRUEUP_CACHE_DIR (pods of one machine share
it), or else below /workspace; a pod that starts beside others finds one of them whole or not at all.

The server runs in the model's environment (see `runtime.server`), in this process's place: signals reach it directly.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

from runtime import artifacts
from runtime.environments import RestoreError, cache_folder, restore
from runtime.exits import Exit, Failure
from runtime.processes import interruptible
from runtime.records import BuildRecord, RecordError, StoredFile, parse_record, record_key
from runtime.storage import Corrupt, NotFound, ObjectStorage, StorageError, open_storage

_STEP = "serve"


def main(options: argparse.Namespace) -> int:
    """Becomes the server, or returns an exit code: 1 there is no such build yet, or the storage fails; 4 it is damaged.

    The reason is the end of the log, which is the termination message of a serving container that fails.
    """
    environ = os.environ
    try:
        model, build_id = (_given(environ, name) for name in ("TRUEUP_MODEL", "TRUEUP_BUILD_ID"))
        with interruptible(), _storage(environ) as storage, _told():
            record = _record(storage, model, build_id)
            artifact = fetch_artifact(storage, record.artifact)
            environment = restore(storage, record.packages)
    except Failure as failure:
        sys.stderr.write(f"{failure}\n")
        return failure.code
    return _become(environment.python, artifact, options, environ)


@contextmanager
def _told() -> Iterator[None]:
    """What the edges raise, as failures."""
    try:
        yield
    except (Corrupt, RecordError, RestoreError) as error:
        raise Failure(_STEP, str(error), Exit.ARTIFACT) from error
    except StorageError as error:
        raise Failure(_STEP, str(error), Exit.DISTURBED) from error
    except OSError as error:
        sentence = f"{error.filename or cache_folder()}: {error.strerror or error}"
        raise Failure(_STEP, sentence, Exit.DISTURBED) from error


def _given(environ: Mapping[str, str], name: str) -> str:
    if not environ.get(name):
        raise Failure(_STEP, f"{name} is not set: it says which build is served", Exit.DISTURBED)
    return environ[name]


def _storage(environ: Mapping[str, str]) -> ObjectStorage:
    url = environ.get("TRUEUP_ARTIFACT_STORAGE") or environ.get("TRUEUP_OBJECT_STORAGE")
    if not url:
        raise Failure(_STEP, "TRUEUP_OBJECT_STORAGE is not set: it says where builds are", Exit.DISTURBED)
    try:
        return open_storage(url)
    except ValueError as error:
        raise Failure(_STEP, str(error), Exit.DISTURBED) from error


def _record(storage: ObjectStorage, model: str, build_id: str) -> BuildRecord:
    key = record_key(model, build_id)
    try:
        return parse_record(storage.read(key), key)
    except NotFound as error:
        sentence = f"build {build_id[:8]} of {model} is not built yet: {storage.url} has no {key}"
        raise Failure(_STEP, sentence, Exit.DISTURBED) from error


def fetch_artifact(storage: ObjectStorage, artifact: StoredFile) -> Path:
    """The folder that has an artifact's content, from this machine or else from the storage.

    Raises StorageError (Corrupt where it is not what the build made); Failure where it is no archive.
    """
    folder = cache_folder() / "artifacts" / artifact.sha256
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".artifact-", dir=folder.parent) as scratch:
        archive, unpacked = Path(scratch) / "artifact.tar.gz", Path(scratch) / "artifact"
        try:
            storage.download(artifact.key, archive, artifact.sha256)
        except NotFound as error:
            raise Failure(_STEP, f"{error}, though the build's record names it", Exit.ARTIFACT) from error
        try:
            artifacts.unpack(archive, unpacked)
        except artifacts.ArtifactError as error:
            raise Failure(_STEP, f"{artifact.key}: {error}", Exit.ARTIFACT) from error
        archive.unlink()
        try:
            unpacked.rename(folder)
        except OSError:
            if not folder.is_dir():  # another pod was faster, and has the same
                raise
            shutil.rmtree(unpacked)
    return folder


def _become(python: Path, artifact: Path, options: argparse.Namespace, environ: Mapping[str, str]) -> NoReturn:
    arguments = [
        str(python),
        "-P",  # the model's folder must not hide packages
        "-m",
        "runtime.server",
        f"--artifact={artifact}",
        f"--port={options.port}",
        f"--metrics-port={options.metrics_port}",
        f"--workers={options.workers}",
        f"--timeout-ms={options.timeout_ms}",
        f"--max-batch-size={options.max_batch_size}",
        *(["--preload"] if options.preload else []),
        *(["--shadow"] if options.shadow else []),
        # The client of the object storage is with this Python: its requirements would meet those of the model.
        f"--recorder-python={sys.executable}",
        f"--recorder-path={Path(__file__).resolve().parents[1]}",
    ]
    sys.stderr.flush()
    kept = {name: value for name, value in environ.items() if name != "PYTHONPATH"}
    os.execve(python, arguments, kept)  # noqa: S606 - a shell would be one process more
