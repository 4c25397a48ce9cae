"""Dependency files: which one counts, and what it asks for."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet

from runtime.dependencies import allows, check_python, find, read
from runtime.exits import Exit, Failure

PROJECT = '[project]\nname = "x"\n'


def write(root: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)


# ------------------------------------------------------------------------------------------------------ which file


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"m/requirements.txt": ""}, "m/requirements.txt"),
        ({"m/main/requirements.txt": ""}, "m/main/requirements.txt"),
        # The model's folder comes first, and of several files the reference platform reads the last one.
        ({"m/requirements.txt": "", "m/main/conda.yml": ""}, "m/requirements.txt"),
        ({"m/requirements.txt": "", "m/pyproject.toml": PROJECT}, "m/pyproject.toml"),
        ({"m/pyproject.toml": PROJECT, "m/conda.yaml": ""}, "m/conda.yaml"),
        ({"m/conda.yml": "", "m/conda.yaml": ""}, "m/conda.yml"),
        # It configures tools only.
        ({"m/pyproject.toml": "[tool.ruff]\n", "m/main/requirements.txt": ""}, "m/main/requirements.txt"),
    ],
)
def test_the_file_that_counts(tmp_path: Path, files: dict[str, str], found: str) -> None:
    write(tmp_path, files)
    file, others = find(tmp_path, "m", "main", None)
    assert file == tmp_path / found
    declared = {name for name, content in files.items() if content != "[tool.ruff]\n"}
    assert {path.relative_to(tmp_path).as_posix() for path in others} == declared - {found}


def test_a_file_that_is_named_lies_in_the_models_folder_or_in_the_repository(tmp_path: Path) -> None:
    write(tmp_path, {"shared/gpu.txt": "", "m/cpu.txt": "", "m/requirements.txt": ""})
    assert find(tmp_path, "m", "main", "cpu.txt") == (tmp_path / "m/cpu.txt", [])
    assert find(tmp_path, "m", "main", "shared/gpu.txt") == (tmp_path / "shared/gpu.txt", [])


def test_no_file_at_all_says_what_to_write(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"a model without dependencies has an empty requirements\.txt") as caught:
        find(tmp_path, "", "main", None)
    assert caught.value.code == Exit.DEPENDENCIES


# ---------------------------------------------------------------------------------------------- versions of Python

PARTS = st.integers(0, 15)
CLAUSES = st.one_of(
    st.builds("{}{}.{}".format, st.sampled_from(["==", "!=", "<", "<=", ">", ">=", "~="]), st.integers(2, 4), PARTS),
    st.builds("{}{}.{}.{}".format, st.sampled_from(["==", "!=", "<", "<=", ">", ">=", "~="]), PARTS, PARTS, PARTS),
    st.builds("{}{}.{}.*".format, st.sampled_from(["==", "!="]), st.integers(2, 4), PARTS),
)


@given(st.lists(CLAUSES, max_size=3), st.integers(2, 4), PARTS, PARTS)
def test_the_standards_specifiers_mean_what_the_standard_says(
    clauses: list[str], major: int, minor: int, micro: int
) -> None:
    text = ",".join(clauses)
    assert allows(text, (major, minor, micro)) == SpecifierSet(text).contains(f"{major}.{minor}.{micro}")


@pytest.mark.parametrize(
    ("specifier", "allowed", "refused"),
    [
        ("^3.9", [(3, 9, 0), (3, 14, 2)], [(3, 8, 9), (4, 0, 0)]),
        ("^0.3.1", [(0, 3, 5)], [(0, 4, 0)]),
        ("~3.11", [(3, 11, 7)], [(3, 12, 0)]),
        ("~3", [(3, 12, 0)], [(4, 0, 0)]),
        ("=3.11", [(3, 11, 7)], [(3, 12, 0)]),
        ("3.11", [(3, 11, 7)], [(3, 1, 1)]),
        ("3.11.*", [(3, 11, 7)], [(3, 12, 0)]),
        (">=3.8,<3.12", [(3, 11, 7)], [(3, 12, 0)]),
        ("~3.9 || ^3.11", [(3, 9, 1), (3, 12, 0)], [(3, 10, 1)]),
        ("=3.9|=3.11", [(3, 11, 0)], [(3, 10, 0)]),
        ("*", [(3, 11, 0)], []),
    ],
)
def test_the_specifiers_of_poetry_and_conda(
    specifier: str, allowed: list[tuple[int, ...]], refused: list[tuple[int, ...]]
) -> None:
    assert all(allows(specifier, version) for version in allowed)
    assert not any(allows(specifier, version) for version in refused)


def test_what_is_no_version_is_told(tmp_path: Path) -> None:
    write(tmp_path, {"conda.yml": "dependencies: ['python>=three']"})
    with pytest.raises(Failure, match=r"conda\.yml: '>=three' are no versions of Python"):
        check_python(read(tmp_path / "conda.yml"), (3, 11, 7))


# ---------------------------------------------------------------------------------------------------- what it asks


def requirements(tmp_path: Path, name: str, content: str) -> tuple[str, ...]:
    write(tmp_path, {name: content})
    found = read(tmp_path / name).requirements
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("written", "requirement"),
    [
        ('six = "1.16"', "six==1.16"),
        ('six = "*"', "six"),
        ('six = "^1.2.3"', "six>=1.2.3,<2"),
        ('six = "^0.2.3"', "six>=0.2.3,<0.3"),
        ('six = "~1.2.3"', "six>=1.2.3,<1.3"),
        ('six = ">=1,<2"', "six>=1,<2"),
        ('six = "1.*"', "six==1.*"),
        ('six = "1.0rc1"', "six==1.0rc1"),
        ('six = ">=1.0.post1"', "six>=1.0.post1"),
        ('six = {version = "^1", extras = ["a", "b"]}', "six[a,b]>=1,<2"),
        ('six = {git = "https://host/six.git", tag = "v1"}', "six @ git+https://host/six.git@v1"),
        ('six = {url = "https://host/six.whl"}', "six @ https://host/six.whl"),
        ('six = {version = "1", markers = "sys_platform == \'linux\'"}', "six==1 ; (sys_platform == 'linux')"),
        ('six = {version = "1", python = ">=3.8,<3.13"}',
         "six==1 ; python_full_version >= '3.8' and python_full_version < '3.13'"),
    ],
)  # fmt: skip
def test_a_dependency_of_poetrys_becomes_a_requirement(tmp_path: Path, written: str, requirement: str) -> None:
    content = f'[tool.poetry.dependencies]\npython = "^3.9"\n{written}\nunused = {{version = "1", optional = true}}\n'
    assert requirements(tmp_path, "pyproject.toml", content) == (requirement,)
    assert read(tmp_path / "pyproject.toml").python == "^3.9"


def test_a_version_of_poetrys_that_is_no_requirement_is_told(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"the version '\^1 \|\| \^2' of six cannot be written as a requirement"):
        requirements(tmp_path, "pyproject.toml", '[tool.poetry.dependencies]\nsix = "^1 || ^2"\n')


@pytest.mark.parametrize(
    ("name", "source"), [("poetry.lock", ""), ("uv.lock", 'source = { registry = "https://pypi.org/simple" }\n')]
)
def test_a_lock_file_decides_the_versions(tmp_path: Path, name: str, source: str) -> None:
    packages = [("six", "1.16.0"), ("twice", "1"), ("twice", "2")]
    lock = "".join(f'[[package]]\nname = "{name}"\nversion = "{version}"\n{source}' for name, version in packages)
    lock += '[[package]]\nname = "own"\nversion = "0"\nsource = { git = "https://host/x", type = "git" }\n'
    write(tmp_path, {"pyproject.toml": PROJECT, name: lock})
    assert read(tmp_path / "pyproject.toml").pins == ("six==1.16.0",)


@pytest.mark.parametrize(
    ("written", "requirement"),
    [
        ("numpy", "numpy"),
        ("numpy=1.26", "numpy==1.26.*"),
        ("numpy==1.26.4", "numpy==1.26.4"),
        ("numpy 1.26", "numpy==1.26.*"),
        ("numpy=1.26.*", "numpy==1.26.*"),
        ("numpy>=1.26,<2", "numpy>=1.26,<2"),
        ("numpy=1.26.4=py311h64a7726_0", "numpy==1.26.4.*"),
        ("conda-forge::PyTorch>=2", "torch>=2"),
    ],
)
def test_a_package_of_condas_becomes_a_requirement(tmp_path: Path, written: str, requirement: str) -> None:
    content = f"name: x\ndependencies:\n- python=3.11\n- pip\n- {written}\n- pip:\n  - six[x]==1\n"
    assert requirements(tmp_path, "conda.yml", content) == (requirement, "six[x]==1")
    assert read(tmp_path / "conda.yml").python == "=3.11"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("conda.yml", "- a"),
        ("conda.yml", "dependencies: 3"),
        ("conda.yml", "dependencies: [{conda: x}]"),
        ("conda.yml", "a: [b"),
        ("conda.yml", "!!python/object/apply:os.system ['touch ran']"),
        ("pyproject.toml", "[project"),
        ("pyproject.toml", "[tool.poetry.dependencies]\nsix = 3\n"),
        ("pyproject.toml", "[tool.other]\n"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: str) -> None:
    write(tmp_path, {name: content})
    with pytest.raises(Failure, match=f"^dependencies: {name}: ") as caught:
        read(tmp_path / name)
    assert caught.value.code == Exit.DEPENDENCIES
