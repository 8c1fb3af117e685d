"""Context: what the machine knows while it runs one base chain: registers, verdict target, where it is.

Laws:
- Sixteen registers of 4 bytes in one bytearray of 64; expressions use byte offsets (`expr.register_offset`), so `reg` below is an
  offset.
- Host-order values are little-endian in registers, network values as they stand on the wire; a short value clears the rest of its
  word.
- A context is busy while its chain runs. A chain that is entered again from within (a reject's answer, a duplicate) uses
  `nested()`.
"""

from __future__ import annotations

from typing import Any

import cython

from userfw.core.clock import Clock
from userfw.engine.const import REG_BYTES

if not cython.compiled:
    from userfw.core.const import (
        ETH_P_IP,
        ETH_P_IPV6,
        IPPROTO_AH,
        IPPROTO_DSTOPTS,
        IPPROTO_FRAGMENT,
        IPPROTO_HOPOPTS,
        IPPROTO_ROUTING,
        NFPROTO_BRIDGE,
        NFPROTO_IPV4,
        NFPROTO_IPV6,
        NFPROTO_NETDEV,
        NFPROTO_UNSPEC,
    )
    from userfw.core.packet import Packet
    from userfw.engine.const import U32_MASK
    from userfw.engine.services import Services


class Context:
    """Registers and surroundings of a run.

    - `family`, `hook`, `chain_type`: of the base chain; `target`: the Chain of a jump or goto; `chain`, `rule`: being run, for
      log and trace.
    - `l4`: the transport protocol is known (Linux: NFT_PKTINFO_L4PROTO); `protocol`: EtherType as this family sees it.
    - `queue`, `queue_flags`: of an NF_QUEUE verdict.
    - `inner_*`: offsets into the tunnelled packet, valid for the packet while `inner_ready` holds the tunnel's type
      (expressions.inner).
    """

    def __init__(self, services: Services, family: int = 0, hook: int = 0, chain_type: int = 0) -> None:
        self.regs = bytearray(REG_BYTES)
        self.services = services
        self.clock: Clock = services.clock
        self.family = family
        self.hook = hook
        self.chain_type = chain_type
        self.busy = False
        self.target: Any = None
        self.chain: Any = None
        self.rule: Any = None
        self.queue = 0
        self.queue_flags = 0
        self.l4 = False
        self.protocol = 0
        self.saved_l4 = -1
        self.saved_proto = 0
        self.saved_l3 = -1
        self.saved_nfproto = 0
        self.inner_tunnel = -1
        self.inner_link = -1
        self.inner_network = -1
        self.inner_transport = -1
        self.inner_protocol = 0
        self.inner_l4proto = 0
        self.inner_flags = 0
        self.inner_ready = 0
        self.deeper: Context | None = None

    def nested(self) -> Context:
        """The context for entering the same chain again while this one is busy."""
        if self.deeper is None:
            self.deeper = Context(self.services, self.family, self.hook, self.chain_type)
        if self.deeper.busy:
            return self.deeper.nested()
        return self.deeper

    def begin(self, pkt: Packet, hook: cython.int) -> cython.int:
        """Look at the packet as this family does (Linux: nft_set_pktinfo and its kin).

        Bridge and netdev see only the outermost VLAN tag as metadata; what stands behind a second tag is no IP to them.
        """
        self.hook = hook
        self.inner_ready = 0
        self.protocol = pkt.protocol
        self.l4 = pkt.nfproto == NFPROTO_IPV4 or pkt.nfproto == NFPROTO_IPV6
        if not pkt.has_l4 and pkt.nfproto == NFPROTO_IPV6 and self.l4:
            # ipv6_find_hdr gives up where a later fragment's protocol is an extension header, or where one is cut off
            self.l4 = pkt.l4proto not in (
                IPPROTO_HOPOPTS,
                IPPROTO_ROUTING,
                IPPROTO_FRAGMENT,
                IPPROTO_AH,
                IPPROTO_DSTOPTS,
            )
            if pkt.l4proto == IPPROTO_AH and pkt.fragoff == 0 and pkt.l4 + 2 <= pkt.end:
                self.l4 = True  # however long it says that it is: to rules it is the transport itself
        if pkt.nfproto == NFPROTO_IPV6 and pkt.fragoff == 0 and pkt.l4 - pkt.l3 > 40:
            self._stop_at_ah(pkt)
        if (self.family == NFPROTO_NETDEV or self.family == NFPROTO_BRIDGE) and pkt.vlan_tci >= 0:
            if pkt.l3 - pkt.start >= 22:
                self._stop_at_tag(pkt)
        if self.family == NFPROTO_BRIDGE and pkt.nfproto != NFPROTO_UNSPEC:
            self._go_by_type(pkt)
        return 0

    def _go_by_type(self, pkt: Packet) -> cython.int:
        """A bridge's chains go by the type that stands in the frame now, not by that it came with (Linux: nft_do_chain_bridge);
        `end` puts back what the packet says."""
        at: cython.Py_ssize_t = pkt.start + (16 if pkt.vlan_tci >= 0 else 12)
        kind: cython.int = pkt.get16(at)
        if (kind == ETH_P_IP and pkt.nfproto == NFPROTO_IPV4) or (kind == ETH_P_IPV6 and pkt.nfproto == NFPROTO_IPV6):
            return 0
        self.l4 = False
        self.saved_l3 = pkt.l3
        self.saved_nfproto = pkt.nfproto
        pkt.nfproto = NFPROTO_UNSPEC
        return 0

    def _stop_at_tag(self, pkt: Packet) -> cython.int:
        """Behind two tags: the second is the network header (Linux: skb_vlan_untag takes one); `end` puts back what the packet
        says."""
        self.protocol = pkt.get16(pkt.start + 16)
        self.l4 = False
        self.saved_l3 = pkt.l3
        self.saved_nfproto = pkt.nfproto
        pkt.l3 = pkt.start + 18
        pkt.nfproto = NFPROTO_UNSPEC
        return 0

    def _stop_at_ah(self, pkt: Packet) -> cython.int:
        """To rules an authentication header is the transport (Linux: IP6_FH_F_AUTH in nft_set_pktinfo_ipv6), while conntrack looks
        behind it; `end` puts back what the packet says."""
        at: cython.Py_ssize_t = pkt.l3 + 40
        proto: cython.int = pkt.get8(pkt.l3 + 6)
        while at < pkt.l4 and proto != IPPROTO_AH:
            size: cython.int = 8 if proto == IPPROTO_FRAGMENT else (pkt.get8(at + 1) + 1) * 8
            proto = pkt.get8(at)
            at += size
        if at < pkt.l4:
            self.saved_l4 = pkt.l4
            self.saved_proto = pkt.l4proto
            pkt.l4 = at
            pkt.l4proto = IPPROTO_AH
        return 0

    def end(self, pkt: Packet) -> cython.int:
        """The run is over."""
        self.busy = False
        if self.saved_l4 >= 0:
            pkt.l4 = self.saved_l4
            pkt.l4proto = self.saved_proto
            self.saved_l4 = -1
        if self.saved_l3 >= 0:
            pkt.l3 = self.saved_l3
            pkt.nfproto = self.saved_nfproto
            self.saved_l3 = -1
        return 0

    def read32(self, reg: cython.int) -> cython.uint:
        """A host-order word."""
        r: bytearray = self.regs
        lo: cython.uint = r[reg] | (r[reg + 1] << 8)
        hi: cython.uint = r[reg + 2] | (r[reg + 3] << 8)
        return lo | (hi << 16)

    def read64(self, reg: cython.int) -> cython.ulonglong:
        """A host-order 64-bit value."""
        lo: cython.ulonglong = self.read32(reg)
        hi: cython.ulonglong = self.read32(reg + 4)
        return lo | (hi << 32)

    def read_be32(self, reg: cython.int) -> cython.uint:
        """A network-order word."""
        r: bytearray = self.regs
        hi: cython.uint = (r[reg] << 8) | r[reg + 1]
        lo: cython.uint = (r[reg + 2] << 8) | r[reg + 3]
        return (hi << 16) | lo

    def read_be64(self, reg: cython.int) -> cython.ulonglong:
        """A network-order 64-bit value."""
        hi: cython.ulonglong = self.read_be32(reg)
        lo: cython.ulonglong = self.read_be32(reg + 4)
        return (hi << 32) | lo

    def write8(self, reg: cython.int, value: cython.uint) -> cython.int:
        """One byte; the rest of the word becomes zero (Linux: nft_reg_store8)."""
        r: bytearray = self.regs
        r[reg] = value & 0xFF
        r[reg + 1] = 0
        r[reg + 2] = 0
        r[reg + 3] = 0
        return 0

    def write16(self, reg: cython.int, value: cython.uint) -> cython.int:
        """A host-order half word; the rest of the word becomes zero."""
        r: bytearray = self.regs
        r[reg] = value & 0xFF
        r[reg + 1] = (value >> 8) & 0xFF
        r[reg + 2] = 0
        r[reg + 3] = 0
        return 0

    def write32(self, reg: cython.int, value: cython.uint) -> cython.int:
        """A host-order word."""
        r: bytearray = self.regs
        r[reg] = value & 0xFF
        r[reg + 1] = (value >> 8) & 0xFF
        r[reg + 2] = (value >> 16) & 0xFF
        r[reg + 3] = (value >> 24) & 0xFF
        return 0

    def write64(self, reg: cython.int, value: cython.ulonglong) -> cython.int:
        """A host-order 64-bit value."""
        self.write32(reg, value & U32_MASK)
        self.write32(reg + 4, (value >> 32) & U32_MASK)
        return 0

    def write_be16(self, reg: cython.int, value: cython.uint) -> cython.int:
        """A network-order half word; the rest of the word becomes zero."""
        r: bytearray = self.regs
        r[reg] = (value >> 8) & 0xFF
        r[reg + 1] = value & 0xFF
        r[reg + 2] = 0
        r[reg + 3] = 0
        return 0

    def write_be32(self, reg: cython.int, value: cython.uint) -> cython.int:
        """A network-order word."""
        r: bytearray = self.regs
        r[reg] = (value >> 24) & 0xFF
        r[reg + 1] = (value >> 16) & 0xFF
        r[reg + 2] = (value >> 8) & 0xFF
        r[reg + 3] = value & 0xFF
        return 0

    def write_be64(self, reg: cython.int, value: cython.ulonglong) -> cython.int:
        """A network-order 64-bit value."""
        self.write_be32(reg, (value >> 32) & U32_MASK)
        self.write_be32(reg + 4, value & U32_MASK)
        return 0

    def write_bytes(self, reg: cython.int, value: bytes, length: cython.int) -> cython.int:
        """`value`, cut or zero-padded to `length` bytes (names)."""
        r: bytearray = self.regs
        size: cython.int = len(value)
        i: cython.int
        for i in range(length):
            r[reg + i] = value[i] if i < size else 0
        return 0
