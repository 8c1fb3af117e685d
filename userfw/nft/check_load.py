"""Checking loads: header fields, options, meta and ct keys; and the protocol questions that they put in front.

Laws: as in ``check_expr``. Dependencies follow nft's payload_gen_dependency and resolve_ll_protocol_conflict.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from userfw.nft import proto, proto_keys, proto_options
from userfw.nft.check_context import ChainInfo, ProtoContext, Resolver, fail, meta_update, payload_update
from userfw.nft.datatype import HOST, Datatype
from userfw.nft.datatype_tables import BOOLEAN, IPV4_ADDR, IPV6_ADDR, integer
from userfw.nft.syntax import (
    ConstantExpr,
    CtExpr,
    DccpOptionExpr,
    Expr,
    ExthdrExpr,
    FibExpr,
    IpOptionExpr,
    MatchStmt,
    MetaExpr,
    NumgenExpr,
    OsfExpr,
    PayloadExpr,
    RawPayloadExpr,
    RelationalExpr,
    RtExpr,
    SctpChunkExpr,
    SetElemExpr,
    SetExpr,
    SocketExpr,
    Stmt,
    TcpOptionExpr,
    TunnelExpr,
    XfrmExpr,
)

_BRIDGE_KEYS = frozenset(("ibrname", "obrname", "ibrpvid", "ibrvproto", "ibrhwaddr", "broute"))
_UDP_TUNNELS = frozenset(("vxlan", "geneve"))
_QUESTIONS: dict[tuple[str, str | None, int], MatchStmt] = {}
"""Matches of protocols that rules did not write, but need: one node for all rules, since nobody changes a checked tree."""


class LoadChecker:
    """The state of one rule's check, and all loads."""

    def __init__(self, family: str, chain: ChainInfo, resolver: Resolver) -> None:
        self.family = family
        self.chain = chain
        self.resolver = resolver
        self.names = resolver.names
        self.proto = ProtoContext(family)
        self.outer: ProtoContext | None = None
        self.tunnel: str | None = None
        self.tunnels: dict[str, ProtoContext] = {}
        self.out: list[Stmt] = []
        self.icmp_types: dict[str, tuple[int, ...]] = {}
        self.lone = False

    def emit(self, stmt: Stmt) -> None:
        """Put a checked statement at the end of what there is: in front of the one being checked."""
        self.out.append(stmt)

    def to_head(self, start: int) -> None:
        """Move what was emitted since ``start`` to the head of the rule, where nft puts some questions."""
        out = self.out
        moved = out[start:]
        del out[start:]
        out[0:0] = moved

    def load(self, node: Expr) -> Expr:
        """A checked load."""
        handler = _LOADS.get(type(node))
        if handler is None:
            fail(node, f"{type(node).__name__} is not supported here")
        return handler(self, node)

    def typeof(self, node: Expr) -> Datatype:
        """The type that ``typeof`` names: that of the load, without asking for its protocols."""
        if isinstance(node, PayloadExpr):
            row = proto.field(node.protocol, node.field)
            if row is None:
                fail(node, f"unknown header field {node.protocol} {node.field}")
            return row.dtype
        if isinstance(node, CtExpr) and node.key in ("saddr", "daddr"):
            if node.family is None:
                fail(node, "specify either ip or ip6 for address matching")
            return IPV6_ADDR if node.family == "ip6" else IPV4_ADDR
        if isinstance(node, IpOptionExpr | ExthdrExpr):
            self.proto.update("nh", proto.IP if isinstance(node, IpOptionExpr) else proto.IP6)
        found: Datatype = self.lhs(node).dtype
        return found

    def lhs(self, node: Expr) -> Expr:
        """The left-hand side of a match."""
        raise NotImplementedError

    # --- header fields

    def _payload(self, node: PayloadExpr) -> Expr:
        protocol = proto.PROTOCOLS.get(node.protocol)
        row = None if protocol is None else protocol.fields.get(node.field)
        if protocol is None or row is None:
            fail(node, f"unknown header field {node.protocol} {node.field}")
        if node.inner is not None:
            return self._inner(node, protocol, row)
        shift = 0 if protocol is proto.TH else self._reach(node, protocol, row)
        return self._place(node, protocol, row, shift)

    def _place(self, node: PayloadExpr, protocol: proto.Protocol, row: proto.Field, shift: int) -> PayloadExpr:
        return PayloadExpr(
            protocol.name, row.name, node.inner, protocol.base, row.offset + shift, loc=node.loc, dtype=row.dtype, width=row.width
        )

    def _inner(self, node: PayloadExpr, protocol: proto.Protocol, row: proto.Field) -> Expr:
        """A field of a packet in a tunnel: the protocols inside are asked for separately."""
        tunnel = node.inner
        assert tunnel is not None
        outside = proto.PROTOCOLS[tunnel]
        self._reach_tunnel(node, outside)
        context = self.tunnels.get(tunnel)
        if context is None:
            context = ProtoContext("bridge" if outside is not proto.GRE else "inet")
            if outside is proto.GRE:
                context.ll = proto.NETDEV
            self.tunnels[tunnel] = context
        if protocol.base == "ll" and outside is proto.GRE:
            fail(node, f"unexpected payload {protocol.name} in {tunnel}")
        self.outer, self.proto, self.tunnel = self.proto, context, tunnel
        try:
            shift = 0 if protocol is proto.TH else self._reach(node, protocol, row)
        finally:
            self.proto, self.outer, self.tunnel = self.outer, None, None
        return self._place(node, protocol, row, shift)

    def _reach_tunnel(self, node: PayloadExpr, outside: proto.Protocol) -> None:
        if outside.name in _UDP_TUNNELS:
            if self.proto.th is not proto.UDP:
                known = "no transport protocol" if self.proto.th is None else self.proto.th.name
                if self.proto.th is None:
                    fail(node, f"no transport protocol specified, {outside.name} needs udp")
                fail(node, f"conflicting protocols specified: {known} vs. {outside.name}; {outside.name} needs udp")
            return
        known_th = self.proto.th
        if known_th is proto.GRE or known_th is proto.GRETAP:
            return
        self._reach(node, proto.GRE, None)

    def _reach(self, node: Expr, protocol: proto.Protocol, row: proto.Field | None) -> int:
        """Make sure that ``protocol`` is what lies at its base; the bits of link layers in front of it."""
        ctx = self.proto
        base = protocol.base
        if base == "ih":
            if ctx.th is not proto.UDP:
                fail(node, f"ambiguous payload specification: {protocol.name} needs udp")
            return 0
        known = ctx.get(base)
        if known is None:
            self._depend(node, protocol)
        elif base == "th" and len(ctx.th_choices) > 1:
            other = next((choice for choice in ctx.th_choices if choice is not protocol), known)
            fail(node, f"conflicting protocols specified: {other.name} vs. {protocol.name}")
        elif known is not protocol:
            self._conflict(node, protocol, known)
        if row is not None and row.needs:
            self._icmp_type(node, protocol, row)
        return ctx.stack_offset(protocol) if base == "ll" else 0

    def _conflict(self, node: Expr, protocol: proto.Protocol, known: proto.Protocol) -> None:
        ctx = self.proto
        if protocol.base == "ll":
            if known in (proto.INET, proto.NETDEV):
                if self.tunnel is not None:
                    ctx.update("ll", proto.ETHER)
                else:
                    self._device_type(node)
                known = proto.ETHER
                if protocol is proto.ETHER:
                    return
            elif protocol in ctx.stacked:
                return
        number = known.number_of(protocol) if protocol.base == known.base else None
        above = {"ll": ctx.nh if ctx.nh_asked else None, "nh": ctx.th, "th": None}[protocol.base]
        if number is None or above is not None or known.key is None or protocol.base != "ll":
            fail(node, f"conflicting protocols specified: {known.name} vs. {protocol.name}")
        key = known.fields[known.key]
        self._ask_payload(node, known, key, number)

    def _device_type(self, node: Expr) -> None:
        """The link type is asked of the input device, in output hooks too."""
        self._ask_meta(node, "iiftype", 1)

    def _depend(self, node: Expr, protocol: proto.Protocol) -> None:
        """Nothing is known at this base: ask what lies below."""
        ctx = self.proto
        base = protocol.base
        if base == "ll":
            self._device_type(node)
            if protocol is not proto.ETHER:
                self._conflict(node, protocol, proto.ETHER)
            return
        below = ctx.ll if base == "nh" else ctx.nh
        if base == "nh":
            if below is None:
                fail(node, "ambiguous payload specification: no link layer protocol specified")
            if below is proto.ETHER and self.family == "bridge" and self.tunnel is None:
                below = proto.NETDEV if protocol in (proto.IP, proto.IP6) else below
            elif below is proto.ETHER and self.tunnel is not None:
                below = proto.NETDEV
            self._ask(node, below, protocol)
            return
        if below is None:
            below = self._special(node, protocol)
        elif protocol is proto.GRETAP:
            protocol = proto.GRE
        self._ask(node, below, protocol)

    def _special(self, node: Expr, protocol: proto.Protocol) -> proto.Protocol:
        """ICMP, ICMPv6 and IGMP belong to one network layer; other transports to both."""
        if protocol not in (proto.ICMP, proto.ICMPV6, proto.IGMP):
            return proto.INET_SERVICE_LAYER
        link = self.proto.ll
        upper = proto.IP6 if protocol is proto.ICMPV6 else proto.IP
        if link is None:
            return proto.INET_SERVICE_LAYER
        self._ask(node, link, upper)
        return upper

    def _ask(self, node: Expr, below: proto.Protocol, upper: proto.Protocol) -> None:
        number = below.number_of(upper)
        if number is None:
            fail(node, f"conflicting protocols specified: {below.name} vs. {upper.name}")
        if below.meta_key is not None:
            self._ask_meta(node, below.meta_key, number)
            self.proto.update(upper.base, upper)
        else:
            assert below.key is not None
            self._ask_payload(node, below, below.fields[below.key], number)

    def _ask_meta(self, node: Expr, key: str, number: int) -> None:
        asked = key, self.tunnel, number
        question = _QUESTIONS.get(asked)
        if question is None:
            left = MetaExpr(key, self.tunnel, dtype=proto_keys.META[key].dtype)
            right = ConstantExpr(number, dtype=left.dtype)
            question = _QUESTIONS[asked] = MatchStmt(RelationalExpr("==", left, right))
        self.emit(question)
        meta_update(self.proto, key, number)

    def _ask_payload(self, node: Expr, protocol: proto.Protocol, row: proto.Field, number: int) -> None:
        shift = self.proto.stack_offset(protocol) if protocol.base == "ll" else 0
        left = PayloadExpr(
            protocol.name, row.name, self.tunnel, protocol.base, row.offset + shift, loc=node.loc, dtype=row.dtype, width=row.width
        )
        self._ask_equal(node, left, number)
        payload_update(self.proto, row, number)

    def _ask_equal(self, node: Expr, left: Expr, number: int) -> None:
        right = ConstantExpr(number, loc=node.loc, dtype=left.dtype)
        self.emit(MatchStmt(RelationalExpr("==", left, right, loc=node.loc), loc=node.loc))

    def _icmp_type(self, node: Expr, protocol: proto.Protocol, row: proto.Field) -> None:
        """The field exists in messages of some types only: ask, unless the rule has asked for one of them (nft: for it last)."""
        asked = self.icmp_types.get(protocol.name)
        if asked is not None:
            if (asked or row.needs) and not set(asked) & set(row.needs):
                fail(
                    node,
                    f"incompatible {protocol.name} match: rule has {_types(protocol, asked)}, need {_types(protocol, row.needs)}",
                )
            return
        self.icmp_types[protocol.name] = row.needs
        kind = protocol.fields["type"]
        left = self._place(PayloadExpr(protocol.name, "type", self.tunnel, loc=node.loc), protocol, kind, 0)
        if len(row.needs) == 1:
            self._ask_equal(node, left, row.needs[0])
            return
        elements = [
            SetElemExpr(ConstantExpr(number, loc=node.loc, dtype=kind.dtype), loc=node.loc, dtype=kind.dtype)
            for number in row.needs
        ]
        choices = SetExpr(elements, loc=node.loc, dtype=kind.dtype)
        self.emit(MatchStmt(RelationalExpr("==", left, choices, loc=node.loc), loc=node.loc))

    def _raw(self, node: RawPayloadExpr) -> Expr:
        if node.length == 0:
            fail(node, "raw payload length cannot be zero")
        if node.length > 128:
            fail(node, "raw payload length exceeds 128 bits")
        if node.inner is not None:
            self._reach_tunnel(PayloadExpr(node.inner, "", node.inner, loc=node.loc), proto.PROTOCOLS[node.inner])
        dtype = integer(node.length, hexadecimal=True)
        return RawPayloadExpr(node.base, node.offset, node.length, node.inner, loc=node.loc, dtype=dtype, width=node.length)

    # --- options

    def _exthdr(self, node: ExthdrExpr) -> Expr:
        self._need_network(node, proto.IP6)
        if node.field is None:
            return ExthdrExpr(node.header, None, loc=node.loc, dtype=BOOLEAN)
        row = proto_options.exthdr_field(node.header, node.field)
        if row is None:
            fail(node, f"unknown field {node.field} of {node.header}")
        return ExthdrExpr(node.header, node.field, loc=node.loc, dtype=row.dtype, width=row.width)

    def _ip_option(self, node: IpOptionExpr) -> Expr:
        self._need_network(node, proto.IP)
        if node.field is None:
            return IpOptionExpr(node.option, None, loc=node.loc, dtype=BOOLEAN)
        row = proto_options.ip_option_field(node.option, node.field)
        if row is None:
            fail(node, f"unknown field {node.field} of ip option {node.option}")
        return IpOptionExpr(node.option, node.field, loc=node.loc, dtype=row.dtype, width=row.width)

    def _need_network(self, node: Expr, protocol: proto.Protocol) -> None:
        known = self.proto.nh
        if known is None:
            link = self.proto.ll
            if link is None:
                fail(node, "ambiguous payload specification: no link layer protocol specified")
            start = len(self.out)
            self._ask(node, link, protocol)
            self.to_head(start)
        elif known is not protocol:
            fail(
                node,
                f"cannot use exthdr with {known.name}"
                if protocol is proto.IP6
                else f"conflicting protocols specified: {known.name} vs. ip",
            )

    def _tcp_option(self, node: TcpOptionExpr) -> Expr:
        if node.raw is not None:
            offset, length = node.raw
            if length == 0:
                fail(node, "raw option length cannot be zero")
            if length > 128:
                fail(node, "raw option length exceeds 128 bits")
            return TcpOptionExpr(node.option, None, (offset, length), loc=node.loc, dtype=integer(length), width=length)
        if node.field is None:
            return TcpOptionExpr(node.option, None, loc=node.loc, dtype=BOOLEAN)
        row = proto_options.tcp_option_field(node.option, node.field)
        if row is None:
            fail(node, f"unknown field {node.field} of tcp option {node.option}")
        return TcpOptionExpr(node.option, node.field, loc=node.loc, dtype=row.dtype, width=row.width)

    def _sctp_chunk(self, node: SctpChunkExpr) -> Expr:
        if node.field is None:
            return SctpChunkExpr(node.chunk, None, loc=node.loc, dtype=BOOLEAN)
        row = proto_options.sctp_chunk_field(node.chunk, node.field)
        if row is None:
            fail(node, f"unknown field {node.field} of sctp chunk {node.chunk}")
        return SctpChunkExpr(node.chunk, node.field, loc=node.loc, dtype=row.dtype, width=row.width)

    def _dccp_option(self, node: DccpOptionExpr) -> Expr:
        return DccpOptionExpr(node.number, loc=node.loc, dtype=BOOLEAN)

    # --- keys

    def _meta(self, node: MetaExpr) -> Expr:
        row = proto_keys.META.get(node.key)
        if row is None:
            fail(node, f"unknown meta key {node.key}")
        if node.key in _BRIDGE_KEYS and self.family != "bridge":
            if not (node.key in ("ibrhwaddr",) and self.family == "netdev"):
                fail(node, f"meta {node.key} is for tables of family bridge only")
        if node.key == "nfproto" and self.family != "inet":
            fail(node, "meta nfproto is only useful in the inet family")
        return MetaExpr(node.key, node.inner, loc=node.loc, dtype=row.dtype)

    def _ct(self, node: CtExpr) -> Expr:
        row = proto_keys.CT.get(node.key)
        if row is None:
            fail(node, f"unknown ct key {node.key}")
        family = node.family
        dtype = row.dtype
        if node.key in ("saddr", "daddr"):
            if node.direction is None:
                fail(node, "ct saddr and daddr need a direction, original or reply")
            dtype = self._ct_address(node, family)
        elif node.direction is None and node.key in proto_keys.CT_NEED_DIRECTION:
            fail(node, f"ct {node.key} needs a direction, original or reply")
        return CtExpr(node.key, node.direction, family, loc=node.loc, dtype=dtype)

    def _ct_address(self, node: CtExpr, family: str | None) -> Any:
        known = self.proto.nh
        wanted = {"ip": proto.IP, "ip6": proto.IP6}.get(family or "", known)
        if wanted is None or (family is None and not self.lone):
            fail(node, "specify either ip or ip6 for address matching")
        if known is not None and known is not wanted:
            fail(node, f"conflicting dependencies: {wanted.name} vs. {known.name}")
        return IPV6_ADDR if wanted is proto.IP6 else IPV4_ADDR

    def _rt(self, node: RtExpr) -> Expr:
        family = node.family
        if node.key == "nexthop":
            known = self.proto.nh
            if known is None and family is None:
                fail(node, "meta nfproto ipv4 or ipv6 must be specified before routing expression")
            if known in (proto.IP, proto.IP6):
                assert known is not None
                if family is not None and family != known.name:
                    fail(node, f"rt {family} nexthop conflicts with {known.name}")
                family = known.name
            elif family is None:
                fail(node, "rt nexthop needs ip or ip6")
        elif family is not None:
            family = None
        row = proto_keys.RT[(node.key, family)]
        return RtExpr(node.key, family, loc=node.loc, dtype=row.dtype)

    def _fib(self, node: FibExpr) -> Expr:
        flags = set(node.flags)
        if not flags & {"saddr", "daddr"}:
            fail(node, "fib: need either saddr or daddr")
        if {"saddr", "daddr"} <= flags:
            fail(node, "fib: cannot use saddr and daddr together")
        if {"iif", "oif"} <= flags:
            fail(node, "fib: cannot use iif and oif together")
        if "oif" in flags and node.result != "type":
            fail(node, "fib: oif can only be used with result type")
        if self.family in ("arp", "bridge"):
            fail(node, f"fib is not supported in family {self.family}")
        hook = self.chain.hook
        if hook is not None:
            self._fib_hook(node, flags, hook)
        ordered = tuple(flag for flag in proto_keys.FIB_FLAGS if flag in flags)
        return FibExpr(ordered, node.result, loc=node.loc, dtype=proto_keys.FIB[node.result].dtype)

    def _fib_hook(self, node: FibExpr, flags: set[str], hook: str) -> None:
        allowed = {"prerouting", "input", "forward", "ingress"}
        if node.result == "type":
            if "oif" in flags:
                allowed = {"forward", "output", "postrouting", "egress"}
            elif "iif" not in flags:
                allowed = {"prerouting", "input", "forward", "output", "postrouting", "ingress", "egress"}
        if hook not in allowed:
            fail(node, f"fib is not supported with these arguments in hook {hook}")

    def _socket(self, node: SocketExpr) -> Expr:
        row = proto_keys.SOCKET[node.key]
        return SocketExpr(node.key, node.level, loc=node.loc, dtype=row.dtype)

    def _osf(self, node: OsfExpr) -> Expr:
        if self.family not in ("ip", "ip6", "inet"):
            fail(node, f"osf is not supported in family {self.family}")
        return OsfExpr(node.key, node.ttl, loc=node.loc, dtype=proto_keys.OSF)

    def _numgen(self, node: NumgenExpr) -> Expr:
        if node.modulus < 1:
            fail(node, "modulus must be at least 1")
        if node.offset + node.modulus - 1 > 0xFFFFFFFF:
            fail(node, "overflow: offset + modulus")
        return NumgenExpr(node.mode, node.modulus, node.offset, loc=node.loc, dtype=integer(32, HOST))

    def _xfrm(self, node: XfrmExpr) -> Expr:
        row = proto_keys.XFRM.get((node.key, node.family))
        if row is None:
            fail(node, f"unknown ipsec key {node.key}")
        if self.family not in ("ip", "ip6", "inet"):
            fail(node, f"ipsec expression is not supported in family {self.family}")
        if node.spnum > 255:
            fail(node, "spnum out of range")
        return XfrmExpr(node.direction, node.key, node.family, node.spnum, loc=node.loc, dtype=row.dtype)

    def _tunnel(self, node: TunnelExpr) -> Expr:
        return TunnelExpr(node.key, loc=node.loc, dtype=proto_keys.TUNNEL[node.key].dtype)


def _types(protocol: proto.Protocol, numbers: tuple[int, ...]) -> str:
    dtype = protocol.fields["type"].dtype
    return ", ".join(dtype.format(number) for number in numbers) or "no single type"


_LOADS: dict[type[Any], Callable[..., Expr]] = {
    PayloadExpr: LoadChecker._payload,
    RawPayloadExpr: LoadChecker._raw,
    ExthdrExpr: LoadChecker._exthdr,
    IpOptionExpr: LoadChecker._ip_option,
    TcpOptionExpr: LoadChecker._tcp_option,
    SctpChunkExpr: LoadChecker._sctp_chunk,
    DccpOptionExpr: LoadChecker._dccp_option,
    MetaExpr: LoadChecker._meta,
    CtExpr: LoadChecker._ct,
    RtExpr: LoadChecker._rt,
    FibExpr: LoadChecker._fib,
    SocketExpr: LoadChecker._socket,
    OsfExpr: LoadChecker._osf,
    NumgenExpr: LoadChecker._numgen,
    XfrmExpr: LoadChecker._xfrm,
    TunnelExpr: LoadChecker._tunnel,
}
