"""The tc flower driver: each direction of a flow is one filter at the clsact ingress of its interface.

- In hardware (`skip_sw`): interfaces whose feature hw-tc-offload is on. What the card takes never reaches a packet socket.
- In software (`skip_hw`): ports that the configuration names in `[offload] flower` and that are captured by clsact
  (`capture = "clsact"`), because the kernel runs tcx programs and packet sockets before clsact. Guards keep the contract there.

In software NAT is act_ct's, by connections that the driver puts into a zone of the kernel's (`connections`): it keeps the checksums
of large sends right, as pedit does not. Where the kernel lacks it, and for two tags, pedit translates and large sends pass up.

Where the filters stand: userfw.ports.clsact. They outlive the process: `probe` takes away what an earlier one left, and each
filter carries a cookie with the rule's number. TTL 1 and IPv4 options are the card's own affair in hardware, as for the kernel's
flowtables.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from userfw.offload.contract import (
    Actions,
    Capabilities,
    Done,
    Driver,
    Failure,
    Filter,
    Match,
    Refusal,
    Rule,
    Statistics,
    Target,
)
from userfw.ports import bpf as syscall
from userfw.ports.clsact import (
    CAPTURE,
    GUARD,
    INGRESS,
    LARGE_GUARD,
    MADE,
    NAME,
    PLAIN,
    STATELESS,
    TRANSLATED,
    TrafficControl,
)
from userfw.ports.isolate import MARK
from userfw.ports.netlink import attributes_untrusted
from userfw.ports.netlink_batch import Refused
from userfw_hw.bpf.capture import CapturePort
from userfw_hw.flower import filters, guard, stateless
from userfw_hw.flower.connections import Connections
from userfw_hw.flower.template import Encoder, Part

ROOM: Final = {0x0800: 0, 0x86DD: 1, 0x8100: 2, 0x88A8: 3}  # a preference holds filters of one protocol
NOT_IN_HW: Final = 8
FAILURES: Final = {
    errno.ENOSPC: Failure.FULL,
    errno.ENOMEM: Failure.FULL,
    errno.EOPNOTSUPP: Failure.UNSUPPORTED,
    errno.EINVAL: Failure.UNSUPPORTED,
    errno.ENODEV: Failure.GONE,
    errno.ENXIO: Failure.GONE,
}


@dataclass(frozen=True, slots=True)
class Held:
    """What of a rule is in the kernel: filters of one preference, in these chains, the last of which counts; what erases them."""

    pref: int
    chains: tuple[int, ...]
    erase: tuple[bytes, ...]


@dataclass(slots=True)
class Place:
    """One interface: how its filters are installed and which of them are in."""

    target: Target
    hardware: bool
    encoder: Encoder
    mtu: int
    untracked: str  # why act_ct does not translate here; empty if it does
    made: bool = False
    ready: bool = False
    rules: dict[int, Held] = field(default_factory=dict)
    used: dict[int, tuple[int, int]] = field(default_factory=dict)  # id: packets, time of the last new one
    refusals: Counter[str] = field(default_factory=Counter)
    filters: list[tuple[int, filters.Filter]] = field(default_factory=list)  # stateless, in order
    upper: bool = False  # which half of the preferences they are in

    def same(self, target: Target, hardware: bool) -> bool:
        """Still the interface that was probed."""
        mine = self.target
        return (mine.ifindex, self.hardware) == (target.ifindex, hardware) and mine.port is target.port


class FlowerDriver(Driver):
    """`software`: names of the ports that the configuration gives to flower in software, `elsewhere`: to another driver."""

    name = "flower"
    rank = 10  # a card before the processor

    def __init__(
        self,
        software: Iterable[str] = (),
        elsewhere: Iterable[str] = (),
        features: Callable[[Target], Mapping[str, bool]] | None = None,
    ) -> None:
        self.software = frozenset(software)
        self.elsewhere = frozenset(elsewhere)
        self.features = features if features is not None else _features
        self.places: dict[str, Place] = {}
        self.homes: dict[int, Place] = {}
        self.lost: set[str] = set()
        self._tc: TrafficControl | None = None
        self._words = ""
        self._connections: Connections | None = None
        self._netns: str | None = None

    # -- the contract

    def probe(self, target: Target) -> Capabilities | Refusal:
        if not target.ifindex:
            return Refusal("not an interface of the kernel")
        if self.places and (target.netns or "") != (self._netns or ""):
            return Refusal("the interfaces of one flowtable must be in one network namespace")
        hardware = self._in_hardware(target)
        if isinstance(hardware, str):
            return Refusal(hardware)
        tc = self._socket(target.netns)
        try:
            mtu = tc.link(target.system_name).mtu
            self._sweep(tc, target)
            refused = self._trial(tc, target, filters.SKIP_SW if hardware else filters.SKIP_HW)
        except OSError as error:
            return Refusal(f"tc: {error.strerror}")
        if refused:
            return Refusal(refused)
        old = self.places.get(target.name)
        if old is not None and not old.same(target, hardware):
            self._forget(target.name)  # another interface by that name, or the port was opened anew
            old = None
        if old is None:
            untracked = "hardware" if hardware else self._untracked(tc, target)
            encoder = Encoder(filters.SKIP_SW) if hardware else Encoder(filters.SKIP_HW, MARK, _old_pedit(), self._zone())
            self.places[target.name] = Place(target, hardware, encoder, mtu, untracked)
        else:
            old.mtu = mtu
        return Capabilities(vlans=True, where="tc flower, hardware" if hardware else "tc flower, software")

    def install(self, rules: Sequence[Rule], done: Done) -> None:
        made: list[tuple[Rule, Place, Held, int]] = []
        messages: list[bytes] = []
        for rule in rules:
            failure = self._refuse(rule)
            if failure is None:
                place = self.places[rule.match.device]
                try:
                    held, requests = self._requests(place, rule)
                except OSError as error:
                    failure = self._failure(place, error)
            if failure is not None:
                done(rule.id, failure)
                continue
            made.append((rule, place, held, len(requests)))
            messages += requests
        answers = iter(self._send(messages))
        for rule, place, held, size in made:
            refused = [next(answers) for _ in range(size)]
            place.rules[rule.id] = held
            self.homes[rule.id] = place
            first = next((answer for answer in refused if answer is not None), None)
            if first is not None:
                self._drop([rule.id])
            done(rule.id, None if first is None else self._failure(place, first))

    def explain(self, id: int) -> str:
        return self._words

    def _requests(self, place: Place, rule: Rule) -> tuple[Held, list[bytes]]:
        """What puts a rule into the kernel; its connection, if it takes one, is there already. OSError."""
        match, mac, encode = rule.match, rule.match.ethernet or _mac(place.target), place.encoder.encode
        protocol = filters.protocol_of(match)

        def item(pref: int, chain: int) -> bytes:
            return filters.erase(filters.Filter(match.ifindex, pref, protocol, rule.id, (), (), chain=chain or None))

        if rule.translates and not place.untracked and len(match.vlans) <= 1 and self._connections is not None:
            pref = PLAIN + ROOM[protocol]
            number, reply = self._connections.obtain(rule)
            requests = [
                encode(rule, pref, mac, Part.LEAVE, number, reply),
                encode(rule, pref, mac, Part.ENTER),
            ]  # nobody comes to a half that is not whole
            return Held(pref, (0, filters.CHAIN), (item(pref, 0), item(pref, filters.CHAIN))), requests
        pref = (TRANSLATED if rule.translates else PLAIN) + ROOM[protocol]
        return Held(pref, (0,), (item(pref, 0),)), [encode(rule, pref, mac)]

    def remove(self, ids: Iterable[int]) -> list[Statistics] | None:
        ids = list(ids)
        final = self._totals(ids)
        self._drop(ids)
        return final

    def _drop(self, ids: list[int]) -> None:
        messages: list[bytes] = []
        for id in ids:
            place = self.homes.pop(id, None)
            if place is not None:
                messages += place.rules.pop(id).erase
                place.used.pop(id, None)
        self._send(messages)
        if self._connections is not None:
            self._connections.release(ids)

    def _totals(self, ids: list[int]) -> list[Statistics]:
        """What these rules counted so far."""
        places = {id(place): place for rule in ids if (place := self.homes.get(rule)) is not None}
        wanted = set(ids)
        return [record for place in places.values() for record in self._count(place) if record.id in wanted]

    def statistics(self) -> list[Statistics]:
        return [record for place in self.places.values() if place.rules for record in self._count(place)]

    def _count(self, place: Place) -> list[Statistics]:
        """The kernel's totals of each rule of an interface; an interface that lost some of them is told at the next `poll`."""
        found = self._read(place)
        if found is None or any(id not in found for id in place.rules):
            self.lost.add(place.target.name)
        records, now = [], time.monotonic_ns()
        for id, (packets, octets) in (found or {}).items():
            if id in place.rules:
                before, last = place.used.get(id, (0, 0))
                place.used[id] = (packets, last if packets == before else now)
                records.append(Statistics(id, packets, octets, place.used[id][1]))
        return records

    # -- stateless filters

    def set_filters(self, target: Target, items: Sequence[Filter]) -> tuple[int, str] | None:
        place = self.places.get(target.name)
        if place is None:
            return (0, "the interface is gone") if items else None
        up = 0 if place.hardware else target.port.tap_index  # type: ignore[attr-defined]
        flags, mark = (filters.SKIP_SW, 0) if place.hardware else (filters.SKIP_HW, MARK)
        try:
            made = stateless.lay_out(target.ifindex, items, not place.upper, flags, up, mark)
            place.made = (bool(items) and self._socket(target.netns).add_clsact(target.ifindex)) or place.made
        except stateless.Unmatchable as problem:
            return problem.args[0], problem.args[1]
        except OSError as error:
            return 0, error.strerror or str(error)
        results = self._send([filters.encode(item) for _, item in made])
        for (id, _), refused in zip(made, results, strict=True):
            if refused is not None:
                self._send([filters.erase(item) for (_, item), other in zip(made, results, strict=True) if other is None])
                return id, refused.strerror or ""
        self._send([filters.erase(item) for _, item in place.filters])
        place.filters, place.upper = made, not place.upper
        return None

    def filter_statistics(self) -> list[Statistics]:
        records = []
        for name, place in self.places.items():
            if not place.filters:
                continue
            totals: dict[int, tuple[int, int]] = {}
            try:
                listed = self._socket(place.target.netns).filters(place.target.ifindex)
            except OSError:
                listed = []
            seen = 0
            for item in listed:
                if place.hardware and astray_untrusted(item.options):
                    continue
                if item.kind == "flower" and STATELESS <= item.pref < CAPTURE:
                    packets, octets = counters_untrusted(item.options)
                    before = totals.get(item.handle, (0, 0))
                    totals[item.handle] = before[0] + packets, before[1] + octets
                    seen += 1
            if seen < len(place.filters):
                self.lost.add(name)
            records += [Statistics(id, packets, octets, 0) for id, (packets, octets) in totals.items()]
        return records

    def poll(self, now: int, lost: Callable[[str], None]) -> None:
        names, self.lost = self.lost, set()
        for name in names:
            if name in self.places:
                self._forget(name)
                lost(name)

    def _forget(self, name: str) -> None:
        """Nothing is believed of an interface any more; what is left of its filters goes."""
        place = self.places.pop(name)
        self._drop(list(place.rules))
        self._send([filters.erase(item) for _, item in place.filters])

    def describe(self, target: Target) -> dict[str, object]:
        """The interface's mode, filters and preferences, and what the kernel refused."""
        place = self.places.get(target.name)
        if place is None:
            return {}
        return {
            "because": "hw-tc-offload is on" if place.hardware else "the configuration says so",
            "mode": "hardware" if place.hardware else "software",
            "filters": len(place.rules),
            "preferences": sorted({held.pref for held in place.rules.values()}),
            "nat": f"pedit ({place.untracked})" if place.untracked else "act_ct",
            **({} if place.untracked else {"zone": self._zone()}),
            "stateless": len(place.filters),
            "refusals": dict(place.refusals),
        }

    def release(self, target: Target) -> None:
        place = self.places.get(target.name)
        if place is not None:
            self._forget(target.name)
            self._undress(place)
        self.lost.discard(target.name)

    def close(self) -> None:
        self._drop(list(self.homes))
        for place in self.places.values():
            self._undress(place)
        self.places.clear()
        if self._tc is not None:
            self._tc.close()
            self._tc = None
        if self._connections is not None:
            self._connections.close()
            self._connections = None

    # -- where flower may work

    def _in_hardware(self, target: Target) -> bool | str:
        """Whether the interface's card is used; in words, why neither it nor software can be."""
        if target.name in self.elsewhere:
            return "the configuration gives the port to XDP"
        features = self.features(target)
        if features.get("hw-tc-offload"):
            return True
        if target.name in self.software:
            if isinstance(target.port, CapturePort) and target.port.clsact is not None:
                return False
            return 'in software it needs capture = "clsact" on the port'
        if "hw-tc-offload" in features:
            return "hw-tc-offload is off (ethtool = { features = { hw-tc-offload = true } } sets it)"
        return "the interface has no hw-tc-offload"

    def _sweep(self, tc: TrafficControl, target: Target) -> None:
        """What an earlier process left; a capture that is there now is not touched."""
        if target.name not in self.places:
            tc.remove_prefs(target.ifindex, GUARD, CAPTURE - 1)

    def _untracked(self, tc: TrafficControl, target: Target) -> str:
        """Why act_ct cannot translate at this interface; empty if it can. Nothing stays behind."""
        ends = bytes([192, 0, 2, 1]), bytes([192, 0, 2, 2])
        match = Match(target.name, target.ifindex, 17, *ends, 1, 1)
        rule = Rule(0xFFFFFFFF, match, Actions(target.name, target.ifindex, ends[0], ends[1], 2, 1, b"", b""))
        try:
            if self._connections is None:
                connections = Connections(target.netns)
                try:
                    connections.sweep()
                except OSError:
                    connections.close()
                    raise
                self._connections = connections
            refused = self._connections.trial(rule)
        except OSError as error:
            return f"conntrack: {error.strerror}"
        if refused is not None:
            return f"conntrack: {refused.strerror}"
        parts = PLAIN, filters.SKIP_HW, self._zone()
        halves = filters.leave(rule, *parts, 1, False), filters.enter(rule, *parts)
        answers = tc.batch([filters.encode(item) for item in halves])
        tc.batch([filters.erase(item) for item, answer in zip(halves, answers, strict=True) if answer is None])
        return next((f"act_ct: {answer.strerror}" for answer in answers if answer is not None), "")

    def _zone(self) -> int:
        """The kernel's conntrack zone that is ours; 0 if there is none."""
        return self._connections.zone if self._connections is not None else 0

    def _trial(self, tc: TrafficControl, target: Target, flags: int) -> str:
        """Install a filter that matches nothing real and take it out again; in words, why that did not work."""
        made = tc.add_clsact(target.ifindex)
        try:
            keys = (("KEY_IP_PROTO", 17), ("KEY_IPV4_SRC", bytes([192, 0, 2, 1])), ("KEY_IPV4_SRC_MASK", b"\xff" * 4))
            item = filters.Filter(
                target.ifindex, PLAIN, 0x0800, 0xFFFFFFFF, keys, (filters.verdict(filters.ACT_SHOT),), flags, filters.COOKIE
            )
            (refused,) = tc.batch([filters.encode(item)])
            if refused is None:
                tc.batch([filters.erase(item)])
                return ""
            return f"the kernel refuses flower filters: {refused.strerror}"
        finally:
            if made:
                tc.remove_clsact(target.ifindex)

    # -- filters

    def _refuse(self, rule: Rule) -> Failure | None:
        """Why a rule is not even tried; None after its interface has been made ready."""
        place = self.places.get(rule.match.device)
        if place is None or (not place.hardware and rule.actions.device not in self.places):
            self._words = f"{rule.actions.device if place is not None else rule.match.device} is none of its interfaces"
            return Failure.UNSUPPORTED
        self._words = ""
        try:
            place.mtu = self._socket(place.target.netns).link(place.target.system_name).mtu
        except OSError as error:
            return self._failure(place, error)
        if place.mtu > rule.actions.mtu:
            self._words = "flower compares no lengths, so the way out must take all that comes in"
        elif len(rule.match.vlans) > 2 or len(rule.actions.vlans) > 2:
            self._words = "more than two tags"
        if self._words:
            place.refusals[self._words] += 1
            return Failure.UNSUPPORTED
        try:
            if not place.ready:
                self._dress(place)
        except OSError as error:
            self._failure(place, error)
            return Failure.FAULT
        return None

    def _failure(self, place: Place, error: OSError) -> Failure:
        """What the kernel's refusal means, kept with its words."""
        self._words = error.strerror or ""
        place.refusals[self._words] += 1
        return FAILURES.get(error.errno or 0, Failure.FAULT)

    def _dress(self, place: Place) -> None:
        """The qdisc, and in software the guards. OSError."""
        tc = self._socket(place.target.netns)
        place.made = tc.add_clsact(place.target.ifindex) or place.made
        if not place.hardware:
            port = place.target.port
            assert isinstance(port, CapturePort)
            name = NAME + (MADE if place.made else b"") + b" guard"
            for pref, code in ((GUARD, guard.doubtful(port.tap_index)), (LARGE_GUARD, guard.large(port.tap_index))):
                program = syscall.load(syscall.PROG_TYPE_SCHED_CLS, code, "userfw_guard")
                try:
                    tc.put_program(place.target.ifindex, pref, program, name)
                finally:
                    os.close(program)
            if not place.untracked:
                (refused,) = tc.batch([filters.encode(filters.lost(place.target.ifindex, LARGE_GUARD, port.tap_index))])
                if refused is not None:
                    raise refused
        place.ready = True

    def _undress(self, place: Place) -> None:
        tc = self._socket(place.target.netns)
        try:
            tc.remove_prefs(place.target.ifindex, GUARD, CAPTURE - 1)
            if place.made:
                tc.remove_clsact(place.target.ifindex)
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise

    def _read(self, place: Place) -> dict[int, tuple[int, int]] | None:
        """Packets and bytes of each rule that the kernel still has; None if the interface is gone."""
        tc, found = self._socket(place.target.netns), {}
        try:
            for pref in {held.pref for held in place.rules.values()}:
                for item in tc.filters(place.target.ifindex, INGRESS, pref):
                    if item.kind == "flower" and not (place.hardware and astray_untrusted(item.options)):
                        found[item.chain, item.handle] = item.options
        except OSError:
            return None
        return {
            id: counters_untrusted(found[held.chains[-1], id])
            for id, held in place.rules.items()
            if all((chain, id) in found for chain in held.chains)
        }

    def _socket(self, netns: str | None) -> TrafficControl:
        if self._tc is None:
            self._tc, self._netns = TrafficControl(netns), netns
        return self._tc

    def _send(self, messages: list[bytes]) -> list[Refused | None]:
        if not messages or self._tc is None:
            return []
        try:
            return self._tc.batch(messages)
        except OSError as error:
            return [Refused(error.errno, error.strerror)] * len(messages)


def counters_untrusted(options: bytes) -> tuple[int, int]:
    """Packets and bytes of the first action of a flower filter (TCA_ACT_STATS: TCA_STATS_BASIC, TCA_STATS_PKT64)."""
    action = attributes_untrusted(attributes_untrusted(attributes_untrusted(options).get(3, b"")).get(1, b""))
    stats = attributes_untrusted(action.get(4, b""))
    basic, wide = stats.get(1, b""), stats.get(8, b"")
    if len(basic) < 12:
        return 0, 0
    return int.from_bytes(wide[:8] if len(wide) >= 8 else basic[8:12], sys.byteorder), int.from_bytes(basic[:8], sys.byteorder)


def astray_untrusted(options: bytes) -> bool:
    """No card has the filter any more (TCA_CLS_FLAGS_NOT_IN_HW): with skip_sw the kernel keeps it then, but nothing runs it."""
    flags = attributes_untrusted(options).get(22, b"")
    return len(flags) == 4 and bool(int.from_bytes(flags, sys.byteorder) & NOT_IN_HW)


def _mac(target: Target) -> bytes:
    """The address that frames for the gateway carry on this port."""
    device = getattr(target.port, "device", None)
    return bytes(device.mac) if device is not None else b""


def _old_pedit() -> bool:
    """Before Linux 6.4 pedit may take the transport header's place on trust; at ingress it is not known yet."""
    return tuple(int(part) for part in os.uname().release.split(".")[:2]) < (6, 4)


def _features(target: Target) -> Mapping[str, bool]:
    from userfw.ports.ethtool import features

    return features(target.system_name, target.netns)


def make(options: Mapping[str, Any]) -> FlowerDriver:
    """The driver as userfw.offload.drivers asks for it."""
    return FlowerDriver(options.get("flower", ()), options.get("xdp", ()))
