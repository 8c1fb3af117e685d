"""Numbers of the nf_tables machine, as in Linux include/uapi/linux/netfilter/nf_tables.h.

`const.pxd` is the C-level twin of this file; tests/engine/test_const.py compares the two.
"""

from typing import Final

# Register file: 16 registers of 4 bytes (Linux: enum nft_registers)
NFT_REG_VERDICT: Final = 0
REG_BYTES: Final = 64
JUMP_STACK: Final = 16

# Comparison operators (Linux: enum nft_cmp_ops)
CMP_EQ: Final = 0
CMP_NEQ: Final = 1
CMP_LT: Final = 2
CMP_LTE: Final = 3
CMP_GT: Final = 4
CMP_GTE: Final = 5

# Payload bases (Linux: enum nft_payload_bases)
BASE_LINK: Final = 0
BASE_NETWORK: Final = 1
BASE_TRANSPORT: Final = 2
BASE_INNER: Final = 3
BASE_TUNNEL: Final = 4

# Payload checksum types and flags
CSUM_NONE: Final = 0
CSUM_INET: Final = 1
CSUM_SCTP: Final = 2
CSUM_L4_PSEUDOHDR: Final = 1

# Extension header kinds (Linux: enum nft_exthdr_op)
EXTHDR_IPV6: Final = 0
EXTHDR_TCPOPT: Final = 1
EXTHDR_IPV4: Final = 2
EXTHDR_SCTP: Final = 3
EXTHDR_DCCP: Final = 4

# Meta keys (Linux: enum nft_meta_keys)
META_LEN: Final = 0
META_PROTOCOL: Final = 1
META_PRIORITY: Final = 2
META_MARK: Final = 3
META_IIF: Final = 4
META_OIF: Final = 5
META_IIFNAME: Final = 6
META_OIFNAME: Final = 7
META_IIFTYPE: Final = 8
META_OIFTYPE: Final = 9
META_SKUID: Final = 10
META_SKGID: Final = 11
META_NFTRACE: Final = 12
META_RTCLASSID: Final = 13
META_SECMARK: Final = 14
META_NFPROTO: Final = 15
META_L4PROTO: Final = 16
META_BRI_IIFNAME: Final = 17
META_BRI_OIFNAME: Final = 18
META_PKTTYPE: Final = 19
META_CPU: Final = 20
META_IIFGROUP: Final = 21
META_OIFGROUP: Final = 22
META_CGROUP: Final = 23
META_PRANDOM: Final = 24
META_SECPATH: Final = 25
META_IIFKIND: Final = 26
META_OIFKIND: Final = 27
META_BRI_IIFPVID: Final = 28
META_BRI_IIFVPROTO: Final = 29
META_TIME_NS: Final = 30
META_TIME_DAY: Final = 31
META_TIME_HOUR: Final = 32
META_SDIF: Final = 33
META_SDIFNAME: Final = 34
META_BRI_BROUTE: Final = 35
META_BRI_IIFHWADDR: Final = 37

# Conntrack keys (Linux: enum nft_ct_keys)
CT_KEY_STATE: Final = 0
CT_KEY_DIRECTION: Final = 1
CT_KEY_STATUS: Final = 2
CT_KEY_MARK: Final = 3
CT_KEY_SECMARK: Final = 4
CT_KEY_EXPIRATION: Final = 5
CT_KEY_HELPER: Final = 6
CT_KEY_L3PROTOCOL: Final = 7
CT_KEY_SRC: Final = 8
CT_KEY_DST: Final = 9
CT_KEY_PROTOCOL: Final = 10
CT_KEY_PROTO_SRC: Final = 11
CT_KEY_PROTO_DST: Final = 12
CT_KEY_LABELS: Final = 13
CT_KEY_PKTS: Final = 14
CT_KEY_BYTES: Final = 15
CT_KEY_AVGPKT: Final = 16
CT_KEY_ZONE: Final = 17
CT_KEY_EVENTMASK: Final = 18
CT_KEY_SRC_IP: Final = 19
CT_KEY_DST_IP: Final = 20
CT_KEY_SRC_IP6: Final = 21
CT_KEY_DST_IP6: Final = 22
CT_KEY_ID: Final = 23

# Route keys (Linux: enum nft_rt_keys)
RT_CLASSID: Final = 0
RT_NEXTHOP4: Final = 1
RT_NEXTHOP6: Final = 2
RT_TCPMSS: Final = 3
RT_XFRM: Final = 4

# Socket keys (Linux: enum nft_socket_keys)
SOCKET_TRANSPARENT: Final = 0
SOCKET_MARK: Final = 1
SOCKET_WILDCARD: Final = 2
SOCKET_CGROUPV2: Final = 3

# fib results and flags (Linux: enum nft_fib_result, nft_fib_flags)
FIB_OIF: Final = 1
FIB_OIFNAME: Final = 2
FIB_ADDRTYPE: Final = 3
FIB_F_SADDR: Final = 1
FIB_F_DADDR: Final = 2
FIB_F_MARK: Final = 4
FIB_F_IIF: Final = 8
FIB_F_OIF: Final = 16
FIB_F_PRESENT: Final = 32

# Route types as fib type gives them (Linux: rtnetlink.h)
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
RTN_NAT: Final = 10
RTN_XRESOLVE: Final = 11

# Object types (Linux: NFT_OBJECT_*)
OBJ_COUNTER: Final = 1
OBJ_QUOTA: Final = 2
OBJ_CT_HELPER: Final = 3
OBJ_LIMIT: Final = 4
OBJ_CONNLIMIT: Final = 5
OBJ_TUNNEL: Final = 6
OBJ_CT_TIMEOUT: Final = 7
OBJ_SECMARK: Final = 8
OBJ_CT_EXPECT: Final = 9
OBJ_SYNPROXY: Final = 10

# Set flags (Linux: enum nft_set_flags) and element flags
SET_ANONYMOUS: Final = 1
SET_CONSTANT: Final = 2
SET_INTERVAL: Final = 4
SET_MAP: Final = 8
SET_TIMEOUT: Final = 16
SET_EVAL: Final = 32
SET_OBJECT: Final = 64
SET_CONCAT: Final = 128
SET_EXPR: Final = 256
ELEM_INTERVAL_END: Final = 1
ELEM_CATCHALL: Final = 2

# Dynamic set operations (Linux: enum nft_dynset_ops)
DYNSET_ADD: Final = 0
DYNSET_UPDATE: Final = 1
DYNSET_DELETE: Final = 2

# Reject types and icmpx codes (Linux: enum nft_reject_types)
REJECT_ICMP_UNREACH: Final = 0
REJECT_TCP_RST: Final = 1
REJECT_ICMPX_UNREACH: Final = 2

# Chain types
CHAIN_FILTER: Final = 0
CHAIN_ROUTE: Final = 1
CHAIN_NAT: Final = 2

# Trace events
TRACE_RULE: Final = 1
TRACE_RETURN: Final = 2
TRACE_POLICY: Final = 3

# Queue flags
QUEUE_BYPASS: Final = 1
QUEUE_FANOUT: Final = 2

# Log flags (Linux: nf_log.h)
LOG_TCPSEQ: Final = 1
LOG_TCPOPT: Final = 2
LOG_IPOPT: Final = 4
LOG_UID: Final = 8
LOG_NFLOG: Final = 16
LOG_MACDECODE: Final = 32

# Tunnel kinds of inner (Linux: enum nft_inner_type)
INNER_VXLAN: Final = 1
INNER_GENEVE: Final = 2
INNER_GRE: Final = 3
INNER_GRETAP: Final = 4
INNER_HDRSIZE: Final = 1
INNER_LL: Final = 2
INNER_NH: Final = 4
INNER_TH: Final = 8

# Synproxy options (Linux: nf_synproxy.h)
SYNPROXY_MSS: Final = 1
SYNPROXY_WSCALE: Final = 2
SYNPROXY_SACK_PERM: Final = 4
SYNPROXY_TIMESTAMP: Final = 8
SYNPROXY_ECN: Final = 16

# Literals beyond 31 bits, which Cython would turn into Python objects (const.pxd defines them for C)
U32_MASK: Final = 0xFFFFFFFF
JHASH_INITVAL: Final = 0xDEADBEEF
