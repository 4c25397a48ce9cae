from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from renderers.template import FOLDER, Template

TEMPLATES = sorted(path.stem for path in FOLDER.glob("*.yaml"))


def render(source: str, **values: Any) -> Any:
    return Template("test", source=source)(**values)


@pytest.mark.parametrize("value", [3, 2.5, True, False, "text", "", "{{ x }}", ["a"], {"b": 1}, [], {}, 0])
def test_a_leaf_that_is_one_expression_keeps_the_value_as_it_is(value: Any) -> None:
    assert render('a: {b: ["{{ value }}"]}', value=value) == {"a": {"b": [value]}}


def test_text_around_expressions_is_concatenated() -> None:
    assert render('a: "x-{{ name }}-{{ number }}.y"', name="n", number=3) == {"a": "x-n-3.y"}


@pytest.mark.parametrize("value", [None, True, False])
def test_none_and_booleans_inside_text_are_errors(value: bool | None) -> None:
    with pytest.raises(ValueError, match=f"template test: {value} inside text"):
        render('a: "x-{{ value }}"', value=value)


def test_none_leaves_out_the_key() -> None:
    assert render('{a: "{{ x }}", b: {c: "{{ x }}", d: 1}}', x=None) == {"b": {"d": 1}}


def test_none_leaves_out_the_item_of_a_list() -> None:
    assert render('a: [1, "{{ x }}", {b: "{{ y }}"}, "{{ y }}"]', x=None, y=2) == {"a": [1, {"b": 2}, 2]}


def test_empty_values_are_no_none() -> None:
    assert render('{a: "{{ x }}", b: "{{ y }}", c: "{{ z }}"}', x={}, y=[], z="") == {"a": {}, "b": [], "c": ""}


def test_a_name_that_was_not_given_is_an_error_that_names_it() -> None:
    with pytest.raises(ValueError, match=r"template test: 'missing' is undefined"):
        render('{a: {b: "{{ missing }}"}}')


def test_an_attribute_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(ValueError, match="has no attribute 'nmae'"):
        render('a: "{{ unit.nmae }}"', unit={"name": "x"})


@pytest.mark.parametrize("statement", ["{% if x %}a{% endif %}", "{% set y = 1 %}", "a{% for i in x %}{% endfor %}"])
def test_statements_are_refused(statement: str) -> None:
    with pytest.raises(ValueError, match=r"template test: .*is a statement"):
        render(json.dumps({"a": statement}), x=[1])


def test_a_broken_expression_is_an_error_that_names_the_template() -> None:
    with pytest.raises(ValueError, match="template test: "):
        render('a: "{{ x + }}"', x=1)


@pytest.mark.parametrize("expression", ["().__class__.__bases__", "x.__class__", "x.append(1)", "range(9)"])
def test_the_sandbox_holds(expression: str) -> None:
    with pytest.raises(ValueError, match="template test: "):
        render(json.dumps({"a": f"{{{{ {expression} }}}}"}), x=[1])


def test_a_key_without_a_value_is_refused() -> None:
    with pytest.raises(ValueError, match="no value"):
        render('{a: , b: "{{ x }}"}', x=1)


def test_what_prometheus_writes_in_braces_can_be_said() -> None:
    assert render("a: \"{{ '{{ $labels.model }}' }} is slow\"") == {"a": "{{ $labels.model }} is slow"}


def test_values_are_not_read_as_expressions_or_yaml() -> None:
    hostile = "{{ 1 + 1 }}\n  evil: true # {% x %}"

    assert render('{a: "{{ x }}", b: "-{{ x }}"}', x=hostile) == {"a": hostile, "b": f"-{hostile}"}


def test_two_renders_share_no_dynamic_part() -> None:
    template = Template("test", source='{a: {b: "{{ x }}"}, c: [{d: "{{ x }}"}]}')
    first, second = template(x=1), template(x=1)

    assert first == second
    assert first["a"] is not second["a"]
    assert first["c"] is not second["c"]
    assert first["c"][0] is not second["c"][0]


json_values = st.recursive(
    st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(max_size=5), json_values, max_size=4))
def test_any_value_comes_out_as_it_went_in(value: dict[str, Any]) -> None:
    assert render('{a: "{{ value }}", b: ["{{ value }}"]}', value=value) == {"a": value, "b": [value]}


@given(st.text(st.characters(exclude_characters="{\r", exclude_categories=["Cs"])))
def test_constant_text_comes_out_as_it_is_written(text: str) -> None:
    source = yaml.safe_dump({"a": text, "b": f"{text}{{{{ x }}}}"})

    assert render(source, x="") == {"a": text, "b": text}


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_template_compiles_and_asks_for_values(name: str) -> None:
    with pytest.raises(ValueError, match="is undefined"):
        Template(name)()
