"""Small helpers: TFTP (RFC 1350), IRC's DCC, Amanda, SANE, NetBIOS name service and SNMP by broadcast.

Linux: nf_conntrack_tftp.c, _irc.c, _amanda.c, _sane.c, _broadcast.c and their nf_nat counterparts.
"""

from __future__ import annotations

import re
import struct

from userfw.conntrack.conn import Conn, node_of
from userfw.conntrack.const import EXPECT_PERMANENT
from userfw.conntrack.helper import IPPROTO_TCP, IPPROTO_UDP, Helper, source_of, target_of, translated
from userfw.conntrack.table import ConnTable
from userfw.core.const import CT_DIR_ORIGINAL, CT_DIR_REPLY, CT_ESTABLISHED, NF_ACCEPT, NF_DROP
from userfw.core.packet import Packet


class Tftp(Helper):
    """The server answers a request from a port of its own."""

    name = "tftp"
    protocols = (IPPROTO_UDP,)
    port = 69
    policies = ((1, 300),)

    def read_untrusted(self, table: ConnTable, pkt: Packet, conn: Conn, direction: int) -> int:
        """A read or write request announces the transfer."""
        data = self.payload(pkt)
        if len(data) < 2 or data[0] != 0 or data[1] not in (1, 2):
            return NF_ACCEPT
        reply = conn.reply
        e = self.announce(conn, source_of(conn, CT_DIR_REPLY), target_of(conn, CT_DIR_REPLY), IPPROTO_UDP, None, reply.dport)
        if not translated(conn) or self.nat is None:
            return self.link(table, e)
        # no payload to rewrite, and the port must be the one that the request came from
        e.saved_port = conn.orig.sport
        return NF_ACCEPT if self.nat.expect(table, e, CT_DIR_ORIGINAL, follow=reply.dport) else NF_DROP


class Irc(Helper):
    """A client offers a direct connection: DCC CHAT, SEND, MOVE, TSEND, SCHAT (IPv4, the address as a decimal number)."""

    name = "irc"
    port = 6667
    policies = ((8, 300),)
    _OFFER = re.compile(rb"\x01DCC (?:SEND|CHAT|MOVE|TSEND|SCHAT) +[^ \x01\n]+ +((\d{1,10}) +(\d{1,5}))(?=[ \x01\r\n])")

    def read_untrusted(self, table: ConnTable, pkt: Packet, conn: Conn, direction: int) -> int:
        """Only what the client sends counts."""
        if direction == CT_DIR_REPLY or pkt.ctinfo != CT_ESTABLISHED or conn.orig.l3num != 2:
            return NF_ACCEPT
        data = self.payload(pkt)
        if not data.upper().startswith((b"PRIVMSG ", b"NOTICE ", b":")):
            return NF_ACCEPT
        match = self._OFFER.search(data)
        if match is None:
            return NF_ACCEPT
        address, port = int(match[2]), int(match[3])
        # a client behind another NAT may name our outer address
        if not 0 < port < 65536 or address not in (conn.orig.src_lo, conn.reply.dst_lo):
            return NF_ACCEPT
        e = self.announce(conn, None, target_of(conn, CT_DIR_REPLY), IPPROTO_TCP, None, port)
        if not translated(conn) or self.nat is None:
            return self.link(table, e)
        port = self.nat.expect(table, e, direction)
        if port == 0:
            return NF_DROP
        text = f"{conn.reply.dst_lo} {port}".encode()
        if not self.nat.replace(pkt, conn, direction, match.start(1), match.end(1) - match.start(1), text):
            self.nat.release(table, e)
            return NF_DROP
        return NF_ACCEPT


class Amanda(Helper):
    """The backup client's reply names TCP ports for data, messages and index."""

    name = "amanda"
    protocols = (IPPROTO_UDP,)
    port = 10080
    policies = ((4, 180),)
    _PORTS = re.compile(rb"(?:DATA|MESG|INDEX|STATE) (\d{1,5})(?=[ \n])")

    def read_untrusted(self, table: ConnTable, pkt: Packet, conn: Conn, direction: int) -> int:
        """Only the client's CONNECT line counts; the request extends the wait for it."""
        if direction == CT_DIR_ORIGINAL:
            table.refresh(conn, 300 * 1_000_000_000)
            return NF_ACCEPT
        data = self.payload(pkt)
        start = data.find(b"CONNECT ")
        end = data.find(b"\n", start)
        if start < 0 or end < 0:
            return NF_ACCEPT
        moved = 0
        for match in self._PORTS.finditer(data, start, end + 1):
            port = int(match[1])
            if not 0 < port < 65536:
                return NF_ACCEPT
            e = self.announce(conn, source_of(conn, CT_DIR_ORIGINAL), target_of(conn, CT_DIR_ORIGINAL), IPPROTO_TCP, None, port)
            if not translated(conn) or self.nat is None:
                if self.link(table, e) != NF_ACCEPT:
                    return NF_DROP
                continue
            port = self.nat.expect(table, e, direction)
            text = str(port).encode()
            if port == 0 or not self.nat.replace(pkt, conn, direction, match.start(1) + moved, len(match[1]), text):
                self.nat.release(table, e)
                return NF_DROP
            moved += len(text) - len(match[1])
        return NF_ACCEPT


class Sane(Helper):
    """The scanner's answer to SANE_NET_START names the data port; its NAT is not supported, as in Linux."""

    name = "sane"
    port = 6566
    policies = ((1, 300),)

    def read_untrusted(self, table: ConnTable, pkt: Packet, conn: Conn, direction: int) -> int:
        """Request and answer alternate."""
        if pkt.ctinfo != CT_ESTABLISHED:
            return NF_ACCEPT
        data = self.payload(pkt)
        if direction == CT_DIR_ORIGINAL:
            if len(data) == 8:
                conn.helper_data = struct.unpack("!I", data[:4])[0] == 7
            return NF_ACCEPT
        if not conn.helper_data or len(data) < 8:
            return NF_ACCEPT
        conn.helper_data = False
        status, zero, port = struct.unpack("!IHH", data[:8])
        if status != 0 or zero != 0 or port == 0:
            return NF_ACCEPT
        t = node_of(conn, CT_DIR_ORIGINAL)
        e = self.announce(conn, (t.src_hi, t.src_lo), source_of(conn, CT_DIR_REPLY), IPPROTO_TCP, None, port)
        return self.link(table, e)


class Broadcast(Helper):
    """A question by broadcast is answered by anybody on the link, to the port it came from."""

    protocols = (IPPROTO_UDP,)
    seconds = 3

    def read_untrusted(self, table: ConnTable, pkt: Packet, conn: Conn, direction: int) -> int:
        """Only broadcasts into a network of the output device count."""
        device = pkt.oif
        if direction != CT_DIR_ORIGINAL or device is None or conn.orig.l3num != 2 or pkt.iif is not None:
            return NF_ACCEPT
        for address in device.addresses:
            mask = (0xFFFFFFFF << (32 - address.prefixlen)) & 0xFFFFFFFF
            if address.family != 2 or address.secondary:
                continue
            if conn.orig.dst_lo in (address.lo | (mask ^ 0xFFFFFFFF), 0xFFFFFFFF):
                e = self.announce(conn, (0, address.lo & mask), target_of(conn, CT_DIR_REPLY), IPPROTO_UDP, self.port,
                conn.orig.sport)
                e.mask_lo = mask
                e.flags = EXPECT_PERMANENT
                e.deadline = table.clock.now + self.seconds * 1_000_000_000
                table.expects.add(e, table.clock.now)
                table.refresh(conn, self.seconds * 1_000_000_000)
                break
        return NF_ACCEPT


class NetbiosNs(Broadcast):
    """NetBIOS name service (RFC 1002)."""

    name = "netbios-ns"
    port = 137
    policies = ((1, 3),)


class Snmp(Broadcast):
    """SNMP discovery."""

    name = "snmp"
    port = 161
    seconds = 30
    policies = ((1, 30),)
