"""Cards with drivers of their own, in a virtual machine: what they refuse, in which words; rings and link set and put back."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import pytest
from lab import vm

CARDS = ("e1000", "virtio-net-pci")
DRIVERS = {"e1000", "virtio_net"}
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespace tests run as root")


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    """What lab.cards saw in the guest."""
    vm.needed()
    done = vm.run(
        f"PYTHONPATH=.:hw:netns-tests {sys.executable} -m lab.cards",
        modules="e1000 virtio_net cls_flower act_gact sch_ingress",
        seconds=280,
        qemu=" ".join(f"-device {card}" for card in CARDS),
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_cards_without_offload_are_refused_with_the_right_words(report: dict[str, Any]) -> None:
    """The feature is looked up; where it is believed to be there, skip_sw is refused by the driver, with the kernel's words."""
    assert set(report["cards"]) == DRIVERS
    for driver, card in report["cards"].items():
        assert card["plain"] in ("the interface has no hw-tc-offload",) or card["plain"].startswith("hw-tc-offload is off"), driver
        assert card["forced"] == "the kernel refuses flower filters: Operation not supported", driver
        assert not card["left"], driver


def test_cards_without_ntuple_rules_refuse_the_port(report: dict[str, Any]) -> None:
    for driver, card in report["cards"].items():
        assert "ethtool: ntuple rule for tcp4: Operation not supported" in card["ntuple"] and "ready" not in card["ntuple"], driver


def test_rings_and_link_are_set_and_put_back(report: dict[str, Any]) -> None:
    """At the end, and by the next start after SIGKILL, which does not use the card any more; modes advertised included."""
    assert report["before"]["autoneg"] == "on" and "10baseT/Half" in report["before"]["advertised"]
    assert "ready" in report["log"]
    for when in ("set", "killed"):
        assert [report[when][name] for name in ("rings", "autoneg")] == ["512 512", "off"]
    assert report["after"] == report["before"]
    assert "ready" in report["elsewhere"] and report["swept"] == report["before"]
