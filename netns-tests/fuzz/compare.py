"""Run one case (a ruleset and steps) against a router, bring what it did into one form, and compare two of these.

Laws
- A masked value is one the router chose itself: its IPv4 identifications, identifications of fragments, ports beyond the pools.
- A masked transport header says whether its checksum was right.
"""

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from lab import frames as f
from lab import show
from lab.state import Conn
from lab.topology import Out

from userfw.conntrack.check import crc32c

from . import pools
from .bodies import AH, DCCP, GENEVE, SCTP, UDPLITE, VXLAN
from .memory import memory
from .rules import Ruleset
from .traffic import Step, Traffic

KNOWN_IDENTS = {0, 1, 0x1234, 0xFFFF}
KNOWN_PORTS = {*pools.PORTS, VXLAN, GENEVE}
WITH_PORTS = {f.TCP, f.UDP, SCTP, DCCP, UDPLITE}
SUMS = {f.TCP: 16, f.UDP: 6, f.ICMP: 2, f.ICMP6: 2, SCTP: 8, DCCP: 6, UDPLITE: 6}
"""Where a protocol's checksum is; SCTP's is a CRC of four octets."""
KNOWN_NUMBERS, NEAR = {1000, 5000, *pools.SEQUENCES}, 1 << 17
"""Sequence numbers of hosts are these, and what follows from them."""
KNOWN_ECHOES = set(pools.IDENTS)
RENAMED = b"\x88\xb5"
"""The type that rules write; behind it stands what the router chose, nevertheless."""
ROUTERS = {f.addr(a) for a in pools.routers("ip", pools.ALL_NAMES)}


class Target(Protocol):
    """What a case is run against."""

    name: str

    def load(self, text: str) -> bool:
        """Start afresh with this ruleset; False if it is refused."""

    def exchange(self, port: str, packets: Sequence[bytes]) -> list[Out]:
        """Send IP packets from the host at `port`; everything that came out, by port."""

    def listing(self) -> str:
        """`nft list ruleset`."""

    def conns(self) -> list[Conn]:
        """The connections."""

    def leave(self) -> None:
        """The case is over: what it left behind may go."""


@dataclass(frozen=True)
class Case:
    """A ruleset and what is sent through it."""

    ruleset: Ruleset
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        return self.ruleset.text() + "\n".join(f"{n:3} {step}" for n, step in enumerate(self.steps))


@dataclass
class Behaviour:
    """What a router did with a case; `packets`: how many were sent to it."""

    accepted: bool = True
    packets: int = 0
    sent: list[list[tuple[str, bytes]]] = field(default_factory=list)
    frames: list[list[str]] = field(default_factory=list)
    readable: list[list[Out]] = field(default_factory=list)
    counters: dict[str, object] = field(default_factory=dict)
    conns: list[str] = field(default_factory=list)


def run(target: Target, case: Case, turn: int = 0) -> Behaviour:
    """One case from an empty router to what it remembers in the end; `turn` moves the identifications of fragments."""
    did = Behaviour(accepted=target.load(case.ruleset.text()))
    if not did.accepted:
        return did
    traffic, text = Traffic(list(case.steps), turn), case.ruleset.text()
    spoilt, cookies = spoils_sums(text), "synproxy" in text
    for number in range(len(case.steps)):
        got: list[Out] = []
        pairs = traffic.frames(number)
        did.packets += len(pairs)
        for port in dict.fromkeys(port for port, _ in pairs):
            got += target.exchange(port, [packet for where, packet in pairs if where == port])
        traffic.seen(got)
        did.readable.append(got)
        did.frames.append([f"{out.port} {masked(out.frame, spoilt, cookies)}" for out in got])
    did.sent = traffic.sent
    did.counters = memory(target.listing())
    did.conns = sorted(map(conn_text, target.conns()))
    target.leave()
    return did


def spoils_sums(rules: str) -> bool:
    """Whether ports chosen at random may be overwritten without their checksum, which tells of them all the same."""
    return "random" in rules and re.search(r"@th,\d+,\d+ set", rules) is not None


def masked(frame: bytes, spoilt: bool = False, cookies: bool = False) -> str:
    """The frame as text for comparing; `spoilt`: of a wrong checksum only that it is wrong; `cookies`: TCP may carry some."""
    data, notes = bytearray(frame), ""
    kind = bytes(data[12:14])
    if kind == RENAMED and len(data) > 14:
        kind = {4: b"\x08\x00", 6: b"\x86\xdd"}.get(data[14] >> 4, kind)
    if kind == b"\x08\x00" and len(data) >= 34:
        at = 14
        times = _mask_times(data, at)
        if data[at + 9] == f.ICMP or bytes(data[at + 12:at + 16]) in ROUTERS:
            _mask_ident4(data, at, bytes(data[at + 12:at + 16]) in ROUTERS)
        else:
            _mask_ident4(data, at, False)
        if data[at + 6] & 0x20 and not (data[at + 6] & 0x1F or data[at + 7]):
            notes = _mask_quoted(data, at + (data[at] & 15) * 4, data[at + 9], cookies)
        elif not (data[at + 6] & 0x1F or data[at + 7]):
            notes = _mask_transport(data, at, at + (data[at] & 15) * 4, data[at + 9], spoilt, cookies)
        else:
            _mask_sum_behind(data, at)
        notes += times
    elif kind == b"\x86\xdd" and len(data) >= 54:
        at = 14
        if data[at + 6] == f.FRAG6 and len(data) >= 62:
            data[58:62] = bytes(4)
            if not (data[56] or data[57] & 0xF8):
                notes = _mask_quoted(data, 62, data[54], cookies)
        else:
            proto, start = data[at + 6], at + 40
            while proto in (0, 43, AH, 60) and len(data) >= start + 8:  # Linux maps ports behind an AH of IPv6 too
                proto, start = data[start], start + ((data[start + 1] + 2) * 4 if proto == AH else (data[start + 1] + 1) * 8)
            if proto == f.FRAG6 and len(data) >= start + 8:
                data[start + 4:start + 8] = bytes(4)
            else:
                notes = _mask_transport(data, at, start, proto, spoilt, cookies)
    return f"{data.hex()} {notes}"


def _mask_sum_behind(data: bytearray, at: int) -> None:
    """Hide the checksum in a fragment that begins within the transport header: the first fragment's ports, which it tells of, may
    be chosen at random."""
    offset, proto = (int.from_bytes(data[at + 6:at + 8], "big") & 0x1FFF) * 8, data[at + 9]
    if proto in WITH_PORTS and SUMS[proto] >= offset:
        start, size = at + (data[at] & 15) * 4 + SUMS[proto] - offset, 4 if proto == SCTP else 2
        data[start:start + size] = bytes(len(data[start:start + size]))


def _mask_times(data: bytearray, at: int) -> str:
    """Hide the wall clock's times in a timestamp option of an IPv4 header, and its checksum; says if that was right."""
    end = min(at + (data[at] & 15) * 4, len(data))
    option = at + 20
    while option + 4 <= end and data[option]:
        size = 1 if data[option] == 1 else data[option + 1]
        if data[option] == 0x44:
            right = f.checksum(bytes(data[at:end])) in (0, 0xFFFF)
            pairs = data[option + 3] & 15 in (1, 3)
            for word in range(option + 4, min(option + size, end) - 3, 4):
                if not pairs or (word - option - 4) % 8:
                    data[word:word + 4] = bytes(4)
            data[at + 10:at + 12] = b"\0\0"
            return " times, header sum " + ("right" if right else "wrong")
        option += max(size, 1)
    return ""


def _mask_ident4(data: bytearray, at: int, own: bool) -> None:
    """Hide an identification that the router made up or that belongs to this run; errors tell by their class of service that they
    are the router's, whatever became of their source."""
    if own or (data[at + 9] == f.ICMP and data[at + 1] >= 0xC0) or int.from_bytes(data[at + 4:at + 6], "big") not in KNOWN_IDENTS:
        data[at + 4:at + 6] = data[at + 10:at + 12] = b"\0\0"


def _mask_ports(data: bytearray, at: int, proto: int) -> str:
    """Hide ports and ICMP identifiers beyond the pools; tells how many."""
    spots = (0, 2) if proto in WITH_PORTS else (4,) if proto in (f.ICMP, f.ICMP6) else ()
    if (proto == f.ICMP and (len(data) <= at or data[at] not in (0, 8, *range(13, 19)))) or \
            (proto == f.ICMP6 and (len(data) <= at or data[at] not in (128, 129))):
        return ""
    hidden, known = 0, KNOWN_PORTS if len(spots) > 1 else KNOWN_ECHOES
    for spot in spots:
        if len(data) >= at + spot + 2 and int.from_bytes(data[at + spot:at + spot + 2], "big") not in known:
            data[at + spot:at + spot + 2] = b"\0\0"
            hidden += 1
    return f"hidden {hidden}" if hidden else ""


def _mask_cookies(data: bytearray, at: int) -> str:
    """Hide sequence numbers and timestamps that no host chose: `synproxy` makes them of secrets and the time of day."""
    notes = ""
    for spot in range(at + 4, min(at + 12, len(data) - 3), 4):
        number = int.from_bytes(data[spot:spot + 4], "big")
        if not any((number - known) & 0xFFFFFFFF < NEAR or (known - number) & 0xFFFFFFFF < NEAR for known in KNOWN_NUMBERS):
            data[spot:spot + 4] = bytes(4)
            notes += " cookie"
    option, end = at + 20, min(len(data), at + (data[at + 12] >> 4) * 4) if len(data) > at + 12 else 0
    while option + 1 < end and data[option] > 0:
        if data[option] == 8 and option + 10 <= end:
            for spot in (option + 2, option + 6):
                if int.from_bytes(data[spot:spot + 4], "big") > NEAR:
                    data[spot:spot + 4] = bytes(4)
                    notes += " clock"
        option += 1 if data[option] == 1 else max(data[option + 1], 2)
    return notes


def _mask_transport(data: bytearray, network: int, at: int, proto: int, spoilt: bool, cookies: bool) -> str:
    """Hide what was chosen by the router in a transport header or in a quoted packet; says if the checksum was right."""
    spot = SUMS.get(proto)
    if spot is None or len(data) < at + spot + (4 if proto == SCTP else 2):
        return ""
    four = proto == f.ICMP or data[network] >> 4 == 4 or len(data) < network + 40
    source = bytes(data[network + 12:network + 20]) if four else \
        bytes(data[network + 8:network + 40])
    half = len(source) // 2
    body = bytes(data[at:])
    start = 0 if proto == f.ICMP else f.pseudo(source[:half], source[half:], proto, len(body))
    right = f.checksum(body, start) in (0, 0xFFFF) if proto != SCTP else \
        struct.pack("<I", crc32c(bytearray(body[:8] + bytes(4) + body[12:]), 0, len(body))) == body[8:12]
    notes = _mask_ports(data, at, proto) + (_mask_cookies(data, at) if cookies and proto == f.TCP else "")
    quoting = (proto == f.ICMP and data[at] in (3, 4, 5, 11, 12)) or (proto == f.ICMP6 and data[at] < 128)
    if quoting and len(data) >= at + 28:
        inner = at + 8
        if data[inner] >> 4 == 4:
            notes += _mask_times(data, inner)
            before = bytes(data[inner:inner + 20])
            _mask_ident4(data, inner, bytes(data[inner + 12:inner + 16]) in ROUTERS)
            notes += " quoted " + _mask_quoted(data, inner + (data[inner] & 15) * 4, data[inner + 9], cookies)
            notes += "" if bytes(data[inner:inner + 20]) == before else " ident"
        elif data[inner] >> 4 == 6 and len(data) > inner + 40:
            if data[inner + 6] == f.FRAG6 and len(data) >= inner + 48:
                data[inner + 44:inner + 48] = bytes(4)
                notes += " quoted fragment"
            else:
                notes += " quoted " + _mask_quoted(data, inner + 40, data[inner + 6], cookies)
    if notes.strip() not in ("", "quoted") or (spoilt and not right):
        data[at + spot:at + spot + (4 if proto == SCTP else 2)] = bytes(4 if proto == SCTP else 2)
        notes += " sum right" if right else " sum wrong"
    return notes


def _mask_quoted(data: bytearray, at: int, proto: int, cookies: bool) -> str:
    """Hide chosen ports of a transport header that may be incomplete, and then its checksum with them."""
    hidden = _mask_quoted_twice(data, at, proto, cookies) or _mask_ports(data, at, proto)
    if cookies and proto == f.TCP:
        hidden += _mask_cookies(data, at)
    spot, size = SUMS.get(proto), 4 if proto == SCTP else 2
    if proto in (f.ICMP, f.ICMP6) and len(data) == at + 4 and data[at] in (0, 8, *range(13, 19), 128, 129):
        hidden = "cut before the identifier"  # which the checksum tells of all the same
    if hidden and spot is not None and len(data) >= at + spot + size:
        data[at + spot:at + spot + size] = bytes(size)
    return hidden


def _mask_quoted_twice(data: bytearray, at: int, proto: int, cookies: bool) -> str:
    """What an error quotes that is quoted itself."""
    inner = at + 8
    if len(data) < inner + 20 or not (data[at] in (3, 4, 5, 11, 12) if proto == f.ICMP else proto == f.ICMP6 and data[at] < 128):
        return ""
    if data[inner] >> 4 == 4:
        before = bytes(data[inner:inner + 20])
        _mask_ident4(data, inner, bytes(data[inner + 12:inner + 16]) in ROUTERS)
        hidden = _mask_quoted(data, inner + (data[inner] & 15) * 4, data[inner + 9], cookies)
        return hidden if bytes(data[inner:inner + 20]) == before else f"{hidden} ident"
    return _mask_quoted(data, inner + 40, data[inner + 6], cookies) if data[inner] >> 4 == 6 else ""


def conn_text(conn: Conn) -> str:
    """A connection as text for comparing: chosen ports hidden, timeout left out."""
    def hide(words: tuple[str, ...]) -> str:
        known = {"sport": KNOWN_PORTS, "dport": KNOWN_PORTS, "id": KNOWN_ECHOES}
        return " ".join(word if name not in known or int(number) in known[name] else f"{name}=?"
                        for word in words for name, _, number in (word.partition("="),))
    return f"{conn.proto} {conn.state} {hide(conn.original)} / {hide(conn.reply)} {sorted(conn.flags)} mark={conn.mark} " \
           f"{conn.counts}"


def difference(a: Behaviour, b: Behaviour, names: tuple[str, str]) -> str | None:
    """The first difference between two behaviours in words, or None."""
    if a.accepted != b.accepted:
        return f"{names[0] if a.accepted else names[1]} accepts the ruleset, the other refuses it"
    for number, (one, two) in enumerate(zip(a.frames, b.frames, strict=True)):
        if one != two:
            lines = [f"step {number}: frames differ"]
            for name, did, texts in ((names[0], a, one), (names[1], b, two)):
                lines += [f"  {name}: {show.frame(out.frame)} {text.split(' ', 2)[-1]}@{out.port}"
                          for out, text in zip(did.readable[number], texts, strict=True)] or [f"  {name}: nothing"]
            return "\n".join(lines)
    if a.counters != b.counters:
        return "counters differ:\n" + "\n".join(
            f"  {place}: {names[0]} {a.counters.get(place)}, {names[1]} {b.counters.get(place)}"
            for place in sorted({*a.counters, *b.counters}) if a.counters.get(place) != b.counters.get(place))
    if a.conns != b.conns:
        return "connections differ:\n" + "\n".join(
            [f"  only {names[0]}: {c}" for c in a.conns if c not in b.conns]
            + [f"  only {names[1]}: {c}" for c in b.conns if c not in a.conns])
    return None


def where(a: Behaviour, b: Behaviour) -> int | None:
    """The first step whose frames differ, or None."""
    return next((number for number, (one, two) in enumerate(zip(a.frames, b.frames, strict=False)) if one != two), None)
