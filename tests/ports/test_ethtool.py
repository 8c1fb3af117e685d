"""ethtool: bitsets and n-tuple rules as bytes; struct ethtool_rxnfc's layout beside the C compiler's."""

from __future__ import annotations

import shutil
import subprocess
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userfw.ports import ethtool
from userfw.ports.ethtool import FLOWS, Steer, bits_untrusted
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
