"""What a packet meets beside the rule, told once to the interpreter and to the engine: devices, time, connection, routes, sockets.

Laws:
- Plain values only; neither side keeps anything here but what `draws` hands out, in order.
- Nothing of userfw is imported by this file or by the interpreter.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Dev:
    """An interface: `type` ARPHRD_*, `master` the bridge it is a port of."""

    index: int
    name: str
    type: int = 1
    group: int = 0
    kind: str = ""
    mac: bytes = b"\x02\0\0\0\0\x09"
    master: Dev | None = None


@dataclass
class Flow:
    """A connection's tuple in one direction; addresses in network order, 4 or 16 bytes."""

    src: bytes
    dst: bytes
    sport: int
    dport: int
    zone: int = 0


@dataclass
class Connection:
    """The packet's conntrack entry. `expires`: milliseconds left; `helper`: of the connection that expected it, or empty."""

    original: Flow
    reply: Flow
    l3: int
    l4: int
    status: int = 0
    mark: int = 0
    secmark: int = 0
    labels: bytes = bytes(16)
    expires: int = 0
    packets: tuple[int, int] = (0, 0)
    octets: tuple[int, int] = (0, 0)
    zone: int = 0
    zone_directions: int = 3
    id: int = 1
    helper: str = ""
    events: int | None = None


@dataclass
class Route:
    nexthop: bytes
    realm: int
    mtu: int
    ipsec: bool = False


@dataclass
class Sock:
    transparent: bool
    wildcard: bool
    mark: int
    uid: int
    gid: int
    established: bool = True


@dataclass
class Surroundings:
    """One packet's world. `now`: monotonic ns, `wall`: ns to add for Unix time. `state`: new, established, related, untracked or
    invalid (no entry). `fib`: route type and device, or None. `takes`: the verdict of whoever may take the packet (fwd, queue,
    synproxy: stolen, drop or accept); `tproxied`: whether a socket was found."""

    iif: Dev | None
    oif: Dev | None
    devices: list[Dev]
    now: int
    wall: int = 0
    mark: int = 0
    priority: int = 0
    secmark: int = 0
    pkttype: int = 0
    cpu: int = 0
    cgroup: int = 0
    state: str = "invalid"
    reply: bool = False
    ct: Connection | None = None
    route: Route | None = None
    fib: tuple[int, Dev | None] | None = None
    sock: Sock | None = None
    tproxied: bool = True
    takes: str = "stolen"
    draws: list[int] = field(default_factory=list)
