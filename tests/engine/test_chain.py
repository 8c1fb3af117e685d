"""The machine: verdicts, jumps, gotos, returns, policies, traces, loops (FIDELITY: verdicts and chains)."""

from __future__ import annotations

from typing import Any

import pytest
from engine_double import Double, base, ip4, packet, tcp

from userfw.core.drop import DropReason
from userfw.engine.bind import TableScope, check_loops
from userfw.engine.chain import BaseChain, Chain
from userfw.engine.expr import Expr
from userfw.engine.expressions import Cmp, Counter, Immediate, ImmediateVerdict, Meta, MetaSet, Payload, Tproxy
from userfw.engine.rule import Rule
from userfw.engine.trace import TraceSink

V = ImmediateVerdict
ACCEPT, DROP = 1, 0


def chains(names: str, scope: TableScope) -> list[Chain]:
    for name in names:
        scope.chains[name] = Chain(name, "t", 1)
    return [scope.chains[name] for name in names]


def fill(chain: Chain, scope: TableScope, *rules: tuple[Expr, ...]) -> None:
    chain.replace(tuple(Rule(exprs, handle=i + 1).bind(scope) for i, exprs in enumerate(rules)))


def pkt() -> Any:
    return packet(ip4(tcp(), 6))


def test_policy_and_reason() -> None:
    services = Double()
    p = pkt()
    assert base(services, []).run(p, 0) == ACCEPT
    dropping = base(services, [], policy=DROP)
    assert dropping.run(p, 0) == DROP
    assert p.drop_reason == DropReason.POLICY
    assert (services.drop_chain, services.drop_rule) == (dropping.chain, None)


def test_drop_names_its_rule() -> None:
    services = Double()
    p = pkt()
    chain = base(services, [(V("continue"),), (V("drop"),), (V("accept"),)])
    assert chain.run(p, 0) == DROP
    assert p.drop_reason == DropReason.RULE
    assert services.drop_rule.handle == 2


def test_break_stops_the_rule_only() -> None:
    counter, after = Counter(), Counter()
    chain = base(Double(), [(Cmp("eq", 1, b"\1"), counter), (after, V("drop"))])
    assert chain.run(pkt(), 0) == DROP
    assert (counter.packets, after.packets) == (0, 1)


def test_statements_see_earlier_ones() -> None:
    rule = (Immediate(1, b"\1\0\0\0"), MetaSet(1, "mark"), Meta(2, "mark"), Cmp("eq", 2, b"\1\0\0\0"), V("drop"))
    assert base(Double(), [rule]).run(pkt(), 0) == DROP


def test_jump_returns_goto_does_not() -> None:
    scope = TableScope()
    a, b = chains("ab", scope)
    fill(a, scope, (V("goto", "b"),), (V("drop"),))
    fill(b, scope, (V("continue"),))
    after = Counter()
    assert base(Double(), [(V("jump", "a"),), (after,)], scope).run(pkt(), 0) == ACCEPT
    assert after.packets == 1  # a's goto left a for good, b's end came back to the base chain
    tail = Counter()
    assert base(Double(), [(V("goto", "b"),), (tail,)], scope, policy=DROP).run(pkt(), 0) == DROP
    assert tail.packets == 0


def test_return() -> None:
    scope = TableScope()
    (a,) = chains("a", scope)
    never, after = Counter(), Counter()
    fill(a, scope, (V("return"),), (never,))
    assert base(Double(), [(V("jump", "a"),), (after, V("accept"))], scope, policy=DROP).run(pkt(), 0) == ACCEPT
    assert (never.packets, after.packets) == (0, 1)
    assert base(Double(), [(V("return"),), (V("accept"),)], policy=DROP).run(pkt(), 0) == DROP


def test_accept_in_a_jumped_chain_ends_the_base_chain() -> None:
    scope = TableScope()
    (a,) = chains("a", scope)
    fill(a, scope, (V("accept"),))
    assert base(Double(), [(V("jump", "a"),), (V("drop"),)], scope).run(pkt(), 0) == ACCEPT


def test_depth_and_loops() -> None:
    scope = TableScope()
    names = "abcdefghijklmnopq"
    made = chains(names, scope)
    for here, there in zip(made, names[1:], strict=False):
        fill(here, scope, (V("jump", there),))
    fill(made[-1], scope, (V("accept"),))
    chain = base(Double(), [(V("jump", "b"),)], scope)
    check_loops([chain.chain, *made])
    assert chain.run(pkt(), 0) == ACCEPT
    deep = base(Double(), [(V("jump", "a"),)], scope)
    with pytest.raises(ValueError, match="EMLINK"):
        check_loops([deep.chain, *made])
    p = pkt()
    assert deep.run(p, 0) == DROP
    assert p.drop_reason == DropReason.JUMP_DEPTH
    fill(made[-1], scope, (V("goto", "c"),))
    with pytest.raises(ValueError, match="ELOOP"):
        check_loops([chain.chain, *made])


def test_illegal_expression_for_the_hook() -> None:
    scope = TableScope()
    (a,) = chains("a", scope)
    fill(a, scope, (Tproxy("ip", None, 8),))
    input_chain = base(Double(), [(V("jump", "a"),)], scope, hook=1)
    with pytest.raises(ValueError, match="tproxy"):
        check_loops([input_chain.chain, a])
    check_loops([base(Double(), [(V("jump", "a"),)], scope, hook=0).chain, a])


def test_missing_chain_is_named() -> None:
    with pytest.raises(LookupError, match="nowhere"):
        Rule((V("jump", "nowhere"),)).bind(TableScope())


class Sink(TraceSink):
    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def event(self, kind: int, ctx: Any, pkt: Any, chain: Any, rule: Any, verdict: int, target: Any) -> int:
        self.events.append((kind, chain.name, rule and rule.handle, verdict, target and target.name))
        return 0


def test_trace() -> None:
    services = Double()
    sink = services.trace = Sink()
    scope = TableScope()
    (a,) = chains("a", scope)
    fill(a, scope, (V("continue"),))
    chain = base(services, [(Payload(1, "network", 900, 4),), (V("jump", "a"),)], scope)
    chain.run(pkt(), 0)
    assert sink.events == []
    p = pkt()
    p.trace = True
    chain.run(p, 0)
    assert sink.events == [
        (1, "base", 2, -3, "a"),
        (1, "a", 1, -1, None),
        (2, "a", None, -1, None),
        (3, "base", None, 1, None),
    ]


def test_route_chain_reroutes_when_something_changed() -> None:
    services = Double()
    mark = (Immediate(1, b"\5\0\0\0"), MetaSet(1, "mark"))
    chain = base(services, [mark], hook=3, type=1)
    p = pkt()
    assert chain.run(p, 3) == ACCEPT
    assert services.calls == [("reroute", 3)]
    assert chain.run(p, 3) == ACCEPT
    assert len(services.calls) == 1


def test_a_chain_may_be_entered_again_from_within() -> None:
    class Reentrant(Double):
        chain: BaseChain

        def log(self, pkt: Any, hook: int, family: int, request: Any) -> int:
            if len(self.calls) < 3:
                self.calls.append(("again",))
                self.chain.run(packet(ip4(tcp(dport=9), 6)), 0)
            return 0

    from userfw.engine.expressions import Log

    services = Reentrant()
    rule = (Payload(1, "transport", 2, 2), Log(), Cmp("eq", 1, b"\0\x50"), V("drop"))
    services.chain = base(services, [rule])
    assert services.chain.run(pkt(), 0) == DROP  # the inner runs did not spoil the outer registers
