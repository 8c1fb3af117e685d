"""The arguments of options: how each kind is read, and the nft text it makes.

Laws: ``read`` takes the text and gives a plain value or raises ``Bad`` (which the parser words with the option's name);
``express`` gives the nft text from the left side, the inversion and the value. Numbers are read as C's strtoul with base 0.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Any

from userfw.iptables.family import Family
from userfw.nft.datatype_names import PROTOCOLS, SERVICES

ALL_ONES = 0xFFFFFFFF


class Bad(Exception):
    """An argument that cannot be; the text, if any, says more than the usual sentence."""


@dataclass
class Names:
    """Users and groups: the caller's way to look them up (None when there is none)."""

    user: Callable[[str], int | None] = lambda name: 0 if name == "root" else None
    group: Callable[[str], int | None] = lambda name: 0 if name == "root" else None


@dataclass(frozen=True)
class Context:
    """What reading may depend on."""

    family: Family
    names: Names = field(default_factory=Names)


Express = Callable[[str, bool, Any, Family], str]


def compare(left: str, inverted: bool, text: str) -> str:
    """``left text`` or ``left != text``."""
    return f"{left} != {text}" if inverted else f"{left} {text}"


@dataclass(frozen=True)
class Kind:
    """How arguments of one kind are read and written."""

    read: Callable[[str, Context], Any]
    show: Callable[[Any], str] = str
    arguments: int = 1
    own: Express | None = None

    def express(self, left: str, inverted: bool, value: Any, family: Family) -> str:
        """The nft text of a comparison with the value."""
        if self.own is not None:
            return self.own(left, inverted, value, family)
        return compare(left, inverted, self.show(value))


def plain(left: str, inverted: bool, value: Any, family: Family) -> str:
    """The left side says it all; ``yes|no`` gives the two ways round."""
    yes, _, no = left.partition("|")
    return no if inverted and no else yes


FLAG = Kind(lambda text, context: True, arguments=0, own=plain)


# --- numbers


def integer(text: str, low: int = 0, high: int = ALL_ONES, base: int = 0) -> int:
    """A number as strtoul reads it, within bounds; raises Bad."""
    match = re.fullmatch(r"\+?(?:(0[xX][0-9a-fA-F]+)|([0-9a-fA-F]+))", text, re.ASCII)
    if match is None:
        raise Bad
    try:
        digits = match[1] or match[2]
        if base:
            value = int(digits, base)
        elif match[1]:
            value = int(digits, 16)
        else:
            value = int(digits, 8 if digits[0] == "0" and len(digits) > 1 else 10)
    except ValueError:
        raise Bad from None
    if not low <= value <= high:
        raise Bad(f"out of range ({low}-{high})")
    return value


def bare_hex(text: str, high: int) -> int:
    """A hexadecimal number with or without 0x."""
    return integer(text[2:] if text[:2] in ("0x", "0X") else text, 0, high, 16)


def number(high: int = ALL_ONES, low: int = 0, show: str = "{}", base: int = 0) -> Kind:
    """A number; ``show`` is a format."""
    return Kind(lambda text, context: integer(text, low, high, base), show.format)


def pair(text: str, one: Callable[[str], int], high: int, separator: str = ":") -> tuple[int, int]:
    """``a``, ``a:b``, ``a:``, ``:b`` or ``:``; raises Bad unless ascending."""
    left, mark, right = text.partition(separator)
    if not mark:
        value = one(left)
        return value, value
    low = one(left) if left else 0
    top = one(right) if right else high
    if low > top:
        raise Bad("range must be ascending")
    return low, top


def show_range(value: tuple[int, int]) -> str:
    return str(value[0]) if value[0] == value[1] else f"{value[0]}-{value[1]}"


def full_range(high: int) -> Express:
    """Nothing need be said for the full range, unless it is inverted."""

    def express(left: str, inverted: bool, value: tuple[int, int], family: Family) -> str:
        if value == (0, high) and not inverted:
            return ""
        return compare(left, inverted, show_range(value))

    return express


def span(high: int = ALL_ONES, skip: bool = False, most: int = ALL_ONES) -> Kind:
    """A number or a range; with ``skip`` the full range needs no text. nft takes no more than ``most``."""

    def read(text: str, context: Context) -> tuple[int, int]:
        low, top = pair(text, lambda part: integer(part, 0, high), high)
        return min(low, most), min(top, most)

    return Kind(read, show_range, own=full_range(min(high, most)) if skip else None)


# --- ports and protocols


def port(text: str) -> int:
    """A port number or the name of a service."""
    if text in SERVICES:
        return int(SERVICES[text])
    try:
        return integer(text, 0, 0xFFFF)
    except Bad:
        raise Bad(f"invalid port/service `{text}' specified") from None


def protocol(text: str) -> int:
    """A protocol's number from its number or name, ``all`` is 0."""
    name = text.lower()
    if name == "all":
        return 0
    if name in PROTOCOL_ALIASES:
        return PROTOCOL_ALIASES[name]
    if name in PROTOCOLS:
        return int(PROTOCOLS[name])
    try:
        return integer(text, 0, 255)
    except Bad:
        raise Bad(f'unknown protocol "{text}" specified') from None


PROTOCOL_ALIASES = {
    "icmpv6": 58, "icmp6": 58, "ipv6-icmp": 58, "mh": 135, "ipv6-mh": 135, "esp": 50, "ah": 51, "udplite": 136, "ipcomp": 108,
    "dccp": 33, "sctp": 132, "tcp": 6, "udp": 17, "icmp": 1,
}  # fmt: skip
PROTOCOL_TEXT = {number: name for name, number in reversed(PROTOCOLS.items())}


def protocol_text(number: int) -> str:
    """The name that nft prints for a protocol, or its number."""
    return PROTOCOL_TEXT.get(number, str(number))


PORTS = Kind(lambda text, context: pair(text, port, 0xFFFF), show_range, own=full_range(0xFFFF))
PORT_RANGE = Kind(lambda text, context: pair(text, port, 0xFFFF), show_range)
PROTOCOL = Kind(lambda text, context: protocol(text))


def port_list(text: str, context: Context) -> list[tuple[int, int]]:
    """Up to fifteen ports, a range counting two."""
    found = [pair(part, port, 0xFFFF) for part in text.split(",")]
    if sum(1 if low == high and ":" not in part else 2 for (low, high), part in zip(found, text.split(","), strict=True)) > 15:
        raise Bad("too many ports specified")
    return found


PORT_LIST = Kind(port_list)


# --- words and strings


def string(limit: int = 0, low: int = 0) -> Kind:
    """Any text of up to ``limit`` octets."""

    def read(text: str, context: Context) -> str:
        if (limit and len(text.encode("utf-8", "surrogateescape")) > limit) or len(text) < low:
            raise Bad(f"too long, maximum length is {limit}")
        return text

    return Kind(read, lambda value: f'"{value}"')


def choice(words: dict[str, Any] | tuple[str, ...], show: Callable[[Any], str] = str, fold: bool = True) -> Kind:
    """One of some words (upper or lower case), giving what it stands for."""
    table = words if isinstance(words, dict) else {word: word for word in words}

    def read(text: str, context: Context) -> Any:
        found = table.get(text.lower() if fold else text)
        if found is None:
            raise Bad
        return found

    return Kind(read, show)


def subset(words: tuple[str, ...], joined: str = ",") -> Kind:
    """Some of the words with commas between, as a set; shown in the order of ``words``."""

    def read(text: str, context: Context) -> frozenset[str]:
        parts = text.upper().split(",")
        if not all(part in words for part in parts):
            raise Bad
        return frozenset(parts)

    return Kind(read, lambda value: joined.join(w.lower().replace("_", "-") for w in words if w in value))


# --- addresses


def address(text: str, bits: int) -> int:
    """An address as a number; raises Bad."""
    try:
        return int(IPv4Address(text)) if bits == 32 else int(IPv6Address(text))
    except (AddressValueError, ValueError):
        raise Bad(f"host/network `{text}' not found") from None


def address_text(value: int, bits: int) -> str:
    """The address of a number, as nft writes it."""
    return str(IPv4Address(value)) if bits == 32 else str(IPv6Address(value))


def ones(length: int, bits: int) -> int:
    return ((1 << length) - 1) << (bits - length)


def prefix_length(mask: int, bits: int) -> int | None:
    """The length of a contiguous mask, None for another."""
    length = bin(mask).count("1")
    return length if mask == ones(length, bits) else None


def network(text: str, bits: int) -> tuple[int, int]:
    """``address[/length|/mask]`` as (address & mask, mask)."""
    host, slash, tail = text.partition("/")
    value = address(host, bits)
    mask = ones(bits, bits)
    if slash:
        try:
            mask = ones(int(tail), bits) if re.fullmatch(r"\d{1,3}", tail, re.ASCII) and int(tail) <= bits else address(tail, bits)
        except Bad:
            raise Bad(f"invalid mask `{tail}' specified") from None
    return value & mask, mask


def masked(left: str, inverted: bool, value: tuple[int, int], bits: int) -> str:
    """A comparison with a network, with a prefix where the mask is one."""
    number, mask = value
    length = prefix_length(mask, bits)
    if length is None:
        return f"{left} & {address_text(mask, bits)} {'!=' if inverted else '=='} {address_text(number, bits)}"
    text = address_text(number, bits) + (f"/{length}" if length < bits else "")
    return compare(left, inverted, text)


NETWORK = Kind(
    lambda text, context: network(text, context.family.bits),
    own=lambda left, inverted, value, family: masked(left, inverted, value, family.bits),
)


def network_of(bits: int) -> Kind:
    """A network of a family other than the rule's own."""
    return Kind(
        lambda text, context: network(text, bits),
        own=lambda left, inverted, value, family: masked(left, inverted, value, bits),
    )


def read_address_range(text: str, context: Context) -> tuple[int, int]:
    low, dash, high = text.partition("-")
    first = address(low, context.family.bits)
    last = address(high, context.family.bits) if dash else first
    if first > last:
        raise Bad("range must be ascending")
    return first, last


def express_address_range(left: str, inverted: bool, value: tuple[int, int], family: Family) -> str:
    return compare(left, inverted, "-".join(address_text(part, family.bits) for part in value))


ADDRESS_RANGE = Kind(read_address_range, own=express_address_range)
ADDRESS = Kind(lambda text, context: address(text, context.family.bits))
ADDRESS4 = Kind(lambda text, context: address(text, 32), lambda value: address_text(value, 32))


def mac(text: str) -> bytes:
    """Six octets with colons between, leading zeros may be missing."""
    parts = text.split(":")
    if len(parts) != 6 or not all(re.fullmatch(r"[0-9a-fA-F]{1,2}", part, re.ASCII) for part in parts):
        raise Bad
    return bytes(int(part, 16) for part in parts)


def mac_text(value: bytes, pad: bool = True) -> str:
    """Octets with colons; ether_ntoa writes no leading zeros."""
    return ":".join(f"{octet:02x}" if pad else f"{octet:x}" for octet in value)


MAC = Kind(lambda text, context: mac(text), mac_text)
MAC_SHORT = Kind(lambda text, context: mac(text), lambda value: mac_text(value, pad=False))


# --- marks


def read_mark(text: str, context: Context) -> tuple[int, int]:
    value, slash, mask = text.partition("/")
    return integer(value), integer(mask) if slash else ALL_ONES


def express_mark(left: str, inverted: bool, value: tuple[int, int], family: Family) -> str:
    number, mask = value
    if mask == ALL_ONES:
        return compare(left, inverted, f"{number:#x}")
    return f"{left} and {mask:#x} {'!=' if inverted else '=='} {number:#x}"


MARK = Kind(read_mark, own=express_mark)
HEX = number(show="{:#x}")


def identifier(lookup: str) -> Kind:
    """A user or group: a name, a number, or a range of numbers."""

    def read(text: str, context: Context) -> tuple[int, int]:
        found = getattr(context.names, lookup)(text)
        if found is not None:
            return int(found), int(found)
        low, dash, high = text.partition("-")
        first, last = integer(low), integer(high) if dash else integer(low)
        if first > last:
            raise Bad
        return first, last

    return Kind(read, show_range)
