"""What the daemon does when interfaces change under its ports: up, down, MTU, address, deleted, made again.

Law: all of it runs in the loop's thread; the netlink thread (daemon.links) only hands over what it parsed.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
from typing import TYPE_CHECKING, Any

from userfw.daemon import portset, schema
from userfw.daemon.links import NetlinkThread
from userfw.daemon.portset import OpenPort
from userfw.ports._io import monotonic_ns
from userfw.ports.netlink import Link, Netlink

if TYPE_CHECKING:
    from userfw.daemon.server import Server

log = logging.getLogger("userfw")


class LinkFollower:
    """Follows the links of every namespace that a port of `server` lives in. `thread`: the netlink thread, for others too."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.thread = NetlinkThread(self._from_netlink)
        self.watched: dict[str, tuple[int, Netlink]] = {}

    def start(self) -> None:
        """Start the thread."""
        self.thread.start()

    def stop(self) -> None:
        """Stop the thread, if it runs."""
        if self.thread.thread is not None:
            self.thread.stop()

    def attach(self, opened: OpenPort) -> None:
        """A port came: follow its namespace, if that is not done yet."""
        if opened.link is not None and opened.config.netns not in self.watched:
            self.watch(opened.config.netns)

    def _from_netlink(self, tag: Any, items: list[Any] | None) -> None:
        """In the netlink thread: over to the loop."""
        if self.server.loop is not None:
            with contextlib.suppress(RuntimeError):
                self.server.loop.call_soon_threadsafe(self._netlink, tag, items)

    def _netlink(self, tag: Any, items: list[Any] | None) -> None:
        kind, netns, serial = tag
        if kind == "route":
            if self.server.mirror is not None and self.server.mirror.serial == serial:
                self.server.mirror.changed(items)
            return
        if self.watched.get(netns, (0, None))[0] != serial:
            return  # about a namespace that is no more
        if items is None:
            self._ask(netns)
            return
        self.server.clock.now = monotonic_ns()
        for link in items:
            self._follow(netns, link)
        self.server.arm()

    def watch(self, netns: str) -> None:
        """Follow the links of a namespace, from now on those of the one that has this name now."""
        serial, old = self.watched.pop(netns, (0, None))
        if old is not None:
            self.thread.unsubscribe(old)
        self.watched[netns] = (serial + 1, self.thread.watch_links(netns, serial + 1))

    def _ask(self, netns: str) -> None:
        """Every link of a namespace as it is now (some notifications may have been missed)."""
        netlink = Netlink(netns)
        try:
            links = netlink.links()
        finally:
            netlink.close()
        self.server.clock.now = monotonic_ns()
        for link in links:
            self._follow(netns, link)
        self.server.arm()

    def _follow(self, netns: str, link: Link) -> None:
        """The kernel's interface of a port changed: link, MTU and, where it is ours too, address."""
        for opened in self.server.ports.values():
            config = opened.config
            if config.netns != netns or config.device != link.name or opened.link is None:
                continue
            outside = config.type in schema.INTERFACE_TYPES
            if link.index != opened.link.index and (link.gone or not outside):
                continue  # the last of a device that was replaced
            device = opened.device
            up = link.up and not link.gone and (link.carrier or not outside)
            if device.up != up:
                log.info("port %s: link %s", opened.name, "up" if up else "down")
                self.server.gateway.set_up(device, up)
            for port in opened.queues:
                port.carrier = link.carrier and not link.gone
            if link.mtu and link.mtu != opened.link.mtu and not (outside and config.mtu):
                log.info("port %s: MTU %d", opened.name, link.mtu)
                self.server.gateway.set_mtu(device, min(link.mtu, 65535))
            if config.type == "xdp" and (link.gone or link.index != opened.link.index):
                for port in opened.queues:
                    port.dead = True  # opened again by the next housekeeping
                continue
            if outside and not link.gone:
                if config.mac is None and link.mac and link.mac != device.mac:
                    log.info("port %s: address %s", opened.name, link.mac.hex(":"))
                    self.server.gateway.set_mac(device, link.mac)
                if link.index != opened.link.index:
                    self._rebind(opened, link)
            if not link.gone:
                opened.link = link

    def capture(self, name: str) -> Any:
        """Have the frames of a packet port come by tc from now on; the new port. OSError, KeyError: nothing has changed."""
        upgrade = importlib.import_module("userfw_hw.bpf.capture").upgrade
        opened = self.server.ports[name]
        old: Any = opened.queues[0]
        if opened.link is None or len(opened.queues) != 1:
            raise OSError(95, f"port {name} is not one packet socket on an interface")
        port = upgrade(old, opened.link)
        self.server.poller.remove(old)
        opened.queues[0] = port
        opened.device.port = port
        self.server.poller.add(port)
        log.info("port %s: frames come by tc now, for hardware offload", name)
        return port

    def _rebind(self, opened: OpenPort, link: Link) -> None:
        """The interface was deleted and made again under the same name: bind the packet socket to the new one."""
        self.server.assembly.offload.lost(opened.name)
        if self.server.part is not None:
            opened.queues[0].dead = True  # a socket of a fanout group cannot be bound again: it is opened anew
            return
        try:
            opened.queues[0].rebind(link)  # type: ignore[attr-defined]
            opened.link = link
            opened.note()
            log.info("port %s: bound to the new %s", opened.name, link.name)
        except OSError as error:
            log.error("port %s: cannot bind to the new %s: %s", opened.name, link.name, error.strerror)

    def revive(self, opened: OpenPort) -> None:
        """Open a port again whose device, or whose namespace, was deleted; quietly tried each second until it works."""
        netns = opened.config.netns
        self.server.assembly.offload.lost(opened.name)
        for port in opened.queues:
            if port.fd >= 0:
                self.server.poller.remove(port)
        opened.close()
        if self.server.gateway.names.get(opened.device.name) is opened.device:
            self.server.gateway.set_up(opened.device, False)
        try:
            fresh = portset.open_port(opened.config, opened.device.index, None, self.server.part)
            self.server.plug(fresh)
        except portset.PortError as error:
            log.debug("%s", error)
            return
        opened.take_over(fresh)
        portset.agree_on_gro(self.server.ports.values())
        for port in opened.queues:
            self.server.poller.add(port)
        self.watch(netns)
        self.server.sync_local()
        self._ask(netns)
        log.info("port %s: %s was gone and is open again", opened.name, opened.config.device)
