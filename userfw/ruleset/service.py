"""What a daemon offers its clients: commands on the ruleset as plain messages, and streams of events.

Laws:
- Messages are dictionaries of strings, numbers, lists: what JSON carries. Nothing in them is trusted.
- `start` may run in another thread (and should, where `heavy` says so); `finish` and everything else in the packet loop's
  thread. A transaction that another one overtook meanwhile is no longer `current`: `start` it again, or let `finish` do so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from userfw.ruleset.events import Event, NewGeneration
from userfw.ruleset.manager import Prepared, Result, RulesetManager
from userfw.ruleset.options import Options
from userfw.ruleset.output import event_text
from userfw.ruleset.output_json import event_line

HEAVY_TEXT = 1 << 13
"""Characters of input that are prepared in a few milliseconds."""
HEAVY_RULESET = 2000
"""Rules and elements that are listed in a few milliseconds."""


class UsageError(ValueError):
    """A message that is none."""


class NftService:
    """The ruleset's commands: `nft` (run text) and `nft.monitor` (stream events)."""

    def __init__(self, manager: RulesetManager) -> None:
        self.manager = manager

    def execute(self, args: dict[str, Any], client: object = None) -> dict[str, Any]:
        """`{"text": …, "options": {…}, "files": {…}}` to `{"output", "errors", "status", "generation"}`."""
        return self.finish(self.start(args, client))

    def heavy(self, args: dict[str, Any]) -> bool:
        """Whether `start` would hold up the packet loop: a long text, or a listing of a large ruleset."""
        text = args.get("text", "")
        if len(text) > HEAVY_TEXT:
            return True
        return any(word in text for word in ("list", "reset", "get")) and self.manager.weight() > HEAVY_RULESET

    def current(self, prepared: Prepared) -> bool:
        """Whether nothing was committed since `start`; if so `finish` only swaps, else it starts again."""
        return prepared.plan is None or prepared.plan.base is self.manager.rules

    def start(self, args: dict[str, Any], client: object = None) -> Prepared:
        """The part of `execute` that changes nothing and takes long. UsageError for a bad message."""
        text, options, files = _request_untrusted(args, client)
        return self.manager.prepare(text, options, files)

    def finish(self, prepared: Prepared) -> dict[str, Any]:
        """The part of `execute` that swaps."""
        return message_of(self.manager.commit(prepared))

    def monitor(self, args: dict[str, Any], send: Callable[[dict[str, Any]], None]) -> Callable[[], None]:
        """Send `{"text": lines}` for every commit that matches; returns what ends it.

        `args`: `options` as for `execute`; `event` (`new`, `destroy`) and `objects` (`tables`, `chains`, …) of `nft monitor`.
        """
        try:
            options = Options.from_message(dict(args.get("options") or {}))
        except (ValueError, TypeError) as error:
            raise UsageError(str(error)) from None
        chosen = Filter(args.get("event"), args.get("objects"))
        style = options.style(self.manager.names)
        if chosen.objects == "trace":
            from userfw.ruleset.trace import subscribe

            services = getattr(self.manager.backend, "platform").services  # noqa: B009 - a backend without one has no packets
            return subscribe(services, style, lambda text: send({"text": text}), options.json)

        def told(events: list[Event | NewGeneration]) -> None:
            shown = [event for event in events if chosen.wants(event)]
            printer = event_line if options.json else event_text
            text = "".join(printer(event, style, 0) for event in shown)
            if text:
                send({"text": text})

        return self.manager.subscribe(told)


def _request_untrusted(args: dict[str, Any], client: object) -> tuple[str, Options, Any]:
    text = args.get("text", "")
    if not isinstance(text, str):
        raise UsageError("text is a string")
    raw = args.get("files")
    files: dict[str, list[tuple[str, str]]] | None = {}
    try:
        options = replace(Options.from_message(dict(args.get("options") or {})), client=client)
        for pattern, entries in dict(raw or {}).items():
            files[str(pattern)] = [(str(path), str(content)) for path, content in entries]  # type: ignore[index]
    except (ValueError, TypeError) as error:
        raise UsageError(str(error)) from None
    return text, options, files


def message_of(result: Result) -> dict[str, Any]:
    """The result as a message."""
    return {"output": result.output, "errors": result.errors, "status": result.status, "generation": result.generation}


class Filter:
    """Which events a monitor wants (nft: `monitor [new|destroy] [tables|chains|rules|sets|elements|ruleset]`)."""

    def __init__(self, event: str | None = None, objects: str | None = None) -> None:
        self.event = event
        self.objects = objects

    def wants(self, event: Event | NewGeneration) -> bool:
        if isinstance(event, NewGeneration):
            return self.objects in (None, "ruleset") and self.event is None
        if self.event is not None and (event.op == "delete") != (self.event == "destroy"):
            return False
        return self.objects in (None, "ruleset") or event.obj in _OBJECTS.get(self.objects or "", ())


_OBJECTS = {
    "tables": ("table",),
    "chains": ("chain",),
    "rules": ("rule",),
    "sets": ("set", "map", "meter"),
    "elements": ("element",),
}
