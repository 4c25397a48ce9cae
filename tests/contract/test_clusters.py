"""The way to a cluster whose kubeconfig is in a Secret: what is on the disk for it, and for how long."""

from __future__ import annotations

import base64
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from reconciler import inventory
from reconciler.cluster import KubeconfigError
from reconciler.clusters import Clusters
from schemas.environment import DataPlane
from tests.contract.client import Api

SECRETS = f"/api/v1/namespaces/{inventory.NAMESPACE}/secrets"


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for everything temporary."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def clusters(api: Api, there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clusters]:
    monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig))
    with closing(Clusters(tmp_path)) as clusters:
        yield clusters


@pytest.fixture
def given(api: Api) -> Iterator[Callable[[bytes], DataPlane]]:
    """Puts a kubeconfig into a Secret; the data plane that names it."""
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": inventory.NAMESPACE}}
    assert api("POST", "/api/v1/namespaces", namespace).status in (201, 409)
    made: list[str] = []

    def put(content: bytes) -> DataPlane:
        name = f"cluster-{secrets.token_hex(4)}"
        data = {"kubeconfig": base64.b64encode(content).decode()}
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}
        assert api("POST", SECRETS, body).status == 201
        made.append(name)
        return DataPlane(type="kubernetes", kubeconfig_secret=name)

    yield put
    for name in made:
        api("DELETE", f"{SECRETS}/{name}")


def test_a_kubeconfig_from_a_secret_is_on_the_disk_for_as_long_as_its_connection_is_open(
    api: Api, clusters: Clusters, given: Callable[[bytes], DataPlane], there: Path
) -> None:
    assert clusters.reader(given(Path(api.kubeconfig).read_bytes())).version()
    (file,) = there.glob("*/kubeconfig")
    assert file.stat().st_mode & 0o777 == 0o600
    clusters.close()
    assert list(there.glob("*/kubeconfig")) == []


@pytest.mark.parametrize("content", [b"{", b"{}", b"\xff"])
def test_one_that_leads_nowhere_leaves_nothing_on_the_disk_however_often_it_is_tried(
    clusters: Clusters, given: Callable[[bytes], DataPlane], there: Path, content: bytes
) -> None:
    plane = given(content)
    for _ in range(3):
        with pytest.raises(KubeconfigError):
            clusters.reader(plane)
        assert list(there.glob("*/kubeconfig")) == []
