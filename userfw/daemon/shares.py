"""Whose turn it is: ports share the packet loop's time, not its batches, by start-time fair queueing (Goyal, Vin, Cheng 1996).

A flood of small packets, each of which opens a connection, costs twenty times a full segment of an established flow, byte by byte,
and there is always more of it: with a batch for each in turn, it took nearly all the time there was. Laws:
- Of ports that have something to read, those are served that were served for the least time; one that is ahead of the least by more
  than a turn waits. Alone, a port is served always: no time is left unused, nothing is dropped that there is time for.
- A turn is TURN_NS of work, by what the port's frames took lately; at least FEWEST frames, whatever they take.
- Idle ports save no more than CREDIT_NS: enough for the bursts of a flow that waits for its acknowledgements.
- A frame that opens a connection is charged twice: what it brings about, answers first of all, comes in at other ports at their
  expense.
- Nothing is charged beyond CHARGE_MAX_NS: then it was not the frames, another program had the processor.
"""

import cython

if not cython.compiled:
    NOBODY = 2**63
    TURN_NS, CREDIT_NS, CHARGE_MAX_NS, FEWEST = 250_000, 2_000_000, 1_000_000, 8


class Share:
    """One port's: `served` is its time, ns of those of the busiest port; `frame_ns` what a frame took on average, lately."""

    def __init__(self) -> None:
        self.served = 0
        self.frame_ns = 0


class Shares:
    """What all ports are measured by: `least` is what the port served least of those that wait was served for, and `floor` the most
    that `least` ever was."""

    def __init__(self) -> None:
        self.floor = 0
        self.least = 0

    def look(self) -> cython.int:
        """Which ports wait is to be told anew by `join`, all of them before the first `turn`; 0."""
        self.least = NOBODY
        return 0

    def join(self, share: Share) -> cython.int:
        """`share` has something to read, and saved no more than the credit while it had not; 0."""
        if share.served + CREDIT_NS < self.floor:
            share.served = self.floor - CREDIT_NS
        if share.served < self.least:
            self.least = share.served
        return 0

    def turn(self, share: Share) -> cython.bint:
        """Whether it is served now."""
        if self.floor < self.least:
            self.floor = self.least
        return share.served <= self.least + TURN_NS

    def budget(self, share: Share, most: cython.int) -> cython.int:
        """Frames of one turn, at most `most`."""
        if share.frame_ns * most <= TURN_NS:
            return most
        frames: cython.int = cython.cast(cython.int, TURN_NS // share.frame_ns)
        if frames < FEWEST:
            frames = FEWEST
        return min(frames, most)

    def charge(self, share: Share, ns: cython.ulonglong, frames: cython.int, opened: cython.int) -> cython.int:
        """It was served `frames` in `ns`, `opened` of which were the first of their connections; 0."""
        ns = min(ns, cython.cast(cython.ulonglong, CHARGE_MAX_NS))
        share.served += ns
        if frames > 0:
            share.served += ns // frames * min(opened, frames)
            share.frame_ns += ns // frames // 8 - share.frame_ns // 8
        return 0
