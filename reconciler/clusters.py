"""Which cluster an environment is in, and the connection to it."""

from __future__ import annotations

import base64
import binascii
import os
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from reconciler import inventory
from reconciler.cluster import KubeconfigError, Writer, connect
from renderers.manifest import ObjectId
from schemas.environment import DataPlane

#: Requests in flight to one cluster. More threads than this do not make a 2-core reconciler faster.
CONNECTIONS = 8


@dataclass(slots=True)
class Clusters:
    """Connections, made when they are first asked for and shared by the environments of one cluster.

    `kubeconfig` and `context`, where given, stand for every environment's cluster: a person said so on the command
    line. `home` is the folder of the embedded data plane.
    """

    home: Path
    kubeconfig: str | None = None
    context: str | None = None
    _open: dict[DataPlane, Writer] = field(default_factory=dict, init=False)
    _closing: ExitStack = field(default_factory=ExitStack, init=False)

    def of(self, plane: DataPlane) -> Writer:
        """The cluster of a data plane. Raises `ApiError` where there is no way to it."""
        if self.kubeconfig is not None:
            plane = DataPlane(type="kubernetes", context=self.context)
        if plane not in self._open:
            self._open[plane] = self._connected(plane)
        return self._open[plane]

    def close(self) -> None:
        """Closes every connection."""
        self._closing.close()

    def _connected(self, plane: DataPlane) -> Writer:
        if plane.type == "embedded":
            return self._embedded()
        if plane.kubeconfig_secret is not None:
            return self._of_secret(plane.kubeconfig_secret, plane.context)
        return self._writer(self.kubeconfig, plane.context, trusted=True)

    def _writer(self, kubeconfig: str | None, context: str | None, *, trusted: bool) -> Writer:
        connection = connect(kubeconfig, context, trusted=trusted, connections=CONNECTIONS)
        self._closing.callback(connection.close)
        return Writer(connection)

    def _embedded(self) -> Writer:
        kubeconfig = self.home / "kubeconfig"
        if not kubeconfig.exists():
            message = f"no embedded data plane runs in {self.home}: start it with `reconcile up`"
            raise KubeconfigError(message)
        return self._writer(str(kubeconfig), None, trusted=True)

    def _of_secret(self, name: str, context: str | None) -> Writer:
        """A cluster whose kubeconfig is in a Secret of the cluster that the reconciler itself uses.

        Such a kubeconfig is data that somebody put there: it runs no program and reads no file (`trusted=False`).
        """
        target = ObjectId("v1", "Secret", inventory.NAMESPACE, name)
        home = self.of(DataPlane(type="kubernetes"))
        secret = home.get(target)
        try:
            content = base64.b64decode((secret or {})["data"]["kubeconfig"], validate=True)
        except (KeyError, TypeError, binascii.Error):
            message = f"the Secret {inventory.NAMESPACE}/{name} has no key `kubeconfig` that holds one"
            raise KubeconfigError(message) from None
        # The official loader reads files only, and reads them again when credentials are renewed. Mode 0600, for as
        # long as the connection is open.
        folder = self._closing.enter_context(tempfile.TemporaryDirectory(prefix="trueup-"))
        path = Path(folder) / "kubeconfig"
        path.touch(mode=0o600)
        path.write_bytes(content)
        return self._writer(str(path), context, trusted=False)


def default_home() -> Path:
    """The folder of the embedded data plane: $TRUEUP_HOME, or `.trueup` in the current folder."""
    return Path(os.environ.get("TRUEUP_HOME") or ".trueup")
