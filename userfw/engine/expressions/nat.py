"""nat, masq, redir: choose the connection's mapping (Linux: nft_nat.c, nft_masq.c, nft_redir.c)."""

from __future__ import annotations

import cython

from userfw.engine.const import CHAIN_NAT
from userfw.engine.expr import Expr, register_offset
from userfw.engine.registry import IN, OUT, POST, PRE, Row, hooks, register

if not cython.compiled:
    from userfw.conntrack.conn import Conn
    from userfw.core.const import (
        NAT_MANIP_DST,
        NAT_MANIP_SRC,
        NAT_RANGE_MAP_IPS,
        NAT_RANGE_PROTO_SPECIFIED,
        NFPROTO_INET,
        NFPROTO_IPV4,
        NFT_BREAK,
    )
    from userfw.core.packet import Packet
    from userfw.engine.context import Context
    from userfw.engine.expr import Expr
    from userfw.nat.mapping import Nat as NatCore
    from userfw.nat.mapping import NatRange

_FAMILIES = {"ip": 2, "ip6": 10, "inet": 1}
_FAMILY_NAMES = {number: name for name, number in _FAMILIES.items()}
_ALL_FLAGS = 0x7F


def _source(reg: int | None, length: int) -> int:
    return -1 if reg is None else register_offset(reg, length)


def _text(**registers: int) -> str:
    return "".join(f" {name} reg {reg}" for name, reg in registers.items() if reg >= 0)


def _flag_text(flags: int) -> str:
    return f" flags 0x{flags:x}" if flags else ""


def _ports(ctx: Context, within: NatRange, least: cython.int, most: cython.int) -> cython.int:
    """Ports of the range from registers (network order there)."""
    if least >= 0:
        within.min_port = (ctx.regs[least] << 8) | ctx.regs[least + 1]
        if most < 0:
            most = least
        within.max_port = (ctx.regs[most] << 8) | ctx.regs[most + 1]
    return 0


def _addresses(ctx: Context, within: NatRange, four: cython.bint, least: cython.int, most: cython.int) -> cython.int:
    """Addresses of the range from registers."""
    if least < 0:
        return 0
    if most < 0:
        most = least
    if four:
        within.min_lo = ctx.read_be32(least)
        within.max_lo = ctx.read_be32(most)
        return 0
    within.min_hi = ctx.read_be64(least)
    within.min_lo = ctx.read_be64(least + 8)
    within.max_hi = ctx.read_be64(most)
    within.max_lo = ctx.read_be64(most + 8)
    return 0


class Nat(Expr):
    """snat or dnat (`type`) to addresses and ports in registers; `family` ip, ip6 or inet (ports only).

    `addr_max` and `proto_max` None: the same as min. `flags`: NAT_RANGE_*.
    """

    kind = "nat"

    def __init__(
        self,
        type: str,
        family: str,
        addr_min: int | None = None,
        addr_max: int | None = None,
        proto_min: int | None = None,
        proto_max: int | None = None,
        flags: int = 0,
    ) -> None:
        if type not in ("snat", "dnat"):
            raise ValueError(f"no nat type {type!r}")
        if family not in _FAMILIES:
            raise ValueError(f"no nat family {family!r}")
        if (addr_max is not None and addr_min is None) or (proto_max is not None and proto_min is None):
            raise ValueError("a range has a start")
        if addr_min is not None and family == "inet":
            raise ValueError("an address needs the family ip or ip6")
        if flags & ~_ALL_FLAGS:
            raise ValueError(f"unknown nat flags 0x{flags:x}")
        size = 16 if family == "ip6" else 4
        self.source_nat = type == "snat"
        self.family = _FAMILIES[family]
        self.addr_min = _source(addr_min, size)
        self.addr_max = _source(addr_max, size)
        self.proto_min = _source(proto_min, 2)
        self.proto_max = _source(proto_max, 2)
        self.flags = flags
        self.regs = tuple(-1 if reg is None else reg for reg in (addr_min, addr_max, proto_min, proto_max))
        self.within = NatRange(
            flags | (NAT_RANGE_MAP_IPS if addr_min is not None else 0) | (NAT_RANGE_PROTO_SPECIFIED if proto_min is not None else 0)
        )

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        conn: Conn | None = pkt.ct
        nat: NatCore = ctx.services.nat
        if conn is None or nat is None or (self.family != NFPROTO_INET and self.family != pkt.nfproto):
            return NFT_BREAK
        _addresses(ctx, self.within, self.family == NFPROTO_IPV4, self.addr_min, self.addr_max)
        _ports(ctx, self.within, self.proto_min, self.proto_max)
        return nat.setup(pkt, conn, self.within, NAT_MANIP_SRC if self.source_nat else NAT_MANIP_DST)

    def operands(self) -> str:
        a, b, c, d = self.regs
        kind = "snat" if self.source_nat else "dnat"
        registers = _text(addr_min=a, addr_max=b, proto_min=c, proto_max=d)
        return f"{kind} {_FAMILY_NAMES[self.family]}{registers}{_flag_text(self.flags)}"

    def refusal(self, family: int, hook: int, chain_type: int) -> str | None:
        legal = (POST, IN) if self.source_nat else (PRE, OUT)
        kind = "snat" if self.source_nat else "dnat"
        return None if hook in legal else f"{kind}: not supported at this hook (EOPNOTSUPP)"


class Masq(Expr):
    """Source NAT to the outgoing interface's address, ports from registers if given."""

    kind = "masq"

    def __init__(self, proto_min: int | None = None, proto_max: int | None = None, flags: int = 0) -> None:
        if proto_max is not None and proto_min is None:
            raise ValueError("a range has a start")
        if flags & ~_ALL_FLAGS:
            raise ValueError(f"unknown nat flags 0x{flags:x}")
        self.proto_min = _source(proto_min, 2)
        self.proto_max = _source(proto_max, 2)
        self.flags = flags
        self.regs = tuple(-1 if reg is None else reg for reg in (proto_min, proto_max))
        self.within = NatRange(flags | (NAT_RANGE_PROTO_SPECIFIED if proto_min is not None else 0))

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        conn: Conn | None = pkt.ct
        nat: NatCore = ctx.services.nat
        if conn is None or nat is None:
            return NFT_BREAK
        _ports(ctx, self.within, self.proto_min, self.proto_max)
        return nat.masquerade(pkt, conn, self.within)

    def operands(self) -> str:
        a, b = self.regs
        return (_text(proto_min=a, proto_max=b) + _flag_text(self.flags)).strip()


class Redir(Masq):
    """Destination NAT to the gateway itself: the incoming interface's address at prerouting, loopback at output."""

    kind = "redir"

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        conn: Conn | None = pkt.ct
        nat: NatCore = ctx.services.nat
        if conn is None or nat is None:
            return NFT_BREAK
        _ports(ctx, self.within, self.proto_min, self.proto_max)
        return nat.redirect(pkt, conn, self.within, ctx.hook)


register(Row("nat", Nat, hooks=hooks(PRE, OUT, POST, IN), types=(CHAIN_NAT,)))
register(Row("masq", Masq, hooks=hooks(POST), types=(CHAIN_NAT,)))
register(Row("redir", Redir, hooks=hooks(PRE, OUT), types=(CHAIN_NAT,)))
