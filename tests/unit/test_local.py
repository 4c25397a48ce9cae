"""`up` and `down`, where the folder is not as it should be."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler import local


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()  # as good as a read-only disk, which not every user can make
    with pytest.raises(local.LocalError, match="name another folder with --home"):
        local.up(tmp_path)


def test_down_needs_no_right_to_write_where_none_is_up(tmp_path: Path) -> None:
    (tmp_path / "pid").mkdir()
    assert not local.down(tmp_path)


def test_down_says_where_something_may_still_run(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "objects.db").write_text("this is no database")
    with pytest.raises(local.LocalError, match="may still run"):
        local.down(tmp_path)
