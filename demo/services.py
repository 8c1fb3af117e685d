"""What runs in the hosts of the demo: web servers, iperf3 servers, and the commands that use them."""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lab import netns
from lab.topology import Lab

WEB = Path(__file__).with_name("web.py")


class Services:
    """Processes started in the hosts; `close` ends all of them."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, where: str, *argv: str) -> subprocess.Popen[bytes]:
        """Start a command in the host `where`."""
        process = subprocess.Popen(netns.inside(self.lab.ns(where), argv), stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.processes.append(process)
        return process

    def web(self, where: str, port: int) -> None:
        """A web server on `port` that names its host."""
        self.start(where, sys.executable, str(WEB), str(port), where)
        self._until_listening(where, port)

    def iperf(self, where: str, port: int = 5201) -> None:
        """An iperf3 server."""
        self.start(where, "iperf3", "-s", "-p", str(port))
        self._until_listening(where, port)

    def _until_listening(self, where: str, port: int, seconds: float = 10) -> None:
        deadline = time.monotonic() + seconds
        while f":{port} " not in netns.run(["ss", "-ltnH"], ns=self.lab.ns(where)).stdout:
            if time.monotonic() > deadline:
                raise AssertionError(f"nothing listens on port {port} of {where}")
            time.sleep(0.05)

    def close(self) -> None:
        """End all processes."""
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(3)
            if process.poll() is None:
                process.kill()
                process.wait()
        self.processes.clear()

    # ---- asking -----------------------------------------------------------------------------------------------

    def run(self, where: str, *argv: str, seconds: float = 30) -> subprocess.CompletedProcess[str]:
        """Run a command in a host; its exit status is for the caller to judge."""
        return netns.run(argv, ns=self.lab.ns(where), check=False, timeout=seconds)

    def ping(self, where: str, target: str, count: int = 3) -> tuple[bool, str]:
        """(all answered, what ping says about round trips)."""
        done = self.run(where, "ping", "-q", "-c", str(count), "-i", "0.2", "-W", "1", target)
        lines = [line for line in done.stdout.splitlines() if "min/avg/max" in line]
        return done.returncode == 0, f"round trip {lines[0].split('=')[1].split('/')[1]} ms" if lines else \
            next((line for line in done.stdout.splitlines() if "loss" in line), done.stderr.strip())

    def curl(self, where: str, url: str, seconds: int = 4) -> tuple[int, str]:
        """(curl's exit status, body)."""
        done = self.run(where, "curl", "-s", "-g", "--noproxy", "*", "--max-time", str(seconds), url)
        return done.returncode, done.stdout.strip()

    def iperf_client(self, where: str, target: str, *options: str, seconds: float = 3) -> dict[str, Any]:
        """Run iperf3 so many seconds, 0: as the options say; its JSON report. AssertionError with its own words if it failed."""
        length = ["-t", str(seconds)] if seconds else []
        deadline = time.monotonic() + 10
        while True:
            done = self.run(where, "iperf3", "-J", "-c", target, *length, "--connect-timeout", "3000", *options,
                            seconds=seconds + 60)
            report: dict[str, Any] = json.loads(done.stdout or "{}")
            if not done.returncode and report and "error" not in report:
                return report
            words = report.get("error", done.stderr.strip())
            # a server still says goodbye to the client before when that one is gone already
            if "busy" not in words or time.monotonic() > deadline:
                raise AssertionError(f"iperf3 to {target}: {words}")
            time.sleep(0.1)


@contextlib.contextmanager
def services(lab: Lab) -> Iterator[Services]:
    """Services that end with the context."""
    running = Services(lab)
    try:
        yield running
    finally:
        running.close()


def gigabits(report: dict[str, Any]) -> float:
    """Received Gbit/s of an iperf3 report, TCP or UDP."""
    end = report["end"]
    if "sum_received" in end and end["sum_received"].get("bits_per_second"):
        return float(end["sum_received"]["bits_per_second"]) / 1e9
    return float(end["sum"]["bits_per_second"]) * (1 - float(end["sum"].get("lost_percent", 0)) / 100) / 1e9
