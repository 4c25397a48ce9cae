"""What an organisation asks of its specs and plans, in rules of its own: read, and held against them. Pure.

    api_version: v1
    policies:
    - name: two-pods
      kind: variation
      when: environment.name == "production"
      require: spec.deployment.number_of_pods >= 2
      message: Production needs at least two pods.

A rule that is broken is a problem as any other, at the line of the spec. What an error is about is not applied. CEL has
no side effects, so a rule that a stranger writes can do no more than say no. But its macros are loops, and nothing
interrupts an evaluation, so what loops may cost is limited before one begins.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from typing import Any

from pydantic import BaseModel, ValidationError

from reconciler.plan import Change, Op
from reconciler.specs.places import Places
from reconciler.specs.references import Specs
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

    @property
    def id(self) -> str:
        """What its problems are known by."""
        return f"policy/{self.spec.name}"

    def is_broken(self, variables: Mapping[str, Any]) -> bool:
        """Whether something is as it must not be. Raises `_FailedError` where that cannot be said."""
        if self.when is not None and not _true(self.when, variables):
            return False
        return not _true(self.require, variables)

    def sentence(self, where: str) -> str:
        """What is wrong, and where."""
        whose = ", as the base has the rule" if self.is_of_base else ""
        return f"{self.spec.message.rstrip('.')}{f' ({where})' if where else ''}{whose}."

    def problem(self, message: str, rule: str = "") -> Problem:
        """A problem of the rule itself, or of what stands in no file."""
        return Problem(self.file, self.line, 1, (), rule or self.id, message, self.spec.hint, self.spec.severity)


@dataclass(frozen=True, slots=True)
class Policy:
    """All rules of a file, and what is wrong with the file.

    `enforce`: specs that break a rule are left out, as if they were not valid; without it, they are only told of.
    `approvals` are what a person has given with --approve: rules may ask for some of their own.
    """

    rules: tuple[Rule, ...] = ()
    problems: tuple[Problem, ...] = ()
    enforce: bool = True
    approvals: frozenset[str] = field(default_factory=frozenset)

    def check(self, specs: Specs, places: Places) -> None:
        """Adds the problems of the specs that break a rule: a `specs.index.Check`."""
        if not self.rules:
            return
        for key, found in list(specs.found.items()):
            problems = list(self._of_spec(found, specs, places))
            specs.problems += problems
            if self.enforce and any(problem.severity == "error" for problem in problems):
                specs.drop(key)
        specs.drop_doubtful_models()

    def beside(self, base: Policy) -> Policy:
        """With the rules that the base has otherwise: who changes or removes a rule is still judged by it."""
        ours = {rule.spec for rule in self.rules}
        theirs = (replace(rule, is_of_base=True) for rule in base.rules if rule.spec not in ours)
        return replace(self, rules=(*self.rules, *theirs))

    @property
    def is_of_changes(self) -> bool:
        """Whether a rule is about what is planned."""
        return any(rule.spec.kind == "change" for rule in self.rules)

    def judge(self, changes: Sequence[Change], catalog: Catalog) -> tuple[tuple[Change, ...], tuple[Problem, ...]]:
        """The changes, held where they break a rule, and why."""
        if not self.is_of_changes:
            return tuple(changes), ()
        judged: list[Change] = []
        problems: dict[Problem, None] = {}
        for change in changes:
            found = [] if change.op is Op.UNCHANGED else list(self._of_change(change, catalog))
            problems |= dict.fromkeys(found)
            errors = [problem for problem in found if problem.severity == "error"]
            judged.append(replace(change, held=errors[0].message) if errors and not change.held else change)
        return tuple(judged), tuple(problems)

    def _of_spec(self, found: Found[Any], specs: Specs, places: Places) -> Iterator[Problem]:
        kind = KINDS[found.kind][0]
        for rule in (rule for rule in self.rules if rule.spec.kind == kind):
            broken: list[str] = []
            try:
                for name, variables in _of(found.spec, specs):
                    if rule.is_broken(variables):
                        broken.append(name)
            except _FailedError as error:
                message = f"{rule.id} cannot be asked of {kind} {found.name}: {error}."
                yield rule.problem(message, _FAILED)
                continue
            if broken:
                below = tuple((rule.spec.at or "").split(".")) if rule.spec.at else ()
                message = rule.sentence(", ".join(filter(None, broken)))
                yield places.problem(found.site, below, rule.id, message, rule.spec.hint, severity=rule.spec.severity)

    def _of_change(self, change: Change, catalog: Catalog) -> Iterator[Problem]:
        placed = catalog.environments.get(change.environment)
        variables = {
            "change": _change(change),
            "manifest": change.manifest.body if change.manifest is not None else None,
            "environment": _data(placed.spec if placed is not None else None),
            "approvals": sorted(self.approvals),
        }
        for rule in (rule for rule in self.rules if rule.spec.kind == "change"):
            try:
                is_broken = rule.is_broken(variables)
            except _FailedError as error:
                message = f"{rule.id} cannot be asked of {change.id} in {change.environment}: {error}."
                yield rule.problem(message, _FAILED)
                continue
            if not is_broken:
                continue
            message = rule.sentence(f"{change.op} {change.id} in {change.environment}")
            problem, origin = rule.problem(message), change.origin
            if origin is not None:
                problem = replace(problem, file=origin.file, line=origin.line or 1, column=origin.column)
            yield problem


NONE = Policy()


def differing(base: Policy, head: Policy) -> Iterator[tuple[str, Rule | None]]:
    """What becomes of each rule that the two have otherwise: in words, and the rule as the head has it."""
    old, new = ({rule.spec.name: rule for rule in side.rules} for side in (base, head))
    for name in sorted(old.keys() | new.keys()):
        was, will = old.get(name), new.get(name)
        if will is None:
            yield f"rule {name} is removed ({_short(old[name].spec.message)})", None
        elif was is None:
            yield f"rule {name} is new ({_short(will.spec.message)})", will
        elif was.spec != will.spec:
            before, after = was.spec.model_dump(), will.spec.model_dump()
            words = (
                f"{key} {_short(str(before[key] or 'none'))} -> {_short(str(after[key] or 'none'))}"
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


#: The problems of rules that have no answer.
_FAILED = "policy/failed"


def read(file: str, content: bytes, approvals: Iterable[str] = ()) -> Policy:
    """The rules of a file, and what is wrong with it. Rules that are right count, whatever is beside them."""
    reading = reader.read(file, content, marks=True)
    problems = list(reading.problems)
    rules: list[Rule] = []
    for document in reading.documents if reading.whole else ():
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
                    compiled[key] = _compiled(text) if text is not None else None
                except _FailedError as error:
                    at = document.mark(("policies", number, key))
                    message = f"policy {spec.name}: {key} is no CEL: {error}."
                    path = ("policies", number, key)
                    problems.append(Problem(file, at.line, at.column, path, "policy/expression", message))
            if len(compiled) == 2:
                rules.append(Rule(spec, file, mark.line, compiled["when"], compiled["require"]))
    return Policy(tuple(rules), tuple(problems), approvals=frozenset(approvals))


def _of(spec: Any, specs: Specs) -> Iterator[tuple[str, dict[str, Any]]]:
    """What a rule sees of a spec: a variation as it is in each of its environments."""
    environments = {key[2]: found.spec for key, found in (*specs.around.items(), *specs.found.items())
                    if isinstance(found.spec, Environment)}  # fmt: skip
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


# -- CEL ------------------------------------------------------------------------------------------------------------


class _FailedError(Exception):
    """An expression that cannot be compiled, or has no answer: a sentence without a full stop."""


@cache
def _cel() -> Any:
    """The library's compiled part alone: the package itself imports a command line, a quarter of a second of it."""
    package = find_spec("cel")
    assert package is not None
    found = PathFinder.find_spec("cel.cel", package.submodule_search_locations)
    assert found is not None
    assert found.loader is not None
    module = sys.modules["cel.cel"] = module_from_spec(found)
    found.loader.exec_module(module)
    return module


def _compiled(expression: str) -> Any:
    try:
        compiled = _cel().compile(expression)
    except ValueError as error:
        if "Recursion limit" in str(error):
            raise _FailedError("too many brackets are in one another") from None
        words = (str(error).partition("Syntax error: ")[2] or str(error)).partition("expecting")[0]
        raise _FailedError(_short(words)) from None
    _refuse_costly(expression)
    return compiled


#: The loops of CEL: each goes through a list or a map, and none of a spec has more than 500 entries.
_MACROS = frozenset({"all", "exists", "exists_one", "existsOne", "map", "filter"})
#: How many of them an expression may have; how many in, or after, one another; and how many sums beside them, which
#: make lists longer. So an evaluation looks at some millions of entries at most: seconds, and not hours.
_MOST_MACROS, _DEEPEST, _MOST_SUMS = 16, 2, 32
#: The lexical grammar of CEL, for what has compiled: text is left out, and so are comments.
_TOKENS = re.compile(
    r"""//[^\n]*"""
    r"""|[bB]?[rR][bB]?(?:\"{3}[\s\S]*?\"{3}|'{3}[\s\S]*?'{3}|"[^"\n]*"|'[^'\n]*')"""
    r"""|[bB]?(?:\"{3}(?:\\[\s\S]|[^\\])*?\"{3}|'{3}(?:\\[\s\S]|[^\\])*?'{3})"""
    r"""|[bB]?(?:"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')"""
    r"""|(?P<word>\w+|[^\s\w])"""
)


def _refuse_costly(expression: str) -> None:
    """Refuses loops that are in, or after, one another, deeper than `[1, 2].all(x, [1, 2].all(y, ...))`.

    Each of them multiplies what an evaluation costs, or how large its values grow.
    """
    words = [found["word"] for found in _TOKENS.finditer(expression) if found["word"]]
    enclosing: list[tuple[int, int, bool]] = []
    #: The macros that the operand is made of which is being read, and any other one in the same brackets.
    here = beside = deepest = 0
    macros, name = 0, ""
    for word in words:
        if word in "([{":
            is_macro = word == "(" and name in _MACROS
            enclosing.append((here, beside, is_macro))
            macros += is_macro
            here = beside = 0
        elif word in ")]}":
            inner = max(here, beside)
            here, beside, is_macro = enclosing.pop()
            here = max(here, inner) + is_macro
            deepest = max(deepest, here)
        elif not (word[0].isalnum() or word[0] in "_.") or word == "in":
            here, beside = 0, max(here, beside)
        name = word
    if deepest > _DEEPEST:
        raise _FailedError(f"more than {_DEEPEST} loops (all, exists, map, filter) are in or after one another")
    if macros > _MOST_MACROS:
        raise _FailedError(f"it has more than {_MOST_MACROS} loops (all, exists, map, filter)")
    if macros and words.count("+") > _MOST_SUMS:
        raise _FailedError(f"it has loops, and more than {_MOST_SUMS} sums")


def _true(expression: Any, variables: Mapping[str, Any]) -> bool:
    try:
        answer = expression.execute(dict(variables))
    except KeyError as error:
        raise _FailedError(f"there is no field {error}; ask `has(...)` first") from None
    except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:
        raise _FailedError(_short(str(error))) from None
    if not isinstance(answer, bool):
        raise _FailedError(f"its answer is {type(answer).__name__}, and not true or false")
    return answer


def _short(text: str) -> str:
    return " ".join(text.split())[:200].rstrip(".")
