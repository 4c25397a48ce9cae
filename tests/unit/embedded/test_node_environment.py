"""What a container's process is started with."""

from __future__ import annotations

import base64
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedded.node.environment import (
    ConfigError,
    Facts,
    Paths,
    base_environment,
    command_line,
    expand,
    field,
    launch,
    resource_field,
)

POD: dict[str, Any] = {
    "metadata": {
        "name": "a",
        "namespace": "shop",
        "uid": "u",
        "labels": {"b": 'say "hi"', "a": "1"},
        "annotations": {"note": "two\nlines"},
    },
    "spec": {"nodeName": "embedded", "containers": [{"name": "main"}]},
}
OBJECTS = {
    ("secrets", "keys"): {"data": {"token": base64.b64encode(b"t: /tmp").decode(), "1 bad": ""}},
    ("configmaps", "settings"): {"data": {"where": "/tmp/x"}, "binaryData": {"raw": base64.b64encode(b"r").decode()}},
}
FACTS = Facts(POD, "127.20.5.6", "127.20.0.1", {"memory": "8Gi", "cpu": "2"}, lambda *key: OBJECTS.get(key))
PATHS = Paths({"/work": Path("/data/v/work"), "/work/deep": Path("/data/v/deep"), "/tmp": Path("/data/tmp")})


def started(**container: Any) -> tuple[tuple[str, ...], dict[str, str]]:
    made = launch({"name": "main", "command": ["run"], **container}, FACTS, PATHS, {}, "/here")
    return made.argv, dict(made.env)


def variable(name: str, **source: Any) -> dict[str, Any]:
    return {"name": name, "valueFrom": source}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(A)", "one"),
        ("x$(A)y$(A)", "xoneyone"),
        ("$(B)", "$(B)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$one"),
        ("$A ${A} $", "$A ${A} $"),
        ("$(A", "$(A"),
        ("$()", "$()"),
        ("$$", "$"),
    ],
)
def test_references_are_expanded_as_by_a_kubelet(text: str, expanded: str) -> None:
    assert expand(text, {"A": "one"}) == expanded


@given(st.text())
def test_a_text_with_doubled_dollars_stays_as_it_was(text: str) -> None:
    assert expand(text.replace("$", "$$"), {text: "x"}) == text


@pytest.mark.parametrize(
    ("text", "mapped"),
    [
        ("/work", "/data/v/work"),
        ("/work/code", "/data/v/work/code"),
        ("/work/deep/er", "/data/v/deep/er"),
        ("--into=/work/code", "--into=/data/v/work/code"),
        ("/work:/tmp/x", "/data/v/work:/data/tmp/x"),
        ("echo 'x' > /tmp/y", "echo 'x' > /data/tmp/y"),
        ("/workshop", "/workshop"),
        ("/work.txt", "/work.txt"),
        ("/home/work/tmp", "/home/work/tmp"),
        ("./tmp", "./tmp"),
        ("s3://bucket/tmp", "s3://bucket/tmp"),
        ("https://example.com/work", "https://example.com/work"),
        ("file:///tmp/storage", "file:///tmp/storage"),
    ],
)
def test_paths_of_mounts_become_folders_of_this_machine(text: str, mapped: str) -> None:
    assert PATHS(text) == mapped


@given(st.text(alphabet="/tmpwork=: .x"))
def test_what_names_no_mount_stays_as_it_was(text: str) -> None:
    if "/tmp" not in text and "/work" not in text:
        assert PATHS(text) == text


def test_python_is_the_one_that_runs_us() -> None:
    argv, _ = started(command=["python", "-m", "x"], args=["--into=/work"])
    assert argv == (sys.executable, "-P", "-m", "x", "--into=/data/v/work")
    assert command_line(["python3", "/tmp/x.py"], PATHS) == (sys.executable, "-P", "/data/tmp/x.py")


def test_the_folder_to_start_in_is_the_containers() -> None:
    container = {"name": "main", "command": ["x"]}
    assert launch(container, FACTS, PATHS, {}, "/tmp/ours").cwd == "/tmp/ours"
    assert launch({**container, "workingDir": "/work/code"}, FACTS, PATHS, {}, "/tmp/ours").cwd == "/data/v/work/code"


def test_values_come_from_secrets_config_maps_and_fields() -> None:
    argv, env = started(
        args=["$(TOKEN)", "$(NODE)"],
        env=[
            variable("TOKEN", secretKeyRef={"name": "keys", "key": "token"}),
            variable("RAW", configMapKeyRef={"name": "settings", "key": "raw"}),
            variable("NODE", fieldRef={"fieldPath": "spec.nodeName"}),
            variable("ABSENT", configMapKeyRef={"name": "none", "key": "x", "optional": True}),
        ],
        envFrom=[{"prefix": "S_", "configMapRef": {"name": "settings"}}, {"secretRef": {"name": "keys"}}],
    )
    assert argv[2] == "embedded"
    assert env == {
        "TOKEN": "t: /tmp",  # what is secret is handed over as it is
        "RAW": "r",
        "NODE": "embedded",
        "S_where": "/data/tmp/x",
        "S_raw": "r",
        "token": "t: /tmp",
    }


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"secretKeyRef": {"name": "none", "key": "x"}}, 'secret "none" not found'),
        ({"configMapKeyRef": {"name": "none", "key": "x"}}, 'configmap "none" not found'),
        ({"secretKeyRef": {"name": "keys", "key": "x"}}, "couldn't find key x in Secret shop/keys"),
        ({"configMapKeyRef": {"name": "settings", "key": "x"}}, "couldn't find key x in ConfigMap shop/settings"),
    ],
)
def test_what_is_missing_is_named_as_by_a_kubelet(source: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        started(env=[variable("X", **source)])
    assert str(raised.value) == message


def test_a_secret_is_not_shown_with_what_is_started() -> None:
    env = [variable("TOKEN", secretKeyRef={"name": "keys", "key": "token"})]
    made = launch({"name": "main", "command": ["x"], "env": env}, FACTS, PATHS, {}, "/here")
    assert "t: /tmp" not in repr(made)


@pytest.mark.parametrize(
    ("resources", "threads"),
    [
        ({}, None),
        ({"requests": {"cpu": "250m"}}, "1"),
        ({"requests": {"cpu": "1500m"}}, "2"),
        ({"requests": {"cpu": "1"}, "limits": {"cpu": "3"}}, "3"),
    ],
)
def test_libraries_start_as_many_threads_as_there_are_cores_for_them(resources: Any, threads: str | None) -> None:
    assert started(resources=resources)[1].get("OMP_NUM_THREADS") == threads
    said = started(resources=resources, env=[{"name": "OMP_NUM_THREADS", "value": "7"}])[1]
    assert said["OMP_NUM_THREADS"] == "7"


def test_the_users_own_environment_stays_behind() -> None:
    users = {
        "PATH": "/bin", "HOME": "/home/me", "AWS_SECRET_ACCESS_KEY": "x", "UV_INDEX_URL": "u", "UV_PUBLISH_TOKEN": "x",
        "https_proxy": "p", "SSL_CERT_FILE": "c", "PYTHONPATH": "/mine", "LD_PRELOAD": "x",
    }  # fmt: skip
    made = base_environment(users, {"TRUEUP_CACHE_DIR": "/cache"})
    path = f"{Path(sys.executable).parent}:/bin"
    assert made == {
        "PATH": path, "LANG": "C.UTF-8", "UV_INDEX_URL": "u", "https_proxy": "p", "SSL_CERT_FILE": "c",
        "TRUEUP_CACHE_DIR": "/cache",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "a"),
        ("spec.serviceAccountName", "default"),
        ("status.podIP", "127.20.5.6"),
        ("status.hostIP", "127.20.0.1"),
        ("metadata.labels['a']", "1"),
        ("metadata.labels['none']", ""),
        ("metadata.labels", 'a="1"\nb="say \\"hi\\""'),
        ("metadata.annotations", 'note="two\\nlines"'),
    ],
)
def test_fields_of_the_pod(path: str, value: str) -> None:
    assert field(path, FACTS) == value


@pytest.mark.parametrize(
    ("resource", "divisor", "value"),
    [
        ("limits.memory", "1Mi", "100"),
        ("requests.cpu", "1m", "250"),
        ("requests.cpu", "0", "1"),
        ("limits.cpu", "1", "2"),  # no limit: what the node has
    ],
)
def test_amounts_of_resources(resource: str, divisor: str, value: str) -> None:
    main = {"name": "main", "resources": {"limits": {"memory": "100Mi"}, "requests": {"cpu": "250m"}}}
    facts = FACTS._replace(pod={**POD, "spec": {"containers": [main]}})
    assert resource_field({"resource": resource, "divisor": divisor}, main, facts) == value
