"""`reconcile run`, as it is installed: follows a branch, keeps an environment true, and survives what surrounds it."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.client import Api
from tests.contract.faults import FaultProxy, stall
from tests.contract.plant import Plant
from tests.e2e.daemon import Daemon, Specs, running, until
from tests.e2e.harness import Plane, after, before, collection, document, environment, members, state


def is_settled(daemon: Daemon) -> bool:
    """Everything is as the specs ask for, by the daemon's own account."""
    return daemon.metric("trueup_unsettled_units") == 0 and bool(daemon.metric("trueup_applied_revision_info"))


def writes(daemon: Daemon) -> float:
    return sum(daemon.metric("trueup_api_requests_total", verb=verb) for verb in ("PATCH", "PUT", "POST", "DELETE"))


def events(plane: Plane, namespace: str, reason: str) -> str:
    """The Events with this reason, as kubectl lists them."""
    listed = plane.kubectl("-n", namespace, "get", "events", "--field-selector", f"reason={reason}")
    assert listed.returncode == 0, listed.stderr
    return listed.stdout


def deployment(api: Api, name: str) -> dict[str, Any]:
    (one, *_) = api("GET", collection("Deployment", name)).body["items"]
    return one


def test_it_follows_a_branch_and_ends_where_a_run_of_the_last_commit_ends(
    any_plane: Plane, api: Api, plant: Plant, specs: Specs, prod: str
) -> None:
    specs.write(all=before(prod))
    with running(any_plane, specs) as daemon:
        until(lambda: is_settled(daemon))
        assert any(key.startswith("HTTPRoute/") for key in members(api, prod))
        commit = specs.write(all=after(prod))
        until(lambda: daemon.metric("trueup_applied_revision_info", environment=prod, revision=commit))
        assert daemon.stop() == 0
    ended = state(api, prod)
    any_plane.write("specs/all.yaml", any_plane.placed(after(prod)))
    again = any_plane.reconcile("-f", "specs")
    assert again.code == 0, again.text
    assert state(api, prod) == ended
    assert "Nothing to do" in again.out


def test_drift_is_mended_at_once_and_told_with_who_and_what(
    any_plane: Plane, api: Api, plant: Plant, specs: Specs, prod: str
) -> None:
    specs.write(all=before(prod))
    with running(any_plane, specs) as daemon:
        until(lambda: is_settled(daemon))
        name = deployment(api, prod)["metadata"]["name"]
        edited = any_plane.kubectl("-n", prod, "scale", "deployment", name, "--replicas=3")
        assert edited.returncode == 0, edited.stderr
        path = f"{collection('Deployment', prod)}/{name}"
        until(lambda: api("GET", path).body["spec"]["replicas"] == 1, 5)
        (event,) = until(lambda: daemon.said("drift", object=f"Deployment/{prod}/{name}"))
        assert event["outcome"] == "mended"
        assert event["fields"] == "spec.replicas"
        assert "kubectl" in event["manager"]
        assert event["seconds"] < 1.0
        service = api("GET", collection("Service", prod)).body["items"][0]["metadata"]["name"]
        api("DELETE", f"{collection('Service', prod)}/{service}")
        until(lambda: api("GET", f"{collection('Service', prod)}/{service}").status == 200, 5)
        told = until(lambda: events(any_plane, prod, "DriftMended"))
        assert f"deployment/{name}" in told
        assert "changed spec.replicas; mended" in told


def test_a_pass_in_which_nothing_has_changed_sends_nothing(
    any_plane: Plane, api: Api, plant: Plant, specs: Specs, prod: str
) -> None:
    specs.write(all=before(prod))
    with running(any_plane, specs) as daemon:
        until(lambda: is_settled(daemon))
        time.sleep(3)
        first = writes(daemon)
        asked = daemon.metric("trueup_api_requests_total", verb="GET")
        specs.write(all=before(prod) + "\n# a comment\n")  # a commit that changes nothing
        until(lambda: len(daemon.said("a new revision")) == 2)
        time.sleep(2)
        # The standing tells of the new revision, and so does an Event; that is all.
        assert writes(daemon) - first <= 3
        assert daemon.metric("trueup_api_requests_total", verb="GET") == asked


def test_what_has_drifted_is_only_reported_where_the_environment_says_so(
    any_plane: Plane, api: Api, plant: Plant, specs: Specs, prod: str
) -> None:
    specs.write(all=before(prod).replace(f'"name": "{prod}"', f'"name": "{prod}", "drift": "report"', 1))
    with running(any_plane, specs) as daemon:
        until(lambda: is_settled(daemon))
        name = deployment(api, prod)["metadata"]["name"]
        any_plane.kubectl("-n", prod, "scale", "deployment", name, "--replicas=3")
        (event,) = until(lambda: daemon.said("drift", object=f"Deployment/{prod}/{name}"))
        assert event["outcome"] == "reported"
        time.sleep(1)
        assert api("GET", f"{collection('Deployment', prod)}/{name}").body["spec"]["replicas"] == 3
        # Before that, it may have told of its pods.
        status = until(lambda: (found := any_plane.reconcile("status")) and "spec.replicas" in found.text and found)
        assert name in status.text
        assert "(environment)" not in status.text, "what is suspended has nothing that is still to be done"


def test_the_last_good_revision_stays_while_git_is_away(
    any_plane: Plane, api: Api, plant: Plant, specs: Specs, prod: str
) -> None:
    specs.write(all=before(prod))
    with running(any_plane, specs) as daemon:
        until(lambda: is_settled(daemon))
        specs.hide()
        until(lambda: daemon.said("the repository cannot be followed"))
        name = deployment(api, prod)["metadata"]["name"]
        any_plane.kubectl("-n", prod, "scale", "deployment", name, "--replicas=3")
        until(lambda: api("GET", f"{collection('Deployment', prod)}/{name}").body["spec"]["replicas"] == 1, 5)
        daemon.stop()
        # Another process begins while Git is away, and has what was fetched before.
        with running(any_plane, specs, name="second") as second:
            any_plane.kubectl("-n", prod, "scale", "deployment", name, "--replicas=4")
            until(lambda: api("GET", f"{collection('Deployment', prod)}/{name}").body["spec"]["replicas"] == 1, 20)
            specs.show()
            commit = specs.write(all=after(prod))
            until(lambda: second.metric("trueup_applied_revision_info", environment=prod, revision=commit))


def test_a_broken_spec_stops_deletions_and_nothing_else(
    any_plane: Plane, api: Api, plant: Plant, specs: Specs, prod: str
) -> None:
    specs.write(all=before(prod))
    with running(any_plane, specs) as daemon:
        until(lambda: is_settled(daemon))
        had = members(api, prod).keys()
        extra = document({"audiences": [{"name": "new", "priority": 5, "conditions": {}}]})
        specs.write(all=after(prod), broken="api_version: v1\nspec: [", more=extra)
        until(lambda: "Deployment/fraud-default-" in " ".join(members(api, prod)))
        time.sleep(1)
        assert had <= members(api, prod).keys()
        status = until(lambda: (found := any_plane.reconcile("status")) and "broken.yaml" in found.text and found)
        assert "specs/broken.yaml:" in status.text
        specs.write(broken=None)
        until(lambda: "Deployment/churn-extra" not in " ".join(members(api, prod)))


def test_a_limit_holds_deletions_until_a_person_approves(
    any_plane: Plane, api: Api, plant: Plant, specs: Specs, prod: str
) -> None:
    specs.write(all=before(prod))
    with running(any_plane, specs) as daemon:
        until(lambda: is_settled(daemon))
        had = members(api, prod).keys()
        specs.write(all=document(environment(prod)))
        (event,) = until(lambda: daemon.said("a limit holds deletions"))
        time.sleep(1)
        assert members(api, prod).keys() == had
        status = until(lambda: (found := any_plane.reconcile("status")) and "approve" in found.text and found)
        assert status.code == 4, status.text
        (word,) = set(re.findall(r"reconcile approve ([0-9a-f]{12})", status.text))
        approved = any_plane.reconcile("approve", word, "-e", prod, "--reason", "the model is retired")
        assert approved.code == 0, approved.text
        until(lambda: "Deployment/" not in " ".join(members(api, prod)))
        assert event["environment"] == prod


def test_a_rewound_branch_deletes_nothing_by_itself(
    any_plane: Plane, api: Api, plant: Plant, specs: Specs, prod: str
) -> None:
    first = specs.write(all=document(environment(prod)))
    specs.write(all=before(prod))
    with running(any_plane, specs) as daemon:
        until(lambda: is_settled(daemon))
        had = members(api, prod).keys()
        specs.rewind(first)
        until(lambda: daemon.said("the branch was rewound"))
        time.sleep(1.5)
        assert members(api, prod).keys() == had
        specs.write(all=before(prod), note="api_version: v1\nspec: {}\n")
        until(lambda: is_settled(daemon))


@pytest.fixture
def silent(new_plane: Callable[[], Plane], certificate: Path) -> Iterator[FaultProxy]:
    """The way to another cluster, which takes every request and never answers."""
    over = threading.Event()
    with FaultProxy(new_plane().up().kubeconfig, certificate=certificate) as proxy:
        proxy.inject(stall(over), times=100_000)
        yield proxy
        over.set()


@pytest.mark.usefixtures("plant")
def test_one_cluster_that_never_answers_costs_the_other_nothing(
    any_plane: Plane, api: Api, specs: Specs, prod: str, silent: FaultProxy
) -> None:
    """Two environments in two clusters."""
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "far", "namespace": "trueup-system"},
        "stringData": {"kubeconfig": silent.kubeconfig(any_plane.folder / "other").read_text()},
    }
    api("POST", "/api/v1/namespaces", {"metadata": {"name": "trueup-system"}})
    made = api("POST", "/api/v1/namespaces/trueup-system/secrets", secret)
    assert made.status == 201, made.body
    plane = {"type": "kubernetes", "kubeconfig_secret": "far"}
    far = environment("far", data_plane=plane, object_storage="s3://acme/models")
    specs.write(all=before(prod), far=document(far))
    with running(any_plane, specs, KUBECONFIG=str(any_plane.kubeconfig)) as daemon:
        until(lambda: daemon.metric("trueup_applied_revision_info", environment=prod))
        assert silent.seen, "nobody asked the other cluster"
        name = deployment(api, prod)["metadata"]["name"]
        any_plane.kubectl("-n", prod, "scale", "deployment", name, "--replicas=3")
        (event,) = until(lambda: daemon.said("drift", environment=prod))
        assert event["seconds"] < 1.0
        assert "far" in any_plane.reconcile("status").text


def test_it_is_ready_when_it_has_seen_everything_and_ends_in_order(
    any_plane: Plane, api: Api, plant: Plant, specs: Specs, prod: str
) -> None:
    specs.write(all=before(prod))
    with running(any_plane, specs) as daemon:
        until(lambda: daemon.said("begins"))
        assert daemon.get("/healthz")[0] == 200
        until(lambda: daemon.get("/readyz")[0] == 200)
        assert daemon.get("/nothing")[0] == 404
        page = daemon.get("/")
        assert page[0] == 200
        assert prod in page[1]
        assert daemon.stop() == 0
        assert daemon.said("ends")
