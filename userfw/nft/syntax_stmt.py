"""The syntax tree: statements. The laws are in ``syntax``."""

from __future__ import annotations

from dataclasses import dataclass, field

from userfw.nft.syntax_expr import Expr, Node, SetElemExpr, SetRefExpr


@dataclass(slots=True, kw_only=True)
class Stmt(Node):
    """A statement of a rule (or of a set element)."""


@dataclass(slots=True)
class MatchStmt(Stmt):
    """An expression as a statement: RelationalExpr, FlagcmpExpr."""

    expr: Expr


@dataclass(slots=True)
class VerdictStmt(Stmt):
    """VerdictExpr, or MapExpr with ``vmap``."""

    expr: Expr


@dataclass(slots=True)
class MangleStmt(Stmt):
    """``TARGET set VALUE``: target PayloadExpr, RawPayloadExpr, ExthdrExpr, TcpOptionExpr, MetaExpr, CtExpr."""

    target: Expr
    value: Expr


@dataclass(slots=True)
class OptstripStmt(Stmt):
    """``reset tcp option NAME``."""

    target: Expr


@dataclass(slots=True)
class NotrackStmt(Stmt):
    """``notrack``."""


@dataclass(slots=True)
class CounterStmt(Stmt):
    """``counter [packets N bytes M]``."""

    packets: int = 0
    bytes: int = 0


@dataclass(slots=True)
class QuotaStmt(Stmt):
    """``quota [over|until] N UNIT [used M UNIT]``; bytes."""

    bytes: int
    used: int = 0
    over: bool = False


@dataclass(slots=True)
class LimitStmt(Stmt):
    """``limit rate [over] N[ UNIT]/TIME [burst M …]``: ``per`` one of second minute hour day week; burst None is the
    default
    (5 packets, no bytes)."""

    rate: int
    per: str
    bytes: bool = False
    burst: int | None = None
    over: bool = False


@dataclass(slots=True)
class LastStmt(Stmt):
    """``last [used T]``: milliseconds since the last use, None never."""

    used: int | None = None


@dataclass(slots=True)
class ConnlimitStmt(Stmt):
    """``ct count [over] N``."""

    count: int
    over: bool = False


@dataclass(slots=True)
class ObjrefStmt(Stmt):
    """Use of a named object: kind ``counter quota limit``, ``ct helper``, ``ct timeout``, ``ct expectation``,
    ``synproxy``, ``secmark``, ``tunnel``;
    expr a SymbolExpr/ConstantExpr (the name) or a MapExpr."""

    kind: str
    expr: Expr


@dataclass(slots=True)
class LogStmt(Stmt):
    """``log [prefix …] [level …] [flags …] [group N [snaplen N] [queue-threshold N]]``; flags ``tcp
    sequence``→``tcp-sequence``, ``tcp options``→``tcp-options``, ``ip options``→``ip-options``, ``skuid``, ``ether``,
    ``all``."""

    prefix: str | None = None
    level: str | None = None
    group: int | None = None
    snaplen: int | None = None
    queue_threshold: int | None = None
    flags: tuple[str, ...] = ()


@dataclass(slots=True)
class RejectStmt(Stmt):
    """``reject [with …]``: kind None, ``tcp reset``, ``icmp``, ``icmpv6``, ``icmpx``; code the type's name or number.
    A plain ``reject`` has neither."""

    kind: str | None = None
    code: Expr | None = None


@dataclass(slots=True)
class NatStmt(Stmt):
    """``snat dnat masquerade redirect``. ``family`` as written after the verb (``dnat ip to``), ``form`` of the new
    address: ``""``, ``prefix``, ``interval``, ``concat``.
    ``addr`` may be a MapExpr that yields address and port; ``port`` an expression or None; flags ``random
    fully-random persistent``."""

    kind: str
    family: str | None = None
    form: str = ""
    addr: Expr | None = None
    port: Expr | None = None
    flags: tuple[str, ...] = ()


@dataclass(slots=True)
class TproxyStmt(Stmt):
    """``tproxy [ip|ip6] to [addr][:port]``."""

    family: str | None = None
    addr: Expr | None = None
    port: Expr | None = None


@dataclass(slots=True)
class SynproxyStmt(Stmt):
    """``synproxy [mss N] [wscale N] [timestamp] [sack-perm]``."""

    mss: int | None = None
    wscale: int | None = None
    timestamp: bool = False
    sack_perm: bool = False


@dataclass(slots=True)
class DupStmt(Stmt):
    """``dup to ADDR [device DEV]`` (ip, ip6) and ``dup to DEV`` (netdev: ``to`` is the device)."""

    to: Expr
    dev: Expr | None = None


@dataclass(slots=True)
class FwdStmt(Stmt):
    """``fwd [ip|ip6] to [ADDR device] DEV``."""

    dev: Expr
    addr: Expr | None = None
    family: str | None = None


@dataclass(slots=True)
class QueueStmt(Stmt):
    """``queue [flags bypass,fanout] [to EXPR]``: number, range, numgen/hash or map expression; None is queue 0."""

    expr: Expr | None = None
    flags: tuple[str, ...] = ()


@dataclass(slots=True)
class FlowStmt(Stmt):
    """``flow add @name``."""

    name: str


@dataclass(slots=True)
class SetUpdateStmt(Stmt):
    """``add|update|delete @set { key [timeout T] [stmts] }``; the element's own data is on ``elem`` (key, timeout,
    comment)
    and the statements after it in ``stmts``."""

    op: str
    set: SetRefExpr
    elem: SetElemExpr
    stmts: list[Stmt] = field(default_factory=list)


@dataclass(slots=True)
class MapUpdateStmt(Stmt):
    """``add|update|delete @map { key : data }``."""

    op: str
    map: SetRefExpr
    elem: SetElemExpr
    data: Expr
    stmts: list[Stmt] = field(default_factory=list)


@dataclass(slots=True)
class MeterStmt(Stmt):
    """``meter NAME [size N] { key stmt }``: nft's older way to write a dynamic set."""

    name: str
    elem: SetElemExpr
    stmts: list[Stmt]
    size: int | None = None


@dataclass(slots=True)
class XtStmt(Stmt):
    """``xt TYPE NAME``: an iptables extension left by another tool; can be listed, never added."""

    kind: str
    name: str
