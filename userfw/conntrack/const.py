"""Numbers of connection tracking: states, events, timeout indexes.

`const.pxd` is the C-level twin of this file; tests/conntrack/test_ct_const.py compares the two.
"""

from typing import Final

# TCP states (Linux: enum tcp_conntrack). MAX means invalid, IGNORE means let it pass and learn nothing.
TCP_NONE: Final = 0
TCP_SYN_SENT: Final = 1
TCP_SYN_RECV: Final = 2
TCP_ESTABLISHED: Final = 3
TCP_FIN_WAIT: Final = 4
TCP_CLOSE_WAIT: Final = 5
TCP_LAST_ACK: Final = 6
TCP_TIME_WAIT: Final = 7
TCP_CLOSE: Final = 8
TCP_SYN_SENT2: Final = 9
TCP_MAX: Final = 10
TCP_IGNORE: Final = 11
# Further rows of the TCP timeout table
TCP_T_RETRANS: Final = 10
TCP_T_UNACK: Final = 11
TCP_T_COUNT: Final = 12

# Events of the TCP state table (which flag decides)
TCP_EV_SYN: Final = 0
TCP_EV_SYNACK: Final = 1
TCP_EV_FIN: Final = 2
TCP_EV_ACK: Final = 3
TCP_EV_RST: Final = 4
TCP_EV_NONE: Final = 5

# Per-direction TCP flags (Linux: IP_CT_TCP_FLAG_*)
TCP_F_WINDOW_SCALE: Final = 1
TCP_F_SACK_PERM: Final = 2
TCP_F_CLOSE_INIT: Final = 4
TCP_F_BE_LIBERAL: Final = 8
TCP_F_DATA_UNACKNOWLEDGED: Final = 16
TCP_F_MAXACK_SET: Final = 32
TCP_F_CHALLENGE_ACK: Final = 64
TCP_F_SIMULTANEOUS_OPEN: Final = 128

# SCTP states (Linux: enum sctp_conntrack)
SCTP_NONE: Final = 0
SCTP_CLOSED: Final = 1
SCTP_COOKIE_WAIT: Final = 2
SCTP_COOKIE_ECHOED: Final = 3
SCTP_ESTABLISHED: Final = 4
SCTP_SHUTDOWN_SENT: Final = 5
SCTP_SHUTDOWN_RECD: Final = 6
SCTP_SHUTDOWN_ACK_SENT: Final = 7
SCTP_HEARTBEAT_SENT: Final = 8
SCTP_HEARTBEAT_ACKED: Final = 9
SCTP_MAX: Final = 10

# Two-state protocols: UDP, UDP-Lite, GRE
CT_UNREPLIED: Final = 0
CT_REPLIED: Final = 1

# Events (Linux: enum ip_conntrack_events), bit masks
CT_EVENT_NEW: Final = 1
CT_EVENT_RELATED: Final = 2
CT_EVENT_DESTROY: Final = 4
CT_EVENT_REPLY: Final = 8
CT_EVENT_ASSURED: Final = 16
CT_EVENT_PROTOINFO: Final = 32
CT_EVENT_HELPER: Final = 64
CT_EVENT_MARK: Final = 128
CT_EVENT_SEQADJ: Final = 256
CT_EVENT_SECMARK: Final = 512
CT_EVENT_LABEL: Final = 1024

# What a protocol's packet handler returns
CT_PKT_INVALID: Final = -1
CT_PKT_DROP: Final = 0
CT_PKT_ACCEPT: Final = 1
CT_PKT_REPEAT: Final = 4

# Status bits of 6.18 that core.const does not list
IPS_NAT_CLASH: Final = 65536
IPS_NAT_MASK: Final = 48
IPS_NAT_DONE_MASK: Final = 384
# Bits of a conn that its owner may set through the control socket (Linux: ~IPS_UNCHANGEABLE_MASK)
IPS_UNCHANGEABLE: Final = 56313

# A zone applies to these directions (bit 0 original, bit 1 reply)
ZONE_BOTH: Final = 3

# Rows of Settings.t, where each protocol's timeouts begin
T_TCP: Final = 0
T_SCTP: Final = 16
T_UDP: Final = 32
T_GRE: Final = 34
T_ICMP: Final = 36
T_ICMPV6: Final = 37
T_GENERIC: Final = 38
T_UDPLITE: Final = 40
T_COUNT: Final = 48

# Flags of an expectation (Linux: NF_CT_EXPECT_*)
EXPECT_PERMANENT: Final = 1
EXPECT_INACTIVE: Final = 2
EXPECT_USERSPACE: Final = 4
