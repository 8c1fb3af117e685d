"""Finding what a command names in a draft, with nft's errors for what is not there or belongs to another."""

from __future__ import annotations

import errno

from userfw.nft.location import NOWHERE, Location
from userfw.nft.syntax import Command
from userfw.ruleset.draft import Draft
from userfw.ruleset.model import Chain, Flowtable, Object, Ref, Set, Table
from userfw.ruleset.problems import no_chain, no_flowtable, no_object, no_set, no_table, refused


def place(command: Command, loc: Location) -> Location:
    """The most exact place that is known."""
    return loc if loc is not NOWHERE else command.loc


def name_place(command: Command) -> Location:
    return place(command, command.name_loc)


def find_table(draft: Draft, command: Command, *, write: bool = True) -> Table:
    """The table of a command. ENOENT with a guess; EPERM when another client owns it."""
    family = command.family or "ip"
    table = draft.rules.table(family, command.table or "")
    if table is None:
        raise no_table(draft.rules, family, command.table or "", place(command, command.table_loc))
    if write and "owner" in table.flags and table.owner is not None and table.owner != draft.client:
        raise refused(errno.EPERM, place(command, command.table_loc))
    return table


def find_chain(draft: Draft, table: Table, command: Command) -> Chain:
    """The chain of a command, by name or by handle."""
    if command.name is None and command.handle is not None:
        for chain in table.chains.values():
            if chain.handle == command.handle:
                return chain
        raise refused(errno.ENOENT, place(command, command.handle_loc))
    found = table.chains.get(command.name or "")
    if found is None:
        raise no_chain(draft.rules, table, command.name or "", name_place(command))
    return found


def find_set(draft: Draft, table: Table, command: Command) -> Set:
    """The set or map of a command, by name or by handle; `set` and `map` name either in commands that change."""
    if command.name is None and command.handle is not None:
        for entry in table.sets.values():
            if entry.handle == command.handle:
                return entry
        raise refused(errno.ENOENT, place(command, command.handle_loc))
    found = table.sets.get(command.name or "")
    if found is None:
        raise no_set(draft.rules, table, command.name or "", name_place(command))
    return found


def find_object(draft: Draft, table: Table, command: Command) -> Object:
    """The object of a command's kind, by name or by handle."""
    if command.name is None and command.handle is not None:
        for obj in table.objects.values():
            if obj.handle == command.handle and obj.kind == command.obj:
                return obj
        raise refused(errno.ENOENT, place(command, command.handle_loc))
    found = table.objects.get(Ref(command.obj, command.name or ""))
    if found is None:
        raise no_object(draft.rules, table, command.obj, command.name or "", name_place(command))
    return found


def find_flowtable(draft: Draft, table: Table, command: Command) -> Flowtable:
    """The flowtable of a command, by name or by handle."""
    if command.name is None and command.handle is not None:
        for flowtable in table.flowtables.values():
            if flowtable.handle == command.handle:
                return flowtable
        raise refused(errno.ENOENT, place(command, command.handle_loc))
    found = table.flowtables.get(command.name or "")
    if found is None:
        raise no_flowtable(draft.rules, table, command.name or "", name_place(command))
    return found
