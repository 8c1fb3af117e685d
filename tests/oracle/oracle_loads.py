"""What rules read: payload, extension headers, options, meta, ct, routes, sockets, numbers (Linux: nft_payload.c and its kin)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import oracle_tunnels as tunnels
from oracle_program import Unsupported, op
from oracle_skb import ETH_IP, ETH_IP6, GRE, PF, SCTP, TCP, UDP, Break

if TYPE_CHECKING:
    from oracle_machine import Groups, Machine
    from oracle_skb import Skb
    from oracle_surroundings import Dev, Flow


def inner_offset(skb: Skb) -> int:
    """Where the payload of the transport begins (Linux: __nft_payload_inner_offset)."""
    at = skb.transport
    if skb.tprot == UDP:
        return at + 8
    if skb.tprot == TCP:
        skb.take(at, 20)
        return at + (skb.data[at + 12] >> 4) * 4
    if skb.tprot == GRE:
        flags = int.from_bytes(skb.take(at, 4)[:2], "big")
        if flags & 7 or flags & 0x4000:
            raise Break
        return at + 4 + sum(4 for bit in (0x8000, 0x2000, 0x1000) if flags & bit)
    if skb.tprot == 4:
        return at
    raise Break


def base(skb: Skb, name: str) -> int:
    if name == "link":
        if skb.link < 0:
            raise Break
        return skb.link
    if name == "network":
        return skb.network
    return skb.transport if name == "transport" else inner_offset(skb)


@op(r"payload load (\d+)b @ (link|network|transport|inner) header \+ (\d+) => reg (\d+)")
def payload(m: Machine, g: Groups) -> None:
    size, offset, skb = int(g[1]), int(g[3]), m.skb
    if g[2] == "transport" and skb.tprot >= 0 and size in (1, 2, 4) and offset % size == 0:
        # the quick way of aligned loads asks for no fragment
        at = skb.network + skb.thoff + offset
        if at + size <= len(skb.data):
            m.store(g[4], bytes(skb.data[at : at + size]))
            return
    m.store(g[4], skb.take(base(skb, g[2]) + offset, size))


@op(r"inner type (\d) hdrsize (\d+) flags (\w) \[ payload load (\d+)b @ (\w+) header \+ (\d+) => reg (\d+) \]")
def inner_payload(m: Machine, g: Groups) -> None:
    inside = tunnels.parse(m.skb, int(g[1]), int(g[2]), int(g[3], 16), inner_offset(m.skb))
    start = getattr(inside, g[5])
    if start < 0:
        raise Break
    m.store(g[7], m.skb.take(start + int(g[6]), int(g[4])))


@op(r"inner type (\d) hdrsize (\d+) flags (\w) \[ meta load (\w+) => reg (\d+) \]")
def inner_meta(m: Machine, g: Groups) -> None:
    inside = tunnels.parse(m.skb, int(g[1]), int(g[2]), int(g[3], 16), inner_offset(m.skb))
    if g[4] == "protocol":
        m.store(g[5], inside.protocol.to_bytes(2, "big"))
    elif inside.transport < 0:
        raise Break
    else:
        m.host(g[5], inside.l4proto, 1)


# --- extension headers and options


@op(r"exthdr load ipv6 (\d+)b @ (\d+) \+ (\d+)( present)? => reg (\d+)")
def ipv6_header(m: Machine, g: Groups) -> None:
    if m.skb.protocol != ETH_IP6:
        if g[4]:
            m.host(g[5], 0, 1)
            return
        raise Break
    found = m.skb.find_header(m.skb.network, int(g[2]))
    _option(m, g, found[1] if found else None)


@op(r"exthdr load ipv4 (\d+)b @ (\d+) \+ (\d+)( present)? => reg (\d+)")
def ip_option(m: Machine, g: Groups) -> None:
    if m.skb.protocol != ETH_IP:
        raise Break
    found = m.skb.ip_option(int(g[2])) if int(g[2]) in (7, 131, 137, 148) else None
    _option(m, g, m.skb.network + found if found is not None else None)


def _option(m: Machine, g: Groups, at: int | None) -> None:
    """The byte of presence, or the bytes themselves."""
    if g[4]:
        m.host(g[5], at is not None, 1)
    elif at is None:
        raise Break
    else:
        m.store(g[5], m.skb.take(at + int(g[3]), int(g[1])))


@op(r"exthdr load tcpopt (\d+)b @ (\d+) \+ (\d+)( present)? => reg (\d+)")
def tcp_option(m: Machine, g: Groups) -> None:
    try:
        found = m.skb.find_tcp_option(int(g[2]))
        if found is None or found[0] + found[1] > found[2] or int(g[1]) + int(g[3]) > found[1]:
            raise Break
    except Break:
        if not g[4]:
            raise
        m.host(g[5], 0, 1)
        return
    _option(m, g, found[0])


@op(r"exthdr load (?:sctp )?(\d+)b @ (\d+) \+ (\d+)( present)? => reg (\d+)")
def sctp_chunk(m: Machine, g: Groups) -> None:
    _option(m, g, _chunk(m.skb, int(g[2]), int(g[3]) + int(g[1]), bool(g[4])))


def _chunk(skb: Skb, kind: int, size: int, present: bool) -> int | None:
    """Where the first chunk of this type is, if it is long enough; a later fragment is read as if it were the first."""
    if skb.tprot != SCTP:
        return None
    at = skb.network + skb.thoff + 12
    while at + 4 <= len(skb.data):
        length = skb.be16(at + 2)
        if length == 0:
            return None
        if skb.data[at] == kind:
            return at if present or (size <= length and at + length <= len(skb.data)) else None
        at += (length + 3) // 4 * 4
    return None


# --- meta


def _name(dev: Dev | None) -> bytes:
    return (dev.name.encode() if dev else b"").ljust(16, b"\0")


def _day(m: Machine) -> tuple[int, int]:
    seconds = (m.world.now + m.world.wall) // 1_000_000_000
    return (seconds // 86400 + 4) % 7, seconds % 86400


@op(r"meta load (\w+) => reg (\d+)")
def meta(m: Machine, g: Groups) -> None:
    key, skb, world = g[1], m.skb, m.world
    numbers = {
        "mark": skb.mark, "priority": skb.priority, "secmark": skb.secmark, "len": skb.length, "cpu": world.cpu, "sdif": 0,
        "iif": world.iif.index if world.iif else 0, "oif": world.oif.index if world.oif else 0,
    }  # fmt: skip
    if key in numbers:
        m.host(g[2], numbers[key])
    elif key == "protocol":
        m.store(g[2], skb.protocol.to_bytes(2, "big"))
    elif key == "nfproto":
        m.host(g[2], skb.pf, 1)
    elif key == "l4proto":
        if skb.tprot < 0:
            raise Break
        m.host(g[2], skb.tprot, 1)
    elif key == "pkttype":
        m.host(g[2], skb.pkttype, 1)
    elif key == "secpath":
        m.host(g[2], 0, 1)
    elif key in ("iifname", "oifname", "sdifname"):
        m.store(g[2], _name({"iifname": world.iif, "oifname": world.oif}.get(key)))
    elif key == "prandom":
        m.host(g[2], m.draw())
    elif key in ("time", "day", "hour"):
        day, hour = _day(m)
        size = {"time": 8, "day": 1, "hour": 4}[key]
        m.host(g[2], {"time": world.now + world.wall, "day": day, "hour": hour}[key], size)
    else:
        _rare_meta(m, key, g[2])


def _rare_meta(m: Machine, key: str, register: str) -> None:
    """Keys that break without a device, a socket or a route."""
    world = m.world
    if key in ("skuid", "skgid", "cgroup"):
        # skb->sk is set on what the host sends, and by early demux on what comes in for an established socket
        demuxed = world.iif is None or (m.skb.hook == "input" and world.sock is not None and world.sock.established)
        if world.sock is None or not demuxed:
            raise Break
        m.host(register, {"skuid": world.sock.uid, "skgid": world.sock.gid, "cgroup": world.cgroup}[key])
    elif key == "rtclassid":
        if world.route is None:
            raise Break
        m.host(register, world.route.realm)
    elif key in ("bri_iifname", "bri_oifname"):
        dev = world.iif if key == "bri_iifname" else world.oif
        m.store(register, _name(dev.master if dev else None))
    elif key == "ibrhwaddr":
        if world.iif is None or world.iif.master is None:
            raise Break
        m.store(register, world.iif.master.mac)
    elif key in ("bri_iifpvid", "bri_iifvproto"):
        raise Break  # a bridge without VLAN filtering
    else:
        # iiftype is that of skb->dev, which leaves already (seen on Linux 6.18)
        leaving = key == "iiftype" and m.skb.hook in ("egress", "postrouting")
        _device(m, key, register, world.iif if key.startswith("iif") and not leaving else world.oif)


def _device(m: Machine, key: str, register: str, dev: Dev | None) -> None:
    if dev is None:
        raise Break
    kind = key.removeprefix("iif").removeprefix("oif")
    if kind == "type":
        m.host(register, dev.type, 2)
    elif kind == "group":
        m.host(register, dev.group)
    elif kind == "kind":
        if not dev.kind:
            raise Break
        m.store(register, dev.kind.encode().ljust(16, b"\0"))
    else:
        raise Unsupported(f"meta {key}")


# --- conntrack

STATES = {"invalid": 1, "established": 2, "related": 4, "new": 8, "untracked": 64}


@op(r"ct load (\w+) => reg (\d+)(?: , dir (\w+))?")
def ct(m: Machine, g: Groups) -> None:
    key, conn = g[1], m.world.ct
    if key == "state":
        m.host(g[2], STATES[m.world.state])
        return
    if conn is None:
        raise Break
    if key in ("mark", "status", "secmark", "id"):
        m.host(g[2], getattr(conn, key))
    elif key == "expiration":
        m.host(g[2], conn.expires if conn.status & 8 else 0)  # IPS_CONFIRMED: before, Linux takes the whole time for a deadline
    elif key == "direction":
        m.host(g[2], m.world.reply, 1)
    elif key == "label":
        m.store(g[2], conn.labels)
    elif key in ("l3protocol", "protocol"):
        m.host(g[2], conn.l3 if key == "l3protocol" else conn.l4, 1)
    elif key == "zone":
        bit = {None: 3, "original": 1, "reply": 2}[g[3]]
        m.host(g[2], conn.zone if conn.zone_directions & bit else 0, 2)
    elif key in ("packets", "bytes", "avgpkt"):
        which = {None: (0, 1), "original": (0,), "reply": (1,)}[g[3]]
        packets, octets = sum(conn.packets[i] for i in which), sum(conn.octets[i] for i in which)
        average = octets // packets if packets else 0
        m.host(g[2], {"packets": packets, "bytes": octets, "avgpkt": average}[key], 8)
    elif key == "helper":
        if not conn.helper:
            raise Break
        m.store(g[2], conn.helper.encode().ljust(16, b"\0"))
    else:
        _tuple(m, key, g[2], conn.reply if g[3] == "reply" else conn.original)


def _tuple(m: Machine, key: str, register: str, flow: Flow) -> None:
    if key.startswith("proto_"):
        m.store(register, (flow.sport if key == "proto_src" else flow.dport).to_bytes(2, "big"))
        return
    address = flow.src if key.startswith("src") else flow.dst
    if (key.endswith("_ip") and len(address) != 4) or (key.endswith("_ip6") and len(address) != 16):
        raise Break
    m.store(register, address)


# --- routes, sockets, fingerprints, numbers


@op(r"rt load (\w+) => reg (\d+)")
def rt(m: Machine, g: Groups) -> None:
    route, key = m.world.route, g[1]
    if route is None:
        raise Break
    if key == "classid":
        m.host(g[2], route.realm)
    elif key == "ipsec":
        m.host(g[2], route.ipsec, 1)
    elif key == "tcpmss":
        least = 40 if m.skb.pf == PF["ip"] else 60
        m.host(g[2], route.mtu - least if least < route.mtu <= 0xFFFF else 536, 2)
    else:
        if m.skb.pf != (PF["ip"] if key == "nexthop4" else PF["ip6"]):
            raise Break
        m.store(g[2], route.nexthop)


@op(r"fib ([\w .]+?) (oif|oifname|type)( present)? => reg (\d+)")
def fib(m: Machine, g: Groups) -> None:
    """`present` tells of the device; without a route the index is 0 and the name empty."""
    kind, dev = m.world.fib if m.world.fib is not None else (0, None)
    if m.skb.protocol not in (ETH_IP, ETH_IP6):
        raise Break
    if g[2] == "type":
        m.host(g[4], kind)
    elif g[3]:
        m.host(g[4], dev is not None, 1)
    elif g[2] == "oif":
        m.host(g[4], dev.index if dev else 0)
    else:
        m.store(g[4], _name(dev))


@op(r"socket load (\w+) => reg (\d+)")
def socket(m: Machine, g: Groups) -> None:
    sock = m.world.sock
    if sock is None:
        raise Break
    if g[1] == "mark":
        m.host(g[2], sock.mark)
    else:
        m.host(g[2], sock.transparent if g[1] == "transparent" else sock.wildcard, 1)


@op(r"osf dreg (\d+)")
def osf(m: Machine, g: Groups) -> None:
    """No fingerprints are loaded here: every SYN is of an unknown system."""
    at = m.skb.transport
    if m.skb.tprot != TCP or m.skb.protocol != ETH_IP or not m.skb.take(at, 20)[13] & 2:
        raise Break
    m.store(g[1], b"unknown".ljust(16, b"\0"))


@op(r"numgen reg (\d+) = (inc|random) mod (\d+)(?: offset (\d+))?")
def numgen(m: Machine, g: Groups) -> None:
    modulus = int(g[3])
    if g[2] == "inc":
        last = m.state([modulus - 1])
        last[0] = number = last[0] + 1 if last[0] + 1 < modulus else 0
    else:
        number = m.draw() * modulus >> 32
    m.host(g[1], (number + int(g[4] or 0)) & 0xFFFFFFFF)


@op(r"hash reg (\d+) = jhash\(reg (\d+), (\d+), 0x(\w+)\) % mod (\d+)(?: offset (\d+))?")
def jhash(m: Machine, g: Groups) -> None:
    seed = int(g[4], 16)
    if not seed and not m.program.seeded:
        drawn = m.state([])
        if not drawn:
            drawn.append(m.draw())
        seed = drawn[0]
    value = jenkins(m.get(g[2], int(g[3])), seed) * int(g[5]) >> 32
    m.host(g[1], (value + int(g[6] or 0)) & 0xFFFFFFFF)


def jenkins(key: bytes, seed: int) -> int:
    """Bob Jenkins' lookup3 as include/linux/jhash.h has it, on a little-endian machine."""
    mask = 0xFFFFFFFF

    def rol(value: int, by: int) -> int:
        return (value << by | value >> (32 - by)) & mask

    a = b = c = (0xDEADBEEF + len(key) + seed) & mask
    while len(key) > 12:
        a, b, c = ((x + int.from_bytes(key[i : i + 4], "little")) & mask for i, x in ((0, a), (4, b), (8, c)))
        a = ((a - c) & mask) ^ rol(c, 4)
        c = (c + b) & mask
        b = ((b - a) & mask) ^ rol(a, 6)
        a = (a + c) & mask
        c = ((c - b) & mask) ^ rol(b, 8)
        b = (b + a) & mask
        a = ((a - c) & mask) ^ rol(c, 16)
        c = (c + b) & mask
        b = ((b - a) & mask) ^ rol(a, 19)
        a = (a + c) & mask
        c = ((c - b) & mask) ^ rol(b, 4)
        b = (b + a) & mask
        key = key[12:]
    if not key:
        return c
    key = key.ljust(12, b"\0")
    a, b, c = ((x + int.from_bytes(key[i : i + 4], "little")) & mask for i, x in ((0, a), (4, b), (8, c)))
    c = ((c ^ b) - rol(b, 14)) & mask
    a = ((a ^ c) - rol(c, 11)) & mask
    b = ((b ^ a) - rol(a, 25)) & mask
    c = ((c ^ b) - rol(b, 16)) & mask
    a = ((a ^ c) - rol(c, 4)) & mask
    b = ((b ^ a) - rol(a, 14)) & mask
    return ((c ^ b) - rol(b, 24)) & mask


@op(r"hash reg (\d+) = symhash.*")
def symhash(m: Machine, g: Groups) -> None:
    raise Unsupported("symhash is keyed with a secret of the kernel")


@op(r"xfrm load .*")
def xfrm(m: Machine, g: Groups) -> None:
    raise Break  # no IPsec transforms here


@op(r"tunnel load (\w+) => reg (\d+)")
def tunnel(m: Machine, g: Groups) -> None:
    """Packets here come with no tunnel metadata."""
    if g[1] != "path":
        raise Break
    m.host(g[2], 0, 1)
