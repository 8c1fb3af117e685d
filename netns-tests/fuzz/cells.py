"""The coverage ledger: which (operation, family, hook) exist, and which of them packets came to in a run.

Laws
- Operations come from the engine's registry and its tables of keys and operators: a new one is an uncovered cell at once.
- A cell is ticked by the engine's own expressions of a rule that packets reached (a counter in front of it counted), in a
  ruleset that the kernel and userfw both took and on which they agreed; `passed` when a counter behind it counted too.
- What the kernel refuses at a hook, has no module for, or nft 1.0.6 cannot write is not loaded and not asked for.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from userfw.engine import expressions as _expressions
from userfw.engine.expressions import bitwise, cmp, ct, dynset, exthdr, fib, inner, meta, payload, rt, socket
from userfw.engine.expressions.objref import OBJECT_TYPES
from userfw.engine.registry import HOOKS, ROWS

assert _expressions
FAMILY_NAMES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
_INET = ("prerouting", "input", "forward", "output", "postrouting", "ingress")
HOOK_NAMES = {1: _INET, 2: _INET, 10: _INET, 7: _INET, 3: ("input", "output"), 5: ("ingress", "egress")}
PLACES = tuple((FAMILY_NAMES[f], HOOK_NAMES[f][h]) for f, hooks in HOOKS.items() for h in sorted(hooks))
_HEADERS = {number: name for name, number in exthdr.OPERATIONS.items()}
_STATEFUL = ("counter", "quota", "limit", "connlimit", "last")
_VERDICTS = ("accept", "drop", "continue", "return", "jump", "goto")

UNREACHED = {"objref: tunnel": "userfw refuses it: it has no tunnel devices (docs/differences.md)"}
"""Operations that no statement of the generator leads to, and why. What the kernel refuses wherever it is asked is no matter of a
table: the test has the kernel say so."""

OPERATIONS: dict[str, tuple[str, ...]] = {
    "bitwise": ("mask",),
    "bitwise shift": tuple(bitwise._SHIFTS),
    "bitwise bool": tuple(bitwise._BOOLEANS),
    "byteorder": ("hton 2", "hton 4", "ntoh 2", "ntoh 4", "hton 8", "ntoh 8"),
    "cmp": tuple(cmp.OPERATORS),
    "range": ("eq", "neq"),
    "connlimit": ("until", "over"),
    "counter": ("counts",),
    "ct": tuple(ct.CT_KEYS),
    "ct set": tuple(sorted(ct._WRITABLE)),
    "dup": ("address", "device"),
    "fwd": ("device", "neighbour"),
    "dynset": (*dynset._OPERATIONS, "data", *(f"with {name}" for name in _STATEFUL)),
    "exthdr": tuple(f"{name}{way}" for name in exthdr.OPERATIONS for way in ("", " present") if (name, way) != ("dccp", "")),
    "exthdr set": ("tcpopt",),
    "exthdr reset": ("tcpopt",),
    "fib": (*(f"result {name}" for name in fib._RESULTS), *fib._FLAGS, "present"),
    "flow_offload": ("add",),
    "jhash": ("plain", "offset"),
    "symhash": ("plain", "offset"),
    "immediate": ("data",),
    "verdict": _VERDICTS,
    "inner": tuple(inner._TYPES),
    "last": ("used",),
    "limit": ("packets", "bytes", "over packets", "over bytes"),
    "log": ("level", "prefix", "flags", "group"),
    "lookup": ("match", "inverted", "map", "verdicts"),
    "meta": tuple(meta.META_KEYS),
    "meta set": tuple(sorted(meta._WRITABLE)),
    "nat": tuple(f"{kind} {part}" for kind in ("snat", "dnat") for part in (
        "address", "addresses", "port", "ports", "random", "fully-random", "persistent", "netmap")),
    "masq": ("plain", "ports", "random", "fully-random", "persistent"),
    "redir": ("plain", "ports", "random", "fully-random", "persistent"),
    "notrack": ("plain",),
    "numgen": ("inc", "random"),
    "objref": tuple(OBJECT_TYPES),
    "objref map": ("map",),
    "osf": ("name", "version"),
    "payload": tuple(payload.BASES),
    "payload set": ("link", "network", "transport", "inner"),
    "queue": ("number", "range", "bypass", "fanout", "map"),
    "quota": ("until", "over"),
    "reject": ("icmp", "tcp reset", "icmpx"),
    "rt": tuple(rt.RT_KEYS),
    "socket": tuple(socket._KEYS),
    "synproxy": ("plain",),
    "tproxy": ("address", "port"),
    "tunnel": ("path", "id"),
    "xfrm": ("in", "out"),
}


def universe() -> set[tuple[str, str, str]]:
    """Every cell of the registry. KeyError for a row without operations: the ledger would be blind to it."""
    cells = set()
    for row in ROWS.values():
        for operation in OPERATIONS[row.name]:
            for number, hooks in row.hooks.items():
                for hook in hooks:
                    cells.add((f"{row.name}: {operation}", FAMILY_NAMES[number], HOOK_NAMES[number][hook]))
    return cells


def _flags(value: int) -> Iterator[str]:
    names = {4: "random", 8: "persistent", 16: "fully-random", 0x40: "netmap"}
    return (name for bit, name in names.items() if value & bit)


def _number(text: str, word: str) -> int:
    found = re.search(rf"\b{word} (0x[0-9a-f]+|\d+)", text)
    return int(found[1], 0) if found else 0


def operations(expr: Any) -> list[str]:
    """The operations of one engine expression, from its class and its rendering."""
    row = ROWS[type(expr)]
    text = expr.render().strip("[] ")
    if row.name == "exthdr":
        return [f"exthdr: {_HEADERS[expr.op]}{' present' if expr.present else ''}"]
    if row.name == "osf":
        return ["osf: version" if expr.version else "osf: name"]
    return [f"{row.name}: {name}" for name in _named(row.name, text)] + (operations(expr.expr) if row.name == "inner" else [])


def _named(name: str, text: str) -> list[str]:
    words = text.split()
    if name in ("counter", "last", "notrack", "synproxy", "immediate", "bitwise", "flow_offload"):
        return list(OPERATIONS[name])
    simple = {"cmp": 1, "range": 1, "meta": 2, "meta set": 2, "ct": 2, "ct set": 2, "rt": 2, "socket": 2, "tunnel": 2,
              "xfrm": 2, "exthdr set": 2, "exthdr reset": 2}
    if name in simple:
        found = words[simple[name]]
        return ["tcpopt"] if name.startswith("exthdr") else [found]
    return [op for op in _DETAILS[name](text, words) if op]


def _nat(text: str, words: list[str]) -> list[str]:
    parts = {"addr_min": "address", "addr_max": "addresses", "proto_min": "port", "proto_max": "ports"}
    found = [part for word, part in parts.items() if word in text] + list(_flags(_number(text, "flags")))
    return [f"{words[1]} {part}" for part in found]


def _simple_nat(text: str, words: list[str]) -> list[str]:
    found = [*(["ports"] if "proto_min" in text else []), *_flags(_number(text, "flags"))]
    return found or ["plain"]


def _dynset(text: str, words: list[str]) -> list[str]:
    return [words[1], "data" if "sreg_data" in text else "",
            *(f"with {name}" for name in _STATEFUL if re.search(rf"expr .*\[ {name}\b", text))]


def _fib(text: str, words: list[str]) -> list[str]:
    flags, result, present = re.fullmatch(r"fib (.*) (oifname|oif|type)( present)? => reg \d+", text).groups()  # type: ignore[union-attr]
    return [f"result {result}", *flags.split(" . "), "present" if present else ""]


def _queue(text: str, words: list[str]) -> list[str]:
    return ["map" if "sreg_qnum" in text else "range" if re.search(r"num \d+-\d+", text) else "number",
            "bypass" if "bypass" in text else "", "fanout" if "fanout" in text else ""]


def _log(text: str, words: list[str]) -> list[str]:
    found = ["prefix" if " prefix " in text else "", "group" if " group " in text else ""]
    found.append("flags" if re.search(r"tcpseq|tcpopt|ipopt|uid|macdecode", text) else "")
    return found + (["level"] if " group " not in text else [])


_DETAILS: dict[str, Any] = {
    "bitwise shift": lambda t, w: ["lshift" if "<<" in t else "rshift"],
    "bitwise bool": lambda t, w: ["and" if "&" in t else "or" if "|" in t else "xor"],
    "byteorder": lambda t, w: [f"{t.split('= ')[1][:4]} {t.rstrip(')').split(', ')[1]}"],
    "connlimit": lambda t, w: ["over" if _number(t, "flags") & 1 else "until"],
    "dup": lambda t, w: ["address" if "sreg_addr" in t else "", "device" if "sreg_dev" in t else ""],
    "fwd": lambda t, w: ["neighbour" if "sreg_addr" in t else "device"],
    "dynset": _dynset,
    "fib": _fib,
    "jhash": lambda t, w: ["offset" if "offset" in t else "plain"],
    "symhash": lambda t, w: ["offset" if "offset" in t else "plain"],
    "verdict": lambda t, w: [w[3]],
    "inner": lambda t, w: [next(name for name, (number, _, _) in inner._TYPES.items() if number == int(w[2]))],
    "limit": lambda t, w: [("over " if _number(t, "flags") & 1 else "") + w[w.index("type") + 1]],
    "log": _log,
    "lookup": lambda t, w: ["verdicts" if "dreg 0" in t else "map" if "dreg" in t else "inverted" if t.endswith("0x1")
                            else "match"],
    "masq": _simple_nat,
    "redir": _simple_nat,
    "nat": _nat,
    "numgen": lambda t, w: ["inc" if "= inc" in t else "random"],
    "objref": lambda t, w: [next(name for name, number in OBJECT_TYPES.items() if number == int(w[2]))],
    "objref map": lambda t, w: ["map"],
    "osf": lambda t, w: ["name"],
    "payload": lambda t, w: [w[w.index("@") + 1]],
    "payload set": lambda t, w: [w[w.index("@") + 1]],
    "queue": _queue,
    "quota": lambda t, w: ["over" if _number(t, "flags") & 1 else "until"],
    "reject": lambda t, w: [("icmp", "tcp reset", "icmpx")[int(w[2])]],
    "tproxy": lambda t, w: ["address" if "addr" in t else "", "port" if "port" in t else ""],
}


@dataclass
class Ledger:
    """What was loaded by both, what packets reached, what they passed."""

    reached: dict[tuple[str, str, str], int] = field(default_factory=dict)
    passed: set[tuple[str, str, str]] = field(default_factory=set)
    loaded: set[tuple[str, str, str]] = field(default_factory=set)

    def tick(self, chains: Iterable[Any]) -> None:
        """Count the base chains of a ruleset that both routers agreed on."""
        for base in chains:
            place = (FAMILY_NAMES[base.family], HOOK_NAMES[base.family][base.hook])
            for rule in base.chain.rules:
                self._rule(rule.exprs, place)

    def load(self, chains: Iterable[Any]) -> None:
        """Note what stands in the base chains of a ruleset that both routers took."""
        for base in chains:
            place = (FAMILY_NAMES[base.family], HOOK_NAMES[base.family][base.hook])
            self.loaded.update((op, *place) for rule in base.chain.rules for expr in rule.exprs for op in operations(expr))

    def merge(self, loaded: Iterable[tuple[str, str, str]], reached: dict[tuple[str, str, str], int],
              passed: Iterable[tuple[str, str, str]]) -> None:
        """Take in what another ledger noted."""
        self.loaded.update(loaded)
        self.passed.update(passed)
        for cell, times in reached.items():
            self.reached[cell] = self.reached.get(cell, 0) + times

    def _rule(self, exprs: tuple[Any, ...], place: tuple[str, str]) -> None:
        counts = [int(e.packets) if ROWS[type(e)].name == "counter" else -1 for e in exprs]
        for at, expr in enumerate(exprs):
            before = [c for c in counts[:at] if c >= 0]
            if before and before[-1] == 0 and counts[at] <= 0:
                continue
            behind = [c for c in counts[at:] if c >= 0]
            if not before and not (behind and behind[0] > 0):
                continue
            for op in operations(expr):
                cell = (op, *place)
                self.reached[cell] = self.reached.get(cell, 0) + 1
                if not behind or behind[0] > 0:
                    self.passed.add(cell)

    def uncovered(self) -> list[tuple[str, str, str]]:
        """What both take and no packet reached."""
        return sorted(self.loaded - set(self.reached))

    def operations(self) -> set[str]:
        """The operations that packets reached somewhere."""
        return {cell[0] for cell in self.reached}

    def summary(self) -> str:
        """The figures, and by operation where packets met it."""
        every = universe()
        lines = [f"{len(every)} cells of operation, family and hook: {len(every & self.loaded)} loaded by both, "
                 f"{len(every & set(self.reached))} reached by packets, {len(every & self.passed)} passed; the others the kernel "
                 "refuses there, has no module for, or nft 1.0.6 cannot write"]
        for op in sorted({cell[0] for cell in every}):
            there = [cell for cell in every if cell[0] == op]
            lines.append(f"  {op}: {sum(cell in self.reached for cell in there)} of {sum(cell in self.loaded for cell in there)} "
                         f"of {len(there)} places")
        return "\n".join(lines)
