"""For the author of a model: to try it without a build, and to measure parts of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from runtime.model.api import api_of

_INITIALIZED = "_trueup_initialized"


def run_local(model: Any, payload: str | bytes) -> Any:
    """What the model answers to a request with this body, as a client would get it: text, or bytes where it is no text.

    The first call builds the model and initializes it; that is kept with the instance.
    """
    if not getattr(model, _INITIALIZED, False):
        model.build()
        initialize = getattr(model, "initialize_model", None)
        if callable(initialize):
            initialize()
        setattr(model, _INITIALIZED, True)
    api = api_of(model)
    body, content_type = api.encode(api.call(api.decode(payload.encode() if isinstance(payload, str) else payload)))
    return body.decode() if content_type.startswith(("application/json", "text/")) else body


@contextmanager
def timer(name: str) -> Iterator[None]:
    """Logs how long a part of the code took: `with timer("embedding"): ...`."""
    start = time.perf_counter()
    try:
        yield
    finally:
        logging.getLogger("runtime.model").info("%s took %.1f ms", name, (time.perf_counter() - start) * 1000)


qwak_timer = frogml_timer = timer
