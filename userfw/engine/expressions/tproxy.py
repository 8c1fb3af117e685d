"""tproxy: deliver to a local transparent socket without changing the packet (Linux: nft_tproxy.c).

Without a socket the rule breaks and the packet goes on.
"""

from __future__ import annotations

from userfw.engine.expr import Expr, register_offset
from userfw.engine.registry import PRE, Row, hooks, register

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

    def operands(self) -> str:
        parts = [_FAMILY_NAMES[self.family]] if self.family else []
        if self.addr_reg >= 0:
            parts.append(f"addr reg {self.addr_reg}")
        if self.port_reg >= 0:
            parts.append(f"port reg {self.port_reg}")
        return " ".join(parts)


register(Row("tproxy", Tproxy, hooks=hooks(PRE)))
