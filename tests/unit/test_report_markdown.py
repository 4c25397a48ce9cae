"""The comment on a pull request: what it says, what is left out first, and that no text of a spec is obeyed.

cmarkgfm is GitHub's own renderer. What GitHub does after it, with the text of the page, is in `ACTIVE`.
"""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import cmarkgfm
import pytest
from cmarkgfm.cmark import Options
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler import plan
from reconciler.diff import FieldChange
from reconciler.plan import SUSPENDED, Change, Guard, Op
from reconciler.report import Base, Done, Effect, Outcome, Report, Told, Topic, Trouble, gfm, markdown
from reconciler.report.shortened import quoted
from reconciler.report.text import by_importance, clean
from renderers.manifest import ObjectId, Origin
from schemas.problem import Problem
from tests.sample_report import COMMIT, CREATED, GUARD, a_manifest, an_object, of_a_run, of_nothing
from tests.sample_report import of_a_pull_request as pull_request

COMMAND = "reconcile --dry-run --base main"

#: What GitHub, and GitLab, make of plain text after Markdown: people, issues, commits, addresses, emoji, formulas.
ACTIVE = re.compile(
    r"@|#|://|www\.|\$|~|`|\bgh-\d|\b[a-z]+-\d|\b[0-9a-f]{7,}|:[\w+-]+:|\[|\]|!\d|&\w|%\w|\*|\\|/", re.IGNORECASE
)
OURS = {"h3", "h4", "p", "ul", "li", "strong", "code", "pre", "details", "summary"}


class Page(HTMLParser):
    """What a browser makes of the comment."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.plain, self.coded, self.comments = "", "", []
        self._open: list[str] = []
        self.feed(cmarkgfm.github_flavored_markdown_to_html(source, options=Options.CMARK_OPT_UNSAFE))

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self._open.append(tag)

    def handle_endtag(self, tag):
        self._open.pop()

    def handle_data(self, data):
        if {"code", "pre"} & set(self._open):
            self.coded += data
        else:
            self.plain += data

    def handle_comment(self, data):
        self.comments.append(data)

    @property
    def text(self) -> str:
        return self.plain + self.coded


def shown(report: Report, limit: int = markdown.COMMENT_LIMIT) -> str:
    return markdown.report(report, command=COMMAND, limit=limit)


class TestWhatItSays:
    def test_the_first_line_is_the_mark_by_which_a_comment_is_found_again(self):
        assert shown(of_nothing()).splitlines()[0] == "<!-- trueup:plan -->"

    def test_the_headline_counts_what_matters(self):
        assert shown(pull_request()).splitlines()[1] == (
            "### Trueup: **2 errors**; **1 limit reached**; 5 effects in 2 environments; "
            "objects: 1 to create, 1 to change, 1 refused, 1 held"
        )

    def test_a_pull_request_that_changes_nothing_says_so(self):
        page = shown(of_nothing())
        assert "### Trueup: nothing changes\n" in page
        assert "Compared with `main` at `3f9a1c2e77aa`: 1 file differs." in page

    def test_valid_specs_are_called_valid(self):
        assert "### Trueup: the specs are valid\n" in shown(Report())

    def test_an_error_names_its_place_and_what_to_write_instead(self):
        assert (
            "- **error** at `specs/churn.yaml:7:12`: The weight 140 is more than 100. "
            "Try: write a number from 0 to 100. `schema/range`\n" in shown(pull_request())
        )

    def test_the_most_important_effect_stands_first_and_effects_stand_with_their_model(self):
        page = shown(pull_request())
        removed = "- `fraud`: **removed:** nobody answers predictions any more: variation default goes"
        assert 0 < page.index("**`production`**") < page.index(removed) < page.index("- `churn`: everybody else")
        assert page.index("- `churn`: everybody else") < page.index("**`staging`**") < page.index("**In general**")

    def test_a_limit_names_the_command_that_lifts_it(self):
        assert "If that is meant: `reconcile --approve 5d2a91bc0e7f`" in shown(of_a_run())
        against = "If that is meant: `reconcile --dry-run --base origin/main --approve 5d2a91bc0e7f`."
        assert f"{against} That lets this check pass." in shown(pull_request())

    @pytest.mark.parametrize(
        ("guard", "words"),
        [
            (Guard("production", "prune/incomplete", "not all specs could be read"), "No approval lifts it."),
        ],
        ids=[
            "that nobody can lift",
        ],
    )
    def test_a_limit(self, guard, words):
        report = Report(plan=plan.assemble([], guards=[guard]), base=Base("main", COMMIT))
        assert words in shown(report)

    def test_what_a_policy_says_stands_apart_behind_the_limits(self):
        page = shown(pull_request())
        assert page.index("#### Limits") < page.index("#### Policy") < page.index("production needs at least two pods")

    def test_objects_are_folded_by_environment_with_their_differences(self):
        page = shown(pull_request())
        assert (
            "<details><summary>Objects of <code>production</code>: 1 to create, 1 to change, 1 held</summary>" in page
        )
        assert "- metadata.labels[team]: growth\n" in page
        assert '+     trueup.dev/model: "churn"\n' in page

    def test_of_a_route_that_moves_between_builds_the_sentence_stands_for_its_rules(self):
        page = shown(pull_request())
        assert "default: build `840e4d8f` 95 % -&gt; 75 %" in page
        assert "spec.rules" not in page

    def test_notes_stand_with_the_objects_of_their_environment(self):
        assert "- note: routing mode of churn in production: native\n" in shown(pull_request())

    def test_why_objects_are_held_is_said_once(self):
        changes = [Change(Op.DELETE, an_object("Service", name, "v1"), "a", held="of *this*") for name in "bcd"]
        page = shown(Report(plan=plan.assemble(changes)))
        assert page.count("of `*this*`") == 1
        assert "- delete `Service b`; held\n" in page
        other = replace(changes[0], held="of that")
        page = shown(Report(plan=plan.assemble([*changes, other])))
        assert "held 1: of `*this*`\n\nheld 2: of that\n" in page
        assert "- delete `Service b`; held 1\n" in page

    def test_what_happens_in_several_places_alike_is_told_once(self):
        effects = [Effect(place, model, Topic.TRAFFIC, "x") for place in "abc" for model in ("m", "n")]
        assert "**`a`, `b`, `c`**\n\n- `m`, `n`: x\n\n" in shown(Report(effects=tuple(effects)))

    def test_a_statement_is_code_whatever_is_in_it(self):
        statement = "select `a*b`, '<b>' from t | where x > 1 -- @octocat"
        effect = Effect("a", "m", Topic.GATE, f"above the answer of {quoted(statement)}; before, above 1")
        page = Page(shown(Report(effects=(effect,))))
        assert statement in page.coded
        assert "above the answer of ; before, above 1" in page.plain

    def test_a_credential_in_a_new_object_is_hidden(self):
        page = shown(pull_request())
        assert '+           value: "(hidden)"\n' in page
        assert "hunter2" not in page

    def test_unchanged_and_suspended_objects_are_not_listed(self):
        changes = [Change(Op.UNCHANGED, CREATED.id, "a"), Change(Op.CREATE, CREATED.id, "b", held=SUSPENDED)]
        assert "<details>" not in shown(Report(plan=plan.assemble(changes)))

    def test_a_run_tells_what_was_not_done_and_why(self):
        page = shown(of_a_run())
        assert "1 applied, 1 failed, 1 blocked" in page.splitlines()[1]
        assert "- **failed** `HTTPRoute/prod/churn` in `production`: the server refused it:" in page
        assert "- `staging`: `https://10.0.0.1:6443` does not answer: connection refused\n" in page


# -- room -----------------------------------------------------------------------------------------------------------


def large(number: int) -> Report:
    """So many of everything."""
    errors = [Problem("specs/a.yaml", n + 1, 1, (), "schema/type", f"number {n} is wrong") for n in range(number)]
    effects = [Effect("production", f"m{n}", Topic.TRAFFIC, f"default: {n} % -> 5 %") for n in range(number)]
    objects = [ObjectId("apps/v1", "Deployment", "prod", f"deployment-number-{n}") for n in range(number)]
    fields = tuple(FieldChange(f"spec.template.field{n}", n, n + 1) for n in range(8))
    changed = [Change(Op.CHANGE, one, "production", fields=fields) for one in objects]
    new = [
        Change(Op.CREATE, one, "production", manifest=a_manifest(one, args=["x" * 50] * 5))
        for one in (target._replace(name=f"new-{target.name}") for target in objects)
    ]
    return Report(tuple(errors), plan.assemble([*changed, *new], guards=[GUARD]), effects=tuple(effects))


#: How much there is of each kind; the most important first.
KINDS = (
    ("error", lambda page: page.count("is wrong")),
    ("effect", lambda page: page.count("- `m")),
    ("object", lambda page: page.count("Deployment ")),
    ("field list", lambda page: page.count("+ spec.template.field0:")),
    ("manifest", lambda page: page.count("+ kind:")),
)
TOTALS = {"error": 60, "effect": 60, "object": 120, "field list": 60, "manifest": 60}


class TestRoom:
    def test_all_of_it_is_there_while_there_is_room(self):
        page = shown(large(20))
        assert "Left out" not in page
        assert page.count("+ kind:") == 20

    @pytest.mark.parametrize("limit", [3_000, 6_000, 12_000, 20_000, 40_000, 65_000])
    def test_the_least_important_is_left_out_first_and_counted(self, limit):
        page = shown(large(60), limit)
        assert len(page.encode()) <= limit
        kept = {noun: count(page) for noun, count in KINDS}
        for noun, number in kept.items():
            missing = TOTALS[noun] - number
            assert not missing or re.search(rf"\b{missing} {noun}s?\b", page.splitlines()[-1])
        # All that comes before the first that is cut is whole; nothing that comes after it is there.
        cut = next(index for index, (noun, _) in enumerate(KINDS) if kept[noun] < TOTALS[noun])
        assert all(kept[noun] == 0 for noun, _ in KINDS[cut + 1 :])
        assert f"All of it: `{COMMAND}`" in page

    def test_it_ends_as_a_whole_wherever_it_is_cut(self):
        for limit in range(3_000, 30_000, 1_700):
            page = Page(shown(large(60), limit))
            assert set(page.tags) <= OURS
            assert not page._open

    def test_a_comment_of_wide_characters_fits_in_bytes_too(self):
        effects = tuple(Effect("本番", f"モデル{n}", Topic.TRAFFIC, "😀全員 " * 50) for n in range(500))
        assert len(shown(Report(effects=effects)).encode()) <= 65_536

    def test_a_field_of_a_novel_takes_no_more_than_a_line(self):
        change = Change(Op.CHANGE, CREATED.id, "production", fields=(FieldChange("spec.x", "a" * 100_000, "b"),))
        assert len(shown(Report(plan=plan.assemble([change])))) < 2_000

    def test_a_command_that_is_too_long_to_be_read_is_described(self):
        page = markdown.report(large(60), command="reconcile " + "-f x " * 100, limit=5_000)
        assert "All of it: the same command with `-o text`" in page

    def test_what_has_no_room_is_not_even_rendered(self):
        class Unread(dict):
            def get(self, *_):
                pytest.fail("rendered, and there was no room")

        new = a_manifest(CREATED.id)
        changes = [Change(Op.CREATE, CREATED.id, "production", manifest=replace(new, body=Unread(new.body)))] * 200
        assert "200 manifests" in shown(Report(plan=plan.Plan(tuple(changes))), 4_000)


# -- what others wrote ----------------------------------------------------------------------------------------------

EVIL = (
    "@octocat", "@org/team", "#1", "GH-1", "org/repo#1", "3f9a1c2e77aa90c7", "deadbeef", "user/repo@3f9a1c2e77",
    "https://evil.example/x.png", "www.evil.example", "evil@example.com", "<https://evil.example>", ":smile:", "$x$",
    "$`x`$", "![x](https://evil.example/x.png)", "[x](javascript:alert(1))", "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>", "<!--", "-->", "</details>", "</summary>", "```", "~~~", "````diff", "| a | b |",
    "|--|--|", "---", "===", "# x", "> x", "> [!NOTE]", "- [ ] x", "1. x", "1)", "* x", "+ x", "**x**", "__x__",
    "~~x~~", "`x`", "``", "\\`", "\\", "&lt;script&gt;", "&#64;octocat", "&commat;octocat", "[^1]", "[^1]: x",
    "[x]: https://evil.example", "\n\n", "\r\n", "\n    code", "\t", "\x1b[2J", "\x00", "\u202e", "\u2066", "\u200b",
    "\u2028", "\ud800", "!123", "~label", "%1", "&1", "$1", "!", "[", "]", "(", ")", "{{x}}", "{% x %}", "ABC-123",
    "x" * 300, "😀", "e\u0301", "日本語", "100.", "it's", "re-built", "->", "<-", "<", "&",
)  # fmt: skip
wild = st.lists(st.sampled_from(EVIL) | st.text(max_size=6), max_size=6).flatmap(
    lambda parts: st.sampled_from(["", " ", "\n"]).map(lambda joint: joint.join(parts))
)


def as_shown(text: str) -> str:
    return " ".join(clean(word) for word in text.split())


class TestProse:
    @given(wild)
    @settings(max_examples=300, deadline=None)
    def test_every_word_is_shown_and_none_is_obeyed(self, text):
        page = Page(gfm.prose(text))
        assert set(page.tags) <= {"p", "code"}
        assert page.tags.count("p") <= 1
        assert not ACTIVE.search(page.plain.replace("&", "").replace("->", ""))
        if len(text) < gfm.LONGEST_PROSE and all(len(word) < gfm.LONGEST_CODE for word in text.split()):
            rendered = []
            collect(gfm.prose(text), rendered)
            # Of what is written as code, the marks of its ends are not shown.
            assert bare("".join(rendered)) == bare(as_shown(text))

    @pytest.mark.parametrize("text", EVIL)
    def test_at_the_beginning_of_a_list_s_item(self, text):
        page = Page(f"- {gfm.prose(text)}\n")
        assert page.tags.count("li") == 1
        assert set(page.tags) <= {"ul", "li", "code"}

    @pytest.mark.parametrize(
        ("text", "written"),
        [
            ("default moves from build a to build b, as a canary of 5, 25 and 50 %.", None),
            ("it's re-built (twice)", None),
            ("build 3f9a1c2e is built", "build `3f9a1c2e` is built"),
            ("90 % -> 50 %", "90 % -&gt; 50 %"),
            ("says @octocat, of org/repo#1.", "says `@octocat`, of `org/repo#1`."),
            ("memory 2Gi -> 4Gi", "memory 2Gi -&gt; 4Gi"),
            ("the answer of `select max(a) * 2 from t`; before, 3", None),
            ("`` select `a` | <b> ``, and *c*", "``select `a` | <b>``, and `*c*`"),
            ("it has `drift: report`, so (`it`) stays", None),
            ("`a``b` `c", "```a``b``` `` `c ``"),
            ("a`b c`d", "``a`b`` ``c`d``"),
        ],
    )
    def test_a_sentence_stays_one(self, text, written):
        assert gfm.prose(text) == (written or text)


def bare(text: str) -> str:
    return "".join(text.replace("`", "").split())


def collect(source: str, into: list[str]) -> None:
    """The text of a page, plain and coded, in order."""

    class Collector(HTMLParser):
        def handle_data(self, data):
            into.append(data)

    Collector().feed(cmarkgfm.github_flavored_markdown_to_html(source, options=Options.CMARK_OPT_UNSAFE))


class TestCode:
    @given(wild)
    @settings(max_examples=300, deadline=None)
    def test_a_name_is_one_piece_of_code_character_by_character(self, text):
        page = Page(f"x {gfm.code(text)} y")
        assert page.tags == ["p", "code"]
        assert page.plain.strip() == "x  y"
        if len(text) < 20:
            assert page.coded.strip() == clean(" ".join(text.split())).strip()

    @given(st.lists(wild, max_size=5))
    def test_a_block_holds_every_line_and_ends_where_it_should(self, lines):
        cleaned = [clean(line) for line in lines]
        page = Page(f"{gfm.fenced(cleaned, 'diff')}\nend\n")
        assert page.tags == ["pre", "code", "p"]
        assert page.coded == "".join(f"{line}\n" for line in cleaned)


origins = st.builds(Origin, file=wild, line=st.integers(0, 9), kind=wild, name=wild)
targets = st.builds(ObjectId, api_version=st.just("v1"), kind=wild, namespace=wild, name=wild)
problems = st.builds(
    Problem,
    wild,
    st.integers(1, 9),
    st.integers(1, 9),
    st.just(()),
    wild,
    wild,
    wild,
    st.sampled_from(["error", "warning"]),
)
values = st.none() | wild | st.dictionaries(wild.filter(str.isprintable), st.integers(), max_size=2)
fields = st.lists(st.builds(FieldChange, wild, values, values), max_size=3).map(tuple)
changes = st.builds(
    Change,
    op=st.sampled_from([op for op in Op if op is not Op.UNCHANGED]),
    id=targets,
    environment=wild,
    origin=st.none() | origins,
    fields=fields,
    reason=wild,
    held=wild,
    supersedes=st.none() | targets,
    traffic=st.none() | st.lists(wild, max_size=2).map(tuple),
)
effects = st.builds(Effect, wild, wild, st.sampled_from(Topic), wild, st.none() | origins)
guards = st.builds(Guard, wild, wild, wild, st.just("") | st.just("5d2a91bc0e7f"))
reports = st.builds(
    Report,
    problems=st.lists(problems, max_size=3).map(tuple),
    plan=st.builds(
        plan.Plan,
        changes=st.lists(changes, max_size=4).map(tuple),
        guards=st.lists(guards, max_size=2).map(tuple),
        id=st.just("5d2a91bc0e7f"),
    ),
    done=st.lists(st.builds(Done, changes, st.sampled_from(Outcome), wild), max_size=2).map(tuple),
    trouble=st.lists(st.builds(Trouble, wild, wild), max_size=2).map(tuple),
    told=st.lists(st.builds(Told, wild, wild), max_size=2).map(tuple),
    base=st.none()
    | st.builds(Base, wild, wild, st.lists(wild, max_size=2).map(tuple), st.lists(problems, max_size=2).map(tuple)),
    effects=st.lists(effects, max_size=4).map(tuple),
)


@given(reports)
@settings(max_examples=40, deadline=None)
def test_whatever_others_wrote_the_page_is_ours(report):
    assert report.plan is not None
    page = Page(shown(report))
    assert set(page.tags) <= OURS
    assert page.comments == [" trueup:plan "]
    assert not page._open
    assert not ACTIVE.search(page.plain.replace("&", "").replace("->", ""))
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u200b-\u200f\u2028-\u202e\u2066-\u2069]", page.text)
    failed = [done for done in report.done if done.outcome not in (Outcome.APPLIED, Outcome.DELETED)]
    told = [one for _, models in by_importance(report.effects) for _, theirs in models for one in theirs]
    listed = (report.problems, failed, report.trouble, report.plan.guards, report.told, told)
    in_base = report.base.problems if report.base else ()
    assert page.tags.count("li") == sum(map(len, listed)) + len(in_base) + len(report.plan.changes)
