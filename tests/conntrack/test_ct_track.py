"""Connection tracking packet by packet, apart from TCP's states, which the corpus covers."""

from __future__ import annotations

import struct
import sys

import pytest
from ct_build import address, csum, echo, icmp, ip, packet, pseudo, tcp, udp
from ct_harness import SECOND, Lab
from hypothesis import given, settings
from hypothesis import strategies as st

from userfw.conntrack.conn import Conn, Tuple
from userfw.conntrack.listing import line
from userfw.conntrack.settings import Settings, TimeoutPolicy
from userfw.core.drop import DropReason

A, B = "10.0.1.1", "10.0.2.2"
A6, B6 = "fd00:1::1", "fd00:2::2"


def test_udp_new_established_assured_and_timeouts() -> None:
    lab = Lab()
    out, back = udp(A, B, 1000, 53, b"q"), udp(B, A, 53, 1000, b"a")
    assert lab.state(out) == "new" and lab.entry() == "UNREPLIED"
    assert lab.state(out) == "new"
    assert lab.state(back) == "established" and lab.state(out) == "established"
    assert lab.entry() == ""
    (conn,) = lab.conns()
    assert conn.timeout - lab.clock.now == 30 * SECOND
    lab.clock.now += 3 * SECOND
    assert lab.state(out) == "established" and lab.entry() == "ASSURED"
    assert conn.timeout - lab.clock.now == 120 * SECOND
    assert conn.packets == [4, 1] and conn.bytes == [4 * 29, 29]


def test_dropped_first_packet_leaves_nothing() -> None:
    lab = Lab()
    assert lab.send(udp(A, B, 1, 2), confirm=False).ctinfo == 1
    assert lab.table.count == 0


@pytest.mark.parametrize(("a", "b"), [(A, B), (A6, B6)])
def test_ping(a: str, b: str) -> None:
    lab = Lab()
    assert lab.state(echo(b, a, 7, reply=True)) == "invalid"
    assert lab.state(echo(a, b, 7)) == "new"
    assert lab.state(echo(a, b, 8)) == "new"
    assert lab.state(echo(b, a, 7, reply=True)) == "established"
    assert lab.state(echo(a, b, 7)) == "established"
    assert lab.table.count == 2


@pytest.mark.parametrize(("a", "b", "router"), [(A, B, "10.0.9.9"), (A6, B6, "fd00:9::9")])
def test_icmp_errors_are_related_and_make_no_entry(a: str, b: str, router: str) -> None:
    lab = Lab()
    out = udp(a, b, 1000, 53, b"question")
    kind = (1, 4) if ":" in a else (3, 1)
    assert lab.state(icmp(router, a, *kind, b"\0" * 4, out)) == "invalid"
    lab.send(out)
    assert lab.state(icmp(router, a, *kind, b"\0" * 4, out[: 48 if ":" in a else 28])) == "related"
    assert lab.state(icmp(router, router, *kind, b"\0" * 4, out)) == "invalid"  # not addressed to who sent the packet
    assert lab.state(icmp(router, a, *kind, b"\0" * 4, out[:20])) == "invalid"
    assert lab.table.count == 1


def test_neighbour_discovery_is_untracked() -> None:
    lab = Lab()
    for kind in (130, 131, 132, 133, 134, 135, 136, 143):
        assert lab.state(icmp(A6, B6, kind, 0, b"\0" * 4, b"\0" * 16)) == "untracked"
    assert lab.table.count == 0


def test_untracked_stays_untracked_and_seen_packets_keep_their_entry() -> None:
    lab = Lab()
    pkt = packet(udp(A, B, 1, 2))
    pkt.ctinfo = 4
    assert lab.enter.run(pkt, 0) == 1 and pkt.ct is None and pkt.ctinfo == 4
    pkt = packet(udp(A, B, 1, 2))
    lab.enter.run(pkt, 3)
    first = pkt.ct
    lab.enter.run(pkt, 0)
    assert pkt.ct is first


@pytest.mark.parametrize("size", [0, 1, 4, 7])
@pytest.mark.parametrize("proto", [1, 6, 17, 132, 136, 58])
def test_headers_cut_short_are_invalid(size: int, proto: int) -> None:
    lab = Lab()
    a, b = (A6, B6) if proto == 58 else (A, B)
    assert lab.state(ip(a, b, proto, bytes(size))) == "invalid"
    assert lab.table.count == 0


def test_wrong_checksums_are_invalid_at_prerouting_only() -> None:
    for data in (udp(A, B, 1, 2, b"x"), tcp(A, B, 1, 2, "S"), echo(A, B, 1), udp(A6, B6, 1, 2), echo(A6, B6, 1)):
        bad = data[:-1] + bytes((data[-1] ^ 1,))
        lab = Lab()
        assert lab.state(bad) == "invalid"
        pkt = packet(bad)
        lab.enter.run(pkt, 3)
        assert pkt.ctinfo == 1
        pkt = packet(bad)
        pkt.vnet_flags = 2
        lab.enter.run(pkt, 0)
        assert pkt.ctinfo == 1
        assert Lab(nf_conntrack_checksum=0).state(bad) == "new"
    assert Lab().state(udp(A, B, 1, 2, b"x", checksum=False)) == "new"
    assert Lab().state(udp(A6, B6, 1, 2, b"x", checksum=False)) == "new"  # as in Linux: the host may refuse it


@pytest.mark.parametrize("flags", ["", "SF", "SR", "F", "FR", "SFR.", "U", "P"])
def test_nonsense_flags_are_invalid(flags: str) -> None:
    assert Lab().state(tcp(A, B, 1, 2, flags)) == "invalid"


def test_loose_pick_up() -> None:
    data = tcp(A, B, 1, 2, ".", 5000, 7000)
    assert Lab(nf_conntrack_tcp_loose=0).state(data) == "invalid"
    lab = Lab()
    assert lab.state(data) == "new" and lab.entry() == "ESTABLISHED UNREPLIED"
    assert lab.conns()[0].timeout - lab.clock.now == 300 * SECOND
    assert lab.state(tcp(B, A, 2, 1, ".", 7000, 5000)) == "established" and lab.entry() == "ESTABLISHED"
    assert lab.state(data) == "established" and lab.entry() == "ESTABLISHED ASSURED"


def handshake(lab: Lab) -> Conn:
    lab.send(tcp(A, B, 1, 2, "S", 100, 0))
    lab.send(tcp(B, A, 2, 1, "S.", 500, 101))
    lab.send(tcp(A, B, 1, 2, ".", 101, 501))
    return lab.conns()[0]


def test_tcp_timeouts_follow_the_state() -> None:
    lab = Lab()
    lab.send(tcp(A, B, 1, 2, "S", 100))
    (conn,) = lab.conns()
    left = lambda: (conn.timeout - lab.clock.now) // SECOND  # noqa: E731
    assert left() == 120
    lab.clock.now += 5 * SECOND
    lab.send(tcp(A, B, 1, 2, "S", 100))
    assert left() == 115  # a repeated SYN renews nothing
    lab.send(tcp(B, A, 2, 1, "S.", 500, 101))
    assert left() == 60
    lab.send(tcp(A, B, 1, 2, ".", 101, 501))
    assert left() == 432000
    lab.send(tcp(A, B, 1, 2, "P.", 101, 501, data=b"x" * 10))
    assert left() == 300  # unacknowledged data
    lab.send(tcp(B, A, 2, 1, ".", 501, 111))
    assert left() == 432000
    lab.send(tcp(A, B, 1, 2, "F.", 111, 501))
    assert left() == 120
    lab.send(tcp(B, A, 2, 1, "F.", 501, 112))
    assert left() == 30
    lab.send(tcp(A, B, 1, 2, ".", 112, 502))
    assert left() == 120 and lab.entry() == "TIME_WAIT ASSURED"
    lab.clock.now += 121 * SECOND
    lab.table.reap(100)
    assert lab.table.count == 0


def test_reset_without_any_reply_ends_the_entry() -> None:
    lab = Lab()
    lab.send(tcp(A, B, 1, 2, "S", 100))
    assert lab.send(tcp(B, A, 2, 1, "R.", 0, 101)).ctinfo == 2
    assert lab.table.count == 0


def test_reopening_from_time_wait_is_a_new_connection() -> None:
    lab = Lab()
    first = handshake(lab)
    lab.send(tcp(A, B, 1, 2, "F.", 101, 501))
    lab.send(tcp(B, A, 2, 1, "F.", 501, 102))
    lab.send(tcp(A, B, 1, 2, ".", 102, 502))
    assert lab.entry() == "TIME_WAIT ASSURED"
    assert lab.state(tcp(A, B, 1, 2, "S", 90000)) == "new"
    assert lab.conns()[0] is not first and lab.entry() == "SYN_SENT UNREPLIED"


def test_simultaneous_open() -> None:
    lab = Lab()
    assert lab.state(tcp(A, B, 1, 2, "S", 100)) == "new"
    assert lab.state(tcp(B, A, 2, 1, "S", 500)) == "established"
    assert lab.entry() == "SYN_SENT2"
    assert lab.state(tcp(A, B, 1, 2, "S.", 100, 501)) == "established"
    assert lab.state(tcp(B, A, 2, 1, "S.", 500, 101)) == "established"
    assert lab.state(tcp(B, A, 2, 1, ".", 501, 101)) == "established"
    assert lab.entry().startswith("ESTABLISHED")


def test_policy_overrides_timeouts() -> None:
    lab = Lab()
    policy = TimeoutPolicy("quick", 2, 17, {"unreplied": 3}, lab.table.settings)
    template = lab.table.template(0, 3)
    template.policy = policy
    pkt = packet(udp(A, B, 1, 2))
    pkt.ct = template
    lab.enter.run(pkt, 0)
    lab.leave.run(pkt, 4)
    assert pkt.ct.timeout - lab.clock.now == 3 * SECOND and pkt.ct is not template
    assert dict(policy.items()) == {"unreplied": 3, "replied": 120}
    with pytest.raises(ValueError, match="no state nonsense"):
        TimeoutPolicy("x", 2, 17, {"nonsense": 1})


def test_settings_by_name() -> None:
    s = Settings({"nf_conntrack_udp_timeout": 7})
    assert s.get("net.netfilter.nf_conntrack_udp_timeout") == 7
    assert dict(s.items())["nf_conntrack_tcp_timeout_established"] == 432000
    for bad in (("nf_conntrack_udp_timeout", -1), ("nf_conntrack_tcp_loose", 2)):
        with pytest.raises(ValueError, match=bad[0]):
            s.set(*bad)
    with pytest.raises(KeyError):
        s.set("nf_conntrack_nonsense", 1)


def test_zones_separate_and_join() -> None:
    lab = Lab()
    data = udp(A, B, 1, 2)
    for zone in (0, 1, 2):
        pkt = packet(data)
        if zone:
            pkt.ct = lab.table.template(zone, 3)
        lab.enter.run(pkt, 0)
        lab.leave.run(pkt, 4)
        assert pkt.ctinfo == 1 and pkt.ct.zone == zone
    assert lab.table.count == 3
    # a zone of the original direction only: the reply is found without one
    pkt = packet(udp(A, B, 9, 9))
    pkt.ct = lab.table.template(5, 1)
    lab.enter.run(pkt, 0)
    lab.leave.run(pkt, 4)
    assert lab.state(udp(B, A, 9, 9)) == "established"
    assert lab.state(udp(A, B, 9, 9)) == "new"


def test_early_drop_spares_the_assured() -> None:
    lab = Lab(nf_conntrack_max=20)
    for n in range(200):
        lab.send(udp(A, B, 1000 + n, 53))
        assert lab.verdict == 1 or lab.send(udp(A, B, 5000 + n, 53))
    assert lab.table.count <= 20 and lab.table.stats.early_drop > 0
    for conn in lab.conns():
        conn.status |= 4
    lab.table.settings.set("nf_conntrack_max", lab.table.count)
    pkt = lab.send(udp(A, B, 9, 9))
    assert lab.verdict == 0 and pkt.drop_reason == DropReason.CT_TABLE_FULL


def test_race_loser_adopts_the_winner() -> None:
    lab = Lab()
    first, second = packet(udp(A, B, 1, 2, b"1")), packet(udp(A, B, 1, 2, b"2"))
    lab.enter.run(first, 0)
    lab.enter.run(second, 0)
    assert first.ct is not second.ct
    assert lab.leave.run(first, 4) == 1 and lab.leave.run(second, 4) == 1
    assert second.ct is first.ct and first.ct.packets[0] == 2 and lab.table.count == 1


def test_reaping_in_slices_and_next_deadline() -> None:
    lab = Lab()
    for n in range(1000):
        lab.send(udp(A, B, n, 53))
    assert lab.table.next_deadline() <= lab.clock.now + 31 * SECOND
    lab.clock.now += 29 * SECOND
    assert lab.table.reap(10_000) == 0
    lab.clock.now += 2 * SECOND
    steps = 0
    while lab.table.reap(64) == 64:
        steps += 1
    assert lab.table.count == 0 and steps >= 15
    assert lab.table.next_deadline() > lab.clock.now + 10**6 * SECOND


def test_shortened_deadlines_are_met() -> None:
    """The wheel finds a connection whose timeout fell from days to seconds."""
    lab = Lab()
    handshake(lab)
    lab.clock.now += 3600 * SECOND
    lab.table.reap(10)
    lab.send(tcp(B, A, 2, 1, "R.", 501, 101))
    assert lab.entry() == "CLOSE ASSURED"
    lab.clock.now += 11 * SECOND
    lab.table.reap(10)
    assert lab.table.count == 0


@given(st.lists(st.tuples(st.integers(0, 400_000), st.integers(1, 500_000)), min_size=1, max_size=40))
@settings(max_examples=100, deadline=None)
def test_wheel_meets_every_deadline(script: list[tuple[int, int]]) -> None:
    """Connections of any timeout end within a tick of their deadline, whatever the clock did in between."""
    lab = Lab()
    alive: list[int] = []
    for port, (step, timeout) in enumerate(script):
        lab.clock.now += step * SECOND
        while lab.table.reap(7) == 7:
            pass
        late = [end for end in alive if end > lab.clock.now - SECOND]
        alive = [end for end in late if end > lab.clock.now]
        assert len(alive) <= lab.table.count <= len(late)
        alive = late
        pkt = lab.send(udp(A, B, port + 1, 9))
        lab.table.refresh(pkt.ct, timeout * SECOND)
        alive.append(lab.clock.now + timeout * SECOND)
    while lab.table.count:
        due = lab.table.next_deadline()
        assert due < 1 << 62
        lab.clock.now = max(lab.clock.now, due)
        lab.table.reap(5)
    assert lab.clock.now <= max(alive) + SECOND


def test_events_come_only_when_somebody_listens() -> None:
    lab = Lab()
    lab.send(udp(A, B, 1, 2))
    told: list[tuple[int, int]] = []
    hear = lambda events, conn: told.append((events, conn.orig.sport))  # noqa: E731
    lab.table.listen(hear)
    lab.send(udp(A, B, 3, 4))
    assert told == [(1, 3)]
    pkt = lab.send(udp(B, A, 4, 3), confirm=False)
    lab.table.set_mark(pkt.ct, 5)
    lab.leave.run(pkt, 4)
    assert told[1:] == [(8 | 128, 3)]
    lab.clock.now += 100 * SECOND
    while lab.table.reap(10):
        pass
    assert sorted(told[2:]) == [(4, 1), (4, 3)]
    lab.table.unlisten(hear)
    lab.send(udp(A, B, 5, 6))
    assert len(told) == 4


def test_table_grows_shrinks_and_loses_nothing() -> None:
    lab = Lab()
    key = Tuple()
    key.l3num, key.l4proto, key.dst_lo, key.dport = 2, 17, 1, 53
    rng = lab.table.rng
    alive: dict[int, Conn] = {}
    for step in range(30_000):
        n = rng.randrange(1 << 20)
        key.src_lo = n
        node = lab.table.find(key)
        assert (node is not None) == (n in alive)
        if node is None and (step < 20_000 or rng.random() < 0.2):
            conn = lab.table.new(key, 0, 3)
            assert conn is not None
            conn.timeout = lab.clock.now + 1000 * SECOND
            assert lab.table.insert(conn) is None
            alive[n] = conn
        elif step >= 20_000:
            _, conn = alive.popitem()
            lab.table.destroy(conn)
    assert lab.table.count == len(alive)
    for n, conn in alive.items():
        key.src_lo = n
        found = lab.table.find(key)
        assert found is not None and found.conn is conn


def test_unconfirmed_and_destroyed_connections_are_freed() -> None:
    lab = Lab()
    pkt = packet(udp(A, B, 1, 2))
    lab.enter.run(pkt, 0)
    conn = pkt.ct
    assert sys.getrefcount(conn) == 3
    lab.leave.run(pkt, 4)
    held = sys.getrefcount(conn)
    lab.table.destroy(conn)
    assert sys.getrefcount(conn) == 3 < held


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_streams_in_window_are_never_invalid(data: st.DataObject) -> None:
    """Two ends that keep to RFC 9293 and to each other's windows, with loss, duplication and reordering of what is on the way."""
    lab = Lab()
    scale = (data.draw(st.integers(0, 14)), data.draw(st.integers(0, 14)))
    base = (data.draw(st.integers(0, 2**32 - 1)), data.draw(st.integers(0, 2**32 - 1)))
    opts = [b"\x03\x03" + bytes((s,)) + b"\x04\x02" for s in scale]
    window = (data.draw(st.integers(1000, 65535)), data.draw(st.integers(1000, 65535)))

    def send(end: int, flags: str, seq: int, ack: int, size: int = 0, options: bytes = b"", win: int | None = None) -> str:
        (s, sp), (d, dp) = ((A, 1), (B, 2)) if end == 0 else ((B, 2), (A, 1))
        return lab.state(
            tcp(s, d, sp, dp, flags, base[end] + seq, base[1 - end] + ack, window[end] if win is None else win, bytes(size),
            options)
        )

    assert send(0, "S", 0, 0, options=opts[0]) == "new"
    assert send(1, "S.", 0, 1, options=opts[1]) == "established"
    assert send(0, ".", 1, 1) == "established"
    sent, acked = [1, 1], [1, 1]  # next sequence number of each end; what the other end has acknowledged of it
    for _ in range(data.draw(st.integers(1, 30))):
        end = data.draw(st.integers(0, 1))
        room = acked[end] + (window[1 - end] << scale[1 - end]) - sent[end]
        action = data.draw(st.sampled_from(["data", "ack", "again", "keepalive"]))
        if action == "data" and room > 0:
            size = data.draw(st.integers(1, min(room, 1400)))
            got = send(end, "P.", sent[end], acked[1 - end], size)
            sent[end] += size
        elif action == "again" and sent[end] > acked[end]:
            size = min(sent[end] - acked[end], 1400)
            got = send(end, ".", acked[end], acked[1 - end], size)
        elif action == "keepalive" and sent[end] == acked[end]:
            got = send(end, ".", sent[end] - 1, acked[1 - end])
        else:
            acked[1 - end] = data.draw(st.integers(acked[1 - end], sent[1 - end]))
            got = send(end, ".", sent[end], acked[1 - end])
        assert got == "established"


@given(st.binary(max_size=120), st.sampled_from([1, 6, 17, 47, 58, 132, 136, 99]), st.booleans(), st.integers(0, 4))
@settings(max_examples=500, deadline=None)
def test_no_bytes_raise(payload: bytes, proto: int, six: bool, hook: int) -> None:
    lab = Lab(nf_conntrack_checksum=0)
    data = ip(A6, B6, proto, payload) if six else ip(A, B, proto, payload)
    for _ in range(2):
        pkt = packet(data)
        if lab.enter.run(pkt, hook) == 1:
            lab.leave.run(pkt, 4)
    for conn in lab.conns():
        assert line(conn, lab.clock.now)


def sctp(a: str, b: str, sp: int, dp: int, vtag: int, *chunks: bytes) -> bytes:
    from userfw.conntrack.check import crc32c

    body = struct.pack("!HHII", sp, dp, vtag, 0) + b"".join(chunks)
    crc = crc32c(bytearray(body), 0, len(body))
    return ip(a, b, 132, body[:8] + struct.pack("<I", crc) + body[12:])


def chunk(kind: int, body: bytes = b"", flags: int = 0) -> bytes:
    return struct.pack("!BBH", kind, flags, 4 + len(body)) + body + bytes(-len(body) % 4)


def init(kind: int, tag: int) -> bytes:
    return chunk(kind, struct.pack("!IIHHI", tag, 65535, 1, 1, 1))


def test_crc32c_known_answer() -> None:
    from userfw.conntrack.check import crc32c

    assert crc32c(bytearray(b"123456789"), 0, 9) == 0xE3069283  # RFC 3720 B.4's polynomial, the usual check value


def test_sctp_association() -> None:
    lab = Lab()
    names = []

    def go(forward: bool, vtag: int, *chunks: bytes) -> str:
        args = (A, B, 5, 7) if forward else (B, A, 7, 5)
        got = lab.state(sctp(*args, vtag, *chunks))
        conns = lab.conns()
        names.append((conns[0].state if conns else None, bool(conns and conns[0].status & 4)))
        return got

    assert go(False, 9, chunk(0, b"data")) == "invalid"
    assert go(True, 0, init(1, 0x11)) == "new"
    assert go(False, 0x11, init(2, 0x22)) == "established"
    assert go(True, 0x22, chunk(10, b"cookie")) == "established"
    assert go(False, 0x11, chunk(11)) == "established"
    assert go(True, 0x23, chunk(0, b"data")) == "invalid"
    assert go(True, 0x22, chunk(0, b"data")) == "established"
    assert go(True, 0x22, chunk(7, b"\0" * 4)) == "established"
    assert go(False, 0x11, chunk(8)) == "established"
    assert go(True, 0x22, chunk(14)) == "established"
    assert [s for s, _ in names] == [None, 1, 2, 3, 4, 4, 4, 5, 7, 1]
    assert names[4][1]


def test_gre_and_generic() -> None:
    lab = Lab()
    assert lab.state(ip(A, B, 47, b"\0\0\x08\0" + b"x" * 20)) == "new"
    assert lab.state(ip(B, A, 47, b"\0\0\x08\0" + b"x" * 20)) == "established"
    assert lab.state(ip(A, B, 99, b"anything")) == "new"
    assert lab.table.count == 2
    assert address(A) in bytes(packet(ip(A, B, 99, b"")).data[:200])


def test_enhanced_gre_whose_call_id_is_cut_off() -> None:
    """It is of the connection of all that has no key, as Linux takes it (gre_pkt_to_tuple); no PPP inside has no tuple at all."""
    lab = Lab()
    whole = struct.pack("!HHHH", 0x3001, 0x880B, 4, 7)
    assert lab.state(ip(A, B, 47, whole[:6])) == "new"
    assert lab.state(ip(B, A, 47, b"\0\0\x08\0")) == "established"
    assert lab.state(ip(A, B, 47, whole[:2] + b"\x08\0" + whole[4:])) == "invalid"
    assert lab.state(ip(A, B, 47, whole)) == "new"
    assert lab.state(ip(A, B, 47, whole[:4])) == "established"


def test_udplite_with_a_right_checksum_is_tracked() -> None:
    """Linux sums UDP-Lite's pseudo-header with UDP's protocol number and so refuses every right one (docs/differences.md)."""
    segment = struct.pack("!HHHH", 1000, 53, 8, 0) + b"damage me"
    check = csum(pseudo(A, B, 136, len(segment)) + segment[:8])
    lab = Lab()
    data = ip(A, B, 136, segment[:6] + struct.pack("!H", check) + segment[8:])
    assert lab.state(data) == "new"
    assert lab.state(data[:-1] + b"?") == "new"  # not covered
    assert Lab().state(data[:26] + b"\0\0" + data[28:]) == "invalid"
