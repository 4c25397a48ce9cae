"""`reconcile import`: what users of the reference platform have -> specs.

    files -> values -> what each one says -> specs that fit together -> text -> what our own index says of it

Read are audience files, deployment, build and autoscaling configurations (YAML), the list of audiences that a command
prints (JSON), and automations (Python, which is never run). Nothing is guessed: what the files do not say is told, and
leaves a comment `# import: ...` in the result. Pure: files in, files out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from reconciler import queries
from reconciler import specs as index
from reconciler.importing import assembly, naming, reading
from reconciler.importing.context import Context, Options, Spec
from reconciler.importing.forms import Told
from reconciler.importing.naming import Name
from reconciler.importing.values import Place
from reconciler.importing.writing import Item, document
from renderers.catalog import Catalog
from schemas.document import KINDS
from schemas.problem import Problem, quoted

__all__ = ["Imported", "Options", "Secret", "convert"]

#: What the result is called where it is not split into files.
WHOLE = "imported.yaml"


@dataclass(frozen=True, slots=True)
class Secret:
    """A Secret that somebody must make: specs name secrets, and never hold one."""

    name: str
    key: str
    place: Place  #: where the files name it, or hold what belongs into it


@dataclass(frozen=True, slots=True)
class Imported:
    """What came of an import."""

    #: Path in the folder of the result -> text.
    files: Mapping[str, str]
    #: Kind -> how many specs of it.
    counts: Mapping[str, int]
    #: What is to be said of the files that were read, in their order.
    told: tuple[Problem, ...]
    #: What our own index says of the result, together with the specs that were there.
    problems: tuple[Problem, ...]
    secrets: tuple[Secret, ...]
    #: How many files are not of the platform.
    others: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether nothing is left for a person to decide."""
        return not any(problem.severity == "error" for problem in (*self.told, *self.problems))


def convert(
    files: Mapping[str, bytes],
    options: Options,
    existing: Mapping[str, bytes] | None = None,
    *,
    folder: str = "",
    split: bool = True,
) -> Imported:
    """Reads files and writes specs. Never raises for what is in them.

    `existing`: the specs of the folder that the result goes to. What is defined there is left as it is, and no file of
    it is written. `folder` is what stands before the names of new files in problems. Without `split` there is one file.
    """
    there = existing or {}
    catalog = index.parse(there).catalog
    context = Context(_with_the_only_environment(options, catalog))
    found, others = reading.read(files, context)
    specs = assembly.specs(found, context, catalog)
    names = naming.given(name for name in _names(specs, context.told))
    _tell_renamed(specs, names, context)
    new = [spec for spec in specs if not _is_there(spec, names, catalog, context.told)]
    texts = _texts(new, names, there, folder, split=split)
    content = {f"{folder}{path}": text.encode() for path, text in texts.items()}
    loaded = index.parse({**there, **content}, queries.check)
    return Imported(
        texts,
        dict(Counter(spec.item.kind for spec in new)),
        tuple(sorted(set(context.told.problems))),
        tuple(problem for problem in loaded.problems if problem.file in content),
        tuple(Secret(names[name], key, place) for name, (key, place) in context.told.secrets.items()),
        others,
    )


def _with_the_only_environment(options: Options, catalog: Catalog) -> Options:
    """Where there is one environment, the files mean it when they name none."""
    if options.environment or len(catalog.environments) != 1:
        return options
    (only,) = catalog.environments
    return Options(only, options.environments, options.git_uris, options.audiences)


def _names(specs: list[Spec], told: Told) -> list[Name]:
    return [name for spec in specs for name in (spec.name, *assembly.names_in(spec.item.fields))] + list(told.secrets)


def _tell_renamed(specs: list[Spec], names: Mapping[Name, str], context: Context) -> None:
    places = {spec.name: spec.place for spec in reversed(specs)}
    places |= {name: place for name, (_, place) in context.told.secrets.items()}
    first = next(iter(places.values()), Place("", 1, 1))
    for name, now in names.items():
        if name.text != now:
            of = f" of the model {name.model}" if name.model else ""
            message = f"The {name.kind} {quoted(name.text)}{of} is called {now} from now on."
            context.told.tell(places.get(name, first), "import/renamed", message)


def _is_there(spec: Spec, names: Mapping[Name, str], catalog: Catalog, told: Told) -> bool:
    """Whether there is a spec of that name already. It is left as it is; an environment without a word."""
    name = names[spec.name]
    key = (names.get(Name("model", spec.name.model), spec.name.model), name) if spec.item.kind == "variations" else name
    placed = getattr(catalog, spec.item.kind).get(key)
    if placed is not None and spec.item.kind != "environments":
        message = f"The {spec.name.kind} {name} is at {placed.origin} already: it was left as it is."
        told.tell(spec.place, "import/there-already", message)
    return placed is not None


def _texts(
    specs: list[Spec], names: Mapping[Name, str], there: Mapping[str, bytes], folder: str, *, split: bool
) -> dict[str, str]:
    """The files of the result: a folder for each kind, and in it what belongs together."""
    groups: dict[str, list[Item]] = {}
    for spec in specs:
        path = _path(spec, names) if split else WHOLE
        # A comment tells a reader of the result what the platform's users know the thing by.
        was = (f"was {quoted(spec.name.text)} on the platform",) if names[spec.name] != spec.name.text else ()
        item = spec.item._replace(comments=(*spec.item.comments, *was))
        groups.setdefault(path, []).append(item)
    taken = {name.lower() for name in there}
    result = {}
    for path, items in groups.items():
        stem, count = path.removesuffix(".yaml"), 1
        while f"{folder}{path}".lower() in taken:
            count += 1
            path = f"{stem}-{count}.yaml"  # noqa: PLW2901 - the name that is free
        taken.add(f"{folder}{path}".lower())
        result[path] = document(items, names.__getitem__)
    return result


def _path(spec: Spec, names: Mapping[Name, str]) -> str:
    """`audiences/NAME.yaml`; what belongs to a model in a file of the model."""
    model = spec.item.fields.get("model")
    group = names[model] if isinstance(model, Name) else names[spec.name]
    assert spec.item.kind in KINDS
    return f"{spec.item.kind}/{group.lower()}.yaml"
