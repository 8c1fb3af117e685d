"""Services: everything outside the rule machine that an expression may ask for or ask to be done.

`router.Gateway` implements it; tests use a double. Laws:
- Nothing here allocates for a packet unless the packet is answered, copied or reported.
- `hook` is NF_INET_*, NF_ARP_* or NF_NETDEV_*; `family` the table's NFPROTO_*, and NFPROTO_IPV4 or NFPROTO_IPV6 where a header is
  meant.
- Addresses are offsets into `pkt.data` or bytes in network order (4 or 16).
- What a gateway does not have (sockets, cgroups, IPsec) it answers with None or zero, as a kernel does where nothing is found.
"""

from __future__ import annotations

from typing import Any

import cython

from userfw.core.clock import Clock

if not cython.compiled:
    from userfw.core.const import NF_ACCEPT, NF_DROP
    from userfw.core.fastpath import Sender
    from userfw.core.hook import HookEntry
    from userfw.core.packet import Device, Packet


class FibResult:
    """Answer of `Services.fib`: `type` is RTN_*; `oif` the device of a unicast route (of the address, for local ones), or None."""

    def __init__(self) -> None:
        self.type = 0
        self.oif: Device | None = None


class RouteInfo:
    """The packet's route as `rt` sees it: `nexthop` the gateway or the destination itself (4 or 16 bytes), `classid` the realm,
    `mtu` the path's MTU in bytes, `ipsec` whether a transform applies, `oif` the device."""

    def __init__(self) -> None:
        self.family = 0
        self.nexthop = b""
        self.classid = 0
        self.mtu = 0
        self.ipsec = False
        self.oif: Device | None = None


class Origin:
    """Who sent a packet of the gateway's own, or is to get one: `Packet.extra`. `bound`: the packet's device is known before its
    output hook, behind which it counts as the one it came in by (Linux: skb->dev)."""

    def __init__(self, bound: bool = False) -> None:
        self.bound = bound


class Copy(Origin):
    """A copy made by `dup` belongs to no socket (Linux: nf_dup_ipv4_route). `entered`: the device that the original came in by.

    `made_whole`: what forbids to fragment it is not its own, so pieces go without. `for_host`: the host put it together for itself,
    so what forbids it counts though it came in pieces (Linux: no ignore_df).
    """

    def __init__(self, entered: Device | None, made_whole: bool = False, for_host: bool = False) -> None:
        super().__init__(True)
        self.entered = entered
        self.made_whole = made_whole
        self.for_host = for_host


class SocketInfo(Origin):
    """A local socket that owns, or would get, a packet: `wildcard` bound to the any address, `mark` SO_MARK,
    `uid` and `gid` -1 if unknown, `cgroups` ids from the root (level 0) down, `classid` of the net_cls cgroup.

    `established`: it has a peer (else it listens or waits for datagrams); `time_wait`: it is closed and waits. `group_of` gives
    `gid` where that is dear to find. `inode` tells sockets apart.
    """

    def __init__(self, bound: bool = False, wildcard: bool = False) -> None:
        super().__init__(bound)
        self.transparent = False
        self.wildcard = wildcard
        self.mark = 0
        self.uid = -1
        self.gid = -1
        self.cgroups: list[int] = []
        self.established = False
        self.time_wait = False
        self.classid = 0
        self.inode = 0
        self.group_of: Any = None
        self.owner: Any = None


CONTROL = SocketInfo(wildcard=True)
"""The socket of what a gateway answers on its own, of nobody and bound to no address (Linux: icmp_xmit_lock, ipv4_tcp_sk)."""
DISCOVERY = SocketInfo(bound=True, wildcard=True)
"""The same of neighbour discovery (Linux: ndisc_alloc_skb)."""


class Services(Sender):
    """The surroundings of the machine; every method below is to be overridden but for those with a harmless answer.

    - `clock`: the engine's time. `trace`: an engine.trace.TraceSink or None. `cpu`, `cgroup`: what `meta cpu` and `meta cgroup`
      give.
    - `conntrack`: the conntrack.table.ConnTable, or None; `nat`: the nat.mapping.Nat, or None.
    - `fingerprints`: engine.fingerprint.Fingerprints for osf, or None: every system is then unknown.
    - `drop_chain`, `drop_rule`: where the machine last dropped a packet: the engine.chain.Chain and the engine.rule.Rule (None:
      its policy).
      Valid right after a HookList returned NF_DROP with `pkt.drop_reason` RULE, POLICY or REJECT.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.trace: Any = None
        self.cpu = 0
        self.cgroup = 0
        self.conntrack: Any = None
        self.nat: Any = None
        self.fingerprints: Any = None
        self.drop_chain: Any = None
        self.drop_rule: Any = None

    def random(self) -> cython.uint:
        """A random 32-bit number (numgen random, meta random)."""
        raise NotImplementedError

    def device_by_index(self, index: cython.int) -> Device | None:
        """The device with this ifindex, or None."""
        raise NotImplementedError

    def device_by_name(self, ifname: bytes) -> Device | None:
        """The device with this name (16 padded bytes), or None."""
        raise NotImplementedError

    def fib(
        self,
        pkt: Packet,
        family: cython.int,
        address: cython.Py_ssize_t,
        source: cython.Py_ssize_t,
        device: Device | None,
        mark: cython.uint,
        result: FibResult,
    ) -> cython.bint:
        """Look up the address at offset `address` of `pkt.data` in the routing table; False if nothing is found (`result` cleared).

        `family`: NFPROTO_IPV4 or NFPROTO_IPV6. `source`: offset of the flow's other address, or -1. `device`: routes and local
        addresses are restricted to it, or None (Linux: nft_fib4_eval_type, nft_fib4_eval and the IPv6 pair). `mark`: 0 unless
        asked for.
        """
        raise NotImplementedError

    def route_info(self, pkt: Packet) -> RouteInfo | None:
        """The route the packet has (forward, output, postrouting), or None. The object is reused by the next call."""
        raise NotImplementedError

    def socket(self, pkt: Packet) -> SocketInfo | None:
        """The local socket of the packet's flow (established first, then listening), or None (Linux: nf_sk_lookup_slow_v4)."""
        return None

    def send_reject(self, pkt: Packet, hook: cython.int, family: cython.int, type: cython.int, code: cython.int) -> cython.int:
        """Answer `pkt` (left untouched): type REJECT_TCP_RST, or REJECT_ICMP_UNREACH with the code of ICMP or ICMPv6 by the
        packet's family.

        The answer carries an ICMP quotation or a RST as Linux nf_send_reset/nf_send_unreach build it, respects rate limits and
        never answers
        errors, broadcasts, fragments or packets with a wrong checksum. In bridge and netdev it leaves through the device it came
        from.
        """
        raise NotImplementedError

    def send_duplicate(
        self, pkt: Packet, hook: cython.int, family: cython.int, gateway: bytes | None, device: Device | None
    ) -> cython.int:
        """Send a copy: in ip and ip6 routed to `gateway` (through `device` if not None), in netdev (`gateway` None) out of
        `device`."""
        raise NotImplementedError

    def forward_device(self, pkt: Packet, device: Device) -> cython.int:
        """`fwd to`: send the frame as it is out of `device`, taking the packet. NF_STOLEN, or NF_DROP if it cannot be sent."""
        raise NotImplementedError

    def forward_neighbour(self, pkt: Packet, device: Device, family: cython.int, nexthop: bytes) -> cython.int:
        """`fwd ip to ADDR device DEV`: TTL is already decremented; resolve `nexthop` and send. NF_STOLEN or NF_DROP."""
        raise NotImplementedError

    def log(self, pkt: Packet, hook: cython.int, family: cython.int, request: Any) -> cython.int:
        """A log statement: `request` is the expressions.log.Log (prefix, level, group, snaplen, qthreshold, flags)."""
        return 0

    def enqueue(self, pkt: Packet, hook: cython.int, entry: HookEntry, number: cython.int, bypass: cython.bint) -> cython.int:
        """Hand the packet to queue `number`: NF_STOLEN if a listener has it; without one NF_ACCEPT if `bypass`, else NF_DROP.

        `entry`: the base chain that queues; the packet comes back behind it, or to it once more (Linux: nf_queue, nf_reinject).
        """
        return NF_ACCEPT if bypass else NF_DROP

    def tproxy(self, pkt: Packet, family: cython.int, address: bytes, port: cython.int) -> cython.int:
        """Assign the packet to a transparent socket: an established one of its flow, else a listener at `address`
        (b"": the address of the incoming device, as Linux nf_tproxy_laddr4) and `port` (0: the packet's destination port).
        1 if one took it, 0 if none."""
        return 0

    def synproxy(self, pkt: Packet, hook: cython.int, mss: cython.int, wscale: cython.int, flags: cython.int) -> cython.int:
        """Handle a TCP packet for the synproxy (`flags`: SYNPROXY_*): NF_STOLEN if answered or consumed, NF_DROP,
        or NF_ACCEPT to go on (Linux: nft_synproxy_do_eval)."""
        return NF_DROP

    def reroute(self, pkt: Packet, hook: cython.int) -> cython.int:
        """A chain of type route changed mark, addresses or dscp: look up the route again. NF_ACCEPT, or NF_DROP with the reason
        set."""
        return NF_ACCEPT

    def broute(self, pkt: Packet, on: cython.bint) -> cython.int:
        """`meta broute set`: the bridge shall route this packet instead of bridging it."""
        raise NotImplementedError

    def quota_depleted(self, quota: Any) -> cython.int:
        """A quota (expressions.quota.Quota) has just been used up; told once, for the monitor."""
        return 0
