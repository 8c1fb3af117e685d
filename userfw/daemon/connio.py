"""Two fields of a connection that compiled objects show to Python only as C strings: window scales and per-direction TCP flags."""

import cython

if not cython.compiled:
    from userfw.conntrack.conn import Conn


def read_octets(conn: Conn) -> tuple:  # type: ignore[type-arg]
    """(td_scale, td_flags), each a pair: original, reply."""
    return (conn.td_scale[0], conn.td_scale[1]), (conn.td_flags[0], conn.td_flags[1])


def write_octets(conn: Conn, scale: tuple, flags: tuple) -> cython.int:  # type: ignore[type-arg]
    """The reverse. OverflowError for what is no octet."""
    i: cython.int
    for i in range(2):
        conn.td_scale[i] = scale[i]
        conn.td_flags[i] = flags[i]
    return 0
