"""Numbers for Prometheus, in its text format: the command `metrics` answers with them.

Law: names and labels are an interface; what is here stays. Other rooms add their own with `add`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from userfw.daemon.commands import NoArgs, command
from userfw.daemon.control import Stream

if TYPE_CHECKING:
    from userfw.daemon.server import Server

Sample = tuple[dict[str, str], float]
Source = Callable[["Server"], Iterable[Sample]]

METRICS: dict[str, tuple[str, str, Source]] = {}


def add(name: str, kind: str, text: str, source: Source) -> None:
    """Register a metric: `kind` is counter or gauge, `source` gives (labels, value) pairs."""
    METRICS[name] = (kind, text, source)


def render(server: Server) -> str:
    """Everything, as `text/plain; version=0.0.4`."""
    lines = []
    for name, (kind, text, source) in METRICS.items():
        lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
        for labels, value in source(server):
            inside = ",".join(f'{key}="{_escape(word)}"' for key, word in labels.items())
            lines.append(f"{name}{{{inside}}} {value:g}" if inside else f"{name} {value:g}")
    return "\n".join(lines) + "\n"


def _escape(word: str) -> str:
    return word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _per_port(attribute: str) -> Source:
    return lambda server: [({"port": name}, float(getattr(o.device, attribute))) for name, o in server.ports.items()]


def _drops(server: Server) -> Iterable[Sample]:
    for entry in server.assembly.drop_report()["drops"]:
        yield {"reason": entry["reason"]}, entry["packets"]


def _rungs(server: Server) -> Iterable[Sample]:
    for name, count in server.assembly.rungs().items():
        yield {"rung": name}, count


def _filters(attribute: str) -> Source:
    def samples(server: Server) -> Iterable[Sample]:
        server.assembly.hardware.count()
        for row in server.assembly.hardware.status():
            labels = {name: str(row[name]) for name in ("device", "table", "chain", "handle", "verdict")}
            yield labels, float(row[attribute])

    return samples


def _conntrack(attribute: str) -> Source:
    return lambda server: [({}, float(getattr(server.assembly.conntrack.stats, attribute)))]


def _faults(server: Server) -> Iterable[Sample]:
    for kind, count in server.gateway.faults.items():
        yield {"kind": kind}, count


def _one(number: Callable[[Server], float]) -> Source:
    return lambda server: [({}, float(number(server)))]


for _direction in ("rx", "tx"):
    for _what in ("packets", "bytes", "dropped"):
        _name = f"{_direction}_{_what}"
        add(f"userfw_port_{_name}_total", "counter", f"{_direction} {_what} of a port", _per_port(_name))
add("userfw_port_up", "gauge", "1 if the port's link is up", _per_port("up"))
add("userfw_drops_total", "counter", "packets dropped, by reason", _drops)
add("userfw_rung_packets_total", "counter", "packets handled on each rung", _rungs)


def _offload(name: str, key: str = "") -> Source:
    """One of OffloadManager.status()'s tables, each row with its name as label `key`; without it one number."""

    def source(server: Server) -> Iterable[Sample]:
        value = server.assembly.offload.status()[name]
        return [({key: row}, float(number)) for row, number in value.items()] if key else [({}, float(value))]

    return source


add("userfw_flows", "gauge", "flows on each rung above the pipeline, and those that wait for a device", _offload("flows", "rung"))
add("userfw_offload_installations_total", "counter", "flows that came into a device", _offload("installations"))
add("userfw_offload_failures_total", "counter", "flows that a device did not take, by reason", _offload("failures", "reason"))
add("userfw_offload_withdrawn_total", "counter", "flows taken back from devices, by what changed", _offload("withdrawn", "by"))
for _what in ("packets", "bytes"):
    add(f"userfw_offload_filter_{_what}_total", "counter", f"{_what} of filters in hardware", _filters(_what))
add("userfw_connections", "gauge", "tracked connections", _one(lambda server: server.assembly.conntrack.count))
add("userfw_connections_max", "gauge", "limit of tracked connections", _one(lambda server: server.assembly.conntrack_settings.max))
for _name in ("insert", "insert_failed", "invalid", "early_drop", "expired"):
    add(f"userfw_conntrack_{_name}_total", "counter", f"conntrack: {_name.replace('_', ' ')}", _conntrack(_name))
add("userfw_ruleset_generation", "gauge", "generation of the ruleset", _one(lambda server: server.assembly.rules.rules.generation))
add("userfw_faults_total", "counter", "exceptions on the packet path", _faults)


@command("metrics")
def _metrics(server: Server, args: NoArgs, stream: Stream) -> Any:
    return {"text": render(server)}
