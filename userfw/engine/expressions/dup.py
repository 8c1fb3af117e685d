"""dup and fwd: send a copy elsewhere, or the packet itself (Linux: nft_dup_ipv4.c, nft_dup_ipv6.c, nft_dup_netdev.c,
nft_fwd_netdev.c)."""

from __future__ import annotations

import cython

from userfw.engine.expr import Expr, register_offset
from userfw.engine.registry import HOOKS, Row, register

if not cython.compiled:
    from userfw.core.const import ETH_P_IP, ETH_P_IPV6, NF_DROP, NFPROTO_IPV4, NFPROTO_IPV6, NFT_BREAK, NFT_CONTINUE
    from userfw.core.drop import (
        DROP_DEVICE_DOWN,
        DROP_MALFORMED,
        DROP_NEIGH_FAILED,
        DROP_NOT_SPECIFIED,
        DROP_TTL_EXPIRED,
        DROP_TX_FAILED,
    )
    from userfw.core.packet import Device, Packet
    from userfw.engine.context import Context
    from userfw.engine.expr import Expr
    from userfw.wire.checksum import replace16

_FAMILIES = {None: 0, "ip": 2, "ip6": 10}


class Dup(Expr):
    """A copy to the gateway in `addr` (ip, ip6) and/or out of the device whose index is in `dev`; `size` is the address' bytes."""

    kind = "dup"

    def __init__(self, addr: int | None = None, dev: int | None = None, size: int = 4) -> None:
        if addr is None and dev is None:
            raise ValueError("dup needs an address or a device")
        if size not in (4, 16):
            raise ValueError("an address has 4 or 16 bytes")
        self.addr = -1 if addr is None else register_offset(addr, size)
        self.dev = -1 if dev is None else register_offset(dev, 4)
        self.size = size
        self.addr_reg = -1 if addr is None else addr
        self.dev_reg = -1 if dev is None else dev

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        device: Device | None = None
        gateway: bytes | None = None
        if self.dev >= 0:
            device = ctx.services.device_by_index(ctx.read32(self.dev))
            if device is None:
                return NFT_CONTINUE
        if self.addr >= 0:
            gateway = bytes(ctx.regs[self.addr : self.addr + (16 if pkt.nfproto == NFPROTO_IPV6 else 4)])
        ctx.services.send_duplicate(pkt, ctx.hook, ctx.family, gateway, device)
        return NFT_CONTINUE

    def operands(self) -> str:
        parts = [f"sreg_addr {self.addr_reg}"] if self.addr_reg >= 0 else []
        if self.dev_reg >= 0:
            parts.append(f"sreg_dev {self.dev_reg}")
        return " ".join(parts)


class Fwd(Expr):
    """The packet leaves through the device in `dev` at once, to the neighbour in `addr` of family ip or ip6 if given."""

    kind = "fwd"

    def __init__(self, dev: int, addr: int | None = None, family: str | None = None) -> None:
        if family not in _FAMILIES or (addr is None) != (family is None):
            raise ValueError("an address needs the family ip or ip6")
        self.family = _FAMILIES[family]
        self.dev = register_offset(dev, 4)
        self.addr = -1 if addr is None else register_offset(addr, 16 if family == "ip6" else 4)
        self.dev_reg = dev
        self.addr_reg = -1 if addr is None else addr

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        device: Device | None
        verdict: cython.int
        if self.addr >= 0:
            return self._to_neighbour(ctx, pkt)
        device = ctx.services.device_by_index(ctx.read32(self.dev))
        if device is None:
            pkt.drop_reason = DROP_DEVICE_DOWN
            return NF_DROP
        verdict = ctx.services.forward_device(pkt, device)
        if verdict == NF_DROP and pkt.drop_reason == DROP_NOT_SPECIFIED:
            pkt.drop_reason = DROP_TX_FAILED
        return verdict

    def _to_neighbour(self, ctx: Context, pkt: Packet) -> cython.int:
        """TTL, device, neighbour, in Linux's order (nft_fwd_neigh_eval)."""
        device: Device | None
        verdict: cython.int
        at: cython.Py_ssize_t = pkt.l3 + (8 if self.family == NFPROTO_IPV4 else 7)
        ttl: cython.int
        if ctx.protocol != (ETH_P_IP if self.family == NFPROTO_IPV4 else ETH_P_IPV6):
            return NFT_BREAK
        if pkt.l3 + (20 if self.family == NFPROTO_IPV4 else 40) > pkt.end:  # a header that is cut off
            pkt.drop_reason = DROP_MALFORMED
            return NF_DROP
        ttl = pkt.get8(at)
        if ttl <= 1:
            pkt.drop_reason = DROP_TTL_EXPIRED
            return NF_DROP
        pkt.put8(at, ttl - 1)
        if self.family == NFPROTO_IPV4:
            replace16(pkt, pkt.l3 + 10, (ttl << 8) | pkt.get8(at + 1), ((ttl - 1) << 8) | pkt.get8(at + 1))
        device = ctx.services.device_by_index(ctx.read32(self.dev))
        if device is None:
            pkt.drop_reason = DROP_DEVICE_DOWN
            return NF_DROP
        nexthop: bytes = bytes(ctx.regs[self.addr : self.addr + (4 if self.family == NFPROTO_IPV4 else 16)])
        verdict = ctx.services.forward_neighbour(pkt, device, self.family, nexthop)
        if verdict == NF_DROP and pkt.drop_reason == DROP_NOT_SPECIFIED:
            pkt.drop_reason = DROP_NEIGH_FAILED
        return verdict

    def operands(self) -> str:
        address = f" sreg_addr {self.addr_reg} nfproto {self.family}" if self.addr_reg >= 0 else ""
        return f"sreg_dev {self.dev_reg}{address}"


register(Row("dup", Dup, hooks={2: HOOKS[2], 10: HOOKS[10], 5: HOOKS[5]}))
register(Row("fwd", Fwd, hooks={5: HOOKS[5]}))
