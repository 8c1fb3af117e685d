"""Each thing that makes a flow's way doubtful takes it out of the card before the call that tells of it returns; manual clock."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from card_lab import SECOND, raw
from offload_lab import HOSTS, MACS, GatewayLab
from scapy.all import TCP, Ether

from userfw.core.const import IPS_HW_OFFLOAD, NFPROTO_IPV4


def route(lab: GatewayLab) -> None:
    lab.gateway.routes.remove(lab.route[0])
    lab.gateway.add_route("198.51.100.0/24", via="192.0.2.9")


def mtu(lab: GatewayLab) -> None:
    lab.gateway.set_mtu(lab.devices["wan"], 1000)


def link_address(lab: GatewayLab) -> None:
    lab.gateway.set_mac(lab.devices["wan"], raw("02:00:00:00:02:77"))
    lab.neighbour(lab.devices["wan"], "203.0.113.9", HOSTS["wan"])


def down(lab: GatewayLab) -> None:
    lab.gateway.set_up(lab.devices["wan"], False)


def removed(lab: GatewayLab) -> None:
    lab.assembly.remove_port(lab.devices["wan"])


def rule(lab: GatewayLab) -> None:
    lab.nft("insert rule inet filter forward udp dport 53 drop")


def element(lab: GatewayLab) -> None:
    lab.nft("add element inet filter blocked { 198.51.100.9 }")


def nat_rule(lab: GatewayLab) -> None:
    lab.nft('flush chain inet filter post\nadd rule inet filter post oifname "wan" snat ip to 203.0.113.50')


def address(lab: GatewayLab) -> None:
    device = lab.devices["wan"]
    lab.gateway.remove_address(device, next(a for a in device.addresses if a.family == NFPROTO_IPV4))


def conntrack(lab: GatewayLab) -> None:
    for conn in list(lab.assembly.conntrack.members(0, 0)):
        lab.assembly.conntrack.destroy(conn)


def flush(lab: GatewayLab) -> None:
    lab.nft("flush ruleset")


def stop(lab: GatewayLab) -> None:
    lab.assembly.close()


@pytest.mark.parametrize(
    "change", [route, mtu, link_address, down, removed, rule, element, nat_rule, address, conntrack, flush, stop]
)
def test_it_is_out_of_the_card_when_the_call_returns(change: Callable[[GatewayLab], None]) -> None:
    lab = GatewayLab()
    lab.nft("add set inet filter blocked { type ipv4_addr; }\n insert rule inet filter forward ip daddr @blocked drop")
    lab.offloaded()
    (conn,) = lab.assembly.conntrack.members(0, 0)
    assert len(lab.nic.table) == 2 and conn.status & IPS_HW_OFFLOAD
    change(lab)
    assert lab.nic.table == {} and lab.nic.pending == [] and lab.manager.installed == 0
    assert not conn.status & IPS_HW_OFFLOAD
    seen = lab.host_frames()
    if change not in (removed, stop):
        lab.send(lab.frame())
        assert lab.host_frames() == seen + 1  # the host judges the next packet


@pytest.mark.parametrize("change", [route, mtu, link_address, down, removed, rule, address, conntrack, flush])
def test_what_waits_for_the_card_is_not_installed(change: Callable[[GatewayLab], None]) -> None:
    """No packet of the flow comes between the change and its turn."""
    lab = GatewayLab()
    for _ in range(3):
        lab.send(lab.frame())
        lab.send(lab.frame(back=True), "wan")
    assert lab.manager.waiting and not lab.nic.table
    change(lab)
    lab.tick()
    assert lab.nic.table == {} and lab.manager.installations == 0


def test_while_a_slow_card_installs() -> None:
    """What was on its way into the card is taken back too."""
    lab = GatewayLab("slow")
    lab.offloaded()
    assert lab.nic.pending and not lab.nic.table
    rule(lab)
    assert lab.nic.pending == []
    lab.tick(1)
    assert lab.nic.table == {} and lab.send(lab.frame()) == {}


def test_the_next_packet_goes_the_new_way() -> None:
    lab = GatewayLab()
    lab.nft("flush chain inet filter post")
    lab.offloaded(outside="192.168.1.2")
    route(lab)
    left = lab.send(lab.frame())
    assert set(left) == {"alt"} and left["alt"][0][:6] == raw(HOSTS["alt"])
    for _ in range(4):
        lab.send(lab.frame())
        lab.send(lab.frame(back=True, outside="192.168.1.2", at="alt"), "alt")
    lab.tick()
    seen = lab.host_frames()
    assert set(lab.send(lab.frame())) == {"alt"} and lab.host_frames() == seen  # by the card again


def test_a_dropping_rule_drops_at_once_and_a_deleted_one_no_more() -> None:
    lab = GatewayLab()
    lab.offloaded()
    rule(lab)
    assert lab.send(lab.frame()) == {}
    lab.nft("flush chain inet filter forward\nadd rule inet filter forward accept")
    assert set(lab.send(lab.frame())) == {"wan"}


def test_a_packet_back_does_not_bring_back_what_a_rule_now_drops() -> None:
    """Only one direction is forbidden; `flow add` of the other must not open both."""
    lab = GatewayLab()
    lab.offloaded()
    lab.nft("insert rule inet filter forward ip daddr 198.51.100.9 drop")
    for _ in range(5):
        assert set(lab.send(lab.frame(back=True), "wan")) == {"lan"}
        lab.tick()
        assert lab.send(lab.frame()) == {} and lab.nic.table == {}
    assert "only one direction" in lab.manager.flows()[0]["reason"]


def test_rules_of_a_flowtable_without_offload_do_not_touch_its_flows() -> None:
    """As Linux does it."""
    lab = GatewayLab(offload=False)
    lab.offloaded()
    assert lab.table().count == 2
    rule(lab)
    assert set(lab.send(lab.frame())) == {"wan"}


def test_a_neighbour_that_moves_is_followed_and_one_that_is_gone_too() -> None:
    lab = GatewayLab()
    lab.offloaded()
    lab.neighbour(lab.devices["wan"], "203.0.113.9", "02:00:00:00:02:55")
    assert lab.nic.table == {} and lab.table().count == 2
    assert lab.send(lab.frame())["wan"][0][:6] == raw("02:00:00:00:02:55")
    lab.tick()
    seen = lab.host_frames()
    assert lab.send(lab.frame())["wan"][0][:6] == raw("02:00:00:00:02:55") and lab.host_frames() == seen
    neighbours = lab.gateway.neighbours
    neighbours.remove(next(n for n in neighbours.entries.values() if n.device.name == "wan" and n.family == NFPROTO_IPV4))
    assert lab.nic.table == {}


def test_the_card_s_traffic_keeps_neighbours_in_use() -> None:
    """A neighbour that does not answer any more is noticed although no packet of its flows is seen."""
    lab = GatewayLab()
    lab.offloaded()
    for _ in range(300):
        lab.send(lab.frame())
        lab.send(lab.frame(back=True), "wan")
        lab.gateway.tick(lab.clock.now)
        lab.tick(1)
        if not lab.nic.table:
            break
    states = {n.state for n in lab.gateway.neighbours.entries.values() if n.device.name != "alt" and n.family == NFPROTO_IPV4}
    assert states <= {1, 32}  # INCOMPLETE (asked again, for the flow waits), FAILED
    assert lab.nic.table == {} and lab.manager.withdrawn["a neighbour"] == 1


def test_fin_and_rst_come_to_the_host() -> None:
    for flags in ("FA", "RA"):
        lab = GatewayLab()
        lab.nft("flush chain inet filter forward\nadd rule inet filter forward ct state established flow add @ft\n"
                "add rule inet filter forward accept")
        lab.send(lab.frame(proto=TCP, flags="S", data=b""))
        lab.send(lab.frame(back=True, proto=TCP, flags="SA", data=b""), "wan")
        for _ in range(4):
            lab.send(lab.frame(proto=TCP, data=b""))
            lab.send(lab.frame(back=True, proto=TCP, data=b""), "wan")
        lab.tick()
        assert len(lab.nic.table) == 2
        lab.send(lab.frame(proto=TCP, flags=flags, data=b""))
        assert lab.nic.table == {} and lab.table().count == 0


def test_a_rule_carries_the_zone_of_its_connection() -> None:
    lab = GatewayLab()
    lab.nft("table inet z { chain c { type filter hook prerouting priority raw; ct zone set 5\n }\n }")
    lab.offloaded()
    assert {slot.rule.match.zone for slot in lab.nic.table.values()} == {5} and len(lab.nic.table) == 2


def test_a_reset_card_is_filled_again() -> None:
    lab = GatewayLab()
    lab.offloaded()
    lab.nic.reset()
    lab.tick()
    assert lab.manager.installed == 0 and set(lab.send(lab.frame())) == {"wan"}
    lab.tick(2)
    assert lab.manager.installed == 1 and lab.manager.withdrawn == {"a device": 1}


def test_last_counters_reach_the_connection() -> None:
    """What the card forwarded since it was read last is not lost with the rule."""
    lab = GatewayLab()
    lab.offloaded()
    (conn,) = lab.assembly.conntrack.members(0, 0)
    before = list(conn.packets)
    for _ in range(7):
        lab.send(lab.frame())
    assert list(conn.packets) == before
    rule(lab)
    assert conn.packets[0] == before[0] + 7


def test_connections_live_on_the_card_s_traffic() -> None:
    lab = GatewayLab()
    lab.offloaded()
    for _ in range(10):
        lab.send(lab.frame())
        lab.send(lab.frame(back=True), "wan")
        lab.neighbour(lab.devices["lan"], "192.168.1.2", HOSTS["lan"])
        lab.neighbour(lab.devices["wan"], "203.0.113.9", HOSTS["wan"])
        lab.tick(20)
        lab.assembly.sweep()
        lab.assembly.conntrack.reap(1000)
    assert lab.manager.installed == 1 and lab.assembly.conntrack.count == 1
    lab.clock.now += 200 * SECOND
    for _ in range(4):
        lab.assembly.sweep()
    assert lab.nic.table == {} and lab.table().count == 0


def test_several_tags_on_the_way_are_one_rule_and_one_lookup() -> None:
    """lan.7.9 to wan.5: the flowtable finds the flow at lan, by its tags, and sends out of wan, with the new one; as the card."""
    lab = GatewayLab()
    stacked(lab)
    tags, back_tags = ((0x88A8, 7), (0x8100, 9)), ((0x8100, 5),)
    kind = {"server": "203.0.115.9", "client": "192.168.7.2", "outside": "203.0.115.1"}
    pipeline = lab.send(lab.frame(tags=tags, **kind))["wan"][0]
    software = lab.offloaded(tags=tags, back_tags=back_tags, **kind)
    assert software["there"]["wan"][0] == pipeline
    sent = Ether(pipeline)
    assert (sent.type, sent.vlan, sent.payload.type) == (0x8100, 5, 0x800)
    flow = next(iter(lab.table()))
    assert flow.original.key >> 16 == lab.devices["lan"].index and flow.original.tags == 0x10093007  # inner, outer
    assert flow.original.out is lab.devices["wan"] and flow.reply.out is lab.devices["lan"]
    assert len(lab.nic.table) == 2
    seen = lab.host_frames()
    assert lab.send(lab.frame(tags=tags, **kind))["wan"] == software["there"]["wan"]
    assert lab.send(lab.frame(back=True, tags=back_tags, **kind), "wan")["lan"] == software["back"]["lan"]
    assert lab.host_frames() == seen
    lab.send(lab.frame(tags=((0x8100, 7), (0x8100, 9)), **kind))  # an S-tag of another kind is another network
    assert lab.host_frames() == seen + 1


def stacked(lab: GatewayLab) -> None:
    outer = lab.gateway.add_vlan(lab.devices["lan"], 7, "lan.7", 20, 0x88A8)
    inner = lab.gateway.add_vlan(outer, 9, "lan.7.9", 21)
    wan = lab.gateway.add_vlan(lab.devices["wan"], 5, "wan.5", 22)
    lab.address(inner, "192.168.7.1/24")
    lab.address(wan, "203.0.115.1/24")
    lab.neighbour(inner, "192.168.7.2", HOSTS["lan"])
    lab.neighbour(wan, "203.0.115.9", HOSTS["wan"])


def test_counters_of_vlan_devices_are_kept() -> None:
    lab = GatewayLab(offload=False)
    stacked(lab)
    kind = {"server": "203.0.115.9", "client": "192.168.7.2", "outside": "203.0.115.1"}
    names = ("lan.7", "lan.7.9", "wan.5")
    told = []
    for fast in (False, True):
        if fast:
            lab.offloaded(tags=((0x88A8, 7), (0x8100, 9)), back_tags=((0x8100, 5),), **kind)
            assert lab.table().forwarded
        before = [(d.rx_packets, d.tx_packets) for d in map(lab.gateway.names.get, names)]
        lab.send(lab.frame(tags=((0x88A8, 7), (0x8100, 9)), **kind))
        after = [(d.rx_packets, d.tx_packets) for d in map(lab.gateway.names.get, names)]
        told.append([(a[0] - b[0], a[1] - b[1]) for a, b in zip(after, before, strict=True)])
    assert told[0] == told[1] == [(1, 0), (1, 0), (0, 1)]


def test_a_tagged_frame_does_not_match_the_untagged_flow() -> None:
    lab = GatewayLab(offload=False)
    lab.offloaded()
    assert lab.send(lab.frame(tags=((0x8100, 5),))) == {}
    assert set(lab.send(lab.frame(tags=((0x8100, 0),)))) == {"wan"}  # a priority tag only: the pipeline takes it off


def test_hooks_of_a_vlan_device_are_not_passed_over() -> None:
    lab = GatewayLab(offload=False)
    stacked(lab)
    lab.nft('table netdev n { chain c { type filter hook ingress device "lan.7.9" priority 0; counter\n }\n }')
    kind = {"server": "203.0.115.9", "client": "192.168.7.2", "outside": "203.0.115.1"}
    lab.offloaded(tags=((0x88A8, 7), (0x8100, 9)), back_tags=((0x8100, 5),), **kind)
    before = int(lab.assembly.rules.execute("list table netdev n").output.split("packets ")[1].split()[0])
    lab.send(lab.frame(tags=((0x88A8, 7), (0x8100, 9)), **kind))
    assert int(lab.assembly.rules.execute("list table netdev n").output.split("packets ")[1].split()[0]) == before + 1
    assert MACS
