"""The typed API on a private ruleset."""

from __future__ import annotations

import pytest

from userfw.client.api import Chain, Counter, Firewall, FirewallError, Table
from userfw.client.nftables import Nftables

RULES = """
table inet t {
  set s { type inet_service; elements = { 22, 80 }
  }
  map m { type inet_service : verdict; elements = { 53 : accept }
  }
  counter c { packets 3 bytes 4
  }
  chain i { type filter hook input priority filter - 5; policy drop
    tcp dport @s counter packets 7 bytes 8 accept comment "hello"
  }
  chain r { }
}
"""


@pytest.fixture
def firewall() -> Firewall:
    made = Firewall(Nftables(private=True))
    made.replace(RULES)
    return made


def test_what_there_is(firewall: Firewall) -> None:
    assert firewall.tables() == [Table("inet", "t", 1)]
    assert firewall.chains() == [
        Chain("inet", "t", "i", 1, "filter", "input", -5, "drop"),
        Chain("inet", "t", "r", 2),
    ]
    (rule,) = firewall.rules("inet", "t", "i")
    assert (rule.comment, rule.counter) == ("hello", (7, 8))
    assert firewall.counters() == [Counter("inet", "t", "c", 3, 4)]
    assert firewall.elements("inet", "t", "s") == [22, 80]
    assert firewall.elements("inet", "t", "m") == [[53, {"accept": None}]]


def test_rules_by_handle(firewall: Firewall) -> None:
    handle = firewall.add_rule("inet", "t", "r", "udp dport 5 drop")
    assert [rule.handle for rule in firewall.rules("inet", "t", "r")] == [handle]
    firewall.delete_rule("inet", "t", "r", handle)
    assert firewall.rules("inet", "t", "r") == []


def test_elements(firewall: Firewall) -> None:
    firewall.add_elements("inet", "t", "s", "443", "1000")
    firewall.delete_elements("inet", "t", "s", "22")
    assert firewall.elements("inet", "t", "s") == [80, 443, 1000]


def test_a_transaction_is_all_or_nothing(firewall: Firewall) -> None:
    with pytest.raises(FirewallError, match="No such file"), firewall.transaction() as commands:
        commands += ["add chain inet t x", "add rule inet t nowhere accept"]
    with pytest.raises(KeyError), firewall.transaction() as commands:
        commands.append("flush ruleset")
        raise KeyError
    assert [chain.name for chain in firewall.chains()] == ["i", "r"]


def test_check(firewall: Firewall) -> None:
    assert firewall.check("delete table inet t") is None
    assert "No such file" in (firewall.check("delete table inet u") or "")
    assert firewall.tables()


def test_names_are_checked(firewall: Firewall) -> None:
    for bad in ("t; flush ruleset", "", "a b", "{"):
        with pytest.raises(ValueError):
            firewall.delete_rule("inet", bad, "c", 1)
