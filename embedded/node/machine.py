"""What this machine has, as a Node object says it."""

from __future__ import annotations

import os
import platform
from datetime import datetime
from pathlib import Path
from typing import Any

from embedded.deletion import timestamp
from embedded.discovery import VERSION

Object = dict[str, Any]

#: The name of the only node.
NODE = "embedded"

_MOST_PODS = 500


def capacity(data: Path) -> dict[str, str]:
    """Cores that we may use, memory, the disk of the data folder, and pods."""
    disk = os.statvfs(data)
    return {
        "cpu": str(len(os.sched_getaffinity(0))),
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') // 1024}Ki",
        "ephemeral-storage": f"{disk.f_blocks * disk.f_frsize // 1024}Ki",
        "pods": str(_MOST_PODS),
    }


def labels() -> dict[str, str]:
    """Of the Node."""
    found = {"arch": _architecture(), "os": "linux", "hostname": NODE}
    return {f"kubernetes.io/{name}": value for name, value in found.items()}


def node_status(resources: Object, address: str, now: datetime) -> Object:
    """The status of the Node. It is written when we start, and then stays as it is: nobody decides by its age."""
    release = platform.freedesktop_os_release() if Path("/etc/os-release").exists() else {}
    return {
        "capacity": resources,
        "allocatable": resources,
        "addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": NODE}],
        "conditions": [
            _condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "memory is not watched", now),
            _condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "disks are not watched", now),
            _condition("PIDPressure", "False", "KubeletHasSufficientPID", "processes are not counted", now),
            _condition(
                "Ready",
                "True",
                "KubeletReady",
                "containers run as processes of this machine: images are not pulled, and nothing is isolated",
                now,
            ),
        ],
        "nodeInfo": {
            "architecture": _architecture(),
            "bootID": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            "containerRuntimeVersion": f"process://python-{platform.python_version()}",
            "kernelVersion": platform.release(),
            "kubeProxyVersion": "",
            "kubeletVersion": VERSION["gitVersion"],
            "machineID": "",
            "operatingSystem": "linux",
            "osImage": release.get("PRETTY_NAME", "Linux"),
            "systemUUID": "",
        },
    }


def _condition(name: str, status: str, reason: str, message: str, now: datetime) -> Object:
    moment = timestamp(now)
    return {
        "type": name,
        "status": status,
        "reason": reason,
        "message": message,
        "lastHeartbeatTime": moment,
        "lastTransitionTime": moment,
    }


def _architecture() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
