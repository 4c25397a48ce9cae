"""The repository in which specs are edited: where its history and another one parted, and the spec files there.

A pull request is compared with the commit that it began from, and not with what others have done since: otherwise
their work would look as if it were taken back. That is the merge base, as on the page of a pull request.

The repository is a stranger's as well: no hook, filter or program of its configuration is run, and nothing is fetched.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from reconciler.source import tree
from reconciler.source.commands import SETTINGS, beginning, run
from reconciler.source.files import DEFAULT_LIMITS, Files, Limits
from reconciler.source.repository import COMMIT, DamagedError, NotThereError, Repository, TooMuchError
from runtime import git

#: A history is long, and what is asked of it is short.
_SECONDS = 60.0
_MAX_BYTES = 1 << 30


class CheckoutError(Exception):
    """What was asked for cannot be compared: a sentence that says what to do."""


class TooShallowError(CheckoutError):
    """The clone has too little of the history."""


class Beside(NamedTuple):
    """A file beside the specs, at both commits: the first that is there of those that were asked for.

    None: there is none. That of a head without a commit is on disk, and not here.
    """

    base: tuple[str, bytes] | None
    head: tuple[str, bytes] | None


class Sides(NamedTuple):
    """The spec files of a base, and of a head where that is a commit as well."""

    commit: str  #: of the base
    base: Files
    head: Files | None
    beside: Beside | None = None  #: None: what was asked for is not in the repository


def sides(
    paths: Sequence[Path],
    ref: str,
    head: str | None = None,
    limits: Limits = DEFAULT_LIMITS,
    beside: Sequence[Path] = (),
) -> Sides:
    """The spec files of these paths, as they were where the history of `ref` and that of `head` parted.

    A file has the same name on both sides, the one that `files.read` gives it. `ref` is whatever git takes for a
    commit, and the name of a branch of `origin`, as a CI job has it. Without `head`, the work tree is the head: its
    history is HEAD's, and its files are not read here. A path that a commit does not have is a problem of its `Files`.
    `beside` is another file, at the first of these places.

    Raises CheckoutError where there is no such commit, no repository, or a path is outside of it; TooShallowError.
    """
    for name in filter(None, (ref, head)):
        if not _REF.fullmatch(name):
            raise CheckoutError(f"{_shown(name)} is no revision; name a branch, a tag or a commit")

    async def ask() -> Sides:
        async with asyncio.timeout(_SECONDS):
            place = await _find(paths[0], Path(scratch))
            below = [(path, _below(path, place)) for path in paths]
            if place.top is None and head is None:
                message = "the repository is bare, and has no work tree to compare; name a commit with --head"
                raise CheckoutError(message)
            ours, theirs = await _commits(place, head or "HEAD", ref)
            commit = await _parted(place, ref, ours, theirs)
            files = await _files(place, commit, below, limits)
            inside = [(path, _below(path, place)) for path in beside if _is_inside(path, place)]
            other = await _first(place, commit, inside, limits)
            if head is None:
                return Sides(commit, files, None, Beside(other, None) if inside else None)
            both = Beside(other, await _first(place, ours, inside, limits))
            return Sides(commit, files, await _files(place, ours, below, limits), both if inside else None)

    try:
        with TemporaryDirectory(prefix="trueup-git-") as scratch:
            return asyncio.run(ask())
    except TimeoutError:
        raise CheckoutError(f"git has not answered within {_SECONDS:.0f} s") from None
    except FileNotFoundError:
        raise CheckoutError("git is not installed; --base needs it") from None
    except NotThereError:
        raise TooShallowError(f"a part of the history is not in this clone; {_DEEPEN}") from None
    except DamagedError as error:
        raise CheckoutError(
            f"the repository cannot be read: {error}. In a partial clone, fetch without --filter"
        ) from None
    except TooMuchError:
        raise CheckoutError("the commit is too large to be read; name a folder with fewer files") from None


#: What git takes for a revision begins with no dash, and names no range and no message.
_REF = re.compile(r"(?!-)[^\s\0:^?*\[\\~]{1,255}([~^]\d{0,4}){0,8}")
_DEEPEN = "fetch more of it: `git fetch --unshallow`, or `fetch-depth: 0` of actions/checkout"


@dataclass(frozen=True, slots=True)
class _Place:
    """A repository, and how it is asked. `top` is the work tree; None where it is bare."""

    repository: Repository
    top: Path | None
    is_shallow: bool

    async def ask(self, *arguments: str, given: str = "") -> tuple[list[str], int]:
        """The lines of what git says, and its exit status."""
        command = ("git", *_SETTINGS, f"--git-dir={self.repository.folder}", *arguments)
        where = self.repository.scratch, self.repository.environment
        said, _, status = await run(*where, command, beginning, given=given.encode())
        return said.splitlines(), status


#: The work tree belongs to another user than a container's: nothing of it is run, so that does no harm.
_SETTINGS = (*SETTINGS, "-c", "safe.directory=*", "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false")


async def _find(path: Path, scratch: Path) -> _Place:
    folder = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.is_dir())
    environment = git.environment("", scratch, ()) | {"GIT_NO_LAZY_FETCH": "1", "GIT_OPTIONAL_LOCKS": "0"}
    del environment["GIT_CEILING_DIRECTORIES"]  # what is asked about may well lie among temporary files
    asked = ("--absolute-git-dir", "--is-shallow-repository", "--is-bare-repository", "--show-toplevel")
    said, complaint, status = await run(folder, environment, ("git", *_SETTINGS, "rev-parse", *asked), beginning)
    lines = said.splitlines()
    if status == 127:
        raise FileNotFoundError
    if len(lines) < 3:
        why = "" if "not a git repository" in complaint else f" ({_shown(complaint.strip().removeprefix('fatal: '))})"
        raise CheckoutError(f"{path} is in no git repository{why}; --base compares with a commit of one")
    repository = Repository(Path(lines[0]), scratch, environment, _MAX_BYTES)
    top = Path(os.path.realpath(lines[3])) if len(lines) > 3 and lines[2] == "false" else None
    return _Place(repository, top, lines[1] == "true")


def _below(path: Path, place: _Place) -> str:
    """The path from the root of the repository; "" is the root. In a bare one, it is taken as it is written."""
    if place.top is None:
        return "" if path == Path() else path.as_posix()
    real = Path(os.path.realpath(path))
    if not _is_inside(path, place):
        raise CheckoutError(f"{path} is outside of the repository {place.top}, so no commit of it has its specs")
    return "" if real == place.top else real.relative_to(place.top).as_posix()


def _is_inside(path: Path, place: _Place) -> bool:
    return place.top is None or Path(os.path.realpath(path)).is_relative_to(place.top)


async def _parted(place: _Place, ref: str, ours: str, theirs: str) -> str:
    """The commit from which on the two went different ways. `ref` is what theirs is called."""
    found, status = await place.ask("merge-base", theirs, ours)
    if status == 0 and found:
        return found[0]
    if place.is_shallow:
        raise TooShallowError(f"this clone does not reach back to where it parted from {_shown(ref)}; {_DEEPEN}")
    return theirs  # nothing in common: then all of it is compared


async def _commits(place: _Place, *names: str) -> list[str]:
    """The commits of these names, all asked at once: to start git costs more than what it does here."""
    asked = [f"{full}^{{commit}}" for name in names for full in (name, f"refs/remotes/origin/{name}")]
    lines, _ = await place.ask("cat-file", "--batch-check=%(objectname)", given="".join(f"{one}\n" for one in asked))
    if len(lines) != len(asked):
        raise DamagedError("git cat-file ended before its answer did")
    commits = []
    for name, *found in zip(names, lines[::2], lines[1::2], strict=True):
        commit = next(filter(COMMIT.fullmatch, found), None)
        if commit is None:
            raise _no_commit(place, name)
        commits.append(commit)
    return commits


def _no_commit(place: _Place, name: str) -> CheckoutError:
    if name == "HEAD":
        return CheckoutError("the repository has no commit yet")
    if place.is_shallow:
        return TooShallowError(f"{_shown(name)} is no revision of this shallow clone; {_DEEPEN}")
    return CheckoutError(f"{_shown(name)} is no revision of this repository; name a branch, a tag or a commit")


async def _files(place: _Place, commit: str, below: Sequence[tuple[Path, str]], limits: Limits) -> Files:
    """The spec files of all paths, under the names that people know them by."""
    content: dict[str, bytes] = {}
    problems = []
    for path, inside in below:
        found = (await tree.read(place.repository, commit, inside, limits)).files
        content |= zip(_named(path, inside, found.content), found.content.values(), strict=True)
        # The root of the repository is called "." there.
        named = _named(path, inside, ("" if one.file == "." else one.file for one in found.problems))
        problems += [replace(one, file=name) for one, name in zip(found.problems, named, strict=True)]
    return Files(dict(sorted(content.items())), tuple(sorted(set(problems))))


async def _first(
    place: _Place, commit: str, below: Sequence[tuple[Path, str]], limits: Limits
) -> tuple[str, bytes] | None:
    """The name and the content of the first of these files that a commit has."""
    for path, inside in below:
        found = await place.repository.read([f"{commit}:{inside}"], limits.file_bytes)
        if found and found[0].kind == b"blob":
            return path.as_posix(), found[0].content
    return None


def _named(path: Path, inside: str, names: Iterable[str]) -> Iterator[str]:
    """As `files.read` calls the files: from the current folder where it is below it, or else as it was given."""
    absolute, here = Path(os.path.abspath(path)), Path(os.path.realpath("."))  # noqa: PTH100 - lexical, as there
    shown = absolute.relative_to(here) if absolute.is_relative_to(here) else path
    folder = (shown / "_").as_posix()[:-1]  # once: a path costs more than all else here
    for name in names:
        rest = name[len(inside) :].lstrip("/")
        yield f"{folder}{rest}" if rest else shown.as_posix()


def _shown(text: str) -> str:
    """What somebody typed, or git complained of: on one line, and short."""
    return "".join(character if character.isprintable() else " " for character in text)[:200]
