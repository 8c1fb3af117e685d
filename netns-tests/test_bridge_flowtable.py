"""The flowtable over a bridge, beside the kernel's: which packets it takes is the same, and so are the frames that leave.

lan, dmz and wan are ports of br0, edge is routed to. The running kernel may have no flowtables: then its side is skipped here, and
test_vm.py runs both on a kernel that has them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from lab import frames as f
from lab import netns
from lab.families import IP4
from lab.topology import Lab, Out
from test_bridge import BR, HOST, PORTS, KernelBridge, UserfwBridge

RULES = """table inet gateway {
    flowtable fast { hook ingress priority filter; devices = { %s }; }
    chain forward { type filter hook forward priority filter; policy accept;
        meta l4proto { tcp, udp } ct state established counter
        meta l4proto { tcp, udp } ct state established %s
    }
}
table bridge seen {
    chain pre { type filter hook prerouting priority 0; udp dport 53 counter; }
    chain out { type filter hook output priority 0; udp sport 53 counter; }
}
"""


class KernelFiltering(KernelBridge):
    """With VLAN filtering: all ports and br0 are in VLAN 1, untagged."""

    def start(self, lab: Lab) -> None:
        super().start(lab)
        netns.ip(self.ns, "link set br0 type bridge vlan_filtering 1")


class UserfwFiltering(UserfwBridge):
    """The same of the daemon's."""

    def config(self) -> dict[str, Any]:
        config = super().config()
        config["bridge"][0]["vlan_filtering"] = True
        return config


ROUTERS = {"kernel": KernelBridge, "kernel-vlans": KernelFiltering, "userfw": UserfwBridge, "userfw-vlans": UserfwFiltering}


@pytest.fixture(scope="module", params=list(ROUTERS))
def bridged(request: pytest.FixtureRequest) -> Iterator[Lab]:
    if request.config.getoption("--router") not in ("both", request.param.split("-")[0]):
        pytest.skip("not asked for")
    made: Any = ROUTERS[request.param]()
    lab = Lab(made)
    try:
        lab.start()
    except netns.CommandError as error:
        if "vlan_filtering" not in str(error):
            raise
        pytest.skip("no VLAN filtering in this kernel's bridge")
    yield lab
    lab.stop()


@pytest.fixture
def lab(bridged: Lab) -> Iterator[Lab]:
    """The laboratory if its router has flowtables."""
    said = bridged.router.nft("-f", "-", text="table inet probe { flowtable x { hook ingress priority 0; devices = { lan }; }\n}\n",
                              check=False)  # fmt: skip
    if "rror" in said:
        pytest.skip(f"no flowtables in this kernel: {said.splitlines()[0]}")
    bridged.forget_frames()
    yield bridged


def dialogue(lab: Lab, rounds: int = 6) -> list[Out]:
    """A UDP connection from the host behind lan to the one behind edge."""
    there = f.eth(BR, HOST["lan"], f.ETH_IP, f.udp_packet(IP4.lan, IP4.edge, 4000, 53))
    back = lab.up("edge", f.udp_packet(IP4.edge, IP4.lan, 53, 4000, b"answer"))
    out = []
    for _ in range(rounds):
        for at, frame in (("lan", there), ("edge", back)):
            out += [o for o in lab.exchange(at, frame) if o.frame[23:24] == b"\x11"]
    return out


def counts(lab: Lab) -> tuple[int, int, int]:
    """Packets that the forward chain, and the bridge's prerouting and output saw."""
    seen = lab.router.counters()
    return tuple(seen[f"{name} #1"][0] for name in ("inet gateway forward", "bridge seen pre", "bridge seen out"))  # type: ignore[return-value]


@pytest.mark.parametrize(
    "devices, pipeline, pre, out",
    [
        ("lan, edge", 1, 1, 1),  # one packet back before the flow is made
        ("lan, dmz, wan, edge", 1, 1, 1),
        ("br0, edge", 1, 6, 6),  # the bridge hands up, and sends
        ("br0, lan, edge", 1, 1, 1),  # the port comes first
        ("edge", 6, 6, 6),  # what the client sends meets no flowtable
        ("dmz, edge", 6, 6, 6),
        ("lan", 6, 1, 6),
    ],
)
def test_what_is_taken(lab: Lab, devices: str, pipeline: int, pre: int, out: int) -> None:
    if isinstance(lab.router, (KernelFiltering, UserfwFiltering)) and devices not in ("lan, edge", "br0, edge"):
        pytest.skip("as without VLAN filtering")
    lab.router.load(RULES % (devices, "counter"))
    slow = dialogue(lab)
    assert len(slow) == 12 and counts(lab)[0] == 11
    lab.router.load(RULES % (devices, "flow add @fast"))
    assert dialogue(lab) == slow
    assert counts(lab) == (pipeline, pre, out)


def test_a_flow_is_listed_as_offloaded(lab: Lab) -> None:
    lab.router.load(RULES % (", ".join([*PORTS, "edge"]), "flow add @fast"))
    assert len(dialogue(lab, 3)) == 6
    [conn] = [conn for conn in lab.router.conns() if "OFFLOAD" in conn.flags]
    assert conn is not None

