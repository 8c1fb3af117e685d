"""Neighbour discovery of a router (RFC 4861; Linux: net/ipv6/ndisc.c): soliciting, advertising, learning.

Laws: messages without hop limit 255, with a code, with options that do not add up are dropped. An address is answered for on
the device that has it. Router advertisements and redirects of others are ignored, as a forwarding Linux does; router
solicitations teach the neighbour and wake the advertiser. Messages we send pass the output and postrouting hooks.
"""

from __future__ import annotations

import cython

from userfw.engine.services import DISCOVERY

if not cython.compiled:
    from userfw.core.const import ARPHRD_ETHER, IPPROTO_ICMPV6, NFPROTO_IPV6
    from userfw.core.drop import DROP_HOP_LIMIT, DROP_MALFORMED, DROP_NOT_SPECIFIED
    from userfw.core.packet import Address, Device, Packet
    from userfw.router.base import Router
    from userfw.router.const import (
        NDISC_NA,
        NDISC_NS,
        NDISC_RS,
        NUD_FAILED,
        NUD_REACHABLE,
        NUD_STALE,
        OVERRIDE_WEAK,
        OVERRIDE_YES,
        RTN_ANYCAST,
        RTN_UNICAST,
    )
    from userfw.router.neigh import NeighbourTable, Solicitor
    from userfw.router.ra import Advertiser
    from userfw.router.types import Dst, Neighbour
    from userfw.wire.build import icmp_checksum, ipv6
from userfw.router.source import select_ipv6

SOURCE_LLA = 1
TARGET_LLA = 2


class Ndisc(Solicitor):
    """The neighbour discovery side of one gateway."""

    def __init__(self, router: Router, table: NeighbourTable) -> None:
        self.router = router
        self.table = table
        self.advertiser: Advertiser | None = None

    # -- sending

    def solicit(self, neigh: Neighbour, pkt: Packet | None, unicast: cython.bint) -> cython.int:
        """Linux: ndisc_solicit. The waiting packet's source if the device owns it, else the link-local address."""
        device: Device = neigh.device
        source = link_local_of(device)
        if pkt is not None and pkt.nfproto == NFPROTO_IPV6:
            hi: cython.ulonglong = pkt.get64(pkt.l3 + 8)
            lo: cython.ulonglong = pkt.get64(pkt.l3 + 16)
            if owns(device, hi, lo):
                source = (hi, lo)
        if source is None:
            return 0
        to_hi: cython.ulonglong = neigh.hi if unicast else solicited_hi()
        to_lo: cython.ulonglong = neigh.lo if unicast else solicited_lo(neigh.lo)
        return self._solicit(device, neigh, source[0], source[1], to_hi, to_lo)

    def _solicit(
        self,
        device: Device,
        neigh: Neighbour,
        src_hi: cython.ulonglong,
        src_lo: cython.ulonglong,
        hi: cython.ulonglong,
        lo: cython.ulonglong,
    ) -> cython.int:
        pkt: Packet = self.router.take()
        ipv6(pkt, IPPROTO_ICMPV6, 32, src_hi, src_lo, hi, lo, 255, 0)
        pkt.put32(pkt.l4, NDISC_NS << 24)
        pkt.put32(pkt.l4 + 4, 0)
        pkt.put64(pkt.l4 + 8, neigh.hi)
        pkt.put64(pkt.l4 + 16, neigh.lo)
        _lla_option(pkt, pkt.l4 + 24, SOURCE_LLA, device)
        return self.send(pkt, device, hi, lo)

    def advertise(
        self,
        device: Device,
        to_hi: cython.ulonglong,
        to_lo: cython.ulonglong,
        target_hi: cython.ulonglong,
        target_lo: cython.ulonglong,
        flags: cython.uint,
        option: cython.bint,
    ) -> cython.int:
        """A neighbour advertisement; `flags`: 4 router, 2 solicited, 1 override (Linux: ndisc_send_na)."""
        source = (target_hi, target_lo)
        if not owns(device, target_hi, target_lo):
            found = select_ipv6(self.router, device, to_hi, to_lo)
            if found is None:
                return 0
            source = found
        pkt: Packet = self.router.take()
        ipv6(pkt, IPPROTO_ICMPV6, 32 if option else 24, source[0], source[1], to_hi, to_lo, 255, 0)
        pkt.put32(pkt.l4, NDISC_NA << 24)
        pkt.put32(pkt.l4 + 4, flags << 29)
        pkt.put64(pkt.l4 + 8, target_hi)
        pkt.put64(pkt.l4 + 16, target_lo)
        if option:
            _lla_option(pkt, pkt.l4 + 24, TARGET_LLA, device)
        return self.send(pkt, device, to_hi, to_lo)

    def announce(self, device: Device, hi: cython.ulonglong, lo: cython.ulonglong) -> cython.int:
        """An unsolicited advertisement to all nodes (RFC 4861 7.2.6)."""
        all_hi: cython.ulonglong = 0xFF02
        return self.advertise(device, all_hi << 48, 1, hi, lo, 5, True)

    def send(self, pkt: Packet, device: Device, hi: cython.ulonglong, lo: cython.ulonglong) -> cython.int:
        """Checksum, and out of `device` to a destination on its link."""
        dst: Dst = Dst(self.router.routes.generation)
        icmp_checksum(pkt)
        dst.family = NFPROTO_IPV6
        dst.type = RTN_UNICAST
        dst.oif = device
        dst.mtu = device.mtu
        dst.via_family = NFPROTO_IPV6
        dst.key_hi = dst.via_hi = hi
        dst.key_lo = dst.via_lo = lo
        pkt.route = dst
        pkt.extra = DISCOVERY
        self.router.local_out(pkt)
        self.router.give(pkt)
        return 0

    # -- receiving

    def receive_untrusted(self, pkt: Packet) -> cython.int:
        """A whole ICMPv6 message of types 133 to 137 with a right checksum; 0 or the DROP_* reason, counted."""
        kind: cython.int = pkt.get8(pkt.l4)
        device: Device | None = pkt.iif
        if device is None or device.type != ARPHRD_ETHER:
            return DROP_NOT_SPECIFIED
        if pkt.get8(pkt.l3 + 7) != 255:
            return self.router.drop(pkt, DROP_HOP_LIMIT)
        if pkt.get8(pkt.l4 + 1) != 0:
            return self.router.drop(pkt, DROP_MALFORMED)
        if kind == NDISC_NS:
            return self._solicited(pkt, device)
        if kind == NDISC_NA:
            return self._advertised(pkt, device)
        if kind == NDISC_RS:
            return self._router_solicited(pkt, device)
        return DROP_NOT_SPECIFIED

    def _solicited(self, pkt: Packet, device: Device) -> cython.int:
        """Linux: ndisc_recv_ns."""
        l4: cython.Py_ssize_t = pkt.l4
        if pkt.end - l4 < 24 or pkt.get8(l4 + 8) == 0xFF:
            return self.router.drop(pkt, DROP_MALFORMED)
        hi: cython.ulonglong = pkt.get64(pkt.l3 + 8)
        lo: cython.ulonglong = pkt.get64(pkt.l3 + 16)
        to_hi: cython.ulonglong = pkt.get64(pkt.l3 + 24)
        to_lo: cython.ulonglong = pkt.get64(pkt.l3 + 32)
        target_hi: cython.ulonglong = pkt.get64(l4 + 8)
        target_lo: cython.ulonglong = pkt.get64(l4 + 16)
        detecting: cython.bint = hi == 0 and lo == 0
        option: cython.Py_ssize_t = find_option(pkt, l4 + 24, SOURCE_LLA)
        if option == -2 or (detecting and (option >= 0 or to_hi != solicited_hi() or to_lo >> 24 != 0x1FF)):
            return self.router.drop(pkt, DROP_MALFORMED)
        own: cython.bint = owns(device, target_hi, target_lo)
        if not own and not self._anycast(device, target_hi, target_lo):
            return DROP_NOT_SPECIFIED
        router: cython.uint = 4 if self.router.settings.forward6 else 0
        if detecting:
            all_hi: cython.ulonglong = 0xFF02
            self.advertise(device, all_hi << 48, 1, target_hi, target_lo, router | (1 if own else 0), True)
            return DROP_NOT_SPECIFIED
        multicast: cython.bint = to_hi >> 56 == 0xFF
        neigh: Neighbour | None = self.table.get(device, NFPROTO_IPV6, hi, lo)
        if neigh is None and (option >= 0 or not multicast):
            neigh = self.table.obtain(device, NFPROTO_IPV6, hi, lo)
        if neigh is None:
            return DROP_NOT_SPECIFIED
        self._learn(pkt, neigh, option, NUD_STALE, OVERRIDE_YES)
        self.advertise(device, hi, lo, target_hi, target_lo, router | 2 | (1 if own and multicast else 0), multicast)
        return DROP_NOT_SPECIFIED

    def _advertised(self, pkt: Packet, device: Device) -> cython.int:
        """Linux: ndisc_recv_na."""
        l4: cython.Py_ssize_t = pkt.l4
        if pkt.end - l4 < 24 or pkt.get8(l4 + 8) == 0xFF:
            return self.router.drop(pkt, DROP_MALFORMED)
        flags: cython.uint = pkt.get8(l4 + 4) >> 5
        option: cython.Py_ssize_t = find_option(pkt, l4 + 24, TARGET_LLA)
        if option == -2 or (flags & 2 and pkt.get8(pkt.l3 + 24) == 0xFF):
            return self.router.drop(pkt, DROP_MALFORMED)
        neigh: Neighbour | None = self.table.get(device, NFPROTO_IPV6, pkt.get64(l4 + 8), pkt.get64(l4 + 16))
        if neigh is None or neigh.state == NUD_FAILED:
            return DROP_NOT_SPECIFIED
        self._learn(pkt, neigh, option, NUD_REACHABLE if flags & 2 else NUD_STALE, OVERRIDE_YES if flags & 1 else OVERRIDE_WEAK)
        neigh.is_router = (flags & 4) != 0
        return DROP_NOT_SPECIFIED

    def _router_solicited(self, pkt: Packet, device: Device) -> cython.int:
        """Linux: ndisc_recv_rs; then RFC 4861 6.2.6."""
        hi: cython.ulonglong = pkt.get64(pkt.l3 + 8)
        lo: cython.ulonglong = pkt.get64(pkt.l3 + 16)
        option: cython.Py_ssize_t = find_option(pkt, pkt.l4 + 8, SOURCE_LLA)
        if option == -2:
            return self.router.drop(pkt, DROP_MALFORMED)
        if not self.router.settings.forward6:
            return DROP_NOT_SPECIFIED
        unspecified: cython.bint = hi == 0 and lo == 0
        if unspecified and option >= 0:
            return self.router.drop(pkt, DROP_MALFORMED)
        if not unspecified and option >= 0:
            neigh: Neighbour | None = self.table.obtain(device, NFPROTO_IPV6, hi, lo)
            if neigh is not None:
                self._learn(pkt, neigh, option, NUD_STALE, OVERRIDE_YES)
                neigh.is_router = False
        if self.advertiser is not None:
            self.advertiser.solicited(device)
        return DROP_NOT_SPECIFIED

    def _learn(
        self, pkt: Packet, neigh: Neighbour, option: cython.Py_ssize_t, state: cython.int, override: cython.int
    ) -> None:
        if option >= 0:
            self.table.update(neigh, pkt.get32(option + 2), pkt.get16(option + 6), True, state, override)
        else:
            self.table.update(neigh, 0, 0, False, state, override)

    def _anycast(self, device: Device, hi: cython.ulonglong, lo: cython.ulonglong) -> cython.bint:
        dst: Dst = self.router.routes.resolve(NFPROTO_IPV6, hi, lo, 0, 0, 0, device)
        return dst.type == RTN_ANYCAST and dst.oif is device


def owns(device: Device, hi: cython.ulonglong, lo: cython.ulonglong) -> cython.bint:
    """The IPv6 address is one of the device's."""
    i: cython.Py_ssize_t
    address: Address
    for i in range(len(device.addresses)):
        address = device.addresses[i]
        if address.lo == lo and address.hi == hi and address.family == NFPROTO_IPV6:
            return True
    return False


def solicited_hi() -> cython.ulonglong:
    """First half of every solicited-node group, ff02::1:ff00:0/104."""
    value: cython.ulonglong = 0xFF02
    return value << 48


def solicited_lo(lo: cython.ulonglong) -> cython.ulonglong:
    """Second half of an address's solicited-node group (RFC 4291 2.7.1)."""
    value: cython.ulonglong = 0x1FF
    return (value << 24) | (lo & 0xFFFFFF)


def find_option(pkt: Packet, off: cython.Py_ssize_t, kind: cython.int) -> cython.Py_ssize_t:
    """Offset of the first link-layer address option of a kind; -1: none, -2: the options are malformed (RFC 4861 4.6)."""
    found: cython.Py_ssize_t = -1
    length: cython.Py_ssize_t
    while off < pkt.end:
        if off + 2 > pkt.end:
            return -2
        length = pkt.get8(off + 1) * 8
        if length == 0 or off + length > pkt.end:
            return -2
        if found < 0 and pkt.get8(off) == kind:
            if length != 8:
                return -2
            found = off
        off += length
    return found


def _lla_option(pkt: Packet, off: cython.Py_ssize_t, kind: cython.int, device: Device) -> None:
    pkt.put16(off, (kind << 8) | 1)
    pkt.put32(off + 2, device.mac_hi)
    pkt.put16(off + 6, device.mac_lo)


def link_local_of(device: Device) -> tuple[int, int] | None:
    """The device's own link-local address, or None."""
    address: Address
    for address in device.addresses:
        if address.family == NFPROTO_IPV6 and address.hi >> 54 == 0x3FA:
            return (address.hi, address.lo)
    return None
