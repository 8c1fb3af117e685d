"""What the router and a fast path at device ingress know of each other.

Laws: a fast path sends or declines and decides no policy; whatever it cannot do exactly goes down the pipeline.
It keeps the `CachedRoute` that the slow path left in `pkt.route` and asks `valid()` before every use.
"""

import cython

if not cython.compiled:
    from userfw.core.ahead import Lookahead
    from userfw.core.packet import Device, Packet


class CachedRoute:
    """The result of a routing decision: `oif`, `mtu` in bytes (0: the device's), good while `valid()`."""

    def __init__(self) -> None:
        self.oif: Device | None = None
        self.mtu = 0

    def valid(self) -> cython.bint:
        """False as soon as any route, address or device changed since the decision."""
        return False


class FastPath:
    """Looked up before the hooks of a device (Linux: nf_flow_offload_ip_hook); `Device.flowtable` holds one.

    `ahead`: its Lookahead, or None.
    """

    def __init__(self) -> None:
        self.ahead: Lookahead | None = None

    def forward(self, pkt: Packet) -> cython.int:
        """1 if `pkt` was sent (or dropped and counted), 0 if it must take the slow path unchanged."""
        return 0


class Sender:
    """What a fast path sends with; the Gateway is one."""

    def emit(self, pkt: Packet) -> cython.int:
        """Send the finished network packet along `pkt.route`, a valid CachedRoute: neighbour, link-layer header, transmit.

        No hooks but egress, no MTU check. 0 or the DROP_* reason, counted.
        """
        raise NotImplementedError

    def route_back(self, pkt: Packet) -> CachedRoute | None:
        """The route that answers to `pkt` take: to the source its connection has in this direction, out of the device it came in by
        (Linux: nft_flow_route); None if there is none."""
        raise NotImplementedError
