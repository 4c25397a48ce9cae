"""The envelope: what a file of specs looks like from the outside."""

from typing import Annotated, Literal

from pydantic import Field

from schemas.audience import Audience
from schemas.automation import Automation
from schemas.base import Many, SpecModel
from schemas.build import Build
from schemas.environment import Environment
from schemas.variation import Variation

#: The five kinds: the key under `spec`, the word for one of them, and its type.
KINDS: dict[str, tuple[str, type[SpecModel]]] = {
    "environments": ("environment", Environment),
    "builds": ("build", Build),
    "variations": ("variation", Variation),
    "audiences": ("audience", Audience),
    "automations": ("automation", Automation),
}


class Specs(SpecModel):
    """Any of the five kinds, each a list."""

    environments: Annotated[Many[Environment], Field(max_length=10_000)] = ()
    """Where models are built and served."""
    builds: Annotated[Many[Build], Field(max_length=10_000)] = ()
    """A model's code at a commit, made into an artifact."""
    variations: Annotated[Many[Variation], Field(max_length=10_000)] = ()
    """How builds are served, and to whom."""
    audiences: Annotated[Many[Audience], Field(max_length=10_000)] = ()
    """Named groups of requests."""
    automations: Annotated[Many[Automation], Field(max_length=10_000)] = ()
    """When to build anew, and what a build must achieve."""


class Document(SpecModel):
    """One YAML document. A file may hold several, divided by `---`."""

    api_version: Literal["v1"]
    """The version of the language."""
    spec: Specs
    """The specs."""
