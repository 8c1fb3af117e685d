"""What a router remembers, in one form for every router: rule counters and connections.

Laws
- A value that cannot agree between two routers (handles, ids, remaining seconds) is left out or kept apart.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Conn:
    """A connection as a listing shows it. `timeout` is in seconds, left out of comparisons."""

    proto: str
    state: str
    original: tuple[str, ...]
    reply: tuple[str, ...]
    flags: frozenset[str]
    mark: int
    counts: tuple[tuple[int, int], ...] = ()
    zone: int = 0
    timeout: int = field(default=0, compare=False)

    def __str__(self) -> str:
        return f"{self.proto} {self.state} {' '.join(self.original)} / {' '.join(self.reply)} " \
               f"{sorted(self.flags)} mark={self.mark} {self.counts} {self.timeout}s"


_KEYS = ("src", "dst", "sport", "dport", "type", "code", "id")


def conns_from_text(text: str) -> list[Conn]:
    """Entries of `conntrack -L -o extended` (conntrack-tools), sorted."""
    return sorted(filter(None, map(_conn_from_line, text.splitlines())), key=str)


def _conn_from_line(line: str) -> Conn | None:
    words = line.split()
    if len(words) < 5 or words[0] not in ("ipv4", "ipv6"):
        return None
    rest, timeout, state = words[4:], 0, ""
    if rest[0].isdigit():
        timeout, rest = int(rest[0]), rest[1:]
    if "=" not in rest[0] and not rest[0].startswith("["):
        state, rest = rest[0], rest[1:]
    tuples: list[list[str]] = []
    counts: list[list[int]] = []
    flags, mark, zone = set(), 0, 0
    for word in rest:
        key, _, value = word.partition("=")
        if key == "src":
            tuples.append([])
        if key in _KEYS:
            tuples[-1].append(word)
        elif key == "packets":
            counts.append([int(value)])
        elif key == "bytes":
            counts[-1].append(int(value))
        elif key == "mark":
            mark = int(value)
        elif key == "zone":
            zone = int(value)
        elif word.startswith("["):
            flags.add(word.strip("[]"))
    return Conn(words[2], state, tuple(tuples[0]), tuple(tuples[1]), frozenset(flags), mark,
                tuple((c[0], c[1]) for c in counts), zone, timeout)


def counters(listing: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Every counter of an `nft -j list ruleset`: place -> (packets, bytes).

    A place is `family table chain #n` for the n-th counter in a chain, `family table name` for a named one."""
    found: dict[str, tuple[int, int]] = {}
    seen: dict[str, int] = {}
    for item in listing["nftables"]:
        for kind, value in item.items():
            if kind == "counter":
                found[f"{value['family']} {value['table']} {value['name']}"] = (value["packets"], value["bytes"])
            elif kind == "rule":
                for count in _counters_in(value["expr"]):
                    chain = f"{value['family']} {value['table']} {value['chain']}"
                    seen[chain] = seen.get(chain, 0) + 1
                    found[f"{chain} #{seen[chain]}"] = (count["packets"], count["bytes"])
    return found


def _counters_in(expr: list[dict[str, Any]]) -> Iterator[dict[str, int]]:
    for statement in expr:
        value = statement.get("counter")
        if isinstance(value, dict):
            yield value


def elements(listing: dict[str, Any], table: str, name: str) -> list[Any]:
    """The elements of a named set or map in an `nft -j list ruleset`; KeyError if there is none."""
    for item in listing["nftables"]:
        for kind in ("set", "map"):
            value = item.get(kind)
            if value and value["table"] == table and value["name"] == name:
                return list(value.get("elem", []))
    raise KeyError(name)


def normal_text(listing: str) -> str:
    """A listing without what differs by version of nft or by time: counters, handles, remaining times."""
    text = re.sub(r" # handle \d+", "", listing)
    text = re.sub(r"packets \d+ bytes \d+", "packets 0 bytes 0", text)
    return re.sub(r" expires \w+", "", text)
