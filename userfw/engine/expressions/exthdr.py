"""exthdr: IPv6 extension headers, TCP options, IPv4 options, SCTP chunks, DCCP options (Linux: nft_exthdr.c)."""

from __future__ import annotations

from userfw.engine.expr import Expr, register_offset
from userfw.engine.registry import Row, register

OPERATIONS = {"ipv6": 0, "tcpopt": 1, "ipv4": 2, "sctp": 3, "dccp": 4}
_TEXT = {0: " ipv6", 1: " tcpopt", 2: "", 3: "", 4: ""}


class Exthdr(Expr):
    """`dreg` = `length` bytes at `offset` of the header, option or chunk `type`; `present`: 1 or 0 as it exists.

    `op`: ipv6, tcpopt, ipv4, sctp or dccp. Absent: the rule breaks, unless `present`.
    """

    kind = "exthdr"

    def __init__(self, dreg: int, op: str, type: int, offset: int, length: int, present: bool = False) -> None:
        if op not in OPERATIONS:
            raise ValueError(f"no kind of header {op!r}")
        if not 0 <= type <= 255 or not 0 <= offset <= 255:
            raise ValueError("type and offset are 0 to 255")
        if op == "dccp" and not present:
            raise ValueError("dccp options can only be tested for existence")
        self.dst = register_offset(dreg, length)
        self.dreg = dreg
        self.op = OPERATIONS[op]
        self.type = type
        self.offset = offset
        self.length = length
        self.present = present

    def operands(self) -> str:
        flag = " present" if self.present else ""
        return f"load{_TEXT[self.op]} {self.length}b @ {self.type} + {self.offset}{flag} => reg {self.dreg}"


class ExthdrSet(Expr):
    """Write 2 or 4 bytes of `sreg` into TCP option `type` at `offset`; no option: the rule goes on (Linux: nft_exthdr_tcp_set_eval).

    The maximum segment size is only ever lowered.
    """

    kind = "exthdr"

    def __init__(self, sreg: int, op: str, type: int, offset: int, length: int) -> None:
        if op != "tcpopt":
            raise ValueError("only TCP options can be written")
        if length not in (2, 4):
            raise ValueError("2 or 4 bytes of an option can be written")
        if offset < 2 or not 0 <= type <= 255:
            raise ValueError("kind and length of an option cannot be written")
        self.src = register_offset(sreg, length)
        self.sreg = sreg
        self.op = OPERATIONS[op]
        self.type = type
        self.offset = offset
        self.length = length

    def operands(self) -> str:
        return f"write{_TEXT[self.op]} reg {self.sreg} => {self.length}b @ {self.type} + {self.offset}"


class ExthdrReset(Expr):
    """Overwrite TCP option `type` with NOPs."""

    kind = "exthdr"

    def __init__(self, op: str, type: int) -> None:
        if op != "tcpopt":
            raise ValueError("only TCP options can be reset")
        if type in (0, 1) or not 0 <= type <= 255:
            raise ValueError("end and NOP cannot be reset")
        self.op = OPERATIONS[op]
        self.type = type

    def operands(self) -> str:
        return f"reset{_TEXT[self.op]} {self.type}"


register(Row("exthdr", Exthdr))
register(Row("exthdr set", ExthdrSet))
register(Row("exthdr reset", ExthdrReset))
