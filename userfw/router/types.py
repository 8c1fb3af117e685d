"""The nouns of routing: Route and NextHop (what is configured), Dst (a decision, cached), Neighbour (a link-layer address).

Laws: an address is a pair (`hi`, `lo`) of 64-bit numbers, host order, IPv4 in the low 32 bits of `lo` with `hi` 0.
A Dst is valid while its `gen` is the Fib's; a Neighbour may be used while `dead` is false.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from userfw.core.const import ETH_P_IP, ETH_P_IPV6, NFPROTO_IPV4, U32_MASK
    from userfw.core.fastpath import CachedRoute
    from userfw.core.packet import Device, Packet
    from userfw.router.const import NUD_NONE, RTN_UNICAST, TABLE_MAIN


class Generation:
    """One number, shared by a Fib and all its Dst, that changes with every change of routes, addresses or devices."""

    def __init__(self) -> None:
        self.value = 1


class NextHop:
    """One way of a Route: `device`, `gateway` (`gw_family` 0: the destination is on the link), `weight` 1…256, `onlink`."""

    def __init__(
        self,
        device: Device | None = None,
        gw_family: int = 0,
        gw_hi: int = 0,
        gw_lo: int = 0,
        weight: int = 1,
        onlink: bool = False,
    ) -> None:
        self.device = device
        self.gw_family = gw_family
        self.gw_hi = gw_hi
        self.gw_lo = gw_lo
        self.weight = weight
        self.onlink = onlink

    def alive(self) -> cython.bint:
        """The device is up (Linux: RTNH_F_DEAD is not set)."""
        return self.device is None or self.device.up


class Route:
    """One row of a routing table (ip-route(8)). `next`: the same prefix with a higher metric."""

    def __init__(
        self,
        family: int,
        hi: int,
        lo: int,
        prefixlen: int,
        nexthops: list[NextHop],
        type: int = RTN_UNICAST,
        table: int = TABLE_MAIN,
        metric: int = 0,
        scope: int = 0,
        protocol: int = 3,
        src_hi: int = 0,
        src_lo: int = 0,
        mtu: int = 0,
        tos: int = 0,
    ) -> None:
        self.family = family
        self.hi = hi
        self.lo = lo
        self.prefixlen = prefixlen
        self.nexthops = nexthops
        self.type = type
        self.table = table
        self.metric = metric
        self.scope = scope
        self.protocol = protocol
        self.src_hi = src_hi
        self.src_lo = src_lo
        self.mtu = mtu
        self.tos = tos
        self.next: Route | None = None

    def usable(self) -> cython.bint:
        """At least one way is alive, or the type needs none."""
        i: cython.Py_ssize_t
        hop: NextHop
        if not self.nexthops:
            return True
        for i in range(len(self.nexthops)):
            hop = self.nexthops[i]
            if hop.alive():
                return True
        return False


class Neighbour:
    """A host on the link and how to reach it (Linux: struct neighbour).

    - `state`: NUD_*. `mac_hi`, `mac_lo`: first 4 and last 2 bytes. `head`, `mid`: the first 8 and next 4 bytes of the Ethernet
      header, ready to be stored. `connected`: the packet may leave without any other look at the state.
    - `queue`: packets that wait (compact copies), `queued`: their bytes. Times in ns: `confirmed`, `used`, `updated`;
      `deadline`: of the state's timer, 0 if none. `probes`: requests sent without an answer.
    """

    def __init__(self, family: int, hi: int, lo: int, device: Device) -> None:
        self.family = family
        self.hi = hi
        self.lo = lo
        self.device = device
        self.state = NUD_NONE
        self.connected = False
        self.dead = False
        self.is_router = False
        self.mac_hi = 0
        self.mac_lo = 0
        self.head = 0
        self.mid = 0
        self.queue: list[Packet] = []
        self.queued = 0
        self.probes = 0
        self.confirmed = 0
        self.used = 0
        self.updated = 0
        self.deadline = 0

    def set_mac(self, mac_hi: cython.uint, mac_lo: cython.uint) -> cython.int:
        """Remember the link-layer address and prepare the header that goes to it."""
        high: cython.ulonglong = mac_hi
        low: cython.uint = mac_lo & 0xFFFF
        own: cython.uint = self.device.mac_hi
        self.mac_hi = mac_hi
        self.mac_lo = low
        self.head = (high << 32) | (low << 16) | (own >> 16)
        self.mid = ((own & 0xFFFF) << 16) | (self.device.mac_lo & 0xFFFF)
        return 0

    @property
    def mac(self) -> bytes:
        """The link-layer address, 6 bytes; meaningless unless the state is valid."""
        return int(self.mac_hi).to_bytes(4, "big") + int(self.mac_lo).to_bytes(2, "big")


class PathMtu:
    """What a destination's path carries, as somebody on it told: `locked` if it told less than is believed; `expires` in ns."""

    def __init__(self, mtu: int, locked: bool, expires: int) -> None:
        self.mtu = mtu
        self.locked = locked
        self.expires = expires


class Dst(CachedRoute):
    """A routing decision for one destination (Linux: struct dst_entry, rtable, rt6_info).

    - `type`: RTN_*; `oif`: where it goes; `iif`: for which input device it was made. `family` with `key_*`: what was asked.
    - `via_family`, `via_hi`, `via_lo`: address of the next hop on the link, the destination itself if `gateway` is false.
    - `src_hi`, `src_lo`: preferred source, 0 if none is given. `neigh`: the neighbour of `via`, found at first use.
    - `ways`: the Dst of each next hop of a multipath route, else None.
    - `own`: the same with a smaller path MTU, for packets of the gateway itself and for IPv6 behind the hooks, else None.
    """

    def __init__(self, generation: Generation) -> None:
        super().__init__()
        self.generation = generation
        self.gen = generation.value
        self.family = 0
        self.type = RTN_UNICAST
        self.gateway = False
        self.key_hi = 0
        self.key_lo = 0
        self.key_mark = 0
        self.key_iif = 0
        self.via_family = 0
        self.via_hi = 0
        self.via_lo = 0
        self.src_hi = 0
        self.src_lo = 0
        self.prefixlen = 0
        self.neigh: Neighbour | None = None
        self.source: Route | None = None
        self.ways: list[Dst] | None = None
        self.own: Dst | None = None
        self.weights = 0

    def valid(self) -> cython.bint:
        """Nothing changed since the decision was made."""
        return self.gen == self.generation.value

    def retire(self) -> None:
        """Whoever holds it is to ask again."""
        self.gen = self.generation.value - 1 & U32_MASK
        for other in [*(self.ways or ()), self.own]:
            if other is not None:
                other.retire()

    def narrowed(self, mtu: cython.int) -> Dst:
        """A copy, its ways too, with at most this MTU."""
        other = Dst(self.generation)
        other.gen, other.family, other.type, other.gateway, other.oif = self.gen, self.family, self.type, self.gateway, self.oif
        other.key_hi, other.key_lo, other.key_mark, other.key_iif = self.key_hi, self.key_lo, self.key_mark, self.key_iif
        other.via_family, other.via_hi, other.via_lo = self.via_family, self.via_hi, self.via_lo
        other.src_hi, other.src_lo, other.prefixlen, other.source = self.src_hi, self.src_lo, self.prefixlen, self.source
        other.mtu, other.weights = min(self.mtu, mtu), self.weights
        other.ways = None if self.ways is None else [way.narrowed(mtu) for way in self.ways]
        return other


def ethertype_of(family: cython.int) -> cython.int:
    """EtherType of NFPROTO_IPV4 or NFPROTO_IPV6."""
    return ETH_P_IP if family == NFPROTO_IPV4 else ETH_P_IPV6
