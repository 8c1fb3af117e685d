"""Reassembly of fragments (RFC 791 3.2, RFC 8200 4.5, RFC 5722; Linux: inet_fragment.c, ip_fragment.c, nf_conntrack_reasm.c).

Laws: the memory of all queues is bounded, a queue lives its time and no longer, fragments that overlap kill their queue in
both families, an exact or contained duplicate is ignored, and a queue into which too many other fragments of the same source
fell between two of its own starts over (ipfrag_max_dist). The whole packet stands in the buffer of the fragment that
completed it. Its `frag_max_size` and `extra` (a `FragmentSizes`) let output cut it as it came.
"""

from __future__ import annotations

from typing import Any

import cython

if not cython.compiled:
    from userfw.core.const import (
        CT_UNTRACKED,
        HEADROOM,
        IPPROTO_FRAGMENT,
        IPPROTO_ICMPV6,
        IPPROTO_TCP,
        IPPROTO_UDP,
        MAX_FRAME,
        NF_ACCEPT,
        NF_DROP,
        NF_INET_PRE_ROUTING,
        NF_PRI_CONNTRACK_DEFRAG,
        NF_STOLEN,
        NFPROTO_IPV4,
    )
    from userfw.core.drop import DROP_MALFORMED, DROP_NOT_SPECIFIED, DROP_REASM_LIMIT, DROP_REASM_OVERLAP, DROP_REASM_TIMEOUT
    from userfw.core.hook import HookEntry
    from userfw.core.packet import Device, Packet
    from userfw.router.base import Router, compact
    from userfw.router.const import (
        ICMP_EXC_FRAGTIME,
        ICMP_TIME_EXCEEDED,
        ICMPV6_EXC_FRAGTIME,
        ICMPV6_HDR_FIELD,
        ICMPV6_HDR_INCOMP,
        ICMPV6_PARAMPROB,
        ICMPV6_TIME_EXCEED,
        IP_DF,
        RTN_LOCAL,
        USER_IN,
        USER_LOCAL,
        USER_OUT,
    )
    from userfw.wire.checksum import write_ipv4
    from userfw.wire.parse import parse_network_untrusted

# What a fragment weighs besides its bytes (Linux counts skb->truesize)
OVERHEAD = 256
MAX_SOURCES = 4096
PASS = 2
# Sets of ECN code points seen (bits 1: Not-ECT, 2: ECT(1), 4: ECT(0), 8: CE) that contradict each other (RFC 3168 5.3)
ECN_INVALID = frozenset((0b1001, 0b1011, 0b1101, 0b1111, 0b0011, 0b0101, 0b0111))


class FragmentSizes:
    """Payload bytes of each fragment a packet came in, in order. `for_host`: the host put it together to have it itself."""

    def __init__(self, sizes: list[int], for_host: bool = False) -> None:
        self.sizes = sizes
        self.for_host = for_host


class FragmentQueue:
    """The fragments of one packet: `starts`, `ends`, `parts` sorted by offset; `total`: payload bytes as far as known."""

    def __init__(self, key: tuple[int, ...], family: int, user: int, deadline: int) -> None:
        self.key = key
        self.family = family
        self.user = user
        self.deadline = deadline
        self.starts: list[int] = []
        self.ends: list[int] = []
        self.parts: list[bytes] = []
        self.header = b""
        self.first: Packet | None = None
        self.total = 0
        self.meat = 0
        self.weight = 0
        self.last_in = False
        self.max_size = 0
        self.max_df = 0
        self.ecn = 0
        self.rid = 0


class Reassembly:
    """All fragment queues of one gateway."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self.queues4: dict[tuple[int, ...], FragmentQueue] = {}
        self.queues6: dict[tuple[int, ...], FragmentQueue] = {}
        self.memory = 0
        self.sources: dict[tuple[int, ...], int] = {}
        self.completed = 0
        self.failed = 0

    def gather_untrusted(self, pkt: Packet, user: cython.int) -> cython.int:
        """Take a fragment: 1 if `pkt` is the whole packet now, 0 if it was kept or ignored, -1 if `drop_reason` says why not.

        PASS: not a fragment that conntrack would gather; the packet goes on as it is.
        """
        if pkt.nfproto == NFPROTO_IPV4:
            return self._gather4(pkt, user)
        return self._gather6(pkt, user)

    # -- IPv4

    def _gather4(self, pkt: Packet, user: cython.int) -> cython.int:
        l3: cython.Py_ssize_t = pkt.l3
        field: cython.int = pkt.get16(l3 + 6)
        offset: cython.int = (field & 0x1FFF) * 8
        size: cython.int = cython.cast(cython.int, pkt.end - pkt.l4)
        key = (4, user, pkt.get32(l3 + 12), pkt.get32(l3 + 16), pkt.get16(l3 + 4), pkt.get8(l3 + 9))
        queue = self._find(pkt, key, user, (4, pkt.get32(l3 + 12)))
        if queue is None:
            return self._refuse(pkt, DROP_REASM_LIMIT)
        whole: cython.int = cython.cast(cython.int, pkt.end - l3)
        result: cython.int = self._insert(queue, pkt, pkt.l4, offset, offset + size, (field & 0x2000) != 0)
        if result <= 0:
            return result
        queue.max_size = max(queue.max_size, whole)
        if field & IP_DF:
            queue.max_df = max(queue.max_df, whole)
        queue.ecn |= 1 << (pkt.get8(l3 + 1) & 3)
        if offset == 0:
            queue.header = bytes(pkt.data[l3 : pkt.l4])
            queue.first = compact(pkt)
        return self._complete(queue, pkt)

    def _complete(self, queue: FragmentQueue, pkt: Packet) -> cython.int:
        if queue.first is None or not queue.last_in or queue.meat != queue.total:
            return 0
        self._forget(queue)
        ecn: cython.int = queue.ecn
        if ecn in ECN_INVALID:
            return self._refuse(pkt, DROP_REASM_OVERLAP)
        head: cython.Py_ssize_t = len(queue.header)
        limit: cython.Py_ssize_t = 65535 if queue.family == NFPROTO_IPV4 else 65575
        if head + queue.total > limit:
            return self._refuse(pkt, DROP_MALFORMED)
        self._inherit(queue, pkt)
        self._rebuild(queue, pkt, head)
        if queue.family == NFPROTO_IPV4:
            pkt.put16(pkt.l3 + 2, head + queue.total)
            pkt.put16(pkt.l3 + 6, IP_DF if queue.max_df == queue.max_size else 0)
            if ecn & 8:
                pkt.put8(pkt.l3 + 1, pkt.get8(pkt.l3 + 1) | 3)
            write_ipv4(pkt)
        else:
            pkt.put16(pkt.l3 + 4, head + queue.total - 40)
            if ecn & 8:
                pkt.put8(pkt.l3 + 1, pkt.get8(pkt.l3 + 1) | 0x30)
        pkt.is_fragment = False
        pkt.fragoff = 0
        if parse_network_untrusted(pkt) != DROP_NOT_SPECIFIED:
            return self._refuse(pkt, DROP_MALFORMED)
        pkt.frag_max_size = max(queue.max_size, queue.max_df)
        sizes = [end - start for start, end in zip(queue.starts, queue.ends, strict=True)]
        pkt.extra = FragmentSizes(sizes, queue.user == USER_LOCAL)
        self.completed += 1
        return 1

    def _inherit(self, queue: FragmentQueue, pkt: Packet) -> None:
        """What rules made of the first fragment holds for the whole, whichever came last (Linux: skb_morph in
        inet_frag_reasm_prepare)."""
        first: Packet = cython.cast(Packet, queue.first)
        pkt.mark = first.mark
        pkt.priority = first.priority
        pkt.secmark = first.secmark
        pkt.pkttype = first.pkttype
        pkt.trace = first.trace
        pkt.ct = first.ct
        pkt.ctinfo = first.ctinfo
        pkt.ctdir = first.ctdir

    def _rebuild(self, queue: FragmentQueue, pkt: Packet, head: cython.Py_ssize_t) -> None:
        """Header and parts into `pkt`, behind its own link-layer header."""
        off: cython.Py_ssize_t = pkt.l3 + head
        part: bytes
        if off + queue.total > len(pkt.data):
            pkt.data = pkt.data[: pkt.l3] + bytearray(HEADROOM + MAX_FRAME - pkt.l3)
        pkt.data[pkt.l3 : off] = queue.header
        for part in queue.parts:
            pkt.data[off : off + len(part)] = part
            off += len(part)
        pkt.end = off
        pkt.vnet_flags = 0
        pkt.gso_type = 0
        pkt.gso_size = 0

    # -- IPv6

    def _gather6(self, pkt: Packet, user: cython.int) -> cython.int:
        l3: cython.Py_ssize_t = pkt.l3
        where: cython.Py_ssize_t = fragment_header(pkt)
        if where < 0:
            return self._refuse(pkt, DROP_MALFORMED)
        if _incomplete(pkt, where):
            if user != USER_LOCAL:
                return PASS
            self.router.send_error(pkt, ICMPV6_PARAMPROB, ICMPV6_HDR_INCOMP, 0)
            return self._refuse(pkt, DROP_MALFORMED)
        field: cython.int = pkt.get16(where + 2)
        offset: cython.int = field & 0xFFF8
        more: cython.bint = (field & 1) != 0
        begin: cython.Py_ssize_t = where + 8
        size: cython.int = cython.cast(cython.int, pkt.end - begin)
        if offset + size > 65535:
            return self._problem(pkt, where + 2 - l3, user)
        if more and size & 7:
            return self._problem(pkt, 4, user) if user == USER_LOCAL else PASS
        hi: cython.ulonglong = pkt.get64(l3 + 24)
        scoped: cython.bint = hi >> 56 == 0xFF or hi >> 54 == 0x3FA
        device: Device | None = pkt.iif
        index: cython.int = device.index if scoped and device is not None else 0
        source = (pkt.get64(l3 + 8), pkt.get64(l3 + 16))
        key = (6, user, *source, hi, pkt.get64(l3 + 32), pkt.get32(where + 4), index)
        queue = self._find(pkt, key, user, (6, *source))
        if queue is None:
            return self._refuse(pkt, DROP_REASM_LIMIT)
        whole: cython.int = cython.cast(cython.int, pkt.end - l3)
        result: cython.int = self._insert(queue, pkt, begin, offset, offset + size, more)
        if result <= 0:
            return result
        queue.max_size = max(queue.max_size, whole)
        queue.ecn |= 1 << ((pkt.get8(l3 + 1) >> 4) & 3)
        if offset == 0:
            queue.first = compact(pkt)
            queue.header = _without(pkt, where)
        return self._complete(queue, pkt)

    def _problem(self, pkt: Packet, pointer: cython.Py_ssize_t, user: cython.int) -> cython.int:
        """Only the destination tells the sender; conntrack drops, or (PASS) lets the fragment go on to it."""
        if user != USER_LOCAL:
            return self._refuse(pkt, DROP_MALFORMED)
        self.router.send_error(pkt, ICMPV6_PARAMPROB, ICMPV6_HDR_FIELD, cython.cast(cython.uint, pointer))
        return self._refuse(pkt, DROP_MALFORMED)

    # -- queues

    def _find(self, pkt: Packet, key: Any, user: cython.int, source: Any) -> FragmentQueue | None:
        queues = self._queues(pkt.nfproto)
        queue: FragmentQueue | None = queues.get(key)
        settings = self.router.settings
        now: cython.ulonglong = self.router.clock.now
        if queue is None:
            if self.memory + OVERHEAD > settings.frag_high:
                return None
            span = settings.frag_time4 if pkt.nfproto == NFPROTO_IPV4 else settings.frag_time6
            queue = FragmentQueue(key, pkt.nfproto, user, now + span)
            queue.weight = OVERHEAD
            self.memory += OVERHEAD
            queues[key] = queue
        elif self.memory > settings.frag_high:
            return None
        if pkt.nfproto == NFPROTO_IPV4 and user != USER_OUT:
            self._distance(queue, source)
        return queue

    def _distance(self, queue: FragmentQueue, source: Any) -> None:
        """Linux: ip_frag_too_far, ip_frag_reinit."""
        count: cython.int = self.sources.get(source, 0) + 1
        if count == 1 and len(self.sources) >= MAX_SOURCES:
            self.sources.pop(next(iter(self.sources)))
        self.sources[source] = count
        far: cython.bint = len(queue.starts) > 0 and count - queue.rid > self.router.settings.frag_max_dist
        queue.rid = count
        if not far or self.router.settings.frag_max_dist == 0:
            return
        self._lose(queue, DROP_REASM_TIMEOUT)
        self.memory += OVERHEAD - queue.weight
        queue.weight = OVERHEAD
        queue.starts, queue.ends, queue.parts = [], [], []
        queue.header, queue.first = b"", None
        queue.total = queue.meat = queue.max_size = queue.max_df = queue.ecn = 0
        queue.last_in = False

    def _insert(
        self,
        queue: FragmentQueue,
        pkt: Packet,
        begin: cython.Py_ssize_t,
        start: cython.int,
        end: cython.int,
        more: cython.bint,
    ) -> cython.int:
        """Linux: ip_frag_queue, ip6_frag_queue. 1 if the fragment is new, 0 if a duplicate, -1 if refused."""
        if not more:
            if end < queue.total or (queue.last_in and end != queue.total):
                return self._kill(queue, pkt)
            queue.last_in = True
            queue.total = end
        else:
            end &= ~7
            if end > queue.total:
                if queue.last_in:
                    return self._kill(queue, pkt)
                queue.total = end
        if end == start:
            return self._kill(queue, pkt)
        place: cython.int = self._place(queue, start, end)
        if place == -1:
            self.router.count("frag_duplicate")
            return 0
        if place < 0:
            return self._kill(queue, pkt)
        queue.starts.insert(place, start)
        queue.ends.insert(place, end)
        queue.parts.insert(place, bytes(pkt.data[begin : begin + (end - start)]))
        queue.meat += end - start
        weight: cython.Py_ssize_t = end - start + OVERHEAD
        if start == 0:
            weight += end + OVERHEAD
        queue.weight += weight
        self.memory += weight
        return 1

    def _place(self, queue: FragmentQueue, start: cython.int, end: cython.int) -> cython.int:
        """Where the fragment belongs; -1: inside what one contiguous run holds already, -2: it overlaps."""
        i: cython.int = len(queue.starts)
        low: cython.int
        high: cython.int
        while i > 0 and queue.starts[i - 1] >= end:
            i -= 1
        if i == 0 or queue.ends[i - 1] <= start:
            return i
        # it touches fragment i - 1: a duplicate if the run around it holds it whole
        low = high = i - 1
        while low > 0 and queue.ends[low - 1] == queue.starts[low]:
            low -= 1
        while high + 1 < len(queue.starts) and queue.starts[high + 1] == queue.ends[high]:
            high += 1
        if queue.starts[low] <= start and end <= queue.ends[high]:
            return -1
        return -2

    def _kill(self, queue: FragmentQueue, pkt: Packet) -> cython.int:
        """Drop the queue and this fragment."""
        self._lose(queue, DROP_REASM_OVERLAP)
        self._forget(queue)
        return self._refuse(pkt, DROP_REASM_OVERLAP)

    def _refuse(self, pkt: Packet, reason: cython.int) -> cython.int:
        pkt.drop_reason = reason
        self.failed += 1
        return -1

    def _lose(self, queue: FragmentQueue, reason: cython.int) -> None:
        """Count the fragments that were kept for nothing."""
        shadow: Packet | None = queue.first
        for _ in queue.starts:
            self.router.count_drop(shadow, reason)

    def _forget(self, queue: FragmentQueue) -> None:
        self.memory -= queue.weight
        queue.weight = 0
        self._queues(queue.family).pop(queue.key, None)

    def _queues(self, family: cython.int) -> dict[tuple[int, ...], FragmentQueue]:
        return self.queues4 if family == NFPROTO_IPV4 else self.queues6

    # -- time

    def next_deadline(self) -> int:
        """When the oldest queue runs out; 0 if there is none."""
        oldest = [next(iter(queues.values())).deadline for queues in (self.queues4, self.queues6) if queues]
        return min(oldest) if oldest else 0

    def tick(self, now: cython.ulonglong) -> None:
        """Let queues that are too old go; a first fragment for us is answered by time exceeded (Linux: ip_expire)."""
        for queues in (self.queues4, self.queues6):
            while queues:
                queue: FragmentQueue = next(iter(queues.values()))  # insertion order is order of deadlines
                if queue.deadline > now:
                    break
                self._forget(queue)
                self.failed += 1
                if queue.first is not None:
                    self._expired(queue, queue.first)
                self._lose(queue, DROP_REASM_TIMEOUT)

    def _expired(self, queue: FragmentQueue, first: Packet) -> None:
        if queue.family != NFPROTO_IPV4:
            self.router.send_error(first, ICMPV6_TIME_EXCEED, ICMPV6_EXC_FRAGTIME, 0)
            return
        to: cython.uint = first.get32(first.l3 + 16)
        if queue.user == USER_LOCAL or self.router.routes.resolve(NFPROTO_IPV4, 0, to, 0, 0, 0, None).type == RTN_LOCAL:
            self.router.send_error(first, ICMP_TIME_EXCEEDED, ICMP_EXC_FRAGTIME, 0)


class Defrag(HookEntry):
    """Reassembles before conntrack, at prerouting and output of both families (Linux: nf_defrag_ipv4, nf_defrag_ipv6)."""

    def __init__(self, reassembly: Reassembly) -> None:
        super().__init__(NF_PRI_CONNTRACK_DEFRAG)
        self.reassembly = reassembly

    def run(self, pkt: Packet, hook: cython.int) -> cython.int:
        """NF_ACCEPT with the whole packet, NF_STOLEN while fragments are missing."""
        if not pkt.is_fragment and (pkt.has_l4 or pkt.nfproto == NFPROTO_IPV4):
            return NF_ACCEPT
        if pkt.ctinfo == CT_UNTRACKED or pkt.ct is not None:
            return NF_ACCEPT
        if not pkt.is_fragment:
            pkt.drop_reason = DROP_MALFORMED
            return NF_DROP if _unreadable(pkt) else NF_ACCEPT
        result: cython.int = self.reassembly.gather_untrusted(pkt, USER_IN if hook == NF_INET_PRE_ROUTING else USER_OUT)
        if result > 0:
            return NF_ACCEPT
        return NF_STOLEN if result == 0 else NF_DROP


def fragment_header(pkt: Packet) -> cython.Py_ssize_t:
    """Offset of an IPv6 packet's fragment header, -1 if there is none before the transport header."""
    proto: cython.int = pkt.get8(pkt.l3 + 6)
    off: cython.Py_ssize_t = pkt.l3 + 40
    while proto in (0, 43, 60, IPPROTO_FRAGMENT):
        if off + 8 > pkt.end:
            return -1
        if proto == IPPROTO_FRAGMENT:
            return off
        proto = pkt.get8(off)
        off += (pkt.get8(off + 1) + 1) * 8
    return -1


def whole_fragment(pkt: Packet) -> cython.bint:
    """A fragment that is the whole packet (RFC 8200 4.5): its host takes it with the header that says so (Linux: ipv6_frag_rcv)."""
    where: cython.Py_ssize_t = fragment_header(pkt)
    return where >= 0 and pkt.get16(where + 2) & 0xFFF9 == 0


def _cut_fragment(pkt: Packet) -> cython.Py_ssize_t:
    """Offset of an IPv6 packet's first fragment header if that is cut off, else -1."""
    proto: cython.int = pkt.get8(pkt.l3 + 6)
    off: cython.Py_ssize_t = pkt.l3 + 40
    while proto != IPPROTO_FRAGMENT:
        if proto not in (0, 43, 51, 60) or off + 2 > pkt.end:
            return -1
        step: cython.Py_ssize_t = (pkt.get8(off + 1) + 2) * 4 if proto == 51 else (pkt.get8(off + 1) + 1) * 8
        proto = pkt.get8(off)
        off += step
    return off if off <= pkt.end < off + 8 else -1


def _unreadable(pkt: Packet) -> cython.bint:
    """Its fragment header is cut off; but not if enough is left to see that the transport is missing (Linux: nf_ct_frag6_gather,
    which leaves these to the host)."""
    where: cython.Py_ssize_t = _cut_fragment(pkt)
    if where < 0 or pkt.get16(pkt.l3 + 4) == 0:
        return False
    if where + 4 > pkt.end or pkt.get16(where + 2) & 0xFFF8:
        return True
    return pkt.get8(where) in (0, 43, IPPROTO_FRAGMENT, 51, 59, 60)


def _incomplete(pkt: Packet, where: cython.Py_ssize_t) -> cython.bint:
    """A first fragment that does not hold all headers (RFC 8200 4.5; Linux: ipv6frag_thdr_truncated)."""
    if pkt.get16(where + 2) & 0xFFF8 or (not pkt.has_l4 and (pkt.l4proto == 59 or pkt.l4 <= pkt.end)):
        return False
    need: cython.Py_ssize_t = 1
    if pkt.l4proto == IPPROTO_TCP:
        need = 20
    elif pkt.l4proto in (IPPROTO_UDP, IPPROTO_ICMPV6):
        need = 8
    return pkt.l4 + need > pkt.end


def _without(pkt: Packet, where: cython.Py_ssize_t) -> bytes:
    """The headers in front of the fragment header, the last one naming what the fragment header named."""
    header = bytearray(pkt.data[pkt.l3 : where])
    off: cython.Py_ssize_t = 6
    step: cython.Py_ssize_t = 40
    while step < len(header):
        off = step
        step += (header[step + 1] + 1) * 8
    header[off] = pkt.get8(where)
    return bytes(header)
