"""Package installers: requirements become exact versions, and those an environment. uv does it, or else pip.

Settings of both in this process's environment hold: UV_* and PIP_* say which index is asked, and with what.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tomllib
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from runtime.dependencies import STEP, Dependencies
from runtime.exits import Exit, Failure
from runtime.logs import Log
from runtime.processes import Ended, run


class Installer(Protocol):
    """One of the two."""

    name: str

    def lock(self, dependencies: Dependencies, also: Sequence[str]) -> str:
        """All packages at exact versions, as lines of a requirements file: the model's, and `also` with theirs.

        Raises Failure where there is no solution, or the index cannot be reached.
        """
        ...

    def install(self, lock: str, python: Path, cwd: Path) -> None:
        """Installs what `lock` answered, and nothing else, for an environment's Python. Raises Failure."""
        ...


def installer(log: Log, cache: Path) -> Installer:
    """uv where there is one, or else pip. Raises Failure where there is neither, OSError where there is no `cache`."""
    cache.mkdir(parents=True, exist_ok=True)
    uv = uv_program()
    if uv:
        return _Uv(uv, log, cache)
    if find_spec("pip"):
        return _Pip(log, cache)
    raise Failure(STEP, "the image has neither uv nor pip", Exit.DEPENDENCIES)


def uv_program() -> str | None:
    """In the copy of the runtime, beside this Python, or on the PATH."""
    beside = (Path(__file__).parent.parent / "bin" / "uv", Path(sys.executable).parent / "uv")
    return next((str(path) for path in beside if os.access(path, os.X_OK)), None) or shutil.which("uv")


class _Uv:
    name = "uv"

    def __init__(self, program: str, log: Log, cache: Path) -> None:
        self._program = program
        self._log = log
        self._environment = _uv_environment(os.environ) | {"UV_CACHE_DIR": str(cache / "uv")}

    def lock(self, dependencies: Dependencies, also: Sequence[str]) -> str:
        with TemporaryDirectory(prefix="trueup-lock-") as scratch:
            folder = Path(scratch)
            files = [_written(folder / "runtime.in", also)]
            if dependencies.requirements is None:
                files.insert(0, dependencies.file)
            else:
                files.insert(0, _written(folder / f"{dependencies.file.name}.in", dependencies.requirements))
            options = [f"--constraints={_written(folder / 'pins.txt', dependencies.pins)}"] if dependencies.pins else []
            options += ["--quiet", "--no-header", "--no-annotate", "--generate-hashes"]
            options += ["--emit-index-url", "--emit-find-links", f"--python={sys.executable}"]
            answer = folder / "lock.txt"
            self._run("compile", *options, f"--output-file={answer}", *map(str, files), cwd=dependencies.file.parent)
            # An editable package stays where it is: the environment would lack it elsewhere.
            return re.sub(r"(?m)^-e ", "", answer.read_text("utf-8"))

    def install(self, lock: str, python: Path, cwd: Path) -> None:
        with TemporaryDirectory(prefix="trueup-lock-") as scratch:
            file = _written(Path(scratch) / "lock.txt", [lock])
            self._run(
                "install",
                "--quiet",
                "--no-deps",
                "--compile-bytecode",
                f"--python={python}",
                f"--requirements={file}",
                cwd=cwd,
            )

    def _run(self, *arguments: str, cwd: Path) -> None:
        ended = run([self._program, "pip", *arguments], log=self._log, cwd=cwd, env=self._environment)
        _check(ended, self._log)


class _Pip:
    """Slower, and it reads neither pyproject.toml nor its lock file; those are read here."""

    name = "pip"

    def __init__(self, log: Log, cache: Path) -> None:
        self._log = log
        self._environment = {**os.environ, "PIP_CACHE_DIR": str(cache / "pip"), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}

    def lock(self, dependencies: Dependencies, also: Sequence[str]) -> str:
        with TemporaryDirectory(prefix="trueup-lock-") as scratch:
            folder = Path(scratch)
            file, answer = dependencies.file, folder / "report.json"
            if dependencies.kind != "pip":
                lines = dependencies.requirements if dependencies.requirements is not None else _project(file)
                file = _written(folder / "model.in", lines)
            options = [f"--constraint={_written(folder / 'pins.txt', dependencies.pins)}"] if dependencies.pins else []
            options += ["--quiet", "--dry-run", "--ignore-installed", f"--report={answer}"]
            files = [f"--requirement={file}", f"--requirement={_written(folder / 'runtime.in', also)}"]
            self._run("install", *options, *files, cwd=dependencies.file.parent)
            report = json.loads(answer.read_bytes())
            where = [line for line in file.read_text("utf-8").splitlines() if _WHERE.match(line)]
        return "".join(f"{line}\n" for line in where + sorted(map(_exactly, report["install"])))

    def install(self, lock: str, python: Path, cwd: Path) -> None:
        with TemporaryDirectory(prefix="trueup-lock-") as scratch:
            file = _written(Path(scratch) / "lock.txt", [lock])
            self._run(f"--python={python}", "install", "--quiet", "--no-deps", f"--requirement={file}", cwd=cwd)

    def _run(self, *arguments: str, cwd: Path) -> None:
        ended = run([sys.executable, "-m", "pip", *arguments], log=self._log, cwd=cwd, env=self._environment)
        _check(ended, self._log)


#: Lines of a requirements file that say where packages are had.
_WHERE = re.compile(r"\s*(-i|-f|--index-url|--extra-index-url|--find-links|--no-index|--trusted-host)\b")


def _written(path: Path, lines: Sequence[str]) -> Path:
    path.touch(mode=0o600)  # an address of a package may have a token in it
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return path


#: pip's variable -> uv's. What people set for the one is meant for the other.
_SAME = {
    "PIP_INDEX_URL": "UV_DEFAULT_INDEX",
    "PIP_EXTRA_INDEX_URL": "UV_INDEX",
    "PIP_FIND_LINKS": "UV_FIND_LINKS",
    "PIP_NO_INDEX": "UV_NO_INDEX",
    "PIP_CERT": "SSL_CERT_FILE",
}


def _uv_environment(environ: Mapping[str, str]) -> dict[str, str]:
    made = {
        name: environ[old].replace(" ", ",") if old == "PIP_FIND_LINKS" else environ[old]
        for old, name in _SAME.items()
        if environ.get(old)
    }
    # Where our own modules are is no business of what a package runs to be built.
    theirs = {name: value for name, value in environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return {**made, **theirs, "UV_PYTHON_DOWNLOADS": "never", "NO_COLOR": "1"}


def _project(file: Path) -> list[str]:
    project = tomllib.loads(file.read_text("utf-8"))["project"]
    if "dependencies" in project.get("dynamic", ()):
        raise Failure(STEP, f"{file.name}: pip alone cannot read dynamic dependencies; use uv", Exit.DEPENDENCIES)
    return list(project.get("dependencies", ()))


def _exactly(package: Mapping[str, dict[str, object]]) -> str:
    """A line for an entry of pip's report."""
    name, version = package["metadata"]["name"], package["metadata"]["version"]
    if not package.get("is_direct"):
        return f"{name}=={version}"
    source = package["download_info"]
    url, vcs = source["url"], source.get("vcs_info")
    return f"{name} @ {vcs['vcs']}+{url}@{vcs['commit_id']}" if isinstance(vcs, dict) else f"{name} @ {url}"


#: What both installers say when the index, and not the request, is at fault.
_UNREACHABLE = re.compile(
    r"error sending request|dns error|[Cc]onnection (refused|reset|aborted|broken)|[Tt]imed? ?out|server error \(5"
    r"|HTTP error 5\d\d|5\d\d Server Error|NewConnectionError|Temporary failure in name resolution"
    r"|No space left|Name or service not known"
)
_LAST_LINES = 40


def _check(ended: Ended, log: Log) -> None:
    if ended.fault:
        raise Failure(STEP, f"the installer {ended.fault}", Exit.DISTURBED)
    if ended.status == 0:
        return
    said = log.secrets.mask("\n".join(ended.tail.strip().splitlines()[-_LAST_LINES:]))
    if _UNREACHABLE.search(said):
        raise Failure(STEP, f"the package index does not answer:\n{said}", Exit.DISTURBED)
    raise Failure(STEP, f"they cannot be installed:\n{said}", Exit.DEPENDENCIES)
