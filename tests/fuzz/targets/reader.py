"""The YAML reader: whatever the bytes, there is an answer, in bounded time, and other readers agree with it."""

from __future__ import annotations

import json
import re
import time
import zlib

from yaml import CSafeLoader, YAMLError

from schemas.reader import read
from tests.fuzz.targets.target import ROOT, Target

#: Seconds of CPU that a file of `_LARGE` bytes may take. It takes a twentieth as a rule.
_SECONDS = 4.0
_LARGE = 1 << 16


class _Peer(CSafeLoader):
    """PyYAML's safe loader, with the one known difference taken out.

    It reads the YAML 1.1 of 2005, where a number with an exponent needs a point and a sign (`1e5` is text). No other
    reader asks for that, and JSON is written without.
    """


_Peer.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":float")]
    for first, resolvers in CSafeLoader.yaml_implicit_resolvers.items()
}
_Peer.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$|[-+]?\.(?:inf|Inf|INF|nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)


def check(data: bytes) -> None:
    reading, marked = read("f.yaml", data), read("f.yaml", data, marks=True)
    assert [d.value for d in reading.documents] == [d.value for d in marked.documents]
    assert reading.problems == marked.problems
    assert reading.whole or reading.problems
    lines = re.split("\r\n|\r|\n", data.decode(errors="replace"))
    for problem in reading.problems:
        assert 1 <= problem.line <= len(lines) + 1, problem
        assert problem.column >= 1, problem
        assert re.fullmatch(r"yaml/[a-z0-9-]+", problem.rule), problem
        assert problem.message.endswith("."), problem
        assert str(problem).isprintable(), problem
        assert len(str(problem)) < 1000, problem
        assert problem.pointer.encode() is not None
    for document in marked.documents:
        json.dumps(document.value, allow_nan=False, ensure_ascii=False).encode()
        for path, mark in document.marks.items():
            assert mark.line >= 1, path
            assert mark.column >= 1, path
    if not reading.problems:
        _agrees(data, [document.value for document in reading.documents])
    if data and zlib.crc32(data) % 32 == 0:
        _is_quick(data)


def _agrees(data: bytes, values: list[object]) -> None:
    peer, theirs = _Peer(data), []
    try:
        while peer.check_data():
            theirs.append(peer.get_data())
    except (YAMLError, ValueError) as error:
        raise AssertionError(f"PyYAML refuses what we take: {error}") from error
    finally:
        peer.dispose()
    theirs = [value for value in theirs if value is not None]
    # As text, because to Python 1, 1.0 and True are equal.
    assert repr(values) == repr(theirs), f"{values!r} is {theirs!r} to PyYAML"


def _is_quick(data: bytes) -> None:
    """The same again and again, up to a large file: no cost may grow faster than the file."""
    for joint in (b"", b"\n"):
        large = joint.join([data] * (_LARGE // (len(data) + 1)))
        began = time.process_time()
        read("f.yaml", large)
        assert time.process_time() - began < _SECONDS


TARGET = Target(
    check,
    words=[
        *(
            "\n  - ",
            "\n  ",
            ": ",
            "- ",
            "---\n",
            "...\n",
            "? ",
            "<<: ",
            "|\n ",
            ">-\n ",
            "|2+",
            "#",
            "{",
            "}",
            "[",
            "]",
        ),
        *(
            "!!str ",
            "&a ",
            "*a",
            "%YAML 1.1\n",
            "%TAG ! !\n",
            "\ufeff",
            "\u2028",
            "\x85",
            '"\\x',
            '"\\u',
            "'",
            '"',
            "\t",
        ),
        *("yes", "~", "null", "True", "010", "0o7", "0x1f", "0b1", "1_0", "1:30", "2024-01-02", ".inf", "-.5", "1e5"),
        *("<<<<<<< x\n", "=======\n", ">>>>>>> x\n", "\r\n", "\r", "\\\n", "=", "9223372036854775807", "@", "`"),
    ],
    seeds=[path.read_bytes() for path in sorted(ROOT.glob("examples/specs/*/*.yaml"))],
    max_bytes=8192,
)
