"""From nothing to models that are served as the specs say, through changes and mistakes, and down again."""

from __future__ import annotations

import json
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.contract.faults import FaultProxy, answer
from tests.e2e.harness import (
    EXAMPLES,
    REPOSITORY,
    Plane,
    Run,
    after,
    at_once,
    before,
    build,
    collection,
    document,
    environment,
    forget,
    insiders,
    make_built,
    make_ready,
    members,
    places,
    processes_with,
    state,
    variation,
)


def approval(run: Run) -> str:
    """The id that lifts the limits which a run met."""
    (found,) = set(re.findall(r"--approve\s+([0-9a-f]{12})", run.out))
    return str(found)


def changes_of(run: Run) -> list[Any]:
    """What the plan in a JSON report would do, apart from what is suspended."""
    return [one for one in run.data["plan"]["changes"] if one["op"] != "unchanged" and not one["held"]]


class TestTheDataPlane:
    def test_up_twice_is_up_once_and_down_leaves_nothing_that_runs(self, new_plane: Callable[[], Plane]):
        plane = new_plane()
        first, second = (plane.reconcile("up", "--only-api") for _ in range(2))
        assert (first.code, second.code) == (0, 0)
        number = re.search(r"is up \(process (\d+)\)", first.out)
        assert number
        assert f"was up already (process {number[1]})" in second.out
        assert f"export KUBECONFIG={plane.kubeconfig}\n" in first.out
        assert len(processes_with(str(plane.home))) == 1
        assert plane.reconcile("down").out == "The embedded data plane is down.\n"
        assert processes_with(str(plane.home)) == []
        again = plane.reconcile("down")
        assert (again.code, again.out) == (0, "None was up in .trueup.\n")

    def test_what_it_keeps_is_for_its_owner_alone(self, plane: Plane):
        assert stat.S_IMODE(plane.kubeconfig.stat().st_mode) == 0o600
        assert stat.S_IMODE(plane.home.stat().st_mode) == 0o700

    def test_two_that_start_it_at_once_get_the_same_one(self, new_plane: Callable[[], Plane]):
        plane = new_plane()
        runs = at_once([lambda: plane.reconcile("up", "--only-api")] * 2)
        assert [run.code for run in runs] == [0, 0]
        assert sum("was up already" in run.out for run in runs) == 1
        assert len(processes_with(str(plane.home))) == 1
        assert plane.kubectl("get", "namespaces").returncode == 0

    def test_it_is_one_wherever_its_folder_is_named_from(self, new_plane: Callable[[], Plane]):
        plane = new_plane().up()
        assert "was up already" in plane.reconcile("up", "--home", plane.home).out
        assert "was up already" in plane.reconcile("up", TRUEUP_HOME=str(plane.home)).out
        assert plane.reconcile("down", "--home", plane.home).out == "The embedded data plane is down.\n"
        assert processes_with(str(plane.home)) == []

    def test_a_folder_of_the_same_name_where_it_is_started_is_not_run(self, new_plane: Callable[[], Plane]):
        plane = new_plane()
        plane.write("embedded/__main__.py", "raise SystemExit('somebody else')")
        assert plane.reconcile("up", "--only-api").code == 0

    def test_data_are_there_again_after_a_restart(self, new_plane: Callable[[], Plane]):
        plane = new_plane().up()
        plane.write("specs/a.yaml", before("prod"))
        assert plane.reconcile().code == 0
        plane.down()
        plane.up()
        run = plane.reconcile("--detailed-exitcode")
        assert run.code == 0, run.text
        assert run.out.startswith("Nothing to do: ")

    def test_one_that_cannot_start_says_why(self, new_plane: Callable[[], Plane]):
        plane = new_plane()
        plane.write(".trueup/data/objects.db", "this is no database")
        run = plane.reconcile("up", "--only-api")
        assert run.code == 3
        assert run.err.startswith("reconcile: the embedded data plane did not start; its last words in ")
        assert len(run.err.splitlines()) == 1
        shutil.rmtree(plane.home)

    def test_a_folder_that_cannot_be_made_is_told(self, new_plane: Callable[[], Plane]):
        run = new_plane().reconcile("up", "--home", "/dev/null/trueup")
        assert run.code == 3
        assert run.err.startswith("reconcile: /dev/null/trueup: Not a directory")
        assert len(run.err.splitlines()) == 1

    def test_without_one_a_run_names_the_command_that_starts_it(self, new_plane: Callable[[], Plane]):
        plane = new_plane()
        plane.write("specs/a.yaml", before("prod"))
        run = plane.reconcile()
        assert run.code == 3
        assert "reconcile up" in run.out


def test_the_examples_are_reconciled_and_then_there_is_nothing_to_do(new_plane: Callable[[], Plane]):
    """As `make run` does it."""
    plane = new_plane().up()
    repository = plane.home / "models.git"
    subprocess.run([sys.executable, EXAMPLES / "make_repository.py", repository], check=True, capture_output=True)
    options = ("-f", EXAMPLES / "specs", "--mirror", f"{REPOSITORY}=file://{repository}")
    first = plane.reconcile(*options)
    assert (first.code, first.err) == (0, ""), first.text
    assert len(first.told("applied")) > 20
    assert {one.partition("/")[0] for one in first.told("waiting")} == {"Deployment"}
    assert not first.told("failed") | first.told("blocked")

    api = plane.api()
    for namespace in ("staging", "acme-health"):
        make_built(api, namespace)
    api.close()
    second = plane.reconcile(*options, "--detailed-exitcode")
    assert second.code == 0, second.text
    assert second.told("applied") == first.told("waiting")

    third = plane.reconcile(*options, "--detailed-exitcode")
    assert third.code == 0, third.text
    assert not third.told("applied")
    assert "Done: nothing was left to do." in third.out

    shown = plane.kubectl("get", "deployments,jobs,httproutes", "-A", "-o", "name")
    assert shown.returncode == 0, shown.stderr
    assert "deployment.apps/screening-edge-" in shown.stdout
    assert "job.batch/screening-build-" in shown.stdout
    assert "httproute.gateway.networking.k8s.io/screening\n" in shown.stdout
    # The embedded data plane does not scale, but it knows the kind.
    assert plane.kubectl("get", "scaledobjects", "-A").returncode == 0
    namespaces = plane.kubectl("get", "namespaces", "-o", "name").stdout.split()
    assert {"namespace/staging", "namespace/acme-health"} <= set(namespaces)
    assert "namespace/acme-trials" not in namespaces, "it is suspended"


class TestAChange:
    def test_of_one_field_is_shown_made_and_then_there(self, plane: Plane, name: str):
        plane.write("specs/a.yaml", before(name))
        plane.reconcile()
        plane.write("specs/a.yaml", before(name).replace('"number_of_pods": 1', '"number_of_pods": 3', 1))
        preview = plane.reconcile("--dry-run", "--live", "--detailed-exitcode", "-o", "json")
        assert preview.code == 2
        (change,) = changes_of(preview)
        assert (change["op"], change["object"]["kind"]) == ("change", "Deployment")
        assert change["fields"] == [{"path": "spec.replicas", "old": 1, "new": 3}]
        assert change["origin"]["file"] == "specs/a.yaml"
        shown = plane.reconcile("--dry-run", "--live")
        assert "        spec.replicas: 1 -> 3\n" in shown.out
        run = plane.reconcile()
        assert run.told("applied") == {f"Deployment/{change['object']['name']}"}
        assert plane.reconcile("--detailed-exitcode").code == 0
        api = plane.api()
        assert members(api, name)[f"Deployment/{change['object']['name']}"]["spec"]["replicas"] == 3
        api.close()

    def test_a_preview_changes_nothing(self, plane: Plane, name: str):
        plane.write("specs/a.yaml", before(name))
        assert plane.reconcile("--dry-run", "--live", "--detailed-exitcode").code == 2
        api = plane.api()
        assert api("GET", f"/api/v1/namespaces/{name}").status == 404
        plane.reconcile()
        has = state(api, name)
        plane.write("specs/a.yaml", after(name))
        assert plane.reconcile("--dry-run", "--live", "--detailed-exitcode").code == 2
        assert state(api, name) == has
        api.close()

    def test_with_every_sort_of_change_ends_as_if_it_had_been_so_from_the_start(self, plane: Plane, name: str):
        api = plane.api()
        plane.write("specs/a.yaml", after(name))
        plane.reconcile()
        wanted = state(api, name)
        forget(api, name)
        plane.write("specs/a.yaml", before(name))
        plane.reconcile()
        plane.write("specs/a.yaml", after(name))
        run = plane.reconcile()
        assert run.code == 0, run.text
        assert {one.partition("/")[0] for one in run.told("deleted")} == {
            "Deployment",
            "Job",
            "PodDisruptionBudget",
            "Service",
        }
        assert state(api, name) == wanted
        api.close()

    def test_of_the_build_moves_traffic_only_when_the_new_pods_answer(self, plane: Plane, name: str):
        def specs(number: int) -> str:
            builds = [build(f"churn-{n}", "churn", env_vars={"N": str(n)}) for n in (1, 2)]
            return document(environment(name), *builds, variation("churn", "default", name, build=f"churn-{number}"))

        api = plane.api()

        def backends() -> list[str]:
            route = api("GET", f"{collection('HTTPRoute', name)}/churn").body
            return [one["name"] for rule in route["spec"]["rules"] for one in rule["backendRefs"]]

        def deployments() -> list[str]:
            return [one["metadata"]["name"] for one in api("GET", collection("Deployment", name)).body["items"]]

        plane.write("specs/a.yaml", specs(1))
        plane.reconcile()
        (old,) = deployments()
        assert set(backends()) == {old}

        plane.write("specs/a.yaml", specs(2))
        early = plane.reconcile("--detailed-exitcode")
        assert early.code == 2, early.text
        assert early.told("waiting") >= {"HTTPRoute/churn", f"Deployment/{old}"}
        assert set(backends()) == {old}
        assert len(deployments()) == 2

        make_ready(api, name)
        run = plane.reconcile("--detailed-exitcode")
        assert run.code == 0, run.text
        (new,) = deployments()
        assert new != old
        assert set(backends()) == {new}
        api.close()

    def test_that_somebody_made_by_hand_is_taken_back(self, plane: Plane, name: str):
        plane.write("specs/a.yaml", before(name))
        plane.reconcile()
        plane.kubectl("scale", "-n", name, "deployment", "--all", "--replicas=7")
        run = plane.reconcile()
        assert len(run.told("applied")) == 2
        assert "spec.replicas: 7 -> 1" in run.out
        assert "over from kubectl" in run.out


class TestDeletion:
    def test_a_removed_spec_takes_its_objects_along(self, plane: Plane, name: str):
        parts = [environment(name), *(build(f"{m}-1", m) for m in ("churn", "fraud"))]
        served = [variation(m, "default", name, build=f"{m}-1") for m in ("churn", "fraud")]
        plane.write("specs/a.yaml", document(*parts, *served))
        plane.reconcile()
        plane.write("specs/a.yaml", document(*parts, served[0]))
        guarded = plane.reconcile()
        assert guarded.code == 4
        assert "nobody would answer predictions of fraud any more" in guarded.out
        run = plane.reconcile("--approve", approval(guarded))
        assert run.code == 0, run.text
        kinds = {one.partition("/")[0] for one in run.told("deleted")}
        assert {"Deployment", "Service", "HTTPRoute"} <= kinds
        assert all("fraud" in one for one in run.told("deleted"))
        assert plane.reconcile("--detailed-exitcode").code == 0

    def test_of_much_waits_for_the_approval_of_exactly_this_plan(self, plane: Plane, name: str):
        api = plane.api()
        plane.write("specs/a.yaml", before(name))
        plane.reconcile()
        has = state(api, name)
        plane.write("specs/a.yaml", document(environment(name)))
        guarded = plane.reconcile()
        assert guarded.code == 4
        assert state(api, name) == has
        assert plane.reconcile("--approve", "0123456789ab").code == 4
        assert state(api, name) == has
        run = plane.reconcile("--approve", approval(guarded))
        assert run.code == 0, run.text
        assert not run.told("applied")
        assert len(run.told("deleted")) == 9
        assert {one.partition("/")[0] for one in members(api, name)} == set(state(api, name)["inventory"])
        assert "Deployment" not in places(api, name)
        assert plane.reconcile("--detailed-exitcode").code == 0
        api.close()

    def test_a_wrong_path_deletes_nothing(self, plane: Plane, name: str):
        api = plane.api()
        plane.write("specs/a.yaml", before(name))
        plane.reconcile()
        has = state(api, name)
        plane.write("other/a.yaml", document(environment("other"), insiders()))
        (plane.folder / "empty").mkdir(exist_ok=True)
        for path, code, words in (
            ("spec", 1, "[source/not-found]"),
            ("empty", 1, "[source/no-specs]"),
            ("other", 4, f"all 15 objects of {name} would be deleted, because no spec names the environment any more"),
        ):
            run = plane.reconcile("-f", path)
            assert run.code == code, run.text
            assert words in " ".join(run.out.split())
            assert state(api, name) == has
        forget(api, "other")
        api.close()

    def test_a_renamed_folder_changes_nothing(self, plane: Plane, name: str):
        plane.write("old/a/b.yaml", before(name))
        plane.reconcile("-f", "old")
        (plane.folder / "old").rename(plane.folder / "new")
        run = plane.reconcile("-f", "new", "--detailed-exitcode")
        assert run.code == 0, run.text
        assert run.out.startswith("Nothing to do: 16 objects as the specs ask for (8 in suspended environments).\n")
        shutil.rmtree(plane.folder / "new")

    def test_the_specs_of_an_environment_that_is_gone_are_asked_about(self, plane: Plane, name: str):
        plane.write("specs/a.yaml", before(name))
        plane.write("specs/b.yaml", document(environment("second")))
        plane.reconcile()
        (plane.folder / "specs/b.yaml").unlink()
        guarded = plane.reconcile()
        assert guarded.code == 4
        run = plane.reconcile("--approve", approval(guarded))
        assert run.code == 0, run.text
        api = plane.api()
        assert set(members(api, "second")) == {"Namespace/second"}, "a namespace is deleted by people"
        forget(api, "second")
        api.close()


class TestMistakes:
    def test_one_bad_spec_stops_neither_the_others_nor_deletes_anything(self, plane: Plane, name: str):
        api = plane.api()
        plane.write("specs/a.yaml", before(name))
        plane.reconcile()
        route = api("GET", f"{collection('HTTPRoute', name)}/churn").body
        served = {key for key in members(api, name) if key.startswith(("Deployment", "Service/"))}
        # The file that says how churn is served breaks, while somebody else adds a model.
        plane.write("specs/a.yaml", before(name).replace('"weight": 60', '"weight": sixty'))
        plane.write(
            "specs/b.yaml", document(build("fraud-1", "fraud"), variation("fraud", "default", name, build="fraud-1"))
        )
        run = plane.reconcile()
        (plane.folder / "specs/b.yaml").unlink()
        assert run.code == 1
        assert re.search(r"^specs/a.yaml:\d+:\d+: error: weight must be ", run.out, re.MULTILINE)
        assert "HTTPRoute/fraud" in run.told("applied")
        assert not run.told("deleted")
        now = members(api, name)
        assert served <= now.keys()
        assert now["HTTPRoute/churn"]["metadata"]["resourceVersion"] == route["metadata"]["resourceVersion"]
        api.close()

    def test_shares_that_do_not_sum_to_100_leave_the_traffic_as_it_is(self, plane: Plane, name: str):
        api = plane.api()
        plane.write("specs/a.yaml", before(name))
        plane.reconcile()
        has = state(api, name)
        plane.write("specs/a.yaml", before(name).replace('"weight": 60', '"weight": 50'))
        run = plane.reconcile()
        assert run.code == 1
        assert "90" in run.out
        assert state(api, name) == has
        api.close()

    def test_a_cluster_that_cannot_be_reached_ends_with_3_and_says_which_environment(
        self, plane: Plane, name: str, tmp_path: Path
    ):
        plane.write("specs/a.yaml", before(name))
        with FaultProxy(plane.kubeconfig) as proxy:
            proxy.inject(answer(401, {"kind": "Status", "message": "Unauthorized", "code": 401}), times=1000)
            run = plane.reconcile("--kubeconfig", proxy.kubeconfig(tmp_path / "kubeconfig"))
        assert run.code == 3
        assert f"! environments elsewhere, {name}: " in run.out
        assert "Log in to the cluster again" in run.out

    def test_one_environment_that_is_away_does_not_stop_another(self, plane: Plane, name: str):
        elsewhere = {"data_plane": {"type": "kubernetes", "context": "nowhere"}, "object_storage": "s3://models/away"}
        plane.write("specs/a.yaml", before(name))
        plane.write("specs/b.yaml", document(environment("away", **elsewhere)))
        run = plane.reconcile()
        (plane.folder / "specs/b.yaml").unlink()
        assert run.code == 3
        assert "! environment away: " in run.out
        assert len(run.told("applied")) == 16

    def test_a_branch_that_git_cannot_resolve_makes_its_model_wait_and_no_other(self, plane: Plane, name: str):
        parts = [environment(name), build("churn-1", "churn"), variation("churn", "default", name, build="churn-1")]
        edge = [
            build("fraud-edge", "fraud", git_branch="main"),
            variation("fraud", "default", name, build="fraud-edge"),
        ]
        plane.write("specs/a.yaml", document(*parts, *edge))
        run = plane.reconcile("--mirror", f"{REPOSITORY}=file://{plane.folder}/nowhere.git")
        assert run.code == 3
        assert f"! fraud in {name}: " in run.out
        assert "HTTPRoute/churn" in run.told("applied")
        assert not any("fraud" in one for one in run.told("applied"))


class TestReports:
    def test_json_is_one_document_that_fits_its_schema(self, plane: Plane, name: str):
        import jsonschema

        plane.write("specs/a.yaml", before(name))
        published = json.loads(plane.reconcile("schema", "plan").out)
        run = plane.reconcile("-o", "json")
        jsonschema.validate(run.data, published)
        assert run.data["exit_code"] == run.code == 0
        assert {one["outcome"] for one in run.data["results"]} == {"applied"}
        assert len(run.data["results"]) == len(changes_of(run)) == 16
        as_yaml = plane.reconcile("-o", "yaml")
        jsonschema.validate(yaml.safe_load(as_yaml.out), published)

    def test_the_exit_code_in_the_document_is_that_of_the_process(self, plane: Plane, name: str):
        plane.write("specs/a.yaml", before(name))
        preview = plane.reconcile("--dry-run", "--live", "--detailed-exitcode", "-o", "json")
        assert preview.code == 2
        assert preview.data["exit_code"] == 2
