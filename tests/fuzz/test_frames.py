"""A short fuzz of the packet path at every test run; `run.py` is the long one."""

from pathlib import Path

import pytest
from run import Fuzz

RULESET = (Path(__file__).parent / "rules.nft").read_text()


@pytest.mark.parametrize("ruleset", [None, RULESET], ids=["plain", "ruleset"])
def test_mutated_frames_never_escape(ruleset: str | None) -> None:
    fuzz = Fuzz(20_240_601, ruleset)
    fuzz.run(30_000)
    report = fuzz.report()
    assert report["faults"] == []
    assert sum(report["drops"].values()) >= report["dropped"] > 0
    assert "INTERNAL_ERROR" not in report["drops"] and "NOT_SPECIFIED" not in report["drops"]
    assert report["sent"]["wan"] > 1000  # much of it must get through, or nothing behind the first checks is tested
