"""Expressions with a state, and those that act through Services."""

from __future__ import annotations

import struct

import pytest
from engine_double import SECOND, Double, context, evaluate, ip4, ip6, packet, tcp, udp

from userfw.conntrack.table import ConnTable
from userfw.core.const import NF_DROP
from userfw.core.drop import DropReason
from userfw.core.packet import Device
from userfw.engine.bind import TableScope
from userfw.engine.const import SET_TIMEOUT
from userfw.engine.expr import Expr
from userfw.engine.expressions import (
    Bitwise,
    BitwiseBool,
    BitwiseShift,
    Byteorder,
    Cmp,
    Connlimit,
    Counter,
    Dup,
    Dynset,
    FlowOffload,
    Fwd,
    Immediate,
    ImmediateVerdict,
    Jhash,
    Last,
    Limit,
    Log,
    Lookup,
    Masq,
    Nat,
    Notrack,
    Numgen,
    Objref,
    ObjrefMap,
    Osf,
    Queue,
    Quota,
    Range,
    Redir,
    Reject,
    Symhash,
    Synproxy,
    Tproxy,
    Tunnel,
    Xfrm,
)
from userfw.engine.fingerprint import Fingerprints
from userfw.engine.objects.object import NamedObject
from userfw.engine.objects.secmark import Secmark
from userfw.engine.sets.base import DATA_OBJECT, DATA_VALUE, DATA_VERDICT
from userfw.engine.sets.elements import Verdict
from userfw.engine.sets.factory import make_set
from userfw.nat.mapping import Nat as NatCore

GO, BREAK, DROP, ACCEPT, STOLEN = -1, -2, 0, 1, 2
TCP = ip4(tcp(), 6)


def regs_of(expr: Expr, given: bytes, size: int) -> bytes:
    verdict, regs = evaluate(expr, packet(TCP), regs=given)
    assert verdict == GO
    return regs[:size]


def test_immediate() -> None:
    assert regs_of(Immediate(1, b"\1\2\3\4\5"), b"", 12) == b"\1\2\3\4\5\0\0\0\xee\xee\xee\xee"


@pytest.mark.parametrize(
    ("op", "below", "same", "above"),
    [("eq", 0, 1, 0), ("neq", 1, 0, 1), ("lt", 1, 0, 0), ("lte", 1, 1, 0), ("gt", 0, 0, 1), ("gte", 0, 1, 1)],
)
def test_cmp(op: str, below: int, same: int, above: int) -> None:
    for value, goes in ((b"\0\xff", below), (b"\1\0", same), (b"\1\1", above)):
        assert (evaluate(Cmp(op, 1, b"\1\0"), packet(TCP), regs=value)[0] == GO) == bool(goes)


def test_range() -> None:
    for value, inside in ((b"\0\4", False), (b"\0\5", True), (b"\1\0", True), (b"\1\6", False)):
        assert (evaluate(Range("eq", 1, b"\0\5", b"\1\5"), packet(TCP), regs=value)[0] == GO) == inside
        assert (evaluate(Range("neq", 1, b"\0\5", b"\1\5"), packet(TCP), regs=value)[0] == GO) != inside


def test_bitwise_and_byteorder() -> None:
    assert regs_of(Bitwise(1, 2, b"\xf0\xff", b"\1\0"), b"\xab\xcd", 20)[16:] == b"\xa1\xcd\0\0"
    assert regs_of(BitwiseShift("lshift", 1, 1, 4, 4), (0x12345678).to_bytes(4, "little"), 4) == (0x23456780).to_bytes(4, "little")
    assert regs_of(BitwiseShift("rshift", 1, 1, 8, 8), (1).to_bytes(4, "little") + b"\0" * 4, 8) == b"\0" * 7 + b"\1"
    assert regs_of(BitwiseBool("or", 1, 2, 1, 4), b"\1\2\3\4" + b"\0" * 12 + b"\x10" * 4, 4) == b"\x11\x12\x13\x14"
    assert regs_of(BitwiseBool("and", 1, 2, 1, 4), b"\1\2\3\4" + b"\0" * 12 + b"\2" * 4, 4) == b"\0\2\2\0"
    assert regs_of(BitwiseBool("xor", 1, 2, 1, 4), b"\1\2\3\4" + b"\0" * 12 + b"\1" * 4, 4) == b"\0\3\2\5"
    assert regs_of(Byteorder("hton", 1, 1, 4, 2), b"\1\2\3\4", 4) == b"\2\1\4\3"
    assert regs_of(Byteorder("ntoh", 1, 2, 8, 8), bytes(range(8)), 24)[16:] == bytes(range(7, -1, -1))


def test_constructors_refuse() -> None:
    for make in (
        lambda: Cmp("is", 1, b"\0"),
        lambda: Cmp("eq", 5, b"\0"),
        lambda: Cmp("eq", 23, b"\0" * 5),
        lambda: Range("eq", 1, b"\2", b"\1"),
        lambda: BitwiseShift("lshift", 1, 1, 4, 32),
        lambda: Byteorder("hton", 1, 1, 3, 2),
        lambda: ImmediateVerdict("jump"),
        lambda: Numgen(1, "inc", 0),
        lambda: Numgen(1, "inc", 2, 0xFFFFFFFF),
        lambda: Limit(0),
        lambda: Log(level=3, group=1),
        lambda: Queue(65535, 2),
        lambda: Tproxy("", 1, None),
        lambda: Nat("snat", "inet", 1),
    ):
        with pytest.raises(ValueError):
            make()


def test_limit_to_the_nanosecond() -> None:
    services = Double()
    limit = Limit(10, "second", 5)
    pkt = packet(TCP)
    assert [evaluate(limit, pkt, services)[0] for _ in range(6)] == [GO] * 5 + [BREAK]
    services.clock.now += SECOND // 10 - 1
    assert evaluate(limit, pkt, services)[0] == BREAK
    services.clock.now += 1
    assert evaluate(limit, pkt, services)[0] == GO
    services.clock.now += 3600 * SECOND
    assert [evaluate(limit, pkt, services)[0] for _ in range(6)] == [GO] * 5 + [BREAK]


def test_limit_over_and_bytes() -> None:
    services = Double()
    pkt = packet(TCP)  # 40 bytes
    over = Limit(1, "minute", 1, invert=True)
    assert [evaluate(over, pkt, services)[0] for _ in range(2)] == [BREAK, GO]
    by_bytes = Limit(80, "second", 40, by_bytes=True)
    assert [evaluate(by_bytes, pkt, services)[0] for _ in range(4)] == [GO, GO, GO, BREAK]
    services.clock.now += SECOND // 2
    assert [evaluate(by_bytes, pkt, services)[0] for _ in range(2)] == [GO, BREAK]
    fresh = by_bytes.clone()
    assert evaluate(fresh, pkt, services)[0] == GO


def test_quota() -> None:
    quota, over = Quota(100), Quota(100, over=True)
    pkt = packet(TCP)
    assert [evaluate(quota, pkt)[0] for _ in range(4)] == [GO, GO, BREAK, BREAK]
    assert [evaluate(over, pkt)[0] for _ in range(4)] == [BREAK, BREAK, GO, GO]
    assert quota.consumed() == 100
    quota.reset()
    assert evaluate(quota, pkt)[0] == GO


def test_counter_and_last_carry_over() -> None:
    services = Double()
    counter, last = Counter(), Last()
    evaluate(counter, packet(TCP), services)
    evaluate(last, packet(TCP), services)
    other = Counter()
    other.restore(counter.state())
    assert (other.packets, other.bytes) == (1, 40)
    assert last.ago_ms(services.clock.now + 2 * SECOND) == 2000
    last.reset()
    assert last.ago_ms(0) is None


def test_connlimit_counts_live_connections() -> None:
    services = Double()
    table = ConnTable(services.clock)
    limit = Connlimit(2)
    conns = [table.template(0, 3) for _ in range(4)]
    verdicts = []
    for conn in conns:
        conn.status = 8
        conn.timeout = services.clock.now + 10 * SECOND
        pkt = packet(TCP)
        pkt.ct = conn
        verdicts.append(evaluate(limit, pkt, services)[0])
    assert verdicts == [GO, GO, BREAK, BREAK]
    conns[0].status |= 512
    conns[1].timeout = 0
    pkt = packet(TCP)
    pkt.ct = conns[2]
    limit.collect(services.clock.now, 10)
    assert evaluate(limit, pkt, services)[0] == GO
    assert evaluate(Connlimit(0, over=True), packet(TCP), services)[0] == GO


def test_numgen() -> None:
    inc = Numgen(1, "inc", 3, 100)
    assert [regs_of(inc, b"", 4)[0] for _ in range(5)] == [100, 101, 102, 100, 101]
    chance = Numgen(1, "random", 4, 1)
    assert {regs_of(chance, b"", 4)[0] for _ in range(1)} <= {1, 2, 3, 4}


# The self-test of Bob Jenkins' lookup3.c (driver5), whose hashlittle() is Linux's jhash()
JHASH = [
    (b"", 0, 0xDEADBEEF),
    (b"Four score and seven years ago", 0, 0x17770551),
    (b"Four score and seven years ago", 1, 0xCD628161),
]


@pytest.mark.parametrize(("data", "seed", "value"), JHASH)
def test_jhash_is_lookup3(data: bytes, seed: int, value: int) -> None:
    from userfw.engine.expressions.hash import jhash

    assert jhash(bytearray(data), 0, len(data), seed) == value


def test_jhash_expression_scales() -> None:
    first = regs_of(Jhash(1, 2, 4, 10, 0xDEADBEEF, 5), b"\0" * 16 + b"\x0a\0\0\1", 4)
    assert 5 <= first[0] < 15
    assert first == regs_of(Jhash(1, 2, 4, 10, 0xDEADBEEF, 5), b"\0" * 16 + b"\x0a\0\0\1", 4)


def test_symhash_is_symmetric() -> None:
    services = Double()
    symhash = Symhash(1, 1 << 31)
    pairs = [
        (ip4(tcp(1000, 80), 6), ip4(tcp(80, 1000), 6, src=b"\x0a\0\0\2", dst=b"\x0a\0\0\1")),
        (ip6(tcp(5, 6), 6), ip6(tcp(6, 5), 6, src=b"\xfd" + b"\0" * 14 + b"\2", dst=b"\xfd" + b"\0" * 14 + b"\1")),
        (ip4(udp(5, 6), 17, dst=b"\x0a\0\0\1"), ip4(udp(6, 5), 17, dst=b"\x0a\0\0\1")),
    ]
    seen = set()
    for there, back in pairs:
        a, b = (evaluate(symhash, packet(p), services)[1][:4] for p in (there, back))
        assert a == b
        seen.add(a)
    assert len(seen) == 3


def test_lookup_set_and_map() -> None:
    scope = TableScope()
    services = Double()
    scope.sets["s"] = make_set("s", 2, services.clock)
    scope.sets["s"].add(b"\0\x50")
    scope.sets["m"] = make_set("m", 2, services.clock, data_type=DATA_VALUE, dlen=2)
    scope.sets["m"].add(b"\0\x50", data=b"zz")
    scope.sets["v"] = make_set("v", 2, services.clock, data_type=DATA_VERDICT, exprs=(Counter(),))
    scope.sets["v"].add(b"\0\x50", data=Verdict(-3, "c", "CHAIN"))
    for expr, given, verdict in (
        (Lookup(1, "s"), b"\0\x50", GO),
        (Lookup(1, "s"), b"\0\x51", BREAK),
        (Lookup(1, "s", invert=True), b"\0\x50", BREAK),
        (Lookup(1, "s", invert=True), b"\0\x51", GO),
        (Lookup(1, "m", 2), b"\0\x51", BREAK),
        (Lookup(1, "v", 0), b"\0\x51", BREAK),
        (Lookup(1, "v", 0), b"\0\x50", -3),
    ):
        expr.bind(scope)
        assert evaluate(expr, packet(TCP), services, regs=given)[0] == verdict
    lookup = Lookup(1, "m", 2)
    lookup.bind(scope)
    assert regs_of(lookup, b"\0\x50", 20)[16:] == b"zz\0\0"
    (element,) = scope.sets["v"]
    assert element.exprs[0].packets == 1
    for wrong in (Lookup(1, "s", 2), Lookup(1, "v", 2), Lookup(1, "m", 0)):
        with pytest.raises(ValueError, match="EINVAL"):
            wrong.bind(scope)


def test_dynset() -> None:
    services = Double()
    scope = TableScope()
    table = scope.sets["d"] = make_set("d", 4, services.clock, SET_TIMEOUT, timeout=10 * SECOND, size=2)
    add, update, delete = (
        Dynset(op, 1, "d", exprs=(Limit(1, "hour", 1),) if op != "delete" else ()) for op in ("add", "update", "delete")
    )
    for expr in (add, update, delete):
        expr.bind(scope)
    pkt = packet(TCP)

    def run(expr: Expr, key: bytes) -> int:
        return evaluate(expr, pkt, services, regs=key)[0]

    assert run(add, b"aaaa") == GO
    assert run(add, b"aaaa") == BREAK  # the element's own limit is used up
    assert run(add, b"bbbb") == GO
    assert run(add, b"cccc") == BREAK  # full
    services.clock.now += 6 * SECOND
    run(add, b"aaaa")
    run(update, b"bbbb")
    services.clock.now += 5 * SECOND
    assert [e.key for e in table] == [b"bbbb"]  # add did not renew, update did
    assert run(add, b"cccc") == GO  # the dead one made room
    assert run(delete, b"bbbb") == GO
    assert [e.key for e in table] == [b"cccc"]
    with pytest.raises(ValueError, match="EOPNOTSUPP"):
        scope.sets["plain"] = make_set("plain", 4, services.clock)
        Dynset("add", 1, "plain", timeout=1000).bind(scope)


def test_what_an_element_s_expression_decides_stands() -> None:
    """`ct count` drops what has no tuple, in an element as in a rule (Linux: nft_set_elem_update_expr leaves the verdict)."""
    services = Double()
    scope = TableScope()
    scope.sets["d"] = make_set("d", 4, services.clock, size=9)
    add = Dynset("add", 1, "d", exprs=(Connlimit(5),))
    add.bind(scope)
    short = packet(ip4(b"\x80\0\0\0\0\0\0", 58))  # ICMPv6 in IPv4, cut short: Linux reads its identifier all the same
    assert evaluate(add, short, services, regs=b"aaaa")[0] == NF_DROP
    assert evaluate(Connlimit(5), short, services)[0] == NF_DROP
    later = packet(TCP)
    later.fragoff = 8
    assert evaluate(Connlimit(5), later, services)[0] == NF_DROP
    assert evaluate(add, packet(TCP), services, regs=b"bbbb")[0] == GO


def test_dynset_map() -> None:
    services = Double()
    scope = TableScope()
    table = scope.sets["m"] = make_set("m", 4, services.clock, data_type=DATA_VALUE, dlen=4)
    add = Dynset("add", 1, "m", sreg_data=2)
    add.bind(scope)
    evaluate(add, packet(TCP), services, regs=b"keyk".ljust(16, b"\0") + b"data")
    assert [(e.key, e.data) for e in table] == [(b"keyk", b"data")]


def test_objects() -> None:
    services = Double()
    scope = TableScope()
    counter = NamedObject(1, "c", Counter())
    scope.objects[1, "c"] = counter
    mark = NamedObject(8, "s", Secmark("system_u", 9))
    ref = Objref("counter", "c")
    ref.bind(scope)
    assert evaluate(ref, packet(TCP), services)[0] == GO
    table = scope.sets["o"] = make_set("o", 4, services.clock, data_type=DATA_OBJECT)
    table.add(b"aaaa", data=counter)
    table.add(b"bbbb", data=mark)
    by_map = ObjrefMap(1, "o")
    by_map.bind(scope)
    pkt = packet(TCP)
    assert [evaluate(by_map, pkt, services, regs=k)[0] for k in (b"aaaa", b"bbbb", b"cccc")] == [GO, GO, BREAK]
    assert (counter.expr.packets, pkt.secmark) == (2, 9)  # type: ignore[attr-defined]
    with pytest.raises(LookupError):
        Objref("quota", "c").bind(scope)


def test_reject() -> None:
    services = Double()
    for expr, data, call in (
        (Reject("icmp", 3), TCP, ("reject", 1, 1, 0, 3)),
        (Reject("icmpx", 3), TCP, ("reject", 1, 1, 0, 13)),
        (Reject("icmpx", 1), ip6(tcp(), 6), ("reject", 1, 1, 0, 4)),
        (Reject("tcp reset"), TCP, ("reject", 1, 1, 1, 0)),
    ):
        pkt = packet(data)
        assert evaluate(expr, pkt, services, hook=1)[0] == DROP
        assert pkt.drop_reason == DropReason.REJECT
        assert services.calls[-1] == call


def test_log_and_queue() -> None:
    services = Double()
    log = Log("hello", level=3)
    assert evaluate(log, packet(TCP), services)[0] == GO
    assert services.calls == [("log", 0, 1, log)]
    pkt = packet(TCP)
    ctx = context(services, pkt=pkt)
    assert (Queue(5, bypass=True).evaluate(ctx, pkt), ctx.queue, ctx.queue_flags) == (3, 5, 1)
    spread = Queue(10, 4)
    seen = set()
    for port in range(64):
        pkt = packet(ip4(tcp(port, 80), 6))
        ctx = context(services, pkt=pkt)
        spread.evaluate(ctx, pkt)
        seen.add(ctx.queue)
    assert seen == {10, 11, 12, 13}
    services.cpu = 6
    Queue(10, 4, fanout=True).evaluate(ctx, pkt)
    assert ctx.queue == 12
    ctx.regs[0:2] = b"\x34\x12"
    Queue(sreg=1).evaluate(ctx, pkt)
    assert ctx.queue == 0x1234


def test_tproxy() -> None:
    services = Double()
    services.verdict = 1
    assert evaluate(Tproxy("ip", 1, 2), packet(TCP), services, regs=b"\x7f\0\0\1".ljust(16, b"\0") + b"\x1f\x90")[0] == GO
    assert services.calls == [("tproxy", 2, b"\x7f\0\0\1", 8080)]
    services.verdict = 0
    assert evaluate(Tproxy("", None, 1), packet(TCP), services)[0] == BREAK
    assert evaluate(Tproxy("ip6", None, 1), packet(TCP), services)[0] == BREAK
    assert evaluate(Tproxy("ip", None, 1), packet(ip4(b"\0" * 8, 1)), services)[0] == BREAK


def test_synproxy() -> None:
    services = Double()
    expr = Synproxy(1460, 7, timestamp=True, sack_perm=True)
    assert evaluate(expr, packet(TCP), services)[0] == STOLEN
    assert services.calls == [("synproxy", 1460, 7, 15)]
    services.verdict = ACCEPT
    assert evaluate(expr, packet(TCP), services)[0] == GO
    services.verdict = DROP
    pkt = packet(TCP)
    assert evaluate(expr, pkt, services)[0] == DROP
    assert pkt.drop_reason == DropReason.SYNPROXY
    assert evaluate(expr, packet(ip4(udp(), 17)), services)[0] == BREAK


def test_dup_and_fwd() -> None:
    services = Double()
    device = services.devices[4] = Device("wan", 4)
    dev = (4).to_bytes(4, "little")
    assert evaluate(Dup(1), packet(TCP), services, family=2, regs=b"\1\2\3\4")[0] == GO
    assert services.calls[-1] == ("dup", 0, 2, b"\1\2\3\4", None)
    assert evaluate(Dup(None, 1), packet(TCP), services, family=5, regs=dev)[0] == GO
    assert services.calls[-1] == ("dup", 0, 5, None, device)
    assert evaluate(Fwd(1), packet(TCP), services, family=5, regs=dev)[0] == STOLEN
    pkt = packet(TCP)
    assert evaluate(Fwd(1), pkt, services, family=5, regs=b"\x63\0\0\0")[0] == DROP
    assert pkt.drop_reason == DropReason.DEVICE_DOWN
    pkt = packet(TCP)
    there = Fwd(1, 2, "ip")
    assert evaluate(there, pkt, services, family=5, regs=dev.ljust(16, b"\0") + b"\5\6\7\x08")[0] == STOLEN
    assert services.calls[-1] == ("fwd neighbour", device, 2, b"\5\6\7\x08", 63)
    pkt.put8(pkt.l3 + 8, 1)
    assert evaluate(there, pkt, services, family=5, regs=dev)[0] == DROP
    assert pkt.drop_reason == DropReason.TTL_EXPIRED
    assert evaluate(there, packet(ip6(tcp(), 6)), services, family=5, regs=dev)[0] == BREAK


def test_notrack_xfrm_tunnel() -> None:
    pkt = packet(TCP)
    evaluate(Notrack(), pkt)
    assert pkt.ctinfo == 4
    assert evaluate(Xfrm(1, "reqid", "in"), pkt)[0] == BREAK
    assert evaluate(Tunnel(1, "path"), pkt) == (GO, b"\0\0\0\0" + b"\xee" * 60)
    assert evaluate(Tunnel(1, "id"), pkt)[0] == BREAK


def test_flow_offload() -> None:
    class Table:
        answer = 1

        def add(self, pkt: object, hook: int) -> int:
            return self.answer

    scope = TableScope()
    table = scope.flowtables["f"] = Table()
    expr = FlowOffload("f")
    expr.bind(scope)
    assert evaluate(expr, packet(TCP))[0] == GO
    table.answer = 0
    assert evaluate(expr, packet(TCP))[0] == BREAK


def test_osf() -> None:
    services = Double()
    syn = struct.pack("!HHIIBBHHH", 1, 2, 3, 0, 10 << 4, 2, 29200, 0, 0) + b"\2\4\5\xb4\4\2\x08\x0a" + b"\0" * 8 + b"\1\3\3\7"
    pkt = packet(ip4(syn, 6, frag=0x4000))
    assert evaluate(Osf(1), pkt, services)[1][:16] == b"unknown".ljust(16, b"\0")
    services.fingerprints = Fingerprints(["# comment", "S10:64:1:60:M*,S,T,N,W7:Other:1:", "S20:64:1:60:M*,T,S,N,W7:Order:1:"])
    assert evaluate(Osf(1), pkt, services)[1][:16] == b"unknown".ljust(16, b"\0")
    good = "S20:64:1:60:M*,S,T,N,W7:Linux:3.10::Linux 3.10"
    body = struct.pack("!HHIIBBHHH", 1, 2, 3, 0, 10 << 4, 2, 29200, 0, 0) + b"\2\4\5\xb4\4\2\x08\x0a" + b"\0" * 8 + b"\1\3\3\7"
    services.fingerprints = Fingerprints([good])
    assert len(ip4(body, 6)) == 60
    assert evaluate(Osf(1, version=True), packet(ip4(body, 6, frag=0x4000)), services)[1][:10] == b"Linux:3.10"
    assert evaluate(Osf(1), packet(ip4(tcp(flags=16), 6)), services)[0] == BREAK
    assert evaluate(Osf(1), packet(ip6(tcp(), 6)), services)[0] == BREAK


def natting() -> tuple[Double, object]:
    services = Double()
    services.conntrack = ConnTable(services.clock)
    services.nat = NatCore(services.conntrack)
    conn = services.conntrack.template(0, 3)
    conn.status = 0
    for t, src, dst, sport, dport in ((conn.orig, 1, 2, 1000, 80), (conn.reply, 2, 1, 80, 1000)):
        t.l3num, t.l4proto, t.src_lo, t.dst_lo, t.sport, t.dport = 2, 6, 0x0A000000 + src, 0x0A000000 + dst, sport, dport
    pkt = packet(TCP)
    pkt.ct, pkt.ctinfo = conn, 1
    return services, pkt


def test_nat_chooses_a_mapping() -> None:
    services, pkt = natting()
    regs = b"\xc0\0\2\1".ljust(16, b"\0") + b"\x1f\x90"
    assert evaluate(Nat("dnat", "ip", 1, None, 2, None, 2), pkt, services, regs=regs)[0] == ACCEPT  # type: ignore[arg-type]
    reply = pkt.ct.reply  # type: ignore[attr-defined]
    assert (reply.src_lo, reply.sport) == (0xC0000201, 8080)
    assert evaluate(Nat("snat", "ip6", 1), pkt, services, regs=regs)[0] == BREAK  # type: ignore[arg-type]
    assert evaluate(Nat("snat", "ip", 1), packet(TCP), services, regs=regs)[0] == BREAK


def test_masquerade_and_redirect() -> None:
    from userfw.core.packet import Address

    services, pkt = natting()
    pkt.oif = Device("wan", 4)  # type: ignore[attr-defined]
    pkt.oif.addresses = [Address(2, 0, 0xC6336401, 24)]  # type: ignore[attr-defined]
    assert evaluate(Masq(), pkt, services, hook=4)[0] == ACCEPT  # type: ignore[arg-type]
    assert pkt.ct.reply.dst_lo == 0xC6336401  # type: ignore[attr-defined]
    services, pkt = natting()
    pkt.iif = Device("lan", 3)  # type: ignore[attr-defined]
    pkt.iif.addresses = [Address(2, 0, 0x0A0000FE, 24)]  # type: ignore[attr-defined]
    assert evaluate(Redir(1), pkt, services, regs=b"\0\x51")[0] == ACCEPT  # type: ignore[arg-type]
    assert (pkt.ct.reply.src_lo, pkt.ct.reply.sport) == (0x0A0000FE, 81)  # type: ignore[attr-defined]
    assert evaluate(Masq(), packet(TCP), services)[0] == BREAK
    assert evaluate(Redir(), packet(TCP), services)[0] == BREAK
