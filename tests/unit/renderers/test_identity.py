from __future__ import annotations

from typing import Any

import pytest

from renderers.catalog import Facts
from renderers.identity import BuildId, build_id, identify
from schemas.build import AutomationBuildSpecification
from tests.unit.renderers.made import COMMIT, ROLE, build

REPOSITORY = "https://github.com/acme/models.git"
NO_FACTS = Facts()


def identity(**fields: Any) -> BuildId:
    return identify(build(**fields).spec, NO_FACTS)


def test_the_id_stays_the_same_for_ever() -> None:
    # A change here builds every model of every user anew: only a new `version` in the identity may do that.
    assert identity().id == "7785664f96a032ce61c8aed2e7dde5dc71d617797426195e12109551c6e8d646"


@pytest.mark.parametrize(
    "change",
    [
        {"model": "fraud"},
        {"git_uri": f"{REPOSITORY}#fraud"},
        {"git_uri": "https://github.com/acme/other.git#churn"},
        {"git_commit": "1" * 40},
        {"main_dir": "src"},
        {"dependency_file_path": "requirements.txt"},
        {"dependency_required_folders": ["common"]},
        {"base_image": "registry.example.com/base:1"},
        {"resources": {"memory": "8Gi"}},
        {"resources": {"gpu_type": "NVIDIA_T4"}},
        {"gpu_compatible": True},
        {"env_vars": {"A": "1"}},
        {"parameters": {"a": "1"}},
        {"tests": False},
        {"validate_build_artifact": False},
    ],
    ids=str,
)
def test_what_decides_the_artifact_decides_the_id(change: dict[str, Any]) -> None:
    assert identity(**change).id != identity().id


@pytest.mark.parametrize(
    "change",
    [
        {"name": "another"},
        {"description": "text"},
        {"tags": ["x"]},
        {"environment": "staging"},
        {"git_access_token_secret": "github"},
        {"assumed_iam_role": ROLE},
        {"service_account_key_secret_name": "google"},
        {"purchase_option": "ondemand"},
        {"timeout_minutes": 5},
        {"provision_instance_timeout": 5},
        {"validate_build_artifact_timeout": 5},
        {"push_image": False},
    ],
    ids=str,
)
def test_what_only_says_how_to_get_there_does_not(change: dict[str, Any]) -> None:
    assert identity(**change) == identity()


def test_the_order_in_which_things_are_written_does_not_matter() -> None:
    assert identity(parameters={"a": "1", "b": "2"}) == identity(parameters={"b": "2", "a": "1"})
    assert identity(env_vars=["B=2", "A=1"]) == identity(env_vars={"A": "1", "B": "2"})
    assert identity(dependency_required_folders=["b", "a"]) == identity(dependency_required_folders=["a", "b"])


def test_a_default_that_is_written_down_is_no_other_build() -> None:
    assert identity(resources={"cpu": 2, "memory": "4096Mi"}) == identity()
    gpu = {"gpu_type": "NVIDIA_T4"}
    assert identity(resources=gpu | {"gpu_amount": 1}) == identity(resources=gpu)


def test_values_cannot_be_moved_between_fields_unseen() -> None:
    assert identity(env_vars={"A": "1"}).id != identity(parameters={"A": "1"}).id


def test_a_branch_is_its_newest_commit() -> None:
    facts = Facts({(REPOSITORY, "release"): COMMIT})
    branch = identify(build(git_branch="release").spec, facts)

    assert branch == identity()
    assert branch.commit == COMMIT
    assert not branch.provisional


def test_a_branch_whose_commit_is_not_known_has_a_provisional_id() -> None:
    release, main = identity(git_branch="release"), identity(git_branch="main")

    assert release.provisional
    assert release.commit is None
    assert len({release.id, main.id, identity().id}) == 3


def test_the_build_of_an_automation_is_the_same_build() -> None:
    spec = AutomationBuildSpecification.model_validate({"git_uri": f"{REPOSITORY}#churn", "git_branch": "release"})

    assert build_id(spec, "churn", COMMIT) == identity()


def test_the_short_id_begins_the_long_one() -> None:
    assert identity().short == identity().id[:8]
    assert len(identity().id) == 64
