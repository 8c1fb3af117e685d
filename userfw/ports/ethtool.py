"""ethtool by generic netlink: features, link, rings and channels of an interface, read and set; n-tuple rules by ioctl.

Netlink wherever the kernel has it (Documentation/networking/ethtool-netlink.rst); the rules of ETHTOOL_SRXCLSRLINS exist as an
ioctl only (include/uapi/linux/ethtool.h, struct ethtool_rxnfc). Built on ports.netlink, for the daemon's one thread.

Law: what a device does not know is absent from an answer, never an error; setting what it does not know is an OSError.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final

from userfw.ports.netlink import Netlink, attribute, attributes_untrusted
from userfw.ports.netns import run_in

NETLINK_GENERIC = 16
_CONTROL, _GETFAMILY = 0x10, 3
LINKINFO_GET, LINKMODES_GET, LINKMODES_SET, LINKSTATE_GET = 2, 4, 5, 6
FEATURES_GET, FEATURES_SET, RINGS_GET, RINGS_SET, CHANNELS_GET, CHANNELS_SET = 11, 12, 15, 16, 17, 18

# Attribute numbers of plain numbers: name -> (number, struct format)
RINGS: Final = {
    "rx-max": (2, "I"), "rx-mini-max": (3, "I"), "rx-jumbo-max": (4, "I"), "tx-max": (5, "I"),
    "rx": (6, "I"), "rx-mini": (7, "I"), "rx-jumbo": (8, "I"), "tx": (9, "I"),
}  # fmt: skip
CHANNELS: Final = {
    "rx-max": (2, "I"), "tx-max": (3, "I"), "other-max": (4, "I"), "combined-max": (5, "I"),
    "rx": (6, "I"), "tx": (7, "I"), "other": (8, "I"), "combined": (9, "I"),
}  # fmt: skip
LINK: Final = {"autoneg": (2, "B"), "speed": (5, "I"), "duplex": (6, "B")}
TABLES: Final = {
    "rings": (RINGS, RINGS_GET, RINGS_SET),
    "channels": (CHANNELS, CHANNELS_GET, CHANNELS_SET),
    "link": (LINK, LINKMODES_GET, LINKMODES_SET),
}
SPEED_UNKNOWN: Final = 0xFFFFFFFF
DUPLEX: Final = {0: "half", 1: "full"}
_UNKNOWN = (errno.EOPNOTSUPP, errno.ENODEV, errno.ENOENT, errno.EINVAL)


class Ethtool(Netlink):
    """A generic netlink socket for ethtool in namespace `netns`. OSError ENOENT: the kernel has no ethtool netlink (before 5.6)."""

    def __init__(self, netns: str | None = None) -> None:
        super().__init__(netns, protocol=NETLINK_GENERIC)
        self.netns = netns
        try:
            self.family = self._family()
        except BaseException:
            self.close()
            raise

    def _family(self) -> int:
        ask = struct.pack("=BBH", _GETFAMILY, 1, 0) + attribute(2, b"ethtool\0")
        for _, body in self.request(_CONTROL, 0, ask):
            number = attributes_untrusted(body[4:]).get(1, b"")
            if len(number) == 2:
                return int(struct.unpack("=H", number)[0])
        raise OSError(errno.ENOENT, "the kernel has no ethtool netlink")

    def _ask(self, command: int, ifname: str, more: bytes = b"") -> dict[int, bytes]:
        header = attribute(1 | 0x8000, attribute(2, ifname.encode() + b"\0"))
        answers = self.request(self.family, 0, struct.pack("=BBH", command, 1, 0) + header + more)
        return attributes_untrusted(answers[0][1][4:]) if answers and len(answers[0][1]) >= 4 else {}

    def features(self, ifname: str) -> dict[str, bool]:
        """Every feature that the device has or could have, by the kernel's names, and whether it is on. OSError: no such device."""
        answer = self._ask(FEATURES_GET, ifname)
        known = bits_untrusted(answer.get(2, b""))  # ETHTOOL_A_FEATURES_HW: those that can be changed
        active = bits_untrusted(answer.get(4, b""))
        return {name: name in active for name in sorted(known | active)}

    def fixed(self, ifname: str) -> frozenset[str]:
        """Features that are as they are: on without being changeable, or never to be changed."""
        answer = self._ask(FEATURES_GET, ifname)
        return (bits_untrusted(answer.get(4, b"")) - bits_untrusted(answer.get(2, b""))) | bits_untrusted(answer.get(5, b""))

    def set_features(self, ifname: str, wanted: Mapping[str, bool]) -> None:
        """Switch features. OSError EOPNOTSUPP names those that the device did not switch."""
        bits = b""
        for name, on in wanted.items():
            bits += attribute(1 | 0x8000, attribute(2, name.encode() + b"\0") + (attribute(3, b"") if on else b""))
        self._ask(FEATURES_SET, ifname, attribute(3 | 0x8000, attribute(3 | 0x8000, bits)))
        now = self.features(ifname)
        left = [name for name, on in wanted.items() if now.get(name, False) != on]
        if left:
            raise OSError(errno.EOPNOTSUPP, f"the device does not switch {', '.join(left)}")

    def numbers(self, what: str, ifname: str) -> dict[str, int]:
        """`rings`, `channels` or `link` of a device; empty if it has none."""
        table, get, _ = TABLES[what]
        try:
            answer = self._ask(get, ifname)
        except OSError as error:
            if error.errno in _UNKNOWN:
                return {}
            raise
        return {
            name: int(struct.unpack("=" + form, answer[number])[0])
            for name, (number, form) in table.items()
            if len(answer.get(number, b"")) == struct.calcsize(form)
        }

    def set_numbers(self, what: str, ifname: str, wanted: Mapping[str, int]) -> None:
        """Change some of `rings`, `channels` or `link`. OSError from the device; KeyError is a name that does not exist."""
        table, _, command = TABLES[what]
        more = b"".join(attribute(table[name][0], struct.pack("=" + table[name][1], value)) for name, value in wanted.items())
        self._ask(command, ifname, more)

    def modes(self, ifname: str) -> frozenset[str]:
        """The link modes that the device advertises (or would, with autonegotiation on); empty if it does not tell."""
        try:
            return bits_untrusted(self._ask(LINKMODES_GET, ifname).get(3, b""))  # ETHTOOL_A_LINKMODES_OURS
        except OSError:
            return frozenset()

    def negotiate(self, ifname: str, modes: Iterable[str]) -> None:
        """Autonegotiation on, and exactly these modes advertised; speed and duplex come of it. OSError from the device."""
        bits = b"".join(attribute(1 | 0x8000, attribute(2, name.encode() + b"\0")) for name in modes)
        ours = attribute(3 | 0x8000, attribute(1, b"") + attribute(3 | 0x8000, bits))  # no mask: this list is all
        self._ask(LINKMODES_SET, ifname, attribute(LINK["autoneg"][0], b"\x01") + ours)

    def carrier(self, ifname: str) -> bool | None:
        """Whether the link is there; None if the device does not say."""
        try:
            answer = self._ask(LINKSTATE_GET, ifname)
        except OSError:
            return None
        state = answer.get(2, b"")
        return bool(state[0]) if state else None

    def describe(self, ifname: str) -> dict[str, Any]:
        """All of it, as `userfw ports` shows it. OSError if the device is gone."""
        link: dict[str, Any] = dict(self.numbers("link", ifname))
        if link.get("speed") == SPEED_UNKNOWN:
            del link["speed"]
        if "duplex" in link:
            link["duplex"] = DUPLEX.get(link["duplex"], "unknown")
        if "autoneg" in link:
            link["autoneg"] = bool(link["autoneg"])
        found: dict[str, Any] = {"features": self.features(ifname), "fixed": sorted(self.fixed(ifname)), "link": link}
        for what in ("channels", "rings"):
            found[what] = self.numbers(what, ifname)
        rules = Steering(ifname, self.netns).rules()
        if rules is not None:
            found["ntuple"] = rules
        return found


def bits_untrusted(data: bytes) -> frozenset[str]:
    """The names that are set in a bitset that was asked for with names (ETHTOOL_A_BITSET_BITS; absent VALUE means clear)."""
    bitset = attributes_untrusted(data)
    listed = 1 in bitset  # NOMASK: only set bits are listed
    names = set()
    bits, off = bitset.get(3, b""), 0
    while off + 4 <= len(bits):
        length = struct.unpack_from("=H", bits, off)[0]
        if length < 4 or off + length > len(bits):
            break
        bit = attributes_untrusted(bits[off + 4 : off + length])
        if 2 in bit and (listed or 3 in bit):
            names.add(bit[2].rstrip(b"\0").decode(errors="replace"))
        off += (length + 3) & ~3
    return frozenset(names)


def features(ifname: str, netns: str | None = None) -> dict[str, bool]:
    """The features of one interface; empty if the kernel or the device does not tell."""
    try:
        tool = Ethtool(netns)
    except OSError:
        return {}
    try:
        return tool.features(ifname)
    except OSError:
        return {}
    finally:
        tool.close()


# -- n-tuple rules

SIOCETHTOOL = 0x8946
GRXCLSRLCNT, GRXCLSRULE, GRXCLSRLALL, SRXCLSRLDEL, SRXCLSRLINS = 0x2E, 0x2F, 0x30, 0x31, 0x32
RXNFC_SIZE, SPEC_AT, MASK_AT, COOKIE_AT, LOCATION_AT, COUNT_AT = 192, 20, 92, 168, 176, 184
LOCATION_ANY, LOCATION_SPECIAL, DATA_AT = 0xFFFFFFFF, 0x80000000, 8
DISCARD = 0xFFFFFFFFFFFFFFFF
FLOWS: Final = {"tcp4": 1, "udp4": 2, "sctp4": 3, "tcp6": 5, "udp6": 6, "sctp6": 7}


@dataclass(frozen=True, slots=True)
class Steer:
    """One n-tuple rule: frames of `flow` from and to these ends go to receive queue `queue`, or nowhere if it is None.

    An address or a port that is None matches all. `location`: the rule's place in the card; None is any that is free.
    """

    flow: str
    queue: int | None = None
    source: IPv4Address | IPv6Address | None = None
    destination: IPv4Address | IPv6Address | None = None
    source_port: int | None = None
    destination_port: int | None = None
    location: int | None = None

    def __post_init__(self) -> None:
        if self.flow not in FLOWS:
            raise ValueError(f"no such kind of flow: {self.flow} (one of {', '.join(FLOWS)})")
        for address in (self.source, self.destination):
            if address is not None and address.version != int(self.flow[-1]):
                raise ValueError(f"{address} is no address of {self.flow}")

    def encode(self) -> bytes:
        """struct ethtool_rxnfc for ETHTOOL_SRXCLSRLINS."""
        size = 4 if self.flow.endswith("4") else 16
        spec = mask = b""
        for address in (self.source, self.destination):
            spec += address.packed if address is not None else bytes(size)
            mask += (b"\xff" if address is not None else b"\0") * size
        for port in (self.source_port, self.destination_port):
            spec += (port or 0).to_bytes(2, "big")
            mask += b"\xff\xff" if port is not None else b"\0\0"
        data = bytearray(RXNFC_SIZE)
        struct.pack_into("=II", data, 0, SRXCLSRLINS, 0)
        struct.pack_into("=I", data, 16, FLOWS[self.flow])
        data[SPEC_AT : SPEC_AT + len(spec)] = spec
        data[MASK_AT : MASK_AT + len(mask)] = mask
        struct.pack_into("=QI", data, COOKIE_AT, DISCARD if self.queue is None else self.queue,
                         LOCATION_ANY if self.location is None else self.location)  # fmt: skip
        return bytes(data)

    @classmethod
    def decode_untrusted(cls, data: bytes) -> Steer | None:
        """A rule as the driver tells it; None for a kind or mask that this class does not express."""
        kind = struct.unpack_from("=I", data, 16)[0]
        names = [name for name, number in FLOWS.items() if number == kind]
        if not names:
            return None
        size, make = (4, IPv4Address) if names[0].endswith("4") else (16, IPv6Address)
        fields: list[Any] = []
        for at, length in ((0, size), (size, size), (2 * size, 2), (2 * size + 2, 2)):
            mask = data[MASK_AT + at : MASK_AT + at + length]
            value = data[SPEC_AT + at : SPEC_AT + at + length]
            if mask not in (bytes(length), b"\xff" * length):
                return None
            fields.append(None if not any(mask) else make(value) if length > 2 else int.from_bytes(value, "big"))
        cookie, location = struct.unpack_from("=QI", data, COOKIE_AT)
        source, destination, source_port, destination_port = fields
        queue = None if cookie == DISCARD else cookie
        return cls(names[0], queue, source, destination, source_port, destination_port, location)


class Steering:
    """The n-tuple rules of one interface."""

    def __init__(self, ifname: str, netns: str | None = None) -> None:
        self.ifname, self.netns = ifname, netns

    def _ioctl(self, data: bytearray) -> bytearray:
        import ctypes

        def call() -> None:
            buffer = (ctypes.c_char * len(data)).from_buffer(data)
            request = struct.pack("=16sQ16x", self.ifname.encode(), ctypes.addressof(buffer))
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                fcntl.ioctl(sock, SIOCETHTOOL, request)

        run_in(self.netns, call)
        return data

    def add(self, rule: Steer) -> int:
        """Put a rule in; its location. OSError EOPNOTSUPP: the device has no such rules, ENOSPC: no place is free."""
        if rule.location is None:
            rule = replace(rule, location=self._free())
        answer = self._ioctl(bytearray(rule.encode()))
        return int(struct.unpack_from("=I", answer, LOCATION_AT)[0])

    def _free(self) -> int:
        """Where a rule may go: wherever the driver says if it chooses itself, else the last place that is free, as ethtool does."""
        count, special = self._count()
        if special:
            return LOCATION_ANY
        size, taken = self._locations(count)
        free = next((at for at in range(size - 1, -1, -1) if at not in taken), None)
        if free is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return free

    def _count(self) -> tuple[int, bool]:
        """How many rules there are, and whether the driver finds places for new ones (RX_CLS_LOC_SPECIAL)."""
        data = bytearray(RXNFC_SIZE)
        struct.pack_into("=I", data, 0, GRXCLSRLCNT)
        answer = self._ioctl(data)
        return struct.unpack_from("=I", answer, COUNT_AT)[0], bool(struct.unpack_from("=Q", answer, DATA_AT)[0] & LOCATION_SPECIAL)

    def _locations(self, count: int) -> tuple[int, tuple[int, ...]]:
        """The size of the table, and where there are rules."""
        data = bytearray(RXNFC_SIZE + 4 * count)
        struct.pack_into("=I", data, 0, GRXCLSRLALL)
        struct.pack_into("=I", data, COUNT_AT, count)
        answer = self._ioctl(data)
        return struct.unpack_from("=Q", answer, DATA_AT)[0], struct.unpack_from(f"={count}I", answer, COUNT_AT + 4)

    def remove(self, location: int) -> None:
        """Take the rule at `location` out."""
        data = bytearray(RXNFC_SIZE)
        struct.pack_into("=I", data, 0, SRXCLSRLDEL)
        struct.pack_into("=I", data, LOCATION_AT, location)
        self._ioctl(data)

    def rules(self) -> list[dict[str, Any]] | None:
        """Every rule that the device has, as JSON types; None if it has no such rules."""
        try:
            found = []
            for location in self._locations(self._count()[0])[1]:
                data = bytearray(RXNFC_SIZE)
                struct.pack_into("=I", data, 0, GRXCLSRULE)
                struct.pack_into("=I", data, LOCATION_AT, location)
                rule = Steer.decode_untrusted(bytes(self._ioctl(data)))
                found.append(_row(rule) if rule is not None else {"location": location, "flow": "other"})
            return found
        except OSError:
            return None


def _row(rule: Steer) -> dict[str, Any]:
    row: dict[str, Any] = {"location": rule.location, "flow": rule.flow}
    row |= {"queue": rule.queue} if rule.queue is not None else {"drop": True}
    for name in ("source", "destination", "source_port", "destination_port"):
        value = getattr(rule, name)
        if value is not None:
            row[name.replace("_", "-")] = value if isinstance(value, int) else str(value)
    return row
