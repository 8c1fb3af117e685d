"""Chains and the machine that runs them (Linux: nft_do_chain).

Laws:
- `drop` is final. `accept` ends the base chain only; the next one on the hook still runs.
- `jump` comes back to the next rule, at most JUMP_STACK deep; `goto` does not: what was left continues where its own caller stood,
  in the end in the base chain's policy. The same holds for `return`.
- A Chain keeps its identity while its name lives: jumps and verdict maps refer to the object. A commit gives it a new tuple of
  rules
  (`Chain.replace`, which cannot fail); rules are bound beforehand. Packets never see half of it.
- Loops and depth are checked at commit by `engine.bind.check_loops`; the machine still refuses to go deeper.
"""

from __future__ import annotations

from typing import Any

import cython

if not cython.compiled:
    from userfw.core.const import (
        ETH_P_IP,
        ETH_P_IPV6,
        NF_ACCEPT,
        NF_DROP,
        NF_INET_INGRESS,
        NF_INET_LOCAL_OUT,
        NF_QUEUE,
        NF_STOLEN,
        NFPROTO_INET,
        NFPROTO_IPV6,
        NFPROTO_UNSPEC,
        NFT_BREAK,
        NFT_CONTINUE,
        NFT_GOTO,
        NFT_JUMP,
        NFT_RETURN,
    )
    from userfw.core.drop import DROP_JUMP_DEPTH, DROP_MALFORMED, DROP_NOT_SPECIFIED, DROP_POLICY, DROP_RULE
    from userfw.core.hook import HookEntry
    from userfw.core.packet import Packet
    from userfw.engine.const import CHAIN_ROUTE, JUMP_STACK, TRACE_POLICY, TRACE_RETURN, TRACE_RULE
    from userfw.engine.context import Context
    from userfw.engine.expr import Expr
    from userfw.engine.rule import Rule
    from userfw.engine.services import Services


class Chain:
    """Rules of one chain. `table`, `family`: of its table; `base`: the BaseChain that starts here, or None; `owner`: the model's
    chain."""

    def __init__(self, name: str, table: str = "", family: int = 0, owner: Any = None) -> None:
        self.name = name
        self.table = table
        self.family = family
        self.handle = 0
        self.owner = owner
        self.rules: tuple[Rule, ...] = ()
        self.count = 0
        self.base: Any = None

    def replace(self, rules: tuple[Rule, ...]) -> None:
        """Swap in new rules (all bound). Cannot fail; takes effect for the next packet."""
        self.rules = rules
        self.count = len(rules)

    def set_base(self, base: BaseChain | None) -> None:
        """Called by BaseChain."""
        self.base = base

    def run(self, ctx: Context, pkt: Packet, depth: cython.int) -> cython.int:
        """Run the rules: a final verdict (NF_*), or NFT_RETURN when the chain was left by its end or by `return`."""
        chain: Chain = self
        rules: tuple[Rule, ...] = chain.rules
        count: cython.int = chain.count
        position: cython.int = 0
        code: cython.int
        i: cython.int
        rule: Rule
        ops: tuple[Expr, ...]
        while position < count:
            rule = cython.cast(Rule, rules[position])
            position += 1
            ops = rule.ops
            code = NFT_CONTINUE
            ctx.rule = rule
            for i in range(rule.count):
                code = cython.cast(Expr, ops[i]).evaluate(ctx, pkt)
                if code != NFT_CONTINUE:
                    break
            if code == NFT_BREAK:
                continue
            if pkt.trace:
                trace(TRACE_RULE, ctx, pkt, chain, rule, code)
            if code == NFT_CONTINUE:
                continue
            if code >= 0:
                return code
            if code == NFT_JUMP:
                if depth >= JUMP_STACK:
                    pkt.drop_reason = DROP_JUMP_DEPTH
                    return NF_DROP
                code = cython.cast(Chain, ctx.target).run(ctx, pkt, depth + 1)
                if code >= 0:
                    return code
                ctx.chain = chain
            elif code == NFT_GOTO:
                chain = cython.cast(Chain, ctx.target)
                ctx.chain = chain
                rules = chain.rules
                count = chain.count
                position = 0
            else:
                return NFT_RETURN
        if depth > 0 and pkt.trace:
            trace(TRACE_RETURN, ctx, pkt, chain, None, NFT_CONTINUE)
        return NFT_RETURN


class BaseChain(HookEntry):
    """A chain at a hook. `type`: CHAIN_FILTER, CHAIN_ROUTE or CHAIN_NAT; `policy`: NF_ACCEPT or NF_DROP; `devices`: names, netdev
    only.

    `packets`, `bytes`: what its policy judged, counted if `counting`.
    """

    def __init__(
        self,
        chain: Chain,
        hook: int,
        priority: int,
        services: Services,
        type: int = 0,
        policy: int = 1,
        devices: tuple[str, ...] = (),
    ) -> None:
        super().__init__(priority)
        self.chain = chain
        self.family = chain.family
        self.hook = hook
        self.type = type
        self.policy = policy
        self.counting = False
        self.packets = 0
        self.bytes = 0
        self.devices = devices
        self.ctx = Context(services, chain.family, hook, type)
        chain.set_base(self)

    def run(self, pkt: Packet, hook: cython.int) -> cython.int:
        """Judge `pkt`; NF_ACCEPT, NF_DROP or NF_STOLEN."""
        ctx: Context = self.ctx
        if self.family == NFPROTO_INET and self.hook == NF_INET_INGRESS:
            if (pkt.protocol != ETH_P_IP and pkt.protocol != ETH_P_IPV6) or (pkt.vlan_tci >= 0 and pkt.l3 - pkt.start >= 22):
                return NF_ACCEPT  # what stands behind a second tag is no IP yet
            if pkt.nfproto == NFPROTO_UNSPEC or (
                pkt.nfproto == NFPROTO_IPV6 and not pkt.has_l4 and pkt.l4proto in (0, 43, 44, 51, 60)
            ):
                pkt.drop_reason = DROP_MALFORMED  # Linux: nft_do_chain_inet_ingress judges no broken headers
                return NF_DROP
            hook = NF_INET_INGRESS
        if ctx.busy:
            ctx = ctx.nested()
        ctx.busy = True
        try:
            ctx.begin(pkt, hook)
            if self.type == CHAIN_ROUTE and hook == NF_INET_LOCAL_OUT:
                return self._route_chain(ctx, pkt)
            ctx.chain = self.chain
            return self._verdict(ctx, pkt, self.chain.run(ctx, pkt, 0))
        finally:
            ctx.end(pkt)

    def _verdict(self, ctx: Context, pkt: Packet, verdict: cython.int) -> cython.int:
        services: Services = ctx.services
        if verdict in (NF_ACCEPT, NF_STOLEN):
            return verdict
        if verdict == NF_DROP:
            if pkt.drop_reason == DROP_NOT_SPECIFIED:
                pkt.drop_reason = DROP_RULE
            services.drop_chain = ctx.chain
            services.drop_rule = ctx.rule
            return NF_DROP
        if verdict == NF_QUEUE:
            verdict = services.enqueue(pkt, ctx.hook, self, ctx.queue, ctx.queue_flags & 1 != 0)
            if verdict == NF_DROP:
                services.drop_chain = ctx.chain
                services.drop_rule = ctx.rule
            return verdict
        if pkt.trace:
            trace(TRACE_POLICY, ctx, pkt, self.chain, None, self.policy)
        if self.counting:
            self.packets += 1
            self.bytes += pkt.end - pkt.l3
        if self.policy == NF_DROP:
            return self._dropped_by_policy(ctx, pkt)
        return NF_ACCEPT

    def _dropped_by_policy(self, ctx: Context, pkt: Packet) -> cython.int:
        if pkt.drop_reason == DROP_NOT_SPECIFIED:
            pkt.drop_reason = DROP_POLICY
        ctx.services.drop_chain = self.chain
        ctx.services.drop_rule = None
        return NF_DROP

    def _route_chain(self, ctx: Context, pkt: Packet) -> cython.int:
        """Type route at output: route again if mark, addresses or dscp changed (Linux: nf_route_table_hook4, _hook6)."""
        l3: cython.Py_ssize_t = pkt.l3
        mark: cython.uint = pkt.mark
        first: cython.uint = pkt.get32(l3)
        a: cython.ulonglong = 0
        b: cython.ulonglong = 0
        c: cython.ulonglong = 0
        d: cython.ulonglong = 0
        if pkt.nfproto == NFPROTO_IPV6:
            a, b, c, d = pkt.get64(l3 + 8), pkt.get64(l3 + 16), pkt.get64(l3 + 24), pkt.get64(l3 + 32)
        else:
            a = pkt.get64(l3 + 12)
        ctx.chain = self.chain
        verdict: cython.int = self._verdict(ctx, pkt, self.chain.run(ctx, pkt, 0))
        if verdict != NF_ACCEPT:
            return verdict
        changed: cython.bint = mark != pkt.mark
        if pkt.nfproto == NFPROTO_IPV6:
            changed = changed or first != pkt.get32(l3) or a != pkt.get64(l3 + 8) or b != pkt.get64(l3 + 16)
            changed = changed or c != pkt.get64(l3 + 24) or d != pkt.get64(l3 + 32)
        else:
            changed = changed or (first >> 16) & 0xFF != (pkt.get32(l3) >> 16) & 0xFF or a != pkt.get64(l3 + 12)
        return ctx.services.reroute(pkt, ctx.hook) if changed else NF_ACCEPT


def trace(kind: cython.int, ctx: Context, pkt: Packet, chain: Any, rule: Any, verdict: cython.int) -> cython.int:
    """Tell the sink, if there is one."""
    sink: Any = ctx.services.trace
    if sink is not None:
        target = ctx.target if verdict in (NFT_JUMP, NFT_GOTO) else None
        sink.event(kind, ctx, pkt, chain, rule, verdict, target)
    return 0
