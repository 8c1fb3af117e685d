"""From a flow of the flowtable to the rules of the contract, and to words.

Law: a rule says what the software flow does, at the device on the wire: VLAN devices above it are tags in match and actions.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address

from userfw.core.const import NFPROTO_IPV4
from userfw.core.packet import Device
from userfw.flowtable.flow import Flow, FlowTuple
from userfw.offload.contract import Actions, Match
from userfw.router.const import NUD_VALID

IPPROTO = {6: "tcp", 17: "udp"}


def rule_of(flow: Flow, side: FlowTuple, number: Callable[[Device], int]) -> tuple[Match, Actions]:
    """One direction; `number` gives the system's interface index of a device."""
    size = 4 if flow.family == NFPROTO_IPV4 else 16
    arrives: Device = flow.reply.route.oif if side.dir == 0 else flow.original.route.oif
    if side.arrives is not None:
        arrives = side.arrives
    leaves: Device = side.route.oif
    match_device, match_tags = untagged(arrives)
    out_device, out_tags = untagged(leaves)
    match = Match(
        match_device.name,
        number(match_device),
        flow.l4proto,
        address(side.src_hi, side.src_lo, size),
        address(side.dst_hi, side.dst_lo, size),
        side.ports >> 16,
        side.ports & 0xFFFF,
        match_tags,
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


def obstacle(flow: Flow) -> str:
    """Why no device can take over this flow, whatever it can do; empty if nothing speaks against it."""
    for side in (flow.original, flow.reply):
        for device in (side.arrives, side.route.oif):
            if device is None:
                continue
            base, _ = untagged(device)
            if base.kind == "bridge" or base.bridge is not None:
                return f"{base.name} is a bridge: its port may change with every frame"
            if not base.mac:
                return f"{base.name} has no link layer (local delivery)"
    return ""


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


def link_address(side: FlowTuple) -> bytes | None:
    """The link-layer address that packets of this direction are sent to, if it is known."""
    neighbour = side.route.neigh
    if neighbour is None or neighbour.dead or not neighbour.state & NUD_VALID:
        return None
    mac: bytes = neighbour.mac
    return mac
