"""The bridge beside the kernel's: the same frames into lan, dmz and wan, which are its ports; edge is routed to."""

import struct
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import OWN, masked
from lab import frames as f
from lab.families import IP4
from lab.kernel import BRIDGE_MAC as BR
from lab.kernel import KernelRouter
from lab.topology import SIDES, Lab, Out
from lab.userfw import UserfwRouter

PORTS = ("lan", "dmz", "wan")
HOST = {name: f"02:00:00:00:0{i}:10" for i, name in enumerate(PORTS, 1)}
ALL = "ff:ff:ff:ff:ff:ff"


class KernelBridge(KernelRouter):
    """Linux's own bridge."""

    def start(self, lab: Lab) -> None:
        """The router, its three TAP sides made ports of `br0`."""
        super().start(lab)
        self.bridge(PORTS)


class UserfwBridge(UserfwRouter):
    """The daemon's."""

    def config(self) -> dict[str, Any]:
        """The router's, with a bridge."""
        config = super().config()
        for port in config["port"]:
            if port["name"] in PORTS:
                port["addresses"] = []
        config["bridge"] = [{"name": "br0", "ports": list(PORTS), "mac": BR,
                             "addresses": [f"{self.lab.sides[name].ip4(1)}/24" for name in PORTS]}]
        config["route"] = []
        return config


@pytest.fixture(scope="module")
def seen() -> dict[str, list[list[Out]]]:
    """What the kernel's bridge did in each test."""
    return {}


@pytest.fixture(scope="module", params=["kernel", "userfw"])
def bridged(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """One bridge for all tests of this file."""
    if request.config.getoption("--router") not in ("both", request.param):
        pytest.skip("not asked for")
    lab = Lab(KernelBridge() if request.param == "kernel" else UserfwBridge())
    lab.start()
    yield lab
    lab.stop()


@pytest.fixture
def lab(bridged: Lab, request: pytest.FixtureRequest, seen: dict[str, list[list[Out]]],
        monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """The laboratory; every exchange is compared with the kernel's."""
    bridged.router.load("")
    bridged.forget_frames()
    said: list[list[Out]] = []
    exchange = bridged.exchange

    def recorded(at: str, *frames: bytes, **options: Any) -> list[Out]:
        out = sorted(Out(out.port, masked(out.frame)) for out in exchange(at, *frames, **options) if not barrier(out.frame))
        said.append(out)
        return out

    monkeypatch.setattr(bridged, "exchange", recorded)
    with bridged.housekeeping():
        yield bridged
    name = request.node.name.replace(bridged.router.kind, "*")
    for mine, kernels in zip(said, seen.setdefault(name, said), strict=True):
        assert [(o.port, o.frame.hex()) for o in mine] == [(o.port, o.frame.hex()) for o in kernels]


IGMP = b"\x02"
OWN_MACS = {f.mac(address) for address in (BR, *(side.router_mac for side in SIDES.values()))}


def barrier(frame: bytes) -> bool:
    """ARP about the router's own addresses: the laboratory's barriers and their answers, as many as it takes; and what the kernel's
    bridge and its ports themselves say by IPv6 and IGMP when they like (it joins the groups of snoopers, RFC 4286)."""
    if frame[6:12] in OWN_MACS and (frame[12:14] == b"\x86\xdd" or (frame[12:14], frame[23:24]) == (b"\x08\x00", IGMP)):
        return True
    return frame[12:14] == b"\x08\x06" and any(address in (frame[28:32], frame[38:42]) for address in OWN)


def frame(source: str, target: str, kind: int = 0x88B5, payload: bytes = b"hello", vlan: int | None = None) -> bytes:
    return f.eth(HOST.get(target, target), HOST.get(source, source), kind, payload.ljust(46, b"\0"), vlan)


def packet(source: str, target: str, dport: int = 9) -> bytes:
    return frame(source, target, f.ETH_IP, f.udp_packet("10.1.1.1", "10.1.1.2", 5, dport, bytes(40)))


def test_learning_and_flooding(lab: Lab) -> None:
    one = [out for out in lab.exchange("lan", frame("lan", "02:00:00:00:09:09")) if out.frame[12:14] == b"\x88\xb5"]
    assert [out.port for out in one] == ["dmz", "wan"]
    for source, target in (("lan", "dmz"), ("dmz", "lan"), ("wan", "dmz"), ("dmz", "wan"), ("lan", ALL), ("lan", "lan")):
        lab.exchange(source, frame(source, target), packet(source, target))
    lab.exchange("wan", frame("02:00:00:00:07:07", ALL))
    lab.exchange("dmz", frame("dmz", "02:00:00:00:07:07"))
    lab.exchange("lan", frame("02:00:00:00:07:07", ALL))
    lab.exchange("dmz", frame("dmz", "02:00:00:00:07:07"))


def test_what_goes_no_further(lab: Lab) -> None:
    for last in range(18):
        lab.exchange("lan", frame("lan", f"01:80:c2:00:00:{last:02x}"))
    for group in ("01:00:5e:00:00:05", "01:00:5e:7f:01:02", "33:33:00:00:01:02"):
        lab.exchange("lan", frame("lan", group))
    lab.exchange("lan", frame("01:00:00:00:00:07", "dmz"), frame("00:00:00:00:00:00", "dmz"))
    lab.exchange("lan", frame("lan", "dmz", 0x88A8, struct.pack("!HH", 5, 0x88B5)), frame("lan", "dmz", 0x100, b"short"))


def test_tags_are_payload(lab: Lab) -> None:
    lab.exchange("dmz", frame("dmz", ALL, vlan=7))
    lab.exchange("lan", frame("lan", "dmz", vlan=7), frame("lan", "dmz", vlan=0),
                 frame("lan", "wan", f.ETH_IP, b"\x45junk", vlan=9))


RULES = """table bridge t {
    chain p { type filter hook prerouting priority -300; iifname "lan" ether type 0x88b5 counter; }
    chain i { type filter hook input priority 0; iifname "lan" ether type ip counter; }
    chain f { type filter hook forward priority 0
        iifname "lan" oifname "dmz" ether type 0x88b5 counter
        ip daddr 10.1.1.2 udp dport 10 counter drop
        arp operation request arp daddr ip 10.9.9.9 counter drop
        vlan id 7 counter drop
        ip6 nexthdr udp counter drop
        ether saddr 02:00:00:00:03:10 udp dport 11 counter ip dscp set cs1 ether daddr set 02:00:00:00:01:77
        meta pkttype multicast counter drop
    }
    chain o { type filter hook output priority 0; ether type ip oifname "lan" counter; }
    chain q { type filter hook postrouting priority 0; oifname "wan" ether type 0x88b5 counter; iifname "lan" counter; }
}"""


def test_rules(lab: Lab) -> None:
    for name in PORTS:
        lab.exchange(name, frame(name, ALL))
    lab.router.load(RULES)
    lab.exchange("lan", frame("lan", "dmz"), frame("lan", ALL), packet("lan", "dmz"), packet("lan", "dmz", 10))
    lab.exchange("lan", frame("lan", ALL, f.ETH_ARP, f.arp(1, HOST["lan"], "10.9.9.1", "00:00:00:00:00:00", "10.9.9.9")))
    lab.exchange("lan", frame("lan", "dmz", vlan=7), frame("lan", "dmz", vlan=8))
    lab.exchange("lan", frame("lan", "dmz", f.ETH_IP6, f.udp_packet("fd09::1", "fd09::2", 5, 9, bytes(40))))
    lab.exchange("wan", packet("wan", "dmz", 11), frame("wan", "01:00:5e:00:00:09"))
    lab.exchange("lan", f.eth(BR, HOST["lan"], f.ETH_IP, f.ping(IP4.lan, IP4.host("lan", 1))))
    counts = [n for n, _ in lab.router.counters().values()]
    assert [bool(n) for n in counts[:4]] == [True] * 4
    lab.exchange("lan", frame("lan", ALL, 0x88B6, bytes(counts)))  # so that the counters are compared, too


def test_the_router_behind_the_bridge(lab: Lab) -> None:
    lab.exchange("lan", frame("lan", ALL))
    lab.exchange("lan", f.eth(BR, HOST["lan"], f.ETH_IP, f.udp_packet(IP4.lan, "192.168.4.10", 5, 9)))
    lab.exchange("edge", lab.up("edge", f.udp_packet("192.168.4.10", IP4.lan, 9, 5)))
    lab.exchange("lan", f.eth(BR, HOST["lan"], f.ETH_IP, f.udp_packet(IP4.lan, "192.168.4.10", 5, 9, ttl=1)))


def test_what_userfw_shows(bridged: Lab) -> None:
    if not isinstance(bridged.router, UserfwBridge):
        pytest.skip("userfw's own command")
    bridged.exchange("lan", frame("lan", ALL))
    text = bridged.router.command("bridge").stdout
    assert text.startswith(f"br0  {BR}  up\n") and HOST["lan"] in text
    [shown] = bridged.router.ask("bridges")
    assert [port["name"] for port in shown["ports"]] == [*PORTS, "br0"]
    assert (HOST["lan"], "lan", False) in {(entry["mac"], entry["port"], entry["static"]) for entry in shown["fdb"]}
