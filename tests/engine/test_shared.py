"""Limits, quotas and counts that processes share: exact, whoever takes, and free again when nobody holds them."""

import mmap
import os
import random
import time
from typing import Any

import pytest
from engine_double import Double, evaluate, ip4, packet, udp

from userfw.core.const import NFT_CONTINUE
from userfw.core.packet import Packet
from userfw.engine.expr import Expr
from userfw.engine.expressions.limit import Limit
from userfw.engine.expressions.quota import Quota
from userfw.engine.shared import Pool, key_of, share, size_of


def sized(length: int) -> Packet:
    """A packet of so many bytes from the network header on."""
    return packet(ip4(udp(payload=bytes(length - 28)), 17))


def verdict(expr: Expr, pkt: Packet, double: Double) -> int:
    return evaluate(expr, pkt, double)[0]


def pools(count: int, slots: int = 64) -> list[Pool]:
    mapping = mmap.mmap(-1, size_of(slots))
    return [Pool(mapping, slots) for _ in range(count)]


def test_the_first_sets_the_value_and_the_last_frees_the_slot() -> None:
    one, two = pools(2)
    a = one.attach(*key_of("x"), 5)
    b = two.attach(*key_of("x"), 9)
    assert a is not None and b is not None and (b.load(), one.used()) == (5, 1)
    assert b.add(3) == 8 and a.load() == 8
    assert (a.first(), b.first()) == (True, False)
    del a
    assert two.used() == 1
    del b
    assert two.used() == 0
    again = two.attach(*key_of("x"), 1)
    assert again is not None and again.load() == 1 and again.first()


def test_slots_come_and_go_and_are_never_mixed_up() -> None:
    draw = random.Random(3)
    sides = pools(2)
    held: list[dict[int, Any]] = [{}, {}]
    values: dict[int, int] = {}
    for _ in range(5000):
        side, name = draw.randrange(2), draw.randrange(90)
        if name in held[side]:
            del held[side][name]
            if name not in held[1 - side]:
                values.pop(name)
            continue
        slot = sides[side].attach(name % 3, name, name * 7)
        if len(values) == 64 and name not in values:
            assert slot is None
            continue
        assert slot is not None
        values.setdefault(name, name * 7)
        assert slot.load() == values[name]
        values[name] = slot.add(1)
        held[side][name] = slot
        del slot
        assert sides[0].used() == len(values)


def limits(count: int, *args: Any) -> list[Limit]:
    made = [Limit(*args) for _ in range(count)]
    for pool, limit in zip(pools(count), made, strict=True):
        assert share(pool, [limit], "r", 1) == 0
    return made


def carried(args: Any, limit: Limit) -> int:
    """When the bucket of a limit that takes over this one's state will be full."""
    other = Limit(*args)
    other.restore(limit.state())
    return other.initial()


@pytest.mark.parametrize(
    "args", [(10, "second", 5), (3, "minute", 1, False, True), (1000, "second", 0, True), (700, "hour", 900, True)]
)
def test_a_shared_bucket_is_a_bucket(args: Any) -> None:
    """Whoever takes, the answers are those of one limit that sees all packets."""
    draw = random.Random(7)
    double = Double()
    alone, several = Limit(*args), limits(3, *args)
    now = 10**12
    packets = [sized(length) for length in (28, 40, 300, 1500)]
    for _ in range(3000):
        now += draw.choice((0, 1, 10**6, 10**8, 10**9, draw.randrange(10**11)))
        double.clock.now = now
        pkt = draw.choice(packets)
        assert verdict(draw.choice(several), pkt, double) == verdict(alone, pkt, double)
        assert max(carried(args, several[0]), now) == max(alone.initial(), now)


def test_a_clock_that_is_behind_fills_no_bucket() -> None:
    one, two = limits(2, 1, "minute", 1)
    double = Double()
    double.clock.now = 10**12
    assert verdict(one, sized(40), double) == NFT_CONTINUE
    double.clock.now -= 10**7
    assert verdict(two, sized(40), double) != NFT_CONTINUE


def test_a_shared_quota_stops_all() -> None:
    quotas = [Quota(1000) for _ in range(2)]
    for pool, quota in zip(pools(2), quotas, strict=True):
        share(pool, [quota], "q")
    double = Double()
    passed = sum(verdict(quotas[number % 2], sized(100), double) == NFT_CONTINUE for number in range(20))
    assert passed == 10 and {quota.consumed() for quota in quotas} == {1000}
    quotas[1].reset()
    assert quotas[0].state() == (0,)
    assert verdict(quotas[0], sized(100), double) == NFT_CONTINUE


def test_processes_take_no_token_twice() -> None:
    """Four processes race for the tokens of one bucket and add to one number."""
    mapping = mmap.mmap(-1, size_of(64))
    start = Pool(mapping, 64)
    bucket, total = start.attach(1, 1, 0), start.attach(2, 2, 0)
    assert bucket is not None and total is not None
    children = []
    for _ in range(4):
        child = os.fork()
        if not child:
            try:
                mine = Pool(mapping, 64)
                tokens, adds = mine.attach(1, 1, 0), mine.attach(2, 2, 0)
                assert tokens is not None and adds is not None
                deadline = time.monotonic() + 20
                for _ in range(30_000):
                    if tokens.take(10**12, 1, 50_000):
                        adds.add(1)
                    if time.monotonic() > deadline:
                        break
                for _ in range(2000):
                    mine.attach(3, 3, 0)
            finally:
                os._exit(0)
        children.append(child)
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
    assert total.load() == 50_000
    assert not bucket.take(10**12, 1, 50_000) and bucket.take(10**12 + 1, 1, 50_000)
