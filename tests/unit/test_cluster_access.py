"""Which kubeconfigs are acted upon, and what is said of the others. No request is sent here."""

from __future__ import annotations

import base64
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.cluster import KubeconfigError, connect
from tests.conftest import examples

SECRET = "hunter2-hunter2"


def kubeconfig(path: Path, *, user: Any = None, cluster: Any = None, **top: Any) -> str:
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": cluster or {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {"token": SECRET} if user is None else user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path.write_text(json.dumps(content | top))
    return str(path)


@pytest.fixture(autouse=True)
def _no_kubeconfig_of_the_developer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.mark.parametrize(
    ("user", "cluster", "words"),
    [
        ({"exec": {"command": "touch", "apiVersion": "v1"}}, None, "runs a program (`exec`)"),
        ({"auth-provider": {"name": "gcp"}}, None, "runs an `auth-provider`"),
        ({"exec": ""}, None, "runs a program (`exec`)"),
        ({"auth-provider": {}}, None, "runs an `auth-provider`"),
        ({"tokenFile": "/var/run/secrets/kubernetes.io/serviceaccount/token"}, None, "sends a file (`tokenFile`)"),
        ({"client-certificate": "/a", "client-key": "/b"}, None, "reads a file (`client-certificate`)"),
        (None, {"server": "https://a", "insecure-skip-tls-verify": True}, "asks to trust any server"),
        (None, {"server": "https://a", "certificate-authority": "/a"}, "reads a file (`certificate-authority`)"),
        (None, {"server": "http://a"}, "sends credentials without TLS"),
    ],
)
def test_a_kubeconfig_that_is_data_can_neither_run_read_nor_weaken_anything(
    tmp_path: Path, user: Any, cluster: Any, words: str
) -> None:
    path = kubeconfig(tmp_path / "k", user=user, cluster=cluster)
    with pytest.raises(KubeconfigError) as caught:
        connect(path)
    assert words in str(caught.value)
    assert path in str(caught.value)


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path / "k", user={"exec": {}, "tokenFile": "/t"}, cluster={"server": "http://a"})
    with pytest.raises(KubeconfigError, match=r"`tokenFile`.*and sends credentials without TLS"):
        connect(path)


def test_the_plugin_of_a_kubeconfig_that_is_data_is_never_started(tmp_path: Path) -> None:
    proof = tmp_path / "started"
    path = kubeconfig(tmp_path / "k", user={"exec": {"apiVersion": "v1", "command": "touch", "args": [str(proof)]}})
    with pytest.raises(KubeconfigError):
        connect(path)
    assert not proof.exists()


def test_an_exec_of_another_user_of_the_file_does_not_matter(tmp_path: Path) -> None:
    users = [
        {"name": "u", "user": {"token": SECRET}},
        {"name": "other", "user": {"exec": {"command": "false", "apiVersion": "v1"}}},
    ]
    assert connect(kubeconfig(tmp_path / "k", users=users)).host == "https://127.0.0.1:1"


@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("as", "somebody"),
        ("as", ""),
        ("as", None),
        ("as-groups", []),
        ("as-groups", ["system:masters"]),
        ("as-groups", None),
        ("as-uid", ""),
        ("as-user-extra", {}),
    ],
)
def test_impersonation_even_of_nobody_is_refused_as_the_client_would_ignore_it(
    tmp_path: Path, trusted: bool, key: str, value: Any
) -> None:
    path = kubeconfig(tmp_path / "k", user={"token": SECRET, key: value})
    with pytest.raises(KubeconfigError, match=rf"impersonation \(`{key}`\)") as caught:
        connect(path, trusted=trusted)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "server", [None, 5, "", "https://", "https://:443", "https://a:b", "https://a:99999", "https://[::1", "kubernetes"]
)
@pytest.mark.parametrize("trusted", [False, True])
def test_a_server_without_an_address_is_refused(tmp_path: Path, server: Any, trusted: bool) -> None:
    path = kubeconfig(tmp_path / "k", cluster={"server": server})
    with pytest.raises(KubeconfigError, match="names no `server`"):
        connect(path, trusted=trusted)


@pytest.mark.parametrize(
    ("cluster", "words"),
    [
        ({"proxy-url": "nonsense"}, "or of its proxy, is none"),
        ({"proxy-url": 5}, "has no text as its `proxy-url`"),
        ({"tls-server-name": ["a"]}, "has no text as its `tls-server-name`"),
        ({"server": "https://a b"}, "the address of the server"),
    ],
)
def test_what_only_the_first_request_would_stumble_over_is_refused_at_once(
    tmp_path: Path, cluster: dict[str, Any], words: str
) -> None:
    path = kubeconfig(tmp_path / "k", cluster={"server": "https://10.0.0.1"} | cluster)
    with pytest.raises(KubeconfigError, match=words):
        connect(path)


@pytest.mark.parametrize(
    "bomb",
    [
        "".join(f"l{n}: &l{n}\n  <<: [*l{n - 1}, *l{n - 1}]\n" for n in range(1, 64)),
        "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 64)),
        "many: [" + "a, " * 300_000 + "]\n",
    ],
    ids=["merge keys", "aliases", "many values"],
)
def test_a_kubeconfig_that_is_data_costs_little_however_it_is_written(tmp_path: Path, bomb: str) -> None:
    path = tmp_path / "k"
    path.write_text(
        "clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}]\nusers: [{name: u, user: {token: a}}]\n"
        f"contexts: [{{name: x, context: {{cluster: c, user: u}}}}]\ncurrent-context: x\nl0: &l0 {{a: b}}\n{bomb}"
    )
    began = time.process_time()
    with pytest.raises(KubeconfigError, match=r"uses an alias|more than 20,000 keys"):
        connect(str(path))
    assert time.process_time() - began < 3


@pytest.mark.parametrize("trusted", [False, True])
def test_credentials_in_the_address_are_refused_without_being_repeated(tmp_path: Path, trusted: bool) -> None:
    path = kubeconfig(tmp_path / "k", cluster={"server": f"https://me:{SECRET}@host"})
    with pytest.raises(KubeconfigError) as caught:
        connect(path, trusted=trusted)
    assert SECRET not in str(caught.value)


def test_a_path_in_the_address_is_kept(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path / "k", cluster={"server": "https://rancher.example/k8s/clusters/c-1/"})
    assert connect(path).host == "https://rancher.example/k8s/clusters/c-1"


def test_the_context_chooses_the_cluster(tmp_path: Path) -> None:
    path = kubeconfig(
        tmp_path / "k",
        clusters=[{"name": name, "cluster": {"server": f"https://{name}"}} for name in ("one", "two")],
        contexts=[{"name": name, "context": {"cluster": name, "user": "u"}} for name in ("one", "two")],
        **{"current-context": "one"},
    )
    assert connect(path).host == "https://one"
    assert connect(path, "two").host == "https://two"
    with pytest.raises(KubeconfigError, match="three"):
        connect(path, "three")


def test_several_files_are_merged_as_kubectl_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = kubeconfig(tmp_path / "one", users=[], contexts=[])
    two = kubeconfig(tmp_path / "two", clusters=[])
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join((one, two, str(tmp_path / "missing"))))
    assert connect().host == "https://127.0.0.1:1"


def test_without_any_kubeconfig_the_way_out_is_named() -> None:
    with pytest.raises(KubeconfigError, match=r"no such kubeconfig. Name one with --kubeconfig or KUBECONFIG"):
        connect()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "a",
        "clusters: {a: b}",
        f"token: {SECRET}\n  a: : b",
        f'{{"users": [{{"name": "u", "user": {{"token": "{SECRET}"',
        "[" * 100_000,
        "\0",
        "current-context: x\ncontexts: [{name: x}]\nclusters: []\nusers: []",
        f"current-context: x\ncontexts: [{{name: x, context: {{cluster: c, a: {SECRET}}}}}]\nclusters: []\nusers: []",
        "&a [*a, *a]",
    ],
)
def test_what_is_no_kubeconfig_is_refused_without_being_quoted(tmp_path: Path, content: str) -> None:
    path = tmp_path / "k"
    path.write_text(content)
    with pytest.raises(KubeconfigError) as caught:
        connect(str(path))
    assert str(path) in str(caught.value)
    assert SECRET not in str(caught.value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=examples(60))
@given(
    mutation=st.dictionaries(
        st.sampled_from(["clusters", "users", "contexts", "current-context"]),
        st.recursive(
            st.none() | st.text(max_size=5) | st.integers(),
            lambda inner: (
                st.lists(inner, max_size=2)
                | st.dictionaries(st.sampled_from(["name", "context", "user", "cluster", "server", "u"]), inner)
            ),
        ),
        min_size=1,
    )
)
def test_a_kubeconfig_of_any_shape_is_either_used_or_refused(tmp_path: Path, mutation: dict[str, Any]) -> None:
    path = kubeconfig(tmp_path / "k", **mutation)
    complaint = ""
    try:
        connect(path)
    except KubeconfigError as error:
        complaint = str(error)
    assert SECRET not in complaint


def test_a_file_too_large_to_be_a_kubeconfig_is_not_parsed(tmp_path: Path) -> None:
    path = tmp_path / "k"
    path.write_text("a" * (1 << 20) + "a")
    with pytest.raises(KubeconfigError, match="larger than 1 MiB"):
        connect(str(path))


def test_a_token_that_no_header_can_carry_is_not_repeated_in_the_complaint(tmp_path: Path) -> None:
    connection = connect(kubeconfig(tmp_path / "k", user={"token": f"{SECRET}\nX-Injected: 1"}))
    with pytest.raises(KubeconfigError, match="no HTTP header can carry") as caught:
        connection.request("GET", "/version")
    assert SECRET not in str(caught.value)


def test_an_exec_plugin_that_fails_is_named_with_the_way_to_find_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": str(tmp_path / "no-such-plugin")}
    path = kubeconfig(tmp_path / "k", user={"exec": plugin})
    with pytest.raises(KubeconfigError, match=r"the exec plugin '.*no-such-plugin' gave no credentials. Run it"):
        connect(path, trusted=True)


def test_importing_the_edge_loads_neither_the_official_client_nor_urllib3() -> None:
    import subprocess

    code = "import sys, reconciler.cluster; sys.exit(bool({'kubernetes', 'urllib3', 'ssl.x'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_server_in_clear_behind_a_proxy_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:3128")
    monkeypatch.delenv("NO_PROXY", raising=False)
    path = kubeconfig(tmp_path / "k", cluster={"server": "http://kubernetes.example"})
    with pytest.raises(KubeconfigError, match="NO_PROXY"):
        connect(path, trusted=True)


def test_certificates_given_as_data_need_no_file(tmp_path: Path) -> None:
    path = kubeconfig(
        tmp_path / "k",
        cluster={
            "server": "https://127.0.0.1:1",
            "certificate-authority-data": base64.b64encode(b"pem").decode(),
        },
    )
    assert connect(path).host == "https://127.0.0.1:1"
