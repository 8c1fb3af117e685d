"""Fixtures of the namespace tests: one laboratory per router, the same tests on each, their transcripts compared.

Laws
- Tests ask for `lab` and run on `kernel` first, then on `userfw`; the frames of both runs must be equal byte for byte.
- What the router makes up (the identification of its own IPv4 packets, of IPv6 fragments) is masked before comparing.
- No root, no namespaces, no nft: skipped, with the reason.
"""

import importlib.util
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from lab import netns, show
from lab.frames import ETH_IP, FRAG6, checksum
from lab.kernel import KernelRouter
from lab.topology import Lab, Out
from lab.userfw import UserfwRouter

NEEDED = ("ip", "nsenter", "ethtool", "nft", "conntrack")


def missing() -> str | None:
    """Why namespace tests cannot run here, or None."""
    if os.geteuid():
        return "namespace tests run as root"
    lacking = [tool for tool in NEEDED if not shutil.which(tool)]
    if lacking:
        return f"not installed: {', '.join(lacking)}"
    name = f"uf{os.getpid()}-probe"
    try:
        netns.create(name)
        netns.run(["nft", "list", "ruleset"], ns=name)
    except (netns.CommandError, OSError) as exc:
        return f"no network namespaces with nf_tables here: {str(exc).splitlines()[0]}"
    finally:
        netns.delete(name)
    return None


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the namespace tests."""
    group = parser.getgroup("userfw laboratory")
    group.addoption("--router", choices=("both", "kernel", "userfw"), default="both", help="routers to test")
    group.addoption("--packets", type=int, default=3000, help="random tests: packets to send")
    group.addoption("--seed", type=int, default=2026, help="random tests: seed")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip all of it where the machine cannot."""
    reason = missing()
    if reason:
        for item in items:
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test that asks for a lab runs on each router."""
    if "started" in metafunc.fixturenames:
        choice = metafunc.config.getoption("--router")
        metafunc.parametrize("started", ["kernel", "userfw"] if choice == "both" else [choice],
                             indirect=True, scope="session")


@pytest.fixture(scope="session")
def started(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """The laboratory of one router, up for the whole session."""
    if request.param == "userfw" and not importlib.util.find_spec("userfw.daemon.main"):
        pytest.skip("the daemon is not part of this build")
    lab = Lab(KernelRouter() if request.param == "kernel" else UserfwRouter())
    lab.start()
    yield lab
    lab.stop()


Transcripts = dict[str, dict[str, list[list[str]]]]


@pytest.fixture(scope="session")
def transcripts() -> Transcripts:
    """What each router let out in each test: test -> router -> frames of each exchange."""
    return {}


@pytest.fixture
def lab(started: Lab, request: pytest.FixtureRequest, transcripts: Transcripts,
        monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """The laboratory with an empty ruleset and an empty conntrack; frames are compared with the other router's."""
    started.router.load("")
    started.forget_frames()
    said: list[list[str]] = []
    exchange = started.exchange

    def recorded(at: str, *frames: bytes, **options: Any) -> list[Out]:
        out = exchange(at, *frames, **options)
        said.append([f"{o.port} {masked(o.frame).hex()}" for o in out])
        return out

    def answered_by(at: str, packet: bytes, seconds: float = 3) -> list[Out]:
        out = exchange(at, started.up(at, packet)) or started.wait(bool, seconds)
        said.append([f"{o.port} {masked(o.frame).hex()}" for o in out])
        return out

    monkeypatch.setattr(started, "exchange", recorded)
    monkeypatch.setattr(started, "answered_by", answered_by)
    yield started
    if request.node.get_closest_marker("own_numbers") or not getattr(request.node, "passed", False):
        return
    name = request.node.name.replace(started.router.kind, "*")
    seen = transcripts.setdefault(f"{request.node.path}::{name}", {})
    seen[started.router.kind] = said
    if len(seen) == 2:
        assert readable(said) == readable(seen["kernel"]), "userfw's frames differ from the kernel's"
        assert said == seen["kernel"], "userfw's frames differ from the kernel's"


def readable(said: list[list[str]]) -> list[list[str]]:
    """A transcript for people."""
    return [[f"{line.split()[0]} {show.frame(bytes.fromhex(line.split()[1]))}" for line in exchange] for exchange in said]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Fixtures learn whether their test passed."""
    outcome: Any = yield
    if outcome.get_result().when == "call":
        item.passed = outcome.get_result().passed  # type: ignore[attr-defined]


def masked(frame: bytes) -> bytes:
    """The frame without the identification of the router's own IPv4 packets and of IPv6 fragments."""
    if frame[12:14] == b"\x86\xdd" and frame[20] == FRAG6:
        return frame[:58] + bytes(4) + frame[62:]
    if int.from_bytes(frame[12:14], "big") != ETH_IP or frame[14] != 0x45:
        return frame
    ours = frame[26:30] in OWN
    if not ours:
        return frame
    head = bytearray(frame[14:34])
    head[4:6] = head[10:12] = b"\0\0"
    head[10:12] = struct.pack("!H", checksum(bytes(head)))
    return frame[:14] + bytes(head) + frame[34:]


OWN = {bytes(part) for part in ((192, 168, 1, 1), (192, 168, 2, 1), (203, 0, 113, 1), (192, 168, 4, 1))}


@pytest.fixture
def live(lab: Lab) -> Iterator[Lab]:
    """The laboratory with hosts that have addresses and stacks of their own."""
    with lab.live():
        yield lab


@pytest.fixture
def shortened(lab: Lab) -> Iterator[Callable[..., None]]:
    """Set keys of /proc/sys/net/netfilter for one test; the defaults come back afterwards."""
    changed: set[str] = set()

    def change(**values: int) -> None:
        changed.update(values)
        lab.router.sysctl(**values)
    yield change
    if changed:
        lab.router.sysctl(**{key: DEFAULTS[key] for key in changed})


DEFAULTS = {  # Linux: nf_conntrack_proto_tcp.c, nf_conntrack_proto_udp.c, nf_conntrack_proto_icmp.c
    "nf_conntrack_tcp_timeout_syn_sent": 120, "nf_conntrack_tcp_timeout_established": 432000,
    "nf_conntrack_tcp_timeout_close": 10, "nf_conntrack_tcp_timeout_time_wait": 120, "nf_conntrack_udp_timeout": 30,
    "nf_conntrack_udp_timeout_stream": 120, "nf_conntrack_icmp_timeout": 30, "nf_conntrack_tcp_loose": 1,
    "nf_conntrack_tcp_be_liberal": 0, "nf_conntrack_icmpv6_timeout": 30, "nf_conntrack_generic_timeout": 600,
    "nf_conntrack_acct": 1,
}
