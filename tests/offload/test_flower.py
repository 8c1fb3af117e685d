"""tc flower: requests as golden bytes of `tc`, templates, guards, and the driver on a kernel that is played."""

from __future__ import annotations

import itertools
import json
import struct
from collections.abc import Iterator
from typing import Any

import pytest
import tc_golden
from hypothesis import given
from hypothesis import strategies as st
from userfw_hw.flower import filters, guard, plugin
from userfw_hw.flower.connections import ZONES
from userfw_hw.flower.driver import FlowerDriver, astray_untrusted, counters_untrusted
from userfw_hw.flower.template import Encoder, Part

from userfw.offload.contract import Actions, Capabilities, Failure, Match, Refusal, Rule, Target
from userfw.ports.clsact import PLAIN, TRANSLATED, FilterInfo, parse_filter_untrusted
from userfw.ports.netlink import attribute
from userfw.ports.netlink_batch import Refused

MAC = bytes.fromhex("020000000101")


@pytest.mark.parametrize("case", tc_golden.CASES, ids=lambda case: case.name)
def test_the_request_is_what_tc_sends(case: tc_golden.Case) -> None:
    golden = json.loads(tc_golden.GOLDEN.read_text())
    assert filters.encode(case.item).hex() == golden[case.name]


def test_tc_still_sends_the_golden_bytes() -> None:
    """Records anew where tc and strace are; iproute2 6.1 made the recording."""
    if why := tc_golden.missing():
        pytest.skip(why)
    golden = json.loads(tc_golden.GOLDEN.read_text())
    for case in tc_golden.CASES:
        try:
            sent = tc_golden.sent(case)
        except OSError as error:
            pytest.skip(f"tc cannot be watched here: {error}")
        assert sent.hex() == golden[case.name], case.name


def shapes() -> Iterator[Rule]:
    """A rule of each shape."""
    tags = ((), (0x8100,), (0x88A8, 0x8100))
    for size, protocol, arriving, leaving in itertools.product((4, 16), (6, 17), tags, tags):
        for source, destination, sport, dport, link in itertools.product((False, True), repeat=5):
            a, b = bytes(range(1, size + 1)), bytes(range(101, size + 101))
            match = Match("a", 3, protocol, a, b, 1000, 80, tuple((t, 10 + i) for i, t in enumerate(arriving)))
            yield Rule(77, match, Actions(
                "b", 4, a[::-1] if source else a, b[::-1] if destination else b, 5000 if sport else 1000, 8080 if dport else 80,
                MAC if link else b"", MAC[::-1] if link else b"", tuple((t, 20 + i) for i, t in enumerate(leaving)),
            ))  # fmt: skip


def test_a_template_is_the_request() -> None:
    for at, rule in enumerate(shapes()):
        if at % 19:  # each costs the slow encoder a few milliseconds; every nineteenth meets all values of all fields
            continue
        for mac in (b"", MAC):
            zone = ZONES[at % len(ZONES)]
            encoder = Encoder(filters.SKIP_HW, 0x75736677, bool(at % 2), zone)
            slow = filters.encode(filters.of_rule(rule, PLAIN, filters.SKIP_HW, mac, 0x75736677, bool(at % 2)))
            assert encoder.encode(rule, PLAIN, mac) == slow
            first = filters.encode(filters.enter(rule, PLAIN, filters.SKIP_HW, zone, mac))
            assert encoder.encode(rule, PLAIN, mac, Part.ENTER) == first
            second = filters.encode(filters.leave(rule, PLAIN, filters.SKIP_HW, zone, 99, bool(at % 2), 0x75736677))
            assert encoder.encode(rule, PLAIN, mac, Part.LEAVE, 99, bool(at % 2)) == second


def test_pyroute2_decodes_what_was_sent() -> None:
    """Through pyroute2's own classes after `register`, as its listings do."""
    message = plugin.Message(filters.encode(tc_golden.CASES[1].item))
    message.decode()
    options = message.get_attr("TCA_OPTIONS")
    assert options.get_attr("TCA_FLOWER_KEY_TCP_DST") == 443
    action = options.get_attr("TCA_FLOWER_ACT").get_attr("TCA_ACT_PRIO_2")
    assert action.get_attr("TCA_ACT_KIND") == "csum"
    assert action.get_attr("TCA_ACT_OPTIONS").get_attr("TCA_CSUM_PARMS")["update_flags"] == 9


@given(st.binary(max_size=200))
def test_listings_of_any_bytes_do_no_harm(data: bytes) -> None:
    counters_untrusted(data)
    astray_untrusted(data)
    found = parse_filter_untrusted(data)
    if found is not None:
        assert isinstance(found.ours, bool)


def test_guards_assemble() -> None:
    assert len(guard.doubtful(5)) % 8 == 0
    assert len(guard.large(5)) == 8 * 8


class Kernel:
    """The traffic control of a kernel: filters by (interface, preference, protocol, handle); `refuse` answers the next requests."""

    def __init__(self) -> None:
        self.filters: dict[tuple[int, int, int, int], int] = {}
        self.refuse: list[Refused] = []
        self.qdisc = False
        self.counted = (0, 0)
        self.state = 4  # TCA_CLS_FLAGS_IN_HW

    def batch(self, messages: list[bytes]) -> list[Refused | None]:
        return [self._do(message) for message in messages]

    def _do(self, message: bytes) -> Refused | None:
        if self.refuse:
            return self.refuse.pop(0)
        kind = struct.unpack_from("=H", message, 4)[0]
        _, index, handle, _, info = struct.unpack_from("=BxxxiIII", message, 16)
        key = (index, info >> 16, info & 0xFFFF, handle)
        if kind == filters.RTM_DELTFILTER:
            return None if self.filters.pop(key, None) else Refused(2, "no such filter")
        protocols = {other[2] for other in self.filters if other[:2] == key[:2]}
        if protocols - {key[2]}:
            return Refused(22, "Specified filter protocol does not match existing")
        self.filters[key] = handle
        return None

    def list(self, index: int, parent: int = 0, pref: int = 0) -> list[FilterInfo]:
        stats = attribute(1, struct.pack("=QI", self.counted[1], self.counted[0]))
        options = attribute(3, attribute(1, attribute(4, stats) + attribute(6, filters.COOKIE)))
        options += attribute(22, struct.pack("=I", filters.SKIP_SW | self.state))
        keys = [key for key in self.filters if key[:2] == (index, pref)]
        return [FilterInfo("flower", 0, key[1], key[2], key[3], 0, options) for key in keys]

    def add_clsact(self, index: int) -> bool:
        made, self.qdisc = not self.qdisc, True
        return made

    def remove_clsact(self, index: int) -> None:
        self.qdisc = bool(self.filters)

    def remove_prefs(self, index: int, first: int, last: int) -> None:
        self.filters = {k: v for k, v in self.filters.items() if not (k[0] == index and first <= k[1] <= last)}

    def link(self, name: str) -> Any:
        return type("Link", (), {"mtu": 1500})

    def close(self) -> None:
        return


class Card(FlowerDriver):
    """The driver on a played kernel, both interfaces with a card that takes flower."""

    def __init__(self, features: dict[str, bool]) -> None:
        super().__init__(features=lambda target: features)
        self.kernel = Kernel()

    def _socket(self, netns: str | None) -> Any:
        kernel = self.kernel
        if self._tc is None:
            stand_in: Any = type("Socket", (), {"filters": staticmethod(kernel.list)})()
            for name in ("batch", "add_clsact", "remove_clsact", "remove_prefs", "link", "close"):
                setattr(stand_in, name, getattr(kernel, name))
            self._tc, self._netns = stand_in, netns
        return self._tc


TARGETS = (Target("a", 3, None, "a"), Target("b", 4, None, "b"))


@pytest.fixture
def card() -> Card:
    made = Card({"hw-tc-offload": True})
    for target in TARGETS:
        assert isinstance(made.probe(target), Capabilities)
    return made


def flow(id: int, source: int = 1, mtu: int = 1500, nat: bool = False) -> Rule:
    a, b = bytes([10, 0, 0, source]), bytes([10, 0, 1, 1])
    return Rule(id, Match("a", 3, 6, a, b, 1000, 80), Actions("b", 4, b if nat else a, b, 1000, 80, MAC, MAC, (), mtu))


def test_probing_leaves_nothing_behind(card: Card) -> None:
    assert not card.kernel.filters and not card.kernel.qdisc


def test_without_the_feature_the_words_say_so() -> None:
    for features, word in (({"hw-tc-offload": False}, "hw-tc-offload is off"), ({}, "has no hw-tc-offload")):
        answer = Card(features).probe(TARGETS[0])
        assert isinstance(answer, Refusal) and word in answer.reason


def test_a_card_that_refuses_the_trial_is_refused_with_the_kernels_words() -> None:
    made = Card({"hw-tc-offload": True})
    made.kernel.refuse = [Refused(95, "match on this is not supported")]
    answer = made.probe(TARGETS[0])
    assert isinstance(answer, Refusal) and "match on this is not supported" in answer.reason
    assert not made.kernel.qdisc


def test_install_count_remove(card: Card) -> None:
    answers: list[tuple[int, Failure | None]] = []
    card.install([flow(1), flow(2, 2, nat=True)], lambda *answer: answers.append(answer))
    assert answers == [(1, None), (2, None)]
    assert sorted(key[1] for key in card.kernel.filters) == [PLAIN, TRANSLATED]
    card.kernel.counted = (5, 500)
    records = list(card.statistics())
    assert [(r.id, r.packets, r.bytes) for r in records] == [(1, 5, 500), (2, 5, 500)] and all(r.last_used for r in records)
    again = list(card.statistics())
    assert [r.last_used for r in again] == [r.last_used for r in records], "no new packet: not used since"
    card.remove([1, 2, 3])
    assert not card.kernel.filters
    card.close()
    assert not card.kernel.qdisc


@pytest.mark.parametrize(
    ("code", "failure"), [(28, Failure.FULL), (95, Failure.UNSUPPORTED), (19, Failure.GONE), (5, Failure.FAULT)]
)
def test_failures(card: Card, code: int, failure: Failure) -> None:
    card.kernel.refuse = [Refused(code, "words")]
    answers: list[tuple[int, Failure | None]] = []
    card.install([flow(1), flow(2, 2)], lambda *answer: answers.append(answer))
    assert answers == [(1, failure), (2, None)]
    assert card.describe(TARGETS[0])["refusals"] == {"words": 1}
    card.kernel.refuse = [Refused(code, "words")]
    told: list[str] = []
    card.install([flow(3)], lambda id, _: told.append(card.explain(id)))
    assert told == ["words"]


def test_a_way_out_that_is_narrower_stays_in_software(card: Card) -> None:
    answers: list[tuple[int, Failure | None]] = []
    card.install([flow(1, mtu=1400)], lambda *answer: answers.append(answer))
    assert answers == [(1, Failure.UNSUPPORTED)] and not card.kernel.filters


def test_filters_that_are_gone_are_told(card: Card) -> None:
    card.install([flow(1)], lambda *answer: None)
    card.kernel.filters.clear()
    list(card.statistics())
    lost: list[str] = []
    card.poll(0, lost.append)
    assert lost == ["a"]


def test_filters_that_no_card_has_any_more_are_told(card: Card) -> None:
    """Somebody switched hw-tc-offload off: the kernel still lists them, as not_in_hw, and software is to skip them."""
    card.install([flow(1)], lambda *answer: None)
    assert [record.id for record in card.statistics()] == [1]
    lost: list[str] = []
    card.poll(0, lost.append)
    assert not lost
    card.kernel.state = 8
    assert not card.statistics()
    card.poll(0, lost.append)
    assert lost == ["a"] and not card.kernel.filters


def test_flags_as_the_kernel_lists_them() -> None:
    """Linux 6.1, terse dumps: `skip_sw in_hw` of a card, `skip_sw not_in_hw`, and no flags at all (before 4.12)."""
    assert not astray_untrusted(attribute(22, struct.pack("=I", 2 | 4)))
    assert astray_untrusted(attribute(22, struct.pack("=I", 2 | 8)))
    assert not astray_untrusted(b"") and not astray_untrusted(attribute(22, b"\x08"))
