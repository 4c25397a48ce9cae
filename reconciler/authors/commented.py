"""YAML text as a tree that keeps what a reader drops: comments, blank lines, and how each scalar is written. Pure.

Comments are what stands outside the scalars behind a "#": the text has neither anchors, tags nor directives, and is
otherwise what `schemas.reader` accepts. Each comment belongs to the entry that it stands before or behind, or to the
end of the innermost collection that it is indented like.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple, TypeAlias

from yaml.cyaml import CBaseLoader
from yaml.events import (
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    MappingStartEvent,
    ScalarEvent,
    StreamEndEvent,
)


class Comment(NamedTuple):
    """A comment with its "#". `gap`: a blank line stands before it."""

    text: str
    gap: bool


@dataclass(slots=True)
class Scalar:
    """A scalar. `style` is "" where it is unquoted, or one of ' " | >.

    `written` is what stands in the file, from its first character to its last. `column`: of the collection around it,
    from which a block scalar's indentation is counted.
    """

    value: str
    style: str
    written: str
    column: int

    @property
    def is_block(self) -> bool:
        """Whether it is a literal or a folded block."""
        return self.style in ("|", ">")

    @property
    def header_comment(self) -> str:
        """The comment behind the "|" or ">" of a block."""
        _, mark, comment = self.written.partition("\n")[0].partition("#")
        return (mark + comment).rstrip() if self.is_block else ""


@dataclass(slots=True)
class Collection:
    """A mapping or a list. `flow`: it was written in brackets. `ending`: comments behind its last entry."""

    is_mapping: bool
    flow: bool
    entries: list[Entry] = field(default_factory=list)
    ending: list[Comment] = field(default_factory=list)

    def has_comments(self) -> bool:
        """Whether there is a comment somewhere in it."""
        return bool(self.ending) or any(
            entry.leading or entry.trailing or (isinstance(entry.value, Collection) and entry.value.has_comments())
            for entry in self.entries
        )


Node: TypeAlias = Scalar | Collection


@dataclass(slots=True)
class Entry:
    """An entry of a mapping, or an item of a list, which has no key.

    `leading`: the comments before it. `gap`: a blank line stands before its own first line. `trailing`: the comment
    behind its value; of a block, behind its key.
    """

    key: Scalar | None
    value: Node
    leading: list[Comment] = field(default_factory=list)
    gap: bool = False
    trailing: str = ""


@dataclass(slots=True)
class Document:
    """A document of a file. `prologue`: the comments before its `---`, of the first one. `marked`: it has a `---`.

    `leading` are the comments at its top; they stay there. `ending`: those behind a document that is a scalar.
    """

    root: Node
    marked: bool
    prologue: list[Comment] = field(default_factory=list)
    gap: bool = False  #: a blank line stands before its `---`
    leading: list[Comment] = field(default_factory=list)
    leading_gap: bool = False  #: a blank line stands between them and what follows
    ending: list[Comment] = field(default_factory=list)
    trailing: str = ""


class _Found(NamedTuple):
    """A comment that belongs to nobody yet."""

    place: int  #: in the text
    line: int
    column: int
    text: str
    alone: bool  #: on its line


def comments(text: str) -> list[str]:
    """All comments of a text, in order."""
    parser = _Parser(text)
    scalars = (parser.scalar(event, 0) for event in parser.events if isinstance(event, ScalarEvent))
    headers = filter(None, (scalar.header_comment for scalar in scalars))
    return [*(found.text for found in parser.comments), *headers]


def parse(text: str) -> tuple[list[Document], list[Comment]]:
    """The documents of a text that `schemas.reader` accepts (line ends: "\\n"), and the comments after the last one."""
    parser = _Parser(text)
    return list(parser.documents()), parser.before(None)


class _Parser:
    """One pass over the events of a text, with the comments beside them."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._blank = [not line.strip() for line in text.split("\n")]
        self.events: list[Any] = list(_events(text))
        self._at = 0
        self.comments: list[_Found] = list(_comments(text, self.events))
        self._taken = 0
        #: The last line of a block scalar that keeps its line breaks: blank lines there are its own.
        self._kept_line = -1

    def documents(self) -> Iterator[Document]:
        while not isinstance(event := self._take(), StreamEndEvent):
            if isinstance(event, DocumentStartEvent):
                yield self._document(event)

    def _document(self, event: Any) -> Document:
        document = Document(Scalar("", "", "", -1), marked=bool(event.explicit))
        if event.explicit:
            document.prologue = self.before(event.start_mark.index)
            document.gap = self._gap(event.start_mark.line)
        first = self._peek()
        is_block = isinstance(first, CollectionStartEvent) and not first.flow_style
        document.leading = self.before(first.start_mark.index)
        document.leading_gap = bool(document.leading) and self._gap(first.start_mark.line)
        document.root = self._node(-1, lambda: -1)
        if not is_block:
            document.trailing = self._behind()
        end = self._take()
        assert isinstance(end, DocumentEndEvent)
        following = self._peek()
        document.ending = self.before(None if isinstance(following, StreamEndEvent) else following.start_mark.index)
        return document

    def _node(self, column: int, next_column: Callable[[], int]) -> Node:
        """The next node. `column`: of the collection around it; `next_column`: of what follows it, when it is over."""
        event = self._take()
        if isinstance(event, ScalarEvent):
            return self.scalar(event, column)
        if event.flow_style:
            return self._flow(event)
        return self._block(event, column, next_column)

    def scalar(self, event: Any, column: int) -> Scalar:
        start, end = event.start_mark, event.end_mark
        written = self._text[start.index : end.index]
        style = (event.style or "") if not event.implicit[0] else ""
        if style in ("|", ">") and "+" in written.split("\n", 1)[0].split("#")[0]:
            self._kept_line = end.line
        return Scalar(event.value, style, written, column)

    def _block(self, event: Any, around: int, next_column: Callable[[], int]) -> Collection:
        made = Collection(isinstance(event, MappingStartEvent), flow=False)
        column: int = event.start_mark.column

        def behind() -> int:
            # Of the items of a list only their values have a place; their "-" stands in the list's column.
            return next_column() if isinstance(self._peek(), CollectionEndEvent) else column

        while not isinstance(first := self._peek(), CollectionEndEvent):
            line = first.start_mark.line
            leading = self.before(first.start_mark.index)
            entry = Entry(None, _NOTHING, leading, gap=self._gap(line))
            if made.is_mapping:
                entry.key = self.scalar(self._take(), column)
                value = self._peek()
                opens_block = isinstance(value, CollectionStartEvent) and not value.flow_style
                if opens_block:
                    entry.trailing = self._behind(before=value.start_mark.index)
                else:
                    entry.leading += self.before(value.start_mark.index)
            entry.value = self._node(column, behind)
            self._close(entry)
            made.entries.append(entry)
        self._take()
        # A list may stand in the column of its key; what stands there behind it is not the list's.
        level = max(next_column(), around, column - 1)
        limit = self._next_start()
        while (found := self._next_comment()) and found.place < limit and found.column > level:
            made.ending.append(self._take_comment())
        return made

    def _flow(self, event: Any) -> Collection:
        made = Collection(isinstance(event, MappingStartEvent), flow=True)
        while not isinstance(first := self._peek(), CollectionEndEvent):
            entry = Entry(None, _NOTHING, self.before(first.start_mark.index))
            if made.is_mapping:
                entry.key = self.scalar(self._take(), 0)
                entry.leading += self.before(self._peek().start_mark.index)
            entry.value = self._node(0, lambda: -1)
            self._close(entry, before=self._peek().start_mark.index)
            made.entries.append(entry)
        end = self._take()
        made.ending = self.before(end.start_mark.index)
        return made

    def _close(self, entry: Entry, before: int | None = None) -> None:
        """Takes the comment behind an entry, and those that an empty collection leaves over."""
        value = entry.value
        if isinstance(value, Collection):
            if not value.entries:
                entry.leading += value.ending
                value.ending = []
            if not value.flow:
                return
        if isinstance(value, Scalar) and value.is_block:
            entry.trailing = value.header_comment
        else:
            entry.trailing = self._behind(before)

    # -- comments ---------------------------------------------------------------------------------------------------

    def before(self, index: int | None) -> list[Comment]:
        """Takes the comments up to a place of the text; None: all that are left."""
        taken = []
        while (found := self._next_comment()) and (index is None or found.place < index):
            taken.append(self._take_comment())
        return taken

    def _behind(self, before: int | None = None) -> str:
        """Takes the comment on the line where the last event has ended, up to a place of the text."""
        found = self._next_comment()
        last = self.events[self._at - 1].end_mark
        if found is None or found.alone or found.line != last.line or (before is not None and found.place >= before):
            return ""
        return self._take_comment().text

    def _next_comment(self) -> _Found | None:
        return self.comments[self._taken] if self._taken < len(self.comments) else None

    def _take_comment(self) -> Comment:
        found = self.comments[self._taken]
        self._taken += 1
        return Comment(found.text, found.alone and self._gap(found.line))

    def _gap(self, line: int) -> bool:
        return line > 0 and self._blank[line - 1] and line != self._kept_line

    def _next_start(self) -> int:
        """Where the next thing begins that is no end."""
        following = next(event for event in islice(self.events, self._at, None) if not isinstance(event, _ENDS))
        return int(following.start_mark.index)

    # -- events -----------------------------------------------------------------------------------------------------

    def _peek(self) -> Any:
        return self.events[self._at]

    def _take(self) -> Any:
        event = self.events[self._at]
        self._at += 1
        return event


_NOTHING = Scalar("", "", "", 0)
_ENDS = (CollectionEndEvent, DocumentEndEvent)


def _events(text: str) -> Iterator[Any]:
    take = CBaseLoader(text).get_event
    while True:
        event = take()
        yield event
        if isinstance(event, StreamEndEvent):
            return


def _comments(text: str, events: list[Any]) -> Iterator[_Found]:
    line, counted = 0, 0
    for start, end in _gaps(text, events):
        for match in _COMMENT.finditer(text, start, end):
            index = match.start()
            line += text.count("\n", counted, index)
            counted = index
            begin = text.rfind("\n", 0, index) + 1
            yield _Found(index, line, index - begin, match[0].rstrip(), not text[begin:index].strip())


#: Between scalars, where nothing but blanks, indicators and comments is.
_COMMENT = re.compile("#.*")


def _span(event: Any) -> tuple[int, int]:
    return event.start_mark.index, event.end_mark.index


def _gaps(text: str, events: list[Any]) -> Iterator[tuple[int, int]]:
    """The parts of the text between its scalars."""
    at = 0
    for scalar in events:
        if isinstance(scalar, ScalarEvent):
            start, end = _span(scalar)
            yield at, start
            at = end
    yield at, len(text)
