"""The rule machine alone against the kernel's: rules of the corpus, bytecode as nft lists it, many frames, counters compared.

The kernel gets `RULE counter` at priority -500 (before defragmentation); the engine gets the very expressions that nft printed
when it loaded the rule. A second test compares frames that rules have rewritten and sent back, byte for byte.
"""

from __future__ import annotations

import os
import random
import re
import socket
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab import netns

from userfw.core.const import NFPROTO_INET, NFPROTO_IPV4, NFPROTO_IPV6, NFPROTO_NETDEV, PACKET_OUTGOING
from userfw.core.packet import Device, Packet
from userfw.engine.expr import Expr
from userfw.wire.parse import parse_untrusted, trim

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "engine"))

import engine_corpus as corpus
from engine_double import Double, base, csum, ip4, ip6, tcp, udp, with_l4_csum

HERE, THERE = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
FAMILIES = {"ip": NFPROTO_IPV4, "ip6": NFPROTO_IPV6, "inet": NFPROTO_INET, "netdev": NFPROTO_NETDEV}
FILES = {
    "inet": ["inet/tcp.t", "inet/udp.t", "inet/sctp.t", "inet/dccp.t", "inet/icmp.t", "inet/ah.t", "inet/comp.t", "inet/esp.t", "any/tcpopt.t"],  # noqa: E501
    "ip": ["ip/ip.t", "ip/icmp.t", "any/rawpayload.t"],
    "ip6": ["ip6/ip6.t", "ip6/icmpv6.t", "ip6/exthdr.t", "ip6/dst.t", "ip6/hbh.t", "ip6/frag.t", "ip6/rt.t", "ip6/mh.t"],
    "netdev": ["inet/ip.t", "any/rawpayload.t"],
}  # fmt: skip
MORE = [
    "tcp flags & (syn|ack) == syn", "tcp flags syn", "meta length > 60", "meta pkttype host", "meta l4proto != 6", "ip ttl > 32", "ip dscp ef",  # noqa: E501
    "ip option ra exists", "ip option rr ptr 4", "exthdr frag exists", "frag frag-off 1", "tcp option maxseg size 1460", "sctp chunk init exists",  # noqa: E501
    "tcp option timestamp exists", "tcp option 253 exists", "dccp type request", "th dport 80", "@th,0,16 22", "@th,0,24 0x010203",
    "@ih,0,8 > 5", "@ih,32,32 1", "meta iiftype ether", "ether saddr 02:00:00:00:00:01", "ct state invalid",
]  # fmt: skip
WRITES = [
    "ip saddr set 1.2.3.4", "ip daddr set 255.1.0.1", "ip ttl set 7", "ip dscp set cs3", "ip protocol set 136", "ip length set 20",
    "tcp dport set 8080", "tcp flags set syn", "tcp checksum set 0", "udp dport set 5353", "udp sport set 0", "udp checksum set 0x1234",  # noqa: E501
    "tcp option maxseg size set 500", "tcp option maxseg size set 9000", "tcp option timestamp tsval set 5", "reset tcp option timestamp",  # noqa: E501
    "ip6 daddr set fd00::99", "ip6 hoplimit set 9", "ip6 dscp set ef", "ip6 flowlabel set 0x12345", "icmp code set 7", "icmpv6 code set 1",  # noqa: E501
    "ether saddr set 02:03:04:05:06:07", "@nh,96,32 set 0x01020304", "@th,16,16 set 80", "@ih,0,16 set 0x5566", "ip saddr set ip daddr",  # noqa: E501
]  # fmt: skip
STATEMENT = re.compile(
    r"\b(accept|drop|queue|log|reject|dup|fwd|redirect|masquerade|snat|dnat|tproxy|synproxy|notrack|quota|limit|counter|count|last|jump|goto|set)\b"
)


def rules(family: str) -> list[str]:
    """Plain matches of the corpus that need no set, and some more."""
    found = list(MORE)
    for name in FILES[family]:
        path = corpus.FOLDER / name
        for line in path.read_text().splitlines() if path.is_file() else ():
            parts = line.strip().split(";")
            if len(parts) > 1 and parts[1] == "ok" and parts[0][:1] not in set(":*!?%-#") and not re.search(r"[{@]", parts[0]):
                if not STATEMENT.search(parts[0]):
                    found.append(parts[0])
    return list(dict.fromkeys(found))


def body(rng: random.Random) -> tuple[int, bytes]:
    """A transport protocol and its bytes."""
    sport, dport = rng.choice((22, 80, 53, 1000, 0x1234)), rng.choice((22, 80, 53, 443))
    payload = rng.randbytes(rng.choice((0, 1, 3, 8, 40)))
    options = rng.choice((b"", b"\2\4\5\xb4", b"\2\4\5\xb4\1\3\3\7\4\2\x08\x0a" + b"\5" * 8, b"\1\1\2\x09", b"\xfd\4ab"))
    return rng.choice((
        (6, tcp(sport, dport, rng.randrange(256), options, payload)),
        (6, tcp(sport, dport, 2, options)),
        (17, udp(sport, dport, payload)),
        (1, struct.pack("!BBHI", rng.choice((0, 8, 3, 11)), rng.randrange(4), 0, rng.getrandbits(32)) + payload),
        (58, struct.pack("!BBHI", rng.choice((128, 129, 1, 2)), rng.randrange(4), 0, 7) + payload),
        (132, struct.pack("!HHII", sport, dport, 3, 4) + b"\1\0\0\x14" + b"a" * 16 + b"\0\3\0\x14" + rng.randbytes(16)),
        (33, struct.pack("!HHBBHB", sport, dport, 5, 0, 0, rng.randrange(10) << 1) + rng.randbytes(23)),
        (rng.choice((50, 51, 108, 136)), rng.randbytes(24)),
    ))  # fmt: skip


def frame(rng: random.Random) -> bytes:
    """An IPv4 or IPv6 packet to the router, with options, extension headers, fragments."""
    proto, inner = body(rng)
    if proto == 58 or rng.random() < 0.5:
        near, far = b"\xfd" + b"\0" * 14 + b"\5", b"\xfd" + b"\0" * 14 + b"\2"
        before = rng.random()
        if before < 0.3:
            data = ip6(inner, proto, near, far)
            data = with_l4_csum(data) if proto in (6, 17, 58) else data
        elif before < 0.6:
            data = ip6(bytes((proto, 0)) + b"\1\4\0\0\0\0" + inner, rng.choice((0, 60)), near, far)
        else:
            data = ip6(bytes((proto, 0)) + struct.pack("!HI", rng.choice((0, 1, 8, 9)), 77) + inner, 44, near, far)
        return THERE + HERE + b"\x86\xdd" + data
    options = rng.choice((b"", b"", b"\x94\4\0\0", b"\x07\7\4\0\0\0\0\0"))
    data = bytearray(ip4(inner, proto, frag=rng.choice((0, 0, 0, 0x4000, 0x2000, 5)), options=options))
    data[1], data[8] = rng.choice((0, 0xB8, 3)), rng.choice((64, 1, 33))
    data[10:12] = b"\0\0"
    data[10:12] = csum(bytes(data[: 20 + len(options)])).to_bytes(2, "big")
    whole = with_l4_csum(bytes(data)) if proto in (6, 17) and data[6:8] in (b"\0\0", b"\x40\0") else bytes(data)
    return THERE + HERE + b"\x08\0" + whole


def frames(rng: random.Random, count: int) -> list[bytes]:
    """Frames that both parse (what the receive path refuses is compared elsewhere)."""
    made: list[bytes] = []
    while len(made) < count:
        candidate = frame(rng)
        if parsed(candidate) is not None:
            made.append(candidate)
    return made


def parsed(data: bytes, device: Device | None = None) -> Packet | None:
    pkt = Packet()
    pkt.load_frame(data)
    pkt.iif = device
    return None if parse_untrusted(pkt) else pkt


class Wire:
    """Two namespaces and a veth; the far end has the rules."""

    def __init__(self) -> None:
        self.near, self.far = f"uf{os.getpid()}-exprA", f"uf{os.getpid()}-exprB"

    def up(self) -> None:
        netns.create(self.near)
        netns.create(self.far)
        netns.run(["ip", "link", "add", "v0", "netns", self.near, "type", "veth", "peer", "name", "v1", "netns", self.far])
        for ns, name, mac in ((self.near, "v0", HERE), (self.far, "v1", THERE)):
            netns.sysctl(ns, **{f"ipv6__conf__{name}__disable_ipv6": int(ns == self.near)})
            netns.run(["ip", "link", "set", name, "address", mac.hex(":"), "up"], ns=ns)
            netns.run(["ethtool", "-K", name, "rx", "off", "tx", "off", "gro", "off"], ns=ns, check=False)
        netns.sysctl(self.far, ipv4__conf__all__rp_filter=0, ipv4__conf__v1__rp_filter=0)
        netns.run(["ip", "addr", "add", "10.0.0.2/24", "dev", "v1"], ns=self.far)
        netns.run(["ip", "addr", "add", "fd00::2/64", "dev", "v1", "nodad"], ns=self.far)
        self.device = Device("v1", netns.within(self.far, lambda: socket.if_nametoindex("v1")), THERE)

    def down(self) -> None:
        netns.delete(self.near)
        netns.delete(self.far)

    def nft(self, text: str, *options: str) -> str | None:
        done = netns.run(["nft", *options, "-f", "-"], ns=self.far, text=text, check=False)
        return None if done.returncode else done.stdout

    def chain(self, family: str) -> None:
        hook = "ingress device v1 priority 0" if family == "netdev" else "prerouting priority -500"
        # after three seconds without a neighbour the kernel sends errors to itself, by `lo`: not counted
        own = "" if family == "netdev" else 'iifname != "v1" accept'
        text = f"flush ruleset\ntable {family} t {{\nchain c {{ type filter hook {hook};\n{own}\n}}\n}}\n"
        assert self.nft(text) is not None

    def add(self, family: str, rule: str) -> tuple[Expr, ...] | None:
        """Load one rule; its expressions as nft lists them, or None if this nft or kernel does not take it."""
        listing = self.nft(f"add rule {family} t c {rule}\n", "--debug=netlink")
        if listing is None:
            return None
        lines = [line.strip() for line in listing.splitlines()]
        return corpus.true_length(tuple(corpus.build(line) for line in lines if line.startswith("[")))

    def counters(self, family: str) -> list[tuple[int, int]]:
        text = netns.run(["nft", "list", "chain", family, "t", "c"], ns=self.far).stdout
        found = [re.findall(r"counter packets (\d+) bytes (\d+)", line) for line in text.splitlines()]
        return [(int(pair[-1][0]), int(pair[-1][1])) for pair in found if pair]

    def socket(self) -> socket.socket:
        def make() -> socket.socket:
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            made.bind(("v0", 3))
            made.settimeout(0.01)
            return made

        return netns.within(self.near, make)


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    made = Wire()
    try:
        made.up()
        yield made
    finally:
        made.down()


def seen_by(family: str, pkt: Packet | None) -> bool:
    """Whether chains of the family see the packet."""
    if pkt is None or family == "netdev":
        return pkt is not None
    trim(pkt)
    return pkt.nfproto in ((2, 10) if family == "inet" else (FAMILIES[family],))


@pytest.mark.skipif(not corpus.FOLDER.is_dir(), reason=f"no conformance data in {corpus.FOLDER}")
@pytest.mark.parametrize("family", FAMILIES)
def test_rules_of_the_corpus_count_what_the_kernel_counts(wire: Wire, family: str, request: pytest.FixtureRequest) -> None:
    rng = random.Random(request.config.getoption("--seed"))
    wire.chain(family)
    loaded: list[tuple[str, tuple[Expr, ...]]] = []
    for rule in rules(family):
        exprs = wire.add(family, f"{rule} counter")
        if exprs is None:
            continue
        if any(expr.kind == "lookup" for expr in exprs):  # nft made a set of it, which its listing does not name
            wire.chain(family)
            for earlier, _ in loaded:
                wire.add(family, f"{earlier} counter")
        else:
            loaded.append((rule, exprs))
    chain = base(Double(), [exprs for _, exprs in loaded], family=FAMILIES[family])
    sent = frames(rng, 300)
    with wire.socket() as out:
        for data in sent:
            out.send(data)
            time.sleep(0.0002)
            pkt = parsed(data, wire.device)
            if pkt is not None and seen_by(family, pkt):
                chain.run(pkt, 0)
    settled(wire, family)
    wrong = []
    for (rule, exprs), kernel in zip(loaded, wire.counters(family), strict=True):
        counter: Any = exprs[-1]
        if (counter.packets, counter.bytes) != kernel:
            wrong.append((rule, kernel, (counter.packets, counter.bytes)))
    assert not wrong
    assert len(loaded) > 20


def settled(wire: Wire, family: str) -> None:
    """Wait until the counters stand still."""
    before: list[tuple[int, int]] = []
    while (now := wire.counters(family)) != before:
        before = now
        time.sleep(0.05)


@pytest.mark.skipif(not corpus.FOLDER.is_dir(), reason=f"no conformance data in {corpus.FOLDER}")
def test_written_frames_are_the_kernels_byte_for_byte(wire: Wire, request: pytest.FixtureRequest) -> None:
    rng = random.Random(request.config.getoption("--seed"))
    sent = frames(rng, 25)
    wrong = []
    rewritten = 0
    for rule in WRITES:
        wire.chain("netdev")
        exprs = wire.add("netdev", f'{rule} fwd to "v1"')
        if exprs is None:
            continue
        wire.nft("add rule netdev t c drop\n")
        with wire.socket() as wired:
            for data in sent:
                wired.send(data)
                kernel = answer(wired)
                services = Double()
                services.devices[wire.device.index] = wire.device
                pkt = parsed(data, wire.device)
                assert pkt is not None
                verdict = base(services, [exprs], family=NFPROTO_NETDEV).run(pkt, 0)
                own = pkt.frame() if verdict == 2 else None
                rewritten += own is not None
                if own != kernel:
                    wrong.append((rule, data.hex(), kernel and kernel.hex(), own and own.hex()))
    assert not wrong
    assert rewritten > 100


def answer(wired: socket.socket) -> bytes | None:
    """What came back, or None; what the far kernel says of its own accord is not meant."""
    deadline = time.monotonic() + 0.02
    while time.monotonic() < deadline:
        try:
            data, address = wired.recvfrom(65535)
        except TimeoutError:
            return None
        if address[2] != PACKET_OUTGOING and data[0] & 1 == 0 and data[12:14] != b"\x08\x06":
            return data
    return None
