"""What `test_systemd.py` runs in a container with systemd: the service as its users install it, from start to stop, in this order.

The gateway is the container itself, as the README sets one up: `lan` and `wan` are packet ports on veths to two namespaces. TAPs
inside a namespace and AF_XDP come with the drop-ins of `systemd/userfw.service.d`.
"""

import json
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

UNITS = Path("/srv/userfw/systemd")
CONFIG, RULES = Path("/etc/userfw/userfw.toml"), Path("/etc/userfw/gateway.nft")
DROP_INS = Path("/run/systemd/system/userfw.service.d")
SOCKET = Path("/run/userfw/control.sock")
UP = Path("/sys/class/net")

HEAD = """
[daemon]
control = "/run/userfw/control.sock"
state_dir = "/var/lib/userfw"
ruleset = "gateway.nft"
"""
VETHS = HEAD + """
[[port]]
name = "lan"
type = "{type}"
device = "lan"
addresses = ["192.168.1.1/24"]

[[port]]
name = "wan"
type = "{type}"
device = "wan"
addresses = ["203.0.113.1/24"]
"""
TAP = HEAD + """
[[port]]
name = "lan"
type = "tap"
netns = "lan"
device = "tap0"
addresses = ["192.168.9.1/24"]
device_addresses = ["192.168.9.2/24"]
"""
GATEWAY = """
table inet gateway {
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
		iifname "lan" oifname "wan" counter accept
	}
	chain postrouting {
		type nat hook postrouting priority srcnat;
		oifname "wan" masquerade
	}
}
"""
OFFLOADED = """
table inet fast {
	flowtable f { hook ingress priority filter; devices = { lan, wan }; flags offload; }
	chain forward { type filter hook forward priority filter - 5; meta l4proto { tcp, udp } flow add @f; }
}
"""


def run(*argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert not check or done.returncode == 0, f"{' '.join(argv)}: {done.stdout}{done.stderr}\n{journal()[-3000:]}"
    return done


def systemctl(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return run("systemctl", "--no-pager", *words, check=check)


def shown(*names: str) -> dict[str, str]:
    """Properties of the service."""
    lines = systemctl("show", "userfw", "-p", ",".join(names)).stdout.splitlines()
    return dict(line.split("=", 1) for line in lines)


def journal(*words: str) -> str:
    return subprocess.run(["journalctl", "--no-pager", "-u", "userfw", *words], capture_output=True, text=True, check=False).stdout


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds} s\n{journal()[-3000:]}"
        time.sleep(0.1)


def pid() -> int:
    return int(shown("MainPID")["MainPID"])


def running() -> bool:
    return shown("ActiveState")["ActiveState"] == "active" and pid() > 0


def replaced(before: int) -> bool:
    """Another process than `before` runs and is ready."""
    now = shown("ActiveState", "MainPID")
    return now["ActiveState"] == "active" and now["MainPID"] not in ("0", str(before))


def reaches() -> bool:
    """From the lan through the gateway to the wan, and the answer back."""
    return run("ip", "netns", "exec", "lan", "ping", "-c", "1", "-W", "2", "203.0.113.9", check=False).returncode == 0


def configure(text: str, rules: str = GATEWAY) -> None:
    CONFIG.write_text(text)
    RULES.write_text(rules)


def drop_in(*texts: str) -> None:
    """These drop-ins and no others."""
    shutil.rmtree(DROP_INS, ignore_errors=True)
    DROP_INS.mkdir(parents=True)
    for number, text in enumerate(texts):
        (DROP_INS / f"{number}.conf").write_text(text)
    systemctl("daemon-reload")


@pytest.fixture(scope="module", autouse=True)
def installed() -> Iterator[None]:
    """As `make install` puts it: the unit, the account, the folder of the configuration; and two hosts beside the gateway."""
    target = Path("/usr/local/lib/systemd/system")
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy(UNITS / "userfw.service", target)
    run("systemd-sysusers", str(UNITS / "userfw.sysusers"))
    CONFIG.parent.mkdir(exist_ok=True)
    Path("/dev/net").mkdir(exist_ok=True)
    Path("/dev/net/tun").unlink(missing_ok=True)
    os.mknod("/dev/net/tun", 0o666 | stat.S_IFCHR, os.makedev(10, 200))  # as udev makes it
    os.chmod("/dev/net/tun", 0o666)
    for name, gateway, host in (("lan", "192.168.1.1", "192.168.1.2/24"), ("wan", "", "203.0.113.9/24")):
        run("ip", "netns", "add", name)
        run("ip", "link", "add", name, "type", "veth", "peer", "eth0", "netns", name)
        run("ip", "link", "set", name, "up")
        run("ip", "-n", name, "link", "set", "lo", "up")
        run("ip", "-n", name, "addr", "add", host, "dev", "eth0")
        run("ip", "-n", name, "link", "set", "eth0", "up")
        if gateway:
            run("ip", "-n", name, "route", "add", "default", "via", gateway)
    systemctl("daemon-reload")
    configure(VETHS.format(type="packet"))
    yield
    systemctl("stop", "userfw", check=False)


def test_a_wrong_configuration_is_refused_with_its_reason() -> None:
    configure(VETHS.format(type="paket"))
    assert systemctl("start", "userfw", check=False).returncode != 0
    said = journal()
    assert "paket" in said and "Traceback" not in said
    assert shown("NRestarts")["NRestarts"] == "0", "the configuration will not mend itself"
    systemctl("reset-failed", "userfw", check=False)
    configure(VETHS.format(type="packet"))


def test_it_is_ready_when_start_returns_and_has_few_rights() -> None:
    systemctl("start", "userfw")
    assert running() and SOCKET.exists()
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid()}/status").read_text().splitlines() if ":\t" in line)
    assert pwd.getpwuid(int(status["Uid"].split()[0])).pw_name == "userfw"
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 1 << 12 | 1 << 13, "CAP_NET_ADMIN and CAP_NET_RAW"
    assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"
    assert shown("StatusText", "Type")["StatusText"]
    assert len(re.findall("userfw.*ready", journal())) == 1, journal()
    assert json.loads(run("userfw", "status", "--json").stdout)


def test_traffic_passes() -> None:
    until(reaches)
    assert "masquerade" in run("userfw", "nft", "list", "ruleset").stdout


def test_members_of_the_group_may_use_the_socket_and_others_not() -> None:
    info = SOCKET.stat()
    assert stat.S_IMODE(info.st_mode) == 0o660
    assert pwd.getpwuid(info.st_uid).pw_name == "userfw"
    as_nobody = ("setpriv", "--reuid", "nobody", "--regid", "nogroup")
    assert run(*as_nobody, "--groups", "userfw", "userfw", "drops").returncode == 0
    refused = run(*as_nobody, "--clear-groups", "userfw", "drops", check=False)
    assert refused.returncode == 3 and "ermission" in refused.stderr


def test_a_reload_changes_rules_and_keeps_the_process() -> None:
    before = pid()
    configure(VETHS.format(type="packet"), GATEWAY.replace("counter accept", "icmp type != echo-request accept"))
    systemctl("reload", "userfw")
    assert pid() == before
    assert not reaches()
    configure(VETHS.format(type="packet"))
    systemctl("reload", "userfw")
    assert pid() == before
    until(reaches)


def test_a_refused_reload_says_why_and_changes_nothing() -> None:
    before = pid()
    configure(VETHS.format(type="packet"), GATEWAY.replace("policy drop", "policy perhaps"))
    assert systemctl("reload", "userfw", check=False).returncode != 0
    assert "perhaps" in journal()
    assert running() and pid() == before and reaches()
    configure(VETHS.format(type="packet"))
    systemctl("reload", "userfw")


def test_it_comes_back_after_a_kill() -> None:
    before = pid()
    systemctl("kill", "-s", "KILL", "--kill-whom=main", "userfw")
    until(lambda: replaced(before))
    assert int(shown("NRestarts")["NRestarts"]) == 1
    until(reaches)


def test_the_watchdog_ends_one_that_hangs() -> None:
    drop_in("[Service]\nWatchdogSec=3\nTimeoutAbortSec=2\n")
    systemctl("restart", "userfw")
    time.sleep(4)  # longer than the watchdog's patience: it is kept quiet
    before, restarts = pid(), int(shown("NRestarts")["NRestarts"])
    assert running()
    systemctl("kill", "-s", str(int(signal.SIGSTOP)), "--kill-whom=main", "userfw")
    until(lambda: replaced(before))
    assert int(shown("NRestarts")["NRestarts"]) == restarts + 1
    assert re.search("[Ww]atchdog", journal())
    until(reaches)
    drop_in()


def test_connections_outlive_a_restart() -> None:
    drop_in()
    until(reaches)
    assert "203.0.113.9" in run("userfw", "conntrack", "list").stdout
    systemctl("restart", "userfw")
    assert "203.0.113.9" in run("userfw", "conntrack", "list").stdout


def test_a_tap_in_a_namespace_needs_its_drop_in_and_outlives_a_restart() -> None:
    configure(TAP)
    assert systemctl("restart", "userfw", check=False).returncode != 0
    assert "netns.conf" in journal() or "ermitted" in journal()
    systemctl("reset-failed", "userfw", check=False)
    drop_in((UNITS / "userfw.service.d/netns.conf").read_text())
    systemctl("restart", "userfw")
    ping = ("ip", "netns", "exec", "lan", "ping", "-c", "1", "-W", "2", "192.168.9.1")
    until(lambda: run(*ping, check=False).returncode == 0)
    link = json.loads(run("ip", "-n", "lan", "-j", "link", "show", "tap0").stdout)[0]
    assert int(shown("NFileDescriptorStore")["NFileDescriptorStore"]) >= 1
    systemctl("restart", "userfw")
    until(lambda: run(*ping, check=False).returncode == 0)
    assert json.loads(run("ip", "-n", "lan", "-j", "link", "show", "tap0").stdout)[0]["ifindex"] == link["ifindex"]


def test_af_xdp_with_its_drop_in() -> None:
    configure(VETHS.format(type="xdp"))
    assert systemctl("restart", "userfw", check=False).returncode != 0
    drop_in((UNITS / "userfw.service.d/xdp.conf").read_text())
    systemctl("restart", "userfw")
    until(reaches)


def test_flows_in_ebpf_with_their_drop_in() -> None:
    configure(VETHS.format(type="packet"), GATEWAY + OFFLOADED)
    assert systemctl("restart", "userfw", check=False).returncode != 0
    assert "CAP_PERFMON is needed" in journal()
    drop_in((UNITS / "userfw.service.d/offload.conf").read_text())
    systemctl("restart", "userfw")
    until(reaches)
    drop_in()
    configure(VETHS.format(type="packet"))


def test_a_stop_is_clean_and_gives_the_interfaces_back() -> None:
    systemctl("restart", "userfw")
    main = pid()
    systemctl("stop", "userfw")
    assert shown("Result", "ActiveState") == {"Result": "success", "ActiveState": "inactive"}
    assert not list(SOCKET.parent.iterdir()), "the folder stays, for what a killed one leaves"
    assert not Path(f"/proc/{main}").exists()
    run("ip", "addr", "add", "203.0.113.1/24", "dev", "wan")
    until(lambda: run("ping", "-c", "1", "-W", "2", "203.0.113.9", check=False).returncode == 0)
    assert "Traceback" not in journal()


def test_it_is_enabled_before_the_network_is_used() -> None:
    assert "network.target" in shown("Before")["Before"].split()
    systemctl("enable", "--runtime", "userfw")
    assert "multi-user.target" in shown("WantedBy")["WantedBy"]
    systemctl("disable", "--runtime", "userfw")
