"""The clsact qdisc of an interface, its filters, and what of them is ours: traffic-control netlink in a few requests.

Order at a clsact's ingress, by preference (docs/offload.md): what a flow forwarded never comes to the next row.

    30000           guard: passes up what flower cannot tell apart (software only)
    30001 - 30004   flows without NAT: IPv4, IPv6, 802.1Q, 802.1ad
    30005           guard: large sends pass up, since pedit would leave their checksums wrong (software only)
    30006 - 30009   flows with NAT, likewise
    31000 - 48999   stateless filters, one preference each
    49000           capture: everything else to userfw

Laws: filters outlive the process that made them, so each carries our name (a cookie on its first action, or a program's name)
and `sweep` takes away what an earlier process left. A qdisc that we made goes when nothing of anybody's is on it.
"""

from __future__ import annotations

import errno
import socket
import struct
from dataclasses import dataclass
from typing import Final

from userfw.ports.netlink import (
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    attribute,
    attributes_untrusted,
)
from userfw.ports.netlink_batch import Batches, Refused

RTM_NEWQDISC, RTM_DELQDISC, RTM_GETQDISC = 36, 37, 38
RTM_NEWTFILTER, RTM_DELTFILTER, RTM_GETTFILTER = 44, 45, 46
TCA_KIND, TCA_OPTIONS, TCA_CHAIN, TCA_DUMP_FLAGS = 1, 2, 11, 15
CLSACT: Final = 0xFFFFFFF1
INGRESS: Final = 0xFFFFFFF2
EGRESS: Final = 0xFFFFFFF3
MAJOR: Final = 0xFFFF0000

GUARD, PLAIN, LARGE_GUARD, TRANSLATED, STATELESS, CAPTURE = 30000, 30001, 30005, 30006, 31000, 49000
STATELESS_ROOM: Final = CAPTURE - STATELESS

NAME: Final = b"userfw"
MADE: Final = b"+"  # follows NAME where we made the qdisc as well


@dataclass(frozen=True, slots=True)
class FilterInfo:
    """One filter as the kernel lists it. `protocol` is an EtherType, `options` its attributes, not yet parsed."""

    kind: str
    chain: int
    pref: int
    protocol: int
    handle: int
    parent: int
    options: bytes

    @property
    def label(self) -> bytes:
        """What marks the filter: the name of its program, or the cookie on its first action; empty if there is neither."""
        options = attributes_untrusted(self.options)
        if self.kind == "bpf":
            return options.get(7, b"").rstrip(b"\0")
        if self.kind == "flower":
            first = attributes_untrusted(attributes_untrusted(options.get(3, b"")).get(1, b""))
            return first.get(6, b"")
        return b""

    @property
    def ours(self) -> bool:
        """Some userfw made it."""
        return self.label.startswith(NAME)


class TrafficControl(Batches):
    """A netlink socket for traffic control."""

    # -- the qdisc

    def has_clsact(self, index: int) -> bool:
        """Whether the interface has a clsact qdisc."""
        for _, body in self.request(RTM_GETQDISC, NLM_F_DUMP, _head(index)):
            if len(body) >= 20:
                _, at, _, parent, _ = struct.unpack_from("=BxxxiIII", body)
                if at == index and parent == CLSACT:
                    return attributes_untrusted(body[20:]).get(TCA_KIND, b"").rstrip(b"\0") == b"clsact"
        return False

    def add_clsact(self, index: int) -> bool:
        """Make sure that there is one; whether this call made it. Refused if an ingress qdisc is in its place, for example."""
        if self.has_clsact(index):
            return False
        body = _head(index, MAJOR, CLSACT) + attribute(TCA_KIND, b"clsact\0")
        self.do(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, body)
        return True

    def remove_clsact(self, index: int) -> None:
        """Take the qdisc away if no filter is left on it."""
        if self.has_clsact(index) and not self.filters(index, INGRESS) and not self.filters(index, EGRESS):
            self.do(RTM_DELQDISC, 0, _head(index, MAJOR, CLSACT) + attribute(TCA_KIND, b"clsact\0"))

    # -- filters

    def filters(self, index: int, parent: int = INGRESS, pref: int = 0) -> list[FilterInfo]:
        """Every filter there, of all chains; empty without a clsact. `pref`: those of one preference, without their matches, faster
        (a terse dump, Linux 5.9; BPF filters know none)."""
        body = _head(index, 0, parent, pref << 16)
        if pref:
            body += attribute(TCA_DUMP_FLAGS, struct.pack("=II", 1, 1))
        try:
            answers = self.request(RTM_GETTFILTER, NLM_F_DUMP, body)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):
                return []
            raise
        return [found for _, answer in answers if (found := parse_filter_untrusted(answer)) is not None and found.handle]

    def put_program(self, index: int, pref: int, program: int, name: bytes) -> None:
        """A BPF program (descriptor) as a direct-action filter for every protocol; one that is there is replaced in place."""
        options = attribute(6, struct.pack("=I", program)) + attribute(7, name + b"\0")
        options += attribute(8, struct.pack("=I", 1)) + attribute(9, struct.pack("=I", 1))  # direct action, skip_hw
        body = _head(index, 1, INGRESS, pref << 16 | 0x0300) + attribute(TCA_KIND, b"bpf\0") + attribute(TCA_OPTIONS, options)
        self.do(RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_REPLACE, body)

    def remove(self, index: int, item: FilterInfo) -> None:
        """Take one filter away; one that is gone already is fine."""
        try:
            self.do(RTM_DELTFILTER, 0, _delete(index, item))
        except Refused as error:
            if error.errno not in (errno.ENOENT, errno.EINVAL, errno.ENODEV):
                raise

    def remove_prefs(self, index: int, first: int, last: int) -> None:
        """Take away what is ours at these preferences."""
        for item in self.filters(index):
            if first <= item.pref <= last and item.ours:
                self.remove(index, item)

    def sweep(self, index: int) -> int:
        """Take away every filter of ours, and the qdisc if one of us made it and nothing is left; how many filters went."""
        ours = [item for item in self.filters(index) if item.ours]
        for item in ours:
            self.remove(index, item)
        if any(item.label.startswith(NAME + MADE) for item in ours):
            self.remove_clsact(index)
        return len(ours)


def _head(index: int, handle: int = 0, parent: int = 0, info: int = 0) -> bytes:
    """struct tcmsg; `info` is the preference in the upper half and the protocol in network order in the lower."""
    return struct.pack("=BxxxiIII", 0, index, handle, parent, info)


def _delete(index: int, item: FilterInfo) -> bytes:
    info = item.pref << 16 | socket.htons(item.protocol)
    body = _head(index, item.handle, item.parent, info) + attribute(TCA_KIND, item.kind.encode() + b"\0")
    return body + (attribute(TCA_CHAIN, struct.pack("=I", item.chain)) if item.chain else b"")


def parse_filter_untrusted(body: bytes) -> FilterInfo | None:
    """One RTM_NEWTFILTER; None if it is too short."""
    if len(body) < 20:
        return None
    _, _, handle, parent, info = struct.unpack_from("=BxxxiIII", body)
    attrs = attributes_untrusted(body[20:])
    chain = attrs.get(TCA_CHAIN, b"")
    return FilterInfo(
        attrs.get(TCA_KIND, b"").rstrip(b"\0").decode(errors="replace"),
        struct.unpack("=I", chain)[0] if len(chain) == 4 else 0,
        info >> 16,
        socket.ntohs(info & 0xFFFF),
        handle,
        parent,
        attrs.get(TCA_OPTIONS, b""),
    )
