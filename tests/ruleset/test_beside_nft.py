"""What nft and the kernel print side by side with userfw (nft 1.0.6 on Linux 6.18, options and commands as typed by hand)."""

from __future__ import annotations

import pytest

from userfw.ruleset.manager import RulesetManager
from userfw.ruleset.options import Options
from userfw.ruleset.service import NftService

SET = "add table ip t; add set ip t s { type ipv4_addr; timeout 1h; gc-interval 90s; counter; elements = { 1.1.1.1 timeout 2d } }"


def run(manager: RulesetManager, text: str, **options: bool) -> str:
    result = manager.execute(text, Options(**options))  # type: ignore[arg-type]
    assert result.status == 0, result.errors
    return result.output


def refused(manager: RulesetManager, text: str) -> str:
    result = manager.execute(text)
    assert result.status == 1, text
    return result.errors.splitlines()[0]


@pytest.mark.parametrize("options", [{"numeric_time": True}, {"numeric": True}])
def test_numeric_times_are_seconds(options: dict[str, bool]) -> None:
    manager = RulesetManager()
    run(manager, SET)
    run(manager, "add ct timeout ip t c { protocol udp; policy = { replied : 2m }; }")
    run(manager, "add ct expectation ip t e { protocol tcp; dport 1; timeout 2m; size 1; }")
    run(manager, "add chain ip t c; add rule ip t c update @s { ip saddr timeout 2h }")
    listing = run(manager, "list ruleset", **options)
    for part in ("timeout 3600s", "gc-interval 90s", "timeout 172800s", "replied : 120s", "timeout 120s", "timeout 7200s"):
        assert part in listing
    assert "2d" not in listing and "timeout 2d" in run(manager, "list ruleset")


def test_a_check_echoes_nothing() -> None:
    manager = RulesetManager()
    assert run(manager, "add table ip t", echo=True, check=True) == ""
    assert run(manager, "add table ip t", echo=True).startswith("add table ip t\n# new generation")


def test_events_of_elements_tell_their_statements_and_their_time() -> None:
    manager = RulesetManager()
    texts: list[str] = []
    NftService(manager).monitor({}, lambda message: texts.extend(message["text"].splitlines()))
    run(manager, SET + "; add element ip t s { 2.2.2.2 }")
    run(manager, "delete element ip t s { 1.1.1.1 }")
    assert [text for text in texts if " element " in text] == [
        "add element ip t s { 1.1.1.1 counter packets 0 bytes 0 timeout 2d expires 2d }",
        "add element ip t s { 2.2.2.2 counter packets 0 bytes 0 expires 1h }",
        "delete element ip t s { 1.1.1.1 counter packets 0 bytes 0 timeout 2d expires 2d }",
    ]


def test_get_element_finds_the_catch_all_by_its_name_only() -> None:
    manager = RulesetManager()
    run(
        manager,
        "add table ip t; add map ip t m { type ipv4_addr : verdict; flags interval; elements = { 1.0.0.0/8 : accept, * : drop } }",
    )
    assert "No such file" in refused(manager, "get element ip t m { 2.0.0.0 }")
    assert "elements = { * : drop }" in run(manager, "get element ip t m { * }")
    assert "1.0.0.0/8" in run(manager, "get element ip t m { 1.2.3.4 }")


def test_tables_without_objects_are_passed_over_when_objects_are_listed() -> None:
    manager = RulesetManager()
    run(manager, "add table ip a; add table ip b; add counter ip b c")
    assert run(manager, "list quotas") == "table ip b {\n}\n"
    assert run(manager, "list sets") == "table ip a {\n}\ntable ip b {\n}\n"


def test_elements_from_packets_have_statements_in_dynamic_sets_only() -> None:
    manager = RulesetManager()
    run(manager, "add table ip t; add chain ip t c; add set ip t s { type ipv4_addr; }")
    assert "Invalid argument" in refused(manager, "add rule ip t c add @s { ip saddr counter }")
    run(manager, "add rule ip t c add @s { ip saddr }")
    run(manager, "add set ip t n { type ipv4_addr; }; add rule ip t c add @n { ip saddr counter }")  # declared here: made dynamic


@pytest.mark.parametrize(
    ("what", "is_"),
    [
        ("verdict", "datatype verdict (netfilter verdict), 0 bits"),
        ("ifname", "datatype ifname (network interface name) (basetype string), 128 bits"),
        ("meta iifname", "meta expression, datatype ifname (network interface name) (basetype string), 16 characters"),
        ("vxlan vni", "payload expression, datatype integer (integer), 24 bits"),
        ("vxlan ip saddr", "payload expression, datatype ipv4_addr (IPv4 address) (basetype integer), 32 bits"),
        ("rt nexthop", "rt expression, datatype invalid (invalid)"),
        ("ct original saddr", "ct expression, datatype invalid (invalid)"),
        ("ipsec in reqid", "xfrm expression, datatype integer (integer), 32 bits"),
        ("tcp option 5", "exthdr expression, datatype integer (integer), 8 bits"),
        ("socket transparent", "socket expression, datatype integer (integer), 8 bits"),
        ("meta ipsec", "meta expression, datatype boolean (boolean type) (basetype integer), 8 bits"),
    ],
)
def test_describe(what: str, is_: str) -> None:
    assert run(RulesetManager(), f"describe {what}").splitlines()[0] == is_


def test_describe_names_the_days() -> None:
    assert f"\tSunday{' ' * 24}\t{' ' * 19}0\n" in run(RulesetManager(), "describe day")


@pytest.mark.parametrize(
    "rule",
    [
        "limit rate over 10 mbytes/hour burst 5 kbytes",
        "add @sized { ip saddr }",
        "add @ports { tcp dport }",
        "meta priority set 1:5",
    ],
)
def test_what_linux_refuses_or_does_elsewhere_and_userfw_takes(rule: str) -> None:
    """Rows of docs/differences.md."""
    manager = RulesetManager()
    run(manager, "add table ip t; add chain ip t c; add set ip t sized { type ipv4_addr; size 5; }")
    run(manager, "add set ip t ports { type inet_service; }")
    run(manager, f"add rule ip t c {rule}")
    assert rule in run(manager, "list chain ip t c")
