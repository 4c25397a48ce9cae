"""Follows the branch that the specs are on: by polling, sooner where a webhook says so.

What is handed on is what has changed since what was handed on before. While Git is away, or a commit is not signed by
whom it should be, the last good revision stays.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from queue import SimpleQueue
from random import random
from threading import Event
from typing import NamedTuple

from reconciler.source.files import Files
from reconciler.source.git import Credential, Unresolved
from reconciler.source.mirror import Mirror, MirrorError, Revision
from reconciler.source.signatures import Signers, UnverifiedError

#: Of the interval, so much more or less: many reconcilers must not ask one server at once.
_JITTER = 0.1
#: Seconds between two tries while Git is away, at most, where the interval is shorter.
_PATIENCE = 60.0


class Delivered(NamedTuple):
    """A commit of the branch. `files` are all of it; or else `changed` is what differs from the one before."""

    revision: Revision
    files: Files | None = None
    changed: Mapping[str, bytes | None] | None = None
    #: In words, where it does not follow the commit before.
    rewound: str = ""
    signer: str = ""


@dataclass(slots=True)
class Follower:
    """`credential` and `signers` are asked for each time, as Secrets are rotated; both may raise `SourceError`.

    `signers` gives None where no signature is asked for. `before`: the commit that an earlier process applied last.
    """

    mirror: Mirror
    interval_s: float
    credential: Callable[[], Credential | None]
    signers: Callable[[], Signers | None]
    bell: Event
    beat: Callable[[str], None]
    heard: Callable[[str, float], None]
    clock: Callable[[], datetime]
    before: str = ""
    delivered: SimpleQueue[Delivered] = field(default_factory=SimpleQueue, init=False)
    #: Why there is nothing newer; "" while all is well.
    trouble: str = field(default="", init=False)
    fetched_at: float | None = field(default=None, init=False)
    _at: str = field(default="", init=False)
    _asked: Event = field(default_factory=Event, init=False)
    _stopped: bool = field(default=False, init=False)
    _failures: int = field(default=0, init=False)

    def poll_now(self) -> None:
        """Somebody says that there is something new."""
        self._asked.set()

    def stop(self) -> None:
        """Ends the thread."""
        self._stopped = True
        self._asked.set()

    def run(self) -> None:
        """Until it is stopped."""
        while not self._stopped:
            self.beat("source")
            began = time.monotonic()
            self.trouble = self.poll()
            self.heard(self.trouble, time.monotonic() - began)
            self._failures = self._failures + 1 if self.trouble else 0
            # After a failure sooner than usual at first.
            longest = max(self.interval_s, _PATIENCE)
            pause = min(longest, 2.0 ** min(self._failures, 20)) if self._failures else self.interval_s
            if self._asked.wait(pause * (1 + _JITTER * (2 * random() - 1))):  # noqa: S311 - spreads load
                self._asked.clear()

    def poll(self) -> str:
        """Asks once, and hands on what is new. Why not, where that fails."""
        try:
            credential, signers = self.credential(), self.signers()
        except SourceError as error:
            return str(error)
        found = self.mirror.fetch(credential)
        trouble = ""
        if isinstance(found, Unresolved):
            # What was fetched before this process began is better than nothing, while the server is away.
            trouble, kept = found.reason, None if self._at else self.mirror.head()
            if kept is None:
                return trouble
            found = kept
        else:
            self.fetched_at = time.monotonic()
        if found.commit == self._at:
            return trouble
        try:
            self._hand_on(found, signers)
        except UnverifiedError as error:
            return f"it is not followed: {error}"
        except MirrorError as error:
            return str(error)
        return trouble

    def _hand_on(self, found: Revision, signers: Signers | None) -> None:
        signer = self.mirror.verify(found.commit, signers, self.clock()) if signers is not None else ""
        before, rewound = self._at or self.before, ""
        if before and before != found.commit and not self.mirror.is_ancestor(before, found.commit):
            rewound = f"the branch was rewound from {before[:12]} to {found.commit[:12]}"
        changed = self.mirror.changed(self._at, found.commit) if self._at else None
        files = self.mirror.files(found.commit) if changed is None else None
        self._at = found.commit
        self.delivered.put(Delivered(found, files, changed, rewound, signer))
        self.bell.set()

    def again(self, commit: str) -> Files:
        """All files of a commit, read anew. Raises MirrorError."""
        return self.mirror.files(commit)

    def content(self, commit: str, name: str) -> bytes:
        """A file of a commit. Raises MirrorError."""
        return self.mirror.content(commit, name)


class SourceError(Exception):
    """A Secret that is needed to ask is not there, or not what it should be. The sentence names it."""
