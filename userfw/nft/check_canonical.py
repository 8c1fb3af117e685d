"""From what runs back to what ``nft list`` prints.

Laws:
- The walk does what nft does when it reads a rule back from the kernel: it learns protocols again, names raw header
  fields, and drops the questions that a later match implies (nft: payload_dependency_kill and its kin).
- A question survives anything but matches between it and what implies it, and wherever dropping it would widen the rule:
  ``ip protocol`` in inet, bridge and netdev, ``ether type`` before a transport protocol, VLAN types.
- Values take their listed form: bits joined by ``|`` or ``,``, ranges as prefixes where nft knows prefixes.
"""

from __future__ import annotations

from dataclasses import replace

from userfw.nft import proto
from userfw.nft.check_context import ProtoContext, meta_update, payload_update
from userfw.nft.check_merge import MergedMatch
from userfw.nft.check_value import listed_element, listed_relational, listed_value, listing_order, named_field
from userfw.nft.syntax import (
    BinopExpr,
    ConcatExpr,
    ConstantExpr,
    CtExpr,
    DccpOptionExpr,
    DupStmt,
    Expr,
    ExthdrExpr,
    FwdStmt,
    HashExpr,
    IpOptionExpr,
    MangleStmt,
    MapExpr,
    MapUpdateStmt,
    MatchStmt,
    MetaExpr,
    MeterStmt,
    NatStmt,
    ObjrefStmt,
    OptstripStmt,
    PayloadExpr,
    QueueStmt,
    RawPayloadExpr,
    RejectStmt,
    RelationalExpr,
    SctpChunkExpr,
    SetElemExpr,
    SetExpr,
    SetUpdateStmt,
    Stmt,
    TcpOptionExpr,
    TproxyStmt,
    VerdictStmt,
)

_META_BASE = {"iiftype": "", "oiftype": "", "nfproto": "ll", "protocol": "ll", "l4proto": "nh"}
_NEXT = {"": "ll", "ll": "nh", "nh": "th", "th": "ih"}
_WIDE = frozenset(("inet", "bridge", "netdev"))
_ICMP_NUMBER = {"icmp": 2, "icmpv6": 10}
_FAMILY_OF_TYPE = {0x0800: 2, 0x86DD: 10}


def canonical_stmts(stmts: list[Stmt], family: str) -> list[Stmt]:
    """The statements as nft lists them."""
    return _Canonical(family).run(stmts)


_TRANSPORT_OF = {TcpOptionExpr: proto.TCP, SctpChunkExpr: proto.SCTP, DccpOptionExpr: proto.DCCP}


def announced(asked: RelationalExpr) -> proto.Protocol | None:
    """The protocol that a question says is there."""
    left, right = asked.left, asked.right
    number = right.value if isinstance(right, ConstantExpr) else None
    if not isinstance(number, int):
        return None
    if isinstance(left, PayloadExpr):
        return proto.PROTOCOLS[left.protocol].uppers.get(number)
    if isinstance(left, MetaExpr):
        layer = {"nfproto": proto.INET, "protocol": proto.NETDEV, "l4proto": proto.INET_SERVICE_LAYER}.get(left.key)
        return None if layer is None else layer.uppers.get(number)
    return None


def _same_field_stack(left: Expr, expr: PayloadExpr) -> bool:
    """Whether the question is about the type field of the very header (ICMP)."""
    return isinstance(left, PayloadExpr) and left.base == "th" and expr.base == "th"


class _Questions:
    """Matches that may turn out to be implied, by the base that they announce. One for the packet, one per tunnel."""

    def __init__(self, context: ProtoContext) -> None:
        self.context = context
        self.asked: dict[str, tuple[MatchStmt, RelationalExpr]] = {}
        """Base to the statement in the listing, and the match as it runs."""


class _Canonical:
    """One rule."""

    def __init__(self, family: str) -> None:
        self.family = family
        self.packet = _Questions(ProtoContext(family))
        self.tunnels: dict[str, _Questions] = {}
        self.out: list[Stmt] = []

    def run(self, stmts: list[Stmt]) -> list[Stmt]:
        for stmt in stmts:
            if isinstance(stmt, MergedMatch):
                for part in stmt.parts:
                    self.match(part)
            elif isinstance(stmt, MatchStmt):
                self.match(stmt)
            else:
                listed = self.other(stmt)
                self.out.append(listed)
                self.packet.asked.clear()
                for tunnel in self.tunnels.values():
                    tunnel.asked.clear()
        return self.out

    # --- questions

    def questions(self, inner: str | None) -> _Questions:
        if inner is None:
            return self.packet
        found = self.tunnels.get(inner)
        if found is None:
            context = ProtoContext("inet" if inner == "gre" else "bridge")
            if inner == "gre":
                context.ll = proto.NETDEV
            found = self.tunnels[inner] = _Questions(context)
        return found

    def drop(self, questions: _Questions, base: str) -> None:
        stmt = questions.asked.pop(base)[0]
        self.out = [item for item in self.out if item is not stmt]

    def implied(self, expr: Expr) -> None:
        """A load was met: what it implies is dropped."""
        if isinstance(expr, PayloadExpr):
            self._by_payload(expr)
        elif isinstance(expr, ExthdrExpr | IpOptionExpr):
            question = self.packet.asked.get("nh")
            if question is not None and announced(question[1]) is (proto.IP6 if isinstance(expr, ExthdrExpr) else proto.IP):
                self.drop(self.packet, "nh")
        elif isinstance(expr, TcpOptionExpr | SctpChunkExpr | DccpOptionExpr):
            question = self.packet.asked.get("th")
            if question is not None and announced(question[1]) is _TRANSPORT_OF[type(expr)]:
                self.drop(self.packet, "th")
        elif isinstance(expr, CtExpr):
            if expr.key in ("saddr", "daddr"):
                self._by_base("nh")
        elif isinstance(expr, BinopExpr):
            self.implied(expr.left)
            self.implied(expr.right)
        elif isinstance(expr, ConcatExpr):
            for item in expr.items:
                self.implied(item)
        elif isinstance(expr, MapExpr):
            self.implied(expr.key)
        elif isinstance(expr, HashExpr) and expr.expr is not None:
            self.implied(expr.expr)

    def _by_base(self, base: str) -> None:
        if base in self.packet.asked:
            self.drop(self.packet, base)

    def _by_payload(self, expr: PayloadExpr) -> None:
        if expr.inner in ("gre", "gretap"):
            self._by_base("th")
        questions = self.questions(expr.inner)
        base = expr.base
        question = questions.asked.get(base)
        if question is not None and self._may_drop(question[1], expr):
            self.drop(questions, base)

    def _may_drop(self, asked: RelationalExpr, expr: PayloadExpr) -> bool:
        assert isinstance(asked.right, ConstantExpr)
        left = asked.left
        if expr.base in ("nh", "th") and not _same_field_stack(left, expr):
            upper = announced(asked)
            if upper is not None and upper.name != expr.protocol:
                return False
        if not isinstance(left, PayloadExpr):
            return True
        if left.base == "nh" and expr.base == "th" and self.family in _WIDE and expr.inner is None:
            return False
        if expr.base == "ll":
            if left.protocol == "vlan":
                return False
            return left.protocol != "ether" or (asked.right.value == 0x8100 and expr.protocol == "vlan" and expr.field != "type")
        if left.base == "th" and expr.base == "th":
            row = proto.field(expr.protocol, expr.field)
            return row is not None and left.protocol == expr.protocol and row.needs == (asked.right.value,)
        return True

    def _by_meta(self, expr: RelationalExpr, left: MetaExpr) -> None:
        base = _META_BASE.get(left.key)
        if not base or not isinstance(expr.right, ConstantExpr):
            return
        questions = self.questions(left.inner)
        question = questions.asked.get(base)
        if question is not None and (left.key != "l4proto" or self._l4_implies(question[1], expr.right.value)):
            self.drop(questions, base)

    def _l4_implies(self, asked: RelationalExpr, number: int | bytes) -> bool:
        """``meta l4proto icmp`` makes ``meta nfproto ipv4`` needless: icmp will ask for it."""
        assert isinstance(asked.right, ConstantExpr)
        value = asked.right.value
        left = asked.left
        if isinstance(left, MetaExpr) and left.key == "nfproto":
            network = value
        else:
            network = _FAMILY_OF_TYPE.get(value, 0) if isinstance(value, int) else 0
        return network == {1: 2, 58: 10}.get(number if isinstance(number, int) else 0, -1)

    # --- matches

    def match(self, stmt: MatchStmt) -> None:
        expr = stmt.expr
        assert isinstance(expr, RelationalExpr)
        left = expr.left
        if isinstance(left, RawPayloadExpr):
            parts = named_field(expr, self.questions(left.inner).context)
            if parts is not None:
                for part in parts:
                    self.match(MatchStmt(part, loc=stmt.loc))
                return
        equal = expr.op == "==" and isinstance(expr.right, ConstantExpr) and isinstance(expr.right.value, int)
        listed = MatchStmt(listed_relational(expr), loc=stmt.loc)
        if isinstance(left, MetaExpr):
            if equal:
                self._by_meta(expr, left)
        else:
            self.implied(left)
        self.out.append(listed)
        if equal:
            self._learn(expr, left, listed)

    def _learn(self, expr: RelationalExpr, left: Expr, listed: MatchStmt) -> None:
        assert isinstance(expr.right, ConstantExpr) and isinstance(expr.right.value, int)
        number = expr.right.value
        if isinstance(left, MetaExpr):
            base = _META_BASE.get(left.key)
            if base is None:
                return
            questions = self.questions(left.inner)
            meta_update(questions.context, left.key, number)
            questions.asked[_NEXT[base]] = listed, expr
        elif isinstance(left, CtExpr):
            if left.key == "protocol":
                meta_update(self.packet.context, "l4proto", number)
        elif isinstance(left, PayloadExpr):
            row = proto.field(left.protocol, left.field)
            if row is None or not row.is_key:
                return
            questions = self.questions(left.inner)
            upper = proto.PROTOCOLS[left.protocol].uppers.get(number)
            payload_update(questions.context, row, number)
            stacked = left.base == "th" or (upper is not None and upper.base == left.base)
            questions.asked[left.base if stacked else _NEXT[left.base]] = listed, expr

    # --- other statements

    def other(self, stmt: Stmt) -> Stmt:
        """A statement that is no match."""
        if isinstance(stmt, VerdictStmt):
            return VerdictStmt(self.arg(stmt.expr), loc=stmt.loc)
        if isinstance(stmt, MangleStmt):
            target = stmt.target
            if isinstance(target, RawPayloadExpr):
                target = self._name_target(target)
            self.implied(target)
            return MangleStmt(target, self._mangled(target, self.arg(stmt.value)), loc=stmt.loc)
        if isinstance(stmt, NatStmt):
            return self._nat(stmt)
        if isinstance(stmt, RejectStmt):
            return self._reject(stmt)
        if isinstance(stmt, TproxyStmt):
            family = None if self.family in ("ip", "ip6") else stmt.family
            return TproxyStmt(family, self.maybe(stmt.addr), self.maybe(stmt.port), loc=stmt.loc)
        if isinstance(stmt, ObjrefStmt):
            return ObjrefStmt(stmt.kind, self.arg(stmt.expr), loc=stmt.loc)
        if isinstance(stmt, QueueStmt):
            return QueueStmt(self.maybe(stmt.expr), stmt.flags, loc=stmt.loc)
        if isinstance(stmt, DupStmt):
            return DupStmt(self.arg(stmt.to), self.maybe(stmt.dev), loc=stmt.loc)
        if isinstance(stmt, FwdStmt):
            return FwdStmt(self.arg(stmt.dev), self.maybe(stmt.addr), stmt.family, loc=stmt.loc)
        if isinstance(stmt, SetUpdateStmt):
            return SetUpdateStmt(stmt.op, stmt.set, self._elem(stmt.elem), stmt.stmts, loc=stmt.loc)
        if isinstance(stmt, MapUpdateStmt):
            return MapUpdateStmt(stmt.op, stmt.map, self._elem(stmt.elem), self.arg(stmt.data), stmt.stmts, loc=stmt.loc)
        if isinstance(stmt, MeterStmt):
            return MeterStmt(stmt.name, self._elem(stmt.elem), stmt.stmts, stmt.size, loc=stmt.loc)
        if isinstance(stmt, OptstripStmt):
            return self._strip(stmt)
        return stmt

    def _strip(self, stmt: OptstripStmt) -> OptstripStmt:
        from userfw.nft.proto_options import TCP_OPTION_NAMES

        target = stmt.target
        if isinstance(target, TcpOptionExpr) and isinstance(target.option, int) and target.option in TCP_OPTION_NAMES:
            return OptstripStmt(replace(target, option=TCP_OPTION_NAMES[target.option]), loc=stmt.loc)
        return stmt

    def _name_target(self, target: RawPayloadExpr) -> Expr:
        """A raw field that is written: by its name if the protocol is known."""
        known = self.questions(target.inner).context.get(target.base) or (proto.TH if target.base == "th" else None)
        row = None if known is None else known.by_place.get((target.offset, target.width))
        if known is None or row is None:
            return target
        return PayloadExpr(
            known.name, row.name, target.inner, target.base, target.offset, loc=target.loc, dtype=row.dtype, width=row.width
        )

    def _mangled(self, target: Expr, value: Expr) -> Expr:
        if isinstance(value, ConstantExpr) and isinstance(target, PayloadExpr) and value.dtype is not target.dtype:
            return ConstantExpr(value.value, loc=value.loc, dtype=target.dtype)
        return value

    def _elem(self, elem: SetElemExpr) -> SetElemExpr:
        return replace(elem, key=self.arg(elem.key))

    def maybe(self, expr: Expr | None) -> Expr | None:
        return None if expr is None else self.arg(expr)

    def arg(self, expr: Expr) -> Expr:
        """The listed form of a statement's value."""
        self.implied(expr)
        return self._listed(expr)

    def _listed(self, expr: Expr) -> Expr:
        if isinstance(expr, MapExpr):
            mapping = expr.mapping
            if isinstance(mapping, SetExpr):
                elements = [listed_element(elem, is_map=True) for elem in listing_order(mapping.elements)]
                mapping = SetExpr(elements, loc=mapping.loc, dtype=mapping.dtype)
            return MapExpr(self._listed(expr.key), mapping, expr.vmap, loc=expr.loc, dtype=expr.dtype)
        if isinstance(expr, ConcatExpr):
            return ConcatExpr([self._listed(item) for item in expr.items], loc=expr.loc, dtype=expr.dtype)
        return listed_value(expr)

    def _reject(self, stmt: RejectStmt) -> RejectStmt:
        kind, code = stmt.kind, stmt.code
        if kind in ("icmp", "icmpv6") and self.family in _WIDE:
            self._by_base("nh")
            return stmt
        if kind == "tcp reset" and self.family in ("ip", "ip6"):
            self._by_base("th")
        number = code.value if isinstance(code, ConstantExpr) else None
        if (kind, number) in (("icmp", 3), ("icmpv6", 4), ("icmpx", 1)):
            return RejectStmt(None, code, loc=stmt.loc)
        return stmt

    def _nat(self, stmt: NatStmt) -> NatStmt:
        family: str | None = None
        if stmt.kind in ("snat", "dnat") and stmt.addr is not None and (self.family == "inet" or stmt.form):
            family = stmt.family
        addr = self.maybe(stmt.addr)
        if isinstance(addr, MapExpr) and isinstance(addr.mapping, SetExpr) and stmt.form == "interval":
            elements = [listed_element(elem, is_map=True, interval_data=True) for elem in addr.mapping.elements]
            mapping = SetExpr(elements, loc=addr.mapping.loc, dtype=addr.mapping.dtype)
            addr = MapExpr(addr.key, mapping, loc=addr.loc, dtype=addr.dtype)
        form = "prefix" if stmt.form == "prefix" else ""
        return NatStmt(stmt.kind, family, form, addr, self.maybe(stmt.port), stmt.flags, loc=stmt.loc)
