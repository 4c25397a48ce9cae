"""No target: what the engines themselves are tried with. Broken by a word that nobody would guess as a whole."""

from __future__ import annotations

from tests.fuzz.targets.target import Target


def check(data: bytes) -> None:
    text = data.decode(errors="replace")
    if text[:1] == "t" and text[1:2] == "r" and text[2:3] == "u":
        raise RuntimeError("planted")


TARGET = Target(check, words=["u"], seeds=[b"tr"])
