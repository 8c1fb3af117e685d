"""Expressions of the engine as the attributes of nfnetlink, so that the kernel runs exactly what the engine runs.

Laws
- One row for each class of expression; a class without a row is a KeyError, so a new expression is noticed at once.
- Numbers are in network order, as nf_tables wants them, but for the count of a shift, which lies in a register as the host has it.
- Attribute numbers and layouts: Linux, include/uapi/linux/netfilter/nf_tables.h.
"""

import struct
from collections.abc import Callable, Iterable
from typing import Any

from userfw.engine import expressions as e

NESTED = 0x8000
LIST_ELEM, EXPR_NAME, EXPR_DATA, DATA_VALUE, DATA_VERDICT = 1, 1, 2, 1, 2
TEMPLATE = "__set%d"
"""The name of an anonymous set, in which the kernel puts a number."""
_BITWISE = {"mask": 0, "lshift": 1, "rshift": 2, "and": 3, "or": 4, "xor": 5}
_XFRM = {"daddr4": 1, "daddr6": 2, "saddr4": 3, "saddr6": 4, "reqid": 5, "spi": 6}
_TUNNEL_MODES = {"": 0, "rx": 1, "tx": 2}
_FIB_PRESENT = 32


def attr(number: int, data: bytes) -> bytes:
    """One attribute, padded."""
    return struct.pack("HH", len(data) + 4, number) + data + bytes(-len(data) % 4)


def nest(number: int, *inside: bytes) -> bytes:
    """An attribute of attributes."""
    return attr(number | NESTED, b"".join(inside))


def u8(number: int, value: int) -> bytes:
    """A byte."""
    return attr(number, bytes((value,)))


def u16(number: int, value: int) -> bytes:
    """Two bytes."""
    return attr(number, value.to_bytes(2, "big"))


def u32(number: int, value: int) -> bytes:
    """Four bytes; negative numbers as two's complement."""
    return attr(number, (value & 0xFFFFFFFF).to_bytes(4, "big"))


def u64(number: int, value: int) -> bytes:
    """Eight bytes."""
    return attr(number, value.to_bytes(8, "big"))


def text(number: int, value: str) -> bytes:
    """A string with its end."""
    return attr(number, value.encode() + b"\0")


def some(**numbers: tuple[int, int]) -> bytes:
    """Registers, each (number, value), that are there: a value of -1 is left out."""
    return b"".join(u32(number, value) for number, value in numbers.values() if value >= 0)


def value(number: int, data: bytes) -> bytes:
    """Data for a register."""
    return nest(number, attr(DATA_VALUE, data))


def verdict(number: int, code: int, chain: str) -> bytes:
    """A verdict for a register or an element."""
    return nest(number, nest(DATA_VERDICT, u32(1, code), text(2, chain) if chain else b""))


def _rule_set(name: str, ids: dict[str, int], by_name: int, by_id: int) -> bytes:
    return text(by_name, TEMPLATE) + u32(by_id, ids[name]) if name in ids else text(by_name, name)


Row = Callable[[Any, dict[str, int]], bytes]


def _bitwise(x: Any, op: str, rest: bytes) -> bytes:
    return u32(1, x.sreg) + u32(2, x.dreg) + u32(3, x.length) + u32(6, _BITWISE[op]) + rest


def _limit(x: Any, ids: dict[str, int]) -> bytes:
    return u64(1, x.rate) + u64(2, x.unit) + u32(3, x.burst) + u32(4, int(x.by_bytes)) + u32(5, int(x.invert))


def _log(x: Any, ids: dict[str, int]) -> bytes:
    out = text(2, x.prefix) if x.prefix else b""
    if x.group >= 0:
        return out + u16(1, x.group) + (u32(3, x.snaplen) if x.snaplen else b"") + (u16(4, x.qthreshold) if x.qthreshold else b"")
    return out + (u32(5, x.level) if x.level >= 0 else b"") + (u32(6, x.flags) if x.flags else b"")


def _queue(x: Any, ids: dict[str, int]) -> bytes:
    out = u32(4, x.sreg) if x.sreg >= 0 else u16(1, x.num) + u16(2, x.total)
    return out + u16(3, int(x.bypass) | int(x.fanout) << 1)


def _dynset(x: Any, ids: dict[str, int]) -> bytes:
    out = _rule_set(x.set_name, ids, 1, 2) + u32(3, x.op) + u32(4, x.sreg_key) + some(data=(5, x.sreg_data))
    out += u64(6, x.timeout_ms) if x.timeout_ms else b""
    if len(x.given) == 1:
        return out + nest(7, expression_parts(x.given[0], ids)) + u32(9, 2 | int(x.invert))
    return out + (nest(10, *(nest(LIST_ELEM, expression_parts(one, ids)) for one in x.given)) + u32(9, 2 | int(x.invert))
                  if x.given else u32(9, int(x.invert)))


def _nat(x: Any, ids: dict[str, int]) -> bytes:
    a, b, c, d = x.regs
    return u32(1, 0 if x.source_nat else 1) + u32(2, x.family) + some(a=(3, a), b=(4, b), c=(5, c), d=(6, d)) \
        + (u32(7, x.flags) if x.flags else b"")


def _simple_nat(x: Any, flags: int, low: int, high: int) -> bytes:
    a, b = x.regs
    return (u32(flags, x.flags) if x.flags else b"") + some(a=(low, a), b=(high, b))


def _synproxy(x: Any, ids: dict[str, int]) -> bytes:
    return u16(1, x.mss) + u8(2, x.wscale) + u32(3, x.flags)


def _ct(x: Any, register: bytes) -> bytes:
    return register + u32(2, x.key) + (u8(3, x.direction) if x.direction >= 0 else b"")


ROWS: dict[type[Any], tuple[str, Row]] = {
    e.Bitwise: ("bitwise", lambda x, ids: _bitwise(x, "mask", value(4, x.mask) + value(5, x.xor))),
    e.BitwiseShift: ("bitwise", lambda x, ids: _bitwise(x, x.op, value(7, struct.pack("I", x.bits)))),
    e.BitwiseBool: ("bitwise", lambda x, ids: _bitwise(x, x.op, u32(8, x.sreg2))),
    e.Byteorder: ("byteorder", lambda x, ids: u32(1, x.sreg) + u32(2, x.dreg) + u32(3, int(x.op == "hton")) + u32(4, x.length)
                  + u32(5, x.size)),
    e.Cmp: ("cmp", lambda x, ids: u32(1, x.sreg) + u32(2, x.op) + value(3, x.data)),
    e.Range: ("range", lambda x, ids: u32(1, x.sreg) + u32(2, x.op) + value(3, x.low) + value(4, x.high)),
    e.Connlimit: ("connlimit", lambda x, ids: u32(1, x.count) + u32(2, int(x.over))),
    e.Counter: ("counter", lambda x, ids: u64(1, x.bytes) + u64(2, x.packets)),
    e.Ct: ("ct", lambda x, ids: _ct(x, u32(1, x.dreg))),
    e.CtSet: ("ct", lambda x, ids: _ct(x, u32(4, x.sreg))),
    e.Dup: ("dup", lambda x, ids: some(addr=(1, x.addr_reg), dev=(2, x.dev_reg))),
    e.Fwd: ("fwd", lambda x, ids: some(dev=(1, x.dev_reg), addr=(2, x.addr_reg)) + (u32(3, x.family) if x.addr_reg >= 0 else b"")),
    e.Dynset: ("dynset", _dynset),
    e.Exthdr: ("exthdr", lambda x, ids: u32(1, x.dreg) + u8(2, x.type) + u32(3, x.offset) + u32(4, x.length)
               + u32(5, int(x.present)) + u32(6, x.op)),
    e.ExthdrSet: ("exthdr", lambda x, ids: u32(7, x.sreg) + u8(2, x.type) + u32(3, x.offset) + u32(4, x.length) + u32(6, x.op)),
    e.ExthdrReset: ("exthdr", lambda x, ids: u8(2, x.type) + u32(6, x.op)),
    e.Fib: ("fib", lambda x, ids: u32(1, x.dreg) + u32(2, x.result) + u32(3, x.flags | (_FIB_PRESENT if x.present else 0))),
    e.FlowOffload: ("flow_offload", lambda x, ids: text(1, x.flowtable)),
    e.Jhash: ("hash", lambda x, ids: u32(1, x.sreg) + u32(2, x.dreg) + u32(3, x.length) + u32(4, x.modulus) + u32(5, x.seed)
              + u32(6, x.offset) + u32(7, 0)),
    e.Symhash: ("hash", lambda x, ids: u32(2, x.dreg) + u32(4, x.modulus) + u32(6, x.offset) + u32(7, 1)),
    e.Immediate: ("immediate", lambda x, ids: u32(1, x.dreg) + value(2, x.data)),
    e.ImmediateVerdict: ("immediate", lambda x, ids: u32(1, 0) + verdict(2, x.code, x.chain)),
    e.Inner: ("inner", lambda x, ids: u32(1, 0) + u32(2, x.type) + u32(3, x.flags) + u32(4, x.hdrsize)
              + nest(5, expression_parts(x.expr, ids))),
    e.Last: ("last", lambda x, ids: b""),
    e.Limit: ("limit", _limit),
    e.Log: ("log", _log),
    e.Lookup: ("lookup", lambda x, ids: _rule_set(x.set_name, ids, 1, 4) + u32(2, x.sreg) + some(dreg=(3, x.dreg))
               + (u32(5, 1) if x.invert else b"")),
    e.Meta: ("meta", lambda x, ids: u32(1, x.dreg) + u32(2, x.key)),
    e.MetaSet: ("meta", lambda x, ids: u32(3, x.sreg) + u32(2, x.key)),
    e.Nat: ("nat", _nat),
    e.Masq: ("masq", lambda x, ids: _simple_nat(x, 1, 2, 3)),
    e.Redir: ("redir", lambda x, ids: _simple_nat(x, 3, 1, 2)),
    e.Notrack: ("notrack", lambda x, ids: b""),
    e.Numgen: ("numgen", lambda x, ids: u32(1, x.dreg) + u32(2, x.modulus) + u32(3, int(x.random)) + u32(4, x.offset)),
    e.Objref: ("objref", lambda x, ids: u32(1, x.type) + text(2, x.name)),
    e.ObjrefMap: ("objref", lambda x, ids: u32(3, x.sreg) + _rule_set(x.set_name, ids, 4, 5)),
    e.Osf: ("osf", lambda x, ids: u32(1, x.dreg) + u8(2, x.ttl) + u32(3, int(x.version))),
    e.Payload: ("payload", lambda x, ids: u32(1, x.dreg) + u32(2, x.base) + u32(3, x.offset) + u32(4, x.length)),
    e.PayloadSet: ("payload", lambda x, ids: u32(5, x.sreg) + u32(2, x.base) + u32(3, x.offset) + u32(4, x.length)
                   + u32(6, x.csum_type) + u32(7, x.csum_offset) + u32(8, x.csum_flags)),
    e.Queue: ("queue", _queue),
    e.Quota: ("quota", lambda x, ids: u64(1, x.quota) + u64(4, x.used) + u32(2, int(x.over))),
    e.Reject: ("reject", lambda x, ids: u32(1, x.type) + (u8(2, x.code) if x.type != 1 else b"")),
    e.Rt: ("rt", lambda x, ids: u32(1, x.dreg) + u32(2, x.key)),
    e.Socket: ("socket", lambda x, ids: u32(1, x.key) + u32(2, x.dreg) + (u32(3, x.level) if x.key == 3 else b"")),
    e.Synproxy: ("synproxy", _synproxy),
    e.Tproxy: ("tproxy", lambda x, ids: u32(1, x.family) + some(addr=(2, x.addr_reg), port=(3, x.port_reg))),
    e.Tunnel: ("tunnel", lambda x, ids: u32(1, int(not x.path)) + u32(2, x.dreg)
               + (u32(3, _TUNNEL_MODES[x.mode]) if x.mode else b"")),
    e.Xfrm: ("xfrm", lambda x, ids: u32(1, x.dreg) + u32(2, _XFRM[x.key]) + u8(3, int(x.direction == "out")) + u32(4, x.spnum)),
}


def expression_parts(expr: Any, ids: dict[str, int]) -> bytes:
    """Name and data of one expression. `ids`: the anonymous sets of its batch."""
    name, row = ROWS[type(expr)]
    return text(EXPR_NAME, name) + nest(EXPR_DATA, row(expr, ids))


def expressions(exprs: Iterable[Any], ids: dict[str, int]) -> bytes:
    """The list of a rule's expressions (NFTA_RULE_EXPRESSIONS)."""
    return b"".join(nest(LIST_ELEM, expression_parts(expr, ids)) for expr in exprs)
