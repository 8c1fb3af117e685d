"""tproxy: deliver to a local transparent socket without changing the packet (Linux: nft_tproxy.c).

Without a socket the rule breaks and the packet goes on.
"""

from __future__ import annotations

import cython

from userfw.engine.expr import Expr, register_offset
from userfw.engine.registry import PRE, Row, hooks, register

if not cython.compiled:
    from userfw.core.const import IPPROTO_TCP, IPPROTO_UDP, NFPROTO_IPV6, NFT_BREAK, NFT_CONTINUE
    from userfw.core.packet import Packet
    from userfw.engine.context import Context
    from userfw.engine.expr import Expr

_FAMILIES = {"": 0, "ip": 2, "ip6": 10}
_FAMILY_NAMES = {number: name for name, number in _FAMILIES.items()}


class Tproxy(Expr):
    """To the address in `addr` (4 or 16 bytes by `family` ip or ip6) and the port in `port`; family "" handles both, ports only."""

    kind = "tproxy"

    def __init__(self, family: str, addr: int | None = None, port: int | None = None) -> None:
        if family not in _FAMILIES:
            raise ValueError(f"no tproxy family {family!r}")
        if addr is None and port is None:
            raise ValueError("tproxy needs an address or a port")
        if addr is not None and not family:
            raise ValueError("an address needs the family ip or ip6")
        self.family = _FAMILIES[family]
        self.addr = -1 if addr is None else register_offset(addr, 16 if family == "ip6" else 4)
        self.port = -1 if port is None else register_offset(port, 2)
        self.addr_reg = -1 if addr is None else addr
        self.port_reg = -1 if port is None else port

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        address: bytes = b""
        port: cython.int = 0
        if self.family != 0 and self.family != pkt.nfproto:
            return NFT_BREAK
        if not ctx.l4 or (pkt.l4proto != IPPROTO_TCP and pkt.l4proto != IPPROTO_UDP) or pkt.fragoff != 0:
            return NFT_BREAK
        if pkt.l4 + 8 > pkt.end:
            return NFT_BREAK
        if self.addr >= 0:
            address = bytes(ctx.regs[self.addr : self.addr + (16 if pkt.nfproto == NFPROTO_IPV6 else 4)])
        if self.port >= 0:
            port = (ctx.regs[self.port] << 8) | ctx.regs[self.port + 1]
        return NFT_CONTINUE if ctx.services.tproxy(pkt, pkt.nfproto, address, port) > 0 else NFT_BREAK

    def operands(self) -> str:
        parts = [_FAMILY_NAMES[self.family]] if self.family else []
        if self.addr_reg >= 0:
            parts.append(f"addr reg {self.addr_reg}")
        if self.port_reg >= 0:
            parts.append(f"port reg {self.port_reg}")
        return " ".join(parts)


register(Row("tproxy", Tproxy, hooks=hooks(PRE)))
