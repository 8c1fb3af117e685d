"""TCP sequences through a middlebox, with what Linux 6.18 said of each packet and of the entry after it (conformance data)."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
from ct_build import tcp
from ct_harness import Lab

CORPUS = Path(os.environ.get("USERFW_CONFORMANCE", Path(__file__).parents[2] / ".." / "shared" / "conformance"))
FILE = CORPUS / "packetdrill_ct_sequences.json"
SEQUENCES: list[dict[str, Any]] = json.loads(FILE.read_text()) if FILE.exists() else []
LEFT, RIGHT = ("10.0.1.1", 40000), ("10.0.2.2", 8080)
PAD = b"\x01"


def options(text: str) -> bytes:
    """The corpus' option words as TCP options."""
    raw = b""
    for word in text.replace("(retransmit)", "mss 1460,sackOK,TS,wscale 8").split(","):
        match word.split():
            case ["mss", value]:
                raw += struct.pack("!BBH", 2, 4, int(value))
            case ["wscale", value]:
                raw += bytes((3, 3, int(value)))
            case ["sackOK"]:
                raw += bytes((4, 2))
            case ["TS"]:
                raw += PAD * 2 + struct.pack("!BBII", 8, 10, 1000, 0)
    return raw


@pytest.mark.skipif(not SEQUENCES, reason=f"no conformance data at {FILE}")
@pytest.mark.parametrize("base", [(100_000, 5_000_000), (0xFFFFFF00, 0xFFFFFFF0)], ids=["plain", "wrapping"])
@pytest.mark.parametrize("sequence", SEQUENCES, ids=lambda s: s["name"])
def test_every_step(sequence: dict[str, Any], base: tuple[int, int]) -> None:
    lab = Lab()
    first = sequence["originator"]
    for number, step in enumerate(sequence["steps"]):
        forward = step["dir"] == first
        # absolute numbers of both ends; a stale packet's numbers are relative to them as well
        (src, sport), (dst, dport) = (LEFT, RIGHT) if forward else (RIGHT, LEFT)
        own, peer = base if forward else base[::-1]
        ack = 0 if step["ack"] is None else peer + step["ack"]
        win = 65535 if step["win"] is None else step["win"]
        data = tcp(
            src, dst, sport, dport, step["flags"], own + step["seq"], ack, win, bytes(step["len"]), options(step["opts"])
        )
        where = f"step {number} {step}"
        assert lab.state(data) == step["kernel618_ct"], where
        assert lab.entry() == step["kernel618_entry"], where
        lab.clock.now += 1_000_000
