"""All records as they were read last, by model: a record that has not changed is not read again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from reconciler import ledger as edge
from reconciler.cluster import Reader
from reconciler.promotion import Ledger
from reconciler.records import Build, Promotion, RecordError, object_id_of
from renderers.manifest import Body, ObjectId, object_id


class _Unreadable(NamedTuple):
    """A record that somebody has edited into something else. The cluster admits none without model and environment."""

    model: str
    environment: str
    why: str


_Record: TypeAlias = Build | Promotion | _Unreadable


@dataclass(slots=True)
class Archive:
    """`builds` counts them by phase, `promotions` by environment and phase."""

    builds: Counter[str] = field(default_factory=Counter)
    promotions: dict[str, Counter[str]] = field(default_factory=dict)
    _records: dict[ObjectId, _Record] = field(default_factory=dict)
    _versions: dict[ObjectId, str] = field(default_factory=dict)
    _models: dict[str, set[ObjectId]] = field(default_factory=dict)
    #: Records of which something was heard, or that were written without an answer that could be kept.
    _doubts: set[ObjectId] = field(default_factory=set)

    @property
    def models(self) -> Collection[str]:
        """Those that there are records of."""
        return self._models.keys()

    def read(self, reader: Reader) -> frozenset[str]:
        """All records: the models of which any has changed. Raises `ApiError`."""
        bodies = {object_id(body): body for body in edge.bodies(reader)}
        self._doubts.clear()
        changed = {self._drop(target) for target in self._records.keys() - bodies.keys()}
        changed |= {self._take(target, body) for target, body in bodies.items()}
        return frozenset(model for model in changed if model is not None)

    def read_again(self, reader: Reader) -> frozenset[str]:
        """Those that are doubted: the models of which any has changed. Raises `ApiError`."""
        changed: set[str | None] = set()
        for target in sorted(self._doubts):
            body = reader.get(target)
            changed.add(self._drop(target) if body is None else self._take(target, body))
            self._doubts.discard(target)
        return frozenset(model for model in changed if model is not None)

    def doubt(self, *targets: ObjectId) -> None:
        """These are read before anything is decided about their models again."""
        self._doubts.update(targets)

    @property
    def doubts(self) -> bool:
        """Whether any is doubted."""
        return bool(self._doubts)

    def model(self, target: ObjectId) -> str | None:
        """The model that a record is of; None where there is no such record."""
        known = self._records.get(target)
        return None if known is None else _model(known)

    def ledger(self, model: str) -> Ledger:
        """The records of a model."""
        known = [self._records[target] for target in sorted(self._models.get(model, ()))]
        bad = [one for one in known if isinstance(one, _Unreadable) and one.environment]
        return Ledger(
            {one.identity.name: one for one in known if isinstance(one, Build)},
            tuple(one for one in known if isinstance(one, Promotion)),
            unreadable={(one.environment, one.model): one.why for one in bad},
        )

    def unreadable(self, model: str) -> list[str]:
        """A sentence for each record of a model that cannot be read."""
        known = (self._records[target] for target in sorted(self._models.get(model, ())))
        return [one.why for one in known if isinstance(one, _Unreadable)]

    def keep(self, record: Build | Promotion) -> None:
        """A record was written, and is this by now."""
        target = object_id_of(record)
        self._doubts.discard(target)
        self._drop(target)
        self._put(target, record, f"{record.identity.uid}/{record.identity.resource_version}")

    def forget(self, record: Build | Promotion) -> None:
        """A record was deleted."""
        self._doubts.discard(object_id_of(record))
        self._drop(object_id_of(record))

    def _take(self, target: ObjectId, body: Body) -> str | None:
        version = f"{body['metadata'].get('uid')}/{body['metadata'].get('resourceVersion')}"
        if self._versions.get(target) == version:
            return None
        self._drop(target)
        try:
            record: _Record = edge.record_of(body)
        except RecordError as error:
            record = _unreadable(body, f"{error}. It is left out until somebody deletes it")
        self._put(target, record, version)
        return _model(record)

    def _put(self, target: ObjectId, record: _Record, version: str) -> None:
        self._records[target], self._versions[target] = record, version
        self._models.setdefault(_model(record), set()).add(target)
        self._count(record, 1)

    def _drop(self, target: ObjectId) -> str | None:
        """The model that it was of."""
        record = self._records.pop(target, None)
        if record is None:
            return None
        del self._versions[target]
        theirs = self._models[_model(record)]
        theirs.discard(target)
        if not theirs:
            del self._models[_model(record)]
        self._count(record, -1)
        return _model(record)

    def _count(self, record: _Record, number: int) -> None:
        if isinstance(record, Build):
            self.builds[str(record.status.phase)] += number
        elif isinstance(record, Promotion):
            phases = self.promotions.setdefault(record.spec.environment, Counter())
            phases[str(record.status.phase)] += number


def _model(record: _Record) -> str:
    return record.model if isinstance(record, _Unreadable) else record.spec.model


def _unreadable(body: Body, why: str) -> _Unreadable:
    """Nothing depends on a build that cannot be read; a promotion may be the one that says what is served."""
    spec = body.get("spec") or {}
    environment = str(spec.get("environment", "")) if body["kind"] == "Promotion" else ""
    return _Unreadable(str(spec.get("model", "")), environment, why)
