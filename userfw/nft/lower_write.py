"""Lowering statements that write to the packet: header fields, options, meta and ct keys.

Laws:
- Where a checksum covers the field, whole 16-bit words are written, so that it can be fixed word by word; a field that is
  no whole number of such words is read, masked and written back (nft: stmt_evaluate_payload).
- IPv4's own checksum and the transport checksum beside the field are named in the instruction; a field of the pseudo
  header asks for the transport checksum too. UDP's is fixed only if it is there, so it is asked for as pseudo header.
"""

from __future__ import annotations

from userfw.engine.const import CSUM_INET, CSUM_L4_PSEUDOHDR, CSUM_NONE, CSUM_SCTP
from userfw.engine.expressions import (
    Bitwise,
    BitwiseBool,
    BitwiseShift,
    CtSet,
    ExthdrReset,
    ExthdrSet,
    MetaSet,
    Payload,
    PayloadSet,
)
from userfw.nft import proto, proto_keys, proto_options
from userfw.nft.check_context import fail
from userfw.nft.datatype import HOST
from userfw.nft.lower_expr import BASE, combine, constant_steps, reg, tcp_kind
from userfw.nft.lower_match import MatchLowering
from userfw.nft.syntax import (
    ConstantExpr,
    CtExpr,
    Expr,
    MangleStmt,
    MetaExpr,
    OptstripStmt,
    PayloadExpr,
    RawPayloadExpr,
    TcpOptionExpr,
)

_PSEUDO = frozenset(("saddr", "daddr", "protocol", "nexthdr", "length"))


class WriteLowering(MatchLowering):
    """``X set Y``."""

    def mangle(self, stmt: MangleStmt) -> None:
        """The instructions of an assignment."""
        self.free = 0
        target = stmt.target
        unit = self.take()
        if isinstance(target, MetaExpr):
            self.value(stmt.value, unit, target.dtype)
            self.emit(MetaSet(reg(unit), proto_keys.META[target.key].name))
        elif isinstance(target, CtExpr):
            self.value(stmt.value, unit, target.dtype)
            self.emit(CtSet(reg(unit), proto_keys.CT[target.key].name, target.direction))
        elif isinstance(target, TcpOptionExpr):
            self._option_write(target, stmt.value, unit)
        elif isinstance(target, PayloadExpr | RawPayloadExpr):
            self._payload_write(target, stmt.value, unit)
        else:
            fail(target, "this expression cannot be set")

    def _option_write(self, target: TcpOptionExpr, value: Expr, unit: int) -> None:
        if target.raw is not None:
            offset, width = target.raw
        else:
            row = proto_options.tcp_option_field(target.option, target.field or "")
            assert row is not None
            offset, width = row.offset, row.width
        if offset % 8 or width not in (16, 32):
            fail(target, "only fields of 2 or 4 bytes of a TCP option can be set")
        self.value(value, unit, target.dtype)
        self.emit(ExthdrSet(reg(unit), "tcpopt", tcp_kind(target), offset // 8, width // 8))

    def strip(self, stmt: OptstripStmt) -> None:
        """``reset tcp option``."""
        assert isinstance(stmt.target, TcpOptionExpr)
        self.emit(ExthdrReset("tcpopt", tcp_kind(stmt.target)))

    def _payload_write(self, target: PayloadExpr | RawPayloadExpr, value: Expr, unit: int) -> None:
        first = target.offset // 8
        size = (target.offset % 8 + target.width + 7) // 8
        kind, where, flags, words = _checksum(target)
        if words and size % 2:
            size += 1
            first -= first % 2
        below = size * 8 - (target.offset - first * 8) - target.width
        if size * 8 == target.width:
            self.value(value, unit, target.dtype)
        else:
            if size > 16:
                fail(target, "the field is too long to be written in part")
            self.emit(Payload(reg(unit), BASE[target.base], first, size))
            self._blend(target, value, unit, size, below)
        self.emit(PayloadSet(reg(unit), BASE[target.base], first, size, kind, where, flags))

    def _blend(self, target: PayloadExpr | RawPayloadExpr, value: Expr, unit: int, size: int, below: int) -> None:
        """Put a value among the bytes around it."""
        everything = (1 << size * 8) - 1
        field = ((1 << target.width) - 1) << below
        constants = _masks(target, value, everything, field, below)
        if constants is not None:
            mask, xor = constants
            self.emit(Bitwise(reg(unit), reg(unit), mask.to_bytes(size, "big"), xor.to_bytes(size, "big")))
            return
        if size not in (1, 2, 4):
            fail(value, "only constants can be written to this field")
        self.emit(Bitwise(reg(unit), reg(unit), (everything & ~field).to_bytes(size, "big"), bytes(size)))
        other = self.take()
        held = self.gen(value, other)
        self.want(value, other, held, HOST)
        if below:
            self.emit(BitwiseShift("lshift", reg(other), reg(other), size, below))
        self.swap("hton", other, size, value)
        self.emit(BitwiseBool("or", reg(unit), reg(other), reg(unit), size))


def _masks(target: PayloadExpr | RawPayloadExpr, value: Expr, everything: int, field: int, below: int) -> tuple[int, int] | None:
    """Mask and xor that turn the old bytes into the new ones; None if that depends on the packet."""
    if isinstance(value, ConstantExpr) and isinstance(value.value, int):
        return everything & ~field, value.value << below
    base, steps = constant_steps(value)
    if not steps or base != target:
        return None
    mask, xor = combine(steps, 16)
    return everything & ~field | (mask << below & field), xor << below & field


def _checksum(target: PayloadExpr | RawPayloadExpr) -> tuple[int, int, int, bool]:
    """Checksum type, its offset in bytes, flags, and whether whole 16-bit words must be written."""
    if isinstance(target, RawPayloadExpr):
        inside = target.base == "ih"
        return CSUM_NONE, 0, CSUM_L4_PSEUDOHDR if inside else 0, inside
    protocol = proto.PROTOCOLS[target.protocol]
    flags = CSUM_L4_PSEUDOHDR if protocol.base == "nh" and target.field in _PSEUDO and protocol is not proto.ARP else 0
    if protocol.checksum is None:
        return CSUM_NONE, 0, flags, False
    if protocol is proto.UDP:
        return CSUM_NONE, 0, CSUM_L4_PSEUDOHDR, True
    where = protocol.fields[protocol.checksum].offset // 8
    return CSUM_SCTP if protocol is proto.SCTP else CSUM_INET, where, flags, True
