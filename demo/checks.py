"""What the demo tries: what must work, what must be refused, how fast it is."""

import threading
import time
from typing import Any

from lab.families import EACH, IP4, Family
from lab.topology import Lab
from lab.userfw import UserfwRouter

from .report import Report
from .services import Services, gigabits

REFUSED, SILENT = 7, 28  # curl: connection refused, time-out


def bracketed(address: str) -> str:
    """An address as it stands in a URL."""
    return f"[{address}]" if ":" in address else address


class Checks:
    """All checks, on one running laboratory."""

    def __init__(self, lab: Lab, hosts: Services, report: Report) -> None:
        self.lab, self.hosts, self.report = lab, hosts, report
        self.speeds: dict[str, float] = {}

    def everything(self) -> None:
        """In the order of the report."""
        self.reaching()
        self.translating()
        self.changing()
        self.refusing()
        self.speeding()

    # ---- reaching ---------------------------------------------------------------------------------------------

    def reaching(self) -> None:
        """Ping in both families."""
        self.report.heading("Reaching")
        for fam in EACH:
            for where, target, what in (("lan", fam.host("lan", 1), "the gateway"), ("lan", fam.wan, "wan, masqueraded"),
                                        ("lan", fam.dmz, "dmz"), ("edge", fam.wan, "wan through the packet socket")):
                self.report.check(f"{where} pings {what} ({fam})",
                                  lambda where=where, target=target: self.hosts.ping(where, target))  # type: ignore[misc]

    # ---- translating ------------------------------------------------------------------------------------------

    def translating(self) -> None:
        """curl through masquerade and port forward."""
        self.report.heading("Translating")
        for fam in EACH:
            self._says(f"lan asks a wan web server; it sees the gateway ({fam})", "lan", f"http://{bracketed(fam.wan)}/",
                       f"wan {fam.out}")
            self._says(f"wan asks the gateway's port 8080; dmz answers ({fam})", "wan",
                       f"http://{bracketed(fam.out)}:8080/", f"dmz {fam.wan}")
            self._says(f"edge asks the wan web server ({fam})", "edge", f"http://{bracketed(fam.wan)}/", f"wan {fam.out}")
        self.report.check("a file of 20 MB from dmz to wan arrives whole", self._download)

    def _says(self, name: str, where: str, url: str, want: str) -> None:
        def ask() -> tuple[bool, str]:
            code, body = self.hosts.curl(where, url)
            return code == 0 and body == want, f'"{body}"' if code == 0 else f"curl: exit {code}"
        self.report.check(name, ask)

    def _download(self) -> tuple[bool, str]:
        done = self.hosts.run("wan", "curl", "-s", "--noproxy", "*", "--max-time", "20", "-o", "/dev/null", "-w",
                              "%{size_download} %{speed_download}", f"http://{IP4.out}:8080/20480")
        size, speed = (float(word) for word in done.stdout.split())
        return size == 20480 * 1024, f"{size / 1e6:.0f} MB at {speed / 1e6:.0f} MB/s"

    # ---- changing ---------------------------------------------------------------------------------------------

    def changing(self) -> None:
        """A named set and a verdict map changed while the gateway runs."""
        self.report.heading("Changing the rules while it runs")

        def nft(*words: str) -> None:
            self.lab.router.nft(*words)

        def blocked() -> tuple[bool, str]:
            before = self.hosts.ping("lan", IP4.wan, 1)[0]
            nft("add", "element", "inet", "gateway", "blocked", f"{{ {IP4.wan} }}")
            during = self.hosts.ping("lan", IP4.wan, 1)[0]
            nft("delete", "element", "inet", "gateway", "blocked", f"{{ {IP4.wan} }}")
            after = self.hosts.ping("lan", IP4.wan, 1)[0]
            return (before, during, after) == (True, False, True), f"before {before}, blocked {during}, after {after}"

        def way() -> tuple[bool, str]:
            before = self.hosts.curl("edge", f"http://{IP4.dmz}/", 1)[0]
            nft("add", "element", "inet", "gateway", "ways", '{ "edge" . "dmz" : accept }')
            during = self.hosts.curl("edge", f"http://{IP4.dmz}/", 2)[0]
            nft("delete", "element", "inet", "gateway", "ways", '{ "edge" . "dmz" }')
            return (before, during) == (SILENT, 0), f"curl's exit: {before} before, {during} with the element"

        def broken() -> tuple[bool, str]:
            before = self.lab.router.nft("-s", "list", "ruleset")
            said = self.lab.router.nft("-f", "-", text="flush ruleset\nadd rule inet nowhere c accept\n", check=False)
            after = self.lab.router.nft("-s", "list", "ruleset")
            return before == after and "nowhere" in said, (said.splitlines() or ["said nothing"])[0]
        self.report.check("an element of the set blocks a host, its removal frees it", blocked)
        self.report.check("an element of the verdict map opens edge to dmz", way)
        self.report.check("a ruleset with an error changes nothing", broken)

    # ---- refusing ---------------------------------------------------------------------------------------------

    def refusing(self) -> None:
        """What must not pass."""
        self.report.heading("Refusing")
        for fam in EACH:
            self._refused(f"wan may not ping lan ({fam})", lambda fam=fam: (not self.hosts.ping("wan", fam.lan, 1)[0], "silence"))
            self._curl_refused(f"wan to dmz past the port forward is reset ({fam})", "wan", fam.dmz, 80, REFUSED)
            self._curl_refused(f"lan may not send mail past the relay ({fam})", "lan", fam.wan, 25, REFUSED)
            self._curl_refused(f"edge may not reach lan ({fam})", "edge", fam.lan, 80, SILENT)
            self._curl_refused(f"wan may not reach the gateway itself ({fam})", "wan", fam.out, 22, SILENT)
        self._refused("a blocked network is silent", lambda: (not self.hosts.ping("lan", IP4.host("wan", 200), 1)[0], "silence"))

    def _refused(self, name: str, call: Any) -> None:
        self.report.check(name, call)

    def _curl_refused(self, name: str, where: str, target: str, port: int, want: int) -> None:
        def ask() -> tuple[bool, str]:
            code, _ = self.hosts.curl(where, f"http://{bracketed(target)}:{port}/", 1)
            return code == want, {REFUSED: "refused", SILENT: "silence", 0: "ANSWERED"}.get(code, f"curl: exit {code}")
        self.report.check(name, ask)

    # ---- speed ------------------------------------------------------------------------------------------------

    def speeding(self) -> None:
        """iperf3 TCP down and up and UDP, both families; commands answer meanwhile."""
        self.report.heading("Throughput, lan to wan through masquerade and flowtable")
        for fam in EACH:
            self._tcp(fam, "download", "-R", least=1.0)
            self._tcp(fam, "upload", least=1.0)
            self._udp(fam)
        self._tcp(IP4, "download, 8 connections", "-R", "-P", "8", least=1.0)
        self.report.check("edge to wan, packet socket to TAP, TCP (ip)", lambda: self._speed("edge upload", "edge", IP4))
        if isinstance(self.lab.router, UserfwRouter):
            self.report.check("commands answer within 100 ms under full load", self._responsive)

    def _tcp(self, fam: Family, name: str, *options: str, least: float) -> None:
        self.report.check(f"TCP {name} ({fam}), at least {least:g} Gbit/s",
                          lambda: self._speed(f"TCP {name} ({fam})", "lan", fam, *options, least=least))

    def _speed(self, name: str, where: str, fam: Family, *options: str, least: float = 0.2) -> tuple[bool, str]:
        speed = gigabits(self.hosts.iperf_client(where, fam.wan, *options))
        self.speeds[name] = speed
        return speed >= least, f"{speed:.2f} Gbit/s"

    def _udp(self, fam: Family) -> None:
        def measure() -> tuple[bool, str]:
            report = self.hosts.iperf_client("lan", fam.wan, "-u", "-b", "50M", "-l", "1200")
            lost, speed = float(report["end"]["sum"]["lost_percent"]), gigabits(report)
            self.speeds[f"UDP ({fam})"] = speed
            return lost < 2 and speed > 0.045, f"{speed * 1000:.0f} Mbit/s, {lost:.2f} % lost, " \
                                              f"jitter {report['end']['sum']['jitter_ms']:.3f} ms"
        self.report.check(f"UDP at 50 Mbit/s ({fam}), less than 2 % lost", measure)

    def _responsive(self) -> tuple[bool, str]:
        """The daemon's own answer times, without the start of a Python interpreter for every question."""
        router = self.lab.router
        assert isinstance(router, UserfwRouter)
        load = threading.Thread(target=lambda: self.hosts.iperf_client("lan", IP4.wan, "-P", "4", seconds=3))
        load.start()
        time.sleep(0.7)
        times = sorted(router.answer_time("status") for _ in range(20))
        load.join()
        return times[-1] < 0.1, f"median {times[10] * 1000:.1f} ms, worst {times[-1] * 1000:.1f} ms of 20"


