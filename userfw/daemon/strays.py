"""What workers tell each other: tuples that strayed from their home, and connections that a helper announced.

A helper's data connection belongs to its master's worker (it inherits mark, NAT and more), whatever its ports say. So an
expectation is told to every worker; whoever receives the announced packet hands it over, and when the connection is confirmed its
owner claims both tuples at their homes, which from then on hand over every packet of it.

Laws: news travel in the order in which they were told, and before the packets that follow from them (`daemon.handover`). A claim
is released within a second after its connection ended; claims end with their workers, which end together.
"""

from __future__ import annotations

import msgspec

from userfw.conntrack.conn import Conn, Tuple
from userfw.conntrack.expect import Expectation
from userfw.conntrack.steer import Steering
from userfw.core.const import IPS_DYING
from userfw.daemon.handover import Handover, key_of

Key = tuple[int, ...]


class Announced(msgspec.Struct, array_like=True, frozen=True):
    """An expectation of another worker: key of its tuple, masks of the source, deadline (monotonic ns: one machine, one clock)."""

    key: Key
    mask_hi: int
    mask_lo: int
    mask_sport: int
    deadline: int

    def matches(self, key: Tuple, now: int) -> bool:
        """Whether a packet of `key` fulfils it."""
        family, proto, src_hi, src_lo, dst_hi, dst_lo, sport, dport = self.key
        return (
            (key.dst_lo, key.dst_hi, key.dport, key.l4proto, key.l3num) == (dst_lo, dst_hi, dport, proto, family)
            and (key.src_lo ^ src_lo) & self.mask_lo == 0
            and (key.src_hi ^ src_hi) & self.mask_hi == 0
            and (key.sport ^ sport) & self.mask_sport == 0
            and self.deadline > now
        )


class News(msgspec.Struct, array_like=True, frozen=True):
    """One message. `what`: expect, forget, claim, release; `owner`: the worker that says it."""

    what: str
    owner: int
    key: Key = ()
    announced: Announced | None = None


class Roaming(Steering):
    """The steering of one of several workers, which knows whom to tell."""

    def __init__(self, index: int, count: int) -> None:
        super().__init__(index, count)
        self.strays: Strays | None = None

    def strayed(self, conn: Conn) -> int:
        """See conntrack.steer.Steering."""
        if self.strays is not None:
            self.strays.claim(conn)
        return 0


class Strays:
    """One worker's part: observer of its expectations, claims on behalf of its connections, and what the others told."""

    def __init__(self, handover: Handover, steering: Roaming) -> None:
        self.handover = handover
        self.steering = steering
        self.table = handover.table
        self.claimed: dict[Key, Conn] = {}
        handover.told = self.told_untrusted
        steering.strays = self
        self.table.expects.observer = self

    # -- expectations of ours

    def clashes(self, expectation: Expectation) -> bool:
        """Another worker expects at the same place."""
        here = announced(expectation)
        return any(there.key[2:6] == here.key[2:6] and there.key[7] == here.key[7] and there.key[:2] == here.key[:2]
                   for there, _ in self.handover.foreign if there.deadline > self.table.clock.now)  # fmt: skip

    def added(self, expectation: Expectation) -> None:
        """Tell everybody."""
        self._broadcast(News("expect", self.steering.index, announced=announced(expectation)))

    def removed(self, expectation: Expectation) -> None:
        """It was fulfilled, or is not expected any more."""
        self._broadcast(News("forget", self.steering.index, announced=announced(expectation)))

    # -- connections of ours

    def claim(self, conn: Conn) -> None:
        """A connection was confirmed whose tuples have their home elsewhere."""
        for node in (conn.orig, conn.reply):
            home = self.steering.home(node.l4proto, node.sport, node.dport)
            if home != self.steering.index:
                key = key_of(node)
                self.claimed[key] = conn
                self._tell(home, News("claim", self.steering.index, key))

    def sweep(self) -> None:
        """Release what ended, and forget what other workers expected in vain; once a second."""
        for key, conn in list(self.claimed.items()):
            if conn.status & IPS_DYING:
                del self.claimed[key]
                self._tell(self.steering.home(key[1], key[6], key[7]), News("release", self.steering.index, key))
        now = self.table.clock.now
        self.handover.foreign[:] = [pair for pair in self.handover.foreign if pair[0].deadline > now]
        self.handover.push()

    # -- the others

    def told_untrusted(self, data: bytes) -> None:
        """News of another worker."""
        news = msgspec.msgpack.decode(data, type=News)
        claims, foreign = self.handover.claims, self.handover.foreign
        if news.what == "claim":
            claims[news.key] = news.owner
        elif news.what == "release":
            if claims.get(news.key) == news.owner:
                del claims[news.key]
        elif news.what == "expect":
            foreign.append((news.announced, news.owner))
        elif news.announced is not None:
            wanted = news.announced.key
            for i, (there, owner) in enumerate(foreign):
                if owner == news.owner and there.key == wanted:
                    del foreign[i]
                    break

    def _broadcast(self, news: News) -> None:
        for worker in range(self.steering.count):
            if worker != self.steering.index:
                self._tell(worker, news)

    def _tell(self, worker: int, news: News) -> None:
        self.handover.tell(worker, msgspec.msgpack.encode(news))


def announced(e: Expectation) -> Announced:
    """An expectation as other workers need to know it."""
    return Announced(key_of(e.tuple), e.mask_hi, e.mask_lo, e.mask_sport, e.deadline)
