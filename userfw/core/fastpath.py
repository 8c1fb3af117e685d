"""What the router and a fast path at device ingress know of each other.

Laws: a fast path sends or declines and decides no policy; whatever it cannot do exactly goes down the pipeline.
It keeps the `CachedRoute` that the slow path left in `pkt.route` and asks `valid()` before every use.
"""

import cython

if not cython.compiled:
    from userfw.core.ahead import Lookahead
    from userfw.core.const import ETH_P_8021AD
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


class Crossing:
    """A bridge on a flow's way, walked once: the port that the next hop was heard on (Linux: br_fill_forward_path).

    - `bridge`, `port`: their devices. `tags`: what frames carry at the port (`tag_code`). `both`: frames that come in there with
      these tags reach the bridge's device as they left it. `anchor`: what ends the crossing when it changes, for watchers.
    """

    def __init__(self) -> None:
        self.bridge: Device | None = None
        self.port: Device | None = None
        self.tags = 0
        self.both = False
        self.anchor: object = None

    def valid(self) -> cython.bint:
        """The next hop is still behind the port, and bridge and ports are set as they were."""
        return False

    def hear(self, pkt: Packet) -> cython.bint:
        """A frame for the bridge came in on the port: its sender is learned as the bridge does; False: the bridge must judge it."""
        return False

    def heard(self, when: cython.ulonglong) -> cython.int:
        """A device forwarded frames that came in on the port, the last at `when` (ns)."""
        return 0


class Sender:
    """What a fast path sends with; the Gateway is one. `host`: the device behind which the gateway's own services are, or None."""

    def __init__(self) -> None:
        self.host: Device | None = None

    def emit(self, pkt: Packet) -> cython.int:
        """Send the finished network packet along `pkt.route`, a valid CachedRoute: neighbour, link-layer header, transmit.

        No hooks but egress, no MTU check. 0 or the DROP_* reason, counted.
        """
        raise NotImplementedError

    def emit_through(self, pkt: Packet, device: Device, tags: cython.uint, crossing: Crossing | None) -> cython.int:
        """As `emit`, with the tags put on at once and out of `device`, which is below the VLAN devices of the route and, behind
        `crossing`, below its bridge."""
        raise NotImplementedError

    def deliver(self, pkt: Packet) -> cython.int:
        """Hand the finished network packet to the services behind `host`: past all hooks. 0 or the DROP_* reason, counted."""
        raise NotImplementedError

    def cross(
        self, route: CachedRoute, hi: cython.ulonglong, lo: cython.ulonglong, bridge: Device, tags: cython.uint
    ) -> Crossing | None:
        """The way through `bridge` of what goes along `route` to the address (`hi`, `lo`) and carries `tags` there; None: the
        neighbour or its port is not known, or it must not be reached."""
        return None

    def route_local(self, pkt: Packet, out: cython.bint) -> CachedRoute | None:
        """The other direction of a connection of the gateway's own: for `pkt` at input the route that answers take, out of the
        device it came in by; for `pkt` at output (`out`) the one by which answers are delivered. None if there is none."""
        return None

    def route_back(self, pkt: Packet) -> CachedRoute | None:
        """The route that answers to `pkt` take: to the source its connection has in this direction, out of the device it came in by
        (Linux: nft_flow_route); None if there is none."""
        raise NotImplementedError


def tag_code(proto: cython.int, vid: cython.int) -> cython.uint:
    """One VLAN tag as 16 bits, never 0: the id, 0x1000, and 0x2000 for 802.1ad. Two tags: the outer one in the low half."""
    code: cython.uint = vid & 0xFFF
    return code | (0x3000 if proto == ETH_P_8021AD else 0x1000)


def tags_of(pkt: Packet) -> cython.uint:
    """The tags of a parsed frame that has some; 0: more than two, or one that only carries a priority (id 0)."""
    count: cython.Py_ssize_t = (pkt.l3 - pkt.start - 14) >> 2
    code: cython.uint
    inner: cython.uint
    if count < 1 or count > 2:
        return 0
    vid: cython.int = pkt.get16(pkt.start + 14) & 0xFFF
    if vid == 0:
        return 0
    code = tag_code(pkt.get16(pkt.start + 12), vid)
    if count == 2:
        vid = pkt.get16(pkt.start + 18) & 0xFFF
        if vid == 0:
            return 0
        inner = tag_code(pkt.get16(pkt.start + 16), vid)
        code |= inner << 16
    return code


def untag(device: Device, lowest: Device) -> cython.uint:
    """The tags that frames of `device` carry on `lowest`, a device below it."""
    code: cython.uint = 0
    step: Device | None = device
    while step is not None and step is not lowest:
        code = (code << 16) | tag_code(step.vlan_proto, step.vlan_id)
        step = step.parent
    return code
