"""The log of a GitHub workflow: annotations within their limits, and no command that a spec wrote."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler import plan
from reconciler.plan import Change, Guard, Op
from reconciler.report import Effect, Report, Topic, Trouble, workflow
from reconciler.report.places import Places
from tests.sample_report import CHURN, CREATED, ERROR, WARNING, of_a_pull_request, of_a_run, of_nothing

PLACES = Places("/work/ml", "/work/ml")


def lines(report: Report, places: Places = PLACES, *, summarised: bool = False) -> list[str]:
    return list(workflow.report(report, places, summarised=summarised))


def commands(report: Report, kind: str = "error|warning|notice") -> list[str]:
    return [line for line in lines(report) if re.match(f"::({kind}) ", line)]


def parsed(line: str) -> tuple[str, dict[str, str], str] | None:
    """As actions/runner reads a line of a log (ActionCommand.cs); None where it is no command."""
    line = line.lstrip()
    if not line.startswith("::") or "::" not in line[2:]:
        return ("legacy", {}, line) if re.search(r"##\[[^]]*\]", line) else None
    info, _, data = line[2:].partition("::")
    name, _, properties = info.partition(" ")
    pairs = (one.split("=", 1) for one in properties.split(",") if "=" in one)
    decoded = {key: decode(value, ("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ",")) for key, value in pairs}
    return name, decoded, decode(data, ("%0D", "\r"), ("%0A", "\n"))


def decode(text: str, *pairs: tuple[str, str]) -> str:
    for written, meant in (*pairs, ("%25", "%")):
        text = text.replace(written, meant)
    return text


def test_an_error_stands_at_its_line_with_what_to_write_instead():
    [line] = commands(Report((ERROR,)))
    assert line == (
        "::error file=specs/churn.yaml,line=7,endLine=7,col=12,title=schema/range::"
        "The weight 140 is more than 100.%0ATry: write a number from 0 to 100"
    )


def test_an_effect_is_a_notice_at_the_spec_that_asks_for_it():
    [notice] = commands(Report(effects=(Effect("production", "churn", Topic.TRAFFIC, "default 5 % -> 10 %", CHURN),)))
    assert parsed(notice) == (
        "notice",
        {"file": "specs/churn.yaml", "line": "4", "endLine": "4", "col": "1", "title": "production: churn"},
        "default 5 % -> 10 %",
    )


@pytest.mark.parametrize("text", ["100 % of a, b: c", "a\nb", "%0A", "%250A", "a::b", "::error::x", "50%25"])
def test_what_is_written_is_what_the_runner_reads(text):
    [line] = commands(Report((replace(ERROR, rule=text, message=text, hint=""),)))
    _, properties, message = parsed(line)
    assert message == text
    assert properties["title"] == text.replace("\n", "\\n")


def test_a_file_outside_of_the_repository_is_told_without_an_annotation_s_place():
    [line] = commands(Report((replace(ERROR, file="/etc/specs.yaml"),)))
    assert "file=" not in line
    assert "::/etc/specs.yaml:7: The weight 140" in line


def test_paths_are_from_the_root_of_the_repository_wherever_the_command_ran():
    found = lines(Report((ERROR,)), Places("/work/ml/teams/a", "/work/ml"))
    assert any("file=teams/a/specs/churn.yaml," in line for line in found)


def test_of_each_kind_ten_are_annotations_and_the_rest_is_in_the_log():
    errors = [replace(ERROR, line=n + 1) for n in range(14)]
    warnings = [replace(WARNING, line=n + 1) for n in range(11)]
    effects = [Effect("production", "churn", Topic.TRAFFIC, f"number {n}") for n in range(12)]
    report = Report((*errors, *warnings), effects=tuple(effects))
    assert [len(commands(report, kind)) for kind in ("error", "warning", "notice")] == [10, 10, 10]
    found = lines(report)
    folded = found[found.index("::group::Not shown as annotations") + 1 : found.index("::endgroup::")]
    assert len(folded) == 4 + 1 + 2
    assert found[-1] == (
        "Trueup: 14 errors, 11 warnings, 12 effects. GitHub shows 10 annotations of a kind for one step; "
        "above, and not among them: 4 errors, 1 warning, 2 effects."
    )


def test_the_most_important_effects_are_the_annotations():
    effects = [Effect("staging", "a", Topic.SCALING, "scales") for _ in range(20)]
    effects.append(Effect("production", "b", Topic.REMOVED, "goes"))
    assert commands(Report(effects=tuple(effects)))[0].endswith("::goes")


def test_what_happens_in_several_places_alike_is_one_annotation():
    effects = tuple(Effect(place, "churn", Topic.TRAFFIC, "moves", CHURN) for place in ("eu", "us"))
    [line] = commands(Report(effects=effects))
    assert parsed(line)[1]["title"] == "eu: churn, us: churn"


def test_what_a_cluster_refuses_and_where_a_limit_is_reached_are_errors():
    titles = [parsed(line)[1]["title"] for line in commands(of_a_pull_request(), "error")]
    assert titles[2:] == ["staging: refused ScaledObject/prod/fraud-default", "production: prune/all"]
    titles = [parsed(line)[1]["title"] for line in commands(of_a_run(), "error|warning")]
    assert titles[0] == "staging"
    assert "production: failed HTTPRoute/prod/churn" in titles
    assert "production: blocked Deployment/prod/fraud-default-90c7c616" in titles


def test_the_plan_is_in_the_log_folded():
    found = lines(of_nothing())
    assert found[0] == "::group::Plan"
    assert "Compared with main at 3f9a1c2e77aa: 1 file differs." in found


def test_the_last_line_says_where_all_of_it_is():
    assert lines(of_nothing(), summarised=True)[-1].endswith("The job's summary has all of it.")


def test_valid_specs_are_one_line():
    assert lines(Report()) == ["Trueup: the specs are valid."]


def test_a_message_is_cut_where_the_runner_would():
    [line] = commands(Report((replace(ERROR, message="x" * 9_000, hint=""),)))
    assert len(parsed(line)[2]) <= 4_096


EVIL = [
    "::set-output name=a::b",
    "  ::error::x",
    "##[add-path]/evil",
    "x ##[error]y",
    "\n::stop-commands::x",
    "\r::x::y",
    "%0A::x::",
]
wild = st.sampled_from(EVIL) | st.text(max_size=8)


@given(wild, wild, wild)
@settings(max_examples=100, deadline=None)
def test_no_text_of_a_spec_becomes_a_command(file, message, name):
    problems = [replace(ERROR, file=file, message=message, rule=name, hint=message, line=n + 1) for n in range(12)]
    origin = CHURN._replace(file=file, name=name)
    change = Change(Op.REFUSED, CREATED.id._replace(name=name), "production", origin, reason=message)
    origins = (origin._replace(line=n + 1) for n in range(12))
    effects = tuple(Effect(name, message, Topic.TRAFFIC, message, one) for one in origins)
    made = plan.assemble([change], guards=[Guard(name, "prune/all", message)])
    report = Report(tuple(problems), made, trouble=(Trouble(name, message),), effects=effects)
    found = [parsed(line) for line in lines(report)]
    names = [one[0] for one in found if one is not None]
    assert names.count("error") == names.count("notice") == 10
    assert set(names) == {"error", "notice", "group", "endgroup"}
    assert not any(ending in line for line in lines(report) for ending in "\r\n\x0b\x0c\x1c\x85\u2028")
