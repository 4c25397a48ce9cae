"""The chart's alerts and its dashboard: what they ask for is exported, and each alert fires when it should."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from reconciler.telling.metrics import Metrics
from tests.contract.helm import CHART, EVERYTHING, found, rendered

PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None and "CI" not in os.environ, reason="needs promtool (Debian: apt-get install prometheus)"
)


def exported() -> set[str]:
    """The name of every series that the reconciler exports."""
    names = set(re.findall(r"^# TYPE (\S+) ", Metrics("0").render().decode(), re.MULTILINE))
    return names | {f"{name}_{part}" for name in names for part in ("bucket", "count", "sum")}


def expressions() -> Iterator[tuple[str, str]]:
    bodies = rendered(EVERYTHING)
    for group in found(bodies, "PrometheusRule")["spec"]["groups"]:
        yield from ((rule["alert"], rule["expr"]) for rule in group["rules"])
    dashboard = json.loads(found(bodies, "ConfigMap", "trueup.dashboard")["data"]["trueup.json"])
    for panel in dashboard["panels"]:
        yield from ((panel["title"], target["expr"]) for target in panel["targets"])
    for variable in dashboard["templating"]["list"]:
        yield variable["name"], variable["query"]


def test_every_metric_that_is_asked_for_is_exported() -> None:
    there = exported()
    asked = {(who, name) for who, text in expressions() for name in re.findall(r"\b(?:trueup|process)_\w+", text)}
    assert {(who, name) for who, name in asked if name not in there} == set()
    assert len(asked) > 20


@needs_promtool
def test_prometheus_reads_the_rules_as_they_are_rendered(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(found(rendered(EVERYTHING), "PrometheusRule")["spec"]))
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", str(tmp_path / "rules.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_prometheus_reads_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": text.replace("$__rate_interval", "5m").replace("$environment", ".*")}
        for number, (_, text) in enumerate(expressions())
        if "(" in text and not text.startswith("label_values")
    ]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = promtool("check", "rules", str(tmp_path / "rules.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_says_how_grave_it_is_and_what_to_do() -> None:
    [group] = found(rendered(EVERYTHING), "PrometheusRule")["spec"]["groups"]
    for rule in group["rules"]:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["labels"]["team"] == "ml"
        assert rule["annotations"].keys() == {"summary", "runbook"}


#: Series, one value a minute, and the moment at which exactly these alerts fire.
ALERTS: dict[str, tuple[dict[str, str], str, dict[str, str]]] = {
    "TrueupNoLeader": ({'trueup_leader{pod="a"}': "0x20", 'trueup_leader{pod="b"}': "0x20"}, "5m", {}),
    "TrueupTwoLeaders": ({'trueup_leader{pod="a"}': "1x20", 'trueup_leader{pod="b"}': "1x20"}, "5m", {}),
    "TrueupReconcileFailing": (
        {
            'trueup_objects{environment="e",state="failed"}': "2x30",
            'trueup_objects{environment="e",state="ready"}': "9x30",
        },
        "15m",
        {"environment": "e"},
    ),
    "TrueupNotSettling": (
        {
            'trueup_unsettled_units{environment="e"}': "3x90",
            'trueup_reconcile_duration_seconds_count{environment="e"}': "0+5x90",
        },
        "75m",
        {"environment": "e"},
    ),
    "TrueupStuck": (
        {
            'trueup_unsettled_units{environment="e"}': "3x40",
            'trueup_reconcile_duration_seconds_count{environment="e"}': "7x40",
        },
        "35m",
        {"environment": "e"},
    ),
    "TrueupDriftPersists": (
        {'trueup_oldest_drift_timestamp_seconds{environment="e"}': "60x40"},
        "25m",
        {"environment": "e"},
    ),
    "TrueupPruneBlocked": ({'trueup_blocked_prunes{environment="e"}': "4x30"}, "20m", {"environment": "e"}),
    "TrueupChangesForbidden": ({'trueup_forbidden_changes{environment="e"}': "4x30"}, "20m", {"environment": "e"}),
    "TrueupGitFetchFailing": (
        {
            'trueup_git_fetches_total{repository="specs"}': "0+1x40",
            'trueup_git_fetch_failures_total{repository="specs"}': "0+1x40",
        },
        "30m",
        {"repository": "specs"},
    ),
    "TrueupSpecsInvalid": ({'trueup_spec_problems{severity="error"}': "2x30"}, "15m", {}),
    "TrueupWatchRestarts": (
        {'trueup_watch_restarts_total{cluster="c",reason="x"}': "0+10x60"},
        "40m",
        {"cluster": "c"},
    ),
    "TrueupForbidden": (
        {
            'trueup_api_requests_total{cluster="c",verb="patch",code="403"}': "0+1x60",
            'trueup_api_requests_total{cluster="c",verb="patch",code="200"}': "0+100x60",
        },
        "40m",
        {"cluster": "c", "verb": "patch"},
    ),
    "TrueupApiErrors": (
        {
            'trueup_api_requests_total{cluster="c",verb="get",code="timeout"}': "0+1x60",
            'trueup_api_requests_total{cluster="c",verb="get",code="200"}': "0+4x60",
        },
        "30m",
        {"cluster": "c"},
    ),
    "TrueupGateErrors": (
        {'trueup_gate_verdicts_total{environment="e",outcome="error"}': "0 0 1x40"},
        "10m",
        {"environment": "e"},
    ),
}
#: As it is when all is well.
HEALTHY = {
    'trueup_leader{pod="a"}': "1x100",
    'trueup_leader{pod="b"}': "0x100",
    'trueup_objects{environment="e",state="ready"}': "9x100",
    'trueup_objects{environment="e",state="failed"}': "0x100",
    'trueup_unsettled_units{environment="e"}': "0x100",
    'trueup_reconcile_duration_seconds_count{environment="e"}': "7x100",
    'trueup_blocked_prunes{environment="e"}': "0x100",
    'trueup_forbidden_changes{environment="e"}': "0x100",
    'trueup_git_fetches_total{repository="specs"}': "0+1x100",
    'trueup_git_fetch_failures_total{repository="specs"}': "0 0 1x98",
    'trueup_spec_problems{severity="error"}': "1x5 0x95",
    'trueup_spec_problems{severity="warning"}': "3x100",
    'trueup_watch_restarts_total{cluster="c",reason="x"}': "0+1x100",
    'trueup_api_requests_total{cluster="c",verb="get",code="200"}': "0+50x100",
    'trueup_api_requests_total{cluster="c",verb="get",code="404"}': "0+20x100",
    'trueup_gate_verdicts_total{environment="e",outcome="rejected"}': "0+1x100",
}


def fires(series: dict[str, str], when: str, expected: dict[str, dict[str, str]], folder: Path) -> str:
    """What promtool has to say against just these alerts firing at that moment, by name; "" for nothing."""
    rules = yaml.safe_load((CHART / "files/alerts.yaml").read_text())
    severities = {rule["alert"]: rule["labels"]["severity"] for group in rules["groups"] for rule in group["rules"]}
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule["annotations"] = {}
    (folder / "alerts.yaml").write_text(yaml.safe_dump(rules))
    checks = [
        {
            "eval_time": when,
            "alertname": name,
            "exp_alerts": [{"exp_labels": expected[name] | {"severity": severity}}] if name in expected else [],
        }
        for name, severity in severities.items()
    ]
    given = [{"series": name, "values": values} for name, values in series.items()]
    test = {"interval": "1m", "input_series": given, "alert_rule_test": checks}
    (folder / "test.yaml").write_text(yaml.safe_dump({"rule_files": ["alerts.yaml"], "tests": [test]}))
    done = promtool("test", "rules", str(folder / "test.yaml"))
    return "" if done.returncode == 0 else done.stdout + done.stderr


@needs_promtool
@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_fires_when_it_should_and_alone(alert: str, tmp_path: Path) -> None:
    series, when, labels = ALERTS[alert]
    leads = {} if any(name.startswith("trueup_leader") for name in series) else {'trueup_leader{pod="a"}': "1x100"}
    assert fires(leads | series, when, {alert: labels}, tmp_path) == ""


@needs_promtool
def test_no_alert_fires_when_all_is_well(tmp_path: Path) -> None:
    assert fires(HEALTHY, "90m", {}, tmp_path) == ""


@needs_promtool
def test_nobody_who_leads_is_told_also_when_nobody_is_there(tmp_path: Path) -> None:
    assert fires({"up": "1x20"}, "5m", {"TrueupNoLeader": {}}, tmp_path) == ""


def test_every_alert_is_tried() -> None:
    rules = yaml.safe_load((CHART / "files/alerts.yaml").read_text())
    assert {rule["alert"] for group in rules["groups"] for rule in group["rules"]} == ALERTS.keys()


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    assert PROMTOOL is not None, "CI has to install promtool"
    return subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, check=False)
