"""Whether specs hang together: names, references, environments in an order. `▸` stands where the problem is shown."""

from __future__ import annotations

import pytest

from reconciler.specs import Loaded, parse

#: Everything that the mistakes below refer to.
GOOD = """\
api_version: v1
spec:
  environments:
    - name: staging
    - name: production
      promote_after: staging
  audiences:
    - name: adults
      conditions: {unary: [{key: age, operator: GREATER_OR_EQUAL, operand: "18"}]}
  builds:
    - {name: churn-1, model: churn, git_uri: "https://example.com/models.git#churn"}
    - {name: fraud-1, model: fraud, git_uri: "https://example.com/models.git#fraud"}
  variations:
    - {model: churn, name: default, environments: [staging, production], build: churn-1}
    - {model: fraud, name: default, environments: [staging], automation: fraud-nightly}
  automations:
    - name: fraud-nightly
      model: fraud
      trigger: manual
      build_spec: {git_uri: "https://example.com/models.git#fraud"}
      deployment_spec: {}
"""

BUILDS = 'build_spec: {git_uri: "https://example.com/models.git"}'
AUTOMATION = f"name: other\n      model: scoring\n      trigger: manual\n      {BUILDS}\n      "

CLOUD = "name: cloud\n      data_plane: kubernetes\n      object_storage: s3://acme/models\n"

#: rule -> (kind, spec, message, hint) ...
MISTAKES: dict[str, list[tuple[str, str, str, str]]] = {
    "reference/unknown-environment": [
        (
            "environments",
            "name: later\n      promote_after: [staging, ▸prodution]",
            'There is no environment "prodution".',
            "write production",
        ),
        (
            "variations",
            "{model: scoring, environments: [▸us-east], build: scoring-1}",
            'There is no environment "us-east".',
            "write an environment that exists (production, staging), or define this one",
        ),
        (
            "builds",
            "{name: b, model: scoring, git_uri: 'https://example.com/a', environment: ▸prod}",
            'There is no environment "prod".',
            "write production",
        ),
        (
            "automations",
            AUTOMATION + "environment: ▸stagin\n      deployment_spec: {environments: [staging]}",
            'There is no environment "stagin".',
            "write staging",
        ),
        (
            "automations",
            AUTOMATION + "deployment_spec: {environments: [staging, ▸prd-1]}",
            'There is no environment "prd-1".',
            "write an environment that exists (production, staging), or define this one",
        ),
    ],
    "reference/unknown-build": [
        (
            "variations",
            "{model: churn, name: b, environments: [staging], traffic: [], build: ▸churn1}",
            'There is no build "churn1".',
            "write churn-1",
        ),
        (
            "variations",
            "{model: m, environments: [dev], build: churn-1, environment_overrides: {dev: {build: ▸churn-2}}}",
            'There is no build "churn-2".',
            "write churn-1",
        ),
    ],
    "reference/unknown-audience": [
        (
            "variations",
            "{model: scoring, environments: [staging], build: scoring-1, traffic: [{audience: ▸adult}, {}]}",
            'There is no audience "adult".',
            "write adults",
        ),
    ],
    "reference/unknown-automation": [
        (
            "variations",
            "{model: fraud, name: b, environments: [staging], automation: ▸nightly}",
            'There is no automation "nightly".',
            "write fraud-nightly",
        ),
    ],
    "reference/unknown-variation": [
        (
            "automations",
            AUTOMATION.replace("scoring", "fraud")
            + "deployment_spec: {variation_name: b}\n      deployment_condition: {metric_name: f1, variation: ▸canary}",
            'There is no variation "canary" of the model "fraud".',
            "write a variation that exists (b, default), or define this one",
        ),
        (
            "automations",
            AUTOMATION.replace(BUILDS, "▸batch_execution:")
            + "  data_specifications: {source_bucket: abc, destination_bucket: abc}",
            'There is no variation "default" of the model "scoring".',
            "write a variation that exists, or define this one",
        ),
    ],
    "reference/other-model": [
        (
            "variations",
            "{model: fraud, name: b, environments: [staging], build: ▸churn-1}",
            'The build "churn-1" is of the model "churn", and this is one of "fraud".',
            "",
        ),
        (
            "variations",
            "{model: churn, name: b, environments: [staging], automation: ▸fraud-nightly}",
            'The automation "fraud-nightly" is of the model "fraud", and this is one of "churn".',
            "",
        ),
    ],
    "reference/served-otherwise": [
        (
            "automations",
            AUTOMATION.replace("scoring", "fraud") + "deployment_spec: {variation_name: ▸default}",
            'The variation "default" of the model "fraud" serves "fraud-nightly" and not this automation.',
            "write automation: other in the variation, or another variation_name here",
        ),
    ],
    "reference/not-served-there": [
        (
            "automations",
            AUTOMATION.replace("scoring", "fraud").replace("other", "fraud-nightly")
            + "deployment_spec: {environments: [staging, ▸production]}",
            'The variation "default" of the model "fraud" is not served in production.',
            "add production to the environments of the variation",
        ),
    ],
    "reference/two-automations": [
        (
            "automations",
            AUTOMATION + "deployment_spec: {variation_name: new}\n"
            f"    - name: third\n      model: scoring\n      trigger: manual\n      {BUILDS}\n"
            "      deployment_spec: {variation_name: ▸new}",
            'The automation "other" deploys to the variation "new" as well.',
            "give each automation a variation of its own",
        ),
    ],
    "reference/duplicate-name": [
        (
            "audiences",
            "name: ▸adults",
            'The audience "adults" is defined twice; the first one is at a.yaml:8.',
            "rename or remove one of them",
        ),
        (
            "variations",
            "{model: churn, name: ▸default, environments: [staging], build: churn-1}",
            'The variation "default" of the model "churn" is defined twice; the first one is at a.yaml:14.',
            "rename or remove one of them",
        ),
    ],
    "reference/circle": [
        (
            "environments",
            "name: a\n      promote_after: ▸[staging, b]\n    - name: b\n      promote_after: a",
            "promote_after goes in a circle: a after b after a.",
            "break it at one place",
        ),
    ],
    "reference/shared-namespace": [
        (
            "environments",
            "name: eu\n      namespace: ▸staging",
            'The environment "staging" (a.yaml:4) has the namespace staging of the same cluster.',
            "give each environment a namespace of its own",
        ),
    ],
    "build/local-repository": [
        (
            "environments",
            CLOUD + "  builds:\n    - {name: b, model: local, git_uri: ▸file:///models, environment: cloud}",
            "The build runs in cloud, whose cluster cannot reach a folder of this machine.",
            "write an https or ssh address",
        ),
    ],
}
CASES = [(rule, *case) for rule, cases in MISTAKES.items() for case in cases]


def load(*texts: str) -> Loaded:
    return parse({f"{name}.yaml": text.encode() for name, text in zip("abcdef", texts, strict=False)})


def document(kind: str, *specs: str) -> str:
    return f"api_version: v1\nspec:\n  {kind}:\n" + "".join(f"    - {spec}\n" for spec in specs)


def test_a_pinned_variation_is_a_warning_and_stops_nobody() -> None:
    automation = AUTOMATION.replace("scoring", "churn") + "deployment_spec: {variation_name: default}"
    loaded = load(GOOD, document("automations", automation))
    (problem,) = loaded.problems
    assert (problem.rule, problem.severity) == ("reference/pinned", "warning")
    assert "nothing is promoted to it meanwhile" in problem.message
    assert "other" in loaded.catalog.automations
    assert ("churn", "default") in loaded.catalog.variations


@pytest.mark.parametrize(
    ("says", "words", "hint"),
    [
        (["memory: ▸4Gi"], "memory has", "write it into its deployment (c.yaml:4)"),
        (
            ["memory: 2Gi", "cpu_fraction: 1", "number_of_pods: ▸3"],  # in the order of the reference
            "number_of_pods and cpu_fraction have",
            "write them into its deployment (c.yaml:4)",
        ),
    ],
)
def test_how_an_automation_serves_is_a_warning_where_the_spec_of_its_variation_says_otherwise(
    says: list[str], words: str, hint: str
) -> None:
    text = document("automations", AUTOMATION + f"deployment_spec: {{environments: [staging], {', '.join(says)}}}")
    before = text.partition("▸")[0]
    served = document("variations", "{model: scoring, environments: [staging], automation: other}")
    (problem,) = load(GOOD, text.replace("▸", ""), served).problems
    assert (problem.rule, problem.severity) == ("reference/no-effect", "warning")
    message = f'{words} no effect here: the variation "default" of the model "scoring" says otherwise.'
    assert (problem.message, problem.hint) == (message, hint)
    assert (problem.line, problem.column) == (before.count("\n") + 1, len(before.rpartition("\n")[2]) + 1)


def test_how_an_automation_serves_may_be_said_twice_alike() -> None:
    automation = AUTOMATION + "deployment_spec: {environments: [staging], number_of_pods: 2}"
    served = "{model: scoring, environments: [staging], automation: other}"
    assert load(GOOD, document("automations", automation), document("variations", served)).problems == ()


NEVER = 'production takes only builds that were verified in staging, where the automation "other" deploys nothing: '


@pytest.mark.parametrize(
    ("automation", "variation", "hint"),
    [
        ("deployment_spec: {environments: [▸production]}", "", "add staging to these environments"),
        ("deployment_spec: {}", "environments: [▸production], automation: other", "add staging to these environments"),
        (
            "environment: ▸production\n      deployment_spec: {}",
            "",
            "write deployment_spec: {environments: [staging, production]}",
        ),
        (  # The variation is served in staging, and the automation leaves it out.
            "deployment_spec: {environments: [▸production]}",
            "environments: [staging, production], automation: other",
            "add staging to these environments",
        ),
    ],
)
def test_an_environment_that_no_build_of_an_automation_can_ever_reach_is_a_warning(
    automation: str, variation: str, hint: str
) -> None:
    text = document("automations", AUTOMATION + automation)
    if variation:
        text += "---\n" + document("variations", f"{{model: scoring, {variation}}}")
    before = text.partition("▸")[0]
    loaded = load(GOOD, text.replace("▸", ""))
    (problem,) = loaded.problems
    assert (problem.rule, problem.severity) == ("reference/never-verified", "warning")
    assert (problem.message, problem.hint) == (NEVER + "its builds wait for ever.", hint)
    assert (problem.line, problem.column) == (before.count("\n") + 1, len(before.rpartition("\n")[2]) + 1)
    assert "other" in loaded.catalog.automations


@pytest.mark.parametrize(("trigger", "source"), [("manual", "automation: other"), ("git", "build: scoring-1")])
def test_a_build_may_be_verified_before_by_another_variation(trigger: str, source: str) -> None:
    automation = AUTOMATION.replace("trigger: manual", f"trigger: {trigger}") + "deployment_spec: {}"
    served = "{model: scoring, environments: [production], automation: other}"
    before = f"{{model: scoring, name: before, environments: [staging], {source}}}"
    build = "{name: scoring-1, model: scoring, git_uri: 'https://example.com/a'}"
    automations, builds = document("automations", automation), document("builds", build)
    assert load(GOOD, automations, document("variations", served, before), builds).problems == ()


def test_a_credential_in_the_open_is_a_warning_that_names_the_variable_and_not_its_value() -> None:
    spec = "{name: b, model: m, git_uri: 'https://example.com/a', env_vars: {DB_PASSWORD: planted, TOKENIZER: fine}}"
    loaded = load(GOOD, document("builds", spec))
    (problem,) = loaded.problems
    assert (problem.rule, problem.severity, problem.pointer) == (
        "secret/in-the-open",
        "warning",
        "/spec/builds/0/env_vars/DB_PASSWORD",
    )
    assert "planted" not in repr(problem)
    assert "b" in loaded.catalog.builds


def test_a_credential_that_is_read_from_a_secret_is_fine() -> None:
    spec = "{name: b, model: m, git_uri: 'https://example.com/a', env_vars: {API_TOKEN: secret.scoring}}"
    assert load(GOOD, document("builds", spec)).problems == ()


def test_what_the_mistakes_refer_to_is_good() -> None:
    loaded = load(GOOD)
    assert loaded.problems == ()
    assert set(loaded.catalog.variations) == {("churn", "default"), ("fraud", "default")}


@pytest.mark.parametrize(("rule", "kind", "spec", "message", "hint"), CASES, ids=[f"{c[0]} {c[1]}" for c in CASES])
def test_a_mistake_is_shown_where_it_is_with_what_to_write_instead(
    rule: str, kind: str, spec: str, message: str, hint: str
) -> None:
    text = document(kind, spec)
    before, _, after = text.partition("▸")
    found = [p for p in load(GOOD, before + after).problems if p.rule == rule]

    assert [(p.file, p.line, p.column) for p in found] == [
        ("b.yaml", before.count("\n") + 1, len(before) - before.rfind("\n"))
    ]
    assert (found[0].message, found[0].hint) == (message, hint)


def test_a_promotion_order_without_a_circle_is_fine_whatever_the_order_in_the_file() -> None:
    order = document("environments", "{name: c, promote_after: [b, a]}", "{name: b, promote_after: a}", "name: a")
    assert load(order).problems == ()


def test_two_clusters_may_have_the_same_namespace() -> None:
    shared = "data_plane: {type: kubernetes, context: %s}, object_storage: 's3://abc', namespace: ml"
    text = document("environments", f"{{name: a, {shared % 'eu'}}}", f"{{name: b, {shared % 'us'}}}")
    assert load(text).problems == ()


def test_an_automation_may_deploy_to_a_variation_that_it_implies_and_compare_with_it() -> None:
    text = document(
        "automations",
        AUTOMATION + "deployment_spec: {variation_name: new, environments: [staging]}\n"
        "      deployment_condition: {metric_name: f1, variation: new}",
    )
    loaded = load(GOOD, text)
    assert loaded.problems == ()
    assert "other" in loaded.catalog.automations
