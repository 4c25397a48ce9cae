"""git revision -> files: the spec files (`files`), and the commits that branches stand at (`git`).

The only package that runs git, and the only one that opens spec files.
"""

from __future__ import annotations

from reconciler.source.files import DEFAULT_LIMITS, Files, Limits, read
from reconciler.source.git import Branch, Credential, Unresolved, resolve

__all__ = ["DEFAULT_LIMITS", "Branch", "Credential", "Files", "Limits", "Unresolved", "read", "resolve"]
