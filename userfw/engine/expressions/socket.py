"""socket: the local socket that gets the packet (Linux: nft_socket.c)."""

from __future__ import annotations

import cython

from userfw.engine.expr import Expr, register_offset
from userfw.engine.registry import IN, OUT, PRE, Row, hooks, register

if not cython.compiled:
    from userfw.core.const import NFT_BREAK, NFT_CONTINUE
    from userfw.core.packet import Packet
    from userfw.engine.const import SOCKET_MARK, SOCKET_TRANSPARENT, SOCKET_WILDCARD
    from userfw.engine.context import Context
    from userfw.engine.expr import Expr
    from userfw.engine.services import SocketInfo

_KEYS = {"transparent": (0, 1), "mark": (1, 4), "wildcard": (2, 1), "cgroupv2": (3, 8)}
_NAMES = {number: name for name, (number, _) in _KEYS.items()}


class Socket(Expr):
    """`dreg` = transparent, mark, wildcard, or the id of the cgroup at `level` (cgroupv2)."""

    kind = "socket"

    def __init__(self, dreg: int, key: str, level: int = 0) -> None:
        if key not in _KEYS:
            raise ValueError(f"no socket key {key!r}")
        if not 0 <= level <= 255 or (level and key != "cgroupv2"):
            raise ValueError("level is 0 to 255, for cgroupv2")
        self.key, self.length = _KEYS[key]
        self.dst = register_offset(dreg, self.length)
        self.dreg = dreg
        self.level = level

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        sock: SocketInfo | None = ctx.services.socket(pkt)
        if sock is None:
            return NFT_BREAK
        if self.key == SOCKET_TRANSPARENT:
            ctx.write8(self.dst, 1 if sock.transparent else 0)
        elif self.key == SOCKET_MARK:
            ctx.write32(self.dst, sock.mark)
        elif self.key == SOCKET_WILDCARD:
            ctx.write8(self.dst, 1 if sock.wildcard else 0)
        else:
            if self.level >= len(sock.cgroups):
                return NFT_BREAK
            ctx.write64(self.dst, sock.cgroups[self.level])
        return NFT_CONTINUE

    def operands(self) -> str:
        level = f" level {self.level}" if self.key == 3 else ""
        return f"load {_NAMES[self.key]} => reg {self.dreg}{level}"


register(Row("socket", Socket, hooks=hooks(PRE, IN, OUT)))
