"""Regular expressions as Envoy and Prometheus read them: RE2, which takes linear time whatever the pattern."""

from __future__ import annotations

from functools import lru_cache
from typing import Any


@lru_cache(maxsize=4096)
def compile_re2(pattern: str) -> Any:
    """The compiled pattern: `fullmatch(text)` as in `re`, and `programsize`, which Envoy limits.

    Raises ValueError, with the reason, for what RE2 does not read.
    """
    # Native code without types, which only specs with a regular expression pay for.
    import re2  # type: ignore[import-untyped]  # noqa: PLC0415

    options = re2.Options()
    options.log_errors = False  # to stderr
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        (reason,) = error.args
        raise ValueError(reason.decode() if isinstance(reason, bytes) else reason) from error
