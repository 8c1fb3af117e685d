"""Hooks: one flat array of entries for each (family, hook), sorted by priority when the ruleset is committed.

An entry is a base chain, conntrack, NAT, defragmentation or confirmation. `run` returns NF_ACCEPT (go on with the next entry),
NF_DROP (`pkt.drop_reason` says why), NF_STOLEN (somebody else owns the packet now) or NF_REPEAT (this entry once more).
"""

from collections.abc import Iterable

import cython

if not cython.compiled:
    from userfw.core.const import NF_ACCEPT, NF_REPEAT
    from userfw.core.packet import Packet


class HookEntry:
    """One position on a hook."""

    def __init__(self, priority: int) -> None:
        self.priority = priority

    def run(self, pkt: Packet, hook: cython.int) -> cython.int:
        """Judge `pkt` at `hook` (NF_INET_*, NF_ARP_* or NF_NETDEV_*); NF_* verdict."""
        raise NotImplementedError


class HookList:
    """The entries of one hook; equal priorities keep the order of registration."""

    def __init__(self, hook: int, entries: Iterable[HookEntry]) -> None:
        self.hook = hook
        self.entries = sorted(entries, key=_priority)
        self.size = len(self.entries)

    def run(self, pkt: Packet) -> cython.int:
        """Every entry in turn until one does not accept."""
        return self.resume(pkt, 0)

    def resume(self, pkt: Packet, position: cython.int) -> cython.int:
        """Go on at entry `position` (a packet that comes back from a queue)."""
        i: cython.int = position
        verdict: cython.int
        entry: HookEntry
        while i < self.size:
            entry = self.entries[i]
            verdict = entry.run(pkt, self.hook)
            if verdict == NF_REPEAT:
                continue
            if verdict != NF_ACCEPT:
                return verdict
            i += 1
        return NF_ACCEPT


def _priority(entry: HookEntry) -> int:
    return entry.priority
