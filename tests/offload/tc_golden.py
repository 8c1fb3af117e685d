"""What `tc` sends for flower filters: the cases, and a recorder for their golden bytes.

`python tests/offload/tc_golden.py` runs tc under strace for each case, on the interface `lo` (index 1) of a namespace of its own,
and writes tc_golden.json. The kernel's answer does not matter, so a kernel without flower records as well.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from userfw_hw.flower import filters
from userfw_hw.flower.connections import ZONES
from userfw_hw.flower.filters import CHAIN

from userfw.offload.contract import Actions, Match, Rule

GOLDEN = Path(__file__).with_suffix(".json")
PREF, ZONE = 30001, ZONES[0]
MAC = bytes.fromhex("0200c0a80101")
OUT = (bytes.fromhex("0200cb007101"), bytes.fromhex("0200cb007109"))  # Ethernet source and destination on the way out
V4 = (bytes([192, 168, 1, 2]), bytes([203, 0, 113, 9]))
V6 = (bytes.fromhex("fd000001" + "00" * 11 + "02"), bytes.fromhex("20010db8" + "00" * 11 + "09"))
NAT4, NAT6 = bytes([203, 0, 113, 1]), bytes.fromhex("20010db8" + "00" * 11 + "01")


@dataclass(frozen=True)
class Case:
    """`args` of `tc filter add dev lo ingress`, and the filter that must be the same."""

    name: str
    args: str
    item: filters.Filter


def rule(ends: tuple[bytes, bytes], protocol: int, tags: tuple[tuple[int, int], ...] = (), out: tuple[tuple[int, int], ...] = (),
         source: bytes = b"", port: int = 40000) -> Rule:  # fmt: skip
    """Number 7: from port 40000 to port 443, translated to `source` and `port`."""
    match = Match("lo", 1, protocol, ends[0], ends[1], 40000, 443, tags)
    return Rule(7, match, Actions("lo", 1, source or ends[0], ends[1], port, 443, OUT[0], OUT[1], out))


def case(name: str, made: Rule, args: str, flags: int = filters.SKIP_HW, mark: int = 0) -> Case:
    """A flow's case; what every flow has is put around `args`."""
    head = f"pref {PREF} {args}"
    item = filters.of_rule(made, PREF, flags, MAC, mark)
    return Case(name, head, replace(item, cookie=b""))  # tc would put one cookie on every action


ETH = f"munge eth dst set {OUT[1].hex(':')} munge eth src set {OUT[0].hex(':')}"
END4 = "src_ip 192.168.1.2 dst_ip 203.0.113.9"
END6 = "src_ip fd00:1::2 dst_ip 2001:db8::9"
TCP = "src_port 40000 dst_port 443 tcp_flags 0/7 ip_flags nofrag"
UDP = "src_port 40000 dst_port 443 ip_flags nofrag"
COOKIE = (filters.COOKIE + (7).to_bytes(8, "big")).hex()
HERE = f"dst_mac {MAC.hex(':')}"
SETS = f"action pedit ex {ETH}"
GO = "action mirred egress redirect dev lo"
NATTED = rule(V4, 6, source=NAT4, port=50000)

CASES = [
    case(
        "ipv4 tcp", rule(V4, 6),
        f"protocol ip handle 7 flower skip_hw {HERE} ip_proto tcp {END4} {TCP} "
        f"{SETS} munge ip ttl dec pipe action csum ip4h pipe {GO}",
    ),
    case(
        "ipv4 tcp nat", rule(V4, 6, source=NAT4, port=50000),
        f"protocol ip handle 7 flower skip_hw {HERE} ip_proto tcp {END4} {TCP} "
        f"{SETS} munge ip src set 203.0.113.1 munge tcp sport set 50000 munge ip ttl dec "
        f"pipe action csum ip4h and tcp pipe {GO}",
    ),
    case(
        "ipv4 udp nat in hardware", rule(V4, 17, source=NAT4),
        f"protocol ip handle 7 flower skip_sw {HERE} ip_proto udp {END4} {UDP} "
        f"{SETS} munge ip src set 203.0.113.1 munge ip ttl dec pipe action csum ip4h and udp pipe {GO}",
        filters.SKIP_SW,
    ),
    case(
        "ipv6 tcp nat", rule(V6, 6, source=NAT6),
        f"protocol ipv6 handle 7 flower skip_hw {HERE} ip_proto tcp {END6} {TCP} "
        f"{SETS} munge ip6 src set 2001:db8::1 munge ip6 hoplimit dec pipe action csum tcp pipe {GO}",
    ),
    case(
        "tag off, two on, mark", rule(V4, 17, ((0x8100, 10),), ((0x88A8, 20), (0x8100, 30))),
        f"protocol 802.1Q handle 7 flower skip_hw vlan_id 10 vlan_ethtype ip {HERE} ip_proto udp {END4} {UDP} "
        f"action vlan pop pipe action pedit ex {ETH} munge ip ttl dec pipe action csum ip4h pipe "
        "action vlan push id 30 protocol 802.1Q pipe action vlan push id 20 protocol 802.1ad pipe "
        f"action skbedit mark 7 pipe {GO}", mark=7,
    ),
    case(
        "two tags off", rule(V6, 17, ((0x88A8, 20), (0x8100, 30))),
        f"protocol 802.1ad handle 7 flower skip_hw vlan_id 20 vlan_ethtype 802.1Q cvlan_id 30 cvlan_ethtype ipv6 {HERE} "
        f"ip_proto udp {END6} {UDP} action vlan pop pipe action vlan pop pipe {SETS} munge ip6 hoplimit dec pipe {GO}",
    ),
    Case(
        "ct nat", f"pref {PREF} protocol ip handle 7 flower skip_hw {HERE} ip_proto tcp {END4} {TCP} "
        f"action ct zone {ZONE} nat pipe action goto chain {CHAIN}",
        replace(filters.enter(NATTED, PREF, filters.SKIP_HW, ZONE, MAC), cookie=b""),
    ),
    Case(
        "ct nat, in its chain", f"pref {PREF} chain {CHAIN} protocol ip handle 7 flower skip_hw ct_state +trk+est-rpl "
        f"ct_zone {ZONE} ct_mark 99 action ct clear pipe {SETS} munge ip ttl dec pipe action csum ip4h pipe "
        f"action skbedit mark 7 pipe {GO}",
        replace(filters.leave(NATTED, PREF, filters.SKIP_HW, ZONE, 99, False, 7), cookie=b""),
    ),
    Case(
        "ct nat, the tagged reply in its chain", f"pref {PREF} chain {CHAIN} protocol 802.1Q handle 7 flower skip_hw vlan_id 10 "
        f"vlan_ethtype ipv6 ct_state +trk+est+rpl ct_zone {ZONE} ct_mark 99 action ct clear pipe action vlan pop pipe {SETS} "
        f"munge ip6 hoplimit dec pipe {GO}",
        replace(filters.leave(rule(V6, 17, ((0x8100, 10),), source=NAT6), PREF, filters.SKIP_HW, ZONE, 99, True), cookie=b""),
    ),
    Case(
        "ct, lost", f"pref {PREF} chain {CHAIN} protocol all handle 1 flower skip_hw {GO}",
        replace(filters.lost(1, PREF, 1), cookie=b""),
    ),
    Case(
        "drop",
        f"pref {PREF} protocol ip handle 7 flower skip_sw src_ip 10.0.0.0/8 ip_proto udp dst_port 53 action drop cookie {COOKIE}",
        filters.Filter(
            1, PREF, 0x0800, 7,
            (("KEY_IPV4_SRC", bytes([10, 0, 0, 0])), ("KEY_IPV4_SRC_MASK", bytes([255, 0, 0, 0])), ("KEY_IP_PROTO", 17),
             ("KEY_UDP_DST", 53)),
            (filters.verdict(filters.ACT_SHOT),), filters.SKIP_SW, filters.COOKIE + (7).to_bytes(8, "big"),
        ),
    ),
    Case(
        "copy", f"pref {PREF} protocol ip handle 7 flower skip_hw ip_proto udp action mirred egress mirror dev lo pipe action ok",
        filters.Filter(
            1, PREF, 0x0800, 7, (("KEY_IP_PROTO", 17),), (filters.mirror(1), filters.verdict(filters.ACT_OK)), filters.SKIP_HW
        ),
    ),
]  # fmt: skip


def missing() -> str:
    """Why nothing can be recorded here; empty if it can."""
    absent = [tool for tool in ("tc", "strace", "unshare") if shutil.which(tool) is None]
    return f"{', '.join(absent)} not installed" if absent else ""


def sent(case: Case) -> bytes:
    """The request that tc sends, with its sequence number zeroed. OSError if it could not be watched."""
    watch = ["unshare", "-rn", "strace", "-qq", "-e", "trace=sendmsg", "-e", "write=3", "-s", "1"]
    add = ["tc", "filter", "add", "dev", "lo", "ingress", *case.args.split()]
    text = subprocess.run([*watch, *add], capture_output=True, text=True, timeout=30).stderr
    best = b""
    for block in text.split("sendmsg(")[1:]:
        rows = re.findall(r"^ \| [0-9a-f]{5}  ((?:[0-9a-f]{2} +)+)", block, re.M)
        data = bytes.fromhex("".join(rows))
        if data[4:6] == b"\x2c\0":
            best = data
    if not best:
        raise OSError(f"{case.name}: tc sent no filter: {text[-400:]}")
    return best[:8] + bytes(8) + best[16:]


def main() -> None:
    """Record every case."""
    GOLDEN.write_text(json.dumps({case.name: sent(case).hex() for case in CASES}, indent=0) + "\n")


if __name__ == "__main__":
    main()
