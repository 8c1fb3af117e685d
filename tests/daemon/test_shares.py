"""Ports share the packet loop's time: daemon.shares by simulation, the poller with ports on sockets."""

import os
import socket
import time
from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from userfw.core.clock import Clock
from userfw.core.packet import Device
from userfw.daemon.poller import Poller
from userfw.daemon.shares import Share, Shares
from userfw.ports.tap import TunTapPort

TURN, CREDIT, MOST_CHARGED = 250_000, 2_000_000, 1_000_000


class Table:
    """Ports that always have frames, each of its own cost in ns, served in rounds as the poller does; `opening`: those whose
    frames all open connections."""

    def __init__(self, *costs: int, opening: tuple[int, ...] = ()) -> None:
        self.shares = Shares()
        self.members = {Share(): cost for cost in costs}
        self.opening = opening
        self.spent: Counter[int] = Counter()

    def round(self, idle: tuple[int, ...] = ()) -> list[int]:
        """Serve who is to be served of those not idle; which."""
        waiting = [(i, share) for i, share in enumerate(self.members) if i not in idle]
        self.shares.look()
        for _, share in waiting:
            self.shares.join(share)
        served = []
        for i, share in waiting:
            if self.shares.turn(share):
                frames = self.shares.budget(share, 64)
                took = frames * self.members[share]
                self.shares.charge(share, took, frames, frames * self.opening.count(i))
                self.spent[i] += took
                served.append(i)
        return served


@given(st.lists(st.integers(500, 30_000), min_size=2, max_size=5))
def test_ports_that_always_wait_get_the_same_time(costs: list[int]) -> None:
    table = Table(*costs)
    for _ in range(500):
        assert table.round(), "somebody is always served"
    spent = [table.spent[i] for i in range(len(costs))]
    assert max(spent) - min(spent) <= 2 * 64 * 30_000 and min(spent) > 0


def test_a_flood_leaves_an_established_flow_half_the_time() -> None:
    """64 SYNs of 12 us a batch against four large segments of 30 us: a batch each in turn would leave the flow a seventh."""
    table = Table(12_000, 2_000)
    for _ in range(2000):
        table.round()
    assert 0.45 < table.spent[1] / sum(table.spent.values()) < 0.55


def test_frames_that_open_connections_are_charged_twice() -> None:
    table = Table(12_000, 2_000, opening=(0,))
    for _ in range(2000):
        table.round()
    assert 0.62 < table.spent[1] / sum(table.spent.values()) < 0.72


def test_alone_it_is_always_served_and_the_share_of_idle_ports_is_used() -> None:
    table = Table(10_000, 10_000)
    assert all(table.round(idle=(1,)) == [0] for _ in range(1000))
    while 0 not in table.round():
        pass
    assert CREDIT - TURN <= table.spent[1] <= CREDIT + 3 * TURN, "what was idle catches up by the credit and no more"


def test_turns_are_cut_by_time() -> None:
    shares, share = Shares(), Share()
    assert shares.budget(share, 64) == 64 and shares.budget(share, 1) == 1, "nothing is known yet"
    for _ in range(60):
        shares.charge(share, 10 * 12_500, 10, 0)
    assert 19 <= shares.budget(share, 64) <= 21
    assert shares.budget(share, 4) == 4
    for _ in range(60):
        shares.charge(share, 900_000, 1, 0)
    assert shares.budget(share, 64) == 8, "few frames that take long are a turn all the same"
    assert shares.budget(share, 2) == 2


def test_what_another_program_took_is_not_charged() -> None:
    shares, share = Shares(), Share()
    shares.charge(share, 10**10, 1, 0)
    assert share.served == MOST_CHARGED
    shares.charge(share, 10**10, 0, 0)
    assert share.served == 2 * MOST_CHARGED and share.frame_ns == MOST_CHARGED // 8


class Busy:
    """A gateway that works `cost` ns on each frame that came in by the first port."""

    def __init__(self, cost: int) -> None:
        self.cost, self.order = cost, ""

    def receive_batch(self, packets: list[Any], n: int) -> int:
        for pkt in packets[:n]:
            self.order += pkt.iif.name
            end = time.monotonic_ns() + (self.cost if pkt.iif.name == "f" else 0)
            while time.monotonic_ns() < end:
                pass
        return 0

    def end_batch(self) -> int:
        return 0


def test_the_poller_serves_the_cheap_port_before_the_flooded_one() -> None:
    gateway = Busy(50_000)
    poller = Poller(Clock(), gateway, batch=8)
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)]
    for (ours, theirs), name in zip(pairs, "fe", strict=True):
        ours.setblocking(False)
        port = TunTapPort(name, "tap", os.dup(ours.fileno()), name, prefix=0)
        port.attach(Device(name, len(poller.ports) + 2, b"\x02\0\0\0\0\x01"))
        poller.add(port)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        for _ in range(100):
            theirs.send(b"x" * 60)
    assert poller.run(10**10) == 200, "nothing is left, nothing is lost"
    assert gateway.order.rindex("e") < 150, gateway.order
    for member in list(poller.ports):
        assert member is not None
        poller.remove(member)
        member.close()
    poller.close()
    for pair in pairs:
        for sock in pair:
            sock.close()
