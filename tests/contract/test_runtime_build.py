"""`python -m runtime build` as the container of a build runs it: real installers, real processes, a real storage.

The packages that every model's environment has come from the package index; where none answers, the tests say so and
are skipped. Downloads are kept between runs in .pytest_cache.
"""

from __future__ import annotations

import ensurepip
import hashlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from examples.make_repository import make_repository
from runtime import artifacts, environments, records
from runtime.exits import LIMIT, Exit
from runtime.records import BuildRecord
from runtime.storage import Corrupt, FileStorage

ROOT = Path(__file__).parents[2]
COMMIT = "0123456789" * 4

MODEL = """
from runtime.model import log_metric, log_param

class Adder:
    def build(self):
        self.offset = 1
        self.metrics = {"auc": 0.9}
        log_metric({"rows": 3})
        log_param({"depth": 6})

    def predict(self, rows):
        return [{"sum": row["a"] + self.offset} for row in rows]

    def schema(self):
        return {
            "inputs": [{"name": "a", "type": "int", "example": 1}],
            "outputs": [{"name": "sum", "type": "int"}],
        }
"""
TESTS = """
from main import Adder
from runtime.model.testing.fixtures import real_time_client

def test_it_adds(real_time_client):
    assert real_time_client.predict([{"a": 2}]) == [{"sum": 3}]

def test_the_package_is_found():
    assert Adder is not None
"""
GOOD = {
    "main/__init__.py": "from .model import Adder\n",
    "main/model.py": MODEL,
    "main/requirements.txt": "",
    "tests/test_adder.py": TESTS,
}


def with_build(body: str, **files: str) -> dict[str, str]:
    """A code base whose build() does this."""
    lines = "\n".join(f"        {line}" for line in body.splitlines())
    model = f"class Adder:\n    def build(self):\n{lines}\n\n    def predict(self, rows):\n        return rows\n"
    return {
        "main/__init__.py": "from .model import Adder\n",
        "main/model.py": model,
        "main/requirements.txt": "",
    } | files


class Outcome(NamedTuple):
    code: int
    result: dict[str, Any]
    output: str
    storage: FileStorage

    @property
    def error(self) -> dict[str, str]:
        assert "error" in self.result, self
        found: dict[str, str] = self.result["error"]
        return found

    @property
    def record(self) -> BuildRecord:
        assert self.code == 0, self
        key = self.result["record"]
        return records.parse_record(self.storage.read(key), key)


def unpack(outcome: Outcome, into: Path) -> None:
    archive = into.with_name("artifact.tar.gz")
    outcome.storage.download(outcome.record.artifact.key, archive, outcome.record.artifact.sha256)
    artifacts.unpack(archive, into)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Environments of this run; downloads of all runs."""
    folder = tmp_path_factory.mktemp("cache")
    downloads = ROOT / ".pytest_cache" / "packages"
    downloads.mkdir(parents=True, exist_ok=True)
    (folder / "uv").symlink_to(downloads)
    return folder


class Builder:
    """Builds of one workspace and one storage."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder = folder
        self.workspace = folder / "workspace"
        self.storage = FileStorage(folder / "storage")
        self.cache = cache
        self.python = sys.executable

    def write(self, files: Mapping[str, str | bytes]) -> None:
        for name, content in files.items():
            path = self.workspace / "code" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def command(self, *arguments: str) -> list[str]:
        fixed = [f"--code={self.workspace}/code", f"--result={self.folder}/result"]
        return [self.python, "-m", "runtime", "build", *fixed, *arguments]

    def environment(self, **environ: str) -> dict[str, str]:
        # The machine's own settings say where packages are had.
        theirs = {name: value for name, value in os.environ.items() if not name.startswith(("TRUEUP_", "PYTHON"))}
        told = {
            "PYTHONPATH": str(ROOT),
            "TRUEUP_BUILD_ID": "a1b2",
            "TRUEUP_CACHE_DIR": str(self.cache),
            "TRUEUP_COMMIT": COMMIT,
            "TRUEUP_ENVIRONMENT": "staging",
            "TRUEUP_MODEL": "adder",
            "TRUEUP_OBJECT_STORAGE": (self.folder / "storage").as_uri(),
        }
        return theirs | told | environ

    def __call__(self, files: Mapping[str, str | bytes], *arguments: str, **environ: str) -> Outcome:
        self.write(files)
        run = subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment(**environ),
            capture_output=True,
            text=True,
            check=False,
        )
        output = run.stdout + run.stderr
        message = (self.folder / "result").read_bytes()
        assert len(message) <= LIMIT
        assert {path.name for path in self.workspace.iterdir()} == {"code"}
        result = json.loads(message)
        if "the package index does not answer" in str(result) and "UV_DEFAULT_INDEX" not in environ:
            pytest.skip("no package index answers here")
        return Outcome(run.returncode, result, output, self.storage)


@pytest.fixture
def build(tmp_path: Path, cache: Path) -> Builder:
    return Builder(tmp_path, cache)


# ------------------------------------------------------------------------------------------------ what a build leaves


def test_a_build_leaves_artifact_record_and_log_and_its_result(build: Builder) -> None:
    outcome = build(GOOD, TRUEUP_PARAMETERS='{"trees": "200", "depth": "5"}')
    record = outcome.record
    assert (record.build_id, record.model, record.environment, record.commit) == ("a1b2", "adder", "staging", COMMIT)
    assert record.metrics == {"auc": 0.9, "rows": 3.0}
    assert record.parameters == {"trees": "200", "depth": 6}  # what the model logged comes last
    assert record.tests == records.Tests(passed=2, failed=0, skipped=0)
    assert record.schema is not None
    assert record.schema["inputs"] == [{"name": "a", "type": "int", "example": 1}]
    assert record.started_at < record.finished_at
    assert outcome.result == {
        "build_id": "a1b2",
        "commit": COMMIT,
        "artifact": record.artifact.key,
        "record": "builds/adder/a1b2/record.json",
        "log": "builds/adder/a1b2/log-1.txt",
        "tests": {"passed": 2, "failed": 0, "skipped": 0},
        "metrics": {"auc": 0.9, "rows": 3.0},
    }
    assert set(outcome.storage.list("builds/")) == {record.artifact.key, record.log, outcome.result["record"]}
    for stored in (record.artifact, record.packages):
        content = outcome.storage.read(stored.key, 1 << 30)
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (stored.sha256, stored.bytes)
    log = outcome.storage.read(str(record.log)).decode()
    for step in ("environment", "build", "tests", "validate"):
        assert f"==> {step}: " in log
    assert "done in " in log


def test_the_artifact_has_the_model_its_code_and_its_description(build: Builder, tmp_path: Path) -> None:
    outcome = build(GOOD)
    unpack(outcome, tmp_path / "artifact")
    found = {path.relative_to(tmp_path / "artifact").as_posix() for path in (tmp_path / "artifact").rglob("*")}
    assert {"model.pickle", "artifact.json", "code/main/model.py", "code/tests/test_adder.py"} <= found
    assert not any("__pycache__" in name for name in found)
    described = json.loads((tmp_path / "artifact/artifact.json").read_text())
    assert described["example"] == {"a": 1}
    assert (described["folder"], described["main_dir"], described["format"]) == ("", "main", 1)
    assert records.packages_key(described["environment"]) == outcome.record.packages.key


def test_folders_may_be_named_from_where_one_stands(build: Builder) -> None:
    outcome = build(GOOD, "--code=workspace/code", "--result=result")
    assert outcome.record.tests == records.Tests(passed=2, failed=0, skipped=0)


def test_a_build_that_is_finished_is_answered_from_its_record(build: Builder) -> None:
    first = build(GOOD)
    again = build({"main/model.py": "raise RuntimeError('it must not be imported')"})
    assert again.code == 0
    assert again.result == first.result
    assert "==>" not in again.output


def test_the_analytics_have_its_row(build: Builder) -> None:
    outcome = build(GOOD)
    row = outcome.storage.read("analytics/builds/model=adder/a1b2.json")
    assert row == outcome.record.to_row()
    assert json.loads(row)["metrics"] == {"auc": 0.9, "rows": 3.0}


def test_an_attempt_that_died_before_it_told_the_analytics_is_mended_by_the_next(build: Builder) -> None:
    first = build(GOOD)
    row = build.storage.root / "analytics/builds/model=adder/a1b2.json"
    row.unlink()
    assert build(GOOD).code == 0
    assert row.read_bytes() == first.record.to_row()
    assert build(GOOD).code == 0  # and finds it there


def test_two_attempts_at_once_make_one_build(build: Builder, tmp_path: Path) -> None:
    build.write(GOOD)
    attempts = []
    for number in range(2):
        command = [*build.command(), f"--result={tmp_path}/result-{number}"]
        attempts.append(subprocess.Popen(command, env=build.environment(), stdout=subprocess.DEVNULL))
    assert [attempt.wait(100) for attempt in attempts] == [0, 0]
    one, other = (json.loads((tmp_path / f"result-{number}").read_text()) for number in range(2))
    assert one == other


def test_the_second_build_with_the_same_packages_installs_nothing(build: Builder) -> None:
    first = build(GOOD)
    second = build(GOOD, TRUEUP_BUILD_ID="c3d4")
    assert second.record.packages == first.record.packages
    assert "packages are here already" in second.output


def test_metrics_beyond_the_message_are_in_the_record(build: Builder) -> None:
    outcome = build(with_build("self.metrics = {f'metric_{n:04}': n / 7 for n in range(1000)}"))
    assert len(outcome.record.metrics) == 1000
    told = outcome.result["metrics"]
    assert len(told) + outcome.result["metrics_left_out"] == 1000
    assert list(told) == [f"metric_{number:04}" for number in range(len(told))]
    assert len(told) > 50


def test_what_the_model_prints_is_in_the_log_and_on_standard_output(build: Builder) -> None:
    outcome = build(with_build("print('epoch 1')\nimport sys\nprint('warm', file=sys.stderr)"))
    log = outcome.storage.read(str(outcome.record.log)).decode()
    for line in ("epoch 1", "warm"):
        assert line in outcome.output
        assert line in log


def test_a_secret_of_the_environment_is_in_no_record_and_no_log(build: Builder) -> None:
    planted = "planted-4711"
    code = "import os\nfrom runtime.model import log_param\nsecret = os.environ['DB_PASSWORD']\nprint(secret)\n"
    good = build(with_build(code + "log_param({'login': 'bot:' + secret})"), DB_PASSWORD=planted)
    assert good.record.parameters == {"login": "bot:***"}
    bad = build(with_build(code + "raise ValueError(secret)"), DB_PASSWORD=planted, TRUEUP_BUILD_ID="c3d4")
    assert "***" in bad.error["message"]
    for outcome in (good, bad):
        everything = outcome.output.encode() + json.dumps(outcome.result).encode()
        everything += b"".join(outcome.storage.read(key, 1 << 30) for key in outcome.storage.list("builds/"))
        assert planted.encode() not in everything


# -------------------------------------------------------------------------------------------------------- the code


def test_a_model_in_a_folder_imports_the_folders_that_it_asks_for(build: Builder) -> None:
    files: dict[str, str | bytes] = {f"models/adder/{name}": content for name, content in GOOD.items()}
    files["shared/__init__.py"] = "ONE = 1\n"
    files["other/secret.txt"] = "of another team"
    files["models/adder/main/model.py"] = "from shared import ONE\n" + MODEL.replace("offset = 1", "offset = ONE")
    outcome = build(files, "--folder=models/adder", "--include=shared")
    unpack(outcome, build.folder / "artifact")
    code = build.folder / "artifact" / "code"
    assert sorted(path.name for path in code.iterdir()) == ["models", "shared"]


def test_a_folder_that_was_forgotten_is_named(build: Builder) -> None:
    files: dict[str, str | bytes] = {f"adder/{name}": content for name, content in GOOD.items()}
    files["adder/main/model.py"] = "import shared\n" + MODEL
    files["shared/__init__.py"] = ""
    outcome = build(files, "--folder=adder")
    assert outcome.code == Exit.MODEL
    assert "No module named 'shared'" in outcome.error["message"]
    assert outcome.error["message"].endswith("name it in dependency_required_folders")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--folder=nothing"], "git_uri names 'nothing'"),
        (["--main-dir=src"], "main_dir names './src'"),
        (["--include=lib"], "dependency_required_folders names 'lib'"),
        (["--dependencies=req.txt"], "dependency_file_path names req.txt"),
    ],
)
def test_a_path_that_is_not_there_is_named(build: Builder, arguments: list[str], told: str) -> None:
    outcome = build(GOOD, *arguments)
    assert outcome.code == Exit.CODE
    assert told in outcome.error["message"]


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("import nothing_of_this_name\n", "No module named 'nothing_of_this_name'"),
        ("class Adder(\n", "main/model.py:1"),
        ("class Adder:\n    def build(self): pass\n", "exports no class with build() and predict()"),
        (
            MODEL.replace("self.offset = 1", "raise KeyError('age')"),
            "Adder.build() failed at main/model.py:6: KeyError",
        ),
        (MODEL.replace("0.9", "float('nan')"), "'auc'"),
        (MODEL.replace('"rows": 3', '"rows": float("inf")'), "'rows' is inf"),
        (MODEL.replace("0.9", "'good'"), "'auc'"),
        (MODEL.replace("self.offset = 1", "import sys; sys.exit(0)"), "SystemExit: 0"),
        (MODEL.replace('"type": "int", "example"', '"type": "number", "example"'), "has the type 'number'"),
    ],
    ids=["import", "syntax", "class", "raises", "nan", "infinite", "text", "exit", "schema"],
)
def test_code_that_fails_says_what_and_where(build: Builder, model: str, told: str) -> None:
    outcome = build(GOOD | {"main/model.py": model})
    assert outcome.code == Exit.MODEL
    assert (outcome.error["step"], outcome.error["reason"]) == ("build", "ModelFailed")
    assert told in outcome.error["message"]
    assert outcome.result["build_id"] == "a1b2"
    assert told in outcome.storage.read(outcome.result["log"]).decode()
    assert list(outcome.storage.list("builds/")) == [outcome.result["log"]]


def test_what_is_too_large_for_a_record_fails_the_build_and_is_named(build: Builder) -> None:
    outcome = build(with_build("from runtime.model import log_param\nlog_param('report', 'x' * 2_000_000)"))
    assert outcome.code == Exit.MODEL
    assert "parameters 2000014 bytes" in outcome.error["message"]
    assert list(outcome.storage.list("builds/")) == [outcome.result["log"]]


def test_each_failed_attempt_keeps_its_log(build: Builder) -> None:
    for number in (1, 2):
        outcome = build(with_build("raise ValueError"))
        assert outcome.result["log"] == f"builds/adder/a1b2/log-{number}.txt"


def test_a_model_that_takes_too_much_memory_is_named(build: Builder) -> None:
    code = "import resource\nresource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\nself.x = b'x' * (2 << 30)"
    outcome = build(with_build(code))
    assert outcome.code == Exit.MODEL
    assert outcome.error["reason"] == "OutOfMemory"


def test_a_model_that_is_killed_says_by_what(build: Builder) -> None:
    outcome = build(with_build("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"))
    assert outcome.code == Exit.MODEL
    assert outcome.error["reason"] in ("Killed", "OutOfMemory")
    assert "was killed by SIGKILL (this is how a lack of memory looks, too)" in outcome.error["message"]


def test_a_crash_in_compiled_code_says_where(build: Builder) -> None:
    outcome = build(with_build("import ctypes\nctypes.string_at(0)"))
    assert outcome.code == Exit.MODEL
    assert "was killed by SIGSEGV" in outcome.error["message"]
    assert 'main/model.py", line 4 in build' in outcome.output


def test_a_module_of_the_models_own_hides_none_of_the_environments(build: Builder) -> None:
    names = ("json.py", "runtime.py", "pytest.py", "tempfile.py")
    hostile = dict.fromkeys(names, "raise RuntimeError('the wrong module')")
    assert build(GOOD | hostile, "--no-tests").code == 0


# ---------------------------------------------------------------------------------------------------- its own tests


def test_a_test_that_fails_fails_the_build_and_is_named(build: Builder) -> None:
    bad = "def test_good():\n    pass\ndef test_bad():\n    assert 1 == 2\n"
    outcome = build(GOOD | {"tests/test_adder.py": bad})
    assert outcome.code == Exit.ARTIFACT
    assert (outcome.error["step"], outcome.error["reason"]) == ("tests", "TestsFailed")
    assert outcome.error["message"] == "1 of 2 tests failed:\ntests/test_adder.py::test_bad: assert 1 == 2"


def test_tests_that_cannot_be_imported_fail_the_build(build: Builder) -> None:
    outcome = build(GOOD | {"tests/test_adder.py": "import nothing_of_this_name"})
    assert outcome.code == Exit.ARTIFACT
    assert "No module named 'nothing_of_this_name'" in outcome.error["message"]


def test_a_model_that_writes_to_its_packages_fails_and_the_next_build_does_not_see_it(build: Builder, tmp_path: Path):
    poison = """import pathlib, uvloop
pathlib.Path(uvloop.__file__).parent.with_name("evil.py").write_text("x = 1")"""
    outcome = build(with_build(poison))
    assert outcome.code == Exit.MODEL
    assert outcome.error["step"] == "packages"
    assert "site-packages/evil.py" in outcome.error["message"]
    asked = """import importlib.util
assert importlib.util.find_spec("evil") is None"""
    again = Builder(tmp_path / "again", build.cache)(with_build(asked), TRUEUP_BUILD_ID="c3d4")
    assert again.code == 0, again.output


def test_without_tests_it_is_said(build: Builder) -> None:
    without = {name: content for name, content in GOOD.items() if not name.startswith("tests/")}
    outcome = build(without)
    assert "the model has no folder `tests`, so nothing was tested" in outcome.output
    assert outcome.record.tests is None


def test_a_folder_without_a_test_is_said(build: Builder) -> None:
    outcome = build(GOOD | {"tests/test_adder.py": ""})
    assert "there is no test in the folder" in outcome.output
    assert outcome.record.tests is None


def test_tests_may_be_left_out(build: Builder) -> None:
    outcome = build(GOOD | {"tests/test_adder.py": "raise RuntimeError"}, "--no-tests")
    assert outcome.record.tests is None
    assert "are not run, as the spec says" in outcome.output


def test_pytest_is_configured_by_the_models_folder_and_by_nothing_above(build: Builder) -> None:
    (build.folder / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    assert build(GOOD).code == 0
    own = {"pyproject.toml": "[tool.pytest.ini_options]\npython_files = 'check_*.py'\n", "tests/check_it.py": TESTS}
    outcome = build(GOOD | own | {"tests/test_adder.py": "raise RuntimeError"}, TRUEUP_BUILD_ID="c3d4")
    assert outcome.record.tests == records.Tests(2, 0, 0)


# ----------------------------------------------------------------------------------------------------- the artifact


def test_a_model_that_cannot_be_pickled_names_the_attribute(build: Builder) -> None:
    outcome = build(with_build("import threading\nself.lock = threading.Lock()"))
    assert outcome.code == Exit.ARTIFACT
    assert "'lock'" in outcome.error["message"]


def test_an_artifact_that_fails_on_its_example_fails_the_build(build: Builder) -> None:
    outcome = build(GOOD | {"main/model.py": MODEL.replace('row["a"]', 'row["b"]')}, "--no-tests")
    assert outcome.code == Exit.ARTIFACT
    assert outcome.error["step"] == "validate"
    assert "Adder.predict() on the example failed at main/model.py:12: KeyError: 'b'" in outcome.error["message"]


def test_what_only_the_process_of_build_has_is_missed_in_another(build: Builder) -> None:
    model = MODEL.replace("self.offset = 1", "global OFFSET; OFFSET = 1").replace("self.offset", "OFFSET")
    outcome = build(GOOD | {"main/model.py": model}, "--no-tests")
    assert outcome.code == Exit.ARTIFACT
    assert "NameError: name 'OFFSET' is not defined" in outcome.error["message"]


def test_an_artifact_that_does_not_answer_is_left(build: Builder) -> None:
    model = MODEL.replace("return [{", "__import__('time').sleep(600); return [{")
    began = time.monotonic()
    outcome = build(GOOD | {"main/model.py": model}, "--no-tests", "--validate-timeout=2")
    assert outcome.code == Exit.ARTIFACT
    assert (outcome.error["reason"], outcome.error["message"]) == ("TimedOut", "it took more than 2 s")
    assert time.monotonic() - began < 100


def test_validation_may_be_left_out(build: Builder) -> None:
    outcome = build(GOOD | {"main/model.py": MODEL.replace('row["a"]', 'row["b"]')}, "--no-tests", "--no-validate")
    assert outcome.code == 0


def test_files_that_build_leaves_are_there_when_it_is_served(build: Builder) -> None:
    model = MODEL.replace("self.offset = 1", "open('offset.txt', 'w').write('1')").replace(
        "self.offset", "int(open('offset.txt').read())"
    )
    assert build(GOOD | {"main/model.py": model}).code == 0


def test_a_link_that_leads_out_of_the_artifact_is_refused(build: Builder) -> None:
    outcome = build(with_build("import os\nos.symlink('/etc/passwd', 'users')"))
    assert outcome.code == Exit.ARTIFACT
    assert "what build() left cannot be unpacked" in outcome.error["message"]


# --------------------------------------------------------------------------------------------------- dependencies


def test_a_requirement_that_does_not_exist_is_named(build: Builder) -> None:
    outcome = build(GOOD | {"main/requirements.txt": "no-such-package-of-trueup-4711==1\n"})
    assert outcome.code == Exit.DEPENDENCIES
    assert (outcome.error["step"], outcome.error["reason"]) == ("dependencies", "DependenciesNotInstalled")
    assert "no-such-package-of-trueup-4711" in outcome.error["message"]


def test_requirements_that_exclude_each_other_are_named(build: Builder) -> None:
    outcome = build(GOOD | {"main/requirements.txt": "packaging==24.0\npackaging==24.1\n"})
    assert outcome.code == Exit.DEPENDENCIES
    assert "packaging==24.0" in outcome.error["message"]


def test_a_requirement_that_our_server_cannot_live_with_shows_in_the_build(build: Builder) -> None:
    outcome = build(GOOD | {"main/requirements.txt": "httptools==0.1.0\n"})
    assert outcome.code == Exit.DEPENDENCIES
    assert "httptools" in outcome.error["message"]


def test_requirements_that_cannot_be_read_are_told(build: Builder) -> None:
    outcome = build(GOOD | {"main/requirements.txt": "six ===\n"})
    assert outcome.code == Exit.DEPENDENCIES


def test_without_a_dependency_file_it_is_said_where_one_was_looked_for(build: Builder) -> None:
    outcome = build({name: content for name, content in GOOD.items() if "requirements" not in name})
    assert outcome.code == Exit.DEPENDENCIES
    assert "there is no requirements.txt, pyproject.toml or conda.yml in ./ and main/" in outcome.error["message"]


def test_an_index_that_is_away_is_worth_another_try(build: Builder, tmp_path: Path) -> None:
    away = {"UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple", "UV_HTTP_RETRIES": "0", "TRUEUP_CACHE_DIR": str(tmp_path)}
    outcome = build(GOOD, **away)
    assert outcome.code == Exit.DISTURBED
    assert "the package index does not answer" in outcome.error["message"]


def test_a_python_that_the_model_does_not_allow_is_told(build: Builder) -> None:
    outcome = build(GOOD | {"conda.yml": "dependencies:\n- python=3.8\n- pip:\n  - six\n"})
    assert outcome.code == Exit.DEPENDENCIES
    assert "conda.yml: it wants Python =3.8, and this image has 3." in outcome.error["message"]


@pytest.mark.parametrize(
    "files",
    [
        {"main/requirements.txt": "six==1.16.0\n"},
        {"main/requirements.txt": "-r more.txt\n", "main/more.txt": "six==1.16.0\n"},
        {"pyproject.toml": '[project]\nname = "x"\nversion = "1"\ndependencies = ["six==1.16.0"]\n'},
        {
            "pyproject.toml": '[tool.poetry.dependencies]\npython = "^3.9"\nsix = "^1.15"\n',
            "poetry.lock": '[[package]]\nname = "six"\nversion = "1.16.0"\n[[package]]\nname = "x"\nversion = "1"\n',
        },
        {"conda.yaml": "name: x\nchannels: [defaults]\ndependencies:\n- python>=3.9\n- pip\n- six=1.16.0=py_0\n"},
        {"conda.yml": "dependencies:\n- pip:\n  - six==1.16.0\n"},
    ],
    ids=["requirements", "nested", "pyproject", "poetry", "conda", "conda's pip"],
)
def test_every_kind_of_dependency_file_is_read(build: Builder, files: dict[str, str]) -> None:
    code = "import six\nassert six.__version__ == '1.16.0', six.__version__"
    assert build({**with_build(code), **files}).code == 0


def test_an_own_package_beside_the_code_is_installed_and_its_content_counts(build: Builder) -> None:
    def wheel(number: int) -> bytes:
        path = build.folder / "helper-1.0-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("helper.py", f"NUMBER = {number}\n")
            archive.writestr("helper-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: helper\nVersion: 1.0\n")
            archive.writestr("helper-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            archive.writestr("helper-1.0.dist-info/RECORD", "helper.py,,\n")
        return path.read_bytes()

    found = set()
    for number in (1, 2):
        files: dict[str, str | bytes] = {
            **with_build("import helper\nself.metrics = {'number': helper.NUMBER}"),
            "main/requirements.txt": "./helper-1.0-py3-none-any.whl\n",
            "main/helper-1.0-py3-none-any.whl": wheel(number),
        }
        outcome = build(files, TRUEUP_BUILD_ID=f"build{number}")
        assert outcome.record.metrics == {"number": number}
        found.add(outcome.record.packages.key)
    assert len(found) == 2


def test_without_uv_pip_does_it(build: Builder, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "image"], check=True)
    build.python = str(tmp_path / "image" / "bin" / "python")
    (pip,) = Path(ensurepip.__file__).parent.glob("_bundled/pip-*.whl")
    image = {"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{ROOT}:{pip}"}
    code = "import six\nassert six.__version__ == '1.16.0', six.__version__"
    own = {"pyproject.toml": '[project]\nname = "x"\nversion = "1"\ndependencies = ["six==1.16.0"]\n'}
    outcome = build({**with_build(code), **own}, **image)
    assert outcome.code == 0, outcome
    assert "packages with pip" in outcome.output


# ---------------------------------------------------------------------------------------------- signals and storage


def running(build: Builder) -> tuple[subprocess.Popen[str], int]:
    """A build in the middle of build(), and the process that runs it."""
    note = build.folder / "pid"
    build.write(with_build(f"import os, time\nopen({str(note)!r}, 'w').write(f'{{os.getpid()}} ')\ntime.sleep(60)"))
    process = subprocess.Popen(build.command(), env=build.environment(), stdout=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while not (note.exists() and note.read_text().endswith(" ")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)
    return process, int(note.read_text())


def is_gone(pid: int) -> bool:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


def test_sigterm_ends_the_models_process_and_says_so(build: Builder) -> None:
    process, child = running(build)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == Exit.INTERRUPTED
    assert is_gone(child)
    assert json.loads((build.folder / "result").read_text())["error"]["reason"] == "Interrupted"
    assert {path.name for path in build.workspace.iterdir()} == {"code"}


def test_the_models_process_does_not_outlive_a_build_that_is_killed(build: Builder) -> None:
    process, child = running(build)
    process.kill()
    process.communicate(timeout=30)
    assert is_gone(child)


def test_a_storage_that_cannot_be_written_is_worth_another_try(build: Builder) -> None:
    outcome = build(GOOD, TRUEUP_OBJECT_STORAGE="file:///proc/nothing")
    assert outcome.code == Exit.DISTURBED
    assert outcome.error["step"] == "storage"


def test_a_cache_that_cannot_be_written_is_worth_another_try(build: Builder) -> None:
    outcome = build(GOOD, TRUEUP_CACHE_DIR="/proc/nothing")
    assert outcome.code == Exit.DISTURBED
    assert "Traceback" not in outcome.output


@pytest.mark.parametrize("name", ["TRUEUP_BUILD_ID", "TRUEUP_OBJECT_STORAGE"])
def test_a_variable_that_is_missing_is_named(build: Builder, name: str) -> None:
    build.write(GOOD)
    environment = {key: value for key, value in build.environment().items() if key != name}
    run = subprocess.run(build.command(), env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == Exit.DISTURBED
    assert f"the environment variable '{name}' is not set" in run.stdout


# ------------------------------------------------------------------------------------------------------- restoring


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another machine: its cache is empty."""
    monkeypatch.setenv("TRUEUP_CACHE_DIR", str(tmp_path / "elsewhere"))
    return tmp_path / "elsewhere"


def test_an_environment_is_restored_elsewhere_without_an_index(build: Builder, elsewhere: Path) -> None:
    outcome = build(GOOD)
    environment = environments.restore(outcome.storage, outcome.record.packages)
    assert environment.folder.is_relative_to(elsewhere)
    unpack(outcome, elsewhere / "artifact")
    code = "import sys, uvloop, httptools, runtime.server; from pathlib import Path; from runtime.model import loader\n"
    code += "print(sys.prefix, loader.load(Path(sys.argv[1])).predict([{'a': 1}]))"
    command = [str(environment.python), "-P", "-c", code, str(elsewhere / "artifact")]
    run = subprocess.run(command, env={}, capture_output=True, text=True, check=True)
    assert run.stdout.split(" ", 1) == [str(environment.folder), "[{'sum': 2}]\n"]


def test_an_environment_that_is_here_is_not_fetched_again(
    build: Builder, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = build(GOOD)
    monkeypatch.setenv("TRUEUP_CACHE_DIR", str(cache))
    empty = FileStorage(build.folder / "empty")
    assert environments.restore(empty, outcome.record.packages).python.exists()


@pytest.mark.usefixtures("elsewhere")
def test_a_packed_environment_that_is_damaged_is_not_used(build: Builder) -> None:
    packages = build(GOOD).record.packages
    path = build.folder / "storage" / packages.key
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(Corrupt):
        environments.restore(build.storage, packages)


@pytest.mark.usefixtures("elsewhere")
def test_an_environment_for_another_python_says_so(build: Builder) -> None:
    packages = build(GOOD).record.packages
    path = build.folder / "storage" / records.packages_description_key(records.digest_of(packages.key))
    path.chmod(0o644)
    path.write_text(path.read_text().replace(environments.PLATFORM, "cpython-38-sparc-linux-gnu"))
    with pytest.raises(environments.RestoreError, match="was made for cpython-38-sparc"):
        environments.restore(build.storage, packages)


def test_a_pack_without_description_is_taken_as_it_is(build: Builder) -> None:
    first = build(GOOD).record.packages
    description = build.folder / "storage" / records.packages_description_key(records.digest_of(first.key))
    description.unlink()  # as if the build had ended between the two
    assert build(GOOD, TRUEUP_BUILD_ID="c3d4").record.packages == first
    assert description.exists()


def test_nothing_of_a_machine_is_packed(build: Builder) -> None:
    packages = build(GOOD).record.packages
    with tarfile.open(build.folder / "storage" / packages.key) as archive:
        names = archive.getnames()
    assert not [name for name in names if name.startswith(("pyvenv", "bin/python", "bin/activate")) or ".lock" in name]
    assert [name for name in names if name.endswith("site-packages/runtime/server/__init__.py")]


# ------------------------------------------------------------------------------------------------------ an example


def test_the_screening_example_is_built_with_scikit_learn_from_the_index(build: Builder, tmp_path: Path) -> None:
    commits = make_repository(tmp_path / "models.git")
    metric: dict[str, float] = {}
    for commit in commits[:2]:
        command = [sys.executable, "-m", "runtime", "fetch", f"--repository={(tmp_path / 'models.git').as_uri()}"]
        command += [f"--commit={commit}", f"--into={build.workspace}/code", f"--result={tmp_path}/fetched"]
        subprocess.run(command, env=build.environment(), check=True, stdout=subprocess.DEVNULL)
        (build.workspace / "code.commit").unlink()
        outcome = build({}, "--folder=screening", TRUEUP_BUILD_ID=commit[:12], TRUEUP_COMMIT=commit)
        assert outcome.record.tests == records.Tests(6, 0, 0)
        metric[commit] = outcome.record.metrics["roc_auc"]
        (build.workspace / "code").rename(tmp_path / commit)
    assert metric[commits[0]] < metric[commits[1]]
