"""Digests of files and folders."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path


def digest_of_file(path: Path) -> str:
    """SHA-256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of_tree(root: Path, wanted: Callable[[Path], bool] = lambda _: True) -> str:
    """SHA-256, in hex, over the names and contents of a file, or of all wanted files below a folder."""
    if root.is_file():
        return digest_of_file(root)
    total = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.is_file() and wanted(path):
            total.update(f"{path.relative_to(root).as_posix()}\0{digest_of_file(path)}\n".encode())
    return total.hexdigest()
