"""The connections of one run, kept for the next: blocks of msgpack, each behind its length, in a file written beside and renamed.

Laws: a snapshot is read as untrusted as any file: another format, a connection that is expired, clashes or is ill-formed is left
out and counted, never fatal. Times are kept by the wall clock, so a connection ages while the daemon is down. Interfaces
are kept by name. What belongs to a running daemon only (flowtable entries, helpers, expectations) is not kept: an offloaded
connection comes back as a tracked one.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from userfw.conntrack.conn import Conn, SeqAdj, Tuple
from userfw.conntrack.table import ConnTable
from userfw.core.const import IPS_EXPECTED, IPS_HELPER, IPS_HW_OFFLOAD, IPS_OFFLOAD, NFPROTO_IPV4, NFPROTO_IPV6, NSEC_PER_SEC
from userfw.daemon.connio import read_octets, write_octets

log = logging.getLogger("userfw.state")

VERSION = 1
LOST = IPS_OFFLOAD | IPS_HW_OFFLOAD | IPS_HELPER | IPS_EXPECTED
FAR = 10 * 365 * 86400 * NSEC_PER_SEC

Pair = tuple[int, int]
Address = tuple[int, int]


class SavedTuple(msgspec.Struct, array_like=True, frozen=True):
    """One direction: addresses as halves, ports as in conntrack.conn.Tuple."""

    src: Address
    dst: Address
    sport: int
    dport: int


class SavedSeqAdj(msgspec.Struct, array_like=True, frozen=True):
    """conntrack.conn.SeqAdj"""

    correction_pos: Pair
    offset_before: Pair
    offset_after: Pair


class SavedConn(msgspec.Struct, array_like=True, frozen=True):
    """One connection; `timeout` and `age` are nanoseconds from and to the time of saving."""

    family: int
    proto: int
    original: SavedTuple
    reply: SavedTuple
    zone: int
    zone_dir: int
    timeout: int
    age: int
    status: int
    state: int
    mark: int
    secmark: int
    labels: Pair
    packets: Pair
    bytes: Pair
    td_end: Pair
    td_maxend: Pair
    td_maxwin: Pair
    td_maxack: Pair
    td_scale: Pair
    td_flags: Pair
    last: tuple[int, int, int, int, int, int, int, int]
    masq: str
    seqadj: SavedSeqAdj | None
    synproxy: tuple[int, int, int] | None = None


class Snapshot(msgspec.Struct, frozen=True):
    """A block of the file: when it was saved (Unix time in nanoseconds) and what."""

    version: int
    saved: int
    connections: list[SavedConn]


def _two(values: Any) -> Pair:
    return (values[0], values[1])


def _save_tuple(t: Tuple) -> SavedTuple:
    return SavedTuple((t.src_hi, t.src_lo), (t.dst_hi, t.dst_lo), t.sport, t.dport)


def save_conn(conn: Conn, now: int, device: str) -> SavedConn:
    """One connection as it goes into the file; `device`: name of the masqueraded-to interface, or empty."""
    adj = conn.seqadj
    scale, flags = read_octets(conn)
    return SavedConn(
        conn.orig.l3num, conn.orig.l4proto, _save_tuple(conn.orig), _save_tuple(conn.reply), conn.zone, conn.zone_dir,
        min(conn.timeout - now, FAR), max(now - conn.start, 0), conn.status & ~LOST, conn.state, conn.mark, conn.secmark,
        (conn.labels_hi, conn.labels_lo), _two(conn.packets), _two(conn.bytes),
        _two(conn.td_end), _two(conn.td_maxend), _two(conn.td_maxwin), _two(conn.td_maxack), scale, flags,
        (conn.last_seq, conn.last_ack, conn.last_end, conn.last_win, conn.last_index, conn.last_dir, conn.last_flags, conn.retrans),
        device,
        None if adj is None else SavedSeqAdj(_two(adj.correction_pos), _two(adj.offset_before), _two(adj.offset_after)),
        tuple(conn.ext["synproxy"]) if conn.ext is not None and conn.ext.get("synproxy") else None,
    )  # fmt: skip


def encode(conns: Iterable[Conn], now: int, wall: int, device_of: Callable[[int], str]) -> bytes:
    """One block of the file. `now`: the clock, `wall`: Unix time, both in ns; `device_of`: an interface's name by index."""
    saved = [save_conn(conn, now, device_of(conn.masq_index) if conn.masq_index else "") for conn in conns]
    block = msgspec.msgpack.encode(Snapshot(VERSION, wall, saved))
    return len(block).to_bytes(4, "big") + block


class Writer:
    """A file that replaces another when it is complete. OSError from each step; `abandon` if one failed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.temporary = path.with_name(path.name + ".new")
        self.stream = self.temporary.open("wb")

    def write(self, data: bytes) -> None:
        """Append."""
        self.stream.write(data)

    def commit(self) -> None:
        """Make it last, and put it in the place of the old one. May take long."""
        self.stream.flush()
        os.fsync(self.stream.fileno())
        self.stream.close()
        self.temporary.rename(self.path)

    def abandon(self) -> None:
        """Leave the old file as it is."""
        self.stream.close()
        self.temporary.unlink(missing_ok=True)


def write(path: Path, data: bytes) -> None:
    """Replace a file at once, or not at all. OSError."""
    writer = Writer(path)
    try:
        writer.write(data)
        writer.commit()
    except BaseException:
        writer.abandon()
        raise


class SnapshotError(ValueError):
    """A file that is no snapshot of ours."""


def decode_untrusted(data: bytes) -> Iterator[Snapshot]:
    """The file's blocks. SnapshotError where it is no snapshot any more."""
    off = 0
    while off < len(data):
        size = int.from_bytes(data[off : off + 4], "big")
        block = data[off + 4 : off + 4 + size]
        if len(block) != size:
            raise SnapshotError("the file ends in the middle of a block")
        try:
            snapshot = msgspec.msgpack.decode(block, type=Snapshot)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise SnapshotError(str(error)) from None
        if snapshot.version != VERSION:
            raise SnapshotError(f"format {snapshot.version}; this is for {VERSION}")
        yield snapshot
        off += 4 + size


def restore(snapshot: Snapshot, table: ConnTable, wall: int, index_of: Callable[[str], int]) -> Pair:
    """Put the connections into the table: (restored, left out)."""
    down = max(0, wall - snapshot.saved)
    restored = 0
    for saved in snapshot.connections:
        try:
            conn = _revive_untrusted(saved, table, down, index_of)
        except (OverflowError, ValueError, TypeError):
            conn = None
        mine = table.steering
        if conn is not None and mine is not None and not (mine.ours(conn.orig) and mine.ours(conn.reply)):
            continue  # another worker's
        if conn is None or table.count >= table.settings.max or table.insert(conn) is not None:
            continue
        conn.events = 0
        restored += 1
    return restored, len(snapshot.connections) - restored


def _revive_untrusted(saved: SavedConn, table: ConnTable, down: int, index_of: Callable[[str], int]) -> Conn | None:
    """A connection ready to be inserted; None if it expired while the daemon was down, or is of no known family."""
    now = table.clock.now
    if saved.timeout <= down or saved.family not in (NFPROTO_IPV4, NFPROTO_IPV6):
        return None
    key = Tuple()
    key.l3num, key.l4proto = saved.family, saved.proto
    _load_tuple(key, saved.original)
    key.zone = saved.zone if saved.zone_dir & 1 else 0
    table.rehash(key)
    conn = table.new(key, saved.zone, saved.zone_dir)
    if conn is None:
        return None
    _load_tuple(conn.reply, saved.reply)
    table.rehash(conn.orig)
    table.rehash(conn.reply)
    conn.timeout = now + min(saved.timeout - down, FAR)
    conn.start = max(now - saved.age - down, 0)
    conn.status = saved.status & ~LOST
    conn.state, conn.mark, conn.secmark = saved.state, saved.mark, saved.secmark
    conn.labels_hi, conn.labels_lo = saved.labels
    for name in ("packets", "bytes", "td_end", "td_maxend", "td_maxwin", "td_maxack"):
        setattr(conn, name, list(getattr(saved, name)))
    write_octets(conn, saved.td_scale, saved.td_flags)
    (conn.last_seq, conn.last_ack, conn.last_end, conn.last_win, conn.last_index, conn.last_dir, conn.last_flags,
     conn.retrans) = saved.last  # fmt: skip
    conn.masq_index = index_of(saved.masq) if saved.masq else 0
    if saved.seqadj is not None:
        conn.seqadj = SeqAdj()
        for name in ("correction_pos", "offset_before", "offset_after"):
            setattr(conn.seqadj, name, list(getattr(saved.seqadj, name)))
    if saved.synproxy is not None:
        conn.ext = {"synproxy": list(saved.synproxy)}
    return conn


def _load_tuple(t: Tuple, saved: SavedTuple) -> None:
    t.src_hi, t.src_lo = saved.src
    t.dst_hi, t.dst_lo = saved.dst
    t.sport, t.dport = saved.sport, saved.dport
