"""Model code as it is written for the reference platform's two SDKs builds and answers here with its imports changed.

The code is kept as its authors would have it. What `moved()` does to it is all that somebody who moves has to do.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

CHURN = {
    "main/__init__.py": """
        from .model import ChurnModel

        def load_model():
            return ChurnModel()
    """,
    "main/model.py": """
        import numpy as np
        import pandas as pd
        import qwak
        from qwak.model.base import QwakModel
        from qwak.model.schema import ExplicitFeature, InferenceOutput, ModelSchema
        from qwak.exceptions import QwakHTTPException
        from sklearn.linear_model import LogisticRegression
        from sklearn.metrics import roc_auc_score

        FEATURES = ["months", "calls"]

        class ChurnModel(QwakModel):
            def __init__(self):
                self.params = {"C": 0.5, "solver": "lbfgs"}
                self.classifier = LogisticRegression(**self.params)
                self.warm = False
                qwak.log_param(self.params)

            def build(self):
                random = np.random.default_rng(7)
                seen = pd.DataFrame({"months": random.integers(1, 60, 400), "calls": random.integers(0, 20, 400)})
                left = (seen.calls * 3 - seen.months + random.normal(0, 5, 400) > 0).astype(int)
                self.classifier.fit(seen[FEATURES], left)
                auc = roc_auc_score(left, self.classifier.predict_proba(seen[FEATURES])[:, 1])
                qwak.log_metric({"auc": auc, "rows": len(seen)})
                qwak.log_data(dataframe=seen, tag="training-data")

            def schema(self):
                return ModelSchema(
                    inputs=[ExplicitFeature(name="months", type=int), ExplicitFeature(name="calls", type=int)],
                    outputs=[InferenceOutput(name="churn", type=float)],
                )

            def initialize_model(self):
                self.warm = True

            @qwak.api(analytics=True, analytics_sample_ratio=0.5, analytics_exclude_columns=["calls"])
            def predict(self, df: pd.DataFrame, analytics_logger=None) -> pd.DataFrame:
                if (df["months"] < 0).any():
                    raise QwakHTTPException(status_code=422, message="months must not be negative")
                if analytics_logger is not None:
                    analytics_logger.log({"warm": self.warm})
                with qwak.qwak_timer("classify"):
                    scores = self.classifier.predict_proba(df[FEATURES])[:, 1]
                return pd.DataFrame({"churn": scores})
    """,
    "tests/ut/test_model.py": """
        from main import load_model
        from qwak.model.tools import run_local

        def test_a_caller_leaves_sooner_than_a_silent_customer():
            model = load_model()
            answer = run_local(model, '[{"months": 2, "calls": 19}, {"months": 59, "calls": 0}]')
            import json
            restless, loyal = json.loads(answer)
            assert restless["churn"] > 0.9 > 0.1 > loyal["churn"]
    """,
    "tests/it/test_api.py": """
        import pandas as pd
        import pytest
        from qwak.exceptions import QwakHTTPException
        from qwak.testing.fixtures import real_time_client

        def test_the_deployed_model_answers(real_time_client):
            answer = real_time_client.predict(pd.DataFrame({"months": [2], "calls": [19]}))
            assert answer[0]["churn"] > 0.9

        def test_the_deployed_model_refuses(real_time_client):
            with pytest.raises(QwakHTTPException) as refused:
                real_time_client.predict([{"months": -2, "calls": 19}])
            assert refused.value.status_code == 422
    """,
}

TICKETS = {
    "main/__init__.py": """
        from .routing import TicketRouter

        __all__ = ["TicketRouter"]
    """,
    "main/routing.py": """
        import frogml
        from frogml import FrogMlModel
        from frogml.core.exceptions import FrogmlHTTPException
        from frogml.sdk.model.adapters import JsonInputAdapter, JsonOutputAdapter

        from .words import count

        EXAMPLES = {"billing": "invoice paid invoice refund", "technical": "crash error crash install"}

        class Untrained(FrogmlHTTPException):
            def __init__(self):
                super().__init__(503, {"reason": "untrained"})

        class TicketRouter(FrogMlModel):
            def __init__(self):
                self.known = {}

            def build(self):
                self.known = {team: count(text) for team, text in EXAMPLES.items()}
                right = sum(self.team(text) == team for team, text in EXAMPLES.items())
                frogml.log_metric({"accuracy": right / len(EXAMPLES)})
                with open("/tmp/untracked.txt", "w") as file:
                    file.write("0.5")
                frogml.log_file(from_path="/tmp/untracked.txt", tag="threshold")

            def initialize_model(self):
                frogml.load_file(to_path="/tmp/untracked.txt", tag="threshold")
                with open("/tmp/untracked.txt") as file:
                    self.threshold = float(file.read())

            def team(self, text):
                seen = count(text)
                return max(self.known, key=lambda team: sum(seen[word] for word in self.known[team]))

            @frogml.api(input_adapter=JsonInputAdapter(), output_adapter=JsonOutputAdapter())
            def predict(self, ticket):
                if not self.known:
                    raise Untrained()
                return {"team": self.team(ticket["text"]), "threshold": self.threshold}
    """,
    "main/words.py": """
        from collections import Counter

        def count(text):
            return Counter(text.split())
    """,
    "tests/it/test_api.py": """
        from frogml.core.testing.fixtures import real_time_client

        def test_a_crash_is_technical(real_time_client):
            assert real_time_client.predict({"text": "it did crash"})["team"] == "technical"
    """,
}


def moved(code: str) -> str:
    """The code with its imports changed, and nothing else."""
    code = re.sub(r"^(\s*)import (qwak|frogml)$", r"\1import runtime.model as \2", code, flags=re.MULTILINE)
    return re.sub(
        r"^(\s*from )(qwak|frogml)(\.sdk|\.core)?(\.model)?(?=[. ])", r"\1runtime.model", code, flags=re.MULTILINE
    )


_BUILD = """
import json, sys
from pathlib import Path
from runtime.model import files
from runtime.model.loader import new_model, save
from runtime.model.metrics import metrics_of, parameters_of_build
from runtime.model.schema import schema_of

artifact = Path(sys.argv[1])
files.keep_in(artifact / "files")
model = new_model(artifact / "code", "model", "main")
model.build()
save(model, artifact)
print(json.dumps({"metrics": metrics_of(model), "parameters": parameters_of_build(), "schema": schema_of(model)}))
"""

_SERVE = """
import json, sys
from pathlib import Path
from runtime.model.api import api_of
from runtime.model.exceptions import HTTPException
from runtime.model.loader import load
from runtime.model.schema import example_of

api = api_of(load(Path(sys.argv[1])))
logged = []
try:
    answer = json.loads(api.encode(api.call(api.decode(sys.argv[2].encode()), logged.append))[0])
except HTTPException as error:
    answer = {"status": error.status, "body": error.body, "class": error.exception_class_name}
print(json.dumps({"answer": answer, "logged": logged, "analytics": [api.sample_ratio, sorted(api.exclude_columns)]}))
"""


class Built:
    """A model that was built as a build does it: its code in a folder, each step in a process of its own."""

    def __init__(self, folder: Path, code: dict[str, str]) -> None:
        self.artifact = folder / "artifact"
        self.home = self.artifact / "code" / "model"
        scratch = folder / "scratch.txt"
        for name, text in code.items():
            path = self.home / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(moved(_dedented(text)).replace("/tmp/untracked.txt", str(scratch)))
        description = {"format": 1, "main_dir": "main", "folder": "model"}
        (self.artifact / "artifact.json").write_text(json.dumps(description))
        self.told = json.loads(self._run("-c", _BUILD, str(self.artifact)).splitlines()[-1])

    def ask(self, body: Any) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self._run("-c", _SERVE, str(self.artifact), json.dumps(body)))
        return told

    def test(self) -> str:
        options = ("-q", "-p", "no:cacheprovider", "-W", "error", "--rootdir=.", "-c", os.devnull)
        return self._run("-m", "pytest", *options, "tests", TRUEUP_ARTIFACT=str(self.artifact))

    def _run(self, *arguments: str, **environment: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.home,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{self.home}:{REPOSITORY}", **environment},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def _dedented(text: str) -> str:
    return "\n".join(line[8:] for line in text.splitlines())


@pytest.fixture(scope="module")
def churn(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return Built(tmp_path_factory.mktemp("churn"), CHURN)


@pytest.fixture(scope="module")
def tickets(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return Built(tmp_path_factory.mktemp("tickets"), TICKETS)


def test_only_imports_are_changed() -> None:
    for code in (*CHURN.values(), *TICKETS.values()):
        for before, after in zip(code.splitlines(), moved(code).splitlines(), strict=True):
            assert before == after or before.strip().startswith(("import ", "from "))
        assert not re.search(r"(import|from) (qwak|frogml)\b", moved(code))


def test_a_qwak_model_leaves_metrics_parameters_and_a_schema(churn: Built) -> None:
    assert 0.9 < churn.told["metrics"].pop("auc") <= 1
    assert churn.told == {
        "metrics": {"rows": 400},
        "parameters": {"C": 0.5, "solver": "lbfgs"},
        "schema": {
            "inputs": [{"name": "months", "type": "int"}, {"name": "calls", "type": "int"}],
            "outputs": [{"name": "churn", "type": "float"}],
        },
    }
    assert (churn.artifact / "files" / "training-data.csv.gz").is_file()


@pytest.mark.parametrize(
    "body",
    [
        [{"months": 2, "calls": 19}],
        {"columns": ["months", "calls"], "index": [0], "data": [[2, 19]]},
        {"months": [2], "calls": [19]},
    ],
)
def test_a_qwak_model_answers_to_every_body_that_its_client_sends(churn: Built, body: Any) -> None:
    told = churn.ask(body)
    assert told["answer"][0].keys() == {"churn"}
    assert told["answer"][0]["churn"] > 0.9
    assert told["logged"] == [{"warm": True}]
    assert told["analytics"] == [0.5, ["calls"]]


def test_a_qwak_model_answers_with_a_status(churn: Built) -> None:
    assert churn.ask([{"months": -1, "calls": 0}])["answer"] == {
        "status": 422,
        "body": {"message": "months must not be negative"},
        "class": "HTTPException",
    }


def test_the_tests_of_a_qwak_model_pass(churn: Built) -> None:
    assert "3 passed" in churn.test()


def test_a_frogml_model_is_built_and_answers(tickets: Built) -> None:
    assert tickets.told == {"metrics": {"accuracy": 1.0}, "parameters": {}, "schema": None}
    assert tickets.ask({"text": "where is my invoice"})["answer"] == {"team": "billing", "threshold": 0.5}


def test_the_tests_of_a_frogml_model_pass(tickets: Built) -> None:
    assert "1 passed" in tickets.test()


def test_on_a_laptop_the_fixture_builds_the_model_itself(churn: Built) -> None:
    assert "2 passed" in churn._run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "tests/it")
