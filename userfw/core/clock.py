"""The engine's only notion of time: a number that the shell (or a test) sets before each batch."""

import cython


class Clock:
    """`now` is monotonic nanoseconds; `wall_offset` is what to add to `now / 1e9` to get Unix time in seconds (meta time)."""

    def __init__(self, now: cython.ulonglong = 0, wall_offset: cython.double = 0.0) -> None:
        self.now = now
        self.wall_offset = wall_offset
