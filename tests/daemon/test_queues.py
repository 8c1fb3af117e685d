"""The queue socket and `[queue.N]` of a whole daemon: packets out, verdicts in, whatever clients do."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from tests.daemon.test_server import BASE, Start, ask, start, write  # noqa: F401
from userfw.client.control import ControlError
from userfw.client.frames import Decoder, FrameError, encode
from userfw.client.queue import AsyncQueueClient, QueueClient
from userfw.core.drop import DropReason
from userfw.daemon.control import CommandError
from userfw.daemon.server import Server

RULES = "table ip q { chain f { type filter hook forward priority 0; queue num 5; }\n}"


def send(server: Server, count: int = 1, payload: bytes = b"x") -> None:
    lan = server.ports["lan"].device
    server.gateway.neighbours.set_static(server.ports["wan"].device, 2, 0, 0xCB007109, bytes.fromhex("020000000009"))
    for i in range(count):
        frame = Ether(dst="02:00:00:00:00:01", src="02:00:00:00:00:08") / IP(src="192.168.1.8", dst="203.0.113.9") / UDP(
            sport=i + 1, dport=9) / payload  # fmt: skip
        pkt = lan.port.inject(bytes(frame))
        pkt.iif = lan
        server.gateway.receive(pkt)
    server.gateway.end_batch()


async def ready(start: Start, text: str = BASE) -> Server:  # noqa: F811
    server: Server = await start(text)
    await ask(server, "nft", text=RULES)
    return server


async def passed(server: Server, count: int) -> list[bytes]:
    port = server.ports["wan"].device.port
    for _ in range(200):
        if len(port.transmitted) >= count:
            break
        await asyncio.sleep(0.01)
    return list(port.take())


def dropped(server: Server, reason: DropReason) -> int:
    return server.gateway.drop_counts()[reason]


async def test_verdicts(start: Start) -> None:  # noqa: F811
    server = await ready(start)
    async with AsyncQueueClient(server.queues.path) as client:
        await client.bind(5, name="test", copy_range=28)
        send(server, 4)
        packets = [await client.recv() for _ in range(4)]
        assert [p.id for p in packets] == [0, 1, 2, 3]
        assert (packets[0].iif, packets[0].oif, packets[0].hook, packets[0].length) == ("lan", "wan", 2, 29)
        assert len(packets[0].payload) == 28
        packets[3].accept(mark=5)
        packets[0].drop()
        packets[2].accept_up_to()
        assert len(await passed(server, 3)) == 3 and dropped(server, DropReason.QUEUE_VERDICT) == 1
        packets[0].accept()
        listing = await ask(server, "queues")
        assert (listing[0]["listener"], listing[0]["total"], listing[0]["held"]) == ("test", 4, 0)
        with pytest.raises(ControlError, match="has a listener already"):
            await client.bind(5)
        assert client.errors == ["queue 5 holds no packet 0"]
        await client.unbind(5)
        with pytest.raises(ControlError, match="not yours"):
            await client.unbind(5)


async def test_a_client_that_goes_drops_what_it_holds(start: Start) -> None:  # noqa: F811
    server = await ready(start)
    async with AsyncQueueClient(server.queues.path) as client:
        await client.bind(5)
        send(server, 3)
        await client.recv()
    for _ in range(100):
        if not server.queues.queues.queues:
            break
        await asyncio.sleep(0.01)
    assert dropped(server, DropReason.QUEUE) == 3
    send(server)
    assert dropped(server, DropReason.QUEUE) == 4


async def test_blocking_client_and_another_payload(start: Start) -> None:  # noqa: F811
    server = await ready(start)

    def work(path: str) -> None:
        with QueueClient(path, timeout=5) as client:
            client.bind(5)
            bound.set()
            packet = client.recv()
            new = IP(packet.payload)
            new[UDP].payload.load = b"changed"
            del new.len, new.chksum, new[UDP].len, new[UDP].chksum
            packet.accept(payload=bytes(new))
            client.recv().repeat(mark=1)
            client.recv().requeue(9)

    bound = asyncio.Event()
    loop = asyncio.get_running_loop()
    bound.set = lambda s=bound.set: loop.call_soon_threadsafe(s)  # type: ignore[method-assign]
    job = loop.run_in_executor(None, work, server.queues.path)
    await bound.wait()
    send(server, 2)
    [frame] = await passed(server, 1)
    assert bytes(Ether(frame)[UDP].payload) == b"changed"
    await job
    for _ in range(100):
        if dropped(server, DropReason.QUEUE):
            break
        await asyncio.sleep(0.01)
    assert dropped(server, DropReason.QUEUE) == 1


async def test_nonsense_is_refused(start: Start) -> None:  # noqa: F811
    server = await ready(start)
    for bad in (
        encode({"do": "dance"}), encode({"do": "bind", "queue": 70000}), encode({"do": "bind", "queue": "x"}),
        encode({"do": "bind", "queue": 1, "length": 10**9}), encode({"do": "verdict", "queue": 5, "id": 0, "verdict": "accept"}),
        struct.pack("!IH", 5, 9) + b"abc", struct.pack("!IH", 1 << 30, 3) + b"abc", encode({})[:6] + b"[]",
    ):  # fmt: skip
        reader, writer = await asyncio.open_unix_connection(server.queues.path)
        await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big"))
        writer.write(bad)
        answer = await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big"))
        assert "error" in json.loads(answer[2:]), bad
        writer.close()
    assert not server.gateway.faults


async def test_a_client_that_does_not_read(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr("userfw.daemon.queues.MAX_BACKLOG", 100_000)
    server = await ready(start)
    async with AsyncQueueClient(server.queues.path) as client:
        await client.bind(5, length=65536)
        for _ in range(20):
            send(server, 100, bytes(1000))
        queue = server.queues.queues.queues[5]
        assert queue.lost and queue.lost + len(queue.held) == 2000


async def test_python_and_program_of_the_configuration(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    (tmp_path / "judges_of_a_test.py").write_text("def odd(packet):\n    packet.drop() if packet.id % 2 else packet.accept()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    server = await ready(start, BASE + '[queue.5]\npython = "judges_of_a_test:odd"\n')
    send(server, 4)
    assert len(await passed(server, 2)) == 2
    write(server, BASE + '[queue.5]\npython = "judges_of_a_test:none"\n')
    with pytest.raises(CommandError, match="judges_of_a_test:none: AttributeError"):
        await ask(server, "reload")
    (tmp_path / "judge.py").write_text(
        "import os\nfrom userfw.client.queue import QueueClient\n"
        "with QueueClient() as client:\n    client.bind(int(os.environ['USERFW_QUEUE']), name='judge')\n"
        "    for packet in client:\n        packet.accept()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    program = json.dumps([sys.executable, str(tmp_path / "judge.py")])
    write(server, BASE + f"[queue.5]\nprogram = {program}\nlength = 7\n")
    await ask(server, "reload")
    for _ in range(500):
        listing: list[dict[str, Any]] = await ask(server, "queues")
        if listing:
            break
        await asyncio.sleep(0.02)
    assert (listing[0]["listener"], listing[0]["length"]) == ("judge", 7)
    send(server, 3)
    assert len(await passed(server, 3)) == 3


@given(st.lists(st.tuples(st.dictionaries(st.text(), st.integers()), st.binary(max_size=50)), max_size=5), st.integers(1, 7))
def test_frames_in_any_pieces(frames: list[tuple[dict[str, Any], bytes]], size: int) -> None:
    data = b"".join(encode(*frame) for frame in frames)
    decoder = Decoder()
    assert [f for i in range(0, len(data), size) for f in decoder.feed_untrusted(data[i : i + size])] == frames


@given(st.binary(max_size=200))
def test_decoder_takes_any_bytes(data: bytes) -> None:
    decoder = Decoder()
    with contextlib.suppress(FrameError):
        list(decoder.feed_untrusted(data))
