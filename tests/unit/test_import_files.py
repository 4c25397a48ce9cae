"""What `reconcile import` makes of audience files, configurations and names, and how it writes the result."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from reconciler.authors import layout
from reconciler.importing import Imported, Options, convert
from reconciler.importing.naming import Name
from reconciler.importing.naming import given as names_given
from reconciler.importing.writing import Item, document
from schemas.reader import read

AUDIENCE = "api_version: v1\nspec:\n  audiences:\n    - name: {}\n      conditions:\n        unary:\n"
CONDITION = "          - {{key: {}, operator: UNARY_OPERATOR_TYPE_EXACT_MATCH, operand: {}}}\n"
URI = "https://git.example.com/models.git#churn"
PRODUCTION = Options("production", git_uris={"churn": URI})


def imported(options: Options = PRODUCTION, existing: dict[str, str] | None = None, **files: str) -> Imported:
    content = {f"{name}.yaml": text.encode() for name, text in files.items()}
    there = {name: text.encode() for name, text in (existing or {}).items()}
    return convert(content, options, there, folder="specs/")


def specs(result: Imported, kind: str) -> list[dict[str, Any]]:
    return [spec for text in result.files.values() for spec in yaml.safe_load(text)["spec"].get(kind, ())]


def variations(result: Imported) -> dict[str, dict[str, Any]]:
    return {spec["name"]: spec for spec in specs(result, "variations")}


def told(result: Imported, rule: str) -> list[str]:
    return [problem.message for problem in result.told if problem.rule == rule]


def audience(name: str, key: str = "plan", value: str = "gold") -> str:
    return AUDIENCE.format(name) + CONDITION.format(key, value)


def deployment(variation: str = "default", more: str = "", *routes: str, fallback: str = "") -> str:
    text = f"model_id: churn\n{more}realtime:\n  variation_name: {variation}\n"
    if routes:
        text += "  audiences:\n" + "".join(f"    - {route}\n" for route in routes)
    return text + (f"  fallback_variation: {fallback}\n" if fallback else "")


def routed(name: str, **weights: int) -> str:
    routes = ", ".join(f"{{variation_name: {v}, weight: {w}, shadow: false}}" for v, w in weights.items())
    return f"{{name: {name}, routes: [{routes}]}}"


# -- YAML as the platform reads it -------------------------------------------------------------------------------------


def test_numbers_as_operands_become_text() -> None:
    result = imported(a=audience("gold", value="3"))
    (spec,) = specs(result, "audiences")
    assert spec["conditions"]["unary"][0]["operand"] == "3"
    assert result.is_whole


def test_anchors_and_merge_keys_are_written_out() -> None:
    text = "model_id: churn\nbatch: &common {workers: 4}\nrealtime: {<<: *common, timeout: 100}\n"
    (spec,) = specs(imported(a=text), "variations")
    assert spec["deployment"]["number_of_http_server_workers"] == 4
    assert spec["deployment"]["http_request_timeout_ms"] == 100


def test_yes_is_true_as_on_the_platform_and_that_is_told() -> None:
    result = imported(a="model_id: churn\nrealtime: {daemon_mode: no, variation_protected_state: yes}")
    (spec,) = specs(result, "variations")
    assert "daemon_mode" not in spec["deployment"]  # false is the default here
    assert spec["protected"] is True
    assert len(told(result, "import/changed")) == 2


def test_of_two_equal_keys_the_last_counts_and_that_is_told() -> None:
    result = imported(a="model_id: churn\nresources: {pods: 2, pods: 5}")
    assert specs(result, "variations")[0]["deployment"]["number_of_pods"] == 5
    assert "appears twice" in told(result, "import/changed")[0]


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"model_id: \xff\xfe", "yaml/not-utf-8"),
        (b"\x7fELF\x02\x01\x01\0\0", "yaml/control-character"),
        (b"model_id: [", "yaml/syntax"),
        (b"<<<<<<< HEAD\nmodel_id: a\n=======\n>>>>>>> b\n", "yaml/merge-conflict"),
        (b"model_id: churn\nrealtime: " + b"[" * 1000, "yaml/too-deep"),
        (b"a: &a [x,x,x,x,x,x,x,x,x,x]\n" + b"".join(
            b"%c: &%c [%s]\n" % (98 + i, 98 + i, b",".join([b"*%c" % (97 + i)] * 10)) for i in range(9)
        ), "import/yaml"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_yaml_is_told_and_the_others_are_read(content: bytes, rule: str) -> None:
    result = convert({"bad.yaml": content, "good.yaml": audience("gold").encode()}, Options())
    assert [problem.rule for problem in result.told if problem.file == "bad.yaml"] == [rule]
    assert [spec["name"] for spec in specs(result, "audiences")] == ["gold"]
    assert not result.is_whole


def test_windows_line_ends_are_read() -> None:
    result = convert({"a.yaml": audience("gold").replace("\n", "\r\n").encode()}, Options())
    assert result.is_whole
    assert all("\r" not in text for text in result.files.values())


def test_another_version_is_told_and_left_out() -> None:
    result = imported(a=audience("gold").replace("v1", "v2"))
    assert result.files == {}
    assert told(result, "import/unknown") == ["The file is of the version v2; the platform has v1. It was left out."]


def test_specs_of_our_own_are_left_out() -> None:
    result = imported(a="api_version: v1\nspec: {environments: [{name: production}]}")
    assert result.files == {}
    assert told(result, "import/no-counterpart") == ["These are specs of Trueup already: left out."]


def test_every_key_that_nobody_takes_is_told() -> None:
    text = "model_id: churn\nrealtime: {sticky: true, workers: 2}\nresources: {disk: 10}\nadvanced_options: {zone: a}\n"
    lost = told(imported(a=text), "import/no-counterpart")
    assert [message.split()[0] for message in lost] == ["sticky", "disk", "zone"]


# -- names -------------------------------------------------------------------------------------------------------------


def test_a_name_that_the_language_refuses_is_changed_and_that_is_told() -> None:
    result = imported(a=audience('"New York (users)"'))
    assert specs(result, "audiences")[0]["name"] == "New-York-users"
    assert told(result, "import/renamed") == ['The audience "New York (users)" is called New-York-users from now on.']
    assert '# import: was "New York (users)" on the platform' in result.files["audiences/new-york-users.yaml"]


def test_a_changed_name_takes_none_that_is_there() -> None:
    result = imported(
        a=audience('"New York"'), b=audience("New-York"), c=audience("new-york"), d=audience('"New:York"')
    )
    names = [spec["name"] for spec in specs(result, "audiences")]
    assert sorted(names) == ["New-York", "New-York-3", "New-York-4", "new-york-2"]
    assert len({name.lower() for name in result.files}) == 4


def test_two_audiences_of_one_name_that_differ_are_two() -> None:
    result = imported(a=audience("gold"), b=audience("gold", value="platinum"))
    assert [spec["name"] for spec in specs(result, "audiences")] == ["gold", "gold-2"]
    assert "There is another audience gold at a.yaml:4:7" in told(result, "import/unknown")[0]


def test_what_is_said_twice_is_one() -> None:
    result = imported(a=audience("gold"), b=audience("gold"))
    assert [spec["name"] for spec in specs(result, "audiences")] == ["gold"]
    assert result.is_whole


@given(st.lists(st.tuples(st.sampled_from(["audience", "variation", "environment", "secret"]), st.text())))
def test_no_two_things_get_one_name_and_every_name_is_legal(things: list[tuple[str, str]]) -> None:
    names = [Name(kind, text) for kind, text in things]
    result = names_given(names)
    assert result.keys() == set(names)
    called = [(name.kind, text.lower()) for name, text in result.items()]
    assert len(set(called)) == len(called)
    for name, text in result.items():
        assert text
        assert len(text) <= (36 if name.kind == "variation" else 63)
        assert text.replace("-", "").replace(".", "").replace("_", "").isascii()
        assert text[0].isalnum()
        assert text[-1].isalnum()


def test_what_is_there_already_is_left_and_no_file_is_written_over() -> None:
    once = imported(a=audience("gold"))
    there = {f"specs/{name}": text for name, text in once.files.items()}
    again = imported(existing=there, a=audience("gold"), b=audience("GOLD"))
    assert list(again.files) == ["audiences/gold-2.yaml"]
    assert [spec["name"] for spec in specs(again, "audiences")] == ["GOLD-2"]
    assert told(again, "import/there-already") == [
        "The audience gold is at specs/audiences/gold.yaml:5 already: it was left as it is."
    ]


def test_the_only_environment_that_there_is_is_meant_where_none_is_named() -> None:
    there = {"specs/e.yaml": "api_version: v1\nspec: {environments: [{name: live}]}"}
    result = imported(Options(git_uris={"churn": URI}), existing=there, a=deployment())
    assert specs(result, "variations")[0]["environments"] == ["live"]
    assert specs(result, "environments") == []
    assert result.is_whole


def test_environments_get_the_names_that_the_command_line_gives() -> None:
    options = Options("live", {"Prod_EU": "production-eu"}, {"churn": URI})
    result = imported(options, a=deployment(more="environments: [Prod_EU, Test_1]\n"), b=deployment("b"))
    assert [spec["name"] for spec in specs(result, "environments")] == ["production-eu", "test-1", "live"]


# -- deployments -------------------------------------------------------------------------------------------------------


def test_the_platforms_defaults_are_written_where_ours_differ() -> None:
    (spec,) = specs(imported(a=deployment()), "variations")
    assert spec["deployment"] == {
        "http_request_timeout_ms": 6000,
        "daemon_mode": True,
        "number_of_pods": 1,
        "memory": "512Mi",
    }


def test_the_order_of_audiences_becomes_their_priority() -> None:
    text = deployment("b", "", routed("first", default=100), routed("second", default=50, b=50), fallback="default")
    files = {"x": audience("second", "a"), "y": audience("first", "b"), "z": text, "d": deployment()}
    result = imported(**files)
    assert {spec["name"]: spec["priority"] for spec in specs(result, "audiences")} == {"first": 10, "second": 20}
    found = variations(result)
    assert found["b"]["traffic"] == [{"audience": "second", "weight": 50}]
    assert found["default"]["traffic"] == [
        {"audience": "first", "weight": 100},
        {"audience": "second", "weight": 50},
        {"weight": 100},
    ]
    assert result.is_whole


def test_models_that_try_audiences_in_contradicting_orders_are_told() -> None:
    one = deployment("default", "", routed("a", default=100), routed("b", default=100), fallback="default")
    two = deployment("default", "", routed("b", default=100), routed("a", default=100), fallback="default")
    result = imported(
        Options("e", git_uris={"churn": URI, "other": URI}),
        x=audience("a", "k"), y=audience("b", "l"), z=one, w=two.replace("churn", "other"),
    )  # fmt: skip
    assert any("in orders that contradict each other" in message for message in told(result, "import/unknown"))


def test_a_file_for_each_environment_becomes_overrides() -> None:
    result = imported(
        a=deployment(more="environments: [production]\nresources: {pods: 4, cpus: 1}\n"),
        b=deployment(more="environments: [staging]\nresources: {instance_size: tiny}\n"),
    )
    (spec,) = specs(result, "variations")
    assert spec["environments"] == ["production", "staging"]
    override = spec["environment_overrides"]["staging"]["deployment"]
    assert override == {"number_of_pods": 1, "cpu_fraction": 2, "memory": "2Gi", "instance": "tiny"}
    assert result.is_whole


def test_of_two_configurations_the_one_that_names_more_variations_came_later() -> None:
    result = imported(
        a=deployment("default", "", routed("all", default=100), fallback="default"),
        b=deployment("b", "", routed("all", default=90, b=10), fallback="default"),
        c="api_version: v1\nspec: {audiences: [{name: all}]}",
    )
    assert variations(result)["b"]["traffic"] == [{"audience": "all", "weight": 10}]
    assert result.is_whole


def test_two_configurations_that_contradict_each_other_are_told_and_neither_is_taken() -> None:
    result = imported(
        a=deployment("default", "", routed("all", default=60, b=40), fallback="default"),
        b=deployment("b", "", routed("all", default=90, b=10), fallback="default"),
        c="api_version: v1\nspec: {audiences: [{name: all}]}",
    )
    assert "is said differently by a.yaml:1:1, b.yaml:1:1" in told(result, "import/unknown")[0]
    assert not any("traffic" in spec for spec in specs(result, "variations"))


def test_an_audience_that_only_the_platform_knows_is_asked_for_and_never_guessed() -> None:
    text = deployment(
        "default", "", "{id: 0c1f27aa-9e6d, routes: [{variation_name: default, weight: 100, shadow: false}]}"
    )
    result = imported(a=text)
    (problem,) = [problem for problem in result.told if problem.rule == "import/unknown"]
    assert "--audience 0c1f27aa-9e6d=NAME" in problem.hint
    assert specs(result, "audiences") == []
    options = Options("e", git_uris={"churn": URI}, audiences={"0c1f27aa-9e6d": "gold"})
    assert imported(options, a=text, b=audience("gold").replace("operand: gold", "operand: x")).is_whole


def test_a_model_whose_repository_nobody_names_is_asked_for() -> None:
    result = imported(Options("production"), a=deployment())
    (problem,) = [problem for problem in result.told if problem.rule == "import/unknown"]
    assert problem.hint == "--git-uri churn=https://.../repository#folder"
    assert specs(imported(a=deployment()), "builds") == [{"name": "churn", "model": "churn", "git_uri": URI}]


def test_a_configuration_of_an_undeployment_is_left_out() -> None:
    result = imported(a=deployment("gone", "", routed("all", default=100), fallback="default"))
    assert specs(result, "variations") == []
    assert "it is one of an undeployment" in told(result, "import/no-counterpart")[0]


@pytest.mark.parametrize(
    "text",
    [
        "build_properties: {model_id: churn, model_uri: {uri: 'https://me:hunter2@git.example.com/m.git'}}",
        "build_properties: {model_id: churn, model_uri: {uri: 'https://g.example.com/m', git_credentials: hunter2}}",
        "build_properties: {model_id: churn}\nbuild_env: {docker: {env_vars: [DB_PASSWORD=hunter2]}}",
        "model_id: churn\nrealtime: {env_vars: {API_TOKEN: hunter2}}",
    ],
)
def test_a_credential_is_never_copied_nor_told(text: str) -> None:
    result = imported(a=text)
    assert "hunter2" not in "".join(result.files.values())
    assert "hunter2" not in str(result.told) + str(result.problems)
    assert len(result.secrets) == 1


# -- the text ----------------------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)
NUMBERS = st.integers(-(2**53), 2**53) | st.floats(-(2**53), 2**53)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT.filter(bool), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(TEXT.filter(bool), VALUES, min_size=1, max_size=4), st.lists(TEXT, max_size=2))
def test_what_is_written_is_read_as_what_was_meant(fields: dict[str, Any], comments: list[str]) -> None:
    text = document([Item("audiences", tuple(comments), fields)], lambda name: name.text)
    reading = read("a.yaml", text.encode())
    assert not reading.problems
    assert reading.documents[0].value["spec"]["audiences"] == [fields]


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("0.65", '"0.65"'),
        ("yes", '"yes"'),
        ("0 3 * * *", "0 3 * * *"),
        ("*/5 * * * *", '"*/5 * * * *"'),
        ("a: b", '"a: b"'),
        ("https://git.example.com/m.git#churn", "https://git.example.com/m.git#churn"),
        ("select a\nfrom b", "|-\n        select a\n        from b"),
        (1e-7, "0.0000001"),
        (2.0, "2"),
    ],
)
def test_text_is_written_as_people_would(value: Any, written: str) -> None:
    assert f"- key: {written}\n" in document([Item("audiences", (), {"key": value})], str)


# -- what would mean something else ------------------------------------------------------------------------------------


def test_a_condition_that_is_inverted_stays_so() -> None:
    text = AUDIENCE.format("others") + "".join(
        f"          - {{key: plan, operator: UNARY_OPERATOR_TYPE_{operator}_MATCH, operand: gold, invert: true}}\n"
        for operator in ("EXACT", "PRESENT")
    )
    result = imported(others=text)
    (spec,) = specs(result, "audiences")
    exact, present = spec["conditions"]["unary"]
    assert exact["negate"] is True
    assert present["operator"] == "ABSENT"
    assert result.told == ()


def test_a_configuration_that_the_command_printed_with_all_its_unset_settings_is_no_stream() -> None:
    unset = "{bootstrap_servers: [], topic: '', group: ''}"
    stream = f"stream: {{env_vars: [], kafka: {{bootstrap_servers: [], consumer: {unset}, producer: {unset}}}}}\n"
    assert list(variations(imported(a=deployment("default", "", routed("gold", default=100)) + stream))) == ["default"]
    named = stream.replace("topic: ''", "topic: scores")
    result = imported(a=deployment() + named)
    assert variations(result) == {}
    assert told(result, "import/no-counterpart") == [
        "the deployment configuration of churn reads from Kafka, which has no counterpart: left out."
    ]


def test_variables_may_be_a_list_of_mappings_and_a_credential_among_them_is_not_copied() -> None:
    text = f"{deployment()}  environments: [production]\n  env_vars:\n  - DB_PASSWORD: hunter2\n  - LEVEL: 1\n  - A=b\n"
    result = imported(a=text)
    found = variations(result)["default"]["deployment"]["env_vars"]
    assert found == {"DB_PASSWORD": "secret.churn-db-password", "LEVEL": "1", "A": "b"}
    assert "hunter2" not in "".join(result.files.values()) + "".join(map(str, result.told))


def test_a_batch_execution_is_written_in_the_order_of_fmt() -> None:
    source = """\
from qwak.automations import *
x = Automation(name='a', model_id='churn', trigger=NoneTrigger(), action=BatchExecution(
    data_specifications=BatchJobDataSpecifications(
        access_token_secret_name='token', source_bucket='in-models', destination_bucket='out-models')))
"""
    result = convert({"a.py": source.encode()}, PRODUCTION)
    for name, text in result.files.items():
        assert layout.formatted(name, text.encode()) == text.encode()
