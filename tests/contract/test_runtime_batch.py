"""`python -m runtime batch` as the container of a batch execution runs it: real files in a real (moto's) bucket."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest

from runtime.batch import _share
from runtime.exits import LIMIT, Exit
from runtime.storage import FileStorage
from tests.contract.prediction_server import MODEL, REPOSITORY, store_build
from tests.contract.test_object_storage import aws, moto  # noqa: F401 - fixtures
from tests.contract.test_runtime_build import GOOD, Builder, cache  # noqa: F401 - a fixture

SCORER = """
import os, time
import pandas as pd
from runtime.model import Model

class Scorer(Model):
    def build(self):
        pass

    def initialize_model(self):
        if "LOADS" in os.environ:
            with open(os.environ["LOADS"], "a") as file:
                file.write("loaded\\n")

    def predict(self, df):
        if (df["a"] == -1).any():
            raise ValueError("a must not be negative")
        if (df["a"] == -2).any():
            os.kill(os.getpid(), 9)
        if (df["a"] == -3).any():
            time.sleep(60)
        if (df["a"] == -4).any():
            return df[:1]
        if (df["a"] == -5).any():
            return [" ".join(sorted(os.environ))] * len(df)
        print("asked for", len(df), "rows")
        return pd.DataFrame({"sum": df["a"] + df["b"], "together": len(df)})
"""

READ: dict[str, Callable[[Any], pd.DataFrame]] = {
    "csv": pd.read_csv,
    "parquet": pd.read_parquet,
    "feather": pd.read_feather,
}


def written(frame: pd.DataFrame, kind: str) -> bytes:
    content = io.BytesIO()
    if kind == "csv":
        frame.to_csv(content, index=False)
    else:
        getattr(frame, f"to_{kind}")(content)
    return content.getvalue()


def rows(*values: int) -> pd.DataFrame:
    return pd.DataFrame({"a": values, "b": [10] * len(values)})


class Outcome(NamedTuple):
    code: int
    result: dict[str, Any]
    output: str

    @property
    def error(self) -> dict[str, str]:
        assert "error" in self.result, self
        found: dict[str, str] = self.result["error"]
        return found


class Batches:
    """A bucket, and runs on it."""

    def __init__(self, client: Any, folder: Path, artifacts: FileStorage, build_id: str) -> None:
        self.client = client
        self.folder = folder
        self.artifacts = artifacts
        self.build_id = build_id

    def put(self, kind: str, files: Mapping[str, pd.DataFrame | bytes], folder: str = "in") -> None:
        for name, content in files.items():
            body = content if isinstance(content, bytes) else written(content, kind)
            self.client.put_object(Bucket="models", Key=f"{folder}/{name}.{kind}", Body=body)

    def keys(self, folder: str = "out") -> set[str]:
        found = self.client.list_objects_v2(Bucket="models", Prefix=f"{folder}/").get("Contents", [])
        return {entry["Key"].removeprefix(f"{folder}/") for entry in found}

    def content(self, key: str, folder: str = "out") -> bytes:
        body: bytes = self.client.get_object(Bucket="models", Key=f"{folder}/{key}")["Body"].read()
        return body

    def document(self, key: str) -> Any:
        return json.loads(self.content(key))

    def sums(self, name: str, kind: str = "csv") -> list[int]:
        return list(READ[kind](io.BytesIO(self.content(f"{name}.{kind}")))["sum"])

    def begin(self, *arguments: str, **environ: str) -> subprocess.Popen[str]:
        fixed = {
            "source": "s3://models/in",
            "destination": "s3://models/out",
            "input-type": "csv",
            "output-type": "csv",
            "run": "run-1",
            "result": f"{self.folder}/result",
        }
        given = dict(argument.removeprefix("--").split("=", 1) for argument in arguments)
        theirs = {name: value for name, value in os.environ.items() if not name.startswith(("TRUEUP_", "PYTHON"))}
        told = {
            "PYTHONPATH": str(REPOSITORY),
            "TRUEUP_BUILD_ID": self.build_id,
            "TRUEUP_CACHE_DIR": str(self.folder / "cache"),
            "TRUEUP_MODEL": MODEL,
            "TRUEUP_OBJECT_STORAGE": self.artifacts.url,
        }
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "runtime",
                "batch",
                *(f"--{name}={value}" for name, value in (fixed | given).items()),
            ],
            env={name: value for name, value in (theirs | told | environ).items() if value},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def ended(self, process: subprocess.Popen[str]) -> Outcome:
        output, _ = process.communicate(timeout=60)
        message = (self.folder / "result").read_bytes()
        assert len(message) <= LIMIT
        assert "a-very-secret-key" not in output + message.decode()
        return Outcome(process.returncode, json.loads(message), output)

    def __call__(self, *arguments: str, **environ: str) -> Outcome:
        return self.ended(self.begin(*arguments, **environ))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FileStorage:
    return FileStorage(tmp_path_factory.mktemp("artifacts"))


@pytest.fixture(scope="module")
def scorer(store: FileStorage, tmp_path_factory: pytest.TempPathFactory) -> str:
    return store_build(store, tmp_path_factory.mktemp("build"), SCORER)


@pytest.fixture
def batch(aws: Any, tmp_path: Path, store: FileStorage, scorer: str) -> Batches:  # noqa: F811
    return Batches(aws, tmp_path, store, scorer)


# -- what it leaves --


@pytest.mark.parametrize(
    ("given", "asked"), [("csv", "parquet"), ("parquet", "feather"), ("feather", "csv"), ("parquet", "parquet")]
)
def test_each_file_has_its_answers_under_its_name(batch: Batches, given: str, asked: str) -> None:
    batch.put(given, {"monday": rows(1, 2, 3), "north/tuesday": rows(4)})
    batch.put("txt", {"notes": b"no data"})
    batch.put(given, {"_SUCCESS": b"", "_old/monday": b"no data"})

    outcome = batch(f"--input-type={given}", f"--output-type={asked}")

    assert outcome.code == Exit.DONE, outcome
    assert batch.keys() == {"_STARTED", "_SUCCESS", f"monday.{asked}", f"north/tuesday.{asked}"}
    assert (batch.sums("monday", asked), batch.sums("north/tuesday", asked)) == ([11, 12, 13], [14])
    manifest = batch.document("_SUCCESS")
    assert manifest == {
        "run": "run-1",
        "build": batch.build_id,
        "source": "s3://models/in",
        "files": {"monday": 3, "north/tuesday": 1},
        "rows": 4,
    }
    assert outcome.result == {
        "run": "run-1",
        "build_id": batch.build_id,
        "destination": "s3://models/out",
        "metrics": {"files": 2, "rows": 4},
    }
    assert "asked for 3 rows" in outcome.output


def test_rows_are_asked_for_in_bounded_numbers_and_the_model_is_loaded_once(batch: Batches, tmp_path: Path) -> None:
    batch.put("csv", {"a": rows(*range(25)), "b": rows(*range(10))})

    outcome = batch(TRUEUP_BATCH_ROWS="10", LOADS=str(tmp_path / "loads"))

    assert outcome.code == 0, outcome
    answers = pd.read_csv(io.BytesIO(batch.content("a.csv")))
    assert list(answers["together"]) == [10] * 20 + [5] * 5
    assert list(answers["sum"]) == [10 + n for n in range(25)]
    assert (tmp_path / "loads").read_text() == "loaded\n"


def test_what_was_empty_stays_empty(batch: Batches) -> None:
    batch.put("parquet", {"empty": rows(), "full": rows(1)})

    assert batch("--input-type=parquet", "--output-type=parquet").code == 0
    assert len(pd.read_parquet(io.BytesIO(batch.content("empty.parquet")))) == 0
    assert batch.document("_SUCCESS")["files"] == {"empty": 0, "full": 1}


def test_a_column_has_one_type_in_all_of_a_csv(batch: Batches) -> None:
    batch.put("csv", {"late": b"a,b\n" + b"1,10\n" * 20 + b"1.5,10\n"})

    assert batch(TRUEUP_BATCH_ROWS="10").code == 0
    assert batch.content("late.csv").decode().splitlines()[1] == "11.0,10"


# -- what goes wrong --


def test_a_bad_file_keeps_no_other_from_its_answers_and_is_named_at_the_end(batch: Batches) -> None:
    files = {"a": rows(1), "b": rows(3, -1), "c": b"PAR1 is not all of it", "d": rows(-4, 7), "e": rows(5)}
    batch.put("parquet", files)

    outcome = batch("--input-type=parquet", TRUEUP_BATCH_ROWS="10")

    assert (outcome.code, outcome.error["reason"]) == (Exit.MODEL, "FilesFailed")
    first, *others = outcome.error["message"].splitlines()
    assert first == "3 of 5 files could not be answered:"
    assert others[0].startswith("b: predict() failed in rows 0 to 1 at main/__init__.py:")
    assert others[0].endswith("ValueError: a must not be negative")
    assert others[1].startswith("c: it cannot be read as parquet: ArrowInvalid")
    assert others[2] == "d: predict() answered 1 rows to 2 (rows 0 to 1): it must be one for each"
    assert batch.keys() == {"_STARTED", "a.csv", "e.csv"}


def test_a_file_that_kills_the_process_keeps_no_other_from_its_answers(batch: Batches) -> None:
    batch.put("csv", {"a": rows(1), "b": rows(-2), "c": rows(3)})

    outcome = batch()

    assert outcome.code == Exit.MODEL
    assert "\nb: was killed by SIGKILL" in outcome.error["message"]
    assert batch.keys() == {"_STARTED", "a.csv", "c.csv"}


def test_a_file_that_takes_too_long_keeps_no_other_from_its_answers(batch: Batches) -> None:
    batch.put("csv", {"a": rows(1), "b": rows(-3), "c": rows(3)})

    outcome = batch("--task-timeout=2")

    assert outcome.code == Exit.MODEL
    assert outcome.error["message"].splitlines()[1:] == ["b: it took more than 2 s (task_timeout)"]
    assert batch.keys() == {"_STARTED", "a.csv", "c.csv"}


def test_no_input_is_an_error(batch: Batches) -> None:
    outcome = batch()

    assert (outcome.code, outcome.error["reason"]) == (Exit.CODE, "NoInput")
    assert outcome.error["message"] == "there is no .csv file in s3://models/in"


def test_a_bucket_that_is_not_there_is_named(batch: Batches) -> None:
    outcome = batch("--source=s3://elsewhere/in")

    assert (outcome.code, outcome.error["reason"]) == (Exit.CODE, "StorageRefused")
    assert "there is no bucket 'elsewhere'" in outcome.error["message"]


def test_a_storage_that_does_not_answer_is_worth_another_attempt(batch: Batches) -> None:
    outcome = batch(AWS_ENDPOINT_URL="http://127.0.0.1:9")

    assert (outcome.code, outcome.error["reason"]) == (Exit.DISTURBED, "Disturbed")


def test_a_build_that_is_not_there_is_named(batch: Batches) -> None:
    outcome = batch(TRUEUP_BUILD_ID="f" * 64)

    assert outcome.code == Exit.ARTIFACT
    assert f"there is no build ffffffff of {MODEL}" in outcome.error["message"]


@pytest.mark.parametrize(
    ("source", "code", "message"),
    [
        (
            "import sys\nsys.modules['pyarrow'] = None\n",
            Exit.DEPENDENCIES,
            "add pyarrow to the requirements of the model",
        ),
        ("raise RuntimeError('no licence')\n", Exit.MODEL, "RuntimeError: no licence"),
    ],
    ids=["no pyarrow", "not loaded"],
)
def test_a_model_that_cannot_do_it_says_what_it_lacks(
    batch: Batches, tmp_path: Path, source: str, code: Exit, message: str
) -> None:
    # Only where it is loaded again: the build itself went well.
    gate = f"import os\nif 'LOADS' in os.environ:\n    {'; '.join(source.split(chr(10))[:-1])}\n"
    batch.build_id = store_build(batch.artifacts, tmp_path / "build", gate + SCORER)
    batch.put("csv", {"a": rows(1)})

    outcome = batch("--output-type=parquet", LOADS=str(tmp_path / "loads"))

    assert outcome.code == code, outcome
    assert message in outcome.error["message"]


def test_a_model_that_reads_no_rows_is_told_so(batch: Batches, tmp_path: Path) -> None:
    source = SCORER.replace("import Model", "import Model, api\nfrom runtime.model.adapters import JsonInputAdapter")
    source = source.replace("    def predict", "    @api(input_adapter=JsonInputAdapter())\n    def predict")
    batch.build_id = store_build(batch.artifacts, tmp_path / "build", source)
    batch.put("csv", {"a": rows(1)})

    outcome = batch()

    assert outcome.code == Exit.MODEL
    assert "predict() reads its input by JsonInputAdapter, and files have rows of values" in outcome.error["message"]


def test_an_environment_without_pandas_says_what_to_add(batch: Batches, tmp_path: Path, cache: Path) -> None:  # noqa: F811
    builder = Builder(tmp_path / "real", cache)
    outcome = builder(GOOD, TRUEUP_MODEL=MODEL)
    assert outcome.code == 0, outcome
    batch.put("csv", {"a": rows(1)})

    failed = batch(
        TRUEUP_OBJECT_STORAGE=(builder.folder / "storage").as_uri(),
        TRUEUP_BUILD_ID="a1b2",
        TRUEUP_CACHE_DIR=str(cache),
    )

    assert failed.code == Exit.DEPENDENCIES
    assert "add pandas to the requirements of the model, and build it anew" in failed.error["message"]


# -- again --


def test_an_attempt_goes_on_where_the_last_one_was_killed(batch: Batches, tmp_path: Path) -> None:
    batch.put("csv", {"a": rows(1, 2), "b": rows(-3), "c": rows(3)})
    process = batch.begin()
    until = time.monotonic() + 90
    while "a.csv" not in (there := batch.keys()):
        assert time.monotonic() < until, there
        time.sleep(0.05)
    process.kill()
    process.communicate()
    batch.put("csv", {"b": rows(5)})

    outcome = batch()

    assert outcome.code == 0, outcome
    assert "a.csv is there already: 2 rows" in outcome.output
    assert batch.document("_SUCCESS")["files"] == {"a": 2, "b": 1, "c": 1}
    again = batch()
    assert (again.code, again.result["metrics"]) == (0, {"files": 3, "rows": 4})
    assert "has the answers of this run already" in again.output


def test_the_end_of_a_pod_ends_the_models_process(batch: Batches, tmp_path: Path) -> None:
    batch.put("csv", {"a": rows(-3)})
    process = batch.begin(LOADS=str(tmp_path / "loads"))
    until = time.monotonic() + 90
    while not (tmp_path / "loads").exists():
        assert time.monotonic() < until
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)

    outcome = batch.ended(process)

    assert (outcome.code, outcome.error["reason"]) == (Exit.INTERRUPTED, "Interrupted")
    script = str(REPOSITORY / "runtime" / "steps" / "predict.py")
    while [line for line in _commands() if script in line and str(tmp_path) in line]:
        assert time.monotonic() < until
        time.sleep(0.05)


def _commands() -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield path.read_bytes().decode("utf-8", "replace")
        except OSError:
            continue


def test_a_folder_has_the_answers_of_one_run(batch: Batches) -> None:
    batch.put("csv", {"a": rows(1)})
    assert batch("--run=0123456789").code == 0
    before = batch.content("a.csv")
    batch.put("csv", {"a": rows(2), "b": rows(3)})

    outcome = batch("--run=next")

    assert (outcome.code, outcome.error["reason"]) == (Exit.CODE, "DestinationTaken")
    assert outcome.error["message"].startswith("s3://models/out has the answers of run 01234567 (build ")
    assert (batch.keys(), batch.content("a.csv")) == ({"_STARTED", "_SUCCESS", "a.csv"}, before)


def test_what_a_failed_run_of_the_same_build_has_begun_is_gone_on_with(batch: Batches) -> None:
    batch.put("csv", {"a": rows(1), "b": rows(-1)})
    assert batch("--run=first").code == Exit.MODEL
    batch.put("csv", {"b": rows(2)})

    assert batch("--run=second").code == 0
    assert (batch.document("_STARTED")["run"], batch.document("_SUCCESS")["run"]) == ("first", "second")


def test_answers_of_another_build_are_not_gone_on_with(batch: Batches, tmp_path: Path) -> None:
    batch.put("csv", {"a": rows(1), "b": rows(-1)})
    assert batch("--run=first").code == Exit.MODEL
    batch.build_id = store_build(batch.artifacts, tmp_path / "build", SCORER + "# another\n")

    assert batch("--run=second").error["reason"] == "DestinationTaken"


def test_answers_within_the_source_are_no_input(batch: Batches) -> None:
    batch.put("csv", {"a": rows(1)}, folder="in")
    arguments = ("--destination=s3://models/in/answers",)
    assert batch(*arguments).code == 0
    assert batch.keys("in") == {"a.csv", "answers/_STARTED", "answers/_SUCCESS", "answers/a.csv"}

    assert batch(*arguments).result["metrics"] == {"files": 1, "rows": 1}
    same = batch("--destination=s3://models/in")
    assert (same.code, same.error["reason"]) == (Exit.CODE, "DestinationTaken")


def test_executors_share_the_files_and_the_last_one_says_that_all_is_done(batch: Batches) -> None:
    names = [f"part-{number}" for number in range(6)]
    assert {_share(name, 2) for name in names} == {0, 1}
    batch.put("csv", {name: rows(1, 2) for name in names})

    first = batch("--executors=2", JOB_COMPLETION_INDEX="0")
    mine = {f"{name}.csv" for name in names if _share(name, 2) == 0}
    assert first.code == 0, first
    assert batch.keys() == {"_STARTED", "_parts/0-of-2.json", *mine}
    second = batch("--executors=2", JOB_COMPLETION_INDEX="1")

    assert second.code == 0, second
    assert batch.document("_SUCCESS")["files"] == dict.fromkeys(names, 2)
    assert first.result["metrics"]["files"] + second.result["metrics"]["files"] == 6


# -- credentials --


def test_the_buckets_have_credentials_of_their_own_which_the_model_does_not_see(batch: Batches) -> None:
    batch.put("csv", {"a": rows(-5)})

    outcome = batch(
        AWS_ACCESS_KEY_ID="",
        AWS_SECRET_ACCESS_KEY="",
        TRUEUP_DATA_ACCESS_KEY_ID="AKIAOFTHEDATA",
        TRUEUP_DATA_SECRET_ACCESS_KEY="the-secret-of-the-data",
    )

    assert outcome.code == 0, outcome
    seen = set(pd.read_csv(io.BytesIO(batch.content("a.csv")))["prediction"][0].split())
    assert "TRUEUP_BUILD_ID" in seen
    assert not {name for name in seen if name.startswith("TRUEUP_DATA_") or name.endswith("ACCESS_KEY")}
    assert "the-secret-of-the-data" not in outcome.output
