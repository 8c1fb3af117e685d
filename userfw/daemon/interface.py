"""`[port.ethtool]`: an interface's settings while a port is open, and what they were before.

Laws: what was there is written down before anything is changed, in a file beside the control socket's usual place, so that the next
start puts it back after SIGKILL; a setting that the device refuses undoes those before it and refuses the port.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from userfw.daemon import schema
from userfw.ports.ethtool import SPEED_UNKNOWN, TABLES, Ethtool, Steering
from userfw.ports.netlink import Link
from userfw.ports.netns import path_of

log = logging.getLogger("userfw.ports")

DUPLEX = {"half": 0, "full": 1}


def folder() -> Path:
    """Where the records are: systemd's runtime directory, else /run/userfw."""
    return Path(os.environ.get("RUNTIME_DIRECTORY", "/run/userfw").split(":")[0])


class Settings:
    """What was set on one interface; `restore` puts back what was there."""

    def __init__(self, ifname: str, netns: str) -> None:
        self.ifname, self.netns = ifname, netns
        self.before: dict[str, Any] = {}
        namespace = os.stat(path_of(netns) if netns else "/proc/self/ns/net").st_ino
        self.record = folder() / f"ethtool-{namespace}-{ifname}.json"

    def apply(self, wanted: schema.Ethtool) -> None:
        """Set what is wanted. OSError names the setting; then everything is as before."""
        tool = Ethtool(self.netns)
        try:
            self.restore()  # what a process that was killed left
            for what, values in _numbers(wanted).items():
                self._step(f"{what} ({', '.join(values)})", partial(self._set_numbers, tool, what, values))
            if wanted.features:
                self._step("features", partial(self._set_features, tool, wanted.features))
            for rule in wanted.ntuple:
                self._step(f"ntuple rule for {rule.flow}", partial(self._steer, rule))
        except BaseException:
            self.restore()
            raise
        finally:
            tool.close()

    def _step(self, what: str, do: Callable[[], None]) -> None:
        try:
            do()
        except OSError as error:
            raise OSError(error.errno, f"ethtool: {what}: {error.strerror}") from None

    def _set_numbers(self, tool: Ethtool, what: str, values: dict[str, int]) -> None:
        now = tool.numbers(what, self.ifname)
        change = {name: value for name, value in values.items() if now.get(name) != value}
        if change:
            self._note(what, {name: now[name] for name in change if now.get(name, SPEED_UNKNOWN) != SPEED_UNKNOWN})
            if what == "link" and now.get("autoneg"):
                self._note("modes", dict.fromkeys(sorted(tool.modes(self.ifname)), True))
            tool.set_numbers(what, self.ifname, change)

    def _set_features(self, tool: Ethtool, values: dict[str, bool]) -> None:
        now = tool.features(self.ifname)
        change = {name: on for name, on in values.items() if now.get(name, not on) != on}
        if change:
            self._note("features", {name: now[name] for name in change if name in now})
            tool.set_features(self.ifname, change)

    def _steer(self, rule: schema.Ntuple) -> None:
        location = Steering(self.ifname, self.netns).add(rule.steer())
        self._note("ntuple", {str(location): True})

    def _note(self, what: str, values: dict[str, Any]) -> None:
        self.before.setdefault(what, {}).update(values)
        try:
            self.record.parent.mkdir(parents=True, exist_ok=True)
            self.record.write_text(json.dumps(self.before))
        except OSError as error:
            log.warning("%s: settings could not be put back after a crash: %s", self.ifname, error)

    def restore(self) -> None:
        """Put back what was there, also for an earlier process; what fails is logged."""
        before = self.before or self._recorded()
        self.before = {}
        if not before:
            return
        try:
            tool = Ethtool(self.netns)
        except OSError:
            return
        try:
            for location in before.pop("ntuple", {}):
                self._try(partial(Steering(self.ifname, self.netns).remove, int(location)), "ntuple")
            features = before.pop("features", {})
            if features:
                self._try(partial(tool.set_features, self.ifname, features), "features")
            modes = before.pop("modes", {})
            if modes:
                before.pop("link", None)  # what was negotiated is negotiated again
                self._try(partial(tool.negotiate, self.ifname, sorted(modes)), "link")
            for what, values in before.items():
                if what in TABLES and values:
                    self._try(partial(tool.set_numbers, what, self.ifname, values), what)
        finally:
            tool.close()
        self.record.unlink(missing_ok=True)

    def _recorded(self) -> dict[str, Any]:
        try:
            found = json.loads(self.record.read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _try(self, do: Callable[[], None], what: str) -> None:
        try:
            do()
        except (OSError, KeyError, ValueError) as error:
            log.warning("%s: %s not put back: %s", self.ifname, what, error)


def described(config: schema.Port, link: Link | None) -> dict[str, Any] | None:
    """Features, link, channels, rings and n-tuple rules of a port's interface; None where there is none, or it does not tell."""
    if link is None or config.type not in schema.INTERFACE_TYPES:
        return None
    try:
        tool = Ethtool(config.netns)
    except OSError:
        return None
    try:
        return tool.describe(link.name)
    except OSError:
        return None
    finally:
        tool.close()


def _numbers(wanted: schema.Ethtool) -> dict[str, dict[str, int]]:
    link = {
        name: value
        for name, value in (
            ("autoneg", None if wanted.autoneg is None else int(wanted.autoneg)),
            ("speed", wanted.speed),
            ("duplex", None if wanted.duplex is None else DUPLEX[wanted.duplex]),
        )
        if value is not None
    }
    tables = {"channels": dict(wanted.channels), "rings": dict(wanted.rings), "link": link}
    return {what: values for what, values in tables.items() if values}

