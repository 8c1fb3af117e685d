"""The driver contract and the policy on top of it, clause by clause, on the mock NIC and a manual clock."""

from __future__ import annotations

from ipaddress import ip_address
from random import Random

import pytest
from card_lab import MACS, SECOND, CardLab, raw
from scapy.all import IP, TCP, UDP, Dot1Q, Ether, IPv6, Raw
from userfw_hw.mock import PROFILES

from userfw.conntrack.conn import Conn, Tuple
from userfw.conntrack.const import CT_REPLIED, TCP_ESTABLISHED
from userfw.conntrack.table import ConnTable
from userfw.core.const import (
    IPPROTO_TCP,
    IPS_HW_OFFLOAD,
    IPS_OFFLOAD,
    IPS_SEEN_REPLY,
    NF_INET_FORWARD,
    NFPROTO_IPV4,
    NFPROTO_IPV6,
)
from userfw.core.fastpath import CachedRoute, Sender
from userfw.core.packet import Device, Packet
from userfw.flowtable.table import FlowObserver, FlowTable
from userfw.offload.contract import Failure, Target
from userfw.offload.manager import OffloadManager
from userfw.router.const import NUD_FAILED, NUD_REACHABLE
from userfw.wire.parse import parse_untrusted

CLIENT_MAC, SERVER_MAC = "02:00:00:00:01:02", "02:00:00:00:02:02"
ENDS = {
    NFPROTO_IPV4: ("192.168.1.2", "203.0.113.9", "203.0.113.1"),
    NFPROTO_IPV6: ("fd00:1::2", "fd00:9::9", "fd00:9::1"),
}


class Neighbour:
    def __init__(self, mac: str) -> None:
        self.mac, self.dead, self.state = raw(mac), False, NUD_REACHABLE
        self.mac_hi, self.mac_lo = int.from_bytes(self.mac[:4], "big"), int.from_bytes(self.mac[4:], "big")


class Route(CachedRoute):
    def __init__(self, oif: Device, neighbour: str, generation: list[int]) -> None:
        super().__init__()
        self.oif, self.neigh, self.generation, self.made = oif, Neighbour(neighbour), generation, generation[0]

    def valid(self) -> bool:
        return self.made == self.generation[0]


class Host(Sender):
    """The software path: what the flowtable sends goes out with the link-layer header of its route."""

    def __init__(self) -> None:
        self.back: CachedRoute | None = None

    def emit(self, pkt: Packet) -> int:
        route, device = pkt.route, pkt.oif
        assert device is not None and device.port is not None
        kind = b"\x08\x00" if pkt.nfproto == NFPROTO_IPV4 else b"\x86\xdd"
        pkt.start = pkt.l3 - 14
        pkt.data[pkt.start : pkt.l3] = route.neigh.mac + device.mac + kind
        return device.port.transmit(pkt)

    def route_back(self, pkt: Packet) -> CachedRoute | None:
        return self.back


class Lab(CardLab):
    """lan and wan on one card, a flowtable with `flags offload` between them, connections masqueraded."""

    def __init__(self, profile: str = "full", threshold: int = 4, rate: int = 1000, counter: bool = True) -> None:
        super().__init__(profile)
        self.conns = ConnTable(self.clock, rng=Random(7))
        self.conns.observers.append(FlowObserver())
        self.generation = [1]
        self.host = Host()
        self.table = FlowTable(
            "f", NFPROTO_IPV4, 0, list(MACS), counter=counter, conns=self.conns, sender=self.host, rng=Random(3)
        )
        targets = {name: Target(name, device.index) for name, device in self.devices.items()}
        self.manager = OffloadManager(
            self.clock, [self.nic], targets.get, lambda: self.generation[0], threshold=threshold, rate=rate
        )
        self.manager.attach(self.table)
        self.slow: list[bytes] = []  # what the pipeline would have seen

    def connect(self, sport: int = 40000, family: int = NFPROTO_IPV4, proto: int = IPPROTO_TCP) -> Conn:
        client, server, outside = (int(ip_address(text)) for text in ENDS[family])
        tuple_ = Tuple()
        tuple_.src_hi, tuple_.src_lo = divmod(client, 1 << 64)
        tuple_.dst_hi, tuple_.dst_lo = divmod(server, 1 << 64)
        tuple_.sport, tuple_.dport, tuple_.l3num, tuple_.l4proto = sport, 80, family, proto
        conn = self.conns.new(tuple_, 0, 0)
        conn.reply.dst_hi, conn.reply.dst_lo = divmod(outside, 1 << 64)
        conn.state = TCP_ESTABLISHED if proto == IPPROTO_TCP else CT_REPLIED
        conn.status |= IPS_SEEN_REPLY
        conn.timeout = self.clock.now + 3600 * SECOND
        assert self.conns.insert(conn) is None
        pkt = self.packet(self.frame(sport=sport, family=family, proto=proto), "lan")
        pkt.ct, pkt.ctdir = conn, 0
        pkt.route = Route(self.devices["wan"], SERVER_MAC, self.generation)
        self.host.back = Route(self.devices["lan"], CLIENT_MAC, self.generation)
        assert self.table.add(pkt, NF_INET_FORWARD) == 1
        assert not conn.flow.reply.judged
        conn.flow.reply.judged = True  # as when a packet back has come to `flow add`
        return conn

    def packet(self, frame: bytes, name: str) -> Packet:
        pkt = Packet()
        pkt.load_frame(frame)
        pkt.iif = self.devices[name]
        assert parse_untrusted(pkt) == 0
        return pkt

    def frame(
        self,
        reply: bool = False,
        sport: int = 40000,
        family: int = NFPROTO_IPV4,
        proto: int = IPPROTO_TCP,
        flags: str = "A",
        data: bytes = b"some data",
        **extra: object,
    ) -> bytes:
        client, server, outside = ENDS[family]
        ends = (server, outside) if reply else (client, server)
        ports = (80, sport) if reply else (sport, 80)
        l4 = TCP(sport=ports[0], dport=ports[1], flags=flags) if proto == IPPROTO_TCP else UDP(sport=ports[0], dport=ports[1])
        link = Ether(dst=MACS["wan" if reply else "lan"], src=SERVER_MAC if reply else CLIENT_MAC)
        ip = IP if family == NFPROTO_IPV4 else IPv6
        return bytes(link / ip(src=ends[0], dst=ends[1], **extra) / l4 / Raw(data))

    def send(self, frame: bytes, name: str = "lan") -> bytes | None:
        """One frame from the cable of `name`; what left at the other side, if anything."""
        for i in range(self.receive(frame, name)):
            assert parse_untrusted(self.slots[i]) == 0
            if not self.table.forward(self.slots[i]):
                self.slow.append(self.slots[i].frame())
        other = self.wires["wan" if name == "lan" else "lan"]
        return other.left.pop() if other.left else None

    def tick(self, seconds: float = 0.1) -> None:
        self.clock.now += int(seconds * SECOND)
        self.manager.tick(self.clock.now)

    def offloaded(self, **kind: int) -> Conn:
        """A connection that is in the card."""
        conn = self.connect(**kind)
        for _ in range(self.manager.threshold):
            assert self.send(self.frame(**kind)) is not None
        self.tick()
        return conn


@pytest.mark.parametrize("family", ENDS)
@pytest.mark.parametrize("proto", [6, 17])
def test_the_host_sees_only_the_first_packets_and_hardware_does_what_software_does(family: int, proto: int) -> None:
    lab = Lab()
    conn = lab.connect(family=family, proto=proto)
    kind = {"family": family, "proto": proto}
    software = [lab.send(lab.frame(**kind)), lab.send(lab.frame(reply=True, **kind), "wan")]
    for _ in range(3):
        lab.send(lab.frame(**kind))
    lab.tick()
    assert conn.status & IPS_HW_OFFLOAD and conn.status & IPS_OFFLOAD
    before = lab.host_frames()
    hardware = [lab.send(lab.frame(**kind)), lab.send(lab.frame(reply=True, **kind), "wan")]
    assert hardware == software
    assert lab.host_frames() == before
    assert lab.ports["lan"].hardware_frames == lab.ports["wan"].hardware_frames == 1


def test_short_flows_are_not_offered() -> None:
    lab = Lab(threshold=4)
    lab.connect()
    for _ in range(3):
        lab.send(lab.frame())
    lab.tick()
    assert lab.nic.table == {}
    lab.send(lab.frame())
    lab.tick()
    assert len(lab.nic.table) == 2


def test_the_rate_of_installations_is_limited() -> None:
    lab = Lab(threshold=0, rate=10)
    for port in range(1, 101):
        lab.connect(sport=port)
    lab.tick(0)
    assert lab.manager.installed == 10
    lab.tick(1)
    assert lab.manager.installed == 20


@pytest.mark.parametrize("flags", ["FA", "R", "S"])
def test_the_card_hands_up_what_ends_or_opens_a_connection(flags: str) -> None:
    lab = Lab()
    conn = lab.offloaded()
    lab.send(lab.frame(flags=flags))
    if flags == "S":
        return
    assert not conn.status & (IPS_OFFLOAD | IPS_HW_OFFLOAD)
    assert lab.nic.table == {} and lab.manager.installed == 0
    assert len(lab.slow) == 1  # the pipeline judged it


@pytest.mark.parametrize("extra", [{"ttl": 1}, {"flags": "A", "data": b"x" * 1461}])
def test_the_card_hands_up_what_the_contract_says(extra: dict[str, object]) -> None:
    lab = Lab()
    lab.offloaded()
    before = lab.host_frames()
    frame = lab.frame(**extra)  # type: ignore[arg-type]
    assert lab.send(frame) is None
    assert lab.host_frames() == before + 1
    assert lab.slow == [frame]


def test_counters_reach_flow_and_connection_and_keep_them_alive() -> None:
    lab = Lab()
    conn = lab.offloaded()
    before = list(conn.packets)
    for _ in range(5):
        lab.send(lab.frame())
        lab.send(lab.frame(reply=True), "wan")
        lab.tick(20)
        while lab.table.sweep(100000):
            pass
    assert lab.table.count == 2
    assert [now - then for now, then in zip(conn.packets, before, strict=True)] == [5, 5]
    flow = next(iter(lab.table))
    assert flow.original.packets == lab.manager.threshold + 5
    lab.tick(31)
    lab.table.sweep(100000)
    lab.table.sweep(100000)
    assert lab.table.count == 0 and lab.nic.table == {}


@pytest.mark.parametrize(
    ("profile", "kind", "reason"),
    [("no-ipv6-nat", {"family": NFPROTO_IPV6}, "lan lacks IPv6 NAT")],
)
def test_what_a_card_cannot_do_stays_in_software(profile: str, kind: dict[str, int], reason: str) -> None:
    lab = Lab(profile)
    conn = lab.offloaded(**kind)
    assert lab.nic.table == {} and not conn.status & IPS_HW_OFFLOAD
    assert lab.manager.failures == {reason: 1}
    assert lab.send(lab.frame(**kind)) is not None


def test_a_full_card_leaves_the_rest_in_software() -> None:
    lab = Lab("tiny", threshold=0)
    for port in range(1, 41):
        lab.connect(sport=port)
    lab.tick()
    assert lab.manager.installed == 32 and len(lab.nic.table) == 64
    assert lab.manager.failures == {Failure.FULL.value: 8}
    assert all(lab.send(lab.frame(sport=port)) for port in range(1, 41))


def test_one_direction_failing_takes_the_other_back() -> None:
    lab = Lab(threshold=0)
    lab.nic.table[("x",)] = None  # type: ignore[index,assignment]  # one slot is taken by somebody else
    lab.nic.profile.capabilities = PROFILES["tiny"]().capabilities
    for port in range(1, 33):
        lab.connect(sport=port)
    lab.tick()
    del lab.nic.table[("x",)]  # type: ignore[arg-type]
    assert lab.manager.installed == 31 and len(lab.nic.table) == 62


def test_a_slow_card_is_believed_only_when_done() -> None:
    lab = Lab("slow")
    conn = lab.offloaded()
    assert lab.nic.table == {} and not conn.status & IPS_HW_OFFLOAD
    assert lab.send(lab.frame()) is not None
    lab.tick()
    assert conn.status & IPS_HW_OFFLOAD
    assert len(lab.nic.table) == 2


def test_a_flow_that_ends_while_being_installed_never_gets_in() -> None:
    lab = Lab("slow")
    conn = lab.offloaded()
    lab.conns.destroy(conn)
    lab.tick(1)
    assert lab.nic.table == {} and lab.manager.installed == 0


def test_a_changed_route_takes_flows_out() -> None:
    lab = Lab()
    conn = lab.offloaded()
    lab.generation[0] += 1
    lab.manager.revalidate()
    assert lab.nic.table == {} and lab.table.count == 0
    assert not conn.status & (IPS_OFFLOAD | IPS_HW_OFFLOAD)


def test_a_neighbour_with_a_new_address_is_followed() -> None:
    lab = Lab()
    lab.offloaded()
    neighbour = next(iter(lab.table)).original.route.neigh
    neighbour.mac = raw("02:00:00:00:02:77")
    lab.manager.neighbour_changed(neighbour)
    assert lab.nic.table == {} and lab.table.count == 2  # in software at once
    lab.tick(0)
    sent = lab.send(lab.frame())
    assert sent is not None and sent[:6] == raw("02:00:00:00:02:77")
    assert lab.manager.installed == 1 and lab.ports["lan"].hardware_frames == 1
    neighbour.state = NUD_FAILED
    lab.manager.neighbour_changed(neighbour)
    lab.tick(0)
    assert lab.nic.table == {} and lab.table.count == 2


def test_a_reset_card_is_noticed() -> None:
    lab = Lab()
    conn = lab.offloaded()
    lab.nic.reset()
    lab.tick()
    assert lab.manager.installed == 0 and not conn.status & IPS_HW_OFFLOAD
    before = lab.host_frames()
    assert lab.send(lab.frame()) is not None
    assert lab.host_frames() == before + 1
    lab.tick(2)
    assert lab.manager.installed == 1 and conn.status & IPS_HW_OFFLOAD  # it works again


def test_what_a_card_drops_for_being_idle_is_offered_again_when_a_packet_comes() -> None:
    lab = Lab()
    lab.nic.profile.idle = 5 * SECOND
    conn = lab.offloaded()
    for _ in range(3):
        lab.send(lab.frame())
    before = list(conn.packets)
    lab.tick(6)
    assert lab.nic.table == {} and not conn.status & IPS_HW_OFFLOAD and lab.table.count == 2
    assert conn.packets[0] == before[0] + 3, "its last totals were not lost"
    assert lab.manager.withdrawn == {Failure.IDLE.value: 1} and not lab.manager.failures
    assert lab.manager.flows()[0]["reason"] == "the device drops what is idle; its next packet offers it again"
    lab.tick(1)
    assert lab.nic.table == {}
    seen = lab.host_frames()
    assert lab.send(lab.frame()) is not None and lab.host_frames() == seen + 1
    lab.tick()
    assert len(lab.nic.table) == 2 and conn.status & IPS_HW_OFFLOAD


def test_a_direction_that_is_in_use_keeps_its_flow_in_a_card_that_ages() -> None:
    """Both are removed for one that is idle, and both come back: a flow is in the card whole or not at all."""
    lab = Lab()
    lab.nic.profile.idle = 5 * SECOND
    conn = lab.offloaded()
    for _ in range(4):
        lab.tick(2)
        lab.send(lab.frame())
    lab.tick()
    assert len(lab.nic.table) in (0, 2) and conn.flow is not None
    lab.send(lab.frame())
    lab.tick()
    assert len(lab.nic.table) == 2


def test_counters_that_come_late_are_credited_all_the_same() -> None:
    """A card whose counters lag behind by a second: nothing is counted twice, and removal gives the rest."""
    lab = Lab("slow")
    conn = lab.offloaded()
    lab.tick()
    before = conn.packets[0]
    for _ in range(6):
        lab.send(lab.frame())
        lab.tick(0.5)
    counted = conn.packets[0]
    assert before < counted < before + 6
    lab.generation[0] += 1
    lab.manager.revalidate()
    assert conn.packets[0] == before + 6


@pytest.mark.parametrize("failure", [Failure.FULL, Failure.FAULT, Failure.GONE])
def test_what_may_pass_is_tried_again_later_and_what_cannot_is_not(failure: Failure) -> None:
    for first, tables in ((failure, 2), (Failure.UNSUPPORTED, 0)):
        lab = Lab()
        lab.nic.fail = [first]
        lab.offloaded()
        assert lab.nic.table == {}
        lab.tick(11)
        assert len(lab.nic.table) == tables and lab.send(lab.frame()) is not None


def test_injected_faults_leave_the_flow_in_software() -> None:
    lab = Lab()
    lab.nic.fail = [Failure.FAULT]
    conn = lab.offloaded()
    assert not conn.status & IPS_HW_OFFLOAD and lab.nic.table == {}
    assert lab.manager.failures == {Failure.FAULT.value: 1}


def test_detaching_removes_everything() -> None:
    lab = Lab()
    conn = lab.offloaded()
    lab.manager.close()
    assert lab.nic.table == {} and not conn.status & IPS_HW_OFFLOAD
    assert lab.table.offloader is None


def test_refusal_names_device_and_feature() -> None:
    lab = Lab()
    lab.manager.placements.clear()
    lab.nic.broken = True
    assert lab.manager.check(["lan"]) == ["device lan cannot offload: mock: hw-tc-offload is off"]
    assert lab.manager.check(["nope"]) == ["device nope does not exist"]
    with pytest.raises(ValueError, match="device lan cannot offload"):
        lab.manager.attach(lab.table)


def test_tagged_frames_match_only_with_their_tags() -> None:
    lab = Lab()
    lab.offloaded()
    before = lab.host_frames()
    frame = Ether(lab.frame())
    tagged = Ether(dst=frame.dst, src=frame.src) / Dot1Q(vlan=5) / frame.payload
    lab.send(bytes(tagged))
    assert lab.host_frames() == before + 1


def test_status_says_what_is_where() -> None:
    lab = Lab()
    lab.offloaded()
    status = lab.manager.status()
    assert status["flows"] == {"flowtable": 1, "waiting": 0, "hardware": 1}
    assert [row["driver"] for row in status["devices"]] == ["mock", "mock"]


def test_a_driver_says_more_than_the_failure() -> None:
    """`explain`: the flow is told with the driver's words."""
    lab = Lab()
    lab.nic.fail = [Failure.UNSUPPORTED]
    lab.nic.explain = lambda id: "it has no room for such ports"  # type: ignore[method-assign]
    lab.offloaded()
    words = "the device cannot match or do this: it has no room for such ports"
    assert lab.manager.failures == {words: 1} and lab.manager.flows()[0]["reason"] == words
