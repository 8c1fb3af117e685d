"""The benchmark's own parts that need no network: names, table, JSON, plot, the flood's frames."""

import json
from pathlib import Path

import pytest

from bench import report
from bench.blast import folded, syn
from bench.stats import summary

UNITS = {"speed": "Gbit/s", "time": "s"}


def results() -> report.Results:
    found = report.Results(UNITS, {"speed": "a generator"}, 3)
    for value in (4.0, 2.0, 3.0):
        found.add("kernel", "speed", value)
        found.add("userfw", "speed", value * 2)
        found.add("Open vSwitch", "speed", 0.5)
    found.add("userfw", "time", 0.25)
    return found


def test_the_table_has_medians_spreads_and_ratios() -> None:
    text = "\n".join(results().lines())
    assert "2 to 4" in text and "4 to 8   2.00 of kernel" in text
    assert "userfw is 12.0 times Open vSwitch" in text
    assert "times" not in next(line for line in text.splitlines() if line.startswith("time"))


def test_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(report, "PLOTTED", ("speed",))
    found = results()
    assert found.write(tmp_path / "more.json", None) == 0
    document = json.loads((tmp_path / "more.json").read_text())
    assert document["results"]["speed"]["userfw"] == summary([8.0, 4.0, 6.0])
    assert document["generators"] == {"speed": "a generator"}
    assert (tmp_path / "results" / "forwarding.svg").read_text().startswith("<svg")
    found.trouble.append("kernel: no route")
    assert found.write(None, None) == 1


def test_the_floods_frames_are_whole_and_distinct() -> None:
    frame = bytes(12) + b"\x08\x00" + bytes.fromhex("4500002c00010000400600000a000001c0a80001") + bytes.fromhex(
        "040000500000000100000000600220000000000002040200")
    frames = [syn(frame, number) for number in range(0, 100_000, 777)]
    assert len(set(frames)) == len(frames)
    for data in frames:
        assert folded(data[14:34]) == 0
        assert folded(data[26:], 6 + len(data) - 34) == 0
    kinds = [syn(frame, number)[26:36] for number in range(100_000)]
    assert len(set(kinds)) == len(kinds)
