"""IPv4 options (RFC 791 3.1; Linux: ip_options.c): what is malformed, what is refused, what the gateway writes into them.

Laws: every length is checked in the kernel's order, and its pointer told in the parameter problem; source routes are refused
(accept_source_route 0); record-route and timestamp options with room get the gateway's address and time. Not compiled for
speed, only because the path calls it: packets with options are rare.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from userfw.core.const import NFPROTO_IPV4, NSEC_PER_SEC, U32_MASK
    from userfw.core.drop import DROP_IP_OPTIONS, DROP_NOT_SPECIFIED
    from userfw.core.packet import Packet
    from userfw.router.base import Router
    from userfw.router.const import ICMP_PARAMETERPROB, RTN_LOCAL, RTN_UNICAST
    from userfw.router.types import Dst
    from userfw.wire.checksum import write_ipv4

RECORD_ROUTE = 7
TIMESTAMP = 68


def ipv4_options(router: Router, pkt: Packet) -> cython.int:
    """Check the options of a packet that came in: 0, or DROP_IP_OPTIONS after the answer that is due.

    Linux: ip_options_compile, ip_rcv_options.
    """
    off: cython.Py_ssize_t = pkt.l3 + 20
    end: cython.Py_ssize_t = pkt.l4
    kind: cython.int
    length: cython.Py_ssize_t
    wrong: cython.Py_ssize_t
    seen: cython.uint = 0
    refused: cython.bint = False
    while off < end:
        kind = pkt.get8(off)
        if kind == 0:
            break
        if kind == 1:
            off += 1
            continue
        length = pkt.get8(off + 1) if off + 1 < end else 0
        if length < 2 or off + length > end:
            return _bad_option(router, pkt, off - pkt.l3)
        wrong = _wrong_at(pkt, off, kind, length)
        if kind in (131, 137, RECORD_ROUTE, TIMESTAMP, 148):
            if wrong < 0 and seen & _bit(kind):
                wrong = 0
            seen |= _bit(kind)
        if wrong >= 0:
            return _bad_option(router, pkt, off + wrong - pkt.l3)
        refused = refused or kind in (131, 137)
        off += length
    return DROP_IP_OPTIONS if refused else DROP_NOT_SPECIFIED


def _bit(kind: cython.int) -> cython.uint:
    """One bit for each option that may stand only once; both source routes share one."""
    if kind in (131, 137):
        return 1
    return 2 if kind == RECORD_ROUTE else 4 if kind == TIMESTAMP else 8


def _wrong_at(pkt: Packet, off: cython.Py_ssize_t, kind: cython.int, length: cython.Py_ssize_t) -> cython.Py_ssize_t:
    """Which byte of an option contradicts the others; -1: none."""
    pointer: cython.Py_ssize_t = pkt.get8(off + 2) if length > 2 else 0
    flags: cython.int = pkt.get8(off + 3) if length > 3 else 0
    if kind in (131, 137, RECORD_ROUTE):
        if length < 3:
            return 1
        if pointer < 4 or (kind == RECORD_ROUTE and pointer <= length < pointer + 3):
            return 2
    elif kind == TIMESTAMP:
        if length < 4:
            return 1
        if pointer < 5:
            return 2
        if pointer <= length:
            if pointer + 3 > length or (flags & 15 in (1, 3) and pointer + 7 > length):
                return 2
        elif flags & 15 != 3 and flags >> 4 == 15:
            return 3
    elif kind == 134 or (kind == 148 and length < 4):
        return 1
    return -1


def _bad_option(router: Router, pkt: Packet, pointer: cython.Py_ssize_t) -> cython.int:
    where: cython.uint = pointer & 0xFF
    router.send_error(pkt, ICMP_PARAMETERPROB, 0, where << 24)
    return DROP_IP_OPTIONS


def record(router: Router, pkt: Packet, dst: Dst) -> cython.int:
    """Write address and time into checked options of a packet for `dst`, then the header's checksum.

    Linux: ip_options_compile with a route, ip_forward_options, ip_rt_get_source.
    """
    off: cython.Py_ssize_t = pkt.l3 + 20
    end: cython.Py_ssize_t = pkt.l4
    kind: cython.int
    changed: cython.bint = False
    while off < end:
        kind = pkt.get8(off)
        if kind == 0:
            break
        if kind == 1:
            off += 1
            continue
        if kind == RECORD_ROUTE:
            changed = _record_route(router, pkt, dst, off) or changed
        elif kind == TIMESTAMP:
            changed = _stamp(router, pkt, dst, off) or changed
        off += pkt.get8(off + 1)
    if changed:
        write_ipv4(pkt)
    return 0


def _address(router: Router, pkt: Packet, dst: Dst) -> cython.uint:
    if dst.type != RTN_UNICAST:
        return pkt.get32(pkt.l3 + 16)
    found = router.source_for(dst, NFPROTO_IPV4)
    return found[1] if found is not None else 0


def _record_route(router: Router, pkt: Packet, dst: Dst, off: cython.Py_ssize_t) -> cython.bint:
    pointer: cython.Py_ssize_t = pkt.get8(off + 2)
    if pointer > pkt.get8(off + 1):
        return False
    pkt.put32(off + pointer - 1, _address(router, pkt, dst))
    pkt.put8(off + 2, pointer + 4)
    return True


def _stamp(router: Router, pkt: Packet, dst: Dst, off: cython.Py_ssize_t) -> cython.bint:
    pointer: cython.Py_ssize_t = pkt.get8(off + 2)
    flags: cython.int = pkt.get8(off + 3)
    kind: cython.int = flags & 15
    slot: cython.Py_ssize_t = off + pointer - 1
    if pointer > pkt.get8(off + 1):
        if kind == 3:
            return False
        pkt.put8(off + 3, kind | (((flags >> 4) + 1) << 4))
        return True
    if kind not in (0, 1, 3):
        return False
    if kind == 3:
        if router.routes.resolve(NFPROTO_IPV4, 0, pkt.get32(slot), 0, 0, 0, None).type != RTN_LOCAL:
            return False
    if kind:
        pkt.put32(slot, _address(router, pkt, dst))
        slot += 4
        pointer += 4
    pkt.put32(slot, _midnight(router))
    pkt.put8(off + 2, pointer + 4)
    return True


def _midnight(router: Router) -> cython.uint:
    """Milliseconds since midnight UT (RFC 791: timestamp)."""
    seconds: cython.double = router.clock.now / NSEC_PER_SEC + router.clock.wall_offset
    ms: cython.ulonglong = int(seconds * 1000) % 86400000
    return ms & U32_MASK
