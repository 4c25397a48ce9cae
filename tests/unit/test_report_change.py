"""What a change of the specs does, as people in a terminal and programs read it."""

from __future__ import annotations

import json

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from reconciler.diff import FieldChange
from reconciler.report import Base, Effect, Report, Topic, columns, machine, text
from tests.sample_report import COMMIT, of_a_pull_request, of_a_run, of_nothing

SCHEMA = json.loads(machine.SCHEMA_FILE.read_text(encoding="utf-8"))


def shown(report: Report, width: int = 80) -> list[str]:
    return list(text.report(report, width=width, color=False))


class TestText:
    def test_what_it_is_compared_with_and_what_it_does_stand_first(self):
        page = shown(of_a_pull_request())
        assert page[:7] == [
            "Compared with origin/main at 3f9a1c2e77aa: 2 files differ.",
            "The base has 1 error; what is broken there counts as absent:",
            "  specs/old.yaml:1:1: The file is no YAML: found a tab.",
            "",
            "production",
            "  fraud",
            "    - nobody answers predictions any more: variation default goes",
        ]

    def test_a_change_without_effect_says_so(self):
        assert shown(of_nothing())[:2] == [
            "Compared with main at 3f9a1c2e77aa: 1 file differs.",
            "No model, environment or automation is changed.",
        ]

    def test_the_most_important_stands_first_at_every_level(self):
        effects = (
            Effect("staging", "a", Topic.SERVING, "1"),
            Effect("staging", "b", Topic.TRAFFIC, "2"),
            Effect("production", "a", Topic.AUDIENCE, "3"),
            Effect("production", "a", Topic.REMOVED, "4"),
        )
        order = [
            (*environments, *models, *(effect.text for effect in theirs))
            for environments, there in text.by_importance(effects)
            for models, theirs in there
        ]
        assert order == [("production", "a", "4", "3"), ("staging", "b", "2"), ("staging", "a", "1")]

    def test_what_happens_in_several_places_alike_is_told_once(self):
        places = [f"cluster-{number}" for number in range(30)]
        words = "not compared: its specs are wrong"
        effects = [Effect(place, model, Topic.UNREAD, words) for place in places for model in "ab"]
        effects.append(Effect("other", "a", Topic.SCALING, "scales"))
        page = shown(Report(effects=tuple(effects)))
        assert page == [
            "",
            "cluster-0, cluster-1, cluster-2, cluster-3, cluster-4, cluster-5, cluster-6,",
            "  cluster-7, cluster-8, cluster-9, cluster-10, cluster-11 and 18 more",
            "  a, b",
            "    ? not compared: its specs are wrong",
            "",
            "other",
            "  a",
            "    · scales",
            "",
        ]

    def test_what_is_about_no_model_or_no_environment_stands_apart(self):
        effects = tuple(Effect(place, model, Topic.TRAFFIC, "x") for place in ("", "p") for model in ("", "m"))
        assert shown(Report(effects=effects)) == [
            *("", "in general", "  · x", "  m", "    · x"),
            *("", "p", "  · x", "  m", "    · x", ""),
        ]

    def test_a_share_stays_with_its_per_cent(self):
        effects = (Effect("production", "churn", Topic.TRAFFIC, "everybody else: default 90 % -> 50 %, b 10 %"),)
        assert not any(line.strip().startswith("%") for line in shown(Report(effects=effects), width=40))

    def test_a_terminal_never_obeys_what_is_told(self):
        base = Base("\x1b[2J", COMMIT)
        effects = (Effect("\x1b]0;x\x07", "\u202e", Topic.TRAFFIC, "\x1b[31m"),)
        assert not {"\x1b", "\x07", "\u202e"} & set("".join(shown(Report(base=base, effects=effects))))

    @pytest.mark.parametrize("width", [80, 60, 40])
    def test_lines_fit_the_terminal(self, width):
        report = of_a_pull_request()
        end = Report(plan=report.plan, done=of_a_run().done, trouble=of_a_run().trouble)
        lines = [*shown(report, width), *text.end(end, width=width, color=False)]
        wide = [line for line in lines if columns.width_of(line) > width]
        # What is there to be copied is whole.
        assert all(line.lstrip().startswith("reconcile ") and "--approve" in line for line in wide)


class TestValues:
    def test_of_two_long_values_the_part_that_differs_is_shown(self):
        old, new = text.values(FieldChange("spec.x", f"{'a' * 1000}1{'b' * 1000}", f"{'a' * 1000}2{'b' * 1000}"))
        assert old.replace("1", "2", 1) == new
        assert old.startswith("…")
        assert old.endswith("… (2001 characters)")

    def test_short_values_are_whole(self):
        assert text.values(FieldChange("spec.x", "", {"a": [1, True]})) == ('""', '{"a":[1,true]}')
        assert text.values(FieldChange("spec.x", None, "\n")) == (None, "\\n")


class TestColumns:
    def test_east_asian_characters_take_two_and_marks_none(self):
        assert columns.width_of("abc") == 3
        assert columns.width_of("モデル") == 6
        assert columns.width_of("e\u0301") == 1

    def test_a_line_breaks_where_the_terminal_is_full(self):
        assert list(columns.wrap("モデル モデル モデル", 14)) == ["モデル モデル", "モデル"]

    def test_a_word_that_is_wider_than_a_line_is_cut_at_a_joint(self):
        assert list(columns.wrap("spec.template.spec.containers", 20, "", "  ")) == [
            "spec.template.spec",
            "  .containers",
        ]
        assert list(columns.wrap("max(container_memory_bytes)", 20)) == ["max(container_", "memory_bytes)"]
        assert list(columns.wrap("specs/variations/churn.yaml", 20, "", "  ")) == ["specs/variations/", "  churn.yaml"]

    def test_spaces_between_words_stay(self):
        assert list(columns.wrap("variation a  specs/a.yaml:3", 80, "  ")) == ["  variation a  specs/a.yaml:3"]

    @given(st.text(max_size=80), st.integers(12, 40), st.sampled_from(["", "  "]), st.sampled_from(["", "    "]))
    def test_nothing_is_lost_and_no_line_is_wider(self, words, width, indent, deeper):
        lines = list(columns.wrap(words, width, indent, deeper))
        assert "".join("".join(lines).split()) == "".join(words.split())
        assert all(columns.width_of(line) <= width for line in lines)


class TestMachine:
    @pytest.mark.parametrize("report", [of_a_pull_request(), of_a_run(), of_nothing(), Report()], ids=range(4))
    @pytest.mark.parametrize("form", ["json", "yaml"])
    def test_a_document_fits_the_published_schema(self, report, form):
        document = yaml.safe_load(machine.report(report, form))
        jsonschema.Draft202012Validator(SCHEMA).validate(document)
        assert document["format_version"] == "1.2"

    def test_the_schema_knows_every_topic_in_order_of_importance(self):
        assert SCHEMA["$defs"]["effect"]["properties"]["topic"]["enum"] == [topic.value for topic in Topic]

    def test_a_document_of_the_version_before_still_fits(self):
        old = json.loads(machine.report(of_a_run(), "json")) | {"format_version": "1.0"}
        jsonschema.validate({key: value for key, value in old.items() if key not in ("base", "effects")}, SCHEMA)

    def test_a_base_and_effects_are_told_whole(self):
        document = json.loads(machine.report(of_a_pull_request(), "json"))
        assert document["base"]["commit"] == COMMIT
        assert document["base"]["files"] == ["specs/churn.yaml", "specs/fraud.yaml"]
        assert document["base"]["problems"][0]["rule"] == "yaml/syntax"
        assert document["effects"][1] == {
            "environment": "production",
            "model": "fraud",
            "topic": "removed",
            "text": "nobody answers predictions any more: variation default goes",
            "origin": None,
        }

    def test_without_a_change_to_tell_of_they_are_empty(self):
        document = json.loads(machine.report(Report(), "json"))
        assert document["base"] is None
        assert document["effects"] == []
