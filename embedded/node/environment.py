"""Pure: what the process of a container is started with, as a kubelet computes it.

References `$(NAME)` are expanded, values come from Secrets, ConfigMaps and the pod's own fields, and paths at which
the container would see a volume become the folders of this machine that stand for it.
"""

from __future__ import annotations

import base64
import re
import sys
from collections.abc import Callable, Mapping
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

from embedded.quantity import parse_quantity

Object = dict[str, Any]

#: A Secret or ConfigMap of the pod's namespace by resource and name; None where there is none.
Lookup = Callable[[str, str], Object | None]

#: What a process gets of the environment that the runner was started in: how to find programs, and how to reach package
#: indexes through proxies and certificates. Everything else stays behind: it may hold the user's own secrets.
_KEPT = re.compile(
    r"(PATH|LANG|LC_ALL|LC_CTYPE|TZ|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|PIP_.*|UV_(?!PUBLISH_).*"
    r"|(HTTP|HTTPS|ALL|NO|http|https|all|no)_(PROXY|proxy))\Z"
)

#: Libraries that start a thread per core ask these first. Nine pods on two cores would start eighteen.
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "POLARS_MAX_THREADS",
    "LOKY_MAX_CPU_COUNT",
    "GOMAXPROCS",
)

_REFERENCE = re.compile(r"\$\$|\$\(([^)]*)\)")
_VARIABLE_NAME = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*\Z")


class ConfigError(Exception):
    """The container cannot be started as it is described: a kubelet says so as CreateContainerConfigError."""


class Launch(NamedTuple):
    """How a process is started. Its environment holds secrets, and so it is left out of the representation."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str

    def __repr__(self) -> str:
        return f"Launch({self.argv!r}, cwd={self.cwd!r})"


class Facts(NamedTuple):
    """What a pod knows of itself and of where it runs."""

    pod: Object
    ip: str
    host_ip: str
    capacity: Mapping[str, str]  #: of the node: what a container without a limit may use
    lookup: Lookup


class Paths:
    """Where on this machine the paths of a container are. `folders` maps the one to the other."""

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self._folders = {path.rstrip("/"): str(folder) for path, folder in folders.items() if path.rstrip("/")}
        longest_first = sorted(self._folders, key=len, reverse=True)
        named = "|".join(re.escape(path) for path in longest_first)
        # A path stands alone, or follows something that is no part of a path (`--into=/work`, `A:/work`); what follows
        # it is no part of its last name. The path of a URL is none of the container: `file:///tmp/x` is this machine's.
        self._named = re.compile(rf"(?<![\w./~@%+-])({named})(?![\w.+-])") if named else None

    def __call__(self, text: str) -> str:
        """The text with every path of the container replaced by the folder that stands for it."""
        if self._named is None:
            return text
        return self._named.sub(lambda match: self._folders[match[1]], text)


def launch(container: Object, facts: Facts, paths: Paths, base: Mapping[str, str], cwd: str) -> Launch:
    """How a container's process is started.

    `base` is the environment below what the manifest says; `cwd` the folder of this machine where it starts if the
    manifest names none. Raises ConfigError.
    """
    command = container.get("command") or ()
    if not command:
        raise ConfigError("no command specified: containers run as processes here, and no image says what to run")
    given, secret = _given_environment(container, facts)
    env = dict(base)
    threads = _threads(container)
    if threads:
        env.update(dict.fromkeys(_THREAD_VARIABLES, str(threads)))
    env.update((name, value if name in secret else paths(value)) for name, value in given.items())
    argv = [paths(expand(part, given)) for part in (*command, *container.get("args", ()))]
    return Launch(
        (*_program(argv[0]), *argv[1:]), env, paths(container["workingDir"]) if container.get("workingDir") else cwd
    )


def command_line(command: list[str], paths: Paths) -> tuple[str, ...]:
    """The command of a probe or a hook, which is expanded by nobody."""
    argv = [paths(part) for part in command]
    return (*_program(argv[0]), *argv[1:])


def _program(name: str) -> tuple[str, ...]:
    """The image's Python is the one that runs us. -P: not what lies in the folder where it happens to start."""
    return (sys.executable, "-P") if name in ("python", "python3") else (name,)


def base_environment(inherited: Mapping[str, str], more: Mapping[str, str]) -> dict[str, str]:
    """The environment of every container: the harmless part of our own, and what the data plane adds."""
    env = {name: value for name, value in inherited.items() if _KEPT.match(name)}
    env.setdefault("LANG", "C.UTF-8")
    env["PATH"] = f"{Path(sys.executable).parent}:{env.get('PATH') or '/usr/local/bin:/usr/bin:/bin'}"
    return {**env, **more}


def expand(text: str, variables: Mapping[str, str]) -> str:
    """`$(NAME)` is the variable's value, or stays where there is none; `$$` is a dollar sign."""

    def replaced(match: re.Match[str]) -> str:
        return "$" if match[1] is None else variables.get(match[1], match[0])

    return _REFERENCE.sub(replaced, text)


def _given_environment(container: Object, facts: Facts) -> tuple[dict[str, str], set[str]]:
    """What the manifest says, and the names whose values come from Secrets."""
    env: dict[str, str] = {}
    secret: set[str] = set()
    for source in container.get("envFrom", ()):
        is_secret = "secretRef" in source
        for key, text in _all_keys(source, facts.lookup).items():
            name = source.get("prefix", "") + key
            if _VARIABLE_NAME.match(name):
                env[name] = text
                secret.add(name) if is_secret else secret.discard(name)
    for variable in container.get("env", ()):
        name, source = variable["name"], variable.get("valueFrom")
        value: str | None = (
            expand(variable.get("value", ""), env) if source is None else _from(source, container, facts)
        )
        if value is None:
            continue
        env[name] = value
        secret.add(name) if source and "secretKeyRef" in source else secret.discard(name)
    return env, secret


def _all_keys(source: Object, lookup: Lookup) -> dict[str, str]:
    resource, field = ("secrets", "secretRef") if "secretRef" in source else ("configmaps", "configMapRef")
    reference = source[field]
    found = lookup(resource, reference["name"])
    if found is None:
        if reference.get("optional"):
            return {}
        raise ConfigError(f'{resource[:-1]} "{reference["name"]}" not found')
    return {key: value.decode(errors="replace") for key, value in contents(resource, found).items()}


def _from(source: Object, container: Object, facts: Facts) -> str | None:
    """The value of one variable; None where an optional one has none."""
    if "fieldRef" in source:
        return field(source["fieldRef"]["fieldPath"], facts)
    if "resourceFieldRef" in source:
        return resource_field(source["resourceFieldRef"], container, facts)
    resource, name = ("secrets", "secretKeyRef") if "secretKeyRef" in source else ("configmaps", "configMapKeyRef")
    if name not in source:
        raise ConfigError(f"a value from {', '.join(source)} is not known here")
    reference = source[name]
    found = facts.lookup(resource, reference["name"])
    optional = bool(reference.get("optional"))
    if found is None:
        if optional:
            return None
        raise ConfigError(f'{resource[:-1]} "{reference["name"]}" not found')
    value = contents(resource, found).get(reference["key"])
    if value is None:
        if optional:
            return None
        what = "Secret" if resource == "secrets" else "ConfigMap"
        namespace = facts.pod["metadata"]["namespace"]
        raise ConfigError(f"couldn't find key {reference['key']} in {what} {namespace}/{reference['name']}")
    return value.decode(errors="replace")


def contents(resource: str, obj: Object) -> dict[str, bytes]:
    """The keys of a Secret or a ConfigMap."""
    encoded = obj.get("data" if resource == "secrets" else "binaryData") or {}
    values = {key: base64.b64decode(value) for key, value in encoded.items()}
    if resource == "configmaps":
        values |= {key: value.encode() for key, value in (obj.get("data") or {}).items()}
    return values


def field(path: str, facts: Facts) -> str:
    """A field of the pod as text (`metadata.labels['app']`, `status.podIP`). Raises ConfigError."""
    metadata, spec = facts.pod["metadata"], facts.pod["spec"]
    match = re.fullmatch(r"metadata\.(labels|annotations)(?:\['(.+)'\])?", path)
    if match and match[2]:
        return str(metadata.get(match[1], {}).get(match[2], ""))
    if match:
        lines = (f'{key}="{_quoted(value)}"' for key, value in sorted(metadata.get(match[1], {}).items()))
        return "\n".join(lines)
    values = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata["namespace"],
        "metadata.uid": metadata["uid"],
        "spec.nodeName": spec.get("nodeName", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName") or "default",
        "status.hostIP": facts.host_ip,
        "status.hostIPs": facts.host_ip,
        "status.podIP": facts.ip,
        "status.podIPs": facts.ip,
    }
    if path not in values:
        raise ConfigError(f"unsupported fieldPath: {path}")
    return str(values[path])


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def resource_field(reference: Object, container: Object, facts: Facts) -> str:
    """`limits.memory` and the like, in units of the divisor, rounded up; without a limit, what the node has."""
    wanted = reference.get("containerName") or container["name"]
    everyone = (*facts.pod["spec"].get("initContainers", ()), *facts.pod["spec"]["containers"])
    found = next((one for one in everyone if one["name"] == wanted), None)
    if found is None:
        raise ConfigError(f"container {wanted} not found")
    kind, _, name = reference["resource"].partition(".")
    resources = found.get("resources", {})
    amount = resources.get(kind, {}).get(name)
    if amount is None:
        amount = facts.capacity.get(name, "0") if kind == "limits" else "0"
    divisor = parse_quantity(reference.get("divisor") or "1") or parse_quantity("1")
    return str(ceil(parse_quantity(amount) / divisor))


def _threads(container: Object) -> int | None:
    """How many cores the container counts on; None where it does not say."""
    resources = container.get("resources", {})
    cpu = resources.get("limits", {}).get("cpu") or resources.get("requests", {}).get("cpu")
    return max(1, ceil(parse_quantity(cpu))) if cpu is not None else None
