"""NAT as a hook entry (Linux: nf_nat_inet_fn): rules for the first packet of a connection, the mapping for every packet.

Laws: base chains of type nat are asked for new connections only, in order of priority, until one chose a mapping; if none did,
the
connection gets a null mapping. Every packet is then rewritten as its connection's mapping says. ICMP errors never meet a rule.
"""

from collections.abc import Iterable

import cython

if not cython.compiled:
    from userfw.conntrack.conn import Conn
    from userfw.core.const import (
        CT_DIR_ORIGINAL,
        CT_NEW,
        CT_RELATED,
        IPPROTO_ICMP,
        IPPROTO_ICMPV6,
        IPS_DST_NAT_DONE,
        IPS_SRC_NAT_DONE,
        IPS_TEMPLATE,
        NAT_MANIP_DST,
        NAT_MANIP_SRC,
        NF_ACCEPT,
        NF_DROP,
        NF_INET_LOCAL_IN,
        NF_INET_POST_ROUTING,
        NF_INET_PRE_ROUTING,
        NFPROTO_IPV4,
    )
    from userfw.core.drop import DROP_NAT_FAILED
    from userfw.core.hook import HookEntry
    from userfw.core.packet import Packet
    from userfw.nat.mangle import mangle
    from userfw.nat.mapping import Nat


class NatEntry(HookEntry):
    """NAT at one hook. `chains`: nat base chains of the hook, in order of priority; none is fine (replies still need
    translating)."""

    def __init__(self, nat: Nat, hook: int, chains: "Iterable[HookEntry]" = (), priority: int | None = None) -> None:
        source: bool = hook in (NF_INET_LOCAL_IN, NF_INET_POST_ROUTING)
        super().__init__(priority if priority is not None else 100 if source else -100)
        self.nat = nat
        self.hook = hook
        self.manip = NAT_MANIP_SRC if source else NAT_MANIP_DST
        self.done = IPS_SRC_NAT_DONE if source else IPS_DST_NAT_DONE
        self.chains = list(chains)

    def run(self, pkt: Packet, hook: cython.int) -> cython.int:
        """Choose a mapping if the connection is new, then rewrite the packet."""
        conn: Conn | None = pkt.ct
        if conn is None:
            return NF_ACCEPT
        if pkt.looped and hook == NF_INET_PRE_ROUTING:
            return self._looped(pkt, conn, hook)
        return self._translate(pkt, conn, hook)

    def _looped(self, pkt: Packet, conn: Conn, hook: cython.int) -> cython.int:
        """A packet over `lo` keeps the route that it left with, unless NAT gives it another destination here (Linux:
        nf_nat_ipv4_pre_routing)."""
        at: cython.Py_ssize_t = pkt.l3 + (16 if pkt.nfproto == NFPROTO_IPV4 else 24)
        size: cython.Py_ssize_t = 4 if pkt.nfproto == NFPROTO_IPV4 else 16
        before: bytes = bytes(pkt.data[at : at + size])
        verdict: cython.int = self._translate(pkt, conn, hook)
        if bytes(pkt.data[at : at + size]) != before:
            pkt.route = None
        return verdict

    def _translate(self, pkt: Packet, conn: Conn, hook: cython.int) -> cython.int:
        verdict: cython.int
        if conn.status & IPS_TEMPLATE:
            return self._new(pkt, conn, hook)
        if pkt.ctinfo == CT_NEW or pkt.ctinfo == CT_RELATED:
            if pkt.ctinfo == CT_RELATED and (pkt.l4proto == IPPROTO_ICMP or pkt.l4proto == IPPROTO_ICMPV6):
                return mangle(pkt, conn, self.manip)
            if not conn.status & self.done:
                verdict = self._new(pkt, conn, hook)
                if verdict != NF_ACCEPT:
                    return verdict
                return mangle(pkt, conn, self.manip)
        if conn.masq_index and hook == NF_INET_POST_ROUTING and pkt.ctdir == CT_DIR_ORIGINAL:
            # masqueraded to another device's address than it now leaves by (Linux: nf_nat_oif_changed)
            if pkt.oif is not None and pkt.oif.index != conn.masq_index:
                self.nat.table.destroy(conn)
                pkt.drop_reason = DROP_NAT_FAILED
                return NF_DROP
        return mangle(pkt, conn, self.manip)

    def _new(self, pkt: Packet, conn: Conn, hook: cython.int) -> cython.int:
        """Ask the rules. A template is what `ct zone set` behind conntrack hung on a packet without a connection: Linux asks them
        all the same, and their mappings come to nothing."""
        verdict: cython.int
        chain: HookEntry
        i: cython.Py_ssize_t
        for i in range(len(self.chains)):
            chain = self.chains[i]
            verdict = chain.run(pkt, hook)
            if verdict != NF_ACCEPT:
                return verdict
            if conn.status & self.done:
                return NF_ACCEPT
        return NF_ACCEPT if conn.status & IPS_TEMPLATE else self.nat.null_binding(pkt, conn, self.manip)
