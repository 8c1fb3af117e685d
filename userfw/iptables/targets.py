"""Targets of iptables and ip6tables, ``-j NAME``; a row each.

Laws: a target's words follow ``counter``. Source: iptables-extensions(8).
"""

from __future__ import annotations

from typing import Any

from userfw.iptables.errors import UsageError
from userfw.iptables.extension import IP, V4, V6, Extension, Option, Rule, Use, Words
from userfw.iptables.matches import DSCP, DSCP_CLASS, RAW, TOS
from userfw.iptables.matches_state import MARKED
from userfw.iptables.nat import NAT_TARGETS
from userfw.iptables.values import (
    ADDRESS,
    ALL_ONES,
    HEX,
    MARK,
    NETWORK,
    Bad,
    Context,
    Kind,
    address_text,
    choice,
    integer,
    number,
    pair,
    port,
    string,
)

# --- marks


def mark_words(key: str, current: str, value: int, mask: int) -> str:
    """Setting a mark to ``(mark & ~mask) ^ value``, in nft's words."""
    rest = ~mask & ALL_ONES
    if mask == ALL_ONES:
        return f"{key} set {value:#x}"
    if value == 0:
        return f"{key} set {current} and {rest:#x}"
    if value == mask:
        return f"{key} set {current} or {value:#x}"
    if mask == 0:
        return f"{key} set {current} xor {value:#x}"
    return f"{key} set {current} and {rest:#x} xor {value:#x}"


def change(use: Use) -> tuple[int, int]:
    """(value, mask) of the option that says how the mark changes."""
    name = next(name for name in use.given if name in MARK_CHANGES)
    value = use.value(name)
    if name == "set-mark":
        return value[0], value[0] | value[1]
    if name == "set-xmark":
        return value[0], value[1]
    return {"and-mark": (0, ~value & ALL_ONES), "or-mark": (value, value), "xor-mark": (value, 0)}[name]


MARK_CHANGES = ("set-xmark", "set-mark", "and-mark", "or-mark", "xor-mark")
_MARK_OPTIONS = (Option("set-xmark", MARK), Option("set-mark", MARK), *(Option(name, HEX) for name in MARK_CHANGES[2:]))


def _mark(use: Use, rule: Rule) -> Words:
    return [mark_words("meta mark", "mark", *change(use))]


def _read_arp_mark(text: str, context: Context) -> tuple[int, int]:
    digits = text[2:] if text[:2].lower() == "0x" else text
    return integer(digits, base=16), ALL_ONES


def _read_arp_bits(text: str, context: Context) -> int:
    return _read_arp_mark(text, context)[0]


def _connmark(use: Use, rule: Rule) -> Words:
    shift = " >> " if "right-shift-mark" in use else " << "
    by = use.value("right-shift-mark", use.value("left-shift-mark"))
    if "save-mark" in use or "restore-mark" in use:
        if by is not None or any(use.value(name, ALL_ONES) != ALL_ONES for name in ("mask", "nfmask", "ctmask")):
            return None
        return ["ct mark set mark" if "save-mark" in use else "meta mark set ct mark"]
    value, mask = change(use)
    words = mark_words("ct mark", "ct mark", value, mask)
    if mask not in (0, ALL_ONES, value) and value:
        words = f"ct mark set ct mark xor {value:#x} and {~mask & ALL_ONES:#x}"
    if by is not None:
        head, _, rest = words.partition(" set ")
        words = f"{head} set ( {rest} ){shift}{by}"
    return [words]


# --- headers


def _set_dscp(use: Use, rule: Rule) -> Words:
    (_, given), *_ = use.given.items()
    return [f"{rule.family.address} dscp set {given.value:#04x}"]


def _tos(use: Use, rule: Rule) -> Words:
    (name, given), *_ = use.given.items()
    key = f"{rule.family.address} dscp"
    if name == "set-tos":
        value, mask = given.value
        if mask in (0x3F, 0xFF):
            return [f"{key} set {value >> 2:#04x}"]
        return [f"{key} set {key} and {(~mask & 0xFF) >> 2:#04x} xor {value >> 2:#04x}"]
    return [f"{key} set {key} {name.removesuffix('-tos')} {given.value >> 2:#04x}"]


def _tcpmss(use: Use, rule: Rule) -> Words:
    return [f"tcp option maxseg size set {use.value('set-mss', 'rt mtu')}"]


def _synproxy(use: Use, rule: Rule) -> Words:
    words = ["synproxy", *(name for name in ("sack-perm", "timestamp") if name in use)]
    return [" ".join(words + [f"{name} {use.value(name)}" for name in ("wscale", "mss") if name in use])]


def _read_class(text: str, context: Context) -> tuple[int, int]:
    major, colon, minor = text.partition(":")
    if not colon:
        raise Bad(f"Bad class value `{text}'")
    return integer(major, 0, 0xFFFF, 16), integer(minor, 0, 0xFFFF, 16)


def _classify(use: Use, rule: Rule) -> Words:
    value = use.value("set-class")
    names = {(0, 0): "none", (0xFFFF, 0xFFFF): "root"}
    return [f"meta priority set {names.get(value, f'{value[0]:x}:{value[1]:x}')}"]


# --- logging and queues

LEVELS = ("emerg", "alert", "crit", "err", "warn", "notice", "info", "debug")
_LEVEL_NAMES = {**{name: name for name in LEVELS}, "error": "err", "warning": "warn", "panic": "emerg"}


def read_level(text: str, context: Context) -> str:
    """A level of syslog by its number, its name or the start of it."""
    if text.isdecimal() and text.isascii():
        return LEVELS[integer(text, 0, 7)]
    for name, level in _LEVEL_NAMES.items():
        if text and name.startswith(text.lower()):
            return level
    raise Bad(f'log-level "{text}" unknown')


LEVEL = Kind(read_level)


def _log(use: Use, rule: Rule) -> Words:
    words = ["log"]
    if use.value("log-prefix"):
        words.append(f'prefix "{use.value("log-prefix")}"')
    if use.value("log-level", "warn") != "warn":
        words.append(f"level {use.value('log-level')}")
    tcp = [word for name, word in (("log-tcp-sequence", "sequence"), ("log-tcp-options", "options")) if name in use]
    flags = [f"tcp {','.join(tcp)}"] if tcp else []
    others = (("log-ip-options", "ip options"), ("log-uid", "skuid"), ("log-macdecode", "ether"))
    flags += [word for name, word in others if name in use]
    if len(tcp) == 2 and len(flags) == 4:
        flags = ["all"]
    return [" ".join(words + [f"flags {flag}" for flag in flags])]


def _nflog(use: Use, rule: Rule) -> Words:
    words = ["log"]
    if use.value("nflog-prefix"):
        words.append(f'prefix "{use.value("nflog-prefix")}"')
    if use.value("nflog-size", use.value("nflog-range")) is not None:
        words.append(f"snaplen {use.value('nflog-size', use.value('nflog-range'))}")
    if "nflog-threshold" in use:
        words.append(f"queue-threshold {use.value('nflog-threshold')}")
    return [" ".join([*words, f"group {use.value('nflog-group', 0)}"])]


def _nfqueue(use: Use, rule: Rule) -> Words:
    low, high = use.value("queue-balance", (use.value("queue-num", 0), None))
    flags = ",".join(word for name, word in (("queue-bypass", "bypass"), ("queue-cpu-fanout", "fanout")) if name in use)
    return [f"queue num {low}" + (f"-{high}" if high is not None else "") + (f" {flags}" if flags else "")]


def _read_balance(text: str, context: Context) -> tuple[int, int]:
    first, last = pair(text, lambda part: integer(part, 0, 0xFFFF), 0xFFFE)
    if first == last or last - first == 0xFFFF:
        raise Bad("should be ascending, `first:last'")
    return first, last


def _fanout_check(use: Use, rule: Rule) -> None:
    if "queue-cpu-fanout" in use and "queue-balance" not in use:
        raise UsageError('NFQUEUE: option "--queue-cpu-fanout" needs "--queue-balance"')


# --- reject

_REJECT4 = {
    "icmp-net-unreachable": "net-unreachable", "icmp-host-unreachable": "host-unreachable",
    "icmp-proto-unreachable": "prot-unreachable", "icmp-port-unreachable": "port-unreachable",
    "icmp-net-prohibited": "net-prohibited", "icmp-host-prohibited": "host-prohibited",
    "icmp-admin-prohibited": "admin-prohibited", "tcp-reset": "tcp reset",
    "net-unreach": "net-unreachable", "host-unreach": "host-unreachable", "proto-unreach": "prot-unreachable",
    "port-unreach": "port-unreachable", "net-prohib": "net-prohibited", "host-prohib": "host-prohibited",
    "admin-prohib": "admin-prohibited", "tcp-rst": "tcp reset",
}  # fmt: skip
_REJECT6 = {
    "icmp6-no-route": "no-route", "no-route": "no-route", "icmp6-adm-prohibited": "admin-prohibited",
    "adm-prohibited": "admin-prohibited", "icmp6-addr-unreachable": "addr-unreachable", "addr-unreach": "addr-unreachable",
    "icmp6-port-unreachable": "port-unreachable", "port-unreach": "port-unreachable", "tcp-reset": "tcp reset",
    "icmp6-policy-fail": "policy-fail", "policy-fail": "policy-fail", "icmp6-reject-route": "reject-route",
    "reject-route": "reject-route",
}  # fmt: skip


def _reject(use: Use, rule: Rule) -> Words:
    value = use.value("reject-with", "port-unreachable")
    if value == "port-unreachable":
        return ["reject"]
    if value == "tcp reset":
        return ["reject with tcp reset"]
    return [f"reject with {'icmp' if rule.family.bits == 32 else 'icmpv6'} type {value}"]


def _reject_check(use: Use, rule: Rule) -> None:
    if use.value("reject-with") == "tcp reset" and (rule.protocol != 6 or rule.protocol_inverted):
        raise UsageError("REJECT: tcp-reset needs `-p tcp'")


# --- redirecting


def _tproxy(use: Use, rule: Rule) -> Words:
    address, port_number = use.value("on-ip"), use.value("on-port")
    text = ""
    if address:
        text = address_text(address, rule.family.bits)
        if port_number and rule.family.bits == 128:
            text = f"[{text}]"
    if port_number or not address:
        text += f":{port_number}"
    words = [f"tproxy to {text}"]
    if "tproxy-mark" in use:
        value, mask = use.value("tproxy-mark")
        how = f"{value:#x}" if mask == ALL_ONES else f"meta mark & {~mask & ALL_ONES:#x} xor {value:#x}"
        words.append(f"meta mark set {how}")
    return [*words, "accept"]


def _tproxy_check(use: Use, rule: Rule) -> None:
    if rule.protocol not in (6, 17) or rule.protocol_inverted:
        raise UsageError("TPROXY: TPROXY needs `-p tcp' or `-p udp'")


def _tee(use: Use, rule: Rule) -> Words:
    device = f" device {use.value('oif')}" if "oif" in use else ""
    return [f"dup to {address_text(use.value('gateway'), rule.family.bits)}{device}"]


def _read_strip(text: str, context: Context) -> list[int]:
    names = {"wscale": 3, "mss": 2, "sack-permitted": 4, "sack": 5, "timestamp": 8, "md5": 19}
    return [names[part] if part in names else integer(part, 2, 255) for part in text.split(",")]


def _read_zone(text: str, context: Context) -> str:
    if text != "mark":
        integer(text, 0, 0xFFFF)
    return text


def _says(text: str) -> Any:
    return lambda use, rule: [text]


def _reject_options(words: dict[str, str]) -> tuple[Option, ...]:
    return (Option("reject-with", choice(words)),)


NFLOG_PREFIX = Kind(lambda text, context: text.encode(errors="surrogateescape")[:63].decode(errors="surrogateescape"))
_PORT = Kind(lambda text, context: port(text))

TARGETS: tuple[Extension, ...] = (
    *NAT_TARGETS,
    Extension("MARK", _MARK_OPTIONS, render=_mark, one_of=MARK_CHANGES, alone=(MARK_CHANGES,)),
    Extension(
        "MARK",
        (Option("set-mark", Kind(_read_arp_mark)), *(Option(name, Kind(_read_arp_bits)) for name in ("and-mark", "or-mark"))),
        frozenset({"arp"}),
        render=_mark,
        one_of=("set-mark", "and-mark", "or-mark"),
        alone=(("set-mark", "and-mark", "or-mark"),),
    ),
    Extension(
        "CONNMARK",
        (
            *_MARK_OPTIONS,
            Option("save-mark"),
            Option("restore-mark"),
            *(Option(name, HEX) for name in ("mask", "nfmask", "ctmask")),
            *(Option(name, number(31)) for name in ("left-shift-mark", "right-shift-mark")),
        ),
        render=_connmark,
        one_of=(*MARK_CHANGES, "save-mark", "restore-mark"),
        alone=((*MARK_CHANGES, "save-mark", "restore-mark"),),
    ),
    Extension("CLASSIFY", (Option("set-class", Kind(_read_class), required=True),), MARKED, render=_classify),
    Extension(
        "DSCP",
        (Option("set-dscp", DSCP), Option("set-dscp-class", DSCP_CLASS)),
        render=_set_dscp,
        one_of=("set-dscp", "set-dscp-class"),
        alone=(("set-dscp", "set-dscp-class"),),
    ),
    Extension(
        "TOS",
        (Option("set-tos", TOS), *(Option(f"{how}-tos", number(255)) for how in ("and", "or", "xor"))),
        render=_tos,
        one_of=("set-tos", "and-tos", "or-tos", "xor-tos"),
        alone=(("set-tos", "and-tos", "or-tos", "xor-tos"),),
    ),
    Extension(
        "TCPMSS",
        (Option("set-mss", number(0xFFFF - 60)), Option("clamp-mss-to-pmtu")),
        render=_tcpmss,
        one_of=("set-mss", "clamp-mss-to-pmtu"),
        alone=(("set-mss", "clamp-mss-to-pmtu"),),
        protocols=(6,),
    ),
    Extension(
        "SYNPROXY",
        (Option("sack-perm"), Option("timestamp"), Option("wscale", number(14)), Option("mss", number(0xFFFF)), Option("ecn")),
        render=_synproxy,
        protocols=(6,),
    ),
    Extension(
        "LOG",
        (
            Option("log-level", LEVEL),
            Option("log-prefix", string(29)),
            *(Option(f"log-{name}") for name in ("tcp-sequence", "tcp-options", "ip-options", "uid", "macdecode")),
        ),
        render=_log,
    ),
    Extension(
        "NFLOG",
        (
            Option("nflog-group", number(0xFFFF)),
            Option("nflog-prefix", NFLOG_PREFIX),
            *(Option(f"nflog-{name}", number()) for name in ("range", "size")),
            Option("nflog-threshold", number(0xFFFF)),
        ),
        render=_nflog,
        alone=(("nflog-range", "nflog-size"),),
    ),
    Extension(
        "NFQUEUE",
        (
            Option("queue-num", number(0xFFFF)),
            Option("queue-balance", Kind(_read_balance)),
            Option("queue-bypass"),
            Option("queue-cpu-fanout"),
        ),
        render=_nfqueue,
        alone=(("queue-num", "queue-balance"),),
        check=_fanout_check,
    ),
    Extension("REJECT", _reject_options(_REJECT4), V4, render=_reject, check=_reject_check),
    Extension("REJECT", _reject_options(_REJECT6), V6, render=_reject, check=_reject_check),
    Extension(
        "TPROXY",
        (Option("on-port", _PORT, required=True), Option("on-ip", ADDRESS), Option("tproxy-mark", MARK)),
        render=_tproxy,
        check=_tproxy_check,
    ),
    Extension("TEE", (Option("gateway", ADDRESS, required=True), Option("oif", string(15))), render=_tee),
    Extension("AUDIT", (Option("type", choice(("accept", "drop", "reject")), required=True),), IP | {"bridge"},
              render=_says("log level audit")),
    Extension("NOTRACK", render=_says("notrack")),
    Extension("TRACE", render=_says("nftrace set 1")),
    Extension(
        "CT",
        (
            Option("notrack"), Option("helper", string(15)), Option("timeout", string(31)), Option("ctevents", RAW),
            Option("expevents", RAW), *(Option(name, Kind(_read_zone)) for name in ("zone", "zone-orig", "zone-reply")),
        ),
        render=lambda use, rule: ["notrack"] if list(use.given) == ["notrack"] else None,
    ),
    # no words in nft, or with other meanings
    Extension("CHECKSUM", (Option("checksum-fill", required=True),)),
    Extension("CONNSECMARK", (Option("save"), Option("restore")), one_of=("save", "restore"), alone=(("save", "restore"),)),
    Extension("SECMARK", (Option("selctx", string(255), required=True),)),
    Extension("DNPT", (Option("src-pfx", NETWORK, required=True), Option("dst-pfx", NETWORK, required=True)), V6),
    Extension("SNPT", (Option("src-pfx", NETWORK, required=True), Option("dst-pfx", NETWORK, required=True)), V6),
    Extension("ECN", (Option("ecn-tcp-remove"), Option("ecn-tcp-cwr", number(1)), Option("ecn-tcp-ece", number(1)),
                      Option("ecn-ip-ect", number(3))), V4,
              one_of=("ecn-tcp-remove", "ecn-tcp-cwr", "ecn-tcp-ece", "ecn-ip-ect"), protocols=(6,)),
    *(
        Extension(name, tuple(Option(f"{word}-{how}", number(255, low)) for how, low in (("set", 0), ("inc", 1), ("dec", 1))),
                  families, one_of=tuple(f"{word}-{how}" for how in ("set", "inc", "dec")),
                  alone=(tuple(f"{word}-{how}" for how in ("set", "inc", "dec")),),
                  render=lambda use, rule, word=word, key=key: (  # type: ignore[misc]
                      [f"{key} set {use.value(f'{word}-set')}"] if f"{word}-set" in use else None))
        for name, word, families, key in (("TTL", "ttl", V4, "ip ttl"), ("HL", "hl", V6, "ip6 hoplimit"))
    ),
    Extension("HMARK", (
        Option("hmark-tuple", RAW), Option("hmark-mod", number(low=1), required=True), Option("hmark-rnd", number()),
        Option("hmark-offset", number()), *(Option(f"hmark-{name}", RAW) for name in (
            "src-prefix", "dst-prefix", "sport-mask", "dport-mask", "sport", "dport", "spi-mask", "spi", "proto-mask")))),
    Extension("IDLETIMER", (Option("timeout", number(low=1), required=True), Option("label", string(27), required=True),
                            Option("alarm"))),
    Extension("LED", (Option("led-trigger-id", string(26), required=True), Option("led-delay", RAW), Option("led-always-blink"))),
    Extension("NETMAP", (Option("to", NETWORK, required=True),)),
    Extension("RATEEST", tuple(Option(f"rateest-{name}", RAW, required=True) for name in ("name", "interval", "ewmalog"))),
    Extension(
        "SET",
        (
            *(Option(f"{how}-set", Kind(lambda text, context: text, arguments=2)) for how in ("add", "del", "map")),
            Option("timeout", number()), Option("exist"), *(Option(f"map-{what}") for what in ("mark", "prio", "queue")),
        ),
        one_of=("add-set", "del-set", "map-set"),
    ),
    Extension("TCPOPTSTRIP", (Option("strip-options", Kind(_read_strip)),), protocols=(6,)),
)  # fmt: skip

