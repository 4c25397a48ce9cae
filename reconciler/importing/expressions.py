"""What an expression of a Python file comes to, as far as its syntax tree alone tells.

Known are literals, names that the module has set, the SDK's constructors and enumerations, and sums, f-strings and
look-ups of what is known. What a value comes to is bounded, and so is what all of them come to.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NoReturn

from reconciler.importing import sdk
from reconciler.importing.values import MAXIMUM_NUMBER, Data, Made, Place, Unknown, Value

#: What one value may come to: values in it, and characters of a text.
MAXIMUM_SIZE = 10_000
MAXIMUM_DEPTH = 32
MAXIMUM_TEXT = 32_768
#: What all values of a file may come to together: a time limit that does not depend on the machine.
MAXIMUM_WORK = 1_000_000


class TooMuchError(Exception):
    """The file asks for more work than any honest one."""


class _UnknownError(Exception):
    """Ends the evaluation of an expression: it cannot be known."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


def _unknown(why: str) -> NoReturn:
    raise _UnknownError(why)


@dataclass(slots=True)
class Names:
    """The names of one module, as far as its statements are read, and what an expression comes to with them."""

    file: str
    lines: list[str]
    names: dict[str, Value] = field(default_factory=dict)
    #: Names that stand for something of the SDK: "Automation", or "qwak.automations" for a module of it.
    imported: dict[str, str] = field(default_factory=dict)
    #: Objects that a statement may have changed after they were made, and how.
    changed: dict[int, str] = field(default_factory=dict)
    kept: list[Value] = field(default_factory=list)  #: so that no identity is used twice
    work: int = 0
    depth: int = 0

    def value(self, node: ast.expr) -> Value:
        """What an expression comes to. Parts that cannot be known are `Unknown` themselves, where that is enough."""
        if isinstance(node, ast.Name) and node.id in self.names:
            return self.as_changed(self.names[node.id])  # the very object: what changes it later changes it here too
        place = self.place(node)
        self.depth += 1
        try:
            if self.depth > MAXIMUM_DEPTH:
                _unknown("is nested too deeply")
            data = self._data(node)
            size, depth = _extent(data)
            self._charge(len(data) // 16 if isinstance(data, str) else size)
            if size > MAXIMUM_SIZE or depth > MAXIMUM_DEPTH:
                _unknown(f"comes to more than {MAXIMUM_SIZE:,} values, or {MAXIMUM_DEPTH} inside each other")
        except _UnknownError as error:
            return Value(Unknown(error.why), place)
        finally:
            self.depth -= 1
        return Value(data, place, size, depth)

    def _charge(self, work: int) -> None:
        self.work += work + 1
        if self.work > MAXIMUM_WORK:
            raise TooMuchError

    def _data(self, node: ast.expr) -> Data:  # noqa: PLR0912 - one arm for each kind of expression
        match node:
            case ast.Constant(value=constant):
                return _constant(constant)
            case ast.Name(id=name):
                whose = "of the SDK itself" if name in self.imported else "which the file does not set"
                _unknown(f"is the name {name}, {whose}")
            case ast.List(elts=elements) | ast.Tuple(elts=elements):
                return [item for element in elements for item in self._items(element)]
            case ast.Dict(keys=keys, values=expressions):
                return self._fields(zip(keys, expressions, strict=True))
            case ast.JoinedStr(values=parts):
                return _text("".join(self._formatted(part) for part in parts))
            case ast.BinOp(left=left, op=op, right=right):
                return self._sum(self.known(left), op, self.known(right))
            case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
                number = self.known(operand).data
                if isinstance(number, bool) or not isinstance(number, int | float):
                    _unknown("is computed")
                return -number if isinstance(node.op, ast.USub) else number
            case ast.Subscript(value=container, slice=key):
                if _spelled(container) in ("os.environ", "environ"):
                    _unknown("is read from the environment of whoever runs the file")
                return self._item(self.known(container), self.known(key)).data
            case ast.Attribute():
                return self._attribute(node)
            case ast.Call():
                return self._call(node)
            case ast.IfExp():
                _unknown("depends on a condition")
        _unknown(f"is computed ({type(node).__name__})")

    def known(self, node: ast.expr) -> Value:
        value = self.value(node)
        if isinstance(value.data, Unknown):
            _unknown(value.data.why)
        return value

    def as_changed(self, value: Value) -> Value:
        why = self.changed.get(id(value))
        if why is not None:
            return Value(Unknown(why), value.place)
        if not self.changed:
            return value
        self._charge(0)
        match value.data:
            case list(items):
                now = [self.as_changed(item) for item in items]
                return value if all(map(_is, now, items)) else Value(now, value.place, value.size)
            case dict(fields):
                return self._with_changed(value, fields, None)
            case Made(name, fields):
                return self._with_changed(value, fields, name)
        return value

    def _with_changed(self, value: Value, fields: dict[str, Value], name: str | None) -> Value:
        now = {key: self.as_changed(item) for key, item in fields.items()}
        if all(map(_is, now.values(), fields.values())):
            return value
        return Value(now if name is None else Made(name, now), value.place, value.size)

    def _items(self, element: ast.expr) -> list[Value]:
        if not isinstance(element, ast.Starred):
            return [self.value(element)]
        value = self.known(element.value)
        if not isinstance(value.data, list):
            _unknown("is unpacked from something that is no list")
        return value.data

    def _fields(self, pairs: Iterable[tuple[ast.expr | None, ast.expr]]) -> dict[str, Value]:
        fields: dict[str, Value] = {}
        for key, expression in pairs:
            if key is None:
                unpacked = self.known(expression)
                if not isinstance(unpacked.data, dict):
                    _unknown("is unpacked from something that is no dictionary")
                fields.update(unpacked.data)
                continue
            name = self.known(key).data
            if not isinstance(name, str):
                _unknown("has a key that is no text")
            fields.pop(name, None)
            fields[name] = self.value(expression)
        return fields

    def _formatted(self, part: ast.expr) -> str:
        match part:
            case ast.Constant(value=str(text)):
                return text
            case ast.FormattedValue(value=inner, conversion=-1, format_spec=None):
                data = self.known(inner).data
                if isinstance(data, str | int | float):
                    return str(data)
        _unknown("is formatted")

    def _sum(self, left: Value, op: ast.operator, right: Value) -> Data:
        match left.data, op, right.data:
            case str(one), ast.Add(), str(other):
                if len(one) + len(other) > MAXIMUM_TEXT:
                    _unknown(f"is a text of more than {MAXIMUM_TEXT:,} characters")
                return _text(one + other)
            case list(one), ast.Add(), list(other):
                if left.size + right.size > MAXIMUM_SIZE:
                    _unknown(f"comes to more than {MAXIMUM_SIZE:,} values")
                return one + other
            case (int() | float()) as one, _, (int() | float()) as other if (
                abs(one) <= MAXIMUM_NUMBER and abs(other) <= MAXIMUM_NUMBER
            ):
                return _number(one, op, other)
        _unknown(f"is computed ({type(op).__name__})")

    def _item(self, container: Value, key: Value) -> Value:
        match container.data, key.data:
            case dict(fields), str(name) if name in fields:
                return self.as_changed(fields[name])
            case list(items), int(index) if -len(items) <= index < len(items):
                return self.as_changed(items[index])
        _unknown("is looked up where it is not found")

    def _attribute(self, node: ast.Attribute) -> Data:
        dotted = self._dotted(node)
        if dotted is not None:
            *_, kind, member = ["", *dotted.split(".")]
            if kind in sdk.ENUMERATIONS and member in sdk.ENUMERATIONS[kind]:
                return sdk.ENUMERATIONS[kind][member]
            if is_sdk(dotted):
                _unknown(f"is {kind}.{member}, which the importer does not know")
        if isinstance(node.value, ast.Attribute | ast.Name):
            # `config.GIT_URI`, of a module that was given; `spec.git_branch`, of an object that was made.
            holder = self.known(node.value)
            fields = holder.data.fields if isinstance(holder.data, Made) else holder.data
            if isinstance(fields, dict) and node.attr in fields:
                return self.as_changed(fields[node.attr]).data
        _unknown(f"is the attribute {node.attr} of something that is not known")

    def _call(self, node: ast.Call) -> Data:
        name = self.constructor(node.func)
        if name is not None:
            return Made(name, self._arguments(name, node))
        called = _spelled(node.func)
        if called in ("str", "int", "float") and called not in self.names and len(node.args) == 1 and not node.keywords:
            data = self.known(node.args[0]).data
            if called == "str" and isinstance(data, str | int | float):
                return str(data)
            if isinstance(data, int | float):
                return int(data) if called == "int" else float(data)
        if called == "dict" and "dict" not in self.names and not node.args:
            return self._fields((ast.Constant(pair.arg) if pair.arg else None, pair.value) for pair in node.keywords)
        if called in ("os.getenv", "os.environ.get", "getenv", "environ.get"):
            _unknown(f"is read from the environment of whoever runs the file ({called})")
        _unknown(f"is what {called}() gives back")

    def _arguments(self, name: str, node: ast.Call) -> dict[str, Value]:
        parameters = sdk.CONSTRUCTORS[name]
        positional = [item for argument in node.args for item in self._items(argument)]
        if len(positional) > len(parameters):
            _unknown(f"gives {name} {len(positional)} arguments without a name")
        fields = dict(zip(parameters, positional, strict=False))
        for keyword in node.keywords:
            if keyword.arg is None:
                unpacked = self.known(keyword.value)
                if not isinstance(unpacked.data, dict):
                    _unknown(f"gives {name} arguments that are unpacked from no dictionary")
                fields.update(unpacked.data)
            else:
                fields[keyword.arg] = self.value(keyword.value)
        return fields

    def constructor(self, function: ast.expr) -> str | None:
        dotted = self._dotted(function)
        return sdk.constructor(dotted.rpartition(".")[2]) if dotted is not None else None

    def _dotted(self, node: ast.expr) -> str | None:
        """`qa.Automation` as "qwak.automations.Automation": None for what is not of the SDK."""
        steps: list[str] = []
        while isinstance(node, ast.Attribute):
            steps.append(node.attr)
            node = node.value
        if isinstance(node, ast.Name) and node.id in self.imported:
            return ".".join([self.imported[node.id], *reversed(steps)])
        return None

    def place(self, node: ast.AST) -> Place:
        line: int = getattr(node, "lineno", 1)
        offset: int = getattr(node, "col_offset", 0)  # in bytes of UTF-8
        text = self.lines[line - 1] if line <= len(self.lines) else ""
        return Place(self.file, line, len(text.encode()[:offset].decode(errors="replace")) + 1)


def _extent(data: Data) -> tuple[int, int]:
    """How many values there are in a value, and how deep."""
    match data:
        case list(items):
            inner = items
        case dict(fields) | Made(_, fields):
            inner = list(fields.values())
        case _:
            return 1, 1
    return 1 + sum(item.size for item in inner), 1 + max((item.depth for item in inner), default=0)


def _spelled(function: ast.expr) -> str:
    """A called function as the file writes it, cut where it goes on too long."""
    steps: list[str] = []
    while isinstance(function, ast.Attribute) and len(steps) < 5:
        steps.append(function.attr)
        function = function.value
    return ".".join([function.id if isinstance(function, ast.Name) else "...", *reversed(steps)])


def _is(one: Value, other: Value) -> bool:
    return one is other


def is_sdk(dotted: str) -> bool:
    return dotted.partition(".")[0] in sdk.PACKAGES


def _constant(constant: object) -> Data:
    if isinstance(constant, str):
        return _text(constant)
    if constant is None or isinstance(constant, bool):
        return constant
    if isinstance(constant, int) and abs(constant) <= MAXIMUM_NUMBER:
        return constant
    if isinstance(constant, float) and abs(constant) < float("inf"):
        return constant
    _unknown(f"is a {type(constant).__name__} that no spec can hold")


def _text(text: str) -> str:
    if len(text) > MAXIMUM_TEXT:
        _unknown(f"is a text of more than {MAXIMUM_TEXT:,} characters")
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        _unknown("holds a character that no spec can hold")
    return text


def _number(one: float, op: ast.operator, other: float) -> float:
    """Sizes and times are written as sums and products: `30 * 1000`."""
    match op:
        case ast.Add():
            number = one + other
        case ast.Sub():
            number = one - other
        case ast.Mult():
            number = one * other
        case ast.FloorDiv() if other:
            number = one // other
        case ast.Div() if other:
            number = one / other
        case _:
            _unknown("is computed")
    if abs(number) > MAXIMUM_NUMBER:
        _unknown("is a number beyond all use")
    return number
