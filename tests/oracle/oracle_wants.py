"""Which values a block is interested in: for every field that it loads, the constants that it is compared with.

The generator uses this to hit what random packets would never hit. It reads the text only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from oracle_program import KeySet, reg, words

Source = tuple[str, ...]


@dataclass
class Loaded:
    """What a register holds: the source, its size in bytes, and what was done to it since."""

    source: Source
    size: int
    done: list[tuple[str, bytes, bytes] | tuple[str, int, int]] = field(default_factory=list)

    def undo(self, value: bytes, noise: bytes) -> bytes:
        """A value of the source that leads to `value`; bits that a mask hides are taken from `noise`."""
        value = value[: max(self.size, 1)].ljust(self.size, b"\0")
        for kind, a, b in reversed(self.done):
            if kind == "mask" and isinstance(a, bytes) and isinstance(b, bytes):
                value = bytes((v ^ x) & k | n & ~k & 0xFF for v, k, x, n in zip(value, a, b, noise, strict=False))
            elif kind == "swap" and isinstance(a, int):
                value = b"".join(value[i : i + a][::-1] for i in range(0, len(value), a))
            elif isinstance(a, int):
                number = int.from_bytes(value, "little")
                number = number << a if kind == ">>" else number >> a
                value = (number & (1 << 8 * len(value)) - 1).to_bytes(len(value), "little")
        return value


SIZES = {
    "meta": {"protocol": 2, "iifname": 16, "oifname": 16, "iiftype": 2, "oiftype": 2, "nfproto": 1, "l4proto": 1, "pkttype": 1,
             "secpath": 1, "iifkind": 16, "oifkind": 16, "time": 8, "day": 1, "bri_iifname": 16, "bri_oifname": 16, "ibrhwaddr": 6},
    "ct": {"direction": 1, "l3protocol": 1, "protocol": 1, "proto_src": 2, "proto_dst": 2, "label": 16, "packets": 8, "bytes": 8,
           "avgpkt": 8, "zone": 2, "src_ip6": 16, "dst_ip6": 16, "helper": 16},
}  # fmt: skip


def loaded(text: str) -> tuple[int, Loaded] | None:
    """Register offset and source of a load."""
    inner = re.match(r"inner type (\d) .*?\[ (.*?) \]", text)
    if inner:
        found = loaded(inner[2])
        return (found[0], Loaded(("inner", inner[1], *found[1].source), found[1].size)) if found else None
    match = re.match(r"payload load (\d+)b @ (\w+) header \+ (\d+) => reg (\d+)", text)
    if match:
        return reg(match[4]), Loaded(("payload", match[2], match[3], match[1]), int(match[1]))
    match = re.match(r"exthdr load (?:(\w+) )?(\d+)b @ (\d+) \+ (\d+)( present)? => reg (\d+)", text)
    if match:
        return reg(match[6]), Loaded(("exthdr", match[1] or "sctp", match[3], match[4], match[2], match[5] or ""), int(match[2]))
    match = re.match(r"(meta|ct|rt|socket) load (\w+) => reg (\d+)(?: , dir (\w+))?", text)
    if match:
        size = SIZES.get(match[1], {}).get(match[2], 4)
        return reg(match[3]), Loaded((match[1], match[2], match[4] or ""), size)
    return None


class Wants:
    """`values`: source to the values that matter, each also with what stands next to it; `sources` in the order of loading."""

    def __init__(self, lines: list[str], sets: dict[str, KeySet]) -> None:
        self.values: dict[Source, list[tuple[Loaded, bytes]]] = {}
        self.negated: set[Source] = set()
        self.registers: dict[int, Loaded] = {}
        for line in lines:
            self._line(" ".join(line.strip().removeprefix("[").removesuffix("]").split()), sets)

    def _line(self, text: str, sets: dict[str, KeySet]) -> None:
        found = loaded(text)
        if found:
            self.registers[found[0]] = found[1]
            self.values.setdefault(found[1].source, [])
            return
        for at, value in self._constants(text, sets):
            holder = self.registers.get(at)
            if holder is not None and value:
                self.values[holder.source].append((holder, value))
                if " neq " in f" {text} ":
                    self.negated.add(holder.source)
        self._transform(text)

    def _constants(self, text: str, sets: dict[str, KeySet]) -> Iterator[tuple[int, bytes]]:
        match = re.match(r"(?:cmp|range) \w+ reg (\d+) ((?:0x[0-9a-f]{8} ?)+)", text)
        if match:
            value = words(match[2])
            if text.startswith("range"):
                yield reg(match[1]), value[len(value) // 2 :]
                value = value[: len(value) // 2]
            yield reg(match[1]), value
        match = re.match(r"(?:lookup|objref s|dynset \w+) ?reg(?:_key)? (\d+) set (\S+)", text)
        if match and match[2] in sets:
            for member in sets[match[2]].members:
                for key in (member.key, member.last):
                    yield from self._fields(reg(match[1]), key or b"")

    def _fields(self, at: int, key: bytes) -> Iterator[tuple[int, bytes]]:
        """The parts of a concatenated key, each with the register it comes from."""
        place = 0
        while place < len(key):
            holder = self.registers.get(at + place)
            if holder is None:
                return
            size = (holder.size + 3) // 4 * 4
            yield at + place, key[place : place + size]
            place += size

    def _transform(self, text: str) -> None:
        match = re.match(r"bitwise reg (\d+) = \( reg (\d+) & ((?:0x\w{8} ?)+)\) \^ ((?:0x\w{8} ?)+)", text)
        if match:
            self._done(match[1], match[2], ("mask", words(match[3]), words(match[4])))
            return
        match = re.match(r"bitwise reg (\d+) = \( reg (\d+) (<<|>>) 0x(\w+)", text)
        if match:
            self._done(match[1], match[2], (match[3], int(match[4], 16), 0))
            return
        match = re.match(r"byteorder reg (\d+) = \w+\(reg (\d+), (\d), (\d+)\)", text)
        if match:
            self._done(match[1], match[2], ("swap", int(match[3]), 0))
            return
        match = re.match(r"\w+ .*?(?:dreg|=>) ?reg (\d+)", text)
        if match:
            self.registers.pop(reg(match[1]), None)

    def _done(self, to: str, source: str, what: tuple[str, bytes, bytes] | tuple[str, int, int]) -> None:
        holder = self.registers.get(reg(source))
        if holder is not None:
            self.registers[reg(to)] = Loaded(holder.source, holder.size, [*holder.done, what])
