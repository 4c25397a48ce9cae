"""What each refusal means. The answers are those of kube-apiserver 1.36, word for word where not cut by `...`."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.cluster import (
    AlreadyExists,
    ApiError,
    DryRunUnsupported,
    Expired,
    FieldConflict,
    Forbidden,
    Invalid,
    KindMissing,
    NamespaceMissing,
    NotFound,
    QuotaExceeded,
    Stale,
    Terminating,
    TooLarge,
    Unauthorized,
    Unavailable,
    WebhookFailed,
)
from reconciler.cluster.errors import from_answer, from_status
from renderers.manifest import ObjectId

DEPLOYMENT = ObjectId("apps/v1", "Deployment", "prod", "d")
CONFIG_MAP = ObjectId("v1", "ConfigMap", "prod", "x")
SECRET = ObjectId("v1", "Secret", "prod", "s")
JOB = ObjectId("batch/v1", "Job", "prod", "j")


def status(code: int, message: str, reason: str = "", **details: Any) -> bytes:
    answer = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message}
    return json.dumps(answer | {"reason": reason, "details": details, "code": code}).encode()


def cause(field: str, message: str, reason: str = "FieldValueInvalid") -> dict[str, str]:
    return {"reason": reason, "message": message, "field": field}


MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"
WEBHOOK = (
    'failed calling webhook "check.example.com": failed to call webhook: Post "https://127.0.0.1:9/x?timeout=1s": '
    "dial tcp 127.0.0.1:9: connect: connection refused"
)


@pytest.mark.parametrize(
    ("code", "body", "target", "meaning"),
    [
        (401, status(401, "Unauthorized", "Unauthorized"), DEPLOYMENT, Unauthorized),
        (
            403,
            status(
                403,
                'configmaps "x" is forbidden: User "system:serviceaccount:prod:weak" cannot patch resource '
                '"configmaps" in API group "" in the namespace "prod"',
                "Forbidden",
                name="x",
                kind="configmaps",
            ),
            CONFIG_MAP,
            Forbidden,
        ),
        (403, status(403, 'forbidden: User "weak" cannot get path "/metrics"', "Forbidden"), None, Forbidden),
        (
            403,
            status(
                403,
                'services "x" is forbidden: exceeded quota: q, requested: services=1, used: services=0, ...',
                "Forbidden",
                name="x",
                kind="services",
            ),
            CONFIG_MAP,
            QuotaExceeded,
        ),
        (
            403,
            status(403, 'pods "p" is forbidden: failed quota: q: must specify requests.cpu for: c', "Forbidden"),
            CONFIG_MAP,
            QuotaExceeded,
        ),
        (
            403,
            status(
                403,
                'configmaps "x" is forbidden: unable to create new content in namespace prod because it is being '
                "terminated",
                "Forbidden",
                causes=[cause("metadata.namespace", "namespace prod is being terminated", "NamespaceTerminating")],
            ),
            CONFIG_MAP,
            Terminating,
        ),
        (
            403,
            status(403, 'pods "p" is forbidden: violates PodSecurity "restricted:latest": ...', "Forbidden"),
            CONFIG_MAP,
            Invalid,
        ),
        (404, status(404, 'deployments.apps "d" not found', "NotFound", name="d", kind="deployments"), None, NotFound),
        (
            404,
            status(404, 'namespaces "prod" not found', "NotFound", name="prod", kind="namespaces"),
            DEPLOYMENT,
            NamespaceMissing,
        ),
        (
            404,
            status(404, 'namespaces "prod" not found', "NotFound", name="prod", kind="namespaces"),
            ObjectId("v1", "Namespace", "", "prod"),
            NotFound,
        ),
        (404, status(404, "the server could not find the requested resource", "NotFound"), DEPLOYMENT, KindMissing),
        (404, b"404 page not found\n", DEPLOYMENT, KindMissing),
        (
            409,
            status(409, 'configmaps "x" already exists', "AlreadyExists", name="x", kind="configmaps"),
            CONFIG_MAP,
            AlreadyExists,
        ),
        (
            409,
            status(409, f'Operation cannot be fulfilled on configmaps "x": {MODIFIED}', "Conflict", kind="configmaps"),
            CONFIG_MAP,
            Stale,
        ),
        (
            409,
            status(409, 'Apply failed with 1 conflict: conflict with "helm": .data.a', "Conflict", causes=[
                cause(".data.a", 'conflict with "helm"', "FieldManagerConflict"),
            ]),
            CONFIG_MAP,
            FieldConflict,
        ),
        (
            409,
            status(409, f'... on resourcequotas "q": {MODIFIED}', "Conflict", kind="resourcequotas"),
            CONFIG_MAP,
            Unavailable,
        ),
        (410, status(410, "The provided continue parameter is too old to display ...", "Expired"), None, Expired),
        (413, status(413, "Request entity too large: limit is 3145728", "RequestEntityTooLarge"), None, TooLarge),
        (500, status(500, "etcdserver: request is too large"), CONFIG_MAP, TooLarge),
        (
            422,
            status(422, "configmaps \"x\" is forbidden: ValidatingAdmissionPolicy 'p' with ...", "Invalid"),
            CONFIG_MAP,
            Invalid,
        ),
        (
            400,
            status(400, '... strict decoding error: unknown field "spec.foo"', "BadRequest"),
            DEPLOYMENT,
            Invalid,
        ),
        (
            500,
            status(500, "failed to create typed patch object (prod/d; apps/v1, Kind=Deployment): .spec.foo: field ..."),
            DEPLOYMENT,
            Invalid,
        ),
        (
            400,
            status(400, 'admission webhook "check.example.com" does not support dry run', "BadRequest"),
            CONFIG_MAP,
            DryRunUnsupported,
        ),
        (
            500,
            status(500, f"Internal error occurred: {WEBHOOK}", "InternalError", causes=[{"message": WEBHOOK}]),
            CONFIG_MAP,
            WebhookFailed,
        ),
        (
            500,
            status(500, "failed to convert ...: conversion webhook for x failed: Post ...", "InternalError"),
            CONFIG_MAP,
            WebhookFailed,
        ),
        (429, b"Too many requests, please try again later.\n", CONFIG_MAP, Unavailable),
        (500, status(500, "etcdserver: leader changed"), CONFIG_MAP, Unavailable),
        (503, b"", CONFIG_MAP, Unavailable),
        (504, status(504, "request did not complete within requested timeout", "Timeout"), CONFIG_MAP, Unavailable),
        (502, b"<html>Bad Gateway</html>", CONFIG_MAP, Unavailable),
        (405, status(405, "the server does not allow this method ...", "MethodNotAllowed"), CONFIG_MAP, ApiError),
    ],
)  # fmt: skip
def test_each_refusal_has_the_class_that_says_how_to_react(
    code: int, body: bytes, target: ObjectId | None, meaning: type[ApiError]
) -> None:
    error = from_answer(code, body, target)
    assert type(error) is meaning
    assert error.status == code


def test_a_field_conflict_names_each_manager_and_field() -> None:
    body = status(
        409,
        "Apply failed with 2 conflicts: ...",
        "Conflict",
        causes=[
            cause(
                '.spec.template.spec.containers[name="c"].image',
                'conflict with "kubectl-edit" using apps/v1',
                "FieldManagerConflict",
            ),
            cause(
                ".spec.replicas",
                'conflict with "kube-controller-manager" with subresource "scale" using apps/v1',
                "FieldManagerConflict",
            ),
        ],
    )
    error = from_answer(409, body, DEPLOYMENT)
    assert isinstance(error, FieldConflict)
    assert error.conflicts == (
        ("kubectl-edit", '.spec.template.spec.containers[name="c"].image'),
        ("kube-controller-manager", ".spec.replicas"),
    )


def test_a_manager_with_quotes_in_its_name_is_read_as_it_is() -> None:
    error = from_answer(
        409,
        status(409, "...", "Conflict", causes=[cause(".a", r'conflict with "my \"tool\""', "FieldManagerConflict")]),
    )
    assert isinstance(error, FieldConflict)
    assert error.conflicts == (('my "tool"', ".a"),)


def test_a_manager_with_an_escape_of_go_alone_is_told_in_the_servers_words() -> None:
    words = r'conflict with "my\x07tool"'
    error = from_answer(409, status(409, "...", "Conflict", causes=[cause(".a", words, "FieldManagerConflict")]))
    assert isinstance(error, FieldConflict)
    assert error.conflicts == ((words, ".a"),)


@pytest.mark.parametrize(
    ("code", "message", "causes", "field"),
    [
        (409, f'Operation cannot be fulfilled on configmaps "x": {MODIFIED}', [], "resourceVersion"),
        (409, "... the UID in the precondition (a) does not match the UID in record (b). ...", [], "uid"),
        (409, "Precondition failed: UID in precondition: a, UID in object meta: b", [], "uid"),
        (409, "... the ResourceVersion in the precondition (1) does not match ...", [], "resourceVersion"),
        (409, "... uid mismatch: the provided object specified uid a, and no existing object was found", [], "uid"),
        (
            422,
            'Deployment.apps "d" is invalid: metadata.uid: Invalid value: "1": field is immutable',
            [cause("metadata.uid", 'Invalid value: "1": field is immutable')],
            "uid",
        ),
    ],
)
def test_stale_tells_a_changed_object_from_another_one_of_its_name(
    code: int, message: str, causes: list[dict[str, str]], field: str
) -> None:
    error = from_answer(code, status(code, message, "Conflict", causes=causes), DEPLOYMENT)
    assert isinstance(error, Stale)
    assert error.field == field


def test_a_plain_conflict_of_a_request_without_precondition_is_worth_another_try() -> None:
    body = status(409, f'Operation cannot be fulfilled on configmaps "x": {MODIFIED}', "Conflict", kind="configmaps")
    error = from_answer(409, body, CONFIG_MAP, guarded=False)
    assert isinstance(error, Unavailable)
    assert not error.maybe_done


@pytest.mark.parametrize(
    "message",
    [
        'Invalid value: {"matchLabels":{"a":"c"}}: field is immutable',
        "Forbidden: field is immutable when `immutable` is set",
        'Invalid value: {"APIGroup":"rbac.authorization.k8s.io","Kind":"Role","Name":"b"}: cannot change roleRef',
        "Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', ... are forbidden",
        'Invalid value: ["10.96.7.7"]: may not change once set',
        "Forbidden: spec is immutable after creation except resources.requests and ...\n@@ -1,6 +1,6 @@\n {\n",
        'Invalid value: "object": Value is immutable',
    ],
)
def test_an_immutable_field_is_recognised_in_the_words_of_each_kind(message: str) -> None:
    error = from_answer(422, status(422, "...", "Invalid", causes=[cause("spec", message)]), DEPLOYMENT)
    assert isinstance(error, Invalid)
    assert error.immutable_only


def test_an_invalid_field_beside_an_immutable_one_forbids_a_replacement() -> None:
    causes = [
        cause("spec.replicas", "Invalid value: -1: must be greater than or equal to 0"),
        cause("spec.selector", "Invalid value: {...}: field is immutable"),
    ]
    error = from_answer(422, status(422, "...", "Invalid", causes=causes), DEPLOYMENT)
    assert isinstance(error, Invalid)
    assert not error.immutable_only


def test_a_refusal_without_causes_is_not_taken_for_immutability() -> None:
    error = from_answer(400, status(400, "... is immutable", "BadRequest"), DEPLOYMENT)
    assert isinstance(error, Invalid)
    assert not error.immutable_only


def test_a_value_of_pages_is_left_out_of_the_sentence() -> None:
    template = json.dumps({"Spec": {"Containers": [{"Env": [{"Name": "TOKEN", "Value": "abc: def"}]}] * 99}})
    message = f"Invalid value: {template}: field is immutable"
    body = status(
        422,
        f'Job.batch "j" is invalid: spec.template: {message}',
        "Invalid",
        causes=[cause("spec.template", message)],
    )
    error = from_answer(422, body, JOB)
    assert str(error) == 'Job/prod/j: Job.batch "j" is invalid: spec.template: Invalid value: {...}: field is immutable'
    assert error.causes[0].message == "Invalid value: {...}: field is immutable"
    assert isinstance(error, Invalid)
    assert error.immutable_only


def test_a_message_is_bounded() -> None:
    error = from_answer(422, status(422, "x" * 1_000_000, "Invalid"), DEPLOYMENT)
    assert len(str(error)) < 1_200


@pytest.mark.parametrize(
    ("code", "message", "causes"),
    [
        (500, 'failed to create typed patch object (...): ... got &value...{Value:[]interface {}{"hunter2"}}', []),
        (400, 'Secret in version "v1" cannot be handled as a Secret: ... |{"data":{"p":"hunter2"}}|', []),
        (422, "... Invalid value: hunter2", [cause("data.p", "Invalid value: hunter2: must be shorter")]),
        (403, "secrets \"s\" is forbidden: ValidatingAdmissionPolicy 'p' denied request: hunter2 is weak", []),
        (500, 'Internal error occurred: failed calling webhook "x": hunter2', []),
        (503, "hunter2", []),
    ],
)
def test_words_that_may_quote_a_secret_are_withheld(code: int, message: str, causes: list[dict[str, str]]) -> None:
    error = from_answer(code, status(code, message, "Whatever", causes=causes), SECRET)
    assert "hunter2" not in f"{error} {error!r} {error.args} {error.causes} {error.message}"
    assert str(error).startswith("Secret/prod/s: Whatever")


def test_words_about_a_secret_that_are_made_of_names_are_kept() -> None:
    message = 'secrets "s" is forbidden: User "weak" cannot get resource "secrets" in API group "" ...'
    assert message.rstrip(".") in str(from_answer(403, status(403, message, "Forbidden"), SECRET))


def test_the_fields_of_an_invalid_secret_are_named_without_their_values() -> None:
    body = status(422, "...", "Invalid", causes=[cause("data.p", "Invalid value: hunter2: must be shorter")])
    assert "(data.p)" in str(from_answer(422, body, SECRET))


@pytest.mark.parametrize(
    ("body", "header", "seconds"),
    [
        (status(429, "...", "TooManyRequests", retryAfterSeconds=3), 0.0, 3.0),
        (b"Too many requests, please try again later.\n", 1.0, 1.0),
        (status(429, "...", "TooManyRequests", retryAfterSeconds=3), 7.0, 7.0),
    ],
)
def test_how_long_to_wait_is_read_from_the_header_or_the_status(body: bytes, header: float, seconds: float) -> None:
    error = from_answer(429, body, CONFIG_MAP, retry_after=header)
    assert isinstance(error, Unavailable)
    assert error.retry_after == seconds
    assert not error.maybe_done


def test_the_sentence_has_the_object_the_words_and_what_to_do() -> None:
    error = from_answer(404, status(404, 'namespaces "prod" not found', "NotFound", kind="namespaces"), DEPLOYMENT)
    assert str(error) == 'Deployment/prod/d: namespaces "prod" not found. Create the namespace first.'


def test_an_old_watch_is_expired_in_each_way_of_saying_so() -> None:
    gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version: 1 (500)"}
    compacted = {"kind": "Status", "code": 500, "message": "etcdserver: mvcc: required revision has been compacted"}
    assert type(from_status(gone)) is Expired
    assert type(from_status(compacted)) is Expired


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["causes", "kind", "field", "message"]), inner),
)


@given(
    code=st.integers(300, 599),
    answer=st.dictionaries(st.sampled_from(["kind", "message", "reason", "details", "code"]), anything),
)
def test_an_answer_of_any_shape_is_an_error_with_a_sentence(code: int, answer: dict[str, Any]) -> None:
    error = from_answer(code, json.dumps({"kind": "Status"} | answer).encode(), CONFIG_MAP)
    assert error.status == code
    assert str(error).startswith("ConfigMap/prod/x: ")


@given(code=st.integers(300, 599), body=st.binary())
def test_an_answer_that_is_no_json_is_an_error_with_a_sentence(code: int, body: bytes) -> None:
    assert str(from_answer(code, body, CONFIG_MAP)).startswith(f"ConfigMap/prod/x: HTTP {code}")


def test_a_page_of_a_proxy_is_not_quoted_about_a_secret() -> None:
    assert "hunter2" not in str(from_answer(404, b"<html>you sent hunter2", SECRET))
