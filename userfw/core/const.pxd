# C-level twin of const.py; tests/core/test_const.py compares the two.

cdef enum:
    # Verdicts of a hook entry (Linux: include/uapi/linux/netfilter.h)
    NF_DROP = 0
    NF_ACCEPT = 1
    NF_STOLEN = 2
    NF_QUEUE = 3
    NF_REPEAT = 4
    # Verdicts inside the rule machine (Linux: enum nft_verdicts)
    NFT_CONTINUE = -1
    NFT_BREAK = -2
    NFT_JUMP = -3
    NFT_GOTO = -4
    NFT_RETURN = -5
    # Protocol families of tables and hooks (Linux: NFPROTO_*)
    NFPROTO_UNSPEC = 0
    NFPROTO_INET = 1
    NFPROTO_IPV4 = 2
    NFPROTO_ARP = 3
    NFPROTO_NETDEV = 5
    NFPROTO_BRIDGE = 7
    NFPROTO_IPV6 = 10
    # Hooks of the inet families and of bridge; ARP_* and NETDEV_* number their own
    NF_INET_PRE_ROUTING = 0
    NF_INET_LOCAL_IN = 1
    NF_INET_FORWARD = 2
    NF_INET_LOCAL_OUT = 3
    NF_INET_POST_ROUTING = 4
    NF_INET_INGRESS = 5
    NF_ARP_IN = 0
    NF_ARP_OUT = 1
    NF_ARP_FORWARD = 2
    NF_NETDEV_INGRESS = 0
    NF_NETDEV_EGRESS = 1
    # Hook priorities (Linux: enum nf_ip_hook_priorities)
    NF_PRI_RAW_BEFORE_DEFRAG = -450
    NF_PRI_CONNTRACK_DEFRAG = -400
    NF_PRI_RAW = -300
    NF_PRI_CONNTRACK = -200
    NF_PRI_MANGLE = -150
    NF_PRI_NAT_DST = -100
    NF_PRI_FILTER = 0
    NF_PRI_SECURITY = 50
    NF_PRI_NAT_SRC = 100
    NF_PRI_CONNTRACK_HELPER = 300
    NF_PRI_CONNTRACK_CONFIRM = 2147483647
    # EtherTypes (IEEE 802 numbers)
    ETH_P_IP = 0x800
    ETH_P_ARP = 0x806
    ETH_P_8021Q = 0x8100
    ETH_P_IPV6 = 0x86dd
    ETH_P_8021AD = 0x88a8
    ETH_P_PPP_SES = 0x8864
    ETH_P_ALL = 0x3
    # IP protocol numbers (IANA)
    IPPROTO_HOPOPTS = 0
    IPPROTO_ICMP = 1
    IPPROTO_IGMP = 2
    IPPROTO_IPIP = 4
    IPPROTO_TCP = 6
    IPPROTO_UDP = 17
    IPPROTO_DCCP = 33
    IPPROTO_IPV6 = 41
    IPPROTO_ROUTING = 43
    IPPROTO_FRAGMENT = 44
    IPPROTO_GRE = 47
    IPPROTO_ESP = 50
    IPPROTO_AH = 51
    IPPROTO_ICMPV6 = 58
    IPPROTO_NONE = 59
    IPPROTO_DSTOPTS = 60
    IPPROTO_SCTP = 132
    IPPROTO_MH = 135
    IPPROTO_UDPLITE = 136
    # Packet types by link-layer destination (Linux: include/uapi/linux/if_packet.h)
    PACKET_HOST = 0
    PACKET_BROADCAST = 1
    PACKET_MULTICAST = 2
    PACKET_OTHERHOST = 3
    PACKET_OUTGOING = 4
    PACKET_LOOPBACK = 5
    # Device types (Linux: include/uapi/linux/if_arp.h)
    ARPHRD_ETHER = 1
    ARPHRD_LOOPBACK = 772
    ARPHRD_NONE = 65534
    # TCP flags (RFC 9293)
    TCP_FIN = 1
    TCP_SYN = 2
    TCP_RST = 4
    TCP_PSH = 8
    TCP_ACK = 16
    TCP_URG = 32
    TCP_ECE = 64
    TCP_CWR = 128
    # virtio-net header (virtio 1.2, 5.1.6): flags and GSO types
    VNET_F_NEEDS_CSUM = 1
    VNET_F_DATA_VALID = 2
    VNET_GSO_NONE = 0
    VNET_GSO_TCPV4 = 1
    VNET_GSO_UDP = 3
    VNET_GSO_TCPV6 = 4
    VNET_GSO_UDP_L4 = 5
    VNET_GSO_ECN = 128
    # Conntrack: state of the connection seen from a packet (Linux: enum ip_conntrack_info); bit numbers of nft's ct state
    CT_NONE = 0
    CT_NEW = 1
    CT_ESTABLISHED = 2
    CT_RELATED = 3
    CT_UNTRACKED = 4
    CT_INVALID = 5
    CT_DIR_ORIGINAL = 0
    CT_DIR_REPLY = 1
    # nft's ct state bits (Linux: NF_CT_STATE_BIT)
    CT_BIT_INVALID = 1
    CT_BIT_ESTABLISHED = 2
    CT_BIT_RELATED = 4
    CT_BIT_NEW = 8
    CT_BIT_UNTRACKED = 64
    # Conntrack status bits (Linux: enum ip_conntrack_status)
    IPS_EXPECTED = 1
    IPS_SEEN_REPLY = 2
    IPS_ASSURED = 4
    IPS_CONFIRMED = 8
    IPS_SRC_NAT = 16
    IPS_DST_NAT = 32
    IPS_SEQ_ADJUST = 64
    IPS_SRC_NAT_DONE = 128
    IPS_DST_NAT_DONE = 256
    IPS_DYING = 512
    IPS_FIXED_TIMEOUT = 1024
    IPS_TEMPLATE = 2048
    IPS_UNTRACKED = 4096
    IPS_HELPER = 8192
    IPS_OFFLOAD = 16384
    IPS_HW_OFFLOAD = 32768
    # NAT manipulation and range flags (Linux: include/uapi/linux/netfilter/nf_nat.h)
    NAT_MANIP_SRC = 0
    NAT_MANIP_DST = 1
    NAT_RANGE_MAP_IPS = 1
    NAT_RANGE_PROTO_SPECIFIED = 2
    NAT_RANGE_PROTO_RANDOM = 4
    NAT_RANGE_PERSISTENT = 8
    NAT_RANGE_PROTO_RANDOM_FULLY = 16
    NAT_RANGE_PROTO_OFFSET = 32
    NAT_RANGE_NETMAP = 64
    # Packet buffer
    HEADROOM = 128
    MAX_FRAME = 65600

# Of C's own width: `30 * NSEC_PER_SEC` does not overflow, and `x & U32_MASK` does not become a Python int as a literal beyond 31 bits does
cdef extern from *:
    """
    #define NSEC_PER_SEC 1000000000ULL
    #define U32_MASK 0xFFFFFFFFU
    """
    const unsigned long long NSEC_PER_SEC
    const unsigned int U32_MASK
