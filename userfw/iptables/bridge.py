"""Extensions of ebtables and arptables; a row each.

Laws: ebtables knows every match without ``-m``; its watchers (log, nflog) stand where their first option stood.
Source: ebtables-nft(8), arptables-nft(8).
"""

from __future__ import annotations

from typing import Any

from userfw.iptables.errors import UsageError
from userfw.iptables.extension import ARPS, EB, Extension, Option, Rule, Use, Words
from userfw.iptables.icmp import by_name
from userfw.iptables.limits import LIMIT_OPTIONS, limit_words
from userfw.iptables.matches import RAW
from userfw.iptables.targets import LEVEL
from userfw.iptables.values import (
    ADDRESS4,
    ALL_ONES,
    HEX,
    MAC,
    MAC_SHORT,
    PORT_RANGE,
    PROTOCOL,
    Bad,
    Context,
    Kind,
    bare_hex,
    choice,
    compare,
    integer,
    mac,
    network_of,
    number,
    pair,
    protocol_text,
    show_range,
    span,
    string,
)

ETHERTYPES = {
    "ip": 0x800, "ipv4": 0x800, "arp": 0x806, "rarp": 0x8035, "ip6": 0x86DD, "ipv6": 0x86DD, "802_1q": 0x8100, "vlan": 0x8100,
    "802_1ad": 0x88A8, "qinq": 0x88A8, "ppp_disc": 0x8863, "ppp_ses": 0x8864, "ipx": 0x8137, "atalk": 0x809B, "aarp": 0x80F3,
    "mpls": 0x8847, "netbeui": 0x8191, "x25": 0x805, "mpls_uc": 0x8847, "mpls_multi": 0x8848, "atmmpoa": 0x884C,
    "atmfate": 0x8884, "lat": 0x6004, "dec": 0x6000,
}  # fmt: skip


def ethertype(text: str) -> int:
    """An Ethernet protocol by its name or hexadecimal number, at least 0x0600."""
    name = text.lower()
    if name in ETHERTYPES:
        return ETHERTYPES[name]
    digits = name[2:] if name.startswith("0x") else name
    return integer(digits, 0x600, 0xFFFF, 16)


ETHERTYPE = Kind(lambda text, context: ethertype(text), "0x{:04x}".format)


# --- ip and ip6


def _read_icmp(version: int) -> Kind:
    def read(text: str, context: Context) -> tuple[tuple[int, int], tuple[int, int] | None]:
        try:
            kind, code = by_name(text, version)
            return (kind, kind), None if code is None else (code, code)
        except Bad:
            pass
        kinds, slash, codes = text.partition("/")

        def one(part: str) -> int:
            return integer(part, 0, 255)

        return pair(kinds, one, 255), pair(codes, one, 255) if slash else None

    def express(left: str, inverted: bool, value: Any, family: Any) -> str:
        kinds, codes = value
        if codes is None:
            return compare(f"{left} type", inverted, show_range(kinds))
        if inverted:
            return f"{left} type . {left} code != {{ {show_range(kinds)} . {show_range(codes)} }}"
        return f"{left} type {show_range(kinds)} {left} code {show_range(codes)}"

    return Kind(read, own=express)


def _network_header(use: Use, rule: Rule) -> Words:
    """``ether type`` is said only when nothing else implies it."""
    name = use.extension.name
    words = list(use.texts(rule, f"{name}-source", f"{name}-destination"))
    implied = bool(words)
    words += use.texts(rule, f"{name}-tos", f"{name}-tclass")
    implied = implied or f"{name}-tclass" in use
    transport = use.value(f"{name}-protocol")
    ports = [option for option in (f"{name}-source-port", f"{name}-destination-port") if option in use]
    below = ports or f"{name}-icmp-type" in use or f"{name}-igmp-type" in use
    if transport is not None and (not below or use.inverted(f"{name}-protocol")):
        words += use.texts(rule, f"{name}-protocol")
        implied = implied or name == "ip"
    word = protocol_text(transport) if transport in (6, 17, 33, 132, 136) else "th"
    for option in ports:
        side = "sport" if "source" in option else "dport"
        words.append(compare(f"{word} {side}", use.inverted(option), show_range(use.value(option))))
    if f"{name}-igmp-type" in use or any(given.option.text == "" for given in use.given.values()):
        return None
    words += use.texts(rule, f"{name}-icmp-type")
    implied = implied or f"{name}-icmp-type" in use
    return words if implied else [f"ether type {name}", *words]


def _show_protocol(value: int) -> str:
    return protocol_text(value)


_PROTO = Kind(PROTOCOL.read, _show_protocol)


def _network_options(name: str, bits: int, traffic: Option, icmp: Option, protocol_text_left: str) -> tuple[Option, ...]:
    return (
        Option(f"{name}-source", network_of(bits), f"{name} saddr", invert=True, aliases=(f"{name}-src",)),
        Option(f"{name}-destination", network_of(bits), f"{name} daddr", invert=True, aliases=(f"{name}-dst",)),
        traffic,
        Option(f"{name}-protocol", _PROTO, protocol_text_left, invert=True, aliases=(f"{name}-proto",)),
        Option(f"{name}-source-port", PORT_RANGE, "sport", invert=True, aliases=(f"{name}-sport",)),
        Option(f"{name}-destination-port", PORT_RANGE, "dport", invert=True, aliases=(f"{name}-dport",)),
        icmp,
    )


def needs(*types: int) -> Any:
    """A check that the rule is for one of these Ethernet protocols."""

    def check(use: Use, rule: Rule) -> None:
        given, inverted = rule.fields.get("ethertype", (None, False))
        if inverted or given not in types:
            raise UsageError(f"{use.extension.name}: the protocol (-p) must be the extension's own")

    return check


def _ports_check(use: Use, rule: Rule) -> None:
    needs({"ip": 0x800, "ip6": 0x86DD}[use.extension.name])(use, rule)
    name = use.extension.name
    if f"{name}-icmp-type" in use and any(f"{name}-{side}-port" in use for side in ("source", "destination")):
        raise UsageError(f"{name}: ports and ICMP types cannot be used together")
    if any(f"{name}-{side}-port" in use for side in ("source", "destination")):
        if use.value(f"{name}-protocol") not in (6, 17, 33, 132, 136) or use.inverted(f"{name}-protocol"):
            raise UsageError("For port filtering the IP protocol must be either 6 (tcp), 17 (udp), 33 (dccp) or 132 (sctp)")


_TOS = number(255, base=16, show="0x{:02x}")
_TCLASS = Kind(_TOS.read, lambda value: f"{value >> 2:#04x}")

# --- marks, limits, logs


def _read_mark_mask(text: str, context: Context) -> tuple[int, int | None]:
    value, slash, mask = text.partition("/")
    if slash and not value:
        return integer(mask), None
    return integer(value), integer(mask) if slash else ALL_ONES


def _express_mark_mask(left: str, inverted: bool, value: tuple[int, int | None], family: Any) -> str:
    number_, mask = value
    if mask is None:
        return f"{left} and {number_:#x} {'==' if inverted else '!='} 0"
    if mask == ALL_ONES:
        return compare(left, inverted, f"{number_:#x}")
    return f"{left} and {mask:#x} {'!=' if inverted else '=='} {number_:#x}"


def _log(use: Use, rule: Rule) -> Words:
    prefix = f'prefix "{use.value("log-prefix")}" ' if use.value("log-prefix") else ""
    return [f"log {prefix}level {use.value('log-level', 'notice')} flags ether"]


def _nflog(use: Use, rule: Rule) -> Words:
    words = ["log"]
    if use.value("nflog-prefix"):
        words.append(f'prefix "{use.value("nflog-prefix")}"')
    words.append(f"group {use.value('nflog-group', 1)}")
    for name, word in (("nflog-range", "snaplen"), ("nflog-threshold", "queue-threshold")):
        if name in use:
            words.append(f"{word} {use.value(name)}")
    return [" ".join(words)]


_PKTTYPES = {
    "host": "host", "unicast": "host", "broadcast": "broadcast", "multicast": "multicast", "otherhost": "other",
    "outgoing": "4", "loopback": "5", "fastroute": "6",
}  # fmt: skip

# --- targets

VERDICT = choice({"accept": "accept", "drop": "drop", "continue": "continue", "return": "return"})


def _verdict(option: str) -> Option:
    return Option(option, VERDICT)


def _mark(use: Use, rule: Rule) -> Words:
    name = next(name for name in use.given if name != "mark-target")
    value = use.value(name)
    how = f"{value:#x}" if name == "mark-set" else f"meta mark {name.removeprefix('mark-')} {value:#x}"
    return [f"meta mark set {how}", use.value("mark-target", "accept")]


def _ether_nat(use: Use, rule: Rule) -> Words:
    kind, side = ("snat", "saddr") if use.extension.name == "snat" else ("dnat", "daddr")
    target = next(given for name, given in use.given.items() if name.startswith("to-"))
    if "snat-arp" in use:
        return None
    return [f"ether {side} set {target.option.kind.show(target.value)}", use.value(f"{kind}-target", "accept")]


def _redirect(use: Use, rule: Rule) -> Words:
    return ["meta pkttype set host", use.value("redirect-target", "accept")]


def _mangle(use: Use, rule: Rule) -> Words:
    words = [f"{given.option.text} set {given.option.kind.show(given.value)}"
             for option in use.extension.options if option.text and (given := use.given.get(option.name))]  # fmt: skip
    verdict = use.value("mangle-target", "accept")
    return words if verdict == "continue" else [*words, verdict]


def _read_among(text: str, context: Context) -> list[tuple[bytes, int | None]]:
    """Link-layer addresses, each with an IPv4 address behind ``=`` if at all."""
    members = []
    for part in text.rstrip(",").split(","):
        left, equals, right = part.partition("=")
        members.append((mac(left), ADDRESS4.read(right, context) if equals else None))
    return members


def _length_check(use: Use, rule: Rule) -> None:
    if rule.fields.get("length") != (True, False):
        raise UsageError("For 802.3 DSAP/SSAP filtering the protocol must be LENGTH")


MARK_HOW = ("mark-set", "mark-or", "mark-and", "mark-xor")

BRIDGE_MATCHES: tuple[Extension, ...] = (
    Extension(
        "ip",
        (
            *_network_options(
                "ip", 32, Option("ip-tos", _TOS, "@nh,8,8", invert=True),
                Option("ip-icmp-type", _read_icmp(4), "icmp", invert=True), "ip protocol",
            ),
            Option("ip-igmp-type", RAW, invert=True),
        ),
        EB, render=_network_header, check=_ports_check,
    ),
    Extension(
        "ip6",
        _network_options(
            "ip6", 128, Option("ip6-tclass", _TCLASS, "ip6 dscp", invert=True),
            Option("ip6-icmp-type", _read_icmp(6), "icmpv6", invert=True), "meta l4proto",
        ),
        EB, render=_network_header, check=_ports_check,
    ),
    Extension(
        "vlan",
        (
            Option("vlan-id", number(4095), "vlan id", invert=True),
            Option("vlan-prio", number(7), "vlan pcp", invert=True),
            Option("vlan-encap", ETHERTYPE, "vlan type", invert=True),
        ),
        EB, check=needs(0x8100, 0x88A8), shadow=("802_1q",),
    ),
    Extension("mark_m", (Option("mark", Kind(_read_mark_mask, own=_express_mark_mask), "meta mark", invert=True),), EB),
    Extension("pkttype", (Option("pkttype-type", choice(_PKTTYPES), "meta pkttype", invert=True),), EB),
    Extension("limit", LIMIT_OPTIONS, EB, render=limit_words),
    Extension(
        "log",
        (
            Option("log"), Option("log-prefix", string(29)), Option("log-level", LEVEL),
            *(Option(f"log-{name}") for name in ("ip", "arp", "ip6")),
        ),
        EB, render=_log,
    ),
    Extension(
        "nflog",
        (
            Option("nflog"), Option("nflog-group", number(0xFFFF)), Option("nflog-prefix", string(63)),
            Option("nflog-range", number()), Option("nflog-threshold", number(0xFFFF)),
        ),
        EB, render=_nflog,
    ),
    # no words in nft's translation
    Extension("among", tuple(
        Option(f"among-{name}", Kind(_read_among) if name in ("src", "dst") else RAW, invert=True)
        for name in ("src", "dst", "src-file", "dst-file")), EB),
    Extension("802_3", (Option("802_3-sap", Kind(lambda text, context: bare_hex(text, 255)), invert=True),
                        Option("802_3-type", Kind(lambda text, context: bare_hex(text, 0xFFFF)), invert=True)), EB,
              check=_length_check),
    Extension(
        "arp",
        (
            Option("arp-opcode", RAW, invert=True, aliases=("arp-op",)), Option("arp-htype", RAW, invert=True),
            Option("arp-ptype", RAW, invert=True), Option("arp-ip-src", network_of(32), invert=True),
            Option("arp-ip-dst", network_of(32), invert=True), Option("arp-mac-src", RAW, invert=True),
            Option("arp-mac-dst", RAW, invert=True), Option("arp-gratuitous", invert=True),
        ),
        EB, check=needs(0x806, 0x8035),
    ),
    Extension(
        "stp",
        (
            *(Option(f"stp-{name}", span(0xFFFF), invert=True) for name in (
                "root-prio", "sender-prio", "port", "msg-age", "max-age", "hello-time", "forward-delay")),
            Option("stp-root-cost", span(), invert=True),
            *(Option(f"stp-{name}", RAW, invert=True) for name in ("flags", "type", "root-addr", "sender-addr")),
        ),
        EB,
    ),
)  # fmt: skip

BRIDGE_TARGETS: tuple[Extension, ...] = (
    Extension("mark", (*(Option(name, HEX) for name in MARK_HOW), _verdict("mark-target")), EB,
              render=_mark, one_of=MARK_HOW, alone=(MARK_HOW,)),
    Extension("snat", (Option("to-source", MAC_SHORT, required=True, aliases=("to-src",)), _verdict("snat-target"),
                       Option("snat-arp")), EB, render=_ether_nat),
    Extension("dnat", (Option("to-destination", MAC_SHORT, required=True, aliases=("to-dst",)), _verdict("dnat-target")), EB,
              render=_ether_nat),
    Extension("redirect", (_verdict("redirect-target"),), EB, render=_redirect),
    Extension("arpreply", (Option("arpreply-mac", MAC), _verdict("arpreply-target")), EB, check=needs(0x806)),
    Extension(
        "mangle",
        (
            Option("mangle-ip-s", ADDRESS4, "arp saddr ip"), Option("mangle-mac-s", MAC, "arp saddr ether"),
            Option("mangle-ip-d", ADDRESS4, "arp daddr ip"), Option("mangle-mac-d", MAC, "arp daddr ether"),
            Option("mangle-target", choice({"ACCEPT": "accept", "DROP": "drop", "CONTINUE": "continue"}, fold=False)),
        ),
        ARPS, render=_mangle,
    ),
)  # fmt: skip
