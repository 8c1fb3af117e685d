"""Reads the expression lines of the nft-py corpus and builds each expression from its own text."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from userfw.engine import expressions as ex
from userfw.engine.expr import Expr

FOLDER = Path(os.environ.get("USERFW_CONFORMANCE", Path(__file__).parents[3] / "shared" / "conformance")) / "nft-py"


def lines() -> Iterator[str]:
    """Every distinct `[ … ]` line of the payload files."""
    seen: set[str] = set()
    for path in sorted(FOLDER.glob("*/*.payload*")):
        for line in path.read_text().splitlines():
            text = line.strip()
            if text.startswith("[") and text not in seen:
                seen.add(text)
                yield text


def rules() -> Iterator[tuple[str, list[str]]]:
    """Every rule: its family and its expression lines."""
    for path in sorted(FOLDER.glob("*/*.payload*")):
        family = ""
        block: list[str] = []
        for line in [*path.read_text().splitlines(), ""]:
            text = line.strip()
            if text.startswith("["):
                block.append(text)
                continue
            if block:
                yield family, block
                block = []
            if text and not text.startswith(("#", "__", "element")):
                family = text.split()[0]


def data(text: str) -> bytes:
    return b"".join(int(word, 16).to_bytes(4, "little") for word in text.split())


def reg(text: str | None) -> int | None:
    return None if text is None else int(text)


def _registers(text: str) -> dict[str, int]:
    return {name: int(number) for name, number in re.findall(r"(\w+) reg (\d+)", text)}


def _range(m: re.Match[str]) -> Expr:
    both = data(m[3])
    return ex.Range(m[1], int(m[2]), both[: len(both) // 2], both[len(both) // 2 :])


def _verdict(m: re.Match[str]) -> Expr:
    return ex.ImmediateVerdict(m[1], m[2] or "")


def _limit(m: re.Match[str]) -> Expr:
    return ex.Limit(int(m[1]), m[2], int(m[3]), m[4] == "bytes", m[5] == "0x1")


def _log(m: re.Match[str]) -> Expr:
    bits = {"tcpseq": 1, "tcpopt": 2, "ipopt": 4, "uid": 8, "macdecode": 32}
    match = re.fullmatch(r"(?:prefix (.*?) )?(?:group (\d+) snaplen (\d+) qthreshold (\d+) )?(?:level (\d+) )?((?:\w+ )*)", m[1])
    assert match
    prefix, group, snap, threshold, level, flags = match.groups()
    number = sum(bits[flag] for flag in flags.split())
    return ex.Log(prefix or "", reg(level), number, reg(group), int(snap or 0), int(threshold or 0))


def _nat(m: re.Match[str]) -> Expr:
    r = _registers(m[3])
    return ex.Nat(m[1], m[2], r.get("addr_min"), r.get("addr_max"), r.get("proto_min"), r.get("proto_max"), int(m[4] or "0", 16))


def _ports(cls: Any) -> Callable[[re.Match[str]], Expr]:
    def build(m: re.Match[str]) -> Expr:
        r = _registers(m[1])
        return cls(r.get("proto_min"), r.get("proto_max"), int(m[2] or "0", 16))  # type: ignore[no-any-return]

    return build


def _queue(m: re.Match[str]) -> Expr:
    first, last = int(m[1]), int(m[2] or m[1])
    return ex.Queue(first, last - first + 1, "bypass" in m[3], "fanout" in m[3])


def _exthdr(m: re.Match[str]) -> Expr:
    op = m[1] or "sctp"
    return ex.Exthdr(int(m[6]), op, int(m[3]), int(m[4]), int(m[2]), m[5] is not None)


W = r"((?:0x[0-9a-f]{8} ?)+)"
FLAGS = r"(?: flags (0x[0-9a-f]+))?"
PATTERNS: list[tuple[str, Callable[[re.Match[str]], Expr]]] = [
    (r"immediate reg 0 (\w+)(?: -> (\w+))?", _verdict),
    (rf"immediate reg (\d+) {W}", lambda m: ex.Immediate(int(m[1]), data(m[2]))),
    (rf"cmp (\w+) reg (\d+) {W}", lambda m: ex.Cmp(m[1], int(m[2]), data(m[3]))),
    (rf"range (\w+) reg (\d+) {W}", _range),
    (r"lookup reg (\d+) set (\S+)(?: dreg (\d+))?( 0x1)?", lambda m: ex.Lookup(int(m[1]), m[2], reg(m[3]), bool(m[4]))),
    (rf"bitwise reg (\d+) = \( reg (\d+) & {W} ?\) \^ {W}", lambda m: ex.Bitwise(int(m[2]), int(m[1]), data(m[3]), data(m[4]))),
    (
        r"bitwise reg (\d+) = \( reg (\d+) (<<|>>) 0x(\w+) \)",
        lambda m: ex.BitwiseShift("lshift" if m[3] == "<<" else "rshift", int(m[2]), int(m[1]), 4, int(m[4], 16)),
    ),
    (
        r"bitwise reg (\d+) = \( reg (\d+) ([&|^]) reg (\d+) \)",
        lambda m: ex.BitwiseBool({"&": "and", "|": "or", "^": "xor"}[m[3]], int(m[2]), int(m[4]), int(m[1]), 4),
    ),
    (
        r"byteorder reg (\d+) = (\w+)\(reg (\d+), (\d), (\d+)\)",
        lambda m: ex.Byteorder(m[2], int(m[3]), int(m[1]), int(m[5]), int(m[4])),
    ),
    (r"payload load (\d+)b @ (\w+) header \+ (\d+) => reg (\d+)", lambda m: ex.Payload(int(m[4]), m[2], int(m[3]), int(m[1]))),
    (
        r"payload write reg (\d+) => (\d+)b @ (\w+) header \+ (\d+) csum_type (\d) csum_off (\d+) csum_flags 0x(\d)",
        lambda m: ex.PayloadSet(int(m[1]), m[3], int(m[4]), int(m[2]), int(m[5]), int(m[6]), int(m[7])),
    ),
    (r"exthdr load (?:(ipv6|tcpopt|ipv4) )?(\d+)b @ (\d+) \+ (\d+)( present)? => reg (\d+)", _exthdr),
    (
        r"exthdr write tcpopt reg (\d+) => (\d)b @ (\d+) \+ (\d+)",
        lambda m: ex.ExthdrSet(int(m[1]), "tcpopt", int(m[3]), int(m[4]), int(m[2])),
    ),
    (r"exthdr reset tcpopt (\d+)", lambda m: ex.ExthdrReset("tcpopt", int(m[1]))),
    (r"meta load (\w+) => reg (\d+)", lambda m: ex.Meta(int(m[2]), m[1])),
    (r"meta set (\w+) with reg (\d+)", lambda m: ex.MetaSet(int(m[2]), m[1])),
    (r"ct load (\w+) => reg (\d+)(?: , dir (\w+))?", lambda m: ex.Ct(int(m[2]), m[1], m[3])),
    (r"ct set (\w+) with reg (\d+)(?: , dir (\w+))?", lambda m: ex.CtSet(int(m[2]), m[1], m[3])),
    (r"rt load (\w+) => reg (\d+)", lambda m: ex.Rt(int(m[2]), m[1])),
    (
        r"fib ([\w .]+?) (oif|oifname|type)( present)? => reg (\d+)",
        lambda m: ex.Fib(int(m[4]), m[2], tuple(m[1].split(" . ")), bool(m[3])),
    ),
    (r"socket load (\w+) => reg (\d+)", lambda m: ex.Socket(int(m[2]), m[1])),
    (r"osf dreg (\d+)", lambda m: ex.Osf(int(m[1]))),
    (r"numgen reg (\d+) = (\w+) mod (\d+)(?: offset (\d+))?", lambda m: ex.Numgen(int(m[1]), m[2], int(m[3]), int(m[4] or 0))),
    (
        r"hash reg (\d+) = jhash\(reg (\d+), (\d+), 0x(\w+)\) % mod (\d+)(?: offset (\d+))?",
        lambda m: ex.Jhash(int(m[1]), int(m[2]), int(m[3]), int(m[5]), int(m[4], 16), int(m[6] or 0)),
    ),
    (r"hash reg (\d+) = symhash\(\) % mod (\d+)(?: offset (\d+))?", lambda m: ex.Symhash(int(m[1]), int(m[2]), int(m[3] or 0))),
    (r"xfrm load (in|out) (\d+) (\w+) => reg (\d+)", lambda m: ex.Xfrm(int(m[4]), m[3], m[1], int(m[2]))),
    (r"tunnel load (\w+) => reg (\d+)", lambda m: ex.Tunnel(int(m[2]), m[1])),
    (
        r"inner type (\d) hdrsize \d flags \w (\[ .* \])",
        lambda m: ex.Inner(("vxlan", "geneve", "gre", "gretap")[int(m[1]) - 1], build(m[2])),
    ),
    (r"counter pkts (\d+) bytes (\d+)", lambda m: ex.Counter(int(m[1]), int(m[2]))),
    (r"limit rate (\d+)/(\w+) burst (\d+) type (\w+) flags (0x\d)", _limit),
    (r"quota bytes (\d+) consumed (\d+) flags (\d)", lambda m: ex.Quota(int(m[1]), int(m[2]), m[3] == "1")),
    (r"last never", lambda m: ex.Last()),
    (r"last (\d+)", lambda m: ex.Last(int(m[1]))),
    (r"connlimit count (\d+) flags (\d)", lambda m: ex.Connlimit(int(m[1]), m[2] == "1")),
    (r"log ?(.*)", lambda m: _log(re.fullmatch("(.*)", m[1] + " " if m[1] else "") or m)),
    (r"reject type (\d) code (\d+)", lambda m: ex.Reject(int(m[1]), int(m[2]))),
    (rf"nat (\w+) (ip6?|inet)((?: \w+ reg \d+)*){FLAGS}", _nat),
    (rf"masq((?: \w+ reg \d+)*){FLAGS}", _ports(ex.Masq)),
    (rf"redir((?: \w+ reg \d+)*){FLAGS}", _ports(ex.Redir)),
    (r"tproxy(?: (ip6?))?(?: addr reg (\d+))?(?: port reg (\d+))?", lambda m: ex.Tproxy(m[1] or "", reg(m[2]), reg(m[3]))),
    (r"synproxy mss (\d+) wscale (\d+)", lambda m: ex.Synproxy(int(m[1]), int(m[2]))),
    (r"dup(?: sreg_addr (\d+))?(?: sreg_dev (\d+))?", lambda m: ex.Dup(reg(m[1]), reg(m[2]))),
    (
        r"fwd sreg_dev (\d+)(?: sreg_addr (\d+) nfproto (\d+))?",
        lambda m: ex.Fwd(int(m[1]), reg(m[2]), {None: None, "2": "ip", "10": "ip6"}[m[3]]),
    ),
    (r"queue num (\d+)(?:-(\d+))?(.*)", _queue),
    (r"queue sreg_qnum (\d+)(.*)", lambda m: ex.Queue(sreg=int(m[1]), bypass="bypass" in m[2])),
    (r"notrack", lambda m: ex.Notrack()),
    (r"objref type (\d+) name (\S+)", lambda m: ex.Objref(int(m[1]), m[2])),
    (r"objref sreg (\d+) set (\S+)", lambda m: ex.ObjrefMap(int(m[1]), m[2])),
    (
        r"dynset (\w+) reg_key (\d+) set (\S+)(?: sreg_data (\d+))?",
        lambda m: ex.Dynset(m[1], int(m[2]), m[3], reg(m[4])),
    ),
]


def build(text: str) -> Expr:
    """The expression that a corpus line tells of; LookupError if no pattern fits."""
    inner = re.fullmatch(r"\[ (.*?) ?\]", text)
    for pattern, constructor in PATTERNS:
        match = re.fullmatch(pattern, inner[1] if inner else text)
        if match:
            return constructor(match)
    raise LookupError(text)


def true_length(exprs: tuple[Expr, ...]) -> tuple[Expr, ...]:
    """The listing pads constants to words; cut them to what was loaded, as nft has it."""
    sizes: dict[int, int] = {}
    result: list[Expr] = []
    for expr in exprs:
        if isinstance(expr, (ex.Payload, ex.Meta, ex.Ct, ex.Exthdr)):
            sizes[expr.dst] = expr.length
        elif isinstance(expr, ex.Cmp) and expr.src in sizes:
            expr = ex.Cmp(("eq", "neq", "lt", "lte", "gt", "gte")[expr.op], expr.sreg, expr.data[: sizes[expr.src]])
        elif isinstance(expr, ex.Range) and expr.src in sizes:
            n = sizes[expr.src]
            expr = ex.Range(("eq", "neq")[expr.op], expr.sreg, expr.low[:n], expr.high[:n])
        elif isinstance(expr, ex.Bitwise) and expr.src in sizes:
            n = sizes[expr.src]
            expr = ex.Bitwise(expr.sreg, expr.dreg, expr.mask[:n], expr.xor[:n])
            sizes[expr.dst] = n
        result.append(expr)
    return tuple(result)
