"""Files -> what each one says. Which kind of file it is, is told by its keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from reconciler.importing import audiences, automations, builds, deployments, documents, python
from reconciler.importing.context import Context, Found, Scaled
from reconciler.importing.forms import Form
from reconciler.importing.values import Value
from schemas.document import KINDS

#: The endings of files that may hold something.
SUFFIXES = (".yaml", ".yml", ".json", ".py")

_DEPLOYMENT = frozenset({"realtime", "batch", "stream", "resources", "auto_scaling", "advanced_options"})
#: A deployment configuration may say nothing but which build it is of.
_DEPLOYMENT_IDS = frozenset({"model_id", "build_id", "environments"})
_BUILD = frozenset({"build_properties", "build_env"})


def read(files: Mapping[str, bytes], context: Context) -> tuple[Found, int]:
    """Everything that the files say, and how many of them are not of the platform."""
    found, others = Found(), 0
    scripts = _Scripts(files)
    for file, content in sorted(files.items()):
        if not file.lower().endswith(".py"):
            others += not _read_documents(file, content, found, context)
        elif python.speaks_of_sdk(content):
            module = scripts.module(file)
            context.told.problems += module.problems
            found.automations += [automations.read(value, context) for value in module.automations]
            others += not module.automations and not module.problems
        else:
            others += 1
    return found, others


def _read_documents(file: str, content: bytes, found: Found, context: Context) -> bool:
    """Reads a YAML or JSON file; whether it is of the platform."""
    reading = documents.read(file, content)
    if any(problem.severity == "error" for problem in reading.problems):
        context.told.problems += reading.problems
        return True
    is_ours = False
    for document in reading.documents:
        is_ours |= _read_document(document, found, context)
    if is_ours:
        context.told.problems += reading.problems
    return is_ours


def _read_document(document: Value, found: Found, context: Context) -> bool:
    if isinstance(document.data, list):
        return _read_list(document.data, found, context)
    if not isinstance(document.data, dict):
        return False
    keys = document.data.keys()
    if keys & _BUILD:
        build, deployed = builds.read(document, context)
        found.builds += [build] if build is not None else []
        found.deployments += [deployed] if deployed is not None else []
        return True
    if "spec" in keys or "api_version" in keys:
        return _read_spec(document, found, context)
    if keys & _DEPLOYMENT or ("model_id" in keys and keys <= _DEPLOYMENT_IDS):
        one, defined = deployments.read(document, context)
        found.deployments += [one] if one is not None else []
        found.audiences += defined
        return True
    if keys == {"id", "audience"}:
        return _read_list([document], found, context)
    return False


def _read_list(items: list[Value], found: Found, context: Context) -> bool:
    """What `audiences list --json-format` prints."""
    entries = [item for item in items if isinstance(item.data, dict) and item.data.keys() == {"id", "audience"}]
    if not entries or len(entries) < len(items):
        return False
    found.audiences += [audience for item in entries if (audience := audiences.listed(item, context)) is not None]
    return True


def _read_spec(document: Value, found: Found, context: Context) -> bool:
    """Audiences, or autoscaling, in the platform's envelope."""
    form = Form.of(document, document.place, context.told, "the file")
    spec = form.value("spec")
    if spec is None or not isinstance(spec.data, dict) or not spec.data.keys() & {*KINDS, "auto_scaling"}:
        return False
    version = form.text("api_version")
    if version and version != "v1":
        message = f"The file is of the version {version}; the platform has v1. It was left out."
        context.told.undecided(document.place, message, "write api_version: v1, if that is what it is")
        return True
    if not version:
        context.told.changed(document.place, "api_version was missing, without which the platform reads nothing.")
    if spec.data.keys() & (KINDS.keys() - {"audiences"}):
        context.told.without(
            document.place, "These are specs of Trueup already: left out.", "put the file where they are"
        )
        return True
    form.end()
    if "auto_scaling" in spec.data:
        scaled: Scaled | None = deployments.attached(spec, context)
        found.scaled += [scaled] if scaled is not None else []
        return True
    inner = Form.of(spec, document.place, context.told, "spec")
    items = inner.items("audiences")
    found.audiences += [audience for item in items if (audience := audiences.read(item, context)) is not None]
    if len(items) > 1:
        message = "The platform's command takes only the first of several audiences; here all were taken."
        context.told.changed(items[1].place, message)
    inner.end()
    return True


@dataclass(slots=True)
class _Scripts:
    """The Python files, each read once; one may take constants from another."""

    files: Mapping[str, bytes]
    read: dict[str, python.Module] = field(default_factory=dict)
    reading: list[str] = field(default_factory=list)

    def module(self, file: str) -> python.Module:
        """A file as a module. One that is being read, because files import each other in a circle, has no names yet."""
        if file in self.reading or len(self.reading) > 20:
            return python.Module({})
        if file not in self.read:
            self.reading.append(file)
            self.read[file] = python.read(file, self.files[file], lambda name: self._imported(name, file))
            self.reading.pop()
        return self.read[file]

    def _imported(self, dotted: str, by: str) -> python.Module | None:
        """The module that an import means, if it is one of the files: beside the file, or in a folder above it."""
        name = dotted.lstrip(".")
        level = len(dotted) - len(name)
        folders = [*PurePosixPath(by).parents]
        folders = folders[level - 1 : level] if level else folders
        parts = name.split(".") if name else []
        for folder in folders:
            base = folder.joinpath(*parts)
            for candidate in (*([f"{base}.py"] if parts else []), str(base / "__init__.py")):
                if candidate in self.files and candidate != by:
                    return self.module(candidate)
        return None
