"""From a folder of code to a model, and from an artifact to one that can be asked."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtime.model import files, loader
from runtime.model.exceptions import ModelError
from runtime.model.loader import load, new_model, save

MODEL = """
from pathlib import Path
class Churn:
    def build(self): self.word = Path("data.txt").read_text()
    def predict(self, rows): return [self.word] * len(rows)
"""


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Loading a model changes the process for good; a test is not the only one in it."""
    folder, path, modules = Path.cwd(), list(sys.path), set(sys.modules)
    monkeypatch.setattr(files, "_folder", None)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield
    os.chdir(folder)
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


Write = Callable[..., Path]


@pytest.fixture
def code(tmp_path: Path) -> Write:
    """Writes files and returns their root: `code({"main/__init__.py": "..."})`."""

    def write(content: dict[str, str]) -> Path:
        for name, text in content.items():
            path = tmp_path / "code" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        return tmp_path / "code"

    return write


def named(model: object) -> str:
    return type(model).__name__


# -- which class --


def test_the_class_that_the_package_exports_is_the_model(code: Write) -> None:
    root = code({"main/__init__.py": "from .model import Churn\n__all__ = ['Churn']", "main/model.py": MODEL})
    assert named(new_model(root, "", "main")) == "Churn"


def test_without_all_the_public_classes_count(code: Write) -> None:
    root = code(
        {
            "main/__init__.py": "from pathlib import Path\nfrom .model import Churn\nfrom .model import Churn as _Old",
            "main/model.py": MODEL,
        }
    )
    assert named(new_model(root, "", "main")) == "Churn"


def test_a_subclass_of_model_comes_before_others(code: Write) -> None:
    root = code(
        {
            "main/__init__.py": """
                from runtime.model import Model
                class Helper:
                    def build(self): ...
                    def predict(self, rows): ...
                class Churn(Model):
                    def build(self): ...
                    def predict(self, rows): ...
            """
        }
    )
    assert named(new_model(root, "", "main")) == "Churn"


def test_load_model_decides_where_there_is_one(code: Write) -> None:
    root = code(
        {
            "main/__init__.py": "from .model import Churn\nclass Other(Churn): ...\ndef load_model(): return Other()",
            "main/model.py": MODEL,
        }
    )
    assert named(new_model(root, "", "main")) == "Other"


def test_the_folder_of_the_model_is_where_its_code_runs(code: Write) -> None:
    root = code(
        {
            "models/churn/main/__init__.py": "from .model import Churn",
            "models/churn/main/model.py": MODEL,
            "models/churn/data.txt": "hello",
        }
    )
    model = new_model(root, "models/churn", "main")
    model.build()
    assert model.predict([1]) == ["hello"]


def test_a_package_beside_the_folder_and_one_in_it_can_be_imported(code: Write) -> None:
    root = code(
        {
            "churn/main/__init__.py": "import beside\nimport within\nfrom .model import Churn",
            "churn/main/model.py": MODEL,
            "churn/within.py": "",
            "beside/__init__.py": "",
        }
    )
    assert named(new_model(root, "churn", "main")) == "Churn"


def test_the_package_may_lie_deeper(code: Write) -> None:
    root = code({"src/churn_model/__init__.py": MODEL})
    assert named(new_model(root, "", "src/churn_model")) == "Churn"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            {"app/__init__.py": "", "tests/__init__.py": "", "x.py": ""},
            "There is no folder 'main' in the repository (it has app): main_dir must name the model's package.",
        ),
        ({"main/model.py": MODEL}, "main has no __init__.py: write one that imports the model's class."),
        (
            {"main/__init__.py": "", "main/model.py": MODEL},
            "main exports no class with build() and predict(): write `from .model import Churn` into its __init__.py",
        ),
        (
            {"main/__init__.py": ""},
            "main exports no class with build() and predict(): write one, and import it in its __init__.py.",
        ),
        (
            {"main/__init__.py": "from runtime.model import Model\nclass Churn(Model):\n  def build(self): ..."},
            "main exports no class with build() and predict(): Churn has no predict().",
        ),
        (
            {"main/__init__.py": MODEL + "class Other(Churn): ..."},
            "main exports Churn, Other: name the one that is the model in __all__, or write load_model().",
        ),
        (
            {"main/__init__.py": "__all__ = ['Churn']"},
            "__all__ in main/__init__.py names 'Churn', which the package does not have.",
        ),
        (
            {"main/__init__.py": "def load_model(): return 3"},
            "load_model() of main answered an object of the type int, which has no build() and no predict().",
        ),
        (
            {"main/__init__.py": "import no_such_package"},
            "importing main failed at main/__init__.py:1: ModuleNotFoundError: No module named 'no_such_package'",
        ),
        (
            {"main/__init__.py": "from .model import x", "main/model.py": "def f(:"},
            "importing main failed at main/model.py:1: SyntaxError: ",
        ),
        ({"main/__init__.py": "import sys; sys.exit(3)"}, "importing main failed at main/__init__.py:1: SystemExit: 3"),
        (
            {"main/__init__.py": "class Churn:\n  def __init__(self, x): ...\n  build = predict = __init__"},
            "Churn() failed: TypeError: Churn.__init__() missing 1 required positional argument: 'x'",
        ),
        (
            {"main/__init__.py": "def load_model():\n  raise KeyError('token')"},
            "load_model() of main failed at main/__init__.py:2: KeyError: 'token'",
        ),
    ],
)
def test_what_is_wrong_with_the_code_is_told(code: Write, content: dict[str, str], sentence: str) -> None:
    with pytest.raises(ModelError) as caught:
        new_model(code(content), "", "main")
    assert sentence in caught.value.sentence


@pytest.mark.parametrize(
    ("folder", "main_dir", "sentence"),
    [
        ("models", "main", "There is no folder 'main' in the folder 'models', which is not there"),
        ("", "my-model", "Python cannot import 'my-model': rename the folder."),
        ("", "json", "main_dir is 'json', and 'json' is also the name of another package ("),
        ("", "../outside", "There is no folder '../outside' in the repository"),
    ],
)
def test_a_main_dir_that_cannot_be_is_told(code: Write, folder: str, main_dir: str, sentence: str) -> None:
    root = code({"my-model/__init__.py": "", "json/__init__.py": "", "../outside/__init__.py": ""})
    with pytest.raises(ModelError) as caught:
        new_model(root, folder, main_dir)
    assert sentence in caught.value.sentence


def test_a_traceback_has_the_models_frames_only(code: Write) -> None:
    root = code(
        {
            "main/__init__.py": "from .deep import fail\nfail()",
            "main/deep.py": """
                def fail():
                    try:
                        {}["token"]
                    except KeyError as error:
                        raise RuntimeError("no token") from error
            """,
        }
    )
    with pytest.raises(ModelError) as caught:
        new_model(root, "", "main")
    assert caught.value.sentence == "importing main failed at main/deep.py:6: RuntimeError: no token"
    details = caught.value.details
    assert details.count('File "') == details.count(f'File "{root}/main/') == 3
    assert "KeyError: 'token'" in details
    assert "direct cause" in details
    assert str(caught.value) == f"{caught.value.sentence}\n{details}"


def test_a_deep_recursion_is_told_shortly(code: Write) -> None:
    root = code({"main/__init__.py": "def f(n):\n  return g(n)\ndef g(n):\n  return f(n)\nf(0)"})
    with pytest.raises(ModelError, match="RecursionError") as caught:
        new_model(root, "", "main")
    assert len(caught.value.details.splitlines()) < 70


# -- artifacts --


def artifact(tmp_path: Path, main: str) -> Path:
    """What a build leaves."""
    folder = tmp_path / "artifact"
    package = folder / "code" / "churn" / "main"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(textwrap.dedent(main))
    (folder / "artifact.json").write_text(json.dumps({"format": 1, "main_dir": "main", "folder": "churn"}))
    (folder / "files").mkdir()
    (folder / "files" / "words").write_text("kept")
    model = new_model(folder / "code", "churn", "main")
    save(model, folder)
    del sys.modules["main"]
    return folder


def test_a_loaded_model_is_initialized_and_finds_its_files(tmp_path: Path) -> None:
    folder = artifact(
        tmp_path,
        f"""
        from pathlib import Path
        from runtime.model import load_file
        class Churn:
            word = ""
            def build(self): ...
            def initialize_model(self):
                self.word = Path(load_file({str(tmp_path / "words")!r}, tag="words")).read_text()
            def predict(self, rows): return self.word
        """,
    )
    assert load(folder).predict([1]) == "kept"


def test_an_initialization_that_fails_is_told(tmp_path: Path) -> None:
    folder = artifact(
        tmp_path,
        """
        class Churn:
            def build(self): ...
            def predict(self, rows): ...
            def initialize_model(self):
                raise OSError("no driver")
        """,
    )
    with pytest.raises(ModelError) as caught:
        load(folder)
    assert caught.value.sentence == "Churn.initialize_model() failed at main/__init__.py:6: OSError: no driver"


def test_a_model_that_cannot_be_stored_names_the_attribute(tmp_path: Path, code: Write) -> None:
    root = code(
        {
            "main/__init__.py": MODEL
            + "    def __init__(self): import threading; self.fine = 1; self.lock = threading.Lock()"
        }
    )
    with pytest.raises(ModelError) as caught:
        save(new_model(root, "", "main"), tmp_path)
    assert caught.value.sentence.startswith("Churn cannot be stored: pickle does not take its attribute 'lock' (")
    assert "Make in initialize_model() what only serving needs" in caught.value.sentence


PLAIN = "class Churn:\n  def build(self): ...\n  def predict(self, rows): ..."


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("model.pickle", b"", "The artifact is damaged: model.pickle cannot be read (Ran out of input)."),
        ("model.pickle", b"no pickle", "The artifact is damaged: model.pickle cannot be read ("),
        ("model.pickle", None, "The artifact is damaged: it has no model.pickle."),
        ("model.pickle", b"cmain\nGone\n.", "loading the model failed: AttributeError: "),
        ("artifact.json", b"{", "The artifact is damaged: artifact.json cannot be read (JSONDecodeError: "),
        ("artifact.json", b"{}", "The artifact is damaged: artifact.json cannot be read (KeyError: 'main_dir')."),
        ("artifact.json", None, "The artifact is damaged: artifact.json cannot be read (FileNotFoundError: "),
    ],
)
def test_a_damaged_artifact_is_told(tmp_path: Path, name: str, content: bytes | None, sentence: str) -> None:
    folder = artifact(tmp_path, PLAIN)
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(ModelError) as caught:
        load(folder)
    assert sentence in caught.value.sentence


def test_names_of_an_artifacts_parts_are_those_of_the_format() -> None:
    assert (loader.PICKLE, loader.DESCRIPTION, loader.CODE, loader.FILES) == (
        "model.pickle",
        "artifact.json",
        "code",
        "files",
    )
