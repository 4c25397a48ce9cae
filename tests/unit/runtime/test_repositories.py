"""What git is given: addresses of an allow-list, mirrors, credentials."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.exits import Exit, Failure
from runtime.repositories import Credential, parse_mirrors, read_credential, source

TOKEN = Credential(token="planted-4711", user="bot")
KEY = Credential(private_key="-----BEGIN-----\nplanted-4711\n-----END-----\n")


@pytest.mark.parametrize(
    ("address", "protocol"),
    [
        ("https://git.example.com/acme/models.git", "https"),
        ("https://git.example.com:8443/x", "https"),
        ("ssh://git@git.example.com:2222/x.git", "ssh"),
        ("git@github.com:acme/models.git", "ssh"),
        ("file:///srv/models.git", "file"),
        ("http://mirror/x", "http"),
    ],
)
def test_addresses_of_the_allow_list(address: str, protocol: str) -> None:
    assert source(address, {}, None).protocol == protocol


@pytest.mark.parametrize(
    "address",
    [
        "",
        "-x",
        "ext::sh",
        "https://-host/x",
        "ssh://host/../x",
        "git@host:-x",
        "https://host/x\n",
        "https://u:p@h/x",
        "https://0xa9fea9fe/x",
        "https://169.254.169.254/x",
        "git://host/x",
        "C:/x",
        "https://host/x;y",
    ],
)
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(Failure, match="is not an address that git is given") as caught:
        source(address, {}, None)
    assert caught.value.code == Exit.CODE


def test_the_longest_mirror_that_ends_at_a_separator_is_taken() -> None:
    mirrors = parse_mirrors(
        "https://git.example.com=file:///all\n\nhttps://git.example.com/acme=file:///acme\ngit@host:=file:///ssh/\n"
    )
    assert source("https://git.example.com/acme/x.git", mirrors, None).address == "file:///acme/x.git"
    assert source("https://git.example.com/acmes/x.git", mirrors, None).address == "file:///all/acmes/x.git"
    assert source("https://git.example.company/x.git", mirrors, None).address == "https://git.example.company/x.git"
    assert source("git@host:x.git", mirrors, None).address == "file:///ssh/x.git"


def test_what_a_mirror_makes_of_an_address_is_checked_too() -> None:
    with pytest.raises(Failure):
        source("https://host/x", {"https://host": "ext::sh -c touch "}, None)


@pytest.mark.parametrize(
    ("address", "credential", "is_used"),
    [
        ("https://host/x", TOKEN, True),
        ("https://host/x", KEY, False),
        ("git@host:x", KEY, True),
        ("git@host:x", TOKEN, False),
        ("file:///x", TOKEN, False),
        ("http://127.0.0.1:80/x", TOKEN, True),
        ("http://localhost/x", TOKEN, True),
    ],
)
def test_a_credential_is_used_where_it_fits(address: str, credential: Credential, is_used: bool) -> None:
    assert (source(address, {}, credential).credential is not None) == is_used


@pytest.mark.parametrize("host", ["git.example.com", "10.0.0.1", "localhost.example.com"])
def test_a_token_is_not_sent_in_the_open(host: str) -> None:
    with pytest.raises(Failure, match="a token is not sent over http"):
        source(f"http://{host}/x", {}, TOKEN)


@pytest.mark.parametrize(
    ("files", "user", "token"),
    [
        ({"token": "bot:secret\n"}, "bot", "secret"),
        ({"token": "bot:sec:ret"}, "bot", "sec:ret"),
        ({"token": "sec:ret", "username": "bot\n"}, "bot", "sec:ret"),
        ({"token": "secret"}, "x-token-auth", "secret"),
    ],
)
def test_a_token_is_read_from_its_secret(tmp_path: Path, files: dict[str, str], user: str, token: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    found = read_credential(tmp_path)
    assert (found.user, found.token) == (user, token)
    assert "sec" not in repr(found)


def test_a_secret_that_is_not_mounted_says_so_without_a_word_of_its_content(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="cannot be read: FileNotFoundError"):
        read_credential(tmp_path / "nothing")
    (tmp_path / "token").write_bytes(b"planted-4711\xff")
    with pytest.raises(Failure) as caught:
        read_credential(tmp_path)
    assert "planted" not in str(caught.value)
