"""Following the kernel's interfaces: link, MTU and address changes of every namespace that a port lives in.

One thread waits on netlink sockets and hands what it parsed to the event loop; it touches no state of the engine.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import threading
from collections.abc import Callable
from typing import Any

from userfw.ports.netlink import RTMGRP_LINK, Netlink, messages_untrusted, parse_link_untrusted

log = logging.getLogger("userfw.links")

Parser = Callable[[int, bytes], Any]


class NetlinkThread:
    """Subscriptions, each a netlink socket with a parser; `deliver(tag, items)` is called in the thread, once per datagram.

    Items are what the parser returned; None in their place means the kernel dropped notifications (ENOBUFS): ask anew.
    """

    def __init__(self, deliver: Callable[[Any, list[Any] | None], None]) -> None:
        self.deliver = deliver
        self.selector = selectors.DefaultSelector()
        self.wake_read, self.wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.selector.register(self.wake_read, selectors.EVENT_READ, None)
        self.lock = threading.Lock()
        self.thread: threading.Thread | None = None

    def subscribe(self, tag: Any, netns: str, groups: int, parser: Parser) -> Netlink:
        """Listen in `netns`; the socket is returned so that it can be unsubscribed."""
        netlink = Netlink(netns, groups)
        netlink.sock.setblocking(False)
        with self.lock:
            self.selector.register(netlink.sock, selectors.EVENT_READ, (tag, netlink, parser))
        self._wake()
        return netlink

    def watch_links(self, netns: str, serial: int) -> Netlink:
        """Link changes of a namespace, delivered with tag ("link", netns, serial)."""
        return self.subscribe(("link", netns, serial), netns, RTMGRP_LINK, parse_link_untrusted)

    def unsubscribe(self, netlink: Netlink) -> None:
        """Stop listening and close."""
        with self.lock, contextlib.suppress(KeyError, ValueError):
            self.selector.unregister(netlink.sock)
        netlink.close()

    def start(self) -> None:
        """Start the thread."""
        self.thread = threading.Thread(target=self._run, name="netlink", daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """End the thread and close every socket."""
        thread, self.thread = self.thread, None
        if thread is not None:
            self._wake()
            thread.join()
        for key in list((self.selector.get_map() or {}).values()):
            if key.data is not None:
                key.data[1].close()
        self.selector.close()
        os.close(self.wake_read)
        os.close(self.wake_write)

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self.wake_write, b"x")

    def _run(self) -> None:
        while self.thread is not None:
            for key, _ in self.selector.select():
                if key.data is None:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self.wake_read, 4096)
                else:
                    self._receive(*key.data)

    def _receive(self, tag: Any, netlink: Netlink, parser: Parser) -> None:
        try:
            data = netlink.sock.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno == 105:  # ENOBUFS: notifications were lost
                self.deliver(tag, None)
            elif netlink.sock.fileno() >= 0:
                log.warning("netlink: %s", error)
            return
        items = [item for kind, _, body in messages_untrusted(data) if (item := parser(kind, body)) is not None]
        if items:
            self.deliver(tag, items)
