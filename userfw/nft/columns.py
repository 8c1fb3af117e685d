"""Plain set elements as columns of bytes: what a million of them are from the text to the engine.

Laws:
- A value is `octets` bytes, first byte highest: 4 of an IPv4 address, 16 of an IPv6 address, 8 of a number. `highs` is empty while
  every element is one value; `starts` are the places in the text, 4 bytes each, empty for elements that were not written.
- Only what can mean nothing else is scanned: decimal numbers without leading zeros, addresses, with a prefix or a range of them,
  each before a comma or the closing brace. At anything else the scan stops, in front of the element.
- Every method that looks at all elements does so a slice at a time: the caller's loop lets packets pass in between.
"""

from __future__ import annotations

import cython

NOTHING, QUAD, NUMBER, GROUPS = range(4)
SLICE = 4096
"""Elements that are looked at in one go: a fraction of a millisecond."""


def digit(c: cython.int) -> cython.int:
    """The value of a hexadecimal digit, or -1."""
    if 48 <= c <= 57:
        return c - 48
    c |= 32
    return c - 87 if 97 <= c <= 102 else -1


def skip(text: bytes, at: cython.Py_ssize_t) -> cython.Py_ssize_t:
    """Behind white space and comments; the end of the text is a place like any other."""
    size: cython.Py_ssize_t = len(text)
    c: cython.int
    while at < size:
        c = text[at]
        if c == 35:  # a comment, to the end of its line
            while at < size and text[at] != 10:
                at += 1
        elif c == 32 or c == 10 or c == 9 or c == 13:
            at += 1
        else:
            break
    return at


def quad(text: bytes, at: cython.Py_ssize_t, into: bytearray) -> cython.Py_ssize_t:
    """An IPv4 address without leading zeros; where it ends, or -1."""
    size: cython.Py_ssize_t = len(text)
    part: cython.int
    value: cython.int
    begin: cython.Py_ssize_t
    for part in range(4):
        if part:
            if at >= size or text[at] != 46:
                return -1
            at += 1
        value = 0
        begin = at
        while at < size and at < begin + 3 and 48 <= text[at] <= 57:
            value = value * 10 + text[at] - 48
            at += 1
        if at == begin or value > 255 or (text[begin] == 48 and at > begin + 1):
            return -1
        into[part] = value
    return at


def decimal(text: bytes, at: cython.Py_ssize_t, into: bytearray) -> cython.Py_ssize_t:
    """A decimal number without leading zeros; where it ends, or -1."""
    size: cython.Py_ssize_t = len(text)
    value: cython.ulonglong = 0
    begin: cython.Py_ssize_t = at
    i: cython.int
    while at < size and at < begin + 18 and 48 <= text[at] <= 57:
        value = value * 10 + (text[at] - 48)
        at += 1
    if at == begin or (text[begin] == 48 and at > begin + 1):
        return -1
    for i in range(7, -1, -1):
        into[i] = value & 255
        value >>= 8
    return at


def groups(text: bytes, at: cython.Py_ssize_t, into: bytearray) -> cython.Py_ssize_t:
    """An IPv6 address in groups of hexadecimal digits; where it ends, or -1."""
    size: cython.Py_ssize_t = len(text)
    gap: cython.int = -1
    count: cython.int = 0
    value: cython.int
    begin: cython.Py_ssize_t
    i: cython.int
    if at + 1 < size and text[at] == 58 and text[at + 1] == 58:
        gap = 0
        at += 2
    while count < 8:
        value = 0
        begin = at
        while at < size and at < begin + 4 and digit(text[at]) >= 0:
            value = value * 16 + digit(text[at])
            at += 1
        if at == begin:
            if gap != count:  # only behind `::` may digits be missing
                return -1
            break
        into[2 * count] = value >> 8
        into[2 * count + 1] = value & 255
        count += 1
        if at >= size or text[at] != 58:
            break
        at += 1
        if at < size and text[at] == 58:
            if gap >= 0:
                return -1
            gap = count
            at += 1
        elif count == 8:
            return -1
    if gap < 0:
        return at if count == 8 else -1
    if count == 8:
        return -1
    for i in range(count - gap):
        into[15 - 2 * i] = into[2 * count - 1 - 2 * i]
        into[14 - 2 * i] = into[2 * count - 2 - 2 * i]
    for i in range(2 * gap, 16 - 2 * (count - gap)):
        into[i] = 0
    return at


def compare(a: bytearray, i: cython.Py_ssize_t, b: bytearray, j: cython.Py_ssize_t, octets: cython.int) -> cython.int:
    """-1, 0, 1 as the value at `a[i]` is below, at or above that at `b[j]`."""
    n: cython.int
    x: cython.int
    y: cython.int
    for n in range(octets):
        x = a[i + n]
        y = b[j + n]
        if x != y:
            return -1 if x < y else 1
    return 0


def follows(a: bytearray, i: cython.Py_ssize_t, b: bytearray, j: cython.Py_ssize_t, octets: cython.int) -> cython.int:
    """Whether the value at `b[j]` is the one after that at `a[i]`."""
    n: cython.int
    carry: cython.int = 1
    sum: cython.int
    for n in range(octets - 1, -1, -1):
        sum = a[i + n] + carry
        carry = sum >> 8
        if (sum & 255) != b[j + n]:
            return 0
    return 1 - carry


class Columns:
    """The elements; see the laws above."""

    def __init__(self, kind: int = NOTHING, octets: int = 0) -> None:
        self.kind = kind
        self.octets = octets
        self.count = 0
        self.lows = bytearray()
        self.highs = bytearray()
        self.starts = bytearray()
        self.ranged = False
        self.item = bytearray(16)
        self.other = bytearray(16)

    # --- from the text

    def scan(self, text: bytes, at: int) -> int:
        """Append up to SLICE elements; where the next one begins, or the closing brace stands. Nothing was taken if that is `at`.
        An address that another kind of value follows ends the run too."""
        done: cython.Py_ssize_t = at
        start: cython.Py_ssize_t
        end: cython.Py_ssize_t
        size: cython.Py_ssize_t = len(text)
        budget: cython.int = SLICE
        while budget > 0:
            budget -= 1
            start = skip(text, done)
            end = self._element(text, start) if start < size else -1
            if end < 0:
                break
            end = skip(text, end)
            if end >= size or (text[end] != 44 and text[end] != 125):
                break
            self._put(start)
            done = end
            if text[end] == 125:
                break
            done += 1
        self._trim()
        return done

    def _item(self, text: bytes, at: cython.Py_ssize_t, into: bytearray) -> cython.Py_ssize_t:
        """One value of this kind; where it ends, or -1. The first decides the kind."""
        end: cython.Py_ssize_t
        if self.kind == QUAD:
            return quad(text, at, into)
        if self.kind == NUMBER:
            return decimal(text, at, into)
        if self.kind == GROUPS:
            return groups(text, at, into)
        kind: cython.int = QUAD
        octets: cython.int = 4
        end = quad(text, at, into)
        if end < 0:
            kind, octets = GROUPS, 16
            end = groups(text, at, into)
        if end < 0:
            kind, octets = NUMBER, 8
            end = decimal(text, at, into)
        if end >= 0:
            self.kind = kind
            self.octets = octets
        return end

    def _element(self, text: bytes, at: cython.Py_ssize_t) -> cython.Py_ssize_t:
        """One element into `item` and `other`, its first and last value; where it ends, or -1."""
        size: cython.Py_ssize_t = len(text)
        end: cython.Py_ssize_t = self._item(text, at, self.item)
        length: cython.int
        begin: cython.Py_ssize_t
        if end < 0:
            return -1
        self.other[: self.octets] = self.item[: self.octets]
        if end < size and text[end] == 45:
            end = self._item(text, end + 1, self.other)
            if end >= 0 and compare(self.item, 0, self.other, 0, self.octets) > 0:
                return -1
        elif end < size and text[end] == 47 and self.kind != NUMBER:
            begin = end + 1
            end = begin
            length = 0
            while end < size and end < begin + 3 and 48 <= text[end] <= 57:
                length = length * 10 + text[end] - 48
                end += 1
            if end == begin or length > self.octets * 8 or (text[begin] == 48 and end > begin + 1):
                return -1
            self._cut(length)
        return end

    def _cut(self, length: cython.int) -> cython.int:
        """`item` and `other` become the first and last address of the prefix."""
        i: cython.int
        mask: cython.int
        for i in range(length // 8, self.octets):
            mask = (0xFF00 >> (length & 7)) & 255 if i == length // 8 else 0
            self.item[i] = self.item[i] & mask
            self.other[i] = (self.item[i] | (255 ^ mask)) & 255
        return 0

    def _put(self, start: cython.Py_ssize_t) -> cython.int:
        octets: cython.int = self.octets
        at: cython.Py_ssize_t = self.count * octets
        i: cython.int
        if at >= len(self.lows):
            self.lows.extend(bytes(octets * SLICE))
            self.starts.extend(bytes(4 * SLICE))
            if self.ranged:
                self.highs.extend(bytes(octets * SLICE))
        if not self.ranged and compare(self.item, 0, self.other, 0, octets) != 0:
            self.ranged = True
            self.highs = bytearray(self.lows)
        for i in range(octets):
            self.lows[at + i] = self.item[i]
        if self.ranged:
            for i in range(octets):
                self.highs[at + i] = self.other[i]
        for i in range(4):
            self.starts[self.count * 4 + i] = (start >> (8 * i)) & 255
        self.count += 1
        return 0

    def _trim(self) -> None:
        del self.lows[self.count * self.octets :]
        del self.highs[self.count * self.octets :]
        del self.starts[self.count * 4 :]

    # --- one element

    def low(self, index: int) -> int:
        """The first value of an element."""
        return int.from_bytes(self.lows[index * self.octets : (index + 1) * self.octets], "big")

    def high(self, index: int) -> int:
        """The last value of an element."""
        column = self.highs if self.ranged else self.lows
        return int.from_bytes(column[index * self.octets : (index + 1) * self.octets], "big")

    def start(self, index: int) -> int:
        """Where an element was written, -1 if it was not."""
        return int.from_bytes(self.starts[index * 4 : index * 4 + 4], "little") if self.starts else -1

    # --- all of them, a slice at a time

    def narrow(self, source: Columns, at: int, width: int) -> bool:
        """Take over a slice of `source` in values of this one's octets; False if one has more than `width` bits."""
        size: cython.int = source.octets
        octets: cython.int = self.octets
        stop: cython.Py_ssize_t = min(source.count, at + SLICE)
        row: cython.Py_ssize_t
        i: cython.int
        bits: cython.int = width
        values: bytearray = source.highs if source.ranged else source.lows
        for row in range(at, stop):
            for i in range(size):
                if values[row * size + i] and values[row * size + i] >> max(0, min(8, bits - 8 * (size - 1 - i))):
                    return False
        for row in range(at, stop):
            self.lows += source.lows[(row + 1) * size - octets : (row + 1) * size]
            if source.ranged:
                self.highs += source.highs[(row + 1) * size - octets : (row + 1) * size]
        self.starts += source.starts[at * 4 : stop * 4]
        self.ranged = source.ranged
        self.count = stop
        return True

    def apart(self, at: int, touch: bool) -> int:
        """The first element of the slice at `at` that does not stand behind the one before it (with `touch`: or stands next to it);
        -1 if there is none."""
        octets: cython.int = self.octets
        row: cython.Py_ssize_t
        ends: bytearray = self.highs if self.ranged else self.lows
        touching: cython.bint = touch
        start: cython.Py_ssize_t = at
        for row in range(max(1, start), min(self.count, start + SLICE)):
            if compare(ends, (row - 1) * octets, self.lows, row * octets, octets) >= 0:
                return row
            if touching and follows(ends, (row - 1) * octets, self.lows, row * octets, octets):
                return row
        return -1

    def tally(self, counts: bytearray, byte: int, at: int) -> None:
        """How often each value of a byte of the first values occurs: 256 numbers of 4 bytes (a radix sort's first half)."""
        row: cython.Py_ssize_t
        start: cython.Py_ssize_t = at
        octets: cython.int = self.octets
        place: cython.int = byte
        for row in range(start, min(self.count, start + SLICE)):
            _add(counts, self.lows[row * octets + place] * 4, 1)

    def place(self, places: bytearray, byte: int, at: int, order: bytearray, into: bytearray) -> None:
        """Rows of `order` from `at` on to where `places`, running sums of a tally, say (the second half)."""
        i: cython.Py_ssize_t
        row: cython.Py_ssize_t
        start: cython.Py_ssize_t = at
        value: cython.int
        octets: cython.int = self.octets
        which: cython.int = byte
        for i in range(start, min(self.count, start + SLICE)):
            row = _load(order, i * 4)
            value = self.lows[row * octets + which]
            _store(into, _add(places, value * 4, 1) * 4, row)

    def fold(self, source: Columns, order: bytearray, at: int, merge: bool, touch: bool) -> bool:
        """Append a slice of `source` in `order` (empty: its own). What is there is left out. With `merge` what overlaps (with
        `touch`: or stands next to) the last becomes one with it; without, it is a conflict: False."""
        octets: cython.int = source.octets
        i: cython.Py_ssize_t
        row: cython.Py_ssize_t
        last: cython.Py_ssize_t
        start: cython.Py_ssize_t = at
        ends: bytearray = source.highs if source.ranged else source.lows
        for i in range(start, min(source.count, start + SLICE)):
            row = _load(order, i * 4) if order else i
            last = (self.count - 1) * octets
            if self.count and compare(source.lows, row * octets, self.highs, last, octets) <= 0:
                if not merge:
                    if compare(source.lows, row * octets, self.lows, last, octets) or compare(
                        ends, row * octets, self.highs, last, octets
                    ):
                        return False
                elif compare(ends, row * octets, self.highs, last, octets) > 0:
                    self.highs[last : last + octets] = ends[row * octets : (row + 1) * octets]
                continue
            if self.count and merge and touch and follows(self.highs, last, source.lows, row * octets, octets):
                self.highs[last : last + octets] = ends[row * octets : (row + 1) * octets]
                continue
            self.lows += source.lows[row * octets : (row + 1) * octets]
            self.highs += ends[row * octets : (row + 1) * octets]
            self.starts += source.starts[row * 4 : row * 4 + 4]
            self.count += 1
        self.ranged = True
        return True

    def pick(self, source: Columns, order: bytearray, at: int) -> None:
        """Append a slice of `source` in `order`."""
        octets: cython.int = source.octets
        i: cython.Py_ssize_t
        row: cython.Py_ssize_t
        start: cython.Py_ssize_t = at
        for i in range(start, min(len(order) // 4, start + SLICE)):
            row = _load(order, i * 4)
            self.lows += source.lows[row * octets : (row + 1) * octets]
            if source.ranged:
                self.highs += source.highs[row * octets : (row + 1) * octets]
            if source.starts:
                self.starts += source.starts[row * 4 : row * 4 + 4]
            self.count += 1
        self.ranged = source.ranged

    def append(self, low: bytes, high: bytes) -> None:
        """One more element that was not written."""
        self.lows += low
        if not self.ranged and low != high:
            self.ranged = True
            self.highs = self.lows[: self.count * self.octets]
        if self.ranged:
            self.highs += high
        self.count += 1

    def extend(self, lows: bytearray, highs: bytearray) -> None:
        """Elements that were not written; `highs` empty if they are single values."""
        self.lows += lows
        self.ranged = len(highs) > 0
        self.highs += highs
        self.count = len(self.lows) // self.octets

    def quads(self, at: int) -> list[str]:
        """A slice of IPv4 addresses, prefixes and ranges as text."""
        texts: list[str] = []
        row: cython.Py_ssize_t
        ones: cython.int
        start: cython.Py_ssize_t = at
        lows: bytearray = self.lows
        highs: bytearray = self.highs if self.ranged else self.lows
        for row in range(start, min(self.count, start + SLICE)):
            text = f"{lows[row * 4]}.{lows[row * 4 + 1]}.{lows[row * 4 + 2]}.{lows[row * 4 + 3]}"
            if self.ranged:
                ones = prefix(lows, highs, row * 4)
                if ones < 0:
                    text += f"-{highs[row * 4]}.{highs[row * 4 + 1]}.{highs[row * 4 + 2]}.{highs[row * 4 + 3]}"
                elif ones < 32:
                    text += f"/{ones}"
            texts.append(text)
        return texts


def prefix(lows: bytearray, highs: bytearray, at: cython.Py_ssize_t) -> cython.int:
    """How long the prefix is that covers four bytes from low to high; -1 if none does."""
    low: cython.uint = 0
    high: cython.uint = 0
    free: cython.uint
    i: cython.int
    ones: cython.int = 32
    for i in range(4):
        low = (low << 8) | lows[at + i]
        high = (high << 8) | highs[at + i]
    free = low ^ high
    if free & (free + 1) or low & free:
        return -1
    while free:
        free >>= 1
        ones -= 1
    return ones


def _load(column: bytearray, at: cython.Py_ssize_t) -> cython.Py_ssize_t:
    low: cython.uint = column[at] | (column[at + 1] << 8)
    high: cython.uint = column[at + 2] | (column[at + 3] << 8)
    return low | (high << 16)


def _store(column: bytearray, at: cython.Py_ssize_t, value: cython.Py_ssize_t) -> cython.int:
    i: cython.int
    for i in range(4):
        column[at + i] = (value >> (8 * i)) & 255
    return 0


def _add(column: bytearray, at: cython.Py_ssize_t, more: cython.Py_ssize_t) -> cython.Py_ssize_t:
    """The number at a place before `more` is added to it."""
    before: cython.Py_ssize_t = _load(column, at)
    _store(column, at, before + more)
    return before
