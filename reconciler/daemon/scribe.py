"""Tells what the daemon does: to logs, metrics, Events and its standing. Nothing here decides, waits or fails."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from reconciler.automate import Progress
from reconciler.cluster import Writer
from reconciler.daemon.drifts import MENDED, REPORTED, Drifted
from reconciler.daemon.follower import Delivered
from reconciler.daemon.keeper import Keeper
from reconciler.daemon.ties import Pass
from reconciler.inventory import Approved
from reconciler.plan import Guard, Op, Plan
from reconciler.readiness import State
from reconciler.report import Done, Outcome
from reconciler.telling import standing
from reconciler.telling.events import Events, Reason
from reconciler.telling.logs import Log
from reconciler.telling.metrics import Metrics
from reconciler.telling.standing import Drift, EnvironmentStanding, Limit, Standing, Unsettled, listed
from renderers.manifest import ObjectId
from schemas.problem import Problem

if TYPE_CHECKING:
    from reconciler.daemon.conductor import Conductor
    from reconciler.daemon.fleet import Fleet

log = Log(__name__)

_ENVIRONMENT = "(environment)"
#: So long people are shown what was mended, as Events are kept.
_LATELY = timedelta(hours=1)
#: Errors of a commit that are told one by one.
_TOLD = 10
#: Objects of an environment that were left, as many as are remembered.
_LEFT = 10_000
#: What became of a change, as a reason of Events.
_REASONS = {Outcome.FAILED: Reason.FAILED, Outcome.BLOCKED: Reason.BLOCKED}


@dataclass(slots=True)
class Scribe:
    """`events_of` gives the sink of the cluster that an environment is in; None before it is known."""

    metrics: Metrics
    events_of: Callable[[str], Events | None]
    home_events: Callable[[], Events | None]
    _guards: dict[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    _plans: dict[str, str] = field(default_factory=dict)
    #: By environment, then by object: why it was left.
    _left: dict[str, dict[ObjectId, str]] = field(default_factory=dict)
    #: By environment: what rules have said of changes that they let pass.
    _warned: dict[str, dict[Problem, None]] = field(default_factory=dict)
    _lost: dict[str, str] = field(default_factory=dict)
    _told: dict[str, str] = field(default_factory=dict)

    # -- of keepers -------------------------------------------------------------------------------------------------

    def planned(self, environment: str, planned: Plan) -> None:
        """A plan was made. One that waits is made again and again, and told once."""
        if planned.actions and self._plans.get(environment) != planned.id:
            self._plans[environment] = planned.id
            counts = Counter(str(change.op) for change in planned.actions)
            log.info("a plan", environment=environment, plan=planned.id, **dict(sorted(counts.items())))

    def limited(self, environment: str, limits: Collection[Guard], held: int, forbidden: int) -> None:
        """What holds some of it back, by now: so many deletions, and so many changes that a rule forbids."""
        self.metrics.blocked(environment, held)
        self.metrics.forbidden(environment, forbidden)
        said = tuple((guard.message, guard.approval) for guard in limits)
        if said == self._guards.get(environment, ()):
            return
        self._guards[environment] = said
        for guard in limits:
            what = "a rule forbids changes" if guard.is_of_policy else "a limit holds deletions"
            log.warning(what, environment=environment, rule=guard.rule, why=guard.message)
            lift = f"; `reconcile approve {guard.approval} -e {environment}` lifts it" if guard.approval else ""
            self._home(Reason.BLOCKED, f"{environment}: {guard.message}{lift}")

    def warned(self, environment: str, warnings: Collection[Problem]) -> None:
        """Rules that only warn have something to say of changes."""
        said = self._warned.setdefault(environment, {})
        for problem in [problem for problem in warnings if problem not in said]:
            log.warning("a change breaks a rule", environment=environment, rule=problem.rule, why=problem.message)
            said[problem] = None
            if len(said) > _LEFT:
                del said[next(iter(said))]

    def approved(self, environment: str, approved: Approved) -> None:
        """A person has let a plan pass its limits."""
        log.info("a limit is lifted", environment=environment, plan=approved.id, by=approved.by)
        self._home(Reason.APPROVED, f"{environment}: {approved.by} has let plan {approved.id} pass its limits")

    def checked(self, problems: Sequence[Problem]) -> None:
        """What is wrong with the specs of a commit."""
        errors = [problem for problem in problems if problem.severity == "error"]
        self.metrics.spec_problems(len(errors), len(problems) - len(errors))
        for problem in errors[:_TOLD]:
            log.error("a spec is wrong", where=f"{problem.file}:{problem.line}", why=problem.message, rule=problem.rule)
        if errors:
            first = errors[0]
            more = f", and {len(errors) - 1} more" if len(errors) > 1 else ""
            self._home(Reason.SPECS_INVALID, f"{first.file}:{first.line}: {first.message}{more}")

    def did(self, environment: str, done: Done) -> None:
        """Something was done, or was not."""
        fields = {"environment": environment, "object": str(done.change.id)}
        fields |= {"why": done.message} if done.message else {}
        left = self._left.setdefault(environment, {})
        match done.outcome:
            case Outcome.APPLIED | Outcome.DELETED:
                left.pop(done.change.id, None)
                log.info(str(done.outcome), **fields)
                is_lost = done.outcome is Outcome.DELETED and done.change.superseded_by is None
                if is_lost and (events := self.events_of(environment)) is not None:
                    events.tell(done.change.id, Reason.PRUNED, "no spec asks for it any more", uid=done.change.uid)
                return
            case Outcome.WAITING:
                log.debug("waiting", **fields)
                return
        if left.get(done.change.id) == done.message:
            return  # it was said, and is tried again and again
        left[done.change.id] = done.message
        if len(left) > _LEFT:  # nobody says that an object is given up
            del left[next(iter(left))]
        log.warning(str(done.outcome), **fields)
        if (events := self.events_of(environment)) is not None:
            reason = Reason.CONFLICT if done.change.op is Op.CONFLICT else _REASONS[done.outcome]
            events.tell(done.change.id, reason, done.message, uid=done.change.uid)

    def drifted(self, environment: str, drift: Drifted, now: float) -> None:
        """Something was changed past Git."""
        change = drift.change
        who, what = change.by or "somebody", ", ".join(one.path for one in change.fields[:10])
        kind = "deleted it" if change.op is Op.CREATE else f"changed {what or change.reason or 'it'}"
        is_mended = drift.outcome == MENDED
        if is_mended or drift.outcome == REPORTED:
            self.metrics.drift_found(environment, change.id.kind)
        if is_mended:
            self.metrics.drift_mended(environment, change.id.kind)
        log.warning(
            "drift", environment=environment, object=str(change.id), manager=who, fields=what, outcome=drift.outcome,
            seconds=round(now - drift.seen, 3),
        )  # fmt: skip
        events = self.events_of(environment)
        if events is not None:
            reason = Reason.DRIFT_MENDED if is_mended else Reason.DRIFT_FOUND
            events.tell(change.id, reason, f"{who} {kind}; {drift.outcome}", uid=change.uid)

    def passed(self, one: Pass) -> None:
        """A pass has ended."""
        self.metrics.reconciled(one.environment, one.seconds)
        self._lost.pop(one.environment, None)

    def forgot(self, environment: str) -> None:
        """Nobody keeps it any more."""
        self.metrics.forget_environment(environment)
        self._guards.pop(environment, None)
        self._plans.pop(environment, None)
        self._left.pop(environment, None)
        self._warned.pop(environment, None)
        self._lost.pop(environment, None)

    def lost(self, environment: str, why: str) -> None:
        """A cluster cannot be reached, or a pass has failed as a whole."""
        if self._lost.get(environment) != why:
            self._lost[environment] = why
            log.warning("the environment is out of reach", environment=environment, why=why)

    # -- of the conductor and the source ----------------------------------------------------------------------------

    def revised(self, delivered: Delivered) -> None:
        """The branch has moved."""
        revision = delivered.revision
        log.info("a new revision", revision=revision.commit, subject=revision.subject, signer=delivered.signer)
        if delivered.rewound:
            log.warning("the branch was rewound", why=delivered.rewound)
            self._home(Reason.GIT_REWOUND, delivered.rewound)

    def ruled(self, what: Sequence[str]) -> None:
        """The rules of the organisation are others."""
        for words in what:
            log.warning("the rules have changed", what=words)
        if what:
            self._home(Reason.RULES_CHANGED, "; ".join(what))

    def polled(self, trouble: str, seconds: float) -> None:
        """Git was asked."""
        self.metrics.fetched("specs", seconds, failed=bool(trouble))
        if trouble and trouble != self._told.get("git"):
            log.warning("the repository cannot be followed", why=trouble)
            unsigned = "is not followed" in trouble
            self._home(Reason.GIT_UNSIGNED if unsigned else Reason.GIT_UNREACHABLE, trouble)
        self._told["git"] = trouble

    def progressed(self, progress: Progress) -> None:
        """Builds and promotions have moved on."""
        for promotion, verdict in progress.verdicts:
            if not verdict.name:  # of the gate, and not of a check
                spec = promotion.spec
                self.metrics.gate(spec.model, spec.environment, spec.automation, str(verdict.outcome))
        if progress.builds is not None:
            self.metrics.builds(progress.builds)
        for environment, phases in progress.promotions.items():
            self.metrics.promotions(environment, phases)
        for told in progress.told:
            log.info("progress", where=told.where, what=told.message)
            word = told.message.partition(":")[0]
            reason = {"Succeeded": Reason.PROMOTED, "RolledBack": Reason.ROLLED_BACK, "Rejected": Reason.REJECTED}
            if told.where.startswith("promotion ") and word in reason:
                self._home(reason[word], f"{told.where}: {told.message}")
        said = "; ".join(f"{one.where}: {one.message}" for one in progress.trouble)
        if said and said != self._told.get("records"):
            log.warning("trouble", why=said)
        self._told["records"] = said

    def led(self, leads: bool, me: str) -> None:
        """This replica begins to lead, or has ceased to."""
        self.metrics.leading(leads)
        log.info("this replica leads" if leads else "this replica stands by", replica=me)
        self._home(Reason.LEADING if leads else Reason.STANDING_BY, f"{me} {'leads' if leads else 'stands by'}")

    def applied(self, environment: str, revision: str) -> None:
        """A commit is applied whole."""
        log.info("applied whole", environment=environment, revision=revision)
        self._home(Reason.REVISION_APPLIED, f"{environment} is as {revision[:12]} asks for")

    def requested(self, cluster: str, verb: str, code: int, seconds: float) -> None:
        """A request to a cluster has ended."""
        self.metrics.request(cluster, verb, code or "lost", seconds)

    def _home(self, reason: Reason, message: str) -> None:
        events = self.home_events()
        if events is not None:
            events.tell(standing.OBJECT, reason, message)


# -- the standing ---------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Reporter:
    """Writes the standing into the cluster, when it has changed and now and then. `writer` is of the home cluster."""

    conductor: Conductor
    fleet: Fleet
    metrics: Metrics
    clock: Callable[[], datetime]
    repository: str
    branch: str
    applied: Callable[[str, str], None]
    #: By environment: the commit that it was last seen to have whole, by an earlier process even; and since when.
    known: dict[str, str]
    _written: Standing | None = None
    _applied_at: dict[str, datetime] = field(default_factory=dict)

    def standing(self, leader: str) -> Standing:
        """Of everything, now."""
        now, mono = self.clock(), time.monotonic()

        def moment(at: float) -> datetime:
            return now - timedelta(seconds=max(0.0, mono - at))

        conductor, revision = self.conductor, self.conductor.revision
        environments = {keeper.name: self._environment(keeper, moment) for keeper in list(self.fleet.keepers.values())}
        for name, trouble in self.fleet.troubles.items():
            environments[name] = EnvironmentStanding(state=standing.State.UNREACHABLE, trouble=trouble)
        suspended = {n for n, one in environments.items() if one.state is standing.State.SUSPENDED}
        whole = revision is not None and all(
            one.revision == revision.commit for name, one in environments.items() if name not in suspended
        )
        source = self.conductor.follower
        fetched = moment(source.fetched_at) if source.fetched_at is not None else None
        problems = sorted(conductor.desire.problems(), key=lambda one: (one.severity != "error", one))
        with conductor.desire.lock:
            count = conductor.desire.specs.catalog.size
        return Standing(
            at=now,
            revision=revision.commit if revision else "",
            branch=self.branch,
            committed_at=revision.at if revision else None,
            applied_at=max(self._applied_at.values(), default=None) if whole else None,
            leader=leader,
            source=standing.Source(self.repository, fetched, source.trouble or conductor.trouble),
            specs=standing.Specs(count, listed(problems)),
            environments=environments,
        )

    def write(self, writer: Writer, leader: str) -> None:
        """Where it has changed, or is about to look old. Raises `ApiError`."""
        self._note()
        current = self.standing(leader)
        before = self._written
        if before is not None and current.at - before.at < standing.EVERY and _alike(before, current):
            return
        writer.apply(standing.to_config_map(current), force=True)
        self._written = current

    def _note(self) -> None:
        """What has been applied whole since, and how many objects are in which state."""
        now, mono, revision = self.clock(), time.monotonic(), self.conductor.revision
        for keeper in list(self.fleet.keepers.values()):
            name, spec = keeper.name, keeper.desire.environment(keeper.name)
            is_suspended = spec is not None and spec.suspended
            is_asked = revision is not None and keeper.desire.revision == revision.commit
            is_whole = is_asked and keeper.is_caught_up and not is_suspended
            if revision is not None and is_whole and self.known.get(name) != revision.commit:
                self.known[name], self._applied_at[name] = revision.commit, now
                self.metrics.applied(name, revision.commit, revision.at, now)
                self.applied(name, revision.commit)
            elif revision is not None and is_whole:  # an earlier process may have applied it
                self.metrics.stands(name, revision.commit, revision.at)
            seen = min((drift.seen for drift in list(keeper.drifts.open.values())), default=None)
            self.metrics.objects(name, keeper.states())
            self.metrics.unsettled(name, 0 if is_suspended else len(keeper.agenda))
            self.metrics.oldest_drift(name, now - timedelta(seconds=mono - seen) if seen is not None else None)
        if revision is None:
            return  # nobody knows yet which environments there are
        kept = {keeper.name for keeper in list(self.fleet.keepers.values())}
        for name in self.known.keys() - kept - self.conductor.desire.environments().keys():
            del self.known[name]
            self._applied_at.pop(name, None)

    def _mended(self, keeper: Keeper, moment: Callable[[float], datetime]) -> list[Drift]:
        """What was mended lately: the newest first."""
        found = (_drift(one, moment(one.seen)) for one in reversed(list(keeper.drifts.mended)))
        return [drift for drift in found if drift.since is not None and self.clock() - drift.since < _LATELY]

    def _environment(self, keeper: Keeper, moment: Callable[[float], datetime]) -> EnvironmentStanding:
        spec = keeper.desire.environment(keeper.name)
        suspended = spec is not None and spec.suspended
        agenda = [] if suspended else list(keeper.agenda)
        last = keeper.last
        unsettled = [Unsettled(model or _ENVIRONMENT, one.why, moment(one.since)) for model, one in agenda]
        drift = list(keeper.drifts.open.values())
        objects = keeper.states()
        if objects.keys() & {State.IN_PROGRESS, State.FAILED} and not suspended:
            unsettled += [Unsettled(model or _ENVIRONMENT, why) for model, why in keeper.unready()]
        return EnvironmentStanding(
            cluster=keeper.plane.connection.host,
            revision=self.known.get(keeper.name, ""),
            state=standing.state_of(
                suspended=suspended,
                reachable=keeper.plane.connection.unreachable_since is None,
                failed=any(not one.waits and one.tries > 0 for _, one in agenda) or objects.get("failed", 0) > 0,
                blocked=bool(keeper.guards) or any(one.held for _, one in agenda),
                busy=bool(agenda) or not keeper.is_seen or objects.get("in progress", 0) > 0,
            ),
            objects=objects,
            unsettled=listed(unsettled),
            limits=listed(Limit(g.rule, g.message, g.approval) for g in keeper.guards),
            drift=listed([*(_drift(one, moment(one.seen)) for one in drift), *self._mended(keeper, moment)]),
            last_pass=standing.Pass(moment(last.at), round(last.seconds, 3), last.requests) if last else None,
            trouble=keeper.trouble or self.fleet.moved.get(keeper.name, ""),
        )


def _drift(one: Drifted, since: datetime) -> Drift:
    change = one.change
    fields = tuple(field.path for field in change.fields)
    return Drift(str(change.id), fields, change.by, since, mended=one.outcome == MENDED)


def _alike(before: Standing, now: Standing) -> bool:
    """Whether nothing that matters has changed: not merely the moments."""
    return _words(before) == _words(now)


def _words(one: Standing) -> object:
    environments = {
        name: (e.state, e.revision, e.objects, e.trouble, [u.model for u in e.unsettled.shown], e.limits, e.drift.total)
        for name, e in one.environments.items()
    }
    return (one.revision, one.leader, one.source.trouble, one.specs, environments)
