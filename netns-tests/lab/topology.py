"""One topology for every router: hosts `lan`, `dmz`, `wan`, `edge`, each a namespace with `eth0`, around one router.

    lan  192.168.1.10  fd00:1::10      |  router 192.168.1.1  fd00:1::1       tap
    dmz  192.168.2.10  fd00:2::10      |  router 192.168.2.1  fd00:2::1       tap
    wan  203.0.113.10  2001:db8:3::10  |  router 203.0.113.1  2001:db8:3::1   tap     default route via .254, ::fe
    edge 192.168.4.10  fd00:4::10      |  router 192.168.4.1  fd00:4::1       veth, MTU 1400

Laws
- A raw host has no address of its own: the laboratory answers ARP and neighbour solicitations for it.
- `exchange` returns when the router has answered an ARP request sent behind the frames: then it has handled them.
- `live()` gives the hosts addresses and routes for as long as the context lasts.
"""

import itertools
import os
import select
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from . import netns, show
from .frames import ETH_ARP, ETH_IP, ETH_IP6, ICMP6, addr, arp, eth, icmp6, ip6, mac
from .state import Conn
from .wire import Wire


@dataclass(frozen=True)
class Side:
    """One network around the router; host numbers 10 to 19 (and 254) are answered for."""

    name: str
    number: int
    net4: str
    net6: str
    port: str
    mtu: int = 1500

    def ip4(self, host: int = 10) -> str:
        """The IPv4 address of a host number; 1 is the router."""
        return f"{self.net4}.{host}"

    def ip6(self, host: int = 10) -> str:
        """The IPv6 address of a host number (the digits are kept: host 10 is ::10); 254 is ::fe."""
        return f"{self.net6}::{'fe' if host == 254 else host}"

    @property
    def router_mac(self) -> str:
        """The router's hardware address here."""
        return f"02:00:00:00:0{self.number}:01"

    @property
    def host_mac(self) -> str:
        """The hardware address of every host here."""
        return f"02:00:00:00:0{self.number}:10"


SIDES = {side.name: side for side in (
    Side("lan", 1, "192.168.1", "fd00:1", "tap"),
    Side("dmz", 2, "192.168.2", "fd00:2", "tap"),
    Side("wan", 3, "203.0.113", "2001:db8:3", "tap"),
    Side("edge", 4, "192.168.4", "fd00:4", "packet", 1400),
)}
BRIDGED = {side.name: side for side in (
    Side("one", 5, "192.168.5", "fd00:5", "veth"),
    Side("two", 6, "192.168.6", "fd00:6", "veth"),
    Side("six", 7, "192.168.7", "fd00:7", "veth"),
)}
"""Ports of a bridge that a laboratory may have beside them; the bridge has the addresses of the router."""
ANSWERED = (*range(10, 20), 254)


class Out(NamedTuple):
    """A frame that left the router, and where."""

    port: str
    frame: bytes

    @property
    def packet(self) -> bytes:
        """The network-layer packet of an untagged frame."""
        return self.frame[14:]

    def __repr__(self) -> str:
        return f"{self.port}: {show.frame(self.frame)}"


class Router(Protocol):
    """What a test may ask of a router, whichever it is."""

    kind: str

    def start(self, lab: "Lab") -> None:
        """Attach to the namespaces and forward; the hosts' `eth0` exist afterwards."""

    def stop(self) -> None:
        """Undo `start`; never raises because something is gone already."""

    def load(self, text: str) -> None:
        """Replace the ruleset by `text` (nft) and forget all connections; CommandError if it is refused."""

    def nft(self, *args: str, text: str | None = None, check: bool = True) -> str:
        """Run nft with these arguments against this router; `text` is its standard input. Returns what it printed."""

    def counters(self) -> dict[str, tuple[int, int]]:
        """Every counter: see state.counters."""

    def conns(self) -> list[Conn]:
        """The connections, sorted."""

    def forget(self) -> None:
        """Forget all connections."""

    def sysctl(self, **values: int) -> None:
        """Set keys of /proc/sys/net/netfilter for this router."""

    def log(self) -> str:
        """What the router said, for a failure message."""


def neighbour_answer(frame: bytes, answers: dict[bytes, str], router_mac: str) -> bytes | None:
    """The answer to an ARP request or a neighbour solicitation for one of `answers` (address -> hardware address)."""
    kind = int.from_bytes(frame[12:14], "big")
    if kind == ETH_ARP and len(frame) >= 42 and frame[20:22] == b"\0\1":
        ask = frame[38:42]
        if ask in answers:
            return mac(router_mac) + mac(answers[ask]) + struct.pack("!H", ETH_ARP) + struct.pack(
                "!HHBBH", 1, ETH_IP, 6, 4, 2) + mac(answers[ask]) + ask + frame[22:28] + frame[28:32]
    if kind == ETH_IP6 and len(frame) >= 78 and frame[20] == ICMP6 and frame[54] == 135:
        ask, asker = frame[62:78], frame[22:38]
        if ask in answers and any(asker):
            src, dst = (f"{b.hex(':', 2)}" for b in (ask, asker))
            body = icmp6(src, dst, 136, 0, 0x60000000, ask + b"\2\1" + mac(answers[ask]))
            return eth(router_mac, answers[ask], ETH_IP6, ip6(src, dst, ICMP6, body, hops=255))
    return None


def is_housekeeping(frame: bytes) -> bool:
    """ARP, neighbour and router discovery, redirects, multicast listener reports: the router's own talk."""
    kind = int.from_bytes(frame[12:14], "big")
    if kind == ETH_ARP:
        return True
    if kind != ETH_IP6 or len(frame) < 55:
        return False
    at = 62 if frame[20] == 0 else 54  # a hop-by-hop header goes before listener reports
    proto = frame[54] if frame[20] == 0 else frame[20]
    return proto == ICMP6 and len(frame) > at and (130 <= frame[at] <= 137 or frame[at] == 143)


NUMBER = itertools.count()  # one process may have several laboratories up


class Lab:
    """The namespaces, the router in the middle, and a wire at each host."""

    def __init__(self, router: Router, sides: dict[str, Side] = SIDES, exact: bool = True) -> None:
        """`exact`: frames are compared as bytes, so offloads are off; without it hosts run as fast as they can."""
        self.router, self.sides, self.exact = router, sides, exact
        self.prefix = f"uf{os.getpid()}-{router.kind[0]}{next(NUMBER)}"
        self.wires: dict[str, Wire] = {}
        self.answers = {
            name: {addr(ip): side.host_mac for n in ANSWERED for ip in (side.ip4(n), side.ip6(n))}
            for name, side in sides.items()}
        self.answered: list[str] = []
        self.kept: list[Out] = []

    def ns(self, name: str) -> str:
        """The namespace of a host, or of the router: `rt`."""
        return self.prefix + name

    # ---- up and down ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Bring everything up; whatever was made is removed again if that fails."""
        netns.sweep()
        try:
            for name in ("rt", *self.sides):
                netns.create(self.ns(name))
                netns.sysctl(self.ns(name), ipv6__conf__default__accept_dad=0, ipv6__conf__all__accept_dad=0,
                             ipv6__conf__default__accept_ra=0, ipv6__conf__default__router_solicitations=0,
                             ipv6__conf__default__disable_ipv6=int(name != "rt"))
            self.router.start(self)
            for name, side in self.sides.items():
                netns.ip(self.ns(name), f"link set eth0 address {side.host_mac} mtu {side.mtu}", "link set eth0 up")
                if self.exact:
                    quiet(self.ns(name), "eth0")
                    self.wires[name] = Wire(self.ns(name), "eth0")
            for name in self.wires:
                self.barrier(name, 10)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Take everything down."""
        for wire in self.wires.values():
            wire.close()
        self.wires.clear()
        self.router.stop()
        for name in ("rt", *self.sides):
            netns.delete(self.ns(name))

    @contextmanager
    def live(self) -> Iterator[None]:
        """Hosts with addresses, default routes and the kernel's own stack."""
        try:
            for name, side in self.sides.items():
                netns.sysctl(self.ns(name), ipv6__conf__eth0__disable_ipv6=0)
                also = [f"addr add {side.ip4(254)}/24 dev eth0", f"addr add {side.ip6(254)}/64 dev eth0 nodad preferred_lft 0"]
                netns.ip(self.ns(name), f"addr add {side.ip4()}/24 dev eth0",
                         f"addr add {side.ip6()}/64 dev eth0 nodad", *(also if name == "wan" else []),
                         f"route add default via {side.ip4(1)}",
                         f"route add ::/0 via {side.ip6(1)} dev eth0")
            yield
        finally:
            for name in self.sides:
                netns.ip(self.ns(name), "addr flush dev eth0")
                netns.sysctl(self.ns(name), ipv6__conf__eth0__disable_ipv6=1)

    # ---- frames -----------------------------------------------------------------------------------------------

    def up(self, at: str, packet: bytes) -> bytes:
        """The frame that carries an IP packet from the host at `at` to the router."""
        side = self.sides[at]
        return eth(side.router_mac, side.host_mac, ETH_IP6 if packet[0] >> 4 == 6 else ETH_IP, packet)

    def down(self, at: str, packet: bytes) -> Out:
        """What leaves the router when it sends this IP packet to the host at `at`: for comparing."""
        side = self.sides[at]
        return Out(at, eth(side.host_mac, side.router_mac, ETH_IP6 if packet[0] >> 4 == 6 else ETH_IP, packet))

    def send(self, at: str, *packets: bytes) -> list[Out]:
        """Send IP packets from the host at `at`; all that left the router because of them, in order per port."""
        return self.exchange(at, *(self.up(at, packet) for packet in packets))

    def exchange(self, at: str, *frames: bytes, settle: float = 0) -> list[Out]:
        """Send frames as they are; `settle` (seconds of silence) replaces the barrier where ARP is filtered."""
        for frame in frames:
            self.wires[at].send(frame)
        settle = settle or getattr(self.router, "settle", 0)
        if settle:
            self._drain_until(lambda: False, settle)
        else:
            self.barrier(at)
            while self.answered:
                self.barrier(self.answered.pop())
            self._drain_until(lambda: True, 0)
        kept, self.kept = self.kept, []
        return sorted(kept, key=lambda out: list(self.sides).index(out.port))

    def answered_by(self, at: str, packet: bytes, seconds: float = 3) -> list[Out]:
        """Send one packet; what left the router, waiting until something does (its own stack may take its time)."""
        return self.send(at, packet) or self.wait(bool, seconds)

    def forget_frames(self) -> None:
        """Throw away what has come so far."""
        self._drain_until(lambda: True, 0)
        self.kept.clear()
        self.answered.clear()

    def wait(self, want: Callable[[list[Out]], object], seconds: float) -> list[Out]:
        """Collect until `want(frames)` holds; AssertionError with what came instead after `seconds`."""
        if not self._drain_until(lambda: bool(want(self.kept)), seconds):
            raise AssertionError(f"waited {seconds} s; got {self.kept}\n{self.router.log()}")
        kept, self.kept = self.kept, []
        return kept

    def barrier(self, at: str, seconds: float = 3) -> None:
        """Return when the router has answered an ARP request behind everything sent at `at` (twice: it may batch)."""
        side = self.sides[at]
        request = eth(side.router_mac, side.host_mac, ETH_ARP,
                      arp(1, side.host_mac, side.ip4(), "00:00:00:00:00:00", side.ip4(1)))
        for _ in range(2):
            self._barriers = 0
            deadline = time.monotonic() + seconds
            while not self._barriers:
                self.wires[at].send(request)
                self._drain_until(lambda: bool(self._barriers), min(1, seconds))
                if not self._barriers and time.monotonic() > deadline:
                    raise AssertionError(f"the router does not answer ARP at {at}\n{self.router.log()}")

    _barriers = 0

    def _drain_until(self, done: Callable[[], bool], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        wires = {wire.fileno(): name for name, wire in self.wires.items()}
        while True:
            for name in self.wires:
                self._take(name)
            if done():
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            select.select(list(wires), [], [], left)

    def _take(self, name: str) -> None:
        side = self.sides[name]
        for frame in self.wires[name].receive():
            answer = neighbour_answer(frame, self.answers[name], side.router_mac)
            if answer:
                self.wires[name].send(answer)
                self.answered.append(name)
            if frame[12:14] == b"\x08\x06" and frame[20:22] == b"\0\2" and frame[28:32] == addr(side.ip4(1)):
                self._barriers += 1
            if self.keep_all or not is_housekeeping(frame):
                self.kept.append(Out(name, frame))

    keep_all = False

    @contextmanager
    def housekeeping(self) -> Iterator[None]:
        """Keep ARP and neighbour discovery among the frames that are returned."""
        self.keep_all = True
        try:
            yield
        finally:
            self.keep_all = False


def quiet(ns: str, device: str) -> None:
    """Switch off offloads, so that frames are seen as on a wire."""
    off = [word for name in ("tx", "rx", "sg", "tso", "gso", "gro") for word in (name, "off")]
    netns.run(["ethtool", "-K", device, *off], ns=ns, check=False)
