"""dup and fwd: send a copy elsewhere, or the packet itself (Linux: nft_dup_ipv4.c, nft_dup_ipv6.c, nft_dup_netdev.c, nft_fwd_netdev.c)."""

from __future__ import annotations

from userfw.engine.expr import Expr, register_offset
from userfw.engine.registry import HOOKS, Row, register

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

    def operands(self) -> str:
        address = f" sreg_addr {self.addr_reg} nfproto {self.family}" if self.addr_reg >= 0 else ""
        return f"sreg_dev {self.dev_reg}{address}"


register(Row("dup", Dup, hooks={2: HOOKS[2], 10: HOOKS[10], 5: HOOKS[5]}))
register(Row("fwd", Fwd, hooks={5: HOOKS[5]}))
