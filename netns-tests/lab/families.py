"""The addresses of the topology by family, so that a test is written once for IPv4 and IPv6."""

from dataclasses import dataclass

from .topology import BRIDGED, SIDES

EVERY = {**SIDES, **BRIDGED}


@dataclass(frozen=True)
class Family:
    """One family: its nft keyword, its ICMP, and the addresses of hosts and router."""

    name: str
    icmp: str
    bits: int

    def host(self, side: str, number: int = 10) -> str:
        """A host's address; number 1 is the router."""
        return EVERY[side].ip6(number) if self.name == "ip6" else EVERY[side].ip4(number)

    def net(self, side: str) -> str:
        """The prefix of a side."""
        return f"{EVERY[side].net6}::/64" if self.name == "ip6" else f"{EVERY[side].net4}.0/24"

    @property
    def lan(self) -> str:
        """Host 10 of lan."""
        return self.host("lan")

    @property
    def dmz(self) -> str:
        """Host 10 of dmz."""
        return self.host("dmz")

    @property
    def wan(self) -> str:
        """Host 10 of wan."""
        return self.host("wan")

    @property
    def edge(self) -> str:
        """Host 10 of edge."""
        return self.host("edge")

    @property
    def out(self) -> str:
        """The router's address at wan."""
        return self.host("wan", 1)

    def __str__(self) -> str:
        return self.name


IP4, IP6 = Family("ip", "icmp", 32), Family("ip6", "icmpv6", 128)
EACH = (IP4, IP6)
