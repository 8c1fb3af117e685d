"""The typed API on a private ruleset."""

from __future__ import annotations

import pytest

from userfw import client
from userfw.client import Chain, Counter, Element, Event, Firewall, FirewallError, Flowtable, Quota, Set, Table

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
    return Firewall.private(RULES)


def test_what_there_is(firewall: Firewall) -> None:
    assert firewall.tables() == [Table("inet", "t", 1)]
    assert firewall.chains() == [
        Chain("inet", "t", "i", 1, "filter", "input", -5, "drop"),
        Chain("inet", "t", "r", 2),
    ]
    (rule,) = firewall.rules("inet", "t", "i")
    assert (rule.comment, rule.counter) == ("hello", (7, 8))
    assert firewall.counters() == [Counter("inet", "t", "c", 3, 4)]
    assert firewall.sets() == [Set("inet", "t", "s", 4, ("inet_service",))]
    assert firewall.maps() == [Set("inet", "t", "m", 5, ("inet_service",), ("verdict",))]
    assert firewall.elements("inet", "t", "s") == [Element(22), Element(80)]
    assert firewall.elements("inet", "t", "m") == [Element(53, "accept")]


def test_rules_by_handle(firewall: Firewall) -> None:
    handle = firewall.add_rule("inet", "t", "r", "udp dport 5 drop")
    assert [rule.handle for rule in firewall.rules("inet", "t", "r")] == [handle]
    firewall.delete_rule("inet", "t", "r", handle)
    assert firewall.rules("inet", "t", "r") == []


def test_rules_at_their_place(firewall: Firewall) -> None:
    middle = firewall.add_rule("inet", "t", "r", "udp dport 5 drop")
    first = firewall.insert_rule("inet", "t", "r", "udp dport 4 drop")
    fourth = firewall.add_rule("inet", "t", "r", "udp dport 7 drop", after=middle)
    third = firewall.insert_rule("inet", "t", "r", "udp dport 6 drop", before=fourth)
    firewall.replace_rule("inet", "t", "r", middle, 'counter packets 1 bytes 2 comment "new"')
    rules = firewall.rules("inet", "t", "r")
    assert [rule.handle for rule in rules] == [first, middle, third, fourth]
    assert (rules[1].counter, rules[1].comment) == ((1, 2), "new")


ELEMENTS = """
table inet t {
  set s { type ipv4_addr . inet_service; flags interval, timeout; timeout 1m; size 10; comment "c"
    elements = { 10.0.0.0/8 . 5-7 timeout 20s comment "e", 192.0.2.1 . 9 timeout 2h }
  }
  map m { typeof ip saddr : meta mark; flags interval; elements = { 192.0.2.1-192.0.2.9 : 5, * : 7 }
  }
  chain c { }
  map v { type inet_service : verdict; counter
    elements = { 5 counter packets 2 bytes 80 : jump c, 6 counter packets 0 bytes 0 : drop }
  }
  set f { type tcp_flag; elements = { syn, syn | ack }
  }
  quota q { over 5 mbytes used 1 mbytes
  }
  flowtable ft { hook ingress priority filter + 1; devices = { "lo" }
  }
}
"""


def test_elements_are_numbers_text_and_tuples() -> None:
    firewall = Firewall.private(ELEMENTS)
    timed = firewall.elements("inet", "t", "s")
    assert {(one.key, one.timeout, one.comment) for one in timed} == {
        (("10.0.0.0/8", "5-7"), 20, "e"), (("192.0.2.1", 9), 7200, None)}  # fmt: skip
    assert all(one.timeout is not None and one.expires is not None and 0 <= one.expires <= one.timeout for one in timed)
    assert firewall.elements("inet", "t", "m") == [Element("192.0.2.1-192.0.2.9", 5), Element("*", 7)]
    assert firewall.elements("inet", "t", "v") == [Element(5, "jump c", counter=(2, 80)), Element(6, "drop", counter=(0, 0))]
    assert firewall.quotas() == [Quota("inet", "t", "q", 5 << 20, 1 << 20, True)]
    assert firewall.flowtables() == [Flowtable("inet", "t", "ft", firewall.flowtables()[0].handle, ("lo",), 1)]
    assert firewall.sets()[0].comment == "c"
    assert firewall.maps()[0].value == {"typeof": {"meta": {"key": "mark"}}}


def test_elements_can_be_put_back() -> None:
    """What `elements` gives, `add_elements` takes, and then there is the same."""
    firewall = Firewall.private(ELEMENTS)
    for name in ("s", "m", "v", "f"):
        before = firewall.elements("inet", "t", name)
        assert before
        firewall.run(f"flush {'map' if name in 'mv' else 'set'} inet t {name}")
        assert firewall.elements("inet", "t", name) == []
        firewall.add_elements("inet", "t", name, *before)
        assert [one.key for one in firewall.elements("inet", "t", name)] == [one.key for one in before]


def test_the_element_that_a_key_is_in() -> None:
    firewall = Firewall.private(ELEMENTS)
    assert firewall.element("inet", "t", "m", "192.0.2.5") == Element("192.0.2.1-192.0.2.9", 5)
    firewall.delete_elements("inet", "t", "m", "*")
    assert firewall.element("inet", "t", "m", "198.51.100.1") is None
    for name, key in (("nowhere", "192.0.2.5"), ("m", "no-address")):
        with pytest.raises(FirewallError):
            firewall.element("inet", "t", name, key)


def test_counters_and_quotas_are_reset(firewall: Firewall) -> None:
    assert [counter.packets for counter in firewall.counters(reset=True)] == [3]
    assert [counter.packets for counter in firewall.counters()] == [0]
    quotas = Firewall.private(ELEMENTS)
    assert [quota.used for quota in quotas.quotas(reset=True)] == [1 << 20]
    assert [quota.used for quota in quotas.quotas()] == [0]


def test_events_are_read_with_their_objects() -> None:
    added = {"add": {"element": {"family": "inet", "table": "t", "name": "s", "elem": {"set": [22, {"range": [80, 90]}]}}}}
    assert Event.of(added).elements == (Element(22), Element("80-90"))
    assert Event.of({"delete": {"table": {"family": "ip", "name": "t", "handle": 7}}}, 2) == Event(
        "delete", "table", {"family": "ip", "name": "t", "handle": 7}, Table("ip", "t", 7), (), 2
    )
    assert Event.of({"delete": {"quota": {"family": "ip", "name": "q", "table": "t", "handle": 7}}}).object is None


def test_a_private_ruleset_has_no_events(firewall: Firewall) -> None:
    with pytest.raises(FirewallError, match="private"):
        firewall.events()


def test_every_name_of_the_package_is_there() -> None:
    assert all(getattr(client, name).__module__.startswith("userfw.client.") for name in client.__all__)
    with pytest.raises(AttributeError, match="Firewal'"):
        client.Firewal  # noqa: B018


def test_elements(firewall: Firewall) -> None:
    firewall.add_elements("inet", "t", "s", "443", "1000")
    firewall.delete_elements("inet", "t", "s", "22")
    assert [one.key for one in firewall.elements("inet", "t", "s")] == [80, 443, 1000]


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
        with pytest.raises(ValueError):
            firewall.delete_rule(bad, "t", "c", 1)
