"""The bridge: learning, flooding, VLANs, the five hooks, what goes up and what is routed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet as Layer

from tests.router.router_lab import SECOND, Lab, mac_bytes
from userfw.conntrack.table import ConnTable
from userfw.core.packet import Device
from userfw.ports.memory import MemoryPort
from userfw.router.bridge import Bridge
from userfw.router.interfaces import parse_address
from userfw.router.queue import QueuedPacket
from userfw.ruleset.manager import RulesetManager

BR = "02:00:00:00:0b:01"
HOSTS = {name: f"02:00:00:00:0a:0{i}" for i, name in enumerate("abc", 1)}
ALL = "ff:ff:ff:ff:ff:ff"


class BridgeLab(Lab):
    """`br0` 10.0.0.1/24 over a, b and c; `lan` and `wan` beside it."""

    def __init__(self, rules: str = "", filtering: bool = False) -> None:
        super().__init__()
        device = Device("br0", 20, mac_bytes(BR))
        self.bridge = Bridge(self.gw, device)
        self.gw.add_device(device)
        self.bridge.filtering = filtering
        self.members = {}
        for index, name in enumerate("abc", 10):
            port = Device(name, index, mac_bytes(f"02:00:00:00:0c:{index}"))
            self.ports[name] = MemoryPort(port)
            self.gw.add_device(port)
            self.members[name] = self.bridge.add_port(port)
        self.gw.add_address(device, parse_address("10.0.0.1/24"))
        self.conns = ConnTable(self.clock)
        self.rules = RulesetManager(self.gw, self.conns)
        self.load(rules)

    def load(self, text: str) -> str:
        result = self.rules.execute(text)
        assert result.status == 0, result.errors
        return result.output

    def pass_(self, port: str, frame: Layer | bytes) -> dict[str, list[Ether]]:
        """What came out of each port."""
        self.send(bytes(frame), port)
        found = {name: self.out(name) for name in self.ports}
        return {name: frames for name, frames in found.items() if frames}

    def counts(self) -> dict[str, int]:
        listing = self.load("list counters")
        parts = listing.split("counter ")[1:]
        return {p.split()[0]: int(p.split("packets ")[1].split()[0]) for p in parts}


def udp(source: str, target: str, dport: int = 9, payload: bytes = b"x") -> Layer:
    to = HOSTS.get(target, target)
    return Ether(src=HOSTS[source], dst=to) / IP(src="10.0.0.11", dst="10.0.0.12") / UDP(sport=5, dport=dport) / payload


def test_flood_learn_forward_forget() -> None:
    lab = BridgeLab()
    assert set(lab.pass_("a", udp("a", "b"))) == {"b", "c"}
    assert set(lab.pass_("b", udp("b", "a"))) == {"a"}
    assert set(lab.pass_("a", udp("a", "b"))) == {"b"}
    assert set(lab.pass_("c", udp("b", "a"))) == {"a"}, "a host that moved"
    assert set(lab.pass_("a", udp("a", "b"))) == {"c"}
    assert lab.pass_("c", udp("c", "b")) == {} and lab.drops()["BRIDGE_FILTER"] == 1
    assert {(e["mac"], e["port"]) for e in lab.bridge.listing()["fdb"]} == {(HOSTS["a"], "a"), (HOSTS["b"], "c"), (HOSTS["c"], "c")}
    lab.clock.now += 301 * SECOND
    assert set(lab.pass_("a", udp("a", "b"))) == {"b", "c"}
    frame = udp("a", ALL)
    assert {name: [bytes(f) for f in out] for name, out in lab.pass_("a", frame).items()} == {n: [bytes(frame)] for n in "bc"}


def test_frames_that_go_no_further() -> None:
    lab = BridgeLab()
    for last, forwarded in ((0x00, True), (0x01, False), (0x02, False), (0x0E, False), (0x0F, False), (0x10, True)):
        frame = Ether(src=HOSTS["a"], dst=f"01:80:c2:00:00:{last:02x}", type=0x88B5) / b"hello"
        assert bool(lab.pass_("a", frame)) == forwarded, hex(last)
    lab.bridge.group_fwd_mask = 1 << 14
    assert set(lab.pass_("a", Ether(src=HOSTS["a"], dst="01:80:c2:00:00:0e", type=0x88CC) / b"lldp")) == {"b", "c"}
    for source in ("01:00:00:00:00:01", "00:00:00:00:00:00"):
        assert lab.pass_("a", Ether(src=source, dst=HOSTS["b"], type=0x88B5) / b"x") == {}
    assert set(lab.pass_("a", Ether(src=HOSTS["a"], dst=HOSTS["b"], type=0x88B5) / b"anything")) == {"b", "c"}
    lab.gw.set_up(lab.members["b"].device, False)
    assert set(lab.pass_("a", udp("a", ALL))) == {"c"}


def test_the_bridge_is_a_host() -> None:
    lab = BridgeLab()
    out = lab.pass_("b", Ether(src=HOSTS["b"], dst=ALL) / ARP(op=1, hwsrc=HOSTS["b"], psrc="10.0.0.12", pdst="10.0.0.1"))
    assert {name: frames[0][ARP].op for name, frames in out.items()} == {"a": 1, "b": 2, "c": 1}
    assert out["b"][0][ARP].hwsrc == BR and out["b"][0].dst == HOSTS["b"]
    out = lab.pass_("b", Ether(src=HOSTS["b"], dst=BR) / IP(src="10.0.0.12", dst="10.0.0.1") / ICMP(id=4))
    assert set(out) == {"b"} and out["b"][0][ICMP].type == 0 and out["b"][0].src == BR


def test_routed_through_the_bridge() -> None:
    lab = BridgeLab()
    lab.neighbour(lab.bridge.device, "10.0.0.12", HOSTS["b"])
    out = lab.pass_("lan", Ether(src="02:00:00:00:01:10", dst="02:00:00:00:00:01") / IP(src="192.0.2.10", dst="10.0.0.12") / UDP())
    assert set(out) == {"a", "b", "c"}, "an address that was not heard yet is flooded to"
    lab.pass_("b", udp("b", ALL))
    out = lab.pass_("lan", Ether(src="02:00:00:00:01:10", dst="02:00:00:00:00:01") / IP(src="192.0.2.10", dst="10.0.0.12") / UDP())
    assert set(out) == {"b"} and (out["b"][0].dst, out["b"][0].src, out["b"][0][IP].ttl) == (HOSTS["b"], BR, 63)
    out = lab.pass_("b", Ether(src=HOSTS["b"], dst=BR) / IP(src="10.0.0.12", dst="198.51.100.10") / UDP())
    assert set(out) == {"wan"} and out["wan"][0][IP].ttl == 63


HOOKS = "table bridge t {\n" + "".join(f"counter {n} {{ }}\n" for n in ("pre", "in", "forw", "out", "post")) + "".join(
    f"chain {c} {{ type filter hook {h} priority 0; {m} counter name {c}; }}\n" for c, h, m in (
        ("pre", "prerouting", 'iifname "a" meta ibrname "br0"'), ("in", "input", 'iifname "a"'),
        ("forw", "forward", 'iifname "a" oifname "b" meta obrname "br0" ether type ip ip daddr 10.0.0.12'),
        ("out", "output", 'oifname "a"'), ("post", "postrouting", 'oifname { "a", "b" }'),
    )) + "}\n"  # fmt: skip


def test_the_five_hooks() -> None:
    lab = BridgeLab(HOOKS)
    lab.neighbour(lab.bridge.device, "10.0.0.11", HOSTS["a"])
    lab.pass_("b", udp("b", ALL))
    lab.load("reset counters")
    lab.pass_("a", udp("a", "b"))
    assert lab.counts() == {"pre": 1, "in": 0, "forw": 1, "out": 0, "post": 1}
    lab.load("reset counters")
    lab.pass_("a", Ether(src=HOSTS["a"], dst=BR) / IP(src="10.0.0.11", dst="10.0.0.1") / ICMP())
    assert lab.counts() == {"pre": 1, "in": 1, "forw": 0, "out": 1, "post": 1}
    lab.load("reset counters")
    lab.pass_("a", Ether(src=HOSTS["a"], dst=BR) / ARP(op=1, hwsrc=HOSTS["a"], psrc="10.0.0.11", pdst="10.0.0.1"))
    assert lab.counts() == {"pre": 1, "in": 1, "forw": 0, "out": 1, "post": 1}


def test_what_rules_say() -> None:
    lab = BridgeLab("""table bridge t { chain f { type filter hook forward priority 0
        ether type arp arp operation request drop
        ip6 nexthdr udp drop
        vlan id 7 drop
        udp dport 10 drop
        ether saddr 02:00:00:00:0a:03 ether daddr set 02:00:00:00:0a:09
    }\n}""")
    assert lab.pass_("a", Ether(src=HOSTS["a"], dst=ALL) / ARP(op=1, psrc="10.0.0.9", pdst="10.0.0.8")) == {}
    assert lab.pass_("a", Ether(src=HOSTS["a"], dst=HOSTS["b"]) / IPv6(src="fd00::1", dst="fd00::2") / UDP()) == {}
    assert lab.pass_("a", Ether(src=HOSTS["a"], dst=HOSTS["b"]) / Dot1Q(vlan=7) / IP() / UDP()) == {}
    assert set(lab.pass_("a", Ether(src=HOSTS["a"], dst=HOSTS["b"]) / Dot1Q(vlan=8) / IP() / UDP())) == {"b", "c"}
    assert lab.pass_("a", udp("a", "b", 10)) == {} and set(lab.pass_("a", udp("a", "b", 11))) == {"b", "c"}
    assert {f[0].dst for f in lab.pass_("c", udp("c", ALL)).values()} == {"02:00:00:00:0a:09"}


def test_reject_leaves_by_the_port_it_came_from() -> None:
    lab = BridgeLab("""table bridge t { chain p { type filter hook prerouting priority 0
        tcp dport 80 reject with tcp reset
        udp dport 9 reject
    }\n}""")
    out = lab.pass_("a", Ether(src=HOSTS["a"], dst=HOSTS["b"]) / IP(src="10.0.0.11", dst="10.0.0.12") / TCP(
        sport=7, dport=80, seq=5))  # fmt: skip
    assert set(out) == {"a"} and str(out["a"][0][TCP].flags) == "RA" and out["a"][0][TCP].ack == 6
    assert (out["a"][0].src, out["a"][0].dst, out["a"][0][IP].src) == (HOSTS["b"], HOSTS["a"], "10.0.0.12")
    lab.pass_("a", Ether(src=HOSTS["a"], dst=HOSTS["b"]) / Dot1Q(vlan=5) / IP(src="10.0.0.11", dst="10.0.0.12") / UDP(dport=9))
    assert lab.pass_("a", udp("a", "b"))["a"][0][ICMP].code == 3


def test_broute() -> None:
    lab = BridgeLab("table bridge t { chain p { type filter hook prerouting priority -400; udp dport 9 meta broute set 1; }\n}")
    lab.gw.add_address(lab.members["a"].device, parse_address("10.9.0.1/24"))
    own = lab.members["a"].device.mac.hex(":")
    out = lab.pass_("a", Ether(src=HOSTS["a"], dst=own) / IP(src="10.9.0.5", dst="198.51.100.10") / UDP(dport=9))
    assert set(out) == {"wan"}, "routed from the port itself"
    assert set(lab.pass_("a", udp("a", "b", 10))) == {"b", "c"}


def test_connections_in_the_bridge() -> None:
    lab = BridgeLab("""table bridge t {
        counter new { } counter est { } counter un { }
        chain f { type filter hook forward priority 0
        ct state new counter name new
        ct state established counter name est
        ct state untracked counter name un
    }\n}""".replace(" } counter", " }\ncounter"))  # fmt: skip
    lab.pass_("b", udp("b", ALL))
    lab.load("reset counters")
    for conn in lab.conns.members(0, 0):
        lab.conns.destroy(conn)
    lab.pass_("a", udp("a", "b"))
    lab.pass_("b", Ether(src=HOSTS["b"], dst=HOSTS["a"]) / IP(src="10.0.0.12", dst="10.0.0.11") / UDP(sport=9, dport=5))
    lab.pass_("a", Ether(src=HOSTS["a"], dst=HOSTS["b"]) / ARP(op=2))
    assert lab.conns.count == 1 and lab.counts() == {"new": 1, "est": 1, "un": 1}
    pieces = fragment(IP(src="10.0.0.11", dst="10.0.0.12", id=77) / UDP(sport=5, dport=9) / bytes(3000), 1400)
    sent = [bytes(Ether(src=HOSTS["a"], dst=HOSTS["b"]) / piece) for piece in pieces]
    out = [lab.pass_("a", frame) for frame in sent]
    assert out[:-1] == [{}] * (len(sent) - 1) and [bytes(f) for f in out[-1]["b"]] == sent
    assert lab.counts()["est"] == 2


def test_fragments_go_on_though_the_bridge_dropped_one() -> None:
    rules = """table bridge t { counter seen { }
        chain c { type filter hook postrouting priority 0; policy drop; ether type ip counter name seen
        }
        }"""
    lab = BridgeLab(rules)
    lab.neighbour(lab.bridge.device, "10.0.0.10", HOSTS["a"])
    lab.bridge.device.mtu = 600
    lab.gw.routes.changed()
    lab.pass_("a", Ether(dst=BR, src=HOSTS["a"]) / b"")
    lab.send(IP(src="192.0.2.10", dst="10.0.0.10") / UDP(sport=1, dport=2) / bytes(1400))
    assert lab.counts() == {"seen": 3}


def test_queue_in_the_bridge() -> None:
    lab = BridgeLab("""table bridge t { chain f { type filter hook forward priority 0; udp dport 9 queue num 1; }
        chain p { type filter hook prerouting priority 0; udp dport 8 queue num 1; }\n}""")
    held: list[QueuedPacket] = []
    lab.gw.queues.bind(1, held.append)
    assert lab.pass_("a", udp("a", "b")) == {} and len(held) == 2
    for packet in held:
        packet.accept()
    lab.gw.end_batch()
    assert (len(lab.out("b")), len(lab.out("c"))) == (1, 1)
    held.clear()
    assert lab.pass_("a", udp("a", "b", 8)) == {} and len(held) == 1
    held[0].accept()
    lab.gw.end_batch()
    assert (len(lab.out("b")), len(lab.out("c"))) == (1, 1)


def vlan_lab() -> BridgeLab:
    """a: access port of 10. b: trunk of 10 and 20, untagged 1. c: access port of 20. The bridge itself: 10, untagged."""
    lab = BridgeLab(filtering=True)
    for name, pvid, tagged, untagged in (("a", 10, (), (10,)), ("b", 1, (10, 20), (1,)), ("c", 20, (), (20,))):
        port = lab.members[name]
        port.pvid, port.untagged, port.vlans = pvid, set(untagged), {*tagged, *untagged}
    own = lab.bridge.own
    own.pvid, own.untagged, own.vlans = 10, {10}, {10}
    return lab


def test_vlan_filtering() -> None:
    lab = vlan_lab()
    out = lab.pass_("a", udp("a", ALL))
    assert set(out) == {"b"} and out["b"][0][Dot1Q].vlan == 10 and bytes(out["b"][0][IP]) == bytes(udp("a", ALL)[IP])
    tagged = Ether(src=HOSTS["b"], dst=HOSTS["a"]) / Dot1Q(vlan=10, prio=3) / IP(src="10.0.0.12", dst="10.0.0.11") / UDP()
    out = lab.pass_("b", tagged)
    assert set(out) == {"a"} and not out["a"][0].haslayer(Dot1Q) and bytes(out["a"][0][IP]) == bytes(tagged[IP])
    assert set(lab.pass_("b", Ether(src=HOSTS["b"], dst=ALL) / Dot1Q(vlan=20) / IP() / UDP())) == {"c"}
    for frame in (Ether(src=HOSTS["b"], dst=ALL) / Dot1Q(vlan=30) / IP() / UDP(), udp("b", ALL)):
        assert lab.pass_("b", frame) == {}
    assert lab.pass_("a", Ether(src=HOSTS["a"], dst=ALL) / Dot1Q(vlan=20) / IP() / UDP()) == {}
    out = lab.pass_("a", Ether(src=HOSTS["a"], dst=ALL) / Dot1Q(vlan=0, prio=5) / IP() / UDP())
    assert (out["b"][0][Dot1Q].vlan, out["b"][0][Dot1Q].prio) == (10, 5)
    assert {e["vlan"] for e in lab.bridge.listing()["fdb"]} == {10, 20, 1}
    lab.load("table bridge t { counter n { }\nchain p { type filter hook prerouting priority 0; "
             "meta ibrpvid 10 meta ibrvproto 8021q counter name n; }\n}")
    lab.pass_("a", udp("a", ALL))
    lab.pass_("b", tagged)
    assert lab.counts() == {"n": 1}


def test_the_bridge_itself_is_in_its_vlans() -> None:
    lab = vlan_lab()
    ask = ARP(op=1, hwsrc=HOSTS["b"], psrc="10.0.0.12", pdst="10.0.0.1")
    out = lab.pass_("b", Ether(src=HOSTS["b"], dst=ALL) / Dot1Q(vlan=10) / ask)
    assert set(out) == {"a", "b"} and out["b"][0][Dot1Q].vlan == 10 and out["b"][0][ARP].op == 2
    assert set(lab.pass_("b", Ether(src=HOSTS["b"], dst=ALL) / Dot1Q(vlan=20) / ask)) == {"c"}


@pytest.mark.parametrize("name", ["hairpin", "isolated", "no learning", "no flood", "static", "full"])
def test_ports_may_be_odd(name: str) -> None:
    lab = BridgeLab()
    a, b = lab.members["a"], lab.members["b"]
    if name == "hairpin":
        a.hairpin = True
        assert set(lab.pass_("a", udp("a", ALL))) == {"a", "b", "c"}
    elif name == "isolated":
        a.isolated = b.isolated = True
        assert set(lab.pass_("a", udp("a", ALL))) == {"c"} and set(lab.pass_("c", udp("c", ALL))) == {"a", "b"}
    elif name == "no learning":
        a.learning = False
        lab.pass_("a", udp("a", ALL))
        assert set(lab.pass_("b", udp("b", "a"))) == {"a", "c"}
    elif name == "no flood":
        b.flood = False
        assert set(lab.pass_("a", udp("a", "c"))) == {"c"} and set(lab.pass_("a", udp("a", ALL))) == {"b", "c"}
    elif name == "static":
        lab.bridge.add_static(int.from_bytes(mac_bytes(HOSTS["c"]), "big"), 0, b)
        lab.pass_("c", udp("c", ALL))
        assert set(lab.pass_("a", udp("a", "c"))) == {"b"}
    else:
        lab.bridge.fdb_max = 1
        lab.pass_("a", udp("a", ALL))
        lab.pass_("b", udp("b", ALL))
        assert len(lab.bridge.fdb) == 1 and lab.bridge.refused == 1
        assert set(lab.pass_("a", udp("a", "b"))) == {"b", "c"}


SCENES = json.loads((Path(__file__).parent / "bridge_frames.json").read_text())


@pytest.mark.parametrize("name", SCENES)
def test_the_kernels_frames(name: str) -> None:
    """What a bridge of Linux 6.1 made of the same frames, ports as in `vlan_lab`; identifications it made up are masked."""
    scene = SCENES[name]
    lab = vlan_lab() if scene["filtering"] else BridgeLab()
    lab.load(scene["rules"])
    for number, (port, frame, kernel) in enumerate(scene["frames"]):
        mine = lab.pass_(port, bytes.fromhex(frame))
        ours = {name: sorted(plain(bytes(f)) for f in frames) for name, frames in mine.items()}
        theirs = {name: sorted(plain(bytes.fromhex(f)) for f in frames) for name, frames in kernel.items()}
        assert ours == theirs, f"frame {number} into {port}: {Ether(bytes.fromhex(frame)).summary()}"


def plain(frame: bytes) -> str:
    """Without the identification of what the bridge made itself, and padding."""
    layer = Ether(frame)
    if (IP in layer and layer[IP].src == "10.0.0.12" and layer[IP].id == 0) or (ICMP in layer and layer[ICMP].type == 0):
        layer[IP].id = 0
        del layer[IP].chksum
        frame = bytes(layer)
    return frame.hex()
