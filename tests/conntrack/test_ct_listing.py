"""What users see of the table."""

from __future__ import annotations

import pytest
from ct_build import echo, tcp, udp
from ct_harness import SECOND, Lab
from hypothesis import given, settings
from hypothesis import strategies as st

from userfw.conntrack import listing
from userfw.conntrack.listing import Dump, change, create, event_line, line

A, B = "10.0.1.1", "10.0.2.2"


def test_lines_are_those_of_conntrack() -> None:
    lab = Lab()
    lab.send(tcp(A, B, 40000, 80, "S", 100))
    lab.send(tcp(B, A, 80, 40000, "S.", 500, 101))
    lab.send(tcp(A, B, 40000, 80, ".", 101, 501))
    (conn,) = lab.conns()
    assert line(conn, lab.clock.now) == (
        "tcp      6 432000 ESTABLISHED src=10.0.1.1 dst=10.0.2.2 sport=40000 dport=80 packets=2 bytes=80 "
        "src=10.0.2.2 dst=10.0.1.1 sport=80 dport=40000 packets=1 bytes=40 [ASSURED] mark=0 use=1"
    )
    assert line(conn, lab.clock.now, family=True, acct=False).startswith("ipv4     2 tcp      6 432000 ESTABLISHED src=")
    conn.status |= 0x4000
    assert line(conn, lab.clock.now, acct=False) == (
        "tcp      6 src=10.0.1.1 dst=10.0.2.2 sport=40000 dport=80 src=10.0.2.2 dst=10.0.1.1 sport=80 dport=40000 "
        "[OFFLOAD] mark=0 use=1"
    )
    lab = Lab()
    lab.send(echo(A, B, 5))
    assert line(lab.conns()[0], lab.clock.now) == (
        "icmp     1 30 src=10.0.1.1 dst=10.0.2.2 type=8 code=0 id=5 packets=1 bytes=32 [UNREPLIED] "
        "src=10.0.2.2 dst=10.0.1.1 type=0 code=0 id=5 packets=0 bytes=0 mark=0 use=1"
    )


def test_event_lines() -> None:
    lab = Lab()
    lines: list[str] = []
    lab.table.listen(lambda events, conn: lines.append(event_line(events, conn, lab.clock.now)))
    lab.send(udp(A, B, 1, 2))
    lab.table.destroy(lab.conns()[0])
    assert lines[0] == (
        "    [NEW] udp      17 30 src=10.0.1.1 dst=10.0.2.2 sport=1 dport=2 [UNREPLIED] "
        "src=10.0.2.2 dst=10.0.1.1 sport=2 dport=1"
    )
    assert lines[1].startswith("[DESTROY] udp      17 src=10.0.1.1 dst=10.0.2.2 sport=1 dport=2 packets=1 bytes=28 [UNREPLIED]")


def test_change_and_create() -> None:
    lab = Lab()
    lab.send(udp(A, B, 1, 2))
    (conn,) = lab.conns()
    change(lab.table, conn, {"mark": 0x0F, "mark_mask": 0xFF, "timeout": 500, "label": 1 << 100})
    assert conn.mark == 0x0F and conn.timeout == lab.clock.now + 500 * SECOND and conn.labels_hi == 1 << 36
    change(lab.table, conn, {"status": conn.status | 6})
    assert conn.status & 6 == 6
    for bad in ({"status": 0}, {"status": conn.status | 16}, {"colour": 1}):
        with pytest.raises(ValueError, match="change"):
            change(lab.table, conn, bad)
    other = listing.Tuple()
    other.l3num, other.l4proto, other.src_lo, other.dst_lo, other.sport, other.dport = 2, 6, 1, 2, 3, 4
    made = create(lab.table, other, {"state": "ESTABLISHED", "timeout": 60, "status": 6})
    assert line(made, lab.clock.now).startswith("tcp      6 60 ESTABLISHED src=0.0.0.1 dst=0.0.0.2 sport=3 dport=4")
    with pytest.raises(ValueError, match="exists"):
        create(lab.table, other, {})


@given(st.integers(0, 3000), st.integers(1, 200), st.integers(0, 3000))
@settings(max_examples=20, deadline=None)
def test_a_dump_neither_repeats_nor_loses_while_the_table_changes(count: int, budget: int, more: int) -> None:
    lab = Lab()

    def fill(first: int, number: int) -> None:
        key = listing.Tuple()
        key.l3num, key.l4proto, key.dst_lo = 2, 17, 9
        for n in range(first, first + number):
            key.src_lo = n
            conn = lab.table.new(key, 0, 3)
            assert conn is not None
            conn.timeout = lab.clock.now + 1000 * SECOND
            lab.table.insert(conn)

    fill(0, count)
    dump = Dump(lab.table)
    seen: list[int] = []
    first = dump.next(budget)
    seen += [c.orig.src_lo for c in first or []]
    fill(count, more)
    while (found := dump.next(budget)) is not None:
        seen += [c.orig.src_lo for c in found]
    assert len(seen) == len(set(seen)) and set(range(count)) <= set(seen)
