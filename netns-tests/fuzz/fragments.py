"""Statements for every operation of the machine, as nft text, from which rules are put together.

Laws
- `$PORT`, `$SOURCE`, `$A` (address of the rule's family), `$H` (a host), `$MARK`, `$NIC` and the like are drawn anew each time; `$F` is
  `ip` or `ip6`, `$f` the tables' own prefix of addresses.
- `l3`: where it needs IPv4 or IPv6 (`4`, `6`), ARP (`arp`), a netdev (`dev`) or a bridge (`br`) table, or goes for any (``). `l4`: the transport that is asked for first.
- `last`: the packet does not go on behind it, or not as it was; it meets one packet in three.
- `kind`: type of the chain (`filter`, `nat`, `route`). Declarations (sets, objects) come with what names them.
- `late`: spoils a checksum, so it stands where packets of others leave only: Linux's own host does not look again at a checksum
  that its conntrack found right.
- `early`: only before conntrack; behind it Linux has NAT chains look at the zone's template as if it were a connection.
- A statement that a place refuses is asked of the kernel once (`probe`) and not drawn there.
"""

# ruff: noqa: E501 (tables of nft text)

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from lab.families import EVERY

from . import pools
from .raw import RAW


@dataclass(frozen=True)
class Fragment:
    """One statement and what must stand before it."""

    text: str
    l3: str = ""
    l4: str = ""
    last: bool = False
    kind: str = "filter"
    weight: float = 1.0
    late: bool = False
    early: bool = False


def _all(*texts: str, **how: object) -> list[Fragment]:
    return [Fragment(text, **how) for text in texts]  # type: ignore[arg-type]


MATCHES = [
    *_all("meta length > 30", "meta length <= 100", "meta length >= 28", "meta length < 1000", "meta length 20-1400",
          "meta length != 40-50", "meta protocol != 0x1234", "meta mark $MARK", "meta mark != $MARK", "meta mark & 0xff == $BYTE",
          "meta mark and 0xf0 != 0x10", "meta mark 0-0xffff", "meta mark { 0-15, 0xff00 }", "meta mark != { 1, 2 }",
          "meta priority 0:0", "meta priority != 1:2", "meta priority none",
          'iif "$NIC"', 'iif != "$NIC"', 'oif "$NIC"', 'oif != "$NIC"', 'iifname "$NIC"', 'iifname != "l*"', 'iifname "*n"',
          'oifname "$NIC"', 'oifname != "w*"', 'iifname { "lan", "dmz", "edge" }', 'oifname != { "lan", "lo" }',
          "meta iiftype ether", "meta iiftype != loopback", "meta oiftype ether", "meta oiftype != loopback", "meta skuid 0",
          "meta skgid != 0", "meta nftrace 0", "meta rtclassid 0", "meta secmark 0", "meta pkttype host", "meta pkttype != multicast",
          "meta pkttype unicast", "meta cpu 0-63", "iifgroup 0", "iifgroup != 1", "oifgroup 0", "meta cgroup != 0",
          "meta random 0-0xffffffff", "meta ipsec missing", "meta ipsec exists", 'meta iifkind "veth"', 'meta oifkind != "veth"',
          "meta time > 1000", "meta day 0-6", 'meta day { "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday" }',
          'meta hour "00:00"-"23:59"', "meta sdif 0", 'meta sdifname "lan"', 'meta ibrname "br0"', 'meta obrname "br0"',
          "meta ibrpvid 1", "meta ibrvproto 0x8100", "meta l4proto { tcp, udp, icmp, ipv6-icmp }", "meta l4proto != 99",
          "meta l4proto > 5", "meta nfproto ipv4", "meta nfproto != ipv6"),
    *_all("ct state new", "ct state established,related", "ct state != invalid", "ct state untracked", "ct state { new, established }",
          "ct state & (new|established) != 0", "ct direction original", "ct direction reply", "ct direction != reply",
          "ct status assured", "ct status snat", "ct status & (seen-reply|confirmed) != 0", "ct status != expected",
          "ct mark $MARK", "ct mark != $MARK", "ct mark & 0x1 == 0", "ct mark 0-255", "ct status confirmed ct expiration > 1s",
          "ct status confirmed ct expiration != 0s-1s", 'ct helper "ftp"', 'ct helper != "ftp"', "ct zone 0", "ct zone != 1", "ct original zone 0",
          "ct reply zone 0", "ct label 1", "ct label != 1", "ct label & 2 == 0", "ct packets >= 0", "ct bytes > 10",
          "ct avgpkt > 10", "ct original packets < 3", "ct reply bytes 0", "ct reply avgpkt != 1", "ct id != 0", "ct secmark 0",
          "ct l3proto ipv4", "ct l3proto != ipv4", "ct protocol tcp", "ct protocol { udp, icmp }",
          "ct original protocol tcp", "ct reply protocol udp", "ct original l3proto ipv4"),
    *_all("ct original proto-dst $PORT", "ct reply proto-src != $PORT", "ct original proto-src 1-65535", "ct reply proto-dst 0-65535", l4="tcp"),
    *_all("ct original ip saddr $A", "ct reply ip daddr $A", "ct original ip daddr != $A", "ct reply ip saddr 192.168.0.0/16",
          "ct original saddr $A", "ct reply daddr != $A", l3="4"),
    *_all("ct original ip6 saddr $A", "ct reply ip6 daddr $A", "ct original ip6 daddr != $A", "ct reply ip6 saddr fd00::/16",
          "ct original saddr $A", "ct reply daddr != $A", l3="6"),
    *_all("ip saddr $A", "ip daddr != $A", "ip saddr 192.168.0.0/16", "ip daddr { $A, $A }", "ip saddr != { $A, 192.168.1.0/24 }",
          "ip daddr $A-255.255.255.254", "ip ttl > 1", "ip ttl != 64", "ip length 20-1400", "ip id 0x1234", "ip frag-off & 0x1fff == 0",
          "ip frag-off & 0x4000 != 0", "ip dscp cs0", "ip dscp != { cs1, ef }", "ip ecn not-ect", "ip version 4", "ip hdrlength 5",
          "ip hdrlength > 4", "ip protocol != 99", "ip checksum != 0", "ip saddr & 0.0.0.255 == 0.0.0.10",
          "ip option rr exists", "ip option ra missing", "ip option rr ptr 4", "ip option rr length 7", "ip option lsrr missing",
          "ip option ssrr exists", "ip option ra value 0", "ip saddr . ip daddr @pair4", "ip saddr . meta l4proto @range4",
          "ip daddr @interval4", "ip saddr @hash4", "ip daddr != @interval4", "ip saddr . ip daddr { $A . $A, $A . 192.168.0.0/16 }",
          "@nh,64,8 > 1", "@nh,12,4 != 1", "@ih,0,8 >= 0", "@ih,0,32 != 0xffffffff", l3="4"),
    *_all("ip6 saddr $A", "ip6 daddr != $A", "ip6 saddr fd00::/16", "ip6 daddr { $A, $A }", "ip6 saddr != { $A, fd00:1::/64 }",
          "ip6 daddr $A-ff00::", "ip6 hoplimit > 1", "ip6 length 0-1400", "ip6 dscp cs0", "ip6 ecn not-ect", "ip6 flowlabel 0-0x12345",
          "ip6 flowlabel 0", "ip6 version 6", "ip6 nexthdr != 99", "exthdr frag missing", "exthdr hbh exists", "exthdr dst missing",
          "exthdr rt missing", "exthdr mh missing", "hbh hdrlength 0", "hbh nexthdr tcp", "dst hdrlength != 1", "frag id != 1",
          "frag more-fragments 0", "frag frag-off 0", "frag nexthdr tcp", "rt type 0", "rt4 last-entry 0", "srh flags 0",
          "ip6 saddr . ip6 daddr @pair6", "ip6 saddr . meta l4proto @range6", "ip6 daddr @interval6", "ip6 saddr @hash6",
          "ip6 daddr != @interval6", "@nh,56,8 > 1", "@ih,0,8 >= 0", l3="6"),
    *_all("tcp dport $PORT", "tcp sport != $PORT", "tcp dport 1-1023", "tcp dport { $PORT, 1000-5000 }", "tcp dport != { $PORT, $PORT }",
          "tcp flags syn", "tcp flags & (fin|syn|rst|ack) == syn", "tcp flags { syn, ack }", "tcp flags != rst", "tcp flags syn / syn,ack",
          "tcp sequence > 999", "tcp ackseq 0-6000", "tcp window != 0", "tcp doff 5-15", "tcp urgptr 0", "tcp checksum != 1",
          "tcp option maxseg size 1-1460", "tcp option maxseg exists", "tcp option window count <= 14", "tcp option window missing",
          "tcp option sack-perm exists", "tcp option sack0 left 0-0xffffffff", "tcp option timestamp tsval >= 0",
          "tcp option timestamp missing", "tcp option sack exists", "tcp option eol missing", "tcp option nop exists",
          "tcp option maxseg kind 2", "tcp option 254 missing", "@th,0,16 $PORT", "@th,32,32 != 0", "tcp dport @ports",
          "tcp dport != @ports", "osf name \"Linux\"", "osf name \"unknown\"", "osf name != \"Windows\"", "osf ttl loose version \"Linux:3.0\"",
          l4="tcp"),
    *_all("udp dport $PORT", "udp sport != $PORT", "udp length 8-1500", "udp checksum != 0", "udp dport { 1-1000, $PORT }",
          "udp dport . udp sport { $PORT . $PORT, 1-65535 . 1-65535 }", "@th,16,16 != 0", "@ih,8,8 >= 0", l4="udp"),
    *_all("th dport $PORT", "th sport 1-65535", l4="udp"),
    *_all("icmp type echo-request", "icmp type != redirect", "icmp code 0-3", "icmp id $IDENT", "icmp sequence 1-3", "icmp mtu 0",
          "icmp checksum != 0", "icmp gateway 0-0xffffffff", l3="4", l4="icmp"),
    *_all("icmpv6 type echo-request", "icmpv6 type != packet-too-big", "icmpv6 code 0-3", "icmpv6 id $IDENT", "icmpv6 sequence 1-3",
          "icmpv6 mtu 0", "icmpv6 parameter-problem 0", l3="6", l4="icmpv6"),
    *_all("sctp sport 1-65535", "sctp dport $PORT", "sctp chunk data exists", "sctp chunk init missing", "sctp chunk data flags 3",
          "sctp vtag != 1", "sctp checksum != 0", l4="sctp"),
    *_all("dccp sport 1-65535", "dccp type request", "dccp type != data", "dccp option 1 exists", "dccp option 2 missing", l4="dccp"),
    *_all("esp spi != 1", l4="esp"), *_all("ah spi != 1", "ah hdrlength 0-255", l4="ah"), *_all("comp cpi != 1", l4="comp"),
    *_all("udplite dport 1-65535", "udplite checksum != 0", l4="udplite"),
    *_all("fib daddr type local", "fib daddr type != unicast", "fib daddr type { local, broadcast, multicast }", "fib saddr type unicast",
          "fib saddr oif 0", "fib saddr oif exists", "fib daddr oif missing", 'fib daddr oifname "$NIC"', 'fib saddr oifname != "$NIC"',
          "fib saddr . iif oif exists", "fib saddr . iif oif missing", "fib daddr . iif type local", "fib saddr . mark oif exists",
          "fib saddr . mark . iif oif != 0", "fib daddr . oif type unicast", "fib saddr . oif oif exists",
          'fib daddr . iif oifname ""', "fib daddr check exists", "fib saddr . iif check missing"),
    *_all("rt classid 0", "rt classid != 5", "rt ipsec missing", "rt mtu 1300-1500", "rt mtu > 100"),
    *_all("rt ip nexthop $A", "rt ip nexthop != $A", "rt nexthop $A", l3="4"), *_all("rt ip6 nexthop $A", "rt ip6 nexthop != $A", "rt nexthop $A", l3="6"),
    *_all("socket transparent 1", "socket mark 5", "socket wildcard 0",
          'socket cgroupv2 level 1 "x"', l4="tcp"),
    *_all("socket transparent 1", "socket mark 7", l4="udp"),
    *_all("ipsec in reqid 1", "ipsec out ip saddr 1.2.3.4", "ipsec in spi 1", "ipsec out spi 2"),
    *_all("vxlan vni 1", "vxlan vni != 1", "vxlan flags 8", "vxlan ip saddr 10.0.0.0/8", "vxlan ip daddr != 10.1.1.1", "vxlan ip ttl > 1", "vxlan ip6 saddr fd00::/8",
          "vxlan ether saddr 02:00:00:00:07:07", "vxlan ether type ip", "vxlan vlan id 5", "vxlan tcp dport { 80, 443, 1000-5000 }", "vxlan udp sport != 1", "vxlan icmp type echo-request",
          "vxlan ip saddr . vxlan ip daddr { 10.1.1.1 . 10.1.1.2, 10.1.1.2 . 10.1.1.1 }", "geneve vni 1", "geneve vni != 1", "geneve type 0x6558",
          "geneve ip saddr 10.1.1.1", "geneve ether daddr != 02:00:00:00:07:07", "geneve tcp sport 1-1023", "geneve udp dport $PORT", l4="udp"),
    *_all("gre ip saddr 10.1.1.1", "gre ip daddr != 10.1.1.1", "gre ip6 daddr fd00::/8", "gre tcp dport 1-1023", "gre udp sport != $PORT", "gre icmp type echo-request",
          "gre protocol ip", "gre flags 0", "gre version 0", "gretap ip saddr 10.1.1.1", "gretap ether type ip", "gretap udp dport != 1", l4="gre"),
    *_all(*(f'log prefix "raw {name}"' for name in RAW)),
    *_all("ip saddr & ip daddr == 192.168.0.0", "ip saddr ^ ip daddr != 0.0.0.0", "ip saddr | ip daddr > 1.1.1.1", l3="4"),
    *_all("tunnel path exists", "tunnel id 1"),
    *_all("@ll,96,16 0x0800", "@ll,0,48 != 0", "ether type ip", "ether saddr 02:00:00:00:01:10", "ether daddr != 02:00:00:00:01:10"),
    *_all("arp operation request", "arp operation != reply", "arp htype 1", "arp ptype 0x0800", "arp hlen 6", "arp plen 4",
          "arp saddr ip 192.168.0.0/16", "arp daddr ip != 10.0.0.1", "arp saddr ether != 00:00:00:00:00:01", "arp operation { request, reply }",
          "arp operation vmap { request : continue, reply : continue }", "@nh,0,16 1", "arp saddr ip . arp daddr ip { 0.0.0.0-255.255.255.255 . 1.0.0.0/8, 192.168.0.0/16 . 192.168.0.0/16 }",
          l3="arp"),
    *_all("vlan id 1", "vlan type ip"),
    *_all("ether daddr $MAC", "ether saddr $MAC", "ether daddr != { $MAC, $MAC, $MAC }", "ether saddr . ether daddr { $MAC . $MAC, $MAC . $MAC }",
          "ether daddr & 01:00:00:00:00:00 == 00:00:00:00:00:00", "ether type { ip, ip6, arp, 8021q }", "ether type vlan", "ether type < 0x600",
          "ether type != 0x88b5", "vlan id 5", "vlan id != 1-7", "vlan pcp 0-3", "vlan dei 0", "vlan type arp", "vlan type ip6",
          "meta pkttype broadcast", "meta pkttype != { broadcast, multicast }", "meta pkttype other", "meta protocol vlan", "meta protocol { arp, ip }",
          "ether saddr 02:00:00:00:00:00-02:00:00:00:06:ff", "@ll,0,8 & 1 == 0", "@ll,112,16 != 5", "@nh,0,8 0x45", "iifname . oifname { \"$NIC\" . \"$NIC\" }",
          "iif . ether saddr { \"$NIC\" . $MAC }", l3="br"),
    *_all("numgen inc mod 2 0", "numgen inc mod 3 offset 5 >= 5", "numgen random mod 1 0", "symhash mod 1 0", "symhash mod 1 offset 7 7"),
    *_all("jhash ip saddr mod 4 seed 0x2a 0-1", "jhash ip saddr . ip daddr mod 8 seed 0xdeadbeef offset 10 10-13", l3="4"),
    *_all("jhash ip6 saddr mod 4 seed 0x2a 0-1", "jhash ip6 saddr . ip6 daddr mod 8 seed 0xdeadbeef offset 10 10-13", l3="6"),
    *_all("limit rate 1/hour burst 3 packets", "limit rate over 1/day burst 2 packets", "limit rate 10/week burst 5 packets",
          "limit rate 1 bytes/hour burst 300 bytes", "limit rate over 1 bytes/day burst 200 bytes", "limit name lim",
          "quota 600 bytes", "quota over 200 bytes", "quota name q1", "ct count 100000", "ct count over 100000", "last",
          'limit name meta mark map { 0 : "lim", 1 : "lim" }'),
]

STATEMENTS = [
    *_all("counter name c1", 'counter name meta mark map { 0 : "c1", 1 : "c2" }', "meta mark set $MARK", "meta mark set meta mark and 0xff00",
          "meta mark set meta mark or 1", "meta mark set meta mark xor 0x10", "meta mark set ct mark", "meta mark set meta mark << 4",
          "meta mark set meta mark >> 1", "meta mark set ct mark or meta mark", "meta mark set ct mark and meta mark",
          "meta mark set ct mark xor meta mark", "meta mark set meta cpu and 0", "meta mark set numgen inc mod 4 offset 2",
          "meta mark set symhash mod 1 offset 9", "meta mark set meta iif", "meta mark set meta length", "meta priority set 1:2", "meta priority set meta mark",
          "meta pkttype set host", "meta nftrace set 1", "meta broute set 1", "meta mark set meta mark map { 0 : 1, 1 : 2, 2 : 0 }",
          "meta mark set meta protocol map { ip : 1, ip6 : 2, arp : 3 }", "meta mark set jhash meta mark mod 4 seed 1",
          "meta mark set jhash meta mark mod 4 seed 1 offset 3", "jhash meta mark mod 4 seed 0x1 0-3",
          "ct mark set $MARK", "ct mark set meta mark", "ct mark set ct mark or 0x100", "ct mark set ct mark and 0xff", "ct label set 1", "ct label set 5",
          "ct event set new,destroy", "ct secmark set meta secmark", "log", 'log prefix "x: "', "log level debug", "log group 5",
          "log flags all", "log flags tcp sequence,options flags ip options", 'log prefix "g" group 1 snaplen 10', "log level audit",
          'meta secmark set "sec1"', 'quota name meta mark map { 0 : "q1", 1 : "q1" }'),
    *_all('ct helper set "h1"', 'ct timeout set "t1"', 'ct expectation set "e1"', 'ct helper set tcp dport map { 21 : "h1", 80 : "h1" }', l4="tcp"),
    *_all("ct zone set 1", "ct zone set meta mark", "ct original zone set 2", "ct reply zone set 3", weight=0.5, early=True),
    Fragment("notrack", weight=0.5),
    *_all("add @dyn4 { ip saddr }", "update @dyn4 { ip saddr counter }", "delete @dyn4 { ip daddr }", "add @dynmap4 { ip saddr : 7 }",
          "add @dynlim4 { ip saddr limit rate over 1/hour burst 2 packets }", "add @dynquota4 { ip saddr quota over 200 bytes }",
          "add @dyncount4 { ip saddr ct count 100000 }", "add @dynlast4 { ip saddr last }", "update @dynto4 { ip saddr timeout 1h }",
          "update @dynmulti4 { ip saddr . meta l4proto counter }", "meta mark set ip saddr map @marks4", "ip saddr vmap @verdicts4",
          "counter name ip saddr map @objects4", "meta mark set ip saddr map @imarks4", "meta mark set ip saddr . ip daddr map @rmarks4",
          "meta mark set jhash ip saddr mod 2 seed 1 map { 0 : 3, 1 : 4 }", l3="4"),
    *_all("add @dyn6 { ip6 saddr }", "update @dyn6 { ip6 saddr counter }", "delete @dyn6 { ip6 daddr }", "add @dynmap6 { ip6 saddr : 7 }",
          "add @dynlim6 { ip6 saddr limit rate over 1/hour burst 2 packets }", "add @dynquota6 { ip6 saddr quota over 200 bytes }",
          "add @dyncount6 { ip6 saddr ct count 100000 }", "add @dynlast6 { ip6 saddr last }", "update @dynto6 { ip6 saddr timeout 1h }",
          "meta mark set ip6 saddr map @marks6", "ip6 saddr vmap @verdicts6", l3="6"),
    *_all("add @dynmark { meta mark }", "update @dynmark { meta mark }", "delete @dynmark { meta mark }", "add @dynmarkmap { meta mark : 1 }",
          "add @dynmarkcount { meta mark counter }", "add @dynmarklim { meta mark limit rate over 1/hour burst 2 packets }",
          "add @dynmarkquota { meta mark quota over 200 bytes }", "add @dynmarkct { meta mark ct count 100000 }", "add @dynmarklast { meta mark last }"),
    *_all("ip ttl set $TTL", "ip dscp set cs1", "ip dscp set ef", "ip ecn set ce", "ip saddr set $H", "ip daddr set $H", "ip id set 0x1234",
          "ip dscp set ip dscp map { cs0 : cs1, ef : cs2 }", l3="4", weight=0.5),
    *_all("@nh,64,8 set 33", l3="4", weight=0.5, late=True),
    *_all("ip6 hoplimit set $TTL", "ip6 dscp set cs1", "ip6 flowlabel set 3", "ip6 ecn set ce", "@nh,56,8 set 33", l3="6", weight=0.5),
    *_all("tcp dport set $PORT", "tcp sport set $SOURCE", "tcp window set 100", "tcp option maxseg size set 900", "tcp option maxseg size set 1400",
          "tcp option window count set 3", "tcp option timestamp tsval set 9", "reset tcp option timestamp", "reset tcp option sack-perm",
          "reset tcp option maxseg", "tcp option maxseg size set rt mtu", "tcp flags set ack", l4="tcp", weight=0.5),
    *_all("@th,112,16 set 77", "@ih,0,16 set 0x4142", l4="tcp", weight=0.5, late=True),
    *_all("udp dport set $PORT", "udp sport set $SOURCE", l4="udp", weight=0.5),
    *_all("udp checksum set 0", "@th,16,16 set $PORT", "@ih,0,16 set 0x4142", l4="udp", weight=0.5, late=True),
    *_all("ether daddr set 02:00:00:00:01:10", "ether saddr set 02:00:00:00:07:07", "@ll,48,16 set 0x0202", weight=0.5),
    *_all("ether daddr set $MAC", "ether saddr set $MAC", "ether type set 0x88b5", "vlan id set 7", "meta pkttype set other",
          "meta pkttype set broadcast", "meta mark set ether saddr map { $MAC : 1, $MAC : 2 }", "ether saddr vmap { $MAC : continue, $MAC : drop }",
          "add @dynmac { ether saddr }", "update @dynmac { ether saddr counter }", "add @dynmacs { ether saddr . ether daddr }", l3="br"),
    *_all("arp operation set reply", "@nh,48,16 set 2", "arp saddr ip set 192.168.1.10", l3="arp"),
    *_all("dup to $H", 'dup to $H device "dmz"', weight=0.3),
    *_all('dup to "dmz"', l3="dev", weight=0.3),
]

TERMINALS = [
    *_all("accept", "drop", "continue", "return", "jump leaf", "goto leaf", "meta mark vmap { 0 : accept, 1 : drop, 2 : jump leaf, 3-9 : goto leaf }",
          "meta length vmap { 0-60 : continue, 61-1500 : drop }", "queue num 5 bypass", "queue num 1-3 bypass,fanout", "queue num 7", "queue num 1-3",
          "queue flags bypass to numgen inc mod 4", "reject", "flow add @ft", last=True),
    *_all("reject with icmp port-unreachable", "reject with icmp host-prohibited", "reject with icmp net-unreachable",
          "reject with icmp prot-unreachable", "reject with icmp admin-prohibited", "reject with icmp host-unreachable", l3="4", last=True),
    *_all("reject with icmpv6 no-route", "reject with icmpv6 admin-prohibited", "reject with icmpv6 addr-unreachable",
          "reject with icmpv6 port-unreachable", "reject with icmpv6 policy-fail", "reject with icmpv6 reject-route", l3="6", last=True),
    *_all("reject with icmpx no-route", "reject with icmpx port-unreachable", "reject with icmpx host-unreachable",
          "reject with icmpx admin-prohibited", last=True),
    *_all("reject with tcp reset", l4="tcp", last=True),
    *(one for l3 in ("4", "6") for one in _all("synproxy mss 1400 wscale 7 timestamp sack-perm", "synproxy mss 1300 wscale 3",
                                               "synproxy name sp1", l3=l3, l4="tcp", last=True)),
    *(one for l4 in ("tcp", "udp") for one in (
        *_all("tproxy to :9", "tproxy ip to $H:9", "tproxy to $H", "tproxy to $H:9", "tproxy ip to :9", l3="4", l4=l4, last=True),
        *_all("tproxy to :9", "tproxy ip6 to [$H]:9", "tproxy ip6 to $H", "tproxy ip6 to :9", l3="6", l4=l4, last=True))),
    *_all('fwd to "dmz"', l3="dev", last=True), *_all('fwd ip to $H device "dmz"', l3="4", last=True), *_all('fwd ip6 to $H device "dmz"', l3="6", last=True),
]

_NAT4 = ("{0} to $H", "{0} ip to $H", "{0} to $H-$Z", "{0} ip to $H random", "{0} ip to $H persistent", "{0} ip to $H fully-random",
         "{0} ip prefix to 192.168.2.0/24", "{0} ip prefix to ip daddr map {{ 203.0.113.0/24 : 192.168.2.0/24, 192.168.0.0/16 : 203.0.0.0/16 }}",
         "{0} to ip saddr map {{ 0.0.0.0-255.255.255.255 : $H }}", "{0} ip to $H-$Z persistent")
_NAT6 = ("{0} to $H", "{0} ip6 to $H", "{0} ip6 to $H random", "{0} ip6 to $H persistent", "{0} ip6 to $H fully-random",
         "{0} ip6 prefix to fd00:2::/64", "{0} ip6 to $H-$Z")
_PORTS4 = ("{0} to $H:$PORT", "{0} ip to $H:2000-2100", "{0} ip to $H:2000-2100 random", "{0} to :$PORT", "{0} to :2000-2010",
           "{0} ip addr . port to udp dport map {{ 53 : $H . 5353, 1-52 : $H . 80, 54-65535 : $H . 8080 }}",
           "{0} ip to udp dport map {{ 53 : $H, 80 : $H }}")
_PORTS6 = ("{0} to [$H]:$PORT", "{0} ip6 to [$H]:2000-2100", "{0} to :$PORT", "{0} to :2000-2010")
NAT = [
    Fragment(text.format(verb), l3, l4, True, "nat")
    for verb in ("snat", "dnat")
    for texts, l3, l4 in ((_NAT4, "4", ""), (_NAT6, "6", ""), (_PORTS4, "4", "udp"), (_PORTS6, "6", "udp"))
    for text in texts
] + [
    *_all("masquerade", "masquerade random", "masquerade fully-random", "masquerade persistent", "masquerade random,persistent", "redirect", "redirect random",
          "redirect fully-random", "redirect persistent", last=True, kind="nat"),
    *_all("masquerade to :$PORT", "masquerade to :2000-2100", "masquerade to :2000-2100 random", "redirect to :$PORT",
          "redirect to :2000-2100", "redirect to udp dport map { 53 : 5353, 80 : 8080 }", l4="udp", last=True, kind="nat"),
]
FRAGMENTS = MATCHES + STATEMENTS + TERMINALS + NAT

DECLARATIONS = {
    "@hash4": "set hash4 { type ipv4_addr; elements = { $4 }; }",
    "@hash6": "set hash6 { type ipv6_addr; elements = { $6 }; }",
    "@interval4": "set interval4 { type ipv4_addr; flags interval; elements = { 192.168.1.0/24, 203.0.113.5-203.0.113.99 }; }",
    "@interval6": "set interval6 { type ipv6_addr; flags interval; elements = { fd00:1::/64, 2001:db8:3::5-2001:db8:3::99 }; }",
    "@pair4": "set pair4 { type ipv4_addr . ipv4_addr; flags interval; elements = { 192.168.0.0/16 . 203.0.113.0/24, 192.168.1.0-192.168.2.255 . 192.168.0.0/16 }; }",
    "@pair6": "set pair6 { type ipv6_addr . ipv6_addr; flags interval; elements = { fd00::/16 . 2001:db8::/32, fd00:1::/64 . fd00:2::/64 }; }",
    "@range4": "set range4 { type ipv4_addr . inet_proto; flags interval; elements = { 192.168.0.0/16 . 1-17 }; }",
    "@range6": "set range6 { type ipv6_addr . inet_proto; flags interval; elements = { fd00::/16 . 1-58 }; }",
    "@ports": "set ports { type inet_service; flags interval; auto-merge; elements = { 1-100, 80, 1000-5000 }; }",
    "@dyn4": "set dyn4 { type ipv4_addr; flags dynamic; size 5; }",
    "@dyn6": "set dyn6 { type ipv6_addr; flags dynamic; size 5; }",
    "@dynmap4": "map dynmap4 { type ipv4_addr : mark; flags dynamic; size 9; }",
    "@dynmap6": "map dynmap6 { type ipv6_addr : mark; flags dynamic; size 9; }",
    "@dynlim4": "set dynlim4 { type ipv4_addr; flags dynamic; size 99; }",
    "@dynlim6": "set dynlim6 { type ipv6_addr; flags dynamic; size 99; }",
    "@dynquota4": "set dynquota4 { type ipv4_addr; flags dynamic; size 99; }",
    "@dynquota6": "set dynquota6 { type ipv6_addr; flags dynamic; size 99; }",
    "@dyncount4": "set dyncount4 { type ipv4_addr; flags dynamic; size 99; }",
    "@dyncount6": "set dyncount6 { type ipv6_addr; flags dynamic; size 99; }",
    "@dynlast4": "set dynlast4 { type ipv4_addr; flags dynamic; size 99; }",
    "@dynlast6": "set dynlast6 { type ipv6_addr; flags dynamic; size 99; }",
    "@dynto4": "set dynto4 { type ipv4_addr; flags dynamic,timeout; timeout 2h; size 99; }",
    "@dynto6": "set dynto6 { type ipv6_addr; flags dynamic,timeout; timeout 2h; size 99; }",
    "@dynmulti4": "set dynmulti4 { type ipv4_addr . inet_proto; flags dynamic; size 99; }",
    "@dynmac": "set dynmac { type ether_addr; flags dynamic; size 6; }",
    "@dynmacs": "set dynmacs { type ether_addr . ether_addr; flags dynamic; size 9; }",
    "@dynmark": "set dynmark { type mark; flags dynamic; size 3; }",
    "@dynmarkmap": "map dynmarkmap { type mark : mark; flags dynamic; size 9; }",
    "@dynmarkcount": "set dynmarkcount { type mark; flags dynamic; size 9; }",
    "@dynmarklim": "set dynmarklim { type mark; flags dynamic; size 9; }",
    "@dynmarkquota": "set dynmarkquota { type mark; flags dynamic; size 9; }",
    "@dynmarkct": "set dynmarkct { type mark; flags dynamic; size 9; }",
    "@dynmarklast": "set dynmarklast { type mark; flags dynamic; size 9; }",
    "@marks4": "map marks4 { type ipv4_addr : mark; elements = { $4 : 1, 192.168.1.10 : 2 }; }",
    "@marks6": "map marks6 { type ipv6_addr : mark; elements = { $6 : 1, fd00:1::10 : 2 }; }",
    "@imarks4": "map imarks4 { type ipv4_addr : mark; flags interval; elements = { 192.168.0.0/16 : 1, 203.0.113.0/24 : 2 }; }",
    "@rmarks4": "map rmarks4 { type ipv4_addr . ipv4_addr : mark; flags interval; elements = { 192.168.0.0/16 . 0.0.0.0/0 : 5 }; }",
    "@verdicts4": "map verdicts4 { type ipv4_addr : verdict; elements = { $4 : drop, 192.168.1.10 : continue, 192.168.2.10 : jump leaf }; }",
    "@verdicts6": "map verdicts6 { type ipv6_addr : verdict; elements = { $6 : drop, fd00:1::10 : continue, fd00:2::10 : jump leaf }; }",
    "@objects4": 'map objects4 { type ipv4_addr : counter; elements = { 192.168.1.10 : "c1", 192.168.2.10 : "c2" }; }',
    '"c1"': "counter c1 { }", '"c2"': "counter c2 { }", '"q1"': "quota q1 { over 500 bytes }", '"lim"': "limit lim { rate 1/hour burst 4 packets }",
    '"h1"': 'ct helper h1 { type "ftp" protocol tcp; }',
    '"t1"': "ct timeout t1 { protocol tcp; policy = { established : 1000, close : 77 }; }",
    '"e1"': "ct expectation e1 { protocol tcp; dport 9876; timeout 1h; size 5; }",
    '"sp1"': "synproxy sp1 { mss 1200 wscale 5 timestamp }",
    '"sec1"': 'secmark sec1 { "system_u:object_r:ssh_server_packet_t:s0" }',
    "@ft": 'flowtable ft { hook ingress priority 0; devices = { "lan", "wan" }; }',
}
_ALIASES = {"counter name c": '"c', "limit name lim": '"lim"', "quota name q1": '"q1"', "synproxy name sp1": '"sp1"'}


def declared(rules: str) -> list[str]:
    """The declarations that rules need, in order."""
    found = rules
    for words, name in _ALIASES.items():
        if words in rules:
            found += f' {name}1" ' if name == '"c' else f" {name} "
    if "@objects4" in rules:
        found += ' "c1" "c2" '
    names = [name for name in DECLARATIONS if re.search(re.escape(name) + r"(?![\w])", found)]
    return [DECLARATIONS[name] for name in sorted(names, key=lambda name: name[0] == "@")]


def filled(text: str, rng: random.Random, family: str, names: Sequence[str] = pools.NAMES) -> str:
    """The text with values for its variables; `family` is `ip` or `ip6`, `names` are the interfaces that are meant."""
    other = "ip" if family != "ip6" else "ip6"
    values = {
        "PORT": lambda: str(rng.choice(pools.PORTS)), "SOURCE": lambda: str(rng.choice(pools.SOURCES)),
        "MARK": lambda: str(rng.choice(pools.MARKS)), "BYTE": lambda: str(rng.choice((0, 1, 16))),
        "NIC": lambda: rng.choice(names), "TTL": lambda: str(rng.choice((9, 64))), "IDENT": lambda: str(rng.choice(pools.IDENTS)),
        "A": lambda: rng.choice((*pools.hosts(other, names), *pools.routers(other, names))), "H": lambda: rng.choice(pools.hosts(other, names)),
        "MAC": lambda: rng.choice((*(EVERY[name].host_mac for name in names), *pools.STRANGERS, *pools.OWN_MACS, "ff:ff:ff:ff:ff:ff")),
        "Z": lambda: {"ip": "203.0.113.99", "ip6": "fd00:9::1"}[other],
        "4": lambda: rng.choice(pools.hosts("ip", names)), "6": lambda: rng.choice(pools.hosts("ip6", names)),
    }
    return re.sub(r"\$([A-Z]+|[46])", lambda found: values[found[1]](), text)
