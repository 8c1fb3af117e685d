"""Checking address translation and tproxy.

Laws:
- The family is the table's, the one written, or in inet tables what the rule has asked before (nft: nat_evaluate_family).
- A port needs a transport protocol in front of it.
- A map may give an address, an address and a port (``a . p``), or ranges of these (``interval``): the first element of an
  anonymous map shows which.
"""

from __future__ import annotations

from userfw.nft import proto
from userfw.nft.check_context import fail
from userfw.nft.check_match import MatchChecker
from userfw.nft.datatype import Datatype
from userfw.nft.datatype_tables import INET_SERVICE, IPV4_ADDR, IPV6_ADDR, ConcatType, concat_type
from userfw.nft.syntax import (
    ConcatExpr,
    Expr,
    MapExpr,
    MetaExpr,
    NatStmt,
    PayloadExpr,
    PrefixExpr,
    RangeExpr,
    SetExpr,
    SetRefExpr,
    Stmt,
    TproxyStmt,
)

_ADDRESS: dict[str, Datatype] = {"ip": IPV4_ADDR, "ip6": IPV6_ADDR}


class NatChecker(MatchChecker):
    """snat, dnat, masquerade, redirect, tproxy."""

    def argument(self, node: Expr, dtype: Datatype, stmt: Stmt) -> Expr:
        """The value that a statement wants."""
        raise NotImplementedError

    def nat(self, node: NatStmt) -> NatStmt:
        """A checked nat statement; ``form`` tells the lowering what a map yields."""
        family = self._nat_family(node)
        addr, form = node.addr, node.form
        if addr is not None:
            addr, form = self._nat_addr(node, addr, family)
        elif form == "prefix":
            fail(node, "prefix needs an address")
        port = node.port
        if port is not None:
            if "concat" in form:
                fail(port, "the map gives the port already")
            port = self.argument(port, INET_SERVICE, node)
            self._need_transport(port, node)
        elif "concat" in form and not (isinstance(addr, MapExpr) and _asks_transport(addr.key)):
            self._need_transport(node, node)
        return NatStmt(node.kind, family, form, addr, port, node.flags, loc=node.loc)

    def _nat_family(self, node: NatStmt) -> str:
        family = self.family
        if family in ("ip", "ip6"):
            if node.family is not None and node.family != family:
                fail(node, f"{node.family} nat in a table of family {family}")
            return family
        if family != "inet":
            fail(node, "NAT is only supported for IPv4/IPv6")
        if node.addr is None:
            return node.family or "inet"
        known = self.proto.nh
        if node.family is not None:
            if known in (proto.IP, proto.IP6) and known is not proto.PROTOCOLS[node.family]:
                assert known is not None
                fail(node, f"conflicting protocols specified: {known.name} vs. {node.family}")
            return node.family
        if known not in (proto.IP, proto.IP6):
            fail(node, "ip or ip6 must be specified with address for inet tables.")
        assert known is not None
        return known.name

    def _need_transport(self, node: Expr | Stmt, stmt: Stmt) -> None:
        if self.proto.th is None:
            fail(node, "transport protocol mapping is only valid after transport protocol match", stmt.loc)

    def _nat_addr(self, node: NatStmt, addr: Expr, family: str) -> tuple[Expr, str]:
        dtype = _ADDRESS[family]
        if isinstance(addr, MapExpr):
            return self._nat_map(node, addr, dtype)
        if node.form == "concat" or isinstance(addr, ConcatExpr | SetExpr | SetRefExpr):
            fail(addr, "address and port from one expression need a map")
        checked = self.argument(addr, dtype, node)
        return checked, node.form

    def _nat_map(self, node: NatStmt, addr: MapExpr, dtype: Datatype) -> tuple[Expr, str]:
        mapping = addr.mapping
        both = concat_type((dtype, INET_SERVICE))
        if isinstance(mapping, SetExpr):
            first = next((elem.data for elem in mapping.elements if elem.data is not None), None)
            if first is None and mapping.elements:
                fail(mapping.elements[0], "a map needs data for each key")
            if isinstance(first, ConcatExpr):
                kind: Datatype = both
            elif isinstance(first, SetExpr):
                fail(first, "a set cannot be data of a map")
            else:
                kind = dtype
            checked = self.mapping(addr, kind, data_interval=True)
            assert isinstance(checked.mapping, SetExpr)
            ranged = any(_ranged(elem.data) for elem in checked.mapping.elements) or node.form in ("prefix", "interval")
        else:
            checked = self.mapping(addr, None, data_interval=False)
            assert isinstance(checked.mapping, SetRefExpr)
            target = checked.mapping.target
            kind = target.data_dtype
            if kind is None or not (kind.same(dtype) or kind.same(both)):
                have = "objects" if kind is None else kind.desc
                fail(addr, f"datatype mismatch, expected {dtype.desc}, expression has type {have}", node.loc)
            ranged = target.data_interval or node.form == "prefix"
        words = []
        if isinstance(kind, ConcatType):
            words.append("concat")
        if ranged:
            words.append("interval")
        if node.form == "prefix":
            words = ["prefix"]
        return checked, " ".join(words)

    def tproxy(self, node: TproxyStmt) -> TproxyStmt:
        """A checked tproxy statement."""
        family = node.family
        if self.family in ("ip", "ip6"):
            if family is not None and family != self.family:
                fail(node, f"tproxy {family} in a table of family {self.family}")
            family = self.family
        elif self.family != "inet":
            fail(node, "tproxy is only supported for IPv4/IPv6/INET")
        known = self.proto.nh
        if family is not None and known in (proto.IP, proto.IP6) and known is not proto.PROTOCOLS[family]:
            assert known is not None
            fail(
                node,
                f"conflicting protocols specified: {known.name} vs. {family}. "
                "You must specify ip or ip6 family in tproxy statement",
            )
        if family is None and known in (proto.IP, proto.IP6):
            assert known is not None
            fail(
                node,
                f"conflicting protocols specified: {known.name} vs. unknown. You must specify ip or ip6 family in tproxy statement",
            )
        if node.addr is None and node.port is None:
            fail(node, "Either address or port must be specified!")
        if self.proto.th is None:
            fail(node, "Transparent proxy support requires transport protocol match")
        addr = node.addr
        if addr is not None:
            if family is None:
                fail(node, "Family must be specified with an address: tproxy ip to or tproxy ip6 to")
            addr = self.argument(addr, _ADDRESS[family], node)
            self._single(addr)
        port = None if node.port is None else self.argument(node.port, INET_SERVICE, node)
        if port is not None:
            self._single(port)
        return TproxyStmt(family, addr, port, loc=node.loc)

    def _single(self, node: Expr) -> None:
        if isinstance(node, RangeExpr | PrefixExpr):
            fail(node, "ranges and prefixes are not supported here")


def _asks_transport(key: Expr) -> bool:
    """Whether a map's key has the transport protocol in it: each element is for one (nft: nat_evaluate_addr_has_th_expr)."""
    return isinstance(key, ConcatExpr) and any(
        (isinstance(item, MetaExpr) and item.key == "l4proto")
        or (isinstance(item, PayloadExpr) and (item.protocol, item.field) in (("ip", "protocol"), ("ip6", "nexthdr")))
        for item in key.items
    )


def _ranged(node: Expr | None) -> bool:
    if isinstance(node, ConcatExpr):
        return any(_ranged(item) for item in node.items)
    return isinstance(node, RangeExpr | PrefixExpr)
