"""Strict YAML: which text is legal in the language, and where each node of it stands.

Every spec file passes through `read`. It understands YAML 1.2 (core schema) and refuses what people and
other YAML readers understand differently: `yes`, `010`, `12:30`, duplicate keys, aliases, tags. A node is
str, int, float, bool, None, a list, or a dict with str keys: what JSON can say, and no more.

It builds from libyaml's event stream. PyYAML's own loaders are not safe for text that strangers write:
they keep the last of two equal keys, and 100 KB of `[` overflows the C stack and ends the process.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeAlias

from yaml.cyaml import CBaseLoader
from yaml.error import MarkedYAMLError
from yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    StreamEndEvent,
)

from schemas.problem import Path, Problem, quoted
from schemas.scalar import NUMBER_STARTS, RESERVED_WORDS, Refusal, meaning

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What JSON can say. Checked against the JSON Schema before anybody relies on more.
Value: TypeAlias = Any


@dataclass(frozen=True, slots=True)
class Limits:
    """What one file may cost. The defaults are far above every honest file."""

    bytes: int = 1 << 20
    depth: int = 32  #: mappings and lists inside each other
    documents: int = 100
    nodes: int = 200_000
    problems: int = 100  #: told of one file; who sees 100 knows enough


DEFAULT_LIMITS = Limits()


class Mark(NamedTuple):
    """Where a node stands. Lines and columns are 1-based; columns count characters."""

    line: int
    column: int
    key_line: int  #: where its key stands; the same as `line` for what has none
    key_column: int
    text: str | None  #: as written, where the value is an unquoted scalar: 1.10, not 1.1


_NOWHERE = Mark(1, 1, 1, 1, None)


class Document(NamedTuple):
    """One YAML document.

    `marks` always knows the mappings and lists of the first three levels, such as
    ("spec", "variations", 0), and every node if the caller of `read` asked for them or if the file has a
    problem. At `stand_ins` the reader complained: the value there, or below it, is not what is written.
    """

    value: Value
    marks: dict[Path, Mark]
    stand_ins: list[Path]

    def mark(self, path: Path) -> Mark:
        """Where `path` stands, or else the nearest node around it."""
        for length in range(len(path), -1, -1):
            if mark := self.marks.get(path[:length]):
                return mark
        return _NOWHERE


class Reading(NamedTuple):
    """What is in a file: the documents that are not empty, and all problems that could be found.

    `whole` is false if reading had to stop: nothing is known of the rest of the file.
    """

    documents: list[Document]
    problems: list[Problem]
    whole: bool = True


def read(file: str, content: bytes, limits: Limits = DEFAULT_LIMITS, *, marks: bool = False) -> Reading:
    """Reads a YAML file. Never raises: whatever is wrong with the text is in the result.

    `file` is for the problems only. `marks` asks for the position of every node (a third slower).
    """
    if problem := _unfit(file, content, limits):
        return Reading([], [problem], whole=False)
    if not marks:
        # Nearly every file is fine, and a fine one needs neither paths nor positions. At the first sign of
        # trouble the file is read again, with everything that an explanation needs.
        try:
            return Reading(list(_Builder(file, content, limits, explain=False).documents()), [])
        except (_Trouble, MarkedYAMLError):
            pass
    builder = _Builder(file, content, limits, explain=True)
    documents: list[Document] = []
    whole = True
    try:
        documents.extend(builder.documents())
    except _Trouble:
        whole = False
    except MarkedYAMLError as error:
        builder.problems.append(_syntax_problem(file, content, error))
        whole = False
    return Reading(documents, sorted(builder.problems), whole)


class _Trouble(Exception):  # noqa: N818 -- no error: it ends a pass over the text
    """Reading cannot go on, or (when not explaining) should not."""


class _Builder:
    """One pass over one file: libyaml's events in, documents out.

    A method that takes an event uses up all events of that node. Recursion is safe: depth is limited.
    """

    __slots__ = ("_explain", "_file", "_limits", "_marks", "_next", "_nodes", "_stand_ins", "problems")

    def __init__(self, file: str, content: bytes, limits: Limits, *, explain: bool) -> None:
        self._file = file
        self._limits = limits
        self._explain = explain
        self._next: Any = CBaseLoader(content).get_event  # of a loader we use its parser, nothing more
        self._marks: dict[Path, Mark] = {}
        self._stand_ins: list[Path] = []
        self._nodes = 0
        self.problems: list[Problem] = []

    def documents(self) -> Iterator[Document]:
        count = 0
        while (event := self._next()).__class__ is not StreamEndEvent:
            if event.__class__ is not DocumentStartEvent:
                continue
            count += 1
            if count > self._limits.documents:
                self._too_many_documents(event)
            self._marks, self._stand_ins = {}, []
            event = self._next()
            value = self._node(event, event, (), None)
            if value is not None:
                yield Document(value, self._marks, self._stand_ins)

    def _node(self, event: Any, key_event: Any, parent: Path, step: str | int | None) -> Value:
        """The value of a node. `step` leads to it from `parent`; None for the root."""
        kind = event.__class__
        if self._explain:
            self._mark(event, key_event, _path(parent, step))
        if kind is ScalarEvent:
            text = event.value
            if event.tag is not None or event.anchor is not None:
                self._refuse_properties(event, _path(parent, step))
            elif event.implicit[0]:  # unquoted
                if text in RESERVED_WORDS or text[0] in NUMBER_STARTS:
                    value = meaning(text)
                    if value.__class__ is Refusal:
                        self._problem(event, _path(parent, step), *value)
                        return text
                    return value
            elif "\0" in text:
                self._problem(event, _path(parent, step), *_NUL)
            return text
        if kind is AliasEvent:
            self._problem(event, _path(parent, step), *_ALIAS)
            return None
        path = _path(parent, step)
        if len(path) <= 3 and not self._explain:
            self._mark(event, key_event, path)
        if event.tag is not None or event.anchor is not None:
            self._refuse_properties(event, path)
        if len(path) >= self._limits.depth:
            self._too_deep(event, path)
        children = self._mapping(path) if kind is MappingStartEvent else self._list(path)
        self._nodes += len(children)
        if self._nodes > self._limits.nodes:
            self._too_many_nodes(event, path)
        return children

    def _mapping(self, path: Path) -> dict[str, Value]:
        result: dict[str, Value] = {}
        take = self._next
        while (event := take()).__class__ is not MappingEndEvent:
            key = self._key(event, path)
            if key is None:
                self._pass_over(take())
            elif key in result:
                self._duplicate(event, path, key)
                self._pass_over(take())
            else:
                result[key] = self._node(take(), event, path, key)
        return result

    def _list(self, path: Path) -> list[Value]:
        result: list[Value] = []
        take = self._next
        while (event := take()).__class__ is not SequenceEndEvent:
            result.append(self._node(event, event, path, len(result)))
        return result

    def _key(self, event: Any, path: Path) -> str | None:
        """A key, or None where it is beyond guessing what was meant (its value is passed over)."""
        if event.__class__ is not ScalarEvent:
            if event.__class__ is AliasEvent:
                self._problem(event, path, *_ALIAS)
            else:
                self._problem(event, path, *_COMPLEX_KEY)
                self._pass_over(event)
            return None
        text: str = event.value
        if event.tag is not None or event.anchor is not None:
            self._refuse_properties(event, (*path, text))
        elif event.implicit[0]:
            if text == "<<":
                self._problem(event, path, *_MERGE_KEY)
                return None
            if text in RESERVED_WORDS or text[0] in NUMBER_STARTS:
                value = meaning(text)
                if value.__class__ is Refusal:
                    self._problem(event, (*path, text), *value)
                elif value.__class__ is not str:
                    self._problem(event, (*path, text), *_key_is_not_text(text))
        elif "\0" in text:
            self._problem(event, path, *_NUL)
        return text

    def _pass_over(self, event: Any) -> None:
        depth = 0
        while True:
            if isinstance(event, CollectionStartEvent):
                depth += 1
            elif isinstance(event, CollectionEndEvent):
                depth -= 1
            if depth == 0:
                return
            event = self._next()

    def _too_many_documents(self, event: Any) -> NoReturn:
        message = f"A file may hold {self._limits.documents} documents and this is one more"
        self._stop(event, (), "yaml/too-many-documents", message, "split the file")

    def _too_deep(self, event: Any, path: Path) -> NoReturn:
        message = f"This is nested more than {self._limits.depth} levels deep"
        self._stop(event, path, "yaml/too-deep", message, "")

    def _too_many_nodes(self, event: Any, path: Path) -> NoReturn:
        message = f"A file may hold {self._limits.nodes:,} keys and values and this one holds more"
        self._stop(event, path, "yaml/too-many-nodes", message, "split the file")

    def _refuse_properties(self, event: Any, path: Path) -> None:
        if event.tag is not None:
            self._problem(event, path, *_TAG)
        if event.anchor is not None:
            self._problem(event, path, *_ANCHOR)

    def _duplicate(self, event: Any, path: Path, key: str) -> None:
        # Without `_explain` there is no mark, and no message either: `_problem` ends the pass.
        first = self._marks.get((*path, key), _NOWHERE)
        message = f"The key {quoted(key)} appears twice; the first one is on line {first.key_line}"
        self._problem(event, (*path, key), "yaml/duplicate-key", message, "remove one of them")

    def _mark(self, event: Any, key_event: Any, path: Path) -> None:
        start, key_start = event.start_mark, key_event.start_mark
        text = event.value if event.__class__ is ScalarEvent and event.implicit[0] else None
        self._marks[path] = Mark(start.line + 1, start.column + 1, key_start.line + 1, key_start.column + 1, text)

    def _problem(self, event: Any, path: Path, rule: str, message: str, hint: str) -> None:
        if not self._explain:
            raise _Trouble
        if len(self.problems) >= self._limits.problems:
            message = f"This file has more than {self._limits.problems} problems and the rest is not shown"
            rule, hint = "yaml/too-many-problems", ""
        self._stand_ins.append(path)
        mark = event.start_mark
        self.problems.append(Problem(self._file, mark.line + 1, mark.column + 1, path, rule, message + ".", hint))
        if rule == "yaml/too-many-problems":
            raise _Trouble

    def _stop(self, event: Any, path: Path, rule: str, message: str, hint: str) -> NoReturn:
        self._problem(event, path, rule, f"{message}; the rest of the file was not read", hint)
        raise _Trouble


def _path(parent: Path, step: str | int | None) -> Path:
    return () if step is None else (*parent, step)


_ALIAS = Refusal(
    "yaml/alias",
    "Aliases (*name) are not part of the language",
    'write the value out, or quote text that begins with "*"',
)
_ANCHOR = Refusal(
    "yaml/anchor",
    "Anchors (&name) are not part of the language",
    'remove it, or quote text that begins with "&"',
)
_TAG = Refusal("yaml/tag", "Tags (!name) are not part of the language", 'remove it, or quote text that begins with "!"')
_MERGE_KEY = Refusal("yaml/merge-key", "Merge keys (<<) are not part of the language", "write the keys out")
_COMPLEX_KEY = Refusal(
    "yaml/complex-key",
    "A key must be text, and this one is a mapping or a list",
    'quote text that begins with "{" or "["',
)
_NUL = Refusal("yaml/control-character", "Text must not hold the character NUL", "remove it")


def _key_is_not_text(text: str) -> Refusal:
    if not text:
        return Refusal("yaml/key-not-text", "A key is missing before the colon", "write the key")
    return Refusal("yaml/key-not-text", f"A key must be text, and {text} is not", f'write "{text}", with quotes')


# -- files that cannot be read to their end ------------------------------------------------------------------

#: Characters that YAML allows outside quotes, plus the byte order mark, which may only begin the file. The
#: three line breaks of Unicode (NEL, LS, PS) are legal, but YAML 1.1 counts lines by them and editors do not.
_ILLEGAL = re.compile(r"[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_LEGAL_ASCII = bytes([*b"\t\n\r", *range(0x20, 0x7F)])
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_CONFLICT_MARKER = re.compile(rb"^(?:<{7}|>{7})(?: |\r?$)", re.MULTILINE)


def _unfit(file: str, content: bytes, limits: Limits) -> Problem | None:
    """Why the bytes of a file are not worth parsing."""
    if len(content) > limits.bytes:
        message = f"The file has {len(content):,} bytes and {limits.bytes:,} are allowed."
        return Problem(file, 1, 1, (), "yaml/too-large", message, "split the file")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        if content.startswith(_UTF_16):
            message = "The file is UTF-16 and not UTF-8, as Windows and its shell write it."
            return Problem(file, 1, 1, (), "yaml/not-utf-8", message, "save it as UTF-8")
        if b"\0" in content:
            message = "This is a binary file, and no YAML."
            return Problem(file, 1, 1, (), "yaml/binary", message, "remove it, or give it another ending")
        before = content[: error.start].decode()
        hint = "save it as UTF-8"
        return _problem_after(file, before, "yaml/not-utf-8", "The file is not UTF-8 from here on.", hint)
    text = text.removeprefix("\ufeff")
    # Deleting the legal bytes of ASCII text is several times faster than searching for the illegal ones.
    suspicious = not text.isascii() or content.translate(None, _LEGAL_ASCII)
    if suspicious and (illegal := _ILLEGAL.search(text)):
        code = f"{ord(illegal[0]):04X}"
        message = f"The character U+{code} is not allowed here."
        hint = "remove it" if code == "0000" else f'remove it, or write "\\u{code}" inside double quotes'
        return _problem_after(file, text[: illegal.start()], "yaml/control-character", message, hint)
    if (b"<<<<<<<" in content or b">>>>>>>" in content) and (marker := _CONFLICT_MARKER.search(content)):
        message = "This is the marker of a Git merge conflict; the file was not read."
        hint = "resolve the conflict and remove the markers"
        before = content[: marker.start()].decode()
        return _problem_after(file, before, "yaml/merge-conflict", message, hint)
    return None


def _problem_after(file: str, before: str, rule: str, message: str, hint: str) -> Problem:
    lines = re.split("\r\n|\r|\n", before)
    return Problem(file, len(lines), len(lines[-1]) + 1, (), rule, message, hint)


class _Slip(NamedTuple):
    """A mistake that people make, and a part of how libyaml complains of it."""

    complaint: str
    message: str
    hint: str
    at_beginning: bool = False  #: point to where the construct begins, not to where libyaml gave up


_SLIPS = (
    _Slip(
        "found character that cannot start any token",
        "Text cannot begin with this character",
        "quote the text",
    ),
    _Slip("while scanning an alias", 'Text cannot begin with "*"', 'quote it, as in "*/5 * * * *"', True),
    _Slip("while scanning an anchor", 'Text cannot begin with "&"', "quote the text", True),
    _Slip("while scanning a tag", 'Text cannot begin with "!"', "quote the text", True),
    _Slip(
        "mapping values are not allowed",
        'This ": " cannot stand here',
        'check the indentation of the line, or quote text that holds ": "',
    ),
    _Slip("could not find expected ':'", "A key without a colon ends here", 'write "key: value"'),
    _Slip(
        "found unknown escape",
        "This backslash begins no escape that YAML knows",
        "double it, or use single quotes",
    ),
    _Slip(
        "while scanning a quoted scalar",
        "The quotation mark that begins here is not closed",
        "close it",
        True,
    ),
    _Slip("parsing a flow sequence", "The list that begins here is not closed", 'check for "," and "]"', True),
    _Slip("parsing a flow mapping", "The mapping that begins here is not closed", 'check for "," and "}"', True),
    _Slip(
        "parsing a flow node",
        "A value is missing here, or a list or mapping is not closed",
        'check for ",", "]" and "}"',
    ),
    _Slip(
        "while parsing a block mapping",
        "This does not fit into the mapping around it",
        "indent it like the keys beside it; quote a value as a whole or not at all",
    ),
    _Slip(
        "while parsing a block collection",
        "This does not fit into the list around it",
        'begin it with "- ", below the "- " of the items before it',
    ),
)


def _syntax_problem(file: str, content: bytes, error: MarkedYAMLError) -> Problem:
    complaint = f"{error.context or ''} {error.problem or ''}".strip()
    mark = error.problem_mark or error.context_mark
    message, hint = f"This is not YAML ({complaint})", ""
    rule = "yaml/syntax"
    if slip := next((slip for slip in _SLIPS if slip.complaint in complaint), None):
        message, hint = slip.message, slip.hint
        mark = error.context_mark if slip.at_beginning and error.context_mark else mark
    line, column = (mark.line, mark.column) if mark else (0, 0)
    if _character_at(content, line, column) == "\t":
        rule, message, hint = "yaml/tab", "A tab cannot indent YAML", "indent with spaces"
    message += "; the rest of the file was not read."
    return Problem(file, line + 1, column + 1, (), rule, message, hint)


def _character_at(content: bytes, line: int, column: int) -> str:
    lines = re.split("\r\n|\r|\n", content.decode("utf-8-sig"))
    return lines[line][column : column + 1] if line < len(lines) else ""
