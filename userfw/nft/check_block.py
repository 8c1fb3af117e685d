"""Checking declarations: chains, sets and maps, flowtables, stateful objects, and the elements of named sets.

Laws:
- Priorities become numbers here; names that a family or hook does not have are refused with Linux's numbers in mind.
- ``SetBlock.key_dtype`` and ``data_dtype`` are filled; elements are values. A set that is declared again must agree.
- What needs the rest of the ruleset (does it exist already, is it in use) is the ruleset's to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from userfw.nft.check_context import ChainInfo, Resolver, fail
from userfw.nft.check_set import STATEFUL, sort_intervals
from userfw.nft.check_stmt import RuleChecker
from userfw.nft.check_value import listed_typeof
from userfw.nft.datatype import Datatype
from userfw.nft.datatype_tables import (
    IPV4_ADDR,
    IPV6_ADDR,
    TYPES,
    VERDICT,
    ConcatType,
    concat_type,
    integer,
    joined_type,
)
from userfw.nft.element_run import ElementRun
from userfw.nft.syntax import (
    ChainBlock,
    Command,
    ConcatExpr,
    ConstantExpr,
    CtExpectationBody,
    CtHelperBody,
    CtTimeoutBody,
    ElementsBlock,
    Expr,
    FlowtableBlock,
    LimitStmt,
    ObjectBlock,
    Priority,
    SetBlock,
    SetElemExpr,
    SynproxyStmt,
    TunnelBody,
    TypeExpr,
    TypeofExpr,
)

_INET_HOOKS = ("prerouting", "input", "forward", "output", "postrouting")
HOOKS: dict[str, tuple[str, ...]] = {
    "ip": _INET_HOOKS,
    "ip6": _INET_HOOKS,
    "inet": (*_INET_HOOKS, "ingress"),
    "arp": ("input", "output"),
    "bridge": _INET_HOOKS,
    "netdev": ("ingress", "egress"),
}
_STANDARD = {"raw": -300, "mangle": -150, "dstnat": -100, "filter": 0, "security": 50, "srcnat": 100}
_BRIDGE = {"dstnat": -300, "filter": -200, "out": 100, "srcnat": 300}
_NAT_HOOKS = ("prerouting", "input", "output", "postrouting")
_CT_STATES: dict[str, frozenset[str]] = {
    "tcp": frozenset((
        "syn_sent", "syn_recv", "established", "fin_wait", "close_wait", "last_ack", "time_wait", "close", "syn_sent2",
        "retrans", "unack",
    )),
    "udp": frozenset(("unreplied", "replied")),
}  # fmt: skip
_MAX_KEY = 512


class BlockChecker:
    """Declarations of one table."""

    def __init__(self, family: str, table: str, resolver: Resolver) -> None:
        self.family = family
        self.table = table
        self.resolver = resolver

    def checker(self) -> RuleChecker:
        """A checker for expressions outside rules."""
        return RuleChecker(self.family, ChainInfo(self.table), self.resolver)

    # --- chains

    def chain(self, node: ChainBlock) -> ChainBlock:
        """A chain without its rules."""
        if node.hook is None:
            known = self.resolver.chain_of(self.family, self.table, node.name)
            if (node.policy is not None or node.devices) and (known is None or known.hook is None):
                fail(node.loc, "No such file or directory: a policy or devices need a hook, or a base chain that is there already")
            return replace(node, rules=[])
        family, hook = self.family, node.hook
        if hook not in HOOKS[family]:
            fail(node.loc, f"The {family} family does not support the {hook} hook")
        if node.type == "nat" and (family not in ("ip", "ip6", "inet") or hook not in _NAT_HOOKS):
            fail(node.loc, f"Chain of type nat is not supported at the {hook} hook of family {family}")
        if node.type == "route" and (family not in ("ip", "ip6", "inet") or hook != "output"):
            fail(node.loc, f"Chain of type route is not supported at the {hook} hook of family {family}")
        if node.devices and hook not in ("ingress", "egress"):
            fail(node.loc, f"This chain type cannot be bound to device: hook {hook}")
        if hook == "ingress" and family == "inet" and not node.devices:
            fail(node.loc, "The inet ingress hook needs a device")
        if node.priority is None:
            fail(node.loc, "you must specify a priority for a base chain")
        priority = self._priority(node.priority, hook)
        value = priority.value
        assert value is not None
        if node.type == "nat" and value <= -200:
            fail(node.priority.loc, "nat chains need a priority above -200, after connection tracking")
        if "offload" in node.flags and (family, hook) != ("netdev", "ingress"):
            fail(node.loc, "flags offload is for ingress chains of family netdev")
        return replace(node, priority=priority, policy=node.policy, rules=[])

    def _priority(self, node: Priority, hook: str) -> Priority:
        if node.name is None:
            return replace(node, value=node.offset)
        table = _BRIDGE if self.family == "bridge" else {"filter": 0} if self.family in ("arp", "netdev") else _STANDARD
        base = table.get(node.name)
        if base is None or not self._fits(node.name, hook):
            fail(node.loc, f"'{node.name}' is invalid priority in this context.")
        value = base + node.offset
        if not -(1 << 31) <= value < 1 << 31:
            fail(node.loc, "priority out of range")
        return replace(node, value=value)

    def _fits(self, name: str, hook: str) -> bool:
        if name == "dstnat":
            return hook in ("prerouting", "output")
        if name == "srcnat":
            return hook in ("postrouting", "input")
        if name == "out":
            return hook == "output"
        return True

    # --- flowtables

    def flowtable(self, node: FlowtableBlock) -> FlowtableBlock:
        """A flowtable with its priority as a number."""
        if node.hook is None:
            if self.resolver.flowtable_of(self.family, self.table, node.name) is None:
                fail(node.loc, "missing hook and priority in flowtable declaration")
            return node
        if self.family not in ("ip", "ip6", "inet"):
            fail(node.loc, f"flowtables are not supported in family {self.family}")
        if node.priority is None:
            fail(node.loc, "you must specify a priority for a flowtable")
        name = node.priority.name
        if name is not None and name not in _STANDARD:
            fail(node.priority.loc, f"invalid priority expression '{name}'")
        value = node.priority.offset + (0 if name is None else _STANDARD[name])
        return replace(node, priority=replace(node.priority, value=value))

    # --- sets

    def set(self, node: SetBlock, known: SetBlock | None) -> SetBlock:
        """A set or map with types and elements."""
        checker = self.checker()
        if node.key is None:
            fail(node.loc, "map definition does not specify key" if node.is_map else "set definition does not specify key")
        key = self._type(node.key, checker)
        if key is VERDICT:
            fail(node.key, "verdict cannot be the key of a set or map")
        data, objtype = self._data(node, checker)
        interval = "interval" in node.flags
        if isinstance(key, ConcatType) and key.octets > _MAX_KEY // 8:
            fail(node.key, f"concatenation of {key.width} bits is too long")
        if node.timeout == 0:
            fail(node.loc, "timeout must be greater than zero")
        for stmt in node.stmts:
            if not isinstance(stmt, STATEFUL):
                fail(stmt, "statement is not stateful")
        flags = node.flags
        if node.timeout is not None and "timeout" not in flags:
            flags = (*flags, "timeout")
        if node.auto_merge and not interval:
            fail(node.loc, "auto-merge only works with interval sets")
        if "constant" in flags and "dynamic" in flags:
            fail(node.loc, "a set cannot be constant and dynamic")
        checked = replace(
            node, flags=_ordered(flags), objtype=objtype, elements=[], stmts=[checker.stmt(stmt) for stmt in node.stmts],
            key_dtype=key, data_dtype=data, key=listed_typeof(node.key),
        )  # fmt: skip
        if known is not None:
            self._agree(checked, known)
        if node.elements:
            source: Datatype | str | None = objtype if objtype is not None else data
            elements = checker.elements(
                node.elements, key, source if node.is_map else None, interval=interval, data_interval=node.data_interval
            )
            checked.elements = self._settle(checked, elements)
        return checked

    def _agree(self, new: SetBlock, known: SetBlock) -> None:
        same_key = new.key_dtype.same(known.key_dtype)
        same_data = (new.data_dtype is None) == (known.data_dtype is None)
        if new.is_map != known.is_map or not same_key or not same_data or new.objtype != known.objtype:
            fail(new.loc, "File exists; a set of this name with other types is there already")

    def _type(self, node: Expr, checker: RuleChecker) -> Datatype:
        if isinstance(node, TypeExpr):
            return self._named_type(node)
        if not isinstance(node, TypeofExpr):
            fail(node, "type or typeof expected")
        parts = node.expr.items if isinstance(node.expr, ConcatExpr) else [node.expr]
        kinds = tuple(self._typeof_part(part, checker) for part in parts)
        return kinds[0] if len(kinds) == 1 else concat_type(kinds)

    def _typeof_part(self, node: Expr, checker: RuleChecker) -> Datatype:
        """The type of a load, whatever protocols it would need."""
        probe = RuleChecker(self.family, checker.chain, self.resolver)
        found = probe.typeof(node)
        if found.width == 0:
            fail(node, f"expression type {found.name} of unknown size cannot be a key")
        return found

    def _named_type(self, node: TypeExpr) -> Datatype:
        kinds = []
        for name in node.names:
            word, comma, bits = name.partition(",")
            kind = TYPES.get(word)
            if kind is None:
                fail(node, f"unknown datatype {word}")
            if kind is VERDICT:
                if len(node.names) > 1:
                    fail(node, "verdict cannot be part of a concatenation")
                return VERDICT
            if comma and kind.width == 0:
                kind = integer(int(bits)) if word == "integer" else kind.sized(int(bits), kind.byteorder)
            if kind.width == 0:
                fail(
                    node,
                    f'unqualified type {word} specified in set definition. Try "typeof expression" instead of "type datatype".',
                )
            kinds.append(kind)
        if len(kinds) > 15:
            fail(node, "concatenation of too many types")
        return kinds[0] if len(kinds) == 1 else concat_type(tuple(kinds))

    def _data(self, node: SetBlock, checker: RuleChecker) -> tuple[Datatype | None, str | None]:
        if not node.is_map:
            return None, None
        if node.objtype is not None:
            return None, node.objtype
        if node.data is None:
            fail(node.loc, "map definition does not specify mapping data type")
        data = self._type(node.data, checker)
        if node.data_interval and data is VERDICT:
            fail(node.loc, "verdict maps have no interval data")
        return data, None

    def _settle(self, node: SetBlock, elements: Sequence[SetElemExpr]) -> Sequence[SetElemExpr]:
        """Elements of one declaration or command: ranges are sorted, and merged if the set says so."""
        if isinstance(elements, ElementRun):
            if "interval" not in node.flags:
                return elements
            ordered = elements.in_order(merge=node.auto_merge)
            return sort_intervals(list(elements), merge=False) if ordered is None else ordered
        self._statements(node, elements)
        if node.key_dtype.is_bitmask:
            elements = [_joined(elem) for elem in elements]
        if "interval" not in node.flags or isinstance(node.key_dtype, ConcatType):
            return elements
        if node.auto_merge:
            return sort_intervals(list(elements), merge=True)
        if all(type(elem.key) is ConstantExpr for elem in elements):
            return elements
        return sort_intervals(list(elements), merge=False)

    def _statements(self, node: SetBlock, elements: Sequence[SetElemExpr]) -> None:
        """Elements may only carry statements that the set declares, in their order."""
        if "dynamic" in node.flags and not node.stmts:
            return
        for elem in elements:
            if elem.stmts:
                if len(elem.stmts) > len(node.stmts):
                    fail(elem.stmts[len(node.stmts)], "missing statement in set declaration")
                for mine, its in zip(elem.stmts, node.stmts, strict=False):
                    if type(mine) is not type(its):
                        fail(mine, "statement mismatch: the set declares another one")

    def element_command(self, node: ElementsBlock, command: Command) -> ElementsBlock:
        """``add element …`` and its like."""
        known = self.resolver.set_of(self.family, self.table, command.name or "")
        if known is None:
            place = command.name_loc if command.name_loc.known else command.loc
            fail(place, f"No such file or directory; set '{command.name}' does not exist in table {self.family} '{self.table}'")
        checker = self.checker()
        data: Datatype | str | None = known.objtype if known.objtype is not None else known.data_dtype
        wants_data = known.is_map and command.op in ("add", "create", "insert", "replace")
        nodes = node.elements
        if known.is_map and not wants_data:
            nodes = [replace(item, data=None) if item.data is not None else item for item in nodes]
        loose = command.op in ("get", "reset", "delete", "destroy")
        elements = checker.elements(
            nodes, known.key_dtype, data if wants_data else None,
            interval=loose or "interval" in known.flags, data_interval=known.data_interval,
        )  # fmt: skip
        if command.op in ("add", "create"):
            elements = self._settle(known, elements)
        return ElementsBlock(elements, loc=node.loc)

    # --- objects

    def object(self, node: ObjectBlock) -> ObjectBlock:
        """A stateful object."""
        body = node.body
        if isinstance(body, CtHelperBody):
            self._l3proto(node, body.l3proto)
            body = replace(body, l3proto=body.l3proto or self._default_l3())
        elif isinstance(body, CtTimeoutBody):
            self._l3proto(node, body.l3proto)
            known = _CT_STATES.get(body.protocol)
            if known is None:
                fail(node.loc, f"ct timeout for protocol {body.protocol} is not supported")
            for state in body.policy:
                if state not in known:
                    fail(node.loc, f"timeout policy state '{state}' is unknown for protocol {body.protocol}")
            body = replace(body, l3proto=body.l3proto or self._default_l3())
        elif isinstance(body, CtExpectationBody):
            self._l3proto(node, body.l3proto)
            body = replace(body, l3proto=body.l3proto or self._default_l3())
        elif isinstance(body, LimitStmt | SynproxyStmt):
            body = self.checker().stmt(body)
        elif isinstance(body, TunnelBody):
            body = self._tunnel(node, body)
        return replace(node, body=body)

    def _default_l3(self) -> str:
        return self.family if self.family in ("ip", "ip6") else "inet"

    def _l3proto(self, node: ObjectBlock, family: str | None) -> None:
        if self.family not in ("ip", "ip6", "inet", "bridge", "netdev"):
            fail(node.loc, f"{node.kind} is not supported in family {self.family}")
        if family is not None and self.family in ("ip", "ip6") and family != self.family:
            fail(node.loc, f"Numerical result out of range: l3proto {family} in a table of family {self.family}")

    def _tunnel(self, node: ObjectBlock, body: TunnelBody) -> TunnelBody:
        checker = self.checker()
        dtype = IPV6_ADDR if body.family == "ip6" else IPV4_ADDR
        values = []
        for address in (body.saddr, body.daddr):
            checked = None if address is None else checker.value(address, dtype)
            if checked is not None and not isinstance(checked, ConstantExpr):
                fail(node.loc, "tunnel addresses are single values")
            values.append(checked)
        return replace(body, saddr=values[0], daddr=values[1])


def _joined(elem: SetElemExpr) -> SetElemExpr:
    """Several bits in one element list as ``a | b``."""
    key = elem.key
    if not isinstance(key, ConstantExpr):
        return elem
    return replace(elem, key=ConstantExpr(key.value, loc=key.loc, dtype=joined_type(key.dtype)))


def _ordered(flags: tuple[str, ...]) -> tuple[str, ...]:
    """Flags in the order in which nft lists them."""
    return tuple(flag for flag in ("constant", "dynamic", "interval", "timeout") if flag in flags)
