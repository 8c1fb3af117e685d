"""Commands on tables and chains (Linux: nf_tables_newtable, nf_tables_updchain, nf_tables_delchain and their kin)."""

from __future__ import annotations

import errno
from dataclasses import replace

from userfw.nft.location import NftError
from userfw.nft.syntax import ChainBlock, Command, TableBlock
from userfw.ruleset.draft import Draft
from userfw.ruleset.lookup import find_chain, find_table, name_place, place
from userfw.ruleset.model import Chain, Ref, Table, priority_of
from userfw.ruleset.problems import refused

NAT_LOWEST_PRIORITY = -200
MAX_DEVICES = 256

_INET_HOOKS = ("prerouting", "input", "forward", "output", "postrouting")
HOOKS: dict[str, dict[str, tuple[str, ...]]] = {
    "filter": {
        "ip": _INET_HOOKS,
        "ip6": _INET_HOOKS,
        "inet": (*_INET_HOOKS, "ingress"),
        "bridge": _INET_HOOKS,
        "arp": ("input", "output"),
        "netdev": ("ingress", "egress"),
    },
    "nat": dict.fromkeys(("ip", "ip6", "inet"), ("prerouting", "input", "output", "postrouting")),
    "route": dict.fromkeys(("ip", "ip6", "inet"), ("output",)),
}


# --- tables


def add_table(draft: Draft, command: Command) -> None:
    """Add a table, or change the flags of one that is there (a plain `add table` wakes a dormant one)."""
    node = command.node
    assert isinstance(node, TableBlock)
    flags = frozenset(node.flags)
    loc = place(command, command.table_loc)
    table = draft.rules.table(node.family, node.name)
    if table is None:
        table = draft.new_table(node.family, node.name)
        table.flags = flags
        table.comment = node.comment
        table.owner = draft.client if "owner" in flags else None
        draft.emit("add", "table", table, table.name, table, table.handle)
        return
    find_table(draft, command)
    if command.op == "create":
        raise refused(errno.EEXIST, loc)
    if flags != table.flags:
        _change_flags(draft, table, flags, command)


def _change_flags(draft: Draft, table: Table, flags: frozenset[str], command: Command) -> None:
    loc = place(command, command.table_loc)
    orphan = "persist" in table.flags and "owner" not in table.flags
    if ("persist" in flags) != ("persist" in table.flags):
        raise refused(errno.EOPNOTSUPP, loc)
    if "owner" in table.flags and "owner" not in flags:
        raise refused(errno.EOPNOTSUPP, loc)
    if "owner" in flags and "owner" not in table.flags and not orphan:
        raise refused(errno.EOPNOTSUPP, loc)
    if table.key in draft.unsettled:
        raise refused(errno.EINVAL, command.loc)
    table = draft.edit(table)
    draft.unsettled.add(table.key)
    if table.dormant != ("dormant" in flags):
        draft.hooks_changed = True
        if table.dormant:
            for chain in list(table.base_chains()):
                draft.register(draft.edit_chain(table, chain))
    if "owner" in flags and table.owner is None:
        table.owner = draft.client
    table.flags = flags
    draft.emit("add", "table", table, table.name, table, table.handle)


def _table_by_handle(draft: Draft, command: Command) -> Table | None:
    for table in draft.rules.select(command.family or "ip"):
        if table.handle == command.handle:
            return table
    return None


def delete_table(draft: Draft, command: Command) -> None:
    """Delete a table and all that it holds."""
    if command.table is None:
        table = _table_by_handle(draft, command)
        if table is None:
            if command.op == "destroy":
                return
            raise refused(errno.ENOENT, place(command, command.handle_loc))
        command = replace(command, table=table.name)
    if command.op == "destroy" and draft.rules.table(command.family or "ip", command.table or "") is None:
        return
    draft.delete_table(find_table(draft, command))


def flush_table(draft: Draft, command: Command) -> None:
    """Delete the rules of all chains of a table."""
    table = draft.edit(find_table(draft, command))
    for chain in list(table.chains.values()):
        if not chain.binding:
            draft.flush_chain(table, chain)


def flush_ruleset(draft: Draft, command: Command) -> None:
    """Delete all tables (of a family), except those that another client owns."""
    for table in draft.rules.select(command.family):
        if "owner" in table.flags and table.owner is not None and table.owner != draft.client:
            continue
        draft.delete_table(table)


# --- chains


def add_chain(draft: Draft, command: Command) -> None:
    """Add a chain; an existing one may get another policy or more devices, its hook cannot change."""
    node = command.node
    assert isinstance(node, ChainBlock)
    table = find_table(draft, command)
    chain = table.chains.get(node.name)
    if chain is None:
        if node.hook is not None:
            _check_hook(table, node, command)
        elif node.policy is not None or node.devices or node.flags:
            raise refused(errno.EOPNOTSUPP, command.loc)
        table = draft.edit(table)
        if node.hook is not None and node.policy is None:
            node = replace(node, policy="accept")
        chain = draft.new_chain(table, node)
        draft.emit("add", "chain", table, chain.name, chain.node, chain.handle)
        return
    if command.op == "create":
        raise refused(errno.EEXIST, name_place(command))
    _update_chain(draft, table, chain, node, command)


def _check_hook(table: Table, node: ChainBlock, command: Command) -> None:
    """Whether a base chain can stand there (Linux: nft_chain_parse_hook)."""
    kind = node.type or "filter"
    hooks = HOOKS.get(kind, {}).get(table.family)
    if hooks is None:
        raise refused(errno.ENOENT, command.loc)
    if node.hook not in hooks or (kind == "nat" and priority_of(node, table.family) <= NAT_LOWEST_PRIORITY):
        raise refused(errno.EOPNOTSUPP, command.loc)
    on_device = node.hook in ("ingress", "egress")
    if node.devices and not on_device:
        raise refused(errno.EOPNOTSUPP, command.loc)
    if len(set(node.devices)) != len(node.devices):
        raise refused(errno.EEXIST, command.loc)
    if len(node.devices) > MAX_DEVICES:
        raise refused(errno.E2BIG, command.loc)
    if "offload" in node.flags and not (table.family == "netdev" and node.hook == "ingress"):
        raise refused(errno.EOPNOTSUPP, command.loc)


def _update_chain(draft: Draft, table: Table, chain: Chain, node: ChainBlock, command: Command) -> None:
    old = chain.node
    if node.hook is not None:
        _same_hook(chain, node, table.family, command)
    elif node.policy is not None and not chain.is_base:
        raise refused(errno.EOPNOTSUPP, command.loc)
    if node.hook is not None and set(node.flags) != set(old.flags):
        raise refused(errno.EOPNOTSUPP, command.loc)
    fresh = [device for device in node.devices if device not in old.devices]
    policy = node.policy if node.policy is not None else old.policy
    if chain.is_base:
        draft.unsettled.add(table.key)
    if not fresh and policy == old.policy:
        return
    table = draft.edit(table)
    chain = draft.edit_chain(table, chain)
    chain.node = replace(old, policy=policy, devices=[*old.devices, *fresh])
    draft.hooks_changed = True
    shown = replace(chain.node, devices=fresh) if fresh else chain.node
    draft.emit("add", "chain", table, chain.name, shown, chain.handle, partial=bool(fresh))


def _same_hook(chain: Chain, node: ChainBlock, family: str, command: Command) -> None:
    old = chain.node
    if not chain.is_base:
        raise refused(errno.EEXIST, command.loc)
    if (old.type, old.hook, priority_of(old, family)) != (node.type, node.hook, priority_of(node, family)):
        raise refused(errno.EEXIST, command.loc)


def delete_chain(draft: Draft, command: Command) -> None:
    """Delete a chain with its rules, or some devices of it. EBUSY while something jumps to it."""
    try:
        table = find_table(draft, command)
        chain = find_chain(draft, table, command)
    except NftError:
        if command.op == "destroy" and _absent(draft, command):
            return
        raise
    node = command.node
    if isinstance(node, ChainBlock) and node.devices:
        _delete_devices(draft, table, chain, node, command)
        return
    table = draft.edit(table)
    if table.uses.get(Ref("chain", chain.name)):
        raise refused(errno.EBUSY, name_place(command))
    draft.delete_chain(table, chain)


def _absent(draft: Draft, command: Command) -> bool:
    """Whether `destroy` finds nothing to do, rather than something that it may not touch."""
    table = draft.rules.table(command.family or "ip", command.table or "")
    if table is None or command.name is None:
        return True
    return command.name not in table.chains


def _delete_devices(draft: Draft, table: Table, chain: Chain, node: ChainBlock, command: Command) -> None:
    gone = set(node.devices)
    if not gone.issubset(chain.node.devices):
        raise refused(errno.ENOENT, command.loc)
    table = draft.edit(table)
    chain = draft.edit_chain(table, chain)
    shown = replace(chain.node, devices=[device for device in chain.node.devices if device in gone])
    chain.node = replace(chain.node, devices=[device for device in chain.node.devices if device not in gone])
    draft.hooks_changed = True
    draft.emit("delete", "chain", table, chain.name, shown, chain.handle, partial=True)


def flush_chain(draft: Draft, command: Command) -> None:
    """Delete all rules of a chain."""
    table = find_table(draft, command)
    chain = find_chain(draft, table, command)
    draft.flush_chain(draft.edit(table), chain)


def rename_chain(draft: Draft, command: Command) -> None:
    """Give a chain another name. EEXIST if the name is taken.

    The new name holds from the commit on: later commands of the transaction still know the chain by its old name (Linux:
    nf_tables_updchain keeps it in the transaction).
    """
    table = find_table(draft, command)
    chain = find_chain(draft, table, command)
    name = command.new_name or ""
    before = draft.base.table(table.family, table.name)
    if before is None or chain.name not in before.chains:
        raise refused(errno.ENOENT, command.loc)  # chains of this transaction cannot be renamed in it
    if name in table.chains or (table.key, name) in draft.renamed.values():
        raise refused(errno.EEXIST, command.loc)
    draft.renamed[table.key, chain.name] = table.key, name
    draft.emit("add", "chain", table, name, replace(chain.node, name=name), chain.handle)


def settle_names(draft: Draft) -> None:
    """Make the renames of a transaction so; those of chains that are gone are forgotten."""
    for (key, old), (_, new) in draft.renamed.items():
        table = draft.rules.tables.get(key)
        if table is not None and old in table.chains and new not in table.chains:
            table = draft.edit(table)
            draft.rename_chain(table, table.chains[old], new)
    draft.renamed.clear()
