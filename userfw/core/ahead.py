"""Looking ahead: a table brings what the packets of a batch will need into the cache before the first of them is judged.

A packet of a large table waits for memory four times in a row: hash bucket, node, connection, the node's other half. Done for a
batch at a time, stage by stage, the waits of different packets overlap.

Laws: looking ahead changes nothing and decides nothing; a packet that is not looked at costs time only. Pointers are borrowed from
objects that the table holds, for the length of one call, in which nothing is freed. Interpreted, it does nothing.
"""

from typing import Any

import cython

if not cython.compiled:
    from userfw.core.packet import Packet

    AHEAD = 64  # packets at a time
    NOT_AHEAD, TAKEN_AHEAD = -1, -2  # values of Packet.ahead: nobody looked; the flowtable will take it
    slot_of: Any = None
    load: Any = None
    some: Any = None
    touch: Any = None


class Lookahead:
    """A table that can look ahead."""

    def useful(self) -> cython.bint:
        """Whether the table is so large that looking ahead pays."""
        return False

    def look(self, packets: list[Packet], first: cython.Py_ssize_t, n: cython.Py_ssize_t) -> cython.int:
        """Packets `first` to `first + n` (`n` up to AHEAD) were parsed and will be judged next; how many were found worth a look.

        Whoever finds a packet in its table sets `Packet.ahead`; a packet with one is not looked at again.
        """
        return 0
