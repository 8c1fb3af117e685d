"""Every row of the registry is tested: evaluated somewhere in tests/engine, rendered, and refused where Linux refuses it."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from engine_double import Double, base

from userfw.engine import expressions as ex
from userfw.engine.bind import refusal
from userfw.engine.expr import Expr
from userfw.engine.registry import EVERYWHERE, FAMILIES, HOOKS, ROWS

SAMPLES: dict[type, Expr] = {
    ex.Nat: ex.Nat("snat", "ip", 1), ex.Masq: ex.Masq(), ex.Redir: ex.Redir(), ex.Tproxy: ex.Tproxy("ip", 1), ex.Fwd: ex.Fwd(1),
    ex.Dup: ex.Dup(1), ex.Queue: ex.Queue(), ex.FlowOffload: ex.FlowOffload("f"), ex.Reject: ex.Reject(0),
    ex.Synproxy: ex.Synproxy(), ex.Socket: ex.Socket(1, "mark"), ex.Osf: ex.Osf(1), ex.Rt: ex.Rt(1, "tcpmss"), ex.Xfrm: ex.Xfrm(1, "spi", "in"),  # noqa: E501
    ex.Ct: ex.Ct(1, "mark"), ex.CtSet: ex.CtSet(1, "mark"), ex.Connlimit: ex.Connlimit(1),
    ex.Tunnel: ex.Tunnel(1, "id"), ex.Fib: ex.Fib(1, "oif", ("saddr",)),
}  # fmt: skip


def test_every_class_has_a_row_and_every_row_a_class() -> None:
    classes = {cls for cls in vars(ex).values() if inspect.isclass(cls) and issubclass(cls, Expr) and cls is not Expr}
    assert classes == set(ROWS)
    assert {cls.__name__ for cls in classes} == set(ex.__all__)


@pytest.mark.parametrize("cls", list(ROWS), ids=lambda cls: cls.__name__)
def test_every_row_is_evaluated_by_a_test(cls: type) -> None:
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_[lswcf]*.py"))
    assert f"{cls.__name__}(" in text


@pytest.mark.parametrize("cls", [cls for cls, row in ROWS.items() if row.hooks != EVERYWHERE], ids=lambda cls: cls.__name__)
def test_refused_where_the_row_excludes_it(cls: type) -> None:
    row = ROWS[cls]
    expr = SAMPLES[cls]
    refused = accepted = 0
    for family in FAMILIES:
        for hook in HOOKS[family]:
            for kind in (0, 1, 2):
                chain = base(Double(), [], family=family, hook=hook, type=kind)
                text = refusal(expr, chain)
                if hook not in row.hooks.get(family, ()) or kind not in row.types:
                    assert text is not None and row.name in text
                    refused += 1
                elif text is None:
                    accepted += 1
    assert refused and accepted


@pytest.mark.parametrize(
    ("expr", "family", "hook", "legal"),
    [
        (ex.Nat("snat", "ip", 1), 2, 4, True), (ex.Nat("snat", "ip", 1), 2, 0, False), (ex.Nat("dnat", "ip", 1), 2, 0, True),
        (ex.Nat("dnat", "ip", 1), 2, 4, False), (ex.Meta(1, "sdif"), 2, 1, True), (ex.Meta(1, "sdif"), 2, 4, False),
        (ex.Meta(1, "secpath"), 2, 4, False), (ex.Meta(1, "secpath"), 5, 0, True), (ex.Meta(1, "secpath"), 5, 1, False),
        (ex.Notrack(), 5, 0, True), (ex.Objref("ct helper", "h"), 5, 0, False), (ex.Objref("ct helper", "h"), 7, 0, True),
        (ex.MetaSet(1, "pkttype"), 3, 0, False), (ex.Meta(1, "bri_iifname"), 2, 0, False), (ex.Meta(1, "bri_iifname"), 7, 0, True),
        (ex.MetaSet(1, "pkttype"), 2, 0, True), (ex.MetaSet(1, "pkttype"), 2, 1, False), (ex.Fib(1, "type", ("daddr",)), 2, 4, True),  # noqa: E501
        (ex.Fib(1, "oif", ("daddr",)), 2, 4, False), (ex.Fib(1, "type", ("daddr", "oif")), 2, 0, False), (ex.Rt(1, "tcpmss"), 2, 0, False),  # noqa: E501
        (ex.Rt(1, "classid"), 2, 0, True), (ex.Xfrm(1, "spi", "out"), 2, 0, False), (ex.Xfrm(1, "spi", "out"), 2, 4, True),
    ],
)  # fmt: skip
def test_refusals_that_depend_on_fields(expr: Expr, family: int, hook: int, legal: bool) -> None:
    kind = 2 if isinstance(expr, ex.Nat) else 0
    assert (refusal(expr, base(Double(), [], family=family, hook=hook, type=kind)) is None) == legal
