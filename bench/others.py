"""Other user-space datapaths as routers of the laboratory: Open vSwitch's with conntrack and NAT, and pasta's.

Laws: each runs in namespaces, directories and with a database of its own, so that what the machine runs besides is not touched.
`missing()` says what is not installed.
"""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lab import netns
from lab.state import Conn
from lab.topology import Side, quiet

if TYPE_CHECKING:
    from lab.topology import Lab


class Process:
    """What both are: processes in the router's namespace that forward, and cannot be asked anything."""

    kind = "other"
    needs: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[bytes]] = []
        self.dir = Path()

    @classmethod
    def missing(cls) -> str:
        """What is not installed, or an empty string."""
        return ", ".join(name for name in cls.needs if shutil.which(name) is None)

    def prepare(self, lab: "Lab") -> None:
        """A directory of its own."""
        self.lab, self.ns = lab, lab.ns("rt")
        self.dir = Path(tempfile.mkdtemp(prefix=f"{lab.prefix}-"))

    def begin(self, *argv: str) -> "subprocess.Popen[bytes]":
        """Start a process in the router's namespace; it writes to a log of its own."""
        with (self.dir / f"{Path(argv[0]).name}.out").open("wb") as log:
            process = subprocess.Popen(netns.inside(self.ns, argv), stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.dir)
        self.processes.append(process)
        return process

    def stop(self) -> None:
        """End the processes, the last one first."""
        for process in reversed(self.processes):
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.clear()
        shutil.rmtree(self.dir, ignore_errors=True)

    def load(self, text: str) -> None:
        """It knows no nft."""
        raise NotImplementedError

    def nft(self, *args: str, text: str | None = None, check: bool = True) -> str:
        raise NotImplementedError

    def counters(self) -> dict[str, tuple[int, int]]:
        return {}

    def conns(self) -> list[Conn]:
        return []

    def forget(self) -> None:
        """Nothing is kept between two rounds: every round has a router of its own."""

    def sysctl(self, **values: int) -> None:
        raise NotImplementedError

    def log(self) -> str:
        return "\n".join(f"{path.name}:\n{path.read_text(errors='replace')[-2000:]}" for path in sorted(self.dir.glob("*.out")))


class OvsRouter(Process):
    """Open vSwitch with `datapath_type=netdev`: a router of OpenFlow rules with conntrack and source NAT, AF_PACKET on veths."""

    kind = "ovs"
    needs = ("ovs-vswitchd", "ovsdb-server", "ovsdb-tool", "ovs-vsctl", "ovs-ofctl")

    def start(self, lab: "Lab") -> None:
        """Database, switch, ports and flows. Hosts compute their checksums: this datapath does not complete partial ones."""
        self.prepare(lab)
        for side in lab.sides.values():
            netns.ip(self.ns, f"link add {side.name} address {side.router_mac} mtu {side.mtu} type veth "
                     f"peer name eth0 netns {lab.ns(side.name)}", f"link set {side.name} up")
            for where, name in ((self.ns, side.name), (lab.ns(side.name), "eth0")):
                quiet(where, name)
        schema = next(path for path in map(Path, ("/usr/share/openvswitch/vswitch.ovsschema",
                                                  "/usr/local/share/openvswitch/vswitch.ovsschema")) if path.exists())
        netns.run(["ovsdb-tool", "create", str(self.dir / "conf.db"), str(schema)])
        self.db = f"unix:{self.dir}/db.sock"
        self.begin("ovsdb-server", str(self.dir / "conf.db"), f"--remote=p{self.db}", f"--unixctl={self.dir}/server.ctl")
        self._until(lambda: (self.dir / "db.sock").exists())
        netns.run(["ovs-vsctl", f"--db={self.db}", "--no-wait", "init"])
        self.vswitchd = self.begin("env", f"OVS_RUNDIR={self.dir}", "ovs-vswitchd", self.db, f"--unixctl={self.dir}/switch.ctl")
        ports = [word for number, name in enumerate(lab.sides, 1)
                 for word in ("--", "add-port", "br0", name, "--", "set", "Interface", name, f"ofport_request={number}")]
        netns.run(["ovs-vsctl", f"--db={self.db}", "--timeout=20", "add-br", "br0", "--", "set", "bridge", "br0",
                   "datapath_type=netdev", "fail-mode=secure", *ports])
        self._until(lambda: (self.dir / "br0.mgmt").exists())
        flows = "\n".join(self._flows(lab.sides["lan"], 1, lab.sides["wan"], list(lab.sides).index("wan") + 1))
        netns.run(["ovs-ofctl", "-O", "OpenFlow13", "add-flows", f"unix:{self.dir}/br0.mgmt", "-"], text=flows)

    def _until(self, done: Callable[[], object]) -> None:
        deadline = time.monotonic() + 20
        while not done():
            if time.monotonic() > deadline:
                raise AssertionError(f"Open vSwitch does not start\n{self.log()}")
            time.sleep(0.02)

    def _flows(self, lan: Side, one: int, wan: Side, other: int) -> list[str]:
        lines = ["table=0,priority=0,actions=drop", "table=1,priority=0,actions=drop"]
        for side, port in ((lan, one), (wan, other)):
            mac = side.router_mac.replace(":", "")
            number = "".join(f"{int(part):02x}" for part in side.ip4(1).split("."))
            lines += [
                f"table=0,priority=10,in_port={port},arp,arp_op=1,arp_tpa={side.ip4(1)},actions=move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[],"
                f"mod_dl_src:{side.router_mac},load:2->NXM_OF_ARP_OP[],move:NXM_NX_ARP_SHA[]->NXM_NX_ARP_THA[],"
                f"move:NXM_OF_ARP_SPA[]->NXM_OF_ARP_TPA[],load:0x{mac}->NXM_NX_ARP_SHA[],load:0x{number}->NXM_OF_ARP_SPA[],in_port",
                f"table=0,priority=5,in_port={port},ip,actions=ct(table=1,zone=1,nat)",
            ]
        out = f"dec_ttl,mod_dl_src:{wan.router_mac},mod_dl_dst:{wan.host_mac},output:{other}"
        back = f"dec_ttl,mod_dl_src:{lan.router_mac},mod_dl_dst:{lan.host_mac},output:{one}"
        return [*lines,
                f"table=1,in_port={one},ip,ct_state=+trk+new,actions=ct(commit,zone=1,nat(src={wan.ip4(1)})),{out}",
                f"table=1,in_port={one},ip,ct_state=+trk+est,actions={out}",
                f"table=1,in_port={other},ip,ct_state=+trk+est,actions={back}",
                f"table=1,in_port={other},ip,ct_state=+trk+rel,actions={back}"]


class PastaRouter(Process):
    """pasta: the TCP of a namespace, `lan`, made sockets of another, the router's, which wan is on."""

    kind = "pasta"
    needs = ("pasta",)

    def start(self, lab: "Lab") -> None:
        """A veth to wan, and pasta's TAP device as lan's eth0."""
        self.prepare(lab)
        lan, wan = lab.sides["lan"], lab.sides["wan"]
        netns.ip(self.ns, f"link add wan address {wan.router_mac} mtu {wan.mtu} type veth peer name eth0 netns {lab.ns('wan')}",
                 f"addr add {wan.ip4(1)}/24 dev wan", "link set wan up", f"route add default via {wan.ip4(254)} dev wan onlink")
        self.begin("pasta", "--foreground", "--quiet", "--ipv4-only", "--runas", "0", "--ns-ifname", "eth0", "--mtu", "65520",
                   "--address", lan.ip4(), "--netmask", "24", "--gateway", lan.ip4(1), "--interface", "wan",
                   "--outbound-if4", "wan", "--no-dhcp",
                   "--no-dhcpv6", "--no-ndp", "--no-ra", "--tcp-ports", "none", "--udp-ports", "none",
                   "--netns", str(netns.RUN / lab.ns("lan")))
        deadline = time.monotonic() + 5
        while netns.run(["ip", "link", "show", "eth0"], ns=lab.ns("lan"), check=False).returncode:
            if time.monotonic() > deadline:
                raise AssertionError(f"pasta does not start\n{self.log()}")
            time.sleep(0.02)
