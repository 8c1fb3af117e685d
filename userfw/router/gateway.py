"""The gateway: everything a packet meets between two ports, in one object."""

from __future__ import annotations

import cython

if not cython.compiled:
    from userfw.core.drop import DROP_FRAG_NEEDED, DROP_NO_PROTOCOL
    from userfw.core.packet import Packet
    from userfw.router.interfaces import Interfaces
    from userfw.router.types import Dst


class Gateway(Interfaces):
    """Devices, routes, neighbours, the path, and the answers to what rules ask of their surroundings."""

    def tick(self, now: int) -> None:
        """Run everything that is due; the shell calls it at `next_deadline` and may call it at any time."""
        try:
            self.neighbours.tick(now)
        except Exception as error:
            self.report(error, "tick")

    def next_deadline(self) -> int:
        """The clock's value at which `tick` has something to do; 0 if never."""
        return self.neighbours.next_deadline()

    def fragment(self, pkt: Packet, dst: Dst) -> cython.int:
        return self.drop(pkt, DROP_FRAG_NEEDED)

    def reassemble(self, pkt: Packet) -> cython.bint:
        return False

    def deliver(self, pkt: Packet) -> cython.int:
        return self.drop(pkt, DROP_NO_PROTOCOL)

    def send_error(self, pkt: Packet, type: cython.int, code: cython.int, info: cython.uint) -> cython.int:
        return 0
