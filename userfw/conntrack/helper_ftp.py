"""FTP (RFC 959; EPRT and EPSV of RFC 2428): the data connection that PORT, EPRT, 227 and 229 announce (Linux:
nf_conntrack_ftp.c, nf_nat_ftp.c).

Laws: a command counts only at the start of a line, and a line starts where the stream's last one ended: sequence numbers after
line ends are
remembered for each direction, so payload that looks like a command inside other text announces nothing. A command cut off by
the segment's
end is dropped, and its repetition comes whole. An address other than the sender's own is not believed (bounce attacks).
"""

from __future__ import annotations

import ipaddress
import re

from userfw.conntrack.conn import Conn, node_of
from userfw.conntrack.expect import Expectation
from userfw.conntrack.helper import Helper, source_of, target_of, translated
from userfw.conntrack.table import ConnTable
from userfw.core.const import CT_ESTABLISHED, NF_ACCEPT, NF_DROP
from userfw.core.packet import Packet

_SIX = rb"(\d{1,3}),(\d{1,3}),(\d{1,3}),(\d{1,3}),(\d{1,3}),(\d{1,3})"
_PORT = re.compile(rb"PORT +" + _SIX + rb"[\r\n]", re.I)
_EPRT = re.compile(rb"EPRT +(.)([12])\1([0-9A-Fa-f:.]{2,45})\1(\d{1,5})\1", re.I | re.S)
_PASV = re.compile(rb"227 [^\r\n]*?(?<!\d)" + _SIX + rb"(?!\d)")
_EPSV = re.compile(rb"229 [^\r\n(]*\((.)\1\1(\d{1,5})\1\)", re.S)
_BEGINS = ((b"PORT", b"EPRT"), (b"227 ", b"229 "))
REMEMBER = 2


class Lines:
    """For each direction, the sequence numbers at which lines begin."""

    def __init__(self) -> None:
        self.starts: tuple[list[int], list[int]] = ([], [])

    def begins(self, direction: int, seq: int) -> bool:
        """Whether a line begins at `seq`. The first segment seen is not known to begin one (Linux: find_nl_seq)."""
        return seq in self.starts[direction]

    def note(self, direction: int, seq: int) -> None:
        """A line ends before `seq`; the latest few are kept."""
        known = self.starts[direction]
        if seq in known:
            return
        known.append(seq)
        if len(known) > REMEMBER:
            # forget the one furthest behind
            known.remove(max(known, key=lambda s: (seq - s) & 0xFFFFFFFF if (seq - s) & 0xFFFFFFFF < 1 << 31 else -1))


class Ftp(Helper):
    """The control connection."""

    name = "ftp"
    port = 21
    policies = ((1, 300),)

    def read_untrusted(self, table: ConnTable, pkt: Packet, conn: Conn, direction: int) -> int:
        """One segment of the control connection."""
        if pkt.ctinfo != CT_ESTABLISHED:
            return NF_ACCEPT
        data = self.payload(pkt)
        if not data:
            return NF_ACCEPT
        if conn.helper_data is None:
            conn.helper_data = Lines()
        lines: Lines = conn.helper_data
        seq = pkt.get32(pkt.l4 + 4)
        whole = data.endswith(b"\n")
        verdict = NF_ACCEPT
        if lines.begins(direction, seq):
            verdict = self._command(table, pkt, conn, direction, data)
        if whole and verdict == NF_ACCEPT:
            # in the sender's own count: helpers see the segment before its numbers are moved
            lines.note(direction, (seq + len(data)) & 0xFFFFFFFF)
        return verdict

    def _command(self, table: ConnTable, pkt: Packet, conn: Conn, direction: int, data: bytes) -> int:
        head = data[:4].upper()
        if head not in _BEGINS[direction]:
            return NF_ACCEPT
        kind = head.decode().strip()
        pattern = {"PORT": _PORT, "EPRT": _EPRT, "227": _PASV, "229": _EPSV}[kind]
        match = pattern.match(data)
        if match is None:
            # cut off: it will come again, whole
            return NF_ACCEPT if b"\n" in data or len(data) > 256 else NF_DROP
        found = self._parse(kind, match, conn, direction)
        if found is None:
            return NF_ACCEPT
        address, port, span = found
        if port == 0 or address != source_of(conn, direction):
            return NF_ACCEPT  # bounce
        e = self.announce(conn, source_of(conn, 1 - direction), target_of(conn, 1 - direction), 6, None, port)
        if not translated(conn) or self.nat is None:
            return self.link(table, e)
        return self._translate(table, pkt, conn, direction, kind, span, e, match)

    def _parse(
        self, kind: str, match: re.Match[bytes], conn: Conn, direction: int
    ) -> tuple[tuple[int, int], int, tuple[int, int]] | None:
        """(address, port, where they stand in the payload)."""
        ipv4 = conn.orig.l3num == 2
        if kind == "229":
            return source_of(conn, direction), _port(match[2]), (match.start(1), match.end(2) + 1)
        if kind == "EPRT":
            if (match[2] == b"1") != ipv4:
                return None
            number = int(ipaddress.ip_address(match[3].decode()))
            return (number >> 64, number & (1 << 64) - 1), _port(match[4]), (match.start(1), match.end(4) + 1)
        numbers = [int(n) for n in match.groups()]
        if not ipv4 or max(numbers) > 255:
            return None
        return (0, int.from_bytes(bytes(numbers[:4]), "big")), numbers[4] << 8 | numbers[5], (match.start(1), match.end(6))

    def _translate(
        self,
        table: ConnTable,
        pkt: Packet,
        conn: Conn,
        direction: int,
        kind: str,
        span: tuple[int, int],
        e: Expectation,
        match: re.Match[bytes],
    ) -> int:
        """Say what the other side must connect to."""
        assert self.nat is not None
        port = self.nat.expect(table, e, direction)
        if port == 0:
            return NF_DROP
        t = node_of(conn, 1 - direction)
        if kind == "229":
            bar = match[1]
            text = bar * 3 + str(port).encode() + bar
        elif kind == "EPRT":
            bar = match[1]
            if t.l3num == 2:
                address = str(ipaddress.IPv4Address(t.dst_lo))
            else:
                address = ipaddress.IPv6Address(t.dst_hi << 64 | t.dst_lo).exploded  # as Linux has it
            text = bar.join((b"", b"1" if t.l3num == 2 else b"2", address.encode(), str(port).encode(), b""))
        else:
            text = ",".join(str(n) for n in (*t.dst_lo.to_bytes(4, "big"), port >> 8, port & 255)).encode()
        if not self.nat.replace(pkt, conn, direction, span[0], span[1] - span[0], text):
            self.nat.release(table, e)
            return NF_DROP
        return NF_ACCEPT


def _port(text: bytes) -> int:
    number = int(text)
    return number if number < 65536 else 0
