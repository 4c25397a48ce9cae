"""The Secrets of the daemon itself: what is in them, and what is said where they are of no use."""

from __future__ import annotations

import logging
from base64 import b64encode
from typing import Any

import pytest

from reconciler.cluster import Reader, Unavailable
from reconciler.daemon.follower import SourceError
from reconciler.daemon.secrets import Secrets
from renderers.manifest import ObjectId


class Cluster(Reader):
    """A cluster that holds one Secret, or is away."""

    def __init__(self, **values: bytes) -> None:
        self.values: dict[str, bytes] | None = values
        self.away = ""

    def get(self, target: ObjectId) -> dict[str, Any] | None:
        if self.away:
            raise Unavailable(0, "", self.away, target)
        if self.values is None:
            return None
        return {"data": {key: b64encode(value).decode() for key, value in self.values.items()}}


def git_secret(**values: bytes) -> Secrets:
    cluster = Cluster(**{name.replace("_key", "-privatekey"): value for name, value in values.items()})
    return Secrets(lambda: cluster, git="git")


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [getattr(record, "fields", {})["why"] for record in caplog.records if record.levelno == logging.WARNING]


def test_a_token_goes_with_its_user() -> None:
    credential = git_secret(token=b"t-1\n", username=b"bot").credential()
    assert credential is not None
    assert (credential.kind, credential.user, credential.secret) == ("token", "bot", "t-1")


def test_a_key_needs_no_known_hosts() -> None:
    credential = git_secret(ssh_key=b"key").credential()
    assert credential is not None
    assert (credential.kind, credential.secret, credential.known_hosts) == ("ssh-key", "key\n", None)


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"token": b"\xffplanted"}, "token"),
        ({"token": b"t", "username": b"\xffplanted"}, "username"),
        ({"ssh_key": b"\xffplanted"}, "ssh-privatekey"),
        ({"ssh_key": b"key", "known_hosts": b"\xffplanted"}, "known_hosts"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_text_is_a_sentence_that_names_the_key_and_not_what_is_in_it(
    values: dict[str, bytes], key: str
) -> None:
    with pytest.raises(SourceError, match=f"`{key}` of the Secret trueup-system/git is no UTF-8 text") as error:
        git_secret(**values).credential()
    assert "planted" not in str(error.value)


def test_why_no_webhook_is_believed_is_logged_once_for_each_reason(caplog: pytest.LogCaptureFixture) -> None:
    cluster = Cluster(key=b"s-1")
    secrets = Secrets(lambda: cluster, webhook="hook")
    assert secrets.webhook_secrets() == [b"s-1"]
    assert said(caplog) == []
    cluster.values = None
    assert [secrets.webhook_secrets() for _ in range(3)] == [[], [], []]
    assert said(caplog) == ["the Secret trueup-system/hook does not exist"]
    cluster.values = {"key": b"\n"}
    secrets.webhook_secrets()
    assert said(caplog)[1:] == ["the Secret trueup-system/hook is empty"]
    cluster.away = "no route"
    secrets.webhook_secrets()
    assert "no route" in said(caplog)[2]


def test_a_reason_that_comes_back_is_logged_again(caplog: pytest.LogCaptureFixture) -> None:
    cluster = Cluster(key=b"s-1")
    secrets = Secrets(lambda: cluster, webhook="hook")
    for away in ("no route", "", "no route"):
        cluster.away = away
        secrets.webhook_secrets()
    assert len(said(caplog)) == 2
