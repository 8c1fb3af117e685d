"""Looking ahead in the connection table: the bucket, node, connection and other node of every packet of a batch.

Laws as in core.ahead. The tuple read here stays in `ConnTable.keys` with its hash; `Packet.ahead` says which, and whoever looks the
packet up (`ConnTable.find_ahead`) compares the whole tuple before believing the hash, as chains may have changed the packet.
"""

from typing import Any

import cython

if not cython.compiled:
    from userfw.conntrack.conn import Conn, Tuple, TupleNode
    from userfw.conntrack.table import SEGMENT, SEGMENT_SHIFT, ConnTable
    from userfw.conntrack.tuples import hash_tuple, invert, read_tuple
    from userfw.core.ahead import AHEAD, NOT_AHEAD, Lookahead, load, slot_of, some, touch
    from userfw.core.const import IPPROTO_TCP, IPS_DST_NAT, IPS_SRC_NAT, NFPROTO_IPV4, NFPROTO_IPV6
    from userfw.core.packet import Packet

    NODE_BYTES, CONN_BYTES, CONN_BYTES_TCP = 80, 128, 208


class ConnAhead(Lookahead):
    """Looks ahead in `table` when it holds `many` connections or more."""

    def __init__(self, table: ConnTable) -> None:
        self.table = table
        self.many = 4096  # fewer than this stay in the cache by themselves
        if not cython.compiled:
            self.at: list[Any] = []
            self.hashes: list[int] = []
            self.dirs: list[int] = []

    def useful(self) -> cython.bint:
        return cython.compiled and self.table.count >= self.many

    def look(self, packets: list[Packet], first: cython.Py_ssize_t, n: cython.Py_ssize_t) -> cython.int:
        """How many of the packets have a tuple."""
        if not cython.compiled:
            return 0
        i: cython.Py_ssize_t
        index: cython.Py_ssize_t
        found: cython.int = 0
        pkt: Packet
        key: Tuple
        segment: list[Any]
        n = n if n < AHEAD else AHEAD
        for i in range(n):
            self.at[i] = cython.NULL
            pkt = packets[first + i]
            if not pkt.has_l4 or pkt.ahead != NOT_AHEAD or (pkt.nfproto != NFPROTO_IPV4 and pkt.nfproto != NFPROTO_IPV6):
                continue
            key = self.table.keys[i]
            if not read_tuple(pkt, pkt.nfproto, pkt.l3, pkt.l4, pkt.l4proto, key):
                continue
            key.zone = 0
            key.hash = hash_tuple(key, self.table.k0, self.table.k1)
            self.hashes[i] = key.hash
            pkt.ahead = i
            found += 1
            index = self.table._index(key.hash)
            segment = self.table.directory[index >> SEGMENT_SHIFT]
            self.at[i] = slot_of(segment, index & (SEGMENT - 1))
        if found:
            self._nodes(n)
            self._conns(n)
        return found

    def look_for_ports(
        self, wanted: Tuple, probe: Tuple, source_key: cython.bint,
        least: cython.int, size: cython.int, off: cython.int, n: cython.int,
    ) -> cython.int:  # fmt: skip
        """What a search for a free port will compare: the answers to `wanted` with `n` ports from `off` on, of `size` from `least`.

        Overwrites the port of `wanted`, and `probe` but for its zone. Always 0.
        """
        if not cython.compiled:
            return 0
        i: cython.int
        port: cython.int
        index: cython.Py_ssize_t
        zone: cython.int = probe.zone
        segment: list[Any]
        n = n if n < AHEAD else AHEAD
        for i in range(n):
            port = (least + (off + i) % size) & 0xFFFF
            if source_key:
                wanted.sport = port
            else:
                wanted.dport = port
            invert(wanted, probe)
            probe.zone = zone
            self.hashes[i] = hash_tuple(probe, self.table.k0, self.table.k1)
            index = self.table._index(self.hashes[i])
            segment = self.table.directory[index >> SEGMENT_SHIFT]
            self.at[i] = slot_of(segment, index & (SEGMENT - 1))
        self._nodes(n)
        self._conns(n)
        return 0

    def _nodes(self, n: cython.Py_ssize_t) -> cython.int:
        """From the bucket to the node with the packet's hash, a step for all packets at a time."""
        i: cython.Py_ssize_t
        left: cython.int = 0
        step: cython.int = 0
        node: cython.p_void
        for i in range(n):
            if self.at[i] != cython.NULL:
                node = load(self.at[i])
                self.at[i] = node
                if node != cython.NULL:
                    touch(node, NODE_BYTES)
                    left += 1
        while left and step < 4:
            left = 0
            step += 1
            for i in range(n):
                node = self.at[i]
                if node != cython.NULL and cython.cast(TupleNode, node).hash != self.hashes[i]:
                    node = some(cython.cast(cython.p_void, cython.cast(TupleNode, node).next)) if step < 4 else cython.NULL
                    self.at[i] = node
                    if node != cython.NULL:
                        touch(node, NODE_BYTES)
                        left += 1
        return 0

    def _conns(self, n: cython.Py_ssize_t) -> cython.int:
        """From the nodes to the connections, and from those with a mapping to their other nodes, which NAT reads."""
        i: cython.Py_ssize_t
        size: cython.Py_ssize_t
        at: cython.p_void
        for i in range(n):
            if self.at[i] != cython.NULL:
                self.dirs[i] = cython.cast(TupleNode, self.at[i]).dir
                size = CONN_BYTES_TCP if cython.cast(TupleNode, self.at[i]).l4proto == IPPROTO_TCP else CONN_BYTES
                at = some(cython.cast(cython.p_void, cython.cast(TupleNode, self.at[i]).conn))
                self.at[i] = at
                if at != cython.NULL:
                    touch(at, size)
        for i in range(n):
            if self.at[i] != cython.NULL and cython.cast(Conn, self.at[i]).status & (IPS_SRC_NAT | IPS_DST_NAT):
                if self.dirs[i]:
                    at = cython.cast(cython.p_void, cython.cast(Conn, self.at[i]).orig)
                else:
                    at = cython.cast(cython.p_void, cython.cast(Conn, self.at[i]).reply)
                touch(at, NODE_BYTES)
        return 0
