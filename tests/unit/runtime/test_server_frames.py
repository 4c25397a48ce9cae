"""What the server's processes say to each other."""

from __future__ import annotations

from io import BytesIO

from hypothesis import given
from hypothesis import strategies as st

from runtime.server.frames import TEXT_LIMIT, Buffer, Frame, pack, read

frames = st.lists(
    st.builds(
        Frame,
        st.integers(0, 2**16 - 1),
        st.integers(0, 2**32 - 1),
        st.text(st.characters(codec="utf-8"), max_size=50),
        st.binary(max_size=300),
    ),
    max_size=8,
)


@given(frames, st.lists(st.integers(1, 100), min_size=1))
def test_frames_arrive_as_they_were_sent_however_they_are_cut(sent: list[Frame], sizes: list[int]) -> None:
    stream = b"".join(pack(*frame) for frame in sent)
    buffer, start = Buffer(), 0
    received: list[Frame] = []
    for size in [*sizes, len(stream)]:
        received += buffer.feed(stream[start : start + size])
        start += size
    assert received == sent


@given(frames, st.integers(0, 100))
def test_a_blocking_reader_gets_the_same_and_then_the_end(sent: list[Frame], lost: int) -> None:
    packed = [pack(*frame) for frame in sent]
    stream = BytesIO(b"".join(packed)[: -lost or None] if packed else b"")
    received: list[Frame] = []
    while (frame := read(stream)) is not None:
        received.append(frame)
    assert received == sent[: len(received)]
    assert len(b"".join(packed[: len(received)])) <= max(0, sum(map(len, packed)) - lost)
    assert lost or received == sent


def test_a_text_that_is_too_long_ends_early() -> None:
    (frame,) = Buffer().feed(pack(1, 2, "é" * 60_000, b"body"))
    assert frame.body == b"body"
    assert len(frame.text.encode()) <= TEXT_LIMIT + 3
    assert frame.text.startswith("é" * 30_000)
