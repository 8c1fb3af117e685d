"""`-N`: names of addresses, asked for by the client; and JSON echoed as it came, with handles."""

from __future__ import annotations

import json
import socket

import pytest

from userfw.client.nftables import Nftables
from userfw.client.reverse import Resolver
from userfw.client.runner import PrivateRunner
from userfw.ruleset.options import Options

NAMES = {"192.0.2.1": "gw.example", "2001:db8::1": "six.example", "192.0.2.2": "evil; drop", "10.0.0.0": "ten.example"}
RULES = """table inet t {
	set s {
		type ipv4_addr
		elements = { 192.0.2.1, 192.0.2.9 }
	}

	chain c {
		ip saddr 192.0.2.1 accept comment "192.0.2.1 stays"
		ip6 saddr 2001:db8::1 accept
		ip saddr { 10.0.0.0/8, 192.0.2.1-192.0.2.3 } drop
		ip saddr 192.0.2.2 drop
	}
}
"""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []

    def getnameinfo(address: tuple[str, int], flags: int) -> tuple[str, str]:
        found.append(address[0])
        return NAMES.get(address[0], address[0]), "0"

    monkeypatch.setattr(socket, "getnameinfo", getnameinfo)
    return found


def test_addresses_become_names_in_listings(asked: list[str]) -> None:
    runner = PrivateRunner()
    assert runner.run(RULES, Options()).errors == ""
    plain = runner.run("list ruleset", Options()).output
    assert plain == RULES and asked == []
    named = runner.run("list ruleset", Options(reversedns=True)).output
    want = plain.replace("saddr 192.0.2.1 ", "saddr gw.example ").replace("{ 192.0.2.1,", "{ gw.example,")
    assert named == want.replace("saddr 2001:db8::1", "saddr six.example")
    assert len(asked) == len(set(asked)), "each address is asked for once"


def test_json_has_numbers(asked: list[str]) -> None:
    runner = PrivateRunner()
    runner.run(RULES, Options())
    assert "192.0.2.1" in runner.run("list ruleset", Options(reversedns=True, json=True)).output and asked == []


def test_no_answer_is_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    def getnameinfo(address: tuple[str, int], flags: int) -> tuple[str, str]:
        raise socket.gaierror("no")

    monkeypatch.setattr(socket, "getnameinfo", getnameinfo)
    assert Resolver().text("a \x01192.0.2.1\x02 b") == "a 192.0.2.1 b"


def test_json_input_is_echoed_with_handles() -> None:
    nft = Nftables(private=True)
    nft.set_echo_output(True)
    document = {
        "nftables": [
            {"metainfo": {"json_schema_version": 1}},
            {"add": {"table": {"family": "ip", "name": "t"}}},
            {"add": {"chain": {"family": "ip", "table": "t", "name": "c"}}},
            {"add": {"set": {"family": "ip", "table": "t", "name": "s", "type": "mark"}}},
            {"add": {"element": {"family": "ip", "table": "t", "name": "s", "elem": [1, 2]}}},
            {"add": {"counter": {"family": "ip", "table": "t", "name": "n"}}},
            {"add": {"rule": {"family": "ip", "table": "t", "chain": "c", "expr": [{"accept": None}], "comment": "one"}}},
            {"insert": {"rule": {"family": "ip", "table": "t", "chain": "c", "expr": [{"drop": None}]}}},
        ]
    }
    before = json.dumps(document)
    status, output, errors = nft.json_cmd(document)
    assert (status, errors) == (0, "")
    handles = []
    for item in output["nftables"]:
        (body,) = item.values()
        for inner in body.values():
            if isinstance(inner, dict) and "handle" in inner:
                handles.append(inner.pop("handle"))
    assert json.dumps(output) == before, "nothing else changes"
    assert handles[0] == 1 and len(handles) == 6 and len(set(handles[1:])) == 5
    listed = nft.json_cmd({"nftables": [{"list": {"chain": {"family": "ip", "table": "t", "name": "c"}}}]})[1]
    rules = [entry["rule"]["handle"] for entry in listed["nftables"] if "rule" in entry]
    assert rules == [handles[5], handles[4]]


def test_a_listing_fed_back_is_echoed_with_new_handles() -> None:
    nft = Nftables(private=True)
    nft.set_echo_output(True)
    objects = [
        {"table": {"family": "ip", "name": "t", "handle": 77}},
        {"chain": {"family": "ip", "table": "t", "name": "c", "handle": 9}},
    ]
    _, output, _ = nft.json_cmd({"nftables": objects})
    assert [next(iter(item.values()))["handle"] for item in output["nftables"]] == [1, 1]
