"""The nouns of the packet path: Packet (bytes, and what we know of them), Device (an interface), Port (where frames come and go).

Laws:
- A Packet owns one `bytearray` of HEADROOM + MAX_FRAME bytes and is reused; nothing is allocated per packet.
- The frame is `data[start:end]`. For an Ethernet device `start` is the destination MAC, for a TUN device the network header.
  VLAN tags stand in the frame, where the wire has them. `l3` and `l4` are absolute offsets into `data`.
- Indexing is bounds-checked: a wrong offset raises, it never reaches foreign memory.
- Numbers are kept in host order; `get*` and `put*` convert from and to network order.
"""

from __future__ import annotations

from typing import Any

import cython

if not cython.compiled:
    from userfw.core.const import (
        ARPHRD_ETHER,
        CT_NONE,
        HEADROOM,
        MAX_FRAME,
        NFPROTO_UNSPEC,
        PACKET_HOST,
        U32_MASK,
    )
    from userfw.core.drop import DROP_NOT_SPECIFIED


class Packet:
    """One frame and its metadata, like Linux's sk_buff.

    - `protocol`: EtherType behind all VLAN tags, host order; `nfproto`: NFPROTO_* of the network header, 0 if none.
    - `l4proto`: transport protocol (behind IPv6 extension headers); `has_l4`: the transport header is present and whole
      (false on fragments other than the first); `fragoff`: bytes; `is_fragment`: more-fragments set or `fragoff` > 0.
    - `vlan_tci`: outermost tag's TCI, or -1.
    - `vnet_flags`, `gso_type`, `gso_size` (bytes of payload a segment), `csum_start` (relative to `start`), `csum_offset`:
      the virtio-net header. With VNET_F_NEEDS_CSUM the transport checksum field holds the pseudo-header sum only.
    - `iif`, `oif`: input and output Device or None. `route`, `nexthop`: set by the router.
    - `ct`: conntrack.Conn or None; `ctinfo`: CT_NEW…CT_INVALID; `ctdir`: CT_DIR_*.
      `ahead`: where conntrack.ahead left the packet's tuple, or -1.
    - `checked`: 2 if conntrack found the transport checksum right, 1 once the header's part in it was changed by a rule, else 0.
    - `rewritten`: a rule wrote to the network header, or tried to.
    - `drop_reason`: DROP_*, set by whoever returns NF_DROP. `stolen`: somebody keeps this object, its slot needs a new one.
    - `frag_max_size`: largest fragment it was reassembled from, 0 if it was whole. `extra`: rare things (tproxy target, …).
    - `ip_options`: what the router found in the IPv4 options that it has read, 0 before it did (see router.options).
    """

    def __init__(self) -> None:
        self.data = bytearray(HEADROOM + MAX_FRAME)
        self.reset()

    def reset(self) -> None:
        """Forget everything but the buffer; the frame becomes empty at HEADROOM."""
        self.start = HEADROOM
        self.end = HEADROOM
        self.l3 = HEADROOM
        self.l4 = HEADROOM
        self.protocol = 0
        self.nfproto = NFPROTO_UNSPEC
        self.l4proto = 0
        self.fragoff = 0
        self.vlan_tci = -1
        self.pkttype = PACKET_HOST
        self.is_fragment = False
        self.has_l4 = False
        self.nat_done = False
        self.trace = False
        self.stolen = False
        self.looped = False
        self.rewritten = False
        self.mark = 0
        self.priority = 0
        self.secmark = 0
        self.ip_options = 0
        self.vnet_flags = 0
        self.gso_type = 0
        self.gso_size = 0
        self.csum_start = 0
        self.csum_offset = 0
        self.iif: Device | None = None
        self.oif: Device | None = None
        self.route: Any = None
        self.nexthop: Any = None
        self.ct: Any = None
        self.ctinfo = CT_NONE
        self.ctdir = 0
        self.ahead = -1
        self.checked = 0
        self.drop_reason = DROP_NOT_SPECIFIED
        self.frag_max_size = 0
        self.extra: Any = None

    def get8(self, off: cython.Py_ssize_t) -> cython.uint:
        """The byte at absolute offset `off`."""
        return self.data[off]

    def get16(self, off: cython.Py_ssize_t) -> cython.uint:
        """Two bytes at absolute offset `off`, network order."""
        d: bytearray = self.data
        return (d[off] << 8) | d[off + 1]

    def get32(self, off: cython.Py_ssize_t) -> cython.uint:
        """Four bytes at absolute offset `off`, network order."""
        d: bytearray = self.data
        hi: cython.uint = (d[off] << 8) | d[off + 1]
        lo: cython.uint = (d[off + 2] << 8) | d[off + 3]
        return (hi << 16) | lo

    def get64(self, off: cython.Py_ssize_t) -> cython.ulonglong:
        """Eight bytes at absolute offset `off`, network order."""
        hi: cython.ulonglong = self.get32(off)
        lo: cython.ulonglong = self.get32(off + 4)
        return (hi << 32) | lo

    def put8(self, off: cython.Py_ssize_t, value: cython.uint) -> cython.int:
        """Write one byte at absolute offset `off`."""
        self.data[off] = value & 0xFF
        return 0

    def put16(self, off: cython.Py_ssize_t, value: cython.uint) -> cython.int:
        """Write two bytes in network order."""
        d: bytearray = self.data
        d[off] = (value >> 8) & 0xFF
        d[off + 1] = value & 0xFF
        return 0

    def put32(self, off: cython.Py_ssize_t, value: cython.uint) -> cython.int:
        """Write four bytes in network order."""
        d: bytearray = self.data
        d[off] = (value >> 24) & 0xFF
        d[off + 1] = (value >> 16) & 0xFF
        d[off + 2] = (value >> 8) & 0xFF
        d[off + 3] = value & 0xFF
        return 0

    def put64(self, off: cython.Py_ssize_t, value: cython.ulonglong) -> cython.int:
        """Write eight bytes in network order."""
        self.put32(off, (value >> 32) & U32_MASK)
        self.put32(off + 4, value & U32_MASK)
        return 0

    def frame(self) -> bytes:
        """A copy of the frame's bytes (tests, pcap, logs; not for the packet path)."""
        return bytes(self.data[self.start : self.end])

    def load_frame(self, frame: bytes | bytearray | memoryview) -> cython.int:
        """Reset, then hold a copy of `frame`. ValueError if it is longer than MAX_FRAME."""
        size: cython.Py_ssize_t = len(frame)
        if size > MAX_FRAME:
            raise ValueError(f"frame of {size} bytes; a packet holds at most {MAX_FRAME}")
        self.reset()
        self.data[HEADROOM : HEADROOM + size] = frame
        self.end = HEADROOM + size
        return 0

    def clone(self) -> Packet:
        """An independent copy of bytes and metadata (dup, fwd to several ports, queueing)."""
        other = Packet()
        other.copy_meta(self)
        other.data[self.start : self.end] = self.data[self.start : self.end]
        return other

    def copy_meta(self, other: Packet) -> cython.int:
        """Take over all metadata of `other`, offsets included, but not its bytes."""
        self.start = other.start
        self.end = other.end
        self.l3 = other.l3
        self.l4 = other.l4
        self.protocol = other.protocol
        self.nfproto = other.nfproto
        self.l4proto = other.l4proto
        self.fragoff = other.fragoff
        self.vlan_tci = other.vlan_tci
        self.pkttype = other.pkttype
        self.is_fragment = other.is_fragment
        self.has_l4 = other.has_l4
        self.nat_done = other.nat_done
        self.trace = other.trace
        self.stolen = False
        self.looped = other.looped
        self.mark = other.mark
        self.priority = other.priority
        self.secmark = other.secmark
        self.ip_options = other.ip_options
        self.vnet_flags = other.vnet_flags
        self.gso_type = other.gso_type
        self.gso_size = other.gso_size
        self.csum_start = other.csum_start
        self.csum_offset = other.csum_offset
        self.iif = other.iif
        self.oif = other.oif
        self.route = other.route
        self.nexthop = other.nexthop
        self.ct = other.ct
        self.ctinfo = other.ctinfo
        self.ctdir = other.ctdir
        self.ahead = -1
        self.checked = other.checked
        self.drop_reason = other.drop_reason
        self.frag_max_size = other.frag_max_size
        self.extra = other.extra
        return 0


class Port:
    """Where a device's frames go out; subclasses in `userfw.ports` also receive.

    `transmit(pkt)` is given a complete frame (link-layer header written) and returns DROP_NOT_SPECIFIED or the DROP_* reason.
    The port may keep a reference to `pkt` until `flush()`, which the gateway calls at the end of every batch, before any
    packet of that batch is reused. A port without an offload segments and completes checksums itself (wire.gso).
    `refused`: for each frame that `transmit` took and that could not be sent later, its DROP_* reason; the gateway counts and
    clears them after `flush`.
    """

    def __init__(self) -> None:
        self.device: Device | None = None
        self.refused: list[int] = []

    def transmit(self, pkt: Packet) -> cython.int:
        """Queue or send one frame; 0, or why it could not be sent."""
        raise NotImplementedError

    def flush(self) -> cython.int:
        """Hand everything queued to the operating system; returns how many frames were sent."""
        return 0


class Address:
    """One address of a device: IPv4 in the low 32 bits of `lo`, IPv6 in `hi` and `lo`, host order."""

    def __init__(self, family: int, hi: int, lo: int, prefixlen: int) -> None:
        self.family = family
        self.hi = hi
        self.lo = lo
        self.prefixlen = prefixlen
        self.scope = 0
        self.secondary = False
        self.deprecated = False
        self.peer: Any = None


class Device:
    """An interface of the gateway, like Linux's net_device.

    - `index`: ifindex, unique and never 0; `ifname`: `name` padded with zero bytes to 16.
    - `type`: ARPHRD_ETHER or ARPHRD_NONE (TUN) or ARPHRD_LOOPBACK; `mac`: 6 bytes (empty without link layer),
      `mac_hi` its first 4 and `mac_lo` its last 2 bytes as numbers.
    - `addresses`: list of Address, primary first for each family. `mtu`: bytes of the network layer.
    - `parent`, `vlan_id`, `vlan_proto`: set on a VLAN device. `master`: the bridge this device is a port of.
    - `ingress`, `egress`: core.hook.HookList of the netdev family, or None. `flowtable`: flowtable.FlowTable at ingress, or None.
    - counters: packets and bytes of frames without the virtio-net header; a GSO packet counts once.
    """

    def __init__(self, name: str, index: int, mac: bytes = b"", mtu: int = 1500, type: int = ARPHRD_ETHER) -> None:
        self.name = name
        self.kind = ""
        self.ifname = name.encode().ljust(16, b"\0")
        self.index = index
        self.mtu = mtu
        self.type = type
        self.group = 0
        self.features = 0
        self.mac = mac
        self.mac_hi = int.from_bytes(mac[:4], "big")
        self.mac_lo = int.from_bytes(mac[4:6], "big")
        self.up = True
        self.promisc = False
        self.addresses: list[Address] = []
        self.port: Port | None = None
        self.parent: Device | None = None
        self.master: Device | None = None
        self.vlan_id = -1
        self.vlan_proto = 0
        self.ingress: Any = None
        self.egress: Any = None
        self.flowtable: Any = None
        self.router: Any = None
        self.bridge: Any = None
        self.rx_packets = 0
        self.rx_bytes = 0
        self.tx_packets = 0
        self.tx_bytes = 0
        self.rx_dropped = 0
        self.tx_dropped = 0
        self.rx_host_packets = 0
