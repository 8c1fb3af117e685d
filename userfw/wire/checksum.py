"""The internet checksum (RFC 1071) and its incremental update (RFC 1624, eqn. 3).

Sums are kept unfolded in 32 bits: one's complement addition carries are folded in by `fold`. A sum of up to 64 KB cannot overflow.
"""

import cython

if not cython.compiled:
    from userfw.core.const import NFPROTO_IPV4, U32_MASK
    from userfw.core.packet import Packet


def add_bytes(total: cython.uint, data: bytearray, off: cython.Py_ssize_t, length: cython.Py_ssize_t) -> cython.uint:
    """`total` plus the 16-bit words of `data[off:off+length]`; an odd last byte is padded with zero."""
    acc: cython.ulonglong = total
    i: cython.Py_ssize_t = off
    last: cython.Py_ssize_t = off + length - 1
    while i < last:
        acc += (data[i] << 8) | data[i + 1]
        i += 2
    if i == last:
        acc += data[i] << 8
    acc = (acc & 0xFFFF) + ((acc >> 16) & 0xFFFF) + ((acc >> 32) & 0xFFFF)
    return acc & U32_MASK


def fold(total: cython.uint) -> cython.uint:
    """The sum folded to 16 bits, not complemented."""
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return total & 0xFFFF


def pseudo_sum(pkt: Packet, l4proto: cython.int, length: cython.Py_ssize_t) -> cython.uint:
    """Sum of the pseudo-header of IPv4 (RFC 793) or IPv6 (RFC 8200 8.1) for a transport part of `length` bytes."""
    total: cython.uint = l4proto
    total += (length & 0xFFFF) + (length >> 16)
    if pkt.nfproto == NFPROTO_IPV4:
        return add_bytes(total, pkt.data, pkt.l3 + 12, 8)
    return add_bytes(total, pkt.data, pkt.l3 + 8, 32)


def replace16(pkt: Packet, off: cython.Py_ssize_t, old: cython.uint, new: cython.uint) -> cython.int:
    """Update the checksum field at `off` after a 16-bit word changed from `old` to `new`."""
    total: cython.uint = (~pkt.get16(off) & 0xFFFF) + (~old & 0xFFFF) + (new & 0xFFFF)
    pkt.put16(off, ~fold(total) & 0xFFFF)
    return 0


def replace32(pkt: Packet, off: cython.Py_ssize_t, old: cython.uint, new: cython.uint) -> cython.int:
    """Update the checksum field at `off` after a 32-bit word changed from `old` to `new`."""
    total: cython.uint = ~pkt.get16(off) & 0xFFFF
    total += (~(old >> 16) & 0xFFFF) + (~old & 0xFFFF) + (new >> 16) + (new & 0xFFFF)
    pkt.put16(off, ~fold(total) & 0xFFFF)
    return 0


def write_ipv4(pkt: Packet) -> cython.int:
    """Compute and write the IPv4 header checksum."""
    pkt.put16(pkt.l3 + 10, 0)
    length: cython.Py_ssize_t = (pkt.get8(pkt.l3) & 15) * 4
    pkt.put16(pkt.l3 + 10, ~fold(add_bytes(0, pkt.data, pkt.l3, length)) & 0xFFFF)
    return 0
