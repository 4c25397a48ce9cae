"""What is made of the objects: controllers write Pods, the node runs them, the gateway sends them requests."""

from __future__ import annotations

from pathlib import Path

from embedded.gateway import Gateway
from embedded.loop import Cluster, Controller, Loop
from embedded.monitoring import PodMonitors
from embedded.node.addresses import Subnet
from embedded.node.node import Node
from embedded.server import ApiServer
from embedded.workloads import controllers


class DataPlane:
    """The part of a data plane behind its API. `data` is its folder, which one of them uses at a time.

    With `node` False nothing runs: Pods and EndpointSlices are written, and somebody else plays the kubelet.
    Raises `SubnetError` where the machine has no loopback addresses to give.
    """

    def __init__(self, api: ApiServer, data: Path, *, node: bool = True) -> None:
        def cluster(manager: str) -> Cluster:
            return Cluster(api.objects, api.controllers, manager)

        self._node: Node | None = None
        self._gateway: Gateway | None = None
        made: list[Controller] = controllers(cluster)
        if node:
            subnet = Subnet.lease(data)
            self._subnet = subnet
            self._node = Node(cluster("kubelet"), data, subnet, _environment(data))
            self._gateway = Gateway(cluster("trueup-gateway"), data, subnet)
            api.pod_logs = self._node.pod_logs
            made += [self._node, self._gateway, PodMonitors(data)]
        self._loop = Loop(api.objects, made)

    async def start(self) -> None:
        """What an earlier one has left running is ended; then everything there is becomes what it should be."""
        if self._node is not None and self._gateway is not None:
            self._node.start(self._loop.enqueue)
            await self._gateway.start()
        self._loop.start()

    async def stop(self) -> None:
        """Pods end in their grace period, or within seconds. The objects stay as they are."""
        if self._node is not None and self._gateway is not None:
            await self._gateway.stop()  # first: the node ends everything that is still there
            await self._node.stop()
            self._subnet.close()
        self._loop.stop()


def _environment(data: Path) -> dict[str, str]:
    """What every container gets, unless its manifest says otherwise: where a cluster has buckets, this has folders."""
    objects = data / "objects"
    objects.mkdir(mode=0o700, exist_ok=True)
    return {
        "TRUEUP_ARTIFACT_STORAGE": objects.resolve().as_uri(),
        "TRUEUP_OBJECT_STORAGE": objects.resolve().as_uri(),
        "TRUEUP_CACHE_DIR": str((data / "cache").resolve()),
        "TRUEUP_GIT_MIRRORS_FILE": str((data / "git-mirrors").resolve()),
    }
