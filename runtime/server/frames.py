"""What the server's processes say to each other, over a pair of connected sockets.

A frame is a kind, a number, a short text and a body. Requests and answers are bytes that need no further encoding, so
this is cheaper than any serialization, and nothing that a model returns is ever executed by the one who reads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import IO, NamedTuple

_HEAD = Struct("!HIHI")  # kind, number, length of the text, length of the body

# From the front to a worker
PREDICT = 1  #: number: the request's; text: its id, trace id, content type and adapter, a line each
INFER = 2  #: the same; the body is as the Open Inference Protocol has it
GO = 3  #: that was the batch

# From a worker to the front. A kind of 100 or more is an answer and its HTTP status: the text is the content type
# below 400, from there on the exception's class.
READY = 10  #: the model is loaded; number: the process's id; body: JSON, see `worker.Hello`
FAILED = 11  #: the model cannot be loaded; body: the sentence
BACK = 12  #: does not fit into this batch; number: the request's
DONE = 13  #: every request of the batch is answered, or given back
NOTES = 14  #: what the model logs of a request itself; number: the request's; body: a list in JSON

# From the front to the template
FORK = 20  #: with it comes the socket of the new worker
# From the template to the front
LOADED = 21  #: ask me to fork

# From the front to the recorder
#: text: the lengths of the body's parts; body: JSON, what is known of the request; input; output; what was logged of it
RECORD = 30
# From the recorder to the front
RECORDED = 31  #: body: JSON, counts since the last such frame

TEXT_LIMIT = 65_535


class Frame(NamedTuple):
    """One message. `number` fits into 32 bits, `text` into 65,535 bytes of UTF-8, the body into 4 GiB."""

    kind: int
    number: int
    text: str
    body: bytes


def pack(kind: int, number: int = 0, text: str = "", body: bytes = b"") -> bytes:
    """The frame's bytes; a text that is too long ends early."""
    encoded = text.encode("utf-8", "replace")[:TEXT_LIMIT]
    return _HEAD.pack(kind, number, len(encoded), len(body)) + encoded + body


def read(stream: IO[bytes]) -> Frame | None:
    """The next frame of a blocking stream; None at its end, also in the middle of a frame."""
    head = stream.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    kind, number, text_length, body_length = _HEAD.unpack(head)
    content = stream.read(text_length + body_length) if text_length or body_length else b""
    if len(content) < text_length + body_length:
        return None
    return Frame(kind, number, content[:text_length].decode("utf-8", "replace"), content[text_length:])


class Buffer:
    """Frames out of pieces as they arrive."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Every frame that is complete now. To be read to its end before the next call."""
        pending = self._pending
        pending += data
        start, end, size = 0, len(pending), _HEAD.size
        while end - start >= size:
            kind, number, text_length, body_length = _HEAD.unpack_from(pending, start)
            text_start = start + size
            body_start = text_start + text_length
            frame_end = body_start + body_length
            if frame_end > end:
                break
            text = pending[text_start:body_start].decode("utf-8", "replace")
            yield Frame(kind, number, text, bytes(pending[body_start:frame_end]))
            start = frame_end
        del pending[:start]
