"""Plain set elements straight from the text, as nodes: concatenations, elements of maps, and what a run of others stands for.

Laws:
- Only what cannot mean anything else is taken: decimal and hexadecimal numbers, addresses with prefix or range, their
  concatenations, and as data also verdicts without a chain. Everything else is left to the parser.
- An element is taken only together with the comma after it, so a set never ends here.
- The nodes and places are those that the parser would make; a test compares them.
"""

from __future__ import annotations

import re
from typing import Final

from userfw.nft.location import Location, Source
from userfw.nft.scanner import is_ipv6
from userfw.nft.syntax import (
    ConcatExpr,
    ConstantExpr,
    Expr,
    PrefixExpr,
    RangeExpr,
    SetElemExpr,
    SymbolExpr,
    VerdictExpr,
)

_IP4: Final = r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}"
_NUMBER: Final = r"0|[1-9]\d{0,18}|0x[0-9a-fA-F]{1,16}"
_ITEM: Final = rf"(?P<ip4>{_IP4})(?:/(?P<plen>\d{{1,2}})|-(?P<to>{_IP4}))?|(?P<num>{_NUMBER})(?:-(?P<upto>{_NUMBER}))?"
_ELEMENT: Final = re.compile(rf"\s*(?:{_ITEM})\s*,(?=[\s\d])")
_IP6: Final = r"[0-9a-fA-F:]{2,39}"
_WORD_ITEM: Final = re.compile(rf"(?:{_ITEM}|(?P<ip6>{_IP6})(?:/(?P<plen6>\d{{1,3}})|-(?P<to6>{_IP6}))?)\Z")
_WORDS: Final = re.compile(r"[^\s,{}()\"$@#*;\\]+")
_COMMA: Final = re.compile(r"[^,{}()\"$@#*;\\]{1,400},(?=[\s\d])")
_VERDICTS: Final = frozenset(("accept", "drop", "return", "continue"))


def take_elements(source: Source, pos: int, elements: list[SetElemExpr]) -> int:
    """Append plain elements from ``pos`` on; the offset after the comma of the last one, ``pos`` if there is none."""
    text = source.text
    while True:
        match = _ELEMENT.match(text, pos)
        if match is None:
            after = _composed(source, pos, elements)
            if after == pos:
                return pos
            pos = after
            continue
        key = _item(source, match, 0)
        elements.append(SetElemExpr(key, loc=key.loc))
        pos = match.end()


def written(source: Source, pos: int) -> SetElemExpr:
    """The plain element that stands at `pos`."""
    word = _WORDS.match(source.text, pos)
    assert word is not None
    key = _word_item(source, word, data=False)
    assert key is not None
    return SetElemExpr(key, loc=key.loc)


def _item(source: Source, match: re.Match[str], base: int) -> Expr:
    """The expression of one matched item; ``base`` is where the match's text begins in the source."""
    word, length, other, digits, upto = match.group("ip4", "plen", "to", "num", "upto")
    first: Expr
    if word is not None:
        start, end = match.span("ip4")
        first = SymbolExpr(word, loc=Location(source, base + start, base + end))
    else:
        start, end = match.span("num")
        first = ConstantExpr(_number(digits), loc=Location(source, base + start, base + end))
    if length is not None:
        return PrefixExpr(first, int(length), loc=Location(source, base + start, base + match.end("plen")))
    name = "to" if other is not None else "upto" if upto is not None else ""
    if not name:
        return first
    low, high = match.span(name)
    loc = Location(source, base + low, base + high)
    right: Expr = SymbolExpr(other, loc=loc) if other is not None else ConstantExpr(_number(upto), loc=loc)
    return RangeExpr(first, right, loc=Location(source, base + start, base + high))


def _number(digits: str) -> int:
    return int(digits, 16) if digits[:2] == "0x" else int(digits)


def _composed(source: Source, pos: int, elements: list[SetElemExpr]) -> int:
    """One element with dots or a colon, or an IPv6 address: words separated by white space."""
    text = source.text
    chunk = _COMMA.match(text, pos)
    if chunk is None:
        return pos
    end = chunk.end() - 1
    key: Expr | None = None
    expect_item = True
    parts: list[Expr] = []
    for word in _WORDS.finditer(text, pos, end):
        if not expect_item:
            mark = word.group()
            if mark == ":" and key is None:
                key = _joined(source, parts)
                parts = []
            elif mark != ".":
                return pos
            expect_item = True
            continue
        item = _word_item(source, word, data=key is not None and not parts)
        if item is None:
            return pos
        parts.append(item)
        expect_item = False
    if expect_item:
        return pos
    last = _joined(source, parts)
    first = last if key is None else key
    if text.find("\n", first.loc.start, last.loc.end) >= 0:
        return pos
    if key is None:
        elements.append(SetElemExpr(last, loc=last.loc))
    else:
        elements.append(SetElemExpr(key, last, loc=Location(source, key.loc.start, last.loc.end)))
    return end + 1


def _joined(source: Source, parts: list[Expr]) -> Expr:
    if len(parts) == 1:
        return parts[0]
    return ConcatExpr(parts, loc=Location(source, parts[0].loc.start, parts[-1].loc.end))


def _word_item(source: Source, word: re.Match[str], data: bool) -> Expr | None:
    content = word.group()
    if data and content in _VERDICTS:
        return VerdictExpr(content, loc=Location(source, *word.span()))
    match = _WORD_ITEM.match(content)
    if match is None:
        return None
    start = word.start()
    address = match["ip6"]
    if address is None:
        return _item(source, match, start)
    if address.count(":") < 2 or not is_ipv6(address):
        return None
    result: Expr = SymbolExpr(address, loc=Location(source, start, start + len(address)))
    other = match["to6"]
    if other is not None:
        if other.count(":") < 2 or not is_ipv6(other):
            return None
        right = SymbolExpr(other, loc=Location(source, word.end() - len(other), word.end()))
        return RangeExpr(result, right, loc=Location(source, start, word.end()))
    if match["plen6"] is not None:
        result = PrefixExpr(result, int(match["plen6"]), loc=Location(source, start, word.end()))
    return result
