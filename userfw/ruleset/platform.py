"""What a ruleset runs on: a gateway, or nothing.

A `Platform` gives the engine's objects their surroundings and takes the finished pipeline. The daemon's is made of its
gateway and connection table; `PrivatePlatform` is that of a ruleset which no packet meets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from userfw.core.clock import Clock
from userfw.engine.services import Services
from userfw.engine.shared import Pool
from userfw.nft.datatype import DEFAULT_NAMES, Names
from userfw.ruleset.share import Counted

if TYPE_CHECKING:
    from userfw.core.packet import Device
    from userfw.ruleset.compile import Hooks


class Platform(Protocol):
    """The surroundings of a ruleset."""

    clock: Clock
    services: Services
    names: Names
    conns: Any
    """conntrack.table.ConnTable, or None where nothing is tracked."""
    sender: Any
    """core.fastpath.Sender of flowtables, or None."""
    helpers: Any
    """conntrack.helper.Helpers for `ct helper` objects, or None where nothing is tracked."""

    def doubt(self, expr: Any) -> str | None:
        """Why an expression never matches here, or None: rules that have one are loaded with a warning."""

    pool: Pool | None
    """Where limits, quotas and `ct count` of several processes are kept together; None for one process."""
    counted: Counted

    no_objects: Mapping[int, str]
    """Types of objects (OBJECT_TYPES) that rules cannot use here, and why."""

    def devices(self) -> Iterable[Device]:
        """The devices that netdev chains and flowtables may hang on."""

    def install(self, hooks: Hooks) -> None:
        """Swap in the hooks of a new ruleset, between two batches. Cannot fail."""



class PrivatePlatform:
    """No packets, no devices; time stands until somebody sets the clock."""

    def __init__(self, names: Names = DEFAULT_NAMES) -> None:
        self.clock = Clock()
        self.services = Services(self.clock)
        self.names = names
        self.conns: Any = None
        self.sender: Any = None
        self.helpers: Any = None
        self.hooks: Hooks | None = None
        self.pool: Pool | None = None
        self.counted = Counted()
        self.no_objects: Mapping[int, str] = {}

    def doubt(self, expr: Any) -> str | None:
        return None

    def devices(self) -> Iterable[Device]:
        return ()

    def install(self, hooks: Hooks) -> None:
        self.hooks = hooks
