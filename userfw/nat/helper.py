"""NAT for helpers: rewriting payloads, and connections that are translated like their master (Linux: nf_nat_helper.c).

Laws: a payload that changes its length moves the TCP sequence numbers of all that follows (conntrack.seqadj); lengths and
checksums are made
right; a packet that cannot hold the result is refused. An expected connection goes to where the announcement meant, the way
its master does.
"""

from __future__ import annotations

from userfw.conntrack.conn import Conn, node_of
from userfw.conntrack.expect import Expectation
from userfw.conntrack.helper import Halves, HelperNat
from userfw.conntrack.seqadj import seq_set
from userfw.conntrack.table import ConnTable
from userfw.core.const import (
    CT_DIR_ORIGINAL,
    CT_DIR_REPLY,
    HEADROOM,
    MAX_FRAME,
    NAT_MANIP_DST,
    NAT_MANIP_SRC,
    NAT_RANGE_MAP_IPS,
    NAT_RANGE_PROTO_SPECIFIED,
    NFPROTO_IPV4,
    VNET_F_NEEDS_CSUM,
)
from userfw.core.packet import Packet
from userfw.nat.mapping import Nat, NatRange
from userfw.wire.checksum import add_bytes, fold, pseudo_sum, write_ipv4

TCP, UDP = 6, 17
PAIRS = 1024  # pairs of ports that are tried


class HelperTools(HelperNat):
    """HelperNat on top of `Nat`."""

    def __init__(self, nat: Nat) -> None:
        self.nat = nat
        self.blank = Packet()

    def expect(self, table: ConnTable, expectation: Expectation, direction: int, follow: int | None = None) -> int:
        """See HelperNat. `follow`: this port and no other. Linux: nf_nat_exp_find_port."""
        e = expectation
        saved = e.saved_port
        self.turn(e, direction, None)
        if follow is not None:
            e.saved_port = saved
        wanted = follow if follow is not None else e.saved_port
        return self._link(table, e, wanted, 1 if follow is not None else 128)

    def _link(self, table: ConnTable, e: Expectation, wanted: int, attempts: int) -> int:
        """Link at the port `wanted` or one of those behind it; 0 if none is free."""
        first = wanted if wanted >= 1024 else 1024 + self.nat.rng.randrange(64512)
        for n in range(attempts):
            e.tuple.dport = wanted if n == 0 else 1024 + (first + n - 1024) % 64512
            verdict = table.expects.add(e, table.clock.now)
            if verdict == 0:
                return e.tuple.dport
            if verdict != -1:
                break
        return 0

    def expect_at(self, table: ConnTable, expectation: Expectation, direction: int, outer: Halves, port: int) -> int:
        """See HelperNat (Linux: nf_nat_sip_expect)."""
        self.turn(expectation, direction, outer)
        return self._link(table, expectation, port, 128)

    def expect_pair(self, table: ConnTable, even: Expectation, odd: Expectation, shared: bool = False) -> int:
        """See HelperNat (Linux: nf_nat_sdp_media, nat_rtp_rtcp)."""
        expects, now = table.expects, table.clock.now
        for port in range(even.tuple.dport, min(even.tuple.dport + 2 * PAIRS, 65535), 2):
            even.tuple.dport, odd.tuple.dport = port, port + 1
            verdict = expects.add(even, now, shared)
            if verdict == 0:
                verdict = expects.add(odd, now, shared)
                if verdict == 0:
                    return port
                expects.remove(even)
            if verdict == -2:
                break
        return 0

    def turn(self, expectation: Expectation, direction: int, outer: Halves | None) -> None:
        """See HelperNat."""
        e = expectation
        e.saved_hi, e.saved_lo, e.saved_port = e.tuple.dst_hi, e.tuple.dst_lo, e.tuple.dport
        if outer is not None:
            e.tuple.dst_hi, e.tuple.dst_lo = outer
        e.dir = 1 - direction
        e.expectfn = self.follow_master if outer is None else self.follow_announced

    def follow_announced(self, conn: Conn, expectation: Expectation) -> None:
        """Send the expected connection to the address and port announced; its source becomes what the other half of the pair
        of streams is known by, or its master's (Linux: nf_nat_sip_expected)."""
        master, e = conn.master, expectation
        if master is None:
            return
        self._setup(conn, e.saved_hi, e.saved_lo, e.saved_port, NAT_MANIP_DST)
        source = (conn.orig.src_hi, conn.orig.src_lo, conn.orig.sport)
        if e.klass:
            for pair in master.expectations or ():
                if pair.tuple.l4proto == conn.orig.l4proto and (pair.saved_hi, pair.saved_lo, pair.saved_port) == source:
                    self._setup(conn, pair.tuple.dst_hi, pair.tuple.dst_lo, pair.tuple.dport, NAT_MANIP_SRC)
                    return
        sender = node_of(master, e.dir)
        if source[:2] == (sender.src_hi, sender.src_lo):
            other = node_of(master, 1 - e.dir)
            self._setup(conn, other.dst_hi, other.dst_lo, 0, NAT_MANIP_SRC)

    def follow_master(self, conn: Conn, expectation: Expectation) -> None:
        """Translate the expected connection `conn` (Linux: nf_nat_follow_master)."""
        master = conn.master
        if master is None:
            return
        e = expectation
        other = node_of(master, 1 - e.dir)
        self._setup(conn, other.dst_hi, other.dst_lo, 0, NAT_MANIP_SRC)  # whoever it comes from, as in Linux
        self._setup(conn, other.src_hi, other.src_lo, e.saved_port, NAT_MANIP_DST)

    def follow_call(self, conn: Conn, expectation: Expectation) -> None:
        """See HelperNat (Linux: nf_nat_pptp_expected)."""
        master, e = conn.master, expectation
        if master is None:
            return
        other = node_of(master, 1 - e.dir)
        self._setup(conn, other.dst_hi, other.dst_lo, e.saved_port if e.dir == CT_DIR_ORIGINAL else 0, NAT_MANIP_SRC)
        self._setup(conn, other.src_hi, other.src_lo, e.saved_port if e.dir == CT_DIR_REPLY else 0, NAT_MANIP_DST)

    def _setup(self, conn: Conn, hi: int, lo: int, port: int, manip: int) -> None:
        within = NatRange(NAT_RANGE_MAP_IPS)
        within.min_hi = within.max_hi = hi
        within.min_lo = within.max_lo = lo
        if port:
            within.flags |= NAT_RANGE_PROTO_SPECIFIED
            within.min_port = within.max_port = port
        self.nat.setup(self.blank, conn, within, manip)

    def replace(self, pkt: Packet, conn: Conn, direction: int, off: int, length: int, text: bytes) -> bool:
        """See HelperNat (Linux: nf_nat_mangle_tcp_packet, nf_nat_mangle_udp_packet)."""
        tcp = pkt.l4proto == TCP
        head = (pkt.data[pkt.l4 + 12] >> 4) * 4 if tcp else 8
        at = pkt.l4 + head + off
        grown = len(text) - length
        if at + length > pkt.end or pkt.end + grown > HEADROOM + MAX_FRAME or pkt.end + grown - pkt.l3 > 65535:
            return False
        pkt.data[at + len(text) : pkt.end + grown] = pkt.data[at + length : pkt.end]  # equally long: the buffer keeps its size
        pkt.data[at : at + len(text)] = text
        if grown and tcp:
            seq_set(conn, direction, pkt.get32(pkt.l4 + 4), grown)
        pkt.end += grown
        self._lengths(pkt, grown)
        self._checksum(pkt, tcp)
        return True

    def _lengths(self, pkt: Packet, grown: int) -> None:
        if grown == 0:
            return
        if pkt.nfproto == NFPROTO_IPV4:
            pkt.put16(pkt.l3 + 2, pkt.get16(pkt.l3 + 2) + grown)
            write_ipv4(pkt)
        else:
            pkt.put16(pkt.l3 + 4, pkt.get16(pkt.l3 + 4) + grown)
        if pkt.l4proto == UDP:
            pkt.put16(pkt.l4 + 4, pkt.get16(pkt.l4 + 4) + grown)

    def _checksum(self, pkt: Packet, tcp: bool) -> None:
        field = pkt.l4 + (16 if tcp else 6)
        length = pkt.end - pkt.l4
        total = pseudo_sum(pkt, TCP if tcp else UDP, length)
        if pkt.vnet_flags & VNET_F_NEEDS_CSUM:
            pkt.put16(field, fold(total))
            return
        if not tcp and pkt.get16(field) == 0 and pkt.nfproto == NFPROTO_IPV4:
            return
        pkt.put16(field, 0)
        check = ~fold(add_bytes(total, pkt.data, pkt.l4, length)) & 0xFFFF
        pkt.put16(field, check if tcp else check or 0xFFFF)
