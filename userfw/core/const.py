"""Numbers of the wire and of Linux that every room shares.

`const.pxd` is the C-level twin of this file; tests/core/test_const.py compares the two.
"""

from typing import Final

# Verdicts of a hook entry (Linux: include/uapi/linux/netfilter.h)
NF_DROP: Final = 0
NF_ACCEPT: Final = 1
NF_STOLEN: Final = 2
NF_QUEUE: Final = 3
NF_REPEAT: Final = 4

# Verdicts inside the rule machine (Linux: enum nft_verdicts)
NFT_CONTINUE: Final = -1
NFT_BREAK: Final = -2
NFT_JUMP: Final = -3
NFT_GOTO: Final = -4
NFT_RETURN: Final = -5

# Protocol families of tables and hooks (Linux: NFPROTO_*)
NFPROTO_UNSPEC: Final = 0
NFPROTO_INET: Final = 1
NFPROTO_IPV4: Final = 2
NFPROTO_ARP: Final = 3
NFPROTO_NETDEV: Final = 5
NFPROTO_BRIDGE: Final = 7
NFPROTO_IPV6: Final = 10

# Hooks of the inet families and of bridge; ARP_* and NETDEV_* number their own
NF_INET_PRE_ROUTING: Final = 0
NF_INET_LOCAL_IN: Final = 1
NF_INET_FORWARD: Final = 2
NF_INET_LOCAL_OUT: Final = 3
NF_INET_POST_ROUTING: Final = 4
NF_INET_INGRESS: Final = 5
NF_ARP_IN: Final = 0
NF_ARP_OUT: Final = 1
NF_ARP_FORWARD: Final = 2
NF_NETDEV_INGRESS: Final = 0
NF_NETDEV_EGRESS: Final = 1

# Hook priorities (Linux: enum nf_ip_hook_priorities)
NF_PRI_RAW_BEFORE_DEFRAG: Final = -450
NF_PRI_CONNTRACK_DEFRAG: Final = -400
NF_PRI_RAW: Final = -300
NF_PRI_CONNTRACK: Final = -200
NF_PRI_MANGLE: Final = -150
NF_PRI_NAT_DST: Final = -100
NF_PRI_FILTER: Final = 0
NF_PRI_SECURITY: Final = 50
NF_PRI_NAT_SRC: Final = 100
NF_PRI_CONNTRACK_HELPER: Final = 300
NF_PRI_CONNTRACK_CONFIRM: Final = 2147483647

# EtherTypes (IEEE 802 numbers)
ETH_P_IP: Final = 0x800
ETH_P_ARP: Final = 0x806
ETH_P_8021Q: Final = 0x8100
ETH_P_IPV6: Final = 0x86dd
ETH_P_8021AD: Final = 0x88a8
ETH_P_PPP_SES: Final = 0x8864
ETH_P_ALL: Final = 0x3

# IP protocol numbers (IANA)
IPPROTO_HOPOPTS: Final = 0
IPPROTO_ICMP: Final = 1
IPPROTO_IGMP: Final = 2
IPPROTO_IPIP: Final = 4
IPPROTO_TCP: Final = 6
IPPROTO_UDP: Final = 17
IPPROTO_DCCP: Final = 33
IPPROTO_IPV6: Final = 41
IPPROTO_ROUTING: Final = 43
IPPROTO_FRAGMENT: Final = 44
IPPROTO_GRE: Final = 47
IPPROTO_ESP: Final = 50
IPPROTO_AH: Final = 51
IPPROTO_ICMPV6: Final = 58
IPPROTO_NONE: Final = 59
IPPROTO_DSTOPTS: Final = 60
IPPROTO_SCTP: Final = 132
IPPROTO_MH: Final = 135
IPPROTO_UDPLITE: Final = 136

# Packet types by link-layer destination (Linux: include/uapi/linux/if_packet.h)
PACKET_HOST: Final = 0
PACKET_BROADCAST: Final = 1
PACKET_MULTICAST: Final = 2
PACKET_OTHERHOST: Final = 3
PACKET_OUTGOING: Final = 4
PACKET_LOOPBACK: Final = 5

# Device types (Linux: include/uapi/linux/if_arp.h)
ARPHRD_ETHER: Final = 1
ARPHRD_LOOPBACK: Final = 772
ARPHRD_NONE: Final = 65534

# TCP flags (RFC 9293)
TCP_FIN: Final = 1
TCP_SYN: Final = 2
TCP_RST: Final = 4
TCP_PSH: Final = 8
TCP_ACK: Final = 16
TCP_URG: Final = 32
TCP_ECE: Final = 64
TCP_CWR: Final = 128

# virtio-net header (virtio 1.2, 5.1.6): flags and GSO types
VNET_F_NEEDS_CSUM: Final = 1
VNET_F_DATA_VALID: Final = 2
VNET_GSO_NONE: Final = 0
VNET_GSO_TCPV4: Final = 1
VNET_GSO_UDP: Final = 3
VNET_GSO_TCPV6: Final = 4
VNET_GSO_UDP_L4: Final = 5
VNET_GSO_ECN: Final = 128

# Conntrack: state of the connection seen from a packet (Linux: enum ip_conntrack_info); bit numbers of nft's ct state
CT_NONE: Final = 0
CT_NEW: Final = 1
CT_ESTABLISHED: Final = 2
CT_RELATED: Final = 3
CT_UNTRACKED: Final = 4
CT_INVALID: Final = 5
CT_DIR_ORIGINAL: Final = 0
CT_DIR_REPLY: Final = 1

# nft's ct state bits (Linux: NF_CT_STATE_BIT)
CT_BIT_INVALID: Final = 1
CT_BIT_ESTABLISHED: Final = 2
CT_BIT_RELATED: Final = 4
CT_BIT_NEW: Final = 8
CT_BIT_UNTRACKED: Final = 64

# Conntrack status bits (Linux: enum ip_conntrack_status)
IPS_EXPECTED: Final = 1
IPS_SEEN_REPLY: Final = 2
IPS_ASSURED: Final = 4
IPS_CONFIRMED: Final = 8
IPS_SRC_NAT: Final = 16
IPS_DST_NAT: Final = 32
IPS_SEQ_ADJUST: Final = 64
IPS_SRC_NAT_DONE: Final = 128
IPS_DST_NAT_DONE: Final = 256
IPS_DYING: Final = 512
IPS_FIXED_TIMEOUT: Final = 1024
IPS_TEMPLATE: Final = 2048
IPS_UNTRACKED: Final = 4096
IPS_HELPER: Final = 8192
IPS_OFFLOAD: Final = 16384
IPS_HW_OFFLOAD: Final = 32768

# NAT manipulation and range flags (Linux: include/uapi/linux/netfilter/nf_nat.h)
NAT_MANIP_SRC: Final = 0
NAT_MANIP_DST: Final = 1
NAT_RANGE_MAP_IPS: Final = 1
NAT_RANGE_PROTO_SPECIFIED: Final = 2
NAT_RANGE_PROTO_RANDOM: Final = 4
NAT_RANGE_PERSISTENT: Final = 8
NAT_RANGE_PROTO_RANDOM_FULLY: Final = 16
NAT_RANGE_PROTO_OFFSET: Final = 32
NAT_RANGE_NETMAP: Final = 64

# Packet buffer
HEADROOM: Final = 128
MAX_FRAME: Final = 65600
NSEC_PER_SEC: Final = 1000000000
U32_MASK: Final = 0xFFFFFFFF
