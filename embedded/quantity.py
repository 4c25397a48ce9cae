"""Kubernetes quantities (`500m`, `2Gi`, `1e3`): parsing, and the one spelling that the server gives back.

Rules: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Context, Decimal
from functools import lru_cache
from typing import Any

_SYNTAX = re.compile(
    r"([+-]?)([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE]|[eE][+-]?[0-9]+)?\Z", re.ASCII
)
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY_SUFFIX = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_DECIMAL_SUFFIX = {exponent: suffix for suffix, exponent in _DECIMAL.items()}
_EXACT = Context(prec=100)
_MOST_DIGITS = 40  # more than any resource has; keeps the arithmetic exact

SYNTAX_ERROR = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"


def parse_quantity(value: Any) -> Decimal:
    """The number. Raises ValueError with the server's text."""
    return _parse(str(value))[0]


@lru_cache(maxsize=4096)
def _parse(text: str) -> tuple[Decimal, str]:
    text = text.strip()
    match = _SYNTAX.match(text)
    if match is None:
        raise ValueError(SYNTAX_ERROR)
    sign, digits, suffix = match[1], match[2], match[3] or ""
    if len(digits) > _MOST_DIGITS:
        raise ValueError(SYNTAX_ERROR)
    number = Decimal(sign + digits)
    if suffix in _BINARY:
        return _EXACT.multiply(number, Decimal(1024) ** _BINARY[suffix]), "binary"
    if suffix in _DECIMAL:
        return _EXACT.scaleb(number, _DECIMAL[suffix]), "decimal"
    exponent = int(suffix[1:])
    if abs(exponent) > 40:
        raise ValueError(SYNTAX_ERROR)
    return _EXACT.scaleb(number, exponent), "exponent"


@lru_cache(maxsize=4096)
def canonical_quantity(value: Any, *, finest: int = -9) -> str:
    """The server's spelling: largest suffix without a fraction, rounded up to 10**finest (resource lists are kept to
    milli units).

    `1000m` -> `1`, `0.5` -> `500m`, `2048Mi` -> `2Gi`. A value that is no quantity is given back as it is: validation
    says so.
    """
    try:
        number, style = _parse(str(value))
    except ValueError:
        return str(value)
    number = number.quantize(Decimal(1).scaleb(finest), rounding=ROUND_CEILING, context=_EXACT)
    if number == 0:
        return "0"
    if style == "binary" and abs(number) >= 1024:
        whole = int(number.to_integral_value(rounding=ROUND_CEILING))
        power = 0
        while whole % 1024 == 0 and power < 6:
            whole, power = whole // 1024, power + 1
        return f"{whole}{_BINARY_SUFFIX[power]}"
    exponent = -9
    while exponent < 18 and number % Decimal(1).scaleb(exponent + 3) == 0:
        exponent += 3
    mantissa = int(number.scaleb(-exponent, context=_EXACT))
    if style == "exponent":
        return f"{mantissa}e{exponent}" if exponent else str(mantissa)
    return f"{mantissa}{_DECIMAL_SUFFIX[exponent]}"
