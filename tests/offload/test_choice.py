"""Where the eBPF program goes on an interface, and the words for it; what drivers refuse is told."""

from __future__ import annotations

import pytest
from userfw_hw.bpf.choice import ACT_BASIC, ACT_REDIRECT, NDO_XMIT, Choice, Facts, choose

NATIVE = ACT_BASIC | ACT_REDIRECT


@pytest.mark.parametrize(
    ("facts", "forced", "where", "reason"),
    [
        (Facts("packet", "veth", NATIVE | NDO_XMIT), "auto", "tc ingress", "local stack"),
        (Facts("packet", "mlx5_core", NATIVE | NDO_XMIT), "auto", "XDP (native)", "forwards at XDP itself"),
        (Facts("packet", "mlx5_core", None), "auto", "XDP (native)", "forwards at XDP itself"),
        (Facts("packet", "r8169", None), "auto", "tc ingress", "no XDP of its own"),
        (Facts("packet", "ice", NATIVE, vlans=True), "auto", "tc ingress", "VLAN devices"),
        (Facts("capture", "ice", NATIVE), "auto", "tc ingress", 'capture = "tc"'),
        (Facts("xdp", "ice", NATIVE, xdp_mode="native"), "auto", "XDP (native)", "by XDP already"),
        (Facts("packet", "veth", NATIVE | NDO_XMIT), "xdp", "XDP (native)", "the configuration says so"),
        (Facts("packet", "veth", NATIVE), "xdp", "XDP (generic)", "no NAPI at the other end"),
        (Facts("packet", "r8169", 0), "xdp", "XDP (generic)", "its driver has no XDP"),
        (Facts("packet", "ice", NATIVE), "tc", "tc ingress", "the configuration says so"),
    ],
)
def test_the_choice_and_its_reason(facts: Facts, forced: str, where: str, reason: str) -> None:
    choice = choose(facts, forced)
    assert isinstance(choice, Choice)
    assert choice.where == where and reason in choice.reason


@pytest.mark.parametrize(
    ("facts", "forced", "reason"),
    [
        (Facts("tap"), "auto", "no interface of its own"),
        (Facts("capture", "veth"), "xdp", 'capture = "tc" cannot use XDP'),
        (Facts("packet", "ice", NATIVE, vlans=True), "xdp", "may not see the tags"),
        (Facts("xdp", "ice"), "tc", "before tc does"),
    ],
)
def test_what_cannot_be_is_told(facts: Facts, forced: str, reason: str) -> None:
    choice = choose(facts, forced)
    assert isinstance(choice, str) and reason in choice
