"""Two values of the language compared: what differs, in words, at whatever depth. Pure.

What a credential is beside is hidden, as in the differences of manifests: by the name of a variable, and inside URLs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from reconciler import diff
from reconciler.report.shortened import quoted, shortened
from renderers.resources import DEFAULT_BUILD
from schemas.automation import Automation, BatchExecutionSpecification
from schemas.base import SECRET_REFERENCE
from schemas.build import Build
from schemas.environment import DataPlane, Environment, Gateway, Quota
from schemas.resources import Resources

#: What takes more room than this in a sentence is cut: the spec itself has all of it.
LONGEST = 120

#: What a spec is called is who it is, and its description is for people. Only of whole specs: a Gateway has a name too.
_FOR_PEOPLE = frozenset({"name", "model", "description"})

#: More than one word, and not all of it prose: a statement, a schedule, an expression.
_CODE = re.compile(r"(?=.*\s).*[^\w\s,.'-]")

#: What a field that is not given stands for.
_DEFAULTS: Mapping[tuple[type[BaseModel], str], Callable[[Any], str | None]] = {
    (Environment, "namespace"): lambda environment: environment.namespace_name,
    (Environment, "object_storage"): lambda _: "a folder of the embedded data plane",
    (DataPlane, "context"): lambda plane: "the current one" if plane.type == "kubernetes" else None,
    (Gateway, "namespace"): lambda _: "the environment's own",
    (Gateway, "section_name"): lambda _: "all listeners",
    (Gateway, "hostname"): lambda _: "any host",
    (Quota, "cpu"): lambda _: "no limit",
    (Quota, "memory"): lambda _: "no limit",
    (Quota, "gpu"): lambda _: "no limit",
    (Resources, "cpu"): lambda asked: f"{DEFAULT_BUILD.cpu:g}" if _family(asked) == "cpu" else None,
    (Resources, "memory"): lambda asked: DEFAULT_BUILD.memory if _family(asked) == "cpu" else None,
    (Resources, "gpu_amount"): lambda asked: "1" if _family(asked) == "gpu" else None,
    (BatchExecutionSpecification, "cpu"): lambda _: "as the variation has it",
    (BatchExecutionSpecification, "memory"): lambda _: "as the variation has it",
    (Build, "git_branch"): lambda build: build.branch,
    (Build, "environment"): lambda _: "where it is served first",
    (Automation, "environment"): lambda _: "the first of its environments",
}


def fields(old: BaseModel, new: BaseModel, without: Sequence[str] = ()) -> Iterator[str]:
    """`memory 2Gi -> 4Gi`, for each field of two specs that differs, except `without` these and what is for people."""
    for name in type(new).model_fields:
        if name in type(old).model_fields and name not in _FOR_PEOPLE and name not in without:
            yield from changes(name, _given(old, name), _given(new, name))


def changes(name: str, old: Any, new: Any, *, hide: bool = False) -> Iterator[str]:
    """What differs between two values of a field: part by part where both have parts, otherwise as a whole.

    Items of a list are told by their names, or else by their numbers, from 1.
    """
    if old == new:
        return
    was, will = _parts(old), _parts(new)
    if was is None or will is None or _is_another(old, new):
        yield _changed(name, old, new, hide=hide)
        return
    named = _is_map(old) and _is_map(new)
    for part in dict.fromkeys((*was, *will)):
        hidden = hide or (named and diff.is_credential(part))
        yield from changes(f"{name}{part}", was.get(part), will.get(part), hide=hidden)
    if was.keys() == will.keys() and [*was] != [*will]:
        yield f"{name} in the order {listed([part.strip('[]') for part in will])}"


def words_of(value: Any, *, hide: bool = False, exact: bool = False) -> str:
    """A value on one line, whatever its length. `exact`: texts as JSON, with the blanks that they have."""
    if value in (None, (), ""):
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, BaseModel):
        given = [(name, getattr(value, name)) for name in type(value).model_fields if name in value.model_fields_set]
        parts = [f"{name} {words_of(item, hide=hide, exact=exact)}" for name, item in given]
        return f"({', '.join(parts)})" if parts else "(all defaults)"
    if _is_map(value):
        parts = [f"{key} {words_of(item, hide=hide or diff.is_credential(key), exact=exact)}" for key, item in value]
        return f"({', '.join(parts)})"
    if isinstance(value, tuple):
        return f"[{', '.join(words_of(item, hide=hide, exact=exact) for item in value)}]"
    if hide and not (isinstance(value, str) and SECRET_REFERENCE.fullmatch(value)):
        return diff.HIDDEN
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    text = diff.without_credentials(str(value))
    return json.dumps(text, ensure_ascii=False) if exact and isinstance(value, str) else one_line(text)


def one_line(text: str) -> str:
    """With one blank where there are some, and without what URLs hold of credentials."""
    return " ".join(diff.without_credentials(text).split())


def cut(text: str) -> str:
    """A text for the middle of a sentence."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _is_another(old: Any, new: Any) -> bool:
    """Whether the two say things of different kinds, so that their parts stand in no relation."""
    if isinstance(old, Resources) and isinstance(new, Resources):
        return _family(old) != _family(new)
    return isinstance(new, BaseModel) and type(old) is not type(new)


def _family(asked: Resources) -> str:
    """Which of the ways to say it has been taken; they exclude each other."""
    if asked.instance is not None:
        return "instance"
    return "gpu" if asked.gpu_type is not None else "cpu"


def _changed(name: str, old: Any, new: Any, *, hide: bool) -> str:
    was, will = words_of(old, hide=hide), words_of(new, hide=hide)
    if was == will:  # they differ by blanks, or by what is hidden
        was, will = words_of(old, hide=hide, exact=True), words_of(new, hide=hide, exact=True)
    if was == will:
        return f"{name} changes {diff.HIDDEN}"
    before, after = shortened(was, will, LONGEST, as_code if isinstance(old or new, str) else str)
    return f"{name} {before} -> {after}"


def as_code(text: str) -> str:
    """A value in the middle of a sentence, quoted where it could be taken for a part of that."""
    return quoted(text) if _CODE.search(text) else text


def _given(model: BaseModel, name: str) -> Any:
    value = getattr(model, name)
    default = _DEFAULTS.get((type(model), name))
    return default(model) if value is None and default is not None else value


def _parts(value: Any) -> dict[str, Any] | None:
    """How the parts of a value are named below its own name; None where it is told as a whole."""
    if isinstance(value, BaseModel):
        return {f".{name}": _given(value, name) for name in type(value).model_fields}
    if _is_map(value):
        return {f".{key}": item for key, item in value}
    if isinstance(value, tuple) and all(isinstance(item, BaseModel) for item in value):
        return {f"[{getattr(item, 'name', number)}]": item for number, item in enumerate(value, start=1)}
    return None


def _is_map(value: Any) -> bool:
    """The language keeps maps as pairs, which can be hashed."""
    return isinstance(value, tuple) and all(
        isinstance(one, tuple) and len(one) == 2 and isinstance(one[0], str) for one in value
    )
