"""Which flows go to which device, and when they come back.

Laws:
- A flow is offered once it has proved long enough (`threshold` packets), at a limited rate, both directions or neither.
- Whatever ends a flow in software (FIN, RST, a route that changed, the connection's end, a new ruleset) removes it from its devices
  first, synchronously; only then is anything else believed.
- A device's counters are added to the flow's and, where the flowtable counts, to the connection's; they keep both alive.
- A failure leaves the flow where it is, in software, with the reason on record; it is not tried again.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import Any

from userfw.core.clock import Clock
from userfw.core.const import IPPROTO_TCP, IPS_HW_OFFLOAD, NFPROTO_IPV4
from userfw.core.packet import Device
from userfw.flowtable.flow import Flow, FlowTuple
from userfw.flowtable.table import FlowTable
from userfw.offload.contract import Actions, Capabilities, Driver, Failure, Match, Refusal, Rule, Statistics, Target

SECOND = 1_000_000_000


@dataclass(slots=True)
class Placement:
    """Where a device stands: the driver that takes it and what it can do."""

    target: Target
    driver: Driver
    capabilities: Capabilities


@dataclass(eq=False, slots=True)
class Offloaded:
    """What the manager keeps with a flow (`Flow.offload`): its rules, how many are in, and why not, if not."""

    flow: Flow
    state: str = "waiting"  # waiting, installing, installed, failed
    reason: str = ""
    rules: tuple[Rule, ...] = ()
    done: int = 0
    seen: dict[int, tuple[int, int]] | None = None


class OffloadManager:
    """Feeds the drivers from the flowtables that carry `flags offload`.

    - `device`: gives the Device of a name, and `target` how a driver finds it; None if there is none.
    - `threshold`: packets of a flow, both directions, before it is offered. `rate`: installations a second.
    - `generation`: a number that changes with every change of routes and addresses.
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
    ) -> None:
        self.clock = clock
        self.drivers = list(drivers)
        self.target = target
        self.generation = generation
        self.threshold = threshold
        self.rate = rate
        self.placements: dict[str, Placement] = {}
        self.tables: list[FlowTable] = []
        self.waiting: deque[Offloaded] = deque()
        self.rules: dict[int, Offloaded] = {}
        self.failures: Counter[str] = Counter()
        self.installed = 0
        self.packets = 0
        self._next_rule = 1
        self._budget = float(rate)
        self._refilled = clock.now
        self._counted = clock.now
        self._generation = generation()

    # The control plane

    def place(self, name: str) -> Placement | str:
        """The driver for a device of a flowtable with `flags offload`; in words, why there is none."""
        if name in self.placements:
            return self.placements[name]
        target = self.target(name)
        if target is None:
            return f"device {name} does not exist"
        reasons = []
        for driver in self.drivers:
            answer = driver.probe(target)
            if isinstance(answer, Capabilities):
                self.placements[name] = Placement(target, driver, answer)
                return self.placements[name]
            assert isinstance(answer, Refusal)
            reasons.append(f"{driver.name}: {answer.reason}")
        return f"device {name} cannot offload: {'; '.join(reasons) or 'no offload driver is installed'}"

    def check(self, devices: Iterable[str]) -> list[str]:
        """What speaks against `flags offload` on these devices; empty if nothing does."""
        return [reason for reason in map(self.place, devices) if isinstance(reason, str)]

    def attach(self, table: FlowTable) -> None:
        """Offload the flows of `table` from now on. ValueError names the devices that cannot."""
        reasons = self.check(table.devices)
        if reasons:
            raise ValueError("; ".join(reasons))
        table.offloader = self
        self.tables.append(table)

    def detach(self, table: FlowTable) -> None:
        """Take all flows of `table` out of their devices; they go on in software."""
        for flow in table:
            self.ended(flow)
        table.offloader = None
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
        flow.offload = Offloaded(flow)
        self.waiting.append(flow.offload)

    def ended(self, flow: Flow) -> None:
        """The flow ends: out of the devices before this returns."""
        entry: Offloaded | None = flow.offload
        if entry is None:
            return
        self._count()
        flow.offload = None
        self._withdraw(entry)

    def tick(self, now: int) -> None:
        """Completions, new flows, changes of routes and neighbours, counters. The shell calls it every 100 ms or so."""
        for driver in self.drivers:
            driver.poll(now, self._lost)
        if self.generation() != self._generation:
            self._generation = self.generation()
            self._revalidate()
        self._neighbours()
        self._offer(now)
        if now - self._counted >= SECOND:
            self._count()
            self.tables = [table for table in self.tables if table.count]

    def _offer(self, now: int) -> None:
        self._budget = min(float(self.rate), self._budget + (now - self._refilled) * self.rate / SECOND)
        self._refilled = now
        for _ in range(len(self.waiting)):
            entry = self.waiting.popleft()
            flow = entry.flow
            if flow.dead or entry.state != "waiting":
                continue
            ready = flow.original.packets + flow.reply.packets >= self.threshold
            if not ready or self._budget < 1 or not self._resolved(flow):
                self.waiting.append(entry)
                continue
            self._budget -= 1
            self._install(entry)

    def _resolved(self, flow: Flow) -> bool:
        return all(_neighbour(side) is not None or not side.route.oif.mac for side in (flow.original, flow.reply))

    def _install(self, entry: Offloaded) -> None:
        flow = entry.flow
        rules = []
        for side in (flow.original, flow.reply):
            rules.append(Rule(self._next_rule, *self._describe(flow, side)))
            self._next_rule += 1
        entry.rules = tuple(rules)
        for rule in rules:
            placement = self.placements.get(rule.match.device)
            lacking = placement.capabilities.lacks(rule) if placement else f"a driver for {rule.match.device}"
            if lacking:
                self._fail(entry, f"{rule.match.device} lacks {lacking}")
                return
        entry.state = "installing"
        entry.done = 0
        entry.seen = {rule.id: (0, 0) for rule in rules}
        for rule in rules:
            self.rules[rule.id] = entry
        for driver, group in self._by_driver(entry.rules):
            if entry.state == "installing":
                driver.install(group, partial(self._done, driver))

    def _by_driver(self, rules: Iterable[Rule]) -> list[tuple[Driver, list[Rule]]]:
        groups: dict[int, tuple[Driver, list[Rule]]] = {}
        for rule in rules:
            driver = self.placements[rule.match.device].driver
            groups.setdefault(id(driver), (driver, []))[1].append(rule)
        return list(groups.values())

    def _done(self, driver: Driver, id: int, failure: Failure | None) -> None:
        entry = self.rules.get(id)
        if entry is None:
            if failure is None:
                driver.remove([id])  # its flow ended, or its other direction failed, meanwhile
            return
        if failure is not None:
            self._withdraw(entry)
            self._fail(entry, failure.value)
            return
        entry.done += 1
        if entry.done == len(entry.rules):
            entry.state = "installed"
            self.installed += 1
            entry.flow.conn.status |= IPS_HW_OFFLOAD

    def _fail(self, entry: Offloaded, reason: str) -> None:
        entry.state = "failed"
        entry.reason = reason
        self.failures[reason] += 1

    def _withdraw(self, entry: Offloaded) -> None:
        """Out of the devices; the entry is nobody's until it waits or fails."""
        for driver, group in self._by_driver(rule for rule in entry.rules if rule.id in self.rules):
            driver.remove([rule.id for rule in group])
        for rule in entry.rules:
            self.rules.pop(rule.id, None)
        if entry.state == "installed":
            self.installed -= 1
            entry.flow.conn.status &= ~IPS_HW_OFFLOAD
        entry.state = "gone"
        entry.rules = ()

    def _again(self, entry: Offloaded) -> None:
        self._withdraw(entry)
        entry.state = "waiting"
        self.waiting.append(entry)

    def _entries(self) -> list[Offloaded]:
        return list({id(entry): entry for entry in self.rules.values()}.values())

    def _revalidate(self) -> None:
        """A route, an address or a device changed: flows whose way is no longer sure return to the pipeline."""
        for entry in self._entries():
            flow = entry.flow
            if not (flow.original.route.valid() and flow.reply.route.valid()):
                flow.table.teardown(flow)

    def _neighbours(self) -> None:
        """A neighbour has another address, or none any more: the flow waits in software until it is known."""
        for entry in self._entries():
            for side, rule in zip((entry.flow.original, entry.flow.reply), entry.rules, strict=False):
                if side.route.oif.mac and _neighbour(side) != rule.actions.ethernet_destination:
                    self._again(entry)
                    break

    def _lost(self, name: str) -> None:
        """A device was reset or is gone: none of its rules exists any more."""
        self.placements.pop(name, None)
        for entry in self._entries():
            if any(name in (rule.match.device, rule.actions.device) for rule in entry.rules):
                entry.rules = tuple(rule for rule in entry.rules if rule.match.device != name)
                self._withdraw(entry)
                self._fail(entry, Failure.GONE.value)
        self.rules = {id: entry for id, entry in self.rules.items() if entry.state in ("installing", "installed")}

    # Counters

    def _count(self) -> None:
        self._counted = self.clock.now
        for driver in self.drivers:
            for record in driver.statistics():
                entry = self.rules.get(record.id)
                if entry is not None and entry.seen is not None:
                    self._add(entry, record)

    def _add(self, entry: Offloaded, record: Statistics) -> None:
        assert entry.seen is not None
        flow = entry.flow
        packets, octets = entry.seen[record.id]
        entry.seen[record.id] = (record.packets, record.bytes)
        packets, octets = record.packets - packets, record.bytes - octets
        if packets <= 0:
            return
        dir = 0 if record.id == entry.rules[0].id else 1
        table: FlowTable = flow.table
        table.credit(flow, dir, packets, octets)
        self.packets += packets
        idle = table.tcp_timeout if flow.l4proto == IPPROTO_TCP else table.udp_timeout
        flow.timeout = max(flow.timeout, record.last_used + idle)

    # Description

    def _describe(self, flow: Flow, side: FlowTuple) -> tuple[Match, Actions]:
        size = 4 if flow.family == NFPROTO_IPV4 else 16
        arrives: Device = flow.reply.route.oif if side.dir == 0 else flow.original.route.oif
        leaves: Device = side.route.oif
        match_device, match_tags = _untagged(arrives)
        out_device, out_tags = _untagged(leaves)
        match = Match(
            match_device.name,
            self._number(match_device),
            flow.l4proto,
            _address(side.src_hi, side.src_lo, size),
            _address(side.dst_hi, side.dst_lo, size),
            side.ports >> 16,
            side.ports & 0xFFFF,
            match_tags,
        )
        actions = Actions(
            out_device.name,
            self._number(out_device),
            _address(side.new_src_hi, side.new_src_lo, size),
            _address(side.new_dst_hi, side.new_dst_lo, size),
            side.new_ports >> 16,
            side.new_ports & 0xFFFF,
            leaves.mac,
            _neighbour(side) or b"",
            out_tags,
            side.mtu,
        )
        return match, actions

    def _number(self, device: Device) -> int:
        placement = self.placements.get(device.name)
        if placement is not None:
            return placement.target.ifindex
        target = self.target(device.name)
        return target.ifindex if target is not None else 0

    def status(self) -> dict[str, Any]:
        """What `userfw offload` shows."""
        return {
            "devices": [
                {"device": name, "driver": p.driver.name, "where": p.capabilities.where, "capacity": p.capabilities.capacity}
                for name, p in sorted(self.placements.items())
            ],
            "flows": {
                "flowtable": sum(table.count // 2 for table in self.tables),
                "waiting": sum(1 for entry in self.waiting if not entry.flow.dead),
                "hardware": self.installed,
            },
            "packets": {"flowtable": sum(int(table.forwarded) for table in self.tables), "hardware": self.packets},
            "failures": dict(self.failures),
        }

    def flows(self) -> list[dict[str, Any]]:
        """Every flow of the tables and where it is handled, or why not in hardware."""
        rows = []
        for table in self.tables:
            for flow in table:
                entry: Offloaded | None = flow.offload
                rows.append(
                    {
                        "table": table.name,
                        "protocol": int(flow.l4proto),
                        "original": _ends(flow.original, flow.family),
                        "reply": _ends(flow.reply, flow.family),
                        "packets": int(flow.original.packets + flow.reply.packets),
                        "state": entry.state if entry is not None else "software",
                        "reason": entry.reason if entry is not None else "",
                    }
                )
        return rows


def _ends(side: FlowTuple, family: int) -> str:
    """`source:port > destination:port` as it arrives."""
    size = 4 if family == NFPROTO_IPV4 else 16
    source = ip_address(_address(side.src_hi, side.src_lo, size))
    destination = ip_address(_address(side.dst_hi, side.dst_lo, size))
    form = "{}:{}" if size == 4 else "[{}]:{}"
    return f"{form.format(source, side.ports >> 16)} > {form.format(destination, side.ports & 0xFFFF)}"


def _address(hi: int, lo: int, size: int) -> bytes:
    return ((hi << 64) | lo).to_bytes(16, "big")[16 - size :]


def _untagged(device: Device) -> tuple[Device, tuple[tuple[int, int], ...]]:
    """The device that carries `device`'s frames, and the tags they have there, outermost first."""
    tags: tuple[tuple[int, int], ...] = ()
    while device.parent is not None:
        tags = ((device.vlan_proto, device.vlan_id), *tags)
        device = device.parent
    return device, tags


def _neighbour(side: FlowTuple) -> bytes | None:
    """The link-layer address that packets of this direction are sent to, if it is known."""
    neighbour = side.route.neigh
    if neighbour is None or neighbour.dead or not (neighbour.mac_hi or neighbour.mac_lo):
        return None
    mac: bytes = neighbour.mac
    return mac
