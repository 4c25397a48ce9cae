"""Regular expressions as gateways read them: RE2, over octets."""

from __future__ import annotations

from functools import lru_cache
from typing import Any


@lru_cache(maxsize=4096)
def compile_re2(pattern: str) -> Any:
    """The compiled pattern: `fullmatch(octets)` as in `re`, and `programsize`, which Envoy limits.

    Raises ValueError, with the reason, for what RE2 does not read.
    """
    # Native code without types, which only specs with a regular expression pay for.
    import re2  # type: ignore[import-untyped]  # noqa: PLC0415

    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.log_errors = False  # to stderr
    try:
        return re2.compile(pattern.encode("latin-1"), options)
    except re2.error as error:
        (reason,) = error.args
        raise ValueError(reason.decode() if isinstance(reason, bytes) else reason) from error
