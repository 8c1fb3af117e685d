"""socket: the local socket that gets the packet (Linux: nft_socket.c)."""

from __future__ import annotations

from userfw.engine.expr import Expr, register_offset
from userfw.engine.registry import IN, OUT, PRE, Row, hooks, register

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

    def operands(self) -> str:
        level = f" level {self.level}" if self.key == 3 else ""
        return f"load {_NAMES[self.key]} => reg {self.dreg}{level}"


register(Row("socket", Socket, hooks=hooks(PRE, IN, OUT)))
