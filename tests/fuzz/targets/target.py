"""What a fuzz target is, and the targets by name."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
CORPUS = Path(__file__).parents[1] / "corpus"

#: Modules beside this one, each with a `TARGET`. Importing one imports all that it tries, so it is done late.
NAMES = ("reader", "specs", "documents", "conditions", "sql", "kubeconfig", "objects", "webhooks")


@dataclass(frozen=True)
class Target:
    """Something that takes whatever strangers write.

    `check` raises for bytes that it does not take as it should, whatever the exception. `words` are pieces that a
    fuzzer puts together (the tokens of the language). `seeds` join the files of the corpus.
    """

    check: Callable[[bytes], Any]
    words: Iterable[str] = ()
    seeds: Iterable[bytes] = ()
    max_bytes: int = 4096


def load(name: str) -> Target:
    """The target of this name. Raises ModuleNotFoundError."""
    target: Target = importlib.import_module(f"tests.fuzz.targets.{name}").TARGET
    return target


def seeds(name: str, target: Target) -> list[bytes]:
    """What is known to be worth trying: the files of the corpus, among them what was found broken once."""
    return [path.read_bytes() for path in sorted((CORPUS / name).glob("*"))] + list(target.seeds)
