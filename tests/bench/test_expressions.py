"""The table of expressions is complete, and the profile reads what valgrind prints."""

from __future__ import annotations

import pytest

from bench.engine import Bench, datagram, flows
from bench.expressions import KINDS, programs, ruleset
from bench.profile import counted, decoded, rooms
from userfw.engine.registry import ROWS

FRAMES = [datagram(*flow) for flow in flows(64)]


def test_every_class_is_measured() -> None:
    seen = set()
    for kind in KINDS.values():
        bench = Bench(ruleset(kind, 1))
        seen |= {type(expr) for rule in programs(bench.manager) for expr in rule.exprs}
    assert {cls.__name__ for cls in set(ROWS) - seen} == set()


@pytest.mark.parametrize("name", KINDS)
def test_a_rule_of_each_kind_runs(name: str) -> None:
    bench = Bench(ruleset(KINDS[name], min(KINDS[name].copies, 2)))
    bench.once(FRAMES)
    assert not bench.faults


def test_names_are_read() -> None:
    assert decoded("__pyx_f_6userfw_4core_6packet_6Packet_get16") == "core.packet.Packet.get16"
    assert decoded("__pyx_f_6userfw_9conntrack_6tuples__sip") == "conntrack.tuples._sip"
    assert decoded("PyType_GenericAlloc") == "PyType_GenericAlloc"


def test_a_listing_is_counted() -> None:
    text = """--------
1,000 (100.0%)  PROGRAM TOTALS
  700 (70.00%)  build/x.c:__pyx_f_6userfw_4core_6packet_6Packet_get16 [/a/packet.so]
  200 (20.00%)  ???:__Pyx_SetItemInt_Fast [/a/b.so]
  100 (10.00%)  ./malloc/malloc.c:malloc [/lib/libc.so.6]
"""
    found = counted(text)
    assert found == {"core.packet.Packet.get16": 700, "__Pyx_SetItemInt_Fast": 200, "malloc": 100}
    assert rooms(found) == {"core": 700, "Cython's helpers": 200, "Python and libc": 100}
