"""What the checker knows while it walks a rule: which protocols are known, what was put in front, what the outside answers.

Laws:
- ``Resolver`` is all that the checker and the lowering ask of the ruleset; it answers from the state that the
  transaction has reached (its own earlier commands included).
- ``ProtoContext`` follows nft's: one known protocol for each base, several alternatives for transports (after a set),
  and the stack of link layers.
- Errors inside a rule are raised as ``NftError`` at once; ``check`` collects them rule by rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn
from typing import Protocol as TypingProtocol

from userfw.nft import proto
from userfw.nft.datatype import DEFAULT_NAMES, Names
from userfw.nft.location import Location, NftError
from userfw.nft.syntax import ChainBlock, Expr, FlowtableBlock, ObjectBlock, SetBlock, Stmt


class Resolver(TypingProtocol):
    """The names of a ruleset. Sets and chains are checked blocks (``SetBlock.key_dtype`` is there)."""

    names: Names

    def has_table(self, family: str, table: str) -> bool:
        """Whether the table exists."""

    def set_of(self, family: str, table: str, name: str) -> SetBlock | None:
        """The set or map of that name."""

    def chain_of(self, family: str, table: str, name: str) -> ChainBlock | None:
        """The chain of that name."""

    def object_of(self, family: str, table: str, kind: str, name: str) -> ObjectBlock | None:
        """The stateful object of that kind and name."""

    def flowtable_of(self, family: str, table: str, name: str) -> FlowtableBlock | None:
        """The flowtable of that name."""

    def like(self, family: str, table: str, name: str) -> str:
        """A question that names the set or map that was perhaps meant, or ""."""


class NothingThere:
    """A resolver of an empty ruleset: for tests and for ``describe``."""

    def __init__(self, names: Names = DEFAULT_NAMES) -> None:
        self.names = names

    def has_table(self, family: str, table: str) -> bool:
        return True

    def set_of(self, family: str, table: str, name: str) -> SetBlock | None:
        return None

    def chain_of(self, family: str, table: str, name: str) -> ChainBlock | None:
        return None

    def object_of(self, family: str, table: str, kind: str, name: str) -> ObjectBlock | None:
        return None

    def flowtable_of(self, family: str, table: str, name: str) -> FlowtableBlock | None:
        return None

    def like(self, family: str, table: str, name: str) -> str:
        return ""


@dataclass(frozen=True)
class ChainInfo:
    """Where a rule stands: its table, chain, and for a base chain (or one reached from it only) type and hook."""

    table: str = ""
    chain: str = ""
    type: str | None = None
    hook: str | None = None


def fail(node: Expr | Stmt | Location, message: str, *also: Location) -> NoReturn:
    """Raise the error that points at ``node``."""
    raise NftError(message, node if isinstance(node, Location) else node.loc, also=also)


class ProtoContext:
    """Known protocols by base."""

    __slots__ = ("family", "ih", "ll", "nh", "nh_asked", "stacked", "th", "th_choices")

    def __init__(self, family: str) -> None:
        self.family = family
        self.ll: proto.Protocol | None = None
        self.nh: proto.Protocol | None = None
        self.th: proto.Protocol | None = None
        self.ih: proto.Protocol | None = None
        self.th_choices: list[proto.Protocol] = []
        self.nh_asked = False
        """Whether the rule itself has said what the network layer is."""
        self.stacked: list[proto.Protocol] = []
        known = proto.FAMILY_PROTOCOL[family]
        setattr(self, known.base, known)

    def get(self, base: str) -> proto.Protocol | None:
        found: proto.Protocol | None = getattr(self, base)
        return found

    def update(self, base: str, protocol: proto.Protocol) -> None:
        """``protocol`` is now known to lie at ``base``."""
        if base == "th" and protocol not in self.th_choices:
            self.th_choices.append(protocol)
        elif base == "nh":
            self.nh_asked = True
        setattr(self, base, protocol)

    def stack_offset(self, known: proto.Protocol) -> int:
        """Bits that link layers before this one take (VLAN tags in front of tags)."""
        total = 0
        for layer in self.stacked:
            if layer is known and layer is not proto.VLAN:
                break
            total += layer.length
        return total


UNKNOWN = proto.Protocol("unknown", "th")


def meta_update(ctx: ProtoContext, key: str, value: int) -> None:
    """What ``meta key value`` tells (Linux counterpart in nft: meta_expr_pctx_update)."""
    family = ctx.family
    home = proto.FAMILY_PROTOCOL[family]
    if key in ("iiftype", "oiftype"):
        if home.base == "ll" and family not in ("inet", "netdev"):
            return
        ctx.update("ll", proto.ETHER if value == 1 else UNKNOWN)
    elif key == "nfproto":
        if (value, family) in ((2, "ip"), (10, "ip6")):
            return
        ctx.update("nh", {2: proto.IP, 10: proto.IP6}.get(value, UNKNOWN) if family in ("inet", "bridge", "netdev") else UNKNOWN)
    elif key == "l4proto":
        ctx.update("th", proto.INET_SERVICE_LAYER.uppers.get(value, UNKNOWN))
    elif key == "protocol" and family in ("netdev", "bridge"):
        ctx.update("nh", home.uppers.get(value, UNKNOWN))


def payload_update(ctx: ProtoContext, field: proto.Field, value: int) -> None:
    """What a protocol key field tells when it equals ``value`` (nft: payload_expr_pctx_update)."""
    base = proto.PROTOCOLS[field.protocol]
    upper = base.uppers.get(value)
    if upper is None:
        return
    if upper.base == base.base and upper.base == "ll" and len(ctx.stacked) < 16:
        ctx.stacked.append(base)
    ctx.update(upper.base, upper)
