"""Which cluster an environment is in, and the connection to it."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from reconciler import inventory
from reconciler.cluster import Connection, KubeconfigError, Reader, Retry, Timeouts, Writer, connect
from renderers.manifest import ObjectId
from schemas.environment import DataPlane

#: Requests in flight to one cluster, at most; how many there are, its answers decide.
CONNECTIONS = 32


@dataclass(slots=True)
class Clusters:
    """Connections, made when they are first asked for and shared by the environments of one cluster.

    `kubeconfig` and `context`, where given, stand for every environment's cluster: a person said so on the command
    line. `home` is the folder of the embedded data plane.
    """

    home: Path
    kubeconfig: str | None = None
    context: str | None = None
    _readers: dict[DataPlane, Reader] = field(default_factory=dict, init=False)
    _writers: dict[DataPlane, Writer] = field(default_factory=dict, init=False)
    _connections: dict[DataPlane, Connection] = field(default_factory=dict, init=False)
    #: By cluster: what ends with its connection, and the hash of the kubeconfig that a Secret held.
    _kept: dict[DataPlane, ExitStack] = field(default_factory=dict, init=False)
    _secrets: dict[DataPlane, bytes | None] = field(default_factory=dict, init=False)

    def reader(self, plane: DataPlane) -> Reader:
        """The cluster of a data plane, to be looked at. Raises `ApiError` where there is no way to it."""
        plane = self._meant(plane)
        if plane not in self._readers:
            self._readers[plane] = Reader(self._connection(plane))
        return self._readers[plane]

    def writer(self, plane: DataPlane) -> Writer:
        """The cluster of a data plane, to be changed. Raises `ApiError` where there is no way to it."""
        plane = self._meant(plane)
        if plane not in self._writers:
            self._writers[plane] = Writer(self._connection(plane))
        return self._writers[plane]

    def meant(self, plane: DataPlane) -> DataPlane:
        """The data plane that is used for one that a spec names: a person may have said another one."""
        return self._meant(plane)

    def connection(self, plane: DataPlane) -> Connection:
        """The connection to the cluster of a data plane. Raises `ApiError` where there is no way to it."""
        return self._connection(self._meant(plane))

    def connection_apart(self, plane: DataPlane, connections: int, timeouts: Timeouts, retry: Retry) -> Connection:
        """Another connection to the same cluster, which shares nothing with the first. Whoever asks closes it.

        Of a plane whose kubeconfig is no Secret. Raises `ApiError`.
        """
        plane = self._meant(plane)
        path = str(self._embedded_kubeconfig()) if plane.type == "embedded" else self.kubeconfig
        return connect(path, plane.context, trusted=True, connections=connections, timeouts=timeouts, retry=retry)

    def home_plane(self, planes: Iterable[DataPlane]) -> DataPlane:
        """Where the records are: the cluster that the reconciler itself uses. `planes`: those of the environments.

        It is the embedded data plane where there is nothing else.
        """
        is_embedded = all(plane.type == "embedded" for plane in planes)
        return DataPlane(type="embedded" if is_embedded else "kubernetes")

    def warnings(self) -> list[str]:
        """What the servers warned of, such as a version of an API that is going away; each once."""
        told = [warning for connection in self._connections.values() for warning in connection.take_warnings()]
        return [f"{target}: {text}" if target else text for target, text in told]

    def is_replaced(self, plane: DataPlane) -> bool:
        """Whether the Secret with the kubeconfig of a cluster holds something else than when it was connected to.

        One that is gone does: whoever takes it away wants us to stop. Raises `ApiError` where nobody can say.
        """
        plane = self._meant(plane)
        if plane.kubeconfig_secret is None or plane not in self._secrets:
            return False
        return _hash(self._kubeconfig_in(plane.kubeconfig_secret)) != self._secrets[plane]

    def forget(self, plane: DataPlane) -> None:
        """Closes the connection to a cluster. Whoever asks for it next gets another one, by what is said of it then."""
        plane = self._meant(plane)
        for known in (self._readers, self._writers, self._connections, self._secrets):
            known.pop(plane, None)
        if plane in self._kept:
            self._kept.pop(plane).close()

    def close(self) -> None:
        """Closes every connection."""
        for plane in list(self._kept):
            self.forget(plane)

    def _meant(self, plane: DataPlane) -> DataPlane:
        return plane if self.kubeconfig is None else DataPlane(type="kubernetes", context=self.context)

    def _connection(self, plane: DataPlane) -> Connection:
        if plane not in self._connections:
            with ExitStack() as kept:
                connection = self._connected(plane, kept)
                kept.callback(connection.close)
                self._kept[plane] = kept.pop_all()
            self._connections[plane] = connection
        return self._connections[plane]

    def _connected(self, plane: DataPlane, kept: ExitStack) -> Connection:
        if plane.type == "embedded":
            return self._embedded()
        if plane.kubeconfig_secret is not None:
            return self._of_secret(plane, plane.kubeconfig_secret, kept)
        return connect(self.kubeconfig, plane.context, trusted=True, connections=CONNECTIONS)

    def _embedded(self) -> Connection:
        return connect(str(self._embedded_kubeconfig()), trusted=True, connections=CONNECTIONS)

    def _embedded_kubeconfig(self) -> Path:
        kubeconfig = self.home / "kubeconfig"
        if not kubeconfig.exists():
            message = f"no embedded data plane runs in {self.home}: start it with `reconcile up`"
            raise KubeconfigError(message)
        return kubeconfig

    def _of_secret(self, plane: DataPlane, name: str, kept: ExitStack) -> Connection:
        """A cluster whose kubeconfig is in a Secret of the cluster that the reconciler itself uses.

        Such a kubeconfig is data that somebody put there: it runs no program and reads no file (`trusted=False`).
        """
        content = self._kubeconfig_in(name)
        if content is None:
            message = f"the Secret {inventory.NAMESPACE}/{name} has no key `kubeconfig` that holds one"
            raise KubeconfigError(message)
        # The official loader reads files only, and reads them again when credentials are renewed. Mode 0600, for as
        # long as the connection is open.
        folder = kept.enter_context(tempfile.TemporaryDirectory(prefix="trueup-"))
        path = Path(folder) / "kubeconfig"
        path.touch(mode=0o600)
        path.write_bytes(content)
        connection = connect(str(path), plane.context, trusted=False, connections=CONNECTIONS)
        self._secrets[plane] = _hash(content)
        return connection

    def _kubeconfig_in(self, name: str) -> bytes | None:
        """What a Secret holds; None where there is no such Secret, or nothing in it that could be one."""
        secret = self.reader(DataPlane(type="kubernetes")).get(ObjectId("v1", "Secret", inventory.NAMESPACE, name))
        try:
            return base64.b64decode((secret or {})["data"]["kubeconfig"], validate=True)
        except (KeyError, TypeError, binascii.Error):
            return None


def _hash(content: bytes | None) -> bytes | None:
    return None if content is None else hashlib.sha256(content).digest()


def default_home() -> Path:
    """The folder of the embedded data plane: $TRUEUP_HOME, or `.trueup` in the current folder."""
    return Path(os.environ.get("TRUEUP_HOME") or ".trueup")
