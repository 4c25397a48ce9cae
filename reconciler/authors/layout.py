"""Specs written in one way: the order of their keys, indentation, quotes, lists, blank lines. Pure.

A format that nobody has to think about, and that makes no noise in a pull request. What a person decides stays: a
short list in brackets or one item a line, a text in quotes or without, literal blocks, comments, and a blank line
between things. What was written is never lost: the result must mean the same to our own reader and have the same
comments, or there is none.

Our own, on libyaml's events, because a reordered key takes its comments with it: in the round trip of ruamel.yaml a
comment belongs to the key above it. It also takes a sixth of the time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from reconciler.authors import fields
from reconciler.authors.commented import Collection, Comment, Entry, Node, Scalar, comments, parse
from reconciler.report.quoted_yaml import quoted
from schemas.problem import Path, Problem
from schemas.reader import read

#: Columns of a line. Longer text stays on its line if its author put it there; longer lists get a line for each item.
WIDTH = 120
STEP = 2


class NotFormattedError(Exception):
    """A file is left as it is. `problems`: why."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


def formatted(file: str, content: bytes) -> bytes:
    """The content of a file of specs in the one way to write it. `file` is for the problems only.

    Line ends are those of the first line. Raises NotFormattedError where the reader has something against the text
    (schema and references may be as wrong as they like), or where the result would not mean the same.
    """
    reading = read(file, content)
    if reading.problems:
        raise NotFormattedError(reading.problems)
    text = content.decode("utf-8-sig")
    windows = text.partition("\n")[0].endswith("\r")
    text = re.sub("\r\n|\r", "\n", text)
    if _DIRECTIVE.search(text):
        raise NotFormattedError([_problem(file, "Directives (%YAML) are not formatted.", "remove it")])
    made = _write(text)
    if made == text:  # nearly always: it was formatted before
        return (made.replace("\n", "\r\n") if windows else made).encode()
    # However carefully it is written: nobody should have to trust it.
    again = read(file, made.encode())
    same = not again.problems and _meaning(again.documents) == _meaning(reading.documents)
    if not same or sorted(comments(made)) != sorted(comments(text)):
        message = "It cannot be formatted without a change to what it says; it is left as it is."
        raise NotFormattedError([_problem(file, message, "please report it, with this file")])
    return (made.replace("\n", "\r\n") if windows else made).encode()


def _problem(file: str, message: str, hint: str) -> Problem:
    return Problem(file, 1, 1, (), "format/left-alone", message, hint)


def _meaning(documents: Sequence[Any]) -> list[str]:
    return [json.dumps(document.value, sort_keys=True) for document in documents]


_DIRECTIVE = re.compile(r"\A%|^%(YAML|TAG)\b", re.MULTILINE)


def _write(text: str) -> str:
    documents, rest = parse(text)
    lines: list[str] = []
    for number, document in enumerate(documents):
        if document.marked or number:
            lines += _comment_lines(document.prologue, "")
            if document.gap and lines:
                lines.append("")
            lines.append("---")
        root = document.root
        lines += _comment_lines(document.leading, "")
        lines += [""] if document.leading_gap and not _is_empty(root) else []
        # Only what says that it is of the language has the language's order.
        is_spec = isinstance(root, Collection) and any(e.key and e.key.value == "api_version" for e in root.entries)
        lines += _Writer(in_order=is_spec).root(root, document.trailing)
        lines += _comment_lines(document.ending, "", among=True)
    lines += _comment_lines(rest, "", among=bool(lines))
    return "".join(f"{line}\n" for line in _without_marks(lines))


#: Behind a block that keeps its last line breaks. No line of a text can be this one.
_KEPT = "\0"


def _without_marks(lines: Sequence[str]) -> Iterator[str]:
    """The lines, but for the blank ones that a block before them would take for its own."""
    before = ""
    for line in lines:
        if line != _KEPT and (line or before != _KEPT):
            yield line
        before = line


def _is_empty(node: Node) -> bool:
    return isinstance(node, Scalar) and not node.written


class _Block(NamedTuple):
    """An entry, or all of a collection: the comments above it, whether a blank line is below them, and its lines."""

    above: list[Comment]
    gap: bool
    lines: list[str]


class _Writer:
    """Writes one document. `in_order`: its keys in the order of the schema."""

    def __init__(self, *, in_order: bool) -> None:
        self._in_order = in_order

    def root(self, node: Node, trailing: str) -> list[str]:
        if _is_empty(node):
            return [trailing] if trailing else []
        if isinstance(node, Collection) and not (node.flow and self._fits("", node)):
            return [*([trailing] if trailing else []), *self._below(node, 0, ())]
        return self._valued("", Entry(None, node, trailing=trailing), 0, ())

    def _below(self, node: Collection, indent: int, path: Path) -> list[str]:
        """The lines of a collection, each entry on lines of its own."""
        above, gap, lines = self._block(node, indent, path)
        return [*_comment_lines(above, " " * indent), *([""] if gap and above else []), *lines]

    def _block(self, node: Collection, indent: int, path: Path) -> _Block:
        blanks = " " * indent
        top: list[Comment] = []
        top_gap = False
        lines: list[str] = []
        for index, entry in enumerate(self._sorted(node, path)):
            if entry.key is not None:
                head = f"{blanks}{_one_line(entry.key)}:"
                block = _Block(entry.leading, entry.gap, self._valued(head, entry, indent, (*path, entry.key.value)))
            else:
                block = self._item(entry, indent, (*path, index))
            if index == 0:
                top, top_gap = block.above, block.gap
            else:
                lines += _comment_lines(block.above, blanks, among=True)
                # Between a comment and what it is about, a blank line says that it is about more than that.
                lines += [""] if block.gap else []
            lines += block.lines
        return _Block(top, top_gap, [*lines, *_comment_lines(node.ending, blanks, among=True)])

    def _item(self, entry: Entry, indent: int, path: Path) -> _Block:
        head = " " * indent + "-"
        value = entry.value
        if isinstance(value, Scalar) or not value.entries or self._fits(head, value):
            return _Block(entry.leading, entry.gap, self._valued(head, entry, indent, path))
        # The first entry of the item stands behind the "-": what stands above the one stands above the other.
        inner = self._block(value, indent + STEP, path)
        above = [*entry.leading, *([Comment(entry.trailing, gap=False)] if entry.trailing else [])]
        gap = entry.gap
        if inner.above:
            first = inner.above[0]
            above += [Comment(first.text, gap=gap or first.gap), *inner.above[1:]]
            gap = inner.gap
        return _Block(above, gap, [f"{head} {inner.lines[0].lstrip()}", *inner.lines[1:]])

    def _sorted(self, node: Collection, path: Path) -> list[Entry]:
        if not (self._in_order and node.is_mapping):
            return node.entries
        rank = {name: number for number, name in enumerate(fields.order(path))}
        return sorted(node.entries, key=lambda entry: rank.get(entry.key.value if entry.key else "", len(rank)))

    def _valued(self, head: str, entry: Entry, indent: int, path: Path) -> list[str]:
        """The lines of an entry: `head` with the value behind or below it."""
        value, behind = entry.value, f"  {entry.trailing}" if entry.trailing else ""
        if isinstance(value, Collection):
            if self._fits(head, value):
                return [f"{_joined(head, _inline(value))}{behind}"]
            return [head + behind, *self._below(value, indent + STEP, path)]
        if value.is_block:
            header, body = _block_scalar(value, " " * (indent + STEP))
            return [f"{_joined(head, header)}{behind}", *body]
        lines = _scalar_lines(value, head, " " * (indent + STEP))
        lines[-1] += behind
        return lines

    def _fits(self, head: str, node: Collection) -> bool:
        """Whether a collection stands in one line behind `head`."""
        if not node.entries:
            return True
        return node.flow and not node.has_comments() and len(_joined(head, _inline(node))) <= WIDTH


def _joined(head: str, text: str) -> str:
    return f"{head} {text}" if head and text else head + text


def _comment_lines(found: Sequence[Comment], blanks: str, *, among: bool = False) -> Iterator[str]:
    """Comments, each on its line. `among`: something stands above them, from which a blank line may divide them."""
    for comment in found:
        if comment.gap and among:
            yield ""
        among = True
        yield blanks + comment.text


# -- scalars --------------------------------------------------------------------------------------------------------


def _inline(node: Node) -> str:
    """A node in one line, as in brackets."""
    if isinstance(node, Scalar):
        return _one_line(node)
    if not node.is_mapping:
        return f"[{', '.join(_inline(entry.value) or 'null' for entry in node.entries)}]"
    pairs = (f"{_one_line(entry.key)}: {_inline(entry.value) or 'null'}" for entry in node.entries if entry.key)
    return f"{{{', '.join(pairs)}}}"


def _one_line(scalar: Scalar) -> str:
    written, value = scalar.written, scalar.value
    if scalar.is_block:
        return quoted(value)
    if scalar.style == "'" and value.isprintable() and not set('"\\') & set(value):
        return f'"{value}"'
    if "\n" not in written:
        return written
    return value if not scalar.style and "\n" not in value else quoted(value)


def _scalar_lines(scalar: Scalar, head: str, blanks: str) -> list[str]:
    """A text that was in one line stays in one; one that was in several gets as many as it needs."""
    line = _joined(head, _one_line(scalar))
    if "\n" not in scalar.written or len(line) <= WIDTH:
        return [line]
    # Where a line of text ends, a reader sees one blank. So it may end where there is exactly one.
    first, *words = re.split(r"(?<! ) (?! )", _one_line(scalar))
    lines = [_joined(head, first)]
    for word in words:
        longer = f"{lines[-1]} {word}"
        if len(longer) <= WIDTH:
            lines[-1] = longer
        else:
            lines.append(blanks + word)
    return lines


def _block_scalar(scalar: Scalar, blanks: str) -> tuple[str, list[str]]:
    """The header of a literal or folded block, and its lines."""
    header, _, rest = scalar.written.partition("\n")
    indicators = header[1:].split("#")[0]
    keeps = "+" in indicators
    lines = rest.split("\n")[:-1] if rest.endswith("\n") or keeps else rest.split("\n")
    digits = re.search("[1-9]", indicators)
    if digits:
        margin = max(scalar.column, 0) + int(digits[0])
    else:
        margin = next((len(line) - len(line.lstrip(" ")) for line in lines if line.strip(" ")), 0)
    body = [line[margin:] for line in lines]
    while body and not body[-1] and not keeps:
        body.pop()
    first = next((line for line in body if line), "")
    # Where the text itself begins with a blank, the reader has to be told where it begins.
    digit = str(STEP) if first.startswith(" ") else ""
    # At the end of a file, the last line may lack its line break.
    strips = "-" in indicators or (scalar.value and not scalar.value.endswith("\n"))
    chomping = "-" if strips else "+" if keeps else ""
    return f"{scalar.style}{digit}{chomping}", [
        *(blanks + line if line else "" for line in body),
        *([_KEPT] if chomping == "+" else []),
    ]
