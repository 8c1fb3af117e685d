"""Lowering expressions: loads, masks, shifts and constants into registers.

Laws:
- Registers are counted in units of 4 bytes from 0; ``reg`` gives the netlink number (1-4 for whole 16-byte registers, 8-23
  else). A value takes 4 units, a concatenation the units that its fields need.
- ``gen`` leaves a value in a register and says how it lies there: how many bytes, network order (``big``), host order.
- A field of bits is loaded in whole bytes and masked; it is shifted down where its number is wanted, and left in place
  where constants can be shifted up instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from userfw.engine.expr import Expr as Instruction
from userfw.engine.expressions import (
    Bitwise,
    BitwiseBool,
    BitwiseShift,
    Byteorder,
    Ct,
    Exthdr,
    Fib,
    Immediate,
    Inner,
    Jhash,
    Lookup,
    Meta,
    Numgen,
    Osf,
    Payload,
    Rt,
    Socket,
    Symhash,
    Tunnel,
    Xfrm,
)
from userfw.nft import proto_keys, proto_options
from userfw.nft.check_context import fail
from userfw.nft.datatype import BIG, HOST, HOST_IS, Datatype
from userfw.nft.datatype_tables import BOOLEAN, VERDICT, ConcatType
from userfw.nft.syntax import (
    BinopExpr,
    ChainBlock,
    ConcatExpr,
    ConstantExpr,
    CtExpr,
    DccpOptionExpr,
    Expr,
    ExthdrExpr,
    FibExpr,
    HashExpr,
    IpOptionExpr,
    MapExpr,
    MetaExpr,
    NumgenExpr,
    OsfExpr,
    PayloadExpr,
    RawPayloadExpr,
    RtExpr,
    SctpChunkExpr,
    SetBlock,
    SocketExpr,
    TcpOptionExpr,
    TunnelExpr,
    XfrmExpr,
)

BASE = {"ll": "link", "nh": "network", "th": "transport", "ih": "inner"}
UNIT = 4
WHOLE = 4
_BOOL = {"&": "and", "|": "or", "^": "xor"}


class Place:
    """Where the bits of a load lie within the bytes that are read: bytes, and bits below the field's last."""

    def __init__(self, octets: int, below: int) -> None:
        self.octets = octets
        self.below = below


class Held:
    """A value in a register: its bytes and their order (``big``, ``host``; of one byte or a string it does not matter)."""

    def __init__(self, octets: int, order: str) -> None:
        self.octets = octets
        self.order = order


def reg(unit: int) -> int:
    """The netlink number of the register at a unit."""
    return unit // WHOLE + 1 if unit % WHOLE == 0 else unit + 8


def bits_of(expr: Expr) -> tuple[int, int] | None:
    """(first bit within its first byte, width) of a load that is no whole number of bytes; None of others."""
    if isinstance(expr, PayloadExpr | RawPayloadExpr):
        offset, width = expr.offset, expr.width
    elif isinstance(expr, ExthdrExpr | TcpOptionExpr | SctpChunkExpr | IpOptionExpr) and expr.width:
        offset, width = _option_offset(expr), expr.width
    else:
        return None
    if offset % 8 == 0 and width % 8 == 0:
        return None
    return offset % 8, width


def place_of(expr: Expr) -> Place | None:
    """The place of a field of bits; None of a field of whole bytes."""
    found = bits_of(expr)
    if found is None:
        return None
    first, width = found
    octets = (first + width + 7) // 8
    return Place(octets, octets * 8 - first - width)


def _option_offset(expr: Expr) -> int:
    if isinstance(expr, TcpOptionExpr) and expr.raw is not None:
        return expr.raw[0]
    return _option_row(expr).offset


def _option_row(expr: Any) -> proto_options.OptionField:
    if isinstance(expr, ExthdrExpr):
        row = proto_options.exthdr_field(expr.header, expr.field or "")
    elif isinstance(expr, TcpOptionExpr):
        row = proto_options.tcp_option_field(expr.option, expr.field or "")
    elif isinstance(expr, SctpChunkExpr):
        row = proto_options.sctp_chunk_field(expr.chunk, expr.field or "")
    else:
        row = proto_options.ip_option_field(expr.option, expr.field or "")
    assert row is not None
    return row


def constant_steps(expr: Expr) -> tuple[Expr, list[tuple[str, int]]]:
    """What a row of ``&``, ``|``, ``^`` with constants starts from, and the steps in order."""
    steps: list[tuple[str, int]] = []
    while isinstance(expr, BinopExpr) and expr.op in _BOOL and isinstance(expr.right, ConstantExpr):
        assert isinstance(expr.right.value, int)
        steps.append((expr.op, expr.right.value))
        expr = expr.left
    steps.reverse()
    return expr, steps


def combine(steps: list[tuple[str, int]], octets: int) -> tuple[int, int]:
    """Mask and xor that do all the steps at once."""
    full = (1 << octets * 8) - 1
    mask, xor = full, 0
    for op, value in steps:
        if op == "&":
            mask &= value
            xor &= value
        elif op == "|":
            mask &= ~value
            xor |= value
        else:
            xor ^= value
    return mask & full, xor & full


class ExprLowering:
    """The state of one rule's lowering, and its expressions."""

    def __init__(self, family: str) -> None:
        self.family = family
        self.out: list[Instruction] = []
        self.sets: list[SetBlock] = []
        self.bound: list[ChainBlock] = []
        self.free = 0
        self.object_kind: str | None = None
        self.data_interval = False

    def emit(self, instruction: Instruction) -> None:
        self.out.append(instruction)

    def take(self, units: int = WHOLE) -> int:
        """The next free register."""
        unit = self.free
        self.free += units
        return unit

    # --- constants

    def constant(self, expr: ConstantExpr, unit: int, dtype: Datatype | None = None) -> Held:
        """A constant in a register."""
        kind: Datatype = dtype or expr.dtype
        self.emit(Immediate(reg(unit), kind.encode(expr.value)))
        return Held(kind.octets, kind.byteorder)

    # --- any value

    def gen(self, expr: Expr, unit: int) -> Held:
        """The value of an expression in the register at ``unit``."""
        kind = type(expr)
        if kind is ConstantExpr:
            return self.constant(expr, unit)  # type: ignore[arg-type]
        if kind is BinopExpr:
            return self._binop(expr, unit)  # type: ignore[arg-type]
        if kind is MapExpr:
            return self.map(expr, unit)  # type: ignore[arg-type]
        if kind is ConcatExpr:
            return self.concat(expr, unit, False)  # type: ignore[arg-type]
        held = self.load(expr, unit)
        place = place_of(expr)
        return held if place is None else self._number(expr, place, unit)

    def _number(self, expr: Expr, place: Place, unit: int) -> Held:
        """Mask a field of bits, and shift it down to be a number."""
        self.mask_bits(expr, place, unit)
        if not place.below:
            return Held(place.octets, BIG)
        if place.octets > 1:
            self.swap("ntoh", unit, place.octets, expr)
        self.emit(BitwiseShift("rshift", reg(unit), reg(unit), place.octets, place.below))
        return Held(place.octets, HOST)

    def mask_bits(self, expr: Expr, place: Place, unit: int) -> None:
        """Zero what the loaded bytes hold beside the field."""
        width: int = expr.width
        mask = ((1 << width) - 1) << place.below
        self.emit(Bitwise(reg(unit), reg(unit), mask.to_bytes(place.octets, "big"), bytes(place.octets)))

    def swap(self, op: str, unit: int, octets: int, expr: Expr) -> None:
        """Change the byte order of what is in a register."""
        if octets == 1:
            return
        if octets not in (2, 4, 8):
            fail(expr, f"byte order of {octets} bytes cannot be changed")
        self.emit(Byteorder(op, reg(unit), reg(unit), octets, octets))

    def want(self, expr: Expr, unit: int, held: Held, order: str) -> Held:
        """The same value in the wanted byte order."""
        dtype: Datatype = expr.dtype
        if held.octets < 2 or held.order == order or dtype.is_string or isinstance(dtype, ConcatType):
            return held
        self.swap("hton" if order == BIG else "ntoh", unit, held.octets, expr)
        return Held(held.octets, order)

    def value(self, expr: Expr, unit: int, dtype: Datatype) -> None:
        """The value that a statement writes, as ``dtype`` wants it."""
        if isinstance(expr, ConstantExpr):
            self.constant(expr, unit, dtype)
            return
        if isinstance(expr, BinopExpr):
            self._binop(expr, unit, dtype.byteorder)
            return
        held = self.gen(expr, unit)
        if isinstance(expr, MapExpr):
            return
        self.want(expr, unit, held, dtype.byteorder)

    # --- operators

    def _binop(self, expr: BinopExpr, unit: int, order: str | None = None) -> Held:
        """``left op right`` computed in the byte order that the result is wanted in (the left side's own by default).

        Constants in a row are one instruction (nft: netlink_gen_bitwise).
        """
        base, steps = constant_steps(expr)
        if not steps:
            return self._shift(expr, unit, order) if expr.op in ("<<", ">>") else self._two(expr, unit, order)
        place = place_of(base)
        if place is not None and not place.below:
            held = self.load(base, unit)
            steps = [("&", (1 << base.width) - 1), *steps]
        else:
            held = self._binop(base, unit, order) if isinstance(base, BinopExpr) else self.gen(base, unit)
        if order is not None and not isinstance(base, BinopExpr):
            held = self.want(base, unit, held, order)
        octets = max((expr.width + 7) // 8, held.octets)
        mask, xor = combine(steps, octets)
        name: Literal["big", "little"] = "big" if held.order == BIG else HOST_IS
        self.emit(Bitwise(reg(unit), reg(unit), mask.to_bytes(octets, name), xor.to_bytes(octets, name)))
        return Held(octets, held.order)

    def _side(self, expr: Expr, unit: int, order: str | None) -> Held:
        if isinstance(expr, BinopExpr):
            return self._binop(expr, unit, order)
        held = self.gen(expr, unit)
        return held if order is None else self.want(expr, unit, held, order)

    def _two(self, expr: BinopExpr, unit: int, order: str | None) -> Held:
        """An operator on two loads."""
        held = self._side(expr.left, unit, order)
        octets = max((expr.width + 7) // 8, held.octets)
        other = self.take()
        second = self._side(expr.right, other, order)
        self.want(expr.right, other, second, held.order)
        self.emit(BitwiseBool(_BOOL[expr.op], reg(unit), reg(other), reg(unit), octets))
        self.free = other
        return Held(octets, held.order)

    def _shift(self, expr: BinopExpr, unit: int, order: str | None) -> Held:
        held = self._side(expr.left, unit, order)
        octets = max((expr.width + 7) // 8, held.octets)
        assert isinstance(expr.right, ConstantExpr) and isinstance(expr.right.value, int)
        if held.order == BIG and held.octets > 1:
            self.swap("ntoh", unit, held.octets, expr)
        amount = expr.right.value
        if amount:
            self.emit(BitwiseShift("lshift" if expr.op == "<<" else "rshift", reg(unit), reg(unit), octets, amount))
        return Held(octets, HOST)

    # --- concatenations and maps

    def units_of(self, dtype: Datatype) -> int:
        """Units that a key of this type takes."""
        return (dtype.octets + UNIT - 1) // UNIT

    def concat(self, expr: ConcatExpr, unit: int, ordered: bool) -> Held:
        """The parts side by side. ``ordered``: all in network order, for ranges."""
        at = unit
        for item in expr.items:
            held = self.gen(item, at)
            if ordered and held.octets == item.dtype.octets:
                self.want(item, at, held, BIG)
            at += self.units_of(item.dtype)
        return Held((at - unit) * UNIT, BIG)

    def key(self, expr: Expr, unit: int, ordered: bool, dtype: Datatype) -> None:
        """A key of ``dtype`` for a lookup; ``ordered``: in network order, for ranges."""
        if isinstance(expr, ConcatExpr):
            self.concat(expr, unit, ordered)
            return
        held = self.gen(expr, unit)
        if held.octets == dtype.octets:
            self.want(expr, unit, held, BIG if ordered else dtype.byteorder)

    def key_register(self, expr: Expr) -> int:
        """A register for a key."""
        units = self.units_of(expr.dtype) if isinstance(expr, ConcatExpr) else WHOLE
        return self.take(max(units, 1))

    def map(self, expr: MapExpr, unit: int) -> Held:
        """The data of a map in the register at ``unit`` (0 units are taken for a verdict)."""
        name = self.lookup_key(expr.key, expr.mapping, unit, expr)
        self.emit(Lookup(reg(unit), name, 0 if expr.dtype is VERDICT else reg(unit)))
        return Held(expr.dtype.octets, expr.dtype.byteorder)

    def lookup_key(self, key: Expr, mapping: Expr, unit: int, owner: Expr) -> str:
        """Generate the key of a lookup; the name of the set."""
        raise NotImplementedError

    # --- loads

    def load(self, expr: Expr, unit: int, octets: int = 0) -> Held:
        """The bytes that hold a load; fewer (``octets``) for a prefix."""
        return _LOADS[type(expr)](self, expr, unit, octets)

    def _payload(self, expr: PayloadExpr, unit: int, octets: int) -> Held:
        first = expr.offset // 8
        size = octets or (expr.offset % 8 + expr.width + 7) // 8
        base = BASE[expr.base]
        if expr.inner is not None:
            self.emit(Inner(expr.inner, Payload(reg(unit), base, first, size)))
        elif expr.base == "ih":
            self.emit(Inner(expr.protocol, Payload(reg(unit), "tunnel", first, size)))
        else:
            self.emit(Payload(reg(unit), base, first, size))
        return Held(size, BIG)

    def _raw(self, expr: RawPayloadExpr, unit: int, octets: int) -> Held:
        first = expr.offset // 8
        size = octets or (expr.offset % 8 + expr.width + 7) // 8
        load = Payload(reg(unit), BASE[expr.base], first, size)
        self.emit(load if expr.inner is None else Inner(expr.inner, load))
        return Held(size, BIG)

    def _option(self, op: str, expr: Any, kind: int, unit: int, octets: int) -> Held:
        name = getattr(expr, "field", None)
        raw = getattr(expr, "raw", None)
        if name is None and raw is None:
            self.emit(Exthdr(reg(unit), op, kind, 0, 1, present=True))
            return Held(1, HOST)
        offset = raw[0] if raw is not None else _option_row(expr).offset
        size = octets or (offset % 8 + expr.width + 7) // 8
        self.emit(Exthdr(reg(unit), op, kind, offset // 8, size))
        return Held(size, BIG)

    def _exthdr(self, expr: ExthdrExpr, unit: int, octets: int) -> Held:
        return self._option("ipv6", expr, proto_options.EXTHDR_KINDS[expr.header], unit, octets)

    def _tcp_option(self, expr: TcpOptionExpr, unit: int, octets: int) -> Held:
        return self._option("tcpopt", expr, tcp_kind(expr), unit, octets)

    def _ip_option(self, expr: IpOptionExpr, unit: int, octets: int) -> Held:
        return self._option("ipv4", expr, proto_options.IP_OPTION_KINDS[expr.option], unit, octets)

    def _sctp_chunk(self, expr: SctpChunkExpr, unit: int, octets: int) -> Held:
        return self._option("sctp", expr, proto_options.SCTP_CHUNK_KINDS[expr.chunk], unit, octets)

    def _dccp_option(self, expr: DccpOptionExpr, unit: int, octets: int) -> Held:
        self.emit(Exthdr(reg(unit), "dccp", expr.number, 0, 1, present=True))
        return Held(1, HOST)

    def _meta(self, expr: MetaExpr, unit: int, octets: int) -> Held:
        row = proto_keys.META[expr.key]
        load = Meta(reg(unit), row.name)
        self.emit(load if expr.inner is None else Inner(expr.inner, load))
        return Held(row.dtype.octets, row.dtype.byteorder)

    def _ct(self, expr: CtExpr, unit: int, octets: int) -> Held:
        row = proto_keys.CT[expr.key]
        if expr.family is not None:
            row = proto_keys.CT_ADDRESSES[(expr.key, expr.family)]
        self.emit(Ct(reg(unit), row.name, expr.direction))
        return Held(expr.dtype.octets, expr.dtype.byteorder)

    def _rt(self, expr: RtExpr, unit: int, octets: int) -> Held:
        row = proto_keys.RT[(expr.key, expr.family)]
        self.emit(Rt(reg(unit), row.name))
        return Held(row.dtype.octets, row.dtype.byteorder)

    def _fib(self, expr: FibExpr, unit: int, octets: int) -> Held:
        row = proto_keys.FIB[expr.result]
        present = expr.dtype is BOOLEAN
        self.emit(Fib(reg(unit), row.name, expr.flags, present))
        return Held(1 if present else row.dtype.octets, row.dtype.byteorder)

    def _socket(self, expr: SocketExpr, unit: int, octets: int) -> Held:
        row = proto_keys.SOCKET[expr.key]
        self.emit(Socket(reg(unit), row.name, expr.level or 0))
        return Held(row.dtype.octets, row.dtype.byteorder)

    def _osf(self, expr: OsfExpr, unit: int, octets: int) -> Held:
        self.emit(Osf(reg(unit), expr.ttl or "", expr.key == "version"))
        return Held(16, HOST)

    def _numgen(self, expr: NumgenExpr, unit: int, octets: int) -> Held:
        self.emit(Numgen(reg(unit), expr.mode, expr.modulus, expr.offset))
        return Held(4, HOST)

    def _hash(self, expr: HashExpr, unit: int, octets: int) -> Held:
        if expr.expr is None:
            self.emit(Symhash(reg(unit), expr.modulus, expr.offset))
            return Held(4, HOST)
        free = self.free
        source = self.key_register(expr.expr)
        self.gen(expr.expr, source)
        self.free = free
        length = self.units_of(expr.expr.dtype) * UNIT if isinstance(expr.expr, ConcatExpr) else expr.expr.dtype.octets
        self.emit(Jhash(reg(unit), reg(source), length, expr.modulus, expr.seed, expr.offset))
        return Held(4, HOST)

    def _xfrm(self, expr: XfrmExpr, unit: int, octets: int) -> Held:
        row = proto_keys.XFRM[(expr.key, expr.family)]
        self.emit(Xfrm(reg(unit), row.name, expr.direction, expr.spnum))
        return Held(row.dtype.octets, row.dtype.byteorder)

    def _tunnel(self, expr: TunnelExpr, unit: int, octets: int) -> Held:
        row = proto_keys.TUNNEL[expr.key]
        self.emit(Tunnel(reg(unit), row.name))
        return Held(row.dtype.octets, row.dtype.byteorder)


def tcp_kind(expr: TcpOptionExpr) -> int:
    """The kind number of a TCP option."""
    return expr.option if isinstance(expr.option, int) else proto_options.TCP_OPTION_KINDS[expr.option]


_LOADS: dict[type[Any], Callable[..., Held]] = {
    PayloadExpr: ExprLowering._payload,
    RawPayloadExpr: ExprLowering._raw,
    ExthdrExpr: ExprLowering._exthdr,
    TcpOptionExpr: ExprLowering._tcp_option,
    IpOptionExpr: ExprLowering._ip_option,
    SctpChunkExpr: ExprLowering._sctp_chunk,
    DccpOptionExpr: ExprLowering._dccp_option,
    MetaExpr: ExprLowering._meta,
    CtExpr: ExprLowering._ct,
    RtExpr: ExprLowering._rt,
    FibExpr: ExprLowering._fib,
    SocketExpr: ExprLowering._socket,
    OsfExpr: ExprLowering._osf,
    NumgenExpr: ExprLowering._numgen,
    HashExpr: ExprLowering._hash,
    XfrmExpr: ExprLowering._xfrm,
    TunnelExpr: ExprLowering._tunnel,
}
