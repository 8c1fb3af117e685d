"""Passive operating system fingerprints in the format of pf.os (OpenBSD's, as nft and nfnl_osf load it), and matching a SYN with
them.

Linux: nfnetlink_osf.c, nf_osf_match_one. A line is `window:ttl:df:size:options:genre:version:subtype`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from userfw.core.packet import Packet

_OPTIONS = {"N": (1, 1), "E": (0, 1), "S": (4, 2), "T": (8, 10), "M": (2, 4), "W": (3, 3)}
_SMART_MSS = (1460, 1448)
TTL_TRUE, TTL_LOOSE, TTL_SKIP = range(3)


@dataclass(frozen=True)
class Fingerprint:
    """`window_kind`: "" plain, S times MSS, T times MTU, % modulo, * any; `options`: (kind, length) in order."""

    window_kind: str
    window: int
    ttl: int
    df: bool
    size: int
    options: tuple[tuple[int, int], ...]
    genre: str
    version: str
    subtype: str = ""


def parse_line(line: str) -> Fingerprint | None:
    """One fingerprint, or None for a comment, an empty or an unusable line."""
    text = line.split("#", 1)[0].strip()
    fields = text.split(":")
    if len(fields) < 7:
        return None
    window, ttl, df, size, options, genre, version = fields[:7]
    kind = window[:1] if window[:1] in ("S", "T", "%", "*") else ""
    number = window[len(kind) :] or "0"
    parsed = _parse_options(options)
    if not (number.isdigit() and ttl.isdigit() and size.isdigit()) or parsed is None:
        return None
    return Fingerprint(
        kind, int(number), int(ttl), df == "1", int(size), parsed, genre.lstrip("@*-"), version, ":".join(fields[7:])
    )


def _parse_options(text: str) -> tuple[tuple[int, int], ...] | None:
    result = []
    for part in text.split(","):
        letter = part.strip()[:1]
        if letter in ("", "."):
            continue
        if letter not in _OPTIONS:
            return None
        result.append(_OPTIONS[letter])
    return tuple(result)


class Fingerprints:
    """All known fingerprints, in the file's order, apart by the don't-fragment flag."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.by_df: tuple[list[Fingerprint], list[Fingerprint]] = ([], [])
        for line in lines:
            fingerprint = parse_line(line)
            if fingerprint is not None:
                self.by_df[fingerprint.df].append(fingerprint)

    def match(self, pkt: Packet, ttl_check: int) -> Fingerprint | None:
        """The first fingerprint that a TCP SYN over IPv4 matches."""
        df = bool(pkt.get16(pkt.l3 + 6) & 0x4000)
        return next((f for f in self.by_df[df] if _matches(f, pkt, ttl_check)), None)


def identify(fingerprints: Fingerprints | None, pkt: Packet, ttl_check: int, version: bool) -> bytes:
    """Genre, or genre:version, or "unknown"; at most 15 bytes."""
    found = fingerprints.match(pkt, ttl_check) if fingerprints is not None else None
    if found is None:
        return b"unknown"
    text = f"{found.genre}:{found.version}" if version else found.genre
    return text.encode()[:15]


def _matches(f: Fingerprint, pkt: Packet, ttl_check: int) -> bool:
    if pkt.get16(pkt.l3 + 2) != f.size or not _ttl_fits(f, pkt, ttl_check):
        return False
    at = pkt.l4 + 20
    end = pkt.l4 + (pkt.get8(pkt.l4 + 12) >> 4) * 4
    if end > pkt.end or sum(length for _, length in f.options) != end - at:
        return False
    mss = 0
    for kind, length in f.options:
        if pkt.get8(at) != kind:
            return False
        if kind == 2:
            mss = pkt.get16(at + 2)
        at += length
    return _window_fits(f, pkt.get16(pkt.l4 + 14), mss)


def _ttl_fits(f: Fingerprint, pkt: Packet, ttl_check: int) -> bool:
    ttl = pkt.get8(pkt.l3 + 8)
    if ttl_check == TTL_TRUE:
        return ttl == f.ttl
    return ttl_check == TTL_SKIP or ttl <= f.ttl


def _window_fits(f: Fingerprint, window: int, mss: int) -> bool:
    if f.window_kind == "":
        return f.window in (0, window)
    if f.window_kind == "S":
        return window in {f.window * m for m in (mss, *_SMART_MSS)}
    if f.window_kind == "T":
        return window in {f.window * (m + 40) for m in (mss, *_SMART_MSS)}
    if f.window_kind == "%":
        return f.window > 0 and window % f.window == 0
    return True
