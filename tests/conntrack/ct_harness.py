"""A table with its two hook entries on a manual clock: what a router does around conntrack, without the router."""

from __future__ import annotations

from random import Random

from ct_build import packet

from userfw.conntrack.conn import Conn
from userfw.conntrack.settings import Settings
from userfw.conntrack.table import ConnTable
from userfw.conntrack.track import Confirm, ConntrackIn
from userfw.core.clock import Clock
from userfw.core.packet import Packet

SECOND = 1_000_000_000
STATES = ("NONE", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE", "SYN_SENT2")
INFO = ("none", "new", "established", "related", "untracked", "invalid")


class Lab:
    """`send` passes a packet through prerouting and postrouting and returns it."""

    def __init__(self, **settings: int) -> None:
        self.clock = Clock(1000 * SECOND)
        self.table = ConnTable(self.clock, Settings(settings), Random(7))
        self.enter = ConntrackIn(self.table)
        self.leave = Confirm(self.table)

    def send(self, data: bytes, confirm: bool = True) -> Packet:
        pkt = packet(data)
        self.verdict = self.enter.run(pkt, 0)
        if self.verdict == 1 and confirm:
            self.verdict = self.leave.run(pkt, 4)
        return pkt

    def state(self, data: bytes) -> str:
        """nft's `ct state` for the packet."""
        return INFO[self.send(data).ctinfo]

    def conns(self) -> list[Conn]:
        return self.table.members(0, 0)

    def entry(self) -> str:
        """The one entry, as the corpora write it."""
        (conn,) = self.conns()
        words = [STATES[conn.state]] if conn.orig.l4proto == 6 else []
        if not conn.status & 2:
            words.append("UNREPLIED")
        if conn.status & 4:
            words.append("ASSURED")
        return " ".join(words)
