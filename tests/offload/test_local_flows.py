"""Connections of the gateway's own services as flows: one lookup, NAT, and to the TUN device or to the wire; manual clock."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from card_lab import raw
from local_lab import MACS, PEER, LocalLab
from scapy.all import IP, TCP, UDP

from userfw.core.const import NFPROTO_IPV4, VNET_F_NEEDS_CSUM

NONE: tuple[str, ...] = ()


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("proto", [TCP, UDP])
@pytest.mark.parametrize("where", [("input",), ("output",), ("input", "output")], ids="+".join)
def test_both_directions_leave_the_pipeline(family: int, proto: object, where: tuple[str, ...]) -> None:
    lab = LocalLab(where)
    lab.start(proto, family=family)
    assert lab.say(True, family=family, proto=proto)  # where only output has the rule, it makes the flow
    assert lab.fast(family=family, proto=proto) and lab.fast(True, family=family, proto=proto)
    assert lab.say(family=family, proto=proto) == {"host0": [lab.packet(family=family, proto=proto)[14:]]}
    link = raw(PEER) + raw(MACS["wan"]) + (b"\x08\x00" if family == 4 else b"\x86\xdd")
    own = lab.packet(True, family=family, proto=proto)
    assert lab.say(True, family=family, proto=proto) == {"wan": [link + own]}  # TTL and all


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("dport", [53, 5353], ids=["plain", "redirected"])
def test_byte_for_byte_as_the_pipeline(family: int, dport: int) -> None:
    rng = Random(7)
    fast, slow = LocalLab(), LocalLab(NONE)
    protocols = (UDP,) if dport != 53 else (TCP, UDP)
    for proto in protocols:
        for lab in (fast, slow):
            lab.start(proto, family=family, dport=dport)
        for _ in range(150):
            back = rng.random() < 0.5
            made = {"proto": proto, "family": family, "data": rng.randbytes(rng.choice((0, 1, 7, 100, 1400, 1600))),
                    "ttl": rng.choice((1, 2, 64, 255)), "dport": dport}  # fmt: skip
            frame, at = fast.packet(back, **made), "host0" if back else "wan"
            results = [lab.send(frame, at) for lab in (fast, slow)]
            assert strip(results[0]) == strip(results[1]), made
    assert fast.seen() > 100 and slow.seen() == 0
    for device in fast.gateway.devices.values():
        other = slow.gateway.names[device.name]
        for name in ("rx_packets", "tx_packets", "rx_bytes", "tx_bytes"):
            assert getattr(device, name) == getattr(other, name), (device.name, name)
    counts = [sorted((list(c.packets), list(c.bytes)) for c in lab.assembly.conntrack.members(0, 0)) for lab in (fast, slow)]
    assert counts[0] == counts[1]  # the flowtable counts
    assert fast.gateway.local.delivered == slow.gateway.local.delivered


def strip(out: dict[str, list[bytes]]) -> dict[str, list[bytes]]:
    """Without the identification of the gateway's own ICMP errors."""
    return {name: [f[:18] + f[20:24] + f[26:] if f[12:14] == b"\x08\x00" and f[23] == 1 else f for f in frames]
            for name, frames in out.items()}  # fmt: skip


def test_large_sends_and_unfinished_checksums_pass_whole() -> None:
    lab = LocalLab()
    lab.start(TCP)
    pkt = lab.slots[0]
    pkt.load_frame(lab.packet(True, proto=TCP, data=bytes(8000)))
    pkt.iif, pkt.vnet_flags, pkt.gso_type, pkt.gso_size = lab.devices["host0"], VNET_F_NEEDS_CSUM, 1, 1400
    pkt.csum_start, pkt.csum_offset = 20, 16
    before = lab.seen()
    lab.gateway.receive(pkt)
    lab.gateway.end_batch()
    (frame,) = lab.take()["wan"]
    assert lab.seen() == before + 1 and len(frame) == 14 + 40 + 8000


def test_fin_goes_through_conntrack() -> None:
    lab = LocalLab()
    lab.start(TCP)
    assert lab.fast(proto=TCP)
    assert not lab.fast(proto=TCP, flags="FA")
    assert lab.table().count == 0


def route(lab: LocalLab) -> None:
    lab.gateway.add_route("203.0.113.9/32", dev="alt")


def address(lab: LocalLab) -> None:
    device = lab.devices["wan"]
    lab.gateway.remove_address(device, next(a for a in device.addresses if a.family == NFPROTO_IPV4))


def down(lab: LocalLab) -> None:
    lab.gateway.set_up(lab.devices["wan"], False)


def host_down(lab: LocalLab) -> None:
    lab.gateway.set_up(lab.devices["host0"], False)


def no_host(lab: LocalLab) -> None:
    lab.gateway.set_local_port(None)


def host_gone(lab: LocalLab) -> None:
    lab.assembly.remove_port(lab.devices["host0"])


def neighbour(lab: LocalLab) -> None:
    lab.neighbour(lab.devices["wan"], "203.0.113.9", "02:00:00:00:02:99")


def mtu(lab: LocalLab) -> None:
    lab.gateway.set_mtu(lab.devices["wan"], 500)


def conntrack(lab: LocalLab) -> None:
    for conn in list(lab.assembly.conntrack.members(0, 0)):
        lab.assembly.conntrack.destroy(conn)


@pytest.mark.parametrize("change", [route, address, down, host_down, no_host, host_gone, neighbour, mtu, conntrack])
def test_no_packet_takes_a_way_that_changed(change: Callable[[LocalLab], None]) -> None:
    fast, slow = LocalLab(), LocalLab(NONE)
    for lab in (fast, slow):
        lab.start()
        lab.say(True)
        lab.say()
    assert fast.seen() >= 2
    for lab in (fast, slow):
        change(lab)
        lab.take()
    for back in (True, False, True):
        if back and change in (no_host, host_gone):
            continue
        data = bytes(700)
        assert strip(fast.say(back, data=data)) == strip(slow.say(back, data=data))


def test_idle_flows_end_and_give_the_connection_back() -> None:
    lab = LocalLab()
    lab.start()
    lab.clock.now += 31 * 10**9
    lab.assembly.sweep()
    assert lab.table().count == 0
    (conn,) = lab.assembly.conntrack.members(0, 0)
    assert conn.timeout <= lab.clock.now + 90 * 10**9
    assert not lab.fast() and lab.fast()


def test_only_devices_of_the_flowtable_are_asked() -> None:
    lab = LocalLab(devices="wan")
    lab.start()
    assert lab.fast() and not lab.fast(True)


def test_with_offload_each_direction_is_judged_and_a_commit_ends_it() -> None:
    lab = LocalLab(("input",), offload=True, devices="wan")
    lab.start()
    assert lab.fast() and not lab.fast(True)
    lab.nft("insert rule inet filter input udp dport 53 drop")
    assert lab.say() == {}
    lab.tick()
    assert lab.manager.flows() == [] or "local delivery" in lab.manager.flows()[0]["reason"]


def test_no_card_is_offered_it() -> None:
    lab = LocalLab(("input", "output"), offload=True, devices="wan")
    lab.start()
    for _ in range(4):
        lab.say()
        lab.say(True)
    lab.tick()
    assert lab.nic.table == {} and "local delivery" in lab.manager.flows()[0]["reason"]


def test_linux_s_answer_without_the_key() -> None:
    lab = LocalLab()
    lab.assembly.platform.local_flows = False
    table = """table ip t { flowtable f { hook ingress priority 0; devices = { wan }; }
        chain c { type filter hook %s priority 0; flow add @f
        }\n}"""
    for hook in ("input", "output"):
        result = lab.assembly.rules.execute(table % hook)
        assert result.status and "Operation not supported" in str(result.errors)
    assert not lab.assembly.rules.execute(table % "forward").status
    lab.assembly.platform.local_flows = True
    assert lab.assembly.rules.execute(table.replace("table ip t", "table ip u") % "prerouting").status


def test_its_own_ttl() -> None:
    """What the service sends with TTL 1 leaves with TTL 1, by the pipeline."""
    lab = LocalLab()
    lab.start()
    (frame,) = lab.say(True, ttl=1)["wan"]
    assert IP(frame[14:]).ttl == 1
