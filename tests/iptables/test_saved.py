"""Saved rules of the kind found on machines with Docker, Kubernetes, ufw, firewalld, fail2ban and libvirt: each file is translated,
what is not is told with its line and the part to blame, and a ruleset takes the rest."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from userfw.cli.main import main
from userfw.ruleset.manager import RulesetManager

SAVED = Path(__file__).with_name("saved")
UNTRANSLATED = {
    "arp.arptables": [],
    "docker.iptables": ["20: -m set"],
    "fail2ban.iptables": ["10: -m set"],
    "firewalld.iptables": ["9: -j CT", "32: -j NETMAP", "60: -m string", "71: -m physdev"],
    "gateway.iptables": ["12: string", "19: -m nfacct", "21: -m policy"],
    "kube-proxy.iptables": ["27: -m recent", "36: -m recent"],
    "libvirt.ebtables": ["8: arp", "20: -j arpreply"],
    "libvirt.iptables": ["9: -j CHECKSUM"],
    "swarm.iptables": ["9: -m u32", "17: -m ipvs", "24: -m bpf"],
    "ufw.ip6tables": ["14: -m ipv6header"],
    "ufw.iptables": ["40: -m recent", "41: -m recent"],
}


def translated(name: str) -> tuple[str, list[str]]:
    """The nft text of a file, and the notes about what is missing."""
    output, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(output), redirect_stderr(errors):
        assert main([f"{name.rpartition('.')[2]}-restore-translate", "-f", str(SAVED / name)]) == 0
    return output.getvalue(), errors.getvalue().splitlines()


def test_every_file_has_its_row() -> None:
    assert {path.name for path in SAVED.iterdir()} == set(UNTRANSLATED)


@pytest.mark.parametrize("name", UNTRANSLATED)
def test_what_is_translated_loads_and_what_is_not_is_told(name: str) -> None:
    text, notes = translated(name)
    wanted = UNTRANSLATED[name]
    assert len(notes) == len(wanted), notes
    for note, want in zip(notes, wanted, strict=True):
        line, _, part = want.partition(": ")
        assert f"line {line}: " in note and part in note
    assert sum(line.startswith("# -t ") for line in text.splitlines()) == len(wanted)
    result = RulesetManager().execute(text)
    assert result.status == 0, result.errors


def test_a_state_or_a_kind_of_nat_becomes_two_rules_of_which_one_applies() -> None:
    text, _ = translated("kube-proxy.iptables")
    assert "ct state ! related,established ct status ! dnat" in text or "ct state ! established,related ct status ! dnat" in text
    text, _ = translated("firewalld.iptables")
    rules = [line for line in text.splitlines() if "established" in line]
    assert len(rules) == 2 and " ct state " in rules[0] and " ct state ! " in rules[1] and "ct status dnat" in rules[1]


def test_a_policy_of_a_bridge_chain_of_ones_own_is_its_last_rule() -> None:
    from userfw.iptables.family import BRIDGE
    from userfw.iptables.translate import restore

    text = "*filter\n:FORWARD ACCEPT\n:own DROP\n-A own -i eth0 -j ACCEPT\n-A FORWARD -j own\nCOMMIT\n"
    assert list(restore(BRIDGE, text))[-1] == "add rule bridge filter own drop"


def test_a_target_that_is_neither_known_nor_a_chain_is_told() -> None:
    from userfw.iptables.family import IPV4
    from userfw.iptables.translate import restore

    notes: list[str] = []
    list(restore(IPV4, "*filter\n:INPUT ACCEPT\n-A INPUT -j TARPIT\nCOMMIT\n", notes=notes))
    assert notes == ["line 3: the file has no chain TARPIT; no such target is known either"]
