"""The strict YAML reader: what it accepts, what it refuses, and where it says the mistake is."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.problem import Problem
from schemas.reader import Limits, Reading, read
from tests.conftest import examples


def value(text: str | bytes) -> object:
    """The only document of a file without problems."""
    reading = read_text(text)
    assert reading.problems == []
    assert reading.whole
    assert len(reading.documents) == 1
    return reading.documents[0].value


def read_text(text: str | bytes) -> Reading:
    return read("specs.yaml", text.encode() if isinstance(text, str) else text)


def problem(text: str | bytes) -> Problem:
    """The only problem of a file."""
    problems = read_text(text).problems
    assert len(problems) == 1, problems
    return problems[0]


def place(text: str | bytes) -> tuple[str, int, int]:
    found = problem(text)
    return found.rule, found.line, found.column


# -- what is legal -------------------------------------------------------------------------------------------


def test_a_document_reads_as_json_would_say_it() -> None:
    text = """
# a comment
name: churn   # another one
pods: 2
cpu: 0.5
shadow: false
none:
also_none: ~
list: [1, two, {three: 3}]
sql: |
  select 1
folded: >-
  one
  line
quoted: "010"
empty: ""
"""
    assert value(text) == {
        "name": "churn",
        "pods": 2,
        "cpu": 0.5,
        "shadow": False,
        "none": None,
        "also_none": None,
        "list": [1, "two", {"three": 3}],
        "sql": "select 1\n",
        "folded": "one line",
        "quoted": "010",
        "empty": "",
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("-0", 0),
        ("+12", 12),
        ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)),
        ("0x1F", 31),
        (".5", 0.5),
        ("1.", 1.0),
        ("1e3", 1000.0),
        ("-1.5E-3", -0.0015),
        ("TRUE", True),
        ("Null", None),
        ("tRUE", "tRUE"),
        ("yesterday", "yesterday"),
        ("1.2.3", "1.2.3"),
        ("512Mi", "512Mi"),
        ("8080:80", "8080:80"),
        ("1-2", "1-2"),
        ("-", [None]),
        ("--", "--"),
        ("2024-01-02 was a good day", "2024-01-02 was a good day"),
        ("0 8 * * 1-5", "0 8 * * 1-5"),
        ("+", "+"),
        (".", "."),
    ],
)
def test_an_unquoted_scalar_means_what_every_yaml_reader_takes_it_for(text: str, expected: object) -> None:
    result = value(text) if expected is not None else value(f"[{text}]")
    assert result == (expected if expected is not None else [None])
    assert type(result) is type(expected if expected is not None else [])


def test_a_byte_order_mark_windows_line_ends_and_no_final_line_end_are_fine() -> None:
    reading = read_text(b"\xef\xbb\xbfa: 1\r\nb:\r\n  - x")
    assert [document.value for document in reading.documents] == [{"a": 1, "b": ["x"]}]
    assert reading.documents[0].mark(("b",)).key_line == 2


def test_several_documents_are_all_read_and_empty_ones_left_out() -> None:
    reading = read_text("---\na: 1\n---\n# nothing\n---\nb: 2\n...\n---\n")
    assert [document.value for document in reading.documents] == [{"a": 1}, {"b": 2}]


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n", "---\n---\n", "\ufeff"])
def test_a_file_without_content_has_no_documents_and_no_problems(text: str) -> None:
    assert read_text(text) == Reading([], [], whole=True)


def test_text_outside_ascii_is_text() -> None:
    assert value("team: Zürich 🚀\n") == {"team": "Zürich 🚀"}


# -- positions -----------------------------------------------------------------------------------------------


def test_the_first_three_levels_always_have_a_position() -> None:
    document = read_text("spec:\n  variations:\n    - name: a\n      x: {p: {q: 1}}\n    - name: b\n").documents[0]
    assert document.marks[("spec", "variations", 0)][:2] == (3, 7)
    assert document.marks[("spec", "variations", 1)][:2] == (5, 7)
    assert ("spec", "variations", 0, "x") not in document.marks


def test_every_node_has_a_position_on_demand_and_unquoted_scalars_their_text() -> None:
    content = b'a:\n  - 1.10\n  - "q"\nb: {c: true}\n'
    document = read("f", content, marks=True).documents[0]
    assert set(document.marks) == {(), ("a",), ("a", 0), ("a", 1), ("b",), ("b", "c")}
    assert document.marks[("a", 0)] == (2, 5, 2, 5, "1.10")
    assert document.marks[("a", 1)].text is None
    assert document.marks[("b", "c")] == (4, 8, 4, 5, "true")


def test_an_unknown_path_has_the_position_of_the_nearest_node_around_it() -> None:
    document = read("f", b"a:\n  - b: 1\n", marks=True).documents[0]
    assert document.mark(("a", 0, "missing", 3))[:2] == (2, 5)


def test_columns_count_characters_not_bytes() -> None:
    assert place("é: {ü: yes}") == ("yaml/ambiguous-value", 1, 8)


# -- what is refused: every rule, with its place ----------------------------------------------------------------

REFUSED: dict[str, tuple[str | bytes, int, int]] = {
    "yaml/duplicate-key": ("a: 1\nb: 2\na: 3\n", 3, 1),
    "yaml/alias": ("a: *b\n", 1, 4),
    "yaml/anchor": ("a: &b 1\n", 1, 4),
    "yaml/tag": ('a: !!python/object/apply:os.system ["true"]\n', 1, 4),
    "yaml/merge-key": ("a:\n  <<: {b: 1}\n", 2, 3),
    "yaml/complex-key": ("? [a, b]\n: 1\n", 1, 3),
    "yaml/key-not-text": ("1: one\n", 1, 1),
    "yaml/ambiguous-value": ("a: [on]\n", 1, 5),
    "yaml/not-finite": ("a: .nan\n", 1, 4),
    "yaml/integer-too-large": ("a: 9223372036854775808\n", 1, 4),
    "yaml/control-character": ('a: "\\0"\n', 1, 4),
    "yaml/not-utf-8": (b"a: 1\nb: \xff\n", 2, 4),
    "yaml/binary": (b"\x7fELF\x02\x01\x01\x00\x00\xff\n", 1, 1),
    "yaml/merge-conflict": ("a: 1\n<<<<<<< HEAD\nb: 1\n=======\nb: 2\n>>>>>>> feature\n", 2, 1),
    "yaml/tab": ("a:\n\tb: 1\n", 2, 1),
    "yaml/syntax": ("a: [1, 2\nb: 3\n", 1, 4),
    "yaml/too-deep": ("[" * 33, 1, 33),
    "yaml/too-many-documents": ("--- a\n" * 101, 101, 1),
    "yaml/too-many-nodes": ("[" + "1," * 200_001 + "]", 1, 1),
    "yaml/too-large": (b"#" * ((1 << 20) + 1), 1, 1),
}


@pytest.mark.parametrize("rule", REFUSED)
def test_every_rule_names_the_line_and_the_column(rule: str) -> None:
    text, line, column = REFUSED[rule]
    assert place(text) == (rule, line, column)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("yes", 'write true, or "yes", with quotes'),
        ("No", 'write false, or "No", with quotes'),
        ("y", 'write true, or "y", with quotes'),
        ("off", 'write false, or "off", with quotes'),
        ("010", 'write 10, or "010", with quotes'),
        ("-007.50", 'write -7.50, or "-007.50", with quotes'),
        ("0o17", 'write "0o17", with quotes'),
        ("0b11", 'write "0b11", with quotes'),
        ("1_000", 'write "1_000", with quotes'),
        ("2024_01_02", 'write "2024_01_02", with quotes'),
        ("12:30:45", 'write "12:30:45", with quotes'),
        ("22:30", 'write "22:30", with quotes'),
        ("2024-01-02", 'write "2024-01-02", with quotes'),
        ("2024-01-02T03:04:05Z", 'write "2024-01-02T03:04:05Z", with quotes'),
        ("2024-1-2 03:04:05.5 +01:00", 'write "2024-1-2 03:04:05.5 +01:00", with quotes'),
    ],
)
def test_what_yaml_1_1_and_1_2_read_differently_is_refused_with_the_fix(text: str, hint: str) -> None:
    found = problem(f"a: {text}\n")
    assert (found.rule, found.hint, found.path) == ("yaml/ambiguous-value", hint, ("a",))
    assert value(f'a: "{text}"\n') == {"a": text}


@pytest.mark.parametrize(
    ("key", "rule"),
    [
        ("null", "yaml/key-not-text"),
        ("true", "yaml/key-not-text"),
        ("1.5", "yaml/key-not-text"),
        ("? \n", "yaml/key-not-text"),
        ("on", "yaml/ambiguous-value"),
        ("2024-01-02", "yaml/ambiguous-value"),
        (".inf", "yaml/not-finite"),
        ("{a: b}", "yaml/complex-key"),
        ("&a b", "yaml/anchor"),
        ("!!str b", "yaml/tag"),
    ],
)
def test_a_key_is_text(key: str, rule: str) -> None:
    assert place(f"ok: 1\n{key}: 2\n")[:2] == (rule, 2)


@pytest.mark.parametrize("text", [".inf", "-.Inf", "+.INF", ".NaN", "1e999", "-1e999"])
def test_a_number_is_finite(text: str) -> None:
    assert place(f"a: {text}\n")[0] == "yaml/not-finite"


@pytest.mark.parametrize(
    ("content", "column"),
    [(b"a: \x00", 4), (b"a\x07: 1", 2), (b"a: \xe2\x80\xa8b", 4), (b"a: \xc2\x85b", 4), (b"a: \xef\xbb\xbfb", 4)],
)
def test_invisible_characters_are_refused(content: bytes, column: int) -> None:
    assert place(content) == ("yaml/control-character", 1, column)


def test_utf_16_is_refused_as_not_utf_8_and_named() -> None:
    assert place("a: 1\n".encode("utf-16")) == ("yaml/not-utf-8", 1, 1)
    (problem,) = read("x.yaml", "a: 1\n".encode("utf-16")).problems
    assert "UTF-16" in problem.message


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("cron: */5 * * * *\n", 1, 7, "*"),
        ("a: @b\n", 1, 4, "cannot begin"),
        ("a: b: c\n", 1, 5, '": "'),
        ("a: 'b\n", 1, 4, "quotation mark"),
        ('a: "\\d"\n', 1, 5, "backslash"),
        ("a:\n  b: 1\n c: 2\n", 3, 2, "does not fit into the mapping"),
        ("- a\nb: 1\n", 2, 1, "does not fit into the list"),
        ("a: {b: 1\nc: 2\n", 1, 4, "not closed"),
        ("%YAML 2.0\n---\na: 1\n", 1, 1, "not YAML"),
    ],
)
def test_common_slips_are_explained_in_words(text: str, line: int, column: int, message: str) -> None:
    found = [p for p in read_text(text).problems if p.rule == "yaml/syntax"]
    assert [(p.line, p.column) for p in found] == [(line, column)]
    assert message in found[0].message
    assert "the rest of the file was not read" in found[0].message


def test_a_conflict_marker_inside_indented_text_is_text() -> None:
    assert value("a: |\n  <<<<<<< HEAD\n") == {"a": "<<<<<<< HEAD\n"}


# -- one problem does not hide another -------------------------------------------------------------------------


def test_all_problems_of_a_file_are_told_at_once_in_the_order_of_the_file() -> None:
    reading = read_text("a: yes\nb: [010, .nan]\na: 1\n---\nc: *d\n2: x\n")
    assert [(p.rule, p.line, p.pointer) for p in reading.problems] == [
        ("yaml/ambiguous-value", 1, "/a"),
        ("yaml/ambiguous-value", 2, "/b/0"),
        ("yaml/not-finite", 2, "/b/1"),
        ("yaml/duplicate-key", 3, "/a"),
        ("yaml/alias", 5, "/c"),
        ("yaml/key-not-text", 6, "/2"),
    ]
    assert [document.value["b" if "b" in document.value else "2"] for document in reading.documents] == [
        ["010", ".nan"],
        "x",
    ]
    assert reading.whole


def test_a_duplicate_key_names_both_places_and_the_first_value_is_kept() -> None:
    reading = read_text("spec:\n  name: a\n  name: [b, yes]\n")
    assert [p.message for p in reading.problems] == ['The key "name" appears twice; the first one is on line 2.']
    assert reading.documents[0].value == {"spec": {"name": "a"}}


def test_documents_before_a_syntax_error_are_kept_and_the_file_is_not_whole() -> None:
    reading = read_text("a: 1\nb: yes\n---\nc: [\n---\nd: 1\n")
    assert [document.value for document in reading.documents] == [{"a": 1, "b": "yes"}]
    assert [p.rule for p in reading.problems] == ["yaml/ambiguous-value", "yaml/syntax"]
    assert not reading.whole


def test_a_file_full_of_problems_shows_the_first_hundred() -> None:
    reading = read_text("[" + "yes," * 5_000 + "]")
    assert [p.rule for p in reading.problems[:100]] == ["yaml/ambiguous-value"] * 100
    assert [p.rule for p in reading.problems[100:]] == ["yaml/too-many-problems"]
    assert not reading.whole


# -- hostile text ------------------------------------------------------------------------------------------------


def test_an_alias_bomb_is_refused_and_not_expanded() -> None:
    levels = "\n".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 9))
    reading = read_text(f"l0: &l0 lol\n{levels}\n")
    assert {p.rule for p in reading.problems} == {"yaml/alias", "yaml/anchor"}


@pytest.mark.parametrize("unit", ["[", "- ", "{a: ", "? ", "[{a: "])
def test_a_hundred_thousand_levels_neither_crash_nor_hang(unit: str) -> None:
    start = time.process_time()
    reading = read_text(unit * 100_000)
    assert reading.problems
    assert time.process_time() - start < 5


def test_ten_thousand_levels_of_indentation_are_too_deep() -> None:
    text = "\n".join(" " * depth + "a:" for depth in range(1_000))
    assert place(text) == ("yaml/too-deep", 33, 33)


def test_a_hundred_megabytes_are_refused_unread() -> None:
    content = b"a: 1\n" * 20_000_000
    start = time.process_time()
    assert place(content) == ("yaml/too-large", 1, 1)
    assert time.process_time() - start < 0.1


@pytest.mark.parametrize(
    "text",
    [
        "a: 1" + "_" * 1_000_000 + "x",
        "a: " + "9" * 1_000_000,
        "a: 9." + "9" * 1_000_000,
        "a: 2024-01-02" + " " * 1_000_000 + "x",
        "a: 1" + ":5" * 500_000 + "x",
        "<<<<<<< x\n" * 100_000,
        "x\n" * 500_000,
    ],
    ids=["underscores", "digits", "decimals", "date", "base 60", "conflict markers", "lines"],
)
def test_a_long_scalar_costs_no_more_than_reading_it(text: str) -> None:
    start = time.process_time()
    read_text(text)
    assert time.process_time() - start < 3


def test_limits_can_be_widened() -> None:
    deep = b"[" * 40 + b"]" * 40
    assert read("f", deep).problems
    assert not read("f", deep, Limits(depth=40)).problems


# -- properties ----------------------------------------------------------------------------------------------------


@settings(max_examples=examples(300))
@given(st.binary(max_size=400))
def test_random_bytes_are_read_or_refused_but_never_crash(content: bytes) -> None:
    assert_sound(content)


YAML_PIECES = st.lists(
    st.sampled_from(
        [
            *"\n\n\n    -:?,[]{}#&*!|>'\"%@`\\\t\r~\x85\u2028\ufeffé\0",
            *("a", "b: ", "- ", "---\n", "...\n", "<<: ", "yes", "010", "1e5", ".nan", "!!str ", "&x ", "*x"),
            *("|\n ", ">-\n ", '"\\x', "\\u00", "%YAML 1.1\n"),
        ]
    ),
    max_size=60,
).map("".join)


@settings(max_examples=examples(600))
@given(YAML_PIECES)
def test_random_yaml_like_text_is_read_or_refused_but_never_crashes(text: str) -> None:
    assert_sound(text.encode())


def assert_sound(content: bytes) -> None:
    reading = read("f", content)
    assert reading.whole or reading.problems
    lines = content.count(b"\n") + content.count(b"\r") + 1
    for found in reading.problems:
        assert found.message.endswith(".")
        assert 1 <= found.line <= lines + 1
        assert found.column >= 1
    for document in reading.documents:
        json.dumps(document.value, allow_nan=False)
    again = read("f", content, marks=True)
    assert again.problems == reading.problems
    assert [d.value for d in again.documents] == [d.value for d in reading.documents]


#: Every character that YAML can hold unescaped. JSON escapes the others in ways that libyaml partly refuses.
JSON_TEXT = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"], exclude_characters="\u2028\u2029\ufeff\ufffe\uffff"),
    max_size=20,
)
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | JSON_TEXT,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(JSON_TEXT, children, max_size=4),
    max_leaves=20,
)


@settings(max_examples=examples(300))
@given(st.dictionaries(JSON_TEXT, JSON_VALUES, max_size=4), st.sampled_from([None, 2]))
def test_a_json_document_is_a_yaml_document_with_the_same_meaning(document: object, indent: int | None) -> None:
    assert value(json.dumps(document, ensure_ascii=False, indent=indent)) == document
