"""What git may be given, and what it gets to know: for the builds that fetch code, and for who asks where a branch is.

An address comes from a spec, so it is data of a stranger: it is checked against an allow-list. Credentials are files
of this process alone: no command line has them.
"""

from __future__ import annotations

import ipaddress
import os
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

_HOST = "[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?"
_USER = "[A-Za-z0-9_][A-Za-z0-9_.-]*@"
_PORT = "(:[0-9]{1,5})?"
_PATH = "[A-Za-z0-9_.~/-]+"
#: All that git is ever given. It would run a program for `ext::`, and read an option from a leading `-`.
_ADDRESSES = tuple(
    re.compile(pattern)
    for pattern in (
        rf"(?P<protocol>https?)://(?P<host>{_HOST}){_PORT}/{_PATH}",
        rf"(?P<protocol>ssh)://({_USER})?(?P<host>{_HOST}){_PORT}/{_PATH}",
        rf"{_USER}(?P<host>{_HOST}):(?!-){_PATH}",
        r"(?P<protocol>file):///[A-Za-z0-9_.~/%-]+",
    )
)
_UPWARDS = re.compile(r"(^|[/:])\.\.(/|$)")

#: Servers that look at the token alone take any user but none at all. Bitbucket wants this one.
ANY_USER = "x-token-auth"

_PROXIES = ("HTTPS_PROXY", "https_proxy", "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy")


def protocol_of(address: str) -> str | None:
    """https, http, ssh or file; None for what git must not see."""
    match = next((match for pattern in _ADDRESSES if (match := pattern.fullmatch(address))), None)
    if match is None or _UPWARDS.search(address):
        return None
    parts = {"protocol": "ssh", "host": "", **match.groupdict()}
    return parts["protocol"] if parts["protocol"] == "file" or _is_host(parts["host"]) else None


def _is_host(host: str) -> bool:
    """A DNS name, or an IPv4 address of four decimal numbers that is not link-local.

    169.254.169.254 hands out a machine's credentials; curl reads 2852039166 and 0xa9fea9fe as the same.
    """
    if host.rpartition(".")[2][:1].isalpha():
        return True
    try:
        return not ipaddress.IPv4Address(host).is_link_local
    except ValueError:
        return False


def mirrored(address: str, mirrors: Mapping[str, str]) -> str:
    """The address with its beginning replaced: by the longest of `mirrors` that fits, cut at `/` or `:`.

    Check the result again: its end was still written in a spec. Not git's own url.<base>.insteadOf: it cuts
    "https://git.example.org/" at "https://git.example", and what it makes of an address could not be checked, nor
    could the token be bound to it.
    """
    fitting = [
        beginning
        for beginning in mirrors
        if address.startswith(beginning)
        and (beginning.endswith(("/", ":")) or address[len(beginning) :].startswith("/") or address == beginning)
    ]
    longest = max(fitting, key=len, default=None)
    return address if longest is None else mirrors[longest] + address[len(longest) :]


def shown(address: str) -> str:
    """An address that was refused, for people: somebody may have written a token into it."""
    return re.sub("//.*@", "//***@", address, flags=re.DOTALL)[:200]


def environment(protocol: str, folder: Path, configuration: Iterable[tuple[str, str]]) -> dict[str, str]:
    """All that git gets to know, made from nothing. `folder` becomes its home, and is deleted later.

    GIT_* variables of this process are the worst of what is left out: inside a git hook they say which repository
    and which configuration git works with.
    """
    home = folder / "home"
    home.mkdir()
    made = {name: os.environ[name] for name in ("PATH", *_PROXIES) if name in os.environ}
    for name, name_of_git in (("SSL_CERT_FILE", "GIT_SSL_CAINFO"), ("SSL_CERT_DIR", "GIT_SSL_CAPATH")):
        if name in os.environ:
            made[name_of_git] = str(Path(os.environ[name]).absolute())
    settings = [
        ("credential.helper", ""),
        ("http.followRedirects", "false"),  # or the token goes where the answer says
        ("protocol.version", "2"),  # with it a server hands out any commit, and leaves out what is no branch
        *configuration,
    ]
    for index, (key, value) in enumerate(settings):
        made[f"GIT_CONFIG_KEY_{index}"] = key
        made[f"GIT_CONFIG_VALUE_{index}"] = value
    return made | {
        "GIT_ALLOW_PROTOCOL": protocol,
        "GIT_CEILING_DIRECTORIES": str(folder.parent),  # the folder for temporary files may lie in a repository
        "GIT_CONFIG_COUNT": str(len(settings)),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "HOME": str(home),
        "LC_ALL": "C",
    }


def ssh_environment(folder: Path, private_key: str | None, known_hosts: str | None) -> dict[str, str]:
    """How git calls ssh: with this key and no other, for known hosts alone. A shell reads the command.

    Without `known_hosts`, this machine's own files say which hosts are known.
    """
    options = [
        "BatchMode=yes",
        "ConnectTimeout=30",
        "IdentitiesOnly=yes",
        "LogLevel=ERROR",
        "PreferredAuthentications=publickey",
        "ServerAliveInterval=30",
        "StrictHostKeyChecking=yes",
        "UpdateHostKeys=no",
    ]
    identity = "none"
    if private_key is not None:
        write_secret(folder / "key", private_key)
        identity = str(folder / "key")
    options.append(f"IdentityFile={identity}")
    if known_hosts is not None:
        write_secret(folder / "known_hosts", known_hosts)
        options += [f"UserKnownHostsFile={folder / 'known_hosts'}", "GlobalKnownHostsFile=none"]
    command = shlex.join(["ssh", "-F", "none", *(word for option in options for word in ("-o", option))])
    return {"GIT_SSH_COMMAND": command, "GIT_SSH_VARIANT": "ssh"}


def write_secret(path: Path, text: str) -> None:
    """A new file that nobody else can read."""
    path.touch(mode=0o600, exist_ok=False)
    path.write_text(text, "utf-8")
