from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from renderers import build as renderer
from renderers import pods
from renderers.catalog import Facts, Placed
from renderers.identity import identify
from renderers.manifest import Body, ObjectId
from tests.unit.renderers.made import COMMIT, NO_FACTS, ROLE, build, building, environment, one

PYPROJECT = Path(__file__).parents[3] / "pyproject.toml"


def job(where: Any = None, facts: Facts = NO_FACTS, **fields: Any) -> Body:
    return one(renderer.render(building(build(**fields), where=where), facts), "Job")


def pod(**fields: Any) -> Body:
    spec: Body = job(**fields)["spec"]["template"]["spec"]
    return spec


def container(**fields: Any) -> Body:
    (body,) = pod(**fields)["containers"]
    return body


def fetch(**fields: Any) -> Body:
    (body,) = pod(**fields)["initContainers"]
    return body


def value_of(container_body: Body, name: str) -> Any:
    return {variable["name"]: variable for variable in container_body["env"]}.get(name)


def test_the_name_of_the_job_carries_the_id() -> None:
    short = identify(build().spec, NO_FACTS).short
    metadata = job()["metadata"]

    assert metadata["name"] == f"churn-build-{short}"
    assert metadata["labels"]["trueup.dev/build-id"] == short
    assert metadata["annotations"]["trueup.dev/build"] == identify(build().spec, NO_FACTS).id
    assert metadata["annotations"]["trueup.dev/commit"] == COMMIT
    assert metadata["annotations"]["trueup.dev/lineage"] == "build/churn-1"


def test_a_job_needs_its_namespace_and_its_account() -> None:
    (made,) = renderer.render(building(build()), NO_FACTS)

    assert made.needs == (
        ObjectId("v1", "Namespace", "", "production"),
        ObjectId("v1", "ServiceAccount", "production", "trueup-build"),
    )


def test_a_build_with_its_own_role_has_its_own_account() -> None:
    account, made = renderer.render(building(build(assumed_iam_role=ROLE)), NO_FACTS)

    assert account.body["metadata"]["annotations"]["eks.amazonaws.com/role-arn"] == ROLE
    assert made.body["spec"]["template"]["spec"]["serviceAccountName"] == account.id.name
    assert account.id in made.needs


def test_builds_with_one_role_share_its_account() -> None:
    first, second = build(assumed_iam_role=ROLE), build(name="churn-2", assumed_iam_role=ROLE, tests=False)
    other = build(name="churn-3", assumed_iam_role=f"{ROLE}-other", parameters={"a": "1"})
    kinds = [manifest.id.kind for manifest in renderer.render(building(first, second, other), NO_FACTS)]

    assert kinds == ["ServiceAccount", "Job", "Job", "ServiceAccount", "Job"]


def test_deterministic_failures_end_the_job_and_lost_nodes_do_not_count() -> None:
    fail, ignore = job()["spec"]["podFailurePolicy"]["rules"]

    assert fail["action"] == "FailJob"
    assert fail["onExitCodes"] == {"operator": "In", "values": [3, 4, 5, 6]}
    assert ignore["action"] == "Ignore"


def test_the_time_limit_is_in_minutes() -> None:
    assert job(timeout_minutes=90)["spec"]["activeDeadlineSeconds"] == 5400


@pytest.mark.parametrize(
    ("credentials", "secret"),
    [
        ({"git_access_token_secret": "git-token"}, "git-token"),
        ({"git_uri": "git@github.com:acme/models.git", "git_ssh_token_secret": "deploy-key"}, "deploy-key"),
    ],
    ids=["token", "ssh"],
)
def test_credentials_are_files_that_the_models_code_never_sees(credentials: dict[str, str], secret: str) -> None:
    body = pod(**credentials)
    (first,), (second,) = body["initContainers"], body["containers"]

    assert {"name": "git", "secret": {"secretName": secret, "defaultMode": 0o440}} in body["volumes"]
    assert "git" in {mount["name"] for mount in first["volumeMounts"]}
    assert "--credentials=/var/run/secrets/trueup.dev/git" in first["args"]
    assert "git" not in {mount["name"] for mount in second["volumeMounts"]}
    assert secret not in json.dumps([first["env"], first["args"], second])


def test_without_credentials_there_is_nothing_to_mount() -> None:
    assert {volume["name"] for volume in pod()["volumes"]} == {"work", "tmp"}


def test_the_code_is_fetched_at_the_commit() -> None:
    assert fetch()["args"] == [
        "fetch",
        "--repository=https://github.com/acme/models.git",
        "--into=/workspace/code",
        "--result=/dev/termination-log",
        f"--commit={COMMIT}",
    ]


def test_a_job_without_a_commit_says_that_it_is_not_to_be_applied() -> None:
    made = job(git_branch="release")

    assert made["metadata"]["annotations"]["trueup.dev/provisional"] == "true"
    assert "--commit" not in json.dumps(made)
    assert "trueup.dev/provisional" not in job()["metadata"]["annotations"]


def test_the_plan_is_told_of_a_provisional_id() -> None:
    (note,) = renderer.notes(building(build(git_branch="release")), NO_FACTS)

    assert note.text.startswith("build churn-1: the newest commit of release is not known here, so its id")
    assert str(note.origin) == "builds.yaml:3"
    assert renderer.notes(building(build()), NO_FACTS) == []


def test_two_specs_of_one_build_have_one_job_of_the_first_and_the_plan_is_told() -> None:
    unit = building(build(name="churn-2"), build(name="churn-1"))

    (made,) = renderer.render(unit, NO_FACTS)
    assert made.origin.name == "churn-1"
    assert [note.text for note in renderer.notes(unit, NO_FACTS)] == [
        "build churn-2 is the same build as churn-1: it is made once"
    ]


def test_the_build_learns_what_it_is_from_its_environment() -> None:
    place = environment(object_storage="s3://acme/models", data_plane="kubernetes")
    body = container(where=place, parameters={"n": "2"})

    values = {v["name"]: v["value"] for v in body["env"] if v["name"].startswith("TRUEUP_")}
    assert values == {
        "TRUEUP_BUILD_ID": identify(build(parameters={"n": "2"}).spec, NO_FACTS).id,
        "TRUEUP_COMMIT": COMMIT,
        "TRUEUP_ENVIRONMENT": "production",
        "TRUEUP_MODEL": "churn",
        "TRUEUP_OBJECT_STORAGE": "s3://acme/models",
        "TRUEUP_PARAMETERS": '{"n":"2"}',
    }


def test_the_arguments_say_what_to_build() -> None:
    args = container(
        main_dir="src",
        dependency_file_path="requirements.txt",
        dependency_required_folders=["common"],
        tests=False,
        validate_build_artifact=False,
    )["args"]

    assert args == [
        "build",
        "--code=/workspace/code",
        "--main-dir=src",
        "--result=/dev/termination-log",
        "--folder=churn",
        "--dependencies=requirements.txt",
        "--include=common",
        "--no-tests",
        "--no-validate",
    ]


def test_the_builds_variables_win_over_the_environments_and_trueups_own_win_over_both() -> None:
    place = environment(defaults={"env_vars": {"A": "environment", "B": "environment", "HOME": "/x"}})
    body = container(where=place, env_vars={"A": "build", "TRUEUP_MODEL": "another"})

    assert value_of(body, "A") == {"name": "A", "value": "build"}
    assert value_of(body, "B") == {"name": "B", "value": "environment"}
    assert value_of(body, "HOME") == {"name": "HOME", "value": "/tmp"}
    assert value_of(body, "TRUEUP_MODEL") == {"name": "TRUEUP_MODEL", "value": "churn"}
    assert [variable["name"] for variable in body["env"]] == sorted(variable["name"] for variable in body["env"])


@pytest.mark.parametrize(
    ("value", "reference"),
    [
        ("secret.api-key", {"name": "api-key", "key": "value"}),
        ("secret.api-key.token", {"name": "api-key", "key": "token"}),
        ("secret.api-key.tls.crt", {"name": "api-key", "key": "tls.crt"}),
    ],
)
def test_a_secret_is_a_reference(value: str, reference: dict[str, str]) -> None:
    assert value_of(container(env_vars={"KEY": value}), "KEY") == {
        "name": "KEY",
        "valueFrom": {"secretKeyRef": reference},
    }


@pytest.mark.parametrize("value", ["secrets.x", "my secret.x", "Secret.x", ""])
def test_what_is_no_reference_to_a_secret_is_text(value: str) -> None:
    assert value_of(container(env_vars={"KEY": value}), "KEY") == {"name": "KEY", "value": value}


@pytest.mark.parametrize("value", ["secret.", "secret.API_KEY", "secret.x y", "secret.a.", "secret.-a"])
def test_a_misspelt_reference_to_a_secret_is_refused_without_showing_its_value(value: str) -> None:
    with pytest.raises(ValidationError, match="KEY does not name a Secret") as refused:
        build(env_vars={"KEY": value})
    assert refused.value.errors()[0]["type"] == "env-vars/secret"
    assert value not in refused.value.errors()[0]["msg"]


def expanded(text: str) -> str:
    """What a kubelet makes of a value when a variable X exists: `$(X)` is replaced, `$$` is one dollar."""
    result, rest = "", text
    while rest:
        if rest.startswith("$$"):
            result, rest = result + "$", rest[2:]
        elif rest.startswith("$(X)"):
            result, rest = result + "REPLACED", rest[4:]
        else:
            result, rest = result + rest[0], rest[1:]
    return result


@given(st.text("$()Xa"))
def test_a_kubelet_reads_every_value_as_it_was_written(text: str) -> None:
    assert expanded(pods.literal(text)) == text


def test_the_image_fits_the_processor() -> None:
    assert container()["image"] == pods.BUILDER_IMAGE
    assert container(gpu_compatible=True)["image"] == pods.BUILDER_GPU_IMAGE
    assert container(resources={"instance": "gpu.t4.xl"})["image"] == pods.BUILDER_GPU_IMAGE
    assert fetch(gpu_compatible=True)["image"] == pods.BUILDER_IMAGE


def test_an_image_of_the_users_own_gets_the_runtime_from_ours() -> None:
    own = {"base_image": "registry.example.com/base:1", "gpu_compatible": True}

    assert container(**own)["image"] == "registry.example.com/base:1"
    assert container(**own)["command"] == ["python", "-m", "runtime"]
    assert value_of(container(**own), "PYTHONPATH") == {"name": "PYTHONPATH", "value": "/workspace/runtime"}
    assert "--copy-runtime=/workspace/runtime" in fetch(**own)["args"]
    assert value_of(container(), "PYTHONPATH") is None


def test_a_google_key_is_a_file() -> None:
    body = pod(service_account_key_secret_name="google")
    (made,) = body["containers"]

    assert value_of(made, "GOOGLE_APPLICATION_CREDENTIALS")["value"] == "/var/run/secrets/trueup.dev/google/key.json"
    assert {"name": "google", "mountPath": "/var/run/secrets/trueup.dev/google", "readOnly": True} in made[
        "volumeMounts"
    ]
    assert {"name": "google", "secret": {"secretName": "google", "defaultMode": 0o440}} in body["volumes"]


def test_a_queue_admits_the_job_and_nobody_else_owns_suspend() -> None:
    made = job(where=environment(defaults={"queue_name": "builds"}))

    assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "builds"
    assert "kueue.x-k8s.io/queue-name" not in made["spec"]["template"]["metadata"]["labels"]
    assert "suspend" not in made["spec"]


def test_the_pod_goes_where_the_environment_says() -> None:
    defaults = {
        "node_selector": {"pool": "ml"},
        "tolerations": [{"key": "ml", "operator": "Exists"}],
        "image_pull_secrets": ["registry"],
    }
    body = pod(where=environment(defaults=defaults))

    assert body["nodeSelector"] == {"pool": "ml"}
    assert body["tolerations"][0] == {"key": "ml", "operator": "Exists"}
    assert body["imagePullSecrets"] == [{"name": "registry"}]
    assert "nodeSelector" not in pod()
    assert "imagePullSecrets" not in pod()


def test_names_tags_and_time_limits_are_outside_of_the_template_which_is_immutable() -> None:
    changed = job(name="another", tags=["x"], timeout_minutes=5, description="text", push_image=False)

    assert changed["metadata"]["name"] == job()["metadata"]["name"]
    assert changed["spec"]["template"] == job()["spec"]["template"]


def test_a_build_that_is_only_served_here_has_no_job() -> None:
    unit = building(build())
    served = type(unit)(unit.environment, unit.model, builds=unit.builds)

    assert renderer.render(served, NO_FACTS) == []


def test_the_images_have_the_version_of_the_package() -> None:
    assert tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["version"] == pods.VERSION


def test_every_origin_is_the_build_spec() -> None:
    placed: Placed[Any] = build(assumed_iam_role=ROLE)

    assert {manifest.origin for manifest in renderer.render(building(placed), NO_FACTS)} == {placed.origin}
