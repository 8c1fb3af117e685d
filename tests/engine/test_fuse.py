"""Fused rules do what unfused rules do: random rules and every rule of the corpus, over packets of many kinds."""

from __future__ import annotations

import random
import struct

import engine_corpus as corpus
import pytest
from engine_double import Double, base, ip4, ip6, packet, tcp, udp

from userfw.core.packet import Device, Packet
from userfw.engine.bind import TableScope
from userfw.engine.expr import Expr
from userfw.engine.expressions import Bitwise, Cmp, Counter, Ct, Immediate, ImmediateVerdict, Lookup, Meta, MetaSet, Payload, Range
from userfw.engine.fuse import fused
from userfw.engine.rule import Rule

DROP = ImmediateVerdict("drop")


def packets() -> list[Packet]:
    eth0, eth1 = Device("eth0", 1), Device("eth17", 17)
    made = []
    for n, data in enumerate(
        (
            ip4(tcp(1000, 80), 6),
            ip4(tcp(22, 22, options=b"\2\4\5\xb4"), 6),
            ip4(udp(53, 53), 17),
            ip4(b"\x08\0\0\0\0\1\0\1", 1),
            ip4(b"\1" * 8, 6, frag=1),
            ip4(b"\1\2", 6),
            ip4(b"", 17),
            ip6(tcp(1, 80), 6),
            ip6(udp(), 17),
            ip6(b"\x80\0\0\0" * 2, 58),
            ip6(b"\x06\0" + b"\0" * 6 + tcp(), 60),
            b"\0\1\x08\0\6\4\0\1" + b"\1" * 20,
        )
    ):
        ethertype = 0x806 if n == 11 else None
        for vlan in (b"", b"\x81\0\0\5"):
            pkt = packet(data, vlan=vlan, ethertype=ethertype, iif=eth0 if n % 3 else None)
            pkt.oif = eth1 if n % 2 else None
            pkt.mark = n
            pkt.ctinfo = n % 6
            made.append(pkt)
    return made


def differ(exprs: tuple[Expr, ...], family: int, scope: TableScope | None = None) -> list[int]:
    """Indexes of packets that a rule, fused and not, treats differently."""
    results = []
    for fuse in (True, False):
        services = Double()
        chain = base(services, [(*exprs, DROP)], scope, family=family, fuse=fuse)
        outcome = []
        for pkt in packets():
            verdict = chain.run(pkt, 0)
            outcome.append((verdict, pkt.mark, pkt.frame()))
        results.append(outcome)
    return [i for i, (a, b) in enumerate(zip(*results, strict=True)) if a != b]


STATELESS = {"payload", "meta", "ct", "cmp", "range", "bitwise", "byteorder", "immediate", "exthdr", "rt", "inner", "counter"}


@pytest.mark.skipif(not corpus.FOLDER.is_dir(), reason=f"no conformance data in {corpus.FOLDER}")
def test_every_rule_of_the_corpus() -> None:
    families = {"ip": 2, "ip6": 10, "inet": 1, "netdev": 5, "bridge": 7, "arp": 3}
    count = shorter = 0
    seen = set()
    for family, lines in corpus.rules():
        if family not in families or any(line.split()[1] not in STATELESS for line in lines):
            continue
        if (family, *lines) in seen or any("immediate reg 0" in line for line in lines):
            continue
        seen.add((family, *lines))
        exprs = corpus.true_length(tuple(corpus.build(line) for line in lines))
        count += 1
        shorter += len(fused(exprs)) < len(exprs)
        assert differ(exprs, families[family]) == [], lines
    assert count > 500
    assert shorter > count * 0.6


def random_rule(rng: random.Random) -> tuple[Expr, ...]:
    rule: list[Expr] = []
    for _ in range(rng.randint(1, 4)):
        reg = rng.choice((1, 2, 8, 9, 10))
        kind = rng.randrange(6)
        if kind < 3:
            length = rng.choice((1, 2, 4, 6, 8, 16)) if reg < 3 else 4
            load: Expr = Payload(reg, rng.choice(("link", "network", "transport")), rng.randint(0, 24), length)
        elif kind == 3:
            key = rng.choice(("l4proto", "nfproto", "protocol", "mark", "iif", "oif", "pkttype", "len"))
            load = Meta(reg, key)
            length = load.length
        elif kind == 4:
            load, length, reg = Meta(1, rng.choice(("iifname", "oifname"))), rng.choice((3, 16)), 1
        else:
            load, length = Ct(reg, "state"), 4
        rule.append(load)
        if kind != 4 and rng.random() < 0.4:
            mask = bytes(rng.choice((0, 0xF0, 0xFF)) for _ in range(length))
            rule.append(Bitwise(reg, reg, mask, bytes(rng.choice((0, 0, 1)) for _ in range(length))))
        want = rng.choice((b"\6", b"\x0a\0\0\1", b"\0\x50", b"eth", bytes(16), b"\2\0\0\0", rng.randbytes(16)))
        want = want.ljust(length, b"\0")[:length]
        if rng.random() < 0.2:
            other = rng.randbytes(length)
            rule.append(Range(rng.choice(("eq", "neq")), reg, min(want, other), max(want, other)))
        else:
            rule.append(Cmp(rng.choice(("eq", "eq", "neq", "lt", "lte", "gt", "gte")), reg, want))
        if rng.random() < 0.2:
            rule.append(Bitwise(reg, 1, b"\xff\xff\0\0", b"\0\1\0\0"))
            rule.append(MetaSet(1, "mark"))
    return tuple(rule)


def test_random_rules() -> None:
    rng = random.Random(11)
    for _ in range(400):
        rule = random_rule(rng)
        assert differ(rule, rng.choice((1, 2, 5, 7))) == [], rule


def test_registers_that_are_read_later_are_kept() -> None:
    rule = (Payload(1, "network", 12, 4), Cmp("neq", 1, b"\0" * 4), MetaSet(1, "mark"))
    assert [type(e).__name__ for e in fused(rule)] == ["Payload", "Cmp", "MetaSet"]
    assert differ(rule, 2) == []
    again = (*rule[:2], Immediate(1, b"\1\0\0\0"), MetaSet(1, "mark"))
    assert [type(e).__name__ for e in fused(again)] == ["PayloadTest", "Immediate", "MetaSet"]


def test_typical_rules_become_short() -> None:
    dport = (Meta(1, "l4proto"), Cmp("eq", 1, b"\6"), Payload(1, "transport", 2, 2), Cmp("eq", 1, b"\0\x16"), Counter(), DROP)
    assert len(fused(dport)) == 3
    state = (Ct(1, "state"), Bitwise(1, 1, struct.pack("<I", 6), bytes(4)), Cmp("neq", 1, bytes(4)), DROP)
    assert len(fused(state)) == 2
    rule = Rule((Payload(1, "transport", 2, 2), Lookup(1, "s")))
    assert rule.count == 2
