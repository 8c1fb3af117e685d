"""What searches for a source port learnt where all ports seem to be taken, so that a flood does not learn it anew for each packet.

Behind one address there are 64,512 ports toward one destination. When a flood has used them up, each search makes all its 240
attempts in vain, each a lookup: five times the cost of a connection. Laws:
- A memory begins when a search has failed, and only then; it is of the tuple without its port: other destinations are not touched.
- A port is in it for MEMORY_NS at most, and only if it was looked up and cannot be taken over; searches try the same ports in
  the same order as without it, and leave out what is in it. So a port that becomes free is found a quarter of a second later at
  most, and a destination costs no more than all its ports' lookups in that time.
"""

import cython

if not cython.compiled:
    from userfw.conntrack.conn import Tuple, copy_tuple

    DESTINATIONS = 8
    MEMORY_NS = 250_000_000
    PORT_BYTES = 8192


class TakenPorts:
    """One destination's: `key` is the tuple that was wanted (its source port means nothing); good before `until`, clock ns."""

    def __init__(self) -> None:
        self.key = Tuple()
        self.until = 0
        self.bits = bytearray(PORT_BYTES)

    def seen(self, port: cython.int) -> cython.bint:
        """Whether the port was taken when a search looked."""
        bits: bytearray = self.bits
        return bits[(port >> 3) & (PORT_BYTES - 1)] >> (port & 7) & 1 != 0

    def mark(self, port: cython.int) -> cython.int:
        """It is taken; 0."""
        bits: bytearray = self.bits
        bits[(port >> 3) & (PORT_BYTES - 1)] |= 1 << (port & 7)
        return 0


class TakenMemory:
    """The memories of a few destinations; `until`: when the last of them ends."""

    def __init__(self) -> None:
        self.members = [TakenPorts() for _ in range(DESTINATIONS)]
        self.until = 0

    def find(self, wanted: Tuple, now: cython.ulonglong) -> TakenPorts | None:
        """What is known of the ports toward the destination of `wanted`, or None."""
        if now >= self.until:
            return None
        ports: TakenPorts
        i: cython.Py_ssize_t
        for i in range(DESTINATIONS):
            ports = self.members[i]
            if now < ports.until and _same_but_port(ports.key, wanted):
                return ports
        return None

    def begin(self, wanted: Tuple, now: cython.ulonglong) -> TakenPorts | None:
        """An empty memory for the destination of `wanted`; None if there are too many already."""
        ports: TakenPorts
        i: cython.Py_ssize_t
        for i in range(DESTINATIONS):
            ports = self.members[i]
            if now >= ports.until:
                copy_tuple(ports.key, wanted)
                ports.bits = bytearray(PORT_BYTES)
                ports.until = self.until = now + MEMORY_NS
                return ports
        return None


def _same_but_port(a: Tuple, b: Tuple) -> cython.bint:
    return (
        a.dst_lo == b.dst_lo
        and a.dport == b.dport
        and a.src_lo == b.src_lo
        and a.l4proto == b.l4proto
        and a.l3num == b.l3num
        and a.zone == b.zone
        and a.dst_hi == b.dst_hi
        and a.src_hi == b.src_hi
    )
