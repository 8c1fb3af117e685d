"""The conformance table: nft-py, nft-features and nft-bogons through parser, checker, lowering and printers.

``python tests/nft/conformance.py`` prints a row per file and totals; ``-v`` what failed; arguments choose files by a part
of their name; ``--what listed`` only one column. Exit status 1 when anything failed.

Columns: *judged* executions (line x table x chain) accepted or rejected as marked; *listed* executions whose listing equals
the canonical one (members of sets in any order); *json in*, *json out*, *bytecode* blocks that hold in all their executions.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import corpus

from userfw.nft import syntax as s
from userfw.nft.check import check_commands
from userfw.nft.datatype import Names, Output
from userfw.nft.json_in import is_json, parse_json
from userfw.nft.json_out import rule_object
from userfw.nft.location import NftError, NftErrors
from userfw.nft.lower import dump_set, lower_rule
from userfw.nft.parser import parse
from userfw.nft.printer import format_rule
from userfw.nft.printer_expr import Style

NAMES: Final = Names()
NAMES.utc_offset = 7200  # the corpus is listed with TZ=UTC-2
STYLE: Final = Style(Output(numeric_proto=True, names=NAMES), stateless=True)
COLUMNS: Final = ("judged", "listed", "json in", "json out", "bytecode")


class World:
    """The ruleset of a test: what the checker asks about."""

    def __init__(self) -> None:
        self.names = NAMES
        self.tables: set[tuple[str, str]] = set()
        self.chains: dict[tuple[str, str, str], s.ChainBlock] = {}
        self.sets: dict[tuple[str, str, str], s.SetBlock] = {}
        self.objects: dict[tuple[str, str, str, str], s.ObjectBlock] = {}
        self.flowtables: dict[tuple[str, str, str], s.FlowtableBlock] = {}

    def has_table(self, family: str, table: str) -> bool:
        return (family, table) in self.tables

    def set_of(self, family: str, table: str, name: str) -> s.SetBlock | None:
        return self.sets.get((family, table, name))

    def chain_of(self, family: str, table: str, name: str) -> s.ChainBlock | None:
        return self.chains.get((family, table, name))

    def object_of(self, family: str, table: str, kind: str, name: str) -> s.ObjectBlock | None:
        return self.objects.get((family, table, kind, name))

    def flowtable_of(self, family: str, table: str, name: str) -> s.FlowtableBlock | None:
        return self.flowtables.get((family, table, name))

    def run(self, text: str) -> list[s.Command]:
        """Check commands and remember what they declare."""
        return self.accept(parse(text, filename="<test>"))

    def run_json(self, document: Any) -> list[s.Command]:
        return self.accept(parse_json(json.dumps(document)))

    def accept(self, commands: list[s.Command]) -> list[s.Command]:
        checked = check_commands(commands, self)
        for command in checked:
            self._remember(command)
        return checked

    def _remember(self, command: s.Command) -> None:
        node = command.node
        family, table = command.family or "ip", command.table or ""
        if command.op not in ("add", "create"):
            return
        if isinstance(node, s.TableBlock):
            self.tables.add((family, table))
        elif isinstance(node, s.ChainBlock):
            self.chains[family, table, node.name] = node
        elif isinstance(node, s.SetBlock):
            self.sets[family, table, node.name] = node
        elif isinstance(node, s.ObjectBlock):
            self.objects[family, table, node.kind, node.name] = node
        elif isinstance(node, s.FlowtableBlock):
            self.flowtables[family, table, node.name] = node


@dataclass
class Score:
    """Passed and total of one column, with the failures."""

    passed: int = 0
    total: int = 0
    failures: list[str] = field(default_factory=list)

    def count(self, ok: bool, what: str = "") -> None:
        self.total += 1
        self.passed += ok
        if not ok:
            self.failures.append(what)


Row = dict[str, Score]


def new_row() -> Row:
    return {name: Score() for name in COLUMNS}


# --- comparing


def normal_text(text: str) -> str:
    """A listing with members of sets in one order and no optional spaces."""

    def members(match: re.Match[str]) -> str:
        parts = (part.strip().replace(" - ", "-") for part in match[1].split(","))
        return "{" + ",".join(sorted(part for part in parts if part)) + "}"

    text = re.sub(r"\{([^{}]*)\}", members, text)
    return re.sub(r"\s*([.:{},])\s*", r"\1", text)


def normal_json(value: Any) -> Any:
    if isinstance(value, dict):
        result = {key: normal_json(item) for key, item in value.items()}
        if isinstance(result.get("set"), list):
            result["set"] = sorted(result["set"], key=lambda item: json.dumps(item, sort_keys=True))
        return result
    if isinstance(value, list):
        return [normal_json(item) for item in value]
    return value


def first_error(error: NftErrors) -> str:
    return str(error).split("\n")[0]


# --- nft-py


def declare(line: corpus.Line, family: str, table: str) -> str:
    """A set, elements or object line as a command."""
    name, _, rest = line.text.partition(" ")
    if line.kind == "elements":
        return f"add element {family} {table} {name} {{ {rest} }}"
    if line.kind == "set":
        kind = "map" if " : " in rest or rest.endswith(":") or ":" in rest else "set"
        body = re.sub(r"\s(flags|timeout|size|gc-interval|auto-merge|counter)\b", r"; \1", rest)
        return f"add {kind} {family} {table} {name} {{ {body}; }}"
    match = re.fullmatch(r"type (ct \w+|\w+)\s*(.*)", rest)
    assert match is not None, line.text
    return f"add {match[1]} {family} {table} {name} {match[2]}"


def worlds(test: corpus.TestFile) -> dict[str, World]:
    """A world for each table, made before the first line."""
    result: dict[str, World] = {}
    for line in test.lines:
        for table in line.tables:
            if table.name in result:
                continue
            world = result[table.name] = World()
            world.run(f"add table {table.family} {table.name}")
            for chain in table.chains:
                spec = f" {{ {chain.spec}; }}" if chain.spec else ""
                world.run(f"add chain {table.family} {table.name} {chain.name}{spec}")
    return result


def run_file(test: corpus.TestFile) -> Row:
    """All lines of a file."""
    row = new_row()
    places = worlds(test)
    for line in test.lines:
        if line.kind != "rule":
            for table in line.tables:
                failure = declaration_problem(places[table.name], declare(line, table.family, table.name))
                row["judged"].count((not failure) == line.ok, f"{where(test, line, table)}: {line.text}: {failure}")
        else:
            run_rule(test, line, places, row)
    return row


def declaration_problem(world: World, text: str) -> str:
    try:
        world.run(text)
    except NftErrors as error:
        return first_error(error)
    except Exception as error:
        return f"crash: {type(error).__name__}: {error}"
    return ""


def where(test: corpus.TestFile, line: corpus.Line, table: corpus.Table, chain: str = "") -> str:
    return f"{test.name}:{line.number} [{table.family} {chain}]"


def run_rule(test: corpus.TestFile, line: corpus.Line, places: dict[str, World], row: Row) -> None:
    """One rule in all its tables and chains."""
    block = test.json.get(line.text) if line.ok else None
    want_json = test.json_output.get(line.text, test.json_output.get(line.canon, block)) if block is not None else None
    problems: dict[str, list[str]] = {"json in": [], "json out": []}
    bytecode: dict[int, list[str]] = {}
    for table in line.tables:
        for chain in table.chains:
            place = f"{where(test, line, table, chain.name)} {line.text}"
            world = places[table.name]
            checked, failure = attempt(world, f"add rule {table.family} {table.name} {chain.name} {line.text}")
            row["judged"].count((not failure) == line.ok, f"{place}: {failure or 'accepted'}")
            if not line.ok:
                continue
            listed = listing(checked) if checked else failure
            row["listed"].count(listed == normal_text(line.canon), f"{place}\n    got  {listed}\n    want {line.canon}")
            payload = corpus.payload_block(test, table.family, line.text)
            if payload is not None:
                failure = bytecode_problem(payload, table, checked, world, place) if checked else f"{place}: {failure}"
                bytecode.setdefault(id(payload), []).append(failure)
            if block is None:
                continue
            problems["json in"] += json_in_problem(world, table, chain.name, block, line, place)
            if checked is not None:
                problems["json out"] += json_out_problem(table, chain.name, checked, want_json, place)
            else:
                problems["json out"].append(f"{place}: {failure}")
    for found in bytecode.values():
        bad = [failure for failure in found if failure]
        row["bytecode"].count(not bad, bad[0] if bad else "")
    if block is not None:
        for column, found in problems.items():
            row[column].count(not found, found[0] if found else "")


def listing(rule: s.RuleBlock) -> str:
    """The normal text of a rule; a crash of the printer is a text that equals nothing."""
    try:
        return normal_text(format_rule(rule, STYLE))
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def attempt(world: World, text: str) -> tuple[s.RuleBlock | None, str]:
    """The checked rule, or why there is none."""
    try:
        node = world.run(text)[0].node
    except NftErrors as error:
        return None, first_error(error)
    except Exception as error:
        return None, f"crash: {type(error).__name__}: {error}"
    assert isinstance(node, s.RuleBlock)
    return node, ""


def json_in_problem(
    world: World, table: corpus.Table, chain: str, block: Any, line: corpus.Line, place: str
) -> Iterator[str]:
    body = {"family": table.family, "table": table.name, "chain": chain, "expr": block}
    try:
        node = world.run_json({"nftables": [{"add": {"rule": body}}]})[0].node
    except NftErrors as error:
        yield f"{place}: {first_error(error)}"
        return
    except Exception as error:
        yield f"{place}: crash: {type(error).__name__}: {error}"
        return
    assert isinstance(node, s.RuleBlock)
    listed = listing(node)
    if listed != normal_text(line.canon):
        yield f"{place}\n    got  {listed}\n    want {line.canon}"


def json_out_problem(
    table: corpus.Table, chain: str, checked: s.RuleBlock, want: Any, place: str
) -> Iterator[str]:
    try:
        got = normal_json(rule_object(table.family, table.name, chain, checked, STYLE)["rule"]["expr"])
    except Exception as error:
        yield f"{place}: crash: {type(error).__name__}: {error}"
        return
    if got != normal_json(want):
        yield f"{place}\n    got  {json.dumps(got)}\n    want {json.dumps(normal_json(want))}"


def bytecode_problem(
    block: corpus.PayloadBlock, table: corpus.Table, checked: s.RuleBlock, world: World, place: str
) -> str:
    """Expressions and anonymous sets of a rule against its payload block."""
    try:
        lowered = lower_rule(checked, table.family, world)
        lines = [normal_line(line) for line in lowered.render()]
        sets = [line for entry in lowered.anonymous_sets for line in dump_set(entry, table.name)]
    except (NftError, NftErrors) as error:
        return f"{place}: {str(error).splitlines()[0]}"
    except Exception as error:
        return f"{place}: crash: {type(error).__name__}: {error}"
    want = [normal_line(line) for line in block.lines]
    if lines != want:
        return f"{place}\n    got  {lines}\n    want {want}"
    got_elements, want_elements = elements_of(sets), elements_of(block.header)
    if want_elements and got_elements != want_elements:
        return f"{place}\n    got  {got_elements}\n    want {want_elements}"
    return ""


def normal_line(line: str) -> str:
    text = re.sub(r"__(set|map|objmap)\d+", r"__\1%d", line)
    return " ".join(text.strip().strip("[]").split())


def elements_of(lines: list[str]) -> list[str]:
    """The elements of set dumps, in one order."""
    text = " ".join(line for line in lines if line.lstrip().startswith("element"))
    parts = (" ".join(part.split()) for part in text.split("[end]"))
    return sorted(part for part in parts if part.startswith("element"))


# --- whole files


def run_texts() -> Row:
    """nft-features (accepted) and nft-bogons (rejected), as far as language and names decide."""
    row = new_row()
    for path, ok in [*((path, True) for path in corpus.features()), *((path, False) for path in corpus.bogons())]:
        text = path.read_bytes().decode("utf-8", "surrogateescape")
        try:
            commands = parse_json(text) if is_json(text) else parse(text, filename=path.name)
            check_commands(commands, World())
            failure = ""
        except NftErrors as error:
            failure = first_error(error)
        except Exception as error:
            failure = f"crash: {type(error).__name__}: {error}"
            ok = not ok
        row["judged"].count((not failure) == ok, f"{path.name}: {failure or 'accepted'}")
    return row


# --- the table


def table(rows: dict[str, Row]) -> str:
    """The rows as text, with totals."""
    total = new_row()
    lines = [f"{'file':32}" + "".join(f"{name:>16}" for name in COLUMNS)]
    for row in rows.values():
        for column in COLUMNS:
            total[column].passed += row[column].passed
            total[column].total += row[column].total
    for name, row in [*rows.items(), ("total", total)]:
        cells = (f"{row[c].passed}/{row[c].total}" if row[c].total else "-" for c in COLUMNS)
        lines.append(f"{name:32}" + "".join(f"{cell:>16}" for cell in cells))
    return "\n".join(lines)


def run(parts: list[str]) -> dict[str, Row]:
    rows = {}
    for test in corpus.test_files():
        if not parts or any(part in test.name for part in parts):
            rows[test.name] = run_file(test)
    if not parts:
        rows["features and bogons"] = run_texts()
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description="Count what of the nft corpora holds.")
    parser.add_argument("parts", nargs="*", help="parts of file names")
    parser.add_argument("-v", "--verbose", action="store_true", help="show what failed")
    parser.add_argument("--what", choices=COLUMNS, help="show failures of one column only")
    options = parser.parse_args()
    if not corpus.available():
        print(f"no conformance data at {corpus.ROOT}")
        return 0
    rows = run(options.parts)
    if options.verbose or options.what:
        for row in rows.values():
            for column in COLUMNS:
                if options.what in (None, column):
                    for failure in row[column].failures:
                        print(f"{column}: {failure}")
    print(table(rows))
    return int(any(score.passed < score.total for row in rows.values() for score in row.values()))


if __name__ == "__main__":
    sys.exit(main())
