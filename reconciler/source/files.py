"""Which spec files there are in a folder, and what is in them; and the rules for it, which hold for a mirror as well.

Whoever may commit writes what is read here: files, links and names. Nothing of it is trusted.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, NoReturn

from schemas.problem import Problem
from schemas.reader import DEFAULT_LIMITS as DEFAULT_FILE_LIMITS


@dataclass(frozen=True, slots=True)
class Limits:
    """What reading may cost. The defaults are far above every honest repository."""

    files: int = 50_000
    file_bytes: int = DEFAULT_FILE_LIMITS.bytes
    total_bytes: int = 256 << 20
    depth: int = 64  #: folders inside each other


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Files:
    """The spec files, in order of name.

    A name is as people write it: relative to the current folder (of a mirror: to the repository) with forward slashes,
    or as it was given where it is elsewhere. `problems` (rules `source/...`) names whatever could not be read.
    """

    content: Mapping[str, bytes]
    problems: tuple[Problem, ...]

    @property
    def complete(self) -> bool:
        """False: there may be specs that are not in `content`, so nothing may be deleted for its absence."""
        return not self.problems


SUFFIXES = (".yaml", ".yml")


def read(paths: Sequence[Path], limits: Limits = DEFAULT_LIMITS, suffixes: tuple[str, ...] = SUFFIXES) -> Files:
    """Reads the spec files below each folder (*.yaml, *.yml, or what ends otherwise), and each file that is named.

    Hidden files, hidden folders and `node_modules` are left out. A symbolic link is followed where it stays in
    the folder that was given; a file that it shows a second time is read once. A link that leads elsewhere could
    show this machine's secrets in a problem's text, and is refused. A path without any spec file is a problem:
    an empty answer would mean "delete everything". Raises nothing for what it finds.
    """
    reader = _Reader(limits, suffixes)
    try:
        for path in paths:
            reader.read(path)
        if not paths:
            reader.refuse(".", "source/no-specs", "No file or folder was given.", "name one with -f")
    except EnoughError as enough:
        reader.problems.append(enough.problem)
    return reader.files()


#: O_NONBLOCK: opening a pipe that took a file's place would wait for a writer.
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


class EnoughError(Exception):
    """A limit of the whole is reached: reading ends here."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


class Collection:
    """What was read so far, held within the limits."""

    __slots__ = ("bytes", "content", "found", "limits", "problems", "suffixes")

    def __init__(self, limits: Limits, suffixes: tuple[str, ...] = SUFFIXES) -> None:
        self.limits = limits
        self.suffixes = suffixes
        self.bytes = 0
        self.found = 0  #: spec files and problems, each as often as it was met
        self.content: dict[str, bytes] = {}
        self.problems: list[Problem] = []

    def files(self) -> Files:
        return Files(dict(sorted(self.content.items())), tuple(sorted(set(self.problems))))

    def refuse(self, name: str, rule: str, message: str, hint: str = "") -> None:
        self.count(name)
        self.problems.append(Problem(printable(name), 1, 1, (), rule, message, hint))

    def count(self, name: str) -> None:
        self.found += 1
        if len(self.content) + len(self.problems) >= self.limits.files and name not in self.content:
            self.enough(name, f"There are more than {self.limits.files:,} spec files.")

    def enough(self, name: str, message: str) -> NoReturn:
        hint = "read fewer folders at once"
        raise EnoughError(Problem(printable(name), 1, 1, (), "source/too-much", message, hint))

    def has_a_good_name(self, name: str) -> bool:
        if not name.isprintable():
            # A line break in a name would let it write its own lines into logs and pull requests.
            self.refuse(name, "source/file-name", "The file's name has characters that cannot be printed.")
        return name.isprintable()

    def takes(self, name: str, size: int) -> bool:
        """Whether a file of so many bytes may be read. Its room is taken then."""
        if size > self.limits.file_bytes:
            message = f"The file has {size:,} bytes and {self.limits.file_bytes:,} are allowed."
            self.refuse(name, "source/too-large", message, "split the file")
            return False
        if self.bytes + size > self.limits.total_bytes:
            self.enough(name, f"The spec files have more than {self.limits.total_bytes:,} bytes together.")
        self.bytes += size
        return True

    def too_deep(self, folder: str) -> None:
        self.refuse(folder, "source/too-deep", f"The folder lies more than {self.limits.depth} folders deep.")

    def no_specs(self, folder: str) -> None:
        message = f"There is no spec file ({' or '.join('*' + suffix for suffix in self.suffixes)}) in this folder."
        self.refuse(folder, "source/no-specs", message, "name the folder that has them")


def lookalikes(names: Iterable[str]) -> list[Problem]:
    """Warnings of files whose names differ in nothing but case: macOS and Windows check out only one of them."""
    first: dict[str, str] = {}
    found = []
    for name in sorted(names):
        other = first.setdefault(name.casefold(), name)
        if other != name:
            message = f"The name differs from {other} in nothing but case: macOS and Windows would keep one of the two."
            found.append(Problem(name, 1, 1, (), "source/differs-in-case", message, "rename one of them", "warning"))
    return found


class _Reader(Collection):
    """Reads folders of this machine."""

    __slots__ = ()

    def read(self, path: Path) -> None:
        """What one given path names. The path itself may be a link: the person who started this wrote it."""
        absolute, here = os.path.abspath(path), os.path.realpath(".")  # noqa: PTH100 - Path has no lexical `..`
        inside = _is_below(absolute, here)
        name = Path(absolute).relative_to(here).as_posix() if inside else path.as_posix()
        try:
            real = os.path.realpath(path, strict=True)
            mode = os.stat(real).st_mode  # noqa: PTH116 - a str throughout, as os.open and os.scandir have it
        except FileNotFoundError:
            return self.refuse(name, "source/not-found", "There is no such file or folder.", _nearest_path(absolute))
        except OSError as error:
            return self._unreadable(name, error)
        # Where a pull request is checked out, it may have made a link of the folder that the job names.
        if inside and not _is_below(real, here):
            hint = f"name the place itself, -f {printable(real)}"
            return self.refuse(name, "source/symbolic-link", "The symbolic link leaves the current folder.", hint)
        found = self.found
        if stat.S_ISDIR(mode):
            self._folder(real, None, "" if name == "." else f"{name.rstrip('/')}/", _Place(real, real), depth=0)
        elif stat.S_ISREG(mode):
            self._file(real, None, name)
        else:
            self._not_a_file(name)
        if self.found == found:
            self.no_specs(name)
        return None

    def _folder(self, folder: str, parent: int | None, prefix: str, place: _Place, depth: int) -> None:
        """The spec files of a folder. `folder` is a name in `parent`, or a path; `prefix` is how people see it."""
        if depth > self.limits.depth:
            return self.too_deep(prefix.rstrip("/"))
        # By descriptor, not by path: no name is looked up twice, so none can become a link in between.
        try:
            descriptor = os.open(folder, _OPEN | os.O_DIRECTORY, dir_fd=parent)
        except OSError as error:
            return self._unreadable(prefix.rstrip("/") or ".", error)
        try:
            folders = self._entries(descriptor, prefix, place)
            for name in folders:
                below = _Place(place.root, os.path.join(place.folder, name))  # noqa: PTH118 - a str throughout
                self._folder(name, descriptor, f"{prefix}{name}/", below, depth + 1)
        except OSError as error:
            self._unreadable(prefix.rstrip("/") or ".", error)
        finally:
            os.close(descriptor)
        return None

    def _entries(self, descriptor: int, prefix: str, place: _Place) -> list[str]:
        """Reads the files of a folder; the folders in it are the answer."""
        folders = []
        with os.scandir(descriptor) as entries:
            for entry in entries:
                name = entry.name
                if is_left_out(name):
                    continue
                if entry.is_symlink():
                    self._link(name, f"{prefix}{name}", place)
                elif entry.is_dir(follow_symlinks=False):
                    folders.append(name)
                elif is_spec(name, self.suffixes) and entry.is_file(follow_symlinks=False):
                    self._file(name, descriptor, f"{prefix}{name}")
                elif is_spec(name, self.suffixes):
                    self._not_a_file(f"{prefix}{name}")
        return folders

    def _link(self, link: str, name: str, place: _Place) -> None:
        try:
            real = os.path.realpath(os.path.join(place.folder, link), strict=True)  # noqa: PTH118 - as above
            mode = os.stat(real).st_mode  # noqa: PTH116 - as above
        except OSError as error:
            return self.refuse(name, "source/symbolic-link", f"The symbolic link leads nowhere: {_text(error)}.")
        if not (stat.S_ISDIR(mode) or is_spec(link, self.suffixes)):
            return None
        hint = "put a copy in its place"
        if not _is_below(real, place.root):
            return self.refuse(name, "source/symbolic-link", "The symbolic link leaves the folder.", hint)
        hidden = [step for step in Path(real).relative_to(place.root).parts if is_left_out(step)]
        is_file = stat.S_ISREG(mode)
        # A mounted ConfigMap shows each file as a link into a folder `..<time>`. Other hidden folders have what
        # nobody means to show: `.git/config` holds the token of the CI job.
        if hidden and not (is_file and all(step.startswith("..") for step in hidden)):
            self.refuse(name, "source/symbolic-link", "The symbolic link leads to a hidden place.", hint)
        elif is_file and (hidden or not is_spec(real, self.suffixes)):
            self._file(real, None, name)
        elif not (is_file or stat.S_ISDIR(mode)):
            self._not_a_file(name)
        # What is left is read at its own place.
        return None

    def _file(self, file: str, folder: int | None, name: str) -> None:
        """Reads a file: a name in `folder`, or a path."""
        self.count(name)
        if name in self.content or not self.has_a_good_name(name):
            return None
        try:
            descriptor = os.open(file, _OPEN, dir_fd=folder)
        except OSError as error:
            return self._unreadable(name, error)
        try:
            status = os.fstat(descriptor)
            size = status.st_size
            if not stat.S_ISREG(status.st_mode):
                return self._not_a_file(name)
            if not self.takes(name, size):
                return None
            content = os.read(descriptor, size + 1)
        except OSError as error:
            return self._unreadable(name, error)
        finally:
            os.close(descriptor)
        if len(content) != size:
            return self.refuse(name, "source/changed", "The file was written to while it was read.", "try again")
        self.content[name] = content
        return None

    def _unreadable(self, name: str, error: OSError) -> None:
        self.refuse(name, "source/unreadable", f"It cannot be read: {_text(error)}.")

    def _not_a_file(self, name: str) -> None:
        self.refuse(name, "source/not-a-file", "It is neither a file nor a folder.")


class _Place(NamedTuple):
    """Where reading is; real paths."""

    root: str  #: the folder that was given
    folder: str


def is_spec(name: str, suffixes: tuple[str, ...] = SUFFIXES) -> bool:
    return name.lower().endswith(suffixes)


def is_left_out(name: str) -> bool:
    return name.startswith(".") or name == "node_modules"


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def printable(name: str) -> str:
    return name if name.isprintable() else ascii(name)[1:-1]


def _text(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()


def _nearest_path(path: str) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 - only for what is missing

    folder, name = os.path.split(path)
    try:
        names = os.listdir(folder)  # noqa: PTH208 - names are what is compared
    except OSError:
        return ""
    return " or ".join(map(printable, get_close_matches(name, names, 2)))
