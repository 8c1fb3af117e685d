"""Which of several workers a flow belongs to: its home, computed from its ports alone.

    home = (g(source port) + g(destination port)) mod workers      TCP and UDP; anything else: worker 0

Laws:
- The same for both directions, and with no shared state: each worker computes it, and so does the eBPF program of `ports.steering`.
- Addresses do not count, so NAT that keeps the ports keeps the home. A source mapping must have a port of the same class
  (`g` equal mod workers), which then holds toward every destination.
- Both tuples of a connection have their home at the worker that owns it, so two workers never hand out the same reply tuple.
  What cannot be brought home (a helper's data connection, a fixed port) has strayed: `strayed` tells whoever must know.
- ICMP errors belong where the packet they quote belongs; fragments to worker 0 until they are whole.
"""

import cython

if not cython.compiled:
    from userfw.conntrack.conn import Conn, Tuple
    from userfw.conntrack.tuples import inner_l4, inner_proto
    from userfw.core.const import IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP, NFPROTO_IPV4, NFPROTO_IPV6
    from userfw.core.packet import Packet

    STEER_FACTOR = 0x9E3779B1  # 2**32 divided by the golden ratio; odd, so that neighbouring ports spread

FACTOR = 0x9E3779B1


class Steering:
    """Worker `index` of `count`. The daemon's subclass tells other workers of what strays."""

    def __init__(self, index: int, count: int) -> None:
        if not 0 <= index < count:
            raise ValueError("no such worker")
        self.index = index
        self.count = count

    def home(self, l4proto: cython.int, sport: cython.uint, dport: cython.uint) -> cython.int:
        """The worker of packets between two ports."""
        total: cython.uint
        worker: cython.int
        if l4proto != IPPROTO_TCP and l4proto != IPPROTO_UDP:
            return 0
        if not cython.compiled:
            return int(((sport * STEER_FACTOR % 2**32 >> 16) + (dport * STEER_FACTOR % 2**32 >> 16)) % self.count)
        total = ((sport * STEER_FACTOR) >> 16) + ((dport * STEER_FACTOR) >> 16)
        worker = cython.cast(cython.int, total % cython.cast(cython.uint, self.count))
        return worker

    def ours(self, key: Tuple) -> cython.bint:
        """Whether packets of `key` have their home here."""
        home: cython.int = self.home(key.l4proto, key.sport, key.dport)
        return home == self.index

    def of_packet(self, pkt: Packet) -> cython.int:
        """The worker of a parsed packet."""
        kind: cython.uint
        proto: cython.int = pkt.l4proto
        l4: cython.Py_ssize_t = pkt.l4
        if not pkt.has_l4 or pkt.is_fragment or l4 + 8 > pkt.end:
            return 0
        if proto in (IPPROTO_TCP, IPPROTO_UDP):
            return self.home(proto, pkt.get16(l4), pkt.get16(l4 + 2))
        kind = pkt.get8(l4)
        if proto == IPPROTO_ICMP and pkt.nfproto == NFPROTO_IPV4:
            if kind != 3 and kind != 4 and kind != 5 and kind != 11 and kind != 12:
                return 0
        elif proto != IPPROTO_ICMPV6 or pkt.nfproto != NFPROTO_IPV6 or kind >= 128:
            return 0
        l4 = inner_l4(pkt, pkt.nfproto, pkt.l4 + 8)
        if l4 < 0 or l4 + 4 > pkt.end:
            return 0
        return self.home(inner_proto(pkt, pkt.nfproto, pkt.l4 + 8), pkt.get16(l4), pkt.get16(l4 + 2))

    def strayed(self, conn: Conn) -> cython.int:
        """A connection was confirmed here of which one tuple has its home elsewhere."""
        return 0
