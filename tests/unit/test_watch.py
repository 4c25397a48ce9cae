"""Spec files that somebody writes while they are watched."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

import pytest

import renderers
from reconciler import review
from reconciler.review import Review
from reconciler.source import watch
from reconciler.source.files import Files
from renderers.catalog import Facts, Unit
from renderers.manifest import Manifest


@contextmanager
def writing(file: Path) -> Iterator[None]:
    """Somebody saves a file again and again meanwhile."""
    done = Event()

    def save() -> None:
        number = 0
        while not done.wait(0.1):
            number += 1
            with suppress(FileNotFoundError):
                file.write_text(f"# {number}\n")

    writer = Thread(target=save, daemon=True)
    writer.start()
    yield
    done.set()
    writer.join()


def test_a_folder_that_a_checkout_has_removed_and_made_again_is_still_watched(tmp_path: Path) -> None:
    folder = tmp_path / "specs"
    folder.mkdir()
    seen = watch.changes([folder])
    with writing(folder / "a.yaml"):
        next(seen)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(exist_ok=True)
        for _ in range(6):  # more than what is told of the removal itself
            next(seen)


def test_a_folder_that_is_gone_for_a_while_is_watched_as_soon_as_it_is_back(tmp_path: Path) -> None:
    folder = tmp_path / "specs"
    folder.mkdir()
    (folder / "a.yaml").write_text("")
    seen = watch.changes([folder])

    def move() -> None:
        while not stop.wait(0.3):
            folder.rename(away) if folder.exists() else away.rename(folder)

    away, stop = tmp_path / "away", Event()
    mover = Thread(target=move, daemon=True)
    mover.start()
    for _ in range(4):
        next(seen)
    stop.set()
    mover.join()


def test_what_is_saved_before_the_watch_begins_is_seen(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("api_version: v1\nspec: {environments: [{name: one}]}\n")
    following = review.follow([tmp_path], None, (), watch.changes([tmp_path]))
    report, _ = next(following)
    assert report.effects == ()
    (tmp_path / "a.yaml").write_text("api_version: v1\nspec: {environments: [{name: two}]}\n")
    report, _ = next(following)
    assert {effect.environment for effect in report.effects} == {"one", "two"}


def test_what_is_saved_as_it_was_makes_no_new_plan(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("api_version: v1\nspec: {environments: [{name: one}]}\n")

    def saved() -> Iterator[None]:
        file.write_bytes(file.read_bytes())
        yield
        file.write_text(file.read_text() + "# more\n")
        yield

    assert len(list(review.follow([tmp_path], None, (), saved()))) == 2


def specs(models: int, pods: int = 1) -> Files:
    """A file for each model, the first with so many pods, and the environment in one of its own."""
    texts = {"e.yaml": "api_version: v1\nspec: {environments: [{name: production}]}\n"}
    for number in range(models):
        texts[f"{number:03}.yaml"] = f"""\
api_version: v1
spec:
  builds: [{{name: b-{number}, model: m{number}, git_uri: "https://git.example.com/models#m"}}]
  variations:
  - model: m{number}
    environments: [production]
    build: b-{number}
    deployment: {{number_of_pods: {1 if number else pods}}}
"""
    return Files({name: text.encode() for name, text in texts.items()}, ())


def test_while_something_is_deleted_a_saved_file_costs_what_it_is_about(monkeypatch: pytest.MonkeyPatch) -> None:
    base, rendered = specs(30), list[str]()
    render = renderers.render

    def counted(unit: Unit, facts: Facts) -> Iterator[Manifest]:
        rendered.append(unit.model)
        yield from render(unit, facts)

    monkeypatch.setattr(renderers, "render", counted)
    going_on = Review(base, specs(20), "main", "c" * 40)
    plan = going_on.report().plan
    assert plan is not None
    assert any(guard.rule == "prune/budget" for guard in plan.guards)
    going_on.update(specs(20, pods=2))
    rendered.clear()
    report = going_on.report()
    assert len(set(rendered)) == 11  # what is deleted, and what was saved
    going_on.update(specs(21, pods=2))
    rendered.clear()
    fewer = going_on.report()
    assert len(set(rendered)) <= 12
    for pods, models, seen in ((2, 20, report), (2, 21, fewer)):
        assert seen == Review(base, specs(models, pods), "main", "c" * 40).report()
