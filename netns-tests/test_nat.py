"""NAT in all its forms, both families: what is rewritten, which port is chosen, what the replies become."""

import re

import pytest
from lab import frames as f
from lab.families import EACH, IP4, IP6, Family
from lab.rules import at, nat
from lab.topology import Lab, Out

each = pytest.mark.parametrize("fam", EACH, ids=str)


def sport(out: list[Out]) -> int:
    """The source port of the only frame."""
    [one] = out
    start = 40 if one.packet[0] >> 4 == 6 else 20
    return int.from_bytes(one.packet[start:start + 2], "big")


@each
def test_masquerade_udp_and_back(lab: Lab, fam: Family) -> None:
    lab.router.load(nat(fam, post='oifname "wan" counter masquerade'))
    assert lab.send("lan", f.udp_packet(fam.lan, fam.wan, 4000, 53)) == [
        lab.down("wan", f.udp_packet(fam.out, fam.wan, 4000, 53, ttl=63))]
    assert lab.send("wan", f.udp_packet(fam.wan, fam.out, 53, 4000, b"yes")) == [
        lab.down("lan", f.udp_packet(fam.wan, fam.lan, 53, 4000, b"yes", ttl=63))]
    lab.send("lan", f.udp_packet(fam.lan, fam.wan, 4000, 53))
    assert lab.router.counters()[f"{fam.name} nat post #1"][0] == 1  # consulted for the first packet only
    [conn] = lab.router.conns()
    assert conn.reply[:2] == (f"src={fam.wan}", f"dst={fam.out}")


@pytest.mark.own_numbers
@each
def test_masquerade_of_ping_keeps_identifiers_apart(lab: Lab, fam: Family) -> None:
    lab.router.load(nat(fam, post='oifname "wan" masquerade'))
    assert lab.send("lan", f.ping(fam.lan, fam.wan, 7)) == [lab.down("wan", f.ping(fam.out, fam.wan, 7, ttl=63))]
    [second] = lab.send("lan", f.ping(fam.host("lan", 11), fam.wan, 7))
    start = 44 if fam is IP6 else 24
    ident = int.from_bytes(second.packet[start:start + 2], "big")
    assert ident != 7
    assert lab.send("wan", f.ping(fam.wan, fam.out, ident, reply=True)) == [
        lab.down("lan", f.ping(fam.wan, fam.host("lan", 11), 7, reply=True, ttl=63))]
    assert lab.send("wan", f.ping(fam.wan, fam.out, 7, reply=True)) == [
        lab.down("lan", f.ping(fam.wan, fam.lan, 7, reply=True, ttl=63))]


@each
def test_dnat_to_another_host_and_port(lab: Lab, fam: Family) -> None:
    lab.router.load(nat(fam, pre=f'iifname "wan" tcp dport 80 dnat to {at(fam.dmz, 8080)}'))
    assert lab.send("wan", f.tcp_packet(fam.wan, fam.out, 5000, 80)) == [
        lab.down("dmz", f.tcp_packet(fam.wan, fam.dmz, 5000, 8080, ttl=63))]
    assert lab.send("dmz", f.tcp_packet(fam.dmz, fam.wan, 8080, 5000, f.SYN | f.ACK, ack=1001)) == [
        lab.down("wan", f.tcp_packet(fam.out, fam.wan, 80, 5000, f.SYN | f.ACK, ack=1001, ttl=63))]


@pytest.mark.own_numbers
@each
def test_snat_to_an_address_and_to_a_port_range(lab: Lab, fam: Family) -> None:
    extra = fam.host("wan", 77)
    lab.router.load(nat(fam, post=f'oifname "wan" udp dport 53 snat to {at(extra, "2000-2001")}\n'
                                  f'oifname "wan" snat to {extra}'))
    ports = {sport(lab.send("lan", f.udp_packet(fam.lan, fam.wan, n, 53))) for n in (4000, 4001)}
    assert ports == {2000, 2001}
    # The range is used up: the clash cannot be avoided and the packet is dropped at confirmation.
    assert lab.send("lan", f.udp_packet(fam.lan, fam.wan, 4002, 53)) == []
    assert lab.send("lan", f.udp_packet(fam.lan, fam.wan, 4009, 54)) == [
        lab.down("wan", f.udp_packet(extra, fam.wan, 4009, 54, ttl=63))]


@pytest.mark.own_numbers
@pytest.mark.parametrize(("port", "low", "high"), [(400, 1, 511), (600, 600, 1023), (5000, 1024, 65535)])
@each
def test_a_taken_port_is_replaced_by_one_of_its_class(lab: Lab, fam: Family, port: int, low: int, high: int) -> None:
    lab.router.load(nat(fam, post='oifname "wan" masquerade'))
    assert sport(lab.send("lan", f.udp_packet(fam.lan, fam.wan, port, 53))) == port
    chosen = sport(lab.send("lan", f.udp_packet(fam.host("lan", 11), fam.wan, port, 53)))
    assert chosen != port and low <= chosen <= high
    # The same source keeps its mapping towards another destination (Linux: find_appropriate_src) ...
    assert sport(lab.send("lan", f.udp_packet(fam.host("lan", 11), fam.host("wan", 11), port, 53))) == chosen
    # ... and one that has none keeps its port where the tuple is free.
    assert sport(lab.send("lan", f.udp_packet(fam.host("lan", 12), fam.host("wan", 11), port, 53))) == port


@pytest.mark.own_numbers
def test_random_flags_choose_another_port(lab: Lab) -> None:
    lab.router.load(nat(IP4, post='udp dport 1 masquerade random\nudp dport 2 masquerade fully-random\n'
                                  'udp dport 3 snat to 203.0.113.77:30000-39999 random'))
    for dport in (1, 2, 3):
        ports = [sport(lab.send("lan", f.udp_packet(IP4.lan, IP4.wan, 5000 + n, dport))) for n in range(12)]
        kept = sum(port == 5000 + n for n, port in enumerate(ports))
        assert kept <= 2 and len(set(ports)) == 12, (dport, ports)
        assert dport != 3 or all(30000 <= port <= 39999 for port in ports)


@pytest.mark.own_numbers
def test_snat_over_an_address_range_is_persistent_per_source(lab: Lab) -> None:
    lab.router.load(nat(IP4, post='oifname "wan" snat to 203.0.113.80-203.0.113.95 persistent'))
    first = {lab.send("lan", f.udp_packet(IP4.host("lan", n), IP4.wan, 5000, 53))[0].packet[12:16]
             for n in range(10, 20)}
    assert len(first) > 1 and all(b"\xcb\0\x71\x50" <= a <= b"\xcb\0\x71\x5f" for a in first)
    again = [lab.send("lan", f.udp_packet(IP4.lan, IP4.host("wan", n), 5000, 53))[0].packet[12:16] for n in (11, 12)]
    assert again[0] == again[1]


@each
def test_redirect_goes_to_the_primary_address_of_the_interface(lab: Lab, fam: Family) -> None:
    lab.router.load(nat(fam, pre='iifname "lan" udp dport 53 redirect to :5353') + """
        table inet t { chain in { type filter hook input priority 0; udp dport 5353 counter drop; } \n}""")
    assert lab.send("lan", f.udp_packet(fam.lan, fam.wan, 4000, 53)) == []
    assert lab.router.counters()["inet t in #1"][0] == 1
    assert lab.router.conns() == []


def test_nat_maps_and_concatenations(lab: Lab) -> None:
    lab.router.load(nat(IP4, pre=f"""
        iifname "wan" dnat ip to udp dport map {{ 53 : {IP4.dmz}, 54 : {IP4.edge} }}
        iifname "wan" dnat ip to tcp dport map {{ 80 : {IP4.dmz} . 8080, 443 : {IP4.edge} . 8443 }}"""))
    got = [lab.send("wan", f.udp_packet(IP4.wan, IP4.out, 1, dport))[0] for dport in (53, 54)]
    assert [(out.port, out.packet[16:20]) for out in got] == [
        ("dmz", f.addr(IP4.dmz)), ("edge", f.addr(IP4.edge))]
    assert lab.send("wan", f.tcp_packet(IP4.wan, IP4.out, 9, 443)) == [
        lab.down("edge", f.tcp_packet(IP4.wan, IP4.edge, 9, 8443, ttl=63))]


def test_prefix_to_prefix_keeps_the_host_part(lab: Lab) -> None:
    lab.router.load(nat(IP4, pre='iifname "wan" dnat ip prefix to ip daddr map { 198.51.100.0/24 : 192.168.2.0/24 }',
                        post='oifname "wan" snat ip prefix to ip saddr map { 192.168.1.0/24 : 198.51.100.0/24 }'))
    assert lab.send("lan", f.udp_packet("192.168.1.13", IP4.wan, 4000, 53)) == [
        lab.down("wan", f.udp_packet("198.51.100.13", IP4.wan, 4000, 53, ttl=63))]
    assert lab.send("wan", f.udp_packet(IP4.wan, "198.51.100.14", 4000, 53)) == [
        lab.down("dmz", f.udp_packet(IP4.wan, "192.168.2.14", 4000, 53, ttl=63))]


def test_inet_table_translates_both_families(lab: Lab) -> None:
    lab.router.load("""table inet nat {
        chain pre { type nat hook prerouting priority dstnat;
            iifname "wan" tcp dport 80 dnat ip to 192.168.2.10
            iifname "wan" tcp dport 80 dnat ip6 to fd00:2::10; }
        chain post { type nat hook postrouting priority srcnat; oifname "wan" masquerade; }
    }""")
    for fam in EACH:
        assert lab.send("lan", f.udp_packet(fam.lan, fam.wan, 4000, 53)) == [
            lab.down("wan", f.udp_packet(fam.out, fam.wan, 4000, 53, ttl=63))]
        assert lab.send("wan", f.tcp_packet(fam.wan, fam.out, 4000, 80)) == [
            lab.down("dmz", f.tcp_packet(fam.wan, fam.dmz, 4000, 80, ttl=63))]


@each
def test_hairpin_within_one_network(lab: Lab, fam: Family) -> None:
    """A lan client reaches a lan server by the router's outside address; both directions pass the router."""
    server, router = fam.host("lan", 11), fam.host("lan", 1)
    lab.router.load(nat(fam, pre=f"{fam.name} daddr {fam.out} tcp dport 80 dnat to {server}",
                        post=f"{fam.name} saddr {fam.net('lan')} {fam.name} daddr {fam.net('lan')} masquerade"))
    assert lab.send("lan", f.tcp_packet(fam.lan, fam.out, 5000, 80)) == [
        lab.down("lan", f.tcp_packet(router, server, 5000, 80, ttl=63))]
    assert lab.send("lan", f.tcp_packet(server, router, 80, 5000, f.SYN | f.ACK, ack=1001)) == [
        lab.down("lan", f.tcp_packet(fam.out, fam.lan, 80, 5000, f.SYN | f.ACK, ack=1001, ttl=63))]


@each
def test_hairpin_between_networks_with_both_translations(lab: Lab, fam: Family) -> None:
    lab.router.load(nat(fam, pre=f"{fam.name} daddr {fam.out} tcp dport 80 dnat to {at(fam.dmz, 81)}",
                        post='oifname { "wan", "dmz" } masquerade'))
    inner = fam.host("dmz", 1)
    assert lab.send("lan", f.tcp_packet(fam.lan, fam.out, 5000, 80)) == [
        lab.down("dmz", f.tcp_packet(inner, fam.dmz, 5000, 81, ttl=63))]
    assert lab.send("dmz", f.tcp_packet(fam.dmz, inner, 81, 5000, f.RST | f.ACK, ack=1001)) == [
        lab.down("lan", f.tcp_packet(fam.out, fam.lan, 80, 5000, f.RST | f.ACK, ack=1001, ttl=63))]


@pytest.mark.own_numbers
def test_a_connection_without_a_rule_still_protects_its_tuple(lab: Lab) -> None:
    """The null mapping: a masqueraded flow that would clash with the router's neighbour's own flow moves aside."""
    lab.router.load(nat(IP4, post='ip saddr 192.168.1.10 snat to 192.168.2.10'))
    assert sport(lab.send("dmz", f.udp_packet(IP4.dmz, IP4.wan, 5000, 53))) == 5000
    moved = lab.send("lan", f.udp_packet(IP4.lan, IP4.wan, 5000, 53))
    assert moved[0].packet[12:16] == f.addr(IP4.dmz) and sport(moved) != 5000


def test_udp_checksums_through_nat(lab: Lab) -> None:
    """RFC 768, RFC 3022 4.1: a zero stays zero, a computed zero is sent as 0xffff."""
    lab.router.load(nat(IP4, post='oifname "wan" snat to 203.0.113.77'))
    [none] = lab.send("lan", f.ip4(IP4.lan, IP4.wan, f.UDP, f.udp(IP4.lan, IP4.wan, 1, 2, b"no", check=0)))
    assert none.packet[26:28] == b"\0\0"
    for fill in range(65536):  # a payload whose translated checksum computes to zero
        body = f.udp("203.0.113.77", IP4.wan, 3, 4, fill.to_bytes(2, "big"))
        if body[6:8] == b"\xff\xff":
            break
    [full] = lab.send("lan", f.udp_packet(IP4.lan, IP4.wan, 3, 4, fill.to_bytes(2, "big")))
    assert full == lab.down("wan", f.udp_packet("203.0.113.77", IP4.wan, 3, 4, fill.to_bytes(2, "big"), ttl=63))


def test_a_wrong_checksum_is_invalid_and_not_translated(lab: Lab) -> None:
    lab.router.load(nat(IP4, post='oifname "wan" masquerade') +
                    "table ip t { chain c { type filter hook forward priority 0; ct state invalid counter; } \n}")
    bad = f.ip4(IP4.lan, IP4.wan, f.UDP, f.udp(IP4.lan, IP4.wan, 1, 2, b"bad", check=0x1234))
    [out] = lab.send("lan", bad)
    assert out.packet[12:16] == f.addr(IP4.lan) and out.packet[20:] == bad[20:]
    assert lab.router.counters()["ip t c #1"][0] == 1


def test_other_protocols_are_translated_by_address(lab: Lab) -> None:
    lab.router.load(nat(IP4, post='oifname "wan" masquerade'))
    for proto in (50, 99):
        assert lab.send("lan", f.ip4(IP4.lan, IP4.wan, proto, b"some payload")) == [
            lab.down("wan", f.ip4(IP4.out, IP4.wan, proto, b"some payload", ttl=63))]
        assert lab.send("wan", f.ip4(IP4.wan, IP4.out, proto, b"back")) == [
            lab.down("lan", f.ip4(IP4.wan, IP4.lan, proto, b"back", ttl=63))]


def test_listing_of_nat_rules_comes_back_as_written(lab: Lab) -> None:
    lab.router.load(nat(IP4, post='oifname "wan" masquerade fully-random\n'
                                  'snat to 203.0.113.80-203.0.113.90 persistent'))
    text = lab.router.nft("list", "chain", "ip", "nat", "post")
    assert re.search(r'oifname "wan" masquerade fully-random', text)
    assert re.search(r"snat to 203\.0\.113\.80-203\.0\.113\.90 persistent", text)
