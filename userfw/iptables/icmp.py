"""ICMP's types and codes: the names that iptables takes, and what nft calls them."""

from __future__ import annotations

from typing import Any

from userfw.iptables.values import Bad, Context, Kind, compare, integer
from userfw.nft.datatype_tables import ICMP_TYPE, ICMPV6_TYPE

# name: (type, code or None for every code)
_NAMES: dict[str, tuple[int, int | None]] = {
    "echo-reply": (0, None), "pong": (0, None), "destination-unreachable": (3, None),
    **{name: (3, code) for code, name in enumerate((
        "network-unreachable", "host-unreachable", "protocol-unreachable", "port-unreachable", "fragmentation-needed",
        "source-route-failed", "network-unknown", "host-unknown"))},
    "network-prohibited": (3, 9), "host-prohibited": (3, 10), "TOS-network-unreachable": (3, 11),
    "TOS-host-unreachable": (3, 12), "communication-prohibited": (3, 13), "host-precedence-violation": (3, 14),
    "precedence-cutoff": (3, 15), "source-quench": (4, None), "redirect": (5, None), "network-redirect": (5, 0),
    "host-redirect": (5, 1), "TOS-network-redirect": (5, 2), "TOS-host-redirect": (5, 3), "echo-request": (8, None),
    "ping": (8, None), "router-advertisement": (9, None), "router-solicitation": (10, None), "time-exceeded": (11, None),
    "ttl-exceeded": (11, None), "ttl-zero-during-transit": (11, 0), "ttl-zero-during-reassembly": (11, 1),
    "parameter-problem": (12, None), "ip-header-bad": (12, 0), "required-option-missing": (12, 1),
    "timestamp-request": (13, None), "timestamp-reply": (14, None), "info-request": (15, None), "info-reply": (16, None),
    "address-mask-request": (17, None), "address-mask-reply": (18, None),
}  # fmt: skip
_NAMES6: dict[str, tuple[int, int | None]] = {
    "destination-unreachable": (1, None), "no-route": (1, 0), "communication-prohibited": (1, 1), "beyond-scope": (1, 2),
    "address-unreachable": (1, 3), "port-unreachable": (1, 4), "failed-policy": (1, 5), "reject-route": (1, 6),
    "packet-too-big": (2, None), "time-exceeded": (3, None), "ttl-exceeded": (3, None), "ttl-zero-during-transit": (3, 0),
    "ttl-zero-during-reassembly": (3, 1), "parameter-problem": (4, None), "bad-header": (4, 0), "unknown-header-type": (4, 1),
    "unknown-option": (4, 2), "echo-request": (128, None), "ping": (128, None), "echo-reply": (129, None), "pong": (129, None),
    "mld-listener-query": (130, None), "mld-listener-report": (131, None), "mld-listener-done": (132, None),
    "mld-listener-reduction": (132, None), "router-solicitation": (133, None), "router-advertisement": (134, None),
    "neighbour-solicitation": (135, None), "neighbor-solicitation": (135, None), "neighbour-advertisement": (136, None),
    "neighbor-advertisement": (136, None), "redirect": (137, None),
}  # fmt: skip


def _kind(names: dict[str, tuple[int, int | None]], shown: dict[str, int], any_type: str, code_left: str) -> Kind:
    folded = {name.lower(): value for name, value in names.items()}
    words = {number: name for name, number in reversed(shown.items())}

    def read(text: str, context: Context) -> tuple[int, int | None] | None:
        name = text.lower()
        if name == any_type:
            return None
        found = [value for key, value in folded.items() if key.startswith(name)] if name not in folded else [folded[name]]
        if name and not name[0].isdigit() and found:
            if len(found) > 1:
                raise Bad(f'Ambiguous ICMP type "{text}"')
            return found[0]
        number, slash, code = text.removesuffix("/0:255").partition("/")
        value = integer(number, 0, 255)
        if value == 255 and not slash and any_type:
            return None
        return value, integer(code, 0, 255) if slash else None

    def express(left: str, inverted: bool, value: tuple[int, int | None] | None, family: Any) -> str:
        if value is None:
            return ""
        number, code = value
        if code is None:
            return compare(left, inverted, words.get(number, str(number)))
        if inverted:
            return f"{left} . {code_left} != {{ {number} . {code} }}"
        return f"{left} {words.get(number, str(number))} {code_left} {code}"

    return Kind(read, own=express)


ICMP_KIND = _kind(_NAMES, ICMP_TYPE.symbols, "any", "icmp code")
ICMPV6_KIND = _kind(_NAMES6, ICMPV6_TYPE.symbols, "", "icmpv6 code")


def by_name(text: str, version: int) -> tuple[int, int | None]:
    """The type and code of a name of ICMP or ICMPv6; raises Bad."""
    table = _NAMES if version == 4 else _NAMES6
    if text in table:
        return table[text]
    raise Bad(f"unknown ICMP type `{text}'")
