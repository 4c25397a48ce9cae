"""What an organisation asks of its specs and plans, in rules of its own: read, and held against them. Pure.

    api_version: v1
    policies:
    - name: two-pods
      kind: variation
      when: environment.name == "production"
      require: spec.deployment.number_of_pods >= 2
      message: Production needs at least two pods.

A rule that is broken is a problem as any other, at the line of the spec. What an error is about is not applied.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from reconciler import cel, plan
from reconciler.plan import Change, Guard, Op
from reconciler.specs import typed
from reconciler.specs.places import Places
from reconciler.specs.references import Specs, drop_what_needs_them
from reconciler.specs.typed import Found
from reconciler.specs.wording import of_types
from renderers.catalog import Catalog
from schemas import reader
from schemas.automation import Automation
from schemas.build import Build
from schemas.document import KINDS
from schemas.environment import Environment
from schemas.policy import Policies
from schemas.policy import Policy as Spec
from schemas.problem import Problem
from schemas.variation import Variation

#: Where a repository keeps its rules, unless told otherwise. Hidden, so that it is not taken for a file of specs.
FILE = ".trueup-policy.yaml"


@dataclass(frozen=True, slots=True)
class Rule:
    """A policy, ready to be asked."""

    spec: Spec
    file: str
    line: int
    when: Any  #: a compiled expression; None: always
    require: Any
    is_of_base: bool = False  #: it is not, or not so, in the file of the head
    effort: cel.Effort = field(default_factory=cel.Effort, compare=False, repr=False)  #: of all rules of the file

    @property
    def names(self) -> frozenset[str]:
        """The names in its expressions, variables among them: what none of them names need not be made for CEL."""
        return cel.names(self.spec.when or "") | cel.names(self.spec.require)

    @property
    def id(self) -> str:
        """What its problems are known by."""
        return f"policy/{self.spec.name}"

    @property
    def takes_approvals(self) -> bool:
        """Whether a person may let pass what it forbids."""
        return "approvals" in self.names

    def is_broken(self, context: Any) -> bool:
        """Whether something (of `cel.context`) is as it must not be. Raises `cel.FailedError` where nobody can say."""
        with self.effort.of(self.spec.name):
            if self.when is not None and not cel.is_true(self.when, context):
                return False
            return not cel.is_true(self.require, context)

    def sentence(self, where: str) -> str:
        """What is wrong, and where."""
        whose = ", as the base has the rule" if self.is_of_base else ""
        return f"{_in_a_line(self.spec.message).rstrip('.')}{f' ({where})' if where else ''}{whose}."

    @property
    def hint(self) -> str:
        """What to do about it."""
        return _in_a_line(self.spec.hint).rstrip(".")

    def problem(self, message: str, rule: str = "") -> Problem:
        """A problem of the rule itself, or of what stands in no file."""
        return Problem(self.file, self.line, 1, (), rule or self.id, message, self.hint, self.spec.severity)


@dataclass(frozen=True, slots=True)
class Policy:
    """All rules of a file, and what is wrong with the file.

    `enforce`: specs that break a rule are left out, as if they were not valid; without it, they are only told of.
    `approvals` are what a person has given with --approve: rules may ask for some of their own. `unknown`: why nobody
    can say which rules there are, so that no change can be let pass; "" where they are known.
    """

    rules: tuple[Rule, ...] = ()
    problems: tuple[Problem, ...] = ()
    enforce: bool = True
    approvals: frozenset[str] = field(default_factory=frozenset)
    unknown: str = ""

    def check(self, specs: Specs, places: Places) -> None:
        """Adds the problems of the specs that break a rule: a `specs.index.Check`."""
        if not self.rules:
            return
        for key, found in list(specs.found.items()):
            problems = list(self._of_spec(found, specs, places))
            specs.problems += problems
            if self.enforce and any(problem.severity == "error" for problem in problems):
                specs.drop(key)
        drop_what_needs_them(specs)
        specs.drop_doubtful_models()

    def beside(self, base: Policy) -> Policy:
        """With the rules that the base has otherwise: who changes or removes a rule is still judged by it."""
        ours = {rule.spec for rule in self.rules}
        theirs = (replace(rule, is_of_base=True) for rule in base.rules if rule.spec not in ours)
        return replace(self, rules=(*self.rules, *theirs))

    @property
    def is_of_changes(self) -> bool:
        """Whether a rule is about what is planned."""
        return bool(self.unknown) or any(rule.spec.kind == "change" for rule in self.rules)

    def judge(self, changes: Sequence[Change], catalog: Catalog) -> Judged:
        """The changes, held where they break a rule, and why. Where the rules are unknown, all that would do something
        are held; but requests still move between the builds of a variation, as whatever else holds a change lets them.
        """
        if not self.is_of_changes:
            return Judged(tuple(changes))
        judged: list[Change] = []
        problems: dict[Problem, None] = {}
        guards: dict[Guard, bool] = {}
        for change in changes:
            if self.unknown and change.is_action and change.traffic is None:
                guards[Guard(change.environment, "policy/unknown", self.unknown)] = False
                judged.append(replace(change, held=self.unknown))
                continue
            found = [] if change.op is Op.UNCHANGED else list(self._of_change(change, catalog))
            problems |= dict.fromkeys(one.problem for one in found)
            errors = [one for one in found if one.problem.severity == "error"]
            held = "; ".join(one.words for one in errors)
            if held and not change.held:
                guard = Guard(change.environment, errors[0].problem.rule, held)
                guards[guard] = all(one.takes_approvals for one in errors)
                judged.append(replace(change, held=held))
            else:
                judged.append(change)
        limits = (plan.with_approval(guard, judged) if may else guard for guard, may in guards.items())
        return Judged(tuple(judged), tuple(problems), tuple(limits))

    def _of_spec(self, found: Found[Any], specs: Specs, places: Places) -> Iterator[Problem]:
        kind = KINDS[found.kind][0]
        rules = [rule for rule in self.rules if rule.spec.kind == kind]
        names = frozenset[str]().union(*(rule.names for rule in rules))
        asked = [(name, cel.context(variables)) for name, variables in _of(found.spec, specs, names)] if rules else []
        for rule in rules:
            try:
                broken = [name for name, context in asked if rule.is_broken(context)]
            except cel.FailedError as error:
                message = f"{rule.id} cannot be asked of {kind} {found.name}: {error}."
                yield rule.problem(message, _FAILED)
                continue
            if broken:
                below = tuple((rule.spec.at or "").split(".")) if rule.spec.at else ()
                message = rule.sentence(", ".join(filter(None, broken)))
                yield places.problem(found.site, below, rule.id, message, rule.hint, severity=rule.spec.severity)

    def _of_change(self, change: Change, catalog: Catalog) -> Iterator[_Broken]:
        rules = [rule for rule in self.rules if rule.spec.kind == "change"]
        if not rules:
            return
        placed = catalog.environments.get(change.environment)
        names = frozenset[str]().union(*(rule.names for rule in rules))
        variables = {
            "change": _change(change),
            "manifest": change.manifest.body if change.manifest is not None and "manifest" in names else None,
            "environment": _data(placed.spec if placed is not None and "environment" in names else None),
            "approvals": sorted(self.approvals),
        }
        context = cel.context(variables)
        for rule in rules:
            try:
                is_broken = rule.is_broken(context)
            except cel.FailedError as error:
                message = f"{rule.id} cannot be asked of {change.id} in {change.environment}: {error}."
                yield _Broken(rule.problem(message, _FAILED), f"{rule.id} cannot be asked: {error}")
                continue
            if not is_broken:
                continue
            message = rule.sentence(f"{change.op} {change.id} in {change.environment}")
            problem, origin = rule.problem(message), change.origin
            if origin is not None:
                problem = replace(problem, file=origin.file, line=origin.line or 1, column=origin.column)
            yield _Broken(problem, rule.sentence("").rstrip("."), rule.takes_approvals)


def _in_a_line(text: str) -> str:
    """People write longer texts as blocks of YAML, which end with a line break."""
    return " ".join(text.split())


class _Broken(NamedTuple):
    """A rule that a change breaks."""

    problem: Problem
    words: str  #: the same for all changes that break it so
    takes_approvals: bool = False


class Judged(NamedTuple):
    """What rules say of changes.

    `problems` has one for each change and rule. `guards`: what holds changes, once for what they break and where; the
    message is that of the changes that it holds (`Change.held`). They are for whoever knows no words of `approvals`: a
    person lifts one by its id, if all of its rules name `approvals`.
    """

    changes: tuple[Change, ...]
    problems: tuple[Problem, ...] = ()
    guards: tuple[Guard, ...] = ()


NONE = Policy()


def differing(base: Policy, head: Policy) -> Iterator[tuple[str, Rule | None]]:
    """What becomes of each rule that the two have otherwise: in words, and the rule as the head has it."""
    old, new = ({rule.spec.name: rule for rule in side.rules} for side in (base, head))
    for name in sorted(old.keys() | new.keys()):
        was, will = old.get(name), new.get(name)
        if will is None:
            yield f"rule {name} is removed ({cel.short(old[name].spec.message)})", None
        elif was is None:
            yield f"rule {name} is new ({cel.short(will.spec.message)})", will
        elif was.spec != will.spec:
            before, after = was.spec.model_dump(), will.spec.model_dump()
            words = (
                f"{key} {cel.short(str(before[key] or 'none'))} -> {cel.short(str(after[key] or 'none'))}"
                for key in before
                if before[key] != after[key]
            )
            yield f"rule {name} is changed: {'; '.join(words)}", will


def summed(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Sorted. What is wrong with a rule itself is told once, and not for each thing that it was asked of."""
    told: dict[object, Problem] = {}
    counts = Counter[object]()
    for problem in sorted(problems):
        whose = problem.message.partition(" ")[0]
        key = (problem.file, problem.line, whose) if problem.rule == _FAILED else problem
        told.setdefault(key, problem)
        counts[key] += problem.rule == _FAILED
    return tuple(
        replace(one, message=f"{one.message.rstrip('.')}; nor of {counts[key] - 1} more.") if counts[key] > 1 else one
        for key, one in told.items()
    )


def places(path: str) -> tuple[str, ...]:
    """Where the rules of the specs in a folder of a repository are looked for, the first first. "" is its root."""
    folders = [*accumulate(path.split("/"), "{}/{}".format)] if path else []
    return (*(f"{folder}/{FILE}" for folder in reversed(folders)), FILE)


def following(before: Policy, now: Policy) -> Policy:
    """The rules that hold from now on, where `now` is what their file says by now.

    Of a file that is broken, not even a part holds: a rule that cannot be read may be the one that forbids what comes
    with it. So the rules before stay. Where there were none, nothing is let pass: broken never means that there are
    no rules.
    """
    wrong = next((problem for problem in now.problems if problem.severity == "error"), None)
    if wrong is None:
        return now
    told, unknown = "The rules that hold are those from before this was wrong.", ""
    if not before.rules:
        told = "Nobody knows the rules of the organisation, so nothing is changed"
        unknown = f"nobody knows the rules of the organisation, so nothing is changed ({wrong.file}:{wrong.line})"
        before, told = NONE, f"{told}."
    stays = Problem(wrong.file, wrong.line, wrong.column, (), "policy/not-taken", told, "mend the file of the rules")
    return replace(before, problems=(*now.problems, stays), unknown=unknown)


#: The problems of rules that have no answer.
_FAILED = "policy/failed"


def read(file: str, content: bytes, approvals: Iterable[str] = ()) -> Policy:
    """The rules of a file, and what is wrong with it. Rules that are right count, whatever is beside them."""
    reading = reader.read(file, content, marks=True)
    problems = list(reading.problems)
    rules: list[Rule] = []
    effort = cel.Effort()
    for document in reading.documents if reading.whole else ():
        if not typed.validator("policy").is_valid(document.value):
            problems += [
                fault.problem(file, document) for fault in typed.faults_by_schema(document, document, "policy")
            ]
            continue
        try:
            parsed = Policies.model_validate(document.value)
        except ValidationError as error:
            problems += [fault.problem(file, document) for fault in of_types(error, document.value, ())]
            continue
        for number, spec in enumerate(parsed.policies):
            mark = document.mark(("policies", number))
            if any(rule.spec.name == spec.name for rule in rules):
                message = f"Two policies have the name {spec.name}."
                problems.append(Problem(file, mark.line, mark.column, (), "policy/two-of-a-name", message))
                continue
            compiled: dict[str, Any] = {}
            for key in ("when", "require"):
                try:
                    text = getattr(spec, key)
                    compiled[key] = cel.compiled(text) if text is not None else None
                except cel.FailedError as error:
                    at = document.mark(("policies", number, key))
                    message = f"policy {spec.name}: {key} is no CEL: {error}."
                    path = ("policies", number, key)
                    problems.append(Problem(file, at.line, at.column, path, "policy/expression", message))
            if len(compiled) == 2:
                rules.append(Rule(spec, file, mark.line, compiled["when"], compiled["require"], effort=effort))
    return Policy(tuple(rules), tuple(problems), approvals=frozenset(approvals))


def _of(spec: Any, specs: Specs, names: Collection[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """What rules that have these names see of a spec: a variation as it is in each of its environments."""
    around = (*specs.around.items(), *specs.found.items()) if "environment" in names else ()
    environments = {key[2]: found.spec for key, found in around if isinstance(found.spec, Environment)}
    if isinstance(spec, Variation):
        for name in spec.environments:
            yield name, {"spec": _data(spec.in_environment(name)), "environment": _data(environments.get(name))}
    else:
        named = spec.environment if isinstance(spec, Build | Automation) else None
        yield "", {"spec": _data(spec), "environment": _data(environments.get(named or ""))}


def _data(model: BaseModel | None) -> dict[str, Any] | None:
    return model.model_dump(mode="json", exclude_none=True) if model is not None else None


def _change(change: Change) -> dict[str, Any]:
    origin = change.origin
    return {
        "op": change.op.value,
        "environment": change.environment,
        "api_version": change.id.api_version,
        "kind": change.id.kind,
        "namespace": change.id.namespace,
        "name": change.id.name,
        "fields": [{"path": one.path, "old": one.old, "new": one.new} for one in change.fields],
        "reason": change.reason,
        "held": change.held,
        "superseded": change.superseded_by is not None,
        "spec": {"file": origin.file, "line": origin.line, "kind": origin.kind, "name": origin.name}
        if origin
        else None,
    }
