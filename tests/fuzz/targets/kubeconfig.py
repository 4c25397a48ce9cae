"""A kubeconfig that is data, as it comes out of a Secret: used or refused, and nothing else ever happens (T62)."""

# ruff: noqa: PT017 - what a fuzzer tries is told apart without pytest

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from kubernetes.config import kube_config

from reconciler.cluster import KubeconfigError, connect
from tests.fuzz.targets.target import Target

SECRET = "planted-token-0815"
_FOLDER = Path(tempfile.mkdtemp(prefix="trueup-fuzz-"))
_PATH = _FOLDER / "kubeconfig"
tempfile.tempdir = str(_FOLDER)  # where the official client puts certificates
logging.disable(logging.CRITICAL)  # it logs what it cannot do

#: What Python does that somebody else could see, while a kubeconfig is being judged.
_WATCHED = frozenset(
    {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect", "socket.getaddrinfo"}
)
_seen: list[str] | None = None


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _seen is None:
        return
    if event in _WATCHED:
        _seen.append(f"{event} {arguments!r}")
    elif event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
        path = os.fsdecode(arguments[0])
        if not path.startswith(str(_FOLDER)) and not path.endswith((".py", ".pyc", ".so", ".pem")):
            _seen.append(f"open {path!r}")


sys.addaudithook(_watch)


def check(data: bytes) -> None:
    global _seen  # noqa: PLW0603 - an audit hook cannot be taken away again, nor told whose it is
    _PATH.write_bytes(data)
    _seen = []
    try:
        connection = connect(str(_PATH), trusted=False)
        assert connection.host.startswith("https://")
        connection.close()
    except KubeconfigError as error:
        assert SECRET not in str(error), error
        assert str(error).isprintable(), error
        assert len(str(error)) < 2000
    finally:
        seen, _seen = _seen, None
        kube_config._cleanup_temp_files()  # or each certificate stays until the process ends
    assert seen == []


def _kubeconfig(user: dict[str, Any], **cluster: Any) -> bytes:
    content = {
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1", **cluster}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    return json.dumps(content).encode()


_USERS: tuple[dict[str, Any], ...] = (
    {"token": SECRET},
    {"username": "u", "password": SECRET},
    {"client-certificate-data": "YQ==", "client-key-data": "YQ=="},
    {"client-certificate": "/etc/passwd", "client-key": "/etc/passwd"},
    {"tokenFile": "/etc/passwd"},
    {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "id", "args": ["a"]}},
    {"auth-provider": {"name": "gcp", "config": {"cmd-path": "id", "expiry": "2020-01-01T00:00:00Z"}}},
    {"auth-provider": {"name": "oidc", "config": {"id-token": "a.b.c", "idp-issuer-url": "https://127.0.0.1:1"}}},
    {"as": "", "as-groups": [], "token": SECRET},
)
_CLUSTERS: tuple[dict[str, Any], ...] = (
    {"certificate-authority-data": "YQ=="},
    {"certificate-authority": "/etc/passwd"},
    {"insecure-skip-tls-verify": True},
    {"server": "http://127.0.0.1:1"},
    {"server": f"https://u:{SECRET}@127.0.0.1:1"},
    {"proxy-url": "http://127.0.0.1:1", "tls-server-name": "x"},
)
_KEYS = sorted({key for part in (*_USERS, *_CLUSTERS) for key in part})

with contextlib.suppress(AssertionError):
    check(_kubeconfig(_USERS[0]))  # whatever is imported late is imported now, and not watched

TARGET = Target(
    check,
    words=[
        *(f'"{key}": ' for key in _KEYS),
        *(
            "clusters: ",
            "users: ",
            "contexts: ",
            "current-context: ",
            "- name: ",
            "user: ",
            "cluster: ",
            "\n  ",
            "\n- ",
        ),
        *(
            "null",
            "true",
            "{}",
            "[]",
            "&a ",
            "*a",
            "<<: ",
            "!!python/object/apply:os.system ",
            "!!binary ",
            "0x1",
            "1.5",
        ),
        *(
            '"https://127.0.0.1:1"',
            "///",
            "https://[",
            "https://@",
            "%00",
            "\\u0000",
            "#",
            "?",
            "2020-01-01",
            "{name: ",
        ),
    ],
    seeds=[
        *(_kubeconfig(user) for user in _USERS),
        *(_kubeconfig({"token": SECRET}, **cluster) for cluster in _CLUSTERS),
        b"&a [*a, *a]",
    ],
)
