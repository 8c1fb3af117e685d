"""Matches of what the kernel knows about a packet: connections, marks, rates, sockets, time, routes; a row each.

Laws: the order of the options in a row is the order of their nft texts. Source: iptables-extensions(8).
"""

from __future__ import annotations

from userfw.iptables.errors import UsageError
from userfw.iptables.extension import IP, Extension, Option, Rule, Use, Words
from userfw.iptables.limits import HASHLIMIT, LIMIT_OPTIONS, limit_words
from userfw.iptables.matches import RAW
from userfw.iptables.timing import TIME
from userfw.iptables.values import (
    ALL_ONES,
    FLAG,
    MARK,
    NETWORK,
    PORT_RANGE,
    PROTOCOL,
    Bad,
    Context,
    Kind,
    address_text,
    choice,
    compare,
    identifier,
    integer,
    number,
    ones,
    show_range,
    span,
    string,
    subset,
)

MARKED = IP | {"arp"}

# --- conntrack

_STATES = ("INVALID", "NEW", "RELATED", "ESTABLISHED", "UNTRACKED")
_STATUSES = ("EXPECTED", "SEEN_REPLY", "ASSURED", "CONFIRMED", "NONE")


def bits(words: tuple[str, ...]) -> Kind:
    """A bit mask by names; nft writes an inverted one as ``left ! names``."""
    read = subset(words)

    def express(left: str, inverted: bool, value: frozenset[str], family: object) -> str:
        if value == {"NONE"}:
            return compare(left, inverted, "0")
        return f"{left} {'! ' if inverted else ''}{read.show(value - {'NONE'})}"

    return Kind(read.read, read.show, own=express)


STATE = bits(_STATES)
STATUS = bits(_STATUSES)
CTSTATE = subset((*_STATES, "SNAT", "DNAT"))


def mixed_states(use: Use) -> bool:
    """Whether either a state or a kind of NAT is asked for."""
    value: set[str] = use.value("ctstate", set()) if use.extension.name == "conntrack" else set()
    return not use.inverted("ctstate") and bool(value & {"SNAT", "DNAT"}) and bool(value - {"SNAT", "DNAT"})


def _conntrack(use: Use, rule: Rule) -> Words:
    words = list(use.texts(rule, "ctdir", "ctproto"))
    if "ctstate" in use:
        value, inverted = use.value("ctstate"), use.inverted("ctstate")
        nat = ",".join(word.lower() for word in ("SNAT", "DNAT") if word in value)
        states = value - {"SNAT", "DNAT"}
        if mixed_states(use) and not rule.half:
            return None  # "or" of two keys
        if states:
            words.append(STATE.express("ct state", inverted or rule.half == 2, states, rule.family))
        if nat and rule.half != 1:
            words.append(f"ct status {'! ' if inverted else ''}{nat}")
    rest = [option.name for option in use.extension.options if option.name not in ("ctdir", "ctproto", "ctstate")]
    return words + list(use.texts(rule, *rest))


def _conntrack_options() -> tuple[Option, ...]:
    directions = (("orig", "original"), ("repl", "reply"))
    addresses = [
        Option(f"ct{short}{side}", NETWORK, f"ct {word} {key}", invert=True)
        for short, word in directions
        for side, key in (("src", "saddr"), ("dst", "daddr"))
    ]
    ports = [
        Option(f"ct{short}{side}port", PORT_RANGE, f"ct {word} proto-{side}", invert=True)
        for short, word in directions
        for side in ("src", "dst")
    ]
    return (
        Option("ctdir", choice({"original": "original", "reply": "reply"}), "ct direction"),
        Option("ctproto", CTPROTO, "ct original protocol", invert=True),
        Option("ctstate", CTSTATE, "ct state", invert=True),
        Option("ctstatus", STATUS, "ct status", invert=True),
        Option("ctexpire", span(most=ALL_ONES // 1000), "ct expiration", invert=True),
        *addresses,
        *ports,
    )


def _read_ctproto(text: str, context: Context) -> int:
    value: int = PROTOCOL.read(text, context)
    if value == 0:
        raise Bad("rule would never match protocol")
    return value


CTPROTO = Kind(_read_ctproto)


def _connbytes(use: Use, rule: Rule) -> Words:
    low, high = use.value("connbytes")
    direction = {"original": "original ", "reply": "reply ", "both": ""}[use.value("connbytes-dir")]
    key = f"ct {direction}{use.value('connbytes-mode')}"
    inverted = use.inverted("connbytes")
    if high is None:
        return [f"{key} {'lt' if inverted else 'ge'} {low}"]
    return [compare(key, inverted, show_range((low, high)))]


def _read_connbytes(text: str, context: Context) -> tuple[int, int | None]:
    low, colon, high = text.partition(":")
    top = 2**64 - 1
    first = integer(low, 0, top) if low else 0
    if not high:
        if not low and not colon:
            raise Bad
        return first, None
    last = integer(high, 0, top)
    if first > last:
        raise Bad("range must be ascending")
    return first, last


def _connlabel(use: Use, rule: Rule) -> Words:
    label = use.value("label")
    words = [f"ct label set {label}"] if "set" in use else []
    return [*words, f"ct label and {label} != {label}" if use.inverted("label") else f"ct label {label}"]


def _connlimit(use: Use, rule: Rule) -> Words:
    name = f"connlimit{rule.meters}"
    rule.sets.append(f"{name} {{ type {rule.family.key}; flags dynamic; }}")
    width = rule.family.bits
    length = use.value("connlimit-mask", width)
    key = f"{rule.family.address} {'daddr' if 'connlimit-daddr' in use else 'saddr'}"
    if length < width:
        key += f" and {address_text(ones(length, width), width)}"
    above = use.value("connlimit-above")
    over = (above is not None) != use.inverted("connlimit-above" if above is not None else "connlimit-upto")
    count = above if above is not None else use.value("connlimit-upto")
    return [f"add @{name} {{ {key} ct count {'over ' if over else ''}{count} }}"]


def _read_prefix(text: str, context: Context) -> int:
    return integer(text, 0, context.family.bits)


def _cluster(use: Use, rule: Rule) -> Words:
    nodes = use.value("cluster-local-nodemask")
    if nodes is None:
        nodes = 1 << (use.value("cluster-local-node") - 1)
    inverted = use.inverted("cluster-local-nodemask") or use.inverted("cluster-local-node")
    members = [bit for bit in range(32) if nodes >> bit & 1]
    head = f"jhash ct original saddr mod {use.value('cluster-total-nodes')} seed {use.value('cluster-hash-seed'):#x}"
    if len(members) == 1:
        text = f"{head} {'!=' if inverted else 'eq'} {members[0] + 1}"
    else:
        text = f"{head} {'!= ' if inverted else ''}{{ {', '.join(map(str, members))} }}"
    return [text, "meta pkttype set host"]


# --- routes and sockets

_ADDRESS_TYPES = (
    "UNSPEC", "UNICAST", "LOCAL", "BROADCAST", "ANYCAST", "MULTICAST", "BLACKHOLE", "UNREACHABLE", "PROHIBIT", "THROW", "NAT",
    "XRESOLVE",
)  # fmt: skip
ADDRESS_TYPE = subset(_ADDRESS_TYPES, ", ")


def _addrtype(use: Use, rule: Rule) -> Words:
    device = " . iif" if "limit-iface-in" in use else " . oif" if "limit-iface-out" in use else ""
    words = []
    for name, key in (("src-type", "saddr"), ("dst-type", "daddr")):
        if name in use:
            value = use.value(name)
            if value & {"THROW", "NAT", "XRESOLVE"}:
                return None
            text = ADDRESS_TYPE.show(value)
            words.append(compare(f"fib {key}{device} type", use.inverted(name), text if len(value) == 1 else f"{{ {text} }}"))
    return words


def _rpfilter(use: Use, rule: Rule) -> Words:
    if "accept-local" in use:
        return None
    mark = " . mark" if "validmark" in use else ""
    device = "" if "loose" in use else " . iif"
    return [f"fib saddr{mark}{device} oif {'' if 'invert' in use else '!= '}0"]


def _socket(use: Use, rule: Rule) -> Words:
    words = [] if "nowildcard" in use else ["socket wildcard 0"]
    if "transparent" in use:
        words.append("socket transparent 1")
    if not words:
        words.append("socket wildcard le 1")
    if "restore-skmark" in use:
        words.append("meta mark set socket mark")
    return words


def _owner(use: Use, rule: Rule) -> Words:
    if "socket-exists" in use or "suppl-groups" in use:
        return None
    return list(use.texts(rule))


_POLICY_ELEMENT = ("reqid", "spi", "proto", "mode", "tunnel-src", "tunnel-dst", "next", "strict")


def _policy(use: Use, rule: Rule) -> Words:
    if any(name in use for name in _POLICY_ELEMENT) or use.value("dir") != "in":
        return None
    return [f"meta secpath {'missing' if use.value('pol') == 'none' else 'exists'}"]


# --- the rest


def _read_masked_zero(text: str, context: Context) -> tuple[int, int]:
    value: tuple[int, int] = MARK.read(text, context)
    return value


GROUP = Kind(_read_masked_zero, own=MARK.own)


def _devgroup(use: Use, rule: Rule) -> Words:
    """An inverted source inverts the destination too, as in iptables (libxt_devgroup.c keeps the operator)."""
    words = list(use.texts(rule, "src-group"))
    if "dst-group" in use:
        inverted = use.inverted("dst-group") or use.inverted("src-group")
        words.append(GROUP.express("oifgroup", inverted, use.value("dst-group"), rule.family))
    return words


def _statistic(use: Use, rule: Rule) -> Words:
    if use.value("mode") == "random":
        limit = int(use.value("probability", 0.0) * 0x80000000 + 0.5)
        return [f"meta random & 2147483647 {'>=' if use.inverted('probability') else '<'} {limit}"]
    if "every" not in use:
        return None
    return [compare(f"numgen inc mod {use.value('every')}", use.inverted("every"), str(use.value("packet", 0)))]


def _read_probability(text: str, context: Context) -> float:
    try:
        value = float(text)
    except ValueError:
        raise Bad from None
    if not 0 <= value <= 1:
        raise Bad("out of range (0-1)")
    return value


def _statistic_check(use: Use, rule: Rule) -> None:
    if use.value("packet", 0) >= use.value("every", 2**32):
        raise UsageError("statistic: the --packet must be smaller than --every")


def _policy_check(use: Use, rule: Rule) -> None:
    if "strict" in use and not any(name in use for name in _POLICY_ELEMENT if name != "strict"):
        raise UsageError("policy: empty policy element 0. --strict is in effect, but at least one of reqid, spi, ... is required")
    if ("tunnel-src" in use or "tunnel-dst" in use) and use.value("mode") != "tunnel":
        raise UsageError("policy: --tunnel-src and --tunnel-dst need --mode tunnel")


RATE_VALUE = Kind(RAW.read, arguments=-1)
PKTTYPE = choice(("unicast", "broadcast", "multicast"))
UID, GID = identifier("user"), identifier("group")

STATE_MATCHES: tuple[Extension, ...] = (
    Extension("state", (Option("state", STATE, "ct state", invert=True, required=True),)),
    Extension(
        "conntrack", _conntrack_options(), render=_conntrack, one_of=tuple(option.name for option in _conntrack_options())
    ),
    Extension("connmark", (Option("mark", MARK, "ct mark", invert=True, required=True),)),
    Extension("mark", (Option("mark", MARK, "mark", invert=True, required=True),), MARKED),
    Extension(
        "connbytes",
        (
            Option("connbytes", Kind(_read_connbytes), "ct", invert=True, required=True),
            Option("connbytes-dir", choice(("original", "reply", "both")), required=True),
            Option("connbytes-mode", choice(("packets", "bytes", "avgpkt")), required=True),
        ),
        render=_connbytes,
    ),
    Extension(
        "connlabel", (Option("label", number(127), "ct label", invert=True, required=True), Option("set")), render=_connlabel
    ),
    Extension(
        "connlimit",
        (
            Option("connlimit-upto", number(), invert=True),
            Option("connlimit-above", number(), invert=True),
            Option("connlimit-mask", Kind(_read_prefix)),
            Option("connlimit-saddr"),
            Option("connlimit-daddr"),
        ),
        render=_connlimit,
        one_of=("connlimit-upto", "connlimit-above"),
        alone=(("connlimit-upto", "connlimit-above"), ("connlimit-saddr", "connlimit-daddr")),
    ),
    Extension(
        "cluster",
        (
            Option("cluster-total-nodes", number(32, 1), required=True),
            Option("cluster-local-node", number(32, 1), invert=True),
            Option("cluster-local-nodemask", number(low=1), invert=True),
            Option("cluster-hash-seed", number(), required=True),
        ),
        render=_cluster,
        one_of=("cluster-local-node", "cluster-local-nodemask"),
        alone=(("cluster-local-node", "cluster-local-nodemask"),),
    ),
    Extension("helper", (Option("helper", string(29), "ct helper", invert=True, required=True),)),
    Extension("realm", (Option("realm", MARK, "rtclassid", invert=True, required=True),), frozenset({"ip"})),
    Extension(
        "addrtype",
        (
            Option("src-type", ADDRESS_TYPE, "fib saddr", invert=True),
            Option("dst-type", ADDRESS_TYPE, "fib daddr", invert=True),
            Option("limit-iface-in"),
            Option("limit-iface-out"),
        ),
        render=_addrtype,
        one_of=("src-type", "dst-type"),
        alone=(("limit-iface-in", "limit-iface-out"),),
    ),
    Extension("rpfilter", tuple(Option(name) for name in ("loose", "validmark", "accept-local", "invert")), render=_rpfilter),
    Extension("socket", tuple(Option(name) for name in ("transparent", "nowildcard", "restore-skmark")), render=_socket),
    Extension(
        "owner",
        (
            Option("uid-owner", UID, "skuid", invert=True),
            Option("gid-owner", GID, "skgid", invert=True),
            Option("socket-exists", FLAG, invert=True),
            Option("suppl-groups"),
        ),
        render=_owner,
        one_of=("uid-owner", "gid-owner", "socket-exists"),
    ),
    Extension(
        "policy",
        (
            Option("dir", choice(("in", "out")), required=True),
            Option("pol", choice(("ipsec", "none")), required=True),
            Option("strict"),
            Option("reqid", number(), invert=True, repeat=True),
            Option("spi", number(), invert=True, repeat=True),
            Option("proto", choice(("ipcomp", "esp", "ah")), invert=True, repeat=True),
            Option("mode", choice(("transport", "tunnel")), invert=True, repeat=True),
            Option("tunnel-src", NETWORK, invert=True, repeat=True),
            Option("tunnel-dst", NETWORK, invert=True, repeat=True),
            Option("next", repeat=True),
        ),
        render=_policy,
        check=_policy_check,
    ),
    Extension(
        "devgroup",
        (Option("src-group", GROUP, "iifgroup", invert=True), Option("dst-group", GROUP, "oifgroup", invert=True)),
        render=_devgroup,
        one_of=("src-group", "dst-group"),
    ),
    Extension(
        "cgroup",
        (Option("cgroup", number(), "meta cgroup", invert=True), Option("path", string(511), invert=True)),
        one_of=("cgroup", "path"),
        alone=(("cgroup", "path"),),
    ),
    Extension("cpu", (Option("cpu", number(), "cpu", invert=True, required=True),)),
    Extension("pkttype", (Option("pkt-type", PKTTYPE, "pkttype", invert=True, required=True),)),
    Extension("quota", (Option("quota", number(2**64 - 1, show="{} bytes"), "quota", invert=True, required=True),),
              render=lambda use, rule: [f"quota {'over ' if use.inverted('quota') else ''}{use.value('quota')} bytes"]),
    Extension(
        "statistic",
        (
            Option("mode", choice(("random", "nth")), required=True),
            Option("probability", Kind(_read_probability), invert=True),
            Option("every", number(low=1), invert=True),
            Option("packet", number()),
        ),
        render=_statistic,
        check=_statistic_check,
        alone=(("probability", "every"), ("probability", "packet")),
    ),
    Extension("limit", LIMIT_OPTIONS, render=limit_words),
    HASHLIMIT,
    TIME,
    Extension("comment", (Option("comment", string(255), required=True),), IP | {"arp", "bridge"},
              render=lambda use, rule: []),
    # no words in nft
    Extension("bpf", (Option("bytecode", RAW), Option("object-pinned", RAW)), one_of=("bytecode", "object-pinned")),
    Extension("nfacct", (Option("nfacct-name", string(31), required=True),)),
    Extension("osf", (Option("genre", RAW, invert=True, required=True), Option("ttl", number(2)), Option("log", number(2))),
              frozenset({"ip"})),
    Extension("u32", (Option("u32", RAW, invert=True, required=True),)),
    Extension(
        "string",
        (
            Option("from", number(0xFFFF)),
            Option("to", number(0xFFFF)),
            Option("algo", choice(("bm", "kmp")), required=True),
            Option("string", string(128), invert=True),
            Option("hex-string", string(512), invert=True),
            Option("icase"),
        ),
        one_of=("string", "hex-string"),
        alone=(("string", "hex-string"),),
    ),
    Extension(
        "set",
        (
            Option("match-set", Kind(lambda text, context: text, arguments=2), invert=True, required=True),
            Option("return-nomatch"),
            *(Option(name, FLAG, invert=True) for name in ("update-counters", "update-subcounters")),
            *(Option(f"{what}-{how}", number(2**64 - 1), invert=how == "eq")
              for what in ("packets", "bytes") for how in ("eq", "lt", "gt")),
        ),
    ),
    Extension(
        "recent",
        (
            *(Option(name, FLAG, invert=True) for name in ("set", "rcheck", "update", "remove")),
            Option("seconds", number(low=1)), Option("reap"), Option("hitcount", number(0xFFFF)), Option("rttl"),
            Option("name", string(199)), Option("rsource"), Option("rdest"), Option("mask", RAW),
        ),
        one_of=("set", "rcheck", "update", "remove"),
        alone=(("set", "rcheck", "update", "remove"), ("set", "rttl"), ("remove", "rttl"), ("rsource", "rdest")),
    ),
    Extension(
        "physdev",
        (
            *(Option(name, string(15), invert=True) for name in ("physdev-in", "physdev-out")),
            *(Option(name, FLAG, invert=True) for name in ("physdev-is-in", "physdev-is-out", "physdev-is-bridged")),
        ),
        one_of=("physdev-in", "physdev-out", "physdev-is-in", "physdev-is-out", "physdev-is-bridged"),
    ),
    Extension(
        "ipvs",
        (
            Option("ipvs", FLAG, invert=True), Option("vproto", PROTOCOL, invert=True), Option("vaddr", NETWORK, invert=True),
            Option("vport", PORT_RANGE, invert=True), Option("vdir", choice(("original", "reply"))),
            Option("vmethod", choice(("gate", "ipip", "masq")), invert=True), Option("vportctl", PORT_RANGE, invert=True),
        ),
        one_of=("ipvs", "vproto", "vaddr", "vport", "vdir", "vmethod", "vportctl"),
    ),
    Extension(
        "rateest",
        (
            *(Option(name, RAW) for name in ("rateest", "rateest1", "rateest2")),
            Option("rateest-delta"),
            *(Option(f"rateest-{unit}{n}", RATE_VALUE) for unit in ("bps", "pps") for n in ("", 1, 2)),
            *(Option(f"rateest-{how}", FLAG, invert=True) for how in ("lt", "gt", "eq")),
        ),
        one_of=("rateest", "rateest1"),
    ),
)  # fmt: skip

