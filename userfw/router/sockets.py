"""Local sockets: which one a packet belongs to, and assigning packets to transparent ones.

(Linux: nf_socket_ipv4.c, nf_tproxy_ipv4.c, nft_tproxy.c)

Laws:
- Sockets are those of the services behind the local port. A lookup is a system call, so its answer is kept for a moment:
  LISTENING_NS, or ESTABLISHED_NS for a connection, and at most CACHE answers. A connection comes to be between two packets: until
  one is found, RETRIES later segments ask anew.
- `find` answers for a packet that comes in; for one of the gateway's own (no input device) it finds the sender.
- An assigned packet keeps its socket in `extra`; whether it is delivered is for the routing rules to say, as in Linux.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from userfw.core.const import (
    CT_ESTABLISHED,
    CT_RELATED,
    IPPROTO_ICMP,
    IPPROTO_ICMPV6,
    IPPROTO_TCP,
    IPPROTO_UDP,
    IPS_SRC_NAT_DONE,
    NFPROTO_IPV4,
    NFPROTO_IPV6,
)
from userfw.core.packet import Packet
from userfw.engine.services import SocketInfo
from userfw.router.fib import local_address

if TYPE_CHECKING:
    from userfw.router.gateway import Gateway

LISTENING_NS = 20_000_000
ESTABLISHED_NS = 1_000_000_000
CACHE = 4096
RETRIES = 4
TCP_ESTABLISHED, TCP_SYN_RECV, TCP_TIME_WAIT = 1, 3, 6

Key = tuple[int, bytes, int, bytes, int]


class Provider(Protocol):
    """Who knows sockets: ports.redirect.LocalSockets."""

    def find(self, proto: int, local: bytes, port: int, remote: bytes, remote_port: int) -> Any: ...

    def ancestors(self, cgroup: int) -> list[int]: ...

    def group_of(self, inode: int) -> int: ...

    def redirect(self, flow: Key, to: bytes, port: int) -> bool: ...

    def settle(self, flow: Key) -> None: ...

    def close(self) -> None: ...


class Sockets:
    """The lookups of one gateway. `provider` None: no sockets. `questions`, `failures`: lookups made, and not answered."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.provider: Provider | None = None
        self.cache: dict[Key, tuple[int, SocketInfo | None, int]] = {}
        self.questions = 0
        self.failures = 0

    # -- the socket of a packet

    def find(self, pkt: Packet) -> SocketInfo | None:
        """See engine.services.Services.socket."""
        if isinstance(pkt.extra, SocketInfo):
            return pkt.extra
        if self.provider is None:
            return None
        key = self._sender(pkt) if pkt.iif is None else self._receiver(pkt)
        return self._ask(key, _first(pkt)) if key is not None else None

    def _sender(self, pkt: Packet) -> Key | None:
        if not self._has_ports(pkt):
            return None
        src, dst = _addresses(pkt, pkt.l3)
        return (pkt.l4proto, src, pkt.get16(pkt.l4), dst, pkt.get16(pkt.l4 + 2))

    def _receiver(self, pkt: Packet) -> Key | None:
        """The flow of the packet, or of the one that an ICMP error quotes; behind source NAT as the socket knows it."""
        conn = pkt.ct
        if self._has_ports(pkt):
            src, dst = _addresses(pkt, pkt.l3)
            key = (pkt.l4proto, dst, pkt.get16(pkt.l4 + 2), src, pkt.get16(pkt.l4))
            translated = pkt.ctinfo == CT_ESTABLISHED
        else:
            quoted = self._quoted(pkt)
            if quoted is None:
                return None
            key = quoted
            translated = pkt.ctinfo == CT_RELATED
        if conn is not None and pkt.ctdir and translated and conn.status & IPS_SRC_NAT_DONE:
            own = conn.orig
            size = len(key[1])
            address = ((own.src_hi << 64) | own.src_lo).to_bytes(16, "big")[16 - size :]
            return (key[0], address, own.sport, key[3], key[4])
        return key

    def _has_ports(self, pkt: Packet) -> bool:
        return pkt.l4proto in (IPPROTO_TCP, IPPROTO_UDP) and pkt.has_l4 and pkt.l4 + 8 <= pkt.end

    def _quoted(self, pkt: Packet) -> Key | None:
        """Linux: extract_icmp4_fields, extract_icmp6_fields: the quoted packet is one that a socket here has sent."""
        at = pkt.l4 + 8
        if not pkt.has_l4:
            return None
        if pkt.nfproto == NFPROTO_IPV4 and pkt.l4proto == IPPROTO_ICMP:
            if at + 28 > pkt.end or pkt.get8(pkt.l4) not in (3, 4, 5, 11, 12) or pkt.get16(at + 6) & 0x1FFF:
                return None
            proto, l4 = pkt.get8(at + 9), at + (pkt.get8(at) & 15) * 4
        elif pkt.nfproto == NFPROTO_IPV6 and pkt.l4proto == IPPROTO_ICMPV6:
            if at + 48 > pkt.end or pkt.get8(pkt.l4) >= 128:
                return None
            proto, l4 = pkt.get8(at + 6), at + 40
        else:
            return None
        if proto not in (IPPROTO_TCP, IPPROTO_UDP) or l4 + 4 > pkt.end:
            return None
        src, dst = _addresses(pkt, at)
        return (proto, src, pkt.get16(l4), dst, pkt.get16(l4 + 2))

    def _ask(self, key: Key, again: bool = True) -> SocketInfo | None:
        """`again`: an answer that was given to this flow's first packet still holds."""
        now = int(self.gateway.clock.now)
        kept = self.cache.get(key)
        tries = 0
        if kept is not None and now < kept[0]:
            tries = kept[2] + 1
            if again or (kept[1] is not None and kept[1].established) or tries > RETRIES:
                return kept[1]
        if len(self.cache) >= CACHE:
            self.cache.clear()
        assert self.provider is not None
        self.questions += 1
        try:
            found = self.provider.find(*key)
        except OSError:
            self.failures += 1
            found = None
        info = self._info(key, found) if found is not None else None
        opening = found is not None and found.state == TCP_SYN_RECV
        self.cache[key] = (now + (0 if opening else ESTABLISHED_NS if info and info.established else LISTENING_NS), info, tries)
        return info

    def _info(self, key: Key, found: Any) -> SocketInfo:
        assert self.provider is not None
        info = SocketInfo()
        info.established = found.state == TCP_ESTABLISHED if key[0] == IPPROTO_UDP else found.state not in (0, 7, 10)
        info.time_wait = key[0] == IPPROTO_TCP and found.state == TCP_TIME_WAIT
        # what is told of a connection that is being opened is its addresses; only a transparent socket has those of others
        info.transparent = found.transparent or (found.state == TCP_SYN_RECV and not self._own(key[1]))
        info.wildcard = not any(found.local)
        info.mark, info.uid, info.classid = found.mark, found.uid, found.classid
        info.cgroups = self.provider.ancestors(found.cgroup) if found.cgroup else []
        provider, inode = self.provider, found.inode
        info.inode = inode
        info.group_of = lambda: provider.group_of(inode)
        return info

    def _own(self, address: bytes) -> bool:
        value = int.from_bytes(address, "big")
        family = NFPROTO_IPV4 if len(address) == 4 else NFPROTO_IPV6
        return local_address(self.gateway.routes, family, value >> 64, value & ((1 << 64) - 1)) is not None

    # -- tproxy

    def assign(self, pkt: Packet, family: int, address: bytes, port: int) -> int:
        """See engine.services.Services.tproxy (Linux: nft_tproxy_eval_v4)."""
        if self.provider is None:
            return 0
        src, dst = _addresses(pkt, pkt.l3)
        sport, dport = pkt.get16(pkt.l4), pkt.get16(pkt.l4 + 2)
        address = address or self._own_address(pkt, dst)
        port = port or dport
        nearest = info = self._ask((pkt.l4proto, dst, dport, src, sport), _first(pkt))
        if info is not None and not info.established:
            info = None
        if info is None or (info.time_wait and pkt.l4proto == IPPROTO_TCP and pkt.get8(pkt.l4 + 13) & 0x17 == 2):
            listener = self._ask((pkt.l4proto, address, port, src, sport))
            if listener is not None and listener.established:
                listener = None
            if listener is not None and listener.transparent and _elsewhere(listener, nearest, port != dport, address != dst):
                if not self.provider.redirect((pkt.l4proto, src, sport, dst, dport), address, port):
                    self.gateway.count("tproxy.not_redirected")
                    return 0
            info = listener or info
        elif pkt.l4proto == IPPROTO_UDP:
            self.provider.settle((pkt.l4proto, src, sport, dst, dport))
        if info is None or not info.transparent:
            return 0
        pkt.extra = info
        return 1

    def _own_address(self, pkt: Packet, dst: bytes) -> bytes:
        """The first address of the incoming device (Linux: nf_tproxy_laddr4, nf_tproxy_laddr6)."""
        device = pkt.iif
        size = len(dst)
        family = NFPROTO_IPV4 if size == 4 else NFPROTO_IPV6
        for own in device.addresses if device is not None else ():
            if own.family == family and not own.secondary and not own.deprecated:
                return bytes(((own.hi << 64) | own.lo).to_bytes(16, "big")[16 - size :])
        return dst


def _elsewhere(listener: SocketInfo, nearest: SocketInfo | None, other_port: bool, other_address: bool) -> bool:
    """Whether the kernel behind the TUN port, left alone, would not give `listener` the packet: `nearest`, bound to the very
    address that the packet is for, comes before one that is bound to any."""
    if other_port or (other_address and not listener.wildcard):
        return True
    return nearest is not None and not nearest.established and nearest.inode != listener.inode


def _first(pkt: Packet) -> bool:
    """Not a later segment of a TCP connection."""
    return pkt.l4proto != IPPROTO_TCP or pkt.l4 + 14 > pkt.end or pkt.get8(pkt.l4 + 13) & 0x12 == 2


def _addresses(pkt: Packet, l3: int) -> tuple[bytes, bytes]:
    """Source and destination of the network header at `l3`."""
    if pkt.nfproto == NFPROTO_IPV4:
        return bytes(pkt.data[l3 + 12 : l3 + 16]), bytes(pkt.data[l3 + 16 : l3 + 20])
    return bytes(pkt.data[l3 + 8 : l3 + 24]), bytes(pkt.data[l3 + 24 : l3 + 40])
