"""H.323: call signalling (Q.931, H.225.0), media control (H.245) and gatekeepers (RAS); Linux: nf_conntrack_h323_main.c,
nf_nat_h323.c.

Laws: call signalling announces H.245 connections, H.245 (also tunnelled, also by fast start) announces pairs of RTP and RTCP and
T.120; RAS announces signalling. Only the sender's own address announces anything. Under NAT the announced addresses, and those
of the signalling itself, are overwritten in place.
"""

from __future__ import annotations

from userfw.conntrack.conn import Conn, node_of
from userfw.conntrack.const import EXPECT_PERMANENT
from userfw.conntrack.expect import Expectation
from userfw.conntrack.h323_text import Decoders, Found, units, user_user
from userfw.conntrack.helper import IPPROTO_TCP, IPPROTO_UDP, Halves, Helper, source_of, target_of, translated
from userfw.conntrack.table import ConnTable
from userfw.core.const import CT_ESTABLISHED, NF_ACCEPT, NF_DROP
from userfw.core.packet import Packet

SECOND = 1_000_000_000
CHANNELS = 4
RAS_LIFETIME = 300
BODIES = ("setup", "callProceeding", "connect", "alerting", "facility", "progress")


class State:
    """What a connection remembers: for each direction the announced port of signalling, the pairs of RTP ports (original to
    translated), and the length of a unit whose header came alone; seconds that the gatekeeper grants."""

    def __init__(self) -> None:
        self.signal = [0, 0]
        self.pairs: tuple[dict[int, int], dict[int, int]] = ({}, {})
        self.pending = [0, 0]
        self.lifetime = 0


class Refused(Exception):
    """The packet must be dropped."""


class Packing:
    """One packet in hand: its connection, its bytes, and what is written into them."""

    def __init__(self, helper: H323, table: ConnTable, conn: Conn, direction: int, data: bytes) -> None:
        self.helper, self.table, self.conn, self.direction = helper, table, conn, direction
        self.nat = helper.nat if translated(conn) else None
        self.data = bytearray(data)
        self.state: State = conn.helper_data
        self.own, self.peer = node_of(conn, direction), node_of(conn, 1 - direction)
        self.inner = source_of(conn, direction)
        self.outer = target_of(conn, 1 - direction)
        self.far = source_of(conn, 1 - direction)

    def write(self, found: Found, address: Halves, port: int) -> None:
        """Overwrite an address and its port."""
        number = address[0] << 64 | address[1]
        self.data[found.offset : found.offset + found.size + 2] = number.to_bytes(found.size, "big") + port.to_bytes(2, "big")

    def expect(
        self, proto: int, port: int, source: Halves, target: Halves, helper: Helper | None, flags: int = 0
    ) -> Expectation:
        """An expectation, not linked."""
        e = self.helper.announce(self.conn, source, target, proto, None, port)
        e.assign_helper = helper
        e.flags = flags
        return e

    def signalling(self, found: Found, helper: Helper | None, flags: int = 0) -> None:
        """The sender waits for TCP at an address of its own: H.245, T.120 or Q.931 (Linux: expect_h245, nat_h245)."""
        if found.address != self.inner or found.port == 0:
            return
        e = self.expect(IPPROTO_TCP, found.port, self.far, self.outer, helper, flags)
        if self.nat is None:
            self.table.expects.add(e, self.table.clock.now)
            return
        ports = self.state.signal
        if ports[self.direction] == found.port:
            for known in list(self.conn.expectations or ()):
                same = (known.saved_port, known.dir, known.tuple.l4proto)
                if same == (found.port, 1 - self.direction, IPPROTO_TCP):
                    self.table.expects.remove(known)
        port = self.nat.expect(self.table, e, self.direction)
        if port == 0:
            raise Refused("no port left")
        ports[self.direction], ports[1 - self.direction] = found.port, port
        self.write(found, self.outer, port)

    def media(self, found: Found) -> None:
        """The sender waits for RTP at an even port and RTCP behind it (Linux: expect_rtp_rtcp, nat_rtp_rtcp)."""
        if found.address != self.inner or found.port == 0:
            return
        base = found.port & ~1
        rtp, rtcp = (self.expect(IPPROTO_UDP, base + n, self.far, self.outer, None) for n in range(2))
        if self.nat is None:
            for e in (rtp, rtcp):
                self.table.expects.add(e, self.table.clock.now)
            return
        pairs = self.state.pairs[self.direction]
        if base in pairs:
            rtp.tuple.dport, rtcp.tuple.dport = pairs[base], pairs[base] + 1
        elif len(pairs) >= CHANNELS:
            return
        for e, port in ((rtp, base), (rtcp, base + 1)):
            self.nat.turn(e, self.direction, None)
            e.saved_port = port
        port = self.nat.expect_pair(self.table, rtp, rtcp)
        if port == 0:
            raise Refused("no ports left")
        pairs[base] = port
        self.write(found, self.outer, port | (found.port & 1))

    def channel(self, found: Found) -> None:
        """An address in a logical channel."""
        if found.path[-2:] in (("mediaChannel", "unicastAddress"), ("mediaControlChannel", "unicastAddress")):
            self.media(found)
        elif "separateStack" in found.path and "localAreaAddress" in found.path:
            self.signalling(found, None, EXPECT_PERMANENT)


class H323(Helper):
    """What the three have in common."""

    policies = ((CHANNELS * 4 + 4, 240),)

    def __init__(self, l3num: int = 0, l4proto: int = 0) -> None:
        super().__init__(l3num, l4proto)
        try:
            self.decoders = Decoders()
        except ImportError as error:
            raise ValueError(f'no helper of type "{self.name}": {error}') from None
        self._others: dict[type[H323], H323] = {}

    def other(self, cls: type[H323]) -> H323:
        """The helper of another of the three protocols, for what this one announces."""
        if cls not in self._others:
            self._others[cls] = cls(self.l3num)
            self._others[cls].nat = self.nat
        return self._others[cls]

    def read_untrusted(self, table: ConnTable, pkt: Packet, conn: Conn, direction: int) -> int:
        """All whole units of a segment, or one datagram."""
        tcp = self.l4proto == IPPROTO_TCP
        data = self.payload(pkt)
        if not data or (tcp and pkt.ctinfo != CT_ESTABLISHED):
            return NF_ACCEPT
        if conn.helper_data is None:
            conn.helper_data = State()
        state: State = conn.helper_data
        packing = Packing(self, table, conn, direction, data)
        parts = [(0, len(data))]
        if tcp:
            parts, state.pending[direction] = units(data, state.pending[direction])
        try:
            for start, end in parts:
                self.unit(packing, data, start, end)
        except Refused:
            return NF_DROP
        new = bytes(packing.data)
        if packing.nat is not None and new != data and not packing.nat.replace(pkt, conn, direction, 0, len(data), new):
            return NF_DROP
        return NF_ACCEPT

    def unit(self, packing: Packing, data: bytes, start: int, end: int) -> None:
        """One message at `data[start:end]`."""
        raise NotImplementedError


class H245(H323):
    """Media control."""

    name = "H.245"

    def unit(self, packing: Packing, data: bytes, start: int, end: int) -> None:
        """Channels that are opened, and the answers to that."""
        for found in self.decoders.find(self.decoders.h245, data, start, end, packing.own.l3num)[1]:
            if found.path[1:2] in (("openLogicalChannel",), ("openLogicalChannelAck",)):
                packing.channel(found)


class Q931(H323):
    """Call signalling."""

    name = "Q.931"
    port = 1720

    def unit(self, packing: Packing, data: bytes, start: int, end: int) -> None:
        """One message of a call."""
        part = user_user(data, start, end)
        if part is None:
            return
        value, all_found = self.decoders.find(self.decoders.user_information, data, *part, packing.own.l3num)
        if value is None:
            return
        body, content = value["h323-uu-pdu"]["h323-message-body"]
        forwarded = body == "facility" and isinstance(content, dict) and content.get("reason", ("",))[0] == "callForwarded"
        for found in all_found:
            path = found.path
            if "h245Control" in path:
                if "openLogicalChannel" in path or "openLogicalChannelAck" in path:
                    packing.channel(found)
            elif body in BODIES and path[2:3] == (body,):
                self._address(packing, found, body, forwarded)

    def _address(self, packing: Packing, found: Found, body: str, forwarded: bool) -> None:
        """An address in the body of a message (Linux: process_setup and its like)."""
        role = found.path[3]
        if forwarded:
            if role == "alternativeAddress":
                self._forward(packing, found)
        elif role == "h245Address":
            packing.signalling(found, self.other(H245))
        elif role == "fastStart":
            packing.channel(found)
        elif body == "setup" and packing.nat is not None:
            if role == "destCallSignalAddress" and found.address != packing.far:
                packing.write(found, packing.far, packing.peer.sport)
            elif role == "sourceCallSignalAddress" and found.address != packing.outer:
                packing.write(found, packing.outer, packing.peer.dport)

    def _forward(self, packing: Packing, found: Found) -> None:
        """The call goes on to somebody else (Linux: expect_callforwarding)."""
        if found.port == 0:
            return
        e = packing.expect(IPPROTO_TCP, found.port, packing.far, found.address, self)
        if packing.nat is None:
            packing.table.expects.add(e, packing.table.clock.now)
            return
        port = packing.nat.expect_at(packing.table, e, packing.direction, packing.outer, found.port)
        if port == 0:
            raise Refused("no port left")
        packing.write(found, packing.outer, port)


class Ras(H323):
    """Registration with a gatekeeper, admission and location."""

    name = "RAS"
    protocols = (IPPROTO_UDP,)
    port = 1719
    policies = ((32, 240),)

    def unit(self, packing: Packing, data: bytes, start: int, end: int) -> None:
        """One message (Linux: process_ras)."""
        value, all_found = self.decoders.find(self.decoders.ras, data, start, end, packing.own.l3num)
        if value is None or not isinstance(value[1], dict):
            return
        kind, content = value
        for found in all_found:
            self._address(packing, found, kind, found.path[1] if len(found.path) > 1 else "")
        if kind == "registrationRequest":
            packing.state.lifetime = content.get("timeToLive", RAS_LIFETIME)
        elif kind == "registrationConfirm":
            self._registered(packing, content)
        elif kind == "unregistrationRequest":
            for e in list(packing.conn.expectations or ()):
                packing.table.expects.remove(e)
            packing.state.signal = [0, 0]
            packing.table.refresh(packing.conn, 30 * SECOND)

    def _registered(self, packing: Packing, content: dict[str, object]) -> None:
        """The registration, and what it announced, live as long as the gatekeeper says."""
        lifetime = content.get("timeToLive", packing.state.lifetime)
        if not isinstance(lifetime, int) or lifetime <= 0:
            return
        packing.state.lifetime = lifetime
        packing.table.refresh(packing.conn, lifetime * SECOND)
        for e in packing.conn.expectations or ():
            if e.tuple.l4proto == IPPROTO_TCP and e.tuple.dport == packing.state.signal[packing.direction]:
                e.deadline = packing.table.clock.now + lifetime * SECOND

    def _address(self, packing: Packing, found: Found, kind: str, role: str) -> None:
        if role in ("rasAddress", "replyAddress") and kind not in ("gatekeeperConfirm", "locationConfirm", "registrationConfirm"):
            self._own_channel(packing, found)
        elif kind == "gatekeeperConfirm" and role == "rasAddress":
            if (found.address, found.port) != (packing.inner, packing.own.sport) and found.port:
                self._announce(packing, found, IPPROTO_UDP, self, 0)
        elif kind == "registrationRequest" and role == "callSignalAddress":
            packing.signalling(found, self.other(Q931), EXPECT_PERMANENT)
        elif role == "callSignalAddress" and kind in ("registrationConfirm", "unregistrationRequest", "infoRequestResponse"):
            self._signal(packing, found)
        elif kind == "admissionRequest" and packing.nat is not None:
            self._admission(packing, found, role)
        elif kind == "admissionConfirm" and role == "destCallSignalAddress":
            if found.address == target_of(packing.conn, packing.direction):
                self._signal(packing, found)
            elif found.port:
                self._announce(packing, found, IPPROTO_TCP, self.other(Q931), EXPECT_PERMANENT)
        elif kind == "locationConfirm" and role == "callSignalAddress" and found.port:
            self._announce(packing, found, IPPROTO_TCP, self.other(Q931), EXPECT_PERMANENT)

    def _own_channel(self, packing: Packing, found: Found) -> None:
        """The address of this very channel (Linux: set_ras_addr)."""
        if packing.nat is not None and (found.address, found.port) == (packing.inner, packing.own.sport):
            packing.write(found, packing.outer, packing.peer.dport)

    def _announce(self, packing: Packing, found: Found, proto: int, helper: Helper, flags: int) -> None:
        """The other side will connect to an address that the gatekeeper names."""
        e = packing.expect(proto, found.port, packing.far, found.address, helper, flags)
        packing.table.expects.add(e, packing.table.clock.now)

    def _signal(self, packing: Packing, found: Found) -> None:
        """The announced signalling address, seen from either side (Linux: set_sig_addr)."""
        ports, direction = packing.state.signal, packing.direction
        if packing.nat is None or found.port != ports[direction]:
            return
        if found.address == packing.inner:
            packing.write(found, packing.outer, ports[1 - direction])
        elif found.address == target_of(packing.conn, direction):
            packing.write(found, packing.far, ports[1 - direction])

    def _admission(self, packing: Packing, found: Found, role: str) -> None:
        """The caller or the called asks to be admitted (Linux: process_arq)."""
        if found.address != packing.inner:
            return
        if role == "destCallSignalAddress" and found.port == packing.state.signal[packing.direction]:
            packing.write(found, packing.outer, packing.state.signal[1 - packing.direction])
        elif role == "srcCallSignalAddress":
            packing.write(found, packing.outer, found.port)
