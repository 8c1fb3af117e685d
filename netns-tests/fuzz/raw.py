"""Expressions that nft's language does not make, for both sides: a rule names them, and they stand in its place.

`log prefix "raw NAME"` in a rule's text becomes the expressions of `RAW[NAME]`, in the engine and in what is written to the kernel.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from userfw.engine import expressions as e
from userfw.engine.expressions.objref import OBJECT_TYPES
from userfw.engine.objects.object import NamedObject
from userfw.engine.rule import Rule as EngineRule
from userfw.ruleset.language import LanguageBackend
from userfw.ruleset.references import NEED_CONNTRACK
from userfw.ruleset.scope import TableScope

PREFIX = "raw "
CT_COUNT = OBJECT_TYPES["ct count"]
TRACKED = (e.Ct, e.Objref)
"""Raw expressions of these kinds make the family's connections tracked (Linux: nf_ct_netns_get in their init)."""


def _mark_of(*exprs: Any) -> list[Any]:
    """What is in register 1 becomes the packet's mark, so that later rules and listings depend on it."""
    return [*exprs, e.MetaSet(1, "mark")]


def _order(op: str, size: int) -> list[Any]:
    """Bytes of the network header (addresses, mostly: identifications are the router's own choice), turned, and 4 of them kept."""
    return _mark_of(e.Payload(1, "network", 12, 8), e.Byteorder(op, 1, 1, 8, size))


TUNNELS = ("vxlan", "geneve", "gre", "gretap")
_INSIDE: dict[str, Callable[[], Any]] = {
    "protocol": lambda: e.Meta(1, "protocol"), "l4proto": lambda: e.Meta(1, "l4proto"), "type": lambda: e.Payload(1, "link", 12, 2),
    "source": lambda: e.Payload(1, "network", 12, 4), "port": lambda: e.Payload(1, "transport", 2, 2),
    "head": lambda: e.Payload(1, "tunnel", 0, 4)}


def _inside(tunnel: str, part: str) -> list[Any]:
    """What is seen inside a tunnel by one look (see mixed.py: more than one is a matter of luck in Linux)."""
    return _mark_of(e.Inner(tunnel, _INSIDE[part]()))


RAW: dict[str, Callable[[], list[Any]]] = {
    **{f"{op}{size}": partial(_order, op, size) for op in ("ntoh", "hton") for size in (2, 4, 8)},
    "event": lambda: _mark_of(e.Ct(1, "event")),
    "nftrace": lambda: [e.Meta(1, "nftrace"), e.Cmp("eq", 1, b"\0")],
    "shift5": lambda: _mark_of(e.Payload(1, "network", 12, 5), e.BitwiseShift("rshift", 1, 1, 5, 3)),
    "lshift8": lambda: _mark_of(e.Payload(1, "network", 12, 8), e.BitwiseShift("lshift", 1, 1, 8, 31)),
    "xor8": lambda: _mark_of(e.Payload(1, "network", 12, 8), e.Payload(2, "network", 12, 8), e.BitwiseShift("rshift", 2, 2, 8, 5),
                             e.BitwiseBool("xor", 1, 2, 1, 8)),
    "range6": lambda: [e.Payload(1, "network", 0, 6), e.Range("neq", 1, b"\x45" + bytes(5), b"\x46" + bytes(5))],
    "cmp3": lambda: [e.Payload(1, "network", 1, 3), e.Cmp("gt", 1, b"\0\0\x30")],
    "partial": lambda: _mark_of(e.Payload(1, "network", 12, 7), e.Bitwise(1, 1, b"\xff\x0f\xff\xf0\xff\xff\x7f", bytes(range(7)))),
    "cgroup": lambda: [e.Socket(1, "cgroupv2", 1), e.Cmp("neq", 1, bytes(8))],
    "broute load": lambda: [e.Meta(1, "broute"), e.Cmp("eq", 1, b"\0")],
    "broute": lambda: [e.Immediate(1, b"\0"), e.MetaSet(1, "broute")],
    "ibrhwaddr": lambda: [e.Meta(1, "ibrhwaddr"), e.Cmp("neq", 1, bytes(6))],
    "secmark": lambda: [e.Immediate(1, b"\1\0\0\0"), e.MetaSet(1, "secmark")],
    "tunnel tx": lambda: [e.Tunnel(1, "path", "tx"), e.Cmp("eq", 1, b"\1")],
    "tunnel id rx": lambda: [e.Tunnel(1, "id", "rx"), e.Cmp("neq", 1, bytes(4))],
    "ct count": lambda: [e.Objref("ct count", "cc1")],
    **{f"{tunnel} {part}": partial(_inside, tunnel, part) for tunnel in TUNNELS for part in _INSIDE},
    "osf version": lambda: [e.Osf(1, "loose", True), e.Cmp("eq", 1, b"unknown\0")],
}


def spliced(exprs: Iterable[Any]) -> list[Any]:
    """A rule's expressions with the raw ones in place of their names."""
    out: list[Any] = []
    for expr in exprs:
        named = isinstance(expr, e.Log) and expr.prefix.startswith(PREFIX)
        out += RAW[expr.prefix.removeprefix(PREFIX)]() if named else [expr]
    return out


class RawScope(TableScope):
    """A table's names and the objects that nft's language cannot declare."""

    def object(self, type: int, name: str) -> Any:
        if (type, name) == (CT_COUNT, "cc1"):
            return NamedObject(type, name, e.Connlimit(100_000))
        return super().object(type, name)


class RawBackend(LanguageBackend):
    """nft's language and machine, with raw expressions."""

    def rule(self, draft: Any, table: Any, chain: Any, rule: Any) -> None:
        super().rule(draft, table, chain, rule)
        old = rule.program
        exprs = tuple(spliced(old.exprs))
        if exprs != old.exprs:
            if any(isinstance(expr, TRACKED) for expr in exprs):
                table.use([NEED_CONNTRACK])
            rule.program = EngineRule(exprs, old.handle, old.location, old.comment, old.owner)
            rule.program.bind(RawScope(table, {one.name: one for one in rule.anonymous}, {}))
