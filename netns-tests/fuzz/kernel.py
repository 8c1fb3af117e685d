"""The kernel as a target of the differential test: one laboratory, every neighbour known, nothing left over between cases."""

import time
from collections.abc import Sequence

from lab import netns
from lab.kernel import KernelRouter
from lab.state import Conn
from lab.topology import Lab, Out

from . import pools


class KernelTarget:
    """Runs cases through a laboratory with the router `kernel`."""

    name = "kernel"

    def __init__(self, lab: Lab | None = None) -> None:
        """Starts its own laboratory unless one is given."""
        self.lab = lab or Lab(KernelRouter())
        if not lab:
            self.lab.start()
        ns = self.lab.ns("rt")
        netns.sysctl(ns, ipv4__ipfrag_time=600, ipv6__ip6frag_time=600, netfilter__nf_conntrack_frag6_timeout=600)
        for name in pools.NAMES:
            side = self.lab.sides[name]
            # Without a link-local address there are no redirects, whose rate is limited by the wall clock.
            netns.ip(ns, f"addr flush dev {name} scope link")
            netns.ip(ns, *(f"neigh replace {address} lladdr {side.host_mac} dev {name} nud permanent" for number in
                           (*pools.HOSTS, 77, 78, 254) for address in (side.ip4(number), side.ip6(number))))

        self._until_quiet()

    def _until_quiet(self) -> None:
        """Wait until the router has sent its multicast listener reports, which pass the output hooks."""
        with self.lab.housekeeping():
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline and self.lab.exchange("lan", settle=1.2):
                pass

    def load(self, text: str) -> bool:
        """See Target."""
        self.lab.forget_frames()
        try:
            self.lab.router.load(text)
        except netns.CommandError:
            return False
        return True

    def exchange(self, port: str, packets: Sequence[bytes]) -> list[Out]:
        """See Target."""
        return self.lab.send(port, *packets)

    def counters(self) -> dict[str, tuple[int, int]]:
        """See Target."""
        return self.lab.router.counters()

    def conns(self) -> list[Conn]:
        """See Target."""
        return self.lab.router.conns()

    def close(self) -> None:
        """Take the laboratory down."""
        self.lab.stop()
