"""Checking statements, one by one and in order.

Laws:
- ``rule`` walks the statements left to right; each sees what the ones before it have taught about protocols.
- Nothing may follow a statement that ends the rule.
- Where Linux refuses a statement because of hook or chain type, the engine's registry says so when the rule is bound;
  here stands what nft itself refuses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from userfw.nft import proto, proto_keys
from userfw.nft.check_context import UNKNOWN, ChainInfo, fail
from userfw.nft.check_nat import NatChecker
from userfw.nft.check_set import STATEFUL
from userfw.nft.datatype import HOST, Datatype
from userfw.nft.datatype_tables import (
    ICMP_REJECT,
    ICMPV6_REJECT,
    ICMPX_CODE,
    IFACE_INDEX,
    INET_PROTO,
    IPV4_ADDR,
    IPV6_ADDR,
    VERDICT,
    integer,
)
from userfw.nft.datatype_time import MAX_TIMEOUT_MS
from userfw.nft.syntax import (
    ChainBlock,
    ConnlimitStmt,
    ConstantExpr,
    CounterStmt,
    CtExpr,
    DupStmt,
    Expr,
    ExthdrExpr,
    FlowStmt,
    FwdStmt,
    HashExpr,
    LastStmt,
    LimitStmt,
    LogStmt,
    MangleStmt,
    MapExpr,
    MapUpdateStmt,
    MatchStmt,
    MetaExpr,
    MeterStmt,
    NatStmt,
    NotrackStmt,
    NumgenExpr,
    ObjrefStmt,
    OptstripStmt,
    PayloadExpr,
    PrefixExpr,
    QueueStmt,
    QuotaStmt,
    RangeExpr,
    RawPayloadExpr,
    RejectStmt,
    RelationalExpr,
    RuleBlock,
    SetElemExpr,
    SetExpr,
    SetUpdateStmt,
    Stmt,
    SynproxyStmt,
    TcpOptionExpr,
    TproxyStmt,
    VerdictExpr,
    VerdictStmt,
    XtStmt,
)

_PORT_UNREACHABLE = {"icmp": 3, "icmpv6": 4, "icmpx": 1}
_CODES: dict[str, Datatype] = {"icmp": ICMP_REJECT, "icmpv6": ICMPV6_REJECT, "icmpx": ICMPX_CODE}
_NETWORK_OF = {"icmp": proto.IP, "icmpv6": proto.IP6}
_REJECT_FAMILIES = frozenset(("ip", "ip6", "inet", "bridge", "netdev"))


class RuleChecker(NatChecker):
    """All statements of one rule."""

    def rule(self, stmts: list[Stmt]) -> list[Stmt]:
        """The checked statements, with what nft puts between them."""
        last: Stmt | None = None
        out = self.out
        for stmt in stmts:
            if last is not None:
                fail(stmt, "Statement after terminal statement has no effect", last.loc)
            checked = self.stmt(stmt)
            if type(checked) is MatchStmt and len(stmts) > 1 and self.redundant(checked):
                continue
            out.append(checked)
            if _terminal(checked):
                last = stmt
        return out

    def stmt(self, node: Stmt) -> Stmt:
        """One checked statement."""
        handler = _STATEMENTS.get(type(node))
        if handler is None:
            fail(node, f"{type(node).__name__} is not supported")
        return handler(self, node)

    # --- verdicts

    def _verdict_stmt(self, node: VerdictStmt) -> Stmt:
        expr = node.expr
        if isinstance(expr, MapExpr):
            return VerdictStmt(self.mapping(expr, VERDICT, data_interval=False), loc=node.loc)
        if not isinstance(expr, VerdictExpr):
            fail(node, "verdict expected")
        return VerdictStmt(self.verdict(expr), loc=node.loc)

    def verdict(self, node: VerdictExpr) -> VerdictExpr:
        if node.block is None:
            return VerdictExpr(node.kind, node.chain, loc=node.loc, dtype=VERDICT)
        return VerdictExpr(node.kind, node.chain, self.bound_chain(node.block), loc=node.loc, dtype=VERDICT)

    def bound_chain(self, block: ChainBlock) -> ChainBlock:
        """The rules of an anonymous chain: they know nothing of the rule that jumps there."""
        info = ChainInfo(self.chain.table, block.name, self.chain.type, self.chain.hook)
        rules = [check_one_rule(rule, self.family, info, self.resolver) for rule in block.rules]
        return ChainBlock(block.name, comment=block.comment, rules=rules, loc=block.loc)

    # --- counting and limits: nothing to look up

    def _as_it_is(self, node: Stmt) -> Stmt:
        return node

    def _limit(self, node: LimitStmt) -> Stmt:
        burst = node.burst
        if burst is None:
            burst = 0 if node.bytes else 5
        elif burst == 0 and not node.bytes:
            fail(node, "packet limit burst must be > 0")
        return LimitStmt(node.rate, node.per, node.bytes, burst, node.over, loc=node.loc)

    def _log(self, node: LogStmt) -> Stmt:
        nflog = node.group is not None or node.snaplen is not None or node.queue_threshold is not None
        if node.prefix is not None and len(node.prefix.encode("utf-8", "surrogateescape")) > 127:
            fail(node, "log prefix is too long")
        if node.level == "audit" and (nflog or node.flags or node.prefix is not None):
            fail(node, "log level audit doesn't support any further options")
        if nflog and node.level is not None:
            fail(node, "level and group are mutually exclusive")
        if nflog and node.flags:
            fail(node, "flags and group are mutually exclusive")
        group = node.group if node.group is not None or not nflog else 0
        return LogStmt(node.prefix, node.level, group, node.snaplen, node.queue_threshold, node.flags, loc=node.loc)

    def _objref(self, node: ObjrefStmt) -> Stmt:
        expr = node.expr
        if isinstance(expr, MapExpr):
            return ObjrefStmt(node.kind, self.mapping(expr, node.kind, data_interval=False), loc=node.loc)
        return ObjrefStmt(node.kind, self.object_name(expr, node.kind), loc=node.loc)

    def _synproxy(self, node: SynproxyStmt) -> Stmt:
        if self.family not in ("ip", "ip6", "inet"):
            fail(node, "synproxy is only supported for IPv4/IPv6/INET")
        if node.wscale is not None and node.wscale > 14:
            fail(node, "Invalid wscale: value too large (maximum 14)")
        return node

    def _flow(self, node: FlowStmt) -> Stmt:
        if self.family not in ("ip", "ip6", "inet"):
            fail(node, f"flow offload is not supported in family {self.family}")
        if self.resolver.flowtable_of(self.family, self.chain.table, node.name) is None:
            fail(
                node,
                f"No such file or directory; flowtable '{node.name}' does not exist in table {self.family} '{self.chain.table}'",
            )
        return node

    def _xt(self, node: XtStmt) -> Stmt:
        fail(node, f"unsupported xtables compat expression '{node.kind} {node.name}': use iptables-nft with this ruleset")

    # --- writing

    def _mangle(self, node: MangleStmt) -> Stmt:
        target = node.target
        checked = self.load(target)
        if isinstance(checked, PayloadExpr | RawPayloadExpr):
            if checked.inner is not None:
                fail(target, "payload statement for this expression is not supported")
            if checked.offset % 8 + checked.width > 128:
                fail(target, "a field that touches more than 16 bytes cannot be set")
        elif isinstance(checked, MetaExpr):
            self._meta_target(checked)
        elif isinstance(checked, CtExpr):
            if not proto_keys.CT[checked.key].settable:
                fail(target, f"ct {checked.key} cannot be set")
            if checked.direction is not None and checked.key != "zone":
                fail(target, f"ct {checked.direction} {checked.key} cannot be set")
        elif isinstance(checked, TcpOptionExpr):
            if checked.field is None and checked.raw is None:
                fail(target, "a field of the TCP option must be given")
        elif isinstance(checked, ExthdrExpr):
            fail(target, "IPv6 extension headers cannot be written")
        else:
            fail(target, "this expression cannot be set")
        value = self.argument(node.value, checked.dtype, node)
        self._no_range(value)
        return MangleStmt(checked, value, loc=node.loc)

    def _meta_target(self, node: MetaExpr) -> None:
        if not proto_keys.META[node.key].settable:
            fail(node, f"meta {node.key} cannot be set")
        if node.key == "broute" and self.chain.hook not in (None, "prerouting"):
            fail(node, "meta broute can only be set in prerouting")

    def argument(self, node: Expr, dtype: Datatype, stmt: Stmt) -> Expr:
        """The value that a statement wants (nft: stmt_evaluate_arg)."""
        if isinstance(node, SetExpr):
            fail(node, "you cannot use a set here, unknown value to use")
        value = self.operand(node, dtype)
        have: Datatype = value.dtype
        if not have.same(dtype):
            loose = isinstance(value, NumgenExpr | HashExpr) or dtype.name == "mark"
            if not loose or have.root.name != "integer" or dtype.root.name != "integer":
                fail(node, f"datatype mismatch: expected {dtype.desc}, expression has type {have.desc}", stmt.loc)
        return value

    def _optstrip(self, node: OptstripStmt) -> Stmt:
        target = node.target
        assert isinstance(target, TcpOptionExpr)
        if target.option in ("eol", "nop", 0, 1):
            fail(target, "cannot reset this TCP option")
        return OptstripStmt(self.load(target), loc=node.loc)

    def _set_update(self, node: SetUpdateStmt) -> Stmt:
        ref = self.set_ref(node.set)
        if ref.target.is_map:
            fail(node.set, "map needs data: use ':'")
        return SetUpdateStmt(node.op, ref, self._update_key(node, node.elem, ref.dtype), self._stateful(node.stmts), loc=node.loc)

    def _map_update(self, node: MapUpdateStmt) -> Stmt:
        ref = self.set_ref(node.map)
        if not ref.target.is_map or ref.target.data_dtype is None:
            fail(node.map, "Expression is not a map")
        elem = self._update_key(node, node.elem, ref.dtype)
        if ref.target.data_dtype is VERDICT:
            fail(node.data, "verdict maps cannot be updated from the packet path")
        data = self.argument(node.data, ref.target.data_dtype, node)
        return MapUpdateStmt(node.op, ref, elem, data, self._stateful(node.stmts), loc=node.loc)

    def _update_key(self, node: Stmt, elem: SetElemExpr, dtype: Datatype) -> SetElemExpr:
        key = self.operand(elem.key, dtype)
        if not key.dtype.same(dtype) and key.dtype.width != dtype.width:
            fail(elem, f"datatype mismatch: expected {dtype.desc}, expression has type {key.dtype.desc}", node.loc)
        if elem.timeout is not None and elem.timeout < 0:
            fail(elem, "'timeout never' is for elements that are added by hand")
        self._timeout(elem)
        stmts = self._stateful(elem.stmts)
        return SetElemExpr(key, None, stmts, elem.timeout, elem.expires, elem.comment, loc=elem.loc, dtype=dtype)

    def _timeout(self, elem: SetElemExpr) -> None:
        if (elem.timeout or 0) >= MAX_TIMEOUT_MS:
            fail(elem, "Could not process rule: Numerical result out of range")

    def _stateful(self, stmts: list[Stmt]) -> list[Stmt]:
        for stmt in stmts:
            if not isinstance(stmt, STATEFUL):
                fail(stmt, "meter statement must be stateful")
        return [self.stmt(stmt) for stmt in stmts]

    def _meter(self, node: MeterStmt) -> Stmt:
        """``meter NAME { KEY STMT }``: the dynamic set of that name is made by who applies the rule."""
        key = self.lhs(node.elem.key)
        self.need_sized(key)
        self._timeout(node.elem)
        elem = SetElemExpr(
            key, None, [], node.elem.timeout, node.elem.expires, node.elem.comment, loc=node.elem.loc, dtype=key.dtype
        )
        return MeterStmt(node.name, elem, self._stateful(node.stmts), node.size, loc=node.loc)

    # --- sending elsewhere

    def _dup(self, node: DupStmt) -> Stmt:
        if self.family == "netdev":
            if node.dev is not None:
                fail(node.dev, "cannot specify device here")
            return DupStmt(self._device(node.to, node), loc=node.loc)
        if self.family not in ("ip", "ip6"):
            fail(node, "unsupported family")
        to = self.argument(node.to, IPV4_ADDR if self.family == "ip" else IPV6_ADDR, node)
        self._no_range(to)
        return DupStmt(to, None if node.dev is None else self._device(node.dev, node), loc=node.loc)

    def _no_range(self, node: Expr) -> None:
        if isinstance(node, RangeExpr | PrefixExpr):
            fail(node, "cannot use a range or prefix here")

    def _device(self, node: Expr, stmt: Stmt) -> Expr:
        found = self.argument(node, IFACE_INDEX, stmt)
        self._no_range(found)
        return found

    def _fwd(self, node: FwdStmt) -> Stmt:
        if self.family != "netdev":
            fail(node, "unsupported family")
        dev = self._device(node.dev, node)
        if node.addr is None:
            return FwdStmt(dev, loc=node.loc)
        addr = self.argument(node.addr, IPV4_ADDR if node.family == "ip" else IPV6_ADDR, node)
        self._no_range(addr)
        return FwdStmt(dev, addr, node.family, loc=node.loc)

    def _queue(self, node: QueueStmt) -> Stmt:
        width = integer(16, HOST)
        expr = node.expr
        if expr is None:
            zero = ConstantExpr(0, loc=node.loc, dtype=width)
            if "fanout" in node.flags:
                fail(node, "fanout requires a range to be specified")
            return QueueStmt(zero, node.flags, loc=node.loc)
        checked = self.operand(expr, width)
        if isinstance(checked, NumgenExpr | HashExpr):
            if checked.offset + checked.modulus - 1 > 0xFFFF:
                fail(expr, "invalid queue range: maximum is 65535")
        elif not isinstance(checked, ConstantExpr | RangeExpr | MapExpr):
            fail(expr, "invalid queue expression")
        if "fanout" in node.flags and not isinstance(checked, RangeExpr):
            fail(node, "fanout requires a range to be specified")
        return QueueStmt(checked, node.flags, loc=node.loc)

    # --- reject

    def _reject(self, node: RejectStmt) -> Stmt:
        if self.family not in _REJECT_FAMILIES:
            fail(node, f"cannot use reject with {self.family}")
        kind = node.kind
        self._reject_link(node)
        if kind is None:
            kind = self._reject_default()
            return RejectStmt(kind, self._code(kind, _PORT_UNREACHABLE[kind], node), loc=node.loc)
        if kind == "tcp reset":
            self._reject_reset(node)
            return RejectStmt(kind, None, loc=node.loc)
        code = self._code(kind, _PORT_UNREACHABLE[kind], node) if node.code is None else self.value(node.code, _CODES[kind])
        if not isinstance(code, ConstantExpr):
            fail(node, "reject code must be a single value")
        if kind == "icmpx":
            if self.family in ("ip", "ip6"):
                fail(node, "abstracted ICMP unreachable not supported")
            if isinstance(code.value, int) and code.value > 3:
                fail(node.code or node, "reject code is out of range for icmpx")
            return RejectStmt(kind, code, loc=node.loc)
        self._reject_network(node, _NETWORK_OF[kind])
        return RejectStmt(kind, code, loc=node.loc)

    def _code(self, kind: str, number: int, node: Stmt) -> ConstantExpr:
        return ConstantExpr(number, loc=node.loc, dtype=_CODES[kind])

    def _reject_default(self) -> str:
        return {"ip": "icmp", "ip6": "icmpv6"}.get(self.proto.nh.name if self.proto.nh is not None else "", "icmpx")

    def _reject_link(self, node: RejectStmt) -> None:
        known = self.proto.nh
        if self.family in ("bridge", "netdev") and self.proto.ll is UNKNOWN:
            fail(node, "cannot reject from this link layer protocol")
        if self.family in ("bridge", "netdev", "inet") and known is not None and known not in (proto.IP, proto.IP6):
            fail(node, f"cannot reject this network family: {known.name}")

    def _reject_network(self, node: RejectStmt, wanted: proto.Protocol) -> None:
        known = self.proto.nh
        if known is wanted:
            return
        if known is not None:
            fail(node, f"conflicting protocols specified: {known.name} vs. {wanted.name}")
        anchor = PayloadExpr(wanted.name, "version", loc=node.loc)
        link = self.proto.ll
        if self.family == "bridge" and (link is None or link is proto.ETHER):
            link = proto.NETDEV
        if link is None:
            fail(node, "conflicting protocols specified for reject")
        start = len(self.out)
        self._ask(anchor, link, wanted)
        self.to_head(start)

    def _reject_reset(self, node: RejectStmt) -> None:
        known = self.proto.th
        if known is None:
            key = proto_keys.META["l4proto"]
            left = MetaExpr("l4proto", loc=node.loc, dtype=key.dtype)
            right = ConstantExpr(6, loc=node.loc, dtype=INET_PROTO)
            self.out.insert(0, MatchStmt(RelationalExpr("==", left, right, loc=node.loc), loc=node.loc))
            self.proto.update("th", proto.TCP)
        elif known is not proto.TCP:
            fail(node, f"conflicting protocols specified: {known.name} vs. tcp: you cannot use tcp reset with this protocol")


def _terminal(stmt: Stmt) -> bool:
    if isinstance(stmt, VerdictStmt):
        return isinstance(stmt.expr, VerdictExpr) and stmt.expr.kind != "continue"
    return isinstance(stmt, NatStmt | RejectStmt | QueueStmt | FwdStmt)


def check_one_rule(rule: RuleBlock, family: str, info: ChainInfo, resolver: Any) -> RuleBlock:
    """A checked rule of an anonymous chain."""
    from userfw.nft.check import check_rule

    return check_rule(rule, family, info, resolver)


_STATEMENTS: dict[type[Any], Callable[..., Stmt]] = {
    MatchStmt: RuleChecker.match,
    VerdictStmt: RuleChecker._verdict_stmt,
    MangleStmt: RuleChecker._mangle,
    OptstripStmt: RuleChecker._optstrip,
    NotrackStmt: RuleChecker._as_it_is,
    CounterStmt: RuleChecker._as_it_is,
    QuotaStmt: RuleChecker._as_it_is,
    LimitStmt: RuleChecker._limit,
    LastStmt: RuleChecker._as_it_is,
    ConnlimitStmt: RuleChecker._as_it_is,
    ObjrefStmt: RuleChecker._objref,
    LogStmt: RuleChecker._log,
    RejectStmt: RuleChecker._reject,
    NatStmt: RuleChecker.nat,
    TproxyStmt: RuleChecker.tproxy,
    SynproxyStmt: RuleChecker._synproxy,
    DupStmt: RuleChecker._dup,
    FwdStmt: RuleChecker._fwd,
    QueueStmt: RuleChecker._queue,
    FlowStmt: RuleChecker._flow,
    SetUpdateStmt: RuleChecker._set_update,
    MapUpdateStmt: RuleChecker._map_update,
    MeterStmt: RuleChecker._meter,
    XtStmt: RuleChecker._xt,
}
