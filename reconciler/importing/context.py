"""What an import is told beforehand, and what its rooms leave for each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from reconciler.importing.forms import Told
from reconciler.importing.naming import Name
from reconciler.importing.values import Place
from reconciler.importing.writing import Item

#: What the environment is called that the platform's files leave unnamed: the default one of the account.
DEFAULT_ENVIRONMENT = "main"


@dataclass(frozen=True, slots=True)
class Options:
    """What only the person who imports can know."""

    #: The environment where the files name none.
    environment: str = ""
    #: An environment of the platform -> what it is called from now on.
    environments: Mapping[str, str] = field(default_factory=dict)
    #: A model -> where its code is, as `git_uri` of a build.
    git_uris: Mapping[str, str] = field(default_factory=dict)
    #: An audience's id -> its name.
    audiences: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Context:
    """The state of one import."""

    options: Options
    told: Told = field(default_factory=Told)
    #: The environments that the files name, and where first.
    environments: dict[Name, Place] = field(default_factory=dict)

    def environment(self, text: str, place: Place) -> Name:
        """An environment by the platform's name; "" is the account's default one."""
        text = self.options.environments.get(text, text) or self.options.environment or DEFAULT_ENVIRONMENT
        name = Name("environment", text)
        self.environments.setdefault(name, place)
        return name


@dataclass(slots=True)
class Built:
    """A build configuration."""

    name: Name
    model: str
    place: Place
    fields: dict[str, Any]
    ids: frozenset[str] = frozenset()  #: what the platform's server calls its builds


@dataclass(slots=True)
class Automated:
    """An automation."""

    name: Name
    model: str
    place: Place
    fields: dict[str, Any]
    said: object  #: to tell a repetition from another automation of one name
    deploys_to: str = ""  #: a variation; "" for none
    predicts_with: str = ""  #: the variation of a batch execution
    environments: tuple[Name, ...] = ()
    deployment: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Grouped:
    """An audience: by its name, and by the ids that the platform knows it by."""

    name: Name
    place: Place
    fields: dict[str, Any]
    said: object
    id: str = ""


@dataclass(frozen=True, slots=True)
class Route:
    """A share of an audience's requests. `audience` is None for everybody else."""

    audience: Name | None
    variation: str
    weight: Any
    shadow: Any


@dataclass(slots=True)
class Deployed:
    """A deployment configuration: one variation as it is served, and how the model's requests are shared."""

    model: str
    variation: str
    place: Place
    environments: tuple[Name, ...]
    fields: dict[str, Any]
    build_id: str = ""
    protected: bool = False
    routes: tuple[Route, ...] = ()
    audiences: tuple[Name, ...] = ()  #: in the order in which they are tried


@dataclass(slots=True)
class Scaled:
    """An autoscaling configuration that was attached to a variation."""

    model: str
    variation: str
    place: Place
    fields: Any


@dataclass(slots=True)
class Found:
    """Everything that the files say, in the order of the files."""

    audiences: list[Grouped] = field(default_factory=list)
    builds: list[Built] = field(default_factory=list)
    automations: list[Automated] = field(default_factory=list)
    deployments: list[Deployed] = field(default_factory=list)
    scaled: list[Scaled] = field(default_factory=list)


class Spec(NamedTuple):
    """A spec of the result, and where it comes from."""

    name: Name
    place: Place
    item: Item


def spec(kind: str, name: Name, place: Place, fields: Mapping[str, Any], *comments: str) -> Spec:
    """A spec with a comment that says where it comes from."""
    return Spec(name, place, Item(kind, (f"from {place.file}:{place.line}", *comments), fields))
