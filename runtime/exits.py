"""How a container of ours ends: its exit code, and the result that it leaves in its termination message."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from enum import IntEnum
from pathlib import Path
from typing import Any


class Exit(IntEnum):
    """Exit codes. The Job's `podFailurePolicy` ends it at once for 3 to 6; after any other, it is tried again."""

    DONE = 0
    DISTURBED = 1  #: the network, the storage, the machine: another try may fare better
    MODEL = 3  #: the model's code failed
    ARTIFACT = 4  #: its tests or its artifact did
    CODE = 5  #: the code could not be fetched: no such repository, commit or path, or a refused credential
    DEPENDENCIES = 6  #: the dependencies cannot be installed
    INTERRUPTED = 143  #: SIGTERM, as a shell reports it


_REASONS = {
    Exit.DISTURBED: "Disturbed",
    Exit.MODEL: "ModelFailed",
    Exit.ARTIFACT: "ArtifactFailed",
    Exit.CODE: "CodeNotFetched",
    Exit.DEPENDENCIES: "DependenciesNotInstalled",
    Exit.INTERRUPTED: "Interrupted",
}


class Failure(Exception):  # noqa: N818 - what a person calls it
    """A step that failed: `step` is a word, `message` a sentence or several lines, without secrets.

    `reason` is one word in CamelCase, for machines; by default that of the exit code.
    """

    def __init__(self, step: str, message: str, code: Exit, reason: str | None = None) -> None:
        super().__init__(f"{step}: {message}")
        self.step = step
        self.message = message
        self.code = code
        self.reason = reason or _REASONS[code]

    def result(self, **more: Any) -> dict[str, Any]:
        """For the termination message; `more` stands beside the error."""
        return {"error": {"step": self.step, "reason": self.reason, "message": self.message}, **more}


#: The kubelet keeps no more of a termination message.
LIMIT = 4096


def termination_message(result: Mapping[str, Any]) -> str:
    """The result as JSON of at most 4096 bytes (UTF-8).

    Where it is longer, the error's message ends early, or metrics are left out, the last ones first, and
    `metrics_left_out` says how many: the record in the object storage has them all.
    """
    text = _dump(result)
    if _size(text) <= LIMIT:
        return text
    if "error" in result:
        return _shorter_error(result)
    return _fewer_metrics(result)


def report(result: Mapping[str, Any], path: Path) -> None:
    """Leaves the result where the kubelet reads it. A place that cannot be written is told, and no failure."""
    try:
        path.write_text(termination_message(result), "utf-8")
    except OSError as error:
        sys.stderr.write(f"the result cannot be written to {path}: {error.strerror}\n")


def _shorter_error(result: Mapping[str, Any]) -> str:
    message = str(result["error"]["message"])
    keep = LIMIT
    while True:
        # The beginning says what failed; the end of a traceback is what a person looks for.
        kept = f"{message[: keep // 2]} [...] {message[-(keep // 2) :]}" if keep else ""
        text = _dump({**result, "error": {**result["error"], "message": kept}})
        if _size(text) <= LIMIT or not keep:
            return text
        keep = keep * 7 // 8


def _fewer_metrics(result: Mapping[str, Any]) -> str:
    metrics = dict(result.get("metrics", {}))
    kept: dict[str, Any] = {}
    room = LIMIT - _size(_dump({**result, "metrics": {}, "metrics_left_out": len(metrics)}))
    for name, value in metrics.items():
        room -= _size(_dump({name: value})) - 1  # its braces go, a comma comes
        if room < 0:
            break
        kept[name] = value
    return _dump({**result, "metrics": kept, "metrics_left_out": len(metrics) - len(kept)})


def _dump(value: Any) -> str:
    # A lone surrogate, as in a file name that is no UTF-8, could not be written.
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8", "replace").decode()


def _size(text: str) -> int:
    return len(text.encode())
