"""fib: ask the routing table (Linux: nft_fib_ipv4.c, nft_fib_ipv6.c, nft_fib_inet.c, nft_fib_netdev.c)."""

from __future__ import annotations

import cython

from userfw.engine.expr import Expr, register_offset
from userfw.engine.registry import FWD, IN, INET_ONLY, OUT, POST, PRE, Row, register

if not cython.compiled:
    from userfw.core.const import (
        ARPHRD_LOOPBACK,
        ETH_P_IP,
        ETH_P_IPV6,
        IPPROTO_ICMPV6,
        NF_INET_INGRESS,
        NF_INET_LOCAL_IN,
        NF_INET_PRE_ROUTING,
        NFPROTO_IPV4,
        NFPROTO_IPV6,
        NFPROTO_NETDEV,
        NFT_BREAK,
        NFT_CONTINUE,
        PACKET_LOOPBACK,
    )
    from userfw.core.packet import Device, Packet
    from userfw.engine.const import (
        FIB_ADDRTYPE,
        FIB_F_DADDR,
        FIB_F_IIF,
        FIB_F_MARK,
        FIB_F_OIF,
        FIB_OIF,
        RTN_LOCAL,
        U32_MASK,
    )
    from userfw.engine.context import Context
    from userfw.engine.expr import Expr
    from userfw.engine.expressions.meta import store_name
    from userfw.engine.services import FibResult

_RESULTS = {"oif": (1, 4), "oifname": (2, 16), "type": (3, 4)}
_RESULT_NAMES = {number: name for name, (number, _) in _RESULTS.items()}
_FLAGS = {"saddr": 1, "daddr": 2, "mark": 4, "iif": 8, "oif": 16}


class Fib(Expr):
    """`dreg` = `result` (oif, oifname or type) of a lookup by `flags`: one of saddr, daddr, and any of mark, iif, oif.

    `present`: 1 or 0 as an output device exists (oif and oifname only).
    """

    kind = "fib"

    def __init__(self, dreg: int, result: str, flags: tuple[str, ...], present: bool = False) -> None:
        if result not in _RESULTS:
            raise ValueError(f"no fib result {result!r}")
        bits = 0
        for flag in flags:
            if flag not in _FLAGS:
                raise ValueError(f"no fib flag {flag!r}")
            bits |= _FLAGS[flag]
        if bits & 3 not in (1, 2):
            raise ValueError("fib needs either saddr or daddr")
        if bits & 24 == 24:
            raise ValueError("fib takes either iif or oif")
        if present and result == "type":
            raise ValueError("fib check is about a device, not a type")
        self.result, size = _RESULTS[result]
        self.length = 1 if present else size
        self.dst = register_offset(dreg, size)
        self.dreg = dreg
        self.flags = bits
        self.present = present
        self.answer = FibResult()

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        device: Device | None = None
        family: cython.int = pkt.nfproto
        if ctx.family == NFPROTO_NETDEV:  # what the frame says that it carries (Linux: nft_fib_netdev_eval)
            family = NFPROTO_IPV4 if ctx.protocol == ETH_P_IP else NFPROTO_IPV6 if ctx.protocol == ETH_P_IPV6 else 0
        if (family != NFPROTO_IPV4 and family != NFPROTO_IPV6) or pkt.l3 + (20 if family == NFPROTO_IPV4 else 40) > pkt.end:
            return NFT_BREAK
        own: cython.int = 12 if family == NFPROTO_IPV4 else 8
        other: cython.int = 16 if family == NFPROTO_IPV4 else 24
        answer: FibResult = self.answer
        if self.flags & FIB_F_IIF:
            device = pkt.iif
        elif self.flags & FIB_F_OIF:
            device = pkt.oif
        if self.flags & FIB_F_DADDR:
            own, other = other, own
        if self.result == FIB_ADDRTYPE:
            ctx.services.fib(pkt, family, pkt.l3 + own, -1, device, 0, answer)
            ctx.write32(self.dst, answer.type)
            return NFT_CONTINUE
        if self._goes_back(ctx, pkt, family):
            return self._store(ctx, pkt.iif)
        mark: cython.uint = pkt.mark if self.flags & FIB_F_MARK else 0
        if not ctx.services.fib(pkt, family, pkt.l3 + own, pkt.l3 + other, device, mark, answer):
            return self._store(ctx, None)
        if answer.type == RTN_LOCAL:
            return self._store(ctx, None)
        return self._store(ctx, answer.oif)

    def _goes_back(self, ctx: Context, pkt: Packet, family: cython.int) -> cython.bint:
        """Loopback at prerouting and input, and senders without an address, belong to the device they came in by (Linux:
        nft_fib_can_skip, nft_fib4_eval, nft_fib_v6_skip_icmpv6)."""
        at: cython.Py_ssize_t = pkt.l3
        if pkt.iif is None:
            return False
        looped: cython.bint = pkt.iif.type == ARPHRD_LOOPBACK or pkt.pkttype == PACKET_LOOPBACK
        if looped and ctx.hook in (NF_INET_PRE_ROUTING, NF_INET_LOCAL_IN, NF_INET_INGRESS):
            return True
        if family == NFPROTO_IPV4 and pkt.get8(at + 12) == 0:
            return pkt.get32(at + 16) == U32_MASK or pkt.get32(at + 16) >> 8 == 0xE00000
        if family == NFPROTO_IPV6 and pkt.l4proto == IPPROTO_ICMPV6 and pkt.get64(at + 8) == 0 and pkt.get64(at + 16) == 0:
            return pkt.get16(at + 24) & 0xFFC0 == 0xFE80 or pkt.get16(at + 24) & 0xFF0F == 0xFF02
        return False

    def _store(self, ctx: Context, device: Device | None) -> cython.int:
        if self.present:
            ctx.write32(self.dst, 1 if device is not None else 0)
        elif self.result == FIB_OIF:
            ctx.write32(self.dst, device.index if device is not None else 0)
        else:
            return store_name(ctx, self.dst, device)
        return NFT_CONTINUE

    def refusal(self, family: int, hook: int, chain_type: int) -> str | None:
        """Linux: nft_fib_validate."""
        legal: tuple[int, ...] = (PRE, IN, FWD, OUT, POST)
        if family == 5:
            hook = OUT if hook == 1 else PRE  # ingress and egress of a device are like these
        if self.result != 3 or self.flags & 8:
            legal = (PRE, IN, FWD)
        elif self.flags & 16:
            legal = (OUT, POST, FWD)
        return None if hook in legal else "fib: not supported at this hook (EOPNOTSUPP)"

    def operands(self) -> str:
        flags = " . ".join(name for name, bit in _FLAGS.items() if self.flags & bit)
        present = " present" if self.present else ""
        return f"{flags} {_RESULT_NAMES[self.result]}{present} => reg {self.dreg}"


register(Row("fib", Fib, hooks={**INET_ONLY, 5: frozenset((0, 1))}))
