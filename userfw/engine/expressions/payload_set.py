"""payload set: write register bytes into the packet and keep its checksums right (Linux: nft_payload_set_eval).

- `csum_type` inet: the checksum at `csum_offset` of the same header is updated by the difference (IPv4 header, TCP, ICMP, …);
  a UDP checksum of zero stays zero and a computed zero is written as 0xffff. sctp: CRC32c over the whole packet.
- `csum_flags` pseudohdr: the written bytes are part of the transport's pseudo-header, whose checksum is updated too.
- A packet with a partial checksum (VNET_F_NEEDS_CSUM) holds only the pseudo-header's sum, so only pseudo-header changes touch it.
"""

from __future__ import annotations

from userfw.engine.expr import Expr, register_offset
from userfw.engine.expressions.payload import BASE_NAMES, BASES
from userfw.engine.registry import Row, register

_CSUM_TYPES = {"none": 0, "inet": 1, "sctp": 2}


class PayloadSet(Expr):
    """Write `length` bytes of `sreg` at `offset` of the header `base`."""

    kind = "payload"

    def __init__(
        self,
        sreg: int,
        base: str,
        offset: int,
        length: int,
        csum_type: int | str = 0,
        csum_offset: int = 0,
        csum_flags: int = 0,
    ) -> None:
        number = _CSUM_TYPES.get(csum_type) if isinstance(csum_type, str) else csum_type
        if base not in BASES or base == "tunnel":
            raise ValueError(f"no header {base!r}")
        if number not in (0, 1, 2) or number is None:
            raise ValueError(f"no checksum type {csum_type!r}")
        if number == 2 and (base != "transport" or csum_offset != 8):
            raise ValueError("an SCTP checksum is at offset 8 of the transport header")
        if csum_flags & ~1:
            raise ValueError(f"unknown checksum flags 0x{csum_flags:x}")
        self.src = register_offset(sreg, length)
        self.sreg = sreg
        self.base = BASES[base]
        self.offset = offset
        self.length = length
        self.csum_type = number
        self.csum_offset = csum_offset
        self.csum_flags = csum_flags

    def operands(self) -> str:
        return (
            f"write reg {self.sreg} => {self.length}b @ {BASE_NAMES[self.base]} header + {self.offset} "
            f"csum_type {self.csum_type} csum_off {self.csum_offset} csum_flags 0x{self.csum_flags:x}"
        )


register(Row("payload set", PayloadSet))
