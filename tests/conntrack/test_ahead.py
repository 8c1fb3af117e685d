"""Looking ahead changes nothing: batches through tables that look ahead end as the same packets do without."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from bench.engine import FLOWTABLE, MASQUERADE, TEN_RULES, Bench, datagram, ipv6, reply
from userfw.conntrack.ahead import ConnAhead
from userfw.core.packet import Packet
from userfw.ports.memory import MemoryPort

OUTSIDE = "203.0.113.1"
REWRITES = """table ip early { chain c { type filter hook prerouting priority raw; udp sport < 1100 udp sport set 4321
    udp sport > 1190 ct zone set 5
}
}
"""
RULESETS = {
    "pipeline": TEN_RULES + MASQUERADE,
    "flowtable": TEN_RULES + MASQUERADE + FLOWTABLE,
    "packets change before conntrack": REWRITES + TEN_RULES + MASQUERADE,
    "no conntrack": "table ip f { chain c { type filter hook forward priority 0; udp dport 9 drop\n}\n}",
}


def world(rules: str, looking: bool) -> tuple[Bench, dict[str, MemoryPort]]:
    bench = Bench(rules)
    ports = {name: MemoryPort(device) for name, device in bench.devices.items()}
    pipeline = bench.gateway.pipeline
    tables: list[Any] = [pipeline.ahead] if pipeline is not None and pipeline.ahead is not None else []
    tables += [device.flowtable.ahead for device in bench.devices.values() if device.flowtable is not None]
    for table in tables:
        table.many = 0 if looking else 1 << 60
    return bench, ports


def traffic(rng: Random, frames: int) -> list[tuple[str, bytes]]:
    """New and known flows, answers to them, and what no table has: IPv6, fragments, cut and broken frames."""
    result = []
    for _ in range(frames):
        source, port = 0x0A020001 + rng.randrange(3), 1024 + rng.randrange(200)
        frame = datagram(source, port)
        kind = rng.randrange(12)
        if kind < 3:
            result.append(("wan", reply(OUTSIDE, port)))
            continue
        if kind == 3:
            frame = ipv6()
        elif kind == 4:
            frame = frame[: rng.randrange(len(frame))]
        elif kind == 5:
            data = bytearray(frame)
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            frame = bytes(data)
        elif kind == 6:
            frame = frame[:20] + b"\x20\x00" + frame[22:]  # more fragments
        result.append(("lan", frame))
    return result


def run(rules: str, looking: bool) -> tuple[object, ...]:
    bench, ports = world(rules, looking)
    rng = Random(7)
    slots = [Packet() for _ in range(130)]
    left = traffic(Random(5), 3000)
    dropped = 0
    while left:
        n = min(rng.choice((1, 2, 63, 64, 65, 130)), len(left))
        for i in range(n):
            name, frame = left.pop()
            slots[i].load_frame(frame)
            slots[i].iif = bench.devices[name]
        dropped += bench.gateway.receive_batch(slots, n)
        bench.gateway.end_batch()
        bench.clock.now += 1_000_000
    assert not bench.faults
    counters = [(d.rx_packets, d.rx_bytes, d.tx_packets, d.tx_bytes) for d in bench.devices.values()]
    flows = [device.flowtable.forwarded for device in bench.devices.values() if device.flowtable is not None]
    sent = {name: port.take() for name, port in ports.items()}
    return sent, dropped, counters, flows, bench.conns.count, bench.gateway.drop_counts()


@pytest.mark.parametrize("rules", RULESETS)
def test_a_batch_ends_the_same(rules: str) -> None:
    looked, plain = run(RULESETS[rules], True), run(RULESETS[rules], False)
    assert looked == plain
    assert len(looked[0]["wan"]) > 500  # type: ignore[index]


def test_a_device_that_is_down_and_a_missing_one() -> None:
    bench, _ = world(TEN_RULES, True)
    bench.once([datagram(0x0A020001, 2000 + n) for n in range(64)])
    slots = [Packet() for _ in range(3)]
    for slot in slots:
        slot.load_frame(datagram(0x0A020001, 2000))
    slots[0].iif = bench.devices["lan"]
    slots[1].iif = bench.devices["wan"]
    bench.devices["wan"].up = False
    assert bench.gateway.receive_batch(slots, 3) == 3  # the first has nowhere to go, the second's device is down


def test_the_tuple_is_left_for_conntrack() -> None:
    bench, _ = world(TEN_RULES, True)
    frames = [datagram(0x0A020001, 2000 + n) for n in range(64)]
    bench.once(frames)
    ahead = ConnAhead(bench.conns)
    ahead.many = 1
    if not ahead.useful():
        pytest.skip("interpreted: nothing looks ahead")
    port = bench.port(frames)
    port.receive(bench.slots, 64)
    for pkt in bench.slots:
        pkt.l3, pkt.l4, pkt.nfproto, pkt.l4proto, pkt.has_l4 = pkt.start + 14, pkt.start + 34, 2, 17, True
    assert ahead.look(bench.slots, 0, 64) == 64
    assert [pkt.ahead for pkt in bench.slots] == list(range(64))
    key = bench.conns.keys[5]
    found = bench.conns.find(key)
    assert found is not None and found.sport == 2005 and found.hash == key.hash
    changed = bench.conns.find_ahead(key, 6)  # another packet's tuple is not believed
    assert changed is not None and changed.sport == 2005
