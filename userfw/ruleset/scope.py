"""How names are found while a transaction is made: by the checker (blocks) and by the engine's rules (objects)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from userfw.engine.expressions.objref import OBJECT_TYPES
from userfw.nft.datatype import Names
from userfw.nft.location import NOWHERE
from userfw.nft.syntax import ChainBlock, FlowtableBlock, ObjectBlock, SetBlock
from userfw.ruleset.model import Ref, Table
from userfw.ruleset.problems import no_set

if TYPE_CHECKING:
    from userfw.ruleset.draft import Draft

_KINDS = {number: kind for kind, number in OBJECT_TYPES.items()}


class DraftResolver:
    """The checker's view of a draft (nft.check_context.Resolver)."""

    def __init__(self, draft: Draft, names: Names) -> None:
        self.rules = draft.rules
        self.names = names

    def has_table(self, family: str, table: str) -> bool:
        return (family, table) in self.rules.tables

    def set_of(self, family: str, table: str, name: str) -> SetBlock | None:
        found = self.rules.tables.get((family, table))
        entry = found.sets.get(name) if found is not None else None
        return entry.node if entry is not None else None

    def chain_of(self, family: str, table: str, name: str) -> ChainBlock | None:
        found = self.rules.tables.get((family, table))
        chain = found.chains.get(name) if found is not None else None
        return chain.node if chain is not None else None

    def object_of(self, family: str, table: str, kind: str, name: str) -> ObjectBlock | None:
        found = self.rules.tables.get((family, table))
        entry = found.objects.get(Ref(kind, name)) if found is not None else None
        return entry.node if entry is not None else None

    def flowtable_of(self, family: str, table: str, name: str) -> FlowtableBlock | None:
        found = self.rules.tables.get((family, table))
        entry = found.flowtables.get(name) if found is not None else None
        return entry.node if entry is not None else None

    def like(self, family: str, table: str, name: str) -> str:
        found = self.rules.tables.get((family, table))
        message = no_set(self.rules, found, name, NOWHERE).message if found is not None else ""
        return message.partition("; ")[2]


class TableScope:
    """The engine's view of one table of a draft (engine.bind.Scope), with a rule's own anonymous sets and chains."""

    def __init__(self, table: Table, sets: dict[str, Any] | None = None, chains: dict[str, Any] | None = None) -> None:
        self.table = table
        self.sets = sets or {}
        self.chains = chains or {}

    def chain(self, name: str) -> Any:
        own = self.chains.get(name)
        if own is not None:
            return own
        found = self.table.chains.get(name)
        if found is None:
            raise LookupError(f"no chain {name!r}")
        return found.engine

    def set(self, name: str) -> Any:
        own = self.sets.get(name)
        if own is not None:
            return own
        found = self.table.sets.get(name)
        if found is None:
            raise LookupError(f"no set {name!r}")
        return found.engine

    def object(self, type: int, name: str) -> Any:
        found = self.table.objects.get(Ref(_KINDS[type], name))
        if found is None:
            raise LookupError(f"no {_KINDS[type]} {name!r}")
        return found.engine

    def flowtable(self, name: str) -> Any:
        found = self.table.flowtables.get(name)
        if found is None:
            raise LookupError(f"no flowtable {name!r}")
        return found.engine
