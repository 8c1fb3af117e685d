"""SIP (RFC 3261) and the media streams that its SDP bodies (RFC 4566) announce (Linux: nf_conntrack_sip.c, nf_nat_sip.c).

Laws:
- Registrations announce incoming calls, from the registrar only; offers and answers announce RTP and RTCP, between the two
  signalling ends only (sip_direct_signalling and sip_direct_media, both 1 as in Linux). An announced registration counts once the
  registrar has answered it.
- Under NAT every address of this connection in the start line, Via, Contact, From and To is translated, and so is the session
  description; Content-Length follows. All changes to a packet are made on a copy and put into it at once, so its sequence numbers
  move once.
- A message that cannot be understood where tracking depends on it is dropped; what is not SIP passes.
"""

from __future__ import annotations

from userfw.conntrack.conn import Conn, Tuple, node_of
from userfw.conntrack.const import EXPECT_INACTIVE, EXPECT_PERMANENT
from userfw.conntrack.expect import Expectation
from userfw.conntrack.helper import IPPROTO_TCP, IPPROTO_UDP, Halves, Helper, source_of, target_of, translated
from userfw.conntrack.sip_text import Media, Message, Place, split, write
from userfw.conntrack.table import ConnTable
from userfw.core.const import CT_DIR_REPLY, CT_ESTABLISHED, NF_ACCEPT, NF_DROP
from userfw.core.packet import Packet

SECOND = 1_000_000_000
SIGNALLING, AUDIO, VIDEO, IMAGE = range(4)
KINDS = {"audio": AUDIO, "video": VIDEO, "image": IMAGE}
OFFERS = ("INVITE", "UPDATE", "PRACK")
LIFETIME = 3600
MOST_MEDIA = 3
SHORTEST = len(b"SIP/2.0 200")


class State:
    """What a signalling connection remembers: the numbers of the last REGISTER and INVITE, and the port that answers must go to."""

    def __init__(self) -> None:
        self.register = self.invite = 0
        self.forced_port = 0


class Refused(Exception):
    """The packet must be dropped."""


class Sip(Helper):
    """The signalling connection."""

    name = "sip"
    protocols = (IPPROTO_UDP, IPPROTO_TCP)
    port = 5060
    policies = ((1, 180), (4, 180), (4, 180), (2, 180))

    def read_untrusted(self, table: ConnTable, pkt: Packet, conn: Conn, direction: int) -> int:
        """One datagram, or one segment with whole messages in it."""
        tcp = self.l4proto == IPPROTO_TCP
        if tcp and pkt.ctinfo != CT_ESTABLISHED:
            return NF_ACCEPT
        data = self.payload(pkt)
        if not data:
            return NF_ACCEPT
        table.refresh(conn, LIFETIME * SECOND)
        if len(data) < SHORTEST:
            return NF_ACCEPT
        l3num = conn.orig.l3num
        messages, rest = split(data, l3num) if tcp else ([Message(data, l3num, IPPROTO_UDP)], b"")
        if conn.helper_data is None:
            conn.helper_data = State()
        for message in messages:
            try:
                Exchange(self, table, conn, direction, message).run()
            except Refused:
                return NF_DROP
        if self.nat is None or not translated(conn):
            return NF_ACCEPT
        new = b"".join(message.text for message in messages) + rest
        if new != data and not self.nat.replace(pkt, conn, direction, 0, len(data), new):
            return NF_DROP
        state: State = conn.helper_data
        if state.forced_port and direction == CT_DIR_REPLY and not tcp:
            pkt.put16(pkt.l4 + 2, state.forced_port)
            self.nat.replace(pkt, conn, direction, 0, len(new), new)  # for the checksum
        return NF_ACCEPT


class Exchange:
    """One message on its way through."""

    def __init__(self, helper: Sip, table: ConnTable, conn: Conn, direction: int, message: Message) -> None:
        self.helper, self.table, self.conn, self.direction, self.message = helper, table, conn, direction, message
        self.state: State = conn.helper_data
        self.nat = helper.nat if translated(conn) else None
        self.own, self.peer = node_of(conn, direction), node_of(conn, 1 - direction)

    def run(self) -> None:
        """Learn from it, then translate it. Refused if it must not pass."""
        message = self.message
        cseq = message.number("cseq")
        if message.request:
            self._note_port()
            method = message.method()
            if method in ("INVITE", "UPDATE", "PRACK", "ACK", "BYE", "REGISTER"):
                if cseq is None:
                    raise Refused("no CSeq")
                self._request(method, cseq)
        elif message.code():
            if not cseq:
                raise Refused("no CSeq")
            self._answer(message.method(), cseq, message.code())
        if self.nat is not None:
            self._translate()

    def _note_port(self) -> None:
        """A phone may ask from one port and listen on another, which its Via header names."""
        via = self.message.via()
        if via is not None and via.address == source_of(self.conn, self.direction) and via.port != self.own.sport:
            self.state.forced_port = via.port

    def _request(self, method: str, cseq: int) -> None:
        if method == "INVITE":
            self._forget(media=True)
            self._session()
            self.state.invite = cseq
        elif method == "BYE":
            self._forget(media=True)
        elif method == "REGISTER":
            self._register()
            self.state.register = cseq
        else:
            self._session()

    def _answer(self, method: str, cseq: int, code: int) -> None:
        if method == "REGISTER":
            self._registered(cseq, code)
        elif method in OFFERS:
            if 100 <= code <= 299:
                self._session()
            elif method != "INVITE" or self.state.invite == cseq:
                self._forget(media=True)

    def _forget(self, media: bool) -> None:
        """Drop what was announced: the media streams, or the registration (Linux: flush_expectations)."""
        for e in list(self.conn.expectations or ()):
            if (e.klass != SIGNALLING) == media:
                self.table.expects.remove(e)

    # -- registration

    def _register(self) -> None:
        if self.conn.master is not None:
            return  # an announced connection announces no further
        message = self.message
        contact = next(message.uris("contact"), None)
        if contact is None or contact.address != source_of(self.conn, self.direction):
            return  # a third party's
        proto = message.transport(contact.end)
        found = message.number_parameter(contact.end, b"expires")
        expires = found[0] if found else message.number("expires")
        if proto is None or expires == 0:
            return
        registrar = source_of(self.conn, 1 - self.direction)
        e = self.helper.announce(self.conn, registrar, contact.address, proto, None, contact.port, SIGNALLING)
        e.deadline = self.table.clock.now + LIFETIME * SECOND
        e.assign_helper = self.helper
        e.flags = EXPECT_PERMANENT | EXPECT_INACTIVE
        if self.nat is None:
            if self.helper.link(self.table, e) != NF_ACCEPT:
                raise Refused("a limit of announcements")
            return
        port = self.peer.dport if contact.port == (self.state.forced_port or self.own.sport) else contact.port
        port = self.nat.expect_at(self.table, e, self.direction, self._outer(contact.address), port)
        if not port:
            raise Refused("no port left")
        if (target_of_tuple(e.tuple), port) != (contact.address, contact.port):
            message.splice(contact.start, contact.end, write(target_of_tuple(e.tuple), message.l3num, port))

    def _registered(self, cseq: int, code: int) -> None:
        """The registrar's answer to the last REGISTER makes the announcement count, or ends it."""
        if self.state.register != cseq or code < 200:
            return
        if code < 300:
            message = self.message
            general = message.number("expires")
            for contact in message.uris("contact"):
                found = message.number_parameter(contact.end, b"expires")
                if (found is None or found[0]) and self._refresh(contact, found[0] if found else general):
                    return
        self._forget(media=False)

    def _refresh(self, contact: Place, expires: int | None) -> bool:
        proto = self.message.transport(contact.end)
        for e in self.conn.expectations or ():
            known = (target_of_tuple(e.tuple), e.tuple.dport, e.tuple.l4proto)
            if e.klass == SIGNALLING and known == (contact.address, contact.port, proto) and expires != 0:
                e.flags &= ~EXPECT_INACTIVE
                e.deadline = self.table.clock.now + (LIFETIME if expires is None else min(expires, 7 * 86400)) * SECOND
                return True
        return False

    def _outer(self, address: Halves) -> Halves:
        """The address under which the other side knows this one."""
        outer = target_of(self.conn, 1 - self.direction)
        return address if source_of(self.conn, self.direction) == outer else outer

    # -- media

    def _session(self) -> None:
        """Announce the streams of a session description, and translate it."""
        message = self.message
        start = message.sdp()
        if start < 0:
            return
        found: Halves | None = None
        for index in range(min(len(message.medias(start)), MOST_MEDIA)):
            media = message.medias(start)[index]  # anew each time: the last one may have moved what follows
            if media.kind not in KINDS or media.port == 0:
                continue
            if not 1024 <= media.port <= 65535:
                raise Refused("a port that no stream may have")
            outer = self._media(start, media)
            found = outer if outer is not None else found
        if self.nat is not None and found is not None:
            medias = message.medias(start)
            self._say(message.owner(start, medias[0].start), found)
            medias = message.medias(start)
            self._say(message.connection(start, medias[0].start), found)
            message.fix_length()

    def _media(self, start: int, media: Media) -> Halves | None:
        """One stream: the address that its sender shall be known by."""
        message = self.message
        general = message.connection(start, message.medias(start)[0].start)
        own = message.connection(media.end, media.until)
        place = own if own is not None else general
        if place is None:
            raise Refused("a stream without an address")
        outer = self._stream(place.address, media)
        if own is not None and outer is not None and self.nat is not None:
            again = message.medias(start)
            now = next(m for m in again if m.start >= media.start)
            self._say(message.connection(now.end, now.until), outer)
        return outer

    def _say(self, place: Place | None, address: Halves) -> None:
        if place is not None and place.address != address:
            text = write(address, self.message.l3num).strip(b"[]")
            self.message.splice(place.start, place.end, text)

    def _stream(self, address: Halves, media: Media) -> Halves | None:
        """Expect RTP at an even port and RTCP behind it (Linux: set_expected_rtp_rtcp). The address to write, None: leave it."""
        if address != source_of(self.conn, self.direction):
            return None  # only the ends of the signalling exchange media
        klass = KINDS[media.kind]
        known = self._known(address, media.port, klass)
        direct = False
        if known is not None:
            if self.nat is None or (known.saved_hi, known.saved_lo, known.saved_port) == (*address, media.port):
                return address
            # both ends are behind this gateway: they reach one another without it
            address, direct = (known.saved_hi, known.saved_lo), True
            port = known.saved_port & ~1
            self.message.splice(media.start, media.end, str(port).encode())
            if self._known(address, port, klass) is not None:
                return address
        base = media.port & ~1 if not direct else known.saved_port & ~1  # type: ignore[union-attr]
        rtp, rtcp = (self._expected(address, base + n, klass) for n in range(2))
        if self.nat is None or direct:
            for e in (rtp, rtcp):
                if self.table.expects.add(e, self.table.clock.now, True) not in (0, -3):
                    self.table.expects.remove(rtp)
                    raise Refused("a limit of announcements")
            return address
        return self._translated(rtp, rtcp, media)

    def _expected(self, address: Halves, port: int, klass: int) -> Expectation:
        source = source_of(self.conn, 1 - self.direction)
        return self.helper.announce(self.conn, source, address, IPPROTO_UDP, None, port, klass)

    def _known(self, address: Halves, port: int, klass: int) -> Expectation | None:
        """A stream that another call of this helper has announced already, for the same end."""
        probe = self._expected(address, port, klass).tuple
        e = self.table.expects.find(probe, self.table.clock.now)
        if e is None or e.master is self.conn or e.klass != klass or e.helper is None or e.helper.name != self.helper.name:
            return None
        return e

    def _translated(self, rtp: Expectation, rtcp: Expectation, media: Media) -> Halves:
        """Find a pair of free ports at the outer address (Linux: nf_nat_sdp_media)."""
        assert self.nat is not None
        outer = self._outer(target_of_tuple(rtp.tuple))
        for e in (rtp, rtcp):
            self.nat.turn(e, self.direction, outer)
        port = self.nat.expect_pair(self.table, rtp, rtcp, shared=True)
        if port == 0:
            raise Refused("no ports left")
        if port != rtp.saved_port:
            self.message.splice(media.start, media.end, str(port).encode())
        return outer

    # -- translation of what every message says

    def _map(self, place: Place | None) -> int:
        """Translate an address and port of this connection; by how much the text grew."""
        if place is None:
            return 0
        here = (place.address, place.port)
        if here == (source_of(self.conn, self.direction), self.own.sport):
            there = (target_of(self.conn, 1 - self.direction), self.peer.dport)
        elif here == (target_of(self.conn, self.direction), self.own.dport):
            there = (source_of(self.conn, 1 - self.direction), self.state.forced_port or self.peer.sport)
        else:
            return 0
        if here == there:
            return 0
        text = write(there[0], self.message.l3num, there[1])
        self.message.splice(place.start, place.end, text)
        return len(text) - (place.end - place.start)

    def _translate(self) -> None:
        """Start line, topmost Via, Contact, From and To (Linux: nf_nat_sip)."""
        message = self.message
        if message.request:
            self._map(message.uri_of_request())
        self._translate_via()
        for name in ("contact", "from", "to"):
            at = 0
            while (place := next(message.uris(name, at), None)) is not None:
                at = place.end + self._map(place)

    def _translate_via(self) -> None:
        """Via and its parameters maddr, received and rport (RFC 3261 18.2, RFC 3581), if it is about this connection."""
        message = self.message
        via = message.via()
        if via is None:
            return
        if message.request:
            mine = (source_of(self.conn, self.direction), self.own.sport)
        else:
            mine = (target_of(self.conn, self.direction), self.own.dport)
        if (via.address, via.port) != mine:
            return
        at = via.end + self._map(via)
        outer = target_of(self.conn, 1 - self.direction)
        maddr = message.address_parameter(at, b"maddr")
        if maddr is not None and maddr.address == source_of(self.conn, self.direction) != outer:
            message.splice(maddr.start, maddr.end, write(outer, message.l3num))
        inner = source_of(self.conn, 1 - self.direction)
        received = message.address_parameter(at, b"received")
        if received is not None and received.address == target_of(self.conn, self.direction) != inner:
            message.splice(received.start, received.end, write(inner, message.l3num).strip(b"[]"))
        rport = message.number_parameter(at, b"rport")
        if rport is not None and rport[0] == self.own.dport != self.peer.sport:
            message.splice(rport[1], rport[2], str(self.peer.sport).encode())


def target_of_tuple(tuple: Tuple) -> Halves:
    """Destination address of a tuple."""
    return tuple.dst_hi, tuple.dst_lo
