"""What can go wrong with a command, in nft's words: errno texts, and "did you mean" for misspelt names.

Sources: libnftables `nft_cmd_error`, `nft_cmd_enoent_*` and `misspell.c`; observed on nft 1.0.6 and Linux 6.18.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator

from userfw.nft.location import NOWHERE, Location, NftError
from userfw.ruleset.model import Ruleset, Table

NO_SUCH = os.strerror(errno.ENOENT)


def refused(number: int, loc: Location = NOWHERE) -> NftError:
    """The engine's refusal of a command: `Could not process rule: …` with the text of an errno."""
    return NftError(f"Could not process rule: {os.strerror(number)}", loc)


def missing(loc: Location = NOWHERE) -> NftError:
    """The plain form that listings use."""
    return NftError(NO_SUCH, loc)


def no_table(rules: Ruleset, family: str, name: str, loc: Location) -> NftError:
    """There is no such table; names the one that was perhaps meant."""
    guess = closest(name, (table.name for table in rules.select(family)))
    if guess is not None:
        return NftError(f"{NO_SUCH}; did you mean table ‘{guess}’ in family {family}?", loc)
    for table in rules.tables.values():
        if table.name == name:
            return NftError(f"{NO_SUCH}; did you mean table ‘{name}’ in family {table.family}?", loc)
    return refused(errno.ENOENT, loc)


def no_chain(rules: Ruleset, table: Table, name: str, loc: Location) -> NftError:
    """The table has no such chain."""
    return _elsewhere(rules, table, name, loc, _chain_names)


def _chain_names(table: Table) -> Iterator[tuple[str, str]]:
    return ((chain.name, "chain") for chain in table.chains.values() if not chain.binding)


def no_set(rules: Ruleset, table: Table, name: str, loc: Location) -> NftError:
    """The table has no such set or map."""
    return _elsewhere(rules, table, name, loc, lambda one: ((entry.name, entry.kind) for entry in one.sets.values()))


def no_object(rules: Ruleset, table: Table, kind: str, name: str, loc: Location) -> NftError:
    """The table has no object of that kind and name."""
    return _elsewhere(rules, table, name, loc, lambda one: ((ref.name, "obj") for ref in one.objects if ref.kind == kind))


def no_flowtable(rules: Ruleset, table: Table, name: str, loc: Location) -> NftError:
    """The table has no such flowtable."""
    return _elsewhere(rules, table, name, loc, lambda one: ((entry, "flowtable") for entry in one.flowtables))


def _elsewhere(
    rules: Ruleset,
    table: Table,
    name: str,
    loc: Location,
    names: Callable[[Table], Iterable[tuple[str, str]]],
) -> NftError:
    others = [table, *(other for other in rules.tables.values() if other is not table and other.family == table.family)]
    for place in others:
        kinds = dict(names(place))
        guess = name if place is not table and name in kinds else closest(name, kinds)
        if guess is not None:
            what = f"{kinds[guess]} ‘{guess}’ in table {place.family} ‘{place.name}’"
            return NftError(f"{NO_SUCH}; did you mean {what}?", loc)
    return refused(errno.ENOENT, loc)


def closest(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate least far from `name`, None if all are farther than a slip of the hand."""
    best: str | None = None
    least = 1 << 30
    for candidate in candidates:
        if candidate == name:
            continue
        longest, shortest = max(len(name), len(candidate)), min(len(name), len(candidate))
        if longest <= 1:
            continue
        limit = (longest + 2) // 3 if longest - shortest <= 1 else (longest + 4) // 3
        far = distance(name[1:], candidate[1:])
        if far <= limit and far < least:
            best, least = candidate, far
    return best


def distance(a: str, b: str) -> int:
    """Edits (insert, delete, replace, swap of neighbours) that lead from `a` to `b`."""
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        before, previous, row = row, before, [i]
        for j, right in enumerate(b, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (left != right))
            if i > 1 and j > 1 and left == b[j - 2] and a[i - 2] == right:
                cost = min(cost, previous[j - 2] + 1)
            row.append(cost)
    return row[-1]
