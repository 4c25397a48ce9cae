"""Promotions: asked for where they are wanted, and moved on as far as they can go now."""

from __future__ import annotations

from functools import partial

from reconciler import judging, promotion, world
from reconciler.automate.desk import Desk
from reconciler.promotion import AskChecks, AskGate, Step, World
from reconciler.readiness import Readiness, State
from reconciler.records import Build, BuildRequest, Identity, Phase, Promotion, Verdict
from renderers import names
from schemas.environment import Environment

#: How often one promotion may be decided on in a step; each decision is written before the next.
_DECISIONS = 12
#: Phases in which nothing goes on by itself.
_FOR_PEOPLE = frozenset({Phase.AWAITING_APPROVAL, Phase.HELD})

_NOT_THERE = Readiness(State.NOT_FOUND, "it does not exist yet")


def request(desk: Desk) -> None:
    """Promotions that nobody has asked for yet."""
    targets = {key: pinned.identity.id for key, pinned in desk.pinned.items()}
    # A request says what it replaces, so what is served has to be known.
    places = {key: place for key, place in desk.places.items() if key not in desk.unseen and desk.is_meant(key[0])}
    for wanted in promotion.requests(places, desk.ledger, targets, desk.now):
        with desk.troubled(f"promotion of {wanted.model} to {wanted.environment}"):
            desk.create_promotion(wanted)


def advance(desk: Desk) -> None:
    """Every unfinished promotion, until it waits for something outside."""
    for one in sorted(desk.ledger.promotions, key=lambda p: (p.spec.kind != "Rollback", p.identity.name)):
        # A promotion that is still to be read back has no version to write against.
        if one.is_finished or not one.identity.resource_version or one.place[:2] in desk.ledger.unreadable:
            continue
        # A spec that cannot be read is not a spec that is gone.
        if desk.is_meant(one.spec.environment) and (desk.complete or one.place in desk.places):
            with desk.troubled(f"promotion {one.identity.name}"):
                _advance(desk, one)


def _advance(desk: Desk, one: Promotion) -> None:
    for _ in range(_DECISIONS):
        around = _world(desk, one)
        step = promotion.advance(one, around, desk.now)
        written = desk.write_promotion(one, step.status)
        if written is None or written.is_finished:
            return
        if written.status.phase not in _FOR_PEOPLE and _goes_on(written, around):
            if _is_in_its_hold(written, step):
                desk.holds = True
            else:
                desk.moves = True
        if step.question is None and step.look_again is not None:
            desk.wake(step.look_again)
        verdicts = _answer(desk, written, around, step.question)
        if verdicts is not None:
            judged = desk.write_promotion(written, promotion.judged(written.status, verdicts, desk.now))
            if judged is None:
                return
            desk.verdicts += [(judged, verdict) for verdict in verdicts]
            written = judged
        elif written.status == one.status:
            return
        one = written


def _goes_on(one: Promotion, around: World) -> bool:
    """Whether it moves without a person, a commit or another environment: it rolls out, or its gate is being asked."""
    if around.environment is None or around.environment.suspended or around.build is None:
        return False
    if one.status.rollout is not None:
        return one.status.rollout.paused_at is None
    return not around.ahead and all(around.verified.values())


def _is_in_its_hold(one: Promotion, step: Step) -> bool:
    """Whether its traffic has arrived, and stays so until a moment that is known."""
    is_there = one.status.rollout is not None and one.status.rollout.routed_at is not None
    return is_there and step.question is None and step.look_again is not None


def _world(desk: Desk, one: Promotion) -> World:
    targets = {key: pinned.identity.id for key, pinned in desk.pinned.items()}
    candidate, routed = _NOT_THERE, None
    environment = desk.environment(one.spec.environment)
    if one.is_rolling_out and environment is not None:
        candidate, routed = _look(desk, one, environment)
    return promotion.world(one, desk.catalog, desk.places, desk.ledger, targets, candidate=candidate, routed=routed)


def _look(desk: Desk, one: Promotion, environment: Environment) -> tuple[Readiness, int | None]:
    spec, current = one.spec, desk.ledger.current(one.place)
    reader = desk.outside.reader_of(environment.data_plane)
    deployment = world.deployment_of(environment, spec.model, spec.variation, spec.build)
    old = names.served_name(spec.model, spec.variation, current[:8]) if current else ""
    routes = world.routes_of(reader, environment, spec.model)
    return world.state_of(reader, deployment), world.share_of(routes, deployment.name, old)


def _answer(
    desk: Desk, one: Promotion, around: World, question: AskGate | AskChecks | None
) -> tuple[Verdict, ...] | None:
    """The verdicts that were asked for; None where nothing was, or while there is no answer."""
    if question is None or around.environment is None:
        return None
    if isinstance(question, AskChecks):
        key = ("checks", one.identity.name, str(question.weight))
        asked = partial(judging.checks, question.checks, one, around.environment, desk.now, current=around.current)
        verdicts: tuple[Verdict, ...] | None = desk.questions.ask(key, asked)
        return verdicts
    verdict = desk.questions.ask(("gate", one.identity.name), partial(_gate, desk, one, around, question))
    return None if verdict is None else (verdict,)


def _unknown(one: Promotion, build: str) -> Build:
    """A build that is served and whose record is gone: none of its metrics is known, which is not the same as none."""
    request = BuildRequest(id=build, model=one.spec.model, environment=one.spec.environment, cause=one.spec.cause)
    return Build(identity=Identity(name=build[:8]), spec=request)


def _gate(desk: Desk, one: Promotion, around: World, question: AskGate) -> Verdict:
    """The gate asks the analytics of the environment in which the automation builds."""
    assert around.build is not None
    home = desk.environment(around.build.spec.environment) or around.environment
    assert home is not None
    condition = question.condition
    deployed = None
    if condition.variation is not None:
        place = one.spec.environment, one.spec.model, condition.variation
        pinned = desk.pinned.get(place)
        current = desk.ledger.current(place) or (pinned.identity.id if pinned else "")
        deployed = desk.ledger.build(current) or (_unknown(one, current) if current else None)
    return judging.gate(
        condition,
        one,
        around.build,
        deployed,
        partial(desk.outside.engine, home),
        now=desk.now,
        timeout_s=home.analytics.timeout_seconds,
    )
