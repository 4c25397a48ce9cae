"""Templates: YAML files whose string leaves hold Jinja2 expressions.

A template reads like the manifest that it makes:

    metadata:
      name: "{{ name }}"                 # one expression: keeps its type
      annotations: "{{ annotations }}"   # so a dict or a list made in Python is one leaf
    spec:
      replicas: "{{ replicas }}"         # None: the key is left out (and so is an item of a list)
      host: "{{ model }}.{{ domain }}"   # text around it: concatenated; None or a boolean in there is an error

There are expressions but no statements, and keys are constant. The YAML is parsed once, and the whole tree is
compiled into one expression, so that a render is one call and there is no text to quote, to indent or to parse
again. A name that was not given is an error where it is used. Names are fast and attributes are not, because the
sandbox checks each one: write `{{ name }}` rather than `{{ unit.name }}`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from renderers.manifest import Body

FOLDER = Path(__file__).parent / "templates"


class Template:
    """One template, compiled at its first call.

    `Template("service")(name="churn", port=80)` returns a body. Its labels and annotations are its own, so that it
    can be marked; nothing else in it may be changed: constant parts are in every other body of the template, which
    halves memory and the garbage collector's work. Errors: ValueError that names the template.
    """

    def __init__(self, name: str, *, source: str | None = None) -> None:
        """`name` is the file in templates/ without `.yaml`; `source` is its text, where there is no file."""
        self.name = name
        self._source = source

    def __call__(self, **values: Any) -> Body:
        try:
            body = self._expression(values)
        except ValueError as error:
            raise ValueError(f"template {self.name}: {error}") from error
        metadata = body.get("metadata", {})
        for own in ("labels", "annotations"):
            if own in metadata:
                metadata[own] = dict(metadata[own])
        return body

    @cached_property
    def _expression(self) -> Callable[[dict[str, Any]], Body]:
        # Jinja2 and YAML cost 50 ms to import, which a command that renders nothing does not pay.
        from renderers.expression import compile_tree  # noqa: PLC0415

        return compile_tree((FOLDER / f"{self.name}.yaml").read_text("utf-8") if self._source is None else self._source)
