"""Flower filters: what is matched and done, as data, and as the netlink message that `tc` would send for it.

A `Filter` is one line of `tc filter show`. `of_rule` makes that of a flow, `encode` the request. Nothing here talks to the kernel.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from userfw.offload.contract import Actions, Match, Rule
from userfw_hw.flower import plugin

ETH_P_IP, ETH_P_IPV6, ETH_P_8021Q, ETH_P_8021AD = 0x0800, 0x86DD, 0x8100, 0x88A8
ETH_P_ALL: Final = 3
TCP, UDP = 6, 17
TC_H_INGRESS: Final = 0xFFFFFFF2
RTM_NEWTFILTER, RTM_DELTFILTER = 44, 45
NLM_REQUEST_ACK, NLM_CREATE_EXCL = 0x5, 0x600
SKIP_HW, SKIP_SW = 1, 2
ACT_OK, ACT_SHOT, ACT_PIPE, ACT_STOLEN, ACT_GOTO_CHAIN = 0, 2, 3, 4, 0x20000000
CT_CLEAR, CT_NAT = 4, 8
CT_ESTABLISHED, CT_TRACKED, CT_REPLY = 2, 8, 32
CHAIN: Final = 0x7566  # where flows go on that act_ct translates
COOKIE: Final = b"userfw"  # the first bytes of the cookie on the first action of each filter: how a later start knows ours

Attribute = tuple[str, Any]


@dataclass(frozen=True, slots=True)
class Filter:
    """One flower filter at the ingress of interface `ifindex`. `keys` and `actions` are attributes in pyroute2's form, in order."""

    ifindex: int
    pref: int
    protocol: int
    handle: int
    keys: tuple[Attribute, ...]
    actions: tuple[tuple[str, tuple[Attribute, ...]], ...]
    flags: int = 0
    cookie: bytes = b""
    chain: int | None = field(default=None)


def encode(item: Filter, kind: int = RTM_NEWTFILTER, flags: int = NLM_REQUEST_ACK | NLM_CREATE_EXCL) -> bytes:
    """The request; its sequence number is zero, for the sender to fill in."""
    message = plugin.Message()
    message["header"]["type"], message["header"]["flags"] = kind, flags
    message["index"], message["handle"], message["parent"] = item.ifindex, item.handle, TC_H_INGRESS
    message["info"] = item.pref << 16 | int.from_bytes(item.protocol.to_bytes(2, "big"), "little")
    listed = []
    for number, (name, attributes) in enumerate(item.actions, 1):
        parts: list[Attribute] = [("TCA_ACT_KIND", name), ("TCA_ACT_OPTIONS", {"attrs": list(attributes)})]
        if item.cookie and number == 1:
            parts.append(("TCA_ACT_COOKIE", item.cookie))
        listed.append((f"TCA_ACT_PRIO_{number}", {"attrs": parts}))
    late = ("KEY_FLAGS", "KEY_FLAGS_MASK")
    options = [(f"TCA_FLOWER_{name}", value) for name, value in item.keys if name not in late]
    options.append(("TCA_FLOWER_ACT", {"attrs": listed}))
    if item.flags:
        options.append(("TCA_FLOWER_FLAGS", item.flags))
    options += [(f"TCA_FLOWER_{name}", value) for name, value in item.keys if name in late]
    if item.protocol != ETH_P_ALL:
        options.append(("TCA_FLOWER_KEY_ETH_TYPE", item.protocol))
    chain = [] if item.chain is None else [("TCA_CHAIN", item.chain)]
    message["attrs"] = [*chain, ("TCA_KIND", "flower"), ("TCA_OPTIONS", {"attrs": options})]
    message.encode()
    return bytes(message.data)


def erase(item: Filter) -> bytes:
    """The request that takes the filter out."""
    info = item.pref << 16 | int.from_bytes(item.protocol.to_bytes(2, "big"), "little")
    chain = b"" if item.chain is None else struct.pack("=HHI", 8, 11, item.chain)
    body = struct.pack("=BxxxiIII", 0, item.ifindex, item.handle, TC_H_INGRESS, info) + chain + b"\x0b\0\1\0flower\0\0"
    return struct.pack("=IHHII", 16 + len(body), RTM_DELTFILTER, NLM_REQUEST_ACK, 0, 0) + body


def protocol_of(match: Match) -> int:
    """The EtherType that the frame starts with: of its outer tag, or of its network layer."""
    return match.vlans[0][0] if match.vlans else _network(match)


def of_rule(rule: Rule, pref: int, flags: int, mac: bytes = b"", mark: int = 0, l4_offsets: bool = False) -> Filter:
    """The filter of one direction of a flow.

    `mac`: the address that frames for the gateway carry, if it is to be matched. `mark`: what the packet is marked with on its way
    out. `l4_offsets`: ports are found from the network header, for kernels whose pedit trusts the transport header's place.
    """
    match = rule.match
    cookie = COOKIE + struct.pack(">Q", rule.id)
    actions = tuple(_actions(match, rule.actions, mark, l4_offsets))
    return Filter(match.ifindex, pref, protocol_of(match), rule.id, tuple(_keys(match, mac)), actions, flags, cookie)


def enter(rule: Rule, pref: int, flags: int, zone: int, mac: bytes = b"") -> Filter:
    """The first half of a flow that act_ct translates: matched as ever, then translated by its connection, if that is in `zone`."""
    cookie = COOKIE + struct.pack(">Q", rule.id)
    track = ("ct", (("TCA_CT_ZONE", zone), ("TCA_CT_ACTION", CT_NAT), ("TCA_CT_PARMS", {"action": ACT_PIPE})))
    keys, actions = tuple(_keys(rule.match, mac)), (track, verdict(ACT_GOTO_CHAIN | CHAIN))
    return Filter(rule.match.ifindex, pref, protocol_of(rule.match), rule.id, keys, actions, flags, cookie)


def leave(rule: Rule, pref: int, flags: int, zone: int, number: int, reply: bool, mark: int = 0) -> Filter:
    """The second half: what is of the connection marked `number` now, in the direction `reply`, has been translated, and leaves."""
    match, cookie = rule.match, COOKIE + struct.pack(">Q", rule.id)
    state = CT_TRACKED | CT_ESTABLISHED
    keys = [
        *_tags(match),
        ("KEY_CT_STATE", state | CT_REPLY if reply else state),
        ("KEY_CT_STATE_MASK", state | CT_REPLY),
        ("KEY_CT_ZONE", zone),
        ("KEY_CT_ZONE_MASK", 0xFFFF),
        ("KEY_CT_MARK", number),
        ("KEY_CT_MARK_MASK", 0xFFFFFFFF),
    ]
    done = replace(
        rule.actions,
        source=match.source,
        destination=match.destination,
        source_port=match.source_port,
        destination_port=match.destination_port,
    )
    actions = _actions(match, done, mark, False)
    clear = ("ct", (("TCA_CT_ACTION", CT_CLEAR), ("TCA_CT_PARMS", {"action": ACT_PIPE})))
    return Filter(match.ifindex, pref, protocol_of(match), rule.id, tuple(keys), (clear, *actions), flags, cookie, CHAIN)


def lost(ifindex: int, pref: int, up: int) -> Filter:
    """Behind the second halves: what has no connection came here as it arrived, and goes up (out of interface `up`) to userfw."""
    return Filter(ifindex, pref, ETH_P_ALL, 1, (), (redirect(up),), SKIP_HW, COOKIE, CHAIN)


def _network(match: Match) -> int:
    return ETH_P_IP if len(match.source) == 4 else ETH_P_IPV6


def _keys(match: Match, mac: bytes) -> list[Attribute]:
    """The exact match of a flow: no fragment, and for TCP none of FIN, SYN and RST."""
    keys = _tags(match)
    inner = _network(match)
    if mac:
        keys += [("KEY_ETH_DST", mac), ("KEY_ETH_DST_MASK", b"\xff" * 6)]
    keys.append(("KEY_IP_PROTO", match.protocol))
    family, ones = ("IPV4", b"\xff" * 4) if inner == ETH_P_IP else ("IPV6", b"\xff" * 16)
    for side, address in (("SRC", match.source), ("DST", match.destination)):
        keys += [(f"KEY_{family}_{side}", address), (f"KEY_{family}_{side}_MASK", ones)]
    name = "TCP" if match.protocol == TCP else "UDP"
    keys += [(f"KEY_{name}_SRC", match.source_port), (f"KEY_{name}_DST", match.destination_port)]
    if match.protocol == TCP:
        keys += [("KEY_TCP_FLAGS", 0), ("KEY_TCP_FLAGS_MASK", 7)]
    keys += [("KEY_FLAGS", 0), ("KEY_FLAGS_MASK", 1)]  # not a fragment
    return keys


def _tags(match: Match) -> list[Attribute]:
    """The tags of a frame, and what is behind them."""
    keys: list[Attribute] = []
    for at, (prefix, (_, tag)) in enumerate(zip(("KEY_VLAN", "KEY_CVLAN"), match.vlans, strict=False)):
        below = match.vlans[at + 1][0] if at + 1 < len(match.vlans) else _network(match)
        keys += [(f"{prefix}_ID", tag), (f"{prefix}_ETH_TYPE", below)]
    return keys


def _actions(match: Match, actions: Actions, mark: int, l4_offsets: bool) -> list[tuple[str, tuple[Attribute, ...]]]:
    """Tags off, rewrite, checksums, tags on, mark, out."""
    listed: list[tuple[str, tuple[Attribute, ...]]] = []
    for _ in match.vlans:
        listed.append(("vlan", (("TCA_VLAN_PARMS", {"action": ACT_PIPE, "v_action": 1}),)))
    listed += rewrite(match, actions, l4_offsets)
    listed += push(actions.vlans)
    if mark:
        listed.append(("skbedit", (("TCA_SKBEDIT_PARMS", {"action": ACT_PIPE}), ("TCA_SKBEDIT_MARK", mark))))
    listed.append(redirect(actions.ifindex))
    return listed


def push(tags: Iterable[tuple[int, int]]) -> list[tuple[str, tuple[Attribute, ...]]]:
    """Tags on, so that the first of them is the outermost."""
    return [
        (
            "vlan",
            (
                ("TCA_VLAN_PARMS", {"action": ACT_PIPE, "v_action": 2}),
                ("TCA_VLAN_PUSH_VLAN_ID", tag),
                ("TCA_VLAN_PUSH_VLAN_PROTOCOL", protocol),
            ),
        )
        for protocol, tag in reversed(list(tags))
    ]


def redirect(ifindex: int) -> tuple[str, tuple[Attribute, ...]]:
    """Out of an interface."""
    return ("mirred", (("TCA_MIRRED_PARMS", {"action": ACT_STOLEN, "eaction": 1, "ifindex": ifindex}),))


def mirror(ifindex: int) -> tuple[str, tuple[Attribute, ...]]:
    """A copy out of an interface; the packet itself goes on to the next action."""
    return ("mirred", (("TCA_MIRRED_PARMS", {"action": ACT_PIPE, "eaction": 2, "ifindex": ifindex}),))


def verdict(action: int) -> tuple[str, tuple[Attribute, ...]]:
    """The end of the way: ACT_OK or ACT_SHOT."""
    return ("gact", (("TCA_GACT_PARMS", {"action": action}),))


def rewrite(match: Match, actions: Actions, l4_offsets: bool) -> list[tuple[str, tuple[Attribute, ...]]]:
    """pedit of what changes, then csum of what that concerns."""
    four = len(match.source) == 4
    keys: list[tuple[int, int, int, bytes, bytes]] = []
    if actions.ethernet_destination:
        keys += _put(plugin.PEDIT_ETH, 0, actions.ethernet_destination) + _put(plugin.PEDIT_ETH, 6, actions.ethernet_source)
    header, at, size = (plugin.PEDIT_IP4, 12, 4) if four else (plugin.PEDIT_IP6, 8, 16)
    if actions.source != match.source:
        keys += _put(header, at, actions.source)
    if actions.destination != match.destination:
        keys += _put(header, at + size, actions.destination)
    transport, start = plugin.PEDIT_TCP if match.protocol == TCP else plugin.PEDIT_UDP, 0
    if l4_offsets:
        transport, start = plugin.PEDIT_NETWORK, 20 if four else 40
    if actions.source_port != match.source_port:
        keys += _put(transport, start, actions.source_port.to_bytes(2, "big"))
    if actions.destination_port != match.destination_port:
        keys += _put(transport, start + 2, actions.destination_port.to_bytes(2, "big"))
    if four:  # less one, modulo 256, in the field's own byte
        keys.append((plugin.PEDIT_IP4, plugin.PEDIT_ADD, 8, b"\0\xff\xff\xff", b"\xff\0\0\0"))
    else:
        keys.append((plugin.PEDIT_IP6, plugin.PEDIT_ADD, 4, b"\xff\xff\xff\0", b"\0\0\0\xff"))
    selector = plugin.pedit_selector([(off, kept, value) for _, _, off, kept, value in keys], ACT_PIPE)
    extended = [
        ("TCA_PEDIT_KEY_EX", {"attrs": [("TCA_PEDIT_KEY_EX_HTYPE", kind), ("TCA_PEDIT_KEY_EX_CMD", command)]})
        for kind, command, _, _, _ in keys
    ]
    listed: list[tuple[str, tuple[Attribute, ...]]] = [
        ("pedit", (("TCA_PEDIT_PARMS_EX", selector), ("TCA_PEDIT_KEYS_EX", {"attrs": extended})))
    ]
    sums = plugin.CSUM_IPV4 if four else 0
    if Rule(0, match, actions).translates:
        sums |= plugin.CSUM_TCP if match.protocol == TCP else plugin.CSUM_UDP
    if sums:
        listed.append(("csum", (("TCA_CSUM_PARMS", {"action": ACT_PIPE, "update_flags": sums}),)))
    return listed


def _put(kind: int, offset: int, value: bytes) -> list[tuple[int, int, int, bytes, bytes]]:
    """Keys that write `value` at `offset`: each of one aligned word of four bytes, keeping what of it is not the value's."""
    keys = []
    at = 0
    while at < len(value):
        before = (offset + at) % 4
        part = value[at : at + 4 - before]
        after = 4 - before - len(part)
        kept = b"\xff" * before + bytes(len(part)) + b"\xff" * after
        keys.append((kind, plugin.PEDIT_SET, offset + at - before, kept, bytes(before) + part + bytes(after)))
        at += len(part)
    return keys
