"""What a model needs: the dependency file, found and read.

requirements.txt is the package installer's own format, and so is a pyproject.toml with a `[project]` table. Poetry's
table and conda's files are turned into requirements; the packages then come from the package index, for there is no
conda in the image.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from runtime.exits import Exit, Failure

STEP = "dependencies"

#: In order of precedence, the highest first: what the reference platform reads last wins there, too.
_NAMES = ("conda.yml", "conda.yaml", "pyproject.toml", "requirements.txt")

#: Packages that have another name in conda than in the package index.
_OTHER_NAMES = {
    "msgpack-python": "msgpack",
    "opencv": "opencv-python-headless",
    "py-opencv": "opencv-python-headless",
    "py-xgboost": "xgboost",
    "pytables": "tables",
    "pytorch": "torch",
    "pytorch-cpu": "torch",
    "tensorflow-cpu": "tensorflow",
}
#: What an environment has anyway.
_NOT_PACKAGES = {"python", "pip"}


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What the dependency file asks for.

    `requirements` are lines of a requirements file; None: the file is one that installers read themselves.
    `pins` are versions of its lock file: lines that decide which version, if the package is needed at all.
    """

    kind: Literal["pip", "pyproject", "poetry", "conda"]
    file: Path
    requirements: tuple[str, ...] | None = None
    pins: tuple[str, ...] = ()
    python: str | None = None  #: the versions of Python that it allows, as `>=3.9,<3.13`


def find(code: Path, folder: str, main_dir: str, named: str | None) -> tuple[Path, list[Path]]:
    """The dependency file, and others that are passed over.

    `named` is a path in the model's folder, or else in the repository. Without it, the file is looked for in the
    model's folder and then in its main_dir; conda's goes before pyproject.toml, and that before requirements.txt. A
    pyproject.toml that only configures tools does not count. Raises Failure.
    """
    places = [code / folder, code / folder / main_dir]
    if named is not None:
        for place in (code / folder, code):
            if (place / named).is_file():
                return place / named, []
        raise Failure(STEP, f"dependency_file_path names {named}, which is not in the repository", Exit.CODE)
    found = [
        place / name
        for place in dict.fromkeys(places)
        for name in _NAMES
        if (place / name).is_file() and (name != "pyproject.toml" or _declares(place / name))
    ]
    if not found:
        looked = " and ".join(f"{place.relative_to(code).as_posix()}/" for place in dict.fromkeys(places))
        raise Failure(
            STEP,
            f"there is no requirements.txt, pyproject.toml or conda.yml in {looked}: "
            "a model without dependencies has an empty requirements.txt",
            Exit.DEPENDENCIES,
        )
    return found[0], found[1:]


def read(file: Path) -> Dependencies:
    """What a dependency file asks for. Its name says what it is. Raises Failure."""
    try:
        if file.suffix in (".yml", ".yaml"):
            return _conda(file)
        if file.suffix == ".toml":
            return _pyproject(file)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _wrong(file, str(error)) from error
    return Dependencies("pip", file)


def check_python(dependencies: Dependencies, version: tuple[int, ...]) -> None:
    """Raises Failure where the dependency file does not allow this version of Python."""
    wanted = dependencies.python
    if wanted is None:
        return
    try:
        allowed = allows(wanted, version)
    except ValueError:
        raise _wrong(dependencies.file, f"{wanted!r} are no versions of Python") from None
    if not allowed:
        have = ".".join(map(str, version))
        raise _wrong(
            dependencies.file,
            f"it wants Python {wanted}, and this image has {have}: allow {have}, or name a base_image that has another",
        )


_CLAUSE = re.compile(r"(~=|===?|!=|<=?|>=?|=|\^|~)?\s*v?([0-9]+(?:\.[0-9]+)*)(\.\*)?")


def allows(specifier: str, version: tuple[int, ...]) -> bool:
    """Whether a version fits, as in `>=3.9,<3.13`, `^3.10`, `~3.11`, `3.11.*`, `=3.11` or `3.11`; `|` means or.

    A bare number and conda's `=` mean a beginning: 3.11 allows 3.11.7. Raises ValueError for anything else.
    """
    return any(_allows_all(part, version) for part in re.split(r"\|\|?", specifier))


def _allows_all(specifier: str, version: tuple[int, ...]) -> bool:
    clauses = [clause.strip() for clause in specifier.split(",")]
    return all(_allows(clause, version) for clause in clauses if clause not in ("", "*"))


def _allows(clause: str, version: tuple[int, ...]) -> bool:
    match = _CLAUSE.fullmatch(clause)
    if match is None:
        raise ValueError(clause)
    operator, given = match[1] or "=", tuple(map(int, match[2].split(".")))
    is_prefix = version[: len(given)] == given
    same = _padded(version) == _padded(given)
    answers = {
        "=": is_prefix,
        "==": is_prefix if match[3] else same,
        "===": same,
        "!=": not (is_prefix if match[3] else same),
        "<": _padded(version) < _padded(given),
        "<=": _padded(version) <= _padded(given),
        ">": _padded(version) > _padded(given),
        ">=": _padded(version) >= _padded(given),
    }
    if operator in answers:
        return answers[operator]
    return _padded(given) <= _padded(version) < _padded(_next(operator, given))


def _next(operator: str, given: tuple[int, ...]) -> tuple[int, ...]:
    """The first version that `^`, `~` and `~=` exclude."""
    if operator == "^":  # the leftmost number that is not 0 stays
        keep = next((index for index, number in enumerate(given) if number), len(given) - 1) + 1
    elif operator == "~":
        keep = min(len(given), 2)
    else:
        keep = max(len(given) - 1, 1)
    return (*given[: keep - 1], given[keep - 1] + 1)


def _padded(version: tuple[int, ...]) -> tuple[int, ...]:
    return (*version, *(0,) * (6 - len(version)))


# ------------------------------------------------------------------------------------------------- pyproject.toml


def _declares(file: Path) -> bool:
    try:
        document = tomllib.loads(file.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        return True  # `read` says what is wrong with it
    return "project" in document or "dependencies" in document.get("tool", {}).get("poetry", {})


def _pyproject(file: Path) -> Dependencies:
    document = tomllib.loads(file.read_text("utf-8"))
    project, poetry = document.get("project"), document.get("tool", {}).get("poetry", {})
    pins = tuple(_pins(file.parent))
    if project is not None and ("dependencies" in project or "dependencies" not in poetry):
        return Dependencies("pyproject", file, None, pins, project.get("requires-python"))
    if "dependencies" not in poetry:
        raise _wrong(file, "it has neither a [project] table nor [tool.poetry.dependencies]")
    wanted = dict(poetry["dependencies"])
    python = wanted.pop("python", None) or (project or {}).get("requires-python")
    lines = tuple(line for name, value in wanted.items() for line in _poetry(file, name, value))
    return Dependencies("poetry", file, lines, pins, python)


def _pins(folder: Path) -> Iterable[str]:
    """Of the lock file beside a pyproject.toml: names that it has one version of, from a package index."""
    for name in ("poetry.lock", "uv.lock"):
        if not (folder / name).is_file():
            continue
        versions: dict[str, set[str]] = {}
        for package in tomllib.loads((folder / name).read_text("utf-8")).get("package", []):
            source = package.get("source", {})
            if "registry" in source or source.get("type") in (None, "legacy"):
                versions.setdefault(package["name"], set()).add(package.get("version", ""))
        return [f"{name}=={next(iter(found))}" for name, found in versions.items() if len(found) == 1 and all(found)]
    return []


def _poetry(file: Path, name: str, value: Any) -> Iterable[str]:
    """Requirements of an entry of [tool.poetry.dependencies]; none if it is optional."""
    if isinstance(value, list):
        return [line for each in value for line in _poetry(file, name, each)]
    if isinstance(value, str):
        value = {"version": value}
    if not isinstance(value, Mapping):
        raise _wrong(file, f"the dependency {name} is neither text nor a table")
    if value.get("optional"):
        return []
    extras = f"[{','.join(value['extras'])}]" if value.get("extras") else ""
    if "git" in value:
        revision = value.get("rev") or value.get("tag") or value.get("branch")
        target = f" @ git+{value['git']}" + (f"@{revision}" if revision else "")
        target += f"#subdirectory={value['subdirectory']}" if "subdirectory" in value else ""
    elif "url" in value:
        target = f" @ {value['url']}"
    elif "path" in value:
        target = f" @ {(file.parent / value['path']).resolve().as_uri()}"
    else:
        target = _poetry_version(file, name, str(value.get("version", "*")))
    markers = [f"({value['markers']})"] if "markers" in value else []
    if "python" in value:
        clauses = _poetry_version(file, name, str(value["python"])).split(",")
        markers += [re.sub(r"^([<>=!~]+)(.*)$", r"python_full_version \1 '\2'", clause) for clause in clauses if clause]
    return [f"{name}{extras}{target}" + (f" ; {' and '.join(markers)}" if markers else "")]


def _poetry_version(file: Path, name: str, specifier: str) -> str:
    """A version of Poetry's as the package index's tools write it."""
    made: list[str] = []
    for clause in specifier.split(","):
        match = _CLAUSE.fullmatch(clause.strip())
        if clause.strip() in ("", "*"):
            continue
        if match is None or match[1] == "=":
            if "|" in specifier or clause.strip()[:1] in "^~":
                raise _wrong(file, f"the version {specifier!r} of {name} cannot be written as a requirement")
            made.append(clause.strip().lstrip("="))
            made[-1] = f"=={made[-1]}" if made[-1][:1].isdigit() else made[-1]
        elif match[1] in ("^", "~"):
            given = tuple(map(int, match[2].split(".")))
            made += [f">={match[2]}", f"<{'.'.join(map(str, _next(match[1], given)))}"]
        else:
            made.append(f"{match[1] or '=='}{match[2]}{match[3] or ''}")
    return ",".join(made)


# ---------------------------------------------------------------------------------------------------------- conda

_CONDA = re.compile(r"(?:[^:\s]+::)?([A-Za-z0-9_.-]+)\s*(.*)")


def _conda(file: Path) -> Dependencies:
    import yaml  # noqa: PLC0415 - most models have another file

    try:
        document = yaml.safe_load(file.read_text("utf-8"))
    except yaml.YAMLError as error:
        raise _wrong(file, str(error)) from error
    listed = document.get("dependencies") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise _wrong(file, "it has no list `dependencies`")
    lines: list[str] = []
    python = None
    for entry in listed:
        if isinstance(entry, dict) and isinstance(entry.get("pip"), list):
            lines += map(str, entry["pip"])
            continue
        match = _CONDA.fullmatch(entry.strip()) if isinstance(entry, str) else None
        if match is None:
            raise _wrong(file, f"{entry!r} is neither a package nor a list of pip's")
        name, version = match[1].lower(), match[2]
        if name == "python":
            python = _without_build(version) or None
        elif name not in _NOT_PACKAGES:
            lines.append(_OTHER_NAMES.get(name, name) + _conda_version(version))
    return Dependencies("conda", file, tuple(lines), (), python)


def _without_build(version: str) -> str:
    """`=3.11=h2755cc3_0` names a build of conda's, which means nothing elsewhere."""
    return re.sub(r"^(=?=?[^=<>!~,\s]+)[=\s].*$", r"\1", version.strip())


def _conda_version(version: str) -> str:
    """conda's `=1.2` means 1.2 and all that begins so; `==1.2` exactly that; `1.2` alone is what `=1.2` is."""
    version = _without_build(version)
    match = re.fullmatch(r"(=?)([0-9][^=<>!~,*|\s]*?)(\.?\*)?", version)
    if match:
        return f"=={match[2]}.*"
    return version.replace(" ", "")


def _wrong(file: Path, what: str) -> Failure:
    return Failure(STEP, f"{file.name}: {what}", Exit.DEPENDENCIES)
