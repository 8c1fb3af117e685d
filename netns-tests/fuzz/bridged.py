"""Frames into the ports of the router's bridge: to hosts that are known or not, to groups, to the bridge, tagged, odd.

Laws
- Most come from a port of the bridge, as whole frames; the others are packets of the networks around the router, as elsewhere, and
  some of these are routed into the bridge.
- Hosts have the hardware address of their port, so what goes to the bridge's own address is answered or routed to them; strangers
  (`pools.STRANGERS`) move.
"""

import random
import struct
from collections.abc import Sequence

from lab import frames as f
from lab.families import EVERY, Family

from . import pools
from .traffic import Frame, Generator, Step

BROADCAST = "ff:ff:ff:ff:ff:ff"
LINK_LOCAL = [f"01:80:c2:00:00:{last:02x}" for last in (0, 0, 1, 2, 3, 14, 15, 16, 33)]
GROUPS = ("01:00:5e:00:00:05", "01:00:5e:7f:01:02", "33:33:00:00:00:01", "33:33:00:00:01:02", "01:00:0c:cc:cc:cc",
          "03:00:00:00:00:01")
BPDU = bytes.fromhex("424203 00000000 8000020000000701 00000000 8000020000000701 8001 0000 1400 0200 0f00")
TAGS = (0, 1, 5, 7, 0x2005, 0xE007, 0x1001)
PPPOE = 0x8864  # Linux with br_netfilter has no shorter ones than their header
OTHER_KINDS = (0x88B5, 0x88CC, PPPOE, 0x8847, 0x0806, 0x9000, 0x22F0)


class Frames(Generator):
    """Draws steps for a router that is a bridge as well."""

    def __init__(self, rng: random.Random, rules: str = "") -> None:
        super().__init__(rng, rules)
        self.names = pools.ALL_NAMES

    def fresh(self, roll: float) -> Step:
        """See Generator."""
        if self.rng.random() < 0.15:
            return super().fresh(roll)
        port = self.rng.choice(pools.PORTS_OF_BRIDGE)
        to = self._receiver(port)
        return Step(port, "frames", tuple(self.framed(port, to, body) for body in self._bodies(port, to, roll)))

    def framed(self, port: str, to: str, body: tuple[int, bytes], tag: int | None = None) -> Frame:
        """A frame from a host behind a port; with a tag, or two, now and then."""
        rng, own = self.rng, EVERY[port].host_mac
        roll = rng.random()
        odd = (own[:-2] + "11", rng.choice(pools.OWN_MACS), "01:00:00:00:00:07", "00:00:00:00:00:00",
               EVERY[rng.choice(self.names)].host_mac)
        source = own if roll < 0.85 else rng.choice(pools.STRANGERS if roll < 0.94 else odd)
        if tag is None and rng.random() < 0.15:
            tag = rng.choice(TAGS)
        kind, data = body
        if rng.random() < 0.03:
            kind, data = rng.choice((f.ETH_VLAN, 0x88A8)), struct.pack("!HH", rng.choice(TAGS), kind) + data
        return Frame(f.eth(to, source, kind, data, tag))

    def _receiver(self, port: str) -> str:
        """The hardware address a frame is for."""
        rng = self.rng
        others = [EVERY[name].host_mac for name in pools.PORTS_OF_BRIDGE if name != port]
        choices: tuple[tuple[float, Sequence[str]], ...] = (
            (0.40, others), (0.52, (BROADCAST,)), (0.60, GROUPS), (0.66, LINK_LOCAL),
            (0.80, pools.OWN_MACS[:1]), (0.84, [EVERY[name].router_mac for name in pools.PORTS_OF_BRIDGE]),
            (0.94, pools.STRANGERS), (0.97, (EVERY[port].host_mac,)), (1.0, ("02:00:00:00:09:09", "00:00:00:00:00:00")))
        roll = rng.random()
        return rng.choice(next(group for most, group in choices if roll <= most))

    def _bodies(self, port: str, to: str, roll: float) -> list[tuple[int, bytes]]:
        """(EtherType or length, payload) of what is sent: one, or the fragments of one."""
        rng, which = self.rng, self.rng.random()
        if which < 0.10:
            return [(f.ETH_ARP, self.arp(port) if rng.random() < 0.6 else self.bodies.arp(port))]
        if which < 0.16:
            kind, size = rng.choice(OTHER_KINDS), rng.choice((0, 1, 20, 46, 300))
            return [(len(BPDU), BPDU) if rng.random() < 0.5 else (kind, rng.randbytes(max(size, 8 if kind == PPPOE else 0)))]
        if which < 0.19:
            return [(rng.choice((3, 46, 0x5FF, 0x600)), b"\xaa\xaa\x03\0\0\0\x08\0" + self.packet(port)[:300])]
        packet = self.between(port) if to not in pools.OWN_MACS and rng.random() < 0.8 else self.packet(port)
        packets = self.cut(packet) if roll < 0.50 else (self.broken(packet),) if roll < 0.58 else (packet,)
        return [(f.ETH_IP6 if one[:1] and one[0] >> 4 == 6 else f.ETH_IP, one) for one in packets]

    def between(self, port: str) -> bytes:
        """A packet between hosts of the bridge."""
        rng, fam = self.rng, pools.family(self.rng.choice(("ip", "ip", "ip6")))
        other = rng.choice([name for name in pools.PORTS_OF_BRIDGE if name != port])
        return self.transport(fam, fam.host(port, rng.choice(pools.HOSTS)), fam.host(other, rng.choice(pools.HOSTS)))

    def arp(self, port: str) -> bytes:
        """A question or an answer among the hosts of the bridge."""
        rng, side = self.rng, EVERY[port]
        other = EVERY[rng.choice(pools.PORTS_OF_BRIDGE)]
        return f.arp(rng.choice((1, 1, 2)), side.host_mac, side.ip4(rng.choice(pools.HOSTS)),
                     "00:00:00:00:00:00", other.ip4(rng.choice((1, *pools.HOSTS))))

    def aimed(self, fam: Family | None, proto: int, hook: str, tag: int | None, device: str = "") -> Step:
        """A step for a chain at a hook of the bridge, or at a port (`device`) of it: `fam` None asks for ARP."""
        rng = self.rng
        port, other = rng.sample(pools.PORTS_OF_BRIDGE, 2)
        if device and (port if hook == "ingress" else other) != device:
            port, other = (device, port) if hook == "ingress" else (other if port == device else port, device)
        up = hook in ("input", "output")
        if fam is None:
            arp = self.bodies.request(port) if up else self.arp(port)
            return Step(port, "aimed", (self.framed(port, BROADCAST if up else EVERY[other].host_mac, (f.ETH_ARP, arp), tag),))
        if hook == "output" and proto not in (f.ICMP, f.ICMP6):
            far = rng.choice(pools.NAMES)
            return Step(far, "aimed", (self.carried(fam, fam.host(far, rng.choice(pools.HOSTS)),
                                                    fam.host(port, rng.choice(pools.HOSTS)), proto),))
        dst = fam.host(port, 1) if up else fam.host(other, rng.choice(pools.HOSTS))
        packet = self.carried(fam, fam.host(port, rng.choice(pools.HOSTS)), dst, proto)
        to = pools.OWN_MACS[0] if up else EVERY[other].host_mac
        return Step(port, "aimed", (self.framed(port, to, (f.ETH_IP6 if fam.name == "ip6" else f.ETH_IP, packet), tag),))
