"""Answers of several workers made one.

Law: every command of the control socket stands in one of the tables here, or the front refuses it (a test compares).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

Merge = Callable[[list[Any], dict[str, Any]], Any]

# of numbers that are no sums
SAME = {"generation", "ports", "routes", "compiled", "version", "cython", "config", "index", "mtu", "queue"}
LARGEST = {"uptime", "longest_slice_ms"}


def total(values: list[Any], name: str = "") -> Any:
    """Numbers are added, tables put together key by key, anything else is the first worker's."""
    first = values[0]
    if isinstance(first, dict):
        keys = list(dict.fromkeys(key for value in values for key in value))
        return {key: total([value[key] for value in values if key in value], key) for key in keys}
    if isinstance(first, bool) or not isinstance(first, (int, float)) or name in SAME:
        return first
    if name in LARGEST:
        return max(values)
    return round(sum(values), 6) if isinstance(first, float) else sum(values)


def _status(answers: list[Any], args: dict[str, Any]) -> Any:
    told = total(answers)
    told["workers"] = [
        {**{name: answer[name] for name in ("pid", "packets", "connections", "cpu_seconds")}, **answer.get("worker", {})}
        for answer in answers
    ]
    told.pop("worker", None)
    return told


def _ports(answers: list[Any], args: dict[str, Any]) -> Any:
    counted = ("rx_packets", "rx_bytes", "rx_dropped", "tx_packets", "tx_bytes", "tx_dropped")
    found = []
    for same in zip(*answers, strict=False):
        port = dict(same[0])
        for name in counted:
            port[name] = sum(other[name] for other in same)
        port["queues"] = [queue for other in same for queue in other["queues"]]
        found.append(port)
    return found


def _by(rows: Iterable[dict[str, Any]], key: str, add: tuple[str, ...]) -> list[dict[str, Any]]:
    found: dict[Any, dict[str, Any]] = {}
    for row in rows:
        known = found.setdefault(row[key], {**row, **dict.fromkeys(add, 0)})
        for name in add:
            known[name] += row[name]
    return list(found.values())


def _drops(answers: list[Any], args: dict[str, Any]) -> Any:
    merged: dict[str, Any] = {"drops": _by((d for a in answers for d in a["drops"]), "reason", ("packets",))}
    if any("ports" in answer for answer in answers):
        names = dict.fromkeys(name for answer in answers for name in answer.get("ports", {}))
        merged["ports"] = {
            name: _by((d for a in answers for d in a.get("ports", {}).get(name, [])), "reason", ("packets",)) for name in names
        }
    return merged


def _neighbours(answers: list[Any], args: dict[str, Any]) -> Any:
    """Each worker resolves for itself; the row of who knows best."""
    order = ("PERMANENT", "NOARP", "REACHABLE", "DELAY", "PROBE", "STALE", "FAILED", "INCOMPLETE")
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in (row for answer in answers for row in answer):
        known = found.get((row["device"], row["address"]))
        if known is None or order.index(row["state"]) < order.index(known["state"]):
            found[row["device"], row["address"]] = row
    return list(found.values())


def _entries(answers: list[Any], args: dict[str, Any]) -> Any:
    entries = [entry for answer in answers for entry in answer["entries"]]
    limit = int(args.get("limit", 0) or 0)
    numbers = {name: sum(answer[name] for answer in answers) for name in answers[0] if name != "entries"}
    return {"entries": entries[:limit] if limit else entries, **numbers}


def _metrics(answers: list[Any], args: dict[str, Any]) -> Any:
    """Prometheus text: samples of the same name and labels are added, what is no sum is the first worker's."""
    values: dict[str, float] = {}
    lines: dict[str, None] = {}
    for number, answer in enumerate(answers):
        for line in answer["text"].splitlines():
            if line.startswith("#"):
                lines[line] = None
                continue
            name, _, text = line.rpartition(" ")
            lines[name] = None
            if name not in values:
                values[name] = float(text)
            elif number and not name.startswith(("userfw_port_up", "userfw_ruleset_generation")):
                values[name] += float(text)
    order = sorted((name for name in lines if not name.startswith("#")), key=lambda name: name.split("{")[0])
    told = []
    for line in (line for line in lines if line.startswith("#")):
        told.append(line)
        if line.startswith("# TYPE"):
            family = line.split()[2]
            told += [f"{name} {values[name]:g}" for name in order if name.split("{")[0] == family]
    return {"text": "\n".join(told) + "\n"}


def _total(answers: list[Any], args: dict[str, Any]) -> Any:
    return total(answers)


MERGED: dict[str, Merge] = {
    "status": _status,
    "ports": _ports,
    "drops": _drops,
    "neighbours": _neighbours,
    "metrics": _metrics,
    "conntrack.list": _entries,
    "conntrack.delete": _entries,
    "conntrack.count": _total,
    "conntrack.flush": _total,
    "conntrack.stats": _total,
}
STREAMS = {"nft.monitor", "log", "conntrack.events"}
FIRST = {"help", "ping"}
OTHERWISE = {"nft", "reload", "stop"}
REFUSED = {"bridges", "offload", "offload.reset", "queues"}


def from_all(command: str, args: dict[str, Any]) -> bool:
    """Whether a stream's events come from every worker; changes of the ruleset are the same everywhere."""
    return command != "nft.monitor" or args.get("objects") == "trace"


def reads_counters(args: dict[str, Any]) -> bool:
    """Whether an nft command may print or zero counters."""
    text = args.get("text", "")
    return isinstance(text, str) and any(word in text for word in ("list", "reset", "get"))
