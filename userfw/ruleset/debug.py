"""``-d LEVEL``: what the stages of a run saw, on standard error (``netlink``, the bytecode, is on standard output, as nft has it).

The levels are nft's; what they print is of userfw's own stages, one line for each thing:

- ``scanner``: the tokens of the input. ``parser``: the commands that they make. ``eval``: each command and rule, with its place.
- ``proto-ctx``: what is known of a packet's protocols in each new rule. ``segtree``: the intervals of sets that changed.
- ``mnl``: the changes that are committed, in order.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from userfw.nft.location import NftError
from userfw.nft.scanner import Scanner
from userfw.nft.syntax import ChainBlock, Command, TableBlock

if TYPE_CHECKING:
    from userfw.ruleset.transaction import Plan

_CONTEXT = {"nfproto": "network layer", "protocol": "network layer", "l4proto": "transport layer", "iiftype": "link layer"}


def before(text: str, commands: list[Command], levels: tuple[str, ...]) -> str:
    """What is known before anything is checked."""
    lines: list[str] = []
    if _wants(levels, "scanner"):
        lines += _tokens(text)
    if _wants(levels, "parser"):
        lines += [f"parsed {command.op} {command.obj}: {command.node!r}" for command in commands]
    if _wants(levels, "eval"):
        for command in commands:
            lines += _evaluated(command)
    return "".join(line + "\n" for line in lines)


def after(plan: Plan, levels: tuple[str, ...]) -> str:
    """What is known when all is ready to be committed."""
    lines: list[str] = []
    if _wants(levels, "proto-ctx"):
        lines += _contexts(plan)
    if _wants(levels, "segtree"):
        lines += _intervals(plan)
    if _wants(levels, "mnl"):
        lines += [
            f"{event.op} {event.obj} {event.family} {event.table} {event.name} handle {event.handle}" for event in plan.events
        ]
    return "".join(line + "\n" for line in lines)


def _wants(levels: tuple[str, ...], level: str) -> bool:
    return level in levels or "all" in levels


def _tokens(text: str) -> Iterator[str]:
    scanner = Scanner(text)
    while True:
        for kind, word, start, end in scanner.line():
            if kind == "eof":
                yield f"token eof at {start}"
                return
            yield f"token {kind} {word!r} at {start}-{end}"


def _evaluated(command: Command) -> Iterator[str]:
    """The command and the rules in its block, as errors show places."""
    yield _shown(NftError(f"Evaluate {command.op} {command.obj}", command.loc))
    node = command.node
    chains = node.chains if isinstance(node, TableBlock) else [node] if isinstance(node, ChainBlock) else []
    for chain in chains:
        for rule in chain.rules:
            yield _shown(NftError("Evaluate rule", rule.loc))


def _shown(remark: NftError) -> str:
    return remark.render().replace("Error: ", "", 1)


def _contexts(plan: Plan) -> Iterator[str]:
    """The comparisons of loads that decide on a protocol."""
    for event in plan.events:
        program = getattr(event.node, "program", None)
        if event.obj != "rule" or event.op == "delete" or program is None:
            continue
        loaded = ""
        for expr in program.exprs:
            text = expr.render().strip("[ ]")
            key = text.split()[2] if text.startswith("meta load ") else ""
            if loaded and text.startswith("cmp eq "):
                where = f"{event.family} {event.table} {event.name}"
                yield f"{where}: update {_CONTEXT[loaded]} protocol context: {loaded} {text.split()[-1]}"
            loaded = key if key in _CONTEXT else ""


def _intervals(plan: Plan) -> Iterator[str]:
    """The intervals of the sets that have any, in order."""
    for table in plan.rules.tables.values():
        for entry in table.sets.values():
            if any(event.obj == "element" and event.table == table.name and event.name == entry.name for event in plan.events):
                overlay = plan.draft.elements(entry)
                spans = sorted(element.key for element in overlay if isinstance(element.key, tuple) and element.key[0] != "concat")
                for low, high in spans:
                    yield f"{table.family} {table.name} {entry.name}: {low:#x} - {high:#x}"
