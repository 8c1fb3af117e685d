"""Flows over a bridge: one lookup at the port, one step out of it; byte for byte what the bridge does; manual clock."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from bridge_lab import BR, CLIENT, MACS, OTHER, SERVER, BridgeLab
from card_lab import raw
from scapy.all import TCP, UDP

from userfw.daemon import schema

KINDS = pytest.mark.parametrize("kind", [{}, {"vlans": True}, {"tag": 7}], ids=["plain", "vlan filtering", "a tag as payload"])


@KINDS
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("proto", [TCP, UDP])
def test_both_directions_leave_the_pipeline(kind: dict[str, object], family: int, proto: object) -> None:
    lab = BridgeLab(**kind)  # type: ignore[arg-type]
    lab.start(proto, family)
    assert lab.table().count == 2
    assert lab.fast(family=family, proto=proto) and lab.fast(True, family=family, proto=proto)
    (out,) = lab.send(lab.packet(True, family, proto), "wan")["p1"]
    assert out[:12] == raw(CLIENT) + raw(BR)
    assert out[12:14] == (b"\x81\x00" if lab.tags else b"\x08\x00" if family == 4 else b"\x86\xdd")


@KINDS
@pytest.mark.parametrize("family", [4, 6])
def test_byte_for_byte_as_the_pipeline(kind: dict[str, object], family: int) -> None:
    """Random packets through a gateway with `flow add` and one without: the same frames, the same counters of devices."""
    rng = Random(5)
    fast, slow = BridgeLab(**kind), BridgeLab(flows=False, **kind)  # type: ignore[arg-type]
    for proto in (TCP, UDP):
        for lab in (fast, slow):
            lab.start(proto, family)
        for _ in range(150):
            back = rng.random() < 0.5
            made = {
                "proto": proto, "family": family, "data": rng.randbytes(rng.choice((0, 1, 7, 100, 1400))),
                "ttl": rng.choice((1, 2, 64, 255)), "src": rng.choice((CLIENT, CLIENT, OTHER)),
                "dst": rng.choice((BR, BR, MACS["p1"], MACS["p2"], OTHER)),
            }  # fmt: skip
            frame = fast.packet(back, **made)
            at = "wan" if back else rng.choice(("p1", "p1", "p1", "p2"))
            assert fast.send(frame, at) == slow.send(frame, at), made
            fast.wait(1)
            slow.wait(1)
    assert fast.seen() > 100 and slow.seen() == 0
    for device in fast.gateway.devices.values():
        other = slow.gateway.names[device.name]
        for name in ("rx_packets", "tx_packets", "rx_bytes", "tx_bytes"):
            assert getattr(device, name) == getattr(other, name), (device.name, name)
    where = [{(e["mac"], e["vlan"], e["port"], e["age"]) for e in lab.bridge.listing()["fdb"]} for lab in (fast, slow)]
    assert where[0] == where[1]


def moved(lab: BridgeLab) -> None:
    lab.send(lab.packet(src=CLIENT, dst=OTHER), "p2")  # the client is heard elsewhere


def forgotten(lab: BridgeLab) -> None:
    lab.bridge.forget(lab.port("p1"))


def fixed(lab: BridgeLab) -> None:
    lab.bridge.add_static(int.from_bytes(raw(CLIENT), "big"), 0, lab.port("p2"))


def port_down(lab: BridgeLab) -> None:
    lab.gateway.set_up(lab.devices["p1"], False)


def bridge_down(lab: BridgeLab) -> None:
    lab.gateway.set_up(lab.top, False)


def left(lab: BridgeLab) -> None:
    lab.bridge.remove_port(lab.devices["p1"])


def removed(lab: BridgeLab) -> None:
    lab.assembly.remove_port(lab.devices["p1"])


def bridge_gone(lab: BridgeLab) -> None:
    lab.assembly.remove_bridge(lab.config)


def filtering(lab: BridgeLab) -> None:
    lab.bridge.filtering = True
    lab.bridge.changed()


def isolated(lab: BridgeLab) -> None:
    lab.port("p1").isolated = True
    lab.bridge.changed()


def learning(lab: BridgeLab) -> None:
    lab.port("p1").learning = False
    lab.bridge.changed()


def deaf(lab: BridgeLab) -> None:
    learning(lab)
    forgotten(lab)


def link_address(lab: BridgeLab) -> None:
    lab.gateway.set_mac(lab.top, raw("02:00:00:00:0b:77"))
    lab.neighbour(lab.top, "192.168.1.2", CLIENT)


def neighbour(lab: BridgeLab) -> None:
    lab.neighbour(lab.top, "192.168.1.2", OTHER)


def another_port(lab: BridgeLab) -> None:
    from userfw.core.packet import Device

    lab.bridge.add_port(lab.gateway.add_device(Device("p3", 30, raw("02:00:00:00:01:33"))))


CHANGES = [moved, forgotten, fixed, port_down, bridge_down, left, removed, bridge_gone, filtering, isolated, learning, link_address,
           neighbour, another_port]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_no_packet_takes_a_way_that_changed(change: Callable[[BridgeLab], None]) -> None:
    """After the change packets do what they do in a gateway without flows, and the flow's old way is not taken."""
    fast, slow = BridgeLab(), BridgeLab(flows=False)
    for lab in (fast, slow):
        lab.start()
        lab.wait(0)
        for back in (False, True):
            lab.send(lab.packet(back), "wan" if back else "p1")
    assert fast.seen() >= 2
    for lab in (fast, slow):
        change(lab)
        lab.take()
    for back in (True, False, True):
        frames = [lab.send(lab.packet(back), "wan" if back else "p1") for lab in (fast, slow)]
        assert frames[0] == frames[1]


@pytest.mark.parametrize("change", [c for c in CHANGES if c is not neighbour])
def test_it_is_out_of_the_card_when_the_call_returns(change: Callable[[BridgeLab], None]) -> None:
    lab = BridgeLab(offload=True)
    lab.start()
    for _ in range(3):
        lab.send(lab.packet())
        lab.send(lab.packet(True), "wan")
    lab.tick()
    assert len(lab.nic.table) == 2, lab.manager.flows()
    change(lab)
    assert lab.nic.table == {} and lab.manager.installed == 0


@pytest.mark.parametrize("change", [c for c in CHANGES if c not in (neighbour, bridge_gone)])
def test_what_waits_for_the_card_is_not_installed(change: Callable[[BridgeLab], None]) -> None:
    """No packet of the flow comes between the change and its turn."""
    lab = BridgeLab(offload=True)
    lab.start()
    for _ in range(3):
        lab.send(lab.packet())
        lab.send(lab.packet(True), "wan")
    assert lab.manager.waiting and not lab.nic.table
    change(lab)
    lab.neighbour(lab.top, "192.168.1.2", CLIENT)
    lab.tick()
    assert lab.nic.table == {} and lab.manager.installations == 0


@KINDS
@pytest.mark.parametrize("family", [4, 6])
def test_the_host_sees_only_the_first_packets(kind: dict[str, object], family: int) -> None:
    lab, slow = BridgeLab(offload=True, **kind), BridgeLab(flows=False, **kind)  # type: ignore[arg-type]
    for one in (lab, slow):
        one.start(family=family)
    for _ in range(3):
        lab.send(lab.packet(family=family), "p1")
        lab.send(lab.packet(True, family), "wan")
    lab.tick()
    seen = lab.host_frames()
    for dst in (BR, MACS["p1"]):
        frame = lab.packet(family=family, dst=dst)
        assert lab.send(frame, "p1") == slow.send(frame, "p1")
    assert lab.send(lab.packet(True, family), "wan") == slow.send(lab.packet(True, family), "wan")
    assert lab.host_frames() == seen
    lab.send(lab.packet(family=family, dst=OTHER), "p1")
    assert lab.host_frames() == seen + 1  # what is bridged is not the flow's


def test_the_card_s_traffic_keeps_the_address_and_silence_ends_it() -> None:
    lab = BridgeLab(offload=True)
    lab.start()
    for _ in range(3):
        lab.send(lab.packet())
        lab.send(lab.packet(True), "wan")
    lab.tick()
    for _ in range(50):
        lab.wait(10)
        lab.neighbour(lab.top, "192.168.1.2", CLIENT)
        lab.neighbour(lab.devices["wan"], "203.0.113.9", SERVER)
        lab.send(lab.packet())
        lab.tick(1)
        assert len(lab.nic.table) == 2
    for _ in range(31):  # only the server speaks
        lab.wait(10)
        lab.neighbour(lab.top, "192.168.1.2", CLIENT)
        lab.neighbour(lab.devices["wan"], "203.0.113.9", SERVER)
        lab.send(lab.packet(True), "wan")
        lab.tick(1)
    assert lab.nic.table == {} and lab.manager.withdrawn["a bridge"] == 1
    assert set(lab.send(lab.packet(True), "wan")) == {"p1", "p2"}  # flooded, as it must be


def test_software_flows_keep_the_address_as_the_bridge_does() -> None:
    fast, slow = BridgeLab(), BridgeLab(flows=False)
    for lab in (fast, slow):
        lab.start(TCP)
    for seconds, back in [(200, False), (200, False), (200, True), (99, True), (2, True), (1, False)]:
        for lab in (fast, slow):
            lab.clock.now += seconds * 10**9
            lab.neighbour(lab.top, "192.168.1.2", CLIENT)
            lab.neighbour(lab.devices["wan"], "203.0.113.9", SERVER)
            lab.table().tcp_timeout = lab.table().udp_timeout = 10**12
        at = "wan" if back else "p1"
        frame = fast.packet(back, proto=TCP)
        assert fast.send(frame, at) == slow.send(frame, at), (seconds, back)
    assert fast.seen() == 4


def test_a_host_that_was_not_heard_yet_is_found_later() -> None:
    lab = BridgeLab()
    lab.start()
    lab.bridge.forget(lab.port("p1"))
    assert not lab.fast(True)  # the flow's way is not sure any more
    assert lab.fast(True) and set(lab.send(lab.packet(True), "wan")) == {"p1", "p2"}  # by the bridge's device, flooded
    assert not lab.fast()  # heard: and now the flow is made anew
    assert lab.fast() and lab.fast(True)


def test_which_devices_the_flowtable_must_have() -> None:
    """As in Linux: the port; br0 itself will do, for packets that the bridge has handed up."""
    for devices, taken in (("p1, wan", True), ("br0, wan", True), ("p2, wan", False)):
        lab = BridgeLab(devices=devices)
        lab.start()
        assert (lab.fast(), lab.fast(True)) == (taken, True), devices
    lab = BridgeLab(devices="br0, p1, wan")
    lab.start()
    assert lab.table().find is not None and {int(f.original.key >> 16) for f in lab.table()} == {int(lab.devices["p1"].index)}


BRIDGE_CHAINS = """table bridge b {
    chain pre { type filter hook prerouting priority 0; udp dport 53 counter
    }
    chain out { type filter hook output priority 0; udp sport 53 counter
    }
}"""


def test_chains_of_the_bridge_do_not_see_flows_as_in_linux() -> None:
    lab = BridgeLab()
    lab.nft(BRIDGE_CHAINS)
    lab.start()
    before = lab.assembly.rules.execute("list table bridge b").output
    assert lab.fast() and lab.fast(True)
    assert lab.assembly.rules.execute("list table bridge b").output == before


def test_netdev_chains_of_the_bridge_are_not_passed_over() -> None:
    lab = BridgeLab(devices="p1, wan")
    lab.nft('table netdev n { chain c { type filter hook ingress device "br0" priority 0; udp dport 53 counter\n}\n}')
    lab.start()
    assert not lab.fast() and lab.fast(True)


@pytest.mark.parametrize(
    "devices, prepare, reason",
    [
        ("p2, wan", None, "does not have its port p1"),
        ("p1, p2, wan", deaf, "the port of 02:00:00:00:01:02 is not known"),
    ],
)
def test_why_a_flow_is_not_offloaded(devices: str, prepare: Callable[[BridgeLab], None] | None, reason: str) -> None:
    lab = BridgeLab(offload=True, devices=devices, threshold=1)
    if prepare is not None:
        prepare(lab)
    lab.start()
    for _ in range(3):
        lab.send(lab.packet())
        lab.send(lab.packet(True), "wan")
    lab.tick()
    assert lab.nic.table == {}
    assert [flow["reason"] for flow in lab.manager.flows()] and reason in lab.manager.flows()[0]["reason"]


def test_the_bridge_itself_cannot_offload() -> None:
    lab = BridgeLab()
    table = "table inet x { flowtable f { hook ingress priority 0; devices = { br0 }; flags offload; }\n}"
    result = lab.assembly.rules.execute(table)
    assert result.status and "br0" in str(result.errors)


def test_a_bridge_made_anew_takes_flows_again() -> None:
    lab = BridgeLab()
    lab.start()
    lab.assembly.remove_bridge(lab.config)
    lab.assembly.add_bridge(schema.Bridge("br0", ["p1", "p2"], mac=raw(BR)), 20)
    lab.top = lab.gateway.names["br0"]
    lab.address(lab.top, "192.168.1.1/24")
    lab.neighbour(lab.top, "192.168.1.2", CLIENT)
    lab.start(sport=40001)
    assert lab.fast(sport=40001) and lab.fast(True, sport=40001)
