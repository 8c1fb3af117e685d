"""Helpers: protocols that announce further connections in their payload (Linux: nf_conntrack_helper.c).

Laws: a helper is given to a connection by a rule (`ct helper set`), never by port alone, and sees its packets after their last
hook, already
translated. What it reads is untrusted: it may announce (an Expectation) or, where tracking would otherwise be fooled, drop.
Under NAT the
payload is rewritten through `HelperNat`, which the nat room implements; without it, announcements name untranslated addresses.
"""

from __future__ import annotations

from contextlib import suppress
from typing import ClassVar

from userfw.conntrack.conn import Conn, Tuple, node_of
from userfw.conntrack.expect import Expectation
from userfw.conntrack.table import ConnTable
from userfw.core.const import NF_ACCEPT, NF_DROP
from userfw.core.packet import Packet

IPPROTO_TCP, IPPROTO_UDP = 6, 17
ALL64 = (1 << 64) - 1


Halves = tuple[int, int]


class HelperNat:
    """What a helper needs of NAT; directions are those of the packet in hand."""

    def expect(self, table: ConnTable, expectation: Expectation, direction: int, follow: int | None = None) -> int:
        """Link `expectation` under a free port, its own if possible, translated like its master; the port, or 0 if there is
        none."""
        raise NotImplementedError

    def expect_at(self, table: ConnTable, expectation: Expectation, direction: int, outer: Halves, port: int) -> int:
        """Link `expectation`, turned to the address `outer`, at `port` or another free one; the port, or 0 if there is none."""
        raise NotImplementedError

    def expect_pair(self, table: ConnTable, even: Expectation, odd: Expectation, shared: bool = False) -> int:
        """Link two expectations, turned already, at neighbouring ports, their own if possible; the even one, or 0. `shared`: as
        of ExpectTable.add."""
        raise NotImplementedError

    def turn(self, expectation: Expectation, direction: int, outer: Halves | None) -> None:
        """Prepare `expectation`, not linked yet, for NAT. Turned to the address `outer`, who comes is sent on to where it
        pointed before; with None it points to an outer address already, and who comes is translated like its master."""
        raise NotImplementedError

    def follow_call(self, conn: Conn, expectation: Expectation) -> None:
        """Translate PPTP's tunnel `conn` like its control connection, call ids included."""
        raise NotImplementedError

    def release(self, table: ConnTable, expectation: Expectation) -> None:
        """Unlink it after all."""
        table.expects.remove(expectation)

    def replace(self, pkt: Packet, conn: Conn, direction: int, off: int, length: int, text: bytes) -> bool:
        """Replace `length` bytes at `off` of the transport payload; False if the packet cannot hold the result."""
        raise NotImplementedError


class Helper:
    """One protocol's helper. `policies`: (most expectations of a master, seconds each lives) for each class."""

    name: ClassVar[str] = ""
    protocols: ClassVar[tuple[int, ...]] = (IPPROTO_TCP,)
    port: ClassVar[int] = 0
    policies: ClassVar[tuple[tuple[int, int], ...]] = ((1, 300),)

    def __init__(self, l3num: int = 0, l4proto: int = 0) -> None:
        self.l3num = l3num
        self.l4proto = l4proto or self.protocols[0]
        self.nat: HelperNat | None = None

    def limits(self, klass: int) -> tuple[int, int]:
        """(most, seconds) of a class of expectations."""
        return self.policies[klass] if klass < len(self.policies) else self.policies[0]

    def help(self, table: ConnTable, pkt: Packet, conn: Conn, direction: int) -> int:
        """Read one packet of a connection that has this helper; NF_ACCEPT or NF_DROP."""
        try:
            return self.read_untrusted(table, pkt, conn, direction)
        except (ValueError, IndexError):
            return NF_ACCEPT

    def read_untrusted(self, table: ConnTable, pkt: Packet, conn: Conn, direction: int) -> int:
        """The protocol's part of `help`; ValueError and IndexError mean that the payload is not what it should be."""
        raise NotImplementedError

    def ended(self, table: ConnTable, conn: Conn) -> None:
        """A connection that has this helper and `helper_data` leaves the table."""

    # -- for the protocols

    def payload(self, pkt: Packet) -> bytes:
        """The transport payload; empty if the header is cut short."""
        head = 8 if self.l4proto == IPPROTO_UDP else (pkt.data[pkt.l4 + 12] >> 4) * 4
        return bytes(pkt.data[pkt.l4 + head : pkt.end])

    def announce(
        self,
        conn: Conn,
        source: tuple[int, int] | None,
        target: tuple[int, int],
        l4proto: int,
        sport: int | None,
        dport: int,
        klass: int = 0,
    ) -> Expectation:
        """An expectation, not linked yet: from `source` (None: anybody) and `sport` (None: any) to `target` (hi, lo) and
        `dport`."""
        t = Tuple()
        t.l3num, t.l4proto, t.zone = conn.orig.l3num, l4proto, conn.orig.zone
        t.dst_hi, t.dst_lo = target
        t.dport = dport
        e = Expectation(conn, t)
        if source is not None:
            t.src_hi, t.src_lo = source
            e.mask_hi, e.mask_lo = (0, 0xFFFFFFFF) if t.l3num == 2 else (ALL64, ALL64)
        if sport is not None:
            t.sport = sport
            e.mask_sport = 0xFFFF
        e.helper = self
        e.klass = klass
        return e

    def link(self, table: ConnTable, expectation: Expectation) -> int:
        """Link an expectation that needs no NAT; NF_DROP if it cannot be, for its connection would be refused."""
        return NF_ACCEPT if table.expects.add(expectation, table.clock.now) == 0 else NF_DROP


def source_of(conn: Conn, direction: int) -> tuple[int, int]:
    """Source address of packets of `direction`."""
    t = node_of(conn, direction)
    return t.src_hi, t.src_lo


def target_of(conn: Conn, direction: int) -> tuple[int, int]:
    """Destination address of packets of `direction`."""
    t = node_of(conn, direction)
    return t.dst_hi, t.dst_lo


def translated(conn: Conn) -> bool:
    """Whether NAT changes the connection."""
    return bool(conn.status & 48)


class Helpers:
    """The helpers of a table, one object for each (type, protocol); rules' helper objects refer to them."""

    def __init__(self, nat: HelperNat | None = None) -> None:
        self.nat = nat
        self._known: dict[tuple[str, int, int], Helper] = {}

    def get(self, kind: str, l4proto: int, l3num: int = 0) -> Helper:
        """The helper of nft's `ct helper` object `type "KIND" protocol …`. ValueError says which exist."""
        cls = _classes().get(kind)
        if cls is None:
            raise ValueError(f'no helper of type "{kind}"; there are {", ".join(sorted(_classes()))}')
        if l4proto not in cls.protocols:
            raise ValueError(f'helper "{kind}" is not for protocol {l4proto}')
        key = (kind, l4proto, l3num)
        if key not in self._known:
            self._known[key] = cls(l3num, l4proto)
            self._known[key].nat = self.nat
        return self._known[key]

    def names(self) -> list[str]:
        """Types that exist."""
        return sorted(_classes())

    def by_name(self) -> dict[str, Helper]:
        """One of each type, for a snapshot."""
        found: dict[str, Helper] = {}
        for name, cls in _classes().items():
            with suppress(ValueError):  # what it needs is not installed
                found[name] = self.get(name, cls.protocols[0])
        return found


def _classes() -> dict[str, type[Helper]]:
    from userfw.conntrack import helper_ftp, helper_h323, helper_misc, helper_pptp, helper_sip

    found = (
        helper_ftp.Ftp,
        helper_misc.Tftp,
        helper_misc.Irc,
        helper_misc.Amanda,
        helper_misc.Sane,
        helper_misc.NetbiosNs,
        helper_misc.Snmp,
        helper_pptp.Pptp,
        helper_sip.Sip,
        helper_h323.H245,
        helper_h323.Q931,
        helper_h323.Ras,
    )
    return {cls.name: cls for cls in found}
