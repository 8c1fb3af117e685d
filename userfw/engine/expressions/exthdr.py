"""exthdr: IPv6 extension headers, TCP options, IPv4 options, SCTP chunks, DCCP options (Linux: nft_exthdr.c)."""

from __future__ import annotations

import cython

from userfw.engine.expr import Expr, register_offset
from userfw.engine.registry import Row, register

if not cython.compiled:
    from userfw.core.const import (
        ETH_P_IP,
        ETH_P_IPV6,
        IPPROTO_AH,
        IPPROTO_DCCP,
        IPPROTO_DSTOPTS,
        IPPROTO_FRAGMENT,
        IPPROTO_HOPOPTS,
        IPPROTO_ROUTING,
        IPPROTO_SCTP,
        IPPROTO_TCP,
        NF_DROP,
        NF_NETDEV_EGRESS,
        NFPROTO_NETDEV,
        NFT_BREAK,
        NFT_CONTINUE,
        VNET_F_NEEDS_CSUM,
    )
    from userfw.core.packet import Packet
    from userfw.engine.const import EXTHDR_IPV4, EXTHDR_IPV6, EXTHDR_SCTP, EXTHDR_TCPOPT
    from userfw.engine.context import Context
    from userfw.engine.expr import Expr
    from userfw.engine.expressions.payload import copy_to_register, fast_transport
    from userfw.wire.checksum import replace16

OPERATIONS = {"ipv6": 0, "tcpopt": 1, "ipv4": 2, "sctp": 3, "dccp": 4}
_TEXT = {0: " ipv6", 1: " tcpopt", 2: " ipv4", 3: "", 4: ""}


def find_ipv6(pkt: Packet, target: cython.int) -> cython.Py_ssize_t:
    """Start of the header of protocol `target`, or -1 (Linux: ipv6_find_hdr)."""
    off: cython.Py_ssize_t = pkt.l3 + 40
    nexthdr: cython.int
    size: cython.int
    if off > pkt.end:
        return -1
    nexthdr = pkt.get8(pkt.l3 + 6)
    while True:
        if nexthdr not in (IPPROTO_HOPOPTS, IPPROTO_ROUTING, IPPROTO_FRAGMENT, IPPROTO_AH, IPPROTO_DSTOPTS):
            return off if nexthdr == target else -1
        if off + (4 if nexthdr in (IPPROTO_ROUTING, IPPROTO_FRAGMENT) else 2) > pkt.end:
            return -1
        if nexthdr == target:
            return off
        if nexthdr == IPPROTO_FRAGMENT:
            if pkt.get16(off + 2) & 0xFFF8:
                return -1
            size = 8
        elif nexthdr == IPPROTO_AH:
            size = (pkt.get8(off + 1) + 2) * 4
        else:
            size = (pkt.get8(off + 1) + 1) * 8
        nexthdr = pkt.get8(off)
        off += size
    return off


def tcp_header_end(ctx: Context, pkt: Packet) -> cython.Py_ssize_t:
    """End of the TCP header and its options, or -1 if there is none or it is cut (Linux: nft_tcp_header_pointer)."""
    size: cython.int
    if not ctx.l4 or pkt.l4proto != IPPROTO_TCP or pkt.fragoff != 0 or pkt.l4 + 20 > pkt.end:
        return -1
    size = (pkt.get8(pkt.l4 + 12) >> 4) * 4
    if size < 20 or pkt.l4 + size > pkt.end:
        return -1
    return pkt.l4 + size


def option_length(pkt: Packet, at: cython.Py_ssize_t) -> cython.int:
    """Bytes of the TCP option at `at`: one for end, NOP and broken lengths of zero (Linux: optlen)."""
    if pkt.get8(at) <= 1:
        return 1
    size: cython.int = pkt.get8(at + 1)
    return size if size else 1


def walk_tcp_options(pkt: Packet, end: cython.Py_ssize_t, type: cython.int) -> cython.Py_ssize_t:
    """Start of the first option `type` before `end`, or -1."""
    at: cython.Py_ssize_t = pkt.l4 + 20
    while at < end - 1:
        if pkt.get8(at) == type:
            return at
        at += option_length(pkt, at)
    return -1


def find_tcp_option(ctx: Context, pkt: Packet, type: cython.int, needed: cython.int) -> cython.Py_ssize_t:
    """Start of option `type` if it is whole and has `needed` bytes, else -1."""
    end: cython.Py_ssize_t = tcp_header_end(ctx, pkt)
    at: cython.Py_ssize_t
    size: cython.int
    if end < 0:
        return -1
    at = walk_tcp_options(pkt, end, type)
    if at < 0:
        return -1
    size = option_length(pkt, at)
    if at + size > end or needed > size:
        return -1
    return at


def change_tcp16(pkt: Packet, at: cython.Py_ssize_t, new: cython.uint) -> cython.int:
    """Write two bytes of the TCP header and correct its checksum, unless only the pseudo-header is in it yet."""
    old: cython.uint = pkt.get16(at)
    pkt.put16(at, new)
    if pkt.vnet_flags & VNET_F_NEEDS_CSUM == 0:
        if (at - pkt.l4) & 1:
            old = ((old & 0xFF) << 8) | (old >> 8)
            new = ((new & 0xFF) << 8) | (new >> 8)
        replace16(pkt, pkt.l4 + 16, old, new)
    return 0


def find_ipv4_option(ctx: Context, pkt: Packet, type: cython.int) -> cython.Py_ssize_t:
    """Start of option `type` (source routes, record route, router alert), or -1; if any option is wrong: none.

    Linux: ipv4_find_option, __ip_options_compile without a packet. A router alert that is not zero is none.
    The header is where the data of an skb begin: at egress that is the link header, whose first byte then tells the length.
    """
    network: cython.Py_ssize_t = pkt.start if ctx.family == NFPROTO_NETDEV and ctx.hook == NF_NETDEV_EGRESS else pkt.l3
    at: cython.Py_ssize_t = network + 20
    end: cython.Py_ssize_t = network + (pkt.get8(network) & 15) * 4
    kind: cython.int
    size: cython.int
    bit: cython.int
    seen: cython.int = 0
    found: cython.Py_ssize_t = -1
    if end > pkt.end or not (type == 137 or type == 131 or type == 7 or type == 148):
        return -1
    while at < end:
        kind = pkt.get8(at)
        if kind == 0:
            break
        if kind == 1:
            at += 1
            continue
        if at + 2 > end:
            return -1
        size = pkt.get8(at + 1)
        if size < 2 or at + size > end or not _option_right(pkt, at, kind, size):
            return -1
        bit = 1 if kind == 137 or kind == 131 else 2 if kind == 7 else 4 if kind == 68 else 8 if kind == 134 else 0
        if seen & bit:
            return -1
        seen |= bit
        if kind == type and (kind != 148 or pkt.get16(at + 2) == 0):
            found = at
        at += size
    return found


def _option_right(pkt: Packet, at: cython.Py_ssize_t, kind: cython.int, size: cython.int) -> cython.bint:
    """Length, pointer and flags of an option agree."""
    pointer: cython.int = pkt.get8(at + 2) if size > 2 else 0
    flags: cython.int = pkt.get8(at + 3) if size > 3 else 0
    if kind == 137 or kind == 131:
        return size >= 7 and pointer == 4 and (size - 3) & 3 == 0
    if kind == 7:
        return size >= 3 and pointer >= 4 and (pointer > size or pointer + 3 <= size)
    if kind == 68:
        if size < 4 or pointer < 5:
            return False
        if pointer > size:
            return flags & 15 == 3 or flags >> 4 != 15
        return pointer + 3 <= size and (flags & 15 not in (1, 3) or pointer + 7 <= size)
    return kind != 148 or size >= 4


def find_sctp_chunk(ctx: Context, pkt: Packet, type: cython.int, needed: cython.int) -> cython.Py_ssize_t:
    """Start of the first chunk `type`, or -1; with `needed` it must be whole and have that many bytes."""
    # Linux does not look at the fragment offset here; in IPv6 it then has no transport offset and starts from the network header
    at: cython.Py_ssize_t = fast_transport(ctx, pkt) + 12
    size: cython.int
    if not ctx.l4 or pkt.l4proto != IPPROTO_SCTP:
        return -1
    while at + 4 <= pkt.end:
        size = pkt.get16(at + 2)
        if size == 0:
            return -1
        if pkt.get8(at) == type:
            if needed and (needed > size or at + size > pkt.end):
                return -1
            return at
        at += (size + 3) & ~3
    return -1


def find_dccp_option(ctx: Context, pkt: Packet, type: cython.int) -> cython.Py_ssize_t:
    """Start of DCCP option `type`, or -1 (Linux: nft_exthdr_dccp_eval)."""
    at: cython.Py_ssize_t = pkt.l4
    end: cython.Py_ssize_t
    word: cython.int
    if not ctx.l4 or pkt.l4proto != IPPROTO_DCCP or pkt.fragoff != 0 or at + 12 > pkt.end:
        return -1
    end = at + pkt.get8(at + 4) * 4
    word = pkt.get8(at + 8)
    at += 16 if word & 1 else 12
    word = (word >> 1) & 15
    # request, response, data, ack, dataack, closereq, close, reset, sync, syncack
    if word == 0:
        at += 4
    elif word == 1 or word == 7:
        at += 12
    elif word == 2:
        at += 0
    elif word <= 9:
        at += 8
    while at < end and at < pkt.end:
        word = pkt.get8(at)
        if word == type:
            return at
        if word <= 31:
            at += 1
            continue
        if at + 2 > pkt.end or pkt.get8(at + 1) < 2:
            return -1
        at += pkt.get8(at + 1)
    return -1


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

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        at: cython.Py_ssize_t
        if self.op == EXTHDR_IPV6:
            if ctx.protocol != ETH_P_IPV6:
                return NFT_BREAK
            at = find_ipv6(pkt, self.type)
        elif self.op == EXTHDR_TCPOPT:
            at = find_tcp_option(ctx, pkt, self.type, self.offset + self.length)
        elif self.op == EXTHDR_IPV4:
            if ctx.protocol != ETH_P_IP:
                return NFT_BREAK
            at = find_ipv4_option(ctx, pkt, self.type)
        elif self.op == EXTHDR_SCTP:
            at = find_sctp_chunk(ctx, pkt, self.type, 0 if self.present else self.offset + self.length)
        else:
            at = find_dccp_option(ctx, pkt, self.type)
        if self.present:
            ctx.write8(self.dst, 1 if at >= 0 else 0)
            return NFT_CONTINUE
        if at < 0:
            return NFT_BREAK
        return copy_to_register(ctx, pkt, at + self.offset, self.length, self.dst)

    def operands(self) -> str:
        flag = " present" if self.present else ""
        return f"load{_TEXT[self.op]} {self.length}b @ {self.type} + {self.offset}{flag} => reg {self.dreg}"


class ExthdrSet(Expr):
    """Write 2 or 4 bytes of `sreg` into TCP option `type` at `offset`; no option: the rule goes on (Linux:
    nft_exthdr_tcp_set_eval).

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

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        at: cython.Py_ssize_t
        end: cython.Py_ssize_t = tcp_header_end(ctx, pkt)
        old: cython.uint
        new: cython.uint
        if end < 0:
            return NFT_BREAK
        at = walk_tcp_options(pkt, end, self.type)
        if at < 0:
            return NFT_CONTINUE
        old = option_length(pkt, at)
        if at + old > end or self.offset + self.length > old:
            return NFT_BREAK
        at += self.offset
        if self.length == 2:
            old = pkt.get16(at)
            new = (ctx.regs[self.src] << 8) | ctx.regs[self.src + 1]
            if old == new or (self.type == 2 and old <= new):
                return NFT_CONTINUE
            change_tcp16(pkt, at, new)
        else:
            change_tcp16(pkt, at, (ctx.regs[self.src] << 8) | ctx.regs[self.src + 1])
            change_tcp16(pkt, at + 2, (ctx.regs[self.src + 2] << 8) | ctx.regs[self.src + 3])
        return NFT_CONTINUE

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

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        end: cython.Py_ssize_t = tcp_header_end(ctx, pkt)
        at: cython.Py_ssize_t
        i: cython.Py_ssize_t
        length: cython.Py_ssize_t
        if end < 0:
            return NFT_BREAK
        at = walk_tcp_options(pkt, end, self.type)
        if at < 0:
            return NFT_CONTINUE
        length = option_length(pkt, at)
        if at + length > end:
            return NF_DROP
        for i in range(at, at + length):
            if (i - pkt.l4) & 1:
                change_tcp16(pkt, i - 1, (pkt.get8(i - 1) << 8) | 1)
            else:
                change_tcp16(pkt, i, 0x100 | pkt.get8(i + 1))
        return NFT_CONTINUE

    def operands(self) -> str:
        return f"reset{_TEXT[self.op]} {self.type}"


register(Row("exthdr", Exthdr))
register(Row("exthdr set", ExthdrSet))
register(Row("exthdr reset", ExthdrReset))
