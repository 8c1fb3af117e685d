"""ct: the packet's connection (Linux: nft_ct.c). Without an entry everything but the state breaks the rule; setting does nothing."""

from __future__ import annotations

from userfw.engine.expr import Expr, register_offset
from userfw.engine.registry import Row, register

CT_KEYS = {
    "state": (0, 4), "direction": (1, 1), "status": (2, 4), "mark": (3, 4), "secmark": (4, 4), "expiration": (5, 4),
    "helper": (6, 16), "l3protocol": (7, 1), "src": (8, 16), "dst": (9, 16), "protocol": (10, 1), "proto_src": (11, 2),
    "proto_dst": (12, 2), "label": (13, 16), "packets": (14, 8), "bytes": (15, 8), "avgpkt": (16, 8), "zone": (17, 2),
    "event": (18, 4), "src_ip": (19, 4), "dst_ip": (20, 4), "src_ip6": (21, 16), "dst_ip6": (22, 16), "id": (23, 4),
}
CT_NAMES = {number: name for name, (number, _) in CT_KEYS.items()}
_DIRECTIONS = {"original": 0, "reply": 1}
_DIRECTION_NEEDED = frozenset(("src", "dst", "proto_src", "proto_dst", "src_ip", "dst_ip", "src_ip6", "dst_ip6"))
_DIRECTION_ALLOWED = _DIRECTION_NEEDED | {"l3protocol", "protocol", "packets", "bytes", "avgpkt", "zone"}
_WRITABLE = frozenset(("mark", "label", "zone", "event", "secmark"))


def _direction(direction: str | None) -> int:
    if direction is None:
        return -1
    if direction not in _DIRECTIONS:
        raise ValueError(f"no direction {direction!r}")
    return _DIRECTIONS[direction]


def _direction_text(direction: int) -> str:
    return ("", " , dir original", " , dir reply")[direction + 1]


class Ct(Expr):
    """`dreg` = `key` of the connection (libnftnl's names: state, mark, src_ip, packets, label, …); `direction` original, reply or None.

    `length`: 4 or 16 for src and dst, which take the size of the connection's family.
    """

    kind = "ct"

    def __init__(self, dreg: int, key: str, direction: str | None = None) -> None:
        if key not in CT_KEYS:
            raise ValueError(f"no ct key {key!r}")
        if direction is None and key in _DIRECTION_NEEDED:
            raise ValueError(f"ct {key} needs a direction")
        if direction is not None and key not in _DIRECTION_ALLOWED:
            raise ValueError(f"ct {key} takes no direction")
        self.key, self.length = CT_KEYS[key]
        self.direction = _direction(direction)
        self.dst = register_offset(dreg, self.length)
        self.dreg = dreg

    def operands(self) -> str:
        return f"load {CT_NAMES[self.key]} => reg {self.dreg}{_direction_text(self.direction)}"


class CtSet(Expr):
    """Set mark, label, zone, event or secmark of the connection from `sreg`; zone takes a direction."""

    kind = "ct"

    def __init__(self, sreg: int, key: str, direction: str | None = None) -> None:
        if key not in _WRITABLE:
            raise ValueError(f"ct {key} cannot be set")
        if direction is not None and key != "zone":
            raise ValueError(f"ct {key} set takes no direction")
        self.key, self.length = CT_KEYS[key]
        self.direction = _direction(direction)
        self.src = register_offset(sreg, self.length)
        self.sreg = sreg

    def operands(self) -> str:
        return f"set {CT_NAMES[self.key]} with reg {self.sreg}{_direction_text(self.direction)}"


register(Row("ct", Ct))
register(Row("ct set", CtSet))
