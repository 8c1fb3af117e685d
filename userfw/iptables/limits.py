"""Rates: ``-m limit`` and ``-m hashlimit``.

Law: a rate is kept as the time for one packet, in ten-thousandths of a second (``limit``) or millionths (``hashlimit``), and
printed in the largest unit that is exact enough (iptables: libxt_limit.c), so ``60/minute`` lists as ``1/second``.
"""

from __future__ import annotations

import re
from itertools import pairwise

from userfw.iptables.errors import UsageError
from userfw.iptables.extension import Extension, Option, Rule, Use, Words
from userfw.iptables.values import FLAG, Bad, Context, Kind, address_text, integer, number, ones, protocol_text, string, subset

SCALE = 10000
HASH_SCALE = 1000000
UNITS = (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))
_BYTES = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}


def read_rate(text: str, scale: int = SCALE) -> tuple[int, int]:
    """``N[/unit]`` as (time for one packet, seconds of the unit)."""
    count, slash, unit = text.partition("/")
    seconds = next((seconds for name, seconds in reversed(UNITS) if name.startswith(unit.lower())), 0) if slash else 1
    if slash and (not unit or not seconds):
        raise Bad(f"bad rate `{text}'")
    value = integer(count, 1, 2**31)
    if value // seconds > scale:
        raise Bad(f'Rate too fast "{text}"')
    return scale * seconds // value, seconds


def rate_text(period: int, scale: int = SCALE) -> str:
    """A rate in the largest unit that says it."""
    chosen = UNITS[-1]
    for unit, finer in pairwise(UNITS):
        whole = finer[1] * scale
        if period > whole or whole // period < whole % period:
            chosen = unit
            break
    return f"{chosen[1] * scale // period}/{chosen[0]}"


RATE = Kind(lambda text, context: read_rate(text))
LIMIT_OPTIONS = (Option("limit", RATE, "limit rate"), Option("limit-burst", number(10000), "burst"))


def limit_words(use: Use, rule: Rule) -> Words:
    """``limit rate N/unit burst M packets``; the defaults are 3/hour and 5."""
    period, _ = use.value("limit", (SCALE * 3600 // 3, 3600))
    burst = use.value("limit-burst", 5)
    return [f"limit rate {rate_text(period)}" + (f" burst {burst} packets" if burst else "")]


# --- hashlimit


def _read_bytes(text: str) -> int:
    match = re.fullmatch(r"(\d{1,15})([kmg]?)b?", text.lower(), re.ASCII)
    if match is None:
        raise Bad(f"bad rate `{text}'")
    return int(match[1]) * _BYTES[match[2]]


def _read_hash_rate(text: str, context: Context) -> tuple[str, int, int]:
    if re.fullmatch(r"\d{1,15}[kmg]?b/s(ec(ond)?)?", text.lower(), re.ASCII):
        return "bytes", _read_bytes(text.partition("/")[0]), 1
    return ("packets", *read_rate(text, HASH_SCALE))


def _read_burst(text: str, context: Context) -> tuple[str, int]:
    if text.lower().endswith("b"):
        return "bytes", _read_bytes(text)
    return "packets", integer(text, 1, 10000000)


def bytes_text(value: int) -> str:
    """Octets in the largest of nft's units that divides them."""
    for word, size in (("mbytes", 1024**2), ("kbytes", 1024)):
        if value and value % size == 0:
            return f"{value // size} {word}"
    return f"{value} bytes"


def _keys(use: Use, rule: Rule) -> list[str]:
    mode = use.value("hashlimit-mode", frozenset())
    width = rule.family.bits
    transport = protocol_text(rule.protocol) if rule.protocol in (6, 17, 33, 132, 136) else "th"
    keys = []
    for side, key, port in (("dst", "daddr", "dport"), ("src", "saddr", "sport")):
        if f"{side}ip".upper() in mode:
            length = use.value(f"hashlimit-{side}mask", width)
            mask = f" and {address_text(ones(length, width), width)}" if length < width else ""
            keys.append(f"{rule.family.address} {key}{mask}")
        if f"{side}port".upper() in mode:
            keys.append(f"{transport} {port}")
    return keys


def _hashlimit(use: Use, rule: Rule) -> Words:
    if "hashlimit-rate-match" in use:
        return None
    name = "hashlimit-above" if "hashlimit-above" in use else "hashlimit-upto"
    over = "over " if (name == "hashlimit-above") != use.inverted(name) else ""
    unit, rate, seconds = use.value(name)
    burst = use.value("hashlimit-burst")
    if unit == "bytes":
        limit = f"limit rate {over}{bytes_text(rate)}/second" + (f" burst {bytes_text(burst[1])}" if burst else "")
        expire = 60 if burst else 15
    else:
        limit = f"limit rate {over}{rate_text(rate, HASH_SCALE)} burst {burst[1] if burst else 5} packets"
        expire = seconds
    keys = _keys(use, rule)
    if not keys:
        return [limit]
    timeout = use.value("hashlimit-htable-expire", expire * 1000) // 1000
    return [f"meter {use.value('hashlimit-name')} {{ {' . '.join(keys)} timeout {timeout}s {limit} }}"]


def _check(use: Use, rule: Rule) -> None:
    rate = use.value("hashlimit-above") or use.value("hashlimit-upto")
    burst = use.value("hashlimit-burst")
    if burst and burst[0] == "bytes" != rate[0]:
        raise UsageError("hashlimit: burst in bytes needs a rate in bytes")


HASHLIMIT = Extension(
    "hashlimit",
    (
        Option("hashlimit-upto", Kind(_read_hash_rate), invert=True, aliases=("hashlimit",)),
        Option("hashlimit-above", Kind(_read_hash_rate), invert=True),
        Option("hashlimit-burst", Kind(_read_burst)),
        Option("hashlimit-mode", subset(("SRCIP", "SRCPORT", "DSTIP", "DSTPORT"))),
        Option("hashlimit-name", string(255, 1), required=True),
        Option("hashlimit-srcmask", Kind(lambda text, context: integer(text, 0, context.family.bits))),
        Option("hashlimit-dstmask", Kind(lambda text, context: integer(text, 0, context.family.bits))),
        Option("hashlimit-htable-size", number()),
        Option("hashlimit-htable-max", number()),
        Option("hashlimit-htable-expire", number()),
        Option("hashlimit-htable-gcinterval", number()),
        Option("hashlimit-rate-match", FLAG),
        Option("hashlimit-rate-interval", number()),
    ),
    render=_hashlimit,
    one_of=("hashlimit-upto", "hashlimit-above"),
    alone=(("hashlimit-upto", "hashlimit-above"),),
    check=_check,
)
