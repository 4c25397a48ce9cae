"""From a folder of code to a model, and from an artifact to one that can be asked.

An artifact is a folder: `model.pickle`, `artifact.json` (which names `main_dir` and `folder`), `code/` with the model's
code, and `files/` with what it logged. Unpickling runs code: only artifacts of one's own builds are loaded.

Both functions change the process for good: the model's folder becomes the working directory and is put first on
`sys.path`, as the model's code expects it. A process has one model.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import os
import pickle
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from runtime.model import files
from runtime.model.base import Model
from runtime.model.exceptions import ModelError
from runtime.model.tracebacks import location_of, own_traceback

PICKLE = "model.pickle"
DESCRIPTION = "artifact.json"
CODE = "code"
FILES = "files"


def new_model(root: Path, folder: str, main_dir: str) -> Any:
    """A new instance of the model whose package is `main_dir` in `folder` of the code in `root`.

    It is what `load_model()` of the package answers, where there is one; else an instance of the only class with
    build() and predict() that the package exports (by `__all__`, or else by a public name). Raises ModelError.
    """
    package = _import(root, folder, main_dir)
    load_model = getattr(package, "load_model", None)
    if callable(load_model):
        model = _run(load_model, f"load_model() of {main_dir}")
    else:
        found = _class_in(package, main_dir)
        model = _run(found, f"{found.__name__}()")
    missing = [f"{name}()" for name in ("build", "predict") if not callable(getattr(model, name, None))]
    if missing:
        answer = f"an object of the type {type(model).__name__}, which has no {' and no '.join(missing)}"
        raise ModelError(f"load_model() of {main_dir} answered {answer}.")
    return model


def save(model: Any, artifact: Path) -> Path:
    """Pickle the model into the folder of its artifact. Raises ModelError where it cannot be."""
    path = artifact / PICKLE
    try:
        with path.open("wb") as stream:
            pickle.dump(model, stream, pickle.HIGHEST_PROTOCOL)
    except OSError:
        raise
    except Exception as error:
        attribute = _unpicklable(model)
        what = f"its attribute {attribute!r}" if attribute else "it"
        raise ModelError(
            f"{type(model).__name__} cannot be stored: pickle does not take {what} ({error}). "
            "Make in initialize_model() what only serving needs, and leave it out of build()."
        ) from error
    return path


def load(artifact: Path) -> Any:
    """The model of an artifact, initialized. Raises ModelError."""
    artifact = artifact.resolve()
    described = artifact / DESCRIPTION
    try:
        description = json.loads(described.read_bytes())
        main_dir, folder = description["main_dir"], description["folder"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"The artifact is damaged: {DESCRIPTION} cannot be read ({type(error).__name__}: {error})."
        ) from error
    files.keep_in(artifact / FILES)
    _import(artifact / CODE, folder, main_dir)
    model = _unpickle(artifact / PICKLE)
    initialize = getattr(model, "initialize_model", None)
    if callable(initialize):
        _run(initialize, f"{type(model).__name__}.initialize_model()")
    return model


def _import(root: Path, folder: str, main_dir: str) -> ModuleType:
    root = root.resolve()
    home = root / folder if folder else root
    path = home / main_dir
    if not (path.is_dir() and path.resolve().is_relative_to(root)):
        place = f"{_place(folder)}{_offered(home)}"
        raise ModelError(f"There is no folder {main_dir!r} in {place}: main_dir must name the model's package.")
    if not (path / "__init__.py").is_file():
        raise ModelError(f"{main_dir} has no __init__.py: write one that imports the model's class.")
    name = path.resolve().name
    if not name.isidentifier():
        raise ModelError(f"main_dir is {main_dir!r}, and Python cannot import {name!r}: rename the folder.")
    os.chdir(home)
    # Folders that a build asks for beside its own lie in the root.
    wanted = dict.fromkeys(str(place) for place in (path.resolve().parent, home, root))
    sys.path[:] = [*wanted, *(place for place in sys.path if place not in wanted)]
    importlib.invalidate_caches()
    package: ModuleType = _run(lambda: importlib.import_module(name), f"importing {main_dir}")
    origin = Path(str(getattr(package, "__file__", None))).resolve()
    if origin != path.resolve() / "__init__.py":
        raise ModelError(
            f"main_dir is {main_dir!r}, and {name!r} is also the name of another package ({origin}): rename the folder."
        )
    return package


def _place(folder: str) -> str:
    return f"the folder {folder!r}" if folder else "the repository"


def _offered(home: Path) -> str:
    if not home.is_dir():
        return ", which is not there"
    packages = sorted(init.parent.name for init in home.glob("*/__init__.py") if init.parent.name != "tests")
    return f" (it has {', '.join(packages)})" if packages else ""


def _class_in(package: ModuleType, main_dir: str) -> type:
    exported = getattr(package, "__all__", None)
    names = exported if exported is not None else [name for name in vars(package) if not name.startswith("_")]
    missing = [name for name in names if not hasattr(package, str(name))]
    if missing:
        raise ModelError(f"__all__ in {main_dir}/__init__.py names {missing[0]!r}, which the package does not have.")
    classes = {
        value
        for value in (getattr(package, str(name)) for name in names)
        if isinstance(value, type) and value is not Model and not inspect.isabstract(value) and _is_model(value)
    }
    candidates = {found for found in classes if issubclass(found, Model)} or classes
    if len(candidates) == 1:
        return candidates.pop()
    if candidates:
        told = ", ".join(sorted(found.__name__ for found in candidates))
        raise ModelError(
            f"{main_dir} exports {told}: name the one that is the model in __all__, or write load_model()."
        )
    raise ModelError(f"{main_dir} exports no class with build() and predict(): {_hint(package)}.")


def _is_model(found: type) -> bool:
    return callable(getattr(found, "build", None)) and callable(getattr(found, "predict", None))


def _hint(package: ModuleType) -> str:
    """The usual reasons are a forgotten method and a forgotten import."""
    for value in vars(package).values():
        if isinstance(value, type) and issubclass(value, Model) and value is not Model and inspect.isabstract(value):
            return f"{value.__name__} has no {'() and no '.join(sorted(value.__abstractmethods__))}()"
    for path in sorted(Path(str(package.__file__)).parent.glob("*.py")):
        with suppress(SyntaxError, ValueError):
            for found in ast.parse(path.read_bytes()).body:
                methods = {node.name for node in ast.walk(found) if isinstance(node, ast.FunctionDef)}
                if isinstance(found, ast.ClassDef) and {"build", "predict"} <= methods and path.stem != "__init__":
                    line = f"from .{path.stem} import {found.name}"
                    return f"write `{line}` into its __init__.py, and {found.name} into __all__ if there is one"
    return "write one, and import it in its __init__.py"


def _unpickle(path: Path) -> Any:
    try:
        with path.open("rb") as stream:
            return pickle.load(stream)  # noqa: S301 - of our own builds, checked by its digest
    except FileNotFoundError as error:
        raise ModelError(f"The artifact is damaged: it has no {PICKLE}.") from error
    except (pickle.UnpicklingError, EOFError) as error:
        raise ModelError(f"The artifact is damaged: {PICKLE} cannot be read ({error}).") from error
    except Exception as error:
        raise _failure("loading the model", error) from error


def _unpicklable(model: Any) -> str | None:
    for name, value in getattr(model, "__dict__", {}).items():
        try:
            pickle.dumps(value)
        except (pickle.PicklingError, TypeError, AttributeError, NotImplementedError, RuntimeError, ValueError):
            return str(name)
    return None


def _run(code: Any, what: str) -> Any:
    try:
        return code()
    except (Exception, SystemExit) as error:
        raise _failure(what, error) from error


def _failure(what: str, error: BaseException) -> ModelError:
    reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return ModelError(f"{what} failed{location_of(error)}: {reason}", own_traceback(error))
