"""Files that strangers wrote: whatever they hold, `reconcile import` runs none of it, ends, and says what it saw."""

from __future__ import annotations

import re
import sys
import time
from json import dumps
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.importing import Imported, Options, convert, python
from schemas.reader import read

#: What the interpreter announces also where nothing is run: `compile` is what makes the syntax tree, and the others are
#: said of a function that is looked at.
_HARMLESS = frozenset({"compile", "builtins.id", "object.__getattr__"})
_seen: list[str] | None = None


def _listen(event: str, about: tuple[Any, ...]) -> None:
    if _seen is not None and event not in _HARMLESS and about[:1] != (python.NOWHERE,):
        _seen.append(event)


sys.addaudithook(_listen)

HEAD = "from qwak.automations import *\n"
#: Uses what is imported when it is first needed, which is nobody's file.
HONEST = f"""{HEAD}
x = Automation(name="a", model_id="m", trigger=NoneTrigger(), action=QwakBuildDeploy(
    build_spec=BuildSpecifications(git_uri="https://git.example.com/m"),
    deployment_condition=BuildMetric("f1", threshold="select 1"), deployment_spec=DeploymentSpecifications(whatever=1)))
"""


@pytest.fixture(scope="module", autouse=True)
def _warm() -> None:
    assert convert({"a.py": HONEST.encode(), "b.py": b"# qwak\nx ="}, Options()).files


def imported(files: dict[str, bytes]) -> tuple[Imported, list[str]]:
    """What came of an import, and what the interpreter announced meanwhile."""
    global _seen  # noqa: PLW0603 - an audit hook has no other way to be told
    _seen = []
    try:
        return convert(files, Options()), _seen
    finally:
        _seen = None


def test_what_runs_is_announced() -> None:
    global _seen  # noqa: PLW0603 - as above
    _seen = []
    try:
        exec("open('/dev/null').close()")
        assert {"exec", "open"} <= set(_seen)
    finally:
        _seen = None


HOSTILE = [
    "__import__('os').system('id')",
    "exec('import os')",
    "eval('1+1')",
    "open('/etc/passwd').read()",
    "compile('1', '', 'exec')",
    "().__class__.__base__.__subclasses__()",
    "f'{open(0)}'",
    "f'{x!r:{__import__(\"os\")}}'",
    "[*map(print, [1])]",
    "{**globals()}",
    "(lambda: 1)()",
    "'x' * 10 ** 9",
    "10 ** 10 ** 10",
    "1 << 10 ** 9",
    "(yield)",
    "getattr(Automation, '__init__')",
    "Automation.__init__.__globals__",
    "type('X', (), {'__del__': print})()",
    "str(str(str(x)))",
    "'%s' % x",
    "x[x]",
    "x.y.z",
    "not x",
    "-'a'",
    "{x: x}",
    "{1, 2}",
    "...",
    "None",
    "'a'",
    "12",
    "['a', x]",
]
STATEMENTS = [
    "import os, subprocess, antigravity",
    "from os import *",
    "from . import a",
    "from .. import *",
    "import a",
    "from a import x",
    "class X(metaclass=print): pass",
    "@print\ndef f(): pass",
    "x: print('annotation') = 1",
    "assert print('assert')",
    "raise SystemExit(3)",
    "del x",
    "global x",
    "x = x + x",
    "x += x",
    "x = [x, x, x, x]",
    "x.y = 1",
    "x[0] = x",
    "(x, y) = x",
    "for x in iter(int, 1): pass",
    "while True: pass",
    "with open('/etc/passwd') as x: pass",
    "try:\n    1 / 0\nfinally:\n    x = 1",
    "match x:\n    case print(): pass",
    "lambda: x",
    "x()",
    "automation = Automation",
]
SPEC = ["name", "model_id", "trigger", "action", "environment", "is_enabled", "on_error", "description", "whatever"]
EXPRESSIONS = st.recursive(
    st.sampled_from([*HOSTILE, "x"]),
    lambda inner: st.one_of(
        st.builds("Automation({}={}, **{})".format, st.sampled_from(SPEC), inner, inner),
        st.builds("QwakBuildDeploy({}, {}, {})".format, inner, inner, inner),
        st.builds("BuildSpecifications(git_uri={}, env_vars={}, tags={})".format, inner, inner, inner),
        st.builds("DeploymentSpecifications(environments={}, auto_scale_config={})".format, inner, inner),
        st.builds("CustomWebhook({}, headers={}, data={})".format, inner, inner, inner),
        st.builds("[{}, *{}]".format, inner, inner),
        st.builds("{{'a': {}, **{}}}".format, inner, inner),
        st.builds("{} + {}".format, inner, inner),
    ),
    max_leaves=8,
)
LINES = st.one_of(
    st.sampled_from(STATEMENTS),
    st.builds("x = {}".format, EXPRESSIONS),
    st.builds(
        "a{} = Automation(name={}, model_id={}, action={})".format,
        st.integers(0, 3),
        EXPRESSIONS,
        EXPRESSIONS,
        EXPRESSIONS,
    ),
    st.text(max_size=20),
)


@given(st.lists(LINES, max_size=12), st.lists(LINES, max_size=3))
@settings(max_examples=100, deadline=None)
def test_hostile_python_is_never_run_and_never_ends_the_import(lines: list[str], others: list[str]) -> None:
    files = {
        "a.py": (HEAD + "\n".join(lines)).encode(errors="replace"),
        "b.py": (HEAD + "\n".join(others)).encode(errors="replace"),
    }
    result, announced = imported(files)
    assert announced == []
    for text in result.files.values():
        # Whatever was read, the result is YAML of ours: nothing that a file holds gets out of its value or comment.
        assert not [problem for problem in read("r.yaml", text.encode()).problems if problem.rule.startswith("yaml/")]
    assert all(problem.file in {"a.py", "b.py", *result.files} for problem in (*result.told, *result.problems))


@given(st.binary(max_size=200), st.sampled_from([".py", ".yaml", ".json"]))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_read_without_an_error(content: bytes, suffix: str) -> None:
    convert({f"a{suffix}": b"model_id: frogml\n" + content}, Options())


#: The platform's keys, in no order.
KEYS = re.findall(
    r"\w+",
    """
    api_version spec audiences name conditions unary key operator operand routes model_id realtime resources pods id
    env_vars environments auto_scaling triggers prometheus_trigger build_properties model_uri uri audience weight
    fallback_variation variations traffic build_env docker params batch stream
    """,
)
YAML = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(KEYS),
            inner,
            max_size=6,
        )
    ),
    max_leaves=25,
)


@given(YAML, YAML)
@settings(max_examples=100, deadline=None)
def test_any_values_at_any_key_are_told_and_never_an_error(one: Any, other: Any) -> None:
    whole = {"model_id": "m", "realtime": one, "resources": other}
    audiences = {"api_version": "v1", "spec": {"audiences": [one, other]}}
    build = {"build_properties": {"model_id": "m", "model_uri": one}, "build_env": other}
    documents = [one, other, whole, audiences, build]
    result = convert({f"{i}.json": dumps(document).encode() for i, document in enumerate(documents)}, Options())
    for text in result.files.values():
        assert not [problem for problem in read("r.yaml", text.encode()).problems if problem.rule.startswith("yaml/")]


@pytest.mark.parametrize(
    "program",
    [
        "x = ['a']\n" + "x = x + x\n" * 5_000,
        "x = 'a'\n" + "x = x + x\n" * 5_000,
        "x = 'a'\n" + "x = f'{x}{x}'\n" * 5_000,
        "x = ['a']\n" + "x = [x, x]\n" * 5_000,
        "x = ['a']\n" + "x = {'a': x}\n" * 5_000,
        "x = ['a'] + ['a'] * 1\n" + "".join(f"y{i} = [*x]\nx.append(1)\n" for i in range(5_000)),
        "x = " + " + ".join(["['a']"] * 900) + "\n" + "y = [*x, *x, *x]\nx = ['b', y]\n" * 3_000,
        "x = {'a': 'b'}\n" + "x = {**x, 'c': [x, x]}\n" * 5_000,
    ],
)
def test_a_short_program_with_an_endless_value_ends_soon(program: str) -> None:
    began = time.process_time()
    python.read("a.py", ("from qwak.automations import *\n" + program).encode(), lambda _: None)
    assert time.process_time() - began < 5


def test_files_that_import_each_other_by_the_hundred_end() -> None:
    files = {f"m{i}.py": ("# qwak\n" + "".join(f"from m{j} import *\n" for j in range(60))).encode() for i in range(60)}
    began = time.process_time()
    convert(files, Options())
    assert time.process_time() - began < 5
