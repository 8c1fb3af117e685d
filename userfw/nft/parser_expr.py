"""The parser of expressions.

Laws:
- A *load* reads the packet or its context (``ip saddr``, ``meta mark``); a *value* is written out (``10.0.0.1``).
  Left-hand sides are loads, right-hand sides values, arguments of statements either; ``mode`` says which.
- Operators bind as in nft: shifts, ``&``, ``^``, ``|``; then ``.``; then commas.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from userfw.nft import keywords as kw
from userfw.nft.element_run import FEW, ElementRun, take_run
from userfw.nft.location import Location
from userfw.nft.parser_base import ParserBase
from userfw.nft.parser_fast import take_elements
from userfw.nft.scanner import number
from userfw.nft.syntax import (
    BinopExpr,
    CatchAllExpr,
    ConcatExpr,
    ConstantExpr,
    CtExpr,
    DccpOptionExpr,
    Expr,
    ExthdrExpr,
    FibExpr,
    HashExpr,
    IpOptionExpr,
    ListExpr,
    MapExpr,
    MetaExpr,
    NumgenExpr,
    OsfExpr,
    PayloadExpr,
    PrefixExpr,
    RangeExpr,
    RawPayloadExpr,
    RtExpr,
    SctpChunkExpr,
    SetElemExpr,
    SetExpr,
    SetRefExpr,
    SocketExpr,
    Stmt,
    SymbolExpr,
    TcpOptionExpr,
    TunnelExpr,
    VerdictExpr,
    XfrmExpr,
)

LOAD: Final = 1
VALUE: Final = 2
ANY: Final = 3

_BINARY: Final = {"|": 1, "^": 2, "&": 3, "<<": 4, ">>": 4}
_MAX_OPERATORS: Final = 128
_RT_KEYS: Final = frozenset(("classid", "nexthop", "mtu", "ipsec", "ip", "ip6"))
_SET_OPTIONS: Final = frozenset(("timeout", "expires", "comment"))
NEVER: Final = -1
"""``timeout never``."""


class ExprParser(ParserBase):
    """Expressions of every kind."""

    def parse_stateful_stmt(self) -> Stmt | None:
        """A counter, limit, quota, last or connlimit, if one begins here."""
        raise NotImplementedError

    def parse_bound_chain(self, kind: str, start: int) -> VerdictExpr:
        """``jump { … }`` after its keyword."""
        raise NotImplementedError

    # --- operators

    def parse_concat(self, mode: int) -> Expr:
        """``a . b . c``; in values each part may be a range or prefix."""
        start = self.tok[2]
        first = self.parse_part(mode)
        if self.tok[0] != ".":
            return first
        items = [first]
        while self.accept("."):
            items.append(self.parse_part(mode))
        return ConcatExpr(items, loc=self.span(start))

    def parse_part(self, mode: int) -> Expr:
        """One part of a concatenation: an expression with operators, in values also a prefix or range."""
        start = self.tok[2]
        left = self.parse_binary(mode)
        if not mode & VALUE:
            return left
        if self.tok[0] == "/" and self.peek()[0] == "num":
            self.advance()
            length = self.parse_number(1 << 16)
            left = PrefixExpr(left, length, loc=self.span(start))
        if self.tok[0] == "-":
            self.advance()
            right = self.parse_binary(mode)
            if self.tok[0] == "/" and self.peek()[0] == "num":
                raise self.unexpected()
            left = RangeExpr(left, right, loc=self.span(start))
        return left

    def parse_binary(self, mode: int, level: int = 1) -> Expr:
        start = self.tok[2]
        left = self.parse_primary(mode)
        count = 0
        while True:
            rank = _BINARY.get(self.tok[0], 0)
            if rank < level or rank == 0:
                return left
            count += 1
            if count > _MAX_OPERATORS:
                raise self.fail(f"expression with too many operators, maximum is {_MAX_OPERATORS}")
            op = self.advance()[0]
            self.enter()
            right = self.parse_binary(mode, rank + 1)
            self.leave()
            left = BinopExpr(op, left, right, loc=self.span(start))

    def parse_primary(self, mode: int) -> Expr:
        token = self.tok
        kind, text, start, end = token
        if kind == "num":
            self.advance()
            return ConstantExpr(number(text), loc=Location(self.source, start, end))
        if kind == "word":
            if mode & LOAD:
                load = self.parse_load(mode)
                if load is not None:
                    return load
            if text in kw.RESERVED_VALUES:
                raise self.unexpected()
            self.advance()
            return SymbolExpr(text, loc=Location(self.source, start, end))
        if kind in ("str", "star"):
            self.advance()
            return SymbolExpr(text, loc=Location(self.source, start, end))
        if kind == "quoted":
            self.advance()
            return SymbolExpr(text, True, loc=Location(self.source, start, end))
        if kind == "$":
            value = self.variable()
            return replace(value, loc=self.span(start))
        if kind == "(":
            return self._parenthesised(mode)
        if kind == "@" and mode & LOAD:
            return self._raw_payload(None)
        raise self.unexpected()

    def _parenthesised(self, mode: int) -> Expr:
        start = self.advance()[2]
        self.enter()
        inner = self.parse_binary(mode)
        if mode & VALUE and self.tok[0] == ",":
            items = [inner]
            while self.accept(","):
                items.append(self.parse_binary(mode))
            inner = ListExpr(items, loc=self.span(start))
        self.leave()
        self.expect(")")
        return inner

    def parse_list(self, mode: int) -> Expr:
        """``a``, or ``a,b,c``."""
        start = self.tok[2]
        first = self.parse_concat(mode)
        if self.tok[0] != ",":
            return first
        items = [first]
        while self.accept(","):
            items.append(self.parse_part(mode))
        return ListExpr(items, loc=self.span(start))

    def parse_rhs(self) -> Expr:
        """The right-hand side of a match: a value, list, set, or reference."""
        kind = self.tok[0]
        if kind == "{":
            return self.parse_set()
        if kind == "@":
            return self.parse_set_reference()
        return self._not_empty(self.parse_list(VALUE))

    def _not_empty(self, expr: Expr) -> Expr:
        """Refuse the empty set that a variable may hold."""
        if isinstance(expr, SetExpr) and not expr.elements:
            raise self.fail("Set is empty", expr.loc)
        return expr

    def parse_argument(self) -> Expr:
        """The value given to a statement (``stmt_expr``): loads, values, operators, a map of them."""
        start = self.tok[2]
        if self.tok[0] == "{":
            return self.parse_set()
        expr = self._not_empty(self.parse_list(ANY))
        if self.word == "map":
            return self.parse_map_tail(expr, start)
        return expr

    def parse_map_tail(self, key: Expr, start: int) -> MapExpr:
        """``map …`` after its key."""
        self.advance()
        mapping = self.parse_mapping()
        return MapExpr(key, mapping, loc=self.span(start))

    def parse_mapping(self) -> Expr:
        """What follows ``map`` or ``vmap``."""
        if self.tok[0] == "{":
            return self.parse_set()
        if self.tok[0] == "@":
            return self.parse_set_reference()
        if self.tok[0] == "$":
            start = self.tok[2]
            return self._not_empty(replace(self.variable(), loc=self.span(start)))
        raise self.unexpected("'{' or @")

    def parse_set_reference(self) -> SetRefExpr:
        start = self.advance()[2]
        if self.tok[0] == "$":
            name = self.variable_text()
        else:
            name = self.parse_name("set")
        return SetRefExpr(name, loc=self.span(start))

    # --- sets

    def parse_set(self) -> SetExpr:
        """``{ elements }``."""
        start = self.tok[2]
        source = self.source
        self.enter()
        self.expect("{")
        elements: list[SetElemExpr] = []
        self.skip_newlines()
        if self.tok[0] == "}":
            raise self.unexpected()
        while True:
            run = self._fast_elements(elements)
            if run is not None:
                break
            self._element(elements)
            self.skip_newlines()
            if not self.accept(","):
                break
            self.skip_newlines()  # nft lets members be empty after the first
            if self.tok[0] == "}":
                break
        end = self.expect("}")[3]
        self.leave()
        return SetExpr(run or elements, loc=Location(source, start, end if self.source is source else start + 1))

    def _fast_elements(self, elements: list[SetElemExpr]) -> ElementRun | None:
        """Plain elements straight from the text; a run if these are many and all that the set has."""
        if self.tok[0] not in ("str", "num"):
            return None
        begin = self.tok[2]
        run, pos = take_run(self.source, self.octets(), begin)
        whole = pos < len(self.source.text) and self.source.text[pos] == "}"
        found = run if len(run) >= FEW and whole and not elements else None
        if found is None:
            elements += run
            pos = pos if whole else take_elements(self.source, self.octets(), pos, elements)
        if pos != begin:
            self.resume_at(pos)
            self.skip_newlines()
        return found

    def _element(self, elements: list[SetElemExpr]) -> None:
        if self.tok[0] == "{":
            elements.extend(self.parse_set().elements)
            return
        if self.tok[0] in ("}", ",") and elements:
            return
        start = self.tok[2]
        if self.tok[0] == "*":
            self.advance()
            key: Expr = CatchAllExpr(loc=self.span(start))
        else:
            key = self.parse_concat(VALUE)
        if isinstance(key, SetExpr):
            elements.extend(key.elements)
            return
        element = SetElemExpr(key, loc=self.span(start))
        if self.tok[0] == "word":
            self.parse_element_options(element)
        if self.accept(":"):
            self.skip_newlines()
            element.data = self.parse_data()
        element.loc = self.span(start)
        elements.append(element)

    def parse_element_options(self, element: SetElemExpr) -> None:
        """Statements, ``timeout``, ``expires``, ``comment`` of an element."""
        while self.tok[0] == "word":
            word = self.tok[1]
            if word in _SET_OPTIONS:
                self.advance()
                if word == "comment":
                    if element.comment is not None:
                        raise self.fail("comment is given twice")
                    element.comment = self.parse_comment()
                elif word == "timeout":
                    element.timeout = NEVER if self.accept_word("never") else self.parse_time()
                else:
                    element.expires = self.parse_time()
                continue
            stmt = self.parse_stateful_stmt()
            if stmt is None:
                raise self.unexpected()
            element.stmts.append(stmt)

    def parse_data(self) -> Expr:
        """What a map's key maps to: a value or a verdict."""
        if self.word in kw.VERDICTS:
            return self.parse_verdict()
        if self.tok[0] == "{":
            raise self.unexpected()
        return self.parse_concat(VALUE)

    def parse_verdict(self) -> VerdictExpr:
        start = self.tok[2]
        kind = self.advance()[1]
        if kind not in ("jump", "goto"):
            return VerdictExpr(kind, loc=self.span(start))
        if self.tok[0] == "{":
            return self.parse_bound_chain(kind, start)
        if self.tok[0] == "$":
            at = self.tok[2]
            name = self.variable_text()
            self.check_name(name, "chain", self.span(at))
        else:
            name = self.parse_name("chain")
        return VerdictExpr(kind, name, loc=self.span(start))

    # --- loads

    def parse_load(self, mode: int) -> Expr | None:
        """The load that begins with the current word; None when it is only a symbol."""
        word = self.tok[1]
        start = self.tok[2]
        simple = _LOADS.get(word)
        if simple is not None:
            return simple(self, start)
        if word in kw.FIELDS:
            return self._payload_or_symbol(word, start, mode)
        if word in kw.EXTHDRS:
            if word == "rt" and self.peek()[1] in _RT_KEYS:
                return self._rt(start)
            if self.peek()[1] not in kw.EXTHDRS[word] and mode & VALUE:
                return None
            return self._exthdr(word, start)
        if word in kw.META_UNQUALIFIED:
            if word in ("ipsec",):
                return self._ipsec(start)
            self.advance()
            return MetaExpr(kw.META_ALIASES.get(word, word), loc=self.span(start))
        return None

    def _payload_or_symbol(self, word: str, start: int, mode: int) -> Expr | None:
        following = self.peek()[1] if self.peek()[0] == "word" else ""
        if not following and mode & VALUE:
            return None
        if word in kw.TUNNELS and following in kw.INNER_HEADERS[word] and following not in kw.FIELDS[word]:
            self.advance()
            return self._payload(self.tok[1], start, word)
        known = (
            following in kw.FIELDS[word]
            or (following == "option" and word in ("ip", "tcp", "dccp"))
            or (following == "chunk" and word == "sctp")
            or (word == "arp" and following in ("saddr", "daddr"))
        )
        if not known and mode & VALUE:
            return None
        return self._payload(word, start, None)

    def _payload(self, word: str, start: int, inner: str | None) -> Expr:
        self.advance()
        if self.tok[0] == "@" and word == "th" and inner:
            return self._raw_payload(inner)
        option = self._option(word, start, inner)
        if option is not None:
            return option
        field = self.word
        if word == "arp" and field in ("saddr", "daddr"):
            self.advance()
            return PayloadExpr("arp", f"{field} {self.expect_word(*kw.ARP_ADDRESSES)}", inner, loc=self.span(start))
        if field not in kw.FIELDS[word]:
            raise self.unexpected()
        self.advance()
        return PayloadExpr(word, field, inner, loc=self.span(start))

    def _option(self, word: str, start: int, inner: str | None) -> Expr | None:
        if self.word == "option" and word in ("ip", "tcp", "dccp"):
            if inner:
                raise self.unexpected()
            self.advance()
            if word == "tcp":
                return self.parse_tcp_option(start)
            if word == "dccp":
                return DccpOptionExpr(self.parse_number(256), loc=self.span(start))
            option = self.expect_word(*kw.IP_OPTIONS)
            field = self._optional_field(kw.IP_OPTIONS[option])
            return IpOptionExpr(option, field, loc=self.span(start))
        if self.word == "chunk" and word == "sctp":
            if inner:
                raise self.unexpected()
            self.advance()
            chunk = self.expect_word(*kw.SCTP_CHUNKS)
            field = self._optional_field(kw.SCTP_CHUNKS[chunk])
            return SctpChunkExpr(chunk, field, loc=self.span(start))
        return None

    def _optional_field(self, fields: frozenset[str]) -> str | None:
        return self.advance()[1] if self.word in fields else None

    def parse_tcp_option(self, start: int) -> TcpOptionExpr:
        """After ``tcp option``: ``NAME [field]``, ``NUMBER``, ``@kind,offset,length``."""
        if self.tok[0] == "@":
            self.advance()
            kind = self.parse_number(256)
            self.expect(",")
            offset = self.parse_number(1 << 16)
            self.expect(",")
            length = self.parse_number(1 << 16)
            return TcpOptionExpr(kind, None, (offset, length), loc=self.span(start))
        if self.tok[0] == "num":
            return TcpOptionExpr(self.parse_number(256), self._kind_field(), loc=self.span(start))
        name = self.expect_word(*kw.TCP_OPTIONS, *kw.TCP_OPTION_ALIASES)
        name = kw.TCP_OPTION_ALIASES.get(name, name)
        field = self._optional_field(kw.TCP_OPTIONS[name]) or self._kind_field()
        return TcpOptionExpr(name, field, loc=self.span(start))

    def _kind_field(self) -> str | None:
        """``length`` of an option without other fields."""
        return self.advance()[1] if self.word in ("kind", "length") else None

    def _exthdr(self, word: str, start: int) -> Expr:
        self.advance()
        field = self.word
        if field not in kw.EXTHDRS[word]:
            raise self.unexpected()
        self.advance()
        if field in ("addr", "sid"):
            self.expect("[")
            field = f"{field}[{self.parse_number(256)}]"
            self.expect("]")
        return ExthdrExpr(word, field, loc=self.span(start))

    def _exthdr_exists(self, start: int) -> Expr:
        self.advance()
        return ExthdrExpr(self.expect_word(*kw.EXTHDR_EXISTS), None, loc=self.span(start))

    def _raw_payload(self, inner: str | None) -> Expr:
        start = self.advance()[2]
        loc = self.here()
        base = self.expect_word()
        if base not in ("ll", "nh", "th", "ih"):
            raise self.fail("unknown raw payload base", loc)
        self.expect(",")
        offset = self.parse_number(1 << 16)
        self.expect(",")
        length = self.parse_number(1 << 16)
        return RawPayloadExpr(base, offset, length, inner, loc=self.span(start))

    def _meta(self, start: int) -> Expr:
        self.advance()
        key = self.word
        if key not in kw.META_KEYS:
            raise self.unexpected() if not key else self.fail(f"unknown meta key '{key}'")
        self.advance()
        return MetaExpr(kw.META_ALIASES.get(key, key), loc=self.span(start))

    def _ct(self, start: int) -> Expr:
        self.advance()
        direction = self.advance()[1] if self.word in ("original", "reply") else None
        family = self.advance()[1] if direction and self.word in ("ip", "ip6") else None
        allowed = kw.CT_KEYS_DIRECTION if direction else kw.CT_KEYS
        key = self.word
        if family and key not in ("saddr", "daddr"):
            raise self.unexpected("saddr or daddr")
        if key not in allowed:
            raise self.unexpected()
        self.advance()
        return CtExpr(key, direction, family, loc=self.span(start))

    def _rt(self, start: int) -> Expr:
        self.advance()
        family = self.advance()[1] if self.word in ("ip", "ip6") else None
        return RtExpr(self.expect_word("classid", "nexthop", "mtu", "ipsec"), family, loc=self.span(start))

    def _fib(self, start: int) -> Expr:
        self.advance()
        flags = [self.expect_word("saddr", "daddr", "mark", "iif", "oif")]
        while self.accept("."):
            flag = self.expect_word("saddr", "daddr", "mark", "iif", "oif")
            if flag in flags:
                raise self.fail("flag used twice")
            flags.append(flag)
        return FibExpr(tuple(flags), self.expect_word("oif", "oifname", "type", "check"), loc=self.span(start))

    def _socket(self, start: int) -> Expr:
        self.advance()
        key = self.expect_word("transparent", "mark", "wildcard", "cgroupv2")
        level = None
        if key == "cgroupv2":
            self.expect_word("level")
            level = self.parse_number(256)
        return SocketExpr(key, level, loc=self.span(start))

    def _osf(self, start: int) -> Expr:
        self.advance()
        ttl = self.expect_word("loose", "skip") if self.accept_word("ttl") else None
        return OsfExpr(self.expect_word("name", "version"), ttl, loc=self.span(start))

    def _numgen(self, start: int) -> Expr:
        self.advance()
        mode = self.expect_word("inc", "random")
        self.expect_word("mod")
        modulus = self.parse_number(1 << 32)
        return NumgenExpr(mode, modulus, self._offset(), loc=self.span(start))

    def _offset(self) -> int:
        return self.parse_number(1 << 32) if self.accept_word("offset") else 0

    def _jhash(self, start: int) -> Expr:
        self.advance()
        self.enter()
        expr = self.parse_concat(LOAD)
        self.leave()
        self.expect_word("mod")
        modulus = self.parse_number(1 << 32)
        seed = self.parse_number(1 << 32) if self.accept_word("seed") else None
        return HashExpr("jhash", expr, modulus, seed, self._offset(), loc=self.span(start))

    def _symhash(self, start: int) -> Expr:
        self.advance()
        self.expect_word("mod")
        modulus = self.parse_number(1 << 32)
        return HashExpr("symhash", None, modulus, None, self._offset(), loc=self.span(start))

    def _ipsec(self, start: int) -> Expr:
        if self.peek()[1] not in ("in", "out"):
            self.advance()
            return MetaExpr("ipsec", loc=self.span(start))
        self.advance()
        direction = self.expect_word("in", "out")
        spnum = self.parse_number(256) if self.accept_word("spnum") else 0
        family = self.advance()[1] if self.word in ("ip", "ip6") else None
        key = self.expect_word("saddr", "daddr") if family else self.expect_word("spi", "reqid")
        return XfrmExpr(direction, key, family, spnum, loc=self.span(start))

    def _tunnel(self, start: int) -> Expr:
        self.advance()
        return TunnelExpr(self.expect_word("path", "id"), loc=self.span(start))


_LOADS: Final = {
    "meta": ExprParser._meta,
    "ct": ExprParser._ct,
    "fib": ExprParser._fib,
    "socket": ExprParser._socket,
    "osf": ExprParser._osf,
    "numgen": ExprParser._numgen,
    "jhash": ExprParser._jhash,
    "symhash": ExprParser._symhash,
    "exthdr": ExprParser._exthdr_exists,
    "tunnel": ExprParser._tunnel,
}
