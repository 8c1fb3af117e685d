"""The corpus of iptables-translate pairs and of argument validity; read in place, absent means skip."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(os.environ.get("USERFW_CONFORMANCE", Path(__file__).resolve().parents[3] / "shared" / "conformance")) / "iptables-ext"


@dataclass(frozen=True)
class Pair:
    """A command line and the exact lines that it must print."""

    file: str
    number: int
    command: str
    output: tuple[str, ...]

    @property
    def program(self) -> str:
        """The program's name, without -translate."""
        return self.command.split()[0].removesuffix("-translate")

    @property
    def argv(self) -> list[str]:
        """The arguments after the program's name."""
        return shlex.split(self.command)[1:]


def pairs() -> Iterator[Pair]:
    """Every pair of every file."""
    for path in sorted(ROOT.glob("*.txlate")):
        command, number, output = "", 0, []
        for at, line in enumerate([*path.read_text().splitlines(), ""], 1):
            if line.startswith("#"):
                continue
            starts = line.split(maxsplit=1)[:1] != ["nft"]
            if starts:
                if command:
                    yield Pair(path.name, number, command, tuple(output))
                command, number, output = line.strip(), at, []
            else:
                output.append(line)


@dataclass(frozen=True)
class Validity:
    """A rule of a ``*.t`` file and whether iptables accepts it."""

    file: str
    number: int
    program: str
    table: str
    chain: str
    rule: str
    ok: bool

    @property
    def argv(self) -> list[str]:
        """The words of the rule."""
        return shlex.split(self.rule)


_PROGRAMS = {"libipt_": ("iptables",), "libip6t_": ("ip6tables",), "libxt_": ("iptables", "ip6tables"), "libebt_": ("ebtables",),
             "libarpt_": ("arptables",)}  # fmt: skip


def validities() -> Iterator[Validity]:
    """Every rule line of every file, once for each of its programs, on its first chain and table."""
    for path in sorted(ROOT.glob("*.t")):
        programs = next((found for start, found in _PROGRAMS.items() if path.name.startswith(start)), ("iptables", "ip6tables"))
        table, chain = "filter", "INPUT"
        for number, line in enumerate(path.read_text().splitlines(), 1):
            line = line.strip()
            if not line or line[0] in "#@%":
                continue
            if line[0] == ":":
                chain, table = line[1:].split(",")[0], "filter"
            elif line[0] == "*":
                table = line[1:].split(",")[0]
            else:
                rule, _, verdict, *_ = [*line.split(";"), "", ""]
                for program in programs:
                    yield Validity(path.name, number, program, table, chain, rule, verdict.strip() == "OK")
