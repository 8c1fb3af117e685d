"""IPv4 options (RFC 791 3.1; Linux: ip_options.c): what is malformed, what is refused, what the gateway writes into them.

Laws: they are read once, behind the routing decision, and every length is checked in the kernel's order, its pointer told in
the parameter problem; source routes are refused (accept_source_route 0). Reading already writes: record-route and timestamp
options with room get the gateway's address and time, and what is quoted in an error shows that. The header's checksum is only
redone when the packet is sent on, past the forward hook. Packets of the gateway that answer one with options echo them.
`Packet.ip_options` remembers: the low byte is the offset (from `l3`) up to which options were read, above it stand the bits
below. Not compiled for speed, only because the path calls it: packets with options are rare.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from userfw.core.const import NFPROTO_IPV4, NSEC_PER_SEC, U32_MASK
    from userfw.core.drop import DROP_IP_OPTIONS, DROP_NOT_SPECIFIED
    from userfw.core.packet import Packet
    from userfw.router.base import Router
    from userfw.router.const import (
        ICMP_PARAMETERPROB,
        OPT_CHANGED,
        OPT_RR_ADDR,
        OPT_TS_ADDR,
        OPT_TS_TIME,
        RTN_LOCAL,
    )
    from userfw.router.types import Dst
    from userfw.wire.checksum import write_ipv4

RECORD_ROUTE = 7
TIMESTAMP = 68
CIPSO = 134
NO_ANSWER = -0x8000


def ipv4_options(router: Router, pkt: Packet, dst: Dst) -> cython.int:
    """Read the options of a packet that came in for `dst`: 0, or DROP_IP_OPTIONS after the answer that is due.

    Linux: ip_options_compile, ip_rcv_options.
    """
    off: cython.Py_ssize_t = pkt.l3 + 20
    end: cython.Py_ssize_t = pkt.l4
    kind: cython.int
    length: cython.Py_ssize_t
    wrong: cython.Py_ssize_t
    seen: cython.uint = 0
    refused: cython.bint = False
    pkt.ip_options = 20
    while off < end:
        kind = pkt.get8(off)
        if kind == 0:
            _clear(pkt, off + 1, end)
            break
        if kind == 1:
            off += 1
            continue
        length = pkt.get8(off + 1) if off + 1 < end else 0
        if length < 2 or off + length > end:
            return _bad_option(router, pkt, off)
        wrong = _wrong_at(pkt, off, kind, length)
        if kind in (131, 137, RECORD_ROUTE, TIMESTAMP, 148):
            if wrong < 0 and seen & _bit(kind):
                wrong = 0
            seen |= _bit(kind)
        if wrong >= 0:
            if kind == CIPSO:  # noted before it is judged
                pkt.ip_options = (pkt.ip_options & ~0xFF) | cython.cast(cython.int, off + length - pkt.l3)
            return _bad_option(router, pkt, off + wrong)
        if kind == RECORD_ROUTE:
            _record_route(router, pkt, dst, off)
        elif kind == TIMESTAMP:
            _stamp(router, pkt, dst, off)
        refused = refused or kind in (131, 137)
        off += length
        pkt.ip_options = (pkt.ip_options & ~0xFF) | cython.cast(cython.int, off - pkt.l3)
    pkt.ip_options = (pkt.ip_options & ~0xFF) | cython.cast(cython.int, end - pkt.l3)
    return DROP_IP_OPTIONS if refused else DROP_NOT_SPECIFIED


def _clear(pkt: Packet, off: cython.Py_ssize_t, end: cython.Py_ssize_t) -> None:
    """Nothing stands behind the end of the options."""
    while off < end:
        if pkt.get8(off):
            pkt.put8(off, 0)
            pkt.ip_options |= OPT_CHANGED
        off += 1


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
    elif kind == CIPSO or (kind == 148 and length < 4):
        return 1
    return -1


def _bad_option(router: Router, pkt: Packet, where: cython.Py_ssize_t) -> cython.int:
    pointer: cython.uint = (where - pkt.l3) & 0xFF
    router.send_error(pkt, ICMP_PARAMETERPROB, 0, pointer << 24)
    return DROP_IP_OPTIONS


def _specific(router: Router, pkt: Packet, dst: Dst) -> cython.uint:
    """The address that the packet was for if it is ours alone, else ours towards its source (Linux: fib_compute_spec_dst)."""
    if dst.type == RTN_LOCAL:
        return pkt.get32(pkt.l3 + 16)
    back: Dst = router.routes.resolve(NFPROTO_IPV4, 0, pkt.get32(pkt.l3 + 12), 0, 0, 0, None)
    found = router.source_for(back, NFPROTO_IPV4)
    return found[1] if found is not None else 0


def _record_route(router: Router, pkt: Packet, dst: Dst, off: cython.Py_ssize_t) -> None:
    pointer: cython.Py_ssize_t = pkt.get8(off + 2)
    if pointer > pkt.get8(off + 1):
        return
    pkt.put32(off + pointer - 1, _specific(router, pkt, dst))
    pkt.put8(off + 2, pointer + 4)
    pkt.ip_options |= OPT_CHANGED | OPT_RR_ADDR


def _stamp(router: Router, pkt: Packet, dst: Dst, off: cython.Py_ssize_t) -> None:
    pointer: cython.Py_ssize_t = pkt.get8(off + 2)
    flags: cython.int = pkt.get8(off + 3)
    kind: cython.int = flags & 15
    slot: cython.Py_ssize_t = off + pointer - 1
    if pointer > pkt.get8(off + 1):
        if kind != 3:
            pkt.put8(off + 3, kind | (((flags >> 4) + 1) << 4))
            pkt.ip_options |= OPT_CHANGED
        return
    if kind not in (0, 1, 3):
        return
    if kind == 3:
        if not _special(router, pkt.get32(slot)):
            return
    elif kind == 1:
        pkt.put32(slot, _specific(router, pkt, dst))
        pkt.ip_options |= OPT_TS_ADDR
    if kind:
        slot += 4
        pointer += 4
    pkt.put32(slot, midnight(router))
    pkt.put8(off + 2, pointer + 4)
    pkt.ip_options |= OPT_CHANGED | OPT_TS_TIME


def midnight(router: Router) -> cython.uint:
    """Milliseconds since midnight UT (RFC 791: timestamp)."""
    seconds: cython.double = router.clock.now / NSEC_PER_SEC + router.clock.wall_offset
    ms: cython.ulonglong = int(seconds * 1000) % 86400000
    return ms & U32_MASK


def find_option(pkt: Packet, wanted: cython.int) -> cython.Py_ssize_t:
    """Offset of an option among those that were read; -1: none."""
    off: cython.Py_ssize_t = pkt.l3 + 20
    end: cython.Py_ssize_t = pkt.l3 + (pkt.ip_options & 0xFF)
    kind: cython.int
    while off < end:
        kind = pkt.get8(off)
        if kind == wanted:
            return off
        if kind == 0:
            break
        off += 1 if kind == 1 else pkt.get8(off + 1)
    return -1


def forward_options(router: Router, pkt: Packet, dst: Dst) -> cython.int:
    """What is written when a packet leaves for `dst`: the address there, and the header's checksum (Linux: ip_forward_options).

    A timestamp keeps the address that it got when it was read: Linux comes to it only after a source route.
    """
    off: cython.Py_ssize_t
    if pkt.ip_options & OPT_RR_ADDR:
        off = find_option(pkt, RECORD_ROUTE)
        if off >= 0:
            found = router.source_for(dst, NFPROTO_IPV4)
            pkt.put32(off + pkt.get8(off + 2) - 5, found[1] if found is not None else 0)
    if pkt.ip_options & OPT_CHANGED:
        write_ipv4(pkt)
    pkt.ip_options &= ~OPT_CHANGED
    return 0


def echoed(router: Router, pkt: Packet, own: cython.uint, answer: Packet) -> bytes | None:
    """The options of the gateway's answer to `pkt` that comes from `own`, padded; None: there cannot be an answer.

    `answer` remembers them, for whoever answers it. Linux: __ip_options_echo, ip_options_build.
    """
    found = bytearray()
    off: cython.Py_ssize_t
    size: cython.int
    needs: cython.int = 0
    if not pkt.ip_options:
        return b""
    for kind in (RECORD_ROUTE, TIMESTAMP, CIPSO):
        off = find_option(pkt, kind)
        if off < 0:
            continue
        option = pkt.data[off : off + pkt.get8(off + 1)]
        if kind == RECORD_ROUTE:
            needs |= _echo_record(pkt, option, own)
        if kind == TIMESTAMP:
            needs |= _echo_stamp(router, pkt, option, own)
        if needs < 0:
            return None
        found += option
    size = (len(found) + 3) & ~3
    if size:
        answer.ip_options = (20 + size) | needs
    return bytes(found.ljust(size, b"\0"))


def _echo_record(pkt: Packet, option: bytearray, own: cython.uint) -> cython.int:
    """Which OPT_* the answer has; NO_ANSWER."""
    pointer: cython.Py_ssize_t = option[2]
    if not pkt.ip_options & OPT_RR_ADDR or pointer > len(option):
        return 0
    if pointer + 3 > len(option):
        return NO_ANSWER
    option[2] = pointer + 4
    option[pointer - 1 : pointer + 3] = int(own).to_bytes(4, "big")
    return OPT_RR_ADDR


def _echo_stamp(router: Router, pkt: Packet, option: bytearray, own: cython.uint) -> cython.int:
    """Which OPT_* the answer has; NO_ANSWER."""
    pointer: cython.Py_ssize_t = option[2]
    needs: cython.int = 0
    if pointer > len(option):
        return 0
    if pkt.ip_options & OPT_TS_ADDR:
        if pointer + 3 > len(option):
            return NO_ANSWER
        option[pointer - 1 : pointer + 3] = int(own).to_bytes(4, "big")
        pointer += 4
        needs |= OPT_TS_ADDR
    if pkt.ip_options & OPT_TS_TIME:
        if pointer + 3 > len(option):
            return NO_ANSWER
        before: cython.Py_ssize_t = pointer
        if option[3] & 15 != 3:
            pointer += 4
        elif pointer + 7 <= len(option):
            if _special(router, int.from_bytes(option[pointer - 1 : pointer + 3], "big")):
                pointer += 8
        if pointer != before:
            option[pointer - 5 : pointer - 1] = int(midnight(router)).to_bytes(4, "big")
            needs |= OPT_TS_TIME
    option[2] = pointer
    return needs


def _special(router: Router, address: cython.uint) -> cython.bint:
    """Not of a single other host: ours, a group's, everybody's (Linux: inet_addr_type)."""
    if address >> 24 == 0 or address >> 28 == 14 or address == U32_MASK:
        return True
    return router.routes.local4.lookup(0, address, None, 0) is not None
