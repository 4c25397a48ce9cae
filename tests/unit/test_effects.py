"""What a change of the specs does, said as a reviewer would ask it."""

from __future__ import annotations

from textwrap import dedent

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler import effects, queries
from reconciler.report import Topic
from reconciler.review import Review
from reconciler.source.files import Files
from reconciler.specs import parse
from renderers.catalog import Catalog
from tests.conftest import examples
from tests.edited_specs import Editor

BASE = """\
api_version: v1
spec:
  environments:
    - name: staging
    - {name: production, promote_after: staging, prometheus_url: "http://prometheus:9090"}
  audiences:
    - name: california
      conditions: {unary: [{key: location, operator: UNARY_OPERATOR_TYPE_EXACT_MATCH, operand: california}]}
  builds:
    - {name: churn-1, model: churn, git_uri: "REPOSITORY", git_commit: COMMIT, environment: staging}
    - {name: churn-2, model: churn, git_uri: "REPOSITORY", git_branch: main, environment: staging}
  variations:
    - model: churn
      name: default
      environments: [production]
      build: churn-1
      rollout:
        canary:
          steps: [{weight: 10}, {weight: 50}]
          checks: [{name: errors, metric: error_rate, threshold: "1"}]
      traffic: [{audience: california, weight: 90}, {}]
      deployment: {number_of_pods: 2, env_vars: [LOG_LEVEL=info, API_TOKEN=secret.scoring]}
    - model: churn
      name: challenger
      environments: [production]
      build: churn-1
      traffic: [{audience: california, weight: 10}, {weight: 5, shadow: true}]
  automations:
    - name: nightly
      model: churn
      environment: staging
      trigger: {scheduled: {cron: "0 3 * * *"}}
      build_spec: {git_uri: "REPOSITORY", git_branch: main}
      deployment_condition: {metric_name: f1, threshold: "0.9"}
      deployment_spec: {variation_name: trained, environments: [staging]}
""".replace("COMMIT", "a" * 40).replace("REPOSITORY", "https://git.example.com/models#churn")


def catalog(text: str) -> Catalog:
    loaded = parse({"specs.yaml": text.encode()}, queries.check)
    assert not loaded.problems, [str(problem) for problem in loaded.problems]
    return loaded.catalog


def said(*replacements: tuple[str, str], topic: Topic | None = None) -> list[str]:
    """What follows from replacing texts of the base, as `environment/model: sentence`."""
    text = BASE
    for old, new in replacements:
        assert text.count(old) == 1, (text.count(old), old)
        text = text.replace(old, new)
    found = effects.between(catalog(BASE), catalog(text))
    return [f"{one.environment}/{one.model}: {one.text}" for one in found if topic in (None, one.topic)]


def test_specs_that_mean_the_same_do_nothing() -> None:
    reformatted = BASE.replace("{name: staging}", "{ name: 'staging' }").replace(
        "    - name: staging\n", "    - {name: staging}\n"
    )
    assert effects.between(catalog(BASE), catalog(f"# a comment\n{reformatted}")) == ()


def test_another_build_is_a_move_by_way_of_the_canary() -> None:
    (moved,) = said(
        ("name: default\n      environments: [production]\n      build: churn-1",
         "name: default\n      environments: [production]\n      build: churn-2")
    )  # fmt: skip
    assert moved == (
        "production/churn: default moves from build churn-1 (09abfc96) to build churn-2, as a canary of 10 and 50 % of "
        "its requests, checked by errors"
    )


def test_another_commit_is_another_build_where_it_is_built_and_where_it_is_served() -> None:
    found = said(("a" * 40, "b" * 40))
    assert [one.split(": ")[0] for one in found] == ["staging/churn", "production/churn", "production/churn"]
    assert "is built, in place of build churn-1 (09abfc96): git_commit" in found[0]
    assert all("moves from build churn-1 (09abfc96) to build churn-1 (" in one for one in found[1:])


def test_shares_are_told_audience_by_audience() -> None:
    found = said(
        ("{audience: california, weight: 90}, {}", "{audience: california, weight: 70}, {}"),
        ("{audience: california, weight: 10}", "{audience: california, weight: 30}"),
    )
    assert found == ["production/churn: audience california: challenger 10 % -> 30 %, default 90 % -> 70 %"]


def test_a_shadow_gets_copies() -> None:
    found = said(("{weight: 5, shadow: true}", "{weight: 20, shadow: true}"))
    assert found == ["production/churn: everybody else: challenger copies of 5 % -> copies of 20 %"]


def test_an_audience_that_no_route_names_any_more() -> None:
    found = said(("[{audience: california, weight: 90}, {}]", "[{}]"), ("[{audience: california, weight: 10}, ", "["))
    assert found[0] == (
        "production/churn: audience california is not told apart any more (was: challenger 10 %, default 90 %)"
    )


def test_who_is_in_an_audience() -> None:
    (found,) = said(("operand: california", "operand: oregon"))
    assert found == (
        "production/churn: audience california: who is in it changes: no more location exact california; "
        "now location exact oregon"
    )


def test_a_threshold_is_told_with_what_it_was() -> None:
    assert said(('{metric_name: f1, threshold: "0.9"}', '{metric_name: f1, threshold: "0.95"}')) == [
        "staging/churn: nightly: a build is promoted when its f1 is above 0.95; before, when its f1 is above 0.9"
    ]


def test_a_threshold_of_sql_is_a_question() -> None:
    query = "select max(value) from build_metrics where model = :model"
    (found,) = said(('threshold: "0.9"', f"direction: ABOVE_OR_EQUALS, threshold: '{query}'"))
    assert f"a build is promoted when its f1 is at least the answer of {query}; before" in found


def test_a_variation_that_an_automation_implies_takes_the_place_of_one_that_was_written() -> None:
    written = (
        "    - {model: churn, name: trained, environments: [staging], automation: nightly, deployment: {memory: 4Gi}}\n"
    )
    text = BASE.replace("  automations:\n", f"{written}  automations:\n")
    assert [one.text for one in effects.between(catalog(text), catalog(BASE))] == ["trained: memory 4Gi -> 2Gi"]


def test_no_gate_at_all_is_said() -> None:
    (found,) = said(('\n      deployment_condition: {metric_name: f1, threshold: "0.9"}', ""))
    assert "every build that succeeds is promoted" in found


@pytest.mark.parametrize(
    ("trigger", "words"),
    [
        ('{scheduled: {cron: "0 4 * * *", time_zone: Europe/Berlin}}', "at 0 4 * * * (Europe/Berlin)"),
        ("{scheduled: {interval: Daily}}", "daily"),
        ("{scheduled: {interval: 6h}}", "every 6h"),
        ("{git: {paths: [churn, shared]}}", "on new commits that change churn and shared"),
        ("manual", "when a person asks"),
        ('{metric: {sql_query: "select 1", threshold: "3"}}', "when the answer of select 1 is above 3"),
    ],
)
def test_when_it_is_built(trigger: str, words: str) -> None:
    (found,) = said(('{scheduled: {cron: "0 3 * * *"}}', trigger))
    assert f"nightly runs {words}" in found
    assert "; before, at 0 3 * * * (UTC)" in found


def test_pods_and_variables_are_told_by_their_fields_and_what_names_a_credential_is_hidden() -> None:
    found = said(
        ("number_of_pods: 2, env_vars: [LOG_LEVEL=info, API_TOKEN=secret.scoring]",
         "number_of_pods: 3, memory: 4Gi, env_vars: [LOG_LEVEL=debug, API_TOKEN=secret.other]"),
    )  # fmt: skip
    assert found == [
        "production/churn: default: number_of_pods 2 -> 3",
        "production/churn: default: memory 2Gi -> 4Gi",
        "production/churn: default: env_vars.API_TOKEN changes (hidden)",
        "production/churn: default: env_vars.LOG_LEVEL info -> debug",
    ]


def test_scaling_is_a_topic_of_its_own() -> None:
    scaled = (
        "number_of_pods: 2, auto_scale_config: {min_replica_count: 1, max_replica_count: 5, prometheus_trigger: "
        "[{metric_type: cpu, aggregation_type: avg, time_period: 5, threshold: 70}]}"
    )
    (found,) = said(("number_of_pods: 2", scaled), topic=Topic.SCALING)
    assert found.startswith("production/churn: default: auto_scale_config none -> (")


def test_what_goes_comes_first() -> None:
    gone = BASE[: BASE.index("    - model: churn\n      name: challenger")] + BASE[BASE.index("  automations:") :]
    text = gone.replace("{audience: california, weight: 90}", "{audience: california}")
    found = effects.between(catalog(BASE), catalog(text))
    assert found[0].topic is Topic.REMOVED
    assert found[0].text == "variation challenger goes, which serves build churn-1 (09abfc96)"


def test_a_model_that_nobody_answers_for_any_more() -> None:
    text = BASE[: BASE.index("  variations:")] + BASE[BASE.index("  automations:") :]
    assert [one.text for one in effects.between(catalog(BASE), catalog(text))] == [
        "nobody answers predictions any more: variations challenger, default goes"
    ]


def test_an_environment_comes_changes_and_goes() -> None:
    assert said(("    - name: staging\n", "    - name: staging\n    - name: lab\n")) == ["lab/: the environment is new"]
    assert said(("promote_after: staging,", "promote_after: staging, approval: manual,")) == [
        "production/: approval automatic -> manual"
    ]
    more = BASE.replace("    - name: staging\n", "    - name: staging\n    - name: lab\n")
    assert [one.text for one in effects.between(catalog(more), catalog(BASE))] == [
        "the environment goes, with all that runs in it"
    ]


def test_a_new_model_is_told_whole() -> None:
    more = dedent("""\
        api_version: v1
        spec:
          builds:
            - {name: up-1, model: up, git_uri: "https://git.example.com/models#up", git_commit: %s}
          variations:
            - {model: up, environments: [production], build: up-1}
        """) % ("c" * 40)
    loaded = parse({"a.yaml": BASE.encode(), "b.yaml": more.encode()}, queries.check)
    found = [f"{one.environment}: {one.text}" for one in effects.between(catalog(BASE), loaded.catalog)]
    assert found[0].startswith("production: variation default is new, and serves build up-1 (")
    assert found[1] == "production: everybody gets default 100 %"
    assert found[2].endswith(f"is built, from https://git.example.com/models#up at {'c' * 40}")


@settings(max_examples=examples(20), suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data())
def test_a_review_that_follows_its_files_says_what_a_new_one_says(data: st.DataObject) -> None:
    editor = Editor(data)
    base = editor.texts()
    review = Review(Files(base, ()), Files(base, ()), "main", "")
    for _ in range(3):
        editor.commit()
        head = Files(dict(sorted(editor.texts().items())), ())
        review.update(head)
        assert review.report() == Review(Files(base, ()), head, "main", "").report()
