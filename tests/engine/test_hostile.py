"""Hostile bytes: no expression raises, whatever the packet; nothing reads past its end."""

from __future__ import annotations

import random

import engine_corpus as corpus
import pytest
from engine_double import Double, context, ip4, ip6, packet, tcp, udp
from hypothesis import given, settings
from hypothesis import strategies as st

from userfw.core.packet import Packet
from userfw.engine.expr import Expr
from userfw.engine.expressions import Exthdr, ExthdrReset, ExthdrSet, Fwd, Inner, Meta, Osf, Payload, PayloadSet, Symhash
from userfw.engine.fingerprint import Fingerprints
from userfw.wire.parse import parse_untrusted

EXPRS: list[Expr] = [
    *(Exthdr(1, op, kind, 2, 4, present) for op in ("ipv6", "tcpopt", "ipv4", "sctp") for kind in (0, 2, 7, 43, 44) for present in (True, False)),  # noqa: E501
    *(Exthdr(1, "dccp", kind, 0, 1, True) for kind in (5, 40)),
    *(Payload(1, base, offset, length) for base in ("link", "network", "transport", "inner") for offset in (0, 13, 60) for length in (1, 4, 16)),  # noqa: E501
    *(PayloadSet(1, base, offset, 4, 1, 10, 1) for base in ("network", "transport", "inner") for offset in (0, 12)),
    *(Inner(kind, Payload(1, base, 4, 8)) for kind in ("vxlan", "geneve", "gre", "gretap") for base in ("link", "network", "transport", "tunnel")),  # noqa: E501
    PayloadSet(1, "transport", 0, 2, 2, 8, 0), PayloadSet(1, "link", 12, 4), ExthdrSet(1, "tcpopt", 2, 2, 2), ExthdrSet(1, "tcpopt", 8, 2, 4),  # noqa: E501
    ExthdrReset("tcpopt", 2), Symhash(1, 7), Osf(1), Meta(1, "pkttype"), Fwd(1, 2, "ip"), Fwd(1, 2, "ip6"),
]  # fmt: skip
SEEDS = [
    ip4(tcp(options=b"\2\4\5\xb4\1\1\x08\x0a" + b"\0" * 8), 6), ip4(udp(payload=b"x" * 60), 17), ip4(b"\1\2\3\4" * 9, 132), ip4(b"\7" * 40, 33),  # noqa: E501
    ip4(b"\x20\0\x08\0" + ip4(tcp(), 6), 47), ip6(b"\x2b\0" + b"\0" * 6 + b"\x2c\0" + b"\0" * 6 + tcp(), 0), ip6(b"\x06\0\0\x08" + b"\0" * 4 + tcp(), 44),  # noqa: E501
]  # fmt: skip


def judge(pkt: Packet) -> None:
    services = Double()
    services.fingerprints = Fingerprints(["S20:64:1:60:M*,S,T,N,W7:Linux:3.10:"])
    end = pkt.end
    for expr in EXPRS:
        for family in (1, 5):
            ctx = context(services, family, 0, pkt)
            assert expr.evaluate(ctx, pkt) in (-1, -2, 0, 2)
            assert pkt.end == end


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 79), st.integers(0, 255)), max_size=8),
    st.integers(0, 100),
    st.booleans(),
)
def test_mutated_packets(seed: bytes, changes: list[tuple[int, int]], cut: int, link: bool) -> None:
    data = bytearray(seed)
    for at, value in changes:
        if at < len(data):
            data[at] = value
    judge(packet(bytes(data[: max(len(data) - cut, 0)]), link=link, ethertype=0x86DD if seed[0] >> 4 == 6 else 0x800))


def test_unparsed_and_empty_frames() -> None:
    rng = random.Random(1)
    for size in (0, 1, 13, 14, 15, 20, 34, 60):
        pkt = Packet()
        pkt.load_frame(rng.randbytes(size))
        parse_untrusted(pkt)
        judge(pkt)


@pytest.mark.skipif(not corpus.FOLDER.is_dir(), reason=f"no conformance data in {corpus.FOLDER}")
def test_every_load_of_the_corpus_on_rubbish() -> None:
    rng = random.Random(2)
    loads = [corpus.build(line) for line in corpus.lines() if line.split()[1] in ("payload", "exthdr", "meta", "ct", "inner")]
    for _ in range(15):
        pkt = Packet()
        pkt.load_frame(b"\2" * 12 + rng.choice((b"\x08\0", b"\x86\xdd")) + rng.choice(SEEDS)[: rng.randint(20, 60)])
        parse_untrusted(pkt)
        services = Double()
        for expr in loads:
            assert expr.evaluate(context(services, 1, 0, pkt), pkt) in (-1, -2)
