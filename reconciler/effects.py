"""What a change of the specs does, in the words of the domain: two catalogs compared. Pure.

A reviewer wants to know who gets other predictions, what is built, what a build must achieve from now on, and what
goes. The manifests say all of it, in a language that few read. Where a spec stands in a file, and how it is written,
is no part of what it means, so a file that was renamed or reformatted has no effect.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from reconciler import diff
from reconciler.report import Effect, Topic
from renderers.catalog import Catalog, Facts, Placed, Unit, promotion_order, units
from renderers.identity import identify
from renderers.manifest import Origin
from renderers.served import traffic_of
from schemas.audience import Audience
from schemas.automation import Automation, DeploymentCondition, Trigger
from schemas.build import Build
from schemas.variation import DeploymentSpecification, Traffic, Variation

#: What takes more room than this in a sentence is cut: the spec itself has all of it.
_LONGEST = 120

#: Which fields of a spec another sentence is about, or nobody but people.
_SAID_ELSEWHERE = {
    "variation": ("build", "automation", "traffic", "rollout", "deployment", "environments", "environment_overrides"),
    "automation": ("deployment_condition", "trigger"),
}
_FOR_PEOPLE = frozenset({"name", "model", "description"})

_TAKES = {
    "ABOVE": "above",
    "BELOW": "below",
    "EQUALS": "equal to",
    "ABOVE_OR_EQUALS": "at least",
    "BELOW_OR_EQUALS": "at most",
}


def between(before: Catalog, after: Catalog) -> tuple[Effect, ...]:
    """What it does to go from the one to the other: environments in order of promotion, then models by name.

    Of each model, the most important first (`report.Topic`).
    """
    found = [*_environments(before, after), *_models(before, after), *_automations(before, after)]
    order = {name: number for number, name in enumerate(promotion_order(after))}
    topics = {topic: number for number, topic in enumerate(Topic)}
    return tuple(
        sorted(
            dict.fromkeys(found),
            key=lambda one: (order.get(one.environment, -1), one.environment, one.model, topics[one.topic]),
        )
    )


# -- environments ---------------------------------------------------------------------------------------------------


def _environments(before: Catalog, after: Catalog) -> Iterator[Effect]:
    for name in sorted(before.environments.keys() | after.environments.keys()):
        old, new = before.environments.get(name), after.environments.get(name)
        if new is None:
            yield Effect(name, "", Topic.REMOVED, "the environment goes, with all that runs in it")
        elif old is None:
            yield Effect(name, "", Topic.ENVIRONMENT, "the environment is new", new.origin)
        else:
            for words in _fields(old.spec, new.spec):
                yield Effect(name, "", Topic.ENVIRONMENT, words, new.origin)


# -- what is served and built ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Here:
    """A model in an environment, as one of the two catalogs has it."""

    unit: Unit | None

    @property
    def variations(self) -> dict[str, Placed[Variation]]:
        return {v.spec.name: v for v in self.unit.variations} if self.unit is not None else {}

    @property
    def builds(self) -> dict[str, Placed[Build]]:
        """Those that are made here."""
        return {name: self.unit.builds[name] for name in self.unit.runs_here} if self.unit is not None else {}

    def named(self, build: str) -> str:
        """A build and its id, which tells two commits of it apart."""
        placed = self.unit.builds.get(build) if self.unit is not None else None
        if placed is None:
            return f"build {build}"
        identity = identify(placed.spec, Facts())
        return f"build {build} ({identity.short})" if not identity.provisional else f"build {build}"

    def serves(self, variation: Variation) -> str:
        if variation.build is not None:
            return self.named(variation.build)
        return f"what automation {variation.automation} promotes"

    def shares(self) -> dict[str | None, dict[str, Traffic]]:
        """Audience (None: everybody else) -> variation -> its share."""
        found: dict[str | None, dict[str, Traffic]] = {}
        if self.unit is not None:
            for variation in self.unit.variations:
                for share in traffic_of(variation.spec, self.unit):
                    found.setdefault(share.audience, {})[variation.spec.name] = share
        return found


def _models(before: Catalog, after: Catalog) -> Iterator[Effect]:
    old = {(unit.environment.spec.name, unit.model): unit for unit in units(before) if unit.model}
    new = {(unit.environment.spec.name, unit.model): unit for unit in units(after) if unit.model}
    for key in sorted(old.keys() | new.keys()):
        environment, model = key
        was, will = _Here(old.get(key)), _Here(new.get(key))
        if environment not in after.environments:
            continue  # it goes with all that is in it, and that is said
        for topic, text, origin in (*_served(was, will), *_built(was, will), *_audiences(was, will)):
            yield Effect(environment, model, topic, text, origin)


_Said = tuple[Topic, str, Origin | None]


def _served(was: _Here, will: _Here) -> Iterator[_Said]:
    old, new = was.variations, will.variations
    if old and not new:
        gone = ", ".join(old)
        yield Topic.REMOVED, f"nobody answers predictions any more: {_called('variation', gone)} goes", None
        return
    for name, placed in old.items():
        if name not in new:
            yield Topic.REMOVED, f"variation {name} goes, which serves {was.serves(placed.spec)}", None
    for name, placed in new.items():
        if (before := old.get(name)) is None:
            yield Topic.TRAFFIC, f"variation {name} is new, and serves {will.serves(placed.spec)}", placed.origin
        else:
            yield from _variation(name, was, before.spec, will, placed)
    origins = {name: placed.origin for name, placed in new.items()}
    yield from ((Topic.TRAFFIC, words, next(iter(origins.values()))) for words in _traffic(was.shares(), will.shares()))


def _variation(name: str, was: _Here, old: Variation, will: _Here, placed: Placed[Variation]) -> Iterator[_Said]:
    new, origin = placed.spec, placed.origin
    if (before := was.serves(old)) != (now := will.serves(new)):
        yield Topic.TRAFFIC, f"{name} moves from {before} to {now}{_rollout(new)}", origin
    elif old.rollout != new.rollout:
        how = _rollout(new).removeprefix(", ") or "at once, when it is ready"
        yield Topic.TRAFFIC, f"{name}: the next build takes over {how}", origin
    for words in _fields(old, new, without=_SAID_ELSEWHERE["variation"]):
        yield Topic.SERVING, f"{name}: {words}", origin
    yield from ((topic, f"{name}: {words}", origin) for topic, words in _deployment(old.deployment, new.deployment))


def _deployment(old: DeploymentSpecification, new: DeploymentSpecification) -> Iterator[tuple[Topic, str]]:
    for words in _fields(old, new, without=("auto_scale_config",)):
        yield Topic.SERVING, words
    for words in _changes("auto_scale_config", old.auto_scale_config, new.auto_scale_config):
        yield Topic.SCALING, words


def _rollout(variation: Variation) -> str:
    """`, as a canary of 5, 25 and 50 % of its requests, checked by errors`."""
    if isinstance(variation.rollout, str):
        return ""
    canary = variation.rollout.canary
    steps = _listed([str(step.weight) for step in canary.steps])
    checks = f", checked by {_listed([check.name for check in canary.checks])}" if canary.checks else ""
    return f", as a canary of {steps} % of its requests{checks}"


def _traffic(
    old: Mapping[str | None, Mapping[str, Traffic]], new: Mapping[str | None, Mapping[str, Traffic]]
) -> Iterator[str]:
    """Audience by audience, who gets which share: what is not said of anybody stays as it is."""
    for audience in sorted(old.keys() | new.keys(), key=lambda name: (name is None, name)):
        was, will = old.get(audience, {}), new.get(audience, {})
        if was == will:
            continue
        who = f"audience {audience}" if audience is not None else "everybody else" if len(new) > 1 else "everybody"
        if not was or not will:
            shares = ", ".join(_share(name, share) for name, share in (will or was).items())
            words = f"{who}: {shares}" if will else f"{who} is not told apart any more (was: {shares})"
            yield words if was or old else f"{who} gets {shares}"
            continue
        moved = [
            f"{name} {_percent(was.get(name))} -> {_percent(will.get(name))}"
            for name in dict.fromkeys((*was, *will))
            if was.get(name) != will.get(name)
        ]
        yield f"{who}: {', '.join(moved)}"


def _share(name: str, share: Traffic) -> str:
    return f"{name} {_percent(share)}"


def _percent(share: Traffic | None) -> str:
    if share is None:
        return "nothing"
    return f"copies of {share.weight} %" if share.shadow else f"{share.weight} %"


def _built(was: _Here, will: _Here) -> Iterator[_Said]:
    old, new = was.builds, will.builds
    for name in sorted(old.keys() - new.keys()):
        yield Topic.BUILD, f"{was.named(name)} is not built here any more", None
    for name, placed in sorted(new.items()):
        before = old.get(name)
        if before is None:
            source = f"{placed.spec.git_uri} at {placed.spec.git_commit or f'branch {placed.spec.branch}'}"
            yield Topic.BUILD, f"{will.named(name)} is built, from {_cut(source)}", placed.origin
        elif identify(before.spec, Facts()).id != identify(placed.spec, Facts()).id:
            what = "; ".join(_fields(before.spec, placed.spec))
            yield Topic.BUILD, f"{will.named(name)} is built, in place of {was.named(name)}: {what}", placed.origin
        else:
            for words in _fields(before.spec, placed.spec):
                yield Topic.BUILD, f"build {name}: {words}; it is not built again", placed.origin


def _audiences(was: _Here, will: _Here) -> Iterator[_Said]:
    if was.unit is None or will.unit is None:
        return
    for name, placed in will.unit.audiences.items():
        before = was.unit.audiences.get(name)
        if before is not None:
            for words in _audience(before.spec, placed.spec):
                yield Topic.AUDIENCE, f"audience {name}: {words}", placed.origin


def _audience(old: Audience, new: Audience) -> Iterator[str]:
    if old.priority != new.priority:
        yield f"priority {old.priority} -> {new.priority}"
    was, will = _conditions(old), _conditions(new)
    gone, come = [one for one in was if one not in will], [one for one in will if one not in was]
    if gone or come:
        words = [*(f"no more {one}" for one in gone), *(f"now {one}" for one in come)]
        yield f"who is in it changes: {'; '.join(words)}"


def _conditions(audience: Audience) -> list[str]:
    found = []
    for one in audience.conditions.unary:
        name = one.operator.removeprefix("UNARY_OPERATOR_TYPE_").removesuffix("_MATCH").replace("_", " ").lower()
        found.append(_condition(one.key, name, one.operand if one.operand is not None else "", negate=one.negate))
    for two in audience.conditions.binary:
        between = f"{two.first_operand} to {two.second_operand}"
        found.append(_condition(two.key, "range", between, negate=two.negate))
    return found


def _condition(key: str, operator: str, operand: Any, *, negate: bool) -> str:
    value = f" {_value(operand)}" if operand != "" else ""
    return _cut(f"{key} {'not ' if negate else ''}{operator}{value}")


# -- automations ----------------------------------------------------------------------------------------------------


def _automations(before: Catalog, after: Catalog) -> Iterator[Effect]:
    for name in sorted(before.automations.keys() | after.automations.keys()):
        old, new = before.automations.get(name), after.automations.get(name)
        if new is None:
            assert old is not None
            text = f"automation {name} goes: nothing is built by it any more"
            yield Effect(_where(before, old.spec), old.spec.model, Topic.AUTOMATION, text)
            continue
        where, origin = _where(after, new.spec), new.origin
        if old is None:
            text = f"automation {name} is new, and runs {_trigger(new.spec.trigger)}"
            yield Effect(where, new.spec.model, Topic.AUTOMATION, text, origin)
            yield Effect(where, new.spec.model, Topic.GATE, f"{name}: {_gate(new.spec.deployment_condition)}", origin)
            continue
        was, will = _gate(old.spec.deployment_condition), _gate(new.spec.deployment_condition)
        if old.spec.deployment_condition != new.spec.deployment_condition:
            more = list(_changes("deployment_condition", old.spec.deployment_condition, new.spec.deployment_condition))
            before_it = was.removeprefix("a build is promoted ")
            text = f"{name}: {will}; before, {before_it}" if was != will else f"{name}: {'; '.join(more)}"
            yield Effect(where, new.spec.model, Topic.GATE, text, origin)
        if old.spec.trigger != new.spec.trigger:
            text = f"{name} runs {_trigger(new.spec.trigger)}; before, {_trigger(old.spec.trigger)}"
            yield Effect(where, new.spec.model, Topic.AUTOMATION, text, origin)
        for words in _fields(old.spec, new.spec, without=_SAID_ELSEWHERE["automation"]):
            yield Effect(where, new.spec.model, Topic.AUTOMATION, f"{name}: {words}", origin)


def _where(catalog: Catalog, automation: Automation) -> str:
    """Where it builds, if it says so itself: otherwise that is no news."""
    name = automation.environment or ""
    return name if name in catalog.environments else ""


def _trigger(trigger: Trigger) -> str:
    if trigger.scheduled is not None:
        when = trigger.scheduled
        if when.cron is not None:
            return f"at {when.cron} ({when.time_zone})"
        return f"every {when.interval}" if (when.interval or "")[:1].isdigit() else str(when.interval).lower()
    if trigger.metric is not None:
        metric = trigger.metric
        asked, than = _cut(_one_line(metric.sql_query)), _threshold(metric.threshold)
        return f"when the answer of {asked} is {_TAKES[metric.direction]} {than} (looked at: {metric.override_cron})"
    if trigger.git is not None:
        paths = f" that change {_listed(list(trigger.git.paths))}" if trigger.git.paths else ""
        return f"on new commits{paths}"
    return "when a person asks"


def _gate(condition: DeploymentCondition | None) -> str:
    """What a build must achieve."""
    if condition is None:
        return "every build that succeeds is promoted"
    takes = _TAKES[condition.direction]
    if condition.variation is not None:
        than = f"that of the build that {condition.variation} serves"
    else:
        than = _threshold(condition.threshold or "")
    tried = ", judged without effect" if condition.dry_run else ""
    return f"a build is promoted when its {condition.metric_name} is {takes} {than}{tried}"


def _threshold(threshold: str) -> str:
    text = _one_line(threshold)
    return text if len(text.split()) == 1 else f"the answer of {_cut(text)}"


# -- fields ---------------------------------------------------------------------------------------------------------


def _fields(old: BaseModel, new: BaseModel, without: Sequence[str] = ()) -> Iterator[str]:
    """`memory 2Gi -> 4Gi`, for each field of both that differs, at whatever depth."""
    theirs = type(old).model_fields
    for name in type(new).model_fields:
        if name in theirs and name not in _FOR_PEOPLE and name not in without:
            yield from _changes(name, getattr(old, name), getattr(new, name))


def _changes(name: str, old: Any, new: Any) -> Iterator[str]:
    if old == new:
        return
    if isinstance(old, BaseModel) and isinstance(new, BaseModel) and type(old) is type(new):
        yield from (f"{name}.{words}" for words in _fields(old, new))
    elif _is_map(old) and _is_map(new):
        was, will = dict(old), dict(new)
        for key in dict.fromkeys((*was, *will)):
            if diff.is_credential(key) and was.get(key) != will.get(key):
                yield f"{name}.{key} changes (hidden)"
            else:
                yield from _changes(f"{name}.{key}", was.get(key), will.get(key))
    else:
        yield f"{name} {_value(old)} -> {_value(new)}"


def _is_map(value: Any) -> bool:
    """The language keeps maps as pairs, which can be hashed."""
    return isinstance(value, tuple) and all(
        isinstance(one, tuple) and len(one) == 2 and isinstance(one[0], str) for one in value
    )


def _value(value: Any) -> str:
    if value in (None, (), ""):
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, BaseModel):
        given = ", ".join(f"{key} {_value(getattr(value, key))}" for key in sorted(value.model_fields_set))
        return _cut(f"({given})" if given else "(all defaults)")
    if isinstance(value, tuple):
        return _cut(f"[{', '.join(_value(one) for one in value)}]")
    return _cut(_one_line(f"{value:g}" if isinstance(value, float) else str(value)))


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _called(noun: str, names: str) -> str:
    return f"{noun}s {names}" if "," in names else f"{noun} {names}"
