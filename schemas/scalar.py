"""What an unquoted scalar means: the core schema of YAML 1.2, minus what YAML 1.1 reads differently.

Kubernetes, Helm and most editors still read YAML 1.1, where `yes` is a boolean, `010` is eight and `12:30` is
750. A spec has one meaning to all of them, or is refused.
"""

from __future__ import annotations

import re
from math import isfinite
from typing import NamedTuple


class Refusal(NamedTuple):
    """Why text is not legal: what a `Problem` needs beside its place. `message` has no full stop yet."""

    rule: str
    message: str
    hint: str


_WORDS = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
#: Booleans of YAML 1.1, which Kubernetes, Helm and Ansible still read; text in YAML 1.2.
_WORDS_OF_1_1 = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "on", "On", "ON"), "true"),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "off", "Off", "OFF"), "false"),
}

#: Scalars of YAML 1.1 with a type of their own (merge, value): some readers refuse them even as a value.
_SIGNS_OF_1_1 = frozenset(("<<", "="))

#: Text of which `meaning` may make something else than text: one of these words, or a start of a number.
RESERVED_WORDS = frozenset([*_WORDS, *_WORDS_OF_1_1, *_SIGNS_OF_1_1])
NUMBER_STARTS = frozenset("0123456789+-.")

_SMALL_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})")  # surely fits into 64 bits
_INTEGER = re.compile(r"[-+]?[1-9][0-9]*")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]+")
_DECIMAL = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")

# Numbers and times to one version of YAML, something else to the other.
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?")
_LEADING_ZEROS = re.compile(r"^([-+]?)0+(?=[0-9])")
_OTHER_BASE = re.compile(r"0o[0-7]+|[-+]?0b[01_]+|[-+]0x[0-9a-fA-F_]+|0x[0-9a-fA-F_]+")
_WITH_UNDERSCORES = re.compile(r"[-+]?[0-9][0-9_]*(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)?")
_BASE_60 = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?")
_TIMESTAMP = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt]|[ \t]+)[0-9]{1,2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]*)?"
    r"(?:[ \t]*(?:Z|[-+][0-9]{1,2}(?::?[0-9]{2})?))?"
)


def meaning(text: str) -> str | int | float | bool | Refusal | None:
    """What unquoted text means in the core schema of YAML 1.2, if YAML 1.1 agrees; else why it is refused."""
    if _SMALL_INTEGER.fullmatch(text):
        return int(text)
    if text in _WORDS:
        return _WORDS[text]
    if text in _WORDS_OF_1_1:
        value = _WORDS_OF_1_1[text]
        return _ambiguous(text, f"text to some YAML readers and {value} to others", f"write {value}, or ")
    if text in _SIGNS_OF_1_1:
        return _ambiguous(text, "text to some YAML readers and a sign of the language to others")
    if _INTEGER.fullmatch(text):
        return _integer(text, 10)
    if _DECIMAL.fullmatch(text):
        number = float(text)
        return number if isfinite(number) else _not_finite(text)
    if _HEXADECIMAL.fullmatch(text):
        return _integer(text, 16)
    if _NOT_FINITE.fullmatch(text):
        return _not_finite(text)
    return _surprise(text) or text


def _integer(text: str, base: int) -> int | Refusal:
    # The length first: Python refuses to convert thousands of digits, and is slow below that.
    if len(text) <= 20 and -(1 << 63) <= (number := int(text, base)) < 1 << 63:
        return number
    return Refusal(
        "yaml/integer-too-large", "This integer does not fit into 64 bits", "quote it, if it is meant as text"
    )


def _not_finite(text: str) -> Refusal:
    return Refusal("yaml/not-finite", f"{_short(text)} is not a finite number", "write a number, or quote it")


def _surprise(text: str) -> Refusal | None:
    if _LEADING_ZERO.fullmatch(text):
        number = _LEADING_ZEROS.sub(r"\1", text)
        what = "an octal number to some YAML readers and a decimal one to others"
        return _ambiguous(text, what, f"write {number}, or ")
    if _OTHER_BASE.fullmatch(text) or ("_" in text and _WITH_UNDERSCORES.fullmatch(text)):
        return _ambiguous(text, "a number to some YAML readers and text to others")
    if _BASE_60.fullmatch(text):
        return _ambiguous(text, "a number in base 60 to some YAML readers and text to others")
    if _TIMESTAMP.fullmatch(text):
        return _ambiguous(text, "a date to some YAML readers and text to others")
    return None


def _ambiguous(text: str, what: str, otherwise: str = "write ") -> Refusal:
    text = _short(text)
    return Refusal("yaml/ambiguous-value", f"{text} is {what}", f'{otherwise}"{text}", with quotes')


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:40]}..."
