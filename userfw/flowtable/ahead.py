"""Looking ahead in a flowtable: the bucket, the entry and the flow of every packet of a batch. Laws as in core.ahead."""

from typing import Any

import cython

if not cython.compiled:
    from userfw.core.ahead import AHEAD, TAKEN_AHEAD, Lookahead, load, slot_of, some, touch
    from userfw.core.const import IPPROTO_TCP, IPPROTO_UDP, NFPROTO_IPV4, NFPROTO_IPV6
    from userfw.core.packet import Device, Packet
    from userfw.flowtable.flow import FlowTuple, hash_key
    from userfw.flowtable.table import FlowTable

    KEY_BYTES, ENTRY_BYTES, FLOW_BYTES = 64, 192, 80


class FlowAhead(Lookahead):
    """Looks ahead in `table` when it holds `many` entries or more."""

    def __init__(self, table: FlowTable) -> None:
        self.table = table
        self.many = 4096  # fewer than this stay in the cache by themselves
        if not cython.compiled:
            self.at: list[Any] = []
            self.hashes: list[int] = []

    def useful(self) -> cython.bint:
        return cython.compiled and self.table.count >= self.many

    def look(self, packets: list[Packet], first: cython.Py_ssize_t, n: cython.Py_ssize_t) -> cython.int:
        """How many of the packets the table seems to have; they are marked, so that conntrack need not look for them."""
        if not cython.compiled:
            return 0
        i: cython.Py_ssize_t
        found: cython.int = 0
        hash: cython.uint
        pkt: Packet
        table: FlowTable = self.table
        n = n if n < AHEAD else AHEAD
        for i in range(n):
            self.at[i] = cython.NULL
            pkt = packets[first + i]
            if not pkt.has_l4 or pkt.is_fragment or (pkt.l4proto != IPPROTO_TCP and pkt.l4proto != IPPROTO_UDP):
                continue
            if pkt.nfproto != NFPROTO_IPV4 and pkt.nfproto != NFPROTO_IPV6:
                continue
            hash = self._hash(pkt)
            self.hashes[i] = hash
            if table._old is not None and cython.cast(cython.Py_ssize_t, hash & table._old_mask) >= table._migrated:
                self.at[i] = slot_of(table._old, hash & table._old_mask)
            else:
                self.at[i] = slot_of(table._buckets, hash & table._mask)
        self._entries(n)
        for i in range(n):
            if self.at[i] != cython.NULL:
                pkt = packets[first + i]
                pkt.ahead = TAKEN_AHEAD
                found += 1
        return found

    def _hash(self, pkt: Packet) -> cython.uint:
        """What FlowTable.forward will compute."""
        l3: cython.Py_ssize_t = pkt.l3
        ports: cython.uint = pkt.get32(pkt.l4)
        device: Device = cython.cast(Device, pkt.iif)
        key: cython.uint = (device.index << 16) | (pkt.nfproto << 8) | pkt.l4proto
        if pkt.nfproto == NFPROTO_IPV4:
            return hash_key(self.table.k0, self.table.k1, 0, pkt.get32(l3 + 12), 0, pkt.get32(l3 + 16), ports, key)
        return hash_key(
            self.table.k0, self.table.k1, pkt.get64(l3 + 8), pkt.get64(l3 + 16), pkt.get64(l3 + 24), pkt.get64(l3 + 32), ports, key
        )

    def _entries(self, n: cython.Py_ssize_t) -> cython.int:
        """From bucket to entry to flow, a step for all packets at a time; what is left in `at` are entries with the right hash."""
        i: cython.Py_ssize_t
        entry: cython.p_void
        for i in range(n):
            if self.at[i] != cython.NULL:
                entry = load(self.at[i])
                self.at[i] = entry
                if entry != cython.NULL:
                    touch(entry, KEY_BYTES)
        for _ in range(3):
            for i in range(n):
                entry = self.at[i]
                if entry != cython.NULL and cython.cast(FlowTuple, entry).hash != self.hashes[i]:
                    entry = some(cython.cast(cython.p_void, cython.cast(FlowTuple, entry).next))
                    self.at[i] = entry
                    if entry != cython.NULL:
                        touch(entry, KEY_BYTES)
        for i in range(n):
            entry = self.at[i]
            if entry != cython.NULL:
                if cython.cast(FlowTuple, entry).hash != self.hashes[i]:
                    self.at[i] = cython.NULL
                else:
                    touch(entry, ENTRY_BYTES)
                    touch(cython.cast(cython.p_void, cython.cast(FlowTuple, entry).flow), FLOW_BYTES)
        return 0
