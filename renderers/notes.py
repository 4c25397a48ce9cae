"""What rendering has to say beside the manifests: notes for the plan, and refusals."""

from __future__ import annotations

from typing import NamedTuple

from renderers.manifest import Origin


class Note(NamedTuple):
    """What somebody who reads the plan should know about a spec; nothing is wrong."""

    origin: Origin
    text: str  #: a sentence


class Refused(Exception):  # noqa: N818 (it reads as what happened: the renderer refused)
    """A spec that is valid by itself and cannot be made into manifests here.

    `rule` is the rule id ("routing/too-many-rules"), `message` one sentence, `hint` what to write instead.
    Raised for a whole unit: half of a model's objects would be worse than the ones that run.
    """

    def __init__(self, origin: Origin, rule: str, message: str, hint: str = "") -> None:
        super().__init__(f"{origin}: {message}" + (f" ({hint})" if hint else ""))
        self.origin = origin
        self.rule = rule
        self.message = message
        self.hint = hint
