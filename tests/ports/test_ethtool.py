"""ethtool: bitsets and n-tuple rules as bytes; struct ethtool_rxnfc's layout beside the C compiler's."""

from __future__ import annotations

import errno
import json
import shutil
import struct
import subprocess
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import ethtool_golden
import pytest
from hypothesis import given
from hypothesis import strategies as st

from userfw.ports import ethtool
from userfw.ports.ethtool import FLOWS, Steer, Steering, bits_untrusted
from userfw.ports.netlink import attribute

OFFSETS = """
#include <stdio.h>
#include <stddef.h>
#include <linux/ethtool.h>
int main(void) {
    printf("%zu %zu %zu %zu %zu %zu\\n", sizeof(struct ethtool_rxnfc), offsetof(struct ethtool_rxnfc, fs.h_u),
        offsetof(struct ethtool_rxnfc, fs.m_u), offsetof(struct ethtool_rxnfc, fs.ring_cookie),
        offsetof(struct ethtool_rxnfc, fs.location), offsetof(struct ethtool_rxnfc, rule_cnt));
}
"""


@pytest.mark.parametrize("args", ethtool_golden.CASES)
def test_a_rule_is_what_ethtool_asks_for(args: str) -> None:
    golden = json.loads(ethtool_golden.GOLDEN.read_text())
    assert ethtool_golden.CASES[args].encode().hex() == golden[args]


def test_ethtool_still_asks_for_the_golden_bytes() -> None:
    """Recorded anew where ethtool is; version 6.1 made the recording."""
    if why := ethtool_golden.missing():
        pytest.skip(why)
    golden = json.loads(ethtool_golden.GOLDEN.read_text())
    for args in ethtool_golden.CASES:
        try:
            asked = ethtool_golden.asked(args)
        except OSError as error:
            pytest.skip(f"ethtool cannot be watched here: {error}")
        assert asked.hex() == golden[args], args


class Card(Steering):
    """A card with places for rules, as its driver answers the ioctls; `special`: it finds places itself."""

    def __init__(self, size: int, special: bool = False) -> None:
        super().__init__("eth0")
        self.size, self.special = size, special
        self.table: dict[int, bytes] = {}

    def _ioctl(self, data: bytearray) -> bytearray:
        command, location = struct.unpack_from("=I", data)[0], struct.unpack_from("=I", data, ethtool.LOCATION_AT)[0]
        if command == ethtool.GRXCLSRLCNT:
            struct.pack_into("=I", data, ethtool.COUNT_AT, len(self.table))
            struct.pack_into("=Q", data, ethtool.DATA_AT, ethtool.LOCATION_SPECIAL if self.special else 0)
        elif command == ethtool.GRXCLSRLALL:
            struct.pack_into("=Q", data, ethtool.DATA_AT, self.size)
            struct.pack_into(f"={len(self.table)}I", data, ethtool.COUNT_AT + 4, *self.table)
        elif command == ethtool.GRXCLSRULE:
            return bytearray(self.table[location])
        elif command == ethtool.SRXCLSRLDEL:
            del self.table[location]
        elif command == ethtool.SRXCLSRLINS:
            if location == ethtool.LOCATION_ANY:
                if not self.special:
                    raise OSError(errno.EINVAL, "no such place")
                struct.pack_into("=I", data, ethtool.LOCATION_AT, location := 100 + len(self.table))
            self.table[location] = bytes(data)
        return data


def test_a_place_is_found_as_ethtool_finds_it() -> None:
    """The last that is free, unless the driver chooses."""
    card = Card(4)
    assert card.add(Steer("tcp4", 1, location=2)) == 2
    assert [card.add(Steer("udp4", None, destination_port=at)) for at in range(3)] == [3, 1, 0]
    with pytest.raises(OSError, match="No space left"):
        card.add(Steer("tcp4", 1))
    card.remove(3)
    assert card.add(Steer("tcp6", 5)) == 3
    assert card.rules() == [
        {"location": 2, "flow": "tcp4", "queue": 1},
        {"location": 1, "flow": "udp4", "drop": True, "destination-port": 1},
        {"location": 0, "flow": "udp4", "drop": True, "destination-port": 2},
        {"location": 3, "flow": "tcp6", "queue": 5},
    ]
    assert Card(4, special=True).add(Steer("tcp4", 1)) == 100


def bitset(bits: list[tuple[str, bool]], nomask: bool = False) -> bytes:
    listed = b"".join(
        attribute(1 | 0x8000, attribute(2, name.encode() + b"\0") + (attribute(3, b"") if on else b"")) for name, on in bits
    )
    return (attribute(1, b"") if nomask else b"") + attribute(3 | 0x8000, listed)


def test_names_that_are_set() -> None:
    assert bits_untrusted(bitset([("rx-gro", True), ("hw-tc-offload", False)])) == {"rx-gro"}
    assert bits_untrusted(bitset([("rx-gro", False), ("hw-tc-offload", False)], nomask=True)) == {"rx-gro", "hw-tc-offload"}


@given(st.binary(max_size=100))
def test_any_bytes(data: bytes) -> None:
    bits_untrusted(data)
    bits_untrusted(attribute(3, data))


@pytest.mark.parametrize("flow", sorted(FLOWS))
@pytest.mark.parametrize("queue", [None, 0, 7])
def test_a_rule_is_what_it_was(flow: str, queue: int | None) -> None:
    address = IPv4Address("192.0.2.1") if flow.endswith("4") else IPv6Address("2001:db8::1")
    for rule in (
        Steer(flow, queue, location=3),
        Steer(flow, queue, address, address + 1, 1000, 80, 2**32 - 2),
        Steer(flow, queue, None, address, None, 0, 0),
    ):
        assert Steer.decode_untrusted(rule.encode()) == rule


def test_an_address_of_the_other_family() -> None:
    with pytest.raises(ValueError, match="no address of tcp6"):
        Steer("tcp6", 1, IPv4Address("192.0.2.1"))
    with pytest.raises(ValueError, match="one of"):
        Steer("icmp", 1)


@given(st.binary(min_size=ethtool.RXNFC_SIZE, max_size=ethtool.RXNFC_SIZE))
def test_any_rule_of_a_driver(data: bytes) -> None:
    Steer.decode_untrusted(data)


def test_the_layout_is_the_compilers(tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    source, program = tmp_path / "offsets.c", tmp_path / "offsets"
    source.write_text(OFFSETS)
    done = subprocess.run(["gcc", "-o", program, source], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"the kernel's headers are not installed: {done.stderr[:200]}")
    said = [int(word) for word in subprocess.run([program], capture_output=True, text=True, check=True).stdout.split()]
    assert said == [
        ethtool.RXNFC_SIZE, ethtool.SPEC_AT, ethtool.MASK_AT, ethtool.COOKIE_AT, ethtool.LOCATION_AT, ethtool.COUNT_AT
    ]  # fmt: skip
