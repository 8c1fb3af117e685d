"""Requests for flows, fast: each shape is encoded once by `filters.encode`, later flows of that shape only put their values in.

A shape is all that decides which attributes there are: family, protocol, tags, what is translated. Its template is encoded from
sentinels, values that occur nowhere else in the message; where they are found the flow's own go.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass

from userfw.offload.contract import Actions, Match, Rule
from userfw_hw.flower import filters

Slots = tuple[tuple[str, int, int], ...]


class Part(enum.Enum):
    """A flow's only filter, or the two halves of one that act_ct translates; with the values that each of them has."""

    WHOLE = (
        "ifindex handle pref mac source destination source_port destination_port match_tag cookie oif new_source new_destination "
        "new_sport new_dport ethernet action_tag"
    )
    ENTER = "ifindex handle pref mac source destination source_port destination_port match_tag cookie"
    LEAVE = "ifindex handle pref match_tag cookie oif ethernet action_tag number"


@dataclass(frozen=True, slots=True)
class Shape:
    """What two flows must share to have the same attributes."""

    size: int
    protocol: int
    match_tags: tuple[int, ...]
    action_tags: tuple[int, ...]
    source: bool
    destination: bool
    source_port: bool
    destination_port: bool
    ethernet: bool
    flags: int
    mark: int
    mac: bool
    l4_offsets: bool
    part: Part
    reply: bool


class Encoder:
    """Requests that install flows. `flags`, `mark`, `l4_offsets` as of `filters.of_rule`; `zone`: where act_ct translates."""

    def __init__(self, flags: int, mark: int = 0, l4_offsets: bool = False, zone: int = 0) -> None:
        self.flags, self.mark, self.l4_offsets, self.zone = flags, mark, l4_offsets, zone
        self.templates: dict[Shape, tuple[bytes, Slots]] = {}

    def encode(
        self, rule: Rule, pref: int, mac: bytes = b"", part: Part = Part.WHOLE, number: int = 0, reply: bool = False
    ) -> bytes:
        """The same bytes as `filters.encode(filters.of_rule(…))`, or of `enter` or `leave`; `number`, `reply`: as of the latter."""
        shape = self._shape(rule, mac, part, reply)
        made = self.templates.get(shape)
        if made is None:
            made = self.templates[shape] = self._template(shape)
        data, values = bytearray(made[0]), _values(rule, pref, mac, number)
        for name, at, size in made[1]:
            data[at : at + size] = values[name]
        return bytes(data)

    def _shape(self, rule: Rule, mac: bytes, part: Part, reply: bool) -> Shape:
        match, actions = rule.match, rule.actions
        return Shape(
            len(match.source),
            match.protocol,
            tuple(tag for tag, _ in match.vlans),
            tuple(tag for tag, _ in actions.vlans),
            match.source != actions.source,
            match.destination != actions.destination,
            match.source_port != actions.source_port,
            match.destination_port != actions.destination_port,
            bool(actions.ethernet_destination),
            self.flags,
            self.mark,
            bool(mac),
            self.l4_offsets,
            part,
            reply,
        )

    def _template(self, shape: Shape) -> tuple[bytes, Slots]:
        rule, mac = _sentinel(shape)
        number = 0x5A6B7F05
        if shape.part is Part.WHOLE:
            item = filters.of_rule(rule, 0xB7E5, self.flags, mac, self.mark, self.l4_offsets)
        elif shape.part is Part.ENTER:
            item = filters.enter(rule, 0xB7E5, self.flags, self.zone, mac)
        else:
            item = filters.leave(rule, 0xB7E5, self.flags, self.zone, number, shape.reply, self.mark)
        data = filters.encode(item)
        slots = []
        for name, value in _values(rule, 0xB7E5, mac, number).items():
            if _present(shape, name):
                if data.count(value) != 1:
                    raise AssertionError(f"the sentinel of {name} is found {data.count(value)} times in {shape}")
                slots.append((name, data.index(value), len(value)))
        return data, tuple(slots)


def _present(shape: Shape, name: str) -> bool:
    """Whether the slot exists in messages of this shape."""
    group = name.rstrip("0123")
    if group not in shape.part.value.split():
        return False
    conditions = {
        "mac": shape.mac,
        "ethernet": shape.ethernet,
        "new_source": shape.source,
        "new_destination": shape.destination,
        "new_sport": shape.source_port,
        "new_dport": shape.destination_port,
    }
    return conditions.get(group, True)


def _values(rule: Rule, pref: int, mac: bytes, number: int) -> dict[str, bytes]:
    """Every slot's bytes as they stand in the message."""
    match, actions = rule.match, rule.actions
    values = {
        "ifindex": struct.pack("=i", match.ifindex),
        "handle": struct.pack("=I", rule.id),
        "pref": struct.pack("=H", pref),
        "mac": mac,
        "source": match.source,
        "destination": match.destination,
        "source_port": match.source_port.to_bytes(2, "big"),
        "destination_port": match.destination_port.to_bytes(2, "big"),
        "cookie": struct.pack(">Q", rule.id),
        "number": struct.pack("=I", number),
        "oif": struct.pack("=I", actions.ifindex),
        "new_sport": actions.source_port.to_bytes(2, "big"),
        "new_dport": actions.destination_port.to_bytes(2, "big"),
        "ethernet0": actions.ethernet_destination[:4],
        "ethernet1": actions.ethernet_destination[4:],
        "ethernet2": actions.ethernet_source[:2],
        "ethernet3": actions.ethernet_source[2:],
    }
    for name, whole in (("new_source", actions.source), ("new_destination", actions.destination)):
        for at in range(0, len(whole), 4):
            values[f"{name}{at // 4}"] = whole[at : at + 4]
    for at, (_, tag) in enumerate(match.vlans):
        values[f"match_tag{at}"] = struct.pack("=H", tag)
    for at, (_, tag) in enumerate(actions.vlans):
        values[f"action_tag{at}"] = struct.pack("=H", tag)
    return values


def _sentinel(shape: Shape) -> tuple[Rule, bytes]:
    """A rule of this shape whose values are all different from each other and from everything else in its message."""

    def fill(first: int, size: int) -> bytes:
        return bytes((first + 7 * at) & 0xFF | 0x80 for at in range(size))

    source, destination = fill(0x83, shape.size), fill(0xC6, shape.size)[::-1]
    match = Match(
        "",
        0x5A6B7C01,
        shape.protocol,
        source,
        destination,
        0x9A5C,
        0x9D5E,
        tuple((tag, 0xA3D1 + 0x0404 * at) for at, tag in enumerate(shape.match_tags)),
    )
    actions = Actions(
        "",
        0x5A6B7D02,
        bytes(byte ^ 0x55 for byte in source) if shape.source else source,
        bytes(byte ^ 0x33 for byte in destination) if shape.destination else destination,
        0x9B4D if shape.source_port else match.source_port,
        0x9E4F if shape.destination_port else match.destination_port,
        bytes.fromhex("e1f2e3f4e5f6") if shape.ethernet else b"",
        bytes.fromhex("d7c8d9cadbcc") if shape.ethernet else b"",
        tuple((tag, 0xA7B1 + 0x0404 * at) for at, tag in enumerate(shape.action_tags)),
    )
    return Rule(0x5A6B7E03, match, actions), bytes.fromhex("b1a2b3a4b5a6") if shape.mac else b""
