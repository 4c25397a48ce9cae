"""What decisions need of the world beside the clusters: commits, secrets, a warehouse, an object storage.

One object of this class lives as long as a run: what it has opened, it keeps for as long as the environment's spec says
the same.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from reconciler.cluster import ApiError, Reader
from reconciler.facts import NoCredentialError, credential_of
from reconciler.records import Build, Promotion
from reconciler.source import git
from reconciler.source.git import Branch, Unresolved
from renderers.manifest import ObjectId
from schemas.build import BuildSpecification
from schemas.environment import DataPlane, Environment

if TYPE_CHECKING:
    from reconciler.objects import Objects
    from reconciler.warehouse import Engine
    from runtime.records import BuildRecord


class OutsideError(Exception):
    """Something outside did not answer, or is not there. The sentence names it, and no secret."""


@dataclass(slots=True)
class Outside:
    """`home` is the folder of the embedded data plane, where files are kept between runs, too."""

    reader_of: Callable[[DataPlane], Reader]
    home: Path
    mirrors: Mapping[str, str]
    _engines: dict[str, tuple[Environment, Engine]] = field(default_factory=dict, init=False)
    _objects: dict[str, tuple[Environment, Objects]] = field(default_factory=dict, init=False)
    _lock: Lock = field(default_factory=Lock, init=False)

    def secrets(self, environment: Environment, name: str) -> Mapping[str, bytes]:
        """The content of a Secret of an environment. Raises OutsideError where there is none, and `ApiError`."""
        target = ObjectId("v1", "Secret", environment.namespace_name, name)
        found = self.reader_of(environment.data_plane).get(target)
        if found is None:
            raise OutsideError(f"{target}, which a spec names, does not exist")
        try:
            return {key: base64.b64decode(value, validate=True) for key, value in (found.get("data") or {}).items()}
        except (TypeError, binascii.Error):
            raise OutsideError(f"{target} has content that is no base64") from None

    def secret(self, environment: Environment, name: str, key: str) -> str:
        """One value of a Secret, as text. Raises OutsideError where there is none, and `ApiError`."""
        content = self.secrets(environment, name)
        if key not in content:
            raise OutsideError(f"the Secret {environment.namespace_name}/{name} has no key {key!r}")
        return content[key].decode(errors="replace")

    def engine(self, environment: Environment) -> Engine:
        """What answers SQL for an environment. Raises QueryError."""
        from reconciler.warehouse import QueryError  # noqa: PLC0415 - an SQL engine costs start-up time
        from reconciler.warehouse.opening import engine_for  # noqa: PLC0415

        def url(name: str) -> str:
            try:
                return self.secret(environment, name, "url")
            except (OutsideError, ApiError) as error:
                raise QueryError("Unavailable", str(error), retryable=True) from None

        with self._lock:
            known = self._engines.get(environment.name)
            if known is None or known[0] != environment:
                home = self.home.resolve()  # the engine runs in a folder of its own
                cache = home / "cache" / "analytics" / environment.name
                known = self._engines[environment.name] = environment, engine_for(environment, url, home, cache)
            return known[1]

    def record(self, environment: Environment, build: Build) -> BuildRecord | None:
        """What a build left of itself in the object storage; None where there is nothing. Raises OutsideError."""
        with self._objects_of(environment) as objects:
            return objects.record(build)

    def put_promotion(self, environment: Environment, promotion: Promotion) -> None:
        """Tells the analytics of a promotion that has ended. Raises OutsideError."""
        with self._objects_of(environment) as objects:
            objects.put_promotion(promotion)

    @contextmanager
    def _objects_of(self, environment: Environment) -> Iterator[Objects]:
        from reconciler.objects import ObjectsError, open_for  # noqa: PLC0415 - boto3 costs start-up time

        try:
            with self._lock:
                known = self._objects.get(environment.name)
                if known is None or known[0] != environment:
                    if known is not None:
                        known[1].close()
                    known = self._objects[environment.name] = environment, open_for(environment, self.home)
            yield known[1]
        except ObjectsError as error:
            raise OutsideError(str(error)) from None

    def commit(self, spec: BuildSpecification, branch: str, environment: Environment) -> str:
        """The newest commit of a branch. Raises OutsideError and `ApiError`."""
        wanted = Branch(spec.repository, branch, self._credential(spec, environment))
        answer = git.resolve([wanted], mirrors=self.mirrors, allow_file=self._allows_files(environment))[wanted]
        if not isinstance(answer, str):
            raise OutsideError(answer.reason)
        return answer

    def changed(
        self, spec: BuildSpecification, old: str, new: str, paths: tuple[str, ...], environment: Environment
    ) -> bool:
        """Whether one of these paths differs between two commits. Raises OutsideError and `ApiError`."""
        answer = git.changed(
            spec.repository,
            old,
            new,
            paths,
            credential=self._credential(spec, environment),
            mirrors=self.mirrors,
            allow_file=self._allows_files(environment),
        )
        if isinstance(answer, Unresolved):
            raise OutsideError(answer.reason)
        return answer

    def _credential(self, spec: BuildSpecification, environment: Environment) -> git.Credential | None:
        try:
            return credential_of(spec, environment, self.reader_of)
        except NoCredentialError as error:
            raise OutsideError(str(error)) from None

    def _allows_files(self, environment: Environment) -> bool:
        """Only what is on this machine may come from a file: builds of the embedded data plane, and named mirrors."""
        is_mirrored = any(target.startswith("file:") for target in self.mirrors.values())
        return is_mirrored or environment.data_plane.type == "embedded"
