"""The interpreter: registers, comparisons, arithmetic, sets, verdicts. Loads and effects are in loads.py and effects.py.

Written from the text of the blocks and from what Linux's nf_tables does for each expression; nothing of userfw is imported.

Laws:
- A rule's run gives a verdict (`accept`, `drop`, `stolen`, `queue`, `return`, `jump X` …) or `next` when the rule ended or broke.
- Everything that reaches outside the packet is appended to `effects`.
"""

from __future__ import annotations

import re
from typing import Any

import oracle_effects as effects
import oracle_loads as loads
import oracle_writes as writes
from oracle_program import KeySet, Member, Step, named_object, numbered, op, read_sets, reg, step, words
from oracle_skb import Break, Skb

__all__ = ["Machine", "Program", "effects", "loads", "writes"]


class Verdict(Exception):
    """The rule ends here with a verdict."""


class Program:
    """A block ready to run, with the state that its expressions keep between packets.

    `named`, `objects`: what the file declares before its rules. `rule`: the rule's text, for the two things that a block does not
    tell: how many bytes of the last word are compared (`ct original ip saddr 10.0.0.0/8` compares one), and whether a hash without
    a seed has none or has been given 0.
    """

    def __init__(self, lines: list[str], header: list[str], named: dict[str, KeySet], objects: dict[str, str], rule: str) -> None:
        lines = numbered([named_object(line, objects) for line in lines])
        self.lines = lines
        self.steps: list[Step] = [step(line) for line in lines]
        self.sets = {**named, **read_sets(header, lines)}
        self.state: dict[Any, Any] = {}
        prefix = re.search(r"^ct .* (?:saddr|daddr) (?:!= )?[\d.]+/(\d+)$", rule)
        self.compared = int(prefix[1]) // 8 if prefix else None
        self.seeded = " seed " in rule


class Machine:
    """One packet through one block."""

    def __init__(self, program: Program, skb: Skb) -> None:
        self.program = program
        self.skb = skb
        self.world = skb.world
        self.regs = bytearray(128)
        self.sizes: dict[int, int] = {}
        self.effects: list[tuple[Any, ...]] = []
        self.at = 0

    def run(self) -> str:
        try:
            for at, (function, match) in enumerate(self.program.steps):
                self.at = at
                function(self, match)
        except Break:
            return "next"
        except Verdict as verdict:
            return str(verdict)
        return "next"

    # --- registers

    def store(self, register: str | int, value: bytes) -> None:
        """Put a value; the rest of its last word becomes zero."""
        at, size = reg(register), len(value)
        self.regs[at : at + (size + 3) // 4 * 4] = value + b"\0" * (-size % 4)
        self.sizes[at] = size

    def host(self, register: str | int, value: int, size: int = 4) -> None:
        self.store(register, value.to_bytes(size, "little"))

    def get(self, register: str | int, size: int) -> bytes:
        at = reg(register)
        return bytes(self.regs[at : at + size])

    def u32(self, register: str | int) -> int:
        return int.from_bytes(self.get(register, 4), "little")

    def state(self, initial: Any) -> Any:
        """What this step keeps between packets."""
        return self.program.state.setdefault(self.at, initial)

    def end(self, verdict: str) -> None:
        raise Verdict(verdict)

    def draw(self) -> int:
        """A random number, as the surroundings give it."""
        return self.world.draws.pop(0)


Groups = re.Match[str]
W = r"((?:0x[0-9a-f]{8} ?)+)"


@op(rf"immediate reg ([1-9]\d*) {W}")
def immediate(m: Machine, g: Groups) -> None:
    m.store(g[1], words(g[2]))


@op(r"immediate reg 0 (\w+)(?: -> (\S+))?")
def verdict(m: Machine, g: Groups) -> None:
    decide(m, g[1], g[2] or "")


def decide(m: Machine, kind: str, chain: str) -> None:
    if kind == "continue":
        return
    m.end("jump" if kind == "jump" else kind if kind != "goto" else "goto")


@op(rf"cmp (\w+) reg (\d+) {W}")
def cmp(m: Machine, g: Groups) -> None:
    want = words(g[3])
    if m.sizes.get(reg(g[2])) == 16 and len(want) < 16:
        want = want.rstrip(b"\0")  # the beginning of a name
    if m.program.compared:
        want = want[: m.program.compared]
    have = m.get(g[2], len(want))
    holds = {
        "eq": have == want, "neq": have != want, "lt": have < want, "lte": have <= want, "gt": have > want, "gte": have >= want,
    }  # fmt: skip
    if not holds[g[1]]:
        raise Break


@op(rf"range (\w+) reg (\d+) {W}")
def range_(m: Machine, g: Groups) -> None:
    both = words(g[3])
    low, high = both[: len(both) // 2], both[len(both) // 2 :]
    if (low <= m.get(g[2], len(low)) <= high) != (g[1] == "eq"):
        raise Break


@op(rf"bitwise reg (\d+) = \( reg (\d+) & {W} ?\) \^ {W}")
def mask_xor(m: Machine, g: Groups) -> None:
    mask, xor = words(g[3]), words(g[4])
    have = m.get(g[2], len(mask))
    m.store(g[1], bytes((a & b) ^ c for a, b, c in zip(have, mask, xor, strict=True)))


@op(r"bitwise reg (\d+) = \( reg (\d+) (<<|>>) 0x(\w+) \)")
def shift(m: Machine, g: Groups) -> None:
    """Words of the machine, the first the most significant, bits carried from one to the next."""
    size = (m.sizes.get(reg(g[2]), 4) + 3) // 4
    source = m.get(g[2], 4 * size)
    number = 0
    for i in range(size):
        number = number << 32 | int.from_bytes(source[4 * i : 4 * i + 4], "little")
    number = number << int(g[4], 16) if g[3] == "<<" else number >> int(g[4], 16)
    number &= (1 << 32 * size) - 1
    m.store(g[1], b"".join((number >> 32 * i & 0xFFFFFFFF).to_bytes(4, "little") for i in reversed(range(size))))


@op(r"bitwise reg (\d+) = \( reg (\d+) ([&|^]) reg (\d+) \)")
def boolean(m: Machine, g: Groups) -> None:
    size = max(m.sizes.get(reg(g[2]), 4), m.sizes.get(reg(g[4]), 4))
    a, b = (int.from_bytes(m.get(g[i], size), "little") for i in (2, 4))
    result = a & b if g[3] == "&" else a | b if g[3] == "|" else a ^ b
    m.store(g[1], result.to_bytes(size, "little"))


@op(r"byteorder reg (\d+) = (?:hton|ntoh)\(reg (\d+), (\d), (\d+)\)")
def byteorder(m: Machine, g: Groups) -> None:
    size, length = int(g[3]), int(g[4])
    source = m.get(g[2], -(-length // size) * size)
    m.store(g[1], b"".join(source[i : i + size][::-1] for i in range(0, len(source), size)))


@op(r"lookup reg (\d+) set (\S+)(?: dreg (\d+))?( 0x1)?")
def lookup(m: Machine, g: Groups) -> None:
    member = m.program.sets[g[2]].find(m.regs, reg(g[1]), m.world.now)
    if (member is None) != bool(g[4]):
        raise Break
    if member is None or g[3] is None:
        return
    if isinstance(member.data, tuple):
        decide(m, *member.data)
    else:
        assert member.data is not None
        m.store(g[3], member.data)


@op(r"dynset (\w+) reg_key (\d+) set (\S+)(?: sreg_data (\d+))?(?: timeout \S+)?")
def dynset(m: Machine, g: Groups) -> None:
    """Key and data have the sizes of the set's declaration, which the runner gives."""
    entry = m.program.sets[g[3]]
    key_size, data_size = m.program.state["sizes", g[3]]
    key = m.get(g[2], key_size)
    found = next((member for member in entry.members if member.key == key), None)
    if g[1] == "delete":
        if found is not None:
            entry.members.remove(found)
    elif found is None:
        entry.members.append(Member(key, None, m.get(g[4], data_size) if g[4] else None))
