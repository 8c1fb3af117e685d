"""What is in a ruleset, as frozen dataclasses, read from libnftables-json(5): the nouns of `userfw.client.api`.

Laws
- Each noun has `of(body)`, the one place that knows its JSON. What a program cannot name there stays JSON (`Rule.expressions`).
- Times are seconds. Keys and values of elements are numbers and text as nft writes them: `10.0.0.0/8`, `5-7`, `jump x`, `*`;
  a concatenation is a tuple. `str(element)` is what nft reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Key = str | int | tuple["Key", ...]
Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Table:
    """A table."""

    family: str
    name: str
    handle: int
    flags: tuple[str, ...] = ()
    comment: str | None = None

    @classmethod
    def of(cls, body: Body) -> Table:
        """From the body of a `table`."""
        return cls(body["family"], body["name"], body["handle"], _texts(body.get("flags")), body.get("comment"))


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain; `hook` is None for regular ones."""

    family: str
    table: str
    name: str
    handle: int
    type: str | None = None
    hook: str | None = None
    priority: int | None = None
    policy: str | None = None
    devices: tuple[str, ...] = ()
    comment: str | None = None

    @classmethod
    def of(cls, body: Body) -> Chain:
        """From the body of a `chain`."""
        return cls(
            body["family"], body["table"], body["name"], body["handle"], body.get("type"), body.get("hook"), body.get("prio"),
            body.get("policy"), _texts(body.get("dev")), body.get("comment"),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule. `expressions` as libnftables-json(5); `counter` the packets and bytes of its first counter, or None."""

    family: str
    table: str
    chain: str
    handle: int
    expressions: tuple[Any, ...]
    comment: str | None = None
    counter: tuple[int, int] | None = None

    @classmethod
    def of(cls, body: Body) -> Rule:
        """From the body of a `rule`."""
        expressions = tuple(body.get("expr", ()))
        counters = (_counted(part) for part in expressions)
        return cls(
            body["family"], body["table"], body["chain"], body["handle"], expressions, body.get("comment"),
            next((counter for counter in counters if counter), None),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Set:
    """A set, or a map if `value` is not None. Types are names (`ipv4_addr`), several for a concatenation, or `typeof` as JSON."""

    family: str
    table: str
    name: str
    handle: int
    key: tuple[str, ...] | Body
    value: tuple[str, ...] | Body | None = None
    flags: tuple[str, ...] = ()
    timeout: int | None = None
    size: int | None = None
    comment: str | None = None

    @classmethod
    def of(cls, body: Body) -> Set:
        """From the body of a `set` or `map`."""
        return cls(
            body["family"], body["table"], body["name"], body["handle"], _types(body["type"]),
            _types(body["map"]) if "map" in body else None, _texts(body.get("flags")), body.get("timeout"), body.get("size"),
            body.get("comment"),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Element:
    """An element of a set or map. `expires` is what is left of its time; `counter` packets and bytes, if it counts."""

    key: Key
    value: Key | None = None
    timeout: int | None = None
    expires: int | None = None
    comment: str | None = None
    counter: tuple[int, int] | None = None

    @classmethod
    def of(cls, body: Any) -> Element:
        """From an entry of `elem`: a key, or a pair of key and value; with what stands at the key."""
        value = None
        if isinstance(body, list):
            body, value = body[0], _plain(body[1])
        about: Body = body["elem"] if isinstance(body, dict) and "elem" in body else {"val": body}
        return cls(_plain(about["val"]), value, about.get("timeout"), about.get("expires"), about.get("comment"), _counted(about))

    def __str__(self) -> str:
        """As nft reads it."""
        text = _written(self.key)
        if self.counter is not None:
            text += f" counter packets {self.counter[0]} bytes {self.counter[1]}"
        if self.timeout is not None:
            text += f" timeout {self.timeout}s"
        if self.expires is not None:
            text += f" expires {self.expires}s"
        if self.comment is not None:
            text += f' comment "{self.comment}"'
        return text if self.value is None else f"{text} : {_written(self.value)}"


@dataclass(frozen=True, slots=True)
class Counter:
    """A named counter."""

    family: str
    table: str
    name: str
    packets: int
    bytes: int

    @classmethod
    def of(cls, body: Body) -> Counter:
        """From the body of a `counter`."""
        return cls(body["family"], body["table"], body["name"], body["packets"], body["bytes"])


@dataclass(frozen=True, slots=True)
class Quota:
    """A named quota of `bytes`, of which `used` are gone; `over`: it matches when they are."""

    family: str
    table: str
    name: str
    bytes: int
    used: int
    over: bool = False

    @classmethod
    def of(cls, body: Body) -> Quota:
        """From the body of a `quota`."""
        return cls(body["family"], body["table"], body["name"], body["bytes"], body["used"], bool(body.get("inv")))


@dataclass(frozen=True, slots=True)
class Flowtable:
    """A flowtable and its devices."""

    family: str
    table: str
    name: str
    handle: int
    devices: tuple[str, ...] = ()
    priority: int | None = None
    flags: tuple[str, ...] = ()

    @classmethod
    def of(cls, body: Body) -> Flowtable:
        """From the body of a `flowtable`."""
        return cls(
            body["family"], body["table"], body["name"], body["handle"], _texts(body.get("dev")), body.get("prio"),
            _texts(body.get("flags")),
        )  # fmt: skip


NOUNS: dict[str, Any] = {
    "table": Table, "chain": Chain, "rule": Rule, "set": Set, "map": Set, "counter": Counter, "quota": Quota,
    "flowtable": Flowtable,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Event:
    """A change: `action` (add, insert, replace, delete), the `kind` of object, its JSON, and its dataclass where that says it all.

    Of elements, `elements` are those that came or went; the body names their set. `lost`: so many events before this one were
    lost, because this program was too slow.
    """

    action: str
    kind: str
    body: Body
    object: Any = None
    elements: tuple[Element, ...] = ()
    lost: int = 0

    @classmethod
    def of(cls, entry: Body, lost: int = 0) -> Event:
        """From a line of `nft -j monitor`."""
        ((action, what),) = entry.items()
        ((kind, body),) = what.items()
        if kind == "element":
            return cls(action, kind, body, None, tuple(map(Element.of, body["elem"]["set"])), lost)
        try:
            return cls(action, kind, body, NOUNS[kind].of(body) if kind in NOUNS else None, (), lost)
        except KeyError:  # what is deleted may be named only
            return cls(action, kind, body, None, (), lost)


def _texts(value: Any) -> tuple[str, ...]:
    """A list of names; nft writes a list of one as the name alone."""
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)


def _types(value: Any) -> tuple[str, ...] | Body:
    return value if isinstance(value, dict) else _texts(value)


def _counted(holder: Any) -> tuple[int, int] | None:
    """Packets and bytes of the `counter` in an expression or element."""
    counter = holder.get("counter") if isinstance(holder, dict) else None
    return (counter["packets"], counter["bytes"]) if isinstance(counter, dict) else None


def _plain(value: Any) -> Key:
    """A key or value of libnftables-json(5) as text, number or tuple."""
    if isinstance(value, dict):
        ((kind, inner),) = value.items()
        if kind == "prefix":
            return f"{inner['addr']}/{inner['len']}"
        if kind == "range":
            return f"{inner[0]}-{inner[1]}"
        if kind == "concat":
            return tuple(map(_plain, inner))
        if kind in ("jump", "goto"):
            return f"{kind} {inner['target']}"
        if inner is None:
            return str(kind)
    if isinstance(value, list):
        return ",".join(map(str, map(_plain, value)))
    return value if isinstance(value, int) else str(value)


def _written(key: Key) -> str:
    return " . ".join(map(_written, key)) if isinstance(key, tuple) else str(key)
