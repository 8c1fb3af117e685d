"""Expr: one instruction of the nf_tables machine.

Laws:
- Fields are given once, checked by the constructor (ValueError says what is wrong) and never change; only counters, tokens
  and the like do. Registers have netlink numbers: 0 is the verdict, 1..4 are 16 bytes, 8..23 are 4 bytes of the same 64.
- `evaluate` returns NFT_CONTINUE (next expression), NFT_BREAK (the rule does not match) or a verdict. It never raises for bad
  bytes.
- `bind` resolves names (sets, chains, objects) when the rule is built; nothing is looked up by name per packet.
- Values that Linux keeps in host order are little-endian in registers, whatever machine this runs on.
"""

from __future__ import annotations

from typing import Any

import cython

from userfw.engine.const import REG_BYTES

if not cython.compiled:
    from userfw.core.const import NFT_CONTINUE
    from userfw.core.packet import Packet
    from userfw.engine.context import Context


def register_offset(reg: int, length: int = 1) -> int:
    """Byte offset of netlink register `reg`; ValueError unless `length` bytes fit (Linux: nft_parse_register,
    nft_validate_register_load)."""
    if 1 <= reg <= 4:
        offset = (reg - 1) * 16
    elif 8 <= reg <= 23:
        offset = (reg - 8) * 4
    else:
        raise ValueError(f"no data register {reg}")
    if length < 1 or offset + length > REG_BYTES:
        raise ValueError(f"{length} bytes do not fit at register {reg}")
    return offset


def words(data: bytes) -> str:
    """Bytes as libnftnl prints a register: 32-bit words, the machine's order."""
    padded = data.ljust((len(data) + 3) // 4 * 4, b"\0")
    return " ".join(f"0x{int.from_bytes(padded[i : i + 4], 'little'):08x}" for i in range(0, len(padded), 4))


class Expr:
    """Base of all expressions. `kind` is the kernel's name."""

    kind = ""

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        """Act on registers and packet; NFT_CONTINUE, NFT_BREAK or a verdict."""
        return NFT_CONTINUE

    def render(self) -> str:
        """The expression as `nft --debug=netlink` prints it: `[ kind … ]`."""
        text = self.operands()
        return f"[ {self.kind} {text} ]" if text else f"[ {self.kind} ]"

    def operands(self) -> str:
        """What stands behind the kind in `render`."""
        return ""

    def bind(self, scope: Any) -> None:
        """Resolve names through `scope` (see engine.bind.Scope); LookupError names what is missing."""

    def clone(self) -> Expr:
        """A fresh copy with its own state (set elements); stateless expressions are their own copy."""
        return self

    def reset(self) -> None:
        """Zero the state (`nft reset`)."""

    def state(self) -> tuple[int, ...]:
        """The state as numbers, for listings and for carrying over (`restore`); () if there is none."""
        return ()

    def restore(self, state: tuple[int, ...]) -> None:
        """Take over the state that `state()` of an expression of the same kind returned."""

    def __repr__(self) -> str:
        return self.render()
