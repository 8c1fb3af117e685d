"""Choosing a mapping for a new connection (Linux: nf_nat_core.c, nf_nat_masquerade.c, nf_nat_redirect.c of 6.18).

Laws:
- One mapping per connection and manipulation, chosen before the connection is confirmed and never changed; it lives in the
  reply tuple.
- The reply tuple is unique among all connections when chosen: the port is kept if that suffices, else another is searched in
  the same class (below 512, 600 to 1023, from 1024) or in the range given, in bounded attempts.
- A client's address and port that are mapped already keep their mapping, if it falls into the range.
- Which address of a range is taken follows from a hash of source and destination (source only if persistent), the kernel's own
  hash.
- No usable address: the packet is dropped (DROP_NAT_FAILED).
"""

from collections.abc import Iterator
from random import Random
from typing import Any

import cython

if not cython.compiled:
    from userfw.conntrack.ahead import ConnAhead
    from userfw.conntrack.conn import U32_MASK, Conn, Tuple, TupleNode, copy_tuple, same_tuple
    from userfw.conntrack.const import TCP_TIME_WAIT
    from userfw.conntrack.table import ConnTable
    from userfw.conntrack.tuples import invert
    from userfw.core.const import (
        CT_DIR_ORIGINAL,
        IPPROTO_GRE,
        IPPROTO_ICMP,
        IPPROTO_ICMPV6,
        IPPROTO_SCTP,
        IPPROTO_TCP,
        IPPROTO_UDP,
        IPPROTO_UDPLITE,
        IPS_CONFIRMED,
        IPS_DST_NAT,
        IPS_DST_NAT_DONE,
        IPS_DYING,
        IPS_FIXED_TIMEOUT,
        IPS_HW_OFFLOAD,
        IPS_OFFLOAD,
        IPS_SEQ_ADJUST,
        IPS_SRC_NAT,
        IPS_SRC_NAT_DONE,
        NAT_MANIP_DST,
        NAT_MANIP_SRC,
        NAT_RANGE_MAP_IPS,
        NAT_RANGE_NETMAP,
        NAT_RANGE_PERSISTENT,
        NAT_RANGE_PROTO_OFFSET,
        NAT_RANGE_PROTO_SPECIFIED,
        NF_ACCEPT,
        NF_DROP,
        NF_INET_LOCAL_OUT,
        NFPROTO_IPV4,
    )
    from userfw.core.drop import DROP_NAT_FAILED
    from userfw.core.packet import Address, Device, Packet
    from userfw.nat.source import SourceIndex
    from userfw.nat.taken import TakenMemory, TakenPorts

    MAX_ATTEMPTS, HARDER_BELOW, RANDOM_ALL = 128, 32, 20
    PORTS_AHEAD = 16


class NatRange:
    """Where a mapping may lead: `flags` NAT_RANGE_*; addresses with MAP_IPS (and NETMAP: a prefix, min its first, max its last
    address);
    ports, ICMP ids or GRE keys with PROTO_SPECIFIED; `base_port` with PROTO_OFFSET."""

    def __init__(self, flags: int = 0) -> None:
        self.flags = flags
        self.min_hi = self.min_lo = self.max_hi = self.max_lo = 0
        self.min_port = self.max_port = self.base_port = 0


class AddressChoice:
    """Which address masquerade and redirect use; `hi`, `lo` hold the answer."""

    def __init__(self) -> None:
        self.hi = self.lo = 0

    def masquerade(self, pkt: Packet, device: Device) -> cython.bint:
        """The source address for packets to `pkt`'s next hop through `device` (Linux: inet_select_addr, ipv6_dev_get_saddr)."""
        a: Address
        first: Address | None = None
        shift: cython.int
        target: cython.ulonglong
        best: cython.int = -1
        score: cython.int
        if pkt.nfproto == NFPROTO_IPV4:
            via: Any = getattr(pkt.route, "via_lo", 0) if pkt.route is not None else 0
            target = via
            if target == 0 or target >> 32:
                target = pkt.get32(pkt.l3 + 16)
            for a in device.addresses:
                if a.family != NFPROTO_IPV4 or a.secondary or a.scope > 253:
                    continue
                shift = 32 - a.prefixlen
                if a.lo >> shift == target >> shift:
                    first = a
                    break
                if first is None and a.scope == 0:
                    first = a
        else:
            for a in device.addresses:
                if a.family == NFPROTO_IPV4:
                    continue
                score = _score_ipv6(a, pkt.get64(pkt.l3 + 24), pkt.get64(pkt.l3 + 32))
                if score > best:
                    best = score
                    first = a
        if first is None:
            return self.elsewhere(pkt)
        self.hi = first.hi
        self.lo = first.lo
        return True

    def elsewhere(self, pkt: Packet) -> cython.bint:
        """An address of another device for a packet whose own has none to give, as `lo`; False if nobody knows one."""
        return False

    def redirect(self, pkt: Packet, device: Device) -> cython.bint:
        """The primary address of the device that `pkt` came in by; IPv6: of the scope that the packet was sent to, if that
        is a narrow one, the address that came last (Linux: nf_nat_redirect_ipv6, ipv6_link_dev_addr)."""
        a: Address
        if pkt.nfproto == NFPROTO_IPV4:
            for a in device.addresses:
                if a.family == NFPROTO_IPV4:
                    self.hi = 0
                    self.lo = a.lo
                    return True
            return False
        wanted = _scope(pkt.get64(pkt.l3 + 24), pkt.get64(pkt.l3 + 32))
        last_first = list(device.addresses)
        last_first.reverse()
        for a in sorted(last_first, key=_by_scope):
            if a.family != NFPROTO_IPV4 and (not wanted or _scope(a.hi, a.lo) == wanted):
                self.hi = a.hi
                self.lo = a.lo
                return True
        return False


def _scope(hi: int, lo: int) -> int:
    """The narrow scope of an address: 1 interface, 2 link, 5 site; 0 for anything wider (Linux: ipv6_addr_scope's bits)."""
    if hi >> 56 == 0xFF:
        nibble = (hi >> 48) & 15
        return nibble if nibble in (1, 2, 5) else 0
    if hi >> 54 == 0x3FA:
        return 2
    if hi >> 54 == 0x3FB:
        return 5
    return 1 if hi == 0 and lo == 1 else 0


def _by_scope(a: Address) -> int:
    """Wide scopes first, as Linux lists a device's addresses."""
    return _scope(a.hi, a.lo) != 0


def _link_local(hi: int) -> bool:
    return (hi >> 54) in (0x3FA, 0x3FC) and (hi >> 54 != 0x3FC or (hi >> 48) & 15 == 2)


def _score_ipv6(a: Address, hi: int, lo: int) -> int:
    """RFC 6724 section 5 as far as one device's addresses differ: same address, scope, not deprecated, longest common prefix."""
    if a.hi == hi and a.lo == lo:
        return 1 << 12
    common: int = 128 - (((int(a.hi) ^ hi) << 64) | (int(a.lo) ^ lo)).bit_length()
    return (
        (1 << 10 if _link_local(a.hi) == _link_local(hi) else 0)
        + (0 if a.deprecated else 1 << 9)
        + min(common, int(a.prefixlen))
    )


class Nat:
    """NAT of one connection table. `addresses`: an AddressChoice; `sources`: mappings by source."""

    def __init__(self, table: ConnTable, rng: Random | None = None) -> None:
        self.table = table
        self.rng = rng if rng is not None else table.rng
        self.ahead = ConnAhead(table)
        self.sources = SourceIndex(self.rng)
        table.observe(self.sources)
        self.taken = TakenMemory()
        self.addresses = AddressChoice()
        self.current = Tuple()
        self.wanted = Tuple()
        self.probe = Tuple()
        self.own = NatRange()

    # -- what rules call

    def setup(self, pkt: Packet, conn: Conn, within: NatRange, manip: cython.int) -> cython.int:
        """Choose the mapping of `conn` for NAT_MANIP_*, `within` a range (Linux: nf_nat_setup_info)."""
        done: cython.uint = IPS_SRC_NAT_DONE if manip == NAT_MANIP_SRC else IPS_DST_NAT_DONE
        if conn.status & IPS_CONFIRMED:
            return NF_ACCEPT
        if conn.status & done:
            pkt.drop_reason = DROP_NAT_FAILED
            return NF_DROP
        # what packets of the original direction look like after what was decided before
        if not invert(conn.reply, self.current):
            pkt.drop_reason = DROP_NAT_FAILED
            return NF_DROP
        self.current.zone = conn.reply.zone
        if within.flags & NAT_RANGE_NETMAP:
            self._netmap(pkt, within, manip)
            within = self.own
        copy_tuple(self.wanted, self.current)
        self._choose(within, conn, manip)
        if not same_tuple(self.wanted, self.current):
            invert(self.wanted, conn.reply)
            if manip == NAT_MANIP_SRC:
                conn.status |= IPS_SRC_NAT
            else:
                conn.status |= IPS_DST_NAT
        conn.status |= done
        return NF_ACCEPT

    def null_binding(self, pkt: Packet, conn: Conn, manip: cython.int) -> cython.int:
        """No rule wanted a mapping: keep addresses, and ports unless another connection has that tuple (Linux:
        nf_nat_alloc_null_binding)."""
        if manip == NAT_MANIP_DST:
            # a destination port is never changed without being told to
            conn.status |= IPS_DST_NAT_DONE
            return NF_ACCEPT
        away: cython.bint = (
            self.table.steering is not None and not self.table.steering.ours(conn.reply) and conn.master is None
        )
        if conn.status & IPS_CONFIRMED or not (away or self.table.taken(conn.reply, conn)):
            conn.status |= IPS_SRC_NAT_DONE
            return NF_ACCEPT
        self.own.flags = NAT_RANGE_MAP_IPS
        self.own.min_hi = self.own.max_hi = conn.reply.dst_hi
        self.own.min_lo = self.own.max_lo = conn.reply.dst_lo
        return self.setup(pkt, conn, self.own, manip)

    def masquerade(self, pkt: Packet, conn: Conn, within: NatRange) -> cython.int:
        """Source NAT to the address of the output device, whose index the connection remembers (Linux:
        nf_nat_masquerade_ipv4)."""
        if conn.orig.src_lo == 0 and pkt.nfproto == NFPROTO_IPV4:
            return NF_ACCEPT
        device: Device | None = pkt.oif
        if device is None or not self.addresses.masquerade(pkt, device):
            pkt.drop_reason = DROP_NAT_FAILED
            return NF_DROP
        if not conn.status & IPS_CONFIRMED:
            conn.masq_index = device.index
        return self._with_address(pkt, conn, within, NAT_MANIP_SRC)

    def redirect(self, pkt: Packet, conn: Conn, within: NatRange, hook: cython.int) -> cython.int:
        """Destination NAT to this machine (Linux: nf_nat_redirect_ipv4)."""
        device: Device | None = pkt.iif
        if hook == NF_INET_LOCAL_OUT:
            self.addresses.hi = 0
            self.addresses.lo = 0x7F000001 if pkt.nfproto == NFPROTO_IPV4 else 1
        elif device is None or not self.addresses.redirect(pkt, device):
            pkt.drop_reason = DROP_NAT_FAILED
            return NF_DROP
        return self._with_address(pkt, conn, within, NAT_MANIP_DST)

    def _with_address(self, pkt: Packet, conn: Conn, within: NatRange, manip: cython.int) -> cython.int:
        own: NatRange = self.own
        own.flags = within.flags | NAT_RANGE_MAP_IPS
        own.min_hi = own.max_hi = self.addresses.hi
        own.min_lo = own.max_lo = self.addresses.lo
        own.min_port = within.min_port
        own.max_port = within.max_port
        own.base_port = within.base_port
        return self.setup(pkt, conn, own, manip)

    def forgetting(self, index: int, address: Address | None = None) -> Iterator[int]:
        """Destroy the connections masqueraded to the device `index`, which is gone or down, or has lost `address` only.

        A slice of the table at a time (Linux: masq_device_event, masq_inet_event).
        """
        mask: int = 1023
        for base in range(mask + 1):
            gone = 0
            for conn in self.table.members(base, mask):
                if conn.masq_index == index and (
                    address is None or (conn.reply.dst_lo == address.lo and conn.reply.dst_hi == address.hi)
                ):
                    self.table.destroy(conn)
                    gone += 1
            yield gone

    def forget_device(self, index: int, address: Address | None = None) -> int:
        """The same at once; how many there were."""
        return sum(self.forgetting(index, address))

    # -- choosing

    def _netmap(self, pkt: Packet, within: NatRange, manip: cython.int) -> cython.int:
        """Prefix to prefix: the host part stays, of the address that the packet has now (Linux: nft_nat_setup_netmap)."""
        own: NatRange = self.own
        source: cython.bint = manip == NAT_MANIP_SRC
        at: cython.Py_ssize_t
        hi: cython.ulonglong = 0
        lo: cython.ulonglong
        if pkt.nfproto == NFPROTO_IPV4:
            lo = pkt.get32(pkt.l3 + (12 if source else 16))
        else:
            at = pkt.l3 + (8 if source else 24)
            hi = pkt.get64(at)
            lo = pkt.get64(at + 8)
        own.flags = (within.flags | NAT_RANGE_MAP_IPS) & ~NAT_RANGE_NETMAP
        own.min_port = within.min_port
        own.max_port = within.max_port
        own.base_port = within.base_port
        own.min_hi = own.max_hi = (hi & (within.min_hi ^ within.max_hi)) | (within.min_hi & within.max_hi)
        own.min_lo = own.max_lo = (lo & (within.min_lo ^ within.max_lo)) | (within.min_lo & within.max_lo)
        return 0

    def _used(self, wanted: Tuple, conn: Conn) -> cython.bint:
        """Whether the answers to `wanted` would belong to another connection."""
        invert(wanted, self.probe)
        self.probe.zone = conn.reply.zone
        if self.table.steering is not None and not self.table.steering.ours(self.probe) and conn.master is None:
            return True  # its answers would go to another worker, who alone knows whether they are free
        return self.table.taken(self.probe, conn)

    def _reverse(self, conn: Conn) -> cython.bint:
        """Who has the tuple is the very other direction, only in another zone, and neither is mapped: the tuple is kept, and the
        table says whether both may be (Linux: nf_nat_used_tuple_new)."""
        if conn.orig.l4proto not in (IPPROTO_UDP, IPPROTO_UDPLITE) or conn.status & (IPS_SRC_NAT | IPS_DST_NAT | IPS_SEQ_ADJUST):
            return False
        invert(self.current, self.probe)
        self.probe.zone = conn.reply.zone
        node: TupleNode | None = self.table.find(self.probe)
        if node is None or node.conn.status & (IPS_SRC_NAT | IPS_DST_NAT | IPS_SEQ_ADJUST):
            return False
        ours: Tuple = conn.orig
        theirs: Tuple = node.conn.reply
        return (
            ours.src_lo == theirs.src_lo and ours.src_hi == theirs.src_hi and ours.dst_lo == theirs.dst_lo
            and ours.dst_hi == theirs.dst_hi and ours.sport == theirs.sport and ours.dport == theirs.dport
        )  # fmt: skip

    def _used_harder(self, conn: Conn, attempts_left: cython.int) -> cython.bint:
        """The same; when attempts run out, a mapped TCP connection that is over gives its port away to one whose sequence numbers
        are beyond its own, unless a device still forwards it (Linux: nf_nat_used_tuple_harder)."""
        if not self._used(self.wanted, conn):
            return False
        if attempts_left > HARDER_BELOW or self.wanted.l4proto != IPPROTO_TCP:
            return True
        node: TupleNode | None = self.table.find(self.probe)
        if node is None:
            return self.table.steering is not None and not self.table.steering.ours(self.probe)
        over: Conn = node.conn
        if node.dir == CT_DIR_ORIGINAL or over.state < TCP_TIME_WAIT:
            return True
        if not over.status & IPS_SRC_NAT or over.status & (IPS_FIXED_TIMEOUT | IPS_DYING):
            return True
        beyond: cython.uint = (conn.td_end[0] - over.td_end[0]) & U32_MASK
        if beyond == 0 or beyond >> 31:
            return True
        self.table.destroy(over)
        return over.status & (IPS_OFFLOAD | IPS_HW_OFFLOAD) != 0

    def _lasting(self, conn: Conn) -> cython.bint:
        """Whether who has the tuple that `_used_harder` looked for keeps it, as far as `_used_harder` is concerned."""
        node: TupleNode | None = self.table._walk(self.probe)
        return node is not None and not (self.wanted.l4proto == IPPROTO_TCP and node.conn.state >= TCP_TIME_WAIT)

    def _reuse(self, within: NatRange, conn: Conn) -> cython.bint:
        """Another connection of this client's address and port has a mapping in the range: the same (Linux:
        find_appropriate_src)."""
        other: Conn | None = self.sources.first(conn.orig)
        while other is not None:
            invert(other.reply, self.wanted)
            # its source, our destination
            self.wanted.dst_hi = self.current.dst_hi
            self.wanted.dst_lo = self.current.dst_lo
            self.wanted.dport = self.current.dport
            self.wanted.zone = self.current.zone
            if other is not conn and _in_range(self.wanted, within):
                return True
            other = self.sources.after(other, conn.orig)
        copy_tuple(self.wanted, self.current)
        return False

    def _choose(self, within: NatRange, conn: Conn, manip: cython.int) -> cython.int:
        """Fill `wanted` (Linux: get_unique_tuple)."""
        flags: cython.int = within.flags
        if manip == NAT_MANIP_SRC and not flags & RANDOM_ALL:
            if _in_range(self.current, within):
                if not self._used(self.current, conn) or self._reverse(conn):
                    return 0
            elif self.sources.count and self._reuse(within, conn) and not self._used(self.wanted, conn):
                return 0
        copy_tuple(self.wanted, self.current)
        self._best_address(within, conn, manip)
        if not flags & RANDOM_ALL:
            if flags & NAT_RANGE_PROTO_SPECIFIED:
                if (
                    not flags & NAT_RANGE_PROTO_OFFSET
                    and _port_in_range(self.wanted, manip, within.min_port, within.max_port)
                    and (within.min_port == within.max_port or not self._used(self.wanted, conn))
                ):
                    return 0
            elif not self._used(self.wanted, conn):
                return 0
        return self._unique_port(within, conn, manip)

    def _best_address(self, within: NatRange, conn: Conn, manip: cython.int) -> cython.int:
        """An address of the range, the same for the same source and destination (Linux: find_best_ips_proto)."""
        if not within.flags & NAT_RANGE_MAP_IPS:
            return 0
        t: Tuple = self.wanted
        hi: cython.ulonglong = within.min_hi
        lo: cython.ulonglong = within.min_lo
        if within.min_hi != within.max_hi or within.min_lo != within.max_lo:
            ipv4: cython.bint = t.l3num == NFPROTO_IPV4
            last: cython.int = 0 if ipv4 else 3
            persistent: cython.bint = within.flags & NAT_RANGE_PERSISTENT != 0
            seed: cython.uint = 0
            if not persistent:
                seed = _swap32(_word(t.dst_hi, t.dst_lo, last, ipv4)) ^ conn.zone
            j: cython.ulonglong = jhash_address(
                _swap32(_word(t.src_hi, t.src_lo, 0, ipv4)),
                0 if ipv4 else _swap32(_word(t.src_hi, t.src_lo, 1, ipv4)),
                0 if ipv4 else _swap32(_word(t.src_hi, t.src_lo, 2, ipv4)),
                0 if ipv4 else _swap32(_word(t.src_hi, t.src_lo, 3, ipv4)),
                seed,
            )
            full: cython.bint = False
            i: cython.int
            least: cython.ulonglong
            distance: cython.ulonglong
            word: cython.ulonglong
            hi = lo = 0
            for i in range(last + 1):
                least = 0
                distance = U32_MASK
                if not full:
                    least = _word(within.min_hi, within.min_lo, i, ipv4)
                    distance = (_word(within.max_hi, within.max_lo, i, ipv4) - least + 1) & U32_MASK
                word = least + ((j * distance) >> 32)
                word &= U32_MASK
                if word != _word(within.max_hi, within.max_lo, i, ipv4):
                    full = True
                if not persistent:
                    # Linux writes the new address into the tuple as it goes
                    j ^= _swap32(_word(t.dst_hi, t.dst_lo, i, ipv4) if manip == NAT_MANIP_SRC else word)
                if ipv4:
                    lo = word
                elif i < 2:
                    hi |= word << (32 - 32 * i)
                else:
                    lo |= word << (96 - 32 * i)
        if manip == NAT_MANIP_SRC:
            t.src_hi = hi
            t.src_lo = lo
        else:
            t.dst_hi = hi
            t.dst_lo = lo
        return 0

    def _unique_port(self, within: NatRange, conn: Conn, manip: cython.int) -> cython.int:
        """Search a free port, id or key (Linux: nf_nat_l4proto_unique_tuple)."""
        t: Tuple = self.wanted
        proto: cython.int = t.l4proto
        flags: cython.int = within.flags
        source_key: cython.bint = manip == NAT_MANIP_SRC
        least: cython.int
        size: cython.int
        key: cython.int
        if proto in (IPPROTO_ICMP, IPPROTO_ICMPV6):
            source_key = True
            least = 0
            size = 65536
        elif proto == IPPROTO_GRE:
            if conn.master is None:
                return 0  # only PPTP's call ids are ports
            least = 1
            size = 65535
        elif proto in (IPPROTO_TCP, IPPROTO_UDP, IPPROTO_UDPLITE, IPPROTO_SCTP):
            if not flags & NAT_RANGE_PROTO_SPECIFIED:
                if manip == NAT_MANIP_DST:
                    return 0
                key = t.sport
                if key < 512:
                    least = 1
                    size = 511
                elif key < 1024:
                    least = 600
                    size = 424
                else:
                    least = 1024
                    size = 64512
            else:
                least = size = 0
        else:
            return 0
        if flags & NAT_RANGE_PROTO_SPECIFIED:
            least = within.min_port if within.min_port < within.max_port else within.max_port
            size = within.max_port - within.min_port
            size = (size if size >= 0 else -size) + 1
        randomised: cython.bint = False
        off: cython.int = 0
        if flags & NAT_RANGE_PROTO_OFFSET:
            key = t.sport if source_key else t.dport
            off = (key - within.base_port) & 0xFFFF
        elif flags & RANDOM_ALL or manip != NAT_MANIP_DST:
            randomised = True
        return self._search(conn, source_key, least, size, off, randomised)

    def _search(
        self,
        conn: Conn,
        source_key: cython.bint,
        least: cython.int,
        size: cython.int,
        off: cython.int,
        randomised: cython.bint,
    ) -> cython.int:
        """Up to 128 attempts from a first offset, then half as many from another, until free or fewer than 16."""
        t: Tuple = self.wanted
        known: TakenPorts | None = self.taken.find(t, self.table.clock.now) if source_key else None
        port: cython.int
        attempts: cython.int = size if size < MAX_ATTEMPTS else MAX_ATTEMPTS
        i: cython.int
        if randomised:
            off = self.rng.getrandbits(16)
        while True:
            for i in range(attempts):
                if known is None and i % PORTS_AHEAD == 1 and self.ahead.useful():
                    self.probe.zone = conn.reply.zone
                    self.ahead.look_for_ports(t, self.probe, source_key, least, size, off + i, min(PORTS_AHEAD, attempts - i))
                port = (least + (off + i) % size) & 0xFFFF
                if source_key:
                    t.sport = port
                else:
                    t.dport = port
                if known is not None and known.seen(port):
                    continue
                if not self._used_harder(conn, attempts - i):
                    return 0
                if known is not None and self._lasting(conn):
                    known.mark(port)
            if attempts >= size:
                return 0
            if attempts < 16:
                if source_key and known is None:
                    self.taken.begin(t, self.table.clock.now)
                return 0
            attempts //= 2
            off = self.rng.getrandbits(16)


def _word(hi: cython.ulonglong, lo: cython.ulonglong, index: cython.int, ipv4: cython.bint) -> cython.uint:
    """32-bit word `index` of an address, host order; an IPv4 address is one word."""
    if ipv4 or index == 3:
        return lo & U32_MASK
    if index == 2:
        return lo >> 32
    return (hi & U32_MASK) if index == 1 else (hi >> 32)


def _swap32(word: cython.uint) -> cython.uint:
    """As a little-endian kernel sees a word of network order."""
    return (
        ((word & 0xFF) << 24) | ((word & 0xFF00) << 8) | ((word >> 8) & 0xFF00) | (word >> 24)
    )


def _rol(word: cython.uint, bits: cython.int) -> cython.uint:
    return ((word << bits) & U32_MASK) | (word >> (32 - bits))


def jhash_address(
    w0: cython.uint, w1: cython.uint, w2: cython.uint, w3: cython.uint, initval: cython.uint
) -> cython.uint:
    """Bob Jenkins' lookup3 hash of four words, as Linux's jhash2, so that a range gives the same address as the kernel's NAT."""
    base: cython.uint = 0x5EADBEFF  # 0xdeadbeef + (4 << 2), less 2**31: the constant fits a C long
    base = (base + 0x40000000 + 0x40000000 + initval) & U32_MASK
    a: cython.uint = (base + w0) & U32_MASK
    b: cython.uint = (base + w1) & U32_MASK
    c: cython.uint = (base + w2) & U32_MASK
    a = ((a - c) & U32_MASK) ^ _rol(c, 4)
    c = (c + b) & U32_MASK
    b = ((b - a) & U32_MASK) ^ _rol(a, 6)
    a = (a + c) & U32_MASK
    c = ((c - b) & U32_MASK) ^ _rol(b, 8)
    b = (b + a) & U32_MASK
    a = ((a - c) & U32_MASK) ^ _rol(c, 16)
    c = (c + b) & U32_MASK
    b = ((b - a) & U32_MASK) ^ _rol(a, 19)
    a = (a + c) & U32_MASK
    c = ((c - b) & U32_MASK) ^ _rol(b, 4)
    b = (b + a) & U32_MASK
    a = (a + w3) & U32_MASK
    c = ((c ^ b) - _rol(b, 14)) & U32_MASK
    a = ((a ^ c) - _rol(c, 11)) & U32_MASK
    b = ((b ^ a) - _rol(a, 25)) & U32_MASK
    c = ((c ^ b) - _rol(b, 16)) & U32_MASK
    a = ((a ^ c) - _rol(c, 4)) & U32_MASK
    b = ((b ^ a) - _rol(a, 14)) & U32_MASK
    return ((c ^ b) - _rol(b, 24)) & U32_MASK


def _address_in_range(hi: cython.ulonglong, lo: cython.ulonglong, within: NatRange) -> cython.bint:
    if hi < within.min_hi or hi > within.max_hi:
        return False
    if hi == within.min_hi and lo < within.min_lo:
        return False
    return not (hi == within.max_hi and lo > within.max_lo)


def _port_in_range(t: Tuple, manip: cython.int, least: cython.int, most: cython.int) -> cython.bint:
    """Linux: l4proto_in_range. Protocols without ports are always in range."""
    if t.l4proto == IPPROTO_ICMP or t.l4proto == IPPROTO_ICMPV6:
        return least <= t.sport <= most
    if t.l4proto in (IPPROTO_TCP, IPPROTO_UDP, IPPROTO_UDPLITE, IPPROTO_SCTP, IPPROTO_GRE):
        if manip == NAT_MANIP_SRC:
            return least <= t.sport <= most
        return least <= t.dport <= most
    return True


def _in_range(t: Tuple, within: NatRange) -> cython.bint:
    """Whether a source mapping to `t` is what `range` asks for (Linux: nf_in_range)."""
    if within.flags & NAT_RANGE_MAP_IPS and not _address_in_range(t.src_hi, t.src_lo, within):
        return False
    if not within.flags & NAT_RANGE_PROTO_SPECIFIED:
        return True
    return _port_in_range(t, NAT_MANIP_SRC, within.min_port, within.max_port)
