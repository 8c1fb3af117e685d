"""The syntax tree: rules, chains, sets, objects, tables and commands. The laws are in ``syntax``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from userfw.nft.location import NOWHERE, Location
from userfw.nft.syntax_expr import Expr, Node, SetElemExpr
from userfw.nft.syntax_stmt import Stmt


@dataclass(slots=True)
class Priority(Node):
    """``priority NAME [+-N]`` or ``priority N``; the checker resolves ``value`` for the family and hook."""

    name: str | None
    offset: int
    value: int | None = None


@dataclass(slots=True)
class RuleBlock(Node):
    """One rule."""

    stmts: list[Stmt]
    comment: str | None = None
    handle: int | None = None


@dataclass(slots=True)
class ChainBlock(Node):
    """A chain; regular when ``hook`` is None. ``name`` is empty for a bound anonymous chain. ``devices`` may contain
    wildcards.
    ``flags``: ``offload``."""

    name: str
    type: str | None = None
    hook: str | None = None
    priority: Priority | None = None
    devices: list[str] = field(default_factory=list)
    policy: str | None = None
    flags: tuple[str, ...] = ()
    comment: str | None = None
    rules: list[RuleBlock] = field(default_factory=list)
    handle: int | None = None


@dataclass(slots=True)
class SetBlock(Node):
    """A named set, or a map when ``data`` or ``objtype`` is given. ``flags``: ``constant interval timeout dynamic``.
    The checker fills ``key_dtype`` and ``data_dtype``."""

    name: str
    is_map: bool = False
    key: Expr | None = None
    data: Expr | None = None
    data_interval: bool = False
    objtype: str | None = None
    flags: tuple[str, ...] = ()
    timeout: int | None = None
    gc_interval: int | None = None
    size: int | None = None
    policy: str | None = None
    auto_merge: bool = False
    stmts: list[Stmt] = field(default_factory=list)
    elements: Sequence[SetElemExpr] = field(default_factory=list)
    comment: str | None = None
    handle: int | None = None
    meter: bool = False
    key_dtype: Any = field(default=None, compare=False)
    data_dtype: Any = field(default=None, compare=False)


@dataclass(slots=True)
class FlowtableBlock(Node):
    """``flowtable NAME { hook ingress priority P; devices = {…}; flags offload; counter }``."""

    name: str
    hook: str | None = None
    priority: Priority | None = None
    devices: list[str] = field(default_factory=list)
    flags: tuple[str, ...] = ()
    counter: bool = False
    handle: int | None = None


@dataclass(slots=True)
class ObjectBlock(Node):
    """A named object. ``kind`` as in ObjrefStmt. ``body`` is one of CounterStmt, QuotaStmt, LimitStmt, SynproxyStmt,
    ConnlimitStmt or
    the classes below; None when only the name was given (``delete counter t c``)."""

    kind: str
    name: str
    body: Stmt | ObjectBody | None = None
    comment: str | None = None
    handle: int | None = None


@dataclass(slots=True, kw_only=True)
class ObjectBody(Node):
    """What an object holds that is not a statement."""


@dataclass(slots=True)
class CtHelperBody(ObjectBody):
    """``type "ftp" protocol tcp; l3proto ip``."""

    helper: str
    protocol: str
    l3proto: str | None = None


@dataclass(slots=True)
class CtTimeoutBody(ObjectBody):
    """``protocol tcp; l3proto ip; policy = { established : 120 }``; seconds by state name."""

    protocol: str
    l3proto: str | None = None
    policy: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class CtExpectationBody(ObjectBody):
    """``protocol tcp; dport N; timeout T (milliseconds); size N; l3proto ip``."""

    protocol: str
    dport: int
    timeout: int
    size: int
    l3proto: str | None = None


@dataclass(slots=True)
class SecmarkBody(ObjectBody):
    """A security context."""

    context: str


@dataclass(slots=True)
class TunnelBody(ObjectBody):
    """``id saddr/daddr sport dport tos ttl`` and one of vxlan, erspan, geneve."""

    id: int | None = None
    family: str | None = None
    saddr: Expr | None = None
    daddr: Expr | None = None
    sport: int | None = None
    dport: int | None = None
    tos: int | None = None
    ttl: int | None = None
    vxlan_gbp: int | None = None
    erspan_version: int | None = None
    erspan_index: int | None = None
    erspan_direction: str | None = None
    erspan_hwid: int | None = None
    geneve: list[tuple[int, int, bytes]] | None = None


@dataclass(slots=True)
class TableBlock(Node):
    """A table with what its block holds, each kind in the order written. ``flags``: ``dormant owner persist``."""

    family: str
    name: str
    flags: tuple[str, ...] = ()
    comment: str | None = None
    objects: list[ObjectBlock] = field(default_factory=list)
    sets: list[SetBlock] = field(default_factory=list)
    flowtables: list[FlowtableBlock] = field(default_factory=list)
    chains: list[ChainBlock] = field(default_factory=list)
    handle: int | None = None
    declared: bool = False
    """Whether braces were written (``add table t`` has none)."""


@dataclass(slots=True)
class ElementsBlock(Node):
    """The elements of ``add element …``."""

    elements: Sequence[SetElemExpr]


@dataclass(slots=True)
class HooksSpec(Node):
    """``list hooks [family] [hook H] [device D]``."""

    hook: str | None = None
    device: str | None = None


@dataclass(slots=True)
class MonitorSpec(Node):
    """``monitor [new|destroy] [tables|chains|sets|rules|elements|ruleset|trace] [xml|json|vm]``."""

    event: str | None = None
    objects: str | None = None
    format: str | None = None


@dataclass(slots=True)
class DescribeSpec(Node):
    """``describe EXPR``; a SymbolExpr names a data type."""

    expr: Expr


Payload = (
    TableBlock
    | ChainBlock
    | RuleBlock
    | SetBlock
    | ElementsBlock
    | FlowtableBlock
    | ObjectBlock
    | HooksSpec
    | MonitorSpec
    | DescribeSpec
)


@dataclass(slots=True)
class Command(Node):
    """One command.

    ``op``: ``add create insert replace delete destroy get list reset flush rename describe monitor import export``.
    ``obj``: singular for one (``table chain rule set map meter element flowtable counter quota limit``, ``ct
    helper``, ``ct timeout``,
    ``ct expectation``, ``synproxy secmark tunnel``), plural for all of a kind in a family or table (``tables chains
    rules sets maps meters flowtables counters quotas limits``,
    ``ct helpers``, ``ct timeouts``, ``ct expectations``, ``synproxys secmarks tunnels``), else ``ruleset hooks``.
    ``table``/``name``: the table and the chain, set, flowtable or object; a table's own name is in ``table``.
    ``handle``, ``index`` and ``position`` place a rule
    (``index`` counts from 0) or name a thing to delete. ``name_loc``/``table_loc`` are for errors such as "No such
    file or directory".
    """

    op: str
    obj: str
    family: str | None = None
    table: str | None = None
    name: str | None = None
    handle: int | None = None
    index: int | None = None
    position: int | None = None
    node: Payload | None = None
    new_name: str | None = None
    flags: tuple[str, ...] = ()
    table_loc: Location = field(default=NOWHERE, compare=False, repr=False)
    name_loc: Location = field(default=NOWHERE, compare=False, repr=False)
    handle_loc: Location = field(default=NOWHERE, compare=False, repr=False)

    def with_node(self, node: Payload) -> Command:
        """The same command with another node; what ``replace`` does, in a fifth of its time."""
        other: Command = object.__new__(Command)
        for name in _COMMAND_FIELDS:
            setattr(other, name, getattr(self, name))
        other.node = node
        return other


_COMMAND_FIELDS = tuple(entry.name for entry in fields(Command))
