"""Matches of packets' headers: iptables and ip6tables, ``-m NAME``; a row each.

Laws: the order of the options in a row is the order of their nft texts. Source: iptables-extensions(8).
"""

from __future__ import annotations

from typing import Any

from userfw.iptables.errors import UsageError
from userfw.iptables.extension import IP, V4, V6, Extension, Option, Rule, Use, Words
from userfw.iptables.icmp import ICMP_KIND, ICMPV6_KIND
from userfw.iptables.values import (
    ADDRESS_RANGE,
    FLAG,
    MAC,
    PORT_LIST,
    PORTS,
    Bad,
    Context,
    Kind,
    choice,
    compare,
    integer,
    network_of,
    number,
    show_range,
    span,
    subset,
)

TCP, UDP, DCCP, SCTP, UDPLITE, ICMP, ICMPV6 = 6, 17, 33, 132, 136, 1, 58
WITH_PORTS = (TCP, UDP, DCCP, SCTP, UDPLITE)


def ports(protocol_word: str) -> tuple[Option, ...]:
    """The two port options that every protocol with ports has."""
    return (
        Option("sport", PORTS, f"{protocol_word} sport", invert=True, aliases=("source-port",)),
        Option("dport", PORTS, f"{protocol_word} dport", invert=True, aliases=("destination-port",)),
    )


# --- tcp


TCP_FLAGS = ("FIN", "SYN", "RST", "PSH", "ACK", "URG")


def _flags(text: str) -> frozenset[str]:
    word = text.upper()
    if word == "ALL":
        return frozenset(TCP_FLAGS)
    if word == "NONE":
        return frozenset()
    parts = frozenset(word.split(","))
    if not parts <= set(TCP_FLAGS):
        raise Bad(f"Unknown TCP flag `{text}'")
    return parts


def _read_flags(text: str, context: Context) -> tuple[frozenset[str], frozenset[str]]:
    mask, _, value = text.partition(" ")
    return _flags(mask), _flags(value)


def _flag_words(flags: frozenset[str]) -> str:
    return ",".join(flag.lower() for flag in TCP_FLAGS if flag in flags) or "0x0"


def _express_flags(left: str, inverted: bool, value: tuple[frozenset[str], frozenset[str]], family: Any) -> str:
    return compare(left, inverted, f"{_flag_words(value[1])} / {_flag_words(value[0])}")


FLAGS = Kind(_read_flags, arguments=2, own=_express_flags)
SYN = Kind(
    lambda text, context: (frozenset({"FIN", "SYN", "RST", "ACK"}), frozenset({"SYN"})), arguments=0, own=_express_flags
)


def exists(left: str, inverted: bool, value: int, family: Any) -> str:
    """An option of a header: there, or not."""
    return f"{left} {value} {'missing' if inverted else 'exists'}"


OPTION_NUMBER = Kind(lambda text, context: integer(text, 1, 255), own=exists)


# --- dccp


_DCCP_TYPES = ("REQUEST", "RESPONSE", "DATA", "ACK", "DATAACK", "CLOSEREQ", "CLOSE", "RESET", "SYNC", "SYNCACK", "INVALID")


def _express_dccp(left: str, inverted: bool, value: frozenset[str], family: Any) -> str:
    words = ["10-15" if word == "INVALID" else word.lower() for word in _DCCP_TYPES if word in value]
    return compare(left, inverted, words[0] if len(words) == 1 else "{ " + ", ".join(words) + " }")


DCCP_TYPES = Kind(subset(_DCCP_TYPES).read, own=_express_dccp)


# --- sctp


_CHUNKS = {
    "DATA": "IUBE", "INIT": "", "INIT_ACK": "", "SACK": "", "HEARTBEAT": "", "HEARTBEAT_ACK": "", "ABORT": "T", "SHUTDOWN": "",
    "SHUTDOWN_ACK": "", "ERROR": "", "COOKIE_ECHO": "", "COOKIE_ACK": "", "ECN_ECNE": "", "ECN_CWR": "", "SHUTDOWN_COMPLETE": "T",
    "I_DATA": "IUBE", "RE_CONFIG": "", "PAD": "", "ASCONF": "", "ASCONF_ACK": "", "FORWARD_TSN": "", "I_FORWARD_TSN": "",
}  # fmt: skip
_CHUNK_TEXT = {"ECN_ECNE": "ecne", "ECN_CWR": "cwr"}


def _read_chunks(text: str, context: Context) -> tuple[str, dict[str, str]]:
    how, _, types = text.partition(" ")
    if how not in ("any", "all", "only"):
        raise Bad('Match type has to be one of "ALL", "ANY" or "ONLY"')
    chunks: dict[str, str] = {}
    for word in types.split(","):
        name, _, flags = word.partition(":")
        name = name.upper()
        if name in ("ALL", "NONE"):
            chunks = dict.fromkeys(_CHUNKS, "") if name == "ALL" else {}
        elif name not in _CHUNKS or any(flag.upper() not in _CHUNKS[name] for flag in flags):
            raise Bad(f"Unknown sctp chunk `{word}'")
        else:
            chunks[name] = flags
    return how, chunks


def _express_chunks(left: str, inverted: bool, value: tuple[str, dict[str, str]], family: Any) -> str:
    how, chunks = value
    words = []
    for name, flags in _CHUNKS.items():
        text = f"{left} {_CHUNK_TEXT.get(name, name.lower().replace('_', '-'))}"
        if chunks.get(name):
            mask = wanted = 0
            for flag in chunks[name]:
                bit = 1 << (len(flags) - 1 - flags.index(flag.upper()))
                mask |= bit
                wanted |= bit if flag.isupper() else 0
            words.append(f"{text} flags & {mask:#x} {'!=' if inverted else '=='} {wanted:#x}")
        elif name in chunks or how == "only":
            words.append(f"{text} {'exists' if (name in chunks) != inverted else 'missing'}")
    return " ".join(words)


CHUNKS = Kind(_read_chunks, arguments=2, own=_express_chunks)


def _sctp(use: Use, rule: Rule) -> Words:
    if "chunk-types" in use:
        how, chunks = use.value("chunk-types")
        if (how == "any" or use.inverted("chunk-types")) and (len(chunks) > 1 or how == "only"):
            return None  # a rule has no "or"
    return list(use.texts(rule)) or ["meta l4proto sctp"]


# --- multiport


def _multiport_check(use: Use, rule: Rule) -> None:
    if rule.protocol_inverted or rule.protocol not in WITH_PORTS:
        raise UsageError("multiport: multiport needs `-p tcp', `-p udp', `-p udplite', `-p sctp' or `-p dccp'")


def _disjoint(parts: list[tuple[int, int]]) -> list[str]:
    """Either port in one of the parts, as elements that do not overlap: a set of concatenated ranges refuses others."""
    merged: list[tuple[int, int]] = []
    for low, high in sorted(parts):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(high, merged[-1][1])
        else:
            merged.append((low, high))
    edges = [-1, *(edge for part in merged for edge in part), 0x10000]
    gaps = [(low + 1, high - 1) for low, high in zip(edges[::2], edges[1::2], strict=True) if low + 1 < high]
    return [f"{show_range(part)} . 0-65535" for part in merged] + [
        f"{show_range(gap)} . {show_range(part)}" for gap in gaps for part in merged
    ]


def _multiport(use: Use, rule: Rule) -> Words:
    (name, given), *_ = use.given.items()
    word = {TCP: "tcp", UDP: "udp", DCCP: "dccp", SCTP: "sctp", UDPLITE: "udplite"}[rule.protocol or TCP]
    parts = [show_range(part) for part in given.value]
    if name == "ports":
        pairs = [f"0-65535 . {parts[0]}", f"{parts[0]} . 0-65535"] if len(parts) == 1 else _disjoint(given.value)
        return [compare(f"{word} sport . {word} dport", given.inverted, f"{{ {', '.join(pairs)} }}")]
    text = parts[0] if len(parts) == 1 else "{ " + ", ".join(parts) + " }"
    return [compare(f"{word} {'sport' if name == 'sports' else 'dport'}", given.inverted, text)]


# --- IPv6 extension headers and friends


def spi(word: str) -> Option:
    return Option(f"{word}spi", span(skip=True), f"{word} spi", invert=True)


def _unmatched(use: Use, rule: Rule) -> Words:
    """Options of a header that nft has no words for."""
    return None


DSCP_CLASSES = {
    "be": 0, **{f"cs{n}": n * 8 for n in range(8)}, **{f"af{c}{d}": c * 8 + d * 2 for c in range(1, 5) for d in range(1, 4)},
    "ef": 0x2E,
}  # fmt: skip
DSCP = number(0x3F, show="0x{:02x}")
DSCP_CLASS = choice(DSCP_CLASSES, "0x{:02x}".format)
_ECT = choice({"0": "not-ect", "1": "ect1", "2": "ect0", "3": "ce"})


def _dscp(use: Use, rule: Rule) -> Words:
    (_, given), *_ = use.given.items()
    return [compare(f"{rule.family.address} dscp", given.inverted, given.option.kind.show(given.value))]


def _iprange(use: Use, rule: Rule) -> Words:
    sides = (("src-range", "saddr"), ("dst-range", "daddr"))
    return [use.given[name].option.kind.express(f"{rule.family.address} {side}", use.inverted(name), use.value(name), rule.family)
            for name, side in sides if name in use]  # fmt: skip


RAW = Kind(lambda text, context: text)
HOP = number(255)
_SIGNS = (("eq", ""), ("gt", " gt"), ("lt", " lt"))
TTL = tuple(Option(f"ttl-{how}", HOP, f"ip ttl{sign}", invert=how == "eq") for how, sign in _SIGNS)
HL = tuple(Option(f"hl-{how}", HOP, f"ip6 hoplimit{sign}", invert=how == "eq") for how, sign in _SIGNS)
_SRH_FIELDS = (
    "next-hdr", "hdr-len-eq", "hdr-len-gt", "hdr-len-lt", "segs-left-eq", "segs-left-gt", "segs-left-lt",
    "last-entry-eq", "last-entry-gt", "last-entry-lt", "psid", "nsid", "lsid",
)  # fmt: skip
_SRH_BYTE = number(255)
_V6NET = network_of(128)


def _tos_pair(text: str, context: Context) -> tuple[int, int]:
    names = {"minimize-delay": 16, "maximize-throughput": 8, "maximize-reliability": 4, "minimize-cost": 2, "normal-service": 0}
    if text.lower() in names:
        return names[text.lower()], 0x3F
    value, slash, mask = text.partition("/")
    return integer(value, 0, 255), integer(mask, 0, 255) if slash else 0xFF


TOS = Kind(_tos_pair)

MATCHES: tuple[Extension, ...] = (
    Extension(
        "tcp",
        (
            *ports("tcp"),
            Option("tcp-option", OPTION_NUMBER, "tcp option", invert=True),
            Option("tcp-flags", FLAGS, "tcp flags", invert=True),
            Option("syn", SYN, "tcp flags", invert=True),
        ),
        empty="meta l4proto tcp",
        protocols=(TCP,),
    ),
    Extension("udp", ports("udp"), empty="meta l4proto udp", protocols=(UDP,)),
    Extension("udplite", ports("udplite"), empty="meta l4proto udplite", protocols=(UDPLITE,)),
    Extension(
        "dccp",
        (
            *ports("dccp"),
            Option("dccp-types", DCCP_TYPES, "dccp type", invert=True),
            Option("dccp-option", OPTION_NUMBER, "dccp option", invert=True),
        ),
        empty="meta l4proto dccp",
        protocols=(DCCP,),
    ),
    Extension("sctp", (*ports("sctp"), Option("chunk-types", CHUNKS, "sctp chunk", invert=True)), render=_sctp),
    Extension(
        "multiport",
        (
            Option("sports", PORT_LIST, "sport", invert=True, aliases=("source-ports",)),
            Option("dports", PORT_LIST, "dport", invert=True, aliases=("destination-ports",)),
            Option("ports", PORT_LIST, "ports", invert=True),
        ),
        render=_multiport,
        one_of=("sports", "dports", "ports"),
        alone=(("sports", "dports", "ports"),),
        check=_multiport_check,
    ),
    Extension("icmp", (Option("icmp-type", ICMP_KIND, "icmp type", invert=True, required=True),), V4, empty="ip protocol icmp"),
    Extension(
        "icmp6",
        (Option("icmpv6-type", ICMPV6_KIND, "icmpv6 type", invert=True, aliases=("icmpv6-types",), required=True),),
        V6,
        empty="meta l4proto ipv6-icmp",
        protocols=(),
        shadow=("ipv6-icmp", "icmpv6"),
    ),
    Extension("esp", (spi("esp"),), empty={"ip": "meta l4proto esp", "ip6": "exthdr esp exists"}, protocols=(50,)),
    Extension("ah", (spi("ah"),), V4, empty="meta l4proto ah", protocols=(51,)),
    Extension(
        "ah",
        (spi("ah"), Option("ahlen", number(), "ah hdrlength", invert=True), Option("ahres", FLAG, "ah reserved 1")),
        V6,
        empty="exthdr ah exists",
    ),
    Extension(
        "ipcomp",
        (Option("ipcompspi", span(skip=True, most=0xFFFF), "comp cpi", invert=True), Option("compres", FLAG)),
        empty="meta l4proto ipcomp",
    ),
    Extension(
        "frag",
        (
            Option("fragid", span(skip=True), "frag id", invert=True),
            Option("fraglen", number(), "", invert=True),
            Option("fragres", FLAG, "frag reserved 1"),
            Option("fragfirst", FLAG, "frag frag-off 0"),
            Option("fragmore", FLAG, "frag more-fragments 1"),
            Option("fraglast", FLAG, "frag more-fragments 0"),
        ),
        V6,
        empty="exthdr frag exists",
        alone=(("fragmore", "fraglast"),),
    ),
    *(
        Extension(
            word,
            (Option(f"{word}-len", number(), f"{word} hdrlength", invert=True), Option(f"{word}-opts", RAW)),
            V6,
            empty=f"exthdr {word} exists",
        )
        for word in ("hbh", "dst")
    ),
    Extension(
        "rt",
        (
            Option("rt-type", number(), "rt type", invert=True),
            Option("rt-segsleft", span(skip=True), "rt seg-left", invert=True),
            Option("rt-len", number(), "rt hdrlength", invert=True),
            Option("rt-0-res"),
            Option("rt-0-addrs", RAW),
            Option("rt-0-not-strict"),
        ),
        V6,
        empty="exthdr rt exists",
    ),
    Extension(
        "mh",
        (Option("mh-type", span(255, skip=True), "mh type", invert=True),),
        V6,
        empty="exthdr mh exists",
        shadow=("mobility-header", "ipv6-mh"),
    ),
    Extension("ttl", TTL, V4, one_of=("ttl-eq", "ttl-gt", "ttl-lt"), alone=(("ttl-eq", "ttl-gt", "ttl-lt"),)),
    Extension("hl", HL, V6, one_of=("hl-eq", "hl-gt", "hl-lt"), alone=(("hl-eq", "hl-gt", "hl-lt"),)),
    Extension(
        "dscp",
        (Option("dscp", DSCP, "dscp", invert=True), Option("dscp-class", DSCP_CLASS, "dscp", invert=True)),
        render=_dscp,
        one_of=("dscp", "dscp-class"),
        alone=(("dscp", "dscp-class"),),
    ),
    Extension("tos", (Option("tos", TOS, invert=True, required=True),), IP),
    Extension(
        "ecn",
        (
            Option("ecn-tcp-ece", FLAG, "tcp flags ecn|tcp flags != ecn", invert=True),
            Option("ecn-tcp-cwr", FLAG, "tcp flags cwr|tcp flags != cwr", invert=True),
            Option("ecn-ip-ect", _ECT, "ip ecn", invert=True),
        ),
        render=lambda use, rule: [text.replace("ip ecn", f"{rule.family.address} ecn") for text in use.texts(rule)],
        one_of=("ecn-tcp-ece", "ecn-tcp-cwr", "ecn-ip-ect"),
    ),
    Extension(
        "iprange",
        (
            Option("src-range", ADDRESS_RANGE, "saddr", invert=True),
            Option("dst-range", ADDRESS_RANGE, "daddr", invert=True),
        ),
        render=_iprange,
        one_of=("src-range", "dst-range"),
    ),
    Extension("length", (Option("length", span(0xFFFF), "meta length", invert=True, required=True),)),
    Extension("mac", (Option("mac-source", MAC, "ether saddr", invert=True, required=True),)),
    Extension("tcpmss", (Option("mss", span(0xFFFF), "tcp option maxseg size", invert=True, required=True),)),
    # headers without words in nft, or with too few
    Extension("eui64", (), V6),
    Extension(
        "ipv6header",
        (Option("header", RAW, invert=True, required=True), Option("soft")),
        V6,
        render=_unmatched,
    ),
    Extension(
        "srh",
        (
            *(Option(f"srh-{name}", _V6NET if name.endswith("id") else _SRH_BYTE, invert=True) for name in _SRH_FIELDS),
            Option("srh-tag", number(0xFFFF), invert=True),
        ),
        V6,
    ),
)
