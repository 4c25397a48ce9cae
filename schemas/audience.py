"""Audiences: named groups of requests, told apart by their headers."""

import re
from decimal import Decimal
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from schemas.base import DisplayName, Many, SpecModel, Text, refuse, shared
from schemas.regex import compile_re2

NumericOperator = Literal["LESS_THAN", "LESS_OR_EQUAL", "GREATER_THAN", "GREATER_OR_EQUAL"]
PresenceOperator = Literal["UNARY_OPERATOR_TYPE_PRESENT_MATCH", "ABSENT"]
#: The platform's operators, by its own names, and ours.
UnaryOperator = Literal[
    "UNARY_OPERATOR_TYPE_EXACT_MATCH",
    "UNARY_OPERATOR_TYPE_SAFE_REGEX_MATCH",
    "UNARY_OPERATOR_TYPE_PRESENT_MATCH",
    "UNARY_OPERATOR_TYPE_PREFIX_MATCH",
    "UNARY_OPERATOR_TYPE_SUFFIX_MATCH",
    "UNARY_OPERATOR_TYPE_CONTAINS_MATCH",
    "IN",
    "LESS_THAN",
    "LESS_OR_EQUAL",
    "GREATER_THAN",
    "GREATER_OR_EQUAL",
    "ABSENT",
]
NUMERIC_OPERATORS: frozenset[str] = frozenset(get_args(NumericOperator))
PRESENCE_OPERATORS: frozenset[str] = frozenset(get_args(PresenceOperator))

#: Headers that carry something else than what an audience could mean; a route on them would be a trap.
RESERVED_KEYS = frozenset(
    {
        "authorization",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "cookie",
        "expect",
        "host",
        "keep-alive",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-jfrog-tenant-id",
        "x-realtime-route-mode",
    }
)
#: Set by the data plane itself; a client must not choose them.
RESERVED_PREFIXES = ("x-trueup-", "x-envoy-", "x-forwarded-")

#: A decimal as header values write it: no exponent, no infinity.
DECIMAL = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")

#: RFC 9110 token, as an HTTP header name.
HeaderKey = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$",
        max_length=128,
        description="The request header: for the unmodified clients, a key of `metadata`. Case does not matter.",
        examples=["location", "age"],
    ),
]
#: Header values reach the gateway as they are: printable ASCII, without blanks at the ends.
Operand = Annotated[
    str,
    Field(
        min_length=1,
        max_length=1024,
        pattern=r"^[!-~]([ -~]*[!-~])?$",
        description="Printable ASCII, without blanks at its ends.",
        examples=["18", "california"],
    ),
]
#: The platform wants the key `operand` even where it ignores it, so its users write "" there.
OperandOrNothing = Annotated[
    str,
    Field(
        max_length=1024,
        pattern=r"^([!-~]([ -~]*[!-~])?)?$",
        description="Printable ASCII, without blanks at its ends.",
    ),
]


def is_reserved(key: str) -> bool:
    """Whether a header is nothing that traffic may be shared by."""
    lowered = key.lower()
    return lowered in RESERVED_KEYS or lowered.startswith(RESERVED_PREFIXES)


def _check_key(key: str) -> None:
    if is_reserved(key):
        refuse(
            "audience/reserved-key",
            f"the header {key!r} is reserved",
            at="key",
            hint="choose a header of your own, such as `location` or `plan`",
        )


def _check_decimal(value: str, at: str) -> None:
    if DECIMAL.fullmatch(value) is None:
        refuse(
            "audience/numeric-operand",
            f"{value!r} is not a decimal number",
            at=at,
            hint='write digits in quotes, such as "18" or "-0.5"',
        )


class UnaryCondition(SpecModel):
    """One header compared with one operand."""

    key: HeaderKey
    operator: UnaryOperator
    """How the value is compared. EXACT, PREFIX, SUFFIX, CONTAINS and IN are case-sensitive; SAFE_REGEX must match the
    whole value (RE2 syntax); PRESENT and ABSENT look at the header alone; the numeric ones read decimals."""
    operand: OperandOrNothing | Annotated[Many[Operand], Field(min_length=1, max_length=64)] | None = None
    """Text in quotes, also where it is a number; a list of texts for IN; left out for PRESENT and ABSENT."""
    negate: bool = False
    """True: the header is present and the comparison fails. A missing header matches nothing but ABSENT."""

    @model_validator(mode="after")
    def _operand_fits_operator(self) -> Self:
        _check_key(self.key)
        if self.operator in PRESENCE_OPERATORS:
            if isinstance(self.operand, tuple):
                refuse("audience/operand", f"{self.operator} compares with nothing", at="operand", hint="leave it out")
            if self.negate:
                other = "ABSENT" if self.operator != "ABSENT" else "UNARY_OPERATOR_TYPE_PRESENT_MATCH"
                refuse("audience/negate", f"{self.operator} cannot be negated", at="negate", hint=f"write {other}")
        elif self.operator == "IN":
            if not isinstance(self.operand, tuple):
                refuse("audience/operand", "IN wants a list of texts", at="operand", hint='write ["a", "b"]')
            if len(set(self.operand)) < len(self.operand):
                refuse("audience/operand", "the list names a value twice", at="operand", hint="keep one of them")
        elif not isinstance(self.operand, str) or not self.operand:
            refuse(
                "audience/operand",
                f"{self.operator} wants one text as its operand",
                at="operand",
                hint="write operand: TEXT",
            )
        elif self.operator in NUMERIC_OPERATORS:
            _check_decimal(self.operand, "operand")
        elif self.operator == "UNARY_OPERATOR_TYPE_SAFE_REGEX_MATCH":
            _check_regex(self.operand)
        return self


def _check_regex(pattern: str) -> None:
    """RE2 has neither look-around nor back-references; a gateway would refuse the whole route for one.

    Python's own `re` is not asked: it reads another language, warns on stderr, and some patterns end it by recursion.
    """
    if re.search(r"\(\?(=|!|<=|<!|>|\()|(?<!\\)(\\\\)*\\[1-9]|\(\?P=", pattern):
        refuse(
            "audience/regex",
            "the regular expression uses look-around or a back-reference, which RE2 does not have",
            at="operand",
            hint="say it without them, or as two conditions",
        )
    try:
        compile_re2(pattern)
    except ValueError as error:
        refuse("audience/regex", f"RE2 does not read the regular expression: {str(error)[:100]}", at="operand")


class BinaryCondition(SpecModel):
    """One header compared with two operands."""

    key: HeaderKey
    operator: Literal["BINARY_OPERATOR_TYPE_RANGE_MATCH"]
    """The value is a decimal from `first_operand` to `second_operand`, both included."""
    first_operand: Operand
    """The lowest value that matches: a decimal, in quotes."""
    second_operand: Operand
    """The highest value that matches: a decimal, in quotes."""
    negate: bool = False
    """True: the header is present and its value is outside the range, or no number."""

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        _check_key(self.key)
        _check_decimal(self.first_operand, "first_operand")
        _check_decimal(self.second_operand, "second_operand")
        if Decimal(self.first_operand) > Decimal(self.second_operand):
            refuse(
                "audience/empty-range",
                f"no number is from {self.first_operand} to {self.second_operand}",
                at="first_operand",
                hint="put the smaller one first",
            )
        return self


class Conditions(SpecModel):
    """What must all be true of a request. Alternatives are several audiences."""

    unary: Annotated[Many[UnaryCondition], Field(max_length=16)] = ()
    """Comparisons with one operand."""
    binary: Annotated[Many[BinaryCondition], Field(max_length=16)] = ()
    """Comparisons with two operands."""


class Audience(SpecModel):
    """A named group of requests; variations take shares of its traffic."""

    name: DisplayName
    description: Text = ""
    """For people."""
    priority: Annotated[int, Field(ge=0, le=10_000)] = 100
    """Lower is tried first. Two audiences of one model that can match the same request need different ones."""
    conditions: Conditions = shared(Conditions)
    """None at all: everybody."""
