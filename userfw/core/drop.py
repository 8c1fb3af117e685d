"""Why packets are dropped. Each member is, by being here, a counter of `userfw drops`.

`drop.pxd` is the C-level twin (names prefixed DROP_); tests/core/test_const.py compares the two.
"""

import enum


class DropReason(enum.IntEnum):
    """The reason a packet goes no further; `DESCRIPTIONS` says it in a sentence."""

    NOT_SPECIFIED = 0
    MALFORMED = 1
    CHECKSUM = 2
    UNKNOWN_ETHERTYPE = 3
    OTHERHOST = 4
    MARTIAN = 5
    NO_ROUTE = 6
    PROHIBITED = 7
    FORWARDING_OFF = 8
    TTL_EXPIRED = 9
    FRAG_NEEDED = 10
    REASM_TIMEOUT = 11
    REASM_OVERLAP = 12
    REASM_LIMIT = 13
    NEIGH_FAILED = 14
    NEIGH_QUEUE_FULL = 15
    DEVICE_DOWN = 16
    TX_FAILED = 17
    TX_QUEUE_FULL = 18
    RULE = 19
    POLICY = 20
    REJECT = 21
    CT_INVALID = 22
    CT_TABLE_FULL = 23
    CT_CLASH = 24
    NAT_FAILED = 25
    NO_PROTOCOL = 26
    LOCAL_QUEUE_FULL = 27
    SYNPROXY = 28
    QUEUE = 29
    JUMP_DEPTH = 30
    HOP_LIMIT = 31
    SOURCE_FILTER = 32
    IP_OPTIONS = 33
    INTERNAL_ERROR = 34
    TX_MTU = 35
    QUEUE_FULL = 36
    QUEUE_VERDICT = 37
    BRIDGE_FILTER = 38
    SOCKET_ELSEWHERE = 39


DESCRIPTIONS: dict[DropReason, str] = {
    DropReason.NOT_SPECIFIED: "The packet was not dropped.",
    DropReason.MALFORMED: "A header is truncated or contradicts itself (version, header length, total length).",
    DropReason.CHECKSUM: "The IPv4 header checksum, or a checksum that had to be believed, is wrong.",
    DropReason.UNKNOWN_ETHERTYPE: "No protocol here handles this EtherType.",
    DropReason.OTHERHOST: "The link-layer destination is another host's address.",
    DropReason.MARTIAN: "A source or destination address that must not appear on the wire (RFC 1812 5.3.7).",
    DropReason.NO_ROUTE: "No route to the destination; answered by an ICMP error where one is due.",
    DropReason.PROHIBITED: "A blackhole, unreachable or prohibit route.",
    DropReason.FORWARDING_OFF: "The packet is for another host and forwarding is off.",
    DropReason.TTL_EXPIRED: "TTL or hop limit reached zero; answered by ICMP time exceeded.",
    DropReason.FRAG_NEEDED: "Larger than the MTU and must not be fragmented; answered by ICMP.",
    DropReason.REASM_TIMEOUT: "Fragments whose rest never came.",
    DropReason.REASM_OVERLAP: "Overlapping fragments (RFC 5722), or a fragment that contradicts others.",
    DropReason.REASM_LIMIT: "Fragment memory or queue limit reached.",
    DropReason.NEIGH_FAILED: "The next hop did not answer address resolution.",
    DropReason.NEIGH_QUEUE_FULL: "Too many packets waited for the next hop's address.",
    DropReason.DEVICE_DOWN: "The output device is down or gone.",
    DropReason.TX_FAILED: "The device refused the frame.",
    DropReason.TX_QUEUE_FULL: "The device's transmit queue was full.",
    DropReason.RULE: "A rule's drop verdict.",
    DropReason.POLICY: "A base chain's drop policy.",
    DropReason.REJECT: "A reject statement; the answer was sent if rate limits allowed.",
    DropReason.CT_INVALID: "Conntrack could not accept the packet.",
    DropReason.CT_TABLE_FULL: "The connection table is full and nothing could be evicted.",
    DropReason.CT_CLASH: "Another connection took the tuple before this one was confirmed.",
    DropReason.NAT_FAILED: "No usable address or port for the mapping.",
    DropReason.NO_PROTOCOL: "Delivered locally, but nothing here listens.",
    DropReason.LOCAL_QUEUE_FULL: "Local delivery's queue was full.",
    DropReason.SYNPROXY: "Answered or consumed by synproxy.",
    DropReason.QUEUE: "A queue statement without a listener, or one whose listener or chain went away.",
    DropReason.JUMP_DEPTH: "Chains nested deeper than the machine allows.",
    DropReason.HOP_LIMIT: "A neighbour discovery packet whose hop limit is not 255 (RFC 4861).",
    DropReason.SOURCE_FILTER: "Reverse-path filter.",
    DropReason.IP_OPTIONS: "IP options that the router refuses (source routing).",
    DropReason.INTERNAL_ERROR: "A fault in userfw: the exception was counted and logged, the packet dropped.",
    DropReason.TX_MTU: "The frame exceeds what the output port can send.",
    DropReason.QUEUE_FULL: "The listener of a queue was too slow: the queue was full.",
    DropReason.QUEUE_VERDICT: "The listener of a queue said drop.",
    DropReason.BRIDGE_FILTER: "A frame in a VLAN that its bridge port is not in, or back to the port it came from.",
    DropReason.SOCKET_ELSEWHERE: "`tproxy` gave it a socket here, but its route leads on: a routing rule must make it local.",
}

DROP_NOT_SPECIFIED = 0
DROP_MALFORMED = 1
DROP_CHECKSUM = 2
DROP_UNKNOWN_ETHERTYPE = 3
DROP_OTHERHOST = 4
DROP_MARTIAN = 5
DROP_NO_ROUTE = 6
DROP_PROHIBITED = 7
DROP_FORWARDING_OFF = 8
DROP_TTL_EXPIRED = 9
DROP_FRAG_NEEDED = 10
DROP_REASM_TIMEOUT = 11
DROP_REASM_OVERLAP = 12
DROP_REASM_LIMIT = 13
DROP_NEIGH_FAILED = 14
DROP_NEIGH_QUEUE_FULL = 15
DROP_DEVICE_DOWN = 16
DROP_TX_FAILED = 17
DROP_TX_QUEUE_FULL = 18
DROP_RULE = 19
DROP_POLICY = 20
DROP_REJECT = 21
DROP_CT_INVALID = 22
DROP_CT_TABLE_FULL = 23
DROP_CT_CLASH = 24
DROP_NAT_FAILED = 25
DROP_NO_PROTOCOL = 26
DROP_LOCAL_QUEUE_FULL = 27
DROP_SYNPROXY = 28
DROP_QUEUE = 29
DROP_JUMP_DEPTH = 30
DROP_HOP_LIMIT = 31
DROP_SOURCE_FILTER = 32
DROP_IP_OPTIONS = 33
DROP_INTERNAL_ERROR = 34
DROP_TX_MTU = 35
DROP_QUEUE_FULL = 36
DROP_QUEUE_VERDICT = 37
DROP_BRIDGE_FILTER = 38
DROP_SOCKET_ELSEWHERE = 39
DROP_COUNT = 40
