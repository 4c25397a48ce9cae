"""What becomes of models in environments: who is answered by what, what is built, how it is served. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from reconciler.effects.audiences import membership
from reconciler.effects.fields import changes, cut, fields, listed
from reconciler.report import Effect, Topic
from renderers.catalog import BuildId, Catalog, Facts, Placed, Unit, units
from renderers.identity import identify
from renderers.manifest import Origin
from renderers.served import traffic_of
from schemas.build import Build
from schemas.variation import DeploymentSpecification, Traffic, Variation

#: Which fields of a variation another sentence is about.
_SAID = ("build", "automation", "traffic", "rollout", "deployment", "environments", "environment_overrides")

#: A sentence, and the spec that asks for it.
_Said = tuple[Topic, str, Origin | None]
#: The shares of one audience: variation -> what it gets, a shadow's copies beside its own.
_Shares = Mapping[str, tuple[Traffic, ...]]


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

    def identity(self, build: str) -> BuildId | None:
        """None: there is no such build here."""
        placed = self.unit.builds.get(build) if self.unit is not None else None
        return identify(placed.spec, Facts()) if placed is not None else None

    def named(self, build: str) -> str:
        """A build and its id, which tells two commits of it apart. One that only Git knows is not shown."""
        identity = self.identity(build)
        return f"build {build} ({identity.short})" if identity and not identity.provisional else f"build {build}"

    def serves(self, variation: Variation) -> str:
        if variation.build is not None:
            return self.named(variation.build)
        return f"what automation {variation.automation} promotes"

    def shares(self) -> dict[str | None, _Shares]:
        """Audience (None: everybody else) -> who gets which share of it."""
        found: dict[str | None, dict[str, tuple[Traffic, ...]]] = {}
        if self.unit is not None:
            for variation in self.unit.variations:
                for share in sorted(traffic_of(variation.spec, self.unit), key=lambda share: share.shadow):
                    theirs = found.setdefault(share.audience, {})
                    theirs[variation.spec.name] = (*theirs.get(variation.spec.name, ()), share)
        return dict(found)


def of_models(before: Catalog, after: Catalog) -> Iterator[Effect]:
    """Each model in each environment that stays or comes. One that goes takes its models along, and that is said."""
    old = {(unit.environment.spec.name, unit.model): unit for unit in units(before) if unit.model}
    new = {(unit.environment.spec.name, unit.model): unit for unit in units(after) if unit.model}
    for key in sorted(old.keys() | new.keys()):
        environment, model = key
        was, will = _Here(old.get(key)), _Here(new.get(key))
        if environment in after.environments:
            for topic, text, origin in (*_served(was, will), *_built(was, will), *_audiences(was, will)):
                yield Effect(environment, model, topic, text, origin)


# -- what is served -------------------------------------------------------------------------------------------------


def _served(was: _Here, will: _Here) -> Iterator[_Said]:
    old, new = was.variations, will.variations
    if old and not new:
        gone = f"variation {', '.join(old)} goes" if len(old) == 1 else f"variations {listed([*old])} go"
        yield Topic.REMOVED, f"nobody answers predictions any more: {gone}", None
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
    for topic, text, variations in _traffic(was.shares(), will.shares()):
        yield topic, text, next((origins[name] for name in variations if name in origins), None)


def _variation(name: str, was: _Here, old: Variation, will: _Here, placed: Placed[Variation]) -> Iterator[_Said]:
    new, origin = placed.spec, placed.origin
    moves = _moves(was, old, will, new)
    if moves:
        yield Topic.TRAFFIC, f"{name} {moves}", origin
    yield from ((Topic.TRAFFIC, f"{name}: {words}", origin) for words in _rollout(old, new, moves=bool(moves)))
    for words in fields(old, new, without=_SAID):
        yield Topic.SERVING, f"{name}: {words}", origin
    yield from ((topic, f"{name}: {words}", origin) for topic, words in _deployment(old.deployment, new.deployment))


def _moves(was: _Here, old: Variation, will: _Here, new: Variation) -> str:
    """How it comes to serve something else; "" where it does not."""
    before, now = was.serves(old), will.serves(new)
    if old.build is None or new.build is None:
        return f"moves from {before} to {now}{_in_steps(new)}" if before != now else ""
    if was.identity(old.build) == will.identity(new.build):
        return f"goes on with {before}, which is {now} from now on" if before != now else ""
    if before == now:
        return f"moves to {now}, built anew{_in_steps(new)}"
    return f"moves from {before} to {now}{_in_steps(new)}"


def _rollout(old: Variation, new: Variation, *, moves: bool) -> Iterator[str]:
    """How the next build takes over. Where it moves by a canary just now, that has been said with the move."""
    if not isinstance(old.rollout, str) and not isinstance(new.rollout, str):
        yield from changes("canary", old.rollout.canary, new.rollout.canary)
    elif old.rollout != new.rollout and not (moves and _in_steps(new)):
        yield f"the next build takes over {_in_steps(new).removeprefix(', ') or 'at once, when it is ready'}"


def _in_steps(variation: Variation) -> str:
    """`, as a canary of 5, 25 and 50 % of its requests, checked by errors`."""
    if isinstance(variation.rollout, str):
        return ""
    canary = variation.rollout.canary
    steps = listed([str(step.weight) for step in canary.steps])
    checks = f", checked by {listed([check.name for check in canary.checks])}" if canary.checks else ""
    return f", as a canary of {steps} % of its requests{checks}"


def _deployment(old: DeploymentSpecification, new: DeploymentSpecification) -> Iterator[tuple[Topic, str]]:
    # That of a variation which an automation implies also says where and what it is.
    # How many pods there are is up to its load, where it scales by that.
    scaled = ("number_of_pods",) if new.auto_scale_config is not None else ()
    for words in fields(old, new, without=("auto_scale_config", "variation_name", "environments", *scaled)):
        yield Topic.SERVING, words
    for words in changes("auto_scale_config", old.auto_scale_config, new.auto_scale_config):
        yield Topic.SCALING, words


# -- who gets it ----------------------------------------------------------------------------------------------------


def _traffic(
    old: Mapping[str | None, _Shares], new: Mapping[str | None, _Shares]
) -> Iterator[tuple[Topic, str, Sequence[str]]]:
    """Audience by audience, who gets which share, and whose shares change: what is not said stays as it is."""
    for audience in sorted(old.keys() | new.keys(), key=lambda name: (name is None, name)):
        was, will = old.get(audience, {}), new.get(audience, {})
        if was == will:
            continue
        who = f"audience {audience}" if audience is not None else "everybody else" if len(new) > 1 else "everybody"
        changed = [name for name in dict.fromkeys((*was, *will)) if was.get(name) != will.get(name)]
        if _answers(was) and not _answers(will):
            yield Topic.REMOVED, _gone(audience, was, new), changed
        elif not was:
            yield Topic.TRAFFIC, f"{who}: {_shares(will)}" if old else f"{who} gets {_shares(will)}", changed
        else:
            moved = [f"{name} {_percent(was.get(name))} -> {_percent(will.get(name))}" for name in changed]
            yield Topic.TRAFFIC, f"{who}: {', '.join(moved)}", changed


def _gone(audience: str | None, was: _Shares, new: Mapping[str | None, _Shares]) -> str:
    """Who answers instead of what answered an audience."""
    others = any(_answers(shares) for name, shares in new.items() if name not in (None, audience))
    if audience is None:
        return f"nobody answers {'everybody else' if others else 'predictions'} any more (was: {_shares(was)})"
    unless = ", unless another audience matches" if others else ""
    # A shadow's copies answer nobody.
    own = {
        name: tuple(one for one in theirs if one.weight and not one.shadow)
        for name, theirs in new.get(None, {}).items()
    }
    rest = {name: theirs for name, theirs in own.items() if theirs}
    instead = f"everybody else's shares answer it ({_shares(rest)})" if rest else "nobody answers it"
    return f"audience {audience} is not told apart any more (was: {_shares(was)}): {instead}{unless}"


def _answers(shares: _Shares) -> bool:
    return any(share.weight and not share.shadow for theirs in shares.values() for share in theirs)


def _shares(shares: _Shares) -> str:
    return ", ".join(f"{name} {_percent(theirs)}" for name, theirs in shares.items())


def _percent(shares: tuple[Traffic, ...] | None) -> str:
    words = [f"copies of {one.weight} %" if one.shadow else f"{one.weight} %" for one in shares or ()]
    return " and ".join(words) or "nothing"


# -- what is built --------------------------------------------------------------------------------------------------


def _built(was: _Here, will: _Here) -> Iterator[_Said]:
    old, new = was.builds, will.builds
    for name in sorted(old.keys() - new.keys()):
        yield Topic.BUILD, f"{was.named(name)} is not built here any more", None
    for name, placed in sorted(new.items()):
        before = old.get(name)
        if before is None:
            source = f"{placed.spec.git_uri} at {placed.spec.git_commit or f'branch {placed.spec.branch}'}"
            yield Topic.BUILD, f"{will.named(name)} is built, from {cut(source)}", placed.origin
        elif was.identity(name) != will.identity(name):
            what = "; ".join(fields(before.spec, placed.spec))
            instead = f", in place of {was.named(name)}" if was.named(name) != will.named(name) else " anew"
            yield Topic.BUILD, f"{will.named(name)} is built{instead}: {what}", placed.origin
        else:
            for words in fields(before.spec, placed.spec):
                yield Topic.BUILD, f"build {name}: {words}; it is not built again", placed.origin


def _audiences(was: _Here, will: _Here) -> Iterator[_Said]:
    if was.unit is None or will.unit is None:
        return
    for name, placed in will.unit.audiences.items():
        before = was.unit.audiences.get(name)
        if before is not None:
            for words in membership(before.spec, placed.spec):
                yield Topic.AUDIENCE, f"audience {name}: {words}", placed.origin
