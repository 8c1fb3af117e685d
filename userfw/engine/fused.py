"""What fused sequences become: a load and its comparison in one step, without registers.

Each class does exactly what the sequence in its docstring does; tests/engine/test_fuse.py compares them packet for packet.
"""

from __future__ import annotations

import cython

from userfw.engine.expr import Expr

if not cython.compiled:
    from userfw.core.const import NFT_BREAK, NFT_CONTINUE
    from userfw.core.packet import Device, Packet
    from userfw.engine.const import (
        BASE_NETWORK,
        BASE_TRANSPORT,
        CMP_EQ,
        CMP_GT,
        CMP_GTE,
        CMP_LT,
        CMP_LTE,
        CMP_NEQ,
        META_IIF,
        META_L4PROTO,
        META_MARK,
        META_NFPROTO,
        META_OIF,
        META_PKTTYPE,
    )
    from userfw.engine.context import Context
    from userfw.engine.expressions.ct import state_bit
    from userfw.engine.expressions.meta import network_family, packet_type
    from userfw.engine.expressions.payload import base_offset, fast_transport

IN_RANGE, NOT_IN_RANGE = 6, 7


def compare(value: cython.ulonglong, op: cython.int, low: cython.ulonglong, high: cython.ulonglong) -> cython.bint:
    """`value` `op` `low`; op 6 and 7: within `low` to `high`, or not."""
    if op == CMP_EQ:
        return value == low
    if op == CMP_NEQ:
        return value != low
    if op == CMP_LT:
        return value < low
    if op == CMP_LTE:
        return value <= low
    if op == CMP_GT:
        return value > low
    if op == CMP_GTE:
        return value >= low
    return (low <= value <= high) == (op == 6)


class PayloadTest(Expr):
    """[meta nfproto, cmp eq] [meta l4proto, cmp eq] payload load of 1 to 8 bytes, [bitwise], cmp or range.

    Bytes compare as one big-endian number. `family`, `proto`: -1 if not tested.
    """

    kind = "payload test"

    def __init__(
        self, family: int, proto: int, base: int, offset: int, length: int, op: int, mask: int, xor: int, low: int, high: int
    ) -> None:
        self.family = family
        self.proto = proto
        self.base = base
        self.offset = offset
        self.length = length
        self.op = op
        self.mask = mask
        self.xor = xor
        self.low = low
        self.high = high
        self.fast = length in (1, 2, 4) and offset % length == 0

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        start: cython.Py_ssize_t
        value: cython.ulonglong
        data: bytearray
        i: cython.int
        if self.family >= 0 and network_family(ctx, pkt) != self.family:
            return NFT_BREAK
        if self.proto >= 0 and (pkt.l4proto != self.proto or not ctx.l4):
            return NFT_BREAK
        if self.base == BASE_TRANSPORT:
            if not ctx.l4 or (pkt.fragoff != 0 and not self.fast):
                return NFT_BREAK
            start = (pkt.l4 if pkt.fragoff == 0 else fast_transport(ctx, pkt)) + self.offset
        elif self.base == BASE_NETWORK:
            start = pkt.l3 + self.offset
        else:
            start = base_offset(ctx, pkt, self.base)
            if start < 0:
                return NFT_BREAK
            start += self.offset
        if start + self.length > pkt.end:
            return NFT_BREAK
        data = pkt.data
        value = data[start]
        for i in range(1, self.length):
            value = (value << 8) | data[start + i]
        if compare((value & self.mask) ^ self.xor, self.op, self.low, self.high):
            return NFT_CONTINUE
        return NFT_BREAK

    def operands(self) -> str:
        return f"{self.length}b @ {self.base} + {self.offset} op {self.op} 0x{self.low:x} 0x{self.high:x}"

    def with_data(self, data: bytes) -> PayloadTest:
        """The same test with other bytes, as many, to compare with."""
        other: PayloadTest = PayloadTest.__new__(PayloadTest)
        value: cython.ulonglong = 0
        i: cython.int
        for i in range(self.length):
            value = value << 8 | data[i]
        other.family = self.family
        other.proto = self.proto
        other.base = self.base
        other.offset = self.offset
        other.length = self.length
        other.op = self.op
        other.mask = self.mask
        other.xor = self.xor
        other.low = value
        other.high = self.high
        other.fast = self.fast
        return other


class PayloadBytes(Expr):
    """[meta nfproto, cmp eq] payload load of more than 8 bytes, cmp eq or neq (IPv6 addresses)."""

    kind = "payload bytes"

    def __init__(self, family: int, base: int, offset: int, data: bytes, equal: bool) -> None:
        self.family = family
        self.base = base
        self.offset = offset
        self.data = data
        self.length = len(data)
        self.equal = equal

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        start: cython.Py_ssize_t
        packet: bytearray = pkt.data
        data: bytes = self.data
        i: cython.int
        want: cython.int
        if self.family >= 0 and network_family(ctx, pkt) != self.family:
            return NFT_BREAK
        start = base_offset(ctx, pkt, self.base)
        if start < 0:
            return NFT_BREAK
        start += self.offset
        if start + self.length > pkt.end:
            return NFT_BREAK
        for i in range(self.length):
            want = data[i]
            if packet[start + i] != want:
                return NFT_BREAK if self.equal else NFT_CONTINUE
        return NFT_CONTINUE if self.equal else NFT_BREAK

    def operands(self) -> str:
        return f"{self.length}b @ {self.base} + {self.offset}"

    def with_data(self, data: bytes) -> PayloadBytes:
        """The same test with other bytes, as many."""
        other: PayloadBytes = PayloadBytes.__new__(PayloadBytes)
        other.family = self.family
        other.base = self.base
        other.offset = self.offset
        other.length = self.length
        other.equal = self.equal
        other.data = data
        return other


class MetaTest(Expr):
    """meta load of l4proto, nfproto, protocol, mark, iif, oif or pkttype, [bitwise], cmp eq or neq; `value` in the register's
    order."""

    kind = "meta test"

    def __init__(self, key: int, op: int, mask: int, xor: int, value: int) -> None:
        self.key = key
        self.op = op
        self.mask = mask
        self.xor = xor
        self.value = value

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        key: cython.int = self.key
        value: cython.ulonglong
        if key == META_L4PROTO:
            if not ctx.l4:
                return NFT_BREAK
            value = pkt.l4proto
        elif key == META_NFPROTO:
            value = network_family(ctx, pkt)
        elif key == META_MARK:
            value = pkt.mark
        elif key == META_IIF:
            value = pkt.iif.index if pkt.iif is not None else 0
        elif key == META_OIF:
            value = pkt.oif.index if pkt.oif is not None else 0
        elif key == META_PKTTYPE:
            value = packet_type(pkt)
        else:
            # protocol is in network order in the register
            value = ((ctx.protocol & 0xFF) << 8) | (ctx.protocol >> 8)
        if (((value & self.mask) ^ self.xor) == self.value) == (self.op == CMP_EQ):
            return NFT_CONTINUE
        return NFT_BREAK

    def operands(self) -> str:
        return f"{self.key} op {self.op} 0x{self.value:x}"


class NameTest(Expr):
    """meta load of iifname or oifname, cmp eq or neq with a name (16 bytes) or the start of one."""

    kind = "name test"

    def __init__(self, out: bool, name: bytes, equal: bool) -> None:
        self.out = out
        self.name = name
        self.length = len(name)
        self.equal = equal

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        device: Device | None = pkt.oif if self.out else pkt.iif
        name: bytes
        want: bytes = self.name
        i: cython.int
        a: cython.int = 0
        b: cython.int
        same: cython.bint = True
        if device is not None:
            name = device.ifname
            for i in range(self.length):
                a = name[i]
                b = want[i]
                if a != b:
                    same = False
                    break
        else:
            for i in range(self.length):
                a = want[i]
                if a != 0:
                    same = False
                    break
        return NFT_CONTINUE if same == self.equal else NFT_BREAK

    def operands(self) -> str:
        return f"{'oif' if self.out else 'iif'} {self.name!r}"


class StateTest(Expr):
    """ct load state, [bitwise & mask ^ 0], cmp eq or neq."""

    kind = "state test"

    def __init__(self, mask: int, value: int, equal: bool) -> None:
        self.mask = mask
        self.value = value
        self.equal = equal

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        if ((state_bit(pkt) & self.mask) == self.value) == self.equal:
            return NFT_CONTINUE
        return NFT_BREAK

    def operands(self) -> str:
        return f"& 0x{self.mask:x} 0x{self.value:x}"
