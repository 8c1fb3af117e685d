"""Random rulesets over the supported language, as text that can be taken apart for shrinking.

Laws
- Every match is (expression, operator) of a table of fields; `covered` counts (expression, operator, hook).
- `ct count` is left out: when the kernel cleans its counts depends on the tick (test_filter has it).
- Rates are so low that no bucket is refilled during a run; nothing random is asked of the router but ports.
"""

import random
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from . import pools

HOOKS = ("prerouting", "input", "forward", "output", "postrouting")
REACHED = ("prerouting", "prerouting", "forward", "forward", "forward", "postrouting", "input")


@dataclass(frozen=True)
class Chain:
    """A chain: its header line (or nothing) and its rules."""

    name: str
    head: str
    rules: tuple[str, ...]
    hook: str = ""

    def text(self) -> str:
        """As nft reads it."""
        return "\n".join([f"  chain {self.name} {{", *([f"    {self.head}"] if self.head else []),
                          *(f"    {rule}" for rule in self.rules), "  }"])


@dataclass(frozen=True)
class Table:
    """A table: its sets first, then its chains; a chain is defined before the chains that jump to it."""

    family: str
    name: str
    sets: tuple[str, ...]
    chains: tuple[Chain, ...]

    def text(self) -> str:
        """As nft reads it."""
        return "\n".join([f"table {self.family} {self.name} {{", *(f"  {line}" for line in self.sets),
                          *(chain.text() for chain in self.chains), "}"])


@dataclass(frozen=True)
class Ruleset:
    """Tables in order."""

    tables: tuple[Table, ...]

    def text(self) -> str:
        """As nft reads it."""
        return "\n".join(table.text() for table in self.tables) + "\n"

    def without_tables(self) -> list["Ruleset"]:
        """The same with one table less."""
        return [Ruleset(self.tables[:t] + self.tables[t + 1:]) for t in range(len(self.tables)) if len(self.tables) > 1]

    def without_many(self) -> list["Ruleset"]:
        """The same with half of a chain's rules."""
        found = []
        for t, table in enumerate(self.tables):
            for c, chain in enumerate(table.chains):
                half = len(chain.rules) // 2
                for rules in (chain.rules[:half], chain.rules[half:]) if half else ():
                    chains = (*table.chains[:c], replace(chain, rules=rules), *table.chains[c + 1:])
                    found.append(Ruleset((*self.tables[:t], replace(table, chains=chains), *self.tables[t + 1:])))
        return found

    def smaller(self) -> list["Ruleset"]:
        """The same with one rule or one chain without rules less, or one declaration."""
        found = []
        for t, table in enumerate(self.tables):
            for s in range(len(table.sets)):
                found.append(Ruleset((*self.tables[:t], replace(table, sets=table.sets[:s] + table.sets[s + 1:]),
                                      *self.tables[t + 1:])))
            for c, chain in enumerate(table.chains):
                less = [table.chains[:c] + table.chains[c + 1:]] if not chain.rules else []
                less += [(*table.chains[:c], replace(chain, rules=chain.rules[:r] + chain.rules[r + 1:]),
                          *table.chains[c + 1:]) for r in range(len(chain.rules))]
                found += [Ruleset((*self.tables[:t], replace(table, chains=chains), *self.tables[t + 1:]))
                          for chains in less]
        return found


def without_rules(ruleset: Ruleset, head: str, pattern: str) -> Ruleset:
    """The ruleset less the rules with `pattern` in chains whose head has `head`."""
    return Ruleset(tuple(replace(table, chains=tuple(
        chain if not re.search(head, chain.head) else
        replace(chain, rules=tuple(rule for rule in chain.rules if not re.search(pattern, rule)))
        for chain in table.chains)) for table in ruleset.tables))


@dataclass(frozen=True)
class Field:
    """Something a rule can match: its keyword, where it may stand, and its values."""

    name: str
    families: tuple[str, ...]
    values: tuple[str, ...]
    ordered: bool = True     # ranges, less, greater
    bits: int = 0            # bit tests with this many bits
    hooks: tuple[str, ...] = HOOKS
    sets: bool = True        # anonymous and named sets


def _numbers(*values: int) -> tuple[str, ...]:
    return tuple(map(str, values))


ANY, V4, V6 = ("ip", "ip6", "inet"), ("ip", "inet"), ("ip6", "inet")
PORTS, NIC = _numbers(*pools.PORTS), tuple(f'"{name}"' for name in pools.NAMES)
ADDR4 = (*pools.hosts("ip"), *pools.routers("ip"), *pools.FAR["ip"])
ADDR6 = (*pools.hosts("ip6"), *pools.routers("ip6"), *pools.FAR["ip6"])
MARKS = _numbers(*pools.MARKS)
AFTER = ("forward", "output", "postrouting")

FIELDS = (
    Field("ip saddr", V4, ADDR4), Field("ip daddr", V4, ADDR4), Field("ip6 saddr", V6, ADDR6), Field("ip6 daddr", V6, ADDR6),
    Field("ip protocol", V4, _numbers(*pools.PROTOCOLS)), Field("ip ttl", V4, _numbers(1, 2, 8, 9, 63, 64, 127, 254)),
    Field("ip length", V4, _numbers(20, 28, 35, 40, 60, 100, 500, 1400)), Field("ip id", V4, _numbers(0, 1, 4660, 65535)),
    Field("ip frag-off", V4, ("0x2000", "0x4000", "0x1fff", "0"), ordered=False, bits=16, sets=False),
    Field("ip dscp", V4, ("cs1", "cs2", "af11", "ef", "cs0"), False), Field("ip ecn", V4, ("not-ect", "ect0", "ce"), False),
    Field("ip hdrlength", V4, _numbers(5, 6, 15)), Field("ip version", V4, ("4",)),
    Field("ip6 nexthdr", V6, _numbers(*pools.PROTOCOLS, 0, 44)), Field("ip6 hoplimit", V6, _numbers(1, 2, 8, 63, 64, 254)),
    Field("ip6 length", V6, _numbers(0, 8, 15, 20, 100, 1360)), Field("ip6 dscp", V6, ("cs1", "cs2", "ef", "cs0"), False),
    Field("ip6 flowlabel", V6, _numbers(0, 1, 0x12345)),
    Field("tcp sport", ANY, PORTS), Field("tcp dport", ANY, PORTS), Field("udp sport", ANY, PORTS),
    Field("udp dport", ANY, PORTS), Field("th sport", ANY, PORTS), Field("th dport", ANY, PORTS),
    Field("tcp sequence", ANY, _numbers(*pools.SEQUENCES)), Field("tcp ackseq", ANY, _numbers(*pools.SEQUENCES)),
    Field("tcp flags", ANY, ("syn", "ack", "fin", "rst", "syn,ack"), ordered=False, bits=8, sets=False),
    Field("tcp doff", ANY, _numbers(5, 6, 7, 10)), Field("tcp window", ANY, _numbers(*pools.WINDOWS)),
    Field("tcp urgptr", ANY, _numbers(0, 1)), Field("udp length", ANY, _numbers(8, 15, 20, 100, 500)),
    Field("udp checksum", ANY, _numbers(0)),
    Field("icmp type", V4, ("echo-request", "echo-reply", "destination-unreachable", "time-exceeded"), ordered=False),
    Field("icmp code", V4, _numbers(0, 1, 3, 4)), Field("icmp id", V4, _numbers(*pools.IDENTS)),
    Field("icmp sequence", V4, _numbers(1, 2, 3)),
    Field("icmpv6 type", V6, ("echo-request", "echo-reply", "packet-too-big", "destination-unreachable"), ordered=False),
    Field("icmpv6 code", V6, _numbers(0, 1, 3, 4)), Field("icmpv6 id", V6, _numbers(*pools.IDENTS)),
    Field("meta length", ANY, _numbers(20, 35, 40, 60, 100, 500, 1400)), Field("meta mark", ANY, MARKS, bits=32),
    Field("meta protocol", ("inet",), ("ip", "ip6"), ordered=False),
    Field("meta nfproto", ("inet",), ("ipv4", "ipv6"), False, sets=False),
    Field("meta l4proto", ANY, _numbers(*pools.PROTOCOLS)), Field("meta iiftype", ANY, ("ether",), False, sets=False),
    Field("meta pkttype", ANY, ("host", "unicast", "broadcast", "multicast"), False),
    Field("iifname", ANY, NIC, False, hooks=("prerouting", "input", "forward")),
    Field("oifname", ANY, NIC, False, hooks=AFTER), Field("iif", ANY, NIC, False, hooks=("prerouting", "input", "forward")),
    Field("oif", ANY, NIC, False, hooks=AFTER),
    Field("ct state", ANY, ("new", "established", "related", "invalid", "untracked", "new,established"), False, 0, sets=False),
    Field("ct direction", ANY, ("original", "reply"), False, sets=False), Field("ct mark", ANY, MARKS, bits=32),
    Field("ct status", ANY, ("assured", "seen-reply", "confirmed", "snat", "dnat"), False, 0, sets=False),
    Field("ct original ip saddr", V4, ADDR4, False), Field("ct reply ip daddr", V4, ADDR4, False),
    Field("ct original ip6 saddr", V6, ADDR6, False), Field("ct reply ip6 daddr", V6, ADDR6, False),
    Field("ct original proto-dst", ANY, PORTS), Field("ct reply proto-src", ANY, PORTS),
    Field("ct protocol", ANY, ("tcp", "udp", "icmp"), False), Field("ct l3proto", ANY, ("ipv4", "ipv6"), False, sets=False),
    Field("ct packets", ANY, _numbers(0, 1, 2, 4), sets=False), Field("ct bytes", ANY, _numbers(0, 35, 100), sets=False),
    Field("ct original packets", ANY, _numbers(0, 1, 2), sets=False), Field("ct avgpkt", ANY, _numbers(35, 60), sets=False),
    Field("@nh,64,8", ANY, _numbers(1, 2, 63, 64), sets=False), Field("@th,0,16", ANY, PORTS, sets=False),
    Field("@th,64,32", ANY, _numbers(0, 1000, 5000), sets=False),
    Field("@ll,96,16", ANY, ("0x0800", "0x86dd"), False, sets=False, hooks=("prerouting", "input", "forward")),
    Field("tcp option maxseg size", ANY, _numbers(536, 1200, 1460)), Field("tcp option window count", ANY, _numbers(0, 7, 14)),
    Field("fib daddr type", ANY, ("local", "unicast", "broadcast", "multicast"), False, hooks=("prerouting", "input", "forward")),
    Field("fib saddr . iif oif", ANY, ("0",), False, sets=False, hooks=("prerouting", "input", "forward")),
    Field("rt nexthop", ("ip",), ADDR4, False, hooks=("forward", "postrouting")),
    Field("rt ip6 nexthop", ("inet",), ADDR6, False, hooks=("forward", "postrouting")),
)
EXISTENCE = {"tcp option sack-perm": ANY, "tcp option timestamp": ANY, "tcp option maxseg": ANY, "exthdr frag": ("ip6", "inet"),
             "exthdr hbh": ("ip6", "inet"), "exthdr dst": ("ip6", "inet"), "ip option rr": V4, "ip option ra": V4}
CONCATENATIONS = {
    "ip saddr . ip daddr": ("ipv4_addr . ipv4_addr", V4, (ADDR4, ADDR4)),
    "ip daddr . tcp dport": ("ipv4_addr . inet_service", V4, (ADDR4, PORTS)),
    "ip saddr . udp sport . ip daddr": ("ipv4_addr . inet_service . ipv4_addr", V4, (ADDR4, PORTS, ADDR4)),
    "ip6 daddr . th dport": ("ipv6_addr . inet_service", V6, (ADDR6, PORTS)),
    "meta l4proto . th dport": ("inet_proto . inet_service", ANY, (("tcp", "udp"), PORTS)),
    "iifname . ip saddr": ("ifname . ipv4_addr", V4, (NIC, ADDR4)),
}


@dataclass(frozen=True)
class Context:
    """What one rule is about: nft refuses rules whose parts contradict each other."""

    family: str
    hook: str
    l3: str      # ip or ip6
    l4: str      # tcp, udp, icmp, icmpv6, or nothing for any

    def allows(self, name: str) -> bool:
        """May this expression stand in the rule?"""
        words = name.split()
        if "ip" in words[:3] or words[:2] == ["rt", "nexthop"]:
            l3 = "ip"
        elif "ip6" in words[:3] or words[0] == "exthdr":
            l3 = "ip6"
        else:
            l3 = self.l3
        l4 = words[0] if words[0] in ("tcp", "udp", "icmp", "icmpv6") else \
            next((word for word in ("tcp", "udp") if f". {word} " in name), self.l4)
        if name in ("ip protocol", "ip6 nexthdr", "meta l4proto", "ct protocol") or name.startswith("meta l4proto ."):
            l4 = ""
        if words[0] == "th" or ". th " in name or "proto-" in name:
            return self.l4 in ("", "tcp", "udp") and l3 == self.l3
        return l3 == self.l3 and l4 == self.l4


@dataclass
class RuleGenerator:
    """Random rulesets; `covered` counts what they contain."""

    rng: random.Random
    covered: Counter[tuple[str, str, str]] = field(default_factory=Counter)

    def ruleset(self) -> Ruleset:
        """One ruleset: one to three tables, maybe with translation."""
        tables = [self._filter_table(f"t{n}") for n in range(self.rng.choice((1, 1, 1, 2)))]
        if self.rng.random() < 0.5:
            tables.append(self._nat_table())
        if self.rng.random() < 0.15:
            tables.append(self._netdev_table())
        self.rng.shuffle(tables)
        return Ruleset(tuple(tables))

    # ---- matches ----------------------------------------------------------------------------------------------

    def context(self, family: str, hook: str) -> Context:
        """What the next rule is about."""
        l3 = family if family in ("ip", "ip6") else self.rng.choice(("ip", "ip6"))
        l4 = self.rng.choice(("", "", "tcp", "udp", "tcp", "udp", "icmp" if l3 == "ip" else "icmpv6"))
        return Context(family, hook, l3, l4)

    def match(self, ctx: Context) -> str:
        """One random match that is legal in this rule."""
        family, hook = ctx.family, ctx.hook
        roll = self.rng.random()
        if roll < 0.06:
            names = [name for name, where in EXISTENCE.items() if family in where and ctx.allows(name)]
            if names:
                name, answer = self.rng.choice(names), self.rng.choice(("exists", "missing"))
                return self._note(name, answer, hook, f"{name} {answer}")
        if roll < 0.14:
            keys = [k for k, (_, families, _) in CONCATENATIONS.items() if family in families and ctx.allows(k)
                    and (not k.startswith("iifname") or hook in ("prerouting", "input", "forward"))]
            if keys:
                return self._concatenation(self.rng.choice(keys), hook)
        usable = [f for f in FIELDS if family in f.families and ctx.allows(f.name) and (hook in f.hooks or not hook)]
        if not hook:  # a chain that is jumped to: anything that is legal at every hook
            usable = [f for f in usable if f.hooks == HOOKS]
        what = self.rng.choice(usable)
        if what.values == ("ipv4", "ipv6"):  # contradicting the rule's other parts is an error
            return self._note(what.name, "==", hook, f"{what.name} {'ipv4' if ctx.l3 == 'ip' else 'ipv6'}")
        return (f"meta l4proto {ctx.l4 or '{ tcp, udp }'} " if "proto-" in what.name else "") + self._compare(what, hook)

    def _compare(self, what: Field, hook: str) -> str:
        ways: list[str] = ["==", "==", "!="]
        if what.ordered:
            ways += ["range", "!= range", "<", ">=", "interval set"]
        if what.sets:
            ways += ["set", "!= set"]
        if what.bits:
            ways += ["bits", "bits"]
        way, values = self.rng.choice(ways), what.values
        name = what.name
        if way == "bits":
            mask = f"{1 << self.rng.randrange(what.bits):#x}"
            text = f"{name} & {mask} {self.rng.choice(('==', '!='))} {self.rng.choice(('0', mask))}"
        elif way in ("range", "!= range", "interval set"):
            low, high = sorted(self.rng.sample(values, 2), key=_order) if len(set(values)) > 1 else (values[0], values[0])
            span = f"{low}-{high}" if low != high else low
            text = {"range": f"{name} {span}", "!= range": f"{name} != {span}",
                    "interval set": f"{name} {{ {span} }}"}[way]
        elif way in ("set", "!= set"):
            chosen = self.rng.sample(values, self.rng.randint(1, min(4, len(values))))
            text = f"{name} {'!= ' if way[0] == '!' else ''}{{ {', '.join(chosen)} }}"
        elif way == "==":
            value = self.rng.choice(values)
            if name in ("ip saddr", "ip daddr") and self.rng.random() < 0.3:
                value, way = value.rsplit(".", 1)[0] + ".0/24", "prefix"
            if name in ("ip6 saddr", "ip6 daddr") and self.rng.random() < 0.3:
                value, way = value.split("::")[0] + "::/64", "prefix"
            text = f"{name} {value}"
        else:
            text = f"{name} {way} {self.rng.choice(values)}"
        return self._note(name, way, hook, text)

    def _concatenation(self, key: str, hook: str) -> str:
        parts = CONCATENATIONS[key][2]
        elements = {" . ".join(self.rng.choice(values) for values in parts) for _ in range(self.rng.randint(1, 5))}
        return self._note(key, "concatenation", hook, f"{key} {{ {', '.join(sorted(elements))} }}")

    def _note(self, expression: str, operator: str, hook: str, text: str) -> str:
        self.covered[expression, operator, hook or "any"] += 1
        return text

    # ---- statements -------------------------------------------------------------------------------------------

    def statement(self, ctx: Context) -> str:
        """One random statement that is not a verdict, or nothing."""
        hook, l3 = ctx.hook, ctx.l3
        options: list[tuple[str, str]] = [
            ("meta mark set", f"meta mark set {self.rng.choice(MARKS)}"),
            ("ct mark set", f"ct mark set {self.rng.choice(MARKS)}"),
            ("ct mark set meta mark", "ct mark set meta mark"), ("meta mark set ct mark", "meta mark set ct mark"),
            ("meta mark set and", f"meta mark set meta mark and {self.rng.choice(('0xff', '0xff00', '1'))}"),
            ("meta mark set or", f"meta mark set meta mark or {self.rng.choice(('0x1', '0x100'))}"),
            ("limit", f"limit rate 1/hour burst {self.rng.randint(1, 4)} packets"),
            ("limit over", f"limit rate over 1/hour burst {self.rng.randint(1, 4)} packets"),
            ("quota", f"quota {self.rng.choice(('over ', 'until '))}{self.rng.randint(50, 500)} bytes"),
            ("meta priority set", "meta priority set 1:2"),
            ("numgen", f"numgen inc mod {self.rng.randint(2, 4)} {self.rng.randint(0, 1)}"),
            ("update set", f"update @dyn{l3} {{ {l3} saddr }}"),
            ("add set", f"add @dyn{l3} {{ {l3} daddr }}"),
            ("dynamic limit", f"add @dynlim{l3} {{ {l3} saddr limit rate "
                              f"over 1/hour burst {self.rng.randint(1, 3)} packets }}"),
        ]
        if ctx.l4 == "tcp":
            options += [("tcp option set", "tcp option maxseg size set 1000"),
                        ("tcp dport set", f"tcp dport set {self.rng.choice(PORTS)}"),
                        ("mark map tcp", "meta mark set tcp dport map { " + ", ".join(
                            f"{p} : {m}" for p, m in zip(PORTS[:6], MARKS, strict=False)) + " }")]
        if ctx.l4 == "udp":
            options += [("mark map udp", "meta mark set udp dport map { " + ", ".join(
                f"{p} : {m}" for p, m in zip(PORTS[:6], MARKS, strict=False)) + " }")]
        if l3 == "ip":
            options += [("ip dscp set", f"ip dscp set {self.rng.choice(('cs1', 'ef', 'cs0'))}"),
                        ("ip ttl set", f"ip ttl set {self.rng.choice((9, 64))}"),
                        ("ip saddr set", f"ip saddr set {self.rng.choice(ADDR4[:8])}"),
                        ("jhash", f"jhash ip saddr . ip daddr mod {self.rng.randint(2, 4)} seed 0x2a {self.rng.randint(0, 1)}"),
                        ("mark map", "meta mark set ip saddr map { " + ", ".join(
                            f"{a} : {m}" for a, m in zip(ADDR4[:6], MARKS, strict=False)) + " }")]
        elif hook in AFTER:  # sooner, the kernel's own UDP takes the packet for damaged
            options += [("ip6 hoplimit set", "ip6 hoplimit set 33"), ("ip6 dscp set", "ip6 dscp set ef")]
        if hook == "prerouting":
            options += [("notrack", "notrack")]
        kind, text = self.rng.choice(options)
        return self._note(kind, "statement", hook, text)

    def verdict(self, ctx: Context, targets: tuple[str, ...]) -> str:
        """A verdict, a jump to one of `targets`, a verdict map, or nothing."""
        hook = ctx.hook
        options = ["accept", "accept", "drop", "", "", "continue"]
        if hook not in ("output", "postrouting", ""):
            options += ["reject", "reject"]
        if targets:
            options += ["jump", "jump", "goto", "vmap"]
        if not hook:
            options += ["return"]
        kind = self.rng.choice(options)
        text = kind
        if kind in ("jump", "goto"):
            text = f"{kind} {self.rng.choice(targets)}"
        elif kind == "vmap":
            key, values = self.rng.choice([(key, values) for key, values in (
                ("tcp dport", PORTS), ("udp dport", PORTS), ("meta mark", MARKS), ("ct state", ("new", "established")),
                ("meta l4proto", _numbers(*pools.PROTOCOLS))) if key in ("meta mark", "ct state") or ctx.allows(key)])
            chosen = self.rng.sample(values, min(3, len(values)))
            verdicts = ["accept", "drop", "continue", *(f"jump {name}" for name in targets)]
            text = f"{key} vmap {{ {', '.join(f'{v} : {self.rng.choice(verdicts)}' for v in chosen)} }}"
        elif kind == "reject":
            text = self._reject(ctx)
        if kind:
            self._note(kind, "verdict", hook, "")
        return text

    def _reject(self, ctx: Context) -> str:
        kinds = {"ip": ("icmp port-unreachable", "icmp host-prohibited", "icmp admin-prohibited", "icmp net-unreachable"),
                 "ip6": ("icmpv6 no-route", "icmpv6 admin-prohibited", "icmpv6 port-unreachable"),
                 "inet": ("icmpx port-unreachable", "icmpx admin-prohibited", "icmpx no-route", "icmpx host-unreachable")}
        forms = ["reject", f"reject with {self.rng.choice(kinds[ctx.family])}"]
        return self.rng.choice([*forms, "meta l4proto tcp reject with tcp reset"] if ctx.l4 in ("", "tcp") else forms)

    # ---- rules, chains, tables --------------------------------------------------------------------------------

    def rule(self, family: str, hook: str, targets: tuple[str, ...]) -> str:
        """Matches, statements, a counter, a verdict."""
        ctx = self.context(family, hook)
        parts = [self.match(ctx) for _ in range(self.rng.choice((0, 1, 1, 1, 2, 2, 3)))]
        parts += [self.statement(ctx) for _ in range(self.rng.choice((0, 0, 0, 1, 1, 2)))]
        if self.rng.random() < 0.1:
            parts.insert(self.rng.randrange(len(parts) + 1), "counter")
        return " ".join([*parts, "counter", self.verdict(ctx, targets)]).rstrip()

    def _rules(self, low: int, high: int, make: Callable[[], str]) -> tuple[str, ...]:
        return tuple(make() for _ in range(self.rng.randint(low, high)))

    def _filter_table(self, name: str) -> Table:
        family = self.rng.choice(("inet", "inet", "ip", "ip6"))
        sets = tuple(line for l3, kind in (("ip", "ipv4_addr"), ("ip6", "ipv6_addr")) if family in (l3, "inet") for line in (
            f"set dyn{l3} {{ type {kind}; flags dynamic; size {self.rng.choice((2, 100))}; }}",
            f"set dynlim{l3} {{ type {kind}; flags dynamic; size 100; }}"))
        leaves: list[Chain] = []
        for n in range(self.rng.choice((0, 1, 2))):
            seen = tuple(chain.name for chain in leaves)
            leaves.append(Chain(f"leaf{n}", "", self._rules(1, 3, lambda seen=seen: self.rule(family, "", seen))))  # type: ignore[misc]
        targets = tuple(chain.name for chain in leaves)
        chains = []
        for n in range(self.rng.choice((1, 1, 2, 3))):
            hook = self.rng.choice(REACHED)
            priority = self.rng.choice((-310, -150, -10, 0, 0, 5, 10, 90, 110))
            policy = self.rng.choice(("accept", "accept", "accept", "drop"))
            chains.append(Chain(f"c{n}", f"type filter hook {hook} priority {priority}; policy {policy};",
                                self._rules(1, 5, lambda hook=hook: self.rule(family, hook, targets)), hook))  # type: ignore[misc]
        return Table(family, name, sets, tuple(leaves + chains))

    def _netdev_table(self) -> Table:
        device = self.rng.choice(pools.NAMES)
        plain = [f for f in FIELDS if f.name.split()[0] in ("ip", "ip6", "tcp", "udp", "th", "icmp") and "inet" in f.families]

        def rule() -> str:
            ctx = self.context("netdev", "ingress")
            usable = [f for f in plain if ctx.allows(f.name)]
            parts = [self._compare(self.rng.choice(usable), "ingress") for _ in range(self.rng.choice((1, 1, 2)))]
            return " ".join([*parts, self.rng.choice(("", "meta mark set 2", "ip ttl set 77" if ctx.l3 == "ip" else "")),
                             "counter", self.rng.choice(("", "accept", "drop"))]).rstrip()
        rules = ("meta protocol arp accept", "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept",
                 *self._rules(1, 3, rule))
        return Table("netdev", "n", (), (Chain("ingress", f'type filter hook ingress device "{device}" priority 0;', rules,
                                               "ingress"),))

    def _nat_table(self) -> Table:
        family = self.rng.choice(("ip", "ip6", "inet"))
        one = "ip6" if family == "ip6" or (family == "inet" and self.rng.random() < 0.5) else "ip"
        proto = self.rng.choice(("tcp", "udp"))
        loose = Context(family, "", one, "")
        inner = self.rng.choice(pools.hosts(one))
        outer = pools.family(one).host("wan", self.rng.choice((77, 78)))
        which = f" {one}" if family == "inet" else ""

        def written(address: str, port: str) -> str:
            return f"[{address}]:{port}" if one == "ip6" else f"{address}:{port}"

        def rule(hook: str, kind: str, text: str) -> str:
            self._note(kind, "nat", hook, "")
            ctx = replace(loose, hook=hook, l4=proto if proto in text else "")
            return f"{self.match(ctx)} counter {text}"

        def pre() -> str:
            kind, text = self.rng.choice((
                ("dnat", f"dnat{which} to {inner}"),
                ("dnat port", f"meta l4proto {proto} dnat{which} to {written(inner, self.rng.choice(PORTS))}"),
                ("dnat range", f"dnat{which} to {inner}-{inner}"),
                ("redirect", f"meta l4proto {proto} redirect to :{self.rng.choice(PORTS)}"), ("redirect plain", "redirect"),
                ("dnat map", f"dnat{which} to {proto} dport map {{ 80 : {inner}, 53 : {self.rng.choice(pools.hosts(one))} }}")))
            return rule("prerouting", kind, text)

        def post() -> str:
            kind, text = self.rng.choice((
                ("masquerade", "masquerade"), ("masquerade", "masquerade"), ("snat", f"snat{which} to {outer}"),
                ("snat port", f"meta l4proto {proto} snat{which} to {written(outer, self.rng.choice(PORTS))}"),
                ("snat range", f"meta l4proto {proto} snat{which} to {written(outer, '20000-20100')}"),
                ("masquerade range", f"meta l4proto {proto} masquerade to :30000-30100"),
                ("snat persistent", f"snat{which} to {outer} persistent")))
            return rule("postrouting", kind, text)
        chains = []
        if self.rng.random() < 0.7:
            chains.append(Chain("pre", "type nat hook prerouting priority dstnat;", self._rules(1, 3, pre), "prerouting"))
        if not chains or self.rng.random() < 0.7:
            chains.append(Chain("post", "type nat hook postrouting priority srcnat;", self._rules(1, 3, post), "postrouting"))
        if family == "inet":  # `dnat ip6` alone has Linux track IPv6 only
            chains[0] = replace(chains[0], rules=("ct state new counter", *chains[0].rules))
        return Table(family, "nat", (), tuple(chains))


def _order(value: str) -> tuple[int, object]:
    """Sorts numbers by value, addresses by bytes, names by what nft makes of them."""
    from lab.frames import addr
    names = {"cs0": 0, "cs1": 8, "af11": 10, "cs2": 16, "ef": 46, "not-ect": 0, "ect0": 2, "ce": 3}
    if value in names:
        return 0, names[value]
    if "." in value or ":" in value:
        return 1, addr(value)
    return 0, int(value, 0)
