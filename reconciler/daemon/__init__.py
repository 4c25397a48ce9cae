"""The reconciler in the cluster: follows a branch, and keeps every environment as its specs say.

    follower -> conductor -> keepers            one thread each, a keeper for each environment
    (git)       (specs,      (watch, plan,
                 records)     apply)

`conductor` says what is wanted; `keeper` makes it so; `fleet` knows who keeps what, in which cluster (`plane`);
`scribe` tells. This module puts them together, and takes them apart in the order that loses nothing.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from threading import Event, Thread

from reconciler import ledger, policy, queries
from reconciler.cluster import ApiError, Writer, is_of_one
from reconciler.clusters import Clusters
from reconciler.daemon.branches import Branches
from reconciler.daemon.conductor import Command, Conductor
from reconciler.daemon.desire import Desire
from reconciler.daemon.fleet import Fleet
from reconciler.daemon.follower import Follower, SourceError
from reconciler.daemon.health import Health
from reconciler.daemon.scribe import Reporter, Scribe
from reconciler.daemon.secrets import Secrets
from reconciler.daemon.ties import Ties
from reconciler.lease import CONNECTIONS, RETRY, TIMEOUTS, Durations, Elector, identity
from reconciler.outside import Outside
from reconciler.promotion import Ledger
from reconciler.readiness import Readiness
from reconciler.source.mirror import Mirror, checked_path
from reconciler.specs.index import Index
from reconciler.specs.places import Places
from reconciler.specs.references import Specs
from reconciler.system import ensure_namespace
from reconciler.telling import standing
from reconciler.telling.events import Events
from reconciler.telling.logs import Log
from reconciler.telling.metrics import Metrics
from reconciler.web.server import Telling, Web, Webhook
from renderers.catalog import Catalog
from renderers.manifest import ObjectId
from schemas.environment import DataPlane

log = Log(__name__)

_REPORT_SECONDS = 2.0
#: After a turn that has failed.
_RETRY_SECONDS = 10.0
#: For the Events of all clusters, at the end: another replica waits to lead, and a cluster may be away.
_LAST_WORDS_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Settings:
    """What is asked of a daemon.

    `home` is a folder for the mirror of the repository and caches; all of it can be lost. `git_secret`,
    `webhook_secret` and `signers_secret` are names of Secrets beside the records. `elect`: several replicas may run,
    and one of them writes.
    """

    repository: str
    branch: str = "main"
    path: str = ""
    interval_s: float = 60.0
    home: Path = Path(".trueup")
    kubeconfig: str | None = None
    context: str | None = None
    environments: frozenset[str] = frozenset()
    mirrors: Mapping[str, str] = field(default_factory=dict)
    git_secret: str = ""
    webhook_secret: str = ""
    signers_secret: str = ""
    address: str = "127.0.0.1:8080"
    webhook_address: str = ""
    elect: bool = False
    durations: Durations = field(default_factory=Durations)


def run(settings: Settings, version: str, clock: Callable[[], datetime], stop: Event) -> None:
    """Until `stop` is set. Raises `ApiError`, ValueError and OSError where it cannot even begin."""
    with ExitStack() as closing:
        _Daemon(settings, version, clock, stop, closing).run()


class _Daemon:
    def __init__(
        self, settings: Settings, version: str, clock: Callable[[], datetime], stop: Event, closing: ExitStack
    ) -> None:
        self.settings, self.clock, self.stop, self.closing = settings, clock, stop, closing
        self.clusters = Clusters(settings.home, settings.kubeconfig, settings.context)
        closing.callback(self.clusters.close)
        self.home = _home_plane(settings)
        self.health, self.metrics = Health(), Metrics(version)
        self.elector = self._elector() if settings.elect else None
        self.index = Index(self._content, queries.check, self._check)
        self.desire = Desire(self.index)
        self.scribe = Scribe(self.metrics, self._events_of, self._home_events)
        self.bell = Event()
        self.command = Command(self.elector, settings.durations.lease)
        ties = Ties(self.command, self.scribe, self._again, self._built, self._moved, self.health)
        fence = self.elector.fence if self.elector else None
        self.fleet = Fleet(
            self.clusters, self.desire, ties, fence, self.bell.set, self.scribe.requested, self._events,
            settings.environments, self.metrics.watch_restarted,
        )  # fmt: skip
        self.secrets = Secrets(
            partial(self.fleet.reader, self.home), settings.git_secret, settings.webhook_secret, settings.signers_secret
        )
        self.fleet.plane(self.home)  # without a way to the records there is nothing to begin with
        self.known: dict[str, str] = {}
        self.follower = self._follower()
        outside = Outside(self.fleet.reader, settings.home, settings.mirrors)
        self.conductor = Conductor(
            self.desire,
            self.index,
            self.fleet,
            self.follower,
            outside,
            self.home,
            self.command,
            clock,
            self.bell,
            self.scribe.progressed,
            self.scribe.revised,
            self.scribe.checked,
            settings.environments,
            self.scribe.ruled,
        )
        self.branches = Branches(
            self._catalog,
            self.fleet.reader,
            settings.mirrors,
            settings.interval_s,
            self.conductor.take_commits,
            lambda failed, seconds: self.metrics.fetched("builds", seconds, failed=failed),
            self.health.beat,
        )
        self.reporter = Reporter(
            self.conductor,
            self.fleet,
            self.metrics,
            clock,
            settings.repository,
            settings.branch,
            self.scribe.applied,
            self.known,
        )

    def run(self) -> None:
        """Starts everything, goes round, and ends everything."""
        web = self._web()
        web.start()
        self.closing.callback(web.stop)
        log.info("begins", repository=self.settings.repository, branch=self.settings.branch, ports=web.ports)
        threads = [Thread(target=loop, name=name, daemon=True) for name, loop in self._loops().items()]
        electing = Event()
        voter = None
        if self.elector is not None:
            voter = Thread(target=self.elector.run, args=(electing,), name="elector", daemon=True)
            threads.append(voter)
        for thread in threads:
            thread.start()
        if self.elector is None:
            self.metrics.leading(True)
            with suppress(ApiError):  # who writes into it says what is wrong
                ensure_namespace(self.fleet.writer(self.home))
        reported = 0.0
        revision, branches = "", frozenset[tuple[str, str]]()
        ending = Thread(target=self._end, args=(electing, voter), name="end", daemon=True)
        ending.start()
        while not self.stop.is_set():
            self.health.beat("conductor")
            dead = [thread.name for thread in threads if not thread.is_alive()]
            if dead and not self.stop.is_set():
                raise RuntimeError(f"a thread has ended that should not: {', '.join(dead)}")
            self._turn()
            if self.conductor.revision is not None and self.conductor.revision.commit != revision:
                revision = self.conductor.revision.commit
                if not self.desire.has_errors:  # what cannot be read has not left
                    self.metrics.keep_gates(self.index.catalog.automations.keys())
                if self.conductor.branches != branches:
                    branches = self.conductor.branches
                    self.branches.look_now()
                for name in sorted(self.settings.environments - self.desire.environments().keys()):
                    log.warning("no spec names an environment that was asked for", environment=name)
            if time.monotonic() - reported > _REPORT_SECONDS:
                self._report()
                reported = time.monotonic()
            self.conductor.wait()
        ending.join()
        self.fleet.stop()  # whom the last turn has begun
        self.conductor.close()
        self.fleet.close()

    def _turn(self) -> None:
        """A fault of ours must not end the process: a new one might meet it before it has the last good revision."""
        try:
            self.conductor.turn()
        except Exception as error:  # whatever it is, the keepers keep what was handed on
            log.exception("a turn ended with an error of the program")
            self.conductor.begin_again(f"a turn ended with an error of the program: {type(error).__name__}: {error}")
            self.stop.wait(_RETRY_SECONDS)

    def _end(self, electing: Event, voter: Thread | None) -> None:
        """When it is told to end: another replica waits to lead, and a turn may take seconds. What that one would still
        write is fenced then, and what is in flight is bound to the version that it was decided on, or can be repeated.

        Whoever stops it, a signal's handler even, sets one event; and the conductor sleeps on another.
        """
        self.stop.wait()
        self.bell.set()
        log.info("ends")
        self.follower.stop()
        self.branches.stop()
        self.fleet.stop()
        self._say_last_words()
        electing.set()  # nothing is written any more, and who takes over need not wait for what follows
        if voter is not None:
            voter.join(5.0)

    def _say_last_words(self) -> None:
        """All clusters at once: one that is away must not use up the time of the others."""
        sinks = [plane.events for plane in self.fleet.planes.values()]
        for events in sinks:
            events.close(0.0)
        until = time.monotonic() + _LAST_WORDS_SECONDS
        for events in sinks:
            events.close(max(0.0, until - time.monotonic()))

    def _report(self) -> None:
        if self.command.leads:
            try:
                self.reporter.write(self.fleet.writer(self.home), self.elector.me if self.elector else "")
            except ApiError as error:
                log.debug("the standing could not be written", error=str(error))
            except Exception:  # what only tells must not end what is done
                log.exception("the standing could not be told")

    def _loops(self) -> dict[str, Callable[[], None]]:
        return {"source": self.follower.run, "branches": self.branches.run}

    # -- parts ------------------------------------------------------------------------------------------------------

    def _elector(self) -> Elector:
        connection = self.clusters.connection_apart(self.home, CONNECTIONS, TIMEOUTS, RETRY)
        self.closing.callback(connection.close)
        writer = Writer(connection)
        with suppress(ApiError):  # the election says what is wrong, again and again
            ensure_namespace(writer)
        me = identity()

        def changed(leads: bool) -> None:
            self.scribe.led(leads, me)
            if not leads:  # what it knew is another replica's to tell
                for _, environment in list(self.fleet.keepers):
                    self.metrics.forget_environment(environment)
            self.bell.set()

        durations = self.settings.durations
        return Elector(writer, me, now=self.clock, durations=durations, on_change=changed, on_push=self._poll)

    def _follower(self) -> Follower:
        settings = self.settings
        mirror = Mirror(
            settings.home / "specs",
            settings.repository,
            settings.branch,
            path=settings.path,
            mirrors=settings.mirrors,
            allow_file=True,  # whoever runs this says so on the command line, and no spec does
        )
        return Follower(
            mirror,
            settings.interval_s,
            self.secrets.credential,
            self.secrets.who_may_sign,
            self.bell,
            self.health.beat,
            self.scribe.polled,
            self.clock,
            self._last_known,
            policy.places(checked_path(settings.path)),
        )

    def _web(self) -> Web:
        from reconciler.telling.page import CSP  # noqa: PLC0415 - as in `_page`

        telling = Telling(self.settings.address, self.health.judge, self._ready, self._metrics, self._page, CSP)
        webhook = None
        if self.settings.webhook_secret:
            webhook = Webhook(
                self.settings.webhook_address,
                self.settings.repository,
                self.settings.branch,
                self.secrets.webhook_secrets,
                self._pushed,
                self.clock,
                self.metrics.webhook,
            )
        return Web(telling, webhook)

    def _pushed(self) -> None:
        """A webhook was called. The Service in front of it does not know who leads."""
        self._poll()
        if self.elector is not None:
            self.elector.poke()

    def _poll(self) -> None:
        self.follower.poll_now()

    # -- what others ask --------------------------------------------------------------------------------------------

    def _ready(self) -> tuple[bool, str]:
        if self.conductor.revision is None:
            return False, self.follower.trouble or "the repository is being fetched"
        if not self.fleet.is_seen:
            return False, "the clusters are being looked at"
        # It stays ready: a right that is missing for one kind is no reason to stop looking after all others.
        return True, f"ready, but {unseen}" if (unseen := self.fleet.unseen) else "ready"

    def _metrics(self) -> bytes:
        for plane in self.fleet.planes.values():
            self.metrics.request_limit(plane.connection.host, plane.connection.limit)
        return self.metrics.render()

    def _page(self, query: str) -> bytes:
        from reconciler.telling import page  # noqa: PLC0415 - a template engine that most processes never need

        try:
            records, _ = ledger.read(self.fleet.reader(self.home))
        except ApiError:
            records = Ledger({}, ())
        now = self.reporter.standing(self.elector.holder if self.elector else "")
        return page.render(now, records, self._catalog(), now.at, page.Asked.of(query))

    def _content(self, name: str) -> bytes:
        revision = self.conductor.revision
        return self.follower.content(revision.commit, name) if revision is not None else b""

    def _check(self, specs: Specs, places: Places) -> None:
        """By the rules of the organisation, as they are by then."""
        self.desire.rules.check(specs, places)

    def _catalog(self) -> Catalog:
        with self.desire.lock:
            return self.index.catalog

    def _again(self, environment: str) -> frozenset[ObjectId] | None:
        return self.conductor.again(environment)

    def _built(self, build: str) -> Readiness | None:
        return self.fleet.built(build)

    def _moved(self, model: str) -> None:
        self.conductor.stir(model)

    def _events(self, writer: Writer) -> Events:
        return Events(writer, self.clock, self.metrics.event_dropped, instance=socket.gethostname())

    def _events_of(self, environment: str) -> Events | None:
        plane = self.fleet.plane_of(environment)
        return plane.events if plane is not None else None

    def _home_events(self) -> Events | None:
        plane = self.fleet.planes.get(self.clusters.meant(self.home))
        return plane.events if plane is not None else None

    def _last_known(self) -> Iterable[str]:
        """What environments had by the word of an earlier process, so that a rewound branch is noticed by this one.

        Raises SourceError while the cluster does not answer: without it, nothing can be done about any commit.
        """
        try:
            body = self.fleet.reader(self.home).get(standing.OBJECT)
            known = standing.from_config_map(body).environments if body is not None else {}
        except standing.StandingError:
            return ()
        except ApiError as error:
            if not is_of_one(error):
                raise SourceError(f"what was applied before cannot be read: {error}") from None
            log.warning("what was applied before is not known", why=str(error))
            return ()
        self.known |= {name: one.revision for name, one in known.items() if one.revision}
        return set(self.known.values())


def _home_plane(settings: Settings) -> DataPlane:
    """Where the records are: in the cluster that this runs in, or that a kubeconfig names; else on this machine."""
    in_cluster = "KUBERNETES_SERVICE_HOST" in os.environ
    if settings.kubeconfig is not None or in_cluster:
        return DataPlane(type="kubernetes", context=settings.context)
    return DataPlane(type="embedded")
