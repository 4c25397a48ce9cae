"""The same questions that a real API server was asked get the same answers. See recorded/README.md."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from embedded import kinds, merge
from embedded.kinds import Kind

RECORDED = Path(__file__).parent / "recorded"
START = datetime(2026, 1, 1, tzinfo=UTC)
CONTROLLER_UID = "batch.kubernetes.io/controller-uid"


def lines(name: str) -> list[Any]:
    return [orjson.loads(line) for line in (RECORDED / name).read_bytes().splitlines()]


def created(kind: Kind, body: dict[str, Any], manager: str) -> dict[str, Any]:
    """What this package makes of a POST, without what the storage adds."""
    obj = copy.deepcopy(body)
    if kind.namespaced:
        obj["metadata"].setdefault("namespace", "halfa")
    kinds.prune(kind, obj)
    kinds.isolate(kind, obj, None, "")
    kinds.defaults(kind, obj)
    merge.update(kind, None, obj, manager=manager, now=START)
    obj["metadata"]["uid"] = "UID"
    return obj


def with_job_selector(kind: Kind, obj: dict[str, Any]) -> None:
    """Admission gives a Job the selector of its own pods; that is not what is tested here."""
    if kind.kind != "Job":
        return
    name, spec = obj["metadata"]["name"], obj["spec"]
    own = {CONTROLLER_UID: "UID", "batch.kubernetes.io/job-name": name, "controller-uid": "UID", "job-name": name}
    spec["template"]["metadata"].setdefault("labels", {}).update(own)
    spec.setdefault("selector", {}).setdefault("matchLabels", {})[CONTROLLER_UID] = "UID"


def comparable(obj: dict[str, Any], *, status: bool = True) -> dict[str, Any]:
    """Without what differs between two servers: identity, versions, times, and the order of entries of one second."""
    out = orjson.loads(orjson.dumps(obj))
    meta = out["metadata"]
    for field in ("uid", "resourceVersion", "creationTimestamp", "generation"):
        meta.pop(field, None)
    for entry in meta.get("managedFields", ()):
        entry.pop("time", None)
    meta.get("managedFields", []).sort(key=lambda e: (e["operation"], e["manager"], e.get("subresource", "")))
    if not status:
        out.pop("status", None)
    return out  # type: ignore[no-any-return] # JSON


def test_objects_are_refused_for_the_reasons_and_in_the_words_of_a_real_server(kinds_by_name: dict[str, Kind]) -> None:
    different = []
    for row in lines("refusals.jsonl"):
        kind, body = kinds_by_name[row["object"]["kind"]], row["object"]
        unreadable = kinds.decode_errors(kind, body)
        if unreadable:
            refusal = f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: {unreadable[0]}'
            answer: tuple[int, str | None] = 400, refusal
        else:
            obj = created(kind, body, "t")
            with_job_selector(kind, obj)
            causes = kinds.validate(kind, obj, None)
            answer = (422, kinds.invalid_text(kind, obj["metadata"].get("name", ""), causes)) if causes else (201, None)
        if answer != (row["code"], row["message"]):
            different.append((body, row["code"], row["message"], answer))
    assert different == []


def test_a_created_object_is_defaulted_and_owned_as_on_a_real_server(kinds_by_name: dict[str, Kind]) -> None:
    for row in lines("creates.jsonl"):
        kind = kinds_by_name[row["request"]["kind"]]
        assert comparable(created(kind, row["request"], "t")) == comparable(row["answer"])


@pytest.mark.parametrize("sequence", lines("applies.jsonl"))
def test_a_sequence_of_applies_and_patches_ends_as_on_a_real_server(
    sequence: dict[str, Any], kinds_by_name: dict[str, Kind]
) -> None:
    kind = kinds_by_name[sequence["kind"]]
    live: dict[str, Any] | None = None
    for hour, step in enumerate(sequence["steps"]):
        now = START + timedelta(hours=hour)
        answer = one_step(kind, live, step, now)
        if step["code"] != 200:
            assert answer == step["message"]
            continue
        assert isinstance(answer, dict)
        for field in ("clusterIPs", "ipFamilies", "ipFamilyPolicy"):  # these come from admission
            if field in step["object"].get("spec", {}):
                answer["spec"][field] = step["object"]["spec"][field]
        assert comparable(answer, status=False) == comparable(step["object"], status=False)
        live = answer


def one_step(kind: Kind, live: dict[str, Any] | None, step: dict[str, Any], now: datetime) -> dict[str, Any] | str:
    """The object after the request, or the message of the refusal, without times."""
    manager, body = step["manager"], step["body"]
    if step["verb"] == "apply":
        merged = merge.apply(kind, live, body, manager=manager, force=step["force"], now=now)
        if isinstance(merged, merge.Conflicts):
            return merge.Conflicts(tuple(conflict._replace(time="") for conflict in merged.conflicts)).message
        obj = copy.deepcopy(merged.object)
        kinds.isolate(kind, obj, live, "")
    elif step["verb"] == "create":
        obj = copy.deepcopy(body)
        kinds.isolate(kind, obj, None, "")
        kinds.defaults(kind, obj)
        merge.update(kind, None, obj, manager=manager, now=now)
    else:
        assert live is not None
        obj = merge.merge_patch(live, body)
        kinds.isolate(kind, obj, live, "")
        kinds.defaults(kind, obj)
        merge.update(kind, live, obj, manager=manager, now=now)
    obj["metadata"].setdefault("uid", "UID")
    causes = kinds.validate(kind, obj, live)
    return kinds.invalid_text(kind, obj["metadata"]["name"], causes) if causes else obj
