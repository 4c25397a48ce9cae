"""Compiles a template's YAML tree into one Jinja2 expression (see `renderers.template`)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, cast

import yaml
from jinja2 import StrictUndefined, TemplateError, TemplateRuntimeError, TemplateSyntaxError, nodes
from jinja2.environment import TemplateExpression
from jinja2.sandbox import ImmutableSandboxedEnvironment

from renderers.manifest import Body


def compile_tree(source: str) -> Callable[[dict[str, Any]], Body]:
    """The function from values to the rendered tree. Errors, here and in it: ValueError."""
    constants: dict[str, Any] = {}
    try:
        tree = _node(yaml.load(source, Loader=yaml.CSafeLoader), constants)
    except TemplateError as error:
        raise ValueError(error.message) from error
    module = nodes.Template([nodes.Assign(nodes.Name("result", "store"), tree)])
    module.set_lineno(1).set_environment(_ENVIRONMENT)
    template = _ENVIRONMENT.from_string(module)
    template.globals = constants  # Jinja2 would make a ChainMap of them, which costs a quarter of a render
    expression = TemplateExpression(template, undefined_to_none=False)

    def render(values: dict[str, Any]) -> Body:
        try:
            return cast(Body, expression(values))
        except TemplateError as error:
            raise ValueError(error.message) from error

    return render


def _node(value: Any, constants: dict[str, Any]) -> nodes.Expr:
    """The expression that makes one node of the YAML tree; a constant subtree is put into `constants`."""
    if isinstance(value, str):
        return _leaf(value)
    if value is None:
        raise TemplateSyntaxError("a key or an item has no value", 1)
    if not isinstance(value, dict | list):
        return nodes.Const(value)
    if _is_constant(value):
        name = f"constant_{len(constants)}"
        constants[name] = value
        return nodes.Name(name, "load")
    if isinstance(value, dict):
        children = {key: _node(child, constants) for key, child in value.items()}
        mapping = nodes.Dict([nodes.Pair(nodes.Const(key), child) for key, child in children.items()])
        optional = tuple(key for key, child in value.items() if _may_be_none(child))
        return _filter(mapping, "drop_none", nodes.Const(optional)) if optional else mapping
    items = nodes.List([_node(item, constants) for item in value])
    return _filter(items, "not_none") if any(map(_may_be_none, value)) else items


def _is_constant(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_is_constant, value.values()))
    if isinstance(value, list):
        return all(map(_is_constant, value))
    return value is not None and not (isinstance(value, str) and "{" in value)


@cache
def _leaf(text: str) -> nodes.Expr:
    if _is_constant(text):
        return nodes.Const(text)
    parts: list[nodes.Expr] = []
    for output in _ENVIRONMENT.parse(text).body:
        if not isinstance(output, nodes.Output):
            raise TemplateSyntaxError(f"{text!r} is a statement: decide in Python, and give the value", 1)
        parts += output.nodes
    if len(parts) == 1 and not isinstance(parts[0], nodes.TemplateData):
        return parts[0]
    texts = [
        nodes.Const(part.data) if isinstance(part, nodes.TemplateData) else _filter(part, "in_text") for part in parts
    ]
    return nodes.Concat(texts) if texts else nodes.Const("")


def _may_be_none(value: Any) -> bool:
    return isinstance(value, str) and not isinstance(_leaf(value), nodes.Const | nodes.Concat)


def _filter(node: nodes.Expr, name: str, *arguments: nodes.Expr) -> nodes.Expr:
    return nodes.Filter(node, name, list(arguments), [], None, None)


def _drop_none(mapping: dict[str, Any], optional: tuple[str, ...]) -> dict[str, Any]:
    for key in optional:
        if mapping[key] is None:
            del mapping[key]
    return mapping


def _not_none(items: list[Any]) -> list[Any]:
    return [item for item in items if item is not None]


def _in_text(value: Any) -> Any:
    # "churn-None" and "enabled: True" are valid text, so that nothing later would notice.
    if value is None or isinstance(value, bool):
        raise TemplateRuntimeError(f"{value} inside text")
    return value


class _Missing(StrictUndefined):
    """Fails where it is made: StrictUndefined would let itself be put into a dict unseen."""

    __slots__ = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._fail_with_undefined_error()


_FILTERS = {"drop_none": _drop_none, "not_none": _not_none, "in_text": _in_text}
_ENVIRONMENT = ImmutableSandboxedEnvironment(undefined=_Missing, keep_trailing_newline=True)
_ENVIRONMENT.globals.clear()
_ENVIRONMENT.filters.update(_FILTERS)
