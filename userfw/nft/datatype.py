"""Data types of the nft language: width, byte order, text to value and back.

Laws:
- A value is an ``int`` (the mathematical value, whatever its byte order) or ``bytes`` (strings, unpadded).
- ``parse`` takes one word as written and gives a value or raises ``ValueError`` with nft's own reason.
- ``format`` gives the text that nft 1.1.6 lists for a value; what it prints depends only on ``Output``.
- Nothing here asks the system: names of interfaces, users, services and hosts come from ``Names``.
- Type numbers are part of nft's netlink user data (``enum datatypes``); concatenations pack them in 6 bits each.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from socket import AF_INET, AF_INET6, inet_aton, inet_ntop, inet_pton
from typing import ClassVar, Final, Literal

BIG: Final = "big"
HOST: Final = "host"
HOST_IS: Final[Literal["little"]] = "little"
"""Byte order of host-order values in registers: the one of every machine that userfw supports, and of the corpora."""

_DECIMAL = re.compile(r"(?:0[xX][0-9a-fA-F]+|[0-9]+)\Z")


class Names:
    """Names that the outside knows: interfaces, users, services, hosts, and the tables in /etc/iproute2.

    The methods answer from fixed tables; the shell replaces them by a subclass that asks the system.
    """

    interfaces: ClassVar[dict[str, int]] = {"lo": 1}
    users: ClassVar[dict[str, int]] = {"root": 0, "daemon": 1, "bin": 2}
    groups: ClassVar[dict[str, int]] = {"root": 0, "daemon": 1, "bin": 2}
    realms: ClassVar[dict[str, int]] = {"cosmos": 0}
    device_groups: ClassVar[dict[str, int]] = {"default": 0}
    marks: ClassVar[dict[str, int]] = {}
    labels: ClassVar[dict[str, int]] = {}
    cgroups: ClassVar[dict[str, int]] = {"system.slice": 1, "user.slice": 2}
    utc_offset: int = 0
    """Seconds east of UTC, used by ``meta time`` and ``meta hour``."""

    def cgroup(self, path: str) -> int | None:
        """The number (inode) of a cgroup below the root."""
        return self.cgroups.get(path)

    def cgroup_path(self, number: int) -> str | None:
        return next((path for path, found in self.cgroups.items() if found == number), None)

    def ifindex(self, name: str) -> int | None:
        return self.interfaces.get(name)

    def ifname(self, index: int) -> str | None:
        for name, number in self.interfaces.items():
            if number == index:
                return name
        return None

    def service(self, name: str) -> int | None:
        """The port of a service name, of any transport."""
        from userfw.nft.datatype_names import SERVICES

        return SERVICES.get(name)

    def service_name(self, port: int) -> str | None:
        from userfw.nft.datatype_names import SERVICE_NAMES

        return SERVICE_NAMES.get(port)

    def host(self, name: str, family: str) -> list[bytes]:
        """Addresses (network order) of a host name; family ``ip`` or ``ip6``."""
        if name == "localhost":
            return [inet_pton(AF_INET, "127.0.0.1") if family == "ip" else inet_pton(AF_INET6, "::1")]
        return []

    def utc_offset_at(self, when: int) -> int:
        """Seconds east of UTC at a UNIX time."""
        return self.utc_offset


@dataclass(frozen=True)
class Output:
    """What a listing shows as numbers and what as names; the defaults are nft's own."""

    numeric_proto: bool = False
    numeric_symbol: bool = False
    numeric_time: bool = False
    numeric_prio: bool = False
    service: bool = False
    guid: bool = False
    seconds: bool = False
    names: Names = field(default_factory=Names)
    marked: bool = False
    """Put addresses between MARKS, for a client that prints names instead."""

    def for_range(self) -> Output:
        """How the two ends of a range are printed: numbers rather than symbols."""
        cached = _RANGE_OUTPUT.get(id(self))
        if cached is None or cached[0] is not self:
            inner = Output(True, True, self.numeric_time, True, False, False, True, self.names)
            _RANGE_OUTPUT.clear()
            _RANGE_OUTPUT[id(self)] = cached = (self, inner)
        return cached[1]


MARKS: Final = ("\x01", "\x02")
_RANGE_OUTPUT: dict[int, tuple[Output, Output]] = {}

DEFAULT_NAMES = Names()
DEFAULT_OUTPUT = Output(names=DEFAULT_NAMES)


class Datatype:
    """One data type. ``width`` in bits, 0 where the expression decides."""

    __slots__ = ("base", "byteorder", "desc", "hexadecimal", "id", "name", "prefix", "quoted", "root", "symbols", "values", "width")

    def __init__(
        self,
        name: str,
        number: int,
        desc: str,
        width: int = 0,
        byteorder: str = BIG,
        base: Datatype | None = None,
        symbols: Mapping[str, int] | Iterable[tuple[str, int]] | None = None,
        *,
        hexadecimal: bool = False,
        prefix: bool = False,
        quoted: bool = False,
    ) -> None:
        self.name = name
        self.id = number
        self.desc = desc
        self.width = width
        self.byteorder = byteorder
        self.base = base
        self.symbols: dict[str, int] = dict(symbols or {})
        self.values: dict[int, str] = {}
        for word, value in self.symbols.items():
            self.values.setdefault(value, word)
        self.hexadecimal = hexadecimal
        self.prefix = prefix
        self.quoted = quoted
        self.root: Datatype = base.root if base is not None else self

    def __repr__(self) -> str:
        return f"<{self.name} {self.width} {self.byteorder}>"

    @property
    def octets(self) -> int:
        """Bytes of one value of this type in a register."""
        return (self.width + 7) >> 3

    @property
    def is_string(self) -> bool:
        return self.root.id == ID_STRING

    @property
    def is_bitmask(self) -> bool:
        """Comparisons with ``""`` test bits."""
        return self.id == ID_BITMASK or (self.base is not None and self.base.id == ID_BITMASK)

    def parse(self, text: str, names: Names = DEFAULT_NAMES) -> int | bytes:
        """The value of a word; ``ValueError`` when it is none of this type."""
        value = self.symbols.get(text)
        return self.parse_number(text) if value is None else value

    def parse_number(self, text: str) -> int:
        if _DECIMAL.match(text) is None:
            raise ValueError(f"Could not parse {self.desc if self.symbols else self.root.name}")
        if len(text) > _MAX_DIGITS:
            raise ValueError(f"Could not parse {self.desc}: the number has {len(text)} digits")
        if text[0] == "0" and len(text) > 1:
            return (
                int(text, 16) if text[1] in "xX" else int(text, 8) if text.isdigit() and set(text) <= set("01234567") else int(text)
            )
        return int(text)

    def from_int(self, value: int) -> int | bytes:
        """A number as written where this type is expected."""
        return value

    def format(self, value: int | bytes, out: Output = DEFAULT_OUTPUT) -> str:
        """The text of a value. A value of another width than the type's prints as a number."""
        assert isinstance(value, int)
        if not out.numeric_symbol:
            word = self.values.get(value)
            if word is not None:
                return f'"{word}"' if self.quoted else word
        return self.format_number(value)

    def format_number(self, value: int) -> str:
        if self.hexadecimal and self.is_bitmask:
            return f"0x{value:x}"
        if self.hexadecimal:
            return f"0x{value:0{(self.width + 3) >> 2}x}"
        return str(value)

    def encode(self, value: int | bytes, octets: int | None = None) -> bytes:
        """The value as it lies in a register or a set element."""
        size = self.octets if octets is None else octets
        if isinstance(value, bytes):
            return value.ljust(size, b"\0")
        return value.to_bytes(size, "big" if self.byteorder == BIG else HOST_IS)

    def sized(self, width: int, byteorder: str) -> Datatype:
        """This type at another width or byte order: for types whose width the expression decides."""
        if width == self.width and byteorder == self.byteorder:
            return self
        key = (self, width, byteorder)
        found = _SIZED.get(key)
        if found is None:
            found = _SIZED[key] = self._copy(width, byteorder)
        return found

    def _copy(self, width: int, byteorder: str) -> Datatype:
        twin = object.__new__(type(self))
        for cls in type(self).__mro__:
            for slot in getattr(cls, "__slots__", ()):
                setattr(twin, slot, getattr(self, slot))
        twin.width = width
        twin.byteorder = byteorder
        if self.root is self:
            twin.root = self
        return twin

    def same(self, other: Datatype) -> bool:
        """Whether nft takes the two for one type (widths apart)."""
        return self.name == other.name


_SIZED: dict[tuple[Datatype, int, str], Datatype] = {}

ID_VERDICT, ID_BITMASK, ID_INTEGER, ID_STRING = 1, 3, 4, 5


class StringType(Datatype):
    """Bytes, unpadded; ``width`` is the longest that fits."""

    __slots__ = ()

    def parse(self, text: str, names: Names = DEFAULT_NAMES) -> bytes:
        data = text.encode("utf-8", "surrogateescape")
        if not data:
            raise ValueError("Empty string is not allowed")
        if self.width and len(data) > self.octets:
            raise ValueError(f"String exceeds maximum length of {self.octets}")
        return data

    def from_int(self, value: int) -> bytes:
        return str(value).encode()

    def format(self, value: int | bytes, out: Output = DEFAULT_OUTPUT) -> str:
        assert isinstance(value, bytes)
        return f'"{value.decode("utf-8", "surrogateescape")}"'


class IfnameType(StringType):
    """An interface name: at most 15 bytes, not empty."""

    __slots__ = ()

    def parse(self, text: str, names: Names = DEFAULT_NAMES) -> bytes:
        data = text.encode("utf-8", "surrogateescape")
        if not data:
            raise ValueError("Empty string is not allowed")
        if len(data) > 15 and not (len(data) == 16 and data.endswith(b"*")):
            raise ValueError("String exceeds maximum length of 16")
        return data


class IPv4Type(Datatype):
    """Addresses as ``inet_aton`` reads them, or host names."""

    __slots__ = ()

    def parse(self, text: str, names: Names = DEFAULT_NAMES) -> int:
        try:
            return int.from_bytes(inet_aton(text), "big")
        except OSError:
            return _one_host(text, "ip", names)

    def format(self, value: int | bytes, out: Output = DEFAULT_OUTPUT) -> str:
        assert isinstance(value, int)
        text = inet_ntop(AF_INET, value.to_bytes(4, "big"))
        return f"{MARKS[0]}{text}{MARKS[1]}" if out.marked else text


class IPv6Type(Datatype):
    """Addresses as ``inet_pton`` reads them, or host names."""

    __slots__ = ()

    def parse(self, text: str, names: Names = DEFAULT_NAMES) -> int:
        try:
            return int.from_bytes(inet_pton(AF_INET6, text), "big")
        except OSError:
            return _one_host(text, "ip6", names)

    def format(self, value: int | bytes, out: Output = DEFAULT_OUTPUT) -> str:
        assert isinstance(value, int)
        text = inet_ntop(AF_INET6, value.to_bytes(16, "big"))
        return f"{MARKS[0]}{text}{MARKS[1]}" if out.marked else text


_MAX_DIGITS = 256
_HOSTNAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?\Z")


def _one_host(text: str, family: str, names: Names) -> int:
    found: list[bytes] = []
    if _HOSTNAME.match(text) and not text[0].isdigit():
        found = list(dict.fromkeys(names.host(text, family)))
    if not found:
        other = ":" in text and not text.strip("0123456789abcdefABCDEF:.") and family != "ip6"
        why = "Address family for hostname not supported" if other else "Name or service not known"
        raise ValueError(f"Could not resolve hostname: {why}")
    if len(found) > 1:
        raise ValueError("Hostname resolves to multiple addresses")
    return int.from_bytes(found[0], "big")


class EtherType(Datatype):
    """A link-layer address: hexadecimal octets separated by colons."""

    __slots__ = ()

    def parse(self, text: str, names: Names = DEFAULT_NAMES) -> int:
        parts = text.split(":")
        size = self.octets
        if (size and len(parts) != size) or not parts:
            raise ValueError(f"Could not parse {self.desc}")
        value = 0
        for part in parts:
            if not 1 <= len(part) <= 2 or not all(c in "0123456789abcdefABCDEF" for c in part):
                raise ValueError(f"Could not parse {self.desc}")
            value = value << 8 | int(part, 16)
        return value

    def format(self, value: int | bytes, out: Output = DEFAULT_OUTPUT) -> str:
        assert isinstance(value, int)
        return value.to_bytes(self.octets, "big").hex(":")


class ProtocolType(Datatype):
    """``inet_proto``: names from /etc/protocols."""

    __slots__ = ()

    def format(self, value: int | bytes, out: Output = DEFAULT_OUTPUT) -> str:
        assert isinstance(value, int)
        word = None if out.numeric_proto else self.values.get(value)
        return str(value) if word is None else word


class ServiceType(Datatype):
    """``inet_service``: numbers, or names when the listing wants them."""

    __slots__ = ()

    def parse(self, text: str, names: Names = DEFAULT_NAMES) -> int:
        if _DECIMAL.match(text):
            value = self.parse_number(text)
            if value > 0xFFFF:
                raise ValueError("Service out of range")
            return value
        port = names.service(text)
        if port is None:
            raise ValueError("Could not resolve service: Servname not supported for ai_socktype")
        return port

    def format(self, value: int | bytes, out: Output = DEFAULT_OUTPUT) -> str:
        assert isinstance(value, int)
        if out.service:
            word = out.names.service_name(value)
            if word is not None:
                return f'"{word}"'
        return str(value)


class IfindexType(Datatype):
    """An interface index, written and printed as a name."""

    __slots__ = ()

    def parse(self, text: str, names: Names = DEFAULT_NAMES) -> int:
        index = names.ifindex(text)
        if index is not None:
            return index
        if _DECIMAL.match(text):
            return self.parse_number(text)
        raise ValueError("Interface does not exist")

    def format(self, value: int | bytes, out: Output = DEFAULT_OUTPUT) -> str:
        assert isinstance(value, int)
        word = out.names.ifname(value)
        return str(value) if word is None else f'"{word}"'


class LookupType(Datatype):
    """Values named in a table of the system: users, groups, realms, device groups, marks."""

    __slots__ = ("table",)

    def __init__(self, table: Callable[[Names], Mapping[str, int]], *args: object, **more: object) -> None:
        super().__init__(*args, **more)  # type: ignore[arg-type]
        self.table = table

    def parse(self, text: str, names: Names = DEFAULT_NAMES) -> int:
        value = self.table(names).get(text)
        if value is not None:
            return value
        if _DECIMAL.match(text):
            return self.parse_number(text)
        raise ValueError(f"{_MISSING.get(self.name, f'Could not parse {self.desc}')}")

    def format(self, value: int | bytes, out: Output = DEFAULT_OUTPUT) -> str:
        assert isinstance(value, int)
        if not out.numeric_symbol and (self.name not in ("uid", "gid") or out.guid):
            for word, number in self.table(out.names).items():
                if number == value:
                    return f'"{word}"' if self.quoted else word
        return self.format_number(value)


_MISSING = {"uid": "User does not exist", "gid": "Group does not exist"}


class LabelType(LookupType):
    """``ct_label``: a bit number or a name of connlabel.conf; the value has that one bit set."""

    __slots__ = ()

    def parse(self, text: str, names: Names = DEFAULT_NAMES) -> int:
        bit = self.table(names).get(text)
        if bit is None:
            if not _DECIMAL.match(text):
                raise ValueError(f'conntrack label "{text}" does not exist')
            bit = self.parse_number(text)
        return self.from_int(bit)

    def from_int(self, value: int) -> int:
        if value >= 128:
            raise ValueError(f"{value}: maximum bit is 127")
        return 1 << value

    def format(self, value: int | bytes, out: Output = DEFAULT_OUTPUT) -> str:
        assert isinstance(value, int)
        by_bit = {bit: word for word, bit in self.table(out.names).items()}
        words = [f'"{by_bit[bit]}"' if bit in by_bit else str(bit) for bit in range(128) if value >> bit & 1]
        return ",".join(words) or "0"


class HandleType(Datatype):
    """``tc_handle``: ``major:minor`` in hexadecimal, ``none`` and ``root``."""

    __slots__ = ()

    def parse(self, text: str, names: Names = DEFAULT_NAMES) -> int:
        if text in ("root", "none"):
            return 0xFFFFFFFF if text == "root" else 0
        major, colon, minor = text.partition(":")
        try:
            if not colon:
                return self.parse_number(text)
            high, low = int(major or "0", 16), int(minor or "0", 16)
        except ValueError:
            raise ValueError("Could not parse tc handle") from None
        if high > 0xFFFF or low > 0xFFFF:
            raise ValueError("Could not parse tc handle")
        return high << 16 | low

    def format(self, value: int | bytes, out: Output = DEFAULT_OUTPUT) -> str:
        assert isinstance(value, int)
        if value in (0, 0xFFFFFFFF):
            return "root" if value else "none"
        return f"{value >> 16:x}:{value & 0xFFFF:x}"
