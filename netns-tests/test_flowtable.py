"""The flowtable beside the pipeline: the same frames, byte for byte, whichever way a packet takes.

The running kernel may have no flowtables: then its side is skipped here, and test_vm.py runs both on a kernel that has them.
"""

from collections.abc import Iterator

import pytest
from lab import frames as f
from lab.families import EACH, IP4, Family
from lab.topology import Lab, Out

each = pytest.mark.parametrize("fam", EACH, ids=str)
RULES = """table inet gateway {
    %s
    chain forward { type filter hook forward priority filter; policy accept;
        %s
        ct state established counter
    }
    chain pre { type nat hook prerouting priority dstnat; iifname "wan" udp dport 80 dnat ip to 192.168.2.10:8080; }
    chain post { type nat hook postrouting priority srcnat; oifname "wan" masquerade; }
}
"""
FLOWTABLE = "flowtable fast { hook ingress priority filter; devices = { lan, dmz, wan, edge }; }"
ENTER = "meta l4proto { tcp, udp } ct state established flow add @fast"


@pytest.fixture
def flows(lab: Lab) -> Iterator[Lab]:
    """The laboratory if its router has flowtables."""
    said = lab.router.nft("-f", "-", text=f"table inet probe {{ {FLOWTABLE}\n}}\n", check=False)
    if "rror" in said:
        pytest.skip(f"no flowtables in this kernel: {said.splitlines()[0]}")
    lab.router.load("")
    yield lab


def both(lab: Lab, talk: list[tuple[str, bytes]]) -> list[Out]:
    """The frames of a dialogue through pipeline and flowtable, which must be equal; the flowtable's are returned."""
    results = []
    for rules in (RULES % ("", ""), RULES % (FLOWTABLE, ENTER)):
        lab.router.load(rules)
        results.append([out for at, packet in talk for out in lab.send(at, packet)])
    assert results[1] == results[0]
    return results[1]


def offloaded(lab: Lab) -> bool:
    """Is the only connection in the flowtable?"""
    [conn] = lab.router.conns()
    return "OFFLOAD" in conn.flags


@each
def test_udp_through_masquerade(flows: Lab, fam: Family) -> None:
    there, back = f.udp_packet(fam.lan, fam.wan, 4000, 53), f.udp_packet(fam.wan, fam.out, 53, 4000, b"answer")
    assert len(both(flows, [("lan", there), ("wan", back)] * 4)) == 8
    assert offloaded(flows)
    assert flows.router.counters()["inet gateway forward #1"][0] < 4  # the pipeline saw the first packets only


def test_udp_through_a_port_forward(flows: Lab) -> None:
    there, back = f.udp_packet(IP4.wan, IP4.out, 4000, 80), f.udp_packet(IP4.dmz, IP4.wan, 8080, 4000, b"answer")
    assert len(both(flows, [("wan", there), ("dmz", back)] * 3)) == 6
    assert offloaded(flows)


@each
def test_tcp_from_handshake_to_close(flows: Lab, fam: Family) -> None:
    def up(flags: int, seq: int, ack: int, data: bytes = b"") -> tuple[str, bytes]:
        return "lan", f.tcp_packet(fam.lan, fam.wan, 4000, 80, flags, seq, ack, data)

    def down(flags: int, seq: int, ack: int, data: bytes = b"") -> tuple[str, bytes]:
        return "wan", f.tcp_packet(fam.wan, fam.out, 80, 4000, flags, seq, ack, data)
    talk = [up(f.SYN, 1000, 0), down(f.SYN | f.ACK, 5000, 1001), up(f.ACK, 1001, 5001)]
    talk += [up(f.ACK | f.PSH, 1001 + 100 * n, 5001, bytes(100)) for n in range(3)]
    talk += [down(f.ACK | f.PSH, 5001 + 100 * n, 1301, bytes(100)) for n in range(3)]
    assert len(both(flows, talk)) == 9 and offloaded(flows)
    close = [up(f.FIN | f.ACK, 1301, 5301), down(f.FIN | f.ACK, 5301, 1302), up(f.ACK, 1302, 5302)]
    assert len(both(flows, talk + close)) == 12
    assert not offloaded(flows)  # a FIN hands the connection back


def test_what_the_flowtable_declines_takes_the_pipeline(flows: Lab) -> None:
    """TTL 1, a fragment, options, more than the MTU with DF: as the pipeline does it."""
    there, back = f.udp_packet(IP4.lan, IP4.edge, 4000, 53), f.udp_packet(IP4.edge, IP4.lan, 53, 4000, b"answer")
    odd = [
        f.udp_packet(IP4.lan, IP4.edge, 4000, 53, ttl=1),
        f.ip4(IP4.lan, IP4.edge, f.UDP, f.udp(IP4.lan, IP4.edge, 4000, 53, b"options"), options=b"\1\1\1\0"),
        f.ip4(IP4.lan, IP4.edge, f.UDP, f.udp(IP4.lan, IP4.edge, 4000, 53, bytes(1400)), df=True),
        *f.fragments4(f.udp_packet(IP4.lan, IP4.edge, 4000, 53, bytes(1000)), 512),
    ]
    talk = [("lan", there), ("edge", back)] * 3 + [("lan", packet) for packet in odd]
    results = []
    for rules in (RULES % ("", ""), RULES % (FLOWTABLE, ENTER)):
        flows.router.load(rules)
        results.append([(out.port, out.frame[:18], out.frame[26:]) for at, packet in talk
                        for out in flows.send(at, packet)])  # without the identification of the router's own errors
    assert results[1] == results[0] and len(results[0]) == 6 + 5


def test_a_changed_ruleset_ends_the_fast_path(flows: Lab) -> None:
    flows.router.load(RULES % (FLOWTABLE, ENTER))
    there, back = f.udp_packet(IP4.lan, IP4.wan, 4000, 53), f.udp_packet(IP4.wan, IP4.out, 53, 4000, b"answer")
    for at, packet in [("lan", there), ("wan", back)] * 3:
        assert len(flows.send(at, packet)) == 1
    assert offloaded(flows)
    flows.router.nft("flush", "ruleset")
    flows.router.nft("-f", "-", text="table ip t { chain c { type filter hook forward priority 0; policy drop; }\n}\n")
    assert flows.send("lan", there) == []
