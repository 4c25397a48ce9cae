"""What becomes of automations: when something is built or predicted by itself, and what a build must achieve. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.effects.fields import changes, cut, fields, listed, one_line, words_of
from reconciler.report import Effect, Topic
from reconciler.report.shortened import quoted
from renderers.catalog import Catalog, Placed, automation_environment, promotion_order, variations
from schemas.automation import Automation, BatchExecution, DeploymentCondition, Trigger

_SAID = ("deployment_condition", "trigger", "enabled")

_TAKES = {
    "ABOVE": "above",
    "BELOW": "below",
    "EQUALS": "equal to",
    "ABOVE_OR_EQUALS": "at least",
    "BELOW_OR_EQUALS": "at most",
}


def of_automations(before: Catalog, after: Catalog) -> Iterator[Effect]:
    """Each one that comes, changes or goes. Its gate is told wherever it promotes to; the rest, where it builds."""
    was, will = _Side(before), _Side(after)
    for key in sorted(was.automations.keys() | will.automations.keys()):
        name, model = key
        old, new = was.automations.get(key), will.automations.get(key)
        if new is None:
            assert old is not None
            where = was.builds_in(old.spec)
            where = where if where in after.environments else ""
            yield Effect(where, model, Topic.AUTOMATION, f"automation {name} goes: {_ends(old.spec)}")
            continue
        where = will.builds_in(new.spec)
        # What it deploys as is told of the variation that it implies.
        implied = was.implies(name) and will.implies(name)
        said = _new(new.spec) if old is None else _changed(old.spec, new.spec, deploys_as_told=implied)
        yield from (Effect(where, model, Topic.AUTOMATION, text, new.origin) for text in said)

        places, places_before = will.promotes_to(new.spec), was.promotes_to(old.spec) if old is not None else ()
        for place in places:
            gates = _gates(old.spec, new.spec) if old is not None and place in places_before else [_gate_of(new.spec)]
            yield from (Effect(place, model, Topic.GATE, f"{name}: {text}", new.origin) for text in gates)
        for place in places_before:
            if place in after.environments and place not in places:
                yield Effect(place, model, Topic.GATE, f"{name} promotes nothing here any more", new.origin)


class _Side:
    """The automations of one of the two catalogs. One that is of another model is another one."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog, self._order = catalog, promotion_order(catalog)
        self._variations = variations(catalog, self._order)
        self._implying = {
            placed.spec.automation for key, placed in self._variations.items() if key not in catalog.variations
        }
        self.automations: dict[tuple[str, str], Placed[Automation]] = {
            (name, placed.spec.model): placed for name, placed in catalog.automations.items()
        }

    def implies(self, name: str) -> bool:
        """Whether no spec has the variation that it deploys to."""
        return name in self._implying

    def builds_in(self, automation: Automation) -> str:
        """Where it builds, or predicts on files; "" where there is no environment."""
        name = automation_environment(self._catalog, automation, self._order)
        return name if name in self._catalog.environments else ""

    def promotes_to(self, automation: Automation) -> tuple[str, ...]:
        """In order of promotion."""
        target = automation.deployment_spec
        if target is None:
            return ()
        variation = self._variations.get((automation.model, target.variation_name))
        named = target.environments or (variation.spec.environments if variation is not None else ())
        return tuple(name for name in self._order if name in named) or (self.builds_in(automation),)


def _new(spec: Automation) -> Iterator[str]:
    at_once = ", and right away for the first time" if spec.execute_immediately else ""
    off = "; it is switched off" if not spec.enabled else ""
    yield f"automation {spec.name} is new, and {_does(spec)}{at_once}{off}"


def _changed(old: Automation, new: Automation, *, deploys_as_told: bool) -> Iterator[str]:
    if old.enabled != new.enabled:
        off = "is switched off: it does nothing by itself any more"
        yield f"{new.name} {f'is switched on, and {_does(new)}' if new.enabled else off}"
    if old.trigger != new.trigger:
        was, will = _trigger(old.trigger), _trigger(new.trigger)
        if was != will:
            yield f"{new.name} runs {will}; before, {was}"
        if was == will or "…" in was + will:  # what differs may be beyond the cut
            yield from (f"{new.name}: {words}" for words in changes("trigger", old.trigger, new.trigger))
    said = (*_SAID, "deployment_spec") if deploys_as_told else _SAID
    yield from (f"{new.name}: {words}" for words in fields(old, new, without=said))


def _ends(spec: Automation) -> str:
    if spec.batch_execution is not None:
        return f"nothing is predicted by it on {_input(spec.batch_execution)} any more"
    return "nothing is built by it any more"


def _does(spec: Automation) -> str:
    does = f"predicts on {_input(spec.batch_execution)}" if spec.batch_execution is not None else "runs"
    return f"{does} {_trigger(spec.trigger)}"


def _input(batch: BatchExecution) -> str:
    data = batch.data_specifications
    return f"{data.source_bucket}/{data.source_folder.lstrip('/')}"


def _trigger(trigger: Trigger) -> str:
    if trigger.scheduled is not None:
        when = trigger.scheduled
        if when.cron is not None:
            return f"at {quoted(when.cron)} ({when.time_zone})"
        return f"every {when.interval}" if (when.interval or "")[:1].isdigit() else str(when.interval).lower()
    if trigger.metric is not None:
        metric = trigger.metric
        asked, than = quoted(cut(one_line(metric.sql_query))), _threshold(metric.threshold)
        looked_at = quoted(metric.override_cron)
        return f"when the answer of {asked} is {_TAKES[metric.direction]} {than} (looked at: {looked_at})"
    if trigger.git is not None:
        paths = f" that change {listed(trigger.git.paths)}" if trigger.git.paths else ""
        return f"on new commits{paths}"
    return "when a person asks"


# -- gates ----------------------------------------------------------------------------------------------------------

#: What the sentence about a gate says, and what is said beside it.
_COVERED = ("metric_name", "direction", "variation", "threshold", "dry_run")
_BESIDE = ("on_no_baseline", "cast", "timeout_seconds")


def _gate_of(spec: Automation) -> str:
    """The gate of an automation that is new in a place, whole."""
    condition = spec.deployment_condition
    given = [
        f"{name} {words_of(getattr(condition, name))}"
        for name in _BESIDE
        if condition is not None and getattr(condition, name) != type(condition).model_fields[name].default
    ]
    return "; ".join((_gate(condition), *given))


def _gates(old: Automation, new: Automation) -> Iterator[str]:
    was, will = old.deployment_condition, new.deployment_condition
    if was == will:
        return
    before, now = _gate(was), _gate(will)
    if was is None or will is None:
        yield f"{_gate_of(new)}; before, {before.removeprefix('a build is promoted ')}"
        return
    if before != now:
        yield f"{now}; before, {before.removeprefix('a build is promoted ')}"
    covered = _COVERED if before != now and "…" not in before + now else ()  # what differs may be beyond the cut
    yield from fields(was, will, without=covered)


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
    text = one_line(threshold)
    return text if len(text.split()) == 1 else f"the answer of {quoted(cut(text))}"
