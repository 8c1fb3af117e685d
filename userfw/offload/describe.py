"""From a flow of the flowtable to the rules of the contract, and to words.

Law: a rule says what the software flow does, at the device on the wire: VLAN devices above it are tags in match and actions,
and in the place of a bridge stands the port.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from userfw.core.const import ETH_P_8021AD, ETH_P_8021Q, NFPROTO_IPV4
from userfw.core.fastpath import Crossing, tag_code
from userfw.core.packet import Device
from userfw.flowtable.flow import Flow, FlowTuple
from userfw.offload.contract import Actions, Match
from userfw.router.const import NUD_VALID

Cross = Callable[[Any, int, int, Device, int], object]

IPPROTO = {6: "tcp", 17: "udp"}


def rule_of(flow: Flow, side: FlowTuple, number: Callable[[Device], int]) -> tuple[Match, Actions]:
    """One direction; `number` gives the system's interface index of a device."""
    size = 4 if flow.family == NFPROTO_IPV4 else 16
    arrives: Device = flow.reply.route.oif if side.dir == 0 else flow.original.route.oif
    if side.arrives is not None:
        arrives = side.arrives
    leaves: Device = side.route.oif
    match_device, match_tags = carrier(arrives, side.comes)
    out_device, out_tags = carrier(leaves, side.goes)
    bridge = side.comes.bridge if side.comes is not None else None
    match = Match(
        match_device.name,
        number(match_device),
        flow.l4proto,
        address(side.src_hi, side.src_lo, size),
        address(side.dst_hi, side.dst_lo, size),
        side.ports >> 16,
        side.ports & 0xFFFF,
        match_tags,
        flow.conn.zone,
        ethernet=bridge.mac if bridge is not None and bridge.mac != match_device.mac else b"",
    )
    actions = Actions(
        out_device.name,
        number(out_device),
        address(side.new_src_hi, side.new_src_lo, size),
        address(side.new_dst_hi, side.new_dst_lo, size),
        side.new_ports >> 16,
        side.new_ports & 0xFFFF,
        leaves.mac,
        link_address(side) or b"",
        out_tags,
        side.mtu,
    )
    return match, actions


def obstacle(flow: Flow, cross: Cross) -> str:
    """Why no device can take over this flow, whatever it can do; empty if nothing does. `cross`: as Gateway.walk_bridge."""
    for there, back in ((flow.original, flow.reply), (flow.reply, flow.original)):
        if there.local:
            return "it ends at the gateway's own services (local delivery)"
        device: Device = there.route.oif
        base, tags = untagged(device)
        if base.bridge is not None and base.master is None and (there.goes is None or back.comes is None):
            return _uncrossed(flow, there, base, tags, cross)
        if there.goes is None and base.master is not None:
            return f"{base.name} is a port of {base.master.name}: a device cannot tell whose frames are tagged"
        if not base.mac:
            return f"{base.name} has no link layer"
    return ""


def _uncrossed(flow: Flow, there: FlowTuple, bridge: Device, tags: tuple[tuple[int, int], ...], cross: Cross) -> str:
    """Why a bridge on the way is not passed over."""
    code = sum(tag_code(*tag) << 16 * place for place, tag in enumerate(tags))
    found = cross(there.route, there.new_dst_hi, there.new_dst_lo, bridge, code)
    if not isinstance(found, Crossing):
        return str(found)
    assert found.port is not None
    if there.goes is None and not flow.table.has_port(found.port):
        return f"{bridge.name} is a bridge, and the flowtable does not have its port {found.port.name}"
    if not found.both:
        return f"{bridge.name}: what comes in at {found.port.name} does not get the VLAN that leaves there"
    if there.goes is None:
        return f"a device between {there.route.oif.name} and {found.port.name} has an egress chain, or there are too many tags"
    return f"a device between {there.route.oif.name} and {found.port.name} has an ingress chain, or there are too many tags"


def ends(side: FlowTuple, family: int) -> str:
    """`source:port > destination:port` as it arrives."""
    size = 4 if family == NFPROTO_IPV4 else 16
    source = ip_address(address(side.src_hi, side.src_lo, size))
    destination = ip_address(address(side.dst_hi, side.dst_lo, size))
    form = "{}:{}" if size == 4 else "[{}]:{}"
    return f"{form.format(source, side.ports >> 16)} > {form.format(destination, side.ports & 0xFFFF)}"


def address(hi: int, lo: int, size: int) -> bytes:
    """An address in network order."""
    return ((hi << 64) | lo).to_bytes(16, "big")[16 - size :]


def untagged(device: Device) -> tuple[Device, tuple[tuple[int, int], ...]]:
    """The device that carries `device`'s frames, and the tags they have there, outermost first."""
    tags: tuple[tuple[int, int], ...] = ()
    while device.parent is not None:
        tags = ((device.vlan_proto, device.vlan_id), *tags)
        device = device.parent
    return device, tags


def carrier(device: Device, crossing: Any) -> tuple[Device, tuple[tuple[int, int], ...]]:
    """As `untagged`, the bridge of a Crossing passed over."""
    base, tags = untagged(device)
    if crossing is None:
        return base, tags
    lowest, below = untagged(crossing.port)
    code = int(crossing.tags)
    while code:
        below = (*below, (ETH_P_8021AD if code & 0x2000 else ETH_P_8021Q, code & 0xFFF))
        code >>= 16
    return lowest, below


def link_address(side: FlowTuple) -> bytes | None:
    """The link-layer address that packets of this direction are sent to, if it is known."""
    neighbour = side.route.neigh
    if neighbour is None or neighbour.dead or not neighbour.state & NUD_VALID:
        return None
    mac: bytes = neighbour.mac
    return mac
