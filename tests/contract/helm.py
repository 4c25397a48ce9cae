"""The chart, by the engine of Helm 4 (PyPI `helm-python-sdk`): rendered, linted, installed.

`python -m tests.contract.helm` writes the table of values into the chart's README, from the comments of values.yaml.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import helm_python
import yaml

from tests.contract.client import ROOT

CHART = ROOT / "charts/trueup"
README = CHART / "README.md"
NAMESPACE = "trueup-system"
Body = dict[str, Any]

#: The least that has to be said.
MINIMUM: dict[str, Any] = {"git": {"url": "https://git.example.com/ml/specs.git"}}
ENVIRONMENTS = [
    {"name": "staging"},
    {"name": "production", "namespace": "models", "secrets": ["git-token", "slack"]},
]
EVERYTHING: dict[str, Any] = {
    "image": {"digest": f"sha256:{'0' * 64}", "pullSecrets": ["registry"]},
    "git": {
        "url": "git@git.example.com:ml/specs.git",
        "branch": "release/2026",
        "path": "platform/specs",
        "secret": "specs-git",
        "signersSecret": "signers",
    },
    "webhook": {
        "secret": "push",
        "ingress": {
            "enabled": True,
            "className": "nginx",
            "host": "trueup.example.com",
            "tlsSecret": "trueup-tls",
            "annotations": {"cert-manager.io/cluster-issuer": "letsencrypt"},
        },
        "httpRoute": {
            "enabled": True,
            "parentRefs": [{"name": "public", "namespace": "gateways", "sectionName": "https"}],
            "hostnames": ["trueup.example.com"],
        },
    },
    "environments": ENVIRONMENTS,
    "kubeconfigSecrets": ["cluster-eu", "cluster-us"],
    "only": ["staging", "production", "eu"],
    "reconciler": {
        "replicas": 3,
        "logFormat": "console",
        "logLevel": "debug",
        "env": [
            {"name": "HTTPS_PROXY", "value": "http://proxy:3128"},
            {"name": "AWS_REGION", "valueFrom": {"configMapKeyRef": {"name": "region", "key": "name"}}},
        ],
        "volumes": [{"name": "authority", "configMap": {"name": "authority"}}],
        "volumeMounts": [{"name": "authority", "mountPath": "/etc/ssl/ours", "readOnly": True}],
        "podAnnotations": {"team": "ml"},
        "podLabels": {"team": "ml"},
        "nodeSelector": {"pool": "system"},
        "tolerations": [{"key": "system", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "system-cluster-critical",
    },
    "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/trueup"}},
    "flowSchema": {"priorityLevel": "", "concurrencyShares": 50, "distinguisher": "ByUser"},
    "networkPolicy": {
        "webhookFrom": [{"ipBlock": {"cidr": "192.0.2.0/24"}}],
        "egressPorts": [443],
        "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": 5432, "protocol": "TCP"}]}],
    },
    "serviceMonitor": {"enabled": True, "interval": "15s", "labels": {"release": "prometheus"}},
    "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}, "alertLabels": {"team": "ml"}},
    "dashboard": {"enabled": True, "annotations": {"grafana_folder": "ML"}},
}
NOTHING: dict[str, Any] = MINIMUM | {
    "rbac": {"create": False},
    "admissionPolicy": {"enabled": False},
    "flowSchema": {"enabled": False},
    "podDisruptionBudget": {"enabled": False},
    "networkPolicy": {"enabled": False},
    "namespaces": {"create": False},
    "reconciler": {"replicas": 1},
}
#: In a cluster that a reconciler elsewhere works on.
ELSEWHERE: dict[str, Any] = {
    "reconciler": {"enabled": False},
    "serviceAccount": {"tokenSecret": True},
    "environments": ENVIRONMENTS,
}
CASES = {
    "minimum": MINIMUM,
    "environments": MINIMUM | {"environments": ENVIRONMENTS},
    "everything": EVERYTHING,
    "nothing": NOTHING,
    "elsewhere": ELSEWHERE,
}


def rendered(
    values: Mapping[str, Any] = MINIMUM,
    *,
    release: str = "trueup",
    namespace: str = NAMESPACE,
    upgrade: bool = False,
    chart: Path = CHART,
) -> list[Body]:
    """Every object that `helm template` prints, hooks included. Raises `helm_python.HelmError`."""
    return [body for text in texts(values, release, namespace, upgrade, chart).values() for body in bodies(text)]


def texts(
    values: Mapping[str, Any] = MINIMUM,
    release: str = "trueup",
    namespace: str = NAMESPACE,
    upgrade: bool = False,
    chart: Path = CHART,
) -> dict[str, str]:
    """The text of each template, by its path: "templates/NOTES.txt" is one of them."""
    with helm_python.Chart.load(chart) as loaded:
        made = loaded.render(
            dict(values),
            name=release,
            namespace=namespace,
            revision=2 if upgrade else 1,
            is_install=not upgrade,
            is_upgrade=upgrade,
        )
    return {path.partition("/")[2]: text for path, text in made.items()}


def bodies(text: str) -> Iterator[Body]:
    """The objects of a template's text; none of NOTES.txt."""
    try:
        found = list(yaml.safe_load_all(text))
    except yaml.YAMLError:
        return
    yield from (body for body in found if isinstance(body, dict) and "kind" in body)


def found(bodies: list[Body], kind: str, name: str = "trueup", namespace: str | None = None) -> Body:
    """The one object of that kind and name."""
    [one] = [
        body
        for body in bodies
        if (body["kind"], body["metadata"]["name"]) == (kind, name)
        and namespace in (None, body["metadata"].get("namespace"))
    ]
    return one


def lint(values: Mapping[str, Any] = MINIMUM) -> list[str]:
    """What `helm lint --strict` says against the chart."""
    report = helm_python.lint(CHART, dict(values), strict=True, namespace=NAMESPACE)
    # An icon is recommended (severity 1, info); everything from a warning on counts.
    return [*report["errors"], *(m["error"] for m in report["messages"] if m["severity"] > 1)]


def chart_for(namespace: str, folder: Path) -> Path:
    """A copy of the chart for another namespace than the one that the code knows: tests must not meet in that."""
    copy = folder / "trueup"
    shutil.copytree(CHART, copy)
    helpers = copy / "templates/_helpers.tpl"
    text = helpers.read_text()
    assert text.count(NAMESPACE) == 1
    helpers.write_text(text.replace(NAMESPACE, namespace))
    return copy


# -- the README ------------------------------------------------------------------------------------------------------


class Value(NamedTuple):
    """One value of values.yaml, as its comment describes it."""

    key: str
    default: str
    text: str


def values() -> Iterator[Value]:
    """Every value that has a comment `# --`, in the order of the file."""
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    path: list[tuple[int, str]] = []
    words: list[str] = []
    for line in (CHART / "values.yaml").read_text().splitlines():
        if comment := re.match(r"\s*# (-- )?(.*)", line):
            words = [comment[2]] if comment[1] else [*words, comment[2]]
            continue
        if key := re.match(r"( *)([A-Za-z]+):", line):
            path = [(depth, name) for depth, name in path if depth < len(key[1])] + [(len(key[1]), key[2])]
            if words:
                names = [name for _, name in path]
                found: Any = defaults
                for name in names:
                    found = found[name]
                yield Value(".".join(names), json.dumps(found), " ".join(words))
        words = []


def table() -> str:
    """The values as Markdown."""
    rows = [f"| `{one.key}` | `{one.default}` | {one.text} |" for one in values()]
    return "\n".join(["| value | default | what it is |", "|---|---|---|", *rows])


def with_table(readme: str) -> str:
    """The README with the table as it should be."""
    return re.sub(r"(?s)\| value \|.*?\|\n(?!\|)", lambda _: f"{table()}\n", readme)


if __name__ == "__main__":
    README.write_text(with_table(README.read_text()))
