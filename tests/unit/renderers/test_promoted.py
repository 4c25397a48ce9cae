"""What was promoted, as it is rendered: two builds of one variation, runs of automations, where a model has a unit."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import renderers
from renderers import autoscaling, monitoring, routing
from renderers import build as builds
from renderers import serving as pods
from renderers.catalog import (
    Catalog,
    Facts,
    Placed,
    Recorded,
    Stood,
    Unit,
    automation_environment,
    promotion_order,
    units,
    variations,
)
from renderers.identity import build_id, identify
from renderers.manifest import Body, Manifest, Origin
from renderers.notes import Refused
from renderers.routing import WEIGHT_TOTAL
from schemas.automation import Automation
from schemas.build import Build
from tests.unit.renderers.made import COMMIT, NO_FACTS, build, environment, one
from tests.unit.renderers.made_serving import audience as made_audience
from tests.unit.renderers.made_serving import cluster, header, implied_by_an_automation, serving, variation

AUTOMATION = Origin("automations.yaml", 3, "automation", "nightly")


def recorded(run: str, home: Any = None, **fields: Any) -> Recorded:
    """A run of the automation nightly."""
    known = {"git_uri": "https://github.com/acme/models.git#churn"} | fields
    spec = Build.model_construct(**dict(build(**known).spec) | {"name": "Nightly run"})
    identity = build_id(spec, "churn", COMMIT, run=f"nightly@{run}")
    return Recorded(Placed(spec, AUTOMATION), identity, (home or cluster()).spec)


OLD, NEW = recorded("old"), recorded("new")


def stands(*stood: tuple[Recorded, int], name: str = "default") -> Facts:
    return Facts(stands={("production", "churn", name): tuple(Stood(*one) for one in stood)})


def automated(name: str = "default", **fields: Any) -> Any:
    return variation(name, automation="nightly", **fields)


def kinds(manifests: list[Manifest]) -> list[str]:
    return [manifest.id.kind for manifest in manifests]


def rules(unit: Unit, facts: Facts) -> dict[str, Any]:
    return {rule["name"]: rule for rule in one(routing.render(unit, facts), "HTTPRoute")["spec"]["rules"]}


def weights(rule: Any) -> list[tuple[str, int]]:
    """(variation and build, weight) of each backend."""
    return [(backend["name"].removeprefix("churn-"), backend["weight"]) for backend in rule["backendRefs"]]


def called(recorded: Recorded, name: str = "default") -> str:
    return f"{name}-{recorded.identity.short}"


# --- pods --------------------------------------------------------------------------------------------------------


def test_the_new_build_stands_beside_the_current_one_before_it_gets_any_traffic() -> None:
    unit, facts = serving(automated()), stands((OLD, 100), (NEW, 0))
    manifests = pods.render(unit, facts)

    assert [manifest.id.name for manifest in manifests if manifest.id.kind == "Deployment"] == [
        f"churn-{called(OLD)}",
        f"churn-{called(NEW)}",
    ]
    assert kinds(manifests).count("PodDisruptionBudget") == 2
    assert pods.notes(unit, facts) == []


def test_a_promotion_restarts_nothing() -> None:
    """Nothing of a build's own objects says what share it has, or which of the two it is."""
    unit = serving(automated())

    def of_the_new_one(facts: Facts) -> list[Body]:
        return [m.body for m in pods.render(unit, facts) if m.id.name.endswith(NEW.identity.short)]

    seen = [of_the_new_one(stands(*stood)) for stood in [((OLD, 100), (NEW, 0)), ((OLD, 5), (NEW, 95)), ((NEW, 100),)]]
    assert len(seen[0]) == 3
    assert seen[0] == seen[1] == seen[2]


def test_a_promoted_build_is_served_as_the_spec_would_have_served_it() -> None:
    unit, placed = serving(variation()), build()
    same = Recorded(placed, identify(placed.spec, NO_FACTS), unit.environment.spec)

    assert renderers.render(unit, stands((same, 100))) == renderers.render(unit, NO_FACTS)


def test_what_was_promoted_wins_over_the_build_that_the_spec_names() -> None:
    names = {m.id.name for m in pods.render(serving(variation()), stands((OLD, 100))) if m.id.kind == "Service"}

    assert names == {f"churn-{called(OLD)}"}


@pytest.mark.parametrize("facts", [NO_FACTS, stands()])
def test_a_variation_by_automation_is_not_served_before_a_build_was_promoted(facts: Facts) -> None:
    unit = implied_by_an_automation()

    assert renderers.render(unit, facts) == []
    (note,) = renderers.notes(unit, facts)
    assert note.text.endswith("is not served in production: automation nightly has promoted no build there yet")


def test_a_build_of_a_spec_that_still_has_to_be_promoted_is_not_served_either() -> None:
    unit = serving(variation())

    assert kinds(renderers.render(unit, stands())) == ["Job"]
    (note,) = pods.notes(unit, stands())
    assert note.text.endswith("is not served in production: build churn-1 was not promoted there yet")


def test_artifacts_are_read_where_the_build_was_made() -> None:
    staging = cluster(name="staging", object_storage="s3://acme-models/staging")
    facts = stands((recorded("old", staging), 100))
    (container,) = one(pods.render(serving(automated()), facts), "Deployment")["spec"]["template"]["spec"]["containers"]

    env = {item["name"]: item.get("value") for item in container["env"]}
    assert env["TRUEUP_ARTIFACT_STORAGE"] == "s3://acme-models/staging"
    assert env["TRUEUP_OBJECT_STORAGE"] == "s3://acme-models/production"


def test_an_artifact_on_one_machine_is_out_of_a_clusters_reach() -> None:
    facts = stands((recorded("old", environment(name="laptop")), 100))

    with pytest.raises(Refused, match="built in laptop, which keeps its artifacts on one machine") as caught:
        pods.render(serving(automated()), facts)
    assert "`environment: production` in the automation" in caught.value.hint


def test_each_build_is_scaled_by_itself_and_what_is_said_of_them_is_said_once() -> None:
    trigger = {"metric_type": "latency", "aggregation_type": "p99", "time_period": 2, "threshold": 60}
    unit = serving(automated(deployment={"auto_scale_config": {"max_replica_count": 5, "prometheus_trigger": trigger}}))
    facts = stands((OLD, 75), (NEW, 25))

    scaled = [m.id.name for m in autoscaling.render(unit, facts)]
    assert scaled == [f"churn-{called(OLD)}", f"churn-{called(NEW)}"]
    told = autoscaling.notes(unit, facts)
    assert len(told) == len(set(told))


def test_nobody_is_called_for_a_build_that_gets_no_traffic() -> None:
    def watched(*stood: tuple[Recorded, int]) -> list[str]:
        rules = one(monitoring.render(serving(automated()), stands(*stood)), "PrometheusRule")["spec"]["groups"][0]
        assert [rule["alert"] for rule in rules["rules"]].count("TrueupLatency") == 1
        (unavailable,) = [rule["expr"] for rule in rules["rules"] if rule["alert"] == "TrueupUnavailable"]
        return [name for name in (called(OLD), called(NEW)) if name in unavailable]

    assert watched((OLD, 100), (NEW, 0)) == [called(OLD)]
    assert watched((OLD, 95), (NEW, 5)) == [called(OLD), called(NEW)]


# --- traffic -----------------------------------------------------------------------------------------------------


def test_a_step_gives_the_new_build_its_percent_of_the_variations_own_share() -> None:
    unit = serving(automated("a", traffic=[{"weight": 40}]), variation("b", traffic=[{"weight": 60}]))
    made = rules(unit, stands((OLD, 75), (NEW, 25), name="a"))

    assert weights(made["everybody"])[:2] == [(called(OLD, "a"), 3000), (called(NEW, "a"), 1000)]
    assert weights(made["everybody"])[2][1] == 6000
    assert weights(made["variation-a"]) == [(called(OLD, "a"), 7500), (called(NEW, "a"), 2500)]


def test_a_route_does_not_wait_for_a_build_that_gets_nothing_yet() -> None:
    (manifest,) = routing.render(serving(automated()), stands((OLD, 100), (NEW, 0)))

    assert weights(manifest.body["spec"]["rules"][0]) == [(called(OLD), 10_000)]
    assert not [needed for needed in manifest.needs if needed.name.endswith(NEW.identity.short)]


def test_the_current_build_stays_named_so_that_the_way_back_waits_for_nothing() -> None:
    (manifest,) = routing.render(serving(automated()), stands((OLD, 0), (NEW, 100)))

    assert weights(manifest.body["spec"]["rules"][0]) == [(called(OLD), 0), (called(NEW), 10_000)]
    deployments = [needed.name for needed in manifest.needs if needed.kind == "Deployment"]
    assert deployments == [f"churn-{called(NEW)}"]


def test_a_first_build_that_is_not_ready_yet_leaves_the_requests_to_the_others() -> None:
    unit = serving(automated("a", traffic=[{"weight": 40}]), variation("b", traffic=[{"weight": 60}]))
    made = rules(unit, stands((NEW, 0), name="a"))

    assert list(made) == ["variation-b", "everybody"]
    assert [weight for _, weight in weights(made["everybody"])] == [10_000]
    assert routing.render(serving(automated()), stands((NEW, 0))) == []


@pytest.mark.parametrize(("percent", "copied"), [(0, OLD), (25, OLD), (50, OLD), (75, NEW), (100, NEW)])
def test_copies_go_to_the_build_with_more_traffic(percent: int, copied: Recorded) -> None:
    unit = serving(variation("main", traffic=[{}]), automated("observer", traffic=[{"shadow": True}]))
    made = rules(unit, stands((OLD, 100 - percent), (NEW, percent), name="observer"))

    mirrors = [f["requestMirror"] for f in made["everybody"]["filters"] if f["type"] == "RequestMirror"]
    assert [mirror["backendRef"]["name"] for mirror in mirrors] == [f"churn-{called(copied, 'observer')}"]


def test_a_canary_keeps_users_from_before_its_first_step_to_its_last() -> None:
    """A policy that came and went with each canary would move everybody's users twice."""
    where = cluster("envoy-gateway", gateway={
        "name": "ml", "namespace": "gateways", "controller": "envoy-gateway", "sticky_header": "user",
    })  # fmt: skip
    unit = serving(automated(rollout={"canary": {"steps": [{"weight": 5}]}}), where=where)

    for stood in [((OLD, 100),), ((OLD, 95), (NEW, 5)), ((OLD, 0), (NEW, 100)), ((NEW, 100),)]:
        assert kinds(routing.render(unit, stands(*stood))) == ["BackendTrafficPolicy", "HTTPRoute"]
    alone = serving(automated(), where=where)
    assert kinds(routing.render(alone, stands((OLD, 100)))) == ["HTTPRoute"]


VIP = made_audience("vip", header("plan", "gold"))
PERCENTS = st.integers(0, 100)


@st.composite
def splits(draw: st.DrawFn) -> list[int]:
    """Percents of three variations that sum to 100."""
    first = draw(PERCENTS)
    second = draw(st.integers(0, 100 - first))
    return [first, second, 100 - first - second]


def intervals(rule: Any) -> dict[str, tuple[int, int]]:
    """Backend -> its part of all users, as a gateway has it that pins them by a hash."""
    found, start = {}, 0
    for name, weight in weights(rule):
        found[name] = (start, start + weight)
        start += weight
    return found


@given(
    everybody=splits(),
    vips=splits(),
    absent=st.sets(st.sampled_from("abc"), max_size=2),
    steps=st.dictionaries(st.sampled_from("abc"), st.tuples(PERCENTS, PERCENTS)),
)
def test_no_step_moves_a_user_between_variations_or_back_to_the_old_build(
    everybody: list[int], vips: list[int], absent: set[str], steps: dict[str, tuple[int, int]]
) -> None:
    unit = serving(
        *(
            automated(name, traffic=[{"weight": weight}, {"audience": "vip", "weight": vip}])
            for name, weight, vip in zip("abc", everybody, vips, strict=True)
        ),
        audiences=(VIP,),
    )

    def routed(step: int | None) -> dict[str, Any]:
        stood = {
            ("production", "churn", name): (Stood(OLD, 100),)
            if step is None or name not in steps
            else (Stood(OLD, 100 - sorted(steps[name])[step]), Stood(NEW, sorted(steps[name])[step]))
            for name in "abc"
            if name not in absent
        }
        return rules(unit, Facts(stands=stood))

    before, earlier, later = routed(None), routed(0), routed(1)
    assert before.keys() == earlier.keys() == later.keys()
    for rule in before:
        at_first, then, at_last = (intervals(made[rule]) for made in (before, earlier, later))
        assert sum(weight for _, weight in weights(later[rule])) == WEIGHT_TOTAL
        for name in set("abc") - absent:
            old, new = called(OLD, name), called(NEW, name)
            if old not in at_first:
                continue
            start, end = at_first[old]
            for made in (then, at_last):
                assert made[old][0] == start
                assert made.get(new, made[old])[1] == end, "a variation keeps its stretch of the users"
            if new in then:
                assert at_last[new][0] <= then[new][0], "who has the new build keeps it"


# --- Jobs --------------------------------------------------------------------------------------------------------


def jobs(unit: Unit, *runs: Recorded) -> list[Body]:
    facts = Facts(runs={("production", "churn"): runs})
    return [manifest.body for manifest in builds.render(unit, facts) if manifest.id.kind == "Job"]


def test_a_run_of_an_automation_has_a_job_under_its_recorded_id() -> None:
    (job,) = jobs(implied_by_an_automation(), NEW)

    assert job["metadata"]["name"] == f"churn-build-{NEW.identity.short}"
    annotations = job["metadata"]["annotations"]
    assert annotations["trueup.dev/build"] == NEW.identity.id
    assert annotations["trueup.dev/spec"] == "automation/nightly"
    assert annotations["trueup.dev/commit"] == COMMIT


def test_one_run_does_not_take_the_place_of_another() -> None:
    first, second = jobs(implied_by_an_automation(), OLD, NEW)

    assert first["metadata"]["name"] != second["metadata"]["name"]
    assert not any("trueup.dev/lineage" in job["metadata"]["annotations"] for job in (first, second))


def test_a_run_that_makes_what_a_spec_asks_for_as_well_is_made_once() -> None:
    placed = build()
    same = Recorded(Placed(placed.spec, AUTOMATION), identify(placed.spec, NO_FACTS), environment().spec)

    (job,) = jobs(serving(variation()), same)
    assert job["metadata"]["annotations"]["trueup.dev/spec"] == "build/churn-1"


def test_a_run_with_a_role_of_its_own_has_an_account() -> None:
    run = recorded("new", assumed_iam_role="arn:aws:iam::123456789012:role/churn")
    manifests = builds.render(implied_by_an_automation(), Facts(runs={("production", "churn"): (run,)}))

    assert kinds(manifests) == ["ServiceAccount", "Job"]
    assert manifests[1].needs[1] == manifests[0].id


# --- where a model has a unit ------------------------------------------------------------------------------------

STAGING, PRODUCTION = environment(name="staging"), environment(name="production", promote_after=["staging"])


def automation(**fields: Any) -> Placed[Automation]:
    known = {"name": "nightly", "model": "churn", "trigger": "manual"}
    if "batch_execution" not in fields:
        known["build_spec"] = {"git_uri": "https://github.com/acme/models.git#churn"}
    return Placed(Automation.model_validate(known | fields), AUTOMATION)


def catalog(*automations: Placed[Automation], served_in: tuple[str, ...] = ()) -> Catalog:
    known = variation(automation="nightly", environments=list(served_in)) if served_in else None
    return Catalog(
        environments={"staging": STAGING, "production": PRODUCTION},
        variations={("churn", "default"): known} if known else {},
        automations={placed.spec.name: placed for placed in automations},
    )


def builds_in(*automations: Placed[Automation], served_in: tuple[str, ...] = ()) -> str:
    made = catalog(*automations, served_in=served_in)
    return automation_environment(made, automations[0].spec, promotion_order(made))


BATCH = {
    "variation": "default",
    "data_specifications": {"source_bucket": "acme-in", "destination_bucket": "acme-out"},
}


def test_an_automation_builds_where_it_says_or_in_the_first_of_its_environments() -> None:
    assert builds_in(automation(environment="production")) == "production"
    assert builds_in(automation()) == "staging"
    assert builds_in(automation(deployment_spec={})) == "staging"
    assert builds_in(automation(deployment_spec={"environments": ["production"]})) == "production"
    assert builds_in(automation(deployment_spec={"environments": ["production", "staging"]})) == "staging"
    assert builds_in(automation(deployment_spec={}), served_in=("production",)) == "production"


def test_a_batch_runs_where_its_variation_is_served() -> None:
    batch = automation(name="scores", batch_execution=BATCH)
    trains = automation(deployment_spec={"environments": ["production"]})

    assert builds_in(batch, served_in=("production",)) == "production"
    assert builds_in(batch, trains) == "production", "an implied variation counts as well"
    assert builds_in(batch) == "staging"


def test_variations_that_automations_imply_are_among_all() -> None:
    made = catalog(automation(deployment_spec={"variation_name": "next", "environments": ["staging", "production"]}))
    (found,) = variations(made, promotion_order(made)).values()

    assert (found.spec.name, found.spec.environments, found.origin) == ("next", ("staging", "production"), AUTOMATION)


def places(made: Catalog, facts: Facts = NO_FACTS) -> list[str]:
    return [unit.environment.spec.name for unit in units(made, facts) if unit.model]


def test_a_model_has_a_unit_where_it_is_built_although_it_is_served_nowhere() -> None:
    assert places(catalog(automation(environment="staging"))) == ["staging"]
    assert places(catalog(automation(environment="staging", deployment_spec={"environments": ["production"]}))) == [
        "staging",
        "production",
    ]


def test_a_run_that_goes_on_keeps_the_unit_of_an_automation_that_is_gone() -> None:
    facts = Facts(runs={("production", "churn"): (NEW,), ("elsewhere", "churn"): (OLD,)})

    assert places(catalog(), facts) == ["production"]
    (_, _, unit) = units(catalog(), facts)
    assert kinds(renderers.render(unit, facts)) == ["Job"]
