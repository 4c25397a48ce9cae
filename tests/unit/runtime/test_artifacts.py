"""Artifacts: folders of code as they are copied, packed and unpacked."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from runtime.artifacts import ArtifactError, copy_code, pack, unpack


def write(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


def files(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def test_the_folders_keep_their_places_and_nothing_else_comes_along(tmp_path: Path) -> None:
    write(tmp_path / "code", "a/m/main/model.py", "a/m/__pycache__/x.pyc", "shared/x.py", "other/y.py")
    copy_code(tmp_path / "code", ["a/m", "shared"], tmp_path / "copy")
    assert files(tmp_path / "copy") == {"a/m/main/model.py", "shared/x.py"}


def test_the_whole_repository_is_the_empty_folder(tmp_path: Path) -> None:
    write(tmp_path / "code", "main/model.py", "shared/x.py")
    copy_code(tmp_path / "code", ["", "shared"], tmp_path / "copy")
    assert files(tmp_path / "copy") == {"main/model.py", "shared/x.py"}


def test_a_link_to_a_folder_that_is_not_copied_becomes_its_content(tmp_path: Path) -> None:
    write(tmp_path / "code", "m/main/model.py", "shared/x.py")
    (tmp_path / "code/m/shared").symlink_to("../shared")
    (tmp_path / "code/m/gone").symlink_to("nothing")
    copy_code(tmp_path / "code", ["m"], tmp_path / "copy")
    assert files(tmp_path / "copy") == {"m/main/model.py", "m/shared/x.py"}


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    write(tmp_path / "code", "a/x", "b/y")
    (tmp_path / "code/a/up").symlink_to("..")
    (tmp_path / "code/a/b").symlink_to("../b")
    (tmp_path / "code/b/a").symlink_to("../a")
    copy_code(tmp_path / "code", ["a"], tmp_path / "copy")
    assert {"a/x", "a/b/y"} <= files(tmp_path / "copy")


def test_what_is_packed_is_unpacked_without_compiled_modules(tmp_path: Path) -> None:
    write(tmp_path / "artifact", "model.pickle", "code/main/model.py", "code/main/__pycache__/model.pyc")
    pack(tmp_path / "artifact", tmp_path / "a.tar.gz")
    unpack(tmp_path / "a.tar.gz", tmp_path / "unpacked")
    assert files(tmp_path / "unpacked") == {"model.pickle", "code/main/model.py"}


def test_nothing_is_unpacked_outside_of_the_folder(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("../outside"), io.BytesIO())
    with pytest.raises(ArtifactError, match="outside"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "unpacked")
    assert not (tmp_path / "outside").exists()


def test_what_is_no_archive_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(b"nothing of the kind")
    with pytest.raises(ArtifactError, match="it is no archive"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "unpacked")
