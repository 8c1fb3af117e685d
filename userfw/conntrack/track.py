"""The two hook entries of connection tracking: `ConntrackIn` (prerouting and output, -200) and `Confirm` (input and
postrouting, last).

Laws (Linux: nf_conntrack_core.c):
- A packet that leaves `ConntrackIn` has a connection (`pkt.ct`, `pkt.ctinfo`, `pkt.ctdir`), or is CT_UNTRACKED (told so
  before, or neighbour
  discovery), or is CT_INVALID and carries none.
- A new connection enters the table in `Confirm`, after the packet's last hook; a dropped first packet leaves nothing behind.
- ICMP errors are RELATED to the connection whose packet they quote and never make one.
- Of two packets of one new flow that race, the later adopts the entry of the earlier.
"""

import cython

if not cython.compiled:
    from userfw.conntrack.check import checksum_ok
    from userfw.conntrack.conn import Conn, Tuple, TupleNode, same_tuple
    from userfw.conntrack.const import (
        CT_EVENT_REPLY,
        CT_PKT_ACCEPT,
        CT_PKT_DROP,
        CT_PKT_REPEAT,
        EXPECT_PERMANENT,
    )
    from userfw.conntrack.expect import Expectation
    from userfw.conntrack.proto import generic_packet, gre_packet, icmp_packet, udp_packet
    from userfw.conntrack.sctp import sctp_packet
    from userfw.conntrack.seqadj import seq_adjust
    from userfw.conntrack.table import ConnTable
    from userfw.conntrack.tcp import Tcp
    from userfw.conntrack.tuples import inner_l4, inner_proto, invert, read_tuple
    from userfw.core.const import (
        CT_DIR_ORIGINAL,
        CT_DIR_REPLY,
        CT_ESTABLISHED,
        CT_INVALID,
        CT_NEW,
        CT_RELATED,
        CT_UNTRACKED,
        IPPROTO_GRE,
        IPPROTO_ICMP,
        IPPROTO_ICMPV6,
        IPPROTO_ROUTING,
        IPPROTO_SCTP,
        IPPROTO_TCP,
        IPPROTO_UDP,
        IPPROTO_UDPLITE,
        IPS_CONFIRMED,
        IPS_DYING,
        IPS_EXPECTED,
        IPS_SEEN_REPLY,
        IPS_SEQ_ADJUST,
        IPS_TEMPLATE,
        NF_ACCEPT,
        NF_DROP,
        NF_INET_PRE_ROUTING,
        NFPROTO_IPV4,
        NFPROTO_IPV6,
    )
    from userfw.core.drop import DROP_CT_CLASH, DROP_CT_INVALID, DROP_CT_TABLE_FULL, DROP_MALFORMED
    from userfw.core.hook import HookEntry
    from userfw.core.packet import Packet


class ConntrackIn(HookEntry):
    """Finds or opens the connection of a packet (Linux: nf_conntrack_in)."""

    def __init__(self, table: ConnTable, priority: int = -200) -> None:
        super().__init__(priority)
        self.table = table
        self.settings = table.settings
        self.tcp = Tcp(table)
        self.key = Tuple()
        self.other = Tuple()

    def run(self, pkt: Packet, hook: cython.int) -> cython.int:
        """NF_ACCEPT with the packet's connection set; NF_DROP if the table is full."""
        zone: cython.int = 0
        zone_dir: cython.int = 3
        template: Conn | None = pkt.ct
        if template is not None:
            if not template.status & IPS_TEMPLATE:
                return NF_ACCEPT  # seen before: it comes from this machine, over lo
            pkt.ct = None
            zone = template.zone
            zone_dir = template.zone_dir
        elif pkt.ctinfo == CT_UNTRACKED:
            return NF_ACCEPT
        if not pkt.has_l4 and _cut_routing(pkt):
            pkt.ct = template
            return self._past_cut(pkt, hook)
        pkt.ctinfo = CT_INVALID
        pkt.ctdir = CT_DIR_ORIGINAL
        if not pkt.has_l4 and not _behind(pkt):
            self.table.stats.invalid += 1
            return NF_ACCEPT
        proto: cython.int = pkt.l4proto
        if proto in (IPPROTO_ICMP, IPPROTO_ICMPV6):
            if self._icmp(pkt, hook, zone, zone_dir):
                return NF_ACCEPT
        verdict: cython.int
        conn: Conn
        while True:
            verdict = self._resolve(pkt, zone, zone_dir)
            if verdict != NF_ACCEPT:
                return verdict
            if pkt.ct is None:
                pkt.ctinfo = CT_INVALID
                self.table.stats.invalid += 1
                return NF_ACCEPT
            conn = pkt.ct
            if template is not None and not conn.status & IPS_CONFIRMED:
                if template.policy is not None:
                    conn.policy = template.policy
                if template.helper is not None and conn.helper is None:
                    conn.helper = template.helper
                if template.ext is not None:
                    conn.ext = dict(template.ext)
            verdict = self._packet(pkt, conn, pkt.ctdir, hook)
            if verdict == CT_PKT_ACCEPT:
                break
            pkt.ct = None
            pkt.ctinfo = CT_INVALID
            pkt.ctdir = CT_DIR_ORIGINAL
            if verdict == CT_PKT_REPEAT:
                continue
            self.table.stats.invalid += 1
            if verdict == CT_PKT_DROP:
                self.table.stats.drop += 1
                pkt.drop_reason = DROP_CT_INVALID
                return NF_DROP
            return NF_ACCEPT
        if pkt.ctdir == CT_DIR_REPLY and not conn.status & IPS_SEEN_REPLY and pkt.ctinfo == CT_ESTABLISHED:
            conn.status |= IPS_SEEN_REPLY
            if self.table.listening:
                conn.events |= CT_EVENT_REPLY
        return NF_ACCEPT

    def _past_cut(self, pkt: Packet, hook: cython.int) -> cython.int:
        """Two octets of an IPv6 routing header say what follows, though rules need four (Linux: ipv6_skip_exthdr)."""
        at: cython.Py_ssize_t = pkt.l4
        proto: cython.int = pkt.l4proto
        result: cython.int
        pkt.l4proto = pkt.get8(at)
        pkt.l4 = at + (pkt.get8(at + 1) + 1) * 8
        result = self.run(pkt, hook)
        pkt.l4 = at
        pkt.l4proto = proto
        return result

    def _find(self, zone: cython.int, zone_dir: cython.int, ahead: cython.Py_ssize_t) -> TupleNode | None:
        """The node of `self.key`, which belongs to the direction that its zone applies to; `ahead`: `Packet.ahead` or -1."""
        self.key.zone = zone if zone_dir & 1 else 0
        node: TupleNode | None = self.table.find_ahead(self.key, ahead)
        if zone_dir == 3 or zone == 0:
            return node
        if node is not None and node.dir == CT_DIR_ORIGINAL:
            return node
        self.key.zone = zone if zone_dir & 2 else 0
        node = self.table.find(self.key)
        if node is not None and node.dir == CT_DIR_REPLY:
            return node
        return None

    def _resolve(self, pkt: Packet, zone: cython.int, zone_dir: cython.int) -> cython.int:
        """Set the packet's connection, opening one if need be; none if its headers are cut short or call for no answer."""
        if not read_tuple(pkt, pkt.nfproto, pkt.l3, pkt.l4, pkt.l4proto, self.key):
            return NF_ACCEPT
        if pkt.l4proto == IPPROTO_GRE and self.key.dport:
            self.key.sport = self.table.expects.gre_source(self.key)
        node: TupleNode | None = self._find(zone, zone_dir, pkt.ahead)
        conn: Conn
        if node is None:
            if not self.table.room(self.key.hash):
                self.table.stats.drop += 1
                pkt.drop_reason = DROP_CT_TABLE_FULL
                return NF_DROP
            opened: Conn | None = self._open(pkt, zone, zone_dir)
            if opened is None:
                return NF_ACCEPT
            pkt.ct = opened
            pkt.ctinfo = CT_RELATED if opened.status & IPS_EXPECTED else CT_NEW
            return NF_ACCEPT
        conn = node.conn
        pkt.ct = conn
        if node.dir == CT_DIR_REPLY:
            pkt.ctdir = CT_DIR_REPLY
            pkt.ctinfo = CT_ESTABLISHED
        elif conn.status & IPS_SEEN_REPLY:
            pkt.ctinfo = CT_ESTABLISHED
        elif conn.status & IPS_EXPECTED:
            pkt.ctinfo = CT_RELATED
        else:
            pkt.ctinfo = CT_NEW
        return NF_ACCEPT

    def _open(self, pkt: Packet, zone: cython.int, zone_dir: cython.int) -> Conn | None:
        """An unconfirmed connection for `self.key` (Linux: init_conntrack)."""
        self.key.zone = zone if zone_dir & 1 else 0
        conn: Conn | None = self.table.new(self.key, zone, zone_dir)
        if conn is not None and self.table.expects.count:
            self._fulfil(conn)
        return conn

    def _fulfil(self, conn: Conn) -> cython.bint:
        """If the connection was announced by a helper, it is RELATED and inherits from its master."""
        found: Expectation | None = self.table.expects.find(conn.orig, self.table.clock.now)
        if found is None:
            return False
        master: Conn | None = found.master
        if master is None or not master.status & IPS_CONFIRMED or master.status & IPS_DYING:
            return False
        conn.status |= IPS_EXPECTED
        conn.master = master
        conn.helper = found.assign_helper
        conn.mark = master.mark
        conn.secmark = master.secmark
        if not found.flags & EXPECT_PERMANENT:
            self.table.expects.remove(found)
        if found.expectfn is not None:
            found.expectfn(conn, found)
        return True

    def _packet(self, pkt: Packet, conn: Conn, direction: cython.int, hook: cython.int) -> cython.int:
        """What the protocol makes of the packet, CT_PKT_*."""
        proto: cython.int = pkt.l4proto  # the same as the connection's
        if proto == IPPROTO_TCP:
            return self.tcp.packet(pkt, conn, direction, hook)
        if proto in (IPPROTO_UDP, IPPROTO_UDPLITE):
            return udp_packet(self.table, pkt, conn, direction, hook)
        if proto in (IPPROTO_ICMP, IPPROTO_ICMPV6):
            return icmp_packet(self.table, pkt, conn, direction, pkt.ctinfo)
        if proto == IPPROTO_SCTP:
            return sctp_packet(self.table, pkt, conn, direction, hook)
        if proto == IPPROTO_GRE:
            return gre_packet(self.table, pkt, conn, direction)
        return generic_packet(self.table, pkt, conn, direction)

    # -- ICMP

    def _icmp(self, pkt: Packet, hook: cython.int, zone: cython.int, zone_dir: cython.int) -> cython.int:
        """1 if that settles the packet (an error: RELATED or INVALID; neighbour discovery: UNTRACKED), 0: a query or answer."""
        type: cython.int
        if pkt.l4proto == IPPROTO_ICMP and pkt.nfproto == NFPROTO_IPV4:
            if pkt.l4 + 8 > pkt.end:
                return self._invalid()
            if hook == NF_INET_PRE_ROUTING and self.settings.checksum and not checksum_ok(pkt, IPPROTO_ICMP):
                return self._invalid()
            type = pkt.get8(pkt.l4)
            if type > 18:
                return self._invalid()
            if type not in (3, 4, 5, 11, 12):
                return 0
            return self._icmp_error(pkt, zone, zone_dir)
        if pkt.l4proto != IPPROTO_ICMPV6 or pkt.nfproto != NFPROTO_IPV6:
            return 0
        if pkt.l4 + 8 > pkt.end:
            return self._invalid()
        if hook == NF_INET_PRE_ROUTING and self.settings.checksum and not checksum_ok(pkt, IPPROTO_ICMPV6):
            return self._invalid()
        type = pkt.get8(pkt.l4)
        if 130 <= type <= 136 or type in (143, 151, 152):  # MLD, neighbour and router discovery (Linux: noct_valid_new)
            pkt.ctinfo = CT_UNTRACKED
            return 1
        if type == 137:
            return self._redirect(pkt, zone, zone_dir)
        if type >= 128:
            return 0
        return self._icmp_error(pkt, zone, zone_dir)

    def _invalid(self) -> cython.int:
        self.table.stats.invalid += 1
        return 1

    def _icmp_error(self, pkt: Packet, zone: cython.int, zone_dir: cython.int) -> cython.int:
        if not self._related(pkt, pkt.l4 + 8, zone, zone_dir):
            return self._invalid()
        return 1

    def _redirect(self, pkt: Packet, zone: cython.int, zone_dir: cython.int) -> cython.int:
        """An ICMPv6 redirect quotes its packet in an option (RFC 4861 4.6.3)."""
        at: cython.Py_ssize_t = pkt.l4 + 40
        size: cython.Py_ssize_t
        if pkt.get8(pkt.l3 + 7) != 255:
            return self._invalid()
        while at + 8 <= pkt.end:
            size = pkt.get8(at + 1) * 8
            if size == 0 or at + size > pkt.end:
                break
            if pkt.get8(at) == 4:
                if self._related(pkt, at + 8, zone, zone_dir):
                    return 1
                break
            at += size
        pkt.ctinfo = CT_UNTRACKED
        return 1

    def _related(self, pkt: Packet, inner: cython.Py_ssize_t, zone: cython.int, zone_dir: cython.int) -> cython.bint:
        """Whether the packet quoted at `inner` belongs to a connection, and the error goes to that packet's sender.

        Linux: nf_conntrack_inet_error.
        """
        l4: cython.Py_ssize_t = inner_l4(pkt, pkt.nfproto, inner)
        if l4 < 0:
            return False
        if not read_tuple(pkt, pkt.nfproto, inner, l4, inner_proto(pkt, pkt.nfproto, inner), self.other):
            return False
        if self.other.l4proto == IPPROTO_GRE and self.other.dport:
            self.other.sport = self.table.expects.gre_source(self.other)
        if not invert(self.other, self.key):
            return False
        node: TupleNode | None = self._find(zone, zone_dir, -1)
        if node is None:
            return False
        # the error travels as the quoted packet's answers do, so it must be addressed as those are
        if pkt.nfproto == NFPROTO_IPV4:
            if pkt.get32(pkt.l3 + 16) != node.dst_lo:
                return False
        elif pkt.get64(pkt.l3 + 24) != node.dst_hi or pkt.get64(pkt.l3 + 32) != node.dst_lo:
            return False
        pkt.ct = node.conn
        pkt.ctinfo = CT_RELATED
        pkt.ctdir = node.dir
        return True


def _behind(pkt: Packet) -> cython.bint:
    """The IPv6 transport is known, though the extension header in front of it is cut off (Linux: ipv6_skip_exthdr)."""
    return pkt.nfproto == NFPROTO_IPV6 and pkt.l4 > pkt.end and pkt.fragoff == 0 and pkt.l4proto not in (0, 43, 44, 51, 59, 60)


def _strict(proto: cython.int) -> cython.bint:
    """A packet whose connection another one opened meanwhile is lost, as if both were the same (Linux: no allow_clash)."""
    return proto in (IPPROTO_TCP, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_SCTP)


def _cut_routing(pkt: Packet) -> cython.bint:
    """A routing header of which two or three octets are there."""
    return pkt.nfproto == NFPROTO_IPV6 and pkt.l4proto == IPPROTO_ROUTING and pkt.l4 + 2 <= pkt.end < pkt.l4 + 4


class Confirm(HookEntry):
    """After the packet's last hook: helper, sequence numbers, and the connection enters the table (Linux: nf_confirm)."""

    def __init__(self, table: ConnTable, priority: int = 2147483647) -> None:
        super().__init__(priority)
        self.table = table

    def run(self, pkt: Packet, hook: cython.int) -> cython.int:
        """NF_ACCEPT, or NF_DROP when another connection took a tuple meanwhile or a helper refuses the packet."""
        conn: Conn | None = pkt.ct
        if conn is None or conn.status & IPS_TEMPLATE:
            return NF_ACCEPT
        if pkt.ctinfo != CT_RELATED or conn.status & IPS_EXPECTED:
            if conn.helper is not None or conn.status & IPS_SEQ_ADJUST:
                verdict: cython.int = self._help(pkt, conn)
                if verdict != NF_ACCEPT:
                    return verdict
        if not conn.status & IPS_CONFIRMED:
            if pkt.ctdir != CT_DIR_ORIGINAL:
                return NF_ACCEPT
            if conn.status & IPS_DYING:
                pkt.drop_reason = DROP_CT_CLASH
                return NF_DROP
            winner: Conn | None = self.table.insert(conn)
            if winner is not None:
                strict: cython.bint = _strict(conn.orig.l4proto)
                if not strict and self._clash(pkt, conn, winner) == NF_ACCEPT:
                    conn = winner
                elif strict or not self.table.insert_reply(conn):
                    self.table.stats.drop += 1
                    pkt.drop_reason = DROP_CT_CLASH
                    return NF_DROP
        if conn.events:
            self.table.deliver(conn)
        return NF_ACCEPT

    def _help(self, pkt: Packet, conn: Conn) -> cython.int:
        """The helper reads (and under NAT rewrites) the payload, then sequence numbers are moved. Not for ICMP errors."""
        verdict: cython.int
        if pkt.l4proto != conn.orig.l4proto or not pkt.has_l4:
            return NF_ACCEPT
        if conn.helper is not None:
            verdict = conn.helper.help(self.table, pkt, conn, pkt.ctdir)
            if verdict != NF_ACCEPT:
                return verdict
        if conn.status & IPS_SEQ_ADJUST and conn.orig.l4proto == IPPROTO_TCP and not seq_adjust(pkt, conn, pkt.ctdir):
            pkt.drop_reason = DROP_MALFORMED
            return NF_DROP
        return NF_ACCEPT

    def _clash(self, pkt: Packet, loser: Conn, winner: Conn) -> cython.int:
        """Adopt the winner's entry if it has the same tuples, so that this packet is already rewritten by its mapping.

        Linux: __nf_ct_resolve_clash, and since 6.12 the reverse collision.
        """
        if winner.status & IPS_DYING:
            return NF_DROP
        if same_tuple(winner.orig, loser.orig) and same_tuple(winner.reply, loser.reply):
            pkt.ctinfo = CT_ESTABLISHED if winner.status & IPS_SEEN_REPLY else CT_NEW
        elif same_tuple(winner.orig, loser.reply) and same_tuple(winner.reply, loser.orig):
            pkt.ctdir = CT_DIR_REPLY
            pkt.ctinfo = CT_ESTABLISHED
            winner.status |= IPS_SEEN_REPLY
        else:
            return NF_DROP
        winner.packets[pkt.ctdir] += loser.packets[CT_DIR_ORIGINAL]
        winner.bytes[pkt.ctdir] += loser.bytes[CT_DIR_ORIGINAL]
        pkt.ct = winner
        self.table.stats.clash_resolve += 1
        return NF_ACCEPT
