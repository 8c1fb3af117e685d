"""The corpus of ranges in concatenations (verified on Linux 6.18), through payload loads, a lookup and a counter."""

from __future__ import annotations

import json
import re
import socket
from typing import Any

import engine_corpus as corpus
import pytest
from engine_double import Double, base, ip4, ip6, udp

from userfw.core.packet import Packet
from userfw.engine.bind import TableScope
from userfw.engine.const import SET_INTERVAL
from userfw.engine.expr import Expr
from userfw.engine.expressions import Counter, Lookup, Meta, Payload
from userfw.engine.sets.base import Set
from userfw.engine.sets.factory import make_set
from userfw.wire.parse import parse_untrusted

FILE = corpus.FOLDER.parent / "concat_range_vectors.json"
SIZES = {"ipv4_addr": 4, "ipv6_addr": 16, "inet_service": 2, "ether_addr": 6, "inet_proto": 1}
LOADS = {
    "ip daddr": ("network", 16), "ip saddr": ("network", 12), "ip6 daddr": ("network", 24), "ip6 saddr": ("network", 8),
    "udp dport": ("transport", 2), "udp sport": ("transport", 0), "ether saddr": ("link", 6),
}  # fmt: skip
PROTOCOLS = {"udp": 17, "udp6": 17, "icmp6": 58, "tcp": 6, "icmp": 1, "icmpv6": 58, "sctp": 132}


def vectors() -> list[Any]:
    return json.loads(FILE.read_text()) if FILE.is_file() else []


def layout(types: list[str]) -> tuple[tuple[tuple[int, int], ...], int]:
    fields, at = [], 0
    for name in types:
        fields.append((at, SIZES[name]))
        at += (SIZES[name] + 3) // 4 * 4
    return tuple(fields), at


def value(kind: str, text: str) -> bytes:
    if kind == "ipv4_addr":
        return socket.inet_pton(socket.AF_INET, text)
    if kind == "ipv6_addr":
        return socket.inet_pton(socket.AF_INET6, text)
    if kind == "ether_addr":
        return bytes(int(part, 16) for part in text.split(":"))
    number = PROTOCOLS[text] if text in PROTOCOLS else int(text)
    return number.to_bytes(SIZES[kind], "big")


def bounds(kind: str, text: str) -> tuple[bytes, bytes]:
    low, _, high = text.partition("-")
    if "/" in low:
        address, _, bits = low.partition("/")
        start = int.from_bytes(value(kind, address), "big")
        span = (1 << (8 * SIZES[kind] - int(bits))) - 1
        return (start & ~span).to_bytes(SIZES[kind], "big"), (start | span).to_bytes(SIZES[kind], "big")
    return value(kind, low), value(kind, high or low)


def element(types: list[str], text: str) -> tuple[bytes, bytes]:
    low = high = b""
    for kind, part in zip(types, text.strip("{} ").split(" . "), strict=True):
        a, b = bounds(kind, part)
        size = (len(a) + 3) // 4 * 4
        low += a.ljust(size, b"\0")
        high += b.ljust(size, b"\0")
    return low, high


def frame(step: dict[str, Any]) -> Packet:
    src, dst = step.get("src", {}), step.get("dst", {})
    proto = PROTOCOLS[step["proto"]]
    six = "addr6" in src or "addr6" in dst or step["proto"].endswith("6")
    body = udp(int(src.get("port", 0)), int(dst.get("port", 0))) if proto == 17 else b"\x08\0\0\0\0\0\0\0"
    if six:
        a = socket.inet_pton(socket.AF_INET6, src.get("addr6", "2001:db8:ffff::1"))
        b = socket.inet_pton(socket.AF_INET6, dst.get("addr6", "2001:db8:ffff::2"))
        data = ip6(body, proto, a, b)
    else:
        a = socket.inet_pton(socket.AF_INET, src.get("addr4", "192.0.2.1"))
        b = socket.inet_pton(socket.AF_INET, dst.get("addr4", "192.0.2.2"))
        data = ip4(body, proto, a, b)
    pkt = Packet()
    head = value("ether_addr", step["eth_daddr"]) + value("ether_addr", src.get("mac", step["eth_saddr"]))
    pkt.load_frame(head + (b"\x86\xdd" if six else b"\x08\0") + data)
    parse_untrusted(pkt)
    return pkt


def loads(rule: str, types: list[str]) -> list[Expr]:
    fields, _ = layout(types)
    result: list[Expr] = []
    for (at, size), text in zip(fields, rule.split(" @")[0].split(" . "), strict=True):
        reg = 8 + at // 4
        result.append(Meta(reg, "l4proto") if text == "meta l4proto" else Payload(reg, *LOADS[text], size))
    return result


def answers(vector: Any) -> list[bool]:
    """For each packet of a vector, whether the rule matched as it should and the element that matched counted it."""
    match = re.search(r"type ([\w .]+);", vector["set"])
    assert match
    types = match[1].split(" . ")
    fields, size = layout(types)
    services = Double()
    scope = TableScope()
    table: Set = make_set("test", size, services.clock, SET_INTERVAL, fields, exprs=(Counter(),))
    scope.sets["test"] = table
    chain = base(services, [(*loads(vector["rule"], types), Lookup(8, "test"), counter := Counter())], scope)
    right: list[bool] = []
    for step in vector["steps"]:
        if "add" in step:
            assert table.add(*element(types, step["add"]))
        elif "delete" in step:
            table.remove(*element(types, step["delete"]))
        else:
            before = counter.packets
            for _ in range(step.get("n", 1)):
                chain.run(frame(step.get("match") or step["nomatch"]), 0)
            good = (counter.packets > before) == ("match" in step)
            if "elem" in step:
                found = table.get(*element(types, step["elem"]))
                good = good and found is not None and found.exprs[0].packets > 0
            right.append(good)
    return right


@pytest.mark.skipif(not FILE.is_file(), reason=f"no conformance data in {FILE}")
@pytest.mark.parametrize("vector", vectors(), ids=lambda v: v["name"])
def test_vectors(vector: Any) -> None:
    right = answers(vector)
    assert all(right) and len(right) == sum("match" in step or "nomatch" in step for step in vector["steps"])
