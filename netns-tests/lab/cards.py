"""Settings and refusals of cards with drivers of their own (qemu's), on a stock kernel; says as one line of JSON what it saw.

`python -m lab.cards` as root in the virtual machine of netns-tests/test_cards.py. Laws: judges nothing, only reports.
"""

from __future__ import annotations

import json
import os
import re
import signal
import tempfile
from pathlib import Path
from typing import Any

from userfw_hw.flower.driver import FlowerDriver

from userfw.offload.contract import Refusal, Target

from . import netns
from .daemon import Daemon
from .offload import until

SETTINGS = """[port.ethtool]
rings = { rx = 512, tx = 512 }
autoneg = false
speed = 100
duplex = "full"
"""
NTUPLE = '[[port.ethtool.ntuple]]\nflow = "tcp4"\ndport = 22\nqueue = 0\n'


def shown(*args: str) -> str:
    """What a tool says; the text alone, for people's eyes as well as for the test's."""
    return netns.run(list(args), check=False).stdout


def driver_of(device: str) -> str:
    """The name of an interface's driver; empty without one."""
    link = Path(f"/sys/class/net/{device}/device/driver")
    return link.resolve().name if link.exists() else ""


def asked(device: str, driver: FlowerDriver) -> str:
    """Why the flower driver does not take an interface."""
    number = int(Path(f"/sys/class/net/{device}/ifindex").read_text())
    answer = driver.probe(Target(device, number, None, device))
    driver.close()
    return answer.reason if isinstance(answer, Refusal) else "taken"


def settings(device: str) -> dict[str, str]:
    """Rings, link and advertised modes as ethtool shows them."""
    until(lambda: "Link detected: yes" in shown("ethtool", device))
    return {
        "rings": " ".join(re.findall(r"^[RT]X:\s+(\d+)", shown("ethtool", "-g", device).partition("Current")[2], re.M)),
        "speed": " ".join(re.findall(r"^\s*Speed: (\S+)", shown("ethtool", device), re.M)),
        "autoneg": " ".join(re.findall(r"^\s*Auto-negotiation: (\w+)", shown("ethtool", device), re.M)),
        "advertised": " ".join(shown("ethtool", device).partition("Advertised link modes:")[2].partition("Advertised")[0].split()),
    }


def started(daemon: Daemon, port: str) -> str:
    """Run userfw with one port; what it said."""
    return daemon.run(f'[daemon]\ncontrol = "{daemon.folder}/s"\n[[port]]\nname = "wan"\n{port}')


def run(daemon: Daemon) -> dict[str, Any]:
    """The whole report."""
    devices = {name: driver_of(name) for name in sorted(os.listdir("/sys/class/net")) if driver_of(name)}
    report: dict[str, Any] = {"cards": {}}
    for name, driver in devices.items():
        netns.run(["ip", "link", "set", name, "up"])
        report["cards"][driver] = {
            "plain": asked(name, FlowerDriver()),
            "forced": asked(name, FlowerDriver(features=lambda target: {"hw-tc-offload": True})),
            "left": shown("tc", "qdisc", "show", "dev", name).count("clsact"),
            "ntuple": started(daemon, f'type = "packet"\ndevice = "{name}"\n{NTUPLE}'),
        }
        until(lambda: daemon.process is not None and daemon.process.poll() is not None)
    card = next(name for name, driver in devices.items() if driver == "e1000")
    report["before"] = settings(card)
    port = f'type = "packet"\ndevice = "{card}"\n{SETTINGS}'
    report["log"] = started(daemon, port)
    report["set"] = settings(card)
    daemon.stop()
    report["after"] = settings(card)
    started(daemon, port)
    daemon.stop(signal.SIGKILL)
    report["killed"] = settings(card)
    report["elsewhere"] = started(daemon, 'type = "memory"\n')
    report["swept"] = settings(card)
    daemon.stop()
    return report


def main() -> None:
    """Run everything."""
    with tempfile.TemporaryDirectory(prefix="userfw-cards-") as folder:
        print(json.dumps(run(Daemon(Path(folder)))))


if __name__ == "__main__":
    main()
