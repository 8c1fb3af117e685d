"""A control connection through the gateway's hooks, and the connection that it announced: what the tests of helpers share."""

from __future__ import annotations

import struct
from typing import Any

from ct_build import checksums_hold, tcp, udp
from nat_harness import Gateway, NatRange, Rule, nat_range

from userfw.conntrack.helper import Helpers
from userfw.nat.helper import HelperTools

CLIENT, SERVER, OUTER = "10.0.1.5", "198.51.100.9", "203.0.113.1"


class Session:
    """A TCP connection through a gateway with its own numbers; `say` returns the payload as the other side gets it."""

    def __init__(self, g: Gateway, client: str, server: str, seen: str, dport: int, server_seen: str | None = None) -> None:
        self.g, self.client, self.server, self.seen, self.dport = g, client, server, seen, dport
        self.server_seen = server_seen or server  # what the client connects to
        self.sport = 40000
        self.sent = [1, 1]  # what each end has sent, in its own count
        self.got = [1, 1]  # what each end has received, in the numbers it sees
        self.base = (1000, 5000)
        self._send(0, "S", 0, None)
        self._send(1, "S.", 0, None)
        self._send(0, ".", None, None)

    def _send(self, end: int, flags: str, seq: int | None, data: bytes | None) -> bytes:
        src, dst, sp, dp = (
            (self.client, self.server_seen, self.sport, self.dport)
            if end == 0
            else (self.server, self.seen, self.dport_inside(), self.sport)
        )
        n = self.sent[end] if seq is None else seq
        ack = 0 if flags == "S" else self.base[1 - end] + self.got[end]
        out = self.g.forward(tcp(src, dst, sp, dp, flags, self.base[end] + n, ack, 65535, data or b""), back=end == 1)
        assert out is not None, self.g.last.drop_reason
        assert checksums_hold(out) and self.g.last.ctinfo in (1, 2), self.g.last.ctinfo
        self.raw = out
        head = 20 if out[0] >> 4 == 4 else 40
        body = out[head + 20 :]
        if body:
            at = struct.unpack("!I", out[head + 4 : head + 8])[0] - self.base[end]
            assert at == self.got[1 - end], "the stream has a gap for its receiver"
            self.got[1 - end] += len(body)
            self.sent[end] += len(data or b"")
        return body

    def dport_inside(self) -> int:
        return self.dport

    def say(self, end: int, data: bytes) -> bytes:
        """Send, and have the other end acknowledge; the sender must understand the acknowledgement."""
        body = self._send(end, "P.", None, data)
        self._send(1 - end, ".", None, None)
        head = 20 if self.raw[0] >> 4 == 4 else 40
        ack = struct.unpack("!I", self.raw[head + 8 : head + 12])[0] - self.base[end]
        assert ack == self.sent[end], "an acknowledgement of what was never sent"
        return body


def giving(g: Gateway, conn: Any, helper: object) -> None:
    if conn.master is None:
        g.table.set_helper(conn, helper)


def gateway(kind: str, proto: int, nat: str) -> Gateway:
    g = Gateway()
    helper = Helpers(HelperTools(g.nat)).get(kind, proto)
    give = Rule(lambda pkt, conn: giving(g, conn, helper))
    post = {
        "none": [],
        "snat": [Rule(lambda pkt, conn: g.nat.masquerade(pkt, conn, NatRange()))],
        "dnat": [],
    }[nat]
    pre: list[Rule] = [give]
    if nat == "dnat":
        pre.append(Rule(lambda pkt, conn: g.nat.setup(pkt, conn, nat_range("10.0.1.80"), 1)))
    g.rules([*pre], [*post])
    g.ruled = pre  # type: ignore[attr-defined]
    return g


def connect(g: Gateway, src: str, dst: str, dport: int, back: bool, proto: str = "tcp", sport: int = 20) -> bytes:
    """The announced connection's first packet, which must be RELATED."""
    build = tcp(src, dst, sport, dport, "S", 1) if proto == "tcp" else udp(src, dst, sport, dport, b"data")
    out = g.forward(build, back)
    assert out is not None, g.last.drop_reason
    assert g.last.ctinfo == 3 and g.last.ct.master is not None and checksums_hold(out)
    return out
