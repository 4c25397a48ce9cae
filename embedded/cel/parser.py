"""From the text of an expression straight to a function that evaluates it: there is no tree in between."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from embedded.cel import evaluation
from embedded.cel.evaluation import Node, Unsigned
from embedded.cel.functions import FUNCTIONS, METHODS


class CelError(ValueError):
    """An expression that cannot be compiled, with the reason."""


class _Token(NamedTuple):
    kind: str  # name | number | string | operator | end
    value: Any
    at: int


_TOKEN = re.compile(
    r"""(?P<space>\s+|//[^\n]*)
      | (?P<string>[rR]?(?:\"\"\"(?:\\.|[^\\])*?\"\"\"|'''(?:\\.|[^\\])*?'''|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'))
      | (?P<number>0[xX][0-9a-fA-F]+[uU]?|\d+\.\d+(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+|\d+[uU]?)
      | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<operator>&&|\|\||<=|>=|==|!=|[-+*/%!<>?:.,()\[\]{}])""",
    re.VERBOSE | re.DOTALL,
)
_RAW_STRING = re.compile(r"""[rR](?P<quote>\"\"\"|'''|"|')(?P<body>.*?)(?P=quote)""", re.DOTALL)
_ESCAPE = re.compile(r"\\(?:([abfnrtv\\?\"'`])|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-3][0-7]{2}))")
_SINGLE = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    position = 0
    while position < len(text):
        match = _RAW_STRING.match(text, position) or _TOKEN.match(text, position)
        if match is None:
            raise CelError(f"Syntax error: token recognition error at: '{text[position]}'")
        position = match.end()
        kind = match.lastgroup if match.re is _TOKEN else "raw"
        if kind == "raw":
            found.append(_Token("string", match["body"], match.start()))
        elif kind == "string":
            found.append(_Token("string", _unquote(match[0]), match.start()))
        elif kind == "number":
            found.append(_Token("number", _number(match[0]), match.start()))
        elif kind != "space":
            found.append(_Token(kind or "", match[0], match.start()))
    found.append(_Token("end", "<EOF>", len(text)))
    return found


def _unquote(text: str) -> str:
    quote = 3 if text[:3] in ('"""', "'''") else 1

    def one(match: re.Match[str]) -> str:
        if match[1]:
            return _SINGLE.get(match[1], match[1])
        return chr(int(match[5], 8)) if match[5] else chr(int(match[2] or match[3] or match[4], 16))

    return _ESCAPE.sub(one, text[quote:-quote])


def _number(text: str) -> Any:
    if (text[-1] in "uU" and not text.lower().startswith("0x")) or text[-1] in "uU":
        return Unsigned(int(text[:-1], 0))
    if text.lower().startswith("0x"):
        return int(text, 16)
    return float(text) if any(sign in text for sign in ".eE") else int(text)


_RESERVED = frozenset(
    {
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    }
)
_LITERALS = {"true": True, "false": False, "null": None}
_MACROS = frozenset({"all", "exists", "exists_one", "existsOne", "filter", "map"})
_ESCAPED = re.compile(r"__(dot|dash|slash|underscores|[a-z]+)__")
_ESCAPES = {"dot": ".", "dash": "-", "slash": "/", "underscores": "__"}


def _field(name: str) -> str:
    """The property that an identifier stands for: `__namespace__` is `namespace`, `a__dash__b` is `a-b`."""
    return _ESCAPED.sub(lambda match: _ESCAPES.get(match[1], match[1]), name)


class Parser:
    def __init__(self, text: str, names: set[str]) -> None:
        self.tokens = _tokens(text)
        self.position = 0
        self.names = [names]
        self.used: set[str] = set()

    def compile(self) -> Node:
        node = self.expression()
        if self.peek().kind != "end":
            raise self.unexpected()
        return node

    # reading

    def peek(self) -> _Token:
        return self.tokens[self.position]

    def next(self) -> _Token:
        token = self.tokens[self.position]
        self.position += 1
        return token

    def at(self, *operators: str) -> bool:
        token = self.peek()
        return token.kind == "operator" and token.value in operators

    def take(self, *operators: str) -> str | None:
        return str(self.next().value) if self.at(*operators) else None

    def expect(self, operator: str) -> None:
        if not self.take(operator):
            raise self.unexpected(f"expecting '{operator}'")

    def unexpected(self, wanted: str = "") -> CelError:
        token = self.peek()
        return CelError(
            f"ERROR: <input>:1:{token.at + 1}: Syntax error: mismatched input '{token.value}' {wanted}".rstrip()
        )

    # the grammar, loosest binding first

    def expression(self) -> Node:
        condition = self.disjunction()
        if not self.take("?"):
            return condition
        yes = self.disjunction()
        self.expect(":")
        no = self.expression()
        return lambda env: yes(env) if evaluation.truth(condition(env)) else no(env)

    def disjunction(self) -> Node:
        node = self.conjunction()
        while self.take("||"):
            node = evaluation.logical(node, self.conjunction(), decisive=True)
        return node

    def conjunction(self) -> Node:
        node = self.relation()
        while self.take("&&"):
            node = evaluation.logical(node, self.relation(), decisive=False)
        return node

    def relation(self) -> Node:
        node = self.sum()
        while True:
            token = self.peek()
            if token.kind == "name" and token.value == "in":
                self.next()
                node = evaluation.binary(evaluation.contains_in, node, self.sum())
            elif operator := self.take("<=", ">=", "==", "!=", "<", ">"):
                node = evaluation.binary(evaluation.RELATIONS[operator], node, self.sum())
            else:
                return node

    def sum(self) -> Node:
        node = self.product()
        while operator := self.take("+", "-"):
            node = evaluation.binary(evaluation.add if operator == "+" else evaluation.subtract, node, self.product())
        return node

    def product(self) -> Node:
        node = self.unary()
        while operator := self.take("*", "/", "%"):
            node = evaluation.binary(
                {"*": evaluation.multiply, "/": evaluation.divide, "%": evaluation.modulo}[operator], node, self.unary()
            )
        return node

    def unary(self) -> Node:
        if self.take("!"):
            inner = self.unary()
            return lambda env: not evaluation.truth(inner(env))
        if self.take("-"):
            inner = self.unary()
            return lambda env: evaluation.checked(-evaluation.numeric(inner(env)))
        return self.member()

    def member(self) -> Node:
        node = self.primary()
        while True:
            if self.take("."):
                if self.at("?"):
                    raise CelError("optional field selection is not supported by this server")
                name = str(self.next().value)
                node = self.method(node, name) if self.at("(") else evaluation.select(node, _field(name))
            elif self.take("["):
                index = self.expression()
                self.expect("]")
                node = evaluation.binary(evaluation.index, node, index)
            else:
                return node

    def method(self, target: Node, name: str) -> Node:
        if name in _MACROS:
            return self.macro(target, name)
        arguments = self.arguments()
        function = METHODS.get(name)
        if function is None:
            raise CelError(f"undeclared reference to '{name}' (in container '')")
        return lambda env: evaluation.call(name, function, [target(env), *(argument(env) for argument in arguments)])

    def macro(self, target: Node, name: str) -> Node:
        self.expect("(")
        variable = str(self.next().value)
        self.expect(",")
        self.names.append({variable})
        bodies = [self.expression()]
        if name == "map" and self.take(","):
            bodies.append(self.expression())
        self.names.pop()
        self.expect(")")
        return evaluation.macro(name, target, variable, bodies)

    def arguments(self) -> list[Node]:
        self.expect("(")
        found: list[Node] = []
        while not self.at(")"):
            found.append(self.expression())
            if not self.take(","):
                break
        self.expect(")")
        return found

    def primary(self) -> Node:
        token = self.next()
        if token.kind in ("string", "number"):
            value = token.value
            return lambda _env: value
        if token.kind == "name":
            return self.named(str(token.value))
        if token.value == "(":
            node = self.expression()
            self.expect(")")
            return node
        if token.value == "[":
            return self.list_literal()
        if token.value == "{":
            return self.map_literal()
        self.position -= 1
        raise self.unexpected()

    def named(self, name: str) -> Node:
        if name in _LITERALS:
            value = _LITERALS[name]
            return lambda _env: value
        if self.at("("):
            return self.has() if name == "has" else self.call(name)
        if name in _RESERVED or not any(name in names for names in self.names):
            raise CelError(f"undeclared reference to '{name}' (in container '')")
        self.used.add(name)
        return lambda env: env[name]

    def has(self) -> Node:
        start = self.position
        self.expect("(")
        self.member()
        if self.tokens[self.position - 2].value != ".":
            raise CelError("invalid argument to has() macro")
        end = self.position
        field = _field(str(self.tokens[end - 1].value))
        self.position = start + 1
        # everything before the last `.field` is the operand
        self.tokens[end - 2 : end] = [_Token("operator", ")", self.tokens[end - 2].at)]
        operand = self.member()
        self.expect(")")
        if not self.take(")"):
            raise CelError("invalid argument to has() macro")
        return lambda env: evaluation.has(operand(env), field)

    def call(self, name: str) -> Node:
        function = FUNCTIONS.get(name)
        if function is None:
            raise CelError(f"undeclared reference to '{name}' (in container '')")
        arguments = self.arguments()
        return lambda env: evaluation.call(name, function, [argument(env) for argument in arguments])

    def list_literal(self) -> Node:
        items: list[Node] = []
        while not self.at("]"):
            items.append(self.expression())
            if not self.take(","):
                break
        self.expect("]")
        return lambda env: [item(env) for item in items]

    def map_literal(self) -> Node:
        items: list[tuple[Node, Node]] = []
        while not self.at("}"):
            key = self.expression()
            self.expect(":")
            items.append((key, self.expression()))
            if not self.take(","):
                break
        self.expect("}")
        return lambda env: {key(env): value(env) for key, value in items}
