"""Reader of the nft-monitor corpus: transactions and the lines that a monitor prints for them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONFORMANCE = Path(os.environ.get("USERFW_CONFORMANCE", ROOT.parent / "shared" / "conformance"))


@dataclass
class Case:
    """One transaction: what goes in, and what comes out as text and as JSON."""

    file: str
    number: int
    commands: list[str] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    json: list[str] = field(default_factory=list)


def read(path: Path) -> list[Case]:
    """The cases of one file, in order."""
    cases: list[Case] = []
    case: Case | None = None
    for line in path.read_text().splitlines():
        kind, _, rest = line.partition(" ")
        if kind not in ("I", "O", "J"):
            continue
        if kind == "I":
            if case is None or case.text or case.json:
                case = Case(path.name, len(cases) + 1)
                cases.append(case)
            case.commands.append(rest)
        elif kind == "O":
            assert case is not None
            case.text += list(case.commands) if rest == "-" else [rest]
        else:
            assert case is not None
            case.json.append(rest)
    return cases


def files() -> Iterator[Path]:
    """The files of the corpus, none where it is absent."""
    folder = CONFORMANCE / "nft-monitor" / "testcases"
    yield from sorted(folder.glob("*.t"))
