"""A small typed API over `Nftables`: what there is as frozen dataclasses, and the changes that programs make most often.

    from userfw.client.api import Firewall
    with Firewall() as fw:                      # or Firewall(Nftables(private=True))
        fw.run("add table inet t; add set inet t blocked { type ipv4_addr; flags timeout; }")
        fw.add_elements("inet", "t", "blocked", "192.0.2.1 timeout 1h")
        print(fw.counters())

Every failure is a `FirewallError` with nft's own text. Several changes that belong together go into one `run` or one
`transaction`, which is all or nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from userfw.client.nftables import Nftables

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_./\\-]*\Z")


class FirewallError(Exception):
    """nft refused; the text is nft's."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table."""

    family: str
    name: str
    handle: int
    flags: tuple[str, ...] = ()


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


@dataclass(frozen=True, slots=True)
class Counter:
    """A named counter."""

    family: str
    table: str
    name: str
    packets: int
    bytes: int


class Firewall:
    """The ruleset, typed. Owns the connection of the `Nftables` that it makes, not of one that is given."""

    def __init__(self, nft: Nftables | None = None, *, socket: str | None = None) -> None:
        self._own = nft is None
        self.nft = nft or Nftables(socket=socket)

    def __enter__(self) -> Firewall:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection, if it is this object's."""
        if self._own:
            self.nft.close()

    # --- changes

    def run(self, commands: str) -> str:
        """Run nft commands, all or nothing; what they print."""
        status, output, error = self.nft.cmd(commands)
        if status:
            raise FirewallError(error.rstrip("\n"))
        return output

    @contextmanager
    def transaction(self) -> Iterator[list[str]]:
        """Collect commands and run them together at the end; nothing runs if the block raises."""
        commands: list[str] = []
        yield commands
        if commands:
            self.run("\n".join(commands) + "\n")

    def replace(self, ruleset: str) -> None:
        """Put a whole ruleset in the place of what there is, in one transaction."""
        self.run("flush ruleset\n" + ruleset)

    def check(self, commands: str) -> str | None:
        """The errors that commands would give, None if they would succeed. Changes nothing."""
        before = self.nft.get_dry_run()
        self.nft.set_dry_run(True)
        try:
            status, _, error = self.nft.cmd(commands)
        finally:
            self.nft.set_dry_run(before)
        return error.rstrip("\n") if status else None

    def add_rule(self, family: str, table: str, chain: str, rule: str) -> int:
        """Append a rule; its handle."""
        before = self.nft.set_echo_output(True)
        try:
            added = self._json(f"add rule {family} {_name(table)} {_name(chain)} {rule}")
        finally:
            self.nft.set_echo_output(before)
        return next(int(entry["add"]["rule"]["handle"]) for entry in added if "rule" in entry.get("add", {}))

    def delete_rule(self, family: str, table: str, chain: str, handle: int) -> None:
        """Delete the rule with a handle."""
        self.run(f"delete rule {family} {_name(table)} {_name(chain)} handle {int(handle)}")

    def add_elements(self, family: str, table: str, name: str, *elements: str) -> None:
        """Add elements to a set or map, written as nft has them (`192.0.2.1 timeout 1h`, `80 : accept`)."""
        if elements:
            self.run(f"add element {family} {_name(table)} {_name(name)} {{ {', '.join(elements)} }}")

    def delete_elements(self, family: str, table: str, name: str, *elements: str) -> None:
        """Delete elements of a set or map."""
        if elements:
            self.run(f"delete element {family} {_name(table)} {_name(name)} {{ {', '.join(elements)} }}")

    # --- what there is

    def tables(self) -> list[Table]:
        """All tables."""
        return [
            Table(body["family"], body["name"], body["handle"], tuple(body.get("flags", ())))
            for body in self._bodies("list tables", "table")
        ]

    def chains(self) -> list[Chain]:
        """All chains."""
        return [
            Chain(
                body["family"], body["table"], body["name"], body["handle"], body.get("type"), body.get("hook"), body.get("prio"),
                body.get("policy"),
            )
            for body in self._bodies("list chains", "chain")
        ]  # fmt: skip

    def rules(self, family: str, table: str, chain: str) -> list[Rule]:
        """The rules of a chain, in order."""
        found = []
        for body in self._bodies(f"list chain {family} {_name(table)} {_name(chain)}", "rule"):
            counters = [part["counter"] for part in body["expr"] if isinstance(part.get("counter"), dict)]
            counter = (counters[0]["packets"], counters[0]["bytes"]) if counters else None
            found.append(
                Rule(
                    body["family"], body["table"], body["chain"], body["handle"], tuple(body["expr"]), body.get("comment"), counter,
                )
            )  # fmt: skip
        return found

    def counters(self) -> list[Counter]:
        """All named counters."""
        return [
            Counter(body["family"], body["table"], body["name"], body["packets"], body["bytes"])
            for body in self._bodies("list counters", "counter")
        ]

    def elements(self, family: str, table: str, name: str) -> list[Any]:
        """The elements of a set or map, as libnftables-json(5) has them."""
        try:
            bodies = self._bodies(f"list set {family} {_name(table)} {_name(name)}", "set")
        except FirewallError:
            bodies = self._bodies(f"list map {family} {_name(table)} {_name(name)}", "map")
        return list(bodies[0].get("elem", []))

    def _bodies(self, command: str, kind: str) -> list[dict[str, Any]]:
        return [entry[kind] for entry in self._json(command) if kind in entry]

    def _json(self, command: str) -> list[dict[str, Any]]:
        import json

        before = self.nft.set_json_output(True)
        try:
            output = self.run(command)
        finally:
            self.nft.set_json_output(before)
        return list(json.loads(output)["nftables"]) if output else []


def _name(text: str) -> str:
    """A name, checked: it becomes part of a command. ValueError."""
    if not _NAME.match(text):
        raise ValueError(f"not a name: {text!r}")
    return text
