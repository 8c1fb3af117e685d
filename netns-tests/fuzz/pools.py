"""The values that rules and frames share, small enough to meet often."""

from collections.abc import Sequence

from lab.families import EVERY, IP4, IP6, Family
from lab.kernel import BRIDGE_MAC
from lab.topology import BRIDGED, SIDES

NAMES, PORTS_OF_BRIDGE = tuple(SIDES), tuple(BRIDGED)
ALL_NAMES = tuple(EVERY)
"""The networks around the router; the ports of its bridge, each with hosts behind it; both."""
OWN_MACS = (BRIDGE_MAC, *(side.router_mac for side in EVERY.values()))
SELF = "self"
"""Where the router's own packets come from, in place of a port."""
STRANGERS = ("02:00:00:00:07:07", "02:00:00:00:08:08")
"""Hardware addresses that move from port to port, or are nowhere."""
HOSTS = (10, 11, 12, 13)
FAR = {"ip": ("198.51.100.7", "8.8.8.8"), "ip6": ("2001:db8:99::7", "2606:4700::1111")}
PORTS = (1, 22, 53, 80, 443, 512, 599, 4000, 5353, 8080, 40000, 65535)
LISTENED = 9
"""The router has a transparent UDP socket there, of everybody's address, that never answers; no host sends to it by itself."""
SOURCES = tuple(port for port in PORTS if port >= 512)
"""From these Linux takes a new port at random where none of `PORTS` is, or seldom: from 600 to 1023, and beyond (get_unique_tuple).
Of a lower one it would find one of 511, and then a chosen port would be a known one, and nothing hides it."""
IDENTS = (1, 7, 0x100, 0xFFFF)
MARKS = (0, 1, 2, 0x10, 0xFF00, 0x80000001)
TTLS = (1, 2, 9, 64, 64, 64, 128, 255)
PROTOCOLS = (1, 6, 17, 47, 50, 58, 99, 132)
CARRIED = (1, 6, 17, 50, 58, 99, 132)
SEQUENCES = (0, 1000, 1001, 5000, 5001, 0x7FFFFFFF, 0xFFFFFFF0)
WINDOWS = (0, 100, 1024, 65535)


def family(name: str) -> Family:
    """The family of a keyword."""
    return IP6 if name == "ip6" else IP4


def hosts(name: str, sides: Sequence[str] = NAMES) -> list[str]:
    """Every host address of a family that has a neighbour entry."""
    return [family(name).host(side, number) for side in sides for number in HOSTS]


def routers(name: str, sides: Sequence[str] = NAMES) -> list[str]:
    """The router's addresses of a family."""
    return [family(name).host(side, 1) for side in sides]
