"""Queues end to end: a program outside the daemon judges real connections."""

import socket
import sys
import threading
from collections.abc import Iterator

import pytest
from lab.families import EACH, Family
from lab.rules import masquerade
from lab.services import ask, echo
from lab.topology import Lab
from lab.userfw import ROOT, UserfwRouter

sys.path.insert(0, str(ROOT))
from userfw.client.control import ControlError
from userfw.client.queue import QueueClient

each = pytest.mark.parametrize("fam", EACH, ids=str)


@pytest.fixture
def client(live: Lab) -> Iterator[QueueClient]:
    """A client of the daemon's queue socket."""
    if not isinstance(live.router, UserfwRouter):
        pytest.skip("the kernel's queues have a protocol of their own")
    with QueueClient(str(live.router.dir / "control.queue"), timeout=5) as found:
        yield found


def judge(client: QueueClient, number: int, counts: list[int], **options: object) -> threading.Thread:
    """Accept everything of a queue in a thread, counting bytes."""
    client.bind(number, **options)

    def work() -> None:
        try:
            for packet in client:
                counts.append(packet.length)
                packet.accept()
        except (ControlError, OSError):
            return

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


@each
@pytest.mark.parametrize("gso", [False, True])
def test_a_connection_through_a_program(live: Lab, client: QueueClient, fam: Family, gso: bool) -> None:
    """Both directions, with masquerade behind the queue."""
    live.router.load(masquerade(fam) + "\ntable inet q { chain f { type filter hook forward priority 0; queue num 3; }\n}")
    counts: list[int] = []
    judge(client, 3, counts, gso=gso)
    data = bytes(range(256)) * 4000
    with echo(live, "wan", fam, 7000):
        assert ask(live, "lan", fam.wan, 7000, data, 10) == data
    assert sum(counts) > 2 * len(data)
    assert isinstance(live.router, UserfwRouter)
    assert live.router.command("queue").stdout.splitlines()[1].split()[:2] == ["3", "client"]
    if not gso:
        assert max(counts) <= 1500


def test_bypass_and_no_listener(live: Lab, client: QueueClient) -> None:
    fam = EACH[0]
    live.router.load("table inet q { chain f { type filter hook forward priority 0; tcp dport 7000 queue flags bypass to 3; "
                     "tcp dport 7001 queue num 4; }\n}")
    with echo(live, "wan", fam, 7000), echo(live, "wan", fam, 7001):
        assert ask(live, "lan", fam.wan, 7000) == b"hello"
        with pytest.raises((TimeoutError, socket.timeout)):
            ask(live, "lan", fam.wan, 7001, seconds=0.4)
    assert any(d["reason"] == "QUEUE" for d in live.router.ask("drops")["drops"])
