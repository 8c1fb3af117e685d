"""Events: what a committed transaction did, in the order it was done. Monitors and `nft -e` print them.

`op` is `add`, `insert`, `delete` or `reset`; `obj` as in `syntax.Command` (`table chain rule set map element flowtable`
and the kinds of objects). `node` is the block at that time; for an element an `Element`, with `name` its set. A draft's
event may have an `ElementRun` or a list of elements as node: many at once, which `ordered` takes apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from userfw.nft.element_run import ElementRun
from userfw.ruleset.elements import CATCH_ALL, Element, key_of, width_of


@dataclass(slots=True)
class Event:
    """One change. `position`: the handle of the rule that the new one stands behind, where it is not the last.
    `partial`: only `node.devices` of a chain or flowtable were added or deleted. `echoed`: a command that adds, inserts or replaces
    made it, which `--echo` tells of (nft sets NLM_F_ECHO for these only)."""

    op: str
    obj: str
    family: str
    table: str
    name: str
    node: Any
    handle: int
    position: int | None = None
    partial: bool = False
    echoed: bool = True


@dataclass(slots=True)
class NewGeneration:
    """The end of a transaction: what `# new generation` tells."""

    generation: int
    pid: int
    process: str


def ordered(events: Iterable[Event]) -> list[Event]:
    """The events as a monitor prints them: an interval that has no end (it reaches the highest value of its type) is
    printed when the next event of the same set is known, as nft needs two netlink elements for an interval."""
    result: list[Event] = []
    held: Event | None = None
    for event in _each(events):
        if held is not None and not (_same(held, event) and not _open_ended(event)):
            result.append(held)
            held = None
        if held is None and event.obj == "element" and event.op == "add" and _open_ended(event):
            held = event
            continue
        result.append(event)
    if held is not None:
        result.append(held)
    return result


def _each(events: Iterable[Event]) -> Iterator[Event]:
    """The events, with one for each element of a run; of intervals that go the last goes first, as in Linux."""
    for event in events:
        run = event.node
        if type(run) is list:
            for element in run:
                yield Event(event.op, event.obj, event.family, event.table, event.name, element, event.handle, echoed=event.echoed)
            continue
        if not isinstance(run, ElementRun):
            yield event
            continue
        back = event.op == "delete" and run.ranged
        for at in reversed(range(len(run))) if back else range(len(run)):
            node = run[at]
            element = Element(key_of(node.key, run.ranged), node)
            yield Event(event.op, event.obj, event.family, event.table, event.name, element, event.handle)


def _same(one: Event, other: Event) -> bool:
    return (one.op, one.obj, one.family, one.table, one.name) == (other.op, other.obj, other.family, other.table, other.name)


def _open_ended(event: Event) -> bool:
    if event.obj != "element":
        return False
    element = event.node
    if not isinstance(element, Element) or element.key == CATCH_ALL:
        return False
    key = element.key
    if not isinstance(key, tuple) or key[0] == "concat" or key[0] == key[1]:
        return False
    key_expr = element.node.key
    width = width_of(key_expr) or width_of(getattr(key_expr, "left", key_expr)) or width_of(getattr(key_expr, "expr", key_expr))
    return bool(width) and key[1] == (1 << width) - 1
