"""What names mean in the daemon's rules."""

from __future__ import annotations

from userfw.core.clock import Clock
from userfw.core.packet import Device
from userfw.daemon.names import DaemonNames
from userfw.router.gateway import Gateway


def test_interfaces_are_the_gateways_and_users_the_systems() -> None:
    gateway = Gateway(Clock())
    gateway.add_device(Device("lan", 7, bytes(6)))
    names = DaemonNames(gateway)
    assert (names.ifindex("lan"), names.ifname(7)) == (7, "lan")
    assert (names.ifindex("eth77"), names.ifname(99)) == (None, None)
    assert names.users["root"] == 0 and names.groups["root"] == 0


def test_no_host_name_is_looked_up() -> None:
    names = DaemonNames(Gateway(Clock()))
    assert names.host("localhost", "ip") == [bytes([127, 0, 0, 1])]
    assert names.host("example.com", "ip") == []
