"""Whether the specs hang together: unique names, references that lead somewhere, environments in an order."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple, TypeVar

from reconciler.specs.environments import circles, shared_namespaces, with_those_before
from reconciler.specs.names import Scope
from reconciler.specs.places import Places
from reconciler.specs.typed import Found, Key, plain_name
from reconciler.specs.wording import sentence
from renderers import audiences
from renderers.catalog import Catalog, Placed, promotion_order, units
from schemas.audience import Audience
from schemas.automation import Automation
from schemas.base import EnvVars, SpecModel
from schemas.build import NO_EFFECT, Build, BuildSpecification
from schemas.document import KINDS
from schemas.environment import Environment
from schemas.problem import Path, Problem
from schemas.spelling import nearest
from schemas.variation import Traffic, Variation


class Reference(NamedTuple):
    """A spec that another one names."""

    path: Path
    key: Key
    #: False: without it, the rest of the spec still means the same (one of several environments).
    needed: bool = True


@dataclass(slots=True)
class Specs:
    """The specs of a group that are still good, and why the others are not. Checks narrow it down.

    `around` are the valid environments and audiences that decide about them.
    """

    found: dict[Key, Found[Any]]
    around: Mapping[Key, Found[Any]] = field(default_factory=dict)
    doubtful_models: set[str] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)

    def of(self, kind: str) -> list[Found[Any]]:
        """Those of one kind, in the order of the files."""
        return [found for key, found in self.found.items() if key[0] == kind]

    def drop(self, key: Key) -> None:
        """Leaves a spec out."""
        dropped = self.found.pop(key, None)
        if dropped is not None:
            self.doubt(dropped.spec)

    def doubt(self, spec: SpecModel) -> None:
        """A model that loses a variation with a spec, given or implied, has none that can be trusted."""
        if isinstance(spec, Variation) or (isinstance(spec, Automation) and spec.deployment_spec is not None):
            self.doubtful_models.add(plain_name(spec.model))

    def drop_doubtful_models(self) -> None:
        """Leaves out every model of which something is missing that decides about the rest."""
        while dropped := [key for key, found in self.found.items() if self._is_doubtful(found.spec)]:
            for key in dropped:
                self.drop(key)

    def _is_doubtful(self, spec: SpecModel) -> bool:
        return isinstance(spec, Build | Variation | Automation) and plain_name(spec.model) in self.doubtful_models

    def catalog(self) -> Catalog:
        """What is left, and what is around it."""
        by_kind: dict[str, dict[Any, Placed[Any]]] = {kind: {} for kind in KINDS}
        for key, found in chain(self.around.items(), self.found.items()):
            by_kind[key[0]][name_in_catalog(key)] = found.placed
        return Catalog(**by_kind)


def name_in_catalog(key: Key) -> Any:
    """What a catalog knows a spec of that key by."""
    kind, model, name = key
    return (model, name) if kind == "variations" else name


def check(members: Sequence[Found[Any]], scope: Scope, places: Places) -> Specs:
    """The specs of a group whose names are their own and whose references hold."""
    specs, broken = _unique(members, scope, places)
    deployed_to = _deployed_to(specs)
    variations = {key for key in specs.found if key[0] == "variations"} | deployed_to.keys()
    references: dict[Key, tuple[Reference, ...]] = {}
    for found in members:
        references[found.key] = tuple(references_of(found.spec))
        problems = [
            *_unsound_audience(found, places),
            *_unknown(found, references[found.key], variations, scope, places),
            *_of_other_models(found, references[found.key], scope, places),
            *_wrong_target(found, specs, deployed_to, scope, places),
            *_never_verified(found, specs, scope, places),
            *_secrets_in_the_open(found, places),
            *_without_effect(found, specs, places),
        ]
        specs.problems += problems
        if any(problem.severity == "error" for problem in problems):
            broken.add(found.key)
    environments = specs.of("environments")
    broken |= circles(environments, specs.problems, places) | shared_namespaces(environments, specs.problems, places)
    for key in broken:
        specs.drop(key)
    specs.around = _around(references.values(), scope)
    drop_what_needs_them(specs)
    specs.drop_doubtful_models()
    _local_repositories(specs, places)
    return specs


def _unique(members: Sequence[Found[Any]], scope: Scope, places: Places) -> tuple[Specs, set[Key]]:
    """The specs by name, and the names that two of them claim: neither can be preferred."""
    specs = Specs({})
    claimed_twice: set[Key] = set()
    for found in members:
        if found.kind in ("builds", "variations", "automations") and scope.is_doubtful_model(found.spec.model):
            specs.doubtful_models.add(plain_name(found.spec.model))
        claims = scope.claims(found.key)
        if claims[0] is found:
            specs.found[found.key] = found
        else:
            message = f"{_called(found.key)} is defined twice; the first one is at {claims[0].placed.origin}."
            specs.problems.append(
                places.problem(
                    found.site, ("name",), "reference/duplicate-name", message, "rename or remove one of them"
                )
            )
        if len(claims) > 1:
            claimed_twice.add(found.key)
            specs.doubt(found.spec)
    return specs, claimed_twice


def _called(key: Key) -> str:
    kind, model, name = key
    return f'The {KINDS[kind][0]} "{name}"' + (f' of the model "{model}"' if model else "")


# -- references ---------------------------------------------------------------------------------------------------


def references_of(spec: SpecModel) -> Iterator[Reference]:
    """The specs that a spec names, in the order of what it says."""
    match spec:
        case Environment():
            for index, name in enumerate(spec.promote_after):
                yield Reference(("promote_after", index), ("environments", "", name))
        case Build():
            if spec.environment:
                yield Reference(("environment",), ("environments", "", spec.environment))
        case Variation():
            yield from _references_of_variation(spec)
        case Automation():
            yield from _references_of_automation(spec)


def _references_of_variation(spec: Variation) -> Iterator[Reference]:
    for index, name in enumerate(spec.environments):
        yield Reference(("environments", index), ("environments", "", name), needed=False)
    if spec.build:
        yield Reference(("build",), ("builds", "", spec.build))
    if spec.automation:
        yield Reference(("automation",), ("automations", "", spec.automation))
    yield from _references_of_traffic(spec.traffic, ("traffic",))
    for name, override in spec.environment_overrides:
        if override.build:
            yield Reference(("environment_overrides", name, "build"), ("builds", "", override.build))
        yield from _references_of_traffic(override.traffic, ("environment_overrides", name, "traffic"))


def _references_of_traffic(traffic: tuple[Traffic, ...] | None, path: Path) -> Iterator[Reference]:
    for index, share in enumerate(traffic or ()):
        if share.audience:
            yield Reference((*path, index, "audience"), ("audiences", "", share.audience))


def _references_of_automation(spec: Automation) -> Iterator[Reference]:
    if spec.environment:
        yield Reference(("environment",), ("environments", "", spec.environment))
    if spec.deployment_spec:
        for index, name in enumerate(spec.deployment_spec.environments):
            yield Reference(("deployment_spec", "environments", index), ("environments", "", name), needed=False)
    if spec.deployment_condition and spec.deployment_condition.variation:
        path = ("deployment_condition", "variation")
        yield Reference(path, ("variations", spec.model, spec.deployment_condition.variation))
    if spec.batch_execution:
        yield Reference(("batch_execution", "variation"), ("variations", spec.model, spec.batch_execution.variation))


def _deployed_to(specs: Specs) -> dict[Key, Found[Automation]]:
    """Variation -> the first automation that deploys to it. One that has no spec of its own is implied by that."""
    return {
        ("variations", found.spec.model, found.spec.deployment_spec.variation_name): found
        for found in reversed(specs.of("automations"))
        if found.spec.deployment_spec is not None
    }


def _around(references: Iterable[Iterable[Reference]], scope: Scope) -> dict[Key, Found[Any]]:
    """The valid audiences and environments that are named, and which environments decide about the order of these."""
    named = {reference.key for of_spec in references for reference in of_spec}
    audiences = {key: scope.audience(key) for key in named if key[0] == "audiences"}
    found = {key: audience for key, audience in audiences.items() if audience is not None}
    return found | with_those_before(named, scope.environments)


def _unknown(
    found: Found[Any], references: Iterable[Reference], variations: Set[Key], scope: Scope, places: Places
) -> Iterator[Problem]:
    """`variations` are those of the group, given or implied: nobody else may have one of its models."""
    for path, key, _ in references:
        kind, model, name = key
        if key in variations or (kind != "variations" and scope.claims(key)) or scope.is_doubtful(name):
            continue
        word = KINDS[kind][0]
        own = sorted(name for _, of, name in variations if of == model)
        known = own if kind == "variations" else scope.names_like(kind, name)
        message = f'There is no {word} "{name}"' + (f' of the model "{model}".' if model else ".")
        yield places.problem(found.site, path, f"reference/unknown-{word}", message, _known(name, known, word))


def _known(name: str, known: Sequence[str], word: str) -> str:
    if meant := nearest(name, known):
        return f"write {meant}"
    article = "an" if word[0] in "ae" else "a"
    if known and len(known) <= 5:
        return f"write {article} {word} that exists ({', '.join(known)}), or define this one"
    return f"write {article} {word} that exists, or define this one"


# -- what contradicts something else ---------------------------------------------------------------------------------


def _unsound_audience(found: Found[Any], places: Places) -> Iterator[Problem]:
    if isinstance(found.spec, Audience):
        try:
            audiences.check(found.spec)
        except audiences.Unsound as unsound:
            yield places.problem(found.site, ("conditions",), unsound.rule, sentence(unsound.message), unsound.hint)


#: Names of variables whose values are credentials; TOKENIZER and KEY_COLUMN are not among them.
CREDENTIAL = re.compile(
    r"(^|_)(TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?|API_?KEY|(ACCESS|PRIVATE|SECRET)_KEY)$", re.IGNORECASE
)


def _secrets_in_the_open(found: Found[Any], places: Places) -> Iterator[Problem]:
    for path, variables in _variables(found.spec):
        for name, value in variables:
            if CREDENTIAL.search(name) and not value.startswith("secret."):
                message = f"The variable {name} looks like a credential, which everybody can read here."
                hint = "write secret.NAME-OF-A-SECRET as its value"
                where = (*path, "env_vars", name)
                yield places.problem(found.site, where, "secret/in-the-open", message, hint, severity="warning")


def _variables(spec: Any) -> Iterator[tuple[Path, EnvVars]]:
    """Where a spec sets environment variables."""
    if isinstance(spec, Environment):
        yield ("defaults",), spec.defaults.env_vars
    elif isinstance(spec, Build):
        yield (), spec.env_vars
    elif isinstance(spec, Variation):
        yield ("deployment",), spec.deployment.env_vars
        for environment, override in spec.environment_overrides:
            if override.deployment is not None:
                yield ("environment_overrides", environment, "deployment"), override.deployment.env_vars
    elif isinstance(spec, Automation):
        for key in ("build_spec", "deployment_spec"):
            if (part := getattr(spec, key)) is not None:
                yield (key,), part.env_vars


def _without_effect(found: Found[Any], specs: Specs, places: Places) -> Iterator[Problem]:
    """What somebody has written and nothing obeys."""
    spec = found.spec
    if isinstance(spec, Build):
        yield from _unobeyed(found, spec, (), places)
    if not isinstance(spec, Automation):
        return
    if spec.build_spec is not None:
        yield from _unobeyed(found, spec.build_spec, ("build_spec",), places)
    if (target := spec.deployment_spec) is None:
        return
    key: Key = ("variations", spec.model, target.variation_name)
    variation = specs.found.get(key)
    if variation is None:
        return
    deployment = variation.spec.deployment
    given = [name for name in type(deployment).model_fields if name in target.model_fields_set]
    other = [name for name in given if getattr(target, name) != getattr(deployment, name)]
    if other:
        verb, it = ("has", "it") if len(other) == 1 else ("have", "them")
        message = f"{_listed(other)} {verb} no effect here: {_called(key)[0].lower()}{_called(key)[1:]} says otherwise."
        hint = f"write {it} into its deployment ({variation.placed.origin})"
        where = ("deployment_spec", other[0])
        yield places.problem(found.site, where, "reference/no-effect", message, hint, severity="warning")


def _unobeyed(found: Found[Any], part: BuildSpecification, path: Path, places: Places) -> Iterator[Problem]:
    for name in sorted(part.model_fields_set & NO_EFFECT.keys()):
        because, hint = NO_EFFECT[name]
        message = f"{name} has no effect here, because {because}."
        yield places.problem(found.site, (*path, name), "schema/no-effect", message, hint, severity="warning")


def _listed(names: Sequence[str]) -> str:
    """For people: "a, b and c"."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _of_other_models(
    found: Found[Any], references: Iterable[Reference], scope: Scope, places: Places
) -> Iterator[Problem]:
    for path, key, _ in references:
        if key[0] in ("builds", "automations") and (claims := scope.claims(key)):
            model, own = claims[0].spec.model, found.spec.model
            if model != own:
                message = f'{_called(key)} is of the model "{model}", and this is one of "{own}".'
                yield places.problem(found.site, path, "reference/other-model", message)


def _wrong_target(
    found: Found[Any],
    specs: Specs,
    deployed_to: Mapping[Key, Found[Automation]],
    scope: Scope,
    places: Places,
) -> Iterator[Problem]:
    """What is wrong with the variation that an automation deploys to."""
    spec = found.spec
    if not isinstance(spec, Automation) or spec.deployment_spec is None:
        return
    target = spec.deployment_spec
    key: Key = ("variations", spec.model, target.variation_name)
    path: Path = ("deployment_spec", "variation_name")
    variation = specs.found.get(key)
    if variation is None:
        # Of two automations with one name, the second is among the specs no more, and so is where it deploys to.
        first = deployed_to.get(key, found)
        if first is not found:
            message = f'The automation "{first.name}" deploys to the variation "{key[2]}" as well.'
            hint = "give each automation a variation of its own"
            yield places.problem(found.site, path, "reference/two-automations", message, hint)
        if not (target.environments or spec.environment or scope.has_environments()) and scope.is_whole():
            message, hint = "There is no environment to deploy to.", "define one: environments: [{name: local}]"
            yield places.problem(found.site, ("deployment_spec",), "reference/no-environment", message, hint)
        return
    hint = f"write automation: {spec.name} in the variation, or another variation_name here"
    if variation.spec.build is not None:
        # A pin is how a person stops promotions for a while; the automation goes on building.
        message = (
            f'{_called(key)} is pinned to the build "{variation.spec.build}": nothing is promoted to it meanwhile.'
        )
        yield places.problem(found.site, path, "reference/pinned", message, hint, severity="warning")
    elif variation.spec.automation != spec.name:
        message = f'{_called(key)} serves "{variation.spec.automation}" and not this automation.'
        yield places.problem(found.site, path, "reference/served-otherwise", message, hint)
    for index, environment in enumerate(target.environments):
        if environment not in variation.spec.environments:
            message = f"{_called(key)} is not served in {environment}."
            hint = f"add {environment} to the environments of the variation"
            where = ("deployment_spec", "environments", index)
            yield places.problem(found.site, where, "reference/not-served-there", message, hint)


def _never_verified(found: Found[Any], specs: Specs, scope: Scope, places: Places) -> Iterator[Problem]:
    """An environment of an automation whose builds can never come there, as nobody verifies them before."""
    spec = found.spec
    if not isinstance(spec, Automation) or spec.deployment_spec is None:
        return
    given = spec.deployment_spec.environments
    own = [v for v in specs.of("variations") if v.spec.model == spec.model and v.spec.automation == spec.name]
    target = next((v for v in own if v.spec.name == spec.deployment_spec.variation_name), None)
    where: dict[str, tuple[Found[Any], Path]] = {}
    if given:
        where = {name: (found, ("deployment_spec", "environments", index)) for index, name in enumerate(given)}
    elif target is not None:
        where = {name: (target, ("environments", index)) for index, name in enumerate(target.spec.environments)}
    elif spec.environment is not None:
        where = {spec.environment: (found, ("environment",))}
    verified = {name for v in own for name in v.spec.environments if not given or name in given} | where.keys()
    if spec.trigger.git is not None:
        # A commit makes the same build for an automation and for a spec that pins it.
        pins = (v.spec for v in specs.of("variations") if v.spec.model == spec.model and v.spec.build is not None)
        verified |= {name for pin in pins for name in pin.environments}
    for name, (place, path) in where.items():
        environment = scope.environments.get(("environments", "", name))
        missing = [before for before in environment.spec.promote_after if before not in verified] if environment else []
        if missing:
            before = " and ".join(missing)
            message = (
                f"{name} takes only builds that were verified in {before}, where the automation "
                f'"{spec.name}" deploys nothing: its builds wait for ever.'
            )
            hint = f"add {before} to these environments"
            if path == ("environment",):
                hint = f"write deployment_spec: {{environments: [{', '.join((*missing, name))}]}}"
            yield places.problem(place.site, path, "reference/never-verified", message, hint, severity="warning")


def _local_repositories(specs: Specs, places: Places) -> None:
    """A folder of this machine can be cloned where the embedded data plane builds, and nowhere else."""
    local = [f for kind in ("builds", "automations") for f in specs.of(kind) if _git_uri(f.spec).startswith("file:")]
    if not local:
        return
    catalog = specs.catalog()
    order = promotion_order(catalog)
    runs_in = {name: unit.environment.spec.name for unit in units(catalog) for name in unit.runs_here}
    for found in local:
        spec = found.spec
        if isinstance(spec, Automation):
            served = _served_in(spec, catalog)
            place = spec.environment or next((name for name in order if not served or name in served), "")
        else:
            place = runs_in.get(found.name, "")
        if place and catalog.environments[place].spec.data_plane.type != "embedded":
            path: Path = ("git_uri",) if isinstance(spec, Build) else ("build_spec", "git_uri")
            message = f"The build runs in {place}, whose cluster cannot reach a folder of this machine."
            specs.problems.append(
                places.problem(found.site, path, "build/local-repository", message, "write an https or ssh address")
            )
            specs.doubtful_models.add(plain_name(spec.model))
    specs.drop_doubtful_models()


def _git_uri(spec: Build | Automation) -> str:
    if isinstance(spec, Build):
        return spec.git_uri
    return spec.build_spec.git_uri if spec.build_spec else ""


def _served_in(spec: Automation, catalog: Catalog) -> tuple[str, ...]:
    if spec.deployment_spec is None or spec.deployment_spec.environments:
        return spec.deployment_spec.environments if spec.deployment_spec else ()
    variation = catalog.variations.get((spec.model, spec.deployment_spec.variation_name))
    return variation.spec.environments if variation else ()


# -- what is left -------------------------------------------------------------------------------------------------


def drop_what_needs_them(specs: Specs) -> None:
    """Leaves out what refers to something that is left out, until nothing does."""
    while True:
        there = specs.found.keys() | _deployed_to(specs).keys() | specs.around.keys()
        lacking = [
            key
            for key, found in specs.found.items()
            if any(one.needed and one.key not in there for one in references_of(found.spec))
        ]
        if not lacking:
            break
        for key in lacking:
            specs.drop(key)
    environments = {name for kind, _, name in specs.around if kind == "environments"}
    for key, found in list(specs.found.items()):
        narrowed = _narrowed(found.spec, environments)
        if narrowed is None:
            specs.drop(key)
        elif narrowed is not found.spec:
            specs.found[key] = found.replaced(narrowed)
            if isinstance(found.spec, Variation):
                _keep_builds_in_place(specs, found.spec, environments)


def _keep_builds_in_place(specs: Specs, variation: Variation, environments: Set[str]) -> None:
    """A build of an environment that is left out runs nowhere meanwhile: it must not move to the next one."""
    for name in variation.environments:
        key = ("builds", "", variation.in_environment(name).build or "")
        if name not in environments and key in specs.found and specs.found[key].spec.environment is None:
            build = specs.found[key].spec.model_copy(update={"environment": name})
            specs.found[key] = specs.found[key].replaced(build)


def _narrowed(spec: SpecModel, environments: Set[str]) -> SpecModel | None:
    """The spec without the environments that are left out; None if that would be another spec."""
    if isinstance(spec, Variation):
        return _in_these(spec, spec.environments, environments)
    if isinstance(spec, Automation) and spec.deployment_spec is not None:
        target = _in_these(spec.deployment_spec, spec.deployment_spec.environments, environments)
        if target is None or target is spec.deployment_spec:
            return spec if target else None
        return spec.model_copy(update={"deployment_spec": target})
    return spec


M = TypeVar("M", bound=SpecModel)


def _in_these(spec: M, wanted: tuple[str, ...], environments: Set[str]) -> M | None:
    left = tuple(name for name in wanted if name in environments)
    if left == wanted:
        return spec
    # No environment at all means something else: the default ones.
    return spec.model_copy(update={"environments": left}) if left else None
