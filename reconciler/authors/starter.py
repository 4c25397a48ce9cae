"""The files of a new repository of specs. Pure, but for reading the templates that come with this package.

`<<name>>` in a template is filled in; everything else is as it will be.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files as resources
from typing import Final, NamedTuple

import schemas


class Facts(NamedTuple):
    """What a repository's files depend on."""

    git_uri: str  #: of the model
    branch: str
    #: of the model's code, where there is one; otherwise the branch is built
    commit: str = ""


#: Where each file goes -> its template. These must not be there: with another one in its place nothing would work.
MODEL: Final[Mapping[str, str]] = {
    "models/churn/main/__init__.py": "init.py.txt",
    "models/churn/main/model.py": "model.py.txt",
    "models/churn/main/requirements.txt": "requirements.txt",
    "models/churn/tests/test_churn.py": "test_churn.py.txt",
}
SPECS: Final[Mapping[str, str]] = {
    "specs/environments.yaml": "environments.yaml",
    "specs/audiences.yaml": "audiences.yaml",
    "specs/churn.yaml": "churn.yaml",
}
#: These are left as they are where they are there.
BESIDE: Final[Mapping[str, str]] = {
    "README.md": "README.md",
    ".gitignore": "gitignore.txt",
    ".github/workflows/trueup.yml": "workflow.yaml",
    ".pre-commit-config.yaml": "pre-commit.yaml",
}
#: What the modelines of the specs name.
SCHEMA: Final = "trueup.schema.json"


def model() -> dict[str, str]:
    """The model's code: path -> text."""
    return {path: _template(name) for path, name in MODEL.items()}


def specs(facts: Facts) -> dict[str, str]:
    """The specs: path -> text."""
    revision = f"git_commit: {facts.commit}" if facts.commit else f"git_branch: {facts.branch}"
    values = {"git_uri": facts.git_uri, "branch": facts.branch, "revision": revision}
    return {path: _filled(_template(name), values) for path, name in SPECS.items()}


def beside() -> dict[str, str]:
    """What a repository has beside them: path -> text."""
    schema = (resources(schemas) / "document.schema.json").read_text(encoding="utf-8")
    return {**{path: _template(name) for path, name in BESIDE.items()}, SCHEMA: schema}


def _template(name: str) -> str:
    return (resources("reconciler.authors") / "templates" / name).read_text(encoding="utf-8")


def _filled(template: str, values: Mapping[str, str]) -> str:
    return re.sub("<<([a-z_]+)>>", lambda match: values[match[1]], template)
