"""ct: the packet's connection (Linux: nft_ct.c). Without an entry everything but the state breaks the rule; setting does
nothing."""

from __future__ import annotations

import cython

from userfw.engine.expr import Expr, register_offset
from userfw.engine.registry import TRACKED, Row, register

if not cython.compiled:
    from userfw.conntrack.conn import Conn, Tuple
    from userfw.conntrack.table import ConnTable
    from userfw.core.const import (
        CT_BIT_ESTABLISHED,
        CT_BIT_INVALID,
        CT_BIT_NEW,
        CT_BIT_RELATED,
        CT_BIT_UNTRACKED,
        CT_ESTABLISHED,
        CT_NEW,
        CT_RELATED,
        CT_UNTRACKED,
        IPS_CONFIRMED,
        IPS_TEMPLATE,
        NFPROTO_IPV4,
        NFPROTO_IPV6,
        NFT_BREAK,
        NFT_CONTINUE,
    )
    from userfw.core.packet import Packet
    from userfw.engine.const import (
        CT_KEY_AVGPKT,
        CT_KEY_BYTES,
        CT_KEY_DIRECTION,
        CT_KEY_DST,
        CT_KEY_DST_IP,
        CT_KEY_DST_IP6,
        CT_KEY_EXPIRATION,
        CT_KEY_HELPER,
        CT_KEY_ID,
        CT_KEY_L3PROTOCOL,
        CT_KEY_LABELS,
        CT_KEY_MARK,
        CT_KEY_PKTS,
        CT_KEY_PROTO_DST,
        CT_KEY_PROTO_SRC,
        CT_KEY_PROTOCOL,
        CT_KEY_SECMARK,
        CT_KEY_SRC,
        CT_KEY_SRC_IP,
        CT_KEY_SRC_IP6,
        CT_KEY_STATE,
        CT_KEY_STATUS,
        CT_KEY_ZONE,
        U32_MASK,
    )
    from userfw.engine.context import Context
    from userfw.engine.expr import Expr

CT_KEYS = {
    "state": (0, 4),
    "direction": (1, 1),
    "status": (2, 4),
    "mark": (3, 4),
    "secmark": (4, 4),
    "expiration": (5, 4),
    "helper": (6, 16),
    "l3protocol": (7, 1),
    "src": (8, 16),
    "dst": (9, 16),
    "protocol": (10, 1),
    "proto_src": (11, 2),
    "proto_dst": (12, 2),
    "label": (13, 16),
    "packets": (14, 8),
    "bytes": (15, 8),
    "avgpkt": (16, 8),
    "zone": (17, 2),
    "event": (18, 4),
    "src_ip": (19, 4),
    "dst_ip": (20, 4),
    "src_ip6": (21, 16),
    "dst_ip6": (22, 16),
    "id": (23, 4),
}
CT_NAMES = {number: name for name, (number, _) in CT_KEYS.items()}
_DIRECTIONS = {"original": 0, "reply": 1}
_DIRECTION_NEEDED = frozenset(("src", "dst", "proto_src", "proto_dst", "src_ip", "dst_ip", "src_ip6", "dst_ip6"))
_DIRECTION_ALLOWED = _DIRECTION_NEEDED | {"l3protocol", "protocol", "packets", "bytes", "avgpkt", "zone"}
_WRITABLE = frozenset(("mark", "label", "zone", "event", "secmark"))


def _direction(direction: str | None) -> int:
    if direction is None:
        return -1
    if direction not in _DIRECTIONS:
        raise ValueError(f"no direction {direction!r}")
    return _DIRECTIONS[direction]


def _direction_text(direction: int) -> str:
    return ("", " , dir original", " , dir reply")[direction + 1]


def state_bit(pkt: Packet) -> cython.uint:
    """The packet's state as a CT_BIT_* (Linux: NF_CT_STATE_BIT)."""
    if pkt.ct is None:
        return CT_BIT_UNTRACKED if pkt.ctinfo == CT_UNTRACKED else CT_BIT_INVALID
    if pkt.ctinfo == CT_ESTABLISHED:
        return CT_BIT_ESTABLISHED
    if pkt.ctinfo == CT_NEW:
        return CT_BIT_NEW
    if pkt.ctinfo == CT_RELATED:
        return CT_BIT_RELATED
    return CT_BIT_UNTRACKED if pkt.ctinfo == CT_UNTRACKED else CT_BIT_INVALID


def _load(ctx: Context, pkt: Packet, conn: Conn, key: cython.int, direction: cython.int, dst: cython.int) -> cython.int:
    now: cython.ulonglong = ctx.clock.now
    if key == CT_KEY_MARK:
        ctx.write32(dst, conn.mark)
    elif key == CT_KEY_STATUS:
        ctx.write32(dst, conn.status)
    elif key == CT_KEY_DIRECTION:
        ctx.write8(dst, pkt.ctdir)
    elif key == CT_KEY_SECMARK:
        ctx.write32(dst, conn.secmark)
    elif key == CT_KEY_EXPIRATION:
        # until it is confirmed, Linux takes its whole time for a deadline, which is long over (nf_ct_expires)
        left: cython.bint = conn.timeout > now and conn.status & IPS_CONFIRMED != 0
        ctx.write32(dst, ((conn.timeout - now) // 1000000 if left else 0) & U32_MASK)
    elif key == CT_KEY_LABELS:
        ctx.write64(dst, conn.labels_lo)
        ctx.write64(dst + 8, conn.labels_hi)
    elif key == CT_KEY_L3PROTOCOL:
        ctx.write8(dst, conn.orig.l3num)
    elif key == CT_KEY_PROTOCOL:
        ctx.write8(dst, conn.orig.l4proto)
    elif key == CT_KEY_ID:
        ctx.write32(dst, conn.id)
    elif key == CT_KEY_ZONE:
        # a zone that does not apply to a direction is zone 0 there
        ctx.write16(dst, conn.zone if direction < 0 or (conn.zone_dir >> direction) & 1 else 0)
    elif key in (CT_KEY_PKTS, CT_KEY_BYTES, CT_KEY_AVGPKT):
        ctx.write64(dst, _count(conn, key, direction))
    elif key == CT_KEY_HELPER:
        return _helper_name(ctx, conn, dst)
    else:
        return _tuple_field(ctx, conn.reply if direction == 1 else conn.orig, key, dst)
    return NFT_CONTINUE


def _count(conn: Conn, key: cython.int, direction: cython.int) -> cython.ulonglong:
    """Packets, bytes or bytes per packet of one direction or both."""
    packets: cython.ulonglong = 0
    octets: cython.ulonglong = 0
    if direction != 1:
        packets += conn.packets[0]
        octets += conn.bytes[0]
    if direction != 0:
        packets += conn.packets[1]
        octets += conn.bytes[1]
    if key == CT_KEY_PKTS:
        return packets
    if key == CT_KEY_BYTES:
        return octets
    return octets // packets if packets else 0


def _helper_name(ctx: Context, conn: Conn, dst: cython.int) -> cython.int:
    """The helper that expected this connection: its master's (Linux: nft_ct_get_eval)."""
    if conn.master is None or conn.master.helper is None:
        return NFT_BREAK
    ctx.write_bytes(dst, str(conn.master.helper.name).encode(), 16)
    return NFT_CONTINUE


def _tuple_field(ctx: Context, t: Tuple, key: cython.int, dst: cython.int) -> cython.int:
    if key == CT_KEY_PROTO_SRC:
        ctx.write_be16(dst, t.sport)
    elif key == CT_KEY_PROTO_DST:
        ctx.write_be16(dst, t.dport)
    elif key == CT_KEY_SRC_IP or (key == CT_KEY_SRC and t.l3num == NFPROTO_IPV4):
        if t.l3num != NFPROTO_IPV4:
            return NFT_BREAK
        ctx.write_be32(dst, t.src_lo & U32_MASK)
    elif key == CT_KEY_DST_IP or (key == CT_KEY_DST and t.l3num == NFPROTO_IPV4):
        if t.l3num != NFPROTO_IPV4:
            return NFT_BREAK
        ctx.write_be32(dst, t.dst_lo & U32_MASK)
    else:
        if t.l3num != NFPROTO_IPV6 and key in (CT_KEY_SRC_IP6, CT_KEY_DST_IP6):
            return NFT_BREAK
        if key in (CT_KEY_SRC_IP6, CT_KEY_SRC):
            ctx.write_be64(dst, t.src_hi)
            ctx.write_be64(dst + 8, t.src_lo)
        else:
            ctx.write_be64(dst, t.dst_hi)
            ctx.write_be64(dst + 8, t.dst_lo)
    return NFT_CONTINUE


def _use_zone(ctx: Context, pkt: Packet, src: cython.int, direction: cython.int) -> cython.int:
    """Attach a template that tells conntrack the zone (Linux: nft_ct_set_zone_eval)."""
    table: ConnTable = ctx.services.conntrack
    zone: cython.int = ctx.regs[src] | (ctx.regs[src + 1] << 8)
    pkt.ct = table.template(zone, 3 if direction < 0 else 1 << direction)
    pkt.ctinfo = CT_NEW
    return 0


class Ct(Expr):
    """`dreg` = `key` of the connection (libnftnl's names: state, mark, src_ip, packets, label, …); `direction` original, reply or
    None.

    `length`: 4 or 16 for src and dst, which take the size of the connection's family.
    """

    kind = "ct"

    def __init__(self, dreg: int, key: str, direction: str | None = None) -> None:
        if key not in CT_KEYS:
            raise ValueError(f"no ct key {key!r}")
        if direction is None and key in _DIRECTION_NEEDED:
            raise ValueError(f"ct {key} needs a direction")
        if direction is not None and key not in _DIRECTION_ALLOWED:
            raise ValueError(f"ct {key} takes no direction")
        self.key, self.length = CT_KEYS[key]
        self.direction = _direction(direction)
        self.dst = register_offset(dreg, self.length)
        self.dreg = dreg

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        if self.key == CT_KEY_STATE:
            ctx.write32(self.dst, state_bit(pkt))
            return NFT_CONTINUE
        conn: Conn = pkt.ct
        if conn is None or conn.status & IPS_TEMPLATE:
            return NFT_BREAK
        return _load(ctx, pkt, conn, self.key, self.direction, self.dst)

    def refusal(self, family: int, hook: int, chain_type: int) -> str | None:
        """The size of `src` and `dst` is that of the family's addresses, the events are only set (Linux: nft_ct_get_init)."""
        if self.key == CT_KEYS["event"][0]:
            return "ct event: can be set, not read (EOPNOTSUPP)"
        refused = self.key in (8, 9) and family not in (1, 2, 10)
        return f"ct {CT_NAMES[self.key]}: the family has no addresses (EAFNOSUPPORT)" if refused else None

    def operands(self) -> str:
        return f"load {CT_NAMES[self.key]} => reg {self.dreg}{_direction_text(self.direction)}"


class CtSet(Expr):
    """Set mark, label, zone, event or secmark of the connection from `sreg`; zone takes a direction."""

    kind = "ct"

    def __init__(self, sreg: int, key: str, direction: str | None = None) -> None:
        if key not in _WRITABLE:
            raise ValueError(f"ct {key} cannot be set")
        if direction is not None and key != "zone":
            raise ValueError(f"ct {key} set takes no direction")
        self.key, self.length = CT_KEYS[key]
        self.direction = _direction(direction)
        self.src = register_offset(sreg, self.length)
        self.sreg = sreg

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        conn: Conn = pkt.ct
        table: ConnTable = ctx.services.conntrack
        lo: cython.ulonglong
        hi: cython.ulonglong
        if self.key == CT_KEY_ZONE:
            if conn is None and table is not None:
                _use_zone(ctx, pkt, self.src, self.direction)
            return NFT_CONTINUE
        if conn is None or table is None or conn.status & IPS_TEMPLATE:
            return NFT_CONTINUE
        if self.key == CT_KEY_MARK:
            if conn.mark != ctx.read32(self.src):
                table.set_mark(conn, ctx.read32(self.src))
        elif self.key == CT_KEY_SECMARK:
            if conn.secmark != ctx.read32(self.src):
                table.set_secmark(conn, ctx.read32(self.src))
        elif self.key == CT_KEY_LABELS:
            lo = ctx.read64(self.src) | conn.labels_lo
            hi = ctx.read64(self.src + 8) | conn.labels_hi
            if lo != conn.labels_lo or hi != conn.labels_hi:
                table.set_labels(conn, hi, lo)
        else:
            # which events of this connection listeners hear of (Linux: the ctmask of nf_conntrack_ecache)
            if conn.ext is None:
                conn.ext = {}
            conn.ext["event_mask"] = ctx.read32(self.src)
        return NFT_CONTINUE

    def operands(self) -> str:
        return f"set {CT_NAMES[self.key]} with reg {self.sreg}{_direction_text(self.direction)}"


register(Row("ct", Ct, hooks=TRACKED, reason="EPROTO"))
register(Row("ct set", CtSet, hooks=TRACKED, reason="EPROTO"))
