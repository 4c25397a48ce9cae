"""T70: what a webhook request may do, for each kind of server, and what it may not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.web.webhooks import Deliveries, Ignored, Pushed, Refused, judge
from tests.conftest import examples

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
SECRET = b"it-is-a-secret"
SIGNING_TOKEN = b"whsec_" + base64.b64encode(bytes(range(32)))
REPOSITORY = "https://git.example/acme/specs.git"


def hexed(secret: bytes, body: bytes, algorithm: str = "sha256") -> str:
    return hmac.new(secret, body, algorithm).hexdigest()


def standard(secret: bytes, body: bytes, at: datetime = NOW, identity: str = "msg_1") -> dict[str, str]:
    """The headers of standardwebhooks.com, made as its text says."""
    time = str(int(at.timestamp()))
    key = base64.b64decode(secret.removeprefix(b"whsec_"))
    digest = hmac.new(key, f"{identity}.{time}.".encode() + body, hashlib.sha256).digest()
    signature = base64.b64encode(digest).decode()
    return {"webhook-id": identity, "webhook-timestamp": time, "webhook-signature": f"v1,{signature}"}


class Server(NamedTuple):
    """A kind of server: what it sends for a push of a ref of a repository, and how it proves it."""

    headers: Mapping[str, str]
    payload: Callable[[str, str], Any]
    prove: Callable[[bytes, bytes], dict[str, str]]
    delivery: str = ""
    secret: bytes = SECRET


def like_github(path: str, ref: str) -> Any:
    return {"ref": ref, "after": "c0ffee", "deleted": False, "repository": {"id": 1, "full_name": path}, "commits": []}


def like_gitlab(path: str, ref: str) -> Any:
    return {"object_kind": "push", "ref": ref, "project": {"id": 15, "path_with_namespace": path}, "commits": []}


def like_bitbucket_cloud(path: str, ref: str) -> Any:
    kind = "branch" if ref.startswith("refs/heads/") else "tag"
    new = {"type": kind, "name": ref.split("/", 2)[2], "target": {"hash": "c0ffee"}}
    return {"push": {"changes": [{"new": new, "old": None}]}, "repository": {"full_name": path}}


def like_bitbucket_data_center(path: str, ref: str) -> Any:
    project, slug = path.split("/")
    repository = {"slug": slug, "project": {"key": project.upper()}}
    return {"eventKey": "repo:refs_changed", "repository": repository, "changes": [{"ref": {"id": ref}}]}


SERVERS = {
    "github": Server(
        {"x-github-event": "push", "x-github-delivery": "d-1"},
        like_github,
        lambda secret, body: {
            "x-hub-signature": f"sha1={hexed(secret, body, 'sha1')}",
            "x-hub-signature-256": f"sha256={hexed(secret, body)}",
        },
        "d-1",
    ),
    "gitea": Server(
        {"x-gitea-event": "push", "x-gitea-delivery": "d-1", "x-github-event": "push", "x-github-delivery": "d-1"},
        like_github,
        lambda secret, body: {"x-gitea-signature": hexed(secret, body)},
        "d-1",
    ),
    "forgejo": Server(
        {"x-forgejo-event": "push", "x-forgejo-delivery": "d-1"},
        like_github,
        lambda secret, body: {"x-forgejo-signature": hexed(secret, body)},
        "d-1",
    ),
    "gitlab-signed": Server(
        {"x-gitlab-event": "Push Hook", "idempotency-key": "msg_1"}, like_gitlab, standard, "msg_1", SIGNING_TOKEN
    ),
    "gitlab-token": Server(
        {"x-gitlab-event": "Push Hook", "idempotency-key": "d-1"},
        like_gitlab,
        lambda secret, _: {"x-gitlab-token": secret.decode()},
        "d-1",
    ),
    "bitbucket-cloud": Server(
        {"x-event-key": "repo:push", "x-request-uuid": "d-1"},
        like_bitbucket_cloud,
        lambda secret, body: {"x-hub-signature": f"sha256={hexed(secret, body)}"},
        "d-1",
    ),
    "bitbucket-data-center": Server(
        {"x-event-key": "repo:refs_changed", "x-request-id": "d-1"},
        like_bitbucket_data_center,
        lambda secret, body: {"x-hub-signature": f"sha256={hexed(secret, body)}"},
        "d-1",
    ),
    "generic": Server({}, lambda path, ref: {}, lambda secret, body: {"x-signature": f"sha256={hexed(secret, body)}"}),
}
NAMED = [name for name in SERVERS if name != "generic"]  # those that say what was pushed
SIGNING = [name for name in SERVERS if name != "gitlab-token"]  # those whose proof depends on the body

every_server = pytest.mark.parametrize("server", SERVERS.values(), ids=SERVERS)
every_named_server = pytest.mark.parametrize("server", [SERVERS[name] for name in NAMED], ids=NAMED)
every_signing_server = pytest.mark.parametrize("server", [SERVERS[name] for name in SIGNING], ids=SIGNING)


def asked(
    headers: Mapping[str, str],
    body: bytes,
    *,
    secrets: list[bytes] | None = None,
    repository: str = REPOSITORY,
    now: datetime = NOW,
    deliveries: Deliveries | None = None,
) -> Pushed | Ignored | Refused:
    return judge(
        headers,
        body,
        secrets=[SECRET, SIGNING_TOKEN] if secrets is None else secrets,
        repository=repository,
        branch="main",
        now=now,
        deliveries=deliveries or Deliveries(),
    )


def request(
    server: Server, path: str = "acme/specs", ref: str = "refs/heads/main", secret: bytes = b"", **headers: str
) -> tuple[dict[str, str], bytes]:
    body = json.dumps(server.payload(path, ref)).encode()
    changed = {name.replace("_", "-"): value for name, value in headers.items()}
    return {**server.headers, **server.prove(secret or server.secret, body), **changed}, body


def refusal(verdict: Pushed | Ignored | Refused) -> Refused:
    assert isinstance(verdict, Refused), verdict
    return verdict


def ignorance(verdict: Pushed | Ignored | Refused) -> str:
    assert isinstance(verdict, Ignored), verdict
    return verdict.reason


# -- proofs --


@every_server
def test_a_push_to_the_branch_is_taken(server: Server) -> None:
    assert asked(*request(server)) == Pushed(server.delivery)


@every_server
def test_a_request_without_a_proof_is_refused(server: Server) -> None:
    _, body = request(server)
    verdict = refusal(asked(server.headers, body))
    assert verdict.status == 403
    assert "x-hub-signature-256" in verdict.reason


@every_server
def test_a_proof_by_another_secret_is_refused(server: Server) -> None:
    other = b"whsec_" + base64.b64encode(b"another")
    verdict = refusal(asked(*request(server, secret=other)))
    assert verdict.status == 403
    assert SECRET.decode() not in verdict.reason


@every_signing_server
def test_a_body_that_was_changed_on_its_way_is_refused(server: Server) -> None:
    headers, body = request(server)
    assert refusal(asked(headers, body + b" ")).status == 403


@every_server
def test_any_of_several_secrets_proves_a_request_while_they_are_replaced(server: Server) -> None:
    headers, body = request(server)
    assert isinstance(asked(headers, body, secrets=[b"new", server.secret]), Pushed)
    assert isinstance(asked(headers, body, secrets=[server.secret, b"new"]), Pushed)
    assert isinstance(asked(headers, body, secrets=[b"new"]), Refused)


@every_server
def test_without_a_secret_nobody_is_believed(server: Server) -> None:
    headers, body = request(server)
    for nothing in ([], [b""], [b" \n"]):
        assert refusal(asked(headers, body, secrets=nothing)).reason == "no webhook secret is configured"
    headers = {**server.headers, **SERVERS["github"].prove(b"", body), "x-gitlab-token": ""}
    assert isinstance(asked(headers, body, secrets=[b""]), Refused)


@every_server
def test_a_line_break_behind_a_secret_is_none_of_it(server: Server) -> None:
    headers, body = request(server)
    assert isinstance(asked(headers, body, secrets=[server.secret + b"\n"]), Pushed)


def test_a_signing_token_without_a_key_is_no_key_that_everybody_has() -> None:
    headers, body = request(SERVERS["gitlab-signed"], secret=b"whsec_")  # signed with an empty key
    assert isinstance(asked(headers, body, secrets=[b"whsec_"]), Refused)


@pytest.mark.parametrize("header", ["x-hub-signature", "x-hub-signature-256", "x-signature", "x-gitea-signature"])
@pytest.mark.parametrize("algorithm", ["sha1", "md5", "sha512", ""])
def test_no_other_algorithm_proves_anything(header: str, algorithm: str) -> None:
    _, body = request(SERVERS["github"])
    prefix = f"{algorithm}=" if algorithm else "="
    digest = hexed(SECRET, body, algorithm or "sha256")
    for value in (prefix + digest, f"sha256={hexed(SECRET, body, 'sha1')}", f"sha256={digest}, sha256={digest}"):
        assert refusal(asked({"x-github-event": "push", header: value}, body)).status == 403


def test_the_body_is_proven_before_it_is_looked_into() -> None:
    verdict = refusal(asked({"x-github-event": "push", "x-hub-signature-256": "sha256=0"}, b"{" * 100_000))
    assert verdict.status == 403


@pytest.mark.parametrize("off", [timedelta(minutes=-6), timedelta(minutes=6), timedelta(days=36500)])
def test_a_signed_request_of_another_time_is_refused(off: timedelta) -> None:
    headers, body = request(SERVERS["gitlab-signed"])
    assert "webhook-timestamp" in refusal(asked(headers, body, now=NOW + off)).reason


@pytest.mark.parametrize("time", ["", "-1", "1e9", "9" * 5000, "١٢٣", " 1795262400", "now"])
def test_a_time_that_is_none_is_refused(time: str) -> None:
    headers, body = request(SERVERS["gitlab-signed"])
    assert "webhook-timestamp" in refusal(asked({**headers, "webhook-timestamp": time}, body)).reason


@pytest.mark.parametrize("header", ["webhook-id", "webhook-timestamp"])
def test_what_is_signed_beside_the_body_cannot_be_changed(header: str) -> None:
    headers, body = request(SERVERS["gitlab-signed"])
    later = str(int(NOW.timestamp()) + 1)
    assert refusal(asked({**headers, header: later}, body)).status == 403


def test_one_of_several_signatures_is_enough() -> None:
    headers, body = request(SERVERS["gitlab-signed"])
    several = f"v1,{base64.b64encode(bytes(32)).decode()} v1a,ed25519 {headers['webhook-signature']}"
    assert isinstance(asked({**headers, "webhook-signature": several}, body), Pushed)


def test_a_gitlab_with_a_token_and_a_signing_token_is_believed_by_either() -> None:
    headers, body = request(SERVERS["gitlab-signed"], x_gitlab_token=SECRET.decode())
    assert isinstance(asked(headers, body, secrets=[SECRET]), Pushed)
    assert isinstance(asked(headers, body, secrets=[SIGNING_TOKEN]), Pushed)
    assert isinstance(asked(headers, body, secrets=[b"other"]), Refused)


def test_the_example_of_the_standard_is_believed() -> None:
    """The test vector of the specification at standardwebhooks.com."""
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    verdict = asked(
        headers,
        b'{"test": 2432232314}',
        secrets=[b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
        now=datetime.fromtimestamp(1614265330, UTC),
    )
    assert isinstance(verdict, Pushed)


def test_the_example_of_github_is_believed() -> None:
    """The values that docs.github.com gives for testing an implementation."""
    headers = {
        "x-github-event": "ping",
        "x-hub-signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
    }
    verdict = asked(headers, b"Hello, World!", secrets=[b"It's a Secret to Everybody"])
    assert isinstance(verdict, Ignored)


# -- what is said --


@every_named_server
def test_a_push_to_another_branch_is_ignored(server: Server) -> None:
    for ref in ("refs/heads/feature/main", "refs/heads/mainly", "refs/tags/main"):
        assert "another branch" in ignorance(asked(*request(server, ref=ref)))


@every_named_server
def test_a_push_to_another_repository_is_ignored(server: Server) -> None:
    for path in ("acme/other", "evil/specs", "me/specs"):
        assert path in ignorance(asked(*request(server, path))).casefold()


@every_named_server
@pytest.mark.parametrize(
    "repository",
    [
        "https://git.example/acme/specs",
        "https://git.example/acme/specs.git/",
        "https://user@git.example:8443/acme/specs.git",
        "https://git.example/scm/acme/specs.git",
        "https://git.example/Acme/Specs",
        "git@git.example:acme/specs.git",
        "ssh://git@git.example:7999/acme/specs.git",
    ],
)
def test_the_repository_is_known_however_its_address_is_written(server: Server, repository: str) -> None:
    headers, body = request(server)
    assert isinstance(asked(headers, body, repository=repository), Pushed)


def test_a_repository_in_a_group_of_groups_is_known() -> None:
    headers, body = request(SERVERS["gitlab-token"], "acme/ml/platform/specs")
    assert isinstance(asked(headers, body, repository="https://git.example/acme/ml/platform/specs.git"), Pushed)


@pytest.mark.parametrize(
    ("server", "event"),
    [
        ("github", "ping"),
        ("github", "pull_request"),
        ("github", "PUSH"),
        ("gitea", "repository"),
        ("gitlab-token", "Tag Push Hook"),
        ("gitlab-token", "Merge Request Hook"),
        ("bitbucket-cloud", "pullrequest:created"),
        ("bitbucket-data-center", "diagnostics:ping"),
        ("github", "\x00\x1b[2K"),
    ],
)
def test_another_event_is_ignored_without_a_look_at_its_body(server: str, event: str) -> None:
    kind = SERVERS[server]
    names = [name for name in kind.headers if name.endswith(("-event", "x-event-key"))]
    body = b"not even JSON"
    headers = {**kind.headers, **kind.prove(kind.secret, body), **dict.fromkeys(names, event)}
    assert "no push" in ignorance(asked(headers, body))


def test_a_push_that_moves_several_branches_is_taken_if_ours_is_among_them() -> None:
    kind = SERVERS["bitbucket-cloud"]
    branches = [{"type": "branch", "name": name} for name in ("other", "main")]
    payload = {"push": {"changes": [{"new": branches[0], "old": None}, {"new": None, "old": branches[1]}]}}
    body = json.dumps(payload).encode()
    assert isinstance(asked({**kind.headers, **kind.prove(SECRET, body)}, body), Pushed)


def test_a_form_of_github_is_read() -> None:
    kind = SERVERS["github"]
    body = urlencode({"payload": json.dumps(kind.payload("acme/specs", "refs/heads/main"))}).encode()
    headers = {**kind.headers, **kind.prove(SECRET, body), "content-type": "application/x-www-form-urlencoded"}
    assert isinstance(asked(headers, body), Pushed)
    for bad in (b"", b"payload=", b"other=1", b"payload=%ff", b"\xff", b"&".join([b"a=1"] * 100)):
        assert refusal(asked({**headers, **kind.prove(SECRET, bad)}, bad)).status == 400


def test_whoever_is_no_git_server_may_send_anything() -> None:
    for body in (b"", b"{}", b"\xff\x00"):
        assert asked({"x-signature": f"sha256={hexed(SECRET, body)}"}, body) == Pushed("")


# -- repetitions --


@every_named_server
def test_what_was_taken_within_the_last_hour_is_ignored(server: Server) -> None:
    headers, body = request(server)
    deliveries = Deliveries()
    verdict = asked(headers, body, deliveries=deliveries)
    assert isinstance(verdict, Pushed)
    deliveries.remember(verdict.delivery, NOW)
    assert "taken before" in ignorance(asked(headers, body, deliveries=deliveries))
    assert not deliveries.repeated(verdict.delivery, NOW + timedelta(hours=1))
    assert deliveries.repeated(verdict.delivery, NOW + timedelta(minutes=59))


def test_requests_without_a_name_are_no_repetitions_of_each_other() -> None:
    deliveries = Deliveries()
    deliveries.remember("", NOW)
    assert not deliveries.repeated("", NOW)


def test_the_memory_of_deliveries_is_bounded_and_loses_the_oldest() -> None:
    deliveries = Deliveries(limit=3)
    for number in (1, 2, 3, 1, 4):
        deliveries.remember(str(number), NOW)
    assert [number for number in range(1, 5) if deliveries.repeated(str(number), NOW)] == [1, 3, 4]


# -- anything at all --

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=20,
)
MALFORMED = [
    b"",
    b"null",
    b"[]",
    b'"push"',
    b"{",
    b"{}",
    b'{"ref": null}',
    b'{"ref": 1}',
    b'{"ref": "refs/heads/main"',
    b'{"ref": "refs/heads/main\x00"}',
    b'{"ref": "\xff\xfe"}',
    b'{"ref": "\\ud800"}',
    b'{"ref": 1e999}',
    b'{"ref": ' + b"9" * 100_000 + b"}",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"ref": NaN}',
    b"\xef\xbb\xbf{}",
    b'{"push": {"changes": {}}, "changes": "x"}',
    b"<xml/>",
]


@every_named_server
@pytest.mark.parametrize("body", MALFORMED, ids=lambda body: repr(body[:24]))
def test_a_genuine_request_with_a_malformed_body_is_refused(server: Server, body: bytes) -> None:
    assert refusal(asked({**server.headers, **server.prove(server.secret, body)}, body)).status == 400


def subtrees(value: Any) -> list[tuple[Any, ...]]:
    """The paths to all parts of a document."""
    if isinstance(value, dict):
        return [(), *((key, *path) for key, inner in value.items() for path in subtrees(inner))]
    if isinstance(value, list):
        return [(), *((index, *path) for index, inner in enumerate(value) for path in subtrees(inner))]
    return [()]


def replaced(value: Any, path: tuple[Any, ...], by: Any) -> Any:
    if not path:
        return by
    copy = value.copy()
    copy[path[0]] = replaced(value[path[0]], path[1:], by)
    return copy


@every_server
@given(data=st.data())
@settings(max_examples=examples(60))
def test_a_genuine_push_of_which_a_part_is_something_else_never_raises(server: Server, data: st.DataObject) -> None:
    payload = server.payload("acme/specs", "refs/heads/main")
    path = data.draw(st.sampled_from(subtrees(payload)))
    body = json.dumps(replaced(payload, path, data.draw(json_values))).encode()
    verdict = asked({**server.headers, **server.prove(server.secret, body)}, body)
    assert isinstance(verdict, Pushed | Ignored | Refused)
    assert not isinstance(verdict, Refused) or verdict.status == 400


@every_server
@given(data=st.data(), body=st.binary(max_size=200))
@settings(max_examples=examples(60))
def test_nobody_without_the_secret_is_believed_whatever_the_headers(
    server: Server, data: st.DataObject, body: bytes
) -> None:
    names = [*server.headers, *server.prove(server.secret, body), "content-type", "webhook-timestamp"]
    values = st.text(st.characters(max_codepoint=255), max_size=80)
    guesses = st.sampled_from([f"sha256={hexed(b'', body)}", hexed(b"guess", body), "sha256=", "v1,", "push"])
    headers = data.draw(st.dictionaries(st.sampled_from(names), values | guesses))
    assert refusal(asked(headers, body)).status == 403


@every_server
@given(body=st.binary(max_size=200))
@settings(max_examples=examples(60))
def test_a_genuine_request_with_any_bytes_never_raises(server: Server, body: bytes) -> None:
    verdict = asked({**server.headers, **server.prove(server.secret, body)}, body)
    assert isinstance(verdict, Pushed | Ignored | Refused)
