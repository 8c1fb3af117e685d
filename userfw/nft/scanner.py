"""The scanner of the nft language: text to tokens, one line at a time.

Laws:
- The longest token wins, as in nft's scanner: ``1:2`` is a class id, ``10s`` a time, ``::1`` an address, ``eth0.10``
  and ``ssh-alt`` are one word each.
- A token is ``(kind, text, start, end)``. Kinds: ``word``, ``num``, ``str`` (addresses, times, class ids, numbers
  beyond 64 bits), ``quoted`` (without its quotes), ``star`` (``eth*``), ``nl``, ``eof``, ``junk``, and each mark for itself.
- Operators written as words (``eq``, ``and`` …) come out as their marks.
- Memory and time are linear in the text: no pattern backtracks over more than one token.
"""

from __future__ import annotations

import re
from socket import AF_INET6, inet_pton
from typing import Final

Token = tuple[str, str, int, int]

_MARKS: Final = (
    "==", "!=", "<=", ">=", "<<", ">>",
    "<", ">", ",", ".", ":", ";", "{", "}", "[", "]", "(", ")", "^", "&", "|", "!", "/", "-", "*", "@", "$", "=", "+",
)
_TOKEN: Final = re.compile(
    r"""(?:[ \t\r]+|\\\r?\n|\#[^\n]*)*(?:
    (?P<plain>[a-zA-Z_][a-zA-Z0-9/\-_.]*(?=[ \t\n]))
  | (?P<nl>\n)
  | (?P<ip4>[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3})
  | (?P<colon>[0-9a-fA-F]{0,4}:[0-9a-fA-F:][0-9a-fA-F:.]*)
  | (?P<time>(?=[0-9]+[dhms])(?:[0-9]+d)?(?:[0-9]+h)?(?:[0-9]+m(?!s))?(?:[0-9]+s)?(?:[0-9]+ms)?)(?![0-9A-Za-z_])
  | (?P<special>8021(?:q|ad)(?![0-9A-Za-z]))
  | (?P<num>0[xX][0-9a-fA-F]+|[0-9]+)
  | (?P<star>(?:[a-zA-Z_][a-zA-Z0-9/\-_.]*)?\\\*(?:[a-zA-Z_.][a-zA-Z0-9/\-_.]*)?|[a-zA-Z_][a-zA-Z0-9/\-_.]*\*)
  | (?P<word>[a-zA-Z_][a-zA-Z0-9/\-_.]*)
  | "(?P<quoted>[^"]*)"
  | (?P<bracket>\[[0-9a-fA-F:.]*:[0-9a-fA-F:.]*\])
  | (?P<mark>"""
    + "|".join(re.escape(mark) for mark in _MARKS)
    + r""")
  | (?P<junk>.)
  | (?P<eof>\Z)
    )""",
    re.VERBOSE,
)
_WORD_OPERATORS: Final = {
    "eq": "==", "ne": "!=", "lt": "<", "gt": ">", "le": "<=", "ge": ">=",
    "and": "&", "or": "|", "xor": "^", "not": "!", "lshift": "<<", "rshift": ">>",
}  # fmt: skip
_MAC: Final = re.compile(r"(?:[0-9a-fA-F]{1,2}:){5}[0-9a-fA-F]{1,2}")
_CLASSID: Final = re.compile(r"[0-9a-fA-F]{1,4}:[0-9a-fA-F]{1,4}(?![0-9a-zA-Z])")
_ADDRESS6: Final = re.compile(r"[0-9a-fA-F:]{2,39}(?:[0-9]{0,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3})?")
_PLAIN: Final = re.compile(r"[0-9]+|[a-zA-Z_][a-zA-Z0-9/\-_.]*")
_LIMIT_U64: Final = 1 << 64
CHUNK: Final = 256
"""Tokens of one call at most."""


def is_ipv6(text: str) -> bool:
    """Whether the text is an IPv6 address as ``inet_pton`` reads it."""
    try:
        inet_pton(AF_INET6, text)
    except (OSError, ValueError):
        return False
    return True


def _address6_length(text: str, at: int) -> int:
    """Length of the longest IPv6 address that starts at ``at``; 0 when there is none."""
    match = _ADDRESS6.match(text, at)
    if match is None or text.count(":", at, match.end()) < 2:
        return 0
    for end in range(match.end(), at + 1, -1):
        if is_ipv6(text[at:end]):
            return end - at
    return 0


def _colon_token(text: str, at: int) -> Token:
    """The token at text that begins like an address with colons: address, MAC, class id, or what precedes the colon."""
    length = _address6_length(text, at)
    for pattern in (_MAC, _CLASSID):
        match = pattern.match(text, at)
        if match is not None and match.end() - at > length:
            length = match.end() - at
    if length:
        return ("str", text[at : at + length], at, at + length)
    if text[at] == ":":
        return (":", ":", at, at + 1)
    match = _PLAIN.match(text, at)
    assert match is not None
    word = match.group()
    if word[0] in "0123456789":
        return ("num", word, at, match.end())
    if text.startswith("*", match.end()):
        return ("star", word + "*", at, match.end() + 1)
    mark = _WORD_OPERATORS.get(word)
    return (mark or "word", word, at, match.end())


class Scanner:
    """Tokens of one text, a line per call. ``pos`` may be moved by the parser between lines."""

    __slots__ = ("pos", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.pos = 0

    def line(self) -> list[Token]:
        """The tokens up to and including the next newline (or the end: then the last token is ``eof``), or CHUNK of a longer line:
        elements of large sets are not for the scanner (``parser_fast``)."""
        text = self.text
        tokens: list[Token] = []
        pos = self.pos
        match_at = _TOKEN.match
        while len(tokens) < CHUNK:
            match = match_at(text, pos)
            if match is None:  # an opening quote without its end
                tokens.append(("junk", text[pos : pos + 1], pos, pos + 1))
                pos += 1
                continue
            kind = match.lastgroup
            pos = match.end()
            if kind == "plain" or kind == "word":  # most words have a space behind them, and need no look at the other kinds
                word = match[kind]
                tokens.append((_WORD_OPERATORS.get(word, "word"), word, pos - len(word), pos))
            elif kind == "mark":
                mark = match["mark"]
                tokens.append((mark, mark, pos - len(mark), pos))
            elif kind == "nl":
                tokens.append(("nl", "\n", pos - 1, pos))
                break
            elif kind == "eof":
                tokens.append(("eof", "", pos, pos))
                break
            else:
                token = self._rare(kind or "junk", match)
                tokens.append(token)
                pos = token[3]
        self.pos = pos
        return tokens

    def _rare(self, kind: str, match: re.Match[str]) -> Token:
        start, end = match.span(kind)
        value = match[kind]
        if kind == "num":
            return ("num" if number(value) < _LIMIT_U64 else "str", value, start, end)
        if kind == "special":
            return ("word", value, start, end)
        if kind in ("ip4", "time"):
            return ("str", value, start, end)
        if kind == "colon":
            return _colon_token(self.text, start)
        if kind == "quoted":
            return ("quoted", value, start - 1, end + 1)
        if kind == "bracket":
            if is_ipv6(value[1:-1]):
                return ("str", value[1:-1], start, end)
            return ("[", "[", start, start + 1)
        return (kind, value, start, end)


def number(text: str) -> int:
    """The value of a ``num`` token: ``0x`` hexadecimal, a leading 0 octal, else decimal, as ``strtoull`` reads it."""
    if text[:2] in ("0x", "0X"):
        return int(text, 16)
    if len(text) > 1 and text[0] == "0":
        digits = re.match("[0-7]*", text)
        return int(digits.group() or "0", 8) if digits else 0
    return int(text) if len(text) < 4000 else _LIMIT_U64
