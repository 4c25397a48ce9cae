"""Every mistake that one spec can have: where it is shown, by which rule, and what to write instead.

In the texts, `▸` stands where the problem must be shown.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from reconciler.specs import parse
from schemas.problem import Problem

ROOT = Path(__file__).parents[2]

ENVIRONMENT = "name: production\n"
BUILD = "name: churn-1\nmodel: churn\ngit_uri: https://example.com/models.git#churn\n"
VARIATION = "model: churn\nname: default\nenvironments: [production]\nbuild: churn-1\n"
AUDIENCE = "name: adults\n"
AUTOMATION = "name: nightly\nmodel: churn\ntrigger: manual\nbuild_spec:\n  git_uri: https://example.com/models.git\n"
CONDITION = AUDIENCE + "conditions:\n  unary:\n    - key: age\n      "
RANGE = AUDIENCE + "conditions:\n  binary:\n    - key: age\n      operator: BINARY_OPERATOR_TYPE_RANGE_MATCH\n      "
SCALED = VARIATION + "deployment:\n  auto_scale_config:\n    "
TRIGGERED = "name: nightly\nmodel: churn\nbuild_spec:\n  git_uri: https://example.com/models.git\ntrigger:\n  "
GATED = AUTOMATION + "deployment_spec: {}\ndeployment_condition:\n  metric_name: f1\n  "
TRIGGER = "{metric_type: cpu, aggregation_type: avg, time_period: 5, threshold: 60}"
EXAMPLE_COMMIT = "d670460b4b4aece5915caf5c68d12f560a9fe3e4"
COMMENTED = "-- of the last week\n/* two */ Select max(f1) from builds"
NO_THRESHOLD = 'write digits, such as "0.65", or a query that begins with SELECT, or WITH'
CANARY = VARIATION + "rollout:\n  canary:\n    "

#: rule -> (kind, spec, hint) ...
MISTAKES: dict[str, list[tuple[str, str, str]]] = {
    "schema/type": [
        ("automations", GATED + "threshold: ▸0.650", 'write "0.650", with quotes'),
        ("audiences", CONDITION + "operator: LESS_THAN\n      operand: ▸18", 'write "18", with quotes'),
        ("variations", VARIATION + 'deployment:\n  number_of_pods: ▸"3"', "write 3, without quotes"),
        ("variations", VARIATION + "deployment:\n  number_of_pods: ▸2.5", "write 2"),
        ("variations", VARIATION + 'protected: ▸"yes"', "write true, without quotes"),
        ("variations", VARIATION.replace("[", "▸").replace("]", ""), "write [production]"),
        ("variations", VARIATION + "▸traffic:\n  weight: 100", 'begin each item with "- "'),
        ("environments", ENVIRONMENT + "defaults: ▸[]", ""),
        ("environments", ENVIRONMENT + "data_plane: ▸3", ""),
        ("audiences", AUDIENCE + "description:▸", "write a value, or remove the key"),
        ("builds", BUILD + "env_vars: ▸text", ""),
        ("builds", BUILD + "env_vars: {A: ▸1}", 'write "1", with quotes'),
        ("variations", VARIATION + "deployment: {memory: ▸512}", "such as 512Mi"),
        ("variations", CANARY + "steps: [{weight: 5, hold: ▸5}]", "such as 90s"),
        ("builds", "▸just text", ""),
    ],
    "schema/unknown-field": [
        ("audiences", "▸nmae: adults\npriority: 1", "write name"),
        ("variations", VARIATION + "deployment:\n  ▸number-of-pods: 3", "write number_of_pods"),
        ("variations", VARIATION + "traffic: [{▸percentage: 30}]", "one of audience, weight, shadow"),
        ("variations", VARIATION + "rollout: {canary: {steps: [{weight: 5, ▸wait: 5m}]}}", "one of weight, hold"),
        ("variations", VARIATION + "deployment: {▸cpu_percent: 50}", "write cpu_fraction"),
        ("variations", VARIATION + "deployment: {▸pods: 3}", "write number_of_pods"),
        ("audiences", CONDITION + "operator: ABSENT\n      ▸invert: true", "write negate"),
    ],
    "schema/missing-field": [
        ("builds", "▸model: churn\ngit_uri: https://example.com/models.git", "write name: churn-1"),
        ("audiences", AUDIENCE + "conditions:\n  unary:\n    - ▸operator: ABSENT", "write key: location"),
        (
            "variations",
            SCALED.replace("auto_scale", "▸auto_scale") + "max_replica_count: 2",
            "write prometheus_trigger or triggers",
        ),
    ],
    "schema/value": [
        ("audiences", CONDITION + "operator: ▸PRESENT_MATCH", "write UNARY_OPERATOR_TYPE_PRESENT_MATCH"),
        ("environments", ENVIRONMENT + "approval: ▸manul", "write manual"),
        ("environments", ENVIRONMENT + "approval: ▸1", "one of automatic, manual"),
        ("environments", ENVIRONMENT + "data_plane: ▸eks", "one of kubernetes, embedded"),
        ("variations", VARIATION + "rollout: ▸blue-green", "write replace"),
        ("automations", AUTOMATION.replace("manual", "▸by-hand"), "one of manual, git"),
        ("automations", AUTOMATION.replace("manual", "▸metric"), "write trigger: {metric: {...}}"),
        ("variations", VARIATION + "rollout: ▸canary", "write rollout: {canary: {...}}"),
    ],
    "schema/form": [
        ("environments", "name: ▸Production_EU", "write production-eu"),
        ("variations", VARIATION + "deployment:\n  memory: ▸2GB", "such as 512Mi"),
        ("builds", BUILD.replace("https:", "▸http:"), "such as https://github.com/acme/models.git#churn"),
        ("builds", BUILD + "env_vars: [▸KEY]", "such as LOG_LEVEL=info"),
        ("builds", BUILD + "git_commit: ▸abc1234", f"such as {EXAMPLE_COMMIT}"),
        ("automations", TRIGGERED + "scheduled: {interval: ▸daily}", "such as Daily"),
        (
            "variations",
            CANARY + 'steps: [{weight: 5}]\n    checks: [{name: a, metric: error_rate, threshold: ▸"1%"}]',
            'write "1"',
        ),
        (
            "audiences",
            CONDITION + "operator: UNARY_OPERATOR_TYPE_EXACT_MATCH\n      operand: ▸München",
            "Printable ASCII, without blanks at its ends.",
        ),
        ("builds", BUILD.replace("churn-1", '▸"churn-1\\n"'), "write churn-1"),
    ],
    "schema/key": [
        ("builds", BUILD + "parameters: {▸n estimators: '3'}", "write n-estimators"),
        ("builds", BUILD + "env_vars: {▸LOG-LEVEL: info}", "write LOG_LEVEL"),
        ("variations", VARIATION + "environment_overrides:\n  ▸Production: {build: churn-2}", "write production"),
    ],
    "schema/range": [
        ("variations", VARIATION + "traffic: [{weight: ▸101}]", "write 100 or less"),
        ("variations", VARIATION + "traffic: [{weight: ▸-1}]", "write 0 or more"),
        (
            "variations",
            SCALED + "max_replica_count: 2\n    prometheus_trigger: {metric_type: cpu, "
            "aggregation_type: avg, time_period: 5, threshold: ▸0}",
            "write more than 0",
        ),
    ],
    "schema/size": [
        ("audiences", f"name: ▸{'a' * 64}", "shorten it"),
        ("automations", GATED + 'threshold: ▸""', "write something, or remove the key"),
        ("variations", VARIATION.replace("[production]", "▸[]"), "write at least one item"),
        ("variations", CANARY + f"steps: ▸[{', '.join(['{weight: 5}'] * 21)}]", "remove some"),
    ],
    "schema/repeated": [
        ("environments", ENVIRONMENT + "promote_after: [staging, dev, ▸staging]", "remove one of them"),
    ],
    "schema/one-of": [
        (
            "variations",
            SCALED.replace("auto_scale", "▸auto_scale") + "max_replica_count: 2\n    "
            f"prometheus_trigger: {TRIGGER}\n    triggers: {{prometheus_trigger: [{TRIGGER}]}}",
            "keep one of them",
        ),
    ],
    "audience/reserved-key": [
        (
            "audiences",
            AUDIENCE + "conditions:\n  unary:\n    - key: ▸Host\n      operator: ABSENT",
            "choose a header of your own, such as `location` or `plan`",
        ),
    ],
    "audience/numeric-operand": [
        (
            "audiences",
            CONDITION + 'operator: LESS_THAN\n      operand: ▸"18 years"',
            'write digits in quotes, such as "18" or "-0.5"',
        ),
    ],
    "audience/operand": [
        ("audiences", CONDITION + "operator: IN\n      operand: ▸adult", 'write ["a", "b"]'),
        ("audiences", CONDITION + "operator: IN\n      operand: ▸[a, a]", "keep one of them"),
        ("audiences", CONDITION + "operator: ABSENT\n      operand: ▸[a]", "leave it out"),
        ("audiences", CONDITION + "operator: LESS_THAN\n      operand: ▸[a]", "write operand: TEXT"),
        (
            "audiences",
            CONDITION + 'operator: UNARY_OPERATOR_TYPE_EXACT_MATCH\n      operand: ▸""',
            "write operand: TEXT",
        ),
    ],
    "audience/negate": [
        ("audiences", CONDITION + "operator: ABSENT\n      negate: ▸true", "write UNARY_OPERATOR_TYPE_PRESENT_MATCH"),
    ],
    "audience/regex": [
        (
            "audiences",
            CONDITION + 'operator: UNARY_OPERATOR_TYPE_SAFE_REGEX_MATCH\n      operand: ▸"(?=a)"',
            "say it without them, or as two conditions",
        ),
    ],
    "audience/empty-range": [
        ("audiences", RANGE + 'first_operand: ▸"64"\n      second_operand: "18"', "put the smaller one first"),
    ],
    "audience/contradiction": [
        (
            "audiences",
            AUDIENCE + "▸conditions:\n  unary:\n    - {key: a, operator: IN, operand: [x]}\n"
            "    - {key: A, operator: IN, operand: [z]}",
            "alternatives are several audiences: the conditions of one must all be true",
        ),
    ],
    "environment/reserved-namespace": [
        ("environments", ENVIRONMENT + "namespace: ▸kube-system", "write namespace: NAME, another one"),
        ("environments", "name: ▸default", "write namespace: NAME, another one"),
    ],
    "environment/reserved-header": [
        (
            "environments",
            ENVIRONMENT + "gateway: {sticky_header: ▸Cookie}",
            "choose a header that names who asks, such as `user`",
        ),
    ],
    "environment/data-plane": [
        ("environments", ENVIRONMENT + "data_plane: {context: ▸prod}", "type: kubernetes"),
    ],
    "environment/analytics": [
        ("environments", ENVIRONMENT + "analytics: {engine: ▸athena}", "database: trueup"),
        ("environments", ENVIRONMENT + "analytics: {url_secret: ▸dsn}", ""),
    ],
    "environment/toleration": [
        ("environments", ENVIRONMENT + "defaults: {tolerations: [▸{value: a}]}", "or write operator: Exists"),
        ("environments", ENVIRONMENT + "defaults: {tolerations: [{operator: Exists, value: ▸a}]}", ""),
        ("environments", ENVIRONMENT + "defaults: {tolerations: [{key: a, toleration_seconds: ▸1}]}", ""),
    ],
    "environment/promote-after": [("environments", ENVIRONMENT + "promote_after: ▸production", "")],
    "environment/object-storage": [
        (
            "environments",
            ENVIRONMENT + "data_plane: kubernetes\nobject_storage: ▸file:///tmp",
            "write object_storage: s3://BUCKET/PREFIX",
        ),
    ],
    "resources/two-families": [
        ("builds", BUILD + "▸resources:\n  cpu: 1\n  instance: small", "keep cpu and memory"),
    ],
    "resources/gpu": [("builds", BUILD + "resources: {gpu_amount: ▸1}", "")],
    "build/git-uri": [
        ("builds", BUILD.replace("https", "▸https").replace("#churn", "#../churn"), "repository#models/churn")
    ],
    "build/git-branch": [("builds", BUILD + "git_branch: ▸a..b", "")],
    "build/two-credentials": [
        ("builds", BUILD + "git_access_token_secret: a\ngit_ssh_token_secret: ▸b", ""),
    ],
    "build/credentials": [
        ("builds", BUILD + "git_ssh_token_secret: ▸b", "git_access_token_secret"),
        ("builds", BUILD.replace("https://example.com/", "git@example.com:") + "git_access_token_secret: ▸b", ""),
    ],
    "build/two-revisions": [("builds", BUILD + f"git_branch: main\ngit_commit: ▸{'a' * 40}", "")],
    "env-vars/duplicate": [("builds", BUILD + "env_vars: [A=1, ▸A=2]", "keep one of them")],
    "env-vars/secret": [
        (
            "builds",
            BUILD + "env_vars: {A: ▸secret.}",
            "write secret.NAME or secret.NAME.KEY, the name in lower-case letters, digits and -",
        )
    ],
    "variation/source": [
        ("variations", "▸model: churn\nenvironments: [production]", "write build: NAME, or automation: NAME"),
        ("variations", VARIATION + "automation: ▸nightly", "keep one of them"),
    ],
    "variation/environments": [("variations", VARIATION.replace("[production]", "▸[a, a]"), "")],
    "variation/override": [
        (
            "variations",
            VARIATION + "▸environment_overrides:\n  staging: {build: churn-2}",
            "add staging to environments",
        ),
    ],
    "rollout/check": [
        ("variations", CANARY + 'steps: [{weight: 5}]\n    checks: [▸{name: a, threshold: "1"}]', "metric: error_rate"),
        (
            "variations",
            CANARY + "steps: [{weight: 5}]\n    ▸checks:\n      - {name: a, metric: error_rate, "
            'threshold: "1"}\n      - {name: a, metric: error_rate, threshold: "2"}',
            "",
        ),
    ],
    "rollout/steps": [("variations", CANARY + "steps: ▸[{weight: 50}, {weight: 5}]", "such as 5, 25, 50")],
    "rollout/timeout": [("variations", CANARY + "steps: [{weight: 5, hold: 1d}]\n    timeout: ▸1h", "")],
    "autoscaling/aggregation": [
        (
            "variations",
            SCALED + "max_replica_count: 2\n    prometheus_trigger: {metric_type: cpu, "
            "aggregation_type: ▸p99, time_period: 5, threshold: 1}",
            "write avg, max, min or sum, or use the metric latency",
        ),
    ],
    "autoscaling/bounds": [
        (
            "variations",
            SCALED + "min_replica_count: ▸3\n    max_replica_count: 2\n    prometheus_trigger: {metric_type: "
            "cpu, aggregation_type: avg, time_period: 5, threshold: 1}",
            "",
        ),
    ],
    "autoscaling/never-wakes": [
        (
            "variations",
            SCALED + "min_replica_count: ▸0\n    max_replica_count: 2\n    prometheus_trigger: {metric_type: "
            "cpu, aggregation_type: avg, time_period: 5, threshold: 1}",
            "write 1, or add a trigger on throughput, which the gateway measures",
        ),
    ],
    "automation/cron": [
        ("automations", TRIGGERED + 'scheduled: {cron: ▸"61 * * * *"}', 'such as "0 3 * * *", every day at three'),
    ],
    "automation/schedule": [("automations", TRIGGERED + "scheduled: ▸{}", "interval: Daily")],
    "automation/time-zone": [
        ("automations", TRIGGERED + "scheduled: {interval: Daily, time_zone: ▸Berlin}", "Europe/Berlin"),
    ],
    "automation/path": [
        (
            "automations",
            "name: a\nmodel: m\ntrigger: {git: {paths: ▸[a, ../b]}}\nbuild_spec: {git_uri: 'https://example.com/a'}\n",
            "write it from the root of the repository, such as models/churn",
        ),
    ],
    "automation/trigger": [
        ("automations", TRIGGERED + "scheduled: {interval: Daily}\n  manual: ▸{}", "keep one of them"),
        ("automations", TRIGGERED.replace("trigger:\n  ", "trigger: ▸{}"), "scheduled: {interval: Daily}"),
    ],
    "threshold/form": [
        ("automations", GATED + f"threshold: ▸'{threshold}'", NO_THRESHOLD)
        for threshold in ("0,65", "65%", "NaN", "-", "--", "drop table builds", "selected")
    ],
    "sql/no-query": [
        (
            "automations",
            TRIGGERED + "metric: {sql_query: ▸delete from builds, threshold: '1'}",
            "begin it with SELECT, or WITH",
        ),
    ],
    "automation/condition": [
        (
            "automations",
            GATED.replace("▸", "").replace("deployment_condition", "▸deployment_condition"),
            'threshold: "0.65"',
        ),
        ("automations", AUTOMATION + '▸deployment_condition:\n  metric_name: f1\n  threshold: "1"', ""),
    ],
    "automation/action": [
        ("automations", "▸name: nightly\nmodel: churn\ntrigger: manual", "write build_spec, or batch_execution"),
    ],
    "notification/nobody": [("automations", AUTOMATION + "on_error: ▸{}", "")],
    "notification/header": [
        (
            "automations",
            AUTOMATION + "on_error:\n  custom_webhook:\n    url: https://example.com\n    headers: ▸{Host: evil}",
            "remove it",
        ),
        (
            "automations",
            AUTOMATION + "on_error:\n  custom_webhook:\n    url: https://example.com\n    "
            "header_secrets: ▸{idempotency-key: a}",
            "remove it",
        ),
    ],
    "notification/secret": [
        (
            "automations",
            AUTOMATION + "on_error:\n  custom_webhook:\n    url: https://example.com\n    "
            "headers: ▸{Authorization: abc}",
            "header_secrets: {Authorization: NAME-OF-A-SECRET}",
        ),
    ],
}
CASES = [(rule, *case) for rule, cases in MISTAKES.items() for case in cases]


def document(kind: str, spec: str) -> str:
    item = spec.replace("\n", "\n      ")
    return f"api_version: v1\nspec:\n  {kind}:\n    - {item}\n"


def problems(text: str) -> list[Problem]:
    return list(parse({"specs.yaml": text.encode()}).problems)


@pytest.mark.parametrize(("rule", "kind", "spec", "hint"), CASES, ids=[f"{case[0]} {case[2][-40:]}" for case in CASES])
def test_a_mistake_is_shown_where_it_is_with_what_to_write_instead(rule: str, kind: str, spec: str, hint: str) -> None:
    text = document(kind, spec)
    before, _, after = text.partition("▸")
    # Of references to what the text does not have, other tests tell.
    found = [p for p in problems(before + after) if not p.rule.startswith("reference/")]

    assert [(p.rule, p.line, p.column) for p in found] == [
        (rule, before.count("\n") + 1, len(before) - before.rfind("\n"))
    ]
    assert found[0].hint == hint
    assert found[0].pointer.startswith(f"/spec/{kind}/0")
    assert found[0].severity == "error"
    assert found[0].message.endswith(".")


@pytest.mark.parametrize(
    "threshold",
    ["0.65", "-1", ".5", "1e-3", "select 1", "WITH a AS (SELECT 1) SELECT * FROM a", "(select 1)", COMMENTED],
)
def test_a_threshold_is_a_decimal_number_or_a_query(threshold: str) -> None:
    found = problems(document("automations", GATED + f"threshold: {json.dumps(threshold)}"))
    assert [problem.rule for problem in found] == ["reference/no-environment"]


def test_an_operand_that_is_not_looked_at_may_be_empty_as_the_platform_writes_it() -> None:
    text = CONDITION + 'operator: UNARY_OPERATOR_TYPE_PRESENT_MATCH\n      operand: ""'
    assert problems(document("audiences", text)) == []


def test_the_platforms_own_nesting_is_checked_too() -> None:
    trigger = "{query_spec: {metric_type: disk, aggregation_type: avg, time_period: 5}, threshold: 60}"
    (found,) = [
        p
        for p in problems(document("variations", f"{SCALED}max_replica_count: 2\n    prometheus_trigger: {trigger}"))
        if not p.rule.startswith("reference/")
    ]
    assert found.rule == "schema/value"
    assert "latency" in f"{found.message} {found.hint}"
    assert found.pointer.startswith("/spec/variations/0/deployment/auto_scale_config")


@pytest.mark.parametrize(
    ("text", "rule", "hint"),
    [
        ("▸just text\n", "schema/type", ""),
        ("▸- a\n", "schema/type", ""),
        ("api_version: ▸1\nspec: {}\n", "schema/value", "write v1"),
        ("api_version: ▸v2\nspec: {}\n", "schema/value", "write v1"),
        ("▸api_version: v1\n", "schema/missing-field", ""),
        ("▸spec: {}\n", "schema/missing-field", "write api_version: v1"),
        ("api_version: v1\nspec:\n  audiences:▸\n", "schema/type", "write a value, or remove the key"),
        ("api_version: v1\nspec:\n  ▸audience: []\n", "schema/unknown-field", "write audiences"),
        ("▸apiVersion: v1\nspec: {}\n", "schema/unknown-field", "write api_version"),
    ],
)
def test_a_mistake_in_the_envelope_is_shown_as_well(text: str, rule: str, hint: str) -> None:
    before, _, after = text.partition("▸")
    assert [(p.rule, p.line, p.column, p.hint) for p in problems(before + after)] == [
        (rule, before.count("\n") + 1, len(before) - before.rfind("\n"), hint)
    ]


def test_every_rule_has_a_mistake_in_this_table() -> None:
    """The rules of references and traffic have tests of their own; `schema/invalid` is what no mistake leads to."""
    sources = [
        *(ROOT / "schemas").glob("*.py"),
        *(ROOT / "reconciler/specs").glob("*.py"),
        ROOT / "renderers/audiences.py",
    ]
    families = (
        "schema|env-vars|audience|environment|resources|build|rollout|variation|autoscaling|automation|notification"
        "|threshold|sql"
    )
    rules = {rule for path in sources for rule in re.findall(rf'"((?:{families})/[a-z-]+)"', path.read_text("utf-8"))}

    # `env-vars/form` cannot be reached: the JSON Schema says it first (schema/form). `schema/no-effect` is a warning.
    elsewhere = {"schema/invalid", "schema/no-effect", "env-vars/form", "build/local-repository"}
    assert rules - elsewhere == set(MISTAKES)


def test_a_token_that_was_pasted_where_a_name_belongs_is_neither_shown_nor_spelled_out() -> None:
    token = "ghp_" + "Ab1" * 12
    text = (
        "api_version: v1\nspec:\n  builds:\n"
        f"    - {{name: b, model: m, git_uri: 'https://example.com/a', git_access_token_secret: {token}}}\n"
    )
    (problem,) = parse({"a.yaml": text.encode()}).problems
    assert problem.hint == "write the name of a Secret, never what is in it"
    assert "Ab1Ab1" not in repr(problem)
    assert "ab1ab1" not in repr(problem)


HOOK = AUTOMATION + "on_error:\n  custom_webhook:\n    url: https://example.com\n    "


@pytest.mark.parametrize(
    "value", ["Hunter2Hunter2", "314159265358", "[hunter2]", "hunter2 " * 40, "", "true", '"h\\n"']
)
@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("automations", AUTOMATION + "on_error: {slack: {webhook_secret: ▸}}"),
        ("automations", AUTOMATION + "on_error: {pagerduty: {routing_key_secret: ▸}}"),
        ("automations", HOOK + "header_secrets: {Authorization: ▸}"),
        ("builds", BUILD + "git_access_token_secret: ▸"),
        ("environments", ENVIRONMENT + "analytics: {engine: sqlalchemy, url_secret: ▸}"),
        ("environments", ENVIRONMENT + "defaults: {image_pull_secrets: [▸]}"),
        ("variations", VARIATION + "deployment: {service_account_key_secret_name: ▸}"),
    ],
    ids=lambda value: str(value)[-40:],
)
def test_what_was_written_in_place_of_a_secrets_name_is_never_shown(kind: str, spec: str, value: str) -> None:
    found = [p for p in problems(document(kind, spec.replace("▸", value))) if not p.rule.startswith("reference/")]
    faults = [p for p in found if p.rule.startswith("schema/")]
    assert {p.rule for p in faults} <= {"schema/type", "schema/form", "schema/size"}
    assert faults or (value == "" and "[▸]" in spec)  # an empty list is none
    for problem in faults:
        assert problem.hint == "write the name of a Secret, never what is in it"
        assert "must be the name of a Secret" in problem.message
    assert not re.search("hunter|31415|true", f"{found}".replace(spec, ""), re.IGNORECASE)


@pytest.mark.parametrize("key", ["\x1b[2J", "\u202egnp", "a\nb", "", "k" * 200])
def test_a_key_that_a_terminal_would_obey_is_quoted(key: str) -> None:
    wrong = f"{json.dumps(key)}: [x]"
    for kind, spec in (
        ("automations", HOOK + f"header_secrets: {{{wrong}}}"),
        ("automations", AUTOMATION + wrong),
        ("builds", BUILD + f"env_vars: {{{wrong}}}"),
        (
            "environments",
            ENVIRONMENT + f"defaults: {{instance_templates: {{{json.dumps(key)}: {{cpu: x, memory: 1Gi}}}}}}",
        ),
    ):
        found = [problem for problem in problems(document(kind, spec)) if problem.rule.startswith("schema/")]
        assert found
        for problem in found:
            assert str(problem).isprintable()
            assert len(str(problem)) < 600


@pytest.mark.parametrize("pattern", ["(" * 500 + "a" + ")" * 500, "a{99999999999}", "[[a]", "[a||b]"])
def test_no_regular_expression_stops_the_specs_beside_it(pattern: str) -> None:
    regex = CONDITION + f"operator: UNARY_OPERATOR_TYPE_SAFE_REGEX_MATCH\n      operand: {json.dumps(pattern)}"
    loaded = parse({"a.yaml": document("audiences", regex).encode(), "b.yaml": document("builds", BUILD).encode()})
    assert loaded.catalog.builds


def test_a_key_that_ends_like_a_secrets_is_told_by_its_name() -> None:
    (unknown,) = problems(document("builds", BUILD + "git_acess_token_secret: a"))
    assert (unknown.rule, unknown.hint) == ("schema/unknown-field", "write git_access_token_secret")
    found = problems(document("automations", AUTOMATION + "on_error: {slack: {}}"))
    (missing,) = [problem for problem in found if "slack" in problem.path]
    assert (missing.rule, missing.message) == ("schema/missing-field", "webhook_secret is missing in slack.")


def test_values_of_header_secrets_are_names_like_any_other_secrets() -> None:
    defined = json.loads((ROOT / "schemas/automation.schema.json").read_text())["$defs"]
    headers = defined["CustomWebhook"]["properties"]["header_secrets"]["additionalProperties"]
    assert headers["pattern"] == defined["SlackNotification"]["properties"]["webhook_secret"]["pattern"]


def test_a_fault_of_the_schema_does_not_hide_what_our_own_rules_say_of_the_same_spec() -> None:
    text = """\
api_version: v1
spec:
  automations:
    - name: nightly
      model: churn
      trigger: {scheduled: {cron: "61 * * * *"}}
      build_spec: {git_uri: "https://example.com/a"}
      deployment_condition: {metric_name: f1, threshold: 0.65}
      deployment_spec: {}
"""
    problems = parse({"a.yaml": text.encode()}).problems
    assert [(problem.rule, problem.line) for problem in problems] == [("automation/cron", 6), ("schema/type", 8)]
