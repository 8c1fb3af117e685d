"""The connections' file: a round trip, ageing while down, and files that are not ours."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from userfw.conntrack.conn import Conn, SeqAdj, Tuple
from userfw.conntrack.table import ConnTable
from userfw.core.clock import Clock
from userfw.core.const import IPS_CONFIRMED, IPS_OFFLOAD, IPS_SEEN_REPLY
from userfw.daemon import snapshot
from userfw.daemon.connio import read_octets, write_octets

SECOND = 10**9


def table(now: int = 1000 * SECOND) -> ConnTable:
    return ConnTable(Clock(now), None, random.Random(1))


def connection(conns: ConnTable, port: int, seconds: int) -> Conn:
    key = Tuple()
    key.l3num, key.l4proto = 10, 6
    key.src_hi, key.src_lo, key.dst_hi, key.dst_lo, key.sport, key.dport = 1 << 63, 2, 3, 4, port, 80
    conns.rehash(key)
    conn = conns.new(key, 5, 1)
    assert conn is not None
    conns.rehash(conn.orig)
    conns.rehash(conn.reply)
    conn.timeout = conns.clock.now + seconds * SECOND
    conn.status, conn.state, conn.mark, conn.masq_index = IPS_SEEN_REPLY | IPS_OFFLOAD, 3, 9, 4
    conn.packets, conn.bytes = [1, 2], [3, 1 << 40]
    conn.td_end, conn.last_win = [0xFFFFFFFF, 7], 65535
    write_octets(conn, (0, 7), (3, 0))
    conn.seqadj = SeqAdj()
    conn.seqadj.offset_after = [-5, 6]
    assert conns.insert(conn) is None
    return conn


def file_of(conns: ConnTable, wall: int) -> bytes:
    return snapshot.encode(conns.members(0, 0), conns.clock.now, wall, lambda index: f"port{index}")


def test_everything_comes_back() -> None:
    old = table()
    connection(old, 1000, 100)
    new = table(7 * SECOND)
    [block] = snapshot.decode_untrusted(file_of(old, 50 * SECOND))
    assert snapshot.restore(block, new, 60 * SECOND, lambda name: {"port4": 11}[name]) == (1, 0)
    [conn] = new.members(0, 0)
    assert new.find(conn.reply) is not None
    assert (conn.orig.src_hi, conn.orig.sport, conn.zone, conn.zone_dir, conn.orig.zone) == (1 << 63, 1000, 5, 1, 5)
    assert conn.timeout == (7 + 100 - 10) * SECOND, "it aged while nobody looked"
    assert conn.status == IPS_SEEN_REPLY | IPS_CONFIRMED, "what the flowtable held is tracked again"
    assert (conn.state, conn.mark, conn.masq_index) == (3, 9, 11)
    assert (list(conn.packets), list(conn.bytes)) == ([1, 2], [3, 1 << 40])
    assert (list(conn.td_end), conn.last_win, read_octets(conn)) == ([0xFFFFFFFF, 7], 65535, ((0, 7), (3, 0)))
    assert conn.seqadj is not None and list(conn.seqadj.offset_after) == [-5, 6]


def test_the_expired_and_the_clashing_are_left_out() -> None:
    old = table()
    connection(old, 1000, 5)
    connection(old, 1001, 100)
    connection(old, 1002, 100)
    new = table()
    connection(new, 1002, 100)
    [block] = snapshot.decode_untrusted(file_of(old, 0))
    assert snapshot.restore(block, new, 10 * SECOND, lambda name: 0) == (1, 2)


def test_the_table_is_not_overfilled() -> None:
    old = table()
    for port in range(20):
        connection(old, port, 100)
    new = table()
    new.settings.set("nf_conntrack_max", 8)
    [block] = snapshot.decode_untrusted(file_of(old, 0))
    assert snapshot.restore(block, new, 0, lambda name: 0) == (8, 12)


def test_blocks_follow_each_other_and_a_cut_file_is_told() -> None:
    old = table()
    connection(old, 1, 100)
    data = file_of(old, 0)
    assert len(list(snapshot.decode_untrusted(data + data))) == 2
    with pytest.raises(snapshot.SnapshotError, match="middle"):
        list(snapshot.decode_untrusted(data + data[:-1]))
    other = msgspec.msgpack.encode(snapshot.Snapshot(99, 0, []))
    with pytest.raises(snapshot.SnapshotError, match="format 99"):
        list(snapshot.decode_untrusted(len(other).to_bytes(4, "big") + other))


@given(st.integers(0, 400), st.binary(min_size=1, max_size=4))
def test_no_file_does_harm(position: int, value: bytes) -> None:
    old = table()
    connection(old, 1000, 100)
    data = bytearray(file_of(old, 0))
    data[position : position + len(value)] = value
    new = table()
    try:
        for block in snapshot.decode_untrusted(bytes(data)):
            snapshot.restore(block, new, 0, lambda name: 0)
    except snapshot.SnapshotError:
        pass
    assert new.count <= 1
