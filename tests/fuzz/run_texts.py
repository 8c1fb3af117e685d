"""Fuzz what people and programs write: `make fuzz-rules` sends mutated rulesets, JSON, saved iptables rules and configurations
through parser, checker and a private ruleset.

An input is accepted, and then what it made lists, loads again and lists the same, in text and in JSON; or it is refused with the
place, and then nothing changed. Everything else is a finding: an exception, an error without a place, two seconds and more for one
input, memory that keeps growing. Findings are written to `--folder` and told; exit status 1.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import texts

from userfw.daemon.config import ConfigError
from userfw.daemon.config import parse as parse_configuration
from userfw.iptables.family import IPV4, IPV6
from userfw.iptables.translate import RestoreError, restore
from userfw.ruleset.manager import RulesetManager
from userfw.ruleset.options import Options

FAMILIES = ("ip", "ip6", "inet", "bridge", "arp", "netdev")
BASE = """table {0} t {{
 set s {{ type ipv4_addr . inet_service; flags interval; }}
 map m {{ type mark : verdict; }}
 chain c {{ }}
 chain x {{ }}
}}
"""
AT_MOST = 2.0  # seconds of processor time for one input
GROWTH = 100_000  # kilobytes, after the caches are warm
TURNS = 40  # inputs to one ruleset
ENOUGH = 50  # findings
FILE = "input"
# What nft's own listings do not say either: rules without statements and names that only JSON can give; in JSON, chains without a
# name and what a flowtable counts.
_UNSAID = re.compile(r"^\t\t$|^(?:table \w+|\t(?:ct )?[a-z]+) (?![A-Za-z_][\w./\\-]* \{(?: #.*)?$|\").* \{(?: #.*)?$", re.M)
_UNSAID_IN_JSON = re.compile(r"(?:jump|goto) \{|\tflowtable ")
# Its listings leave protocols out that go without saying, and some that do not: by these words they are refused when read again.
_LOST = ("conflicting protocols specified", "conflicting dependencies", "specify either ip or ip6 for address matching")
_PLACE = re.compile(r"^([^:\n]*):(\d+):(\d+)-(\d+): (Error|Warning): ", re.M)


class Finding(Exception):
    """What must not happen, in words."""


class TextFuzz:
    """Inputs of every kind, in turns."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.outcomes: Counter[str] = Counter()
        self.slowest = (0.0, "", "")
        self.findings: list[tuple[str, str, str]] = []
        self.kinds: dict[str, Callable[[], str]] = {
            "rules": self._rules, "commands": self._commands, "files": self._files, "json": self._json,
            "documents": self._documents, "iptables": self._saved, "configuration": self._configuration,
        }  # fmt: skip
        self.text = ""
        self._begin()

    def _begin(self) -> None:
        """New rulesets: one that rules are added to, one that is always replaced."""
        self.manager, self.whole = RulesetManager(), RulesetManager()
        self.family = self.rng.choice(FAMILIES)
        assert self.manager.execute(BASE.format(self.family)).status == 0

    def run(self, count: int) -> None:
        """So many inputs of each kind."""
        for turn in range(count):
            if turn % TURNS == 0:
                self._begin()
            for kind, work in self.kinds.items():
                begin = time.process_time()
                try:
                    outcome = work()
                except Exception as error:
                    words = str(error) if isinstance(error, Finding) else traceback.format_exc()
                    self.findings.append((kind, self.text, words))
                    outcome = "found"
                    self._begin()
                took = time.process_time() - begin
                self.slowest = max(self.slowest, (took, kind, self.text))
                if took > AT_MOST:
                    self.findings.append((kind, self.text, f"{took:.1f} s"))
                self.outcomes[f"{kind} {outcome}"] += 1

    def report(self) -> dict[str, object]:
        """What became of the inputs."""
        return {
            "outcomes": dict(sorted(self.outcomes.items())),
            "slowest_s": round(self.slowest[0], 3),
            "slowest": f"{self.slowest[1]}: {self.slowest[2][:200]}",
            "findings": len(self.findings),
            "memory_kb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        }

    # the kinds

    def _rules(self) -> str:
        """A line that adds a rule, mutated, in any family."""
        line = self.rng.choice(texts.lines())
        if self.rng.random() < 0.5:
            line = texts.exchange(line, self.rng, self.rng.choice(texts.lines()))
        else:
            line = texts.mutate(line, self.rng)
        line = line.replace("rule ip t", f"rule {self.family} t")
        return self._execute(line, Options(filename=FILE, echo=self.rng.random() < 0.1))

    def _commands(self) -> str:
        """Words that begin as commands do."""
        rng = self.rng
        words = [rng.choice(texts.VERBS), *(rng.choice(texts.WORDS + texts.VERBS) for _ in range(rng.randint(1, 7)))]
        return self._execute(" ".join(words), Options(filename=FILE, json=rng.random() < 0.1))

    def _files(self) -> str:
        """A whole ruleset, mutated, in the place of what there is."""
        text = texts.mutate(self.rng.choice(texts.files()), self.rng, texts.WORDS + texts.VERBS)
        return self._execute("flush ruleset\n" + text, Options(filename=FILE), self.whole)

    def _json(self) -> str:
        """A rule of JSON, parts of it others."""
        rule = {"family": self.family, "table": "t", "chain": "c",
                "expr": texts.spoil(self.rng.choice(texts.expressions()), self.rng)}  # fmt: skip
        text = texts.dumped({"nftables": [{"add": {"rule": rule}}]}, self.rng)
        return self._execute(text, Options(filename=FILE, json_input=True))

    def _documents(self) -> str:
        """The listing of a whole ruleset as JSON, parts of it others."""
        maker = RulesetManager()
        maker.execute(self.rng.choice(texts.files()))
        document = json.loads(maker.execute("list ruleset", Options(json=True)).output)
        commands = [{"flush": {"ruleset": None}}, *({"add": entry} for entry in document["nftables"] if "metainfo" not in entry)]
        text = texts.dumped({"nftables": texts.spoil(commands, self.rng, 0.01)}, self.rng)
        return self._execute(text, Options(filename=FILE, json_input=True), self.whole)

    def _saved(self) -> str:
        """Saved rules of iptables; what is translated is nft's language."""
        newer, text = self.rng.choice(texts.saved())
        text = self.text = texts.mutate(text, self.rng, texts.OPTIONS)
        try:
            translated = list(restore(IPV6 if newer else IPV4, text))
        except RestoreError as error:
            if not 1 <= error.line <= text.count("\n") + 1:
                raise Finding(f"line {error.line} is not in the text") from None
            return "refused"
        outcome = self._execute("\n".join(translated) + "\n", Options(filename=FILE), self.whole)
        return "accepted" if outcome == "accepted" else "translated, refused"

    def _configuration(self) -> str:
        """A configuration, mutated."""
        words = ["[", "]", '"', "=", "[[port]]", "true", "-1", "{", "#"]
        self.text = texts.mutate(self.rng.choice(texts.configurations()), self.rng, words)
        try:
            parse_configuration(self.text)
        except ConfigError as error:
            if not error.problems:
                raise Finding("refused without a reason") from None
            return "refused"
        return "accepted"

    def _execute(self, text: str, options: Options, manager: RulesetManager | None = None) -> str:
        self.text = text
        manager = manager or self.manager
        before = manager.execute("list ruleset").output
        result = manager.execute(text, options)
        listed = manager.execute("list ruleset").output
        if result.status:
            if before != listed:
                raise Finding(f"refused, but changed\n{result.errors}\n{before}\n{listed}")
            self._placed(text, result.errors)
            return "refused"
        if listed != before:
            self._lists_again(listed, manager.execute("list ruleset", Options(json=True)).output)
        return "accepted"

    def _placed(self, text: str, errors: str) -> None:
        """Every error tells a line of the text, and columns of it."""
        lines = text.encode("utf-8", "surrogateescape").split(b"\n")
        places = _PLACE.findall(errors)
        if not places:
            raise Finding(f"an error without a place\n{errors}")
        for name, line, first, last, _ in places:
            if name == FILE and not (1 <= int(line) <= len(lines) and 1 <= int(first) <= int(last) + 1):  # JSON has no places
                raise Finding(f"a place that is not in the text\n{errors}")

    def _lists_again(self, listed: str, document: str) -> None:
        """The listing loads, and lists the same; so does the listing as JSON."""
        if _UNSAID.search(listed):
            return
        for text, options in ((listed, Options()), (document, Options(json_input=True))):
            if options.json_input and _UNSAID_IN_JSON.search(listed):
                continue
            again = RulesetManager()
            result = again.execute(text, options)
            if any(words in result.errors for words in _LOST):
                continue
            if result.status:
                raise Finding(f"its own listing is refused\n{result.errors}\n{text}")
            twice = again.execute("list ruleset").output
            if twice != listed and text == listed:  # as nft, a set of one member loses its braces, a reject a question
                once_more = RulesetManager()
                once_more.execute(twice)
                if once_more.execute("list ruleset").output != twice:
                    raise Finding(f"the listing lists as something else\n{listed}\n{twice}")


def main() -> int:
    """Command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="make fuzz-rules", description=__doc__, formatter_class=raw)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path(".make/fuzz-rules"), help="where findings are written")
    options = parser.parse_args()
    fuzz, began, warm, done, told = TextFuzz(options.seed), time.monotonic(), 0, 0, 0
    while time.monotonic() - began < options.minutes * 60 and len(fuzz.findings) < ENOUGH:
        fuzz.run(TURNS)
        done += TURNS * len(fuzz.kinds)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if not warm and time.monotonic() - began > options.minutes * 20:
            warm = memory
        if time.monotonic() - began > told * 20:
            told += 1
            print(f"{done:>9,} inputs  {time.monotonic() - began:5.0f} s  {memory >> 10} MB  {len(fuzz.findings)} findings",
                  file=sys.stderr)
    report = fuzz.report() | {"inputs": done, "memory_growth_kb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - warm}
    for number, (kind, text, words) in enumerate(fuzz.findings):
        options.folder.mkdir(parents=True, exist_ok=True)
        path = options.folder / f"{options.seed}-{number}-{kind}.txt"
        path.write_text(f"{words}\n--- the input\n{text}\n", errors="surrogateescape")
        print(f"{path}: {words.strip().splitlines()[-1 if words.startswith('Traceback') else 0]}")
    print(json.dumps(report, indent=2))
    return int(bool(fuzz.findings) or report["memory_growth_kb"] > GROWTH)


if __name__ == "__main__":
    sys.exit(main())
