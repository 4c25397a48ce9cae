"""The documentation: all of it is true, and the site is whole."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from docs import generate
from reconciler.authors import files
from tests.docs.pages import DOCS, ROOT, TUTORIAL, Block, Reader, blocks, check, names, prints


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `reconcile init` makes: where each page begins."""
    folder = tmp_path_factory.mktemp("init") / "models"
    files.begin(folder)
    return folder


@pytest.fixture
def reader(repository: Path, tmp_path: Path) -> Reader:
    folder = tmp_path / "models"
    shutil.copytree(repository, folder)
    return Reader(folder, tmp_path)


@pytest.mark.parametrize("page", [page for page in names() if page != TUTORIAL])
def test_what_a_page_says_is_so(page: str, reader: Reader) -> None:
    follow(page, reader)


def test_what_the_tutorial_says_is_so_as_far_as_nothing_has_to_run(tmp_path: Path) -> None:
    """It begins with nothing. The rest is in tests/e2e/test_docs.py."""
    follow(TUTORIAL, Reader(tmp_path, tmp_path))


def follow(page: str, reader: Reader) -> None:
    """Does what a page says, and holds it to leaving specs that are right."""
    for block in blocks(page):
        reader.do(block)
    code, printed = reader.reconcile("reconcile validate") or (1, "")
    assert code == 0, f"docs/{page} ends with specs that are wrong:\n{printed}"


@pytest.mark.parametrize(
    ("expected", "printed", "is_so"),
    [
        ("6 specs valid\n", "6 specs valid\n", True),
        ("6 specs valid\n", "7 specs valid\n", False),
        ("6 specs valid\n", "6 specs valid\nand one more line\n", False),
        ("build 360dcb04 is served\n", "build a710c96c is served\n", True),
        ("one\n...\nfour\n", "one\ntwo\nthree\nfour\n", True),
        ("one\n...\nfour\n", "one\ntwo\nthree\n", False),
        ("up (process ...).\n", "up (process 12).\n", True),
    ],
)
def test_what_is_printed_is_compared_but_for_hashes_and_dots(expected: str, printed: str, is_so: bool) -> None:
    assert prints(expected, printed) is is_so


@pytest.mark.parametrize(
    "line",
    [
        "reconcile --dri-run",
        "reconcile rollback churn --environment",
        "reconcile analytics begin",
        "helm install trueup charts/trueup --set git.adress=x",
        "kubectl get pods | reconsile validate",
    ],
)
def test_a_command_for_a_cluster_that_could_not_run_is_found(line: str) -> None:
    with pytest.raises(AssertionError, match=r"^docs/a\.md:1: "):
        check(line, Block("a.md", 1, "console", ("cluster",), line))


def test_the_reference_is_what_the_program_says() -> None:
    assert list(generate.stale()) == [], "run `python -m docs.generate`"


def test_the_site_builds_without_a_warning_and_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-d", str(tmp_path / "trees")]
    built = tmp_path / "site"
    done = subprocess.run([*command, str(DOCS), str(built)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = re.compile(r"""<(?:script|img|iframe)[^>]* src=["'](https?:)?//|<link[^>]* href=["'](https?:)?//""")
    for page in built.rglob("*.html"):
        assert not loaded.search(page.read_text(encoding="utf-8")), page
    for style in built.rglob("*.css"):
        assert not re.search(r"""(@import|url\()\s*["']?https?:""", style.read_text(encoding="utf-8")), style
    assert {f"reference/language/{kind}.html" for kind in ("audience", "variation")} <= {
        page.relative_to(built).as_posix() for page in built.rglob("*.html")
    }
