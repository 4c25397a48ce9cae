"""The loopback addresses of a data plane: a /16 of 127.0.0.0/8 that no other one on this machine uses.

127.N.0.1 is the node, 127.N.1.x are gateways, 127.N.(2..255).x are pods. Every user of the machine can reach them.
"""

from __future__ import annotations

import errno
import socket
from hashlib import sha256
from pathlib import Path

#: N is one of these: away from 127.0.0.1, and from what resolvers (127.0.0.53) and distributions (127.0.1.1) use.
_FIRST, _LAST = 16, 239

#: The lease of a subnet is to listen on this port of its node address: the kernel gives it back however we end.
_PORT = 10250

_PODS = 254 * 254


class SubnetError(RuntimeError):
    """No part of the loopback network can be had."""


class Subnet:
    """The leased addresses 127.`number`.0.0/16."""

    def __init__(self, number: int, lease: socket.socket) -> None:
        self.number = number
        self._lease = lease
        self._pods: dict[str, int] = {}
        self._taken: set[int] = set()

    @classmethod
    def lease(cls, data: Path) -> Subnet:
        """The subnet of a data folder: the one it had before, or one by the hash of its path, or the next free one.

        Raises SubnetError where all are taken, or where the system has no loopback address but 127.0.0.1 (macOS).
        """
        remembered = data / "node" / "subnet"
        remembered.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        count = _LAST - _FIRST + 1
        first = _FIRST + int.from_bytes(sha256(str(data.resolve()).encode()).digest()[:4]) % count
        if remembered.exists() and (text := remembered.read_text().strip()).isdigit() and _FIRST <= int(text) <= _LAST:
            first = int(text)
        for step in range(count):
            number = _FIRST + (first - _FIRST + step) % count
            lease = _listen(f"127.{number}.0.1")
            if lease is not None:
                remembered.write_text(f"{number}\n")
                return cls(number, lease)
        raise SubnetError(
            f"port {_PORT} is taken on every address 127.{_FIRST}.0.1 to 127.{_LAST}.0.1:"
            " stop what listens there, perhaps on all addresses, like a kubelet"
        )

    @property
    def node(self) -> str:
        """The address of the node itself."""
        return f"127.{self.number}.0.1"

    def gateway(self, index: int) -> str:
        """The address of the gateway with this number, from 0 on."""
        if not 0 <= index < 254:
            raise SubnetError(f"there is no address for gateway {index}: one data plane has at most 254")
        return f"127.{self.number}.1.{index + 1}"

    def pod(self, uid: str) -> str:
        """The address of a pod, from its first use to `release`: as far as possible the same after a restart."""
        slot = self._pods.get(uid)
        if slot is None:
            if len(self._pods) == _PODS:
                raise SubnetError(f"all {_PODS} pod addresses of 127.{self.number}.0.0/16 are in use")
            slot = int.from_bytes(sha256(uid.encode()).digest()[:8]) % _PODS
            while slot in self._taken:
                slot = (slot + 1) % _PODS
            self._pods[uid] = slot
            self._taken.add(slot)
        return f"127.{self.number}.{2 + slot // 254}.{1 + slot % 254}"

    def release(self, uid: str) -> None:
        """The pod is gone."""
        slot = self._pods.pop(uid, None)
        if slot is not None:
            self._taken.discard(slot)

    def close(self) -> None:
        """Give the subnet back."""
        self._lease.close()


def _listen(address: str) -> socket.socket | None:
    """A socket that holds the address; None where another process holds it."""
    lease = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        lease.bind((address, _PORT))
        lease.listen(1)
    except OSError as error:
        lease.close()
        if error.errno == errno.EADDRINUSE:
            return None
        if error.errno == errno.EADDRNOTAVAIL:
            raise SubnetError(
                f"{address} is no address of this machine: pods need a loopback network of more than 127.0.0.1, which"
                " Linux has and macOS has not; run this in a Linux container or virtual machine, or use a cluster"
            ) from None
        raise
    return lease
