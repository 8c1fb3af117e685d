"""The virtio-net header (virtio 1.2, 5.1.6; legacy layout of 10 bytes) that stands right before a frame in its buffer.

    flags u8 | gso_type u8 | hdr_len u16 | gso_size u16 | csum_start u16 | csum_offset u16      little-endian

It lives in the headroom at `start - 10`, so a frame goes from one TAP to another without a copy. What it claims is
untrusted (users of a namespace may write it with packet sockets): `wire.gso.check_untrusted` compares it with the headers.
"""

import cython

if not cython.compiled:
    from userfw.core.const import VNET_F_NEEDS_CSUM, VNET_GSO_ECN, VNET_GSO_NONE, VNET_GSO_TCPV4, VNET_GSO_TCPV6
    from userfw.core.packet import Packet

    VNET_SIZE = 10


def read_header(pkt: Packet) -> cython.int:
    """Take flags, GSO and checksum fields from the 10 bytes before `start`."""
    d: bytearray = pkt.data
    at: cython.Py_ssize_t = pkt.start - VNET_SIZE
    pkt.vnet_flags = d[at]
    pkt.gso_type = d[at + 1]
    if pkt.gso_type == VNET_GSO_NONE:
        pkt.gso_size = 0
    else:
        pkt.gso_size = d[at + 4] | (d[at + 5] << 8)
    pkt.csum_start = d[at + 6] | (d[at + 7] << 8)
    pkt.csum_offset = d[at + 8] | (d[at + 9] << 8)
    return 0


def write_header(pkt: Packet) -> cython.int:
    """Write the header before `start`; hdr_len, a hint for the receiver's allocation, is where the payload begins."""
    d: bytearray = pkt.data
    at: cython.Py_ssize_t = pkt.start - VNET_SIZE
    needs: cython.bint = (pkt.vnet_flags & VNET_F_NEEDS_CSUM) != 0
    start: cython.int = pkt.csum_start if needs else 0
    offset: cython.int = pkt.csum_offset if needs else 0
    kind: cython.int = pkt.gso_type
    length: cython.Py_ssize_t = 0
    if kind != VNET_GSO_NONE:
        length = start + 8
        if (kind & ~VNET_GSO_ECN) == VNET_GSO_TCPV4 or (kind & ~VNET_GSO_ECN) == VNET_GSO_TCPV6:
            length = start + (d[pkt.start + start + 12] >> 4) * 4
        length = min(length, pkt.end - pkt.start)
    d[at] = pkt.vnet_flags & VNET_F_NEEDS_CSUM
    d[at + 1] = kind & 0xFF
    d[at + 2] = length & 0xFF
    d[at + 3] = (length >> 8) & 0xFF
    d[at + 4] = pkt.gso_size & 0xFF
    d[at + 5] = (pkt.gso_size >> 8) & 0xFF
    d[at + 6] = start & 0xFF
    d[at + 7] = (start >> 8) & 0xFF
    d[at + 8] = offset & 0xFF
    d[at + 9] = (offset >> 8) & 0xFF
    return 0
