"""Where `log` statements go: the daemon's own log, clients of `log`, nflog groups with their packets (Linux: nfnetlink_log.c).

Laws:
- Without a group: a line as the kernel writes it. A flood costs a bounded number of lines a second (RATE, with a burst); what was
  left out is told in the next line.
- With a group: to its listeners only, not bounded here. A listener gets messages in batches of its threshold, which a rule's
  queue-threshold can only lower, or after FLUSH_SECONDS; the packet is cut at the rule's snaplen or the listener's.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable
from typing import Any

from userfw.core.clock import Clock
from userfw.core.const import NFPROTO_BRIDGE, NFPROTO_NETDEV, NSEC_PER_SEC
from userfw.core.packet import Packet
from userfw.daemon.logtext import LOG_UID, Owner, audit, describe, link_header

log = logging.getLogger("userfw.rules")

RATE = 200
BURST = 1000
DEFAULT_LEVEL = 4
AUDIT = 8
LEVELS = (50, 50, 50, 40, 30, 20, 20, 10, 20)  # emerg … debug, audit
FLUSH_SECONDS = 1.0  # Linux: NFULNL_TIMEOUT_DEFAULT
MAX_SNAPLEN = 65535

Event = dict[str, Any]
Later = Callable[[float, Callable[[], None]], Any]


class Listener:
    """Who hears one group, or (`group` -1) the lines of the system log. `deliver` is called with each batch."""

    def __init__(self, group: int, deliver: Callable[[list[Event]], None], threshold: int = 1, snaplen: int = MAX_SNAPLEN) -> None:
        self.group = group
        self.deliver = deliver
        self.threshold = max(1, threshold)
        self.snaplen = snaplen or MAX_SNAPLEN
        self.waiting: list[Event] = []
        self.timer: Any = None
        self.sequence = 0

    def take(self, event: Event, threshold: int, later: Later | None) -> None:
        """One message; `threshold` of the rule, 0 if it has none."""
        self.sequence += 1
        self.waiting.append({**event, "seq": self.sequence - 1})
        if len(self.waiting) >= min(self.threshold, threshold or self.threshold):
            self.flush()
        elif self.timer is None and later is not None:
            self.timer = later(FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        """Deliver what waits."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        batch, self.waiting = self.waiting, []
        if batch:
            self.deliver(batch)


class PacketLog:
    """The sink. `owner_of`: uid and gid of the socket that sent a packet; `later`: calls after seconds, for batches.

    `suppressed`: lines left out since the last one; `lines`: lines written; `groups`: messages to each nflog group.
    """

    def __init__(self, clock: Clock, owner_of: Callable[[Packet], Owner] | None = None, later: Later | None = None) -> None:
        self.clock = clock
        self.owner_of = owner_of
        self.later = later
        self.listeners: list[Listener] = []
        self.tokens = BURST * NSEC_PER_SEC
        self.last = 0
        self.suppressed = 0
        self.lines = 0
        self.groups: dict[int, int] = {}

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Add a listener; what is returned removes it."""
        self.listeners.append(listener)

        def end() -> None:
            listener.flush()
            self.listeners.remove(listener)

        return end

    def __call__(self, pkt: Packet, hook: int, family: int, request: Any) -> int:
        """One log statement (engine.services.Services.log)."""
        group = int(request.group)
        if group < 0:
            self._line(pkt, hook, family, request)
            return 0
        self.groups[group] = self.groups.get(group, 0) + 1
        listeners = [listener for listener in self.listeners if listener.group == group]
        if listeners:
            event = self._event(pkt, hook, family, request, describe(pkt))
            for listener in listeners:
                listener.take(self._cut(event, pkt, request, listener), int(request.qthreshold), self.later)
        return 0

    def _line(self, pkt: Packet, hook: int, family: int, request: Any) -> None:
        if not self._allowed():
            self.suppressed += 1
            return
        if request.level == AUDIT:
            text = f"audit: NETFILTER_PKT {audit(pkt)}"
        else:
            owner = self.owner_of(pkt) if self.owner_of is not None and request.flags & LOG_UID else None
            text = describe(pkt, int(request.flags), owner)
        self.lines += 1
        if self.suppressed:
            log.warning("%d log messages suppressed", self.suppressed)
            self.suppressed = 0
        level = request.level if request.level >= 0 else DEFAULT_LEVEL
        log.log(LEVELS[level], "%s", request.prefix + text)
        listeners = [listener for listener in self.listeners if listener.group < 0]
        if listeners:
            event = {**self._event(pkt, hook, family, request, text), "level": level}
            for listener in listeners:
                listener.take(event, 0, self.later)

    def _event(self, pkt: Packet, hook: int, family: int, request: Any, text: str) -> Event:
        event: Event = {
            "text": request.prefix + text, "prefix": request.prefix, "group": int(request.group), "hook": hook,
            "family": int(pkt.nfproto) if family not in (NFPROTO_BRIDGE, NFPROTO_NETDEV) else family, "protocol": int(pkt.protocol),
            "mark": int(pkt.mark), "time": round(self.clock.now / NSEC_PER_SEC + self.clock.wall_offset, 6),
        }  # fmt: skip
        for name, device in (("iif", pkt.iif), ("oif", pkt.oif)):
            if device is not None:
                event[name] = device.name
                event[name + "index"] = int(device.index)
        head = link_header(pkt)
        if head:
            event["link"] = head.hex()
        owner = self.owner_of(pkt) if self.owner_of is not None and pkt.iif is None else None
        if owner is not None:
            event["uid"], event["gid"] = owner
        return event

    def _cut(self, event: Event, pkt: Packet, request: Any, listener: Listener) -> Event:
        """With the packet's bytes, as many as rule and listener want."""
        size = min(request.snaplen or MAX_SNAPLEN, listener.snaplen)
        data = bytes(pkt.data[pkt.l3 : min(pkt.end, pkt.l3 + size)])
        return {**event, "packet": base64.b64encode(data).decode(), "length": int(pkt.end - pkt.l3)}

    def _allowed(self) -> bool:
        elapsed = self.clock.now - self.last
        self.last = self.clock.now
        self.tokens = min(BURST * NSEC_PER_SEC, self.tokens + elapsed * RATE)
        if self.tokens < NSEC_PER_SEC:
            return False
        self.tokens -= NSEC_PER_SEC
        return True
