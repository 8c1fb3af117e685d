"""Stateless filters as eBPF against what they mean and against the engine, in the kernel's own test run (no device, no traffic)."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from scapy.layers.inet import IP, TCP, UDP, IPOption_RR
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Raw
from userfw_hw.bpf import forward
from userfw_hw.bpf.edges import TC, XDP, Edge
from userfw_hw.bpf.filters import FIELDS, LIMIT, FilterList

from userfw.core.const import NF_DROP
from userfw.offload.contract import Actions, FieldMatch, Filter, Match
from userfw.offload.stateless import Lifter, fields_untrusted, matches
from userfw.ports import bpf as syscall

sys.path.append(str(Path(__file__).parents[1] / "tests" / "offload"))
from stateless_lab import CAN, CHAIN, MACS, PORTS, RULESET, V4, V6, Lab, frames

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="bpf(2) needs root")

TYPES = {XDP: syscall.PROG_TYPE_XDP, TC: syscall.PROG_TYPE_SCHED_CLS}
REDIRECTED = {XDP: 4, TC: 7}
LO = 1  # of the kernel's test run of a tc program


class Bench:
    """One program with a list of filters and no flows."""

    def __init__(self, edge: Edge, filters: list[Filter]) -> None:
        self.edge = edge
        self.flows = syscall.Map(syscall.MAP_TYPE_HASH, forward.KEY_SIZE, forward.VALUE_SIZE, 16, "test")
        self.list = FilterList(filters, mark=7)
        code = forward.build(edge, self.flows.fd, LO, [bytes(6)], filters=self.list)
        self.program = syscall.load(TYPES[edge], code, "test")

    def run(self, frame: bytes) -> str:
        verdict, after, _ = syscall.test_run(self.program, frame)
        assert after == frame
        passed = self.edge.passed & 0xFFFFFFFF
        return {passed: "up", self.edge.dropped: "drop", REDIRECTED[self.edge]: "forward"}[verdict]

    def counters(self) -> list[tuple[int, int]]:
        return [(record.packets, record.bytes) for record in self.list.statistics()]

    def close(self) -> None:
        os.close(self.program)
        self.list.close()
        self.flows.close()


@pytest.fixture(params=[XDP, TC], ids=["xdp", "tc"])
def edge(request: pytest.FixtureRequest) -> Edge:
    made: Edge = request.param
    return made


def decide(filters: list[Filter], frame: bytes) -> tuple[str, list[int]]:
    """What the contract says: verdict, and which filters count."""
    counted = []
    for at, item in enumerate(filters):
        if matches(item.tests, frame):
            counted.append(at)
            if item.verdict != "continue":
                return {"accept": "up"}.get(item.verdict, item.verdict), counted
    return "up", counted


def length(frame: bytes) -> int:
    """Bytes of the network layer, without a tag."""
    return len(frame) - (18 if "vlan_id" in fields_untrusted(frame) else 14)


def random_frame(rng: Random) -> bytes:
    """Around the fields of the filters, many with something odd."""
    frame = Ether(dst="02:00:00:00:00:02", src=rng.choice(MACS))
    for _ in range(rng.choice((0, 0, 0, 1, 1, 2))):
        frame /= rng.choice((Dot1Q, Dot1AD))(vlan=rng.choice((10, 11, 266)), prio=rng.randrange(8))
    if rng.randrange(2):
        frame /= IP(src=rng.choice(V4), dst=rng.choice(V4), options=[IPOption_RR()] * rng.choice((0, 0, 1)))
        frame.getlayer(IP).flags = rng.choice((0, 0, "DF", "MF"))
        frame.getlayer(IP).frag = rng.choice((0, 0, 0, 9))
    else:
        frame /= IPv6(src=rng.choice(V6), dst=rng.choice(V6))
        for _ in range(rng.choice((0, 0, 1, 2, 5))):
            frame /= IPv6ExtHdrDestOpt(options=[])
        if not rng.randrange(6):
            frame /= IPv6ExtHdrFragment(offset=rng.choice((0, 5)))
    frame /= rng.choice((TCP, UDP))(sport=rng.choice(PORTS), dport=rng.choice(PORTS)) / Raw(rng.randbytes(rng.randrange(40)))
    made = bytearray(bytes(frame))
    if not rng.randrange(6):
        del made[rng.randrange(54, max(55, len(made))) :]
    if not rng.randrange(6):
        made[rng.randrange(len(made))] = rng.randrange(256)
    return bytes(made)


def random_filter(rng: Random, id: int, edge: Edge) -> Filter:
    """Tests of fields that a random frame has, some under a mask, some of its values changed."""
    fields = fields_untrusted(random_frame(rng))
    tests = []
    for key in rng.sample(sorted(fields), rng.randrange(0, min(5, len(fields)))):
        value = fields[key]
        mask = b"\xff" * len(value)
        if key != "vlan_id" and not rng.randrange(2):
            mask = (0xFF << rng.randrange(8 * len(value)) & int.from_bytes(mask, "big")).to_bytes(len(value), "big")
            if not rng.randrange(3):
                mask = rng.randbytes(len(value))
        tests.append(FieldMatch(key, bytes(a & b for a, b in zip(value, mask, strict=True)), mask))
    verdict = rng.choice(("accept", "drop", "drop", "forward", "continue"))
    copies = (("lo", LO),) if edge is TC and verdict == "continue" else ()
    return Filter(id, tuple(tests), verdict, ("lo", LO) if verdict == "forward" else ("", 0), copies)


def test_random_lists_do_what_filters_mean(edge: Edge) -> None:
    rng = Random(20_261_123)
    seen = dict.fromkeys(("up", "drop", "forward"), 0)
    for _ in range(60):
        filters = [random_filter(rng, id, edge) for id in range(1, rng.randrange(2, 12))]
        bench = Bench(edge, filters)
        try:
            expected = [[0, 0] for _ in filters]
            for frame in (random_frame(rng) for _ in range(60)):
                if len(frame) < 54:
                    continue
                verdict, counted = decide(filters, frame)
                for at in counted:
                    expected[at][0] += 1
                    expected[at][1] += length(frame)
                assert bench.run(frame) == verdict, (frame.hex(), filters)
                seen[verdict] += 1
            assert bench.counters() == [tuple(item) for item in expected]
        finally:
            bench.close()
    assert min(seen.values()) > 200 and sum(seen.values()) > 3000


@settings(max_examples=300, deadline=None)
@given(frames())
def test_programs_decide_and_count_as_the_engine(frame: bytes) -> None:
    engine, rules, benches = _engine()
    frame = frame.ljust(54, b"\0")
    verdict = "drop" if engine.software(frame) == NF_DROP else "up"
    for bench in benches:
        assert bench.run(frame) == verdict
        counted = [(rule.counter.packets, rule.counter.bytes) for rule in rules]
        assert bench.counters() == counted


def _engine(made: list[Any] = []) -> Any:  # noqa: B006  (one for all examples)
    if not made:
        lab = Lab(hardware=False)
        counting = RULESET.replace("drop", "counter drop").replace("accept", "counter accept").replace("counter counter", "counter")
        assert not lab.run(CHAIN % counting)
        (table,) = lab.rules.rules.tables.values()
        rules = [Lifter(2).lift(rule.program.exprs) for rule in table.chains["c"].rules]
        filters = [rule.filter(id, lambda index: ("lo", LO)) for id, rule in enumerate(rules, 1)]
        made += [lab, rules, [Bench(kind, filters) for kind in (XDP, TC)]]
    return made


def test_flows_come_before_filters(edge: Edge) -> None:
    """As with every driver, and as the flowtable comes before chains of higher priority: a flow's packet meets no filter, unless it
    is one that flows pass up."""
    match = Match("in", LO, 17, bytes((10, 1, 2, 3)), bytes((10, 9, 9, 9)), 22, 53)
    bench = Bench(edge, [Filter(1, (FieldMatch("ipv4_dst", match.destination, b"\xff" * 4),), "drop")])
    try:
        actions = Actions("out", 2, match.source, match.destination, 22, 53, bytes(6), bytes(6))
        bench.flows[forward.key(match)] = forward.value(match, actions)

        def frame(port: int, ttl: int = 64) -> bytes:
            ip = IP(src="10.1.2.3", dst="10.9.9.9", ttl=ttl) / UDP(sport=port, dport=53) / Raw(b"x" * 20)
            return bytes(Ether(dst="00:00:00:00:00:00") / ip)

        for sent, verdict in ((frame(22), REDIRECTED[edge]), (frame(23), edge.dropped), (frame(22, 1), edge.dropped)):
            assert syscall.test_run(bench.program, sent)[0] == verdict
        entry = bench.flows.get(forward.key(match))
        assert entry is not None and forward.counters(entry)[0] == 1
        assert [packets for packets, _ in bench.counters()] == [2]
    finally:
        bench.close()


def test_every_key_is_known() -> None:
    keys = {key for rule in CAN.values() for key in rule} | set(fields_untrusted(random_frame(Random(1))))
    assert keys <= set(FIELDS)


def test_headers_that_are_not_in_the_frame_match_nothing(edge: Edge) -> None:
    """An IPv4 header length below five words, and one beyond the frame."""
    udp = FieldMatch("udp_dport", b"\0\x35", b"\xff\xff")
    bench = Bench(edge, [Filter(1, (udp,), "drop")])
    try:
        frame = bytearray(bytes(Ether(dst="02:00:00:00:00:02") / IP(src="1.2.3.4") / UDP(dport=53) / Raw(b"x" * 20)))
        assert bench.run(bytes(frame)) == "drop"
        for first in (0x44, 0x4F, 0x55):
            frame[14] = first
            assert bench.run(bytes(frame)) == "up"
    finally:
        bench.close()


def test_long_lists_are_verified_and_too_long_ones_refused(edge: Edge) -> None:
    def item(id: int) -> Filter:
        tests = (
            FieldMatch("protocol", b"\x86\xdd", b"\xff\xff"),
            FieldMatch("ipv6_src", id.to_bytes(16, "big"), b"\xff" * 16),
            FieldMatch("ip_proto", b"\x11", b"\xff"),
            FieldMatch("udp_dport", (id & 0xFFFF).to_bytes(2, "big"), b"\xff\xff"),
        )
        return Filter(id, tests, "drop")

    many = [item(id) for id in range(1, 3000)]
    whole = FilterList(many)
    refused = whole.too_long(edge)
    whole.close()
    assert refused is not None and refused.id > 700
    bench = Bench(edge, many[: refused.id - 2])
    try:
        last = many[refused.id - 3]
        frame = Ether(dst="02:00:00:00:00:02") / IPv6(src=f"::{last.id:x}", dst="::1") / UDP(dport=last.id & 0xFFFF)
        assert bench.run(bytes(frame)) == "drop" and bench.counters()[-1][0] == 1
    finally:
        bench.close()
    assert LIMIT < 0x7FFF - 1000
