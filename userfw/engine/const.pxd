# C-level twin of const.py; tests/engine/test_const.py compares the two.

cdef enum:
    # Register file: 16 registers of 4 bytes (Linux: enum nft_registers)
    NFT_REG_VERDICT = 0
    REG_BYTES = 64
    JUMP_STACK = 16
    # Comparison operators (Linux: enum nft_cmp_ops)
    CMP_EQ = 0
    CMP_NEQ = 1
    CMP_LT = 2
    CMP_LTE = 3
    CMP_GT = 4
    CMP_GTE = 5
    # Payload bases (Linux: enum nft_payload_bases)
    BASE_LINK = 0
    BASE_NETWORK = 1
    BASE_TRANSPORT = 2
    BASE_INNER = 3
    BASE_TUNNEL = 4
    # Payload checksum types and flags
    CSUM_NONE = 0
    CSUM_INET = 1
    CSUM_SCTP = 2
    CSUM_L4_PSEUDOHDR = 1
    # Extension header kinds (Linux: enum nft_exthdr_op)
    EXTHDR_IPV6 = 0
    EXTHDR_TCPOPT = 1
    EXTHDR_IPV4 = 2
    EXTHDR_SCTP = 3
    EXTHDR_DCCP = 4
    # Meta keys (Linux: enum nft_meta_keys)
    META_LEN = 0
    META_PROTOCOL = 1
    META_PRIORITY = 2
    META_MARK = 3
    META_IIF = 4
    META_OIF = 5
    META_IIFNAME = 6
    META_OIFNAME = 7
    META_IIFTYPE = 8
    META_OIFTYPE = 9
    META_SKUID = 10
    META_SKGID = 11
    META_NFTRACE = 12
    META_RTCLASSID = 13
    META_SECMARK = 14
    META_NFPROTO = 15
    META_L4PROTO = 16
    META_BRI_IIFNAME = 17
    META_BRI_OIFNAME = 18
    META_PKTTYPE = 19
    META_CPU = 20
    META_IIFGROUP = 21
    META_OIFGROUP = 22
    META_CGROUP = 23
    META_PRANDOM = 24
    META_SECPATH = 25
    META_IIFKIND = 26
    META_OIFKIND = 27
    META_BRI_IIFPVID = 28
    META_BRI_IIFVPROTO = 29
    META_TIME_NS = 30
    META_TIME_DAY = 31
    META_TIME_HOUR = 32
    META_SDIF = 33
    META_SDIFNAME = 34
    META_BRI_BROUTE = 35
    META_BRI_IIFHWADDR = 37
    # Conntrack keys (Linux: enum nft_ct_keys)
    CT_KEY_STATE = 0
    CT_KEY_DIRECTION = 1
    CT_KEY_STATUS = 2
    CT_KEY_MARK = 3
    CT_KEY_SECMARK = 4
    CT_KEY_EXPIRATION = 5
    CT_KEY_HELPER = 6
    CT_KEY_L3PROTOCOL = 7
    CT_KEY_SRC = 8
    CT_KEY_DST = 9
    CT_KEY_PROTOCOL = 10
    CT_KEY_PROTO_SRC = 11
    CT_KEY_PROTO_DST = 12
    CT_KEY_LABELS = 13
    CT_KEY_PKTS = 14
    CT_KEY_BYTES = 15
    CT_KEY_AVGPKT = 16
    CT_KEY_ZONE = 17
    CT_KEY_EVENTMASK = 18
    CT_KEY_SRC_IP = 19
    CT_KEY_DST_IP = 20
    CT_KEY_SRC_IP6 = 21
    CT_KEY_DST_IP6 = 22
    CT_KEY_ID = 23
    # Route keys (Linux: enum nft_rt_keys)
    RT_CLASSID = 0
    RT_NEXTHOP4 = 1
    RT_NEXTHOP6 = 2
    RT_TCPMSS = 3
    RT_XFRM = 4
    # Socket keys (Linux: enum nft_socket_keys)
    SOCKET_TRANSPARENT = 0
    SOCKET_MARK = 1
    SOCKET_WILDCARD = 2
    SOCKET_CGROUPV2 = 3
    # fib results and flags (Linux: enum nft_fib_result, nft_fib_flags)
    FIB_OIF = 1
    FIB_OIFNAME = 2
    FIB_ADDRTYPE = 3
    FIB_F_SADDR = 1
    FIB_F_DADDR = 2
    FIB_F_MARK = 4
    FIB_F_IIF = 8
    FIB_F_OIF = 16
    FIB_F_PRESENT = 32
    # Route types as fib type gives them (Linux: rtnetlink.h)
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
    RTN_NAT = 10
    RTN_XRESOLVE = 11
    # Object types (Linux: NFT_OBJECT_*)
    OBJ_COUNTER = 1
    OBJ_QUOTA = 2
    OBJ_CT_HELPER = 3
    OBJ_LIMIT = 4
    OBJ_CONNLIMIT = 5
    OBJ_TUNNEL = 6
    OBJ_CT_TIMEOUT = 7
    OBJ_SECMARK = 8
    OBJ_CT_EXPECT = 9
    OBJ_SYNPROXY = 10
    # Set flags (Linux: enum nft_set_flags) and element flags
    SET_ANONYMOUS = 1
    SET_CONSTANT = 2
    SET_INTERVAL = 4
    SET_MAP = 8
    SET_TIMEOUT = 16
    SET_EVAL = 32
    SET_OBJECT = 64
    SET_CONCAT = 128
    SET_EXPR = 256
    ELEM_INTERVAL_END = 1
    ELEM_CATCHALL = 2
    # Dynamic set operations (Linux: enum nft_dynset_ops)
    DYNSET_ADD = 0
    DYNSET_UPDATE = 1
    DYNSET_DELETE = 2
    # Reject types and icmpx codes (Linux: enum nft_reject_types)
    REJECT_ICMP_UNREACH = 0
    REJECT_TCP_RST = 1
    REJECT_ICMPX_UNREACH = 2
    # Chain types
    CHAIN_FILTER = 0
    CHAIN_ROUTE = 1
    CHAIN_NAT = 2
    # Trace events
    TRACE_RULE = 1
    TRACE_RETURN = 2
    TRACE_POLICY = 3
    # Queue flags
    QUEUE_BYPASS = 1
    QUEUE_FANOUT = 2
    # Log flags (Linux: nf_log.h)
    LOG_TCPSEQ = 1
    LOG_TCPOPT = 2
    LOG_IPOPT = 4
    LOG_UID = 8
    LOG_NFLOG = 16
    LOG_MACDECODE = 32
    # Tunnel kinds of inner (Linux: enum nft_inner_type)
    INNER_VXLAN = 1
    INNER_GENEVE = 2
    INNER_GRE = 3
    INNER_GRETAP = 4
    INNER_HDRSIZE = 1
    INNER_LL = 2
    INNER_NH = 4
    INNER_TH = 8
    # Synproxy options (Linux: nf_synproxy.h)
    SYNPROXY_MSS = 1
    SYNPROXY_WSCALE = 2
    SYNPROXY_SACK_PERM = 4
    SYNPROXY_TIMESTAMP = 8
    SYNPROXY_ECN = 16

cdef extern from *:
    """
    #define U32_MASK 0xFFFFFFFFULL
    #define JHASH_INITVAL 0xDEADBEEFU
    """
    const unsigned long long U32_MASK
    const unsigned int JHASH_INITVAL
