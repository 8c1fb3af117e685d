"""The parser of statements and rules.

Laws:
- The first word decides; what is no statement keyword begins a match.
- A word that Linux knows and this grammar does not is an error that names it, never skipped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from userfw.nft import keywords as kw
from userfw.nft.parser_expr import ANY, LOAD, VALUE
from userfw.nft.parser_nat import NatParser
from userfw.nft.syntax import (
    ChainBlock,
    ConnlimitStmt,
    ConstantExpr,
    CounterStmt,
    CtExpr,
    Expr,
    ExthdrExpr,
    FlagcmpExpr,
    FlowStmt,
    IpOptionExpr,
    LastStmt,
    LimitStmt,
    ListExpr,
    LogStmt,
    MangleStmt,
    MapExpr,
    MapUpdateStmt,
    MatchStmt,
    MetaExpr,
    MeterStmt,
    NotrackStmt,
    ObjrefStmt,
    OptstripStmt,
    PayloadExpr,
    QuotaStmt,
    RawPayloadExpr,
    RejectStmt,
    RelationalExpr,
    RuleBlock,
    SetElemExpr,
    SetUpdateStmt,
    Stmt,
    SymbolExpr,
    SynproxyStmt,
    TcpOptionExpr,
    VerdictExpr,
    VerdictStmt,
    XtStmt,
)

_RELATIONAL: Final = frozenset(("==", "!=", "<", ">", "<=", ">=", "!"))
_TIME_UNITS: Final = ("second", "minute", "hour", "day", "week")
_BYTE_UNITS: Final = {"bytes": 1, "kbytes": 1024, "mbytes": 1024 * 1024}
_LOG_LEVELS: Final = ("emerg", "alert", "crit", "err", "warn", "notice", "info", "debug", "audit")
_LOG_FLAGS: Final = ("tcp-sequence", "tcp-options", "ip-options", "skuid", "ether")
_U64: Final = 1 << 64
_U32: Final = 1 << 32


class StmtParser(NatParser):
    """Statements and rules."""

    def parse_chain_body(self, chain: ChainBlock) -> None:
        """The inside of a chain's braces."""
        raise NotImplementedError

    def parse_rule(self) -> RuleBlock:
        """Statements up to the separator, with the comment that may end them."""
        start = self.tok[2]
        stmts: list[Stmt] = []
        comment = None
        while self.tok[0] not in ("nl", ";", "eof", "}"):
            if self.word == "comment" and stmts:
                self.advance()
                comment = self.parse_comment()
                break
            stmts.append(self.parse_stmt())
        if not stmts:
            raise self.unexpected()
        return RuleBlock(stmts, comment, loc=self.span(start))

    def parse_stmt(self) -> Stmt:
        """One statement."""
        word = self.word
        if word:
            special = _STATEMENTS.get(word)
            if special is not None:
                start = self.tok[2]
                stmt = special(self)
                if stmt is not None:
                    stmt.loc = self.span(start)
                    return stmt
        return self._expression_stmt()

    # --- matches and assignments

    def _expression_stmt(self) -> Stmt:
        """``LOAD set …``, ``KEY vmap …``, or a match."""
        start = self.tok[2]
        left = self._left_side()
        word = self.word
        if word == "set":
            return self._assignment(left, start)
        if word == "vmap":
            self.advance()
            mapping = self.parse_mapping()
            loc = self.span(start)
            return VerdictStmt(MapExpr(left, mapping, True, loc=loc), loc=loc)
        return self._match(left, start)

    def _left_side(self) -> Expr:
        start = self.tok[2]
        if self.tok[0] == "{":
            return self.parse_set()
        left = self.parse_concat(LOAD)
        if self.word == "map":
            return self.parse_map_tail(left, start)
        return left

    def _assignment(self, target: Expr, start: int) -> Stmt:
        if isinstance(target, PayloadExpr | RawPayloadExpr) and target.inner:
            raise self.fail("payload expression inside a tunnel cannot be set")
        if not isinstance(
            target, PayloadExpr | RawPayloadExpr | MetaExpr | CtExpr | TcpOptionExpr | ExthdrExpr | IpOptionExpr
        ):
            raise self.unexpected()
        self.advance()
        if isinstance(target, CtExpr) and target.key in ("helper",) and target.direction is None:
            value = self.parse_argument()
            return ObjrefStmt("ct helper", value, loc=self.span(start))
        if isinstance(target, CtExpr) and target.direction and target.key not in kw.CT_SETTABLE_DIRECTION:
            raise self.fail("ct key cannot be set", self.span(start))
        value = self.parse_argument()
        if isinstance(target, MetaExpr) and target.key == "secmark" and not isinstance(value, MetaExpr | CtExpr):
            return ObjrefStmt("secmark", value, loc=self.span(start))
        return MangleStmt(target, value, loc=self.span(start))

    def _match(self, left: Expr, start: int) -> MatchStmt:
        op = self.advance()[0] if self.tok[0] in _RELATIONAL else ""
        right = self.parse_rhs()
        if self.tok[0] == "/" and op in ("", "==", "!="):
            self.advance()
            mask = self._mask()
            loc = self.span(start)
            return MatchStmt(FlagcmpExpr(op or "==", left, mask, right, loc=loc), loc=loc)
        loc = self.span(start)
        return MatchStmt(RelationalExpr(op, left, right, loc=loc), loc=loc)

    def _mask(self) -> Expr:
        """``a,b,c`` without prefixes or ranges."""
        start = self.tok[2]
        items = [self.parse_binary(VALUE)]
        while self.accept(","):
            items.append(self.parse_binary(VALUE))
        return items[0] if len(items) == 1 else ListExpr(items, loc=self.span(start))

    def _verdict(self) -> Stmt:
        return VerdictStmt(self.parse_verdict())

    def parse_bound_chain(self, kind: str, start: int) -> VerdictExpr:
        at = self.tok[2]
        self.enter()
        self.expect("{")
        chain = ChainBlock("")
        self.parse_chain_body(chain)
        self.expect("}")
        self.leave()
        chain.loc = self.span(at)
        return VerdictExpr(kind, None, chain, loc=self.span(start))

    # --- counters and limits

    def parse_stateful_stmt(self) -> Stmt | None:
        word = self.word
        start = self.tok[2]
        if word == "ct" and self.peek()[1] == "count":
            stmt: Stmt | None = self._ct_count()
        elif word in ("counter", "quota", "limit", "last"):
            stmt = _STATEMENTS[word](self)
        else:
            return None
        if stmt is not None:
            stmt.loc = self.span(start)
        return stmt

    def _objref(self, kind: str) -> Stmt | None:
        """``KIND name EXPR``; None when the word after the kind is another one."""
        if self.peek()[1] != "name" or self.peek()[0] != "word":
            return None
        self.advance()
        self.advance()
        return ObjrefStmt(kind, self.parse_argument())

    def _counter(self) -> Stmt | None:
        objref = self._objref("counter")
        if objref is not None:
            return objref
        self.advance()
        return self.parse_counter_args()

    def parse_counter_args(self) -> CounterStmt:
        stmt = CounterStmt()
        while self.word in ("packets", "bytes"):
            if self.advance()[1] == "packets":
                stmt.packets = self.parse_number(_U64)
            else:
                stmt.bytes = self.parse_number(_U64)
        return stmt

    def _bytes(self) -> int:
        """``N UNIT``."""
        value = self.parse_number(_U64)
        unit = self.expect_word(*_BYTE_UNITS)
        return self._times(value, _BYTE_UNITS[unit])

    def _times(self, value: int, factor: int) -> int:
        if value * factor >= _U64:
            raise self.fail("value too large")
        return value * factor

    def _quota(self) -> Stmt | None:
        objref = self._objref("quota")
        if objref is not None:
            return objref
        self.advance()
        return self.parse_quota_args()

    def parse_quota_args(self) -> QuotaStmt:
        over = self._over()
        quota = self._bytes()
        used = self._bytes() if self.accept_word("used") else 0
        return QuotaStmt(quota, used, over)

    def _over(self) -> bool:
        if self.accept_word("over"):
            return True
        self.accept_word("until")
        return False

    def _limit(self) -> Stmt | None:
        objref = self._objref("limit")
        if objref is not None:
            return objref
        self.advance()
        return self.parse_limit_args()

    def parse_limit_args(self) -> LimitStmt:
        """``rate [over|until] …`` after ``limit``."""
        self.expect_word("rate")
        over = self._over()
        rate = self.parse_number(_U64)
        factor = 0
        if self.tok[0] == "word":
            unit, _, per = self.tok[1].partition("/")
            if unit not in _BYTE_UNITS:
                raise self.fail("Wrong unit format")
            factor = _BYTE_UNITS[unit]
            if per:
                if per not in _TIME_UNITS:
                    raise self.fail("Wrong time format")
                self.advance()
            else:
                self.advance()
                self.expect("/")
                per = self.expect_word(*_TIME_UNITS)
        else:
            self.expect("/")
            per = self.expect_word(*_TIME_UNITS)
        rate = self._times(rate, factor or 1)
        if rate == 0:
            raise self.fail("limit rate must be > 0")
        return LimitStmt(rate, per, factor > 0, self._burst(factor > 0), over)

    def _burst(self, in_bytes: bool) -> int | None:
        if not self.accept_word("burst"):
            return None
        burst = self.parse_number(_U32)
        if not in_bytes:
            self.expect_word("packets")
            return burst
        burst *= _BYTE_UNITS[self.expect_word(*_BYTE_UNITS)]
        if burst >= _U32:
            raise self.fail("value too large")
        return burst

    def _last(self) -> Stmt:
        self.advance()
        if not self.accept_word("used"):
            return LastStmt()
        if self.accept_word("never"):
            return LastStmt()
        return LastStmt(self.parse_time())

    def _ct_count(self) -> Stmt:
        self.advance()
        self.advance()
        over = self.accept_word("over")
        return ConnlimitStmt(self.parse_number(_U32), over)

    def _ct_stmt(self) -> Stmt | None:
        following = self.peek()[1]
        if following == "count":
            return self._ct_count()
        if following in ("timeout", "expectation"):
            self.advance()
            self.advance()
            self.expect_word("set")
            return ObjrefStmt(f"ct {following}", self.parse_argument())
        return None

    # --- log, reject

    def _log(self) -> Stmt:
        self.advance()
        stmt = LogStmt()
        flags: set[str] = set()
        seen: set[str] = set()
        while self.word in ("prefix", "level", "group", "snaplen", "queue-threshold", "flags"):
            word = self.word
            if word in seen and word != "flags":
                raise self.fail(f"log option {word} is given twice")
            seen.add(word)
            self.advance()
            if word == "prefix":
                stmt.prefix = self.parse_string()
            elif word == "level":
                if self.word not in _LOG_LEVELS:
                    raise self.fail("invalid log level")
                stmt.level = self.advance()[1]
            elif word == "group":
                stmt.group = self.parse_number(1 << 16)
            elif word == "snaplen":
                stmt.snaplen = self.parse_number(_U32)
            elif word == "queue-threshold":
                stmt.queue_threshold = self.parse_number(1 << 16)
            else:
                flags |= self._log_flag()
        stmt.flags = tuple(flag for flag in _LOG_FLAGS if flag in flags)
        return stmt

    def _log_flag(self) -> set[str]:
        word = self.expect_word("tcp", "ip", "skuid", "ether", "all")
        if word == "all":
            return set(_LOG_FLAGS)
        if word == "ip":
            self.expect_word("options")
            return {"ip-options"}
        if word == "tcp":
            flags = {f"tcp-{self.expect_word('sequence', 'options')}"}
            while self.accept(","):
                flags.add(f"tcp-{self.expect_word('sequence', 'options')}")
            return flags
        return {word}

    def _reject(self) -> Stmt:
        self.advance()
        if not self.accept_word("with"):
            return RejectStmt()
        kind = self.expect_word("icmp", "icmpv6", "icmpx", "tcp")
        if kind == "tcp":
            self.expect_word("reset")
            return RejectStmt("tcp reset")
        self.accept_word("type")
        token = self.tok
        if token[0] == "num":
            return RejectStmt(kind, ConstantExpr(self.parse_number(256), loc=self.at(token)))
        if token[0] == "$":
            return RejectStmt(kind, SymbolExpr(self.variable_text(), loc=self.span(token[2])))
        name = self.expect_word()
        return RejectStmt(kind, SymbolExpr(name, loc=self.at(token)))

    # --- tracking, flows, sets

    def _synproxy(self) -> Stmt | None:
        objref = self._objref("synproxy")
        if objref is not None:
            return objref
        self.advance()
        return self.parse_synproxy_args()

    def parse_synproxy_args(self) -> SynproxyStmt:
        stmt = SynproxyStmt()
        while self.word in ("mss", "wscale", "timestamp", "sack-perm", "sack-permitted"):
            word = self.advance()[1]
            if word == "mss":
                stmt.mss = self.parse_number(1 << 16)
            elif word == "wscale":
                stmt.wscale = self.parse_number(256)
            elif word == "timestamp":
                stmt.timestamp = True
            else:
                stmt.sack_perm = True
        return stmt

    def _notrack(self) -> Stmt:
        self.advance()
        return NotrackStmt()

    def _flow(self) -> Stmt:
        self.advance()
        self.expect_word("add", "offload")
        self.expect("@")
        if self.tok[0] == "$":
            return FlowStmt(self.variable_text())
        return FlowStmt(self.parse_name("flowtable"))

    def _reset(self) -> Stmt:
        self.advance()
        start = self.tok[2]
        self.expect_word("tcp")
        self.expect_word("option")
        target = self.parse_tcp_option(start)
        if target.field is not None or target.raw is not None:
            raise self.fail("only a whole TCP option can be reset", target.loc)
        return OptstripStmt(target)

    def _tunnel_stmt(self) -> Stmt | None:
        return self._objref("tunnel")

    def _set_update(self) -> Stmt | None:
        """``add|update|delete @set { … }`` and the older ``set add KEY @set``."""
        if self.word == "set":
            self.advance()
            op = self.expect_word("add", "update", "delete")
            elem = self._update_element()
            if self.tok[0] != "@":
                raise self.unexpected("@")
            return SetUpdateStmt(op, self.parse_set_reference(), elem)
        op = self.advance()[1]
        if self.tok[0] != "@":
            raise self.unexpected("@")
        ref = self.parse_set_reference()
        self.enter()
        self.expect("{")
        elem = self._update_element()
        stmts = self._stateful_stmts()
        stmt: Stmt
        if self.accept(":"):
            data = self.parse_data() if self.word in kw.VERDICTS else self.parse_concat(ANY)
            stmt = MapUpdateStmt(op, ref, elem, data, stmts)
        else:
            stmt = SetUpdateStmt(op, ref, elem, stmts)
        self.expect("}")
        self.leave()
        return stmt

    def _stateful_stmts(self) -> list[Stmt]:
        stmts: list[Stmt] = []
        while True:
            stmt = self.parse_stateful_stmt()
            if stmt is None:
                return stmts
            stmts.append(stmt)

    def _update_element(self) -> SetElemExpr:
        start = self.tok[2]
        elem = SetElemExpr(self.parse_concat(ANY))
        while self.word in ("timeout", "expires", "comment"):
            word = self.advance()[1]
            if word == "comment":
                elem.comment = self.parse_comment()
            elif word == "timeout":
                elem.timeout = self.parse_time()
            else:
                elem.expires = self.parse_time()
        elem.loc = self.span(start)
        return elem

    def _meter(self) -> Stmt:
        self.advance()
        name = self.parse_name("meter")
        size = self.parse_number(_U32) if self.accept_word("size") else None
        self.expect("{")
        elem = self._update_element()
        stmts = [self.parse_stmt()]
        self.expect("}")
        return MeterStmt(name, elem, stmts, size)

    def _xt(self) -> Stmt:
        self.advance()
        kind = self.expect_word("match", "target", "watcher")
        return XtStmt(kind, self.parse_string())


_STATEMENTS: Final[dict[str, Callable[[StmtParser], Stmt | None]]] = {
    **dict.fromkeys(kw.VERDICTS, StmtParser._verdict),
    "counter": StmtParser._counter,
    "quota": StmtParser._quota,
    "limit": StmtParser._limit,
    "last": StmtParser._last,
    "ct": StmtParser._ct_stmt,
    "log": StmtParser._log,
    "reject": StmtParser._reject,
    "snat": StmtParser._nat,
    "dnat": StmtParser._nat,
    "masquerade": StmtParser._nat,
    "redirect": StmtParser._nat,
    "tproxy": StmtParser._tproxy,
    "synproxy": StmtParser._synproxy,
    "dup": StmtParser._dup,
    "fwd": StmtParser._fwd,
    "queue": StmtParser._queue,
    "notrack": StmtParser._notrack,
    "flow": StmtParser._flow,
    "reset": StmtParser._reset,
    "tunnel": StmtParser._tunnel_stmt,
    "set": StmtParser._set_update,
    "add": StmtParser._set_update,
    "update": StmtParser._set_update,
    "delete": StmtParser._set_update,
    "meter": StmtParser._meter,
    "xt": StmtParser._xt,
}
