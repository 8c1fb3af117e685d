"""What rules do beside reading and writing the packet: meta and ct set, counters and limits, verdicts that take the packet."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from oracle_program import Unsupported, op
from oracle_skb import ETH_IP, ETH_IP6, TCP, UDP, Break

if TYPE_CHECKING:
    from oracle_machine import Groups, Machine

SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604800}


@op(r"meta set (\w+) with reg (\d+)")
def meta(m: Machine, g: Groups) -> None:
    key = g[1]
    if key in ("mark", "priority", "secmark"):
        setattr(m.skb, key, m.u32(g[2]))
    elif key == "nftrace":
        m.skb.trace = m.get(g[2], 1) != b"\0"
    elif key == "pkttype":
        value = m.get(g[2], 1)[0]
        if value <= 3 and m.skb.pkttype <= 3:
            m.skb.pkttype = value
    else:
        m.effects.append((key, m.get(g[2], 1)[0] != 0))


@op(r"ct set (\w+) with reg (\d+)(?: , dir (\w+))?")
def ct(m: Machine, g: Groups) -> None:
    """Without an entry nothing happens, but a zone is for packets that have none yet."""
    conn = m.world.ct
    if g[1] == "zone":
        if conn is None:
            directions = {None: 3, "original": 1, "reply": 2}[g[3]]
            m.effects.append(("zone", int.from_bytes(m.get(g[2], 2), "little"), directions))
    elif conn is None:
        return
    elif g[1] in ("mark", "secmark"):
        setattr(conn, g[1], m.u32(g[2]))
    elif g[1] == "label":
        conn.labels = bytes(a | b for a, b in zip(conn.labels, m.get(g[2], 16), strict=True))
    else:
        conn.events = m.u32(g[2])


@op(r"counter pkts (\d+) bytes (\d+)")
def counter(m: Machine, g: Groups) -> None:
    count = m.state([int(g[1]), int(g[2])])
    count[0] += 1
    count[1] += m.skb.length
    m.effects.append(("counter", *count))


@op(r"last (?:never|\d+)")
def last(m: Machine, g: Groups) -> None:
    pass


@op(r"limit rate (\d+)/(\w+) burst (\d+) type (\w+) flags 0x(\d)")
def limit(m: Machine, g: Groups) -> None:
    """A bucket of nanoseconds (Linux: nft_limit_eval); it is full at first."""
    rate, period, burst = int(g[1]), SECONDS[g[2]] * 1_000_000_000, int(g[3])
    packets = g[4] == "packets"
    most = period // rate * burst if packets else period * (rate + burst) // rate
    bucket = m.state([most, m.world.now])
    tokens = min(bucket[0] + m.world.now - bucket[1], most)
    cost = period // rate if packets else period * m.skb.length // rate
    within = tokens >= cost
    bucket[:] = [tokens - cost if within else tokens, m.world.now]
    if within == (g[5] == "1"):
        raise Break


@op(r"quota bytes (\d+) consumed (\d+) flags (\d)")
def quota(m: Machine, g: Groups) -> None:
    used = m.state([int(g[2])])
    used[0] += m.skb.length
    if (used[0] > int(g[1])) != (g[3] == "1"):
        raise Break


@op(r"connlimit count (\d+) flags (\d)")
def connlimit(m: Machine, g: Groups) -> None:
    """Every packet here has its own unconfirmed connection, which is counted for two ticks (8 ms)."""
    if m.world.ct is None and m.skb.tprot < 0:
        m.end("drop")
    raise Unsupported("ct count needs a table of live connections")


@op(r"objref type (\d+) name (\S+)")
def objref(m: Machine, g: Groups) -> None:
    raise Unsupported("the block names an object but does not hold it")


@op(r"objref sreg (\d+) set (\S+)")
def objref_map(m: Machine, g: Groups) -> None:
    raise Unsupported("the block does not name the map's data")


@op(r"notrack")
def notrack(m: Machine, g: Groups) -> None:
    if m.world.ct is None and m.world.state != "untracked":
        m.effects.append(("notrack",))


@op(r"log ?(.*)")
def log(m: Machine, g: Groups) -> None:
    m.effects.append(("log", " ".join(g[1].split())))


# --- verdicts that somebody else gives


def taken(m: Machine) -> None:
    if m.world.takes != "accept":
        m.end(m.world.takes)


@op(r"queue num (\d+)(?:-(\d+))?(.*)")
def queue(m: Machine, g: Groups) -> None:
    first, last = int(g[1]), int(g[2] or g[1])
    if first == last:
        m.effects.append(("queue", first, first, "bypass" in g[3]))
    elif "fanout" in g[3]:
        number = first + m.world.cpu % (last - first + 1)
        m.effects.append(("queue", number, number, "bypass" in g[3]))
    else:
        m.effects.append(("queue", first, last, "bypass" in g[3]))
    m.end("queue")


@op(r"queue sreg_qnum (\d+)(.*)")
def queue_register(m: Machine, g: Groups) -> None:
    number = m.u32(g[1]) & 0xFFFF
    m.effects.append(("queue", number, number, "bypass" in g[2]))
    m.end("queue")


UNREACH = {0: (0, 0), 1: (3, 4), 2: (1, 3), 3: (13, 1)}
"""Codes of icmpx: no route, port, host, administratively prohibited, for ICMP and ICMPv6."""


@op(r"reject type (\d) code (\d+)")
def reject(m: Machine, g: Groups) -> None:
    kind, code, skb = int(g[1]), int(g[2]), m.skb
    six = skb.protocol == ETH_IP6
    if skb.family in ("bridge", "netdev"):
        if skb.link < 0 or skb.data[0] & 1 or skb.protocol not in (ETH_IP, ETH_IP6):
            m.end("drop")
    if skb.tprot < 0:
        m.end("drop")  # Linux sends no answer where it finds no transport header (reject6_csum_ok)
    m.effects.append(("reject", 1, 0) if kind == 1 else ("reject", 0, UNREACH[code][six] if kind == 2 else code))
    m.end("drop")


@op(r"tproxy(?: (ip6?))?(?: addr reg (\d+))?(?: port reg (\d+))?")
def tproxy(m: Machine, g: Groups) -> None:
    skb = m.skb
    if skb.tprot not in (TCP, UDP) or (g[1] and skb.protocol != (ETH_IP if g[1] == "ip" else ETH_IP6)):
        raise Break
    skb.take(skb.transport, 8)
    address = m.get(g[2], 4 if skb.protocol == ETH_IP else 16) if g[2] else b""
    m.effects.append(("tproxy", address, int.from_bytes(m.get(g[3], 2), "big") if g[3] else 0))
    if not m.world.tproxied:
        raise Break


@op(r"synproxy mss (\d+) wscale (\d+)")
def synproxy(m: Machine, g: Groups) -> None:
    skb = m.skb
    if skb.tprot != TCP:
        raise Break
    try:
        skb.take(skb.transport, 20)
    except Break:
        m.end("drop")
    m.effects.append(("synproxy", int(g[1]), int(g[2])))
    taken(m)


@op(r"dup(?: sreg_addr (\d+))?(?: sreg_dev (\d+))?")
def dup(m: Machine, g: Groups) -> None:
    address = m.get(g[1], 4 if m.skb.protocol == ETH_IP else 16) if g[1] else b""
    device = _device(m, g[2])
    if device or not g[2]:
        m.effects.append(("dup", address, device))


def _device(m: Machine, register: str | None) -> str:
    """The name of the device whose index a register holds."""
    index = m.u32(register) if register else 0
    return next((dev.name for dev in m.world.devices if dev.index == index), "")


@op(r"fwd sreg_dev (\d+)")
def fwd(m: Machine, g: Groups) -> None:
    name = _device(m, g[1])
    if not name:
        m.end("drop")
    m.effects.append(("fwd", name))
    m.end(m.world.takes)


@op(r"fwd sreg_dev (\d+) sreg_addr (\d+) nfproto (\d+)")
def fwd_neighbour(m: Machine, g: Groups) -> None:
    """Linux: nft_fwd_neigh_eval. Another family or an expired TTL: on with the packet, or no more of it."""
    skb, four = m.skb, g[3] == "2"
    if skb.protocol != (ETH_IP if four else ETH_IP6):
        raise Break
    place = skb.network + (8 if four else 7)
    if skb.take(place, 1)[0] <= 1:
        m.end("drop")
    name = _device(m, g[1])
    if not name:
        m.end("drop")
    skb.data[place] -= 1
    if four:
        from oracle_writes import replaced

        at = skb.network + 10
        check = replaced(skb.be16(at), b"\x01\0", b"\0\0")
        skb.data[at : at + 2] = check.to_bytes(2, "big")
    m.effects.append(("fwd", name, m.get(g[2], 4 if four else 16)))
    m.end(m.world.takes)


# --- NAT


def _numbers(m: Machine, text: str) -> dict[str, str]:
    return dict(re.findall(r"(\w+) reg (\d+)", text))


def _ports(m: Machine, registers: dict[str, str]) -> tuple[int, int]:
    low = registers.get("proto_min")
    if low is None:
        return 0, 0
    return tuple(int.from_bytes(m.get(r, 2), "big") for r in (low, registers.get("proto_max", low)))  # type: ignore[return-value]


@op(r"nat (snat|dnat) (ip6?|inet)((?: \w+ reg \d+)*)(?: flags 0x(\w+))?")
def nat(m: Machine, g: Groups) -> None:
    registers = _numbers(m, g[3])
    family = {"ip": ETH_IP, "ip6": ETH_IP6}.get(g[2], m.skb.protocol)
    if family != m.skb.protocol or m.world.ct is None:
        raise Break
    size = 4 if family == ETH_IP else 16
    low = registers.get("addr_min")
    addresses = tuple(m.get(r, size) for r in (low, registers.get("addr_max", low))) if low else ()
    flags = int(g[4] or "0", 16) | (1 if low else 0) | (2 if "proto_min" in registers else 0)
    m.effects.append((g[1], addresses, _ports(m, registers), flags))
    m.end("accept")


@op(r"(masq|redir)((?: \w+ reg \d+)*)(?: flags 0x(\w+))?")
def own_nat(m: Machine, g: Groups) -> None:
    registers = _numbers(m, g[2])
    if m.world.ct is None:
        raise Break
    flags = int(g[3] or "0", 16) | (2 if "proto_min" in registers else 0)
    m.effects.append((g[1], _ports(m, registers), flags))
    m.end("accept")
