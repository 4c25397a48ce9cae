"""What is asked of Git before rendering, and of whom."""

import subprocess
from pathlib import Path

import pytest

from reconciler import facts, specs
from reconciler.cluster import Unavailable
from renderers.catalog import Catalog
from renderers.manifest import ObjectId

REMOTE = "https://git.example.com/acme/models.git"


@pytest.fixture
def mirrors(tmp_path: Path) -> dict[str, str]:
    repository = tmp_path / "models.git"
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
    subprocess.run(["git", "init", "-q", "-b", "main", str(repository)], check=True)
    subprocess.run(["git", "-C", str(repository), *identity, "commit", "-q", "--allow-empty", "-m", "one"], check=True)
    return {REMOTE: f"file://{repository}"}


def catalog(*, suspended: str = "", secret: str = "", builds: int = 1) -> Catalog:
    """Builds that run in staging and are served in production."""
    names = [f"churn-{number}" for number in range(builds)]
    environments = "\n".join(
        f"    - {{name: {name}, suspended: {str(name == suspended).lower()}}}" for name in ("staging", "production")
    )
    made = "\n".join(
        f"    - {{name: {name}, model: {name}, environment: staging, git_uri: {REMOTE}#m, git_branch: main{secret}}}"
        for name in names
    )
    served = "\n".join(
        f"    - {{model: {name}, name: default, environments: [production], build: {name}}}" for name in names
    )
    text = f"api_version: v1\nspec:\n  environments:\n{environments}\n  builds:\n{made}\n  variations:\n{served}\n"
    loaded = specs.parse({"specs.yaml": text.encode()})
    assert loaded.problems == ()
    return loaded.catalog


def no_cluster(_):
    raise AssertionError("no cluster is to be asked")


def test_a_build_that_runs_in_a_suspended_environment_is_asked_for_where_it_is_served_elsewhere(mirrors):
    found, unresolved = facts.gather(catalog(suspended="staging"), no_cluster, mirrors)
    assert set(found.commits) == {(REMOTE, "main")}
    assert unresolved == {}


def test_a_cluster_that_is_away_is_asked_for_one_credential_and_not_for_each():
    asked = []

    class Away:
        def get(self, target: ObjectId):
            asked.append(target)
            raise Unavailable(0, "", "no route", target)

    known = catalog(secret=", git_access_token_secret: token", builds=5)
    found, unresolved = facts.gather(known, lambda _: Away(), {})
    assert found.commits == {}
    assert len(asked) == 1
    assert "no route" in unresolved[REMOTE, "main"]
