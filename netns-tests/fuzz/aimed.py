"""Packets aimed at a ruleset: for every base chain some that come to its hook and have what its rules ask for first.

Laws
- Chance brings few packets to the gateway itself, of ARP, and of rarer transports; what stands there would stay unmet.
- What goes to a chain depends on its head and on the guards of its rules (`meta l4proto`, `meta protocol`, `meta nfproto`) only.
"""

import random
import re
from dataclasses import dataclass

from lab import frames as f
from lab.families import IP4, IP6, Family
from lab.topology import BRIDGED

from . import pools
from .bodies import AH, DCCP, ESP, GRE, SCTP, UDPLITE
from .bridged import Frames
from .rules import Chain, Ruleset, Table
from .traffic import Generator, Step

COMP = 108
CARRIERS = {"tcp": f.TCP, "udp": f.UDP, "icmp": f.ICMP, "icmpv6": f.ICMP6, "sctp": SCTP, "dccp": DCCP, "gre": GRE, "esp": ESP,
            "ah": AH, "comp": COMP, "udplite": UDPLITE}
_HEAD = re.compile(r'type \w+ hook (\w+)(?: device "(\w+)")?')
_TRANSPORT = re.compile(r"\bmeta l4proto (\w+)")
_TAG = re.compile(r"\bvlan (?:id (?:set )?(\d+)|\w)")
_NETWORK = {"meta protocol ip6": IP6, "meta nfproto ipv6": IP6, "meta protocol ip": IP4, "meta nfproto ipv4": IP4}


@dataclass
class Aim:
    """Draws steps for rulesets; `generator` makes the packets."""

    rng: random.Random
    generator: Generator

    def steps(self, ruleset: Ruleset, most: int) -> list[Step]:
        """So many steps at most, in any order."""
        found = [step for table in ruleset.tables for chain in table.chains if (head := _HEAD.search(chain.head))
                 for step in self._chain(table, chain, head[1], head[2] or "")]
        self.rng.shuffle(found)
        return found[:most]

    def _chain(self, table: Table, chain: Chain, hook: str, device: str) -> list[Step]:
        """One for each pair of network and transport that rules ask for, and two that none asks for; of nat, three for each
        rule: what it maps, one in three, meets no further one, and a later packet of its connection meets none."""
        if table.family == "arp":
            return [self._arp() for _ in range(5)]
        if isinstance(self.generator, Frames) and (table.family == "bridge" or device in BRIDGED):
            return self._bridged(self.generator, chain, hook, device)
        asked = [(self._family(table.family, rule), self._transport(rule)) for rule in chain.rules]
        wanted = [*asked, *((self._family(table.family, ""), name) for name in ("udp", "tcp"))]
        wanted = wanted * 3 if "type nat" in chain.head else list(dict.fromkeys(wanted))
        return [self._step(fam, name, hook, device) for fam, name in wanted]

    def _bridged(self, frames: Frames, chain: Chain, hook: str, device: str) -> list[Step]:
        """The same for frames that pass the bridge."""
        asked = [(self._link_family(rule), self._transport(rule), _TAG.search(rule)) for rule in chain.rules]
        wanted = dict.fromkeys([*((fam, name, int(tag[1] or 5) if tag else None) for fam, name, tag in asked),
                                *((self._link_family(""), name, None) for name in ("udp", "tcp"))])
        return [frames.aimed(fam, CARRIERS.get(name, f.UDP), hook, tag, device) for fam, name, tag in wanted]

    def _link_family(self, rule: str) -> Family | None:
        """What the rule asks for, None for ARP."""
        return None if "meta protocol arp" in rule or "vlan type arp" in rule else self._family("bridge", rule)

    def _arp(self) -> Step:
        port = self.rng.choice(self.generator.names)
        return Step(port, "arp", (self.generator.bodies.request(port),))

    def _family(self, table: str, rule: str) -> Family:
        """What the rule asks for, or what its table has."""
        asked = [family for words, family in _NETWORK.items() if re.search(rf"\b{words}\b", rule)]
        if asked:
            return asked[0]
        return IP6 if table == "ip6" else IP4 if table == "ip" else self.rng.choice((IP4, IP6))

    @staticmethod
    def _transport(rule: str) -> str:
        found = _TRANSPORT.search(rule)
        return found[1] if found and found[1] in CARRIERS else ""

    def _step(self, fam: Family, name: str, hook: str, device: str) -> Step:
        rng = self.rng
        others = [port for port in self.generator.names if port != device]
        source, target = (device, rng.choice(others)) if hook == "ingress" else \
            (rng.choice(others), device) if hook == "egress" else tuple(rng.sample(self.generator.names, 2))
        if hook == "output" and name != "gre" and self.generator.speaks:
            return self.generator.own(fam, CARRIERS.get(name, f.UDP), "aimed")
        own = hook in ("input", "output") and name != "gre"  # the kernel's host listens to GRE in a way of its own
        src = fam.host(source, rng.choice(pools.HOSTS))
        dst = fam.host(source, 1) if own else fam.host(target, rng.choice(pools.HOSTS))
        return Step(source, "aimed", (self.generator.carried(fam, src, dst, CARRIERS.get(name, f.UDP)),))
