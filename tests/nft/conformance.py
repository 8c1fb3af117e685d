"""The conformance table: nft-py, nft-features and nft-bogons through parser, checker, lowering and printers.

``python tests/nft/conformance.py`` prints a row per file and totals; ``-v`` what failed; arguments choose files by a part
of their name; ``--what listed`` only one column. Exit status 1 when anything failed.

Columns: *judged* executions (line x table x chain) accepted or rejected as marked; *listed* executions whose listing equals
the canonical one (members of sets in any order); *json in*, *json out*, *bytecode* blocks that hold in all their executions.
The iptables-translate pairs have a row for each program, with the exact translations in *listed*. Below the table: the payload
blocks run by the interpreter of tests/oracle and by the engine.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "iptables"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import corpus
import pairs

from userfw.iptables.errors import UsageError
from userfw.iptables.family import FAMILIES
from userfw.iptables.translate import translate
from userfw.nft import syntax as s
from userfw.nft.datatype import Names
from userfw.nft.json_in import is_json
from userfw.nft.location import NftError, NftErrors
from userfw.nft.lower import dump_set, lower_rule
from userfw.nft.parser import parse
from userfw.ruleset.draft import Draft
from userfw.ruleset.events import NewGeneration
from userfw.ruleset.manager import RulesetManager
from userfw.ruleset.options import Options
from userfw.ruleset.output import event_text
from userfw.ruleset.output_json import event_line

NAMES: Final = Names()
NAMES.utc_offset = 7200  # the corpus is listed with TZ=UTC-2
OPTIONS: Final = Options(numeric_protocol=True, stateless=True)
JSON: Final = replace(OPTIONS, json=True)
JSON_IN: Final = replace(OPTIONS, json_input=True)
COLUMNS: Final = ("judged", "listed", "json in", "json out", "bytecode")


class World:
    """The ruleset of a test file, run by the manager as the daemon runs it; ``checked`` gives the tree of a rule."""

    def __init__(self) -> None:
        self.manager = RulesetManager(names=NAMES)

    def run(self, text: str, options: Options = OPTIONS) -> str:
        """Run commands; the first line of the errors, empty when there are none."""
        try:
            result = self.manager.execute(text, options)
        except Exception as error:
            return f"crash: {type(error).__name__}: {error}"
        return result.errors.split("\n")[0] or ("status 1" if result.status else "")

    def listed(self, family: str, table: str, chain: str) -> str:
        """The rules of a chain as text, without its frame."""
        lines = self.manager.execute(f"list chain {family} {table} {chain}", OPTIONS).output.splitlines()[2:-2]
        lines = [line.strip() for line in lines]
        return " ".join(line for line in lines if not re.match(r"type \w+ hook ", line))

    def listed_json(self, family: str, table: str, chain: str) -> Any:
        """The expressions of the one rule of a chain."""
        output = self.manager.execute(f"list chain {family} {table} {chain}", JSON).output
        return next(item["rule"]["expr"] for item in json.loads(output)["nftables"] if "rule" in item)

    def checked(self, text: str) -> s.RuleBlock | None:
        """The tree of the rule that a command adds, with names resolved in this ruleset."""
        commands = parse(text)
        node = self.manager.backend.check(Draft(self.manager.rules, self.manager.backend, None), commands[0]).node
        return node if isinstance(node, s.RuleBlock) else None


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


def world_of(test: corpus.TestFile) -> World:
    """The tables and chains of a file, made before the first line."""
    world = World()
    made: set[tuple[str, str]] = set()
    for line in test.lines:
        for table in line.tables:
            if (table.family, table.name) in made:
                continue
            made.add((table.family, table.name))
            text = f"add table {table.family} {table.name}\n"
            for chain in table.chains:
                spec = f" {{ {chain.spec}; }}" if chain.spec else ""
                text += f"add chain {table.family} {table.name} {chain.name}{spec}\n"
            failure = world.run(text)
            assert not failure, failure
    return world


def run_file(test: corpus.TestFile) -> Row:
    """All lines of a file."""
    row = new_row()
    world = world_of(test)
    for line in test.lines:
        if line.kind != "rule":
            for table in line.tables:
                failure = world.run(declare(line, table.family, table.name))
                row["judged"].count((not failure) == line.ok, f"{where(test, line, table)}: {line.text}: {failure}")
        else:
            run_rule(test, line, world, row)
    return row


def where(test: corpus.TestFile, line: corpus.Line, table: corpus.Table, chain: str = "") -> str:
    return f"{test.name}:{line.number} [{table.family} {chain}]"


def run_rule(test: corpus.TestFile, line: corpus.Line, world: World, row: Row) -> None:
    """One rule in all its tables and chains."""
    block = test.json.get(line.text) if line.ok else None
    want_json = test.json_output.get(line.text, test.json_output.get(line.canon, block)) if block is not None else None
    problems: dict[str, list[str]] = {"json in": [], "json out": []}
    bytecode: dict[int, list[str]] = {}
    for table in line.tables:
        for chain in table.chains:
            place = f"{where(test, line, table, chain.name)} {line.text}"
            add = f"add rule {table.family} {table.name} {chain.name} {line.text}"
            failure = world.run(f"flush table {table.family} {table.name}\n{add}")
            row["judged"].count((not failure) == line.ok, f"{place}: {failure or 'accepted'}")
            if not line.ok:
                continue
            listed = failure or world.listed(table.family, table.name, chain.name)
            row["listed"].count(
                normal_text(listed) == normal_text(line.canon), f"{place}\n    got  {listed}\n    want {line.canon}"
            )
            payload = corpus.payload_block(test, table.family, line.text)
            if payload is not None:
                problem = failure and f"{place}: {failure}"
                bytecode.setdefault(id(payload), []).append(problem or bytecode_problem(payload, table, add, world, place))
            if block is None:
                continue
            problems["json out"] += json_out_problem(world, table, chain.name, failure, want_json, place)
            problems["json in"] += json_in_problem(world, table, chain.name, block, line, place)
    for found in bytecode.values():
        bad = [failure for failure in found if failure]
        row["bytecode"].count(not bad, bad[0] if bad else "")
    if block is not None:
        for column, found in problems.items():
            row[column].count(not found, found[0] if found else "")


def json_in_problem(
    world: World, table: corpus.Table, chain: str, block: Any, line: corpus.Line, place: str
) -> Iterator[str]:
    where = {"family": table.family, "table": table.name, "chain": chain}
    flush = {"flush": {"table": {"family": table.family, "name": table.name}}}
    document = {"nftables": [flush, {"add": {"rule": {**where, "expr": block}}}]}
    listed = world.run(json.dumps(document), JSON_IN) or world.listed(table.family, table.name, chain)
    if normal_text(listed) != normal_text(line.canon):
        yield f"{place}\n    got  {listed}\n    want {line.canon}"


def json_out_problem(
    world: World, table: corpus.Table, chain: str, failure: str, want: Any, place: str
) -> Iterator[str]:
    got = failure or normal_json(world.listed_json(table.family, table.name, chain))
    if got != normal_json(want):
        yield f"{place}\n    got  {json.dumps(got)}\n    want {json.dumps(normal_json(want))}"


def bytecode_problem(block: corpus.PayloadBlock, table: corpus.Table, add: str, world: World, place: str) -> str:
    """Expressions and anonymous sets of a rule against its payload block."""
    try:
        checked = world.checked(add)
        assert checked is not None
        lowered = lower_rule(checked, table.family)
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


def run_texts() -> dict[str, Row]:
    """nft-features (accepted), nft-bogons (rejected), nft-monitor (events as text and JSON in ``listed`` and ``json out``)."""
    rows = {"nft-features": new_row(), "nft-bogons": new_row(), "nft-monitor": new_row()}
    for name, paths, ok in (("nft-features", corpus.features(), True), ("nft-bogons", corpus.bogons(), False)):
        for path in paths:
            text = path.read_bytes().decode("utf-8", "surrogateescape")
            options = replace(OPTIONS, filename=path.name, json_input=is_json(text))
            failure = World().run(text, options)
            crashed = failure.startswith("crash")
            rows[name]["judged"].count((not failure) == ok and not crashed, f"{path.name}: {failure or 'accepted'}")
    run_monitor(rows["nft-monitor"])
    return rows


def run_monitor(row: Row) -> None:
    """Each step's transaction and the lines that it must print, with numbers and handles set to 0."""
    path, world = None, World()
    for step in corpus.monitor_steps():
        if step.file != path:
            path, world = step.file, World()
        events: list[Any] = []
        stop = world.manager.subscribe(events.extend)
        failure = world.run("\n".join(step.commands))
        stop()
        place = f"{step.file.name}:{step.number}"
        row["judged"].count(not failure, f"{place}: {failure}")
        style = Options(numeric=True).style(NAMES)
        text = "".join(event_text(event, style) for event in events if not isinstance(event, NewGeneration))
        same = [tight(line) for line in text.splitlines()] == [tight(line) for line in step.output]
        row["listed"].count(same, f"{place}\n    got  {text}\n    want {step.output}")
        lines = "".join(event_line(event, style) for event in events if not isinstance(event, NewGeneration))
        got = json.loads(re.sub(r'"handle": \d+', '"handle": 0', f"[{','.join(lines.splitlines())}]"))
        row["json out"].count(got == step.json, f"{place}\n    got  {got}\n    want {step.json}")


def tight(line: str) -> str:
    """nft's own runner of the monitor tests compares with ``diff -w``."""
    return re.sub(r"\s", "", line)


def run_translations() -> dict[str, Row]:
    """The iptables-translate pairs, a row for each program: exact translations in ``listed``."""
    rows: dict[str, Row] = {}
    for pair in pairs.pairs():
        row = rows.setdefault(f"{pair.program}-translate", new_row())
        try:
            got = tuple(translate(FAMILIES[pair.program], pair.argv).output.splitlines())
        except UsageError as error:
            got = (str(error),)
        row["listed"].count(got == pair.output, f"{pair.file}:{pair.number}\n    got  {got}\n    want {pair.output}")
    return rows


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
        rows |= run_texts()
        rows |= run_translations()
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
    if not options.what:
        sys.path.insert(0, str(Path(__file__).parents[1] / "oracle"))
        import oracle_compare as compare

        blocks = compare.total(compare.run(options.parts))
        print(f"\npayload blocks, a small interpreter against the engine: {compare.summary(blocks)}")
        sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
        import test_concat_vectors as concat

        right = [good for vector in concat.vectors() for good in concat.answers(vector)]
        print(f"\nranges in concatenations (concat_range_vectors), through the engine: {sum(right)} of {len(right)} packets")
        if not all(right):
            return 1
    return int(any(score.passed < score.total for row in rows.values() for score in row.values()))


if __name__ == "__main__":
    sys.exit(main())
