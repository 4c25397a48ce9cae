from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import kubernetes_validate
import pytest

from renderers import batch as renderer
from renderers import pods
from renderers.batch import BatchRun, job_name
from renderers.catalog import Catalog, Placed, Recorded, Unit, units
from renderers.identity import identify
from renderers.manifest import Body, ObjectId, Origin
from renderers.notes import Refused
from runtime.__main__ import _parser
from schemas.automation import BatchExecution
from schemas.variation import Variation
from tests.unit.renderers.made import NO_FACTS, ROLE, build, environment, one

RUN = "0a1b2c3d" * 8
NIGHT = datetime(2026, 11, 21, 3, 4, tzinfo=UTC)
ORIGIN = Origin("automations.yaml", 7, "automation", "scores")
CLUSTER = {"data_plane": {"type": "kubernetes"}, "object_storage": "s3://acme-models/production"}
DATA = {"source_bucket": "acme-in", "destination_bucket": "acme-out"}


def unit(deployment: dict[str, Any] | None = None, **fields: Any) -> Unit:
    place = environment(**(CLUSTER | fields))
    made = build()
    served = {"model": "churn", "environments": ["production"], "build": "churn-1", "deployment": deployment or {}}
    variation = Variation.model_validate(served)
    catalog = Catalog(
        environments={place.spec.name: place},
        builds={made.spec.name: made},
        variations={("churn", "default"): Placed(variation, Origin("variations.yaml", 3, "variation", "default"))},
    )
    (_, found) = units(catalog)
    return found


def run(
    *, at: datetime = NIGHT, home: dict[str, Any] | None = None, built: dict[str, Any] | None = None, **spec: Any
) -> BatchRun:
    data = DATA | spec.pop("data", {})
    execution = BatchExecution.model_validate(
        {"data_specifications": data, "execution_specifications": spec.pop("execution", {})} | spec
    )
    made = build(**(built or {}))
    recorded = Recorded(made, identify(made.spec, NO_FACTS), environment(**(home or CLUSTER)).spec)
    return BatchRun(RUN, at, "scores", execution, recorded, ORIGIN)


def job(where: Unit | None = None, **fields: Any) -> Body:
    return one(renderer.render(where or unit(), [run(**fields)]), "Job")


def container(where: Unit | None = None, **fields: Any) -> Body:
    (body,) = job(where, **fields)["spec"]["template"]["spec"]["containers"]
    return body


def variables(where: Unit | None = None, **fields: Any) -> dict[str, Any]:
    return {each["name"]: each.get("value") or each["valueFrom"] for each in container(where, **fields)["env"]}


def test_the_name_of_the_job_is_the_runs() -> None:
    made = job()

    assert made["metadata"]["name"] == job_name("churn", RUN[:8]) == "churn-batch-0a1b2c3d"
    assert made["metadata"]["annotations"]["trueup.dev/run"] == RUN
    assert made["metadata"]["annotations"]["trueup.dev/automation"] == "scores"
    # As an annotation it would say that the build is made by this Job, and its Deployment would wait for it.
    assert "trueup.dev/build" not in made["metadata"]["annotations"]
    assert made["metadata"]["labels"]["trueup.dev/build-id"] == identify(build().spec, NO_FACTS).short


def test_the_name_leaves_room_for_the_index_of_an_executor() -> None:
    assert len(job_name("m" * 63, RUN[:8]) + "-999") <= 63


def test_a_job_needs_its_namespace_and_its_account() -> None:
    (made,) = renderer.render(unit(), [run()])

    assert made.origin == ORIGIN
    assert made.needs == (
        ObjectId("v1", "Namespace", "", "production"),
        ObjectId("v1", "ServiceAccount", "production", "trueup-build"),
    )


def test_the_container_is_told_what_the_runtime_understands() -> None:
    arguments = container(
        execution={"task_timeout": 900, "executors": 3}, data={"input_file_type": "csv", "output_file_type": "feather"}
    )["args"]
    options = _parser().parse_args(arguments)

    assert (options.source, options.destination) == ("s3://acme-in", "s3://acme-out")
    assert (options.input_type, options.output_type) == ("csv", "feather")
    assert (options.run, options.task_timeout, options.executors) == (RUN, 900, 3)
    assert str(options.workspace) == "/workspace"


@pytest.mark.parametrize(
    ("folder", "url"),
    [
        ("/", "s3://acme-in"),
        ("weekly", "s3://acme-in/weekly"),
        ("/weekly/{%Y-%m-%d}/", "s3://acme-in/weekly/2026-11-21"),
        ("{%d-%m-%Y}/{%H:%M}", "s3://acme-in/21-11-2026/03:04"),
        ("{%Y/%m}/a b/100%", "s3://acme-in/2026/11/a%20b/100%25"),
    ],
)
def test_dates_in_the_names_of_folders_are_those_of_the_run(folder: str, url: str) -> None:
    elsewhere = NIGHT.astimezone(timezone(timedelta(hours=-8)))

    for at in (NIGHT, elsewhere):
        assert f"--source={url}" in container(at=at, data={"source_folder": folder})["args"]


@pytest.mark.parametrize(
    "folder", ["a{%Y", "a}", "{{%Y}}", "{%999999999d}", "{%}", "{%Q}", "a//b", "../b", "a/.hidden", "a/{}/b"]
)
def test_a_folder_that_is_none_is_refused(folder: str) -> None:
    with pytest.raises(Refused, match="automation scores") as refused:
        job(data={"destination_folder": folder})

    assert (refused.value.rule, refused.value.origin) == ("batch/folder", ORIGIN)


def test_secrets_of_the_buckets_are_named_and_have_names_of_their_own() -> None:
    named = {
        "access_token_secret_name": "data.key",
        "access_secret_secret_name": "data-secret",
        "session_token_secret_name": "data-token",
    }
    made = variables(data=named, execution={"params": {"TRUEUP_DATA_ACCESS_KEY_ID": "mine", "ROUND_TO": "0"}})

    assert made["TRUEUP_DATA_ACCESS_KEY_ID"] == {"secretKeyRef": {"name": "data.key", "key": "value"}}
    assert made["TRUEUP_DATA_SECRET_ACCESS_KEY"] == {"secretKeyRef": {"name": "data-secret", "key": "value"}}
    assert made["TRUEUP_DATA_SESSION_TOKEN"] == {"secretKeyRef": {"name": "data-token", "key": "value"}}
    assert made["ROUND_TO"] == "0"
    assert not [name for name in made if name.startswith("AWS_")]
    assert not [name for name in variables() if name.startswith("TRUEUP_DATA_")]


def test_variables_are_those_of_the_environment_the_build_the_deployment_and_the_run() -> None:
    where = unit(
        {"env_vars": ["B=deployment", "C=deployment"]}, defaults={"env_vars": ["A=environment", "B=environment"]}
    )
    made = variables(
        where, built={"env_vars": ["D=build"], "parameters": {"depth": "3"}}, execution={"params": {"C": "run"}}
    )

    assert (made["A"], made["B"], made["C"], made["D"]) == ("environment", "deployment", "run", "build")
    assert made["TRUEUP_MODEL"] == "churn"
    assert made["TRUEUP_PARAMETERS"] == '{"depth":"3"}'
    assert made["TRUEUP_ARTIFACT_STORAGE"] == "s3://acme-models/production"
    assert list(made) == sorted(made)


def test_an_artifact_of_another_environment_is_had_from_there() -> None:
    home = {"name": "staging", "object_storage": "s3://acme-models/staging", "data_plane": {"type": "kubernetes"}}

    assert variables(home=home)["TRUEUP_ARTIFACT_STORAGE"] == "s3://acme-models/staging"
    with pytest.raises(Refused, match="keeps its artifacts on one machine"):
        job(home={"name": "laptop"})


@pytest.mark.parametrize(
    ("deployment", "execution", "cpu", "memory", "gpus"),
    [
        ({"cpu_fraction": 1, "memory": "1Gi"}, {}, "1", "1Gi", None),
        ({"cpu_fraction": 1, "memory": "1Gi"}, {"memory": "8Gi"}, "1", "8Gi", None),
        ({"instance": "large"}, {}, "8", "16Gi", None),
        ({"instance": "large"}, {"cpu": 4, "memory": "6Gi"}, "4", "6Gi", None),
        ({"cpu_fraction": 1}, {"instance": "small", "cpu": 9}, "2", "4Gi", None),
        ({"cpu_fraction": 1}, {"gpu_type": "NVIDIA_T4", "gpu_amount": 2}, "6", "28Gi", "2"),
        ({"gpu_resources": {"gpu_type": "NVIDIA_T4"}}, {"gpu_amount": 2}, "6", "28Gi", "2"),
    ],
)
def test_it_gets_what_the_variation_gets_unless_it_asks_for_something_else(
    deployment: dict[str, Any], execution: dict[str, Any], cpu: str, memory: str, gpus: str | None
) -> None:
    made = container(unit(deployment), execution=execution)
    requests = made["resources"]["requests"]

    assert (requests["cpu"], requests["memory"], requests.get("nvidia.com/gpu")) == (cpu, memory, gpus)
    assert made["image"] == (pods.SERVER_GPU_IMAGE if gpus else pods.SERVER_IMAGE)


def test_the_time_for_the_whole_is_the_jobs_own() -> None:
    assert job(execution={"job_timeout": 5400})["spec"]["activeDeadlineSeconds"] == 5400
    assert "activeDeadlineSeconds" not in job()["spec"]


def test_one_executor_is_a_plain_job() -> None:
    spec = job()["spec"]

    assert (spec["completions"], spec["parallelism"], spec["backoffLimit"]) == (1, 1, 2)
    assert "completionMode" not in spec
    assert spec["podFailurePolicy"]["rules"][0]["action"] == "FailJob"


def test_executors_have_an_index_each_and_one_that_fails_keeps_no_other_from_its_files() -> None:
    spec = job(execution={"executors": 8})["spec"]

    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 8, 8)
    assert spec["backoffLimitPerIndex"] == 2
    assert "backoffLimit" not in spec
    assert spec["podFailurePolicy"]["rules"][0]["action"] == "FailIndex"


def test_on_one_machine_one_executor_does_it_all_and_the_plan_says_so() -> None:
    laptop, asked = unit(data_plane={"type": "embedded"}), run(execution={"executors": 8})
    spec = one(renderer.render(laptop, [asked]), "Job")["spec"]

    assert (spec["completions"], "completionMode" in spec) == (1, False)
    (note,) = renderer.notes(laptop, [asked])
    assert note.text == (
        "automation scores asks for 8 executors; on the embedded data plane of production one does it all"
    )
    assert renderer.notes(unit(), [asked]) == []


@pytest.mark.parametrize(
    ("deployment", "execution"), [({}, {"custom_iam_role_arn": ROLE}), ({"custom_iam_role_arn": ROLE}, {})]
)
def test_a_role_of_its_own_or_of_the_deployment_has_an_account(
    deployment: dict[str, Any], execution: dict[str, Any]
) -> None:
    account, made = renderer.render(unit(deployment), [run(execution=execution)])

    assert account.body["metadata"]["annotations"]["eks.amazonaws.com/role-arn"] == ROLE
    assert made.body["spec"]["template"]["spec"]["serviceAccountName"] == account.id.name
    assert account.id in made.needs


def test_an_image_of_ones_own_gets_the_runtime() -> None:
    image = "registry.example/ml:1"
    spec = job(built={"base_image": image})["spec"]["template"]["spec"]

    assert spec["initContainers"][0]["args"] == ["copy", "--into=/workspace/runtime"]
    assert spec["containers"][0]["image"] == image
    assert variables(built={"base_image": image})["PYTHONPATH"] == "/workspace/runtime"
    assert "initContainers" not in job()["spec"]["template"]["spec"]


def test_a_google_key_is_a_file() -> None:
    spec = job(unit({"service_account_key_secret_name": "gcp"}))["spec"]["template"]["spec"]

    assert "google" in {volume["name"] for volume in spec["volumes"]}
    assert "google" in {mount["name"] for mount in spec["containers"][0]["volumeMounts"]}


def test_a_queue_admits_the_job() -> None:
    made = job(unit(defaults={"queue_name": "ml"}))

    assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "ml"


@pytest.mark.parametrize("execution", [{}, {"executors": 4, "job_timeout": 60, "gpu_type": "NVIDIA_T4"}])
def test_what_is_rendered_is_what_kubernetes_takes(execution: dict[str, Any]) -> None:
    version = kubernetes_validate.latest_version()
    for manifest in renderer.render(unit({"custom_iam_role_arn": ROLE}), [run(execution=execution)]):
        kubernetes_validate.validate(manifest.body, version, strict=True)
