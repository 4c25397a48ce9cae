"""`python -m embedded --data DIR`: serve the Kubernetes API from a directory, in the foreground."""

from __future__ import annotations

import argparse
import asyncio
import errno
import ipaddress
import logging
import signal
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import uvloop

from embedded.node.addresses import SubnetError
from embedded.node.leftovers import end_leftovers
from embedded.node.processes import allow_files
from embedded.protocol import Connection
from embedded.security import Credentials, credentials
from embedded.server import ApiServer, too_large
from embedded.store import HISTORY, Store, StoreLockedError


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit code: 0 after a clean stop, 3 where it could not start."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    allow_files()  # each container needs three
    try:
        store = Store(options.data, history=options.history)
    except StoreLockedError as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    if options.end_leftovers:  # nobody else can start anything now: the store is ours
        with closing(store):
            print(f"ended {end_leftovers(options.data)} processes")
        return 0
    try:
        access = credentials(options.data, options.host, _now())
        uvloop.run(_serve(store, access, options))
    except OSError as error:
        taken = error.errno in (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES)
        what = f"listen on {options.host}:{options.port}" if taken else f"serve {options.data}"
        print(f"error: cannot {what}: {error}", file=sys.stderr)
        return 3
    except SubnetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    finally:
        store.close()
    return 0


async def _serve(store: Store, access: Credentials, options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    api = ApiServer(store, access, _now)
    connections: set[Connection] = set()
    oversized = too_large()
    server = await loop.create_server(
        lambda: Connection(api.handle, connections, oversized),
        options.host,
        options.port,
        ssl=access.server_context(),
        backlog=256,
    )
    host, port = server.sockets[0].getsockname()[:2]
    api.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    url = f"https://{api.address}"
    plane = None
    if not options.only_api:
        from embedded.plane import DataPlane  # noqa: PLC0415 - the API alone needs none of it

        plane = DataPlane(api, options.data, node=not options.no_node)
        await plane.start()
    access.write_kubeconfig(options.kubeconfig or options.data / "kubeconfig", url)
    print(f"ready {url}", flush=True)
    await stop.wait()
    if plane is not None:
        await plane.stop()
    server.close()
    for connection in list(connections):
        connection.shut_down()
    await server.wait_closed()


def _now() -> datetime:
    return datetime.now(UTC)  # noqa: TID251  # the edge: from here on the moment is an argument


def _loopback(text: str) -> str:
    """The token is all that protects this server, and it runs what it is told: it is for this machine alone."""
    address = ipaddress.ip_address(text)
    if not address.is_loopback:
        raise argparse.ArgumentTypeError(
            f"{text} is no loopback address: this server is for one machine, use 127.0.0.1"
        )
    return str(address)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m embedded", description=__doc__)
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="where objects and credentials are kept"
    )
    parser.add_argument("--host", type=_loopback, default="127.0.0.1", help="a loopback address (default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one (default: %(default)s)")
    parser.add_argument("--kubeconfig", type=Path, metavar="PATH", help="where to write it (default: DIR/kubeconfig)")
    parser.add_argument(
        "--only-api", action="store_true", help="keep objects, and run nothing: no controllers, no pods, no gateway"
    )
    parser.add_argument(
        "--no-node", action="store_true", help="run controllers, but no pods and no gateway: somebody else does"
    )
    parser.add_argument(
        "--end-leftovers", action="store_true", help="end what a killed server left running in DIR, and do nothing else"
    )
    parser.add_argument(
        "--history",
        type=int,
        default=HISTORY,
        metavar="N",
        help="revisions that a watch can go back (default: %(default)s)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
