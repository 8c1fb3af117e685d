"""The parser of address translation and redirection: nat, tproxy, dup, fwd, queue."""

from __future__ import annotations

from typing import Final

from userfw.nft.parser_expr import ANY, VALUE, ExprParser
from userfw.nft.syntax import DupStmt, Expr, FwdStmt, NatStmt, QueueStmt, Stmt, TproxyStmt

_NAT_FLAGS: Final = ("random", "fully-random", "persistent")


class NatParser(ExprParser):
    """Statements that send a packet elsewhere."""

    def _nat(self) -> Stmt:
        stmt = NatStmt(self.advance()[1])
        bare = self.tok[0] in ("nl", ";", "eof", "}") or self.word in _NAT_FLAGS
        if stmt.kind in ("masquerade", "redirect"):
            if self.accept_word("to"):
                if self.accept(":") or stmt.kind == "redirect":
                    stmt.port = self._nat_part()
                else:
                    raise self.unexpected("colon")
        elif bare:
            raise self.unexpected()
        else:
            self._nat_target(stmt)
        if self.word in _NAT_FLAGS:
            flags = {self.advance()[1]}
            while self.accept(","):
                flags.add(self.expect_word(*_NAT_FLAGS))
            stmt.flags = tuple(flag for flag in _NAT_FLAGS if flag in flags)
        return stmt

    def _nat_target(self, stmt: NatStmt) -> None:
        if self.word in ("ip", "ip6") and self.peek()[1] in ("to", "prefix", "interval", "addr"):
            stmt.family = self.advance()[1]
        if self.word in ("prefix", "interval") and self.peek()[1] == "to":
            stmt.form = self.advance()[1]
        elif self.word == "addr" and stmt.family:
            self.advance()
            self.expect(".")
            self.expect_word("port")
            stmt.form = "concat"
        if stmt.family or stmt.form:
            self.expect_word("to")
        else:
            self.accept_word("to")
        if self.accept(":"):
            stmt.port = self._nat_part()
            return
        stmt.addr = self._nat_part()
        if self.accept(":"):
            stmt.port = self._nat_part()

    def _nat_part(self) -> Expr:
        """An address or port: value, range, load or map, but no list."""
        start = self.tok[2]
        if self.tok[0] == "{":
            return self.parse_set()
        expr = self.parse_concat(ANY)
        if self.word == "map":
            return self.parse_map_tail(expr, start)
        return expr

    def _tproxy(self) -> Stmt:
        self.advance()
        family = self.advance()[1] if self.word in ("ip", "ip6") else None
        self.expect_word("to")
        stmt = TproxyStmt(family)
        if not self.accept(":"):
            stmt.addr = self._nat_part()
            if not self.accept(":"):
                return stmt
        stmt.port = self._nat_part()
        return stmt

    def _dup(self) -> Stmt:
        self.advance()
        self.expect_word("to")
        to = self._nat_part()
        dev = self._nat_part() if self.accept_word("device") else None
        return DupStmt(to, dev)

    def _fwd(self) -> Stmt:
        self.advance()
        family = self.advance()[1] if self.word in ("ip", "ip6") and self.peek()[1] == "to" else None
        self.expect_word("to")
        first = self._nat_part()
        if self.accept_word("device"):
            if family is None:
                raise self.unexpected()
            return FwdStmt(self._nat_part(), first, family)
        if family is not None:
            raise self.unexpected("device")
        return FwdStmt(first)

    def _queue(self) -> Stmt:
        self.advance()
        stmt = QueueStmt()
        flags: set[str] = set()
        if self.accept_word("flags"):
            flags.add(self.expect_word("bypass", "fanout"))
            while self.accept(","):
                flags.add(self.expect_word("bypass", "fanout"))
            if self.word not in ("to", "num"):
                raise self.unexpected("to")
        if self.accept_word("to"):
            stmt.expr = self._nat_part()
        else:
            while self.word in ("num", "bypass", "fanout"):
                word = self.advance()[1]
                if word != "num":
                    flags.add(word)
                    self.accept(",")
                elif stmt.expr is not None:
                    raise self.unexpected()
                else:
                    stmt.expr = self._queue_number()
        stmt.flags = tuple(flag for flag in ("bypass", "fanout") if flag in flags)
        return stmt

    def _queue_number(self) -> Expr:
        if self.tok[0] not in ("num", "$"):
            raise self.unexpected("number")
        return self.parse_part(VALUE)
