"""What the reconciler counts, for Prometheus. One `Metrics` per process; nothing global, so that tests have their own.

Names follow https://prometheus.io/docs/practices/naming/: base units, `_total` for what only grows, and the moment at
which something happened rather than the time since. Labels are environments, clusters and words from closed lists:
never the name of an object, so that the number of series grows with environments and clusters only.

Threads may share it. An increment is one to two microseconds.
"""

from __future__ import annotations

import platform
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from typing import Literal, TypeAlias

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric
from prometheus_client.process_collector import ProcessCollector

#: What `Metrics.render` returns: the text format that every Prometheus reads.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

#: Whose git fetch: of the specs' repository, or of one that builds come from.
Repository: TypeAlias = Literal["specs", "builds"]

#: Upper bounds in seconds. A pass that finds nothing to do takes milliseconds, one that waits for a rollout minutes.
_PASS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
#: A request: from one to a near API server to the longest time-out.
_REQUEST = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_FETCH = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
#: From a commit to applied: seconds with a webhook, minutes with a poll, hours where somebody had to approve.
_COMMIT = (1, 2.5, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 4 * 3600, 24 * 3600)


class _Registry(CollectorRegistry):
    """Without the `_created` series, which the text format cannot use and which would double the small ones."""

    def collect(self) -> Iterator[Metric]:
        for metric in super().collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric


class _Tally:
    """A gauge whose last label is a word. A word that is not counted any more becomes 0, and stays a series."""

    def __init__(self, gauge: Gauge) -> None:
        self.gauge = gauge
        self._words: frozenset[str] = frozenset()

    def set(self, before: tuple[str, ...], counts: Mapping[str, int]) -> None:
        self._words |= counts.keys()
        for word in self._words:
            self.gauge.labels(*before, word).set(counts.get(word, 0))


class Metrics:
    """Each method tells one thing that happened, or how something stands now."""

    def __init__(self, version: str) -> None:
        self._registry = registry = _Registry()
        ProcessCollector(registry=registry)
        GCCollector(registry=registry)

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"trueup_{name}", what, labels, registry=registry)

        def gauge(name: str, what: str, *labels: str) -> Gauge:
            return Gauge(f"trueup_{name}", what, labels, registry=registry)

        def histogram(name: str, what: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"trueup_{name}", what, labels, registry=registry, buckets=buckets)

        build_info = gauge("build_info", "Which program this is; always 1.", "version", "python")
        build_info.labels(version, platform.python_version()).set(1)
        self._leader = gauge("leader", "1 where this replica may write, 0 where it stands by.")

        self._reconcile = histogram(
            "reconcile_duration_seconds", "A pass over an environment: observe, plan, apply.", _PASS, "environment"
        )
        self._objects = _Tally(
            gauge("objects", "Objects that specs ask for, by how they stand.", "environment", "state")
        )
        self._unsettled = gauge("unsettled_units", "Models that wait for their turn or for the cluster.", "environment")
        self._blocked = gauge("blocked_prunes", "Deletions that a guard holds back until a person says.", "environment")
        self._forbidden = gauge("forbidden_changes", "Changes that a rule of the organisation forbids.", "environment")
        self._drift_found = counter("drift_found_total", "Objects found changed by others.", "environment", "kind")
        self._drift_mended = counter("drift_mended_total", "Objects set right after that.", "environment", "kind")
        self._drift_oldest = gauge(
            "oldest_drift_timestamp_seconds",
            "When the oldest drift that is not mended was found; no series where there is none.",
            "environment",
        )

        # Alerts of each model ask for it by this name and these labels: `renderers.metrics.GATE_VERDICTS`.
        self._gates = counter(
            "gate_verdicts_total", "Verdicts of gates.", "model", "environment", "automation", "outcome"
        )
        #: The automations whose gates have said anything.
        self._judged: set[str] = set()
        self._promotions = _Tally(gauge("promotions", "Promotions on record, by phase.", "environment", "phase"))
        self._builds = _Tally(gauge("builds", "Builds on record, by phase.", "phase"))

        self._applied = gauge(
            "applied_revision_info", "The commit that is wholly applied; always 1.", "environment", "revision"
        )
        #: By environment, as it was told last: a series that is set anew is away for a moment.
        self._stood: dict[str, str] = {}
        self._applied_at = gauge(
            "applied_revision_timestamp_seconds", "When that commit was wholly applied.", "environment"
        )
        self._committed_at = gauge("applied_commit_timestamp_seconds", "When that commit was made.", "environment")
        self._latency = histogram(
            "commit_to_applied_seconds", "From the making of a commit to wholly applied.", _COMMIT, "environment"
        )

        self._fetches = counter("git_fetches_total", "Questions to Git servers, answered or not.", "repository")
        self._fetch_failures = counter("git_fetch_failures_total", "Those without an answer.", "repository")
        self._fetch_duration = histogram(
            "git_fetch_duration_seconds", "How long they took, answered or not.", _FETCH, "repository"
        )
        self._spec_problems = gauge("spec_problems", "What is wrong with the newest specs.", "severity")
        self._webhooks = counter("webhooks_total", "Webhook requests, by what became of them.", "outcome")

        self._requests = counter("api_requests_total", "Requests to API servers.", "cluster", "verb", "code")
        self._request_duration = histogram(
            "api_request_duration_seconds", "How long they took.", _REQUEST, "cluster", "verb"
        )
        self._request_limit = gauge(
            "api_requests_in_flight_limit", "How many requests may be under way at once.", "cluster"
        )
        self._watch_restarts = counter("watch_restarts_total", "Watches begun again.", "cluster", "reason")
        self._events_dropped = counter("events_dropped_total", "Events that were not written: too many.")

        self._of_environment: tuple[MetricWrapperBase, ...] = (
            *(self._reconcile, self._objects.gauge, self._unsettled, self._blocked, self._forbidden),
            *(self._drift_found, self._drift_mended, self._drift_oldest, self._gates, self._promotions.gauge),
            *(self._applied, self._applied_at, self._committed_at, self._latency),
        )

    def render(self) -> bytes:
        """Everything, as CONTENT_TYPE says."""
        return generate_latest(self._registry)

    # -- this replica --

    def leading(self, leads: bool) -> None:
        """Whether this replica may write."""
        self._leader.set(leads)

    # -- environments --

    def reconciled(self, environment: str, seconds: float) -> None:
        """A pass over an environment has ended."""
        self._reconcile.labels(environment).observe(seconds)

    def objects(self, environment: str, counts: Mapping[str, int]) -> None:
        """How many objects are in which state; a state that is not in `counts` has none."""
        self._objects.set((environment,), counts)

    def unsettled(self, environment: str, count: int) -> None:
        """How many models of the environment are on the agenda: the depth of its queue."""
        self._unsettled.labels(environment).set(count)

    def blocked(self, environment: str, count: int) -> None:
        """How many deletions a guard holds back."""
        self._blocked.labels(environment).set(count)

    def forbidden(self, environment: str, count: int) -> None:
        """How many changes a rule of the organisation forbids."""
        self._forbidden.labels(environment).set(count)

    def drift_found(self, environment: str, kind: str) -> None:
        """An object of that kind was changed by somebody else."""
        self._drift_found.labels(environment, kind).inc()

    def drift_mended(self, environment: str, kind: str) -> None:
        """An object of that kind is again as its spec says."""
        self._drift_mended.labels(environment, kind).inc()

    def oldest_drift(self, environment: str, found: datetime | None) -> None:
        """When the oldest drift that still stands was found; None where none does."""
        if found:
            self._drift_oldest.labels(environment).set(found.timestamp())
        else:
            self._drift_oldest.remove_by_labels({"environment": environment})

    def stands(self, environment: str, revision: str, committed: datetime) -> None:
        """The commit that an environment has whole, whichever process has applied it. May be told again and again."""
        if self._stood.get(environment) == revision:
            return
        self._stood[environment] = revision
        self._applied.remove_by_labels({"environment": environment})
        self._applied.labels(environment, revision).set(1)
        self._committed_at.labels(environment).set(committed.timestamp())

    def applied(self, environment: str, revision: str, committed: datetime, applied: datetime) -> None:
        """A commit is wholly applied. Told once for each: it is an observation of the latency too."""
        self.stands(environment, revision, committed)
        self._applied_at.labels(environment).set(applied.timestamp())
        # Whoever commits has a clock of their own.
        self._latency.labels(environment).observe(max(0.0, (applied - committed).total_seconds()))

    def forget_environment(self, environment: str) -> None:
        """No spec names the environment any more: its series end."""
        self._stood.pop(environment, None)
        for metric in self._of_environment:
            metric.remove_by_labels({"environment": environment})

    # -- models --

    def gate(self, model: str, environment: str, automation: str, outcome: str) -> None:
        """A gate has said Passed, Rejected, Inconclusive or Error."""
        self._gates.labels(model, environment, automation, outcome).inc()
        self._judged.add(automation)

    def keep_gates(self, automations: Collection[str]) -> None:
        """All other automations have left the specs: their series end."""
        for automation in self._judged - set(automations):
            self._gates.remove_by_labels({"automation": automation})
            self._judged.discard(automation)

    def promotions(self, environment: str, phases: Mapping[str, int]) -> None:
        """How many promotions into the environment are in which phase; one that is not in `phases` has none."""
        self._promotions.set((environment,), phases)

    def builds(self, phases: Mapping[str, int]) -> None:
        """How many builds are in which phase; one that is not in `phases` has none."""
        self._builds.set((), phases)

    # -- git --

    def fetched(self, repository: Repository, seconds: float, *, failed: bool = False) -> None:
        """A Git server was asked for commits."""
        self._fetches.labels(repository).inc()
        self._fetch_duration.labels(repository).observe(seconds)
        failures = self._fetch_failures.labels(repository)  # the series begins at 0, for `rate` to see the first one
        if failed:
            failures.inc()

    def webhook(self, outcome: str) -> None:
        """A webhook request was pushed, ignored, refused or limited."""
        self._webhooks.labels(outcome).inc()

    # -- specs --

    def spec_problems(self, errors: int, warnings: int) -> None:
        """What is wrong with the specs of the newest commit: how many problems of each severity."""
        self._spec_problems.labels("error").set(errors)
        self._spec_problems.labels("warning").set(warnings)

    # -- clusters --

    def request(self, cluster: str, verb: str, code: int | str, seconds: float) -> None:
        """A request has ended: the status of its answer, or a word for why there is none ("timeout", "reset")."""
        self._requests.labels(cluster, verb, code).inc()
        self._request_duration.labels(cluster, verb).observe(seconds)

    def request_limit(self, cluster: str, limit: float) -> None:
        """How many requests the flow control admits at once."""
        self._request_limit.labels(cluster).set(limit)

    def watch_restarted(self, cluster: str, reason: str) -> None:
        """A watch has begun again, because it was renewed, closed, expired or silent, or ran into an error."""
        self._watch_restarts.labels(cluster, reason).inc()

    def event_dropped(self) -> None:
        """An Event was not written."""
        self._events_dropped.inc()
