"""Follows the branch that the specs are on: by polling, sooner where a webhook says so.

What is handed on is what has changed since what was handed on before. While Git is away, or a commit is not signed by
whom it should be, the last good revision stays.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from queue import SimpleQueue
from threading import Event
from typing import NamedTuple

from reconciler.daemon.health import Beat
from reconciler.daemon.pace import spread
from reconciler.source.files import Files
from reconciler.source.git import Credential, Unresolved
from reconciler.source.mirror import Mirror, MirrorError, Revision
from reconciler.source.repository import COMMIT
from reconciler.source.signatures import Signers, UnverifiedError
from reconciler.telling.logs import Log

log = Log(__name__)

#: Seconds between two tries while Git is away, at most, where the interval is shorter.
_PATIENCE = 60.0


#: Commits in which rules that can be read are looked for, where those of the newest cannot.
_LOOKED_AT = 50
_NO_FILE = Files({}, ())


class Delivered(NamedTuple):
    """A commit of the branch. `files` are all of it; or else `changed` is what differs from the one before.

    `rules`: the file with the rules of the organisation. Where that has changed, all specs come with it, to be judged.
    """

    revision: Revision
    files: Files | None = None
    changed: Mapping[str, bytes | None] | None = None
    #: In words, where it does not follow what was there before.
    rewound: str = ""
    #: The commit that it does not follow; of several, the newest.
    rewound_from: str = ""
    signer: str = ""
    rules: Files = _NO_FILE


@dataclass(slots=True)
class Follower:
    """`credential` and `signers` are asked for each time, as Secrets are rotated; both may raise `SourceError`.

    `signers` gives None where no signature is asked for. `rules` are the places where the rules of the organisation
    are looked for, the first first. `before` is asked until it answers, as it may raise `SourceError`, too: the commits
    that environments were last seen to have whole, when this process began. They were read in a cluster: what is no
    commit's id is ignored.
    """

    mirror: Mirror
    interval_s: float
    credential: Callable[[], Credential | None]
    signers: Callable[[], Signers | None]
    bell: Event
    beat: Beat
    heard: Callable[[str, float], None]
    clock: Callable[[], datetime]
    before: Callable[[], Iterable[str]] = tuple
    rules: tuple[str, ...] = ()
    delivered: SimpleQueue[Delivered] = field(default_factory=SimpleQueue, init=False)
    #: Why there is nothing newer; "" while all is well.
    trouble: str = field(default="", init=False)
    fetched_at: float | None = field(default=None, init=False)
    _at: str = field(default="", init=False)
    #: The file with the rules, as it was handed on last.
    _had: Files = field(default=_NO_FILE, init=False)
    _before: tuple[str, ...] | None = field(default=None, init=False)
    #: How often somebody could not use a delivery, and how often that was made good. Each has one writer.
    _forgotten: int = field(default=0, init=False)
    _remedied: int = field(default=0, init=False)
    _asked: Event = field(default_factory=Event, init=False)
    _stopped: bool = field(default=False, init=False)
    _failures: int = field(default=0, init=False)

    def poll_now(self) -> None:
        """Somebody says that there is something new."""
        self._asked.set()

    def forget(self) -> None:
        """A delivery could not be used: the next poll hands on all files, even of the same commit."""
        self._forgotten += 1

    def stop(self) -> None:
        """Ends the thread."""
        self._stopped = True
        self._asked.set()

    def run(self) -> None:
        """Until it is stopped."""
        while not self._stopped:
            self.beat("source")
            began = time.monotonic()
            try:
                self.trouble = self.poll()
            except Exception as error:  # without this thread nobody would ever poll again
                log.exception("a poll ended with an error of the program")
                self.trouble = f"{type(error).__name__}: {error}"
            self.heard(self.trouble, time.monotonic() - began)
            self._failures = self._failures + 1 if self.trouble else 0
            # After a failure sooner than usual at first.
            longest = max(self.interval_s, _PATIENCE)
            pause = min(longest, 2.0 ** min(self._failures, 20)) if self._failures else self.interval_s
            pause = spread(pause)
            self.beat("source", pause)
            if self._asked.wait(pause):
                self._asked.clear()

    def poll(self) -> str:
        """Asks once, and hands on what is new. Why not, where that fails."""
        try:
            credential, signers = self.credential(), self.signers()
            if self._before is None:
                self.beat("source")
                self._before = tuple(filter(COMMIT.fullmatch, self.before()))
        except SourceError as error:
            return str(error)
        self.beat("source")
        found = self.mirror.fetch(credential)
        trouble = ""
        if isinstance(found, Unresolved):
            # What was fetched before this process began is better than nothing, while the server is away.
            has_all = self._at and self._remedied == self._forgotten
            self.beat("source")
            trouble, kept = found.reason, None if has_all else self.mirror.head()
            if kept is None:
                return trouble
            found = kept
        else:
            self.fetched_at = time.monotonic()
        if found.commit == self._at and self._remedied == self._forgotten:
            return trouble
        try:
            self._hand_on(found, signers)
        except UnverifiedError as error:
            self._fall_back(signers)
            return f"it is not followed: {error}"
        except MirrorError as error:
            return str(error)
        return trouble

    def _hand_on(self, found: Revision, signers: Signers | None) -> None:
        """Each question to the mirror may take minutes: a beat before each."""
        forgotten = self._forgotten
        is_anew = not self._at or self._remedied != forgotten
        signer = ""
        if signers is not None:
            self.beat("source")
            signer = self.mirror.verify(found.commit, signers, self.clock())
        lost = self._lost(found.commit)
        rewound = f"the branch was rewound from {lost[:12]} to {found.commit[:12]}" if lost else ""
        self.beat("source")
        rules = self.mirror.first(found.commit, self.rules) if self.rules else _NO_FILE
        self.beat("source")
        changed = None if is_anew or rules != self._had else self.mirror.changed(self._at, found.commit)
        self.beat("source")
        files = self.mirror.files(found.commit) if changed is None else None
        self._at, self._remedied, self._had = found.commit, forgotten, rules
        self.delivered.put(Delivered(found, files, changed, rewound, lost, signer, rules))
        self.bell.set()

    def _fall_back(self, signers: Signers | None) -> None:
        """The newest commit is nobody's, and who has just begun, or could not use the last one, has none at all: then
        it is the one that environments were last seen to have, if that is still signed by whom it should be.
        """
        if self._at and self._remedied == self._forgotten:
            return
        good = self._at
        for commit in () if good else self._before or ():
            self.beat("source")
            good = commit if not good or self.is_ancestor(good, commit) else good
        with suppress(UnverifiedError, MirrorError):
            if good:
                self._hand_on(self.mirror.revision(good), signers)

    def _lost(self, commit: str) -> str:
        """The newest of the commits before that do not lead to this one; "" where all of them do."""
        lost = ""
        for old in (self._at,) if self._at else self._before or ():
            self.beat("source")
            if not self.mirror.is_ancestor(old, commit) and (not lost or self.is_ancestor(lost, old)):
                lost = old
        return lost

    def is_ancestor(self, old: str, new: str) -> bool:
        """Whether one commit is known to have led to another, or is it. False where that cannot be told."""
        try:
            return bool(COMMIT.fullmatch(old) and COMMIT.fullmatch(new)) and self.mirror.is_ancestor(old, new)
        except MirrorError:
            return False

    def rules_before(self, commit: str) -> Iterator[Files]:
        """What the file with the rules said in each commit that changed it, the newest first. Raises MirrorError."""
        for earlier in self.mirror.history(commit, self.rules, _LOOKED_AT):
            yield self.mirror.first(earlier, self.rules)

    def again(self, commit: str) -> Files:
        """All files of a commit, read anew. Raises MirrorError."""
        return self.mirror.files(commit)

    def content(self, commit: str, name: str) -> bytes:
        """A file of a commit. Raises MirrorError."""
        return self.mirror.content(commit, name)


class SourceError(Exception):
    """A Secret that is needed to ask is not there, or not what it should be. The sentence names it."""
