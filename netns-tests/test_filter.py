"""Filtering: verdicts, policies, order of chains, connection state, marks, counters, sets and maps."""

import pytest
from lab import frames as f
from lab.families import EACH, IP4, Family
from lab.rules import forward
from lab.topology import Lab

STATEFUL = """
table inet filter {
  chain forward {
    type filter hook forward priority 0; policy drop;
    ct state established,related counter accept
    ct state invalid counter drop
    iifname "lan" oifname "wan" counter accept
    counter
  }
}"""
CHAIN = "type filter hook forward priority"

each = pytest.mark.parametrize("fam", EACH, ids=str)


@each
def test_stateful_policy_lets_replies_in_and_nothing_else(lab: Lab, fam: Family) -> None:
    lab.router.load(STATEFUL)
    ask = f.udp_packet(fam.lan, fam.wan, 4000, 53)
    assert lab.send("lan", ask) == [lab.down("wan", f.udp_packet(fam.lan, fam.wan, 4000, 53, ttl=63))]
    answer = f.udp_packet(fam.wan, fam.lan, 53, 4000, b"answer")
    assert lab.send("wan", answer) == [lab.down("lan", f.udp_packet(fam.wan, fam.lan, 53, 4000, b"answer", ttl=63))]
    assert lab.send("wan", f.udp_packet(fam.wan, fam.lan, 53, 4001)) == []
    assert lab.send("dmz", f.udp_packet(fam.dmz, fam.wan, 53, 4001)) == []
    counters = lab.router.counters()
    size = len(answer)
    assert [counters[f"inet filter forward #{n}"] for n in (1, 2, 3, 4)] == [
        (1, size), (0, 0), (1, len(ask)), (2, 2 * len(ask))]
    conns = lab.router.conns()
    assert [(c.proto, c.original[:2], c.flags) for c in conns] == [
        ("udp", (f"src={fam.lan}", f"dst={fam.wan}"), frozenset())]
    assert conns[0].counts == ((1, len(ask)), (1, size))


@each
def test_a_dropped_first_packet_leaves_no_entry(lab: Lab, fam: Family) -> None:
    lab.router.load(forward("ct state new udp dport 9 drop"))
    assert lab.send("lan", f.udp_packet(fam.lan, fam.wan, 4000, 9)) == []
    assert lab.router.conns() == []


def test_without_rules_that_need_it_nothing_is_tracked(lab: Lab) -> None:
    lab.router.load(forward("udp dport 53 counter"))
    assert len(lab.send("lan", f.udp_packet(IP4.lan, IP4.wan, 4000, 53))) == 1
    assert lab.router.conns() == []


def test_an_empty_nat_chain_tracks_nothing(lab: Lab) -> None:
    lab.router.load("table ip n { chain p { type nat hook postrouting priority 100; }\n }")
    assert len(lab.send("lan", f.udp_packet(IP4.lan, IP4.wan, 4000, 53))) == 1
    assert lab.router.conns() == []


def test_chains_run_in_priority_order_and_accept_ends_only_one(lab: Lab) -> None:
    lab.router.load(f"""table inet t {{
        chain late {{ {CHAIN} 10; udp dport 2 counter drop; counter; }}
        chain early {{ {CHAIN} -10; udp dport 1 counter drop; udp dport 2 counter accept; udp dport 2 counter; }}
    }}""")
    assert lab.send("lan", f.udp_packet(IP4.lan, IP4.wan, 4000, 1)) == []
    assert lab.send("lan", f.udp_packet(IP4.lan, IP4.wan, 4000, 2)) == []
    assert len(lab.send("lan", f.udp_packet(IP4.lan, IP4.wan, 4000, 3))) == 1
    counts = {place: packets for place, (packets, _) in lab.router.counters().items()}
    assert counts == {"inet t early #1": 1, "inet t early #2": 1, "inet t early #3": 0,
                      "inet t late #1": 1, "inet t late #2": 1}


@pytest.mark.parametrize("apart", [False, True])
def test_at_equal_priority_the_chain_registered_last_runs_first(lab: Lab, apart: bool) -> None:
    """Linux: nf_hook_entries_grow inserts before the first hook whose priority is not lower."""
    first, second = (f"table inet t {{\nchain {name} {{ {CHAIN} 0; {rules}; }}\n}}\n"
                     for name, rules in (("b", "meta mark 1 counter drop"), ("a", "meta mark set 1")))
    lab.router.load(first if apart else first + second)
    if apart:
        lab.router.nft("-f", "-", text=second)
    assert lab.send("lan", f.udp_packet(IP4.lan, IP4.wan, 4000, 1)) == []


def test_jump_returns_and_goto_does_not(lab: Lab) -> None:
    lab.router.load(f"""table inet t {{
        chain leaf {{ udp dport 1 return; udp dport 2 accept; counter; }}
        chain jumped {{ jump leaf; counter; }}
        chain gone {{ goto leaf; counter; }}
        chain top {{ {CHAIN} 0; policy drop;
            udp sport 10 jump jumped
            udp sport 20 jump gone
            udp sport 30 goto gone
            counter accept
        }}
    }}""")
    passed = {(s, d): len(lab.send("lan", f.udp_packet(IP4.lan, IP4.wan, s, d)))
              for s in (10, 20, 30) for d in (1, 2, 3)}
    assert passed == {(10, 1): 1, (10, 2): 1, (10, 3): 1, (20, 1): 1, (20, 2): 1, (20, 3): 1,
                      (30, 1): 0, (30, 2): 1, (30, 3): 0}
    counts = {place: packets for place, (packets, _) in lab.router.counters().items()}
    assert counts == {"inet t leaf #1": 3, "inet t jumped #1": 2, "inet t gone #1": 0, "inet t top #1": 4}


def test_statements_run_left_to_right_and_a_failed_match_stops_the_rule(lab: Lab) -> None:
    lab.router.load(forward("meta mark set 7 meta mark 7 counter\nudp dport 9 counter meta mark set 8\n"
                            "meta mark 8 drop"))
    assert len(lab.send("lan", f.udp_packet(IP4.lan, IP4.wan, 1, 8))) == 1
    assert lab.send("lan", f.udp_packet(IP4.lan, IP4.wan, 1, 9)) == []


def test_loads_beyond_the_packet_break_the_rule(lab: Lab) -> None:
    lab.router.load(forward("@th,160,32 != 0xffffffff counter drop\nicmp type echo-request @th,64,8 0x75 counter drop"))
    assert len(lab.send("lan", f.udp_packet(IP4.lan, IP4.wan, 1, 2, b"short"))) == 1
    assert lab.send("lan", f.udp_packet(IP4.lan, IP4.wan, 1, 2, b"long enough to be loaded")) == []
    assert lab.send("lan", f.ping(IP4.lan, IP4.wan, payload=b"u" + bytes(3))) == []


@each
def test_sets_maps_and_verdict_maps(lab: Lab, fam: Family) -> None:
    kind = "ipv6_addr" if fam.name == "ip6" else "ipv4_addr"
    net = fam.net("dmz")
    lab.router.load(forward(
        f"{fam.name} saddr @bad counter drop\n"
        f"meta l4proto . th dport {{ tcp . 22, udp . 5353 }} counter drop\n"
        "meta mark set udp dport map @marks\nmeta mark 0x10 counter\n"
        "udp dport vmap @v\n"
        f"{fam.name} daddr . udp dport vmap {{ {fam.dmz} . 100-200 : drop }}",
        f"set bad {{ type {kind}; flags interval; "
        f"elements = {{ {fam.host('lan', 12)}-{fam.host('lan', 14)}, {net} }}; }}\n"
        "map marks { type inet_service : mark; elements = { 53 : 0x10, 54 : 0x11 }; }\n"
        "map v { type inet_service : verdict; elements = { 53 : accept, 54 : drop, 55 : jump other }; }\n"
        "chain other { udp sport 1 counter drop; }"))

    def passes(src: str, dst: str, sport: int, dport: int) -> bool:
        return bool(lab.send("lan", f.udp_packet(src, dst, sport, dport)))
    assert not passes(fam.host("lan", 13), fam.wan, 2, 53)
    assert passes(fam.host("lan", 15), fam.wan, 2, 53)
    assert not passes(fam.dmz, fam.wan, 2, 53)
    assert not passes(fam.lan, fam.wan, 2, 5353)
    assert not passes(fam.lan, fam.wan, 2, 54)
    assert not passes(fam.lan, fam.wan, 1, 55) and passes(fam.lan, fam.wan, 2, 55)
    assert not passes(fam.lan, fam.dmz, 2, 150) and passes(fam.lan, fam.dmz, 2, 201)
    assert lab.send("lan", f.tcp_packet(fam.lan, fam.wan, 2, 22)) == []
    lab.router.nft("add", "element", "inet", "t", "v", "{ 201 : drop }")
    assert not passes(fam.lan, fam.dmz, 2, 201)
    lab.router.nft("delete", "element", "inet", "t", "v", "{ 201 }")
    assert passes(fam.lan, fam.dmz, 2, 201)


def test_dynamic_set_with_a_limit_of_its_own_per_element(lab: Lab) -> None:
    lab.router.load(forward("udp dport 7 update @seen { ip saddr limit rate over 2/hour burst 2 packets } counter drop",
                            "set seen { type ipv4_addr; flags dynamic,timeout; size 2; timeout 1h; }"))
    for number, passed in ((10, [1, 1, 0, 0]), (11, [1, 1, 0, 0]), (12, [1, 1, 1, 1])):  # the set is full for the third
        got = [len(lab.send("lan", f.udp_packet(IP4.host("lan", number), IP4.wan, 1, 7))) for _ in range(4)]
        assert got == passed, number


def test_limit_is_one_bucket_and_over_inverts_it(lab: Lab) -> None:
    lab.router.load(forward("udp dport 1 limit rate 1/hour burst 3 packets counter accept\nudp dport 1 counter drop\n"
                            "udp dport 2 limit rate over 1/hour burst 2 packets counter drop"))
    assert [len(lab.send("lan", f.udp_packet(IP4.lan, IP4.wan, n, 1))) for n in range(5)] == [1, 1, 1, 0, 0]
    assert [len(lab.send("lan", f.udp_packet(IP4.lan, IP4.wan, n, 2))) for n in range(4)] == [1, 1, 0, 0]


def test_quota_counts_network_layer_bytes(lab: Lab) -> None:
    lab.router.load(forward("udp dport 1 quota until 100 bytes counter accept\nudp dport 1 counter drop"))
    assert [len(lab.send("lan", f.udp_packet(IP4.lan, IP4.wan, 1, 1, bytes(12)))) for _ in range(4)] == [1, 1, 0, 0]


@each
def test_notrack_packets_have_no_entry(lab: Lab, fam: Family) -> None:
    lab.router.load("""table inet t {
        chain raw { type filter hook prerouting priority raw; udp dport 53 notrack; }
        chain c { type filter hook forward priority 0; policy accept;
            ct state untracked counter ct mark set 1
            ct state new counter
            ct state invalid counter
        }
    }""")
    lab.send("lan", f.udp_packet(fam.lan, fam.wan, 4000, 53), f.udp_packet(fam.lan, fam.wan, 4000, 54))
    counts = {place: packets for place, (packets, _) in lab.router.counters().items()}
    assert counts == {"inet t c #1": 1, "inet t c #2": 1, "inet t c #3": 0}
    assert [c.original[3] for c in lab.router.conns()] == ["dport=54"]


def test_connection_mark_and_packet_mark(lab: Lab) -> None:
    lab.router.load(forward("ct state new udp dport 53 ct mark set 0x2a\nct mark 0x2a counter\n"
                            "ct direction reply meta mark set ct mark\nct direction reply meta mark 0x2a counter"))
    lab.send("lan", f.udp_packet(IP4.lan, IP4.wan, 4000, 53))
    lab.send("wan", f.udp_packet(IP4.wan, IP4.lan, 53, 4000))
    assert {p for p, _ in lab.router.counters().values()} == {2, 1}
    assert [c.mark for c in lab.router.conns()] == [0x2A]


def test_header_fields_are_written_with_their_checksums(lab: Lab) -> None:
    lab.router.load("""table inet m { chain c { type filter hook forward priority mangle;
        ip dscp set cs1 udp dport set 99
        ip6 hoplimit set 9
        tcp option maxseg size set 1200
    }\n}""")
    [out] = lab.send("lan", f.udp_packet(IP4.lan, IP4.wan, 4000, 53))
    want = f.ip4(IP4.lan, IP4.wan, f.UDP, f.udp(IP4.lan, IP4.wan, 4000, 99, b"payload"), ttl=63, tos=0x20)
    assert out == lab.down("wan", want)
    [out] = lab.send("lan", f.tcp_packet("fd00:1::10", "2001:db8:3::10", 1, 2, options=bytes.fromhex("020405b4")))
    assert out == lab.down("wan", f.tcp_packet("fd00:1::10", "2001:db8:3::10", 1, 2, ttl=9,
                                               options=bytes.fromhex("020404b0")))


@pytest.mark.own_numbers
def test_a_written_port_and_a_udp_checksum_of_zero(lab: Lab) -> None:
    """nft before 1.1 has the kernel update the sum blindly (csum_type inet), later ones leave a zero alone (csum_flags)."""
    lab.router.load("table ip m { chain c { type filter hook forward priority mangle; udp dport set 99; }\n}")
    [out] = lab.send("lan", f.ip4(IP4.lan, IP4.wan, f.UDP, f.udp(IP4.lan, IP4.wan, 4000, 53, b"x", check=0)))
    sums = (0, 53 - 99 + 0xFFFF) if lab.router.kind == "kernel" else (0,)
    wants = [f.udp(IP4.lan, IP4.wan, 4000, 99, b"x", check=check) for check in sums]
    assert out in [lab.down("wan", f.ip4(IP4.lan, IP4.wan, f.UDP, want, ttl=63)) for want in wants]


def test_a_changed_ruleset_applies_to_the_next_packet_and_a_failed_one_changes_nothing(lab: Lab) -> None:
    lab.router.load(forward("udp dport 1 drop"))
    before = lab.router.nft("list", "ruleset")
    complaint = lab.router.nft("-f", "-", text="flush ruleset\nadd rule inet nothere c accept\n", check=False)
    assert "nothere" in complaint
    assert lab.router.nft("list", "ruleset") == before
    assert lab.send("lan", f.udp_packet(IP4.lan, IP4.wan, 1, 1)) == []
    lab.router.nft("flush", "chain", "inet", "t", "c")
    assert len(lab.send("lan", f.udp_packet(IP4.lan, IP4.wan, 1, 1))) == 1


def test_prerouting_input_and_netdev_ingress_hooks_see_what_is_theirs(lab: Lab) -> None:
    lab.router.load("""table netdev n { chain i { type filter hook ingress device "lan" priority 0;
            ip protocol udp udp dport 1 counter drop; ether type arp accept; ip protocol udp counter; } \n}
        table inet t {
        chain pre { type filter hook prerouting priority 0; meta l4proto udp counter; }
        chain in { type filter hook input priority 0; meta l4proto udp counter drop; }
        chain forw { type filter hook forward priority 0; meta l4proto udp counter; }
        chain post { type filter hook postrouting priority 0; meta l4proto udp counter; }\n}""")
    assert lab.send("lan", f.udp_packet(IP4.lan, IP4.wan, 1, 1)) == []
    assert len(lab.send("lan", f.udp_packet(IP4.lan, IP4.wan, 1, 2))) == 1
    assert lab.send("lan", f.udp_packet(IP4.lan, IP4.host("lan", 1), 1, 2)) == []
    counts = {place: packets for place, (packets, _) in lab.router.counters().items()}
    assert counts == {"netdev n i #1": 1, "netdev n i #2": 2, "inet t pre #1": 2, "inet t in #1": 1,
                      "inet t forw #1": 1, "inet t post #1": 1}


def test_ct_count_counts_the_live_connections_of_a_key(lab: Lab) -> None:
    lab.router.load(forward("udp dport 7 ct count over 2 counter drop\nudp dport 8 add @per { ip saddr ct count over 1 } drop",
                            "set per { type ipv4_addr; flags dynamic; size 16; }"))
    assert [len(lab.send("lan", f.udp_packet(IP4.lan, IP4.wan, n, 7))) for n in (1, 2, 3)] == [1, 1, 0]
    got = [len(lab.send("lan", f.udp_packet(IP4.host("lan", n), IP4.wan, port, 8))) for n in (10, 11) for port in (1, 2)]
    assert got == [1, 0, 1, 0]
