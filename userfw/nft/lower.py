"""The lowering: a checked rule becomes instructions of the nf_tables machine. This module is its door.

Laws:
- The instructions, their registers and their order are those of nft 1.1.6, so that ``--debug=netlink`` listings agree.
- Anonymous sets and chains are handed out with the rule, under names that are unique within it.
- What the checker has let through and the machine cannot do is refused with the place in the text, never dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from userfw.engine.expr import Expr as Instruction
from userfw.engine.expressions import (
    Connlimit,
    Counter,
    Dup,
    Dynset,
    FlowOffload,
    Fwd,
    Immediate,
    ImmediateVerdict,
    Last,
    Limit,
    Log,
    Masq,
    Nat,
    Notrack,
    Objref,
    ObjrefMap,
    Queue,
    Quota,
    Redir,
    Reject,
    Synproxy,
    Tproxy,
)
from userfw.nft.check import CheckedRule
from userfw.nft.check_context import Resolver, fail
from userfw.nft.check_merge import MergedMatch
from userfw.nft.datatype import Datatype
from userfw.nft.datatype_tables import INET_SERVICE, IPV4_ADDR, IPV6_ADDR
from userfw.nft.location import NftError, NftErrors
from userfw.nft.lower_expr import reg
from userfw.nft.lower_set import LoweredElement, LoweredSet, dump_set, lower_element, lower_elements, lower_set
from userfw.nft.lower_write import WriteLowering
from userfw.nft.spans import bounds
from userfw.nft.syntax import (
    ChainBlock,
    ConcatExpr,
    ConnlimitStmt,
    ConstantExpr,
    CounterStmt,
    DupStmt,
    Expr,
    FlowStmt,
    FwdStmt,
    LastStmt,
    LimitStmt,
    LogStmt,
    MangleStmt,
    MapExpr,
    MapUpdateStmt,
    MatchStmt,
    MeterStmt,
    NatStmt,
    NotrackStmt,
    ObjrefStmt,
    OptstripStmt,
    PrefixExpr,
    QueueStmt,
    QuotaStmt,
    RangeExpr,
    RejectStmt,
    RuleBlock,
    SetBlock,
    SetElemExpr,
    SetUpdateStmt,
    Stmt,
    SynproxyStmt,
    TproxyStmt,
    VerdictExpr,
    VerdictStmt,
)

__all__ = [
    "LoweredElement", "LoweredRule", "LoweredSet", "dump_set", "lower_element", "lower_elements", "lower_rule", "lower_set",
    "lower_stateful",
]  # fmt: skip

_LEVELS = {"emerg": 0, "alert": 1, "crit": 2, "err": 3, "warn": 4, "notice": 5, "info": 6, "debug": 7, "audit": 8}
_LOG_FLAGS = {"tcp-sequence": 1, "tcp-options": 2, "ip-options": 4, "skuid": 8, "ether": 32}
_NAT_FLAGS = {"random": 4, "persistent": 8, "fully-random": 16}
_PROTO_SPECIFIED, _NETMAP = 2, 0x40
_ADDRESS: dict[str, Datatype] = {"ip": IPV4_ADDR, "ip6": IPV6_ADDR}


@dataclass(slots=True)
class LoweredRule:
    """Instructions, the anonymous sets they look up (checked blocks with their elements) and the anonymous chains they jump to."""

    expressions: list[Instruction]
    anonymous_sets: list[SetBlock] = field(default_factory=list)
    bound_chains: list[tuple[str, ChainBlock]] = field(default_factory=list)

    def render(self) -> list[str]:
        """The lines of ``nft --debug=netlink``."""
        return [instruction.render() for instruction in self.expressions]


class RuleLowering(WriteLowering):
    """Statements."""

    def __init__(self, family: str, chain_names: Sequence[str] = ()) -> None:
        super().__init__(family)
        self.chain_names = list(chain_names)
        self.chains: list[tuple[str, ChainBlock]] = []

    def stmt(self, stmt: Stmt) -> None:
        """The instructions of one statement."""
        handler = _STATEMENTS.get(type(stmt))
        if handler is None:
            fail(stmt, f"{type(stmt).__name__} is not supported by the machine")
        self.free = 0
        try:
            handler(self, stmt)
        except ValueError as problem:
            raise NftError(str(problem), stmt.loc) from None

    # --- verdicts

    def verdict_stmt(self, stmt: VerdictStmt) -> None:
        expr = stmt.expr
        if isinstance(expr, MapExpr):
            self.map(expr, self.key_register(expr.key))
            return
        assert isinstance(expr, VerdictExpr)
        chain = expr.chain or ""
        if expr.block is not None:
            number = len(self.chains)
            chain = self.chain_names[number] if number < len(self.chain_names) else f"__chain{number}"
            self.chains.append((chain, expr.block))
        self.emit(ImmediateVerdict(expr.kind, chain))

    # --- state

    def state(self, stmt: Stmt) -> None:
        self.emit(lower_stateful(stmt))

    def objref(self, stmt: ObjrefStmt) -> None:
        expr = stmt.expr
        if isinstance(expr, MapExpr):
            self.object_kind = stmt.kind
            unit = self.key_register(expr.key)
            name = self.lookup_key(expr.key, expr.mapping, unit, expr)
            self.object_kind = None
            self.emit(ObjrefMap(reg(unit), name))
            return
        assert isinstance(expr, ConstantExpr) and isinstance(expr.value, bytes)
        self.emit(Objref(stmt.kind, expr.value.decode()))

    def log(self, stmt: LogStmt) -> None:
        flags = 0
        for flag in stmt.flags:
            flags |= _LOG_FLAGS[flag]
        level = None if stmt.level is None else _LEVELS[stmt.level]
        self.emit(Log(stmt.prefix or "", level, flags, stmt.group, stmt.snaplen or 0, stmt.queue_threshold or 0))

    # --- where packets go

    def reject(self, stmt: RejectStmt) -> None:
        if stmt.kind == "tcp reset":
            self.emit(Reject("tcp reset", 0))
            return
        assert isinstance(stmt.code, ConstantExpr) and isinstance(stmt.code.value, int)
        self.emit(Reject("icmpx" if stmt.kind == "icmpx" else "icmp", stmt.code.value))

    def queue(self, stmt: QueueStmt) -> None:
        expr = stmt.expr
        bypass, fanout = "bypass" in stmt.flags, "fanout" in stmt.flags
        if isinstance(expr, ConstantExpr) and isinstance(expr.value, int):
            self.emit(Queue(expr.value, 1, bypass, fanout))
        elif isinstance(expr, RangeExpr):
            low, high = bounds(expr)
            self.emit(Queue(low, high - low + 1, bypass, fanout))
        else:
            assert expr is not None
            unit = self.take()
            self.gen(expr, unit)
            self.emit(Queue(0, 1, bypass, fanout, reg(unit)))

    def dup(self, stmt: DupStmt) -> None:
        unit = self.take()
        self.value(stmt.to, unit, stmt.to.dtype)
        if self.family == "netdev":
            self.emit(Dup(dev=reg(unit)))
            return
        dev = None
        if stmt.dev is not None:
            second = self.take()
            self.value(stmt.dev, second, stmt.dev.dtype)
            dev = reg(second)
        self.emit(Dup(reg(unit), dev, 16 if self.family == "ip6" else 4))

    def fwd(self, stmt: FwdStmt) -> None:
        unit = self.take()
        self.value(stmt.dev, unit, stmt.dev.dtype)
        if stmt.addr is None:
            self.emit(Fwd(reg(unit)))
            return
        second = self.take()
        self.value(stmt.addr, second, stmt.addr.dtype)
        self.emit(Fwd(reg(unit), reg(second), stmt.family))

    # --- address translation

    def _span(self, expr: Expr, dtype: Datatype) -> tuple[int, int | None]:
        """Registers of the first and last value of a constant or range, or of what computes one."""
        if isinstance(expr, RangeExpr | PrefixExpr):
            low, high = bounds(expr)
            first, last = self.take(), self.take()
            self.emit(Immediate(reg(first), dtype.encode(low)))
            self.emit(Immediate(reg(last), dtype.encode(high)))
            return reg(first), reg(last)
        unit = self.take()
        self.value(expr, unit, dtype)
        return reg(unit), None

    def nat(self, stmt: NatStmt) -> None:
        flags = sum(_NAT_FLAGS[flag] for flag in stmt.flags)
        addr_min = addr_max = proto_min = proto_max = None
        if stmt.addr is not None:
            if isinstance(stmt.addr, MapExpr):
                self.data_interval = "interval" in stmt.form or stmt.form == "prefix"
                addr_min, addr_max, proto_min, proto_max = self._nat_map(stmt, stmt.addr)
                self.data_interval = False
            else:
                addr_min, addr_max = self._span(stmt.addr, _ADDRESS[stmt.family or self.family])
            if stmt.form == "prefix":
                flags |= _NETMAP
        if stmt.port is not None:
            proto_min, proto_max = self._span(stmt.port, INET_SERVICE)
            flags |= _PROTO_SPECIFIED
        if stmt.kind == "masquerade":
            self.emit(Masq(proto_min, proto_max, flags))
        elif stmt.kind == "redirect":
            self.emit(Redir(proto_min, proto_max, flags))
        else:
            self.emit(Nat(stmt.kind, stmt.family or self.family, addr_min, addr_max, proto_min, proto_max, flags))

    def _nat_map(self, stmt: NatStmt, expr: MapExpr) -> tuple[int | None, int | None, int | None, int | None]:
        unit = self.key_register(expr.key)
        self.map(expr, unit)
        size = 4 if stmt.family == "ip6" else 1
        concat = "concat" in stmt.form
        ranged = "interval" in stmt.form or stmt.form == "prefix"
        width = size + (self.units_of(INET_SERVICE) if concat else 0)
        last = unit + width if ranged else None
        return (
            reg(unit),
            None if last is None else reg(last),
            reg(unit + size) if concat else None,
            reg(last + size) if concat and last is not None else None,
        )

    def tproxy(self, stmt: TproxyStmt) -> None:
        addr = None if stmt.addr is None else self._span(stmt.addr, _ADDRESS[stmt.family or self.family])[0]
        port = None if stmt.port is None else self._span(stmt.port, INET_SERVICE)[0]
        self.emit(Tproxy(stmt.family or "", addr, port))

    # --- dynamic sets

    def _update(self, op: str, name: str, elem: SetElemExpr, stmts: list[Stmt], data: Expr | None, dtype: Any, stmt: Stmt) -> None:
        unit = self.key_register(elem.key)
        key_dtype: Datatype = elem.dtype
        if isinstance(elem.key, ConcatExpr):
            self.concat(elem.key, unit, False)
        else:
            self.value(elem.key, unit, key_dtype)
        data_reg = None
        if data is not None:
            second = self.take(max(self.units_of(dtype), 4) if not isinstance(data, ConcatExpr) else self.units_of(dtype))
            if isinstance(data, ConcatExpr):
                self.concat(data, second, False)
            else:
                self.value(data, second, dtype)
            data_reg = reg(second)
        exprs = tuple(lower_stateful(item) for item in (*elem.stmts, *stmts))
        self.emit(Dynset(op, reg(unit), name, data_reg, elem.timeout or 0, exprs))

    def set_update(self, stmt: SetUpdateStmt) -> None:
        self._update(stmt.op, stmt.set.name, stmt.elem, stmt.stmts, None, None, stmt)

    def map_update(self, stmt: MapUpdateStmt) -> None:
        self._update(stmt.op, stmt.map.name, stmt.elem, stmt.stmts, stmt.data, stmt.map.target.data_dtype, stmt)

    def meter(self, stmt: MeterStmt) -> None:
        self._update("update" if stmt.elem.timeout else "add", stmt.name, stmt.elem, stmt.stmts, None, None, stmt)

    # --- the rest

    def notrack(self, stmt: NotrackStmt) -> None:
        self.emit(Notrack())

    def flow(self, stmt: FlowStmt) -> None:
        self.emit(FlowOffload(stmt.name))

    def synproxy(self, stmt: SynproxyStmt) -> None:
        self.emit(Synproxy(stmt.mss, stmt.wscale, stmt.timestamp, stmt.sack_perm))


def lower_stateful(stmt: Stmt) -> Instruction:
    """The instruction of a counter, quota, limit, last or connection limit: in rules, elements and objects."""
    if isinstance(stmt, CounterStmt):
        return Counter(stmt.packets, stmt.bytes)
    if isinstance(stmt, QuotaStmt):
        return Quota(stmt.bytes, stmt.used, stmt.over)
    if isinstance(stmt, LimitStmt):
        burst = stmt.burst if stmt.burst is not None else 0 if stmt.bytes else 5
        return Limit(stmt.rate, stmt.per, burst, stmt.bytes, stmt.over)
    if isinstance(stmt, LastStmt):
        return Last(stmt.used)
    if isinstance(stmt, ConnlimitStmt):
        return Connlimit(stmt.count, stmt.over)
    raise NftError(f"{type(stmt).__name__} has no state of its own", stmt.loc)


def lower_rule(rule: RuleBlock, family: str, resolver: Resolver | None = None, chain_names: Sequence[str] = ()) -> LoweredRule:
    """The instructions of a checked rule. ``chain_names`` name its anonymous chains in order.

    Raises ``NftErrors`` when the machine cannot do what was asked.
    """
    if not isinstance(rule, CheckedRule):
        raise TypeError("only a rule that check_rule gave can be lowered")
    lowering = RuleLowering(family, chain_names)
    try:
        for stmt in rule.evaluated:
            lowering.stmt(stmt)
    except NftError as problem:
        raise NftErrors([problem]) from None
    return LoweredRule(lowering.out, lowering.sets, lowering.chains)


_STATEMENTS: dict[type[Any], Callable[..., None]] = {
    MatchStmt: RuleLowering.match,
    MergedMatch: RuleLowering.merged,
    VerdictStmt: RuleLowering.verdict_stmt,
    MangleStmt: RuleLowering.mangle,
    OptstripStmt: RuleLowering.strip,
    NotrackStmt: RuleLowering.notrack,
    CounterStmt: RuleLowering.state,
    QuotaStmt: RuleLowering.state,
    LimitStmt: RuleLowering.state,
    LastStmt: RuleLowering.state,
    ConnlimitStmt: RuleLowering.state,
    ObjrefStmt: RuleLowering.objref,
    LogStmt: RuleLowering.log,
    RejectStmt: RuleLowering.reject,
    NatStmt: RuleLowering.nat,
    TproxyStmt: RuleLowering.tproxy,
    SynproxyStmt: RuleLowering.synproxy,
    DupStmt: RuleLowering.dup,
    FwdStmt: RuleLowering.fwd,
    QueueStmt: RuleLowering.queue,
    FlowStmt: RuleLowering.flow,
    SetUpdateStmt: RuleLowering.set_update,
    MapUpdateStmt: RuleLowering.map_update,
    MeterStmt: RuleLowering.meter,
}
