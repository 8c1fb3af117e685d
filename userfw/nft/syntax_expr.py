"""The syntax tree: nodes and expressions. The laws are in ``syntax``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from userfw.nft.location import NOWHERE, Location

if TYPE_CHECKING:
    from userfw.nft.syntax_block import ChainBlock
    from userfw.nft.syntax_stmt import Stmt


@dataclass(slots=True, kw_only=True)
class Node:
    """Anything that was written somewhere."""

    loc: Location = field(default=NOWHERE, compare=False, repr=False)


@dataclass(slots=True, kw_only=True)
class Expr(Node):
    """An expression. ``dtype`` is set by the checker; ``width`` (bits) too where the type alone does not tell."""

    dtype: Any = field(default=None, compare=False, repr=False)
    width: int = field(default=0, compare=False, repr=False)


@dataclass(slots=True)
class SymbolExpr(Expr):
    """A word as written: a name, an address, a quoted string (``quoted``), ``eth*``. Untyped trees only."""

    name: str
    quoted: bool = False


@dataclass(slots=True)
class ConstantExpr(Expr):
    """A value. Untyped: an int as scanned. Checked: an int (host order, the mathematical value) or bytes (strings,
    unpadded)."""

    value: int | bytes


@dataclass(slots=True)
class RangeExpr(Expr):
    """``left-right``, both included."""

    left: Expr
    right: Expr


@dataclass(slots=True)
class PrefixExpr(Expr):
    """``expr/length``; length in bits from the left. A checked wildcard string (``"eth*"``) is a prefix of a string
    constant."""

    expr: Expr
    length: int


@dataclass(slots=True)
class CatchAllExpr(Expr):
    """``*`` as a set element."""


@dataclass(slots=True)
class ListExpr(Expr):
    """``a,b,c`` outside braces."""

    items: list[Expr]


@dataclass(slots=True)
class ConcatExpr(Expr):
    """``a . b . c``."""

    items: list[Expr]


@dataclass(slots=True)
class SetElemExpr(Expr):
    """One element: key, for maps its data, and what belongs to the element alone."""

    key: Expr
    data: Expr | None = None
    stmts: list[Stmt] = field(default_factory=list)
    timeout: int | None = None
    expires: int | None = None
    comment: str | None = None


@dataclass(slots=True)
class SetExpr(Expr):
    """``{ … }``: an anonymous set or map in a rule, or the elements of a named one. Nested sets of a variable appear
    as elements whose key is a SetExpr."""

    elements: Sequence[SetElemExpr]


@dataclass(slots=True)
class SetRefExpr(Expr):
    """``@name``. The checker puts the set (its SetBlock) into ``target``."""

    name: str
    target: Any = field(default=None, compare=False, repr=False)


@dataclass(slots=True)
class VerdictExpr(Expr):
    """``accept drop continue return queue break`` and ``jump goto``, with a chain by name or a bound anonymous
    chain."""

    kind: str
    chain: str | None = None
    block: ChainBlock | None = None


@dataclass(slots=True)
class BinopExpr(Expr):
    """``left op right`` with op one of ``& | ^ << >>``."""

    op: str
    left: Expr
    right: Expr


@dataclass(slots=True)
class UnaryExpr(Expr):
    """``hton``/``ntoh``: a byte order step put in by the checker; printed as its argument."""

    op: str
    arg: Expr


@dataclass(slots=True)
class RelationalExpr(Expr):
    """A match. ``op`` as written: ``""`` (implicit), ``== != < > <= >=`` or ``!`` (no bit set). The checker resolves
    ``""`` to ``""`` for bit tests and ``==`` otherwise, and
    ``in``/``!=`` semantics for sets stay with the right-hand side."""

    op: str
    left: Expr
    right: Expr


@dataclass(slots=True)
class FlagcmpExpr(Expr):
    """``expr flags / mask``: ``tcp flags syn / syn,ack``; op ``==`` or ``!=``."""

    op: str
    expr: Expr
    mask: Expr
    value: Expr


@dataclass(slots=True)
class MapExpr(Expr):
    """``key map mapping`` and, with ``vmap``, ``key vmap mapping``; mapping is a SetExpr or SetRefExpr."""

    key: Expr
    mapping: Expr
    vmap: bool = False


@dataclass(slots=True)
class PayloadExpr(Expr):
    """A header field by name: ``tcp dport``. Protocol keyword ``ether vlan arp ip icmp igmp ip6 icmpv6 ah esp comp
    udp udplite tcp dccp sctp th gre
    vxlan geneve gretap …``; field is the keyword after it. ``inner``: the tunnel in which it lies (``vxlan ip saddr``).
    The checker fills ``base`` (``ll nh th ih``), ``offset`` and ``width``."""

    protocol: str
    field: str
    inner: str | None = None
    base: str = ""
    offset: int = -1


@dataclass(slots=True)
class RawPayloadExpr(Expr):
    """``@nh,offset,length`` in bits; base is one of ``ll nh th ih``."""

    base: str
    offset: int
    length: int
    inner: str | None = None


@dataclass(slots=True)
class ExthdrExpr(Expr):
    """IPv6 extension header ``hbh rt rt0 rt2 srh frag dst mh``; ``field`` None is the existence test ``exthdr hbh``."""

    header: str
    field: str | None
    inner: str | None = None


@dataclass(slots=True)
class IpOptionExpr(Expr):
    """``ip option lsrr|rr|ssrr|ra [field]``; field None is the existence test."""

    option: str
    field: str | None


@dataclass(slots=True)
class TcpOptionExpr(Expr):
    """``tcp option NAME [field]``: ``option`` a name (``maxseg``, ``sack0`` …) or a kind number, field None the
    existence test; raw ``tcp option @kind,offset,length`` (bits) has ``raw``."""

    option: str | int
    field: str | None
    raw: tuple[int, int] | None = None


@dataclass(slots=True)
class SctpChunkExpr(Expr):
    """``sctp chunk TYPE [field]``."""

    chunk: str
    field: str | None


@dataclass(slots=True)
class DccpOptionExpr(Expr):
    """``dccp option N``."""

    number: int


@dataclass(slots=True)
class MetaExpr(Expr):
    """``meta key`` (also the unqualified forms): key is nft's own spelling, ``iifname``, ``l4proto``, ``ibrname``, …
    ``inner`` as in PayloadExpr."""

    key: str
    inner: str | None = None


@dataclass(slots=True)
class CtExpr(Expr):
    """``ct [original|reply] [ip|ip6] key``; key as nft lists it: ``state direction status mark expiration helper
    l3proto saddr daddr protocol proto-src
    proto-dst label packets bytes avgpkt zone event id count timeout secmark``."""

    key: str
    direction: str | None = None
    family: str | None = None
    implied: bool = field(default=False, compare=False)
    """The family was not written but follows from the rule: text shows it, JSON does not."""


@dataclass(slots=True)
class RtExpr(Expr):
    """``rt [ip|ip6] classid|nexthop|mtu|ipsec``."""

    key: str
    family: str | None = None


@dataclass(slots=True)
class FibExpr(Expr):
    """``fib saddr . iif oif``: flags of ``saddr daddr mark iif oif``, result ``oif oifname type check``."""

    flags: tuple[str, ...]
    result: str


@dataclass(slots=True)
class SocketExpr(Expr):
    """``socket transparent|mark|wildcard|cgroupv2 level N``."""

    key: str
    level: int | None = None


@dataclass(slots=True)
class OsfExpr(Expr):
    """``osf [ttl loose|skip] name|version``."""

    key: str
    ttl: str | None = None


@dataclass(slots=True)
class NumgenExpr(Expr):
    """``numgen inc|random mod N [offset M]``."""

    mode: str
    modulus: int
    offset: int = 0


@dataclass(slots=True)
class HashExpr(Expr):
    """``jhash EXPR mod N [seed S] [offset M]`` and ``symhash mod N [offset M]`` (expr None)."""

    kind: str
    expr: Expr | None
    modulus: int
    seed: int | None = None
    offset: int = 0


@dataclass(slots=True)
class XfrmExpr(Expr):
    """``ipsec in|out [spnum N] reqid|spi|ip saddr|ip6 daddr …``; family for addresses only."""

    direction: str
    key: str
    family: str | None = None
    spnum: int = 0


@dataclass(slots=True)
class TunnelExpr(Expr):
    """``tunnel path|id``."""

    key: str


@dataclass(slots=True)
class TypeExpr(Expr):
    """``type a . b``: the names of data types, in order. ``verdict`` is one of them."""

    names: list[str]


@dataclass(slots=True)
class TypeofExpr(Expr):
    """``typeof EXPR``: a load, a concatenation of loads; ``verdict`` is a TypeExpr."""

    expr: Expr
