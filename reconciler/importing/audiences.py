"""Audiences -> ours: those of audience files, of deployment configurations, and of the list that a command prints."""

from __future__ import annotations

from typing import Any

from reconciler.importing import forms
from reconciler.importing.context import Context, Grouped
from reconciler.importing.forms import Form, Told, given
from reconciler.importing.naming import Name
from reconciler.importing.values import Value, plain
from schemas.audience import PRESENCE_OPERATORS

_PRESENT = "UNARY_OPERATOR_TYPE_PRESENT_MATCH"


def read(value: Value, context: Context, *, id_of_listing: str = "") -> Grouped | None:
    """One audience of an audience file: `{name, description, conditions: {unary, binary}}`."""
    form = Form.of(value, value.place, context.told, "the audience")
    name = form.text("name")
    identity = id_of_listing or form.text("id")
    name = context.options.audiences.get(identity, name)
    if not name:
        context.told.undecided(value.place, "An audience without a name was left out.", "name it in the file")
        return None
    form.subject = f"the audience {name}"
    description = form.take("description")
    conditions = form.form("conditions")
    if form.value("routes") is not None:
        message = f"The routes of {form.subject} belong to no model here: they were left out."
        context.told.without(value.place, message, "import the deployment configuration that has them")
    form.ignore("id", "created", "createdBy", "created_by", "modified", "modifiedBy", "modified_by")
    form.end()
    fields = given(
        name=Name("audience", name), description=description, conditions=_conditions(conditions, form.subject) or None
    )
    return Grouped(Name("audience", name), value.place, fields, plain(value), identity)


def listed(value: Value, context: Context) -> Grouped | None:
    """One audience as `audiences list --json-format` prints it: `{id, audience: {..., conditions: [...]}}`."""
    form = Form.of(value, value.place, context.told, "the audience")
    identity = form.text("id")
    inner = form.value("audience")
    form.end()
    if inner is None or not isinstance(inner.data, dict):
        context.told.undecided(value.place, "An audience without a name was left out.", "name it in the file")
        return None
    fields = dict(inner.data)
    conditions = fields.pop("conditions", None)
    # The platform's variations have the routes; per environment they are in the deployment configurations.
    for key in ("environmentRoutes", "environment_routes", "routes"):
        fields.pop(key, None)
    result = read(Value(fields, inner.place), context, id_of_listing=identity)
    if result is None:
        return None
    unary: list[Any] = []
    binary: list[Any] = []
    subject = f"the audience {result.name.text}"
    for item in conditions.data if conditions is not None and isinstance(conditions.data, list) else []:
        condition = Form.of(item, inner.place, context.told, f"a condition of {subject}")
        key, inverted = condition.take("key"), condition.take("invert") is True
        one, two = condition.value("unaryCondition"), condition.value("binaryCondition")
        condition.end()
        for part, into in ((one, unary), (two, binary)):
            if part is not None and isinstance(part.data, dict):
                named = {_SPELLINGS.get(name, name): inner for name, inner in part.data.items()}
                into.append(_condition(Value(named, part.place), context.told, subject, key, inverted=inverted))
    found = given(unary=unary or None, binary=binary or None)
    if found:
        result.fields["conditions"] = found
    return result


_SPELLINGS = {"firstOperand": "first_operand", "secondOperand": "second_operand"}


def _conditions(form: Form, subject: str) -> dict[str, Any]:
    lists: dict[str, list[Any]] = {}
    for kind in ("unary", "binary"):
        lists[kind] = [_condition(item, form.told, subject) for item in form.items(kind)]
    form.end()
    return {kind: found for kind, found in lists.items() if found}


def _condition(value: Value, told: Told, subject: str, key: Any = None, *, inverted: bool = False) -> dict[str, Any]:
    form = Form.of(value, value.place, told, f"a condition of {subject}")
    operator = form.take("operator")
    # Its command takes none in a file, and its interface has it: left out, the condition would mean the opposite.
    inverted |= form.take("invert") is True
    present = operator in PRESENCE_OPERATORS
    fields = given(
        key=form.take("key", forms.as_text) if key is None else key,
        operator="ABSENT" if inverted and operator == _PRESENT else operator,
        operand=form.take("operand", forms.as_text),
        first_operand=form.take("first_operand", forms.as_text),
        second_operand=form.take("second_operand", forms.as_text),
        negate=True if inverted and not present else None,
    )
    if present:
        fields.pop("operand", None)  # the platform wants the key, and ignores what it says
    form.end()
    return fields
