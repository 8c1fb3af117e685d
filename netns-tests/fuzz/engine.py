"""userfw's engine as a target of the differential test: a gateway of its own for every case, on memory ports and a manual clock.

Laws
- The same addresses, routes, neighbours and MTUs as the laboratory's; rates of ICMP errors unlimited, as there.
- Its random numbers depend on the ruleset (and `salt`) only, so a case does the same each time.
- The clock moves by a millisecond with every exchange, so no timeout and no bucket of the generator's rules is reached.
- An exception inside the gateway is a finding: it is raised.
"""

import random
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from typing import Any
from zlib import crc32

from lab.families import EVERY
from lab.frames import mac
from lab.kernel import BRIDGE, BRIDGE_MAC
from lab.state import Conn, conns_from_text
from lab.topology import SIDES, Out

from userfw.conntrack.listing import Dump, line
from userfw.conntrack.table import ConnTable
from userfw.core.clock import Clock
from userfw.core.const import ARPHRD_NONE, IPPROTO_UDP, NFPROTO_IPV6
from userfw.core.packet import Device, Packet
from userfw.engine.services import SocketInfo
from userfw.ports.memory import MemoryPort
from userfw.ports.sockdiag import Found
from userfw.router.bridge import Bridge
from userfw.router.gateway import Gateway
from userfw.router.inspect import ipv6_local_headers
from userfw.router.interfaces import parse_address
from userfw.ruleset.gateway_platform import GatewayPlatform
from userfw.ruleset.manager import RulesetManager
from userfw.ruleset.options import Options

from . import pools
from .raw import RawBackend
from .traffic import framed, own_talk

MILLISECOND = 1_000_000
UNLIMITED = 1 << 30


class Listener:
    """What the laboratory's router listens to (see pools.LISTENED), for userfw to find (router.sockets.Provider)."""

    def find(self, proto: int, local: bytes, port: int, _remote: bytes, _remote_port: int) -> Found | None:
        if proto != IPPROTO_UDP or port != pools.LISTENED:
            return None
        return Found(state=7, local=bytes(len(local)), uid=0, inode=1, mark=0, transparent=True, cgroup=0, classid=0)

    def group_of(self, _inode: int) -> int:
        return 0

    def ancestors(self, _cgroup: int) -> list[int]:
        return []

    def redirect(self, _flow: object, _to: bytes, _port: int) -> bool:
        return True

    def settle(self, _flow: object) -> None:
        pass

    def close(self) -> None:
        pass


class Listening(Gateway):
    """A gateway with that socket."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.sockets.provider = Listener()

    def deliver(self, pkt: Packet) -> int:
        if pkt.l4proto != IPPROTO_UDP or not pkt.has_l4 or not (isinstance(pkt.extra, SocketInfo) or (
                pkt.l4 + 8 <= pkt.end and pkt.get16(pkt.l4 + 2) == pools.LISTENED)):
            return int(super().deliver(pkt))
        wrong = ipv6_local_headers(self, pkt, True) if pkt.nfproto == NFPROTO_IPV6 and pkt.l4 - pkt.l3 > 40 else 0
        return int(self.drop(pkt, wrong)) if wrong else 0


class EngineTarget:
    """Runs cases through a private gateway."""

    name = "userfw"
    salt = 0

    def refusals(self, groups: list[list[str]]) -> dict[int, str]:
        """See probe.Engine. Each group gets a table of its own."""
        left, found = list(range(len(groups))), dict[int, str]()
        while left:
            owners = [at for at in left for _ in groups[at]]
            text = "\n".join(line.replace(" probe ", f" probe{at} ", 1) if " probe " in line else f"{line}{at}"
                             for at in left for line in groups[at])
            result = self.rules.execute(text, Options(check=True))
            new = {owners[problem.loc.line - 1]: problem.message for problem in result.problems}
            if not new:
                break
            found.update(new)
            left = [at for at in left if at not in new]
        return found

    def load(self, text: str) -> bool:
        """See Target."""
        self.faults: list[BaseException] = []
        self.clock = Clock(10**15)
        rng = random.Random(crc32(text.encode()) + self.salt)
        self.gateway = Listening(self.clock, rng, fault=lambda error, where: self.faults.append(error))
        settings = self.gateway.settings
        settings.icmp_ratelimit = settings.icmp6_ratelimit = 0
        settings.icmp_msgs_per_sec = settings.icmp_msgs_burst = UNLIMITED
        self.gateway.ip_id = 0x2000 + rng.randrange(0x8000)  # far from those that hosts and rules know
        self.ports: dict[str, MemoryPort] = {}
        self.host = MemoryPort(Device("host", 100, b"", type=ARPHRD_NONE))
        over = Device(BRIDGE, len(EVERY) + 2, mac(BRIDGE_MAC))
        self.bridge = Bridge(self.gateway, over)
        self._add(over)
        for index, (name, side) in enumerate(EVERY.items(), 2):
            device = Device(name, index, mac(side.router_mac), side.mtu)
            device.kind = "veth"
            self.ports[name] = MemoryPort(device)
            self._add(device)
            if name not in SIDES:
                self.bridge.add_port(device)
                device = over
            for address, bits in ((side.ip4(1), 24), (side.ip6(1), 64)):
                self.gateway.add_address(device, parse_address(f"{address}/{bits}"))
            for number in (*pools.HOSTS, 77, 78, 254):
                for family, address in ((2, side.ip4(number)), (10, side.ip6(number))):
                    high, low = divmod(int(ip_address(address)), 1 << 64)
                    self.gateway.neighbours.set_static(device, family, high, low, mac(side.host_mac))
        wan = SIDES["wan"]
        self.gateway.add_route("0.0.0.0/0", via=wan.ip4(254), dev="wan")
        self.gateway.add_route("::/0", via=wan.ip6(254), dev="wan")
        self.rules = RulesetManager(backend=RawBackend(GatewayPlatform(self.gateway, ConnTable(self.clock, rng=rng))))
        result = self.rules.execute(text)
        self.errors = result.errors
        return not result.status  # a warning is no refusal

    def _add(self, device: Device) -> None:
        """A device without the addresses of the link, of which the laboratory's router has none."""
        self.gateway.add_device(device)
        for own in [one for one in device.addresses if one.family == 10]:
            self.gateway.remove_address(device, own)

    def exchange(self, port: str, packets: Sequence[bytes]) -> list[Out]:
        """See Target."""
        self.clock.now += MILLISECOND
        self.gateway.local_device = self.host.device if port == pools.SELF else None
        for packet in packets:
            frame = packet if port == pools.SELF else framed(EVERY[port], packet)
            self.gateway.receive((self.host if port == pools.SELF else self.ports[port]).inject(frame))
            self.gateway.end_batch()
        self.gateway.tick(self.clock.now)
        self.gateway.end_batch()
        if self.faults:
            raise self.faults[0]
        return [Out(name, frame) for name, memory in self.ports.items() for frame in memory.take()
                if not own_talk(name, frame)]

    def leave(self) -> None:
        """See Target: the next case has a gateway of its own."""

    def listing(self) -> str:
        """See Target."""
        return self.rules.execute("list ruleset").output

    def base_chains(self) -> Iterator[Any]:
        """The engine's own base chains, for the ledger."""
        for table in self.rules.rules.tables.values():
            for chain in table.base_chains():
                yield chain.base

    def conns(self) -> list[Conn]:
        """See Target."""
        table = Dump(self.gateway.conntrack)
        text = "\n".join(line(conn, self.clock.now, family=True) for conn in table)
        return conns_from_text(text.replace(" dccp ", " unknown "))  # conntrack-tools have a name for it, the kernel's list has not
