"""Hostnames of listeners and routes: "" is any, `*.example.com` any below it (one label or more)."""

from __future__ import annotations


def intersection(one: str, other: str) -> str | None:
    """The hostname that both stand for, which is the narrower one; None where they have nothing in common."""
    if covers(one, other):
        return other
    return one if covers(other, one) else None


def covers(pattern: str, hostname: str) -> bool:
    """Whether everything that `hostname` stands for is covered by `pattern`."""
    if pattern in ("", hostname):
        return True
    return pattern.startswith("*.") and hostname.endswith(pattern[1:]) and hostname != pattern[1:]


def precision(hostname: str) -> tuple[int, int]:
    """How closely a hostname describes: characters where it is exact, then characters."""
    return (0 if hostname.startswith("*") else len(hostname), len(hostname))
