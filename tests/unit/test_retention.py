"""Which records may go: never one that the next decision may turn on."""

from __future__ import annotations

from reconciler.records import Build, BuildPhase, BuildStatus, Cause, Phase, Promotion, PromotionStatus
from reconciler.retention import BUILDS, PROMOTIONS, expired
from tests.sample_records import a_build, a_promotion, an_id, at


def build(minutes: int, phase: BuildPhase = BuildPhase.SUCCEEDED, **spec: object) -> Build:
    return a_build(cause=Cause(kind="Schedule", at=at(minutes)), status=BuildStatus(phase=phase), **spec)


def promotion(minutes: int, phase: Phase = Phase.REJECTED, **spec: object) -> Promotion:
    return a_promotion(cause=Cause(kind="Schedule", at=at(minutes)), status=PromotionStatus(phase=phase), **spec)


NEWER = [promotion(1000 + n) for n in range(PROMOTIONS)]
NEWER_BUILDS = [build(1000 + n) for n in range(BUILDS)]


def gone(*records: Build | Promotion, wanted: frozenset[str] = frozenset()) -> set[str]:
    builds = [r for r in records if isinstance(r, Build)] + NEWER_BUILDS
    promotions = [r for r in records if isinstance(r, Promotion)] + NEWER
    return {record.identity.name for record in expired(builds, promotions, wanted)}


def test_the_newest_stay_and_the_others_go() -> None:
    old, older = promotion(2), build(1)
    assert gone(old, older) == {old.identity.name, older.identity.name}
    assert gone() == set()


def test_the_newest_of_each_place_and_of_each_model_are_counted_apart() -> None:
    elsewhere = promotion(2, environment="staging")
    another = build(1, model="fraud")
    assert gone(elsewhere, another) == set()


def test_what_is_under_way_stays() -> None:
    for phase in (Phase.PENDING, Phase.AWAITING_APPROVAL, Phase.ROLLING_OUT, Phase.HELD):
        assert gone(promotion(1, phase)) == set()
    for running in (BuildPhase.PENDING, BuildPhase.RUNNING):
        assert gone(build(1, running)) == set()


def test_the_current_promotion_of_a_place_stays_and_the_one_that_a_rollback_goes_to() -> None:
    oldest, before, again, current = (
        promotion(1, Phase.SUCCEEDED),
        promotion(2, Phase.SUCCEEDED),
        promotion(3, Phase.SUCCEEDED, build=(now := an_id())),
        promotion(4, Phase.SUCCEEDED, build=now, attempt=2),
    )
    assert gone(oldest, before, again, current) == {oldest.identity.name, again.identity.name}


def test_what_verified_a_build_elsewhere_stays_while_the_build_is_under_way() -> None:
    waiting = promotion(9, Phase.PENDING)
    verified = [promotion(n, Phase.SUCCEEDED, environment="staging", build=waiting.spec.build) for n in (1,)]
    newer = [promotion(100 + n, Phase.SUCCEEDED, environment="staging") for n in range(PROMOTIONS)]
    assert gone(waiting, *verified, *newer) == set()
    assert gone(*verified, *newer) == {verified[0].identity.name}


def test_a_rejected_candidate_is_known_as_long_as_it_is_the_last_one_however_often_people_roll_back() -> None:
    place = {"variation": "shadow"}
    rejected = promotion(1, Phase.ROLLED_BACK, **place)
    rollbacks = [promotion(2 + n, Phase.SUPERSEDED, kind="Rollback", **place) for n in range(PROMOTIONS)]
    assert gone(rejected, *rollbacks) == set()


def test_a_build_that_was_taken_back_is_known_as_long_as_it_is_the_last_candidate() -> None:
    place = {"variation": "shadow"}
    candidate = promotion(1, Phase.SUCCEEDED, **place)
    away = promotion(2, Phase.SUPERSEDED, kind="Rollback", expected_current=candidate.spec.build, **place)
    rollbacks = [promotion(3 + n, Phase.SUPERSEDED, kind="Rollback", **place) for n in range(PROMOTIONS)]
    assert gone(candidate, away, *rollbacks) == set()


def test_what_ended_last_is_current_whatever_was_asked_for_first() -> None:
    ended_last = promotion(1, Phase.SUCCEEDED)
    ended_last = ended_last.model_copy(update={"status": ended_last.status.model_copy(update={"finished_at": at(900)})})
    others = [promotion(2 + n, Phase.SUCCEEDED) for n in range(3)]
    assert ended_last.identity.name not in gone(ended_last, *others)


def test_the_builds_that_a_kept_promotion_names_stay() -> None:
    served, before = build(1), build(2)
    names_both = promotion(5000, build=served.spec.id, expected_current=before.spec.id)
    assert gone(served, before) == {served.identity.name, before.identity.name}
    assert gone(served, before, names_both) - {NEWER[0].identity.name} == set()


def test_the_newest_build_of_an_automation_is_its_state_and_stays() -> None:
    newest, older = build(2, BuildPhase.FAILED, automation="monthly"), build(1, BuildPhase.FAILED, automation="monthly")
    assert gone(newest, older) == {older.identity.name}
    registered = build(1, BuildPhase.REGISTERED, automation="yearly")
    assert gone(registered) == set()


def test_the_candidate_of_an_automation_stays_behind_any_number_of_failures() -> None:
    candidate, failed = build(1, automation="monthly"), build(2, BuildPhase.FAILED, automation="monthly")
    assert gone(candidate, failed) == set()


def test_a_build_that_a_spec_asks_for_stays_as_it_would_be_made_again() -> None:
    old = build(1)
    assert gone(old, wanted=frozenset({old.spec.id})) == set()


def test_the_build_that_a_batch_under_way_predicts_with_stays() -> None:
    old = build(1)
    batch = build(2, BuildPhase.RUNNING, action="Batch", specification={"build": old.spec.id})
    assert gone(old, batch) == set()


def test_what_has_gone_makes_nothing_else_go() -> None:
    builds, promotions = [build(n) for n in range(150)], [promotion(n) for n in range(80)]
    first = expired(builds, promotions, ())
    left = [r for r in (*builds, *promotions) if r not in first]
    assert expired([b for b in left if isinstance(b, Build)], [p for p in left if isinstance(p, Promotion)], ()) == []
