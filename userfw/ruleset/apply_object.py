"""Commands on stateful objects and flowtables (Linux: nf_tables_newobj, nf_tables_newflowtable and their kin)."""

from __future__ import annotations

import errno
from dataclasses import replace

from userfw.nft.location import NftError
from userfw.nft.syntax import Command, FlowtableBlock, ObjectBlock
from userfw.ruleset.draft import Draft
from userfw.ruleset.lookup import find_flowtable, find_object, find_table, name_place
from userfw.ruleset.model import Flowtable, Object, Ref, Table
from userfw.ruleset.problems import refused
from userfw.ruleset.references import NEED_CONNTRACK, NEED_SYNPROXY

_NEEDS = {
    **dict.fromkeys(("ct helper", "ct timeout", "ct expectation"), (NEED_CONNTRACK,)),
    "synproxy": (NEED_CONNTRACK, NEED_SYNPROXY),
}
"""What objects switch on by being there."""


def add_object(draft: Draft, command: Command) -> None:
    """Add an object. One that is there stays, but for quotas, whose limit becomes the new one (Linux: nft_quota_obj_update)."""
    node = command.node
    assert isinstance(node, ObjectBlock)
    table = find_table(draft, command)
    old = table.objects.get(Ref(node.kind, node.name))
    if old is not None:
        if command.op == "create":
            raise refused(errno.EEXIST, name_place(command))
        if node.kind == "quota" and node.body != old.node.body:
            table = draft.edit(table)
            new = Object(old.handle, node, old.engine)
            draft.backend.update_object(draft, table, old, new)
            table.objects[Ref(node.kind, node.name)] = new
            draft.emit("add", node.kind, table, node.name, node, old.handle)
        return
    if node.kind in _NEEDS and table.family in ("arp", "netdev"):
        raise refused(errno.EPROTO, name_place(command))  # Linux: nf_ct_netns_get
    table = draft.edit(table)
    entry = draft.new_object(table, node)
    table.use(_NEEDS.get(node.kind, ()))
    draft.emit("add", node.kind, table, node.name, node, entry.handle)


def delete_object(draft: Draft, command: Command) -> None:
    """Delete an object that nothing refers to."""
    try:
        table = find_table(draft, command)
        entry = find_object(draft, table, command)
    except NftError as problem:
        if command.op == "destroy" and "No such file" in problem.message:
            return
        raise
    if table.uses.get(Ref(entry.kind, entry.name)):
        raise refused(errno.EBUSY, name_place(command))
    table = draft.edit(table)
    table.unuse(_NEEDS.get(entry.kind, ()))
    draft.delete_object(table, entry)


def add_flowtable(draft: Draft, command: Command) -> None:
    """Add a flowtable, or devices to one that is there."""
    node = command.node
    assert isinstance(node, FlowtableBlock)
    table = find_table(draft, command)
    _check_devices(table, node, command)
    old = table.flowtables.get(node.name)
    if old is None:
        if node.hook is None or node.priority is None:
            raise refused(errno.EINVAL, name_place(command))
        table = draft.edit(table)
        entry = draft.new_flowtable(table, node)
        draft.emit("add", "flowtable", table, node.name, node, entry.handle)
        return
    if command.op == "create":
        raise refused(errno.EEXIST, name_place(command))
    if set(node.flags) != set(old.node.flags):
        raise refused(errno.EOPNOTSUPP, name_place(command))
    fresh = [device for device in node.devices if device not in old.node.devices]
    if fresh:
        _set_devices(draft, table, old, [*old.node.devices, *fresh], fresh, "add")


def _check_devices(table: Table, node: FlowtableBlock, command: Command) -> None:
    """A device can be in one flowtable of a table only (Linux: nft_register_flowtable_net_hooks)."""
    if len(set(node.devices)) != len(node.devices):
        raise refused(errno.EEXIST, name_place(command))
    for other in table.flowtables.values():
        if other.name != node.name and set(other.node.devices) & set(node.devices):
            raise refused(errno.EEXIST, name_place(command))


def _set_devices(draft: Draft, table: Table, old: Flowtable, devices: list[str], shown: list[str], op: str) -> None:
    table = draft.edit(table)
    entry = Flowtable(old.handle, replace(old.node, devices=devices), old.engine)
    table.flowtables[entry.name] = entry
    draft.hooks_changed = True
    draft.emit(op, "flowtable", table, entry.name, replace(entry.node, devices=shown), entry.handle, partial=True)


def delete_flowtable(draft: Draft, command: Command) -> None:
    """Delete a flowtable that no rule adds to, or some of its devices."""
    try:
        table = find_table(draft, command)
        entry = find_flowtable(draft, table, command)
    except NftError as problem:
        if command.op == "destroy" and "No such file" in problem.message:
            return
        raise
    node = command.node
    if isinstance(node, FlowtableBlock) and node.devices:
        gone = set(node.devices)
        if not gone.issubset(entry.node.devices):
            raise refused(errno.ENOENT, name_place(command))
        left = [device for device in entry.node.devices if device not in gone]
        _set_devices(draft, table, entry, left, [device for device in entry.node.devices if device in gone], "delete")
        return
    if table.uses.get(Ref("flowtable", entry.name)):
        raise refused(errno.EBUSY, name_place(command))
    draft.delete_flowtable(draft.edit(table), entry)
