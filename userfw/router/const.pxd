# C-level twin of const.py; tests/router/test_router_const.py compares the two.

cdef enum:
    # Route types (Linux: RTN_*)
    RTN_UNSPEC = 0
    RTN_UNICAST = 1
    RTN_LOCAL = 2
    RTN_BROADCAST = 3
    RTN_ANYCAST = 4
    RTN_MULTICAST = 5
    RTN_BLACKHOLE = 6
    RTN_UNREACHABLE = 7
    RTN_PROHIBIT = 8
    RTN_THROW = 9
    # Scopes of addresses and routes (Linux: RT_SCOPE_*)
    SCOPE_UNIVERSE = 0
    SCOPE_SITE = 200
    SCOPE_LINK = 253
    SCOPE_HOST = 254
    SCOPE_NOWHERE = 255
    # Routing tables (Linux: RT_TABLE_*)
    TABLE_DEFAULT = 253
    TABLE_MAIN = 254
    TABLE_LOCAL = 255
    # Neighbour states (Linux: NUD_*)
    NUD_NONE = 0
    NUD_INCOMPLETE = 1
    NUD_REACHABLE = 2
    NUD_STALE = 4
    NUD_DELAY = 8
    NUD_PROBE = 16
    NUD_FAILED = 32
    NUD_NOARP = 64
    NUD_PERMANENT = 128
    NUD_CONNECTED = 194
    NUD_VALID = 222
    # What a new link-layer address may do to a known one (Linux: NEIGH_UPDATE_F_OVERRIDE, NEIGH_UPDATE_F_WEAK_OVERRIDE)
    OVERRIDE_NO = 0
    OVERRIDE_YES = 1
    OVERRIDE_WEAK = 2
    # ICMP (RFC 792, RFC 1812)
    ICMP_ECHOREPLY = 0
    ICMP_DEST_UNREACH = 3
    ICMP_REDIRECT = 5
    ICMP_ECHO = 8
    ICMP_TIME_EXCEEDED = 11
    ICMP_PARAMETERPROB = 12
    ICMP_TIMESTAMP = 13
    ICMP_TIMESTAMPREPLY = 14
    ICMP_NET_UNREACH = 0
    ICMP_HOST_UNREACH = 1
    ICMP_PROT_UNREACH = 2
    ICMP_PORT_UNREACH = 3
    ICMP_FRAG_NEEDED = 4
    ICMP_SR_FAILED = 5
    ICMP_PKT_FILTERED = 13
    ICMP_EXC_TTL = 0
    ICMP_EXC_FRAGTIME = 1
    # ICMPv6 (RFC 4443, RFC 4861)
    ICMPV6_DEST_UNREACH = 1
    ICMPV6_PKT_TOOBIG = 2
    ICMPV6_TIME_EXCEED = 3
    ICMPV6_PARAMPROB = 4
    ICMPV6_ECHO_REQUEST = 128
    ICMPV6_ECHO_REPLY = 129
    ICMPV6_NOROUTE = 0
    ICMPV6_ADM_PROHIBITED = 1
    ICMPV6_NOT_NEIGHBOUR = 2
    ICMPV6_ADDR_UNREACH = 3
    ICMPV6_PORT_UNREACH = 4
    ICMPV6_EXC_HOPLIMIT = 0
    ICMPV6_EXC_FRAGTIME = 1
    ICMPV6_HDR_FIELD = 0
    ICMPV6_UNK_NEXTHDR = 1
    ICMPV6_UNK_OPTION = 2
    ICMPV6_HDR_INCOMP = 3
    NDISC_RS = 133
    NDISC_RA = 134
    NDISC_NS = 135
    NDISC_NA = 136
    NDISC_REDIRECT = 137
    # ARP (RFC 826)
    ARPOP_REQUEST = 1
    ARPOP_REPLY = 2
    # IPv4 fragment field (RFC 791)
    IP_DF = 0x4000
    IP_MF = 0x2000
    IP_OFFSET = 0x1FFF
    IPV6_MIN_MTU = 1280
    # Who gathers fragments: those of one packet for different users are different queues (Linux: enum ip_defrag_users)
    USER_LOCAL = 0
    USER_IN = 1
    USER_OUT = 2
    # What Packet.ip_options remembers above the offset up to which options were read (Linux: struct ip_options)
    OPT_CHANGED = 0x100
    OPT_RR_ADDR = 0x200
    OPT_TS_ADDR = 0x400
    OPT_TS_TIME = 0x800
