"""The flow, one module per step; `reconcile` is the story to read first.

Decides, without I/O: `specs` `desired` `plan` `inventory` `diff` `readiness` `report`.
Touches the world, one module per outside thing: `source` (git, files) `cluster` (Kubernetes) `local` (processes).
Carries out: `observe` (reads) `apply` (the only caller of what writes).
"""

import os

# pydantic looks for plugins of its own in every installed package before it makes the first model: 12 ms of each
# start, for something that a spec has no use for.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
