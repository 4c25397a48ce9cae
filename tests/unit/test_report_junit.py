"""JUnit XML: a test case for each spec, and nothing in it that XML forbids."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
import xmlschema
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler import plan
from reconciler.plan import Change, Op
from reconciler.report import Done, Effect, Outcome, Report, Topic, Trouble, junit
from tests.sample_report import CHURN, CREATED, ERROR, FRAUD, WARNING, of_a_pull_request, of_a_run, of_nothing

SCHEMA = xmlschema.XMLSchema(Path(__file__).parents[1] / "golden" / "outputs" / "junit.xsd")


def cases(report, *specs):
    """(suite, case) -> the element, where these specs are valid."""
    root = ElementTree.fromstring(junit.report(replace(report, specs=specs)))
    return {(suite.get("name"), case.get("name")): case for suite in root for case in suite}


@pytest.mark.parametrize("report", [of_a_pull_request(), of_a_run(), of_nothing(), Report()], ids=range(4))
def test_a_document_fits_what_the_readers_take(report):
    SCHEMA.validate(junit.report(report))


def test_a_valid_spec_is_a_case_that_passes():
    assert len(cases(Report(), CHURN)["specs/churn.yaml", "variation churn/default"]) == 0


def test_an_error_is_a_failure_of_its_spec_with_its_place_and_its_fix():
    failure = cases(Report((ERROR,)), CHURN)["specs/churn.yaml", "variation churn/default"].find("failure")
    assert failure.get("type") == "schema/range"
    assert failure.get("message") == (
        "specs/churn.yaml:7:12: The weight 140 is more than 100. Write a number from 0 to 100."
    )


def test_all_problems_of_a_spec_are_in_one_failure():
    second = replace(ERROR, line=9, message="This is wrong too.")
    failure = cases(Report((ERROR, second)), CHURN)["specs/churn.yaml", "variation churn/default"].find("failure")
    assert failure.get("message").endswith("(and 1 more problem)")
    assert len(failure.text.splitlines()) == 2


def test_a_spec_that_could_not_be_read_is_called_by_its_place():
    assert list(cases(Report((ERROR,)))) == [("specs/churn.yaml", "variations[0]")]


def test_of_a_file_with_several_documents_the_spec_around_the_problem_is_meant():
    second = CHURN._replace(line=30, name="churn/other")
    late = replace(ERROR, line=33)
    found = cases(Report((late,)), CHURN, second)
    assert found["specs/churn.yaml", "variation churn/other"].find("failure") is not None
    assert found["specs/churn.yaml", "variation churn/default"].find("failure") is None


def test_a_warning_fails_nothing_and_is_told():
    case = cases(Report((WARNING,)), CHURN)["specs/churn.yaml", "variation churn/default"]
    assert case.find("failure") is None
    assert "looks like a credential" in case.find("system-out").text


def test_what_a_cluster_refuses_fails_in_its_environment():
    case = cases(of_a_pull_request())["environment staging", "variation fraud/default"]
    assert case.find("failure").get("type") == "refused"


def test_what_no_spec_could_mend_is_an_error():
    refused = Change(Op.REFUSED, CREATED.id, "production", FRAUD, reason="no webhook answers", infrastructure=True)
    case = cases(Report(plan=plan.assemble([refused])))["environment production", "variation fraud/default"]
    assert case.find("error") is not None


def test_a_held_change_is_skipped_and_a_limit_fails():
    found = cases(of_a_pull_request())
    assert found["environment production", "asked for by no spec any more"].find("skipped") is not None
    assert "--approve 5d2a91bc0e7f" in found["environment production", "limit prune/all"].find("failure").get("message")


def test_a_cluster_that_does_not_answer_is_an_error():
    assert cases(of_a_run())["clusters", "staging"].find("error").get("message").startswith("https://10.0.0.1")


def test_offline_there_are_no_environments_to_tell_of():
    offline = plan.assemble([replace(CREATED, manifest=None)], offline=True)
    assert {suite for suite, _ in cases(Report(plan=offline))} == {"specs/churn.yaml"}


def test_counts_are_of_cases():
    root = ElementTree.fromstring(junit.report(of_a_run()))
    for suite in root:
        assert int(suite.get("tests")) == len(suite)
        for tag, counted in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
            assert int(suite.get(counted)) == len(suite.findall(f"testcase/{tag}"))


wild = st.text(st.characters(), max_size=12) | st.sampled_from(
    ["\x00", "\ufffe", "\ud800", "]]>", "<a b='", "&#0;", "\x1b[2J"]
)


@given(wild, wild, wild)
@settings(max_examples=100, deadline=None)
def test_any_text_becomes_a_document_that_can_be_read(name, message, file):
    origin = CHURN._replace(name=name, file=file)
    change = Change(Op.REFUSED, CREATED.id, name, origin, reason=message)
    problem = replace(ERROR, file=file, message=message, rule="a/b")
    done = Done(change, Outcome.FAILED, message)
    report = Report((problem,), plan.Plan((change,)), (done,), (Trouble(name, message),))
    SCHEMA.validate(junit.report(replace(report, specs=(origin,))))


def test_a_spec_of_a_dry_run_that_changes_nothing_is_a_case_that_passes():
    found = cases(of_nothing(), FRAUD)
    assert len(found["specs/fraud.yaml", "variation fraud/default"]) == 0


def test_what_changes_is_told_by_a_case_of_each_model_in_its_environment():
    found = cases(of_a_pull_request())
    case = found["environment staging", "model churn"]
    assert case.find("failure") is None
    assert case.find("system-out").text.splitlines() == [
        "build: build churn-2 (3f9a1c2e) is built, from https://git.example/ml#churn",
        "scaling: default: auto_scale_config.max_replica_count 4 -> 8",
    ]
    assert ("all environments", "model churn") in found


def test_a_model_of_which_nothing_is_known_is_skipped():
    unread = Effect("", "churn", Topic.UNREAD, "not compared: its specs are wrong")
    case = cases(Report(effects=(unread,)))["all environments", "model churn"]
    assert case.find("skipped").get("message") == "not compared: its specs are wrong"
