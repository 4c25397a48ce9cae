"""The log of one run: on standard output as it happens, and kept, bounded, for the object storage."""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TextIO
from urllib.parse import quote

#: Names of environment variables whose values nobody should read.
_SECRET_NAMES = re.compile(
    r"SECRET|TOKEN|PASSWO?R?D|CREDENTIAL|PRIVATE|AUTH(?!OR)|API_?KEY|ACCESS_?KEY|_KEY$|_DSN$", re.IGNORECASE
)

#: Shorter values are words that stand everywhere: masking them hides more than it protects.
_SHORTEST_SECRET = 6
_IN_URL = re.compile(r"(?<=://)[^/\s@:]*:?[^/\s@]*(?=@)")


class Secrets:
    """What must not be read in logs and records: the values of variables with a telling name, and what in a URL
    stands before its `@`."""

    def __init__(self, environ: Mapping[str, str], *more: str) -> None:
        values = set(more)
        for name, value in environ.items():
            # A path, as in GOOGLE_APPLICATION_CREDENTIALS, says where a secret is, and is none.
            if _SECRET_NAMES.search(name) and not value.startswith("/"):
                values.update(line.strip() for line in value.splitlines())  # logs are masked by the line
            for found in _IN_URL.findall(value):
                values.add(found.partition(":")[2] or found)
        values = {value for value in values if len(value) >= _SHORTEST_SECRET}
        forms = values | {quote(value, safe="") for value in values}
        # The longest first: one secret may begin with another.
        ordered = sorted(forms, key=lambda form: (-len(form), form))
        self._pattern = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def mask(self, text: str) -> str:
        """The text with `***` in place of each secret."""
        text = _IN_URL.sub("***", text)
        return self._pattern.sub("***", text) if self._pattern else text


class Log:
    """Lines for people. The first and the last `limit` bytes are kept each; all of them go to the stream."""

    def __init__(self, stream: TextIO, secrets: Secrets, limit: int = 4 << 20) -> None:
        self.secrets = secrets
        self._stream = stream
        self._limit = limit
        self._head: list[str] = []
        self._tail: deque[str] = deque()
        self._head_bytes = self._tail_bytes = self._left_out = 0
        self._lock = threading.Lock()

    def say(self, text: str) -> None:
        """One or more lines. Secrets in it are masked."""
        line = self.secrets.mask(text).rstrip("\n") + "\n"
        size = len(line.encode("utf-8", "replace"))
        with self._lock:
            self._stream.write(line.encode("utf-8", "replace").decode())
            self._stream.flush()
            if self._head_bytes + size <= self._limit and not self._tail:
                self._head.append(line)
                self._head_bytes += size
                return
            self._tail.append(line)
            self._tail_bytes += size
            while self._tail_bytes > self._limit:
                gone = len(self._tail.popleft().encode("utf-8", "replace"))
                self._tail_bytes -= gone
                self._left_out += gone

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Says that a step begins, and how many seconds it took if it succeeded."""
        self.say(f"==> {what}")
        began = time.monotonic()
        yield
        self.say(f"    done in {time.monotonic() - began:.2f} s")

    def content(self) -> bytes:
        """What is kept."""
        with self._lock:
            gap = [f"[... {self._left_out} bytes are left out ...]\n"] if self._left_out else []
            return "".join([*self._head, *gap, *self._tail]).encode("utf-8", "replace")
