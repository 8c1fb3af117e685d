"""What differs between the families, as data.

Laws: a family has a row; code asks the row and never compares family names when it can ask for a property.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """One of the four rule languages."""

    name: str  # nft's word
    program: str  # what its programs are called
    tables: tuple[str, ...]
    bits: int = 0  # of an address, 0 where rules have none
    protocol: str = ""  # the nft text before a transport protocol
    address: str = ""  # the word before saddr and daddr
    key: str = ""  # the set type of an address
    preloaded: bool = False  # every match is known without -m
    hooks: tuple[str, ...] = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")  # names of base chains


IPV4 = Family(
    "ip", "iptables", ("filter", "nat", "mangle", "raw", "security"), 32, "ip protocol", "ip", "ipv4_addr"
)  # fmt: skip
IPV6 = Family(
    "ip6", "ip6tables", ("filter", "nat", "mangle", "raw", "security"), 128, "meta l4proto", "ip6", "ipv6_addr"
)  # fmt: skip
ARP = Family("arp", "arptables", ("filter", "mangle"), 32, "", "arp", "ipv4_addr", hooks=("INPUT", "OUTPUT"))
BRIDGE = Family("bridge", "ebtables", ("filter", "nat", "broute"), preloaded=True)

FAMILIES = {family.program: family for family in (IPV4, IPV6, ARP, BRIDGE)}
