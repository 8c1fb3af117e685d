"""Which netdev chains run in hardware: the lists of filters of each device, their counters, and what speaks against them.

Laws:
- A ruleset whose `flags offload` chains cannot all be taken is refused before any of it is in force, with the rule and the reason.
- What a device holds is not run in software for that device; what it loses is, from then on.
- A rule's counter counts what hardware counted; nothing is counted twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from userfw.nft.location import NOWHERE, Location, NftError
from userfw.offload.contract import Capabilities, Driver, Filter, Statistics, Target
from userfw.offload.guarded import takes_filters
from userfw.offload.stateless import Lifter, Lowered, Tags, Unliftable
from userfw.ruleset.compile import matches
from userfw.ruleset.model import Chain, Table, priority_of

REFUSED = "Could not process rule: Operation not supported"
HIGHEST_PRIORITY = 0xFFFF
INTERVAL = 1_000_000_000


@dataclass(slots=True)
class Held:
    """One filter in a device: where it was written, the rule's counter, and what was seen of its totals."""

    filter: Filter
    table: str
    chain: str
    handle: int
    loc: Location
    counter: Any = None
    packets: int = 0
    bytes: int = 0


@dataclass(slots=True)
class Unit:
    """The filters of one device, and the driver that took them."""

    driver: Driver
    target: Target
    held: list[Held] = field(default_factory=list)
    chains: tuple[Chain, ...] = ()


class HardwareChains:
    """`devices`: names and numbers of the gateway's devices. `drivers`, `target`: as of the offload manager.

    `changed()`: called when a device lost its filters, so that its chains are hung in software again.
    """

    def __init__(
        self,
        drivers: Callable[[], Sequence[Driver]],
        target: Callable[[str], Target | None],
        devices: Callable[[], Iterable[tuple[str, int]]],
        changed: Callable[[], None],
    ) -> None:
        self.drivers, self.target, self.devices, self.changed = drivers, target, devices, changed
        self.units: dict[str, Unit] = {}
        self.dropped = 0
        self._next = 1
        self._counted = 0
        self._chains: Sequence[tuple[Table, Chain]] = ()
        self._lost = False
        self._signature: Any = []

    def holds(self, chain: Chain, device: str) -> bool:
        """Whether hardware runs this chain on this device."""
        unit = self.units.get(device)
        return unit is not None and any((other.handle, other.name) == (chain.handle, chain.name) for other in unit.chains)

    # -- commit

    def judge(self, chains: Sequence[tuple[Table, Chain]]) -> None:
        """Whether the rules can be filters at all; pure. NftError with the rule that cannot."""
        for table, chain in chains:
            priority = priority_of(chain.node, table.family)
            if not 0 < priority <= HIGHEST_PRIORITY:
                raise NftError(f"{REFUSED}: flags offload needs a priority from 1 to {HIGHEST_PRIORITY}", chain.node.loc)
            if chain.node.policy == "drop":
                raise NftError(f"{REFUSED}: flags offload needs the policy accept", chain.node.loc)
            for rule in chain.rules:
                _lift(rule, 0)

    def apply(self, chains: Sequence[tuple[Table, Chain]]) -> bool:
        """Give each device its filters, all or none; whether anything changed. NftError with the rule that a device refuses."""
        signature = [(table.key, chain.handle, tuple(chain.node.devices), chain.rules) for table, chain in chains]
        if signature == self._signature:
            return False
        self.judge(chains)
        wanted = self._wanted(chains)
        self.count()
        done: list[tuple[str, Unit | None]] = []
        try:
            for name in [*wanted, *(name for name in self.units if name not in wanted)]:
                before = self.units.get(name)
                self._give(name, *wanted.get(name, ([], ())))
                done.append((name, before))
        except NftError:
            for name, before in reversed(done):
                self._put_back(name, before)
            raise
        self._signature = [(*key, list(rules)) for *key, rules in signature]
        self._chains, self._lost = chains, False
        return True

    def _wanted(self, chains: Sequence[tuple[Table, Chain]]) -> dict[str, tuple[list[Held], tuple[Chain, ...]]]:
        names = {index: name for name, index in self.devices()}
        wanted: dict[str, tuple[list[Held], tuple[Chain, ...]]] = {}
        for index, name in names.items():
            here = [(table, chain) for table, chain in chains if matches(chain.node.devices, name)]
            here.sort(key=lambda pair: (priority_of(pair[1].node, pair[0].family), -pair[1].registered))
            if len(here) > 1 and not self._simple(here):
                raise NftError(f"{REFUSED}: of several hardware chains of one device only the last may accept", here[1][1].node.loc)
            held: list[Held] = []
            for table, chain in here:
                for rule in chain.rules:
                    lowered = _lift(rule, index)
                    if lowered.possible:
                        made = self._numbered(lowered, rule.loc, partial(self._system, names, name))
                        held.append(Held(made, table.name, chain.name, rule.handle, rule.loc, lowered.counter))
                        self._next += 1
            if here:
                wanted[name] = held, tuple(chain for _, chain in here)
        return wanted

    def _numbered(self, lowered: Lowered, loc: Location, device: Callable[[int], tuple[str, int, Tags]]) -> Filter:
        try:
            return lowered.filter(self._next, device)
        except Unliftable as problem:
            raise _cannot(problem, loc) from None

    def _system(self, names: Mapping[int, str], here: str, out: int) -> tuple[str, int, Tags]:
        """A device to send to: the one that carries its frames, that one's number in the namespace of device `here` (0: it is
        elsewhere), and the tags."""
        name = names.get(out, "")
        target, source = self.target(name), self.target(here)
        if target is None or source is None or target.netns != source.netns:
            return name, 0, ()
        return target.name, target.ifindex, target.tags

    def _simple(self, here: Sequence[tuple[Table, Chain]]) -> bool:
        """No chain but the last accepts: accept ends its own chain only, in hardware it ends all of them."""
        return not any(_lift(rule, 0).verdict == "accept" for _, chain in here[:-1] for rule in chain.rules)

    def _give(self, name: str, held: list[Held], chains: tuple[Chain, ...]) -> None:
        unit = self.units.get(name)
        if unit is None:
            if not held and not chains:
                return
            unit = self._unit(name, chains[0].node.loc)
        refused = unit.driver.set_filters(unit.target, [item.filter for item in held])
        if refused is not None:
            id, words = refused
            loc = next((item.loc for item in held if item.filter.id == id), chains[0].node.loc if chains else NOWHERE)
            raise NftError(f"{REFUSED}: device {name}: {words}", loc)
        self.count()  # the last totals of what was replaced
        if chains:
            self.units[name] = Unit(unit.driver, unit.target, held, chains)
        else:
            self.units.pop(name, None)

    def _put_back(self, name: str, before: Unit | None) -> None:
        now = self.units.pop(name, None)
        if before is not None:
            before.driver.set_filters(before.target, [item.filter for item in before.held])
            for item in before.held:
                item.packets = item.bytes = 0  # the device counts anew
            self.units[name] = before
        elif now is not None:
            now.driver.set_filters(now.target, [])

    def _unit(self, name: str, loc: Location) -> Unit:
        target = self.target(name)
        if target is None:
            raise NftError(f"{REFUSED}: device {name} does not exist", loc)
        if target.name != name:
            raise NftError(f"{REFUSED}: device {name} is on {target.name}: match `vlan id` there instead", loc)
        reasons = []
        for driver in self.drivers():
            if not takes_filters(driver):
                continue
            answer = driver.probe(target)
            if isinstance(answer, Capabilities):
                return Unit(driver, target)
            reasons.append(f"{driver.name}: {answer.reason}")
        raise NftError(f"{REFUSED}: device {name} cannot offload: {'; '.join(reasons) or 'no driver has stateless filters'}", loc)

    # -- afterwards

    def lost(self, name: str) -> None:
        """A device was reset or is gone: its chains run in software again."""
        if self.units.pop(name, None) is not None:
            self._signature, self._lost = None, True
            self.changed()

    def appeared(self) -> None:
        """A device is new: chains that name it go into its hardware with the next tick."""
        if self._chains:
            self._signature, self._lost = None, True

    def tick(self, now: int) -> None:
        """Once a second: counters, and another try for devices that lost their filters; `now` in nanoseconds."""
        if now - self._counted < INTERVAL or not (self.units or self._lost):
            return
        self._counted = now
        self.count()
        if self._lost:
            try:
                self.apply(self._chains)
            except NftError:
                return  # software goes on with them
            self.changed()

    def count(self) -> None:
        """Read the devices' counters into the rules'."""
        held = {item.filter.id: item for unit in self.units.values() for item in unit.held}
        for driver in {id(unit.driver): unit.driver for unit in self.units.values()}.values():
            for record in driver.filter_statistics():
                item = held.get(record.id)
                if item is not None:
                    self._add(item, record)

    def _add(self, item: Held, record: Statistics) -> None:
        packets, octets = record.packets - item.packets, record.bytes - item.bytes
        item.packets, item.bytes = record.packets, record.bytes
        if packets <= 0:
            return
        if item.counter is not None:
            item.counter.packets += packets
            item.counter.bytes += max(0, octets)
        if item.filter.verdict == "drop":
            self.dropped += packets

    def close(self) -> None:
        """Take every filter out of every device."""
        self.count()
        for unit in self.units.values():
            unit.driver.set_filters(unit.target, [])
        self.units.clear()

    def status(self) -> list[dict[str, Any]]:
        """Every filter, as `userfw offload` shows it."""
        return [
            {
                "device": name,
                "driver": unit.driver.name,
                "table": item.table,
                "chain": item.chain,
                "handle": item.handle,
                "verdict": item.filter.verdict,
                "packets": item.packets,
                "bytes": item.bytes,
            }
            for name, unit in sorted(self.units.items())
            for item in unit.held
        ]


def _lift(rule: Any, index: int) -> Any:
    """NftError at the rule."""
    try:
        return Lifter(index).lift(rule.program.exprs)
    except Unliftable as problem:
        raise _cannot(problem, rule.loc) from None


def _cannot(problem: Unliftable, loc: Location) -> NftError:
    return NftError(f"{REFUSED}: this rule cannot be offloaded: {problem}", loc)
