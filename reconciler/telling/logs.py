"""Structured logs: one event, a sentence, and fields by name.

    log = Log(__name__)
    log.info("applied", environment="production", model="churn", revision=commit)
    log.warning("the API server is away", error=error)  # an exception as a field: one line of it
    log.exception("this pass failed", model="churn")    # inside `except`: with its traceback

The sentence is constant and what varies is a field, so that events can be counted. Everything goes through `logging`,
and what libraries log comes out in the same form. `configure` says which form, once per process:

- `json`: each event is one line of ASCII, `{"time", "level", "msg", "logger", fields..., "exception"}`. The time is
  RFC 3339, UTC, with milliseconds. A field with the name of one of those gets an underscore behind it.
- `console`: for people. An event is one line; a traceback follows it, indented.

Nothing that somebody wrote into a spec, a commit or an answer can look like another event, is longer than a limit, or
stops the program. What looks like a credential is masked: the last line of defence, for no secret should come here.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import sys
import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Literal, TextIO, TypeAlias

LogFormat: TypeAlias = Literal["json", "console"]
LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]

#: Characters of a value, of a sentence and of a traceback; what is longer loses its middle. Then: entries of a list or
#: an object, and how deep lists and objects are shown as such.
_VALUE, _SENTENCE, _TRACEBACK, _ENTRIES, _DEPTH = 2048, 4096, 16384, 50, 2
#: No text is searched for credentials beyond this.
_SEARCHED = 65536

#: How a terminal paints a level (SGR parameters): dim, yellow, red.
_COLOURS = {"debug": "2", "warning": "33", "error": "31", "critical": "31"}

#: Whose events have the level that was asked for. All others speak from `warning` on, whatever was asked for: at
#: `debug` the Kubernetes client logs the answers of the API server, Secrets among them, and botocore its credentials.
_OURS = ("reconciler", "renderers", "schemas", "embedded", "runtime")
#: Warnings of theirs say what we say better, of attempts that are made again; or are what strangers can cause as often
#: as they like, of connections and queues.
_QUIET = ("urllib3", "waitress")


class Log:
    """A logger whose events have fields. Threads may share it."""

    __slots__ = ("_logger",)

    def __init__(self, name: str, /) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, sentence: str, /, **fields: object) -> None:
        """What helps only whoever looks for a fault."""
        self._log(logging.DEBUG, sentence, fields)

    def info(self, sentence: str, /, **fields: object) -> None:
        """What was done."""
        self._log(logging.INFO, sentence, fields)

    def warning(self, sentence: str, /, **fields: object) -> None:
        """What went wrong and is mended by itself, or needs somebody some day."""
        self._log(logging.WARNING, sentence, fields)

    def error(self, sentence: str, /, **fields: object) -> None:
        """What needs somebody."""
        self._log(logging.ERROR, sentence, fields)

    def exception(self, sentence: str, /, **fields: object) -> None:
        """An error with the traceback of the exception that is being handled."""
        self._log(logging.ERROR, sentence, fields, traceback=True)

    def _log(self, level: int, sentence: str, fields: Mapping[str, object], *, traceback: bool = False) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, sentence, exc_info=traceback, extra={"fields": fields})


def configure(form: LogFormat = "json", level: LogLevel = "info", stream: TextIO | None = None) -> None:
    """Sets up what the process logs. `stream` is standard error by default. Replaces what was set up before.

    Warnings of Python, and an exception that ends a thread, become events too.
    """
    out = stream or sys.stderr
    handler = logging.StreamHandler(out)
    handler.setFormatter(JsonLines() if form == "json" else Console(colour=_takes_colour(out)))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in _OURS:
        logging.getLogger(name).setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)
    # Who has called, of which thread and process: nobody prints it, and it is a third of what an event costs.
    logging._srcfile = None  # as the HOWTO of logging has it
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.captureWarnings(True)
    threading.excepthook = _thread_ended


def _thread_ended(ended: threading.ExceptHookArgs) -> None:
    if ended.exc_type is SystemExit:  # a thread may end itself so; Python's own hook is silent as well
        return
    error = ended.exc_value or ended.exc_type()
    logging.getLogger(__name__).error(
        "a thread has ended with an exception",
        exc_info=(ended.exc_type, error, ended.exc_traceback),
        extra={"fields": {"thread": ended.thread.name if ended.thread else ""}},
    )


def _takes_colour(stream: TextIO) -> bool:
    refused = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return not refused and stream.isatty()


class JsonLines(logging.Formatter):
    """An event as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, object] = {
            "time": _moment(datetime.fromtimestamp(record.created, UTC)),
            "level": record.levelname.lower(),
            "msg": _sentence(record),
            "logger": record.name,
        }
        traceback = _traceback(record)
        if traceback:
            event["exception"] = traceback
        reserved = {*event, "exception"}
        event.update((f"{name}_" if name in reserved else name, value) for name, value in _fields(record).items())
        return json.dumps(event)


class Console(logging.Formatter):
    """An event for people: the time of day (UTC), the level, the sentence, its fields, who says it."""

    def __init__(self, *, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        level = record.levelname.lower()
        words = [
            _moment(datetime.fromtimestamp(record.created, UTC))[11:],
            self._painted(f"{level:7}", _COLOURS.get(level, "")),
            _visible(_sentence(record)),
            *(f"{self._painted(f'{_visible(name)}=', '2')}{_word(value)}" for name, value in _fields(record).items()),
            self._painted(f"({_visible(record.name)})", "2"),
        ]
        lines = [" ".join(words), *(f"    {_visible(line)}" for line in _traceback(record).splitlines())]
        return "\n".join(lines)

    def _painted(self, text: str, parameters: str) -> str:
        return f"\x1b[{parameters}m{text}\x1b[0m" if self._colour and parameters else text


# -- an event's parts --


def _sentence(record: logging.LogRecord) -> str:
    try:
        sentence = record.getMessage()
    except Exception:  # noqa: BLE001 - a library's arguments do not fit its message, or cannot be shown
        sentence = f"{record.msg} {_text(record.args)}"
    return _bounded(sentence, _SENTENCE)


def _fields(record: logging.LogRecord) -> Mapping[str, object]:
    fields: object = getattr(record, "fields", None)
    return _entries(fields, _DEPTH) if isinstance(fields, Mapping) else {}


def _traceback(record: logging.LogRecord) -> str:
    if not record.exc_info or record.exc_info[0] is None:
        return ""
    return _bounded(logging.Formatter().formatException(record.exc_info), _TRACEBACK)


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def _entries(mapping: Mapping[Any, object], depth: int) -> dict[str, Any]:
    entries = ((_bounded(_text(name), 128), value) for name, value in islice(mapping.items(), _ENTRIES))
    return {name: "***" if name.lower() in _SECRET else _plain(value, depth) for name, value in entries}


def _plain(value: object, depth: int) -> Any:
    """What JSON can hold of a value. A container that shows itself in a way of its own is that text."""
    match value:
        case None | bool():
            return value
        case int() if value.bit_length() <= 63:
            return value
        case int():  # whose decimal digits Python may refuse to print
            return _bounded(hex(value), _VALUE)
        case float() if math.isfinite(value):
            return value
        case datetime() if value.tzinfo:
            return _moment(value)
        case timedelta():
            return value.total_seconds()
        case BaseException():
            return _bounded(f"{type(value).__name__}: {_text(value)}", _VALUE)
        case bytes():
            return _bounded(value[:_SEARCHED].decode("utf-8", "backslashreplace"), _VALUE)
    if depth and type(value).__str__ is object.__str__:
        if isinstance(value, Mapping):
            return _entries(value, depth - 1)
        if isinstance(value, list | tuple | set | frozenset):
            return [_plain(entry, depth - 1) for entry in islice(value, _ENTRIES)]
    return _bounded(_text(value), _VALUE)


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception as error:  # noqa: BLE001 - whatever a value's own __str__ raises, an event must come out
        return f"<{type(value).__name__} that cannot be shown: {type(error).__name__}>"


def _word(plain: object) -> str:
    """A field's value in a line of words: as it is, or as JSON where one would not see where it ends."""
    is_word = isinstance(plain, str) and plain and not any(c.isspace() or c in "\"='" for c in plain)
    return _visible(str(plain) if is_word else json.dumps(plain, ensure_ascii=False))


def _visible(text: str) -> str:
    """As a terminal shows it and does not obey it: control characters are escaped, bidirectional ones too."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _bounded(text: str, limit: int) -> str:
    """Without credentials, without half a character, and no longer than about `limit` characters."""
    text = redacted(_shortened(text, _SEARCHED)).encode("utf-8", "backslashreplace").decode()
    return _shortened(text, limit)


def _shortened(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    # Both ends: a sentence begins with what it is about, and a traceback ends with it.
    return f"{text[: limit // 2]} ...[{len(text) - limit} characters]... {text[-(limit // 2) :]}"


# -- credentials --

#: Fields whose values are never shown. "secret" is none of them: it names a Secret.
_SECRET = frozenset({"password", "passwd", "token", "authorization", "api_key", "client_secret", "private_key"})

#: Each begins with constant text or a boundary and cannot run twice over the same characters, so that the time it takes
#: is proportional to the text. What is to stay is in a group.
_CREDENTIALS = re.compile(
    r"""
      (?P<kept>(?<!ssh)://) [^/?\#\s"'<>]* (?=@)                # https://user:password@host, https://token@host
    | (?P<kept2>://) [^/?\#\s"'<>:@]* : [^/?\#\s"'<>]* (?=@)    # ssh://user:password@host
    | (?P<kept3>\b(?:proxy-)?authorization["']?\s{0,3}[:=]\s{0,3}["']?(?:(?:basic|bearer|token|digest|negotiate)\s)?)
      [^\s"',;]+                                                # a header, in text or as JSON
    | (?P<kept4>\b(?:bearer|basic)\s)[\w.~+/=-]{16,}
    | (?P<kept5>(?:token|password|passwd|api[_-]?key|client[_-]?secret|access[_-]?key|x-amz-(?:signature|credential)
      |[?&]sig)=["']?) [^\s&"',;]+                               # environment variables, queries, signed addresses
    | (?P<kept6>(?:token|password|passwd|api[_-]?key|client[_-]?secret|access[_-]?key)"\s{0,3}:\s{0,3}") [^"]+
    | \b(?:gh[pousr]_\w{20,} | github_pat_\w{20,} | glpat-[\w-]{16,} | xox[abeoprs]-[\w-]{10,} | whsec_[\w+/=]{16,}
      | eyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?)                   # GitHub, GitLab, Slack, webhooks, JSON Web Tokens
    | -----BEGIN[ ][A-Z ]{0,32}PRIVATE[ ]KEY----- [^-]* (?:-----END[ ][A-Z ]{0,32}PRIVATE[ ]KEY-----)?
    """,
    re.VERBOSE | re.IGNORECASE,
)


#: One of these is in whatever the pattern finds. To look for them takes a tenth of the time.
_MARKS = (
    *("://", "authorization", "bearer", "basic", "token", "passw", "api", "secret", "access", "x-amz-", "sig="),
    *("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "xox", "whsec_", "eyj", "private"),
)


def redacted(text: str) -> str:
    """The text without what looks like a credential: passwords in URLs, Authorization, well-known kinds of tokens."""
    if text.isascii():  # the pattern takes letters of other alphabets for these
        lower = text.lower()
        if not any(mark in lower for mark in _MARKS):
            return text
    return _CREDENTIALS.sub(lambda found: f"{next(filter(None, found.groups()), '')}***", text)
