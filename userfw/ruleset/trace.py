"""`nft monitor trace`: the way of packets with `meta nftrace set 1`, line by line as nft prints it.

Laws:
- The sink hangs on the services only while somebody listens; without a listener a traced packet costs one test.
- Each base chain's run begins with a line of the packet's headers, as Linux sends them (nft_trace_init, nft_trace_notify).
- The id stays with the packet from hook to hook.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from userfw.core.const import (
    IPPROTO_ICMP,
    IPPROTO_ICMPV6,
    IPPROTO_TCP,
    IPPROTO_UDP,
    NFPROTO_IPV4,
    NFPROTO_IPV6,
    NFT_GOTO,
    NFT_JUMP,
)
from userfw.core.packet import Packet
from userfw.engine.const import TRACE_POLICY, TRACE_RETURN
from userfw.engine.expressions.immediate import VERDICT_NAMES
from userfw.engine.trace import TraceSink
from userfw.nft import proto
from userfw.nft.printer import Style, format_rule
from userfw.ruleset.compile import FAMILY_NUMBERS
from userfw.ruleset.live import rule_block

_FAMILIES = {number: name for name, number in FAMILY_NUMBERS.items()}
_HEADERS = {
    "ether": ("saddr", "daddr"),
    "vlan": ("id", "type"),
    "arp": ("operation",),
    "ip": ("saddr", "daddr", "dscp", "ecn", "ttl", "id", "protocol", "length"),
    "ip6": ("saddr", "daddr", "dscp", "ecn", "hoplimit", "flowlabel", "nexthdr", "length"),
    "tcp": ("sport", "dport", "flags", "window"),
    "udp": ("sport", "dport", "length"),
    "icmp": ("type", "code", "id", "sequence"),
    "icmpv6": ("type", "code", "id", "sequence"),
}
_TRANSPORTS = {IPPROTO_TCP: "tcp", IPPROTO_UDP: "udp", IPPROTO_ICMP: "icmp", IPPROTO_ICMPV6: "icmpv6"}
_ECHO = (0, 8, 128, 129)
_RAW_LIMIT = 20

Send = Callable[[str], None]


class Tracer(TraceSink):
    """Writes events to listeners. One for each Services object that is listened to."""

    def __init__(self, style: Style) -> None:
        self.style = style
        self.listeners: list[tuple[Send, bool]] = []
        self._shown: tuple[int, int] = (0, 0)

    def event(self, kind: int, ctx: Any, pkt: Packet, chain: Any, rule: Any, verdict: int, target: Any) -> int:
        """Called by the machine; never fails the packet."""
        ident = trace_id(pkt)
        owner = chain.owner
        head = {
            "id": ident,
            "family": _FAMILIES.get(chain.family, "?"),
            "table": chain.table,
            "chain": owner.name if owner is not None else chain.name,
        }
        if self._shown != (ident, id(ctx)):
            self._shown = ident, id(ctx)
            self._tell({**head, "type": "packet"}, lambda: "packet: " + " ".join(headers(pkt, ctx, self.style)))
        mark = f"meta mark 0x{pkt.mark:08x} " if pkt.mark else ""
        name = VERDICT_NAMES.get(verdict, str(verdict))
        if verdict in (NFT_JUMP, NFT_GOTO) and target is not None:
            name += f" {target.name}"
        if kind == TRACE_POLICY:
            self._tell({**head, "type": "policy", "policy": name}, lambda: f"policy {name} {mark}")
        elif kind == TRACE_RETURN:
            self._tell({**head, "type": "return", "verdict": name}, lambda: f"verdict {name} {mark}")
        else:
            more = {**head, "type": "rule", "handle": int(rule.handle), "verdict": name}
            self._tell(more, lambda: f"rule {self._rule(rule, ctx)} (verdict {name})")
        return 0

    def _rule(self, rule: Any, ctx: Any) -> str:
        owner = rule.owner() if rule.owner is not None else None
        return format_rule(rule_block(owner, int(ctx.clock.now)), self.style) if owner is not None else f"handle {rule.handle}"

    def _tell(self, head: dict[str, Any], text: Callable[[], str]) -> None:
        body = text()
        line = f"trace id {head['id']:08x} {head['family']} {head['table']} {head['chain']} {body}\n"
        for send, as_json in list(self.listeners):
            send(json.dumps({"trace": {**head, "text": body.strip()}}) + "\n" if as_json else line)


def subscribe(services: Any, style: Style, send: Send, as_json: bool) -> Callable[[], None]:
    """Send every trace line to `send`; returns what ends it."""
    tracer = services.trace
    if not isinstance(tracer, Tracer):
        tracer = services.trace = Tracer(style)
    entry = send, as_json
    tracer.listeners.append(entry)

    def end() -> None:
        tracer.listeners.remove(entry)
        if not tracer.listeners and services.trace is tracer:
            services.trace = None

    return end


def trace_id(pkt: Packet) -> int:
    """A number that stays with the packet while rules rewrite it: of its object and of fields that NAT leaves alone."""
    d = pkt.data
    l3 = pkt.l3
    if pkt.nfproto == NFPROTO_IPV4:
        fixed = bytes(d[l3 + 2 : l3 + 8])
    elif pkt.nfproto == NFPROTO_IPV6:
        fixed = bytes(d[l3 : l3 + 7])
    else:
        fixed = bytes(d[pkt.start : pkt.start + 14])
    return zlib.crc32(fixed + pkt.l4proto.to_bytes(1, "big"), id(pkt) & 0xFFFFFFFF)


def headers(pkt: Packet, ctx: Any, style: Style) -> Iterator[str]:
    """The words of the packet line: devices, then each header's fields in nft's order, then what is left in hexadecimal."""
    if pkt.iif is not None:
        yield f'iif "{pkt.iif.name}"'
    if pkt.oif is not None:
        yield f'oif "{pkt.oif.name}"'
    if pkt.l3 - pkt.start >= 14:
        yield from _fields("ether", pkt, pkt.start, style)
        if pkt.vlan_tci >= 0 and pkt.l3 - pkt.start >= 18:
            yield from _fields("vlan", pkt, pkt.start + 14, style)
    if pkt.nfproto not in (NFPROTO_IPV4, NFPROTO_IPV6):
        return
    yield from _fields("ip" if pkt.nfproto == NFPROTO_IPV4 else "ip6", pkt, pkt.l3, style, bool(_TRANSPORTS.get(pkt.l4proto)))
    name = _TRANSPORTS.get(pkt.l4proto)
    if not pkt.has_l4 or name is None:
        return
    yield from _fields(name, pkt, pkt.l4, style)
    size = 20 if name == "tcp" else 8
    rest = bytes(pkt.data[pkt.l4 + size : min(pkt.end, pkt.l4 + _RAW_LIMIT)])
    if rest:
        yield f"@th,{size * 8},{len(rest) * 8} 0x{rest.hex()}"


def _fields(name: str, pkt: Packet, at: int, style: Style, known: bool = False) -> Iterator[str]:
    """A header's fields. `known`: what follows it is shown, so the field that names it is left out."""
    table = proto.PROTOCOLS[name].fields
    for field in _HEADERS[name]:
        row = table.get(field)
        if row is None or (known and field in ("protocol", "nexthdr")):
            continue
        if field in ("id", "sequence") and name.startswith("icmp") and pkt.data[at] not in _ECHO:
            continue
        end = at + (row.offset + row.width + 7) // 8
        if end > pkt.end:
            return
        whole = int.from_bytes(pkt.data[at + row.offset // 8 : end], "big")
        value = whole >> (-(row.offset + row.width) % 8) & ((1 << row.width) - 1)
        text = row.dtype.format(value, style.out)
        yield f"{name} {field} == {text}" if field == "flags" else f"{name} {field} {text}"
