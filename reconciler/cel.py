"""Expressions of the Common Expression Language (CEL): compiled, refused where they could take for ever, and asked.

CEL has no side effects, so an expression that a stranger writes can do no more than give an answer. But its macros are
loops, and nothing interrupts an evaluation, so what loops may cost is limited before one begins.
"""

from __future__ import annotations

import re
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from typing import Any


class FailedError(Exception):
    """An expression that cannot be compiled, or has no answer: a sentence without a full stop."""


#: Seconds of CPU: what the rules of a file may take, all together, before it counts what each of them takes; and what
#: one may take then, in the mean.
_PATIENCE, _SLOW = 30.0, 0.01


@dataclass(slots=True)
class Effort:
    """What the rules of a file have taken so far, in seconds of CPU.

    What one evaluation may cost is limited before it begins, but not how many there are: a rule of a second each would
    hold up everything else for hours where there are ten thousand specs. It is not asked any more then, and what it is
    about is left as it is.
    """

    total: float = 0.0
    each: dict[str, float] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def of(self, rule: str) -> Iterator[None]:
        """Around one evaluation. Raises `FailedError` for a rule that has taken too long."""
        mean = self.each.get(rule, 0.0) / (self.asked[rule] or 1)
        if self.total > _PATIENCE and mean > _SLOW:
            raise FailedError(f"it takes {mean:.2g} s each time, and has been asked {self.asked[rule]} times")
        began = time.thread_time()
        try:
            yield
        finally:
            took = time.thread_time() - began
            self.total += took
            self.each[rule] = self.each.get(rule, 0.0) + took
            self.asked[rule] += 1


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


def compiled(expression: str) -> Any:
    try:
        compiled = _cel().compile(expression)
    except ValueError as error:
        if "Recursion limit" in str(error):
            raise FailedError("too many brackets are in one another") from None
        words = (str(error).partition("Syntax error: ")[2] or str(error)).partition("expecting")[0]
        raise FailedError(short(words)) from None
    _refuse_costly(expression)
    return compiled


#: The loops of CEL: each goes through a list or a map, and none of a spec has more than 500 entries.
_MACROS = frozenset({"all", "exists", "exists_one", "existsOne", "map", "filter"})
#: How many of them an expression may have; how many in, or after, one another; and how many sums beside them, which
#: make lists longer. So an evaluation looks at some millions of entries at most: seconds, and not hours.
_MOST_MACROS, _DEEPEST, _MOST_SUMS = 16, 2, 32
#: Sums beside loops that are in one another: a list that is five times as long takes them 25 times as long.
_MOST_SUMS_NESTED = 4
#: The lexical grammar of CEL, for what has compiled: text is left out, and so are comments.
_TOKENS = re.compile(
    r"""//[^\n]*"""
    r"""|[bB]?[rR][bB]?(?:\"{3}[\s\S]*?\"{3}|'{3}[\s\S]*?'{3}|"[^"\n]*"|'[^'\n]*')"""
    r"""|[bB]?(?:\"{3}(?:\\[\s\S]|[^\\])*?\"{3}|'{3}(?:\\[\s\S]|[^\\])*?'{3})"""
    r"""|[bB]?(?:"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')"""
    r"""|(?P<word>\w+|[^\s\w])"""
)


@lru_cache(maxsize=1024)
def names(expression: str) -> frozenset[str]:
    return frozenset(found["word"] for found in _TOKENS.finditer(expression) if found["word"])


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
        raise FailedError(f"more than {_DEEPEST} loops (all, exists, map, filter) are in or after one another")
    if macros > _MOST_MACROS:
        raise FailedError(f"it has more than {_MOST_MACROS} loops (all, exists, map, filter)")
    most_sums = _MOST_SUMS_NESTED if deepest > 1 else _MOST_SUMS
    if macros and words.count("+") > most_sums:
        nested = " in or after one another" if deepest > 1 else ""
        raise FailedError(f"it has loops{nested}, and more than {most_sums} sums")


def context(variables: Mapping[str, Any]) -> Any:
    """What many expressions are asked of: to turn a spec into values of CEL costs a hundred times what most of them do.

    For one thread.
    """
    return _cel().Context(variables=dict(variables))


def is_true(expression: Any, context: Any) -> bool:
    try:
        answer = expression.execute(context)
    except KeyError as error:
        raise FailedError(f"there is no field {error}; ask `has(...)` first") from None
    except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:
        raise FailedError(short(str(error))) from None
    if not isinstance(answer, bool):
        raise FailedError(f"its answer is {type(answer).__name__}, and not true or false")
    return answer


def short(text: str) -> str:
    return " ".join(text.split())[:200].rstrip(".")
