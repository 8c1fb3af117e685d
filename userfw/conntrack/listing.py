"""What users see of the table: a connection as `conntrack -L` and `-E` print it, a walk over all of them, and changes by hand.

Laws: a listing walks the table a slice at a time (`Dump.next`), so a million connections never stall the packets; growing
between slices
neither repeats nor loses a connection that lives throughout. The text is libnetfilter_conntrack's, byte for byte (conntrack(8)).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping
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
    if t.l4proto in (6, 17, 132, 136):
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


# -- walking and changing


class Dump:
    """A walk over all connections that match, a slice at a time."""

    def __init__(self, table: ConnTable, wanted: Callable[[Conn], bool] | None = None) -> None:
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
            result += members if self.wanted is None else [c for c in members if self.wanted(c)]
        return result

    def __iter__(self) -> Iterator[Conn]:
        while (found := self.next()) is not None:
            yield from found


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
