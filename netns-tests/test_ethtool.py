"""ethtool settings of a port's interface: read beside the ethtool tool, set, put back at the end and after SIGKILL."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab import netns
from lab.daemon import Daemon
from lab.userfw import ROOT

from userfw.ports.ethtool import Ethtool

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="namespace tests run as root"),
    pytest.mark.skipif(shutil.which("ethtool") is None, reason="ethtool is not installed"),
]


class Host(Daemon):
    """One namespace with a veth pair; the daemon on its end `eth0`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.ns = f"uf{os.getpid()}-e"
        netns.create(self.ns)
        netns.ip(self.ns, "link add eth0 numrxqueues 4 numtxqueues 4 type veth peer name peer")
        netns.ip(self.ns, "link set eth0 up", "link set peer up")

    def start(self, settings: str) -> str:
        """Run the daemon with `[port.ethtool]`; what it said until it was ready or ended."""
        config = f'[daemon]\ncontrol = "{self.folder}/s"\n[[port]]\nname = "wan"\ntype = "packet"\nnetns = "{self.ns}"\n'
        return self.run(f'{config}device = "eth0"\n{settings}')

    def features(self) -> dict[str, bool]:
        """As ethtool -k prints them, by the kernel's names where it knows no other."""
        lines = netns.run(["ethtool", "-k", "eth0"], ns=self.ns).stdout.splitlines()[1:]
        return {m[1]: m[2] == "on" for line in lines if (m := re.match(r"\s*([\w-]+): (on|off)", line))}

    def channels(self) -> list[int]:
        text = netns.run(["ethtool", "-l", "eth0"], ns=self.ns).stdout.partition("Current")[2]
        return [int(n) for n in re.findall(r"(?:RX|TX):\s+(\d+)", text)]

    def ports(self, *more: str) -> Any:
        env = {"PYTHONPATH": f"{ROOT}:{ROOT}/hw", "USERFW_SOCKET": f"{self.folder}/s"}
        out = netns.run(["env", *(f"{k}={v}" for k, v in env.items()), sys.executable, "-m", "userfw", "ports", *more]).stdout
        return json.loads(out) if "--json" in more else out


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    try:
        yield made
    finally:
        made.close()
        netns.delete(made.ns)


SETTINGS = """[port.ethtool]
features = { tx-tcp-segmentation = false, rx-gro = true }
channels = { rx = 3, tx = 2 }
"""


def test_reading_is_what_ethtool_reads(host: Host) -> None:
    tool = Ethtool(host.ns)
    found = tool.describe("eth0")
    tool.close()
    shown = host.features()
    assert found["features"] and all(shown[name] == on for name, on in found["features"].items() if name in shown)
    assert {"tx-tcp-segmentation", "tx-vlan-hw-insert"} <= found["features"].keys()
    assert [found["channels"][name] for name in ("rx", "tx")] == host.channels()
    assert found["link"] == {"autoneg": False, "speed": 10000, "duplex": "full"}


def test_set_shown_and_put_back(host: Host) -> None:
    before = host.features(), host.channels()
    assert "ready" in host.start(SETTINGS)
    (port,) = host.ports("--json")
    assert port["ethtool"]["channels"]["rx"] == 3 and port["ethtool"]["features"]["rx-gro"] is True
    assert not host.features()["tx-tcp-segmentation"] and host.channels() == [3, 2]
    assert "10G,3q" in host.ports()
    told = host.ports("-e")
    assert "wan:\n  link      autoneg off, speed 10000, duplex full\n" in told
    assert re.search(r"  channels  .*rx 3, tx 2", told), told
    on, off = (re.search(rf" {state}: (.*)", told) for state in ("on", "off"))
    assert on is not None and "rx-gro" in on[1].split() and off is not None and "tx-tcp-segmentation" in off[1].split()
    host.stop()
    assert (host.features(), host.channels()) == before
    assert not list((host.folder / "run").iterdir())


def test_the_next_start_puts_back_what_sigkill_left(host: Host) -> None:
    before = host.features(), host.channels()
    assert "ready" in host.start(SETTINGS)
    host.stop(signal.SIGKILL)
    assert host.channels() == [3, 2]
    assert "ready" in host.start("")
    assert (host.features(), host.channels()) == before
    host.stop()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("[port.ethtool]\nfeatures = { rx-gro = true, hw-tc-offload = true }\n", "does not switch hw-tc-offload"),
        ("[port.ethtool]\nrings = { rx = 512 }\n", "ethtool: rings (rx): "),
        ('[[port.ethtool.ntuple]]\nflow = "tcp4"\ndport = 22\nqueue = 1\n', "ethtool: ntuple rule for tcp4: "),
    ],
)
def test_what_the_device_refuses_refuses_the_port(host: Host, settings: str, words: str) -> None:
    before = host.features()
    said = host.start(settings)
    assert "port wan" in said and words in said and "ready" not in said
    assert host.features() == before


ELSEWHERE = '[daemon]\ncontrol = "{}/{}"\n[[port]]\nname = "other"\ntype = "memory"\n'


def test_a_start_that_does_not_use_the_interface_cleans_it_up_too(host: Host) -> None:
    """Killed, and then configured for something else: settings, filters and the qdisc go all the same."""

    def tc() -> str:
        shown = [netns.run(["tc", *args], ns=host.ns, check=False).stdout for args in (
            ("filter", "show", "dev", "eth0", "ingress"), ("qdisc", "show", "dev", "eth0"))]  # fmt: skip
        return "".join(line for text in shown for line in text.splitlines() if "noqueue" not in line)

    before = host.features(), host.channels(), tc()
    assert "ready" in host.start(f'capture = "clsact"\n{SETTINGS}')
    host.stop(signal.SIGKILL)
    assert host.channels() == [3, 2] and "userfw+ capture" in tc()
    assert "ready" in host.run(ELSEWHERE.format(host.folder, "s"))
    assert (host.features(), host.channels(), tc()) == before
    assert not list((host.folder / "run").iterdir())
    host.stop()


def test_what_a_living_daemon_has_in_its_hands_is_left_alone(host: Host, tmp_path: Path) -> None:
    assert "ready" in host.start(SETTINGS)
    first = host.process
    try:
        assert "ready" in host.run(ELSEWHERE.format(host.folder, "other"))
        assert host.channels() == [3, 2] and len(list((host.folder / "run").iterdir())) == 2
        host.stop()
    finally:
        host.process = first
    host.stop()
    assert not list((host.folder / "run").iterdir())
