"""The kernel as a target of the differential test: one laboratory, every neighbour known, nothing left over between cases.

Laws
- A veth hands a frame over within send(2), on the processor that sends. The backlog of that processor may be left to its softirq
  thread; only when it is empty the router has done all that it does at once, and what it sent waits in the sockets.
- Nothing of a case reaches the next one: rules, connections, hooks, neighbours, exceptions of routes go; incomplete datagrams stay
  but nobody meets them: every run numbers its fragments anew, and a laboratory is left (`worn`) before the numbers come round.
- Timers do not fire within a case: they are set to minutes and hours.
- Rules go in through libnftables inside the router's namespace.
"""

import itertools
import os
import re
import socket
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from lab import frames as f
from lab import netns
from lab.families import EVERY
from lab.kernel import BRIDGE, KernelRouter
from lab.nftlib import Answer, NftLibrary
from lab.state import Conn, conns_from_text
from lab.topology import BRIDGED, SIDES, Lab, Out

from . import pools
from .host import Host
from .netlink import Writer, by_hand, hookless, taken_apart
from .residue import Residue
from .traffic import framed, own_talk

FRAGMENTS = (f.ip4("192.168.1.19", "192.168.2.10", f.UDP, bytes(16), mf=True, ident=0x7777),
             f.ip6("fd00:1::19", "fd00:2::10", f.FRAG6, f.frag6(f.UDP, bytes(16), more=True, ident=0x7777)))
MEMORY = 1 << 30
HOUR = 3600
WORN = 2000
ENDLESS = 5000
"""Frames for one step of a case; honest ones have fewer than a hundred."""
HOPS = 12
"""More than the devices that a frame and what follows from it pass one after the other."""
_LISTED = Path("/proc/thread-self/net/nf_conntrack")
_FULL6 = re.compile(r"(?:[0-9a-f]{4}:){7}[0-9a-f]{4}")


class BridgingRouter(KernelRouter):
    """Linux with a bridge of its own, too: it does not snoop and calls no rules of other families for what it forwards."""

    def start(self, lab: Lab) -> None:
        """The router, some of its sides made ports of `br0`."""
        super().start(lab)
        self.bridge(BRIDGED, "mcast_snooping 0")
        netns.sysctl(self.ns, **dict.fromkeys((f"bridge__bridge-nf-call-{name}tables" for name in ("arp", "ip", "ip6")), 0))
        netns.ip(self.ns, *(f"addr add {side.ip6(1)}/64 dev {BRIDGE} nodad" for side in BRIDGED.values()))

class KernelTarget:
    """Runs cases through a laboratory with the router `kernel`, on one processor (the machine's `cpu`-th, counted round)."""

    name = "kernel"

    def __init__(self, lab: Lab | None = None, cpu: int = 0) -> None:
        """Starts its own laboratory unless one is given."""
        usable = sorted(os.sched_getaffinity(0))
        self.cpu = usable[cpu % len(usable)]
        os.sched_setaffinity(0, {self.cpu})
        self.softnet = os.open("/proc/net/softnet_stat", os.O_RDONLY | os.O_CLOEXEC)
        self.lab = lab or Lab(BridgingRouter(), EVERY)
        self.runs = 0
        self.endless = False
        if not lab:
            self.lab.start()
        ns = self.lab.ns("rt")
        netns.sysctl(ns, ipv4__ipfrag_high_thresh=MEMORY, ipv6__ip6frag_high_thresh=MEMORY,
                     netfilter__nf_conntrack_frag6_high_thresh=MEMORY,
                     ipv4__ipfrag_time=HOUR, ipv6__ip6frag_time=HOUR, netfilter__nf_conntrack_frag6_timeout=HOUR)
        for name, side in self.lab.sides.items():
            device = name if name in SIDES else BRIDGE
            netns.sysctl(ns, **{f"{family}__neigh__{device}__retrans_time_ms": HOUR * 1000 for family in ("ipv4", "ipv6")})
            # Without a link-local address there are no redirects, whose rate is limited by the wall clock.
            netns.ip(ns, *(f"addr flush dev {one} scope link" for one in {name, device}))
            netns.ip(ns, *(f"neigh replace {address} lladdr {side.host_mac} dev {device} nud permanent" for number in
                           (*pools.HOSTS, 77, 78, 254) for address in (side.ip4(number), side.ip6(number))))
        self._until_quiet()
        self.library = NftLibrary(ns)
        self.residue: Residue = self.library.call(Residue)
        self.writer = Writer(self.library)
        self.host: Host = self.library.call(Host)
        self.library.call(self.host.listen)

    def _until_quiet(self) -> None:
        """Wait until the router has sent its multicast listener reports, which pass the output hooks."""
        with self.lab.housekeeping():
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline and self.lab.exchange("lan", settle=1.2):
                pass

    @property
    def worn(self) -> bool:
        """Left-over fragments may be met again, or packets go round without end: take another laboratory."""
        return self.endless or self.runs >= WORN

    def judge(self, text: str) -> Answer:
        """See probe.Kernel. What this nft has no words for is written by hand."""
        if text.startswith("add rule "):
            return self._add(text)
        answer = self.library.run(text)
        if "flush ruleset" in text:
            self.writer.forget()
        self.writer.declare(hookless(text))
        return answer

    def _add(self, command: str) -> Answer:
        """One rule."""
        _, _, family, table, chain, words = command.split(" ", 5)
        if not by_hand(command):
            answer = self.library.run(command)
            if answer.ok or answer.errno:
                return answer
        return self.writer.add(family, table, chain, words)

    def _load(self, text: str) -> Answer:
        """The whole at once; or, if this nft has no words for a rule, rule by rule."""
        self.writer.forget()
        if not by_hand(text):
            answer = self.library.run(text)
            if answer.ok or answer.errno:
                return answer
        rest, rules = taken_apart(text)
        answer = self.library.run(rest)
        self.writer.declare(hookless(rest))
        for rule in rules if answer.ok else ():
            answer = self._add("add rule " + " ".join(rule))
            if not answer.ok:
                self.library.run("flush ruleset")
                break
        return answer

    def load(self, text: str) -> bool:
        """See Target."""
        self.runs += 1
        self.leave()
        self._forget()
        answer = self._load(text)
        self.errors = answer.errors
        if answer.ok:
            self.library.forget_connections()
        return answer.ok

    def leave(self) -> None:
        """No rules, connections, asked neighbours, exceptions; the kernel takes its hooks away some time later."""
        self.library.run("flush ruleset")
        self.library.forget_connections()
        self.library.call(self.residue.remove)

    def _forget(self) -> None:
        """Wait until the hooks of conntrack and defragmentation are gone: a lonely fragment of each family crosses the router."""
        self._settle()
        self.lab.forget_frames()
        lan, dmz, deadline = self.lab.wires["lan"], self.lab.wires["dmz"], time.monotonic() + 10
        while time.monotonic() < deadline:
            for fragment in FRAGMENTS:
                lan.send(self.lab.up("lan", fragment))
            self._settle()
            if sum(frame[14:15] in (b"\x45", b"\x60") for frame in dmz.receive()) == len(FRAGMENTS):
                return
            time.sleep(0.0005)
        raise AssertionError("the kernel still defragments, without rules")

    def _settle(self) -> None:
        """Wait until this processor's backlog has no frame of ours: none is in it, or, beside others' traffic, all that was in it
        was done so often that every frame which followed from ours was done too (it is a queue)."""
        deadline, rounds = time.monotonic() + 60, 0
        done, waiting = self._backlog()
        while waiting and rounds < HOPS:
            if time.monotonic() > deadline:
                raise AssertionError("the kernel's backlog does not move")
            time.sleep(0)
            now, left = self._backlog()
            if not left:
                return
            if now - done & 0xFFFFFFFF >= waiting:
                done, waiting, rounds = now, left, rounds + 1

    def _backlog(self) -> tuple[int, int]:
        """Frames done, and waiting, on this processor (Linux: softnet_seq_show, its first and twelfth column)."""
        for line in os.pread(self.softnet, 1 << 16, 0).splitlines():
            columns = line.split()
            if int(columns[12], 16) == self.cpu:
                return int(columns[0], 16), int(columns[11], 16)
        raise AssertionError("no such processor")

    def exchange(self, port: str, packets: Sequence[bytes]) -> list[Out]:
        """See Target. No more than ENDLESS frames: rules can make copies of copies as fast as they are read."""
        wires = self.lab.wires
        if self.endless:
            return []
        for packet in packets:
            if port == pools.SELF:
                self.library.call(partial(self.host.send, packet))
            else:
                wires[port].send(framed(self.lab.sides[port], packet))
            self._settle()
        got = (Out(name, frame) for name in self.lab.sides for frame in wires[name].receive() if not own_talk(name, frame))
        out = list(itertools.islice(got, ENDLESS))
        self.endless = len(out) == ENDLESS
        return out

    def listing(self) -> str:
        """See Target."""
        return self.writer.listing()

    def conns(self) -> list[Conn]:
        """See Target. From /proc where the kernel has it there: a process for each case costs as much as the case."""
        text = self.library.call(lambda: _LISTED.read_text() if _LISTED.exists() else None)
        if text is None:
            text = self.library.command("conntrack", "-L", "-o", "extended")
        return conns_from_text(_FULL6.sub(
            lambda found: socket.inet_ntop(socket.AF_INET6, bytes.fromhex(found[0].replace(":", ""))), text))

    def close(self) -> None:
        """Take the laboratory down."""
        self.library.call(self.residue.close)
        self.writer.close()
        self.host.close()
        self.library.close()
        os.close(self.softnet)
        self.lab.stop()
