"""queue: hand the packet to a user-space program (Linux: nft_queue.c)."""

from __future__ import annotations

from userfw.engine.expr import Expr, register_offset
from userfw.engine.registry import HOOKS, Row, register


class Queue(Expr):
    """To queue `num`, one of `total` queues from there on (by flow hash, or by CPU if `fanout`), or to the number in `sreg`.

    `bypass`: accept the packet if nobody listens.
    """

    kind = "queue"

    def __init__(
        self, num: int = 0, total: int = 1, bypass: bool = False, fanout: bool = False, sreg: int | None = None
    ) -> None:
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

    def operands(self) -> str:
        if self.sreg >= 0:
            text = f"sreg_qnum {self.sreg}"
        else:
            text = f"num {self.num}" + (f"-{self.num + self.total - 1}" if self.total > 1 else "")
        return text + (" bypass" if self.bypass else "") + (" fanout" if self.fanout else "")


register(Row("queue", Queue, hooks={family: HOOKS[family] - {5} for family in (1, 2, 7, 10)}))
