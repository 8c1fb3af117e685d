"""The daemon: one event loop that owns all engine state, and what stands around it.

Laws:
- Only the loop's thread touches the gateway, conntrack and rules. The netlink thread hands over parsed facts.
- The packet loop runs in slices of SLICE_NS, so a command waits for a few milliseconds at most, under any load.
- The clock is set before anything that looks at it: batches, timers, commands.
- What is on the packet path makes no garbage; the collector is off and run by hand in quiet moments.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import logging
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import cython  # type: ignore[import-untyped, unused-ignore]

import userfw
from userfw.core import packet as _packet
from userfw.core.clock import Clock
from userfw.core.packet import Device, Packet
from userfw.daemon import config as configuration
from userfw.daemon import connections as _connections  # noqa: F401 (registers its commands)
from userfw.daemon import leftovers, schema, sysctl
from userfw.daemon import metrics as _metrics  # noqa: F401 (registers its command)
from userfw.daemon.apply import ApplyError, apply
from userfw.daemon.assembly import Assembly
from userfw.daemon.captures import Captures
from userfw.daemon.commands import dispatch
from userfw.daemon.control import CommandError, ControlServer
from userfw.daemon.follow import LinkFollower
from userfw.daemon.lock import Lock, LockedError
from userfw.daemon.mirror import RouteMirror
from userfw.daemon.packetlog import PacketLog
from userfw.daemon.poller import Poller
from userfw.daemon.portset import FIRST_INDEX, OpenPort, addresses_of, store_name
from userfw.daemon.queues import QueueService
from userfw.daemon.systemd import Notifier, passed_descriptors
from userfw.daemon.worker import Membership, Part
from userfw.ports._io import monotonic_ns
from userfw.ports.netlink import Netlink
from userfw.router.gateway import Gateway
from userfw.ruleset.service import UsageError

log = logging.getLogger("userfw")

SLICE_NS = 2_000_000
ARM_SECONDS = 0.005
OFFER_SECONDS = 0.002  # from a flow's being ready to its being offered to a device
SWITCH_SECONDS = 0.0005  # how long another thread may keep the interpreter from the packet loop
QUIET_PACKETS = 1000  # fewer than this in a second: a moment to collect garbage


class StartError(Exception):
    """Why the daemon could not start."""


def compiled() -> bool:
    """Whether the packet path is compiled."""
    return not str(getattr(_packet, "__file__", "")).endswith(".py")


class Server:
    """Everything that runs in one daemon."""

    def __init__(self, config: schema.Config, rng: random.Random | None = None, part: Part | None = None) -> None:
        self.config = schema.Config(path=config.path)
        self.wanted = config
        self.rng = rng if rng is not None else random.Random(os.urandom(32))
        self.clock = Clock(monotonic_ns(), time.time() - monotonic_ns() / 1e9)
        self.assembly: Assembly = Assembly(self.clock, self.rng, self._fault)
        self.assembly.offload.wake = self._offload_soon
        self.offering = False
        self.gateway: Gateway = self.assembly.gateway
        self.part = part
        self.member = Membership(part, self.assembly) if part is not None else None
        entrance = self.member.entrance if self.member is not None else self.gateway
        daemon = config.daemon
        self.poller = Poller(self.clock, entrance, daemon.batch, daemon.busy_poll_us * 1000, self.assembly.conntrack.stats)
        self.ports: dict[str, OpenPort] = {}
        self.default_sysctls: dict[str, int] = {}
        self.loaded_ruleset: tuple[str, str] | None = None
        self.stored = passed_descriptors() if part is None else {}
        self.notifier = Notifier(None if part is None else {})
        self.previous = self.config
        self.control = ControlServer(self._dispatch, self._client_gone)
        self.links = LinkFollower(self)
        self.assembly.capture = self.links.capture
        self.nics: dict[str, Any] = {}
        self.mirror: RouteMirror | None = None
        self.started = time.time()
        self.stopping = asyncio.Event()
        self.preparing = 0  # large transactions that are being made in another thread
        self.timer: asyncio.TimerHandle | None = None
        self.timer_at = 0
        self.arming = False
        self.loop: asyncio.AbstractEventLoop | None = None
        self.lock = Lock()
        self.running = False
        self.housekeeping: list[Callable[[], None]] = []
        self.saving: asyncio.Future[None] | None = None
        self.packet_log = PacketLog(self.clock, self._owner_of, self._later)
        self.captures = Captures(self.packet_log)
        self.gateway.on_log = self.packet_log
        self.queues = QueueService(self)

    # -- life

    async def run(self, ready: Callable[[], None]) -> None:
        """Start, serve until told to stop, stop cleanly. StartError if it cannot start."""
        self.loop = asyncio.get_running_loop()
        await self.start()
        try:
            self.notifier.ready(f"forwarding between {len(self.ports)} ports")
            ready()
            log.info("ready: %d ports, %s", len(self.ports), "compiled" if compiled() else "INTERPRETED (slow: no compiled build)")
            await self.stopping.wait()
        finally:
            await self.stop()

    async def start(self) -> None:
        """Lock, control socket, ports, rules; nothing is left behind if one fails."""
        assert self.loop is not None
        daemon = self.wanted.daemon
        try:
            if self.member is None:
                self.lock.take(daemon)
                await self.control.start(daemon.control, daemon.control_mode, daemon.control_group)
                await self.queues.start(daemon.queue_socket or f"{daemon.control}.queue", daemon.control_mode, daemon.control_group)
            else:
                self._join(self.member)
            self.links.start()
            if self.part is None or self.part.index == 0:
                leftovers.sweep()
            self.clock.now = monotonic_ns()
            apply(self, self.config, self.wanted)
            self.config = self.wanted
            self.assembly.restore(self.config)
        except (ApplyError, LockedError, OSError, LookupError) as error:
            await self.stop()
            if isinstance(error, OSError) and error.filename:
                raise StartError(f"{error.filename}: {error.strerror}") from error
            raise StartError(str(error)) from error
        except BaseException:
            await self.stop()
            raise
        self.assembly.on_event = self.arm
        self.running = True
        for name in self.stored:
            self.notifier.forget(name)
            os.close(self.stored[name])
        self.stored.clear()
        self._collect_by_hand()
        sys.setswitchinterval(SWITCH_SECONDS)
        self.loop.add_reader(self.poller.readiness.fd, self._on_ready)
        if self.member is None:
            for number in (signal.SIGTERM, signal.SIGINT):
                self.loop.add_signal_handler(number, self.stopping.set)
            self.loop.add_signal_handler(signal.SIGHUP, self._reload_on_signal)
        self._housekeep_later(0, 0.0)
        self._sweep()
        self._offload()
        self.arm()

    async def stop(self) -> None:
        """Stop forwarding, save the state, close everything; safe at any point of a start."""
        self.notifier.stopping()
        if self.loop is not None:
            self.loop.remove_reader(self.poller.readiness.fd)
        if self.timer is not None:
            self.timer.cancel()
        if self.saving is not None:
            self.saving.cancel()
        if self.running:
            for step in self.assembly.save(self.config):
                if step is not None:
                    with contextlib.suppress(OSError):
                        step()
        self.assembly.close()
        self.captures.configure({})
        await self.queues.close()
        await self.control.close()
        self.links.stop()
        for opened in list(self.ports.values()):
            for port in opened.queues:
                with contextlib.suppress(OSError):
                    self.poller.remove(port)
            opened.close()
        self.ports.clear()
        self.poller.close()
        self.lock.release()

    def _join(self, member: Membership) -> None:
        """Be one of several: the others' messages are read like packets."""
        self.poller.add(member.port)
        self.housekeeping.append(member.strays.sweep)
        self.housekeeping.append(member.sweep)
        if member.part.index:
            self.assembly.connections_file = f"connections-{member.part.index}.msgpack"

    # -- the packet loop and its timers

    def _on_ready(self) -> None:
        self.poller.run(SLICE_NS)
        self.arm_soon()

    def arm_soon(self) -> None:
        """Packets were handled: look for new deadlines in a while."""
        if not self.arming:
            self.arming = True
            self.loop.call_later(ARM_SECONDS, self._arm_soon)  # type: ignore[union-attr]

    def _arm_soon(self) -> None:
        """Deadlines that packets set are looked for a little later, so that a busy loop does not ask at each wake-up."""
        self.arming = False
        self.arm()

    def arm(self) -> None:
        """Have the earliest deadline's timer run; called after everything that may have set one."""
        deadline = self.assembly.next_deadline()
        if not deadline or (self.timer is not None and self.timer_at <= deadline):
            return
        if self.timer is not None:
            self.timer.cancel()
        assert self.loop is not None
        self.timer_at = deadline
        self.timer = self.loop.call_later(max(0.0, (deadline - monotonic_ns()) / 1e9), self._on_timer)

    def _on_timer(self) -> None:
        self.timer = None
        self.clock.now = monotonic_ns()
        try:
            self.assembly.tick(self.clock.now)
        except Exception as error:
            self._fault(error, "timer")
        self.arm()

    def _owner_of(self, pkt: Packet) -> tuple[int, int] | None:
        """User and group of the socket behind the local port that sent a packet (`log flags skuid`)."""
        found = self.gateway.sockets.find(pkt) if pkt.iif is None else None
        if found is None or found.uid < 0:
            return None
        if found.gid < 0 and found.group_of is not None:
            found.gid = found.group_of()
        return int(found.uid), max(0, int(found.gid))

    def _later(self, seconds: float, action: Callable[[], None]) -> asyncio.TimerHandle:
        assert self.loop is not None
        return self.loop.call_later(seconds, action)

    def _fault(self, error: BaseException, where: str) -> None:
        """The first exception of each kind on the packet path; later ones are only counted."""
        log.error("a fault in userfw (%s): %s; the packet is dropped as INTERNAL_ERROR", where, error, exc_info=error)

    # -- housekeeping

    def _collect_by_hand(self) -> None:
        gc.collect()
        gc.freeze()
        gc.disable()

    def _housekeep_later(self, packets: int, saved: float) -> None:
        assert self.loop is not None
        self.loop.call_later(1.0, self._housekeep, packets, saved)

    def _housekeep(self, packets: int, saved: float) -> None:
        """Once a second: watchdog, clock drift, garbage in quiet moments, saving the state."""
        if self.stopping.is_set():
            return
        self.notifier.alive()
        self.clock.now = monotonic_ns()
        self.clock.wall_offset = time.time() - monotonic_ns() / 1e9
        quiet = self.poller.packets - packets < QUIET_PACKETS
        counts = gc.get_count() if not self.preparing else (0, 0, 0)
        if quiet and counts[0] > 2000:
            gc.collect(1)
        elif counts[0] > 200_000:
            gc.collect(0)
        for opened in list(self.ports.values()):
            if not opened.lost():
                opened.missed = 0
            elif self.part is not None and opened.missed < self.part.index:
                opened.missed += 1  # in the order of the workers, which numbers their queues
            else:
                self.links.revive(opened)
        for job in self.housekeeping:
            job()
        now = time.monotonic()
        if self.config.daemon.save_interval and now - saved >= self.config.daemon.save_interval:
            if saved and (self.saving is None or self.saving.done()):
                self.saving = asyncio.ensure_future(self._save())
            saved = now
        self._housekeep_later(self.poller.packets, saved)

    async def _save(self) -> None:
        """Save the state while packets flow: a short step at a time, the disk in another thread."""
        assert self.loop is not None
        for step in self.assembly.save(self.config):
            if step is None:
                await asyncio.sleep(0)
                continue
            try:
                await self.loop.run_in_executor(None, step)
            except OSError as error:
                log.error("state not saved: %s", error)

    def _sweep(self) -> None:
        """Four times a second: flowtables and sets with timeouts."""
        if self.stopping.is_set() or self.loop is None:
            return
        self.clock.now = monotonic_ns()
        try:
            self.assembly.sweep()
        except Exception as error:
            self._fault(error, "sweep")
        self.loop.call_later(0.25, self._sweep)

    def _offload(self) -> None:
        """Ten times a second: completions of offload drivers, flows that wait, counters."""
        if self.stopping.is_set() or self.loop is None:
            return
        self._offload_now()
        self.loop.call_later(0.1, self._offload)

    def _offload_soon(self) -> None:
        """A flow is ready for a device: look at it between the next batches."""
        if not self.offering and self.loop is not None:
            self.offering = True
            self.loop.call_later(OFFER_SECONDS, self._offload_now)

    def _offload_now(self) -> None:
        self.offering = False
        self.clock.now = monotonic_ns()
        try:
            self.assembly.offload.tick(self.clock.now)
            self.assembly.hardware.tick(self.clock.now)
        except Exception as error:
            self._fault(error, "offload")

    # -- what `apply` calls

    def next_index(self) -> int:
        """An interface index that no device has."""
        index = FIRST_INDEX
        while index in self.gateway.devices:
            index += 1
        return index

    def make_nics(self, wanted: list[schema.Nic]) -> None:
        """The software cards of the configuration, by port. ValueError without the package that has them."""
        self.nics.clear()
        if not wanted:
            return
        try:
            mock = importlib.import_module("userfw_hw.mock")
        except ImportError as error:
            raise ValueError(f"nic: the package userfw_hw is needed: {error}") from None
        for nic in wanted:
            times = {name: getattr(nic, name) for name in ("latency", "counter_delay", "idle")}
            card = mock.open_card(
                self.clock, nic.name, nic.profile, capacity=nic.capacity, fail=nic.fail,
                **{name: int(value * 1e9) if value is not None else None for name, value in times.items()},
            )  # fmt: skip
            for port in nic.ports:
                self.nics[port] = card
        self.assembly.nics = list({id(card): card for card in self.nics.values()}.values())

    def plug(self, opened: OpenPort) -> None:
        """Put the software card between a port that is one of its own and the host."""
        card = self.nics.get(opened.name)
        if card is not None:
            opened.queues = [card.attach(opened.device, port) for port in opened.queues]

    def attach(self, opened: OpenPort) -> None:
        """Forward with this port from now on."""
        self.assembly.add_port(opened.device, opened.config.type, opened.device.port)
        for port in opened.queues:
            self.poller.add(port)
        self.ports[opened.name] = opened
        self.links.attach(opened)
        if opened.config.type in ("tap", "tun"):
            for port in opened.queues:
                name = store_name(opened.config, port.queue)
                self.notifier.forget(name)
                self.notifier.store(name, port.fd)

    def detach(self, opened: OpenPort, close: bool) -> None:
        """Stop forwarding with this port; with `close`, its descriptors go too."""
        for port in opened.queues:
            self.poller.remove(port)
        self.assembly.remove_port(opened.device)
        self.ports.pop(opened.name, None)
        if close:
            opened.close()

    def release(self, opened: OpenPort) -> None:
        """The end of a port that was detached."""
        for port in opened.queues:
            self.notifier.forget(store_name(opened.config, port.queue))
        opened.close()

    def set_mtu(self, opened: OpenPort, mtu: int) -> None:
        """The MTU of a port, on the kernel's side of a TAP too."""
        self.gateway.set_mtu(opened.device, mtu)
        if opened.link is not None and opened.config.type in ("tap", "tun"):
            netlink = Netlink(opened.config.netns)
            try:
                netlink.set_link(opened.link.index, mtu=mtu)
            finally:
                netlink.close()

    def set_advertisement(self, device: Device, ra: schema.Advertisement | None) -> None:
        """Router advertisements of a device as configured, or none."""
        if self.part is None or self.part.index == 0:  # one voice
            self.assembly.set_advertisement(device, ra)

    def get_sysctl(self, name: str) -> int:
        """The present value of a setting."""
        return sysctl.get(self.gateway.settings, self.assembly.conntrack_settings, name)

    def put_sysctl(self, name: str, value: int) -> None:
        """Change a setting."""
        sysctl.put(self.gateway.settings, self.assembly.conntrack_settings, name, value)

    def has_route(self, route: schema.Route) -> bool:
        """Whether a configured route is in the table."""
        return self.assembly.has_route(route)

    def add_route(self, route: schema.Route) -> None:
        """Add a configured route. ValueError."""
        self.assembly.add_route(route)

    def remove_route(self, route: schema.Route) -> None:
        """Remove a configured route; nothing if it is gone with its device."""
        self.assembly.remove_route(route)

    def tune(self, daemon: schema.Daemon) -> None:
        """Put in force what may change while running."""
        logging.getLogger().setLevel(schema.LOG_LEVELS[daemon.log_level])
        self.poller.batch = daemon.batch
        self.poller.busy_ns = daemon.busy_poll_us * 1000

    def set_mirror(self, config: schema.Mirror | None) -> None:
        """Mirror another kernel table, or none. OSError, and nothing is mirrored."""
        if self.mirror is not None:
            self.mirror.close()
            self.mirror = None
        if config is not None:
            self.mirror = RouteMirror(self, config)

    def sync_local(self) -> None:
        """Give the kernel's side of TUN ports the gateway's addresses, so that services there answer to them."""
        for opened in self.ports.values():
            if opened.config.type == "tun" and opened.config.device_addresses is None:
                try:
                    opened.carry(addresses_of(self.config_addresses()))
                except OSError as error:
                    log.error("port %s: addresses of %s: %s", opened.name, opened.config.device, error.strerror)

    def config_addresses(self) -> list[schema.Interface]:
        """Every address of the gateway."""
        found = []
        for opened in self.ports.values():
            found += opened.config.addresses
            found += [address for vlan in opened.config.vlan for address in vlan.addresses]
        for bridge in self.assembly.bridge_configs.values():
            found += bridge.addresses
        return found

    # -- reload

    def reload(self) -> None:
        """Read the file again and go over to it. CommandError, and nothing has changed."""
        self.notifier.reloading()
        try:
            new = configuration.load(self.config.path, sysctl.NAMES)
            self.clock.now = monotonic_ns()
            apply(self, self.config, new)
        except (configuration.ConfigError, ApplyError) as error:
            log.error("reload refused, nothing was changed: %s", error)
            raise CommandError(str(error), "refused") from error
        finally:
            self.notifier.ready(f"forwarding between {len(self.ports)} ports")
        self.previous, self.config = self.config, new
        self.arm()
        log.info("reloaded %s", new.path)

    def revert(self) -> None:
        """Back to the configuration before the last reload."""
        self.clock.now = monotonic_ns()
        apply(self, self.config, self.previous)
        self.config = self.previous
        self.arm()

    def _reload_on_signal(self) -> None:
        with contextlib.suppress(CommandError):
            self.reload()

    # -- commands

    async def dispatch(self, command: str, args: dict[str, Any], stream: Any) -> Any:
        """Run a command of the control socket, or of the front. CommandError."""
        return await self._dispatch(command, args, stream)

    async def _dispatch(self, command: str, args: dict[str, Any], stream: Any) -> Any:
        self.clock.now = monotonic_ns()
        try:
            return await dispatch(self, command, args, stream)
        finally:
            self.arm()

    def nft(self, message: dict[str, Any], client: Any) -> dict[str, Any]:
        """Run nft commands. CommandError for a message that is none; wrong rules are in the answer."""
        try:
            return self.assembly.nft.execute(message, client)
        except UsageError as error:
            raise CommandError(str(error), "usage") from None

    def _client_gone(self, client: Any) -> None:
        """Tables that the client owned go with it."""
        self.assembly.rules.release(client)

    # -- facts

    def status(self) -> dict[str, Any]:
        """What `userfw status` shows."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "version": userfw.__version__,
            "compiled": compiled(),
            "cython": getattr(cython, "__version__", ""),
            "pid": os.getpid(),
            "uptime": round(time.time() - self.started, 3),
            "config": self.config.path,
            "ports": len(self.ports),
            "packets": self.poller.packets,
            "loop": {
                "batches": self.poller.batches,
                "wakeups": self.poller.wakeups,
                "longest_slice_ms": round(self.poller.longest_ns / 1e6, 3),
            },
            "memory_kb": usage.ru_maxrss,
            "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 3),
            **({"worker": self.member.status()} if self.member is not None else {}),
            **self.assembly.status(),
        }
