"""Keys of loads that are no header fields: meta, ct, rt, socket, fib, osf, ipsec, tunnel.

Laws:
- A ``Key`` gives the engine's (libnftnl's) name for the key and the data type (with width and byte order) of what is loaded.
- ``settable`` keys may stand left of ``set``.
"""

from __future__ import annotations

from typing import NamedTuple

from userfw.nft.datatype import BIG, HOST, Datatype
from userfw.nft.datatype_tables import (
    BOOLEAN,
    CGROUPV2,
    CT_DIR,
    CT_EVENT,
    CT_ID,
    CT_LABEL,
    CT_STATE,
    CT_STATUS,
    DATE,
    DAY,
    DEVGROUP,
    ETHER_ADDR,
    ETHER_TYPE,
    FIB_ADDR,
    GID,
    HOUR,
    IFACE_INDEX,
    IFACE_TYPE,
    IFNAME,
    INET_PROTO,
    INET_SERVICE,
    IPV4_ADDR,
    IPV6_ADDR,
    MARK,
    NF_PROTO,
    PKT_TYPE,
    REALM,
    TC_HANDLE,
    TIME,
    UID,
    integer,
    string,
)


class Key(NamedTuple):
    """libnftnl's name of the key, data type of the value, whether ``set`` may write it."""

    name: str
    dtype: Datatype
    settable: bool = False


META: dict[str, Key] = {
    "length": Key("len", integer(32, HOST)),
    "protocol": Key("protocol", ETHER_TYPE),
    "priority": Key("priority", TC_HANDLE, True),
    "mark": Key("mark", MARK, True),
    "iif": Key("iif", IFACE_INDEX),
    "oif": Key("oif", IFACE_INDEX),
    "iifname": Key("iifname", IFNAME),
    "oifname": Key("oifname", IFNAME),
    "iiftype": Key("iiftype", IFACE_TYPE),
    "oiftype": Key("oiftype", IFACE_TYPE),
    "skuid": Key("skuid", UID),
    "skgid": Key("skgid", GID),
    "nftrace": Key("nftrace", integer(1, HOST), True),
    "rtclassid": Key("rtclassid", REALM),
    "secmark": Key("secmark", integer(32, HOST), True),
    "nfproto": Key("nfproto", NF_PROTO),
    "l4proto": Key("l4proto", INET_PROTO),
    "ibrname": Key("bri_iifname", IFNAME),
    "obrname": Key("bri_oifname", IFNAME),
    "pkttype": Key("pkttype", PKT_TYPE, True),
    "cpu": Key("cpu", integer(32, HOST)),
    "iifgroup": Key("iifgroup", DEVGROUP),
    "oifgroup": Key("oifgroup", DEVGROUP),
    "cgroup": Key("cgroup", integer(32, HOST)),
    "random": Key("prandom", integer(32, BIG)),
    "ipsec": Key("secpath", BOOLEAN),
    "iifkind": Key("iifkind", IFNAME),
    "oifkind": Key("oifkind", IFNAME),
    "ibrpvid": Key("bri_iifpvid", integer(16, HOST)),
    "ibrvproto": Key("bri_iifvproto", ETHER_TYPE),
    "time": Key("time", DATE),
    "day": Key("day", DAY),
    "hour": Key("hour", HOUR),
    "sdif": Key("sdif", IFACE_INDEX),
    "sdifname": Key("sdifname", IFNAME),
    "broute": Key("broute", integer(1, HOST), True),
    "ibrhwaddr": Key("ibrhwaddr", ETHER_ADDR),
}

CT: dict[str, Key] = {
    "state": Key("state", CT_STATE),
    "direction": Key("direction", CT_DIR),
    "status": Key("status", CT_STATUS),
    "mark": Key("mark", MARK, True),
    "expiration": Key("expiration", TIME.sized(32, HOST)),
    "helper": Key("helper", string(128)),
    "l3proto": Key("l3protocol", NF_PROTO),
    "saddr": Key("src", integer(0)),
    "daddr": Key("dst", integer(0)),
    "protocol": Key("protocol", INET_PROTO),
    "proto-src": Key("proto_src", INET_SERVICE),
    "proto-dst": Key("proto_dst", INET_SERVICE),
    "label": Key("label", CT_LABEL, True),
    "packets": Key("packets", integer(64, HOST)),
    "bytes": Key("bytes", integer(64, HOST)),
    "avgpkt": Key("avgpkt", integer(64, HOST)),
    "zone": Key("zone", integer(16, HOST), True),
    "event": Key("event", CT_EVENT, True),
    "secmark": Key("secmark", integer(32, HOST), True),
    "id": Key("id", CT_ID),
}
CT_ADDRESSES: dict[tuple[str, str], Key] = {
    ("saddr", "ip"): Key("src_ip", IPV4_ADDR),
    ("daddr", "ip"): Key("dst_ip", IPV4_ADDR),
    ("saddr", "ip6"): Key("src_ip6", IPV6_ADDR),
    ("daddr", "ip6"): Key("dst_ip6", IPV6_ADDR),
}
CT_NEED_DIRECTION = frozenset(("saddr", "daddr", "proto-src", "proto-dst"))

RT: dict[tuple[str, str | None], Key] = {
    ("classid", None): Key("classid", REALM),
    ("nexthop", "ip"): Key("nexthop4", IPV4_ADDR),
    ("nexthop", "ip6"): Key("nexthop6", IPV6_ADDR),
    ("mtu", None): Key("tcpmss", integer(16, HOST)),
    ("ipsec", None): Key("ipsec", BOOLEAN),
}

SOCKET: dict[str, Key] = {
    "transparent": Key("transparent", integer(1, HOST)),
    "mark": Key("mark", MARK),
    "wildcard": Key("wildcard", integer(1, HOST)),
    "cgroupv2": Key("cgroupv2", CGROUPV2),
}
SOCKET_MAX = {"transparent": 1, "wildcard": 1}

FIB: dict[str, Key] = {
    "oif": Key("oif", IFACE_INDEX),
    "oifname": Key("oifname", IFNAME),
    "type": Key("type", FIB_ADDR),
    "check": Key("oif", BOOLEAN),
}
FIB_FLAGS = ("saddr", "daddr", "mark", "iif", "oif")

XFRM: dict[tuple[str, str | None], Key] = {
    ("reqid", None): Key("reqid", integer(32, HOST)),
    ("spi", None): Key("spi", integer(32, BIG)),
    ("daddr", "ip"): Key("daddr4", IPV4_ADDR),
    ("daddr", "ip6"): Key("daddr6", IPV6_ADDR),
    ("saddr", "ip"): Key("saddr4", IPV4_ADDR),
    ("saddr", "ip6"): Key("saddr6", IPV6_ADDR),
}

TUNNEL: dict[str, Key] = {"path": Key("path", BOOLEAN), "id": Key("id", integer(32, HOST))}

OSF = string(128)
