"""What the servers themselves refuse of records, whoever writes them: nonsense, and a past that is written anew."""

from __future__ import annotations

import copy
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reconciler import ledger
from reconciler.cluster import Writer, connect
from reconciler.records import Build, BuildPhase, Phase, Promotion, to_body
from tests.contract.client import KUBECTL, MERGE, Answer, Api
from tests.sample_records import a_build, a_decision, a_full_build, a_full_promotion, a_promotion

Body = dict[str, Any]
Change = Callable[[Body], None]


@pytest.fixture
def group(server: tuple[Path, str], namespace: str) -> str:
    """The path of the records of this test, in a namespace of its own."""
    connection = connect(str(server[0]), trusted=True)
    assert ledger.ensure(Writer(connection)) == []
    connection.close()
    return f"/apis/trueup.dev/v1/namespaces/{namespace}"


@pytest.fixture
def kubectl(server: tuple[Path, str], namespace: str, group: str) -> Callable[..., str]:
    def run(*arguments: str) -> str:
        command = [KUBECTL, "--kubeconfig", str(server[0]), "--namespace", namespace, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    return run


def post(api: Api, group: str, record: Build | Promotion) -> Body:
    """Stores a record with its status, as it is."""
    body = body_of(record)
    kind = plural(record)
    created = api("POST", f"{group}/{kind}?fieldValidation=Strict", body)
    assert created.status == 201, created.body
    written = api("PUT", f"{group}/{kind}/{record.identity.name}/status", created.body | {"status": body["status"]})
    assert written.status == 200, written.body
    return dict(written.body)


def body_of(record: Build | Promotion) -> Body:
    body = to_body(record)
    del body["metadata"]["namespace"]
    return body


def plural(record: Build | Promotion) -> str:
    return "builds" if isinstance(record, Build) else "promotions"


def put(api: Api, group: str, body: Body, change: Change, *, status: bool = False) -> Answer:
    """Replaces a stored record by a changed one."""
    changed = copy.deepcopy(body)
    change(changed)
    path = f"{group}/{body['kind'].lower()}s/{body['metadata']['name']}{'/status' if status else ''}"
    return api("PUT", f"{path}?fieldValidation=Strict", changed)


def setting(path: str, value: Any) -> Change:
    """A change that sets a field, "spec.cause.by"; None removes it."""

    def change(body: Body) -> None:
        *parents, last = path.split(".")
        for parent in parents:
            body = body[parent]
        if value is None:
            del body[last]
        else:
            body[last] = value

    return change


# -- what people see ------------------------------------------------------------------------------------------------


def test_kubectl_shows_what_matters_of_a_build(api: Api, group: str, kubectl: Callable[..., str]) -> None:
    build = a_full_build()
    post(api, group, build)
    head, row = kubectl("get", "bld").splitlines()
    assert head.split() == ["NAME", "MODEL", "AUTOMATION", "ENVIRONMENT", "CAUSE", "PHASE", "AGE"]
    assert row.split()[:-1] == [build.identity.name, "churn", "nightly", "production", "Manual", "Failed"]
    assert "no such package: pandsa" in kubectl("get", "builds", "-o", "wide")


def test_kubectl_shows_what_matters_of_a_promotion(api: Api, group: str, kubectl: Callable[..., str]) -> None:
    promotion = a_full_promotion()
    post(api, group, promotion)
    head, row = kubectl("get", "promo").splitlines()
    assert head.split() == ["NAME", "MODEL", "VARIATION", "ENVIRONMENT", "PHASE", "WEIGHT", "AGE"]
    assert row.split()[:-1] == [promotion.identity.name, "churn", "default", "production", "Held", "20"]
    assert "paused by bob" in kubectl("get", "promotions", "-o", "wide")


def test_both_are_shown_together(api: Api, group: str, kubectl: Callable[..., str]) -> None:
    build, promotion = a_build(), a_promotion()
    post(api, group, build)
    post(api, group, promotion)
    names = kubectl("get", "trueup", "-o", "name").split()
    assert names == [
        f"build.trueup.dev/{build.identity.name}",
        f"promotion.trueup.dev/{promotion.identity.name}",
    ]


def test_kubectl_explains_each_field(kubectl: Callable[..., str]) -> None:
    assert "the id of the build that they looked at" in " ".join(
        kubectl("explain", "promotion.spec.decisions.build").lower().split()
    )


# -- nonsense -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "path", "value", "words"),
    [
        (a_build(), "spec.id", "abc", "spec.id"),
        (a_build(), "spec.model", None, "spec.model"),
        (a_build(), "spec.action", "Destroy", 'supported values: "Build", "Batch"'),
        (a_build(), "spec.cause.at", "yesterday", "spec.cause.at in body must be of type date-time"),
        (a_build(), "spec.commit", "main", "spec.commit"),
        (a_build(), "metadata.name", "churn-build-1", "the name must end with the first 8 digits of spec.id"),
        (a_promotion(), "spec.attempt", 0, "spec.attempt"),
        (a_promotion(), "spec.attempt", "1", "must be of type integer"),
        (a_promotion(), "spec.attempt", 2, "the name must end with the first 8 digits of spec.build and spec.attempt"),
        (a_promotion(build="ab" * 32), "metadata.name", "churn.default.production.abababab-01", "the name must end"),
        (a_promotion(build="ab" * 32), "metadata.name", "abababab-1", "the name must end"),
        (a_promotion(), "spec.kind", "Demote", 'supported values: "Promote", "Rollback"'),
        (a_promotion(), "spec.cause.by", "x" * 513, "spec.cause.by"),
        (a_promotion(), "spec.decisions", [{"action": "Approve"}], "spec.decisions[0].by"),
        (a_promotion(), "spec.decisions", [{}] * 21, "must have at most 20 items"),
    ],
)
def test_a_record_that_makes_no_sense_is_refused(
    api: Api, group: str, *, record: Build | Promotion, path: str, value: Any, words: str
) -> None:
    body = body_of(record)
    setting(path, value)(body)
    answer = api("POST", f"{group}/{plural(record)}", body)
    assert (answer.status, answer.body["reason"]) == (422, "Invalid")
    assert words in answer.body["message"]


@pytest.mark.parametrize(
    ("record", "path", "value", "words"),
    [
        (a_full_build(), "status.phase", "Lost", "status.phase"),
        (a_full_build(), "status.phase", None, "status.phase"),
        (a_full_build(), "status.metrics", {"auc": 0.9}, "status.metrics.auc"),
        (a_full_promotion(), "status.rollout.weight", 101, "status.rollout.weight"),
        (a_full_promotion(), "status.rollout.step", -2, "status.rollout.step"),
        (a_full_promotion(), "status.gate.verdicts", [{}] * 11, "must have at most 10 items"),
    ],
)
def test_a_status_that_makes_no_sense_is_refused(
    api: Api, group: str, *, record: Build | Promotion, path: str, value: Any, words: str
) -> None:
    answer = put(api, group, post(api, group, record), setting(path, value), status=True)
    assert (answer.status, answer.body["reason"]) == (422, "Invalid")
    assert words in answer.body["message"]


def test_an_unknown_field_is_refused(api: Api, group: str) -> None:
    answer = put(api, group, post(api, group, a_build()), setting("spec.priority", 1))
    assert answer.status == 400
    assert 'unknown field "spec.priority"' in answer.body["message"]


def test_a_build_specification_may_say_anything(api: Api, group: str) -> None:
    anything = {"resources": {"gpu_type": "a10g"}, "tags": ["a", "b"], "timeout_minutes": 5, "deep": {"er": [{"x": 1}]}}
    stored = post(api, group, a_build(specification=anything))
    assert stored["spec"]["specification"] == anything


# -- the past -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.model", "fraud"),
        ("spec.environment", "staging"),
        ("spec.automation", "weekly"),
        ("spec.automation", None),
        ("spec.action", "Build"),
        ("spec.cause.by", "mallory"),
        ("spec.cause.reason", None),
        ("spec.commit", "f" * 40),
        ("spec.specification", None),
        ("spec.specification.git_uri", "https://git.example/evil.git#churn"),
        ("spec.specification.parameters.depth", "4"),
        ("spec.specification.parameters", None),
        ("spec.specification.more", {"a": ["b"]}),
    ],
)
def test_what_a_build_was_asked_for_never_changes(api: Api, group: str, path: str, value: Any) -> None:
    answer = put(api, group, post(api, group, a_full_build()), setting(path, value))
    assert answer.status == 422
    assert "spec is immutable" in answer.body["message"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.model", "fraud"),
        ("spec.variation", "other"),
        ("spec.environment", "staging"),
        ("spec.build", "0" * 64),
        ("spec.expectedCurrent", "0" * 64),
        ("spec.expectedCurrent", None),
        ("spec.kind", "Promote"),
        ("spec.automation", None),
        ("spec.attempt", 13),
        ("spec.cause.by", "mallory"),
        ("spec.cause", {"kind": "Manual", "at": "2027-01-01T00:00:00Z"}),
    ],
)
def test_what_a_promotion_was_asked_for_never_changes(api: Api, group: str, path: str, value: Any) -> None:
    answer = put(api, group, post(api, group, a_full_promotion()), setting(path, value))
    assert answer.status == 422
    assert "spec is immutable, but for its decisions" in answer.body["message"]


def decisions(body: Body) -> list[Body]:
    made: list[Body] = body["spec"]["decisions"]
    return made


def said(by: str = "carol") -> Body:
    return a_decision("ab" * 32, by=by, minutes=9).model_dump(by_alias=True, mode="json")


def test_decisions_are_added_one_after_another(api: Api, group: str) -> None:
    body = post(api, group, a_promotion())
    for count in range(1, 21):
        answer = put(api, group, body, lambda body: decisions(body).append(said()))
        assert answer.status == 200, answer.body
        body = answer.body
        assert len(decisions(body)) == count
    assert put(api, group, body, lambda body: decisions(body).append(said())).status == 422


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda body: decisions(body).pop(), id="the last one is taken back"),
        pytest.param(lambda body: decisions(body).clear(), id="all are taken back"),
        pytest.param(lambda body: body["spec"].pop("decisions"), id="the field is removed"),
        pytest.param(lambda body: decisions(body).reverse(), id="another order"),
        pytest.param(lambda body: decisions(body).insert(0, said()), id="one comes before"),
        pytest.param(lambda body: decisions(body)[0].update(by="mallory"), id="another name"),
        pytest.param(lambda body: decisions(body)[1].update(reason="other words"), id="other words"),
        pytest.param(lambda body: decisions(body)[1].pop("reason"), id="no words"),
    ],
)
def test_what_was_decided_never_changes(api: Api, group: str, change: Change) -> None:
    answer = put(api, group, post(api, group, a_full_promotion()), change)
    assert answer.status == 422
    assert "what was decided is immutable" in answer.body["message"]


@pytest.mark.parametrize("end", [BuildPhase.SUCCEEDED, BuildPhase.FAILED, BuildPhase.CANCELLED, BuildPhase.REGISTERED])
def test_a_build_that_has_ended_stays_ended(api: Api, group: str, end: BuildPhase) -> None:
    body = post(api, group, a_build())
    for phase in ("Running", end):
        body = put(api, group, body, setting("status.phase", phase), status=True).body
    for change in (setting("status.phase", "Running"), setting("status", None)):
        answer = put(api, group, body, change, status=True)
        assert answer.status == 422
        assert "this build has ended" in answer.body["message"]
    assert put(api, group, body, setting("status.notified", ["slack"]), status=True).status == 200


@pytest.mark.parametrize("end", [Phase.SUCCEEDED, Phase.REJECTED, Phase.ROLLED_BACK, Phase.SUPERSEDED])
def test_a_promotion_that_has_ended_stays_ended(api: Api, group: str, end: Phase) -> None:
    body = post(api, group, a_promotion())
    for phase in ("AwaitingApproval", "RollingOut", "Held", "Pending", end):
        body = put(api, group, body, setting("status.phase", phase), status=True).body
    for change in (setting("status.phase", "RollingOut"), setting("status", None)):
        answer = put(api, group, body, change, status=True)
        assert answer.status == 422
        assert "this promotion has ended" in answer.body["message"]
    assert put(api, group, body, setting("status.notified", ["slack"]), status=True).status == 200


@pytest.mark.parametrize("record", [a_full_build(), a_full_promotion()])
def test_a_message_that_was_sent_stays_sent(api: Api, group: str, record: Build | Promotion) -> None:
    body = post(api, group, record)
    body = put(api, group, body, lambda body: body["status"]["notified"].append("more"), status=True).body
    answer = put(api, group, body, lambda body: body["status"]["notified"].pop(0), status=True)
    assert answer.status == 422
    assert "what was sent stays sent" in answer.body["message"]


def test_labels_may_be_put_on_a_record(api: Api, group: str) -> None:
    body = post(api, group, a_full_promotion())
    path = f"{group}/promotions/{body['metadata']['name']}"
    answer = api("PATCH", path, {"metadata": {"labels": {"ticket": "4711"}}}, content_type=MERGE)
    assert answer.status == 200
