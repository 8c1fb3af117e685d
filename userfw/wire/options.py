"""Walking the options of a TCP header (RFC 9293 3.1; Linux: tcp_parse_options and its many likes)."""

import cython

if not cython.compiled:
    from userfw.core.packet import Packet


def next_option(pkt: Packet, at: cython.Py_ssize_t, end: cython.Py_ssize_t) -> cython.Py_ssize_t:
    """Where the first whole option at or behind `at` stands, padding passed over; -1 at the end of the list or where it is broken.

    The next one is at its own offset plus `pkt.get8(offset + 1)`.
    """
    kind: cython.uint
    size: cython.Py_ssize_t
    while at + 2 <= end:
        kind = pkt.get8(at)
        if kind == 1:
            at += 1
            continue
        size = pkt.get8(at + 1)
        return at if kind and size >= 2 and at + size <= end else -1
    return -1
