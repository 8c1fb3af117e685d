"""Queues in a gateway with rules: who gets packets, what becomes of them, and where they go on (Linux: nfnetlink_queue.c)."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether

from tests.ruleset.test_gateway import Rules
from userfw.core.const import VNET_F_NEEDS_CSUM, VNET_GSO_TCPV4
from userfw.router.queue import QueuedPacket

RULES = """
table inet q {
  counter behind { }
  counter again { }
  chain first { type filter hook forward priority 0
    counter name again
    meta mark 7 accept
    udp dport 53 queue num 5
    udp dport 54 queue flags bypass to 5
    tcp dport 80 queue num 5
  }
  chain second { type filter hook forward priority 10
    counter name behind
  }
}
"""


def count(lab: Rules, name: str) -> int:
    return int(lab.run(f"list counter inet q {name}").split("packets ")[1].split()[0])


def test_nobody_listens() -> None:
    lab = Rules(RULES)
    assert (lab.udp(53), lab.udp(54), lab.udp(55)) == (0, 1, 1)
    assert lab.drops() == {"QUEUE": 1} and count(lab, "behind") == 2


def test_at_once() -> None:
    """A verdict within the call: the packet goes on with the chain behind."""
    lab = Rules(RULES)
    seen: list[dict[str, object]] = []

    def listener(packet: QueuedPacket) -> None:
        seen.append(packet.describe())
        packet.set_mark(9)
        packet.accept()

    lab.gw.queues.bind(5, listener)
    assert lab.udp(53) == 1 and count(lab, "behind") == 1
    assert (seen[0]["iif"], seen[0]["oif"], seen[0]["hook"], seen[0]["mac"]) == ("lan", "wan", 2, "02:00:00:00:01:10")


def test_later_and_dropped() -> None:
    lab = Rules(RULES)
    held: list[QueuedPacket] = []
    lab.gw.queues.bind(5, held.append)
    assert lab.udp(53) == 0 == count(lab, "behind") and lab.udp(53) == 0
    held[1].drop()
    held[0].accept()
    lab.gw.end_batch()
    assert len(lab.out()) == 1 and count(lab, "behind") == 1 and count(lab, "again") == 2
    assert lab.drops() == {"QUEUE_VERDICT": 1}
    with pytest.raises(LookupError):
        held[0].accept()


def test_another_payload() -> None:
    lab = Rules(RULES)
    held: list[QueuedPacket] = []
    lab.gw.queues.bind(5, held.append)
    lab.udp(53)
    packet = IP(held[0].payload)
    packet[UDP].remove_payload()
    packet[UDP].add_payload(b"something else, and longer")
    del packet.len, packet.chksum, packet[UDP].len, packet[UDP].chksum
    held[0].set_payload(bytes(packet))
    held[0].accept()
    lab.gw.end_batch()
    out = lab.one()
    assert bytes(out[UDP].payload) == b"something else, and longer" and out[IP].ttl == 63
    lab.udp(53)
    held[1].set_payload(b"no packet at all")
    held[1].accept()
    assert lab.drops() == {"MALFORMED": 1}


def test_repeat_comes_to_the_same_chain() -> None:
    lab = Rules(RULES)
    calls: list[int] = []

    def listener(packet: QueuedPacket) -> None:
        calls.append(packet.id)
        if len(calls) == 3:
            packet.set_mark(7)
        packet.repeat()

    lab.gw.queues.bind(5, listener)
    sent = lab.udp(53)
    lab.advance(0.001)
    assert sent + len(lab.out()) == 1 and calls == [0, 1, 2]
    assert count(lab, "again") == 4 and count(lab, "behind") == 1


def test_full_and_fail_open() -> None:
    lab = Rules(RULES)
    queue = lab.gw.queues.bind(5, lambda packet: None, length=2)
    assert [lab.udp(53) for _ in range(4)] == [0, 0, 0, 0]
    assert lab.drops() == {"QUEUE_FULL": 2} and queue.full == 2
    assert lab.udp(54) == 0  # bypass is for queues without a listener
    lab.gw.queues.unbind(5)
    assert lab.drops() == {"QUEUE_FULL": 3, "QUEUE": 2}
    queue = lab.gw.queues.bind(5, lambda packet: None, length=1, fail_open=True)
    assert [lab.udp(53) for _ in range(2)] == [0, 1]
    assert queue.accepted_full == 1 and count(lab, "behind") == 1


def test_a_chain_that_is_gone() -> None:
    lab = Rules(RULES)
    held: list[QueuedPacket] = []
    lab.gw.queues.bind(5, held.append)
    lab.udp(53)
    lab.udp(53)
    lab.run("add rule inet q second accept")
    held[0].accept()
    lab.gw.end_batch()
    assert len(lab.out()) == 1
    lab.run("flush chain inet q first; delete chain inet q first")
    held[1].accept()
    lab.gw.end_batch()
    assert not lab.out() and lab.drops() == {"QUEUE": 1}


def test_a_device_that_goes_down() -> None:
    lab = Rules(RULES)
    lab.gw.queues.bind(5, lambda packet: None)
    lab.udp(53)
    lab.gw.set_up(lab.wan, False)
    assert lab.drops() == {"QUEUE": 1}


def test_to_another_queue_and_nowhere() -> None:
    lab = Rules(RULES)
    held: list[QueuedPacket] = []
    lab.gw.queues.bind(5, held.append)
    lab.gw.queues.bind(6, lambda packet: packet.accept())
    lab.udp(53)
    held[0].requeue(6)
    lab.gw.end_batch()
    assert len(lab.out()) == 1
    lab.udp(53)
    held[1].requeue(7)
    assert lab.drops() == {"QUEUE": 1}


def test_a_listener_that_fails() -> None:
    lab = Rules(RULES)

    def listener(packet: QueuedPacket) -> None:
        raise RuntimeError("no")

    queue = lab.gw.queues.bind(5, listener)
    lab.gw.fault = None
    assert lab.udp(53) == 0 and queue.lost == 1 and lab.gw.faults == {"queue listener: RuntimeError": 1}
    assert lab.drops() == {"QUEUE_VERDICT": 1}


@pytest.mark.parametrize("gso", [False, True])
def test_large_packets(gso: bool) -> None:
    """Cut into frames with whole checksums, unless the listener takes them whole."""
    lab = Rules(RULES)
    held: list[QueuedPacket] = []
    lab.gw.queues.bind(5, held.append, gso=gso)
    frame = Ether(dst="02:00:00:00:00:01", src="02:00:00:00:01:10") / IP(src="192.0.2.10", dst="198.51.100.10") / TCP(
        sport=1, dport=80, flags="A") / bytes(3000)  # fmt: skip
    pkt = lab.ports["lan"].inject(bytes(frame))
    pkt.vnet_flags, pkt.gso_type, pkt.gso_size, pkt.csum_start, pkt.csum_offset = VNET_F_NEEDS_CSUM, VNET_GSO_TCPV4, 1400, 34, 16
    lab.gw.receive(pkt)
    assert [p.length for p in held] == ([3040] if gso else [1440, 1440, 240])
    if not gso:
        for packet in held:
            fixed = IP(packet.payload)
            del fixed[TCP].chksum
            assert bytes(IP(bytes(fixed))) == packet.payload
    for packet in held:
        packet.accept()
    lab.gw.end_batch()
    assert len(lab.out()) == (1 if gso else 3)


def test_output_routes_again_when_the_listener_changes_the_mark() -> None:
    lab = Rules("table ip q { chain o { type filter hook output priority 0; icmp type echo-reply queue num 1; }\n}")
    held: list[QueuedPacket] = []
    lab.gw.queues.bind(1, held.append)
    from scapy.layers.inet import ICMP

    lab.send(IP(src="192.0.2.10", dst="192.0.2.1") / ICMP(id=1))
    held[0].set_mark(5)
    held[0].accept()
    lab.gw.end_batch()
    assert len(lab.out("lan")) == 1
