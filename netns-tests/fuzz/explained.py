"""The classes of differences that docs/differences.md explains; each is recognised by taking its trigger out of the case.

Laws
- A case is explained only if it has a class's trigger and, without the trigger, kernel and userfw do the same. A rule or a packet
  that merely stands beside is no reason.
- Several classes at once: their triggers are taken out one after the other; the names of all are counted.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from .compare import Case
from .rules import without_rules
from .traffic import Step


@dataclass(frozen=True)
class Class:
    """`without`: the case less its trigger, or the case itself where there is none; `why`: the words of docs/differences.md."""

    name: str
    why: str
    without: Callable[[Case], Case]


def _rules(case: Case, pattern: str) -> bool:
    return re.search(pattern, case.ruleset.text()) is not None


def _without_rules(case: Case, head: str, pattern: str) -> Case:
    """The case less the rules with `pattern` in chains whose head has `head`."""
    less = without_rules(case.ruleset, head, pattern)
    return case if less == case.ruleset else replace(case, ruleset=less)


def _with_packets(step: Step, packets: tuple[bytes, ...]) -> Step:
    return step if packets == step.packets else replace(step, packets=packets)


def _without_packets(case: Case, wrong: Callable[[bytes], bool], kind: str = "") -> Case:
    """The case less the packets (of steps of a kind) of which `wrong` holds."""
    return replace(case, steps=tuple(
        step if kind and step.kind != kind else _with_packets(step, tuple(p for p in step.packets if not wrong(p)))
        for step in case.steps))


def _without_gre(case: Case) -> Case:
    return _without_packets(case, _is_gre) if _rules(case, r"redirect|dnat|addr set|map") else case


def _is_gre(packet: bytes) -> bool:
    at = 9 if packet[0] >> 4 == 4 else 40 if packet[6:7] == b"\x2c" else 6
    return packet[at:at + 1] == b"\x2f"


def _without_copied(case: Case, wrong: Callable[[bytes], bool]) -> Case:
    """No such packets where prerouting makes copies of packets."""
    return case if _without_rules(case, "hook prerouting", r"\bdup to") == case else _without_packets(case, wrong)


def _to_group(packet: bytes) -> bool:
    return len(packet) >= 40 and packet[0] >> 4 == 6 and packet[24] == 0xFF


def _from_many(packet: bytes) -> bool:
    return len(packet) >= 20 and packet[0] >> 4 == 4 and packet[12] >= 224


def _without_times(case: Case) -> Case:
    """No IPv4 timestamp options where a rule asks for what may be a checksum."""
    return _without_packets(case, _tells_time) if _rules(case, r"\bth [sd]port (?!set)|@th,16,16 (?!set)") else case


def _tells_time(packet: bytes) -> bool:
    return len(packet) >= 20 and packet[0] >> 4 == 4 and b"\x44" in packet[20:(packet[0] & 15) * 4]


def _without_host_made(case: Case) -> Case:
    """No fragments in frames where rules change who a packet is for."""
    return _without_packets(case, _fragment_to_all, "frames") if _rules(case, r"pkttype set") else case


def _fragment_to_all(frame: bytes) -> bool:
    four = frame[12:14] == b"\x08\0" and len(frame) >= 34 and (frame[20] & 0x3F or frame[21]) != 0
    return frame[0] & 1 == 1 and (four or (frame[12:14] == b"\x86\xdd" and frame[20:21] == b"\x2c"))


CLASSES = (
    Class("GRE that a rule sends to the router itself", "the kernel's host listens to GRE, and is silent about what it cannot use",
          _without_gre),
    Class("deleted elements",
          "an element that a rule deleted takes room in its set, and in its chain of the hash table, until Linux collects it "
          "within a second: others, or itself, may not be added before",
          lambda case: _without_rules(case, "", r"delete @\w+")),
    Class("header changed before local UDP",
          "Linux's own UDP takes datagrams above 76 bytes for damaged when a rule changed their IPv6 header or ports after "
          "conntrack had summed them",
          lambda case: _without_rules(case, "hook (prerouting|input)", r"ip6 \w+ set|@nh,\S+ set|udp [sd]port set")),
    Class("ICMP fields after several types",
          "nft takes `icmp id` after a set of types by the last that is written; userfw by any of them",
          lambda case: _without_rules(case, "", r"icmp(v6)? type \{[^}]*,[^}]*\} .*icmp(v6)? (id|sequence|mtu|gateway)")),
    Class("copy to a group",
          "a copy that `dup` makes at prerouting of a packet to a group comes back there; Linux copies it again, without end",
          lambda case: _without_copied(case, _to_group)),
    Class("copy of a packet from everybody",
          "Linux sends errors about a copy that `dup` makes of a packet from 255.255.255.255, to that address; userfw none",
          lambda case: _without_copied(case, _from_many)),
    Class("time of day in a checksum",
          "an error quotes what the clock wrote into a timestamp option, and a rule may ask whether its checksum is below a number",
          _without_times),
    Class("identification of the gateway's own",
          "it is a random number, of which a rule may ask whether it is below another",
          lambda case: _without_rules(case, "hook (output|postrouting|egress)", r"\bip id (?!set)")),
    Class("flooded and forwarded",
          "fragments to everybody that a rule makes the router's: Linux joins them, forwards them, and writes the "
          "new headers into buffers that the flooded frames still share (ip_do_fragment asks skb_shared, not skb_cloned)",
          _without_host_made),
    Class("destination mapped by prefix",
          "whether a connection whose IPv4 destination a prefix maps to itself has the status dnat: Linux compares memory that "
          "nobody wrote",
          lambda case: _without_rules(case, "", r"dnat ip prefix")),
)


def taken_in_spite(errno_name: str, place: tuple[str, str, str], text: str) -> str:
    """Why userfw takes a rule that the kernel refuses, in the words of docs/differences.md; empty if nothing explains it."""
    refused = errno_name in ("EOPNOTSUPP", "ENOTSUP")  # one number, two names
    if refused and text.startswith("dccp option"):
        return "dccp options (CONFIG_NFT_EXTHDR_DCCP is off)"
    return "osf in ip6" if refused and place[0] == "ip6" and "osf " in text else ""


def explain(case: Case, differs: Callable[[Case], object]) -> list[str]:
    """The names of the classes that together are all of the difference; empty: it is not explained."""
    names = []
    for one in CLASSES:
        less = one.without(case)
        if less != case:
            names.append(one.name)
            case = less
            if not differs(case):
                return names
    return []
