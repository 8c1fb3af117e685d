"""Programs that drive a ruleset or a daemon begin here: `from userfw.client import Firewall` (docs/python.md).

Names are imported when they are first used, so that a command that needs one module does not wait for the others.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from userfw.client.api import Firewall, FirewallError
    from userfw.client.control import ControlClient, ControlError
    from userfw.client.nftables import Nftables
    from userfw.client.objects import Chain, Counter, Element, Event, Flowtable, Quota, Rule, Set, Table
    from userfw.client.queue import AsyncQueueClient, QueueClient, QueuePacket

__all__ = [
    "AsyncQueueClient", "Chain", "ControlClient", "ControlError", "Counter", "Element", "Event", "Firewall", "FirewallError",
    "Flowtable", "Nftables", "QueueClient", "QueuePacket", "Quota", "Rule", "Set", "Table",
]  # fmt: skip

_HOMES = {"api": ("Firewall", "FirewallError"), "control": ("ControlClient", "ControlError"), "nftables": ("Nftables",),
          "queue": ("AsyncQueueClient", "QueueClient", "QueuePacket")}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = next((home for home, names in _HOMES.items() if name in names), "objects")
    return getattr(import_module(f"{__name__}.{home}"), name)
