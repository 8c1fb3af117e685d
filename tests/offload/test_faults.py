"""What goes wrong at the worst moment: completions in the wrong order, counters that go backwards, drivers that raise, ports that
are taken away. On the software card, between memory wires, on a manual clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from card_lab import SECOND
from offload_lab import RULES, GatewayLab
from userfw_hw.mock import MockNic

from userfw.core.const import IPS_HW_OFFLOAD
from userfw.offload import drivers
from userfw.offload.contract import Capabilities, Done, Driver, Failure, Refusal, Rule, Statistics, Target
from userfw.offload.guarded import Guarded


class Script(Driver):
    """A card that does nothing by itself: the test calls `done`, sets totals, and sees what is removed."""

    name = "script"

    def __init__(self) -> None:
        self.asked: list[tuple[Rule, Done]] = []
        self.inside: set[int] = set()
        self.totals: dict[int, tuple[int, int, int]] = {}
        self.released: list[str] = []
        self.raising: set[str] = set()
        self.refuse: list[Failure] = []
        self.closed = 0

    def _maybe(self, what: str) -> None:
        if what in self.raising:
            raise RuntimeError(f"no {what} today")

    def probe(self, target: Target) -> Capabilities | Refusal:
        self._maybe("probe")
        return Capabilities(vlans=True, where="a script")

    def install(self, rules: Sequence[Rule], done: Done) -> None:
        for rule in rules:
            if self.refuse:
                done(rule.id, self.refuse.pop(0))
                continue
            self._maybe("install")
            self.asked.append((rule, done))
            self.inside.add(rule.id)

    def complete(self) -> None:
        """Everything asked for is in."""
        asked, self.asked = self.asked, []
        for rule, done in asked:
            done(rule.id, None)

    def remove(self, ids: Iterable[int]) -> Iterator[Statistics]:
        self._maybe("remove")
        ids = list(ids)
        self.inside -= set(ids)
        self.asked = [(rule, done) for rule, done in self.asked if rule.id not in ids]
        return (Statistics(id, *self.totals.pop(id)) for id in ids if id in self.totals)

    def statistics(self) -> Iterator[Statistics]:
        self._maybe("statistics")
        return (Statistics(id, *totals) for id, totals in self.totals.items())

    def poll(self, now: int, lost: Callable[[str], None]) -> None:
        self._maybe("poll")

    def release(self, target: Target) -> None:
        self.released.append(target.name)

    def close(self) -> None:
        self.closed += 1
        self.inside.clear()
        self.asked.clear()


class Lab(GatewayLab):
    """A gateway whose card is a script; `guarded` as the daemon has it."""

    def __init__(self, guarded: bool = False) -> None:
        super().__init__(offload=False)
        self.script = Script()
        self.manager.drivers = [Guarded(self.script) if guarded else self.script]
        self.nft("flush ruleset")
        self.nft(RULES % "flags offload;")

    def asked(self) -> Any:
        """A flow that was offered, its connection."""
        self.offloaded()
        (conn,) = self.assembly.conntrack.members(0, 0)
        return conn


def test_one_completion_told_twice_is_not_both() -> None:
    lab = Lab()
    conn = lab.asked()
    (first, done), (second, _) = lab.script.asked
    done(first.id, None)
    done(first.id, None)
    assert lab.manager.installed == 0 and not conn.status & IPS_HW_OFFLOAD
    done(second.id, None)
    done(second.id, None)
    assert lab.manager.installed == lab.manager.installations == 1 and conn.status & IPS_HW_OFFLOAD
    lab.nft("flush ruleset")
    assert not lab.script.inside and lab.manager.installed == 0


def test_what_the_driver_took_after_its_other_half_failed_is_taken_back_at_once() -> None:
    lab = Lab()
    lab.script.refuse = [Failure.FULL]
    lab.asked()
    assert not lab.script.inside and not lab.script.asked


def test_a_completion_after_the_removal_is_answered_by_another_removal() -> None:
    """A card that had it in its queue all the same."""
    lab = Lab()
    lab.asked()
    late = list(lab.script.asked)
    lab.nft("insert rule inet filter forward udp dport 53 drop")
    assert not lab.script.inside
    for rule, done in late:
        lab.script.inside.add(rule.id)
        done(rule.id, None)
    assert not lab.script.inside and lab.manager.installed == 0


def test_a_failure_of_what_was_removed_is_nobody_s() -> None:
    lab = Lab()
    lab.asked()
    late = list(lab.script.asked)
    lab.nft("insert rule inet filter forward udp dport 53 drop")
    for rule, done in late:
        for failure in (Failure.FAULT, Failure.IDLE, Failure.GONE):
            done(rule.id, failure)
    lab.tick(20)
    assert not lab.manager.failures and not lab.script.asked


def test_a_failure_after_the_success_takes_both_directions_back() -> None:
    lab = Lab()
    conn = lab.asked()
    (rule, done), _ = lab.script.asked
    lab.script.complete()
    done(rule.id, Failure.GONE)
    assert not lab.script.inside and lab.manager.installed == 0 and not conn.status & IPS_HW_OFFLOAD
    lab.tick(1)
    assert not lab.script.asked  # not at once
    lab.send(lab.frame())
    lab.tick(9.5)
    assert len(lab.script.asked) == 2


def test_an_idle_rule_whose_other_half_is_still_coming() -> None:
    lab = Lab()
    lab.asked()
    (first, done), (second, _) = lab.script.asked
    done(first.id, None)
    done(first.id, Failure.IDLE)
    assert not lab.script.inside
    done(second.id, None)
    assert not lab.script.inside and lab.manager.installed == 0


def test_counters_that_go_backwards_begin_anew() -> None:
    lab = Lab()
    conn = lab.asked()
    lab.script.complete()
    rule = next(iter(sorted(lab.script.inside)))
    before = int(conn.packets[0]), int(conn.bytes[0])

    def counted(packets: int, octets: int) -> tuple[int, int]:
        lab.script.totals[rule] = packets, octets, lab.clock.now
        lab.tick(1)
        return int(conn.packets[0]) - before[0], int(conn.bytes[0]) - before[1]

    assert counted(0, 0) == (0, 0)
    assert counted(1000, 50_000) == (1000, 50_000)
    assert counted(10, 500) == (1000, 50_000)
    assert counted(20, 1000) == (1010, 50_500)
    assert counted(21, 100) == (1011, 50_500)  # bytes alone turned over
    assert counted(22, 200) == (1012, 50_600)
    big = 1 << 40
    assert counted(big, big) == (1012 + big - 22, 50_600 + big - 200)
    assert not lab.faults


@pytest.mark.parametrize("used", [0, 1 << 62])
def test_a_last_use_that_cannot_be(used: int) -> None:
    """0 where the card does not tell: it is used as long as it counts. A time to come keeps nothing alive for ever."""
    lab = Lab()
    conn = lab.asked()
    lab.script.complete()
    rule = min(lab.script.inside)
    for n in range(1, 60):
        lab.script.totals[rule] = n, n * 60, used
        lab.tick(1)
        lab.assembly.sweep()
    assert conn.flow is not None and conn.flow.timeout <= lab.clock.now + lab.table().udp_timeout
    lab.clock.now += lab.table().udp_timeout + SECOND
    lab.tick(0)
    for _ in range(64):
        lab.assembly.sweep()
    assert conn.flow is None and not lab.script.inside


def test_counters_of_what_is_no_more_are_nobody_s() -> None:
    lab = Lab()
    lab.asked()
    lab.script.complete()
    rules = set(lab.script.inside)
    lab.nft("insert rule inet filter forward udp dport 53 drop")
    lab.script.totals = dict.fromkeys((*rules, 12345), (5, 500, lab.clock.now))
    lab.tick(2)
    assert lab.manager.packets == 0 and not lab.faults


def test_a_neighbour_that_goes_while_counters_are_read() -> None:
    """Crediting asks the neighbour; what that changes removes rules that are still being read."""
    lab = Lab()
    lab.asked()
    lab.script.complete()
    lab.script.totals = dict.fromkeys(lab.script.inside, (5, 500, lab.clock.now))
    use = lab.manager.use

    def gone(side: Any) -> None:
        lab.manager.neighbour_changed(side.route.neigh)

    lab.manager.use = gone
    lab.tick(2)
    assert not lab.script.inside and lab.manager.installed == 0
    lab.manager.use = use
    lab.tick(0.1)
    assert len(lab.script.asked) == 2  # offered again, once


def test_what_waits_is_not_installed_after_the_table_was_detached() -> None:
    lab = GatewayLab()
    for _ in range(3):
        lab.send(lab.frame())
        lab.send(lab.frame(back=True), "wan")
    assert lab.manager.waiting
    lab.manager.detach(lab.table())
    lab.tick()
    assert not lab.nic.table


# Drivers that raise


def test_a_probe_that_raises_is_a_refusal() -> None:
    lab = Lab(guarded=True)
    lab.nft("flush ruleset")
    lab.manager.lost("lan")
    lab.script.raising = {"probe"}
    result = lab.assembly.rules.execute(RULES % "flags offload;")
    assert "lan cannot offload: script: the driver failed to probe: RuntimeError: no probe today" in str(result.errors)


def test_an_installation_that_raises_is_a_fault() -> None:
    lab = Lab(guarded=True)
    lab.script.raising = {"install"}
    lab.asked()
    words = "the device refused: the driver failed to install: RuntimeError: no install today"
    assert dict(lab.manager.failures) == {words: 1} and not lab.script.inside
    lab.script.raising = set()
    lab.send(lab.frame())
    lab.tick(10)
    lab.script.complete()
    assert lab.manager.installed == 1


def test_one_that_raises_in_the_middle_leaves_no_half() -> None:
    lab = Lab(guarded=True)
    install = lab.script.install

    def half(rules: Sequence[Rule], done: Done) -> None:
        install(rules[:1], done)
        raise OSError(19, "No such device")

    lab.script.install = half  # type: ignore[method-assign]
    lab.asked()
    assert not lab.script.inside and "No such device" in str(lab.manager.failures)


@pytest.mark.parametrize("what", ["statistics", "poll"])
def test_what_cannot_be_read_stops_nothing_else(what: str) -> None:
    lab = Lab(guarded=True)
    lab.script.raising = {what}
    lab.asked()
    lab.script.complete()
    assert lab.manager.installed == 1
    lab.tick(2)
    lab.nft("insert rule inet filter forward udp dport 53 drop")
    assert not lab.script.inside


def test_a_driver_that_cannot_remove_loses_everything_and_begins_anew() -> None:
    lab = Lab(guarded=True)
    conn = lab.asked()
    lab.offloaded(sport=40001)
    lab.script.complete()
    assert lab.manager.installed == 2
    lab.script.raising = {"remove"}
    lab.assembly.conntrack.destroy(conn)  # as by the packet path
    assert lab.script.closed == 1 and not lab.script.inside
    assert lab.send(lab.frame(sport=40001))  # in software
    lab.tick()
    assert lab.manager.installed == 0 and lab.manager.status()["flows"]["waiting"] == 1
    lab.script.raising = set()
    lab.tick(2)
    lab.script.complete()
    assert lab.manager.installed == 1 and not lab.faults


def test_drivers_that_cannot_be_made_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(options: object) -> Driver:
        raise ValueError("no such card")

    module = SimpleNamespace(broken=broken, nothing=lambda options: 42, good=lambda options: Script())
    monkeypatch.setattr(drivers.importlib, "import_module", lambda name: module)
    monkeypatch.setattr(drivers, "OWN", {"a": "m:broken", "b": "m:nothing", "c": "m:good", "d": "m:missing"})
    assert [driver.name for driver in drivers.load({})] == ["script"]


# Ports that are taken away


def test_a_port_that_is_removed_is_let_go_of_and_looked_at_anew_when_it_comes_again() -> None:
    lab = Lab()
    lab.asked()
    lab.script.complete()
    device = lab.devices["wan"]
    lab.assembly.remove_port(device)
    assert lab.script.released == ["wan"] and not lab.script.inside
    assert "wan" not in lab.manager.placements and "lan" in lab.manager.placements


def test_a_removed_port_takes_its_stateless_filters_with_it() -> None:
    lab = GatewayLab()
    device = lab.devices["wan"]
    lab.nft('table netdev h { chain c { type filter hook ingress device "wan" priority 5; flags offload; udp dport 9 drop; }\n }')
    assert lab.nic.filters.lists
    lab.assembly.remove_port(device)
    assert not lab.nic.filters.lists
    device.up = True
    lab.assembly.add_port(device, "mock", device.port)
    for _ in range(2):
        lab.clock.now += SECOND
        lab.assembly.hardware.tick(lab.clock.now)
    assert lab.nic.filters.lists


def test_the_card_removes_only_the_rule_it_is_told_to() -> None:
    """Two rules of one key, one after the other: removing the first leaves the second."""
    lab = GatewayLab()
    lab.offloaded()
    nic: MockNic = lab.nic
    slot = next(iter(nic.table.values()))
    newer = Rule(999, slot.rule.match, slot.rule.actions)
    nic.install([newer], lambda id, failure: None)
    nic.remove([slot.rule.id])
    assert [held.rule.id for held in nic.table.values()].count(999) == 1
    assert [record.id for record in nic.remove([999])] == [999] and len(nic.table) == 1
