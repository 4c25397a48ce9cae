"""What `reconcile import` knows of a Python file without running it, and what it says of the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from reconciler.importing import Imported, Options, convert

BOTH = {
    "qwak": "from qwak.automations import *\n",
    "frogml": "from frogml.core.automations import *\n",
}
BUILD = "build_spec=BuildSpecifications(git_uri='https://git.example.com/models#churn')"


def imported(*lines: str, head: str = BOTH["qwak"], **others: str) -> Imported:
    files = {"a.py": head + "\n".join(lines), **{f"{name}.py": text for name, text in others.items()}}
    return convert({name: text.encode() for name, text in files.items()}, Options("production"))


def automation(action: str = f"QwakBuildDeploy({BUILD})", **fields: str) -> str:
    """An automation as a line of Python; every field is an expression."""
    given = {"name": "'a'", "model_id": "'churn'", "trigger": "NoneTrigger()", "action": action, **fields}
    return f"x = Automation({', '.join(f'{key}={value}' for key, value in given.items())})"


def specs(result: Imported, kind: str = "automations") -> list[dict[str, Any]]:
    return [spec for text in result.files.values() for spec in yaml.safe_load(text)["spec"].get(kind, ())]


def only(result: Imported) -> dict[str, Any]:
    (spec,) = specs(result)
    return spec


def messages(result: Imported, rule: str = "import/unknown") -> list[str]:
    return [problem.message for problem in result.told if problem.rule == rule]


# -- what is known -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "head",
    [
        "from qwak.automations import Automation, NoneTrigger, QwakBuildDeploy, BuildSpecifications",
        "from frogml.core.automations import *\nfrom frogml import FrogmlBuildDeploy as QwakBuildDeploy",
        "from qwak.automations import *",
        "from qwak_sdk.qwak.automations import *",
        "try:\n    from frogml.core.automations import *\nexcept ImportError:\n    from qwak.automations import *",
    ],
)
def test_both_namings_of_the_sdk_are_read(head: str) -> None:
    result = imported(automation(), head=f"{head}\n")
    assert result.is_whole
    assert only(result)["build_spec"]["git_uri"] == "https://git.example.com/models#churn"


@pytest.mark.parametrize(
    ("head", "name"),
    [
        ("import qwak.automations as qa", "qa"),
        ("import qwak.automations", "qwak.automations"),
        ("from qwak import automations", "automations"),
        ("from frogml.core import automations as fa", "fa"),
    ],
)
def test_the_sdk_is_known_under_an_alias(head: str, name: str) -> None:
    line = f"x = {name}.Automation(name='a', model_id='churn', trigger={name}.NoneTrigger())"
    assert only(imported(line, head=f"{head}\n"))["trigger"] == "manual"


@pytest.mark.parametrize(
    ("lines", "expression", "value"),
    [
        ([], "'release'", "release"),
        ([], "'rel' 'ease'", "release"),
        (["B = 'release'"], "B", "release"),
        (["B: str = 'release'"], "B", "release"),
        (["A = B = 'release'"], "A", "release"),
        (["A, B = 'x', 'release'"], "B", "release"),
        (["B = 'x'", "B = 'release'"], "B", "release"),
        (["B = 're'", "B += 'lease'"], "B", "release"),
        (["B = 'lease'"], "'re' + B", "release"),
        (["B = 'lease'"], "f're{B}'", "release"),
        (["C = {'branch': 'release'}"], "C['branch']", "release"),
        (["C = dict(branch='release')"], "C['branch']", "release"),
        (["C = ['x', 'release']"], "C[-1]", "release"),
        (["if __name__ == '__main__':", "    B = 'other'", "B = 'release'"], "B", "release"),
    ],
)
def test_constants_of_the_file_are_known(lines: list[str], expression: str, value: str) -> None:
    action = f"QwakBuildDeploy({BUILD[:-1]}, git_branch={expression}))"
    result = imported(*lines, automation(action))
    assert only(result)["build_spec"]["git_branch"] == value
    assert result.is_whole


def test_constants_of_other_files_are_known_and_circles_end() -> None:
    head = BOTH["qwak"] + "from b import BRANCH\nimport b\nfrom . import b as c\n"
    action = f"QwakBuildDeploy({BUILD[:-1]}, git_branch=BRANCH, main_dir=b.FOLDER, tags=[c.TAG]))"
    result = imported(
        automation(action), head=head, b="from a import x\nBRANCH, FOLDER, TAG = 'release', 'src', 'nightly'"
    )
    build = only(result)["build_spec"]
    assert (build["git_branch"], build["main_dir"], build["tags"]) == ("release", "src", ["nightly"])


def test_arguments_may_come_by_position_and_from_dictionaries() -> None:
    condition = "BuildMetric('f1', ThresholdDirection.BELOW, '1')"
    action = f"QwakBuildDeploy(BuildSpecifications({{'n': '1'}}, **COMMON), {condition}, D)"
    result = imported(
        "COMMON = dict(git_uri='https://git.example.com/models')",
        "D = DeploymentSpecifications(4, variation_name='b')",
        automation(action),
    )
    spec = only(result)
    assert spec["build_spec"]["parameters"] == {"n": "1"}
    assert spec["deployment_condition"] == {"metric_name": "f1", "direction": "BELOW", "threshold": "1"}
    assert spec["deployment_spec"]["number_of_http_server_workers"] == 4


def test_a_number_as_a_threshold_becomes_text_and_that_is_told() -> None:
    action = f"QwakBuildDeploy({BUILD}, deployment_condition=BuildMetric('f1', threshold=0.65), D)"
    action = action.replace(", D)", ", deployment_spec=DeploymentSpecifications())")
    result = imported(automation(action))
    assert only(result)["deployment_condition"]["threshold"] == "0.65"
    assert "was the number 0.65; it was written as text" in messages(result, "import/changed")[0]


def test_the_interval_of_a_schedule_wins_over_its_cron() -> None:
    result = imported(automation(trigger="ScheduledTrigger(cron='0 0 * * *', interval='weekly')"))
    assert only(result)["trigger"] == {"scheduled": {"interval": "Weekly"}}


def test_an_automation_that_the_platform_would_not_find_is_not_imported() -> None:
    result = imported(automation(), automation(name="'b'").replace("x =", "y ="), "x = 1")
    assert [spec["name"] for spec in specs(result)] == ["b"]
    assert messages(result) == ["An automation is made here that no name of the module holds: it was not imported."]


# -- what is not known -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "expression", "why"),
    [
        (["import os"], "os.environ['B']", "is read from the environment"),
        (["import os"], "os.getenv('B', 'main')", "is read from the environment"),
        (["from config import B"], "B", "comes from the module config, which is not among the files"),
        ([], "B", "is the name B, which the file does not set"),
        (["def f(): return 'x'"], "f()", "is what f() gives back"),
        (["def f(): return 'x'"], "f", "is a function"),
        (["B = 'x' if 1 else 'y'"], "B", "depends on a condition"),
        (["if 1:", "    B = 'x'"], "B", "is set inside a statement (if)"),
        (["for B in 'xy': pass"], "B", "is set inside a statement (for)"),
        (["B = 'x'", "while 1:", "    B = 'y'"], "B", "is set inside a statement (while)"),
        (["B = ['x']", "B.append('y')"], "B[0]", "is changed after it was made, on line 3"),
        (["B = ['x']", "B[0] = 'y'"], "B[0]", "is changed after it was made"),
        (["A = ['x']", "B = A", "A += ['y']"], "B[0]", "is changed after it was made"),
        ([], "'{}'.format('x')", "is what ....format() gives back"),
        ([], "'x' * 3", "is computed (Mult)"),
        ([], "f'{1:>10}'", "is formatted"),
        ([], "b'x'", "is a bytes that no spec can hold"),
        ([], "'\\ud800'", "holds a character that no spec can hold"),
        ([], "(lambda: 'x')()", "is what ...() gives back"),
        ([], "[b for b in 'x'][0]", "is computed (ListComp)"),
        (["B = 1; del B"], "B", "is the name B, which the file does not set"),
    ],
)
def test_what_only_running_would_tell_is_told_with_its_place(lines: list[str], expression: str, why: str) -> None:
    result = imported(*lines, automation(f"QwakBuildDeploy({BUILD[:-1]}, git_branch={expression}))"))
    (problem,) = [problem for problem in result.told if problem.rule == "import/unknown"]
    assert f"git_branch of build_spec of the automation a cannot be known: it {why}" in problem.message
    assert problem.file == "a.py"
    assert 2 <= problem.line <= len(lines) + 2
    assert "git_branch" not in only(result)["build_spec"]
    (text,) = [text for name, text in result.files.items() if name.startswith("automations/")]
    assert "# import: git_branch: it" in text
    assert not result.is_whole


def test_an_object_that_is_changed_after_it_was_made_is_not_known() -> None:
    result = imported(
        "d = DeploymentSpecifications()", automation(f"QwakBuildDeploy({BUILD}, deployment_spec=d)"), "d.memory = '8Gi'"
    )
    assert any("is changed after it was made, on line 4" in message for message in messages(result))


@pytest.mark.parametrize(
    "lines",
    [
        ["def make():", "    return Automation(name='a')"],
        ["for n in 'ab':", "    x = Automation(name=n)"],
        ["xs = [Automation(name=n) for n in 'ab']"],
        ["xs = [Automation(name='a')]"],
        ["register(Automation(name='a'))"],
    ],
)
def test_automations_that_are_made_on_the_way_are_told_and_left_out(lines: list[str]) -> None:
    result = imported(*lines)
    assert specs(result) == []
    assert "it was not imported" in messages(result)[0]


def test_columns_count_characters_and_not_bytes() -> None:
    result = imported("é = 'ö'; " + automation(environment="unknown"))
    (problem,) = [problem for problem in result.told if "environment" in problem.message]
    line = "é = 'ö'; " + automation(environment="unknown")
    assert problem.column == line.index("unknown") + 1


# -- files that are not read -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"import qwak\nprint 'x'\n", "This is not Python 3: Missing parentheses in call to 'print'"),
        (b"import qwak\nx = Automation(", "This is not Python 3: '(' was never closed"),
        (b"import qwak\n\xff\xfe = 1", "The file is not UTF-8 from here on."),
        (b"import qwak\n\0", "This is a binary file, and no Python."),
        (b"# qwak\nx = " + b"-" * 50_000 + b"1", "The file is nested too deeply."),
        (b"# qwak\nx = 1" + b"+1" * 50_000, "The file is nested too deeply."),
        (b"# qwak\nx = " + b"[" * 5_000, "This is not Python 3: too many nested parentheses"),
        (b"# qwak\n" + b"#" * 300_000, "The file has 300,007 bytes and 262,144 are read of a Python file."),
    ],
)
def test_a_file_that_is_no_python_is_told_and_the_others_are_read(content: bytes, message: str) -> None:
    good = f"{BOTH['frogml']}{automation().replace('Qwak', 'Frogml')}".encode()
    result = convert({"bad.py": content, "good.py": good}, Options("production"))
    (problem,) = [problem for problem in result.told if problem.file == "bad.py"]
    assert problem.message.startswith(message)
    assert only(result)["name"] == "a"


def test_windows_line_ends_and_a_byte_order_mark_are_read() -> None:
    text = "\ufeff" + (BOTH["qwak"] + automation(environment="unknown")).replace("\n", "\r\n")
    result = convert({"a.py": text.encode()}, Options("production"))
    assert only(result)["name"] == "a"
    assert {(problem.line) for problem in result.told} == {2}


def test_files_that_do_not_speak_of_the_platform_are_counted_only() -> None:
    files: Mapping[str, bytes] = {"a.py": b"print 'x'", "b.yaml": b"name: x", "c.json": b"[1]", "d.py": b"import qwak"}
    result = convert(files, Options())
    assert (result.others, result.told, result.files) == (4, (), {})
