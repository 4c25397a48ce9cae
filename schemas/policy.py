"""Policies: what an organisation asks of its specs and plans beyond what the language does."""

from typing import Annotated, Literal

from pydantic import Field

from schemas.base import Many, ResourceName, SpecModel, Text

#: An expression of the Common Expression Language (https://cel.dev), as Kubernetes has it in admission policies.
Cel = Annotated[str, Field(min_length=1, max_length=4096)]


class Policy(SpecModel):
    """One rule, in CEL."""

    name: Annotated[ResourceName, Field(examples=["two-pods"])]
    """What it is called in reports: `policy/NAME`."""
    kind: Literal["environment", "build", "variation", "audience", "automation", "change"]
    """What it is about: specs of a kind (a variation once for each of its environments), or a planned change of an
    object."""
    when: Annotated[Cel, Field(examples=['environment.name == "production"'])] | None = None
    """It is about those only of which this is true."""
    require: Annotated[Cel, Field(examples=["spec.deployment.number_of_pods >= 2", 'change.op != "delete"'])]
    """What must be true. It sees `spec` and `environment` (null where there is none), with all defaults; or `change`,
    `manifest`, `environment` and `approvals`, the ids that were given with --approve. At most 16 macros (all, exists,
    exists_one, map, filter), no more than 2 of them in or after one another."""
    message: Annotated[str, Field(min_length=1, max_length=1000, examples=["Production needs at least two pods"])]
    """What is wrong where it is not true, in a sentence."""
    hint: Annotated[Text, Field(examples=["write number_of_pods, 2 or more"])] = ""
    """What to do about it."""
    at: (
        Annotated[
            str,
            Field(pattern=r"^[a-z_0-9]+(\.[a-z_0-9]+)*$", max_length=200, examples=["deployment.number_of_pods"]),
        ]
        | None
    ) = None
    """The field of the spec that reports point at."""
    severity: Literal["error", "warning"] = "error"
    """An error keeps what it is about from being applied; a warning is only told."""


class Policies(SpecModel):
    """A file of policies."""

    api_version: Literal["v1"]
    """The version of the language."""
    policies: Annotated[Many[Policy], Field(max_length=200)]
    """The rules. Their names differ."""
