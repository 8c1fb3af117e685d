"""Coalescing: consecutive segments of one flow in a received batch become one large send (Linux: dev_gro_receive, tcp_gro_receive).

What follows (lookup, hooks, rewriting, one write) is then done once for the chain instead of once for each segment.

Laws:
- The chain's segments, cut again (`wire.gso.segment`), are byte for byte the frames that came in. So this merges less than
  Linux, which lets differing windows and repeated IPv4 identifications go: same MACs, addresses, ports, TTL, TOS, flow label, flags
  but PSH, acknowledgement, window and options; the next sequence number; the next identification; every checksum verified.
- Nothing overtakes anything of its own flow: a segment that does not fit closes its flow's chain, and a packet that
  is not understood here (fragments, options, tags, extension headers) closes all of them.
- A chain ends as in Linux: with a short segment, PSH, 64 KB, or 64 datagrams of UDP. A batch leaves no state behind.
"""

import cython

if not cython.compiled:
    from userfw.core.const import (
        ARPHRD_ETHER,
        ETH_P_IP,
        ETH_P_IPV6,
        HEADROOM,
        IPPROTO_TCP,
        IPPROTO_UDP,
        MAX_FRAME,
        NFPROTO_IPV4,
        NFPROTO_IPV6,
        TCP_ACK,
        TCP_ECE,
        TCP_PSH,
        U32_MASK,
        VNET_F_NEEDS_CSUM,
        VNET_GSO_NONE,
        VNET_GSO_TCPV4,
        VNET_GSO_TCPV6,
        VNET_GSO_UDP_L4,
    )
    from userfw.core.packet import Device, Packet
    from userfw.wire._raw import add_words, copy
    from userfw.wire.checksum import add_bytes, fold, pseudo_sum, write_ipv4
    from userfw.wire.gso import MIN_TCP_SEGMENT

    MAX_FLOWS = 8  # Linux: MAX_GRO_SKBS
    MAX_UDP_MERGED = 64  # Linux: UDP_GRO_CNT_MAX
    MAX_NETWORK = 65535


class Coalescer:
    """Chains of one batch. `merged`: segments that went into another; `chains`: how many took any in.

    An open chain `i` is `heads[i]` with its `ports`, the next sequence number `expected`, how many segments it holds (`count`),
    the bytes from `start` to the payload (`header`), the payload of a segment (`size`), and whether its head's checksums were
    verified (`trusted`).
    """

    def __init__(self) -> None:
        self.heads: list[Packet] = []
        self.open = 0
        self.transport = 0
        self.merged = 0
        self.chains = 0
        if not cython.compiled:
            self.ports = [0] * MAX_FLOWS
            self.expected = [0] * MAX_FLOWS
            self.count = [0] * MAX_FLOWS
            self.header = [0] * MAX_FLOWS
            self.size = [0] * MAX_FLOWS
            self.trusted = [False] * MAX_FLOWS

    def run(self, packets: list, n: cython.int, udp: cython.bint) -> cython.int:  # type: ignore[type-arg]
        """Merge within `packets[:n]`, freshly received on one device; how many packets are left, in order, at the front.

        The merged ones' Packets go behind them, for reuse. `udp`: datagrams too (Linux: rx-udp-gro-forwarding).
        """
        kept: cython.int = 0
        i: cython.int
        pkt: Packet
        for i in range(n):
            pkt = packets[i]
            if self._offer(pkt, udp):
                continue
            if kept != i:
                packets[i] = packets[kept]
                packets[kept] = pkt
            kept += 1
        while self.open:
            self._close(self.open - 1)
        return kept

    def _offer(self, pkt: Packet, udp: cython.bint) -> cython.int:
        """1 if the packet went into a chain."""
        if not _classify(pkt):
            while self.open:
                self._close(self.open - 1)
            return 0
        flow: cython.int = self._flow(pkt)
        if flow >= 0:
            if self._follows(flow, pkt):
                return self._merge(flow, pkt)
            self._close(flow)
        if self._opens(pkt, udp):
            self._open(pkt)
        return 0

    def _flow(self, pkt: Packet) -> cython.int:
        """The open chain of the packet's flow, or -1."""
        i: cython.int
        head: Packet
        ports: cython.uint = pkt.get32(pkt.l4)
        size: cython.Py_ssize_t = 8 if pkt.nfproto == NFPROTO_IPV4 else 32
        for i in range(self.open):
            if self.ports[i] != ports:
                continue
            head = self.heads[i]
            if head.nfproto == pkt.nfproto and head.l4proto == pkt.l4proto:
                if _same(head, pkt, 12 if size == 8 else 8, size):
                    return i
        return -1

    def _opens(self, pkt: Packet, udp: cython.bint) -> cython.bint:
        """Whether segments may be merged into this one."""
        flags: cython.uint
        header: cython.Py_ssize_t
        if pkt.gso_type != VNET_GSO_NONE:
            return False
        if pkt.l4proto == IPPROTO_UDP:
            return udp and pkt.get16(pkt.l4 + 4) == pkt.end - pkt.l4 and pkt.end > pkt.l4 + 8 and pkt.get16(pkt.l4 + 6) != 0
        if pkt.end < pkt.l4 + 20:
            return False
        flags = pkt.get8(pkt.l4 + 13)
        header = (pkt.get8(pkt.l4 + 12) >> 4) * 4
        if flags & ~TCP_ECE != TCP_ACK or pkt.get8(pkt.l4 + 12) & 15 or header < 20 or pkt.get16(pkt.l4 + 18):
            return False
        return pkt.end - pkt.l4 - header >= MIN_TCP_SEGMENT

    def _open(self, pkt: Packet) -> cython.int:
        i: cython.int
        sequence: cython.ulonglong
        header: cython.int = 8
        if self.open == MAX_FLOWS:
            self._close(0)
        i = self.open
        if pkt.l4proto == IPPROTO_TCP:
            header = (pkt.get8(pkt.l4 + 12) >> 4) * 4
        self.header[i] = cython.cast(cython.int, pkt.l4 - pkt.start) + header
        self.size[i] = cython.cast(cython.int, pkt.end - pkt.start) - self.header[i]
        sequence = pkt.get32(pkt.l4 + 4)
        self.expected[i] = (sequence + self.size[i]) & U32_MASK
        self.ports[i] = pkt.get32(pkt.l4)
        self.count[i] = 1
        self.trusted[i] = False
        self.heads.append(pkt)
        self.open += 1
        return 0

    def _follows(self, flow: cython.int, pkt: Packet) -> cython.bint:
        """Whether `pkt` is the next segment of the chain."""
        head: Packet = self.heads[flow]
        l3: cython.Py_ssize_t = pkt.l3 - pkt.start
        l4: cython.Py_ssize_t = pkt.l4 - pkt.start
        payload: cython.Py_ssize_t = pkt.end - pkt.start - self.header[flow]
        if pkt.gso_type != VNET_GSO_NONE or payload <= 0 or payload > self.size[flow]:
            return False
        if head.end - head.l3 + payload > MAX_NETWORK or head.end + payload > HEADROOM + MAX_FRAME:
            return False
        if not _same(head, pkt, -l3, 12):
            return False
        if pkt.nfproto == NFPROTO_IPV4:
            if head.get16(head.l3) != pkt.get16(pkt.l3) or head.get16(head.l3 + 6) != pkt.get16(pkt.l3 + 6):
                return False
            if head.get8(head.l3 + 8) != pkt.get8(pkt.l3 + 8):
                return False
            if (head.get16(head.l3 + 4) + self.count[flow]) & 0xFFFF != pkt.get16(pkt.l3 + 4):
                return False
        elif head.get32(head.l3) != pkt.get32(pkt.l3) or head.get8(head.l3 + 7) != pkt.get8(pkt.l3 + 7):
            return False
        if pkt.l4proto == IPPROTO_UDP:
            if pkt.get16(pkt.l4 + 4) != pkt.end - pkt.l4 or pkt.get16(pkt.l4 + 6) == 0:
                return False
        else:
            if pkt.get32(pkt.l4 + 4) != self.expected[flow] or not _same(head, pkt, l4 - l3 + 8, 5):
                return False
            if (pkt.get8(pkt.l4 + 13) | TCP_PSH) != (head.get8(head.l4 + 13) | TCP_PSH):
                return False
            if not _same(head, pkt, l4 - l3 + 14, 2) or not _same(head, pkt, l4 - l3 + 18, self.header[flow] - l4 - 18):
                return False
        if not self.trusted[flow]:
            if not _verified(head):
                return False
            self.trusted[flow] = True
        return _verified(pkt)

    def _merge(self, flow: cython.int, pkt: Packet) -> cython.int:
        """Take the payload over; close the chain if it ends here. Always 1."""
        head: Packet = self.heads[flow]
        payload: cython.Py_ssize_t = pkt.end - pkt.start - self.header[flow]
        sequence: cython.ulonglong = self.expected[flow]
        device: Device | None = pkt.iif
        last: cython.bint = payload < self.size[flow]
        copy(head.data, head.end, pkt.data, pkt.start + self.header[flow], payload)
        head.end += payload
        self.expected[flow] = (sequence + payload) & U32_MASK
        self.count[flow] += 1
        self.merged += 1
        if device is not None:  # the device counts frames, whatever becomes of them here
            device.rx_packets += 1
            device.rx_bytes += self.header[flow]
        if pkt.l4proto == IPPROTO_UDP:
            last = last or self.count[flow] == MAX_UDP_MERGED
        elif pkt.get8(pkt.l4 + 13) & TCP_PSH:
            head.put8(head.l4 + 13, head.get8(head.l4 + 13) | TCP_PSH)
            last = True
        if last:
            self._close(flow)
        return 1

    def _close(self, flow: cython.int) -> cython.int:
        """Write lengths and checksums of a chain of more than one, and let go of it."""
        head: Packet = self.heads[flow]
        last: cython.int = self.open - 1
        field: cython.int = 16
        if self.count[flow] > 1:
            self.chains += 1
            head.gso_size = self.size[flow]
            if head.l4proto == IPPROTO_UDP:
                field = 6
                head.gso_type = VNET_GSO_UDP_L4
                head.put16(head.l4 + 4, cython.cast(cython.uint, head.end - head.l4))
            else:
                head.gso_type = VNET_GSO_TCPV4 if head.nfproto == NFPROTO_IPV4 else VNET_GSO_TCPV6
            if head.nfproto == NFPROTO_IPV4:
                head.put16(head.l3 + 2, cython.cast(cython.uint, head.end - head.l3))
                write_ipv4(head)
            else:
                head.put16(head.l3 + 4, cython.cast(cython.uint, head.end - head.l3 - 40))
            head.vnet_flags = VNET_F_NEEDS_CSUM
            head.csum_start = cython.cast(cython.int, head.l4 - head.start)
            head.csum_offset = field
            head.put16(head.l4 + field, fold(pseudo_sum(head, head.l4proto, head.end - head.l4)))
        if flow != last:
            self.heads[flow] = self.heads[last]
            self.ports[flow] = self.ports[last]
            self.expected[flow] = self.expected[last]
            self.count[flow] = self.count[last]
            self.header[flow] = self.header[last]
            self.size[flow] = self.size[last]
            self.trusted[flow] = self.trusted[last]
        self.heads.pop()
        self.open = last
        return 0


def _classify(pkt: Packet) -> cython.bint:
    """Whether this is plain TCP or UDP over Ethernet, neither cut nor padded; then l3, l4, nfproto and l4proto are set."""
    device: Device | None = pkt.iif
    l3: cython.Py_ssize_t = pkt.start + 14
    kind: cython.uint
    if device is None or device.type != ARPHRD_ETHER or pkt.end < l3 + 28:
        return False
    kind = pkt.get16(pkt.start + 12)
    if kind == ETH_P_IP:
        if pkt.get8(l3) != 0x45 or pkt.get16(l3 + 6) & 0xBFFF or pkt.get16(l3 + 2) != pkt.end - l3:
            return False
        pkt.nfproto = NFPROTO_IPV4
        pkt.l4 = l3 + 20
        pkt.l4proto = pkt.get8(l3 + 9)
    elif kind == ETH_P_IPV6:
        if pkt.end < l3 + 48 or pkt.get8(l3) >> 4 != 6 or pkt.get16(l3 + 4) != pkt.end - l3 - 40:
            return False
        pkt.nfproto = NFPROTO_IPV6
        pkt.l4 = l3 + 40
        pkt.l4proto = pkt.get8(l3 + 6)
    else:
        return False
    pkt.l3 = l3
    return pkt.l4proto == IPPROTO_TCP or pkt.l4proto == IPPROTO_UDP


def _verified(pkt: Packet) -> cython.bint:
    """Whether both checksums are right, and written as we would write them: there are two ways to say zero (RFC 1624, 3)."""
    field: cython.Py_ssize_t = 6 if pkt.l4proto == IPPROTO_UDP else 16
    written: cython.uint = pkt.get16(pkt.l4 + field)
    if pkt.nfproto == NFPROTO_IPV4:
        if fold(add_bytes(0, pkt.data, pkt.l3, 20)) != 0xFFFF or pkt.get16(pkt.l3 + 10) == 0xFFFF:
            return False
    total: cython.uint = pseudo_sum(pkt, pkt.l4proto, pkt.end - pkt.l4)
    if pkt.vnet_flags & VNET_F_NEEDS_CSUM:
        return pkt.csum_start == pkt.l4 - pkt.start and pkt.csum_offset == field and written == fold(total)
    if field == 16 and written == 0xFFFF:
        return False
    return fold(add_words(total, pkt.data, pkt.l4, pkt.end - pkt.l4)) == 0xFFFF


def _same(one: Packet, other: Packet, off: cython.Py_ssize_t, size: cython.Py_ssize_t) -> cython.bint:
    """Whether `size` bytes at `off` from the network headers are equal."""
    i: cython.Py_ssize_t = 0
    a: bytearray = one.data
    b: bytearray = other.data
    here: cython.Py_ssize_t = one.l3 + off
    there: cython.Py_ssize_t = other.l3 + off
    while i < size and a[here + i] == b[there + i]:
        i += 1
    return i == size
