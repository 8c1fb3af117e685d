"""The driver contract: a flow is a match and one list of actions; a device that can takes it off the host's hands.

Who calls what, and when:
- `OffloadManager` is the only caller. It calls from the daemon's one thread, between batches, and never from the packet path.
- `probe` is asked once for each device of a flowtable with `flags offload`, before the ruleset is committed: a `Refusal` refuses
  the ruleset with its words. It must leave nothing behind.
- `install` takes rules, both directions of a flow together, and returns at once. For each it calls `done(id, None)` when packets
  are handled by the device, or `done(id, failure)` when they will not be; at once or later, from the same thread (a driver
  with threads of its own hands over in `poll`). Until `done` the flow is handled in software; after a failure it stays there.
  A device that ages rules by itself says so in its capabilities and calls `done(id, Failure.IDLE)` later for each that it drops;
  the manager then removes the flow's rules, which gives their last totals, and offers it again when a packet of it comes.
- `remove` is synchronous: no packet that comes after its return is matched any more. It returns the last totals of what it took
  out, or None if it cannot. Removing what is pending or unknown is no error.
- `statistics` returns totals since installation, of all rules or of a part that moves on with each call; it is called every
  `interval` ns. A driver that cannot count returns nothing and says so in its capabilities.
- `poll` is called at least every 100 ms; it delivers completions, and `lost` when the device was reset or unplugged: the manager
  then treats every rule of it as gone.
- `set_filters` gives a device the whole list of its stateless filters, in order: the first that matches decides; flows come
  before them, as the flowtable does in software. It is all or nothing: after a refusal the list is as it was. `filter_statistics`
  gives their totals, also the last ones of a list that was replaced since.
- `release` is told that a device is no longer the gateway's: nothing of the driver may stay on it.
- `close` removes everything; a driver whose rules outlive the process (filters, pinned programs) also cleans up in `probe`.
  A device may be probed again afterwards.
- What a driver raises is a failure like others (userfw.offload.guarded): of `probe` a refusal, of `install` FAULT, of `statistics`
  and `poll` nothing read; after `remove` has raised the driver is closed, and its devices count as reset.
A device may only do what the rule says to exactly the packets that match. It hands up, untouched: TCP with FIN, RST or SYN set,
fragments, IPv4 options, IPv6 extension headers, TTL or hop limit 1, and packets longer than `Actions.mtu`.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field


class Failure(enum.Enum):
    """Why a rule is not in the device."""

    UNSUPPORTED = "the device cannot match or do this"
    FULL = "the device's table is full"
    GONE = "the device is gone"
    FAULT = "the device refused"
    IDLE = "the device drops what is idle"


@dataclass(frozen=True, slots=True)
class Match:
    """One direction of a flow as it arrives: exact in every field.

    `device` is the interface's name and `ifindex` its number where the driver works; addresses are 4 or 16 bytes in network
    order; `vlans` the tags, outermost first, as (EtherType, id). `ethernet`: the Ethernet destination of the frames where it is
    not the device's own address but that of the bridge whose port it is; empty otherwise. `zone` is the connection's, which rules
    gave it: for devices that track connections themselves; no field of a packet.
    """

    device: str
    ifindex: int
    protocol: int
    source: bytes
    destination: bytes
    source_port: int
    destination_port: int
    vlans: tuple[tuple[int, int], ...] = ()
    zone: int = 0
    ethernet: bytes = b""


@dataclass(frozen=True, slots=True)
class Actions:
    """All that happens to a matched packet: addresses and ports (the same ones if there is no NAT), TTL or hop limit less one,
    checksums corrected, tags taken off and put on, Ethernet addresses, out of `device`. `mtu`: bytes of the network layer."""

    device: str
    ifindex: int
    source: bytes
    destination: bytes
    source_port: int
    destination_port: int
    ethernet_source: bytes
    ethernet_destination: bytes
    vlans: tuple[tuple[int, int], ...] = ()
    mtu: int = 1500


@dataclass(frozen=True, slots=True)
class Rule:
    """A match and its actions under a number that the manager gives; never reused while the rule may be in a device."""

    id: int
    match: Match
    actions: Actions

    @property
    def translates(self) -> bool:
        """An address or a port changes."""
        match, actions = self.match, self.actions
        return (match.source, match.destination, match.source_port, match.destination_port) != (
            actions.source,
            actions.destination,
            actions.source_port,
            actions.destination_port,
        )


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a device can do. `families`: address lengths (4, 16); `nat`: those that it translates; `protocols`: IP protocol numbers;
    `capacity`: rules, 0 for no limit of its own; `counts`: statistics are real; `ages`: ns after which the device itself drops a
    rule that nothing matched, 0 if it never does; `where`: how the driver attaches, for people."""

    families: frozenset[int] = frozenset({4, 16})
    nat: frozenset[int] = frozenset({4, 16})
    protocols: frozenset[int] = frozenset({6, 17})
    vlans: bool = False
    capacity: int = 0
    counts: bool = True
    ages: int = 0
    where: str = ""

    def lacks(self, rule: Rule) -> str:
        """What of `rule` the device cannot do, in words; empty if it can do all."""
        size = len(rule.match.source)
        if size not in self.families:
            return f"{'IPv4' if size == 4 else 'IPv6'} matching"
        if rule.translates and size not in self.nat:
            return f"{'IPv4' if size == 4 else 'IPv6'} NAT"
        if rule.match.protocol not in self.protocols:
            return f"IP protocol {rule.match.protocol}"
        if (rule.match.vlans or rule.actions.vlans) and not self.vlans:
            return "VLAN tags"
        return ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A device cannot offload: the feature that is missing, in words that complete "device X cannot offload: …"."""

    reason: str


@dataclass(frozen=True, slots=True)
class Statistics:
    """Totals of one rule since it was installed, in 64 bits: a driver whose device counts in fewer makes up for their turning over.

    Totals below earlier ones count from there: the device has begun anew. `last_used` is of CLOCK_MONOTONIC, in nanoseconds; 0 if
    never, or if the device does not tell: what it has counted since the last reading it has counted now.
    """

    id: int
    packets: int
    bytes: int
    last_used: int


@dataclass(slots=True)
class Target:
    """A device as drivers see it: its name in the ruleset, and where it really is. `vlans`: there are VLAN devices on it; `tags`:
    what frames of the device that was asked for carry here, if that is one of them, outermost first."""

    name: str
    ifindex: int
    netns: str | None = None
    system_name: str = ""
    port: object = field(default=None, repr=False)
    vlans: bool = False
    tags: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class FieldMatch:
    """One field of a packet, `value` under `mask`, both in network order and as long as the field.

    `key`: eth_dst, eth_src, eth_type, vlan_id, protocol, ip_proto, ipv4_src, ipv4_dst, ipv6_src, ipv6_dst, tcp_sport, tcp_dport,
    udp_sport, udp_dport. `eth_type` is that of the frame, so of the outer tag if there is one; `protocol` is the EtherType behind
    one tag, or of the frame if it has none; `ip_proto` is that of the last header. Fragments have no ports.
    """

    key: str
    value: bytes
    mask: bytes

    @property
    def exact(self) -> bool:
        """Every bit counts."""
        return not self.mask.strip(b"\xff")


@dataclass(frozen=True, slots=True)
class Filter:
    """One rule of a netdev ingress chain with `flags offload`, for one device.

    `verdict`: accept (on to the host), drop, forward (out of `out`, with `tags` put on, outermost first), continue (with the next
    filter); `copies`: devices that get the packet as well. Devices are (name, ifindex). `id` is never reused.
    """

    id: int
    tests: tuple[FieldMatch, ...]
    verdict: str
    out: tuple[str, int] = ("", 0)
    copies: tuple[tuple[str, int], ...] = ()
    tags: tuple[tuple[int, int], ...] = ()


Done = Callable[[int, Failure | None], None]


class Driver(ABC):
    """Base of all drivers; the module's text is the contract. `name` is what `userfw offload` and the configuration call it.
    `rank`: of two drivers that could take a device, the one with the lower rank is asked first."""

    name = ""
    interval = 1_000_000_000
    rank = 50

    @abstractmethod
    def probe(self, target: Target) -> Capabilities | Refusal:
        """What `target` can do, or why it cannot offload."""

    @abstractmethod
    def install(self, rules: Sequence[Rule], done: Done) -> None:
        """Put rules into their devices; `done` is called once for each."""

    @abstractmethod
    def remove(self, ids: Iterable[int]) -> Iterable[Statistics] | None:
        """Take rules out before returning; their last totals."""

    @abstractmethod
    def statistics(self) -> Iterable[Statistics]:
        """Totals of the rules that are installed, in batches."""

    def explain(self, id: int) -> str:
        """Asked in each `done` that tells of a failure: more than the failure says, for people; empty if there is no more."""
        return ""

    def poll(self, now: int, lost: Callable[[str], None]) -> None:
        """Deliver completions that are due at `now` (ns); `lost(device name)` for a device that was reset or is gone."""
        return

    def describe(self, target: Target) -> dict[str, object]:
        """What people may want to know of a device beside its capabilities (why it is attached so, what the device counted)."""
        return {}

    def set_filters(self, target: Target, filters: Sequence[Filter]) -> tuple[int, str] | None:
        """Replace all stateless filters of a device; None, or which one it cannot take (its id, 0: none in particular) and why."""
        return (0, "the driver has no stateless filters") if filters else None

    def filter_statistics(self) -> Iterable[Statistics]:
        """Totals of every filter, by its id."""
        return ()

    def release(self, target: Target) -> None:
        """The gateway gives the device up; its rules are removed already."""
        return

    @abstractmethod
    def close(self) -> None:
        """Remove everything and detach; callable twice."""
