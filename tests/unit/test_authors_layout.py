"""Formatting: what is put in order, what its author decides, and that nothing is ever lost."""

from __future__ import annotations

import json
import re
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from reconciler.authors.commented import comments
from reconciler.authors.layout import NotFormattedError, formatted
from schemas.reader import read

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples" / "specs").rglob("*.yaml"))


def written(text: str) -> str:
    return formatted("specs.yaml", dedent(text).encode()).decode()


def unchanged(text: str) -> bool:
    return written(text) == dedent(text)


def values(content: bytes) -> list[str]:
    reading = read("specs.yaml", content)
    assert reading.problems == []
    return [json.dumps(document.value, sort_keys=True) for document in reading.documents]


# -- the order of keys ----------------------------------------------------------------------------------------------


def test_keys_stand_in_the_order_of_the_schema_and_take_their_comments_with_them() -> None:
    assert written("""\
        # At the top of the file, and it stays there.
        spec:
          builds:
            - git_commit: d670460b4b4aece5915caf5c68d12f560a9fe3e4  # the release
              # Whose it is.
              model: churn

              name: churn-1
              git_uri: https://git.example.com/models.git
        api_version: v1
    """) == dedent("""\
        # At the top of the file, and it stays there.
        api_version: v1
        spec:
          builds:
            - name: churn-1
              # Whose it is.
              model: churn
              git_uri: https://git.example.com/models.git
              git_commit: d670460b4b4aece5915caf5c68d12f560a9fe3e4  # the release
    """)


def test_keys_that_people_choose_and_keys_that_nobody_knows_keep_their_order() -> None:
    assert unchanged("""\
        api_version: v1
        spec:
          builds:
            - name: churn-1
              env_vars:
                ZEBRA: a
                ANT: b
              zzz: unknown
              aaa: unknown
    """)


def test_items_of_a_list_keep_their_order() -> None:
    assert unchanged("""\
        api_version: v1
        spec:
          environments:
            - name: b
            - name: a
    """)


def test_what_is_no_spec_has_no_order() -> None:
    assert unchanged("spec: 1\nkind: Deployment\napiVersion: apps/v1\n")


# -- comments and blank lines ---------------------------------------------------------------------------------------


def test_a_comment_belongs_to_what_follows_it_or_to_the_end_of_what_it_is_indented_like() -> None:
    assert unchanged("""\
        api_version: v1
        spec:
          audiences:
            # California.
            - name: california
              priority: 60
              # conditions: to be written

            # New York.
            - name: new-york
            # - name: texas
          # automations: none yet
        # The end.
    """)


def test_a_comment_behind_a_bracket_a_dash_or_a_key_is_kept() -> None:
    assert written("""\
        api_version: v1
        spec:   # all of it
          environments:
          -   # the first
            name: a
            promote_after: [ b, # verified there
              c ]   # both
    """) == dedent("""\
        api_version: v1
        spec:  # all of it
          environments:
            # the first
            - name: a
              promote_after:  # both
                - b  # verified there
                - c
    """)


def test_a_comment_between_a_key_and_its_text_stands_before_the_key() -> None:
    assert written("a:\n  # why\n  text\nb: 1\n") == "# why\na: text\nb: 1\n"


def test_several_blank_lines_are_one_and_a_block_does_not_begin_with_one() -> None:
    assert written("\n\na:\n\n\n  b: 1\n\n\n  c: 2\n\n\n") == "a:\n  b: 1\n\n  c: 2\n"


def test_a_file_of_comments_and_an_empty_file_stay() -> None:
    assert unchanged("# nothing yet\n\n# really\n")
    assert written("") == ""
    assert written("\n\n") == ""


# -- text and lists -------------------------------------------------------------------------------------------------


def test_quotes_are_double_unless_that_would_need_a_backslash() -> None:
    assert written("a: 'x'\nb: '\"x\"'\nc: 'C:\\d'\nd: \"it's\"\n'e': x\n") == (
        'a: "x"\nb: \'"x"\'\nc: \'C:\\d\'\nd: "it\'s"\n"e": x\n'
    )


def test_what_needs_its_quotes_keeps_them() -> None:
    assert unchanged("threshold: \"0.65\"\nversion: '1.10'\n".replace("'", '"'))


def test_numbers_stay_as_they_are_written() -> None:
    assert unchanged("a: 1.10\nb: 0x1F\nc: 1e3\nd: +1\n")


def test_a_list_in_brackets_stays_in_one_line_as_long_as_it_fits() -> None:
    long = ", ".join(f"environment-{number}" for number in range(9))
    assert unchanged("a: [b, {c: 1}]\nd: {}\ne: []\n")
    assert written("a: [ b,\n  c,]\nd: { e : 1 , f: {}}\n") == "a: [b, c]\nd: {e: 1, f: {}}\n"
    assert written(f"a: [{long}]\n").startswith("a:\n  - environment-0\n  - environment-1\n")
    assert written("a:\n  - b\n") == "a:\n  - b\n"


def test_lists_are_indented_below_their_key() -> None:
    assert written("a:\n- b\n-    c:    1\n     d: 2\n-\n  - e\n") == "a:\n  - b\n  - c: 1\n    d: 2\n  - - e\n"


def test_text_over_several_lines_is_wrapped_and_a_long_line_is_left_to_its_author() -> None:
    words = " ".join(["word"] * 40)
    assert unchanged(f"a: {words}\n")
    wrapped = written(f"a:\n  {words[:50].strip()}\n  {words[50:].strip()}\n")
    assert [len(line) <= 120 for line in wrapped.splitlines()] == [True, True]
    assert written('a: "one\n  two"\n') == 'a: "one two"\n'
    assert written("a: one\n\n  two\n") == 'a: "one\\ntwo"\n'


@pytest.mark.parametrize("chomping", ["", "-", "+"])
@pytest.mark.parametrize("style", ["|", ">"])
def test_blocks_of_text_keep_every_line(style: str, chomping: str) -> None:
    text = f"a: {style}{chomping}  # query\n      select *\n        from x\n\n      where y\n\n\nb: 1\n"
    after = written(text)
    assert f"a: {style}{chomping}  # query\n  select *\n    from x\n\n  where y\n" in after
    assert after.endswith("\n\n\nb: 1\n" if chomping == "+" else "y\n\nb: 1\n")
    assert values(after.encode()) == values(text.encode())


def test_a_block_that_begins_with_a_blank_says_where_it_begins() -> None:
    assert written("a:\n    b: |4\n            x\n          y\n") == "a:\n  b: |2\n        x\n      y\n"


def test_a_blank_line_does_not_become_part_of_a_text_that_keeps_its_own() -> None:
    assert (
        written("a: |+\n  x\n\nb:\n  - |+\n    y\n\n  -\n\n    c: 1\n")
        == "a: |+\n  x\n\nb:\n  - |+\n    y\n\n  - c: 1\n"
    )


# -- files ----------------------------------------------------------------------------------------------------------


def test_documents_stay_apart() -> None:
    assert unchanged("# first\n---\na: 1\n---\n# second\nb: 1\n\n---\nc: 1\n")
    assert written("a: 1\n...\n---   # second\nb: 1\n") == "a: 1\n---\n# second\nb: 1\n"


def test_line_ends_are_those_of_the_first_line() -> None:
    assert formatted("x", b"a:   1\r\nb: |\r\n  x\r\nc: 2\n") == b"a: 1\r\nb: |\r\n  x\r\nc: 2\r\n"
    assert formatted("x", b"a:   1\nb: 2\r\n") == b"a: 1\nb: 2\n"


def test_a_byte_order_mark_is_dropped_and_any_language_is_kept() -> None:
    assert formatted("x", "\ufeffä:   'é 漢 😀'   # ü\n".encode()) == 'ä: "é 漢 😀"  # ü\n'.encode()


@pytest.mark.parametrize(
    ("content", "rule", "said"),
    [
        (b"a: &x 1\n", "yaml/anchor", "Anchors"),
        (b"a: *x\n", "yaml/alias", "Aliases"),
        (b"a: yes\n", "yaml/ambiguous-value", "yes"),
        (b"a: 1\na: 2\n", "yaml/duplicate-key", "twice"),
        (b"<<<<<<< HEAD\na: 1\n=======\na: 2\n>>>>>>> branch\n", "yaml/merge-conflict", "merge conflict"),
        (b"a: \xff\n", "yaml/not-utf-8", "not UTF-8"),
        (b"\x00\x01\x02", "yaml/control-character", "U+0000"),
        (b"%YAML 1.2\n---\na: 1\n", "format/left-alone", "Directives"),
    ],
)
def test_what_the_reader_refuses_is_left_alone_and_said(content: bytes, rule: str, said: str) -> None:
    with pytest.raises(NotFormattedError, match=re.escape(said)) as refused:
        formatted("specs/a.yaml", content)
    assert refused.value.problems[0].rule == rule
    assert refused.value.problems[0].file == "specs/a.yaml"


def test_specs_that_are_wrong_by_the_schema_are_formatted_all_the_same() -> None:
    assert written("spec: {varations: 3}\napi_version:   v7\n") == "api_version: v7\nspec: {varations: 3}\n"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_means_the_same_and_keeps_its_comments(path: Path) -> None:
    content = path.read_bytes()
    after = formatted(path.name, content)
    assert values(after) == values(content)
    assert sorted(comments(after.decode())) == sorted(comments(content.decode()))
    assert formatted(path.name, after) == after


# -- whatever people write ------------------------------------------------------------------------------------------

WORDS = st.text("abcxyzé漢 _-.#:/'\"\\{}[]*&!%@0159", min_size=0, max_size=12)
LONG = st.lists(st.sampled_from(["some", "words", "of a", "text  with", "blanks", "and #", "signs:"]), max_size=30)
SCALARS = st.one_of(
    st.integers(-100, 100), st.booleans(), st.none(), WORDS, LONG.map(" ".join), st.sampled_from(["a\nb", " x\n", "\n"])
)
KEYS = st.one_of(
    st.sampled_from(["name", "model", "api_version", "spec", "builds", "variations", "traffic", "weight", "x-y"]), WORDS
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=14,
)
COMMENTS = st.sampled_from(["# a comment", "#no blank", "# with: sign", "#", "# - name: x", '# "quoted', "# é 漢"])
_PLAIN = re.compile(r"[a-z][a-z0-9 ]*[a-z0-9]|[a-z]")


class Author:
    """Somebody who writes YAML in every way but a tidy one."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw

    def chance(self, of: int) -> bool:
        return self._draw(st.integers(0, of - 1)) == 0

    def document(self, tree: Any) -> str:
        lines = [*self.noise(0), *self.block(tree, 0, top=True), *self.noise(0)]
        return "\n".join(lines) + "\n" * self._draw(st.integers(0, 3))

    def noise(self, indent: int) -> list[str]:
        """Blank lines and comments, mostly none."""
        lines = []
        while self.chance(4):
            shift = self._draw(st.integers(0, 3))
            lines.append("" if self.chance(2) else " " * (indent + shift) + self._draw(COMMENTS))
        return lines

    def behind(self) -> str:
        return " " * self._draw(st.integers(1, 3)) + self._draw(COMMENTS) if self.chance(5) else ""

    def block(self, tree: Any, indent: int, *, top: bool = False) -> list[str]:
        blanks = " " * indent
        lines: list[str] = []
        if isinstance(tree, dict) and tree and not self.chance(6):
            for key, value in tree.items():
                lines += self.noise(indent)
                lines += self.entry(f"{blanks}{self.scalar(key, is_key=True)}:", value, indent, may_align=True)
        elif isinstance(tree, list) and tree and not self.chance(6):
            for value in tree:
                lines += self.noise(indent)
                lines += self.entry(f"{blanks}-", value, indent)
        else:
            lines.append(f"{blanks}{self.flow(tree)}{self.behind()}")
        return lines

    def entry(self, head: str, value: Any, indent: int, *, may_align: bool = False) -> list[str]:
        if isinstance(value, str) and value and ("\n" in value or self.chance(8)):
            return self.literal(head, value, indent)
        if not value or not isinstance(value, dict | list) or self.chance(4):
            return [f"{head} {self.flow(value)}{self.behind()}"]
        deeper = indent + self._draw(st.integers(1, 4))
        if may_align and isinstance(value, list) and self.chance(3):
            deeper = indent
        return [head + self.behind(), *self.block(value, deeper)]

    def literal(self, head: str, value: str, indent: int) -> list[str]:
        ending = len(value) - len(value.rstrip("\n"))
        chomping = "-" if ending == 0 else "" if ending == 1 and value.strip("\n") else "+"
        lines = value.split("\n")[: -1 if ending else None]
        return [f"{head} |2{chomping}{self.behind()}", *(" " * (indent + 2) + line if line else "" for line in lines)]

    def flow(self, tree: Any) -> str:
        if isinstance(tree, dict):
            pairs = (f"{self.scalar(key, is_key=True)}: {self.flow(value)}" for key, value in tree.items())
            return f"{{{self.between().join(pairs)}}}"
        if isinstance(tree, list):
            return f"[{self.between().join(map(self.flow, tree))}{', ' if tree and self.chance(4) else ''}]"
        return self.scalar(tree)

    def between(self) -> str:
        return self._draw(st.sampled_from([",", ", ", " ,  "]))

    def scalar(self, value: Any, *, is_key: bool = False) -> str:
        if not isinstance(value, str):
            return json.dumps(value)
        if _PLAIN.fullmatch(value) and value not in ("y", "n", "no", "on", "yes", "off", "true", "null"):
            return value
        if "\n" not in value and self.chance(2):
            return "'" + value.replace("'", "''") + "'"
        return json.dumps(value, ensure_ascii=False)


@st.composite
def texts(draw: st.DrawFn) -> str:
    author = Author(draw)
    return "---\n".join(author.document(tree) for tree in draw(st.lists(TREES, min_size=1, max_size=2)))


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(texts())
def test_nothing_is_lost_and_the_second_time_changes_nothing(text: str) -> None:
    content = text.encode()
    assume(not read("x", content).problems)
    after = formatted("x", content)
    assert values(after) == values(content)
    assert sorted(comments(after.decode())) == sorted(comments(text))
    assert formatted("x", after) == after


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_comments_and_blank_lines_may_be_anywhere_in_a_spec(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(EXAMPLES)).read_text()
    lines = text.split("\n")
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(lines)))
        blanks = " " * data.draw(st.integers(0, 12))
        lines.insert(at, data.draw(st.sampled_from(["", f"{blanks}{data.draw(COMMENTS)}"])))
    content = "\n".join(lines).encode()
    assume(not read("x", content).problems)
    after = formatted("x", content)
    assert sorted(comments(after.decode())) == sorted(comments(content.decode()))
    assert formatted("x", after) == after
