"""Finding fusible sequences when a rule is bound. The rule's meaning does not change: a sequence is fused only if nothing behind it
in the rule reads the registers that it would have written.
"""

from __future__ import annotations

from userfw.engine.expr import Expr
from userfw.engine.expressions.bitwise import Bitwise
from userfw.engine.expressions.cmp import Cmp, Range
from userfw.engine.expressions.connlimit import Connlimit
from userfw.engine.expressions.counter import Counter
from userfw.engine.expressions.ct import Ct, CtSet
from userfw.engine.expressions.flow_offload import FlowOffload
from userfw.engine.expressions.immediate import Immediate, ImmediateVerdict
from userfw.engine.expressions.last import Last
from userfw.engine.expressions.limit import Limit
from userfw.engine.expressions.log import Log
from userfw.engine.expressions.lookup import Lookup
from userfw.engine.expressions.meta import Meta, MetaSet
from userfw.engine.expressions.notrack import Notrack
from userfw.engine.expressions.objref import Objref
from userfw.engine.expressions.payload import Payload
from userfw.engine.expressions.payload_set import PayloadSet
from userfw.engine.expressions.quota import Quota
from userfw.engine.expressions.reject import Reject
from userfw.engine.fused import IN_RANGE, NOT_IN_RANGE, MetaTest, NameTest, PayloadBytes, PayloadTest, StateTest

_EQ, _NEQ = 0, 1
_NFPROTO, _L4PROTO = 15, 16
_NUMBERS = frozenset((1, 3, 4, 5, 15, 16, 19))
_NAMES = {6: False, 7: True}
_NO_REGISTERS = (Counter, Connlimit, FlowOffload, ImmediateVerdict, Last, Limit, Log, Notrack, Objref, Quota, Reject)
_READ_NOTHING = frozenset((*_NO_REGISTERS, Payload, Meta, Ct, Immediate))
_READ_SOURCE = frozenset((Cmp, Range, Bitwise, PayloadSet, MetaSet, CtSet))
_WRITE = frozenset((Payload, Meta, Ct, Immediate, Bitwise))
_ALL = (1 << 64) - 1


def fused(exprs: tuple[Expr, ...]) -> tuple[Expr, ...]:
    """`exprs` with known sequences replaced by single steps."""
    result: list[Expr] = []
    at = 0
    while at < len(exprs):
        step, length = _step(exprs, at)
        if step is None or _read_later(exprs[at : at + length], exprs[at + length :]):
            result.append(exprs[at])
            at += 1
        else:
            result.append(step)
            at += length
    return tuple(_joined(result))


def _step(exprs: tuple[Expr, ...], at: int) -> tuple[Expr | None, int]:
    """A load at `at`, an optional mask and a comparison of the same register."""
    load = exprs[at]
    if not isinstance(load, (Payload, Meta, Ct)):
        return None, 0
    mask: Bitwise | None = None
    then = at + 1
    if then < len(exprs):
        bitwise = exprs[then]
        if isinstance(bitwise, Bitwise) and bitwise.src == bitwise.dst == load.dst and bitwise.length <= load.length:
            mask = bitwise
            then += 1
    if then == len(exprs):
        return None, 0
    test = exprs[then]
    if not isinstance(test, (Cmp, Range)) or test.src != load.dst or (mask is not None and mask.length != test.length):
        return None, 0
    if isinstance(load, Payload):
        return _payload(load, mask, test), then + 1 - at
    if isinstance(test, Range):
        return None, 0
    if isinstance(load, Meta):
        return _meta(load, mask, test), then + 1 - at
    return _state(load, mask, test), then + 1 - at


def _payload(load: Payload, mask: Bitwise | None, test: Cmp | Range) -> Expr | None:
    if load.base in (0, 4) or test.length != load.length:
        return None
    if load.length > 8:
        if mask is not None or isinstance(test, Range) or test.op not in (_EQ, _NEQ):
            return None
        return PayloadBytes(-1, load.base, load.offset, test.data, test.op == _EQ)
    ones = (1 << 8 * load.length) - 1
    m, x = (int.from_bytes(mask.mask, "big"), int.from_bytes(mask.xor, "big")) if mask else (ones, 0)
    if isinstance(test, Range):
        op = IN_RANGE if test.op == _EQ else NOT_IN_RANGE
        low, high = int.from_bytes(test.low, "big"), int.from_bytes(test.high, "big")
    else:
        op, low, high = test.op, int.from_bytes(test.data, "big"), 0
    return PayloadTest(-1, -1, load.base, load.offset, load.length, op, m, x, low, high)


def _meta(load: Meta, mask: Bitwise | None, test: Cmp) -> Expr | None:
    if test.op not in (_EQ, _NEQ):
        return None
    if load.key in _NAMES and mask is None and test.length <= 16:
        return NameTest(_NAMES[load.key], test.data, test.op == _EQ)
    if load.key not in _NUMBERS or test.length != load.length:
        return None
    ones = (1 << 8 * test.length) - 1
    m, x = (int.from_bytes(mask.mask, "little"), int.from_bytes(mask.xor, "little")) if mask else (ones, 0)
    return MetaTest(load.key, test.op, m, x, int.from_bytes(test.data, "little"))


def _state(load: Ct, mask: Bitwise | None, test: Cmp) -> Expr | None:
    if load.key != 0 or test.op not in (_EQ, _NEQ) or test.length != 4 or (mask is not None and any(mask.xor)):
        return None
    bits = int.from_bytes(mask.mask, "little") if mask else 0xFFFFFFFF
    return StateTest(bits, int.from_bytes(test.data, "little"), test.op == _EQ)


def _joined(steps: list[Expr]) -> list[Expr]:
    """A test of nfproto or l4proto directly before a payload test becomes part of it."""
    result: list[Expr] = []
    for step in steps:
        last = len(result) - 1
        before = result[last] if result else None
        if isinstance(before, MetaTest) and before.op == _EQ and before.mask == 0xFF and before.xor == 0:
            family = before.value if before.key == _NFPROTO else -1
            proto = before.value if before.key == _L4PROTO else -1
            if isinstance(step, PayloadTest) and step.proto == -1 and step.family == -1 and (family >= 0 or proto >= 0):
                result[last] = PayloadTest(
                    family, proto, step.base, step.offset, step.length, step.op, step.mask, step.xor, step.low, step.high
                )
                continue
            if isinstance(step, PayloadBytes) and step.family == -1 and family >= 0:
                result[last] = PayloadBytes(family, step.base, step.offset, step.data, step.equal)
                continue
        result.append(step)
    return result


def _read_later(sequence: tuple[Expr, ...], rest: tuple[Expr, ...]) -> bool:
    """Whether anything in `rest` reads what `sequence` writes before it is written again."""
    written = 0
    for expr in sequence:
        written |= _writes(expr)
    for expr in rest:
        if not written:
            return False
        if written & _reads(expr):
            return True
        written &= ~_writes(expr)
    return False


def _bytes(start: int, length: int) -> int:
    """A bit for each register byte, whole words."""
    return ((1 << (length + 3) // 4 * 4) - 1) << start


def _reads(expr: Expr) -> int:
    """Register bytes that `expr` reads; all of them for kinds that are not known here."""
    kind = type(expr)
    if kind in _READ_NOTHING:
        return 0
    if kind in _READ_SOURCE:
        return _bytes(expr.src, expr.length)  # type: ignore[attr-defined]
    if isinstance(expr, Lookup) and expr.set is not None:
        return _bytes(expr.src, expr.set.klen)
    return _ALL


def _writes(expr: Expr) -> int:
    """Register bytes that `expr` certainly writes when the rule goes on."""
    if type(expr) in _WRITE:
        return _bytes(expr.dst, expr.length)  # type: ignore[attr-defined]
    return 0
