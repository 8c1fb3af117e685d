"""The lowering: bytecode as nft's, sets as netlink carries them, names of what a rule owns."""

from __future__ import annotations

import pytest

from userfw.nft.check import ChainInfo, NothingThere, check_commands, check_rule
from userfw.nft.location import NftErrors
from userfw.nft.lower import LoweredRule, dump_set, lower_elements, lower_rule, lower_set
from userfw.nft.netlink_text import debug_text
from userfw.nft.parser import parse, parse_rule
from userfw.nft.syntax import SetBlock


def lowered(text: str, family: str = "inet") -> LoweredRule:
    checked = check_rule(parse_rule(text), family, ChainInfo("t", "c"), NothingThere())
    return lower_rule(checked, family)


def lines(text: str, family: str = "inet") -> list[str]:
    return [line.removeprefix("[ ").removesuffix(" ]") for line in lowered(text, family).render()]


def the_set(text: str) -> SetBlock:
    (command,) = check_commands(parse(f"table inet t {{\n{text}\n}}"), NothingThere())
    block = command.node.sets[0]  # type: ignore[union-attr]
    assert isinstance(block, SetBlock)
    return block


L4TCP = ["meta load l4proto => reg 1", "cmp eq reg 1 0x00000006"]
V4 = ["meta load nfproto => reg 1", "cmp eq reg 1 0x00000002"]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("tcp dport 22 accept", [
            *L4TCP, "payload load 2b @ transport header + 2 => reg 1", "cmp eq reg 1 0x00001600", "immediate reg 0 accept",
        ]),
        ("ct state new", [
            "ct load state => reg 1", "bitwise reg 1 = ( reg 1 & 0x00000008 ) ^ 0x00000000", "cmp neq reg 1 0x00000000",
        ]),
        ("ip saddr 10.0.0.0/8", [*V4, "payload load 1b @ network header + 12 => reg 1", "cmp eq reg 1 0x0000000a"]),
        ("ip saddr 10.0.0.0/12", [
            *V4, "payload load 4b @ network header + 12 => reg 1", "bitwise reg 1 = ( reg 1 & 0x0000f0ff ) ^ 0x00000000",
            "cmp eq reg 1 0x0000000a",
        ]),
        ("meta mark 1-5", [
            "meta load mark => reg 1", "byteorder reg 1 = hton(reg 1, 4, 4)", "range eq reg 1 0x01000000 0x05000000",
        ]),
        ("meta mark > 5", ["meta load mark => reg 1", "byteorder reg 1 = hton(reg 1, 4, 4)", "cmp gt reg 1 0x05000000"]),
        ('iifname "eth*"', ["meta load iifname => reg 1", "cmp eq reg 1 0x00687465"]),
        ("ip dscp cs1", [
            *V4, "payload load 1b @ network header + 1 => reg 1", "bitwise reg 1 = ( reg 1 & 0x000000fc ) ^ 0x00000000",
            "cmp eq reg 1 0x00000020",
        ]),
        ("meta mark set (meta mark ^ 5) & 3 | 1", [
            "meta load mark => reg 1", "bitwise reg 1 = ( reg 1 & 0x00000002 ) ^ 0x00000001", "meta set mark with reg 1",
        ]),
        ("ct mark set ct mark | meta mark", [
            "ct load mark => reg 1", "meta load mark => reg 2", "bitwise reg 1 = ( reg 1 | reg 2 )", "ct set mark with reg 1",
        ]),
        ("meta mark set ip6 dscp", [
            "meta load nfproto => reg 1", "cmp eq reg 1 0x0000000a", "payload load 2b @ network header + 0 => reg 1",
            "bitwise reg 1 = ( reg 1 & 0x0000c00f ) ^ 0x00000000", "byteorder reg 1 = ntoh(reg 1, 2, 2)",
            "bitwise reg 1 = ( reg 1 >> 0x00000006 )", "meta set mark with reg 1",
        ]),
        ("tcp sport 1 tcp dport 2 tcp sequence 3", [
            *L4TCP, "payload load 4b @ transport header + 0 => reg 1", "cmp eq reg 1 0x02000100",
            "payload load 4b @ transport header + 4 => reg 1", "cmp eq reg 1 0x03000000",
        ]),
        ("meta mark set jhash ip saddr . tcp dport mod 8", [
            *V4, *L4TCP, "payload load 4b @ network header + 12 => reg 2", "payload load 2b @ transport header + 2 => reg 13",
            "hash reg 1 = jhash(reg 2, 8, 0x0) % mod 8", "meta set mark with reg 1",
        ]),
        ("mark 5 reject with tcp reset", [*L4TCP, "meta load mark => reg 1", "cmp eq reg 1 0x00000005", "reject type 1 code 0"]),
        ("tcp dport 80 dnat ip to 10.0.0.1-10.0.0.9:80-90 random", [
            *L4TCP, "payload load 2b @ transport header + 2 => reg 1", "cmp eq reg 1 0x00005000", "immediate reg 1 0x0100000a",
            "immediate reg 2 0x0900000a", "immediate reg 3 0x00005000", "immediate reg 4 0x00005a00",
            "nat dnat ip addr_min reg 1 addr_max reg 2 proto_min reg 3 proto_max reg 4 flags 0x6",
        ]),
        ("udp dport 4789 vxlan ip saddr 1.2.3.4", [
            "meta load l4proto => reg 1", "cmp eq reg 1 0x00000011", "payload load 2b @ transport header + 2 => reg 1",
            "cmp eq reg 1 0x0000b512", "inner type 1 hdrsize 8 flags f [ meta load protocol => reg 1 ]", "cmp eq reg 1 0x00000008",
            "inner type 1 hdrsize 8 flags f [ payload load 4b @ network header + 12 => reg 1 ]", "cmp eq reg 1 0x04030201",
        ]),
    ],
)  # fmt: skip
def test_instructions(text: str, wanted: list[str]) -> None:
    assert lines(text) == wanted


def test_the_link_type_is_asked_of_the_input_device_in_output_hooks_too() -> None:
    chain = ChainInfo("t", "c", type="filter", hook="output")
    checked = check_rule(parse_rule("ether type ip accept"), "inet", chain, NothingThere())
    assert lower_rule(checked, "inet").render()[:2] == ["[ meta load iiftype => reg 1 ]", "[ cmp eq reg 1 0x00000001 ]"]


@pytest.mark.parametrize(
    ("text", "write"),
    [
        ("ip daddr set 1.2.3.4", "4b @ network header + 16 csum_type 1 csum_off 10 csum_flags 0x1"),
        ("ip ttl set 5", "2b @ network header + 8 csum_type 1 csum_off 10 csum_flags 0x0"),
        ("tcp flags set syn", "2b @ transport header + 12 csum_type 1 csum_off 16 csum_flags 0x0"),
        ("udp dport set 5", "2b @ transport header + 2 csum_type 0 csum_off 0 csum_flags 0x1"),
        ("ip6 hoplimit set 3", "1b @ network header + 7 csum_type 0 csum_off 0 csum_flags 0x0"),
        ("ip6 daddr set ::1", "16b @ network header + 24 csum_type 0 csum_off 0 csum_flags 0x1"),
        ("sctp dport set 5", "2b @ transport header + 2 csum_type 2 csum_off 8 csum_flags 0x0"),
    ],
)
def test_writes_fix_their_checksums(text: str, write: str) -> None:
    assert lines(text)[-1] == f"payload write reg 1 => {write}"


def test_anonymous_sets_come_with_the_rule() -> None:
    result = lowered("tcp dport { 22, 80-90 } ip dscp vmap { cs1 : drop, ef : accept } meta mark set ip saddr map { 1.1.1.1 : 5 }")
    assert [block.name for block in result.anonymous_sets] == ["__set0", "__map1", "__map2"]
    ports, classes, marks = result.anonymous_sets
    assert "interval" in ports.flags
    assert ports.key_dtype.octets == 2
    assert [elem.key.value for elem in classes.elements] == [0x20, 0xB8]  # type: ignore[attr-defined]
    assert marks.data_dtype.name == "mark"
    rendered = lines("tcp dport { 22, 80-90 } accept")
    assert "lookup reg 1 set __set0" in rendered


def test_bound_chains_are_named_by_the_caller() -> None:
    checked = check_rule(parse_rule("tcp dport 22 jump { accept; }"), "inet", ChainInfo("t", "c"), NothingThere())
    result = lower_rule(checked, "inet", chain_names=["__chain7"])
    assert result.render()[-1] == "[ immediate reg 0 jump -> __chain7 ]"
    assert result.bound_chains[0][0] == "__chain7"
    assert lower_rule(result.bound_chains[0][1].rules[0], "inet").render() == ["[ immediate reg 0 accept ]"]


def test_dumps_are_half_open() -> None:
    result = lowered("tcp dport { 0-10, 20, 65535 }")
    text = dump_set(result.anonymous_sets[0], "t")[2]
    assert text.split("\t")[1:] == [
        "element 00000000  : 0 [end]", "element 00000b00  : 1 [end]", "element 00001400  : 0 [end]", "element 00001500  : 1 [end]",
        "element 0000ffff  : 0 [end]",
    ]  # fmt: skip


def test_named_sets() -> None:
    block = the_set("set s {\ntypeof ip saddr . meta mark\nflags interval\nelements = { 1.1.1.1 . 5, 10.0.0.0/8 . 1-9 }\n}")
    low = lower_set(block)
    assert (low.key_len, low.data_len, low.fields) == (8, 0, (4, 4))
    assert low.flags == 0x84
    first, second = lower_elements(block)
    assert (first.key, first.key_end) == (bytes.fromhex("0101010100000005"), None)
    assert (second.key, second.key_end) == (bytes.fromhex("0a00000000000001"), bytes.fromhex("0affffff00000009"))


def test_maps_carry_data() -> None:
    block = the_set(
        "map m {\ntype inet_service : interval ipv4_addr . inet_service\n"
        "elements = { 80 : 10.0.0.1-10.0.0.9 . 8080, * : 1.1.1.1 . 1-2 }\n}"
    )
    first, rest = lower_elements(block)
    assert first.data == bytes.fromhex("0a0000011f9000000a0000091f900000")
    assert rest.key is None
    assert rest.flags == 2
    assert lower_set(block).data_len == 16
    verdicts = the_set("map v {\ntype ipv4_addr : verdict\nelements = { 1.1.1.1 : drop }\n}")
    assert lower_elements(verdicts)[0].data == ("drop", "")


def test_what_the_machine_cannot_do_is_refused_with_its_place() -> None:
    with pytest.raises(NftErrors) as caught:
        lowered("ipsec in spnum 7 reqid 1")
    (error,) = caught.value.errors
    assert "spnum" in error.message
    assert error.loc.known


def test_debug_text() -> None:
    checked = check_rule(parse_rule("tcp dport { 1, 2 }"), "ip", ChainInfo("t", "c"), NothingThere())
    text = debug_text(checked, "ip", "t", "c")
    assert text.startswith("__set%d t 3 size 2\n__set%d t 0\n\telement 00000100")
    assert text.endswith("ip t c\n  [ meta load l4proto => reg 1 ]\n  [ cmp eq reg 1 0x00000006 ]\n"
                         "  [ payload load 2b @ transport header + 2 => reg 1 ]\n  [ lookup reg 1 set __set%d ]\n")  # fmt: skip


def test_only_checked_rules_are_lowered() -> None:
    with pytest.raises(TypeError, match="check_rule"):
        lower_rule(parse_rule("tcp dport 22"), "inet")


def test_wide_bit_fields_are_looked_up_as_sets_hold_them() -> None:
    text = "table ip6 t {\nset s {\ntypeof frag frag-off\nelements = { 5 }\n}\nchain c {\nfrag frag-off @s\nip6 dscp != cs1\n}\n}"
    (command,) = check_commands(parse(text), NothingThere())
    table = command.node
    assert lower_elements(table.sets[0])[0].key == bytes.fromhex("0005")  # type: ignore[union-attr]
    program = lower_rule(table.chains[0].rules[0], "ip6").render()  # type: ignore[union-attr]
    assert program[-2:] == ["[ byteorder reg 1 = hton(reg 1, 2, 2) ]", "[ lookup reg 1 set s ]"]
