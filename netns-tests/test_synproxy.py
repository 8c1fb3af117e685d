"""SYN proxy: every segment of a proxied connection beside the kernel's, real connections through it, floods that leave nothing.

Cookies and timestamps are the router's own; transcripts are compared with them subtracted.
"""

import socket
import struct
from typing import NamedTuple

import pytest
from lab import frames as f
from lab.families import EACH, IP6, Family
from lab.netns import within
from lab.services import ask, echo
from lab.topology import Lab, Out

each = pytest.mark.parametrize("fam", EACH, ids=str)
pytestmark = pytest.mark.own_numbers
SEEN: dict[str, list[object]] = {}


def rules(fam: Family, options: str = "mss 1460 wscale 7 timestamp sack-perm") -> str:
    return f"""table {fam.name} r {{ chain p {{ type filter hook prerouting priority -300; tcp dport 7000 tcp flags syn notrack; }}
    }}
    table {fam.name} s {{ chain f {{ type filter hook forward priority 0;
        tcp dport 7000 ct state invalid,untracked synproxy {options}
        ct state invalid drop; }}
    }}\n"""


class Segment(NamedTuple):
    """What is compared of a segment; numbers relative to what the router made up."""

    port: str
    head: bytes
    seq: int
    ack: int
    flags: int
    window: int
    options: tuple[object, ...]
    payload: int


def parts(out: Out) -> tuple[bytes, bytes]:
    """Network header (checksum and length as they are) and segment."""
    packet = out.packet
    return (packet[:20], packet[20:]) if packet[0] >> 4 == 4 else (packet[:40], packet[40:])


def options(segment: bytes) -> list[tuple[int, bytes]]:
    size, at, found = (segment[12] >> 4) * 4, 20, []
    while at < size:
        if segment[at] == 1:
            found.append((1, b""))
            at += 1
            continue
        found.append((segment[at], segment[at + 2 : at + segment[at + 1]]))
        at += segment[at + 1]
    return found


def read(out: Out, seq: int = 0, ack: int = 0, tsval: int = 0, tsecr: int = 0) -> Segment:
    head, segment = parts(out)
    src, dst = (head[12:16], head[16:20]) if len(head) == 20 else (head[8:24], head[24:40])
    assert f.checksum(segment, f.pseudo(src, dst, 6, len(segment))) == 0
    told: list[object] = []
    for kind, value in options(segment):
        if kind == 8:
            a, b = struct.unpack("!II", value)
            value = struct.pack("!II", (a - tsval) & 0xFFFFFFFF, (b - tsecr) & 0xFFFFFFFF)
        told.append((kind, value))
    numbers = struct.unpack("!II", segment[4:12])
    size = (segment[12] >> 4) * 4
    return Segment(out.port, head[:4] + head[6:10] + src + dst if len(head) == 20 else head, (numbers[0] - seq) & 0xFFFFFFFF,
                   (numbers[1] - ack) & 0xFFFFFFFF, segment[13], int.from_bytes(segment[14:16], "big"), tuple(told),
                   len(segment) - size)


def stamp(tsval: int, tsecr: int) -> bytes:
    return struct.pack("!BBBBII", 1, 1, 8, 10, tsval, tsecr)


def number(out: Out, at: int) -> int:
    return int.from_bytes(parts(out)[1][at : at + 4], "big")


@each
@pytest.mark.parametrize("offer", ["all", "no timestamp", "none"])
@pytest.mark.parametrize("allow", ["mss 1460 wscale 7 timestamp sack-perm", "mss 1300", "wscale 3 timestamp"])
def test_every_segment(lab: Lab, shortened: object, fam: Family, offer: str, allow: str, request: pytest.FixtureRequest) -> None:
    shortened(nf_conntrack_tcp_loose=0)  # type: ignore[operator]
    lab.router.load(rules(fam, allow))
    works(lab, fam)
    full = bytes.fromhex("02040578" "0402080a000003e800000000" "0103030a") if offer == "all" else \
        bytes.fromhex("02040578" "01010402" "0103030a") if offer == "no timestamp" else b""
    said: list[object] = []
    client, server = (fam.lan, 41000), (fam.wan, 7000)

    def up(flags: int, seq: int, ack: int = 0, data: bytes = b"", opts: bytes = b"", window: int = 500) -> list[Out]:
        return lab.send("lan", f.tcp_packet(*_pair(client, server), flags, seq, ack, data, options=opts, window=window))

    def down(flags: int, seq: int, ack: int = 0, data: bytes = b"", opts: bytes = b"", window: int = 600) -> list[Out]:
        return lab.send("wan", f.tcp_packet(*_pair(server, client), flags, seq, ack, data, options=opts, window=window))

    [synack] = up(f.SYN, 1000, opts=full)
    cookie = number(synack, 4)
    ours = next((struct.unpack("!I", v[:4])[0] for k, v in options(parts(synack)[1]) if k == 8), 0)
    said.append(read(synack, cookie, tsval=ours & ~0x3F))
    assert lab.router.conns() == []
    times = ours != 0
    assert up(f.ACK, 1001, cookie + 77, opts=stamp(1001, ours) if times else b"") == []
    [syn] = up(f.ACK, 1001, cookie + 1, opts=stamp(1001, ours) if times else b"")
    said.append(read(syn, ack=cookie, tsecr=ours & ~0x3F))
    said.append([(conn.state, conn.flags) for conn in lab.router.conns()])
    [again] = up(f.ACK, 1000, cookie + 1, opts=stamp(1002, ours) if times else b"")
    keepalive = read(again, ack=cookie, tsecr=ours & ~0x3F)
    assert read(syn, ack=cookie, tsecr=ours & ~0x3F).seq == keepalive.seq == 1000
    opts = bytes.fromhex("020405b4" "0402080a00001388" + "000003e9" + "01030306") if times else bytes.fromhex("020405b4")
    both = down(f.SYN | f.ACK, 9000, 1001, opts=opts, window=30000)
    assert [out.port for out in both] == ["lan", "wan"]
    said += [read(both[0], seq=cookie, tsval=ours & ~0x3F), read(both[1], tsecr=-(ours & ~0x3F))]
    said.append([(conn.state, conn.flags) for conn in lab.router.conns()])
    [out] = up(f.ACK | f.PSH, 1001, cookie + 1, b"request", stamp(1003, ours + 5) if times else b"")
    said.append(read(out))
    [out] = down(f.ACK | f.PSH, 9001, 1008, b"answer!", stamp(5006, 1003) if times else b"")
    said.append(read(out, seq=cookie, tsval=ours & ~0x3F))
    [out] = up(f.ACK, 1008, cookie + 8)
    said.append(read(out))
    [out] = down(f.FIN | f.ACK, 9008, 1008, b"", stamp(5007, 1003) if times else b"")
    said.append(read(out, seq=cookie, tsval=ours & ~0x3F))
    [out] = up(f.FIN | f.ACK, 1008, cookie + 9, b"", stamp(1005, ours + 7) if times else b"")
    said.append(read(out))
    said.append([(conn.state, conn.flags) for conn in lab.router.conns()])
    name = request.node.name.replace(lab.router.kind, "*")
    for mine, kernels in zip(said, SEEN.setdefault(name, said), strict=True):
        assert mine == kernels


def works(lab: Lab, fam: Family) -> None:
    """Skip where a kernel's own proxy says nothing to IPv6."""
    if lab.router.kind == "kernel" and fam is IP6 and not lab.send("lan", f.tcp_packet(fam.lan, fam.wan, 9, 7000, f.SYN)):
        pytest.skip("this kernel's SYN proxy does not answer IPv6")


def _pair(a: tuple[str, int], b: tuple[str, int]) -> tuple[str, str, int, int]:
    return a[0], b[0], a[1], b[1]


@each
def test_a_connection_through_it(live: Lab, shortened: object, fam: Family) -> None:
    shortened(nf_conntrack_tcp_loose=0)  # type: ignore[operator]
    live.router.load(rules(fam))
    works(live, fam)
    data = bytes(range(256)) * 8000
    with echo(live, "wan", fam, 7000) as peers:
        assert ask(live, "lan", fam.wan, 7000, data, 10) == data
    assert peers == [fam.lan]
    with pytest.raises(ConnectionResetError), within(  # the proxy answered, the server then refused
            live.ns("lan"), lambda: socket.create_connection((fam.dmz, 7000), 3)) as sock:
        sock.recv(1)


def test_a_service_of_the_router_itself(live: Lab, shortened: object) -> None:
    fam = EACH[0]
    shortened(nf_conntrack_tcp_loose=0)  # type: ignore[operator]
    live.router.load(rules(fam).replace("hook forward", "hook input"))
    with echo(live, "rt", fam, 7000):
        assert ask(live, "lan", fam.host("lan", 1), 7000, bytes(100_000)) == bytes(100_000)


@each
def test_a_flood_leaves_no_connections(lab: Lab, shortened: object, fam: Family) -> None:
    shortened(nf_conntrack_tcp_loose=0)  # type: ignore[operator]
    lab.router.load(rules(fam))
    works(lab, fam)
    for start in range(0, 600, 50):
        out = lab.send("lan", *(f.tcp_packet(fam.lan, fam.wan, 10000 + start + i, 7000, f.SYN, i) for i in range(50)))
        assert len(out) == 50 and all(o.port == "lan" for o in out)
    out = lab.send("lan", *(f.tcp_packet(fam.lan, fam.wan, 10000 + i, 7000, f.ACK, i + 1, 12345) for i in range(50)))
    assert out == [] and lab.router.conns() == []
