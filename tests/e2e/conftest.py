"""The command as people get it: built as a wheel, installed outside the checkout, run in an empty folder."""

from __future__ import annotations

import fcntl
import os
import secrets
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.contract.client import Api
from tests.contract.conftest import PLANES, REAL_KUBECONFIG
from tests.contract.plant import Plant, played
from tests.contract.test_source_git import certificate  # noqa: F401 - a fixture
from tests.e2e.daemon import Specs
from tests.e2e.harness import ROOT, Place, Plane, Remote, forget

PACKAGES = ("schemas", "renderers", "reconciler", "runtime", "embedded")


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command `reconcile` of a fresh installation. Parallel test processes share one."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = shared / "installation"
    with (shared / "installation.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            _install(folder)
            (folder / "complete").touch()
    return folder / "bin" / "reconcile"


def _install(folder: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    wheels = folder / "wheels"
    # The build backend is one of the test environment's packages: an isolated build would fetch it each time.
    _run(*pip, "wheel", str(ROOT), "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(wheels))
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    (wheel,) = wheels.iterdir()
    _run(*pip, "--python", str(python), "install", "--no-deps", "--no-index", str(wheel))
    # The dependencies come from the test environment. A path in a .pth file is searched for packages, but its own
    # .pth files, and the editable installation among them, are not read.
    site = next(folder.glob("lib/python*/site-packages"))
    paths = dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))
    (site / "test_environment.pth").write_text("".join(f"{path}\n" for path in paths))
    code = f"import {', '.join(PACKAGES)}; print(*(p.__path__[0] for p in ({', '.join(PACKAGES)})), sep='\\n')"
    found = _run(str(python), "-c", code, cwd=folder).split()
    assert found == [str(site / name) for name in PACKAGES], f"this is not what was installed: {found}"


def _run(*command: str, cwd: Path | None = None) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def place(installed: Path, tmp_path: Path) -> Place:
    """An empty folder, and the command to run there."""
    folder = tmp_path / "place"
    folder.mkdir()
    return Place(folder, installed)


@pytest.fixture(scope="module")
def plane(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """A place where the embedded data plane is up: one for all tests of a module, in environments of their own."""
    made = Plane(tmp_path_factory.mktemp("plane"), installed).up()
    yield made
    made.down()


@pytest.fixture
def name(plane: Plane) -> Iterator[str]:
    """The name of an environment, and of its namespace. It is alone in its cluster, and gone after the test."""
    yield "prod"
    api = plane.api()
    forget(api, "prod")
    api.close()


@pytest.fixture
def new_plane(installed: Path, tmp_path: Path) -> Iterator[Callable[[], Plane]]:
    """Makes places where nothing runs yet; what is started there is stopped after the test."""
    made: list[Plane] = []

    def make() -> Plane:
        folder = tmp_path / f"plane-{len(made)}"
        folder.mkdir()
        made.append(Plane(folder, installed))
        return made[-1]

    yield make
    for one in made:
        one.down()


@contextmanager
def started(kind: str, folder: Path, installed: Path) -> Iterator[Plane]:
    """One of the `PLANES`, used from this folder."""
    made = Remote(folder, installed, Path(REAL_KUBECONFIG)) if kind == "real" else Plane(folder, installed)
    yield made.up()
    made.down()


@pytest.fixture(params=PLANES)
def any_plane(request: pytest.FixtureRequest, installed: Path, tmp_path: Path) -> Iterator[Plane]:
    """A data plane for one test: an embedded one, and the real cluster where there is one."""
    folder = tmp_path / "any-plane"
    folder.mkdir()
    with started(request.param, folder, installed) as made:
        yield made


@pytest.fixture
def api(any_plane: Plane) -> Iterator[Api]:
    """Its API server, past the command."""
    made = any_plane.api()
    yield made
    made.close()


@pytest.fixture
def plant(api: Api) -> Iterator[Plant]:
    """Its controllers go on while the test does what it does."""
    with played(api) as made:
        yield made


@pytest.fixture
def specs(any_plane: Plane, tmp_path: Path) -> Specs:
    """A repository of specs for it, to be followed."""
    return Specs(tmp_path / "repository", any_plane)


@pytest.fixture
def prod(any_plane: Plane) -> Iterator[str]:
    """The name of an environment, and of its namespace; nobody else's, as the cluster may be there after the test."""
    name = f"prod-{secrets.token_hex(3)}"
    yield name
    with closing(any_plane.api()) as api:
        api("DELETE", f"/api/v1/namespaces/{name}")
