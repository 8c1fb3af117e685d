"""One of several workers: a whole daemon with queues of its own, which obeys the front process (docs/workers.md).

The commands `worker.*` are for the front only. Laws: a transaction is prepared by every worker before any commits it; what a
worker owns is told by `conntrack.steer`; a worker whose front is gone ends.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import signal
import socket
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from userfw.daemon import schema
from userfw.daemon.commands import NoArgs, command, finish, prepare
from userfw.daemon.control import MAX_LINE, Client, CommandError, Stream
from userfw.daemon.handover import Entrance, Handover, HandoverPort
from userfw.daemon.strays import Roaming, Strays
from userfw.engine.shared import Pool
from userfw.nft.location import NftError
from userfw.nft.rule_pattern import PatternedRule
from userfw.nft.syntax import CtHelperBody, QueueStmt, TproxyStmt
from userfw.ruleset.share import needed

if TYPE_CHECKING:
    from userfw.daemon.assembly import Assembly
    from userfw.daemon.server import Server
    from userfw.ruleset.manager import Prepared
    from userfw.ruleset.transaction import Plan

SINGLE = {
    QueueStmt: "queue needs workers = 1: a queue's program talks to one process",
    TproxyStmt: "tproxy needs workers = 1: one process redirects what comes for a host's sockets",
}
ALONE = {"pptp": "its tunnels carry no ports, so their owner cannot be told"}


@dataclass
class Part:
    """What makes a daemon one of several: `index` of `count`; `control`: to the front; `inbox`: messages of other workers;
    `outboxes`: where to write to each worker (-1: itself); `group`: number of the packet sockets' fanout, less the interface's;
    `shared`: memory that all workers have, for limits and the like."""

    index: int
    count: int
    control: socket.socket
    inbox: int
    outboxes: list[int]
    group: int
    shared: Any = None


class Membership:
    """What a worker has and a single daemon has not: handing over, news, and the transaction that waits for the others."""

    def __init__(self, part: Part, assembly: Assembly) -> None:
        self.part = part
        self.steering = Roaming(part.index, part.count)
        table = assembly.conntrack
        table.steering = self.steering
        table.last_id, table.id_step = part.index, part.count
        self.handover = Handover(assembly.gateway, table, self.steering, part.outboxes, part.inbox)
        self.strays = Strays(self.handover, self.steering)
        self.port = HandoverPort(self.handover)
        self.entrance = Entrance(self.handover)
        self.prepared: Prepared | None = None
        assembly.platform.steer = (self.handover.pieces, self.handover)
        assembly.rules.veto = self.veto
        if part.shared is not None:
            assembly.platform.pool = Pool(part.shared)
        self.counted = assembly.platform.counted
        self.clock = assembly.clock
        self.pool = assembly.platform.pool

    def veto(self, plan: Plan) -> list[NftError]:
        """What stands against a transaction here that one process would take."""
        problems = veto(plan)
        if self.pool is not None and (more := needed(plan.draft)) > self.pool.slots - self.pool.used():
            problems.append(NftError(f"the workers cannot share {more} limits, quotas and ct counts more"))
        return problems

    def sweep(self) -> None:
        """Let connections that are over leave the counts of all workers."""
        self.counted.sweep(self.clock.now)

    def status(self) -> dict[str, Any]:
        """What `userfw status` shows of the handing over."""
        return {
            "handed_over": self.handover.given,
            "taken_over": self.handover.taken,
            "copied": self.handover.copies,
            "lost": self.handover.lost,
            "claims": len(self.handover.claims),
        }


def veto(plan: Plan) -> list[NftError]:
    """What several workers cannot do right, and would do wrong in silence."""
    problems = []
    for table in plan.rules.tables.values():
        for entry in table.objects.values():
            body = entry.node.body
            if isinstance(body, CtHelperBody) and body.helper in ALONE:
                problems.append(NftError(f"helper {body.helper} needs workers = 1: {ALONE[body.helper]}", entry.node.loc))
        for chain in table.chains.values():
            if "offload" in chain.node.flags:
                problems.append(NftError("flags offload needs workers = 1", chain.node.loc))
            for rule in chain.rules:
                if isinstance(rule.node, PatternedRule):
                    continue  # these have no such statements
                for kind, reason in SINGLE.items():
                    if any(isinstance(stmt, kind) for stmt in rule.node.stmts):
                        problems.append(NftError(reason, rule.loc))
        for flowtable in table.flowtables.values():
            if "offload" in flowtable.node.flags:
                problems.append(NftError("flags offload needs workers = 1", flowtable.node.loc))
    return problems


# -- the process


def main(config: schema.Config, part: Part) -> int:
    """A worker's life, from the front's word on. Exit code: 0 told to stop, 1 could not start."""
    _libc = ctypes.CDLL(None)
    _libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: no worker without a front
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # they go to the whole group; the front decides
    for handler in logging.getLogger().handlers:
        handler.addFilter(partial(_named, part.index))
    import uvloop

    from userfw.daemon import server as _server  # noqa: F401 (while others start)

    if part.control.recv(1) != b"g":
        return 0
    part.control.setblocking(False)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_live(config, part))


def _named(index: int, record: logging.LogRecord) -> bool:
    """Log lines say which worker speaks."""
    record.name = f"{record.name}[{index}]"
    return True


async def _live(config: schema.Config, part: Part) -> int:
    from userfw.daemon.server import Server, StartError

    server = Server(config, part=part)
    reader, writer = await asyncio.open_unix_connection(sock=part.control, limit=MAX_LINE)
    client = Client(reader, writer, server.dispatch, most=1 << 20)
    serving: list[asyncio.Task[None]] = []

    def ready() -> None:
        serving.append(asyncio.ensure_future(client.serve()))
        serving[0].add_done_callback(lambda task: server.stopping.set())

    try:
        await server.run(ready)
    except StartError as error:
        client.write({"id": 0, "error": {"code": "refused", "message": str(error)}})
        await writer.drain()
        writer.close()
        return 1
    return 0


# -- commands of the front


class PrepareArgs(msgspec.Struct, forbid_unknown_fields=True):
    """As `nft`, and whose tables of flag `owner` are meant."""

    text: str = ""
    options: dict[str, Any] = {}
    files: dict[str, Any] | None = None
    client: int = 0


def _member(server: Server) -> Membership:
    if server.member is None:
        raise CommandError("this daemon is no worker")
    return server.member


@command("worker.prepare", PrepareArgs)
async def _prepare(server: Server, args: PrepareArgs, stream: Stream) -> Any:
    """The answer if all is well with this worker; nothing is changed yet."""
    message: dict[str, Any] = {"text": args.text, "options": args.options}
    if args.files is not None:
        message["files"] = args.files
    member = _member(server)
    member.prepared = await prepare(server, message, args.client)
    problems = member.prepared.problems
    return {"ok": member.prepared.plan is not None, "errors": len(problems)}


@command("worker.commit")
def _commit(server: Server, args: NoArgs, stream: Stream) -> Any:
    """Swap in what was prepared, and its answer; of a refused one, the errors."""
    member = _member(server)
    if member.prepared is None:
        raise CommandError("nothing is prepared")
    prepared, member.prepared = member.prepared, None
    return finish(server, prepared)


@command("worker.abort")
def _abort(server: Server, args: NoArgs, stream: Stream) -> Any:
    """Forget what was prepared."""
    _member(server).prepared = None
    return {}


class GoneArgs(msgspec.Struct, forbid_unknown_fields=True):
    """`client`: the number of a client of the front's that left."""

    client: int


@command("worker.gone", GoneArgs)
def _gone(server: Server, args: GoneArgs, stream: Stream) -> Any:
    server.assembly.rules.release(args.client)
    return {}


@command("worker.take")
def _take(server: Server, args: NoArgs, stream: Stream) -> Any:
    """Every counter's packets and bytes, in the order of the ruleset, which start from zero afterwards."""
    from userfw.daemon.counters import take

    return take(server.assembly.rules.rules)


class AddArgs(msgspec.Struct, forbid_unknown_fields=True):
    """What `worker.take` of another worker answered."""

    generation: int
    counters: list[tuple[int, int]]
    elements: list[tuple[int, str, str, int, int]]


@command("worker.add", AddArgs)
def _add(server: Server, args: AddArgs, stream: Stream) -> Any:
    """Count what another worker counted."""
    from userfw.daemon.counters import add

    return {"added": add(server.assembly.rules.rules, args.generation, args.counters, args.elements)}


@command("worker.revert")
def _revert(server: Server, args: NoArgs, stream: Stream) -> Any:
    """Back to the configuration before the last reload: another worker refused it."""
    server.revert()
    return {}
