"""files -> specs: everything that is right, and every problem of what is not, at once.

    bytes -> YAML documents -> JSON Schema -> types -> references -> traffic

A bad spec never hides another, and never changes what another means. A model is therefore taken as a whole: if a
variation of it is lost to a problem, the others cannot be routed as they are meant, so none of that model is in
the catalog, and what runs of it stays as it is. In the same way an environment that is lost takes those with it
that are promoted after it, and a reference to something that could not be read is left out without a complaint:
the complaint is where the mistake is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from reconciler.specs.index import Check, Index
from renderers.catalog import Catalog
from schemas.problem import Problem


@dataclass(frozen=True, slots=True)
class Loaded:
    """The specs that are valid, whose references hold, and which can be rendered; and all problems, sorted."""

    catalog: Catalog
    problems: tuple[Problem, ...]


def parse(files: Mapping[str, bytes], *checks: Check) -> Loaded:
    """Reads all specs. `files`: name, as it is to be shown -> content. Never raises for what is in them.

    `checks` add problems that only others can see, such as those of SQL.
    """
    index = Index(files.__getitem__, *checks)
    index.replace(files)
    return Loaded(index.catalog, index.problems)
