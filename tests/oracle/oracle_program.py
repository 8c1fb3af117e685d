"""The text of a payload block: steps and sets, from what nft prints with --debug=netlink and nothing else.

Laws:
- Words are u32 as a little-endian machine prints them; a word's bytes are those that a register holds.
- A set's element is (first key, last key or None, data, flags); data is bytes, or a verdict as a tuple.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

INTERVAL, MAP, CONCAT = 4, 8, 0x80
Data = bytes | tuple[str, str] | None


class Unsupported(Exception):
    """The block cannot be run; the text says why."""


def words(text: str) -> bytes:
    return b"".join(int(word, 16).to_bytes(4, "little") for word in text.split())


@dataclass
class Member:
    key: bytes
    last: bytes | None = None
    data: Data = None
    end: bool = False
    catchall: bool = False
    until: int | None = None


@dataclass
class KeySet:
    """A set or map; of a named one the elements may change."""

    flags: int = 0
    members: list[Member] = field(default_factory=list)
    named: bool = False

    def find(self, regs: bytearray, at: int, now: int) -> Member | None:
        """The member that holds the key in the registers, if it has not expired."""
        self.members = [member for member in self.members if member.until is None or member.until > now]
        best: Member | None = None
        for member in self.members:
            key = bytes(regs[at : at + len(member.key)])
            if member.catchall:
                continue
            if member.last is not None:
                if within(key, member.key, member.last):
                    return member
            elif not self.flags & INTERVAL:
                if key == member.key:
                    return member
            elif member.key <= key and (best is None or (best.key, not best.end) < (member.key, not member.end)):
                best = member
        if best is None or best.end:
            return next((member for member in self.members if member.catchall), None)
        return best


def within(key: bytes, low: bytes, high: bytes) -> bool:
    """Ranges of concatenations: by word, and words of one field (equal in both bounds) may be compared one at a time.

    A field of several words (an IPv6 address, a name) is a range of its whole; words up to the first that differs are equal, so
    comparing it word by word is exact only where just one word differs. Blocks with others are refused by `check_ranges`.
    """
    return all(low[i : i + 4] <= key[i : i + 4] <= high[i : i + 4] for i in range(0, len(key), 4))


ELEMENT = re.compile(r"element ((?:[0-9a-f]{8} )*) ?(?:- ((?:[0-9a-f]{8} )+))? ?: (.*?) ?(\d+) \[end\]")


def data_of(text: str) -> Data:
    if not text:
        return None
    if re.fullmatch(r"[0-9a-f]{8}( [0-9a-f]{8})*", text):
        return words(text)
    kind, _, chain = text.replace("->", " ").partition(" ")
    return kind, chain.strip()


def read_sets(header: list[str], lines: list[str]) -> dict[str, KeySet]:
    """Anonymous sets of a block's head, by name and the order of their lookups (`__set%d_0`, `__set%d_1`): all have one name there.
    Elements without a head are of the set that the block looks up."""
    used = re.findall(r"set (__\w+%d)", " ".join(lines))
    headless = [name for name in used if not any(line.startswith(name) for line in header)]
    sets = {f"{name}_0": KeySet(MAP if "map" in name else 0) for name in headless}
    current = next(iter(sets), "")
    for line in header:
        match = re.match(r"(__\w+%d) \S+ ([0-9a-f]+)(?: size \d+)?$", line)
        if match and match[2] != "0":
            current = f"{match[1]}_{sum(name.startswith(match[1]) for name in sets)}"
            sets[current] = KeySet(int(match[2], 16))
        for key, last, data, flags in ELEMENT.findall(line):
            bits = int(flags)
            member = Member(words(key), words(last) if last else None, data_of(data.strip()), bool(bits & 1), bool(bits & 2))
            sets[current].members.append(member)
    for entry in sets.values():
        if entry.flags & MAP and any(member.data is None and not member.end for member in entry.members):
            raise Unsupported("the block does not name the map's data")
    return sets


def numbered(lines: list[str]) -> list[str]:
    """The lines with the lookups of anonymous sets numbered, as `read_sets` names them."""
    seen: dict[str, int] = {}

    def number(match: re.Match[str]) -> str:
        seen[match[1]] = seen.get(match[1], -1) + 1
        return f"set {match[1]}_{seen[match[1]]}"

    return [re.sub(r"set (__\w+%d)", number, line) for line in lines]


def value(kind: str, text: str) -> tuple[bytes, bytes]:
    """First and last value of a word in a set declaration of the .t files."""
    low, _, high = text.strip().partition("-")
    if kind in ("ipv4_addr", "ipv6_addr"):
        if "/" in low:
            net = ipaddress.ip_network(low, strict=False)
            return net.network_address.packed, net.broadcast_address.packed
        return ipaddress.ip_address(low).packed, ipaddress.ip_address(high or low).packed
    if kind == "inet_service":
        return tuple(int(part).to_bytes(2, "big") + b"\0\0" for part in (low, high or low))  # type: ignore[return-value]
    raise Unsupported(f"elements of type {kind} in a named set")


def duration(text: str) -> int | None:
    """The nanoseconds of a `timeout 23d23h59m59s`, or None without one."""
    match = re.search(r"timeout (\w+)", text)
    units = {"d": 86400, "h": 3600, "m": 60, "s": 1}
    return sum(int(n) * units[u] for n, u in re.findall(r"(\d+)([dhms])", match[1])) * 10**9 if match else None


def named_set(declaration: str, elements: list[str], now: int) -> KeySet:
    """A set of a .t file (`!set1 type ipv4_addr flags interval`) with its `?` lines, added now."""
    match = re.match(r"(?:type(?:of)?) ([^:]+?)(?: : .*|$)", re.sub(r" (flags|timeout) .*", "", declaration))
    assert match is not None, declaration
    kinds = match[1].split(" . ")
    made = KeySet(0, [], True)
    for text in ", ".join(elements).split(","):
        lifetime = duration(text) or duration(declaration)
        text = re.sub(r" timeout \S+", "", text).strip()
        if not text:
            continue
        if text == "*":
            made.members.append(Member(b"", catchall=True))
            continue
        parts = [value(kind, part) for kind, part in zip(kinds, text.split(" . "), strict=True)]
        low, high = b"".join(part[0] for part in parts), b"".join(part[1] for part in parts)
        made.members.append(Member(low, high if high != low else None, until=now + lifetime if lifetime else None))
    return made


KBYTES = {"bytes": 1, "kbytes": 1 << 10, "mbytes": 1 << 20}


def named_object(line: str, objects: dict[str, str]) -> str:
    """The line of a named counter, quota or limit as that of the expression itself (`%` lines of the .t files)."""
    match = re.match(r"\s*\[ objref type \d+ name (\S+) \]", line)
    body = objects.get(match[1], "") if match else ""
    if body == "counter":
        return "[ counter pkts 0 bytes 0 ]"
    quota = re.fullmatch(r"quota (over )?(\d+) (\w+)", body)
    if quota:
        return f"[ quota bytes {int(quota[2]) * KBYTES[quota[3]]} consumed 0 flags {int(bool(quota[1]))} ]"
    limit = re.fullmatch(r"limit rate (\d+)/(\w+)", body)
    if limit:
        return f"[ limit rate {limit[1]}/{limit[2]} burst 5 type packets flags 0x0 ]"
    return line


Step = tuple[Callable[[Any, Any], None], Any]
OPS: list[tuple[re.Pattern[str], Callable[[Any, Any], None]]] = []


def op(pattern: str) -> Callable[[Callable[[Any, Any], None]], Callable[[Any, Any], None]]:
    """Register what a line means: `pattern` matches the text between the brackets."""

    def add(function: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
        OPS.append((re.compile(pattern), function))
        return function

    return add


def step(line: str) -> Step:
    """What one `[ … ]` line does."""
    text = " ".join(line.strip().removeprefix("[").removesuffix("]").split())
    for pattern, function in OPS:
        match = pattern.fullmatch(text)
        if match:
            return function, match
    raise Unsupported(f"no meaning for {text.split()[0]} {' '.join(text.split()[1:2])}")


def reg(number: str | int) -> int:
    """Offset of a register: 1 to 4 are of 16 bytes, 8 and up of 4, over the same bytes."""
    n = int(number)
    return (n - 1) * 16 if n <= 4 else (n - 8) * 4
