"""An API server with the process runner alone: `python -m tests.contract.node_server --data DIR`.

The tests of the runner make their Pods themselves, so that nothing of Deployments and Jobs is between them.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from datetime import UTC, datetime
from pathlib import Path

import uvloop

from embedded.loop import Cluster, Loop
from embedded.node.addresses import Subnet
from embedded.node.node import Node
from embedded.protocol import Connection
from embedded.security import credentials
from embedded.server import ApiServer, too_large
from embedded.store import Store


def now() -> datetime:
    return datetime.now(UTC)  # noqa: TID251  # the edge


async def serve(data: Path) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    store = Store(data)
    access = credentials(data, "127.0.0.1", now())
    api = ApiServer(store, access, now)
    subnet = Subnet.lease(data)
    cluster = Cluster(api.objects, api.controllers, "kubelet")
    node = Node(cluster, data, subnet, {"TRUEUP_CACHE_DIR": str(data / "cache")})
    controllers = Loop(api.objects, [node])
    api.pod_logs = node.pod_logs
    connections: set[Connection] = set()
    server = await loop.create_server(
        lambda: Connection(api.handle, connections, too_large()), "127.0.0.1", 0, ssl=access.server_context()
    )
    node.start(controllers.enqueue)
    controllers.start()
    port = server.sockets[0].getsockname()[1]
    access.write_kubeconfig(data / "kubeconfig", f"https://127.0.0.1:{port}")
    print(f"ready {subnet.number}", flush=True)
    await stop.wait()
    await node.stop()
    controllers.stop()
    server.close()
    for connection in list(connections):
        connection.shut_down()
    subnet.close()
    store.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    uvloop.run(serve(parser.parse_args().data))
