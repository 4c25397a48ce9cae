"""Which variations are promoted, what is asked for there, and what stands there."""

from datetime import timedelta

import pytest

from reconciler.promotion import Ledger, places, requests, stands, target
from reconciler.records import BuildPhase, Phase
from renderers.catalog import promotion_order
from schemas.automation import AutomationDeployment
from tests.unit.promotion.making import (
    NOW,
    PRODUCTION,
    STAGING,
    A,
    B,
    C,
    D,
    after,
    automation,
    build,
    by_name,
    catalog,
    environment,
    promotion,
    rolling,
    variation,
)

PLAIN = (environment("staging"), environment("production"))


def places_of(known, ledger=None):
    return places(known, promotion_order(known), ledger or Ledger())


# -- where something is to be decided -------------------------------------------------------------------------------


def test_a_variation_about_which_there_is_nothing_to_decide_is_rendered_from_its_spec():
    assert places_of(catalog(PLAIN, (variation("replace"),))) == {}


@pytest.mark.parametrize(
    ("environments", "served"),
    [
        pytest.param(PLAIN, variation(), id="a canary"),
        pytest.param(
            (PLAIN[0], environment("production", promote_after=("staging",))), variation("replace"), id="order"
        ),
        pytest.param((PLAIN[0], environment("production", approval="manual")), variation("replace"), id="approval"),
        pytest.param(
            PLAIN,
            variation(
                "replace", environment_overrides=(("staging", {"rollout": {"canary": {"steps": [{"weight": 5}]}}}),)
            ),
            id="a canary in one environment",
        ),
    ],
)
def test_what_is_decided_in_one_environment_is_decided_in_all_of_the_variation(environments, served):
    assert set(places_of(catalog(environments, (served,)))) == {STAGING, PRODUCTION}


def test_a_variation_that_an_automation_implies_is_promoted_too():
    known = catalog(PLAIN, automations=(automation(),))
    assert [place.automation.name for place in places_of(known).values()] == ["nightly"]


def test_a_place_has_the_variation_as_it_is_there():
    served = variation(environment_overrides=(("staging", {"rollout": "replace"}),))
    found = places_of(catalog(PLAIN, (served,)))
    assert found[STAGING].variation.rollout == "replace"
    assert found[PRODUCTION].variation.rollout != "replace"


def test_the_same_build_in_the_environment_before_is_promoted_so_that_somebody_can_verify_it():
    ordered = (environment("staging"), environment("production", promote_after=("staging",)))
    first = variation("replace", name="trial", environments=("staging",), build="churn-1")
    other = variation("replace", name="other", environments=("staging",), build="churn-2")
    last = variation("replace", environments=("production",), build="churn-1")
    found = places_of(catalog(ordered, (first, other, last)))
    assert set(found) == {("staging", "churn", "trial"), PRODUCTION}


def test_what_was_promoted_once_is_promoted_on_also_without_a_canary():
    ledger = Ledger(promotions=(promotion(B, Phase.SUCCEEDED, ended=NOW),))
    assert PRODUCTION in places_of(catalog(PLAIN, (variation("replace"),)), ledger)


# -- what is asked for ----------------------------------------------------------------------------------------------

PINNED = places_of(catalog(PLAIN, (variation(environments=("production",)),)))
AUTOMATED = places_of(catalog(PLAIN, (variation(automation="nightly", environments=("production",)),), (automation(),)))
SERVES_A = promotion(A, Phase.SUCCEEDED, replaces="", ended=after(-100), at=after(-200))


def asked(found, ledger, targets=None):
    return [(r.build, r.expected_current, r.attempt) for r in requests(found, ledger, targets or {}, NOW)]


def test_a_pinned_build_is_asked_for_in_place_of_the_one_that_is_served():
    ledger = Ledger(by_name(build(B)), (SERVES_A,))
    [request] = requests(PINNED, ledger, {PRODUCTION: B}, NOW)
    assert (request.build, request.expected_current, request.attempt) == (B, A, 1)
    assert request.cause.kind == "Spec"
    assert request.cause.reason == "pinned: churn-1"


@pytest.mark.parametrize(
    ("ledger", "targets", "why"),
    [
        (Ledger(by_name(build(B)), (SERVES_A,)), {}, "nobody knows its id"),
        (Ledger(by_name(build(A)), (SERVES_A,)), {PRODUCTION: A}, "it is served"),
        (Ledger({}, (SERVES_A,)), {PRODUCTION: B}, "it has no record"),
        (Ledger(by_name(build(B, BuildPhase.RUNNING)), (SERVES_A,)), {PRODUCTION: B}, "it is being built"),
        (Ledger(by_name(build(B, BuildPhase.FAILED)), (SERVES_A,)), {PRODUCTION: B}, "it failed"),
        (Ledger(by_name(build(B)), (SERVES_A, promotion(B))), {PRODUCTION: B}, "it is on its way"),
        (Ledger(by_name(build(B)), (SERVES_A, promotion(B, Phase.REJECTED, ended=NOW))), {PRODUCTION: B}, "rejected"),
        (Ledger(by_name(build(B)), (SERVES_A, rolling(build_id=C))), {PRODUCTION: B}, "another one rolls out"),
        (
            Ledger(by_name(build(B)), (SERVES_A, promotion(D, kind="Rollback"))),
            {PRODUCTION: B},
            "a rollback is under way",
        ),
        (Ledger(by_name(build(B)), served={PRODUCTION: B}), {PRODUCTION: B}, "it was served before promotions"),
    ],
)
def test_nothing_is_asked_for(ledger, targets, why):
    assert asked(PINNED, ledger, targets) == [], why


def test_what_was_served_before_there_were_promotions_is_what_the_first_one_replaces():
    ledger = Ledger(by_name(build(B)), served={PRODUCTION: A})
    assert asked(PINNED, ledger, {PRODUCTION: B}) == [(B, A, 1)]
    assert stands(PINNED, ledger)[PRODUCTION] == ((A, 100),)


def test_what_the_first_promotion_was_to_replace_is_served_until_one_has_succeeded():
    """Who saw it live may have looked away since: a cluster that is out of reach takes nothing down."""
    assert Ledger(promotions=(promotion(B, replaces=A),)).current(PRODUCTION) == A


def test_nothing_is_asked_for_in_a_suspended_environment():
    held = catalog((environment("production", suspended=True),), (variation(environments=("production",)),))
    assert asked(places_of(held), Ledger(by_name(build(B))), {PRODUCTION: B}) == []


def test_git_may_go_back_to_a_build_that_nobody_objected_to():
    ledger = Ledger(by_name(build(A)), (SERVES_A, promotion(B, Phase.SUCCEEDED, ended=NOW)))
    assert asked(PINNED, ledger, {PRODUCTION: A}) == [(A, B, 2)]


def test_a_superseded_build_is_asked_for_again_as_the_next_attempt():
    """From the last number: the records of earlier attempts may be gone, and a name is admitted once."""
    ledger = Ledger(by_name(build(B)), (SERVES_A, promotion(B, Phase.SUPERSEDED, attempt=4, ended=NOW)))
    assert asked(PINNED, ledger, {PRODUCTION: B}) == [(B, A, 5)]


def test_an_automation_has_its_newest_good_build_promoted():
    builds = by_name(build(B, at=after(-10)), build(C, at=after(-5)), build(D, BuildPhase.FAILED, at=NOW))
    other = build("e" * 64, by="another", at=after(5))
    assert asked(AUTOMATED, Ledger({**builds, other.identity.name: other}, (SERVES_A,))) == [(C, A, 1)]


def test_an_older_build_does_not_stand_in_for_one_that_was_rejected():
    builds = by_name(build(B, at=after(-10)), build(C, at=after(-5)))
    assert asked(AUTOMATED, Ledger(builds, (SERVES_A, promotion(C, Phase.REJECTED, ended=NOW)))) == []


def test_an_automation_deploys_only_where_it_says():
    elsewhere = automation(deployment_spec=AutomationDeployment(environments=("staging",)))
    known = catalog(PLAIN, (variation(automation="nightly"),), (elsewhere,))
    found = requests(places_of(known), Ledger(by_name(build(B))), {}, NOW)
    assert [request.environment for request in found] == ["staging"]


def test_builds_that_come_faster_than_they_are_verified_do_not_starve_production():
    known = catalog(variations=(variation(automation="nightly"),), automations=(automation(),))
    found = places_of(known)
    builds = by_name(build(B, at=after(-10)), build(C, at=after(-5)))
    verified_b = promotion(B, Phase.SUCCEEDED, place=STAGING, ended=NOW)
    assert target(found[PRODUCTION], Ledger(builds, (SERVES_A,)), {}) == C
    assert target(found[PRODUCTION], Ledger(builds, (SERVES_A, verified_b)), {}) == B
    waits_b = promotion(B)
    assert target(found[PRODUCTION], Ledger(builds, (SERVES_A, waits_b)), {}) == B
    failed_b = promotion(B, Phase.ROLLED_BACK, place=STAGING, ended=NOW)
    assert target(found[PRODUCTION], Ledger(builds, (SERVES_A, waits_b, failed_b)), {}) == C
    serves_b = promotion(B, Phase.SUCCEEDED, ended=after(1))
    assert target(found[PRODUCTION], Ledger(builds, (SERVES_A, verified_b, serves_b)), {}) == C


# -- what must not be tried again -----------------------------------------------------------------------------------

SERVED_B = promotion(B, Phase.SUCCEEDED, ended=after(10))


def rollback(phase=Phase.SUCCEEDED, *, at=20, ended=30):
    when = None if ended is None else after(ended)
    return promotion(A, phase, replaces=B, kind="Rollback", attempt=2, at=after(at), ended=when)


@pytest.mark.parametrize(
    ("history", "is_quarantined"),
    [
        ((promotion(B, Phase.REJECTED, ended=NOW),), True),
        ((promotion(B, Phase.ROLLED_BACK, ended=NOW),), True),
        ((promotion(B, Phase.SUPERSEDED, ended=NOW),), False),
        ((SERVED_B,), False),
        ((SERVED_B, rollback()), True),
        ((SERVED_B, rollback(Phase.PENDING, ended=None)), True),
        ((SERVED_B, rollback(Phase.ROLLED_BACK)), True),
        ((SERVED_B, rollback(Phase.REJECTED)), False),
        ((SERVED_B, rollback(Phase.SUPERSEDED)), False),
        # Whoever asks for the rollback has another clock: what counts is when it ended, after B had succeeded.
        ((SERVED_B, rollback(at=-3600)), True),
        ((SERVED_B, rollback(), promotion(B, attempt=2, at=after(40), by="kim")), False),
        ((SERVED_B, rollback(), promotion(B, Phase.SUPERSEDED, attempt=2, ended=after(50), by="kim")), False),
        ((SERVED_B, rollback(), promotion(B, Phase.SUCCEEDED, attempt=2, ended=after(50), by="kim")), False),
        ((SERVED_B, rollback(), promotion(B, Phase.REJECTED, attempt=2, ended=after(50), by="kim")), True),
        ((promotion(B, Phase.REJECTED, ended=NOW), promotion(B, kind="Rollback", attempt=2, replaces=A)), False),
    ],
)
def test_a_build_that_failed_or_was_left_is_quarantined_until_a_person_asks_for_another_attempt(
    history, is_quarantined
):
    assert (Ledger(promotions=history).quarantined(B, PRODUCTION) is not None) is is_quarantined


def test_quarantine_is_of_a_place():
    ledger = Ledger(promotions=(promotion(B, Phase.REJECTED, ended=NOW),))
    assert ledger.quarantined(B, STAGING) is None


def test_a_build_is_verified_where_a_promotion_of_it_has_succeeded_for_any_variation():
    other = promotion(B, Phase.SUCCEEDED, place=("staging", "churn", "trial"), ended=NOW)
    ledger = Ledger(promotions=(other,))
    assert ledger.verified(B, "staging", "churn")
    assert not ledger.verified(B, "production", "churn")
    assert not ledger.verified(B, "staging", "other")
    assert not ledger.verified(A, "staging", "churn")


def test_a_build_that_a_person_has_taken_back_is_not_verified_any_more():
    away = promotion(A, Phase.SUCCEEDED, place=STAGING, replaces=B, kind="Rollback", ended=after(30))
    done = promotion(B, Phase.SUCCEEDED, place=STAGING, ended=after(10))
    assert not Ledger(promotions=(done, away)).verified(B, "staging", "churn")


def test_a_build_that_was_served_before_there_were_promotions_is_verified():
    assert Ledger(served={STAGING: A}).verified(A, "staging", "churn")


# -- what stands ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("promotions", "expected"),
    [
        ((), ()),
        ((promotion(B, replaces=""),), ()),
        ((SERVES_A,), ((A, 100),)),
        ((SERVES_A, promotion(B)), ((A, 100),)),
        ((SERVES_A, rolling(-1, 0)), ((A, 100), (B, 0))),
        ((SERVES_A, rolling(0, 5)), ((A, 95), (B, 5))),
        ((SERVES_A, rolling(2, 100)), ((A, 0), (B, 100))),
        ((SERVES_A, promotion(B, Phase.HELD, rollout=rolling(0, 5).status.rollout)), ((A, 95), (B, 5))),
        ((SERVES_A, promotion(B, Phase.ROLLED_BACK, ended=NOW, rollout=rolling(0, 5).status.rollout)), ((A, 100),)),
        ((SERVES_A, promotion(B, Phase.SUCCEEDED, ended=NOW, rollout=rolling(2, 100).status.rollout)), ((B, 100),)),
        ((rolling(-1, 0, of={"replaces": ""}),), ((B, 0),)),
        ((rolling(0, 100, of={"replaces": ""}),), ((B, 100),)),
        # Two reconcilers that began two at once: one of them has traffic.
        ((SERVES_A, rolling(0, 5), rolling(1, 50, build_id=C, of={"at": after(1)})), ((A, 95), (B, 5))),
    ],
)
def test_what_stands_is_the_current_build_and_the_one_that_rolls_out(promotions, expected):
    assert stands(PINNED, Ledger(promotions=promotions))[PRODUCTION] == expected


def test_the_current_build_is_that_of_the_promotion_that_succeeded_last():
    later = promotion(A, Phase.SUCCEEDED, attempt=2, ended=SERVED_B.status.finished_at + timedelta(seconds=1))
    assert Ledger(promotions=(later, SERVED_B, SERVES_A)).current(PRODUCTION) == A
