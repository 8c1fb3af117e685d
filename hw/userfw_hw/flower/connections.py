"""Entries of the kernel's connection tracking for flows that act_ct translates, in a zone of their own (ctnetlink).

The kernel below the gateway has seen nothing of its connections, so each is put there whole, when its flow is installed: both
tuples, established, assured, liberal about windows (what is in the window userfw has judged), and marked with the number of the
first rule that asked for it. What is not in the zone act_ct does not translate and flower does not let by.

Laws: one entry for both directions of a connection; it goes with the last rule that uses it. A zone is one process's: who holds a
socket of its name in the namespace, which ends with the process, SIGKILL included. Nothing else is ever in these zones, so what is
in one that nobody holds is swept.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from userfw.offload.contract import Rule
from userfw.ports.netlink import NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, attribute, attributes_untrusted
from userfw.ports.netlink_batch import Batches, Refused
from userfw.ports.netns import run_in

ZONES: Final = range(0x7566, 0x7576)  # "uf", and as many daemons in one namespace
_NETFILTER: Final = 12
_NEW, _GET, _DELETE = 0x100, 0x101, 0x102  # NFNL_SUBSYS_CTNETLINK << 8
_ORIGINAL, _REPLY, _STATUS, _PROTOINFO, _NAT_SRC, _TIMEOUT, _MARK, _NAT_DST, _ZONE = 1, 2, 3, 4, 6, 7, 8, 13, 18
_NESTED: Final = 0x8000
_LASTING: Final = 2 | 4 | 8  # IPS_SEEN_REPLY, IPS_ASSURED, IPS_CONFIRMED
_SECONDS: Final = 3600  # until the first packet of it, which sets the kernel's own timeout
_TCP: Final = 6

Ends = tuple[int, bytes, bytes, int, int]  # protocol, addresses, ports: one direction of a connection, or its NAT


@dataclass(slots=True)
class Entry:
    """One connection in the zone: its original direction, its mark, and the rules that need it."""

    original: Ends
    number: int
    users: set[int] = field(default_factory=set)


class Connections(Batches):
    """A zone of namespace `netns`, `zone`, that no other process has. OSError (EBUSY) if they all are others'."""

    def __init__(self, netns: str | None = None) -> None:
        super().__init__(netns, _NETFILTER)
        self.netns = netns
        for self.zone in ZONES:
            holder = hold(netns, self.zone)
            if holder is not None:
                break
        else:
            super().close()
            raise OSError(errno.EBUSY, f"other processes have the zones {ZONES[0]} to {ZONES[-1]}")
        self.holder = holder
        self.entries: dict[frozenset[Ends], Entry] = {}
        self._rules: dict[int, frozenset[Ends]] = {}

    def obtain(self, rule: Rule) -> tuple[int, bool]:
        """The mark of the rule's connection, which is there afterwards, and whether the rule is its reply. Refused."""
        ends, back = arriving(rule), answering(rule)
        key = frozenset((ends, back))
        entry = self.entries.get(key)
        if entry is None:
            number = rule.id & 0xFFFFFFFF
            (refused,) = self.batch([create(rule, number, self.zone)])
            if refused is not None:
                raise refused
            entry = self.entries[key] = Entry(ends, number)
        entry.users.add(rule.id)
        self._rules[rule.id] = key
        return entry.number, entry.original != ends

    def release(self, ids: Iterable[int]) -> None:
        """Rules that are gone; connections that nobody needs any more go with them."""
        messages = []
        for id in ids:
            key = self._rules.pop(id, None)
            if key is None:
                continue
            entry = self.entries[key]
            entry.users.discard(id)
            if not entry.users:
                del self.entries[key]
                messages.append(_delete(_tuple(entry.original), len(entry.original[1]), self.zone))
        self.batch(messages)  # one that is gone already was timed out or flushed by somebody

    def sweep(self) -> int:
        """Empty the zone and those that nobody has any more; how many connections went. OSError."""
        found: defaultdict[int, list[bytes]] = defaultdict(list)
        for _, body in self.request(_GET, NLM_F_DUMP, _head(0)):
            attrs = attributes_untrusted(body[4:])
            zone = int.from_bytes(attrs.get(_ZONE, b""), "big")
            if zone in ZONES:
                found[zone].append(_delete(attrs.get(_ORIGINAL, b""), 4 if body[0] == socket.AF_INET else 16, zone))
        return sum(self._empty(zone, messages) for zone, messages in found.items())

    def _empty(self, zone: int, messages: list[bytes]) -> int:
        holder = self.holder if zone == self.zone else hold(self.netns, zone)
        if holder is None:
            return 0
        self.batch(messages)
        if holder is not self.holder:
            holder.close()
        return len(messages)

    def close(self) -> None:
        """Give the zone back."""
        super().close()
        self.holder.close()

    def trial(self, rule: Rule) -> Refused | None:
        """Put the connection of `rule` there and take it away again; why that did not work."""
        try:
            self.obtain(rule)
        except Refused as refused:
            return refused
        self.release([rule.id])
        return None


def hold(netns: str | None, zone: int) -> socket.socket | None:
    """A zone of a namespace, for as long as the socket is open; None if another process has it. OSError."""
    sock = run_in(netns, lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC))
    try:
        sock.bind(f"\0userfw-conntrack-zone-{zone}")  # an abstract name is of the socket's network namespace: unix(7)
    except OSError as error:
        sock.close()
        if error.errno != errno.EADDRINUSE:
            raise
        return None
    return sock


def arriving(rule: Rule) -> Ends:
    """The direction that a rule matches."""
    match = rule.match
    return match.protocol, match.source, match.destination, match.source_port, match.destination_port


def answering(rule: Rule) -> Ends:
    """The other direction, as its packets arrive."""
    actions = rule.actions
    return rule.match.protocol, actions.destination, actions.source, actions.destination_port, actions.source_port


def create(rule: Rule, number: int, zone: int) -> bytes:
    """The request for a connection that `rule` is the original direction of, translated as it says."""
    match, actions = rule.match, rule.actions
    back = (match.protocol, match.destination, match.source, match.destination_port, match.source_port)
    body = _head(len(match.source)) + _nest(_ORIGINAL, _tuple(arriving(rule))) + _nest(_REPLY, _tuple(back))
    for kind, value in ((_STATUS, _LASTING), (_TIMEOUT, _SECONDS), (_MARK, number)):
        body += attribute(kind, struct.pack(">I", value))
    if match.protocol == _TCP:
        liberal = bytes((10, 10))  # IP_CT_TCP_FLAG_SACK_PERM, IP_CT_TCP_FLAG_BE_LIBERAL, and the mask
        tcp = attribute(1, b"\x03") + attribute(4, liberal) + attribute(5, liberal)  # established
        body += _nest(_PROTOINFO, _nest(1, tcp))
    if (match.source, match.source_port) != (actions.source, actions.source_port):
        body += _nest(_NAT_SRC, _range(actions.source, actions.source_port))
    if (match.destination, match.destination_port) != (actions.destination, actions.destination_port):
        body += _nest(_NAT_DST, _range(actions.destination, actions.destination_port))
    body += attribute(_ZONE, struct.pack(">H", zone))
    return struct.pack("=IHHII", 16 + len(body), _NEW, NLM_F_CREATE | NLM_F_EXCL | 5, 0, 0) + body


def _delete(original: bytes, size: int, zone: int) -> bytes:
    body = _head(size) + _nest(_ORIGINAL, original) + attribute(_ZONE, struct.pack(">H", zone))
    return struct.pack("=IHHII", 16 + len(body), _DELETE, 5, 0, 0) + body


def _head(size: int) -> bytes:
    """struct nfgenmsg; `size` is the length of addresses, 0 for any family."""
    return struct.pack("=BBH", {0: 0, 4: socket.AF_INET, 16: socket.AF_INET6}[size], 0, 0)


def _nest(kind: int, value: bytes) -> bytes:
    return attribute(kind | _NESTED, value)


def _tuple(ends: Ends) -> bytes:
    protocol, source, destination, sport, dport = ends
    first = 1 if len(source) == 4 else 3
    addresses = attribute(first, source) + attribute(first + 1, destination)
    ports = attribute(2, struct.pack(">H", sport)) + attribute(3, struct.pack(">H", dport))
    return _nest(1, addresses) + _nest(2, attribute(1, bytes((protocol,))) + ports)


def _range(address: bytes, port: int) -> bytes:
    """One address and one port."""
    number = struct.pack(">H", port)
    return attribute(1 if len(address) == 4 else 4, address) + _nest(3, attribute(1, number) + attribute(2, number))
