"""Finding drivers: the entry points of group `userfw.offload`, callables that take the options and return a Driver, or several.

Options: `xdp`, `tc` and `flower`, names of ports whose attach point the configuration forces; `capture`, a function that has a
port's frames come by tc; `nics`, the cards of `[[nic]]`. Drivers are loaded when a ruleset first asks for offload.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from userfw.offload.contract import Driver
from userfw.offload.guarded import Guarded

GROUP = "userfw.offload"
# Found without installed metadata too, as in a source tree.
OWN = {"bpf": "userfw_hw.bpf.driver:make", "flower": "userfw_hw.flower.driver:make", "mock": "userfw_hw.mock:make"}

log = logging.getLogger("userfw.offload")


def load(options: Mapping[str, Any]) -> list[Driver]:
    """Every driver that can be loaded, in the order in which they are asked; one that cannot is told and left out."""
    places = dict(OWN) | {point.name: point.value for point in entry_points(group=GROUP)}
    drivers: list[Driver] = []
    for name, place in sorted(places.items()):
        module, _, attribute = place.partition(":")
        try:
            made = getattr(importlib.import_module(module), attribute)(options)
        except Exception as error:  # others wrote them
            log.warning("offload driver %s is not available: %s", name, error)
            continue
        for driver in made if isinstance(made, list) else [made]:
            if isinstance(driver, Driver):
                drivers.append(Guarded(driver))
            else:
                log.warning("offload driver %s is not available: %r is no driver", name, driver)
    return sorted(drivers, key=lambda driver: driver.rank)
