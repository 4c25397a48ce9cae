"""The kinds by name, and a moment."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from embedded.kinds import BUILTIN, Kind, kinds_of_crd, shipped_crds


@pytest.fixture(scope="session")
def kinds_by_name() -> dict[str, Kind]:
    """Built-in kinds and those of the shipped definitions; of several versions the stored one."""
    custom = [kind for crd in shipped_crds() for kind in kinds_of_crd(crd) if kind.storage]
    return {kind.kind: kind for kind in (*BUILTIN, *custom)}


@pytest.fixture
def now() -> datetime:
    return datetime(2026, 11, 21, 8, 15, 18, tzinfo=UTC)
