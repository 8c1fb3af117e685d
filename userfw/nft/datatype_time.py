"""Data types of time: spans (``ct expiration``), dates (``meta time``), hours and days (``meta hour``, ``meta day``).

Laws: spans are milliseconds, dates nanoseconds since the epoch, hours seconds since midnight UTC, days 0 for Sunday,
as the kernel keeps them. Local time is ``Names.utc_offset_at``; Linux asks the C library for the same.
"""

from __future__ import annotations

import datetime
import re

from userfw.nft.datatype import DEFAULT_NAMES, DEFAULT_OUTPUT, Datatype, Names, Output

_SPAN = re.compile(r"(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+)(?:s|\Z))?(?:(\d+)ms)?\Z")
_SPAN_MS = (604_800_000, 86_400_000, 3_600_000, 60_000, 1000, 1)
MAX_TIMEOUT_MS = (1 << 64) // 1_000_000
"""Timeouts of elements are shorter (Linux: nf_msecs_to_jiffies64 counts nanoseconds in 64 bits)."""
_DATE = re.compile(r"(\d{4})-(\d{1,2})-(\d{1,2})(?:[ T](\d{1,2}):(\d{1,2})(?::(\d{1,2}))?)?\Z")
_HOUR = re.compile(r"(\d{1,2}):(\d{1,2})(?::(\d{1,2}))?\Z")
DAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
DAY_SECONDS = 86_400


def parse_span(text: str) -> int:
    """Milliseconds of ``1d2h3m4s500ms``; a bare number is seconds."""
    match = _SPAN.match(text)
    if match is None or not text:
        raise ValueError("Could not parse time")
    return sum(int(part) * unit for part, unit in zip(match.groups(), _SPAN_MS, strict=True) if part)


def format_span(ms: int) -> str:
    """``1d2h3m4s500ms``, as nft lists timeouts."""
    seconds, rest = divmod(ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [
        f"{amount}{unit}" for amount, unit in ((days, "d"), (hours, "h"), (minutes, "m"), (seconds, "s"), (rest, "ms")) if amount
    ]
    return "".join(parts) or "0s"


class SpanType(Datatype):
    """``time``: how long."""

    __slots__ = ()

    def parse(self, text: str, names: Names = DEFAULT_NAMES) -> int:
        return parse_span(text)

    def from_int(self, value: int) -> int:
        return value * 1000

    def format(self, value: int | bytes, out: Output = DEFAULT_OUTPUT) -> str:
        assert isinstance(value, int)
        return f"{value // 1000}s" if out.seconds or out.numeric_time else format_span(value)


class DateType(Datatype):
    """``meta time``: an ISO date in local time, or UNIX seconds."""

    __slots__ = ()

    def parse(self, text: str, names: Names = DEFAULT_NAMES) -> int:
        match = _DATE.match(text)
        if match is None:
            return self.from_int(self.parse_number(text))
        year, month, day, hour, minute, second = (int(part or 0) for part in match.groups())
        try:
            local = datetime.datetime(year, month, day, hour, minute, min(second, 59), tzinfo=datetime.UTC)
        except ValueError:
            raise ValueError("Cannot parse date") from None
        when = int(local.timestamp()) + max(0, second - 59)
        return (when - names.utc_offset_at(when)) * 1_000_000_000

    def parse_number(self, text: str) -> int:
        try:
            return super().parse_number(text)
        except ValueError:
            raise ValueError("Cannot parse date") from None

    def from_int(self, value: int) -> int:
        return value * 1_000_000_000

    def format(self, value: int | bytes, out: Output = DEFAULT_OUTPUT) -> str:
        assert isinstance(value, int)
        when = value // 1_000_000_000
        if out.numeric_time:
            return str(when)
        when += out.names.utc_offset_at(when)
        try:
            local = datetime.datetime.fromtimestamp(when, datetime.UTC)
        except (OverflowError, ValueError):
            return str(value // 1_000_000_000)
        return local.strftime('"%Y-%m-%d %H:%M:%S"')


class HourType(Datatype):
    """``meta hour``: ``HH:MM[:SS]`` local time; the value is seconds since midnight UTC."""

    __slots__ = ()

    def parse(self, text: str, names: Names = DEFAULT_NAMES) -> int:
        match = _HOUR.match(text)
        if match is None:
            return self.parse_number(text)
        hour, minute, second = (int(part or 0) for part in match.groups())
        if hour > 23 or minute > 59 or second > 60:
            raise ValueError(f'Cannot parse time: "{text}" is not a time of day')
        return (hour * 3600 + minute * 60 + second - names.utc_offset_at(0)) % DAY_SECONDS

    def parse_number(self, text: str) -> int:
        try:
            value = super().parse_number(text)
        except ValueError:
            raise ValueError("Cannot parse time of day") from None
        if value > DAY_SECONDS:
            raise ValueError("Hour value out of range")
        return value

    def format(self, value: int | bytes, out: Output = DEFAULT_OUTPUT) -> str:
        assert isinstance(value, int)
        if out.numeric_time:
            return str(value)
        second = (value + out.names.utc_offset_at(0)) % DAY_SECONDS
        text = f"{second // 3600:02d}:{second // 60 % 60:02d}"
        return f'"{text}:{second % 60:02d}"' if second % 60 else f'"{text}"'


class DayType(Datatype):
    """``meta day``: a prefix of an English week day, or 0 (Sunday) to 6."""

    __slots__ = ()

    def parse(self, text: str, names: Names = DEFAULT_NAMES) -> int:
        low = text.lower()
        if len(low) >= 3:
            for number, day in enumerate(DAYS):
                if day.lower().startswith(low):
                    return number
        return self.from_int(self.parse_number(text))

    def from_int(self, value: int) -> int:
        if value > 6:
            raise ValueError("Day of week must be in range 0-6")
        return value

    def format(self, value: int | bytes, out: Output = DEFAULT_OUTPUT) -> str:
        assert isinstance(value, int)
        return str(value) if out.numeric_time or not 0 <= value <= 6 else f'"{DAYS[value]}"'
