"""The overview page: one HTML document that needs nothing else, for people who look. Pure.

Environments and what is in their way, models with what they serve and to whom, builds with their metrics, the gates'
decisions with their evidence, drift. It has no script, one style sheet, and no address but of itself and what specs
name by https. It is bounded whatever there is: lists show their beginnings, and models come in pages.

Nothing that somebody wrote means anything in it: what is shown is escaped by the template engine, and control
characters, bidirectional ones too, are shown as escapes.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qs, urlencode, urlsplit

from jinja2 import Environment as Engine
from jinja2 import StrictUndefined, Template
from markupsafe import Markup

from reconciler.promotion import Ledger, Place, stands
from reconciler.records import Build, BuildPhase, Outcome, Phase, Promotion, Verdict
from reconciler.report import standing as report
from reconciler.report.text import clean
from reconciler.telling.standing import Drift, EnvironmentStanding, Listed, Standing, State, lasted, listed
from renderers.catalog import Catalog, Facts, Placed, Unit, promotion_order, variations
from renderers.identity import identify
from renderers.served import traffic_of
from schemas.environment import Environment
from schemas.variation import Variation

CONTENT_TYPE = "text/html; charset=utf-8"

_FOLDER = files("reconciler.telling")
_CSS = (_FOLDER / "page.css").read_text(encoding="utf-8")
_CSS_HASH = base64.b64encode(hashlib.sha256(_CSS.encode()).digest()).decode()
#: What the page is served with: `Content-Security-Policy`.
CSP = (
    f"default-src 'none'; style-src 'sha256-{_CSS_HASH}'; img-src data:; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)

#: Models of one page; and, of anything else, what a person looks through.
MODELS, _ROWS = 50, 50
#: Decisions that are shown beside all models.
_DECISIONS = 20
#: Metrics of a model's builds, in a list of models and by itself.
_SPARKS, _ALL_SPARKS = 4, 24
#: Builds that a sparkline goes through.
_SERIES = 60

_LOOKS: Mapping[str, str] = {
    State.SYNCED: "good",
    State.PROGRESSING: "busy",
    State.SUSPENDED: "dim",
    State.BLOCKED: "warn",
    State.DEGRADED: "bad",
    State.UNREACHABLE: "bad",
    BuildPhase.SUCCEEDED: "good",
    BuildPhase.FAILED: "bad",
    BuildPhase.RUNNING: "busy",
    Phase.ROLLING_OUT: "busy",
    Phase.HELD: "warn",
    Phase.AWAITING_APPROVAL: "warn",
    Outcome.PASSED: "good",
    Outcome.REJECTED: "bad",
    Outcome.INCONCLUSIVE: "warn",
    Outcome.ERROR: "bad",
}
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?")


@dataclass(frozen=True, slots=True)
class Asked:
    """What part of it somebody wants to see. A model's name, or a part of names; an environment's name."""

    model: str = ""
    environment: str = ""
    page: int = 1

    @classmethod
    def of(cls, query: str) -> Self:
        """What a query string asks for. What means nothing is left out."""
        try:
            given = parse_qs(query, max_num_fields=20)
        except ValueError:  # more fields than that
            return cls()
        number = given.get("page", ["1"])[0]
        page = int(number) if re.fullmatch(r"[1-9][0-9]{0,5}", number) else 1
        return cls(given.get("model", [""])[0][:63].strip(), given.get("environment", [""])[0][:63].strip(), page)

    @property
    def is_narrowed(self) -> bool:
        """Whether it is less than everything."""
        return self != Asked()

    def link(self, **changes: Any) -> str:
        """A relative address that asks for something else in some points."""
        asked = replace(self, **changes)
        given = {"model": asked.model, "environment": asked.environment, "page": asked.page if asked.page > 1 else ""}
        return "?" + urlencode({name: value for name, value in given.items() if value})


def render(standing: Standing, ledger: Ledger, catalog: Catalog, now: datetime, asked: Asked = Asked()) -> bytes:
    """The page, to be served with CONTENT_TYPE and CSP.

    `catalog` is that of the commit that `standing` is about. What is served is what the `ledger` says was promoted,
    or else what the specs name.
    """
    view = _view(standing, ledger, catalog, asked)
    text = _template().render(view=view, standing=standing, now=now, since=_since(now), looks=_LOOKS)
    return text.encode(errors="backslashreplace")


@cache
def _template() -> Template:
    engine = Engine(autoescape=True, undefined=StrictUndefined, finalize=_shown, trim_blocks=True, lstrip_blocks=True)
    # Our own style sheet is the one text that is put in as it is.
    engine.globals["css"] = Markup(_CSS)  # noqa: S704 - a constant
    return engine.from_string((_FOLDER / "page.html.j2").read_text(encoding="utf-8"))


def _shown(value: Any) -> Any:
    """What stands for a value in the page, before it is escaped."""
    return value if isinstance(value, int | float) or hasattr(value, "__html__") else clean(str(value))


def _since(now: datetime) -> Callable[[datetime], str]:
    return lambda moment: lasted(now - moment)


# -- what is shown --------------------------------------------------------------------------------------------------


class _Waiting(NamedTuple):
    """What a person has to say something about."""

    title: str
    word: str
    message: str
    command: str = ""


class _Served(NamedTuple):
    """A variation in an environment."""

    environment: str
    variation: str
    description: str
    builds: list[_Standing]
    shares: list[_Share]
    note: str
    look: str


class _Standing(NamedTuple):
    name: str
    percent: int | None  #: None where it is all


class _Share(NamedTuple):
    audience: str
    weight: int
    shadow: bool


class _Spark(NamedTuple):
    """A metric over the builds of an automation. `points` fit into 120 by 24."""

    automation: str
    metric: str
    latest: str
    points: str
    label: str


class _Built(NamedTuple):
    """A line about a build."""

    short: str
    phase: str
    look: str
    at: datetime
    automation: str
    environment: str
    commit: str
    repository: str
    link: str
    metrics: list[tuple[str, str]]
    failure: str


class _Model(NamedTuple):
    name: str
    served: list[_Served]
    sparks: list[_Spark]
    builds: list[_Built]
    more_builds: int


class _Decision(NamedTuple):
    name: str
    model: str
    variation: str
    environment: str
    build: str
    verdict: Verdict
    look: str


class _View(NamedTuple):
    asked: Asked
    one: str  #: the model that the page is about, if it is about one
    repository: str
    environments: Listed[tuple[str, EnvironmentStanding]]
    waiting: Listed[_Waiting]
    models: list[_Model]
    total: int
    pages: int
    decisions: Listed[_Decision]
    drift: Listed[tuple[str, Drift]]


def _view(standing: Standing, ledger: Ledger, catalog: Catalog, asked: Asked) -> _View:
    order = promotion_order(catalog)
    everything = variations(catalog, order)
    names = _names(catalog, everything, asked)
    one = names[0] if len(names) == 1 and asked.model else ""
    pages = max(math.ceil(len(names) / MODELS), 1)
    asked = replace(asked, page=min(asked.page, pages))
    shown = names[(asked.page - 1) * MODELS :][:MODELS]
    environments = {name: where for name, where in standing.environments.items() if asked.environment in ("", name)}
    known = set(names) if asked.model else None
    waiting = tuple(_waiting(environments, ledger, asked, known))
    drift = tuple((name, drift) for name, where in environments.items() for drift in where.drift.shown)
    models = _models(
        shown, order=order, everything=everything, ledger=ledger, catalog=catalog, asked=asked, whole=bool(one)
    )
    return _View(
        asked,
        one,
        _https(standing.source.repository),
        listed(environments.items(), _ROWS),
        Listed(waiting[:_ROWS], len(waiting) + sum(where.limits.more for where in environments.values())),
        list(models),
        len(names),
        pages,
        listed(_decisions(ledger, asked, known), _ROWS if one else _DECISIONS),
        Listed(drift[:_ROWS], sum(where.drift.total for where in environments.values())),
    )


def _names(catalog: Catalog, everything: Mapping[tuple[str, str], Placed[Variation]], asked: Asked) -> list[str]:
    """The models that were asked for, sorted: the one of this very name, or else those whose names have it in them."""
    names = {model for (model, _), placed in everything.items() if _is_in(placed.spec, asked)}
    if not asked.environment:
        names |= {placed.spec.model for placed in catalog.builds.values()}
        names |= {placed.spec.model for placed in catalog.automations.values()}
    if asked.model in names:
        return [asked.model]
    return sorted(name for name in names if asked.model in name)


def _is_in(variation: Variation, asked: Asked) -> bool:
    return not asked.environment or asked.environment in variation.environments


def _waiting(
    environments: Mapping[str, EnvironmentStanding], ledger: Ledger, asked: Asked, known: set[str] | None
) -> Iterator[_Waiting]:
    for name, where in environments.items():
        for limit in where.limits.shown:
            yield _Waiting(name, limit.rule, limit.message, _command(report.approval(name, limit)))
    for promotion in sorted(ledger.promotions, key=lambda p: p.identity.name):
        phase = promotion.status.phase
        if phase in (Phase.AWAITING_APPROVAL, Phase.HELD) and _is_meant(promotion, asked, known):
            command = _command(f"reconcile approve {promotion.identity.name}")
            yield _Waiting(_place(promotion), phase, promotion.status.message, command)


def _command(command: str) -> str:
    """As it can be copied into a shell, whatever the names are."""
    return shlex.join(command.split(" ")) if command else ""


def _place(promotion: Promotion) -> str:
    spec = promotion.spec
    return f"{spec.model}, {spec.variation}: build {spec.build[:8]} to {spec.environment}"


def _is_meant(promotion: Promotion, asked: Asked, known: set[str] | None) -> bool:
    spec = promotion.spec
    return asked.environment in ("", spec.environment) and (known is None or spec.model in known)


def _decisions(ledger: Ledger, asked: Asked, known: set[str] | None) -> Iterable[_Decision]:
    """What gates and checks have said, the newest first."""
    found: list[_Decision] = []
    for promotion in ledger.promotions:
        if _is_meant(promotion, asked, known):
            spec, rollout = promotion.spec, promotion.status.rollout
            for verdict in (*promotion.status.gate.verdicts, *(rollout.checks if rollout else ())):
                place = (promotion.identity.name, spec.model, spec.variation, spec.environment, spec.build[:8])
                found.append(_Decision(*place, verdict, _LOOKS[verdict.outcome]))
    return sorted(found, key=lambda one: (one.verdict.at, one.name), reverse=True)


# -- models ---------------------------------------------------------------------------------------------------------


def _models(
    names: Sequence[str],
    *,
    order: Sequence[str],
    everything: Mapping[tuple[str, str], Placed[Variation]],
    ledger: Ledger,
    catalog: Catalog,
    asked: Asked,
    whole: bool,
) -> Iterator[_Model]:
    theirs: dict[str, list[Placed[Variation]]] = {name: [] for name in names}
    for (model, _), placed in sorted(everything.items()):
        if model in theirs:
            theirs[model].append(placed)
    built: dict[str, list[Build]] = {name: [] for name in names}
    for build in ledger.builds.values():
        if build.spec.model in built and build.spec.action == "Build":
            built[build.spec.model].append(build)
    for name in names:
        builds = sorted(built[name], key=lambda build: (build.spec.cause.at, build.identity.name))
        served = [
            row
            for environment in order
            if asked.environment in ("", environment)
            for row in _served(name, catalog.environments[environment], theirs[name], ledger, catalog)
        ]
        sparks = list(_sparks(builds))[: _ALL_SPARKS if whole else _SPARKS]
        newest = [_built(build) for build in reversed(builds[-_ROWS:])] if whole else []
        yield _Model(name, served, sparks, newest, len(builds) - len(newest) if whole else 0)


def _served(
    model: str,
    environment: Placed[Environment],
    theirs: Sequence[Placed[Variation]],
    ledger: Ledger,
    catalog: Catalog,
) -> Iterator[_Served]:
    where = environment.spec.name
    here = tuple(
        Placed(placed.spec.in_environment(where), placed.origin)
        for placed in theirs
        if where in placed.spec.environments
    )
    unit = Unit(environment, model, here)
    for variation in (placed.spec for placed in here):
        place = Place(environment.spec, variation)
        under_way = next(iter(ledger.under_way(place.key)), None)
        note = f"{under_way.status.phase}: {under_way.status.message}" if under_way else ""
        look = _LOOKS.get(under_way.status.phase, "dim") if under_way else ""
        shares = [
            _Share(f"audience {share.audience}" if share.audience else "everybody else", share.weight, share.shadow)
            for share in traffic_of(variation, unit)
        ]
        if len(here) == 1 and all(share.audience == "everybody else" for share in shares):
            shares = [share._replace(audience="all requests") for share in shares]
        standing = _standing(place, ledger, catalog)
        yield _Served(where, variation.name, variation.description, standing, shares, note.removesuffix(": "), look)


def _standing(place: Place, ledger: Ledger, catalog: Catalog) -> list[_Standing]:
    """The builds that stand there: what was promoted, or else what the spec names."""
    promoted = stands({place.key: place}, ledger)[place.key]
    if promoted:
        return [_Standing(build[:8], percent if percent < 100 else None) for build, percent in promoted]
    named = catalog.builds.get(place.variation.build or "")
    if named is None:
        return []
    identity = identify(named.spec, Facts())
    return [_Standing(named.spec.name if identity.provisional else f"{named.spec.name} {identity.short}", None)]


def _built(build: Build) -> _Built:
    spec, status = build.spec, build.status
    repository = str(spec.specification.get("git_uri", "")).partition("#")[0]
    failure = status.failure
    return _Built(
        build.short,
        status.phase,
        _LOOKS.get(status.phase, "dim"),
        status.finished_at or status.started_at or spec.cause.at,
        spec.automation,
        spec.environment,
        spec.commit[:12],
        repository,
        _https(repository),
        list(status.metrics.items())[:_ROWS],
        f"{failure.step}: {failure.message}".removeprefix(": ") if failure else "",
    )


def _sparks(builds: Iterable[Build]) -> Iterator[_Spark]:
    """Each metric of each automation, over its builds from the oldest to the newest."""
    series: dict[tuple[str, str], list[tuple[str, float]]] = {}
    for build in builds:
        for metric, text in build.status.metrics.items():
            value = _number(text)
            if value is not None:
                series.setdefault((build.spec.automation, metric), []).append((text, value))
    for (automation, metric), values in sorted(series.items()):
        drawn = [value for _, value in values[-_SERIES:]]
        low, high = min(drawn), max(drawn)
        latest = _short(values[-1][0])
        least, most = (_short(text) for text, _ in (min(values, key=_value), max(values, key=_value)))
        many = f"{len(values)} builds, from {least} to {most}" if len(values) > 1 else "1 build"
        whose = f" of {automation}" if automation else ""
        yield _Spark(automation, metric, latest, _points(drawn, low, high), f"{metric}{whose}: {latest}; {many}")


def _points(values: Sequence[float], low: float, high: float) -> str:
    """Of a line 120 wide and 24 high, with room for its own width. What never changed is a line in the middle."""
    height = high - low
    ys = [12.0 if height == 0 or math.isinf(height) else 22 - 20 * (value - low) / height for value in values]
    ys = ys if len(ys) > 1 else ys * 2
    return " ".join(f"{120 * number / (len(ys) - 1):.1f},{y:.1f}" for number, y in enumerate(ys))


def _number(text: str) -> float | None:
    """A metric as a number to draw; None where it is none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _value(one: tuple[str, float]) -> float:
    return one[1]


def _short(text: str) -> str:
    return text if len(text) <= 12 else f"{text[:11]}…"


def _https(address: str) -> str:
    """The address, if a person may follow it: by https, to a host, and without credentials; otherwise ""."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return ""
    is_safe = parts.scheme == "https" and _HOST.fullmatch(parts.netloc) is not None
    return address if is_safe and address.isascii() and address.isprintable() and " " not in address else ""
