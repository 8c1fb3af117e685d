"""Which flows go to which device, and when they come back.

Laws:
- A flow is offered once a direction of it has had `threshold` packets, at a limited rate, both directions or neither.
- Whatever ends a flow in software (FIN, RST, the connection's end) or makes its way doubtful (a route, an address, an MTU, a
  device, a neighbour, a commit of rules) removes it from its devices first, in the call that tells of it; only then is anything
  else believed. After a neighbour's change the flow goes on in software, after all else the pipeline judges it anew.
- A device's counters are added to the flow's and, where the flowtable counts, to the connection's; they keep both alive, and the
  neighbours that the packets go to in use.
- A failure leaves the flow where it is, in software, with the reason on record. What a device cannot do is not tried again; a
  full or faulty device, or one that was reset, is asked again after RETRY.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from userfw.core.clock import Clock
from userfw.core.const import IPPROTO_TCP, IPS_HW_OFFLOAD
from userfw.core.packet import Device
from userfw.flowtable.flow import Flow, FlowTuple
from userfw.flowtable.table import FlowTable
from userfw.offload import describe
from userfw.offload.contract import Capabilities, Driver, Failure, Refusal, Rule, Statistics, Target

SECOND = 1_000_000_000
RETRY = 10 * SECOND
OFFERS = 4096  # waiting flows looked at in one tick
FINAL = Failure.UNSUPPORTED


@dataclass(slots=True)
class Placement:
    """Where a device stands: the driver that takes it and what it can do."""

    target: Target
    driver: Driver
    capabilities: Capabilities


@dataclass(eq=False, slots=True)
class Offloaded:
    """What the manager keeps with a flow (`Flow.offload`): its rules, how many are in, and why not, if not.

    `state`: waiting, installing, installed, failed, gone. `not_before`: when a waiting flow may be offered (ns);
    `resting`: not before it has more packets than these.
    `pending`: rules that no `done` has come for. `seen`: totals of each rule that were already credited. `neighbours`: those its
    rules were made with, `crossings` likewise.
    """

    flow: Flow
    state: str = "waiting"
    reason: str = ""
    not_before: int = 0
    resting: int = -1
    rules: tuple[Rule, ...] = ()
    pending: set[int] = field(default_factory=set)
    seen: dict[int, tuple[int, int]] = field(default_factory=dict)
    neighbours: tuple[Any, ...] = ()
    crossings: tuple[Any, ...] = ()


class OffloadManager:
    """Feeds the drivers from the flowtables that carry `flags offload`.

    - `target`: how a driver finds the device of a name; its own name differs if another device carries the frames (VLAN).
    - `threshold`: packets of one direction before a flow is offered. `rate`: installations a second.
    - `generation`: a number that changes with every change of routes and addresses; whoever changes it calls `revalidate`.
    - `cross`: walks a bridge (Gateway.walk_bridge), to say what stands in a flow's way.
    - `use`: told that packets of a flow's direction go to the neighbour of its route, or want to.
    - `wake`: called when a flow is ready, on the packet path: have `tick` called soon.
    """

    def __init__(
        self,
        clock: Clock,
        drivers: Sequence[Driver],
        target: Callable[[str], Target | None],
        generation: Callable[[], int],
        *,
        threshold: int = 16,
        rate: int = 1000,
        use: Callable[[FlowTuple], None] | None = None,
        cross: describe.Cross | None = None,
    ) -> None:
        self.clock = clock
        self.drivers = list(drivers)
        self.target = target
        self.generation = generation
        self.threshold = threshold
        self.rate = rate
        self.use = use
        self.cross: describe.Cross = cross if cross is not None else _unknown
        self.wake: Callable[[], None] | None = None
        self.placements: dict[str, Placement] = {}
        self.watchers: list[Callable[[str], None]] = []  # told of devices that were lost
        self.tables: list[FlowTable] = []
        self.waiting: deque[Offloaded] = deque()
        self.rules: dict[int, Offloaded] = {}
        self.failures: Counter[str] = Counter()
        self.withdrawn: Counter[str] = Counter()
        self.installed = 0
        self.installations = 0
        self.packets = 0
        self.bytes = 0
        self._by_neighbour: dict[int, set[Offloaded]] = {}
        self._by_anchor: dict[int, set[Offloaded]] = {}
        self._next_rule = 1
        self._budget = float(rate)
        self._refilled = clock.now
        self._counted: dict[int, int] = {}
        self._generation = generation()

    # The control plane

    def place(self, name: str) -> Placement | str:
        """The driver for a device of a flowtable with `flags offload`; in words, why there is none."""
        if name in self.placements:
            return self.placements[name]
        target = self.target(name)
        if target is None:
            return f"device {name} does not exist"
        answer = self._carried(name, target.name) if target.name != name else self._ask(name, target)
        if isinstance(answer, Placement):
            self.placements[name] = answer
        return answer

    def _ask(self, name: str, target: Target) -> Placement | str:
        reasons = []
        for driver in self.drivers:
            answer = driver.probe(target)
            if isinstance(answer, Capabilities):
                return Placement(target, driver, answer)
            assert isinstance(answer, Refusal)
            reasons.append(f"{driver.name}: {answer.reason}")
        return f"device {name} cannot offload: {'; '.join(reasons) or 'no offload driver is installed'}"

    def _carried(self, name: str, carrier: str) -> Placement | str:
        """A VLAN device is where the device below it is, if that can match and make tags."""
        below = self.place(carrier)
        if isinstance(below, str):
            return f"device {name} cannot offload: {below}"
        if not below.capabilities.vlans:
            return f"device {name} cannot offload: {below.driver.name} on {carrier} ({below.capabilities.where}): no VLAN tags"
        return below

    def check(self, devices: Iterable[str]) -> list[str]:
        """What speaks against `flags offload` on these devices; empty if nothing does."""
        return [reason for reason in map(self.place, devices) if isinstance(reason, str)]

    def attach(self, table: FlowTable) -> None:
        """Offload the flows of `table` from now on. ValueError names the devices that cannot."""
        reasons = self.check(table.devices)
        if reasons:
            raise ValueError("; ".join(reasons))
        table.offloader = self
        table.threshold = self.threshold
        self.tables.append(table)

    def detach(self, table: FlowTable) -> None:
        """Take all flows of `table` out of their devices; they go on in software."""
        self._withdraw([entry for entry in self._entries() if entry.flow.table is table], "the flowtable")
        for flow in table:
            if flow.offload is not None:
                flow.offload.state = "gone"  # it may wait still
                flow.offload = None
        table.offloader = None
        table.threshold = 0
        self.tables.remove(table)

    def close(self) -> None:
        """Take everything out of every device."""
        for table in list(self.tables):
            self.detach(table)
        for driver in self.drivers:
            driver.close()

    # The life of a flow in hardware

    def begun(self, flow: Flow) -> None:
        """The flowtable has a new flow."""
        if flow.table not in self.tables:
            self.tables.append(flow.table)
        if not flow.table.threshold:
            self.ready(flow)

    def ready(self, flow: Flow) -> None:
        """A direction of the flow has had as many packets as it takes; nothing is installed before the next tick."""
        if flow.offload is None:
            flow.offload = Offloaded(flow)
            self.waiting.append(flow.offload)
            if self.wake is not None:
                self.wake()

    def ended(self, flow: Flow) -> None:
        """The flow ends: out of the devices before this returns."""
        entry: Offloaded | None = flow.offload
        if entry is not None:
            flow.offload = None
            self._withdraw([entry], "the flow ended")

    def revalidate(self) -> None:
        """A route, an address, an MTU or a device changed: flows whose way is no longer sure return to the pipeline."""
        self._generation = self.generation()
        self._end([e for e in self._entries() if not (e.flow.original.route.valid() and e.flow.reply.route.valid())], "routes")

    def doubt(self) -> None:
        """Rules changed: no flow of the tables is believed any more, until the pipeline has judged a packet of it again."""
        for table in self.tables:
            table.doubt()
        self._end(self._entries(), "rules")

    def neighbour_changed(self, neighbour: Any) -> None:
        """A link-layer address that was in use is no longer right: the flow waits in software until one is known."""
        entries = self._by_neighbour.get(id(neighbour))
        if entries:
            self._again(list(entries), "a neighbour")

    def bridge_changed(self, anchor: Any) -> None:
        """An address of a bridge's database moved or is gone, or (None) ports or settings changed: the pipeline bridges anew."""
        groups = [self._by_anchor.get(id(anchor), set())] if anchor is not None else list(self._by_anchor.values())
        found = {e for group in groups for e in group if not all(crossing.valid() for crossing in e.crossings)}
        if found:
            self._end(list(found), "a bridge")

    def lost(self, name: str) -> None:
        """A device was reset or is gone: none of its rules exists any more, and rules that send to it must go."""
        for watcher in self.watchers:
            watcher(name)
        entries = [e for e in self._entries() if any(name in (r.match.device, r.actions.device) for r in e.rules)]
        self._again(entries, "a device", RETRY // 10)
        self.placements = {key: p for key, p in self.placements.items() if p.target.name != name}

    def forget(self, name: str) -> None:
        """The gateway gives a device up: as `lost`, and its driver lets go of it."""
        placement = self.placements.get(name)
        self.lost(name)
        if placement is not None and placement.target.name == name:
            placement.driver.release(placement.target)

    def tick(self, now: int) -> None:
        """Completions, new flows, counters. The shell calls it every 100 ms or so."""
        for driver in self.drivers:
            driver.poll(now, self.lost)
        if self.generation() != self._generation:
            self.revalidate()
        self._age()
        self._offer(now)
        for driver in self.drivers:
            if now - self._counted.setdefault(id(driver), now) >= driver.interval:
                self._count(driver)
        self.tables = [table for table in self.tables if table.count]

    def _age(self) -> None:
        """Addresses that a bridge has not heard for too long."""
        for entries in list(self._by_anchor.values()):
            stale = [crossing for crossing in next(iter(entries)).crossings if not crossing.valid()]
            for crossing in stale:
                self.bridge_changed(crossing.anchor)

    def _offer(self, now: int) -> None:
        self._budget = min(float(max(self.rate, 1)), self._budget + (now - self._refilled) * self.rate / SECOND)
        self._refilled = now
        for _ in range(min(len(self.waiting), OFFERS)):
            entry = self.waiting.popleft()
            if entry.flow.dead or entry.state != "waiting":
                continue
            if not _sure(entry.flow):
                entry.flow.table.teardown(entry.flow)
                continue
            resting = entry.resting == _packets(entry.flow)
            if resting or now < entry.not_before or self._budget < 1 or not self._resolved(entry.flow):
                self.waiting.append(entry)
                continue
            self._budget -= 1
            self._install(entry)

    def _resolved(self, flow: Flow) -> bool:
        """Both directions were judged, and the neighbours of both are known; asks for those that are not."""
        known = bool(flow.original.judged and flow.reply.judged)
        for side in (flow.original, flow.reply):
            if not side.local and side.route.oif.mac and describe.link_address(side) is None:
                known = False
                if self.use is not None:
                    self.use(side)
        return known

    def _install(self, entry: Offloaded) -> None:
        flow = entry.flow
        reason = describe.obstacle(flow, self.cross)
        rules = []
        for side in (flow.original, flow.reply):
            if reason:
                break
            rule = Rule(self._next_rule, *describe.rule_of(flow, side, self._number))
            rules.append(rule)
            self._next_rule += 1
            placement = self.place(rule.match.device)
            if isinstance(placement, str):
                reason = placement
            elif lacking := placement.capabilities.lacks(rule):
                reason = f"{rule.match.device} lacks {lacking}"
        if reason:
            self._fail(entry, reason)
            return
        entry.rules = tuple(rules)
        entry.state = "installing"
        entry.reason = ""
        entry.pending = {rule.id for rule in rules}
        entry.seen = {rule.id: (0, 0) for rule in rules}
        entry.neighbours = tuple(side.route.neigh for side in (flow.original, flow.reply) if side.route.neigh is not None)
        for neighbour in entry.neighbours:
            self._by_neighbour.setdefault(id(neighbour), set()).add(entry)
        entry.crossings = tuple(c for side in (flow.original, flow.reply) for c in (side.comes, side.goes) if c is not None)
        for crossing in entry.crossings:
            self._by_anchor.setdefault(id(crossing.anchor), set()).add(entry)
        for rule in rules:
            self.rules[rule.id] = entry
        for driver, group in self._by_driver(entry.rules):
            if entry.state == "installing":
                driver.install(group, partial(self._done, driver))
            late = [rule.id for rule in group if rule.id not in self.rules]
            if late:
                driver.remove(late)  # one failed while the driver had the other before it

    def _by_driver(self, rules: Iterable[Rule]) -> list[tuple[Driver, list[Rule]]]:
        groups: dict[int, tuple[Driver, list[Rule]]] = {}
        for rule in rules:
            placement = self.placements.get(rule.match.device)
            if placement is not None:
                groups.setdefault(id(placement.driver), (placement.driver, []))[1].append(rule)
        return list(groups.values())

    def _done(self, driver: Driver, id: int, failure: Failure | None) -> None:
        entry = self.rules.get(id)
        if entry is None:
            if failure is None:
                driver.remove([id])  # its flow ended, or its other direction failed, meanwhile
            return
        if failure is Failure.IDLE:
            self._withdraw([entry], failure.value)
            entry.state, entry.resting = "waiting", _packets(entry.flow)
            self.waiting.append(entry)
            return
        if failure is not None:
            words = driver.explain(id)
            self._withdraw([entry], failure.value)
            self._fail(entry, f"{failure.value}: {words}" if words else failure.value, failure is not FINAL)
            return
        entry.pending.discard(id)
        if not entry.pending and entry.state == "installing":
            entry.state = "installed"
            self.installed += 1
            self.installations += 1
            entry.flow.conn.status |= IPS_HW_OFFLOAD

    def _fail(self, entry: Offloaded, reason: str, again: bool = False) -> None:
        entry.state = "failed"
        entry.reason = reason
        self.failures[reason] += 1
        if again:
            entry.state = "waiting"
            entry.not_before = self.clock.now + RETRY
            self.waiting.append(entry)

    def _withdraw(self, entries: list[Offloaded], why: str) -> None:
        """Out of the devices, their last counters credited; the entries are nobody's until they wait or fail."""
        held = [entry for entry in entries if entry.rules]
        for driver, group in self._by_driver(rule for entry in held for rule in entry.rules if rule.id in self.rules):
            for record in list(driver.remove([rule.id for rule in group]) or ()):
                self._credit(record)
        for entry in entries:
            for rule in entry.rules:
                self.rules.pop(rule.id, None)
            for index, keys in ((self._by_neighbour, entry.neighbours), (self._by_anchor, [c.anchor for c in entry.crossings])):
                for key in map(id, keys):
                    users = index.get(key)
                    if users is not None:
                        users.discard(entry)
                        if not users:
                            del index[key]
            if entry.state == "installed":
                self.installed -= 1
                self.withdrawn[why] += 1
                entry.flow.conn.status &= ~IPS_HW_OFFLOAD
            entry.state = "gone"
            entry.rules = entry.neighbours = entry.crossings = ()

    def _end(self, entries: list[Offloaded], why: str) -> None:
        """Out of the devices, all at once, then out of the flowtable."""
        self._withdraw(entries, why)
        for entry in entries:
            entry.flow.table.teardown(entry.flow)

    def _again(self, entries: list[Offloaded], why: str, delay: int = 0) -> None:
        self._withdraw(entries, why)
        for entry in entries:
            entry.state = "waiting"
            entry.not_before = self.clock.now + delay
            self.waiting.append(entry)

    def _entries(self) -> list[Offloaded]:
        return list({id(entry): entry for entry in self.rules.values()}.values())

    # Counters

    def _count(self, driver: Driver) -> None:
        self._counted[id(driver)] = self.clock.now
        for record in list(driver.statistics()):  # crediting may remove rules
            self._credit(record)

    def _credit(self, record: Statistics) -> None:
        entry = self.rules.get(record.id)
        if entry is None:
            return
        flow = entry.flow
        packets, octets = entry.seen[record.id]
        entry.seen[record.id] = (record.packets, record.bytes)
        packets, octets = record.packets - packets, max(0, record.bytes - octets)
        if packets <= 0:
            return
        used = min(record.last_used or self.clock.now, self.clock.now)
        dir = 0 if record.id == entry.rules[0].id else 1
        table: FlowTable = flow.table
        table.credit(flow, dir, packets, octets)
        self.packets += packets
        self.bytes += octets
        idle = table.tcp_timeout if flow.l4proto == IPPROTO_TCP else table.udp_timeout
        flow.timeout = max(flow.timeout, used + idle)
        side: FlowTuple = flow.direction(dir)
        if side.comes is not None:
            side.comes.heard(used)
        if self.use is not None:
            self.use(side)

    def _number(self, device: Device) -> int:
        placement = self.placements.get(device.name)
        if placement is not None:
            return placement.target.ifindex
        target = self.target(device.name)
        return target.ifindex if target is not None else 0

    # What `userfw offload` shows

    def status(self) -> dict[str, Any]:
        """Devices, flows and packets of each rung, failures by reason, what took flows back."""
        return {
            "threshold": self.threshold,
            "rate": self.rate,
            "devices": [
                {
                    "device": name,
                    "driver": p.driver.name,
                    "where": p.capabilities.where,
                    "families": sorted(4 if size == 4 else 6 for size in p.capabilities.families),
                    "nat": sorted(4 if size == 4 else 6 for size in p.capabilities.nat),
                    "protocols": sorted(describe.IPPROTO.get(number, str(number)) for number in p.capabilities.protocols),
                    "vlans": p.capabilities.vlans,
                    "capacity": p.capabilities.capacity,
                    "counts": p.capabilities.counts,
                    "ages": p.capabilities.ages / SECOND,
                    **p.driver.describe(p.target),
                }
                for name, p in sorted(self.placements.items())
            ],
            "flows": {
                "flowtable": sum(table.count // 2 for table in self.tables),
                "waiting": sum(1 for entry in self.waiting if not entry.flow.dead and entry.state == "waiting"),
                "hardware": self.installed,
            },
            "packets": {"flowtable": sum(int(table.forwarded) for table in self.tables), "hardware": self.packets},
            "bytes": {"hardware": self.bytes},
            "installations": self.installations,
            "failures": dict(self.failures),
            "withdrawn": dict(self.withdrawn),
        }

    def flows(self) -> list[dict[str, Any]]:
        """Every flow of the tables and where it is handled, or why not in hardware."""
        return [
            {
                "table": table.name,
                "protocol": int(flow.l4proto),
                "original": describe.ends(flow.original, flow.family),
                "reply": describe.ends(flow.reply, flow.family),
                "packets": _packets(flow),
                **self._where(flow),
            }
            for table in self.tables
            for flow in table
        ]

    def _where(self, flow: Flow) -> dict[str, str]:
        entry: Offloaded | None = flow.offload
        if entry is None:
            return {"state": "software", "reason": f"fewer than {self.threshold} packets in either direction"}
        reason = entry.reason
        if entry.state == "waiting" and entry.resting == _packets(flow):
            reason = f"{Failure.IDLE.value}; its next packet offers it again"
        elif entry.state == "waiting" and not reason:
            judged = flow.original.judged and flow.reply.judged
            missing = "a neighbour's address is not known yet" if judged else "rules have let only one direction come to `flow add`"
            reason = "its turn will come" if self._resolved(flow) else missing
        return {"state": entry.state, "reason": reason}


def _sure(flow: Flow) -> bool:
    """Nothing changed on its way, and no rules, since the flow was made: the same that a packet in software asks."""
    sides = (flow.original, flow.reply)
    crossings = [crossing for side in sides for crossing in (side.comes, side.goes) if crossing is not None]
    return flow.epoch == flow.table.epoch and all(side.route.valid() for side in sides) and all(c.valid() for c in crossings)


def _unknown(*way: Any) -> object:
    return f"{way[3].name} is a bridge, and nobody knows its ports"


def _packets(flow: Flow) -> int:
    """Of both directions, in software and in devices."""
    return int(flow.original.packets + flow.reply.packets)
