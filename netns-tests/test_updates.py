"""Large updates of a running daemon: packets go on while a ruleset is replaced and elements are added, and see none or all of it.

No times are asserted (`make bench-load` measures them): of a stream of datagrams, many pass between the start of the command and
its end, one after the other; and the change comes in one step.
"""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import netns
from lab.families import IP4
from lab.topology import Lab
from lab.userfw import UserfwRouter

PORT = 9998
MANY = 20_000


@pytest.fixture
def lab() -> Iterator[Lab]:
    made = Lab(UserfwRouter())
    made.start()
    try:
        with made.live():
            yield made
    finally:
        made.stop()


class Stream:
    """Datagrams from lan to wan, each with its number, until the context ends; `arrived` are (time, number)."""

    def __init__(self, lab: Lab) -> None:
        self.arrived: list[tuple[float, int]] = []
        self.done = threading.Event()
        self.receiver = netns.within(lab.ns("wan"), lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self.sender = netns.within(lab.ns("lan"), lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self.receiver.bind((IP4.wan, PORT))
        self.receiver.settimeout(0.2)
        self.threads = [threading.Thread(target=self._send), threading.Thread(target=self._receive)]

    def __enter__(self) -> "Stream":
        for thread in self.threads:
            thread.start()
        self.wait_for(20)
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        for thread in self.threads:
            thread.join()
        self.receiver.close()
        self.sender.close()

    def wait_for(self, count: int) -> None:
        """Until so many more have arrived."""
        want, end = len(self.arrived) + count, time.monotonic() + 20
        while len(self.arrived) < want:
            assert time.monotonic() < end, "no datagram comes through"
            self.done.wait(0.01)

    def _send(self) -> None:
        number = 0
        while not self.done.wait(0.001):
            self.sender.sendto(number.to_bytes(8, "big"), (IP4.wan, PORT))
            number += 1

    def _receive(self) -> None:
        while not self.done.is_set():
            try:
                number = int.from_bytes(self.receiver.recv(64), "big")
            except TimeoutError:
                continue
            self.arrived.append((time.monotonic(), number))


def addresses(first: int, count: int = MANY) -> str:
    return ", ".join(f"{first}.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}" for n in range(count))


def during(lab: Lab, stream: Stream, tmp_path: Path, text: str) -> list[int]:
    """The numbers of the datagrams that passed while a file was loaded."""
    path = tmp_path / "update.nft"
    path.write_text(text)
    began = time.monotonic()
    lab.router.nft("-f", str(path))
    ended = time.monotonic()
    return [number for when, number in stream.arrived if began <= when <= ended]


SETS = """table inet t {
	set s {
		type ipv4_addr%s
		elements = { %s }
	}
	chain c {
		type filter hook forward priority 0; policy accept;
		ip saddr @s counter drop
	}
}
"""


@pytest.mark.parametrize("more", ["", ', 10.9.9.9 comment "no run of plain elements"'], ids=["run", "one by one"])
@pytest.mark.parametrize("flags", ["", "; flags interval"], ids=["hash", "interval"])
def test_packets_pass_while_elements_are_added_to_a_set_in_use(lab: Lab, tmp_path: Path, flags: str, more: str) -> None:
    lab.router.nft("-f", "-", text=SETS % (flags, addresses(11, 1000)))
    with Stream(lab) as stream:
        texts = [f"add element inet t s {{ {addresses(first, 4 * MANY)}{more} }}\n" for first in (12, 14, 15)]
        passed = [during(lab, stream, tmp_path, text) for text in texts]
        assert sum(map(len, passed)) > (200 if more else 20), "a run takes a tenth of a second, most of it the client's"
        # the last element of many is the sender's own: from then on nothing passes
        lab.router.nft("-f", "-", text=f"add element inet t s {{ {addresses(13)}, {IP4.lan} }}\n")
        after = len(stream.arrived)
        lab.router.nft("list", "tables")
        assert len(stream.arrived) <= after + 1
    assert "counter packets 0 " not in lab.router.nft("list", "chain", "inet", "t", "c")


def test_packets_pass_while_rules_are_replaced_and_see_all_or_none(lab: Lab, tmp_path: Path) -> None:
    """Every packet passes either the old chain or the new one: each of them marks, and the last rule drops what is unmarked."""

    def chain(mark: int) -> str:
        rules = "".join(f"\t\tip saddr 11.{n >> 8}.{n & 255}.1 counter drop\n" for n in range(3000))
        head = "\t\ttype filter hook forward priority 0; policy accept;\n"
        return f"table inet t {{\n\tchain c {{\n{head}\t\tmeta mark set {mark}\n{rules}\t\tmeta mark != {mark} drop\n\t}}\n}}\n"

    lab.router.nft("-f", "-", text=chain(1))
    with Stream(lab) as stream:
        first = stream.arrived[0][1]
        passed = [during(lab, stream, tmp_path, "flush chain inet t c\n" + chain(2 - n % 2)) for n in range(10)]
        assert sum(map(len, passed)) > 100, "a replacement takes a tenth of a second, most of it the client's"
        stream.wait_for(20)
        numbers = [number for _, number in stream.arrived]
    assert numbers == list(range(first, first + len(numbers))), "none was dropped in between"
