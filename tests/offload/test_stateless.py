"""Netdev chains with `flags offload`: lowered, refused with the rule, run by the mock NIC as by the engine, laid out for flower."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.all import IP, UDP, Ether, Raw
from stateless_lab import CAN, CHAIN, RULESET, Lab, frames
from test_flower import Card
from userfw_hw.flower import filters as flower
from userfw_hw.flower import stateless as layout

from userfw.core.const import NF_DROP
from userfw.offload.contract import FieldMatch, Filter, Target
from userfw.offload.stateless import Lifter, matches
from userfw.ruleset.options import Options

CANNOT = {
    "ip dscp 4 drop": "no field that hardware matches",
    "ip ttl 1 drop": "no field that hardware matches",
    "tcp dport 1-10 drop": "`range` has no hardware form",
    "tcp dport != 22 drop": "equality only",
    "ip saddr { 1.2.3.4, 5.6.7.8 } drop": "`lookup` has no hardware form",
    "ip daddr 1.2.3.4 tcp flags syn drop": "no field that hardware matches",
    "icmp type echo-request drop": "no field that hardware matches",
    "ip saddr 1.2.3.4 counter": "no verdict",
    "meta mark 1 drop": "`meta mark` has no hardware form",
    "limit rate 1/second drop": "`limit` has no hardware form",
    "ip saddr 1.2.3.4 return": "`return` has no hardware form",
    "ip6 nexthdr tcp drop": "no field that hardware matches",
}


def lifted(rule: str) -> Any:
    lab = Lab(hardware=False)
    assert not lab.run(CHAIN % rule)
    (table,) = lab.rules.rules.tables.values()
    return Lifter(2).lift(table.chains["c"].rules[0].program.exprs)


@pytest.mark.parametrize("rule", CAN)
def test_what_hardware_can(rule: str) -> None:
    assert [test.key for test in lifted(rule).tests] == CAN[rule]
    assert not Lab().run(CHAIN % rule)


@pytest.mark.parametrize("rule", CANNOT)
def test_what_it_cannot_is_refused_with_the_rule(rule: str) -> None:
    lab = Lab()
    said = lab.run(CHAIN % f"ip saddr 9.9.9.9 drop\n{rule}")
    assert CANNOT[rule] in said and f"\n{rule}\n^" in said and "cannot be offloaded" in said
    assert not lab.rules.rules.tables and not lab.nic.filters.lists


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [("priority 5", "priority 0", "priority from 1"), ("flags offload;", "flags offload; policy drop;", "policy accept")],
)
def test_chains_that_hardware_has_no_place_for(old: str, new: str, words: str) -> None:
    assert words in Lab().run((CHAIN % "drop").replace(old, new))


def test_a_check_refuses_as_well() -> None:
    lab = Lab()
    assert "cannot be offloaded" in lab.rules.execute(CHAIN % "ip ttl 1 drop", Options(check=True)).errors


def test_connections_are_no_matter_of_these_chains() -> None:
    """They run before conntrack, so no rule of a netdev chain may ask for it."""
    said = Lab().run(CHAIN % "ct state established accept")
    assert "ct state established accept\n^" in said


def packet(source: str) -> bytes:
    layers = IP(src=source, dst="1.1.1.1") / UDP(sport=9, dport=53) / Raw(b"x" * 9)
    return bytes(Ether(dst="02:00:00:00:00:02", src="02:00:00:00:00:09") / layers)


FROM_10, OTHER = packet("10.0.0.1"), packet("11.0.0.1")


def test_the_card_drops_and_the_rule_counts() -> None:
    lab = Lab()
    assert not lab.run(CHAIN % "ip saddr 10.0.0.0/8 udp dport 53 counter drop")
    assert lab.devices["lan"].ingress is None, "hardware runs the chain, software does not run it again"
    assert lab.send(FROM_10) == 0 and lab.send(OTHER) == 1
    lab.hardware.count()
    assert f"counter packets 1 bytes {len(FROM_10) - 14} drop" in lab.rules.execute("list ruleset").output
    assert lab.hardware.dropped == 1
    (row,) = lab.hardware.status()
    assert (row["device"], row["verdict"], row["packets"]) == ("lan", "drop", 1)


def test_forward_copy_and_order() -> None:
    lab = Lab()
    assert not lab.run(CHAIN % 'ip saddr 10.0.0.0/8 dup to "wan"\nip saddr 10.0.0.1 accept\nip daddr 1.1.1.1 fwd to "wan"')
    assert lab.send(FROM_10) == 1 and lab.wires["wan"].left == [FROM_10]
    assert lab.send(OTHER) == 0 and lab.wires["wan"].left == [FROM_10, OTHER]


def test_a_card_that_refuses_leaves_all_as_it_was() -> None:
    lab = Lab()
    assert not lab.run(CHAIN % "ip saddr 10.0.0.0/8 counter drop")
    lab.send(FROM_10)
    lab.nic.filters.broken = frozenset({"ip_proto"})
    said = lab.run("add rule netdev t c meta l4proto udp drop")
    assert "device lan: the card does not match ip_proto" in said
    assert "l4proto" not in lab.rules.execute("list ruleset").output
    assert lab.send(FROM_10) == 0 and lab.send(OTHER) == 1
    lab.hardware.count()
    assert "counter packets 2" in lab.rules.execute("list ruleset").output


def test_a_change_keeps_the_counts_and_deleting_frees_the_card() -> None:
    lab = Lab()
    assert not lab.run(CHAIN % "ip saddr 10.0.0.0/8 counter drop")
    lab.send(FROM_10)
    assert not lab.run("add rule netdev t c ip saddr 11.0.0.0/8 drop")
    assert lab.send(FROM_10) == lab.send(OTHER) == 0
    lab.hardware.count()
    assert "counter packets 2" in lab.rules.execute("list ruleset").output
    assert not lab.run("delete table netdev t")
    assert not lab.nic.filters.lists and lab.send(FROM_10) == 1


def test_what_the_card_loses_software_takes_over() -> None:
    lab = Lab()
    assert not lab.run(CHAIN % "ip saddr 10.0.0.0/8 drop")
    lab.nic.reset()
    lab.nic.poll(0, lab.hardware.lost)
    assert lab.send(FROM_10) == 1 and lab.software(FROM_10) == NF_DROP
    lab.hardware.tick(2_000_000_000)
    assert lab.send(FROM_10) == 0 and lab.devices["lan"].ingress is None, "and back again"


def test_accept_ends_its_own_chain_only() -> None:
    """In software the next chain runs after it; a list of filters would end."""
    lab = Lab()
    assert not lab.run(CHAIN % "ip saddr 10.0.0.1 accept")
    later = (CHAIN % "ip saddr 10.0.0.0/8 drop").replace("netdev t", "netdev u").replace("priority 5", "priority 6")
    assert "only the last may accept" in lab.run(later)
    assert not lab.run(later.replace("priority 6", "priority 4"))
    assert lab.send(FROM_10) == 0, "the drop comes first"


def test_a_device_on_another_one_is_refused() -> None:
    """Filters of a VLAN device would be run on all that its carrier gets."""
    lab = Lab()
    lab.hardware.target = lambda name: Target("lan", 7, None, "lan")
    said = lab.run((CHAIN % "drop").replace('"lan"', '"wan"'))
    assert "device wan is on lan: match `vlan id` there instead" in said and not lab.nic.filters.lists


def test_a_number_to_send_to_is_one_of_the_same_namespace() -> None:
    lab = Lab()
    places = {"lan": Target("lan", 7, "a", "lan"), "wan": Target("wan", 8, "b", "wan")}
    lab.hardware.target = places.get
    for netns, number in (("b", 0), ("a", 8)):
        places["wan"].netns = netns
        assert not lab.run("flush ruleset\n" + CHAIN % 'ip protocol icmp fwd to "wan"')
        assert lab.nic.filters.lists["lan"][0].out == ("wan", number)


def test_the_tags_of_a_vlan_device_are_put_on() -> None:
    """Sent by the device below it; a copy is refused."""
    lab = Lab()
    places = {"lan": Target("lan", 7, None, "lan"), "wan": Target("lan", 7, None, "lan", tags=((0x88A8, 5), (0x8100, 20)))}
    lab.hardware.target = places.get
    assert not lab.run(CHAIN % 'ip saddr 10.0.0.0/8 fwd to "wan"')
    assert lab.nic.filters.lists["lan"][0].out == ("lan", 7) and lab.send(FROM_10) == 0
    assert lab.wires["lan"].left == [FROM_10[:12] + bytes.fromhex("88a8000581000014") + FROM_10[12:]]
    assert "`dup` to a VLAN device" in lab.run("flush ruleset\n" + CHAIN % 'ip saddr 10.0.0.0/8 dup to "wan"')


def test_without_a_card_the_device_is_named() -> None:
    said = Lab(drivers=[]).run(CHAIN % "drop")
    assert "device lan cannot offload: no driver has stateless filters" in said


@settings(max_examples=200, deadline=None)
@given(frames())
def test_filters_decide_as_the_engine(frame: bytes) -> None:
    soft, hard = _pair()
    device = soft.devices["lan"]
    assert device.ingress is not None
    assert (hard.send(frame) == 0) == (soft.software(frame) == NF_DROP)


def _pair(made: list[Lab] = []) -> list[Lab]:  # noqa: B006  (one pair for all examples)
    if not made:
        made += [Lab(hardware=False), Lab()]
        for lab in made:
            assert not lab.run(CHAIN % RULESET)
    return made


@given(st.binary(max_size=80))
def test_any_bytes_match_or_do_not(frame: bytes) -> None:
    assert matches((), frame) is True
    matches((FieldMatch("eth_type", b"\x08\x00", b"\xff\xff"), FieldMatch("udp_dport", b"\0\x35", b"\xff\xff")), frame)


def test_flowers_layout() -> None:
    udp = FieldMatch("ip_proto", b"\x11", b"\xff")
    tag = (FieldMatch("eth_type", b"\x81\0", b"\xff\xff"), FieldMatch("vlan_id", b"\0\n", b"\x0f\xff"))
    four = FieldMatch("eth_type", b"\x08\x00", b"\xff\xff")
    items = [
        Filter(1, (four, FieldMatch("ipv4_src", b"\n\0\0\0", b"\xff\0\0\0"), udp), "drop"),
        Filter(2, (udp,), "accept"),
        Filter(3, (), "forward", ("b", 4), (), ((0x88A8, 5), (0x8100, 20))),
        Filter(4, tag, "continue", ("", 0), (("b", 4),)),
    ]
    made = layout.lay_out(3, items, False, flower.SKIP_SW)
    assert [(id, item.protocol) for id, item in made] == [
        (1, 0x0800), *((2, kind) for kind in (0x8100, 0x88A8, 0x0800, 0x8100, 0x88A8, 0x86DD)), (3, 3), (4, 0x8100)
    ]  # fmt: skip
    assert [item.pref for _, item in made] == [*range(31000, 31009)]
    names = ["+".join(name for name, _ in item.actions) for _, item in made]
    assert names == ["gact"] * 7 + ["vlan+vlan+mirred", "mirred+gact"]
    assert [dict(attrs)["TCA_VLAN_PUSH_VLAN_ID"] for _, attrs in made[7][1].actions[:2]] == [20, 5], "the outermost last"
    up = layout.lay_out(3, items[1:2], True, flower.SKIP_HW, 9, 7)
    assert up[0][1].pref == 31000 + layout.HALF and up[0][1].actions[0] == flower.redirect(9)


def test_flower_replaces_a_list_without_a_gap_and_undoes_a_refused_one() -> None:
    from userfw.ports.netlink_batch import Refused

    card, target = Card({"hw-tc-offload": True}), Target("a", 3, None, "a")
    card.probe(target)
    drop = Filter(1, (FieldMatch("ip_proto", b"\x11", b"\xff"),), "drop")
    assert card.set_filters(target, [drop]) is None
    assert sorted(key[1] for key in card.kernel.filters) == [*range(40000, 40006)]
    card.kernel.refuse = [Refused(95, "no")]
    assert card.set_filters(target, [Filter(2, (), "drop")]) == (2, "no")
    assert sorted(key[1] for key in card.kernel.filters) == [*range(40000, 40006)]
    assert card.set_filters(target, [Filter(3, (), "drop")]) is None
    assert sorted(key[1] for key in card.kernel.filters) == [31000]
    assert card.set_filters(target, []) is None and not card.kernel.filters
