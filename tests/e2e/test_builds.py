"""What serves a build waits for it, and for nothing else; what the report says while it does, and when it fails."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.contract.client import Api, eventually
from tests.e2e.harness import (
    Plane,
    build,
    collection,
    document,
    environment,
    fail_builds,
    forget,
    make_built,
    members,
    variation,
)

#: As the runtime leaves it for whoever looks at the pod.
TESTS_FAILED = {"error": {"step": "tests", "reason": "TestsFailed", "message": "2 of 5 tests failed: test_ages"}}


@pytest.fixture
def api(plane: Plane, name: str) -> Iterator[Api]:
    client = plane.api()
    yield client
    client.close()


def served(*models: str, where: str, built_in: str = "") -> str:
    """Each of these models, built in an environment and served there, or in another one."""
    parts = [build(f"{model}-1", model, environment=built_in or where) for model in models]
    parts += [variation(model, "default", where, build=f"{model}-1") for model in models]
    return document(environment(where), *([environment(built_in)] if built_in else []), *parts)


def kinds(objects: set[str]) -> set[str]:
    return {one.partition("/")[0] for one in objects}


def test_a_model_is_served_by_the_first_run_after_its_build(plane: Plane, api: Api, name: str):
    plane.write("specs/a.yaml", served("churn", where=name))
    first = plane.reconcile()
    assert first.code == 0, "nobody has to do anything: the next run goes on"
    assert "Job" in kinds(first.told("applied"))
    assert kinds(first.told("waiting")) == {"Deployment", "PodDisruptionBudget", "HTTPRoute"}
    assert not first.told("blocked") | first.told("failed")
    (job,) = (key for key in members(api, name) if key.startswith("Job/"))
    assert f"it waits for its build Job/{name}/{job.removeprefix('Job/')}: it has not started" in first.out
    assert "the next run goes on from here" in first.out

    meanwhile = plane.reconcile("--detailed-exitcode")
    assert meanwhile.code == 2
    assert meanwhile.told("waiting") == first.told("waiting")
    assert not meanwhile.told("applied")

    make_built(api, name)
    run = plane.reconcile("--detailed-exitcode")
    assert run.code == 0, run.text
    assert run.told("applied") == first.told("waiting")
    assert plane.reconcile("--detailed-exitcode").out.startswith("Nothing to do: ")


def test_a_run_that_waits_serves_each_model_as_soon_as_it_is_built(plane: Plane, api: Api, name: str):
    models = [f"slow-{number}" for number in range(9)]  # more than there are threads
    plane.write("specs/a.yaml", served("churn", *models, where=name))
    running = plane.start("--wait", "6")
    try:
        eventually(lambda: len([key for key in members(api, name) if key.startswith("Job/")]) == 10)
        make_built(api, name, model="churn")
        eventually(lambda: any(key == "HTTPRoute/churn" for key in members(api, name)), seconds=4)
        out, _ = running.communicate(timeout=30)
    finally:
        running.kill()
        running.wait()
    assert running.returncode == 3, "what was waited for did not come"
    assert "The time to wait is over, and not everything is ready." in out
    assert out.count("HTTPRoute/" + name + "/slow-1") == 1, "nothing is told twice"


def test_it_waits_also_where_another_environment_builds(plane: Plane, api: Api, name: str):
    plane.write("specs/a.yaml", served("churn", where=name, built_in="lab"))
    first = plane.reconcile()
    assert first.code == 0, first.text
    assert "it waits for its build Job/lab/churn-build-" in first.out
    assert "HTTPRoute/churn" in first.told("waiting")
    make_built(api, "lab")
    run = plane.reconcile("--detailed-exitcode")
    assert run.code == 0, run.text
    assert "HTTPRoute/churn" in run.told("applied")
    forget(api, "lab")


def test_a_build_that_fails_is_told_in_the_words_of_its_pod_and_stops_its_own_model_alone(
    plane: Plane, api: Api, name: str
):
    plane.write("specs/a.yaml", served("churn", "fraud", where=name))
    plane.reconcile()
    make_built(api, name, "fraud")
    fail_builds(api, name, "churn", 4, json.dumps(TESTS_FAILED))

    run = plane.reconcile()
    assert run.code == 1, "the model's code is wrong: it is for who wrote it to act"
    assert "its build failed: tests: 2 of 5 tests failed: test_ages\n" in run.out
    assert kinds(run.told("failed")) == {"Deployment"}
    assert "HTTPRoute/churn" in run.told("blocked")
    assert all("churn" in one for one in run.told("failed") | run.told("blocked"))
    assert "HTTPRoute/fraud" in run.told("applied")

    assert plane.kubectl("delete", "jobs", "-n", name, "-l", "app.kubernetes.io/name=churn").returncode == 0
    again = plane.reconcile()
    assert again.code == 0, again.text
    assert kinds(again.told("applied")) == {"Job"}, "deleted by a person, it is tried again"
    make_built(api, name)
    assert "HTTPRoute/churn" in plane.reconcile().told("applied")
    assert plane.reconcile("--detailed-exitcode").code == 0


def test_the_old_build_serves_until_the_new_one_is_made_and_for_good_where_that_fails(
    plane: Plane, api: Api, name: str
):
    def specs(newest: int) -> str:
        builds = [build(f"churn-{n}", "churn", environment=name, env_vars={"N": str(n)}) for n in (1, 2)]
        served_now = variation("churn", "default", name, build=f"churn-{newest}")
        return document(environment(name), *builds[:newest], served_now)

    def serving() -> dict[str, str]:
        """Everything of the model that takes part in an answer, with its version."""
        wanted = ("Deployment/", "Service/", "HTTPRoute/")
        found = members(api, name).items()
        # The Service of the next one may stand already: no route names it.
        return {key: one["metadata"]["resourceVersion"] for key, one in found if key.startswith(wanted)}

    plane.write("specs/a.yaml", specs(1))
    plane.reconcile()
    make_built(api, name)
    plane.reconcile()
    had = serving()
    (old,) = (one["metadata"]["name"] for one in api("GET", collection("Deployment", name)).body["items"])

    plane.write("specs/a.yaml", specs(2))
    early = plane.reconcile("--detailed-exitcode")
    assert early.code == 2, early.text
    assert early.told("waiting") >= {"HTTPRoute/churn", f"Deployment/{old}"}
    assert had.items() <= serving().items()

    fail_builds(api, name, "churn", 3, "")
    failed = plane.reconcile()
    assert failed.code == 1
    assert "its build failed: PodFailurePolicy: container build: Error, exit code 3" in failed.out
    assert not failed.told("deleted")
    assert had.items() <= serving().items()
