"""Named chain priorities: which name means which number, for which family and hook.

Source: nft(8) "PRIORITY", libnftables ``std_prio_lookup`` and ``prio2str``.
"""

from __future__ import annotations

from typing import Final

_COMMON: Final = {"raw": -300, "mangle": -150, "dstnat": -100, "filter": 0, "security": 50, "srcnat": 100}
_BRIDGE: Final = {"dstnat": -300, "filter": -200, "out": 100, "srcnat": 300}
_HOOKS: Final = {"dstnat": ("prerouting", "output"), "srcnat": ("postrouting", "input")}
_BRIDGE_HOOKS: Final = {"dstnat": ("prerouting",), "srcnat": ("postrouting",), "out": ("output",)}
_REACH: Final = 10


def _names(family: str) -> dict[str, int]:
    if family == "bridge":
        return _BRIDGE
    return {"filter": 0} if family in ("arp", "netdev") else _COMMON


def _legal(name: str, family: str, hook: str) -> bool:
    hooks = (_BRIDGE_HOOKS if family == "bridge" else _HOOKS).get(name)
    return hooks is None or hook in hooks


def resolve(name: str | None, offset: int, family: str, hook: str) -> int | None:
    """The number of ``NAME + offset``; None when the name does not exist for this family and hook."""
    if name is None:
        return offset
    base = _names(family).get(name)
    if base is None or not _legal(name, family, hook):
        return None
    return base + offset


def describe(value: int, family: str, hook: str) -> str:
    """The listing's text of a priority: a name within 10 of it, else the number."""
    for name, base in _names(family).items():
        offset = value - base
        if abs(offset) <= _REACH:
            if not _legal(name, family, hook):
                break
            if offset:
                return f"{name} {'+' if offset > 0 else '-'} {abs(offset)}"
            return name
    return str(value)
