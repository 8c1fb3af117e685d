"""log: report the packet to the system log, nflog or audit (Linux: nft_log.c, nf_log_syslog.c)."""

from __future__ import annotations

import cython

from userfw.engine.expr import Expr
from userfw.engine.registry import Row, register

if not cython.compiled:
    from userfw.core.const import NFT_CONTINUE
    from userfw.core.packet import Packet
    from userfw.engine.context import Context
    from userfw.engine.expr import Expr

_FLAG_TEXT = ((1, "tcpseq"), (2, "tcpopt"), (4, "ipopt"), (8, "uid"), (32, "macdecode"))


class Log(Expr):
    """`prefix`; either `level` (0 emerg … 7 debug, 8 audit) and `flags` (LOG_*), or nflog `group` with `snaplen` and `qthreshold`.

    All may be left out: level warn to the system log.
    """

    kind = "log"

    def __init__(
        self,
        prefix: str = "",
        level: int | None = None,
        flags: int = 0,
        group: int | None = None,
        snaplen: int = 0,
        qthreshold: int = 0,
    ) -> None:
        if group is not None and (level is not None or flags):
            raise ValueError("level and group are mutually exclusive")
        if group is None and (snaplen or qthreshold):
            raise ValueError("snaplen and queue-threshold need a group")
        if level is not None and not 0 <= level <= 8:
            raise ValueError(f"no log level {level}")
        if group is not None and not 0 <= group <= 0xFFFF:
            raise ValueError("group is 16 bits")
        if len(prefix.encode()) > 127:
            raise ValueError("a log prefix has at most 127 bytes")
        if level == 8 and flags:
            raise ValueError("audit takes no flags")
        self.prefix = prefix
        self.level = -1 if level is None else level
        self.flags = flags
        self.group = -1 if group is None else group
        self.snaplen = snaplen
        self.qthreshold = qthreshold

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        ctx.services.log(pkt, ctx.hook, ctx.family, self)
        return NFT_CONTINUE

    def operands(self) -> str:
        parts = [f"prefix {self.prefix}"] if self.prefix else []
        if self.group >= 0:
            parts.append(f"group {self.group} snaplen {self.snaplen} qthreshold {self.qthreshold}")
        else:
            if self.level >= 0:
                parts.append(f"level {self.level}")
            parts.extend(text for bit, text in _FLAG_TEXT if self.flags & bit)
        return " ".join(parts)


register(Row("log", Log))
