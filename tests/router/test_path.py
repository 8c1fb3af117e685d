"""Hooks in their places, VLAN devices, virtio-net facts, and frames that want to do harm."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from router_lab import LAN_HOST, MACS, Lab
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, IPv6ExtHdrRouting
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Raw

from userfw.core.const import (
    NF_ACCEPT,
    NF_DROP,
    NF_STOLEN,
    NFPROTO_ARP,
    NFPROTO_IPV4,
    NFPROTO_IPV6,
    VNET_F_NEEDS_CSUM,
    VNET_GSO_TCPV4,
)
from userfw.core.drop import DropReason
from userfw.core.hook import HookEntry, HookList
from userfw.core.packet import Packet
from userfw.router.interfaces import parse_address
from userfw.router.pipeline import Pipeline

NAMES = ("prerouting", "input", "forward", "output", "postrouting")


class Recorder(HookEntry):
    """Notes where a packet passes and with which devices; answers `verdicts` by hook name."""

    def __init__(self) -> None:
        super().__init__(0)
        self.trail: list[tuple[str, str, str]] = []
        self.verdicts: dict[str, int] = {}

    def run(self, pkt: Packet, hook: int) -> int:
        name = ("arp in", "arp out")[hook] if pkt.nfproto == NFPROTO_ARP else NAMES[hook]
        self.trail.append((name, pkt.iif.name if pkt.iif else "", pkt.oif.name if pkt.oif else ""))
        return self.verdicts.get(name, NF_ACCEPT)


def hooked(lab: Lab) -> Recorder:
    recorder = Recorder()
    hooks = {(family, hook): HookList(hook, [recorder]) for family in (NFPROTO_IPV4, NFPROTO_IPV6) for hook in range(5)}
    hooks |= {(NFPROTO_ARP, hook): HookList(hook, [recorder]) for hook in range(2)}
    lab.gw.set_pipeline(Pipeline(hooks))
    return recorder


def test_hooks_of_a_forwarded_packet() -> None:
    lab = Lab()
    recorder = hooked(lab)
    lab.send(IP(src="192.0.2.10", dst="198.51.100.10") / UDP())
    assert recorder.trail == [("prerouting", "lan", ""), ("forward", "lan", "wan"), ("postrouting", "lan", "wan")]


def test_hooks_of_a_delivered_packet_and_its_answer() -> None:
    lab = Lab()
    recorder = hooked(lab)
    lab.send(IP(src="192.0.2.10", dst="192.0.2.1") / ICMP())
    assert recorder.trail == [
        ("prerouting", "lan", ""),
        ("input", "lan", ""),
        ("output", "", "lan"),
        ("postrouting", "", "lan"),
    ]


def test_expired_ttl_never_reaches_forward() -> None:
    lab = Lab()
    recorder = hooked(lab)
    lab.send(IP(src="192.0.2.10", dst="198.51.100.10", ttl=1) / UDP())
    assert [name for name, _, _ in recorder.trail] == ["prerouting", "output", "postrouting"]


def test_the_gateways_packets_to_itself_pass_every_hook_on_lo() -> None:
    lab = Lab()
    recorder = hooked(lab)
    lab.send(IP(src="192.0.2.10", dst="198.51.100.10") / UDP())
    recorder.trail.clear()
    pkt = lab.ports["lan"].inject(b"")
    raw = bytes(IP(src="192.0.2.1", dst="198.51.100.1") / ICMP())
    pkt.data[pkt.start : pkt.start + len(raw)] = raw
    pkt.end = pkt.start + len(raw)
    pkt.iif = None
    pkt.protocol = 0x800
    from userfw.wire.parse import parse_network_untrusted

    assert parse_network_untrusted(pkt) == 0
    lab.gw.local_out(pkt)
    lab.gw.drain()
    once = [("output", "", "lo"), ("postrouting", "", "lo"), ("prerouting", "lo", ""), ("input", "lo", "")]
    assert recorder.trail == once * 2


def test_drop_and_steal() -> None:
    lab = Lab()
    recorder = hooked(lab)
    for hook in ("prerouting", "forward", "postrouting"):
        recorder.verdicts = {hook: NF_DROP}
        lab.send(IP(src="192.0.2.10", dst="198.51.100.10") / UDP())
        assert lab.out() == []
    assert lab.drops() == {"RULE": 3}
    recorder.verdicts = {"forward": NF_STOLEN}
    lab.send(IP(src="192.0.2.10", dst="198.51.100.10") / UDP())
    assert lab.out() == [] and lab.drops() == {"RULE": 3}


def test_arp_hooks() -> None:
    lab = Lab(resolved=False)
    recorder = hooked(lab)
    request = bytes(Ether(dst="ff:ff:ff:ff:ff:ff", src=LAN_HOST) / ARP(hwsrc=LAN_HOST, psrc="192.0.2.10", pdst="192.0.2.1"))
    lab.send(request)
    assert recorder.trail == [("arp in", "lan", ""), ("arp out", "", "lan")]
    recorder.verdicts = {"arp in": NF_DROP}
    lab.out("lan")
    lab.send(request)
    assert lab.out("lan") == []


def test_ingress_judges_what_cannot_be_parsed() -> None:
    lab = Lab()
    recorder = Recorder()
    lab.lan.ingress = HookList(0, [recorder])
    lab.send(bytes(Ether(dst=MACS["lan"], src=LAN_HOST, type=0x88CC) / Raw(b"x")))
    assert len(recorder.trail) == 1
    assert lab.drops() == {"UNKNOWN_ETHERTYPE": 1}


def test_egress_sees_the_frame() -> None:
    lab = Lab()
    recorder = Recorder()
    lab.wan.egress = HookList(1, [recorder])
    lab.send(IP(src="192.0.2.10", dst="198.51.100.10") / UDP())
    assert recorder.trail[0][1:] == ("", "wan") and len(lab.out()) == 1  # no incoming device there, as in Linux


def test_vlan_devices_strip_and_insert_tags() -> None:
    lab = Lab()
    vlan = lab.gw.add_vlan(lab.lan, 7, "lan.7", 20)
    lab.gw.add_address(vlan, parse_address("10.7.0.1/24"))
    lab.neighbour(vlan, "10.7.0.10", LAN_HOST)
    inner = IP(src="10.7.0.10", dst="198.51.100.10") / UDP()
    lab.send(bytes(Ether(dst=MACS["lan"], src=LAN_HOST) / Dot1Q(vlan=7) / inner))
    assert lab.one()[IP].src == "10.7.0.10"
    lab.send(IP(src="198.51.100.10", dst="10.7.0.10") / UDP(), "wan")
    frame = lab.one("lan")
    assert (frame[Dot1Q].vlan, frame[Dot1Q].type, frame[IP].dst, frame.dst) == (7, 0x800, "10.7.0.10", LAN_HOST)
    assert (vlan.rx_packets, vlan.tx_packets) == (1, 1)
    lab.send(bytes(Ether(dst=MACS["lan"], src=LAN_HOST) / Dot1Q(vlan=8) / inner))
    assert lab.drops() == {"OTHERHOST": 1}
    lab.send(bytes(Ether(dst=MACS["lan"], src=LAN_HOST) / Dot1Q(vlan=0) / IP(src="192.0.2.10", dst="198.51.100.10") / UDP()))
    assert lab.one()[IP].src == "192.0.2.10"


def test_a_large_send_passes_whole_if_its_segments_fit() -> None:
    lab = Lab()
    lab.gw.set_mtu(lab.wan, 1500)
    frame = Ether(dst=MACS["lan"], src=LAN_HOST) / IP(src="192.0.2.10", dst="198.51.100.10", flags="DF") / TCP() / Raw(bytes(20000))
    for size, sent in ((1460, 1), (1461, 0)):
        pkt = lab.ports["lan"].inject(bytes(frame))
        pkt.vnet_flags, pkt.gso_type, pkt.gso_size = VNET_F_NEEDS_CSUM, VNET_GSO_TCPV4, size
        pkt.csum_start, pkt.csum_offset = 34, 16
        lab.gw.receive(pkt)
        assert len(lab.out()) == sent
    assert lab.one("lan")[ICMP].nexthopmtu == 1500


def test_a_large_send_without_df_is_segmented_and_cut() -> None:
    lab = Lab()
    lab.gw.set_mtu(lab.wan, 1000)
    frame = Ether(dst=MACS["lan"], src=LAN_HOST) / IP(src="192.0.2.10", dst="198.51.100.10", id=3) / TCP() / Raw(bytes(3000))
    pkt = lab.ports["lan"].inject(bytes(frame))
    pkt.vnet_flags, pkt.gso_type, pkt.gso_size, pkt.csum_start, pkt.csum_offset = VNET_F_NEEDS_CSUM, VNET_GSO_TCPV4, 1400, 34, 16
    lab.gw.receive(pkt)
    out = [frame[IP] for frame in lab.out()]
    assert [(p.id, p.frag, p.len) for p in out] == [(3, 0, 996), (3, 122, 464), (4, 0, 996), (4, 122, 464), (5, 0, 240)]


def test_options() -> None:
    lab = Lab()

    def send(options: bytes) -> None:
        packet = IP(src="192.0.2.10", dst="198.51.100.10", ihl=5 + len(options) // 4) / Raw(options) / UDP()
        frame = bytearray(bytes(Ether(dst=MACS["lan"], src=LAN_HOST) / packet))
        fix_ipv4_checksum(frame)
        lab.send(bytes(frame))

    send(b"\x01\x01\x01\x00")
    assert len(lab.out()) == 1
    for raw, answer in ((b"\x83\x07\x04\x01\x02\x03\x04\x00", None), (b"\x07\x01\x04\x00", 20), (b"\x07\x0f\x04\x00", 20)):
        send(raw)
        assert [a[ICMP].ptr for a in lab.out("lan")] == ([] if answer is None else [answer])
    assert lab.drops() == {"IP_OPTIONS": 3}


def test_record_route_gets_our_address() -> None:
    lab = Lab()
    packet = IP(src="192.0.2.10", dst="198.51.100.10", ihl=7) / Raw(b"\x07\x07\x04" + bytes(5)) / UDP()
    frame = bytearray(bytes(Ether(dst=MACS["lan"], src=LAN_HOST) / packet))
    fix_ipv4_checksum(frame)
    lab.send(bytes(frame))
    out = bytearray(bytes(lab.one()))
    assert bytes(out[34:42]) == b"\x07\x07\x08" + bytes([198, 51, 100, 1]) + b"\0"
    before = bytes(out)
    fix_ipv4_checksum(out)
    assert bytes(out) == before


def test_options_are_echoed() -> None:
    lab = Lab()
    packet = IP(src="192.0.2.10", dst="192.0.2.1", ihl=7) / Raw(b"\x07\x07\x04" + bytes(5)) / ICMP()
    frame = bytearray(bytes(Ether(dst=MACS["lan"], src=LAN_HOST) / packet))
    frame[23] = 1
    fix_ipv4_checksum(frame)
    lab.send(bytes(frame))
    answer = lab.one("lan")
    assert (answer[IP].ihl, answer[ICMP].type) == (7, 0)
    # ours when it came (the slot of the option is full then), as Linux has it
    assert bytes(answer)[34:42] == b"\x07\x07\x08\xc0\x00\x02\x01\x00"


def test_rejects_answer_only_what_arrived_intact() -> None:
    class Reject(HookEntry):
        def __init__(self, lab: Lab, type: int, code: int) -> None:
            super().__init__(0)
            self.lab, self.type, self.code = lab, type, code

        def run(self, pkt: Packet, hook: int) -> int:
            self.lab.gw.send_reject(pkt, hook, NFPROTO_IPV4, self.type, self.code)
            return NF_DROP

    lab = Lab()
    flow = IP(src="192.0.2.10", dst="198.51.100.10")
    lab.gw.set_pipeline(Pipeline({(NFPROTO_IPV4, 2): HookList(2, [Reject(lab, 1, 0)])}))
    lab.send(flow / TCP(sport=5, dport=6, seq=9, flags="S"))
    reset = lab.one("lan")
    assert (reset[IP].src, reset[TCP].flags, reset[TCP].ack, reset[TCP].sport) == ("198.51.100.10", "RA", 10, 6)
    for silent in (TCP(chksum=1), TCP(flags="R"), UDP()):
        lab.send(flow / silent)
        assert lab.out("lan") == []
    lab.gw.set_pipeline(Pipeline({(NFPROTO_IPV4, 2): HookList(2, [Reject(lab, 0, 3)])}))
    cases = ((UDP() / Raw(b"x"), 1), (UDP(chksum=1), 0), (UDP(chksum=0), 1), (ICMP(chksum=9), 0), (ICMP(type=3), 0))
    for payload, answers in cases:
        lab.send(flow / payload)
        assert len(lab.out("lan")) == answers


def test_an_exception_costs_one_packet() -> None:
    class Broken(HookEntry):
        def run(self, pkt: Packet, hook: int) -> int:
            raise RuntimeError("broken")

    lab = Lab()
    faults: list[str] = []
    lab.gw.fault = lambda error, where: faults.append(f"{where} {error}")
    lab.gw.set_pipeline(Pipeline({(NFPROTO_IPV4, 2): HookList(2, [Broken(0)])}))
    for _ in range(3):
        lab.send(IP(src="192.0.2.10", dst="198.51.100.10") / UDP())
    assert faults == ["receive broken"]
    assert lab.drops() == {"INTERNAL_ERROR": 3}
    lab.send(IPv6(src="2001:db8:1::10", dst="2001:db8:2::10") / UDP())
    assert len(lab.out()) == 1


def test_what_a_port_could_not_send_after_all_is_a_drop_with_a_name() -> None:
    """Frames that a port queued and the system refused: by reason, and at their device."""
    lab = Lab()
    lab.ports["wan"].refuse_late = DropReason.DEVICE_DOWN
    lab.send(Ether(dst=MACS["lan"], src=LAN_HOST) / IP(src="192.0.2.10", dst="198.51.100.10") / UDP() / b"x")
    assert lab.drops() == {"DEVICE_DOWN": 1} and lab.wan.tx_dropped == 1
    assert lab.gw.device_drops[lab.wan.index][DropReason.DEVICE_DOWN] == 1
    lab.ports["wan"].refuse_late = DropReason.NOT_SPECIFIED
    lab.send(Ether(dst=MACS["lan"], src=LAN_HOST) / IP(src="192.0.2.10", dst="198.51.100.10") / UDP() / b"x")
    assert lab.drops() == {"DEVICE_DOWN": 1}, "told once"


def test_stolen_slots_are_refilled() -> None:
    class Thief(HookEntry):
        def __init__(self) -> None:
            super().__init__(0)
            self.loot: list[Packet] = []

        def run(self, pkt: Packet, hook: int) -> int:
            pkt.stolen = True
            self.loot.append(pkt)
            return NF_STOLEN

    lab = Lab()
    thief = Thief()
    lab.gw.set_pipeline(Pipeline({(NFPROTO_IPV4, 2): HookList(2, [thief])}))
    raw = bytes(Ether(dst=MACS["lan"], src=LAN_HOST) / IP(src="192.0.2.10", dst="198.51.100.10") / UDP())
    slots = [lab.ports["lan"].inject(raw) for _ in range(3)]
    assert lab.gw.receive_batch(slots, 3) == 0
    assert all(slot is not loot for slot, loot in zip(slots, thief.loot, strict=True))
    assert all(slot.end == slot.start for slot in slots)


SEEDS = [
    bytes(Ether(dst=MACS["lan"], src=LAN_HOST) / layer)
    for layer in (
        IP(src="192.0.2.10", dst="198.51.100.10") / TCP() / Raw(b"x" * 30),
        IP(src="192.0.2.10", dst="192.0.2.1") / TCP(flags="S"),
        IP(src="192.0.2.10", dst="192.0.2.1") / ICMP() / Raw(b"x" * 30),
        IP(src="192.0.2.10", dst="198.51.100.10", ihl=7) / Raw(b"\x01\x07\x07\x04" + bytes(4)) / UDP() / Raw(b"x" * 9),
        IP(src="192.0.2.10", dst="198.51.100.10", frag=3, flags="MF") / Raw(b"x" * 64),
        IPv6(src="2001:db8:1::10", dst="2001:db8:2::10") / UDP() / Raw(b"x" * 30),
        IPv6(src="2001:db8:1::10", dst="2001:db8:2::10") / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / UDP(),
        IPv6(src="2001:db8:1::10", dst="2001:db8:1::1") / IPv6ExtHdrRouting() / IPv6ExtHdrFragment(m=1) / UDP() / Raw(b"x" * 16),
        IPv6(src="2001:db8:1::10", dst="ff02::1:ff00:1", hlim=255) / Raw(bytes.fromhex("87000000") + bytes(28)),
        ARP(hwsrc=LAN_HOST, psrc="192.0.2.10", pdst="192.0.2.1"),
        Dot1Q(vlan=7) / IP(src="192.0.2.10", dst="198.51.100.10") / UDP(),
    )
]


def fix_ipv4_checksum(frame: bytearray) -> None:
    if len(frame) > 34 and frame[12:14] == b"\x08\x00":
        frame[24:26] = b"\0\0"
        words = sum(int.from_bytes(frame[i : i + 2], "big") for i in range(14, min(14 + (frame[14] & 15) * 4, len(frame) - 1), 2))
        while words >> 16:
            words = (words & 0xFFFF) + (words >> 16)
        frame[24:26] = (~words & 0xFFFF).to_bytes(2, "big")


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(SEEDS), st.randoms(use_true_random=False), st.integers(0, 12), st.booleans(), st.booleans())
def test_mutated_frames_never_raise_and_are_accounted_for(
    seed: bytes, rng: random.Random, changes: int, fix: bool, track: bool
) -> None:
    lab = Lab()
    lab.gw.settings.icmp_msgs_burst = 10**6
    vlan = lab.gw.add_vlan(lab.lan, 7, "lan.7", 20)
    if track:
        hooks = {(family, 0): HookList(0, [lab.gw.defrag]) for family in (NFPROTO_IPV4, NFPROTO_IPV6)}
        lab.gw.set_pipeline(Pipeline(hooks, tracked=True))
    frame = bytearray(seed)
    fix_ipv4_checksum(frame)
    for _ in range(changes):
        frame[rng.randrange(len(frame))] = rng.randrange(256)
    if rng.random() < 0.3:
        del frame[rng.randrange(len(frame) + 1) :]
    if fix:
        fix_ipv4_checksum(frame)
    result = lab.send(bytes(frame))
    assert (result != 0) == (lab.lan.rx_dropped + vlan.rx_dropped > 0)
    assert sum(lab.drops().values()) >= lab.lan.rx_dropped + vlan.rx_dropped
    lab.advance(120)
    assert lab.gw.drop_counts()[34] == 0


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(["eth", "tun"]))
def test_random_bytes_never_raise(data: bytes, kind: str) -> None:
    from userfw.core.const import ARPHRD_NONE
    from userfw.core.packet import Device
    from userfw.ports.memory import MemoryPort

    lab = Lab()
    if kind == "tun":
        tun = Device("tun0", 9, b"", 1500, ARPHRD_NONE)
        lab.ports["tun0"] = MemoryPort(tun)
        lab.gw.add_device(tun)
        lab.send(data, "tun0")
    else:
        lab.send(data)
    assert sum(lab.drops().values()) <= 1
