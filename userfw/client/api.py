"""A small typed API over `Nftables`: what there is as frozen dataclasses (`objects.py`), and the changes that programs make most.

    from userfw.client import Firewall
    with Firewall() as fw:                      # the daemon's ruleset; Firewall.private() is one of this process
        fw.run("add table inet t; add set inet t blocked { type ipv4_addr; flags timeout; }")
        fw.add_elements("inet", "t", "blocked", "192.0.2.1 timeout 1h")
        print(fw.elements("inet", "t", "blocked"))

Every failure is a `FirewallError` with nft's own text. Several changes that belong together go into one `run` or one
`transaction`, which is all or nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from userfw.client.nftables import Nftables
from userfw.client.objects import NOUNS, Chain, Counter, Element, Event, Flowtable, Quota, Rule, Set, Table
from userfw.client.runner import DaemonRunner
from userfw.ruleset.options import Options

FAMILIES = frozenset(("ip", "ip6", "inet", "arp", "bridge", "netdev"))
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_./\\-]*\Z")


class FirewallError(Exception):
    """nft refused; the text is nft's."""


class Firewall:
    """The ruleset, typed. Owns the connection of the `Nftables` that it makes, not of one that is given."""

    def __init__(self, nft: Nftables | None = None, *, socket: str | None = None) -> None:
        self._own = nft is None
        self.nft = nft or Nftables(socket=socket)

    @classmethod
    def private(cls, ruleset: str = "") -> Firewall:
        """A ruleset of this process: no daemon, no privileges, no packets."""
        made = cls(Nftables(private=True))
        if ruleset:
            made.run(ruleset)
        return made

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

    def add_rule(self, family: str, table: str, chain: str, rule: str, after: int | None = None) -> int:
        """Append a rule, to the chain or behind the rule with the handle `after`; its handle."""
        return self._rule("add", family, table, chain, rule, after)

    def insert_rule(self, family: str, table: str, chain: str, rule: str, before: int | None = None) -> int:
        """Put a rule first in the chain, or before the rule with the handle `before`; its handle."""
        return self._rule("insert", family, table, chain, rule, before)

    def replace_rule(self, family: str, table: str, chain: str, handle: int, rule: str) -> None:
        """Put another rule in the place of the one with a handle, which the new one keeps."""
        self.run(f"replace rule {_path(family, table, chain)} handle {int(handle)} {rule}")

    def delete_rule(self, family: str, table: str, chain: str, handle: int) -> None:
        """Delete the rule with a handle."""
        self.run(f"delete rule {_path(family, table, chain)} handle {int(handle)}")

    def add_elements(self, family: str, table: str, name: str, *elements: str | Element) -> None:
        """Add elements to a set or map: `Element`s, or text as nft has it (`192.0.2.1 timeout 1h`, `80 : accept`)."""
        if elements:
            self.run(f"add element {_path(family, table, name)} {{ {', '.join(map(str, elements))} }}")

    def delete_elements(self, family: str, table: str, name: str, *elements: str) -> None:
        """Delete elements of a set or map by their keys."""
        if elements:
            self.run(f"delete element {_path(family, table, name)} {{ {', '.join(elements)} }}")

    # --- what there is

    def tables(self) -> list[Table]:
        """All tables."""
        return self._all("list tables", "table")

    def chains(self) -> list[Chain]:
        """All chains."""
        return self._all("list chains", "chain")

    def rules(self, family: str, table: str, chain: str) -> list[Rule]:
        """The rules of a chain, in order."""
        return self._all(f"list chain {_path(family, table, chain)}", "rule")

    def sets(self) -> list[Set]:
        """All named sets, without their elements."""
        return self._all("list sets", "set", terse=True)

    def maps(self) -> list[Set]:
        """All named maps, without their elements."""
        return self._all("list maps", "map", terse=True)

    def elements(self, family: str, table: str, name: str) -> list[Element]:
        """The elements of a set or map."""
        try:
            bodies = self._bodies(f"list set {_path(family, table, name)}", "set")
        except FirewallError:
            bodies = self._bodies(f"list map {_path(family, table, name)}", "map")
        return list(map(Element.of, bodies[0].get("elem", ())))

    def element(self, family: str, table: str, name: str, key: str) -> Element | None:
        """The element of a set or map that a key is in (`10.1.2.3` in `10.0.0.0/8`), None if there is none."""
        try:
            bodies = self._bodies(f"get element {_path(family, table, name)} {{ {key} }}", "element")
        except FirewallError as error:
            named = {(one.family, one.table, one.name) for one in (*self.sets(), *self.maps())}
            if "No such file or directory" in str(error) and (family, table, name) in named:
                return None
            raise
        return Element.of(bodies[0]["elem"]["set"][0])

    def counters(self, reset: bool = False) -> list[Counter]:
        """All named counters; with `reset` they start from zero, and nothing is lost between."""
        return self._all("reset counters" if reset else "list counters", "counter")

    def quotas(self, reset: bool = False) -> list[Quota]:
        """All named quotas; with `reset` nothing of them is used any more."""
        return self._all("reset quotas" if reset else "list quotas", "quota")

    def flowtables(self) -> list[Flowtable]:
        """All flowtables."""
        return self._all("list flowtables", "flowtable")

    def events(self, kind: str | None = None) -> Iterator[Event]:
        """Changes as they are committed, by anybody, until the caller stops; only those of one `kind` (`rules`, `elements`, …).

        They are those from this call on. A connection of its own is taken, so the ruleset may be asked and changed meanwhile.
        FirewallError for a private ruleset, which nobody else changes; ControlError when the daemon ends.
        """
        daemon = self.nft.runner
        if not isinstance(daemon, DaemonRunner):
            raise FirewallError("a private ruleset has nobody else's events")
        runner = DaemonRunner(daemon.client.path)
        return _events(runner, runner.monitor(None, kind, Options(json=True)))

    def _rule(self, verb: str, family: str, table: str, chain: str, rule: str, handle: int | None) -> int:
        where = _path(family, table, chain) + (f" handle {int(handle)}" if handle is not None else "")
        before = self.nft.set_echo_output(True)
        try:
            added = self._json(f"{verb} rule {where} {rule}")
        finally:
            self.nft.set_echo_output(before)
        return next(int(entry[verb]["rule"]["handle"]) for entry in added if "rule" in entry.get(verb, {}))

    def _all(self, command: str, kind: str, terse: bool = False) -> list[Any]:
        before = self.nft.set_terse_output(terse)
        try:
            return list(map(NOUNS[kind].of, self._bodies(command, kind)))
        finally:
            self.nft.set_terse_output(before)

    def _bodies(self, command: str, kind: str) -> list[dict[str, Any]]:
        return [entry[kind] for entry in self._json(command) if kind in entry]

    def _json(self, command: str) -> list[dict[str, Any]]:
        before = self.nft.set_json_output(True)
        try:
            output = self.run(command)
        finally:
            self.nft.set_json_output(before)
        return list(json.loads(output)["nftables"]) if output else []


def _events(runner: DaemonRunner, lines: Iterator[str]) -> Iterator[Event]:
    """The events of a monitor's lines; ends the connection with the iteration."""
    lost = 0
    with runner:
        for text in lines:
            if text.startswith("#"):
                lost += int(text.split()[1])
                continue
            for line in text.splitlines():
                yield Event.of(json.loads(line), lost)
                lost = 0


def _path(family: str, table: str, name: str) -> str:
    """Where something is, checked, because it becomes part of a command. ValueError."""
    if family not in FAMILIES:
        raise ValueError(f"not a family: {family!r}")
    for text in (table, name):
        if not _NAME.match(text):
            raise ValueError(f"not a name: {text!r}")
    return f"{family} {table} {name}"
