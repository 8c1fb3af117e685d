"""Numbers of the router: route types and scopes, neighbour states, ICMP types, and Linux's default limits.

`const.pxd` is the C-level twin; tests/router/test_router_const.py compares the two. Sources: rtnetlink(7), linux/neighbour.h,
linux/icmp.h, linux/icmpv6.h, ip-sysctl.rst.
"""

from typing import Final

# Route types (Linux: RTN_*)
RTN_UNSPEC: Final = 0
RTN_UNICAST: Final = 1
RTN_LOCAL: Final = 2
RTN_BROADCAST: Final = 3
RTN_ANYCAST: Final = 4
RTN_MULTICAST: Final = 5
RTN_BLACKHOLE: Final = 6
RTN_UNREACHABLE: Final = 7
RTN_PROHIBIT: Final = 8
RTN_THROW: Final = 9

# Scopes of addresses and routes (Linux: RT_SCOPE_*)
SCOPE_UNIVERSE: Final = 0
SCOPE_SITE: Final = 200
SCOPE_LINK: Final = 253
SCOPE_HOST: Final = 254
SCOPE_NOWHERE: Final = 255

# Routing tables (Linux: RT_TABLE_*)
TABLE_DEFAULT: Final = 253
TABLE_MAIN: Final = 254
TABLE_LOCAL: Final = 255

# Neighbour states (Linux: NUD_*)
NUD_NONE: Final = 0
NUD_INCOMPLETE: Final = 1
NUD_REACHABLE: Final = 2
NUD_STALE: Final = 4
NUD_DELAY: Final = 8
NUD_PROBE: Final = 16
NUD_FAILED: Final = 32
NUD_NOARP: Final = 64
NUD_PERMANENT: Final = 128
NUD_CONNECTED: Final = 194
NUD_VALID: Final = 222

# What a new link-layer address may do to a known one (Linux: NEIGH_UPDATE_F_OVERRIDE, NEIGH_UPDATE_F_WEAK_OVERRIDE)
OVERRIDE_NO: Final = 0
OVERRIDE_YES: Final = 1
OVERRIDE_WEAK: Final = 2

# ICMP (RFC 792, RFC 1812)
ICMP_ECHOREPLY: Final = 0
ICMP_DEST_UNREACH: Final = 3
ICMP_REDIRECT: Final = 5
ICMP_ECHO: Final = 8
ICMP_TIME_EXCEEDED: Final = 11
ICMP_PARAMETERPROB: Final = 12
ICMP_TIMESTAMP: Final = 13
ICMP_TIMESTAMPREPLY: Final = 14
ICMP_NET_UNREACH: Final = 0
ICMP_HOST_UNREACH: Final = 1
ICMP_PROT_UNREACH: Final = 2
ICMP_PORT_UNREACH: Final = 3
ICMP_FRAG_NEEDED: Final = 4
ICMP_SR_FAILED: Final = 5
ICMP_PKT_FILTERED: Final = 13
ICMP_EXC_TTL: Final = 0
ICMP_EXC_FRAGTIME: Final = 1

# ICMPv6 (RFC 4443, RFC 4861)
ICMPV6_DEST_UNREACH: Final = 1
ICMPV6_PKT_TOOBIG: Final = 2
ICMPV6_TIME_EXCEED: Final = 3
ICMPV6_PARAMPROB: Final = 4
ICMPV6_ECHO_REQUEST: Final = 128
ICMPV6_ECHO_REPLY: Final = 129
ICMPV6_NOROUTE: Final = 0
ICMPV6_ADM_PROHIBITED: Final = 1
ICMPV6_NOT_NEIGHBOUR: Final = 2
ICMPV6_ADDR_UNREACH: Final = 3
ICMPV6_PORT_UNREACH: Final = 4
ICMPV6_EXC_HOPLIMIT: Final = 0
ICMPV6_EXC_FRAGTIME: Final = 1
ICMPV6_HDR_FIELD: Final = 0
ICMPV6_UNK_NEXTHDR: Final = 1
ICMPV6_UNK_OPTION: Final = 2
ICMPV6_HDR_INCOMP: Final = 3
NDISC_RS: Final = 133
NDISC_RA: Final = 134
NDISC_NS: Final = 135
NDISC_NA: Final = 136
NDISC_REDIRECT: Final = 137

# ARP (RFC 826)
ARPOP_REQUEST: Final = 1
ARPOP_REPLY: Final = 2

# IPv4 fragment field (RFC 791)
IP_DF: Final = 0x4000
IP_MF: Final = 0x2000
IP_OFFSET: Final = 0x1FFF
IPV6_MIN_MTU: Final = 1280

# Who gathers fragments: those of one packet for different users are different queues (Linux: enum ip_defrag_users)
USER_LOCAL: Final = 0
USER_IN: Final = 1
USER_OUT: Final = 2

# What Packet.ip_options remembers above the offset up to which options were read (Linux: struct ip_options)
OPT_CHANGED: Final = 0x100
OPT_RR_ADDR: Final = 0x200
OPT_TS_ADDR: Final = 0x400
OPT_TS_TIME: Final = 0x800
