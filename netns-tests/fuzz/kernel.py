"""The kernel as a target of the differential test: one laboratory, every neighbour known, nothing left over between cases.

Laws
- A veth hands a frame over within send(2): when it returns, the router has done all that it does at once, and what it sent waits
  in the sockets. `careful` waits for more all the same; a difference is looked at again that way.
- Rules go in through libnftables inside the router's namespace.
"""

import os
import time
from collections.abc import Sequence

from lab import frames as f
from lab import netns
from lab.kernel import KernelRouter
from lab.nftlib import Answer, NftLibrary
from lab.state import Conn, conns_from_text
from lab.topology import Lab, Out, is_housekeeping

from . import pools

FRAGMENTS = (f.ip4("192.168.1.19", "192.168.2.10", f.UDP, bytes(16), mf=True, ident=0x7777),
             f.ip6("fd00:1::19", "fd00:2::10", f.FRAG6, f.frag6(f.UDP, bytes(16), more=True, ident=0x7777)))
JIFFIES = 0.012
"""The kernel does not look at a list of connections twice within a tick (nf_conncount_add), so such rules get their time."""


class KernelTarget:
    """Runs cases through a laboratory with the router `kernel`."""

    name = "kernel"
    careful = False

    def __init__(self, lab: Lab | None = None) -> None:
        """Starts its own laboratory unless one is given."""
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # frames of all ports in the order in which they were sent
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
        self.library = NftLibrary(ns)

    def _until_quiet(self) -> None:
        """Wait until the router has sent its multicast listener reports, which pass the output hooks."""
        with self.lab.housekeeping():
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline and self.lab.exchange("lan", settle=1.2):
                pass

    def judge(self, text: str) -> Answer:
        """See probe.Kernel."""
        return self.library.run(text)

    def load(self, text: str) -> bool:
        """See Target."""
        self.lab.forget_frames()
        self._forget()
        if "table arp" in text:  # a neighbour that did not answer in another case would be asked for later
            netns.ip(self.lab.ns("rt"), "neigh flush nud failed", "neigh flush nud incomplete")
        answer = self.library.run(text)
        self.errors = answer.errors
        self.pause = JIFFIES if "ct count" in text else 0
        if answer.ok:
            self.library.forget_connections()
        return answer.ok

    def _forget(self) -> None:
        """No rules, and none of the hooks of conntrack and defragmentation, which the kernel takes away some time later: a lonely
        fragment of each family crosses the router again."""
        self.library.run("flush ruleset")
        lan, dmz, deadline = self.lab.wires["lan"], self.lab.wires["dmz"], time.monotonic() + 10
        while time.monotonic() < deadline:
            for fragment in FRAGMENTS:
                lan.send(self.lab.up("lan", fragment))
            if sum(frame[14:15] in (b"\x45", b"\x60") for frame in dmz.receive()) == len(FRAGMENTS):
                return
            time.sleep(0.0005)
        raise AssertionError("the kernel still defragments, without rules")

    def exchange(self, port: str, packets: Sequence[bytes]) -> list[Out]:
        """See Target."""
        if self.careful:
            return self.lab.exchange(port, *(self.lab.up(port, packet) for packet in packets), settle=0.02)
        wires = self.lab.wires
        for packet in packets:
            if self.pause:
                time.sleep(self.pause)
            wires[port].send(self.lab.up(port, packet))
        return [Out(name, frame) for name in self.lab.sides for frame in wires[name].receive() if not is_housekeeping(frame)]

    def listing(self) -> str:
        """See Target."""
        answer = self.library.run("list ruleset")
        assert answer.ok, answer.errors
        return answer.output

    def conns(self) -> list[Conn]:
        """See Target."""
        return conns_from_text(self.library.command("conntrack", "-L", "-o", "extended"))

    def close(self) -> None:
        """Take the laboratory down."""
        self.library.close()
        self.lab.stop()
