"""Many keys at once, and the table over the first two bytes while keys come and go."""

from random import Random

import pytest

from userfw.core.clock import Clock
from userfw.engine.const import SET_INTERVAL
from userfw.engine.sets.factory import make_set
from userfw.engine.sets.interval import MAX_DRIFT, TOP_LIMIT


def key(number: int) -> bytes:
    return number.to_bytes(4, "big")


def test_searches_are_right_while_the_table_drifts() -> None:
    """Every place of the range is looked up by an oracle after many changes one by one, on both sides of the table's making."""
    rng = Random(3)
    made = make_set("s", 4, Clock(), SET_INTERVAL)
    there = {number * 997 % (1 << 32): 5 for number in rng.sample(range(1 << 22), TOP_LIMIT + 500)}
    lows = sorted(there)
    made.begin_change()
    columns = bytearray(b"".join(map(key, lows))), bytearray(b"".join(key(low + 5) for low in lows))
    assert made.put_columns(*columns, 0, len(lows), False) == []
    while not made.settle(1000):
        pass
    for step in range(3 * MAX_DRIFT):
        if step % 3:
            low = rng.randrange(1 << 22) * 997 % (1 << 32)
            if low not in there:
                made.add(key(low), key(low + 5))
                there[low] = 5
        else:
            low = rng.choice(list(there))
            made.remove(key(low), key(low + 5))
            del there[low]
        for probe in (low, low + 5, low + 6, rng.choice(list(there)), rng.randrange(1 << 32)):
            hit = any(0 <= probe - other <= 5 for other in range(max(0, probe - 5), probe + 1) if other in there)
            assert (made.get(key(probe & 0xFFFFFFFF)) is not None) == hit
    listed = [element.key for element in made]
    assert listed == [key(low) for low in sorted(there)]
    found = bytearray().join(made.columns(at, 100)[0] for at in range(0, made.extent, 100))
    assert bytes(found) == b"".join(map(key, sorted(there)))


@pytest.mark.parametrize("flags", [0, SET_INTERVAL])
def test_keys_that_are_there_are_named(flags: int) -> None:
    made = make_set("s", 4, Clock(), flags)
    made.add(key(20))
    made.begin_change()
    assert made.put_columns(bytearray(b"".join(map(key, (10, 20, 30)))), bytearray(), 0, 3, False) == [1]
    while not made.settle(2):
        pass
    assert len(made) == 3 and all(made.get(key(number)) for number in (10, 20, 30))


def test_a_range_that_overlaps_another_enters_nothing() -> None:
    made = make_set("s", 4, Clock(), SET_INTERVAL)
    made.add(key(20), key(29))
    made.begin_change()
    assert made.put_columns(bytearray(key(1) + key(25)), bytearray(key(5) + key(40)), 0, 2, False) == [-1]


def test_keys_of_the_other_byte_order() -> None:
    made = make_set("s", 4, Clock())
    made.put_columns(bytearray(key(0x01020304)), bytearray(), 0, 1, True)
    assert made.get(b"\x04\x03\x02\x01") is not None and made.plain
