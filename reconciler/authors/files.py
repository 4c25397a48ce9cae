"""The spec files of a person's own folder, as they are written: in order, and from nothing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkstemp

from reconciler.authors import layout, starter
from reconciler.source import files
from schemas.problem import Problem


@dataclass(frozen=True, slots=True)
class Formatted:
    """What formatting some files would change, or has changed.

    `changes`: name -> content before and after. `problems`: what could not be read, formatted or written. `count`: of
    the files.
    """

    changes: Mapping[str, tuple[bytes, bytes]]
    problems: tuple[Problem, ...]
    count: int


class InTheWayError(Exception):
    """A repository cannot be made here: a sentence."""


# -- formatting -----------------------------------------------------------------------------------------------------


def formatted(paths: Sequence[Path]) -> Formatted:
    """What would change in the spec files below these paths. Writes nothing.

    In a folder, a file that is YAML of something else (a chart, a workflow) is left alone; one that is named is not.
    """
    found = files.read(paths)
    named = {path.resolve() for path in paths}
    changes: dict[str, tuple[bytes, bytes]] = {}
    problems = list(found.problems)
    count = 0
    for name, content in found.content.items():
        try:
            made = layout.formatted(name, content)
        except layout.NotFormattedError as error:
            problems += error.problems
            count += 1
            continue
        if _IS_OURS.search(content) or Path(name).resolve() in named:
            count += 1
            if made != content:
                changes[name] = (content, made)
    return Formatted(changes, tuple(sorted(problems)), count)


#: How a document of the language, or a file of rules, says that it is one.
_IS_OURS = re.compile(rb"""^(\xef\xbb\xbf)?(---[ \t]+)?(\{\s*)?["']?api_version["']?\s*:""", re.MULTILINE)


def write(planned: Formatted) -> Formatted:
    """Writes the changes, each file whole or not at all. The answer has what was written, and what was in the way."""
    done: dict[str, tuple[bytes, bytes]] = {}
    problems = list(planned.problems)
    for name, (old, new) in planned.changes.items():
        try:
            written = _replace(Path(name).resolve(strict=True), old, new)
        except OSError as error:
            message = f"It cannot be written: {(error.strerror or type(error).__name__).lower()}."
            problems.append(Problem(name, 1, 1, (), "format/unwritable", message))
            continue
        if written:
            done[name] = (old, new)
        else:
            problems.append(
                Problem(name, 1, 1, (), "source/changed", "Somebody else has just written it.", "try again")
            )
    return Formatted(done, tuple(sorted(problems)), planned.count)


def _replace(path: Path, old: bytes, new: bytes) -> bool:
    """Puts new content in the place of the old, if that is still there. Who reads meanwhile sees one of the two."""
    handle, name = mkstemp(prefix=f".{path.name}.", dir=path.parent)
    scratch = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(new)
            file.flush()
            os.fsync(file.fileno())
        shutil.copymode(path, scratch)
        if path.read_bytes() != old:
            return False
        scratch.replace(path)
        return True
    finally:
        scratch.unlink(missing_ok=True)


# -- a new repository -----------------------------------------------------------------------------------------------

#: What git may take for one step.
SECONDS = 60.0
#: What the address of a repository may hold (`git_uri` in the schema).
_ADDRESS = re.compile(r"/[A-Za-z0-9_.~/-]+")


def begin(folder: Path) -> list[str]:
    """Makes a repository of specs that work as they are; what was done, line by line.

    A folder that is no repository becomes one, with what was made as its first commits. In a repository nothing is
    committed. Nothing is overwritten. Raises InTheWayError, mostly before anything was written.
    """
    place = folder.resolve()
    if not _ADDRESS.fullmatch(str(place)):
        raise InTheWayError(f"{place} has a character that a git_uri cannot have; choose another folder")
    try:
        place.mkdir(parents=True, exist_ok=True)
        return list(_begin(place))
    except subprocess.CalledProcessError as error:
        said = (error.stderr or "").strip().splitlines()
        raise InTheWayError(f"git says: {said[-1] if said else 'nothing, and has failed'}") from None
    except subprocess.TimeoutExpired as error:
        raise InTheWayError(f"git has not answered within {error.timeout:g} s") from None
    except FileNotFoundError as error:
        if error.filename == "git":
            raise InTheWayError("git is not installed") from None
        raise InTheWayError(f"{error.filename}: {error.strerror}") from None
    except OSError as error:
        raise InTheWayError(f"{error.filename or place}: {(error.strerror or '').lower()}") from None


def _begin(place: Path) -> Iterator[str]:
    root = _root(place)
    if root not in (None, place):
        raise InTheWayError(f"{place} is inside the repository {root}; begin there, or outside of it")
    there = [path for path in (*starter.MODEL, *starter.SPECS) if _is_there(place, path)]
    if there:
        raise InTheWayError(f"{', '.join(there)} would be overwritten; nothing was made")
    address = f"file://{place}#models/churn"
    if root is None:
        _git(place, "init", "--quiet", "--initial-branch=main")
        yield "git init"
    branch = _run(place, "symbolic-ref", "--short", "HEAD").stdout.strip() or "main"  # none: a commit is checked out
    yield from _make(place, starter.model())
    commit = _commit(place, "A model to begin with", starter.MODEL) if root is None else ""
    yield from _make(place, starter.specs(starter.Facts(address, branch, commit)))
    beside = starter.beside()
    free = {path: text for path, text in beside.items() if not _is_there(place, path)}
    yield from _make(place, free)
    for path in beside:
        if path not in free:
            also = "; add .trueup/ to it" if path == ".gitignore" else ""
            yield f"  left as it is: {path}{also}"
    if root is None:
        _commit(place, "Specs to begin with", [*starter.SPECS, *free])
    yield ""
    yield "It works as it is:" if root is None else "Commit it, and it works as it is:"
    go = f"cd {place} && " if place != Path.cwd() else ""
    yield f"  {go}reconcile up && reconcile --wait 300"


def _make(place: Path, texts: Mapping[str, str]) -> Iterator[str]:
    for path, text in texts.items():
        target = place / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.parent.resolve().is_relative_to(place):
            raise InTheWayError(f"{path}: a symbolic link leads out of {place}")
        with target.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
        yield f"  made {path}"


def _is_there(place: Path, path: str) -> bool:
    return os.path.lexists(place / path)


# -- git ------------------------------------------------------------------------------------------------------------


def _root(place: Path) -> Path | None:
    """The root of the repository that a folder is in."""
    done = _run(place, "rev-parse", "--show-toplevel")
    if done.returncode == 0:
        return Path(done.stdout.strip()).resolve()
    if "not a git repository" not in done.stderr:
        # A bare one, or one of somebody else: not to be made anew.
        raise InTheWayError(f"git says: {done.stderr.strip().splitlines()[-1]}")
    return None


def _commit(place: Path, message: str, paths: Mapping[str, str] | Sequence[str]) -> str:
    _git(place, "add", "--", *paths)
    # Where nobody has said who they are, git would refuse.
    known = _run(place, "var", "GIT_AUTHOR_IDENT").returncode == 0
    who = () if known else ("-c", "user.name=reconcile init", "-c", "user.email=reconcile@localhost")
    _git(place, *who, "commit", "--quiet", "--message", message)
    return _git(place, "rev-parse", "HEAD")


def _git(place: Path, *arguments: str) -> str:
    done = _run(place, *arguments)
    done.check_returncode()
    return done.stdout.strip()


#: What git sets for a hook, or for `git rebase --exec`: the repository that it is about, and not the folder's.
_OF_ANOTHER = frozenset({
    "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX",
    "GIT_NAMESPACE", "GIT_ALTERNATE_OBJECT_DIRECTORIES",
})  # fmt: skip


def _run(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # The person's own repository and git, with what they have configured; fixed arguments, and no prompt.
    environment = {key: value for key, value in os.environ.items() if key not in _OF_ANOTHER}
    return subprocess.run(  # noqa: S603 - as above
        ["git", "-C", str(place), *arguments],  # noqa: S607 - theirs, wherever it is
        env={**environment, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
