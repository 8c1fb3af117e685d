"""meta: what is known about the packet but not in it (Linux: nft_meta.c)."""

from __future__ import annotations

from userfw.engine.expr import Expr, register_offset
from userfw.engine.registry import Row, register

META_KEYS = {
    "len": (0, 4), "protocol": (1, 2), "priority": (2, 4), "mark": (3, 4), "iif": (4, 4), "oif": (5, 4),
    "iifname": (6, 16), "oifname": (7, 16), "iiftype": (8, 2), "oiftype": (9, 2), "skuid": (10, 4), "skgid": (11, 4),
    "nftrace": (12, 1), "rtclassid": (13, 4), "secmark": (14, 4), "nfproto": (15, 1), "l4proto": (16, 1),
    "bri_iifname": (17, 16), "bri_oifname": (18, 16), "pkttype": (19, 1), "cpu": (20, 4), "iifgroup": (21, 4),
    "oifgroup": (22, 4), "cgroup": (23, 4), "prandom": (24, 4), "secpath": (25, 1), "iifkind": (26, 16),
    "oifkind": (27, 16), "bri_iifpvid": (28, 2), "bri_iifvproto": (29, 2), "time": (30, 8), "day": (31, 1),
    "hour": (32, 4), "sdif": (33, 4), "sdifname": (34, 16), "broute": (35, 1), "ibrhwaddr": (37, 6),
}
META_NAMES = {number: name for name, (number, _) in META_KEYS.items()}
_WRITABLE = frozenset(("mark", "priority", "nftrace", "pkttype", "secmark", "broute"))


class Meta(Expr):
    """`dreg` = the value of `key` (libnftnl's names: mark, l4proto, iifname, …)."""

    kind = "meta"

    def __init__(self, dreg: int, key: str) -> None:
        if key not in META_KEYS:
            raise ValueError(f"no meta key {key!r}")
        self.key, self.length = META_KEYS[key]
        self.dst = register_offset(dreg, self.length)
        self.dreg = dreg

    def operands(self) -> str:
        return f"load {META_NAMES[self.key]} => reg {self.dreg}"


class MetaSet(Expr):
    """Set mark, priority, nftrace, pkttype, secmark or broute of the packet from `sreg`."""

    kind = "meta"

    def __init__(self, sreg: int, key: str) -> None:
        if key not in _WRITABLE:
            raise ValueError(f"meta {key} cannot be set")
        self.key, self.length = META_KEYS[key]
        self.src = register_offset(sreg, self.length)
        self.sreg = sreg

    def operands(self) -> str:
        return f"set {META_NAMES[self.key]} with reg {self.sreg}"


register(Row("meta", Meta))
register(Row("meta set", MetaSet))
