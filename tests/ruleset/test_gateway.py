"""A ruleset in a gateway: what packets meet is what was committed, and state outlives unrelated commits."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6

from tests.router.router_lab import Lab
from userfw.core.const import NF_INET_FORWARD, NF_INET_POST_ROUTING, NF_INET_PRE_ROUTING, NFPROTO_IPV4, NFPROTO_IPV6
from userfw.engine.fingerprint import Fingerprints
from userfw.ruleset.manager import RulesetManager
from userfw.ruleset.options import Options
from userfw.ruleset.service import NftService


class Rules(Lab):
    """A lab whose gateway runs a ruleset."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rules = RulesetManager(self.gw)
        self.run(text)

    def run(self, text: str) -> str:
        result = self.rules.execute(text)
        assert result.status == 0, result.errors
        return result.output

    def udp(self, dport: int, sport: int = 1000, src: str = "192.0.2.10", dst: str = "198.51.100.10") -> int:
        """Frames that came out of wan for one datagram from lan."""
        self.send(IP(src=src, dst=dst) / UDP(sport=sport, dport=dport) / (b"x" * 10))
        return len(self.out())


FILTER = """
table inet f {
  set ports { type inet_service; elements = { 53, 123 }
  }
  counter all { }
  chain c { type filter hook forward priority 0; policy drop
    counter name all
    udp dport @ports counter accept
    udp dport vmap { 1 : jump one, 2 : drop }
  }
  chain one { counter accept
  }
}
"""


def test_rules_decide() -> None:
    lab = Rules(FILTER)
    assert [lab.udp(port) for port in (53, 123, 1, 2, 3)] == [1, 1, 1, 0, 0]
    listing = lab.run("list ruleset")
    assert "counter all {\n\t\tpackets 5" in listing
    assert "udp dport @ports counter packets 2 bytes 76 accept" in listing
    assert lab.drops() == {"RULE": 1, "POLICY": 1}


def test_state_outlives_unrelated_commits() -> None:
    lab = Rules(FILTER)
    lab.udp(53)
    lab.run("add rule inet f c udp dport 99 accept\ninsert rule inet f one return\nadd table ip other")
    assert lab.udp(99) == 1
    listing = lab.run("list chain inet f c")
    assert "udp dport @ports counter packets 1 bytes 38 accept" in listing
    assert "packets 2" in lab.run("list counters")


def test_element_changes_are_seen_by_packets() -> None:
    lab = Rules(FILTER)
    assert lab.udp(7) == 0
    lab.run("add element inet f ports { 7 }")
    assert lab.udp(7) == 1
    lab.run("delete element inet f ports { 7, 53 }")
    assert [lab.udp(7), lab.udp(53), lab.udp(123)] == [0, 0, 1]
    lab.run("flush set inet f ports")
    assert lab.udp(123) == 0


def test_a_failed_transaction_leaves_packets_alone() -> None:
    lab = Rules(FILTER)
    pipeline = lab.gw.pipeline
    result = lab.rules.execute("flush chain inet f c\nadd element inet f ports { 7 }\ndelete chain inet f nope")
    assert result.status == 1 and "No such file" in result.errors
    assert lab.gw.pipeline is pipeline
    assert [lab.udp(53), lab.udp(7)] == [1, 0]


def test_check_only_changes_nothing() -> None:
    lab = Rules(FILTER)
    result = lab.rules.execute("flush ruleset", Options(check=True))
    assert result.status == 0 and lab.udp(3) == 0


def test_policy_and_dormant() -> None:
    lab = Rules(FILTER)
    lab.run("add chain inet f c { type filter hook forward priority 0; policy accept; }")
    assert lab.udp(3) == 1
    lab.run("add chain inet f c { type filter hook forward priority 0; policy drop; }")
    lab.run("add table inet f { flags dormant; }")
    assert lab.udp(3) == 1
    lab.run("add table inet f")
    assert lab.udp(3) == 0


def test_of_equal_priorities_the_newest_runs_first() -> None:
    """Linux 6.18: a chain registered later stands before those of its priority."""
    lab = Rules("table ip a { chain c { type filter hook forward priority 0; meta mark set 1; }; }")
    lab.run("table ip b { chain c { type filter hook forward priority 0; meta mark 1 counter; }; }")
    lab.run("table ip d { chain c { type filter hook forward priority 1; meta mark 1 counter; }; }")
    lab.udp(1)
    assert "counter packets 0" in lab.run("list table ip b")
    assert "counter packets 1" in lab.run("list table ip d")


def test_no_rule_that_needs_it_no_conntrack() -> None:
    lab = Rules("table inet n { chain p { type nat hook postrouting priority srcnat; }; }")
    assert not lab.gw.pipeline.tracked
    assert lab.gw.pipeline.get(NFPROTO_IPV4, NF_INET_POST_ROUTING) is None
    lab.run("add rule inet n p oifname wan masquerade")
    assert lab.gw.pipeline.tracked
    names = [type(entry).__name__ for entry in lab.gw.pipeline.get(NFPROTO_IPV4, NF_INET_PRE_ROUTING).entries]
    assert names == ["Defrag", "ConntrackIn", "NatEntry"]
    names = [type(entry).__name__ for entry in lab.gw.pipeline.get(NFPROTO_IPV6, NF_INET_POST_ROUTING).entries]
    assert names == ["NatEntry", "Confirm"]
    assert lab.gw.pipeline.get(NFPROTO_IPV4, NF_INET_FORWARD) is None
    lab.run("flush chain inet n p")
    assert not lab.gw.pipeline.tracked


@pytest.mark.parametrize(
    "body",
    ["synproxy a { mss 1460; wscale 7; }", "ct timeout a { protocol tcp; policy = { close: 12 }; }",
     'ct helper a { type "ftp" protocol tcp; }'],
)  # fmt: skip
def test_what_an_object_switches_on_by_being_there(body: str) -> None:
    lab = Rules(f"table ip n {{ {body}; }}")
    assert lab.gw.pipeline.tracked
    lab.run(f"delete {body.partition(' a ')[0]} ip n a")
    assert not lab.gw.pipeline.tracked


def test_families_have_their_own_conntrack() -> None:
    lab = Rules("table ip6 t { chain c { type filter hook forward priority 0; ct state new counter; }; }")
    assert lab.gw.pipeline.get(NFPROTO_IPV4, NF_INET_PRE_ROUTING) is None
    assert lab.gw.pipeline.get(NFPROTO_IPV6, NF_INET_PRE_ROUTING) is not None
    lab.send(IPv6(src="2001:db8:1::10", dst="2001:db8:2::10") / UDP(sport=1, dport=2))
    assert "counter packets 1" in lab.run("list ruleset")


def test_stateful_filter() -> None:
    lab = Rules("""
table inet f {
  chain c { type filter hook forward priority 0; policy drop
    ct state established,related counter accept
    iifname "lan" ct state new counter accept
  }
}""")
    assert lab.udp(53) == 1
    lab.send(IP(src="198.51.100.10", dst="192.0.2.10") / UDP(sport=53, dport=1000), "wan")
    assert len(lab.out("lan")) == 1
    lab.send(IP(src="198.51.100.10", dst="192.0.2.10") / UDP(sport=53, dport=1001), "wan")
    assert lab.out("lan") == []


def test_dynamic_set() -> None:
    lab = Rules("""
table ip t {
  set seen { type ipv4_addr . inet_service; size 100; flags dynamic,timeout; timeout 10s
  }
  chain c { type filter hook forward priority 0
    update @seen { ip saddr . udp dport counter }
    ip saddr . udp dport @seen meta mark set 1
  }
}""")
    lab.udp(53)
    lab.udp(53)
    listing = lab.run("list set ip t seen")
    # a lookup counts in the element too (Linux: nft_lookup_eval, nft_set_elem_update_expr)
    assert "192.0.2.10 . 53 counter packets 4 bytes 152 expires 10s" in listing
    lab.run("add element ip t seen { 192.0.2.10 . 53 timeout 10s, 192.0.2.11 . 1 timeout 10s }")
    listing = lab.run("list set ip t seen")
    assert "192.0.2.11 . 1 expires 10s" in listing and "192.0.2.10 . 53 counter packets 4 bytes 152 expires 10s" in listing
    lab.clock.now += 4 * 10**9
    lab.run("add rule ip t c accept")
    assert "expires 6s" in lab.run("list set ip t seen")
    lab.clock.now += 7 * 10**9
    assert "elements" not in lab.run("list set ip t seen")
    lab.udp(53)
    lab.run("delete element ip t seen { 192.0.2.10 . 53 }")
    assert "elements" not in lab.run("list set ip t seen")
    result = lab.rules.execute("delete element ip t seen { 192.0.2.10 . 53 }")
    assert result.status == 1


def test_netdev_chains_follow_devices() -> None:
    chain = 'type filter hook ingress devices = { "lan", "late*" } priority 0; udp dport 9 drop'
    lab = Rules(f"table netdev t {{ chain c {{ {chain}; }}; }}")
    assert lab.lan.ingress is not None and lab.wan.ingress is None
    assert [lab.udp(9), lab.udp(10)] == [0, 1]
    lab.run("delete table netdev t")
    assert lab.lan.ingress is None
    assert lab.udp(9) == 1


def test_reset_gives_the_old_values() -> None:
    lab = Rules(FILTER)
    lab.udp(53)
    assert "packets 1" in lab.run("reset counters")
    assert "packets 0" in lab.run("list counters")
    assert "counter packets 1" in lab.run("reset rules inet f c")
    assert "counter packets 0 bytes 0 accept" in lab.run("list chain inet f c")


def test_tcp_of_a_jump_into_an_anonymous_chain() -> None:
    rules = "tcp dport 80 jump { counter drop; }; counter accept"
    lab = Rules(f"table ip t {{ chain c {{ type filter hook forward priority 0; {rules}; }}; }}")
    lab.send(IP(src="192.0.2.10", dst="198.51.100.10") / TCP(dport=80))
    lab.send(IP(src="192.0.2.10", dst="198.51.100.10") / TCP(dport=81))
    assert len(lab.out()) == 1
    listing = lab.run("list ruleset")
    assert "counter packets 1 bytes 40 drop" in listing and "counter packets 1 bytes 40 accept" in listing


@pytest.mark.parametrize("text", ["list ruleset", "list chain inet f c", "list hooks"])
def test_listing_with_traffic_never_fails(text: str) -> None:
    lab = Rules(FILTER)
    lab.udp(53)
    assert lab.run(text)


FLOWS = """
table inet f {
  flowtable ft { hook ingress priority 0; devices = { "lan", "wan" }
  }
  chain c { type filter hook forward priority 0
    udp dport 53 flow add @ft
    counter accept
  }
}
"""


def test_flowtable() -> None:
    lab = Rules(FLOWS)
    back = IP(src="198.51.100.10", dst="192.0.2.10") / UDP(sport=53, dport=1000)
    table = lab.lan.flowtable
    assert table is not None and lab.wan.flowtable is table
    lab.udp(53)
    lab.send(back, "wan")
    assert lab.udp(53) == 1
    listing = lab.run("list ruleset")
    lab.udp(53)
    lab.send(back, "wan")
    assert lab.run("list ruleset") == listing, "the rules saw packets of an offloaded flow"
    assert table.forwarded == 2 and table.count
    lab.run("flush chain inet f c\ndelete flowtable inet f ft")
    assert table.count == 0 and lab.lan.flowtable is None


def test_devices_of_a_flowtable_come_and_go() -> None:
    lab = Rules(FLOWS)
    lab.run('delete flowtable inet f ft { hook ingress priority 0; devices = { "wan" }; }')
    assert lab.wan.flowtable is None and lab.lan.flowtable is not None
    lab.run('add flowtable inet f ft { hook ingress priority 0; devices = { "wan" }; }')
    assert lab.wan.flowtable is lab.lan.flowtable


def test_nat_both_ways() -> None:
    lab = Rules("""
table inet n {
  map ports { type inet_service : ipv4_addr . inet_service; elements = { 8080 : 192.0.2.10 . 80 }
  }
  chain pre { type nat hook prerouting priority dstnat
    iifname "wan" dnat ip to tcp dport map @ports
  }
  chain post { type nat hook postrouting priority srcnat
    oifname "wan" counter masquerade
  }
}""")
    lab.send(IP(src="192.0.2.10", dst="198.51.100.10") / UDP(sport=1000, dport=53))
    sent = lab.one()
    assert (sent[IP].src, sent[UDP].sport) == ("198.51.100.1", 1000)
    lab.send(IP(src="198.51.100.10", dst="198.51.100.1") / UDP(sport=53, dport=1000), "wan")
    assert lab.one("lan")[IP].dst == "192.0.2.10"
    lab.send(IP(src="198.51.100.10", dst="198.51.100.1") / TCP(sport=5, dport=8080), "wan")
    arrived = lab.one("lan")
    assert (arrived[IP].dst, arrived[TCP].dport) == ("192.0.2.10", 80)
    assert "counter packets 1" in lab.run("list ruleset")


def test_trace() -> None:
    lab = Rules("""
table ip t {
  chain f { type filter hook forward priority 0; policy drop
    ip protocol udp meta nftrace set 1
    udp dport 53 jump c
    udp dport 5 meta mark set 7
    udp dport 7 accept
  }
  chain c { counter
    return
  }
}""")
    texts: list[str] = []
    stop = NftService(lab.rules).monitor({"objects": "trace"}, lambda message: texts.append(message["text"]))
    lab.udp(53)
    lines = "".join(texts).splitlines()
    ident = lines[0].split()[2]
    head = f"trace id {ident} ip t"
    assert lines[0].startswith(
        f'{head} f packet: iif "lan" oif "wan" ether saddr 02:00:00:00:01:10 ether daddr 02:00:00:00:00:01 ip saddr 192.0.2.10 '
        "ip daddr 198.51.100.10 ip dscp cs0 ip ecn not-ect ip ttl 63 ip id 1 ip length 38 "
        "udp sport 1000 udp dport 53 udp length 18 "
    )
    assert lines[1:] == [
        f"{head} f rule ip protocol udp meta nftrace set 1 (verdict continue)",
        f"{head} f rule udp dport 53 jump c (verdict jump c)",
        f"{head} c rule counter packets 1 bytes 38 (verdict continue)",
        f"{head} c rule return (verdict return)",
        f"{head} f policy drop ",
    ]
    texts.clear()
    lab.udp(5)
    assert "".join(texts).splitlines()[-1].endswith(" f policy drop meta mark 0x00000007 ")
    texts.clear()
    stop()
    lab.udp(7)
    assert texts == [] and lab.gw.trace is None


def test_writing_a_ct_key_is_enough_to_track() -> None:
    """Linux: nft_ct_set_init asks for conntrack as nft_ct_get_init does."""
    lab = Rules("table inet t { chain c { type filter hook forward priority 0; ct mark set 7\n }\n }\n")
    lab.udp(53)
    assert lab.gw.conntrack.count == 1


def test_what_can_never_match_is_loaded_with_a_warning() -> None:
    lab = Rules("table inet t { chain c { type filter hook input priority 0\n}\n}")
    result = lab.rules.execute("add rule inet t c ipsec in reqid 1 counter accept")
    assert result.status == 0 and "reqid 1" in lab.run("list ruleset")
    assert result.errors.splitlines()[0].endswith("Warning: `ipsec` matches nothing: userfw has no IPsec")
    assert "^^^" in result.errors


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ("meta sdif lan", "no VRF"), ('meta sdifname "vrf0"', "no VRF"), ("meta ipsec exists", "no IPsec"),
        ("rt ipsec exists", "no IPsec"),
        ("meta rtclassid 5", "no realms"), ("rt classid 5", "no realms"), ("socket transparent 1", "port of type `tun`"),
        ("meta skuid 0", "port of type `tun`"), ("meta skgid 0", "port of type `tun`"), ("meta cgroup 5", "port of type `tun`"),
        ("meta priority set 5", "later rules only"),
        ('osf name "Linux"', "no file of fingerprints"), ("tcp dport 5 tproxy ip to :5", "port of type `tun`"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_told_with_its_place(rule: str, why: str) -> None:
    lab = Rules("table inet t { chain c { type filter hook prerouting priority 0\n}\n}")
    if rule.startswith(("rt", "meta sdif")):
        lab.run("delete chain inet t c\nadd chain inet t c { type filter hook forward priority 0; }")
    result = lab.rules.execute(f"add rule inet t c {rule}")
    assert result.status == 0 and "Warning: " in result.errors and why in result.errors and "^^^" in result.errors, result.errors


def test_osf_with_fingerprints() -> None:
    lab = Rules("table ip t { chain c { type filter hook prerouting priority 0\n}\n}")
    lab.gw.fingerprints = Fingerprints(["S4:64:1:60:M*,S,T,N,W0:Linux:2.4::Linux 2.4"])
    assert lab.rules.execute('add rule ip t c osf name "Linux" counter').errors == ""
    options = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (1, 0)), ("NOP", None), ("WScale", 0)]
    for window in (5840, 5841):
        syn = TCP(dport=1, flags="S", window=window, options=options)
        lab.send(IP(src="192.0.2.10", dst="198.51.100.10", flags="DF", ttl=64) / syn)
    assert "counter packets 1 " in lab.run("list ruleset")


def test_a_tunnel_object_cannot_be_used() -> None:
    lab = Rules("table netdev t { tunnel y { id 10\nip saddr 1.1.1.1\nip daddr 2.2.2.2\nsport 10\ndport 20\n}\n"
                "chain c { type filter hook ingress device lan priority 0\n}\n}")  # fmt: skip
    result = lab.rules.execute('add rule netdev t c tunnel name "y"')
    assert result.status == 1 and "userfw has no tunnel devices" in result.errors


def test_a_destination_that_input_rewrote_is_not_answered_from() -> None:
    """No packet leaves from an address that is not the gateway's (Linux: ip_route_output_key_hash_rcu)."""
    lab = Rules("table ip t {\n chain i { type filter hook input priority 0\n ip daddr set 198.51.100.10\n}\n}")
    lab.send(IP(src="192.0.2.10", dst="192.0.2.1") / TCP(sport=1, dport=2, flags="S"))
    assert lab.out("lan") == lab.out("wan") == []


def test_an_error_about_a_source_that_input_translated_goes_back() -> None:
    """It is translated at output and routed anew (Linux: nf_nat_ipv4_local_fn)."""
    lab = Rules("table ip t {\n chain i { type nat hook input priority 100\n snat to 198.51.100.10\n}\n}")
    lab.send(IP(src="192.0.2.10", dst="192.0.2.1") / UDP(sport=1000, dport=2000) / b"x")
    assert lab.out("wan") == []
    (answer,) = lab.out("lan")
    assert answer[IP].dst == "192.0.2.10" and answer[IP].payload.type == 3


def test_connections_only_where_there_are_any() -> None:
    lab = Rules("table netdev t {\n chain c { type filter hook ingress device lan priority 0\n notrack\n}\n}")
    helper = 'add ct helper netdev t h { type "ftp" protocol tcp; }'
    for text in ("add rule netdev t c ct state new", "add rule netdev t c ct count 3", helper):
        assert "Protocol error" in lab.rules.execute(text).errors


SERVICES = """
table ip services {
  map ports { type inet_proto . inet_service : ipv4_addr . inet_service
    elements = { udp . 2222 : 198.51.100.10 . 22, tcp . 2222 : 198.51.100.10 . 23 }
  }
  chain c { type nat hook prerouting priority dstnat
    dnat ip addr . port to meta l4proto . th dport map @ports
  }
}
"""


def test_a_map_by_protocol_and_port_gives_address_and_port() -> None:
    """As systemd-networkd and kube-proxy write it."""
    lab = Rules(SERVICES)
    lab.send(IP(src="192.0.2.10", dst="192.0.2.1") / UDP(sport=1000, dport=2222) / b"x")
    assert (lab.one()[IP].dst, lab.run("list ruleset").count("meta l4proto . th dport map @ports")) == ("198.51.100.10", 1)
    lab.send(IP(src="192.0.2.10", dst="192.0.2.1") / TCP(sport=1000, dport=2222, flags="S"))
    assert lab.one()[TCP].dport == 23


@pytest.mark.parametrize(("rule", "sent"), [('dup to "wan"', 4), ('fwd to "wan"', 0)])
def test_egress_rules_that_send_to_their_own_device_end(rule: str, sent: int) -> None:
    """Three deep (Linux: NF_RECURSION_LIMIT), then the copy is no more."""
    lab = Rules(f'table netdev t {{\n chain e {{ type filter hook egress device "wan" priority 0;\n {rule}\n }}\n}}\n')
    assert lab.udp(53) == sent


def test_a_routed_copy_is_copied_at_egress_like_any_packet() -> None:
    lab = Rules("""table netdev t { chain e { type filter hook egress device "wan" priority 0; dup to "wan"; }; }
        table ip u { chain c { type filter hook forward priority 0; dup to 198.51.100.10; drop; }; }""")
    assert lab.udp(53) == 4


def test_hooks_are_listed_for_the_devices_that_a_wildcard_stands_for() -> None:
    lab = Rules("""table netdev n {
  chain w { type filter hook ingress devices = { "la*", absent } priority 5
    counter
  }
}
table inet t {
  flowtable f { hook ingress priority 0
    devices = { "*" }
  }
}
""")
    assert lab.run("list hooks netdev device lan") == (
        "family netdev {\n\thook ingress device lan {\n"
        "\t\t 0000000000 flowtable inet t f [nf_tables]\n\t\t+0000000005 chain netdev n w [nf_tables]\n\t}\n}\n"
    )
    assert "chain netdev n w" not in lab.run("list hooks netdev device wan")
    assert "absent" not in lab.run("list hooks") and lab.udp(5) == 1
    assert "counter packets 1" in lab.run("list chain netdev n w")
