"""RulesetManager: text or JSON in, text or JSON out, one ruleset in between.

Laws:
- `execute` runs everything; `prepare` and `commit` are its halves. `prepare` reads the ruleset and changes nothing: it may
  run in another thread while packets flow. `commit` belongs to the packet loop's thread, between two batches, and its time
  grows with what changed only.
- Two clients are serialised by the generation: a prepared transaction whose ruleset is no longer the current one is
  prepared again (Linux: ERESTART after a generation check).
- The manager never raises for what a client wrote: errors are in the Result, in nft's words.
"""

from __future__ import annotations

import contextlib
import gc
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from userfw.nft.location import Location, NftError, NftErrors
from userfw.nft.syntax import Command
from userfw.ruleset.backend import Backend
from userfw.ruleset.draft import Draft
from userfw.ruleset.events import Event, NewGeneration
from userfw.ruleset.inputs import parse_input
from userfw.ruleset.listing import Lister, Listing
from userfw.ruleset.model import Ruleset
from userfw.ruleset.options import Options
from userfw.ruleset.output import event_text, events_text, listing_text
from userfw.ruleset.transaction import Plan, plan_steps

if TYPE_CHECKING:
    from userfw.conntrack.table import ConnTable
    from userfw.nft.datatype import Names
    from userfw.router.gateway import Gateway

Files = Mapping[str, list[tuple[str, str]]]
Subscriber = Callable[[list[Event | NewGeneration]], None]


@dataclass(slots=True)
class Result:
    """What a run gave. `status`: 0, or 1 when anything failed (then nothing was changed). `errors` may be warnings with 0."""

    output: str = ""
    errors: str = ""
    status: int = 0
    generation: int = 0
    problems: list[NftError] = field(default_factory=list)


@dataclass(slots=True)
class Prepared:
    """A transaction that would succeed, or the errors why not."""

    commands: list[Command]
    options: Options
    plan: Plan | None = None
    problems: list[NftError] = field(default_factory=list)
    answers: str = ""
    """What its reading commands print."""
    document: Any = None
    """A JSON input that is to be echoed."""
    notes: str = ""
    """What the user should read on standard error although all went well."""


class RulesetManager:
    """Owns the current ruleset.

    `gateway`: the router.gateway.Gateway whose packets meet it, with `conns` its connection table (by default the
    gateway's own, or a new one); without a gateway the ruleset is private: it checks, lists and runs nothing.
    `veto`: what the shell has against a transaction that would succeed otherwise.
    `backend`: instead of these, for tests. `names`: names of interfaces, users, services.
    """

    def __init__(
        self,
        gateway: Gateway | None = None,
        conns: ConnTable | None = None,
        *,
        backend: Backend | None = None,
        names: Names | None = None,
    ) -> None:
        self.backend: Backend = backend or _language(gateway, conns, names)
        self.rules = Ruleset()
        self._now: Callable[[], int] = getattr(self.backend, "now", _no_time)
        self._subscribers: list[Subscriber] = []
        self._watchers: list[Callable[[], None]] = []
        self.veto: Callable[[Plan], list[NftError]] | None = None

    # --- running commands

    def execute(self, text: str, options: Options | None = None, files: Files | None = None) -> Result:
        """Run commands, all or nothing. `files`: what the text may include, if not the files of this machine."""
        return self.commit(self.prepare(text, options, files))

    def prepare(self, text: str, options: Options | None = None, files: Files | None = None) -> Prepared:
        """Parse, check, plan and lower; changes nothing."""
        with _uncollected(len(text) > LARGE):
            *_, prepared = self.prepare_steps(text, options or Options(), files)
        assert prepared is not None
        return prepared

    def prepare_steps(self, text: str, options: Options, files: Files | None = None) -> Iterator[Prepared | None]:
        """`prepare` in slices: None after each command, the result last."""
        try:
            commands = parse_input(text, options, files)
        except NftErrors as problem:
            yield Prepared([], options, problems=problem.errors)
            return
        if not options.optimize:
            for step in self._plan(commands, options):
                yield self._completed(step, text) if step is not None else None
            return
        *_, plain = self._plan(commands, options)
        yield None
        assert plain is not None
        yield plain if plain.problems else self._optimized(plain)

    @staticmethod
    def _completed(prepared: Prepared, text: str) -> Prepared:
        """With what `-e -j` and `-d` need of the input."""
        options, is_document = prepared.options, text.lstrip()[:1] == "{"
        if options.echo and options.json and is_document:
            prepared.document = json.loads(text)
        if set(options.debug) - {"netlink"}:
            from userfw.ruleset import debug

            prepared.notes = debug.before("" if is_document else text, prepared.commands, options.debug)
            prepared.notes += debug.after(prepared.plan, options.debug) if prepared.plan is not None else ""
        return prepared

    def _optimized(self, plain: Prepared) -> Prepared:
        """The same with rules merged; merges whose result is refused (keys that overlap in a map) are left out."""
        from userfw.nft.optimize import Optimizer

        invalid: set[Location] = set()
        while True:
            optimizer = Optimizer(invalid)
            commands = optimizer.commands(plain.commands)
            if not optimizer.merges:
                return plain
            *_, prepared = self._plan(commands, plain.options)
            assert prepared is not None
            if not prepared.problems:
                prepared.notes = "".join(merge.text() for merge in optimizer.merges)
                return prepared
            places = [problem.loc for problem in prepared.problems]
            refused = [merge for merge in optimizer.merges if any(merge.covers(place) for place in places)]
            invalid |= {merge.before[0][0] for merge in refused or optimizer.merges}

    def execute_commands(self, commands: list[Command], options: Options | None = None) -> Result:
        """Run commands that are syntax trees already."""
        *_, prepared = self._plan(commands, options or Options())
        assert prepared is not None
        return self.commit(prepared)

    def _plan(self, commands: list[Command], options: Options) -> Iterator[Prepared | None]:
        def reader(draft: Draft, command: Command) -> Any:
            return self._read(draft, command, options)

        try:
            for step in plan_steps(self.rules, commands, self.backend, client=options.client, reader=reader):
                if step is not None:
                    self.backend.judge(step.draft)
                problems = self.veto(step) if step is not None and self.veto is not None else []
                if problems:
                    yield Prepared(commands, options, problems=problems)
                elif step is not None:
                    if self._subscribers:
                        _ = step.events  # worked out here, where no packet waits
                    yield Prepared(commands, options, plan=step, answers=self._answers(step, options))
                else:
                    yield None
        except NftErrors as problem:
            yield Prepared(commands, options, problems=problem.errors)
        except NftError as problem:
            yield Prepared(commands, options, problems=[problem])
        except RecursionError:
            yield Prepared(commands, options, problems=[NftError("nested too deeply")])

    def commit(self, prepared: Prepared) -> Result:
        """Swap in what was prepared, tell the subscribers, and print the answers."""
        plan = prepared.plan
        if plan is not None and plan.base is not self.rules:
            *_, again = self._plan(prepared.commands, prepared.options)
            assert again is not None
            again.notes, again.document = prepared.notes, prepared.document
            prepared, plan = again, again.plan
        options = prepared.options
        if plan is None:
            return self._failed(prepared)
        result = Result(generation=plan.rules.generation)
        result.errors = prepared.notes + "".join(render(remark) + "\n" for remark in plan.draft.remarks)
        if not options.check:
            try:
                self._swap(plan)
            except NftError as problem:  # a device refused; nothing has changed
                prepared.problems = [problem]
                return self._failed(prepared)
        result.output = prepared.answers + self._echo(plan, options, prepared.document)
        if not options.check and plan.draft.changed:
            self._publish(plan, NewGeneration(plan.rules.generation, options.pid, options.process))
        return result

    def _failed(self, prepared: Prepared) -> Result:
        text = prepared.notes + "".join(render(problem) + "\n" for problem in prepared.problems)
        return Result(errors=text, status=1, generation=self.rules.generation, problems=prepared.problems)

    def _swap(self, plan: Plan) -> None:
        if plan.draft.changed:
            self.backend.commit(plan.draft)
            for overlay in plan.overlays:
                overlay.apply()
            self.rules = plan.rules
        for answer in plan.answers:
            if answer.command.op == "reset":
                self.backend.reset(plan.draft, answer.command)

    # --- answers

    def _read(self, draft: Draft, command: Command, options: Options) -> Listing:
        if command.op == "describe":
            from userfw.ruleset.describe import describe

            return Listing("text", text=describe(command))
        if command.op not in ("list", "get", "reset"):
            raise NftError(f"{command.op} is not supported here", command.loc)
        if command.obj == "hooks":
            from userfw.ruleset.hooks import hooks_text

            return Listing("text", text=hooks_text(draft.rules, self.backend, command))
        return Lister(draft, self._now(), options.terse).answer(command)

    def _answers(self, plan: Plan, options: Options) -> str:
        style = options.style(self.names)
        if options.json:
            from userfw.ruleset.output_json import answers_json

            return answers_json(plan, style)
        parts = [bytecode(plan)] if "netlink" in options.debug or "all" in options.debug else []
        return "".join([*parts, *(listing_text(answer.data, style) for answer in plan.answers)])

    def _echo(self, plan: Plan, options: Options, document: Any = None) -> str:
        if not options.echo or options.check or not plan.draft.changed:
            return ""
        if document is not None:
            from userfw.ruleset.output_json import annotated

            return annotated(document, plan)
        style = options.style(self.names)
        events = [event for event in plan.events if event.echoed]
        if not events:
            return ""
        if options.json:
            from userfw.ruleset.output_json import echo_json

            return echo_json(events, style, self._now())
        end = NewGeneration(plan.rules.generation, options.pid, options.process)
        return events_text(events, style, self._now()) + event_text(end, style)

    def weight(self) -> int:
        """How many rules and elements there are: what a listing may have to print."""
        tables = self.rules.tables.values()
        rules = sum(len(chain.rules) for table in tables for chain in table.chains.values())
        return rules + sum(len(entry.elements) for table in tables for entry in table.sets.values())

    @property
    def names(self) -> Any:
        """Names of interfaces, users, services for parsing and printing."""
        from userfw.nft.datatype import DEFAULT_NAMES

        return getattr(self.backend, "names", DEFAULT_NAMES)

    # --- clients

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call `subscriber` with the events of every commit; returns the function that ends it."""
        self._subscribers.append(subscriber)
        return lambda: self._subscribers.remove(subscriber)

    def watch(self, watcher: Callable[[], None]) -> None:
        """Call `watcher` after every commit that changed something."""
        self._watchers.append(watcher)

    def _publish(self, plan: Plan, end: NewGeneration) -> None:
        for watcher in self._watchers:
            watcher()
        if self._subscribers:
            events: list[Event | NewGeneration] = [*plan.events, end]
            for subscriber in list(self._subscribers):
                subscriber(events)

    def release(self, client: object) -> None:
        """A client is gone: its owned tables go too, or become orphans if they persist (Linux: nft_rcv_nl_event)."""
        draft = Draft(self.rules, self.backend, client)
        for table in list(self.rules.tables.values()):
            if table.owner is None or table.owner != client:
                continue
            if "persist" in table.flags:
                mine = draft.edit(table)
                mine.owner = None
                mine.flags = mine.flags - {"owner"}
            else:
                draft.delete_table(table)
        if draft.rules.tables == self.rules.tables:
            return
        draft.rules.generation += 1
        plan = Plan(self.rules, draft.rules, draft)
        self._swap(plan)
        self.rules = draft.rules
        if draft.changed:
            self._publish(plan, NewGeneration(draft.rules.generation, 0, ""))


LARGE = 1 << 16
"""Characters of input that make so many objects that looking for garbage among them would take half of the time."""


@contextlib.contextmanager
def _uncollected(large: bool) -> Iterator[None]:
    """No garbage collection meanwhile: what is made stays."""
    collecting = large and gc.isenabled()
    if collecting:
        gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _language(gateway: Gateway | None, conns: ConnTable | None, names: Names | None) -> Backend:
    from userfw.ruleset.language import LanguageBackend
    from userfw.ruleset.platform import PrivatePlatform

    if gateway is None:
        return LanguageBackend(PrivatePlatform(names) if names is not None else PrivatePlatform())
    from userfw.conntrack.table import ConnTable
    from userfw.ruleset.gateway_platform import GatewayPlatform

    return LanguageBackend(GatewayPlatform(gateway, conns or gateway.conntrack or ConnTable(gateway.clock), names=names))


def bytecode(plan: Plan) -> str:
    """What `--debug=netlink` shows: the expressions of new rules, or of all rules if none is new."""
    new = {id(event.node) for event in plan.draft.events if event.obj == "rule" and event.op != "delete"}
    lines: list[str] = []
    for table in plan.rules.tables.values():
        for chain in table.chains.values():
            for rule in chain.rules:
                if rule.program is not None and (id(rule) in new or not plan.draft.events):
                    where = f"{table.family} {table.name} {chain.name}" + ("" if new else f" {rule.handle}")
                    lines += [where, *(f"  {expr.render()}" for expr in rule.program.exprs), ""]
    return "".join(line + "\n" for line in lines)


def _no_time() -> int:
    return 0


def render(problem: NftError) -> str:
    """An error as nft prints it: what came from a command line has no file name in front."""
    text = problem.render()
    if problem.loc.known and problem.loc.source.name == "<cmdline>":
        prefix = f"{problem.loc}: "
        return text.removeprefix(prefix)
    return text
