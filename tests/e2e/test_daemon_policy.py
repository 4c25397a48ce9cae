"""`reconcile run` goes by the rules of the organisation, as they are at the commit that it follows."""

from __future__ import annotations

import pytest

from tests.contract.client import Api
from tests.e2e.daemon import Specs, running, until
from tests.e2e.harness import ELSEWHERE, Plane, build, collection, document, environment, variation
from tests.e2e.test_daemon import events, is_settled

FILE = ".trueup-policy.yaml"
SMALL = """\
- name: small
  kind: variation
  require: spec.deployment.memory == "1Gi"
  message: That is more memory than there is.
  at: deployment.memory
"""
FEW_PODS = """\
- name: few-pods
  kind: change
  when: change.kind == "Deployment" && manifest != null
  require: "!has(manifest.spec.replicas) || manifest.spec.replicas < 3"
  message: That is more pods than we pay for.
"""


RULES = f"api_version: v1\npolicies:\n{SMALL}{FEW_PODS}"
BROKEN = RULES.replace("spec.deployment.memory ==", "spec.deployment.memory =")


def model(name: str, environment: str, **deployment: object) -> str:
    return document(build(f"{name}-1", name), variation(name, "default", environment, build=f"{name}-1", **deployment))


@pytest.mark.usefixtures("plant")
def test_what_a_rule_forbids_is_not_done_in_the_cluster_either(
    any_plane: Plane, api: Api, specs: Specs, prod: str
) -> None:
    def runs() -> dict[str, tuple[int, str]]:
        """By model: the pods that it asks for, and the memory of each."""
        found = {}
        for one in api("GET", collection("Deployment", prod)).body["items"]:
            (container,) = one["spec"]["template"]["spec"]["containers"]
            memory = container["resources"]["requests"]["memory"]
            found[one["metadata"]["name"].partition("-")[0]] = one["spec"]["replicas"], memory
        return found

    specs.write(
        all=document(environment(prod), {"environments": [ELSEWHERE]}), a=model("churn", prod), b=model("fraud", prod)
    )
    with running(any_plane, specs) as daemon:
        until(lambda: is_settled(daemon))
        # A commit of the rules alone is taken up.
        specs.commit({FILE: RULES})
        assert len(until(lambda: daemon.said("the rules have changed"))) == 2

        specs.write(a=model("churn", prod, memory="2Gi"), b=model("fraud", prod, number_of_pods=2))
        until(lambda: runs()["fraud"] == (2, "1Gi"))
        (told,) = daemon.said("a spec is wrong")
        assert told["where"].startswith("specs/a.yaml:")
        assert told["why"] == f"That is more memory than there is ({prod})."
        assert runs()["churn"] == (1, "1Gi")

        specs.write(a=model("churn", prod, number_of_pods=2), b=model("fraud", prod, number_of_pods=3))
        until(lambda: runs()["churn"] == (2, "1Gi"))
        (told,) = until(lambda: daemon.said("a rule forbids changes"))
        assert told["rule"] == "policy/few-pods"
        until(lambda: daemon.metric("trueup_forbidden_changes", environment=prod) == 1)
        assert "Blocked" in until(
            lambda: (said := any_plane.reconcile("status").text) and "we pay for" in said and said
        )
        assert "more pods than we pay for" in until(lambda: events(any_plane, "trueup-system", "Blocked"))
        assert runs()["fraud"] == (2, "1Gi")

        (specs.folder / FILE).write_text(BROKEN)
        specs.write(a=model("churn", prod, memory="2Gi"), b=model("fraud", prod))
        until(lambda: runs()["fraud"] == (1, "1Gi"))
        (told,) = daemon.said("a spec is wrong", rule="policy/not-taken")
        assert told["where"].startswith(f"{FILE}:")
        assert runs()["churn"] == (2, "1Gi")
        assert daemon.stop() == 0
    # Another process goes by the last rules of the branch that could be read, and by the new ones as soon as they can.
    specs.write(b=model("fraud", prod, number_of_pods=2))
    with running(any_plane, specs, name="second") as second:
        until(lambda: runs()["fraud"] == (2, "1Gi"))
        assert runs()["churn"] == (2, "1Gi")
        specs.commit({FILE: f"api_version: v1\npolicies:\n{FEW_PODS}"})
        until(lambda: runs()["churn"] == (1, "2Gi"))
        (told,) = second.said("the rules have changed")
        assert told["what"].startswith("rule small is removed")
