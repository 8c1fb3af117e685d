"""What users see of the table: listings as `conntrack -L` and `-E` print them, dicts for JSON, filters, and changes by hand.

Laws: a listing walks the table a slice at a time (`Dump.next`), so a million connections never stall the packets; growing
between slices
neither repeats nor loses a connection that lives throughout. The text is libnetfilter_conntrack's, byte for byte (conntrack(8)).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from userfw.conntrack.conn import Conn, Tuple
from userfw.conntrack.const import (
    CT_EVENT_DESTROY,
    CT_EVENT_NEW,
    CT_EVENT_RELATED,
    IPS_UNCHANGEABLE,
)
from userfw.conntrack.expect import Expectation
from userfw.conntrack.table import ConnTable

NSEC = 1_000_000_000
# the names that conntrack(8) knows; to it, all other protocols are "unknown"
PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 33: "dccp", 47: "gre", 58: "icmpv6", 132: "sctp", 136: "udplite"}
FAMILIES = {2: "ipv4", 10: "ipv6"}
TCP_STATES = ("NONE", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE",
"SYN_SENT2")
SCTP_STATES = (
    "NONE",
    "CLOSED",
    "COOKIE_WAIT",
    "COOKIE_ECHOED",
    "ESTABLISHED",
    "SHUTDOWN_SENT",
    "SHUTDOWN_RECD",
    "SHUTDOWN_ACK_SENT",
    "HEARTBEAT_SENT",
    "HEARTBEAT_ACKED",
)
STATUS = {
    "EXPECTED": 1,
    "SEEN_REPLY": 2,
    "ASSURED": 4,
    "CONFIRMED": 8,
    "SRC_NAT": 16,
    "DST_NAT": 32,
    "SEQ_ADJUST": 64,
    "SRC_NAT_DONE": 128,
    "DST_NAT_DONE": 256,
    "DYING": 512,
    "FIXED_TIMEOUT": 1024,
    "HELPER": 8192,
    "OFFLOAD": 16384,
    "HW_OFFLOAD": 32768,
}


def address_text(hi: int, lo: int, l3num: int) -> str:
    """An address as text."""
    if l3num == 2:
        return str(ipaddress.IPv4Address(lo))
    return str(ipaddress.IPv6Address(hi << 64 | lo))


def state_name(conn: Conn) -> str | None:
    """The protocol's state, None if it has none."""
    if conn.orig.l4proto == 6:
        return TCP_STATES[conn.state]
    return SCTP_STATES[conn.state] if conn.orig.l4proto == 132 else None


def _ends(t: Tuple) -> str:
    return f"src={address_text(t.src_hi, t.src_lo, t.l3num)} dst={address_text(t.dst_hi, t.dst_lo, t.l3num)}"


def _key(t: Tuple) -> str:
    if t.l4proto in (1, 58):
        return f" type={t.dport >> 8} code={t.dport & 255} id={t.sport}"
    if t.l4proto == 47:
        return f" srckey=0x{t.sport:x} dstkey=0x{t.dport:x}"
    if t.l4proto in (6, 17, 132, 136, 33):
        return f" sport={t.sport} dport={t.dport}"
    return ""


def _counters(conn: Conn, direction: int) -> str:
    return f" packets={conn.packets[direction]} bytes={conn.bytes[direction]}"


def line(
    conn: Conn,
    now: int,
    *,
    acct: bool = True,
    timeout: bool = True,
    family: bool = False,
    ident: bool = False,
    dump: bool = True,
    flow_age: bool = False,
    labels: bool = False,
) -> str:
    """One connection as `conntrack -L` prints it. `family`: `-o extended`; `ident`: `-o id`; `dump`: False for an event;
    `labels`: `-o labels`.

    A connection in the flowtable shows no timeout, as the kernel's.
    """
    flags = conn.status
    text = f"{FAMILIES[conn.orig.l3num]:<8} {conn.orig.l3num} " if family else ""
    text += f"{PROTOCOLS.get(conn.orig.l4proto, 'unknown'):<8} {conn.orig.l4proto}"
    offloaded = flags & 0xC000
    if timeout and (not offloaded or flow_age):
        text += f" {max(conn.timeout - now, 0) // NSEC}"
    state = state_name(conn)
    if state is not None and not offloaded:
        text += f" {state}"
    text += " " + _ends(conn.orig) + _key(conn.orig)
    if conn.zone and conn.zone_dir == 1:
        text += f" zone-orig={conn.zone}"
    if acct:
        text += _counters(conn, 0)
    if not flags & 2:
        text += " [UNREPLIED]"
    text += " " + _ends(conn.reply) + _key(conn.reply)
    if conn.zone and conn.zone_dir == 2:
        text += f" zone-reply={conn.zone}"
    if acct:
        text += _counters(conn, 1)
    if flags & 0x8000:
        text += " [HW_OFFLOAD]"
    elif flags & 0x4000:
        text += " [OFFLOAD]"
    elif flags & 4:
        text += " [ASSURED]"
    if dump or conn.mark:
        text += f" mark={conn.mark}"
    if conn.secmark:
        text += f" secmark={conn.secmark}"
    if ident:
        text += f" id={conn.id}"
    if conn.zone and conn.zone_dir == 3:
        text += f" zone={conn.zone}"
    if conn.helper is not None:
        text += f" helper={conn.helper.name}"
    if dump:
        text += " use=1"
    bits = conn.labels_hi << 64 | conn.labels_lo
    if labels and bits:
        text += " labels=" + ",".join(str(bit) for bit in range(128) if bits >> bit & 1)
    return text


def event_line(events: int, conn: Conn, now: int, *, acct: bool = True, ident: bool = False) -> str:
    """One event as `conntrack -E` prints it."""
    if events & CT_EVENT_DESTROY:
        return f"{'[DESTROY]':>9} " + line(conn, now, acct=acct, timeout=False, ident=ident, dump=False)
    kind = "[NEW]" if events & (CT_EVENT_NEW | CT_EVENT_RELATED) else "[UPDATE]"
    return f"{kind:>9} " + line(conn, now, acct=False, ident=ident, dump=False)


def _tuple_dict(conn: Conn, t: Tuple, direction: int, acct: bool) -> dict[str, Any]:
    result: dict[str, Any] = {
        "src": address_text(t.src_hi, t.src_lo, t.l3num),
        "dst": address_text(t.dst_hi, t.dst_lo, t.l3num),
    }
    if t.l4proto in (1, 58):
        result |= {"type": t.dport >> 8, "code": t.dport & 255, "id": t.sport}
    elif _key(t):
        result |= {"sport": t.sport, "dport": t.dport}
    if acct:
        result |= {"packets": conn.packets[direction], "bytes": conn.bytes[direction]}
    return result


def as_dict(conn: Conn, now: int, *, acct: bool = True) -> dict[str, Any]:
    """One connection for JSON. `timeout` in seconds; `status` a list of names; `labels` bit numbers."""
    labels = conn.labels_hi << 64 | conn.labels_lo
    result: dict[str, Any] = {
        "id": conn.id,
        "family": FAMILIES[conn.orig.l3num],
        "protocol": PROTOCOLS.get(conn.orig.l4proto, str(conn.orig.l4proto)),
        "timeout": max(conn.timeout - now, 0) // NSEC,
        "state": state_name(conn),
        "status": [name for name, bit in STATUS.items() if conn.status & bit],
        "original": _tuple_dict(conn, conn.orig, 0, acct),
        "reply": _tuple_dict(conn, conn.reply, 1, acct),
        "mark": conn.mark,
        "zone": conn.zone,
        "labels": [bit for bit in range(128) if labels >> bit & 1],
        "helper": conn.helper.name if conn.helper is not None else None,
        "timeout_policy": conn.policy.name if conn.policy is not None else None,
        "offload": "hardware" if conn.status & 0x8000 else "software" if conn.status & 0x4000 else None,
        "age": (now - conn.start) / NSEC,
    }
    return {key: value for key, value in result.items() if value is not None}


def expectation_line(e: Expectation, now: int) -> str:
    """One expectation as `conntrack -L expect` prints it."""
    t = e.tuple
    proto = PROTOCOLS.get(t.l4proto, "unknown")
    master = e.master.orig
    text = f"{max(e.deadline - now, 0) // NSEC} proto={t.l4proto} {_ends(t)} sport={t.sport} dport={t.dport} "
    text += f"mask-src={address_text(e.mask_hi, e.mask_lo, t.l3num)} mask-dst={address_text((1 << 64) - 1, _ones(t), t.l3num)} "
    text += f"sport={0xFFFF if e.mask_sport else 0} dport=65535 master-{_ends(master).replace(' ', ' master-')} "
    text += f"sport={master.sport} dport={master.dport} class={e.klass}"
    assert proto
    return text + (f" helper={e.helper.name}" if e.helper is not None else "")


def _ones(t: Tuple) -> int:
    return 0xFFFFFFFF if t.l3num == 2 else (1 << 64) - 1


# -- filters

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass
class Filter:
    """Which connections a command means; None: any. Addresses are networks; `status` names must all be set; `*_nat`:
    translated so."""

    family: int | None = None
    l4proto: int | None = None
    orig_src: Network | None = None
    orig_dst: Network | None = None
    reply_src: Network | None = None
    reply_dst: Network | None = None
    sport: int | None = None
    dport: int | None = None
    reply_sport: int | None = None
    reply_dport: int | None = None
    icmp_type: int | None = None
    icmp_code: int | None = None
    icmp_id: int | None = None
    state: str | None = None
    status: int = 0
    unreplied: bool = False
    mark: int | None = None
    mark_mask: int = 0xFFFFFFFF
    zone: int | None = None
    orig_zone: int | None = None
    reply_zone: int | None = None
    label: int = 0
    src_nat: bool = False
    dst_nat: bool = False
    any_nat: bool = False
    ident: int | None = None
    _checks: list[Callable[[Conn], bool]] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        """Keep a check for each condition given; ValueError for a state that no protocol has."""
        if self.state is not None:
            self.state = self.state.upper()
            if self.state not in TCP_STATES and self.state not in SCTP_STATES:
                raise ValueError(f"no protocol has a state {self.state}")
        self._checks = [
            getattr(self, f"_match_{f.name}")
            for f in fields(self)
            if f.init and f.name != "mark_mask" and not self._void(f.name)
        ]

    def _void(self, name: str) -> bool:
        value = getattr(self, name)
        return value is None or value is False or (name in ("status", "label") and value == 0)

    def matches(self, conn: Conn) -> bool:
        """Whether `conn` is meant."""
        return all(check(conn) for check in self._checks)

    def _match_family(self, c: Conn) -> bool:
        return c.orig.l3num == self.family

    def _match_l4proto(self, c: Conn) -> bool:
        return c.orig.l4proto == self.l4proto

    def _match_orig_src(self, c: Conn) -> bool:
        return _within(self.orig_src, c.orig.l3num, c.orig.src_hi, c.orig.src_lo)

    def _match_orig_dst(self, c: Conn) -> bool:
        return _within(self.orig_dst, c.orig.l3num, c.orig.dst_hi, c.orig.dst_lo)

    def _match_reply_src(self, c: Conn) -> bool:
        return _within(self.reply_src, c.orig.l3num, c.reply.src_hi, c.reply.src_lo)

    def _match_reply_dst(self, c: Conn) -> bool:
        return _within(self.reply_dst, c.orig.l3num, c.reply.dst_hi, c.reply.dst_lo)

    def _match_sport(self, c: Conn) -> bool:
        return c.orig.sport == self.sport and c.orig.l4proto not in (1, 58)

    def _match_dport(self, c: Conn) -> bool:
        return c.orig.dport == self.dport and c.orig.l4proto not in (1, 58)

    def _match_reply_sport(self, c: Conn) -> bool:
        return c.reply.sport == self.reply_sport and c.orig.l4proto not in (1, 58)

    def _match_reply_dport(self, c: Conn) -> bool:
        return c.reply.dport == self.reply_dport and c.orig.l4proto not in (1, 58)

    def _match_icmp_type(self, c: Conn) -> bool:
        return c.orig.l4proto in (1, 58) and c.orig.dport >> 8 == self.icmp_type

    def _match_icmp_code(self, c: Conn) -> bool:
        return c.orig.l4proto in (1, 58) and c.orig.dport & 255 == self.icmp_code

    def _match_icmp_id(self, c: Conn) -> bool:
        return c.orig.l4proto in (1, 58) and c.orig.sport == self.icmp_id

    def _match_state(self, c: Conn) -> bool:
        return state_name(c) == self.state

    def _match_status(self, c: Conn) -> bool:
        return c.status & self.status == self.status

    def _match_unreplied(self, c: Conn) -> bool:
        return not c.status & 2

    def _match_mark(self, c: Conn) -> bool:
        return c.mark & self.mark_mask == self.mark

    def _match_zone(self, c: Conn) -> bool:
        return c.zone == self.zone

    def _match_orig_zone(self, c: Conn) -> bool:
        return c.orig.zone == self.orig_zone

    def _match_reply_zone(self, c: Conn) -> bool:
        return c.reply.zone == self.reply_zone

    def _match_label(self, c: Conn) -> bool:
        return (c.labels_hi << 64 | c.labels_lo) & self.label == self.label

    def _match_src_nat(self, c: Conn) -> bool:
        return bool(c.status & 16)

    def _match_dst_nat(self, c: Conn) -> bool:
        return bool(c.status & 32)

    def _match_any_nat(self, c: Conn) -> bool:
        return bool(c.status & 48)

    def _match_ident(self, c: Conn) -> bool:
        return c.id == self.ident


def _within(network: Network | None, l3num: int, hi: int, lo: int) -> bool:
    assert network is not None
    if (network.version == 4) != (l3num == 2):
        return False
    bits = 32 if l3num == 2 else 128
    shift = bits - network.prefixlen
    return (hi << 64 | lo) >> shift == int(network.network_address) >> shift


# -- walking and changing


class Dump:
    """A walk over all connections that match, a slice at a time."""

    def __init__(self, table: ConnTable, wanted: Filter | None = None) -> None:
        self.table = table
        self.wanted = wanted
        self.base = 0
        # classes of a few connections each, whatever the table's size
        self.mask = 0
        while self.mask + 1 < table.buckets // 4:
            self.mask = self.mask * 2 + 1

    def next(self, budget: int = 1000) -> list[Conn] | None:
        """Matching connections among about the next `budget`, perhaps none of them; None at the end."""
        if self.base > self.mask:
            return None
        result: list[Conn] = []
        seen = 0
        steps = 0
        while self.base <= self.mask and seen < budget and steps < budget * 4:
            members = self.table.members(self.base, self.mask)
            self.base += 1
            steps += 1
            seen += len(members)
            result += members if self.wanted is None else [c for c in members if self.wanted.matches(c)]
        return result

    def __iter__(self) -> Iterator[Conn]:
        while (found := self.next()) is not None:
            yield from found


def delete(table: ConnTable, wanted: Filter | None = None) -> Iterator[int]:
    """Destroy what matches (`conntrack -D`, without a filter `-F`); yields how many after each slice."""
    dump = Dump(table, wanted)
    while (found := dump.next()) is not None:
        for conn in found:
            table.destroy(conn)
        yield len(found)


def change(table: ConnTable, conn: Conn, changes: Mapping[str, Any]) -> None:
    """`conntrack -U`: `mark` (with `mark_mask`), `timeout` in seconds, `status` bits to set, `label` and `label_del` bits.

    ValueError for what may not be changed (Linux: ctnetlink_change_status): nothing is changed then.
    """
    status = int(changes.get("status", conn.status))
    if (status ^ conn.status) & IPS_UNCHANGEABLE or (conn.status & ~status) & 6:
        raise ValueError("these status bits cannot be changed")
    unknown = set(changes) - {"mark", "mark_mask", "timeout", "status", "label", "label_del"}
    if unknown:
        raise ValueError(f"cannot change {', '.join(sorted(unknown))}")
    if "mark" in changes:
        mask = int(changes.get("mark_mask", 0xFFFFFFFF))
        table.set_mark(conn, (conn.mark & ~mask & 0xFFFFFFFF) | (int(changes["mark"]) & mask))
    conn.status = status
    if "timeout" in changes:
        table.refresh(conn, int(changes["timeout"]) * NSEC)
    labels = conn.labels_hi << 64 | conn.labels_lo
    labels = (labels & ~int(changes.get("label_del", 0))) | int(changes.get("label", 0))
    table.set_labels(conn, labels >> 64, labels & (1 << 64) - 1)
    table.deliver(conn)


def create(table: ConnTable, orig: Tuple, changes: Mapping[str, Any], reply: Tuple | None = None) -> Conn:
    """`conntrack -I`: a confirmed connection of tuple `orig` (and `reply`, if translated). ValueError if its tuples are taken."""
    conn = table.new(orig, orig.zone, 3)
    if conn is None:
        raise ValueError("packets of this kind have no answers")
    if reply is not None:
        for name in ("src_hi", "src_lo", "dst_hi", "dst_lo", "sport", "dport"):
            setattr(conn.reply, name, getattr(reply, name))
    conn.timeout = table.clock.now + int(changes.get("timeout", 30)) * NSEC
    state = changes.get("state")
    if state is not None:
        names = TCP_STATES if orig.l4proto == 6 else SCTP_STATES if orig.l4proto == 132 else ()
        if str(state).upper() not in names:
            raise ValueError(f"no such state: {state}")
        conn.state = names.index(str(state).upper())
    conn.status |= int(changes.get("status", 0)) & 0x2C06
    conn.mark = int(changes.get("mark", 0))
    if table.insert(conn) is not None:
        raise ValueError("such a connection exists")
    table.deliver(conn)
    return conn
