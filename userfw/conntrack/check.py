"""Whether a transport checksum holds (Linux: nf_checksum, sctp_compute_cksum), asked at prerouting only (nf_conntrack_checksum).

A packet whose checksum is still to be completed (VNET_F_NEEDS_CSUM) or was checked by its sender or card (VNET_F_DATA_VALID)
is not asked. What was found is remembered in `Packet.checked`: 2, right, and the sum that was taken (Linux: skb->csum) still fits;
1, right then (csum_valid); -1, wrong, but summed (CHECKSUM_COMPLETE). The gateway itself is content with the 2, whatever rules
make of the payload, as long as they leave the addresses (IPv6: the header) alone.
"""

import cython

if not cython.compiled:
    from userfw.core.const import (
        IPPROTO_ICMP,
        IPPROTO_SCTP,
        IPPROTO_UDP,
        IPPROTO_UDPLITE,
        NFPROTO_IPV4,
        VNET_F_DATA_VALID,
        VNET_F_NEEDS_CSUM,
    )
    from userfw.core.packet import Packet
    from userfw.wire.checksum import add_bytes, fold, pseudo_sum


def checksum_ok(pkt: Packet, l4proto: cython.int) -> cython.bint:
    """Check the transport part that starts at `pkt.l4`; its header is known to be present."""
    if pkt.vnet_flags & (VNET_F_NEEDS_CSUM | VNET_F_DATA_VALID):
        return True
    length: cython.Py_ssize_t = pkt.end - pkt.l4
    covered: cython.Py_ssize_t = length
    total: cython.uint
    if l4proto == IPPROTO_SCTP:
        return _sctp_ok(pkt)
    if l4proto == IPPROTO_ICMP and pkt.nfproto == NFPROTO_IPV4:
        pkt.checked = 2 if fold(add_bytes(0, pkt.data, pkt.l4, length)) == 0xFFFF else -1
        return pkt.checked > 0
    if l4proto == IPPROTO_UDP and pkt.get16(pkt.l4 + 6) == 0:
        return True  # over IPv6 too, where it is for the host to refuse it (Linux: udp_error)
    if l4proto == IPPROTO_UDPLITE:
        covered = pkt.get16(pkt.l4 + 4)
        if covered == 0:
            covered = length
    total = pseudo_sum(pkt, l4proto, length)
    if fold(add_bytes(total, pkt.data, pkt.l4, covered)) != 0xFFFF:
        pkt.checked = -1
        return False
    pkt.checked = 2
    return True


def _sctp_ok(pkt: Packet) -> bool:
    stored: int = int.from_bytes(pkt.data[pkt.l4 + 8 : pkt.l4 + 12], "little")
    saved: bytes = bytes(pkt.data[pkt.l4 + 8 : pkt.l4 + 12])
    pkt.put32(pkt.l4 + 8, 0)
    computed: int = crc32c(pkt.data, pkt.l4, pkt.end - pkt.l4)
    pkt.data[pkt.l4 + 8 : pkt.l4 + 12] = saved
    return stored == computed


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ 0x82F63B78 if crc & 1 else crc >> 1
        table.append(crc)
    return table


_CRC32C = _crc_table()


def crc32c(data: bytearray, off: cython.Py_ssize_t, length: cython.Py_ssize_t) -> cython.uint:
    """CRC-32C (RFC 9260 appendix A) of `data[off:off+length]`, as a number whose bytes stand in the packet lowest first."""
    crc: cython.uint = 0
    crc = ~crc
    table: list[int] = _CRC32C
    entry: cython.uint
    i: cython.Py_ssize_t
    for i in range(off, off + length):
        entry = table[(crc ^ data[i]) & 0xFF]
        crc = entry ^ ((crc >> 8) & 0xFFFFFF)
    crc = ~crc
    if not cython.compiled:
        crc &= 0xFFFFFFFF
    return crc
