"""Who is in an audience: the meaning of its conditions, and what every other answer is checked against.

A request is a mapping of header names to values. Names are in lower case. A value is what stands on the wire, one
character for each octet (Latin-1, as in WSGI), without blanks at its ends. A header that comes several times counts
as one whose values are joined by "," (RFC 9110, 5.3): then a request has one value for each header, a proof about
values is a proof about requests, and it does not matter who along the way has joined them already.

Regular expressions are RE2 over octets, because Envoy reads them so: "." is one octet, and "é" in UTF-8 is two.
"""

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal

from schemas.audience import DECIMAL, NUMERIC_OPERATORS, Audience, BinaryCondition, UnaryCondition
from schemas.regex import compile_re2

Condition = UnaryCondition | BinaryCondition
Request = Mapping[str, str]

#: The header in which a request's audience is told: to the gateway by the resolver, and to the server by the gateway.
AUDIENCE_HEADER = "x-trueup-audience"
#: Its value for everybody else: no audience can have this name.
EVERYBODY_ELSE = "-"

#: How a value may compare with the operand: -1 below, 0 equal, 1 above.
ORDERS: Mapping[str, tuple[int, ...]] = {
    "LESS_THAN": (-1,),
    "LESS_OR_EQUAL": (-1, 0),
    "GREATER_THAN": (1,),
    "GREATER_OR_EQUAL": (0, 1),
}

_BLANKS = " \t"


def request_of(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """The request that these header lines are."""
    request: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1").strip(_BLANKS)
        request[name] = f"{request[name]},{value}" if name in request else value
    return request


def matches(audience: Audience, request: Request) -> bool:
    """Whether a request is in the audience."""
    return _member_test(audience)(request)


def resolve(audiences: Iterable[Audience], request: Request) -> str | None:
    """The name of the audience that a request belongs to: the first, in order, that it is in; None: everybody else."""
    return resolver(audiences)(request)


def resolver(audiences: Iterable[Audience]) -> Callable[[Request], str | None]:
    """`resolve` for many requests: what the audiences say is read once."""
    tests = [(_member_test(audience), audience.name) for audience in in_order(audiences)]

    def decide(request: Request) -> str | None:
        for is_member, name in tests:
            if is_member(request):
                return name
        return None

    return decide


def in_order(audiences: Iterable[Audience]) -> list[Audience]:
    """In the order in which they are tried: by priority; everybody after those who want something; by name."""
    return sorted(audiences, key=lambda audience: (audience.priority, not conditions_of(audience), audience.name))


def headers(audience: Audience) -> tuple[str, ...]:
    """The names of the headers that decide, in lower case and in order; none for everybody."""
    return tuple(sorted({condition.key.lower() for condition in conditions_of(audience)}))


def conditions_of(audience: Audience) -> tuple[Condition, ...]:
    """All conditions: each of them must hold."""
    return (*audience.conditions.unary, *audience.conditions.binary)


def holds(condition: Condition) -> Callable[[str | None], bool]:
    """Whether a value of the condition's header meets it; None is a request without the header."""
    if condition.operator == "ABSENT":
        return lambda value: value is None
    compares = _comparison(condition)
    if condition.negate:
        return lambda value: value is not None and not compares(value)
    return lambda value: value is not None and compares(value)


def _member_test(audience: Audience) -> Callable[[Request], bool]:
    tests = [(condition.key.lower(), holds(condition)) for condition in conditions_of(audience)]

    return lambda request: all(is_met(request.get(key)) for key, is_met in tests)


def _comparison(condition: Condition) -> Callable[[str], bool]:
    if isinstance(condition, BinaryCondition):
        return _range_test(condition.first_operand, condition.second_operand)
    operator, operand = condition.operator, condition.operand
    if operator == "UNARY_OPERATOR_TYPE_PRESENT_MATCH":
        return lambda _: True
    if isinstance(operand, tuple):
        return frozenset(operand).__contains__
    assert operand
    if operator in NUMERIC_OPERATORS:
        return _order_test(operand, ORDERS[operator])
    if operator == "UNARY_OPERATOR_TYPE_SAFE_REGEX_MATCH":
        pattern = compile_re2(operand)
        return lambda value: pattern.fullmatch(value.encode("latin-1")) is not None
    tests: dict[str, Callable[[str], bool]] = {
        "UNARY_OPERATOR_TYPE_EXACT_MATCH": lambda value: value == operand,
        "UNARY_OPERATOR_TYPE_PREFIX_MATCH": lambda value: value.startswith(operand),
        "UNARY_OPERATOR_TYPE_SUFFIX_MATCH": lambda value: value.endswith(operand),
        "UNARY_OPERATOR_TYPE_CONTAINS_MATCH": lambda value: operand in value,
    }
    return tests[operator]


def _range_test(first: str, second: str) -> Callable[[str], bool]:
    lowest, highest = Decimal(first), Decimal(second)
    return lambda value: DECIMAL.fullmatch(value) is not None and lowest <= Decimal(value) <= highest


def _order_test(operand: str, orders: tuple[int, ...]) -> Callable[[str], bool]:
    bound = Decimal(operand)

    def is_met(value: str) -> bool:
        if DECIMAL.fullmatch(value) is None:
            return False
        number = Decimal(value)
        return (number > bound) - (number < bound) in orders

    return is_met
