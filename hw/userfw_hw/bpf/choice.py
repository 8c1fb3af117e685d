"""Where the forwarding program goes on an interface: XDP or tc ingress, and why.

What is known of an interface (`Facts`) decides, the configuration may force it; both answer in words.
- The other end of a veth (tun, bridge, …) is a stack of this machine: its large sends and unfinished checksums stay whole at tc,
  while XDP would have them cut and counted by the processor. So tc.
- A driver with XDP of its own forwards small packets fastest there. So XDP, native; generic only if it is asked for.
- At XDP a tag that the card or a veth keeps beside the frame is not seen. So no XDP where VLAN devices are.
"""

from __future__ import annotations

import errno
import socket
import struct
from dataclasses import dataclass

from userfw.ports.netlink import NLM_F_REQUEST, Netlink, attribute, attributes_untrusted
from userfw.ports.netns import run_in
from userfw.ports.xdp import driver as driver_of

# Linux: include/uapi/linux/netdev.h
ACT_BASIC, ACT_REDIRECT, NDO_XMIT = 1, 2, 4
GENERIC_NETLINK = 16
GENL_ID_CTRL = 16
LOCAL = frozenset({"veth", "tun", "bridge", "bonding", "team", "macvlan", "ipvlan", "dummy", "vxlan", "802.1Q VLAN Support", "ifb"})
# Drivers with XDP_REDIRECT both ways, for kernels that do not tell (before 6.3).
NATIVE = frozenset({
    "virtio_net", "mlx5_core", "mlx4_en", "i40e", "ice", "ixgbe", "igb", "igc", "bnxt_en", "nfp", "ena", "hv_netvsc", "mvneta",
    "mvpp2", "stmmac", "enetc", "fsl_dpaa2_eth", "sfc", "qede", "octeontx2", "gve", "mana", "lan966x-switch", "tsnep",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of an interface. `port`: packet, capture or xdp. `features`: what the kernel says of its XDP, None if it says
    nothing. `vlans`: there are VLAN devices on it. `xdp_mode`: how an AF_XDP port is attached already."""

    port: str
    driver: str = ""
    features: int | None = None
    vlans: bool = False
    xdp_mode: str = ""

    @property
    def native(self) -> bool:
        """The driver runs and redirects at XDP itself."""
        if self.features is not None:
            return self.features & (ACT_BASIC | ACT_REDIRECT) == ACT_BASIC | ACT_REDIRECT
        return self.driver in NATIVE

    @property
    def takes(self) -> bool:
        """Frames can be redirected to it from a driver's XDP."""
        return bool(self.features & NDO_XMIT) if self.features is not None else self.driver in NATIVE


@dataclass(frozen=True, slots=True)
class Choice:
    """`kind` "xdp" or "tc"; `mode` of XDP: native or generic. `reason` completes "because …"."""

    kind: str
    reason: str
    mode: str = ""

    @property
    def where(self) -> str:
        """For people."""
        return f"XDP ({self.mode})" if self.kind == "xdp" else "tc ingress"


def choose(facts: Facts, forced: str = "auto") -> Choice | str:
    """Where to attach, or the words for why nowhere."""
    if facts.port not in ("packet", "capture", "xdp"):
        return "the port has no interface of its own on the gateway's side"
    if facts.port == "xdp":
        if forced == "tc":
            return 'a port of type "xdp" gets its frames before tc does'
        return Choice("xdp", "the port's frames come by XDP already", facts.xdp_mode or "native")
    if forced == "xdp":
        return _forced_xdp(facts)
    if forced == "tc":
        return Choice("tc", "the configuration says so")
    if facts.port == "capture":
        return Choice("tc", 'the port has capture = "tc"')
    name = facts.driver or "its driver"
    if facts.driver in LOCAL:
        return Choice("tc", f"{name}: the other end is a local stack, whose large sends and checksums tc leaves whole")
    if facts.vlans:
        return Choice("tc", "VLAN devices are on it, and tags may stand beside the frame, where XDP does not look")
    if facts.native:
        return Choice("xdp", f"{name} forwards at XDP itself", "native")
    return Choice("tc", f"{name} has no XDP of its own")


def _forced_xdp(facts: Facts) -> Choice | str:
    if facts.port == "capture":
        return 'a port with capture = "tc" cannot use XDP'
    if facts.vlans:
        return "VLAN devices are on it, and XDP may not see the tags; use tc"
    if facts.native and (facts.takes or facts.driver not in LOCAL):
        return Choice("xdp", "the configuration says so", "native")
    why = "frames cannot be redirected to it natively (no NAPI at the other end)" if facts.native else "its driver has no XDP"
    return Choice("xdp", f"the configuration says so; generic, because {why}", "generic")


def facts_of(port: object, system_name: str, ifindex: int, netns: str | None, vlans: bool) -> Facts:
    """Ask the kernel about an interface."""
    kind = getattr(port, "kind", "")
    shared = getattr(port, "shared", None)
    return Facts(
        kind,
        run_in(netns, lambda: driver_of(system_name)),
        xdp_features(ifindex, netns),
        vlans,
        str(getattr(shared, "mode", "")),
    )


def takes_frames(ifindex: int, netns: str | None) -> bool:
    """Frames can be redirected to an interface from a driver's XDP."""
    return Facts("", driver_of_index(ifindex, netns), xdp_features(ifindex, netns)).takes


def driver_of_index(ifindex: int, netns: str | None) -> str:
    """The interface's driver; empty if it is gone."""
    try:
        return run_in(netns, lambda: driver_of(socket.if_indextoname(ifindex)))
    except OSError:
        return ""


def xdp_features(ifindex: int, netns: str | None) -> int | None:
    """NETDEV_XDP_ACT_* of an interface by generic netlink's family "netdev" (Linux 6.3); None if the kernel has none."""
    netlink = Netlink(netns, protocol=GENERIC_NETLINK)
    try:
        family = b""
        ask = struct.pack("=BBH", 3, 1, 0) + attribute(2, b"netdev\0")  # CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_NAME
        for _, body in netlink.request(GENL_ID_CTRL, NLM_F_REQUEST, ask):
            family = attributes_untrusted(body[4:]).get(1, b"")  # CTRL_ATTR_FAMILY_ID
        if len(family) != 2:
            return None
        ask = struct.pack("=BBH", 1, 1, 0) + attribute(1, struct.pack("=I", ifindex))  # NETDEV_CMD_DEV_GET, _IFINDEX
        for _, body in netlink.request(struct.unpack("=H", family)[0], NLM_F_REQUEST, ask):
            features = attributes_untrusted(body[4:]).get(3, b"")  # NETDEV_A_DEV_XDP_FEATURES
            if len(features) == 8:
                return int(struct.unpack("=Q", features)[0])
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EOPNOTSUPP, errno.EINVAL, errno.ENODEV):
            raise
    finally:
        netlink.close()
    return None
