"""The other side of the comparison: a rule's text through userfw, run on the same frame in the same surroundings.

Everything of userfw that the comparison needs is imported here and nowhere else.
"""

from __future__ import annotations

from random import Random
from typing import Any

from oracle_surroundings import Connection, Dev, Flow, Surroundings

from userfw.conntrack.conn import Conn, Tuple
from userfw.conntrack.table import ConnTable
from userfw.core.clock import Clock
from userfw.core.const import CT_ESTABLISHED, CT_INVALID, CT_NEW, CT_RELATED, CT_UNTRACKED
from userfw.core.packet import Device, Packet
from userfw.engine.expressions.counter import Counter
from userfw.engine.services import FibResult, RouteInfo, Services, SocketInfo
from userfw.nat.mapping import Nat
from userfw.nft.datatype import Names
from userfw.ruleset import compile as hooks
from userfw.ruleset.language import LanguageBackend
from userfw.ruleset.manager import RulesetManager
from userfw.ruleset.platform import PrivatePlatform
from userfw.wire.parse import parse_untrusted

NAMES = Names()
NAMES.utc_offset = 7200  # the corpus is made with TZ=UTC-2
STATES = {"new": CT_NEW, "established": CT_ESTABLISHED, "related": CT_RELATED, "untracked": CT_UNTRACKED, "invalid": CT_INVALID}
VERDICTS = {0: "drop", 1: "accept", 2: "stolen", 3: "queue", -5: "next"}
TAKES = {"stolen": 2, "drop": 0, "accept": 1}
FAMILY_IP = 2


class RecordingNat(Nat):
    """Writes down which mapping was asked for."""

    effects: list[tuple[Any, ...]]

    def setup(self, pkt: Packet, conn: Conn, within: Any, manip: int) -> int:
        addresses: tuple[bytes, ...] = ()
        if within.flags & 1:
            if pkt.nfproto == FAMILY_IP:
                addresses = (within.min_lo.to_bytes(4, "big"), within.max_lo.to_bytes(4, "big"))
            else:
                addresses = (_wide(within.min_hi, within.min_lo), _wide(within.max_hi, within.max_lo))
        ports = (within.min_port, within.max_port) if within.flags & 2 else (0, 0)
        self.effects.append(("dnat" if manip else "snat", addresses, ports, within.flags))
        return 1

    def masquerade(self, pkt: Packet, conn: Conn, within: Any) -> int:
        self.effects.append(("masq", (within.min_port, within.max_port) if within.flags & 2 else (0, 0), within.flags))
        return 1

    def redirect(self, pkt: Packet, conn: Conn, within: Any, hook: int) -> int:
        self.effects.append(("redir", (within.min_port, within.max_port) if within.flags & 2 else (0, 0), within.flags))
        return 1


def _wide(hi: int, lo: int) -> bytes:
    return (hi << 64 | lo).to_bytes(16, "big")


class Recorder(Services):
    """Answers from the surroundings of the packet; what it is asked to do goes to `effects`."""

    def __init__(self) -> None:
        super().__init__(Clock(0, 0.0))
        self.effects: list[tuple[Any, ...]] = []
        self.world: Surroundings | None = None
        self.devices: dict[int, Device] = {}
        self.conntrack = ConnTable(self.clock, rng=Random(1))
        self.nat = RecordingNat(self.conntrack)
        self.nat.effects = self.effects

    def now(self) -> Surroundings:
        assert self.world is not None
        return self.world

    def random(self) -> int:
        return self.now().draws.pop(0)

    def device_by_index(self, index: int) -> Device | None:  # type: ignore[override]
        return self.devices.get(index)

    def device_by_name(self, ifname: bytes) -> Device | None:  # type: ignore[override]
        return next((d for d in self.devices.values() if d.ifname == ifname), None)

    def fib(self, pkt: Packet, family: int, address: int, source: int, device: Any, mark: int, result: FibResult) -> bool:
        answer = self.now().fib
        if answer is None:
            result.type, result.oif = 0, None
            return False
        result.type, result.oif = answer[0], self.device(answer[1])
        return True

    def route_info(self, pkt: Packet) -> RouteInfo | None:  # type: ignore[override]
        route = self.now().route
        if route is None:
            return None
        info = RouteInfo()
        info.family, info.nexthop, info.classid, info.mtu = pkt.nfproto, route.nexthop, route.realm, route.mtu
        info.ipsec = route.ipsec
        return info

    def socket(self, pkt: Packet) -> SocketInfo | None:  # type: ignore[override]
        sock = self.now().sock
        if sock is None:
            return None
        info = SocketInfo()
        info.transparent, info.wildcard, info.mark, info.uid, info.gid = (
            sock.transparent, sock.wildcard, sock.mark, sock.uid, sock.gid,
        )  # fmt: skip
        info.established = sock.established
        return info

    def send_reject(self, pkt: Packet, hook: int, family: int, type: int, code: int) -> int:
        self.effects.append(("reject", type, 0 if type == 1 else code))
        return 0

    def send_duplicate(self, pkt: Packet, hook: int, family: int, gateway: Any, device: Any) -> int:
        self.effects.append(("dup", gateway or b"", device.name if device is not None else ""))
        return 0

    def forward_device(self, pkt: Packet, device: Device) -> int:
        self.effects.append(("fwd", device.name))
        return TAKES[self.now().takes]

    def forward_neighbour(self, pkt: Packet, device: Device, family: int, nexthop: bytes) -> int:
        self.effects.append(("fwd", device.name, nexthop))
        return TAKES[self.now().takes]

    def log(self, pkt: Packet, hook: int, family: int, request: Any) -> int:
        self.effects.append(("log", " ".join(request.operands().split())))
        return 0

    def tproxy(self, pkt: Packet, family: int, address: Any, port: int) -> int:
        self.effects.append(("tproxy", address or b"", port))
        return int(self.now().tproxied)

    def synproxy(self, pkt: Packet, hook: int, mss: int, wscale: int, flags: int) -> int:
        self.effects.append(("synproxy", mss, wscale))
        return TAKES[self.now().takes]

    def broute(self, pkt: Packet, on: bool) -> int:
        self.effects.append(("broute", on))
        return 0

    def device(self, dev: Dev | None) -> Device | None:
        """The engine's device for one of the surroundings."""
        if dev is None:
            return None
        made = Device(dev.name, dev.index, dev.mac, type=dev.type)
        made.group, made.kind = dev.group, dev.kind
        made.master = self.device(dev.master)
        return made

    def enter(self, world: Surroundings) -> None:
        """The next packet's surroundings."""
        self.world = world
        self.effects.clear()
        self.clock.now = world.now
        self.clock.wall_offset = world.wall / 1e9
        self.cpu, self.cgroup = world.cpu, world.cgroup
        self.devices = {dev.index: made for dev in reversed(world.devices) if (made := self.device(dev)) is not None}


class Platform(PrivatePlatform):
    """A ruleset's surroundings that no gateway is behind, but a recorder."""

    def __init__(self) -> None:
        super().__init__(NAMES)
        self.recorder = Recorder()
        self.services = self.recorder
        self.clock = self.services.clock
        self.conns = self.services.conntrack


class EngineSide:
    """The tables of a test file in userfw, and packets through one rule of theirs."""

    def __init__(self) -> None:
        self.platform = Platform()
        self.services = self.platform.recorder
        self.manager = RulesetManager(backend=LanguageBackend(self.platform))

    def run(self, text: str) -> str:
        """Commands; the first line of what went wrong, or nothing."""
        return self.manager.execute(text).errors.split("\n")[0]

    def enter(self, world: Surroundings) -> None:
        self.services.enter(world)

    def packet(self, frame: bytes, link: bool, world: Surroundings) -> Packet | None:
        """The parsed packet, or None if it would not have come so far."""
        pkt = Packet()
        pkt.load_frame(frame)
        iif = self.services.device(world.iif)
        pkt.iif = None if link else Device("tun", 99, type=65534)
        if parse_untrusted(pkt):
            return None
        pkt.iif, pkt.oif = iif, self.services.device(world.oif)
        pkt.mark, pkt.priority, pkt.secmark, pkt.pkttype = world.mark, world.priority, world.secmark, world.pkttype
        pkt.ctinfo = STATES[world.state]
        if world.ct is not None:
            pkt.ct, pkt.ctdir = self._conn(world.ct, world.now), int(world.reply)
        return pkt

    def _conn(self, have: Connection, now: int) -> Conn:
        conn = self.services.conntrack.template(have.zone, have.zone_directions)
        _tuple(conn.orig, have.original, have)
        _tuple(conn.reply, have.reply, have)
        conn.status, conn.mark, conn.secmark, conn.id = have.status, have.mark, have.secmark, have.id
        conn.timeout = now + have.expires * 1_000_000
        conn.labels_lo, conn.labels_hi = (int.from_bytes(have.labels[i : i + 8], "little") for i in (0, 8))
        conn.packets, conn.bytes = list(have.packets), list(have.octets)
        if have.helper:
            conn.master = self.services.conntrack.template(0, 3)
            conn.master.helper = _Helper(have.helper)
        return conn

    def evaluate(self, family: str, table: str, chain: str, hook: str, pkt: Packet) -> str:
        """The verdict of the chain's rules on a packet whose surroundings were entered."""
        found = self.manager.rules.tables[family, table].chains[chain]
        ctx = found.base.ctx
        ctx.begin(pkt, hooks.HOOK_NUMBERS[family][hook])
        ctx.chain = found.engine
        code = found.engine.run(ctx, pkt, 0)
        ctx.end(pkt)
        if code == 3:
            self.services.effects.append(("queue", ctx.queue, bool(ctx.queue_flags & 1)))
        return VERDICTS[code]

    def counters(self, family: str, table: str, chain: str) -> list[list[int]]:
        """Packets and bytes of the rule's counters."""
        rule = self.manager.rules.tables[family, table].chains[chain].rules[0]
        return [[expr.packets, expr.bytes] for expr in rule.program.exprs if isinstance(expr, Counter)]

    def objects(self, family: str, table: str) -> list[list[int]]:
        """Packets and bytes of the named counters."""
        found = self.manager.rules.tables[family, table].objects.values()
        return [[e.packets, e.bytes] for entry in found if isinstance(e := entry.engine.expr, Counter)]

    def elements(self, family: str, table: str, name: str) -> set[tuple[bytes, bytes | None]]:
        """Keys and data that a set holds."""
        entry = self.manager.rules.tables[family, table].sets[name]
        return {(element.key or b"", element.data) for element in entry.engine}

    def sizes(self, family: str, table: str, name: str) -> tuple[int, int]:
        entry = self.manager.rules.tables[family, table].sets[name]
        return entry.engine.klen, entry.engine.dlen


class _Helper:
    def __init__(self, name: str) -> None:
        self.name = name


def _tuple(node: Tuple, flow: Flow, have: Connection) -> None:
    node.l3num, node.l4proto = have.l3, have.l4
    node.sport, node.dport = flow.sport, flow.dport
    for name, address in (("src", flow.src), ("dst", flow.dst)):
        number = int.from_bytes(address, "big")
        setattr(node, f"{name}_hi", number >> 64)
        setattr(node, f"{name}_lo", number & (1 << 64) - 1)


def connection_state(pkt: Packet) -> tuple[Any, ...]:
    """What a rule can change of a connection: mark, secmark, labels, events."""
    conn = pkt.ct
    if conn is None or conn.status & 2048:
        return ()
    labels = conn.labels_lo.to_bytes(8, "little") + conn.labels_hi.to_bytes(8, "little")
    return conn.mark, conn.secmark, labels, (conn.ext or {}).get("event_mask")


def zone_of(pkt: Packet) -> tuple[Any, ...] | None:
    """The zone that a rule chose for a packet without a connection."""
    conn = pkt.ct
    return ("zone", conn.zone, conn.zone_dir) if conn is not None and conn.status & 2048 else None
