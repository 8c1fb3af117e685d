"""``-m time``: dates, hours and days of the week."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from userfw.iptables.extension import Extension, Option, Rule, Use, Words
from userfw.iptables.values import Bad, Context, Kind

_LAST = 2**31 - 1  # iptables: XT_TIME's last second
_DAYS = ("mo", "tu", "we", "th", "fr", "sa", "su")
_ALL = frozenset(range(1, 8))


def _read_date(text: str, context: Context) -> int:
    match = re.fullmatch(
        r"(\d{4})(?:-(\d{1,2})(?:-(\d{1,2})(?:T(\d{1,2})(?::(\d{1,2})(?::(\d{1,2}))?)?)?)?)?", text, re.ASCII
    )
    if match is None:
        raise Bad(f'Invalid date "{text}" specified. Should be YYYY[-MM[-DD[Thh[:mm[:ss]]]]]')
    year, month, day, hour, minute, second = (int(part) if part else None for part in match.groups())
    try:
        moment = datetime(year or 0, month or 1, day or 1, hour or 0, minute or 0, second or 0, tzinfo=UTC)
    except ValueError:
        raise Bad from None
    stamp = int(moment.timestamp())
    if not 0 <= stamp <= _LAST:
        raise Bad
    return stamp


def _read_clock(text: str, context: Context) -> int:
    match = re.fullmatch(r"(\d{1,2}):(\d{1,2})(?::(\d{1,2}))?", text, re.ASCII)
    hour, minute, second = (int(part or 0) for part in match.groups()) if match else (99, 0, 0)
    if hour > 23 or minute > 59 or second > 59:
        raise Bad(f'invalid time "{text}" specified, should be hh:mm[:ss] format and within the boundaries')
    return hour * 3600 + minute * 60 + second


def _read_weekdays(text: str, context: Context) -> frozenset[int]:
    found = set()
    for part in text.split(","):
        number = int(part) if re.fullmatch("[1-7]", part) else 0
        if not number:
            number = _DAYS.index(part[:2].lower()) + 1 if part[:2].lower() in _DAYS else 0
        if not 1 <= number <= 7:
            raise Bad(f'Unknown week day "{part}"')
        found.add(number)
    return frozenset(found)


def _read_monthdays(text: str, context: Context) -> frozenset[int]:
    parts = [re.fullmatch(r"(\d{1,2})(?:st|nd|rd|th)?", part, re.ASCII) for part in text.split(",")]
    found = frozenset(int(part[1]) if part else 0 for part in parts)
    if not all(1 <= day <= 31 for day in found):
        raise Bad
    return found


def _date_text(stamp: int) -> str:
    return datetime.fromtimestamp(stamp, UTC).strftime('"%Y-%m-%d %H:%M:%S"')


def _clock_text(second: int) -> str:
    return f'"{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}"'


def _time(use: Use, rule: Rule) -> Words:
    if "monthdays" in use or "contiguous" in use:
        return None
    words = []
    if "datestart" in use or "datestop" in use:
        words.append(f"meta time {_date_text(use.value('datestart', 0))}-{_date_text(use.value('datestop', _LAST))}")
    if "timestart" in use or "timestop" in use:
        words.append(f"meta hour {_clock_text(use.value('timestart', 0))}-{_clock_text(use.value('timestop', 86399))}")
    days = use.value("weekdays", _ALL)
    if use.inverted("weekdays"):
        days = _ALL - days
    if days != _ALL:
        words.append("meta day { " + ", ".join(str(day % 7) for day in sorted(days)) + " }")
    return words


TIME = Extension(
    "time",
    (
        Option("datestart", Kind(_read_date)),
        Option("datestop", Kind(_read_date)),
        Option("timestart", Kind(_read_clock)),
        Option("timestop", Kind(_read_clock)),
        Option("weekdays", Kind(_read_weekdays), invert=True),
        Option("monthdays", Kind(_read_monthdays), invert=True),
        *(Option(name) for name in ("contiguous", "kerneltz", "utc", "localtz")),
    ),
    render=_time,
    alone=(("kerneltz", "utc", "localtz"),),
)
