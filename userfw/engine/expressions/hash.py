"""hash: jhash of a register, or a symmetric hash of the flow, scaled to a modulus (Linux: nft_hash.c)."""

from __future__ import annotations

import cython

from userfw.engine.expr import Expr, register_offset
from userfw.engine.registry import Row, register

if not cython.compiled:
    from userfw.core.const import (
        IPPROTO_DCCP,
        IPPROTO_SCTP,
        IPPROTO_TCP,
        IPPROTO_UDP,
        IPPROTO_UDPLITE,
        NFPROTO_IPV4,
        NFPROTO_IPV6,
        NFT_CONTINUE,
    )
    from userfw.core.packet import Packet
    from userfw.engine.const import JHASH_INITVAL, U32_MASK
    from userfw.engine.context import Context
    from userfw.engine.expr import Expr


def rol(word: cython.uint, bits: cython.int) -> cython.uint:
    """`word` rotated left."""
    return ((word << bits) | (word >> (32 - bits))) & U32_MASK


def jhash(data: bytearray, at: cython.Py_ssize_t, length: cython.int, initval: cython.uint) -> cython.uint:
    """Bob Jenkins' lookup3 as Linux's jhash() computes it: little-endian words, any length."""
    a: cython.uint = (JHASH_INITVAL + length + initval) & U32_MASK
    b: cython.uint = a
    c: cython.uint = a
    left: cython.int = length
    while left > 12:
        a = (a + _word(data, at, 4)) & U32_MASK
        b = (b + _word(data, at + 4, 4)) & U32_MASK
        c = (c + _word(data, at + 8, 4)) & U32_MASK
        a = ((a - c) & U32_MASK) ^ rol(c, 4)
        c = (c + b) & U32_MASK
        b = ((b - a) & U32_MASK) ^ rol(a, 6)
        a = (a + c) & U32_MASK
        c = ((c - b) & U32_MASK) ^ rol(b, 8)
        b = (b + a) & U32_MASK
        a = ((a - c) & U32_MASK) ^ rol(c, 16)
        c = (c + b) & U32_MASK
        b = ((b - a) & U32_MASK) ^ rol(a, 19)
        a = (a + c) & U32_MASK
        c = ((c - b) & U32_MASK) ^ rol(b, 4)
        b = (b + a) & U32_MASK
        at += 12
        left -= 12
    if left == 0:
        return c
    a = (a + _word(data, at, left)) & U32_MASK
    b = (b + _word(data, at + 4, left - 4)) & U32_MASK
    c = (c + _word(data, at + 8, left - 8)) & U32_MASK
    c = ((c ^ b) - rol(b, 14)) & U32_MASK
    a = ((a ^ c) - rol(c, 11)) & U32_MASK
    b = ((b ^ a) - rol(a, 25)) & U32_MASK
    c = ((c ^ b) - rol(b, 16)) & U32_MASK
    a = ((a ^ c) - rol(c, 4)) & U32_MASK
    b = ((b ^ a) - rol(a, 14)) & U32_MASK
    return ((c ^ b) - rol(b, 24)) & U32_MASK


def _word(data: bytearray, at: cython.Py_ssize_t, left: cython.int) -> cython.uint:
    """Up to four bytes at `at`, little-endian; bytes past `left` are zero."""
    word: cython.uint = 0
    if left > 0:
        word = data[at]
    if left > 1:
        word |= data[at + 1] << 8
    if left > 2:
        word |= data[at + 2] << 16
    if left > 3:
        word |= cython.cast(cython.uint, data[at + 3]) << 24
    return word


def symmetric_hash(ctx: Context, pkt: Packet, words: bytearray, secret: cython.uint) -> cython.uint:
    """A hash of addresses, ports and protocol that both directions share (Linux: __skb_get_hash_symmetric; there and here seeded
    by chance). Packets without a transport header, and fragments, go by their addresses; frames without a network header by their
    MACs."""
    size: cython.int = 4
    first: cython.Py_ssize_t = pkt.l3 + 12
    i: cython.int
    swap: cython.int = 0
    if pkt.nfproto == NFPROTO_IPV6:
        size = 16
        first = pkt.l3 + 8
    elif pkt.nfproto != NFPROTO_IPV4:
        size = 6
        first = pkt.start
        if pkt.l3 - pkt.start < 12:
            return 0
    for i in range(40):
        words[i] = 0
    for i in range(size):
        if pkt.data[first + i] != pkt.data[first + size + i]:
            swap = 1 if pkt.data[first + i] > pkt.data[first + size + i] else -1
            break
    ports: cython.bint = ctx.l4 and not pkt.is_fragment and pkt.l4 + 4 <= pkt.end and _has_ports(pkt.l4proto)
    if swap == 0 and ports and pkt.get16(pkt.l4) > pkt.get16(pkt.l4 + 2):
        swap = 1
    for i in range(size):
        words[i + (size if swap == 1 else 0)] = pkt.data[first + i]
        words[i + (0 if swap == 1 else size)] = pkt.data[first + size + i]
    if ports:
        for i in range(2):
            words[32 + i + (2 if swap == 1 else 0)] = pkt.data[pkt.l4 + i]
            words[32 + i + (0 if swap == 1 else 2)] = pkt.data[pkt.l4 + 2 + i]
    if ctx.l4:
        words[36] = pkt.l4proto
    return jhash(words, 0, 40, secret)


def _has_ports(proto: cython.int) -> cython.bint:
    return proto in (IPPROTO_TCP, IPPROTO_UDP, IPPROTO_UDPLITE, IPPROTO_SCTP, IPPROTO_DCCP)


def _check(modulus: int, offset: int) -> None:
    if not 0 < modulus <= 0xFFFFFFFF:
        raise ValueError("modulus is 1 to 2^32-1")
    if offset < 0 or offset + modulus - 1 > 0xFFFFFFFF:
        raise ValueError("offset + modulus overflow")


class Jhash(Expr):
    """`dreg` = `offset` + jhash(`length` bytes of `sreg`, `seed`) scaled to `modulus`; `seed` None: a random one."""

    kind = "hash"

    def __init__(self, dreg: int, sreg: int, length: int, modulus: int, seed: int | None = None, offset: int = 0) -> None:
        _check(modulus, offset)
        if seed is not None and not 0 <= seed <= 0xFFFFFFFF:
            raise ValueError("seed is 32 bits")
        self.src = register_offset(sreg, length)
        self.dst = register_offset(dreg, 4)
        self.sreg = sreg
        self.dreg = dreg
        self.length = length
        self.modulus = modulus
        self.seed = seed or 0
        self.seeded = seed is not None
        self.secret = self.seed
        self.offset = offset

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        value: cython.ulonglong
        if not self.seeded:
            self.secret = ctx.services.random()
            self.seeded = True
        value = jhash(ctx.regs, self.src, self.length, self.secret)
        ctx.write32(self.dst, (((value * self.modulus) >> 32) + self.offset) & U32_MASK)
        return NFT_CONTINUE

    def operands(self) -> str:
        offset = f" offset {self.offset}" if self.offset else ""
        return f"reg {self.dreg} = jhash(reg {self.sreg}, {self.length}, 0x{self.seed:x}) % mod {self.modulus}{offset}"


class Symhash(Expr):
    """`dreg` = `offset` + a hash of the flow, the same for both directions, scaled to `modulus`."""

    kind = "hash"

    def __init__(self, dreg: int, modulus: int, offset: int = 0) -> None:
        _check(modulus, offset)
        self.dst = register_offset(dreg, 4)
        self.dreg = dreg
        self.modulus = modulus
        self.offset = offset
        self.secret = 0
        self.words = bytearray(40)

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        value: cython.ulonglong
        if self.secret == 0:
            self.secret = ctx.services.random() | 1
        value = symmetric_hash(ctx, pkt, self.words, self.secret)
        ctx.write32(self.dst, (((value * self.modulus) >> 32) + self.offset) & U32_MASK)
        return NFT_CONTINUE

    def operands(self) -> str:
        offset = f" offset {self.offset}" if self.offset else ""
        return f"reg {self.dreg} = symhash() % mod {self.modulus}{offset}"


register(Row("jhash", Jhash))
register(Row("symhash", Symhash))
