"""What a ruleset remembers, read from `nft list ruleset` of either side: counters, quotas, elements of dynamic sets.

Laws
- Only what two versions of nft write alike is looked at: names of tables, chains and sets, numbers behind known words.
- The n-th counter (quota) of a chain is `family table chain #n`. Elements of sets whose names begin with `dyn` are kept whole but
  for times and for rates; not of those with `ct count`: the kernel takes an element that counts nothing away by the clock.
"""

import re

_COUNTER = re.compile(r"counter packets (\d+) bytes (\d+)")
_USED = re.compile(r"quota (?:over |until )?[\d.]+ \w?bytes(?: used (\d+) (\w?bytes))?")
_TIMES = re.compile(r" (?:timeout|expires) [\w.]+|limit rate [^,}]*?packets|last (?:used )?[\w.]+")
_COUNTING = re.compile(r"dyncount\d|dynmarkct")
_UNITS = {"bytes": 1, "kbytes": 1024, "mbytes": 1 << 20}
_BLOCK = re.compile(r"^\t(chain|set|map|counter|quota|limit|ct \w+|synproxy|secmark|flowtable) (\S+) \{(.*)$")


def memory(listing: str) -> dict[str, object]:
    """Place -> (packets, bytes), bytes used, or the elements as a sorted tuple."""
    found: dict[str, object] = {}
    table = name = kind = ""
    numbers: dict[str, int] = {}
    elements: list[str] | None = None
    for line in listing.splitlines():
        if line.startswith("table "):
            table = " ".join(line.split()[1:3])
        elif block := _BLOCK.match(line):
            kind, name = block[1], block[2]
        kept = kind in ("set", "map") and name.startswith("dyn") and not _COUNTING.match(name)
        if elements is not None or (kept and "elements = {" in line):
            elements = [*(elements or []), line.partition("= {")[2] if elements is None else line]
            if "}" in elements[-1]:
                found[f"{table} {name}"] = _elements(" ".join(elements))
                elements = None
        elif kind in ("chain", "counter", "quota"):
            _numbers(line, f"{table} {name}" + (" #" if kind == "chain" else f" {kind} "), numbers, found)
    return found


def _numbers(line: str, place: str, numbers: dict[str, int], found: dict[str, object]) -> None:
    text = line if "packets" not in line or "counter" in line else f"counter {line.strip()}"
    if place.endswith(" quota ") and "quota" not in text:
        text = f"quota {line.strip()}"
    for match in _COUNTER.finditer(text):
        numbers[place] = numbers.get(place, 0) + 1
        found[f"{place}{numbers[place]}"] = (int(match[1]), int(match[2]))
    for match in _USED.finditer(text):
        key = f"{place}quota "
        numbers[key] = numbers.get(key, 0) + 1
        found[f"{key}{numbers[key]}"] = int(match[1] or 0) * _UNITS[match[2] or "bytes"]


def _elements(text: str) -> tuple[str, ...]:
    parts = [_TIMES.sub("", part).split("}")[0].replace("\t", "").strip() for part in text.split(",")]
    return tuple(sorted(" ".join(part.split()) for part in parts if part))
