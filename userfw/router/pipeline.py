"""The hook lists of one committed ruleset, by family and hook. Swapped whole into `Gateway.pipeline` between two batches."""

from __future__ import annotations

from collections.abc import Mapping

import cython

if not cython.compiled:
    from userfw.core.ahead import Lookahead
    from userfw.core.const import NF_ACCEPT
    from userfw.core.hook import HookList
    from userfw.core.packet import Packet

FAMILIES = 16
HOOKS = 8


class Pipeline:
    """`hooks`: (NFPROTO_IPV4 | NFPROTO_IPV6 | NFPROTO_ARP, hook number) to HookList; inet chains stand in both families.

    Netdev hooks hang on their Device (`ingress`, `egress`). `tracked`: conntrack is on some hook. `ahead`: what looks
    ahead for its packets, or None.
    """

    def __init__(self, hooks: Mapping[tuple[int, int], HookList], tracked: bool = False, ahead: Lookahead | None = None) -> None:
        self.tracked = tracked
        self.ahead = ahead
        self.lists: list[HookList | None] = [None] * (FAMILIES * HOOKS)
        for (family, hook), entries in hooks.items():
            if entries.size:
                self.lists[family * HOOKS + hook] = entries

    def get(self, family: cython.int, hook: cython.int) -> HookList | None:
        """The list of a hook, None if nothing hangs there."""
        return self.lists[family * 8 + hook]

    def run(self, family: cython.int, hook: cython.int, pkt: Packet) -> cython.int:
        """NF_* verdict of all entries of a hook."""
        entries: HookList | None = self.lists[family * 8 + hook]
        if entries is None:
            return NF_ACCEPT
        return entries.run(pkt)
