"""SYN proxy: the handshake with the client by cookie, then one with the server, then sequence numbers are moved.

(Linux: nf_synproxy_core.c, syncookies.c; RFC 4987)

Laws:
- Until a client has returned the cookie nothing is stored: all that is known of its SYN stands in the sequence number (its MSS) and
  in the timestamp (window scale, SACK, ECN).
- The SYN to the server carries the cookie as its acknowledgement number and opens the connection; `SynproxyEntry`, right before
  the connection is confirmed, learns from it what the client believes the server's numbers are.
- From then on conntrack.seqadj moves the server's sequence numbers and `_timestamps` its timestamps.
- Everything sent here meets the output and postrouting hooks as packets of the gateway do.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Any

import cython

if not cython.compiled:
    from userfw.conntrack.conn import Conn, SeqAdj
    from userfw.conntrack.const import CT_EVENT_SEQADJ, TCP_CLOSE, TCP_SYN_RECV, TCP_SYN_SENT
    from userfw.core.const import (
        ARPHRD_LOOPBACK,
        CT_DIR_ORIGINAL,
        CT_DIR_REPLY,
        CT_ESTABLISHED,
        CT_NEW,
        CT_NONE,
        IPPROTO_TCP,
        IPS_SEQ_ADJUST,
        IPS_TEMPLATE,
        NF_ACCEPT,
        NF_DROP,
        NF_STOLEN,
        NFPROTO_IPV4,
        TCP_ACK,
        TCP_CWR,
        TCP_ECE,
        TCP_RST,
        TCP_SYN,
        U32_MASK,
        VNET_F_NEEDS_CSUM,
    )
    from userfw.core.drop import DROP_MALFORMED, DROP_SYNPROXY
    from userfw.core.hook import HookEntry
    from userfw.core.packet import Packet
    from userfw.router.base import Router
    from userfw.wire.build import ipv4, ipv6, leave_checksum
    from userfw.wire.checksum import replace32
    from userfw.wire.options import next_option

    # Linux: NF_SYNPROXY_OPT_*, MAX_SYNCOOKIE_AGE (in minutes)
    OPT_MSS, OPT_WSCALE, OPT_SACK, OPT_TIMESTAMP, OPT_ECN = 1, 2, 4, 8, 16
    MAX_AGE, MINUTE = 2, 60000000000

MSS_IPV4 = (536, 1300, 1440, 1460)
MSS_IPV6 = (1280 - 60, 1480 - 60, 1500 - 60, 9000 - 60)


class Options:
    """What of a segment's options a SYN proxy knows. `given`: OPT_*; `encode`: the MSS that the cookie keeps."""

    def __init__(self) -> None:
        self.given = 0
        self.mss = 0
        self.encode = 0
        self.wscale = 0
        self.tsval = 0
        self.tsecr = 0

    def read_untrusted(self, pkt: Packet) -> cython.bint:
        """The options of the segment at `l4`; False if its header is cut short (Linux: synproxy_parse_options)."""
        at: cython.Py_ssize_t = pkt.l4 + 20
        end: cython.Py_ssize_t = pkt.l4 + (pkt.get8(pkt.l4 + 12) >> 4) * 4
        kind: cython.int
        size: cython.int
        self.given = self.mss = self.encode = self.wscale = 0
        self.tsval = self.tsecr = 0
        if end > pkt.end:
            return False
        at = next_option(pkt, at, end)
        while at >= 0:
            kind = pkt.get8(at)
            size = pkt.get8(at + 1)
            if kind == 2 and size == 4:
                self.mss = pkt.get16(at + 2)
                self.given |= OPT_MSS
            elif kind == 3 and size == 3:
                self.wscale = min(pkt.get8(at + 2), 14)
                self.given |= OPT_WSCALE
            elif kind == 8 and size == 10:
                self.tsval = pkt.get32(at + 2)
                self.tsecr = pkt.get32(at + 6)
                self.given |= OPT_TIMESTAMP
            elif kind == 4 and size == 2:
                self.given |= OPT_SACK
            at = next_option(pkt, at + size, end)
        return True

    def size(self) -> cython.int:
        """Bytes that `write` needs."""
        size: cython.int = 4 if self.given & OPT_MSS else 0
        if self.given & OPT_TIMESTAMP:
            size += 12
        elif self.given & OPT_SACK:
            size += 4
        return size + (4 if self.given & OPT_WSCALE else 0)

    def write(self, pkt: Packet, at: cython.Py_ssize_t) -> cython.int:
        """Put them at `at` (Linux: synproxy_build_options)."""
        if self.given & OPT_MSS:
            pkt.put32(at, 0x02040000 | self.mss)
            at += 4
        if self.given & OPT_TIMESTAMP:
            pkt.put32(at, 0x0402080A if self.given & OPT_SACK else 0x0101080A)
            pkt.put32(at + 4, self.tsval)
            pkt.put32(at + 8, self.tsecr)
            at += 12
        elif self.given & OPT_SACK:
            pkt.put32(at, 0x01010402)
            at += 4
        if self.given & OPT_WSCALE:
            pkt.put32(at, 0x01030300 | self.wscale)
        return 0


class Synproxy:
    """The proxy of one gateway. Counters as /proc/net/stat/synproxy: `syns`, `valid`, `invalid`, `reopened`."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self.secret: bytes = router.rng.randbytes(32)
        self.options = Options()
        self.template = Conn()
        self.template.status = IPS_TEMPLATE
        self.template.zone_dir = 3
        self.template.ext = {"synproxy": None}
        self.syns = 0
        self.valid = 0
        self.invalid = 0
        self.reopened = 0

    # -- the statement

    def statement(self, pkt: Packet, mss: cython.int, wscale: cython.int, flags: cython.int) -> cython.int:
        """See engine.services.Services.synproxy; the checksum is right."""
        options: Options = self.options
        bits: cython.int = pkt.get8(pkt.l4 + 13)
        if not options.read_untrusted(pkt):
            pkt.drop_reason = DROP_MALFORMED
            return NF_DROP
        if bits & TCP_SYN:
            self.syns += 1
            if bits & TCP_ECE and bits & TCP_CWR:
                options.given |= OPT_ECN
            options.given &= flags
            options.encode = options.mss
            options.mss = mss
            if options.given & OPT_TIMESTAMP:
                self._timestamp_cookie(wscale)
            else:
                options.given &= OPT_MSS | OPT_TIMESTAMP
            self._answer_syn(pkt)
            return NF_STOLEN
        if bits & TCP_ACK:
            return NF_STOLEN if self._client_ack(pkt, pkt.get32(pkt.l4 + 4)) else NF_DROP
        return NF_ACCEPT

    def _timestamp_cookie(self, wscale: cython.int) -> cython.int:
        """What the client can do goes into the low bits of our timestamp (Linux: synproxy_init_timestamp_cookie)."""
        options: Options = self.options
        millis: cython.ulonglong = self.router.clock.now
        millis = (millis // 1000000) & U32_MASK
        value: cython.uint = cython.cast(cython.uint, millis)
        value = (value >> 6) << 6
        options.tsecr = options.tsval
        if options.given & OPT_WSCALE:
            value |= options.wscale
            options.wscale = wscale
        else:
            value |= 15
        if options.given & OPT_SACK:
            value |= 16
        if options.given & OPT_ECN:
            value |= 32
        options.tsval = value
        return 0

    def _answer_syn(self, pkt: Packet) -> cython.int:
        """SYN and ACK to the client, with a closed window (Linux: synproxy_send_client_synack)."""
        flags: cython.int = TCP_SYN | TCP_ACK
        if self.options.given & OPT_ECN:
            flags |= TCP_ECE
        seq: cython.uint = self.cookie(pkt, self.options.encode, pkt.get32(pkt.l4 + 4))
        return self._send(pkt, True, seq, pkt.get32(pkt.l4 + 4) + 1, flags, 0, pkt.ct, CT_ESTABLISHED, CT_DIR_REPLY)

    def _client_ack(self, pkt: Packet, seq: cython.uint) -> cython.bint:
        """The client's ACK: if it holds our cookie, a SYN to the server (Linux: synproxy_recv_client_ack).

        `seq`: the number of its first octet; for a keep-alive the next one. Other than in Linux, the cookie is asked for that.
        """
        mss: cython.int = self.check(pkt, (pkt.get32(pkt.l4 + 8) - 1) & U32_MASK, (seq - 1) & U32_MASK)
        options: Options = self.options
        if mss == 0:
            self.invalid += 1
            return False
        self.valid += 1
        options.mss = mss
        options.given |= OPT_MSS
        if options.given & OPT_TIMESTAMP:
            options.wscale = options.tsecr & 15
            if options.wscale != 15:
                options.given |= OPT_WSCALE
            if options.tsecr & 16:
                options.given |= OPT_SACK
            if options.tsecr & 32:
                options.given |= OPT_ECN
        flags: cython.int = TCP_SYN
        if options.given & OPT_ECN:
            flags |= TCP_ECE | TCP_CWR
        self._send(
            pkt, False, seq - 1, pkt.get32(pkt.l4 + 8) - 1, flags, pkt.get16(pkt.l4 + 14), self.template, CT_NEW, CT_DIR_ORIGINAL
        )
        return True

    def _send(
        self,
        pkt: Packet,
        back: cython.bint,
        seq: cython.uint,
        ack: cython.uint,
        flags: cython.int,
        window: cython.int,
        conn: Any,
        ctinfo: cython.int,
        direction: cython.int,
    ) -> cython.int:
        """A segment with `options`, from the sender of `pkt` to its receiver, or `back`; of connection `conn` (None: as conntrack
        finds)."""
        reply: Packet = self.router.take()
        size: cython.int = 20 + self.options.size()
        l3: cython.Py_ssize_t = pkt.l3
        src: cython.Py_ssize_t
        dst: cython.Py_ssize_t
        ttl: cython.int = self.router.settings.ttl
        if pkt.nfproto == NFPROTO_IPV4:
            src, dst = (l3 + 16, l3 + 12) if back else (l3 + 12, l3 + 16)
            ipv4(reply, IPPROTO_TCP, size, pkt.get32(src), pkt.get32(dst), ttl, 0, 0, True)
        else:
            src, dst = (l3 + 24, l3 + 8) if back else (l3 + 8, l3 + 24)
            ipv6(reply, IPPROTO_TCP, size, pkt.get64(src), pkt.get64(src + 8), pkt.get64(dst), pkt.get64(dst + 8), 64, 0)
        l4: cython.Py_ssize_t = reply.l4
        reply.put16(l4, pkt.get16(pkt.l4 + (2 if back else 0)))
        reply.put16(l4 + 2, pkt.get16(pkt.l4 + (0 if back else 2)))
        reply.put32(l4 + 4, seq)
        reply.put32(l4 + 8, ack)
        reply.put16(l4 + 12, ((size // 4) << 12) | flags)
        reply.put16(l4 + 14, window)
        reply.put32(l4 + 16, 0)
        self.options.write(reply, l4 + 20)
        leave_checksum(reply, 16)
        if conn is not None:
            reply.ct = conn
            reply.ctinfo = ctinfo
            reply.ctdir = direction
        self.router.local_out(reply)
        self.router.give(reply)
        return 0

    # -- cookies

    def _hash(self, pkt: Packet, count: cython.longlong, which: cython.int) -> cython.uint:
        """32 bits of the connection, as its initiator sends it (Linux: cookie_hash)."""
        size: cython.Py_ssize_t = 8 if pkt.nfproto == NFPROTO_IPV4 else 32
        at: cython.Py_ssize_t = pkt.l3 + (12 if pkt.nfproto == NFPROTO_IPV4 else 8)
        data = bytes(pkt.data[at : at + size]) + bytes(pkt.data[pkt.l4 : pkt.l4 + 4]) + struct.pack("!QB", count, which)
        found: cython.uint = int.from_bytes(hashlib.blake2s(data, digest_size=4, key=self.secret).digest(), "big")
        return found

    def cookie(self, pkt: Packet, mss: cython.int, seq: cython.uint) -> cython.uint:
        """The initial sequence number for the SYN `pkt` (Linux: __cookie_v4_init_sequence, secure_tcp_syn_cookie)."""
        table = MSS_IPV4 if pkt.nfproto == NFPROTO_IPV4 else MSS_IPV6
        index: cython.int = 3
        while index and mss < table[index]:
            index -= 1
        count: cython.longlong = self.router.clock.now // MINUTE
        value: cython.ulonglong = self._hash(pkt, 0, 0)
        value += seq
        value += ((count & 0xFF) << 24) + ((self._hash(pkt, count, 1) + index) & 0xFFFFFF)
        return value & U32_MASK

    def check(self, pkt: Packet, cookie: cython.uint, seq: cython.uint) -> cython.int:
        """The MSS that is in a cookie, or 0 (Linux: __cookie_v4_check, check_tcp_syn_cookie). `seq`: of the client's SYN."""
        count: cython.longlong = self.router.clock.now // MINUTE
        value: cython.uint = (cookie - self._hash(pkt, 0, 0) - seq) & U32_MASK
        age: cython.longlong = (count - (value >> 24)) & 0xFF
        if age >= MAX_AGE:
            return 0
        index: cython.uint = (value - self._hash(pkt, count - age, 1)) & 0xFFFFFF
        table = MSS_IPV4 if pkt.nfproto == NFPROTO_IPV4 else MSS_IPV6
        return table[index] if index < 4 else 0

    # -- the hook

    def hook(self, pkt: Packet, conn: Conn) -> cython.int:
        """A packet of a proxied connection, about to be confirmed (Linux: ipv4_synproxy_hook).

        `state`: the server's initial sequence number as the client knows it, our timestamp then, the timestamps' offset.
        """
        state = conn.ext["synproxy"]
        bits: cython.int
        if pkt.l4 + 20 > pkt.end:
            pkt.drop_reason = DROP_MALFORMED
            return NF_DROP
        if state is None:
            state = conn.ext["synproxy"] = [0, 0, 0]
        bits = pkt.get8(pkt.l4 + 13)
        if conn.state == TCP_CLOSE:
            if bits & TCP_RST and pkt.ctdir != CT_DIR_ORIGINAL:
                self._move(conn, pkt.ctdir, (state[0] - pkt.get32(pkt.l4 + 4) + 1) & U32_MASK)
            elif bits & TCP_SYN and not bits & TCP_ACK and pkt.ctdir == CT_DIR_ORIGINAL:
                state[2] = 0
                self.reopened += 1
                return self._opening(pkt, state, bits)
        elif conn.state == TCP_SYN_SENT:
            return self._opening(pkt, state, bits)
        elif conn.state == TCP_SYN_RECV and bits & TCP_SYN and bits & TCP_ACK:
            return self._server_answers(pkt, conn, state)
        if state[2]:
            self._timestamps(pkt, state[2])
        return NF_ACCEPT

    def _opening(self, pkt: Packet, state: list, bits: cython.int) -> cython.int:  # type: ignore[type-arg]
        """The SYN to the server, or a client that asks again before the server answered."""
        if not self.options.read_untrusted(pkt):
            pkt.drop_reason = DROP_MALFORMED
            return NF_DROP
        if not bits & TCP_SYN and bits & TCP_ACK and pkt.ctdir == CT_DIR_ORIGINAL:
            # a keep-alive is one octet behind, so this makes it the SYN's number again
            if self._client_ack(pkt, pkt.get32(pkt.l4 + 4) + 1):
                return NF_STOLEN
            pkt.drop_reason = DROP_SYNPROXY
            return NF_DROP
        state[0] = pkt.get32(pkt.l4 + 8)
        if self.options.given & OPT_TIMESTAMP:
            state[1] = self.options.tsecr
        if state[2]:
            self._timestamps(pkt, state[2])
        return NF_ACCEPT

    def _server_answers(self, pkt: Packet, conn: Conn, state: list) -> cython.int:  # type: ignore[type-arg]
        """The server's SYN and ACK: acknowledge it, and open the window for the client."""
        options: Options = self.options
        seq: cython.uint = pkt.get32(pkt.l4 + 4)
        ack: cython.uint = pkt.get32(pkt.l4 + 8)
        if not options.read_untrusted(pkt):
            pkt.drop_reason = DROP_MALFORMED
            return NF_DROP
        if options.given & OPT_TIMESTAMP:
            state[2] = (options.tsval - state[1]) & U32_MASK
        options.given &= OPT_TIMESTAMP
        options.tsval, options.tsecr = options.tsecr, options.tsval
        wscale: cython.int = options.wscale
        window: cython.int = min(conn.td_maxwin[0], 0xFFFF)
        tsval: cython.uint = options.tsval
        tsecr: cython.uint = options.tsecr
        self._send(pkt, True, ack, seq + 1, TCP_ACK, window, None, CT_NONE, CT_DIR_ORIGINAL)
        self._move(conn, pkt.ctdir, (state[0] - seq) & U32_MASK)
        options.given = OPT_TIMESTAMP if options.given & OPT_TIMESTAMP else 0
        options.tsval = tsecr
        options.tsecr = tsval
        window = pkt.get16(pkt.l4 + 14) >> wscale
        self._send(pkt, False, seq + 1, ack, TCP_ACK, window, conn, CT_ESTABLISHED, CT_DIR_REPLY)
        return NF_STOLEN

    def _move(self, conn: Conn, direction: cython.int, offset: cython.uint) -> cython.int:
        """Sequence numbers of `direction` from now on (Linux: nf_ct_seqadj_init)."""
        adj: SeqAdj
        if offset == 0:
            return 0
        if conn.seqadj is None:
            conn.seqadj = SeqAdj()
        adj = conn.seqadj
        adj.offset_before[direction] = cython.cast(cython.int, offset)
        adj.offset_after[direction] = cython.cast(cython.int, offset)
        conn.status |= IPS_SEQ_ADJUST
        conn.events |= CT_EVENT_SEQADJ
        return 0

    def _timestamps(self, pkt: Packet, offset: cython.uint) -> cython.int:
        """Move the server's timestamps, and what the client echoes of them (Linux: synproxy_tstamp_adjust)."""
        end: cython.Py_ssize_t = min(pkt.l4 + (pkt.get8(pkt.l4 + 12) >> 4) * 4, pkt.end)
        at: cython.Py_ssize_t = next_option(pkt, pkt.l4 + 20, end)
        old: cython.uint
        new: cython.uint
        size: cython.Py_ssize_t
        while at >= 0:
            size = pkt.get8(at + 1)
            if pkt.get8(at) == 8 and size == 10:
                at += 2 if pkt.ctdir == CT_DIR_REPLY else 6
                old = pkt.get32(at)
                new = (old - offset if pkt.ctdir == CT_DIR_REPLY else old + offset) & U32_MASK
                pkt.put32(at, new)
                if not pkt.vnet_flags & VNET_F_NEEDS_CSUM:
                    replace32(pkt, pkt.l4 + 16, old, new)
                return 0
            at = next_option(pkt, at + size, end)
        return 0


class SynproxyEntry(HookEntry):
    """The proxy right before a connection is confirmed, at input and postrouting."""

    def __init__(self, proxy: Synproxy) -> None:
        super().__init__(2147483646)
        self.proxy = proxy

    def run(self, pkt: Packet, hook: cython.int) -> cython.int:
        """NF_ACCEPT, NF_STOLEN for the server's answer, which only the proxy sees, or NF_DROP."""
        conn: Conn | None = pkt.ct
        if conn is None or conn.ext is None or pkt.l4proto != IPPROTO_TCP or conn.status & IPS_TEMPLATE:
            return NF_ACCEPT
        if "synproxy" not in conn.ext or not pkt.has_l4:
            return NF_ACCEPT
        if pkt.iif is not None and pkt.iif.type == ARPHRD_LOOPBACK:
            return NF_ACCEPT
        return self.proxy.hook(pkt, conn)
