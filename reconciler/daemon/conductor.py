"""The one who says what is wanted: specs and records in, an index of desired objects out.

    revision -> specs -+
    branches ----------+-> records (automate) -> desire -> keepers
    watched records ---+

Everything runs in one thread, and each turn takes all that is new at once: so a newer commit goes before an older one.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from queue import SimpleQueue
from threading import Event, Lock
from typing import NamedTuple

from reconciler import automate, desired, policy, specs
from reconciler.automate import Automator, Progress, Recall, Standing
from reconciler.cluster import ApiError, Heard, Watched
from reconciler.daemon.desire import Desire
from reconciler.daemon.fleet import Fleet
from reconciler.daemon.follower import Delivered, Follower
from reconciler.daemon.queues import drained
from reconciler.lease import Elector
from reconciler.offline import rules_in
from reconciler.outside import Outside
from reconciler.policy import Policy
from reconciler.queries import check
from reconciler.records import API_VERSION, NAMESPACE
from reconciler.source.files import Files
from reconciler.source.mirror import MirrorError, Revision
from reconciler.specs.index import Changed, Index
from reconciler.telling.logs import Log
from renderers.catalog import Catalog, Facts, Placed
from renderers.manifest import ObjectId
from schemas.build import Build
from schemas.environment import DataPlane
from schemas.problem import Problem

log = Log(__name__)

RECORDS = tuple(Watched(API_VERSION, kind, NAMESPACE, "") for kind in ("Build", "Promotion"))

#: Seconds between two steps of what goes on by itself: soon after something has happened, otherwise now and then.
_SOON, _PATIENCE = 0.1, 2.0
#: And of what only an event can move on: watches tell of it.
_STILL = 30.0
#: Seconds until what did not work is tried again, and between two looks at what only Git knows.
_RETRY = 10.0
#: Everything is stepped so often, whatever was heard.
_WHOLE = 3600.0
#: Old records are put away so often.
_TIDY = timedelta(hours=6)


class Commits(NamedTuple):
    """The commits of branches that are built, and why others are not known."""

    known: Mapping[tuple[str, str], str]
    unresolved: desired.Unresolved


_NO_COMMITS = Commits({}, {})


@dataclass(slots=True)
class Command:
    """Whether this process may write: it leads, and it has read the records since it does.

    Without the records nobody knows what is served, so a new leader that has only specs would route it all away.
    Without an elector there is one replica, which leads.
    """

    elector: Elector | None
    lease_s: float
    _armed: float | None = None

    @property
    def leads(self) -> bool:
        """For keepers."""
        return self._armed is not None and self._armed == self.term

    @property
    def term(self) -> float | None:
        """Since when this replica leads, without a gap; None where it does not."""
        return 0.0 if self.elector is None else self.elector.since

    @property
    def is_first(self) -> bool:
        """For the conductor, who steps before anybody else writes."""
        return self.term is not None

    def arm(self, term: float | None) -> None:
        """What the records say was read and handed on in this term."""
        self._armed = term

    def keeps_all(self) -> str:
        """In the first lease period the former leader may not know yet that it leads no more."""
        since = self.elector.since if self.elector is not None else None
        left = 0.0 if since is None else since + self.lease_s - time.monotonic()
        return f"this replica leads for less than {self.lease_s:g} s, so nothing is deleted yet" if left > 0 else ""


def _pause(standing: Standing) -> float:
    """Seconds until the next step of a model, whatever the clock says."""
    if standing.busy:
        return _STILL if standing.is_still else _PATIENCE
    return _RETRY if standing.trouble else _WHOLE


@dataclass(slots=True)
class Conductor:
    """`turn` is called by one thread; the rest may be called by any. `home` is where the records are."""

    desire: Desire
    index: Index
    fleet: Fleet
    follower: Follower
    outside: Outside
    home: DataPlane
    command: Command
    clock: Callable[[], datetime]
    bell: Event
    told: Callable[[Progress], None]
    revised: Callable[[Delivered], None]
    checked: Callable[[Sequence[Problem]], None]
    only: frozenset[str] = frozenset()
    #: What has become of the rules of the organisation, in words.
    ruled: Callable[[Sequence[str]], None] = lambda _: None
    revision: Revision | None = None
    progress: Progress = field(default_factory=lambda: Progress(Recall(Facts(), {}, {})))
    #: Why the records cannot be reached.
    trouble: str = ""
    #: The file that the rules were taken from last, or were not, as it is broken.
    _rules_in: Files | None = None
    _commits: Commits = _NO_COMMITS
    _newer_commits: SimpleQueue[Commits] = field(default_factory=SimpleQueue)
    _asked_of: frozenset[tuple[str, str]] = frozenset()
    _automator: Automator | None = None
    _records: SimpleQueue[Heard] = field(default_factory=SimpleQueue)
    _stirs: SimpleQueue[str] = field(default_factory=SimpleQueue)
    #: Models whose Jobs, pods or routes have moved on since their last step.
    _stirred: set[str] = field(default_factory=set)
    #: When the next step of a model is due at the latest, and of all of them, in seconds of the monotonic clock. What
    #: is due at an instant is not here: the clock on the wall may be set.
    _due: dict[str, float] = field(default_factory=dict)
    _all_due: float = 0.0
    _stepped_at: float = 0.0
    _step_took: float = 0.0
    #: The records could not be read.
    _is_lost: bool = False
    _has_led: bool = False
    #: The commits that the branch was rewound from, and that it had when it was looked at last.
    _rewound_from: str = ""
    _rewound_to: str = ""
    _tidy_at: datetime | None = None
    #: Which of the builds are of branches, as of a catalog's builds.
    _branches: tuple[Mapping[str, Placed[Build]], frozenset[tuple[str, str]]] = ({}, frozenset())
    _again: tuple[str, Recall, Mapping[str, frozenset[ObjectId] | None] | None] | None = None
    _again_lock: Lock = field(default_factory=Lock)

    # -- for others -------------------------------------------------------------------------------------------------

    def take_commits(self, commits: Commits) -> None:
        """What Git has said of the branches that are built."""
        self._newer_commits.put(commits)
        self.bell.set()

    def stir(self, model: str) -> None:
        """Jobs, pods or routes of a model have moved on: a rollout, or another environment, may wait for that."""
        self.fleet.stir(model)
        self._stirs.put(model)
        self.bell.set()

    def hear_of_records(self, heard: Heard) -> None:
        """A build or a promotion has changed."""
        self._records.put(heard)
        self.bell.set()

    def again(self, environment: str) -> frozenset[ObjectId] | None:
        """What an environment should have by a second, whole reading of the commit. None where that failed."""
        with self._again_lock:
            revision, recall = self.revision, self.progress.recall
            if revision is None:
                return None
            if self._again is None or self._again[:2] != (revision.commit, recall):
                self._again = revision.commit, recall, self._read_again(revision.commit, recall)
            found = self._again[2]
        return None if found is None else found.get(environment, frozenset())

    def wait(self) -> None:
        """Until there is something to do."""
        due = min((self._all_due, *self._due.values()))
        if self.progress.busy:
            due = min(due, self._stepped_at + _PATIENCE)
        left = due - time.monotonic()
        if self.progress.until is not None:
            left = min(left, (self.progress.until - self.clock()).total_seconds())
        if self.bell.wait(max(_SOON, min(_PATIENCE, left))):
            self.bell.clear()

    # -- a turn -----------------------------------------------------------------------------------------------------

    def turn(self) -> None:
        """Takes in all that is new, and hands on what follows from it."""
        models, is_new = self._take_revisions()
        are_new = self._take_newer_commits()
        if self.revision is None:
            return
        term = self.command.term
        if term is None and self._automator is not None and self._has_led:
            # What it has asked is answered for another time.
            self._automator.close()
            self._automator, self._has_led, self._all_due = None, False, 0.0
            self._due.clear()
            self._stirred.clear()
        self._listen()
        now = time.monotonic()
        is_first = self.command.is_first and not self.command.leads
        is_lost = self._is_lost and is_new
        if are_new or models is None or is_first or is_lost or now >= self._all_due:
            is_read = self._step(now, None)
            self._hand_on(models)
            if is_read and term is not None and is_first:
                self.command.arm(term)
                self.fleet.ring()
        elif is_new:
            # What is new goes first: nobody waits for what is due elsewhere.
            if self._automator is not None and self._automator.concerns(models):
                self._step(now, models)
            self._hand_on(models)
        elif (due := self._whose_turn(now)) is not None:
            self._step(now, due)
            self._hand_on(models)
        self._forget_rewind()
        self.fleet.mind()

    def begin_again(self, why: str) -> None:
        """A turn has failed, and nobody knows how far it came: all that is known is read again, as a new process does.

        What was handed on stays meanwhile, and that a new process would not have.
        """
        self.trouble = why
        if self._automator is not None:
            self._automator.close()
        self._automator, self._all_due = None, 0.0
        self._due.clear()
        self._stirred.clear()
        self.follower.forget()
        self.follower.poll_now()

    def _forget_rewind(self) -> None:
        """When the branch has what it had, or nothing waits for a person any more."""
        if self.desire.rewound and self.command.leads and self.revision is not None:
            is_back = False
            if self._rewound_to != self.revision.commit:
                self._rewound_to = self.revision.commit
                is_back = self.follower.is_ancestor(self._rewound_from, self.revision.commit)
            if is_back or all(keeper.is_caught_up for keeper in list(self.fleet.keepers.values())):
                self.desire.rewound = ""

    def _hand_on(self, models: frozenset[str] | None) -> None:
        assert self.revision is not None
        with self.desire.lock:
            unresolved = self._unresolved(self.branches)
            moved = self.desire.update(self.revision.commit, models, self.progress.recall, unresolved)
        self.fleet.move(moved)

    def _take_newer_commits(self) -> bool:
        """What Git has said since the last turn. Whether it has said anything."""
        said = list(drained(self._newer_commits))
        for commits in said:
            # What was known once stays, while Git is away.
            known = {**self._commits.known, **commits.known}
            self._commits = Commits(known, {key: why for key, why in commits.unresolved.items() if key not in known})
        return bool(said)

    def _take_revisions(self) -> tuple[frozenset[str] | None, bool]:
        """Models whose specs have changed, None for all; and whether there is anything new."""
        models: frozenset[str] | None = frozenset()
        is_new = False
        while not self.follower.delivered.empty():
            delivered = self.follower.delivered.get()
            errors_before = self.desire.has_errors
            with self.desire.lock:
                if delivered.rewound:
                    self.desire.rewound, self._rewound_from = delivered.rewound, delivered.rewound_from
                self._take_rules(delivered)
                found = self._take_in(delivered)
                if found is None:
                    continue
                self.revision = delivered.revision
                # Of those that have only moved, problems tell where they stand.
                changed = None if found.models is None else found.models | found.moved
                self.desire.expect(changed)
                errors_now = self.desire.has_errors
            # What waited for all specs to be valid, need wait no more: or has to, from now on.
            models = None if changed is None or models is None else models | changed
            is_new = True
            self.revised(delivered)
            self.checked(self.desire.problems())
            if errors_before != errors_now:
                self.fleet.want_all()
                self._all_due = 0.0
        return models, is_new

    def _take_rules(self, delivered: Delivered) -> None:
        """The rules of a commit, before its specs are judged by them."""
        if delivered.rules == self._rules_in:
            return
        is_first, self._rules_in = self._rules_in is None, delivered.rules
        before, asked = self.desire.rules, rules_in(delivered.rules)
        now = policy.following(before, asked)
        if is_first and now.unknown:
            now = policy.following(self._rules_before(delivered.revision.commit), asked)
        self.desire.rules = now
        if not is_first:
            self.ruled([words for words, _ in policy.differing(before, now)])
            self.fleet.want_all()  # a rule about changes may let pass what waits, or forbid what is under way

    def _rules_before(self, commit: str) -> Policy:
        """The last rules of the branch that could be read: another process has gone by them until now."""
        try:
            earlier = (policy.following(policy.NONE, rules_in(found)) for found in self.follower.rules_before(commit))
            return next((rules for rules in earlier if not rules.unknown), policy.NONE)
        except MirrorError as error:
            log.warning("the rules before could not be read", revision=commit, error=str(error))
            return policy.NONE

    def _take_in(self, delivered: Delivered) -> Changed | None:
        """The specs of a commit. None where git could not be read: then all of them come with the next poll."""
        try:
            if delivered.changed is not None:
                return self.index.update(delivered.changed)
        except MirrorError as error:
            log.warning("what has changed could not be read", revision=delivered.revision.commit, error=str(error))
            self.follower.forget()
            return None
        assert delivered.files is not None
        self.desire.unreadable = delivered.files.problems
        return self._replace(delivered.files.content)

    def _replace(self, contents: Mapping[str, bytes]) -> Changed:
        """All specs anew. They stay, so the collector is spared from walking them, now and ever after."""
        gc.disable()
        try:
            return self.index.replace(contents)
        finally:
            gc.freeze()
            gc.enable()

    @property
    def branches(self) -> frozenset[tuple[str, str]]:
        """(repository, branch) of all builds that name no commit."""
        builds, branches = self._branches
        if builds is not self.index.catalog.builds:
            builds = self.index.catalog.builds
            specs = [placed.spec for placed in builds.values()]
            branches = frozenset((spec.repository, spec.branch) for spec in specs if spec.branch is not None)
            self._branches = builds, branches
        return branches

    def _unresolved(self, branches: Collection[tuple[str, str]]) -> desired.Unresolved:
        """A branch that Git was not asked about yet is not known either."""
        asked = set(branches) - self._commits.known.keys()
        return {key: self._commits.unresolved.get(key, "its commit is being looked up") for key in asked}

    # -- records ----------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        """What was heard of records, and of what they are about."""
        for heard in drained(self._records):
            if heard.how == "COMPLETE":
                self._all_due = 0.0
            elif self._automator is not None:
                self._automator.doubt(heard.target)
        self._stirred.update(drained(self._stirs))

    def _whose_turn(self, now: float) -> set[str] | None:
        """The models whose step is due, or that have waited for what has happened since; None: there is nothing to do.

        A step of no model is for records that have changed, and for what was asked or sent.
        """
        automator = self._automator
        if automator is None or self._is_lost:
            return None
        due = {model for model, at in self._due.items() if at <= now}
        self._stirred = {model for model in self._stirred if model in automator.open and automator.open[model].busy}
        # Where steps take long, what comes meanwhile is taken together.
        if now - self._stepped_at > max(_SOON, 3 * self._step_took):
            at = self.clock()
            due |= self._stirred
            due |= {model for model, one in automator.open.items() if one.until is not None and one.until <= at}
        goes_on = self.progress.busy and now - self._stepped_at >= _PATIENCE
        return due if due or goes_on or automator.doubts else None

    def _step(self, now: float, models: Collection[str] | None) -> bool:
        """One step of what builds and promotes itself; without leading, only a look at what the records mean.

        Of these models; None: of all. Whether the records could be read.
        """
        self._stepped_at = now
        catalog, facts = self.index.catalog, Facts(self._commits.known)
        try:
            self.progress = self._stepped(catalog, facts, models)
            self.trouble = "; ".join(f"{one.where}: {one.message}" for one in self.progress.trouble)
            self._is_lost = False
        except ApiError as error:
            self.progress = automate.out_of_reach(catalog, facts, error)
            self.trouble, self._is_lost = str(error), True
        self._step_took = time.monotonic() - now
        self._stirred -= self.progress.models
        self._plan_steps(now, models)
        self.told(self.progress)
        return not self._is_lost

    def _stepped(self, catalog: Catalog, facts: Facts, models: Collection[str] | None) -> Progress:
        self.fleet.plane(self.home).follow("records", RECORDS, self.hear_of_records)
        automator = self._automator
        if automator is None:
            automator = Automator(catalog, facts, self.outside, self.home, only=self.only, part=self._part)
            self._automator, models = automator, None
        automator.catalog, automator.facts = catalog, facts
        automator.complete = not self.desire.has_errors
        if not self.command.is_first:
            return automator.look(self.clock(), models, ask=False)
        self._has_led = True
        at = self.clock()
        if self._tidy_at is None or at >= self._tidy_at:
            automator.tidy_again()
            self._tidy_at = at + _TIDY
        return automator.step(self.fleet.writer(self.home), at, models)

    def _part(self, model: str) -> Catalog:
        return self.index.part((model,))

    def _plan_steps(self, now: float, models: Collection[str] | None) -> None:
        """When the next steps are due, if nothing happens before. `models`: those that were; None: all."""
        if self._is_lost:
            # The next step is one of all models.
            self._all_due = now + (_PATIENCE if self.progress.busy else _RETRY)
            self._due.clear()
            return
        if models is None:
            self._all_due = now + _WHOLE
        # Of one that has left there are no records any more, and no step was about it.
        for model in {*(models or ()), *self.progress.models}:
            self._due.pop(model, None)
            if self._automator is not None and model in self._automator.open:
                self._due[model] = now + _pause(self._automator.open[model])

    def close(self) -> None:
        """Lets messages go out that are under way."""
        if self._automator is not None:
            self._automator.close()

    # -- the second look --------------------------------------------------------------------------------------------

    def _read_again(self, commit: str, recall: Recall) -> Mapping[str, frozenset[ObjectId] | None] | None:
        try:
            files = self.follower.again(commit)
        except MirrorError:
            return None
        loaded = specs.parse(files.content, check, self.desire.rules.check)
        problems = [*files.problems, *loaded.problems]
        if any(problem.severity == "error" for problem in problems):
            return None
        wanted: dict[str, set[ObjectId]] = {name: set() for name in loaded.catalog.environments}
        unknown: set[str] = set()
        builds = [placed.spec for placed in loaded.catalog.builds.values()]
        unresolved = self._unresolved({(spec.repository, spec.branch) for spec in builds if spec.branch is not None})
        for unit in desired.build(loaded.catalog, recall.facts, unresolved, recall.unclear):
            if unit.problem or unit.waits:
                unknown.add(unit.environment)
            wanted[unit.environment] |= {manifest.id for manifest in unit.manifests}
        return {name: None if name in unknown else frozenset(ids) for name, ids in wanted.items()}
