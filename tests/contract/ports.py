"""Ports for servers that have to be told one."""

from __future__ import annotations

import os
import socket
from itertools import count

#: Below those that Linux gives to whoever asks for any, as every client does: one of these nobody gets meanwhile.
_FIRST, _COUNT = 10_000, 20_000
_numbers = count(os.getpid() * 97)  # test processes side by side begin far apart


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses, another one each time."""
    while True:
        port = _FIRST + next(_numbers) % _COUNT
        with socket.socket() as trial:
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
