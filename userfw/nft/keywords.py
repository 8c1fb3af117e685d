"""Words of the nft language that the parser must know to tell a load from a symbol, a statement from a value.

Laws:
- Nothing here has a meaning: widths, types and offsets of fields belong to the header table.
"""

from __future__ import annotations

from typing import Final

FAMILIES: Final = frozenset(("ip", "ip6", "inet", "arp", "bridge", "netdev"))

_PORTS = ("sport", "dport")
_ICMP6 = ("type", "code", "checksum", "param-problem", "mtu", "id", "sequence", "max-delay", "taddr", "daddr")
FIELDS: Final[dict[str, frozenset[str]]] = {
    name: frozenset(fields)
    for name, fields in {
        "ether": ("saddr", "daddr", "type"),
        "vlan": ("id", "cfi", "dei", "pcp", "type"),
        "arp": ("htype", "ptype", "hlen", "plen", "operation"),
        "ip": (
            "version", "hdrlength", "dscp", "ecn", "length", "id", "frag-off", "ttl", "protocol", "checksum",
            "saddr", "daddr",
        ),
        "icmp": ("type", "code", "checksum", "id", "sequence", "gateway", "mtu"),
        "igmp": ("type", "checksum", "mrt", "group"),
        "ip6": ("version", "dscp", "ecn", "flowlabel", "length", "nexthdr", "hoplimit", "saddr", "daddr"),
        "icmpv6": _ICMP6,
        "ah": ("nexthdr", "hdrlength", "reserved", "spi", "sequence"),
        "esp": ("spi", "sequence"),
        "comp": ("nexthdr", "flags", "cpi"),
        "udp": (*_PORTS, "length", "checksum"),
        "udplite": (*_PORTS, "csumcov", "checksum"),
        "tcp": (
            *_PORTS, "sequence", "ackseq", "doff", "reserved", "flags", "window", "checksum", "urgptr",
        ),
        "dccp": (*_PORTS, "type"),
        "sctp": (*_PORTS, "vtag", "checksum"),
        "th": _PORTS,
        "gre": ("flags", "version", "protocol"),
        "gretap": (),
        "vxlan": ("flags", "vni"),
        "geneve": ("vni", "type"),
    }.items()
}  # fmt: skip
"""Protocol keyword -> its field keywords (payload_*_expr of the grammar)."""

ARP_ADDRESSES: Final = frozenset(("ether", "ip"))
"""``arp saddr ip``, ``arp daddr ether``: field keywords of two words."""

TUNNELS: Final = frozenset(("vxlan", "geneve", "gre", "gretap"))
INNER_HEADERS: Final[dict[str, frozenset[str]]] = {
    "vxlan": frozenset(("ether", "vlan", "arp", "ip", "icmp", "igmp", "ip6", "icmpv6", "ah", "esp", "comp", "udp",
                        "udplite", "tcp", "dccp", "sctp", "th")),
    "geneve": frozenset(("ether", "vlan", "arp", "ip", "icmp", "igmp", "ip6", "icmpv6", "ah", "esp", "comp", "udp",
                         "udplite", "tcp", "dccp", "sctp", "th")),
    "gre": frozenset(("ip", "icmp", "igmp", "ip6", "icmpv6", "ah", "esp", "comp", "udp", "udplite", "tcp", "dccp",
                      "sctp", "th")),
    "gretap": frozenset(("ether", "vlan", "arp", "ip", "icmp", "igmp", "ip6", "icmpv6", "ah", "esp", "comp", "udp",
                         "udplite", "tcp", "dccp", "sctp", "th")),
}  # fmt: skip

EXTHDRS: Final[dict[str, frozenset[str]]] = {
    "hbh": frozenset(("nexthdr", "hdrlength")),
    "rt": frozenset(("nexthdr", "hdrlength", "type", "seg-left")),
    "rt0": frozenset(("addr",)),
    "rt2": frozenset(("addr",)),
    "srh": frozenset(("last-entry", "flags", "tag", "sid")),
    "frag": frozenset(("nexthdr", "reserved", "frag-off", "reserved2", "more-fragments", "id")),
    "dst": frozenset(("nexthdr", "hdrlength")),
    "mh": frozenset(("nexthdr", "hdrlength", "type", "reserved", "checksum")),
}
EXTHDR_EXISTS: Final = frozenset(("hbh", "frag", "rt", "dst", "mh"))

TCP_OPTIONS: Final[dict[str, frozenset[str]]] = {
    "eol": frozenset(),
    "nop": frozenset(),
    "maxseg": frozenset(("length", "size")),
    "window": frozenset(("length", "count")),
    "sack-perm": frozenset(("length",)),
    "sack": frozenset(("length", "left", "right")),
    "sack0": frozenset(("length", "left", "right")),
    "sack1": frozenset(("length", "left", "right")),
    "sack2": frozenset(("length", "left", "right")),
    "sack3": frozenset(("length", "left", "right")),
    "timestamp": frozenset(("length", "tsval", "tsecr")),
    "mptcp": frozenset(("length", "subtype")),
    "md5sig": frozenset(("length",)),
    "fastopen": frozenset(("length",)),
    "echo": frozenset(("length",)),
}
TCP_OPTION_ALIASES: Final = {"noop": "nop", "mss": "maxseg", "sack-permitted": "sack-perm", "sack0": "sack"}
IP_OPTIONS: Final[dict[str, frozenset[str]]] = {
    "lsrr": frozenset(("type", "length", "value", "ptr", "addr")),
    "rr": frozenset(("type", "length", "value", "ptr", "addr")),
    "ssrr": frozenset(("type", "length", "value", "ptr", "addr")),
    "ra": frozenset(("type", "length", "value")),
}
SCTP_CHUNKS: Final[dict[str, frozenset[str]]] = {
    name: frozenset(("type", "flags", "length", *fields))
    for name, fields in {
        "data": ("tsn", "stream", "ssn", "ppid"),
        "init": ("init-tag", "a-rwnd", "num-outbound-streams", "num-inbound-streams", "initial-tsn"),
        "init-ack": ("init-tag", "a-rwnd", "num-outbound-streams", "num-inbound-streams", "initial-tsn"),
        "sack": ("cum-tsn-ack", "a-rwnd", "num-gap-ack-blocks", "num-dup-tsns"),
        "heartbeat": (),
        "heartbeat-ack": (),
        "abort": (),
        "shutdown": ("cum-tsn-ack",),
        "shutdown-ack": (),
        "error": (),
        "cookie-echo": (),
        "cookie-ack": (),
        "ecne": ("lowest-tsn",),
        "cwr": ("lowest-tsn",),
        "shutdown-complete": (),
        "asconf-ack": ("seqno",),
        "forward-tsn": ("new-cum-tsn",),
        "asconf": ("seqno",),
    }.items()
}

META_UNQUALIFIED: Final = frozenset((
    "mark", "iif", "iifname", "iiftype", "oif", "oifname", "oiftype", "skuid", "skgid", "nftrace", "rtclassid",
    "ibriport", "obriport", "ibrname", "obrname", "pkttype", "cpu", "iifgroup", "oifgroup", "cgroup", "ipsec",
    "time", "day", "hour",
))  # fmt: skip
META_KEYS: Final = META_UNQUALIFIED | frozenset((
    "length", "protocol", "nfproto", "l4proto", "priority", "random", "secmark", "secpath", "prandom", "iifkind",
    "oifkind", "ibrpvid", "ibrvproto", "ibrhwaddr", "sdif", "sdifname", "broute",
))  # fmt: skip
META_ALIASES: Final = {"ibriport": "ibrname", "obriport": "obrname", "secpath": "ipsec", "prandom": "random"}

CT_KEYS: Final = frozenset((
    "l3proto", "protocol", "mark", "state", "direction", "status", "expiration", "helper", "saddr", "daddr",
    "proto-src", "proto-dst", "label", "event", "secmark", "id", "bytes", "packets", "avgpkt", "zone",
))  # fmt: skip
CT_KEYS_DIRECTION: Final = frozenset((
    "saddr", "daddr", "l3proto", "protocol", "proto-src", "proto-dst", "bytes", "packets", "avgpkt", "zone",
))  # fmt: skip
CT_SETTABLE_DIRECTION: Final = frozenset(("bytes", "packets", "avgpkt", "zone"))

VERDICTS: Final = frozenset(("accept", "drop", "continue", "return", "jump", "goto"))

RESERVED_VALUES: Final = frozenset((
    "accept", "drop", "continue", "return", "jump", "goto", "counter", "quota", "limit", "log", "reject",
    "masquerade", "tproxy", "synproxy", "notrack", "queue", "dup", "fwd", "meta", "set", "map", "vmap", "add",
    "update", "delete", "numgen", "jhash", "symhash", "fib", "socket", "osf", "comment", "ct", "include", "define",
    "redefine", "undefine", "mark", "iif", "iifname", "iiftype", "oif", "oifname", "oiftype", "skuid", "skgid",
    "nftrace", "exthdr", "hbh", "rt", "rt0", "rt2", "srh", "frag", "dst", "mh",
))  # fmt: skip
"""Words that never are a value: they begin the next statement."""

RESERVED_NAMES: Final = RESERVED_VALUES | FAMILIES | frozenset((
    "table", "chain", "chains", "tables", "rule", "rules", "sets", "maps", "element", "ruleset", "hook", "type",
    "policy", "priority", "flush", "list", "create", "insert", "replace", "rename", "destroy", "get", "describe",
    "export", "import", "monitor", "reset", "flowtable", "device", "devices", "handle", "index", "position", "tcp",
    "udp", "sctp", "dccp", "icmp", "icmpv6", "ether", "vlan", "esp", "ah", "comp", "udplite", "igmp", "th", "flow",
    "mark", "iif", "oif", "iifname", "oifname", "snat", "dnat", "redirect", "rt", "mh", "hbh", "exthdr",
))  # fmt: skip
"""Words that cannot name a table, chain, set or object without quotes."""

OBJECT_KINDS: Final = ("counter", "quota", "limit", "secmark", "synproxy", "tunnel")
OBJECT_PLURALS: Final = {
    "counters": "counter", "quotas": "quota", "limits": "limit", "secmarks": "secmark", "synproxys": "synproxy",
    "tunnels": "tunnel",
}  # fmt: skip
CT_OBJECTS: Final = ("helper", "timeout", "expectation")
