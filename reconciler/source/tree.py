"""The spec files of a commit, and what became of them in another: the rules of `files`, for git's object database.

Whoever may push writes what is read here. Nothing of it is ever a file on this machine, so no name and no link leads
anywhere; a link is refused all the same where `files` refuses it, for a pull request is judged by that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from reconciler.source.files import Collection, EnoughError, Files, Limits, is_left_out, is_spec
from reconciler.source.repository import MAX_LISTING, DamagedError, Entry, Object, Repository, TooMuchError

_TREE, _LINK = "040000", "120000"
_FILE = "100"  #: how the modes of files begin
_POINTER = b"version https://git-lfs.github.com/spec/v1\n"
#: Longer ones no system follows; and in a circle it would end never.
_LINK_BYTES, _LINKS = 4096, 40


class Tree(NamedTuple):
    """The spec files of a commit."""

    files: Files
    is_plain: bool  #: neither a link nor a problem: what differs in another commit is all that there is to know


async def read(repository: Repository, commit: str, path: str, limits: Limits) -> Tree:
    """The spec files below a path ("": all). Raises what `Repository` raises, but for TooMuchError."""
    chosen = _Chosen(path, limits)
    try:
        entries = await repository.entries(commit, path)
    except TooMuchError:
        message = f"The names of the files are longer than {MAX_LISTING:,} bytes together."
        chosen.refuse(path or ".", "source/too-much", message, "name a folder with fewer files")
        return Tree(chosen.files(), is_plain=False)
    links: list[Entry] = []
    try:
        links = chosen.choose(entries)
        if links:
            chosen.follow(links, await _everything(repository, commit, path, entries))
        chosen.end()
    except EnoughError as enough:
        chosen.problems.append(enough.problem)
    folders = [entry.id for entry in entries if entry.mode == _TREE]
    wanted = [entry.id for entry in chosen.wanted.values()]
    contents = await _checked(repository, [commit], folders, wanted, chosen.bytes)
    for name, content in zip(chosen.wanted, contents, strict=True):
        chosen.content[name] = content
    pointers = [name for name in chosen.wanted if chosen.content[name].startswith(_POINTER)]
    for name in pointers:
        del chosen.content[name]
        message = "It is in large file storage (LFS), and only the pointer to it is here."
        chosen.refuse(name, "source/large-file", message, "commit the file itself")
    return Tree(chosen.files(), is_plain=not links and not chosen.problems)


async def first(repository: Repository, commit: str, names: Sequence[str], limits: Limits) -> Files:
    """The first of these files that a commit has; nothing where it has none.

    Raises what `Repository` raises, but for TooMuchError.
    """
    chosen = Collection(limits)
    try:
        entries = await repository.entries(commit, *names)
    except TooMuchError:
        chosen.refuse(names[0], "source/too-much", "In the place of the file is a folder with too many files.")
        return chosen.files()
    by_name = {entry.name: entry for entry in entries}
    is_file = (by_name[name] for name in names if name in by_name and by_name[name].mode.startswith((_FILE, _LINK)))
    entry = next(is_file, None)
    if entry is None:
        return chosen.files()
    if entry.mode == _LINK:
        chosen.refuse(entry.name, "source/symbolic-link", "It is a symbolic link.", "put a copy in its place")
    elif chosen.takes(entry.name, entry.size):
        folders = [one.id for one in entries if one.mode == _TREE]
        (chosen.content[entry.name],) = await _checked(repository, [commit], folders, [entry.id], entry.size)
    return chosen.files()


class Differences(NamedTuple):
    """What two commits differ in."""

    content: Mapping[str, bytes | None]  #: of the spec files that differ; None where one went
    more: int  #: spec files; negative where more went than came


async def differences(repository: Repository, old: str, new: str, path: str, limits: Limits) -> Differences | None:
    """What became of the spec files. None: only `read` can tell.

    `old` was plain. Raises what `Repository` raises, but for TooMuchError.
    """
    wanted: dict[str, str] = {}
    gone: list[str] = []
    folders: list[str] = []
    before = 0
    try:
        for each in await repository.differences(old, new, path):
            folders += [name for mode, name in ((each.old_mode, each.old_id), (each.mode, each.id)) if mode == _TREE]
            below = _below(each.name, path)
            if below is None or any(map(is_left_out, below)):
                continue
            if _LINK in (each.old_mode, each.mode) or not each.name.isprintable() or len(below) > limits.depth:
                return None
            if not below and _TREE not in (each.old_mode, each.mode):
                return None  # the path itself became something else
            if below and is_spec(below[-1]):
                before += each.old_mode.startswith(_FILE)
                if each.mode.startswith(_FILE):
                    if each.name in wanted:
                        return None
                    wanted[each.name] = each.id
                elif each.old_mode.startswith(_FILE):
                    gone.append(each.name)
        contents = await _checked(repository, [old, new], folders, [*wanted.values()], limits.total_bytes)
    except TooMuchError:
        return None
    if any(len(content) > limits.file_bytes or content.startswith(_POINTER) for content in contents):
        return None
    content = {**dict.fromkeys(gone), **dict(zip(wanted, contents, strict=True))}
    return Differences(content, len(wanted) - before)


def _below(name: str, path: str) -> Sequence[str] | None:
    """The steps from a path down to a name in it: () is the path itself. None: it is not below the path."""
    if not path:
        return name.split("/")
    if name == path:
        return ()
    return name[len(path) + 1 :].split("/") if name.startswith(f"{path}/") else None


class _Chosen(Collection):
    """What is read of what git lists."""

    __slots__ = ("_is_there", "path", "wanted")

    def __init__(self, path: str, limits: Limits) -> None:
        super().__init__(limits)
        self.path = path
        self.wanted: dict[str, Entry] = {}
        self._is_there = not path

    def choose(self, entries: Iterable[Entry]) -> list[Entry]:
        """Puts the spec files among `wanted`. The links are the answer."""
        links = []
        for entry in entries:
            below = _below(entry.name, self.path)
            if below is None:
                continue
            self._is_there = True
            if any(map(is_left_out, below)):
                continue
            if entry.mode == _TREE:
                if len(below) == self.limits.depth + 1:
                    self.too_deep(entry.name)
            elif len(below) > self.limits.depth + 1:
                continue
            elif entry.mode.startswith(_FILE):
                if not below or is_spec(below[-1]):
                    self._admit(entry.name, entry)
            elif entry.mode == _LINK and below:
                links.append(entry)
            elif not below:
                kind = "symbolic link" if entry.mode == _LINK else "submodule"
                self.refuse(entry.name, "source/not-a-file", f"It is a {kind}.", "name the place itself")
        return links

    def follow(self, links: Iterable[Entry], everything: _Everything | None) -> None:
        """Refuses the links that `files` refuses, and puts among `wanted` the files that only a link makes a spec."""
        rule, hint = "source/symbolic-link", "put a copy in its place"
        for link in links:
            if everything is None:
                message = "The repository has too many files for symbolic links to be followed."
                self.refuse(link.name, rule, message, hint)
                continue
            end = _destination(link.name, everything)
            if end is None:
                self.refuse(link.name, rule, "The symbolic link leads nowhere in the repository.", hint)
                continue
            if end.mode != _TREE and not is_spec(link.name):
                continue
            below = _below(end.name, self.path) if end.name or self.path else ()
            if below is None:
                self.refuse(link.name, rule, "The symbolic link leaves the folder.", hint)
            elif any(map(is_left_out, below)):
                self.refuse(link.name, rule, "The symbolic link leads to a hidden place.", hint)
            elif end.mode.startswith(_FILE) and not is_spec(end.name):
                self._admit(link.name, end)
            # What is left is read at its own place.

    def end(self) -> None:
        """An answer without a file would mean "delete everything"."""
        if not self._is_there:
            self.refuse(self.path, "source/not-found", "The repository has no such file or folder.")
        elif not self.found:
            self.no_specs(self.path or ".")

    def _admit(self, name: str, entry: Entry) -> None:
        self.count(name)
        if name in self.wanted:  # git itself writes no such folder
            self.refuse(name, "source/file-name", "The folder has two files of this name.")
        elif self.has_a_good_name(name) and self.takes(name, entry.size):
            self.wanted[name] = entry
            self.content[name] = b""  # until it is read


class _Everything(NamedTuple):
    """What links may lead to."""

    entries: Mapping[str, Entry]
    targets: Mapping[str, str]  #: of the links


async def _everything(repository: Repository, commit: str, path: str, entries: list[Entry]) -> _Everything | None:
    """None where it is too much. More than the path, for where a link leads out of it, it counts what was meant."""
    try:
        everything = await repository.entries(commit, "") if path else entries
        links = [entry for entry in everything if entry.mode == _LINK and entry.size <= _LINK_BYTES]
        found = await repository.read([entry.id for entry in links], MAX_LISTING)
    except TooMuchError:
        return None
    if [each.id for each in found] != [entry.id for entry in links]:
        raise DamagedError("a symbolic link is missing")
    targets = {
        link.name: each.content.decode("utf-8", "surrogateescape") for link, each in zip(links, found, strict=True)
    }
    return _Everything({"": Entry(_TREE, "", 0, ""), **{entry.name: entry for entry in everything}}, targets)


def _destination(link: str, everything: _Everything) -> Entry | None:
    """Where a link leads; None for nowhere in the repository, and for a circle."""
    folder, _, name = link.rpartition("/")
    steps, here = [name], folder.split("/") if folder else []
    followed = 0
    while steps:
        step = steps.pop(0)
        if step == "..":
            if not here:
                return None
            here.pop()
            continue
        is_here = step in ("", ".")
        entry = everything.entries.get("/".join(here if is_here else [*here, step]))
        if entry is None:
            return None
        if entry.mode == _LINK:
            target = everything.targets.get(entry.name, "/")
            followed += 1
            if target.startswith("/") or followed > _LINKS:
                return None
            steps[:0] = target.split("/")
        elif not is_here:
            here.append(step)
    return everything.entries.get("/".join(here))


async def _checked(
    repository: Repository, commits: Sequence[str], folders: Iterable[str], files: Sequence[str], room: int
) -> list[bytes]:
    """The content of the files, after a check that commits and folders are the ones that their names say.

    What was listed came out of the very folders that are hashed here: from the commit's own id on, nothing that the
    disk says is believed.
    """
    roots = [f"{commit}^{{tree}}" for commit in commits]
    names = [*commits, *roots, *folders, *files]
    found: list[Object] = await repository.read(names, room + 2 * MAX_LISTING)
    known = [*commits, *(_tree(each) for each in found[: len(commits)]), *folders, *files]
    if [each.id for each in found] != known:
        raise DamagedError(f"{len(known) - len(found)} objects are missing, or others than were asked for")
    return [each.content for each in found[len(known) - len(files) :]]


def _tree(commit: Object) -> str:
    """The id of a commit's folder."""
    return commit.content.partition(b"\n")[0].decode(errors="replace").removeprefix("tree ")
