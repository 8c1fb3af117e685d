"""ARP: asking and answering for IPv4 over Ethernet (RFC 826, RFC 5227; Linux: net/ipv4/arp.c).

Laws: requests for the gateway's own addresses are answered, whatever device owns them (arp_ignore 0); a neighbour is learned
from a request to us or updated from a reply, never created by traffic that is not for us. Frames pass the arp hooks.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from userfw.core.const import (
        ARPHRD_ETHER,
        NF_ACCEPT,
        NF_ARP_IN,
        NF_ARP_OUT,
        NFPROTO_ARP,
        NFPROTO_IPV4,
        PACKET_HOST,
        PACKET_LOOPBACK,
        PACKET_OTHERHOST,
        U32_MASK,
    )
    from userfw.core.drop import DROP_MALFORMED, DROP_NOT_SPECIFIED, DROP_OTHERHOST
    from userfw.core.packet import Device, Packet
    from userfw.router.base import Router
    from userfw.router.const import (
        ARPOP_REPLY,
        ARPOP_REQUEST,
        NUD_REACHABLE,
        NUD_STALE,
        OVERRIDE_NO,
        OVERRIDE_YES,
        RTN_LOCAL,
        SCOPE_LINK,
    )
    from userfw.router.neigh import NeighbourTable, Solicitor
    from userfw.router.types import Dst, Neighbour
    from userfw.wire.build import arp, ethernet
from userfw.router.source import select_ipv4


class Arp(Solicitor):
    """The ARP side of one gateway."""

    def __init__(self, router: Router, table: NeighbourTable) -> None:
        self.router = router
        self.table = table

    def solicit(self, neigh: Neighbour, pkt: Packet | None, unicast: cython.bint) -> cython.int:
        """Linux: arp_solicit with arp_announce 0."""
        device: Device = neigh.device
        target: cython.uint = neigh.lo & U32_MASK
        source: cython.uint = 0
        if pkt is not None and pkt.nfproto == NFPROTO_IPV4:
            source = pkt.get32(pkt.l3 + 12)
            if self.router.routes.resolve(NFPROTO_IPV4, 0, source, 0, 0, 0, None).type != RTN_LOCAL:
                source = 0
        if source == 0:
            source = select_ipv4(self.router, device, target, SCOPE_LINK)
        if unicast:
            return self.send(device, ARPOP_REQUEST, source, target, neigh.mac_hi, neigh.mac_lo, 0, 0)
        return self.send(device, ARPOP_REQUEST, source, target, U32_MASK, 0xFFFF, 0, 0)

    def announce(self, device: Device, address: cython.uint) -> cython.int:
        """A gratuitous request: tells the link who owns the address (RFC 5227 2.3)."""
        return self.send(device, ARPOP_REQUEST, address, address, U32_MASK, 0xFFFF, 0, 0)

    def send(
        self,
        device: Device,
        op: cython.int,
        source: cython.uint,
        target: cython.uint,
        to_hi: cython.uint,
        to_lo: cython.uint,
        target_hi: cython.uint,
        target_lo: cython.uint,
    ) -> cython.int:
        """Build one frame, run the arp output hook (which finds no link header, but counts it), transmit."""
        pkt: Packet = self.router.take()
        arp(pkt, op, device.mac_hi, device.mac_lo, source, target_hi, target_lo, target)
        pkt.oif = device
        verdict: cython.int = self.router.run_hooks(NFPROTO_ARP, NF_ARP_OUT, pkt)
        if verdict == NF_ACCEPT:
            ethernet(pkt, to_hi, to_lo, device.mac_hi, device.mac_lo)
            self.router.transmit(pkt, device)
        else:
            self.router.verdict(pkt, verdict)
        self.router.give(pkt)
        return 0

    def receive_untrusted(self, pkt: Packet) -> cython.int:
        """An ARP frame from the wire (Linux: arp_rcv); 0 or the DROP_* reason, counted."""
        device: Device = cython.cast(Device, pkt.iif)
        if pkt.pkttype in (PACKET_OTHERHOST, PACKET_LOOPBACK) or device.type != ARPHRD_ETHER:
            return self.router.drop(pkt, DROP_OTHERHOST)
        if pkt.get16(pkt.l3 + 4) != 0x0604:
            return self.router.drop(pkt, DROP_MALFORMED)
        verdict: cython.int = self.router.run_hooks(NFPROTO_ARP, NF_ARP_IN, pkt)
        if verdict != NF_ACCEPT:
            return self.router.verdict(pkt, verdict)
        return self._process(pkt, device)

    def _process(self, pkt: Packet, device: Device) -> cython.int:
        """Linux: arp_process."""
        l3: cython.Py_ssize_t = pkt.l3
        hardware: cython.int = pkt.get16(l3)
        op: cython.int = pkt.get16(l3 + 6)
        if hardware not in (1, 6) or pkt.get16(l3 + 2) != 0x0800 or op not in (ARPOP_REQUEST, ARPOP_REPLY):
            return self.router.drop(pkt, DROP_MALFORMED)
        sha_hi: cython.uint = pkt.get32(l3 + 8)
        sha_lo: cython.uint = pkt.get16(l3 + 12)
        sip: cython.uint = pkt.get32(l3 + 14)
        tip: cython.uint = pkt.get32(l3 + 24)
        if (tip >> 28) == 14 or (tip >> 24) == 127:
            return DROP_NOT_SPECIFIED
        dst: Dst = self.router.routes.resolve(NFPROTO_IPV4, 0, tip, 0, 0, 0, device)
        if sip == 0:
            if op == ARPOP_REQUEST and dst.type == RTN_LOCAL and self._answers(dst, device):
                self.send(device, ARPOP_REPLY, tip, 0, sha_hi, sha_lo, sha_hi, sha_lo)
            return DROP_NOT_SPECIFIED
        if op == ARPOP_REQUEST and dst.type == RTN_LOCAL:
            return self._answer(device, dst, sip, tip, sha_hi, sha_lo)
        self._learn(pkt, device, op, sip, tip, sha_hi, sha_lo)
        return DROP_NOT_SPECIFIED

    def _answers(self, dst: Dst, device: Device) -> cython.bint:
        """arp_ignore: 0 any own address, 1 and 2 only addresses of the device asked on, 8 none."""
        level: cython.int = self.router.settings.arp_ignore
        if level == 0:
            return True
        return level < 8 and dst.oif is device

    def _answer(
        self, device: Device, dst: Dst, sip: cython.uint, tip: cython.uint, sha_hi: cython.uint, sha_lo: cython.uint
    ) -> cython.int:
        source: Dst = self.router.routes.resolve(NFPROTO_IPV4, 0, sip, 0, 0, 0, device)
        if source.type == RTN_LOCAL or sip >> 28 == 14 or sip >> 24 == 127:
            return DROP_NOT_SPECIFIED
        if not self._answers(dst, device):
            return DROP_NOT_SPECIFIED
        neigh: Neighbour | None = self.table.obtain(device, NFPROTO_IPV4, 0, sip)
        if neigh is not None:
            self.table.update(neigh, sha_hi, sha_lo, True, NUD_STALE, OVERRIDE_YES)
            self.send(device, ARPOP_REPLY, tip, sip, sha_hi, sha_lo, sha_hi, sha_lo)
        return DROP_NOT_SPECIFIED

    def _learn(
        self,
        pkt: Packet,
        device: Device,
        op: cython.int,
        sip: cython.uint,
        tip: cython.uint,
        sha_hi: cython.uint,
        sha_lo: cython.uint,
    ) -> None:
        """A reply, or a request to somebody else, updates a known neighbour; a new address within `locktime` is not believed."""
        neigh: Neighbour | None = self.table.get(device, NFPROTO_IPV4, 0, sip)
        if neigh is None:
            return
        gratuitous: cython.bint = sip == tip
        state: cython.int = NUD_REACHABLE if op == ARPOP_REPLY and pkt.pkttype == PACKET_HOST else NUD_STALE
        late: cython.bint = self.router.clock.now > neigh.updated + self.router.settings.locktime
        self.table.update(neigh, sha_hi, sha_lo, True, state, OVERRIDE_YES if late or gratuitous else OVERRIDE_NO)
