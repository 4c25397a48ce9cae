"""Builds: what their Jobs say goes into their records, and what is due gets a record of its own."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import TypeAlias

from reconciler import judging, readiness, recorded, triggers
from reconciler.automate.desk import Desk
from reconciler.outside import OutsideError
from reconciler.readiness import State
from reconciler.records import Build, BuildPhase, Verdict
from renderers import names
from renderers.batch import job_name as batch_job_name
from renderers.catalog import automation_environment
from renderers.manifest import ObjectId
from schemas.automation import Automation
from schemas.environment import Environment

#: What is known of a branch is asked for again after this.
_BRANCH_AGE = timedelta(seconds=20)

#: (repository, branch)
_Branch: TypeAlias = tuple[str, str]


@dataclass(slots=True)
class Branches:
    """What triggers have seen of the world, by automation; it is lost with the process, and then asked for again.

    It is of one branch: an automation that is pointed to another one has seen nothing of it.
    """

    seen: dict[str, tuple[_Branch | None, triggers.Seen]] = field(default_factory=dict)
    heads: dict[str, tuple[_Branch, str, datetime]] = field(default_factory=dict)

    def keep(self, automations: Collection[str]) -> None:
        """All others have left the specs."""
        for name in (self.seen.keys() | self.heads.keys()) - set(automations):
            self.seen.pop(name, None)
            self.heads.pop(name, None)


def job_of(build: Build, environment: Environment) -> ObjectId:
    """The Job that a record is about."""
    name_of = batch_job_name if build.spec.action == "Batch" else names.job_name
    return ObjectId("batch/v1", "Job", environment.namespace_name, name_of(build.spec.model, build.short))


# -- following ------------------------------------------------------------------------------------------------------


def follow(desk: Desk) -> None:
    """Builds that promotions need get records; what the Jobs of unfinished ones say, these say too."""
    for key, pinned in desk.pinned.items():
        if desk.ledger.build(pinned.identity.id) is None and not desk.places[key].environment.suspended:
            with desk.troubled(f"build {pinned.build.spec.name}"):
                desk.create_build(recorded.of_spec(pinned.build.spec, pinned.identity, pinned.home.name, desk.now))
    for build in list(desk.ledger.builds.values()):
        environment = desk.environment(build.spec.environment)
        if build.spec.cause.kind == "Registration" and not build.is_finished:
            # Written in two steps, and the process died between them.
            with desk.troubled(f"build {build.identity.name}"):
                desk.write_build(build, recorded.registered(build.spec.cause))
        elif not build.is_finished and environment is not None:
            desk.holds |= not environment.suspended
            if not build.identity.resource_version:
                continue  # made in this step: read back in the next one, it has a version to write against
            with desk.troubled(f"build {build.identity.name}"):
                _follow(desk, build, environment)


def _follow(desk: Desk, build: Build, environment: Environment) -> None:
    reader, target = desk.outside.reader_of(environment.data_plane), job_of(build, environment)
    job = reader.get(target)
    state, pods = readiness.of(job), []
    if state.state in (State.CURRENT, State.FAILED):
        pods = reader.list("v1", "Pod", namespace=target.namespace, labels=f"job-name={target.name}").items
    status = recorded.status_of(build, job, state, pods)
    is_whole = state.state is not State.CURRENT or recorded.is_whole(pods)
    if build.spec.action == "Build" and (job is None or not is_whole):
        # The Job was cleaned up, or its pods were, or the result was too long for them: the storage has it whole.
        found = desk.questions.ask(("record", build.identity.name), lambda: (desk.outside.record(environment, build),))
        if found is None:
            return
        (stored,) = found
        if stored is not None:
            try:
                status = recorded.of_storage(status, stored)
            except ValueError as error:  # the code of a model may write there, too
                words = f"the record of build {build.identity.name} in the object storage is damaged"
                raise OutsideError(f"{words}: {type(error).__name__}") from error
        elif job is not None:
            status = recorded.lost(status)
    desk.write_build(build, recorded.fitting(status, _metrics_of_gates(desk, build)))


def _metrics_of_gates(desk: Desk, build: Build) -> tuple[str, ...]:
    """What its automation asks of it."""
    placed = desk.catalog.automations.get(build.spec.automation)
    condition = placed.spec.deployment_condition if placed is not None else None
    return (condition.metric_name,) if condition is not None else ()


# -- starting -------------------------------------------------------------------------------------------------------


def start(desk: Desk, branches: Branches) -> None:
    """Runs of automations that are due."""
    for placed in desk.catalog.automations.values():
        environment = desk.environment(automation_environment(desk.catalog, placed.spec, desk.order))
        if environment is not None and not environment.suspended and desk.is_meant(environment.name):
            with desk.troubled(f"automation {placed.spec.name}"):
                _Starter(desk, branches, placed.spec, environment).step()


@dataclass(slots=True)
class _Starter:
    """One automation, in the environment where it builds."""

    desk: Desk
    branches: Branches
    automation: Automation
    environment: Environment

    def step(self) -> None:
        name = self.automation.name
        runs = [build for build in self.desk.ledger.builds.values() if build.spec.automation == name]
        decision = triggers.due(self.automation, runs, self._seen(), self.desk.now)
        if isinstance(decision, triggers.AskMetric):
            decision = self._ask_metric(decision, runs)
        elif isinstance(decision, triggers.AskPaths):
            decision = self._ask_paths(decision, runs)
        if isinstance(decision, triggers.Wait) and decision.until is not None:
            self.desk.wake(decision.until)
        if self.automation.trigger.git is not None and self.automation.enabled:
            self.desk.wake(self.desk.now + _BRANCH_AGE)
        if isinstance(decision, triggers.Start):
            self._start(decision)
        elif isinstance(decision, triggers.Register):
            self.desk.create_build(recorded.of_registration(self.automation, self.environment.name, decision.cause))

    def _seen(self) -> triggers.Seen:
        branch, seen = self.branches.seen.get(self.automation.name, (None, triggers.Seen()))
        if branch != self._branch:
            seen = triggers.Seen()
        if self.automation.trigger.git is not None and self.automation.enabled:
            head = self._head()
            if head and head != seen.head:
                seen = self._note(seen._replace(head=head, changed=None))
        return seen

    def _note(self, seen: triggers.Seen) -> triggers.Seen:
        self.branches.seen[self.automation.name] = self._branch, seen
        return seen

    @property
    def _branch(self) -> _Branch | None:
        """What it builds; None where it runs a batch."""
        spec = self.automation.build_spec
        return (spec.repository, spec.git_branch) if spec is not None else None

    def _head(self) -> str:
        """The newest commit of the branch, as it was some seconds ago; "" while Git has not answered."""
        name, spec, branch = self.automation.name, self.automation.build_spec, self._branch
        assert spec is not None
        assert branch is not None
        known, commit, at = self.branches.heads.get(name, (None, "", self.desk.now))
        if known == branch and timedelta() <= self.desk.now - at < _BRANCH_AGE:
            return commit
        question = partial(self.desk.outside.commit, spec, spec.git_branch, self.environment)
        answer: str | None = self.desk.questions.ask(("commit", name, *branch), question)
        if answer is None:
            return ""
        self.branches.heads[name] = branch, answer, self.desk.now
        return answer

    def _start(self, decision: triggers.Start) -> None:
        build = self._build(decision)
        if build is None:
            return
        for name in decision.replaces:
            before = self.desk.ledger.builds[name]
            cancelled = {"phase": BuildPhase.CANCELLED, "finished_at": self.desk.now}
            self.desk.write_build(before, before.status.model_copy(update=cancelled))
        self.desk.create_build(build)

    def _build(self, decision: triggers.Start) -> Build | None:
        """The record of the run; None where what it needs is not known yet."""
        automation, where = self.automation, self.environment.name
        batch = automation.batch_execution
        if batch is None:
            # Of a run that a commit has started, exactly that one: the branch may have moved on since it was decided.
            commit = self._seen().head if automation.trigger.git is not None else self._head()
            return recorded.of_run(automation, where, decision.cause, decision.run, commit) if commit else None
        place = where, automation.model, batch.variation
        pinned = self.desk.pinned.get(place)
        serving = batch.build_id or self.desk.ledger.current(place) or (pinned.identity.id if pinned else "")
        if not serving:
            words = f"variation {batch.variation} of {automation.model} serves no build in {where} yet"
            raise OutsideError(words)
        return recorded.of_batch(automation, where, decision.cause, decision.run, serving)

    def _ask_metric(self, asked: triggers.AskMetric, runs: list[Build]) -> triggers.Decision:
        trigger = self.automation.trigger.metric
        assert trigger is not None
        question = partial(
            judging.trigger_metric,
            trigger,
            self.automation.model,
            self.environment,
            partial(self.desk.outside.engine, self.environment),
            asked.at,
        )
        verdict: Verdict | None = self.desk.questions.ask(("metric", self.automation.name), question)
        if verdict is None:
            return triggers.Wait(None, "its metric is asked for")
        seen = self._seen()
        if seen.metric is None or seen.metric.message != verdict.message:
            self.desk.tell(f"automation {self.automation.name}", verdict.message)
        seen = self._note(seen._replace(metric=verdict))
        return triggers.due(self.automation, runs, seen, self.desk.now)

    def _ask_paths(self, asked: triggers.AskPaths, runs: list[Build]) -> triggers.Decision:
        spec = self.automation.build_spec
        assert spec is not None
        question = partial(self.desk.outside.changed, spec, asked.old, asked.new, asked.paths, self.environment)
        changed = self.desk.questions.ask(("paths", self.automation.name, asked.old, asked.new), question)
        if changed is None:
            return triggers.Wait(None, "the new commit is looked at")
        return triggers.due(self.automation, runs, self._note(self._seen()._replace(changed=changed)), self.desk.now)
