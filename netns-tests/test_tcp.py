"""TCP as conntrack sees it: states step by step, windows, resets, closing, pick-up; a corpus of sequences."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lab import frames as f
from lab.families import EACH, IP4, Family
from lab.topology import Lab

CORPUS = Path(os.environ.get("USERFW_CONFORMANCE", Path(__file__).resolve().parents[2] / "shared" / "conformance"),
              "packetdrill_ct_sequences.json")
each = pytest.mark.parametrize("fam", EACH, ids=str)
STATES = """table inet t { chain c { type filter hook forward priority 0; policy accept;
    ct state new counter
    ct state established counter
    ct state invalid counter
    ct state related counter
    ct state untracked counter
}\n}\n"""
NAMES = ("new", "established", "invalid", "related", "untracked")
OPTIONS = {"mss": "020405b4", "sackOK": "0402", "TS": "080a0000000100000000", "wscale": "0303"}


class Dialogue:
    """One TCP connection between lan and wan, and what conntrack says after each segment."""

    def __init__(self, lab: Lab, fam: Family = IP4, sport: int = 40000, dport: int = 80) -> None:
        self.lab, self.client, self.server = lab, (fam.lan, sport), (fam.wan, dport)
        self.before = self._counts()

    def _counts(self) -> list[int]:
        counters = self.lab.router.counters()
        return [counters[f"inet t c #{n}"][0] for n in range(1, 6)]

    def segment(self, reply: bool, flags: int, seq: int, ack: int = 0, length: int = 0, window: int = 65535,
                options: bytes = b"") -> tuple[str, str]:
        """Send one; returns (ct state that the rules saw, entry's state and flags)."""
        src, dst = (self.server, self.client) if reply else (self.client, self.server)
        passed = self.lab.send("wan" if reply else "lan", f.tcp_packet(
            src[0], dst[0], src[1], dst[1], flags, seq, ack, bytes(length), options=options, window=window))
        assert len(passed) == 1
        counts = self._counts()
        [state] = [name for name, old, new in zip(NAMES, self.before, counts, strict=True) if new != old]
        self.before = counts
        return state, self.entry()

    def entry(self) -> str:
        """State and flags of the only entry, or nothing."""
        conns = self.lab.router.conns()
        return " ".join([conns[0].state, *sorted(conns[0].flags)]) if conns else ""

    def open(self) -> None:
        """Three-way handshake from sequence numbers 1000 and 5000."""
        assert self.segment(False, f.SYN, 1000) == ("new", "SYN_SENT UNREPLIED")
        assert self.segment(True, f.SYN | f.ACK, 5000, 1001) == ("established", "SYN_RECV")
        assert self.segment(False, f.ACK, 1001, 5001) == ("established", "ESTABLISHED ASSURED")


@each
def test_open_and_close_from_the_client(lab: Lab, fam: Family) -> None:
    lab.router.load(STATES)
    talk = Dialogue(lab, fam)
    talk.open()
    assert talk.segment(False, f.FIN | f.ACK, 1001, 5001) == ("established", "FIN_WAIT ASSURED")
    assert talk.segment(True, f.ACK, 5001, 1002) == ("established", "CLOSE_WAIT ASSURED")
    assert talk.segment(True, f.FIN | f.ACK, 5001, 1002) == ("established", "LAST_ACK ASSURED")
    assert talk.segment(False, f.ACK, 1002, 5002) == ("established", "TIME_WAIT ASSURED")


def test_simultaneous_close(lab: Lab) -> None:
    lab.router.load(STATES)
    talk = Dialogue(lab)
    talk.open()
    assert talk.segment(False, f.FIN | f.ACK, 1001, 5001)[1] == "FIN_WAIT ASSURED"
    assert talk.segment(True, f.FIN | f.ACK, 5001, 1001)[1] == "LAST_ACK ASSURED"
    talk.segment(False, f.ACK, 1002, 5002)
    assert talk.segment(True, f.ACK, 5002, 1002)[1] == "TIME_WAIT ASSURED"


def test_simultaneous_open(lab: Lab) -> None:
    lab.router.load(STATES)
    talk = Dialogue(lab)
    assert talk.segment(False, f.SYN, 1000)[1] == "SYN_SENT UNREPLIED"
    assert talk.segment(True, f.SYN, 5000)[1] == "SYN_SENT2"
    assert talk.segment(False, f.SYN | f.ACK, 1000, 5001)[1] == "SYN_RECV"
    assert talk.segment(True, f.ACK, 5001, 1001)[1] == "ESTABLISHED ASSURED"


@each
def test_an_exact_reset_closes_one_out_of_window_is_invalid(lab: Lab, fam: Family) -> None:
    lab.router.load(STATES)
    talk = Dialogue(lab, fam)
    talk.open()
    assert talk.segment(True, f.RST, 999_999_999) == ("invalid", "ESTABLISHED ASSURED")
    assert talk.segment(True, f.RST, 5050) == ("established", "ESTABLISHED ASSURED")  # the end host will challenge it
    assert talk.segment(True, f.RST, 5001) == ("established", "CLOSE ASSURED")


def test_a_refused_connection_leaves_at_once(lab: Lab) -> None:
    lab.router.load(STATES)
    talk = Dialogue(lab)
    talk.segment(False, f.SYN, 1000)
    assert talk.segment(True, f.RST | f.ACK, 0, 1001) == ("established", "")


def test_data_outside_the_window_is_invalid(lab: Lab) -> None:
    lab.router.load(STATES)
    talk = Dialogue(lab)
    talk.open()
    assert talk.segment(False, f.ACK, 1001 + 200_000, 5001, 100)[0] == "invalid"
    assert talk.segment(False, f.ACK, 1001, 5001 + 500_000, 100)[0] == "invalid"
    assert talk.segment(False, f.ACK, 1001, 5001, 100) == ("established", "ESTABLISHED ASSURED")


def test_window_scaling_widens_the_window(lab: Lab) -> None:
    lab.router.load(STATES)
    talk = Dialogue(lab)
    scale = bytes.fromhex("01030307")
    talk.segment(False, f.SYN, 1000, options=scale)
    talk.segment(True, f.SYN | f.ACK, 5000, 1001, options=scale)
    talk.segment(False, f.ACK, 1001, 5001, window=512)
    assert talk.segment(True, f.ACK, 5001, 1001, window=512)[0] == "established"
    assert talk.segment(False, f.ACK, 1001 + 60_000, 5001, 1000)[0] == "established"
    assert talk.segment(False, f.ACK, 1001 + 600_000, 5001, 1000)[0] == "invalid"


def test_reopening_from_time_wait_makes_a_new_entry(lab: Lab) -> None:
    lab.router.load(STATES)
    talk = Dialogue(lab)
    talk.open()
    talk.segment(False, f.FIN | f.ACK, 1001, 5001)
    talk.segment(True, f.FIN | f.ACK, 5001, 1002)
    assert talk.segment(False, f.ACK, 1002, 5002)[1] == "TIME_WAIT ASSURED"
    assert talk.segment(False, f.SYN, 90_000) == ("new", "SYN_SENT UNREPLIED")
    assert talk.segment(True, f.SYN | f.ACK, 70_000, 90_001) == ("established", "SYN_RECV")


@pytest.mark.own_numbers
def test_reopening_from_time_wait_gets_a_new_mapping(lab: Lab) -> None:
    lab.router.load(STATES + "table ip n { chain p { type nat hook postrouting priority srcnat; "
                    'oifname "wan" snat to 203.0.113.50-203.0.113.90 random; }\n}')
    mapped = set()
    for turn in range(6):
        base = 1000 + turn * 1_000_000
        [syn] = lab.send("lan", f.tcp_packet(IP4.lan, IP4.wan, 40000, 80, seq=base))
        address, port = syn.packet[12:16], int.from_bytes(syn.packet[20:22], "big")
        outside = ".".join(map(str, address))
        mapped.add((address, port))

        def back(flags: int, seq: int, ack: int, outside: str = outside, port: int = port) -> int:
            return len(lab.send("wan", f.tcp_packet(IP4.wan, outside, 80, port, flags, seq, ack)))
        assert back(f.SYN | f.ACK, 5000, base + 1) == 1
        for flags, ack in ((f.ACK, 5001), (f.FIN | f.ACK, 5001)):
            assert len(lab.send("lan", f.tcp_packet(IP4.lan, IP4.wan, 40000, 80, flags, base + 1, ack))) == 1
        assert back(f.FIN | f.ACK, 5001, base + 2) == 1
        assert len(lab.send("lan", f.tcp_packet(IP4.lan, IP4.wan, 40000, 80, f.ACK, base + 2, 5002))) == 1
        assert [c.state for c in lab.router.conns()] == ["TIME_WAIT"]
    assert len(mapped) > 1


def test_pick_up_in_mid_stream_unless_strict(lab: Lab, shortened: Callable[..., None]) -> None:
    lab.router.load(STATES)
    talk = Dialogue(lab)
    assert talk.segment(False, f.ACK, 1000, 5000, 10) == ("new", "ESTABLISHED UNREPLIED")
    assert talk.segment(True, f.ACK, 5000, 1010, 10) == ("established", "ESTABLISHED")
    shortened(nf_conntrack_tcp_loose=0)
    lab.router.forget()
    assert talk.segment(False, f.ACK, 1000, 5000, 10) == ("invalid", "")


def test_liberal_windows(lab: Lab, shortened: Callable[..., None]) -> None:
    lab.router.load(STATES)
    shortened(nf_conntrack_tcp_be_liberal=1)
    talk = Dialogue(lab)
    talk.open()
    assert talk.segment(False, f.ACK, 1001 + 9_000_000, 5001, 100)[0] == "established"


@pytest.mark.parametrize("flags", [0, f.SYN | f.FIN, f.SYN | f.RST, f.FIN, f.FIN | f.PSH | f.URG, 0x3F], ids=hex)
def test_impossible_flags_are_invalid(lab: Lab, flags: int) -> None:
    lab.router.load(STATES)
    assert Dialogue(lab).segment(False, flags, 1000) == ("invalid", "")


@pytest.mark.parametrize("broken", ["checksum", "offset", "short"])
def test_broken_headers_are_invalid(lab: Lab, broken: str) -> None:
    lab.router.load(STATES)
    body = {"checksum": f.tcp(IP4.lan, IP4.wan, 1, 2, check=0x1111), "offset": f.tcp(IP4.lan, IP4.wan, 1, 2, doff=15),
            "short": f.tcp(IP4.lan, IP4.wan, 1, 2)[:12]}[broken]
    lab.send("lan", f.ip4(IP4.lan, IP4.wan, f.TCP, body))
    assert lab.router.counters()["inet t c #3"][0] == 1 and lab.router.conns() == []


def options_of(text: str) -> bytes:
    """The corpus' words for TCP options as bytes, padded with no-operation."""
    data = b""
    for word in text.replace("(retransmit)", "mss 1460,sackOK,TS,wscale 8").split(","):
        name, _, value = word.strip().partition(" ")
        if name == "mss":
            data += b"\2\4" + int(value).to_bytes(2, "big")
        elif name == "wscale":
            data += b"\3\3" + bytes((int(value),))
        elif name:
            data += bytes.fromhex(OPTIONS[name])
    return data + b"\1" * (-len(data) % 4)


def sequences() -> list[Any]:
    """The corpus, or one skipped parameter."""
    if not CORPUS.exists():
        return [pytest.param(None, marks=pytest.mark.skip(reason=f"no corpus at {CORPUS.name} (USERFW_CONFORMANCE)"))]
    return [pytest.param(item, id=item["name"]) for item in json.loads(CORPUS.read_text())]


@pytest.mark.parametrize("sequence", sequences())
def test_sequences_of_the_corpus(lab: Lab, sequence: dict[str, Any]) -> None:
    lab.router.load(STATES)
    talk = Dialogue(lab)
    letters = {"S": f.SYN, ".": f.ACK, "F": f.FIN, "R": f.RST, "P": f.PSH}
    for number, step in enumerate(sequence["steps"]):
        flags = sum(letters[letter] for letter in step["flags"])
        got = talk.segment(step["dir"] != sequence["originator"], flags, step["seq"], step["ack"] or 0, step["len"],
                           step["win"] if step["win"] is not None else 65535, options_of(step["opts"]))
        state, *marks = step["kernel618_entry"].split()
        assert got == (step["kernel618_ct"], " ".join([state, *sorted(marks)])), (number, step)
