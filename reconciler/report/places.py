"""Where a file of a report is in its repository. Pure: whoever prints says where the process and the repository are."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Places:
    """Absolute paths: of the folder that file names are relative to, and of the root of the repository."""

    here: str
    root: str

    def absolute(self, file: str) -> str:
        """The file from the root of the machine."""
        return posixpath.normpath(posixpath.join(self.here, file))

    def relative(self, file: str) -> str | None:
        """The file from the root of the repository, with "/"; None where it is outside, or no file at all."""
        path = self.absolute(file)
        root = posixpath.normpath(self.root)
        below = path.removeprefix(root.rstrip("/") + "/")
        return below if file and below != path else None
