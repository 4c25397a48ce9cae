"""A branch of the specs' repository, kept on this machine: polled, fetched, and read at a commit.

There is no work tree: files are read out of git's object database, so no hook, filter, attribute, submodule or
large-file program takes part, and all that is read is of one commit, whatever is fetched meanwhile.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, TypeVar

from reconciler.source import signatures, tree
from reconciler.source.commands import Credential, Question, Unresolved, environment_of, question_of, unresolved
from reconciler.source.files import DEFAULT_LIMITS, Files, Limits
from reconciler.source.git import Branch, resolve
from reconciler.source.repository import COMMIT, Commit, DamagedError, NotThereError, Repository, TooMuchError
from runtime import git

T = TypeVar("T")

#: The file in a mirror that says what it is a mirror of.
_ORIGIN = "trueup-origin"


@dataclass(frozen=True, slots=True)
class Revision:
    """Where a branch stands. `at`, `author` and `subject` are what whoever pushed it says; printable and short."""

    commit: str  #: 40 or 64 hex digits
    at: datetime  #: when it was committed
    author: str
    subject: str


class MirrorError(Exception):
    """The mirror cannot answer: a sentence. Where it is damaged, the next `fetch` makes it anew."""


class _Measure(NamedTuple):
    """What is in the spec files of a commit."""

    files: int
    bytes: int  #: at most


class Mirror:
    """A bare mirror of one branch, with its history, in a folder of its own.

    `folder` may be empty or damaged; only one process uses it. The mirror of another repository or branch that is in it
    is as good as none: the next fetch replaces it. Threads may share a mirror, but only one of them fetches. The folder
    has one repository inside, named by a number: one that is made anew gets the next number when it is whole, so there
    is always one that can be read.

    `path` is the folder (or file) of the repository that has the specs, "" for all of it. `mirrors` and `allow_file`
    are as with `git.resolve`. `max_bytes` is for what is fetched at once, and `timeout_s` for each call; a fetch gets
    it twice, to ask and to fetch. Raises ValueError for a path that cannot be one.
    """

    def __init__(
        self,
        folder: Path,
        repository: str,
        branch: str,
        *,
        path: str = "",
        mirrors: Mapping[str, str] | None = None,
        allow_file: bool = False,
        limits: Limits = DEFAULT_LIMITS,
        max_bytes: int = 1 << 30,
        timeout_s: float = 120,
    ) -> None:
        self._folder = folder.absolute()
        self._repository = repository
        self._branch = branch
        self._path = checked_path(path)
        # A digest, for somebody may have written a token into the address.
        self._origin = hashlib.sha256(f"{repository}\n{branch}".encode("utf-8", "backslashreplace")).hexdigest()
        self._mirrors = mirrors or {}
        self._allow_file = allow_file
        self._limits = limits
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._lock = threading.Lock()  #: held while anything is read, so that it is not taken away meanwhile
        self._head: Revision | None = None
        self._is_damaged = False
        self._plain: dict[str, _Measure] = {}  #: the last commits from which one may go on by what differs

    def fetch(self, credential: Credential | None = None) -> Revision | Unresolved:
        """Where the branch stands now, after it was fetched. Nothing is where it stands as before: ask often.

        Whatever hinders git here (a lock that a killed process left, half of a file) is not there in a new mirror, so
        where a fetch fails one is made, and then replaces the old one. Raises nothing.
        """
        wanted = Branch(self._repository, self._branch, credential)
        allow_file = self._allow_file
        stands_at = resolve([wanted], mirrors=self._mirrors, allow_file=allow_file, timeout_s=self._timeout_s)[wanted]
        if isinstance(stands_at, Unresolved):
            return stands_at
        if self._head is not None and self._head.commit == stands_at and not self._is_damaged:
            return self._head
        question = question_of(self._repository, credential, self._mirrors, allow_file=allow_file)
        if isinstance(question, Unresolved):
            return question
        try:
            with TemporaryDirectory(prefix="trueup-git-") as scratch:
                answer = asyncio.run(self._update(question, stands_at, Path(scratch)))
        except TimeoutError:
            answer = Unresolved(f"it was not fetched within {self._timeout_s:.3g} s", "timeout")
        except OSError as error:  # no disk space, no more processes
            answer = Unresolved(f"it cannot be kept in {self._folder}: {error.strerror}", "unreachable")
        if isinstance(answer, Unresolved):
            return Unresolved(f"{self._repository}: {answer.reason}", answer.cause)
        self._head = answer
        return answer

    def head(self) -> Revision | None:
        """Where the mirror itself stands, asked of nobody: for a start while the server is away. None: nowhere."""
        try:
            return _revision(self._read(Repository.head))
        except MirrorError:
            return None

    def revision(self, commit: str) -> Revision:
        """A commit that the branch has led to. Raises MirrorError."""
        return _revision(self._read(lambda repository: repository.commit(commit), commit))

    def files(self, commit: str) -> Files:
        """The spec files at a commit. A name is relative to the repository's root ("specs/audiences/regions.yaml").

        By the rules of `files.read`; a submodule is nobody's business, and a file in large file storage a problem. A
        link is followed inside the repository alone. Raises MirrorError.
        """
        read = self._read(lambda repository: tree.read(repository, commit, self._path, self._limits), commit)
        content = read.files.content
        if read.is_plain:
            self._remember(commit, _Measure(len(content), sum(map(len, content.values()))))
        return read.files

    def changed(self, old: str, new: str) -> Mapping[str, bytes | None] | None:
        """The spec files that differ: name -> new content, None where the file went. Its cost follows the change.

        None where only `files` can tell: unless `old` was read by this object, and neither commit has a link or a
        problem. Raises MirrorError.
        """
        _check(new)
        measure = self._plain.get(old)
        if measure is None:
            return None
        differences = self._read(
            lambda repository: tree.differences(repository, old, new, self._path, self._limits), old, new
        )
        if differences is None:
            return None
        contents = [content for content in differences.content.values() if content is not None]
        # Never too few bytes: what the files had before is not taken off. `files` counts anew.
        grown = _Measure(measure.files + differences.more, measure.bytes + sum(map(len, contents)))
        if not 0 < grown.files <= self._limits.files or grown.bytes > self._limits.total_bytes:
            return None
        self._remember(new, grown)
        return differences.content

    def content(self, commit: str, name: str) -> bytes:
        """One file at a commit, by its name in `files`. Not for one that is a link. Raises MirrorError."""
        found = self._read(lambda repository: repository.read([f"{commit}:{name}"], self._limits.file_bytes), commit)
        if not found:
            raise MirrorError(f"{self._repository}: there is no file {name[:200]!r} at {commit[:12]}")
        return found[0].content

    def first(self, commit: str, names: Sequence[str]) -> Files:
        """The first of these files that a commit has; nothing where it has none. Raises MirrorError."""
        return self._read(lambda repository: tree.first(repository, commit, names, self._limits), commit)

    def history(self, commit: str, names: Sequence[str], most: int) -> list[str]:
        """The commits that have changed any of these files, itself and before: the newest first. Raises MirrorError."""
        return self._read(lambda repository: repository.history(commit, names, most), commit)

    def is_ancestor(self, old: str, new: str) -> bool:
        """Whether one commit led to another, or is it. False: the branch was rewound or rewritten in between.

        Raises MirrorError where `new` is not there.
        """
        _check(old)

        async def ask(repository: Repository) -> bool:
            try:
                return await repository.is_ancestor(old, new)
            except NotThereError as gone:
                if str(gone) == old:  # all that led to `new` is here
                    return False
                raise

        return self._read(ask, new)

    def verify(self, commit: str, signers: signatures.Signers, now: datetime) -> str:
        """Who signed a commit. Raises `signatures.UnverifiedError` where nobody did who counts, MirrorError."""
        found: Commit = self._read(lambda repository: repository.commit(commit), commit)
        return signatures.verify(commit, found.content, signers, now)

    def _remember(self, commit: str, measure: _Measure) -> None:
        self._plain[commit] = measure
        if len(self._plain) > 16:
            del self._plain[next(iter(self._plain))]

    def _read(self, what: Callable[[Repository], Awaitable[T]], *commits: str) -> T:
        for commit in commits:
            _check(commit)

        answers: list[T] = []  # not the coroutine's: `asyncio.run` in a main thread makes its text, all 10,000 files

        async def within(repository: Repository) -> None:
            async with asyncio.timeout(self._timeout_s):
                answers.append(await what(repository))

        with self._lock:
            newest = self._newest()
            if newest is None or not self._is_of_this(newest):
                raise MirrorError(f"{self._repository}: nothing of it was fetched yet")
            try:
                with TemporaryDirectory(prefix="trueup-git-") as scratch:
                    folder = Path(scratch)
                    environment = git.environment("", folder, [])  # no protocol: nobody is asked
                    asyncio.run(within(Repository(newest, folder, environment, self._max_bytes)))
                    return answers[0]
            except NotThereError as gone:
                self._is_damaged |= self._head is None or self._head.commit in commits
                raise MirrorError(
                    f"{self._repository}: the commit {str(gone) or commits[0]} is not in its mirror"
                ) from None
            except DamagedError as damage:
                self._is_damaged = True
                raise MirrorError(f"{self._repository}: its mirror is damaged: {damage}") from None
            except TooMuchError:
                raise MirrorError(
                    f"{self._repository}: the commit {' '.join(commits)} is too large to be read"
                ) from None
            except TimeoutError:
                raise MirrorError(f"{self._repository}: git did not answer within {self._timeout_s:.3g} s") from None
            except OSError as error:
                raise MirrorError(f"{self._repository}: its mirror cannot be read: {error.strerror}") from error

    async def _update(self, question: Question, stands_at: str, scratch: Path) -> Revision | Unresolved:
        environment = environment_of(question, scratch)
        newest = self._newest()
        async with asyncio.timeout(self._timeout_s):
            if newest is not None and not self._is_damaged and self._is_of_this(newest):
                repository = Repository(newest, scratch, environment, self._max_bytes)
                if (revision := await self._follow(repository, question, stands_at)) is not None:
                    return revision
            return await self._anew(newest, question, stands_at, scratch, environment)

    async def _follow(self, repository: Repository, question: Question, stands_at: str) -> Revision | None:
        """Fetches into the mirror that is there. None where that cannot be done."""
        try:
            if (head := await _head(repository)) is None or head.id != stands_at:
                _, status = await repository.fetch(question.address, self._branch)
                if status != 0:
                    return None
                head = await repository.head()
            if repository.is_untidy():
                with self._lock:
                    await repository.tidy()
        except (DamagedError, NotThereError, TooMuchError):
            return None
        return _revision(head)

    async def _anew(
        self, newest: Path | None, question: Question, stands_at: str, scratch: Path, environment: Mapping[str, str]
    ) -> Revision | Unresolved:
        new = self._folder / "new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        repository = Repository(new, scratch, environment, self._max_bytes)
        try:
            await repository.create(stands_at)
            complaint, status = await repository.fetch(question.address, self._branch)
            if status != 0:
                return unresolved(question, complaint, status)
            head = await repository.head()
            (new / _ORIGIN).write_text(self._origin, "ascii")
            with self._lock:
                new.rename(self._folder / str(int(newest.name) + 1 if newest is not None else 1))
                self._is_damaged = False
                if newest is not None:
                    shutil.rmtree(newest, ignore_errors=True)
        except (DamagedError, NotThereError) as damage:
            return Unresolved(f"what was fetched of it cannot be read: {damage}", "unreachable")
        except TooMuchError:
            return Unresolved(f"the commit {stands_at} is too large to be read", "branch")
        finally:
            shutil.rmtree(new, ignore_errors=True)
        return _revision(head)

    def _newest(self) -> Path | None:
        """The repository; older ones were not taken away when this process was killed."""
        try:
            numbers = sorted(int(path.name) for path in self._folder.iterdir() if path.name.isdecimal())
        except OSError:
            return None
        for number in numbers[:-1]:
            shutil.rmtree(self._folder / str(number), ignore_errors=True)
        return self._folder / str(numbers[-1]) if numbers else None

    def _is_of_this(self, repository: Path) -> bool:
        """Otherwise, while the server is away, the head of another repository would be taken for this one's."""
        try:
            return (repository / _ORIGIN).read_bytes() == self._origin.encode()
        except OSError:
            return False


async def _head(repository: Repository) -> Commit | None:
    try:
        return await repository.head()
    except NotThereError:
        return None


def _revision(head: Commit) -> Revision:
    return Revision(head.id, head.at, head.author, head.subject)


def _check(commit: str) -> None:
    if not COMMIT.fullmatch(commit):
        raise ValueError(f"{commit[:200]!r} is not the id of a commit")


def checked_path(path: str) -> str:
    """A folder of a repository as git writes it, "" for all of it. Raises ValueError for what cannot be one."""
    made = path.removeprefix("./").removesuffix("/")
    steps = made.split("/") if made not in ("", ".") else []
    is_odd = path.startswith("/") or len(path) > 1024 or not path.isprintable() or "\\" in path
    if is_odd or any(step in ("", ".", "..") for step in steps):
        raise ValueError(f"{path[:200]!r} is not a folder of a repository: write it like specs/production")
    return "/".join(steps)
