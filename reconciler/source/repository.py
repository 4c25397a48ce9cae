"""One bare repository on this machine: what is fetched into it, and the objects that are read out of it.

Git's object database is addressed by content, so it can be read without a belief in the disk: each commit, folder and
file that an answer is made of is hashed here and compared with its name. Git itself does so when it fetches, and takes
the word of its own files afterwards.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import signal
from asyncio import IncompleteReadError, StreamReader
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, NoReturn, TypeVar

from reconciler.source.commands import SETTINGS, beginning, run

COMMIT = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")

#: Of what git lists: 55 bytes and a name for each file. A folder that holds itself ten times lists without an end.
MAX_LISTING = 16 << 20
_MAX_COMMIT = 4 << 20
#: The one branch that there is here, whatever it is called where it comes from.
_BRANCH = "refs/heads/followed"

T = TypeVar("T")


class DamagedError(Exception):
    """The repository is not what git made it: a sentence for logs."""


class NotThereError(Exception):
    """There is no such commit here: its name."""


class TooMuchError(Exception):
    """There is more than may be read."""


class Entry(NamedTuple):
    """A file, folder, link or submodule of a commit."""

    mode: str  #: of the object: six octal digits
    id: str
    size: int  #: bytes; 0 of what is no file
    name: str  #: from the repository's root; what is not UTF-8 as surrogates


class Difference(NamedTuple):
    """What became of one name. A mode of zeroes: it is not there."""

    old_mode: str
    mode: str
    old_id: str
    id: str
    name: str


class Object(NamedTuple):
    """An object whose content was hashed: it is what its name says."""

    id: str
    kind: bytes
    content: bytes


class Commit(NamedTuple):
    """A commit's own words."""

    id: str
    tree: str
    at: datetime  #: when it was committed, as its committer says
    author: str
    subject: str
    content: bytes  #: all of it


@dataclass(frozen=True, slots=True)
class Repository:
    """Call it from one thread at a time, but for reading while it fetches.

    All methods raise OSError where git cannot be started, DamagedError where it cannot read what should be there.
    """

    folder: Path
    scratch: Path  #: where git runs
    environment: Mapping[str, str]  #: all that it gets to know: made by `commands`
    max_bytes: int  #: of any file that it writes

    async def create(self, commit: str) -> None:
        """Makes it, for commits with ids of this length."""
        kind = "sha256" if len(commit) == 64 else "sha1"
        options = ("--quiet", "--bare", "--template=", f"--object-format={kind}")
        _, complaint, status = await self._git("init", *options, read=beginning)
        if status != 0:
            self._fail("init", complaint, status)

    async def fetch(self, address: str, branch: str) -> tuple[str, int]:
        """Fetches a branch with its history. Returns git's complaint and its exit status.

        With its history, for without it nobody could tell a branch that went on from one that was rewritten; and specs
        are small. Checks all that it gets, and that nothing is missing, before the branch moves.
        """
        self._sweep()
        options = ("--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head")
        what = f"+refs/heads/{branch}:{_BRANCH}"
        _, complaint, status = await self._git("fetch", *options, "--", address, what, read=beginning)
        return complaint, status

    def is_untidy(self) -> bool:
        """Each fetch leaves a file behind, and a branch that was rewritten what nobody can reach any more."""
        packs = [path.stat().st_size for path in self.folder.glob("objects/pack/*.pack")]
        return len(packs) > 40 or (len(packs) > 1 and sum(packs) > self.max_bytes)

    async def tidy(self) -> None:
        """Leaves one file, of what the branch reaches. Nobody may read meanwhile."""
        options = ("-a", "-d", "--quiet", "--no-write-bitmap-index", "--window-memory=32m")
        _, complaint, status = await self._git("repack", *options, read=beginning)
        if status != 0:
            self._fail("repack", complaint, status)

    def _sweep(self) -> None:
        """A git that was killed leaves its locks and half of what it fetched. Nobody else works here."""
        for pattern in ("*.lock", "tmp_*"):
            for path in [*self.folder.rglob(pattern)]:
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()

    async def head(self) -> Commit:
        """Where the branch stands. Raises NotThereError before the first fetch."""
        return await self.commit(_BRANCH)

    async def commit(self, name: str) -> Commit:
        """Raises NotThereError, TooMuchError."""
        found = await self.read([name], _MAX_COMMIT)
        if not found or found[0].kind != b"commit":
            raise NotThereError(name)
        if name not in (_BRANCH, found[0].id):
            raise DamagedError(f"in the place of {name} is {found[0].id}")
        return _commit(found[0])

    async def entries(self, commit: str, *paths: str) -> list[Entry]:
        """All that is below some paths ("": the root), and what they name themselves; and the folders on the way.

        Raises NotThereError, TooMuchError.
        """
        options = ("-r", "-t", "-z", "--long", "--full-tree")
        lines = await self._list("ls-tree", *options, commit, "--", *filter(None, paths))
        entries = []
        for line in lines:
            head, _, name = line.partition("\t")
            mode, _, identity, size = head.split()
            entries.append(Entry(mode, identity, int(size) if size.isdigit() else 0, name))
        return entries

    async def differences(self, old: str, new: str, path: str) -> list[Difference]:
        """What two commits differ in below a path; folders too. Raises NotThereError, TooMuchError."""
        options = ("-r", "-t", "-z", "--raw", "--no-abbrev", "--no-renames", "--no-ext-diff")
        fields = await self._list("diff-tree", *options, old, new, "--", *((path,) if path else ()))
        differences = []
        for head, name in zip(fields[::2], fields[1::2], strict=True):
            old_mode, mode, old_id, identity, _ = head.removeprefix(":").split()
            differences.append(Difference(old_mode, mode, old_id, identity, name))
        return differences

    async def history(self, commit: str, names: Iterable[str], most: int) -> list[str]:
        """The commits that have changed any of these files, the newest first. Raises NotThereError, TooMuchError."""
        return await self._list("rev-list", f"--max-count={most}", commit, "--", *names, end="\n")

    async def is_ancestor(self, old: str, new: str) -> bool:
        """Whether one commit led to another. Raises NotThereError."""
        _, complaint, status = await self._git("merge-base", "--is-ancestor", old, new, read=beginning)
        if status not in (0, 1):
            self._fail("merge-base", complaint, status)
        return status == 0

    async def read(self, names: Iterable[str], max_bytes: int) -> list[Object]:
        """The objects of these names (ids; and what git reads as one) in their order, up to the first that is not
        there. Raises TooMuchError where they have more bytes together.
        """
        given = "".join(f"{name}\n" for name in names)
        found, complaint, status = await self._git(
            *("cat-file", "--batch", "--buffer"),
            read=lambda stream: _objects(stream, max_bytes),
            given=given.encode(),
        )
        if isinstance(found, Exception):
            raise found
        if status not in (0, -signal.SIGKILL):  # ended here, at the first that is not there
            self._fail("cat-file", complaint, status)
        return found

    async def _list(self, *arguments: str, end: str = "\0") -> list[str]:
        """The fields of what git lists, by how each of them ends."""
        listed, complaint, status = await self._git(*arguments, read=_listing)
        if len(listed) > MAX_LISTING:
            raise TooMuchError
        if status != 0:
            self._fail(arguments[0], complaint, status)
        return listed.decode("utf-8", "surrogateescape").split(end)[:-1]

    async def _git(
        self, *arguments: str, read: Callable[[StreamReader], Awaitable[T]], given: bytes = b""
    ) -> tuple[T, str, int]:
        command = ("git", *_SETTINGS, f"--git-dir={self.folder}", *arguments)
        return await run(self.scratch, self.environment, command, read, given=given, max_bytes=self.max_bytes)

    def _fail(self, command: str, complaint: str, status: int) -> NoReturn:
        if status == 127:
            raise FileNotFoundError(2, "git is not installed")
        if re.search("out of memory|cannot allocate|mmap failed", complaint, re.IGNORECASE):
            raise TooMuchError
        gone = re.search(
            r"(?:bad object|valid (?:object|commit) name|a tree object)(?: ([0-9a-f]{40,64})|\n|$)", complaint
        )
        if gone:
            raise NotThereError(gone[1] or "")
        lines = [line for line in complaint.splitlines() if line.startswith(("fatal:", "error:"))]
        detail = lines[0] if lines else f"it ended with {status}"
        raise DamagedError(f"git {command}: {''.join(c if c.isprintable() else ' ' for c in detail)[:300]}")


#: Whatever lies in the folder, no program of it is run, and no object stands in for another.
_SETTINGS = (
    *SETTINGS,
    *("-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "core.commitGraph=false"),
    *("-c", "core.multiPackIndex=false", "--no-replace-objects", "--literal-pathspecs"),
)


async def _listing(stream: StreamReader) -> bytearray:
    listed = bytearray()
    while len(listed) <= MAX_LISTING and (chunk := await stream.read(1 << 18)):
        listed += chunk
    return listed


async def _objects(stream: StreamReader, max_bytes: int) -> list[Object] | DamagedError | TooMuchError:
    """What `cat-file --batch` says: `<id> <kind> <size>`, the content, and a line break; or `<name> missing`."""
    found: list[Object] = []
    with suppress(IncompleteReadError):  # git ended, and its exit status says why
        while len(words := (await stream.readline()).split()) == 3:
            name, kind, size = words[0].decode(), words[1], int(words[2])
            max_bytes -= size
            if max_bytes < 0:
                return TooMuchError()
            content = (await stream.readexactly(size + 1))[:-1]
            new = hashlib.sha256 if len(name) == 64 else hashlib.sha1
            if new(b"%b %d\0" % (kind, size) + content).hexdigest() != name:
                return DamagedError(f"the object {name} is another one")
            found.append(Object(name, kind, content))
    return found


def _commit(found: Object) -> Commit:
    head, _, message = found.content.partition(b"\n\n")
    headers = dict(reversed([line.partition(b" ")[::2] for line in head.split(b"\n")]))
    committed = re.search(rb"> (\d{1,11}) [+-]\d{4}$", headers.get(b"committer", b""))
    subject = next((line for line in message.splitlines() if line.strip()), b"")
    return Commit(
        found.id,
        headers.get(b"tree", b"").decode(errors="replace"),
        datetime.fromtimestamp(int(committed[1]) if committed else 0, UTC),
        _shown(headers.get(b"author", b"").partition(b" <")[0], 100),
        _shown(subject, 200),
        found.content,
    )


def _shown(text: bytes, length: int) -> str:
    """Text of a stranger: on one line, cut, and without what could write over its neighbours."""
    shown = text.decode(errors="replace").strip()[:length]
    return "".join(character if character.isprintable() else " " for character in shown)
