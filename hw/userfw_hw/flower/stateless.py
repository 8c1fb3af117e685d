"""Stateless filters as flower filters: one preference each, so that their order holds.

A list is replaced without a gap: the new one goes into the half of the preferences that the old one does not use, then that goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from userfw.offload.contract import FieldMatch, Filter
from userfw.ports.clsact import STATELESS, STATELESS_ROOM
from userfw_hw.flower import filters

HALF: Final = STATELESS_ROOM // 2
ACT_UNSPEC: Final = -1
_TAGS: Final = (filters.ETH_P_8021Q, filters.ETH_P_8021AD)
_MASKED: Final = {
    "eth_dst": "KEY_ETH_DST", "eth_src": "KEY_ETH_SRC", "ipv4_src": "KEY_IPV4_SRC", "ipv4_dst": "KEY_IPV4_DST",
    "ipv6_src": "KEY_IPV6_SRC", "ipv6_dst": "KEY_IPV6_DST",
}  # fmt: skip
_PORTS: Final = {
    "tcp_sport": "KEY_TCP_SRC", "tcp_dport": "KEY_TCP_DST", "udp_sport": "KEY_UDP_SRC", "udp_dport": "KEY_UDP_DST",
}  # fmt: skip


class Unmatchable(Exception):
    """Flower cannot express a filter; the words say what."""


def lay_out(
    ifindex: int, items: Sequence[Filter], upper: bool, flags: int, up: int = 0, mark: int = 0
) -> list[tuple[int, filters.Filter]]:
    """(id of the filter, flower filter) in order. `upper`: the half of the preferences. `up`: where frames for the host are
    redirected to (software), 0: they go on by themselves. `mark`: what frames that leave carry. Unmatchable carries (id, words)."""
    pref = STATELESS + (HALF if upper else 0)
    end = pref + HALF
    made = []
    for item in items:
        try:
            forms = _keys(item.tests)
        except Unmatchable as problem:
            raise Unmatchable(item.id, str(problem)) from None
        actions = _actions(item, up, mark)
        cookie = filters.COOKIE + item.id.to_bytes(8, "big")
        for protocol, keys in forms:
            if pref >= end:
                raise Unmatchable(item.id, f"more than {HALF} filters")
            made.append((item.id, filters.Filter(ifindex, pref, protocol, item.id, tuple(keys), tuple(actions), flags, cookie)))
            pref += 1
    return made


def _actions(item: Filter, up: int, mark: int) -> list[tuple[str, tuple[filters.Attribute, ...]]]:
    actions: list[tuple[str, tuple[filters.Attribute, ...]]] = []
    if mark and (item.copies or item.verdict == "forward"):
        actions.append(("skbedit", (("TCA_SKBEDIT_PARMS", {"action": filters.ACT_PIPE}), ("TCA_SKBEDIT_MARK", mark))))
    actions += [filters.mirror(ifindex) for _, ifindex in item.copies]
    if item.verdict == "forward":
        actions += filters.push(item.tags)
        actions.append(filters.redirect(item.out[1]))
    elif item.verdict == "accept":
        actions.append(filters.redirect(up) if up else filters.verdict(filters.ACT_OK))
    else:
        actions.append(filters.verdict(filters.ACT_SHOT if item.verdict == "drop" else ACT_UNSPEC))
    return actions


def _keys(tests: Sequence[FieldMatch]) -> list[tuple[int, list[filters.Attribute]]]:
    """(EtherType, keys) of each filter that it takes: flower wants the EtherType said wherever something behind it is matched, and
    the tag's as well where there is one."""
    by_key = {test.key: test for test in tests}
    outer, inner = _exact(by_key.pop("eth_type", None)), _exact(by_key.pop("protocol", None))
    tag = by_key.pop("vlan_id", None)
    keys: list[filters.Attribute] = []
    if tag is not None:
        keys.append(("KEY_VLAN_ID", int.from_bytes(tag.value, "big")))
    for test in by_key.values():
        keys += _one(test)
    kinds: list[int | None] = [inner]
    if inner is None and any(name.startswith(("ip", "tcp", "udp")) for name in by_key):
        kinds = [filters.ETH_P_IP, filters.ETH_P_IPV6] if outer in (None, *_TAGS) else [outer]
    made = []
    for kind in kinds:
        if outer is None and kind is None:
            made.append((filters.ETH_P_ALL, keys))
        elif outer is not None and outer not in _TAGS:
            if kind not in (None, outer):
                raise Unmatchable("two EtherTypes at once")
            made.append((outer, keys))
        else:
            below = [("KEY_VLAN_ETH_TYPE", kind)] if kind is not None else []
            made += [(protocol, [*below, *keys]) for protocol in ([outer] if outer is not None else _TAGS)]
            if outer is None and kind is not None:
                made.append((kind, keys))
    return made


def _exact(test: FieldMatch | None) -> int | None:
    if test is None:
        return None
    if not test.exact:
        raise Unmatchable("flower matches whole EtherTypes only")
    return int.from_bytes(test.value, "big")


def _one(test: FieldMatch) -> list[filters.Attribute]:
    if test.key in _MASKED:
        return [(_MASKED[test.key], test.value), (f"{_MASKED[test.key]}_MASK", test.mask)]
    if test.key in _PORTS:
        number = (_PORTS[test.key], int.from_bytes(test.value, "big"))
        return [number] if test.exact else [number, (f"{_PORTS[test.key]}_MASK", int.from_bytes(test.mask, "big"))]
    if test.key == "ip_proto" and test.exact:
        return [("KEY_IP_PROTO", test.value[0])]
    raise Unmatchable(f"flower does not match {test.key} so")
