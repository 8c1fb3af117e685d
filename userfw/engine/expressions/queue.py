"""queue: hand the packet to a user-space program (Linux: nft_queue.c)."""

from __future__ import annotations

import cython

from userfw.engine.expr import Expr, register_offset
from userfw.engine.registry import HOOKS, Row, register

if not cython.compiled:
    from userfw.core.const import NF_QUEUE
    from userfw.core.packet import Packet
    from userfw.engine.const import QUEUE_BYPASS
    from userfw.engine.context import Context
    from userfw.engine.expr import Expr
    from userfw.engine.expressions.hash import symmetric_hash


class Queue(Expr):
    """To queue `num`, one of `total` queues from there on (by flow hash, or by CPU if `fanout`), or to the number in `sreg`.

    `bypass`: accept the packet if nobody listens.
    """

    kind = "queue"

    def __init__(self, num: int = 0, total: int = 1, bypass: bool = False, fanout: bool = False, sreg: int | None = None) -> None:
        if not 0 <= num <= 0xFFFF or total < 1 or num + total - 1 > 0xFFFF:
            raise ValueError("queues are numbered 0 to 65535")
        if sreg is not None and fanout:
            raise ValueError("fanout is for a range of queues")
        self.num = num
        self.total = total
        self.bypass = bypass
        self.fanout = fanout
        self.src = -1 if sreg is None else register_offset(sreg, 2)
        self.sreg = -1 if sreg is None else sreg
        self.secret = 0
        self.words = bytearray(40)

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        hashed: cython.ulonglong
        number: cython.int = self.num
        if self.src >= 0:
            number = ctx.regs[self.src] | (ctx.regs[self.src + 1] << 8)
        elif self.total > 1:
            if self.fanout:
                number += ctx.services.cpu % self.total
            else:
                if self.secret == 0:
                    self.secret = ctx.services.random() | 1
                hashed = symmetric_hash(ctx, pkt, self.words, self.secret)
                number += (hashed * self.total) >> 32
        ctx.queue = number
        ctx.queue_flags = QUEUE_BYPASS if self.bypass else 0
        return NF_QUEUE

    def operands(self) -> str:
        if self.sreg >= 0:
            text = f"sreg_qnum {self.sreg}"
        else:
            text = f"num {self.num}" + (f"-{self.num + self.total - 1}" if self.total > 1 else "")
        return text + (" bypass" if self.bypass else "") + (" fanout" if self.fanout else "")


register(Row("queue", Queue, hooks={family: HOOKS[family] - {5} for family in (1, 2, 7, 10)}))
