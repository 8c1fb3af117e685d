"""Netdev chains with `flags offload` as eBPF on a running gateway: what they drop never reaches the daemon, and rules count it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab import netns
from lab.wire import Wire
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Raw
from test_hardware_chains import ping, userfw
from test_offload import KERNEL, Offload, until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespace tests run as root")

CHAIN = """table netdev hardware { chain in {
    type filter hook ingress device "lan" priority 10; flags offload;
    %s
}
}
"""
FLOOD = "udp dport 9 counter drop"
XDP = '[offload]\nxdp = ["lan", "wan"]\n'
EDGES = {"tc": ("tc", ""), "tc from now on": ("socket", ""), "xdp": ("socket", XDP), "xdp socket": ("", "")}


class Ends:
    """Both hosts' wires, and the frames between them."""

    def __init__(self, lab: Offload) -> None:
        self.lab = lab
        until(lambda: ping(lab))
        self.host, self.server = Wire(lab.client, "eth0"), Wire(lab.server, "eth0")
        self.mac = {p["name"]: p["mac"] for p in lab.ask("ports")}
        self.arrived: list[Any] = []

    def frame(self, port: int, number: int = 0, vlan: int = 0) -> bytes:
        link: Any = Ether(src="02:00:00:00:00:02", dst=self.mac["lan"])
        if vlan:
            link /= Dot1Q(vlan=vlan)
        ip = IP(src="192.168.1.77", dst="203.0.113.9") / UDP(sport=4000, dport=port) / Raw(number.to_bytes(4, "big") * 8)
        return bytes(link / ip)

    def send(self, port: int, count: int = 1, vlan: int = 0) -> int:
        """Send frames; the bytes of one's network layer."""
        for number in range(count):
            self.host.send(self.frame(port, number, vlan))
        return len(self.frame(port)) - 14

    def look(self) -> list[Any]:
        """The UDP packets that came to the server so far."""
        self.arrived += [ether for ether in map(Ether, self.server.receive()) if ether.haslayer(UDP) and ether[UDP].sport == 4000]
        return self.arrived

    def ports(self) -> list[int]:
        return [ether[UDP].dport for ether in self.look()]

    def close(self) -> None:
        self.host.close()
        self.server.close()


def commit(lab: Offload, *rules: str) -> None:
    code, said = userfw(lab, "nft", "-f", "-", text=CHAIN % "\n".join(rules))
    assert code == 0, said


def filters(lab: Offload) -> list[tuple[int, int]]:
    return [(row["packets"], row["bytes"]) for row in lab.ask("offload")["filters"]]


@pytest.fixture
def lab(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Offload]:
    capture, extra = EDGES[getattr(request, "param", "tc")]
    made = Offload(tmp_path, capture=capture or "socket", extra=extra)
    if not capture:
        made.kind = "xdp"
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("lab", EDGES, indirect=True)
def test_what_is_dropped_never_reaches_the_daemon(lab: Offload) -> None:
    assert "ready" in lab.start()
    ends = Ends(lab)
    try:
        commit(lab, FLOOD)
        before = lab.ask("status")["packets"]
        size = ends.send(9, 500)
        ends.send(10, 5)
        until(lambda: ends.ports().count(10) == 5)
        until(lambda: filters(lab) == [(500, 500 * size)])
        assert 9 not in ends.ports() and lab.ask("status")["packets"] - before < 50
        assert f"counter packets 500 bytes {500 * size} drop" in userfw(lab, "nft", "list", "ruleset")[1]
        assert lab.ask("offload")["filters"][0]["driver"] == "bpf" and lab.ask("offload")["filters_dropped"] == 500
        assert userfw(lab, "nft", "delete", "table", "netdev", "hardware")[0] == 0
        assert lab.kind == "xdp" or "xdp" not in netns.run(["ip", "link"], ns=lab.router).stdout
        ends.send(9, 5)
        until(lambda: ends.ports().count(9) == 5)
    finally:
        ends.close()


@pytest.mark.parametrize("lab", ["tc", "xdp"], indirect=True)
def test_no_packet_meets_half_a_list(lab: Offload) -> None:
    """Rules come and go while packets arrive that every list drops: none gets through, and each is counted."""
    assert "ready" in lab.start()
    ends = Ends(lab)
    try:
        commit(lab, FLOOD)
        sent = 0
        for round in range(12):
            ends.send(9, 40)
            sent += 40
            rule = f"insert rule netdev hardware in ip saddr 10.9.9.{round} drop\n"
            assert userfw(lab, "nft", "-f", "-", text=rule)[0] == 0
        ends.send(10)
        until(lambda: 10 in ends.ports())
        assert 9 not in ends.ports()
        assert len(filters(lab)) == 13
        listed = userfw(lab, "nft", "list", "ruleset")[1]
        assert f"udp dport 9 counter packets {sent} bytes" in listed
    finally:
        ends.close()


def test_tags_beside_the_frame(lab: Offload) -> None:
    assert "ready" in lab.start()
    ends = Ends(lab)
    try:
        commit(lab, "vlan id 7 ip daddr 203.0.113.9 counter drop", "vlan id 8 udp dport 9 counter accept", FLOOD)
        for vlan, count in ((7, 3), (8, 4), (9, 5), (0, 6)):
            size = ends.send(9, count, vlan)
        until(lambda: filters(lab) == [(3, 3 * size), (4, 4 * size), (11, 11 * size)])
        assert not ends.ports()
    finally:
        ends.close()


def test_forward_and_copy_at_tc(lab: Offload) -> None:
    """`fwd` sends the frame as it is; `dup` a copy of it, and the frame goes its way."""
    assert "ready" in lab.start()
    ends = Ends(lab)
    try:
        commit(lab, 'ip protocol udp udp dport 9 fwd to "wan"', 'udp dport 10 dup to "wan"')
        ends.send(9, 3)
        ends.send(10, 2)
        until(lambda: sorted(ends.ports()) == [9] * 3 + [10] * 4)
        as_sent = [ether for ether in ends.look() if ether.dst == ends.mac["lan"]]
        assert [bytes(ether) for ether in as_sent] == [ends.frame(9, i) for i in range(3)] + [ends.frame(10, i) for i in range(2)]
        routed = [ether for ether in ends.look() if ether.dst != ends.mac["lan"]]
        assert [(ether[IP].ttl, ether[IP].src) for ether in routed] == [(63, "203.0.113.1")] * 2, (
            "the copy's mark is the copy's own"
        )
    finally:
        ends.close()


def test_forward_to_a_vlan_device_puts_its_tag_on(tmp_path: Path) -> None:
    """At tc as in software; a copy is refused with the rule."""
    lab = Offload(tmp_path, vlan='[[port.vlan]]\nname = "lan20"\nid = 20\n')
    anew = "table netdev hardware\ndelete table netdev hardware\n"
    rule = CHAIN % 'udp dport 9 fwd to "lan20"'
    try:
        assert "ready" in lab.start()
        ends = Ends(lab)
        try:
            for text, filters_there in ((rule, 1), (rule.replace("flags offload;", ""), 0)):
                assert userfw(lab, "nft", "-f", "-", text=anew + text)[0] == 0
                assert len(lab.ask("offload")["filters"]) == filters_there
                list(ends.host.receive())
                ends.send(9)
                found: list[bytes] = []

                def came(found: list[bytes] = found) -> bool:
                    found += [frame for frame in ends.host.receive() if frame[12:16] == b"\x81\0\0\x14"]
                    return bool(found)

                until(came)
                assert found == [ends.frame(9, vlan=20)]
        finally:
            ends.close()
        code, said = userfw(lab, "nft", "-f", "-", text=anew + rule.replace("fwd", "dup"))
        assert code == 1 and "`dup` to a VLAN device has no hardware form" in said and "udp dport 9 dup" in said
    finally:
        lab.close()


@pytest.mark.parametrize("lab", ["xdp"], indirect=True)
@pytest.mark.parametrize("gro", ["off", "on"])
def test_what_xdp_cannot_is_refused_with_the_rule(lab: Offload, gro: str) -> None:
    """Generic XDP forwards from a veth; native XDP there would send checksums that nobody completed."""
    for ns in (lab.client, lab.server):
        netns.run(["ethtool", "-K", "eth0", "gro", gro], ns=ns)
    assert "ready" in lab.start()
    ends = Ends(lab)
    try:
        commit(lab, FLOOD)
        for rule, words in {
            'udp dport 10 dup to "wan"': "XDP cannot copy a frame",
            "vlan id 7 drop": "tags stand beside the frame",
        }.items():
            code, said = userfw(lab, "nft", "-f", "-", text=f"add rule netdev hardware in {rule}\n")
            assert code == 1 and f"device lan: {words}" in said and rule in said
        code, said = userfw(lab, "nft", "-f", "-", text='add rule netdev hardware in udp dport 11 fwd to "wan"\n')
        if gro == "on" and KERNEL >= (6, 3):
            assert code == 1 and "native XDP on veth cannot complete checksums" in said
        else:
            assert code == 0, said
            ends.send(11, 3)
            until(lambda: ends.ports().count(11) == 3)
            assert all(ether.dst == ends.mac["lan"] for ether in ends.look())
        ends.send(9, 4)
        until(lambda: filters(lab)[0][0] == 4)
    finally:
        ends.close()


@pytest.mark.skipif(KERNEL < (6, 6), reason="a filter of clsact goes with the next start only: test_flower.py")
@pytest.mark.parametrize("lab", ["tc", "xdp"], indirect=True)
def test_nothing_drops_after_sigkill(lab: Offload) -> None:
    assert "ready" in lab.start()
    until(lambda: ping(lab))
    commit(lab, "ip protocol icmp counter drop")
    assert not ping(lab)
    assert lab.process is not None
    lab.process.send_signal(signal.SIGKILL)
    lab.process.wait()
    netns.ip(lab.router, "addr add 192.168.1.1/24 dev lan")
    until(lambda: netns.run(["ping", "-c1", "-W1", "192.168.1.1"], ns=lab.client, check=False).returncode == 0)
    assert "xdp" not in netns.run(["ip", "link"], ns=lab.router).stdout


def test_an_interface_that_is_made_anew_gets_its_filters(lab: Offload) -> None:
    assert "ready" in lab.start()
    until(lambda: ping(lab))
    commit(lab, "ip protocol icmp counter drop")
    netns.ip(lab.router, "link del lan")
    netns.ip(lab.client, f"link add eth0 type veth peer name lan netns {lab.router}", "addr add 192.168.1.2/24 dev eth0")
    netns.ip(lab.client, "link set eth0 up")
    netns.ip(lab.router, "link set lan up")
    netns.ip(lab.client, "route add default via 192.168.1.1")
    until(lambda: not ping(lab) and any(packets for packets, _ in filters(lab)))
    assert userfw(lab, "nft", "delete", "table", "netdev", "hardware")[0] == 0
    until(lambda: ping(lab))


def test_the_verifiers_log_is_told_and_the_old_list_stays(lab: Offload) -> None:
    (lab.folder / "sitecustomize.py").write_text(
        "import userfw_hw.bpf.filters as f\n"
        "whole = f._compare\n"
        "f._compare = lambda p, test, no: p.mov(0, 5) if test.value == bytes([6, 6, 6, 6]) else whole(p, test, no)\n"
    )
    os.environ["USERFW_TEST_PATH"] = str(lab.folder)
    try:
        assert "ready" in lab.start()
    finally:
        del os.environ["USERFW_TEST_PATH"]
    ends = Ends(lab)
    try:
        commit(lab, FLOOD)
        code, said = userfw(lab, "nft", "-f", "-", text="add rule netdev hardware in ip saddr 6.6.6.6 drop\n")
        assert code == 1 and "the kernel refused the program userfw_tc" in said and "R5 !read_ok" in said
        ends.send(9, 3)
        until(lambda: [packets for packets, _ in filters(lab)] == [3])
        assert "6.6.6.6" not in userfw(lab, "nft", "list", "ruleset")[1] and not ends.ports()
    finally:
        ends.close()


def test_the_rules_are_there_from_the_start(lab: Offload) -> None:
    """In the ruleset that the daemon starts with, and gone from the interface when it stops."""
    import test_offload

    rules = test_offload.RULES
    test_offload.RULES = rules + CHAIN % "ip protocol icmp counter drop"
    try:
        assert "ready" in lab.start()
    finally:
        test_offload.RULES = rules
    assert not ping(lab)
    until(lambda: filters(lab)[0][0] > 0)
    assert lab.process is not None
    lab.process.terminate()
    assert lab.process.wait(10) == 0
    netns.ip(lab.router, "addr add 192.168.1.1/24 dev lan")
    until(lambda: netns.run(["ping", "-c1", "-W1", "192.168.1.1"], ns=lab.client, check=False).returncode == 0)
