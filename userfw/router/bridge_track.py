"""Connection tracking in the bridge family (Linux: nf_conntrack_bridge.c).

Laws:
- IPv4 and IPv6 that is whole is tracked at prerouting, fragments being put together first; everything else is untracked.
- What the bridge forwards is confirmed at postrouting. What goes up to the bridge itself keeps its connection, and the network
  layer's own entries confirm it; broadcasts and multicasts are confirmed at input, before there are several of them.
"""

from __future__ import annotations

import cython

from userfw.conntrack.track import Confirm, ConntrackIn
from userfw.core.const import CT_UNTRACKED, IPS_TEMPLATE, NF_ACCEPT, NF_DROP, NF_STOLEN, NFPROTO_IPV4, NFPROTO_IPV6, PACKET_HOST
from userfw.core.hook import HookEntry
from userfw.core.packet import Packet
from userfw.router.reassembly import Reassembly
from userfw.wire.parse import trim

USER_BRIDGE = 3  # a queue of fragments of its own, beside those of router.const


class BridgeTrack(HookEntry):
    """At prerouting, priority -200."""

    def __init__(self, track: ConntrackIn, reassembly: Reassembly) -> None:
        super().__init__(-200)
        self.track = track
        self.reassembly = reassembly

    def run(self, pkt: Packet, hook: cython.int) -> cython.int:
        """Linux: nf_ct_bridge_pre."""
        if (pkt.ct is not None and not pkt.ct.status & IPS_TEMPLATE) or pkt.ctinfo == CT_UNTRACKED:
            return NF_ACCEPT
        if pkt.nfproto not in (NFPROTO_IPV4, NFPROTO_IPV6) or pkt.l3 - pkt.start > 18:
            pkt.ct = None
            pkt.ctinfo = CT_UNTRACKED
            return NF_ACCEPT
        trim(pkt)
        if pkt.is_fragment:
            header = bytes(pkt.data[pkt.start : pkt.l3])
            tag = pkt.vlan_tci
            result = self.reassembly.gather_untrusted(pkt, USER_BRIDGE)
            if result <= 0:
                return NF_STOLEN if result == 0 else NF_DROP
            pkt.start = pkt.l3 - len(header)
            pkt.data[pkt.start : pkt.l3] = header
            pkt.vlan_tci = tag
        return self.track.run(pkt, hook)


class BridgeConfirm(HookEntry):
    """At input, last."""

    def __init__(self, confirm: Confirm) -> None:
        super().__init__(2147483647)
        self.confirm = confirm

    def run(self, pkt: Packet, hook: cython.int) -> cython.int:
        """Linux: nf_ct_bridge_in."""
        if pkt.ct is None or pkt.pkttype == PACKET_HOST:
            return NF_ACCEPT
        return self.confirm.run(pkt, hook)
