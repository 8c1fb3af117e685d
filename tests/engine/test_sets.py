"""Sets against plain Python models; timeouts, limits, transactions, a million elements."""

from __future__ import annotations

import contextlib
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from userfw.core.clock import Clock
from userfw.engine.const import SET_INTERVAL
from userfw.engine.expressions import Counter
from userfw.engine.sets.base import DATA_VALUE, DATA_VERDICT, Set, SetError
from userfw.engine.sets.elements import Element, Verdict
from userfw.engine.sets.factory import make_set
from userfw.engine.sets.ranges import MAX_PIECES, pieces

SECOND = 1_000_000_000


def regs(key: bytes) -> bytearray:
    return bytearray(b"\xaa" * 4 + key + bytes(64))


def has(table: Set, key: bytes) -> bool:
    found = table.find(regs(key), 4) >= 0
    assert table.contains(regs(key), 4) == found
    return found


def word(n: int, size: int = 4) -> bytes:
    return n.to_bytes(size, "big")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 60))), st.sampled_from([1, 2, 4, 7]))
def test_hash_set_is_a_set(steps: list[tuple[bool, int]], klen: int) -> None:
    table = make_set("s", klen, Clock())
    model: set[bytes] = set()
    for add, n in steps:
        key = word(n, klen)
        if add:
            assert table.add(key) == (key not in model)
            model.add(key)
        else:
            assert table.remove(key, missing_ok=True) == (key in model)
            model.discard(key)
    assert {e.key for e in table} == model
    for n in range(61):
        assert has(table, word(n, klen)) == (word(n, klen) in model)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 300), st.integers(0, 12)), max_size=80))
def test_interval_set_is_a_set_of_ranges(steps: list[tuple[bool, int, int]]) -> None:
    table = make_set("s", 2, Clock(), SET_INTERVAL)
    model: list[tuple[int, int]] = []
    for add, low, size in steps:
        high = low + size
        if add:
            crossing = [r for r in model if r[0] <= high and r[1] >= low]
            if crossing and crossing != [(low, high)]:
                with pytest.raises(SetError, match="EEXIST"):
                    table.add(word(low, 2), word(high, 2))
            else:
                assert table.add(word(low, 2), word(high, 2)) == (not crossing)
                model = [*model, (low, high)] if not crossing else model
        else:
            assert table.remove(word(low, 2), word(high, 2), missing_ok=True) == ((low, high) in model)
            model = [r for r in model if r != (low, high)]
    for n in range(320):
        assert has(table, word(n, 2)) == any(a <= n <= b for a, b in model)


FIELDS = ((0, 4), (4, 2), (8, 1))


def cat(a: int, b: int, c: int) -> bytes:
    return word(a) + word(b, 2) + b"\0\0" + word(c, 1) + b"\0\0\0"


bound = st.tuples(st.integers(0, 20), st.integers(0, 9)).map(lambda p: (p[0], p[0] + p[1]))


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.booleans(), bound, bound, bound), max_size=25), st.randoms(use_true_random=False))
def test_range_set_is_a_cross_product(steps: list[Any], rng: random.Random) -> None:
    table = make_set("s", 12, Clock(), SET_INTERVAL, FIELDS)
    model: list[Any] = []

    def inside(point: tuple[int, int, int]) -> list[Any]:
        return [r for r in model if all(low <= v <= high for v, (low, high) in zip(point, r, strict=True))]

    for add, *ranges in steps:
        low = tuple(r[0] for r in ranges)
        high = tuple(r[1] for r in ranges)
        if add:
            if ranges in model and inside(low)[0] == ranges:
                assert table.add(cat(*low), cat(*high)) is False
            elif ranges not in model and (inside(low) or inside(high)):
                with pytest.raises(SetError, match="ENOTEMPTY"):
                    table.add(cat(*low), cat(*high))
            elif ranges not in model:
                assert table.add(cat(*low), cat(*high))
                model.append(ranges)
        else:
            assert table.remove(cat(*low), cat(*high), missing_ok=True) == (ranges in model)
            model = [r for r in model if r != ranges]
    for _ in range(200):
        point = (rng.randint(0, 30), rng.randint(0, 30), rng.randint(0, 30))
        assert has(table, cat(*point)) == bool(inside(point))


def test_pieces_are_few_and_cover() -> None:
    key, end = cat(1, 1, 1), cat(0xFFFFFFFE, 0xFFFE, 0xFE)
    assert len(pieces(key, end, FIELDS)) <= MAX_PIECES
    assert len(pieces(cat(0x0A000000, 80, 6), cat(0x0A0000FF, 80, 6), FIELDS)) == 1


@pytest.mark.parametrize("flags", [0, SET_INTERVAL])
def test_timeouts(flags: int) -> None:
    clock = Clock(5 * SECOND)
    table = make_set("s", 4, clock, flags, timeout=10 * SECOND)
    table.add(word(1))
    table.add(word(2), timeout=3 * SECOND)
    table.add(word(3), timeout=0)
    clock.now += 3 * SECOND
    assert [has(table, word(n)) for n in (1, 2, 3)] == [True, False, True]
    assert [e.key for e in table] == [word(1), word(3)]
    assert table.get(word(1)) == Element(word(1), timeout=10 * SECOND, expires=7 * SECOND)
    assert table.add(word(2)) is True  # the dead one makes room
    assert table.add(word(2)) is False
    clock.now += 8 * SECOND
    assert [has(table, word(n)) for n in (1, 2, 3)] == [False, True, True]
    assert table.sweep(100) == 1
    assert len(table) == 2


def test_size_and_errors() -> None:
    table = make_set("s", 4, Clock(), size=2)
    table.add(word(1))
    table.add(word(2))
    for call, errno in (
        (lambda: table.add(word(3)), "ENFILE"),
        (lambda: table.add(word(1), exclusive=True), "EEXIST"),
        (lambda: table.remove(word(9)), "ENOENT"),
        (lambda: table.add(b"\0"), "EINVAL"),
        (lambda: table.add(word(4), word(5)), "EINVAL"),
        (lambda: table.add(word(4), data=b"x"), "EINVAL"),
    ):
        with pytest.raises(SetError) as caught:
            call()
        assert caught.value.errno == errno


def test_maps_and_catch_all() -> None:
    table = make_set("m", 4, Clock(), data_type=DATA_VALUE, dlen=2)
    table.add(word(1), data=b"ab")
    with pytest.raises(SetError, match="EBUSY"):
        table.add(word(1), data=b"zz")
    assert table.add(word(1), data=b"ab") is False
    table.add(None, data=b"cd")
    assert has(table, word(77))
    assert table.get(None) == Element(None, data=b"cd")
    table.remove(None)
    assert not has(table, word(77))
    verdicts = make_set("v", 4, Clock(), data_type=DATA_VERDICT)
    verdicts.add(word(1), data=Verdict(-3, "c", target="C"))
    assert list(verdicts.targets()) == [("C", 1)]


@pytest.mark.parametrize("flags", [0, SET_INTERVAL])
def test_rollback_and_commit(flags: int) -> None:
    clock = Clock(SECOND)
    table = make_set("s", 4, clock, flags, data_type=DATA_VALUE, dlen=4)
    for n in range(50):
        table.add(word(n), data=word(n), comment=f"c{n}", timeout=(n % 3) * SECOND)
    before = sorted(table, key=lambda e: e.key or b"")
    rng = random.Random(3)
    for kind in range(3):
        table.begin()
        for n in range(200):
            key = word(rng.randint(0, 80))
            if rng.random() < 0.5:
                table.remove(key, missing_ok=True)
            else:
                with contextlib.suppress(SetError):
                    table.add(key, data=key, timeout=9 * SECOND)
            if n == 100 and kind:
                table.flush()
        table.rollback()
        assert sorted(table, key=lambda e: e.key or b"") == before
        assert all(has(table, word(n)) == (n < 50) for n in range(90))
    table.begin()
    table.remove(word(0))
    table.commit()
    table.rollback()
    assert not has(table, word(0))


def test_elements_have_their_own_expressions() -> None:
    table = make_set("s", 4, Clock(), exprs=(Counter(),))
    table.add(word(1))
    table.add(word(2), exprs=(Counter(5, 500),))
    first, second = (e.exprs[0] for e in table)
    assert (first.packets, second.packets) == (0, 5)
    table.reset()
    assert second.packets == 0


def test_bulk_interval_load() -> None:
    table = make_set("s", 4, Clock(), SET_INTERVAL)
    n = 50_000
    assert table.load(Element(word(i * 10), word(i * 10 + 4)) for i in reversed(range(n))) == n
    rng = random.Random(5)
    for _ in range(2000):
        k = rng.randrange(n * 10 + 100)
        assert has(table, word(k)) == (k < n * 10 and k % 10 <= 4)
    table.add(word(7), word(8))
    table.remove(word(20), word(24))
    assert has(table, word(7)) and not has(table, word(22)) and has(table, word(30))
    with pytest.raises(SetError):
        make_set("t", 4, Clock(), SET_INTERVAL).load([Element(word(1), word(5)), Element(word(5), word(9))])


def test_bulk_load_into_a_set_with_elements() -> None:
    table = make_set("s", 4, Clock(), SET_INTERVAL)
    table.add(word(5), word(9))
    table.add(word(1000))
    table.begin()
    with pytest.raises(SetError):
        table.load([Element(word(20)), Element(word(9), word(12))])
    assert len(table) == 2
    assert table.load([Element(word(5), word(9)), *(Element(word(n * 3 + 2000)) for n in range(3000))]) == 3000
    assert has(table, word(2003)) and not has(table, word(2004)) and has(table, word(7)) and has(table, word(1000))
    table.rollback()
    assert [e.key for e in table] == [word(5), word(1000)]
    assert not has(table, word(2003)) and has(table, word(1000))


def test_many_ranges_need_few_groups() -> None:
    rng = random.Random(4)
    table = make_set("s", 8, Clock(), SET_INTERVAL, ((0, 4), (4, 2)))
    added = []
    while len(added) < 400:
        low, port = rng.randrange(1 << 32), rng.randrange(60000)
        high, last = min(low + rng.choice((0, 255, 4999)), (1 << 32) - 1), port + rng.choice((0, 77, 999))
        try:
            table.add(word(low) + word(port, 2) + b"\0\0", word(high) + word(last, 2) + b"\0\0")
        except SetError:
            continue
        added.append((low, high, port, last))
    for low, high, port, last in added:
        assert has(table, word(rng.randint(low, high)) + word(rng.randint(port, last), 2) + b"\0\0")
        assert not has(table, word(low) + word(last + 1, 2) + b"\0\0") or any(
            a <= low <= b and c <= last + 1 <= d for a, b, c, d in added
        )
    assert len(table.by_mask) < 50  # type: ignore[attr-defined]


def test_high_keys() -> None:
    table = make_set("s", 4, Clock(), SET_INTERVAL)
    table.add(b"\xff\xff\xff\xff")
    table.add(b"\0\0\0\0", b"\0\0\0\5")
    assert has(table, b"\xff\xff\xff\xff") and has(table, b"\0\0\0\0") and not has(table, b"\0\0\0\6")
