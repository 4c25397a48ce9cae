"""The files in which Envoy finds its configuration: each written whole, or not at all, and watched by it."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson


class Files:
    """The configuration below one folder. Every write gets a new version, by which Envoy says what it has taken."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._written: dict[Path, list[Any]] = {}
        self._version = 0
        self._versions: dict[Path, str] = {}
        for left in (folder / "routes").glob("*.json"):
            left.unlink()
        (folder / "routes").mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)

    @property
    def bootstrap(self) -> Path:
        """What Envoy is started with."""
        return self._folder / "bootstrap.json"

    @property
    def clusters(self) -> Path:
        """All clusters."""
        return self._folder / "clusters.json"

    @property
    def listeners(self) -> Path:
        """All listeners."""
        return self._folder / "listeners.json"

    def routes(self, listener: str) -> Path:
        """The routes of a listener, whose name may be longer than that of a file."""
        return self._folder / "routes" / f"{sha256(listener.encode()).hexdigest()[:20]}.json"

    def write(self, path: Path, resources: list[Any], *, again: bool = False) -> str:
        """Write what belongs into a file, if it is not there already or `again`. Returns the version of the file."""
        if again or self._written.get(path) != resources:
            self._version += 1
            self._versions[path] = str(self._version)
            self._replace(path, {"version_info": self._versions[path], "resources": resources})
            self._written[path] = resources
        return self._versions[path]

    def write_bootstrap(self, content: Any) -> None:
        """Write what Envoy is started with."""
        self._replace(self.bootstrap, content)

    def keep_routes(self, listeners: set[str]) -> None:
        """Remove the routes of all other listeners."""
        kept = {self.routes(listener) for listener in listeners}
        for path in [path for path in self._written if path.parent.name == "routes" and path not in kept]:
            path.unlink(missing_ok=True)
            del self._written[path], self._versions[path]

    def _replace(self, path: Path, content: Any) -> None:
        temporary = path.with_suffix(".new")
        temporary.write_bytes(orjson.dumps(content))
        temporary.rename(path)
