"""Following 10,000 spec files of which one changes: `python -m tests.benchmarks index`.

CPU time and resident memory. The ceiling is libyaml's parser alone on the same bytes: nobody knows for less what is in
a file. A change costs its update, and the rendering of the models that it is about and of the environments themselves.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from yaml.cyaml import CBaseLoader
from yaml.events import StreamEndEvent

from reconciler import desired, queries
from reconciler.specs.index import Changed, Index
from renderers.catalog import Facts
from tests.benchmarks import many_specs
from tests.benchmarks.bench_specs import measure

SPECS = 10_000
ROUNDS = 20

Files = Mapping[str, bytes]


def many(number: int) -> dict[str, bytes]:
    with TemporaryDirectory() as folder:
        many_specs.write(Path(folder), number)
        return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(Path(folder).rglob("*.yaml"))}


def parse_alone(files: Files) -> None:
    for text in files.values():
        take = CBaseLoader(text).get_event
        while take().__class__ is not StreamEndEvent:
            pass


def followed(files: Files) -> tuple[dict[str, bytes], Index]:
    """Files that may change, and their index."""
    here = dict(files)
    index = Index(here.__getitem__, queries.check)
    index.replace(here)
    return here, index


class Edit(NamedTuple):
    """A file that changes to and fro."""

    file: str
    old: bytes
    new: bytes


EDITS = {
    "variation": Edit("variations/model-7-a.yaml", b"memory: 2Gi", b"memory: 3Gi"),
    "build": Edit("builds/model-7-a.yaml", b"cpu: 2", b"cpu: 3"),
    "audience": Edit("audiences/audience-7.yaml", b"priority: 10", b"priority: 11"),
    "automation": Edit("automations/nightly-7.yaml", b"0.65", b"0.66"),
    "another name for a build": Edit("builds/model-8-b.yaml", b"name: model-8-b", b"name: model-8-c"),
    "environment (judges everything)": Edit("environments/env-4.yaml", b"env-4\n", b"env-4\n    approval: manual\n"),
}

BROKEN = b"api_version: v1\nspec: {variations: [{model: model-9, name: c\n"
DANGLING = (
    b"api_version: v1\nspec:\n  variations: [{model: model-9, name: c, environments: [env-0], build: modle-9-a}]\n"
)
#: What else may be wrong in the repository, all the time.
TROUBLES: dict[str, Callable[[Files], Files]] = {
    "nothing wrong": lambda files: files,
    "an unreadable file": lambda files: {**files, "more.yaml": BROKEN},
    "a reference that leads nowhere": lambda files: {**files, "more.yaml": DANGLING},
    "a warning in every variation": lambda files: {
        name: text.replace(b"secret.scoring", b"in-the-open") for name, text in files.items()
    },
}


def changes(files: Files) -> dict[str, tuple[float, float]]:
    """By what is edited: the fewest milliseconds of an update, and of rendering what it is about."""
    here, index = followed(files)
    best: dict[str, tuple[float, float]] = {}
    for title, (file, old, new) in EDITS.items():
        texts = (here[file].replace(old, new), here[file])
        costs = []
        for turn in range(ROUNDS):
            here[file] = texts[turn % 2]
            start = time.process_time()
            told = index.update({file: here[file]})
            updated = time.process_time()
            render(index, told)
            costs.append((updated - start, time.process_time() - updated))
        updates, renderings = zip(*costs, strict=True)
        best[title] = (min(updates) * 1000, min(renderings) * 1000)
    return best


def render(index: Index, told: Changed) -> None:
    if told.models is not None:
        for unit in desired.build(index.part(told.models), Facts()):
            assert unit.problem is None


def main() -> None:
    files = many(SPECS)
    followed(many(20))  # compiles the schema and the types
    print(f"{len(files):,} files, {sum(map(len, files.values())):,} bytes")
    _, ceiling, _ = measure(lambda: parse_alone(files))
    kept, replaced, memory = measure(lambda: followed(files))
    print(f"  libyaml's parser alone (ceiling) {ceiling:6.2f} s")
    share = f"{memory * 1024 / SPECS:.1f} KiB a spec"
    print(f"  replace                          {replaced:6.2f} s  {memory:+.0f} MiB resident, {share}")
    del kept
    gc.collect()
    for trouble, spoil in TROUBLES.items():
        print(f"one file changes; {trouble}")
        for title, (update, rendering) in changes(spoil(files)).items():
            text = {title: files[EDITS[title].file]}
            alone = min(measure(partial(parse_alone, text))[1] for _ in range(ROUNDS)) * 1000
            print(f"  {title:<32} update {update:7.2f} ms, render {rendering:5.2f} ms; libyaml alone {alone:.2f} ms")


if __name__ == "__main__":
    main()
