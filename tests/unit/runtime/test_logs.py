"""The log of a run: bounded, and without secrets."""

from __future__ import annotations

import io

from hypothesis import given
from hypothesis import strategies as st

from runtime.logs import Log, Secrets

LETTERS = st.text("abcdefghijklmnop", min_size=6, max_size=20)


@given(st.lists(LETTERS, min_size=1, max_size=4), st.text("XYZ \n", max_size=20))
def test_no_secret_is_left_in_a_text_that_has_it(secrets: list[str], between: str) -> None:
    masked = Secrets({f"TOKEN_{number}": secret for number, secret in enumerate(secrets)}).mask(between.join(secrets))
    assert not any(secret in masked for secret in secrets)


def test_only_telling_names_are_secret() -> None:
    environ = {
        "DB_PASSWORD": "planted-1",
        "OPENAI_API_KEY": "planted-2",
        "AWS_SECRET_ACCESS_KEY": "planted-3",
        "GIT_AUTHOR_NAME": "somebody",
        "GOOGLE_APPLICATION_CREDENTIALS": "/var/run/secrets/key.json",
        "TOKEN_TYPE": "jwt",
        "EPOCHS": "hundred",
    }
    text = "planted-1 planted-2 planted-3 somebody /var/run/secrets/key.json jwt hundred"
    assert Secrets(environ).mask(text) == "*** *** *** somebody /var/run/secrets/key.json jwt hundred"


def test_a_password_in_a_url_is_masked_wherever_it_stands() -> None:
    secrets = Secrets({"UV_INDEX": "https://bot:planted-4711@pypi.example.com/simple"})
    assert secrets.mask("planted-4711") == "***"
    assert secrets.mask("at https://x:other@host/path") == "at https://***@host/path"
    assert secrets.mask("git@github.com:acme/models.git, https://host/a@b") == (
        "git@github.com:acme/models.git, https://host/a@b"
    )


def test_a_secret_is_masked_as_it_stands_in_a_url_too() -> None:
    assert Secrets({}, "a/b+c=d").mask("https://host/?t=a%2Fb%2Bc%3Dd") == "https://host/?t=***"


def test_everything_is_on_the_stream_and_beginning_and_end_are_kept() -> None:
    stream = io.StringIO()
    log = Log(stream, Secrets({}), limit=100)
    for number in range(100):
        log.say(f"line {number:04}")
    assert stream.getvalue().count("\n") == 100
    kept = log.content().decode().splitlines()
    assert kept[0] == "line 0000"
    assert kept[-1] == "line 0099"
    assert kept[10] == "[... 800 bytes are left out ...]"
    assert len(kept) == 21


def test_what_is_short_is_kept_whole() -> None:
    log = Log(io.StringIO(), Secrets({}))
    log.say("größe \udcff")
    log.say("two\nlines\n")
    assert log.content().decode() == "größe ?\ntwo\nlines\n"
