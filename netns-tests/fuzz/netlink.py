"""Rules that the laboratory's nft cannot write, into the kernel by hand: userfw lowers them, nfnetlink carries them.

Laws
- The kernel gets the very expressions that the engine runs, so this also checks the lowering. Sets and objects that have names are
  declared by nft; anonymous ones come in the rule's own batch.
- One rule, one batch. The kernel's refusal is its errno; what userfw's language refuses is an AnswerError without one.
- What rules remember is read by `GETRULE` and put as nft would list it: this nft ends the process over an expression that it does
  not know, and over some that it does.
"""

import os
import re
import socket
import struct
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

from lab.nftlib import Answer

from userfw.nft.datatype import Names
from userfw.nft.lower import lower_rule
from userfw.nft.lower_set import LoweredElement, half_open, lower_elements, lower_set
from userfw.nft.syntax import SetBlock
from userfw.ruleset.manager import RulesetManager
from userfw.ruleset.platform import PrivatePlatform

from .attributes import LIST_ELEM, TEMPLATE, expressions, nest, text, u32, value, verdict
from .raw import CT_COUNT, PREFIX, RawBackend, spliced

SUBSYSTEM, _NETFILTER = 10, 12
NEWRULE, GETRULE, DELRULE, NEWSET, NEWSETELEM, GETSETELEM, DELSETELEM, NEWOBJ = 6, 7, 8, 9, 12, 13, 14, 18
_BEGIN, _END, _ERROR, _DONE = 16, 17, 2, 3
_REQUEST, _MULTI_ACK, _DUMP, _CREATE, _APPEND = 1, 4, 0x300, 0x400, 0x800
_INTERVAL, _MAP, _CONCAT = 4, 8, 0x80
_VERDICT_DATA = 0xFFFFFF00
FAMILIES = {"inet": 1, "ip": 2, "arp": 3, "netdev": 5, "bridge": 7, "ip6": 10}
_FIELD = r"(?:(?:ip6?|tcp|udp|th|icmp|icmpv6|sctp|dccp) \S+|@[nt]h,\S+)"
_ONE = r"(?:[^{\s]+|\{ [^,{}]+ \})"  # a set of one is a value to nft
_INEQUALITY = _FIELD + " != " + _ONE
_ACROSS = _FIELD + " " + _ONE + r" (?:.* )?counter " + _FIELD + " " + _ONE
_FLAGS = r"(?:tcp flags [a-z].*tcp window|tcp window .*tcp flags [a-z])"
_BY_HAND = re.compile(f'log prefix "{PREFIX}|udp [sd]port set|{_INEQUALITY} {_INEQUALITY}|{_ACROSS}|{_FLAGS}')
_CHAIN = re.compile(r"^  chain (\S+) \{$")
_CODES = {"accept": 1, "drop": 0, "continue": -1, "break": -2, "jump": -3, "goto": -4, "return": -5, "queue": 3}


def taken_apart(ruleset: str) -> tuple[str, list[tuple[str, str, str, str]]]:
    """The text of a rules.Ruleset without its rules, and these as (family, table, chain, rule), in order."""
    kept, rules = [], []
    family = table = chain = ""
    for line in ruleset.splitlines():
        if line.startswith("table "):
            _, family, table, _ = line.split()
        elif found := _CHAIN.match(line):
            chain = found[1]
        elif chain and line == "  }":
            chain = ""
        elif chain and not line.lstrip().startswith("type "):
            rules.append((family, table, chain, line.strip()))
            continue
        kept.append(line)
    return "\n".join(kept) + "\n", rules


def by_hand(text: str) -> bool:
    """Whether the laboratory's nft must not write this: raw expressions; inequalities side by side, which it merges into one that
    holds when any does; flags beside the window, which it merges into one that holds only where no other flag is set; fields side
    by side with a statement between them, which it merges in front of that; `udp dport set`, where it updates a checksum of zero
    too, unlike nft 1.1.6."""
    return _BY_HAND.search(text) is not None


def hookless(commands: str) -> str:
    """The same commands or blocks with chains that stand on no hook: rules are lowered whether a hook takes them or not."""
    lines = (re.sub(r"^(add chain \S+ \S+ \S+) \{.*", r"\1", line) for line in commands.splitlines())
    return "\n".join(line for line in lines if not line.lstrip().startswith(("type ", "flush ruleset")))


class Interfaces(Names):
    """The names of the router's devices, as its kernel numbers them."""

    def __init__(self, numbers: list[tuple[int, str]]) -> None:
        super().__init__()
        self.numbers = {name: number for number, name in numbers}

    def ifindex(self, name: str) -> int | None:
        return self.numbers.get(name)


class Writer:
    """Adds rules inside one namespace; `library` is the laboratory's NftLibrary there."""

    def __init__(self, library: Any) -> None:
        self.library = library
        self.sock: socket.socket = library.call(self._open)
        self.sequence = 0
        self.names = Interfaces(library.call(socket.if_nameindex))
        self.forget()

    @staticmethod
    def _open() -> socket.socket:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        sock.bind((0, 0))
        return sock

    def forget(self) -> None:
        """The kernel's ruleset was flushed."""
        self.manager = RulesetManager(backend=RawBackend(PrivatePlatform(self.names)))
        self.lasting: list[tuple[str, str, str]] = []

    def declare(self, commands: str) -> str:
        """Make userfw know the tables, chains, sets and objects that the kernel has; its complaint, or nothing."""
        family = table = ""
        for line in commands.splitlines():
            words = line.split()
            if words and words[0] == "table":
                family, table = words[1:3]
            elif words and words[0] == "set" and "last" in words[1]:
                self.lasting.append((family, table, words[1]))
        return str(self.manager.execute(commands).errors)

    def add(self, family: str, table: str, chain: str, rule: str) -> Answer:
        """Lower one rule, and give it to the kernel."""
        done = self.manager.execute(f"add rule {family} {table} {chain} {rule}")
        if done.status:
            return Answer(False, "", done.errors, 0)
        node = self.manager.rules.tables[family, table].chains[chain].rules[-1].node
        made = lower_rule(node, family)
        ids = {block.name: number for number, block in enumerate(made.anonymous_sets, 1)}
        messages = [message for block in made.anonymous_sets for message in _set(table, block, ids[block.name])]
        exprs = spliced(made.expressions)
        messages += [(NEWOBJ, _CREATE, text(1, table) + text(2, one.name) + u32(3, one.type) + nest(4, u32(1, 100_000) + u32(2, 0)))
                     for one in exprs if getattr(one, "kind", "") == "objref" and getattr(one, "type", 0) == CT_COUNT]
        body = text(1, table) + text(2, chain) + nest(4, expressions(exprs, ids))
        messages.append((NEWRULE, _CREATE | _APPEND, body))
        code = self._batch(FAMILIES[family], messages)
        return Answer(code == 0, "", os.strerror(code) if code else "", code)

    def _batch(self, family: int, messages: list[tuple[int, int, bytes]]) -> int:
        """The first errno of a batch, or 0."""
        self.sequence += 100
        last = len(messages)
        out = self._message(_BEGIN, 0, 0, struct.pack(">BBH", 0, 0, SUBSYSTEM))
        for number, (kind, flags, body) in enumerate(messages, 1):
            out += self._message(SUBSYSTEM << 8 | kind, flags | _MULTI_ACK, number, struct.pack(">BBH", family, 0, 0) + body)
        out += self._message(_END, 0, last + 1, struct.pack(">BBH", 0, 0, SUBSYSTEM))
        self.sock.send(out)
        seen, code = 0, 0
        while seen < last:
            for kind, sequence, body in _messages(self.sock.recv(1 << 20)):
                if kind == _ERROR and sequence > self.sequence:
                    seen += 1
                    code = code or -struct.unpack_from("i", body)[0]
        return code

    def _message(self, kind: int, flags: int, number: int, body: bytes) -> bytes:
        return struct.pack("IHHII", 16 + len(body), kind, _REQUEST | flags, self.sequence + number, 0) + body

    # ---- reading back -----------------------------------------------------------------------------------------

    def listing(self) -> str:
        """What rules of all families remember, as memory.memory wants it; sets and objects as nft lists them.

        Rules, and elements with `last`, are read here and thrown away: this nft would fall over them.
        """
        rules = list(self.rules())
        for family, table in {rule[:2]: None for rule in rules}:
            self._batch(FAMILIES[family], [(DELRULE, 0, text(1, table))])
        parts = [self._lasting(*place) for place in self.lasting]
        parts += [self.library.run(f"list {what}").output for what in ("sets", "maps", "counters", "quotas")]
        blocks: dict[tuple[str, str, str], list[str]] = {}
        for family, table, chain, words in rules:
            blocks.setdefault((family, table, chain), []).append(f"\t\t{words}")
        for (family, table, chain), lines in blocks.items():
            parts.append("\n".join([f"table {family} {table} {{", f"\tchain {chain} {{", *lines, "\t}", "}", ""]))
        return "".join(parts)

    def _lasting(self, family: str, table: str, name: str) -> str:
        """The elements of one set, which is empty afterwards."""
        body = text(1, table) + text(2, name)
        rows = [dict(_attrs(row)) for part in self._dump(GETSETELEM, FAMILIES[family], body)
                for _, row in _attrs(dict(_attrs(part[4:])).get(3, b""))]
        self._batch(FAMILIES[family], [(DELSETELEM, 0, body)])
        keys = ", ".join(_key(name, dict(_attrs(row[1]))[1]) for row in rows)
        elements = f"\t\telements = {{ {keys} }}\n" if keys else ""
        return f"table {family} {table} {{\n\tset {name} {{\n{elements}\t}}\n}}\n"

    def _dump(self, kind: int, family: int, body: bytes) -> list[bytes]:
        """The answers to a dump, each from its nfgenmsg on."""
        self.sequence += 100
        self.sock.send(self._message(SUBSYSTEM << 8 | kind, _DUMP, 0, bytes((family, 0, 0, 0)) + body))
        found: list[bytes] = []
        while True:
            for answer, _, part in _messages(self.sock.recv(1 << 20)):
                if answer == _DONE:
                    return found
                if answer != _ERROR:
                    found.append(part)

    def rules(self) -> Iterator[tuple[str, str, str, str]]:
        """Every rule: family, table, chain, and what it counts."""
        names = {number: name for name, number in FAMILIES.items()}
        for part in self._dump(GETRULE, 0, b""):
            attrs = dict(_attrs(part[4:]))
            words = " ".join(filter(None, (_counts(one) for _, one in _attrs(attrs[4]))))
            yield names[part[0]], _string(attrs[1]), _string(attrs[2]), words

    def close(self) -> None:
        """Give the socket back."""
        self.sock.close()


def _set(table: str, block: SetBlock, number: int) -> list[tuple[int, int, bytes]]:
    """The messages that make an anonymous set."""
    made = lower_set(block, anonymous=True)
    elements = lower_elements(block)
    body = text(1, table) + text(2, TEMPLATE) + u32(3, made.flags) + u32(4, made.key_type) + u32(5, made.key_len) + u32(10, number)
    if made.flags & _MAP:
        body += u32(6, made.data_type if made.data_len else _VERDICT_DATA) + u32(7, made.data_len)
    described = u32(1, len(elements))
    if made.flags & _CONCAT:
        described += nest(2, *(nest(LIST_ELEM, u32(1, size)) for size in made.fields))
    body += nest(9, described)
    if made.flags & _INTERVAL and not made.flags & _CONCAT:
        elements = half_open(elements, made.key_len)
    rows = b"".join(nest(LIST_ELEM, _element(one, bool(made.flags & _CONCAT))) for one in elements)
    return [(NEWSET, _CREATE, body),
            (NEWSETELEM, _CREATE, text(1, table) + text(2, TEMPLATE) + u32(4, number) + nest(3, rows))]


def _element(one: LoweredElement, pairs: bool) -> bytes:
    out = value(1, one.key) if one.key is not None else b""
    if pairs and one.key is not None:
        out += value(10, one.key_end or one.key)
    if isinstance(one.data, bytes):
        out += value(2, one.data)
    elif isinstance(one.data, tuple):
        out += verdict(2, _CODES[one.data[0]], one.data[1])
    elif one.data:
        out += text(9, one.data)
    return out + (u32(3, one.flags) if one.flags else b"")


def _key(name: str, key: bytes) -> str:
    """An element's key as nft writes it, by the name of its set: an address or a mark."""
    return f"0x{struct.unpack('I', key)[0]:08x}" if "mark" in name else str(ip_address(key))


def _counts(part: bytes) -> str:
    """A counter or a quota as nft lists it, or nothing."""
    attrs = dict(_attrs(part))
    name, data = _string(attrs[1]), dict(_attrs(attrs.get(2, b"")))
    if name == "counter":
        return f"counter packets {_number(data[2])} bytes {_number(data[1])}"
    if name == "quota":
        return f"quota {'over ' if _number(data[2]) & 1 else ''}{_number(data[1])} bytes used {_number(data[4])} bytes"
    if name == "dynset":
        inside = [data[7]] if 7 in data else [one for _, one in _attrs(data.get(10, b""))]
        return " ".join(f"quota {_number(dict(_attrs(dict(_attrs(one))[2]))[1])} bytes" for one in inside
                        if _string(dict(_attrs(one))[1]) == "quota")
    return ""


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    at = 0
    while at + 16 <= len(data):
        size, kind, _, sequence, _ = struct.unpack_from("IHHII", data, at)
        yield kind, sequence, data[at + 16:at + size]
        at += (size + 3) & ~3


def _attrs(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(data):
        size, number = struct.unpack_from("HH", data, at)
        yield number & 0x3FFF, data[at + 4:at + size]
        at += (size + 3) & ~3


def _string(data: bytes) -> str:
    return data.rstrip(b"\0").decode()


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big")
