"""Keys of loads that are no header fields: meta, ct, rt, socket, fib, osf, ipsec, tunnel.

Laws:
- A ``Key`` gives the kernel's number for the key and the data type (with width and byte order) of what is loaded.
- ``settable`` keys may stand left of ``set``.
"""

from __future__ import annotations

from typing import NamedTuple

from userfw.engine import const as nf
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
    """Kernel number, data type of the value, whether ``set`` may write it."""

    number: int
    dtype: Datatype
    settable: bool = False


META: dict[str, Key] = {
    "length": Key(nf.META_LEN, integer(32, HOST)),
    "protocol": Key(nf.META_PROTOCOL, ETHER_TYPE),
    "priority": Key(nf.META_PRIORITY, TC_HANDLE, True),
    "mark": Key(nf.META_MARK, MARK, True),
    "iif": Key(nf.META_IIF, IFACE_INDEX),
    "oif": Key(nf.META_OIF, IFACE_INDEX),
    "iifname": Key(nf.META_IIFNAME, IFNAME),
    "oifname": Key(nf.META_OIFNAME, IFNAME),
    "iiftype": Key(nf.META_IIFTYPE, IFACE_TYPE),
    "oiftype": Key(nf.META_OIFTYPE, IFACE_TYPE),
    "skuid": Key(nf.META_SKUID, UID),
    "skgid": Key(nf.META_SKGID, GID),
    "nftrace": Key(nf.META_NFTRACE, integer(1, HOST), True),
    "rtclassid": Key(nf.META_RTCLASSID, REALM),
    "secmark": Key(nf.META_SECMARK, integer(32, HOST), True),
    "nfproto": Key(nf.META_NFPROTO, NF_PROTO),
    "l4proto": Key(nf.META_L4PROTO, INET_PROTO),
    "ibrname": Key(nf.META_BRI_IIFNAME, IFNAME),
    "obrname": Key(nf.META_BRI_OIFNAME, IFNAME),
    "pkttype": Key(nf.META_PKTTYPE, PKT_TYPE, True),
    "cpu": Key(nf.META_CPU, integer(32, HOST)),
    "iifgroup": Key(nf.META_IIFGROUP, DEVGROUP),
    "oifgroup": Key(nf.META_OIFGROUP, DEVGROUP),
    "cgroup": Key(nf.META_CGROUP, integer(32, HOST)),
    "random": Key(nf.META_PRANDOM, integer(32, BIG)),
    "ipsec": Key(nf.META_SECPATH, BOOLEAN),
    "iifkind": Key(nf.META_IIFKIND, IFNAME),
    "oifkind": Key(nf.META_OIFKIND, IFNAME),
    "ibrpvid": Key(nf.META_BRI_IIFPVID, integer(16, HOST)),
    "ibrvproto": Key(nf.META_BRI_IIFVPROTO, ETHER_TYPE),
    "time": Key(nf.META_TIME_NS, DATE),
    "day": Key(nf.META_TIME_DAY, DAY),
    "hour": Key(nf.META_TIME_HOUR, HOUR),
    "sdif": Key(nf.META_SDIF, IFACE_INDEX),
    "sdifname": Key(nf.META_SDIFNAME, IFNAME),
    "broute": Key(nf.META_BRI_BROUTE, integer(1, HOST), True),
    "ibrhwaddr": Key(nf.META_BRI_IIFHWADDR, ETHER_ADDR),
}

CT: dict[str, Key] = {
    "state": Key(nf.CT_KEY_STATE, CT_STATE),
    "direction": Key(nf.CT_KEY_DIRECTION, CT_DIR),
    "status": Key(nf.CT_KEY_STATUS, CT_STATUS),
    "mark": Key(nf.CT_KEY_MARK, MARK, True),
    "expiration": Key(nf.CT_KEY_EXPIRATION, TIME),
    "helper": Key(nf.CT_KEY_HELPER, string(128)),
    "l3proto": Key(nf.CT_KEY_L3PROTOCOL, NF_PROTO),
    "saddr": Key(nf.CT_KEY_SRC, integer(0)),
    "daddr": Key(nf.CT_KEY_DST, integer(0)),
    "protocol": Key(nf.CT_KEY_PROTOCOL, INET_PROTO),
    "proto-src": Key(nf.CT_KEY_PROTO_SRC, INET_SERVICE),
    "proto-dst": Key(nf.CT_KEY_PROTO_DST, INET_SERVICE),
    "label": Key(nf.CT_KEY_LABELS, CT_LABEL, True),
    "packets": Key(nf.CT_KEY_PKTS, integer(64, HOST)),
    "bytes": Key(nf.CT_KEY_BYTES, integer(64, HOST)),
    "avgpkt": Key(nf.CT_KEY_AVGPKT, integer(64, HOST)),
    "zone": Key(nf.CT_KEY_ZONE, integer(16, HOST), True),
    "event": Key(nf.CT_KEY_EVENTMASK, CT_EVENT, True),
    "secmark": Key(nf.CT_KEY_SECMARK, integer(32, HOST), True),
    "id": Key(nf.CT_KEY_ID, CT_ID),
}
CT_ADDRESSES: dict[tuple[str, str], Key] = {
    ("saddr", "ip"): Key(nf.CT_KEY_SRC_IP, IPV4_ADDR),
    ("daddr", "ip"): Key(nf.CT_KEY_DST_IP, IPV4_ADDR),
    ("saddr", "ip6"): Key(nf.CT_KEY_SRC_IP6, IPV6_ADDR),
    ("daddr", "ip6"): Key(nf.CT_KEY_DST_IP6, IPV6_ADDR),
}
CT_NEED_DIRECTION = frozenset(("saddr", "daddr", "proto-src", "proto-dst"))

RT: dict[tuple[str, str | None], Key] = {
    ("classid", None): Key(nf.RT_CLASSID, REALM),
    ("nexthop", "ip"): Key(nf.RT_NEXTHOP4, IPV4_ADDR),
    ("nexthop", "ip6"): Key(nf.RT_NEXTHOP6, IPV6_ADDR),
    ("mtu", None): Key(nf.RT_TCPMSS, integer(16, HOST)),
    ("ipsec", None): Key(nf.RT_XFRM, BOOLEAN),
}

SOCKET: dict[str, Key] = {
    "transparent": Key(nf.SOCKET_TRANSPARENT, integer(8, HOST)),
    "mark": Key(nf.SOCKET_MARK, MARK),
    "wildcard": Key(nf.SOCKET_WILDCARD, integer(8, HOST)),
    "cgroupv2": Key(nf.SOCKET_CGROUPV2, CGROUPV2),
}
SOCKET_MAX = {"transparent": 1, "wildcard": 1}

FIB: dict[str, Key] = {
    "oif": Key(nf.FIB_OIF, IFACE_INDEX),
    "oifname": Key(nf.FIB_OIFNAME, IFNAME),
    "type": Key(nf.FIB_ADDRTYPE, FIB_ADDR),
    "check": Key(nf.FIB_OIF, BOOLEAN),
}
FIB_FLAGS = {
    "saddr": nf.FIB_F_SADDR, "daddr": nf.FIB_F_DADDR, "mark": nf.FIB_F_MARK, "iif": nf.FIB_F_IIF, "oif": nf.FIB_F_OIF,
}  # fmt: skip

XFRM: dict[tuple[str, str | None], Key] = {
    ("reqid", None): Key(5, integer(32, HOST)),
    ("spi", None): Key(6, integer(32, BIG)),
    ("daddr", "ip"): Key(1, IPV4_ADDR),
    ("daddr", "ip6"): Key(2, IPV6_ADDR),
    ("saddr", "ip"): Key(3, IPV4_ADDR),
    ("saddr", "ip6"): Key(4, IPV6_ADDR),
}

TUNNEL: dict[str, Key] = {"path": Key(0, BOOLEAN), "id": Key(1, integer(32, BIG))}

OSF = string(128)
