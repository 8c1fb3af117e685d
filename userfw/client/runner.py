"""Where nft commands run: in the daemon, or on a private ruleset of this process. One small interface for both."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from userfw.client.control import ControlClient, ControlError, socket_path

if TYPE_CHECKING:
    from userfw.core.clock import Clock
    from userfw.ruleset.manager import RulesetManager
    from userfw.ruleset.options import Options


@dataclass(frozen=True, slots=True)
class Answer:
    """What a run printed, and its exit status."""

    output: str
    errors: str
    status: int
    generation: int = 0


class Runner(Protocol):
    """Runs nft commands. A context manager; leaving it ends what this client owned."""

    def __enter__(self) -> Runner: ...

    def __exit__(self, *_: object) -> None: ...

    def run(self, text: str, options: Options) -> Answer:
        """Run commands, all or nothing."""

    def monitor(self, event: str | None, objects: str | None, options: Options) -> Iterator[str]:
        """The lines of `nft monitor` from now on, until the caller stops."""


class DaemonRunner:
    """Commands go to the daemon; files that they include are read here and sent along."""

    def __init__(self, path: str | None = None) -> None:
        self.client = ControlClient(path)

    def __enter__(self) -> DaemonRunner:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def run(self, text: str, options: Options) -> Answer:
        from userfw.ruleset.inputs import collect

        message: dict[str, Any] = {"text": text, "options": options.to_message()}
        files = collect(text, options)
        if files:
            message["files"] = files
        result = self.client.request("nft", **message)
        return Answer(_named(result["output"], options), result["errors"], int(result["status"]), int(result.get("generation", 0)))

    def monitor(self, event: str | None, objects: str | None, options: Options) -> Iterator[str]:
        stream = self.client.stream("nft.monitor", event=event, objects=objects, options=options.to_message())
        return (f"# {event['lost']} events lost\n" if "lost" in event else _named(event["text"], options) for event in stream)


class PrivateRunner:
    """A ruleset of this process: no daemon, no privileges, no packets (unless the manager has a gateway)."""

    def __init__(self, manager: RulesetManager | None = None) -> None:
        self._clock: Clock | None = None
        if manager is None:
            from userfw.client.names import SystemNames
            from userfw.ruleset.language import LanguageBackend
            from userfw.ruleset.manager import RulesetManager
            from userfw.ruleset.platform import PrivatePlatform

            platform = PrivatePlatform(SystemNames())
            self._clock = platform.clock
            manager = RulesetManager(backend=LanguageBackend(platform))
        self.manager = manager

    def __enter__(self) -> PrivateRunner:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, text: str, options: Options) -> Answer:
        if self._clock is not None:
            self._clock.now = time.monotonic_ns()
            self._clock.wall_offset = time.time() - time.monotonic()
        result = self.manager.execute(text, options)
        return Answer(_named(result.output, options), result.errors, result.status, result.generation)

    def monitor(self, event: str | None, objects: str | None, options: Options) -> Iterator[str]:
        raise ControlError("a private ruleset has nobody else's events to show", "usage")


def _named(text: str, options: Options) -> str:
    """The text with names of addresses, if they are asked for."""
    if not options.reversedns:
        return text
    from userfw.client.reverse import Resolver

    return Resolver().text(text)


def open_runner(path: str | None = None, *, private: bool = False, check_only: bool = False) -> Runner:
    """The daemon's ruleset, or a private one if asked for, or if there is no daemon and nothing is to be changed."""
    if private:
        return PrivateRunner()
    if check_only and path is None and not os.path.exists(socket_path()):
        return PrivateRunner()
    return DaemonRunner(path)
