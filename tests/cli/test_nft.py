"""`userfw nft` on a private ruleset: output, errors, exit status."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from userfw.cli import nft
from userfw.cli.nft_interactive import Completer, interactive
from userfw.client.runner import PrivateRunner
from userfw.ruleset.options import Options

RULES = """
define port = 22
table inet t {
  include "part.nft"
  chain c { type filter hook input priority filter
    tcp dport $port counter accept
  }
}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rules.nft").write_text(RULES)
    (tmp_path / "part.nft").write_text("set s { type ipv4_addr; elements = { 1.1.1.1 }; }\n")
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    status = nft.main(["--private", *argv])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_check_a_file(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    assert run(capsys, "-c", "-f", str(folder / "rules.nft")) == (0, "", "")


def test_check_needs_no_daemon(capsys: pytest.CaptureFixture[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USERFW_SOCKET", str(folder / "no.sock"))
    assert nft.main(["-c", "-f", str(folder / "rules.nft")]) == 0
    assert nft.main(["list", "ruleset"]) == 3
    assert "cannot reach the daemon" in capsys.readouterr().err


def test_errors_name_file_line_and_place(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    bad = folder / "bad.nft"
    bad.write_text("add table ip t\nadd rule ip t nowhere accept\nadd chain ip u c\n")
    status, out, err = run(capsys, "-f", str(bad))
    assert (status, out) == (1, "")
    assert err.splitlines() == [
        f"{bad}:2:15-21: Error: Could not process rule: No such file or directory",
        "add rule ip t nowhere accept",
        "              ^^^^^^^",
        f"{bad}:3:14-14: Error: Could not process rule: No such file or directory",
        "add chain ip u c",
        "             ^",
    ]


def test_errors_of_a_command_line_have_no_name(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, "list", "table", "ip", "foo")
    assert status == 1
    assert err == "Error: No such file or directory\nlist table ip foo\n              ^^^\n"


def test_a_file_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, "-f", "/nonexistent")
    assert status == 1 and 'Could not open file "/nonexistent": No such file or directory' in err


def test_standard_input(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("add table ip t\nlist ruleset\nadd tabel\n"))
    status, _, err = run(capsys, "-f", "-")
    assert status == 1 and err.startswith("/dev/stdin:3:")
    monkeypatch.setattr("sys.stdin", io.StringIO("add table ip t\nlist ruleset\n"))
    assert run(capsys, "-f", "-") == (0, "table ip t {\n}\n", "")


def test_definitions(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "d.nft").write_text("add table ip t\nadd set ip t s { type inet_service; elements = { $p }; }\nlist set ip t s\n")
    status, out, err = run(capsys, "-D", "p=77", "-f", str(tmp_path / "d.nft"))
    assert (status, err) == (0, "") and "elements = { 77 }" in out


def test_echo_and_handles(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "-e", "-a", "add table ip t; add chain ip t c; add rule ip t c counter accept")
    assert status == 0
    assert out.splitlines()[:3] == [
        "add table ip t # handle 1",
        "add chain ip t c # handle 1",
        "add rule ip t c counter packets 0 bytes 0 accept # handle 2",
    ]
    assert out.splitlines()[3].startswith("# new generation 2 by process ")


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    document = json.dumps({"nftables": [{"add": {"table": {"family": "ip", "name": "t"}}}, {"list": {"tables": None}}]})
    status, out, _ = run(capsys, "-j", document)
    assert status == 0
    assert json.loads(out)["nftables"][1] == {"table": {"family": "ip", "name": "t", "handle": 1}}


def test_interactive(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("add table ip t\n\nlist tables\nbad\nlist tables\nquit\nlist tables\n"))
    status, out, err = run(capsys, "-i")
    assert status == 0
    assert out == "table ip t\ntable ip t\n"
    assert err.startswith("Error: syntax error")


def test_completion() -> None:
    runner = PrivateRunner()
    runner.run("add table inet fw; add chain inet fw input; add set inet fw hosts { type ipv4_addr; }", Options())
    completer = Completer(runner, Options())
    assert {"add", "list", "quit"} <= set(completer.words("ad"))
    assert "ruleset" in completer.words("list r")
    assert "inet" in completer.words("list chain ")
    assert completer.words("list chain inet ") == ["fw"]
    assert set(completer.words("list chain inet fw i")) == {"input", "hosts"}


def test_interactive_stops_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert interactive(PrivateRunner(), Options()) == 0


@pytest.mark.parametrize(
    ("what", "first"),
    [
        ("tcp flags", "payload expression, datatype tcp_flag (TCP flag) (basetype bitmask, integer), 8 bits"),
        ("icmp type", "payload expression, datatype icmp_type (ICMP type) (basetype integer), 8 bits"),
        ("meta mark", "meta expression, datatype mark (packet mark) (basetype integer), 32 bits"),
        ("iifname", "meta expression, datatype ifname (network interface name) (basetype string), 16 characters"),
        ("ct_state", "datatype ct_state (conntrack state) (basetype bitmask, integer), 32 bits"),
        ("foo", "symbol expression, datatype invalid (invalid)"),
    ],
)
def test_describe(capsys: pytest.CaptureFixture[str], what: str, first: str) -> None:
    status, out, _ = run(capsys, "describe", what)
    assert status == 0 and out.splitlines()[0] == first


def test_optimize(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "r.nft"
    path.write_text("table ip t {\n\tchain c {\n\t\ttcp dport 22 accept\n\t\ttcp dport 80 drop\n\t}\n}\n")
    status, out, err = run(capsys, "-c", "-o", "-f", str(path))
    assert (status, out) == (0, "")
    assert err == (
        f"Merging:\n{path}:3:3-21: \t\ttcp dport 22 accept\n{path}:4:3-19: \t\ttcp dport 80 drop\n"
        "into:\n\ttcp dport vmap { 22 : accept, 80 : drop }\n"
    )


@pytest.mark.parametrize(
    ("level", "line"),
    [
        ("scanner", "token word 'table' at 0-5"),
        ("parser", "parsed add table: "),
        ("eval", "Evaluate rule"),
        ("proto-ctx", "inet t c: update transport layer protocol context: l4proto 0x00000006"),
        ("segtree", "inet t s: 0xa000000 - 0xaffffff"),
        ("mnl", "add rule inet t c handle 3"),
        ("netlink", "  [ meta load l4proto => reg 1 ]"),
    ],
)
def test_every_debug_level_says_something(capsys: pytest.CaptureFixture[str], tmp_path: Path, level: str, line: str) -> None:
    path = tmp_path / "r.nft"
    path.write_text(
        "table inet t {\n set s { type ipv4_addr; flags interval; elements = { 10.0.0.0/8 }\n }\n"
        " chain c {\n  tcp dport 22 accept\n }\n}\n"
    )
    status, out, err = run(capsys, "-d", level, "-c", "-f", str(path))
    assert status == 0 and line in (out if level == "netlink" else err)
    assert (out == "") == (level != "netlink")
    status, out, everything = run(capsys, "-d", "all", "-c", "-f", str(path))
    assert status == 0 and line in (out if level == "netlink" else everything)


def test_bytecode(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "-d", "netlink", "add table ip t; add chain ip t c; add rule ip t c meta mark 5 accept")
    assert status == 0
    assert out.splitlines() == [
        "ip t c", "  [ meta load mark => reg 1 ]", "  [ cmp eq reg 1 0x00000005 ]", "  [ immediate reg 0 accept ]", "",
    ]  # fmt: skip
