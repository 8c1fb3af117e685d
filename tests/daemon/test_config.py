"""The configuration: what is accepted, and that every mistake is told with its key and reason."""

from __future__ import annotations

import dataclasses
from ipaddress import ip_interface, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userfw.daemon import schema, sysctl
from userfw.daemon.config import ConfigError, load, parse

WHOLE = """
[daemon]
control = "/run/x.sock"
control_mode = "0600"
state_dir = "state"
ruleset = "gateway.nft"

[[port]]
name = "lan"
type = "tap"
netns = "lan-1"
device = "eth0"
mac = "02:00:00:00:00:01"
mtu = 9000
addresses = ["192.168.1.1/24", "fd00:1::1/64"]
[[port.vlan]]
name = "guests"
id = 20
addresses = ["192.168.20.1/24"]

[[port]]
name = "wan"
type = "packet"
device = "eth1"

[[route]]
to = "default"
via = "203.0.113.254"
dev = "wan"

[limits]
conntrack_max = 1000

[sysctl]
nf_conntrack_tcp_timeout_close = 10
net.ipv4.ip_forward = 1
"""


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, "/etc/userfw/userfw.toml", sysctl.NAMES)
    return caught.value.problems


def test_a_whole_file() -> None:
    config = parse(WHOLE, "/etc/userfw/userfw.toml", sysctl.NAMES)
    lan, wan = config.port
    assert lan.mac == b"\x02\0\0\0\0\x01" and lan.mtu == 9000
    assert lan.addresses == [ip_interface("192.168.1.1/24"), ip_interface("fd00:1::1/64")]
    assert [(v.name, v.id, v.protocol) for v in lan.vlan] == [("guests", 20, "802.1Q")]
    assert (wan.type, wan.mac, wan.isolate) == ("packet", None, True)
    assert config.route[0].to is None
    assert config.limits.conntrack_max == 1000 and config.limits.expect_max == 4096
    assert config.sysctl == {"nf_conntrack_tcp_timeout_close": 10, "net.ipv4.ip_forward": 1}
    assert config.daemon.control_mode == 0o600
    assert config.daemon.ruleset == "/etc/userfw/gateway.nft" and config.daemon.state_dir == "/etc/userfw/state"


def test_an_empty_file_is_a_configuration() -> None:
    config = parse("")
    assert config.port == [] and config.mirror is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[daemn]", "daemn: no such key; did you mean 'daemon'?"),
        ("[daemon]\ncontrl = 'x'", "daemon.contrl: no such key; did you mean 'control'?"),
        ("[daemon]\ncontrol = 5", "daemon.control: a string is expected, not a number"),
        ("[daemon]\ncontrol_mode = '999'", "daemon.control_mode: '999' are no permissions (as in \"0660\")"),
        ("[daemon]\nlog_level = 'loud'", "daemon.log_level: 'loud' is none of debug, info, notice, warning, error"),
        ("[[port]]\ntype = 'tap'\ndevice = 'x'", "port[0]: key 'name' is missing"),
        ("[[port]]\nname = 'a'\ntype = 'tap'", "port[0] (a): key 'device' is missing"),
        ("port = 3", "port: write [[port]] for each one"),
        ("[[port]]\nname = 'a'\ntype = 'tpa'\ndevice='d'",
         "port[0] (a).type: 'tpa' is none of tap, tun, packet, xdp, pcap, memory"),
        ("[[port]]\nname = 'a'\ntype = 'tap'\ndevice = 'seventeen-letters'",
         "port[0] (a).device: 'seventeen-letters' cannot be an interface's name (at most 15 bytes, no '/', ':' or spaces)"),
        ("[[port]]\nname = 'a'\ntype = 'tap'\ndevice = 'd'\nmac = '01:00:00:00:00:01'",
         "port[0] (a).mac: '01:00:00:00:00:01' is a group address or zero; an interface needs a unicast address"),
        ("[[port]]\nname = 'a'\ntype = 'tap'\ndevice = 'd'\nmtu = 67", "port[0] (a).mtu: 67 is outside 68 to 65535"),
        ("[[port]]\nname = 'a'\ntype = 'tap'\ndevice = 'd'\naddresses = ['10.0.0.1']",
         "port[0] (a).addresses: '10.0.0.1' has no prefix length (192.168.1.1/24, fd00::1/64)"),
        ("[[port]]\nname = 'a'\ntype = 'tap'\ndevice = 'd'\nmtu = 1000\naddresses = ['fd00::1/64']",
         "port[0] (a): IPv6 needs an MTU of 1280 at least (RFC 8200 5)"),
        ("[[port]]\nname = 'a'\ntype = 'packet'\ndevice = 'd'\npersist = true",
         "port[0] (a): 'persist' has no meaning for a port of type 'packet'"),
        ("[[port]]\nname = 'a'\ntype = 'pcap'", "port[0] (a): a pcap port needs 'read' or 'write'"),
        ("[[port]]\nname = 'a'\ntype = 'tun'\ndevice = 'd'\nmac = '02:00:00:00:00:01'",
         "port[0] (a): a tun port has no link layer, so neither 'mac' nor 'vlan'"),
        ("[[route]]\nvia = '10.0.0.1'", "route[0]: key 'to' is missing"),
        ("[[route]]\nto = '10.0.0.1/8'\nvia = '10.0.0.1'", "route[0].to: 10.0.0.1/8 has host bits set"),
        ("[[route]]\nto = '10.0.0.0/8'", "route[0]: 'via' or 'dev' is missing"),
        ("[[route]]\nto = '10.0.0.0/8'\ntype = 'blackhole'\nvia = '10.0.0.1'",
         "route[0]: a blackhole route has neither 'via' nor 'dev'"),
        ("[[route]]\nto = '10.0.0.0/8'\nvia = 'fd00::1'", "route[0]: IPv4 and IPv6 are mixed"),
        ("[sysctl]\nnf_conntrack_tcp_timeout_clse = 1", "sysctl.nf_conntrack_tcp_timeout_clse: no such setting; "
         "did you mean 'nf_conntrack_tcp_timeout_close'?"),
        ("[sysctl]\nnf_conntrack_max = true", "sysctl.nf_conntrack_max: a whole number is expected, not true or false"),
    ],
)  # fmt: skip
def test_a_mistake_is_told(text: str, told: str) -> None:
    assert told in problems(text)


def test_all_mistakes_are_told_at_once() -> None:
    assert len(problems("[daemn]\n[limits]\nconntrack_max = 0\n[[route]]\nto = 5\n")) == 3


def test_names_that_clash_or_do_not_exist() -> None:
    tap = "[[port]]\nname = '{}'\ntype = 'tap'\ndevice = '{}'\n"
    assert "port[1] (a): the name 'a' is already used by port[0] (a)" in problems(tap.format("a", "x") + tap.format("a", "y"))
    assert "port[1] (b): device 'x' is already used by port 'a'" in problems(tap.format("a", "x") + tap.format("b", "x"))
    told = problems(tap.format("wan", "x") + "[[route]]\nto = '0.0.0.0/0'\nvia = '10.0.0.1'\ndev = 'wann'")
    assert "route[0]: no port 'wann'; did you mean 'wan'?" in told


def test_the_place_of_a_syntax_error_is_told() -> None:
    assert "line 2" in problems("[daemon]\ncontrol = \n")[0]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "none.toml")


@given(st.text(max_size=200))
def test_no_text_does_harm(text: str) -> None:
    try:
        parse(text)
    except ConfigError as error:
        assert error.problems


def test_every_key_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    for kind in (schema.Daemon, schema.Port, schema.Vlan, schema.Advertisement, schema.Route, schema.Mirror, schema.Limits,
                 schema.QueueListener, schema.LogGroup, schema.Offload, schema.Ethtool, schema.Ntuple):
        for field in dataclasses.fields(kind):
            assert f"`{field.name}`" in text, f"{kind.__name__}.{field.name}"
    for name in sysctl.ROUTER:
        assert f"`{name}`" in text, name


def test_default_network_kinds() -> None:
    assert schema.network("10.0.0.0/8") == ip_network("10.0.0.0/8") and schema.network("default") is None
