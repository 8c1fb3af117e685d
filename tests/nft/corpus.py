"""Readers of the conformance corpora (see the README beside them); data only, no judgement.

Laws:
- The folder is ``USERFW_CONFORMANCE``, default ``../shared/conformance`` beside the repository. Absent: tests skip.
- A reader yields what the files say, in their order, with file and line.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(
    os.environ.get("USERFW_CONFORMANCE") or Path(__file__).resolve().parents[2].parent / "shared" / "conformance"
)
FAMILIES: Final = ("ip", "ip6", "inet", "arp", "bridge", "netdev")


def available() -> bool:
    """Whether the corpora are here."""
    return (ROOT / "nft-py").is_dir()


@dataclass
class Chain:
    """A chain template of a ``*.t`` file; ``spec`` is empty for a regular chain."""

    name: str
    spec: str


@dataclass
class Table:
    """A table that later lines run in."""

    family: str
    name: str
    chains: list[Chain]


@dataclass
class Line:
    """One line of a ``*.t`` file. ``kind``: rule, set, elements, object. ``text`` as written (without the mark),
    ``ok`` whether it must be accepted, ``canon`` how it is listed."""

    file: Path
    number: int
    kind: str
    text: str
    ok: bool
    canon: str
    tables: tuple[Table, ...]


@dataclass
class TestFile:
    """A ``*.t`` file with what stands beside it."""

    path: Path
    lines: list[Line] = field(default_factory=list)
    json: dict[str, Any] = field(default_factory=dict)
    json_output: dict[str, Any] = field(default_factory=dict)
    payloads: dict[str, dict[str, PayloadBlock]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.path.parent.name}/{self.path.name}"


_MARKS: Final = {"!": "set", "?": "elements", "%": "object"}


def test_files() -> list[TestFile]:
    """All ``*.t`` files of nft-py, in order of folder and name.

    ``any/icmpX.t.netdev`` is none of them: nft's own runner does not read it either, and it contradicts
    ``bridge/icmpX.t``, which does run, on the same question (is ``ip protocol`` kept before ``icmp type``).
    """
    return [read_test_file(path) for path in sorted((ROOT / "nft-py").glob("*/*.t"))]


def read_test_file(path: Path) -> TestFile:
    """One ``*.t`` file."""
    result = TestFile(path)
    chains: dict[str, Chain] = {}
    tables: list[Table] = []
    for number, raw in enumerate(path.read_text().split("\n"), 1):
        line = raw.strip()
        if not line or line[0] in "#-":
            continue
        if line[0] == ":":
            name, _, spec = line[1:].partition(";")
            chains[name] = Chain(name, spec)
        elif line[0] == "*":
            family, name, used = line[1:].split(";")[:3]
            tables.append(Table(family, name, [chains[chain.strip()] for chain in used.split(",")]))
        else:
            result.lines.append(_test_line(path, number, line, tuple(tables)))
    result.json = read_blocks(Path(f"{path}.json"))
    result.json_output = read_blocks(Path(f"{path}.json.output"))
    return result


def _test_line(path: Path, number: int, line: str, tables: tuple[Table, ...]) -> Line:
    kind = _MARKS.get(line[0], "rule")
    text = line if kind == "rule" else line[1:]
    if kind == "object" and "}" in text:
        head, _, tail = text.rpartition("}")
        parts = [f"{head}}}", *tail.split(";")[1:]]
    else:
        parts = text.split(";")
    ok = len(parts) < 2 or parts[1].strip() != "fail"
    canon = parts[2].strip() if len(parts) > 2 and parts[2].strip() else parts[0].strip()
    return Line(path, number, kind, parts[0].strip(), ok, canon, tables)


def read_blocks(path: Path) -> dict[str, Any]:
    """JSON blocks of a file by their ``# RULE`` line; the first of a rule wins."""
    blocks: dict[str, Any] = {}
    if not path.is_file():
        return blocks
    rule, lines = "", list[str]()

    def finish() -> None:
        if rule and lines:
            blocks.setdefault(rule, json.loads("\n".join(lines)))

    for line in path.read_text().split("\n"):
        if line.startswith("#"):
            finish()
            rule, lines = line[1:].strip(), []
        elif line.strip():
            lines.append(line)
    finish()
    return blocks


@dataclass
class PayloadBlock:
    """Expressions of a rule: ``header`` is the set dumps and ``family table chain`` line, ``lines`` the expressions."""

    rule: str
    header: list[str]
    lines: list[str]


def read_payload(path: Path) -> list[PayloadBlock]:
    """The blocks of a ``*.t.payload*`` file."""
    blocks: list[PayloadBlock] = []
    if not path.is_file():
        return blocks
    for raw in path.read_text().split("\n"):
        line = raw.rstrip()
        if line.startswith("#"):
            blocks.append(PayloadBlock(line[1:].strip(), [], []))
        elif line.strip() and blocks:
            (blocks[-1].lines if line.lstrip().startswith("[") else blocks[-1].header).append(line.strip())
    return blocks


def payload_block(test: TestFile, family: str, rule: str) -> PayloadBlock | None:
    """The payload block of a rule for a family: the file that names the family wins."""
    for name in (f"{test.path}.payload.{family}", f"{test.path}.payload"):
        if name not in test.payloads:
            test.payloads[name] = {block.rule: block for block in reversed(read_payload(Path(name)))}
        if test.payloads[name]:
            return test.payloads[name].get(rule)
    return None


def bogons() -> list[Path]:
    """Files that ``nft --check -f`` must reject."""
    return sorted(path for part in ("nft-f", "nft-j-f") for path in (ROOT / "nft-bogons" / part).glob("*"))


def features() -> list[Path]:
    """Rulesets that must be accepted."""
    return sorted((ROOT / "nft-features").glob("*.nft"))


@dataclass
class MonitorStep:
    """One transaction of nft-monitor with the lines it must print."""

    file: Path
    number: int
    commands: list[str]
    output: list[str]
    json: list[Any]


def monitor_steps() -> Iterator[MonitorStep]:
    """All steps of nft-monitor in order."""
    for path in sorted((ROOT / "nft-monitor" / "testcases").glob("*.t")):
        step: MonitorStep | None = None
        last = ""
        for number, line in enumerate(path.read_text().split("\n"), 1):
            mark, _, rest = line.partition(" ")
            if mark == "I":
                if last != "I":
                    if step is not None:
                        yield step
                    step = MonitorStep(path, number, [], [], [])
                assert step is not None
                step.commands.append(rest)
            elif mark == "O" and step is not None:
                step.output.extend(step.commands if rest == "-" else [rest])
            elif mark == "J" and step is not None:
                step.json.append(json.loads(rest))
            if mark in ("I", "O", "J"):
                last = mark
        if step is not None:
            yield step
