"""The commands of the control socket: a name, the type of its arguments, a handler.

Other rooms add theirs with `@command`. Arguments are checked against the type before the handler runs; an unknown key or a wrong
type is refused with its path. A handler returns what becomes the JSON result, may send events on `stream`, and raises
CommandError for what cannot be done.
"""

from __future__ import annotations

import asyncio
import difflib
import gc
import inspect
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import msgspec

from userfw.daemon import interface
from userfw.daemon.control import CommandError, Stream
from userfw.daemon.packetlog import Listener

if TYPE_CHECKING:
    from userfw.daemon.server import Server
    from userfw.ruleset.manager import Prepared

Handler = Callable[["Server", Any, Stream], Any | Awaitable[Any]]


class NoArgs(msgspec.Struct, forbid_unknown_fields=True):
    """A command without arguments."""


REGISTRY: dict[str, tuple[type[msgspec.Struct], Handler]] = {}


def command(name: str, args: type[msgspec.Struct] = NoArgs) -> Callable[[Handler], Handler]:
    """Register a handler (a function or a coroutine function of server, args and stream) under `name`."""

    def register(handler: Handler) -> Handler:
        if name in REGISTRY:
            raise ValueError(f"command {name!r} is registered twice")
        REGISTRY[name] = (args, handler)
        return handler

    return register


async def dispatch(server: Server, name: str, raw: dict[str, Any], stream: Stream) -> Any:
    """Run command `name`. CommandError."""
    if name not in REGISTRY:
        close = difflib.get_close_matches(name, REGISTRY, 1)
        raise CommandError(f"no such command {name!r}" + (f"; did you mean {close[0]!r}?" if close else ""), "unknown")
    kind, handler = REGISTRY[name]
    try:
        args = msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        raise CommandError(f"{name}: {error}", "usage") from None
    result = handler(server, args, stream)
    if inspect.isawaitable(result):
        result = await result
    return result


# -- the daemon itself


@command("help")
def _help(server: Server, args: NoArgs, stream: Stream) -> Any:
    return {
        name: {field.name: str(field.type) for field in msgspec.structs.fields(kind)}
        for name, (kind, _) in sorted(REGISTRY.items())
        if not name.startswith("worker.")
    }


@command("status")
def _status(server: Server, args: NoArgs, stream: Stream) -> Any:
    return server.status()


@command("ping")
def _ping(server: Server, args: NoArgs, stream: Stream) -> Any:
    return {}


class OffloadArgs(msgspec.Struct, forbid_unknown_fields=True):
    """`flows`: also every flow of the offloaded tables."""

    flows: bool = False


@command("offload", OffloadArgs)
def _offload(server: Server, args: OffloadArgs, stream: Stream) -> Any:
    manager, hardware = server.assembly.offload, server.assembly.hardware
    hardware.count()
    more = {"rungs": server.assembly.rungs(), "filters": hardware.status(), "filters_dropped": hardware.dropped}
    return manager.status() | more | ({"list": manager.flows()} if args.flows else {})


class ResetArgs(msgspec.Struct, forbid_unknown_fields=True):
    """`nic`: a card of `[[nic]]`."""

    nic: str


@command("offload.reset", ResetArgs)
def _offload_reset(server: Server, args: ResetArgs, stream: Stream) -> Any:
    """A software card forgets everything, as after a firmware restart; to see what the daemon makes of it."""
    for card in server.assembly.nics:
        if card.label == args.nic:
            card.reset()
            return {}
    raise CommandError(f"no card {args.nic!r} in the configuration", "usage")


@command("ports")
def _ports(server: Server, args: NoArgs, stream: Stream) -> Any:
    found = []
    for name, opened in server.ports.items():
        device = opened.device
        found.append(
            {
                "name": name,
                "type": opened.config.type,
                "netns": opened.config.netns,
                "index": device.index,
                "up": bool(device.up),
                "mac": device.mac.hex(":"),
                "mtu": device.mtu,
                "addresses": [str(a) for a in opened.config.addresses],
                "rx_packets": device.rx_packets,
                "rx_bytes": device.rx_bytes,
                "rx_dropped": device.rx_dropped,
                "tx_packets": device.tx_packets,
                "tx_bytes": device.tx_bytes,
                "tx_dropped": device.tx_dropped,
                "queues": [port.info() for port in opened.queues],
                "ethtool": interface.described(opened.config, opened.link),
            }
        )
    return found


class DropsArgs(msgspec.Struct, forbid_unknown_fields=True):
    """`all`: also reasons that never occurred. `ports`: for each port."""

    all: bool = False
    ports: bool = False


@command("drops", DropsArgs)
def _drops(server: Server, args: DropsArgs, stream: Stream) -> Any:
    return server.assembly.drop_report(args.all, args.ports)


@command("reload")
def _reload(server: Server, args: NoArgs, stream: Stream) -> Any:
    server.reload()
    return {"config": server.config.path}


@command("stop")
async def _stop(server: Server, args: NoArgs, stream: Stream) -> Any:
    asyncio.get_running_loop().call_later(0.05, server.stopping.set)
    return {"stopping": True}


class NftArgs(msgspec.Struct, forbid_unknown_fields=True):
    """What `ruleset.service.NftService` takes: the text, nft's options, the files that the text includes."""

    text: str = ""
    options: dict[str, Any] = {}
    files: dict[str, Any] | None = None


@command("nft", NftArgs)
async def _nft(server: Server, args: NftArgs, stream: Stream) -> Any:
    message: dict[str, Any] = {"text": args.text, "options": args.options}
    if args.files is not None:
        message["files"] = args.files
    if not server.assembly.nft.heavy(message):
        return server.nft(message, stream.client)
    return finish(server, await prepare(server, message, stream.client))


RETRIES = 3
MANY_OBJECTS = 100_000
"""New objects that a collection of garbage takes tens of milliseconds to look at."""
_threads = ThreadPoolExecutor(1, thread_name_prefix="userfw-nft")


async def prepare(server: Server, message: dict[str, Any], client: Any) -> Prepared:
    """A transaction ready to be swapped in between two batches; a heavy one in a thread of its own while packets flow."""
    from userfw.ruleset.service import UsageError

    service = server.assembly.nft
    loop = asyncio.get_running_loop()
    try:
        if not service.heavy(message):
            return service.start(message, client)
        server.preparing += 1
        try:
            for _ in range(RETRIES):
                prepared = await loop.run_in_executor(_threads, service.start, message, client)
                if service.current(prepared):
                    break
        finally:
            server.preparing -= 1
        return prepared
    except UsageError as error:
        raise CommandError(str(error), "usage") from None


def finish(server: Server, prepared: Prepared) -> dict[str, Any]:
    """Swap between two batches; what the text was parsed to is taken apart in another thread."""
    from userfw.ruleset.burial import drain

    answer = server.assembly.nft.finish(prepared)
    if gc.get_count()[0] > MANY_OBJECTS:
        gc.freeze()  # they stay; to look for garbage among them would hold packets up
    asyncio.get_running_loop().run_in_executor(_threads, drain, prepared)
    return answer


class MonitorArgs(msgspec.Struct, forbid_unknown_fields=True):
    """`nft monitor`: which events, of which objects, printed how."""

    event: str | None = None
    objects: str | None = None
    options: dict[str, Any] = {}


@command("nft.monitor", MonitorArgs)
async def _nft_monitor(server: Server, args: MonitorArgs, stream: Stream) -> Any:
    from userfw.ruleset.service import UsageError

    message = {"event": args.event, "objects": args.objects, "options": args.options}
    try:
        end = server.assembly.nft.monitor(message, stream.send)
    except UsageError as error:
        raise CommandError(str(error), "usage") from None
    try:
        await asyncio.Future()
    finally:
        end()


class LogArgs(msgspec.Struct, forbid_unknown_fields=True):
    """`group`: an nflog group, or None for the system log's messages. `threshold`: messages that come together at least, unless a
    second passed; `snaplen`: bytes of each packet."""

    group: int | None = None
    threshold: int = 1
    snaplen: int = 65535


@command("log", LogArgs)
async def _log(server: Server, args: LogArgs, stream: Stream) -> Any:
    if args.group is not None and not 0 <= args.group <= 0xFFFF:
        raise CommandError("nflog groups are numbered 0 to 65535", "usage")

    def deliver(batch: list[dict[str, Any]]) -> None:
        for event in batch:
            stream.send(event)

    group = -1 if args.group is None else args.group
    end = server.packet_log.listen(Listener(group, deliver, args.threshold, args.snaplen))
    try:
        await asyncio.Future()
    finally:
        end()


@command("bridges")
def _bridges(server: Server, args: NoArgs, stream: Stream) -> Any:
    return [bridge.listing() for bridge in server.assembly.bridges.values()]


@command("neighbours")
def _neighbours(server: Server, args: NoArgs, stream: Stream) -> Any:
    return server.assembly.neighbours()
