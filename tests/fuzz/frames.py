"""Frames for fuzzing: well-formed seeds of every protocol that userfw parses, and mutations of them.

Deterministic for a given `random.Random`; a mutation costs a few microseconds, so that ten million are minutes.
"""

from collections.abc import Iterator
from random import Random

from scapy.all import (
    ARP,
    GRE,
    ICMP,
    IP,
    SCTP,
    TCP,
    UDP,
    Dot1Q,
    Ether,
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    ICMPv6ND_NS,
    ICMPv6ND_RS,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6PacketTooBig,
    IPerror,
    IPOption_RR,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    Raw,
    TCPerror,
)

GATEWAY = "02:00:00:00:01:01"
HOST = "02:00:00:00:01:02"


def seeds(gateway4: str, host4: str, far4: str, gateway6: str, host6: str, far6: str) -> list[bytes]:
    """One frame of each kind, as `host` sends them to `far` through the gateway, or to the gateway itself."""
    link = Ether(dst=GATEWAY, src=HOST)
    four = IP(src=host4, dst=far4, id=7)
    six = IPv6(src=host6, dst=far6)
    data = Raw(b"userfw" * 20)
    options = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (1, 0)), ("NOP", None), ("WScale", 7)]
    inner = IP(src=far4, dst=host4) / TCP(sport=80, dport=40000)
    packets = [
        link / four / TCP(sport=40000, dport=80, flags="S", options=options),
        link / four / TCP(sport=40000, dport=80, flags="A") / data,
        link / four / TCP(sport=40000, dport=80, flags="FA"),
        link / four / TCP(sport=40000, dport=80, flags="R"),
        link / four / UDP(sport=5000, dport=53) / data,
        link / four / ICMP(type=8, id=3, seq=1) / data,
        link / four / ICMP(type=3, code=4) / IPerror(bytes(inner)),
        link / four / ICMP(type=11) / IPerror(src=far4, dst=host4) / TCPerror(sport=80, dport=40000),
        link / four / SCTP(sport=1, dport=2) / data,
        link / four / GRE(proto=0x0800) / IP(src=host4, dst=far4) / UDP() / data,
        link / IP(src=host4, dst=far4, options=[IPOption_RR()]) / UDP(sport=1, dport=2) / data,
        link / IP(src=host4, dst=far4, flags="MF", id=9) / UDP(sport=1, dport=2) / Raw(b"x" * 64),
        link / IP(src=host4, dst=far4, frag=9, id=9, proto=17) / Raw(b"y" * 64),
        link / IP(src=host4, dst=far4, ttl=1) / UDP(sport=1, dport=2) / data,
        link / IP(src=host4, dst=gateway4) / ICMP() / data,
        link / IP(src=host4, dst=gateway4) / TCP(dport=22, flags="S"),
        Ether(dst="ff:ff:ff:ff:ff:ff", src=HOST) / ARP(op=1, hwsrc=HOST, psrc=host4, pdst=gateway4),
        link / ARP(op=2, hwsrc=HOST, psrc=host4, hwdst=GATEWAY, pdst=gateway4),
        link / six / TCP(sport=40000, dport=80, flags="S", options=options),
        link / six / UDP(sport=5000, dport=53) / data,
        link / six / ICMPv6EchoRequest(id=3) / data,
        link / six / ICMPv6PacketTooBig(mtu=1280) / IPv6(src=far6, dst=host6) / UDP() / data,
        link / six / ICMPv6DestUnreach() / IPv6(src=far6, dst=host6) / TCP(),
        link / six / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / UDP() / data,
        link / six / IPv6ExtHdrRouting(addresses=[far6]) / UDP() / data,
        link / six / IPv6ExtHdrFragment(m=1, id=5) / UDP() / Raw(b"z" * 56),
        link / six / IPv6ExtHdrFragment(offset=8, id=5, nh=17) / Raw(b"z" * 56),
        link / IPv6(src=host6, dst=gateway6, hlim=255) / ICMPv6ND_NS(tgt=gateway6) / ICMPv6NDOptSrcLLAddr(lladdr=HOST),
        link / IPv6(src=host6, dst="ff02::2", hlim=255) / ICMPv6ND_RS(),
        Ether(dst=GATEWAY, src=HOST) / Dot1Q(vlan=5) / four / UDP() / data,
        Ether(dst=GATEWAY, src=HOST) / Dot1Q(vlan=5) / Dot1Q(vlan=6) / six / UDP() / data,
        Ether(dst=GATEWAY, src=HOST, type=0x88B5) / data,
    ]
    return [bytes(packet) for packet in packets]


def mutations(rng: Random, corpus: list[bytes], count: int) -> Iterator[bytearray]:
    """`count` frames: a seed with a few bytes changed, cut, grown, spliced with another, or left whole (one in eight)."""
    interesting = (0, 1, 4, 5, 6, 0x45, 0x60, 0x7F, 0x80, 0xFF)
    choice, below = rng.choice, rng.randrange
    for _ in range(count):
        frame = bytearray(choice(corpus))
        kind = below(8)
        if kind == 0:
            yield frame
            continue
        for _ in range(1 + below(4)):
            # headers matter most: half of the changes hit the first 64 bytes
            frame[below(min(len(frame), 64) if below(2) else len(frame))] = choice(interesting) if below(2) else below(256)
        if kind == 1:
            del frame[below(len(frame)) :]
        elif kind == 2:
            frame += bytes(below(64))
        elif kind == 3:
            other = choice(corpus)
            at = below(min(len(frame), len(other)))
            frame[at:] = other[at:]
        yield frame
