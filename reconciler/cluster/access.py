"""How a cluster is reached: kubeconfig, exec plugins and service accounts, by the official client.

The official client is imported when a connection is made: it costs a third of a second, which commands
without a cluster do not pay.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from importlib import import_module
from ipaddress import ip_address
from math import inf
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from yaml import YAMLError
from yaml.cyaml import CBaseLoader
from yaml.events import AliasEvent, StreamEndEvent

from reconciler.cluster.errors import KubeconfigError
from reconciler.cluster.transport import Access, Connection, Retry, Timeouts

_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")  # where Kubernetes mounts it
_TOKEN_SECONDS = 1.0  # for which a token is used again without asking; who says when it expires is minutes early
_KUBECONFIG_BYTES = 1 << 20
_KUBECONFIG_EVENTS = 20_000  # of a parser: a key and a value are two. Hundreds of clusters


def connect(
    kubeconfig: str | None = None,
    context: str | None = None,
    *,
    trusted: bool = False,
    service_account: Path = _SERVICE_ACCOUNT,
    connections: int = 32,
    timeouts: Timeouts | None = None,
    retry: Retry | None = None,
) -> Connection:
    """The connection that a kubeconfig describes, or that this pod's service account has.

    With neither `kubeconfig` nor `context`, and no KUBECONFIG in the environment, the service account is
    taken where one is mounted. Otherwise the kubeconfig defaults to KUBECONFIG (several paths, as kubectl
    reads it) and then to `~/.kube/config`, and `context` to its current context.

    `trusted` says that the kubeconfig is that of the person who started this process. Any other one (that
    of an environment's cluster) is data: it may name a server, inline certificates and inline credentials,
    and no program to run, no file to send, no way around TLS.

    `connections` is the number of requests in flight that is never exceeded; how many there are within it is found
    out from the server's answers. No request is sent yet. Raises `KubeconfigError`.
    """
    files = kubeconfig or os.environ.get("KUBECONFIG")

    def load() -> Access:
        if not files and not context and (service_account / "token").is_file():
            origin, configuration = str(service_account), _of_service_account(service_account)
        else:
            origin = files or "~/.kube/config"
            configuration = _of_kubeconfig(origin, context, trusted=trusted)
        try:
            return _access(configuration, origin, timeouts or Timeouts())
        except ValueError:  # urllib3 takes fewer addresses than look like one
            raise KubeconfigError(f"{origin}: the address of the server, or of its proxy, is none") from None

    return Connection(load, retry or Retry(), connections)


def _official(module: str) -> Any:
    """A module of the official client, imported when it is needed."""
    return import_module(f"kubernetes.{module}")


def _of_service_account(mounted: Path) -> Any:
    configuration = _official("client").Configuration()
    incluster = _official("config.incluster_config")
    try:
        incluster.InClusterConfigLoader(
            token_filename=str(mounted / "token"), cert_filename=str(mounted / "ca.crt")
        ).load_and_set(configuration)
    except (incluster.ConfigException, OSError) as error:
        raise KubeconfigError(f"{mounted}: {_quotable(error)}") from None
    return configuration


def _of_kubeconfig(files: str, context: str | None, *, trusted: bool) -> Any:
    _check_files(files, trusted=trusted)
    configuration = _official("client").Configuration()
    kube_config = _official("config.kube_config")
    try:
        # The content is read once, judged, and only then acted upon.
        merger = kube_config.KubeConfigMerger(files)
        loader = kube_config.KubeConfigLoader(
            merger.config,
            active_context=context,
            config_base_path=None,
            config_persister=merger.save_changes if trusted else None,
        )
        selected = loader.current_context["context"]
        user = _entry(merger.config.value["users"], selected.get("user"), "user")
        cluster = _entry(merger.config.value["clusters"], selected.get("cluster"), "cluster")
        _refuse(files, user, cluster, trusted=trusted)
        loader.load_and_set(configuration)
    except (kube_config.ConfigException, YAMLError, OSError) as error:
        raise KubeconfigError(f"{files}: {_quotable(error)}") from None
    except (TypeError, AttributeError, KeyError, ValueError, RecursionError):
        # The official client takes the shape of the file for granted.
        raise KubeconfigError(f"{files}: this is not a kubeconfig") from None
    # The official client logs the failure of a plugin and goes on as nobody.
    if isinstance(user.get("exec"), dict) and not configuration.api_key and not configuration.cert_file:
        command = user["exec"].get("command")
        raise KubeconfigError(f"{files}: the exec plugin {command!r} gave no credentials. Run it to see why")
    return configuration


def _check_files(files: str, *, trusted: bool) -> None:
    found = [path for path in map(Path.expanduser, map(Path, files.split(os.pathsep))) if path.is_file()]
    if not found:
        raise KubeconfigError(f"{files}: no such kubeconfig. Name one with --kubeconfig or KUBECONFIG")
    if any(path.stat().st_size > _KUBECONFIG_BYTES for path in found):
        raise KubeconfigError(f"{files}: larger than 1 MiB; this is not a kubeconfig")
    if not trusted:
        for path in found:
            _check_events(files, path.read_bytes())


def _check_events(files: str, content: bytes) -> None:
    """Refuses what the loader of the official client would take gigabytes for: it expands aliases and merge keys, so
    that thirty lines are enough. A kubeconfig has no use for them, nor for thousands of keys.
    """
    try:
        next_event = CBaseLoader(content).get_event
        for _ in range(_KUBECONFIG_EVENTS):
            event = next_event()
            if event.__class__ is StreamEndEvent:
                return
            if event.__class__ is AliasEvent:
                raise KubeconfigError(f"{files}: refused, because it uses an alias (*name); write the value out")
    except (YAMLError, ValueError) as error:
        raise KubeconfigError(f"{files}: {_quotable(error)}") from None
    raise KubeconfigError(f"{files}: more than {_KUBECONFIG_EVENTS:,} keys and values; this is not a kubeconfig")


def _entry(nodes: list[Any], name: str | None, key: str) -> dict[str, Any]:
    return next((node.value.get(key) or {} for node in nodes if node.value.get("name") == name), {})


#: In a kubeconfig that is data: key -> what is wrong with it. Files could be this process's own token.
_REFUSED_OF_USER = {
    "exec": "runs a program (`exec`)",
    "auth-provider": "runs an `auth-provider`",
    "tokenFile": "sends a file (`tokenFile`); write `token`",
    "client-certificate": "reads a file (`client-certificate`); write `client-certificate-data`",
    "client-key": "reads a file (`client-key`); write `client-key-data`",
}
_REFUSED_OF_CLUSTER = {
    "insecure-skip-tls-verify": "asks to trust any server (`insecure-skip-tls-verify`)",
    "certificate-authority": "reads a file (`certificate-authority`); write `certificate-authority-data`",
}


def _refuse(files: str, user: dict[str, Any], cluster: dict[str, Any], *, trusted: bool) -> None:
    # The official client ignores `as`: requests would be made with more rights than asked for.
    problems = [f"asks for impersonation (`{key}`)" for key in user if key == "as" or key.startswith("as-")]
    server: Any = cluster.get("server")
    if not _is_address(server):
        problems.append("names no `server`")
    elif "@" in urlsplit(server).netloc:
        problems.append("has credentials in the address of the server")
    # Else the first request would stumble over them.
    texts = ("tls-server-name", "proxy-url")
    problems += [f"has no text as its `{key}`" for key in texts if not isinstance(cluster.get(key) or "", str)]
    if not trusted:
        problems += [text for key, text in _REFUSED_OF_USER.items() if user.get(key) not in (None, False)]
        problems += [text for key, text in _REFUSED_OF_CLUSTER.items() if cluster.get(key) not in (None, False)]
        if isinstance(server, str) and not server.startswith("https://"):
            problems.append("sends credentials without TLS (`server` is not https)")
    if problems:
        raise KubeconfigError(f"{files}: refused, because it {', and '.join(problems)}")


def _is_address(text: object) -> bool:
    try:
        return isinstance(text, str) and bool(urlsplit(text).hostname) and urlsplit(text).port != 0
    except ValueError:  # a port that is no number, a bracket that is not closed
        return False


def _quotable(error: Exception) -> str:
    """The text of an error about a kubeconfig, without the content that it may quote."""
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        return f"not valid YAML at line {mark.line + 1}"
    if isinstance(error, YAMLError | UnicodeError):
        return "this is not a kubeconfig"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(error).partition("{")[0].splitlines()[0]


def _access(configuration: Any, origin: str, timeouts: Timeouts) -> Access:
    url = urlsplit(configuration.host)
    # Settled here, or the environment is searched for a proxy at each request. No proxy for this machine: kubectl
    # does the same, and the embedded data plane lives here.
    configuration.proxy = None if _is_loopback(url.hostname) else configuration.proxy
    manager = _official("client.rest").RESTClientObject(configuration).pool_manager
    import_module("reconciler.cluster.wire").use(manager)  # it imports urllib3
    timeout = import_module("urllib3").Timeout
    if url.scheme == "http" and manager.proxy is not None:
        raise KubeconfigError(f"{origin}: {configuration.host} is plain http behind a proxy; set NO_PROXY")
    host = f"{url.scheme}://{url.netloc}"
    return Access(
        host=host,
        prefix=url.path.rstrip("/"),
        authorization=_authorization(configuration, origin),
        pool=manager.connection_from_url(
            host,
            {
                "timeout": timeout(connect=timeouts.connect),
                "socket_options": _keepalive(timeouts.vanished),
            },
        ),
        watch_pool=manager.connection_from_url(
            host,
            {
                "timeout": timeout(connect=timeouts.connect, read=timeouts.silence),
                "socket_options": _keepalive(timeouts.vanished),
            },
        ),
        timeouts=timeouts,
    )


def _keepalive(seconds: int) -> list[tuple[int, int, int]]:
    """A peer that vanishes is noticed in so many seconds although nothing is being sent: a watch is mostly silent.

    The kernel asks after two fifths of the time, and three times in the rest: an empty packet in ten seconds, of which
    no program hears anything. With Go's defaults, which the official client has, it would take almost three minutes.
    """
    options = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    pauses = {"TCP_KEEPIDLE": seconds * 2 // 5, "TCP_KEEPALIVE": seconds * 2 // 5}  # as Linux and macOS call it
    pauses |= {"TCP_KEEPINTVL": max(1, seconds // 5), "TCP_KEEPCNT": 3}
    known = {name: getattr(socket, name) for name in pauses if hasattr(socket, name)}
    return options + [(socket.IPPROTO_TCP, option, max(1, pauses[name])) for name, option in known.items()]


def _is_loopback(host: str | None) -> bool:
    try:
        return ip_address(host or "").is_loopback
    except ValueError:
        return host == "localhost"


def _authorization(configuration: Any, origin: str) -> Callable[[], str | None]:
    refused = _official("config").ConfigException
    lock = threading.Lock()
    known: tuple[float, str | None] = -inf, None

    def authorization() -> str | None:
        nonlocal known
        asked_at, value = known
        now = time.monotonic()
        if now - asked_at >= _TOKEN_SECONDS:
            value = ask()
            known = now, value
        return value

    def ask() -> str | None:
        with lock:  # below it a plugin runs, or a file is read, when the token is about to expire
            try:
                token = configuration.get_api_key_with_prefix("BearerToken")
            except (refused, OSError) as error:
                raise KubeconfigError(f"{origin}: {_quotable(error)}") from None
        if token is None:
            return None
        value = str(token).strip()
        # http.client would quote the token in its complaint.
        if not (value.isascii() and value.isprintable()):
            raise KubeconfigError(f"{origin}: the token has characters that no HTTP header can carry")
        return value

    return authorization
