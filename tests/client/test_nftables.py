"""The class with the methods of libnftables' Python module."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from userfw.client.nftables import Nftables
from userfw.ruleset.manager import RulesetManager


@pytest.fixture
def nft() -> Nftables:
    return Nftables(private=True)


def test_cmd(nft: Nftables) -> None:
    assert nft.cmd("add table inet t") == (0, "", "")
    assert nft.cmd("list tables") == (0, "table inet t\n", "")
    status, output, error = nft.cmd("list table inet u")
    assert (status, output) == (-1, "") and error.startswith("Error: No such file")


def test_every_switch_returns_what_it_was(nft: Nftables) -> None:
    for name in nft.output_flags:
        getter, setter = getattr(nft, f"get_{name}_output"), getattr(nft, f"set_{name}_output")
        assert getter() is False
        assert setter(True) is False
        assert getter() is True
        assert setter(False) is True


def test_handles_and_stateless(nft: Nftables) -> None:
    nft.cmd("add table ip t; add counter ip t c; add chain ip t k; add rule ip t k counter")
    nft.set_handle_output(True)
    assert "# handle 3" in nft.cmd("list ruleset")[1]
    nft.set_stateless_output(True)
    assert "packets" not in nft.cmd("list ruleset")[1]


def test_json(nft: Nftables) -> None:
    add = {"nftables": [{"add": {"table": {"family": "ip", "name": "t"}}}]}
    assert nft.json_validate(add)
    assert nft.json_cmd(add) == (0, "", "")
    status, output, error = nft.json_cmd({"nftables": [{"list": {"tables": None}}]})
    assert (status, error) == (0, "")
    assert output["nftables"][1] == {"table": {"family": "ip", "name": "t", "handle": 1}}
    assert nft.get_json_output() is False
    with pytest.raises(ValueError):
        nft.json_validate({"nftables": [{"add": {"nonsense": {}}}]})
    with pytest.raises(ValueError):
        nft.json_validate([])


def test_echo_gives_handles(nft: Nftables) -> None:
    nft.cmd("add table ip t; add chain ip t c")
    nft.set_echo_output(True)
    rule = {"family": "ip", "table": "t", "chain": "c", "expr": [{"accept": None}]}
    _, output, _ = nft.json_cmd({"nftables": [{"add": {"rule": rule}}]})
    assert [entry["add"]["rule"]["handle"] for entry in output["nftables"] if "add" in entry] == [2]


def test_dry_run(nft: Nftables) -> None:
    nft.set_dry_run(True)
    assert nft.get_dry_run()
    assert nft.cmd("add table ip t")[0] == 0
    nft.set_dry_run(False)
    assert nft.cmd("list tables")[1] == ""


def test_files_includes_variables(nft: Nftables, tmp_path: Path) -> None:
    (tmp_path / "main.nft").write_text('include "more.nft"\nadd chain ip x c\nadd rule ip x c tcp dport $port accept\n')
    (tmp_path / "more.nft").write_text("add table ip x\n")
    nft.add_var("port=77")
    assert nft.cmd_from_file(str(tmp_path / "main.nft")) == (0, "", "")
    assert nft.cmd("list chains")[1] == "table ip x {\n\tchain c {\n\t}\n}\n"
    nft.clear_vars()
    assert nft.cmd_from_file(str(tmp_path / "main.nft"))[0] == -1
    status, _, error = nft.cmd_from_file(str(tmp_path / "none.nft"))
    assert status == -1 and "Could not open file" in error
    nft.clear_include_paths()
    nft.add_include_path(str(tmp_path))
    with pytest.raises(ValueError):
        nft.add_include_path("")
    with pytest.raises(ValueError):
        nft.add_var("novalue")


def test_flags_of_input_and_debug(nft: Nftables) -> None:
    assert nft.set_input_flags(["json"]) == []
    assert nft.get_input_flags() == ["json"]
    assert nft.set_debug("netlink") == []
    assert nft.set_debug([0x1, "mnl"]) == ["netlink"]
    assert nft.get_debug() == ["scanner", "mnl"]
    for bad in ("nope", 1 << 20, -1):
        with pytest.raises(ValueError):
            nft.set_debug(bad)


def test_two_clients_of_one_ruleset() -> None:
    manager = RulesetManager()
    one, other = Nftables(manager=manager), Nftables(manager=manager)
    one.cmd("add table ip t")
    assert other.cmd("list tables")[1] == "table ip t\n"


def test_programs_written_for_libnftables_run() -> None:
    """What their module takes: a library's name, bytes, a validator of one's own; what `list ruleset` gives can be given back."""
    from userfw.client import nftables

    nft = nftables.Nftables("libnftables.so.1", private=True)
    assert nft.cmd(b"add table inet t") == (0, b"", b"")
    assert nft.cmd(b"list tables")[1] == b"table inet t\n"
    assert nft.cmd(b"list bogus")[2].startswith(b"Error: syntax error")
    nftables.SchemaValidator().validate({"nftables": []})
    document = {"nftables": [
        {"metainfo": {"version": "1", "release_name": "x", "json_schema_version": 1}},
        {"counter": {"family": "inet", "table": "t", "name": "c"}},
        {"chain": {"family": "inet", "table": "t", "name": "k"}},
        {"rule": {"family": "inet", "table": "t", "chain": "k", "expr": [{"counter": "c"}, {"accept": None}]}},
    ]}  # fmt: skip
    assert nft.json_validate(document)
    assert nft.json_cmd(document) == (0, "", "")
    nft.set_json_output(True)
    status, listing, error = nft.cmd("list ruleset")
    again = nftables.Nftables(private=True)
    assert (status, error) == (0, "") and again.json_cmd(json.loads(listing))[0] == 0
    nft.set_json_output(False)
    assert again.cmd("list ruleset") == nft.cmd("list ruleset")
