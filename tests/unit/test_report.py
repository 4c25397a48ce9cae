"""What people and programs are shown."""

import json

import jsonschema
import orjson
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from reconciler import plan
from reconciler.diff import FieldChange
from reconciler.plan import Change, Guard, Note, Op
from reconciler.report import Done, ExitCode, Outcome, Report, Trouble, exit_code, machine, quoted_yaml, text
from renderers.manifest import ObjectId, Origin
from schemas.problem import Problem

ORIGIN = Origin("specs/churn.yaml", 4, "variation", "churn/default")
DEPLOYMENT = ObjectId("apps/v1", "Deployment", "prod", "churn-default-3f9a1c2e")
PROBLEM = Problem("specs/a.yaml", 3, 7, ("spec", "builds", 0), "schema/type", "this is no number", "write 5")
GUARD = Guard("production", "prune/all", "all 3 objects of production would be deleted", approval="5d2a91bc0e7f")


def change(op=Op.CREATE, target=DEPLOYMENT, **more):
    return Change(op, target, "production", ORIGIN, **more)


def shown(*changes, notes=(), guards=(), width=80, offline=False):
    made = plan.assemble(changes, notes, guards, offline=offline)
    return "\n".join(text.plan(made, width=width, color=False))


class TestText:
    def test_objects_stand_under_the_spec_that_asks_for_them(self):
        page = shown(change(), change(target=DEPLOYMENT._replace(kind="Service", api_version="v1")))
        assert page.splitlines()[1:] == [
            "",
            "production",
            "  variation churn/default  specs/churn.yaml:4",
            "    + Deployment churn-default-3f9a1c2e",
            "    + Service churn-default-3f9a1c2e",
        ]

    def test_a_change_shows_each_field(self):
        fields = (
            FieldChange("spec.replicas", 2, 3),
            FieldChange("spec.paused", None, True),
            FieldChange("spec.x", "a", None),
        )
        page = shown(change(Op.CHANGE, fields=fields))
        assert "spec.replicas: 2 -> 3" in page
        assert "spec.paused: true (new)" in page
        assert "spec.x: a (removed)" in page

    def test_no_line_is_wider_than_the_terminal_unless_a_single_word_is(self):
        fields = (FieldChange("spec.template.spec.containers[model].env[A]", "some words " * 9, "other words " * 9),)
        page = shown(change(Op.CHANGE, fields=fields, reason="because of this " * 12), guards=[GUARD], width=80)
        assert max(map(len, page.splitlines())) <= 80

    def test_a_headline_counts_what_there_is_and_leaves_out_zeros(self):
        made = plan.assemble([change(), change(Op.UNCHANGED, DEPLOYMENT._replace(name="other"))])
        assert text.headline(made) == f"Plan {made.id}: 1 to create, 1 unchanged."

    def test_a_plan_without_anything_to_do_says_so(self):
        assert text.headline(plan.assemble([change(Op.UNCHANGED)])) == "Nothing to do: 1 object as the specs ask for."

    def test_a_guard_names_the_command_that_lifts_it(self):
        made = plan.assemble([change(Op.DELETE, held=GUARD.message)], guards=[GUARD])
        page = " ".join("\n".join(text.plan(made, width=80, color=False)).split())
        assert f"reconcile --approve {GUARD.approval}" in page

    def test_notes_of_specs_that_nothing_is_done_about_are_left_out(self):
        other = ORIGIN._replace(name="churn/other")
        assert "note:" not in shown(change(), notes=[Note("production", other, "it waits")])

    def test_a_reason_that_holds_a_whole_environment_is_said_once(self):
        held = [change(target=DEPLOYMENT._replace(name=name), held="for some reason") for name in "ab"]
        assert shown(*held).count("held: for some reason") == 1

    def test_objects_are_marked_where_they_are_held_for_several_reasons(self):
        names = {"a": "for some reason", "b": GUARD.message, "c": "for some reason", "d": ""}
        changes = [change(target=DEPLOYMENT._replace(name=name), held=why) for name, why in names.items()]
        page = shown(*changes, guards=[GUARD]).splitlines()
        assert [line for line in page if "Deployment" in line] == [
            "    + Deployment a (held 1)",
            "    + Deployment b (held 2)",
            "    + Deployment c (held 1)",
            "    + Deployment d",
        ]
        assert "  held 1: for some reason" in page
        assert f"  ! held 2: {GUARD.message}." in page

    def test_what_a_rule_says_of_several_objects_is_one_reason(self):
        ids = [DEPLOYMENT._replace(name=name) for name in "ab"]
        changes = [change(target=one, held=f"No (create {one} in production).") for one in ids]
        page = shown(*changes).splitlines()
        assert "    + Deployment b (held)" in page
        assert page[-1] == "  held: No."

    def test_what_is_done_alike_in_several_environments_is_told_once(self):
        fields = (FieldChange("spec.replicas", 2, 3),)
        places = [f"cluster-{number}" for number in range(3)]
        changes = [Change(Op.CHANGE, DEPLOYMENT, place, ORIGIN, fields) for place in places]
        assert shown(*changes, Change(Op.CREATE, DEPLOYMENT, "other", ORIGIN)).splitlines()[1:] == [
            "",
            "cluster-0, cluster-1, cluster-2",
            "  variation churn/default  specs/churn.yaml:4",
            "    ~ Deployment churn-default-3f9a1c2e",
            "        spec.replicas: 2 -> 3",
            "",
            "other",
            "  variation churn/default  specs/churn.yaml:4",
            "    + Deployment churn-default-3f9a1c2e",
        ]

    def test_a_name_is_whole_on_a_line_of_its_own_where_it_does_not_fit(self):
        name = "a-" * 30 + "a"
        assert shown(change(target=DEPLOYMENT._replace(name=name)), width=60).splitlines()[-2:] == [
            "    + Deployment",
            f"      {name}",
        ]

    def test_a_long_path_wraps_where_its_steps_begin(self):
        path = "spec.rules[audience-california].backendRefs[churn-default-90c7c616].weight"
        assert shown(change(Op.CHANGE, fields=(FieldChange(path, 9000, 8000),))).splitlines()[-2:] == [
            "        spec.rules[audience-california].backendRefs[churn-default-90c7c616]",
            "          .weight: 9000 -> 8000",
        ]

    def test_the_hash_of_a_route_s_shares_is_for_programs(self):
        shares = FieldChange("metadata.annotations[trueup.dev/shares]", "309c1cc252715f49", "c6ae7ce4313cbd8c")
        weight = FieldChange("spec.rules[0].backendRefs[a].weight", 1, 2)
        assert shown(change(Op.CHANGE, fields=(shares, weight))).splitlines()[-1].startswith("        spec.rules[0]")
        alone = shown(change(Op.CHANGE, fields=(shares,)))
        assert alone.splitlines()[-1] == "        other shares, of variations that serve no build here yet"

    def test_what_takes_the_place_of_its_namesake_is_in_another_namespace(self):
        page = shown(change(supersedes=DEPLOYMENT._replace(namespace="old")))
        assert f"in place of old/{DEPLOYMENT.name}" in page

    def test_a_suspended_environment_is_one_line_and_nothing_to_do(self):
        held = [change(target=DEPLOYMENT._replace(name=name), held=plan.SUSPENDED) for name in "ab"]
        assert shown(*held, change(Op.UNCHANGED)).splitlines() == [
            "Nothing to do: 1 object as the specs ask for (2 in suspended environments).",
            "",
            "production",
            "  suspended: nothing is done about 2 objects",
        ]

    def test_an_offline_plan_says_that_it_was_compared_with_nothing(self):
        assert "as if nothing existed yet" in shown(change(), offline=True)

    def test_notes_stand_with_their_environment(self):
        assert "note: it waits" in shown(change(), notes=[Note("production", ORIGIN, "it waits")])

    def test_colours_appear_only_where_they_are_asked_for(self):
        made = plan.assemble([change()])
        assert "\x1b" not in "".join(text.plan(made, width=80, color=False))
        assert "\x1b[32m" in "".join(text.plan(made, width=80, color=True))

    def test_a_terminal_never_obeys_a_name(self):
        evil = Origin("specs/\x1b]0;owned\x07.yaml", 1, "variation", "a\x1b[2Jb\u202e")
        page = shown(Change(Op.CREATE, DEPLOYMENT, "production", evil))
        assert not {"\x1b", "\x07", "\u202e"} & set(page)

    def test_a_problem_is_a_link_with_its_fix_below(self):
        assert list(text.problems([PROBLEM], width=80, color=False)) == [
            "specs/a.yaml:3:7: error: this is no number",
            "      try: write 5",
            "      [schema/type] at /spec/builds/0",
        ]

    def test_a_long_value_is_cut_and_its_length_told(self):
        assert "(5000 characters)" in shown(change(Op.CHANGE, fields=(FieldChange("spec.x", "a" * 5000, "b"),)))

    def test_the_end_of_a_run_counts_outcomes(self):
        done = (Done(change(), Outcome.APPLIED), Done(change(), Outcome.FAILED, "no"))
        page = "\n".join(text.end(Report(plan=plan.assemble([change()]), done=done), width=80, color=False))
        assert "Done: 1 applied, 1 failed." in page
        assert "Not everything is as the specs ask for" in page


FAILED = Done(change(), Outcome.FAILED)
CASES = [
    ("nothing wrong, nothing to do", Report(plan=plan.assemble([change(Op.UNCHANGED)])), 0, 0),
    ("changes to make", Report(plan=plan.assemble([change()])), 0, 2),
    ("changes that were made", Report(plan=plan.assemble([change()]), done=(Done(change(), Outcome.APPLIED),)), 0, 0),
    (
        "changes that are not ready yet",
        Report(plan=plan.assemble([change()]), done=(Done(change(), Outcome.WAITING),)),
        0,
        2,
    ),
    ("an error in the specs", Report(problems=(PROBLEM,), plan=plan.assemble([change()])), 1, 1),
    ("an error in the specs and a cluster that is away", Report((PROBLEM,), trouble=(Trouble("x", "y"),)), 1, 1),
    ("an object that the server refuses", Report(plan=plan.assemble([change(Op.REFUSED)])), 1, 1),
    ("an object that the server refused", Report(plan=plan.assemble([change()]), done=(FAILED,)), 1, 1),
    ("a cluster that is away", Report(trouble=(Trouble("production", "no route"),)), 3, 3),
    ("a cluster that was lost", Report(done=(Done(change(), Outcome.FAILED, infrastructure=True),)), 3, 3),
    (
        "a deletion that a second look at the specs stopped",
        Report(plan=plan.assemble([change()]), done=(Done(change(), Outcome.BLOCKED),)),
        4,
        4,
    ),
    ("a guard", Report(plan=plan.assemble([change()], guards=[GUARD])), 4, 4),
    ("a conflict", Report(plan=plan.assemble([change(Op.CONFLICT)])), 4, 4),
]


@pytest.mark.parametrize(("report", "plain", "detailed"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_exit_code_of(report, plain, detailed):
    assert exit_code(report) == ExitCode(plain)
    assert exit_code(report, detailed=True) == ExitCode(detailed)


def everything():
    fields = (FieldChange("spec.replicas", 2, 3),)
    changes = [change(op, DEPLOYMENT._replace(name=op), fields=fields, supersedes=DEPLOYMENT) for op in Op]
    made = plan.assemble(changes, [Note("production", None, "n"), Note("production", ORIGIN, "n")], [GUARD])
    return Report((PROBLEM,), made, (Done(changes[0], Outcome.APPLIED),), (Trouble("a", "b"),))


class TestMachine:
    def test_json_fits_the_published_schema(self):
        schema = json.loads(machine.SCHEMA_FILE.read_text())
        jsonschema.Draft202012Validator.check_schema(schema)
        for report in (everything(), Report()):
            jsonschema.validate(json.loads(machine.report(report, "json")), schema)

    def test_the_schema_knows_every_operation_and_outcome(self):
        schema = json.loads(machine.SCHEMA_FILE.read_text())
        assert schema["$defs"]["op"]["enum"] == [op.value for op in Op]
        assert schema["$defs"]["result"]["properties"]["outcome"]["enum"] == [outcome.value for outcome in Outcome]

    def test_yaml_says_the_same_as_json(self):
        report = everything()
        assert yaml.safe_load(machine.report(report, "yaml")) == json.loads(machine.report(report, "json"))

    def test_manifests_are_a_stream_or_a_list(self):
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "y"}}
        assert list(yaml.safe_load_all(machine.manifests([body, body], "yaml"))) == [body, body]
        assert json.loads(machine.manifests([body], "json"))["items"] == [body]


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=8)
    | st.sampled_from(["1234e5", "y", "012", "", " a ", "#", "- x"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=20,
)


class TestQuotedYaml:
    @given(st.dictionaries(st.text(max_size=6), values, max_size=5))
    def test_any_data_survives_a_yaml_1_1_reader(self, data):
        assert yaml.safe_load(quoted_yaml.dump(data)) == (data or {})

    @pytest.mark.parametrize("word", ["y", "no", "1234e5", "0o17", "012", "12:30:45", "~", "null", "2024-01-02"])
    def test_a_string_that_a_reader_could_take_for_something_else_is_quoted(self, word):
        assert f'"{word}"' in quoted_yaml.dump({"key": word})

    @pytest.mark.parametrize("word", ["y", "on", "null", "1", "a b", ""])
    def test_a_key_that_a_reader_could_take_for_something_else_is_quoted(self, word):
        assert quoted_yaml.dump({word: 1}).startswith(f'"{word}"')

    def test_what_a_terminal_would_obey_is_escaped(self):
        assert "\x1b" not in quoted_yaml.dump({"a": "\x1b[2J\u202e\x07"})

    def test_lists_in_maps_and_maps_in_lists_read_as_kubernetes_users_write_them(self):
        page = quoted_yaml.dump({"spec": {"containers": [{"name": "a", "args": ["x", "y"]}, {"name": "b", "env": []}]}})
        assert page.splitlines() == [
            "spec:",
            "  containers:",
            '  - name: "a"',
            "    args:",
            '    - "x"',
            '    - "y"',
            '  - name: "b"',
            "    env: []",
        ]


def test_orjson_and_the_plan_agree_on_what_a_value_is():
    assert orjson.loads(machine.report(everything(), "json"))["plan"]["changes"][0]["fields"][0]["new"] == 3
