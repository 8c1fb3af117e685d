"""The table as bytes, for the state directory: connections survive a restart of the daemon.

Laws: a snapshot is a header and a row per connection, all little-endian, written and read a slice at a time. Deadlines are
kept relative, so time
spent stopped does not count. A file that is not of this format or cut short is refused before anything is entered
(ValueError); a row
whose tuples are taken or whose device is gone is skipped. Sequence windows are learnt anew: a restored TCP connection is
judged liberally.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from userfw.conntrack.conn import Conn, Tuple
from userfw.conntrack.listing import Dump
from userfw.conntrack.table import ConnTable

MAGIC = b"userfw-conns\0\0\x01\n"
_HEADER = struct.Struct("<16sQ")
# l3num l4proto zone zone_dir state flags | orig: 4 halves, 2 ports | reply: the same | status mark secmark | labels | timeout
# age | counters | tags
_ROW = struct.Struct("<BBHBBH QQQQHH QQQQHH III QQ QQ QQQQ II 16s 16s")
# what holds across a restart: not offloading, dying, helpers' sequence adjustments
_KEEP = 0x0400 | 0x02 | 0x04 | 0x10 | 0x20 | 0x80 | 0x100


def save(table: ConnTable, device_name: Callable[[int], str | None] = lambda index: None) -> Iterator[bytes]:
    """The snapshot in pieces. `device_name(index)`: the device masquerade took an address from."""
    yield _HEADER.pack(MAGIC, _ROW.size)
    now = table.clock.now
    dump = Dump(table)
    while (found := dump.next()) is not None:
        rows = []
        for c in found:
            if c.seqadj is not None or c.master is not None:
                continue  # their helpers' state is not kept
            name = (device_name(c.masq_index) or "?") if c.masq_index else ""
            helper = str(c.helper.name) if c.helper is not None else ""
            rows.append(_pack(c, now, name, helper))
        yield b"".join(rows)


def _pack(c: Conn, now: int, device: str, helper: str) -> bytes:
    o, r = c.orig, c.reply
    return _ROW.pack(
        o.l3num,
        o.l4proto,
        c.zone,
        c.zone_dir,
        c.state,
        c.td_scale[0] | c.td_scale[1] << 8,
        *(o.src_hi, o.src_lo, o.dst_hi, o.dst_lo, o.sport, o.dport),
        *(r.src_hi, r.src_lo, r.dst_hi, r.dst_lo, r.sport, r.dport),
        *(c.status & _KEEP, c.mark, c.secmark),
        *(c.labels_hi, c.labels_lo),
        *(max(c.timeout - now, 0), now - c.start),
        *(c.packets[0], c.bytes[0], c.packets[1], c.bytes[1]),
        *c.td_end,
        device.encode()[:16],
        helper.encode()[:16],
    )


def load(
    table: ConnTable,
    data: bytes,
    device_index: Callable[[str], int | None] = lambda name: None,
    helpers: Mapping[str, Any] | None = None,
) -> Iterator[int]:
    """Enter the connections of a snapshot; yields how many after each slice. `device_index(name)`: None if it is gone."""
    if len(data) < _HEADER.size:
        raise ValueError("not a snapshot of connections: too short")
    magic, size = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise ValueError("not a snapshot of connections, or of another version")
    if size != _ROW.size or (len(data) - _HEADER.size) % size:
        raise ValueError("a snapshot of connections that is cut short")
    return _load(table, data, device_index, helpers or {})


def _load(
    table: ConnTable, data: bytes, device_index: Callable[[str], int | None], helpers: Mapping[str, Any]
) -> Iterator[int]:
    key = Tuple()
    count = 0
    for number, row in enumerate(_ROW.iter_unpack(data[_HEADER.size :])):
        count += _enter(table, key, row, device_index, helpers)
        if number % 500 == 499:
            yield count
            count = 0
    yield count


def _enter(
    table: ConnTable, key: Tuple, row: tuple[Any, ...], device_index: Callable[[str], int | None], helpers: Mapping[str, Any]
) -> int:
    l3num, l4proto, zone, zone_dir, state, scales = row[:6]
    if l3num not in (2, 10) or state > 9 or not 1 <= zone_dir <= 3 or table.count >= table.settings.max:
        return 0
    device = row[31].rstrip(b"\0").decode(errors="replace")
    index = device_index(device) if device else 0
    if index is None:
        return 0
    key.l3num, key.l4proto = l3num, l4proto
    key.src_hi, key.src_lo, key.dst_hi, key.dst_lo, key.sport, key.dport = row[6:12]
    conn = table.new(key, zone, zone_dir)
    if conn is None:
        return 0
    r = conn.reply
    r.src_hi, r.src_lo, r.dst_hi, r.dst_lo, r.sport, r.dport = row[12:18]
    conn.status, conn.mark, conn.secmark = row[18:21]
    conn.labels_hi, conn.labels_lo = row[21:23]
    conn.timeout = table.clock.now + row[23]
    conn.start = max(table.clock.now - row[24], 0)
    conn.packets = [row[25], row[27]]
    conn.bytes = [row[26], row[28]]
    conn.td_end = list(row[29:31]) if l4proto == 132 else [0, 0]
    conn.state = state
    if l4proto == 6:
        conn.td_scale = [scales & 15, scales >> 8 & 15]
        conn.td_flags = [10, 10]  # SACK permitted, liberal
    conn.masq_index = index
    conn.helper = helpers.get(row[32].rstrip(b"\0").decode(errors="replace"))
    if table.insert(conn) is not None:
        return 0
    for observer in table.observers:
        observer.restored(conn)
    return 1
