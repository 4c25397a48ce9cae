"""The command as it is used without a cluster: help, messages, exit codes, pipes and terminals."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import termios
import threading
import time
from pathlib import Path

import jsonschema
import pytest
import yaml

from reconciler.report import machine
from tests.contract.faults import FaultProxy, stall
from tests.e2e.harness import (
    COMMIT,
    EXAMPLES,
    REPOSITORY,
    ROOT,
    Place,
    Plane,
    before,
    build,
    document,
    environment,
    variation,
)

COMMANDS = ["", "validate", "render", "schema", "up", "down"]
KINDS = ["document", "environment", "build", "variation", "audience", "automation"]
SPECS = ("-f", EXAMPLES / "specs")

BROKEN = f"""\
api_version: v1
spec:
  environments:
    - name: prod
      data_plane: embeded
  builds:
    - name: churn-1
      model: churn
      git_uri: {REPOSITORY}#churn
      git_commit: {COMMIT}
      timeout_minutes: soon
"""
ALSO_BROKEN = """\
api_version: v1
spec:
  audiences:
    - name: children
      priority: 1
      conditions:
        unary:
          - {key: age, operator: LESS_THAN, operand: 18}
"""


class TestHelp:
    @pytest.mark.parametrize("command", COMMANDS)
    def test_each_command_shows_examples_and_exit_codes(self, place: Place, command: str):
        shown = place.reconcile(*command.split(), "--help")
        assert shown.code == 0
        assert "Examples:\n    reconcile" in shown.out
        assert "Exit codes: 0 " in shown.out
        assert not shown.err

    def test_every_command_and_every_exit_code_is_on_the_first_page(self, place: Place):
        page = " ".join(place.reconcile("-h").out.split())
        assert all(f" {command} " in page for command in COMMANDS if command)
        assert all(f" {code} " in page for code in (0, 1, 2, 3, 4, 130)), page

    def test_help_does_not_pay_for_what_the_commands_need(self, place: Place):
        python = place.command.parent / "python"
        code = (
            "import os, sys; sys.argv = ['reconcile', '--help']\n"
            "from reconciler.cli import main\n"
            "leave = os._exit\n"
            "os._exit = lambda code: (print(*sys.modules, file=sys.stderr, flush=True), leave(code))\n"
            "main()"
        )
        run = subprocess.run([python, "-c", code], cwd=place.folder, capture_output=True, text=True, check=True)
        loaded = set(run.stderr.split())
        assert "typer" in loaded
        assert loaded.isdisjoint({"kubernetes", "urllib3", "pydantic", "yaml", "jinja2", "git", "jsonschema_rs"})


class TestArguments:
    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--dri-run"], "--dry-run"),
            (["frobnicate"], "frobnicate"),
            (["-o", "xml"], "'xml' is not one of 'text', 'json', 'yaml'"),
            (["render", "-o", "text"], "'yaml', 'json'"),
            (["--wait", "soon"], "--wait"),
            (["--mirror", "https://git.example.com"], "--mirror wants FROM=TO"),
            (["schema", "deployment"], "there is no kind 'deployment'; there are"),
            (["--live"], "--live goes with --dry-run"),
            (["--context", "prod"], "--context goes with --kubeconfig"),
            (["-f", "specs", "validate"], "options come after the command: reconcile validate"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_a_wrong_command_line_ends_with_1_and_a_sentence(self, place: Place, arguments: list[str], words: str):
        run = place.reconcile(*arguments)
        assert run.code == 1, "2 would tell a pipeline that there are changes"
        assert words in run.err
        assert len(run.err.splitlines()) == 1
        assert not run.out

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--git", "foo"], "--git: 'foo' is not an address that git is given"),
            (["--git", "http://host/x"], "--git: 'http://host/x' is not an address that git is given"),
            (["--git", "https://me:planted@host/x"], "--git: 'https://***@host/x' is not an address that git is given"),
            (["--git", "file:///x", "--path", "../x"], "--path: '../x' is not a folder of a repository"),
            (["--git", "file:///x", "--address", "8080"], "--address: '8080' is no address to listen at"),
            (["--git", "file:///x", "--webhook-address", "x:y"], "--webhook-address: 'x:y' is no address to listen at"),
        ],
        ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) else "",
    )
    def test_what_a_daemon_could_never_follow_or_listen_at_is_said_before_it_begins(
        self, place: Place, arguments: list[str], words: str
    ):
        run = place.reconcile("run", *arguments)
        assert run.code == 1
        assert words in run.err
        assert len(run.err.splitlines()) == 1
        assert "planted" not in run.err
        assert not (place.folder / ".trueup").exists()

    def test_a_daemon_without_a_cluster_ends_with_3(self, place: Place):
        run = place.reconcile("run", "--git", "file:///x")
        assert run.code == 3
        assert "reconcile up" in run.err

    def test_a_daemon_whose_port_is_taken_says_so_once_and_what_to_do(self, place: Place):
        cluster = {"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}
        context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
        users = [{"name": "u", "user": {"token": "t"}}]
        text = {"clusters": [cluster], "contexts": [context], "users": users, "current-context": "c"}
        kubeconfig = place.write("kubeconfig", yaml.safe_dump({"apiVersion": "v1", "kind": "Config", **text}))
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            run = place.reconcile("run", "--git", "file:///x", "--kubeconfig", kubeconfig, "--address", address)
        assert run.code == 3
        said = [line for line in run.err.splitlines() if line.startswith("reconcile:")]
        advice = "another program listens there; choose another one with --address"
        assert said == [f"reconcile: cannot listen at {address}: {advice}"]

    def test_a_path_that_is_not_there_names_the_nearest_one(self, place: Place):
        place.write("environments/a.yaml", document(environment("prod")))
        run = place.reconcile("validate", "-f", "environmnets")
        assert run.code == 1
        assert "environmnets:1:1: error: There is no such file or folder." in run.out
        assert "environments" in run.out

    def test_a_folder_without_specs_is_a_problem_and_never_an_empty_wish(self, place: Place):
        run = place.reconcile("--dry-run")
        assert run.code == 1
        assert "[source/no-specs]" in run.out

    def test_without_a_path_the_folder_specs_is_read(self, place: Place):
        place.write("specs/a.yaml", document(environment("prod")))
        place.write("elsewhere.yaml", BROKEN)
        assert place.reconcile("validate").out == "1 spec valid\n"


class TestValidate:
    def test_the_examples_are_valid(self, place: Place):
        run = place.reconcile("validate", *SPECS)
        assert run.code == 0, run.out
        assert re.fullmatch(r"\d+ specs valid\n", run.out)

    def test_every_problem_of_every_file_is_told_at_once_with_place_rule_and_fix(self, place: Place):
        place.write("specs/a.yaml", BROKEN)
        place.write("specs/b.yaml", ALSO_BROKEN)
        run = place.reconcile("validate")
        assert run.code == 1
        places = re.findall(r"^(\S+:\d+:\d+): error: .+\.$", run.out, re.MULTILINE)
        assert places == ["specs/a.yaml:5:19", "specs/a.yaml:11:24", "specs/b.yaml:8:54"]
        assert re.findall(r"^ +\[([a-z-]+/[a-z-]+)\] at /spec/", run.out, re.MULTILINE) == [
            "schema/value",
            "schema/type",
            "schema/type",
        ]
        assert "try: write embedded" in run.out
        assert 'try: write "18", with quotes' in run.out
        assert run.out.splitlines()[-1].startswith("3 errors; ")

    def test_a_file_that_is_no_text_is_a_problem_of_that_file(self, place: Place):
        (place.folder / "specs").mkdir()
        (place.folder / "specs/a.yaml").write_bytes(b"\xff\xfe\x00api_version")
        place.write("specs/b.yaml", document(environment("prod")))
        run = place.reconcile("validate")
        assert run.code == 1
        assert run.out.startswith("specs/a.yaml:1:1: error: ")
        assert "1 valid spec" in run.out

    @pytest.mark.parametrize("form", ["json", "yaml"])
    def test_programs_read_the_same(self, place: Place, form: str):
        place.write("specs/a.yaml", BROKEN)
        run = place.reconcile("validate", "-o", form)
        report = yaml.safe_load(run.out)
        jsonschema.validate(report, json.loads(machine.SCHEMA_FILE.read_text()))
        assert run.code == report["exit_code"] == 1
        assert [(one["file"], one["line"], one["column"]) for one in report["problems"]] == [
            ("specs/a.yaml", 5, 19),
            ("specs/a.yaml", 11, 24),
        ]


class TestDryRun:
    def test_offline_it_shows_everything_as_new(self, place: Place):
        run = place.reconcile("--dry-run", *SPECS)
        assert run.code == 0
        assert re.match(r"Plan [0-9a-f]{12}: \d+ to create\.\nOffline: ", run.out)
        assert not run.err

    def test_it_is_the_same_each_time_and_wherever_it_runs(self, place: Place):
        first, second = (place.reconcile("--dry-run", *SPECS, "-o", "json", PYTHONHASHSEED=seed) for seed in "12")
        assert first.out == second.out

    def test_detailed_exit_codes_tell_changes_from_none(self, place: Place):
        assert place.reconcile("--dry-run", *SPECS, "--detailed-exitcode").code == 2

    def test_a_spec_with_an_error_does_not_hide_the_others(self, place: Place):
        place.write("specs/a.yaml", ALSO_BROKEN)
        place.write("specs/b.yaml", document(environment("prod")))
        run = place.reconcile("--dry-run")
        assert run.code == 1
        assert "+ Namespace prod" in run.out
        assert "specs/a.yaml:8:54: error: " in run.out

    @pytest.mark.parametrize("form", ["json", "yaml"])
    def test_what_programs_read_fits_the_published_schema(self, place: Place, form: str):
        published = json.loads(place.reconcile("schema", "plan").out)
        run = place.reconcile("--dry-run", *SPECS, "-o", form)
        report = yaml.load(run.out, yaml.CSafeLoader)
        jsonschema.validate(report, published)
        assert report["plan"]["offline"] is True
        assert report["plan"]["summary"]["create"] == len(report["plan"]["changes"]) > 50


class TestRender:
    def test_kubectl_takes_what_is_rendered(self, plane: Plane):
        rendered = plane.reconcile("render", *SPECS)
        assert rendered.code == 0
        assert not rendered.err
        plane.write("manifests.yaml", rendered.out)
        taken = plane.kubectl("apply", "--dry-run=client", "--validate=strict", "-f", "manifests.yaml")
        assert taken.returncode == 0, taken.stderr
        assert not taken.stderr
        count = len(list(yaml.load_all(rendered.out, yaml.CSafeLoader)))
        assert taken.stdout.count("(dry run)") == count > 50

    def test_json_is_one_list_of_the_same_objects(self, place: Place):
        as_yaml = place.reconcile("render", *SPECS, "-e", "staging").out
        as_json = place.reconcile("render", *SPECS, "-e", "staging", "-o", "json").data
        assert as_json["kind"] == "List"
        assert as_json["items"] == list(yaml.load_all(as_yaml, yaml.CSafeLoader))
        assert {one["metadata"].get("namespace", "staging") for one in as_json["items"]} == {"staging"}

    def test_problems_go_beside_the_manifests(self, place: Place):
        place.write("specs/a.yaml", ALSO_BROKEN)
        place.write("specs/b.yaml", document(environment("prod")))
        run = place.reconcile("render")
        assert run.code == 1
        assert next(yaml.safe_load_all(run.out))["kind"] == "Namespace"
        assert "specs/a.yaml:8:54: error: " in run.err


class TestSchema:
    @pytest.mark.parametrize("kind", KINDS)
    def test_is_the_committed_file(self, place: Place, kind: str):
        run = place.reconcile("schema", kind)
        assert run.out == (ROOT / "schemas" / f"{kind}.schema.json").read_text()
        jsonschema.Draft202012Validator.check_schema(run.data)

    def test_without_a_kind_it_is_that_of_a_whole_document(self, place: Place):
        assert place.reconcile("schema").out == (ROOT / "schemas/document.schema.json").read_text()


class TestPipes:
    @pytest.mark.parametrize("arguments", [("--dry-run",), ("render",), ("--dry-run", "-o", "json")], ids=" ".join)
    def test_a_reader_that_leaves_early_is_no_failure(self, place: Place, arguments: tuple[str, ...]):
        process = place.start(*arguments, *SPECS)
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(30) == 0
        process.stderr.close()

    def test_a_reader_that_leaves_does_not_stop_a_run_half_way(self, plane: Plane, name: str):
        specs = plane.write("a.yaml", before(name))
        process = plane.start("-f", specs)
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(30) == 0
        process.stderr.close()
        again = plane.reconcile("-f", specs, "--detailed-exitcode")
        assert (again.code, again.out.splitlines()[0][:13]) == (0, "Nothing to do")

    def test_an_interrupt_ends_a_run_at_once_with_130_and_the_next_one_completes_it(
        self, plane: Plane, name: str, tmp_path: Path
    ):
        specs = plane.write("a.yaml", before(name))
        asked, over = threading.Event(), threading.Event()

        def hang(handler: object, request: bytes) -> None:
            asked.set()
            stall(over)(handler, request)  # type: ignore[arg-type]  # a handler, whose class is private

        with FaultProxy(plane.kubeconfig) as proxy:
            proxy.inject(hang, method="PATCH", path="/deployments/", times=100)
            process = plane.start("-f", specs, "--kubeconfig", proxy.kubeconfig(tmp_path / "kubeconfig"))
            assert asked.wait(30)
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=20)
            over.set()
        assert process.returncode == 130
        assert time.monotonic() - began < 15
        assert err == "\ninterrupted; what was done stays, and the next run goes on from there\n"
        assert plane.reconcile("-f", specs).code == 0
        assert plane.reconcile("-f", specs, "--detailed-exitcode").code == 0


class Terminal:
    """A command on a terminal of so many columns: what the person sees."""

    def __init__(self, place: Place, columns: int, *arguments: str | Path, **environment: str) -> None:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        process = subprocess.Popen(
            [place.command, *map(str, arguments)],
            cwd=place.folder,
            env=place.environment(**{"TERM": "xterm-256color", **environment}),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        seen = b""
        try:
            while chunk := os.read(ours, 65536):
                seen += chunk
        except OSError:  # Linux says that the other end closed in this way
            pass
        os.close(ours)
        self.code = process.wait(30)
        self.page = seen.decode().replace("\r\n", "\n")

    @property
    def plain(self) -> str:
        return re.sub(r"\x1b\[\d*m", "", self.page)


class TestTerminals:
    """Lines fit, and colours mean something, but only where somebody sees them."""

    @pytest.fixture
    def specs(self, place: Place) -> None:
        place.write(
            "specs/a.yaml",
            document(
                environment("prod"),
                build("churn-1", "churn"),
                variation("churn", "default", "prod", build="churn-1"),
            ),
        )

    def test_80_columns_get_colours_and_no_wider_lines(self, place: Place, specs: None):
        terminal = Terminal(place, 80, "--dry-run")
        assert terminal.code == 0
        assert "\x1b[32m+ Namespace\x1b[0m prod" in terminal.page
        assert max(map(len, terminal.plain.splitlines())) <= 80

    def test_a_narrow_terminal_wraps(self, place: Place, specs: None):
        place.write("specs/a-folder-with-a-rather-long-name/b.yaml", document(environment("staging")))
        terminal = Terminal(place, 50, "--dry-run", NO_COLOR="1")
        assert max(map(len, terminal.page.splitlines())) <= 50
        assert "\x1b" not in terminal.page

    @pytest.mark.parametrize(
        ("variable", "value", "colours"), [("NO_COLOR", "1", False), ("NO_COLOR", "", True), ("TERM", "dumb", False)]
    )
    def test_colours_are_left_out_where_somebody_asks_for_none(
        self, place: Place, specs: None, variable: str, value: str, colours: bool
    ):
        environment = {"TERM": "xterm", variable: value}
        terminal = Terminal(place, 80, "--dry-run", **environment)
        assert ("\x1b" in terminal.page) is colours

    def test_a_pipe_gets_no_colours(self, place: Place, specs: None):
        assert "\x1b" not in place.reconcile("--dry-run", TERM="xterm").out

    def test_problems_are_coloured_and_still_links(self, place: Place):
        place.write("specs/a.yaml", BROKEN)
        terminal = Terminal(place, 80, "validate")
        assert terminal.code == 1
        assert "specs/a.yaml:5:19" in terminal.page
        assert "\x1b[31merror\x1b[0m" in terminal.page
