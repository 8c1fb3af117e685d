"""The router `userfw`: the daemon in a namespace, TAP ports to lan, dmz and wan, a packet socket on a veth to edge.

Laws
- The daemon runs in the router's namespace: whatever it opens without saying where is opened there.
- Questions go over the control socket, as the command line asks them; `command` runs the command line itself.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from . import netns
from .state import Conn, counters

if TYPE_CHECKING:
    from .topology import Lab

ROOT = Path(__file__).resolve().parents[2]
UNLIMITED = {"net.ipv4.icmp_ratelimit": 0, "net.ipv6.icmp.ratelimit": 0, "net.ipv4.icmp_msgs_per_sec": 1_000_000,
             "net.ipv4.icmp_msgs_burst": 1_000_000}
WORKERS = int(os.environ.get("USERFW_WORKERS", "1"))
"""Worker processes of the daemon: `make netns-tests` with another number tries what several workers do to every test."""
DEFAULT_LIMITS = {"conntrack_max": 262144}
# as kernel.py sets them: tests ask for more errors than a router would send
ROUTER_KEYS = {"net.ipv4.icmp_ratelimit": 0, "net.ipv6.icmp.ratelimit": 0, "net.ipv4.icmp_msgs_per_sec": 1_000_000,
               "net.ipv4.icmp_msgs_burst": 1_000_000}


def environment() -> dict[str, str]:
    """The environment in which the clone's own userfw is run."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "hw")]), "PYTHONUNBUFFERED": "1"}


def toml(config: dict[str, Any]) -> str:
    """A configuration as TOML: tables of strings, numbers, booleans and lists; lists of tables."""
    def value(item: Any) -> str:
        return json.dumps(item)
    lines = []
    for name, part in config.items():
        for table in part if isinstance(part, list) else [part]:
            lines.append(f"[[{name}]]" if isinstance(part, list) else f"[{name}]")
            lines += [f'"{key}" = {value(item)}' for key, item in table.items()]
            lines.append("")
    return "\n".join(lines)


class UserfwRouter:
    """One `userfw run` with its own configuration directory."""

    kind = "userfw"
    settle = 0.1 if WORKERS > 1 else 0
    """Seconds of silence after an exchange: a barrier is answered by one worker and tells nothing of the others."""

    def __init__(self, ruleset: str = "", sysctl: dict[str, int] | None = None, limits: dict[str, int] | None = None,
                 gateway: bool = True, workers: int = WORKERS) -> None:
        """`ruleset` is loaded at start; `gateway` adds the TUN port that gives the router a host of its own."""
        self.workers = workers
        self.ruleset, self.keys, self.limits, self.gateway = ruleset, {**UNLIMITED, **(sysctl or {})}, limits, gateway
        self.process: subprocess.Popen[bytes] | None = None
        self.control: Control | None = None
        self.stderr: BinaryIO | None = None

    # ---- up and down ------------------------------------------------------------------------------------------

    def start(self, lab: "Lab") -> None:
        """Write the configuration, start the daemon, wait for `ready`."""
        self.lab, self.ns = lab, lab.ns("rt")
        self.dir = Path(tempfile.mkdtemp(prefix=f"{lab.prefix}-"))
        (self.dir / "gateway.nft").write_text(self.ruleset)
        for side in lab.sides.values():
            if side.port in ("packet", "xdp"):
                netns.ip(self.ns, f"link add {side.name}0 address {side.router_mac} mtu {side.mtu} type veth "
                         f"peer name eth0 netns {lab.ns(side.name)}", f"link set {side.name}0 up")
        netns.sysctl(self.ns, ipv6__auto_flowlabels=0)
        self.write_config()
        self.stderr = (self.dir / "stderr").open("wb")
        self.process = subprocess.Popen(
            netns.inside(self.ns, [sys.executable, "-m", "userfw", "run", "-c", str(self.dir / "userfw.toml")]),
            stdout=self.stderr, stderr=self.stderr, stdin=subprocess.DEVNULL, env=environment(), cwd=ROOT)
        deadline = time.monotonic() + 20 * netns.PATIENCE
        while not re.search(r"^ready$", self.log(), re.MULTILINE):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"userfw did not become ready (exit {self.process.poll()}):\n{self.log()}")
            time.sleep(0.02)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL if that is not enough in ten seconds."""
        if self.control:
            self.control.close()
            self.control = None
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.stderr:
            self.stderr.close()
        if self.process and self.process.returncode == 0:
            shutil.rmtree(self.dir, ignore_errors=True)

    def config(self) -> dict[str, Any]:
        """The configuration as a structure."""
        lab = self.lab
        ports = []
        for side in lab.sides.values():
            port = {"name": side.name, "type": side.port, "mac": side.router_mac, "mtu": side.mtu,
                    "addresses": [f"{side.ip4(1)}/24", f"{side.ip6(1)}/64"]}
            where = {"netns": self.ns, "device": f"{side.name}0"} if side.port in ("packet", "xdp") else \
                {"netns": lab.ns(side.name), "device": "eth0"}
            ports.append({**port, **where})
        if self.gateway:
            ports.append({"name": "host", "type": "tun", "netns": self.ns, "device": "gw0", "transparent": True})
        wan = lab.sides["wan"]
        return {
            "daemon": {"control": str(self.dir / "control.sock"), "state_dir": str(self.dir / "state"),
                       "ruleset": "gateway.nft", "workers": self.workers},
            "port": ports,
            "route": [{"to": "0.0.0.0/0", "via": wan.ip4(254), "dev": "wan"},
                      {"to": "::/0", "via": wan.ip6(254), "dev": "wan"},
                      *({"to": to, "type": "local", "table": 100} for to in ("0.0.0.0/0", "::/0"))],
            "rule": [{"priority": 100, "fwmark": "0x7177", "table": 100}],  # for tproxy
            "limits": self.limits or DEFAULT_LIMITS,
            "sysctl": {**ROUTER_KEYS, **self.keys},
        }

    def write_config(self) -> None:
        """Put the configuration where the daemon reads it."""
        (self.dir / "state").mkdir(exist_ok=True)
        (self.dir / "userfw.toml").write_text(toml(self.config()))

    # ---- asking it --------------------------------------------------------------------------------------------

    def command(self, *args: str, text: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run one `userfw` command against this daemon."""
        full = ["env", *(f"{key}={value}" for key, value in environment().items() if key.startswith("PYTHON")),
                f"USERFW_SOCKET={self.dir / 'control.sock'}", sys.executable, "-m", "userfw", *args]
        return netns.run(full, text=text, check=check)

    def ask(self, command: str, **args: Any) -> Any:
        """The daemon's answer to one command of its control socket; CommandError with its words if it refuses."""
        if self.control is None:
            self.control = Control(self.dir / "control.sock")
        return self.control.ask(command, args)

    def answer_time(self, command: str) -> float:
        """Seconds until `command` is answered."""
        began = time.monotonic()
        self.ask(command)
        return time.monotonic() - began

    def load(self, text: str) -> None:
        """One transaction, then conntrack is emptied."""
        self._run(f"flush ruleset\n{text}\n", {"filename": "/dev/stdin"})
        self.forget()

    def _run(self, text: str, options: dict[str, Any]) -> str:
        answer = self.ask("nft", text=text, options=options)
        if answer["status"]:
            raise netns.CommandError(f"nft: {answer['errors']}\ninput:\n{text}")
        return str(answer["output"])

    def nft(self, *args: str, text: str | None = None, check: bool = True) -> str:
        """`userfw nft` with these arguments, through its command line."""
        done = self.command("nft", *args, text=text, check=check)
        return done.stdout or done.stderr

    def counters(self) -> dict[str, tuple[int, int]]:
        """From `nft -j list ruleset`."""
        return counters(json.loads(self._run("list ruleset", {"json": True})))

    def conns(self) -> list[Conn]:
        """The daemon's list of connections."""
        return sorted(map(conn_from_json, self.ask("conntrack.list")["entries"]), key=str)

    def forget(self) -> None:
        """`userfw conntrack flush`."""
        self.ask("conntrack.flush")

    def sysctl(self, **values: int) -> None:
        """Through the configuration file and a reload."""
        self.keys.update(values)
        self.write_config()
        self.ask("reload")

    def log(self) -> str:
        """What the daemon wrote to its standard error."""
        path = self.dir / "stderr"
        return path.read_text(errors="replace") if path.exists() else ""


class Control:
    """A connection to the daemon's control socket: one JSON object a line (userfw/daemon/control.py)."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(30)
        self.sock.connect(str(path))
        self.lines = self.sock.makefile("rb")
        json.loads(self.lines.readline())
        self.number = 0

    def ask(self, command: str, args: dict[str, Any]) -> Any:
        """One command, its result; netns.CommandError if it is refused."""
        self.number += 1
        self.sock.sendall(json.dumps({"id": self.number, "command": command, "args": args}).encode() + b"\n")
        while True:
            line = self.lines.readline()
            if not line:
                raise netns.CommandError(f"{command}: the daemon closed the connection")
            answer = json.loads(line)
            if "result" in answer:
                return answer["result"]
            if "error" in answer:
                raise netns.CommandError(f"{command}: {answer['error'].get('message')}")

    def close(self) -> None:
        """Hang up."""
        self.lines.close()
        self.sock.close()


def conn_from_json(entry: dict[str, Any]) -> Conn:
    """One entry of the daemon's list in the form of conntrack-tools' text."""
    sides = [entry["original"], entry["reply"]]
    words = [tuple(f"{key}={side[key]}" for key in ("src", "dst", "sport", "dport", "type", "code", "id") if key in side)
             for side in sides]
    flags = {name for name in ("ASSURED", "OFFLOAD", "HW_OFFLOAD") if name in entry["status"]}
    if "SEEN_REPLY" not in entry["status"]:
        flags.add("UNREPLIED")
    return Conn(entry["protocol"], entry["state"] or "", words[0], words[1], frozenset(flags), entry["mark"],
                tuple((side["packets"], side["bytes"]) for side in sides), entry["zone"], entry["timeout"])
