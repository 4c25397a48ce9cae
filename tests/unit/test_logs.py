from __future__ import annotations

import io
import json
import logging
import re
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.telling.logs import JsonLines, Log, LogFormat, LogLevel, configure, redacted
from renderers.manifest import ObjectId
from tests.conftest import examples

PLANTED = "s3cr3t-value-that-nobody-may-see"


@pytest.fixture
def output() -> Iterator[Callable[..., io.StringIO]]:
    """Configures logging as asked, and leaves it afterwards as it was."""
    names = ["reconciler", "renderers", "schemas", "embedded", "runtime", "urllib3", "waitress"]
    root, levels = logging.getLogger(), {name: logging.getLogger(name).level for name in names}
    handlers, level, hook = root.handlers[:], root.level, threading.excepthook

    def configured(
        form: LogFormat = "json", level: LogLevel = "info", stream: io.StringIO | None = None
    ) -> io.StringIO:
        stream = stream or io.StringIO()
        configure(form, level, stream)
        return stream

    yield configured
    root.handlers[:], threading.excepthook = handlers, hook
    root.setLevel(level)
    for name in names:
        logging.getLogger(name).setLevel(levels[name])
    logging.captureWarnings(False)


log = Log("reconciler.some.module")


def events(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def the_event(stream: io.StringIO) -> dict[str, Any]:
    [event] = events(stream)
    return event


# -- JSON lines --


def test_an_event_has_a_time_a_level_a_sentence_its_logger_and_its_fields(output: Callable[..., io.StringIO]) -> None:
    stream = output()
    log.info("applied", environment="prod", model="churn", objects=4)
    event = the_event(stream)
    assert list(event) == ["time", "level", "msg", "logger", "environment", "model", "objects"]
    assert list(event.values())[1:] == ["info", "applied", "reconciler.some.module", "prod", "churn", 4]


def test_the_time_is_utc_with_milliseconds() -> None:
    at = datetime(2026, 11, 21, 12, 0, 0, 7000, tzinfo=UTC).timestamp()
    record = logging.makeLogRecord({"created": at, "msg": "applied"})
    assert json.loads(JsonLines().format(record))["time"] == "2026-11-21T12:00:00.007Z"


def test_a_field_with_the_name_of_a_part_of_the_event_does_not_replace_it(output: Callable[..., io.StringIO]) -> None:
    stream = output()
    log.info("applied", msg="forged", level="error", time="never", logger="me", exception="none", name="n", args="a")
    event = the_event(stream)
    assert (event["msg"], event["level"], event["logger"]) == ("applied", "info", "reconciler.some.module")
    assert (event["msg_"], event["level_"], event["exception_"]) == ("forged", "error", "none")
    assert (event["name"], event["args"]) == ("n", "a")


def test_an_exception_is_one_field_with_its_traceback(output: Callable[..., io.StringIO]) -> None:
    stream = output()
    try:
        raise RuntimeError("the cause")
    except RuntimeError:
        log.exception("this pass failed", model="churn")
    event = the_event(stream)
    assert event["level"] == "error"
    assert event["exception"].startswith("Traceback")
    assert event["exception"].endswith("RuntimeError: the cause")


def test_an_exception_as_a_field_is_a_line(output: Callable[..., io.StringIO]) -> None:
    stream = output()
    log.warning("away", error=ConnectionResetError("by peer"))
    assert the_event(stream)["error"] == "ConnectionResetError: by peer"


def test_values_that_json_has_no_word_for_are_shown(output: Callable[..., io.StringIO]) -> None:
    stream = output()
    log.info(
        "all",
        object=ObjectId("apps/v1", "Deployment", "ml", "churn"),
        when=datetime(2026, 11, 21, 12, tzinfo=UTC),
        took=timedelta(seconds=1.5),
        raw=b"a\xff",
        unbounded=float("inf"),
        missing=float("nan"),
        big=2**80,
        half="\ud800",
        names={"only"},
        deep=[[[["x"]]]],
        mapping={1: None, "token": PLANTED},
    )
    event = the_event(stream)
    assert {name: event[name] for name in list(event)[4:]} == {
        "object": "Deployment/ml/churn",
        "when": "2026-11-21T12:00:00.000Z",
        "took": 1.5,
        "raw": "a\\xff",
        "unbounded": "inf",
        "missing": "nan",
        "big": hex(2**80),
        "half": "\\ud800",
        "names": ["only"],
        "deep": [["[['x']]"]],
        "mapping": {"1": None, "token": "***"},
    }


class Unshowable:
    def __str__(self) -> str:
        raise AttributeError("half-made")


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_value_that_cannot_be_shown_does_not_lose_the_event(
    output: Callable[..., io.StringIO], form: LogFormat
) -> None:
    stream = output(form)
    log.info("applied", value=Unshowable(), number=10**6000)
    too_few = (Unshowable(),)
    logging.getLogger("library").warning("%s %s", *too_few)
    assert "<Unshowable that cannot be shown: AttributeError>" in stream.getvalue()
    assert "%s %s" in stream.getvalue()
    assert len(stream.getvalue().splitlines()) == 2


def test_a_value_is_bounded_and_keeps_both_ends(output: Callable[..., io.StringIO]) -> None:
    stream = output()
    log.info("<" + "m" * 100_000 + ">", value="<" + "v" * 100_000 + ">", many=list(range(1000)))
    event = the_event(stream)
    for text, limit in ((event["msg"], 4096), (event["value"], 2048)):
        assert len(text) < limit + 50
        assert text.startswith("<")
        assert text.endswith(">")
    assert event["many"] == list(range(50))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
)


@given(
    sentence=st.text(st.characters(codec=None)),
    fields=st.dictionaries(st.text(st.characters(codec=None)), json_values, max_size=5),
    form=st.sampled_from(["json", "console"]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=examples(60))
def test_whatever_is_logged_is_one_line(
    output: Callable[..., io.StringIO], sentence: str, fields: dict[str, object], form: LogFormat
) -> None:
    stream = output(form)
    log.info(sentence, **fields)
    text = stream.getvalue()
    assert text.endswith("\n")
    assert text[:-1].isprintable()
    if form == "json":
        assert text.isascii()
        assert json.loads(text)["logger"] == "reconciler.some.module"


# -- the console --


def test_the_console_shows_an_event_as_a_line_of_words(output: Callable[..., io.StringIO]) -> None:
    stream = output("console")
    log.warning("drift", environment="prod", manager="kubectl edit", value="", count=2, paths=["a", "b"])
    [line] = stream.getvalue().splitlines()
    assert re.fullmatch(
        r'\d\d:\d\d:\d\d\.\d{3}Z warning drift environment=prod manager="kubectl edit" value="" count=2 '
        r'paths=\["a", "b"\] \(reconciler\.some\.module\)',
        line,
    )


def test_nothing_that_is_logged_looks_like_another_event_on_the_console(output: Callable[..., io.StringIO]) -> None:
    stream = output("console")
    forged = "x\n12:00:00.000Z info    all is well\x1b[2K\r\u202egnp"
    try:
        raise RuntimeError(forged)
    except RuntimeError:
        log.exception(forged, value=forged)
    first, *others = stream.getvalue().splitlines()
    assert "all is well" in first
    assert all(line.startswith("    ") for line in others)
    assert stream.getvalue().replace("\n", "").isprintable()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colour_is_for_terminals_that_want_it(
    output: Callable[..., io.StringIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[" not in logged(output("console"))
    assert "\x1b[31merror" in logged(output("console", stream=Terminal()))
    assert "\x1b[" not in logged(output("json", stream=Terminal()))
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in logged(output("console", stream=Terminal()))


def logged(stream: io.StringIO) -> str:
    log.error("refused", model="churn")
    return stream.getvalue()


# -- who may speak --


def test_our_loggers_have_the_level_that_was_asked_for(output: Callable[..., io.StringIO]) -> None:
    stream = output(level="warning")
    log.info("hushed")
    assert stream.getvalue() == ""
    stream = output(level="debug")
    log.debug("told")
    assert the_event(stream)["level"] == "debug"


def test_what_libraries_log_at_debug_stays_out_whatever_was_asked_for(output: Callable[..., io.StringIO]) -> None:
    stream = output(level="debug")
    logging.getLogger("kubernetes.client.rest").debug("response body: %s", PLANTED)
    logging.getLogger("botocore.auth").debug("CanonicalRequest: %s", PLANTED)
    logging.getLogger("urllib3.connectionpool").warning("Retrying")
    logging.getLogger("waitress.queue").warning("Task queue depth is 1")
    assert stream.getvalue() == ""
    logging.getLogger("botocore").warning("a library's %s", "warning")
    assert the_event(stream)["msg"] == "a library's warning"


def test_a_warning_of_python_is_an_event(output: Callable[..., io.StringIO]) -> None:
    stream = output()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old ways", DeprecationWarning, stacklevel=1)
        logging.captureWarnings(False)
    assert "old ways" in the_event(stream)["msg"]


def test_an_exception_that_ends_a_thread_is_an_event(output: Callable[..., io.StringIO]) -> None:
    stream = output()

    def fails() -> None:
        raise RuntimeError("out of luck")

    for target in (fails, sys.exit):
        thread = threading.Thread(target=target, name="cluster-eu")
        thread.start()
        thread.join()
    event = the_event(stream)
    assert event["thread"] == "cluster-eu"
    assert event["exception"].endswith("RuntimeError: out of luck")


# -- credentials --

MASKED = {
    f"https://user:{PLANTED}@host/x": "https://***@host/x",
    f"https://user:p@{PLANTED}@host/x": "https://***@host/x",
    f"fatal: https://{PLANTED}@host/x not found": "fatal: https://***@host/x not found",
    f"ssh://git:{PLANTED}@host/x": "ssh://***@host/x",
    f"postgresql://u:{PLANTED}@db/x": "postgresql://***@db/x",
    f"Authorization: Bearer {PLANTED}": "Authorization: Bearer ***",
    f"{{'Authorization': 'Basic {PLANTED}'}}": "{'Authorization': 'Basic ***'}",
    f"proxy-authorization={PLANTED}": "proxy-authorization=***",
    f"sent bearer {PLANTED}": "sent bearer ***",
    f"GIT_TOKEN={PLANTED} git fetch": "GIT_TOKEN=*** git fetch",
    f'{{"access_token": "{PLANTED}", "a": 1}}': '{"access_token": "***", "a": 1}',
    f"https://s3/x?X-Amz-Signature={PLANTED}&a=1": "https://s3/x?X-Amz-Signature=***&a=1",
    "ghp_0123456789abcdef0123456789abcdef0123": "***",
    "glpat-0123456789abcdef0123": "***",
    "whsec_MDEyMzQ1Njc4OWFiY2RlZg==": "***",
    "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl": "***",
    f"-----BEGIN OPENSSH PRIVATE KEY-----\n{PLANTED.replace('-', '')}\n-----END OPENSSH PRIVATE KEY-----": "***",
}

NOT_MASKED = [
    "ssh://git@github.com/acme/specs",
    "git@github.com:acme/specs.git",
    "https://host/path?mail=someone@example.com",
    "basic understanding of authorization",
    "unexpected token: }",
    "the Secret git-token has no key password",
    "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
]


@pytest.mark.parametrize("text", MASKED)
def test_what_looks_like_a_credential_is_masked(text: str) -> None:
    assert redacted(text) == MASKED[text]


@pytest.mark.parametrize("text", NOT_MASKED)
def test_what_is_none_is_left_alone(text: str) -> None:
    assert redacted(text) == text


@settings(max_examples=examples(300))
@given(st.lists(st.sampled_from([*MASKED, *NOT_MASKED, *" ://@:=\"'&?_-", "token", "Sig", "API", "eyJ"]), max_size=6))
def test_a_text_is_masked_the_same_whether_or_not_it_is_searched_at_first_for_what_credentials_have(parts: list[str]):
    text = "".join(parts)
    assert redacted(f"\u00e9 {text}") == f"\u00e9 {redacted(f' {text}')[1:]}", "only ASCII is searched at first"


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_credential_is_masked_wherever_it_stands(output: Callable[..., io.StringIO], form: LogFormat) -> None:
    stream = output(form)
    url = f"https://x:{PLANTED}@host"
    log.info(f"fetch {url}", url=url, error=ValueError(url), list=[url], mapping={url: url}, token=PLANTED)
    logging.getLogger("library").warning("fetch %s", url)
    try:
        raise ValueError(url)
    except ValueError:
        log.exception("failed")
    assert PLANTED not in stream.getvalue()
    assert stream.getvalue().count("https://***@host") >= 8


@pytest.mark.parametrize(
    "piece",
    ["://", "://a", "://x:", "a.b+", "token", "authorization: ", "eyJaaaaaaaa.", '"password"', "bearer ", "ghp_"],
)
def test_looking_for_credentials_takes_time_in_proportion_to_the_text(piece: str) -> None:
    text = piece * (65536 // len(piece))
    begun = time.thread_time()
    redacted(text)
    assert time.thread_time() - begun < 1  # 0.04 s where this was written
