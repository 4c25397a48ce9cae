"""What names, keys and values may look like, in the words of the API server. Each function gives the reasons why a
text is wrong: [] when it is right.

Rules: https://kubernetes.io/docs/concepts/overview/working-with-objects/names/ and .../labels/
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_DNS_1035 = r"[a-z]([-a-z0-9]*[a-z0-9])?"
_NAME = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_CONFIG_KEY = r"[-._a-zA-Z0-9]+"

_ENDS = "must start and end with an alphanumeric character"
_LABEL_TEXT = (
    f"a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and {_ENDS} "
    f"(e.g. 'my-name',  or '123-abc', regex used for validation is '{_LABEL}')"
)
_SUBDOMAIN_TEXT = (
    f"a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and {_ENDS} "
    f"(e.g. 'example.com', regex used for validation is '{_SUBDOMAIN}')"
)
_DNS_1035_TEXT = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and end with an alphanumeric character "
    f"(e.g. 'my-name',  or 'abc-123', regex used for validation is '{_DNS_1035}')"
)
_QUALIFIED = (
    f"must consist of alphanumeric characters, '-', '_' or '.', and {_ENDS} "
    f"(e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '{_NAME}')"
)
_LABEL_VALUE_TEXT = (
    f"a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and {_ENDS} "
    f"(e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '({_NAME})?')"
)
_CONFIG_KEY_TEXT = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' "
    f"(e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '{_CONFIG_KEY}')"
)
PERCENT_TEXT = (
    "a valid percent string must be a numeric string followed by an ending '%' "
    "(e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')"
)
IP_TEXT = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
CIDR_TEXT = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"


def _full(pattern: str, text: str) -> bool:
    return re.fullmatch(pattern, text, re.ASCII) is not None


def _length(text: str, most: int, unit: str = "bytes") -> list[str]:
    return [f"must be no more than {most} {unit}"] if len(text.encode()) > most else []


@lru_cache(maxsize=4096)
def _dns_label(text: str) -> tuple[str, ...]:
    problems = _length(text, 63)
    if not _full(_LABEL, text):
        problems.append("must not contain dots" if _full(_SUBDOMAIN, text) else _LABEL_TEXT)
    return tuple(problems)


def dns_label(text: str) -> list[str]:
    return list(_dns_label(text))


@lru_cache(maxsize=4096)
def _dns_subdomain(text: str) -> tuple[str, ...]:
    return (*_length(text, 253), *(() if _full(_SUBDOMAIN, text) else (_SUBDOMAIN_TEXT,)))


def dns_subdomain(text: str) -> list[str]:
    return list(_dns_subdomain(text))


def dns_1035_label(text: str) -> list[str]:
    return _length(text, 63) + ([] if _full(_DNS_1035, text) else [_DNS_1035_TEXT])


@lru_cache(maxsize=8192)
def _qualified_name(text: str) -> tuple[str, ...]:
    prefix, slash, name = text.rpartition("/")
    if "/" in prefix:
        return (
            f"a valid label key {_QUALIFIED} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
        )
    problems = []
    if slash:
        if not prefix:
            problems.append("prefix part must be non-empty")
        else:
            problems += [f"prefix part {problem}" for problem in dns_subdomain(prefix)]
    if not name:
        problems += ["name part must be non-empty"]
    problems += [f"name part {problem}" for problem in _length(name, 63)]
    if not _full(_NAME, name):
        problems.append(f"name part {_QUALIFIED}")
    return tuple(problems)


def qualified_name(text: str) -> list[str]:
    return list(_qualified_name(text))


@lru_cache(maxsize=8192)
def _label_value(text: str) -> tuple[str, ...]:
    return (*_length(text, 63), *(() if _full(f"({_NAME})?", text) else (_LABEL_VALUE_TEXT,)))


def label_value(text: str) -> list[str]:
    return list(_label_value(text))


def path_segment(text: str) -> list[str]:
    """What RBAC names may be: anything that fits into a URL path."""
    if text in (".", ".."):
        return [f"may not be '{text}'"]
    return [f"may not contain '{sign}'" for sign in ("/", "%") if sign in text]


def config_key(text: str) -> list[str]:
    if not _full(_CONFIG_KEY, text):
        return [_CONFIG_KEY_TEXT]
    if text in (".", "..") or text.startswith(".."):
        return [f"must not be '{text}'" if text in (".", "..") else "must not start with '..'"]
    return _length(text, 253, "characters")


def variable_name(text: str) -> list[str]:
    if text and all(" " <= char <= "~" and char != "=" for char in text):
        return []
    return ["a valid environment variable name must consist only of printable ASCII characters other than '='"]


def port_name(text: str) -> list[str]:
    problems = ["must be no more than 15 characters"] if len(text) > 15 else []
    if not _full("[-a-z0-9]+", text):
        problems.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not re.search("[a-z]", text):
        problems.append("must contain at least one letter (a-z)")
    if "--" in text:
        problems.append("must not contain consecutive hyphens")
    if text.startswith("-") or text.endswith("-"):
        problems.append("must not begin or end with a hyphen")
    return problems


def port_number(number: int) -> list[str]:
    return [] if 0 < number < 65536 else ["must be between 1 and 65535, inclusive"]


def ip_address(text: str) -> list[str]:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return [IP_TEXT]
    return []


def cidr(text: str) -> list[str]:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return [CIDR_TEXT]
    return [] if "/" in text else [CIDR_TEXT]
