"""Planted secrets are looked for in everything that others can see.

Those are the outputs in each form, the log of the data plane, the command lines of all processes, temporary files.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.contract.faults import FaultProxy, answer
from tests.contract.git_servers import GitServer, command_lines
from tests.e2e.harness import REPOSITORY, Plane, before, build, document, environment, insiders, variation

CLUSTER_TOKEN = "planted-cluster-token-0815"
GIT_TOKEN = "planted-git-token-4711"
OTHER_TOKEN = "planted-token-of-another-cluster-2342"
PASSWORD = "planted-password-1337"
FORMS = [(), ("-o", "json"), ("-o", "yaml"), ("--dry-run", "--live"), ("--dry-run", "--live", "-o", "json")]


def disguises(secret: str) -> list[str]:
    """The forms in which it travels."""
    basic = base64.b64encode(f"bot:{secret}".encode()).decode()
    return [secret, quote(secret, safe=""), base64.b64encode(secret.encode()).decode(), basic]


class Witness:
    """Whatever others could see of the command, while it runs and afterwards."""

    def __init__(self, plane: Plane) -> None:
        self.plane = plane
        self.temporary = plane.folder / "temporary"
        self.temporary.mkdir(exist_ok=True)
        self.said: list[str] = []
        self.command_lines = b""

    def run(self, *arguments: str | Path, **environment: str) -> int:
        with self._looking_at_processes():
            run = self.plane.reconcile(*arguments, TMPDIR=str(self.temporary), **environment)
        self.said += [run.out, run.err]
        return run.code

    @property
    def page(self) -> str:
        return "\n".join(self.said)

    def did_not_see(self, *secrets: str) -> None:
        assert list(self.temporary.iterdir()) == []
        places = {
            "the output": self.page,
            "the log of the data plane": (self.plane.home / "log").read_text(),
            "the command lines": self.command_lines.decode(errors="replace"),
        }
        for where, text in places.items():
            for secret in secrets:
                assert not [one for one in disguises(secret) if one in text], f"in {where}: {text}"

    @contextmanager
    def _looking_at_processes(self) -> Iterator[None]:
        over = threading.Event()

        def look() -> None:
            while not over.wait(0.05):
                self.command_lines += command_lines()

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
        assert b"reconcile" in self.command_lines


@pytest.fixture
def witness(plane: Plane) -> Witness:
    return Witness(plane)


@pytest.fixture
def plant(plane: Plane, name: str) -> Iterator[Callable[..., None]]:
    """Puts a Secret into a namespace of the server."""
    api = plane.api()

    def put(namespace: str, secret: str, **data: str) -> None:
        api("POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": secret}, "stringData": data}
        api("DELETE", f"/api/v1/namespaces/{namespace}/secrets/{secret}")
        assert api("POST", f"/api/v1/namespaces/{namespace}/secrets", body).status == 201

    yield put
    api.close()


@pytest.fixture
def git_server(tmp_path: Path, certificate: Path) -> Iterator[GitServer]:
    server = GitServer(tmp_path, certificate=certificate, watch=command_lines)
    yield server
    server.stop()


def private_model(name: str, repository: str) -> str:
    """A model whose code is in a private repository, and which is built from a branch."""
    where = {"git_uri": f"{repository}#churn", "git_branch": "main", "git_access_token_secret": "models-token"}
    return document(
        environment(name),
        build("churn-1", "churn", environment=name, **where),
        variation("churn", "default", name, build="churn-1"),
    )


def echo(request: Any) -> bool:
    """A git server that answers with what it was sent, in its own words and as its failure."""
    told = f"{request.headers['Authorization']} {GIT_TOKEN}"
    line = f"ERR {told}".encode()
    body = b"001e# service=git-upload-pack\n0000" + f"{len(line) + 4:04x}".encode() + line
    kind = "application/x-git-upload-pack-advertisement"
    return bool(request.reply(200, body, Content_Type=kind))


def test_a_git_token_is_seen_by_nobody_but_git(
    name: str, plant: Callable[..., None], git_server: GitServer, witness: Witness, certificate: Path
):
    plant(name, "models-token", token=f"bot:{GIT_TOKEN}")
    witness.plane.write("specs/a.yaml", private_model(name, f"{git_server.url}/models.git"))
    trusted = str(certificate)
    git_server.needs_token()
    assert witness.run(SSL_CERT_FILE=trusted) == 3
    assert "the token of its Secret was refused" in witness.page
    git_server.answer = echo
    for form in FORMS:
        witness.run(*form, SSL_CERT_FILE=trusted)
    assert "remote error: Basic ***" in witness.page, "the server's words are shown, the token in them is not"
    sent = [one for one in git_server.authorizations if one]
    assert base64.b64decode(sent[0].removeprefix("Basic ")).decode() == f"bot:{GIT_TOKEN}", "and git did get it"
    witness.command_lines += git_server.processes
    assert git_server.url.encode() in witness.command_lines, "git's own command line was among them"
    witness.did_not_see(GIT_TOKEN)


def test_what_the_server_says_of_a_secret_is_not_repeated(
    plane: Plane, name: str, plant: Callable[..., None], witness: Witness
):
    plant(name, "models-token", token=f"bot:{GIT_TOKEN}")
    plane.write("specs/a.yaml", private_model(name, REPOSITORY))
    words = f'Secret "models-token" is invalid: data.token: Invalid value: "{GIT_TOKEN}"'
    for status in (400, 422):
        with FaultProxy(plane.kubeconfig) as proxy:
            body = {"kind": "Status", "status": "Failure", "message": words, "code": status}
            proxy.inject(answer(status, body), path="/secrets/", times=1000)
            kubeconfig = proxy.kubeconfig(plane.folder / "proxy", token=CLUSTER_TOKEN)
            assert witness.run("--kubeconfig", kubeconfig) == 3
            assert proxy.count("GET", "/secrets/models-token") > 0
            if status == 422:
                witness.run("--kubeconfig", kubeconfig, "-o", "json")
    assert "the server's words are withheld" in witness.page
    witness.did_not_see(GIT_TOKEN, CLUSTER_TOKEN)


def test_the_pods_that_a_server_refuses_are_not_repeated_with_all_that_is_in_them(
    plane: Plane, name: str, witness: Witness
):
    plane.write("specs/a.yaml", before(name))
    pod = f'core.PodSpec{{Containers:[]core.Container{{Env:[]core.EnvVar{{Name:"DB", Value:"{PASSWORD}"}}}}}}'
    message = f'Deployment.apps "x" is invalid: spec.template: Invalid value: {pod}: field is immutable'
    body = {"kind": "Status", "status": "Failure", "reason": "Invalid", "message": message, "code": 422}
    with FaultProxy(plane.kubeconfig) as proxy:
        proxy.inject(answer(422, body), method="PATCH", path="/deployments/", times=1000)
        kubeconfig = proxy.kubeconfig(plane.folder / "proxy", token=CLUSTER_TOKEN)
        assert witness.run("--kubeconfig", kubeconfig) == 1
        assert witness.run("--kubeconfig", kubeconfig, "-o", "json") == 1
    assert "field is immutable" in witness.page
    witness.did_not_see(PASSWORD, CLUSTER_TOKEN)


def test_a_server_that_repeats_our_token_does_not_get_it_into_a_report(plane: Plane, name: str, witness: Witness):
    plane.write("specs/a.yaml", before(name))
    words = f"bad gateway; the request was: Authorization: Bearer {CLUSTER_TOKEN}"
    refusals = {
        401: {"kind": "Status", "status": "Failure", "message": words, "code": 401},
        403: words,
    }
    for status, body in refusals.items():
        with FaultProxy(plane.kubeconfig) as proxy:
            proxy.inject(answer(status, body), times=1000)  # type: ignore[arg-type]  # each is one of the forms
            kubeconfig = proxy.kubeconfig(plane.folder / "proxy", token=CLUSTER_TOKEN)
            assert witness.run("--kubeconfig", kubeconfig) == 3
            assert proxy.seen[0].authorization == f"Bearer {CLUSTER_TOKEN}", "it was sent"
    witness.did_not_see(CLUSTER_TOKEN)


#: Each kubeconfig with something wrong about it, which a message could quote.
KUBECONFIGS = {
    "no YAML": f'users: [{{name: a, user: {{token: "{OTHER_TOKEN}'.encode(),
    "no kubeconfig": json.dumps({"users": OTHER_TOKEN, "clusters": [OTHER_TOKEN]}).encode(),
    "no text": b"\xff" + OTHER_TOKEN.encode(),
    "a token in the address": json.dumps(
        {
            "clusters": [{"name": "a", "cluster": {"server": f"https://u:{OTHER_TOKEN}@127.0.0.1:1"}}],
            "users": [{"name": "a", "user": {"token": OTHER_TOKEN}}],
            "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
            "current-context": "a",
        }
    ).encode(),
    "a program": json.dumps(
        {
            "clusters": [{"name": "a", "cluster": {"server": "https://127.0.0.1:1"}}],
            "users": [{"name": "a", "user": {"exec": {"command": "sh", "args": ["-c", OTHER_TOKEN]}}}],
            "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
            "current-context": "a",
        }
    ).encode(),
    "a token that no header can carry": json.dumps(
        {
            "clusters": [{"name": "a", "cluster": {"server": "https://127.0.0.1:1"}}],
            "users": [{"name": "a", "user": {"token": f"{OTHER_TOKEN}\n{OTHER_TOKEN}"}}],
            "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
            "current-context": "a",
        }
    ).encode(),
}


@pytest.mark.parametrize("why", sorted(KUBECONFIGS.keys() - {"a program"}))  # which the person's own may name
def test_a_kubeconfig_that_is_wrong_is_not_quoted(plane: Plane, name: str, witness: Witness, why: str):
    plane.write("specs/a.yaml", before(name))
    wrong = plane.folder / "wrong"
    wrong.write_bytes(KUBECONFIGS[why])
    assert witness.run("--kubeconfig", wrong) == 3
    assert re.search(rf"! environments? (elsewhere, )?{name}: ", witness.page)
    witness.did_not_see(OTHER_TOKEN)


def test_the_kubeconfig_of_another_cluster_is_read_from_its_secret_and_not_quoted(
    plane: Plane, name: str, plant: Callable[..., None], witness: Witness
):
    for number, (why, content) in enumerate(KUBECONFIGS.items()):
        if why != "no text":
            plant("trueup-system", f"cluster-{number}", kubeconfig=content.decode())
    planes = [
        {
            "data_plane": {"type": "kubernetes", "kubeconfig_secret": f"cluster-{number}"},
            "object_storage": "s3://models/x",
        }
        for number in range(len(KUBECONFIGS))
    ]
    parts = [environment(f"{name}-{number}", **plane) for number, plane in enumerate(planes)]
    plane.write("specs/a.yaml", document(*parts, insiders()))
    assert witness.run(KUBECONFIG=str(plane.kubeconfig)) == 3
    assert witness.run("-o", "json", KUBECONFIG=str(plane.kubeconfig)) == 3
    assert witness.page.count("! environment prod-") == len(KUBECONFIGS)
    assert "runs a program (`exec`)" in witness.page
    witness.did_not_see(OTHER_TOKEN)


def test_the_data_plane_keeps_its_token_and_its_secrets_to_itself(
    plane: Plane, name: str, plant: Callable[..., None], witness: Witness
):
    plant(name, "models-token", token=PASSWORD)
    plane.write("specs/a.yaml", before(name))
    token = (plane.home / "data" / "token").read_text().strip()
    for form in FORMS:
        witness.run(*form)
    witness.run("up")
    for command in ("validate", "render"):
        witness.run(command)
    witness.did_not_see(PASSWORD, token)


def test_credentials_that_were_written_into_a_spec_are_refused_and_not_shown(plane: Plane, witness: Witness):
    plane.write(
        "specs/a.yaml",
        document(
            environment("prod", prometheus_url=f"http://bot:{PASSWORD}@prometheus.example"),
            build("churn-1", "churn", git_uri=f"https://bot:{GIT_TOKEN}@git.example.com/acme/models.git#churn"),
            build("churn-2", "churn", git_uri=f"https://{GIT_TOKEN}@git.example.com/acme/models.git#churn"),
        ),
    )
    assert witness.run("validate") == 1
    assert witness.run("validate", "-o", "json") == 1
    assert witness.run("--dry-run") == 1
    assert "git_uri" in witness.page
    witness.did_not_see(PASSWORD, GIT_TOKEN)
