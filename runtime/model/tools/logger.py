"""The logger of model code: what it says is in the log of the build, and in that of the server."""

from __future__ import annotations

import logging
import os

__all__ = ["get_frogml_logger", "get_logger", "get_qwak_logger"]


def get_logger(name: str | None = None) -> logging.Logger:
    """A logger of the standard library; without a name, one for the whole model.

    Where nobody has set logging up, what it says goes to standard error, from the level in LOG_LEVEL on (INFO).
    """
    if not logging.getLogger().handlers:
        level = os.environ.get("LOG_LEVEL", "").upper()
        known = level if level in logging.getLevelNamesMapping() else "INFO"
        logging.basicConfig(level=known, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    return logging.getLogger(name or "model")


get_qwak_logger = get_logger
get_frogml_logger = get_logger
