"""Neighbours: ARP and neighbour discovery, asked and answered, and what happens when nobody answers."""

import pytest
from lab import frames as f
from lab.families import EACH, IP4, IP6, Family
from lab.rules import forward
from lab.topology import Lab, Out

each = pytest.mark.parametrize("fam", EACH, ids=str)
BROADCAST, ZERO = "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00"


def solicited(target: str) -> tuple[str, str]:
    """Solicited-node multicast address and its hardware address (RFC 4291 2.7.1, RFC 2464 7)."""
    tail = f.addr(target)[-3:]
    return f"ff02::1:ff{tail[0]:02x}:{tail[1]:02x}{tail[2]:02x}", f"33:33:ff:{tail[0]:02x}:{tail[1]:02x}:{tail[2]:02x}"


def asks_for(fam: Family, out: Out, target: str) -> bool:
    """Is this frame the router's request for the hardware address of `target`?"""
    if fam is IP6:
        return out.frame[54:55] == b"\x87" and out.frame[62:78] == f.addr(target)
    return out.frame[12:14] == b"\x08\x06" and out.frame[20:22] == b"\0\1" and out.frame[38:42] == f.addr(target)


@each
def test_the_first_packets_wait_for_the_answer_and_keep_their_order(lab: Lab, fam: Family) -> None:
    target = fam.host("dmz", 16)
    with lab.housekeeping():
        got = lab.send("lan", *(f.udp_packet(fam.lan, target, n, 53) for n in range(3)))
    assert any(asks_for(fam, out, target) for out in got)
    passed = [out for out in got if out.port == "dmz" and not asks_for(fam, out, target)]
    want = [lab.down("dmz", f.udp_packet(fam.lan, target, n, 53, ttl=63)) for n in range(3)]
    assert [out for out in passed if out in want] == want


@each
def test_the_request_is_well_formed(lab: Lab, fam: Family) -> None:
    target, side = fam.host("dmz", 17), lab.sides["dmz"]
    with lab.housekeeping():
        got = lab.send("lan", f.udp_packet(fam.lan, target, 1, 53))
    [request] = [out for out in got if asks_for(fam, out, target)][:1]
    if fam is IP4:
        assert request.frame[:42] == f.eth(BROADCAST, side.router_mac, f.ETH_ARP,
                                           f.arp(1, side.router_mac, side.ip4(1), ZERO, target))
    else:
        group, hardware = solicited(target)
        source = ":".join(request.frame[22 + n:24 + n].hex() for n in range(0, 16, 2))
        body = f.icmp6(source, group, 135, 0, 0, f.addr(target) + b"\1\1" + f.mac(side.router_mac))
        packet = f.ip6(source, group, f.ICMP6, body, hops=255)
        assert request.frame == f.eth(hardware, side.router_mac, f.ETH_IP6, packet)


@each
def test_nobody_answers_and_the_sender_is_told(lab: Lab, fam: Family) -> None:
    """RFC 1812 4.3.3.1, RFC 4861 7.2.2: three requests a second apart, then host (address) unreachable."""
    target = fam.host("dmz", 99)
    packet = f.udp_packet(fam.lan, target, 1, 53)
    assert lab.send("lan", packet) == []
    head = 40 if fam is IP6 else 20
    kind = b"\1\3" if fam is IP6 else b"\3\1"
    got = lab.wait(lambda frames: any(o.port == "lan" for o in frames), 8)
    [told] = [out for out in got if out.port == "lan"]
    assert told.packet[head:head + 2] == kind
    assert told.packet[head + 8:] == f.udp_packet(fam.lan, target, 1, 53, ttl=63)
    assert [out for out in got if out.port == "dmz"] == []


def test_arp_is_answered_for_the_routers_addresses_only(lab: Lab) -> None:
    side = lab.sides["lan"]
    ask = f.eth(BROADCAST, side.host_mac, f.ETH_ARP, f.arp(1, side.host_mac, side.ip4(15), ZERO, side.ip4(1)))
    with lab.housekeeping():
        got = lab.exchange("lan", ask)
    answer = f.eth(side.host_mac, side.router_mac, f.ETH_ARP,
                   f.arp(2, side.router_mac, side.ip4(1), side.host_mac, side.ip4(15)))
    assert any(out.frame[:42] == answer for out in got)
    for target in (side.ip4(50), "192.168.9.9"):
        ask = f.eth(BROADCAST, side.host_mac, f.ETH_ARP, f.arp(1, side.host_mac, side.ip4(15), ZERO, target))
        with lab.housekeeping():
            assert not any(out.frame[28:32] == f.addr(target) for out in lab.exchange("lan", ask))


def test_a_solicitation_is_answered(lab: Lab) -> None:
    """RFC 4861 7.2.4: router, solicited and override flags, target link-layer address option."""
    side = lab.sides["lan"]
    target = side.ip6(1)
    group, hardware = solicited(target)
    ask = f.icmp6(side.ip6(15), group, 135, 0, 0, f.addr(target) + b"\1\1" + f.mac(side.host_mac))
    with lab.housekeeping():
        got = lab.exchange("lan", f.eth(hardware, side.host_mac, f.ETH_IP6,
                                        f.ip6(side.ip6(15), group, f.ICMP6, ask, hops=255)))
    body = f.icmp6(target, side.ip6(15), 136, 0, 0xE0000000, f.addr(target) + b"\2\1" + f.mac(side.router_mac))
    want = f.eth(side.host_mac, side.router_mac, f.ETH_IP6, f.ip6(target, side.ip6(15), f.ICMP6, body, hops=255))
    assert want in [out.frame for out in got]


@pytest.mark.parametrize("hops", [64, 254])
def test_a_solicitation_from_afar_is_ignored(lab: Lab, hops: int) -> None:
    """RFC 4861 7.1.1: a hop limit other than 255 has passed a router."""
    side = lab.sides["lan"]
    target = side.ip6(1)
    ask = f.icmp6(side.ip6(15), target, 135, 0, 0, f.addr(target) + b"\1\1" + f.mac(side.host_mac))
    with lab.housekeeping():
        got = lab.send("lan", f.ip6(side.ip6(15), target, f.ICMP6, ask, hops=hops))
    assert not [out for out in got if out.frame[54:55] == b"\x88"]


@each
def test_frames_for_other_hardware_addresses_are_not_forwarded(lab: Lab, fam: Family) -> None:
    frame = bytearray(lab.up("lan", f.udp_packet(fam.lan, fam.wan, 1, 2)))
    frame[0:6] = f.mac("02:00:00:00:77:77")
    assert lab.exchange("lan", bytes(frame)) == []


def test_writing_the_destination_after_routing_asks_on_the_chosen_interface(lab: Lab) -> None:
    """FIDELITY: `ip daddr set` in forward does not route again; the neighbour is looked for where the packet leaves."""
    lab.router.load(forward(f"ip daddr {IP4.wan} ip daddr set 192.168.2.18", family="ip"))
    with lab.housekeeping():
        got = lab.send("lan", f.udp_packet(IP4.lan, IP4.wan, 1, 2))
    assert any(asks_for(IP4, out, "192.168.2.18") for out in got)
    assert all(out.port == "wan" for out in got if asks_for(IP4, out, "192.168.2.18"))
    assert not [out for out in got if out.port == "dmz" and out.frame[12:14] != b"\x08\x06"]
    [told] = lab.wait(lambda frames: bool(frames), 8)
    assert told.port == "lan" and told.packet[20:22] == b"\3\1"
