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
    errors = [str(problem) for problem in loaded.problems if problem.severity == "error"]
    assert not errors, errors
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
        "production/churn: audience california is not told apart any more (was: challenger 10 %, default 90 %): "
        "everybody else's shares answer it (default 100 %)"
    )


def test_everybody_else_whom_nobody_answers_any_more() -> None:
    found = said(("weight: 90}, {}]", "weight: 90}]"), ("weight: 10}, {weight: 5, shadow: true}]", "weight: 10}]"))
    assert found == [
        "production/churn: nobody answers everybody else any more (was: challenger copies of 5 %, default 100 %)"
    ]


def test_who_is_in_an_audience() -> None:
    (found,) = said(("operand: california", "operand: oregon"))
    assert found == (
        "production/churn: audience california: who is in it changes: no more location exact california; "
        "now location exact oregon"
    )


def test_an_audience_of_everybody() -> None:
    unary = "unary: [{key: location, operator: UNARY_OPERATOR_TYPE_EXACT_MATCH, operand: california}]"
    (found,) = said((unary, ""))
    assert found.endswith("no more location exact california; now everybody, as no condition is left")
    (found,) = said(("operand: california", "operand: 'a | b'"))
    assert found.endswith("now location exact `a | b`")


def test_a_threshold_is_told_with_what_it_was() -> None:
    assert said(('{metric_name: f1, threshold: "0.9"}', '{metric_name: f1, threshold: "0.95"}')) == [
        "staging/churn: nightly: a build is promoted when its f1 is above 0.95; before, when its f1 is above 0.9"
    ]


def test_a_threshold_of_sql_is_a_question() -> None:
    query = "select max(value) from build_metrics where model = :model"
    (found,) = said(('threshold: "0.9"', f"direction: ABOVE_OR_EQUALS, threshold: '{query}'"))
    assert f"a build is promoted when its f1 is at least the answer of `{query}`; before" in found


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
        ('{scheduled: {cron: "0 4 * * *", time_zone: Europe/Berlin}}', "at `0 4 * * *` (Europe/Berlin)"),
        ("{scheduled: {interval: Daily}}", "daily"),
        ("{scheduled: {interval: 6h}}", "every 6h"),
        ("{git: {paths: [churn, shared]}}", "on new commits that change churn and shared"),
        ("manual", "when a person asks"),
        ('{metric: {sql_query: "select 1", threshold: "3"}}', "when the answer of `select 1` is above 3"),
    ],
)
def test_when_it_is_built(trigger: str, words: str) -> None:
    (found,) = said(('{scheduled: {cron: "0 3 * * *"}}', trigger))
    assert f"nightly runs {words}" in found
    assert "; before, at `0 3 * * *` (UTC)" in found


def test_pods_and_variables_are_told_by_their_fields_and_what_names_a_credential_is_hidden() -> None:
    found = said(
        ("number_of_pods: 2, env_vars: [LOG_LEVEL=info, API_TOKEN=secret.scoring]",
         "number_of_pods: 3, memory: 4Gi, env_vars: [LOG_LEVEL=debug, API_TOKEN=secret.other, A_TOKEN=hunter2]"),
    )  # fmt: skip
    assert found == [
        "production/churn: default: number_of_pods 2 -> 3",
        "production/churn: default: memory 2Gi -> 4Gi",
        "production/churn: default: env_vars.API_TOKEN secret.scoring -> secret.other",
        "production/churn: default: env_vars.LOG_LEVEL info -> debug",
        "production/churn: default: env_vars.A_TOKEN none -> (hidden)",
    ]


def test_a_variation_that_scales_by_its_load_has_no_number_of_pods() -> None:
    scale = (
        "{min_replica_count: 1, max_replica_count: 3, prometheus_trigger: "
        "{metric_type: cpu, aggregation_type: avg, time_period: 5, threshold: 70}}"
    )
    found = of(BASE, BASE.replace("number_of_pods: 2,", f"auto_scale_config: {scale},").replace("pods: 2", "pods: 3"))
    (words,) = found
    assert words.startswith("default: auto_scale_config none -> (min_replica_count 1, max_replica_count 3, prom")


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
        "nobody answers predictions any more: variations challenger and default go"
    ]


def test_an_environment_comes_changes_and_goes() -> None:
    lab = (
        "    - name: staging\n",
        "    - name: staging\n    - {name: lab, promote_after: staging, approval: manual}\n",
    )
    assert said(lab) == [
        "lab/: comes after staging",
        "lab/: a person approves each promotion into lab",
        "lab/: the environment is new, on the embedded data plane of this machine",
    ]
    assert said(("promote_after: staging,", "promote_after: staging, approval: manual,")) == [
        "production/: a person approves each promotion into production"
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


AUTOMATED = "deployment_spec: {variation_name: trained, environments: [staging]}"
BATCH = """\
    - name: score
      model: churn
      trigger: {scheduled: {interval: Daily}}
      batch_execution:
        data_specifications: {source_bucket: patients, source_folder: /this-week, destination_bucket: answers}
"""


def of(before: str, after: str) -> list[str]:
    """The sentences about a change from one text of specs to another."""
    return [one.text for one in effects.between(catalog(before), catalog(after))]


def test_a_block_that_comes_or_goes_hides_what_names_a_credential() -> None:
    secrets = (
        f"{AUTOMATED}\n      on_error: {{custom_webhook: {{url: 'https://hooks.example.com/?key=hunter2', "
        "data: {api_token: hunter2, channel: ml}, headers: {X-Password: hunter2}}}"
    )
    more = BASE.replace(AUTOMATED, secrets)
    (come,), (gone,) = of(BASE, more), of(more, BASE)
    shown = (
        "(custom_webhook (url https://hooks.example.com/?key=(hidden), headers (X-Password (hidden)), data (api_token"
    )
    assert come.startswith(f"nightly: on_error none -> {shown} (hidden)")
    assert gone.startswith(f"nightly: on_error {shown} (hidden)")
    assert "hunter2" not in come + gone


def test_a_url_is_told_without_its_user_and_its_query() -> None:
    with_url = BASE.replace("API_TOKEN=secret.scoring", "'DB=postgres://ada:hunter2@db/churn'")
    assert of(BASE, with_url) == [
        "default: env_vars.API_TOKEN secret.scoring -> none",
        "default: env_vars.DB none -> postgres://(hidden)@db/churn",
    ]
    assert of(with_url, with_url.replace("hunter2", "hunter3")) == ["default: env_vars.DB changes (hidden)"]


def test_a_check_of_a_canary_is_told_by_its_name_and_a_step_by_its_number() -> None:
    found = said(
        ('{name: errors, metric: error_rate, threshold: "1"}',
         '{name: errors, query: "vector(1)", threshold: "50", window: 1m}'),
        ("{weight: 50}]", "{weight: 50, hold: 1m}]"),
        ("        canary:\n", "        canary:\n          on_failure: hold\n          timeout: 2d\n"),
    )  # fmt: skip
    assert found == [
        "production/churn: default: canary.steps[2].hold 5m -> 1m",
        "production/churn: default: canary.checks[errors].metric error_rate -> none",
        "production/churn: default: canary.checks[errors].query none -> vector(1)",
        "production/churn: default: canary.checks[errors].threshold 1 -> 50",
        "production/churn: default: canary.checks[errors].window 5m -> 1m",
        "production/churn: default: canary.on_failure rollback -> hold",
        "production/churn: default: canary.timeout 1d -> 2d",
    ]


def test_a_check_that_changes_with_the_build_is_told_as_well() -> None:
    found = said(("a" * 40, "b" * 40), ('threshold: "1"}', 'threshold: "50"}'), topic=Topic.TRAFFIC)
    assert "default moves from build churn-1 (09abfc96) to build churn-1 (" in found[1]
    assert found[2] == "production/churn: default: canary.checks[errors].threshold 1 -> 50"


def test_a_canary_that_ends_with_a_move_is_told() -> None:
    canary = BASE[BASE.index("      rollout:") : BASE.index("      traffic: [{audience: california, weight: 90}")]
    text = BASE.replace(f"churn-1\n{canary}", "churn-2\n")
    moves, at_once = of(BASE, text)
    assert moves == "default moves from build churn-1 (09abfc96) to build churn-2"
    assert at_once == "default: the next build takes over at once, when it is ready"


def test_whatever_a_gate_has_besides_its_threshold_is_told_beside_it() -> None:
    beside = 'threshold: "0.95", on_no_baseline: pass, cast: true, dry_run: true, timeout_seconds: 5'
    sentence, *others = of(BASE, BASE.replace('threshold: "0.9"', beside))
    assert sentence == (
        "nightly: a build is promoted when its f1 is above 0.95, judged without effect; before, "
        "when its f1 is above 0.9"
    )
    assert others == [
        "nightly: on_no_baseline hold -> pass",
        "nightly: cast false -> true",
        "nightly: timeout_seconds 600 -> 5",
    ]


def test_a_gate_is_told_wherever_the_automation_promotes_to() -> None:
    found = said((AUTOMATED, AUTOMATED.replace("[staging]", "[staging, production]")), topic=Topic.GATE)
    assert found == ["production/churn: nightly: a build is promoted when its f1 is above 0.9"]
    moved = said((AUTOMATED, AUTOMATED.replace("[staging]", "[production]")), topic=Topic.GATE)
    assert moved == ["staging/churn: nightly promotes nothing here any more", *found]


def test_what_an_automation_implies_is_told_once() -> None:
    spec = "deployment_spec: {variation_name: trained, environments: [staging]}"
    more = spec.replace("]}", "], number_of_pods: 3}")
    assert said((spec, more)) == ["staging/churn: trained: number_of_pods 2 -> 3"]


def test_an_automation_that_deploys_to_a_written_variation_tells_of_its_own() -> None:
    spec = "deployment_spec: {variation_name: trained, environments: [staging]}"
    written = BASE.replace(spec, "deployment_spec: {variation_name: challenger}")
    more = BASE.replace(spec, "deployment_spec: {variation_name: challenger, number_of_pods: 3}")
    assert of(written, more) == ["nightly: deployment_spec.number_of_pods 2 -> 3"]


def test_what_is_asked_of_a_node_is_told_with_its_defaults() -> None:
    def asking(resources: str) -> str:
        return BASE.replace(
            "git_branch: main}\n      deployment_condition",
            f"git_branch: main, resources: {resources}}}\n      deployment_condition",
        )

    field = "nightly: build_spec.resources"
    assert of(asking("{cpu: 1, memory: 1Gi}"), asking("{memory: 1Gi}")) == [f"{field}.cpu 1 -> 2"]
    assert of(BASE, asking("{memory: 8Gi}")) == [f"{field}.memory 4Gi -> 8Gi"]
    assert of(asking("{gpu_type: NVIDIA_T4}"), asking("{gpu_type: NVIDIA_T4, gpu_amount: 2}")) == [
        f"{field}.gpu_amount 1 -> 2"
    ]
    assert of(asking("{cpu: 1, memory: 1Gi}"), asking("{instance: small}")) == [
        f"{field} (cpu 1, memory 1Gi) -> (instance small)"
    ]


def test_queries_that_differ_at_their_ends_or_by_blanks_are_told_apart() -> None:
    def gate(threshold: str) -> str:
        return BASE.replace('threshold: "0.9"', f'threshold: "{threshold}"')

    names = ", ".join(f"'metric-{number}'" for number in range(12))
    query = f"select max(value) from build_metrics where name in ({names}) and value > "
    (found,) = of(gate(f"{query}1"), gate(f"{query}2"))
    assert found.startswith("nightly: threshold `…")
    assert found.endswith(f"and value > 2` ({len(query) + 1} characters)")
    assert of(gate("select 1"), gate("select  1")) == ['nightly: threshold `"select 1"` -> `"select  1"`']


def test_items_of_a_list_are_told_one_by_one() -> None:
    trigger = "{metric_type: cpu, aggregation_type: avg, time_period: 5, threshold: 70}"
    other = "{metric_type: latency, aggregation_type: p95, time_period: 5, threshold: 5}"
    scaled = BASE.replace(
        "number_of_pods: 2", f"auto_scale_config: {{max_replica_count: 5, prometheus_trigger: [{trigger}, {other}]}}"
    )
    assert of(scaled, scaled.replace("time_period: 5, threshold: 5}", "time_period: 5, threshold: 5.0000001}")) == [
        "default: auto_scale_config.prometheus_trigger[2].threshold 5 -> 5.0000001"
    ]


def test_the_name_of_a_gateway_is_no_name_for_people() -> None:
    named = BASE.replace("promote_after: staging,", "promote_after: staging, gateway: {name: other},")
    assert of(BASE, named) == ["gateway.name trueup -> other"]


def test_an_automation_of_another_model_goes_from_the_one_and_is_new_in_the_other() -> None:
    found = said(("    - name: nightly\n      model: churn", "    - name: nightly\n      model: fraud"))
    assert "staging/churn: automation nightly goes: nothing is built by it any more" in found
    assert "staging/fraud: automation nightly is new, and runs at `0 3 * * *` (UTC)" in found


def test_what_predicts_on_files_says_on_which_and_whether_it_is_on() -> None:
    on, off = BASE + BATCH, f"{BASE}{BATCH}      enabled: false\n"
    words = "predicts on patients/this-week daily"
    assert of(BASE, off) == [f"automation score is new, and {words}; it is switched off"]
    assert of(off, on) == [f"score is switched on, and {words}"]
    assert of(on, off) == ["score is switched off: it does nothing by itself any more"]
    assert of(on, BASE) == ["automation score goes: nothing is predicted by it on patients/this-week any more"]


def test_an_automation_that_only_builds_has_no_gate() -> None:
    more = (
        "    - {name: hourly, model: churn, trigger: manual, build_spec: {git_uri: 'https://git.example.com/models'}}\n"
    )
    assert of(BASE, BASE + more) == ["automation hourly is new, and runs when a person asks"]


def test_what_happens_in_a_suspended_environment_waits() -> None:
    suspended = BASE.replace("promote_after: staging,", "promote_after: staging, suspended: true,")
    assert of(BASE, suspended) == [
        "the environment is suspended: nothing in it is changed or removed before it is resumed"
    ]
    assert of(suspended, BASE) == ["the environment is resumed: what waited there is done"]
    assert of(suspended, suspended.replace("suspended: true", "suspended: true, namespace: shop")) == [
        "namespace production -> shop: everything is made anew there (suspended: waits)"
    ]
    assert of(suspended, suspended.replace("{weight: 5, shadow: true}", "{weight: 20, shadow: true}")) == [
        "everybody else: challenger copies of 5 % -> copies of 20 % (suspended: waits)"
    ]


def test_a_served_build_of_another_branch_moves_although_nobody_knows_its_commit() -> None:
    text = BASE.replace("build: churn-1\n      rollout", "build: churn-2\n      rollout")
    assert of(text, text.replace("git_branch: main, environment", "git_branch: next, environment")) == [
        "build churn-2 is built anew: git_branch main -> next",
        "default moves to build churn-2, built anew, as a canary of 10 and 50 % of its requests, checked by errors",
    ]


def test_where_an_environment_is_and_what_comes_before_it() -> None:
    cluster = "namespace: shop, data_plane: {type: kubernetes, context: eks}, object_storage: 's3://acme-models/shop',"
    before, place, storage = of(BASE, BASE.replace("promote_after: staging,", cluster))
    assert before == "comes after no other any more; before, after staging"
    assert place == (
        "data_plane.type embedded -> kubernetes; data_plane.context none -> eks; namespace production -> shop: "
        "everything is made anew there"
    )
    assert storage == ("object_storage a folder of the embedded data plane -> s3://acme-models/shop")


def test_a_share_that_changes_is_shown_at_the_variation_that_it_is_of() -> None:
    text = BASE.replace("{weight: 5, shadow: true}", "{weight: 20, shadow: true}")
    (found,) = effects.between(catalog(BASE), catalog(text))
    assert found.origin is not None
    assert found.origin.line == text[: text.index("    - model: churn\n      name: challenger")].count("\n") + 1


def test_an_audience_that_no_variation_names_is_told_in_general() -> None:
    assert said(("  audiences:\n", "  audiences:\n    - {name: vips, priority: 7}\n")) == ["/: audience vips is new"]


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
