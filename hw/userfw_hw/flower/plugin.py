"""What pyroute2's traffic-control messages lack: the flower classifier, the actions pedit, csum and ct, action cookies, chains.

`register()` adds them to pyroute2's own tables, so that its decoder shows them too; `Message` encodes and decodes a filter.
Numbers and layouts: include/uapi/linux/pkt_cls.h, rtnetlink.h, tc_act/*.h. What userfw neither sends nor reads is left out.
"""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any

from pyroute2.netlink import NLA_F_NESTED, nla
from pyroute2.netlink.rtnl.tcmsg import common_act, plugins, tcmsg
from pyroute2.netlink.rtnl.tcmsg.common import stats2

PEDIT_NETWORK, PEDIT_ETH, PEDIT_IP4, PEDIT_IP6, PEDIT_TCP, PEDIT_UDP = range(6)
PEDIT_SET, PEDIT_ADD = 0, 1
CSUM_IPV4, CSUM_TCP, CSUM_UDP = 1, 8, 16

GENERIC = (("index", "I"), ("capab", "I"), ("action", "i"), ("refcnt", "i"), ("bindcnt", "i"))  # tc_gen


class pedit(nla):  # type: ignore[misc]
    """`parms_ex` is struct tc_pedit_sel with its keys, as bytes (`pedit_selector`); `keys_ex`: each key's header and command."""

    nla_flags = NLA_F_NESTED
    nla_map = (
        (0, "TCA_PEDIT_UNSPEC", "none"),
        (4, "TCA_PEDIT_PARMS_EX", "cdata"),
        (5, "TCA_PEDIT_KEYS_EX", "keys_ex"),
    )

    class keys_ex(nla):  # type: ignore[misc]
        nla_flags = NLA_F_NESTED
        nla_map = ((0, "TCA_PEDIT_KEYS_EX_UNSPEC", "none"), (6, "TCA_PEDIT_KEY_EX", "key_ex"))

        class key_ex(nla):  # type: ignore[misc]
            nla_flags = NLA_F_NESTED
            nla_map = (
                (0, "TCA_PEDIT_KEY_EX_UNSPEC", "none"),
                (1, "TCA_PEDIT_KEY_EX_HTYPE", "uint16"),
                (2, "TCA_PEDIT_KEY_EX_CMD", "uint16"),
            )


def pedit_selector(keys: list[tuple[int, bytes, bytes]], action: int) -> bytes:
    """struct tc_pedit_sel: keys as (offset, four bytes that are kept, four bytes that are put or added)."""
    head = struct.pack("=IIiiiBBxx", 0, 0, action, 0, 0, len(keys), 0)
    return head + b"".join(kept + value + struct.pack("=IIII", offset, 0, 0, 0) for offset, kept, value in keys)


class csum(nla):  # type: ignore[misc]
    """Which checksums are computed anew."""

    nla_flags = NLA_F_NESTED
    nla_map = ((0, "TCA_CSUM_UNSPEC", "none"), (1, "TCA_CSUM_PARMS", "parms"))

    class parms(nla):  # type: ignore[misc]
        fields = (*GENERIC, ("update_flags", "I"))


class ct(nla):  # type: ignore[misc]
    """The kernel's connection tracking; `action` bits: commit 1, force 2, clear 4, nat 8, nat src 16, nat dst 32."""

    nla_flags = NLA_F_NESTED
    nla_map = (
        (0, "TCA_CT_UNSPEC", "none"),
        (1, "TCA_CT_PARMS", "parms"),
        (3, "TCA_CT_ACTION", "uint16"),
        (4, "TCA_CT_ZONE", "uint16"),
        (5, "TCA_CT_MARK", "uint32"),
        (6, "TCA_CT_MARK_MASK", "uint32"),
    )

    class parms(nla):  # type: ignore[misc]
        fields = GENERIC


class vlan(nla):  # type: ignore[misc]
    """As pyroute2's, with the nesting flag that tc sets and the protocol in network order."""

    nla_flags = NLA_F_NESTED
    nla_map = (
        (0, "TCA_VLAN_UNSPEC", "none"),
        (2, "TCA_VLAN_PARMS", "parms"),
        (3, "TCA_VLAN_PUSH_VLAN_ID", "uint16"),
        (4, "TCA_VLAN_PUSH_VLAN_PROTOCOL", "be16"),
    )

    class parms(nla):  # type: ignore[misc]
        fields = (*GENERIC, ("v_action", "i"))


class skbedit(nla):  # type: ignore[misc]
    """As pyroute2's, with the nesting flag that tc sets."""

    nla_flags = NLA_F_NESTED
    nla_map = ((0, "TCA_SKBEDIT_UNSPEC", "none"), (2, "TCA_SKBEDIT_PARMS", "parms"), (5, "TCA_SKBEDIT_MARK", "uint32"))

    class parms(nla):  # type: ignore[misc]
        fields = GENERIC


def _action(options: type[nla]) -> Any:
    return SimpleNamespace(options=options)


ACTIONS = {
    "pedit": _action(pedit),
    "csum": _action(csum),
    "ct": _action(ct),
    "vlan": _action(vlan),
    "skbedit": _action(skbedit),
    "gact": common_act.plugins["gact"],
    "mirred": common_act.plugins["mirred"],
}


class actions(nla):  # type: ignore[misc]
    """A list of actions, numbered from 1."""

    nla_map = tuple((number, f"TCA_ACT_PRIO_{number}", "action") for number in range(1, 33))

    class action(nla):  # type: ignore[misc]
        nla_map = (
            (0, "TCA_ACT_UNSPEC", "none"),
            (1, "TCA_ACT_KIND", "asciiz"),
            (2, "TCA_ACT_OPTIONS", "get_options"),
            (3, "TCA_ACT_INDEX", "uint32"),
            (4, "TCA_ACT_STATS", "stats2"),
            (6, "TCA_ACT_COOKIE", "cdata"),
        )
        stats2 = stats2

        @staticmethod
        def get_options(self: Any, *argv: Any, **kwarg: Any) -> Any:
            """The options of an action by its kind."""
            plugin = ACTIONS.get(self.get_attr("TCA_ACT_KIND"))
            return plugin.options if plugin is not None else self.hex


# What a flower filter matches and carries; a name with a trailing `*` has a mask under the next number.
KEYS = {
    "uint32": {22: "FLAGS", 95: "KEY_CT_MARK*"},
    "cdata": {
        4: "KEY_ETH_DST*", 6: "KEY_ETH_SRC*", 10: "KEY_IPV4_SRC*", 12: "KEY_IPV4_DST*", 14: "KEY_IPV6_SRC*", 16: "KEY_IPV6_DST*",
    },
    "be16": {
        8: "KEY_ETH_TYPE", 18: "KEY_TCP_SRC", 19: "KEY_TCP_DST", 20: "KEY_UDP_SRC", 21: "KEY_UDP_DST", 25: "KEY_VLAN_ETH_TYPE",
        35: "KEY_TCP_SRC_MASK", 36: "KEY_TCP_DST_MASK", 37: "KEY_UDP_SRC_MASK", 38: "KEY_UDP_DST_MASK", 39: "KEY_SCTP_SRC_MASK",
        40: "KEY_SCTP_DST_MASK", 41: "KEY_SCTP_SRC", 42: "KEY_SCTP_DST", 71: "KEY_TCP_FLAGS*", 79: "KEY_CVLAN_ETH_TYPE",
    },
    "uint8": {
        9: "KEY_IP_PROTO", 24: "KEY_VLAN_PRIO", 49: "KEY_ICMPV4_CODE*", 51: "KEY_ICMPV4_TYPE*", 53: "KEY_ICMPV6_CODE*",
        55: "KEY_ICMPV6_TYPE*", 73: "KEY_IP_TOS*", 75: "KEY_IP_TTL*",
    },
    "uint16": {23: "KEY_VLAN_ID", 77: "KEY_CVLAN_ID", 91: "KEY_CT_STATE*", 93: "KEY_CT_ZONE*"},
    "be32": {47: "KEY_FLAGS*"},
}  # fmt: skip


def _keys() -> tuple[tuple[int, str, str], ...]:
    rows = [(0, "TCA_FLOWER_UNSPEC", "none"), (3, "TCA_FLOWER_ACT", "actions")]
    for kind, group in KEYS.items():
        for number, name in group.items():
            rows.append((number, f"TCA_FLOWER_{name.rstrip('*')}", kind))
            if name.endswith("*"):
                rows.append((number + 1, f"TCA_FLOWER_{name[:-1]}_MASK", kind))
    return tuple(rows)


class flower(nla):  # type: ignore[misc]
    """TCA_OPTIONS of a flower filter."""

    nla_map = _keys()
    actions = actions


class Message(tcmsg):  # type: ignore[misc]
    """A traffic-control message that knows chains; attributes by pyroute2's names."""

    nla_map = (*tcmsg.nla_map, ("TCA_PAD", "hex"), ("TCA_DUMP_INVISIBLE", "flag"), ("TCA_CHAIN", "uint32"))


def register() -> None:
    """Teach pyroute2 the flower classifier and the actions that it lacks; what it has already stays."""
    plugins.setdefault("flower", SimpleNamespace(options=flower, stats=None, stats2=stats2))
    for name, plugin in ACTIONS.items():
        common_act.plugins.setdefault(name, plugin)


register()
