"""A short fuzz of the packet path at every test run; `run.py` is the long one."""

import pytest
from run import Fuzz

RULESET = """
table inet filter {
    set seen { type ipv4_addr . inet_service; flags dynamic; size 4096; timeout 10s; }
    chain early { type filter hook prerouting priority raw; ip dscp set cs1; tcp flags syn tcp option maxseg size set 1200; }
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state invalid counter drop
        ct state established,related accept
        ip6 nexthdr udp meta length > 1000 reject
        tcp dport { 22, 80-90 } limit rate 100/second burst 50 packets update @seen { ip saddr . tcp dport } accept
        udp dport 53 log prefix "dns " accept
        meta l4proto { icmp, icmpv6 } accept
        counter reject with icmpx admin-prohibited
    }
}
table ip nat {
    chain prerouting { type nat hook prerouting priority dstnat; iifname "wan" tcp dport 8080 dnat to 192.168.1.2:80; }
    chain postrouting { type nat hook postrouting priority srcnat; oifname "wan" masquerade; }
}
table ip6 nat {
    chain postrouting { type nat hook postrouting priority srcnat; oifname "wan" masquerade; }
}
"""


@pytest.mark.parametrize("ruleset", [None, RULESET], ids=["plain", "ruleset"])
def test_mutated_frames_never_escape(ruleset: str | None) -> None:
    fuzz = Fuzz(20_240_601, ruleset)
    fuzz.run(30_000)
    report = fuzz.report()
    assert report["faults"] == []
    assert sum(report["drops"].values()) >= report["dropped"] > 0
    assert "INTERNAL_ERROR" not in report["drops"] and "NOT_SPECIFIED" not in report["drops"]
    assert report["sent"]["wan"] > 1000  # much of it must get through, or nothing behind the first checks is tested
