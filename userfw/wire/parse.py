"""From bytes to what we know of a frame: link layer, network header, where the transport header starts.

Laws: every length is checked before it is used, in the order Linux checks it (ip_rcv_core, ip6_rcv_core, ipv6_find_hdr);
the functions return a DROP_* reason and never raise for bad bytes. A frame that fails keeps `nfproto` NFPROTO_UNSPEC, so
netdev ingress chains can still judge it by its link layer before it is dropped.
"""

import cython

if not cython.compiled:
    from userfw.core.const import (
        ARPHRD_ETHER,
        ARPHRD_LOOPBACK,
        ETH_P_8021AD,
        ETH_P_8021Q,
        ETH_P_ARP,
        ETH_P_IP,
        ETH_P_IPV6,
        IPPROTO_AH,
        IPPROTO_DSTOPTS,
        IPPROTO_FRAGMENT,
        IPPROTO_HOPOPTS,
        IPPROTO_MH,
        IPPROTO_NONE,
        IPPROTO_ROUTING,
        NFPROTO_ARP,
        NFPROTO_IPV4,
        NFPROTO_IPV6,
        NFPROTO_UNSPEC,
        PACKET_BROADCAST,
        PACKET_HOST,
        PACKET_MULTICAST,
        PACKET_OTHERHOST,
    )
    from userfw.core.drop import DROP_CHECKSUM, DROP_MALFORMED, DROP_NOT_SPECIFIED, DROP_UNKNOWN_ETHERTYPE
    from userfw.core.packet import Device, Packet
    from userfw.wire.checksum import add_bytes, fold


def parse_untrusted(pkt: Packet) -> cython.int:
    """Parse the frame `data[start:end]` that came in on `pkt.iif`; 0 or the DROP_* reason."""
    reason: cython.int = parse_link_untrusted(pkt)
    if reason != DROP_NOT_SPECIFIED:
        return reason
    return parse_network_untrusted(pkt)


def parse_link_untrusted(pkt: Packet) -> cython.int:
    """Ethernet and VLAN tags, or the bare network header of a TUN device: sets l3, protocol, vlan_tci, pkttype."""
    pkt.nfproto = NFPROTO_UNSPEC
    pkt.has_l4 = False
    pkt.is_fragment = False
    pkt.fragoff = 0
    pkt.l4proto = 0
    pkt.vlan_tci = -1
    off: cython.Py_ssize_t = pkt.start
    device: Device | None = pkt.iif
    if device is not None and device.type != ARPHRD_ETHER and device.type != ARPHRD_LOOPBACK:
        return _bare(pkt)
    if pkt.end < off + 14:
        pkt.l3 = pkt.l4 = pkt.end
        return DROP_MALFORMED
    d: bytearray = pkt.data
    if d[off] & 1:
        broadcast: cython.int = d[off] & d[off + 1] & d[off + 2] & d[off + 3] & d[off + 4] & d[off + 5]
        pkt.pkttype = PACKET_BROADCAST if broadcast == 0xFF else PACKET_MULTICAST
    elif device is None or (pkt.get32(off) == device.mac_hi and pkt.get16(off + 4) == device.mac_lo):
        pkt.pkttype = PACKET_HOST
    else:
        pkt.pkttype = PACKET_OTHERHOST
    protocol: cython.int = pkt.get16(off + 12)
    off += 14
    while protocol in (ETH_P_8021Q, ETH_P_8021AD):
        if pkt.end < off + (6 if pkt.vlan_tci < 0 else 4):
            pkt.l3 = pkt.l4 = pkt.end
            return DROP_MALFORMED
        if pkt.vlan_tci < 0:
            pkt.vlan_tci = pkt.get16(off)
        protocol = pkt.get16(off + 2)
        off += 4
    pkt.protocol = protocol
    pkt.l3 = off
    pkt.l4 = off
    return DROP_NOT_SPECIFIED


def cut_tag_untrusted(pkt: Packet) -> cython.bint:
    """A malformed frame ends within its first tag and the type behind: it is no frame, even for ingress chains and bridges (Linux:
    skb_vlan_untag wants two octets more than the tag)."""
    off: cython.Py_ssize_t = pkt.start + 14
    device: Device | None = pkt.iif
    if pkt.end < off or pkt.end >= off + 6 or (device is not None and device.type not in (ARPHRD_ETHER, ARPHRD_LOOPBACK)):
        return False
    return pkt.get16(off - 2) in (ETH_P_8021Q, ETH_P_8021AD)


def _bare(pkt: Packet) -> cython.int:
    pkt.l3 = pkt.l4 = pkt.start
    pkt.protocol = 0
    if pkt.end <= pkt.start:
        return DROP_MALFORMED
    version: cython.int = pkt.get8(pkt.start) >> 4
    if version == 4:
        pkt.protocol = ETH_P_IP
    elif version == 6:
        pkt.protocol = ETH_P_IPV6
    else:
        return DROP_MALFORMED
    return DROP_NOT_SPECIFIED


def parse_network_untrusted(pkt: Packet) -> cython.int:
    """The network header at `l3`: sets nfproto, l4, l4proto, fragment facts. Rewritten packets too."""
    if pkt.protocol == ETH_P_IP:
        return _ipv4(pkt)
    if pkt.protocol == ETH_P_IPV6:
        return _ipv6(pkt)
    if pkt.protocol == ETH_P_ARP:
        if pkt.end < pkt.l3 + 28:
            return DROP_MALFORMED
        pkt.nfproto = NFPROTO_ARP
        return DROP_NOT_SPECIFIED
    return DROP_UNKNOWN_ETHERTYPE


def _ipv4(pkt: Packet) -> cython.int:
    l3: cython.Py_ssize_t = pkt.l3
    if pkt.end < l3 + 20:
        return DROP_MALFORMED
    first: cython.int = pkt.get8(l3)
    size: cython.Py_ssize_t = (first & 15) * 4
    total: cython.Py_ssize_t = pkt.get16(l3 + 2)
    if first >> 4 != 4 or size < 20 or pkt.end < l3 + size:
        return DROP_MALFORMED
    if total < size or l3 + total > pkt.end:
        return DROP_MALFORMED
    fragment: cython.int = pkt.get16(l3 + 6)
    pkt.fragoff = (fragment & 0x1FFF) * 8
    pkt.is_fragment = (fragment & 0x3FFF) != 0
    pkt.l4 = l3 + size
    pkt.l4proto = pkt.get8(l3 + 9)
    pkt.has_l4 = pkt.fragoff == 0
    pkt.nfproto = NFPROTO_IPV4
    # last: ingress chains look at what is in a header with a wrong checksum
    return DROP_NOT_SPECIFIED if fold(add_bytes(0, pkt.data, l3, size)) == 0xFFFF else DROP_CHECKSUM


def _ipv6(pkt: Packet) -> cython.int:
    l3: cython.Py_ssize_t = pkt.l3
    if pkt.end < l3 + 40 or pkt.get8(l3) >> 4 != 6:
        return DROP_MALFORMED
    end: cython.Py_ssize_t = l3 + 40 + pkt.get16(l3 + 4)
    if end > pkt.end:
        return DROP_MALFORMED
    end = pkt.end  # ingress chains see what stands behind the packet too, until `trim`
    proto: cython.int = pkt.get8(l3 + 6)
    off: cython.Py_ssize_t = l3 + 40
    word: cython.int
    while proto in (IPPROTO_HOPOPTS, IPPROTO_ROUTING, IPPROTO_DSTOPTS, IPPROTO_FRAGMENT, IPPROTO_AH, IPPROTO_MH):
        if proto == IPPROTO_MH:
            break
        if off + (4 if proto in (IPPROTO_FRAGMENT, IPPROTO_ROUTING) else 2) > end:
            return _headless(pkt, off, proto)
        if proto == IPPROTO_FRAGMENT:
            word = pkt.get16(off + 2)
            pkt.is_fragment = off + 8 <= end  # one that is cut off is not gathered
            pkt.fragoff = word & 0xFFF8
            proto = pkt.get8(off)
            off += 8
            if pkt.fragoff:
                break
            continue
        word = pkt.get8(off + 1)
        word = (word + 2) * 4 if proto == IPPROTO_AH else (word + 1) * 8
        proto = pkt.get8(off)
        off += word
    pkt.l4 = off
    pkt.l4proto = proto
    pkt.has_l4 = pkt.fragoff == 0 and proto != IPPROTO_NONE and off <= end
    pkt.nfproto = NFPROTO_IPV6
    return DROP_NOT_SPECIFIED


def _headless(pkt: Packet, off: cython.Py_ssize_t, proto: cython.int) -> cython.int:
    """An extension header so cut off that it does not even say what follows: routers send the packet on, but no transport is known
    (Linux: ipv6_find_hdr fails). If it says so, the transport is known, though it starts behind the packet's end."""
    pkt.l4 = off
    pkt.l4proto = proto
    pkt.has_l4 = False
    pkt.nfproto = NFPROTO_IPV6
    return DROP_NOT_SPECIFIED


def trim(pkt: Packet) -> cython.int:
    """Cut link-layer padding: `end` becomes the end of the network packet (Linux: pskb_trim_rcsum in ip_rcv_core)."""
    if pkt.nfproto == NFPROTO_IPV4:
        pkt.end = pkt.l3 + pkt.get16(pkt.l3 + 2)
    elif pkt.nfproto == NFPROTO_IPV6 and pkt.end != pkt.l3 + 40 + pkt.get16(pkt.l3 + 4):
        # but a jumbogram (RFC 2675), which nobody measures (Linux: ip6_rcv_core)
        if pkt.get16(pkt.l3 + 4) or pkt.get8(pkt.l3 + 6) != IPPROTO_HOPOPTS:
            pkt.end = pkt.l3 + 40 + pkt.get16(pkt.l3 + 4)
            pkt.is_fragment = False
            pkt.fragoff = 0
            return _ipv6(pkt)
    return 0
